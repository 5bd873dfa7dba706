/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Lines of the Bochs interface's modes. A line that does not lie in the memory is black.
 */
#include "dev/vga/vga_internal.h"

#include <string.h>

static uint8_t scale5(unsigned value)
{
    return (uint8_t)(value << 3 | value >> 2);
}

static uint32_t rgb(uint8_t red, uint8_t green, uint8_t blue)
{
    return (uint32_t)red << 16 | (uint32_t)green << 8 | blue;
}

static uint32_t pixel15(unsigned value)
{
    return rgb(scale5(value >> 10 & 31), scale5(value >> 5 & 31), scale5(value & 31));
}

static uint32_t pixel16(unsigned value)
{
    unsigned green = value >> 5 & 63;
    return rgb(scale5(value >> 11 & 31), (uint8_t)(green << 2 | green >> 4), scale5(value & 31));
}

static void draw_planes(const struct vga *vga, const struct vga_picture *picture, uint64_t offset,
                        uint32_t *out)
{
    for (uint32_t x = 0; x < picture->width; x++) {
        const uint8_t *word = vga->memory + (offset + x / 8) * 4;
        unsigned shift = 7 - x % 8;
        unsigned color = (word[0] >> shift & 1) | (word[1] >> shift & 1) << 1 |
                         (word[2] >> shift & 1) << 2 | (word[3] >> shift & 1) << 3;
        out[x] = picture->palette[picture->colors[color]];
    }
}

static void draw_pixels(const struct vga_picture *picture, unsigned bpp, const uint8_t *from,
                        uint32_t *out)
{
    for (uint32_t x = 0; x < picture->width; x++) {
        switch (bpp) {
        case 8: out[x] = picture->palette[from[x]]; break;
        case 15: out[x] = pixel15(from[2 * x] | (unsigned)from[2 * x + 1] << 8); break;
        case 16: out[x] = pixel16(from[2 * x] | (unsigned)from[2 * x + 1] << 8); break;
        default: out[x] = rgb(from[3 * x + 2], from[3 * x + 1], from[3 * x]); break;
        }
    }
}

static void draw_words(const struct vga_picture *picture, const uint8_t *from, uint32_t *out)
{
    memcpy(out, from, picture->width * sizeof(*out));
    for (uint32_t x = 0; x < picture->width; x++)
        out[x] &= 0xffffff;
}

void vga_draw_linear(const struct vga *vga, const struct vga_state *s,
                     const struct vga_picture *picture, uint64_t offset, uint32_t *out)
{
    unsigned bpp = s->dispi[DISPI_BPP];
    uint64_t memory_bytes = vga->config.memory_bytes;
    uint64_t bytes =
        bpp == 4 ? (picture->width + UINT64_C(7)) / 8 : (uint64_t)picture->width * ((bpp + 7) / 8);
    if (bpp == 4)
        memory_bytes /= 4; /* of a plane */
    if (offset > memory_bytes || bytes > memory_bytes - offset)
        memset(out, 0, picture->width * sizeof(*out));
    else if (bpp == 4)
        draw_planes(vga, picture, offset, out);
    else if (bpp == 32)
        draw_words(picture, vga->memory + offset, out);
    else
        draw_pixels(picture, bpp, vga->memory + offset, out);
}
