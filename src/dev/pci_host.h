/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The way to PCI configuration space, and the host bridge of a Q35 board (82Q35 MCH, 8086:29c0) at
 * 0:0.0: ports 0xCF8 and 0xCFC, and the memory-mapped window that PCIEXBAR places.
 */
#ifndef SKEP_DEV_PCI_HOST_H
#define SKEP_DEV_PCI_HOST_H

#include "base/error.h"
#include "bus/bus.h"
#include "bus/device.h"
#include "dev/pci.h"

#include <stdint.h>

struct pci_host;

struct pci_host_config {
    struct pci_bus *pci;
    uint16_t address_port; /* 0xcf8; the data ports are the four from 4 above it */
    uint64_t ecam_base;    /* a multiple of 256 MiB where PCIEXBAR is after reset; 0: disabled */
    /* What the PAM registers open and close. `physmap` NULL: they keep what is written, and all is
     * RAM, as firmware leaves it. `rom` ends at 1 MiB and is seen where RAM isn't: whole segments
     * of 16 KiB, PCI_HOST_ROM_MAX_BYTES at the most; it stays until no vCPU runs any more. */
    struct physmap *physmap;
    struct ram *ram;
    uint8_t *rom;
    uint32_t rom_bytes;
};

enum { PCI_HOST_ROM_MAX_BYTES = 256 << 10 };

/* The bus must outlive it. */
struct pci_host *pci_host_create(const struct pci_host_config *config, struct error *err);

/* Where the guest has placed the memory-mapped window, and its size; 0: it is off. Any thread that
 * doesn't hold the PCI bus's lock. */
uint64_t pci_host_ecam(struct pci_host *host, uint64_t *base);

extern const struct device_ops pci_host_ops;

#endif
