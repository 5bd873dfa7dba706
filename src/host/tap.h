/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A tap interface of the host as the other end of a network card; the kernel does the offloads.
 */
#ifndef SKEP_HOST_TAP_H
#define SKEP_HOST_TAP_H

#include "base/error.h"
#include "base/log.h"
#include "base/loop.h"
#include "bus/net.h"

struct tap_config {
    const char *name; /* of the interface; made when there is none and one may. NULL: `fd` it is */
    int fd;           /* an open tap, which is taken over, also on failure */
    const struct log *log;
};

/* Fills `out`, whose close() frees. On the loop's thread. */
bool tap_open(const struct tap_config *config, struct loop *loop, struct net_backend *out,
              struct error *err);

#endif
