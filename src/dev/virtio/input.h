/* SPDX-License-Identifier: BSD-2-Clause
 *
 * virtio input device (virtio 1.2, 5.8): a keyboard with LEDs, or a tablet with absolute positions,
 * five buttons and two wheels.
 */
#ifndef SKEP_DEV_VIRTIO_INPUT_H
#define SKEP_DEV_VIRTIO_INPUT_H

#include "base/error.h"
#include "base/log.h"
#include "bus/input.h"
#include "dev/virtio/virtio.h"

struct virtio_input_config {
    struct ram *ram;
    struct loop *loop;
    const struct log *log;
    bool is_tablet; /* otherwise a keyboard */
    uint64_t features_off;
};

/* Also gives its side of bus/input.h, which lives as long. NULL and `err` filled on failure. */
struct virtio_device *virtio_input_create(const struct virtio_input_config *config,
                                          struct input_device *input, struct error *err);

/* The keyboard's LEDs as the guest has set them: a bit each by Linux's LED numbers. */
unsigned virtio_input_leds(struct virtio_device *device);

#endif
