/* SPDX-License-Identifier: BSD-2-Clause
 * skep run: the options of disks and other drives, and of the TPM. */
#include "cli/request.h"

#include <string.h>

static bool disk_bus_option(struct machine_disk *disk, const char *name, struct error *err)
{
    if (machine_disk_bus_find(name, &disk->bus))
        return true;
    char known[128] = "";
    for (enum machine_disk_bus bus = 0; bus < MACHINE_DISK_BUSES; bus++)
        snprintf(known + strlen(known), sizeof(known) - strlen(known), "%s%s", bus ? ", " : "",
                 machine_disk_bus_name(bus));
    error_usage(err, "bus of a disk", name, "there is no such bus");
    return error_hint(err, "known are %s", known);
}

static bool disk_option(struct machine_disk *disk, const char *piece, struct error *err)
{
    if (!strcmp(piece, "ro")) {
        disk->read_only = true;
    } else if (!strcmp(piece, "raw")) {
        disk->is_surely_raw = true;
    } else if (!strncmp(piece, "serial=", 7)) {
        disk->serial = piece + 7;
    } else if (!strncmp(piece, "slot=", 5)) {
        return parse_slot(piece + 5, &disk->devfn, err);
    } else if (!strncmp(piece, "bus=", 4)) {
        return disk_bus_option(disk, piece + 4, err);
    } else {
        error_usage(err, "disk option", piece, "it is not known");
        return error_hint(err, "known are ro, raw, serial=TEXT, bus=NAME and slot=N");
    }
    return true;
}

bool store_disk(void *target, const char *value, struct error *err)
{
    struct request *request = target;
    struct machine_config *machine = &request->vm.machine;
    if (machine->disk_count == MACHINE_MAX_DISKS)
        return request_too_many("disks", MACHINE_MAX_DISKS, err);
    char *rest = request_copy(request, value);
    struct machine_disk *disk = &machine->disks[machine->disk_count++];
    disk->path = next_piece(&rest);
    while (rest)
        if (!disk_option(disk, next_piece(&rest), err))
            return false;
    return true;
}

bool check_drives(const struct machine_config *machine, struct error *err)
{
    for (unsigned i = 0; i < machine->disk_count; i++) {
        const struct machine_disk *disk = &machine->disks[i];
        if (!disk->devfn || disk->bus == MACHINE_DISK_VIRTIO || disk->bus == MACHINE_DISK_NVME)
            continue;
        error_usage(err, "slot of a disk", disk->path, "those on %s share a controller",
                    machine_disk_bus_name(disk->bus));
        return error_hint(err, "leave slot= out, or take bus=virtio or bus=nvme");
    }
    return true;
}

/* A disk on a bus of its own. */
bool store_floppy(void *target, const char *value, struct error *err)
{
    struct request *request = target;
    struct machine_config *machine = &request->vm.machine;
    unsigned count = machine->disk_count;
    if (!store_disk(target, value, err))
        return false;
    struct machine_disk *disk = &machine->disks[count];
    if (disk->bus != MACHINE_DISK_VIRTIO || disk->devfn || disk->serial)
        return error_usage(err, "floppy disk", value, "the only options are ro and raw");
    disk->bus = MACHINE_DISK_FLOPPY;
    if (!strcmp(disk->path, "none"))
        disk->path = NULL;
    return true;
}

/* A drive for ISO images; "none" is one with nothing in it. */
bool store_cdrom(void *target, const char *value, struct error *err)
{
    struct request *request = target;
    if (!store_disk(target, value, err))
        return false;
    struct machine_disk *disk = &request->vm.machine.disks[request->vm.machine.disk_count - 1];
    disk->is_cdrom = disk->read_only = true;
    if (!strcmp(disk->path, "none"))
        disk->path = NULL;
    if (!strstr(value, ",bus="))
        disk->bus = MACHINE_DISK_AHCI;
    return true;
}

/* A path may hold commas: only these endings are options. */
bool store_tpm(void *target, const char *value, struct error *err)
{
    static const char tis[] = ",model=tis", crb[] = ",model=crb", model[] = ",model=";
    struct request *request = target;
    struct machine_config *machine = &request->vm.machine;
    if (machine->tpm)
        return request_too_many("TPMs", 1, err);
    char *where = request_copy(request, value);
    size_t length = strlen(where), end = sizeof(tis) - 1;
    machine->tpm = where;
    if (length <= end)
        return true;
    machine->tpm_is_tis = !strcmp(where + length - end, tis);
    if (machine->tpm_is_tis || !strcmp(where + length - end, crb)) {
        where[length - end] = '\0';
        return true;
    }
    const char *last = strrchr(where, ',');
    if (!last || strncmp(last, model, sizeof(model) - 1) != 0)
        return true;
    error_usage(err, "model of a TPM", last + sizeof(model) - 1, "there is no such model");
    return error_hint(err, "the models are crb and tis");
}
