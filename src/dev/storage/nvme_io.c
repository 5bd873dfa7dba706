/* SPDX-License-Identifier: BSD-2-Clause
 *
 * I/O commands (NVM Express 1.4, chapter 6): read, write, flush, compare, write zeroes, dataset
 * management. Left out: write uncorrectable, verify, reservations; protection information and
 * metadata, which the namespace hasn't got; hints (latency, access frequency), which are dropped.
 */
#include "dev/storage/nvme_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    OP_FLUSH = 0x00,
    OP_WRITE = 0x01,
    OP_READ = 0x02,
    OP_COMPARE = 0x05,
    OP_WRITE_ZEROES = 0x08,
    OP_DATASET = 0x09,

    RANGE_BYTES = 16,
    DATASET_DEALLOCATE = 1 << 2,
};
#define FUA         (UINT32_C(1) << 30)
#define DEALLOCATE  (UINT32_C(1) << 25)
#define PROTECTION  (UINT32_C(0xf) << 26) /* PRINFO */
#define BLOCKS_MASK UINT32_C(0xffff)

/* ---- the end of commands ---- */

static enum nvme_status status_of(const struct nvme_request *r, int error)
{
    switch (error) {
    case 0: return NVME_OK;
    case ENOSPC:
    case EDQUOT: return NVME_CAPACITY_EXCEEDED;
    case EROFS:
    case EPERM: return NVME_READ_ONLY_RANGE;
    }
    switch (r->command.opcode) {
    case OP_READ:
    case OP_COMPARE: return NVME_READ_ERROR;
    case OP_WRITE:
    case OP_FLUSH:
    case OP_WRITE_ZEROES: return NVME_WRITE_FAULT;
    default: return NVME_INTERNAL_ERROR;
    }
}

static void submit(struct nvme_request *r, enum block_kind kind);

static void submit_plain(struct nvme_request *r, enum block_kind kind)
{
    r->block.offset_bytes = r->block.size_bytes = 0;
    r->block.iov = NULL;
    r->block.iov_count = 0;
    submit(r, kind);
}

static void submit_range(struct nvme_request *r)
{
    const struct nvme_range *range = &r->ranges[r->range_next++];
    r->block.offset_bytes = range->offset_bytes;
    r->block.size_bytes = range->size_bytes;
    submit(r, BLOCK_DISCARD);
}

static enum nvme_status compare(struct nvme_request *r)
{
    const uint8_t *disk = r->buffer;
    for (unsigned i = 0; i < r->iov_count; i++) {
        if (memcmp(disk, r->iov[i].iov_base, r->iov[i].iov_len) != 0)
            return NVME_COMPARE_FAILURE;
        disk += r->iov[i].iov_len;
    }
    return NVME_OK;
}

/* What follows a step that went well: true when the request is with the back end again. */
static bool proceed(struct nvme_request *r)
{
    if (r->generation != r->nvme->generation)
        return false; /* nobody waits for it any more */
    if (r->range_next < r->range_count) {
        submit_range(r);
        return true;
    }
    if (!r->then_flush)
        return false;
    r->then_flush = false;
    submit_plain(r, BLOCK_FLUSH);
    return true;
}

static void count(struct nvme_request *r)
{
    struct nvme_counters *counters = &r->nvme->counters;
    uint64_t blocks = (r->command.dw[2] & BLOCKS_MASK) + 1;
    if (r->command.opcode == OP_READ || r->command.opcode == OP_COMPARE) {
        counters->reads++;
        counters->read_blocks += blocks;
    } else if (r->command.opcode == OP_WRITE) {
        counters->writes++;
        counters->written_blocks += blocks;
    }
}

static void finish(struct nvme_request *r, enum nvme_status status)
{
    struct nvme *nvme = r->nvme;
    if (r->command.opcode == OP_READ)
        nvme_written(r);
    if (status == NVME_OK)
        count(r);
    if (r->generation == nvme->generation) {
        if (status != NVME_OK)
            nvme_log_error(nvme, r->sq, &r->command, status);
        nvme_answer(nvme, r->sq, r->command.id, status, 0);
    }
    nvme_request_free(r);
}

static void request_done(struct block_request *block, int error)
{
    struct nvme_request *r = block->opaque;
    struct nvme *nvme = r->nvme;
    pthread_mutex_lock(&nvme->lock);
    if (error)
        log_limited(nvme->log, &nvme->log_limit, LOG_WARNING, "nvme", "request failed: %s",
                    strerror(error));
    /* Deallocation is advice: what can't be punched stays (6.7.1.1). */
    if (r->command.opcode == OP_DATASET && (error == EOPNOTSUPP || error == ENOSYS))
        error = 0;
    enum nvme_status status = status_of(r, error);
    if (status == NVME_OK && r->buffer)
        status = compare(r);
    nvme->in_flight--;
    if (status != NVME_OK || !proceed(r)) {
        finish(r, status);
        nvme_landed(nvme);
    }
    pthread_mutex_unlock(&nvme->lock);
}

static void submit(struct nvme_request *r, enum block_kind kind)
{
    struct nvme *nvme = r->nvme;
    r->block.kind = kind;
    r->block.done = request_done;
    r->block.opaque = r;
    nvme->in_flight++;
    nvme->backend.submit(nvme->backend.opaque, &r->block);
}

/* ---- their start: NVME_PENDING when the back end has the request ---- */

static enum nvme_status check_blocks(const struct nvme *nvme, uint64_t first, uint64_t blocks)
{
    uint64_t size = nvme_blocks(nvme);
    return first <= size && blocks <= size - first ? NVME_OK : NVME_LBA_OUT_OF_RANGE;
}

/* The blocks of read, write, compare and write zeroes: CDW10 to CDW12. */
static enum nvme_status take_blocks(struct nvme_request *r)
{
    const uint32_t *dw = r->command.dw;
    uint64_t first = dw[0] | (uint64_t)dw[1] << 32, blocks = (dw[2] & BLOCKS_MASK) + 1;
    if (dw[2] & PROTECTION)
        return NVME_INVALID_FIELD;
    r->block.offset_bytes = first << NVME_BLOCK_SHIFT;
    r->block.size_bytes = blocks << NVME_BLOCK_SHIFT;
    return check_blocks(r->nvme, first, blocks);
}

static enum nvme_status start_transfer(struct nvme_request *r)
{
    struct nvme *nvme = r->nvme;
    bool is_write = r->command.opcode == OP_WRITE;
    enum nvme_status status = take_blocks(r);
    if (status != NVME_OK)
        return status;
    if (r->block.size_bytes > NVME_TRANSFER_MAX_BYTES)
        return NVME_INVALID_FIELD;
    if (is_write && nvme->info.read_only)
        return NVME_READ_ONLY_RANGE;
    status = nvme_map(r, r->block.size_bytes);
    if (status != NVME_OK)
        return status;
    r->block.iov = r->iov;
    r->block.iov_count = r->iov_count;
    r->then_flush = is_write && (r->command.dw[2] & FUA || !nvme->features.write_cache);
    submit(r, is_write ? BLOCK_WRITE : BLOCK_READ);
    return NVME_PENDING;
}

/* The disk's blocks come into a buffer of our own, and are compared when they are there. */
static enum nvme_status start_compare(struct nvme_request *r)
{
    enum nvme_status status = take_blocks(r);
    if (status != NVME_OK)
        return status;
    if (r->block.size_bytes > NVME_TRANSFER_MAX_BYTES)
        return NVME_INVALID_FIELD;
    status = nvme_map(r, r->block.size_bytes);
    if (status != NVME_OK)
        return status;
    r->buffer = malloc(r->block.size_bytes);
    if (!r->buffer)
        return NVME_INTERNAL_ERROR;
    r->buffer_iov = (struct iovec){r->buffer, r->block.size_bytes};
    r->block.iov = &r->buffer_iov;
    r->block.iov_count = 1;
    submit(r, BLOCK_READ);
    return NVME_PENDING;
}

static enum nvme_status start_write_zeroes(struct nvme_request *r)
{
    struct nvme *nvme = r->nvme;
    enum nvme_status status = take_blocks(r);
    if (status != NVME_OK)
        return status;
    if (nvme->info.read_only)
        return NVME_READ_ONLY_RANGE;
    r->block.may_unmap = r->command.dw[2] & DEALLOCATE;
    r->then_flush = r->command.dw[2] & FUA || !nvme->features.write_cache;
    submit(r, BLOCK_WRITE_ZEROES);
    return NVME_PENDING;
}

/* The ranges of figure 356, of which all must be on the disk. Empty ones are left out. */
static enum nvme_status take_ranges(struct nvme_request *r, const uint8_t *list, unsigned ranges)
{
    for (unsigned i = 0; i < ranges; i++, list += RANGE_BYTES) {
        uint32_t blocks;
        uint64_t first;
        memcpy(&blocks, list + 4, 4);
        memcpy(&first, list + 8, 8);
        enum nvme_status status = check_blocks(r->nvme, first, blocks);
        if (status != NVME_OK)
            return status;
        if (blocks)
            r->ranges[r->range_count++] = (struct nvme_range){first << NVME_BLOCK_SHIFT,
                                                              (uint64_t)blocks << NVME_BLOCK_SHIFT};
    }
    return NVME_OK;
}

static enum nvme_status start_dataset(struct nvme_request *r)
{
    uint8_t list[NVME_RANGES_MAX * RANGE_BYTES];
    unsigned ranges = (r->command.dw[0] & 0xff) + 1;
    enum nvme_status status = nvme_get(r, list, ranges * RANGE_BYTES);
    if (status != NVME_OK)
        return status;
    r->ranges = malloc(ranges * sizeof(r->ranges[0]));
    if (!r->ranges)
        return NVME_INTERNAL_ERROR;
    status = take_ranges(r, list, ranges);
    if (status != NVME_OK || !(r->command.dw[1] & DATASET_DEALLOCATE))
        return status;
    if (r->nvme->info.read_only)
        return NVME_READ_ONLY_RANGE;
    if (!r->nvme->info.can_discard || !r->range_count)
        return NVME_OK;
    submit_range(r);
    return NVME_PENDING;
}

static enum nvme_status start_flush(struct nvme_request *r)
{
    submit_plain(r, BLOCK_FLUSH);
    return NVME_PENDING;
}

static enum nvme_status start(struct nvme_request *r)
{
    switch (r->command.opcode) {
    case OP_FLUSH: return start_flush(r);
    case OP_WRITE:
    case OP_READ: return start_transfer(r);
    case OP_COMPARE: return start_compare(r);
    case OP_WRITE_ZEROES: return start_write_zeroes(r);
    case OP_DATASET: return start_dataset(r);
    default: return NVME_INVALID_OPCODE;
    }
}

enum nvme_status nvme_io(struct nvme *nvme, unsigned sq, const struct nvme_command *command)
{
    bool is_flush = command->opcode == OP_FLUSH;
    if (command->nsid != 1 && !(is_flush && command->nsid == NVME_ALL_NAMESPACES))
        return NVME_INVALID_NAMESPACE;
    struct nvme_request *r = nvme_request_new(nvme, sq, command);
    if (!r)
        return NVME_INTERNAL_ERROR;
    enum nvme_status status = start(r);
    if (status != NVME_PENDING)
        nvme_request_free(r);
    return status;
}

/* ---- shutdown (7.6.2) ---- */

static void shutdown_flushed(struct block_request *block, int error)
{
    struct nvme_request *r = block->opaque;
    struct nvme *nvme = r->nvme;
    pthread_mutex_lock(&nvme->lock);
    if (error)
        log_limited(nvme->log, &nvme->log_limit, LOG_WARNING, "nvme", "cannot write back: %s",
                    strerror(error));
    if (r->generation == nvme->generation)
        nvme_shutdown_done(nvme);
    nvme_request_free(r);
    nvme->in_flight--;
    nvme_landed(nvme);
    pthread_mutex_unlock(&nvme->lock);
}

void nvme_flush_for_shutdown(struct nvme *nvme)
{
    const struct nvme_command none = {0};
    struct nvme_request *r = nvme_request_new(nvme, 0, &none);
    if (!r) {
        nvme_shutdown_done(nvme); /* what the guest wanted to be safe, it has flushed itself */
        return;
    }
    r->block = (struct block_request){.kind = BLOCK_FLUSH, .done = shutdown_flushed, .opaque = r};
    nvme->in_flight++;
    nvme->backend.submit(nvme->backend.opaque, &r->block);
}
