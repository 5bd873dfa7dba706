/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A high precision event timer block: one counter of 100 MHz and its comparators.
 */
#ifndef SKEP_DEV_HPET_H
#define SKEP_DEV_HPET_H

#include "base/error.h"
#include "bus/bus.h"
#include "bus/clock.h"
#include "bus/device.h"
#include "bus/irq.h"

#include <stdint.h>

enum {
    HPET_BLOCK_BYTES = 0x400,
    HPET_MIN_TIMERS = 3,
    HPET_MAX_TIMERS = 8,
    HPET_ID_VENDOR = 0x8086,
    HPET_PERIOD_FS = 10000000,
};

struct hpet;

struct hpet_config {
    uint64_t base;          /* HPET_BLOCK_BYTES of MMIO: 0xfed00000 on a PC */
    unsigned timer_count;   /* HPET_MIN_TIMERS to HPET_MAX_TIMERS */
    uint32_t route_mask;    /* the I/O APIC inputs that a timer may use */
    struct irq_line ioapic; /* `number` is replaced by the input that the guest chose */
    struct irq_line legacy_timer, legacy_rtc; /* of timers 0 and 1 in legacy replacement */
    /* Told true while legacy replacement is on (number as given): see i8254_disconnect_irq() and
     * mc146818_disconnect_irq(). */
    struct irq_line legacy_taken[2];
    struct msi_sink msi; /* without `send`, timers have no FSB delivery */
};

/* The low half of the capabilities register, which is the ACPI table's "event timer block id". */
uint32_t hpet_block_id(const struct hpet_config *config);

/* Maps its block on `bus`; `bus` and `clock` must outlive the device. NULL and `err` filled on
 * failure. Free with hpet_ops.destroy. */
struct hpet *hpet_create(const struct hpet_config *config, struct bus *bus, struct clock *clock,
                         struct error *err);

extern const struct device_ops hpet_ops;

#endif
