/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A 16550A serial port in front of a character back end.
 */
#ifndef SKEP_DEV_UART16550_H
#define SKEP_DEV_UART16550_H

#include "base/error.h"
#include "base/log.h"
#include "bus/bus.h"
#include "bus/char.h"
#include "bus/clock.h"
#include "bus/device.h"
#include "bus/irq.h"

#include <stdint.h>

struct uart16550;

struct uart16550_config {
    uint16_t base; /* eight ports: 0x3f8 for COM1 */
    struct irq_line irq;
    /* The caller's; it must outlive the device, which sets the handler at creation and clears it
     * (all NULL) when destroyed. NULL: what is sent is dropped and nothing arrives. */
    const struct char_backend *backend;
    const struct log *log; /* may be NULL */
};

/* Maps its ports on `bus`; `bus` and `clock` must outlive the device. NULL and `err` filled on
 * failure. Free with uart16550_ops.destroy, on the loop's thread. */
struct uart16550 *uart16550_create(const struct uart16550_config *config, struct bus *bus,
                                   struct clock *clock, struct error *err);

extern const struct device_ops uart16550_ops;

#endif
