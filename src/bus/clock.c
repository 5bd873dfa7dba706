/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Guest time over CLOCK_MONOTONIC, and a thread that sleeps until the earliest timer.
 *
 * Guest time is monotonic time minus `origin_ns`, or `frozen_ns` while paused. Readers (any vCPU,
 * often) take no lock: the pair lies under a sequence count, odd while it changes. All else is
 * under one mutex, which is not held while a callback runs. Timers lie in a binary heap by
 * deadline; timers with one deadline fire in the order in which they were armed. */
#include "bus/clock.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

enum { NOT_QUEUED = -1, FIRST_CAPACITY = 16 };
static const uint64_t second_ns = 1000000000;
/* The longest sleep: a guest may set deadlines that no timespec can hold. */
static const uint64_t sleep_max_ns = 3600 * UINT64_C(1000000000);
/* In wake_ns: the thread runs, and looks at the heap before it sleeps. */
static const uint64_t awake = 0;

struct clock_timer {
    struct clock *clock;
    clock_timer_fn *fn;
    void *opaque;
    uint64_t deadline_ns;
    uint64_t turn; /* when it was armed, to order equal deadlines */
    int index;     /* in the heap, or NOT_QUEUED */
    bool closing;
};

struct clock {
    _Atomic uint64_t sequence;
    _Atomic uint64_t origin_ns;
    _Atomic uint64_t frozen_ns;
    _Atomic bool is_paused;

    pthread_mutex_t lock;
    pthread_cond_t wake; /* to the thread */
    pthread_cond_t idle; /* from the thread: a callback has returned */
    pthread_t thread;
    bool stopping;
    uint64_t wake_ns; /* guest time until which the thread sleeps, or `awake` */
    uint64_t turns;
    struct clock_timer *firing; /* whose callback is under way */
    struct clock_timer **heap;  /* has room for every open timer */
    unsigned heap_count;
    unsigned heap_capacity;
    unsigned open_count;
};

static uint64_t monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * second_ns + (uint64_t)now.tv_nsec;
}

static bool fires_before(const struct clock_timer *a, const struct clock_timer *b)
{
    if (a->deadline_ns != b->deadline_ns)
        return a->deadline_ns < b->deadline_ns;
    return a->turn < b->turn;
}

static void heap_place(struct clock *clock, unsigned index, struct clock_timer *timer)
{
    clock->heap[index] = timer;
    timer->index = (int)index;
}

static void heap_rise(struct clock *clock, unsigned index)
{
    struct clock_timer *timer = clock->heap[index];
    while (index > 0) {
        unsigned parent = (index - 1) / 2;
        if (!fires_before(timer, clock->heap[parent]))
            break;
        heap_place(clock, index, clock->heap[parent]);
        index = parent;
    }
    heap_place(clock, index, timer);
}

static void heap_sink(struct clock *clock, unsigned index)
{
    struct clock_timer *timer = clock->heap[index];
    for (;;) {
        unsigned child = 2 * index + 1;
        if (child >= clock->heap_count)
            break;
        if (child + 1 < clock->heap_count &&
            fires_before(clock->heap[child + 1], clock->heap[child]))
            child++;
        if (!fires_before(clock->heap[child], timer))
            break;
        heap_place(clock, index, clock->heap[child]);
        index = child;
    }
    heap_place(clock, index, timer);
}

static void heap_add(struct clock *clock, struct clock_timer *timer)
{
    assert(clock->heap_count < clock->heap_capacity);
    heap_place(clock, clock->heap_count++, timer);
    heap_rise(clock, clock->heap_count - 1);
}

static void heap_remove(struct clock *clock, struct clock_timer *timer)
{
    if (timer->index == NOT_QUEUED)
        return;
    unsigned index = (unsigned)timer->index;
    struct clock_timer *last = clock->heap[--clock->heap_count];
    timer->index = NOT_QUEUED;
    if (last == timer)
        return;
    heap_place(clock, index, last);
    heap_rise(clock, index);
    heap_sink(clock, (unsigned)last->index);
}

/* Sleeps until the earliest deadline, or until woken. */
static void thread_sleep(struct clock *clock, uint64_t now)
{
    if (atomic_load(&clock->is_paused) || clock->heap_count == 0) {
        clock->wake_ns = UINT64_MAX;
        pthread_cond_wait(&clock->wake, &clock->lock);
    } else {
        uint64_t delay_ns = clock->heap[0]->deadline_ns - now;
        if (delay_ns > sleep_max_ns)
            delay_ns = sleep_max_ns;
        clock->wake_ns = now + delay_ns;
        uint64_t until_ns = clock->wake_ns + atomic_load(&clock->origin_ns);
        struct timespec until = {.tv_sec = (time_t)(until_ns / second_ns),
                                 .tv_nsec = (long)(until_ns % second_ns)};
        pthread_cond_timedwait(&clock->wake, &clock->lock, &until);
    }
    clock->wake_ns = awake;
}

static void thread_fire(struct clock *clock, struct clock_timer *timer)
{
    heap_remove(clock, timer);
    clock->firing = timer;
    pthread_mutex_unlock(&clock->lock);
    timer->fn(timer->opaque); /* may close and so free the timer */
    pthread_mutex_lock(&clock->lock);
    clock->firing = NULL;
    pthread_cond_broadcast(&clock->idle);
}

static void *thread_main(void *opaque)
{
    struct clock *clock = opaque;
    pthread_setname_np(pthread_self(), "clock");
    prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
    pthread_mutex_lock(&clock->lock);
    while (!clock->stopping) {
        uint64_t now = clock_now_ns(clock);
        if (!atomic_load(&clock->is_paused) && clock->heap_count > 0 &&
            clock->heap[0]->deadline_ns <= now)
            thread_fire(clock, clock->heap[0]);
        else
            thread_sleep(clock, now);
    }
    pthread_mutex_unlock(&clock->lock);
    return NULL;
}

/* Starts the thread with all signals blocked: they are the main thread's. */
static int thread_start(struct clock *clock)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int result = pthread_create(&clock->thread, NULL, thread_main, clock);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return result;
}

static void clock_free(struct clock *clock)
{
    pthread_cond_destroy(&clock->wake);
    pthread_cond_destroy(&clock->idle);
    pthread_mutex_destroy(&clock->lock);
    free(clock->heap);
    free(clock);
}

struct clock *clock_create(struct error *err)
{
    struct clock *clock = calloc(1, sizeof(*clock));
    if (!clock) {
        error_errno(err, "cannot start the guest's clock", NULL, ENOMEM);
        return NULL;
    }
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&clock->lock, NULL);
    pthread_cond_init(&clock->wake, &attributes);
    pthread_cond_init(&clock->idle, NULL);
    pthread_condattr_destroy(&attributes);
    atomic_store(&clock->origin_ns, monotonic_ns());
    int result = thread_start(clock);
    if (result != 0) {
        error_errno(err, "cannot start the guest's clock", NULL, result);
        clock_free(clock);
        return NULL;
    }
    return clock;
}

void clock_destroy(struct clock *clock)
{
    if (!clock)
        return;
    pthread_mutex_lock(&clock->lock);
    assert(clock->open_count == 0);
    clock->stopping = true;
    pthread_cond_signal(&clock->wake);
    pthread_mutex_unlock(&clock->lock);
    pthread_join(clock->thread, NULL);
    clock_free(clock);
}

uint64_t clock_now_ns(struct clock *clock)
{
    for (;;) {
        uint64_t before = atomic_load_explicit(&clock->sequence, memory_order_acquire);
        uint64_t now =
            atomic_load_explicit(&clock->is_paused, memory_order_acquire)
                ? atomic_load_explicit(&clock->frozen_ns, memory_order_acquire)
                : monotonic_ns() - atomic_load_explicit(&clock->origin_ns, memory_order_acquire);
        if ((before & 1) == 0 &&
            atomic_load_explicit(&clock->sequence, memory_order_acquire) == before)
            return now;
    }
}

/* Makes the time `now_ns` at the moment `monotonic`, running or paused. With the lock held. */
static void set_time(struct clock *clock, uint64_t monotonic, uint64_t now_ns, bool is_paused)
{
    atomic_fetch_add(&clock->sequence, 1);
    atomic_store(&clock->frozen_ns, now_ns);
    atomic_store(&clock->origin_ns, monotonic - now_ns);
    atomic_store(&clock->is_paused, is_paused);
    atomic_fetch_add(&clock->sequence, 1);
    pthread_cond_signal(&clock->wake);
}

static bool on_clock_thread(const struct clock *clock)
{
    return pthread_equal(pthread_self(), clock->thread);
}

uint64_t clock_pause(struct clock *clock)
{
    pthread_mutex_lock(&clock->lock);
    uint64_t at = monotonic_ns();
    if (!atomic_load(&clock->is_paused))
        set_time(clock, at, at - atomic_load(&clock->origin_ns), true);
    while (clock->firing && !on_clock_thread(clock))
        pthread_cond_wait(&clock->idle, &clock->lock);
    pthread_mutex_unlock(&clock->lock);
    return at;
}

uint64_t clock_resume(struct clock *clock)
{
    pthread_mutex_lock(&clock->lock);
    uint64_t at = monotonic_ns();
    if (atomic_load(&clock->is_paused))
        set_time(clock, at, atomic_load(&clock->frozen_ns), false);
    pthread_mutex_unlock(&clock->lock);
    return at;
}

void clock_set_ns(struct clock *clock, uint64_t now_ns)
{
    pthread_mutex_lock(&clock->lock);
    set_time(clock, monotonic_ns(), now_ns, atomic_load(&clock->is_paused));
    pthread_mutex_unlock(&clock->lock);
}

void clock_host_utc(int64_t *seconds, uint32_t *nanoseconds)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    *seconds = now.tv_sec;
    *nanoseconds = (uint32_t)now.tv_nsec;
}

/* Room in the heap for one open timer more, so that arming never fails. */
static bool reserve_timer(struct clock *clock)
{
    if (clock->open_count == clock->heap_capacity) {
        unsigned capacity = clock->heap_capacity ? clock->heap_capacity * 2 : FIRST_CAPACITY;
        struct clock_timer **heap =
            reallocarray(clock->heap, capacity, sizeof(struct clock_timer *));
        if (!heap)
            return false;
        clock->heap = heap;
        clock->heap_capacity = capacity;
    }
    clock->open_count++;
    return true;
}

struct clock_timer *clock_timer_open(struct clock *clock, clock_timer_fn *fn, void *opaque)
{
    struct clock_timer *timer = calloc(1, sizeof(*timer));
    if (!timer)
        return NULL;
    *timer = (struct clock_timer){.clock = clock, .fn = fn, .opaque = opaque, .index = NOT_QUEUED};
    pthread_mutex_lock(&clock->lock);
    bool reserved = reserve_timer(clock);
    pthread_mutex_unlock(&clock->lock);
    if (!reserved) {
        free(timer);
        return NULL;
    }
    return timer;
}

void clock_timer_close(struct clock_timer *timer)
{
    if (!timer)
        return;
    struct clock *clock = timer->clock;
    pthread_mutex_lock(&clock->lock);
    timer->closing = true; /* a callback under way can no more arm it */
    heap_remove(clock, timer);
    while (clock->firing == timer && !on_clock_thread(clock))
        pthread_cond_wait(&clock->idle, &clock->lock);
    clock->open_count--;
    pthread_mutex_unlock(&clock->lock);
    free(timer);
}

void clock_timer_arm(struct clock_timer *timer, uint64_t deadline_ns)
{
    struct clock *clock = timer->clock;
    pthread_mutex_lock(&clock->lock);
    if (!timer->closing) {
        heap_remove(clock, timer);
        timer->deadline_ns = deadline_ns;
        timer->turn = clock->turns++;
        heap_add(clock, timer);
        if (deadline_ns < clock->wake_ns)
            pthread_cond_signal(&clock->wake);
    }
    pthread_mutex_unlock(&clock->lock);
}

void clock_timer_cancel(struct clock_timer *timer)
{
    struct clock *clock = timer->clock;
    pthread_mutex_lock(&clock->lock);
    heap_remove(clock, timer);
    pthread_mutex_unlock(&clock->lock);
}
