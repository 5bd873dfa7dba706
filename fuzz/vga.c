/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Fuzz target: the VGA, driven as a hostile guest would: ports, the window, the frame buffer's
 * registers, and what a saved machine's file says. It is looked at in between. The machine is made
 * once and reset for each input; an input is a list of operations.
 */
#include "dev/vga/vga.h"
#include "bus/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes);

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

static void require(bool truth, const char *what)
{
    if (truth)
        return;
    fprintf(stderr, "not so: %s\n", what);
    abort();
}

struct input {
    const uint8_t *at;
    size_t left;
};

static uint32_t take(struct input *in, unsigned size_bytes)
{
    uint32_t value = 0;
    for (unsigned i = 0; i < size_bytes && in->left; i++, in->left--)
        value |= (uint32_t)*in->at++ << 8 * i;
    return value;
}

/* A canvas of exactly the size, so that the sanitizer sees a pixel too many. */
static struct display_canvas *get_canvas(void *opaque, uint32_t width, uint32_t height)
{
    require(width && height && width <= DISPLAY_MAX_WIDTH && height <= DISPLAY_MAX_HEIGHT, "size");
    if ((uint64_t)width * height > 1 << 20)
        return NULL; /* as if out of memory: drawing it would take too long */
    free(machine.canvas.pixels);
    machine.canvas =
        (struct display_canvas){malloc((size_t)width * height * 4), width, height, width};
    require(machine.canvas.pixels, "memory");
    memset(machine.canvas.pixels, 0, (size_t)width * height * 4);
    return &machine.canvas;
}

static void drawn(void *opaque, const struct display_rectangle *r)
{
    require(r->width && r->height && r->x + r->width <= machine.canvas.width &&
                r->y + r->height <= machine.canvas.height,
            "the rectangle lies in the canvas");
}

static void look(bool whole)
{
    static const struct display_viewer viewer = {.canvas = get_canvas, .drawn = drawn};
    const struct display_source *source = vga_display(machine.vga);
    source->refresh(source->opaque, &viewer, whole);
}

/* Saves and loads again, with bytes changed. */
static void save_and_load(struct input *in)
{
    unsigned changes = take(in, 1) & 3;
    struct save save = {0};
    save_begin(&save, vga_ops.name, vga_ops.version);
    vga_ops.save(machine.vga, &save);
    save_end(&save);
    require(!save.failed, "it is saved");
    for (unsigned i = 0; i < changes; i++) {
        size_t at = take(in, 2);
        uint8_t value = (uint8_t)take(in, 1);
        if (at < save.size_bytes)
            save.bytes[at] ^= value;
    }
    struct load load;
    uint32_t version;
    load_init(&load, save.bytes, save.size_bytes);
    bool loaded =
        load_begin(&load, vga_ops.name, &version) && vga_ops.load(machine.vga, &load, version);
    require(loaded || changes, "what was saved is loaded");
    save_free(&save);
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
        pci_bus_write(machine.pci, DEVFN, take(in, 1), take(in, 4), size & 7 ? size & 7 : 4);
        break;
    case 13: save_and_load(in); break;
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
