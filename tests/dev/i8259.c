/* SPDX-License-Identifier: BSD-2-Clause
 * The pair of 8259s through the bus. */
#include "legacy.h"

#include "dev/i8259.h"

struct fixture {
    struct bus *bus;
    struct wire intr;
    struct i8259 *pic;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    f->bus = bus_create(NULL);
    struct i8259_config config = {0x20, 0xa0, 0x4d0, wire_line(&f->intr, 0)};
    f->pic = i8259_create(&config, f->bus, NULL);
    assert_non_null(f->pic);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    i8259_ops.destroy(f->pic);
    assert_int_equal(in8(f->bus, 0x21), 0xff); /* unmapped */
    bus_destroy(f->bus);
    free(f);
    return 0;
}

static void init(struct fixture *f, uint8_t master_icw4, uint8_t slave_icw4)
{
    out8(f->bus, 0x20, 0x11);
    out8(f->bus, 0x21, 0x30);
    out8(f->bus, 0x21, 0x04);
    out8(f->bus, 0x21, master_icw4);
    out8(f->bus, 0xa0, 0x11);
    out8(f->bus, 0xa1, 0x38);
    out8(f->bus, 0xa1, 0x02);
    out8(f->bus, 0xa1, slave_icw4);
    out8(f->bus, 0x21, 0x00);
    out8(f->bus, 0xa1, 0x00);
}

static void pulse(struct fixture *f, unsigned irq)
{
    i8259_set_irq(f->pic, irq, true);
    i8259_set_irq(f->pic, irq, false);
}

static uint8_t isr(struct fixture *f, uint16_t base)
{
    out8(f->bus, base, 0x0b);
    return in8(f->bus, base);
}

static uint8_t irr(struct fixture *f, uint16_t base)
{
    out8(f->bus, base, 0x0a);
    return in8(f->bus, base);
}

static void test_priority_and_eoi(void **state)
{
    struct fixture *f = *state;
    init(f, 1, 1);
    pulse(f, 4);
    assert_true(f->intr.level);
    assert_int_equal(i8259_acknowledge(f->pic), 0x34);
    assert_false(f->intr.level);
    assert_int_equal(isr(f, 0x20), 0x10);
    pulse(f, 5); /* lower: waits */
    assert_false(f->intr.level);
    assert_int_equal(irr(f, 0x20), 0x20);
    pulse(f, 1); /* higher: nests */
    assert_int_equal(i8259_acknowledge(f->pic), 0x31);
    out8(f->bus, 0x20, 0x20);
    assert_int_equal(isr(f, 0x20), 0x10); /* the higher one has ended */
    assert_false(f->intr.level);
    out8(f->bus, 0x20, 0x64);
    assert_true(f->intr.level);
    assert_int_equal(i8259_acknowledge(f->pic), 0x35);
}

static void test_mask(void **state)
{
    struct fixture *f = *state;
    init(f, 1, 1);
    out8(f->bus, 0x21, 0x08);
    assert_int_equal(in8(f->bus, 0x21), 0x08);
    pulse(f, 3);
    assert_false(i8259_has_interrupt(f->pic));
    out8(f->bus, 0x21, 0x00);
    assert_true(i8259_has_interrupt(f->pic));
    assert_int_equal(i8259_acknowledge(f->pic), 0x33);
}

static void test_slave(void **state)
{
    struct fixture *f = *state;
    init(f, 1, 1);
    pulse(f, 14);
    assert_int_equal(i8259_acknowledge(f->pic), 0x3e);
    assert_int_equal(isr(f, 0x20), 0x04);
    assert_int_equal(isr(f, 0xa0), 0x40);
    pulse(f, 8); /* higher on the slave, but not fully nested on the master */
    assert_false(f->intr.level);
    out8(f->bus, 0x20, 0x20);
    assert_true(f->intr.level);
    assert_int_equal(i8259_acknowledge(f->pic), 0x38);
    out8(f->bus, 0xa0, 0x20);
    out8(f->bus, 0xa0, 0x20);
    out8(f->bus, 0x20, 0x20);
    assert_int_equal(isr(f, 0xa0), 0);
    assert_int_equal(isr(f, 0x20), 0);
}

static void test_special_fully_nested(void **state)
{
    struct fixture *f = *state;
    init(f, 0x11, 1);
    pulse(f, 14);
    assert_int_equal(i8259_acknowledge(f->pic), 0x3e);
    pulse(f, 8);
    assert_true(f->intr.level);
    assert_int_equal(i8259_acknowledge(f->pic), 0x38);
}

static void test_two_requests_of_slave(void **state)
{
    struct fixture *f = *state;
    init(f, 1, 3); /* the slave ends by itself */
    i8259_set_irq(f->pic, 9, true);
    i8259_set_irq(f->pic, 10, true);
    assert_int_equal(i8259_acknowledge(f->pic), 0x39);
    out8(f->bus, 0x20, 0x20);
    assert_true(f->intr.level); /* the second one is not lost */
    assert_int_equal(i8259_acknowledge(f->pic), 0x3a);
}

static void test_level_triggered(void **state)
{
    struct fixture *f = *state;
    init(f, 1, 1);
    bus_write(f->bus, BUS_PORT, 0x4d0, 0xffff, 2);
    assert_int_equal(bus_read(f->bus, BUS_PORT, 0x4d0, 2), 0xdef8); /* 0-2, 8, 13 stay edges */
    i8259_set_irq(f->pic, 5, true);
    assert_int_equal(i8259_acknowledge(f->pic), 0x35);
    out8(f->bus, 0x20, 0x20);
    assert_true(f->intr.level); /* still high: again */
    i8259_set_irq(f->pic, 5, false);
    assert_false(f->intr.level);
    i8259_set_irq(f->pic, 11, true);
    assert_int_equal(i8259_acknowledge(f->pic), 0x3b);
}

static void test_edge_needs_a_rise(void **state)
{
    struct fixture *f = *state;
    init(f, 1, 1);
    i8259_set_irq(f->pic, 5, true);
    assert_int_equal(i8259_acknowledge(f->pic), 0x35);
    out8(f->bus, 0x20, 0x20);
    i8259_set_irq(f->pic, 5, true);
    assert_false(f->intr.level);
    i8259_set_irq(f->pic, 5, false);
    i8259_set_irq(f->pic, 5, true);
    assert_true(f->intr.level);
}

static void test_spurious(void **state)
{
    struct fixture *f = *state;
    init(f, 1, 1);
    assert_int_equal(i8259_acknowledge(f->pic), 0x37);
    assert_int_equal(isr(f, 0x20), 0);
    out8(f->bus, 0x4d1, 0x08);
    i8259_set_irq(f->pic, 11, true);
    i8259_set_irq(f->pic, 11, false); /* gone before the acknowledge */
    assert_int_equal(i8259_acknowledge(f->pic), 0x3f);
    assert_int_equal(isr(f, 0xa0), 0);
    assert_int_equal(isr(f, 0x20), 0x04); /* the master must be told of the end */
}

static void test_auto_eoi_and_rotation(void **state)
{
    struct fixture *f = *state;
    init(f, 3, 1);
    out8(f->bus, 0x20, 0x80); /* rotate on automatic end */
    pulse(f, 0);
    pulse(f, 1);
    assert_int_equal(i8259_acknowledge(f->pic), 0x30);
    assert_int_equal(isr(f, 0x20), 0);
    pulse(f, 0); /* now the lowest */
    assert_int_equal(i8259_acknowledge(f->pic), 0x31);
    assert_int_equal(i8259_acknowledge(f->pic), 0x30);
    init(f, 1, 1);
    out8(f->bus, 0x20, 0xc3); /* 3 is the lowest, 4 the highest */
    pulse(f, 0);
    pulse(f, 5);
    assert_int_equal(i8259_acknowledge(f->pic), 0x35);
    out8(f->bus, 0x20, 0xa0); /* rotate on end: 5 is the lowest */
    pulse(f, 5);
    assert_int_equal(i8259_acknowledge(f->pic), 0x30);
}

static void test_special_mask(void **state)
{
    struct fixture *f = *state;
    init(f, 1, 1);
    pulse(f, 1);
    assert_int_equal(i8259_acknowledge(f->pic), 0x31);
    pulse(f, 6);
    assert_false(f->intr.level);
    out8(f->bus, 0x21, 0x02);
    assert_false(f->intr.level);
    out8(f->bus, 0x20, 0x68);
    assert_true(f->intr.level); /* 1 is masked, so it blocks no more */
    assert_int_equal(i8259_acknowledge(f->pic), 0x36);
    out8(f->bus, 0x20, 0x20); /* ends 6, not the masked 1 */
    assert_int_equal(isr(f, 0x20), 0x02);
}

static void test_poll(void **state)
{
    struct fixture *f = *state;
    init(f, 1, 1);
    out8(f->bus, 0x20, 0x0c);
    assert_int_equal(in8(f->bus, 0x20) & 0x80, 0);
    pulse(f, 12);
    out8(f->bus, 0x20, 0x0c);
    assert_int_equal(in8(f->bus, 0x20), 0x82);
    out8(f->bus, 0xa0, 0x0c);
    assert_int_equal(in8(f->bus, 0xa0), 0x84);
    assert_int_equal(isr(f, 0xa0), 0x10);
    assert_false(f->intr.level);
}

static void test_save_and_load(void **state)
{
    struct fixture *f = *state;
    init(f, 1, 1);
    pulse(f, 3);
    i8259_acknowledge(f->pic);
    pulse(f, 9);
    out8(f->bus, 0x21, 0x40);
    save_and_load(&i8259_ops, f->pic, f->pic);
    assert_true(f->intr.level);
    assert_int_equal(isr(f, 0x20), 0x08);
    assert_int_equal(i8259_acknowledge(f->pic), 0x39);
    assert_int_equal(in8(f->bus, 0x21), 0x40);
    assert_true(load_mutations(&i8259_ops, f->pic, 1000) > 20);
    i8259_ops.reset(f->pic);
    assert_false(f->intr.level);
    assert_int_equal(in8(f->bus, 0x21), 0);
}

static void test_hostile(void **state)
{
    struct fixture *f = *state;
    hostile_ports(f->bus, 0x20, 2);
    hostile_ports(f->bus, 0xa0, 2);
    hostile_ports(f->bus, 0x4d0, 2);
    i8259_set_irq(f->pic, 2, true);
    i8259_set_irq(f->pic, 77, true);
    init(f, 1, 1);
    pulse(f, 6);
    assert_int_equal(i8259_acknowledge(f->pic), 0x36);
    assert_int_equal(bus_read(f->bus, BUS_PORT, 0x21, 4) >> 8, 0xffffff); /* past the end */
    struct i8259_config config = {0x20, 0xb0, 0x500};
    struct error err = {0};
    assert_null(i8259_create(&config, f->bus, &err)); /* taken */
    assert_int_equal(err.kind, ERROR_FAILED);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_priority_and_eoi),
        T(test_mask),
        T(test_slave),
        T(test_special_fully_nested),
        T(test_two_requests_of_slave),
        T(test_level_triggered),
        T(test_edge_needs_a_rise),
        T(test_spurious),
        T(test_auto_eoi_and_rotation),
        T(test_special_mask),
        T(test_poll),
        T(test_save_and_load),
        T(test_hostile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
