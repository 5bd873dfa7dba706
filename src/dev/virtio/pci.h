/* SPDX-License-Identifier: BSD-2-Clause
 *
 * virtio over PCI (virtio 1.2, 4.1), modern only: vendor 1af4, device 1040h + type, revision 1.
 * BAR 0 (64-bit memory) has common configuration, ISR, device configuration and one doorbell a
 * queue; BAR 4 (32-bit memory) has the MSI-X table, one vector a queue and one for configuration.
 */
#ifndef SKEP_DEV_VIRTIO_PCI_H
#define SKEP_DEV_VIRTIO_PCI_H

#include "base/error.h"
#include "bus/bus.h"
#include "bus/device.h"
#include "bus/irq.h"
#include "dev/pci.h"
#include "dev/virtio/virtio.h"

struct virtio_pci;

struct virtio_pci_config {
    struct pci_bus *pci;
    unsigned slot, function;
    struct msi_sink msi;
    const void *rom; /* a copy is its expansion ROM; NULL: none */
    size_t rom_bytes;
};

/* Takes the device over, also on failure (it is then destroyed). */
struct virtio_pci *virtio_pci_create(const struct virtio_pci_config *config,
                                     struct virtio_device *device, struct error *err);

/* Looks at every queue, as if each was kicked: once after load, when the machine runs again. */
void virtio_pci_kick_all(struct virtio_pci *pci);

extern const struct device_ops virtio_pci_ops;

#endif
