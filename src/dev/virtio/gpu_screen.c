/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What the GPU shows: the part of a resource that is its scan-out, as far as the guest has flushed
 * it, and the pointer's picture beside it. On the loop's thread, with the device's lock held for as
 * long as copying takes.
 */
#include "dev/virtio/gpu_internal.h"

#include <string.h>

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static uint32_t most(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

void gpu_screen_flush(struct virtio_gpu *gpu, const struct gpu_resource *resource,
                      const struct display_rectangle *r)
{
    const struct display_rectangle *area = &gpu->scanout.area;
    struct display_rectangle *flushed = &gpu->flushed;
    if (gpu->scanout.resource != resource->id)
        return;
    uint32_t left = most(r->x, area->x), top = most(r->y, area->y);
    uint32_t right = least(r->x + r->width, area->x + area->width);
    uint32_t bottom = least(r->y + r->height, area->y + area->height);
    if (left >= right || top >= bottom)
        return;
    left -= area->x;
    right -= area->x;
    top -= area->y;
    bottom -= area->y;
    if (flushed->width) {
        right = most(right, flushed->x + flushed->width);
        bottom = most(bottom, flushed->y + flushed->height);
        left = least(left, flushed->x);
        top = least(top, flushed->y);
    }
    *flushed = (struct display_rectangle){left, top, right - left, bottom - top};
}

static void show_cursor(struct virtio_gpu *gpu, const struct display_viewer *viewer)
{
    const struct gpu_cursor *cursor = &gpu->cursor;
    const struct display_cursor picture = {
        .pixels = cursor->resource ? cursor->pixels : NULL,
        .width = GPU_CURSOR_SIZE,
        .height = GPU_CURSOR_SIZE,
        .hot_x = cursor->hot_x,
        .hot_y = cursor->hot_y,
        .has_position = true,
        .x = (int32_t)cursor->x,
        .y = (int32_t)cursor->y,
    };
    if (viewer->cursor)
        viewer->cursor(viewer->opaque, &picture);
}

static void draw(const struct gpu_scanout *scanout, const struct gpu_resource *resource,
                 struct display_canvas *canvas, const struct display_rectangle *r)
{
    for (uint32_t y = r->y; y < r->y + r->height; y++) {
        uint32_t *to = canvas->pixels + (size_t)y * canvas->stride_pixels + r->x;
        gpu_resource_line(resource, scanout->area.x + r->x, scanout->area.y + y, r->width, to);
        for (uint32_t x = 0; x < r->width; x++)
            to[x] &= 0xffffff;
    }
}

static void draw_blank(struct virtio_gpu *gpu, struct display_canvas *canvas, bool all,
                       const struct display_viewer *viewer)
{
    if (gpu->is_blank && !all)
        return;
    for (uint32_t y = 0; y < canvas->height; y++)
        memset(canvas->pixels + (size_t)y * canvas->stride_pixels, 0, canvas->width * 4);
    viewer->drawn(viewer->opaque, &(struct display_rectangle){0, 0, canvas->width, canvas->height});
    gpu->is_blank = true;
}

static void refresh(struct virtio_gpu *gpu, const struct display_viewer *viewer, bool whole)
{
    const struct gpu_scanout *scanout = &gpu->scanout;
    const struct gpu_resource *resource = gpu_resource_find(gpu, scanout->resource);
    uint32_t width = resource ? scanout->area.width : gpu->width;
    uint32_t height = resource ? scanout->area.height : gpu->height;
    struct display_canvas *canvas = viewer->canvas(viewer->opaque, width, height);
    if (!canvas)
        return;
    bool all = whole || gpu->scanout_changed;
    gpu->scanout_changed = false;
    if (!resource) {
        draw_blank(gpu, canvas, all, viewer);
    } else if (all || gpu->flushed.width) {
        const struct display_rectangle everything = {0, 0, width, height};
        const struct display_rectangle *r = all ? &everything : &gpu->flushed;
        draw(scanout, resource, canvas, r);
        viewer->drawn(viewer->opaque, r);
        gpu->is_blank = false;
    }
    gpu->flushed.width = 0;
    if (gpu->cursor_changed || whole)
        show_cursor(gpu, viewer);
    gpu->cursor_changed = false;
}

void gpu_screen_refresh(void *opaque, const struct display_viewer *viewer, bool whole)
{
    struct virtio_gpu *gpu = opaque;
    virtio_lock(gpu->device);
    refresh(gpu, viewer, whole);
    virtio_unlock(gpu->device);
}
