/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The device of test programs, with the ports and the memory of QEMU's pc-testdev.
 */
#ifndef SKEP_DEV_TESTDEV_H
#define SKEP_DEV_TESTDEV_H

#include "base/error.h"
#include "bus/bus.h"
#include "bus/device.h"
#include "bus/irq.h"
#include "bus/ram.h"

#include <stdint.h>

enum { TESTDEV_GSIS = 24 };

struct testdev;

struct testdev_config {
    uint16_t gsi_base;    /* 0x2000: TESTDEV_GSIS ports; a write sets the level of its GSI */
    uint16_t value_base;  /* 0xe0: four ports that keep what is written, by bytes */
    uint16_t flush_base;  /* 0xe4: a write of a physical address maps its page anew */
    uint64_t memory_base; /* 0xff000000: 64 KiB of MMIO that keep what is written */
    struct irq_line gsi;  /* the number is the GSI's, from 0 */
    struct ram *ram;      /* must outlive the device */
};

/* `bus` must outlive the device. NULL and `err` filled on failure. Free with testdev_ops.destroy.
 */
struct testdev *testdev_create(const struct testdev_config *config, struct bus *bus,
                               struct error *err);

extern const struct device_ops testdev_ops;

#endif
