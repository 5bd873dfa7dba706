/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The map of the guest's memory as firmware tells it (E820; ACPI 6.4, 15.3). The board fills it;
 * the boot loaders hand it to the kernel.
 */
#ifndef SKEP_MACHINE_MEMORY_MAP_H
#define SKEP_MACHINE_MEMORY_MAP_H

#include <stdint.h>

enum { MEMORY_MAP_MAX = 16 };
enum memory_kind { MEMORY_USABLE = 1, MEMORY_RESERVED = 2, MEMORY_ACPI = 3, MEMORY_NVS = 4 };

struct memory_range {
    uint64_t gpa;
    uint64_t size_bytes;
    enum memory_kind kind;
};

/* In ascending order, without overlaps. */
struct memory_map {
    unsigned count;
    struct memory_range range[MEMORY_MAP_MAX];
};

/* Appends; a range of size 0 is left out. More than MEMORY_MAP_MAX is a bug of ours. */
void memory_map_add(struct memory_map *map, uint64_t gpa, uint64_t size_bytes,
                    enum memory_kind kind);

/* The end of the usable range that holds `gpa`, or 0 when it is in none. */
uint64_t memory_map_usable_end(const struct memory_map *map, uint64_t gpa);

#endif
