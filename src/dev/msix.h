/* SPDX-License-Identifier: BSD-2-Clause
 *
 * MSI-X (PCI Local Bus 3.0, 6.8.2): capability, table and pending bits of one function.
 *
 * Threads: has a lock of its own, taken last, so msix_notify() may be called with a device's lock
 * held from any thread.
 */
#ifndef SKEP_DEV_MSIX_H
#define SKEP_DEV_MSIX_H

#include "base/error.h"
#include "bus/irq.h"
#include "bus/stream.h"
#include "dev/pci.h"

#include <stdbool.h>
#include <stdint.h>

enum { MSIX_VECTORS_MAX = 1024 };

struct msix;

/* Adds the capability and a 32-bit memory BAR `bar` with `vectors` entries and their pending bits.
 * The function must outlive it. */
struct msix *msix_create(struct pci_function *function, unsigned bar, unsigned vectors,
                         const struct msi_sink *sink, struct error *err);
void msix_destroy(struct msix *msix);

/* To be called from the function's `written` hook. */
void msix_config_written(struct msix *msix, unsigned offset, unsigned size_bytes);

bool msix_enabled(struct msix *msix);
unsigned msix_vectors(const struct msix *msix);

/* Sends the vector's message; while it or the function is masked, notes it as pending. Nothing
 * happens when MSI-X is disabled or there is no such vector. */
void msix_notify(struct msix *msix, unsigned vector);

/* Forgets a pending vector, when its cause is gone (a device reset). */
void msix_clear_pending(struct msix *msix);

/* After pci_function_reset. */
void msix_reset(struct msix *msix);
void msix_save(struct msix *msix, struct save *save);
/* After pci_function_load. */
bool msix_load(struct msix *msix, struct load *load);

#endif
