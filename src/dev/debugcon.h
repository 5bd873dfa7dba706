/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The debug console of PC emulators: one port that takes bytes of text.
 */
#ifndef SKEP_DEV_DEBUGCON_H
#define SKEP_DEV_DEBUGCON_H

#include "base/error.h"
#include "base/log.h"
#include "bus/bus.h"
#include "bus/char.h"
#include "bus/device.h"

#include <stdint.h>

struct debugcon;

struct debugcon_config {
    uint16_t base; /* one port: 0xe9 by custom */
    /* The caller's; it must outlive the device, which sets the handler at creation and clears it
     * when destroyed. NULL: text is dropped. */
    const struct char_backend *backend;
    const struct log *log; /* may be NULL */
};

/* `bus` must outlive the device. NULL and `err` filled on failure. Free with debugcon_ops.destroy,
 * on the loop's thread. */
struct debugcon *debugcon_create(const struct debugcon_config *config, struct bus *bus,
                                 struct error *err);

extern const struct device_ops debugcon_ops;

#endif
