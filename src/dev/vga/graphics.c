/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The VGA's own graphics: 16 colours in planes, CGA's two bits a pixel, 256 colours. Each character
 * clock takes one word of memory, the four planes of an address, and makes eight dots of it.
 */
#include "dev/vga/vga_internal.h"

/* The CRTC's counter goes on with every, every second or every fourth character. */
static unsigned count_shift(const struct vga_state *s)
{
    if (s->crtc[CRTC_UNDERLINE] & UNDERLINE_COUNT_4)
        return 2;
    return s->crtc[CRTC_MODE] & MODE_COUNT_2 ? 1 : 0;
}

/* DAC entries of eight dots, leftmost first, with four bits a dot. */
static void planar_dots(const struct vga_picture *picture, uint32_t word, uint8_t dots[8])
{
    for (unsigned i = 0; i < 8; i++) {
        uint32_t bits = word >> (7 - i);
        unsigned color = (bits & 1) | (bits >> 7 & 2) | (bits >> 14 & 4) | (bits >> 21 & 8);
        dots[i] = picture->colors[color];
    }
}

/* Plane 0 has four dots of two bits, then plane 1; planes 2 and 3 give the higher bits. */
static void interleaved_dots(const struct vga_picture *picture, uint32_t word, uint8_t dots[8])
{
    for (unsigned i = 0; i < 8; i++) {
        unsigned shift = 6 - 2 * (i & 3) + (i < 4 ? 0 : 8);
        unsigned color = (word >> shift & 3) | (word >> (shift + 16) & 3) << 2;
        dots[i] = picture->colors[color];
    }
}

/* Each plane has one dot, twice as wide. With eight bits a dot the palette of 16 is passed by. */
static void byte_dots(const struct vga_state *s, const struct vga_picture *picture, uint32_t word,
                      uint8_t dots[8])
{
    bool is_whole = s->attribute[ATTRIBUTE_MODE] & ATTRIBUTE_MODE_8_BIT;
    for (unsigned i = 0; i < 8; i++) {
        uint8_t color = (uint8_t)(word >> 8 * (i / 2));
        dots[i] = is_whole ? color : picture->colors[color & 15];
    }
}

void vga_draw_graphics(const struct vga *vga, const struct vga_state *s,
                       const struct vga_picture *picture, const struct vga_line *line,
                       uint32_t *out)
{
    const uint32_t *memory = (const uint32_t *)(const void *)vga->memory;
    unsigned scale = picture->is_doubled ? 2 : 1, shift = count_shift(s);
    unsigned skip = picture->kind == VGA_BYTES ? line->pan * 2 : line->pan;
    uint32_t *end = out + picture->width;
    for (uint32_t i = 0; i <= picture->characters; i++) {
        uint8_t dots[8];
        uint32_t word = memory[vga_address(s, line->address + (i >> shift), line->row)];
        if (picture->kind == VGA_BYTES)
            byte_dots(s, picture, word, dots);
        else if (picture->kind == VGA_INTERLEAVED)
            interleaved_dots(picture, word, dots);
        else
            planar_dots(picture, word, dots);
        for (unsigned dot = skip; dot < 8; dot++)
            for (unsigned copy = 0; copy < scale && out < end; copy++)
                *out++ = picture->palette[dots[dot]];
        skip = 0;
    }
}
