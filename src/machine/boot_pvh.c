/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Boots an ELF kernel through its PVH entry (Xen's docs/misc/pvh.pandoc and
 * public/arch-x86/hvm/start_info.h): 32-bit protected mode, no paging, ebx at the start info.
 * Takes ELF64 for x86-64 with a note XEN_ELFNOTE_PHYS32_ENTRY in a PT_NOTE segment. Left out:
 * compressed files, relocation. Runs on the machine's thread, while no vCPU runs.
 */
#include "machine/boot_internal.h"
#include "machine/bytes.h"

#include <assert.h>
#include <elf.h>
#include <inttypes.h>
#include <string.h>

enum {
    SEGMENTS_MAX = 64,
    NOTES_MAX_BYTES = 8192, /* what lies beyond is not looked at */
    NOTE_PHYS32_ENTRY = 18,
    START_INFO_VERSION = 1,
    MODULE_AT = 64,  /* behind the start info's 56 bytes */
    MEMMAP_AT = 128, /* behind one module's 32 bytes */
    MEMMAP_ENTRY_BYTES = 24,
    CMDLINE_MAX_BYTES = 2047, /* Linux' COMMAND_LINE_SIZE on x86 */
};
#define START_INFO_MAGIC UINT32_C(0x336ec578)

struct pvh_segment {
    uint64_t offset, gpa, file_bytes, memory_bytes;
};

struct pvh_image {
    unsigned count;
    struct pvh_segment segment[SEGMENTS_MAX];
    uint64_t gpa, end_gpa;
    uint64_t entry;
    bool has_entry;
    struct boot_initrd initrd;
};

bool pvh_is(const struct boot_file *file)
{
    uint8_t start[SELFMAG];
    return boot_file_size_bytes(file) >= sizeof(start) &&
           boot_file_read(file, 0, start, sizeof(start), NULL) && !memcmp(start, ELFMAG, SELFMAG);
}

/* Notes are {name size, descriptor size, type, name, descriptor}, each part padded to 4 bytes. */
static void find_entry(const uint8_t *notes, size_t size_bytes, struct pvh_image *image)
{
    size_t at = 0;
    while (size_bytes - at >= 12) {
        uint32_t name_bytes = le32_get(notes + at);
        uint32_t value_bytes = le32_get(notes + at + 4);
        uint32_t type = le32_get(notes + at + 8);
        uint64_t name_at = at + 12;
        uint64_t value_at = name_at + (((uint64_t)name_bytes + 3) & ~UINT64_C(3));
        uint64_t next_at = value_at + (((uint64_t)value_bytes + 3) & ~UINT64_C(3));
        if (value_at + value_bytes > size_bytes)
            return;
        if (type == NOTE_PHYS32_ENTRY && name_bytes == 4 && !memcmp(notes + name_at, "Xen", 4) &&
            (value_bytes == 4 || value_bytes == 8)) {
            image->entry =
                value_bytes == 4 ? le32_get(notes + value_at) : le64_get(notes + value_at);
            image->has_entry = true;
            return;
        }
        if (next_at > size_bytes)
            return;
        at = (size_t)next_at;
    }
}

static bool take_notes(const struct boot_config *config, const Elf64_Phdr *header,
                       struct pvh_image *image, struct error *err)
{
    uint8_t notes[NOTES_MAX_BYTES];
    if (image->has_entry)
        return true;
    size_t size_bytes = header->p_filesz < sizeof(notes) ? header->p_filesz : sizeof(notes);
    if (!boot_file_read(config->kernel, header->p_offset, notes, size_bytes, err))
        return false;
    find_entry(notes, size_bytes, image);
    return true;
}

static bool take_segment(const struct boot_config *config, const Elf64_Phdr *header,
                         struct pvh_image *image, struct error *err)
{
    uint64_t file_bytes = boot_file_size_bytes(config->kernel);
    if (!header->p_memsz)
        return true;
    if (image->count == SEGMENTS_MAX)
        return boot_refuse(config, err, "it has more than %d segments", SEGMENTS_MAX);
    if (header->p_offset > file_bytes || header->p_filesz > file_bytes - header->p_offset) {
        boot_refuse(config, err, "the file is truncated: a segment lies past its end");
        return error_hint(err, "copy or download it again");
    }
    if (header->p_filesz > header->p_memsz || header->p_paddr > UINT64_MAX - header->p_memsz)
        return boot_refuse(config, err, "a segment of it has a size that makes no sense");
    uint64_t end_gpa = header->p_paddr + header->p_memsz;
    if (!boot_kernel_fits(config, header->p_paddr, end_gpa, err))
        return false;
    if (!image->count || header->p_paddr < image->gpa)
        image->gpa = header->p_paddr;
    if (end_gpa > image->end_gpa)
        image->end_gpa = end_gpa;
    image->segment[image->count++] =
        (struct pvh_segment){header->p_offset, header->p_paddr, header->p_filesz, header->p_memsz};
    return true;
}

static bool check_elf(const struct boot_config *config, Elf64_Ehdr *elf, struct error *err)
{
    if (boot_file_size_bytes(config->kernel) < sizeof(*elf))
        return boot_refuse(config, err, "the file is truncated: it ends within its ELF header");
    if (!boot_file_read(config->kernel, 0, elf, sizeof(*elf), err))
        return false;
    if (elf->e_ident[EI_CLASS] != ELFCLASS64 || elf->e_ident[EI_DATA] != ELFDATA2LSB ||
        elf->e_machine != EM_X86_64) {
        boot_refuse(config, err, "it is an ELF file, but not one for x86-64");
        return error_hint(err, "an x86-64 (amd64) kernel is needed");
    }
    if (elf->e_phentsize != sizeof(Elf64_Phdr) || !elf->e_phnum || elf->e_phnum == PN_XNUM)
        return boot_refuse(config, err, "it is an ELF file without segments to load");
    return true;
}

static bool read_elf(const struct boot_config *config, struct pvh_image *image, struct error *err)
{
    Elf64_Ehdr elf;
    if (!check_elf(config, &elf, err))
        return false;
    for (unsigned i = 0; i < elf.e_phnum; i++) {
        Elf64_Phdr header;
        uint64_t offset;
        if (__builtin_add_overflow(elf.e_phoff, (uint64_t)i * sizeof(header), &offset))
            return boot_refuse(config, err, "its table of segments lies past the end of the file");
        if (!boot_file_read(config->kernel, offset, &header, sizeof(header), err))
            return false;
        if (header.p_type == PT_LOAD && !take_segment(config, &header, image, err))
            return false;
        if (header.p_type == PT_NOTE && !take_notes(config, &header, image, err))
            return false;
    }
    if (!image->has_entry) {
        boot_refuse(config, err, "it is an ELF file without a PVH entry point");
        return error_hint(err, "use the bzImage (vmlinuz), or a kernel built with CONFIG_PVH");
    }
    if (!image->count || image->entry < image->gpa || image->entry >= image->end_gpa)
        return boot_refuse(config, err, "its entry point 0x%" PRIx64 " is in no segment",
                           image->entry);
    return true;
}

static void put_start_info(const struct boot_config *config, const struct pvh_image *image,
                           struct ram *ram)
{
    uint8_t page[MEMMAP_AT + MEMORY_MAP_MAX * MEMMAP_ENTRY_BYTES] = {0};
    le32_put(page, START_INFO_MAGIC);
    le32_put(page + 4, START_INFO_VERSION);
    if (image->initrd.size_bytes) {
        le32_put(page + 12, 1);
        le64_put(page + 16, BOOT_PVH_INFO_GPA + MODULE_AT);
        le64_put(page + MODULE_AT, image->initrd.gpa);
        le64_put(page + MODULE_AT + 8, image->initrd.size_bytes);
    }
    le64_put(page + 24, BOOT_CMDLINE_GPA);
    le64_put(page + 32, config->rsdp_gpa);
    le64_put(page + 40, BOOT_PVH_INFO_GPA + MEMMAP_AT);
    le32_put(page + 48, config->map->count);
    for (unsigned i = 0; i < config->map->count; i++) {
        uint8_t *entry = page + MEMMAP_AT + i * MEMMAP_ENTRY_BYTES;
        le64_put(entry, config->map->range[i].gpa);
        le64_put(entry + 8, config->map->range[i].size_bytes);
        le32_put(entry + 16, config->map->range[i].kind);
    }
    boot_put(ram, BOOT_PVH_INFO_GPA, page, sizeof(page));
}

static bool load_segments(const struct boot_config *config, const struct pvh_image *image,
                          struct ram *ram, struct error *err)
{
    for (unsigned i = 0; i < image->count; i++) {
        const struct pvh_segment *segment = &image->segment[i];
        if (!boot_file_load(config->kernel, segment->offset, segment->file_bytes, ram, segment->gpa,
                            err))
            return false;
    }
    return true;
}

bool pvh_load(const struct boot_config *config, struct ram *ram, struct x86_state *bsp,
              struct error *err)
{
    enum { CR0_PE = 1 << 0, CR0_ET = 1 << 4 };
    struct pvh_image image = {0};
    if (!read_elf(config, &image, err) ||
        !boot_initrd_place(config, image.gpa, image.end_gpa, RAM_LOW_MAX_BYTES, &image.initrd,
                           err) ||
        !boot_cmdline_check(config, CMDLINE_MAX_BYTES, err))
        return false;
    if (!load_segments(config, &image, ram, err) ||
        !boot_initrd_load(config, &image.initrd, ram, err))
        return false;
    boot_put(ram, BOOT_CMDLINE_GPA, config->cmdline, strlen(config->cmdline) + 1);
    put_start_info(config, &image, ram);
    boot_segments(ram, bsp, BOOT_CS32);
    bsp->cr0 = CR0_ET | CR0_PE;
    bsp->rip = image.entry;
    bsp->gpr[RBX] = BOOT_PVH_INFO_GPA;
    return true;
}
