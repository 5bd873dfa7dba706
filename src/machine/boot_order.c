/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What firmware is to boot, and where it shows its menu: files of the firmware configuration device
 * that SeaBIOS (its docs/Runtime_config.md) and OVMF read, and the bytes of CMOS that go by kind.
 * Devices are named by their Open Firmware paths. Runs on the machine's thread.
 */
#include "machine/machine_internal.h"

#include "machine/bytes.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { MENU_WAIT_MS = 5000, COM1_PORT = 0x3f8 };

/* A function's part of a path; function 0 is not told. */
static void put_function(struct bytes *list, const char *kind, const struct q35_place *place)
{
    char text[64];
    snprintf(text, sizeof(text), place->function ? "/pci@i0cf8/%s@%x,%x" : "/pci@i0cf8/%s@%x", kind,
             place->slot, place->function);
    bytes_put(list, text, strlen(text));
}

static void put_rest(struct bytes *list, const char *rest)
{
    bytes_put(list, rest, strlen(rest));
    bytes_u8(list, '\n');
}

/* Its number among those of its bus, which is its port, target or drive. */
static unsigned number_on_bus(const struct machine *machine, unsigned disk)
{
    unsigned number = 0;
    for (unsigned i = 0; i < disk; i++)
        number += machine->config.disks[i].bus == machine->config.disks[disk].bus;
    return number;
}

static void put_disk(struct machine *machine, unsigned disk, struct bytes *list)
{
    const enum machine_disk_bus bus = machine->config.disks[disk].bus;
    const struct q35_place place =
        bus == MACHINE_DISK_FLOPPY ? (struct q35_place){0} : backends_disk_place(machine, disk);
    const unsigned number = number_on_bus(machine, disk);
    char rest[64] = "/disk@0,0";
    switch (bus) {
    case MACHINE_DISK_VIRTIO: put_function(list, "scsi", &place); break;
    case MACHINE_DISK_NVME: /* OVMF knows the class by the numbers of QEMU's */
        put_function(list, "pci8086,5845", &place);
        snprintf(rest, sizeof(rest), "/namespace@1,0");
        break;
    case MACHINE_DISK_SCSI:
        put_function(list, "scsi", &place);
        snprintf(rest, sizeof(rest), "/channel@0/disk@%x,0", number);
        break;
    case MACHINE_DISK_AHCI:
        put_function(list, "pci8086,2922", &place);
        snprintf(rest, sizeof(rest), "/drive@%x/disk@0", number);
        break;
    case MACHINE_DISK_IDE: /* two channels of two drives */
        put_function(list, "ide", &place);
        snprintf(rest, sizeof(rest), "/drive@%x/disk@%x", number / 2, number % 2);
        break;
    case MACHINE_DISK_USB: /* USB 3 ports count by themselves; OVMF looks at the function only */
        put_function(list, "usb", &place);
        snprintf(rest, sizeof(rest), "/storage@%x/channel@0/disk@0,0", number + 1);
        break;
    case MACHINE_DISK_FLOPPY:
        snprintf(rest, sizeof(rest), "/pci@i0cf8/isa@1f/fdc@03f0/floppy@%x", number);
        break;
    case MACHINE_DISK_BUSES: return;
    }
    put_rest(list, rest);
}

enum machine_boot machine_boot_of(const struct machine_disk *disk)
{
    return disk->bus == MACHINE_DISK_FLOPPY ? MACHINE_BOOT_FLOPPY
           : disk->is_cdrom                 ? MACHINE_BOOT_CDROM
                                            : MACHINE_BOOT_DISK;
}

static void put_kind(struct machine *machine, enum machine_boot kind, struct bytes *list)
{
    for (unsigned i = 0; i < machine->config.disk_count; i++)
        if (machine_boot_of(&machine->config.disks[i]) == kind)
            put_disk(machine, i, list);
    if (kind != MACHINE_BOOT_NET)
        return;
    for (unsigned i = 0; i < machine->config.net_count; i++) {
        const struct q35_place place = backends_net_place(machine, i);
        put_function(list, "ethernet", &place);
        put_rest(list, "/ethernet-phy@0");
    }
}

/* Without an order there is no list, since OVMF would forget what isn't in it. */
static bool put_order(struct machine *machine, struct fw_cfg *fw)
{
    struct bytes list = {0};
    for (unsigned i = 0; i < machine->config.boot_count; i++)
        put_kind(machine, machine->config.boot[i], &list);
    bytes_u8(&list, '\0');
    bool ok = !list.failed && (list.size_bytes == 1 ||
                               fw_cfg_put_file(fw, "bootorder", list.data, list.size_bytes));
    bytes_free(&list);
    return ok;
}

static void set_kinds(struct machine *machine)
{
    static const uint8_t numbers[MACHINE_BOOTS] = {[MACHINE_BOOT_FLOPPY] = 1,
                                                   [MACHINE_BOOT_DISK] = 2,
                                                   [MACHINE_BOOT_CDROM] = 3,
                                                   [MACHINE_BOOT_NET] = 4};
    uint8_t kinds[3] = {numbers[MACHINE_BOOT_DISK], numbers[MACHINE_BOOT_CDROM],
                        numbers[MACHINE_BOOT_FLOPPY]};
    if (machine->config.boot_count)
        memset(kinds, 0, sizeof(kinds));
    for (unsigned i = 0; i < machine->config.boot_count && i < sizeof(kinds); i++)
        kinds[i] = numbers[machine->config.boot[i]];
    q35_set_boot_order(machine->board, kinds);
}

static bool put_file_number(struct fw_cfg *fw, const char *name, uint32_t value, size_t size_bytes)
{
    return fw_cfg_put_file(fw, name, &value, size_bytes); /* little-endian, as the host */
}

bool boot_order_tell(struct machine *machine, struct error *err)
{
    struct fw_cfg *fw = q35_fw_cfg(machine->board);
    const bool has_menu = machine->config.boot_menu;
    set_kinds(machine);
    bool ok = put_order(machine, fw) && fw_cfg_put_number(fw, FW_CFG_BOOT_MENU, has_menu, 2) &&
              put_file_number(fw, "etc/boot-fail-wait", UINT32_MAX, 4); /* for ever */
    if (ok && has_menu)
        ok = put_file_number(fw, "etc/boot-menu-wait", MENU_WAIT_MS, 2);
    /* SeaBIOS' text, and that of loaders that use it, goes to the console where there is no screen.
     * OVMF does so by itself. */
    if (ok && machine->config.serials[0] && machine->config.vga == MACHINE_VGA_NONE)
        ok = put_file_number(fw, "etc/sercon-port", COM1_PORT, 2);
    return ok || error_errno(err, "cannot make the machine", "fw_cfg", ENOMEM);
}
