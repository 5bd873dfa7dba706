/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Debug console at port 0xe9 (Bochs' "port e9 hack"): bytes written go to a character back end, a
 * read gives 0xe9, by which a guest knows that it is there. It has no flow control: what the back
 * end does not take waits in a queue, and when that is full bytes are lost, with a log line.
 *
 * vCPU threads use the port, the loop's thread empties the queue; one lock, held while the back
 * end's write() is called.
 */
#include "dev/debugcon.h"

#include "dev/ports.h"

#include <pthread.h>
#include <stdlib.h>

enum { QUEUE_BYTES = 65536, PRESENT = 0xe9 };

struct debugcon {
    pthread_mutex_t lock;
    struct debugcon_config config;
    struct bus *bus;
    struct log_limit log_limit;
    uint32_t head, count; /* queue as a ring */
    uint8_t queue[QUEUE_BYTES];
};

static void debugcon_flush(struct debugcon *con)
{
    const struct char_backend *backend = con->config.backend;
    while (con->count) {
        size_t run = QUEUE_BYTES - con->head;
        if (run > con->count)
            run = con->count;
        size_t taken = backend->write(backend->opaque, con->queue + con->head, run);
        if (taken > run)
            taken = run;
        con->head = (uint32_t)(con->head + taken) % QUEUE_BYTES;
        con->count -= (uint32_t)taken;
        if (taken < run)
            break;
    }
}

static uint8_t debugcon_read_byte(void *opaque, unsigned offset)
{
    return PRESENT;
}

static void debugcon_write_byte(void *opaque, unsigned offset, uint8_t value)
{
    struct debugcon *con = opaque;
    if (!con->config.backend)
        return;
    pthread_mutex_lock(&con->lock);
    bool was_stuck = con->count > 0;
    if (con->count < QUEUE_BYTES)
        con->queue[(con->head + con->count++) % QUEUE_BYTES] = value;
    else
        log_limited(con->config.log, &con->log_limit, LOG_WARNING, "debugcon",
                    "the back end is too slow; output is lost");
    if (!was_stuck)
        debugcon_flush(con);
    pthread_mutex_unlock(&con->lock);
}

static uint64_t debugcon_read(void *con, uint64_t offset, unsigned size_bytes)
{
    return ports_read(debugcon_read_byte, con, 1, offset, size_bytes);
}

static void debugcon_write(void *con, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    ports_write(debugcon_write_byte, con, 1, offset, value, size_bytes);
}

static size_t debugcon_on_receive(void *opaque, const uint8_t *bytes, size_t size_bytes)
{
    return size_bytes; /* output only: input is dropped */
}

static void debugcon_on_writable(void *opaque)
{
    struct debugcon *con = opaque;
    pthread_mutex_lock(&con->lock);
    debugcon_flush(con);
    pthread_mutex_unlock(&con->lock);
}

static void debugcon_on_connected(void *opaque, bool is_connected)
{
    debugcon_on_writable(opaque); /* with no peer the back end takes all */
}

static void debugcon_on_break(void *opaque)
{
    (void)opaque;
}

static void debugcon_set_handler(struct debugcon *con, bool on)
{
    struct char_handler handler = {0};
    if (on)
        handler = (struct char_handler){.receive = debugcon_on_receive,
                                        .writable = debugcon_on_writable,
                                        .connected = debugcon_on_connected,
                                        .send_break = debugcon_on_break,
                                        .opaque = con};
    if (con->config.backend)
        con->config.backend->set_handler(con->config.backend->opaque, &handler);
}

struct debugcon *debugcon_create(const struct debugcon_config *config, struct bus *bus,
                                 struct error *err)
{
    struct debugcon *con = calloc(1, sizeof(*con));
    if (!con) {
        error_set(err, "cannot create device", "debugcon", "out of memory");
        return NULL;
    }
    con->config = *config;
    con->bus = bus;
    pthread_mutex_init(&con->lock, NULL);
    struct bus_range range = {"debugcon",    BUS_PORT,       config->base, 1,
                              debugcon_read, debugcon_write, con};
    if (!bus_map(bus, &range, err)) {
        pthread_mutex_destroy(&con->lock);
        free(con);
        return NULL;
    }
    debugcon_set_handler(con, true);
    return con;
}

/* What was written before a reset still goes out, and is no part of a saved machine. */
static void debugcon_reset(void *device)
{
    (void)device;
}

static void debugcon_save(void *device, struct save *save)
{
    (void)device;
}

static bool debugcon_load(void *device, struct load *load, uint32_t version)
{
    return version == debugcon_ops.version && !load->failed;
}

static void debugcon_destroy(void *device)
{
    struct debugcon *con = device;
    debugcon_set_handler(con, false);
    bus_unmap(con->bus, BUS_PORT, con->config.base);
    pthread_mutex_destroy(&con->lock);
    free(con);
}

const struct device_ops debugcon_ops = {
    .name = "debugcon",
    .version = 1,
    .reset = debugcon_reset,
    .save = debugcon_save,
    .load = debugcon_load,
    .destroy = debugcon_destroy,
};
