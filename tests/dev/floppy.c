/* SPDX-License-Identifier: BSD-2-Clause
 * The floppy controller through its ports, with the DMA controller, over images in memory. */
#include "dev/legacy.h"

#include "dev/memory_disk.h"

#include "bus/ram.h"
#include "dev/i8237.h"
#include "dev/storage/floppy.h"

#include <errno.h>

enum {
    DOR = 0x3f2,
    MSR = 0x3f4,
    FIFO = 0x3f5,
    DIR = 0x3f7,
    RAM_BYTES = 1 << 20,
    BUFFER = 0x20000,
    HD_BYTES = 1440 << 10,
    DD_BYTES = 720 << 10,
};

struct fixture {
    struct bus *bus;
    struct ram *ram;
    struct i8237 *dma;
    struct floppy *floppy;
    struct memory_disk a, b;
    bool irq;
};

static void irq(void *opaque, unsigned number, bool level)
{
    ((struct fixture *)opaque)->irq = level;
}

static void out(struct fixture *f, unsigned port, unsigned value)
{
    bus_write(f->bus, BUS_PORT, port, value, 1);
}

static unsigned in(struct fixture *f, unsigned port)
{
    return (unsigned)bus_read(f->bus, BUS_PORT, port, 1);
}

static void create(struct fixture *f, uint64_t b_bytes)
{
    struct error err = {0};
    memset(f, 0, sizeof(*f));
    f->bus = bus_create(NULL);
    f->ram = ram_create(RAM_BYTES, &err);
    const struct i8237_config dma = {0x00, 0xc0, 0x81, f->ram};
    f->dma = i8237_create(&dma, f->bus, &err);
    assert_non_null(f->dma);
    memory_disk_init(&f->a, HD_BYTES);
    memory_disk_init(&f->b, b_bytes);
    const struct block_backend a = memory_disk_backend(&f->a), b = memory_disk_backend(&f->b);
    const struct floppy_config config = {.base = 0x3f0,
                                         .irq = {irq, f, 6},
                                         .dma = i8237_channel(f->dma, 2),
                                         .drives = {{true, &a}, {true, &b}}};
    f->floppy = floppy_create(&config, f->bus, &err);
}

static void send(struct fixture *f, const uint8_t *bytes, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        assert_int_equal(in(f, MSR) & 0xc0, 0x80);
        out(f, FIFO, bytes[i]);
    }
}

#define SEND(f, ...) send(f, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static unsigned results(struct fixture *f, uint8_t *bytes)
{
    unsigned count = 0;
    while ((in(f, MSR) & 0xd0) == 0xd0) {
        assert_true(count < 10);
        bytes[count++] = (uint8_t)in(f, FIFO);
    }
    return count;
}

static void expect(struct fixture *f, const uint8_t *expected, unsigned count)
{
    uint8_t got[10];
    assert_int_equal(results(f, got), count);
    assert_memory_equal(got, expected, count);
    assert_int_equal(in(f, MSR), 0x80);
}

#define EXPECT(f, ...)                                                                             \
    expect(f, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void setup(struct fixture *f)
{
    create(f, DD_BYTES);
    assert_non_null(f->floppy);
    out(f, DOR, 0);
    out(f, DOR, 0x1c);
    assert_true(f->irq);
    for (uint8_t i = 0; i < 4; i++) {
        SEND(f, 0x08);
        EXPECT(f, 0xc0 | i, 0);
    }
    out(f, DIR, 0);
    SEND(f, 0x03, 0xaf, 0x02);
}

static void teardown(struct fixture *f)
{
    memory_disk_drain(&f->a);
    memory_disk_drain(&f->b);
    floppy_ops.destroy(f->floppy);
    i8237_ops.destroy(f->dma);
    ram_destroy(f->ram);
    bus_destroy(f->bus);
    memory_disk_free(&f->a);
    memory_disk_free(&f->b);
}

static void seek_to(struct fixture *f, uint8_t unit, uint8_t track)
{
    SEND(f, 0x0f, unit, track);
    assert_true(f->irq);
    SEND(f, 0x08);
    assert_false(f->irq);
    EXPECT(f, 0x20 | unit, track);
}

/* Channel 2, `mode` as seen by memory: 0x46 is written, 0x4a read. */
static void set_dma(struct fixture *f, unsigned mode, unsigned size_bytes)
{
    out(f, 0x0a, 6);
    out(f, 0x0c, 0);
    out(f, 0x0b, mode);
    out(f, 0x04, BUFFER & 0xff);
    out(f, 0x04, BUFFER >> 8 & 0xff);
    out(f, 0x81, BUFFER >> 16);
    out(f, 0x05, (size_bytes - 1) & 0xff);
    out(f, 0x05, (size_bytes - 1) >> 8);
    out(f, 0x0a, 2);
}

static uint8_t *buffer(struct fixture *f)
{
    return ram_hva(f->ram, BUFFER, 64 << 10);
}

static uint64_t at(unsigned c, unsigned h, unsigned r, unsigned sectors)
{
    return ((uint64_t)(c * 2 + h) * sectors + r - 1) * 512;
}

/* ---- tests ---- */

static void test_registers(void **state)
{
    struct fixture f;
    create(&f, DD_BYTES);
    assert_int_equal(in(&f, MSR), 0); /* held in reset */
    assert_int_equal(floppy_drive_type(f.floppy, 0), FLOPPY_1440K);
    assert_int_equal(floppy_drive_type(f.floppy, 1), FLOPPY_1440K);
    teardown(&f);
    setup(&f);
    SEND(&f, 0x10);
    EXPECT(&f, 0x90);
    SEND(&f, 0x18); /* a later chip's */
    EXPECT(&f, 0x80);
    SEND(&f, 0x08); /* nothing is to be told */
    EXPECT(&f, 0x80);
    SEND(&f, 0x94);
    EXPECT(&f, 0x10);
    SEND(&f, 0x13, 0, 0x57, 0x11);
    SEND(&f, 0x12, 0x84);
    SEND(&f, 0x0e);
    EXPECT(&f, 0, 0, 0, 0, 0xaf, 0x02, 0, 0x84, 0x57, 0x11);
    out(&f, 0x3f4, 0x80); /* LOCK keeps the FIFO's settings over this */
    for (unsigned i = 0; i < 4; i++) {
        SEND(&f, 0x08);
        EXPECT(&f, (uint8_t)(0xc0 | i), 0);
    }
    SEND(&f, 0x0e);
    EXPECT(&f, 0, 0, 0, 0, 0xaf, 0x02, 0, 0x84, 0x07, 0x11);
    SEND(&f, 0x14);
    EXPECT(&f, 0);
    SEND(&f, 0x04, 0x00);
    EXPECT(&f, 0x38);
    SEND(&f, 0x04, 0x03); /* no such drive */
    EXPECT(&f, 0x03);
    teardown(&f);
}

static void test_seek_and_change_line(void **state)
{
    struct fixture f;
    setup(&f);
    assert_int_equal(in(&f, DIR) & 0x80, 0x80);
    seek_to(&f, 0, 5);
    assert_int_equal(in(&f, DIR) & 0x80, 0);
    SEND(&f, 0xcf, 0, 3);
    SEND(&f, 0x08);
    EXPECT(&f, 0x20, 8);
    SEND(&f, 0x8f, 0, 20);
    SEND(&f, 0x08);
    EXPECT(&f, 0x20, 0);
    seek_to(&f, 0, 100); /* RECALIBRATE takes 79 steps */
    SEND(&f, 0x07, 0);
    SEND(&f, 0x08);
    EXPECT(&f, 0x70, 21);
    SEND(&f, 0x07, 0);
    SEND(&f, 0x08);
    EXPECT(&f, 0x20, 0);
    SEND(&f, 0x07, 2);
    SEND(&f, 0x08);
    EXPECT(&f, 0x72, 0);
    assert_true(floppy_change_medium(f.floppy, 0, NULL));
    seek_to(&f, 0, 1);
    assert_int_equal(in(&f, DIR) & 0x80, 0x80);
    SEND(&f, 0x4a, 0);
    EXPECT(&f, 0x40, 0x05, 0, 0, 0, 0, 0);
    struct block_backend a = memory_disk_backend(&f.a);
    assert_true(floppy_change_medium(f.floppy, 0, &a));
    assert_int_equal(in(&f, DIR) & 0x80, 0x80);
    seek_to(&f, 0, 0);
    assert_int_equal(in(&f, DIR) & 0x80, 0);
    f.b.info.size_bytes = 1200 << 10; /* for another drive */
    struct block_backend b = memory_disk_backend(&f.b);
    assert_false(floppy_change_medium(f.floppy, 0, &b));
    teardown(&f);
}

static void test_read(void **state)
{
    struct fixture f;
    setup(&f);
    seek_to(&f, 0, 7);
    set_dma(&f, 0x46, 1024);
    SEND(&f, 0xe6, 0x04, 7, 1, 3, 2, 18, 0x1b, 0xff);
    assert_int_equal(in(&f, MSR), 0x10);
    assert_false(f.irq);
    memory_disk_drain(&f.a);
    assert_true(f.irq);
    EXPECT(&f, 0x04, 0, 0, 7, 1, 5, 2);
    assert_false(f.irq);
    assert_memory_equal(buffer(&f), f.a.bytes + at(7, 1, 3, 18), 1024);
    /* Over both sides of a cylinder. */
    set_dma(&f, 0x46, 36 * 512);
    SEND(&f, 0xe6, 0x00, 7, 0, 1, 2, 18, 0x1b, 0xff);
    memory_disk_drain(&f.a);
    EXPECT(&f, 0x04, 0, 0, 8, 0, 1, 2);
    assert_memory_equal(buffer(&f), f.a.bytes + at(7, 0, 1, 18), 36 * 512);
    /* Without an end by the DMA controller it is the cylinder's. */
    set_dma(&f, 0x46, 0x10000);
    SEND(&f, 0x66, 0x00, 7, 0, 17, 2, 18, 0x1b, 0xff);
    memory_disk_drain(&f.a);
    EXPECT(&f, 0x40, 0x80, 0, 8, 0, 1, 2);
    /* A channel that is masked. */
    out(&f, 0x0a, 6);
    SEND(&f, 0x66, 0x00, 7, 0, 17, 2, 18, 0x1b, 0xff);
    memory_disk_drain(&f.a);
    EXPECT(&f, 0x40, 0x10, 0, 7, 0, 17, 2);
    /* READ TRACK, VERIFY and READ DELETED DATA, which there is none of. */
    set_dma(&f, 0x46, 0x10000);
    SEND(&f, 0x42, 0x00, 7, 0, 9, 2, 4, 0x1b, 0xff);
    memory_disk_drain(&f.a);
    EXPECT(&f, 0x00, 0, 0, 8, 0, 1, 2);
    SEND(&f, 0x56, 0x80, 7, 0, 2, 2, 18, 0x1b, 3);
    memory_disk_drain(&f.a);
    EXPECT(&f, 0x00, 0, 0, 7, 0, 5, 2);
    SEND(&f, 0x4c, 0x00, 7, 0, 2, 2, 18, 0x1b, 0xff);
    memory_disk_drain(&f.a);
    EXPECT(&f, 0x00, 0, 0x40, 7, 0, 3, 2);
    teardown(&f);
}

static void test_write_and_format(void **state)
{
    struct fixture f;
    setup(&f);
    seek_to(&f, 0, 2);
    for (unsigned i = 0; i < 1024; i++)
        buffer(&f)[i] = (uint8_t)(i * 5);
    set_dma(&f, 0x4a, 700); /* the second sector ends early, and with zeroes */
    SEND(&f, 0xc5, 0x00, 2, 0, 18, 2, 18, 0x1b, 0xff);
    memory_disk_drain(&f.a);
    EXPECT(&f, 0x04, 0, 0, 2, 1, 2, 2);
    assert_memory_equal(f.a.bytes + at(2, 0, 18, 18), buffer(&f), 700);
    for (unsigned i = 700; i < 1024; i++)
        assert_int_equal(f.a.bytes[at(2, 0, 18, 18) + i], 0);
    for (uint8_t i = 0; i < 18; i++)
        memcpy(buffer(&f) + 4 * i, (uint8_t[]){2, 1, (uint8_t)(i * 5 % 18 + 1), 2}, 4);
    set_dma(&f, 0x4a, 72);
    SEND(&f, 0x4d, 0x04, 2, 18, 0x54, 0xf6);
    memory_disk_drain(&f.a);
    uint8_t got[10];
    assert_int_equal(results(&f, got), 7);
    assert_int_equal(got[0], 0x04);
    for (unsigned i = 0; i < 18 * 512; i++)
        assert_int_equal(f.a.bytes[at(2, 1, 1, 18) + i], 0xf6);
    assert_int_not_equal(f.a.bytes[at(3, 0, 1, 18) + 100], 0xf6);
    buffer(&f)[2] = 99; /* an id that is not the format's */
    set_dma(&f, 0x4a, 72);
    SEND(&f, 0x4d, 0x04, 2, 18, 0x54, 0xf6);
    assert_int_equal(results(&f, got), 7);
    assert_int_equal(got[0], 0x44);
    SEND(&f, 0x4d, 0x04, 2, 15, 0x54, 0xf6);
    assert_int_equal(results(&f, got), 7);
    assert_int_equal(got[0], 0x44);
    teardown(&f);
}

static void test_errors(void **state)
{
    static const struct {
        uint8_t c, h, r, n, st1, st2;
    } bad[] = {{6, 0, 1, 2, 4, 0x10},
               {5, 1, 1, 2, 4, 0},
               {5, 0, 0, 2, 4, 0},
               {5, 0, 19, 2, 4, 0},
               {5, 0, 1, 3, 4, 0}};
    struct fixture f;
    setup(&f);
    seek_to(&f, 0, 5);
    set_dma(&f, 0x46, 512);
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        SEND(&f, 0xe6, 0, bad[i].c, bad[i].h, bad[i].r, bad[i].n, 18, 0x1b, 0xff);
        EXPECT(&f, 0x40, bad[i].st1, bad[i].st2, bad[i].c, bad[i].h, bad[i].r, bad[i].n);
    }
    seek_to(&f, 0, 80);
    SEND(&f, 0xe6, 0, 80, 0, 1, 2, 18, 0x1b, 0xff);
    EXPECT(&f, 0x40, 5, 0, 80, 0, 1, 2);
    seek_to(&f, 0, 0);
    out(&f, DIR, 2); /* another rate of data: nothing is found */
    SEND(&f, 0x4a, 0);
    EXPECT(&f, 0x40, 5, 0, 0, 0, 0, 0);
    SEND(&f, 0x4a, 1); /* but on the 720K disk */
    EXPECT(&f, 0x01, 0, 0, 0, 0, 1, 2);
    out(&f, DIR, 0);
    SEND(&f, 0x0a, 0); /* single density */
    EXPECT(&f, 0x40, 5, 0, 0, 0, 0, 0);
    SEND(&f, 0x4a, 3); /* no such drive */
    EXPECT(&f, 0x43, 5, 0, 0, 0, 0, 0);
    f.a.fail = EIO;
    SEND(&f, 0xe6, 0, 0, 0, 1, 2, 18, 0x1b, 0xff);
    memory_disk_drain(&f.a);
    EXPECT(&f, 0x40, 0x20, 0x20, 0, 0, 1, 2);
    f.a.info.read_only = true;
    struct block_backend a = memory_disk_backend(&f.a);
    assert_true(floppy_change_medium(f.floppy, 0, &a));
    SEND(&f, 0xc5, 0, 0, 0, 1, 2, 18, 0x1b, 0xff);
    EXPECT(&f, 0x40, 2, 0, 0, 0, 1, 2);
    SEND(&f, 0x4d, 0, 2, 18, 0x54, 0xf6);
    EXPECT(&f, 0x40, 2, 0, 0, 0, 0, 2);
    SEND(&f, 0x04, 0);
    EXPECT(&f, 0x78);
    teardown(&f);
}

static void test_programmed_io(void **state)
{
    struct fixture f;
    uint8_t got[10];
    setup(&f);
    SEND(&f, 0x03, 0xaf, 0x03);
    SEND(&f, 0x66, 0, 0, 0, 18, 2, 18, 0x1b, 0xff);
    assert_int_equal(in(&f, MSR), 0x10);
    memory_disk_drain(&f.a);
    assert_true(f.irq);
    for (unsigned i = 0; i < 512; i++) {
        assert_int_equal(in(&f, MSR), 0xf0);
        assert_int_equal(in(&f, FIFO), f.a.bytes[at(0, 0, 18, 18) + i]);
    }
    assert_int_equal(results(&f, got), 7);
    assert_int_equal(got[1], 0x80);
    SEND(&f, 0x45, 0, 0, 0, 17, 2, 18, 0x1b, 0xff);
    for (unsigned s = 0; s < 2; s++) {
        for (unsigned i = 0; i < 512; i++) {
            assert_int_equal(in(&f, MSR), 0xb0);
            out(&f, FIFO, i ^ s);
        }
        memory_disk_drain(&f.a);
    }
    assert_int_equal(results(&f, got), 7);
    assert_int_equal(f.a.bytes[at(0, 0, 18, 18) + 5], 5 ^ 1);
    teardown(&f);
}

/* A reset while the disk has a sector: what comes back is thrown away. */
static void test_reset_while_busy(void **state)
{
    struct fixture f;
    setup(&f);
    set_dma(&f, 0x46, 512);
    memset(buffer(&f), 0xee, 512);
    SEND(&f, 0xe6, 0, 0, 0, 1, 2, 18, 0x1b, 0xff);
    assert_int_equal(f.a.waiting_count, 1);
    out(&f, DOR, 0x18);
    assert_int_equal(in(&f, MSR), 0);
    out(&f, DOR, 0x1c);
    memory_disk_drain(&f.a);
    assert_int_equal(buffer(&f)[0], 0xee);
    assert_int_equal(in(&f, MSR), 0x80);
    SEND(&f, 0x08);
    EXPECT(&f, 0xc0, 0);
    teardown(&f);
}

static void test_sizes(void **state)
{
    static const struct {
        unsigned kib, type;
    } sizes[] = {{160, 1},  {180, 1},  {320, 1},  {360, 1}, {720, 4},
                 {1200, 2}, {1440, 4}, {2880, 5}, {1000, 0}};
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        assert_int_equal(floppy_type_for(sizes[i].kib * 1024), sizes[i].type);
    struct fixture f;
    create(&f, 1000 << 10);
    assert_null(f.floppy);
    i8237_ops.destroy(f.dma);
    ram_destroy(f.ram);
    bus_destroy(f.bus);
    memory_disk_free(&f.a);
    memory_disk_free(&f.b);
}

static void test_save_load(void **state)
{
    struct fixture f;
    struct save save = {0};
    struct load load;
    uint32_t version;
    setup(&f);
    seek_to(&f, 0, 7);
    set_dma(&f, 0x46, 512);
    SEND(&f, 0xe6, 0, 7, 0, 1, 2, 18, 0x1b, 0xff);
    memory_disk_drain(&f.a);
    save_begin(&save, floppy_ops.name, floppy_ops.version);
    floppy_ops.save(f.floppy, &save);
    save_end(&save);
    floppy_ops.reset(f.floppy);
    assert_false(f.irq);
    load_init(&load, save.bytes, save.size_bytes);
    assert_true(load_begin(&load, floppy_ops.name, &version));
    assert_true(floppy_ops.load(f.floppy, &load, version));
    assert_true(load_end(&load));
    assert_true(f.irq);
    EXPECT(&f, 0x00, 0, 0, 7, 0, 2, 2);
    SEND(&f, 0x4a, 0);
    EXPECT(&f, 0x00, 0, 0, 7, 0, 1, 2);
    for (size_t i = 0; i < save.size_bytes && i < 400; i++) {
        save.bytes[i] ^= 0x5a;
        load_init(&load, save.bytes, save.size_bytes);
        if (load_begin(&load, floppy_ops.name, &version) &&
            floppy_ops.load(f.floppy, &load, version)) {
            out(&f, FIFO, 0x08);
            in(&f, FIFO);
        }
        save.bytes[i] ^= 0x5a;
    }
    save_free(&save);
    teardown(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_registers),
        cmocka_unit_test(test_seek_and_change_line),
        cmocka_unit_test(test_read),
        cmocka_unit_test(test_write_and_format),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_programmed_io),
        cmocka_unit_test(test_reset_while_busy),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_save_load),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
