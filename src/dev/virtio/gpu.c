/* SPDX-License-Identifier: BSD-2-Clause
 *
 * virtio GPU device (virtio 1.2, 5.7): one scan-out, 2D resources, EDID, the cursor's queue. Left
 * out: 3D (virgl, contexts), blob resources, resource UUIDs. Commands are done in the kick, on
 * whichever thread that comes, so a fence is reached when its answer is written.
 */
#include "dev/virtio/gpu_internal.h"

#include "dev/edid.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define F_EDID (UINT64_C(1) << 1)

enum { /* 5.7.2, 5.7.4 */
       QUEUE_CONTROL = 0,
       QUEUE_CURSOR = 1,
       QUEUES = 2,
       CONFIG_EVENTS_READ = 0,
       CONFIG_EVENTS_CLEAR = 4,
       CONFIG_SCANOUTS = 8,
       CONFIG_BYTES = 16,
       EVENT_DISPLAY = 1,
       SCANOUTS_MAX = 16, /* in the answer to GET_DISPLAY_INFO */
};

enum command { /* 5.7.6.7 */
               GET_DISPLAY_INFO = 0x100,
               RESOURCE_CREATE_2D,
               RESOURCE_UNREF,
               SET_SCANOUT,
               RESOURCE_FLUSH,
               TRANSFER_TO_HOST_2D,
               RESOURCE_ATTACH_BACKING,
               RESOURCE_DETACH_BACKING,
               GET_EDID = 0x10a,
               UPDATE_CURSOR = 0x300,
               MOVE_CURSOR,
};

enum response {
    OK_NODATA = 0x1100,
    OK_DISPLAY_INFO = 0x1101,
    OK_EDID = 0x1104,
    ERR_UNSPEC = 0x1200,
    ERR_OUT_OF_MEMORY,
    ERR_INVALID_SCANOUT_ID,
    ERR_INVALID_RESOURCE_ID,
    ERR_INVALID_CONTEXT_ID,
    ERR_INVALID_PARAMETER,
};

enum { FLAG_FENCE = 1 };

struct header {
    uint32_t type, flags;
    uint64_t fence;
    uint32_t context;
    uint32_t ring;
};

struct rectangle {
    uint32_t x, y, width, height;
};

/* A command as the guest has it, copied once; what is longer is read on from the chain. */
struct request {
    struct header header;
    union {
        struct {
            uint32_t resource, format, width, height;
        } create;
        struct {
            uint32_t resource, padding;
        } of_resource; /* UNREF, DETACH_BACKING */
        struct {
            struct rectangle r;
            uint32_t scanout, resource;
        } scanout;
        struct {
            struct rectangle r;
            uint32_t resource, padding;
        } flush;
        struct {
            struct rectangle r;
            uint64_t offset;
            uint32_t resource, padding;
        } transfer;
        struct {
            uint32_t resource, count;
        } attach;
        struct {
            uint32_t scanout, padding;
        } edid;
        struct {
            uint32_t scanout, x, y, padding;
            uint32_t resource, hot_x, hot_y, padding2;
        } cursor;
    };
};
static_assert(sizeof(struct header) == 24, "as in 5.7.6.7");
static_assert(sizeof(struct request) == 24 + 32, "no padding of the compiler's");

/* The guest's entry of ATTACH_BACKING. */
struct memory_entry {
    uint64_t gpa;
    uint32_t size_bytes, padding;
};

/* ---- answers ---- */

struct reply {
    struct header header;
    union {
        struct {
            struct rectangle r;
            uint32_t enabled, flags;
        } displays[SCANOUTS_MAX];
        struct {
            uint32_t size_bytes, padding;
            uint8_t edid[1024];
        } edid;
    };
};

static uint32_t reply_bytes(const struct reply *reply)
{
    switch (reply->header.type) {
    case OK_DISPLAY_INFO: return sizeof(reply->header) + sizeof(reply->displays);
    case OK_EDID: return sizeof(reply->header) + sizeof(reply->edid);
    default: return sizeof(reply->header);
    }
}

/* ---- commands ---- */

static struct display_rectangle to_display(const struct rectangle *r)
{
    return (struct display_rectangle){r->x, r->y, r->width, r->height};
}

static enum response get_display_info(const struct virtio_gpu *gpu, struct reply *reply)
{
    reply->displays[0].r = (struct rectangle){0, 0, gpu->width, gpu->height};
    reply->displays[0].enabled = 1;
    return OK_DISPLAY_INFO;
}

static enum response get_edid(const struct virtio_gpu *gpu, const struct request *request,
                              struct reply *reply)
{
    if (!virtio_has(gpu->device, F_EDID))
        return ERR_UNSPEC;
    if (request->edid.scanout != 0)
        return ERR_INVALID_SCANOUT_ID;
    reply->edid.size_bytes = EDID_BYTES;
    edid_fill(reply->edid.edid, gpu->width, gpu->height);
    return OK_EDID;
}

static enum response create_2d(struct virtio_gpu *gpu, const struct request *request)
{
    uint32_t id = request->create.resource;
    if (!id || gpu_resource_find(gpu, id))
        return ERR_INVALID_RESOURCE_ID;
    /* Which of the reasons it is does not help a driver. */
    return gpu_resource_create(gpu, id, request->create.format, request->create.width,
                               request->create.height)
               ? OK_NODATA
               : ERR_OUT_OF_MEMORY;
}

static void turn_off(struct virtio_gpu *gpu)
{
    gpu->scanout_changed |= gpu->scanout.resource != 0;
    gpu->scanout = (struct gpu_scanout){0};
    gpu->flushed.width = 0;
}

static enum response unref(struct virtio_gpu *gpu, struct gpu_resource *resource)
{
    if (gpu->scanout.resource == resource->id)
        turn_off(gpu);
    gpu_resource_destroy(gpu, resource);
    return OK_NODATA;
}

static enum response set_scanout(struct virtio_gpu *gpu, const struct request *request)
{
    const struct display_rectangle area = to_display(&request->scanout.r);
    if (request->scanout.scanout != 0)
        return ERR_INVALID_SCANOUT_ID;
    if (!request->scanout.resource) {
        turn_off(gpu);
        return OK_NODATA;
    }
    const struct gpu_resource *resource = gpu_resource_find(gpu, request->scanout.resource);
    if (!resource)
        return ERR_INVALID_RESOURCE_ID;
    if (!gpu_inside(&area, resource->width, resource->height))
        return ERR_INVALID_PARAMETER;
    gpu->scanout = (struct gpu_scanout){resource->id, area};
    gpu->scanout_changed = true;
    return OK_NODATA;
}

static enum response flush(struct virtio_gpu *gpu, const struct request *request,
                           const struct gpu_resource *resource)
{
    const struct display_rectangle r = to_display(&request->flush.r);
    if (!gpu_inside(&r, resource->width, resource->height))
        return ERR_INVALID_PARAMETER;
    gpu_screen_flush(gpu, resource, &r);
    return OK_NODATA;
}

static enum response transfer(struct virtio_gpu *gpu, const struct request *request,
                              struct gpu_resource *resource)
{
    const struct display_rectangle r = to_display(&request->transfer.r);
    if (!gpu_inside(&r, resource->width, resource->height) ||
        request->transfer.offset > UINT32_MAX * (uint64_t)GPU_BACKING_PIECES_MAX)
        return ERR_INVALID_PARAMETER;
    if (!resource->pieces)
        return ERR_UNSPEC;
    gpu_resource_fetch(gpu, resource, &r, request->transfer.offset);
    return OK_NODATA;
}

static enum response attach(struct virtio_gpu *gpu, const struct request *request,
                            struct gpu_resource *resource)
{
    uint32_t count = request->attach.count;
    uint64_t at = sizeof(struct header) + sizeof(request->attach);
    if (count > GPU_BACKING_PIECES_MAX ||
        count * sizeof(struct memory_entry) > gpu->chain.readable_bytes - at)
        return ERR_INVALID_PARAMETER;
    struct gpu_piece *pieces = calloc(count ? count : 1, sizeof(*pieces));
    if (!pieces)
        return ERR_OUT_OF_MEMORY;
    for (uint32_t i = 0; i < count; i++) {
        struct memory_entry entry;
        virtio_chain_read(&gpu->chain, at + i * sizeof(entry), &entry, sizeof(entry));
        pieces[i] = (struct gpu_piece){entry.gpa, entry.size_bytes};
    }
    return gpu_resource_attach(gpu, resource, pieces, count) ? OK_NODATA : ERR_UNSPEC;
}

/* How much of the request a command is made of. */
static size_t command_bytes(uint32_t type)
{
    const struct request *r = NULL;
    switch (type) {
    case GET_DISPLAY_INFO: return sizeof(r->header);
    case RESOURCE_CREATE_2D: return sizeof(r->header) + sizeof(r->create);
    case RESOURCE_UNREF:
    case RESOURCE_DETACH_BACKING: return sizeof(r->header) + sizeof(r->of_resource);
    case SET_SCANOUT: return sizeof(r->header) + sizeof(r->scanout);
    case RESOURCE_FLUSH: return sizeof(r->header) + sizeof(r->flush);
    case TRANSFER_TO_HOST_2D: return sizeof(r->header) + sizeof(r->transfer);
    case RESOURCE_ATTACH_BACKING: return sizeof(r->header) + sizeof(r->attach);
    case GET_EDID: return sizeof(r->header) + sizeof(r->edid);
    case UPDATE_CURSOR:
    case MOVE_CURSOR: return sizeof(r->header) + sizeof(r->cursor);
    default: return 0;
    }
}

/* The resource that a command is about; 0: it is about none, or looks it up itself. */
static uint32_t resource_of(const struct request *request)
{
    switch (request->header.type) {
    case RESOURCE_UNREF:
    case RESOURCE_DETACH_BACKING: return request->of_resource.resource;
    case RESOURCE_FLUSH: return request->flush.resource;
    case TRANSFER_TO_HOST_2D: return request->transfer.resource;
    default: return request->attach.resource;
    }
}

static enum response run_on_resource(struct virtio_gpu *gpu, const struct request *request)
{
    struct gpu_resource *resource = gpu_resource_find(gpu, resource_of(request));
    if (!resource)
        return ERR_INVALID_RESOURCE_ID;
    switch (request->header.type) {
    case RESOURCE_UNREF: return unref(gpu, resource);
    case RESOURCE_FLUSH: return flush(gpu, request, resource);
    case TRANSFER_TO_HOST_2D: return transfer(gpu, request, resource);
    case RESOURCE_ATTACH_BACKING: return attach(gpu, request, resource);
    default: gpu_resource_detach(gpu, resource); return OK_NODATA;
    }
}

static enum response run_control(struct virtio_gpu *gpu, const struct request *request,
                                 struct reply *reply)
{
    switch (request->header.type) {
    case GET_DISPLAY_INFO: return get_display_info(gpu, reply);
    case GET_EDID: return get_edid(gpu, request, reply);
    case RESOURCE_CREATE_2D: return create_2d(gpu, request);
    case SET_SCANOUT: return set_scanout(gpu, request);
    case RESOURCE_UNREF:
    case RESOURCE_FLUSH:
    case TRANSFER_TO_HOST_2D:
    case RESOURCE_ATTACH_BACKING:
    case RESOURCE_DETACH_BACKING: return run_on_resource(gpu, request);
    default: return ERR_UNSPEC;
    }
}

/* 5.7.6.10. A picture of another size than 64 by 64 is taken from its upper left. */
static enum response run_cursor(struct virtio_gpu *gpu, const struct request *request)
{
    struct gpu_cursor *cursor = &gpu->cursor;
    if (request->header.type != UPDATE_CURSOR && request->header.type != MOVE_CURSOR)
        return ERR_UNSPEC;
    if (request->cursor.scanout != 0)
        return ERR_INVALID_SCANOUT_ID;
    cursor->x = request->cursor.x;
    cursor->y = request->cursor.y;
    gpu->cursor_changed |= request->header.type == UPDATE_CURSOR;
    if (request->header.type == MOVE_CURSOR)
        return OK_NODATA; /* viewers know where they have moved it to */
    const struct gpu_resource *resource = gpu_resource_find(gpu, request->cursor.resource);
    if (request->cursor.resource && !resource)
        return ERR_INVALID_RESOURCE_ID;
    cursor->resource = request->cursor.resource;
    cursor->hot_x = request->cursor.hot_x % GPU_CURSOR_SIZE;
    cursor->hot_y = request->cursor.hot_y % GPU_CURSOR_SIZE;
    memset(cursor->pixels, 0, sizeof(cursor->pixels));
    for (uint32_t y = 0; resource && y < GPU_CURSOR_SIZE && y < resource->height; y++)
        gpu_resource_line(resource, 0, y,
                          resource->width < GPU_CURSOR_SIZE ? resource->width : GPU_CURSOR_SIZE,
                          cursor->pixels + y * GPU_CURSOR_SIZE);
    return OK_NODATA;
}

static void complain(struct virtio_gpu *gpu, uint32_t type, uint32_t response)
{
    log_limited(virtio_log(gpu->device), virtio_log_limit(gpu->device), LOG_DEBUG, "virtio-gpu",
                "command 0x%x is answered with 0x%x", type, response);
}

/* Does the command in the chain; gives the length of the answer. */
static uint64_t run(struct virtio_gpu *gpu, unsigned queue)
{
    struct request request = {0};
    struct reply reply = {0};
    size_t got = virtio_chain_read(&gpu->chain, 0, &request, sizeof(request));
    size_t wanted = command_bytes(request.header.type);
    if (got < sizeof(request.header) || got < wanted)
        reply.header.type = ERR_INVALID_PARAMETER;
    else if (queue == QUEUE_CONTROL)
        reply.header.type = run_control(gpu, &request, &reply);
    else
        reply.header.type = run_cursor(gpu, &request);
    if (reply.header.type >= ERR_UNSPEC)
        complain(gpu, request.header.type, reply.header.type);
    if (request.header.flags & FLAG_FENCE) {
        reply.header.flags = FLAG_FENCE;
        reply.header.fence = request.header.fence;
        reply.header.context = request.header.context;
    }
    return virtio_chain_write(&gpu->chain, 0, &reply, reply_bytes(&reply));
}

static enum virtio_taken take(void *self, unsigned index)
{
    struct virtio_gpu *gpu = self;
    struct virtio_queue *q = virtio_queue(gpu->device, index);
    if (!virtio_queue_pop(q, &gpu->chain))
        return VIRTIO_NONE;
    virtio_queue_push(q, &gpu->chain, run(gpu, index));
    return VIRTIO_TAKEN;
}

static void gpu_kick(void *self, unsigned index)
{
    struct virtio_gpu *gpu = self;
    virtio_serve(gpu->device, index, take);
}

/* ---- configuration ---- */

static void gpu_config_read(void *self, uint32_t offset, void *buffer, uint32_t size_bytes)
{
    const struct virtio_gpu *gpu = self;
    const uint32_t image[CONFIG_BYTES / 4] = {gpu->events, 0, 1, 0};
    memcpy(buffer, (const uint8_t *)image + offset, size_bytes);
}

static void gpu_config_write(void *self, uint32_t offset, const void *buffer, uint32_t size_bytes)
{
    struct virtio_gpu *gpu = self;
    uint32_t clear;
    if (offset != CONFIG_EVENTS_CLEAR || size_bytes != sizeof(clear))
        return;
    memcpy(&clear, buffer, sizeof(clear));
    gpu->events &= ~clear;
}

/* The monitor has another favourite: the driver looks at it anew. */
static void suggest_size(void *opaque, uint32_t width, uint32_t height)
{
    struct virtio_gpu *gpu = opaque;
    if (!width || !height || width > EDID_MAX_WIDTH || height > EDID_MAX_HEIGHT)
        return;
    virtio_lock(gpu->device);
    if (width != gpu->width || height != gpu->height) {
        gpu->width = width;
        gpu->height = height;
        gpu->events |= EVENT_DISPLAY;
        virtio_config_changed(gpu->device);
    }
    virtio_unlock(gpu->device);
}

/* ---- life ---- */

/* The monitor stays as it is. */
static void gpu_reset(void *self)
{
    struct virtio_gpu *gpu = self;
    gpu_resources_clear(gpu);
    turn_off(gpu);
    gpu->events = 0;
    gpu->cursor = (struct gpu_cursor){0};
    gpu->cursor_changed = true;
}

static void gpu_save(void *self, struct save *save)
{
    const struct virtio_gpu *gpu = self;
    const struct gpu_cursor *cursor = &gpu->cursor;
    gpu_resources_save(gpu, save);
    save_u32(save, gpu->events);
    save_u32(save, gpu->width);
    save_u32(save, gpu->height);
    save_u32(save, gpu->scanout.resource);
    save_u32(save, gpu->scanout.area.x);
    save_u32(save, gpu->scanout.area.y);
    save_u32(save, gpu->scanout.area.width);
    save_u32(save, gpu->scanout.area.height);
    save_u32(save, cursor->resource);
    save_u32(save, cursor->x);
    save_u32(save, cursor->y);
    save_u32(save, cursor->hot_x);
    save_u32(save, cursor->hot_y);
    save_bytes(save, cursor->pixels, sizeof(cursor->pixels));
}

static bool is_sound(const struct virtio_gpu *gpu)
{
    const struct gpu_scanout *scanout = &gpu->scanout;
    const struct gpu_resource *resource = gpu_resource_find(gpu, scanout->resource);
    return gpu->width && gpu->width <= EDID_MAX_WIDTH && gpu->height &&
           gpu->height <= EDID_MAX_HEIGHT && gpu->events <= EVENT_DISPLAY &&
           gpu->cursor.hot_x < GPU_CURSOR_SIZE && gpu->cursor.hot_y < GPU_CURSOR_SIZE &&
           (!scanout->resource ||
            (resource && gpu_inside(&scanout->area, resource->width, resource->height)));
}

static bool gpu_load(void *self, struct load *load, uint32_t version)
{
    struct virtio_gpu *gpu = self;
    struct gpu_cursor *cursor = &gpu->cursor;
    uint32_t width = gpu->width, height = gpu->height;
    gpu_reset(gpu);
    bool ok = version == 1 && gpu_resources_load(gpu, load);
    gpu->events = load_u32(load);
    gpu->width = load_u32(load);
    gpu->height = load_u32(load);
    gpu->scanout.resource = load_u32(load);
    gpu->scanout.area.x = load_u32(load);
    gpu->scanout.area.y = load_u32(load);
    gpu->scanout.area.width = load_u32(load);
    gpu->scanout.area.height = load_u32(load);
    cursor->resource = load_u32(load);
    cursor->x = load_u32(load);
    cursor->y = load_u32(load);
    cursor->hot_x = load_u32(load);
    cursor->hot_y = load_u32(load);
    load_bytes(load, cursor->pixels, sizeof(cursor->pixels));
    gpu->scanout_changed = gpu->cursor_changed = true;
    if (ok && !load->failed && is_sound(gpu))
        return true;
    gpu_reset(gpu);
    gpu->width = width;
    gpu->height = height;
    return false;
}

static void gpu_destroy(void *self)
{
    struct virtio_gpu *gpu = self;
    gpu_resources_clear(gpu);
    free(gpu);
}

static const struct virtio_ops gpu_ops = {
    .name = "virtio-gpu",
    .type = VIRTIO_TYPE_GPU,
    .pci_class = 0x038000, /* a display that is no VGA */
    .version = 1,
    .config_read = gpu_config_read,
    .config_write = gpu_config_write,
    .kick = gpu_kick,
    .reset = gpu_reset,
    .save = gpu_save,
    .load = gpu_load,
    .destroy = gpu_destroy,
};

struct virtio_device *virtio_gpu_create(const struct virtio_gpu_config *config, struct error *err)
{
    static const uint16_t sizes[QUEUES] = {[QUEUE_CONTROL] = 256, [QUEUE_CURSOR] = 16};
    struct virtio_gpu *gpu = calloc(1, sizeof(*gpu));
    if (!gpu) {
        error_set(err, "cannot create device", gpu_ops.name, "out of memory");
        return NULL;
    }
    gpu->width = config->width;
    gpu->height = config->height;
    gpu->display = (struct display_source){gpu_screen_refresh, suggest_size, gpu};
    struct virtio_config core = {.ops = &gpu_ops,
                                 .self = gpu,
                                 .ram = config->ram,
                                 .loop = config->loop,
                                 .log = config->log,
                                 .features = F_EDID,
                                 .features_off = config->features_off,
                                 .config_size_bytes = CONFIG_BYTES,
                                 .queue_count = QUEUES,
                                 .queue_sizes = sizes};
    gpu->device = virtio_create(&core, err);
    if (!gpu->device) {
        free(gpu);
        return NULL;
    }
    return gpu->device;
}

const struct display_source *virtio_gpu_display(struct virtio_device *device)
{
    const struct virtio_gpu *gpu = virtio_self(device);
    return &gpu->display;
}
