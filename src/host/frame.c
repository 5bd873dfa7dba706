/* SPDX-License-Identifier: BSD-2-Clause
 * Checksums, segmentation (RFC 9293) and fragmentation (RFC 791, RFC 8200) in software; see
 * frame.h. VLAN tags are left out: frames that have one pass as they are. */
#include "host/frame.h"

#include <assert.h>
#include <string.h>

enum {
    ETHERTYPE_IPV4 = 0x0800,
    ETHERTYPE_IPV6 = 0x86dd,
    PROTOCOL_TCP = 6,
    PROTOCOL_UDP = 17,
    IPV6_HOP_BY_HOP = 0,
    IPV6_ROUTING = 43,
    IPV6_FRAGMENT = 44,
    IPV6_DESTINATION = 60,
    IPV4_BYTES = 20,
    IPV6_BYTES = 40,
    TCP_BYTES = 20,
    TCP_CHECKSUM = 16,
    UDP_CHECKSUM = 6,
    TCP_FIN = 1,
    TCP_SYN = 2,
    TCP_PSH = 8,
};

static uint16_t get16(const uint8_t *bytes)
{
    return (uint16_t)(bytes[0] << 8 | bytes[1]);
}

static uint32_t get32(const uint8_t *bytes)
{
    return (uint32_t)get16(bytes) << 16 | get16(bytes + 2);
}

static void put16(uint8_t *bytes, uint16_t value)
{
    bytes[0] = (uint8_t)(value >> 8);
    bytes[1] = (uint8_t)value;
}

static void put32(uint8_t *bytes, uint32_t value)
{
    put16(bytes, (uint16_t)(value >> 16));
    put16(bytes + 2, (uint16_t)value);
}

/* ---- checksums (RFC 1071) ---- */

static uint16_t fold(uint64_t sum)
{
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}

/* The sum of big-endian 16-bit words, in the host's order: eight bytes at a time, with the carries
 * counted by the width of the accumulator; byte order is put right at the end. */
static uint64_t sum_bytes(const uint8_t *bytes, size_t size_bytes)
{
    uint64_t low = 0, high = 0;
    for (; size_bytes >= 8; bytes += 8, size_bytes -= 8) {
        uint64_t word;
        memcpy(&word, bytes, 8);
        low += word & 0xffffffff;
        high += word >> 32;
    }
    uint16_t sum = fold(fold(low) + (uint64_t)fold(high));
    uint64_t total = (uint16_t)(sum << 8 | sum >> 8);
    for (; size_bytes >= 2; bytes += 2, size_bytes -= 2)
        total += get16(bytes);
    if (size_bytes)
        total += (uint64_t)bytes[0] << 8;
    return total;
}

static uint64_t sum_pseudo(const uint8_t *frame, const struct frame_parts *parts,
                           uint32_t payload_bytes)
{
    const uint8_t *ip = frame + FRAME_ETHERNET_BYTES;
    uint64_t addresses = parts->is_ipv6 ? sum_bytes(ip + 8, 32) : sum_bytes(ip + 12, 8);
    return addresses + parts->protocol + payload_bytes;
}

static void set_ipv4_checksum(uint8_t *ip)
{
    put16(ip + 10, 0);
    put16(ip + 10, (uint16_t)~fold(sum_bytes(ip, (ip[0] & 15) * 4u)));
}

/* IP's own length, for a packet that ends at `total_bytes` of the frame. */
static void set_ip_length(uint8_t *frame, const struct frame_parts *parts, size_t total_bytes)
{
    uint8_t *ip = frame + FRAME_ETHERNET_BYTES;
    if (parts->is_ipv6) {
        put16(ip + 4, (uint16_t)(total_bytes - FRAME_ETHERNET_BYTES - IPV6_BYTES));
    } else {
        put16(ip + 2, (uint16_t)(total_bytes - FRAME_ETHERNET_BYTES));
        set_ipv4_checksum(ip);
    }
}

static void set_tcp_checksum(uint8_t *frame, const struct frame_parts *parts, size_t total_bytes)
{
    uint8_t *tcp = frame + parts->ip_end;
    size_t size_bytes = total_bytes - parts->ip_end;
    put16(tcp + TCP_CHECKSUM, 0);
    uint64_t sum = sum_pseudo(frame, parts, (uint32_t)size_bytes) + sum_bytes(tcp, size_bytes);
    put16(tcp + TCP_CHECKSUM, (uint16_t)~fold(sum));
}

/* ---- parsing ---- */

static bool parse_ipv4(const uint8_t *frame, size_t size_bytes, struct frame_parts *parts)
{
    const uint8_t *ip = frame + FRAME_ETHERNET_BYTES;
    if (size_bytes < FRAME_ETHERNET_BYTES + IPV4_BYTES || ip[0] >> 4 != 4)
        return false;
    size_t header = (ip[0] & 15) * 4u, total = get16(ip + 2);
    if (header < IPV4_BYTES || total < header || total > size_bytes - FRAME_ETHERNET_BYTES)
        return false;
    parts->is_fragment = (get16(ip + 6) & 0x3fff) != 0;
    parts->protocol = ip[9];
    parts->ip_end = (uint32_t)(FRAME_ETHERNET_BYTES + header);
    parts->total_bytes = (uint32_t)(FRAME_ETHERNET_BYTES + total);
    return true;
}

static bool parse_ipv6(const uint8_t *frame, size_t size_bytes, struct frame_parts *parts)
{
    const uint8_t *ip = frame + FRAME_ETHERNET_BYTES;
    if (size_bytes < FRAME_ETHERNET_BYTES + IPV6_BYTES || ip[0] >> 4 != 6)
        return false;
    size_t total = (size_t)FRAME_ETHERNET_BYTES + IPV6_BYTES + get16(ip + 4);
    if (total > size_bytes)
        return false;
    size_t at = FRAME_ETHERNET_BYTES + IPV6_BYTES;
    uint8_t next = ip[6];
    while (next == IPV6_HOP_BY_HOP || next == IPV6_ROUTING || next == IPV6_DESTINATION ||
           next == IPV6_FRAGMENT) {
        if (total - at < 8)
            return false;
        size_t length = next == IPV6_FRAGMENT ? 8 : (frame[at + 1] + 1u) * 8;
        if (total - at < length)
            return false;
        parts->is_fragment |= next == IPV6_FRAGMENT;
        next = frame[at];
        at += length;
    }
    parts->protocol = next;
    parts->ip_end = (uint32_t)at;
    parts->total_bytes = (uint32_t)total;
    return true;
}

bool frame_parse(const uint8_t *frame, size_t size_bytes, struct frame_parts *parts)
{
    *parts = (struct frame_parts){0};
    if (size_bytes < FRAME_ETHERNET_BYTES || size_bytes > NET_FRAME_MAX_BYTES)
        return false;
    uint16_t type = get16(frame + 12);
    parts->is_ipv6 = type == ETHERTYPE_IPV6;
    if (type == ETHERTYPE_IPV4 ? !parse_ipv4(frame, size_bytes, parts)
                               : type != ETHERTYPE_IPV6 || !parse_ipv6(frame, size_bytes, parts))
        return false;
    size_t rest = (size_t)parts->total_bytes - parts->ip_end;
    if (parts->protocol != PROTOCOL_TCP || parts->is_fragment || rest < TCP_BYTES)
        return true;
    size_t header = (frame[parts->ip_end + 12] >> 4) * 4u;
    if (header >= TCP_BYTES && header <= rest && parts->ip_end + header <= FRAME_HEADERS_MAX_BYTES)
        parts->tcp_payload = (uint32_t)(parts->ip_end + header);
    return true;
}

/* ---- from a guest ---- */

/* What a driver leaves in the fields of a segment to be cut differs (the length may be of one
 * segment or of all), so they are all made anew. */
static bool complete_gso(uint8_t *frame, size_t size_bytes)
{
    struct frame_parts parts;
    if (size_bytes < FRAME_ETHERNET_BYTES + IPV6_BYTES) /* TCP over IPv4 is no less */
        return false;
    bool is_ipv6 = get16(frame + 12) == ETHERTYPE_IPV6;
    size_t room = size_bytes - FRAME_ETHERNET_BYTES - (is_ipv6 ? IPV6_BYTES : 0);
    if (room > UINT16_MAX)
        return false;
    put16(frame + FRAME_ETHERNET_BYTES + (is_ipv6 ? 4 : 2), (uint16_t)room);
    if (!frame_parse(frame, size_bytes, &parts) || !parts.tcp_payload)
        return false;
    set_ip_length(frame, &parts, size_bytes);
    set_tcp_checksum(frame, &parts, size_bytes);
    return true;
}

bool frame_complete(uint8_t *frame, size_t size_bytes, const struct net_offload *offload)
{
    if (offload->gso == NET_GSO_TCPV4 || offload->gso == NET_GSO_TCPV6)
        return complete_gso(frame, size_bytes);
    if (offload->gso != NET_GSO_NONE)
        return false;
    if (!offload->needs_checksum)
        return true;
    size_t start = offload->checksum_start, field = start + offload->checksum_offset;
    if (start >= size_bytes || field + 2 > size_bytes)
        return false;
    uint16_t sum = (uint16_t)~fold(sum_bytes(frame + start, size_bytes - start));
    /* UDP: zero would say that there is none. */
    put16(frame + field, sum == 0 && offload->checksum_offset == UDP_CHECKSUM ? 0xffff : sum);
    return true;
}

/* The new sum after a 16-bit word of what is summed changed (RFC 1624). */
static void update_checksum(uint8_t *field, uint16_t before, uint16_t after)
{
    uint16_t sum = (uint16_t)~get16(field);
    put16(field, (uint16_t)~fold((uint64_t)sum + (uint16_t)~before + after));
}

/* Where the value of the segment size option is in the frame; 0 when there is none. */
static size_t find_segment_size(const uint8_t *frame, const struct frame_parts *parts)
{
    size_t at = parts->ip_end + TCP_BYTES;
    while (at < parts->tcp_payload && frame[at] != 0) {
        if (frame[at] == 1) {
            at++;
            continue;
        }
        size_t left = parts->tcp_payload - at;
        if (left < 2 || frame[at + 1] < 2 || frame[at + 1] > left)
            return 0;
        if (frame[at] == 2)
            return frame[at + 1] == 4 ? at + 2 : 0;
        at += frame[at + 1];
    }
    return 0;
}

void frame_raise_segment_size(uint8_t *frame, size_t size_bytes, uint16_t segment_bytes,
                              bool needs_checksum)
{
    struct frame_parts parts;
    if (!frame_parse(frame, size_bytes, &parts) || !parts.tcp_payload ||
        !(frame[parts.ip_end + 13] & TCP_SYN))
        return;
    size_t at = find_segment_size(frame, &parts);
    uint16_t before = at ? get16(frame + at) : UINT16_MAX;
    if (before >= segment_bytes)
        return;
    put16(frame + at, segment_bytes);
    if (needs_checksum)
        return;
    /* At an odd place the two bytes belong to the other halves of two words. */
    bool is_odd = (at - parts.ip_end) & 1;
    uint16_t old_sum = is_odd ? (uint16_t)(before << 8 | before >> 8) : before;
    uint16_t new_sum = is_odd ? (uint16_t)(segment_bytes << 8 | segment_bytes >> 8) : segment_bytes;
    update_checksum(frame + parts.ip_end + TCP_CHECKSUM, old_sum, new_sum);
}

static size_t address_at(const struct frame_address *where)
{
    return FRAME_ETHERNET_BYTES + (where->is_source ? 12 : 16);
}

static bool has_address(const uint8_t *frame, size_t size_bytes, const struct frame_address *where,
                        struct frame_parts *parts)
{
    return frame_parse(frame, size_bytes, parts) && !parts->is_ipv6 && parts->tcp_payload &&
           get32(frame + address_at(where)) == where->ipv4 &&
           get16(frame + parts->ip_end + (where->is_source ? 0 : 2)) == where->port;
}

bool frame_has_address(const uint8_t *frame, size_t size_bytes, const struct frame_address *where)
{
    struct frame_parts parts;
    return has_address(frame, size_bytes, where, &parts);
}

void frame_change_address(uint8_t *frame, size_t size_bytes, const struct frame_address *where,
                          uint32_t ipv4)
{
    struct frame_parts parts;
    const size_t at = address_at(where);
    if (!has_address(frame, size_bytes, where, &parts))
        return;
    for (unsigned i = 0; i < 4; i += 2) {
        const uint16_t after = (uint16_t)(ipv4 >> (16 - 8 * i)), before = get16(frame + at + i);
        put16(frame + at + i, after);
        update_checksum(frame + FRAME_ETHERNET_BYTES + 10, before, after);
        update_checksum(frame + parts.ip_end + TCP_CHECKSUM, before, after);
    }
}

/* ---- to a guest ---- */

static size_t segment_room(const struct frame_parts *parts)
{
    return FRAME_ETHERNET_BYTES + FRAME_MTU_BYTES - parts->tcp_payload;
}

void frame_mark_gso(uint8_t *frame, const struct frame_parts *parts, struct net_offload *offload)
{
    assert(parts->tcp_payload && parts->tcp_payload <= FRAME_HEADERS_MAX_BYTES);
    size_t tcp_bytes = (size_t)parts->total_bytes - parts->ip_end;
    put16(frame + parts->ip_end + TCP_CHECKSUM,
          fold(sum_pseudo(frame, parts, (uint32_t)tcp_bytes)));
    *offload = (struct net_offload){
        .needs_checksum = true,
        .gso = parts->is_ipv6 ? NET_GSO_TCPV6 : NET_GSO_TCPV4,
        .header_bytes = (uint16_t)parts->tcp_payload,
        .segment_bytes = (uint16_t)segment_room(parts),
        .checksum_start = (uint16_t)parts->ip_end,
        .checksum_offset = TCP_CHECKSUM,
    };
}

static void split_tcp(const uint8_t *frame, const struct frame_parts *parts, frame_emit_fn *emit,
                      void *opaque)
{
    uint8_t segment[FRAME_ETHERNET_BYTES + FRAME_MTU_BYTES];
    size_t header = parts->tcp_payload, room = segment_room(parts);
    uint32_t sequence = get32(frame + parts->ip_end + 4);
    uint16_t id = get16(frame + FRAME_ETHERNET_BYTES + 4);
    uint8_t flags = frame[parts->ip_end + 13];
    size_t left = parts->total_bytes - header;
    memcpy(segment, frame, header);
    for (size_t at = header; left > 0; id++) {
        size_t n = left < room ? left : room;
        memcpy(segment + header, frame + at, n);
        put32(segment + parts->ip_end + 4, sequence);
        /* What ends the whole belongs to the last segment only. */
        segment[parts->ip_end + 13] = n == left ? flags : (uint8_t)(flags & ~(TCP_FIN | TCP_PSH));
        if (!parts->is_ipv6)
            put16(segment + FRAME_ETHERNET_BYTES + 4, id);
        set_ip_length(segment, parts, header + n);
        set_tcp_checksum(segment, parts, header + n);
        emit(opaque, segment, header + n);
        at += n;
        left -= n;
        sequence += (uint32_t)n;
    }
}

static void split_ipv4(const uint8_t *frame, const struct frame_parts *parts, frame_emit_fn *emit,
                       void *opaque)
{
    uint8_t fragment[FRAME_ETHERNET_BYTES + FRAME_MTU_BYTES];
    size_t header = parts->ip_end;
    size_t room = (FRAME_ETHERNET_BYTES + FRAME_MTU_BYTES - header) / 8 * 8;
    uint16_t field = get16(frame + FRAME_ETHERNET_BYTES + 6);
    size_t left = parts->total_bytes - header, done = 0;
    memcpy(fragment, frame, header);
    while (left > 0) {
        size_t n = left < room ? left : room;
        memcpy(fragment + header, frame + header + done, n);
        uint16_t more = n < left ? 0x2000 : field & 0x2000;
        put16(fragment + FRAME_ETHERNET_BYTES + 6,
              (uint16_t)(more | (((field & 0x1fff) + done / 8) & 0x1fff)));
        set_ip_length(fragment, parts, header + n);
        emit(opaque, fragment, header + n);
        done += n;
        left -= n;
    }
}

/* Only packets without extension headers: libslirp makes no others. */
static void split_ipv6(const uint8_t *frame, const struct frame_parts *parts, frame_emit_fn *emit,
                       void *opaque)
{
    enum { HEADER = FRAME_ETHERNET_BYTES + IPV6_BYTES, FRAGMENT = 8 };
    uint8_t fragment[FRAME_ETHERNET_BYTES + FRAME_MTU_BYTES];
    size_t room = (FRAME_MTU_BYTES - IPV6_BYTES - FRAGMENT) / 8 * 8;
    size_t left = parts->total_bytes - HEADER, done = 0;
    if (parts->ip_end != HEADER)
        return;
    /* An identification need only differ from others of late: the content's sum tells them apart.
     */
    uint32_t id = (uint32_t)sum_bytes(frame + HEADER, left) ^ (uint32_t)left << 16;
    memcpy(fragment, frame, HEADER);
    fragment[FRAME_ETHERNET_BYTES + 6] = IPV6_FRAGMENT;
    fragment[HEADER] = parts->protocol;
    fragment[HEADER + 1] = 0;
    put32(fragment + HEADER + 4, id);
    while (left > 0) {
        size_t n = left < room ? left : room;
        put16(fragment + HEADER + 2, (uint16_t)(done | (n < left)));
        memcpy(fragment + HEADER + FRAGMENT, frame + HEADER + done, n);
        set_ip_length(fragment, parts, HEADER + FRAGMENT + n);
        emit(opaque, fragment, HEADER + FRAGMENT + n);
        done += n;
        left -= n;
    }
}

void frame_split(const uint8_t *frame, const struct frame_parts *parts, frame_emit_fn *emit,
                 void *opaque)
{
    if (parts->tcp_payload)
        split_tcp(frame, parts, emit, opaque);
    else if (parts->is_ipv6)
        split_ipv6(frame, parts, emit, opaque);
    else
        split_ipv4(frame, parts, emit, opaque);
}
