/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The LPC bridge of the ICH9 (8086:2918), usually at 0:1f.0: where an OS finds the ACPI registers'
 * place, the SCI's number and the routing of PCI interrupts.
 */
#ifndef SKEP_DEV_ICH9_LPC_H
#define SKEP_DEV_ICH9_LPC_H

#include "base/error.h"
#include "bus/device.h"
#include "dev/pci.h"

#include <stdbool.h>
#include <stdint.h>

enum { ICH9_LPC_PIRQ_COUNT = 8 };

struct ich9_lpc;

struct ich9_lpc_config {
    struct pci_bus *pci;
    unsigned slot, function; /* 0x1f, 0 */
    uint16_t pm_base;        /* after reset, a multiple of 128; 0: not set, as on the chip */
    bool acpi_enabled;       /* after reset: the ACPI registers are decoded at pm_base */
    uint8_t sci;             /* 9, 10, 11, 20 … 23; how the SCI is routed after reset */
    uint32_t rcba;           /* after reset, a multiple of 16 KiB; 0: disabled. Nothing is there. */

    /* Told after reset, load and the guest's writes, when it differs from before; with the PCI
     * bus's lock held when the guest writes. Each may be NULL. */
    void (*pm_changed)(void *opaque, uint16_t base, bool enabled, unsigned sci);
    /* PIRQA … PIRQH go to an interrupt of the 8259 pair, or (irq 0) to none. */
    void (*pirq_changed)(void *opaque, unsigned pirq, unsigned irq);
    void *opaque;
};

struct ich9_lpc *ich9_lpc_create(const struct ich9_lpc_config *config, struct error *err);

extern const struct device_ops ich9_lpc_ops;

#endif
