/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What the firmware configuration device tells: processors, memory, the kernel that was given.
 */
#ifndef SKEP_MACHINE_FW_ITEMS_H
#define SKEP_MACHINE_FW_ITEMS_H

#include "base/error.h"
#include "dev/fw_cfg.h"
#include "machine/boot.h"

#include <stdbool.h>
#include <stdint.h>

struct fw_items {
    unsigned vcpu_count;
    uint64_t memory_bytes;
    const uint8_t *uuid;            /* 16 bytes */
    const struct memory_map *map;   /* etc/e820 */
    const struct boot_config *boot; /* with its files, must outlive the device; NULL: no kernel */
    const char *cmdline;            /* for a ROM that has no kernel; NULL: none */
};

/* False only when out of memory. */
bool fw_items_put(struct fw_cfg *fw, const struct fw_items *items, struct error *err);

#endif
