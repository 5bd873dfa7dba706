/* SPDX-License-Identifier: BSD-2-Clause
 * Guest time and its timers. Nothing here asserts how long something took: only order, and what
 * may not have happened. */
#include "bus/clock.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#define MS  UINT64_C(1000000)
#define DAY (UINT64_C(86400000) * MS)

static int setup(void **state)
{
    *state = clock_create(NULL);
    return *state ? 0 : -1;
}

static int teardown(void **state)
{
    clock_destroy(*state);
    return 0;
}

enum { FIRED_MAX = 1000 };

/* What fired, in order. */
struct record {
    struct clock *clock;
    atomic_uint count;
    unsigned fired[FIRED_MAX];
    atomic_uint early; /* fired before its deadline */
};

struct alarm {
    struct record *record;
    struct clock_timer *timer;
    unsigned number;
    uint64_t deadline_ns;
};

static void alarm_fires(void *opaque)
{
    struct alarm *alarm = opaque;
    struct record *record = alarm->record;
    if (clock_now_ns(record->clock) < alarm->deadline_ns)
        atomic_fetch_add(&record->early, 1);
    unsigned count = atomic_load(&record->count);
    if (count < FIRED_MAX)
        record->fired[count] = alarm->number;
    atomic_store(&record->count, count + 1);
}

static void open_alarm(struct record *record, struct alarm *alarm, unsigned number)
{
    *alarm = (struct alarm){.record = record, .number = number};
    alarm->timer = clock_timer_open(record->clock, alarm_fires, alarm);
    assert_non_null(alarm->timer);
}

static void arm(struct alarm *alarm, uint64_t deadline_ns)
{
    alarm->deadline_ns = deadline_ns;
    clock_timer_arm(alarm->timer, deadline_ns);
}

static void await(atomic_uint *count, unsigned wanted)
{
    while (atomic_load(count) < wanted)
        usleep(500);
}

static void test_time_never_runs_back(void **state)
{
    uint64_t before = clock_now_ns(*state);
    for (unsigned i = 0; i < 100000; i++) {
        uint64_t now = clock_now_ns(*state);
        assert_true(now >= before);
        before = now;
    }
    assert_true(before < DAY); /* it began at 0 */
}

static void test_order_of_deadlines(void **state)
{
    enum { COUNT = 200 };
    struct record record = {.clock = *state};
    static struct alarm alarms[COUNT];
    clock_pause(*state);
    uint64_t start = clock_now_ns(*state);
    for (unsigned i = 0; i < COUNT; i++)
        open_alarm(&record, &alarms[i], i);
    /* Armed in a mixed order; number n is due n * 0.1 ms from now. */
    for (unsigned i = 0; i < COUNT; i++) {
        unsigned number = i * 77 % COUNT;
        arm(&alarms[number], start + number * MS / 10);
    }
    /* Every third is cancelled, which takes it out of the middle of the heap. */
    for (unsigned i = 0; i < COUNT; i += 3)
        clock_timer_cancel(alarms[i].timer);
    clock_resume(*state);
    await(&record.count, COUNT - (COUNT + 2) / 3);
    usleep(2000);
    assert_int_equal(record.count, COUNT - (COUNT + 2) / 3);
    unsigned next = 0;
    for (unsigned i = 0; i < COUNT; i++) {
        if (i % 3 != 0)
            assert_int_equal(record.fired[next++], i);
    }
    assert_int_equal(record.early, 0);
    for (unsigned i = 0; i < COUNT; i++)
        clock_timer_close(alarms[i].timer);
}

/* Armed in this order, the deadlines lie in the heap as they stand here. Cancelling 200 moves 3
 * into its place, below 100: it has to rise. */
static void test_cancel_lets_the_last_rise(void **state)
{
    enum { COUNT = 7, CANCELLED = 3 };
    static const unsigned deadlines[COUNT] = {0, 10, 1, 200, 11, 500, 3};
    static const unsigned expected[COUNT - 1] = {0, 1, 3, 10, 11, 500};
    struct record record = {.clock = *state};
    struct alarm alarms[COUNT];
    clock_pause(*state);
    for (unsigned i = 0; i < COUNT; i++) {
        open_alarm(&record, &alarms[i], deadlines[i]);
        arm(&alarms[i], deadlines[i]);
    }
    clock_timer_cancel(alarms[CANCELLED].timer);
    clock_resume(*state);
    await(&record.count, COUNT - 1);
    for (unsigned i = 0; i < COUNT - 1; i++)
        assert_int_equal(record.fired[i], expected[i]);
    for (unsigned i = 0; i < COUNT; i++)
        clock_timer_close(alarms[i].timer);
}

static void test_equal_deadlines_fire_as_armed(void **state)
{
    enum { COUNT = 50 };
    struct record record = {.clock = *state};
    static struct alarm alarms[COUNT];
    clock_pause(*state);
    for (unsigned i = 0; i < COUNT; i++)
        open_alarm(&record, &alarms[i], i);
    for (unsigned i = 0; i < COUNT; i++)
        arm(&alarms[(i * 7 + 3) % COUNT], 0);
    clock_resume(*state);
    await(&record.count, COUNT);
    for (unsigned i = 0; i < COUNT; i++) {
        assert_int_equal(record.fired[i], (i * 7 + 3) % COUNT);
        clock_timer_close(alarms[i].timer);
    }
}

static void test_earlier_deadline_wakes_the_sleeper(void **state)
{
    struct record record = {.clock = *state};
    struct alarm late, soon;
    open_alarm(&record, &late, 1);
    open_alarm(&record, &soon, 2);
    arm(&late, clock_now_ns(*state) + DAY);
    usleep(5000); /* the thread sleeps until tomorrow */
    arm(&soon, clock_now_ns(*state) + MS);
    await(&record.count, 1);
    assert_int_equal(record.fired[0], 2);
    arm(&late, 0); /* moves it; past deadlines fire at once */
    await(&record.count, 2);
    assert_int_equal(record.fired[1], 1);
    clock_timer_close(late.timer);
    clock_timer_close(soon.timer);
}

static void test_deadline_out_of_reach(void **state)
{
    struct record record = {.clock = *state};
    struct alarm never, now;
    open_alarm(&record, &never, 1);
    open_alarm(&record, &now, 2);
    arm(&never, UINT64_MAX);
    usleep(2000);
    arm(&now, 0);
    await(&record.count, 1);
    assert_int_equal(record.fired[0], 2);
    clock_timer_close(never.timer);
    clock_timer_close(now.timer);
}

static void test_fires_once(void **state)
{
    struct record record = {.clock = *state};
    struct alarm alarm, end;
    open_alarm(&record, &alarm, 1);
    open_alarm(&record, &end, 2);
    arm(&alarm, clock_now_ns(*state) + MS / 2);
    arm(&alarm, clock_now_ns(*state) + MS);
    await(&record.count, 1);
    arm(&end, clock_now_ns(*state) + 5 * MS);
    await(&record.count, 2);
    assert_int_equal(record.fired[1], 2);
    clock_timer_cancel(alarm.timer); /* of one that is not armed */
    clock_timer_close(alarm.timer);
    clock_timer_close(end.timer);
}

static void test_pause(void **state)
{
    struct record record = {.clock = *state};
    struct alarm past, soon;
    open_alarm(&record, &past, 1);
    open_alarm(&record, &soon, 2);
    clock_pause(*state);
    uint64_t paused_at = clock_now_ns(*state);
    arm(&past, 0);
    arm(&soon, paused_at + 3 * MS);
    usleep(10000);
    assert_int_equal(clock_now_ns(*state), paused_at);
    clock_pause(*state); /* again: no change */
    assert_int_equal(clock_now_ns(*state), paused_at);
    assert_int_equal(record.count, 0);
    clock_resume(*state);
    await(&record.count, 2);
    assert_int_equal(record.fired[0], 1);
    assert_int_equal(record.early, 0);
    clock_resume(*state); /* again: no change */
    assert_true(clock_now_ns(*state) >= paused_at + 3 * MS);
    clock_timer_close(past.timer);
    clock_timer_close(soon.timer);
}

static void test_set(void **state)
{
    struct record record = {.clock = *state};
    struct alarm alarm;
    open_alarm(&record, &alarm, 1);
    arm(&alarm, 10 * DAY);
    clock_pause(*state);
    clock_set_ns(*state, 5 * DAY);
    assert_int_equal(clock_now_ns(*state), 5 * DAY);
    clock_resume(*state);
    assert_true(clock_now_ns(*state) >= 5 * DAY);
    assert_true(clock_now_ns(*state) < 6 * DAY);
    usleep(2000);
    assert_int_equal(record.count, 0);
    clock_set_ns(*state, 11 * DAY); /* while it runs: the deadline has passed */
    await(&record.count, 1);
    clock_set_ns(*state, 0); /* and back */
    assert_true(clock_now_ns(*state) < DAY);
    clock_timer_close(alarm.timer);
}

struct slow {
    struct clock *clock;
    struct clock_timer *timer;
    atomic_uint entered;
    atomic_uint left;
    bool rearms;
    bool closes_itself;
    unsigned calls;
};

static void slow_fires(void *opaque)
{
    struct slow *slow = opaque;
    slow->calls++;
    atomic_fetch_add(&slow->entered, 1);
    usleep(10000);
    if (slow->rearms)
        clock_timer_arm(slow->timer, 0);
    if (slow->closes_itself)
        clock_timer_close(slow->timer);
    atomic_fetch_add(&slow->left, 1);
}

static void test_close_waits_for_the_callback(void **state)
{
    for (unsigned i = 0; i < 5; i++) {
        struct slow *slow = calloc(1, sizeof(*slow));
        slow->clock = *state;
        slow->rearms = i % 2 == 0; /* then it must not fire again, either */
        slow->timer = clock_timer_open(*state, slow_fires, slow);
        clock_timer_arm(slow->timer, 0);
        await(&slow->entered, 1);
        clock_timer_close(slow->timer);
        assert_int_equal(slow->entered, slow->left);
        free(slow); /* ASan sees a callback that comes after */
    }
}

static void test_close_from_the_callback(void **state)
{
    struct slow slow = {.clock = *state, .rearms = true, .closes_itself = true};
    slow.timer = clock_timer_open(*state, slow_fires, &slow);
    clock_timer_arm(slow.timer, 0);
    await(&slow.left, 1);
    usleep(2000);
    assert_int_equal(slow.calls, 1);
}

struct killer {
    struct clock_timer *victim;
    struct record *record;
};

static void killer_fires(void *opaque)
{
    struct killer *killer = opaque;
    clock_timer_close(killer->victim);
    atomic_fetch_add(&killer->record->count, 1);
}

static void test_close_of_another_from_a_callback(void **state)
{
    struct record record = {.clock = *state};
    struct alarm victim, end;
    open_alarm(&record, &victim, 1);
    open_alarm(&record, &end, 2);
    struct killer killer = {victim.timer, &record};
    struct clock_timer *timer = clock_timer_open(*state, killer_fires, &killer);
    clock_pause(*state);
    clock_timer_arm(timer, 0);
    arm(&victim, 0); /* due too, but after */
    arm(&end, 0);
    clock_resume(*state);
    await(&record.count, 2);
    assert_int_equal(record.fired[1], 2);
    clock_timer_close(timer);
    clock_timer_close(end.timer);
    clock_timer_close(NULL);
}

static void test_pause_waits_for_the_callback(void **state)
{
    struct slow slow = {.clock = *state, .rearms = true};
    slow.timer = clock_timer_open(*state, slow_fires, &slow);
    clock_timer_arm(slow.timer, 0);
    await(&slow.entered, 1);
    clock_pause(*state);
    unsigned calls = slow.calls;
    assert_int_equal(slow.entered, slow.left);
    usleep(5000);
    assert_int_equal(slow.calls, calls);
    clock_resume(*state);
    await(&slow.left, calls + 1);
    clock_timer_close(slow.timer);
}

struct periodic {
    struct clock *clock;
    struct clock_timer *timer;
    atomic_uint count;
};

static void periodic_fires(void *opaque)
{
    struct periodic *periodic = opaque;
    if (atomic_fetch_add(&periodic->count, 1) < 100)
        clock_timer_arm(periodic->timer, clock_now_ns(periodic->clock) + MS / 20);
}

static void test_callback_arms_itself(void **state)
{
    struct periodic periodic = {.clock = *state};
    periodic.timer = clock_timer_open(*state, periodic_fires, &periodic);
    clock_timer_arm(periodic.timer, 0);
    await(&periodic.count, 101);
    usleep(2000);
    assert_int_equal(periodic.count, 101);
    clock_timer_close(periodic.timer);
}

struct armer {
    struct alarm alarms[20];
    struct record *record;
    unsigned seed;
};

static void nothing_fires(void *opaque)
{
    atomic_fetch_add((atomic_uint *)opaque, 1);
}

static void *armer_main(void *opaque)
{
    struct armer *armer = opaque;
    struct clock *clock = armer->record->clock;
    for (unsigned i = 0; i < 3000; i++) {
        armer->seed = armer->seed * 1103515245 + 12345;
        struct alarm *alarm = &armer->alarms[(armer->seed >> 16) % 20];
        if (!alarm->timer)
            alarm->timer = clock_timer_open(clock, nothing_fires, &armer->record->count);
        switch ((armer->seed >> 8) % 8) {
        case 0: clock_timer_cancel(alarm->timer); break;
        case 1:
            clock_timer_close(alarm->timer);
            alarm->timer = NULL;
            break;
        default: clock_timer_arm(alarm->timer, clock_now_ns(clock) + armer->seed % MS); break;
        }
    }
    for (unsigned i = 0; i < 20; i++)
        clock_timer_close(armer->alarms[i].timer);
    return NULL;
}

/* For the sanitizers, and for a heap that would come apart. */
static void test_threads_arm_and_close(void **state)
{
    enum { THREADS = 3 };
    struct record record = {.clock = *state};
    struct armer armers[THREADS] = {0};
    pthread_t threads[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        armers[i].record = &record;
        armers[i].seed = i + 1;
        assert_int_equal(pthread_create(&threads[i], NULL, armer_main, &armers[i]), 0);
    }
    for (unsigned i = 0; i < 20; i++) {
        clock_pause(*state);
        usleep(200);
        clock_resume(*state);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    /* It still works. */
    struct alarm alarm;
    open_alarm(&record, &alarm, 1);
    unsigned before = record.count;
    arm(&alarm, clock_now_ns(*state) + MS);
    await(&record.count, before + 1);
    clock_timer_close(alarm.timer);
}

static void mask_seen(void *opaque)
{
    sigset_t *mask = ((void **)opaque)[0];
    pthread_sigmask(SIG_SETMASK, NULL, mask);
    atomic_store((atomic_uint *)((void **)opaque)[1], 1);
}

static void test_signals_are_blocked_in_its_thread(void **state)
{
    sigset_t mask, own;
    atomic_uint done = 0;
    void *pair[] = {&mask, &done};
    struct clock_timer *timer = clock_timer_open(*state, mask_seen, pair);
    clock_timer_arm(timer, 0);
    await(&done, 1);
    assert_true(sigismember(&mask, SIGINT));
    assert_true(sigismember(&mask, SIGUSR1));
    pthread_sigmask(SIG_SETMASK, NULL, &own);
    assert_false(sigismember(&own, SIGINT)); /* ours is as it was */
    clock_timer_close(timer);
}

static void test_host_utc(void **state)
{
    int64_t seconds = 0;
    uint32_t nanoseconds = UINT32_MAX;
    clock_host_utc(&seconds, &nanoseconds);
    assert_true(seconds > 1600000000);
    assert_true(nanoseconds < 1000000000);
}

#define clock_test(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        clock_test(test_time_never_runs_back),
        clock_test(test_order_of_deadlines),
        clock_test(test_cancel_lets_the_last_rise),
        clock_test(test_equal_deadlines_fire_as_armed),
        clock_test(test_earlier_deadline_wakes_the_sleeper),
        clock_test(test_deadline_out_of_reach),
        clock_test(test_fires_once),
        clock_test(test_pause),
        clock_test(test_set),
        clock_test(test_close_waits_for_the_callback),
        clock_test(test_close_from_the_callback),
        clock_test(test_close_of_another_from_a_callback),
        clock_test(test_pause_waits_for_the_callback),
        clock_test(test_callback_arms_itself),
        clock_test(test_threads_arm_and_close),
        clock_test(test_signals_are_blocked_in_its_thread),
        cmocka_unit_test(test_host_utc),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
