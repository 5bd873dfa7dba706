/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A virtqueue as the device sees it: virtio 1.2, 2.7 (split) and 2.8 (packed), with indirect
 * descriptors and event indices. The ring and all it points to is the guest's and not trusted:
 * each descriptor is copied once, checked and bounded. A ring that breaks the rules is `broken`:
 * nothing is taken from it or given to it any more until the driver resets the device (the core
 * sets DEVICE_NEEDS_RESET). Left out: IN_ORDER's shortened completions, NOTIFICATION_DATA.
 *
 * Threads: a queue is guarded by its device's lock; every function here is called with it held.
 *
 * A kick calls virtio_serve() (virtio.h) with a function that takes one request:
 *
 *     if (!virtio_queue_pop(q, chain))
 *         return VIRTIO_NONE;
 *     ... virtio_chain_read / virtio_chain_write ...
 *     virtio_queue_push(q, chain, written_bytes);
 *     return VIRTIO_TAKEN;
 */
#ifndef SKEP_DEV_VIRTIO_QUEUE_H
#define SKEP_DEV_VIRTIO_QUEUE_H

#include "bus/ram.h"
#include "bus/stream.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

enum {
    VIRTIO_QUEUE_SIZE_MAX = 1024, /* what a device may offer for a ring */
    VIRTIO_CHAIN_IOV_MAX = 1024,  /* pieces of memory in one chain, indirect ones included */
};

/* One request: pieces of guest RAM. All readable ones come first. About 16 KiB: allocate it with
 * the device or request, not on the stack. A device may change iov entries while it works, but what
 * virtio_queue_push() tells to be written is taken from the writable ones as they are then. */
struct virtio_chain {
    uint32_t generation;       /* of the queue when this was taken */
    uint16_t id;               /* split: head index; packed: buffer id */
    uint16_t descriptor_count; /* ring slots that it takes (split: 1) */
    unsigned readable_count;   /* iov[0 … readable_count) */
    unsigned writable_count;   /* iov[readable_count … readable_count + writable_count) */
    uint64_t readable_bytes;
    uint64_t writable_bytes; /* both together are below 4 GiB */
    struct iovec iov[VIRTIO_CHAIN_IOV_MAX];
};

struct virtio_queue;

/* What the core hears from its queues; with the device's lock held. */
struct virtio_queue_hooks {
    void (*interrupt)(void *opaque, unsigned index);               /* used buffers, to be told */
    void (*broken)(void *opaque, unsigned index, const char *why); /* static text */
    void *opaque;
};

/* The fields are queue.c's own; the core sets size and addresses before virtio_queue_enable(). */
struct virtio_queue {
    struct ram *ram;
    struct virtio_queue_hooks hooks;
    unsigned index;
    uint16_t size_max;
    uint16_t size;
    uint64_t descriptor_gpa; /* split: descriptor table; packed: the ring */
    uint64_t driver_gpa;     /* split: available ring; packed: driver event suppression */
    uint64_t device_gpa;     /* split: used ring; packed: device event suppression */
    bool enabled, broken;
    bool packed, event_idx, indirect; /* from the features, set when enabled */
    bool avail_wrap, used_wrap;       /* packed */
    uint16_t avail_index;             /* the next to take */
    uint16_t used_index;              /* the next to give back */
    uint16_t in_use;                  /* ring slots taken and not yet given back */
    uint16_t filled;                  /* chains filled, not yet published */
    uint16_t filled_slots;
    uint32_t unsignalled; /* ring slots published since the last virtio_queue_notify() */
    uint16_t fill_index, first_index, first_flags;
    bool fill_wrap;
    uint32_t generation; /* counts resets, so that late completions know themselves */
    unsigned holds;      /* requests that access guest memory from elsewhere, see virtio.h */
    uint8_t *descriptors, *driver, *device; /* into guest RAM while enabled */
};

/* `size_max` is a power of two up to VIRTIO_QUEUE_SIZE_MAX. `hooks` is copied; `ram` is borrowed.
 */
void virtio_queue_init(struct virtio_queue *q, struct ram *ram, unsigned index, uint16_t size_max,
                       const struct virtio_queue_hooks *hooks);

/* As after a reset: disabled, at its greatest size, chains taken before are stale. */
void virtio_queue_reset(struct virtio_queue *q);

/* Checks size, alignment and that all three areas are RAM, and starts at index 0. Else the queue
 * is broken and this is false. */
bool virtio_queue_enable(struct virtio_queue *q, bool packed, bool event_idx, bool indirect);

/* Takes the next request; false when there is none or the queue is disabled or broken. */
bool virtio_queue_pop(struct virtio_queue *q, struct virtio_chain *chain);

/* Puts back the chain that was taken last (and so on backwards): it will be taken again. */
void virtio_queue_unpop(struct virtio_queue *q, const struct virtio_chain *chain);

/* Gives a request back with the first `written_bytes` of its writable part written (cut to its
 * size); tells ram_written(). A stale chain (the queue was reset since) only does the latter. */
void virtio_queue_push(struct virtio_queue *q, const struct virtio_chain *chain,
                       uint64_t written_bytes);

/* The two halves of push, for several chains that the driver must see at once (merged buffers):
 * fill each in the order of pop, then publish once. */
void virtio_queue_fill(struct virtio_queue *q, const struct virtio_chain *chain,
                       uint64_t written_bytes);
void virtio_queue_publish(struct virtio_queue *q);

/* Interrupts the driver if it wants to know of what was pushed since the last call. */
void virtio_queue_notify(struct virtio_queue *q);

/* suppress: no kicks are wanted. listen: they are; true when a request came in between, so that
 * no kick will come for it: pop again. */
void virtio_queue_suppress(struct virtio_queue *q);
bool virtio_queue_listen(struct virtio_queue *q);

/* True when pop would find something (which may prove broken). Changes nothing. */
bool virtio_queue_has_next(const struct virtio_queue *q);

/* The device's own verdict on a request that cannot be answered at all (no room for a status):
 * the queue is broken. `why` is static text. */
void virtio_queue_break(struct virtio_queue *q, const char *why);

/* Copies out of the readable part or into the writable part from `offset`; gives the bytes copied,
 * less than size_bytes where the chain ends. */
size_t virtio_chain_read(const struct virtio_chain *chain, uint64_t offset, void *buffer,
                         size_t size_bytes);
size_t virtio_chain_write(const struct virtio_chain *chain, uint64_t offset, const void *buffer,
                          size_t size_bytes);

/* Drops bytes at the front of a list of pieces, in place: moves *iov and *count on. Gives how many
 * were dropped (less where the list ends). Do not use it on the writable part before push. */
uint64_t virtio_iov_skip(struct iovec **iov, unsigned *count, uint64_t size_bytes);

/* The guest-physical address of a piece; false when it is not in guest RAM. */
bool virtio_queue_gpa(const struct virtio_queue *q, const void *hva, uint64_t *gpa);

/* Indices, addresses, flags. load checks them all and maps the ring again; requests under way are
 * not saved: the machine drains the back ends first. A device that keeps chains (taken, not pushed)
 * unpops them before it is saved, or pops nothing that it does not finish. */
void virtio_queue_save(const struct virtio_queue *q, struct save *save);
bool virtio_queue_load(struct virtio_queue *q, struct load *load);

#endif
