/* SPDX-License-Identifier: BSD-2-Clause
 * CRC-32C, reflected, with ones before and after: by SSE4.2 or by the bit. */
#include "base/crc32c.h"

#include <assert.h>
#include <nmmintrin.h>
#include <stdbool.h>
#include <string.h>

enum { STEP_BYTES = 8 };
static const uint32_t polynomial = 0x82f63b78;

/* Only for hosts older than 2008 and for the ends of blocks there: a table would not pay. */
static uint32_t update_plain(uint32_t crc, const uint8_t *bytes, size_t size_bytes)
{
    for (size_t i = 0; i < size_bytes; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? polynomial : 0);
    }
    return crc;
}

static uint64_t take(const uint8_t *bytes)
{
    uint64_t value;
    memcpy(&value, bytes, sizeof(value));
    return value;
}

__attribute__((target("sse4.2"))) static uint32_t update_fast(uint32_t crc, const uint8_t *bytes,
                                                              size_t size_bytes)
{
    uint64_t wide = crc;
    for (; size_bytes >= STEP_BYTES; size_bytes -= STEP_BYTES, bytes += STEP_BYTES)
        wide = _mm_crc32_u64(wide, take(bytes));
    crc = (uint32_t)wide;
    for (; size_bytes; size_bytes--)
        crc = _mm_crc32_u8(crc, *bytes++);
    return crc;
}

__attribute__((target("sse4.2"))) static void four_fast(const uint8_t *bytes, size_t size_bytes,
                                                        uint32_t sums[4])
{
    uint64_t a = UINT32_MAX, b = UINT32_MAX, c = UINT32_MAX, d = UINT32_MAX;
    for (size_t i = 0; i < size_bytes; i += STEP_BYTES) {
        a = _mm_crc32_u64(a, take(bytes + i));
        b = _mm_crc32_u64(b, take(bytes + size_bytes + i));
        c = _mm_crc32_u64(c, take(bytes + 2 * size_bytes + i));
        d = _mm_crc32_u64(d, take(bytes + 3 * size_bytes + i));
    }
    sums[0] = ~(uint32_t)a;
    sums[1] = ~(uint32_t)b;
    sums[2] = ~(uint32_t)c;
    sums[3] = ~(uint32_t)d;
}

uint32_t crc32c(const void *bytes, size_t size_bytes)
{
    return ~(__builtin_cpu_supports("sse4.2") ? update_fast(UINT32_MAX, bytes, size_bytes)
                                              : update_plain(UINT32_MAX, bytes, size_bytes));
}

void crc32c_four(const void *bytes, size_t size_bytes, uint32_t sums[4])
{
    assert(size_bytes % STEP_BYTES == 0);
    if (__builtin_cpu_supports("sse4.2")) {
        four_fast(bytes, size_bytes, sums);
        return;
    }
    for (unsigned i = 0; i < 4; i++)
        sums[i] = crc32c((const uint8_t *)bytes + i * size_bytes, size_bytes);
}
