/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What the boot loaders share, and the choice between them. Runs on the machine's thread, while no
 * vCPU runs.
 */
#include "machine/boot.h"

#include "machine/boot_elf.h"
#include "machine/boot_internal.h"
#include "machine/bytes.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define MIB UINT64_C(0x100000)

static uint64_t mib_up(uint64_t size_bytes)
{
    return (size_bytes + MIB - 1) / MIB;
}

bool boot_refuse(const struct boot_config *config, struct error *err, const char *cause, ...)
{
    char text[256];
    va_list arguments;
    va_start(arguments, cause);
    vsnprintf(text, sizeof(text), cause, arguments);
    va_end(arguments);
    return error_set(err, "cannot boot kernel", boot_file_path(config->kernel), "%s", text);
}

void boot_put(struct ram *ram, uint64_t gpa, const void *data, size_t size_bytes)
{
    bool is_ram = ram_write(ram, gpa, data, size_bytes);
    assert(is_ram);
    (void)is_ram;
}

bool boot_kernel_fits(const struct boot_config *config, uint64_t gpa, uint64_t end_gpa,
                      struct error *err)
{
    uint64_t memory_end = memory_map_usable_end(config->map, BOOT_KERNEL_MIN_GPA);
    if (gpa < BOOT_KERNEL_MIN_GPA || end_gpa < gpa)
        return boot_refuse(config, err, "it wants to be loaded at 0x%" PRIx64 ", below 1 MiB", gpa);
    if (end_gpa <= memory_end)
        return true;
    boot_refuse(config, err,
                "it needs %" PRIu64 " MiB from %" PRIu64 " MiB on; memory ends at %" PRIu64 " MiB",
                mib_up(end_gpa - gpa), gpa / MIB, memory_end / MIB);
    if (end_gpa > RAM_LOW_MAX_BYTES)
        return error_hint(err, "no memory size can hold it: the file is damaged or not for a PC");
    return error_hint(err,
                      "give the guest more memory: at least %" PRIu64 "M, and what it needs "
                      "for itself",
                      mib_up(end_gpa));
}

bool boot_cmdline_check(const struct boot_config *config, uint64_t max_bytes, struct error *err)
{
    size_t length = strlen(config->cmdline);
    if (max_bytes > BOOT_CMDLINE_MAX_BYTES - 1)
        max_bytes = BOOT_CMDLINE_MAX_BYTES - 1;
    if (length <= max_bytes)
        return true;
    boot_refuse(config, err, "its command line may have %" PRIu64 " bytes; the one given has %zu",
                max_bytes, length);
    return error_hint(err, "give a shorter one as --cmdline");
}

bool boot_initrd_refuse(const struct boot_config *config, uint64_t size_bytes, uint64_t floor_gpa,
                        uint64_t top_gpa, struct error *err)
{
    bool many = config->initrd_count > 1;
    uint64_t room_bytes = top_gpa > floor_gpa ? top_gpa - floor_gpa : 0;
    error_set(err, many ? "cannot load initrds, the first of them" : "cannot load initrd",
              boot_file_path(config->initrds[0]),
              "%s of %" PRIu64 " MiB; the guest's memory has room for %" PRIu64
              " MiB beside the kernel",
              many ? "they have a size" : "it has a size", mib_up(size_bytes), room_bytes / MIB);
    if (size_bytes > RAM_LOW_MAX_BYTES / 2)
        return error_hint(err, "an initrd must be below 1.3 GiB: is this a disk image? "
                               "then give it as a disk");
    return error_hint(
        err, "give the guest more memory: it takes at least %" PRIu64 "M, better twice that",
        mib_up(floor_gpa + size_bytes));
}

uint64_t boot_initrd_size_bytes(const struct boot_config *config)
{
    uint64_t size_bytes = 0;
    for (unsigned i = 0; i < config->initrd_count; i++) {
        uint64_t file_bytes = boot_file_size_bytes(config->initrds[i]);
        size_bytes = (size_bytes + 3) & ~UINT64_C(3);
        if (file_bytes > UINT64_MAX / 4 || size_bytes > UINT64_MAX / 4)
            file_bytes = UINT64_MAX / 4; /* refused later; keeps the sum from wrapping */
        size_bytes += file_bytes;
    }
    return size_bytes;
}

bool boot_initrd_read(const struct boot_config *config, uint64_t offset, uint8_t *out,
                      size_t size_bytes)
{
    uint64_t start = 0; /* of this file in the whole */
    memset(out, 0, size_bytes);
    for (unsigned i = 0; i < config->initrd_count; i++) {
        uint64_t file_bytes = boot_file_size_bytes(config->initrds[i]);
        start = (start + 3) & ~UINT64_C(3);
        uint64_t first = offset > start ? offset : start, end = start + file_bytes;
        if (end > offset + size_bytes)
            end = offset + size_bytes;
        if (first < end && !boot_file_read(config->initrds[i], first - start,
                                           out + (first - offset), (size_t)(end - first), NULL))
            return false;
        start += file_bytes;
    }
    return true;
}

bool boot_initrd_place(const struct boot_config *config, uint64_t kernel_gpa,
                       uint64_t kernel_end_gpa, uint64_t limit_gpa, struct boot_initrd *initrd,
                       struct error *err)
{
    *initrd = (struct boot_initrd){0};
    uint64_t size_bytes = boot_initrd_size_bytes(config);
    if (!size_bytes)
        return true;
    uint64_t top_gpa = memory_map_usable_end(config->map, BOOT_KERNEL_MIN_GPA);
    if (top_gpa > limit_gpa)
        top_gpa = limit_gpa;
    uint64_t floor_gpa = (kernel_end_gpa + RAM_PAGE_BYTES - 1) & ~(RAM_PAGE_BYTES - 1);
    assert(kernel_gpa < kernel_end_gpa);
    if (floor_gpa > top_gpa || size_bytes > top_gpa - floor_gpa)
        return boot_initrd_refuse(config, size_bytes, floor_gpa, top_gpa, err);
    uint64_t gpa = (top_gpa - size_bytes) & ~(RAM_PAGE_BYTES - 1);
    if (gpa < floor_gpa)
        return boot_initrd_refuse(config, size_bytes, floor_gpa, top_gpa, err);
    *initrd = (struct boot_initrd){gpa, size_bytes};
    return true;
}

bool boot_initrd_load(const struct boot_config *config, const struct boot_initrd *initrd,
                      struct ram *ram, struct error *err)
{
    if (!initrd->size_bytes)
        return true;
    uint64_t offset = 0;
    for (unsigned i = 0; i < config->initrd_count; i++) {
        uint64_t file_bytes = boot_file_size_bytes(config->initrds[i]);
        offset = (offset + 3) & ~UINT64_C(3);
        if (!boot_file_load(config->initrds[i], 0, file_bytes, ram, initrd->gpa + offset, err))
            return false;
        offset += file_bytes;
    }
    assert(offset == initrd->size_bytes);
    return true;
}

static struct x86_segment flat_segment(unsigned selector, uint32_t attributes)
{
    return (struct x86_segment){.limit = 0xffffffff,
                                .attributes = attributes | SEGMENT_P | SEGMENT_S | SEGMENT_G,
                                .selector = (uint16_t)selector};
}

/* SDM 3A figure 3-8; `attributes` as in struct x86_segment. */
static uint64_t descriptor(uint32_t limit, uint32_t attributes)
{
    uint64_t high = (attributes & 0xff) << 8 | (attributes & 0xf000) << 8 | (limit & 0xf0000);
    return high << 32 | (limit & 0xffff);
}

void boot_segments(struct ram *ram, struct x86_state *bsp, unsigned code_selector, bool is_64bit)
{
    enum { CODE = 0xb, DATA = 0x3, TSS_BUSY = 0xb, TSS_LIMIT = 0x67 };
    const struct x86_segment code =
        flat_segment(code_selector, CODE | (is_64bit ? SEGMENT_L : SEGMENT_DB));
    const struct x86_segment code32 = flat_segment(BOOT_CS32, CODE | SEGMENT_DB);
    const struct x86_segment data = flat_segment(BOOT_DS, DATA | SEGMENT_DB);
    uint8_t gdt[BOOT_TSS + 16] = {0};
    le64_put(gdt + BOOT_CS32, descriptor(0xfffff, code32.attributes));
    le64_put(gdt + code_selector, descriptor(0xfffff, code.attributes));
    le64_put(gdt + BOOT_DS, descriptor(0xfffff, data.attributes));
    le64_put(gdt + BOOT_TSS, descriptor(TSS_LIMIT, TSS_BUSY | SEGMENT_P));
    boot_put(ram, BOOT_GDT_GPA, gdt, sizeof(gdt));

    for (unsigned i = SEG_ES; i <= SEG_GS; i++)
        bsp->segment[i] = data;
    bsp->segment[SEG_CS] = code;
    bsp->segment[SEG_TR] = (struct x86_segment){
        .limit = TSS_LIMIT, .attributes = TSS_BUSY | SEGMENT_P, .selector = BOOT_TSS};
    bsp->gdtr = (struct x86_table){BOOT_GDT_GPA, sizeof(gdt) - 1};
    bsp->idtr = (struct x86_table){0, 0};
    memset(bsp->gpr, 0, sizeof(bsp->gpr));
    bsp->gpr[RSP] = BOOT_STACK_GPA;
    bsp->rflags = 0x2;
}

/* What people give as a kernel by mistake. */
static bool refuse_unknown(const struct boot_config *config, struct error *err)
{
    uint8_t start[4] = {0};
    if (boot_file_size_bytes(config->kernel) >= sizeof(start) &&
        !boot_file_read(config->kernel, 0, start, sizeof(start), err))
        return false;
    boot_refuse(config, err, "it is neither a bzImage nor an ELF vmlinux nor a Multiboot kernel");
    if (start[0] == 0x1f && start[1] == 0x8b)
        return error_hint(err, "it is compressed with gzip: unpack it, or use the bzImage");
    if (!memcmp(start, "0707", 4))
        return error_hint(err, "it is a cpio archive: give it as initrd");
    return error_hint(err, "a kernel is /boot/vmlinuz-… of an x86-64 Linux");
}

bool boot_takes_modules(const struct boot_file *kernel)
{
    const struct boot_config config = {.kernel = kernel};
    return !bzimage_is(kernel) && !pvh_has_entry(&config) && multiboot_is(kernel);
}

bool boot_load(const struct boot_config *given, struct ram *ram, struct x86_state *bsp,
               struct error *err)
{
    assert(memory_map_usable_end(given->map, 0) >= BOOT_CMDLINE_GPA + BOOT_CMDLINE_MAX_BYTES);
    struct boot_config config = *given;
    bool takes_modules = boot_takes_modules(config.kernel);
    if (!config.cmdline)
        config.cmdline = takes_modules ? "" : BOOT_LINUX_CMDLINE;
    if (takes_modules)
        return multiboot_load(&config, ram, bsp, err);
    if (bzimage_is(config.kernel))
        return bzimage_load(&config, ram, bsp, err);
    if (boot_elf_is(config.kernel))
        return pvh_load(&config, ram, bsp, err);
    return refuse_unknown(&config, err);
}
