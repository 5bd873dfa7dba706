/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Disks and CD-ROM drives on controllers, and changing what is in a drive while the machine runs.
 */
#include "machine/drives.h"

#include "dev/storage/ahci.h"
#include "dev/storage/ata.h"
#include "dev/storage/ide.h"
#include "dev/usb/storage.h"
#include "dev/virtio/scsi.h"
#include "host/raw.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SERIAL_BYTES = 21 };

/* The person's, or one by number, so that the guest can tell two disks apart. */
static void choose_serial(const struct machine *machine, unsigned index, char *serial)
{
    const struct machine_disk *disk = &machine->config.disks[index];
    if (disk->serial)
        snprintf(serial, SERIAL_BYTES, "%s", disk->serial);
    else
        snprintf(serial, SERIAL_BYTES, "SKEP%05u", index + 1);
}

static const struct block_backend *medium_of(const struct machine *machine, unsigned index)
{
    const struct block_backend *backend = &machine->backends.disk[index];
    return backend->close ? backend : NULL;
}

struct scsi_lun *drives_make_lun(struct machine *machine, unsigned index,
                                 const struct scsi_lun_config *how, struct error *err)
{
    char serial[SERIAL_BYTES];
    struct scsi_lun_config config = *how;
    choose_serial(machine, index, serial);
    config.is_cdrom = machine->config.disks[index].is_cdrom;
    config.medium = medium_of(machine, index);
    config.serial = serial;
    config.log = machine->log;
    struct scsi_lun *lun = scsi_lun_create(&config, err);
    if (config.is_cdrom)
        machine->cdroms[index] = lun;
    return lun;
}

static struct ata_drive *make_ata_drive(struct machine *machine, unsigned index, bool is_serial_ata,
                                        struct error *err)
{
    char serial[SERIAL_BYTES];
    choose_serial(machine, index, serial);
    struct ata_drive_config config = {
        .serial = serial, .is_serial_ata = is_serial_ata, .log = machine->log};
    if (machine->config.disks[index].is_cdrom) {
        const struct scsi_lun_config how = {.product = "CD-ROM", .keeps_sense = true};
        config.cdrom = drives_make_lun(machine, index, &how, err);
        if (!config.cdrom)
            return NULL;
    } else {
        config.disk = medium_of(machine, index);
    }
    struct ata_drive *drive = ata_drive_create(&config, err);
    if (!drive)
        scsi_lun_destroy(config.cdrom);
    return drive;
}

bool drives_no_room(const struct machine *machine, unsigned index, unsigned room, struct error *err)
{
    const struct machine_disk *disk = &machine->config.disks[index];
    error_usage(err, "cannot attach disk", disk->path ? disk->path : "none",
                "%s has room for %u disks and drives", machine_disk_bus_name(disk->bus), room);
    return error_hint(err, "put it on another bus, as virtio, nvme or scsi");
}

/* The drives of one bus, in their order; their number, or -1. */
static int make_ata_drives(struct machine *machine, enum machine_disk_bus bus,
                           struct ata_drive **drives, unsigned room, struct error *err)
{
    unsigned count = 0;
    for (unsigned i = 0; i < machine->config.disk_count; i++) {
        if (machine->config.disks[i].bus != bus)
            continue;
        if (count == room)
            drives_no_room(machine, i, room, err);
        else
            drives[count] = make_ata_drive(machine, i, bus == MACHINE_DISK_AHCI, err);
        if (count == room || !drives[count]) {
            while (count)
                ata_drive_destroy(drives[--count]);
            return -1;
        }
        count++;
    }
    return (int)count;
}

bool drives_plug_ahci(struct machine *machine, struct error *err)
{
    const struct q35_place place = q35_place(machine->board, Q35_AHCI, 0);
    struct ahci_config config = {.pci = place.pci,
                                 .slot = place.slot,
                                 .function = place.function,
                                 .msi = place.msi,
                                 .ram = machine->ram,
                                 .log = machine->log};
    int count = make_ata_drives(machine, MACHINE_DISK_AHCI, config.drives, AHCI_PORTS, err);
    if (count <= 0)
        return count == 0;
    struct ahci *ahci = ahci_create(&config, err);
    if (ahci)
        q35_adopt(machine->board, &place, &ahci_ops, ahci);
    return ahci;
}

bool drives_plug_ide(struct machine *machine, struct error *err)
{
    struct ata_drive *drives[IDE_DRIVES] = {0};
    int count = make_ata_drives(machine, MACHINE_DISK_IDE, drives, IDE_DRIVES, err);
    return count == 0 || (count > 0 && q35_add_ide(machine->board, drives, err));
}

/* Targets in the order of the options. */
bool drives_plug_scsi(struct machine *machine, struct error *err)
{
    struct scsi_lun_config units[MACHINE_MAX_DISKS] = {0};
    char serials[MACHINE_MAX_DISKS][SERIAL_BYTES];
    unsigned disks[MACHINE_MAX_DISKS], count = 0;
    static_assert((int)MACHINE_MAX_DISKS <= (int)VIRTIO_SCSI_TARGETS_MAX, "a target for each");
    for (unsigned i = 0; i < machine->config.disk_count; i++) {
        if (machine->config.disks[i].bus != MACHINE_DISK_SCSI)
            continue;
        choose_serial(machine, i, serials[count]);
        units[count] = (struct scsi_lun_config){.is_cdrom = machine->config.disks[i].is_cdrom,
                                                .medium = medium_of(machine, i),
                                                .serial = serials[count],
                                                .log = machine->log};
        disks[count++] = i;
    }
    if (!count)
        return true;
    const struct virtio_scsi_config config = {.ram = machine->ram,
                                              .loop = machine->loop,
                                              .log = machine->log,
                                              .units = units,
                                              .unit_count = count,
                                              .queue_count = machine->config.vcpu_count};
    const struct q35_place place = q35_place(machine->board, Q35_SCSI, 0);
    struct virtio_device *device = virtio_scsi_create(&config, err);
    if (!device || !q35_plug(machine->board, &place, device, err))
        return false;
    for (unsigned i = 0; i < count; i++)
        if (units[i].is_cdrom)
            machine->cdroms[disks[i]] = virtio_scsi_unit(device, i);
    return true;
}

/* The serial number in the form that the transport wants, unless the person has given one. */
struct usb_device *drives_make_usb(struct machine *machine, unsigned index, struct error *err)
{
    const struct machine_disk *disk = &machine->config.disks[index];
    const struct scsi_lun_config how = {.keeps_sense = true};
    struct usb_storage_config config = {.lun = drives_make_lun(machine, index, &how, err)};
    char serial[SERIAL_BYTES];
    snprintf(serial, sizeof(serial), "%012X", index + 1);
    config.serial = disk->serial ? disk->serial : serial;
    return config.lun ? usb_storage_create(&config, err) : NULL;
}

/* ---- changing media ---- */

static const char what_change[] = "cannot change the medium";

/* By its number among the drives of its kind, as in "cdrom1" or "floppy0"; NULL is the first for
 * CDs. */
static int find_drive(const struct machine *machine, const char *name, struct error *err)
{
    unsigned number = 0, floppies = 0;
    for (unsigned i = 0; i < machine->config.disk_count; i++) {
        const struct machine_disk *disk = &machine->config.disks[i];
        char own[16];
        if (disk->is_cdrom)
            snprintf(own, sizeof(own), "cdrom%u", number++);
        else if (disk->bus == MACHINE_DISK_FLOPPY)
            snprintf(own, sizeof(own), "floppy%u", floppies++);
        else
            continue;
        if (name ? !strcmp(name, own) : disk->is_cdrom)
            return (int)i;
    }
    if (number)
        error_set(err, what_change, name, "there is no such drive; the last is cdrom%u",
                  number - 1);
    else
        error_set(err, what_change, name, "the machine has no CD-ROM drive");
    error_hint(err, "start it with --cdrom PATH, or --cdrom none for an empty drive");
    return -1;
}

static bool change_cd(struct machine *machine, unsigned index, const struct block_backend *medium,
                      bool is_forced, struct error *err)
{
    if (scsi_lun_change_medium(machine->cdroms[index], medium, is_forced))
        return true;
    error_set(err, what_change, machine->config.disks[index].path,
              "the guest has locked the drive; it was told that the medium is wanted");
    return error_hint(err, "unmount it in the guest and try again, or take it with --force");
}

static bool change_floppy(struct machine *machine, unsigned index,
                          const struct block_backend *medium, const char *path, struct error *err)
{
    unsigned drive = 0;
    for (unsigned i = 0; i < index; i++)
        drive += machine->config.disks[i].bus == MACHINE_DISK_FLOPPY;
    if (q35_change_floppy(machine->board, drive, medium))
        return true;
    error_set(err, what_change, path, "the drive does not take a disk of this size");
    return error_hint(err, "its type follows from the image that it was started with");
}

bool machine_change_medium(struct machine *machine, const char *drive, const char *path,
                           bool is_forced, struct error *err)
{
    int index = find_drive(machine, drive, err);
    struct block_backend medium = {0};
    char *copy = NULL;
    if (index < 0)
        return false;
    if (path && !(copy = strdup(path)))
        return error_errno(err, what_change, path, ENOMEM);
    if (path && !backends_open_disk(machine, (unsigned)index, path, &medium, err)) {
        free(copy);
        return false;
    }
    struct block_backend *place = &machine->backends.disk[index], old = *place;
    const struct block_backend *now = path ? &medium : NULL;
    if (machine->cdroms[index] ? !change_cd(machine, (unsigned)index, now, is_forced, err)
                               : !change_floppy(machine, (unsigned)index, now, path, err)) {
        if (path)
            medium.close(medium.opaque);
        free(copy);
        return false;
    }
    *place = medium;
    if (old.close)
        old.close(old.opaque);
    free(machine->media[index]);
    machine->media[index] = copy;
    machine->config.disks[index].path = copy;
    return true;
}
