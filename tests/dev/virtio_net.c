/* SPDX-License-Identifier: BSD-2-Clause
 * The network device through the bus, over a back end that the test plays: frames both ways in
 * every ring format, offloads, merged buffers, a guest without room, commands, wrong headers. */
#include "dev/virtio_driver.h"

#include "dev/virtio/net.h"

#include <pthread.h>

enum { SLOT = 3, RX = 0, TX = 1, CONTROL = 2, QUEUE_SIZE = 16, HEADER = 12, FRAMES = 64 };

#define F_CSUM           (UINT64_C(1) << 0)
#define F_GUEST_CSUM     (UINT64_C(1) << 1)
#define F_GUEST_OFFLOADS (UINT64_C(1) << 2)
#define F_MTU            (UINT64_C(1) << 3)
#define F_MAC            (UINT64_C(1) << 5)
#define F_GUEST_TSO4     (UINT64_C(1) << 7)
#define F_HOST_TSO4      (UINT64_C(1) << 11)
#define F_HOST_TSO6      (UINT64_C(1) << 12)
#define F_MRG            (UINT64_C(1) << 15)
#define F_STATUS         (UINT64_C(1) << 16)
#define F_CTRL_VQ        (UINT64_C(1) << 17)
#define F_CTRL_RX        (UINT64_C(1) << 18)
#define F_CTRL_RX_EXTRA  (UINT64_C(1) << 20)
#define F_ANNOUNCE       (UINT64_C(1) << 21)
#define F_CTRL_MAC       (UINT64_C(1) << 23)

static const uint8_t mac[6] = {0x52, 0x54, 0, 1, 2, 3};

struct fixture {
    struct vd_machine m;
    struct virtio_device *device;
    struct virtio_pci *pci;
    struct vd d;
    struct net_receiver receiver;
    struct net_guest_features features;
    unsigned sent_count, resumed;
    struct net_offload sent_offload;
    size_t sent_bytes;
    uint8_t sent[70000];
    bool echoes; /* answers each frame from inside send() */
};

/* ---- the back end ---- */

static void backend_send(void *opaque, const struct iovec *iov, unsigned iov_count,
                         const struct net_offload *offload)
{
    struct fixture *f = opaque;
    f->sent_count++;
    f->sent_offload = *offload;
    f->sent_bytes = 0;
    for (unsigned i = 0; i < iov_count; i++) {
        assert_true(f->sent_bytes + iov[i].iov_len <= sizeof(f->sent));
        memcpy(f->sent + f->sent_bytes, iov[i].iov_base, iov[i].iov_len);
        f->sent_bytes += iov[i].iov_len;
    }
    if (f->echoes)
        f->receiver.receive(f->receiver.opaque, &(struct iovec){f->sent, f->sent_bytes}, 1,
                            &(struct net_offload){0});
}

static void backend_set_receiver(void *opaque, const struct net_receiver *receiver)
{
    struct fixture *f = opaque;
    f->receiver = receiver ? *receiver : (struct net_receiver){0};
}

static void backend_set_features(void *opaque, const struct net_guest_features *features)
{
    ((struct fixture *)opaque)->features = *features;
}

static void backend_resume(void *opaque)
{
    ((struct fixture *)opaque)->resumed++;
}

static bool backend_link_up(void *opaque)
{
    return true;
}

static void turn(struct fixture *f)
{
    for (int i = 0; i < 4; i++)
        loop_run_once(f->m.loop, 0);
}

static bool offer(struct fixture *f, const void *bytes, size_t size_bytes,
                  const struct net_offload *offload)
{
    /* In two pieces, as back ends may. */
    struct iovec iov[2] = {{(void *)(uintptr_t)bytes, 14},
                           {(uint8_t *)(uintptr_t)bytes + 14, size_bytes - 14}};
    return f->receiver.receive(f->receiver.opaque, iov, 2,
                               offload ? offload : &(struct net_offload){0});
}

/* ---- the guest ---- */

static void create(struct fixture *f)
{
    struct error err = {0};
    memset(f, 0, sizeof(*f));
    vd_machine_init(&f->m, 16 << 20);
    struct virtio_net_config config = {.ram = f->m.ram, .log = &f->m.log, .loop = f->m.loop};
    config.backend = (struct net_backend){.send = backend_send,
                                          .set_receiver = backend_set_receiver,
                                          .set_guest_features = backend_set_features,
                                          .resume = backend_resume,
                                          .link_up = backend_link_up,
                                          .mtu_bytes = 1500,
                                          .offers_offloads = true,
                                          .opaque = f};
    memcpy(config.mac, mac, 6);
    f->device = virtio_net_create(&config, &err);
    assert_non_null(f->device);
    struct virtio_pci_config place = {f->m.pci, SLOT, 0, vd_msi(&f->m)};
    f->pci = virtio_pci_create(&place, f->device, &err);
    assert_non_null(f->pci);
    vd_boot(&f->m);
    vd_open(&f->d, &f->m, SLOT);
}

static void start(struct fixture *f, uint64_t features)
{
    assert_true(vd_negotiate(&f->d, VIRTIO_F_VERSION_1 | F_MAC | features));
    vd_queue_setup(&f->d, RX, QUEUE_SIZE);
    vd_queue_setup(&f->d, TX, QUEUE_SIZE);
    if (features & F_CTRL_VQ)
        vd_queue_setup(&f->d, CONTROL, QUEUE_SIZE);
    vd_start(&f->d);
    turn(f);
}

static void teardown(struct fixture *f)
{
    virtio_pci_ops.destroy(f->pci);
    assert_null(f->receiver.receive); /* the back end is left alone */
    vd_machine_free(&f->m);
}

static void make_frame(uint8_t *frame, size_t size_bytes, unsigned seed)
{
    for (size_t i = 0; i < size_bytes; i++)
        frame[i] = (uint8_t)(i * 3 + i / 256 + seed);
    memcpy(frame, mac, 6);
}

/* Sends one frame with this header; true when the back end got it. */
static bool transmit(struct fixture *f, const uint8_t *header, const uint8_t *frame,
                     uint32_t size_bytes, bool indirect)
{
    uint64_t gpa = vd_alloc(&f->m, HEADER + size_bytes, 16);
    uint8_t *hva = ram_hva(f->m.ram, gpa, HEADER + size_bytes);
    memcpy(hva, header, HEADER);
    memcpy(hva + HEADER, frame, size_bytes);
    /* Cut where nothing ends. */
    struct vd_buffer buffers[3] = {
        {gpa, 7, false}, {gpa + 7, 13, false}, {gpa + 20, HEADER + size_bytes - 20, false}};
    unsigned before = f->sent_count;
    uint16_t id = vd_add(&f->d, TX, buffers, 3, indirect), used_id;
    uint32_t used_bytes;
    vd_kick(&f->d, TX);
    turn(f);
    assert_true(vd_used(&f->d, TX, &used_id, &used_bytes));
    assert_int_equal(used_id, id);
    return f->sent_count != before;
}

static uint64_t give_buffer(struct fixture *f, uint32_t size_bytes)
{
    uint64_t gpa = vd_alloc(&f->m, size_bytes, 16);
    vd_add(&f->d, RX, &(struct vd_buffer){gpa, size_bytes, true}, 1, false);
    vd_kick(&f->d, RX);
    return gpa;
}

static void take_frame(struct fixture *f, uint64_t gpa, const uint8_t *frame, uint32_t size_bytes)
{
    uint16_t id;
    uint32_t used_bytes;
    assert_true(vd_used(&f->d, RX, &id, &used_bytes));
    assert_int_equal(used_bytes, HEADER + size_bytes);
    assert_int_equal(vd_get(&f->m, gpa + 10, 2), 1);
    assert_memory_equal(ram_hva(f->m.ram, gpa + HEADER, size_bytes), frame, size_bytes);
}

static bool command(struct fixture *f, uint8_t class, uint8_t code, const void *bytes,
                    uint32_t size_bytes)
{
    uint64_t gpa = vd_alloc(&f->m, size_bytes + 3, 16);
    uint8_t *hva = ram_hva(f->m.ram, gpa, size_bytes + 3);
    hva[0] = class;
    hva[1] = code;
    if (size_bytes)
        memcpy(hva + 2, bytes, size_bytes);
    hva[2 + size_bytes] = 0xee;
    struct vd_buffer buffers[2] = {{gpa, 2 + size_bytes, false}, {gpa + 2 + size_bytes, 1, true}};
    uint16_t id;
    uint32_t used_bytes;
    vd_add(&f->d, CONTROL, buffers, 2, false);
    vd_kick(&f->d, CONTROL);
    assert_true(vd_used(&f->d, CONTROL, &id, &used_bytes));
    assert_int_equal(used_bytes, 1);
    assert_true(hva[2 + size_bytes] <= 1);
    return hva[2 + size_bytes] == 0;
}

/* ---- tests ---- */

static void configuration(void **state)
{
    struct fixture f;
    create(&f);
    assert_int_equal(f.d.config_size_bytes, 12);
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(vd_read(&f.d, f.d.config + i, 1), mac[i]);
    assert_int_equal(vd_read(&f.d, f.d.config + 6, 2), 1);
    assert_int_equal(vd_read(&f.d, f.d.config + 8, 2), 1);
    assert_int_equal(vd_read(&f.d, f.d.config + 10, 2), 1500);
    assert_false(vd_negotiate(&f.d, VIRTIO_F_VERSION_1 | F_HOST_TSO4)); /* needs F_CSUM */
    assert_false(vd_negotiate(&f.d, VIRTIO_F_VERSION_1 | F_CTRL_RX));
    assert_false(vd_negotiate(&f.d, VIRTIO_F_VERSION_1 | F_GUEST_TSO4));
    start(&f, F_CSUM | F_HOST_TSO4 | F_STATUS);
    virtio_net_set_link(f.device, false);
    assert_int_equal(vd_read(&f.d, f.d.config + 6, 2), 0);
    assert_int_equal(vd_isr(&f.d) & 2, 2);
    uint8_t frame[64], header[HEADER] = {0};
    make_frame(frame, sizeof(frame), 0);
    assert_false(transmit(&f, header, frame, sizeof(frame), false));
    virtio_net_set_link(f.device, true);
    assert_true(transmit(&f, header, frame, sizeof(frame), false));
    teardown(&f);
}

static void both_ways_in_all_formats(void **state)
{
    uint8_t frame[1514], header[HEADER] = {0};
    for (unsigned i = 0; i < 16; i++) {
        struct fixture f;
        create(&f);
        start(&f, (i & 1 ? VIRTIO_F_RING_PACKED : 0) | (i & 2 ? VIRTIO_F_EVENT_IDX : 0) |
                      (i & 4 ? VIRTIO_F_INDIRECT_DESC : 0) | (i & 8 ? F_MRG : 0));
        for (unsigned n = 0; n < 3 * QUEUE_SIZE; n++) {
            uint32_t size_bytes = 60 + n * 30;
            make_frame(frame, size_bytes, n);
            assert_true(transmit(&f, header, frame, size_bytes, i & 4));
            assert_int_equal(f.sent_bytes, size_bytes);
            assert_memory_equal(f.sent, frame, size_bytes);
            uint64_t gpa = give_buffer(&f, 1526);
            assert_true(offer(&f, frame, size_bytes, NULL));
            take_frame(&f, gpa, frame, size_bytes);
        }
        assert_int_equal(vd_status(&f.d), 0xf);
        teardown(&f);
    }
}

static void back_end_answers_at_once(void **state)
{
    struct fixture f;
    uint8_t frame[100], header[HEADER] = {0};
    create(&f);
    start(&f, 0);
    f.echoes = true;
    make_frame(frame, sizeof(frame), 5);
    uint64_t gpa = give_buffer(&f, 1526);
    assert_true(transmit(&f, header, frame, sizeof(frame), false));
    take_frame(&f, gpa, frame, sizeof(frame));
    teardown(&f);
}

static void offloads_to_send(void **state)
{
    struct fixture f;
    static uint8_t frame[65000];
    /* flags, gso, header 54, segment 1460, checksum at 34 + 16 */
    const uint8_t header[HEADER] = {1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0, 0, 0};
    create(&f);
    start(&f, F_CSUM | F_HOST_TSO4);
    make_frame(frame, sizeof(frame), 1);
    assert_true(transmit(&f, header, frame, sizeof(frame), false));
    assert_int_equal(f.sent_bytes, sizeof(frame));
    assert_memory_equal(f.sent, frame, sizeof(frame));
    assert_int_equal(f.sent_offload.gso, NET_GSO_TCPV4);
    assert_true(f.sent_offload.needs_checksum);
    assert_int_equal(f.sent_offload.segment_bytes, 1460);
    assert_int_equal(f.sent_offload.checksum_start, 34);
    assert_int_equal(f.sent_offload.checksum_offset, 16);
    assert_int_equal(f.sent_offload.header_bytes, 54);
    teardown(&f);
}

/* Dropped, given back, and the device goes on. */
static void wrong_headers(void **state)
{
    static const uint8_t headers[][HEADER] = {
        {1, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}, /* checksum outside */
        {1, 0, 0, 0, 0, 0, 63, 0, 0, 0},            /* half outside */
        {0, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0},       /* segments without a checksum */
        {1, 1, 54, 0, 0, 0, 34, 0, 16, 0},          /* of no size */
        {1, 4, 54, 0, 0xb4, 5, 34, 0, 16, 0},       /* TSO6 was not negotiated */
        {1, 3, 54, 0, 0xb4, 5, 34, 0, 16, 0},       /* UDP was not offered */
        {1, 0x81, 54, 0, 0xb4, 5, 34, 0, 16, 0},    /* ECN neither */
        {1, 77, 54, 0, 0xb4, 5, 34, 0, 16, 0},
    };
    struct fixture f;
    uint8_t frame[64];
    const uint8_t plain[HEADER] = {0};
    create(&f);
    start(&f, F_CSUM | F_HOST_TSO4);
    make_frame(frame, sizeof(frame), 1);
    for (size_t i = 0; i < sizeof(headers) / sizeof(headers[0]); i++)
        assert_false(transmit(&f, headers[i], frame, sizeof(frame), false));
    assert_false(transmit(&f, plain, frame, 10, false)); /* no Ethernet frame */
    assert_true(transmit(&f, plain, frame, sizeof(frame), false));

    uint16_t id;
    uint32_t used_bytes;
    uint64_t gpa = vd_alloc(&f.m, 200000, 16);
    vd_add(&f.d, TX, &(struct vd_buffer){gpa, 5, false}, 1, false); /* not even a header */
    vd_add(&f.d, TX, &(struct vd_buffer){gpa, 200000, false}, 1, false);
    vd_add(&f.d, TX, &(struct vd_buffer){gpa, 2000, true}, 1, false); /* nothing to read */
    unsigned before = f.sent_count;
    vd_kick(&f.d, TX);
    turn(&f);
    for (unsigned i = 0; i < 3; i++)
        assert_true(vd_used(&f.d, TX, &id, &used_bytes));
    assert_int_equal(f.sent_count, before);
    assert_int_equal(vd_status(&f.d), 0xf);
    teardown(&f);
}

static void merged_buffers(void **state)
{
    for (unsigned packed = 0; packed < 2; packed++) {
        struct fixture f;
        static uint8_t frame[9000];
        uint64_t gpa[QUEUE_SIZE];
        create(&f);
        start(&f, F_MRG | F_GUEST_CSUM | F_GUEST_TSO4 | VIRTIO_F_EVENT_IDX |
                      (packed ? VIRTIO_F_RING_PACKED : 0));
        assert_true(f.features.tso4 && f.features.checksum && !f.features.tso6);
        make_frame(frame, sizeof(frame), 9);
        struct net_offload offload = {.needs_checksum = true,
                                      .gso = NET_GSO_TCPV4,
                                      .header_bytes = 54,
                                      .segment_bytes = 1460,
                                      .checksum_start = 34,
                                      .checksum_offset = 16};
        /* Too few buffers: none is taken, the kick for the missing one is asked for. */
        for (unsigned i = 0; i < 5; i++)
            gpa[i] = give_buffer(&f, 1536);
        assert_false(offer(&f, frame, sizeof(frame), &offload));
        uint16_t id;
        uint32_t used_bytes;
        assert_false(vd_used(&f.d, RX, &id, &used_bytes));
        unsigned resumed = f.resumed;
        gpa[5] = vd_alloc(&f.m, 1536, 16);
        vd_add(&f.d, RX, &(struct vd_buffer){gpa[5], 1536, true}, 1, false);
        assert_true(vd_kick_wanted(&f.d, RX, 1));
        vd_kick(&f.d, RX);
        turn(&f);
        assert_int_equal(f.resumed, resumed + 1);
        assert_true(offer(&f, frame, sizeof(frame), &offload));
        size_t done = 0;
        for (unsigned i = 0; i < 6; i++) {
            uint32_t skip = i ? 0 : HEADER;
            assert_true(vd_used(&f.d, RX, &id, &used_bytes));
            assert_int_equal(used_bytes, i < 5 ? 1536 : 9012 - 5 * 1536);
            assert_memory_equal(ram_hva(f.m.ram, gpa[i] + skip, used_bytes - skip), frame + done,
                                used_bytes - skip);
            done += used_bytes - skip;
        }
        assert_int_equal(done, sizeof(frame));
        static const uint8_t header[HEADER] = {1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0, 6, 0};
        assert_memory_equal(ram_hva(f.m.ram, gpa[0], HEADER), header, HEADER);
        teardown(&f);
    }
}

static void no_room_and_again(void **state)
{
    struct fixture f;
    uint8_t frame[100];
    create(&f);
    start(&f, 0);
    make_frame(frame, sizeof(frame), 1);
    assert_false(offer(&f, frame, sizeof(frame), NULL));
    unsigned resumed = f.resumed;
    assert_true(vd_kick_wanted(&f.d, RX, 1));
    uint64_t gpa = give_buffer(&f, 1526);
    turn(&f);
    assert_int_equal(f.resumed, resumed + 1);
    assert_true(offer(&f, frame, sizeof(frame), NULL));
    take_frame(&f, gpa, frame, sizeof(frame));
    /* A buffer too small for the frame stays; the frame is lost. */
    gpa = give_buffer(&f, 60);
    assert_true(offer(&f, frame, sizeof(frame), NULL));
    uint16_t id;
    uint32_t used_bytes;
    assert_false(vd_used(&f.d, RX, &id, &used_bytes));
    assert_true(offer(&f, frame, 48, NULL));
    take_frame(&f, gpa, frame, 48);
    /* Marks that the driver did not ask for never reach it. */
    give_buffer(&f, 1526);
    struct net_offload offload = {.needs_checksum = true, .checksum_start = 34};
    assert_true(offer(&f, frame, 60, &offload));
    assert_false(vd_used(&f.d, RX, &id, &used_bytes));
    /* After a reset the back end may go on; nobody is there, so frames vanish. */
    assert_false(vd_status(&f.d) & VIRTIO_STATUS_NEEDS_RESET);
    resumed = f.resumed;
    vd_reset(&f.d);
    turn(&f);
    assert_int_equal(f.resumed, resumed + 1);
    assert_true(offer(&f, frame, 60, NULL));
    teardown(&f);
}

static bool arrives(struct fixture *f, const uint8_t *to)
{
    uint8_t frame[60];
    uint16_t id;
    uint32_t used_bytes;
    make_frame(frame, sizeof(frame), 0);
    memcpy(frame, to, 6);
    give_buffer(f, 1526);
    assert_true(offer(f, frame, sizeof(frame), NULL));
    if (vd_used(&f->d, RX, &id, &used_bytes))
        return true;
    /* Leave no buffer behind. */
    assert_true(offer(f, memcpy(frame, "\377\377\377\377\377\377", 6), sizeof(frame), NULL));
    assert_true(vd_used(&f->d, RX, &id, &used_bytes));
    return false;
}

static void receive_filter(void **state)
{
    static const uint8_t other[6] = {2, 0, 0, 0, 0, 9}, group[6] = {1, 0, 0x5e, 0, 0, 1};
    static const uint8_t table[20] = {1, 0, 0, 0, 2, 0, 0,    0, 0, 9,
                                      1, 0, 0, 0, 1, 0, 0x5e, 0, 0, 1};
    static const uint8_t new_mac[6] = {2, 2, 2, 2, 2, 2};
    const uint8_t yes = 1, no = 0, wrong = 2;
    struct fixture f;
    create(&f);
    start(&f, F_CTRL_VQ | F_CTRL_RX | F_CTRL_RX_EXTRA | F_CTRL_MAC);
    assert_true(arrives(&f, other)); /* promiscuous at first */
    assert_true(command(&f, 0, 0, &no, 1));
    assert_true(arrives(&f, mac));
    assert_false(arrives(&f, other));
    assert_false(arrives(&f, group));
    assert_true(command(&f, 0, 1, &yes, 1)); /* all multicast */
    assert_true(arrives(&f, group));
    assert_true(command(&f, 0, 1, &no, 1));
    assert_true(command(&f, 1, 0, table, 20));
    assert_true(arrives(&f, other));
    assert_true(arrives(&f, group));
    assert_true(command(&f, 1, 1, new_mac, 6));
    assert_false(arrives(&f, mac));
    assert_true(arrives(&f, new_mac));
    assert_int_equal(vd_read(&f.d, f.d.config, 1), 2);

    assert_false(command(&f, 0, 0, &wrong, 1));
    assert_false(command(&f, 0, 6, &yes, 1));
    assert_false(command(&f, 0, 0, &yes, 0));
    assert_false(command(&f, 1, 1, new_mac, 5));
    assert_false(command(&f, 1, 0, table, 19));
    assert_false(command(&f, 1, 0, "\377\377\377\377", 4)); /* a count that would wrap */
    assert_false(command(&f, 2, 0, "ab", 2));
    assert_false(command(&f, 3, 0, NULL, 0)); /* announce was not negotiated */
    assert_false(command(&f, 99, 99, NULL, 0));
    /* More addresses than are kept: all pass. */
    static uint8_t many[8 + 6 * 100] = {100};
    assert_true(command(&f, 1, 0, many, sizeof(many)));
    assert_true(arrives(&f, other));
    assert_false(arrives(&f, group));
    teardown(&f);
}

static void announcement_and_guest_offloads(void **state)
{
    struct fixture f;
    create(&f);
    start(&f, F_CTRL_VQ | F_STATUS | F_ANNOUNCE | F_GUEST_OFFLOADS | F_GUEST_CSUM | F_GUEST_TSO4);
    virtio_net_announce(f.device);
    assert_int_equal(vd_isr(&f.d) & 2, 2);
    assert_int_equal(vd_read(&f.d, f.d.config + 6, 2), 3);
    assert_true(command(&f, 3, 0, NULL, 0));
    assert_int_equal(vd_read(&f.d, f.d.config + 6, 2), 1);
    uint64_t offloads = F_GUEST_CSUM;
    assert_true(f.features.tso4);
    assert_true(command(&f, 5, 0, &offloads, 8));
    turn(&f);
    assert_true(f.features.checksum);
    assert_false(f.features.tso4);
    offloads = UINT64_MAX;
    assert_false(command(&f, 5, 0, &offloads, 8));
    teardown(&f);
}

static void command_without_room_breaks(void **state)
{
    struct fixture f;
    create(&f);
    start(&f, F_CTRL_VQ);
    uint64_t gpa = vd_alloc(&f.m, 16, 16);
    vd_add(&f.d, CONTROL, &(struct vd_buffer){gpa, 3, false}, 1, false);
    vd_kick(&f.d, CONTROL);
    assert_true(vd_status(&f.d) & VIRTIO_STATUS_NEEDS_RESET);
    uint8_t frame[60];
    make_frame(frame, sizeof(frame), 0);
    assert_true(offer(&f, frame, sizeof(frame), NULL)); /* lost, not kept for ever */
    teardown(&f);
}

static void *kick_many(void *opaque)
{
    struct fixture *f = opaque;
    uint64_t gpa = vd_alloc(&f->m, 100, 16);
    for (unsigned sent = 0, back = 0; back < 2000;) {
        uint16_t id;
        uint32_t used_bytes;
        if (sent < 2000 && sent - back < QUEUE_SIZE) {
            vd_add(&f->d, TX, &(struct vd_buffer){gpa, 100, false}, 1, false);
            vd_kick(&f->d, TX);
            sent++;
        }
        back += vd_used(&f->d, TX, &id, &used_bytes);
    }
    return NULL;
}

/* Kicks on a vCPU's thread, frames on the loop's, and none of them forgotten. */
static void kicks_from_a_thread(void **state)
{
    struct fixture f;
    pthread_t thread;
    create(&f);
    start(&f, 0);
    assert_int_equal(pthread_create(&thread, NULL, kick_many, &f), 0);
    while (f.sent_count < 2000)
        loop_run_once(f.m.loop, 1000);
    turn(&f);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(f.sent_count, 2000);
    teardown(&f);
}

static void saved_and_loaded(void **state)
{
    static const uint8_t other[6] = {2, 0, 0, 0, 0, 9};
    static const uint8_t table[14] = {1, 0, 0, 0, 2, 0, 0, 0, 0, 9, 0, 0, 0, 0};
    const uint8_t no = 0;
    struct fixture f;
    struct save save = {0};
    struct load load;
    create(&f);
    start(&f, F_CTRL_VQ | F_CTRL_RX | F_CTRL_MAC | F_GUEST_CSUM);
    assert_true(command(&f, 0, 0, &no, 1));
    assert_true(command(&f, 1, 0, table, 14));
    save_begin(&save, "test", 1);
    virtio_save(f.device, &save);
    save_end(&save);
    assert_false(save.failed);
    uint32_t version;
    virtio_reset(f.device);
    turn(&f);
    assert_false(f.features.checksum);
    load_init(&load, save.bytes, save.size_bytes);
    assert_true(load_begin(&load, "test", &version));
    assert_true(virtio_load(f.device, &load));
    assert_true(load_end(&load));
    turn(&f);
    assert_true(f.features.checksum); /* the back end hears of it again */
    assert_int_equal(vd_status(&f.d), 0xf);
    assert_true(arrives(&f, other)); /* rings and filter are as they were */
    assert_false(arrives(&f, (const uint8_t[6]){2, 0, 0, 0, 0, 8}));
    /* Every cut of it fails, and leaves a device that works after a reset. */
    size_t end = load.section_end;
    for (size_t size = 60; size < end; size++) {
        load_init(&load, save.bytes, save.size_bytes);
        assert_true(load_begin(&load, "test", &version));
        load.section_end = size;
        assert_false(virtio_load(f.device, &load));
        assert_int_equal(vd_status(&f.d), 0);
    }
    save_free(&save);
    teardown(&f);
}

/* A driver that fills the ring as fast as it is served does not keep the device. */
static void a_busy_driver(void **state)
{
    struct fixture f;
    create(&f);
    start(&f, F_CTRL_VQ);
    uint64_t gpa = vd_alloc(&f.m, 3, 16);
    vd_put(&f.m, gpa, 0xee0000, 3);
    const struct vd_buffer buffers[] = {{gpa, 2, false}, {gpa + 2, 1, true}};
    vd_add(&f.d, CONTROL, buffers, 2, false);
    vd_check_turns(&f.d, CONTROL);
    assert_int_equal(vd_get(&f.m, gpa + 2, 1), 1); /* there is no such command */
    teardown(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(configuration),
        cmocka_unit_test(both_ways_in_all_formats),
        cmocka_unit_test(back_end_answers_at_once),
        cmocka_unit_test(offloads_to_send),
        cmocka_unit_test(wrong_headers),
        cmocka_unit_test(merged_buffers),
        cmocka_unit_test(no_room_and_again),
        cmocka_unit_test(receive_filter),
        cmocka_unit_test(announcement_and_guest_offloads),
        cmocka_unit_test(command_without_room_breaks),
        cmocka_unit_test(kicks_from_a_thread),
        cmocka_unit_test(saved_and_loaded),
        cmocka_unit_test(a_busy_driver),
    };
    return cmocka_run_group_tests_name("virtio-net", tests, NULL, NULL);
}
