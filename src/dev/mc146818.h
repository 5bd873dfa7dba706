/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The PC's real-time clock with its battery-backed memory.
 */
#ifndef SKEP_DEV_MC146818_H
#define SKEP_DEV_MC146818_H

#include "base/error.h"
#include "bus/bus.h"
#include "bus/clock.h"
#include "bus/device.h"
#include "bus/irq.h"

#include <stdbool.h>
#include <stdint.h>

struct mc146818;

struct mc146818_config {
    uint16_t base; /* four ports (index, data, extended index and data): 0x70 on a PC */
    struct irq_line irq;
    struct irq_line alarm; /* its interrupt of the alarm alone, which nobody takes away */
    /* Guest memory below and above 4 GiB, told in the usual CMOS bytes. */
    uint64_t low_memory_bytes, high_memory_bytes;
    int32_t utc_offset_s; /* what it shows at first is so far ahead of UTC */
};

/* Starts with the host's UTC and the offset. Maps its ports on `bus`; `bus` and `clock` must
 * outlive the device. NULL and `err` filled on failure. Free with mc146818_ops.destroy. */
struct mc146818 *mc146818_create(const struct mc146818_config *config, struct bus *bus,
                                 struct clock *clock, struct error *err);

/* One byte of CMOS memory, 0 to 255 (128 and up: the extended bank). The clock's own registers (0
 * to 0x0d and the century, 0x32) are not changed; the sum at 0x2e is brought up to date. Kept over
 * a reset. Any thread. */
void mc146818_set_cmos(struct mc146818 *rtc, unsigned index, uint8_t value);

/* HPET's legacy replacement takes interrupt 8 away. `rtc` is a struct mc146818, the signature that
 * of irq_line.set (`number` is unused). Any thread. */
void mc146818_disconnect_irq(void *rtc, unsigned number, bool disconnected);

extern const struct device_ops mc146818_ops;

#endif
