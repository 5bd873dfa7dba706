/* SPDX-License-Identifier: BSD-2-Clause
 *
 * ELF files of kernels (System V ABI, chapters 4 and 5), 32 and 64 bits, little-endian x86, as far
 * as the boot loaders need them: what is to be loaded where, and where notes are. The file is not
 * trusted. Private to src/machine/boot*.c.
 */
#ifndef SKEP_MACHINE_BOOT_ELF_H
#define SKEP_MACHINE_BOOT_ELF_H

#include "machine/boot.h"

enum { BOOT_ELF_SEGMENTS_MAX = 64, BOOT_ELF_NOTES_MAX = 8 };

struct boot_elf_segment {
    uint64_t offset, gpa, gva, file_bytes, memory_bytes;
    bool is_executable;
};

struct boot_elf_note {
    uint64_t offset, size_bytes;
};

struct boot_elf {
    bool is_64;
    uint64_t entry; /* as the header has it: mostly a virtual address */
    unsigned count;
    struct boot_elf_segment segment[BOOT_ELF_SEGMENTS_MAX]; /* none of them empty */
    unsigned note_count; /* what is beyond BOOT_ELF_NOTES_MAX is not looked at */
    struct boot_elf_note note[BOOT_ELF_NOTES_MAX];
    uint64_t gpa, end_gpa; /* of all segments together */
};

bool boot_elf_is(const struct boot_file *file);

/* Each segment lies in the file and has a size and addresses that do not wrap; whether memory is
 * there is not looked at. */
bool boot_elf_read(const struct boot_config *config, struct boot_elf *elf, struct error *err);

/* What the file has of each segment, into memory that is clear. */
bool boot_elf_load(const struct boot_config *config, const struct boot_elf *elf, struct ram *ram,
                   struct error *err);

#endif
