/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The time-stamp counters of the software processor while the machine's time stands still, with the
 * machine's clock beside them, and at a rate that is not the host's. Bounds on how far two clocks
 * may be apart are far above what a preempted thread adds between two readings; nothing here says
 * how long anything takes.
 */
#include "bus/clock.h"
#include "cpu/engine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

enum { VCPUS = 3, PAUSE_NS = 30000000 };
static const double apart_ns = 2e6;

struct fixture {
    struct ram *ram;
    struct bus *bus;
    struct clock *clock;
    struct engine_vm *vm;
    struct engine_vcpu *vcpu[VCPUS];
};

static int no_acknowledge(void *opaque, unsigned vcpu)
{
    return -1;
}

static uint64_t no_cr8(void *opaque, unsigned vcpu)
{
    return 0;
}

static bool no_msr(void *opaque, unsigned vcpu, uint32_t msr, uint64_t *value)
{
    *value = 0;
    return true;
}

static void open_fixture(struct fixture *f, uint64_t tsc_hz)
{
    struct error err;
    f->ram = ram_create(1 << 20, &err);
    f->bus = bus_create(NULL);
    f->clock = clock_create(&err);
    const struct engine_config config = {
        .vcpu_count = VCPUS,
        .topology = {1, VCPUS, 1},
        .ram = f->ram,
        .bus = f->bus,
        .hooks = {.acknowledge = no_acknowledge, .read_cr8 = no_cr8, .read_msr = no_msr},
        .tsc_hz = tsc_hz,
    };
    f->vm = engine_soft.vm_open(&config, &err);
    assert_non_null(f->vm);
    for (unsigned i = 0; i < VCPUS; i++)
        assert_non_null(f->vcpu[i] = engine_soft.vcpu_open(f->vm, i, &err));
}

static void close_fixture(struct fixture *f)
{
    for (unsigned i = 0; i < VCPUS; i++)
        engine_soft.vcpu_close(f->vcpu[i]);
    engine_soft.vm_close(f->vm);
    clock_destroy(f->clock);
    bus_destroy(f->bus);
    ram_destroy(f->ram);
}

static void wait_a_while(void)
{
    const struct timespec pause = {0, PAUSE_NS};
    nanosleep(&pause, NULL);
}

static void stop(struct fixture *f)
{
    engine_soft.stop_time(f->vm, clock_pause(f->clock));
}

static void start(struct fixture *f)
{
    engine_soft.start_time(f->vm, clock_resume(f->clock));
}

/* How far the counter is ahead of the machine's clock, in nanoseconds. */
static double ahead_ns(struct fixture *f)
{
    double ns = (double)engine_soft.read_tsc(f->vcpu[0]) * 1e9 / (double)engine_soft.tsc_hz(f->vm);
    return ns - (double)clock_now_ns(f->clock);
}

static void expect_near(double a, double b)
{
    if (a - b > apart_ns || b - a > apart_ns)
        fail_msg("%.0f ns and %.0f ns are too far apart", a, b);
}

static void test_stands_still(void **state)
{
    struct fixture f;
    open_fixture(&f, 0);
    stop(&f);
    uint64_t then = engine_soft.read_tsc(f.vcpu[0]);
    wait_a_while();
    for (unsigned i = 0; i < VCPUS; i++)
        assert_int_equal(engine_soft.read_tsc(f.vcpu[i]), then);
    stop(&f); /* again: no change */
    assert_int_equal(engine_soft.read_tsc(f.vcpu[1]), then);
    start(&f);
    assert_true(engine_soft.read_tsc(f.vcpu[0]) >= then);
    close_fixture(&f);
}

/* Both stop and go on together, time and again. */
static void test_agrees_with_the_clock(void **state)
{
    struct fixture f;
    open_fixture(&f, 0);
    double before_ns = ahead_ns(&f);
    for (int i = 0; i < 50; i++) {
        stop(&f);
        double stopped_ns = ahead_ns(&f);
        expect_near(stopped_ns, before_ns);
        if (i % 10 == 0)
            wait_a_while();
        start(&f);
    }
    expect_near(ahead_ns(&f), before_ns);
    close_fixture(&f);
}

/* States that are set while time stands still are taken to the tick, and all count alike after. */
static void test_state(void **state)
{
    struct fixture f;
    struct x86_state s;
    open_fixture(&f, 0);
    stop(&f);
    x86_state_reset(&s, true);
    s.tsc = 12345; /* near to what they have: to be taken all the same */
    for (unsigned i = 0; i < VCPUS; i++) {
        assert_true(engine_soft.set_state(f.vcpu[i], &s, NULL));
        assert_int_equal(engine_soft.read_tsc(f.vcpu[i]), 12345);
    }
    start(&f);
    uint64_t first = engine_soft.read_tsc(f.vcpu[0]);
    uint64_t second = engine_soft.read_tsc(f.vcpu[1]);
    uint64_t third = engine_soft.read_tsc(f.vcpu[2]);
    assert_true(first >= 12345 && second >= first && third >= second);
    close_fixture(&f);
}

/* What was not yet taken of INIT and SIPI is part of the state; what is not in it is void. */
static void test_pending(void **state)
{
    struct fixture f;
    struct x86_state s;
    open_fixture(&f, 0);
    engine_soft.inject(f.vcpu[1], ENGINE_INIT, 0);
    engine_soft.inject(f.vcpu[1], ENGINE_SIPI, 0x9a);
    assert_true(engine_soft.get_state(f.vcpu[1], &s, NULL));
    assert_true(s.pending.init && s.pending.sipi && s.pending.sipi_vector == 0x9a);
    assert_true(engine_soft.set_state(f.vcpu[2], &s, NULL));
    x86_state_reset(&s, false);
    assert_true(engine_soft.set_state(f.vcpu[1], &s, NULL));
    assert_true(engine_soft.get_state(f.vcpu[1], &s, NULL));
    assert_false(s.pending.init || s.pending.sipi);
    assert_true(engine_soft.get_state(f.vcpu[2], &s, NULL));
    assert_true(s.pending.init && s.pending.sipi && s.pending.sipi_vector == 0x9a);
    close_fixture(&f);
}

static void test_other_rate(void **state)
{
    struct fixture f;
    open_fixture(&f, 0);
    uint64_t host_hz = engine_soft.tsc_hz(f.vm);
    close_fixture(&f);
    const uint64_t rates[] = {host_hz * 2, host_hz / 3, 1000000000, host_hz + host_hz / 100000};
    for (unsigned i = 0; i < sizeof(rates) / sizeof(rates[0]); i++) {
        open_fixture(&f, rates[i]);
        assert_int_equal(engine_soft.tsc_hz(f.vm), (rates[i] + 500) / 1000 * 1000);
        double before_ns = ahead_ns(&f);
        wait_a_while();
        expect_near(ahead_ns(&f), before_ns);
        stop(&f);
        wait_a_while();
        start(&f);
        expect_near(ahead_ns(&f), before_ns);
        close_fixture(&f);
    }
}

static void test_no_rate(void **state)
{
    struct error err = {0};
    struct ram *ram = ram_create(1 << 20, &err);
    struct engine_config config = {.vcpu_count = 1, .topology = {1, 1, 1}, .ram = ram};
    const uint64_t rates[] = {1, 999999, UINT64_MAX};
    for (unsigned i = 0; i < sizeof(rates) / sizeof(rates[0]); i++) {
        config.tsc_hz = rates[i];
        assert_null(engine_soft.vm_open(&config, &err));
        assert_non_null(strstr(err.cause, "no frequency"));
    }
    ram_destroy(ram);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stands_still), cmocka_unit_test(test_agrees_with_the_clock),
        cmocka_unit_test(test_state),        cmocka_unit_test(test_pending),
        cmocka_unit_test(test_other_rate),   cmocka_unit_test(test_no_rate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
