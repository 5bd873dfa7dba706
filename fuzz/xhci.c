/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The xHC with keyboard and tablet: registers, rings and contexts from the input. The input writes
 * near the structures that a driver would use, so that much of it is nearly right.
 */
#include "dev/usb/xhci.h"
#include "dev/pci.h"
#include "dev/pci_host.h"
#include "dev/usb/hid.h"
#include "fuzz/device.h"

enum {
    RAM_BYTES = 1 << 20,
    USED_BYTES = 0x10000,
    SLOT = 3,
    OPERATIONS_MAX = 400,
    CONTEXTS = 0x1000, /* then a command ring, an event ring, transfer rings, contexts */
    COMMANDS = 0x2000,
    EVENTS = 0x3000,
    TABLE = 0x3800,
    INPUT = 0x5000,
    OUTPUT = 0x6000,
};

static struct {
    struct ram *ram;
    struct bus *bus;
    struct pci_bus *pci;
    struct clock *clock;
    struct xhci *xhci;
    struct input_device keyboard, tablet;
} machine;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    machine.ram = ram_create(RAM_BYTES, NULL);
    machine.bus = bus_create(NULL);
    machine.clock = clock_create(NULL);
    require(machine.ram && machine.bus && machine.clock, "the machine is made");
    ram_set_watcher(machine.ram, fuzz_ram_written, machine.ram);
    const struct pci_bus_config pci = {.bus = machine.bus};
    machine.pci = pci_bus_create(&pci, NULL);
    struct xhci_config config = {.pci = machine.pci,
                                 .slot = SLOT,
                                 .msi = {fuzz_message, NULL},
                                 .ram = machine.ram,
                                 .clock = machine.clock};
    config.devices[0] = usb_keyboard_create(machine.clock, &machine.keyboard, NULL);
    config.devices[1] = usb_tablet_create(machine.clock, &machine.tablet, NULL);
    machine.xhci = xhci_create(&config, NULL);
    require(machine.xhci, "the controller is made");
    return 0;
}

static uint64_t bar(void)
{
    uint64_t low = pci_bus_read(machine.pci, SLOT << 3, PCI_BAR0, 4) & ~UINT32_C(15);
    return low | (uint64_t)pci_bus_read(machine.pci, SLOT << 3, PCI_BAR0 + 4, 4) << 32;
}

static void put(unsigned offset, uint64_t value, unsigned size_bytes)
{
    bus_write(machine.bus, BUS_MMIO, bar() + offset, value, size_bytes);
}

static void write_trb(uint64_t gpa, uint64_t parameter, uint32_t status, uint32_t control)
{
    ram_write(machine.ram, gpa, &parameter, 8);
    ram_write(machine.ram, gpa + 8, &status, 4);
    ram_write(machine.ram, gpa + 12, &control, 4);
}

/* As a driver brings a controller up, and an address for one of the two devices. */
static void start(bool is_tablet)
{
    const uint64_t table[2] = {EVENTS, 64}, output = OUTPUT;
    const uint32_t input[] = {0,        3,
                              0,        0,
                              0,        0,
                              0,        0,
                              1u << 27, is_tablet ? 2u << 16 : 1u << 16,
                              0,        0,
                              0,        0,
                              0,        0,
                              0,        8u << 16 | 4 << 3,
                              0x4001};
    ram_write(machine.ram, TABLE, table, sizeof(table));
    ram_write(machine.ram, CONTEXTS + 8, &output, sizeof(output));
    ram_write(machine.ram, INPUT, input, sizeof(input));
    write_trb(COMMANDS, 0, 0, 9 << 10 | 1);
    write_trb(COMMANDS + 16, INPUT, 0, 1 << 24 | 11 << 10 | 1);
    put(0x78, 16, 4);
    put(0x70, CONTEXTS, 8);
    put(0x58, COMMANDS | 1, 8);
    put(0x1028, 1, 4);
    put(0x1038, EVENTS, 8);
    put(0x1030, TABLE, 8);
    put(0x1020, 2, 4);
    put(0x440, 0x210, 4);
    put(0x450, 0x210, 4);
    put(0x40, 5, 4);
    put(0x2000, 0, 4);
}

static void operation(struct input *in)
{
    uint8_t code = (uint8_t)take(in, 1);
    switch (code & 7) {
    case 0: { /* memory */
        uint64_t gpa = take(in, 2), value = take(in, 8);
        ram_write(machine.ram, gpa, &value, 8);
        break;
    }
    case 1: { /* a TRB in a ring */
        uint64_t gpa = 0x2000 + (code >> 3 & 3) * 0x1000 + (take(in, 1) & 31) * 16;
        uint64_t parameter = take(in, 2);
        uint32_t status = (uint32_t)take(in, 2);
        write_trb(gpa, parameter, status, (uint32_t)take(in, 4));
        break;
    }
    case 2: put(0x2000 + 4 * (code >> 3 & 3), take(in, 1) & 31, 4); break;
    case 3: put((unsigned)take(in, 2) & 0x3ffc, take(in, 4), 4); break;
    case 4:
        bus_read(machine.bus, BUS_MMIO, bar() + (take(in, 2) & 0x3fff), 1u << (code >> 6));
        break;
    case 5: machine.keyboard.key(machine.keyboard.opaque, (unsigned)take(in, 1), code & 8); break;
    case 6: {
        const struct input_pointer at = {.x = (uint16_t)(take(in, 2) & INPUT_POSITION_MAX),
                                         .wheel_up = (int)take(in, 4),
                                         .buttons = code >> 3};
        machine.tablet.pointer(machine.tablet.opaque, &at);
        break;
    }
    case 7: fuzz_save_and_load(in, &xhci_ops, machine.xhci); break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
    static const uint8_t zeroes[USED_BYTES];
    static const struct pci_windows windows = {.mmio32 = {0xc0000000, 0x100000},
                                               .mmio64 = {UINT64_C(0x800000000), 0x100000}};
    struct input in = {data, size_bytes};
    xhci_ops.reset(machine.xhci);
    ram_write(machine.ram, 0, zeroes, sizeof(zeroes));
    require(pci_assign_bars(machine.pci, &windows, NULL), "BARs are placed");
    start(take(&in, 1) & 1);
    for (unsigned i = 0; in.left && i < OPERATIONS_MAX; i++)
        operation(&in);
    return 0;
}
