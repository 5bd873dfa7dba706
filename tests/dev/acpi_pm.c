/* SPDX-License-Identifier: BSD-2-Clause
 * The ACPI registers through the bus. */
#include "legacy.h"

#include "dev/acpi_pm.h"

enum { BASE = 0x600 };

struct fixture {
    struct bus *bus;
    struct clock *clock;
    struct wire sci;
    unsigned power_offs, sleeps, wakes;
    struct acpi_pm *pm;
};

static void power_off(void *opaque)
{
    struct fixture *f = opaque;
    f->power_offs++;
    bus_read(f->bus, BUS_PORT, BASE, 2); /* would hang with the lock held */
}

static void count_sleep(void *opaque)
{
    ((struct fixture *)opaque)->sleeps++;
}

static void count_wake(void *opaque)
{
    ((struct fixture *)opaque)->wakes++;
}

static struct acpi_pm *create(struct fixture *f, uint16_t base, bool is_32_bit)
{
    struct acpi_pm_config config = {.base = base,
                                    .sleep_type_s5 = 5,
                                    .timer_is_32_bit = is_32_bit,
                                    .sci = wire_line(&f->sci, 9),
                                    .power_off = power_off,
                                    .sleep_type_s3 = 1,
                                    .sleep = count_sleep,
                                    .wake = count_wake,
                                    .opaque = f};
    return acpi_pm_create(&config, f->bus, f->clock, NULL);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    f->bus = bus_create(NULL);
    f->clock = clock_create(NULL);
    f->pm = create(f, BASE, false);
    assert_non_null(f->pm);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    acpi_pm_ops.destroy(f->pm);
    bus_destroy(f->bus);
    clock_destroy(f->clock);
    free(f);
    return 0;
}

static uint64_t in(struct fixture *f, unsigned offset, unsigned size)
{
    return bus_read(f->bus, BUS_PORT, BASE + offset, size);
}

static void out(struct fixture *f, unsigned offset, uint64_t value, unsigned size)
{
    bus_write(f->bus, BUS_PORT, BASE + offset, value, size);
}

static void test_power_button(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(in(f, 4, 2), 1); /* ACPI is on */
    acpi_pm_press_power_button(f->pm);
    assert_int_equal(in(f, 0, 2), 0x100);
    assert_false(f->sci.level);
    out(f, 2, 0xffff, 2);
    assert_int_equal(in(f, 2, 2), 0x521);
    assert_true(f->sci.level);
    assert_int_equal(f->sci.number, 9);
    out(f, 0, 0x0001, 2); /* another bit */
    assert_true(f->sci.level);
    out(f, 1, 0x01, 1); /* by its byte */
    assert_false(f->sci.level);
    assert_int_equal(in(f, 0, 2), 0);
}

static void test_rtc(void **state)
{
    struct fixture *f = *state;
    out(f, 0, 0x04000000, 4); /* status and enable in one */
    acpi_pm_set_rtc_alarm(f->pm, 0, true);
    assert_true(f->sci.level);
    out(f, 0, 0x0400, 2);
    assert_false(f->sci.level);
    acpi_pm_set_rtc_alarm(f->pm, 0, true); /* no new edge */
    assert_false(f->sci.level);
    acpi_pm_set_rtc_alarm(f->pm, 0, false);
    acpi_pm_set_rtc_alarm(f->pm, 0, true);
    assert_true(f->sci.level);
}

static void test_gpe(void **state)
{
    struct fixture *f = *state;
    out(f, 0x28 + 4, 0x00000200, 4); /* 41 */
    acpi_pm_set_gpe(f->pm, 3, true);
    assert_false(f->sci.level);
    assert_int_equal(in(f, 0x20, 1), 0x08);
    acpi_pm_set_gpe(f->pm, 41, true);
    acpi_pm_set_gpe(f->pm, 64, true);
    assert_true(f->sci.level);
    out(f, 0x25, 0x02, 1);
    assert_true(f->sci.level); /* the cause is still there */
    acpi_pm_set_gpe(f->pm, 41, false);
    assert_true(f->sci.level);
    out(f, 0x25, 0x02, 1);
    assert_false(f->sci.level);
}

static void test_timer(void **state)
{
    struct fixture *f = *state;
    clock_pause(f->clock);
    clock_set_ns(f->clock, UINT64_C(1000000000));
    assert_int_equal(in(f, 8, 4), 3579545);
    clock_set_ns(f->clock, UINT64_C(10000000000));
    assert_int_equal(in(f, 8, 4), 35795450 & 0xffffff);
    struct acpi_pm *wide = create(f, 0x700, true);
    assert_int_equal(bus_read(f->bus, BUS_PORT, 0x708, 4), 35795450);
    acpi_pm_ops.destroy(wide);
}

static void test_timer_overflow(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(in(f, 0, 2) & 1, 0);
    clock_pause(f->clock);
    clock_set_ns(f->clock, UINT64_C(2343000000)); /* bit 23 changes at 2.3435 s */
    out(f, 0, 1, 2);
    assert_int_equal(in(f, 0, 2) & 1, 0);
    out(f, 2, 1, 2);
    assert_false(f->sci.level);
    clock_resume(f->clock);
    WAIT_FOR(f->sci.level);
    assert_int_equal(in(f, 0, 2) & 1, 1);
    out(f, 0, 1, 2);
    assert_false(f->sci.level);
}

static void test_power_off(void **state)
{
    struct fixture *f = *state;
    out(f, 4, 3 << 10 | 1 << 13, 2); /* another state */
    assert_int_equal(f->power_offs, 0);
    out(f, 4, 5 << 10, 2); /* the type alone */
    assert_int_equal(f->power_offs, 0);
    assert_int_equal(in(f, 4, 2), 5 << 10 | 1);
    out(f, 4, 5 << 10 | 1 << 13, 2);
    assert_int_equal(f->power_offs, 1);
    assert_int_equal(in(f, 4, 2), 5 << 10 | 1); /* SLP_EN reads as zero */
    out(f, 5, 5 << 2 | 1 << 5, 1);              /* by the high byte */
    assert_int_equal(f->power_offs, 2);
}

/* ACPI 6.4, 4.8.3.1.1, 16.1.3. */
static void test_sleep(void **state)
{
    struct fixture *f = *state;
    out(f, 4, 1 << 10 | 1 << 13, 2);
    assert_int_equal(f->sleeps, 1);
    assert_true(acpi_pm_is_asleep(f->pm));
    acpi_pm_set_rtc_alarm(f->pm, 0, true); /* is not enabled */
    acpi_pm_set_gpe(f->pm, 3, true);
    assert_int_equal(f->wakes, 0);
    acpi_pm_press_power_button(f->pm);
    assert_int_equal(f->wakes, 1);
    assert_false(acpi_pm_is_asleep(f->pm));
    assert_int_equal(in(f, 0, 2), 0x8500); /* woken, by the button; the RTC's alarm was there */
    acpi_pm_press_power_button(f->pm);
    assert_int_equal(f->wakes, 1);
    out(f, 0, 0x8500, 2);
    assert_int_equal(in(f, 0, 2), 0);
    out(f, 2, 0x400, 2);
    out(f, 4, 1 << 10 | 1 << 13, 2);
    save_and_load(&acpi_pm_ops, f->pm, f->pm);
    assert_true(acpi_pm_is_asleep(f->pm));
    acpi_pm_set_rtc_alarm(f->pm, 0, false);
    acpi_pm_set_rtc_alarm(f->pm, 0, true);
    assert_int_equal(f->wakes, 2);
    assert_int_equal(in(f, 0, 2), 0x8400);
    out(f, 4, 1 << 10 | 1 << 13, 2); /* the cause is still there: at once */
    assert_int_equal(f->sleeps, 3);
    assert_int_equal(f->wakes, 3);
    out(f, 0, 0xffff, 2);
    out(f, 4, 1 << 10 | 1 << 13, 2);
    acpi_pm_ops.reset(f->pm);
    assert_false(acpi_pm_is_asleep(f->pm));
}

static void test_set_base(void **state)
{
    struct fixture *f = *state;
    struct acpi_pm *other = create(f, 0x700, false);
    assert_false(acpi_pm_set_base(f->pm, 0x740, NULL));
    assert_int_equal(in(f, 4, 2), 1); /* still here */
    assert_true(acpi_pm_set_base(f->pm, 0x800, NULL));
    assert_int_equal(in(f, 4, 2), 0xffff);
    assert_int_equal(bus_read(f->bus, BUS_PORT, 0x804, 2), 1);
    acpi_pm_ops.destroy(other);
}

static void test_save_and_load(void **state)
{
    struct fixture *f = *state;
    out(f, 2, 0x120, 2);
    acpi_pm_press_power_button(f->pm);
    acpi_pm_set_gpe(f->pm, 7, true);
    out(f, 0x28, 0x1080, 4);
    save_and_load(&acpi_pm_ops, f->pm, f->pm);
    assert_int_equal(in(f, 0, 4), 0x01200100);
    assert_int_equal(in(f, 0x20, 4), 0x80);
    assert_int_equal(in(f, 0x28, 4), 0x1080);
    f->sci.level = true; /* a load moves no line */
    acpi_pm_set_gpe(f->pm, 7, false);
    out(f, 0x20, 0xffffffff, 4);
    assert_true(f->sci.level);
    out(f, 0, 0xffff, 2);
    assert_false(f->sci.level);
    assert_true(load_mutations(&acpi_pm_ops, f->pm, 1000) > 40);
}

static void test_hostile(void **state)
{
    struct fixture *f = *state;
    hostile_ports(f->bus, BASE, ACPI_PM_BLOCK_BYTES);
    assert_int_equal(in(f, 0x7f, 4) >> 8, 0xffffff);
    assert_int_equal(in(f, 0x30, 4), 0x20);
    acpi_pm_ops.reset(f->pm);
    assert_false(f->sci.level);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_power_button),  T(test_rtc),       T(test_gpe),
        T(test_timer),         T(test_power_off), T(test_timer_overflow),
        T(test_save_and_load), T(test_hostile),   T(test_set_base),
        T(test_sleep),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
