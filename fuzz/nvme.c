/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Fuzz target: the NVMe controller, driven as a hostile guest would: queues, commands, PRP lists,
 * registers and doorbells from the input. The controller is made once and reset for each input.
 */
#include "fuzz/device.h"

#include "dev/pci.h"
#include "dev/storage/nvme.h"

enum {
    SLOT = 1,
    USED_RAM_BYTES = 96 << 10,
    QUEUES = 3,
    ENTRIES = 32,
    SQ_AT = 0x1000, /* a page a queue */
    CQ_AT = 0x5000,
    DATA_AT = 0x9000,
    OPERATIONS_MAX = 400,
};

static struct machine {
    struct ram *ram;
    struct bus *bus;
    struct pci_bus *pci;
    struct nvme *nvme;
    struct fuzz_disk disk;
    unsigned tail[QUEUES], head[QUEUES];
} machine;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    machine.ram = ram_create(FUZZ_RAM_BYTES, NULL);
    machine.bus = bus_create(NULL);
    require(machine.ram && machine.bus, "the machine is made");
    ram_set_watcher(machine.ram, fuzz_ram_written, machine.ram);
    fuzz_disk_init(&machine.disk, FUZZ_DISK_BYTES);
    machine.pci = pci_bus_create(&(struct pci_bus_config){.bus = machine.bus}, NULL);
    const struct block_backend backend = fuzz_disk_backend(&machine.disk);
    const struct nvme_config config = {.pci = machine.pci,
                                       .slot = SLOT,
                                       .msi = {fuzz_message, NULL},
                                       .ram = machine.ram,
                                       .backend = &backend};
    machine.nvme = nvme_create(&config, NULL);
    require(machine.nvme, "the controller is made");
    return 0;
}

static uint64_t bar(void)
{
    return (pci_bus_read(machine.pci, SLOT << 3, PCI_BAR0, 4) & ~UINT32_C(15)) |
           (uint64_t)pci_bus_read(machine.pci, SLOT << 3, PCI_BAR0 + 4, 4) << 32;
}

static void mmio(uint64_t offset, uint64_t value, unsigned size_bytes)
{
    bus_write(machine.bus, BUS_MMIO, bar() + offset, value, size_bytes);
}

/* ---- commands ---- */

static void put_command(unsigned queue, const uint32_t words[16])
{
    ram_write(machine.ram, SQ_AT + queue * 0x1000 + machine.tail[queue] * 64, words, 64);
    machine.tail[queue] = (machine.tail[queue] + 1) % ENTRIES;
}

static void ring(unsigned queue)
{
    mmio(0x1000 + 8 * queue, machine.tail[queue], 4);
}

/* Words of a command that are nearly right. */
static void make_command(struct input *in)
{
    static const uint8_t io[] = {0, 1, 2, 5, 8, 9, 2, 1};
    static const uint8_t admin[] = {0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 0x7f, 6, 2, 1, 5, 12};
    uint8_t shape = (uint8_t)take(in, 1), place = (uint8_t)take(in, 1);
    unsigned queue = shape % QUEUES;
    uint32_t words[16] = {0};
    unsigned opcode = queue ? io[shape >> 2 & 7] : admin[shape >> 2 & 15];
    words[0] = opcode | (uint32_t)place << 16 | (shape == 0xff ? 0x4000U : 0);
    words[1] = opcode == 6 || opcode == 2 ? 0 : 1;
    words[6] = DATA_AT + (place & 15) * 0x1000 + (place >> 6) * 0x200;
    words[8] = DATA_AT + (place >> 4) * 0x1000 + (shape & 0x40 ? 0xff0 : 0);
    words[10] = (uint32_t)take(in, 2);
    if (shape & 0x80) {
        words[10] = (uint32_t)take(in, 4);
        words[11] = (uint32_t)take(in, 4);
        words[1 + (place & 7)] ^= (uint32_t)take(in, 4);
    } else if (queue) {
        words[10] &= 127;
        words[11] = opcode == 9 ? 4 : 0;
    } else {
        words[10] = opcode == 1 || opcode == 5 ? (words[10] & 3) | (ENTRIES - 1) << 16 : words[10];
        words[11] = opcode == 1 ? (words[10] & 3) << 16 | 1 : (uint32_t)take(in, 1);
    }
    words[12] = (uint32_t)take(in, 1);
    put_command(queue, words);
    ring(queue);
}

static void create_queues(void)
{
    for (uint32_t i = 1; i < QUEUES; i++) {
        uint32_t words[16] = {5};
        words[6] = CQ_AT + i * 0x1000;
        words[10] = (ENTRIES - 1) << 16 | i;
        words[11] = i << 16 | 3;
        put_command(0, words);
        words[0] = 1;
        words[6] = SQ_AT + i * 0x1000;
        words[11] = i << 16 | 1;
        put_command(0, words);
    }
    ring(0);
}

static void enable(void)
{
    memset(machine.tail, 0, sizeof(machine.tail));
    memset(machine.head, 0, sizeof(machine.head));
    mmio(0x24, (ENTRIES - 1) << 16 | (ENTRIES - 1), 4);
    mmio(0x28, SQ_AT, 8);
    mmio(0x30, CQ_AT, 8);
    mmio(0x14, 4 << 20 | 6 << 16 | 1, 4);
    create_queues();
}

/* A PRP list, mostly of pages that are there. */
static void write_list(struct input *in)
{
    uint64_t at = DATA_AT + (take(in, 1) & 15) * 0x1000;
    for (unsigned i = 0; i < 8; i++) {
        uint8_t page = (uint8_t)take(in, 1);
        uint64_t entry = DATA_AT + (page & 15) * 0x1000 + (page >= 0xf0 ? 8 : 0);
        ram_write(machine.ram, at + 8 * i, &entry, 8);
        ram_write(machine.ram, at + 0xfc0 + 8 * i, &entry, 8);
    }
}

static void move_head(struct input *in)
{
    unsigned queue = take(in, 1) % QUEUES;
    machine.head[queue] = (machine.head[queue] + 1) % ENTRIES;
    mmio(0x1000 + 8 * queue + 4, machine.head[queue], 4);
}

static void operation(struct input *in)
{
    uint8_t code = (uint8_t)take(in, 1);
    unsigned size = 1U << (code >> 5 & 3);
    switch (code & 15) {
    case 0:
    case 1:
    case 2:
    case 3: make_command(in); break;
    case 4: fuzz_write_memory(in, machine.ram, USED_RAM_BYTES); break;
    case 5: write_list(in); break;
    case 6:
    case 7: fuzz_disk_finish_any(in, &machine.disk); break;
    case 8: move_head(in); break;
    case 9: mmio(0x1000 + 4 * (take(in, 1) & 15), take(in, 2), 4); break;
    case 10: mmio(take(in, 1) & 0x3f, take(in, size), size); break;
    case 11: bus_read(machine.bus, BUS_MMIO, bar() + (take(in, 2) & 0x3fff), size); break;
    case 12:
        fuzz_disk_drain(&machine.disk);
        fuzz_save_and_load(in, &nvme_ops, machine.nvme);
        break;
    case 13: {
        unsigned at = (unsigned)take(in, 1);
        pci_bus_write(machine.pci, SLOT << 3, at, (uint32_t)take(in, 4), size < 4 ? size : 4);
        break;
    }
    case 14: mmio(0x14, take(in, 1) & 1 ? 4 << 20 | 6 << 16 | 1 : take(in, 4), 4); break;
    case 15: enable(); break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
    static const uint8_t zeroes[USED_RAM_BYTES];
    static const struct pci_windows windows = {.mmio32 = {0xc0000000, 0x100000},
                                               .mmio64 = {UINT64_C(0x800000000), 0x100000}};
    struct input in = {data, size_bytes};
    fuzz_disk_drain(&machine.disk);
    nvme_ops.reset(machine.nvme);
    ram_write(machine.ram, 0, zeroes, sizeof(zeroes));
    require(pci_assign_bars(machine.pci, &windows, NULL), "BARs are placed");
    enable();
    for (unsigned i = 0; in.left && i < OPERATIONS_MAX; i++)
        operation(&in);
    return 0;
}
