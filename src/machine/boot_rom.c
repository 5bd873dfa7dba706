/* SPDX-License-Identifier: BSD-2-Clause
 *
 * ROM at the reset vector (SDM 3A 9.1.4). The copy below 1 MiB can be written to, and is made anew
 * at each reset. Runs on the machine's thread, while no vCPU runs.
 */
#include "machine/boot_rom.h"

#include "machine/boot_file.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <sys/mman.h>

#define ROM_END_GPA    UINT64_C(0x100000000)
#define SHADOW_END_GPA UINT64_C(0x100000)
#define SHADOW_BYTES   UINT64_C(0x20000)

static bool read_rom(struct boot_rom *rom, const struct boot_file *file, struct error *err)
{
    static const char what[] = "cannot use ROM";
    uint64_t size_bytes = boot_file_size_bytes(file);
    if (size_bytes % RAM_PAGE_BYTES || size_bytes > BOOT_ROM_MAX_BYTES) {
        error_set(err, what, boot_file_path(file),
                  "it has %" PRIu64 " bytes; it is to have a multiple of 4096, up to %d MiB",
                  size_bytes, BOOT_ROM_MAX_BYTES >> 20);
        return error_hint(err, "a ROM is a flat image that ends with the reset vector: is this a "
                               "kernel? then give it as --kernel");
    }
    void *bytes =
        mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (bytes == MAP_FAILED)
        return error_errno(err, what, boot_file_path(file), errno);
    *rom = (struct boot_rom){bytes, size_bytes};
    return boot_file_read(file, 0, bytes, size_bytes, err);
}

bool boot_rom_open(struct boot_rom *rom, const char *path, struct error *err)
{
    *rom = (struct boot_rom){0};
    struct boot_file *file = boot_file_open("ROM", path, err);
    bool ok = file && read_rom(rom, file, err);
    boot_file_close(file);
    if (!ok)
        boot_rom_close(rom);
    return ok;
}

void boot_rom_close(struct boot_rom *rom)
{
    if (rom->bytes)
        munmap(rom->bytes, rom->size_bytes);
    *rom = (struct boot_rom){0};
}

uint64_t boot_rom_gpa(const struct boot_rom *rom)
{
    return ROM_END_GPA - rom->size_bytes;
}

void boot_rom_shadow(const struct boot_rom *rom, struct ram *ram)
{
    uint64_t size_bytes = rom->size_bytes < SHADOW_BYTES ? rom->size_bytes : SHADOW_BYTES;
    bool is_ram = ram_write(ram, SHADOW_END_GPA - size_bytes,
                            rom->bytes + (rom->size_bytes - size_bytes), size_bytes);
    assert(is_ram);
    (void)is_ram;
}
