/* SPDX-License-Identifier: BSD-2-Clause
 *
 * SMBIOS 3.0 (DMTF DSP0134): the 64-bit entry point (5.2.2) and types 0, 1, 3, 4, 16, 17, 19, 32
 * and 127 (chapter 7). Runs on the machine's thread.
 */
#include "machine/smbios.h"

#include <assert.h>
#include <string.h>

enum {
    ENTRY_BYTES = SMBIOS_ANCHOR_BYTES,
    TABLE_AT = SMBIOS_STRUCTURES_AT,
    CHASSIS = 0x300,
    MEMORY_ARRAY = 0x1000,
    NO_HANDLE = 0xfffe,
};
#define MIB UINT64_C(0x100000)

/* A structure is a formatted part and its strings; their numbers count from 1. */
struct structure {
    struct bytes *out;
    size_t start;
    struct bytes strings;
    unsigned string_count;
};

static struct structure begin(struct bytes *out, uint8_t type, uint16_t handle)
{
    struct structure structure = {.out = out, .start = out->size_bytes};
    bytes_u8(out, type);
    bytes_u8(out, 0); /* length, set by end() */
    bytes_u16(out, handle);
    return structure;
}

static void string(struct structure *structure, const char *text)
{
    bytes_put(&structure->strings, text, strlen(text) + 1);
    bytes_u8(structure->out, (uint8_t)++structure->string_count);
}

static void end(struct structure *structure, size_t wanted_bytes)
{
    struct bytes *out = structure->out;
    size_t length = out->size_bytes - structure->start;
    assert(out->failed || length == wanted_bytes);
    bytes_set_u8(out, structure->start + 1, (uint8_t)length);
    bytes_put(out, structure->strings.data, structure->strings.size_bytes);
    bytes_zero(out, structure->string_count ? 1 : 2);
    out->failed |= structure->strings.failed;
    bytes_free(&structure->strings);
}

static void put_bios(const struct smbios_config *config, struct bytes *out)
{
    enum { NO_CHARACTERISTICS = 1 << 3 };
    enum { EXTENDED_1_ACPI = 1 << 0, EXTENDED_2_VIRTUAL = 1 << 4 };
    struct structure s = begin(out, 0, 0);
    string(&s, "skep");
    string(&s, config->version);
    bytes_u16(out, 0xe000); /* start segment */
    string(&s, "01/01/2026");
    bytes_u8(out, 1); /* ROM size in units of 64 KiB, less one */
    bytes_u64(out, NO_CHARACTERISTICS);
    bytes_u8(out, EXTENDED_1_ACPI);
    bytes_u8(out, EXTENDED_2_VIRTUAL);
    bytes_u8(out, 0);
    bytes_u8(out, 0);
    bytes_u8(out, 0xff); /* no embedded controller */
    bytes_u8(out, 0xff);
    end(&s, 0x18);
}

/* 7.2.1: the first three fields of a UUID are little-endian here. */
static void put_uuid(struct bytes *out, const uint8_t uuid[16])
{
    static const uint8_t order[16] = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};
    for (unsigned i = 0; i < 16; i++)
        bytes_u8(out, uuid[order[i]]);
}

static void put_system(const struct smbios_config *config, struct bytes *out)
{
    enum { WAKE_UP_POWER_SWITCH = 6 };
    struct structure s = begin(out, 1, 0x100);
    string(&s, "skep");
    string(&s, "skep Q35");
    string(&s, config->version);
    bytes_u8(out, 0); /* serial number */
    put_uuid(out, config->uuid);
    bytes_u8(out, WAKE_UP_POWER_SWITCH);
    bytes_u8(out, 0);
    string(&s, "Virtual Machine");
    end(&s, 0x1b);
}

static void put_chassis(struct bytes *out)
{
    enum { OTHER = 1, SAFE = 3, SECURITY_NONE = 3 };
    struct structure s = begin(out, 3, CHASSIS);
    string(&s, "skep");
    bytes_u8(out, OTHER);
    bytes_zero(out, 3); /* version, serial number, asset tag */
    bytes_u8(out, SAFE);
    bytes_u8(out, SAFE);
    bytes_u8(out, SAFE);
    bytes_u8(out, SECURITY_NONE);
    bytes_u32(out, 0);
    bytes_zero(out, 5); /* height, power cords, contained elements, SKU */
    end(&s, 0x16);
}

static uint8_t count_8(unsigned count)
{
    return (uint8_t)(count > 255 ? 255 : count);
}

static void put_processor(const struct smbios_config *config, unsigned socket, struct bytes *out)
{
    enum { CENTRAL = 3, FAMILY_OTHER = 1, ENABLED_POPULATED = 0x41, UPGRADE_OTHER = 1 };
    enum { IS_64_BIT = 1 << 2, MULTI_CORE = 1 << 3, VIRTUALIZATION_NO = 0 };
    unsigned threads = config->cores * config->threads;
    struct structure s = begin(out, 4, (uint16_t)(0x400 + socket));
    string(&s, "CPU");
    bytes_u8(out, CENTRAL);
    bytes_u8(out, FAMILY_OTHER);
    string(&s, "skep");
    bytes_u64(out, 0); /* CPUID tells */
    string(&s, "skep virtual CPU");
    bytes_u8(out, 0); /* voltage */
    bytes_u16(out, 0);
    bytes_u16(out, 0); /* speeds are unknown */
    bytes_u16(out, 0);
    bytes_u8(out, ENABLED_POPULATED);
    bytes_u8(out, UPGRADE_OTHER);
    for (unsigned i = 0; i < 3; i++)
        bytes_u16(out, 0xffff); /* caches aren't told of */
    bytes_zero(out, 3);
    bytes_u8(out, count_8(config->cores));
    bytes_u8(out, count_8(config->cores));
    bytes_u8(out, count_8(threads));
    bytes_u16(out, IS_64_BIT | (config->cores > 1 ? MULTI_CORE : 0) | VIRTUALIZATION_NO);
    bytes_u16(out, FAMILY_OTHER);
    bytes_u16(out, (uint16_t)config->cores);
    bytes_u16(out, (uint16_t)config->cores);
    bytes_u16(out, (uint16_t)threads);
    end(&s, 0x30);
}

static void put_memory_array(uint64_t size_bytes, struct bytes *out)
{
    enum { LOCATION_OTHER = 1, USE_SYSTEM = 3, ECC_MULTI_BIT = 6 };
    struct structure s = begin(out, 16, MEMORY_ARRAY);
    bytes_u8(out, LOCATION_OTHER);
    bytes_u8(out, USE_SYSTEM);
    bytes_u8(out, ECC_MULTI_BIT);
    bytes_u32(out, 0x80000000); /* the size is in the extended field */
    bytes_u16(out, NO_HANDLE);
    bytes_u16(out, 1);
    bytes_u64(out, size_bytes);
    end(&s, 0x17);
}

static void put_memory_device(uint64_t size_bytes, struct bytes *out)
{
    enum { DIMM = 9, TYPE_RAM = 7, DETAIL_OTHER = 1 << 1, EXTENDED = 0x7fff };
    uint64_t size_mib = size_bytes / MIB;
    struct structure s = begin(out, 17, 0x1100);
    bytes_u16(out, MEMORY_ARRAY);
    bytes_u16(out, NO_HANDLE);
    bytes_u16(out, 0xffff); /* widths are unknown */
    bytes_u16(out, 0xffff);
    bytes_u16(out, (uint16_t)(size_mib < EXTENDED ? size_mib : EXTENDED));
    bytes_u8(out, DIMM);
    bytes_u8(out, 0);
    string(&s, "DIMM 0");
    bytes_u8(out, 0);
    bytes_u8(out, TYPE_RAM);
    bytes_u16(out, DETAIL_OTHER);
    bytes_u16(out, 0);
    string(&s, "skep");
    bytes_zero(out, 3); /* serial number, asset tag, part number */
    bytes_u8(out, 0);
    bytes_u32(out, (uint32_t)(size_mib < EXTENDED ? 0 : size_mib));
    bytes_zero(out, 8); /* speed, voltages */
    end(&s, 0x28);
}

static void put_memory_range(unsigned index, uint64_t base, uint64_t size_bytes, struct bytes *out)
{
    if (!size_bytes)
        return;
    uint64_t last = base + size_bytes - 1;
    bool is_large = last / 1024 >= UINT32_MAX;
    struct structure s = begin(out, 19, (uint16_t)(0x1300 + index));
    bytes_u32(out, is_large ? UINT32_MAX : (uint32_t)(base / 1024));
    bytes_u32(out, is_large ? UINT32_MAX : (uint32_t)(last / 1024));
    bytes_u16(out, MEMORY_ARRAY);
    bytes_u8(out, 1); /* partition width */
    bytes_u64(out, is_large ? base : 0);
    bytes_u64(out, is_large ? last : 0);
    end(&s, 0x1f);
}

static void put_boot_status(struct bytes *out)
{
    struct structure s = begin(out, 32, 0x2000);
    bytes_zero(out, 7); /* reserved; no errors */
    end(&s, 0x0b);
}

static void put_end(struct bytes *out)
{
    struct structure s = begin(out, 127, 0x7f00);
    end(&s, 4);
}

static void put_structures(const struct smbios_config *config, struct bytes *out)
{
    put_bios(config, out);
    put_system(config, out);
    put_chassis(out);
    for (unsigned i = 0; i < config->sockets; i++)
        put_processor(config, i, out);
    put_memory_array(config->memory_low_bytes + config->memory_high_bytes, out);
    put_memory_device(config->memory_low_bytes + config->memory_high_bytes, out);
    put_memory_range(0, 0, config->memory_low_bytes, out);
    put_memory_range(1, UINT64_C(1) << 32, config->memory_high_bytes, out);
    put_boot_status(out);
    put_end(out);
}

static void set_entry(struct bytes *out, uint64_t gpa)
{
    if (out->failed)
        return;
    uint8_t *entry = out->data;
    memcpy(entry, "_SM3_", 5);
    entry[6] = ENTRY_BYTES;
    entry[7] = 3;  /* version 3.0.0 */
    entry[10] = 1; /* revision of the entry point */
    le32_put(entry + 12, (uint32_t)(out->size_bytes - TABLE_AT));
    le64_put(entry + 16, gpa + TABLE_AT);
    entry[5] = bytes_checksum(entry, ENTRY_BYTES);
}

bool smbios_build(const struct smbios_config *config, uint64_t gpa, size_t limit_bytes,
                  struct bytes *out, struct error *err)
{
    assert(gpa % 16 == 0 && !out->size_bytes);
    bytes_zero(out, TABLE_AT);
    put_structures(config, out);
    set_entry(out, gpa);
    if (out->failed)
        return error_set(err, "cannot compose SMBIOS tables", NULL, "out of memory");
    if (out->size_bytes > limit_bytes)
        return error_set(err, "cannot compose SMBIOS tables", NULL,
                         "they take %zu bytes, the board has room for %zu", out->size_bytes,
                         limit_bytes);
    return true;
}
