/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The chip set's reset control register, one port.
 */
#ifndef SKEP_DEV_RESET_CF9_H
#define SKEP_DEV_RESET_CF9_H

#include "base/error.h"
#include "bus/bus.h"
#include "bus/device.h"

#include <stdbool.h>
#include <stdint.h>

struct reset_cf9;

struct reset_cf9_config {
    /* 0xcf9 on a PC. 0: not mapped; the owner of a range around it (PCI's address register at 0xcf8
     * is answered only for whole 32-bit accesses) passes byte accesses on. */
    uint16_t base;
    void (*reset)(void *opaque); /* the guest resets the machine; on a vCPU thread, no lock held */
    void *opaque;
};

/* `bus` must outlive the device; it may be NULL when base is 0. NULL and `err` filled on failure.
 * Free with reset_cf9_ops.destroy. */
struct reset_cf9 *reset_cf9_create(const struct reset_cf9_config *config, struct bus *bus,
                                   struct error *err);

/* The register, for an owner that passes accesses on (bus_read_fn and bus_write_fn); offset 0. */
uint64_t reset_cf9_read(void *device, uint64_t offset, unsigned size_bytes);
void reset_cf9_write(void *device, uint64_t offset, uint64_t value, unsigned size_bytes);

extern const struct device_ops reset_cf9_ops;

#endif
