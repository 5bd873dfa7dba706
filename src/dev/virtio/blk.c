/* SPDX-License-Identifier: BSD-2-Clause
 *
 * virtio block device (virtio 1.2, 5.2). Left out: SIZE_MAX, zoned and SCSI commands, secure erase,
 * lifetime. Requests are taken in the kick (a vCPU thread or the loop's) and end in the back end's
 * done() on the loop's thread; while the back end has one, its queue is held (virtio.h).
 */
#include "dev/virtio/blk.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    SECTOR_BYTES = 512,
    HEADER_BYTES = 16,
    SEGMENT_BYTES = 16,
    SEGMENTS_MAX = 32, /* of one discard or write zeroes request */
    SEGMENT_UNMAP = 1,
    /* A segment's length: 1 GiB, so that one request does not keep a worker for long. */
    SEGMENT_MAX_SECTORS = 1 << 21,
    QUEUE_SIZE = 256,
};

enum { /* 5.2.6: type */
       TYPE_IN = 0,
       TYPE_OUT = 1,
       TYPE_FLUSH = 4,
       TYPE_GET_ID = 8,
       TYPE_DISCARD = 11,
       TYPE_WRITE_ZEROES = 13,
};

enum status { STATUS_OK = 0, STATUS_IOERR = 1, STATUS_UNSUPP = 2 };

#define F_SEG_MAX      (UINT64_C(1) << 2)
#define F_RO           (UINT64_C(1) << 5)
#define F_BLK_SIZE     (UINT64_C(1) << 6)
#define F_FLUSH        (UINT64_C(1) << 9)
#define F_TOPOLOGY     (UINT64_C(1) << 10)
#define F_CONFIG_WCE   (UINT64_C(1) << 11)
#define F_MQ           (UINT64_C(1) << 12)
#define F_DISCARD      (UINT64_C(1) << 13)
#define F_WRITE_ZEROES (UINT64_C(1) << 14)

enum { /* 5.2.4: offsets in the configuration */
       CONFIG_CAPACITY = 0,
       CONFIG_SEG_MAX = 12,
       CONFIG_BLK_SIZE = 20,
       CONFIG_PHYSICAL_EXPONENT = 24,
       CONFIG_MIN_IO = 26,
       CONFIG_WRITEBACK = 32,
       CONFIG_QUEUES = 34,
       CONFIG_DISCARD_SECTORS = 36,
       CONFIG_DISCARD_SEGMENTS = 40,
       CONFIG_DISCARD_ALIGNMENT = 44,
       CONFIG_ZEROES_SECTORS = 48,
       CONFIG_ZEROES_SEGMENTS = 52,
       CONFIG_ZEROES_UNMAP = 56,
       CONFIG_BYTES = 60,
};

struct segment {
    uint64_t offset_bytes, size_bytes;
    bool may_unmap;
};

/* A request that was taken from a queue. The chain's data pieces are handed to the back end as they
 * are; the status byte is cut off the last one and put back before the chain is pushed. */
struct blk_request {
    struct block_request block;
    struct virtio_blk *blk;
    struct blk_request *next; /* in the list of free ones */
    unsigned queue;
    uint8_t *status;
    struct iovec *shortened; /* the piece that the status byte was cut off */
    bool then_flush;         /* write-through */
    unsigned segment_count, segment_next;
    struct segment segments[SEGMENTS_MAX];
    struct virtio_chain chain;
};

struct virtio_blk {
    struct virtio_device *device;
    struct block_backend backend;
    struct block_info info;
    unsigned queue_count;
    uint16_t queue_size;
    char serial[VIRTIO_BLK_SERIAL_BYTES];
    bool writeback;
    struct blk_request *free_requests;
};

/* ---- requests ---- */

static struct blk_request *request_new(struct virtio_blk *blk)
{
    struct blk_request *r = blk->free_requests;
    if (r)
        blk->free_requests = r->next;
    else if (!(r = malloc(sizeof(*r))))
        return NULL;
    r->blk = blk;
    r->status = NULL;
    r->shortened = NULL;
    r->then_flush = false;
    r->segment_count = r->segment_next = 0;
    memset(&r->block, 0, sizeof(r->block));
    return r;
}

static void request_free(struct blk_request *r)
{
    r->next = r->blk->free_requests;
    r->blk->free_requests = r;
}

/* Writes the status, gives the chain back and the request up. With the lock held. */
static void request_finish(struct blk_request *r, enum status status)
{
    struct virtio_queue *q = virtio_queue(r->blk->device, r->queue);
    if (r->shortened)
        r->shortened->iov_len++;
    if (r->chain.generation == q->generation)
        *r->status = (uint8_t)status;
    virtio_queue_push(q, &r->chain, r->chain.writable_bytes);
    request_free(r);
}

static void request_done(struct block_request *block, int error);

/* The writes of a write-through device last when they are answered (5.2.5.2). */
static bool is_write_through(const struct virtio_blk *blk)
{
    uint64_t features = virtio_features(blk->device);
    if (features & F_CONFIG_WCE)
        return !blk->writeback;
    return !(features & F_FLUSH);
}

static void request_submit(struct blk_request *r, enum block_kind kind)
{
    r->block.kind = kind;
    r->block.done = request_done;
    r->block.opaque = r;
    r->blk->backend.submit(r->blk->backend.opaque, &r->block);
}

static void submit_segment(struct blk_request *r)
{
    const struct segment *segment = &r->segments[r->segment_next++];
    r->block.offset_bytes = segment->offset_bytes;
    r->block.size_bytes = segment->size_bytes;
    r->block.may_unmap = segment->may_unmap;
    request_submit(r, r->block.kind);
}

/* What follows the step that has just ended well; false when the request is complete. */
static bool request_continue(struct blk_request *r)
{
    if (r->segment_next < r->segment_count) {
        submit_segment(r);
        return true;
    }
    if (!r->then_flush)
        return false;
    r->then_flush = false;
    r->block.offset_bytes = r->block.size_bytes = 0;
    r->block.iov = NULL;
    r->block.iov_count = 0;
    request_submit(r, BLOCK_FLUSH);
    return true;
}

static void request_done(struct block_request *block, int error)
{
    struct blk_request *r = block->opaque;
    struct virtio_device *device = r->blk->device;
    virtio_lock(device);
    if (error)
        log_limited(virtio_log(device), virtio_log_limit(device), LOG_WARNING, "virtio-blk",
                    "request failed: %s", strerror(error));
    if (error || !request_continue(r)) {
        unsigned queue = r->queue;
        bool is_unsupported = error == EOPNOTSUPP || error == ENOSYS;
        request_finish(r, error ? is_unsupported ? STATUS_UNSUPP : STATUS_IOERR : STATUS_OK);
        virtio_queue_notify(virtio_queue(device, queue));
        virtio_release(device, queue);
    }
    virtio_unlock(device);
}

/* ---- taking requests apart ---- */

static bool range_valid(const struct virtio_blk *blk, uint64_t sector, uint64_t sectors)
{
    uint64_t capacity = blk->info.size_bytes / SECTOR_BYTES;
    return sector <= capacity && sectors <= capacity - sector;
}

/* Each start_* hands the request to the back end and gives true, or gives the status to answer
 * with at once. */
static bool start_transfer(struct blk_request *r, bool is_write, uint64_t sector, struct iovec *iov,
                           unsigned count, uint64_t size_bytes, enum status *status)
{
    struct virtio_blk *blk = r->blk;
    *status = STATUS_IOERR;
    if ((is_write && blk->info.read_only) || size_bytes % SECTOR_BYTES ||
        !range_valid(blk, sector, size_bytes / SECTOR_BYTES))
        return false;
    *status = STATUS_OK;
    if (!size_bytes)
        return false;
    r->block.offset_bytes = sector * SECTOR_BYTES;
    r->block.size_bytes = size_bytes;
    r->block.iov = iov;
    r->block.iov_count = count;
    r->then_flush = is_write && is_write_through(blk);
    request_submit(r, is_write ? BLOCK_WRITE : BLOCK_READ);
    return true;
}

static bool start_id(struct blk_request *r, uint64_t room_bytes, enum status *status)
{
    size_t size = VIRTIO_BLK_SERIAL_BYTES;
    if (size > room_bytes)
        size = (size_t)room_bytes;
    virtio_chain_write(&r->chain, 0, r->blk->serial, size);
    *status = STATUS_OK;
    return false;
}

/* One segment of a discard or write zeroes request (5.2.6.2). */
static enum status segment_parse(const struct virtio_blk *blk, const uint8_t *bytes,
                                 bool is_discard, struct segment *out)
{
    uint64_t sector;
    uint32_t sectors, flags;
    memcpy(&sector, bytes, 8);
    memcpy(&sectors, bytes + 8, 4);
    memcpy(&flags, bytes + 12, 4);
    if (flags & ~(is_discard ? UINT32_C(0) : (uint32_t)SEGMENT_UNMAP))
        return STATUS_UNSUPP;
    if (sectors > SEGMENT_MAX_SECTORS || !range_valid(blk, sector, sectors))
        return STATUS_IOERR;
    *out = (struct segment){sector * SECTOR_BYTES, (uint64_t)sectors * SECTOR_BYTES,
                            flags & SEGMENT_UNMAP};
    return STATUS_OK;
}

static enum status segments_parse(struct blk_request *r, bool is_discard)
{
    uint64_t size = r->chain.readable_bytes - HEADER_BYTES;
    if (!size || size % SEGMENT_BYTES || size / SEGMENT_BYTES > SEGMENTS_MAX)
        return STATUS_IOERR;
    for (uint64_t at = 0; at < size; at += SEGMENT_BYTES) {
        uint8_t bytes[SEGMENT_BYTES];
        virtio_chain_read(&r->chain, HEADER_BYTES + at, bytes, sizeof(bytes));
        struct segment *segment = &r->segments[r->segment_count];
        enum status status = segment_parse(r->blk, bytes, is_discard, segment);
        if (status != STATUS_OK)
            return status;
        if (segment->size_bytes)
            r->segment_count++;
    }
    return STATUS_OK;
}

static bool start_segments(struct blk_request *r, bool is_discard, enum status *status)
{
    struct virtio_blk *blk = r->blk;
    if (!virtio_has(blk->device, is_discard ? F_DISCARD : F_WRITE_ZEROES)) {
        *status = blk->info.read_only ? STATUS_IOERR : STATUS_UNSUPP;
        return false;
    }
    *status = segments_parse(r, is_discard);
    if (*status != STATUS_OK || !r->segment_count)
        return false;
    r->then_flush = !is_discard && is_write_through(blk);
    r->block.kind = is_discard ? BLOCK_DISCARD : BLOCK_WRITE_ZEROES;
    submit_segment(r);
    return true;
}

static bool start_flush(struct blk_request *r, enum status *status)
{
    request_submit(r, BLOCK_FLUSH);
    return true;
}

/* Cuts the status byte off: the last of the writable part. The chain has one. */
static void cut_status(struct blk_request *r, unsigned *writable_count)
{
    struct iovec *last = r->chain.iov + r->chain.readable_count + r->chain.writable_count - 1;
    r->status = (uint8_t *)last->iov_base + last->iov_len - 1;
    *writable_count = r->chain.writable_count;
    if (last->iov_len == 1) {
        (*writable_count)--;
    } else {
        last->iov_len--;
        r->shortened = last;
    }
}

static bool request_start(struct blk_request *r, enum status *status)
{
    struct virtio_chain *chain = &r->chain;
    uint8_t header[HEADER_BYTES];
    unsigned writable_count;
    cut_status(r, &writable_count);
    *status = STATUS_IOERR;
    if (virtio_chain_read(chain, 0, header, sizeof(header)) != sizeof(header))
        return false;
    uint32_t type;
    uint64_t sector;
    memcpy(&type, header, 4);
    memcpy(&sector, header + 8, 8);

    struct iovec *readable = chain->iov;
    unsigned readable_count = chain->readable_count;
    uint64_t room_bytes = chain->writable_bytes - 1;
    switch (type) {
    case TYPE_IN:
        return start_transfer(r, false, sector, chain->iov + chain->readable_count, writable_count,
                              room_bytes, status);
    case TYPE_OUT:
        virtio_iov_skip(&readable, &readable_count, HEADER_BYTES);
        return start_transfer(r, true, sector, readable, readable_count,
                              chain->readable_bytes - HEADER_BYTES, status);
    case TYPE_FLUSH: return start_flush(r, status);
    case TYPE_GET_ID: return start_id(r, room_bytes, status);
    case TYPE_DISCARD: return start_segments(r, true, status);
    case TYPE_WRITE_ZEROES: return start_segments(r, false, status);
    default: *status = STATUS_UNSUPP; return false;
    }
}

static enum virtio_taken request_take(void *self, unsigned index)
{
    struct virtio_blk *blk = self;
    struct virtio_queue *q = virtio_queue(blk->device, index);
    struct blk_request *r = request_new(blk);
    if (!r) {
        virtio_needs_reset(blk->device, "out of memory");
        return VIRTIO_NONE;
    }
    if (!virtio_queue_pop(q, &r->chain)) {
        request_free(r);
        return VIRTIO_NONE;
    }
    r->queue = index;
    if (!r->chain.writable_bytes) {
        virtio_queue_break(q, "a request has no room for its status");
        request_free(r);
        return VIRTIO_NONE;
    }
    enum status status;
    virtio_hold(blk->device, index);
    if (!request_start(r, &status)) {
        request_finish(r, status);
        virtio_release(blk->device, index);
    }
    return VIRTIO_TAKEN;
}

static void blk_kick(void *self, unsigned index)
{
    struct virtio_blk *blk = self;
    virtio_serve(blk->device, index, request_take);
}

/* ---- configuration ---- */

static void put(uint8_t *image, unsigned offset, uint64_t value, unsigned size_bytes)
{
    memcpy(image + offset, &value, size_bytes);
}

static unsigned physical_exponent(const struct block_info *info)
{
    unsigned exponent = 0;
    while (exponent < 16 && (uint32_t)SECTOR_BYTES << (exponent + 1) <= info->physical_block_bytes)
        exponent++;
    return exponent;
}

static void config_image(const struct virtio_blk *blk, uint8_t *image)
{
    unsigned exponent = physical_exponent(&blk->info);
    uint32_t granularity = blk->info.discard_granularity_bytes / SECTOR_BYTES;
    memset(image, 0, CONFIG_BYTES);
    put(image, CONFIG_CAPACITY, blk->info.size_bytes / SECTOR_BYTES, 8);
    put(image, CONFIG_SEG_MAX, blk->queue_size - 2U, 4);
    put(image, CONFIG_BLK_SIZE, SECTOR_BYTES, 4);
    put(image, CONFIG_PHYSICAL_EXPONENT, exponent, 1);
    put(image, CONFIG_MIN_IO, exponent < 16 ? UINT64_C(1) << exponent : UINT16_MAX, 2);
    put(image, CONFIG_WRITEBACK, blk->writeback, 1);
    put(image, CONFIG_QUEUES, blk->queue_count, 2);
    if (blk->info.can_discard) {
        put(image, CONFIG_DISCARD_SECTORS, SEGMENT_MAX_SECTORS, 4);
        put(image, CONFIG_DISCARD_SEGMENTS, SEGMENTS_MAX, 4);
        put(image, CONFIG_DISCARD_ALIGNMENT, granularity ? granularity : 1, 4);
    }
    if (!blk->info.read_only) {
        put(image, CONFIG_ZEROES_SECTORS, SEGMENT_MAX_SECTORS, 4);
        put(image, CONFIG_ZEROES_SEGMENTS, SEGMENTS_MAX, 4);
        put(image, CONFIG_ZEROES_UNMAP, blk->info.can_discard, 1);
    }
}

static void blk_config_read(void *self, uint32_t offset, void *buffer, uint32_t size_bytes)
{
    uint8_t image[CONFIG_BYTES];
    config_image(self, image);
    memcpy(buffer, image + offset, size_bytes);
}

static void blk_config_write(void *self, uint32_t offset, const void *buffer, uint32_t size_bytes)
{
    struct virtio_blk *blk = self;
    uint8_t value;
    if (offset != CONFIG_WRITEBACK || size_bytes != 1 || !virtio_has(blk->device, F_CONFIG_WCE))
        return;
    memcpy(&value, buffer, 1);
    blk->writeback = value & 1;
}

static uint64_t blk_features(const struct virtio_blk *blk)
{
    uint64_t features = F_SEG_MAX | F_BLK_SIZE | F_FLUSH | F_TOPOLOGY | F_CONFIG_WCE;
    if (blk->queue_count > 1)
        features |= F_MQ;
    if (blk->info.read_only)
        features |= F_RO;
    else
        features |= F_WRITE_ZEROES | (blk->info.can_discard ? F_DISCARD : 0);
    return features;
}

void virtio_blk_resized(struct virtio_device *device)
{
    struct virtio_blk *blk = virtio_self(device);
    struct block_info info = {0};
    virtio_lock(device);
    blk->backend.info(blk->backend.opaque, &info);
    if (info.size_bytes != blk->info.size_bytes) {
        blk->info.size_bytes = info.size_bytes;
        virtio_config_changed(device);
    }
    virtio_unlock(device);
}

/* ---- life ---- */

static void blk_reset(void *self)
{
    struct virtio_blk *blk = self;
    blk->writeback = true;
}

static void blk_save(void *self, struct save *save)
{
    struct virtio_blk *blk = self;
    save_bool(save, blk->writeback);
}

static bool blk_load(void *self, struct load *load, uint32_t version)
{
    struct virtio_blk *blk = self;
    blk->writeback = load_bool(load);
    return version == 1 && !load->failed;
}

static void blk_destroy(void *self)
{
    struct virtio_blk *blk = self;
    while (blk->free_requests) {
        struct blk_request *r = blk->free_requests;
        blk->free_requests = r->next;
        free(r);
    }
    free(blk);
}

static const struct virtio_ops blk_ops = {
    .name = "virtio-blk",
    .type = VIRTIO_TYPE_BLK,
    .pci_class = 0x010000,
    .version = 1,
    .config_read = blk_config_read,
    .config_write = blk_config_write,
    .kick = blk_kick,
    .reset = blk_reset,
    .save = blk_save,
    .load = blk_load,
    .destroy = blk_destroy,
};

static struct virtio_blk *blk_allocate(const struct virtio_blk_config *config, struct error *err)
{
    struct virtio_blk *blk = calloc(1, sizeof(*blk));
    if (!blk) {
        error_set(err, "cannot create device", blk_ops.name, "out of memory");
        return NULL;
    }
    blk->backend = *config->backend;
    blk->queue_count = config->queue_count ? config->queue_count : 1;
    blk->queue_size = config->queue_size ? config->queue_size : QUEUE_SIZE;
    assert(blk->queue_count <= VIRTIO_BLK_QUEUES_MAX && blk->queue_size >= 4);
    blk->writeback = true;
    /* The id is padded with zeroes, and has none at its end when it is full. */
    if (config->serial)
        memcpy(blk->serial, config->serial, strnlen(config->serial, sizeof(blk->serial)));
    blk->backend.info(blk->backend.opaque, &blk->info);
    return blk;
}

struct virtio_device *virtio_blk_create(const struct virtio_blk_config *config, struct error *err)
{
    struct virtio_blk *blk = blk_allocate(config, err);
    if (!blk)
        return NULL;
    uint16_t sizes[VIRTIO_BLK_QUEUES_MAX];
    for (unsigned i = 0; i < blk->queue_count; i++)
        sizes[i] = blk->queue_size;
    struct virtio_config core = {.ops = &blk_ops,
                                 .self = blk,
                                 .ram = config->ram,
                                 .loop = config->loop,
                                 .log = config->log,
                                 .features = blk_features(blk),
                                 .features_off = config->features_off,
                                 .config_size_bytes = CONFIG_BYTES,
                                 .queue_count = blk->queue_count,
                                 .queue_sizes = sizes};
    blk->device = virtio_create(&core, err);
    if (!blk->device) {
        free(blk);
        return NULL;
    }
    return blk->device;
}
