/* SPDX-License-Identifier: BSD-2-Clause
 * The real-time clock through the bus. */
#include "legacy.h"

#include "dev/mc146818.h"

struct fixture {
    struct bus *bus;
    struct clock *clock;
    struct wire irq;
    struct mc146818 *rtc;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    f->bus = bus_create(NULL);
    f->clock = clock_create(NULL);
    struct mc146818_config config = {.base = 0x70,
                                     .irq = wire_line(&f->irq, 8),
                                     .low_memory_bytes = UINT64_C(0x80000000),
                                     .high_memory_bytes = UINT64_C(0x123450000)};
    f->rtc = mc146818_create(&config, f->bus, f->clock, NULL);
    assert_non_null(f->rtc);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    mc146818_ops.destroy(f->rtc);
    bus_destroy(f->bus);
    clock_destroy(f->clock);
    free(f);
    return 0;
}

static uint8_t get(struct fixture *f, uint8_t index)
{
    out8(f->bus, 0x70, index);
    return in8(f->bus, 0x71);
}

static void put(struct fixture *f, uint8_t index, uint8_t value)
{
    out8(f->bus, 0x70, index);
    out8(f->bus, 0x71, value);
}

/* Seconds, minutes, hours, weekday, day, month, year, century as the registers want them. The
 * divider is held, so that the next second is half of one away when it is let go. */
static void set_time(struct fixture *f, uint8_t format, const uint8_t time[8])
{
    static const uint8_t registers[8] = {0, 2, 4, 6, 7, 8, 9, 0x32};
    put(f, 0x0b, 0x80 | format);
    put(f, 0x0a, 0x76);
    for (unsigned i = 0; i < 8; i++)
        put(f, registers[i], time[i]);
    put(f, 0x0a, 0x26);
    put(f, 0x0b, format);
}

/* All but the second, which goes on. */
static void assert_time(struct fixture *f, const uint8_t time[8])
{
    static const uint8_t registers[8] = {0, 2, 4, 6, 7, 8, 9, 0x32};
    for (unsigned i = 1; i < 8; i++)
        assert_int_equal(get(f, registers[i]), time[i]);
}

static unsigned bcd(uint8_t value)
{
    return (value >> 4) * 10u + (value & 15);
}

static void test_host_time(void **state)
{
    struct fixture *f = *state;
    time_t before, told, after;
    before = time(NULL);
    do { /* not over the end of a second */
        struct tm tm = {0};
        tm.tm_sec = (int)bcd(get(f, 0));
        tm.tm_min = (int)bcd(get(f, 2));
        tm.tm_hour = (int)bcd(get(f, 4));
        tm.tm_mday = (int)bcd(get(f, 7));
        tm.tm_mon = (int)bcd(get(f, 8)) - 1;
        tm.tm_year = (int)(bcd(get(f, 0x32)) * 100 + bcd(get(f, 9))) - 1900;
        unsigned weekday = get(f, 6);
        told = timegm(&tm);
        assert_int_equal(weekday, tm.tm_wday + 1);
        assert_int_equal(get(f, 0x0d), 0x80);
    } while (bcd(get(f, 0)) != (unsigned)(told % 60));
    after = time(NULL);
    assert_true(told >= before && told <= after);
}

static void test_formats(void **state)
{
    struct fixture *f = *state;
    /* Leap day, a Thursday, in the four formats. */
    static const uint8_t bcd_24[8] = {0x00, 0x59, 0x23, 5, 0x29, 0x02, 0x24, 0x20};
    static const uint8_t bcd_12[8] = {0x00, 0x59, 0x91, 5, 0x29, 0x02, 0x24, 0x20};
    static const uint8_t binary_24[8] = {0, 59, 23, 5, 29, 2, 24, 20};
    static const uint8_t binary_12[8] = {0, 59, 0x80 | 11, 5, 29, 2, 24, 20};
    set_time(f, 0x02, bcd_24);
    assert_time(f, bcd_24);
    put(f, 0x0b, 0x00);
    assert_time(f, bcd_12);
    put(f, 0x0b, 0x04);
    assert_time(f, binary_12);
    put(f, 0x0b, 0x06);
    assert_time(f, binary_24);
    set_time(f, 0x00, bcd_12);
    put(f, 0x0b, 0x06);
    assert_time(f, binary_24);
    /* Midnight and noon of twelve hours. */
    set_time(f, 0x04, (const uint8_t[8]){0, 0, 12, 1, 1, 1, 30, 20});
    put(f, 0x0b, 0x06);
    assert_int_equal(get(f, 4), 0);
    set_time(f, 0x04, (const uint8_t[8]){0, 0, 0x8c, 1, 1, 1, 30, 20});
    put(f, 0x0b, 0x06);
    assert_int_equal(get(f, 4), 12);
}

static void test_calendar_turns(void **state)
{
    struct fixture *f = *state;
    /* The guest's idea of the weekday is kept: 2 for a Friday that is really 6. */
    set_time(f, 0x06, (const uint8_t[8]){59, 59, 23, 2, 31, 12, 99, 19});
    WAIT_FOR(get(f, 0) == 0);
    assert_time(f, (const uint8_t[8]){0, 0, 0, 3, 1, 1, 0, 20});
    set_time(f, 0x06, (const uint8_t[8]){59, 59, 23, 4, 28, 2, 23, 20});
    WAIT_FOR(get(f, 0) == 0);
    assert_int_equal(get(f, 7), 1);
    assert_int_equal(get(f, 8), 3);
}

static void test_held_time_stands(void **state)
{
    struct fixture *f = *state;
    put(f, 0x0b, 0x16);
    put(f, 0x0b, 0x96);
    assert_int_equal(get(f, 0x0b), 0x86); /* holding the time ends the update interrupt */
    put(f, 0, 33);
    wait_ms(1100);
    assert_int_equal(get(f, 0), 33);
    assert_int_equal(get(f, 0x0a) & 0x80, 0);
    put(f, 0x0b, 0x06);
    WAIT_FOR(get(f, 0) == 34);
}

static void test_divider_starts_half_a_second(void **state)
{
    struct fixture *f = *state;
    set_time(f, 0x06, (const uint8_t[8]){0, 0, 0, 1, 1, 1, 30, 20});
    WAIT_FOR(get(f, 0) == 1);
    wait_ms(700); /* late in the second; the new one does not come on this one's heels */
    put(f, 0x0b, 0x86);
    put(f, 0x0a, 0x76);
    put(f, 0, 10);
    put(f, 0x0b, 0x06); /* this order, and the other one in set_time() */
    uint64_t start_ns = clock_now_ns(f->clock);
    put(f, 0x0a, 0x26);
    WAIT_FOR(get(f, 0) != 10);
    assert_true(clock_now_ns(f->clock) - start_ns >= 490000000);
    assert_int_equal(get(f, 0), 11);
}

static void test_update(void **state)
{
    struct fixture *f = *state;
    get(f, 0x0c);
    put(f, 0x0b, 0x12);
    WAIT_FOR(f->irq.level);
    assert_int_equal(f->irq.number, 8);
    assert_int_equal(get(f, 0x0c) & 0x90, 0x90);
    assert_false(f->irq.level);
    assert_int_equal(get(f, 0x0c), 0);
    /* UIP is up just before the next second, and then the time changes. */
    uint8_t second = get(f, 0);
    for (bool seen = false; !seen;) {
        uint8_t before = get(f, 0x0a), now = get(f, 0), after = get(f, 0x0a);
        if (before & after & 0x80) {
            assert_int_equal(now, second);
            seen = true;
        } else if (!((before | after) & 0x80)) {
            second = now;
        }
    }
    WAIT_FOR(!(get(f, 0x0a) & 0x80));
    assert_int_not_equal(get(f, 0), second);
    assert_int_equal(get(f, 0x0c) & 0x10, 0x10);
}

static void test_alarm(void **state)
{
    struct fixture *f = *state;
    set_time(f, 0x06, (const uint8_t[8]){30, 59, 11, 1, 1, 1, 30, 20});
    put(f, 1, 31);
    put(f, 3, 58);
    put(f, 5, 0xff);
    get(f, 0x0c);
    put(f, 0x0b, 0x26);
    WAIT_FOR(get(f, 0) >= 31);
    wait_ms(5);
    assert_false(f->irq.level); /* another minute */
    assert_int_equal(get(f, 0x0c) & 0x20, 0);
    uint8_t second = get(f, 0) + 1;
    put(f, 1, second);
    put(f, 3, 0xc0); /* any */
    WAIT_FOR(f->irq.level);
    assert_true(get(f, 0) >= second);
    assert_int_equal(get(f, 0x0c) & 0xa0, 0xa0);
}

static void test_periodic(void **state)
{
    struct fixture *f = *state;
    put(f, 0x0a, 0x26); /* 1024 Hz */
    get(f, 0x0c);
    put(f, 0x0b, 0x42);
    uint64_t start_ns = clock_now_ns(f->clock);
    unsigned seen = 0;
    while (seen < 50) {
        WAIT_FOR(f->irq.level);
        if (get(f, 0x0c) & 0x40)
            seen++;
    }
    assert_true(clock_now_ns(f->clock) - start_ns >= UINT64_C(48) * 976562);
    put(f, 0x0b, 0x02);
    uint8_t flags = 0;
    WAIT_FOR((flags |= get(f, 0x0c)) & 0x40); /* the flag comes without the interrupt too */
    assert_false(f->irq.level);
    put(f, 0x0a, 0x20);
    get(f, 0x0c);
    wait_ms(10);
    assert_int_equal(get(f, 0x0c) & 0x40, 0);
}

static void test_cmos(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(get(f, 0x15) | get(f, 0x16) << 8, 640);
    assert_int_equal(get(f, 0x17) | get(f, 0x18) << 8, 0xffff);
    assert_int_equal(get(f, 0x34) | get(f, 0x35) << 8, 0x8000 - 0x100);
    assert_int_equal(get(f, 0x5b) | get(f, 0x5c) << 8 | get(f, 0x5d) << 16, 0x12345);
    mc146818_set_cmos(f->rtc, 0x3d, 0x21);
    mc146818_set_cmos(f->rtc, 0x85, 0x99);
    mc146818_set_cmos(f->rtc, 0x0b, 0xff);
    mc146818_set_cmos(f->rtc, 256, 1);
    assert_int_equal(get(f, 0x3d), 0x21);
    assert_int_equal(get(f, 0x8b), 0x02); /* bit 7 of the index masks NMI */
    out8(f->bus, 0x72, 0x05);
    assert_int_equal(in8(f->bus, 0x73), 0x99);
    out8(f->bus, 0x73, 0x11);
    put(f, 0x0b, 0x72);
    mc146818_ops.reset(f->rtc);
    assert_int_equal(get(f, 0x0b), 0x02);
    assert_int_equal(get(f, 0x3d), 0x21); /* the battery's */
    out8(f->bus, 0x72, 0x05);
    assert_int_equal(in8(f->bus, 0x73), 0x11);
}

static void test_save_and_load(void **state)
{
    struct fixture *f = *state;
    set_time(f, 0x06, (const uint8_t[8]){10, 20, 13, 1, 5, 6, 31, 20});
    put(f, 0x40, 0x5a);
    put(f, 0x0b, 0x16);
    struct mc146818_config config = {.base = 0x170, .irq = wire_line(&f->irq, 8)};
    struct mc146818 *other = mc146818_create(&config, f->bus, f->clock, NULL);
    assert_non_null(other);
    save_and_load(&mc146818_ops, f->rtc, other);
    mc146818_ops.reset(f->rtc);
    out8(f->bus, 0x170, 4);
    assert_int_equal(in8(f->bus, 0x171), 13);
    out8(f->bus, 0x170, 9);
    assert_int_equal(in8(f->bus, 0x171), 31);
    out8(f->bus, 0x170, 0x40);
    assert_int_equal(in8(f->bus, 0x171), 0x5a);
    WAIT_FOR(f->irq.level); /* the update interrupt goes on */
    assert_true(load_mutations(&mc146818_ops, other, 1000) > 10);
    mc146818_ops.destroy(other);
}

static void test_hostile(void **state)
{
    struct fixture *f = *state;
    hostile_ports(f->bus, 0x70, 4);
    for (unsigned value = 0; value < 256; value += 5) { /* times that are none */
        uint8_t v = (uint8_t)value;
        set_time(f, v & 0x7f, (const uint8_t[8]){v, v, v, v, v, v, v, v});
        get(f, 0);
        get(f, 9);
    }
    set_time(f, 0x06, (const uint8_t[8]){1, 2, 3, 4, 5, 6, 30, 20});
    assert_int_equal(get(f, 8), 6);
    assert_int_equal(bus_read(f->bus, BUS_PORT, 0x73, 4) >> 8, 0xffffff);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_host_time),      T(test_formats),
        T(test_calendar_turns), T(test_held_time_stands),
        T(test_update),         T(test_divider_starts_half_a_second),
        T(test_alarm),          T(test_periodic),
        T(test_cmos),           T(test_save_and_load),
        T(test_hostile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
