/* SPDX-License-Identifier: BSD-2-Clause
 * Firmware by name (files of Debian's packages), by file, or by what the first disk needs. */
#include "cli/firmware.h"

#include "cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* In the order of preference. */
static const struct firmware {
    const char *name, *package, *rom;
    const char *variables; /* NULL: it has none apart */
} known[] = {
    {"bios", "seabios", "/usr/share/seabios/bios-256k.bin", NULL},
    {"uefi", "ovmf", "/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"},
    {"uefi", "ovmf", "/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"},
    {"uefi", "ovmf", "/usr/share/ovmf/OVMF.fd", NULL},
};
enum { KNOWN = sizeof(known) / sizeof(known[0]) };

static bool is_named(const struct machine_config *machine, enum machine_boot boot)
{
    for (unsigned i = 0; i < machine->boot_count; i++)
        if (machine->boot[i] == boot)
            return true;
    return false;
}

bool firmware_parse_boot(struct machine_config *machine, const char *value, struct error *err)
{
    char *copy = strdup(value), *rest = copy;
    bool ok = copy || error_errno(err, "boot order", value, ENOMEM);
    machine->boot_count = 0;
    while (ok && rest) {
        const char *piece = strsep(&rest, ",");
        enum machine_boot boot;
        if (!strcmp(piece, "menu")) {
            machine->boot_menu = true;
        } else if (!machine_boot_find(piece, &boot)) {
            error_usage(err, "boot order", value, "'%s' is nothing to boot from", piece);
            ok = error_hint(err, "known are disk, cdrom, net, floppy and menu");
        } else if (is_named(machine, boot)) {
            error_usage(err, "boot order", value, "'%s' is named twice", piece);
            ok = error_hint(err, "name each kind once: what comes first is tried first");
        } else {
            machine->boot[machine->boot_count++] = boot;
        }
    }
    free(copy);
    return ok;
}

/* ---- what a disk needs ---- */

enum { ENTRIES_MAX = 128, ENTRY_MIN_BYTES = 128, ENTRY_MAX_BYTES = 4096 };

static uint64_t le_at(const uint8_t *at, unsigned size_bytes)
{
    uint64_t value = 0;
    memcpy(&value, at, size_bytes); /* as the host */
    return value;
}

/* UEFI 2.10, 5.3: a header in sector 1 and a table of partitions, which begin with their types. */
static bool has_system_partition(int fd, unsigned sector_bytes)
{
    static const uint8_t type[16] = {0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11,
                                     0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b};
    uint8_t header[92], entry[sizeof(type)];
    if (pread(fd, header, sizeof(header), sector_bytes) != (ssize_t)sizeof(header) ||
        memcmp(header, "EFI PART", 8) != 0)
        return false;
    uint64_t table = le_at(header + 72, 8), count = le_at(header + 80, 4);
    uint64_t entry_bytes = le_at(header + 84, 4);
    if (table > INT64_MAX / 8192 || entry_bytes < ENTRY_MIN_BYTES || entry_bytes > ENTRY_MAX_BYTES)
        return false;
    for (uint64_t i = 0; i < count && i < ENTRIES_MAX; i++)
        if (pread(fd, entry, sizeof(entry), (off_t)(table * sector_bytes + i * entry_bytes)) ==
                (ssize_t)sizeof(entry) &&
            !memcmp(entry, type, sizeof(type)))
            return true;
    return false;
}

/* NULL: there are only CD-ROM and floppy drives. */
static const char *first_disk(const struct machine_config *machine)
{
    for (unsigned i = 0; i < machine->disk_count; i++)
        if (!machine->disks[i].is_cdrom && machine->disks[i].bus != MACHINE_DISK_FLOPPY)
            return machine->disks[i].path;
    return NULL;
}

/* A disk that can't be read is told of when it is opened. */
static const char *choose_by_disk(const struct machine_config *machine, const char **reason)
{
    const char *path = first_disk(machine);
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    bool is_uefi = fd >= 0 && (has_system_partition(fd, 512) || has_system_partition(fd, 4096));
    if (fd >= 0)
        close(fd);
    *reason = is_uefi ? "the first disk has an EFI system partition"
              : path  ? "the first disk has no EFI system partition"
                      : "there is no disk";
    return is_uefi ? "uefi" : "bios";
}

/* ---- files ---- */

static bool place_variables(struct firmware_choice *choice, struct machine_config *machine,
                            struct error *err)
{
    static const char ending[] = ".nvram";
    const char *disk = first_disk(machine);
    if (machine->nvram || !disk)
        return true;
    size_t size_bytes = strlen(disk) + sizeof(ending);
    choice->nvram = malloc(size_bytes);
    if (!choice->nvram)
        return error_errno(err, "cannot use the firmware's variables", disk, ENOMEM);
    snprintf(choice->nvram, size_bytes, "%s%s", disk, ending);
    machine->nvram = choice->nvram;
    return true;
}

static bool take(const struct firmware *firmware, struct firmware_choice *choice,
                 struct machine_config *machine, struct error *err)
{
    machine->rom = firmware->rom;
    machine->nvram_template = firmware->variables;
    if (firmware->variables)
        return place_variables(choice, machine, err);
    if (!machine->nvram)
        return true;
    error_usage(err, "file of firmware variables", machine->nvram,
                "this firmware keeps none in a file");
    return error_hint(err, "leave --nvram out, or add --firmware uefi");
}

static bool take_named(const char *name, struct firmware_choice *choice,
                       struct machine_config *machine, struct error *err)
{
    const struct firmware *first = NULL;
    for (unsigned i = 0; i < KNOWN; i++) {
        if (strcmp(known[i].name, name) != 0)
            continue;
        first = first ? first : &known[i];
        if (access(known[i].rom, R_OK) == 0 &&
            (!known[i].variables || access(known[i].variables, R_OK) == 0))
            return take(&known[i], choice, machine, err);
    }
    error_set(err, "cannot use firmware", name, "%s is not there", first->rom);
    return error_hint(err, "install Debian's package %s, or name a file: --firmware FILE",
                      first->package);
}

bool firmware_choose(struct firmware_choice *choice, struct machine_config *machine,
                     struct error *err)
{
    const char *name = choice->name;
    if (!name)
        choice->name = name = choose_by_disk(machine, &choice->reason);
    machine->rom_is_firmware = true;
    if (!strcmp(name, "bios") || !strcmp(name, "uefi"))
        return take_named(name, choice, machine, err);
    machine->rom = name;
    return true;
}
