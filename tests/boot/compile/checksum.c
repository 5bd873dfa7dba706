// SPDX-License-Identifier: BSD-2-Clause
// Of tests/boot/compile.py: CRC-32, Adler-32 and SHA-256 of memory that changes, and wide products.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SIZE = 1 << 20, ROUNDS = 4 };

static uint32_t rotate(uint32_t value, int count)
{
    return value >> count | value << (32 - count);
}

static uint32_t crc32(const uint8_t *data, size_t size)
{
    uint32_t table[256], crc = ~0U;
    for (uint32_t i = 0; i < 256; i++) {
        table[i] = i;
        for (int bit = 0; bit < 8; bit++)
            table[i] = table[i] >> 1 ^ (table[i] & 1 ? 0xedb88320U : 0);
    }
    for (size_t i = 0; i < size; i++)
        crc = crc >> 8 ^ table[(crc ^ data[i]) & 0xff];
    return ~crc;
}

static uint32_t adler32(const uint8_t *data, size_t size)
{
    uint32_t low = 1, high = 0;
    for (size_t i = 0; i < size; i++) {
        low = (low + data[i]) % 65521;
        high = (high + low) % 65521;
    }
    return high << 16 | low;
}

// The first bits of the fraction of a prime's root: by integers, so that no library has a say.
static uint32_t root_bits(uint64_t prime, int power)
{
    unsigned __int128 wanted = (unsigned __int128)prime << (power == 2 ? 64 : 96), low = 0;
    for (int bit = 36; bit >= 0; bit--) {
        unsigned __int128 trial = low | (unsigned __int128)1 << bit;
        unsigned __int128 product = power == 2 ? trial * trial : trial * trial * trial;
        if (product <= wanted)
            low = trial;
    }
    return (uint32_t)low;
}

static void sha256_constants(uint32_t start[8], uint32_t constants[64])
{
    for (int found = 0, number = 2; found < 64; number++) {
        int is_prime = 1;
        for (int divisor = 2; divisor * divisor <= number; divisor++)
            is_prime &= number % divisor != 0;
        if (!is_prime)
            continue;
        if (found < 8)
            start[found] = root_bits(number, 2);
        constants[found++] = root_bits(number, 3);
    }
}

// FIPS 180-4, section 6.2.2.
static void sha256_block(uint32_t state[8], const uint32_t constants[64], const uint8_t *data)
{
    uint32_t words[64], v[8];
    memcpy(v, state, sizeof(v));
    for (int i = 0; i < 64; i++) {
        if (i < 16) {
            memcpy(&words[i], data + 4 * i, 4);
            words[i] = __builtin_bswap32(words[i]);
        } else {
            uint32_t a = words[i - 15], b = words[i - 2];
            words[i] = words[i - 16] + (rotate(a, 7) ^ rotate(a, 18) ^ a >> 3) + words[i - 7] +
                       (rotate(b, 17) ^ rotate(b, 19) ^ b >> 10);
        }
        uint32_t one = v[7] + (rotate(v[4], 6) ^ rotate(v[4], 11) ^ rotate(v[4], 25)) +
                       ((v[4] & v[5]) ^ (~v[4] & v[6])) + constants[i] + words[i];
        uint32_t two = (rotate(v[0], 2) ^ rotate(v[0], 13) ^ rotate(v[0], 22)) +
                       ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
        memmove(v + 1, v, 7 * sizeof(v[0]));
        v[4] += one;
        v[0] = one + two;
    }
    for (int i = 0; i < 8; i++)
        state[i] += v[i];
}

int main(void)
{
    uint8_t *data = malloc(SIZE);
    if (!data)
        return 1;
    uint32_t state[8], constants[64];
    uint64_t seed = 88172645463325252, product = 1;
    sha256_constants(state, constants);
    for (int round = 0; round < ROUNDS; round++) {
        for (size_t i = 0; i < SIZE; i++) {
            unsigned __int128 wide = (unsigned __int128)seed * 0xda942042e4dd58b5 + i;
            seed = (uint64_t)wide ^ (uint64_t)(wide >> 64);
            data[i] = seed >> (i % 57);
            product = product * (seed | 1) + seed / (i + 3) + seed % (i + 7);
        }
        for (size_t i = 0; i < SIZE; i += 64)
            sha256_block(state, constants, data + i);
        printf("checksum %d: crc %08x adler %08x product %016llx\n", round, crc32(data, SIZE),
               adler32(data, SIZE), (unsigned long long)product);
    }
    printf("checksum sha256 ");
    for (int i = 0; i < 8; i++)
        printf("%08x", state[i]);
    printf("\n");
    free(data);
    return 0;
}
