/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A VNC server for a screen, through libvncserver: RFB 3.8 for several viewers. Encoding and
 * sending happen on a thread of its own, since libvncserver waits for a viewer that does not read;
 * so neither the guest nor the loop ever does. All functions and callbacks are on the loop's
 * thread.
 */
#ifndef SKEP_HOST_VNC_H
#define SKEP_HOST_VNC_H

#include "base/error.h"
#include "base/loop.h"
#include "bus/input.h"
#include "host/screen.h"

#include <stdbool.h>

struct vnc;

/* What viewers do. */
struct vnc_input {
    void (*key)(void *opaque, unsigned key, bool is_down); /* by Linux's numbers */
    void (*pointer)(void *opaque, const struct input_pointer *pointer);
    void (*release)(void *opaque); /* a viewer has gone, and what it held down with it */
    void *opaque;
};

struct vnc_config {
    /* "[ADDR:]PORT" (127.0.0.1; port 0: any that is free), ":N" (port 5900 + N of 127.0.0.1), or
     * "unix:PATH". */
    const char *where;
    const char *password_file; /* its first line, at most 8 bytes; NULL: none is asked for */
    const char *keymap;        /* as keymap_create() takes it */
    const char *name;          /* of the machine, as viewers show it; NULL: "skep" */
    struct vnc_input input;
};

/* Listens; nobody is served before vnc_start(). Without a password only on loopback addresses and
 * Unix sockets. NULL: `err` tells why, also where skep was built without libvncserver. */
struct vnc *vnc_create(const struct vnc_config *config, struct loop *loop, struct error *err);
void vnc_destroy(struct vnc *vnc); /* NULL is fine */

/* Shows this screen, which must outlive it. */
bool vnc_start(struct vnc *vnc, struct screen *screen, struct error *err);

/* Where it listens, as "127.0.0.1:5901" or "unix:PATH". */
const char *vnc_address(const struct vnc *vnc);

#endif
