/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What a graphics device shows, on its way to a viewer (VNC, a screenshot). The viewer owns the
 * canvas and asks for what has changed, as often as somebody looks; nobody looks, nothing is drawn.
 */
#ifndef SKEP_BUS_DISPLAY_H
#define SKEP_BUS_DISPLAY_H

#include <stdbool.h>
#include <stdint.h>

enum { DISPLAY_MAX_WIDTH = 8192, DISPLAY_MAX_HEIGHT = 8192 };

struct display_rectangle {
    uint32_t x, y, width, height;
};

/* Pixels of 32 bits, 0x00RRGGBB in the host's byte order. */
struct display_canvas {
    uint32_t *pixels;
    uint32_t width, height;
    uint32_t stride_pixels; /* from one line to the next */
};

/* The pointer's picture where the device draws it apart from the screen. */
struct display_cursor {
    const uint32_t
        *pixels; /* 0xAARRGGBB, alpha premultiplied, width * height; NULL: none is shown */
    uint32_t width, height; /* at most 64 by 64 */
    uint32_t hot_x, hot_y;
    bool has_position;
    int32_t x, y; /* of the hot spot, when it has a position */
};

/* What refresh() draws on. */
struct display_viewer {
    /* The canvas, of this size; one of another size than before has unknown contents, and the
     * device then draws all of it. NULL: no memory; nothing is drawn. */
    struct display_canvas *(*canvas)(void *opaque, uint32_t width, uint32_t height);
    /* This part of the canvas has been drawn anew. */
    void (*drawn)(void *opaque, const struct display_rectangle *rectangle);
    /* The pointer's picture has changed. May be NULL. */
    void (*cursor)(void *opaque, const struct display_cursor *cursor);
    void *opaque;
};

/* A screen of a graphics device. All calls on the loop's thread. */
struct display_source {
    /* Draws what has changed since the last call, or all of it. A device has one viewer; who shares
     * it out keeps a canvas for all. */
    void (*refresh)(void *opaque, const struct display_viewer *viewer, bool whole);
    /* The viewer's window has this size now: the guest is told that it would be a good one. NULL:
     * the device can't. */
    void (*suggest_size)(void *opaque, uint32_t width, uint32_t height);
    void *opaque;
};

#endif
