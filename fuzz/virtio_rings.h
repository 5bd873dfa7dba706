/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What fuzz targets of virtio devices share: a driver that sets split rings up as it should, and
 * makes requests of any sizes in them. Rings that are wrong themselves are fuzz/virtio_queue.c's.
 */
#ifndef SKEP_FUZZ_VIRTIO_RINGS_H
#define SKEP_FUZZ_VIRTIO_RINGS_H

#include "dev/virtio/virtio.h"
#include "fuzz/device.h"

enum {
    FUZZ_RINGS_RAM_BYTES = 64 << 10,
    FUZZ_RINGS_MAX = 6,
    FUZZ_RING_SIZE = 16, /* each request takes two descriptors */
    FUZZ_RING_BYTES = 0x1000,
    FUZZ_BUFFERS = 0x8000, /* behind all rings, which begin at the second page */
    FUZZ_BUFFER_BYTES = 256,
};

struct fuzz_rings {
    struct ram *ram;
    struct virtio_device *device;
    unsigned count;
    uint64_t features; /* VIRTIO_F_VERSION_1 among them */
    uint16_t next[FUZZ_RINGS_MAX];
};

static inline void fuzz_rings_put(struct fuzz_rings *r, uint64_t gpa, uint64_t value,
                                  unsigned size_bytes)
{
    ram_write(r->ram, gpa, &value, size_bytes);
}

static inline uint64_t fuzz_ring_at(unsigned queue)
{
    return (uint64_t)FUZZ_RING_BYTES * (queue + 1);
}

/* Where the next request of a queue has its bytes. */
static inline uint64_t fuzz_rings_buffer(const struct fuzz_rings *r, unsigned queue)
{
    const unsigned slot = r->next[queue] % (FUZZ_RING_SIZE / 2);
    return FUZZ_BUFFERS + (uint64_t)(queue * FUZZ_RING_SIZE / 2 + slot) * FUZZ_BUFFER_BYTES;
}

/* Resets the device and brings it up. */
static inline void fuzz_rings_begin(struct fuzz_rings *r)
{
    virtio_set_status(r->device, 0);
    memset(r->next, 0, sizeof(r->next));
    for (unsigned i = 0; i < r->count; i++) {
        fuzz_rings_put(r, fuzz_ring_at(i) + 0x400, 0, 4);
        fuzz_rings_put(r, fuzz_ring_at(i) + 0x800, 0, 4);
    }
    virtio_set_status(r->device, VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER);
    virtio_set_driver_features(r->device, 0, (uint32_t)r->features);
    virtio_set_driver_features(r->device, 1, (uint32_t)(r->features >> 32));
    virtio_set_status(r->device, VIRTIO_STATUS_FEATURES_OK);
    for (unsigned i = 0; i < r->count; i++) {
        const struct virtio_queue_setup setup = {.size = FUZZ_RING_SIZE,
                                                 .descriptor_gpa = fuzz_ring_at(i),
                                                 .driver_gpa = fuzz_ring_at(i) + 0x400,
                                                 .device_gpa = fuzz_ring_at(i) + 0x800};
        virtio_queue_set(r->device, i, &setup);
        virtio_queue_start(r->device, i);
    }
    virtio_set_status(r->device, VIRTIO_STATUS_DRIVER_OK);
}

/* A request of the first bytes of the next buffer, those to be read first, in at most two pieces:
 * of one kind, it is cut in the middle when `is_split`. */
static inline void fuzz_rings_give(struct fuzz_rings *r, unsigned queue, unsigned readable_bytes,
                                   unsigned writable_bytes, bool is_split)
{
    enum { NEXT = 1, WRITE = 2 };
    const unsigned slot = r->next[queue] % (FUZZ_RING_SIZE / 2),
                   all = readable_bytes + writable_bytes;
    const unsigned first = readable_bytes && writable_bytes ? readable_bytes
                           : is_split                       ? all / 2
                                                            : 0;
    const uint64_t gpa = fuzz_rings_buffer(r, queue), ring = fuzz_ring_at(queue);
    const uint16_t flags[2] = {readable_bytes ? NEXT : NEXT | WRITE, writable_bytes ? WRITE : 0};
    for (unsigned i = 0; i < 2; i++) {
        const uint64_t at = ring + 16 * (2 * slot + i);
        fuzz_rings_put(r, at, gpa + (i ? first : 0), 8);
        fuzz_rings_put(r, at + 8, i ? all - first : first, 4);
        fuzz_rings_put(r, at + 12, flags[i], 2);
        fuzz_rings_put(r, at + 14, 2 * slot + 1, 2);
    }
    fuzz_rings_put(r, ring + 0x400 + 4 + 2 * (r->next[queue] % FUZZ_RING_SIZE), 2 * slot + !first,
                   2);
    fuzz_rings_put(r, ring + 0x400 + 2, ++r->next[queue], 2);
    virtio_kick(r->device, queue);
}

/* Bytes of the input, for the next request of a queue. */
static inline void fuzz_rings_fill(struct fuzz_rings *r, struct input *in, unsigned queue,
                                   unsigned size_bytes)
{
    uint8_t bytes[FUZZ_BUFFER_BYTES] = {0};
    size_t size = size_bytes < in->left ? size_bytes : in->left;
    memcpy(bytes, in->at, size);
    in->at += size;
    in->left -= size;
    ram_write(r->ram, fuzz_rings_buffer(r, queue), bytes, size_bytes);
}

static inline void fuzz_rings_config(struct fuzz_rings *r, struct input *in, bool is_write)
{
    const uint32_t size = virtio_config_size(r->device), at = (uint32_t)take(in, 1) % size;
    uint8_t bytes[8] = {0};
    if (!is_write) {
        virtio_config_read(r->device, at, bytes, at + 8 <= size ? 8 : 1);
        return;
    }
    const uint32_t count = at + 4 <= size && at % 4 == 0 ? 4 : 1;
    uint32_t value = (uint32_t)take(in, count);
    virtio_config_write(r->device, at, &value, count);
}

static inline void fuzz_rings_save(void *opaque, struct save *save)
{
    virtio_save(opaque, save);
}

static inline bool fuzz_rings_load(void *opaque, struct load *load, uint32_t version)
{
    return virtio_load(opaque, load);
}

/* Saves and loads; a device that refuses the state is brought up anew. */
static inline void fuzz_rings_save_and_load(struct fuzz_rings *r, struct input *in)
{
    static const struct device_ops ops = {
        .name = "device", .version = 1, .save = fuzz_rings_save, .load = fuzz_rings_load};
    fuzz_save_and_load(in, &ops, r->device);
    if (!(virtio_status(r->device) & VIRTIO_STATUS_DRIVER_OK))
        fuzz_rings_begin(r);
}

#endif
