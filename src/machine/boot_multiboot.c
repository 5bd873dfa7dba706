/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Boots a Multiboot kernel (Multiboot Specification 0.6.96): an ELF file of 32 or 64 bits, loaded
 * by its physical addresses, or any file whose header has the address fields (3.1.3). A kernel may
 * lie anywhere in usable memory, below 1 MiB too; modules follow it, and the information lies in
 * low memory where the kernel is not. Left out: video modes (what asks for one gets none), boot
 * device, symbols, drives, APM. Runs on the machine's thread, while no vCPU runs.
 */
#include "machine/boot_elf.h"
#include "machine/boot_internal.h"
#include "machine/bytes.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* The header, 3.1.1. */
enum {
    SEARCH_BYTES = 8192,
    HEADER_BYTES = 12,
    HEADER_ADDRESSES_BYTES = 32,
    HEADER_MUST_KNOW = 0xffff,
    HEADER_PAGE_ALIGN = 1 << 0,
    HEADER_MEMORY = 1 << 1,
    HEADER_VIDEO = 1 << 2,
    HEADER_ADDRESSES = 1 << 16,
};
#define HEADER_MAGIC UINT32_C(0x1badb002)
#define ENTRY_MAGIC  UINT32_C(0x2badb002)

/* The information, 3.3. */
enum {
    INFO_FLAGS = 0,
    INFO_MEM_LOWER = 4,
    INFO_MEM_UPPER = 8,
    INFO_CMDLINE = 16,
    INFO_MODS_COUNT = 20,
    INFO_MODS_ADDR = 24,
    INFO_MMAP_LENGTH = 44,
    INFO_MMAP_ADDR = 48,
    INFO_LOADER_NAME = 64,
    INFO_BYTES = 120,
    INFO_HAS_MEMORY = 1 << 0,
    INFO_HAS_CMDLINE = 1 << 2,
    INFO_HAS_MODULES = 1 << 3,
    INFO_HAS_MMAP = 1 << 6,
    INFO_HAS_LOADER_NAME = 1 << 9,
    MODULE_BYTES = 16,
    MMAP_ENTRY_BYTES = 24, /* with its size field, which does not count itself */
};

enum {
    INFO_FIRST_GPA = 0x9000, /* where QEMU's information begins */
    INFO_LOWEST_GPA = 0x1000,
    MODULES_MAX = 64,
};

struct multiboot_image {
    uint64_t header_offset;
    uint32_t header[HEADER_ADDRESSES_BYTES / 4];
    struct boot_elf elf; /* with the address fields: one segment */
    uint64_t entry;
    uint64_t module_gpa[MODULES_MAX];
    uint64_t end_gpa; /* of kernel and modules */
};

static const char loader_name[] = "skep";

static bool find_header(const struct boot_file *file, struct multiboot_image *image)
{
    uint8_t start[SEARCH_BYTES + HEADER_ADDRESSES_BYTES] = {0};
    uint64_t file_bytes = boot_file_size_bytes(file);
    size_t size_bytes = file_bytes < SEARCH_BYTES ? (size_t)file_bytes : SEARCH_BYTES;
    if (!boot_file_read(file, 0, start, size_bytes, NULL))
        return false;
    for (size_t at = 0; at + HEADER_BYTES <= size_bytes; at += 4) {
        uint32_t flags = le32_get(start + at + 4);
        if (le32_get(start + at) != HEADER_MAGIC ||
            HEADER_MAGIC + flags + le32_get(start + at + 8) != 0)
            continue;
        image->header_offset = at;
        for (unsigned i = 0; i < HEADER_ADDRESSES_BYTES / 4; i++)
            image->header[i] = le32_get(start + at + 4 * i);
        return !(flags & HEADER_ADDRESSES) || at + HEADER_ADDRESSES_BYTES <= size_bytes;
    }
    return false;
}

bool multiboot_is(const struct boot_file *file)
{
    struct multiboot_image image;
    return find_header(file, &image);
}

/* 3.1.3: the file from its offset of load_addr on, up to load_end_addr, then zeroes up to
 * bss_end_addr; an end of 0 stands for the file's end, and for no zeroes. */
static bool take_addresses(const struct boot_config *config, struct multiboot_image *image,
                           struct error *err)
{
    uint64_t header_gpa = image->header[3], gpa = image->header[4];
    uint64_t load_end_gpa = image->header[5], bss_end_gpa = image->header[6];
    uint64_t file_bytes = boot_file_size_bytes(config->kernel);
    if (gpa > header_gpa || header_gpa - gpa > image->header_offset)
        return boot_refuse(config, err, "its Multiboot header gives a start before the file's");
    uint64_t offset = image->header_offset - (header_gpa - gpa);
    if (!load_end_gpa)
        load_end_gpa = gpa + (file_bytes - offset);
    if (load_end_gpa <= gpa || load_end_gpa - gpa > file_bytes - offset) {
        boot_refuse(config, err,
                    "the file is truncated: its Multiboot header tells of more than it has");
        return error_hint(err, "copy or download it again");
    }
    if (bss_end_gpa < load_end_gpa)
        bss_end_gpa = load_end_gpa;
    image->elf.segment[0] =
        (struct boot_elf_segment){offset, gpa, gpa, load_end_gpa - gpa, bss_end_gpa - gpa, true};
    image->elf.count = 1;
    image->elf.gpa = gpa;
    image->elf.end_gpa = bss_end_gpa;
    image->entry = image->header[7];
    return true;
}

/* e_entry is a virtual address; that of a segment which is loaded elsewhere moves with it. */
static bool take_elf(const struct boot_config *config, struct multiboot_image *image,
                     struct error *err)
{
    struct boot_elf *elf = &image->elf;
    if (!boot_elf_is(config->kernel))
        return boot_refuse(config, err,
                           "its Multiboot header has no addresses, and it is no ELF file");
    if (!boot_elf_read(config, elf, err))
        return false;
    image->entry = elf->entry;
    for (unsigned i = 0; i < elf->count; i++) {
        const struct boot_elf_segment *segment = &elf->segment[i];
        if (segment->is_executable && elf->entry >= segment->gva &&
            elf->entry - segment->gva < segment->file_bytes) {
            image->entry = segment->gpa + (elf->entry - segment->gva);
            break;
        }
    }
    return true;
}

static bool check_segments(const struct boot_config *config, const struct multiboot_image *image,
                           struct error *err)
{
    bool has_entry = false;
    for (unsigned i = 0; i < image->elf.count; i++) {
        uint64_t gpa = image->elf.segment[i].gpa;
        uint64_t end_gpa = gpa + image->elf.segment[i].memory_bytes;
        if (gpa >= BOOT_KERNEL_MIN_GPA && !boot_kernel_fits(config, gpa, end_gpa, err))
            return false;
        if (memory_map_usable_end(config->map, gpa) < end_gpa)
            return boot_refuse(config, err,
                               "it wants to be loaded at 0x%" PRIx64 " to 0x%" PRIx64
                               ", which is no usable memory",
                               gpa, end_gpa);
        has_entry |= image->entry >= gpa && image->entry < end_gpa;
    }
    if (has_entry)
        return true;
    return boot_refuse(config, err, "its entry point 0x%" PRIx64 " is in no segment", image->entry);
}

static bool read_image(const struct boot_config *config, struct multiboot_image *image,
                       struct error *err)
{
    if (!find_header(config->kernel, image))
        return boot_refuse(config, err, "it was changed while it was read");
    uint32_t flags = image->header[1];
    uint32_t unknown =
        flags & HEADER_MUST_KNOW & ~(HEADER_PAGE_ALIGN | HEADER_MEMORY | HEADER_VIDEO);
    if (unknown)
        return boot_refuse(
            config, err, "its Multiboot header wants what is not known here (flags 0x%" PRIx32 ")",
            unknown);
    if (!(flags & HEADER_ADDRESSES ? take_addresses(config, image, err)
                                   : take_elf(config, image, err)))
        return false;
    return check_segments(config, image, err);
}

/* Each on a page of its own, above 1 MiB. */
static bool place_modules(const struct boot_config *config, struct multiboot_image *image,
                          struct error *err)
{
    uint64_t top_gpa = memory_map_usable_end(config->map, BOOT_KERNEL_MIN_GPA);
    uint64_t gpa = image->elf.end_gpa > BOOT_KERNEL_MIN_GPA ? image->elf.end_gpa
                                                            : (uint64_t)BOOT_KERNEL_MIN_GPA;
    uint64_t first_gpa = gpa, size_bytes = 0;
    image->end_gpa = gpa;
    if (config->initrd_count > MODULES_MAX)
        return boot_refuse(config, err, "there are more than %d modules", MODULES_MAX);
    for (unsigned i = 0; i < config->initrd_count; i++) {
        uint64_t file_bytes = boot_file_size_bytes(config->initrds[i]);
        gpa = (gpa + RAM_PAGE_BYTES - 1) & ~(RAM_PAGE_BYTES - 1);
        size_bytes += file_bytes;
        if (gpa > top_gpa || file_bytes > top_gpa - gpa)
            return boot_initrd_refuse(config, size_bytes, first_gpa, top_gpa, err);
        image->module_gpa[i] = gpa;
        gpa += file_bytes;
        image->end_gpa = gpa;
    }
    return true;
}

static bool is_free(const struct multiboot_image *image, uint64_t gpa, uint64_t size_bytes)
{
    for (unsigned i = 0; i < image->elf.count; i++) {
        const struct boot_elf_segment *segment = &image->elf.segment[i];
        if (gpa < segment->gpa + segment->memory_bytes && segment->gpa < gpa + size_bytes)
            return false;
    }
    return true;
}

/* A place for the information: in low memory, or else behind the modules. */
static bool place_info(const struct boot_config *config, const struct multiboot_image *image,
                       uint64_t size_bytes, uint64_t *gpa, struct error *err)
{
    uint64_t low_end = memory_map_usable_end(config->map, 0);
    for (*gpa = INFO_FIRST_GPA; *gpa + size_bytes <= low_end; *gpa += RAM_PAGE_BYTES)
        if (is_free(image, *gpa, size_bytes))
            return true;
    for (*gpa = INFO_LOWEST_GPA; *gpa < INFO_FIRST_GPA; *gpa += RAM_PAGE_BYTES)
        if (is_free(image, *gpa, size_bytes))
            return true;
    *gpa = (image->end_gpa + RAM_PAGE_BYTES - 1) & ~(RAM_PAGE_BYTES - 1);
    if (*gpa + size_bytes <= memory_map_usable_end(config->map, BOOT_KERNEL_MIN_GPA))
        return true;
    return boot_refuse(config, err, "no memory is left for what it is to be told");
}

/* Puts a string behind what is there; gives its address. */
static uint32_t put_string(struct bytes *info, uint64_t gpa, const char *first, const char *second)
{
    size_t at = info->size_bytes;
    bytes_put(info, first, strlen(first));
    if (second && *second) {
        bytes_u8(info, ' ');
        bytes_put(info, second, strlen(second));
    }
    bytes_u8(info, 0);
    return (uint32_t)(gpa + at);
}

static void put_modules(const struct boot_config *config, const struct multiboot_image *image,
                        uint64_t gpa, struct bytes *info)
{
    size_t table_at = info->size_bytes;
    bytes_set_u32(info, INFO_MODS_COUNT, config->initrd_count);
    bytes_set_u32(info, INFO_MODS_ADDR, (uint32_t)(gpa + table_at));
    bytes_zero(info, (size_t)MODULE_BYTES * config->initrd_count);
    for (unsigned i = 0; i < config->initrd_count; i++) {
        const struct boot_file *file = config->initrds[i];
        size_t at = table_at + (size_t)MODULE_BYTES * i;
        const char *text = config->module_texts ? config->module_texts[i] : boot_file_path(file);
        bytes_set_u32(info, at, (uint32_t)image->module_gpa[i]);
        bytes_set_u32(info, at + 4, (uint32_t)(image->module_gpa[i] + boot_file_size_bytes(file)));
        bytes_set_u32(info, at + 8, put_string(info, gpa, text, NULL));
    }
    bytes_align(info, 4);
}

static void put_map(const struct memory_map *map, uint64_t gpa, struct bytes *info)
{
    bytes_set_u32(info, INFO_MMAP_ADDR, (uint32_t)(gpa + info->size_bytes));
    bytes_set_u32(info, INFO_MMAP_LENGTH, MMAP_ENTRY_BYTES * map->count);
    for (unsigned i = 0; i < map->count; i++) {
        bytes_u32(info, MMAP_ENTRY_BYTES - 4);
        bytes_u64(info, map->range[i].gpa);
        bytes_u64(info, map->range[i].size_bytes);
        bytes_u32(info, map->range[i].kind);
    }
    bytes_set_u32(info, INFO_MEM_LOWER, (uint32_t)(memory_map_usable_end(map, 0) >> 10));
    uint64_t upper_end = memory_map_usable_end(map, BOOT_KERNEL_MIN_GPA);
    bytes_set_u32(info, INFO_MEM_UPPER, (uint32_t)((upper_end - BOOT_KERNEL_MIN_GPA) >> 10));
}

/* For an information at `gpa`. The kernel's own path is the first word of its command line, as
 * GRUB and QEMU do. */
static void compose(const struct boot_config *config, const struct multiboot_image *image,
                    uint64_t gpa, struct bytes *info)
{
    bytes_zero(info, INFO_BYTES);
    bytes_set_u32(info, INFO_FLAGS,
                  INFO_HAS_MEMORY | INFO_HAS_CMDLINE | INFO_HAS_MODULES | INFO_HAS_MMAP |
                      INFO_HAS_LOADER_NAME);
    put_modules(config, image, gpa, info);
    put_map(config->map, gpa, info);
    bytes_set_u32(info, INFO_LOADER_NAME, put_string(info, gpa, loader_name, NULL));
    bytes_set_u32(info, INFO_CMDLINE,
                  put_string(info, gpa, boot_file_path(config->kernel), config->cmdline));
}

static bool make_info(const struct boot_config *config, const struct multiboot_image *image,
                      uint64_t *gpa, struct bytes *info, struct error *err)
{
    struct bytes draft = {0};
    compose(config, image, 0, &draft);
    bool ok =
        draft.failed || place_info(config, image, draft.size_bytes, gpa, err); /* its size is all */
    bool failed = draft.failed;
    bytes_free(&draft);
    if (!ok)
        return false;
    if (!failed)
        compose(config, image, *gpa, info);
    if (failed || info->failed)
        return error_errno(err, "cannot boot kernel", boot_file_path(config->kernel), ENOMEM);
    return true;
}

static bool load_modules(const struct boot_config *config, const struct multiboot_image *image,
                         struct ram *ram, struct error *err)
{
    for (unsigned i = 0; i < config->initrd_count; i++)
        if (!boot_file_load(config->initrds[i], 0, boot_file_size_bytes(config->initrds[i]), ram,
                            image->module_gpa[i], err))
            return false;
    return true;
}

/* What a BIOS leaves in its data area: how much memory there is below its extended data area, and
 * that there is none. Kernels that start processors take their room below from here (Xen). */
static void put_bios_data(const struct memory_map *map, struct ram *ram)
{
    enum { BASE_MEMORY_GPA = 0x413 };
    uint8_t size_kib[2];
    le16_put(size_kib, (uint16_t)(memory_map_usable_end(map, 0) >> 10));
    boot_put(ram, BASE_MEMORY_GPA, size_kib, sizeof(size_kib));
}

/* 3.2. The descriptor table may lie where the kernel does: it is not to rely on it. The interrupt
 * table is as a BIOS leaves it: who goes to real mode finds the vectors there that it has put. */
static void enter(const struct multiboot_image *image, uint64_t info_gpa, struct x86_state *bsp)
{
    enum { CR0_PE = 1 << 0, CR0_ET = 1 << 4, REAL_VECTORS_LIMIT = 0x3ff };
    bsp->cr0 = CR0_ET | CR0_PE;
    bsp->idtr = (struct x86_table){0, REAL_VECTORS_LIMIT};
    bsp->rip = image->entry;
    bsp->gpr[RAX] = ENTRY_MAGIC;
    bsp->gpr[RBX] = info_gpa;
}

bool multiboot_load(const struct boot_config *config, struct ram *ram, struct x86_state *bsp,
                    struct error *err)
{
    struct multiboot_image image = {0};
    struct bytes info = {0};
    uint64_t info_gpa = 0;
    bool ok = read_image(config, &image, err) && place_modules(config, &image, err) &&
              boot_cmdline_check(config, BOOT_CMDLINE_MAX_BYTES - 1, err) &&
              make_info(config, &image, &info_gpa, &info, err);
    if (ok) {
        put_bios_data(config->map, ram);
        boot_segments(ram, bsp, BOOT_CS32, false);
    }
    ok =
        ok && boot_elf_load(config, &image.elf, ram, err) && load_modules(config, &image, ram, err);
    if (ok) {
        boot_put(ram, info_gpa, info.data, info.size_bytes);
        enter(&image, info_gpa, bsp);
    }
    bytes_free(&info);
    return ok;
}
