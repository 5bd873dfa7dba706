/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Fuzz target: virtqueues, the PCI transport, the disk and the entropy device, driven as a hostile
 * guest would: ring memory, registers, configuration space and BARs from the input. The machine is
 * made once and reset for each input.
 *
 * The input starts with four bytes (features, ring sizes), then come operations: a byte that says
 * which, and its arguments.
 */
#include "base/loop.h"
#include "dev/pci.h"
#include "dev/pci_host.h"
#include "dev/virtio/blk.h"
#include "dev/virtio/pci.h"
#include "dev/virtio/rng.h"
#include "fuzz/device.h"

enum {
    USED_RAM_BYTES = 64 << 10, /* what the input writes to, and is cleared */
    SLOT_BLK = 1,
    SLOT_RNG = 2,
    DEVICES = 2,
    BLK_QUEUES = 2,
    OPERATIONS_MAX = 400,
    RING_BYTES = 0x1000, /* from one queue's rings to the next */
};

/* What a driver knows of a ring, to make requests that are nearly right. */
struct ring {
    uint16_t size, next;
    bool packed, wrap;
};

struct machine {
    struct ram *ram;
    struct bus *bus;
    struct pci_bus *pci;
    struct pci_host *host;
    struct loop *loop;
    struct virtio_pci *devices[DEVICES];
    struct fuzz_disk disk;
    struct ring rings[BLK_QUEUES + 1]; /* the disk's, and the entropy device's */
};
static struct machine machine;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    machine.ram = ram_create(FUZZ_RAM_BYTES, NULL);
    machine.bus = bus_create(NULL);
    machine.loop = loop_create(NULL);
    require(machine.ram && machine.bus && machine.loop, "the machine is made");
    ram_set_watcher(machine.ram, fuzz_ram_written, machine.ram);
    fuzz_disk_init(&machine.disk, FUZZ_DISK_BYTES);
    machine.disk.ram = machine.ram;
    machine.pci = pci_bus_create(&(struct pci_bus_config){.bus = machine.bus}, NULL);
    machine.host = pci_host_create(&(struct pci_host_config){machine.pci, 0xcf8, 0xb0000000}, NULL);
    const struct block_backend backend = fuzz_disk_backend(&machine.disk);
    struct virtio_blk_config blk = {.ram = machine.ram,
                                    .loop = machine.loop,
                                    .backend = &backend,
                                    .serial = "fuzz",
                                    .queue_count = BLK_QUEUES,
                                    .queue_size = 64};
    struct virtio_rng_config rng = {.ram = machine.ram, .loop = machine.loop};
    struct virtio_device *devices[DEVICES] = {virtio_blk_create(&blk, NULL),
                                              virtio_rng_create(&rng, NULL)};
    for (unsigned i = 0; i < DEVICES; i++) {
        struct virtio_pci_config place = {machine.pci, SLOT_BLK + i, 0, {fuzz_message, NULL}};
        require(devices[i], "the devices are made");
        machine.devices[i] = virtio_pci_create(&place, devices[i], NULL);
        require(machine.devices[i], "the functions are made");
    }
    return 0;
}

static uint64_t registers(unsigned device)
{
    uint64_t base =
        pci_bus_read(machine.pci, (SLOT_BLK + device) << 3, PCI_BAR0, 4) & ~UINT32_C(15);
    return base | (uint64_t)pci_bus_read(machine.pci, (SLOT_BLK + device) << 3, PCI_BAR0 + 4, 4)
                      << 32;
}

static void mmio(uint64_t address, uint64_t value, unsigned size_bytes)
{
    bus_write(machine.bus, BUS_MMIO, address, value, size_bytes);
}

static void setup_queue(uint64_t common, unsigned index, unsigned ring, uint16_t size, bool packed)
{
    machine.rings[ring] = (struct ring){size ? size : 1, 0, packed, true};
    uint64_t base = 0x1000 + (uint64_t)ring * RING_BYTES;
    mmio(common + 22, index, 2);
    mmio(common + 24, size, 2);
    mmio(common + 26, index + 1, 2);
    mmio(common + 32, base, 8);
    mmio(common + 40, base + 0x800, 8);
    mmio(common + 48, base + 0xc00, 8);
    mmio(common + 28, 1, 2);
}

/* Brings a device up as a driver does, so that the input need not find out how. */
static void setup_device(unsigned device, uint8_t features, uint16_t size)
{
    uint64_t common = registers(device);
    uint32_t low = (uint32_t)(features & 3) << 28 | (features & 4 ? 0x7e44U : 0);
    mmio(common + 20, 0, 1);
    mmio(common + 20, 3, 1);
    mmio(common + 8, 0, 4);
    mmio(common + 12, low & (device == 0 ? UINT32_MAX : UINT32_C(3) << 28), 4);
    mmio(common + 8, 1, 4);
    mmio(common + 12, 1 | (features & 8 ? 4U : 0) | (features & 16 ? 1U << 8 : 0), 4);
    mmio(common + 20, 0xb, 1);
    unsigned queues = device == 0 ? BLK_QUEUES : 1;
    for (unsigned i = 0; i < queues; i++)
        setup_queue(common, i, device == 0 ? i : BLK_QUEUES, size, features & 8);
    mmio(common + 20, 0xf, 1);
}

static void put_descriptor(uint64_t at, uint64_t gpa, uint32_t size, uint16_t word0, uint16_t word1)
{
    uint8_t bytes[16];
    uint16_t words[2] = {word0, word1};
    memcpy(bytes, &gpa, 8);
    memcpy(bytes + 8, &size, 4);
    memcpy(bytes + 12, words, 4);
    ram_write(machine.ram, at, bytes, sizeof(bytes));
}

/* A descriptor from a few bytes: most are near to what works. */
static void write_descriptor(struct input *in)
{
    uint8_t where = (uint8_t)take(in, 1), shape = (uint8_t)take(in, 1);
    uint64_t at = 0x1000 + (where & 3) * (uint64_t)RING_BYTES + (where >> 2) * 16U;
    uint64_t gpa = 0x8000 + take(in, 1) * 64;
    uint32_t size = shape & 0x40 ? (uint32_t)take(in, 4) : 1U << (shape >> 3 & 7) << (shape >> 5);
    uint16_t words[2] = {(uint16_t)take(in, 2), (uint16_t)take(in, 2)};
    if (shape & 0x80)
        gpa = take(in, 8);
    put_descriptor(at, gpa, size, words[0], words[1]);
}

/* The pieces of a request to the disk: header, data, status; gives how many. */
static unsigned request_pieces(struct input *in, uint64_t gpa[3], uint32_t sizes[3],
                               bool writable[3])
{
    static const uint32_t types[8] = {0, 1, 0, 1, 4, 8, 11, 13};
    uint8_t shape = (uint8_t)take(in, 1), place = (uint8_t)take(in, 1);
    uint32_t type = types[shape & 7], lengths[4] = {0, 512, 16, 1024};
    uint64_t sector = place & 31;
    bool reads = type == 0 || type == 8;
    gpa[0] = 0x8000 + (place >> 4) * 0x800U;
    ram_write(machine.ram, gpa[0], &type, 4);
    ram_write(machine.ram, gpa[0] + 8, &sector, 8);
    sizes[0] = 16;
    writable[0] = false;
    gpa[1] = gpa[0] + 16;
    sizes[1] = lengths[shape >> 3 & 3];
    if (type >= 11) { /* a segment of its own */
        uint64_t words[2] = {sector, 1 + (place & 3) + ((uint64_t)(shape >> 7) << 32)};
        ram_write(machine.ram, gpa[1], words, sizeof(words));
    }
    writable[1] = reads;
    unsigned count = sizes[1] ? 2 : 1;
    gpa[count] = gpa[0] + 0x700;
    sizes[count] = 1;
    writable[count] = true;
    return count + 1;
}

/* Makes a request available in a ring, in the format that the device was set up with. */
static void make_request(struct input *in)
{
    uint8_t where = (uint8_t)take(in, 1);
    unsigned number = where % (BLK_QUEUES + 1);
    struct ring *ring = &machine.rings[number];
    uint64_t base = 0x1000 + (uint64_t)number * RING_BYTES, gpa[3], table = 0xf000;
    uint32_t sizes[3];
    bool writable[3], indirect = where & 0x80;
    unsigned count = request_pieces(in, gpa, sizes, writable);
    uint16_t head = ring->next % ring->size, first_flags = 0;
    for (unsigned i = 0; i < count; i++) {
        uint16_t flags = (uint16_t)((writable[i] ? 2 : 0) | (i + 1 < count ? 1 : 0));
        uint64_t at = indirect ? table + 16 * i : base + 16U * (ring->next % ring->size);
        if (ring->packed && !indirect)
            flags |= ring->wrap ? 1 << 7 : 1 << 15;
        if (i == 0)
            first_flags = flags;
        uint16_t next = indirect ? (uint16_t)(i + 1) : (uint16_t)((ring->next + 1) % ring->size);
        put_descriptor(at, gpa[i], sizes[i], ring->packed ? head : flags,
                       ring->packed ? flags : next);
        if (!indirect && ++ring->next % ring->size == 0)
            ring->wrap = !ring->wrap;
    }
    if (indirect) {
        first_flags = (uint16_t)(4 | (ring->packed ? ring->wrap ? 1 << 7 : 1 << 15 : 0));
        put_descriptor(base + 16U * head, table, 16 * count, ring->packed ? head : first_flags,
                       ring->packed ? first_flags : 0);
        if (++ring->next % ring->size == 0)
            ring->wrap = !ring->wrap;
    }
    if (ring->packed)
        return;
    uint16_t index;
    ram_read(machine.ram, base + 0x800 + 2, &index, 2);
    ram_write(machine.ram, base + 0x800 + 4 + 2U * (index % ring->size), &head, 2);
    index++;
    ram_write(machine.ram, base + 0x800 + 2, &index, 2);
}

static void operation(struct input *in)
{
    uint8_t code = (uint8_t)take(in, 1);
    unsigned device = code >> 4 & 1, size = 1U << (code >> 5 & 3);
    uint64_t base = registers(device);
    switch (code & 15) {
    case 0:
    case 1: fuzz_write_memory(in, machine.ram, USED_RAM_BYTES); break;
    case 2:
    case 3: write_descriptor(in); break;
    case 4: make_request(in); break;
    case 5:
    case 6: mmio(base + 0x3000 + 4 * (take(in, 1) & 3), 0, 2); break;
    case 7: fuzz_disk_finish_any(in, &machine.disk); break;
    case 8: mmio(base + (take(in, 1) & 0x3f), take(in, size), size); break;
    case 9: mmio(base + (take(in, 2) & 0x3fff), take(in, size), size); break;
    case 10: bus_read(machine.bus, BUS_MMIO, base + (take(in, 2) & 0x3fff), size); break;
    case 11: {
        unsigned reg = (unsigned)take(in, 1);
        uint32_t value = (uint32_t)take(in, 4);
        pci_bus_write(machine.pci, (SLOT_BLK + device) << 3, reg, value, size < 4 ? size : 4);
        break;
    }
    case 12:
        pci_bus_read(machine.pci, (SLOT_BLK + device) << 3, (unsigned)take(in, 1),
                     size < 4 ? size : 4);
        break;
    case 13: setup_device(device, (uint8_t)take(in, 1), 16); break;
    case 14:
        fuzz_disk_drain(&machine.disk);
        fuzz_save_and_load(in, &virtio_pci_ops, machine.devices[device]);
        virtio_pci_kick_all(machine.devices[device]);
        break;
    case 15: mmio(UINT64_C(0xc0000000) + (take(in, 2) & 0x3fff), take(in, size), size); break;
    }
}

static void reset(void)
{
    static const uint8_t zeroes[USED_RAM_BYTES];
    static const struct pci_windows windows = {.mmio32 = {0xc0000000, 0x100000},
                                               .mmio64 = {UINT64_C(0x800000000), 0x100000}};
    loop_run_once(machine.loop, 0); /* queues that are to be served on */
    fuzz_disk_drain(&machine.disk);
    for (unsigned i = 0; i < DEVICES; i++)
        virtio_pci_ops.reset(machine.devices[i]);
    ram_write(machine.ram, 0, zeroes, sizeof(zeroes));
    require(pci_assign_bars(machine.pci, &windows, NULL), "BARs are placed");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
    struct input in = {data, size_bytes};
    reset();
    for (unsigned i = 0; i < DEVICES; i++) {
        uint8_t features = (uint8_t)take(&in, 1), size = (uint8_t)take(&in, 1);
        setup_device(i, features, size & 0x80 ? size & 0x7f : 16);
    }
    for (unsigned i = 0; in.left && i < OPERATIONS_MAX; i++)
        operation(&in);
    return 0;
}
