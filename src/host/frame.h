/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Ethernet frames of IPv4 and IPv6 in software: what an offloading network card does. Frames may
 * come from a guest: all lengths in them are checked against the frame's.
 */
#ifndef SKEP_HOST_FRAME_H
#define SKEP_HOST_FRAME_H

#include "bus/net.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    FRAME_ETHERNET_BYTES = 14,
    FRAME_MTU_BYTES = 1500,
    FRAME_HEADERS_MAX_BYTES = 512, /* TCP behind more than this is not taken for TCP */
};

struct frame_parts {
    bool is_ipv6, is_fragment;
    uint8_t protocol;     /* of IP; only when not a later fragment */
    uint32_t ip_end;      /* where IP's payload begins, extension headers of IPv6 included */
    uint32_t total_bytes; /* up to where IP's length says */
    uint32_t tcp_payload; /* where TCP's payload begins; 0 when it is not (whole) TCP */
};

/* False when it is neither IPv4 nor IPv6 or is cut short. */
bool frame_parse(const uint8_t *frame, size_t size_bytes, struct frame_parts *parts);

/* Stores the checksum that `offload` asks for. Of a segment to be cut it sets the lengths and sums
 * as of one large packet. False when the marks do not fit the frame. */
bool frame_complete(uint8_t *frame, size_t size_bytes, const struct net_offload *offload);

/* If the frame opens a TCP connection and offers a smaller segment size than `segment_bytes`, then
 * offers that. Keeps a complete checksum right; one that is yet to be completed stays so. */
void frame_raise_segment_size(uint8_t *frame, size_t size_bytes, uint16_t segment_bytes,
                              bool needs_checksum);

/* Where TCP over IPv4 is from, or to. */
struct frame_address {
    uint32_t ipv4;
    uint16_t port;
    bool is_source;
};
bool frame_has_address(const uint8_t *frame, size_t size_bytes, const struct frame_address *where);
/* If the frame has this address, gives it another one instead, and keeps its complete checksums
 * right. */
void frame_change_address(uint8_t *frame, size_t size_bytes, const struct frame_address *where,
                          uint32_t ipv4);

/* Marks a TCP frame that is larger than an Ethernet frame may be as one to be cut by the receiver,
 * and makes its checksum the partial one that goes with it. */
void frame_mark_gso(uint8_t *frame, const struct frame_parts *parts, struct net_offload *offload);

/* Cuts a larger frame into ones that fit FRAME_MTU_BYTES: TCP into segments, all else into
 * fragments. `emit` is called for each in order. */
typedef void frame_emit_fn(void *opaque, const uint8_t *frame, size_t size_bytes);
void frame_split(const uint8_t *frame, const struct frame_parts *parts, frame_emit_fn *emit,
                 void *opaque);

#endif
