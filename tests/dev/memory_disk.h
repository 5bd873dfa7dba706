/* SPDX-License-Identifier: BSD-2-Clause
 * A disk in memory that finishes requests when a test says so. Include after cmocka.h. */
#ifndef SKEP_TESTS_DEV_MEMORY_DISK_H
#define SKEP_TESTS_DEV_MEMORY_DISK_H

#include "bus/block.h"

#include <stdlib.h>
#include <string.h>

struct memory_disk {
    uint8_t *bytes;
    struct block_info info;
    struct block_request *waiting[64];
    unsigned waiting_count;
    int fail; /* errno for what finishes next */
    unsigned reads, writes, flushes, discards, zeroes, unmaps;
};

static inline void memory_disk_submit(void *opaque, struct block_request *request)
{
    struct memory_disk *disk = opaque;
    assert_true(disk->waiting_count < 64);
    disk->waiting[disk->waiting_count++] = request;
}

static inline void memory_disk_info(void *opaque, struct block_info *info)
{
    *info = ((struct memory_disk *)opaque)->info;
}

static inline void memory_disk_copy(struct memory_disk *disk, struct block_request *r)
{
    uint64_t at = r->offset_bytes, total = 0;
    for (unsigned i = 0; i < r->iov_count; i++) {
        if (r->kind == BLOCK_READ)
            memcpy(r->iov[i].iov_base, disk->bytes + at, r->iov[i].iov_len);
        else
            memcpy(disk->bytes + at, r->iov[i].iov_base, r->iov[i].iov_len);
        at += r->iov[i].iov_len;
        total += r->iov[i].iov_len;
    }
    assert_int_equal(total, r->size_bytes);
}

static inline void memory_disk_perform(struct memory_disk *disk, struct block_request *r)
{
    switch (r->kind) {
    case BLOCK_WRITE:
        disk->writes++;
        memory_disk_copy(disk, r);
        break;
    case BLOCK_READ:
        disk->reads++;
        memory_disk_copy(disk, r);
        break;
    case BLOCK_FLUSH: disk->flushes++; break;
    case BLOCK_DISCARD:
        disk->discards++;
        memset(disk->bytes + r->offset_bytes, 0xdd, r->size_bytes);
        break;
    case BLOCK_WRITE_ZEROES:
        disk->zeroes++;
        disk->unmaps += r->may_unmap;
        memset(disk->bytes + r->offset_bytes, 0, r->size_bytes);
        break;
    }
}

/* Finishes request `index` of those that wait. */
static inline void memory_disk_finish(struct memory_disk *disk, unsigned index)
{
    assert_true(index < disk->waiting_count);
    struct block_request *r = disk->waiting[index];
    int error = disk->fail;
    assert_true(r->offset_bytes <= disk->info.size_bytes &&
                r->size_bytes <= disk->info.size_bytes - r->offset_bytes);
    memmove(disk->waiting + index, disk->waiting + index + 1,
            (--disk->waiting_count - index) * sizeof(disk->waiting[0]));
    disk->fail = 0;
    if (!error)
        memory_disk_perform(disk, r);
    r->done(r, error);
}

static inline void memory_disk_drain(void *opaque)
{
    struct memory_disk *disk = opaque;
    while (disk->waiting_count)
        memory_disk_finish(disk, 0);
}

static inline void memory_disk_close(void *opaque)
{
    (void)opaque;
}

/* Every sector of 512 bytes begins with its number and holds a pattern of its own. */
static inline void memory_disk_init(struct memory_disk *disk, uint64_t size_bytes)
{
    memset(disk, 0, sizeof(*disk));
    disk->info.size_bytes = size_bytes;
    disk->info.can_discard = true;
    disk->info.physical_block_bytes = 4096;
    disk->info.discard_granularity_bytes = 4096;
    disk->bytes = malloc(size_bytes);
    assert_non_null(disk->bytes);
    for (uint64_t i = 0; i < size_bytes; i++)
        disk->bytes[i] = (uint8_t)(i / 512 * 7 + i);
    for (uint64_t i = 0; i < size_bytes; i += 512) {
        uint32_t number = (uint32_t)(i / 512);
        memcpy(disk->bytes + i, &number, sizeof(number));
    }
}

static inline void memory_disk_free(struct memory_disk *disk)
{
    free(disk->bytes);
}

static inline struct block_backend memory_disk_backend(struct memory_disk *disk)
{
    return (struct block_backend){memory_disk_submit, memory_disk_info, memory_disk_drain,
                                  memory_disk_close, disk};
}

#endif
