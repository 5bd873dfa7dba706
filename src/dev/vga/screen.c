/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Draws what has changed. Registers are copied under the lock; memory is read without it, as a
 * beam would, so a guest never waits for a drawing. A line is drawn when its memory was written or
 * any register has changed, compared with the canvas, and told as far as it differs.
 */
#include "dev/vga/vga_internal.h"

#include <stdlib.h>
#include <string.h>

enum {
    BLINK_NS = 16 * (1000000000 / 70), /* the cursor's phases: 16 frames each */
    LINE_SPARE_PIXELS = 32,
    JOIN_LINES = 8, /* changes that are no farther apart are one rectangle */
};

/* What a refresh works with. */
struct pass {
    struct vga *vga;
    const struct display_viewer *viewer;
    struct display_canvas *canvas;
    struct vga_picture picture;
    uint64_t *dirty;                  /* taken from the device, a bit a page */
    bool all;                         /* what is on the canvas is unknown */
    bool is_other;                    /* every line may look otherwise */
    struct display_rectangle changed; /* height 0: none is open */
};

static void close_rectangle(struct pass *pass)
{
    if (pass->changed.height)
        pass->viewer->drawn(pass->viewer->opaque, &pass->changed);
    pass->changed.height = 0;
}

/* Adds the pixels [left, right) of line y to the open rectangle. */
static void add_change(struct pass *pass, uint32_t y, uint32_t left, uint32_t right)
{
    struct display_rectangle *r = &pass->changed;
    if (r->height && y >= r->y + r->height + JOIN_LINES)
        close_rectangle(pass);
    if (!r->height) {
        *r = (struct display_rectangle){left, y, right - left, 1};
        return;
    }
    uint32_t old_right = r->x + r->width;
    r->x = left < r->x ? left : r->x;
    r->width = (right > old_right ? right : old_right) - r->x;
    r->height = y + 1 - r->y;
}

/* Brings a line to the canvas; tells what differs. */
static void put_line(struct pass *pass, uint32_t y)
{
    const uint32_t *line = pass->vga->drawn.line;
    uint32_t *to = pass->canvas->pixels + (size_t)y * pass->canvas->stride_pixels;
    uint32_t left = 0, right = pass->canvas->width;
    if (!pass->all) {
        if (!memcmp(line, to, right * sizeof(*to)))
            return;
        while (line[left] == to[left])
            left++;
        while (line[right - 1] == to[right - 1])
            right--;
    }
    memcpy(to + left, line + left, (right - left) * sizeof(*to));
    add_change(pass, y, left, right);
}

/* Whether what is made of [offset, offset + size) may look otherwise. */
static bool is_dirty(const struct pass *pass, uint64_t offset, uint64_t size_bytes)
{
    uint64_t memory_bytes = pass->vga->config.memory_bytes;
    if (pass->all || pass->is_other)
        return true;
    if (offset >= memory_bytes || !size_bytes)
        return false;
    if (size_bytes > memory_bytes - offset)
        size_bytes = memory_bytes - offset;
    for (uint64_t page = offset / VGA_PAGE_BYTES;
         page <= (offset + size_bytes - 1) / VGA_PAGE_BYTES; page++)
        if (pass->dirty[page / 64] >> page % 64 & 1)
            return true;
    return false;
}

static void draw_linear(struct pass *pass)
{
    const struct vga_state *s = &pass->vga->drawn.state;
    uint64_t stride = vga_dispi_stride(s), offset = vga_dispi_start(s);
    unsigned planes = pass->picture.kind == VGA_LINEAR_4 ? 4 : 1;
    uint64_t bytes = planes == 4 ? pass->picture.width / 8 + 1
                                 : pass->picture.width * ((s->dispi[DISPI_BPP] + 7) / 8);
    for (uint32_t y = 0; y < pass->picture.height; y++, offset += stride) {
        if (!is_dirty(pass, offset * planes, bytes * planes))
            continue;
        vga_draw_linear(pass->vga, s, &pass->picture, offset, pass->vga->drawn.line);
        put_line(pass, y);
    }
}

/* The VGA's own modes have 256 KiB, of which fonts, banks and the two parts of a split screen are
 * anywhere: any write draws all. */
static void draw_vga(struct pass *pass)
{
    const struct vga_state *s = &pass->vga->drawn.state;
    struct vga_line last = {.address = UINT32_MAX};
    if (!is_dirty(pass, 0, VGA_PLANE_WORDS * 4))
        return;
    for (uint32_t y = 0; y < pass->picture.height; y++) {
        struct vga_line line;
        vga_picture_line(s, &pass->picture, y, &line);
        bool is_same = last.address == line.address && last.row == line.row && last.pan == line.pan;
        if (is_same)
            ; /* doubled: the line before is still there */
        else if (pass->picture.kind == VGA_TEXT)
            vga_draw_text(pass->vga, s, &pass->picture, &line, pass->vga->drawn.line);
        else
            vga_draw_graphics(pass->vga, s, &pass->picture, &line, pass->vga->drawn.line);
        last = line;
        put_line(pass, y);
    }
}

static void draw_blank(struct pass *pass)
{
    if (!is_dirty(pass, 0, 1))
        return;
    memset(pass->vga->drawn.line, 0, pass->picture.width * sizeof(uint32_t));
    for (uint32_t y = 0; y < pass->picture.height; y++)
        put_line(pass, y);
}

static bool has_room(struct vga_drawn *drawn, uint32_t width)
{
    if (drawn->line_pixels >= width)
        return true;
    uint32_t *line = realloc(drawn->line, (width + LINE_SPARE_PIXELS) * sizeof(*line));
    if (!line)
        return false;
    drawn->line = line;
    drawn->line_pixels = width;
    return true;
}

/* Whether the two make the same picture of the same memory. Indices, latch and the like are not
 * looked at. */
static bool same_picture(const struct vga_state *a, const struct vga_state *b)
{
    return !memcmp(a->crtc, b->crtc, sizeof(a->crtc)) && !memcmp(a->seq, b->seq, sizeof(a->seq)) &&
           a->graphics[GRAPHICS_MODE] == b->graphics[GRAPHICS_MODE] &&
           a->graphics[GRAPHICS_MISC] == b->graphics[GRAPHICS_MISC] &&
           !memcmp(a->attribute, b->attribute, sizeof(a->attribute)) &&
           (a->attribute_index & ATTRIBUTE_INDEX_SCREEN_ON) ==
               (b->attribute_index & ATTRIBUTE_INDEX_SCREEN_ON) &&
           a->dac_mask == b->dac_mask && !memcmp(a->dac, b->dac, sizeof(a->dac)) &&
           !memcmp(a->dispi, b->dispi, sizeof(a->dispi));
}

/* Takes what was written; false: out of memory. */
static bool take_dirty(struct pass *pass)
{
    size_t words = (pass->vga->config.memory_bytes / VGA_PAGE_BYTES + 63) / 64;
    pass->dirty = calloc(words, sizeof(*pass->dirty));
    if (pass->dirty) /* through the frame buffer's BAR */
        physmap_take_written(pass->vga->config.physmap, pass->vga->memory,
                             pass->vga->config.memory_bytes, pass->dirty);
    for (size_t i = 0; pass->dirty && i < words; i++)
        if (atomic_load_explicit(&pass->vga->dirty[i], memory_order_relaxed))
            pass->dirty[i] |= atomic_exchange(&pass->vga->dirty[i], 0);
    return pass->dirty;
}

static void draw(struct pass *pass)
{
    switch (pass->picture.kind) {
    case VGA_BLANK: draw_blank(pass); break;
    case VGA_LINEAR:
    case VGA_LINEAR_4: draw_linear(pass); break;
    default: draw_vga(pass); break;
    }
    close_rectangle(pass);
}

void vga_refresh(void *opaque, const struct display_viewer *viewer, bool whole)
{
    struct vga *vga = opaque;
    struct vga_drawn *drawn = &vga->drawn;
    struct pass pass = {.vga = vga, .viewer = viewer, .all = whole};
    bool blink_on = clock_now_ns(vga->config.clock) / BLINK_NS % 2 == 0;
    pthread_mutex_lock(&vga->lock);
    struct vga_state now = vga->s;
    pthread_mutex_unlock(&vga->lock);
    vga_picture(&now, blink_on, &pass.picture);
    pass.canvas = viewer->canvas(viewer->opaque, pass.picture.width, pass.picture.height);
    if (!pass.canvas || !has_room(drawn, pass.picture.width))
        return;
    /* Registers count for all of the picture, blinking for that of text; only the size makes what
     * is on the canvas worthless. */
    pass.is_other = !same_picture(&now, &drawn->state) ||
                    (pass.picture.kind == VGA_TEXT && blink_on != drawn->blink_on);
    if (pass.picture.width != drawn->width || pass.picture.height != drawn->height)
        pass.all = true;
    drawn->state = now;
    drawn->blink_on = blink_on;
    drawn->width = pass.picture.width;
    drawn->height = pass.picture.height;
    if (take_dirty(&pass))
        draw(&pass);
    free(pass.dirty);
}
