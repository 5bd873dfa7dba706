/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Text: characters in plane 0, attributes in plane 1, fonts in plane 2 with 32 bytes a character.
 */
#include "dev/vga/vga_internal.h"

enum { FONT_BYTES = 32, CURSOR_BLINK_BIT = 0x80, UNDERLINE_ROW = 0x1f };

/* SR03: which of the eight fonts attributes with bit 3 clear (`map` 0) and set (1) use. */
static uint32_t font_base(const struct vga_state *s, unsigned map)
{
    static const uint32_t bases[8] = {0x0000, 0x4000, 0x8000, 0xc000,
                                      0x2000, 0x6000, 0xa000, 0xe000};
    uint8_t select = s->seq[SEQ_FONT];
    unsigned number =
        map ? (select >> 2 & 3) | (select >> 3 & 4) : (select & 3) | (select >> 2 & 4);
    return bases[number];
}

static bool cursor_covers(const struct vga_state *s, const struct vga_picture *picture,
                          unsigned row)
{
    uint8_t start = s->crtc[CRTC_CURSOR_START], end = s->crtc[CRTC_CURSOR_END];
    return !(start & CURSOR_OFF) && picture->blink_on && row >= (start & 31u) && row <= (end & 31u);
}

/* The nine or eight dots of a character on this scan line, leftmost in the highest of 9 bits. */
static unsigned dots_of(const struct vga *vga, const struct vga_state *s,
                        const struct vga_picture *picture, uint8_t character, uint8_t attribute,
                        unsigned row)
{
    uint32_t font = font_base(s, attribute >> 3 & 1);
    unsigned dots = vga->memory[(font + character * FONT_BYTES + row) * 4u + 2];
    bool joins =
        (character & 0xe0) == 0xc0 && (s->attribute[ATTRIBUTE_MODE] & ATTRIBUTE_MODE_LINE_GRAPHICS);
    dots = dots << 1 | (joins ? dots & 1 : 0);
    /* Monochrome: attributes of colour 1 are underlined. */
    if ((s->attribute[ATTRIBUTE_MODE] & ATTRIBUTE_MODE_MONO) && (attribute & 0x77) == 0x01 &&
        row == (s->crtc[CRTC_UNDERLINE] & UNDERLINE_ROW))
        dots = 0x1ff;
    return picture->dots == 9 ? dots : dots & 0x1fe;
}

struct cell {
    unsigned dots;
    uint32_t foreground, background;
};

static void take_cell(const struct vga *vga, const struct vga_state *s,
                      const struct vga_picture *picture, uint32_t address, unsigned row,
                      bool has_cursor, struct cell *cell)
{
    const uint8_t *word = vga->memory + 4 * vga_address(s, address, row);
    uint8_t character = word[0], attribute = word[1];
    unsigned background = attribute >> 4;
    cell->dots = dots_of(vga, s, picture, character, attribute, row);
    if (s->attribute[ATTRIBUTE_MODE] & ATTRIBUTE_MODE_BLINK) {
        background &= 7;
        if ((attribute & CURSOR_BLINK_BIT) && !picture->blink_on)
            cell->dots = 0;
    }
    if (has_cursor)
        cell->dots = 0x1ff;
    cell->foreground = picture->palette[picture->colors[attribute & 15]];
    cell->background = picture->palette[picture->colors[background]];
}

/* Draws from `pan` pixels before `out` on; only what is right of its start. */
void vga_draw_text(const struct vga *vga, const struct vga_state *s,
                   const struct vga_picture *picture, const struct vga_line *line, uint32_t *out)
{
    uint32_t cursor = (uint32_t)s->crtc[CRTC_CURSOR_HIGH] << 8 | s->crtc[CRTC_CURSOR_LOW];
    cursor += s->crtc[CRTC_CURSOR_END] >> 5 & 3; /* skew */
    bool is_cursor_row = cursor_covers(s, picture, line->row);
    unsigned scale = picture->is_doubled ? 2 : 1, skip = line->pan;
    uint32_t *end = out + picture->width;
    for (uint32_t i = 0; i <= picture->characters; i++) {
        struct cell cell;
        uint32_t address = line->address + i;
        take_cell(vga, s, picture, address, line->row,
                  is_cursor_row && (address & 0xffff) == (cursor & 0xffff), &cell);
        for (unsigned dot = skip; dot < picture->dots; dot++)
            for (unsigned copy = 0; copy < scale && out < end; copy++)
                *out++ = cell.dots >> (8 - dot) & 1 ? cell.foreground : cell.background;
        skip = 0;
    }
}
