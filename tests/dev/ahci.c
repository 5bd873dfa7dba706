/* SPDX-License-Identifier: BSD-2-Clause
 * The AHCI controller through the bus: a disk on port 0 and a CD-ROM drive on port 1, over disks in
 * memory that finish requests when told to. */
#include "dev/virtio_driver.h"

#include "dev/memory_disk.h"
#include "dev/storage/ahci.h"
#include "dev/storage/bytes_be.h"

#include <errno.h>

enum {
    SLOT = 5,
    DISK_BYTES = 4 << 20,
    CLB = 0x00,
    FB = 0x08,
    IS = 0x10,
    IE = 0x14,
    CMD = 0x18,
    TFD = 0x20,
    SIG = 0x24,
    SSTS = 0x28,
    SCTL = 0x2c,
    SERR = 0x30,
    SACT = 0x34,
    CI = 0x38,
    DHRS = 1 << 0,
    PSS = 1 << 1,
    SDBS = 1 << 3,
    DPS = 1 << 5,
    OFS = 1 << 24,
    IFS = 1 << 27,
    HBFS = 1 << 29,
    TFES = 1 << 30,
    WRITES = 1 << 6,
};

struct fixture {
    struct vd_machine m;
    struct memory_disk disk, cd;
    struct block_backend disk_backend, cd_backend;
    struct scsi_lun *lun;
    struct ahci *ahci;
    uint64_t abar;
    uint64_t lists[2], fises[2], tables[2]; /* of ports; a table has 0x1000 bytes a slot */
    uint64_t data;
};

/* ---- registers ---- */

static uint32_t get(struct fixture *f, unsigned offset)
{
    return (uint32_t)bus_read(f->m.bus, BUS_MMIO, f->abar + offset, 4);
}

static void put(struct fixture *f, unsigned offset, uint32_t value)
{
    bus_write(f->m.bus, BUS_MMIO, f->abar + offset, value, 4);
}

static uint32_t port_get(struct fixture *f, unsigned port, unsigned offset)
{
    return get(f, 0x100 + 0x80 * port + offset);
}

static void port_put(struct fixture *f, unsigned port, unsigned offset, uint32_t value)
{
    put(f, 0x100 + 0x80 * port + offset, value);
}

static void port_start(struct fixture *f, unsigned port)
{
    port_put(f, port, CLB, (uint32_t)f->lists[port]);
    port_put(f, port, CLB + 4, 0);
    port_put(f, port, FB, (uint32_t)f->fises[port]);
    port_put(f, port, FB + 4, 0);
    port_put(f, port, SERR, UINT32_MAX);
    port_put(f, port, IS, UINT32_MAX);
    port_put(f, port, IE, UINT32_MAX);
    port_put(f, port, CMD, 0x10);
    port_put(f, port, CMD, 0x11);
}

static void attach(struct fixture *f)
{
    struct error err = {0};
    f->disk_backend = memory_disk_backend(&f->disk);
    f->cd_backend = memory_disk_backend(&f->cd);
    const struct scsi_lun_config lun = {
        .is_cdrom = true, .medium = &f->cd_backend, .keeps_sense = true};
    f->lun = scsi_lun_create(&lun, &err);
    const struct ata_drive_config disk = {
        .disk = &f->disk_backend, .serial = "ABC1", .is_serial_ata = true};
    const struct ata_drive_config cd = {.cdrom = f->lun, .is_serial_ata = true};
    const struct ahci_config config = {
        .pci = f->m.pci,
        .slot = SLOT,
        .msi = vd_msi(&f->m),
        .ram = f->m.ram,
        .drives = {ata_drive_create(&disk, &err), ata_drive_create(&cd, &err)}};
    f->ahci = ahci_create(&config, &err);
    assert_non_null(f->ahci);
}

static struct fixture *fixture_new(void)
{
    struct fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    vd_machine_init(&f->m, 16 << 20);
    memory_disk_init(&f->disk, DISK_BYTES);
    memory_disk_init(&f->cd, DISK_BYTES);
    attach(f);
    vd_boot(&f->m);
    f->abar = vd_bar(&f->m, SLOT, 5);
    for (unsigned i = 0; i < 2; i++) {
        f->lists[i] = vd_alloc(&f->m, 1024, 1024);
        f->fises[i] = vd_alloc(&f->m, 256, 256);
        f->tables[i] = vd_alloc(&f->m, 32 * 0x1000, 4096);
    }
    f->data = vd_alloc(&f->m, 1 << 20, 4096);
    return f;
}

static void fixture_free(struct fixture *f)
{
    ahci_ops.destroy(f->ahci);
    vd_machine_free(&f->m);
    memory_disk_free(&f->disk);
    memory_disk_free(&f->cd);
    free(f);
}

static int set_up(void **state)
{
    struct fixture *f = *state = fixture_new();
    put(f, 4, 0x80000002);
    port_start(f, 0);
    port_start(f, 1);
    return 0;
}

static int tear_down(void **state)
{
    fixture_free(*state);
    return 0;
}

/* ---- commands ---- */

struct command {
    uint8_t opcode, device;
    uint16_t features, count;
    uint64_t lba;
    uint32_t size_bytes; /* of memory, in `pieces` */
    unsigned pieces, flags;
    const uint8_t *packet;
};

static void prepare(struct fixture *f, unsigned port, unsigned slot, const struct command *c)
{
    uint64_t table = f->tables[port] + 0x1000 * slot, header = f->lists[port] + 32 * slot;
    unsigned pieces = c->size_bytes ? c->pieces ? c->pieces : 1 : 0;
    uint8_t fis[20] = {0x27, 0x80, c->opcode, (uint8_t)c->features};
    for (unsigned i = 0; i < 3; i++) {
        fis[4 + i] = (uint8_t)(c->lba >> (8 * i));
        fis[8 + i] = (uint8_t)(c->lba >> (24 + 8 * i));
    }
    fis[7] = c->device;
    fis[11] = (uint8_t)(c->features >> 8);
    fis[12] = (uint8_t)c->count;
    fis[13] = (uint8_t)(c->count >> 8);
    memcpy(ram_hva(f->m.ram, table, 20), fis, 20);
    if (c->packet)
        memcpy(ram_hva(f->m.ram, table + 0x40, 16), c->packet, 12);
    for (unsigned i = 0; i < pieces; i++) {
        uint32_t size = c->size_bytes / pieces;
        vd_put(&f->m, table + 0x80 + 16 * i, f->data + (uint64_t)size * i, 8);
        vd_put(&f->m, table + 0x88 + 16 * i, (uint64_t)(size - 1) << 32, 8);
    }
    vd_put(&f->m, header, 5 | c->flags | (uint64_t)pieces << 16, 8);
    vd_put(&f->m, header + 8, table, 8);
}

static void issue(struct fixture *f, unsigned port, unsigned slot, const struct command *c)
{
    prepare(f, port, slot, c);
    port_put(f, port, CI, UINT32_C(1) << slot);
}

/* Runs it to its end; gives status and error. */
static uint32_t run(struct fixture *f, unsigned port, const struct command *c)
{
    issue(f, port, 3, c);
    memory_disk_drain(&f->disk);
    memory_disk_drain(&f->cd);
    return port_get(f, port, TFD);
}

/* After an error: stopped and started again. */
static void recover(struct fixture *f, unsigned port)
{
    port_put(f, port, CMD, 0x10);
    assert_int_equal(port_get(f, port, CMD) & 0x8000, 0);
    assert_int_equal(port_get(f, port, CI), 0);
    port_put(f, port, IS, UINT32_MAX);
    port_put(f, port, CMD, 0x11);
}

static uint8_t *memory(struct fixture *f)
{
    return ram_hva(f->m.ram, f->data, 1 << 20);
}

/* ---- tests ---- */

static void test_presence(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(vd_config_read(&f->m, SLOT, 0, 4), 0x29228086);
    assert_int_equal(vd_config_read(&f->m, SLOT, PCI_REVISION, 4) >> 8, 0x010601);
    assert_int_equal(get(f, 0x0c), 0x3f);
    assert_int_equal(get(f, 0x10), 0x10300);
    assert_int_equal(get(f, 0x00) & 0x1f, 5);
    assert_int_equal(port_get(f, 0, SSTS), 0x123);
    assert_int_equal(port_get(f, 0, SIG), 0x00000101);
    assert_int_equal(port_get(f, 1, SIG), 0xeb140101);
    assert_int_equal(port_get(f, 2, SSTS), 0);
    assert_int_equal(port_get(f, 2, SIG), UINT32_MAX);
    assert_int_equal(port_get(f, 0, TFD), 0x150);
    /* Commands to a port with nothing on it change nothing. */
    port_put(f, 2, CMD, 0x11);
    port_put(f, 2, CI, 1);
    assert_int_equal(port_get(f, 2, CI), 1);
}

static void test_identify(void **state)
{
    struct fixture *f = *state;
    const struct command c = {.opcode = 0xec, .size_bytes = 512};
    uint8_t *page = memory(f), sum = 0;
    assert_int_equal(run(f, 0, &c), 0x50);
    for (unsigned i = 0; i < 512; i++)
        sum = (uint8_t)(sum + page[i]);
    assert_int_equal(sum, 0);
    assert_memory_equal(page + 20, "BA1C", 4);
    assert_memory_equal(page + 54, "kspe", 4);
    assert_int_equal(page[200] | page[201] << 8, DISK_BYTES / 512);
    assert_int_equal(page[150], 31);
    assert_int_equal(vd_get(&f->m, f->lists[0] + 32 * 3 + 4, 4), 512);
    assert_int_equal(port_get(f, 0, IS), PSS);
    assert_int_equal(page[0], 0x40);
    assert_int_equal(vd_get(&f->m, f->fises[0] + 0x20, 1), 0x5f);
    /* The drive's own command names it, and the disk's does not. */
    const struct command packet = {.opcode = 0xa1, .size_bytes = 512};
    assert_int_equal(run(f, 1, &packet), 0x50);
    assert_int_equal(page[0] | page[1] << 8, 0x85c0);
    assert_int_equal(run(f, 1, &c) & 0xff, 0x51);
    assert_int_equal(vd_get(&f->m, f->fises[1] + 0x45, 2), 0xeb14);
}

static void test_dma(void **state)
{
    struct fixture *f = *state;
    struct command c = {
        .opcode = 0x25, .device = 0x40, .count = 64, .lba = 100, .size_bytes = 32768, .pieces = 8};
    issue(f, 0, 7, &c);
    assert_int_equal(port_get(f, 0, TFD) & 0x80, 0x80);
    assert_int_equal(port_get(f, 0, CI), 1 << 7);
    uint64_t before = f->m.written_bytes;
    memory_disk_drain(&f->disk);
    assert_int_equal(port_get(f, 0, CI), 0);
    assert_int_equal(port_get(f, 0, IS), DHRS);
    assert_true(f->m.intx);
    assert_memory_equal(memory(f), f->disk.bytes + 51200, 32768);
    assert_true(f->m.written_bytes >= before + 32768);
    port_put(f, 0, IS, DHRS);
    put(f, 8, 1);
    assert_false(f->m.intx);

    c = (struct command){.opcode = 0xca, .device = 0x40, .count = 16, .lba = 1, .size_bytes = 8192};
    memset(memory(f), 0x3c, 8192);
    assert_int_equal(run(f, 0, &c), 0x50);
    assert_memory_equal(f->disk.bytes + 512, memory(f), 8192);
    assert_int_equal(f->disk.flushes, 0);
    c.opcode = 0x3d; /* FUA */
    assert_int_equal(run(f, 0, &c), 0x50);
    assert_int_equal(f->disk.flushes, 1);
    /* By cylinder, head and sector: 2, 3, 4 of 16 heads of 63 sectors. */
    c = (struct command){.opcode = 0x20, .device = 3, .count = 1, .lba = 0x204, .size_bytes = 512};
    assert_int_equal(run(f, 0, &c), 0x50);
    assert_memory_equal(memory(f), f->disk.bytes + ((2 * 16 + 3) * 63 + 3) * 512, 512);
}

static void test_queued(void **state)
{
    struct fixture *f = *state;
    for (unsigned tag = 0; tag < 32; tag++) {
        const struct command c = {.opcode = 0x60,
                                  .device = 0x40,
                                  .features = 1,
                                  .count = (uint16_t)(tag << 3),
                                  .lba = 10 + tag,
                                  .size_bytes = 512};
        prepare(f, 0, tag, &c);
        vd_put(&f->m, f->tables[0] + 0x1000 * tag + 0x80, f->data + 512 * tag, 8);
    }
    port_put(f, 0, SACT, UINT32_MAX);
    port_put(f, 0, CI, UINT32_MAX);
    assert_int_equal(f->disk.waiting_count, 32);
    assert_int_equal(port_get(f, 0, CI), 0);
    assert_int_equal(port_get(f, 0, SACT), UINT32_MAX);
    memory_disk_finish(&f->disk, 5); /* not in their order: slot 0 comes last of those taken */
    assert_int_equal(port_get(f, 0, IS) & ~DHRS, SDBS);
    uint32_t done = (uint32_t)vd_get(&f->m, f->fises[0] + 0x5c, 4);
    assert_int_equal(port_get(f, 0, SACT), ~done);
    assert_int_equal(__builtin_popcount(done), 1);
    /* One that fails stops all. */
    f->disk.fail = EIO;
    memory_disk_finish(&f->disk, 0);
    assert_int_equal(port_get(f, 0, IS) & TFES, TFES);
    assert_int_equal(port_get(f, 0, TFD) & 0xff, 0x51);
    uint32_t left = port_get(f, 0, SACT);
    memory_disk_finish(&f->disk, 0);
    assert_int_equal(port_get(f, 0, SACT), left);
    port_put(f, 0, CMD, 0x10);
    assert_int_equal(port_get(f, 0, CMD) & 0x8000, 0x8000); /* still writes to memory */
    memory_disk_drain(&f->disk);
    recover(f, 0);
    /* The log says which it was; once. */
    const struct command log = {
        .opcode = 0x2f, .device = 0x40, .count = 1, .lba = 0x10, .size_bytes = 512};
    assert_int_equal(run(f, 0, &log), 0x50);
    assert_int_equal(memory(f)[2], 0x51);
    assert_int_equal(memory(f)[3], 0x40);
    assert_true(memory(f)[0] < 32);
    assert_int_equal(run(f, 0, &log), 0x50);
    assert_int_equal(memory(f)[0], 0x80);
}

static void test_errors(void **state)
{
    struct fixture *f = *state;
    struct command c = {.opcode = 0x25,
                        .device = 0x40,
                        .count = 2,
                        .lba = DISK_BYTES / 512 - 1,
                        .size_bytes = 1024};
    assert_int_equal(run(f, 0, &c), 0x1051); /* IDNF */
    assert_int_equal(port_get(f, 0, IS) & TFES, TFES);
    assert_int_equal(port_get(f, 0, CI), 1 << 3);
    port_put(f, 0, CI, 1 << 4); /* nothing goes on before the port was stopped */
    assert_int_equal(f->disk.waiting_count, 0);
    recover(f, 0);
    c.lba = 0;
    f->disk.fail = EIO;
    assert_int_equal(run(f, 0, &c), 0x4051); /* UNC */
    recover(f, 0);
    c.opcode = 0x87; /* a vendor's */
    assert_int_equal(run(f, 0, &c), 0x0451);
    recover(f, 0);
    /* Fewer memory than data: the rest is lost, or nothing is written. */
    c = (struct command){.opcode = 0x25, .device = 0x40, .count = 4, .lba = 0, .size_bytes = 512};
    assert_int_equal(run(f, 0, &c), 0x50);
    assert_int_equal(port_get(f, 0, IS) & OFS, OFS);
    port_put(f, 0, IS, UINT32_MAX);
    c.opcode = 0x35;
    assert_int_equal(run(f, 0, &c), 0x0451);
    assert_int_equal(f->disk.writes, 0);
    recover(f, 0);
    /* The disk cannot be written. */
    assert_int_equal(run(f, 0, &(struct command){.opcode = 0xef, .features = 0x99}), 0x0451);
    recover(f, 0);
}

static void test_malformed(void **state)
{
    struct fixture *f = *state;
    const struct command c = {
        .opcode = 0x25, .device = 0x40, .count = 1, .lba = 0, .size_bytes = 512};
    /* A command list, a table, data that are no memory. */
    port_put(f, 0, CMD, 0x10);
    port_put(f, 0, CLB, 0xfff00000);
    port_put(f, 0, CMD, 0x11);
    port_put(f, 0, CI, 1);
    assert_int_equal(port_get(f, 0, IS) & HBFS, HBFS);
    port_put(f, 0, CMD, 0x10);
    port_put(f, 0, CLB, (uint32_t)f->lists[0]);
    recover(f, 0);
    prepare(f, 0, 0, &c);
    vd_put(&f->m, f->lists[0] + 8, UINT64_C(0xffffffffffffff80), 8);
    port_put(f, 0, CI, 1);
    assert_int_equal(port_get(f, 0, IS) & HBFS, HBFS);
    recover(f, 0);
    prepare(f, 0, 0, &c);
    vd_put(&f->m, f->tables[0] + 0x80, 16 << 20, 8);
    port_put(f, 0, CI, 1);
    assert_int_equal(port_get(f, 0, IS) & HBFS, HBFS);
    recover(f, 0);
    /* A FIS of another kind, a short one. */
    prepare(f, 0, 0, &c);
    vd_put(&f->m, f->tables[0], 0x46, 1);
    port_put(f, 0, CI, 1);
    assert_int_equal(port_get(f, 0, IS) & IFS, IFS);
    recover(f, 0);
    prepare(f, 0, 0, &c);
    vd_put(&f->m, f->lists[0], 2 | 1 << 16, 4);
    port_put(f, 0, CI, 1);
    assert_int_equal(port_get(f, 0, IS) & IFS, IFS);
    recover(f, 0);
    assert_int_equal(f->disk.waiting_count, 0);
    assert_int_equal(run(f, 0, &c), 0x50);
}

static void test_reset_while_busy(void **state)
{
    struct fixture *f = *state;
    const struct command c = {
        .opcode = 0x25, .device = 0x40, .count = 8, .lba = 0, .size_bytes = 4096};
    /* The port stops only when nothing writes to memory any more. */
    issue(f, 0, 0, &c);
    port_put(f, 0, CMD, 0x10);
    assert_int_equal(port_get(f, 0, CMD) & 0x8000, 0x8000);
    memory_disk_drain(&f->disk);
    assert_int_equal(port_get(f, 0, CMD) & 0x8000, 0);
    port_put(f, 0, CMD, 0x11);
    /* COMRESET: the link stays down so long. */
    issue(f, 0, 0, &c);
    port_put(f, 0, CMD, 0x10);
    port_put(f, 0, SCTL, 0x301);
    port_put(f, 0, SCTL, 0x300);
    assert_int_equal(port_get(f, 0, SSTS), 0);
    assert_int_equal(port_get(f, 0, TFD), 0x7f);
    memory_disk_drain(&f->disk);
    assert_int_equal(port_get(f, 0, SSTS), 0x123);
    assert_int_equal(port_get(f, 0, SIG), 0x101);
    assert_int_equal(port_get(f, 0, TFD), 0x150);
    port_start(f, 0);
    assert_int_equal(run(f, 0, &c), 0x50);
    /* The whole controller. */
    issue(f, 0, 0, &c);
    put(f, 4, 0x80000001);
    assert_int_equal(get(f, 4) & 1, 1);
    port_put(f, 0, CLB, 0x1000); /* not taken meanwhile */
    memory_disk_drain(&f->disk);
    assert_int_equal(get(f, 4), 0x80000000);
    assert_int_equal(port_get(f, 0, CLB), 0);
    assert_int_equal(port_get(f, 0, SSTS), 0x123);
    port_start(f, 0);
    assert_int_equal(run(f, 0, &c), 0x50);
}

static void test_software_reset(void **state)
{
    struct fixture *f = *state;
    struct command c = {.opcode = 0xc6, .count = 8};
    assert_int_equal(run(f, 0, &c), 0x50);
    memset(&c, 0, sizeof(c));
    prepare(f, 0, 0, &c);
    vd_put(&f->m, f->lists[0], 5 | 1 << 8 | 1 << 10, 4);
    vd_put(&f->m, f->tables[0] + 1, 0, 1);
    vd_put(&f->m, f->tables[0] + 15, 4, 1);
    port_put(f, 0, CI, 1);
    assert_int_equal(port_get(f, 0, CI), 0);
    prepare(f, 0, 1, &c);
    vd_put(&f->m, f->tables[0] + 0x1001, 0, 1);
    vd_put(&f->m, f->tables[0] + 0x100f, 0, 1);
    port_put(f, 0, CI, 2);
    assert_int_equal(port_get(f, 0, CI), 0);
    assert_int_equal(port_get(f, 0, TFD), 0x150);
    assert_int_equal(vd_get(&f->m, f->fises[0] + 0x40, 1), 0x34);
    assert_int_equal(vd_get(&f->m, f->fises[0] + 0x4c, 1), 1);
    c = (struct command){.opcode = 0xc4, .device = 0x40, .count = 1, .size_bytes = 512};
    assert_int_equal(run(f, 0, &c), 0x0451); /* settings are gone */
}

static void test_trim_and_flush(void **state)
{
    struct fixture *f = *state;
    struct command c = {
        .opcode = 0x06, .device = 0x40, .features = 1, .count = 1, .size_bytes = 512};
    memset(memory(f), 0, 512);
    vd_put(&f->m, f->data, UINT64_C(8) << 48 | 16, 8);
    vd_put(&f->m, f->data + 504, UINT64_C(1) << 48 | 4095, 8);
    assert_int_equal(run(f, 0, &c), 0x50);
    assert_int_equal(f->disk.discards, 2);
    assert_int_equal(f->disk.bytes[16 * 512], 0xdd);
    vd_put(&f->m, f->data + 8, UINT64_C(2) << 48 | (DISK_BYTES / 512 - 1), 8);
    assert_int_equal(run(f, 0, &c), 0x1051);
    assert_int_equal(f->disk.discards, 2);
    recover(f, 0);
    c = (struct command){.opcode = 0xea, .device = 0x40};
    assert_int_equal(run(f, 0, &c), 0x50);
    assert_int_equal(f->disk.flushes, 1);
    /* Standby writes what is cached; SMART says that all is well. */
    assert_int_equal(run(f, 0, &(struct command){.opcode = 0xe0}), 0x50);
    assert_int_equal(f->disk.flushes, 2);
    assert_int_equal(run(f, 0, &(struct command){.opcode = 0xe5}), 0x50);
    assert_int_equal(vd_get(&f->m, f->fises[0] + 0x4c, 1), 0);
    c = (struct command){.opcode = 0xb0, .features = 0xda, .lba = 0xc24f00};
    assert_int_equal(run(f, 0, &c), 0x50);
    assert_int_equal(vd_get(&f->m, f->fises[0] + 0x45, 2), 0xc24f);
}

static void test_packets(void **state)
{
    struct fixture *f = *state;
    const uint8_t read[12] = {0x28, 0, 0, 0, 0, 16, 0, 0, 2}, sense[12] = {3, 0, 0, 0, 18};
    const uint8_t capacity[12] = {0x25}, eject[12] = {0x1b, 0, 0, 0, 2}, ready[12] = {0};
    struct command c = {.opcode = 0xa0, .features = 1, .size_bytes = 4096, .packet = read};
    assert_int_equal(run(f, 1, &c), 0x50);
    assert_memory_equal(memory(f), f->cd.bytes + 16 * 2048, 4096);
    assert_int_equal(vd_get(&f->m, f->lists[1] + 32 * 3 + 4, 4), 4096);
    c.packet = capacity;
    assert_int_equal(run(f, 1, &c), 0x50);
    assert_int_equal(be_get(memory(f), 4), DISK_BYTES / 2048 - 1);
    c = (struct command){.opcode = 0xa0, .packet = eject};
    assert_int_equal(run(f, 1, &c), 0x50);
    c.packet = ready;
    assert_int_equal(run(f, 1, &c), 0x2051); /* NOT READY */
    recover(f, 1);
    c = (struct command){.opcode = 0xa0, .size_bytes = 18, .packet = sense};
    assert_int_equal(run(f, 1, &c), 0x50);
    assert_int_equal(memory(f)[12], 0x3a);
}

static void test_msi(void **state)
{
    struct fixture *f = *state;
    unsigned at = vd_capability(&f->m, SLOT, 5, 0);
    assert_true(at);
    vd_config_write(&f->m, SLOT, at + 4, VD_MSI_ADDRESS, 4);
    vd_config_write(&f->m, SLOT, at + 12, 0x41, 2);
    vd_config_write(&f->m, SLOT, at + 2, 1, 2);
    const struct command c = {
        .opcode = 0x25, .device = 0x40, .count = 8, .lba = 0, .size_bytes = 4096};
    assert_int_equal(run(f, 0, &c), 0x50);
    assert_int_equal(f->m.msi_count, 1);
    assert_int_equal(f->m.msi_data[0], 0x41);
    assert_false(f->m.intx);
    /* What comes while the guest looks is told when it has looked. */
    port_put(f, 0, IS, UINT32_MAX);
    assert_int_equal(run(f, 0, &c), 0x50);
    assert_int_equal(f->m.msi_count, 1);
    put(f, 8, 1);
    assert_int_equal(f->m.msi_count, 2);
    port_put(f, 0, IS, UINT32_MAX);
    put(f, 8, 1);
    assert_int_equal(f->m.msi_count, 2);
}

static void test_save_and_load(void **state)
{
    struct fixture *f = *state, *g = fixture_new();
    struct save save = {0};
    struct load load;
    uint32_t version;
    const struct command c = {
        .opcode = 0x25, .device = 0x40, .count = 8, .lba = 40, .size_bytes = 4096};
    run(f, 0, &(struct command){.opcode = 0xc6, .count = 8});
    /* In the middle of a read, which the machine lets end first. */
    issue(f, 0, 9, &c);
    memory_disk_drain(&f->disk);
    save_begin(&save, ahci_ops.name, ahci_ops.version);
    ahci_ops.save(f->ahci, &save);
    save_end(&save);
    load_init(&load, save.bytes, save.size_bytes);
    assert_true(load_begin(&load, ahci_ops.name, &version) &&
                ahci_ops.load(g->ahci, &load, version) && load_end(&load));
    assert_int_equal(port_get(g, 0, IS) & DHRS, DHRS);
    assert_true(g->m.intx);
    assert_int_equal(port_get(g, 0, CI), 0);
    port_put(g, 0, IS, UINT32_MAX);
    assert_int_equal(run(g, 0, &c), 0x50);
    assert_memory_equal(memory(g), g->disk.bytes + 40 * 512, 4096);
    const struct command multiple = {
        .opcode = 0xc4, .device = 0x40, .count = 8, .lba = 4, .size_bytes = 4096};
    assert_int_equal(run(g, 0, &multiple), 0x50);
    for (size_t size = 0; size < save.size_bytes; size += 7) {
        load_init(&load, save.bytes, save.size_bytes);
        load_begin(&load, ahci_ops.name, &version);
        if (size < load.offset)
            continue;
        load.section_end = load.size_bytes = size;
        assert_false(ahci_ops.load(g->ahci, &load, version));
        assert_int_equal(vd_config_read(&g->m, SLOT, PCI_COMMAND, 2), 0);
    }
    save_free(&save);
    fixture_free(g);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_presence),
        TEST(test_identify),
        TEST(test_dma),
        TEST(test_queued),
        TEST(test_errors),
        TEST(test_malformed),
        TEST(test_reset_while_busy),
        TEST(test_software_reset),
        TEST(test_trim_and_flush),
        TEST(test_packets),
        TEST(test_msi),
        TEST(test_save_and_load),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
