/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Boots an ELF kernel through its PVH entry (Xen's docs/misc/pvh.pandoc and
 * public/arch-x86/hvm/start_info.h): 32-bit protected mode, no paging, ebx at the start info.
 * Takes ELF64 for x86-64 with a note XEN_ELFNOTE_PHYS32_ENTRY in a PT_NOTE segment. Left out:
 * compressed files, relocation. Runs on the machine's thread, while no vCPU runs.
 */
#include "machine/boot_elf.h"
#include "machine/boot_internal.h"
#include "machine/bytes.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

enum {
    NOTES_MAX_BYTES = 8192, /* what lies beyond is not looked at */
    NOTE_PHYS32_ENTRY = 18,
    START_INFO_VERSION = 1,
    MODULE_AT = 64,  /* behind the start info's 56 bytes */
    MEMMAP_AT = 128, /* behind one module's 32 bytes */
    MEMMAP_ENTRY_BYTES = 24,
    CMDLINE_MAX_BYTES = 2047, /* Linux' COMMAND_LINE_SIZE on x86 */
};
#define START_INFO_MAGIC UINT32_C(0x336ec578)

struct pvh_image {
    struct boot_elf elf;
    uint64_t entry;
    bool has_entry;
    struct boot_initrd initrd;
};

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

static bool read_notes(const struct boot_config *config, struct pvh_image *image, struct error *err)
{
    uint8_t notes[NOTES_MAX_BYTES];
    for (unsigned i = 0; i < image->elf.note_count && !image->has_entry; i++) {
        const struct boot_elf_note *note = &image->elf.note[i];
        size_t size_bytes = note->size_bytes < sizeof(notes) ? note->size_bytes : sizeof(notes);
        if (!boot_file_read(config->kernel, note->offset, notes, size_bytes, err))
            return false;
        find_entry(notes, size_bytes, image);
    }
    return true;
}

bool pvh_has_entry(const struct boot_config *config)
{
    struct pvh_image image = {0};
    return boot_elf_is(config->kernel) && boot_elf_read(config, &image.elf, NULL) &&
           image.elf.is_64 && read_notes(config, &image, NULL) && image.has_entry;
}

static bool read_image(const struct boot_config *config, struct pvh_image *image, struct error *err)
{
    if (!boot_elf_read(config, &image->elf, err))
        return false;
    if (!image->elf.is_64) {
        boot_refuse(config, err, "it is an ELF file for i386 without a Multiboot header");
        return error_hint(err, "a kernel with a PVH entry is to be one for x86-64 (amd64)");
    }
    const struct boot_elf *elf = &image->elf;
    for (unsigned i = 0; i < elf->count; i++)
        if (!boot_kernel_fits(config, elf->segment[i].gpa,
                              elf->segment[i].gpa + elf->segment[i].memory_bytes, err))
            return false;
    if (!read_notes(config, image, err))
        return false;
    if (!image->has_entry) {
        boot_refuse(config, err,
                    "it is an ELF file without a PVH entry point and without a Multiboot header");
        return error_hint(err, "use the bzImage (vmlinuz), or a kernel built with CONFIG_PVH");
    }
    if (!elf->count || image->entry < elf->gpa || image->entry >= elf->end_gpa)
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

bool pvh_load(const struct boot_config *config, struct ram *ram, struct x86_state *bsp,
              struct error *err)
{
    enum { CR0_PE = 1 << 0, CR0_ET = 1 << 4 };
    struct pvh_image image = {0};
    if (!read_image(config, &image, err) ||
        !boot_initrd_place(config, image.elf.gpa, image.elf.end_gpa, RAM_LOW_MAX_BYTES,
                           &image.initrd, err) ||
        !boot_cmdline_check(config, CMDLINE_MAX_BYTES, err))
        return false;
    if (!boot_elf_load(config, &image.elf, ram, err) ||
        !boot_initrd_load(config, &image.initrd, ram, err))
        return false;
    boot_put(ram, BOOT_CMDLINE_GPA, config->cmdline, strlen(config->cmdline) + 1);
    put_start_info(config, &image, ram);
    boot_segments(ram, bsp, BOOT_CS32, false);
    bsp->cr0 = CR0_ET | CR0_PE;
    bsp->rip = image.entry;
    bsp->gpr[RBX] = BOOT_PVH_INFO_GPA;
    return true;
}
