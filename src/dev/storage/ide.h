/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The parallel ATA function of an ICH (ICH7 datasheet, chapter 11): two channels of two drives in
 * compatibility mode, with PIO and bus master DMA. Left out: native mode, and the times that its
 * timing registers set.
 *
 * vCPU threads use the registers, the loop's thread finishes commands; one lock.
 */
#ifndef SKEP_DEV_STORAGE_IDE_H
#define SKEP_DEV_STORAGE_IDE_H

#include "base/error.h"
#include "bus/device.h"
#include "bus/irq.h"
#include "bus/ram.h"
#include "dev/pci.h"
#include "dev/storage/ata.h"

enum { IDE_CHANNELS = 2, IDE_DRIVES = 4 };

struct ide_config {
    struct pci_bus *pci;
    unsigned slot, function;
    struct ram *ram;
    /* Of each channel: its eight ports, its control port, its interrupt. */
    uint16_t port[IDE_CHANNELS], control_port[IDE_CHANNELS];
    struct irq_line irq[IDE_CHANNELS];
    /* First and second of each channel, which are taken over, also on failure; NULL: none. */
    struct ata_drive *drives[IDE_DRIVES];
};

struct ide;

struct ide *ide_create(const struct ide_config *config, struct error *err);

extern const struct device_ops ide_ops;

#endif
