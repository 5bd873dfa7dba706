/* SPDX-License-Identifier: BSD-2-Clause
 *
 * e1000: transmission (8254x manual, 3.3 to 3.5): legacy, context and data descriptors, checksums,
 * TCP segmentation, VLAN tags. The card finishes its frames itself, like the real one: what drivers
 * ask for is more than the back ends' offload marks can say (any header, any place of a sum).
 */
#include "dev/net/e1000_internal.h"

#include <stdatomic.h>
#include <string.h>

enum {
    DESCRIPTORS_AT_ONCE = 256, /* in one turn of the loop */
    FRAME_MIN_BYTES = 60,
    ETHERNET_BYTES = 14,
    FCS_BYTES = 4,
    SEGMENT_MIN_BYTES = 32, /* smaller ones only serve to make work */

    OPTION_IP = 1 << 0,
    OPTION_L4 = 1 << 1,
};

/* Commands, in word 2. */
#define COMMAND_END      (1U << 24)
#define COMMAND_CHECKSUM (1U << 26) /* legacy: IC; otherwise TSE */
#define COMMAND_SEGMENT  (1U << 26)
#define COMMAND_REPORT   (1U << 27)
#define COMMAND_EXTENDED (1U << 29)
#define COMMAND_VLAN     (1U << 30)
#define COMMAND_DELAY    (1U << 31)
#define CONTEXT_TCP      (1U << 24)
#define CONTEXT_IP4      (1U << 25)

static uint16_t be16(const uint8_t *bytes)
{
    return (uint16_t)(bytes[0] << 8 | bytes[1]);
}

static void put_be16(uint8_t *bytes, uint32_t value)
{
    bytes[0] = (uint8_t)(value >> 8);
    bytes[1] = (uint8_t)value;
}

static uint32_t be32(const uint8_t *bytes)
{
    return (uint32_t)be16(bytes) << 16 | be16(bytes + 2);
}

/* Sums `start` … `end` (inclusive; 0: the frame's) and stores it, when all of that is there. */
static void insert_sum(uint8_t *frame, uint32_t size_bytes, uint32_t start, uint32_t at,
                       uint32_t end)
{
    end = end && end < size_bytes ? end + 1 : size_bytes;
    if (start < end && at + 2 <= size_bytes)
        put_be16(frame + at, (uint16_t)~e1000_fold(e1000_sum(frame + start, end - start, 0)));
}

static void insert_sums(const struct e1000_tx *tx, uint8_t *frame, uint32_t size_bytes)
{
    const uint32_t *c = tx->context;
    if (tx->options & OPTION_L4)
        insert_sum(frame, size_bytes, c[1] & 0xff, c[1] >> 8 & 0xff, c[1] >> 16);
    if (tx->options & OPTION_IP)
        insert_sum(frame, size_bytes, c[0] & 0xff, c[0] >> 8 & 0xff, c[0] >> 16);
}

/* ---- to the back end ---- */

static void count_frame(struct e1000 *e, const uint8_t *mac, uint32_t frame_bytes)
{
    static const uint8_t broadcast[6] = {255, 255, 255, 255, 255, 255};
    e1000_count(e, TPT, 1);
    e1000_count(e, GPTC, 1);
    e1000_count_octets(e, TOT, frame_bytes);
    e1000_count_octets(e, GOTC, frame_bytes);
    e1000_count_size(e, PTC64, frame_bytes);
    if (memcmp(mac, broadcast, 6) == 0)
        e1000_count(e, BPTC, 1);
    else if (mac[0] & 1)
        e1000_count(e, MPTC, 1);
}

/* A finished frame. False: the card was reset meanwhile. */
static bool send(struct e1000 *e, uint8_t *frame, uint32_t size_bytes, bool has_tag, uint16_t tag)
{
    static const uint8_t zeroes[FRAME_MIN_BYTES];
    const struct net_offload finished = {0};
    uint8_t vlan[4];
    struct iovec iov[4] = {{frame, size_bytes}};
    unsigned count = 1;
    if (size_bytes < ETHERNET_BYTES)
        return true;
    if (has_tag) {
        put_be16(vlan, *e1000_reg(e, VET));
        put_be16(vlan + 2, tag);
        iov[0].iov_len = 12;
        iov[1] = (struct iovec){vlan, sizeof(vlan)};
        iov[2] = (struct iovec){frame + 12, size_bytes - 12};
        size_bytes += sizeof(vlan);
        count = 3;
    }
    if (size_bytes < FRAME_MIN_BYTES && *e1000_reg(e, TCTL) & TCTL_PSP) {
        iov[count++] = (struct iovec){(void *)(uintptr_t)zeroes, FRAME_MIN_BYTES - size_bytes};
        size_bytes = FRAME_MIN_BYTES;
    }
    count_frame(e, frame, size_bytes + FCS_BYTES);
    if (e1000_loops_back(e)) {
        e1000_receive(e, iov, count);
        return true;
    }
    if (!e1000_link_up(e))
        return true;
    uint32_t generation = e->generation;
    pthread_mutex_unlock(&e->lock);
    e->backend.send(e->backend.opaque, iov, count, &finished);
    pthread_mutex_lock(&e->lock);
    return generation == e->generation;
}

/* Makes segment number `index` out of the prototype header (8254x manual, 3.5.9). */
static void adjust_headers(const struct e1000_tx *tx, uint8_t *frame, uint32_t size_bytes,
                           uint32_t index, bool is_last)
{
    uint32_t ip = tx->context[0] & 0xff, l4 = tx->context[1] & 0xff;
    uint32_t sum_at = tx->context[1] >> 8 & 0xff, mss = tx->context[3] >> 16;
    uint32_t header_bytes = tx->context[3] >> 8 & 0xff;
    if (tx->context[2] & CONTEXT_IP4 && ip + 6 <= header_bytes) {
        put_be16(frame + ip + 2, size_bytes - ip);
        put_be16(frame + ip + 4, be16(frame + ip + 4) + index);
    } else if (!(tx->context[2] & CONTEXT_IP4) && ip + 40 <= header_bytes) {
        put_be16(frame + ip + 4, size_bytes - ip - 40);
    }
    if (tx->context[2] & CONTEXT_TCP && l4 + 14 <= header_bytes) {
        uint32_t sequence = be32(frame + l4 + 4) + index * mss;
        put_be16(frame + l4 + 4, sequence >> 16);
        put_be16(frame + l4 + 6, sequence);
        if (!is_last)
            frame[l4 + 13] &= (uint8_t)~0x09; /* FIN and PSH are for the last one */
    } else if (!(tx->context[2] & CONTEXT_TCP) && l4 + 6 <= header_bytes) {
        put_be16(frame + l4 + 4, size_bytes - l4);
    }
    /* The driver's sum of the pseudo-header leaves out the length, which differs. */
    if (tx->options & OPTION_L4 && sum_at + 2 <= header_bytes && l4 < size_bytes)
        put_be16(frame + sum_at, e1000_fold(be16(frame + sum_at) + (size_bytes - l4)));
}

static bool send_segments(struct e1000 *e, struct e1000_tx *tx, bool has_tag, uint16_t tag)
{
    uint32_t header_bytes = tx->context[3] >> 8 & 0xff, mss = tx->context[3] >> 16;
    if (header_bytes < ETHERNET_BYTES || mss < SEGMENT_MIN_BYTES ||
        header_bytes >= tx->size_bytes) {
        log_limited(e->log, &e->log_limit, LOG_DEBUG, "e1000", "a frame cannot be segmented");
        return true;
    }
    uint32_t payload_bytes = tx->size_bytes - header_bytes;
    e1000_count(e, TSCTC, 1);
    for (uint32_t offset = 0, index = 0; offset < payload_bytes; offset += mss, index++) {
        uint32_t n = payload_bytes - offset < mss ? payload_bytes - offset : mss;
        memcpy(e->segment, tx->bytes, header_bytes);
        memcpy(e->segment + header_bytes, tx->bytes + header_bytes + offset, n);
        adjust_headers(tx, e->segment, header_bytes + n, index, offset + n == payload_bytes);
        insert_sums(tx, e->segment, header_bytes + n);
        if (!send(e, e->segment, header_bytes + n, has_tag, tag))
            return false;
    }
    return true;
}

/* ---- descriptors ---- */

static void append(struct e1000 *e, struct e1000_tx *tx, uint64_t gpa, uint32_t size_bytes)
{
    if (size_bytes > sizeof(tx->bytes) - tx->size_bytes)
        tx->is_too_long = true;
    if (tx->is_too_long || !size_bytes)
        return;
    if (!ram_read(e->ram, gpa, tx->bytes + tx->size_bytes, size_bytes))
        memset(tx->bytes + tx->size_bytes, 0xff, size_bytes); /* nobody answers there */
    tx->size_bytes += size_bytes;
}

static bool send_frame(struct e1000 *e, struct e1000_tx *tx, const uint32_t words[4])
{
    bool has_tag = words[2] & COMMAND_VLAN && *e1000_reg(e, CTRL) & CTRL_VME;
    uint16_t tag = (uint16_t)(words[3] >> 16);
    if (tx->is_too_long) {
        log_limited(e->log, &e->log_limit, LOG_DEBUG, "e1000", "a frame to send is too long");
        return true;
    }
    if (tx->is_extended && tx->segments)
        return send_segments(e, tx, has_tag, tag);
    if (tx->is_extended)
        insert_sums(tx, tx->bytes, tx->size_bytes);
    else if (words[2] & COMMAND_CHECKSUM)
        insert_sum(tx->bytes, tx->size_bytes, words[3] >> 8 & 0xff, words[2] >> 16 & 0xff, 0);
    return send(e, tx->bytes, tx->size_bytes, has_tag, tag);
}

/* Takes one descriptor. False: the card was reset meanwhile. */
static bool take(struct e1000 *e, struct e1000_tx *tx, const uint32_t words[4])
{
    bool is_extended = words[2] & COMMAND_EXTENDED;
    if (is_extended && (words[2] >> 20 & 15) == 0) {
        memcpy(tx->context, words, sizeof(tx->context));
        return true;
    }
    if (!tx->in_frame) {
        tx->in_frame = true;
        tx->is_extended = is_extended;
        tx->segments = is_extended && words[2] & COMMAND_SEGMENT;
        tx->options = (uint8_t)(words[3] >> 8);
        tx->is_too_long = false;
        tx->size_bytes = 0;
    }
    append(e, tx, words[0] | (uint64_t)words[1] << 32, words[2] & (is_extended ? 0xfffff : 0xffff));
    if (!(words[2] & COMMAND_END))
        return true;
    if (!send_frame(e, tx, words))
        return false;
    tx->in_frame = false;
    return true;
}

/* Runs a queue; returns the causes that come of it, and whether one may wait. */
static uint32_t run_queue(struct e1000 *e, unsigned queue, unsigned *budget, bool *may_wait)
{
    struct e1000_ring ring;
    uint32_t words[4], causes = 0;
    while (*e1000_reg(e, TCTL) & TCTL_EN && e1000_ring(e, TX_RING + queue * RING_STRIDE, &ring) &&
           ring.head != ring.tail) {
        uint64_t gpa = ring.base + (uint64_t)ring.head * E1000_DESCRIPTOR_BYTES;
        if (*budget == 0) {
            wake_ring(e->wake); /* others have their turn first */
            return causes;
        }
        --*budget;
        if (!ram_read(e->ram, gpa, words, sizeof(words)))
            return causes; /* no ring there: the card stands still */
        if (!take(e, &e->tx[queue], words))
            return 0;
        if (words[2] & COMMAND_REPORT) {
            words[3] |= 1; /* done */
            atomic_thread_fence(memory_order_release);
            ram_write(e->ram, gpa + 12, words + 3, 4);
            causes |= CAUSE_TXDW | (e->is_82574 ? CAUSE_TXQ0 << queue : 0);
            *may_wait = *may_wait && words[2] & COMMAND_DELAY;
        }
        uint32_t next = (ring.head + 1) % ring.count;
        *e1000_reg(e, ring.block + RING_HEAD) = next;
        if (next == ring.tail)
            causes |= CAUSE_TXQE;
    }
    return causes;
}

void e1000_transmit(struct e1000 *e)
{
    unsigned budget = DESCRIPTORS_AT_ONCE;
    for (unsigned i = 0; i < (e->is_82574 ? 2U : 1U); i++) {
        bool may_wait = true;
        uint32_t generation = e->generation;
        uint32_t causes = run_queue(e, i, &budget, &may_wait);
        if (generation != e->generation)
            return;
        if (causes & CAUSE_TXDW)
            e1000_raise_tx(e, causes & ~CAUSE_TXQE, may_wait);
        if (causes & CAUSE_TXQE)
            e1000_raise(e, CAUSE_TXQE);
    }
}
