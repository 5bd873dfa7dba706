/* SPDX-License-Identifier: BSD-2-Clause
 *
 * virtio entropy device (virtio 1.2, 5.4): the host kernel's random numbers.
 */
#ifndef SKEP_DEV_VIRTIO_RNG_H
#define SKEP_DEV_VIRTIO_RNG_H

#include "base/error.h"
#include "base/log.h"
#include "bus/ram.h"
#include "dev/virtio/virtio.h"

#include <stdint.h>

enum { VIRTIO_RNG_REQUEST_MAX_BYTES = 65536 }; /* more than this is not filled at once */

struct virtio_rng_config {
    struct ram *ram;
    struct loop *loop;
    const struct log *log;
    uint64_t features_off; /* not to be offered */
};

/* The device for virtio_pci_create(). */
struct virtio_device *virtio_rng_create(const struct virtio_rng_config *config, struct error *err);

#endif
