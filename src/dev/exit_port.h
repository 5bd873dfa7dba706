/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A port by which a test program in the guest ends the machine with a value.
 */
#ifndef SKEP_DEV_EXIT_PORT_H
#define SKEP_DEV_EXIT_PORT_H

#include "base/error.h"
#include "bus/bus.h"
#include "bus/device.h"

#include <stdint.h>

struct exit_port;

struct exit_port_config {
    uint16_t base; /* four ports: 0xf4 by custom */
    /* A value of 8, 16 or 32 bits was written to the first port; on a vCPU thread. */
    void (*exit)(void *opaque, uint32_t value);
    void *opaque;
};

/* `bus` must outlive the device. NULL and `err` filled on failure. Free with exit_port_ops.destroy.
 */
struct exit_port *exit_port_create(const struct exit_port_config *config, struct bus *bus,
                                   struct error *err);

extern const struct device_ops exit_port_ops;

#endif
