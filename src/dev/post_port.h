/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The POST ports of a PC: firmware and test programs write the number of the step that they come
 * to, and kernels write there to pass some time.
 */
#ifndef SKEP_DEV_POST_PORT_H
#define SKEP_DEV_POST_PORT_H

#include "base/error.h"
#include "base/log.h"
#include "bus/bus.h"
#include "bus/char.h"
#include "bus/device.h"

#include <stdint.h>

enum { POST_PORTS_MAX = 2 };

struct post_port;

struct post_port_config {
    uint16_t ports[POST_PORTS_MAX]; /* 0x80 on ISA, 0x190 on PS/2 */
    unsigned port_count;
    /* Gets each byte written to any of them. The caller's; it must outlive the device. NULL: none.
     */
    const struct char_backend *backend;
    const struct log *log; /* may be NULL */
};

/* `bus` must outlive the device. NULL and `err` filled on failure. Free with post_port_ops.destroy,
 * on the loop's thread. */
struct post_port *post_port_create(const struct post_port_config *config, struct bus *bus,
                                   struct error *err);

extern const struct device_ops post_port_ops;

#endif
