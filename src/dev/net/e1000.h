/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Intel's Gigabit Ethernet controllers on PCI: 82540EM and 82545EM ("e1000"; Intel's PCI/PCI-X
 * Family of Gigabit Ethernet Controllers Software Developer's Manual) and 82574L ("e1000e"; Intel's
 * 82574 GbE Controller Family Datasheet).
 */
#ifndef SKEP_DEV_NET_E1000_H
#define SKEP_DEV_NET_E1000_H

#include "base/error.h"
#include "base/log.h"
#include "base/loop.h"
#include "bus/clock.h"
#include "bus/device.h"
#include "bus/irq.h"
#include "bus/net.h"
#include "bus/ram.h"
#include "dev/pci.h"

enum e1000_model { E1000_82540EM, E1000_82545EM, E1000_82574L };

struct e1000;

struct e1000_config {
    enum e1000_model model;
    struct pci_bus *pci;
    unsigned slot, function;
    struct msi_sink msi; /* of the 82574L */
    struct ram *ram;
    struct clock *clock;
    struct loop *loop;
    const struct log *log; /* may be NULL */
    /* Copied; what is behind it must outlive the card. Finished frames only: it is told that the
     * guest takes no offloads. */
    struct net_backend backend;
    uint8_t mac[6];
    /* Network boot code for firmware, copied into the expansion ROM; NULL: there is none. */
    const void *rom;
    size_t rom_bytes;
};

/* On the loop's thread. NULL and `err` filled on failure. Free with the destroy of e1000_ops_of().
 */
struct e1000 *e1000_create(const struct e1000_config *config, struct error *err);

extern const struct device_ops e1000_ops;  /* of the 8254x */
extern const struct device_ops e1000e_ops; /* of the 82574L */
const struct device_ops *e1000_ops_of(enum e1000_model model);

#endif
