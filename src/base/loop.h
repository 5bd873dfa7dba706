/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The event loop of the main thread, on libuv, which stays hidden in loop.c. All callbacks run on
 * the thread that calls loop_run(). Only loop_post() and loop_stop() may be called from other
 * threads; all else belongs to the loop's thread (or to the time before loop_run()).
 */
#ifndef SKEP_BASE_LOOP_H
#define SKEP_BASE_LOOP_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

struct loop;
typedef void loop_fn(void *opaque);

struct loop *loop_create(struct error *err);

/* Closes what is still open (watches, timers; queued posts are dropped) and frees the loop. Waits
 * for work that runs on workers; its `done` is then called. */
void loop_destroy(struct loop *loop);

/* Runs callbacks until loop_stop(). May be called again after it returned. */
void loop_run(struct loop *loop);

/* Runs callbacks that are ready, waits for at most `timeout_ms` for one; for tests and drains. From
 * inside a callback it runs posts and the ends of work only. */
void loop_run_once(struct loop *loop, unsigned timeout_ms);

void loop_stop(struct loop *loop);

/* Queues fn(opaque) to run on the loop's thread, in order of posting. From any thread. */
void loop_post(struct loop *loop, loop_fn *fn, void *opaque);

/* Runs work(opaque) on a worker thread, then done(opaque) on the loop's thread. `done` may be NULL.
 * Only from the loop's thread. */
void loop_work(struct loop *loop, loop_fn *work, loop_fn *done, void *opaque);

/* A watch on a file descriptor, which stays the caller's (blocking or not, as it was). Starts with
 * no events. Level-triggered; what poll() cannot wait for (a file, /dev/null) is always ready, and
 * so is a descriptor with an error or without a peer. One watch a descriptor. */
enum { LOOP_READABLE = 1, LOOP_WRITABLE = 2 };
struct loop_watch;
typedef void loop_watch_fn(void *opaque, unsigned events);
struct loop_watch *loop_watch_open(struct loop *loop, int fd, loop_watch_fn *fn, void *opaque,
                                   struct error *err);
void loop_watch_set(struct loop_watch *watch, unsigned events);
void loop_watch_close(struct loop_watch *watch);

/* A timer with a resolution of a millisecond, for host side matters (guest time is bus/clock.h). */
struct loop_timer;
struct loop_timer *loop_timer_open(struct loop *loop, loop_fn *fn, void *opaque);
void loop_timer_start(struct loop_timer *timer, uint64_t delay_ms);
void loop_timer_stop(struct loop_timer *timer);
void loop_timer_close(struct loop_timer *timer);

/* Calls fn for each arrival of the signal. */
struct loop_signal;
struct loop_signal *loop_signal_open(struct loop *loop, int signal, loop_fn *fn, void *opaque,
                                     struct error *err);
void loop_signal_close(struct loop_signal *signal);

#endif
