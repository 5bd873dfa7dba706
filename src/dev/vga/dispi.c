/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The Bochs display interface (Bochs's iodev/display/vga.h names the registers; QEMU's
 * docs/specs/standard-vga.txt their places): modes of any size with 4 to 32 bits a pixel, shown out
 * of a larger virtual screen. Any value may be written; what does not fit is cut when it is set,
 * and drawing checks each line against the memory once more.
 */
#include "dev/vga/vga_internal.h"

#include <string.h>

enum {
    FIRST_ID = 0xb0c0,
    LAST_ID = 0xb0c5,
    /* What the interface says that it can do. A monitor of this size is a canvas's greatest. */
    MAX_WIDTH = DISPLAY_MAX_WIDTH,
    MAX_HEIGHT = DISPLAY_MAX_HEIGHT,
    MAX_BPP = 32,
};

static bool is_depth(unsigned bpp)
{
    return bpp == 4 || bpp == 8 || bpp == 15 || bpp == 16 || bpp == 24 || bpp == 32;
}

/* A pixel of 15 bits takes two bytes. */
static uint64_t stored_bits(const struct vga_state *s)
{
    return s->dispi[DISPI_BPP] == 15 ? 16 : s->dispi[DISPI_BPP];
}

/* Of one plane with 4 bits a pixel. */
static uint64_t bits_to_bytes(const struct vga_state *s, uint64_t pixels)
{
    return s->dispi[DISPI_BPP] == 4 ? pixels / 8 : pixels * stored_bits(s) / 8;
}

uint64_t vga_dispi_stride(const struct vga_state *s)
{
    return bits_to_bytes(s, s->dispi[DISPI_VIRTUAL_WIDTH]);
}

uint64_t vga_dispi_start(const struct vga_state *s)
{
    return s->dispi[DISPI_Y] * vga_dispi_stride(s) + bits_to_bytes(s, s->dispi[DISPI_X]);
}

/* The virtual screen is at least as wide as the one shown, and as high as the memory allows. */
static void fit_virtual(struct vga *vga)
{
    struct vga_state *s = &vga->s;
    if (s->dispi[DISPI_VIRTUAL_WIDTH] < s->dispi[DISPI_WIDTH])
        s->dispi[DISPI_VIRTUAL_WIDTH] = s->dispi[DISPI_WIDTH];
    uint64_t line_bits = s->dispi[DISPI_VIRTUAL_WIDTH] * stored_bits(s);
    uint64_t lines = line_bits ? (uint64_t)vga->config.memory_bytes * 8 / line_bits : 0;
    s->dispi[DISPI_VIRTUAL_HEIGHT] = lines < UINT16_MAX ? (uint16_t)lines : UINT16_MAX;
}

static void clear_memory(struct vga *vga)
{
    struct vga_state *s = &vga->s;
    uint64_t bytes =
        (uint64_t)s->dispi[DISPI_VIRTUAL_WIDTH] * stored_bits(s) / 8 * s->dispi[DISPI_HEIGHT];
    if (bytes > vga->config.memory_bytes)
        bytes = vga->config.memory_bytes;
    memset(vga->memory, 0, bytes);
    for (uint64_t at = 0; at < bytes; at += VGA_PAGE_BYTES)
        vga_mark(vga, at);
}

bool vga_dispi_valid(const struct vga_state *s)
{
    return s->dispi[DISPI_WIDTH] <= MAX_WIDTH && s->dispi[DISPI_HEIGHT] <= MAX_HEIGHT &&
           (!vga_dispi_on(s) || is_depth(s->dispi[DISPI_BPP]));
}

/* A change from off to on sets the mode: all of the screen from the memory's start. */
static void enable(struct vga *vga, uint16_t value)
{
    struct vga_state *s = &vga->s;
    bool was_on = vga_dispi_on(s);
    if ((value & DISPI_ON) && !is_depth(s->dispi[DISPI_BPP]))
        value &= (uint16_t)~DISPI_ON;
    s->dispi[DISPI_ENABLE] = value;
    s->dispi[DISPI_BANK] = 0;
    if (!(value & DISPI_ON) || was_on)
        return;
    s->dispi[DISPI_X] = s->dispi[DISPI_Y] = 0;
    s->dispi[DISPI_VIRTUAL_WIDTH] = s->dispi[DISPI_WIDTH];
    fit_virtual(vga);
    if (!(value & DISPI_KEEP_MEMORY))
        clear_memory(vga);
}

static uint16_t at_most(uint16_t value, unsigned most)
{
    return value < most ? value : (uint16_t)most;
}

void vga_dispi_write(struct vga *vga, unsigned index, uint16_t value)
{
    struct vga_state *s = &vga->s;
    switch (index) {
    case DISPI_ID:
        if (value >= FIRST_ID && value <= LAST_ID)
            s->dispi[DISPI_ID] = value;
        break;
    case DISPI_WIDTH: s->dispi[index] = at_most(value, MAX_WIDTH); break;
    case DISPI_HEIGHT: s->dispi[index] = at_most(value, MAX_HEIGHT); break;
    case DISPI_BPP: s->dispi[index] = value ? value : 8; break;
    case DISPI_ENABLE: enable(vga, value); break;
    case DISPI_BANK:
        if (value < vga->config.memory_bytes >> 16)
            s->dispi[index] = value;
        break;
    case DISPI_VIRTUAL_WIDTH: s->dispi[index] = value; break;
    case DISPI_X:
    case DISPI_Y: s->dispi[index] = value; break;
    default: break;
    }
    if (index == DISPI_VIRTUAL_WIDTH || (index == DISPI_WIDTH && vga_dispi_on(s)))
        fit_virtual(vga);
    /* An unknown depth has no picture, so none can be chosen while one is shown. */
    if (index == DISPI_BPP && vga_dispi_on(s)) {
        if (!is_depth(s->dispi[DISPI_BPP]))
            s->dispi[DISPI_ENABLE] &= (uint16_t)~DISPI_ON;
        fit_virtual(vga);
    }
}

uint16_t vga_dispi_read(const struct vga *vga, unsigned index)
{
    const struct vga_state *s = &vga->s;
    if (index == DISPI_MEMORY_64K)
        return (uint16_t)(vga->config.memory_bytes >> 16);
    if (index >= VGA_DISPI_REGISTERS)
        return 0;
    if (s->dispi[DISPI_ENABLE] & DISPI_CAPABILITIES) {
        if (index == DISPI_WIDTH)
            return MAX_WIDTH;
        if (index == DISPI_HEIGHT)
            return MAX_HEIGHT;
        if (index == DISPI_BPP)
            return MAX_BPP;
    }
    return s->dispi[index];
}
