/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Shared by the boot loaders: where they put their things in low memory, and the steps that both
 * of them take. Private to src/machine/boot*.c.
 */
#ifndef SKEP_MACHINE_BOOT_INTERNAL_H
#define SKEP_MACHINE_BOOT_INTERNAL_H

#include "machine/boot.h"

/* Below 640 KiB, in usable memory: the kernel takes what it needs before it reuses the rest. */
enum {
    BOOT_GDT_GPA = 0x500,
    BOOT_STACK_GPA = 0x5ff0,       /* grows down; kernels bring their own */
    BOOT_PVH_INFO_GPA = 0x6000,    /* one page: start info, module list, memory map */
    BOOT_PARAMS_GPA = 0x7000,      /* the zero page */
    BOOT_SETUP_DATA_GPA = 0x8000,  /* one page */
    BOOT_PAGE_TABLES_GPA = 0x9000, /* PML4, PDPT, four page directories */
    BOOT_CMDLINE_GPA = 0x20000,
    BOOT_CMDLINE_MAX_BYTES = 0x10000,
    BOOT_KERNEL_MIN_GPA = 0x100000,
};

/* Selectors of the GDT at BOOT_GDT_GPA; CS and DS are as Linux' protocol wants them. */
enum { BOOT_CS32 = 0x08, BOOT_CS = 0x10, BOOT_DS = 0x18, BOOT_TSS = 0x20 };

struct boot_initrd {
    uint64_t gpa;
    uint64_t size_bytes; /* 0: none */
};

/* Finds a place for the joined initrds below `limit_gpa` (exclusive) and above the kernel, which
 * takes [kernel_gpa, kernel_end_gpa). Writes nothing. */
bool boot_initrd_place(const struct boot_config *config, uint64_t kernel_gpa,
                       uint64_t kernel_end_gpa, uint64_t limit_gpa, struct boot_initrd *initrd,
                       struct error *err);

/* "cannot load initrd": size_bytes of them do not fit into [floor_gpa, top_gpa). Returns false. */
bool boot_initrd_refuse(const struct boot_config *config, uint64_t size_bytes, uint64_t floor_gpa,
                        uint64_t top_gpa, struct error *err);

/* Of all initrds joined; and a part of them. */
uint64_t boot_initrd_size_bytes(const struct boot_config *config);
bool boot_initrd_read(const struct boot_config *config, uint64_t offset, uint8_t *out,
                      size_t size_bytes);

bool boot_initrd_load(const struct boot_config *config, const struct boot_initrd *initrd,
                      struct ram *ram, struct error *err);

/* Checks the command line's length against `max_bytes` (without the terminating zero). */
bool boot_cmdline_check(const struct boot_config *config, uint64_t max_bytes, struct error *err);

/* Writes to the loader's own area, which is RAM on every board. */
void boot_put(struct ram *ram, uint64_t gpa, const void *data, size_t size_bytes);

/* "cannot boot" for this kernel, with a cause. Returns false. */
bool boot_refuse(const struct boot_config *config, struct error *err, const char *cause, ...)
    __attribute__((format(printf, 3, 4)));

/* The kernel needs memory up to needed_end_gpa: says so when it is not there. */
bool boot_kernel_fits(const struct boot_config *config, uint64_t gpa, uint64_t end_gpa,
                      struct error *err);

/* Flat segments, CS with one of the two selectors; the GDT in memory that matches them; an empty
 * IDT. */
void boot_segments(struct ram *ram, struct x86_state *bsp, unsigned code_selector, bool is_64bit);

/* Whether the file starts as the format wants: then that loader answers for it. */
bool bzimage_is(const struct boot_file *file);
/* The size of a bzImage's first part: boot sector and real-mode setup. */
uint64_t bzimage_setup_bytes(const struct boot_file *file);
/* Fills in what a boot loader does that puts `setup`, which is this first part, and the command
 * line there; gives the address of the initrds. */
uint64_t bzimage_fill_setup(const struct boot_config *config, uint8_t *setup, uint32_t setup_gpa,
                            uint32_t cmdline_gpa);
bool bzimage_load(const struct boot_config *config, struct ram *ram, struct x86_state *bsp,
                  struct error *err);
/* Whether it is an ELF file with the note that gives the entry. */
bool pvh_has_entry(const struct boot_config *config);
bool pvh_load(const struct boot_config *config, struct ram *ram, struct x86_state *bsp,
              struct error *err);
bool multiboot_is(const struct boot_file *file);
bool multiboot_load(const struct boot_config *config, struct ram *ram, struct x86_state *bsp,
                    struct error *err);

#endif
