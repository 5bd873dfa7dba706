/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Shares a graphics device's screen out: one canvas, any number of viewers, a refresh some thirty
 * times a second as long as there is one. All on the loop's thread.
 */
#ifndef SKEP_HOST_SCREEN_H
#define SKEP_HOST_SCREEN_H

#include "base/error.h"
#include "base/loop.h"
#include "bus/display.h"

#include <stdbool.h>
#include <stdint.h>

struct screen;

struct screen_viewer {
    /* The canvas is another one, or of another size: all of it is to be shown. It stays valid until
     * the next call. */
    void (*replaced)(void *opaque, const struct display_canvas *canvas);
    /* This part has changed. */
    void (*drawn)(void *opaque, const struct display_canvas *canvas,
                  const struct display_rectangle *rectangle);
    /* The pointer's picture. May be NULL. */
    void (*cursor)(void *opaque, const struct display_cursor *cursor);
    void *opaque;
};

/* `source` is copied; it and `loop` must outlive the screen. NULL: `err` tells why. */
struct screen *screen_create(struct loop *loop, const struct display_source *source,
                             struct error *err);
void screen_destroy(struct screen *screen); /* NULL is fine */

/* The viewer, which is copied, gets what there is at once, and changes until it is taken away
 * again. */
bool screen_attach(struct screen *screen, const struct screen_viewer *viewer, struct error *err);
void screen_detach(struct screen *screen, void *opaque); /* the viewer's; unknown is fine */

/* The screen as it is now; NULL: out of memory. Valid until the next call. */
const struct display_canvas *screen_look(struct screen *screen);

/* A viewer would like this size best; false: the device can't. */
bool screen_can_resize(const struct screen *screen);
bool screen_suggest_size(struct screen *screen, uint32_t width, uint32_t height);

#endif
