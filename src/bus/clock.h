/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Guest time: nanoseconds since the machine was made, without the time it was paused. Timers fire
 * on the clock's own thread, to within the host scheduler's exactness; a callback takes its
 * device's lock and may arm or cancel timers.
 */
#ifndef SKEP_BUS_CLOCK_H
#define SKEP_BUS_CLOCK_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

struct clock;
struct clock_timer;
typedef void clock_timer_fn(void *opaque);

struct clock *clock_create(struct error *err); /* starts running */
void clock_destroy(struct clock *clock);       /* all timers must be closed */

uint64_t clock_now_ns(struct clock *clock);
/* Time stands still and no timer fires, whatever its deadline. Waits for a callback that is under
 * way (unless called from it): do not hold a lock that one takes. Both give the moment of
 * CLOCK_MONOTONIC at which they took effect, for other clocks that are to stop and start with it;
 * again while paused (or running): that of now. */
uint64_t clock_pause(struct clock *clock);
uint64_t clock_resume(struct clock *clock);
void clock_set_ns(struct clock *clock, uint64_t now_ns); /* when a saved machine is loaded */

/* Seconds and nanoseconds of UTC as the host knows them, for the RTC. */
void clock_host_utc(int64_t *seconds, uint32_t *nanoseconds);

struct clock_timer *clock_timer_open(struct clock *clock, clock_timer_fn *fn, void *opaque);

/* Cancels, waits until a callback that is under way has returned (unless called from it), frees.
 * Do not hold the lock that the callback takes. */
void clock_timer_close(struct clock_timer *timer);

/* Fires once at or after deadline_ns; at once when it is past. Arming again moves the deadline. */
void clock_timer_arm(struct clock_timer *timer, uint64_t deadline_ns);

/* A callback that is under way may still run: it checks under its device's lock. */
void clock_timer_cancel(struct clock_timer *timer);

#endif
