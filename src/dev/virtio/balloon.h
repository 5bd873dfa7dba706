/* SPDX-License-Identifier: BSD-2-Clause
 *
 * virtio memory balloon (virtio 1.2, 5.5): guest memory that goes back to the host.
 */
#ifndef SKEP_DEV_VIRTIO_BALLOON_H
#define SKEP_DEV_VIRTIO_BALLOON_H

#include "base/error.h"
#include "base/log.h"
#include "bus/ram.h"
#include "dev/virtio/virtio.h"

#include <stdbool.h>
#include <stdint.h>

struct virtio_balloon_config {
    struct ram *ram;
    struct loop *loop;
    const struct log *log;
    uint64_t features_off; /* not to be offered */
};

/* The device for virtio_pci_create(). */
struct virtio_device *virtio_balloon_create(const struct virtio_balloon_config *config,
                                            struct error *err);

/* All that follow: any thread. */

/* How much memory the guest is to have; what is above it, it gives back when it can. */
void virtio_balloon_set_target(struct virtio_device *device, uint64_t target_bytes);

/* How much the guest has said to have, its RAM less the balloon. */
uint64_t virtio_balloon_actual_bytes(struct virtio_device *device);

enum virtio_balloon_stat { /* 5.5.6.4 */
                           BALLOON_SWAP_IN,
                           BALLOON_SWAP_OUT,
                           BALLOON_MAJOR_FAULTS,
                           BALLOON_MINOR_FAULTS,
                           BALLOON_FREE_BYTES,
                           BALLOON_TOTAL_BYTES,
                           BALLOON_AVAILABLE_BYTES,
                           BALLOON_CACHE_BYTES,
                           BALLOON_HUGE_ALLOCATIONS,
                           BALLOON_HUGE_FAILURES,
                           BALLOON_STATS,
};
struct virtio_balloon_stats {
    uint64_t serial; /* counts what the driver has sent; 0: nothing yet */
    uint32_t valid;  /* a bit for each one that the driver gave */
    uint64_t values[BALLOON_STATS];
};

/* The last that the driver sent. It sends when it starts, and once for each request. */
void virtio_balloon_get_stats(struct virtio_device *device, struct virtio_balloon_stats *stats);

/* False when the driver gives none, or has not answered the last request yet. */
bool virtio_balloon_request_stats(struct virtio_device *device);

#endif
