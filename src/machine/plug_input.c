/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The machine's input devices beside the board's own PS/2 ones, as configured.
 */
#include "dev/usb/hid.h"
#include "dev/usb/xhci.h"
#include "dev/virtio/input.h"
#include "machine/machine_internal.h"

enum { KEYBOARD_PORT = 0, TABLET_PORT = 1 };

static bool plug_usb(struct machine *machine, struct error *err)
{
    const struct q35_place place = q35_place(machine->board, Q35_XHCI, 0);
    struct input_device keyboard, tablet;
    struct xhci_config config = {
        .pci = place.pci,
        .slot = place.slot,
        .function = place.function,
        .msi = place.msi,
        .ram = machine->ram,
        .clock = machine->clock,
        .log = machine->log,
    };
    config.devices[KEYBOARD_PORT] = usb_keyboard_create(machine->clock, &keyboard, err);
    if (!config.devices[KEYBOARD_PORT])
        return false;
    config.devices[TABLET_PORT] = usb_tablet_create(machine->clock, &tablet, err);
    if (!config.devices[TABLET_PORT]) {
        usb_device_destroy(config.devices[KEYBOARD_PORT]);
        return false;
    }
    struct xhci *xhci = xhci_create(&config, err);
    if (!xhci)
        return false;
    q35_adopt(machine->board, &place, &xhci_ops, xhci);
    input_add(q35_input(machine->board), &keyboard);
    input_add(q35_input(machine->board), &tablet);
    return true;
}

static bool plug_virtio(struct machine *machine, struct error *err)
{
    for (unsigned i = 0; i < 2; i++) {
        const struct virtio_input_config config = {
            .ram = machine->ram, .log = machine->log, .is_tablet = i == 1};
        const struct q35_place place = q35_place(machine->board, Q35_INPUT, i);
        struct input_device input;
        struct virtio_device *device = virtio_input_create(&config, &input, err);
        if (!device || !q35_plug(machine->board, &place, device, err))
            return false;
        input_add(q35_input(machine->board), &input);
    }
    return true;
}

bool plug_input(struct machine *machine, struct error *err)
{
    switch (machine->config.input) {
    case MACHINE_INPUT_USB: return plug_usb(machine, err);
    case MACHINE_INPUT_VIRTIO: return plug_virtio(machine, err);
    case MACHINE_INPUT_PS2:
    case MACHINE_INPUTS: break;
    }
    return true;
}
