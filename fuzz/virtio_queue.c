/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Fuzz target: virtqueues, the PCI transport, the disk and the entropy device, driven as a hostile
 * guest would: ring memory, registers, configuration space and BARs from the input. The machine is
 * made once and reset for each input.
 *
 * The input starts with four bytes (features, ring sizes), then come operations: a byte that says
 * which, and its arguments. Beyond what the sanitizers see, the disk checks that each request lies
 * in the disk and in guest RAM, and guest RAM that ram_written() was told of RAM only.
 */
#include "bus/block.h"
#include "bus/bus.h"
#include "bus/ram.h"
#include "dev/pci.h"
#include "dev/pci_host.h"
#include "dev/virtio/blk.h"
#include "dev/virtio/pci.h"
#include "dev/virtio/rng.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes);

enum {
    RAM_BYTES = 256 << 10,
    USED_RAM_BYTES = 64 << 10, /* what the input writes to, and is cleared */
    DISK_BYTES = 64 << 10,
    SLOT_BLK = 1,
    SLOT_RNG = 2,
    DEVICES = 2,
    BLK_QUEUES = 2,
    WAITING_MAX = 256,
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
    struct virtio_pci *devices[DEVICES];
    uint8_t disk[DISK_BYTES];
    struct block_request *waiting[WAITING_MAX];
    unsigned waiting_count;
    struct ring rings[BLK_QUEUES + 1]; /* the disk's, and the entropy device's */
};
static struct machine machine;

static void require(bool truth, const char *what)
{
    if (truth)
        return;
    fprintf(stderr, "broken promise: %s\n", what);
    abort();
}

/* ---- what is around the devices ---- */

static void ram_watch(void *opaque, uint64_t gpa, uint64_t size_bytes)
{
    require(size_bytes && ram_hva(machine.ram, gpa, size_bytes), "ram_written() outside RAM");
}

static void msi_sent(void *opaque, uint64_t address, uint32_t data)
{
    require(address % 4 == 0, "a message to an odd address");
}

static void disk_submit(void *opaque, struct block_request *request)
{
    require(machine.waiting_count < WAITING_MAX, "more requests than the rings hold");
    machine.waiting[machine.waiting_count++] = request;
}

static void disk_info(void *opaque, struct block_info *info)
{
    *info = (struct block_info){DISK_BYTES, false, true, 512, 512};
}

static void disk_transfer(const struct block_request *r)
{
    const struct ram_region *region = ram_region(machine.ram, 0);
    uint64_t at = r->offset_bytes;
    for (unsigned i = 0; i < r->iov_count; i++) {
        uint8_t *base = r->iov[i].iov_base;
        size_t size = r->iov[i].iov_len;
        require(base >= region->hva && base + size <= region->hva + RAM_BYTES,
                "a request's memory is outside RAM");
        require(size <= r->offset_bytes + r->size_bytes - at, "a request's pieces are too long");
        if (r->kind == BLOCK_READ)
            memcpy(base, machine.disk + at, size);
        else
            memcpy(machine.disk + at, base, size);
        at += size;
    }
    require(at == r->offset_bytes + r->size_bytes, "a request's pieces are too short");
}

static void disk_finish(unsigned index, int error)
{
    struct block_request *r = machine.waiting[index];
    machine.waiting[index] = machine.waiting[--machine.waiting_count];
    require(r->offset_bytes <= DISK_BYTES && r->size_bytes <= DISK_BYTES - r->offset_bytes,
            "a request is outside the disk");
    if (!error && (r->kind == BLOCK_READ || r->kind == BLOCK_WRITE))
        disk_transfer(r);
    r->done(r, error);
}

static void disk_drain(void *opaque)
{
    while (machine.waiting_count)
        disk_finish(0, 0);
}

static void disk_close(void *opaque) {}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    machine.ram = ram_create(RAM_BYTES, NULL);
    machine.bus = bus_create(NULL);
    require(machine.ram && machine.bus, "the machine is made");
    ram_set_watcher(machine.ram, ram_watch, NULL);
    machine.pci = pci_bus_create(&(struct pci_bus_config){.bus = machine.bus}, NULL);
    machine.host = pci_host_create(&(struct pci_host_config){machine.pci, 0xcf8, 0xb0000000}, NULL);
    struct block_backend backend = {disk_submit, disk_info, disk_drain, disk_close, NULL};
    struct virtio_blk_config blk = {.ram = machine.ram,
                                    .backend = &backend,
                                    .serial = "fuzz",
                                    .queue_count = BLK_QUEUES,
                                    .queue_size = 64};
    struct virtio_rng_config rng = {.ram = machine.ram};
    struct virtio_device *devices[DEVICES] = {virtio_blk_create(&blk, NULL),
                                              virtio_rng_create(&rng, NULL)};
    for (unsigned i = 0; i < DEVICES; i++) {
        struct virtio_pci_config place = {machine.pci, SLOT_BLK + i, 0, {msi_sent, NULL}};
        require(devices[i], "the devices are made");
        machine.devices[i] = virtio_pci_create(&place, devices[i], NULL);
        require(machine.devices[i], "the functions are made");
    }
    return 0;
}

/* ---- the input ---- */

struct input {
    const uint8_t *at;
    size_t left;
};

static uint64_t take(struct input *in, unsigned size_bytes)
{
    uint64_t value = 0;
    if (size_bytes > in->left)
        size_bytes = (unsigned)in->left;
    memcpy(&value, in->at, size_bytes);
    in->at += size_bytes;
    in->left -= size_bytes;
    return value;
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

/* Writes bytes of the input to guest memory; mostly near the rings' beginnings. */
static void write_memory(struct input *in)
{
    uint64_t gpa = take(in, 2);
    size_t size = take(in, 1);
    if (size > in->left)
        size = in->left;
    if (size && gpa + size <= USED_RAM_BYTES)
        ram_write(machine.ram, gpa, in->at, size);
    in->at += size;
    in->left -= size;
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

static void finish_request(struct input *in)
{
    static const int errors[] = {0, 0, 0, EIO, EOPNOTSUPP, ENOSPC, 0, 0};
    uint8_t choice = (uint8_t)take(in, 1);
    if (machine.waiting_count)
        disk_finish((choice >> 3) % machine.waiting_count, errors[choice & 7]);
}

/* Saves a device and loads it again, as it was or with bytes changed. */
static void save_and_load(struct input *in)
{
    uint8_t choice = (uint8_t)take(in, 1);
    struct virtio_pci *pci = machine.devices[choice % DEVICES];
    disk_drain(NULL);
    struct save save = {0};
    save_begin(&save, virtio_pci_ops.name, virtio_pci_ops.version);
    virtio_pci_ops.save(pci, &save);
    save_end(&save);
    require(!save.failed, "a device is saved");
    for (unsigned i = 0; i < (choice >> 1 & 7); i++) {
        size_t at = take(in, 2);
        uint8_t value = (uint8_t)take(in, 1);
        if (at < save.size_bytes)
            save.bytes[at] ^= value;
    }
    struct load load;
    uint32_t version;
    load_init(&load, save.bytes, save.size_bytes);
    bool loaded = load_begin(&load, virtio_pci_ops.name, &version) &&
                  virtio_pci_ops.load(pci, &load, version);
    require(loaded || (choice >> 1 & 7), "what was saved is loaded");
    save_free(&save);
    virtio_pci_kick_all(pci);
}

static void operation(struct input *in)
{
    uint8_t code = (uint8_t)take(in, 1);
    unsigned device = code >> 4 & 1, size = 1U << (code >> 5 & 3);
    uint64_t base = registers(device);
    switch (code & 15) {
    case 0:
    case 1: write_memory(in); break;
    case 2:
    case 3: write_descriptor(in); break;
    case 4: make_request(in); break;
    case 5:
    case 6: mmio(base + 0x3000 + 4 * (take(in, 1) & 3), 0, 2); break;
    case 7: finish_request(in); break;
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
    case 14: save_and_load(in); break;
    case 15: mmio(UINT64_C(0xc0000000) + (take(in, 2) & 0x3fff), take(in, size), size); break;
    }
}

static void reset(void)
{
    static const uint8_t zeroes[USED_RAM_BYTES];
    static const struct pci_windows windows = {.mmio32 = {0xc0000000, 0x100000},
                                               .mmio64 = {UINT64_C(0x800000000), 0x100000}};
    disk_drain(NULL);
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
