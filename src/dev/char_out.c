/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Output without flow control. vCPU threads put bytes, the loop's thread empties the queue; one
 * lock, held while the back end's write() is called.
 */
#include "dev/char_out.h"

#include <pthread.h>
#include <stdlib.h>

enum { QUEUE_BYTES = 65536 };

struct char_out {
    pthread_mutex_t lock;
    const char *name;
    const struct char_backend *backend;
    const struct log *log;
    struct log_limit log_limit;
    uint32_t head, count; /* queue as a ring */
    uint8_t queue[QUEUE_BYTES];
};

static void flush(struct char_out *out)
{
    const struct char_backend *backend = out->backend;
    while (out->count) {
        size_t run = QUEUE_BYTES - out->head;
        if (run > out->count)
            run = out->count;
        size_t taken = backend->write(backend->opaque, out->queue + out->head, run);
        if (taken > run)
            taken = run;
        out->head = (uint32_t)(out->head + taken) % QUEUE_BYTES;
        out->count -= (uint32_t)taken;
        if (taken < run)
            break;
    }
}

void char_out_put(struct char_out *out, uint8_t byte)
{
    if (!out->backend)
        return;
    pthread_mutex_lock(&out->lock);
    bool was_stuck = out->count > 0;
    if (out->count < QUEUE_BYTES)
        out->queue[(out->head + out->count++) % QUEUE_BYTES] = byte;
    else
        log_limited(out->log, &out->log_limit, LOG_WARNING, out->name,
                    "the back end is too slow; output is lost");
    if (!was_stuck)
        flush(out);
    pthread_mutex_unlock(&out->lock);
}

static size_t on_receive(void *opaque, const uint8_t *bytes, size_t size_bytes)
{
    return size_bytes; /* output only: input is dropped */
}

static void on_writable(void *opaque)
{
    struct char_out *out = opaque;
    pthread_mutex_lock(&out->lock);
    flush(out);
    pthread_mutex_unlock(&out->lock);
}

static void on_connected(void *opaque, bool is_connected)
{
    on_writable(opaque); /* with no peer the back end takes all */
}

static void on_break(void *opaque)
{
    (void)opaque;
}

struct char_out *char_out_open(const char *name, const struct char_backend *backend,
                               const struct log *log, struct error *err)
{
    struct char_out *out = calloc(1, sizeof(*out));
    if (!out) {
        error_set(err, "cannot create device", name, "out of memory");
        return NULL;
    }
    out->name = name;
    out->backend = backend;
    out->log = log;
    pthread_mutex_init(&out->lock, NULL);
    const struct char_handler handler = {.receive = on_receive,
                                         .writable = on_writable,
                                         .connected = on_connected,
                                         .send_break = on_break,
                                         .opaque = out};
    if (backend)
        backend->set_handler(backend->opaque, &handler);
    return out;
}

void char_out_close(struct char_out *out)
{
    if (!out)
        return;
    const struct char_handler none = {0};
    if (out->backend)
        out->backend->set_handler(out->backend->opaque, &none);
    pthread_mutex_destroy(&out->lock);
    free(out);
}
