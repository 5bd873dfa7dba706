/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A viewer for tests of graphics devices: a canvas in memory, and what was told of it.
 */
#ifndef SKEP_TESTS_DEV_CANVAS_H
#define SKEP_TESTS_DEV_CANVAS_H

#include "bus/display.h"

#include <stdlib.h>
#include <string.h>

struct canvas {
    struct display_canvas c;
    struct display_viewer viewer;
    unsigned rectangles, cursors;
    struct display_rectangle last, all; /* all: the least that covers those since canvas_clear() */
    struct display_cursor cursor;
    uint32_t cursor_pixels[64 * 64];
};

static inline struct display_canvas *canvas_get(void *opaque, uint32_t width, uint32_t height)
{
    struct canvas *canvas = opaque;
    assert_true(width && width <= DISPLAY_MAX_WIDTH && height && height <= DISPLAY_MAX_HEIGHT);
    if (canvas->c.width != width || canvas->c.height != height) {
        free(canvas->c.pixels);
        /* A line more between lines, so that a stride which is forgotten shows. */
        canvas->c = (struct display_canvas){NULL, width, height, width + 16};
        canvas->c.pixels = calloc((size_t)canvas->c.stride_pixels * height, 4);
        assert_non_null(canvas->c.pixels);
    }
    return &canvas->c;
}

static inline void canvas_drawn(void *opaque, const struct display_rectangle *r)
{
    struct canvas *canvas = opaque;
    assert_true(r->width && r->height);
    assert_true(r->x < canvas->c.width && r->width <= canvas->c.width - r->x);
    assert_true(r->y < canvas->c.height && r->height <= canvas->c.height - r->y);
    struct display_rectangle *all = &canvas->all;
    if (!canvas->rectangles++) {
        *all = *r;
    } else {
        uint32_t right = r->x + r->width, bottom = r->y + r->height;
        if (right < all->x + all->width)
            right = all->x + all->width;
        if (bottom < all->y + all->height)
            bottom = all->y + all->height;
        all->x = r->x < all->x ? r->x : all->x;
        all->y = r->y < all->y ? r->y : all->y;
        all->width = right - all->x;
        all->height = bottom - all->y;
    }
    canvas->last = *r;
}

static inline void canvas_cursor(void *opaque, const struct display_cursor *cursor)
{
    struct canvas *canvas = opaque;
    canvas->cursors++;
    canvas->cursor = *cursor;
    if (cursor->pixels) {
        assert_true(cursor->width <= 64 && cursor->height <= 64);
        memcpy(canvas->cursor_pixels, cursor->pixels, cursor->width * cursor->height * 4);
    }
}

static inline void canvas_init(struct canvas *canvas)
{
    memset(canvas, 0, sizeof(*canvas));
    canvas->viewer = (struct display_viewer){canvas_get, canvas_drawn, canvas_cursor, canvas};
}

static inline void canvas_free(struct canvas *canvas)
{
    free(canvas->c.pixels);
}

/* Refreshes; gives the number of rectangles told. */
static inline unsigned canvas_refresh(struct canvas *canvas, const struct display_source *source,
                                      bool whole)
{
    canvas->rectangles = canvas->cursors = 0;
    source->refresh(source->opaque, &canvas->viewer, whole);
    return canvas->rectangles;
}

static inline uint32_t canvas_at(const struct canvas *canvas, uint32_t x, uint32_t y)
{
    assert_true(x < canvas->c.width && y < canvas->c.height);
    return canvas->c.pixels[(size_t)y * canvas->c.stride_pixels + x];
}

#endif
