/* SPDX-License-Identifier: BSD-2-Clause
 *
 * e1000: receiving (8254x manual, 3.2; 82574 datasheet, 7.1): filters, VLAN tags, and descriptors
 * in the legacy, extended and packet split formats.
 */
#include "dev/net/e1000_internal.h"

#include <stdatomic.h>
#include <string.h>

enum {
    ETHERNET_BYTES = 14,
    RUNT_BYTES = 60,        /* without FCS */
    SHORT_MAX_BYTES = 1518, /* without FCS, with a VLAN tag: what passes without RCTL.LPE */
    FCS_BYTES = 4,
    RECEIVE_ADDRESSES = 16,
    RFCTL_EXTENDED = 1 << 15,
    RXCSUM_IP = 1 << 8,
    RXCSUM_NO_PACKET_SUM = 1 << 13,

    STATUS_DONE = 1 << 0,
    STATUS_END = 1 << 1,
    STATUS_IGNORE_SUMS = 1 << 2,
    STATUS_VLAN = 1 << 3,
    STATUS_UDP_SUM = 1 << 4,
    STATUS_TCP_SUM = 1 << 5,
    STATUS_IP_SUM = 1 << 6,
    STATUS_INEXACT = 1 << 7,
    ERROR_L4 = 1 << 5,
    ERROR_IP = 1 << 6,
};

enum format { LEGACY, EXTENDED, SPLIT };

/* A frame on its way into descriptors. */
struct rx {
    struct e1000_ring ring;
    enum format format;
    unsigned step;       /* descriptors, in units of 16 bytes */
    uint32_t buffers[4]; /* sizes; all but the first are for SPLIT */
    uint32_t size_bytes; /* FCS included if it is stored */
    unsigned queue;
    uint32_t status, errors; /* of the last descriptor */
    uint16_t tag, packet_sum;
    struct e1000_parsed parsed;
};

/* ---- filters ---- */

static bool matches_address(struct e1000 *e, const uint8_t *mac)
{
    uint32_t low =
        (uint32_t)mac[0] | (uint32_t)mac[1] << 8 | (uint32_t)mac[2] << 16 | (uint32_t)mac[3] << 24;
    uint32_t high = (uint32_t)mac[4] | (uint32_t)mac[5] << 8 | 1U << 31;
    for (unsigned i = 0; i < RECEIVE_ADDRESSES; i++)
        if (*e1000_reg(e, RAL0 + 8 * i) == low &&
            (*e1000_reg(e, RAH0 + 8 * i) & 0x8000ffff) == high)
            return true;
    return false;
}

/* Twelve bits of the address, which ones RCTL.MO tells, choose a bit of the table. */
static bool matches_table(struct e1000 *e, const uint8_t *mac)
{
    static const uint8_t shifts[4] = {4, 3, 2, 0};
    unsigned shift = shifts[*e1000_reg(e, RCTL) >> 12 & 3];
    unsigned hash = ((unsigned)mac[4] | (unsigned)mac[5] << 8) >> shift & 0xfff;
    return *e1000_reg(e, MTA + 4 * (hash >> 5)) >> (hash & 31) & 1;
}

static bool is_wanted(struct e1000 *e, const uint8_t *mac, bool *inexact)
{
    static const uint8_t broadcast[6] = {255, 255, 255, 255, 255, 255};
    uint32_t rctl = *e1000_reg(e, RCTL);
    *inexact = false;
    if (memcmp(mac, broadcast, 6) == 0)
        return rctl & (RCTL_BAM | RCTL_MPE);
    if (matches_address(e, mac))
        return true;
    if (!(mac[0] & 1))
        return rctl & RCTL_UPE;
    *inexact = true;
    return rctl & RCTL_MPE || matches_table(e, mac);
}

static unsigned type_of(const uint8_t *frame)
{
    return (unsigned)frame[12] << 8 | frame[13];
}

static bool passes_vlan(struct e1000 *e, const uint8_t *frame)
{
    uint32_t rctl = *e1000_reg(e, RCTL);
    unsigned tag = (unsigned)frame[14] << 8 | frame[15];
    if (!(rctl & RCTL_VFE) || type_of(frame) != (*e1000_reg(e, VET) & 0xffff))
        return true;
    if (rctl & RCTL_CFIEN && (tag >> 12 & 1) != (rctl & RCTL_CFI ? 1U : 0U))
        return false;
    return *e1000_reg(e, VFTA + 4 * (tag >> 5 & 127)) >> (tag & 31) & 1;
}

/* ---- buffers ---- */

static void choose_format(struct e1000 *e, struct rx *rx)
{
    uint32_t rctl = *e1000_reg(e, RCTL);
    unsigned shift = rctl >> 16 & 3;
    uint32_t one = 2048U >> shift;
    if (rctl & RCTL_BSEX && shift)
        one = 32768U >> shift;
    rx->format = LEGACY;
    rx->step = 1;
    memset(rx->buffers, 0, sizeof(rx->buffers));
    rx->buffers[0] = one;
    if (!e->is_82574 || !(*e1000_reg(e, RFCTL) & RFCTL_EXTENDED))
        return;
    rx->format = EXTENDED;
    if ((rctl >> 10 & 3) != 1)
        return;
    uint32_t sizes = *e1000_reg(e, PSRCTL);
    rx->format = SPLIT;
    rx->step = 2;
    rx->buffers[0] = (sizes & 127) * 128;
    for (unsigned i = 1; i < 4; i++)
        rx->buffers[i] = (sizes >> (8 * i) & 63) * 1024;
}

static uint32_t capacity(const struct rx *rx)
{
    return rx->buffers[0] + rx->buffers[1] + rx->buffers[2] + rx->buffers[3];
}

static uint32_t free_descriptors(const struct rx *rx)
{
    const struct e1000_ring *r = &rx->ring;
    return (r->tail + r->count - r->head) % r->count / rx->step;
}

static uint32_t min32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static uint32_t status_and_errors(const struct rx *rx, bool is_last)
{
    return STATUS_DONE | (is_last ? rx->status | rx->errors << 24 | STATUS_END : 0);
}

/* Words 0 and 1 of the extended formats: queue and hash, or id and sum. */
static uint64_t hash_word(struct e1000 *e, const struct rx *rx)
{
    uint64_t word = rx->parsed.hash_type | (uint64_t)rx->queue << 8;
    if (*e1000_reg(e, RXCSUM) & RXCSUM_NO_PACKET_SUM)
        return word | (uint64_t)rx->parsed.hash << 32;
    return word | (uint64_t)rx->parsed.ip_id << 32 | (uint64_t)rx->packet_sum << 48;
}

/* The word with the done bit goes last. */
static void write_back(struct e1000 *e, const struct rx *rx, uint64_t gpa, const uint32_t sizes[4],
                       bool is_last)
{
    uint64_t done = status_and_errors(rx, is_last);
    if (rx->format == LEGACY) {
        uint64_t word = sizes[0] | (uint64_t)rx->packet_sum << 16 | (done & 0xff) << 32 |
                        (done >> 24) << 40 | (uint64_t)(is_last ? rx->tag : 0) << 48;
        ram_write(e->ram, gpa + 8, &word, 8);
        return;
    }
    uint64_t words[4] = {hash_word(e, rx),
                         done | (uint64_t)sizes[0] << 32 | (uint64_t)(is_last ? rx->tag : 0) << 48};
    if (rx->format == SPLIT) {
        bool is_split = rx->parsed.header_bytes && sizes[0] == rx->parsed.header_bytes;
        words[2] = (is_split ? sizes[0] & 0x3ff : 0U) | (is_split ? 1U << 15 : 0U) |
                   (uint64_t)sizes[1] << 16 | (uint64_t)sizes[2] << 32 | (uint64_t)sizes[3] << 48;
        ram_write(e->ram, gpa + 16, words + 2, 16);
    }
    ram_write(e->ram, gpa, words, 8);
    atomic_thread_fence(memory_order_release);
    ram_write(e->ram, gpa + 8, words + 1, 8);
}

/* Fills one descriptor from `offset` on; returns how many bytes went in. A buffer that is no memory
 * takes its bytes all the same, as a bus does that nobody answers on. */
static uint32_t fill(struct e1000 *e, const struct rx *rx, uint64_t gpa, uint32_t offset)
{
    uint64_t addresses[4] = {0};
    uint32_t sizes[4], start = offset;
    ram_read(e->ram, gpa, addresses, rx->step * E1000_DESCRIPTOR_BYTES);
    for (unsigned i = 0; i < 4; i++) {
        uint32_t room = rx->buffers[i];
        /* The headers by themselves, when they are known and fit and are no more than the rest. */
        if (rx->format == SPLIT && i == 0 && offset == 0 && rx->parsed.header_bytes &&
            rx->parsed.header_bytes <= room &&
            rx->size_bytes - rx->parsed.header_bytes <= capacity(rx) - room)
            room = rx->parsed.header_bytes;
        sizes[i] = min32(room, rx->size_bytes - offset);
        if (sizes[i] && (i == 0 || rx->format == SPLIT) && addresses[i])
            ram_write(e->ram, addresses[i], e->rx_bytes + offset, sizes[i]);
        offset += sizes[i];
    }
    atomic_thread_fence(memory_order_release);
    write_back(e, rx, gpa, sizes, offset == rx->size_bytes);
    return offset - start;
}

static void advance(struct e1000 *e, struct rx *rx)
{
    struct e1000_ring *r = &rx->ring;
    r->head += rx->step;
    if (r->head >= r->count)
        r->head = 0;
    *e1000_reg(e, r->block + RING_HEAD) = r->head;
}

/* ---- a frame ---- */

static void check_sums(struct e1000 *e, struct rx *rx)
{
    const struct e1000_parsed *p = &rx->parsed;
    uint32_t rxcsum = *e1000_reg(e, RXCSUM);
    unsigned start = rxcsum & 0xff;
    if (start < rx->size_bytes)
        rx->packet_sum =
            e1000_fold(e1000_sum(e->rx_bytes + start, rx->size_bytes - start, 0)) ^ 0xffff;
    if (rxcsum & RXCSUM_IP && p->is_ip4) {
        rx->status |= STATUS_IP_SUM;
        rx->errors |= p->ip_ok ? 0U : (unsigned)ERROR_IP;
    }
    if (p->l4_checked) {
        rx->status |= p->is_udp && e->is_82574 ? STATUS_UDP_SUM | STATUS_TCP_SUM : STATUS_TCP_SUM;
        rx->errors |= p->l4_ok ? 0U : (unsigned)ERROR_L4;
    }
    if (!(rx->status & (STATUS_IP_SUM | STATUS_TCP_SUM)))
        rx->status |= STATUS_IGNORE_SUMS;
}

static void strip_vlan(struct e1000 *e, struct rx *rx)
{
    if (!(*e1000_reg(e, CTRL) & CTRL_VME) || rx->size_bytes < ETHERNET_BYTES + 4 ||
        type_of(e->rx_bytes) != (*e1000_reg(e, VET) & 0xffff))
        return;
    rx->tag = (uint16_t)(e->rx_bytes[14] << 8 | e->rx_bytes[15]);
    rx->status |= STATUS_VLAN;
    rx->size_bytes -= 4;
    memmove(e->rx_bytes + 12, e->rx_bytes + 16, rx->size_bytes - 12);
}

static void count_frame(struct e1000 *e, uint32_t frame_bytes)
{
    const uint8_t *mac = e->rx_bytes;
    static const uint8_t broadcast[6] = {255, 255, 255, 255, 255, 255};
    e1000_count(e, TPR, 1);
    e1000_count(e, GPRC, 1);
    e1000_count_octets(e, TOR, frame_bytes);
    e1000_count_octets(e, GORC, frame_bytes);
    e1000_count_size(e, PRC64, frame_bytes);
    if (memcmp(mac, broadcast, 6) == 0)
        e1000_count(e, BPRC, 1);
    else if (mac[0] & 1)
        e1000_count(e, MPRC, 1);
}

static enum e1000_rx_result store(struct e1000 *e, struct rx *rx, uint32_t wire_bytes)
{
    uint32_t each = capacity(rx);
    if (!e1000_ring(e, RX_RING + rx->queue * RING_STRIDE, &rx->ring))
        return E1000_RX_DROP;
    if (!each || (rx->size_bytes + each - 1) / each > rx->ring.count / rx->step)
        return E1000_RX_DROP; /* it never fits */
    if (free_descriptors(rx) < (rx->size_bytes + each - 1) / each) {
        e1000_count(e, RNBC, 1);
        e1000_raise(e, CAUSE_RXO);
        return E1000_RX_NO_ROOM;
    }
    count_frame(e, wire_bytes);
    for (uint32_t offset = 0; offset < rx->size_bytes; advance(e, rx)) {
        uint32_t n =
            fill(e, rx, rx->ring.base + (uint64_t)rx->ring.head * E1000_DESCRIPTOR_BYTES, offset);
        if (!n)
            break;
        offset += n;
    }
    uint32_t causes = e->is_82574 ? CAUSE_RXQ0 << rx->queue : 0;
    uint32_t threshold = rx->ring.count / rx->step >> (1 + (*e1000_reg(e, RCTL) >> 8 & 3));
    if (free_descriptors(rx) <= threshold)
        e1000_raise(e, CAUSE_RXDMT0);
    e1000_raise_rx(e, causes | CAUSE_RXT0);
    return E1000_RX_DONE;
}

/* Into rx_bytes, with as many zeroes as a frame needs at least; 0: too long. */
static uint32_t gather(struct e1000 *e, const struct iovec *iov, unsigned iov_count)
{
    size_t size_bytes = 0;
    for (unsigned i = 0; i < iov_count; i++) {
        if (iov[i].iov_len > E1000_RX_MAX_BYTES - FCS_BYTES - size_bytes)
            return 0;
        memcpy(e->rx_bytes + size_bytes, iov[i].iov_base, iov[i].iov_len);
        size_bytes += iov[i].iov_len;
    }
    if (size_bytes < RUNT_BYTES) {
        memset(e->rx_bytes + size_bytes, 0, RUNT_BYTES - size_bytes);
        size_bytes = RUNT_BYTES;
    }
    return (uint32_t)size_bytes;
}

static unsigned choose_queue(struct e1000 *e, const struct rx *rx)
{
    unsigned index = rx->parsed.hash & 127;
    if (!rx->parsed.hash_type)
        return 0;
    return *e1000_reg(e, RETA + (index & ~3U)) >> (8 * (index & 3)) >> 7 & 1;
}

enum e1000_rx_result e1000_receive(struct e1000 *e, const struct iovec *iov, unsigned iov_count)
{
    struct rx rx = {0};
    bool inexact;
    uint32_t rctl = *e1000_reg(e, RCTL);
    if (!(rctl & RCTL_EN))
        return E1000_RX_DROP;
    rx.size_bytes = gather(e, iov, iov_count);
    uint32_t wire_bytes = rx.size_bytes + FCS_BYTES;
    if (!rx.size_bytes || (rx.size_bytes > SHORT_MAX_BYTES && !(rctl & RCTL_LPE))) {
        e1000_count(e, ROC, 1);
        return E1000_RX_DROP;
    }
    if (!is_wanted(e, e->rx_bytes, &inexact) || !passes_vlan(e, e->rx_bytes))
        return E1000_RX_DROP;
    uint32_t crc = rctl & RCTL_SECRC ? 0 : e1000_crc(e->rx_bytes, rx.size_bytes);
    rx.status = inexact ? STATUS_INEXACT : 0;
    strip_vlan(e, &rx);
    e1000_parse(e, e->rx_bytes, rx.size_bytes, &rx.parsed);
    check_sums(e, &rx);
    if (!(rctl & RCTL_SECRC)) {
        memcpy(e->rx_bytes + rx.size_bytes, &crc, FCS_BYTES);
        rx.size_bytes += FCS_BYTES;
    }
    rx.queue = choose_queue(e, &rx);
    choose_format(e, &rx);
    return store(e, &rx, wire_bytes);
}
