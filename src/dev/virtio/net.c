/* SPDX-License-Identifier: BSD-2-Clause
 *
 * virtio network device (virtio 1.2, 5.1): checksum and TCP segmentation offloads both ways, merged
 * receive buffers, control queue (receive filter, MAC address, announcement, guest offloads), MTU,
 * link status. Left out: several queue pairs, RSS, VLAN filter, UDP segmentation, ECN.
 *
 * Threads: the back end lives on the loop's thread. A kick only rings a bell; frames are sent and
 * received there. The lock is not held while the back end runs, since it may answer at once.
 */
#include "dev/virtio/net.h"

#include "base/wake.h"

#include <stdlib.h>
#include <string.h>

enum { QUEUE_RX, QUEUE_TX, QUEUE_CONTROL, QUEUE_COUNT };

#define F_CSUM                (UINT64_C(1) << 0)
#define F_GUEST_CSUM          (UINT64_C(1) << 1)
#define F_CTRL_GUEST_OFFLOADS (UINT64_C(1) << 2)
#define F_MTU                 (UINT64_C(1) << 3)
#define F_MAC                 (UINT64_C(1) << 5)
#define F_GUEST_TSO4          (UINT64_C(1) << 7)
#define F_GUEST_TSO6          (UINT64_C(1) << 8)
#define F_HOST_TSO4           (UINT64_C(1) << 11)
#define F_HOST_TSO6           (UINT64_C(1) << 12)
#define F_MRG_RXBUF           (UINT64_C(1) << 15)
#define F_STATUS              (UINT64_C(1) << 16)
#define F_CTRL_VQ             (UINT64_C(1) << 17)
#define F_CTRL_RX             (UINT64_C(1) << 18)
#define F_CTRL_RX_EXTRA       (UINT64_C(1) << 20)
#define F_GUEST_ANNOUNCE      (UINT64_C(1) << 21)
#define F_CTRL_MAC_ADDR       (UINT64_C(1) << 23)
#define GUEST_OFFLOADS        (F_GUEST_CSUM | F_GUEST_TSO4 | F_GUEST_TSO6)

enum {
    /* 5.1.4: offsets in the configuration */
    CONFIG_MAC = 0,
    CONFIG_STATUS = 6,
    CONFIG_PAIRS = 8,
    CONFIG_MTU = 10,
    CONFIG_BYTES = 12,
    STATUS_LINK_UP = 1,
    STATUS_ANNOUNCE = 2,

    /* 5.1.6: the header before each frame */
    HEADER_BYTES = 12,
    HEADER_NEEDS_CSUM = 1,
    HEADER_DATA_VALID = 2,

    ETHERNET_BYTES = 14,
    MERGE_MAX = 64,  /* buffers for one frame */
    FILTER_MAX = 64, /* addresses of each kind; with more, all of the kind pass */
    COMMAND_MAX_BYTES = 4096,
};

/* 5.1.6.5: commands */
enum {
    CLASS_RX = 0, /* commands 0 … 5 are the modes in order */
    CLASS_MAC = 1,
    MAC_TABLE_SET = 0,
    MAC_ADDR_SET = 1,
    CLASS_ANNOUNCE = 3,
    ANNOUNCE_ACK = 0,
    CLASS_OFFLOADS = 5,
    OFFLOADS_SET = 0,
    COMMAND_OK = 0,
    COMMAND_ERROR = 1,
};

enum rx_mode { RX_PROMISC, RX_ALLMULTI, RX_ALLUNI, RX_NOMULTI, RX_NOUNI, RX_NOBCAST, RX_MODES };

struct filter {
    uint32_t count;
    bool is_full; /* there were more than fit */
    uint8_t macs[FILTER_MAX][6];
};

struct virtio_net {
    struct virtio_device *device;
    struct net_backend backend;
    struct wake *wake;
    uint8_t mac_default[6];

    /* guarded by the device's lock */
    uint8_t mac[6];
    uint16_t status;
    bool rx_modes[RX_MODES];
    struct filter unicast, multicast;
    uint64_t offloads; /* of GUEST_OFFLOADS, in use */
    bool features_changed, rx_waits, resume_wanted;

    /* the loop's thread only */
    struct virtio_chain tx_chain;
    struct virtio_chain *rx_chains[MERGE_MAX]; /* allocated when first needed */

    struct virtio_chain control_chain; /* under the lock */
    uint8_t command[COMMAND_MAX_BYTES];
};

static uint16_t get16(const uint8_t *bytes)
{
    return (uint16_t)(bytes[0] | bytes[1] << 8);
}

static void put16(uint8_t *bytes, uint16_t value)
{
    bytes[0] = (uint8_t)value;
    bytes[1] = (uint8_t)(value >> 8);
}

static void complain(struct virtio_net *net, const char *text)
{
    log_limited(virtio_log(net->device), virtio_log_limit(net->device), LOG_DEBUG, "virtio-net",
                "%s", text);
}

/* ---- from the guest ---- */

/* The header (a copy) of a frame of this size: false when its marks are none that the driver may
 * set for it. */
static bool parse_header(const struct virtio_net *net, const uint8_t *header, size_t frame_bytes,
                         struct net_offload *offload)
{
    *offload = (struct net_offload){0};
    if (header[0] & HEADER_NEEDS_CSUM) {
        offload->needs_checksum = true;
        offload->checksum_start = get16(header + 6);
        offload->checksum_offset = get16(header + 8);
        size_t field = (size_t)offload->checksum_start + offload->checksum_offset;
        if (!virtio_has(net->device, F_CSUM) || field + 2 > frame_bytes)
            return false;
    }
    offload->gso = header[1];
    if (offload->gso == NET_GSO_NONE)
        return true;
    uint64_t feature = offload->gso == NET_GSO_TCPV4   ? F_HOST_TSO4
                       : offload->gso == NET_GSO_TCPV6 ? F_HOST_TSO6
                                                       : UINT64_MAX;
    offload->header_bytes = get16(header + 2);
    offload->segment_bytes = get16(header + 4);
    return virtio_has(net->device, feature) && offload->needs_checksum &&
           offload->segment_bytes > 0;
}

/* Sends the frame in tx_chain. With the lock held, but not while the back end works. */
static void send_frame(struct virtio_net *net)
{
    struct virtio_chain *chain = &net->tx_chain;
    uint8_t header[HEADER_BYTES];
    struct net_offload offload;
    uint64_t frame_bytes = chain->readable_bytes - HEADER_BYTES;
    if (chain->readable_bytes < HEADER_BYTES + ETHERNET_BYTES ||
        frame_bytes > NET_FRAME_MAX_BYTES) {
        complain(net, "a frame to send is too short or too long");
        return;
    }
    virtio_chain_read(chain, 0, header, sizeof(header));
    if (!parse_header(net, header, (size_t)frame_bytes, &offload)) {
        complain(net, "a frame to send has a wrong header");
        return;
    }
    if (!(net->status & STATUS_LINK_UP))
        return;
    struct iovec *iov = chain->iov;
    unsigned count = chain->readable_count;
    virtio_iov_skip(&iov, &count, HEADER_BYTES);
    virtio_hold(net->device, QUEUE_TX);
    virtio_unlock(net->device);
    net->backend.send(net->backend.opaque, iov, count, &offload);
    virtio_lock(net->device);
    virtio_release(net->device, QUEUE_TX);
}

static enum virtio_taken take_frame(void *self, unsigned index)
{
    struct virtio_net *net = self;
    struct virtio_queue *q = virtio_queue(net->device, index);
    if (!virtio_queue_pop(q, &net->tx_chain))
        return VIRTIO_NONE;
    send_frame(net);
    virtio_queue_push(q, &net->tx_chain, 0);
    return VIRTIO_TAKEN;
}

/* ---- to the guest ---- */

static bool in_filter(const struct filter *filter, const uint8_t *mac)
{
    if (filter->is_full)
        return true;
    for (uint32_t i = 0; i < filter->count; i++)
        if (memcmp(filter->macs[i], mac, 6) == 0)
            return true;
    return false;
}

/* 5.1.6.5.1 */
static bool is_wanted(const struct virtio_net *net, const uint8_t *mac)
{
    static const uint8_t broadcast[6] = {255, 255, 255, 255, 255, 255};
    if (net->rx_modes[RX_PROMISC])
        return true;
    if (memcmp(mac, broadcast, 6) == 0)
        return !net->rx_modes[RX_NOBCAST];
    if (mac[0] & 1)
        return !net->rx_modes[RX_NOMULTI] &&
               (net->rx_modes[RX_ALLMULTI] || in_filter(&net->multicast, mac));
    if (net->rx_modes[RX_NOUNI])
        return false;
    return net->rx_modes[RX_ALLUNI] || memcmp(mac, net->mac, 6) == 0 ||
           in_filter(&net->unicast, mac);
}

/* The header for the guest; false when it does not take frames like this (any more). */
static bool make_header(const struct virtio_net *net, const struct net_offload *offload,
                        uint8_t *header)
{
    uint64_t needed = 0;
    memset(header, 0, HEADER_BYTES);
    if (offload->needs_checksum) {
        needed |= F_GUEST_CSUM;
        header[0] = HEADER_NEEDS_CSUM;
        put16(header + 6, offload->checksum_start);
        put16(header + 8, offload->checksum_offset);
    } else if (offload->checksum_valid && net->offloads & F_GUEST_CSUM) {
        header[0] = HEADER_DATA_VALID;
    }
    if (offload->gso != NET_GSO_NONE) {
        needed |= offload->gso == NET_GSO_TCPV4   ? F_GUEST_TSO4
                  : offload->gso == NET_GSO_TCPV6 ? F_GUEST_TSO6
                                                  : UINT64_MAX;
        header[1] = offload->gso;
        put16(header + 2, offload->header_bytes);
        put16(header + 4, offload->segment_bytes);
    }
    return (net->offloads & needed) == needed;
}

static void unpop(struct virtio_net *net, unsigned count)
{
    while (count > 0)
        virtio_queue_unpop(virtio_queue(net->device, QUEUE_RX), net->rx_chains[--count]);
}

enum rx_result { RX_READY, RX_NO_ROOM, RX_DROP };

/* Takes as many buffers as `size_bytes` need; none when they are too few. */
static enum rx_result take_buffers(struct virtio_net *net, uint64_t size_bytes, unsigned *count)
{
    struct virtio_queue *q = virtio_queue(net->device, QUEUE_RX);
    unsigned max = virtio_has(net->device, F_MRG_RXBUF) ? MERGE_MAX : 1;
    uint64_t room = 0;
    for (*count = 0; room < size_bytes; ++*count) {
        if (*count == max) {
            unpop(net, *count);
            complain(net, "receive buffers are too small for a frame");
            return RX_DROP;
        }
        struct virtio_chain **chain = &net->rx_chains[*count];
        if (!*chain && !(*chain = malloc(sizeof(**chain)))) {
            unpop(net, *count);
            return RX_DROP;
        }
        /* Kicks are asked for while those taken are still out: for the next buffer, not for one
         * that is there already. */
        if (!virtio_queue_pop(q, *chain) &&
            !(virtio_queue_listen(q) && virtio_queue_pop(q, *chain))) {
            unpop(net, *count);
            return virtio_live(net->device) ? RX_NO_ROOM : RX_DROP;
        }
        room += (*chain)->writable_bytes;
    }
    return RX_READY;
}

/* Where the next byte goes: merged buffers one after the other. */
struct rx_place {
    struct virtio_net *net;
    unsigned chain;
    uint64_t offset;
};

static void rx_write(struct rx_place *place, const uint8_t *bytes, size_t size_bytes)
{
    while (size_bytes > 0) {
        const struct virtio_chain *chain = place->net->rx_chains[place->chain];
        size_t n = virtio_chain_write(chain, place->offset, bytes, size_bytes);
        bytes += n;
        size_bytes -= n;
        place->offset += n;
        if (size_bytes > 0) {
            place->chain++;
            place->offset = 0;
        }
    }
}

static void fill_buffers(struct virtio_net *net, unsigned count, uint8_t *header,
                         const struct iovec *iov, unsigned iov_count, uint64_t size_bytes)
{
    struct virtio_queue *q = virtio_queue(net->device, QUEUE_RX);
    struct rx_place place = {net, 0, 0};
    put16(header + 10, (uint16_t)count);
    rx_write(&place, header, HEADER_BYTES);
    for (unsigned i = 0; i < iov_count; i++)
        rx_write(&place, iov[i].iov_base, iov[i].iov_len);
    for (unsigned i = 0; i < count; i++) {
        uint64_t room = net->rx_chains[i]->writable_bytes;
        uint64_t written = size_bytes < room ? size_bytes : room;
        virtio_queue_fill(q, net->rx_chains[i], written);
        size_bytes -= written;
    }
    virtio_queue_publish(q);
    virtio_queue_notify(q);
}

static enum rx_result receive_locked(struct virtio_net *net, const struct iovec *iov,
                                     unsigned iov_count, const struct net_offload *offload)
{
    struct virtio_queue *q = virtio_queue(net->device, QUEUE_RX);
    uint8_t header[HEADER_BYTES];
    uint64_t size_bytes = HEADER_BYTES;
    for (unsigned i = 0; i < iov_count; i++)
        size_bytes += iov[i].iov_len;
    if (!virtio_live(net->device) || !q->enabled || !(net->status & STATUS_LINK_UP) ||
        size_bytes < HEADER_BYTES + ETHERNET_BYTES || iov[0].iov_len < 6 ||
        !is_wanted(net, iov[0].iov_base) || !make_header(net, offload, header))
        return RX_DROP;
    unsigned count;
    enum rx_result result = take_buffers(net, size_bytes, &count);
    if (result == RX_READY)
        fill_buffers(net, count, header, iov, iov_count, size_bytes);
    return result;
}

static bool net_receive(void *opaque, const struct iovec *iov, unsigned iov_count,
                        const struct net_offload *offload)
{
    struct virtio_net *net = opaque;
    virtio_lock(net->device);
    enum rx_result result = receive_locked(net, iov, iov_count, offload);
    net->rx_waits = result == RX_NO_ROOM;
    virtio_unlock(net->device);
    return result != RX_NO_ROOM;
}

/* ---- the loop's turn ---- */

/* What was asked for under the lock, on other threads. */
static void net_service(void *opaque)
{
    struct virtio_net *net = opaque;
    virtio_lock(net->device);
    bool features_changed = net->features_changed;
    struct net_guest_features features = {.checksum = net->offloads & F_GUEST_CSUM,
                                          .tso4 = net->offloads & F_GUEST_TSO4,
                                          .tso6 = net->offloads & F_GUEST_TSO6};
    net->features_changed = false;
    virtio_unlock(net->device);
    if (features_changed && net->backend.set_guest_features)
        net->backend.set_guest_features(net->backend.opaque, &features);

    virtio_lock(net->device);
    if (virtio_live(net->device) && virtio_queue(net->device, QUEUE_TX)->enabled)
        virtio_serve(net->device, QUEUE_TX, take_frame);
    bool resume = net->resume_wanted;
    net->resume_wanted = false;
    virtio_unlock(net->device);
    if (resume && net->backend.resume)
        net->backend.resume(net->backend.opaque);
}

static void use_offloads(struct virtio_net *net, uint64_t offloads)
{
    net->offloads = offloads & GUEST_OFFLOADS;
    net->features_changed = true;
    wake_ring(net->wake);
}

/* The back end holds frames that it may offer again. */
static void want_resume(struct virtio_net *net)
{
    net->rx_waits = false;
    net->resume_wanted = true;
    wake_ring(net->wake);
}

/* ---- commands ---- */

static bool table_parse(const uint8_t **bytes, size_t *left, struct filter *filter)
{
    if (*left < 4)
        return false;
    uint64_t count = get16(*bytes) | (uint64_t)get16(*bytes + 2) << 16;
    if (count * 6 > *left - 4)
        return false;
    filter->is_full = count > FILTER_MAX;
    filter->count = filter->is_full ? 0 : (uint32_t)count;
    memcpy(filter->macs, *bytes + 4, filter->count * 6);
    *bytes += 4 + count * 6;
    *left -= 4 + count * 6;
    return true;
}

static bool command_mac(struct virtio_net *net, uint8_t command, const uint8_t *bytes, size_t left)
{
    struct filter unicast, multicast;
    if (command == MAC_ADDR_SET && virtio_has(net->device, F_CTRL_MAC_ADDR) && left == 6) {
        memcpy(net->mac, bytes, 6);
        return true;
    }
    if (command != MAC_TABLE_SET || !table_parse(&bytes, &left, &unicast) ||
        !table_parse(&bytes, &left, &multicast) || left > 0)
        return false;
    net->unicast = unicast;
    net->multicast = multicast;
    return true;
}

static bool command_offloads(struct virtio_net *net, const uint8_t *bytes, size_t left)
{
    uint64_t offloads = 0;
    if (left != 8)
        return false;
    for (unsigned i = 0; i < 8; i++)
        offloads |= (uint64_t)bytes[i] << 8 * i;
    if (offloads & ~(virtio_features(net->device) & GUEST_OFFLOADS))
        return false;
    use_offloads(net, offloads);
    return true;
}

static bool command_run(struct virtio_net *net, const uint8_t *bytes, size_t size_bytes)
{
    if (size_bytes < 2)
        return false;
    uint8_t class = bytes[0], command = bytes[1];
    bytes += 2;
    size_bytes -= 2;
    switch (class) {
    case CLASS_RX:
        if (command >= RX_MODES || size_bytes != 1 || bytes[0] > 1 ||
            !virtio_has(net->device, command <= RX_ALLMULTI ? F_CTRL_RX : F_CTRL_RX_EXTRA))
            return false;
        net->rx_modes[command] = bytes[0];
        return true;
    case CLASS_MAC: return command_mac(net, command, bytes, size_bytes);
    case CLASS_ANNOUNCE:
        if (command != ANNOUNCE_ACK || !virtio_has(net->device, F_GUEST_ANNOUNCE))
            return false;
        net->status &= (uint16_t)~STATUS_ANNOUNCE;
        return true;
    case CLASS_OFFLOADS:
        return command == OFFLOADS_SET && virtio_has(net->device, F_CTRL_GUEST_OFFLOADS) &&
               command_offloads(net, bytes, size_bytes);
    default: return false;
    }
}

static enum virtio_taken take_command(void *self, unsigned index)
{
    struct virtio_net *net = self;
    struct virtio_queue *q = virtio_queue(net->device, index);
    struct virtio_chain *chain = &net->control_chain;
    if (!virtio_queue_pop(q, chain))
        return VIRTIO_NONE;
    if (chain->writable_bytes < 1) {
        virtio_queue_break(q, "a command has no room for its status");
        return VIRTIO_NONE;
    }
    size_t size_bytes = virtio_chain_read(chain, 0, net->command, COMMAND_MAX_BYTES);
    bool works = size_bytes == chain->readable_bytes && command_run(net, net->command, size_bytes);
    uint8_t status = works ? COMMAND_OK : COMMAND_ERROR;
    virtio_chain_write(chain, 0, &status, 1);
    virtio_queue_push(q, chain, 1);
    return VIRTIO_TAKEN;
}

/* ---- struct virtio_ops ---- */

static void net_config_read(void *self, uint32_t offset, void *buffer, uint32_t size_bytes)
{
    const struct virtio_net *net = self;
    uint8_t config[CONFIG_BYTES] = {0};
    memcpy(config + CONFIG_MAC, net->mac, 6);
    put16(config + CONFIG_STATUS, net->status);
    put16(config + CONFIG_PAIRS, 1);
    put16(config + CONFIG_MTU, (uint16_t)net->backend.mtu_bytes);
    memcpy(buffer, config + offset, size_bytes);
}

/* 5.1.3.1: what needs what. */
static bool net_features_check(void *self, uint64_t features)
{
    static const struct {
        uint64_t feature, needs;
    } rules[] = {
        {F_GUEST_TSO4, F_GUEST_CSUM},
        {F_GUEST_TSO6, F_GUEST_CSUM},
        {F_HOST_TSO4, F_CSUM},
        {F_HOST_TSO6, F_CSUM},
        {F_CTRL_RX, F_CTRL_VQ},
        {F_CTRL_RX_EXTRA, F_CTRL_RX},
        {F_GUEST_ANNOUNCE, F_CTRL_VQ},
        {F_CTRL_MAC_ADDR, F_CTRL_VQ},
        {F_CTRL_GUEST_OFFLOADS, F_CTRL_VQ},
    };
    for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++)
        if (features & rules[i].feature && !(features & rules[i].needs))
            return false;
    return true;
}

static void net_start(void *self)
{
    struct virtio_net *net = self;
    use_offloads(net, virtio_features(net->device));
    want_resume(net);
}

static void net_kick(void *self, unsigned index)
{
    struct virtio_net *net = self;
    struct virtio_queue *q = virtio_queue(net->device, index);
    if (index == QUEUE_CONTROL) {
        if (virtio_has(net->device, F_CTRL_VQ))
            virtio_serve(net->device, index, take_command);
        return;
    }
    virtio_queue_suppress(q);
    if (index == QUEUE_TX)
        wake_ring(net->wake);
    else if (net->rx_waits)
        want_resume(net);
}

static void net_queue_reset(void *self, unsigned index)
{
    if (index == QUEUE_RX)
        want_resume(self);
}

static void net_reset(void *self)
{
    struct virtio_net *net = self;
    memcpy(net->mac, net->mac_default, 6);
    net->status &= (uint16_t)~STATUS_ANNOUNCE;
    memset(net->rx_modes, 0, sizeof(net->rx_modes));
    net->rx_modes[RX_PROMISC] = true; /* until the driver says otherwise */
    net->unicast.count = net->multicast.count = 0;
    net->unicast.is_full = net->multicast.is_full = false;
    use_offloads(net, 0);
    want_resume(net);
}

static void save_filter(const struct filter *filter, struct save *save)
{
    save_u32(save, filter->count);
    save_bool(save, filter->is_full);
    save_bytes(save, filter->macs, filter->count * 6);
}

static void net_save(void *self, struct save *save)
{
    const struct virtio_net *net = self;
    save_bytes(save, net->mac, 6);
    save_u16(save, net->status);
    for (unsigned i = 0; i < RX_MODES; i++)
        save_bool(save, net->rx_modes[i]);
    save_filter(&net->unicast, save);
    save_filter(&net->multicast, save);
    save_u64(save, net->offloads);
}

static void load_filter(struct filter *filter, struct load *load)
{
    filter->count = load_u32(load);
    filter->is_full = load_bool(load);
    if (filter->count > FILTER_MAX) {
        filter->count = 0;
        load_fail(load);
    }
    load_bytes(load, filter->macs, filter->count * 6);
}

static bool net_load(void *self, struct load *load, uint32_t version)
{
    struct virtio_net *net = self;
    load_bytes(load, net->mac, 6);
    net->status = load_u16(load) & (STATUS_LINK_UP | STATUS_ANNOUNCE);
    for (unsigned i = 0; i < RX_MODES; i++)
        net->rx_modes[i] = load_bool(load);
    load_filter(&net->unicast, load);
    load_filter(&net->multicast, load);
    uint64_t offloads = load_u64(load);
    if (offloads & ~(virtio_features(net->device) & GUEST_OFFLOADS))
        load_fail(load);
    if (!load->failed)
        use_offloads(net, offloads);
    return !load->failed;
}

static void net_free(struct virtio_net *net)
{
    wake_close(net->wake);
    for (unsigned i = 0; i < MERGE_MAX; i++)
        free(net->rx_chains[i]);
    free(net);
}

static void net_destroy(void *self)
{
    struct virtio_net *net = self;
    net->backend.set_receiver(net->backend.opaque, NULL);
    net_free(net);
}

static const struct virtio_ops net_ops = {
    .name = "virtio-net",
    .type = VIRTIO_TYPE_NET,
    .pci_class = 0x020000,
    .version = 1,
    .config_read = net_config_read,
    .features_check = net_features_check,
    .start = net_start,
    .kick = net_kick,
    .queue_reset = net_queue_reset,
    .reset = net_reset,
    .save = net_save,
    .load = net_load,
    .destroy = net_destroy,
};

static uint64_t features_of(const struct net_backend *backend)
{
    uint64_t features = F_MAC | F_MRG_RXBUF | F_STATUS | F_CTRL_VQ | F_CTRL_RX | F_CTRL_RX_EXTRA |
                        F_GUEST_ANNOUNCE | F_CTRL_MAC_ADDR | GUEST_OFFLOADS | F_CTRL_GUEST_OFFLOADS;
    if (backend->offers_offloads)
        features |= F_CSUM | F_HOST_TSO4 | F_HOST_TSO6;
    if (backend->mtu_bytes >= 68 && backend->mtu_bytes <= UINT16_MAX)
        features |= F_MTU;
    return features;
}

struct virtio_device *virtio_net_create(const struct virtio_net_config *config, struct error *err)
{
    static const uint16_t sizes[QUEUE_COUNT] = {256, 256, 64};
    struct virtio_net *net = calloc(1, sizeof(*net));
    if (!net) {
        error_set(err, "cannot create device", net_ops.name, "out of memory");
        return NULL;
    }
    net->backend = config->backend;
    memcpy(net->mac_default, config->mac, 6);
    memcpy(net->mac, config->mac, 6);
    net->rx_modes[RX_PROMISC] = true;
    if (!net->backend.link_up || net->backend.link_up(net->backend.opaque))
        net->status = STATUS_LINK_UP;
    struct virtio_config core = {.ops = &net_ops,
                                 .self = net,
                                 .ram = config->ram,
                                 .loop = config->loop,
                                 .log = config->log,
                                 .features = features_of(&config->backend),
                                 .features_off = config->features_off,
                                 .config_size_bytes = CONFIG_BYTES,
                                 .queue_count = QUEUE_COUNT,
                                 .queue_sizes = sizes};
    net->wake = wake_open(config->loop, net_service, net, err);
    net->device = net->wake ? virtio_create(&core, err) : NULL;
    if (!net->device) {
        net_free(net);
        return NULL;
    }
    struct net_receiver receiver = {net_receive, net};
    net->backend.set_receiver(net->backend.opaque, &receiver);
    return net->device;
}

void virtio_net_set_link(struct virtio_device *device, bool is_up)
{
    struct virtio_net *net = virtio_self(device);
    virtio_lock(device);
    uint16_t status = (uint16_t)((net->status & ~STATUS_LINK_UP) | (is_up ? STATUS_LINK_UP : 0));
    if (status != net->status) {
        net->status = status;
        virtio_config_changed(device);
        want_resume(net);
    }
    virtio_unlock(device);
}

void virtio_net_announce(struct virtio_device *device)
{
    struct virtio_net *net = virtio_self(device);
    virtio_lock(device);
    if (virtio_has(device, F_GUEST_ANNOUNCE | F_STATUS)) {
        net->status |= STATUS_ANNOUNCE;
        virtio_config_changed(device);
    }
    virtio_unlock(device);
}
