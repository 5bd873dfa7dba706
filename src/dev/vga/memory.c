/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The VGA's memory as the processor sees it through its window at a0000: planes with latches, the
 * four write and two read modes, odd/even, chain-4, and the banks of the Bochs interface. All four
 * planes of an address are one 32-bit word, so each step is done on four bytes at once.
 */
#include "dev/vga/vga_internal.h"

#include <string.h>

enum { BANK_BYTES = 0x10000 };

static uint32_t four(uint8_t byte)
{
    return byte * UINT32_C(0x01010101);
}

/* 0xff in the byte of each plane whose bit is set. */
static uint32_t planes(uint8_t bits)
{
    return (bits & 1 ? UINT32_C(0xff) : 0) | (bits & 2 ? UINT32_C(0xff00) : 0) |
           (bits & 4 ? UINT32_C(0xff0000) : 0) | (bits & 8 ? UINT32_C(0xff000000) : 0);
}

static uint32_t *word_at(const struct vga *vga, uint32_t index)
{
    return (uint32_t *)(void *)vga->memory + index;
}

/* GR06, bits 2 and 3: which part of the window answers. Moves *offset to that part's start. */
static bool window_offset(const struct vga_state *s, uint64_t *offset)
{
    static const struct {
        uint32_t base, size_bytes;
    } maps[4] = {{0, 0x20000}, {0, 0x10000}, {0x10000, 0x8000}, {0x18000, 0x8000}};
    unsigned map = s->graphics[GRAPHICS_MISC] >> 2 & 3;
    if (!(s->misc & MISC_RAM) || *offset < maps[map].base ||
        *offset - maps[map].base >= maps[map].size_bytes)
        return false;
    *offset -= maps[map].base;
    return true;
}

/* The window onto the memory of a mode of the Bochs interface: a bank of 64 KiB. With 4 bits a
 * pixel it counts addresses of planes. */
static bool is_banked(const struct vga_state *s)
{
    return vga_dispi_on(s) && s->dispi[DISPI_BPP] > 4;
}

static uint64_t bank_offset(const struct vga_state *s, uint64_t offset)
{
    return (uint64_t)s->dispi[DISPI_BANK] * BANK_BYTES + offset;
}

/* The word of a plane's address; false: there is no such memory. */
static bool plane_word(const struct vga *vga, uint64_t offset, uint32_t *word)
{
    uint64_t words = vga->config.memory_bytes / 4;
    uint64_t index = offset % VGA_PLANE_WORDS;
    if (vga_dispi_on(&vga->s))
        index += (uint64_t)vga->s.dispi[DISPI_BANK] * VGA_PLANE_WORDS;
    *word = (uint32_t)index;
    return index < words;
}

/* ---- reading ---- */

/* Read mode 1: a bit is set where all planes that are cared for have the compared colour's. */
static uint8_t compare_color(const struct vga_state *s)
{
    uint32_t differs = (s->latch ^ planes(s->graphics[GRAPHICS_COMPARE])) &
                       planes(s->graphics[GRAPHICS_DONT_CARE]);
    differs |= differs >> 16;
    differs |= differs >> 8;
    return (uint8_t)~differs;
}

static uint8_t read_byte(struct vga *vga, uint64_t offset)
{
    struct vga_state *s = &vga->s;
    uint32_t word;
    unsigned plane = s->graphics[GRAPHICS_READ_MAP] & 3;
    if (s->seq[SEQ_MEMORY_MODE] & MEMORY_CHAIN4) {
        plane = offset & 3;
        offset &= ~UINT64_C(3);
    } else if (s->graphics[GRAPHICS_MODE] & GRAPHICS_MODE_ODD_EVEN) {
        plane = (plane & 2) | (offset & 1);
        offset &= ~UINT64_C(1);
    }
    if (!plane_word(vga, offset, &word))
        return 0xff;
    s->latch = *word_at(vga, word);
    if (s->graphics[GRAPHICS_MODE] & GRAPHICS_MODE_READ_COMPARE)
        return compare_color(s);
    return (uint8_t)(s->latch >> 8 * plane);
}

static uint64_t linear_read(const struct vga *vga, uint64_t offset, unsigned size_bytes)
{
    uint64_t value = UINT64_MAX;
    if (offset + size_bytes <= vga->config.memory_bytes)
        memcpy(&value, vga->memory + offset, size_bytes);
    return value;
}

uint64_t vga_window_read(void *opaque, uint64_t offset, unsigned size_bytes)
{
    struct vga *vga = opaque;
    uint64_t value = UINT64_MAX;
    pthread_mutex_lock(&vga->lock);
    if (!window_offset(&vga->s, &offset)) {
        /* nobody answers */
    } else if (is_banked(&vga->s)) {
        value = linear_read(vga, bank_offset(&vga->s, offset), size_bytes);
    } else {
        value = 0;
        for (unsigned i = 0; i < size_bytes; i++)
            value |= (uint64_t)read_byte(vga, offset + i) << 8 * i;
    }
    pthread_mutex_unlock(&vga->lock);
    return value;
}

/* ---- writing ---- */

/* GR03, bits 3 and 4: how the latches come in. */
static uint32_t combine(const struct vga_state *s, uint32_t value)
{
    switch (s->graphics[GRAPHICS_ROTATE] >> 3 & 3) {
    case 1: return value & s->latch;
    case 2: return value | s->latch;
    case 3: return value ^ s->latch;
    default: return value;
    }
}

static uint8_t rotate(const struct vga_state *s, uint8_t byte)
{
    unsigned count = s->graphics[GRAPHICS_ROTATE] & 7;
    return (uint8_t)(byte >> count | byte << (8 - count));
}

/* What the four planes would become, were all of them written: GR05, bits 0 and 1. */
static uint32_t modify(const struct vga_state *s, uint8_t byte)
{
    uint32_t mask = four(s->graphics[GRAPHICS_BIT_MASK]);
    uint32_t value, set = planes(s->graphics[GRAPHICS_SET_RESET]);
    switch (s->graphics[GRAPHICS_MODE] & 3) {
    case 0: {
        uint32_t enable = planes(s->graphics[GRAPHICS_SET_RESET_ENABLE]);
        value = combine(s, (four(rotate(s, byte)) & ~enable) | (set & enable));
        break;
    }
    case 1: return s->latch;
    case 2: value = combine(s, planes(byte)); break;
    default:
        mask &= four(rotate(s, byte));
        value = set;
        break;
    }
    return (value & mask) | (s->latch & ~mask);
}

static void write_byte(struct vga *vga, uint64_t offset, uint8_t byte)
{
    const struct vga_state *s = &vga->s;
    uint8_t mask = s->seq[SEQ_MAP_MASK] & 15;
    uint32_t index;
    if (s->seq[SEQ_MEMORY_MODE] & MEMORY_CHAIN4) {
        mask &= (uint8_t)(1 << (offset & 3));
        offset &= ~UINT64_C(3);
    } else if (!(s->seq[SEQ_MEMORY_MODE] & MEMORY_SEQUENTIAL)) {
        mask &= offset & 1 ? 0xa : 0x5;
        offset &= ~UINT64_C(1);
    }
    if (!mask || !plane_word(vga, offset, &index))
        return;
    uint32_t *word = word_at(vga, index);
    uint32_t written = planes(mask);
    *word = (modify(s, byte) & written) | (*word & ~written);
    vga_mark(vga, (uint64_t)index * 4);
}

static void linear_write(struct vga *vga, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    if (offset + size_bytes > vga->config.memory_bytes)
        return;
    memcpy(vga->memory + offset, &value, size_bytes);
    vga_mark(vga, offset);
    vga_mark(vga, offset + size_bytes - 1);
}

void vga_window_write(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    struct vga *vga = opaque;
    pthread_mutex_lock(&vga->lock);
    if (!window_offset(&vga->s, &offset)) {
        /* nobody answers */
    } else if (is_banked(&vga->s)) {
        linear_write(vga, bank_offset(&vga->s, offset), value, size_bytes);
    } else {
        for (unsigned i = 0; i < size_bytes; i++)
            write_byte(vga, offset + i, (uint8_t)(value >> 8 * i));
    }
    pthread_mutex_unlock(&vga->lock);
}
