/* SPDX-License-Identifier: BSD-2-Clause
 *
 * NOR flash of 8 bits' width with Intel's command set, in which UEFI keeps its variables.
 */
#ifndef SKEP_DEV_PFLASH_H
#define SKEP_DEV_PFLASH_H

#include "base/error.h"
#include "base/log.h"
#include "bus/bus.h"
#include "bus/device.h"
#include "bus/physmap.h"

#include <stddef.h>
#include <stdint.h>

enum { PFLASH_BLOCK_BYTES = 4096 };

/* What keeps the contents over the machine's life. */
struct pflash_store {
    /* These bytes at this offset have changed. False: they could not be kept, and the guest is told
     * so. With the device's lock held, on a vCPU's thread. NULL: nobody keeps them. */
    bool (*write)(void *opaque, uint64_t offset, const void *bytes, size_t size_bytes);
    void *opaque;
};

struct pflash;

struct pflash_config {
    uint64_t gpa;
    uint8_t *bytes;      /* the contents, whole pages; the caller's, until no vCPU runs any more */
    uint64_t size_bytes; /* a multiple of PFLASH_BLOCK_BYTES, at most 65536 of them */
    struct pflash_store store;
    struct bus *bus;
    struct physmap *physmap;
    const struct log *log; /* may be NULL */
};

/* NULL and `err` when its place is taken or memory is short. Free with pflash_ops.destroy. */
struct pflash *pflash_create(const struct pflash_config *config, struct error *err);

extern const struct device_ops pflash_ops;

#endif
