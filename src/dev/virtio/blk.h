/* SPDX-License-Identifier: BSD-2-Clause
 *
 * virtio block device (virtio 1.2, 5.2) over a block back end: read, write, flush, discard, write
 * zeroes, id; several queues; write-back cache that the driver may switch to write-through.
 */
#ifndef SKEP_DEV_VIRTIO_BLK_H
#define SKEP_DEV_VIRTIO_BLK_H

#include "base/error.h"
#include "base/log.h"
#include "bus/block.h"
#include "bus/ram.h"
#include "dev/virtio/virtio.h"

#include <stdint.h>

enum {
    VIRTIO_BLK_SERIAL_BYTES = 20,
    VIRTIO_BLK_QUEUES_MAX = 64,
};

struct virtio_blk_config {
    struct ram *ram;
    struct loop *loop;
    const struct log *log;
    const struct block_backend *backend; /* copied; stays the caller's and outlives the device */
    const char *serial;                  /* up to 20 bytes are shown; copied; may be NULL */
    unsigned queue_count;                /* 0: 1 */
    uint16_t queue_size;                 /* 0: 256; a power of two, 4 or more */
    uint64_t features_off;               /* not to be offered */
};

/* The device for virtio_pci_create(). Before it is reset by the machine, saved or destroyed, the
 * back end is drained, so that no request is under way. */
struct virtio_device *virtio_blk_create(const struct virtio_blk_config *config, struct error *err);

/* The back end's size has changed: asks for it again and tells the driver. Any thread. */
void virtio_blk_resized(struct virtio_device *device);

#endif
