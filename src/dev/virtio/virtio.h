/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The core of a virtio device (virtio 1.2, chapter 2 and 3.1): features, status, queues, reset;
 * between a transport (pci.c) and a device type (blk.c, rng.c …), which is a small table of
 * functions. Modern devices only. Left out: shared memory regions, ACCESS_PLATFORM.
 *
 * Threads: each device has one lock. The core takes it around every call from the transport, so a
 * type's functions run with it held, on a vCPU thread, the loop's thread or the machine's. A type
 * takes it itself (virtio_lock) where it is called by a back end. Never while holding it: bus
 * accesses, waiting for another thread.
 *
 * A type's create function fills a struct virtio_config and returns virtio_create()'s device; the
 * machine hands that to virtio_pci_create(), which owns it.
 */
#ifndef SKEP_DEV_VIRTIO_VIRTIO_H
#define SKEP_DEV_VIRTIO_VIRTIO_H

#include "base/error.h"
#include "base/log.h"
#include "base/loop.h"
#include "bus/ram.h"
#include "bus/stream.h"
#include "dev/virtio/queue.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    VIRTIO_QUEUE_COUNT_MAX = 256,
    VIRTIO_CONFIG_MAX_BYTES = 4096,
};

enum virtio_type {
    VIRTIO_TYPE_NET = 1,
    VIRTIO_TYPE_BLK = 2,
    VIRTIO_TYPE_CONSOLE = 3,
    VIRTIO_TYPE_RNG = 4,
    VIRTIO_TYPE_BALLOON = 5,
    VIRTIO_TYPE_SCSI = 8,
    VIRTIO_TYPE_GPU = 16,
    VIRTIO_TYPE_INPUT = 18,
};

#define VIRTIO_F_INDIRECT_DESC   (UINT64_C(1) << 28)
#define VIRTIO_F_EVENT_IDX       (UINT64_C(1) << 29)
#define VIRTIO_F_VERSION_1       (UINT64_C(1) << 32)
#define VIRTIO_F_ACCESS_PLATFORM (UINT64_C(1) << 33)
#define VIRTIO_F_RING_PACKED     (UINT64_C(1) << 34)
#define VIRTIO_F_IN_ORDER        (UINT64_C(1) << 35)
#define VIRTIO_F_RING_RESET      (UINT64_C(1) << 40)

/* What the core offers by itself. */
#define VIRTIO_CORE_FEATURES                                                                       \
    (VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX | VIRTIO_F_VERSION_1 | VIRTIO_F_RING_PACKED |     \
     VIRTIO_F_RING_RESET)

enum virtio_status {
    VIRTIO_STATUS_ACKNOWLEDGE = 1,
    VIRTIO_STATUS_DRIVER = 2,
    VIRTIO_STATUS_DRIVER_OK = 4,
    VIRTIO_STATUS_FEATURES_OK = 8,
    VIRTIO_STATUS_NEEDS_RESET = 64,
    VIRTIO_STATUS_FAILED = 128,
};

struct virtio_device;

/* A device type. All but kick, reset, save, load and destroy may be NULL. */
struct virtio_ops {
    const char *name;   /* "virtio-blk", for messages */
    uint16_t type;      /* enum virtio_type */
    uint32_t pci_class; /* class, subclass, interface: 0x010000 for a disk */
    uint32_t version;   /* of what save writes */

    /* Device configuration, always inside config_size_bytes. */
    void (*config_read)(void *self, uint32_t offset, void *buffer, uint32_t size_bytes);
    void (*config_write)(void *self, uint32_t offset, const void *buffer, uint32_t size_bytes);

    /* The driver wants FEATURES_OK with this set (a part of those offered): false refuses. */
    bool (*features_check)(void *self, uint64_t features);
    /* The driver has set DRIVER_OK: the device is live (virtio_features() says with what). Kicks
     * for all enabled queues follow. */
    void (*start)(void *self);
    /* There may be requests in queue `index`. Only while the device is live. */
    void (*kick)(void *self, unsigned index);
    /* Queue `index` alone was reset: chains kept from it are to be forgotten. */
    void (*queue_reset)(void *self, unsigned index);
    /* The driver (or the machine) has reset the device: back to the first state, chains kept are
     * to be forgotten. What is under way elsewhere is counted by virtio_hold. */
    void (*reset)(void *self);

    void (*save)(void *self, struct save *save); /* what is the type's own */
    bool (*load)(void *self, struct load *load, uint32_t version);
    /* Frees `self`. Back ends are closed by whoever opened them, before or after, so here the type
     * only takes itself out of their callbacks. Without the lock. */
    void (*destroy)(void *self);
};

struct virtio_config {
    const struct virtio_ops *ops;
    void *self; /* the type's; ops->destroy frees it */
    struct ram *ram;
    struct loop *loop; /* whose thread goes on where virtio_serve() leaves off */
    const struct log *log;
    uint64_t features;     /* the type's own; the core adds VIRTIO_CORE_FEATURES */
    uint64_t features_off; /* not to be offered after all, e.g. VIRTIO_F_RING_PACKED */
    uint32_t config_size_bytes;
    unsigned queue_count;
    const uint16_t *queue_sizes; /* queue_count powers of two; copied */
};

/* ---- for device types ---- */

/* Copies `config`; on failure `self` stays the caller's. On the loop's thread, as is
 * virtio_destroy(). */
struct virtio_device *virtio_create(const struct virtio_config *config, struct error *err);

void virtio_lock(struct virtio_device *device);
void virtio_unlock(struct virtio_device *device);

/* With the lock held: */
struct virtio_queue *virtio_queue(struct virtio_device *device, unsigned index);
uint64_t virtio_features(const struct virtio_device *device); /* negotiated; 0 before FEATURES_OK */
bool virtio_has(const struct virtio_device *device, uint64_t feature);
/* DRIVER_OK, neither failed nor broken: queues may be used. */
bool virtio_live(const struct virtio_device *device);
/* The configuration space has changed: counts its generation, interrupts a live driver. */
void virtio_config_changed(struct virtio_device *device);
/* The device cannot go on: DEVICE_NEEDS_RESET and a configuration interrupt. `why` for the log. */
void virtio_needs_reset(struct virtio_device *device, const char *why);

/* A request of this queue reads or writes guest memory outside the lock (a back end has it). While
 * any is held, a reset of the device or queue does not read as done, so that the driver does not
 * use the memory for something else. Release after push, with the lock held; a reset may end in
 * it. */
void virtio_hold(struct virtio_device *device, unsigned queue);
void virtio_release(struct virtio_device *device, unsigned queue);

/* What a type's virtio_take_fn found in its queue. */
enum virtio_taken {
    VIRTIO_TAKEN, /* a request, which is answered or under way: there may be another */
    VIRTIO_NONE,  /* nothing, or the queue is broken */
    VIRTIO_STOP,  /* what there is has to wait: the type itself comes back to it */
};
typedef enum virtio_taken virtio_take_fn(void *self, unsigned index);

/* A turn at a queue: lets `take` take what is in it, also what comes meanwhile, and notifies. A
 * driver on another processor can fill the ring as fast as it is served, so a turn ends after as
 * many requests as the ring holds; the loop's thread then kicks again, without the lock held in
 * between. */
void virtio_serve(struct virtio_device *device, unsigned index, virtio_take_fn *take);

/* What virtio_create() was given as `self`: for a type's own functions that take a device. */
void *virtio_self(const struct virtio_device *device);

/* For log_limited(). */
const struct log *virtio_log(const struct virtio_device *device);
struct log_limit *virtio_log_limit(struct virtio_device *device);
struct ram *virtio_ram(const struct virtio_device *device);

/* ---- for a transport; each takes the lock ---- */

enum { VIRTIO_INTERRUPT_CONFIG = -1 }; /* else the queue's index */
struct virtio_transport {
    void (*interrupt)(void *opaque, int source); /* with the lock held */
    void (*reset)(void *opaque);                 /* the driver wrote status 0; with the lock held */
    void *opaque;
};
void virtio_set_transport(struct virtio_device *device, const struct virtio_transport *transport);

const struct virtio_ops *virtio_ops(const struct virtio_device *device);
unsigned virtio_queue_count(const struct virtio_device *device);
uint32_t virtio_config_size(const struct virtio_device *device);

uint64_t virtio_offered(const struct virtio_device *device);
uint8_t virtio_status(struct virtio_device *device);
void virtio_set_status(struct virtio_device *device, uint8_t status);
uint8_t virtio_generation(struct virtio_device *device);
/* The driver's choice, 32 bits at a time (`window` 0 or 1); dropped after FEATURES_OK. */
uint32_t virtio_driver_features(struct virtio_device *device, uint32_t window);
void virtio_set_driver_features(struct virtio_device *device, uint32_t window, uint32_t bits);

/* A queue as the driver sets it up. Changes are dropped once it is enabled. */
struct virtio_queue_setup {
    uint16_t size;
    bool enabled, resetting;
    uint64_t descriptor_gpa, driver_gpa, device_gpa;
};
bool virtio_queue_get(struct virtio_device *device, unsigned index, struct virtio_queue_setup *out);
void virtio_queue_set(struct virtio_device *device, unsigned index,
                      const struct virtio_queue_setup *setup); /* size and addresses */
void virtio_queue_start(struct virtio_device *device, unsigned index);
void virtio_queue_stop(struct virtio_device *device, unsigned index); /* queue_reset */

void virtio_config_read(struct virtio_device *device, uint32_t offset, void *buffer,
                        uint32_t size_bytes);
void virtio_config_write(struct virtio_device *device, uint32_t offset, const void *buffer,
                         uint32_t size_bytes);
void virtio_kick(struct virtio_device *device, unsigned index);
/* Looks at every queue; after a saved machine was loaded, since kicks under way are not saved, and
 * neither is where virtio_serve() left off. */
void virtio_kick_all(struct virtio_device *device);

/* The machine's reset: back ends are drained, so it is done on return. */
void virtio_reset(struct virtio_device *device);
void virtio_save(struct virtio_device *device, struct save *save);
bool virtio_load(struct virtio_device *device, struct load *load);
void virtio_destroy(struct virtio_device *device);

#endif
