/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Items of the firmware configuration device, in QEMU's forms (its docs/specs/fw_cfg.rst; for the
 * kernel its hw/i386/x86-common). A bzImage is told in two parts, with the fields of the setup
 * header filled in that a boot loader fills (Linux' Documentation/arch/x86/boot.rst); any other
 * kernel whole. ACPI and SMBIOS are in fw_tables.c. Runs on the machine's thread.
 */
#include "machine/fw_items.h"

#include "machine/boot_internal.h"
#include "machine/bytes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Where QEMU has a boot loader put things. */
enum { SETUP_GPA = 0x10000, CMDLINE_GPA = 0x20000, KERNEL_GPA = 0x100000 };
enum { E820_ENTRY_BYTES = 20 };

static bool put_e820(struct fw_cfg *fw, const struct memory_map *map)
{
    uint8_t table[MEMORY_MAP_MAX * E820_ENTRY_BYTES] = {0};
    for (unsigned i = 0; i < map->count; i++) {
        uint8_t *entry = table + (size_t)i * E820_ENTRY_BYTES;
        le64_put(entry, map->range[i].gpa);
        le64_put(entry + 8, map->range[i].size_bytes);
        le32_put(entry + 16, map->range[i].kind);
    }
    return fw_cfg_put_file(fw, "etc/e820", table, (size_t)map->count * E820_ENTRY_BYTES);
}

static bool read_kernel(void *opaque, uint64_t offset, void *buffer, size_t size_bytes)
{
    return boot_file_read(opaque, offset, buffer, size_bytes, NULL);
}

/* The protected-mode part of a bzImage: what is behind its setup. */
static bool read_payload(void *opaque, uint64_t offset, void *buffer, size_t size_bytes)
{
    return boot_file_read(opaque, bzimage_setup_bytes(opaque) + offset, buffer, size_bytes, NULL);
}

static bool put_cmdline(struct fw_cfg *fw, const char *cmdline)
{
    size_t size_bytes = strlen(cmdline) + 1;
    return fw_cfg_put(fw, FW_CFG_KERNEL_CMDLINE, cmdline, size_bytes) &&
           fw_cfg_put_number(fw, FW_CFG_CMDLINE_ADDR, CMDLINE_GPA, 4) &&
           fw_cfg_put_number(fw, FW_CFG_CMDLINE_SIZE, size_bytes, 4) &&
           fw_cfg_put(fw, FW_CFG_CMDLINE_DATA, cmdline, size_bytes);
}

static bool read_initrd(void *opaque, uint64_t offset, void *buffer, size_t size_bytes)
{
    return boot_initrd_read(opaque, offset, buffer, size_bytes);
}

/* Modules of a Multiboot kernel are not told of. */
static bool put_initrd(struct fw_cfg *fw, const struct boot_config *boot, uint64_t gpa)
{
    uint64_t size_bytes = boot_initrd_size_bytes(boot);
    if (size_bytes > UINT32_MAX)
        return true;
    return fw_cfg_put_number(fw, FW_CFG_INITRD_ADDR, gpa, 4) &&
           fw_cfg_put_number(fw, FW_CFG_INITRD_SIZE, size_bytes, 4) &&
           fw_cfg_put_source(fw, FW_CFG_INITRD_DATA, (uint32_t)size_bytes, read_initrd,
                             (void *)(uintptr_t)boot);
}

static bool put_bzimage(struct fw_cfg *fw, const struct boot_config *boot)
{
    uint64_t setup_bytes = bzimage_setup_bytes(boot->kernel);
    uint64_t kernel_bytes = boot_file_size_bytes(boot->kernel);
    if (setup_bytes >= kernel_bytes || kernel_bytes > UINT32_MAX)
        return true; /* nothing that firmware could start */
    uint8_t *setup = malloc(setup_bytes);
    if (!setup)
        return false;
    bool ok = boot_file_read(boot->kernel, 0, setup, setup_bytes, NULL);
    uint64_t initrd_gpa = 0;
    if (ok)
        initrd_gpa = bzimage_fill_setup(boot, setup, SETUP_GPA, CMDLINE_GPA);
    ok = ok && fw_cfg_put_number(fw, FW_CFG_SETUP_ADDR, SETUP_GPA, 4) &&
         fw_cfg_put_number(fw, FW_CFG_SETUP_SIZE, setup_bytes, 4) &&
         fw_cfg_put(fw, FW_CFG_SETUP_DATA, setup, setup_bytes) &&
         fw_cfg_put_number(fw, FW_CFG_KERNEL_ADDR, KERNEL_GPA, 4) &&
         fw_cfg_put_number(fw, FW_CFG_KERNEL_SIZE, kernel_bytes - setup_bytes, 4) &&
         fw_cfg_put_source(fw, FW_CFG_KERNEL_DATA, (uint32_t)(kernel_bytes - setup_bytes),
                           read_payload, (void *)(uintptr_t)boot->kernel) &&
         put_initrd(fw, boot, initrd_gpa);
    free(setup);
    return ok;
}

static bool put_other_kernel(struct fw_cfg *fw, const struct boot_config *boot)
{
    uint64_t kernel_bytes = boot_file_size_bytes(boot->kernel);
    if (kernel_bytes > UINT32_MAX)
        return true;
    return fw_cfg_put_number(fw, FW_CFG_KERNEL_SIZE, kernel_bytes, 4) &&
           fw_cfg_put_source(fw, FW_CFG_KERNEL_DATA, (uint32_t)kernel_bytes, read_kernel,
                             (void *)(uintptr_t)boot->kernel) &&
           (boot_takes_modules(boot->kernel) || put_initrd(fw, boot, 0));
}

static bool put_kernel(struct fw_cfg *fw, const struct fw_items *items)
{
    const struct boot_config *boot = items->boot;
    if (!boot)
        return !items->cmdline || put_cmdline(fw, items->cmdline);
    const char *cmdline = boot->cmdline;
    if (!cmdline)
        cmdline = boot_takes_modules(boot->kernel) ? "" : BOOT_LINUX_CMDLINE;
    return put_cmdline(fw, cmdline) &&
           (bzimage_is(boot->kernel) ? put_bzimage(fw, boot) : put_other_kernel(fw, boot));
}

bool fw_items_put(struct fw_cfg *fw, const struct fw_items *items, struct error *err)
{
    bool ok = fw_cfg_put(fw, FW_CFG_UUID, items->uuid, 16) &&
              fw_cfg_put_number(fw, FW_CFG_RAM_SIZE, items->memory_bytes, 8) &&
              fw_cfg_put_number(fw, FW_CFG_NOGRAPHIC, 1, 2) &&
              fw_cfg_put_number(fw, FW_CFG_NB_CPUS, items->vcpu_count, 2) &&
              fw_cfg_put_number(fw, FW_CFG_MAX_CPUS, items->vcpu_count, 2) &&
              fw_cfg_put_number(fw, FW_CFG_BOOT_MENU, 0, 2) &&
              fw_cfg_put_number(fw, FW_CFG_IRQ0_OVERRIDE, 1, 4) && put_e820(fw, items->map) &&
              put_kernel(fw, items);
    return ok || error_errno(err, "cannot make the machine", "fw_cfg", ENOMEM);
}
