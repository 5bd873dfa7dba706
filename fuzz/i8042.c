/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The keyboard controller: bytes to and from its ports, keys and movement, in any order. Lines are
 * as the output buffer says, and whoever reads comes to an end.
 */
#include "dev/i8042.h"

#include "fuzz/device.h"

enum {
    DATA = 0x60,
    COMMAND = 0x64,
    STATUS_FULL = 1,
    STATUS_MOUSE = 0x20,
    /* Both queues, and a packet of four bytes for each step of a wheel that was turned to its end
     * while nobody has read. */
    READS_MAX = 2 * 256 + 4 * 4096 + 8,
    OPERATIONS_MAX = 1000,
};

static struct {
    struct bus *bus;
    struct i8042 *kbc;
    struct input_device input;
    bool lines[2];
    unsigned resets, a20s;
} machine;

static void set_line(void *opaque, unsigned line, bool level)
{
    machine.lines[line] = level;
}

static void reset(void *opaque)
{
    machine.resets++;
    i8042_mouse(machine.kbc, 1, 1, 0, 0); /* no lock is held */
}

static void set_a20(void *opaque, bool is_enabled)
{
    machine.a20s++;
    i8042_key(machine.kbc, 1, is_enabled);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    machine.bus = bus_create(NULL);
    require(machine.bus, "the bus is made");
    const struct i8042_config config = {.data_base = DATA,
                                        .command_base = COMMAND,
                                        .keyboard_irq = {set_line, NULL, 0},
                                        .mouse_irq = {set_line, NULL, 1},
                                        .reset = reset,
                                        .set_a20 = set_a20};
    machine.kbc = i8042_create(&config, machine.bus, NULL);
    require(machine.kbc, "the controller is made");
    machine.input = i8042_input(machine.kbc);
    return 0;
}

static uint64_t status(void)
{
    return bus_read(machine.bus, BUS_PORT, COMMAND, 1);
}

static void check_lines(void)
{
    const uint64_t now = status();
    require(!machine.lines[0] || ((now & STATUS_FULL) && !(now & STATUS_MOUSE)),
            "the keyboard's line is up for its byte only");
    require(!machine.lines[1] || ((now & STATUS_FULL) && (now & STATUS_MOUSE)),
            "the mouse's line is up for its byte only");
}

static void read_all(void)
{
    unsigned reads = 0;
    for (; (status() & STATUS_FULL) && reads < READS_MAX; reads++)
        bus_read(machine.bus, BUS_PORT, DATA, 1);
    require(reads < READS_MAX, "all is read at last");
}

static void move(struct input *in, uint8_t code)
{
    if (code & 0x80) {
        const struct input_pointer pointer = {.dx = (int32_t)take(in, 4),
                                              .dy = (int32_t)take(in, 4),
                                              .wheel_up = (int32_t)take(in, 4),
                                              .buttons = (uint8_t)take(in, 1)};
        machine.input.pointer(machine.input.opaque, &pointer);
    } else {
        i8042_mouse(machine.kbc, (int8_t)take(in, 1), (int8_t)take(in, 1), (int8_t)take(in, 1),
                    code >> 3);
    }
}

/* What was changed may have lines up that no byte is for: the board would have saved them alike. */
static void save_and_load(struct input *in)
{
    const size_t left = in->left;
    fuzz_save_and_load(in, &i8042_ops, machine.kbc);
    if (left - in->left > 1)
        i8042_ops.reset(machine.kbc);
}

static void operation(struct input *in)
{
    uint8_t code = (uint8_t)take(in, 1);
    switch (code & 7) {
    case 0: bus_write(machine.bus, BUS_PORT, COMMAND, take(in, 1), 1); break;
    case 1:
    case 2: bus_write(machine.bus, BUS_PORT, DATA, take(in, 1), 1); break;
    case 3: bus_read(machine.bus, BUS_PORT, DATA, 1u << (code >> 6 & 1)); break;
    case 4: machine.input.key(machine.input.opaque, (unsigned)take(in, 1), code & 8); break;
    case 5: i8042_key(machine.kbc, (unsigned)take(in, 2), code & 8); break;
    case 6: move(in, code); break;
    case 7:
        if (code & 8)
            save_and_load(in);
        else
            read_all();
        break;
    }
    check_lines();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
    struct input in = {data, size_bytes};
    i8042_ops.reset(machine.kbc);
    for (unsigned i = 0; in.left && i < OPERATIONS_MAX; i++)
        operation(&in);
    read_all();
    return 0;
}
