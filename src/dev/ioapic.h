/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The I/O APIC: 24 pins in, interrupt messages out (82093AA data sheet, with the EOI register of
 * the ICH9's version 0x20).
 */
#ifndef SKEP_DEV_IOAPIC_H
#define SKEP_DEV_IOAPIC_H

#include "base/error.h"
#include "base/log.h"
#include "bus/bus.h"
#include "bus/device.h"
#include "bus/irq.h"
#include "bus/irqchip.h"

#include <stdbool.h>
#include <stdint.h>

enum { IOAPIC_PINS = IRQCHIP_PINS, IOAPIC_CHIP_VERSION = 0x20 };
#define IOAPIC_DEFAULT_BASE UINT64_C(0xfec00000)

struct ioapic_config {
    struct bus *bus;
    uint64_t base;         /* of 4 KiB of MMIO; IOAPIC_DEFAULT_BASE */
    uint8_t id;            /* 4 bits; after reset, until the guest writes it */
    struct msi_sink sink;  /* lapic_message; called with the I/O APIC's lock held */
    const struct log *log; /* may be NULL */
};

struct ioapic;

/* Maps the MMIO page. Returns NULL when it can't. Destroyed through ioapic_ops. */
struct ioapic *ioapic_create(const struct ioapic_config *config, struct error *err);

/* Pin 0 … 23; others are ignored. `level` says whether the line is asserted, whatever the polarity
 * the guest programs: lines of this board carry requests, not voltages. An irq_line. */
void ioapic_set_irq(void *ioapic, unsigned pin, bool level);

/* A processor ended the level interrupt with this vector (lapic_set_eoi_listener). */
void ioapic_eoi(void *ioapic, uint8_t vector);

struct ioapic_state ioapic_get(struct ioapic *ioapic); /* as it is now */
/* What ioapic_ops saves, and its reading back: false and failed when a value is out of range. */
void ioapic_state_save(const struct ioapic_state *state, struct save *stream);
bool ioapic_state_load(struct ioapic_state *state, struct load *stream);

extern const struct device_ops ioapic_ops; /* `self` is the struct ioapic */

#endif
