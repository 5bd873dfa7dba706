/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What the registers show: the picture's size and kind, its colours, and where in memory each scan
 * line begins. Works on a copy of the registers; any value in them gives a picture.
 */
#include "dev/vga/vga_internal.h"

#include <string.h>

enum { BLANK_WIDTH = 720, BLANK_HEIGHT = 400 };

static uint8_t widen(uint8_t six_bits)
{
    return (uint8_t)(six_bits << 2 | six_bits >> 4);
}

static void take_palette(const struct vga_state *s, struct vga_picture *picture)
{
    bool is_8_bit = s->dispi[DISPI_ENABLE] & DISPI_DAC_8_BIT;
    for (unsigned i = 0; i < 256; i++) {
        uint32_t rgb = 0;
        for (unsigned part = 0; part < 3; part++) {
            uint8_t value = s->dac[i & s->dac_mask][part];
            rgb = rgb << 8 | (is_8_bit ? value : widen(value & 0x3f));
        }
        picture->palette[i] = rgb;
    }
}

/* The attribute controller's way from four bits to an entry of the DAC. */
static void take_colors(const struct vga_state *s, struct vga_picture *picture)
{
    uint8_t select = s->attribute[ATTRIBUTE_COLOR_SELECT];
    for (unsigned i = 0; i < 16; i++) {
        uint8_t color = s->attribute[i & s->attribute[ATTRIBUTE_PLANES]] & 0x3f;
        if (s->attribute[ATTRIBUTE_MODE] & ATTRIBUTE_MODE_COLOR_54)
            color = (uint8_t)((color & 0x0f) | (select & 3) << 4);
        picture->colors[i] = (uint8_t)(color | (select & 0x0c) << 4);
    }
}

static bool is_blank(const struct vga_state *s)
{
    return !(s->attribute_index & ATTRIBUTE_INDEX_SCREEN_ON) ||
           (s->seq[SEQ_CLOCKING] & CLOCKING_SCREEN_OFF) || (s->seq[SEQ_RESET] & 3) != 3;
}

static enum vga_kind kind_of(const struct vga_state *s)
{
    uint8_t mode = s->graphics[GRAPHICS_MODE];
    if (!(s->graphics[GRAPHICS_MISC] & GRAPHICS_MISC_GRAPHICS))
        return VGA_TEXT;
    if (mode & GRAPHICS_MODE_256)
        return VGA_BYTES;
    return mode & GRAPHICS_MODE_INTERLEAVE ? VGA_INTERLEAVED : VGA_PLANAR;
}

static void take_dispi(const struct vga_state *s, struct vga_picture *picture)
{
    picture->width = s->dispi[DISPI_WIDTH];
    picture->height = s->dispi[DISPI_HEIGHT];
    picture->kind = s->dispi[DISPI_BPP] == 4 ? VGA_LINEAR_4 : VGA_LINEAR;
    if (picture->width && picture->height && picture->width <= DISPLAY_MAX_WIDTH &&
        picture->height <= DISPLAY_MAX_HEIGHT)
        return;
    picture->kind = VGA_BLANK;
    picture->width = BLANK_WIDTH;
    picture->height = BLANK_HEIGHT;
}

static void take_vga(const struct vga_state *s, struct vga_picture *picture)
{
    uint8_t overflow = s->crtc[CRTC_OVERFLOW], max_scan = s->crtc[CRTC_MAX_SCAN];
    picture->kind = kind_of(s);
    picture->characters = s->crtc[CRTC_H_DISPLAY_END] + 1u;
    picture->dots = picture->kind == VGA_TEXT && !(s->seq[SEQ_CLOCKING] & CLOCKING_8_DOTS) ? 9 : 8;
    picture->is_doubled = s->seq[SEQ_CLOCKING] & CLOCKING_HALF;
    picture->width = picture->characters * picture->dots * (picture->is_doubled ? 2 : 1);
    picture->height =
        s->crtc[CRTC_V_DISPLAY_END] + ((overflow & 2u) << 7) + ((overflow & 0x40u) << 3) + 1;
    if (s->crtc[CRTC_MODE] & MODE_HALF_VERTICAL)
        picture->height *= 2;
    picture->rows = (max_scan & 31u) + 1;
    picture->line_compare =
        s->crtc[CRTC_LINE_COMPARE] + ((overflow & 0x10u) << 4) + ((max_scan & 0x40u) << 3);
    if (is_blank(s))
        picture->kind = VGA_BLANK;
}

void vga_picture(const struct vga_state *s, bool blink_on, struct vga_picture *picture)
{
    memset(picture, 0, sizeof(*picture));
    picture->blink_on = blink_on;
    take_palette(s, picture);
    take_colors(s, picture);
    if (vga_dispi_on(s)) {
        take_dispi(s, picture);
    } else if (s->crtc[CRTC_MODE] & MODE_RUNS) {
        take_vga(s, picture);
    } else {
        picture->kind = VGA_BLANK;
        picture->width = BLANK_WIDTH;
        picture->height = BLANK_HEIGHT;
    }
}

/* The screen's lower part, after the line compare, begins at address 0, without panning if so
 * chosen. A preset row is the upper part's. */
void vga_picture_line(const struct vga_state *s, const struct vga_picture *picture, uint32_t y,
                      struct vga_line *line)
{
    uint8_t preset = s->crtc[CRTC_PRESET_ROW];
    bool is_split = y > picture->line_compare;
    uint32_t start = (uint32_t)s->crtc[CRTC_START_HIGH] << 8 | s->crtc[CRTC_START_LOW];
    uint32_t scan = is_split ? y - picture->line_compare - 1 : y;
    if (s->crtc[CRTC_MAX_SCAN] & MAX_SCAN_DOUBLE)
        scan /= 2;
    if (!is_split)
        scan += preset & 31;
    bool keeps_still = is_split && (s->attribute[ATTRIBUTE_MODE] & ATTRIBUTE_MODE_PAN_TOP_ONLY);
    unsigned pan = s->attribute[ATTRIBUTE_PAN];
    if (picture->dots == 9)
        pan = pan >= 8 ? 0 : pan + 1;
    else if (picture->kind == VGA_BYTES)
        pan = (pan & 7) / 2;
    else
        pan &= 7;
    line->row = scan % picture->rows;
    line->pan = keeps_still ? 0 : pan;
    line->address = scan / picture->rows * (s->crtc[CRTC_OFFSET] * 2u);
    if (!is_split)
        line->address += start;
    if (!keeps_still)
        line->address += preset >> 5 & 3;
}

uint32_t vga_address(const struct vga_state *s, uint32_t address, unsigned row)
{
    uint8_t mode = s->crtc[CRTC_MODE];
    uint32_t out = address;
    if (s->crtc[CRTC_UNDERLINE] & UNDERLINE_DWORD)
        out = address << 2 | (address >> 14 & 3);
    else if (!(mode & MODE_BYTE))
        out = address << 1 | (address >> (mode & MODE_WRAP_64K ? 15 : 13) & 1);
    if (!(mode & MODE_NO_CGA_BANKS))
        out = (out & ~UINT32_C(0x2000)) | (row & 1u) << 13;
    if (!(mode & MODE_NO_HERCULES_BANKS))
        out = (out & ~UINT32_C(0x4000)) | (row >> 1 & 1u) << 14;
    return out % VGA_PLANE_WORDS;
}
