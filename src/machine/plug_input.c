/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The machine's input devices beside the board's own PS/2 ones, as configured; those on USB are in
 * plug_usb.c.
 */
#include "dev/virtio/input.h"
#include "machine/machine_internal.h"

static bool plug_virtio(struct machine *machine, struct error *err)
{
    for (unsigned i = 0; i < 2; i++) {
        const struct virtio_input_config config = {
            .ram = machine->ram, .loop = machine->loop, .log = machine->log, .is_tablet = i == 1};
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
    return machine->config.input != MACHINE_INPUT_VIRTIO || plug_virtio(machine, err);
}
