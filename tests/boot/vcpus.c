/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The vCPU threads, with an engine made here whose "guest" is a script of exits: pause stops all of
 * them, a halted one sleeps and is woken by an interrupt, state is handled on the vCPU's own
 * thread, ends are reported once.
 */
#include "machine/vcpus.h"

#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { COUNT = 4, ROUNDS = 2000 };
enum script { SPIN, HALT, FAULT, FAIL, STOP };

struct engine_vcpu {
    unsigned index;
    pthread_t thread;
    atomic_bool kicked, intr, running;
    atomic_uint runs, interrupts;
    struct x86_state state;
    bool is_debugged, steps;
};

struct engine_vm {
    atomic_int script;
    int refuse_index; /* -1: none */
    struct engine_vcpu vcpu[COUNT];
    atomic_uint opened, closed, mistakes;
    struct vcpus *vcpus;
    pthread_mutex_t device_lock; /* of what interrupts, and is asked for a part of the state */
    atomic_bool device_stops;
};

static struct engine_vm fake;

static struct engine_vcpu *fake_open(struct engine_vm *vm, unsigned index, struct error *err)
{
    if ((int)index == vm->refuse_index) {
        error_set(err, "cannot open", NULL, "no vCPU %u today", index);
        return NULL;
    }
    vm->vcpu[index].index = index;
    vm->vcpu[index].thread = pthread_self();
    atomic_fetch_add(&vm->opened, 1);
    return &vm->vcpu[index];
}

static void own_thread(const struct engine_vcpu *vcpu)
{
    if (!pthread_equal(vcpu->thread, pthread_self()) || atomic_load(&vcpu->running))
        atomic_fetch_add(&fake.mistakes, 1);
}

static void fake_close(struct engine_vcpu *vcpu)
{
    own_thread(vcpu);
    atomic_fetch_add(&fake.closed, 1);
}

static void fake_run(struct engine_vcpu *vcpu, struct engine_exit *exit)
{
    own_thread(vcpu);
    atomic_store(&vcpu->running, true);
    atomic_fetch_add(&vcpu->runs, 1);
    exit->reason = ENGINE_EXIT_KICKED;
    while (!atomic_exchange(&vcpu->kicked, false)) {
        if (atomic_exchange(&vcpu->intr, false))
            atomic_fetch_add(&vcpu->interrupts, 1);
        int script = atomic_load(&fake.script);
        if (script == HALT && !atomic_load(&vcpu->intr)) {
            exit->reason = ENGINE_EXIT_HALTED;
            break;
        }
        if (script == FAULT) {
            exit->reason = ENGINE_EXIT_SHUTDOWN;
            break;
        }
        if (script == FAIL) {
            exit->reason = ENGINE_EXIT_FAILED;
            error_set(&exit->error, "cannot run", NULL, "as the test wants");
            break;
        }
        if (script == STOP && vcpu->is_debugged) {
            exit->reason = ENGINE_EXIT_DEBUG;
            exit->stop.kind = vcpu->steps ? DEBUG_STOP_STEP : DEBUG_STOP_BREAKPOINT;
            exit->stop.breakpoint.linear = vcpu->index;
            break;
        }
        sched_yield();
    }
    atomic_store(&vcpu->running, false);
}

static void fake_kick(struct engine_vcpu *vcpu)
{
    atomic_store(&vcpu->kicked, true);
}

static void fake_inject(struct engine_vcpu *vcpu, enum engine_event event, unsigned value)
{
    if (event == ENGINE_INTR)
        atomic_store(&vcpu->intr, value);
}

static bool fake_has_work(struct engine_vcpu *vcpu)
{
    return atomic_load(&vcpu->intr);
}

static bool fake_get_state(struct engine_vcpu *vcpu, struct x86_state *state, struct error *err)
{
    own_thread(vcpu);
    pthread_mutex_lock(&fake.device_lock);
    *state = vcpu->state;
    pthread_mutex_unlock(&fake.device_lock);
    return true;
}

static bool fake_set_state(struct engine_vcpu *vcpu, const struct x86_state *state,
                           struct error *err)
{
    own_thread(vcpu);
    if (state->rip == 666)
        return error_set(err, "cannot set", NULL, "not this one");
    vcpu->state = *state;
    return true;
}

static bool fake_set_debug(struct engine_vcpu *vcpu, const struct debug_request *request,
                           struct error *err)
{
    own_thread(vcpu);
    if (request && request->count)
        return error_set(err, "cannot break", NULL, "not at all");
    vcpu->is_debugged = request;
    vcpu->steps = request && request->steps;
    return true;
}

static const struct engine fake_engine = {
    .name = "fake",
    .vcpu_open = fake_open,
    .vcpu_close = fake_close,
    .run = fake_run,
    .kick = fake_kick,
    .inject = fake_inject,
    .has_work = fake_has_work,
    .get_state = fake_get_state,
    .set_state = fake_set_state,
    .set_debug = fake_set_debug,
};

static atomic_uint events[VCPUS_FAILED + 1];
static _Atomic(unsigned) event_vcpu;

static void on_event(void *opaque, unsigned vcpu, enum vcpus_event event, const struct error *error)
{
    if (vcpus_current(fake.vcpus) != vcpu || (event == VCPUS_FAILED) != (error != NULL))
        atomic_fetch_add(&fake.mistakes, 1);
    atomic_store(&event_vcpu, vcpu);
    atomic_fetch_add(&events[event], 1);
}

static void start(enum script script)
{
    memset(&fake, 0, sizeof(fake));
    memset((void *)events, 0, sizeof(events));
    fake.refuse_index = -1;
    pthread_mutex_init(&fake.device_lock, NULL);
    atomic_store(&fake.script, script);
    const struct vcpus_config config = {
        .engine = &fake_engine, .vm = &fake, .count = COUNT, .event = on_event};
    struct error err = {0};
    fake.vcpus = vcpus_create(&config, &err);
    assert_non_null(fake.vcpus);
    assert_int_equal(atomic_load(&fake.opened), COUNT);
}

static void stop(void)
{
    vcpus_destroy(fake.vcpus);
    assert_int_equal(atomic_load(&fake.closed), COUNT);
    assert_int_equal(atomic_load(&fake.mistakes), 0);
    pthread_mutex_destroy(&fake.device_lock);
}

static void expect_all_still(void)
{
    for (unsigned i = 0; i < COUNT; i++)
        assert_false(atomic_load(&fake.vcpu[i].running));
}

static void wait_for(atomic_uint *counter, unsigned value)
{
    while (atomic_load(counter) < value)
        sched_yield();
}

static void test_made_paused(void **state)
{
    start(SPIN);
    usleep(1000);
    for (unsigned i = 0; i < COUNT; i++)
        assert_int_equal(atomic_load(&fake.vcpu[i].runs), 0);
    assert_int_equal(vcpus_current(fake.vcpus), UINT_MAX);
    stop();
}

static void test_pause_and_resume(void **state)
{
    start(SPIN);
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct engine_vcpu *vcpu = &fake.vcpu[round % COUNT];
        unsigned runs_before = atomic_load(&vcpu->runs);
        vcpus_resume(fake.vcpus);
        if (round % 3 == 0)
            wait_for(&vcpu->runs, runs_before + 1);
        vcpus_pause(fake.vcpus);
        expect_all_still();
    }
    unsigned runs = atomic_load(&fake.vcpu[0].runs);
    vcpus_resume(fake.vcpus);
    wait_for(&fake.vcpu[0].runs, runs + 1);
    stop();
}

static void test_halted_ones_wake(void **state)
{
    start(HALT);
    vcpus_resume(fake.vcpus);
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct engine_vcpu *vcpu = &fake.vcpu[round % COUNT];
        unsigned before = atomic_load(&vcpu->interrupts);
        vcpus_inject(fake.vcpus, round % COUNT, ENGINE_INTR, 1);
        wait_for(&vcpu->interrupts, before + 1);
    }
    /* With nothing to do they sleep: no run begins. */
    usleep(20000);
    unsigned runs = 0, later = 0;
    for (unsigned i = 0; i < COUNT; i++)
        runs += atomic_load(&fake.vcpu[i].runs);
    usleep(20000);
    for (unsigned i = 0; i < COUNT; i++)
        later += atomic_load(&fake.vcpu[i].runs);
    assert_int_equal(runs, later);
    vcpus_pause(fake.vcpus);
    expect_all_still();
    stop();
}

static void test_state(void **state)
{
    struct x86_state in = {.rip = 0x1234}, out;
    struct error err = {0};
    start(SPIN);
    for (unsigned i = 0; i < COUNT; i++) {
        in.rip = 0x1000 + i;
        assert_true(vcpus_set_state(fake.vcpus, i, &in, &err));
    }
    vcpus_resume(fake.vcpus);
    vcpus_pause(fake.vcpus);
    for (unsigned i = 0; i < COUNT; i++) {
        assert_true(vcpus_get_state(fake.vcpus, i, &out, &err));
        assert_int_equal(out.rip, 0x1000 + i);
    }
    in.rip = 666;
    assert_false(vcpus_set_state(fake.vcpus, 1, &in, &err));
    assert_string_equal(err.cause, "not this one");
    stop();
}

static void *interrupt_with_lock(void *opaque)
{
    while (!atomic_load(&fake.device_stops)) {
        pthread_mutex_lock(&fake.device_lock);
        for (unsigned i = 0; i < COUNT; i++)
            vcpus_inject(fake.vcpus, i, ENGINE_INTR, 1);
        pthread_mutex_unlock(&fake.device_lock);
    }
    return NULL;
}

/* A local APIC interrupts with its lock held, as a disk may while a debugger reads the registers;
 * an engine asks it for its part of the state. */
static void test_state_beside_interrupts(void **state)
{
    struct x86_state out;
    struct error err = {0};
    pthread_t device;
    start(SPIN);
    assert_int_equal(pthread_create(&device, NULL, interrupt_with_lock, NULL), 0);
    for (unsigned round = 0; round < ROUNDS; round++)
        assert_true(vcpus_get_state(fake.vcpus, round % COUNT, &out, &err));
    atomic_store(&fake.device_stops, true);
    pthread_join(device, NULL);
    stop();
}

static void test_triple_fault(void **state)
{
    start(FAULT);
    vcpus_resume(fake.vcpus);
    wait_for(&events[VCPUS_TRIPLE_FAULT], 1);
    vcpus_pause(fake.vcpus);
    expect_all_still();
    /* Each may have come to its own fault before it was asked to stop; none a second time. */
    assert_true(atomic_load(&events[VCPUS_TRIPLE_FAULT]) <= COUNT);
    assert_int_equal(atomic_load(&events[VCPUS_FAILED]), 0);
    stop();
}

static void test_failure(void **state)
{
    start(FAIL);
    vcpus_resume(fake.vcpus);
    wait_for(&events[VCPUS_FAILED], 1);
    vcpus_pause(fake.vcpus);
    expect_all_still();
    stop();
}

static void test_open_fails(void **state)
{
    struct error err = {0};
    memset(&fake, 0, sizeof(fake));
    fake.refuse_index = 2;
    const struct vcpus_config config = {
        .engine = &fake_engine, .vm = &fake, .count = COUNT, .event = on_event};
    assert_null(vcpus_create(&config, &err));
    assert_string_equal(err.cause, "no vCPU 2 today");
    assert_int_equal(atomic_load(&fake.opened), 2);
    assert_int_equal(atomic_load(&fake.closed), 2);
}

/* Who is held does not run, and can be paused and let go like the others. */
static void test_held(void **state)
{
    start(SPIN);
    vcpus_hold(fake.vcpus, 1, true);
    for (unsigned round = 0; round < 100; round++) {
        unsigned runs = atomic_load(&fake.vcpu[0].runs);
        vcpus_resume(fake.vcpus);
        wait_for(&fake.vcpu[0].runs, runs + 1);
        vcpus_pause(fake.vcpus);
        expect_all_still();
    }
    assert_int_equal(atomic_load(&fake.vcpu[1].runs), 0);
    vcpus_hold(fake.vcpus, 1, false);
    vcpus_resume(fake.vcpus);
    wait_for(&fake.vcpu[1].runs, 1);
    stop();
}

/* A stop of one pauses all, and is told once. */
static void test_debug_stop(void **state)
{
    const struct breakpoint breakpoint = {BREAK_EXECUTE, true, 0, 1};
    const struct debug_request none = {0}, steps = {.steps = true},
                               one = {.count = 1, .breakpoints = &breakpoint};
    struct debug_stop stop_of;
    struct error err = {0};
    start(STOP);
    assert_false(vcpus_set_debug(fake.vcpus, 0, &one, &err));
    assert_string_equal(err.cause, "not at all");
    assert_true(vcpus_set_debug(fake.vcpus, 2, &none, &err));
    vcpus_resume(fake.vcpus);
    wait_for(&events[VCPUS_DEBUG], 1);
    vcpus_pause(fake.vcpus);
    expect_all_still();
    for (unsigned i = 0; i < COUNT; i++)
        assert_int_equal(vcpus_take_stop(fake.vcpus, i, &stop_of), i == 2);
    assert_true(vcpus_set_debug(fake.vcpus, 2, &steps, &err));
    vcpus_resume(fake.vcpus);
    wait_for(&events[VCPUS_DEBUG], 2);
    vcpus_pause(fake.vcpus);
    assert_true(vcpus_take_stop(fake.vcpus, 2, &stop_of));
    assert_int_equal(stop_of.kind, DEBUG_STOP_STEP);
    assert_int_equal(stop_of.breakpoint.linear, 2);
    assert_false(vcpus_take_stop(fake.vcpus, 2, &stop_of));
    assert_true(vcpus_set_debug(fake.vcpus, 2, NULL, &err));
    unsigned runs = atomic_load(&fake.vcpu[2].runs);
    vcpus_resume(fake.vcpus);
    wait_for(&fake.vcpu[2].runs, runs + 1);
    vcpus_pause(fake.vcpus);
    assert_int_equal(atomic_load(&events[VCPUS_DEBUG]), 2);
    stop();
}

static atomic_uint signals;

static void count_signal(int number)
{
    atomic_fetch_add(&signals, 1);
}

static void test_signals_are_blocked(void **state)
{
    start(SPIN);
    struct sigaction action = {.sa_handler = count_signal}, old;
    sigaction(SIGUSR2, &action, &old);
    for (unsigned i = 0; i < COUNT; i++)
        pthread_kill(fake.vcpu[i].thread, SIGUSR2);
    vcpus_resume(fake.vcpus);
    for (unsigned i = 0; i < COUNT; i++)
        wait_for(&fake.vcpu[i].runs, 1);
    vcpus_pause(fake.vcpus);
    assert_int_equal(atomic_load(&signals), 0);
    raise(SIGUSR2);
    assert_int_equal(atomic_load(&signals), 1);
    stop();
    sigaction(SIGUSR2, &old, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_made_paused),
        cmocka_unit_test(test_pause_and_resume),
        cmocka_unit_test(test_halted_ones_wake),
        cmocka_unit_test(test_state),
        cmocka_unit_test(test_state_beside_interrupts),
        cmocka_unit_test(test_triple_fault),
        cmocka_unit_test(test_failure),
        cmocka_unit_test(test_open_fails),
        cmocka_unit_test(test_signals_are_blocked),
        cmocka_unit_test(test_held),
        cmocka_unit_test(test_debug_stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
