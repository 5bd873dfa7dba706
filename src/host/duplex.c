/* SPDX-License-Identifier: BSD-2-Clause
 * Bytes both ways over descriptors; see duplex.h. All but duplex_write() and duplex_accept() is on
 * the loop's thread; the lock guards the output buffer only, and no callback runs with it held. */
#include "host/duplex.h"

#include "base/wake.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { INPUT_BYTES = 4096, FLUSH_PATIENCE_MS = 1000 };

struct duplex {
    struct loop *loop;
    struct duplex_owner owner;
    struct char_handler handler;
    struct wake *wake;
    int in_fd, out_fd;
    struct loop_watch *in_watch, *out_watch; /* the same one when the descriptors are */
    bool in_ended;

    uint8_t input[INPUT_BYTES];
    size_t input_start, input_end;
    atomic_bool accepting; /* the device may have room for what is in `input` */

    pthread_mutex_t lock;
    uint8_t *output; /* a ring of DUPLEX_BUFFER_BYTES */
    size_t output_start, output_bytes;
    bool is_attached, is_starved; /* someone was told that there is no room */
};

/* ---- watches ---- */

static bool input_wanted(const struct duplex *duplex)
{
    return duplex->in_fd >= 0 && !duplex->in_ended &&
           (duplex->owner.reads_always || duplex->input_start == duplex->input_end);
}

static void update_watches(struct duplex *duplex)
{
    bool reads = input_wanted(duplex);
    pthread_mutex_lock(&duplex->lock);
    bool writes = duplex->out_fd >= 0 && duplex->output_bytes > 0;
    pthread_mutex_unlock(&duplex->lock);
    unsigned in_events = reads ? LOOP_READABLE : 0, out_events = writes ? LOOP_WRITABLE : 0;
    if (duplex->in_watch && duplex->in_watch == duplex->out_watch) {
        loop_watch_set(duplex->in_watch, in_events | out_events);
        return;
    }
    if (duplex->in_watch)
        loop_watch_set(duplex->in_watch, in_events);
    if (duplex->out_watch)
        loop_watch_set(duplex->out_watch, out_events);
}

/* ---- output ---- */

static ssize_t write_some(int fd, const uint8_t *bytes, size_t size_bytes)
{
    ssize_t n;
    do {
        n = send(fd, bytes, size_bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == ENOTSOCK)
            n = write(fd, bytes, size_bytes);
    } while (n < 0 && errno == EINTR);
    return n;
}

/* Sends from the ring until it is empty or the descriptor takes no more; false when that failed. */
static bool send_output(struct duplex *duplex)
{
    bool works = true;
    pthread_mutex_lock(&duplex->lock);
    while (duplex->output_bytes > 0 && duplex->out_fd >= 0) {
        size_t run = DUPLEX_BUFFER_BYTES - duplex->output_start;
        if (run > duplex->output_bytes)
            run = duplex->output_bytes;
        ssize_t n = write_some(duplex->out_fd, duplex->output + duplex->output_start, run);
        if (n < 0) {
            works = errno == EAGAIN || errno == EWOULDBLOCK;
            break;
        }
        duplex->output_start = (duplex->output_start + (size_t)n) % DUPLEX_BUFFER_BYTES;
        duplex->output_bytes -= (size_t)n;
    }
    pthread_mutex_unlock(&duplex->lock);
    return works;
}

/* From now on output is dropped. */
static void drop_output(struct duplex *duplex)
{
    if (duplex->out_watch != duplex->in_watch)
        loop_watch_close(duplex->out_watch);
    duplex->out_watch = NULL;
    pthread_mutex_lock(&duplex->lock);
    duplex->out_fd = -1;
    duplex->is_attached = false;
    duplex->output_start = duplex->output_bytes = 0;
    pthread_mutex_unlock(&duplex->lock);
}

static void tell_writable(struct duplex *duplex)
{
    pthread_mutex_lock(&duplex->lock);
    bool tell = duplex->is_starved && duplex->output_bytes <= DUPLEX_BUFFER_BYTES / 2;
    if (tell)
        duplex->is_starved = false;
    pthread_mutex_unlock(&duplex->lock);
    if (tell && duplex->handler.writable)
        duplex->handler.writable(duplex->handler.opaque);
}

static void work_output(struct duplex *duplex)
{
    if (!send_output(duplex)) {
        drop_output(duplex);
        if (duplex->owner.ended)
            duplex->owner.ended(duplex->owner.opaque, false);
    }
    tell_writable(duplex);
}

size_t duplex_write(struct duplex *duplex, const uint8_t *bytes, size_t size_bytes)
{
    pthread_mutex_lock(&duplex->lock);
    if (!duplex->is_attached) {
        pthread_mutex_unlock(&duplex->lock);
        return size_bytes;
    }
    bool was_empty = duplex->output_bytes == 0;
    size_t room = DUPLEX_BUFFER_BYTES - duplex->output_bytes;
    size_t taken = size_bytes < room ? size_bytes : room;
    size_t end = (duplex->output_start + duplex->output_bytes) % DUPLEX_BUFFER_BYTES;
    size_t first = DUPLEX_BUFFER_BYTES - end < taken ? DUPLEX_BUFFER_BYTES - end : taken;
    memcpy(duplex->output + end, bytes, first);
    memcpy(duplex->output, bytes + first, taken - first);
    duplex->output_bytes += taken;
    if (taken < size_bytes)
        duplex->is_starved = true;
    pthread_mutex_unlock(&duplex->lock);
    if (was_empty && taken > 0)
        wake_ring(duplex->wake);
    return taken;
}

/* ---- input ---- */

/* Offers what has been read to the device; true when nothing of it is left. */
static bool deliver(struct duplex *duplex)
{
    while (duplex->input_start < duplex->input_end) {
        if (!duplex->handler.receive)
            return false; /* until there is a handler */
        atomic_store(&duplex->accepting, false);
        size_t size_bytes = duplex->input_end - duplex->input_start;
        size_t taken = duplex->handler.receive(duplex->handler.opaque,
                                               duplex->input + duplex->input_start, size_bytes);
        assert(taken <= size_bytes);
        duplex->input_start += taken;
        if (taken < size_bytes && !atomic_load(&duplex->accepting))
            return false;
    }
    return true;
}

static void end_input(struct duplex *duplex)
{
    duplex->in_ended = true;
    if (duplex->owner.ended)
        duplex->owner.ended(duplex->owner.opaque, true);
}

static void read_input(struct duplex *duplex)
{
    uint8_t bytes[INPUT_BYTES];
    ssize_t n;
    do {
        n = read(duplex->in_fd, bytes, sizeof(bytes));
    } while (n < 0 && errno == EINTR);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return;
    if (n <= 0) {
        end_input(duplex);
        return;
    }
    size_t got = (size_t)n;
    if (duplex->owner.filter)
        got = duplex->owner.filter(duplex->owner.opaque, bytes, got);
    size_t held = duplex->input_end - duplex->input_start;
    memmove(duplex->input, duplex->input + duplex->input_start, held);
    if (got > INPUT_BYTES - held)
        got = INPUT_BYTES - held;
    memcpy(duplex->input + held, bytes, got);
    duplex->input_start = 0;
    duplex->input_end = held + got;
    (void)deliver(duplex);
}

/* ---- what the loop calls ---- */

static void on_input(void *opaque, unsigned events)
{
    struct duplex *duplex = opaque;
    if (input_wanted(duplex) && events)
        read_input(duplex);
    update_watches(duplex);
}

static void on_output(void *opaque, unsigned events)
{
    struct duplex *duplex = opaque;
    work_output(duplex);
    update_watches(duplex);
}

static void on_both(void *opaque, unsigned events)
{
    struct duplex *duplex = opaque;
    if (events & LOOP_WRITABLE)
        work_output(duplex);
    if (input_wanted(duplex) && events & LOOP_READABLE)
        read_input(duplex);
    update_watches(duplex);
}

/* Output was added, or the device has room again. */
static void on_wake(void *opaque)
{
    struct duplex *duplex = opaque;
    work_output(duplex);
    if (atomic_load(&duplex->accepting))
        (void)deliver(duplex);
    update_watches(duplex);
}

void duplex_accept(struct duplex *duplex)
{
    if (!atomic_exchange(&duplex->accepting, true))
        wake_ring(duplex->wake);
}

void duplex_set_handler(struct duplex *duplex, const struct char_handler *handler)
{
    duplex->handler = handler ? *handler : (struct char_handler){0};
    atomic_store(&duplex->accepting, true);
    wake_ring(duplex->wake);
}

void duplex_tell_connected(struct duplex *duplex, bool is_connected)
{
    if (duplex->handler.connected)
        duplex->handler.connected(duplex->handler.opaque, is_connected);
}

/* ---- life ---- */

bool duplex_attach(struct duplex *duplex, int in_fd, int out_fd, struct error *err)
{
    assert(duplex->in_fd < 0 && duplex->out_fd < 0);
    bool is_one = in_fd == out_fd;
    if (in_fd >= 0) {
        duplex->in_watch =
            loop_watch_open(duplex->loop, in_fd, is_one ? on_both : on_input, duplex, err);
        if (!duplex->in_watch)
            return false;
    }
    duplex->out_watch = duplex->in_watch;
    if (out_fd >= 0 && !is_one) {
        duplex->out_watch = loop_watch_open(duplex->loop, out_fd, on_output, duplex, err);
        if (!duplex->out_watch) {
            loop_watch_close(duplex->in_watch);
            duplex->in_watch = NULL;
            return false;
        }
    }
    duplex->in_fd = in_fd;
    duplex->in_ended = false;
    pthread_mutex_lock(&duplex->lock);
    duplex->out_fd = out_fd;
    duplex->is_attached = out_fd >= 0;
    duplex->output_start = duplex->output_bytes = 0;
    pthread_mutex_unlock(&duplex->lock);
    update_watches(duplex);
    return true;
}

void duplex_detach(struct duplex *duplex)
{
    drop_output(duplex);
    loop_watch_close(duplex->in_watch);
    duplex->in_watch = NULL;
    duplex->in_fd = -1;
    duplex->input_start = duplex->input_end = 0;
    tell_writable(duplex);
}

void duplex_flush(struct duplex *duplex)
{
    for (;;) {
        bool works = send_output(duplex);
        pthread_mutex_lock(&duplex->lock);
        size_t left = duplex->output_bytes;
        pthread_mutex_unlock(&duplex->lock);
        struct pollfd pollfd = {.fd = duplex->out_fd, .events = POLLOUT};
        if (!works || left == 0 || duplex->out_fd < 0 || poll(&pollfd, 1, FLUSH_PATIENCE_MS) <= 0 ||
            !(pollfd.revents & POLLOUT))
            return;
    }
}

void duplex_destroy(struct duplex *duplex)
{
    duplex->handler = (struct char_handler){0};
    duplex_flush(duplex);
    duplex_detach(duplex);
    wake_close(duplex->wake);
    pthread_mutex_destroy(&duplex->lock);
    free(duplex->output);
    free(duplex);
}

struct duplex *duplex_create(struct loop *loop, const struct duplex_owner *owner, struct error *err)
{
    struct duplex *duplex = calloc(1, sizeof(*duplex));
    uint8_t *output = malloc(DUPLEX_BUFFER_BYTES);
    if (!duplex || !output) {
        free(duplex);
        free(output);
        error_errno(err, "cannot open a character back end", NULL, ENOMEM);
        return NULL;
    }
    duplex->loop = loop;
    duplex->owner = *owner;
    duplex->in_fd = duplex->out_fd = -1;
    duplex->output = output;
    pthread_mutex_init(&duplex->lock, NULL);
    duplex->wake = wake_open(loop, on_wake, duplex, err);
    if (!duplex->wake) {
        pthread_mutex_destroy(&duplex->lock);
        free(output);
        free(duplex);
        return NULL;
    }
    return duplex;
}
