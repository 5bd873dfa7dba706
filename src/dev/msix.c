/* SPDX-License-Identifier: BSD-2-Clause
 *
 * MSI-X (PCI Local Bus 3.0, 6.8.2): capability, table, pending bits; see msix.h.
 */
#include "dev/msix.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum {
    CAPABILITY_BYTES = 12,
    CONTROL = 2, /* in the capability: message control */
    CONTROL_MASKED = 1 << 14,
    CONTROL_ENABLED = 1 << 15,
    ENTRY_BYTES = 16,
    ENTRY_MASKED = 1, /* in an entry's fourth word */
};

struct msix_entry {
    uint32_t words[4]; /* address low and high, data, control */
};

struct msix {
    struct pci_function *function;
    struct msi_sink sink;
    unsigned capability;
    unsigned vectors;
    uint64_t pending_offset; /* in the BAR */
    pthread_mutex_t lock;
    bool enabled, masked;
    struct msix_entry *entries;
    uint64_t *pending; /* a bit a vector */
};

static unsigned pending_words(const struct msix *msix)
{
    return (msix->vectors + 63) / 64;
}

static bool is_pending(const struct msix *msix, unsigned vector)
{
    return msix->pending[vector / 64] >> (vector % 64) & 1;
}

static void set_pending(struct msix *msix, unsigned vector, bool pending)
{
    uint64_t bit = UINT64_C(1) << (vector % 64);
    if (pending)
        msix->pending[vector / 64] |= bit;
    else
        msix->pending[vector / 64] &= ~bit;
}

/* With the lock held. */
static void deliver(struct msix *msix, unsigned vector)
{
    const struct msix_entry *entry = &msix->entries[vector];
    bool is_masked = msix->masked || (entry->words[3] & ENTRY_MASKED);
    set_pending(msix, vector, is_masked);
    if (!is_masked)
        msi_send(&msix->sink, (uint64_t)entry->words[1] << 32 | entry->words[0], entry->words[2]);
}

/* With the lock held: what may have been waiting for this vector's unmasking. */
static void deliver_pending(struct msix *msix, unsigned vector)
{
    if (msix->enabled && is_pending(msix, vector))
        deliver(msix, vector);
}

void msix_notify(struct msix *msix, unsigned vector)
{
    if (vector >= msix->vectors)
        return;
    pthread_mutex_lock(&msix->lock);
    if (msix->enabled)
        deliver(msix, vector);
    pthread_mutex_unlock(&msix->lock);
}

/* ---- the BAR ---- */

static uint64_t bar_read(void *opaque, uint64_t offset, unsigned size_bytes)
{
    struct msix *msix = opaque;
    uint64_t table_bytes = (uint64_t)msix->vectors * ENTRY_BYTES;
    uint64_t pending_bytes = (uint64_t)pending_words(msix) * 8;
    uint64_t value = 0;
    pthread_mutex_lock(&msix->lock);
    if (offset < table_bytes && size_bytes <= table_bytes - offset) {
        memcpy(&value, (const uint8_t *)msix->entries + offset, size_bytes);
    } else if (offset >= msix->pending_offset) {
        uint64_t at = offset - msix->pending_offset;
        if (at < pending_bytes && size_bytes <= pending_bytes - at)
            memcpy(&value, (const uint8_t *)msix->pending + at, size_bytes);
    }
    pthread_mutex_unlock(&msix->lock);
    return value;
}

/* Only aligned words and double words are defined (6.8.2); anything else is dropped. */
static void bar_write(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    struct msix *msix = opaque;
    uint64_t table_bytes = (uint64_t)msix->vectors * ENTRY_BYTES;
    if ((size_bytes != 4 && size_bytes != 8) || offset % size_bytes || offset >= table_bytes)
        return;
    unsigned vector = (unsigned)(offset / ENTRY_BYTES);
    unsigned word = (unsigned)(offset % ENTRY_BYTES / 4);
    pthread_mutex_lock(&msix->lock);
    for (unsigned i = 0; i < size_bytes / 4; i++, word++) {
        uint32_t bits = (uint32_t)(value >> (32 * i));
        msix->entries[vector].words[word] = word == 3   ? bits & ENTRY_MASKED
                                            : word == 0 ? bits & ~UINT32_C(3)
                                                        : bits;
    }
    deliver_pending(msix, vector);
    pthread_mutex_unlock(&msix->lock);
}

/* ---- control, life ---- */

/* Takes over what the capability's control word says now. */
static void control_update(struct msix *msix)
{
    uint32_t control = pci_function_get(msix->function, msix->capability + CONTROL, 2);
    bool enabled = control & CONTROL_ENABLED;
    pci_function_suppress_intx(msix->function, enabled);
    pthread_mutex_lock(&msix->lock);
    msix->enabled = enabled;
    msix->masked = control & CONTROL_MASKED;
    for (unsigned i = 0; i < msix->vectors; i++)
        deliver_pending(msix, i);
    pthread_mutex_unlock(&msix->lock);
}

void msix_config_written(struct msix *msix, unsigned offset, unsigned size_bytes)
{
    unsigned control = msix->capability + CONTROL;
    if (offset < control + 2 && offset + size_bytes > control)
        control_update(msix);
}

static void tables_reset(struct msix *msix)
{
    memset(msix->entries, 0, msix->vectors * sizeof(*msix->entries));
    memset(msix->pending, 0, pending_words(msix) * sizeof(*msix->pending));
    for (unsigned i = 0; i < msix->vectors; i++)
        msix->entries[i].words[3] = ENTRY_MASKED;
}

static void add_capability(struct msix *msix, unsigned bar)
{
    struct pci_function *f = msix->function;
    msix->capability = pci_function_capability(f, PCI_CAPABILITY_MSIX, CAPABILITY_BYTES);
    pci_function_init(f, msix->capability + CONTROL, msix->vectors - 1, 2);
    pci_function_writable(f, msix->capability + CONTROL, CONTROL_ENABLED | CONTROL_MASKED, 2);
    pci_function_init(f, msix->capability + 4, bar, 4);
    pci_function_init(f, msix->capability + 8, (uint32_t)msix->pending_offset | bar, 4);
}

struct msix *msix_create(struct pci_function *function, unsigned bar, unsigned vectors,
                         const struct msi_sink *sink, struct error *err)
{
    assert(vectors >= 1 && vectors <= MSIX_VECTORS_MAX);
    struct msix *msix = calloc(1, sizeof(*msix));
    struct msix_entry *entries = calloc(vectors, sizeof(*entries));
    uint64_t *pending = calloc((vectors + 63) / 64, sizeof(*pending));
    if (!msix || !entries || !pending) {
        free(msix);
        free(entries);
        free(pending);
        error_set(err, "cannot add MSI-X", NULL, "out of memory");
        return NULL;
    }
    msix->function = function;
    msix->sink = *sink;
    msix->vectors = vectors;
    msix->entries = entries;
    msix->pending = pending;
    pthread_mutex_init(&msix->lock, NULL);
    tables_reset(msix);
    /* The table from 0, the pending bits in the last quarter of the smallest range that fits. */
    uint64_t size = 4096;
    while (size / 4 * 3 < (uint64_t)vectors * ENTRY_BYTES)
        size *= 2;
    msix->pending_offset = size / 4 * 3;
    add_capability(msix, bar);
    pci_function_bar(function, bar,
                     &(struct pci_bar){
                         .size_bytes = size, .read = bar_read, .write = bar_write, .opaque = msix});
    return msix;
}

void msix_destroy(struct msix *msix)
{
    if (!msix)
        return;
    pthread_mutex_destroy(&msix->lock);
    free(msix->entries);
    free(msix->pending);
    free(msix);
}

bool msix_enabled(struct msix *msix)
{
    pthread_mutex_lock(&msix->lock);
    bool enabled = msix->enabled;
    pthread_mutex_unlock(&msix->lock);
    return enabled;
}

unsigned msix_vectors(const struct msix *msix)
{
    return msix->vectors;
}

void msix_clear_pending(struct msix *msix)
{
    pthread_mutex_lock(&msix->lock);
    memset(msix->pending, 0, pending_words(msix) * sizeof(*msix->pending));
    pthread_mutex_unlock(&msix->lock);
}

void msix_reset(struct msix *msix)
{
    pthread_mutex_lock(&msix->lock);
    tables_reset(msix);
    pthread_mutex_unlock(&msix->lock);
    control_update(msix);
}

void msix_save(struct msix *msix, struct save *save)
{
    pthread_mutex_lock(&msix->lock);
    for (unsigned i = 0; i < msix->vectors; i++) {
        for (unsigned word = 0; word < 4; word++)
            save_u32(save, msix->entries[i].words[word]);
        save_bool(save, is_pending(msix, i));
    }
    pthread_mutex_unlock(&msix->lock);
}

bool msix_load(struct msix *msix, struct load *load)
{
    pthread_mutex_lock(&msix->lock);
    for (unsigned i = 0; i < msix->vectors; i++) {
        for (unsigned word = 0; word < 4; word++)
            msix->entries[i].words[word] = load_u32(load);
        set_pending(msix, i, load_bool(load));
        if (msix->entries[i].words[3] & ~(uint32_t)ENTRY_MASKED)
            load_fail(load);
    }
    if (load->failed)
        tables_reset(msix);
    pthread_mutex_unlock(&msix->lock);
    if (!load->failed)
        control_update(msix);
    return !load->failed;
}
