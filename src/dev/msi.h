/* SPDX-License-Identifier: BSD-2-Clause
 *
 * MSI (PCI Local Bus 3.0, 6.8.1): one message of one function, with a 64-bit address and without
 * mask bits. All its state is in the configuration space, which the function saves.
 *
 * Threads: has a lock of its own, taken last, so msi_notify() may be called with a device's lock
 * held from any thread.
 */
#ifndef SKEP_DEV_MSI_H
#define SKEP_DEV_MSI_H

#include "base/error.h"
#include "bus/irq.h"
#include "dev/pci.h"

#include <stdbool.h>

struct msi;

/* Adds the capability. The function must outlive it. */
struct msi *msi_create(struct pci_function *function, const struct msi_sink *sink,
                       struct error *err);
void msi_destroy(struct msi *msi); /* NULL is fine */

/* To be called from the function's `written` hook. */
void msi_config_written(struct msi *msi, unsigned offset, unsigned size_bytes);

/* While it is disabled the function uses INTx, if any. */
bool msi_enabled(struct msi *msi);

/* Sends the message; nothing happens while it is disabled. */
void msi_notify(struct msi *msi);

/* After pci_function_reset and pci_function_load. */
void msi_update(struct msi *msi);

#endif
