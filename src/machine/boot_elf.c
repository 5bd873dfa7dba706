/* SPDX-License-Identifier: BSD-2-Clause
 *
 * ELF files of kernels. Program headers of both sizes are read into one form. Left out: sections,
 * relocation, compressed files. Runs on the machine's thread, while no vCPU runs.
 */
#include "machine/boot_elf.h"

#include "machine/boot_internal.h"

#include <elf.h>
#include <string.h>

/* A program header, of either size. */
struct header {
    uint32_t type, flags;
    uint64_t offset, gva, gpa, file_bytes, memory_bytes;
};

/* Where the table of program headers is. */
struct table {
    uint64_t offset;
    unsigned count, entry_bytes;
};

bool boot_elf_is(const struct boot_file *file)
{
    uint8_t start[SELFMAG];
    return boot_file_size_bytes(file) >= sizeof(start) &&
           boot_file_read(file, 0, start, sizeof(start), NULL) && !memcmp(start, ELFMAG, SELFMAG);
}

static bool read_exact(const struct boot_config *config, void *out, size_t size_bytes,
                       struct error *err)
{
    if (boot_file_size_bytes(config->kernel) < size_bytes)
        return boot_refuse(config, err, "the file is truncated: it ends within its ELF header");
    return boot_file_read(config->kernel, 0, out, size_bytes, err);
}

static bool refuse_machine(const struct boot_config *config, struct error *err)
{
    boot_refuse(config, err, "it is an ELF file, but not one for x86-64 or i386");
    return error_hint(err, "a kernel for PCs is needed");
}

static bool read_ident(const struct boot_config *config, struct boot_elf *elf, struct error *err)
{
    uint8_t ident[EI_NIDENT];
    if (!read_exact(config, ident, sizeof(ident), err))
        return false;
    elf->is_64 = ident[EI_CLASS] == ELFCLASS64;
    if ((!elf->is_64 && ident[EI_CLASS] != ELFCLASS32) || ident[EI_DATA] != ELFDATA2LSB)
        return refuse_machine(config, err);
    return true;
}

static bool read_table_64(const struct boot_config *config, struct boot_elf *elf,
                          struct table *table, struct error *err)
{
    Elf64_Ehdr file;
    if (!read_exact(config, &file, sizeof(file), err))
        return false;
    if (file.e_machine != EM_X86_64)
        return refuse_machine(config, err);
    elf->entry = file.e_entry;
    *table = (struct table){file.e_phoff, file.e_phnum, file.e_phentsize};
    return true;
}

static bool read_table_32(const struct boot_config *config, struct boot_elf *elf,
                          struct table *table, struct error *err)
{
    Elf32_Ehdr file;
    if (!read_exact(config, &file, sizeof(file), err))
        return false;
    if (file.e_machine != EM_386)
        return refuse_machine(config, err);
    elf->entry = file.e_entry;
    *table = (struct table){file.e_phoff, file.e_phnum, file.e_phentsize};
    return true;
}

static bool read_header(const struct boot_config *config, bool is_64, uint64_t offset,
                        struct header *out, struct error *err)
{
    if (is_64) {
        Elf64_Phdr h;
        if (!boot_file_read(config->kernel, offset, &h, sizeof(h), err))
            return false;
        *out = (struct header){h.p_type,  h.p_flags,  h.p_offset, h.p_vaddr,
                               h.p_paddr, h.p_filesz, h.p_memsz};
        return true;
    }
    Elf32_Phdr h;
    if (!boot_file_read(config->kernel, offset, &h, sizeof(h), err))
        return false;
    *out = (struct header){h.p_type,  h.p_flags,  h.p_offset, h.p_vaddr,
                           h.p_paddr, h.p_filesz, h.p_memsz};
    return true;
}

static bool take_segment(const struct boot_config *config, const struct header *header,
                         struct boot_elf *elf, struct error *err)
{
    uint64_t file_bytes = boot_file_size_bytes(config->kernel);
    if (!header->memory_bytes)
        return true;
    if (elf->count == BOOT_ELF_SEGMENTS_MAX)
        return boot_refuse(config, err, "it has more than %d segments", BOOT_ELF_SEGMENTS_MAX);
    if (header->offset > file_bytes || header->file_bytes > file_bytes - header->offset) {
        boot_refuse(config, err, "the file is truncated: a segment lies past its end");
        return error_hint(err, "copy or download it again");
    }
    if (header->file_bytes > header->memory_bytes ||
        header->gpa > UINT64_MAX - header->memory_bytes)
        return boot_refuse(config, err, "a segment of it has a size that makes no sense");
    uint64_t end_gpa = header->gpa + header->memory_bytes;
    if (!elf->count || header->gpa < elf->gpa)
        elf->gpa = header->gpa;
    if (end_gpa > elf->end_gpa)
        elf->end_gpa = end_gpa;
    elf->segment[elf->count++] =
        (struct boot_elf_segment){header->offset,     header->gpa,          header->gva,
                                  header->file_bytes, header->memory_bytes, header->flags & PF_X};
    return true;
}

bool boot_elf_read(const struct boot_config *config, struct boot_elf *elf, struct error *err)
{
    struct table table = {0};
    *elf = (struct boot_elf){0};
    if (!read_ident(config, elf, err) || !(elf->is_64 ? read_table_64(config, elf, &table, err)
                                                      : read_table_32(config, elf, &table, err)))
        return false;
    unsigned entry_bytes = elf->is_64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr);
    if (table.entry_bytes != entry_bytes || !table.count || table.count == PN_XNUM)
        return boot_refuse(config, err, "it is an ELF file without segments to load");
    for (unsigned i = 0; i < table.count; i++) {
        struct header header;
        uint64_t offset;
        if (__builtin_add_overflow(table.offset, (uint64_t)i * entry_bytes, &offset))
            return boot_refuse(config, err, "its table of segments lies past the end of the file");
        if (!read_header(config, elf->is_64, offset, &header, err))
            return false;
        if (header.type == PT_LOAD && !take_segment(config, &header, elf, err))
            return false;
        if (header.type == PT_NOTE && elf->note_count < BOOT_ELF_NOTES_MAX)
            elf->note[elf->note_count++] = (struct boot_elf_note){header.offset, header.file_bytes};
    }
    return true;
}

bool boot_elf_load(const struct boot_config *config, const struct boot_elf *elf, struct ram *ram,
                   struct error *err)
{
    for (unsigned i = 0; i < elf->count; i++) {
        const struct boot_elf_segment *segment = &elf->segment[i];
        if (!boot_file_load(config->kernel, segment->offset, segment->file_bytes, ram, segment->gpa,
                            err))
            return false;
    }
    return true;
}
