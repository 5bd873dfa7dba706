/* SPDX-License-Identifier: BSD-2-Clause
 * The IDE controller through the bus: a disk and a CD-ROM drive on the first channel, a disk alone
 * on the second, over disks in memory that finish requests when told to. */
#include "dev/virtio_driver.h"

#include "dev/memory_disk.h"
#include "dev/storage/bytes_be.h"
#include "dev/storage/ide.h"

#include <errno.h>

enum {
    SLOT = 5,
    DISK_BYTES = 4 << 20,
    PORT = 0x1f0,
    CONTROL = 0x3f6,
    ERR = 1,
    DRQ = 8,
    BSY = 0x80,
    READY = 0x50,
};

struct fixture {
    struct vd_machine m;
    struct memory_disk disk, cd, second;
    struct block_backend backends[3];
    struct ide *ide;
    bool irq[2];
    uint64_t bm, table, data;
};

static void set_irq(void *opaque, unsigned number, bool level)
{
    ((struct fixture *)opaque)->irq[number] = level;
}

static void attach(struct fixture *f)
{
    struct error err = {0};
    f->backends[0] = memory_disk_backend(&f->disk);
    f->backends[1] = memory_disk_backend(&f->cd);
    f->backends[2] = memory_disk_backend(&f->second);
    const struct scsi_lun_config lun = {
        .is_cdrom = true, .medium = &f->backends[1], .keeps_sense = true};
    const struct ata_drive_config disk = {.disk = &f->backends[0], .serial = "ABC1"};
    const struct ata_drive_config cd = {.cdrom = scsi_lun_create(&lun, &err)};
    const struct ata_drive_config second = {.disk = &f->backends[2]};
    const struct ide_config config = {.pci = f->m.pci,
                                      .slot = SLOT,
                                      .ram = f->m.ram,
                                      .port = {PORT, 0x170},
                                      .control_port = {CONTROL, 0x376},
                                      .irq = {{set_irq, f, 0}, {set_irq, f, 1}},
                                      .drives = {ata_drive_create(&disk, &err),
                                                 ata_drive_create(&cd, &err),
                                                 ata_drive_create(&second, &err)}};
    f->ide = ide_create(&config, &err);
    assert_non_null(f->ide);
}

static struct fixture *fixture_new(void)
{
    struct fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    vd_machine_init(&f->m, 16 << 20);
    memory_disk_init(&f->disk, DISK_BYTES);
    memory_disk_init(&f->cd, DISK_BYTES);
    memory_disk_init(&f->second, DISK_BYTES / 2);
    attach(f);
    vd_boot(&f->m);
    f->bm = vd_config_read(&f->m, SLOT, PCI_BAR0 + 16, 4) & ~3u;
    f->table = vd_alloc(&f->m, 4096, 4096);
    f->data = vd_alloc(&f->m, 1 << 20, 65536);
    return f;
}

static void fixture_free(struct fixture *f)
{
    ide_ops.destroy(f->ide);
    vd_machine_free(&f->m);
    memory_disk_free(&f->disk);
    memory_disk_free(&f->cd);
    memory_disk_free(&f->second);
    free(f);
}

static int set_up(void **state)
{
    *state = fixture_new();
    return 0;
}

static int tear_down(void **state)
{
    fixture_free(*state);
    return 0;
}

static uint32_t in(struct fixture *f, uint16_t port, unsigned size)
{
    return (uint32_t)bus_read(f->m.bus, BUS_PORT, port, size);
}

static void out(struct fixture *f, uint16_t port, uint32_t value, unsigned size)
{
    bus_write(f->m.bus, BUS_PORT, port, value, size);
}

static void drain(struct fixture *f)
{
    memory_disk_drain(&f->disk);
    memory_disk_drain(&f->cd);
    memory_disk_drain(&f->second);
}

/* Registers and then the command, on the first channel. */
static void command(struct fixture *f, uint8_t opcode, uint8_t device, uint32_t lba, uint8_t count,
                    uint8_t features)
{
    out(f, PORT + 6, device, 1);
    out(f, PORT + 1, features, 1);
    out(f, PORT + 2, count, 1);
    for (unsigned i = 0; i < 3; i++)
        out(f, (uint16_t)(PORT + 3 + i), lba >> (8 * i) & 0xff, 1);
    out(f, PORT + 7, opcode, 1);
}

/* Waits for the drive and takes the interrupt; gives the status. */
static uint8_t wait(struct fixture *f)
{
    drain(f);
    return (uint8_t)in(f, PORT + 7, 1);
}

static void read_data(struct fixture *f, uint8_t *to, unsigned size)
{
    for (unsigned i = 0; i < size; i += 2) {
        uint32_t word = in(f, PORT, 2);
        to[i] = (uint8_t)word;
        to[i + 1] = (uint8_t)(word >> 8);
    }
}

static void write_data(struct fixture *f, const uint8_t *from, unsigned size)
{
    for (unsigned i = 0; i < size; i += 2)
        out(f, PORT, from[i] | (uint32_t)from[i + 1] << 8, 2);
}

/* ---- tests ---- */

static void test_presence(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(vd_config_read(&f->m, SLOT, PCI_REVISION, 4) >> 8, 0x010180);
    /* Each drive keeps registers of its own, and what is not there reads as nothing. */
    out(f, PORT + 6, 0xb0, 1);
    assert_int_equal(in(f, PORT + 4, 1) | in(f, PORT + 5, 1) << 8, 0xeb14);
    out(f, PORT + 6, 0xa0, 1);
    assert_int_equal(in(f, PORT + 4, 1) | in(f, PORT + 5, 1) << 8, 0);
    assert_int_equal(in(f, PORT + 2, 1), 1);
    assert_int_equal(in(f, PORT + 7, 1), READY);
    out(f, 0x176, 0xb0, 1);
    out(f, 0x172, 0x55, 1);
    assert_int_equal(in(f, 0x172, 1), 0);
    out(f, 0x177, 0xec, 1);
    assert_int_equal(in(f, 0x177, 1), 0);
}

static void test_identify(void **state)
{
    struct fixture *f = *state;
    uint8_t page[512];
    command(f, 0xec, 0xa0, 0, 0, 0);
    assert_true(f->irq[0]);
    assert_int_equal(in(f, CONTROL, 1), READY | DRQ);
    assert_true(f->irq[0]); /* the other status register leaves it */
    assert_int_equal(in(f, PORT + 7, 1), READY | DRQ);
    assert_false(f->irq[0]);
    read_data(f, page, 512);
    assert_int_equal(in(f, PORT + 7, 1), READY);
    assert_memory_equal(page + 20, "BA1C", 4);
    assert_int_equal(page[93 * 2] | page[93 * 2 + 1] << 8, 0x6001);
    assert_int_equal(page[76 * 2], 0);
    assert_int_equal(in(f, PORT, 2), 0); /* there is no more */
    /* The CD-ROM drive is none for this command. */
    command(f, 0xec, 0xb0, 0, 0, 0);
    assert_int_equal(wait(f), READY | ERR);
    assert_int_equal(in(f, PORT + 4, 1) | in(f, PORT + 5, 1) << 8, 0xeb14);
    command(f, 0xa1, 0xb0, 0, 0, 0);
    assert_int_equal(wait(f), READY | DRQ);
    read_data(f, page, 512);
    assert_int_equal(page[0] | page[1] << 8, 0x85c0);
}

static void test_pio(void **state)
{
    struct fixture *f = *state;
    uint8_t data[4096], other[4096];
    command(f, 0x20, 0xe0, 100, 3, 0);
    assert_int_equal(in(f, CONTROL, 1), BSY);
    assert_false(f->irq[0]);
    for (unsigned i = 0; i < 3; i++) {
        drain(f);
        assert_true(f->irq[0]);
        assert_int_equal(in(f, PORT + 7, 1), READY | DRQ);
        read_data(f, data + 512 * i, 512);
    }
    assert_int_equal(in(f, PORT + 7, 1), READY);
    assert_memory_equal(data, f->disk.bytes + 51200, 1536);
    /* In blocks of eight sectors, the last one shorter. */
    command(f, 0xc6, 0xe0, 0, 8, 0);
    assert_int_equal(wait(f), READY);
    memset(other, 0x77, sizeof(other));
    command(f, 0xc5, 0xe0, 40, 10, 0);
    assert_int_equal(in(f, PORT + 7, 1), READY | DRQ);
    assert_false(f->irq[0]); /* not for the first block */
    write_data(f, other, 4096);
    assert_int_equal(wait(f), READY | DRQ);
    write_data(f, other, 1024);
    assert_int_equal(wait(f), READY);
    for (unsigned i = 0; i < 10; i++)
        assert_memory_equal(f->disk.bytes + (40 + i) * 512, other, 512);
    assert_int_equal(f->disk.writes, 2);
    /* 48 bits: the registers are written twice. */
    for (unsigned i = 2; i < 6; i++)
        out(f, (uint16_t)(PORT + i), 0, 1);
    command(f, 0x24, 0xe0, 0x1234, 1, 0);
    assert_int_equal(wait(f), READY | DRQ);
    read_data(f, data, 512);
    assert_memory_equal(data, f->disk.bytes + 0x1234 * 512, 512);
    /* Past the end, and an error of the host. */
    command(f, 0x20, 0xe0, DISK_BYTES / 512 - 1, 2, 0);
    assert_int_equal(wait(f), READY | ERR);
    assert_int_equal(in(f, PORT + 1, 1), 0x10);
    f->disk.fail = EIO;
    command(f, 0x20, 0xe0, 0, 2, 0);
    assert_int_equal(wait(f), READY | ERR);
    assert_int_equal(in(f, PORT + 1, 1), 0x40);
    command(f, 0x60, 0xe0, 0, 2, 0); /* queued ones are for serial ATA */
    assert_int_equal(wait(f), READY | ERR);
}

static void start_dma(struct fixture *f, unsigned pieces, uint32_t size, bool to_memory)
{
    for (unsigned i = 0; i < pieces; i++) {
        vd_put(&f->m, f->table + 8 * i, f->data + (uint64_t)size * i, 4);
        vd_put(&f->m, f->table + 8 * i + 4, (size & 0xffff) | (i + 1 == pieces ? 1u << 31 : 0), 4);
    }
    out(f, (uint16_t)(f->bm + 4), (uint32_t)f->table, 4);
    out(f, (uint16_t)(f->bm + 2), 0x66, 1);
    out(f, (uint16_t)f->bm, to_memory ? 9 : 1, 1);
}

static void test_dma(void **state)
{
    struct fixture *f = *state;
    uint8_t *memory = ram_hva(f->m.ram, f->data, 1 << 20);
    command(f, 0xc8, 0xe0, 7, 128, 0);
    assert_int_equal(f->disk.waiting_count, 0); /* before the bus master runs */
    start_dma(f, 1, 65536, true);
    assert_int_equal(in(f, (uint16_t)(f->bm + 2), 1), 0x61);
    drain(f);
    assert_true(f->irq[0]);
    assert_int_equal(in(f, (uint16_t)(f->bm + 2), 1), 0x64);
    assert_memory_equal(memory, f->disk.bytes + 7 * 512, 65536);
    assert_int_equal(wait(f), READY);
    out(f, (uint16_t)f->bm, 0, 1);
    /* The bus master first, then the command; several pieces. */
    memset(memory, 0x19, 8192);
    start_dma(f, 4, 2048, false);
    command(f, 0xca, 0xe0, 300, 16, 0);
    assert_int_equal(wait(f), READY);
    assert_memory_equal(f->disk.bytes + 300 * 512, memory, 8192);
    out(f, (uint16_t)f->bm, 0, 1);
    /* A table that is too short, and one that is no memory. */
    command(f, 0xc8, 0xe0, 7, 16, 0);
    start_dma(f, 1, 4096, true);
    assert_int_equal(wait(f), READY | ERR);
    assert_int_equal(in(f, (uint16_t)(f->bm + 2), 1) & 7, 6);
    out(f, (uint16_t)f->bm, 0, 1);
    command(f, 0xc8, 0xe0, 7, 16, 0);
    out(f, (uint16_t)(f->bm + 4), 0xfffffff8, 4);
    out(f, (uint16_t)f->bm, 9, 1);
    assert_int_equal(wait(f), READY | ERR);
    out(f, (uint16_t)f->bm, 0, 1);
    assert_int_equal(f->disk.waiting_count, 0);
}

static void send_packet(struct fixture *f, const uint8_t *packet, uint16_t limit, bool dma)
{
    command(f, 0xa0, 0xb0, (uint32_t)limit << 8, 0, dma);
    assert_int_equal(in(f, PORT + 7, 1), READY | DRQ);
    assert_int_equal(in(f, PORT + 2, 1) & 3, 1);
    write_data(f, packet, 12);
}

static void test_packets(void **state)
{
    struct fixture *f = *state;
    uint8_t data[6144];
    const uint8_t read[12] = {0x28, 0, 0, 0, 0, 16, 0, 0, 3}, ready[12] = {0};
    const uint8_t select[12] = {0x55, 0x10, 0, 0, 0, 0, 0, 0, 20};
    /* By PIO, at most 4096 bytes at once. */
    send_packet(f, read, 4096, false);
    assert_int_equal(wait(f), READY | DRQ);
    assert_int_equal(in(f, PORT + 2, 1), 2);
    assert_int_equal(in(f, PORT + 4, 1) | in(f, PORT + 5, 1) << 8, 4096);
    read_data(f, data, 4096);
    assert_true(f->irq[0]);
    assert_int_equal(wait(f), READY | DRQ);
    assert_int_equal(in(f, PORT + 4, 1) | in(f, PORT + 5, 1) << 8, 2048);
    read_data(f, data + 4096, 2048);
    assert_int_equal(wait(f), READY);
    assert_int_equal(in(f, PORT + 2, 1), 3);
    assert_memory_equal(data, f->cd.bytes + 16 * 2048, 6144);
    /* By DMA. */
    send_packet(f, read, 0, true);
    start_dma(f, 3, 2048, true);
    assert_int_equal(wait(f), READY);
    assert_memory_equal(ram_hva(f->m.ram, f->data, 6144), f->cd.bytes + 16 * 2048, 6144);
    assert_int_equal(in(f, (uint16_t)(f->bm + 2), 1) & 7, 4);
    out(f, (uint16_t)f->bm, 0, 1);
    /* Without data, and towards the drive. */
    send_packet(f, ready, 0, false);
    assert_int_equal(wait(f), READY);
    memset(data, 0, 20);
    data[8] = 1;
    data[9] = 10;
    data[11] = 1;
    send_packet(f, select, 0xfffe, false);
    assert_int_equal(wait(f), READY | DRQ);
    assert_int_equal(in(f, PORT + 2, 1), 0);
    write_data(f, data, 20);
    assert_int_equal(wait(f), READY);
    /* What it does not know. */
    const uint8_t bad[12] = {0xd8};
    send_packet(f, bad, 0, false);
    assert_int_equal(wait(f), READY | ERR);
    assert_int_equal(in(f, PORT + 1, 1), 0x50);
    /* DEVICE RESET in the middle of data. */
    send_packet(f, read, 4096, false);
    assert_int_equal(wait(f), READY | DRQ);
    out(f, PORT + 7, 0x08, 1);
    assert_int_equal(in(f, PORT + 7, 1), 0);
    assert_int_equal(in(f, PORT + 4, 1) | in(f, PORT + 5, 1) << 8, 0xeb14);
}

static void test_reset_while_busy(void **state)
{
    struct fixture *f = *state;
    command(f, 0xc8, 0xe0, 7, 16, 0);
    start_dma(f, 1, 8192, true);
    out(f, CONTROL, 4, 1);
    out(f, CONTROL, 0, 1);
    assert_int_equal(in(f, PORT + 7, 1), BSY); /* it still writes to memory */
    out(f, PORT + 7, 0xec, 1);
    drain(f);
    assert_int_equal(in(f, PORT + 7, 1), READY);
    assert_int_equal(in(f, PORT + 1, 1), 1);
    assert_int_equal(in(f, PORT + 2, 1), 1);
    assert_false(f->irq[0]);
    /* When it ends before the reset does. */
    command(f, 0x20, 0xe0, 7, 16, 0);
    out(f, CONTROL, 4, 1);
    drain(f);
    assert_int_equal(in(f, PORT + 7, 1), BSY);
    out(f, CONTROL, 0, 1);
    assert_int_equal(in(f, PORT + 7, 1), READY);
    /* Masked interrupts come when they are not any more. */
    out(f, CONTROL, 2, 1);
    command(f, 0xec, 0xa0, 0, 0, 0);
    assert_false(f->irq[0]);
    out(f, CONTROL, 0, 1);
    assert_true(f->irq[0]);
    /* The diagnostic tells of both drives. */
    command(f, 0x20, 0xe0, 7, 1, 0);
    out(f, CONTROL, 4, 1);
    drain(f);
    out(f, CONTROL, 0, 1);
    out(f, PORT + 7, 0x90, 1);
    assert_true(f->irq[0]);
    assert_int_equal(in(f, PORT + 1, 1), 1);
}

static void load(struct fixture *g, const struct save *save)
{
    struct load stream;
    uint32_t version;
    load_init(&stream, save->bytes, save->size_bytes);
    assert_true(load_begin(&stream, ide_ops.name, &version) &&
                ide_ops.load(g->ide, &stream, version) && load_end(&stream));
}

static void save_to(struct fixture *f, struct save *save)
{
    save_begin(save, ide_ops.name, ide_ops.version);
    ide_ops.save(f->ide, save);
    save_end(save);
}

static void test_save_and_load(void **state)
{
    struct fixture *f = *state, *g = fixture_new();
    struct save save = {0}, dma = {0};
    uint8_t data[1024];
    /* In the middle of a block of a read. */
    command(f, 0x20, 0xe0, 100, 2, 0);
    assert_int_equal(wait(f), READY | DRQ);
    read_data(f, data, 100);
    save_to(f, &save);
    load(g, &save);
    read_data(g, data + 100, 412);
    assert_int_equal(wait(g), READY | DRQ);
    read_data(g, data + 512, 512);
    assert_int_equal(in(g, PORT + 7, 1), READY);
    assert_memory_equal(data, g->disk.bytes + 51200, 1024);
    /* Before the bus master was started. */
    out(f, CONTROL, 4, 1);
    out(f, CONTROL, 0, 1);
    command(f, 0xc8, 0xe0, 9, 4, 0);
    save_to(f, &dma);
    load(g, &dma);
    start_dma(g, 1, 2048, true);
    assert_int_equal(wait(g), READY);
    assert_memory_equal(ram_hva(g->m.ram, g->data, 2048), g->disk.bytes + 9 * 512, 2048);
    for (size_t size = 0; size < save.size_bytes; size += 7) {
        struct load stream;
        uint32_t version;
        load_init(&stream, save.bytes, save.size_bytes);
        load_begin(&stream, ide_ops.name, &version);
        if (size < stream.offset)
            continue;
        stream.section_end = stream.size_bytes = size;
        assert_false(ide_ops.load(g->ide, &stream, version));
        assert_int_equal(in(g, PORT + 7, 1), READY);
    }
    save_free(&save);
    save_free(&dma);
    fixture_free(g);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_presence), TEST(test_identify),         TEST(test_pio),           TEST(test_dma),
        TEST(test_packets),  TEST(test_reset_while_busy), TEST(test_save_and_load),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
