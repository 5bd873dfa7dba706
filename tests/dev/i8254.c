/* SPDX-License-Identifier: BSD-2-Clause
 * The 8254 through the bus. Counts are checked with the clock paused and set by hand; interrupts
 * with it running. */
#include "legacy.h"

#include "dev/i8254.h"

struct fixture {
    struct bus *bus;
    struct clock *clock;
    struct wire irq;
    struct i8254 *pit;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    f->bus = bus_create(NULL);
    f->clock = clock_create(NULL);
    struct i8254_config config = {0x40, 0x61, wire_line(&f->irq, 0)};
    f->pit = i8254_create(&config, f->bus, f->clock, NULL);
    assert_non_null(f->pit);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    i8254_ops.destroy(f->pit);
    bus_destroy(f->bus);
    clock_destroy(f->clock);
    free(f);
    return 0;
}

/* Stops time at the start of a tick of the 8254. */
static void set_tick(struct fixture *f, uint64_t tick)
{
    clock_pause(f->clock);
    clock_set_ns(f->clock, (tick * 1000000000 + 1193181) / 1193182);
}

static void program(struct fixture *f, unsigned counter, unsigned mode, unsigned count, bool bcd)
{
    out8(f->bus, 0x43, (uint8_t)(counter << 6 | 0x30 | mode << 1 | bcd));
    out8(f->bus, (uint16_t)(0x40 + counter), (uint8_t)count);
    out8(f->bus, (uint16_t)(0x40 + counter), (uint8_t)(count >> 8));
}

static unsigned read_count(struct fixture *f, unsigned counter)
{
    out8(f->bus, 0x43, (uint8_t)(counter << 6));
    unsigned low = in8(f->bus, (uint16_t)(0x40 + counter));
    return low | (unsigned)in8(f->bus, (uint16_t)(0x40 + counter)) << 8;
}

static uint8_t read_status(struct fixture *f, unsigned counter)
{
    out8(f->bus, 0x43, (uint8_t)(0xe0 | 2u << counter));
    return in8(f->bus, (uint16_t)(0x40 + counter));
}

static bool out2(struct fixture *f)
{
    return in8(f->bus, 0x61) & 0x20;
}

static void test_mode0(void **state)
{
    struct fixture *f = *state;
    set_tick(f, 1000);
    out8(f->bus, 0x61, 1);
    program(f, 2, 0, 100, false);
    assert_false(out2(f));
    assert_int_equal(read_status(f, 2), 0x70); /* not yet counting */
    set_tick(f, 1001);
    assert_int_equal(read_count(f, 2), 100);
    assert_int_equal(read_status(f, 2), 0x30);
    set_tick(f, 1041);
    assert_int_equal(read_count(f, 2), 60);
    set_tick(f, 1100);
    assert_false(out2(f));
    set_tick(f, 1101);
    assert_true(out2(f));
    assert_int_equal(read_status(f, 2), 0xb0);
    set_tick(f, 1102);
    assert_int_equal(read_count(f, 2), 0xffff); /* goes on */
}

static void test_mode0_gate(void **state)
{
    struct fixture *f = *state;
    set_tick(f, 1000);
    program(f, 2, 0, 100, false);
    set_tick(f, 2000);
    assert_int_equal(read_count(f, 2), 100); /* the gate is low */
    out8(f->bus, 0x61, 1);
    set_tick(f, 2030);
    out8(f->bus, 0x61, 0);
    set_tick(f, 3000);
    assert_int_equal(read_count(f, 2), 70);
    out8(f->bus, 0x61, 1);
    set_tick(f, 3069);
    assert_false(out2(f));
    set_tick(f, 3070);
    assert_true(out2(f));
}

static void test_mode1(void **state)
{
    struct fixture *f = *state;
    set_tick(f, 100);
    program(f, 2, 1, 50, false);
    set_tick(f, 300);
    assert_true(out2(f)); /* waits for the gate */
    out8(f->bus, 0x61, 1);
    set_tick(f, 301);
    assert_false(out2(f));
    set_tick(f, 330);
    out8(f->bus, 0x61, 0); /* does not matter */
    out8(f->bus, 0x61, 1); /* once more */
    set_tick(f, 380);
    assert_false(out2(f));
    set_tick(f, 381);
    assert_true(out2(f));
}

static void test_mode2(void **state)
{
    struct fixture *f = *state;
    set_tick(f, 0);
    out8(f->bus, 0x61, 1);
    program(f, 2, 2, 10, false);
    set_tick(f, 1 + 9);
    assert_false(out2(f)); /* the last tick of a period */
    assert_int_equal(read_count(f, 2), 1);
    set_tick(f, 1 + 10);
    assert_true(out2(f));
    assert_int_equal(read_count(f, 2), 10);
    set_tick(f, 1 + 1003);
    assert_int_equal(read_count(f, 2), 7);
    out8(f->bus, 0x42, 20); /* takes over with the next period */
    out8(f->bus, 0x42, 0);
    assert_int_equal(read_count(f, 2), 7);
    assert_int_equal(read_status(f, 2) & 0x40, 0x40);
    set_tick(f, 1 + 1010);
    assert_int_equal(read_count(f, 2), 20);
    assert_int_equal(read_status(f, 2) & 0x40, 0);
    out8(f->bus, 0x61, 0);
    set_tick(f, 1 + 1029);
    assert_true(out2(f)); /* the gate holds OUT high */
}

static void test_mode3(void **state)
{
    struct fixture *f = *state;
    set_tick(f, 0);
    out8(f->bus, 0x61, 1);
    program(f, 2, 3, 7, false);
    const bool high[] = {1, 1, 1, 1, 0, 0, 0, 1};
    for (unsigned i = 0; i < 8; i++) {
        set_tick(f, 1 + i);
        assert_int_equal(out2(f), high[i]);
        assert_int_equal(read_count(f, 2) % 2, 0);
    }
    program(f, 2, 3, 1000, false);
    set_tick(f, 9 + 100);
    assert_int_equal(read_count(f, 2), 800); /* by twos */
    out8(f->bus, 0x42, 100);                 /* after this half */
    out8(f->bus, 0x42, 0);
    set_tick(f, 9 + 499);
    assert_true(out2(f));
    set_tick(f, 9 + 500 + 49);
    assert_false(out2(f));
    set_tick(f, 9 + 500 + 50);
    assert_true(out2(f));
    set_tick(f, 9 + 500 + 100);
    assert_false(out2(f));
}

static void test_mode4_and_5(void **state)
{
    struct fixture *f = *state;
    set_tick(f, 0);
    out8(f->bus, 0x61, 1);
    program(f, 2, 4, 30, false);
    set_tick(f, 30);
    assert_true(out2(f));
    set_tick(f, 31);
    assert_false(out2(f));
    set_tick(f, 32);
    assert_true(out2(f));
    program(f, 2, 5, 30, false);
    set_tick(f, 100);
    assert_true(out2(f));
    out8(f->bus, 0x61, 0);
    out8(f->bus, 0x61, 1);
    set_tick(f, 131);
    assert_false(out2(f));
    set_tick(f, 132);
    assert_true(out2(f));
}

static void test_bcd_and_access(void **state)
{
    struct fixture *f = *state;
    set_tick(f, 0);
    out8(f->bus, 0x61, 1);
    program(f, 2, 0, 0x1000, true);
    set_tick(f, 2);
    assert_int_equal(read_count(f, 2), 0x0999);
    set_tick(f, 1 + 1001);
    assert_int_equal(read_count(f, 2), 0x9999);
    program(f, 2, 2, 0, true); /* ten thousand */
    set_tick(f, 1003 + 1);
    assert_int_equal(read_count(f, 2), 0x9999);
    out8(f->bus, 0x43, 0x94); /* low byte only */
    out8(f->bus, 0x42, 200);
    set_tick(f, 1005 + 50);
    assert_int_equal(in8(f->bus, 0x42), 150);
    assert_int_equal(in8(f->bus, 0x42), 150);
    out8(f->bus, 0x43, 0xa4); /* high byte only */
    out8(f->bus, 0x42, 2);
    set_tick(f, 1056 + 1);
    assert_int_equal(in8(f->bus, 0x42), 1);
}

static void test_latch(void **state)
{
    struct fixture *f = *state;
    set_tick(f, 0);
    program(f, 0, 2, 0x8000, false);
    set_tick(f, 1 + 0x123);
    out8(f->bus, 0x43, 0x00);
    set_tick(f, 1 + 0x456);
    out8(f->bus, 0x43, 0x00); /* the first latch stands */
    assert_int_equal(in8(f->bus, 0x40), 0xdd);
    assert_int_equal(in8(f->bus, 0x40), 0x7e);
    out8(f->bus, 0x43, 0xc2); /* status and count */
    assert_int_equal(in8(f->bus, 0x40), 0xb4);
    assert_int_equal(in8(f->bus, 0x40), 0xaa);
    assert_int_equal(in8(f->bus, 0x40), 0x7b);
    assert_int_equal(in8(f->bus, 0x43), 0xff);
}

static void test_refresh_toggles(void **state)
{
    struct fixture *f = *state;
    clock_pause(f->clock);
    clock_set_ns(f->clock, 15085 * 10);
    uint8_t first = in8(f->bus, 0x61) & 0x10;
    clock_set_ns(f->clock, 15085 * 11);
    assert_int_not_equal(in8(f->bus, 0x61) & 0x10, first);
    out8(f->bus, 0x61, 0xff);
    assert_int_equal(in8(f->bus, 0x61) & 0xcf, 0x0f);
}

static void test_periodic_irq(void **state)
{
    struct fixture *f = *state;
    program(f, 0, 2, 1193, false);
    unsigned first = f->irq.rises;
    uint64_t start_ns = clock_now_ns(f->clock);
    WAIT_FOR(f->irq.rises - first >= 100);
    /* Never more than the time allows. */
    unsigned seen = f->irq.rises - first;
    uint64_t elapsed_ns = clock_now_ns(f->clock) - start_ns;
    assert_true(seen <= elapsed_ns / 999000 + 1);
    out8(f->bus, 0x43, 0x30); /* stopped by a new mode */
    assert_false(f->irq.level);
    unsigned stopped = f->irq.rises;
    wait_ms(20);
    assert_int_equal(f->irq.rises, stopped);
}

static void test_late_ticks_come_slowly(void **state)
{
    struct fixture *f = *state;
    program(f, 0, 2, 11932, false); /* 10 ms */
    clock_pause(f->clock);
    uint64_t now_ns = clock_now_ns(f->clock);
    unsigned before = f->irq.rises;
    clock_set_ns(f->clock, now_ns + 100000000); /* ten ticks late */
    clock_resume(f->clock);
    uint64_t resumed_ns = clock_now_ns(f->clock);
    WAIT_FOR(f->irq.rises - before >= 19); /* the ten, and nine on time */
    unsigned seen = f->irq.rises - before;
    uint64_t elapsed_ns = clock_now_ns(f->clock) - resumed_ns;
    assert_true(seen <= 2 + elapsed_ns / 4900000); /* at most twice the rate */
    clock_pause(f->clock);
    before = f->irq.rises;
    now_ns = clock_now_ns(f->clock);
    clock_set_ns(f->clock, now_ns + UINT64_C(3600000000000)); /* an hour: no storm after */
    clock_resume(f->clock);
    resumed_ns = clock_now_ns(f->clock);
    wait_ms(50);
    seen = f->irq.rises - before;
    elapsed_ns = clock_now_ns(f->clock) - resumed_ns;
    assert_true(seen <= 2 + elapsed_ns / 4900000);
}

static void test_one_shot_irq(void **state)
{
    struct fixture *f = *state;
    program(f, 0, 4, 2000, false);
    unsigned first = f->irq.rises;
    WAIT_FOR(f->irq.rises == first + 1);
    program(f, 0, 0, 2000, false);
    assert_false(f->irq.level);
    WAIT_FOR(f->irq.level);
    i8254_disconnect_irq(f->pit, 0, true);
    assert_false(f->irq.level);
    program(f, 0, 2, 100, false);
    wait_ms(5);
    assert_false(f->irq.level);
}

static void test_save_and_load(void **state)
{
    struct fixture *f = *state;
    set_tick(f, 0);
    out8(f->bus, 0x61, 3);
    program(f, 2, 2, 1000, false);
    program(f, 0, 2, 11932, false);
    set_tick(f, 1 + 300);
    out8(f->bus, 0x43, 0x80); /* latched over the load */
    in8(f->bus, 0x42);
    save_and_load(&i8254_ops, f->pit, f->pit);
    assert_int_equal(in8(f->bus, 0x42), 700 >> 8);
    assert_int_equal(in8(f->bus, 0x61) & 3, 3);
    set_tick(f, 1 + 400);
    assert_int_equal(read_count(f, 2), 600);
    f->irq.level = true; /* a load moves no line: the receiver's level is as it was */
    unsigned before = f->irq.rises;
    clock_resume(f->clock);
    WAIT_FOR(f->irq.rises > before);
    assert_true(load_mutations(&i8254_ops, f->pit, 1000) > 50);
}

static void test_hostile(void **state)
{
    struct fixture *f = *state;
    hostile_ports(f->bus, 0x40, 4);
    hostile_ports(f->bus, 0x61, 1);
    program(f, 0, 2, 1, false); /* as fast as can be: the host is not asked for that */
    wait_ms(20);
    program(f, 0, 3, 1, false);
    wait_ms(20);
    i8254_ops.reset(f->pit);
    assert_false(f->irq.level);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_mode0),
        T(test_mode0_gate),
        T(test_mode1),
        T(test_mode2),
        T(test_mode3),
        T(test_mode4_and_5),
        T(test_bcd_and_access),
        T(test_latch),
        T(test_refresh_toggles),
        T(test_periodic_irq),
        T(test_late_ticks_come_slowly),
        T(test_one_shot_irq),
        T(test_save_and_load),
        T(test_hostile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
