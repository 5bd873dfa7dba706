/* SPDX-License-Identifier: BSD-2-Clause
 * The HPET through the bus. */
#include "legacy.h"

#include "dev/hpet.h"

enum { BASE = 0xfed00000, MS = 100000 }; /* a millisecond in ticks */

struct fixture {
    struct bus *bus;
    struct clock *clock;
    struct wire ioapic, timer0, rtc, taken[2];
    _Atomic uint64_t msi_address;
    atomic_uint msi_data, msis;
    struct hpet *hpet;
};

static void on_msi(void *opaque, uint64_t address, uint32_t data)
{
    struct fixture *f = opaque;
    f->msi_address = address;
    f->msi_data = data;
    f->msis++;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    f->bus = bus_create(NULL);
    f->clock = clock_create(NULL);
    struct hpet_config config = {
        .base = BASE,
        .timer_count = 3,
        .route_mask = 0x00f00000,
        .ioapic = wire_line(&f->ioapic, 0),
        .legacy_timer = wire_line(&f->timer0, 2),
        .legacy_rtc = wire_line(&f->rtc, 8),
        .legacy_taken = {wire_line(&f->taken[0], 0), wire_line(&f->taken[1], 8)},
        .msi = {on_msi, f}};
    f->hpet = hpet_create(&config, f->bus, f->clock, NULL);
    assert_non_null(f->hpet);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    hpet_ops.destroy(f->hpet);
    bus_destroy(f->bus);
    clock_destroy(f->clock);
    free(f);
    return 0;
}

static uint64_t get(struct fixture *f, unsigned offset)
{
    return bus_read(f->bus, BUS_MMIO, BASE + offset, 8);
}

static uint64_t get32(struct fixture *f, unsigned offset)
{
    return bus_read(f->bus, BUS_MMIO, BASE + offset, 4);
}

static void put(struct fixture *f, unsigned offset, uint64_t value)
{
    bus_write(f->bus, BUS_MMIO, BASE + offset, value, 8);
}

static void put32(struct fixture *f, unsigned offset, uint64_t value)
{
    bus_write(f->bus, BUS_MMIO, BASE + offset, value, 4);
}

static void test_capabilities(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(get32(f, 0), 0x8086a201);
    assert_int_equal(get32(f, 4), 10000000);
    put(f, 0, 0);
    assert_int_equal(get32(f, 0), 0x8086a201);
    assert_int_equal(get(f, 0x100), 0x00f0000000008030);
    assert_int_equal(get(f, 0x160), 0); /* there is no fourth */
    struct hpet_config config = {.base = 0x1000, .timer_count = 9};
    struct error err = {0};
    assert_null(hpet_create(&config, f->bus, f->clock, &err));
    assert_int_equal(err.kind, ERROR_FAILED);
}

static void test_counter(void **state)
{
    struct fixture *f = *state;
    clock_pause(f->clock);
    clock_set_ns(f->clock, 5000);
    assert_int_equal(get(f, 0xf0), 0);
    put32(f, 0xf0, 0xfffffff0);
    put32(f, 0xf4, 0x1);
    put(f, 0x10, 1);
    clock_set_ns(f->clock, 5000 + 1000);
    assert_int_equal(get(f, 0xf0), 0x1fffffff0 + 100);
    assert_int_equal(get32(f, 0xf4), 2);
    put(f, 0xf0, 7); /* not while it runs */
    assert_int_equal(get(f, 0xf0), 0x1fffffff0 + 100);
    put(f, 0x10, 0);
    clock_set_ns(f->clock, 100000);
    assert_int_equal(get(f, 0xf0), 0x1fffffff0 + 100); /* halted */
}

static void test_one_shot(void **state)
{
    struct fixture *f = *state;
    put32(f, 0x120, 0x4 | 21 << 9);
    put32(f, 0x10, 1);
    assert_int_equal(f->ioapic.rises, 0);
    put(f, 0x128, get(f, 0xf0) + MS);
    WAIT_FOR(f->ioapic.rises == 1);
    assert_int_equal(f->ioapic.number, 21);
    assert_true(get(f, 0xf0) >= get(f, 0x128));
    wait_ms(5);
    assert_int_equal(f->ioapic.rises, 1);
    put(f, 0x128, get(f, 0xf0) - 1); /* just gone by */
    WAIT_FOR(f->ioapic.rises == 2);
    put32(f, 0x120, 0x4 | 3 << 9); /* an input that it has no wire to */
    put(f, 0x128, get(f, 0xf0));
    wait_ms(5);
    assert_int_equal(f->ioapic.rises, 2);
}

static void test_level(void **state)
{
    struct fixture *f = *state;
    put32(f, 0x140, 0x6 | 22 << 9);
    put32(f, 0x10, 1);
    put(f, 0x148, get(f, 0xf0) + 100);
    WAIT_FOR(f->ioapic.level);
    assert_int_equal(get(f, 0x20), 4);
    put(f, 0x20, 3); /* others' */
    assert_true(f->ioapic.level);
    put32(f, 0x140, 0x2 | 22 << 9); /* disabled */
    assert_false(f->ioapic.level);
    put32(f, 0x140, 0x6 | 23 << 9);
    assert_true(f->ioapic.level);
    assert_int_equal(f->ioapic.number, 23);
    unsigned rises = f->ioapic.rises;
    put32(f, 0x140, 0x6 | 20 << 9); /* the old input is let go, the new one driven */
    assert_int_equal(f->ioapic.rises, rises + 1);
    assert_int_equal(f->ioapic.number, 20);
    put(f, 0x20, 4);
    assert_false(f->ioapic.level);
}

static void test_periodic_legacy(void **state)
{
    struct fixture *f = *state;
    put32(f, 0x100, 0x4c); /* enabled, periodic, value follows */
    put(f, 0x108, MS);
    put(f, 0x108, MS);
    assert_false(f->taken[0].level);
    put32(f, 0x10, 3);
    assert_true(f->taken[0].level);
    assert_true(f->taken[1].level);
    WAIT_FOR(f->timer0.rises >= 20);
    assert_int_equal(f->ioapic.rises, 0);
    uint64_t rises = f->timer0.rises;
    assert_true(rises <= get(f, 0xf0) / MS); /* never early */
    assert_int_equal(get(f, 0x108) % MS, 0);
    put32(f, 0x10, 0);
    assert_false(f->taken[1].level);
    rises = f->timer0.rises;
    wait_ms(10);
    assert_int_equal(f->timer0.rises, rises);
    put32(f, 0x120, 0x4);
    put32(f, 0x10, 3);
    put(f, 0x128, get(f, 0xf0) + 10);
    WAIT_FOR(f->rtc.rises == 1);
}

static void test_late_periods_are_one(void **state)
{
    struct fixture *f = *state;
    put32(f, 0x100, 0x4c | 20 << 9);
    put(f, 0x108, 100 * MS);
    put32(f, 0x10, 1);
    clock_pause(f->clock);
    clock_set_ns(f->clock, clock_now_ns(f->clock) + UINT64_C(3600000000000));
    clock_resume(f->clock);
    WAIT_FOR(f->ioapic.rises >= 1);
    uint64_t late_ms = 0;
    unsigned first = f->ioapic.rises;
    uint64_t start = get(f, 0xf0);
    wait_ms(20);
    late_ms = (get(f, 0xf0) - start) / MS;
    assert_true(f->ioapic.rises - first <= late_ms / 100 + 1);
    assert_true(get(f, 0x108) > start - 100 * MS);
}

static void test_32_bits(void **state)
{
    struct fixture *f = *state;
    put(f, 0xf0, 0xffffff00); /* the low half is about to wrap */
    put32(f, 0x120, 0x104 | 21 << 9);
    put(f, 0x128, 0xaaaaaaaa00000000 | MS);
    assert_int_equal(get(f, 0x128), MS);
    put32(f, 0x10, 1);
    WAIT_FOR(f->ioapic.rises == 1);
    assert_true(get(f, 0xf0) >= 0x100000000 + MS);
}

/* As Linux does it: 32 bits, and writes of 32. */
static void test_periodic_32_bits(void **state)
{
    struct fixture *f = *state;
    put32(f, 0x10, 1);
    put32(f, 0x100, 0x14c | 20 << 9);
    put32(f, 0x108, get32(f, 0xf0) + MS);
    put32(f, 0x108, MS);
    WAIT_FOR(f->ioapic.rises >= 10);
    assert_int_equal(f->ioapic.number, 20);
    assert_true(f->ioapic.rises <= get(f, 0xf0) / MS);
    put32(f, 0x100, 0x108 | 20 << 9);
    unsigned rises = f->ioapic.rises;
    wait_ms(5);
    assert_int_equal(f->ioapic.rises, rises);
}

static void test_nothing_fires_unasked(void **state)
{
    struct fixture *f = *state;
    put32(f, 0x120, 0x104 | 21 << 9); /* the comparator is all ones */
    put32(f, 0x10, 1);
    put32(f, 0x140, 0x104 | 22 << 9);
    wait_ms(5);
    assert_int_equal(f->ioapic.rises, 0);
    put32(f, 0x128, get32(f, 0xf0) + 100);
    WAIT_FOR(f->ioapic.rises == 1);
    put32(f, 0x10, 0);
    put32(f, 0x10, 1); /* does not tell it again */
    wait_ms(5);
    assert_int_equal(f->ioapic.rises, 1);
    put32(f, 0x10, 0);
    put32(f, 0x128, get32(f, 0xf0)); /* while halted: told when it runs */
    wait_ms(5);
    assert_int_equal(f->ioapic.rises, 1);
    put32(f, 0x10, 1);
    WAIT_FOR(f->ioapic.rises == 2);
    put32(f, 0x140, 0x4 | 22 << 9);
    put(f, 0x148, get(f, 0xf0) + 100); /* the same of 64 bits */
    WAIT_FOR(f->ioapic.rises == 3);
    put32(f, 0x10, 0);
    put32(f, 0x10, 1);
    wait_ms(5);
    assert_int_equal(f->ioapic.rises, 3);
    put(f, 0x148, UINT64_C(1) << 32); /* far ahead; cut to 32 bits it is 0 */
    put32(f, 0x140, 0x104 | 22 << 9);
    wait_ms(5);
    assert_int_equal(f->ioapic.rises, 3);
}

/* IA-PC HPET 2.3.8: the comparator and the status of a timer that may not interrupt follow the
 * counter as well; what has matched then does not interrupt when it may. */
static void test_disabled(void **state)
{
    struct fixture *f = *state;
    clock_pause(f->clock);
    clock_set_ns(f->clock, 0);
    put32(f, 0x100, 0x8 | 0x40 | 20 << 9); /* periodic, the comparator is set */
    put(f, 0x108, MS);
    put(f, 0x108, MS);
    put32(f, 0x120, 0x2 | 21 << 9); /* by level, once */
    put(f, 0x128, 2 * MS);
    put(f, 0x10, 1);
    clock_set_ns(f->clock, 1500000);
    assert_int_equal(get(f, 0x108), 2 * MS);
    assert_int_equal(get(f, 0x20), 0);
    clock_set_ns(f->clock, 10500000);
    assert_int_equal(get(f, 0x20), 2);
    assert_int_equal(get(f, 0x108), 11 * MS);
    put32(f, 0x100, 0x8 | 0x4 | 20 << 9);
    clock_resume(f->clock);
    WAIT_FOR(get(f, 0x108) > 11 * MS);
    put32(f, 0x100, 0x8 | 20 << 9);
    assert_true(f->ioapic.rises > 0 && f->ioapic.rises < get(f, 0x108) / MS - 10);
    assert_false(f->ioapic.level);
    put32(f, 0x120, 0x6 | 21 << 9); /* its status is set */
    assert_true(f->ioapic.level);
}

static void test_msi(void **state)
{
    struct fixture *f = *state;
    put(f, 0x150, UINT64_C(0xfee01000) << 32 | 0x4041);
    put32(f, 0x140, 0x4004);
    put32(f, 0x10, 1);
    put(f, 0x148, get(f, 0xf0) + 100);
    WAIT_FOR(f->msis == 1);
    assert_int_equal(f->msi_address, 0xfee01000);
    assert_int_equal(f->msi_data, 0x4041);
    assert_int_equal(f->ioapic.rises, 0);
}

static void test_save_and_load(void **state)
{
    struct fixture *f = *state;
    put(f, 0xf0, 12345);
    put32(f, 0x100, 0x4c | 20 << 9);
    put(f, 0x108, 12345 + MS);
    put(f, 0x108, MS);
    put32(f, 0x120, 0x6 | 21 << 9);
    put32(f, 0x10, 1);
    clock_pause(f->clock);
    uint64_t counter = get(f, 0xf0), comparator = get(f, 0x108);
    unsigned before = f->ioapic.rises;
    save_and_load(&hpet_ops, f->hpet, f->hpet);
    assert_int_equal(f->ioapic.rises, before); /* a load moves no line */
    assert_int_equal(get(f, 0xf0), counter);
    assert_int_equal(get(f, 0x108), comparator);
    assert_int_equal(get32(f, 0x120), 0x8036 | 21 << 9);
    clock_resume(f->clock);
    WAIT_FOR(f->ioapic.rises >= before + 5);
    assert_true(load_mutations(&hpet_ops, f->hpet, 1000) > 20);
    wait_ms(5);
}

static void test_hostile(void **state)
{
    struct fixture *f = *state;
    uint32_t seed = 99;
    for (unsigned i = 0; i < 20000; i++) {
        seed = seed * 1664525 + 1013904223;
        uint64_t address = BASE + (seed >> 8) % 0x180;
        uint64_t value = seed % 3 ? (uint64_t)seed * seed : seed & 0xffff;
        if (seed >> 31)
            bus_write(f->bus, BUS_MMIO, address, value, 1u << (seed >> 20) % 4);
        else
            bus_read(f->bus, BUS_MMIO, address, 1u << (seed >> 20) % 4);
    }
    assert_int_equal(bus_read(f->bus, BUS_MMIO, BASE + 0x3fc, 8), UINT64_MAX);
    assert_int_equal(bus_read(f->bus, BUS_MMIO, BASE + 5, 1), 0x96); /* 0x989680 */
    put32(f, 0x100, 0x4c | 20 << 9);
    put(f, 0x108, 1);
    put(f, 0x108, 1); /* as fast as can be: the host is not asked for that */
    put32(f, 0x10, 1);
    wait_ms(20);
    hpet_ops.reset(f->hpet);
    assert_int_equal(get(f, 0xf0), 0);
    assert_int_equal(get(f, 0x108), UINT64_MAX);
    assert_false(f->ioapic.level);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_capabilities),
        T(test_counter),
        T(test_one_shot),
        T(test_level),
        T(test_periodic_legacy),
        T(test_late_periods_are_one),
        T(test_32_bits),
        T(test_periodic_32_bits),
        T(test_disabled),
        T(test_msi),
        T(test_nothing_fires_unasked),
        T(test_save_and_load),
        T(test_hostile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
