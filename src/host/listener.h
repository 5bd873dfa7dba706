/* SPDX-License-Identifier: BSD-2-Clause
 * Listening sockets of the host, with errors that say what to do. */
#ifndef SKEP_HOST_LISTENER_H
#define SKEP_HOST_LISTENER_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/un.h>

struct listener {
    int fd;                                                        /* non-blocking; -1: none */
    char unlink_path[sizeof(((struct sockaddr_un *)0)->sun_path)]; /* at close; may be empty */
};

/* A socket at `path`, for its owner only (mode 0600). One that a dead process left is replaced. */
bool listener_open_unix(struct listener *listener, const char *path, struct error *err);

/* "[ADDR:]PORT", with 127.0.0.1 unless given and IPv6 in brackets; an address, not a name. Tells
 * the address in use in `name`. */
bool listener_open_tcp(struct listener *listener, const char *address, char *name,
                       size_t name_bytes, struct error *err);

void listener_close(struct listener *listener);

#endif
