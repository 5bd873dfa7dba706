/* SPDX-License-Identifier: BSD-2-Clause
 * The DMA controllers through their ports, with a device's side that moves bytes. */
#include "dev/legacy.h"

#include "bus/ram.h"
#include "dev/i8237.h"
#include "dev/post_port.h"

enum { RAM_BYTES = 4 << 20 };

struct fixture {
    struct bus *bus;
    struct ram *ram;
    struct i8237 *dma;
    struct post_port *post;
};

static void out(struct fixture *f, unsigned port, unsigned value)
{
    bus_write(f->bus, BUS_PORT, port, value, 1);
}

static unsigned in(struct fixture *f, unsigned port)
{
    return (unsigned)bus_read(f->bus, BUS_PORT, port, 1);
}

static void setup(struct fixture *f)
{
    struct error err = {0};
    f->bus = bus_create(NULL);
    f->ram = ram_create(RAM_BYTES, &err);
    assert_non_null(f->ram);
    const struct post_port_config post = {.ports = {0x80}, .port_count = 1};
    f->post = post_port_create(&post, f->bus, &err);
    assert_non_null(f->post);
    const struct i8237_config config = {0x00, 0xc0, 0x81, f->ram};
    f->dma = i8237_create(&config, f->bus, &err);
    assert_non_null(f->dma);
}

static void teardown(struct fixture *f)
{
    i8237_ops.destroy(f->dma);
    post_port_ops.destroy(f->post);
    ram_destroy(f->ram);
    bus_destroy(f->bus);
}

static void program(struct fixture *f, unsigned channel, unsigned mode, unsigned page,
                    unsigned address, unsigned count)
{
    static const unsigned pages[8] = {0x87, 0x83, 0x81, 0x82, 0x8f, 0x8b, 0x89, 0x8a};
    bool word = channel >= 4;
    unsigned base = word ? 0xc0 : 0, step = word ? 2 : 1, local = channel & 3;
    out(f, base + 10 * step, local | 4);
    out(f, base + 12 * step, 0);
    out(f, base + 11 * step, mode | local);
    out(f, base + 2 * local * step, address & 0xff);
    out(f, base + 2 * local * step, address >> 8);
    out(f, base + (2 * local + 1) * step, count & 0xff);
    out(f, base + (2 * local + 1) * step, count >> 8);
    out(f, pages[channel], page);
    out(f, base + 10 * step, local);
}

static void test_to_and_from_memory(void **state)
{
    struct fixture f;
    uint8_t data[64], back[64];
    bool is_over;
    setup(&f);
    for (unsigned i = 0; i < 64; i++)
        data[i] = (uint8_t)(i * 3);
    struct dma_channel two = i8237_channel(f.dma, 2);
    assert_int_equal(dma_move(&two, data, 64, true, &is_over), 0); /* masked after reset */
    program(&f, 2, 0x44, 0x12, 0x3450, 63);
    assert_int_equal(dma_move(&two, data, 16, true, &is_over), 16);
    assert_false(is_over);
    assert_int_equal(in(&f, 4) | in(&f, 4) << 8, 0x3460);
    assert_int_equal(in(&f, 5) | in(&f, 5) << 8, 47);
    assert_int_equal(dma_move(&two, data + 16, 48, true, &is_over), 48);
    assert_true(is_over);
    assert_memory_equal(ram_hva(f.ram, 0x123450, 64), data, 64);
    assert_int_equal(in(&f, 8) & 15, 4); /* terminal count of channel 2, once */
    assert_int_equal(in(&f, 8) & 15, 0);
    assert_int_equal(dma_move(&two, data, 1, true, &is_over), 0); /* masked by its end */
    program(&f, 2, 0x48, 0x12, 0x3450, 63);
    assert_int_equal(dma_move(&two, back, 64, false, &is_over), 64);
    assert_memory_equal(back, data, 64);
    teardown(&f);
}

static void test_words_wrap_auto_down(void **state)
{
    struct fixture f;
    uint8_t data[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
    bool is_over;
    setup(&f);
    struct dma_channel five = i8237_channel(f.dma, 5), one = i8237_channel(f.dma, 1);
    /* Words: the page's lowest bit does not count, the address wraps at 128 KiB. */
    program(&f, 5, 0x44, 0x03, 0xffff, 3);
    assert_int_equal(dma_move(&five, data, 8, true, &is_over), 8);
    assert_true(is_over);
    assert_memory_equal(ram_hva(f.ram, 0x3fffe, 2), data, 2);
    assert_memory_equal(ram_hva(f.ram, 0x20000, 6), data + 2, 6);
    assert_int_equal(in(&f, 0xd0) & 15, 2);
    /* By itself again, and downwards. */
    program(&f, 1, 0x44 | 0x10 | 0x20, 0x01, 0x0001, 3);
    assert_int_equal(dma_move(&one, data, 4, true, &is_over), 4);
    assert_true(is_over);
    assert_int_equal(*(uint8_t *)ram_hva(f.ram, 0x10001, 1), 1);
    assert_int_equal(*(uint8_t *)ram_hva(f.ram, 0x10000, 1), 2);
    assert_int_equal(*(uint8_t *)ram_hva(f.ram, 0x1ffff, 1), 3);
    assert_int_equal(dma_move(&one, data + 8, 1, true, &is_over), 1);
    assert_int_equal(*(uint8_t *)ram_hva(f.ram, 0x10001, 1), 9);
    teardown(&f);
}

static void test_masks_and_bad_memory(void **state)
{
    struct fixture f;
    uint8_t data[8] = {0};
    bool is_over;
    setup(&f);
    struct dma_channel zero = i8237_channel(f.dma, 0);
    program(&f, 0, 0x44, 0xff, 0x0000, 7); /* no RAM there */
    assert_int_equal(dma_move(&zero, data, 8, true, &is_over), 8);
    program(&f, 0, 0x48, 0xff, 0x0000, 7);
    assert_int_equal(dma_move(&zero, data, 8, false, &is_over), 8);
    assert_int_equal(data[7], 0xff);
    program(&f, 0, 0x40, 0x10, 0x0000, 7); /* verify */
    *(uint8_t *)ram_hva(f.ram, 0x100000, 1) = 0x77;
    assert_int_equal(dma_move(&zero, data, 8, true, &is_over), 8);
    assert_true(is_over);
    assert_int_equal(*(uint8_t *)ram_hva(f.ram, 0x100000, 1), 0x77);
    program(&f, 0, 0x44, 0x10, 0x0000, 7);
    out(&f, 8, 4); /* the whole chip is off */
    assert_int_equal(dma_move(&zero, data, 8, true, &is_over), 0);
    out(&f, 8, 0);
    out(&f, 15, 1);
    assert_int_equal(in(&f, 15) & 15, 1);
    assert_int_equal(dma_move(&zero, data, 8, true, &is_over), 0);
    out(&f, 14, 0);
    assert_int_equal(dma_move(&zero, data, 8, true, &is_over), 8);
    out(&f, 13, 0);
    assert_int_equal(in(&f, 15) & 15, 15);
    teardown(&f);
}

/* The POST port is where the page register of no channel would be. */
static void test_pages_and_post(void **state)
{
    struct fixture f;
    setup(&f);
    for (unsigned i = 0; i < 16; i++)
        out(&f, 0x80 + i, 0x30 + i);
    for (unsigned i = 0; i < 16; i++)
        assert_int_equal(in(&f, 0x80 + i), 0x30 + i);
    teardown(&f);
}

static void test_save_load(void **state)
{
    struct fixture f;
    struct save save = {0};
    struct load load;
    uint32_t version;
    uint8_t data[8] = {5, 6, 7, 8};
    bool is_over;
    setup(&f);
    struct dma_channel two = i8237_channel(f.dma, 2);
    program(&f, 2, 0x44, 0x02, 0x0000, 3);
    dma_move(&two, data, 2, true, &is_over);
    save_begin(&save, i8237_ops.name, i8237_ops.version);
    i8237_ops.save(f.dma, &save);
    save_end(&save);
    i8237_ops.reset(f.dma);
    load_init(&load, save.bytes, save.size_bytes);
    assert_true(load_begin(&load, i8237_ops.name, &version));
    assert_true(i8237_ops.load(f.dma, &load, version));
    assert_true(load_end(&load));
    assert_int_equal(dma_move(&two, data + 2, 4, true, &is_over), 2);
    assert_true(is_over);
    assert_memory_equal(ram_hva(f.ram, 0x20000, 4), data, 4);
    save_free(&save);
    teardown(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_to_and_from_memory),
        cmocka_unit_test(test_words_wrap_auto_down),
        cmocka_unit_test(test_masks_and_bad_memory),
        cmocka_unit_test(test_pages_and_post),
        cmocka_unit_test(test_save_load),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
