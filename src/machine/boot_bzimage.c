/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Boots a bzImage through its 64-bit entry, or a 32-bit kernel's through its only one (Linux'
 * Documentation/arch/x86/boot.rst, "64-bit Boot Protocol" and "32-bit Boot Protocol";
 * zero-page.rst). The real-mode part of the kernel is not run: what it would find out is written
 * into the zero page. Left out: zImage, EFI handover.
 * Runs on the machine's thread, while no vCPU runs.
 */
#include "machine/boot_internal.h"
#include "machine/bytes.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* The setup header, which is at the same place in the file and in the zero page. */
enum {
    HDR_SETUP_SECTS = 0x1f1,
    HDR_SYSSIZE = 0x1f4,
    HDR_VID_MODE = 0x1fa,
    HDR_BOOT_FLAG = 0x1fe,
    HDR_JUMP_DISTANCE = 0x201,
    HDR_MAGIC = 0x202,
    HDR_VERSION = 0x206,
    HDR_TYPE_OF_LOADER = 0x210,
    HDR_LOADFLAGS = 0x211,
    HDR_CODE32_START = 0x214,
    HDR_RAMDISK_IMAGE = 0x218,
    HDR_RAMDISK_SIZE = 0x21c,
    HDR_HEAP_END_PTR = 0x224,
    HDR_CMD_LINE_PTR = 0x228,
    HDR_INITRD_ADDR_MAX = 0x22c,
    HDR_XLOADFLAGS = 0x236,
    HDR_CMDLINE_SIZE = 0x238,
    HDR_SETUP_DATA = 0x250,
    HDR_PREF_ADDRESS = 0x258,
    HDR_INIT_SIZE = 0x260,
    HDR_END_MIN = 0x264, /* what protocol 2.10 has */
    HDR_END_MAX = 0x290, /* the zero page goes on with other things */
};

/* The rest of the zero page. */
enum {
    ZERO_ACPI_RSDP = 0x70,
    ZERO_E820_ENTRIES = 0x1e8,
    ZERO_E820_TABLE = 0x2d0,
    ZERO_E820_ENTRY_BYTES = 20,
    ZERO_PAGE_BYTES = 4096,
};

enum {
    SECTOR_BYTES = 512,
    BOOT_FLAG = 0xaa55,
    LOADED_HIGH = 1 << 0,
    CAN_USE_HEAP = 1 << 7,
    HEAP_OFFSET = 0x200, /* heap_end_ptr counts from here */
    XLF_KERNEL_64 = 1 << 0,
    LOADER_UNDEFINED = 0xff,
    VID_MODE_NORMAL = 0xffff,
    ENTRY_64_OFFSET = 0x200,
    PROTOCOL_2_10 = 0x20a,
    PROTOCOL_2_12 = 0x20c,
    PROTOCOL_2_14 = 0x20e,
    SETUP_RNG_SEED = 9,
    SEED_BYTES = 32,
};

struct bzimage {
    uint8_t header[HDR_END_MAX]; /* the file's first bytes */
    size_t header_end;
    unsigned version;
    uint64_t payload_offset; /* the protected-mode kernel in the file */
    uint64_t payload_bytes;
    uint64_t gpa;
    bool is_64bit;
    uint64_t end_gpa; /* of what it uses before it reads the memory map */
    struct boot_initrd initrd;
};

bool bzimage_is(const struct boot_file *file)
{
    uint8_t start[HDR_VERSION];
    if (boot_file_size_bytes(file) < sizeof(start) ||
        !boot_file_read(file, 0, start, sizeof(start), NULL))
        return false;
    return le16_get(start + HDR_BOOT_FLAG) == BOOT_FLAG && !memcmp(start + HDR_MAGIC, "HdrS", 4);
}

static uint64_t setup_bytes(unsigned setup_sectors)
{
    if (!setup_sectors)
        setup_sectors = 4; /* what 0 has always meant */
    return (uint64_t)(setup_sectors + 1) * SECTOR_BYTES;
}

uint64_t bzimage_setup_bytes(const struct boot_file *file)
{
    uint8_t sectors = 0;
    boot_file_read(file, HDR_SETUP_SECTS, &sectors, 1, NULL);
    return setup_bytes(sectors);
}

uint64_t bzimage_fill_setup(const struct boot_config *config, uint8_t *setup, uint32_t setup_gpa,
                            uint32_t cmdline_gpa)
{
    uint64_t size_bytes = boot_initrd_size_bytes(config);
    uint64_t top_gpa = memory_map_usable_end(config->map, BOOT_KERNEL_MIN_GPA);
    uint64_t limit_gpa = (uint64_t)le32_get(setup + HDR_INITRD_ADDR_MAX) + 1;
    if (top_gpa > limit_gpa)
        top_gpa = limit_gpa;
    uint64_t gpa = size_bytes < top_gpa ? (top_gpa - size_bytes) & ~(RAM_PAGE_BYTES - 1) : 0;
    setup[HDR_TYPE_OF_LOADER] = LOADER_UNDEFINED;
    setup[HDR_LOADFLAGS] |= CAN_USE_HEAP;
    le16_put(setup + HDR_HEAP_END_PTR, (uint16_t)(cmdline_gpa - setup_gpa - HEAP_OFFSET));
    le32_put(setup + HDR_CMD_LINE_PTR, cmdline_gpa);
    le32_put(setup + HDR_RAMDISK_IMAGE, size_bytes ? (uint32_t)gpa : 0);
    le32_put(setup + HDR_RAMDISK_SIZE, (uint32_t)size_bytes);
    return size_bytes ? gpa : 0;
}

static bool refuse_truncated(const struct boot_config *config, uint64_t wanted_bytes,
                             struct error *err)
{
    boot_refuse(config, err,
                "the file is truncated: its header tells of %" PRIu64 " bytes, it has %" PRIu64,
                wanted_bytes, boot_file_size_bytes(config->kernel));
    return error_hint(err, "copy or download it again");
}

static bool check_protocol(const struct boot_config *config, struct bzimage *image,
                           struct error *err)
{
    const uint8_t *header = image->header;
    image->version = le16_get(header + HDR_VERSION);
    if (image->version < PROTOCOL_2_10) {
        boot_refuse(config, err, "its boot protocol %u.%02u is too old", image->version >> 8,
                    image->version & 0xff);
        return error_hint(err, "Linux 2.6.31 or later is needed");
    }
    if (!(header[HDR_LOADFLAGS] & LOADED_HIGH))
        return boot_refuse(config, err, "it is a zImage, which loads below 640 KiB");
    image->is_64bit =
        image->version >= PROTOCOL_2_12 && (le16_get(header + HDR_XLOADFLAGS) & XLF_KERNEL_64);
    return true;
}

static bool read_header(const struct boot_config *config, struct bzimage *image, struct error *err)
{
    uint64_t file_bytes = boot_file_size_bytes(config->kernel);
    if (file_bytes < HDR_END_MAX)
        return refuse_truncated(config, HDR_END_MAX, err);
    if (!boot_file_read(config->kernel, 0, image->header, HDR_END_MAX, err) ||
        !check_protocol(config, image, err))
        return false;
    image->header_end = HDR_MAGIC + image->header[HDR_JUMP_DISTANCE];
    if (image->header_end > HDR_END_MAX)
        image->header_end = HDR_END_MAX;
    if (image->header_end < HDR_END_MIN)
        return boot_refuse(config, err, "its setup header is too short for its version");

    image->payload_offset = setup_bytes(image->header[HDR_SETUP_SECTS]);
    image->payload_bytes = (uint64_t)le32_get(image->header + HDR_SYSSIZE) * 16;
    if (image->payload_bytes <= ENTRY_64_OFFSET)
        return boot_refuse(config, err, "its header tells of no code");
    uint64_t end = image->payload_offset + image->payload_bytes;
    /* The size is in units of 16 bytes: the last one may be incomplete. */
    if (file_bytes + 15 < end)
        return refuse_truncated(config, end, err);
    if (file_bytes < end)
        image->payload_bytes = file_bytes - image->payload_offset;
    return true;
}

static bool place(const struct boot_config *config, struct bzimage *image, struct error *err)
{
    const uint8_t *header = image->header;
    uint64_t span_bytes = le32_get(header + HDR_INIT_SIZE);
    if (span_bytes < image->payload_bytes)
        span_bytes = image->payload_bytes;
    /* A relocatable kernel loaded below its preferred address moves itself up to it, so nothing
     * is gained by another place. */
    image->gpa = le64_get(header + HDR_PREF_ADDRESS);
    uint64_t last_gpa = image->is_64bit ? UINT64_MAX : UINT32_MAX;
    if (image->gpa > last_gpa || image->gpa > UINT64_MAX - span_bytes ||
        (image->gpa & (RAM_PAGE_BYTES - 1)))
        return boot_refuse(config, err, "its preferred address 0x%" PRIx64 " makes no sense",
                           image->gpa);
    image->end_gpa = image->gpa + span_bytes;
    if (!boot_kernel_fits(config, image->gpa, image->end_gpa, err))
        return false;
    uint64_t initrd_limit = (uint64_t)le32_get(header + HDR_INITRD_ADDR_MAX) + 1;
    return boot_initrd_place(config, image->gpa, image->end_gpa, initrd_limit, &image->initrd, err);
}

/* Entropy, so that the guest's first random numbers don't wait (struct setup_data). */
static bool put_setup_data(struct ram *ram)
{
    uint8_t data[16 + SEED_BYTES] = {0};
    if (getrandom(data + 16, SEED_BYTES, 0) != SEED_BYTES)
        return false;
    le32_put(data + 8, SETUP_RNG_SEED);
    le32_put(data + 12, SEED_BYTES);
    boot_put(ram, BOOT_SETUP_DATA_GPA, data, sizeof(data));
    return true;
}

static void put_zero_page(const struct boot_config *config, const struct bzimage *image,
                          struct ram *ram)
{
    uint8_t page[ZERO_PAGE_BYTES] = {0};
    memcpy(page + HDR_SETUP_SECTS, image->header + HDR_SETUP_SECTS,
           image->header_end - HDR_SETUP_SECTS);
    page[HDR_TYPE_OF_LOADER] = LOADER_UNDEFINED;
    le16_put(page + HDR_VID_MODE, VID_MODE_NORMAL);
    le32_put(page + HDR_CODE32_START, (uint32_t)image->gpa);
    le32_put(page + HDR_RAMDISK_IMAGE, (uint32_t)image->initrd.gpa);
    le32_put(page + HDR_RAMDISK_SIZE, (uint32_t)image->initrd.size_bytes);
    le32_put(page + HDR_CMD_LINE_PTR, BOOT_CMDLINE_GPA);
    le64_put(page + HDR_SETUP_DATA, put_setup_data(ram) ? BOOT_SETUP_DATA_GPA : 0);
    if (image->version >= PROTOCOL_2_14)
        le64_put(page + ZERO_ACPI_RSDP, config->rsdp_gpa);
    page[ZERO_E820_ENTRIES] = (uint8_t)config->map->count;
    for (unsigned i = 0; i < config->map->count; i++) {
        const struct memory_range *range = &config->map->range[i];
        uint8_t *entry = page + ZERO_E820_TABLE + i * ZERO_E820_ENTRY_BYTES;
        le64_put(entry, range->gpa);
        le64_put(entry + 8, range->size_bytes);
        le32_put(entry + 16, range->kind);
    }
    boot_put(ram, BOOT_PARAMS_GPA, page, sizeof(page));
}

/* The first 4 GiB at their own addresses, in pages of 2 MiB. */
static void put_page_tables(struct ram *ram)
{
    enum { PRESENT_WRITABLE = 0x3, LARGE = 0x80, DIRECTORIES = 4, ENTRIES = 512 };
    const uint64_t page_bytes = RAM_PAGE_BYTES;
    uint8_t entry[8];
    le64_put(entry, (BOOT_PAGE_TABLES_GPA + page_bytes) | PRESENT_WRITABLE);
    boot_put(ram, BOOT_PAGE_TABLES_GPA, entry, sizeof(entry));
    for (unsigned i = 0; i < DIRECTORIES; i++) {
        uint64_t directory_gpa = BOOT_PAGE_TABLES_GPA + (2 + i) * page_bytes;
        uint8_t directory[ENTRIES * 8];
        for (unsigned j = 0; j < ENTRIES; j++)
            le64_put(directory + j * 8,
                     ((uint64_t)i * ENTRIES + j) << 21 | LARGE | PRESENT_WRITABLE);
        boot_put(ram, directory_gpa, directory, sizeof(directory));
        le64_put(entry, directory_gpa | PRESENT_WRITABLE);
        boot_put(ram, BOOT_PAGE_TABLES_GPA + page_bytes + i * 8, entry, sizeof(entry));
    }
}

static void set_processor32(const struct bzimage *image, struct ram *ram, struct x86_state *bsp)
{
    enum { CR0_PE = 1 << 0, CR0_ET = 1 << 4 };
    boot_segments(ram, bsp, BOOT_CS, false);
    bsp->cr0 = CR0_ET | CR0_PE;
    bsp->rip = image->gpa;
    bsp->gpr[RSI] = BOOT_PARAMS_GPA;
}

static void set_processor64(const struct bzimage *image, struct ram *ram, struct x86_state *bsp)
{
    enum { CR0_PE = 1 << 0, CR0_ET = 1 << 4, CR0_NE = 1 << 5, CR4_PAE = 1 << 5 };
    enum { EFER_LME = 1 << 8, EFER_LMA = 1 << 10 };
    const uint64_t cr0_pg = UINT64_C(1) << 31;
    put_page_tables(ram);
    boot_segments(ram, bsp, BOOT_CS, true);
    bsp->cr0 = cr0_pg | CR0_NE | CR0_ET | CR0_PE;
    bsp->cr3 = BOOT_PAGE_TABLES_GPA;
    bsp->cr4 = CR4_PAE;
    bsp->efer = EFER_LMA | EFER_LME;
    bsp->rip = image->gpa + ENTRY_64_OFFSET;
    bsp->gpr[RSI] = BOOT_PARAMS_GPA;
}

bool bzimage_load(const struct boot_config *config, struct ram *ram, struct x86_state *bsp,
                  struct error *err)
{
    struct bzimage image = {0};
    if (!read_header(config, &image, err) || !place(config, &image, err) ||
        !boot_cmdline_check(config, le32_get(image.header + HDR_CMDLINE_SIZE), err))
        return false;
    if (!boot_file_load(config->kernel, image.payload_offset, image.payload_bytes, ram, image.gpa,
                        err) ||
        !boot_initrd_load(config, &image.initrd, ram, err))
        return false;
    boot_put(ram, BOOT_CMDLINE_GPA, config->cmdline, strlen(config->cmdline) + 1);
    put_zero_page(config, &image, ram);
    if (image.is_64bit)
        set_processor64(&image, ram, bsp);
    else
        set_processor32(&image, ram, bsp);
    return true;
}
