/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The event loop on libuv; nothing else includes uv.h.
 *
 * Posts and the ends of work lie in one queue of our own, in order, taken one at a time, with a
 * uv_async to wake the loop. So a callback that must wait for work (a disk that drains) can run
 * that queue alone, where libuv does not allow to run its loop again from inside. */
#include "base/loop.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>
#include <uv.h>

struct post {
    struct post *next;
    loop_fn *fn; /* may be NULL */
    void *opaque;
    bool ends_work;
};

struct loop {
    uv_loop_t uv;
    uv_async_t async;
    uv_timer_t timeout; /* of loop_run_once() */
    atomic_bool stop;
    unsigned depth;           /* of callbacks that run; the loop's thread only */
    unsigned work_unfinished; /* work whose done() has not run; the loop's thread only */

    pthread_mutex_t lock; /* guards the queue */
    pthread_cond_t posted;
    struct post *first;
    struct post **last; /* the `next` that the next post goes to */
    unsigned count;
    bool closing; /* the async handle is gone */
};

struct work {
    uv_work_t uv;
    struct loop *loop;
    loop_fn *work;
    struct post *end; /* made beforehand, so that finishing cannot fail */
};

/* Handles are freed by libuv's close callback, through `data`. */
struct loop_watch {
    union {
        uv_poll_t poll;
        uv_idle_t idle; /* for what epoll refuses: files are always ready */
    } uv;
    struct loop *loop;
    loop_watch_fn *fn;
    void *opaque;
    unsigned events;
    bool is_file;
    bool is_closed;
};

struct loop_timer {
    uv_timer_t uv;
    struct loop *loop;
    loop_fn *fn;
    void *opaque;
};

struct loop_signal {
    uv_signal_t uv;
    struct loop *loop;
    loop_fn *fn;
    void *opaque;
};

static void free_handle(uv_handle_t *handle)
{
    free(handle->data);
}

static void call(struct loop *loop, loop_fn *fn, void *opaque)
{
    loop->depth++;
    fn(opaque);
    loop->depth--;
}

static struct post *post_new(loop_fn *fn, void *opaque)
{
    struct post *post = malloc(sizeof(*post));
    assert(post); /* 32 bytes; a lost completion would be worse than an end */
    *post = (struct post){.fn = fn, .opaque = opaque};
    return post;
}

static void post_add(struct loop *loop, struct post *post)
{
    pthread_mutex_lock(&loop->lock);
    *loop->last = post;
    loop->last = &post->next;
    loop->count++;
    pthread_cond_signal(&loop->posted);
    if (!loop->closing)
        uv_async_send(&loop->async);
    pthread_mutex_unlock(&loop->lock);
}

static struct post *post_take_locked(struct loop *loop)
{
    struct post *post = loop->first;
    if (post) {
        loop->count--;
        loop->first = post->next;
        if (!loop->first)
            loop->last = &loop->first;
    }
    return post;
}

static struct post *post_take(struct loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    struct post *post = post_take_locked(loop);
    pthread_mutex_unlock(&loop->lock);
    return post;
}

static void post_run(struct loop *loop, struct post *post)
{
    struct post taken = *post;
    free(post);
    if (taken.ends_work)
        loop->work_unfinished--;
    if (taken.fn)
        call(loop, taken.fn, taken.opaque);
}

/* Runs as many posts as there are now: one that posts itself again does not keep out the rest of
 * the loop. For those that came later the async handle has been sent to again. */
static bool run_posts(struct loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    unsigned count = loop->count;
    pthread_mutex_unlock(&loop->lock);
    bool any = count > 0;
    for (struct post *post; count > 0 && (post = post_take(loop)); count--)
        post_run(loop, post);
    return any;
}

static void async_cb(uv_async_t *async)
{
    run_posts(async->loop->data);
}

static void timeout_cb(uv_timer_t *timer)
{
    (void)timer;
}

struct loop *loop_create(struct error *err)
{
    struct loop *loop = calloc(1, sizeof(*loop));
    if (!loop) {
        error_errno(err, "cannot make an event loop", NULL, ENOMEM);
        return NULL;
    }
    int result = uv_loop_init(&loop->uv);
    if (result == 0) {
        loop->uv.data = loop;
        result = uv_async_init(&loop->uv, &loop->async, async_cb);
        if (result != 0)
            uv_loop_close(&loop->uv);
    }
    if (result != 0) {
        error_set(err, "cannot make an event loop", NULL, "%s", uv_strerror(result));
        free(loop);
        return NULL;
    }
    uv_timer_init(&loop->uv, &loop->timeout);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&loop->lock, NULL);
    pthread_cond_init(&loop->posted, &attributes);
    pthread_condattr_destroy(&attributes);
    loop->last = &loop->first;
    return loop;
}

/* Waits for the work under way and calls its done(), which may still use watches and timers and
 * may start work again. Posts in between are dropped. */
static void finish_work(struct loop *loop)
{
    while (loop->work_unfinished > 0) {
        pthread_mutex_lock(&loop->lock);
        while (!loop->first)
            pthread_cond_wait(&loop->posted, &loop->lock);
        struct post *post = post_take_locked(loop);
        pthread_mutex_unlock(&loop->lock);
        if (post->ends_work)
            post_run(loop, post);
        else
            free(post);
    }
}

static void close_handle(uv_handle_t *handle, void *opaque)
{
    (void)opaque;
    if (!uv_is_closing(handle))
        uv_close(handle, free_handle);
}

void loop_destroy(struct loop *loop)
{
    if (!loop)
        return;
    assert(loop->depth == 0);
    finish_work(loop);
    pthread_mutex_lock(&loop->lock);
    loop->closing = true;
    pthread_mutex_unlock(&loop->lock);
    uv_walk(&loop->uv, close_handle, NULL);
    uv_run(&loop->uv, UV_RUN_DEFAULT);
    int result = uv_loop_close(&loop->uv);
    assert(result == 0);
    (void)result;
    for (struct post *post; (post = post_take(loop));)
        free(post);
    pthread_cond_destroy(&loop->posted);
    pthread_mutex_destroy(&loop->lock);
    free(loop);
}

void loop_run(struct loop *loop)
{
    assert(loop->depth == 0);
    while (!atomic_exchange(&loop->stop, false))
        uv_run(&loop->uv, UV_RUN_ONCE);
}

/* From inside a callback: the queue alone. */
static void run_once_nested(struct loop *loop, unsigned timeout_ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += timeout_ms / 1000;
    until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&loop->lock);
    while (!loop->first && pthread_cond_timedwait(&loop->posted, &loop->lock, &until) != ETIMEDOUT)
        ;
    pthread_mutex_unlock(&loop->lock);
    run_posts(loop);
}

void loop_run_once(struct loop *loop, unsigned timeout_ms)
{
    if (loop->depth > 0) {
        run_once_nested(loop, timeout_ms);
        return;
    }
    if (run_posts(loop) || timeout_ms == 0) {
        uv_run(&loop->uv, UV_RUN_NOWAIT);
        return;
    }
    uv_update_time(&loop->uv);
    uv_timer_start(&loop->timeout, timeout_cb, timeout_ms, 0);
    uv_run(&loop->uv, UV_RUN_ONCE);
    uv_timer_stop(&loop->timeout);
}

void loop_stop(struct loop *loop)
{
    atomic_store(&loop->stop, true);
    pthread_mutex_lock(&loop->lock);
    if (!loop->closing)
        uv_async_send(&loop->async);
    pthread_mutex_unlock(&loop->lock);
}

void loop_post(struct loop *loop, loop_fn *fn, void *opaque)
{
    post_add(loop, post_new(fn, opaque));
}

static void work_cb(uv_work_t *uv)
{
    struct work *work = uv->data;
    work->work(work->end->opaque);
    post_add(work->loop, work->end);
}

static void after_work_cb(uv_work_t *uv, int status)
{
    (void)status; /* nothing cancels work */
    free(uv->data);
}

void loop_work(struct loop *loop, loop_fn *fn, loop_fn *done, void *opaque)
{
    struct work *work = calloc(1, sizeof(*work));
    assert(work);
    work->uv.data = work;
    work->loop = loop;
    work->work = fn;
    work->end = post_new(done, opaque);
    work->end->ends_work = true;
    loop->work_unfinished++;
    int result = uv_queue_work(&loop->uv, &work->uv, work_cb, after_work_cb);
    assert(result == 0); /* fails for a NULL callback only */
    (void)result;
}

static void watch_start(struct loop_watch *watch);

static void watch_fire(struct loop_watch *watch, unsigned events)
{
    watch->loop->depth++;
    watch->fn(watch->opaque, events);
    watch->loop->depth--;
}

static void poll_cb(uv_poll_t *poll, int status, int uv_events)
{
    struct loop_watch *watch = poll->data;
    unsigned events = 0;
    if (uv_events & UV_READABLE)
        events |= LOOP_READABLE;
    if (uv_events & UV_WRITABLE)
        events |= LOOP_WRITABLE;
    /* On an error of the file (a pipe whose reader is gone) libuv stops to watch. As with poll(),
     * the owner is told that it is ready, meets the error when it reads or writes, and is told
     * again until it does. */
    if (status < 0)
        events = watch->events;
    watch_fire(watch, events);
    if (status < 0 && !watch->is_closed)
        watch_start(watch);
}

static void idle_cb(uv_idle_t *idle)
{
    struct loop_watch *watch = idle->data;
    watch_fire(watch, watch->events);
}

static void watch_start(struct loop_watch *watch)
{
    if (watch->is_file) {
        if (watch->events)
            uv_idle_start(&watch->uv.idle, idle_cb);
        else
            uv_idle_stop(&watch->uv.idle);
    } else if (watch->events) {
        int uv_events = (watch->events & LOOP_READABLE ? UV_READABLE : 0) |
                        (watch->events & LOOP_WRITABLE ? UV_WRITABLE : 0);
        uv_poll_start(&watch->uv.poll, uv_events, poll_cb);
    } else {
        uv_poll_stop(&watch->uv.poll);
    }
}

/* libuv makes the file non-blocking, which is the caller's affair (and, of a terminal, that of the
 * shell that shares it): set back. Readiness is level-triggered, so nothing depends on it. */
static int watch_init(struct loop_watch *watch, int fd)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0)
        return -errno;
    int result = uv_poll_init(&watch->loop->uv, &watch->uv.poll, fd);
    if (result == UV_EPERM) {
        watch->is_file = true;
        result = uv_idle_init(&watch->loop->uv, &watch->uv.idle);
    } else {
        fcntl(fd, F_SETFL, flags);
    }
    return result;
}

struct loop_watch *loop_watch_open(struct loop *loop, int fd, loop_watch_fn *fn, void *opaque,
                                   struct error *err)
{
    struct loop_watch *watch = calloc(1, sizeof(*watch));
    if (!watch) {
        error_errno(err, "cannot watch a file", NULL, ENOMEM);
        return NULL;
    }
    watch->loop = loop;
    watch->fn = fn;
    watch->opaque = opaque;
    int result = watch_init(watch, fd);
    if (result != 0) {
        error_set(err, "cannot watch a file", NULL, "%s (descriptor %d)", uv_strerror(result), fd);
        free(watch);
        return NULL;
    }
    watch->uv.poll.data = watch;
    return watch;
}

void loop_watch_set(struct loop_watch *watch, unsigned events)
{
    if (watch->events == events)
        return;
    watch->events = events;
    watch_start(watch);
}

void loop_watch_close(struct loop_watch *watch)
{
    if (!watch)
        return;
    watch->is_closed = true;
    uv_close((uv_handle_t *)&watch->uv, free_handle);
}

static void timer_cb(uv_timer_t *uv)
{
    struct loop_timer *timer = uv->data;
    call(timer->loop, timer->fn, timer->opaque);
}

struct loop_timer *loop_timer_open(struct loop *loop, loop_fn *fn, void *opaque)
{
    struct loop_timer *timer = calloc(1, sizeof(*timer));
    if (!timer)
        return NULL;
    uv_timer_init(&loop->uv, &timer->uv);
    timer->uv.data = timer;
    timer->loop = loop;
    timer->fn = fn;
    timer->opaque = opaque;
    return timer;
}

void loop_timer_start(struct loop_timer *timer, uint64_t delay_ms)
{
    /* libuv counts from when the loop last looked at the clock, which may be long ago. */
    uv_update_time(&timer->loop->uv);
    uv_timer_start(&timer->uv, timer_cb, delay_ms, 0);
}

void loop_timer_stop(struct loop_timer *timer)
{
    uv_timer_stop(&timer->uv);
}

void loop_timer_close(struct loop_timer *timer)
{
    if (timer)
        uv_close((uv_handle_t *)&timer->uv, free_handle);
}

static void signal_cb(uv_signal_t *uv, int number)
{
    struct loop_signal *signal = uv->data;
    (void)number;
    call(signal->loop, signal->fn, signal->opaque);
}

struct loop_signal *loop_signal_open(struct loop *loop, int number, loop_fn *fn, void *opaque,
                                     struct error *err)
{
    struct loop_signal *signal = calloc(1, sizeof(*signal));
    if (!signal) {
        error_errno(err, "cannot watch a signal", NULL, ENOMEM);
        return NULL;
    }
    uv_signal_init(&loop->uv, &signal->uv);
    signal->uv.data = signal;
    signal->loop = loop;
    signal->fn = fn;
    signal->opaque = opaque;
    int result = uv_signal_start(&signal->uv, signal_cb, number);
    if (result != 0) {
        error_set(err, "cannot watch a signal", NULL, "%s (signal %d)", uv_strerror(result),
                  number);
        uv_close((uv_handle_t *)&signal->uv, free_handle);
        return NULL;
    }
    return signal;
}

void loop_signal_close(struct loop_signal *signal)
{
    if (signal)
        uv_close((uv_handle_t *)&signal->uv, free_handle);
}
