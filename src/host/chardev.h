/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Back ends for serial ports and consoles, named by text:
 *
 *     stdio                 the terminal (tty.h)
 *     null                  output vanishes
 *     file:PATH[,append]    output to a file, from its start or appended
 *     pipe:PATH             PATH.in is read and PATH.out written when both exist, else PATH is both
 *     tty:PATH              a serial line or terminal that is there, set to raw
 *     pty                   a new pseudo terminal; chardev_path() says which
 *     unix:PATH             listens on a socket; one client at a time, then the next
 *     tcp:[ADDR:]PORT       the same over TCP; ADDR is 127.0.0.1 unless given; PORT 0: any free one
 *
 * Output without a peer (pty, unix, tcp) is dropped. What is held of output and of input is
 * bounded.
 */
#ifndef SKEP_HOST_CHARDEV_H
#define SKEP_HOST_CHARDEV_H

#include "base/error.h"
#include "base/loop.h"
#include "bus/char.h"
#include "host/tty.h"

struct chardev;

struct chardev_config {
    const char *spec;
    /* For stdio; see tty.h. May be NULL. */
    void (*escape)(void *opaque, char key);
    void *escape_opaque;
};

/* Fills `out`, whose close() frees the result too. Fails with kind ERROR_USAGE for a spec that is
 * none, else with cause and hint. On the loop's thread. Ignores SIGPIPE and SIGXFSZ for the
 * process. */
struct chardev *chardev_open(const struct chardev_config *config, struct loop *loop,
                             struct char_backend *out, struct error *err);

/* Where to reach it: "/dev/pts/3", the socket's path, "127.0.0.1:4321"; else NULL. */
const char *chardev_path(const struct chardev *chardev);

/* The terminal when it is stdio, else NULL. */
struct tty *chardev_tty(const struct chardev *chardev);

#endif
