/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The machine described in SMBIOS 3.0 structures: who made it, its processors and memory.
 */
#ifndef SKEP_MACHINE_SMBIOS_H
#define SKEP_MACHINE_SMBIOS_H

#include "base/error.h"
#include "machine/bytes.h"

#include <stdint.h>

struct smbios_config {
    const char *version; /* of skep */
    uint8_t uuid[16];    /* in the order in which it is written */
    unsigned sockets, cores, threads;
    uint64_t memory_low_bytes;  /* from address 0 */
    uint64_t memory_high_bytes; /* from 4 GiB */
};

/* The entry point, and where the structures begin. */
enum { SMBIOS_ANCHOR_BYTES = 24, SMBIOS_STRUCTURES_AT = 32 };

/* Composes the entry point and, behind it, the structures for guest address `gpa` (a multiple of
 * 16) into `out`, which must be empty. Fails only when out of memory or when they exceed
 * `limit_bytes`. */
bool smbios_build(const struct smbios_config *config, uint64_t gpa, size_t limit_bytes,
                  struct bytes *out, struct error *err);

#endif
