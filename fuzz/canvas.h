/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What fuzz targets of graphics devices share: a viewer whose canvas has exactly the size, so that
 * the sanitizer sees a pixel too many. A canvas that is too large is refused, as if there were no
 * memory: drawing it would take too long.
 */
#ifndef SKEP_FUZZ_CANVAS_H
#define SKEP_FUZZ_CANVAS_H

#include "bus/display.h"
#include "fuzz/device.h"

static inline struct display_canvas *fuzz_canvas_get(void *opaque, uint32_t width, uint32_t height)
{
    struct display_canvas *canvas = opaque;
    require(width && height && width <= DISPLAY_MAX_WIDTH && height <= DISPLAY_MAX_HEIGHT,
            "a screen has a size");
    free(canvas->pixels);
    *canvas = (struct display_canvas){NULL, width, height, width};
    if ((uint64_t)width * height <= 1 << 20)
        canvas->pixels = calloc((size_t)width * height, 4);
    return canvas->pixels ? canvas : NULL;
}

static inline void fuzz_canvas_drawn(void *opaque, const struct display_rectangle *r)
{
    const struct display_canvas *canvas = opaque;
    require(r->width && r->height && r->x + r->width <= canvas->width &&
                r->y + r->height <= canvas->height,
            "the rectangle lies in the canvas");
}

static inline void fuzz_canvas_cursor(void *opaque, const struct display_cursor *cursor)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; cursor->pixels && i < cursor->width * cursor->height; i++)
        sum += cursor->pixels[i];
    require(sum || !sum, "all of it can be read");
}

static inline void fuzz_canvas_refresh(struct display_canvas *canvas,
                                       const struct display_source *source, bool whole)
{
    const struct display_viewer viewer = {fuzz_canvas_get, fuzz_canvas_drawn, fuzz_canvas_cursor,
                                          canvas};
    source->refresh(source->opaque, &viewer, whole);
}

#endif
