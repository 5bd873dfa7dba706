/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What fuzz targets of devices share: the input as a stream of numbers, guest memory, a disk that
 * keeps requests until the input finishes them. Beyond what the sanitizers see, the disk checks
 * that each request lies in it, and its memory in guest RAM where all of it has to.
 */
#ifndef SKEP_FUZZ_DEVICE_H
#define SKEP_FUZZ_DEVICE_H

#include "bus/block.h"
#include "bus/bus.h"
#include "bus/device.h"
#include "bus/ram.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes);

enum {
    FUZZ_RAM_BYTES = 256 << 10,
    FUZZ_DISK_BYTES = 64 << 10,
    FUZZ_DISK_MAX_BYTES = 160 << 10,
    FUZZ_WAITING_MAX = 4096,
};

static inline void require(bool truth, const char *what)
{
    if (truth)
        return;
    fprintf(stderr, "broken promise: %s\n", what);
    abort();
}

/* ---- the input ---- */

struct input {
    const uint8_t *at;
    size_t left;
};

static inline uint64_t take(struct input *in, unsigned size_bytes)
{
    uint64_t value = 0;
    if (size_bytes > in->left)
        size_bytes = (unsigned)in->left;
    if (size_bytes)
        memcpy(&value, in->at, size_bytes);
    in->at += size_bytes;
    in->left -= size_bytes;
    return value;
}

/* Bytes of the input into the first `limit_bytes` of guest memory. */
static inline void fuzz_write_memory(struct input *in, struct ram *ram, uint64_t limit_bytes)
{
    uint64_t gpa = take(in, 2);
    size_t size = take(in, 1);
    if (size > in->left)
        size = in->left;
    if (size && gpa + size <= limit_bytes)
        ram_write(ram, gpa, in->at, size);
    in->at += size;
    in->left -= size;
}

/* ---- what a device tells ---- */

/* A watcher of guest memory, which is its opaque. */
static inline void fuzz_ram_written(void *opaque, uint64_t gpa, uint64_t size_bytes)
{
    require(size_bytes && ram_hva(opaque, gpa, size_bytes), "ram_written() outside RAM");
}

/* A sink of message-signalled interrupts. */
static inline void fuzz_message(void *opaque, uint64_t address, uint32_t data)
{
    require(address % 4 == 0, "a message to an odd address");
}

/* ---- the disk ---- */

struct fuzz_disk {
    uint64_t size_bytes;
    const struct ram *ram; /* where all requests' memory is; NULL: it may be anywhere */
    uint8_t bytes[FUZZ_DISK_MAX_BYTES];
    struct block_request *waiting[FUZZ_WAITING_MAX];
    unsigned waiting_count;
};

static inline void fuzz_disk_init(struct fuzz_disk *disk, uint64_t size_bytes)
{
    require(size_bytes <= FUZZ_DISK_MAX_BYTES, "the disk fits");
    disk->size_bytes = size_bytes;
}

static inline void fuzz_disk_submit(void *opaque, struct block_request *request)
{
    struct fuzz_disk *disk = opaque;
    require(disk->waiting_count < FUZZ_WAITING_MAX, "more requests than queues hold");
    disk->waiting[disk->waiting_count++] = request;
}

static inline void fuzz_disk_info(void *opaque, struct block_info *info)
{
    *info = (struct block_info){((struct fuzz_disk *)opaque)->size_bytes, false, true, 512, 512, 0};
}

static inline bool fuzz_is_ram(const struct ram *ram, const uint8_t *hva, size_t size_bytes)
{
    const struct ram_region *region = ram_region(ram, 0);
    return hva >= region->hva && size_bytes <= region->size_bytes &&
           hva <= region->hva + region->size_bytes - size_bytes;
}

static inline void fuzz_disk_transfer(struct fuzz_disk *disk, const struct block_request *r)
{
    uint64_t at = r->offset_bytes, end = r->offset_bytes + r->size_bytes;
    for (unsigned i = 0; i < r->iov_count; i++) {
        size_t size = r->iov[i].iov_len;
        require(size <= end - at, "a request's pieces are too long");
        require(!disk->ram || fuzz_is_ram(disk->ram, r->iov[i].iov_base, size),
                "a request's memory is outside RAM");
        if (r->kind == BLOCK_READ)
            memcpy(r->iov[i].iov_base, disk->bytes + at, size);
        else
            memcpy(disk->bytes + at, r->iov[i].iov_base, size);
        at += size;
    }
    require(at == end, "a request's pieces are too short");
}

static inline void fuzz_disk_finish(struct fuzz_disk *disk, unsigned index, int error)
{
    struct block_request *r = disk->waiting[index];
    disk->waiting[index] = disk->waiting[--disk->waiting_count];
    require(r->offset_bytes <= disk->size_bytes &&
                r->size_bytes <= disk->size_bytes - r->offset_bytes,
            "a request is outside the disk");
    if (!error && (r->kind == BLOCK_READ || r->kind == BLOCK_WRITE))
        fuzz_disk_transfer(disk, r);
    r->done(r, error);
}

static inline void fuzz_disk_finish_any(struct input *in, struct fuzz_disk *disk)
{
    static const int errors[] = {0, 0, 0, EIO, EOPNOTSUPP, ENOSPC, 0, 0};
    uint8_t choice = (uint8_t)take(in, 1);
    if (disk->waiting_count)
        fuzz_disk_finish(disk, (choice >> 3) % disk->waiting_count, errors[choice & 7]);
}

static inline void fuzz_disk_drain(void *opaque)
{
    struct fuzz_disk *disk = opaque;
    while (disk->waiting_count)
        fuzz_disk_finish(disk, 0, 0);
}

static inline void fuzz_disk_close(void *opaque) {}

static inline struct block_backend fuzz_disk_backend(struct fuzz_disk *disk)
{
    return (struct block_backend){fuzz_disk_submit, fuzz_disk_info, fuzz_disk_drain,
                                  fuzz_disk_close, disk};
}

/* ---- saved state ---- */

/* Saves a device and loads it again, as it was or with some bytes changed. Back ends are drained.
 */
static inline void fuzz_save_and_load(struct input *in, const struct device_ops *ops, void *device)
{
    struct save save = {0};
    struct load load;
    uint32_t version;
    unsigned changes = take(in, 1) & 7;
    save_begin(&save, ops->name, ops->version);
    ops->save(device, &save);
    save_end(&save);
    require(!save.failed, "a device is saved");
    for (unsigned i = 0; i < changes; i++) {
        size_t at = take(in, 2);
        uint8_t value = (uint8_t)take(in, 1);
        if (at < save.size_bytes)
            save.bytes[at] ^= value;
    }
    load_init(&load, save.bytes, save.size_bytes);
    bool loaded = load_begin(&load, ops->name, &version) && ops->load(device, &load, version) &&
                  load_end(&load);
    require(loaded || changes, "what was saved is loaded");
    save_free(&save);
}

#endif
