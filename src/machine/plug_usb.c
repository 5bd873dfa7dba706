/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The machine's USB controller with what is on it: keyboard and tablet on USB 2 ports, disks and
 * CD-ROM drives on USB 3 ports in the order of their options.
 */
#include "dev/usb/hid.h"
#include "dev/usb/xhci.h"
#include "machine/drives.h"

enum { KEYBOARD_PORT = 0, TABLET_PORT = 1, FIRST_STORAGE_PORT = XHCI_USB2_PORTS };

static bool make_storage(struct machine *machine, struct usb_device **devices, struct error *err)
{
    unsigned port = FIRST_STORAGE_PORT;
    for (unsigned i = 0; i < machine->config.disk_count; i++) {
        if (machine->config.disks[i].bus != MACHINE_DISK_USB)
            continue;
        if (port == XHCI_PORTS)
            return drives_no_room(machine, i, XHCI_USB3_PORTS, err);
        devices[port] = drives_make_usb(machine, i, err);
        if (!devices[port++])
            return false;
    }
    return true;
}

static bool make_input(struct machine *machine, struct usb_device **devices,
                       struct input_device *inputs, struct error *err)
{
    if (machine->config.input != MACHINE_INPUT_USB)
        return true;
    devices[KEYBOARD_PORT] = usb_keyboard_create(machine->clock, &inputs[KEYBOARD_PORT], err);
    if (!devices[KEYBOARD_PORT])
        return false;
    devices[TABLET_PORT] = usb_tablet_create(machine->clock, &inputs[TABLET_PORT], err);
    return devices[TABLET_PORT];
}

bool plug_usb(struct machine *machine, struct error *err)
{
    const struct q35_place place = q35_place(machine->board, Q35_XHCI, 0);
    struct input_device inputs[2] = {0};
    struct xhci_config config = {
        .pci = place.pci,
        .slot = place.slot,
        .function = place.function,
        .msi = place.msi,
        .ram = machine->ram,
        .clock = machine->clock,
        .log = machine->log,
    };
    if (!make_input(machine, config.devices, inputs, err) ||
        !make_storage(machine, config.devices, err)) {
        for (unsigned i = 0; i < XHCI_PORTS; i++)
            usb_device_destroy(config.devices[i]);
        return false;
    }
    bool has_input = config.devices[KEYBOARD_PORT];
    if (!has_input && !config.devices[FIRST_STORAGE_PORT])
        return true;
    struct xhci *xhci = xhci_create(&config, err);
    if (!xhci)
        return false;
    q35_adopt(machine->board, &place, &xhci_ops, xhci);
    for (unsigned i = 0; has_input && i < 2; i++)
        input_add(q35_input(machine->board), &inputs[i]);
    return true;
}
