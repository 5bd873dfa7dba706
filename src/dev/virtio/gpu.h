/* SPDX-License-Identifier: BSD-2-Clause
 *
 * virtio GPU device with one screen, 2D only.
 */
#ifndef SKEP_DEV_VIRTIO_GPU_H
#define SKEP_DEV_VIRTIO_GPU_H

#include "bus/display.h"
#include "dev/virtio/virtio.h"

#include <stdint.h>

struct virtio_gpu_config {
    struct ram *ram;
    struct loop *loop;
    const struct log *log;
    uint32_t width, height; /* what the monitor prefers; at most EDID_MAX_* of dev/edid.h */
    uint64_t features_off;  /* as in struct virtio_config; for tests */
};

/* NULL and `err` filled on failure. */
struct virtio_device *virtio_gpu_create(const struct virtio_gpu_config *config, struct error *err);

/* Its screen; lives as long as the device. */
const struct display_source *virtio_gpu_display(struct virtio_device *device);

#endif
