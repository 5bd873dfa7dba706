/* SPDX-License-Identifier: BSD-2-Clause
 * What the APIC tests put around the devices: a processor that writes down what it is told, and a
 * clock that the test sets (its functions stand in for those of bus/clock.c, which is not linked).
 */
#ifndef SKEP_TESTS_DEV_APIC_FAKES_H
#define SKEP_TESTS_DEV_APIC_FAKES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bus/bus.h"
#include "bus/clock.h"
#include "dev/lapic.h"

#include <stdlib.h>
#include <string.h>

enum { FAKE_TIMERS = 8 };

struct clock_timer {
    struct clock *clock;
    clock_timer_fn *fn;
    void *opaque;
    bool armed;
    uint64_t deadline_ns;
};

struct clock {
    uint64_t now_ns;
    struct clock_timer timers[FAKE_TIMERS];
    unsigned timer_count;
};

uint64_t clock_now_ns(struct clock *clock)
{
    return clock->now_ns;
}

struct clock_timer *clock_timer_open(struct clock *clock, clock_timer_fn *fn, void *opaque)
{
    assert_true(clock->timer_count < FAKE_TIMERS);
    struct clock_timer *timer = &clock->timers[clock->timer_count++];
    *timer = (struct clock_timer){.clock = clock, .fn = fn, .opaque = opaque};
    return timer;
}

void clock_timer_close(struct clock_timer *timer)
{
    timer->armed = false;
}

void clock_timer_arm(struct clock_timer *timer, uint64_t deadline_ns)
{
    timer->armed = true;
    timer->deadline_ns = deadline_ns;
}

void clock_timer_cancel(struct clock_timer *timer)
{
    timer->armed = false;
}

/* Moves to `now_ns` through every expiry on the way; how many there were. */
static inline unsigned fake_clock_run_to(struct clock *clock, uint64_t now_ns)
{
    unsigned fired = 0;
    for (;;) {
        struct clock_timer *next = NULL;
        for (unsigned i = 0; i < clock->timer_count; i++) {
            struct clock_timer *t = &clock->timers[i];
            if (t->armed && t->deadline_ns <= now_ns &&
                (!next || t->deadline_ns < next->deadline_ns))
                next = t;
        }
        if (!next)
            break;
        if (next->deadline_ns > clock->now_ns)
            clock->now_ns = next->deadline_ns;
        next->armed = false;
        next->fn(next->opaque);
        fired++;
    }
    clock->now_ns = now_ns;
    return fired;
}

struct fake_cpu {
    bool intr;
    unsigned intr_calls, nmis, inits, sipis;
    uint8_t sipi_vector;
};

#endif
