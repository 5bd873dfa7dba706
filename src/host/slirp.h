/* SPDX-License-Identifier: BSD-2-Clause
 *
 * User-mode network: libslirp as the other end of a network card. The network is as QEMU's users
 * know it: 10.0.2.0/24 with the host at .2, DNS at .3, DHCP from .15 on; fec0::/64 for IPv6.
 */
#ifndef SKEP_HOST_SLIRP_H
#define SKEP_HOST_SLIRP_H

#include "base/error.h"
#include "base/log.h"
#include "base/loop.h"
#include "bus/net.h"

#include <stdbool.h>
#include <stdint.h>

/* A port of the host that leads to one of the guest (10.0.2.15). */
struct slirp_forward {
    bool is_udp;
    const char *host_addr; /* IPv4; NULL: 127.0.0.1 */
    uint16_t host_port, guest_port;
};

struct slirp_config {
    const struct slirp_forward *forwards;
    unsigned forward_count;
    bool is_isolated; /* the guest reaches neither the host nor the world; forwards work */
    /* A folder that the network's TFTP server gives out, read-only; NULL: there is no server. Names
     * from the guest cannot leave it, but links in it are followed: what it links to is given out
     * too. `bootfile` is what DHCP tells of; where there is only an HTTP folder, a name is told as
     * its URL. */
    const char *tftp, *bootfile;
    /* A folder that 10.0.2.2 gives out by HTTP on port 80, instead of that port of the host; NULL:
     * none. As of host/http_folder.h, what links in it lead to outside of it is not given out. */
    const char *http;
    const struct log *log;
};

/* Fills `out`, whose close() frees. Fails, with the port and a hint, when a port cannot be had.
 * Ignores SIGPIPE and SIGXFSZ for the process, since libslirp writes to sockets that may be closed.
 */
bool slirp_open(const struct slirp_config *config, struct loop *loop, struct net_backend *out,
                struct error *err);

#endif
