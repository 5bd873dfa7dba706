/* SPDX-License-Identifier: BSD-2-Clause
 * Shares a screen out; see screen.h. */
#include "host/screen.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { REFRESH_MS = 33, CURSOR_MAX = 64 };

struct screen {
    struct loop *loop;
    struct display_source source;
    struct display_viewer viewer; /* of the source: this screen */
    struct loop_timer *timer;
    struct display_canvas canvas;
    bool is_fresh; /* the canvas has been made since the source has drawn all of it */
    struct screen_viewer *viewers;
    unsigned viewer_count;
    struct display_cursor cursor;
    bool has_cursor; /* the source has told of one */
    uint32_t cursor_pixels[CURSOR_MAX * CURSOR_MAX];
};

/* ---- what the source calls ---- */

static struct display_canvas *get_canvas(void *opaque, uint32_t width, uint32_t height)
{
    struct screen *screen = opaque;
    struct display_canvas *canvas = &screen->canvas;
    if (canvas->pixels && canvas->width == width && canvas->height == height)
        return canvas;
    if (!width || !height || width > DISPLAY_MAX_WIDTH || height > DISPLAY_MAX_HEIGHT)
        return NULL;
    uint32_t *pixels = calloc((size_t)width * height, sizeof(*pixels));
    if (!pixels)
        return NULL;
    free(canvas->pixels);
    *canvas = (struct display_canvas){pixels, width, height, width};
    screen->is_fresh = true;
    return canvas;
}

static void drawn(void *opaque, const struct display_rectangle *rectangle)
{
    struct screen *screen = opaque;
    if (screen->is_fresh)
        return; /* all of it is going to be told */
    for (unsigned i = 0; i < screen->viewer_count; i++) {
        const struct screen_viewer *viewer = &screen->viewers[i];
        viewer->drawn(viewer->opaque, &screen->canvas, rectangle);
    }
}

static void cursor_changed(void *opaque, const struct display_cursor *cursor)
{
    struct screen *screen = opaque;
    if (cursor->width > CURSOR_MAX || cursor->height > CURSOR_MAX)
        return;
    screen->cursor = *cursor;
    screen->has_cursor = true;
    if (cursor->pixels) {
        memcpy(screen->cursor_pixels, cursor->pixels,
               sizeof(uint32_t) * cursor->width * cursor->height);
        screen->cursor.pixels = screen->cursor_pixels;
    }
    for (unsigned i = 0; i < screen->viewer_count; i++)
        if (screen->viewers[i].cursor)
            screen->viewers[i].cursor(screen->viewers[i].opaque, &screen->cursor);
}

/* ---- refreshing ---- */

static void refresh(struct screen *screen)
{
    screen->source.refresh(screen->source.opaque, &screen->viewer, false);
    if (!screen->is_fresh)
        return;
    screen->is_fresh = false;
    for (unsigned i = 0; i < screen->viewer_count; i++)
        screen->viewers[i].replaced(screen->viewers[i].opaque, &screen->canvas);
}

static void on_timer(void *opaque)
{
    struct screen *screen = opaque;
    refresh(screen);
    if (screen->viewer_count)
        loop_timer_start(screen->timer, REFRESH_MS);
}

const struct display_canvas *screen_look(struct screen *screen)
{
    refresh(screen);
    return screen->canvas.pixels ? &screen->canvas : NULL;
}

/* ---- viewers ---- */

bool screen_attach(struct screen *screen, const struct screen_viewer *viewer, struct error *err)
{
    refresh(screen);
    struct screen_viewer *more =
        realloc(screen->viewers, (screen->viewer_count + 1) * sizeof(*more));
    if (!more)
        return error_errno(err, "cannot show the screen", NULL, ENOMEM);
    screen->viewers = more;
    more[screen->viewer_count++] = *viewer;
    if (screen->canvas.pixels)
        viewer->replaced(viewer->opaque, &screen->canvas);
    if (screen->has_cursor && viewer->cursor)
        viewer->cursor(viewer->opaque, &screen->cursor);
    loop_timer_start(screen->timer, REFRESH_MS);
    return true;
}

void screen_detach(struct screen *screen, void *opaque)
{
    for (unsigned i = 0; i < screen->viewer_count; i++) {
        if (screen->viewers[i].opaque != opaque)
            continue;
        screen->viewers[i] = screen->viewers[--screen->viewer_count];
        break;
    }
    if (!screen->viewer_count)
        loop_timer_stop(screen->timer);
}

bool screen_can_resize(const struct screen *screen)
{
    return screen->source.suggest_size;
}

bool screen_suggest_size(struct screen *screen, uint32_t width, uint32_t height)
{
    if (!screen_can_resize(screen))
        return false;
    screen->source.suggest_size(screen->source.opaque, width, height);
    return true;
}

/* ---- life ---- */

struct screen *screen_create(struct loop *loop, const struct display_source *source,
                             struct error *err)
{
    struct screen *screen = calloc(1, sizeof(*screen));
    if (!screen) {
        error_errno(err, "cannot make a screen", NULL, ENOMEM);
        return NULL;
    }
    screen->loop = loop;
    screen->source = *source;
    screen->viewer = (struct display_viewer){get_canvas, drawn, cursor_changed, screen};
    screen->timer = loop_timer_open(loop, on_timer, screen);
    if (!screen->timer) {
        error_errno(err, "cannot make a screen", NULL, ENOMEM);
        free(screen);
        return NULL;
    }
    return screen;
}

void screen_destroy(struct screen *screen)
{
    if (!screen)
        return;
    loop_timer_close(screen->timer);
    free(screen->canvas.pixels);
    free(screen->viewers);
    free(screen);
}
