/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A serial ATA controller (AHCI 1.3) as the ICH9 has it: six ports with disks and ATAPI drives,
 * native command queuing, MSI or INTx. Left out: port multipliers, the index and data pair in I/O
 * space, the legacy IDE mode, power states of the link, enclosure management.
 *
 * vCPU threads use the registers, the loop's thread finishes commands; one lock.
 */
#ifndef SKEP_DEV_STORAGE_AHCI_H
#define SKEP_DEV_STORAGE_AHCI_H

#include "base/error.h"
#include "bus/device.h"
#include "bus/irq.h"
#include "bus/ram.h"
#include "dev/pci.h"
#include "dev/storage/ata.h"

enum { AHCI_PORTS = 6 };

struct ahci_config {
    struct pci_bus *pci;
    unsigned slot, function;
    struct msi_sink msi;
    struct ram *ram;
    const struct log *log; /* may be NULL */
    /* What hangs on each port, which is taken over, also on failure; NULL: nothing. */
    struct ata_drive *drives[AHCI_PORTS];
};

struct ahci;

struct ahci *ahci_create(const struct ahci_config *config, struct error *err);

extern const struct device_ops ahci_ops;

#endif
