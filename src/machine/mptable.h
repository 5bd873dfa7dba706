/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Processors and interrupts in the tables of Intel's MultiProcessor Specification 1.4, for kernels
 * that know no ACPI or are told to leave it.
 */
#ifndef SKEP_MACHINE_MPTABLE_H
#define SKEP_MACHINE_MPTABLE_H

#include "base/error.h"
#include "machine/bytes.h"

#include <stdint.h>

enum { MPTABLE_PCI_SLOTS = 32, MPTABLE_PCI_PINS = 4 };

struct mptable_config {
    unsigned vcpu_count;
    const uint8_t *apic_ids;              /* of vcpu_count; the first is the bootstrap processor */
    uint32_t cpu_signature, cpu_features; /* EAX and EDX of CPUID leaf 1 */
    uint32_t lapic_base, ioapic_base;
    uint8_t lapic_version, ioapic_version, ioapic_id;
    uint8_t pit_pin; /* of the I/O APIC, for ISA IRQ 0; the others have their own numbers */
    uint8_t sci_irq; /* level-triggered, active high, unlike the others of ISA */
    uint8_t pci_pin[MPTABLE_PCI_SLOTS][MPTABLE_PCI_PINS]; /* where INTA … INTD of a slot go */
};

/* Composes the floating pointer and, behind it, the configuration table for guest address `gpa` (a
 * multiple of 16) into `out`, which must be empty. Fails only when out of memory or when they
 * exceed `limit_bytes`. */
bool mptable_build(const struct mptable_config *config, uint64_t gpa, size_t limit_bytes,
                   struct bytes *out, struct error *err);

#endif
