/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The parallel port of a PC with a printer that takes everything at once.
 */
#ifndef SKEP_DEV_PARALLEL_H
#define SKEP_DEV_PARALLEL_H

#include "base/error.h"
#include "base/log.h"
#include "bus/bus.h"
#include "bus/char.h"
#include "bus/device.h"
#include "bus/irq.h"

#include <stdbool.h>
#include <stdint.h>

struct parallel;

struct parallel_config {
    uint16_t base; /* three ports: 0x378 by custom */
    struct irq_line irq;
    /* Print without strobe: every byte written to the data register goes out. Test programs that
     * know no printer use the port so. */
    bool ignores_strobe;
    /* The caller's; it must outlive the device. NULL: the paper is lost. */
    const struct char_backend *backend;
    const struct log *log; /* may be NULL */
};

/* `bus` must outlive the device. NULL and `err` filled on failure. Free with parallel_ops.destroy,
 * on the loop's thread. */
struct parallel *parallel_create(const struct parallel_config *config, struct bus *bus,
                                 struct error *err);

extern const struct device_ops parallel_ops;

#endif
