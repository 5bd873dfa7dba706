/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The shape that every device has, so that the board can reset, save, load and destroy them
 * without knowing them. A device's own header offers `CHIP_create(config…)`, which maps its ranges
 * on the bus, and `extern const struct device_ops CHIP_ops`.
 *
 * reset, save, load and destroy run while no vCPU runs, on the machine's thread.
 */
#ifndef SKEP_BUS_DEVICE_H
#define SKEP_BUS_DEVICE_H

#include "bus/stream.h"

#include <stdbool.h>
#include <stdint.h>

struct device_ops {
    const char *name; /* section name in a saved machine: the part number */
    uint32_t version; /* of what save writes */
    void (*reset)(void *device);
    void (*save)(void *device, struct save *save); /* between save_begin and save_end */
    /* False when a value is out of range; the device is then as after reset. */
    bool (*load)(void *device, struct load *load, uint32_t version);
    void (*destroy)(void *device);
};

struct device {
    const struct device_ops *ops;
    void *self;
};

#endif
