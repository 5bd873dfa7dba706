/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A USB host controller (eXtensible Host Controller Interface 1.0 with the errata of 1.1) as a PCI
 * function: four USB 2 ports, then four USB 3 ports, MSI-X with a vector an interrupter or INTx.
 * BAR 0 (64-bit memory) has the registers, BAR 2 (32-bit memory) the MSI-X table.
 */
#ifndef SKEP_DEV_USB_XHCI_H
#define SKEP_DEV_USB_XHCI_H

#include "base/error.h"
#include "base/log.h"
#include "bus/clock.h"
#include "bus/device.h"
#include "bus/irq.h"
#include "bus/ram.h"
#include "dev/pci.h"
#include "dev/usb/usb.h"

enum { XHCI_USB2_PORTS = 4, XHCI_USB3_PORTS = 4, XHCI_PORTS = XHCI_USB2_PORTS + XHCI_USB3_PORTS };

struct xhci;

struct xhci_config {
    struct pci_bus *pci;
    unsigned slot, function;
    struct msi_sink msi;
    struct ram *ram;
    struct clock *clock;
    const struct log *log; /* may be NULL */
    /* By port, the USB 2 ones first; a device of USB_SUPER belongs into a USB 3 port, any other one
     * into a USB 2 port. NULL: nothing is plugged in. Taken over, also on failure. */
    struct usb_device *devices[XHCI_PORTS];
};

/* NULL and `err` filled on failure. Free with xhci_ops.destroy. */
struct xhci *xhci_create(const struct xhci_config *config, struct error *err);

extern const struct device_ops xhci_ops;

#endif
