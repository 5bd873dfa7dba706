/* SPDX-License-Identifier: BSD-2-Clause
 *
 * An NVMe controller (NVM Express 1.4) with one namespace, on PCI.
 */
#ifndef SKEP_DEV_STORAGE_NVME_H
#define SKEP_DEV_STORAGE_NVME_H

#include "base/error.h"
#include "base/log.h"
#include "bus/block.h"
#include "bus/device.h"
#include "bus/irq.h"
#include "bus/ram.h"
#include "dev/pci.h"

enum { NVME_SERIAL_BYTES = 20 };

struct nvme;

struct nvme_config {
    struct pci_bus *pci;
    unsigned slot, function;
    struct msi_sink msi;
    struct ram *ram;
    const struct log *log; /* may be NULL */
    /* Copied; what is behind it must outlive the device, and be drained before reset, save, load
     * and destroy. */
    const struct block_backend *backend;
    /* Cut to NVME_SERIAL_BYTES; NULL: made from the place. The namespace's identifier follows from
     * it, so it should differ from disk to disk. */
    const char *serial;
};

/* NULL and `err` filled on failure. Free with nvme_ops.destroy. */
struct nvme *nvme_create(const struct nvme_config *config, struct error *err);

extern const struct device_ops nvme_ops;

#endif
