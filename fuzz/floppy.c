/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Fuzz target: the floppy controller with the DMA controllers, driven through their ports. The
 * machine is made once and reset for each input; the disk is one of 160 KiB.
 */
#include "fuzz/device.h"

#include "dev/i8237.h"
#include "dev/storage/floppy.h"

enum { OPERATIONS_MAX = 600, KIB_160 = 160 << 10 };

static struct machine {
    struct ram *ram;
    struct bus *bus;
    struct i8237 *dma;
    struct floppy *floppy;
    struct fuzz_disk disk;
} machine;

static void irq(void *opaque, unsigned number, bool level) {}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    machine.ram = ram_create(FUZZ_RAM_BYTES, NULL);
    machine.bus = bus_create(NULL);
    require(machine.ram && machine.bus, "the machine is made");
    ram_set_watcher(machine.ram, fuzz_ram_written, machine.ram);
    fuzz_disk_init(&machine.disk, KIB_160);
    const struct i8237_config dma = {0x00, 0xc0, 0x81, machine.ram};
    machine.dma = i8237_create(&dma, machine.bus, NULL);
    require(machine.dma, "the DMA controllers are made");
    struct block_backend backend = fuzz_disk_backend(&machine.disk);
    const struct floppy_config config = {.base = 0x3f0,
                                         .irq = {irq, NULL, 6},
                                         .dma = i8237_channel(machine.dma, 2),
                                         .drives = {{true, &backend}, {true, NULL}}};
    machine.floppy = floppy_create(&config, machine.bus, NULL);
    require(machine.floppy, "the controller is made");
    return 0;
}

static void out(unsigned port, unsigned value)
{
    bus_write(machine.bus, BUS_PORT, port, value, 1);
}

static unsigned in(unsigned port)
{
    return (unsigned)bus_read(machine.bus, BUS_PORT, port, 1);
}

static void set_dma(struct input *input)
{
    uint8_t mode = (uint8_t)take(input, 1);
    uint16_t address = (uint16_t)take(input, 2), count = (uint16_t)take(input, 2);
    out(0x0c, 0);
    out(0x0b, mode & 1 ? 0x46 : mode & 2 ? 0x4a : mode | 2);
    out(0x04, address & 0xff);
    out(0x04, address >> 8);
    out(0x81, mode >> 6);
    out(0x05, count & 0xff);
    out(0x05, count >> 8);
    out(0x0a, 2);
}

/* A command whose parameters are nearly right, then what it asks for. */
static void command(struct input *input)
{
    static const uint8_t codes[] = {0xe6, 0xc5, 0x4d, 0x0f, 0x07, 0x08, 0x4a, 0x56,
                                    0x42, 0x4c, 0x03, 0x13, 0x94, 0x0e, 0x04, 0xcf};
    uint8_t shape = (uint8_t)take(input, 1), place = (uint8_t)take(input, 1);
    uint8_t track = place & 3;
    const uint8_t bytes[9] = {codes[shape & 15],
                              shape >> 4 & 1,
                              (shape & 15) == 2 ? 2 : track,
                              (shape & 15) == 2 ? 8 : 0,
                              (uint8_t)((place >> 2 & 7) + 1),
                              2,
                              8,
                              0x1b,
                              0xff};
    if (shape & 0x20) {
        out(0x3f2, 0x1c);
        out(0x3f7, 2);
    }
    for (unsigned i = 0; i < sizeof(bytes); i++)
        out(0x3f5, shape & 0x40 && i == (place >> 5) ? (unsigned)take(input, 1) : bytes[i]);
}

static void operation(struct input *input)
{
    uint8_t code = (uint8_t)take(input, 1);
    switch (code & 15) {
    case 0:
    case 1:
    case 2:
    case 3: command(input); break;
    case 4: set_dma(input); break;
    case 5:
    case 6: fuzz_disk_finish_any(input, &machine.disk); break;
    case 7: out(0x3f5, (unsigned)take(input, 1)); break;
    case 8:
        for (unsigned i = 0; i < 600 && in(0x3f4) & 0x40; i++)
            in(0x3f5);
        break;
    case 9:
        for (unsigned i = 0; i < 1100 && (in(0x3f4) & 0xe0) == 0xa0; i++)
            out(0x3f5, i);
        break;
    case 10: out(0x3f0 + (code >> 4 & 7), (unsigned)take(input, 1)); break;
    case 11: in(0x3f0 + (code >> 4 & 7)); break;
    case 12: out((unsigned)take(input, 1) & 0xdf, (unsigned)take(input, 1)); break;
    case 13:
        fuzz_disk_drain(&machine.disk);
        fuzz_save_and_load(input, &floppy_ops, machine.floppy);
        break;
    case 14: fuzz_save_and_load(input, &i8237_ops, machine.dma); break;
    case 15: {
        struct block_backend backend = fuzz_disk_backend(&machine.disk);
        floppy_change_medium(machine.floppy, 0, code & 0x10 ? NULL : &backend);
        break;
    }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
    struct input input = {data, size_bytes};
    struct block_backend backend = fuzz_disk_backend(&machine.disk);
    fuzz_disk_drain(&machine.disk);
    floppy_change_medium(machine.floppy, 0, &backend);
    floppy_ops.reset(machine.floppy);
    i8237_ops.reset(machine.dma);
    out(0x3f2, 0x1c);
    out(0x3f7, 2);
    for (unsigned i = 0; input.left && i < OPERATIONS_MAX; i++)
        operation(&input);
    return 0;
}
