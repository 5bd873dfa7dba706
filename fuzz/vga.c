/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Fuzz target: the VGA, driven as a hostile guest would: ports, the window, the frame buffer's
 * registers, and what a saved machine's file says. It is looked at in between. The machine is made
 * once and reset for each input; an input is a list of operations.
 */
#include "dev/vga/vga.h"
#include "bus/clock.h"
#include "fuzz/canvas.h"

enum {
    DEVFN = 24 << 3,
    MEMORY_BYTES = VGA_MEMORY_MIN_BYTES,
    FRAME_BASE = 0x40000000,
    REGISTERS_BASE = 0x50000000,
    WINDOW_BASE = 0xa0000,
    OPERATIONS_MAX = 400,
    REFRESHES_MAX = 4, /* they take long */
};

struct machine {
    struct ram *ram;
    struct bus *bus;
    struct physmap *physmap;
    struct pci_bus *pci;
    struct clock *clock;
    struct vga *vga;
    struct display_canvas canvas;
};
static struct machine machine;

static void look(bool whole)
{
    fuzz_canvas_refresh(&machine.canvas, vga_display(machine.vga), whole);
}

static void operation(struct input *in, unsigned *refreshes)
{
    uint8_t code = (uint8_t)take(in, 1);
    unsigned size = 1U << (code >> 4 & 3);
    uint64_t offset;
    switch (code & 15) {
    case 0:
    case 1:
    case 2: /* an index and its register */
        bus_write(machine.bus, BUS_PORT, 0x3c0 + (take(in, 1) & 0x1f), take(in, 2), 2);
        break;
    case 3: bus_write(machine.bus, BUS_PORT, 0x3b0 + take(in, 1) % 48, take(in, 1), 1); break;
    case 4: bus_read(machine.bus, BUS_PORT, 0x3b0 + take(in, 1) % 48, size < 4 ? size : 4); break;
    case 5:
    case 6:
        bus_write(machine.bus, BUS_PORT, 0x1ce, take(in, 1) & 15, 2);
        bus_write(machine.bus, BUS_PORT, 0x1cf, take(in, 2), 2);
        break;
    case 7:
    case 8:
        offset = take(in, 3) & 0x1ffff;
        bus_write(machine.bus, BUS_MMIO, WINDOW_BASE + offset, take(in, 4), size);
        break;
    case 9: bus_read(machine.bus, BUS_MMIO, WINDOW_BASE + (take(in, 3) & 0x1ffff), size); break;
    case 10:
        offset = take(in, 2) & 0xfff;
        bus_write(machine.bus, BUS_MMIO, REGISTERS_BASE + offset, take(in, 4), size);
        break;
    case 11: bus_read(machine.bus, BUS_MMIO, REGISTERS_BASE + (take(in, 2) & 0xfff), size); break;
    case 12:
        offset = take(in, 1);
        pci_bus_write(machine.pci, DEVFN, (unsigned)offset, (uint32_t)take(in, 4),
                      size & 7 ? size & 7 : 4);
        break;
    case 13: fuzz_save_and_load(in, &vga_ops, machine.vga); break;
    default:
        if (++*refreshes <= REFRESHES_MAX)
            look(code & 0x80);
        break;
    }
}

static void reset(void)
{
    vga_ops.reset(machine.vga);
    pci_bus_write(machine.pci, DEVFN, PCI_BAR0, FRAME_BASE, 4);
    pci_bus_write(machine.pci, DEVFN, PCI_BAR0 + 8, REGISTERS_BASE, 4);
    pci_bus_write(machine.pci, DEVFN, PCI_COMMAND, PCI_COMMAND_IO | PCI_COMMAND_MEMORY, 2);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    machine.ram = ram_create(1 << 20, NULL);
    machine.bus = bus_create(NULL);
    machine.physmap = physmap_create(machine.ram);
    const struct pci_bus_config pci = {.bus = machine.bus, .physmap = machine.physmap};
    machine.pci = pci_bus_create(&pci, NULL);
    machine.clock = clock_create(NULL);
    const struct vga_config config = {
        .pci = machine.pci,
        .slot = DEVFN >> 3,
        .vga_port = 0x3b0,
        .dispi_port = 0x1ce,
        .window_base = WINDOW_BASE,
        .memory_bytes = MEMORY_BYTES,
        .width = 640,
        .height = 480,
        .clock = machine.clock,
        .physmap = machine.physmap,
    };
    machine.vga = vga_create(&config, NULL);
    require(machine.vga, "the device is made");
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
    struct input in = {data, size_bytes};
    unsigned refreshes = 0;
    reset();
    for (unsigned i = 0; in.left && i < OPERATIONS_MAX; i++)
        operation(&in, &refreshes);
    look(false);
    return 0;
}
