/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A ROM that the bootstrap processor starts in at the reset vector. It ends at 4 GiB, and its last
 * 128 KiB are below 1 MiB, too, in RAM, as a chipset has them that shadows its firmware.
 */
#ifndef SKEP_MACHINE_BOOT_ROM_H
#define SKEP_MACHINE_BOOT_ROM_H

#include "base/error.h"
#include "bus/ram.h"

#include <stdbool.h>
#include <stdint.h>

enum { BOOT_ROM_MAX_BYTES = 8 << 20 };

struct boot_rom {
    uint8_t *bytes; /* whole pages; NULL: there is none */
    uint64_t size_bytes;
};

/* Reads the file, whose size must be whole pages and at most BOOT_ROM_MAX_BYTES. */
bool boot_rom_open(struct boot_rom *rom, const char *path, struct error *err);
void boot_rom_close(struct boot_rom *rom); /* after the engine that maps it */

uint64_t boot_rom_gpa(const struct boot_rom *rom);

/* Puts the copy below 1 MiB, when the machine starts and after each reset. */
void boot_rom_shadow(const struct boot_rom *rom, struct ram *ram);

#endif
