/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What backs a network card: Ethernet frames with the offload marks of virtio (virtio 1.2,
 * 5.1.6), which a back end completes in software where its peer cannot take them. All calls and
 * callbacks are on the loop's thread.
 */
#ifndef SKEP_BUS_NET_H
#define SKEP_BUS_NET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

enum { NET_FRAME_MAX_BYTES = 65550 }; /* 64 KiB of IP and an Ethernet header */

enum net_gso { NET_GSO_NONE = 0, NET_GSO_TCPV4 = 1, NET_GSO_UDP = 3, NET_GSO_TCPV6 = 4 };

/* Which parts of a frame are left undone. All zero: a finished frame. */
struct net_offload {
    bool needs_checksum; /* sum from checksum_start, store at checksum_start + checksum_offset */
    bool checksum_valid; /* to the guest: already verified */
    uint8_t gso;         /* enum net_gso */
    uint16_t header_bytes;
    uint16_t segment_bytes;
    uint16_t checksum_start;
    uint16_t checksum_offset;
};

/* What the guest is able to receive. */
struct net_guest_features {
    bool checksum, tso4, tso6;
};

struct net_receiver {
    /* A frame for the guest. False: no room now; the back end keeps it and waits for `resume`, or
     * drops it. */
    bool (*receive)(void *opaque, const struct iovec *iov, unsigned iov_count,
                    const struct net_offload *offload);
    void *opaque;
};

struct net_backend {
    /* Takes the frame whole or drops it; `iov` is free again on return. The frame is the guest's
     * and not trusted; nor is `offload`. */
    void (*send)(void *opaque, const struct iovec *iov, unsigned iov_count,
                 const struct net_offload *offload);
    void (*set_receiver)(void *opaque, const struct net_receiver *receiver); /* copied */
    void (*set_guest_features)(void *opaque, const struct net_guest_features *features);
    void (*resume)(void *opaque); /* the guest has made room */
    bool (*link_up)(void *opaque);
    unsigned mtu_bytes;
    bool offers_offloads; /* send() takes needs_checksum and gso frames */
    /* From now on, connections that the back end ends itself are reset, not closed: their other
     * side must not take the end for a regular one. NULL: it has no connections. */
    void (*reset_connections)(void *opaque);
    void (*close)(void *opaque);
    void *opaque;
};

#endif
