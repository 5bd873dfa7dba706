/* SPDX-License-Identifier: BSD-2-Clause
 * The event loop: posts, work, timers, watches, signals, and what destroying it closes. */
#include "base/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { THREADS = 4, POSTS = 2000 };

static int setup(void **state)
{
    *state = loop_create(NULL);
    return *state ? 0 : -1;
}

static int teardown(void **state)
{
    loop_destroy(*state);
    return 0;
}

struct poster;
struct item {
    struct poster *poster;
    unsigned number;
};

struct poster {
    struct loop *loop;
    unsigned *total; /* of all posters */
    unsigned next;
    bool in_order;
    struct item items[POSTS];
};

static void item_arrives(void *opaque)
{
    struct item *item = opaque;
    struct poster *poster = item->poster;
    if (item->number != poster->next++)
        poster->in_order = false;
    if (++*poster->total == THREADS * POSTS)
        loop_stop(poster->loop);
}

static void *poster_main(void *opaque)
{
    struct poster *poster = opaque;
    for (unsigned i = 0; i < POSTS; i++) {
        poster->items[i] = (struct item){poster, i};
        loop_post(poster->loop, item_arrives, &poster->items[i]);
    }
    return NULL;
}

static void test_posts_from_threads_in_order(void **state)
{
    static struct poster posters[THREADS];
    pthread_t threads[THREADS];
    unsigned total = 0;
    for (unsigned i = 0; i < THREADS; i++) {
        posters[i].loop = *state;
        posters[i].total = &total;
        posters[i].in_order = true;
        assert_int_equal(pthread_create(&threads[i], NULL, poster_main, &posters[i]), 0);
    }
    loop_run(*state);
    assert_int_equal(total, THREADS * POSTS);
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        assert_true(posters[i].in_order);
        assert_int_equal(posters[i].next, POSTS);
    }
}

static void count(void *opaque)
{
    ++*(unsigned *)opaque;
}

static void stop(void *opaque)
{
    loop_stop(opaque);
}

static void test_run_again(void **state)
{
    unsigned calls = 0;
    for (unsigned i = 0; i < 3; i++) {
        loop_post(*state, count, &calls);
        loop_post(*state, stop, *state);
        loop_run(*state);
        assert_int_equal(calls, i + 1);
    }
    loop_stop(*state); /* before the run: it returns at once */
    loop_run(*state);
}

static void test_run_once_without_events_returns(void **state)
{
    unsigned calls = 0;
    loop_run_once(*state, 0);
    loop_run_once(*state, 1);
    loop_post(*state, count, &calls);
    loop_run_once(*state, 0);
    assert_int_equal(calls, 1);
}

struct again {
    struct loop *loop;
    unsigned calls;
};

static void post_again(void *opaque)
{
    struct again *again = opaque;
    again->calls++;
    loop_post(again->loop, post_again, again);
}

static void test_endless_posts_leave_room_for_timers(void **state)
{
    struct again again = {.loop = *state};
    struct loop_timer *timer = loop_timer_open(*state, stop, *state);
    loop_timer_start(timer, 5);
    loop_post(*state, post_again, &again);
    loop_run(*state);
    assert_true(again.calls > 0);
    loop_timer_close(timer);
}

struct job {
    struct loop *loop;
    pthread_t loop_thread;
    atomic_bool worked;
    bool worked_elsewhere;
    bool done_here;
    bool done_after_work;
};

static void job_work(void *opaque)
{
    struct job *job = opaque;
    job->worked_elsewhere = !pthread_equal(pthread_self(), job->loop_thread);
    atomic_store(&job->worked, true);
}

static void job_done(void *opaque)
{
    struct job *job = opaque;
    job->done_here = pthread_equal(pthread_self(), job->loop_thread);
    job->done_after_work = atomic_load(&job->worked);
    loop_stop(job->loop);
}

static void test_work(void **state)
{
    struct job job = {.loop = *state, .loop_thread = pthread_self()};
    loop_work(*state, job_work, job_done, &job);
    loop_run(*state);
    assert_true(job.worked_elsewhere);
    assert_true(job.done_here);
    assert_true(job.done_after_work);
}

static void test_work_without_done(void **state)
{
    struct job job = {.loop = *state, .loop_thread = pthread_self()};
    loop_work(*state, job_work, NULL, &job);
    while (!atomic_load(&job.worked))
        loop_run_once(*state, 10);
}

struct drain {
    struct loop *loop;
    unsigned under_way;
    bool drained;
};

static void drain_work(void *opaque)
{
    usleep(1000);
}

static void drain_done(void *opaque)
{
    ((struct drain *)opaque)->under_way--;
}

static void drain_from_callback(void *opaque)
{
    struct drain *drain = opaque;
    for (unsigned i = 0; i < 10; i++) {
        drain->under_way++;
        loop_work(drain->loop, drain_work, drain_done, drain);
    }
    while (drain->under_way)
        loop_run_once(drain->loop, 100);
    drain->drained = true;
    loop_stop(drain->loop);
}

static void test_drain_from_inside_a_callback(void **state)
{
    struct drain drain = {.loop = *state};
    loop_post(*state, drain_from_callback, &drain);
    loop_run(*state);
    assert_true(drain.drained);

    drain.drained = false;
    struct loop_timer *timer = loop_timer_open(*state, drain_from_callback, &drain);
    loop_timer_start(timer, 0);
    loop_run(*state);
    assert_true(drain.drained);
    loop_timer_close(timer);
}

struct order {
    struct loop *loop;
    char seen[8];
    struct loop_timer *stopped;
};

static void seen_a(void *opaque)
{
    strcat(((struct order *)opaque)->seen, "a");
}

static void seen_b(void *opaque)
{
    struct order *order = opaque;
    strcat(order->seen, "b");
    loop_timer_stop(order->stopped);
}

static void seen_c(void *opaque)
{
    strcat(((struct order *)opaque)->seen, "c");
}

static void seen_end(void *opaque)
{
    loop_stop(((struct order *)opaque)->loop);
}

static void test_timers(void **state)
{
    struct order order = {.loop = *state};
    struct loop_timer *a = loop_timer_open(*state, seen_a, &order);
    struct loop_timer *b = loop_timer_open(*state, seen_b, &order);
    struct loop_timer *end = loop_timer_open(*state, seen_end, &order);
    order.stopped = loop_timer_open(*state, seen_c, &order);
    loop_timer_start(end, 40);
    loop_timer_start(order.stopped, 1000000);
    loop_timer_start(b, 20);
    loop_timer_start(a, 1000000);
    loop_timer_start(a, 1); /* moves it */
    loop_run(*state);
    assert_string_equal(order.seen, "ab");
    loop_timer_close(a);
    loop_timer_close(b);
    loop_timer_close(order.stopped);
    loop_timer_close(end);
    loop_timer_close(NULL);
}

struct reader {
    struct loop *loop;
    struct loop_watch *watch;
    int fd;
    unsigned events; /* all that were seen */
    unsigned calls;
    char bytes[16];
    size_t size_bytes;
    ssize_t last_result;
};

static void reader_ready(void *opaque, unsigned events)
{
    struct reader *reader = opaque;
    reader->events |= events;
    reader->calls++;
    reader->last_result = read(reader->fd, reader->bytes, sizeof(reader->bytes));
    if (reader->last_result > 0)
        reader->size_bytes += (size_t)reader->last_result;
    loop_stop(reader->loop);
}

static void test_watch_readable(void **state)
{
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    struct reader reader = {.loop = *state, .fd = fds[0]};
    reader.watch = loop_watch_open(*state, fds[0], reader_ready, &reader, NULL);
    assert_non_null(reader.watch);
    assert_int_equal(fcntl(fds[0], F_GETFL) & O_NONBLOCK, 0); /* the descriptor is as it was */

    assert_int_equal(write(fds[1], "abc", 3), 3);
    loop_run_once(*state, 1);
    assert_int_equal(reader.calls, 0); /* no events are asked for yet */
    loop_watch_set(reader.watch, LOOP_READABLE);
    loop_run(*state);
    assert_int_equal(reader.events, LOOP_READABLE);
    assert_memory_equal(reader.bytes, "abc", 3);

    loop_watch_set(reader.watch, 0);
    assert_int_equal(write(fds[1], "d", 1), 1);
    loop_run_once(*state, 1);
    assert_int_equal(reader.calls, 1);

    loop_watch_set(reader.watch, LOOP_READABLE);
    loop_run(*state);
    assert_int_equal(reader.size_bytes, 4);
    close(fds[1]);
    loop_run(*state); /* the end of the file is readable */
    assert_int_equal(reader.last_result, 0);
    loop_watch_close(reader.watch);
    close(fds[0]);
}

struct writer {
    struct loop *loop;
    struct loop_watch *watch;
    int fd;
    unsigned calls;
    int last_errno;
};

static void writer_ready(void *opaque, unsigned events)
{
    struct writer *writer = opaque;
    writer->calls++;
    writer->last_errno = write(writer->fd, "x", 1) == 1 ? 0 : errno;
    /* Lets the first error pass: it must be told again. */
    if (writer->calls == 3) {
        loop_watch_close(writer->watch);
        loop_stop(writer->loop);
    }
}

static void test_watch_error_is_told_until_closed(void **state)
{
    int fds[2];
    signal(SIGPIPE, SIG_IGN);
    assert_int_equal(pipe(fds), 0);
    close(fds[0]);
    struct writer writer = {.loop = *state, .fd = fds[1]};
    writer.watch = loop_watch_open(*state, fds[1], writer_ready, &writer, NULL);
    loop_watch_set(writer.watch, LOOP_WRITABLE);
    loop_run(*state);
    assert_int_equal(writer.calls, 3);
    assert_int_equal(writer.last_errno, EPIPE);
    close(fds[1]);
}

static void test_watch_file_is_always_ready(void **state)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    struct reader reader = {.loop = *state, .fd = fd, .last_result = -1};
    reader.watch = loop_watch_open(*state, fd, reader_ready, &reader, NULL);
    assert_non_null(reader.watch);
    loop_run_once(*state, 1);
    assert_int_equal(reader.calls, 0);
    loop_watch_set(reader.watch, LOOP_READABLE);
    loop_run(*state);
    assert_int_equal(reader.events, LOOP_READABLE);
    assert_int_equal(reader.last_result, 0);
    loop_watch_set(reader.watch, 0);
    unsigned before = reader.calls;
    loop_run_once(*state, 1);
    assert_int_equal(reader.calls, before);
    loop_watch_close(reader.watch);
    close(fd);
}

static void test_watch_bad_descriptor(void **state)
{
    struct error err = {0};
    assert_null(loop_watch_open(*state, -1, reader_ready, NULL, &err));
    assert_int_equal(err.kind, ERROR_FAILED);
    assert_non_null(strstr(err.cause, "bad file descriptor"));
}

static void test_signal(void **state)
{
    unsigned calls = 0;
    struct loop_signal *counted = loop_signal_open(*state, SIGUSR1, count, &calls, NULL);
    struct loop_signal *stopping = loop_signal_open(*state, SIGUSR2, stop, *state, NULL);
    assert_non_null(counted);
    assert_non_null(stopping);
    for (unsigned i = 1; i <= 2; i++) {
        assert_int_equal(kill(getpid(), SIGUSR1), 0);
        while (calls < i)
            loop_run_once(*state, 100);
    }
    assert_int_equal(kill(getpid(), SIGUSR2), 0);
    loop_run(*state);
    assert_int_equal(calls, 2);
    loop_signal_close(counted);
    loop_signal_close(stopping);

    struct error err = {0};
    assert_null(loop_signal_open(*state, SIGKILL, count, &calls, &err));
    assert_int_equal(err.kind, ERROR_FAILED);
}

struct late {
    struct loop_watch *watch;
    struct loop_timer *timer;
    bool done;
};

static void late_work(void *opaque)
{
    usleep(20000);
}

static void late_done(void *opaque)
{
    struct late *late = opaque;
    loop_watch_close(late->watch); /* a done() may still close what it owns */
    loop_timer_close(late->timer);
    late->done = true;
}

static void ignore_events(void *opaque, unsigned events) {}

static void test_destroy_with_all_open(void **state)
{
    int fds[2];
    int null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    unsigned calls = 0;
    assert_int_equal(pipe(fds), 0);
    struct loop *loop = loop_create(NULL);
    struct late late = {
        .watch = loop_watch_open(loop, fds[0], ignore_events, NULL, NULL),
        .timer = loop_timer_open(loop, count, &calls),
    };
    loop_watch_set(loop_watch_open(loop, fds[1], ignore_events, NULL, NULL), LOOP_WRITABLE);
    loop_watch_set(loop_watch_open(loop, null_fd, ignore_events, NULL, NULL), LOOP_READABLE);
    loop_timer_start(loop_timer_open(loop, count, &calls), 0);
    loop_signal_open(loop, SIGUSR1, count, &calls, NULL);
    loop_work(loop, late_work, late_done, &late);
    loop_post(loop, count, &calls);
    loop_destroy(loop);
    assert_true(late.done);
    assert_int_equal(calls, 0); /* posts and timers are dropped */
    close(fds[0]);
    close(fds[1]);
    close(null_fd);
}

#define loop_test(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        loop_test(test_posts_from_threads_in_order),
        loop_test(test_run_again),
        loop_test(test_run_once_without_events_returns),
        loop_test(test_endless_posts_leave_room_for_timers),
        loop_test(test_work),
        loop_test(test_work_without_done),
        loop_test(test_drain_from_inside_a_callback),
        loop_test(test_timers),
        loop_test(test_watch_readable),
        loop_test(test_watch_error_is_told_until_closed),
        loop_test(test_watch_file_is_always_ready),
        loop_test(test_watch_bad_descriptor),
        loop_test(test_signal),
        cmocka_unit_test(test_destroy_with_all_open),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
