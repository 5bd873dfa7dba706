/* SPDX-License-Identifier: BSD-2-Clause
 *
 * virtio's network, console and balloon devices: requests of all their queues, frames and bytes
 * from the host, back ends with and without room, the configuration space, saved states. The first
 * byte of an input chooses the device, and its features.
 */
#include "base/loop.h"
#include "bus/char.h"
#include "bus/net.h"
#include "dev/virtio/balloon.h"
#include "dev/virtio/console.h"
#include "dev/virtio/net.h"
#include "fuzz/virtio_rings.h"

enum { NET, CONSOLE, BALLOON, DEVICES };
enum { PORTS = 2, FRAME_MAX_BYTES = 700, OPERATIONS_MAX = 400, TURNS = 3 };

struct peer {
    struct char_handler handler;
    size_t room;
    bool is_connected;
};

static struct {
    struct ram *ram;
    struct loop *loop;
    struct virtio_device *devices[DEVICES];
    struct net_receiver receiver;
    bool is_link_up;
    struct peer peers[PORTS];
} machine;

static bool is_ram(const void *at, size_t size_bytes)
{
    return fuzz_is_ram(machine.ram, at, size_bytes);
}

/* ---- back ends ---- */

static void net_send(void *opaque, const struct iovec *iov, unsigned iov_count,
                     const struct net_offload *offload)
{
    size_t size = 0;
    for (unsigned i = 0; i < iov_count; i++) {
        require(is_ram(iov[i].iov_base, iov[i].iov_len), "a frame is in guest memory");
        size += iov[i].iov_len;
    }
    require(size >= 14 && size <= NET_FRAME_MAX_BYTES, "a frame has a size");
    require(!offload->needs_checksum ||
                (size_t)offload->checksum_start + offload->checksum_offset + 2 <= size,
            "a checksum is in its frame");
}

static void net_set_receiver(void *opaque, const struct net_receiver *receiver)
{
    machine.receiver = receiver ? *receiver : (struct net_receiver){0};
}

static void net_set_features(void *opaque, const struct net_guest_features *features) {}

static void net_resume(void *opaque) {}

static bool net_link_up(void *opaque)
{
    return machine.is_link_up;
}

static size_t peer_write(void *opaque, const uint8_t *bytes, size_t size_bytes)
{
    struct peer *peer = opaque;
    size_t taken = size_bytes < peer->room ? size_bytes : peer->room;
    /* An emergency write is one byte that is nowhere else. */
    require(size_bytes == 1 || is_ram(bytes, size_bytes), "output is in guest memory");
    peer->room -= taken;
    return taken;
}

static void peer_accept(void *opaque) {}

static void peer_set_handler(void *opaque, const struct char_handler *handler)
{
    ((struct peer *)opaque)->handler = handler ? *handler : (struct char_handler){0};
}

static bool peer_is_connected(void *opaque)
{
    return ((struct peer *)opaque)->is_connected;
}

/* ---- devices ---- */

static struct virtio_device *make_net(void)
{
    const struct virtio_net_config config = {.ram = machine.ram,
                                             .loop = machine.loop,
                                             .backend = {.send = net_send,
                                                         .set_receiver = net_set_receiver,
                                                         .set_guest_features = net_set_features,
                                                         .resume = net_resume,
                                                         .link_up = net_link_up,
                                                         .mtu_bytes = 1500,
                                                         .offers_offloads = true},
                                             .mac = {0x52, 0x54, 0, 1, 2, 3}};
    return virtio_net_create(&config, NULL);
}

static struct virtio_device *make_console(void)
{
    struct virtio_console_port ports[PORTS] = {{.is_console = true}, {.name = "fuzz"}};
    for (unsigned i = 0; i < PORTS; i++)
        ports[i].backend = (struct char_backend){.write = peer_write,
                                                 .accept = peer_accept,
                                                 .set_handler = peer_set_handler,
                                                 .is_connected = peer_is_connected,
                                                 .opaque = &machine.peers[i]};
    const struct virtio_console_config config = {.ram = machine.ram,
                                                 .loop = machine.loop,
                                                 .ports = ports,
                                                 .port_count = PORTS,
                                                 .columns = 80,
                                                 .rows = 25};
    return virtio_console_create(&config, NULL);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    machine.ram = ram_create(FUZZ_RINGS_RAM_BYTES, NULL);
    machine.loop = loop_create(NULL);
    require(machine.ram && machine.loop, "the machine is made");
    ram_set_watcher(machine.ram, fuzz_ram_written, machine.ram);
    const struct virtio_balloon_config balloon = {.ram = machine.ram, .loop = machine.loop};
    machine.devices[NET] = make_net();
    machine.devices[CONSOLE] = make_console();
    machine.devices[BALLOON] = virtio_balloon_create(&balloon, NULL);
    for (unsigned i = 0; i < DEVICES; i++)
        require(machine.devices[i], "the devices are made");
    return 0;
}

/* ---- what the host does ---- */

static void offer_frame(struct input *in, uint8_t code)
{
    uint8_t bytes[FRAME_MAX_BYTES] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    const size_t size = 14 + (size_t)take(in, 2) % (FRAME_MAX_BYTES - 14);
    const struct net_offload offload = {.checksum_valid = code & 8,
                                        .needs_checksum = code & 0x10,
                                        .checksum_start = 14,
                                        .gso = code & 0x20 ? NET_GSO_TCPV4 : NET_GSO_NONE,
                                        .segment_bytes = 100};
    struct iovec iov[2] = {{bytes, 14}, {bytes + 14, size - 14}};
    if (code & 0x40)
        bytes[0] = (uint8_t)take(in, 1);
    (void)machine.receiver.receive(machine.receiver.opaque, iov, 2, &offload);
}

static void net_event(struct input *in, uint8_t code)
{
    if (code & 0x80) {
        offer_frame(in, code);
    } else if (code & 0x40) {
        machine.is_link_up = code & 0x20;
        virtio_net_set_link(machine.devices[NET], machine.is_link_up);
    } else {
        virtio_net_announce(machine.devices[NET]);
    }
}

static void console_event(struct input *in, uint8_t code)
{
    static const uint8_t text[300] = "text";
    struct peer *peer = &machine.peers[code >> 3 & 1];
    const size_t size = (size_t)take(in, 1);
    switch (code >> 4 & 3) {
    case 0:
        require(peer->handler.receive(peer->handler.opaque, text, size) <= size,
                "no more is taken than there is");
        break;
    case 1:
        peer->room = size;
        peer->handler.writable(peer->handler.opaque);
        break;
    case 2:
        peer->is_connected = size & 1;
        peer->handler.connected(peer->handler.opaque, peer->is_connected);
        break;
    case 3: virtio_console_resize(machine.devices[CONSOLE], (uint16_t)size, 25); break;
    }
}

static void balloon_event(struct input *in, uint8_t code)
{
    struct virtio_device *balloon = machine.devices[BALLOON];
    struct virtio_balloon_stats stats;
    if (code & 8)
        virtio_balloon_set_target(balloon, take(in, 3));
    else
        (void)virtio_balloon_request_stats(balloon);
    virtio_balloon_get_stats(balloon, &stats);
    require(virtio_balloon_actual_bytes(balloon) <= FUZZ_RINGS_RAM_BYTES,
            "a guest has no more than there is");
}

/* ---- what the guest does ---- */

static void request(struct fuzz_rings *rings, struct input *in, uint8_t code)
{
    const unsigned queue = (unsigned)take(in, 1) % rings->count;
    const unsigned size = (unsigned)take(in, 1) % (FUZZ_BUFFER_BYTES - 15);
    fuzz_rings_fill(rings, in, queue, code & 0x80 ? size : size % 32);
    if (code & 0x40)
        fuzz_rings_give(rings, queue, size, code & 0x20 ? 1 : 0, code & 0x10);
    else
        fuzz_rings_give(rings, queue, 0, size, code & 0x10);
}

static void operation(struct fuzz_rings *rings, unsigned kind, struct input *in)
{
    static void (*const events[])(struct input *, uint8_t) = {net_event, console_event,
                                                              balloon_event};
    const uint8_t code = (uint8_t)take(in, 1);
    switch (code & 7) {
    case 0:
    case 1:
    case 2: request(rings, in, code); break;
    case 3:
    case 4: events[kind](in, code); break;
    case 5: fuzz_rings_config(rings, in, code & 8); break;
    case 6: fuzz_rings_save_and_load(rings, in); break;
    case 7:
        if (code & 0x80)
            fuzz_rings_begin(rings);
        for (unsigned i = 0; i < TURNS; i++)
            loop_run_once(machine.loop, 0);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
    static const unsigned queues[] = {3, 6, 4};
    static const uint8_t zeroes[FUZZ_RINGS_RAM_BYTES];
    struct input in = {data, size_bytes};
    const unsigned kind = (unsigned)take(&in, 1) % DEVICES;
    struct virtio_device *device = machine.devices[kind];
    struct fuzz_rings rings = {.ram = machine.ram, .device = device, .count = queues[kind]};
    rings.features = VIRTIO_F_VERSION_1 | (virtio_offered(device) & take(&in, 4));
    ram_write(machine.ram, 0, zeroes, sizeof(zeroes));
    for (unsigned i = 0; i < TURNS; i++)
        loop_run_once(machine.loop, 0);
    for (unsigned i = 0; i < PORTS; i++)
        machine.peers[i].room = SIZE_MAX;
    virtio_reset(device);
    fuzz_rings_begin(&rings);
    for (unsigned i = 0; in.left && i < OPERATIONS_MAX; i++)
        operation(&rings, kind, &in);
    return 0;
}
