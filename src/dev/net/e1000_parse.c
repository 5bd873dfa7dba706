/* SPDX-License-Identifier: BSD-2-Clause
 *
 * e1000: what the card sees in a received frame: headers, checksums (8254x manual, 3.2.9), and the
 * 82574L's hash for receive side scaling (82574 datasheet, 7.1.11).
 */
#include "dev/net/e1000_internal.h"

enum {
    ETHERNET_BYTES = 14,
    TYPE_IP4 = 0x0800,
    TYPE_IP6 = 0x86dd,
    PROTOCOL_TCP = 6,
    PROTOCOL_UDP = 17,
    RXCSUM_IP = 1 << 8,
    RXCSUM_L4 = 1 << 9,

    /* MRQC: what is hashed */
    MRQC_RSS = 1,
    MRQC_TCP4 = 1 << 16,
    MRQC_IP4 = 1 << 17,
    MRQC_TCP6 = 1 << 18,
    MRQC_IP6 = 1 << 20,
    HASH_TCP4 = 1,
    HASH_IP4 = 2,
    HASH_TCP6 = 3,
    HASH_IP6 = 5,
    KEY_BYTES = 40,
};

static unsigned be16(const uint8_t *bytes)
{
    return (unsigned)bytes[0] << 8 | bytes[1];
}

/* Toeplitz: each one bit of the input takes the 32 bits of the key that start at its place. */
static uint32_t toeplitz(const uint32_t *key_words, const uint8_t *input, unsigned input_bytes)
{
    uint8_t key[KEY_BYTES];
    for (unsigned i = 0; i < KEY_BYTES; i++)
        key[i] = (uint8_t)(key_words[i / 4] >> (8 * (i % 4)));
    uint32_t window = be16(key) << 16 | be16(key + 2);
    uint32_t hash = 0;
    for (unsigned bit = 0; bit < 8 * input_bytes; bit++) {
        unsigned next = bit + 32;
        if (input[bit / 8] & 0x80 >> bit % 8)
            hash ^= window;
        window = window << 1 | (key[next / 8] >> (7 - next % 8) & 1);
    }
    return hash;
}

static void hash_frame(struct e1000 *e, const uint8_t *addresses, unsigned address_bytes,
                       const uint8_t *ports, struct e1000_parsed *p)
{
    uint8_t input[36];
    uint32_t mrqc = *e1000_reg(e, MRQC);
    if (!e->is_82574 || (mrqc & 3) != MRQC_RSS)
        return;
    unsigned size_bytes = address_bytes;
    for (unsigned i = 0; i < address_bytes; i++)
        input[i] = addresses[i];
    if (p->is_tcp && ports && mrqc & (p->is_ip4 ? MRQC_TCP4 : MRQC_TCP6)) {
        for (unsigned i = 0; i < 4; i++)
            input[size_bytes++] = ports[i];
        p->hash_type = p->is_ip4 ? HASH_TCP4 : HASH_TCP6;
    } else if (mrqc & (p->is_ip4 ? MRQC_IP4 : MRQC_IP6)) {
        p->hash_type = p->is_ip4 ? HASH_IP4 : HASH_IP6;
    }
    if (p->hash_type)
        p->hash = toeplitz(e1000_reg(e, RSSRK), input, size_bytes);
}

/* TCP or UDP at `at`, with its pseudo-header's addresses. */
static void parse_l4(const uint8_t *frame, unsigned at, unsigned l4_bytes, unsigned protocol,
                     const uint8_t *addresses, unsigned address_bytes, bool checks,
                     struct e1000_parsed *p)
{
    bool is_tcp = protocol == PROTOCOL_TCP && l4_bytes >= 20;
    bool is_udp = protocol == PROTOCOL_UDP && l4_bytes >= 8;
    if (!is_tcp && !is_udp)
        return;
    unsigned header = is_tcp ? (frame[at + 12] >> 4) * 4U : 8;
    p->is_tcp = is_tcp;
    p->is_udp = is_udp;
    if (header <= l4_bytes)
        p->header_bytes = at + header;
    if (!checks || (is_udp && be16(frame + at + 6) == 0))
        return;
    uint32_t sum = e1000_sum(addresses, address_bytes, protocol + l4_bytes);
    p->l4_checked = true;
    p->l4_ok = e1000_fold(e1000_sum(frame + at, l4_bytes, sum)) == 0xffff;
}

static void parse_ip4(struct e1000 *e, const uint8_t *frame, unsigned size_bytes,
                      struct e1000_parsed *p)
{
    const uint8_t *ip = frame + ETHERNET_BYTES;
    unsigned left = size_bytes - ETHERNET_BYTES;
    if (left < 20 || ip[0] >> 4 != 4)
        return;
    unsigned header = (ip[0] & 15) * 4U, total = be16(ip + 2);
    if (header < 20 || total < header || total > left)
        return;
    uint32_t rxcsum = *e1000_reg(e, RXCSUM);
    p->is_ip4 = true;
    p->ip_id = (uint16_t)be16(ip + 4);
    p->ip_ok = e1000_fold(e1000_sum(ip, header, 0)) == 0xffff;
    p->is_fragment = be16(ip + 6) & 0x3fff;
    p->header_bytes = ETHERNET_BYTES + header;
    if (!p->is_fragment)
        parse_l4(frame, ETHERNET_BYTES + header, total - header, ip[9], ip + 12, 8,
                 rxcsum & RXCSUM_L4, p);
    bool has_ports = (p->is_tcp || p->is_udp) && !p->is_fragment;
    hash_frame(e, ip + 12, 8, has_ports ? ip + header : NULL, p);
}

/* Extension headers end what is known, as in the 8254x. */
static void parse_ip6(struct e1000 *e, const uint8_t *frame, unsigned size_bytes,
                      struct e1000_parsed *p)
{
    const uint8_t *ip = frame + ETHERNET_BYTES;
    unsigned left = size_bytes - ETHERNET_BYTES;
    if (left < 40 || ip[0] >> 4 != 6 || be16(ip + 4) > left - 40)
        return;
    p->is_ip6 = true;
    p->header_bytes = ETHERNET_BYTES + 40;
    parse_l4(frame, ETHERNET_BYTES + 40, be16(ip + 4), ip[6], ip + 8, 32,
             *e1000_reg(e, RXCSUM) & RXCSUM_L4, p);
    hash_frame(e, ip + 8, 32, p->is_tcp || p->is_udp ? ip + 40 : NULL, p);
}

void e1000_parse(struct e1000 *e, const uint8_t *frame, size_t size_bytes,
                 struct e1000_parsed *parsed)
{
    *parsed = (struct e1000_parsed){0};
    if (size_bytes < ETHERNET_BYTES)
        return;
    switch (be16(frame + 12)) {
    case TYPE_IP4: parse_ip4(e, frame, (unsigned)size_bytes, parsed); break;
    case TYPE_IP6: parse_ip6(e, frame, (unsigned)size_bytes, parsed); break;
    }
}
