/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Fuzz target: the virtio SCSI host with a disk and a CD-ROM drive, driven as a hostile guest
 * would: requests, task management, rings and registers from the input. The device is made once
 * and reset for each input.
 */
#include "fuzz/device.h"

#include "base/loop.h"
#include "dev/pci.h"
#include "dev/virtio/pci.h"
#include "dev/virtio/scsi.h"

enum {
    SLOT = 1,
    USED_RAM_BYTES = 64 << 10,
    QUEUES = 3, /* control, events, requests */
    RING = 32,
    RINGS_AT = 0x1000, /* a page a queue: descriptors, available, used */
    HEADERS_AT = 0x5000,
    DATA_AT = 0x8000,
    OPERATIONS_MAX = 300,
};

static struct machine {
    struct ram *ram;
    struct bus *bus;
    struct loop *loop;
    struct pci_bus *pci;
    struct virtio_device *device;
    struct virtio_pci *transport;
    struct fuzz_disk disk, cd;
    uint16_t next[QUEUES], available[QUEUES];
} machine;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    machine.ram = ram_create(FUZZ_RAM_BYTES, NULL);
    machine.bus = bus_create(NULL);
    machine.loop = loop_create(NULL);
    require(machine.ram && machine.bus && machine.loop, "the machine is made");
    ram_set_watcher(machine.ram, fuzz_ram_written, machine.ram);
    fuzz_disk_init(&machine.disk, FUZZ_DISK_BYTES);
    fuzz_disk_init(&machine.cd, FUZZ_DISK_BYTES);
    machine.pci = pci_bus_create(&(struct pci_bus_config){.bus = machine.bus}, NULL);
    const struct block_backend disk = fuzz_disk_backend(&machine.disk);
    const struct block_backend cd = fuzz_disk_backend(&machine.cd);
    const struct scsi_lun_config units[] = {{.medium = &disk}, {.is_cdrom = true, .medium = &cd}};
    const struct virtio_scsi_config config = {
        .ram = machine.ram, .loop = machine.loop, .units = units, .unit_count = 2};
    machine.device = virtio_scsi_create(&config, NULL);
    require(machine.device, "the device is made");
    const struct virtio_pci_config place = {machine.pci, SLOT, 0, {fuzz_message, NULL}};
    machine.transport = virtio_pci_create(&place, machine.device, NULL);
    require(machine.transport, "the function is made");
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

static void start(void)
{
    memset(machine.next, 0, sizeof(machine.next));
    memset(machine.available, 0, sizeof(machine.available));
    mmio(20, 0, 1);
    mmio(20, 3, 1);
    mmio(8, 1, 4);
    mmio(12, 1, 4);
    mmio(20, 0xb, 1);
    for (unsigned i = 0; i < QUEUES; i++) {
        uint64_t at = RINGS_AT + i * 0x1000;
        static const uint8_t zeroes[0x1000];
        ram_write(machine.ram, at, zeroes, sizeof(zeroes));
        mmio(22, i, 2);
        mmio(24, RING, 2);
        mmio(32, at, 8);
        mmio(40, at + 0x800, 8);
        mmio(48, at + 0xc00, 8);
        mmio(28, 1, 2);
    }
    mmio(20, 0xf, 1);
}

struct piece {
    uint64_t gpa;
    uint32_t size_bytes;
    bool is_writable;
};

static void add(unsigned queue, const struct piece *pieces, unsigned count)
{
    uint64_t ring = RINGS_AT + queue * 0x1000;
    uint16_t head = machine.next[queue];
    for (unsigned i = 0; i < count; i++) {
        uint16_t at = machine.next[queue], next = (uint16_t)((at + 1) % RING);
        uint8_t bytes[16];
        uint16_t words[2] = {(uint16_t)((i + 1 < count ? 1 : 0) | (pieces[i].is_writable ? 2 : 0)),
                             next};
        memcpy(bytes, &pieces[i].gpa, 8);
        memcpy(bytes + 8, &pieces[i].size_bytes, 4);
        memcpy(bytes + 12, words, 4);
        ram_write(machine.ram, ring + 16 * at, bytes, sizeof(bytes));
        machine.next[queue] = next;
    }
    uint16_t slot = machine.available[queue]++ % RING;
    ram_write(machine.ram, ring + 0x804 + 2 * slot, &head, 2);
    ram_write(machine.ram, ring + 0x802, &machine.available[queue], 2);
    mmio(0x3000 + 4 * queue, queue, 2);
}

/* A command that is nearly right. */
static void request(struct input *in)
{
    static const uint8_t codes[16] = {0x00, 0x28, 0x2a, 0x12, 0x25, 0x42, 0x35, 0x1a,
                                      0x5a, 0x43, 0x4a, 0x46, 0x1b, 0x2f, 0x41, 0x88};
    uint8_t shape = (uint8_t)take(in, 1), place = (uint8_t)take(in, 1);
    uint64_t header = HEADERS_AT + (place & 7) * 0x100, data = DATA_AT + (place >> 3 & 7) * 0x800;
    uint8_t bytes[51] = {1, place >> 7, 0x40};
    bytes[8] = shape;
    bytes[19] = codes[shape & 15];
    bytes[19 + 5] = (uint8_t)(place & 127);
    bytes[19 + 8] = (uint8_t)(1 + (shape >> 6));
    if (shape & 0x10)
        for (unsigned i = 0; i < 16; i++)
            bytes[19 + i] = (uint8_t)take(in, 1);
    if (shape & 0x20)
        bytes[take(in, 1) % sizeof(bytes)] ^= (uint8_t)take(in, 1);
    ram_write(machine.ram, header, bytes, sizeof(bytes));
    bool writes = bytes[19] == 0x2a || bytes[19] == 0x42 || bytes[19] == 0x41;
    uint32_t size = shape & 0x40 ? 512 : 2048;
    const struct piece pieces[] = {{header, 51, false},
                                   {writes ? data : header + 0x80, writes ? size : 108, !writes},
                                   {writes ? header + 0x80 : data, writes ? 108 : size, true}};
    add(2, pieces, 3);
}

static void control(struct input *in)
{
    uint8_t shape = (uint8_t)take(in, 1);
    uint8_t bytes[24] = {shape & 3, 0, 0, 0, shape >> 2 & 7};
    uint8_t lun[8] = {1, shape >> 7, 0x40};
    memcpy(bytes + ((shape & 3) ? 4 : 8), lun, sizeof(lun));
    bytes[(shape & 3) ? 12 : 16] = (uint8_t)take(in, 1);
    ram_write(machine.ram, HEADERS_AT + 0xe00, bytes, sizeof(bytes));
    const struct piece pieces[] = {{HEADERS_AT + 0xe00, shape & 0x20 ? 20 : 24, false},
                                   {HEADERS_AT + 0xe80, 5, true}};
    add(0, pieces, 2);
}

static void change_medium(struct input *in)
{
    uint8_t choice = (uint8_t)take(in, 1);
    const struct block_backend cd = fuzz_disk_backend(&machine.cd);
    scsi_lun_change_medium(virtio_scsi_unit(machine.device, 1), choice & 1 ? &cd : NULL,
                           choice & 2);
}

static void drain(void)
{
    fuzz_disk_drain(&machine.disk);
    fuzz_disk_drain(&machine.cd);
}

static void operation(struct input *in)
{
    uint8_t code = (uint8_t)take(in, 1);
    unsigned size = 1U << (code >> 4 & 3);
    switch (code & 15) {
    case 0:
    case 1:
    case 2:
    case 3:
    case 4: request(in); break;
    case 5:
    case 6: control(in); break;
    case 7:
    case 8: fuzz_disk_finish_any(in, code & 16 ? &machine.cd : &machine.disk); break;
    case 9: change_medium(in); break;
    case 10: {
        const struct piece event = {HEADERS_AT + 0xf00, code & 16 ? 16 : 7, true};
        add(1, &event, 1);
        break;
    }
    case 11: fuzz_write_memory(in, machine.ram, USED_RAM_BYTES); break;
    case 12: mmio(take(in, 2) & 0x3fff, take(in, size), size); break;
    case 13: bus_read(machine.bus, BUS_MMIO, bar() + (take(in, 2) & 0x3fff), size); break;
    case 14:
        drain();
        fuzz_save_and_load(in, &virtio_pci_ops, machine.transport);
        virtio_pci_kick_all(machine.transport);
        break;
    case 15: start(); break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
    static const uint8_t zeroes[USED_RAM_BYTES];
    static const struct pci_windows windows = {.mmio32 = {0xc0000000, 0x100000},
                                               .mmio64 = {UINT64_C(0x800000000), 0x100000}};
    const struct block_backend cd = fuzz_disk_backend(&machine.cd);
    struct input in = {data, size_bytes};
    loop_run_once(machine.loop, 0); /* queues that are to be served on */
    drain();
    virtio_pci_ops.reset(machine.transport);
    scsi_lun_change_medium(virtio_scsi_unit(machine.device, 1), &cd, true);
    ram_write(machine.ram, 0, zeroes, sizeof(zeroes));
    require(pci_assign_bars(machine.pci, &windows, NULL), "BARs are placed");
    start();
    for (unsigned i = 0; in.left && i < OPERATIONS_MAX; i++)
        operation(&in);
    return 0;
}
