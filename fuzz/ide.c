/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Fuzz target: the IDE controller with two disks and a CD-ROM drive, driven as a hostile guest
 * would: registers, data, packets and tables of memory from the input. Made once, and reset for
 * each input.
 */
#include "fuzz/device.h"

#include "dev/pci.h"
#include "dev/storage/ide.h"

enum {
    SLOT = 1,
    USED_RAM_BYTES = 96 << 10,
    TABLE_AT = 0x1000,
    DATA_AT = 0x9000,
    PORT = 0x1f0,
    CONTROL = 0x3f6,
    BM = 0xc000,
    OPERATIONS_MAX = 400,
};

static struct machine {
    struct ram *ram;
    struct bus *bus;
    struct pci_bus *pci;
    struct ide *ide;
    struct scsi_lun *lun;
    struct fuzz_disk disk, cd;
    struct block_backend disk_backend, cd_backend;
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
    machine.disk_backend = fuzz_disk_backend(&machine.disk);
    machine.cd_backend = fuzz_disk_backend(&machine.cd);
    const struct scsi_lun_config lun = {
        .is_cdrom = true, .medium = &machine.cd_backend, .keeps_sense = true};
    machine.lun = scsi_lun_create(&lun, NULL);
    const struct ata_drive_config disk = {.disk = &machine.disk_backend};
    const struct ata_drive_config cd = {.cdrom = machine.lun};
    const struct ide_config config = {.pci = machine.pci,
                                      .slot = SLOT,
                                      .ram = machine.ram,
                                      .port = {PORT, 0x170},
                                      .control_port = {CONTROL, 0x376},
                                      .drives = {ata_drive_create(&disk, NULL),
                                                 ata_drive_create(&cd, NULL),
                                                 ata_drive_create(&disk, NULL)}};
    machine.ide = ide_create(&config, NULL);
    require(machine.ide, "the controller is made");
    return 0;
}

static void out(unsigned port, uint32_t value, unsigned size_bytes)
{
    bus_write(machine.bus, BUS_PORT, port, value, size_bytes);
}

static void make_table(struct input *in)
{
    unsigned count = 1 + (take(in, 1) & 3);
    for (unsigned i = 0; i < count; i++) {
        uint32_t prd[2] = {DATA_AT + ((uint32_t)take(in, 1) & 15) * 0x1000, (uint32_t)take(in, 2)};
        if (i + 1 == count)
            prd[1] |= UINT32_C(1) << 31;
        ram_write(machine.ram, TABLE_AT + 8 * i, prd, sizeof(prd));
    }
    out(BM + 4, TABLE_AT, 4);
    out(BM, 9, 1);
}

/* A packet that is nearly right. */
static void make_packet(struct input *in)
{
    static const uint8_t packets[] = {0x28, 0x12, 0x43, 0x46, 0x4a, 0x5a, 0x55, 0x1b,
                                      0x1e, 0xbe, 0x03, 0x25, 0xa8, 0xad, 0x51, 0x00};
    uint8_t shape = (uint8_t)take(in, 1), packet[12] = {packets[shape & 15]};
    for (unsigned i = 1; i < 10; i++)
        packet[i] = (uint8_t)take(in, 1);
    out(PORT + 6, 0xb0, 1);
    out(PORT + 1, shape >> 4 & 1, 1);
    out(PORT + 5, shape >> 5, 1);
    out(PORT + 7, 0xa0, 1);
    for (unsigned i = 0; i < 12; i += 2)
        out(PORT, packet[i] | (uint32_t)packet[i + 1] << 8, 2);
}

static void make_command(struct input *in)
{
    static const uint8_t opcodes[] = {0x20, 0x30, 0xc4, 0xc5, 0xc8, 0xca, 0x24, 0x35,
                                      0xec, 0xa1, 0xc6, 0x06, 0x90, 0xb0, 0x40, 0xef};
    uint8_t shape = (uint8_t)take(in, 1);
    unsigned port = shape & 0x20 ? 0x170 : PORT;
    out(port + 6, shape & 0x10 ? 0xf0 : 0xe0, 1);
    out(port + 2, (uint32_t)take(in, 1), 1);
    out(port + 3, (uint32_t)take(in, 1), 1);
    out(port + 4, 0, 1);
    out(port + 5, 0, 1);
    out(port + 1, (uint32_t)take(in, 1), 1);
    out(port + 7, opcodes[shape & 15], 1);
}

static void move_data(struct input *in)
{
    unsigned count = (unsigned)take(in, 1) * 4;
    uint32_t value = (uint32_t)take(in, 1) * 0x01010101;
    for (unsigned i = 0; i < count; i++)
        if (value & 1)
            out(PORT, value, 4);
        else
            bus_read(machine.bus, BUS_PORT, PORT, 4);
}

static void change_medium(struct input *in)
{
    uint8_t how = (uint8_t)take(in, 1);
    scsi_lun_change_medium(machine.lun, how & 1 ? &machine.cd_backend : NULL, how & 2);
}

static void operation(struct input *in)
{
    uint8_t code = (uint8_t)take(in, 1);
    unsigned size = 1U << (code >> 5 & 1);
    switch (code & 15) {
    case 0:
    case 1: make_command(in); break;
    case 2: make_packet(in); break;
    case 3: make_table(in); break;
    case 4: fuzz_write_memory(in, machine.ram, USED_RAM_BYTES); break;
    case 5: fuzz_disk_finish_any(in, &machine.cd); break;
    case 6:
    case 7: fuzz_disk_finish_any(in, &machine.disk); break;
    case 8: out(PORT + (take(in, 1) & 7), (uint32_t)take(in, size), size); break;
    case 9: out(CONTROL, (uint32_t)take(in, 1), 1); break;
    case 10: out(BM + (take(in, 1) & 15), (uint32_t)take(in, size), size); break;
    case 11: bus_read(machine.bus, BUS_PORT, PORT + (take(in, 1) & 7), size); break;
    case 12:
        fuzz_disk_drain(&machine.disk);
        fuzz_disk_drain(&machine.cd);
        fuzz_save_and_load(in, &ide_ops, machine.ide);
        break;
    case 13: move_data(in); break;
    case 14: change_medium(in); break;
    case 15: bus_read(machine.bus, BUS_PORT, BM + (take(in, 1) & 15), size); break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
    static const uint8_t zeroes[USED_RAM_BYTES];
    static const struct pci_windows windows = {.io = {BM, 0x1000}};
    struct input in = {data, size_bytes};
    fuzz_disk_drain(&machine.disk);
    fuzz_disk_drain(&machine.cd);
    scsi_lun_change_medium(machine.lun, &machine.cd_backend, true);
    ide_ops.reset(machine.ide);
    ram_write(machine.ram, 0, zeroes, sizeof(zeroes));
    require(pci_assign_bars(machine.pci, &windows, NULL), "BARs are placed");
    for (unsigned i = 0; in.left && i < OPERATIONS_MAX; i++)
        operation(&in);
    return 0;
}
