/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Fuzz target: the AHCI controller with a disk and a CD-ROM drive, driven as a hostile guest would:
 * command lists, tables, FISes and registers from the input. Made once, and reset for each input.
 */
#include "fuzz/device.h"

#include "dev/pci.h"
#include "dev/storage/ahci.h"

enum {
    SLOT = 1,
    USED_RAM_BYTES = 96 << 10,
    LIST_AT = 0x1000, /* 1 KiB a port */
    FIS_AT = 0x2000,
    TABLE_AT = 0x4000, /* 256 bytes a slot */
    DATA_AT = 0x9000,
    OPERATIONS_MAX = 400,
};

static struct machine {
    struct ram *ram;
    struct bus *bus;
    struct pci_bus *pci;
    struct ahci *ahci;
    struct scsi_lun *lun;
    struct fuzz_disk disk, cd;
    struct block_backend cd_backend;
} machine;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    machine.ram = ram_create(FUZZ_RAM_BYTES, NULL);
    machine.bus = bus_create(NULL);
    require(machine.ram && machine.bus, "the machine is made");
    ram_set_watcher(machine.ram, fuzz_ram_written, machine.ram);
    fuzz_disk_init(&machine.disk, FUZZ_DISK_BYTES);
    fuzz_disk_init(&machine.cd, FUZZ_DISK_BYTES);
    machine.pci = pci_bus_create(&(struct pci_bus_config){.bus = machine.bus}, NULL);
    const struct block_backend disk = fuzz_disk_backend(&machine.disk);
    machine.cd_backend = fuzz_disk_backend(&machine.cd);
    const struct scsi_lun_config lun = {
        .is_cdrom = true, .medium = &machine.cd_backend, .serial = "1", .keeps_sense = true};
    machine.lun = scsi_lun_create(&lun, NULL);
    const struct ata_drive_config drives[] = {{.disk = &disk, .is_serial_ata = true},
                                              {.cdrom = machine.lun, .is_serial_ata = true}};
    const struct ahci_config config = {
        .pci = machine.pci,
        .slot = SLOT,
        .msi = {fuzz_message, NULL},
        .ram = machine.ram,
        .drives = {ata_drive_create(&drives[0], NULL), ata_drive_create(&drives[1], NULL)}};
    machine.ahci = ahci_create(&config, NULL);
    require(machine.ahci, "the controller is made");
    return 0;
}

static uint64_t bar(void)
{
    return pci_bus_read(machine.pci, SLOT << 3, PCI_BAR0 + 20, 4) & ~UINT32_C(15);
}

static void mmio(uint64_t offset, uint64_t value, unsigned size_bytes)
{
    bus_write(machine.bus, BUS_MMIO, bar() + offset, value, size_bytes);
}

static void start_port(unsigned port)
{
    uint64_t at = 0x100 + 0x80 * port;
    mmio(at + 0x00, LIST_AT + 0x400 * port, 8);
    mmio(at + 0x08, FIS_AT + 0x100 * port, 8);
    mmio(at + 0x14, UINT32_MAX, 4);
    mmio(at + 0x18, 0x10, 4);
    mmio(at + 0x18, 0x11, 4);
    mmio(0x04, 2, 4);
}

/* A command that is nearly right, in a slot of its own table. */
static void make_command(struct input *in)
{
    static const uint8_t opcodes[] = {0x60, 0x61, 0x25, 0x35, 0xec, 0x06, 0xc4, 0xc5,
                                      0x20, 0xa0, 0xa0, 0xa0, 0xea, 0xb0, 0x2f, 0xef};
    static const uint8_t packets[] = {0x28, 0x12, 0x43, 0x46, 0x4a, 0x5a, 0x55, 0x1b,
                                      0x1e, 0xbe, 0x03, 0x25, 0xa8, 0xad, 0x51, 0x00};
    uint8_t shape = (uint8_t)take(in, 1), place = (uint8_t)take(in, 1);
    unsigned port = shape & 1, slot = place & 15;
    uint64_t table = TABLE_AT + 0x100 * slot;
    uint8_t fis[20] = {0x27, shape == 0xff ? 0 : 0x80, opcodes[shape >> 1 & 15]};
    fis[3] = (uint8_t)take(in, 1);
    fis[4] = (uint8_t)take(in, 1);
    fis[7] = 0x40;
    fis[12] = fis[2] == 0x60 || fis[2] == 0x61 ? (uint8_t)(slot << 3) : (uint8_t)take(in, 1);
    if (shape & 0x80)
        fis[take(in, 1) % 20] ^= (uint8_t)take(in, 1);
    uint8_t packet[16] = {packets[place >> 4]};
    for (unsigned i = 1; i < 10 && fis[2] == 0xa0; i++)
        packet[i] = (uint8_t)take(in, 1);
    unsigned prds = 1 + (shape >> 5 & 3);
    for (unsigned i = 0; i < prds; i++) {
        uint64_t prd[2] = {DATA_AT + (take(in, 1) & 15) * 0x1000, take(in, 2) << 32};
        ram_write(machine.ram, table + 0x80 + 16 * i, prd, 16);
    }
    uint64_t header[2] = {5 | (uint64_t)prds << 16, table};
    ram_write(machine.ram, table, fis, sizeof(fis));
    ram_write(machine.ram, table + 0x40, packet, sizeof(packet));
    ram_write(machine.ram, LIST_AT + 0x400 * port + 32 * slot, header, sizeof(header));
    mmio(0x134 + 0x80 * port, UINT64_C(1) << slot, 4);
    mmio(0x138 + 0x80 * port, UINT64_C(1) << slot, 4);
}

static void change_medium(struct input *in)
{
    uint8_t how = (uint8_t)take(in, 1);
    scsi_lun_change_medium(machine.lun, how & 1 ? &machine.cd_backend : NULL, how & 2);
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
    case 5: fuzz_disk_finish_any(in, &machine.cd); break;
    case 6:
    case 7: fuzz_disk_finish_any(in, &machine.disk); break;
    case 8: mmio(0x100 + take(in, 1), take(in, 4), 4); break;
    case 9: mmio(0x118 + 0x80 * (take(in, 1) & 1), take(in, 1), 4); break;
    case 10: mmio(take(in, 1) & 0x3f, take(in, size), size); break;
    case 11: bus_read(machine.bus, BUS_MMIO, bar() + (take(in, 2) & 0xfff), size); break;
    case 12:
        fuzz_disk_drain(&machine.disk);
        fuzz_disk_drain(&machine.cd);
        fuzz_save_and_load(in, &ahci_ops, machine.ahci);
        break;
    case 13: {
        unsigned at = (unsigned)take(in, 1);
        pci_bus_write(machine.pci, SLOT << 3, at, (uint32_t)take(in, 4), size < 4 ? size : 4);
        break;
    }
    case 14: change_medium(in); break;
    case 15: start_port(take(in, 1) & 1); break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
    static const uint8_t zeroes[USED_RAM_BYTES];
    static const struct pci_windows windows = {.mmio32 = {0xc0000000, 0x100000}};
    struct input in = {data, size_bytes};
    fuzz_disk_drain(&machine.disk);
    fuzz_disk_drain(&machine.cd);
    scsi_lun_change_medium(machine.lun, &machine.cd_backend, true);
    ahci_ops.reset(machine.ahci);
    ram_write(machine.ram, 0, zeroes, sizeof(zeroes));
    require(pci_assign_bars(machine.pci, &windows, NULL), "BARs are placed");
    start_port(0);
    start_port(1);
    for (unsigned i = 0; in.left && i < OPERATIONS_MAX; i++)
        operation(&in);
    return 0;
}
