/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Resources of the GPU: pictures that the guest makes, fills from its memory, and shows. How many
 * there are and how much they take is bounded.
 */
#include "dev/virtio/gpu_internal.h"

#include <stdlib.h>
#include <string.h>

/* 5.7.6.8: virtio_gpu_formats, as bytes in memory. Where red, green, blue and alpha are; 4: the
 * byte means nothing. */
static const struct format {
    uint32_t number;
    uint8_t red, green, blue, alpha;
} formats[] = {
    {1, 2, 1, 0, 3},   /* B8G8R8A8 */
    {2, 2, 1, 0, 4},   /* B8G8R8X8 */
    {3, 1, 2, 3, 0},   /* A8R8G8B8 */
    {4, 1, 2, 3, 4},   /* X8R8G8B8 */
    {67, 0, 1, 2, 3},  /* R8G8B8A8 */
    {68, 3, 2, 1, 4},  /* X8B8G8R8 */
    {121, 3, 2, 1, 0}, /* A8B8G8R8 */
    {134, 0, 1, 2, 4}, /* R8G8B8X8 */
};

static const struct format *find_format(uint32_t number)
{
    for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++)
        if (formats[i].number == number)
            return &formats[i];
    return NULL;
}

struct gpu_resource *gpu_resource_find(const struct virtio_gpu *gpu, uint32_t id)
{
    struct gpu_resource *resource = gpu->resources;
    while (resource && resource->id != id)
        resource = resource->next;
    return resource;
}

static uint64_t picture_bytes(uint32_t width, uint32_t height)
{
    return (uint64_t)width * height * GPU_BPP_BYTES;
}

static bool may_hold(const struct virtio_gpu *gpu, uint64_t more_bytes)
{
    return more_bytes <= GPU_HOLD_MAX_BYTES - gpu->held_bytes;
}

bool gpu_resource_create(struct virtio_gpu *gpu, uint32_t id, uint32_t format, uint32_t width,
                         uint32_t height)
{
    if (!width || !height || width > DISPLAY_MAX_WIDTH || height > DISPLAY_MAX_HEIGHT ||
        !find_format(format) || gpu->resource_count == GPU_RESOURCES_MAX ||
        !may_hold(gpu, picture_bytes(width, height)))
        return false;
    struct gpu_resource *resource = calloc(1, sizeof(*resource));
    uint8_t *pixels = calloc(height, (size_t)width * GPU_BPP_BYTES);
    if (!resource || !pixels) {
        free(resource);
        free(pixels);
        return false;
    }
    *resource = (struct gpu_resource){.next = gpu->resources,
                                      .id = id,
                                      .format = format,
                                      .width = width,
                                      .height = height,
                                      .pixels = pixels};
    gpu->resources = resource;
    gpu->resource_count++;
    gpu->held_bytes += picture_bytes(width, height);
    return true;
}

void gpu_resource_detach(struct virtio_gpu *gpu, struct gpu_resource *resource)
{
    gpu->held_bytes -= resource->piece_count * sizeof(*resource->pieces);
    free(resource->pieces);
    resource->pieces = NULL;
    resource->piece_count = 0;
}

void gpu_resource_destroy(struct virtio_gpu *gpu, struct gpu_resource *resource)
{
    struct gpu_resource **link = &gpu->resources;
    while (*link != resource)
        link = &(*link)->next;
    *link = resource->next;
    gpu_resource_detach(gpu, resource);
    gpu->held_bytes -= picture_bytes(resource->width, resource->height);
    gpu->resource_count--;
    free(resource->pixels);
    free(resource);
}

void gpu_resources_clear(struct virtio_gpu *gpu)
{
    while (gpu->resources)
        gpu_resource_destroy(gpu, gpu->resources);
}

bool gpu_resource_attach(struct virtio_gpu *gpu, struct gpu_resource *resource,
                         struct gpu_piece *pieces, uint32_t count)
{
    if (resource->pieces || !may_hold(gpu, count * sizeof(*pieces))) {
        free(pieces);
        return false;
    }
    resource->pieces = pieces;
    resource->piece_count = count;
    gpu->held_bytes += count * sizeof(*pieces);
    return true;
}

/* Where a walk through the pieces is. */
struct cursor {
    const struct gpu_resource *resource;
    uint32_t piece;
    uint64_t start; /* of this piece in the backing */
};

/* Copies from the backing; `offset` never goes back from one call to the next. */
static void copy_backing(const struct virtio_gpu *gpu, struct cursor *at, uint64_t offset,
                         uint8_t *to, uint64_t size_bytes)
{
    while (size_bytes && at->piece < at->resource->piece_count) {
        const struct gpu_piece *piece = &at->resource->pieces[at->piece];
        if (offset >= at->start + piece->size_bytes) {
            at->start += piece->size_bytes;
            at->piece++;
            continue;
        }
        uint64_t skip = offset - at->start, take = piece->size_bytes - skip;
        if (take > size_bytes)
            take = size_bytes;
        ram_read(virtio_ram(gpu->device), piece->gpa + skip, to, take);
        to += take;
        offset += take;
        size_bytes -= take;
    }
}

void gpu_resource_fetch(struct virtio_gpu *gpu, struct gpu_resource *resource,
                        const struct display_rectangle *r, uint64_t offset)
{
    uint64_t stride = (uint64_t)resource->width * GPU_BPP_BYTES;
    struct cursor at = {.resource = resource};
    for (uint32_t y = 0; y < r->height; y++) {
        uint8_t *to = resource->pixels + (r->y + y) * stride + (uint64_t)r->x * GPU_BPP_BYTES;
        copy_backing(gpu, &at, offset + y * stride, to, (uint64_t)r->width * GPU_BPP_BYTES);
    }
}

void gpu_resource_line(const struct gpu_resource *resource, uint32_t x, uint32_t y, uint32_t count,
                       uint32_t *out)
{
    const struct format *format = find_format(resource->format);
    const uint8_t *from = resource->pixels + ((uint64_t)y * resource->width + x) * GPU_BPP_BYTES;
    if (format->number == formats[0].number || format->number == formats[1].number) {
        memcpy(out, from, (size_t)count * sizeof(*out));
        return;
    }
    for (uint32_t i = 0; i < count; i++, from += GPU_BPP_BYTES) {
        uint32_t alpha = format->alpha < GPU_BPP_BYTES ? from[format->alpha] : 0xff;
        out[i] = alpha << 24 | (uint32_t)from[format->red] << 16 |
                 (uint32_t)from[format->green] << 8 | from[format->blue];
    }
}

/* ---- saved machines ---- */

static void resource_save(const struct gpu_resource *resource, struct save *save)
{
    save_u32(save, resource->id);
    save_u32(save, resource->format);
    save_u32(save, resource->width);
    save_u32(save, resource->height);
    save_bool(save, resource->pieces);
    save_u32(save, resource->piece_count);
    for (uint32_t i = 0; i < resource->piece_count; i++) {
        save_u64(save, resource->pieces[i].gpa);
        save_u32(save, resource->pieces[i].size_bytes);
    }
    save_bytes(save, resource->pixels, picture_bytes(resource->width, resource->height));
}

void gpu_resources_save(const struct virtio_gpu *gpu, struct save *save)
{
    save_u32(save, gpu->resource_count);
    for (const struct gpu_resource *resource = gpu->resources; resource; resource = resource->next)
        resource_save(resource, save);
}

static bool pieces_load(struct virtio_gpu *gpu, struct gpu_resource *resource, struct load *load)
{
    bool has_pieces = load_bool(load);
    uint32_t count = load_u32(load);
    if (count > GPU_BACKING_PIECES_MAX || (count && !has_pieces) || load->failed)
        return false;
    if (!has_pieces)
        return true;
    struct gpu_piece *pieces = calloc(count ? count : 1, sizeof(*pieces));
    if (!pieces)
        return false;
    for (uint32_t i = 0; i < count; i++) {
        pieces[i].gpa = load_u64(load);
        pieces[i].size_bytes = load_u32(load);
    }
    return gpu_resource_attach(gpu, resource, pieces, count);
}

static bool resource_load(struct virtio_gpu *gpu, struct load *load)
{
    uint32_t id = load_u32(load), format = load_u32(load);
    uint32_t width = load_u32(load), height = load_u32(load);
    if (load->failed || !id || gpu_resource_find(gpu, id) ||
        !gpu_resource_create(gpu, id, format, width, height))
        return false;
    struct gpu_resource *resource = gpu->resources;
    if (!pieces_load(gpu, resource, load))
        return false;
    load_bytes(load, resource->pixels, picture_bytes(width, height));
    return !load->failed;
}

bool gpu_resources_load(struct virtio_gpu *gpu, struct load *load)
{
    uint32_t count = load_u32(load);
    if (count > GPU_RESOURCES_MAX)
        return false;
    for (uint32_t i = 0; i < count; i++)
        if (!resource_load(gpu, load))
            return false;
    return !load->failed;
}
