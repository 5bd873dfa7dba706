/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The PC's two 8237 DMA controllers with their page registers: channels 0 to 3 move bytes, 5 to 7
 * words.
 */
#ifndef SKEP_DEV_I8237_H
#define SKEP_DEV_I8237_H

#include "base/error.h"
#include "bus/bus.h"
#include "bus/device.h"
#include "bus/dma.h"
#include "bus/ram.h"

#include <stdint.h>

struct i8237;

struct i8237_config {
    uint16_t byte_base; /* of channels 0 to 3, 16 ports: 0x00 on a PC */
    uint16_t word_base; /* of channels 4 to 7, 32 ports: 0xc0 on a PC */
    /* The page registers but the first, 15 ports: 0x81 on a PC. The first one belongs to no
     * channel; firmware writes POST codes there, so it is post_port.h's. */
    uint16_t page_base;
    struct ram *ram;
};

/* `bus` must outlive the device. NULL and `err` filled on failure. Free with i8237_ops.destroy. */
struct i8237 *i8237_create(const struct i8237_config *config, struct bus *bus, struct error *err);

struct dma_channel i8237_channel(struct i8237 *dma, unsigned number);

extern const struct device_ops i8237_ops;

#endif
