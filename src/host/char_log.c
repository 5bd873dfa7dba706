/* SPDX-License-Identifier: BSD-2-Clause
 * A file of what a character back end was given; see char_log.h. */
#include "host/char_log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

struct char_log {
    struct char_backend inner;
    int fd;
};

static size_t log_write_bytes(void *opaque, const uint8_t *bytes, size_t size_bytes)
{
    struct char_log *log = opaque;
    size_t taken = log->inner.write(log->inner.opaque, bytes, size_bytes);
    if (taken) {
        ssize_t written = write(log->fd, bytes, taken);
        (void)written;
    }
    return taken;
}

static void log_accept(void *opaque)
{
    struct char_log *log = opaque;
    log->inner.accept(log->inner.opaque);
}

static void log_set_handler(void *opaque, const struct char_handler *handler)
{
    struct char_log *log = opaque;
    log->inner.set_handler(log->inner.opaque, handler);
}

static bool log_is_connected(void *opaque)
{
    struct char_log *log = opaque;
    return log->inner.is_connected(log->inner.opaque);
}

static void log_close(void *opaque)
{
    struct char_log *log = opaque;
    log->inner.close(log->inner.opaque);
    close(log->fd);
    free(log);
}

bool char_log_open(struct char_backend *backend, const char *path, struct error *err)
{
    static const char attempt[] = "cannot keep a serial port's output";
    struct char_log *log = calloc(1, sizeof(*log));
    if (!log)
        return error_errno(err, attempt, path, ENOMEM);
    /* Not blocking: a pipe that nobody reads must not stop the guest. */
    log->fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0666);
    if (log->fd < 0) {
        int error = errno;
        free(log);
        return error_errno(err, attempt, path, error);
    }
    log->inner = *backend;
    *backend = (struct char_backend){
        .write = log_write_bytes,
        .accept = log_accept,
        .set_handler = log_set_handler,
        .is_connected = log_is_connected,
        .close = log_close,
        .opaque = log,
    };
    return true;
}
