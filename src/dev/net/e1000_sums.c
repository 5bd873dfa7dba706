/* SPDX-License-Identifier: BSD-2-Clause
 *
 * e1000: sums over frames (RFC 1071, IEEE 802.3 clause 3.2.9), statistics, rings.
 */
#include "dev/net/e1000_internal.h"

uint32_t e1000_sum(const uint8_t *bytes, size_t size_bytes, uint32_t sum)
{
    uint64_t wide = sum;
    size_t i = 0;
    for (; i + 1 < size_bytes; i += 2)
        wide += (uint32_t)bytes[i] << 8 | bytes[i + 1];
    if (i < size_bytes)
        wide += (uint32_t)bytes[i] << 8;
    while (wide >> 32)
        wide = (wide & UINT32_MAX) + (wide >> 32);
    return (uint32_t)wide;
}

uint16_t e1000_fold(uint32_t sum)
{
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}

uint32_t e1000_crc(const uint8_t *bytes, size_t size_bytes)
{
    /* of the sixteen values of four bits, with the polynomial 0xedb88320 */
    static const uint32_t table[16] = {0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac,
                                       0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
                                       0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c,
                                       0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c};
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < size_bytes; i++) {
        crc = crc >> 4 ^ table[(crc ^ bytes[i]) & 15];
        crc = crc >> 4 ^ table[(crc ^ bytes[i] >> 4) & 15];
    }
    return ~crc;
}

/* Counters stick at their greatest value. */
void e1000_count(struct e1000 *e, unsigned counter, uint64_t n)
{
    uint32_t *value = e1000_reg(e, counter);
    *value = n > UINT32_MAX - *value ? UINT32_MAX : *value + (uint32_t)n;
}

void e1000_count_octets(struct e1000 *e, unsigned counter, uint64_t n)
{
    uint32_t *low = e1000_reg(e, counter), *high = low + 1;
    uint64_t value = *low | (uint64_t)*high << 32;
    value = n > UINT64_MAX - value ? UINT64_MAX : value + n;
    *low = (uint32_t)value;
    *high = (uint32_t)(value >> 32);
}

void e1000_count_size(struct e1000 *e, unsigned first, uint64_t frame_bytes)
{
    static const uint16_t ends[5] = {64, 127, 255, 511, 1023};
    unsigned i = 0;
    while (i < 5 && frame_bytes > ends[i])
        i++;
    e1000_count(e, first + 4 * i, 1);
}

bool e1000_ring(struct e1000 *e, unsigned block, struct e1000_ring *ring)
{
    *ring = (struct e1000_ring){
        .block = block,
        .base = (*e1000_reg(e, block + RING_BASE_LOW) & ~15U) |
                (uint64_t)*e1000_reg(e, block + RING_BASE_HIGH) << 32,
        .count = (*e1000_reg(e, block + RING_LENGTH) & 0xfff80) / E1000_DESCRIPTOR_BYTES,
        .head = *e1000_reg(e, block + RING_HEAD) & 0xffff,
        .tail = *e1000_reg(e, block + RING_TAIL) & 0xffff,
    };
    return ring->head < ring->count && ring->tail < ring->count;
}
