/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Puts a kernel, its initrds and its command line into guest memory and sets up the bootstrap
 * processor to enter it, as a boot loader would. The files are not trusted.
 */
#ifndef SKEP_MACHINE_BOOT_H
#define SKEP_MACHINE_BOOT_H

#include "base/error.h"
#include "bus/ram.h"
#include "cpu/state.h"
#include "machine/boot_file.h"
#include "machine/memory_map.h"

#include <stdbool.h>
#include <stdint.h>

/* What a Linux kernel gets when there is no command line: the console that is always there. */
#define BOOT_LINUX_CMDLINE "console=ttyS0"

struct boot_config {
    const struct boot_file *kernel; /* a bzImage, an ELF vmlinux with a PVH entry, or Multiboot */
    /* Joined in this order, each on a multiple of 4 bytes; for Multiboot a module each. */
    struct boot_file *const *initrds;
    unsigned initrd_count;
    /* The command line of each module, for Multiboot; NULL: their paths. */
    const char *const *module_texts;
    const char *cmdline; /* NULL: BOOT_LINUX_CMDLINE, for Multiboot nothing */
    const struct memory_map *map;
    uint64_t rsdp_gpa; /* 0: the kernel looks for the ACPI tables by itself */
};

/* Whether each initrd is a module of its own, with a command line (Multiboot). */
bool boot_takes_modules(const struct boot_file *kernel);

/* Loads into `ram`, which must be zero where nothing else is said, and changes `bsp`, which must
 * be as after reset. Everything is checked before the first byte of guest memory is written,
 * save that a file may shrink meanwhile. */
bool boot_load(const struct boot_config *config, struct ram *ram, struct x86_state *bsp,
               struct error *err);

#endif
