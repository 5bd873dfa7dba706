/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Message signaled interrupts of functions that have one message. What is left out: see msi.h.
 */
#include "dev/msi.h"

#include <pthread.h>
#include <stdlib.h>

enum {
    CAPABILITY_MSI = 0x05,
    CAPABILITY_BYTES = 14,
    CONTROL = 2,
    CONTROL_ENABLED = 1 << 0,
    CONTROL_64BIT = 1 << 7,
    ADDRESS = 4,
    DATA = 12,
};

struct msi {
    pthread_mutex_t lock;
    struct pci_function *function;
    struct msi_sink sink;
    unsigned capability;
    bool enabled;
    uint64_t address;
    uint32_t data;
};

void msi_update(struct msi *msi)
{
    struct pci_function *f = msi->function;
    bool enabled = pci_function_get(f, msi->capability + CONTROL, 2) & CONTROL_ENABLED;
    pci_function_suppress_intx(f, enabled);
    pthread_mutex_lock(&msi->lock);
    msi->enabled = enabled;
    msi->address = pci_function_get(f, msi->capability + ADDRESS, 4) |
                   (uint64_t)pci_function_get(f, msi->capability + ADDRESS + 4, 4) << 32;
    msi->data = pci_function_get(f, msi->capability + DATA, 2);
    pthread_mutex_unlock(&msi->lock);
}

void msi_config_written(struct msi *msi, unsigned offset, unsigned size_bytes)
{
    if (offset < msi->capability + CAPABILITY_BYTES && offset + size_bytes > msi->capability)
        msi_update(msi);
}

bool msi_enabled(struct msi *msi)
{
    pthread_mutex_lock(&msi->lock);
    bool enabled = msi->enabled;
    pthread_mutex_unlock(&msi->lock);
    return enabled;
}

void msi_notify(struct msi *msi)
{
    pthread_mutex_lock(&msi->lock);
    if (msi->enabled)
        msi_send(&msi->sink, msi->address, msi->data);
    pthread_mutex_unlock(&msi->lock);
}

struct msi *msi_create(struct pci_function *function, const struct msi_sink *sink,
                       struct error *err)
{
    struct msi *msi = calloc(1, sizeof(*msi));
    if (!msi) {
        error_set(err, "cannot add MSI", NULL, "out of memory");
        return NULL;
    }
    msi->function = function;
    msi->sink = *sink;
    pthread_mutex_init(&msi->lock, NULL);
    msi->capability = pci_function_capability(function, CAPABILITY_MSI, CAPABILITY_BYTES);
    unsigned at = msi->capability;
    pci_function_init(function, at + CONTROL, CONTROL_64BIT, 2);
    pci_function_writable(function, at + CONTROL, CONTROL_ENABLED, 2);
    pci_function_writable(function, at + ADDRESS, UINT32_C(0xfffffffc), 4);
    pci_function_writable(function, at + ADDRESS + 4, UINT32_MAX, 4);
    pci_function_writable(function, at + DATA, 0xffff, 2);
    return msi;
}

void msi_destroy(struct msi *msi)
{
    if (!msi)
        return;
    pthread_mutex_destroy(&msi->lock);
    free(msi);
}
