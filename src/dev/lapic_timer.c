/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The timer of the local APIC: one-shot, periodic and TSC-deadline (SDM 3A 11.5.4). Nothing is
 * counted: the time at which the count reaches 0 is kept, and the count computed when read. While
 * the LVT entry is masked the host's timer rests. Runs on vCPU threads and on the clock's.
 */
#include "dev/lapic_internal.h"

/* A period shorter than this would only busy the clock's thread: the guest can't tell expiries
 * apart that merge in the IRR. */
static const uint64_t min_period_ns = 50000;
static const uint64_t far_future_ns = UINT64_C(1) << 62;

static uint64_t ns_per_tick(uint64_t hz)
{
    return (uint64_t)((((unsigned __int128)1000000000 << 32) + hz - 1) / hz);
}

void lapic_timer_setup(struct lapics *all)
{
    all->timer_ns_mul = ns_per_tick(all->config.timer_hz);
    all->tsc_ns_mul = ns_per_tick(all->config.tsc_hz);
}

static uint64_t ticks_to_ns(uint64_t ticks, uint64_t mul)
{
    unsigned __int128 ns = ((unsigned __int128)ticks * mul + UINT32_MAX) >> 32;
    return ns > far_future_ns ? far_future_ns : (uint64_t)ns;
}

static enum lapic_timer_mode mode(const struct lapic *apic)
{
    return (apic->lvt[LVT_TIMER] & LVT_TIMER_MODE) >> LVT_TIMER_MODE_SHIFT;
}

static bool counts(const struct lapic *apic)
{
    return mode(apic) <= TIMER_PERIODIC;
}

static bool is_masked(const struct lapic *apic)
{
    return apic->lvt[LVT_TIMER] & LVT_MASKED;
}

/* 0, 1, 3 select divisors 2 … 128, 1 as in figure 11-10. */
static unsigned divisor(const struct lapic *apic)
{
    unsigned code = (apic->timer.divide & 3) | (apic->timer.divide & 8) >> 1;
    return code == 7 ? 1 : 2u << code;
}

static uint64_t count_to_ns(const struct lapic *apic, uint32_t count)
{
    return ticks_to_ns((uint64_t)count * divisor(apic), apic->all->timer_ns_mul);
}

static uint64_t period_ns(const struct lapic *apic)
{
    uint64_t ns = count_to_ns(apic, apic->timer.initial);
    return ns < min_period_ns ? min_period_ns : ns;
}

static uint64_t now_ns(const struct lapic *apic)
{
    return clock_now_ns(apic->all->config.clock);
}

static uint64_t read_tsc(const struct lapic *apic)
{
    const struct lapic_config *config = &apic->all->config;
    return config->read_tsc(config->read_tsc_opaque, apic->id);
}

static void fire(struct lapic *apic)
{
    if (!is_masked(apic))
        lapic_accept(apic, apic->lvt[LVT_TIMER] & LVT_VECTOR, false);
}

static void rearm_deadline(struct lapic *apic)
{
    struct lapic_timer *timer = &apic->timer;
    uint64_t tsc = read_tsc(apic);
    if (tsc >= timer->tsc_deadline) {
        timer->running = false;
        fire(apic);
    } else if (!is_masked(apic)) {
        uint64_t delta_ns = ticks_to_ns(timer->tsc_deadline - tsc, apic->all->tsc_ns_mul);
        clock_timer_arm(timer->host, now_ns(apic) + delta_ns);
    }
}

static void rearm_count(struct lapic *apic)
{
    struct lapic_timer *timer = &apic->timer;
    uint64_t now = now_ns(apic);
    if (now >= timer->deadline_ns) {
        if (mode(apic) == TIMER_PERIODIC) {
            uint64_t period = period_ns(apic); /* expiries that were slept through are one */
            timer->deadline_ns += ((now - timer->deadline_ns) / period + 1) * period;
        } else {
            timer->running = false;
        }
        fire(apic);
    }
    if (timer->running && !is_masked(apic))
        clock_timer_arm(timer->host, timer->deadline_ns);
}

void lapic_timer_rearm(struct lapic *apic)
{
    if (!apic->timer.running)
        return;
    if (counts(apic))
        rearm_count(apic);
    else
        rearm_deadline(apic);
}

void lapic_timer_expired(void *opaque)
{
    struct lapic *apic = opaque;
    pthread_mutex_lock(&apic->lock);
    if (!is_masked(apic))
        lapic_timer_rearm(
            apic); /* looks at the time itself: the expiry may be of an older arming */
    pthread_mutex_unlock(&apic->lock);
}

void lapic_timer_stop(struct lapic *apic)
{
    apic->timer.running = false;
    apic->timer.tsc_deadline = 0;
    clock_timer_cancel(apic->timer.host);
}

void lapic_timer_set_initial(struct lapic *apic, uint32_t value)
{
    struct lapic_timer *timer = &apic->timer;
    if (!counts(apic))
        return;
    timer->initial = value;
    if (!value) {
        lapic_timer_stop(apic);
        return;
    }
    uint64_t ns = mode(apic) == TIMER_PERIODIC ? period_ns(apic) : count_to_ns(apic, value);
    timer->deadline_ns = now_ns(apic) + ns;
    timer->running = true;
    if (!is_masked(apic))
        clock_timer_arm(timer->host, timer->deadline_ns);
}

uint32_t lapic_timer_count(struct lapic *apic)
{
    struct lapic_timer *timer = &apic->timer;
    if (!counts(apic) || !timer->running)
        return 0;
    uint64_t now = now_ns(apic), left;
    if (now < timer->deadline_ns) {
        left = timer->deadline_ns - now;
    } else if (mode(apic) == TIMER_PERIODIC) {
        uint64_t period = period_ns(apic);
        left = period - (now - timer->deadline_ns) % period;
    } else {
        return 0;
    }
    uint64_t unit = apic->all->timer_ns_mul * divisor(apic);
    unsigned __int128 count = (((unsigned __int128)left << 32) + unit - 1) / unit;
    return count > timer->initial ? timer->initial : (uint32_t)count;
}

/* The count goes on from where it is, at the new speed. */
void lapic_timer_set_divide(struct lapic *apic, uint32_t value)
{
    struct lapic_timer *timer = &apic->timer;
    uint32_t count = lapic_timer_count(apic);
    timer->divide = value;
    if (timer->running && counts(apic) && count) {
        timer->deadline_ns = now_ns(apic) + count_to_ns(apic, count);
        lapic_timer_rearm(apic);
    }
}

void lapic_timer_set_lvt(struct lapic *apic, uint32_t value)
{
    struct lapic_timer *timer = &apic->timer;
    uint32_t old = apic->lvt[LVT_TIMER];
    /* A one-shot that expires while masked is gone, and an expiry that the host's timer has not
     * reported yet belongs to the entry as it was. */
    lapic_timer_rearm(apic);
    apic->lvt[LVT_TIMER] = value;
    bool counted = (old & LVT_TIMER_MODE) >> LVT_TIMER_MODE_SHIFT <= TIMER_PERIODIC;
    if (((old ^ value) & LVT_TIMER_MODE) && !(counted && counts(apic))) {
        timer->initial = 0;
        lapic_timer_stop(apic);
    } else if (value & LVT_MASKED) {
        if (timer->running && !(old & LVT_MASKED))
            clock_timer_cancel(timer->host);
    } else {
        lapic_timer_rearm(apic);
    }
}

/* Reads 0 once the deadline is past, though the host's timer rests while the entry is masked. */
uint64_t lapic_timer_deadline(struct lapic *apic)
{
    if (mode(apic) != TIMER_TSC_DEADLINE || !apic->timer.running)
        return 0;
    if (is_masked(apic) && read_tsc(apic) >= apic->timer.tsc_deadline)
        return 0;
    return apic->timer.tsc_deadline;
}

void lapic_timer_set_deadline(struct lapic *apic, uint64_t value)
{
    struct lapic_timer *timer = &apic->timer;
    if (mode(apic) != TIMER_TSC_DEADLINE)
        return;
    if (!value) {
        lapic_timer_stop(apic);
        return;
    }
    timer->tsc_deadline = value;
    timer->running = true;
    rearm_deadline(apic);
}
