/* SPDX-License-Identifier: BSD-2-Clause
 * A bell for the loop: an eventfd that is watched. Rung from any thread, heard on the loop's. */
#include "base/wake.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct wake {
    int fd;
    atomic_bool rung;
    struct loop_watch *watch;
    loop_fn *fn;
    void *opaque;
};

static void hear(void *opaque, unsigned events)
{
    struct wake *wake = opaque;
    uint64_t count;
    if (read(wake->fd, &count, sizeof(count)) != (ssize_t)sizeof(count))
        return;
    /* Before the callback, so that a ring during it is heard again. */
    atomic_store(&wake->rung, false);
    wake->fn(wake->opaque);
}

struct wake *wake_open(struct loop *loop, loop_fn *fn, void *opaque, struct error *err)
{
    struct wake *wake = calloc(1, sizeof(*wake));
    if (!wake) {
        error_errno(err, "cannot make a wake-up", NULL, ENOMEM);
        return NULL;
    }
    wake->fn = fn;
    wake->opaque = opaque;
    wake->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (wake->fd < 0) {
        error_errno(err, "cannot make a wake-up", "eventfd", errno);
        free(wake);
        return NULL;
    }
    wake->watch = loop_watch_open(loop, wake->fd, hear, wake, err);
    if (!wake->watch) {
        close(wake->fd);
        free(wake);
        return NULL;
    }
    loop_watch_set(wake->watch, LOOP_READABLE);
    return wake;
}

void wake_ring(struct wake *wake)
{
    if (atomic_exchange(&wake->rung, true))
        return;
    uint64_t one = 1;
    while (write(wake->fd, &one, sizeof(one)) < 0 && errno == EINTR)
        ;
}

void wake_close(struct wake *wake)
{
    if (!wake)
        return;
    loop_watch_close(wake->watch);
    close(wake->fd);
    free(wake);
}
