/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The GPU's parts: gpu.c (commands, life), gpu_resource.c (resources), gpu_screen.c (what is
 * shown). Private to src/dev/virtio.
 */
#ifndef SKEP_DEV_VIRTIO_GPU_INTERNAL_H
#define SKEP_DEV_VIRTIO_GPU_INTERNAL_H

#include "dev/virtio/gpu.h"

/* 5.7.6: all fields are little-endian, as every host of skep. */
enum {
    GPU_BPP_BYTES = 4,
    GPU_CURSOR_SIZE = 64,
    GPU_RESOURCES_MAX = 1024,
    GPU_BACKING_PIECES_MAX = 16384, /* of a resource */
};

/* What a guest can make us hold for its resources. */
#define GPU_HOLD_MAX_BYTES (UINT64_C(256) << 20)

struct gpu_piece {
    uint64_t gpa;
    uint32_t size_bytes;
};

struct gpu_resource {
    struct gpu_resource *next;
    uint32_t id; /* not 0 */
    uint32_t format, width, height;
    uint8_t *pixels;          /* GPU_BPP_BYTES each, as the guest has them */
    struct gpu_piece *pieces; /* the guest's memory; NULL: none is attached */
    uint32_t piece_count;
};

struct gpu_cursor {
    uint32_t resource; /* 0: none is shown */
    uint32_t x, y, hot_x, hot_y;
    uint32_t pixels[GPU_CURSOR_SIZE * GPU_CURSOR_SIZE]; /* 0xAARRGGBB, premultiplied */
};

/* The part of a resource that the screen shows. */
struct gpu_scanout {
    uint32_t resource; /* 0: the screen is off */
    struct display_rectangle area;
};

/* All under the device's lock. */
struct virtio_gpu {
    struct virtio_device *device;
    struct virtio_chain chain;
    struct display_source display;
    struct gpu_resource *resources;
    unsigned resource_count;
    uint64_t held_bytes;    /* for pixels and lists of pieces */
    uint32_t events;        /* of the configuration */
    uint32_t width, height; /* what the monitor prefers */
    struct gpu_scanout scanout;
    struct gpu_cursor cursor;
    /* What the viewer has not seen yet. */
    bool cursor_changed, scanout_changed;
    struct display_rectangle flushed; /* on the screen; width 0: nothing */
    bool is_blank;                    /* the canvas is black already */
};

/* ---- gpu_resource.c ---- */

struct gpu_resource *gpu_resource_find(const struct virtio_gpu *gpu, uint32_t id);
/* False: the format is unknown, the size none, or it is more than may be held. */
bool gpu_resource_create(struct virtio_gpu *gpu, uint32_t id, uint32_t format, uint32_t width,
                         uint32_t height);
void gpu_resource_destroy(struct virtio_gpu *gpu, struct gpu_resource *resource);
/* Takes `pieces` over, in any case. False: there are some already, or too much is held. */
bool gpu_resource_attach(struct virtio_gpu *gpu, struct gpu_resource *resource,
                         struct gpu_piece *pieces, uint32_t count);
void gpu_resource_detach(struct virtio_gpu *gpu, struct gpu_resource *resource);
/* Fetches a rectangle that lies in the resource; its first byte is at `offset` in the backing, and
 * lines follow each other as the resource's do. What is no memory is left as it was. */
void gpu_resource_fetch(struct virtio_gpu *gpu, struct gpu_resource *resource,
                        const struct display_rectangle *r, uint64_t offset);
/* Pixels of line y from x on as 0xAARRGGBB. */
void gpu_resource_line(const struct gpu_resource *resource, uint32_t x, uint32_t y, uint32_t count,
                       uint32_t *out);
void gpu_resources_clear(struct virtio_gpu *gpu);
void gpu_resources_save(const struct virtio_gpu *gpu, struct save *save);
bool gpu_resources_load(struct virtio_gpu *gpu, struct load *load);

static inline bool gpu_inside(const struct display_rectangle *r, uint32_t width, uint32_t height)
{
    return r->width && r->height && r->x < width && r->width <= width - r->x && r->y < height &&
           r->height <= height - r->y;
}

/* ---- gpu_screen.c ---- */

/* The guest says that this part of a resource has changed. */
void gpu_screen_flush(struct virtio_gpu *gpu, const struct gpu_resource *resource,
                      const struct display_rectangle *r);
void gpu_screen_refresh(void *opaque, const struct display_viewer *viewer, bool whole);

#endif
