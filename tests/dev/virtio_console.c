/* SPDX-License-Identifier: BSD-2-Clause
 * The console device through the bus, over back ends that the test plays: both ways in every ring
 * format, back ends and drivers without room, ports, control messages, wrong ones. */
#include "dev/virtio_driver.h"

#include "dev/virtio/console.h"

enum { SLOT = 3, RX = 0, TX = 1, CONTROL_RX = 2, CONTROL_TX = 3, RX1 = 4, TX1 = 5, QUEUE_SIZE = 8 };
enum {
    DEVICE_READY,
    PORT_ADD,
    PORT_REMOVE,
    PORT_READY,
    CONSOLE_PORT,
    RESIZE,
    PORT_OPEN,
    PORT_NAME
};

#define F_SIZE        (UINT64_C(1) << 0)
#define F_MULTIPORT   (UINT64_C(1) << 1)
#define F_EMERG_WRITE (UINT64_C(1) << 2)

struct peer {
    struct char_handler handler;
    char got[8192];
    size_t got_bytes, room;
    unsigned accepted;
    bool is_connected;
};

struct fixture {
    struct vd_machine m;
    struct virtio_device *device;
    struct virtio_pci *pci;
    struct vd d;
    struct peer peers[2];
    uint64_t control[QUEUE_SIZE];
};

/* ---- the back end ---- */

static size_t peer_write(void *opaque, const uint8_t *bytes, size_t size_bytes)
{
    struct peer *peer = opaque;
    size_t n = size_bytes < peer->room ? size_bytes : peer->room;
    assert_true(peer->got_bytes + n <= sizeof(peer->got));
    memcpy(peer->got + peer->got_bytes, bytes, n);
    peer->got_bytes += n;
    peer->room -= n;
    return n;
}

static void peer_accept(void *opaque)
{
    ((struct peer *)opaque)->accepted++;
}

static void peer_set_handler(void *opaque, const struct char_handler *handler)
{
    ((struct peer *)opaque)->handler = handler ? *handler : (struct char_handler){0};
}

static bool peer_is_connected(void *opaque)
{
    return ((struct peer *)opaque)->is_connected;
}

static size_t type(struct peer *peer, const char *text)
{
    return peer->handler.receive(peer->handler.opaque, (const uint8_t *)text, strlen(text));
}

/* ---- the guest ---- */

static void create(struct fixture *f)
{
    struct error err = {0};
    struct virtio_console_port ports[2] = {{.is_console = true}, {.name = "org.skep.test"}};
    memset(f, 0, sizeof(*f));
    vd_machine_init(&f->m, 8 << 20);
    for (unsigned i = 0; i < 2; i++) {
        f->peers[i].room = sizeof(f->peers[i].got);
        f->peers[i].is_connected = i == 0;
        ports[i].backend = (struct char_backend){.write = peer_write,
                                                 .accept = peer_accept,
                                                 .set_handler = peer_set_handler,
                                                 .is_connected = peer_is_connected,
                                                 .opaque = &f->peers[i]};
    }
    struct virtio_console_config config = {.ram = f->m.ram,
                                           .log = &f->m.log,
                                           .loop = f->m.loop,
                                           .ports = ports,
                                           .port_count = 2,
                                           .columns = 80,
                                           .rows = 25};
    f->device = virtio_console_create(&config, &err);
    assert_non_null(f->device);
    struct virtio_pci_config place = {f->m.pci, SLOT, 0, vd_msi(&f->m)};
    f->pci = virtio_pci_create(&place, f->device, &err);
    assert_non_null(f->pci);
    vd_boot(&f->m);
    vd_open(&f->d, &f->m, SLOT);
}

static void start(struct fixture *f, uint64_t features)
{
    assert_true(vd_negotiate(&f->d, VIRTIO_F_VERSION_1 | features));
    for (unsigned i = 0; i < (features & F_MULTIPORT ? 6 : 2); i++)
        vd_queue_setup(&f->d, i, QUEUE_SIZE);
    vd_start(&f->d);
}

static void teardown(struct fixture *f)
{
    virtio_pci_ops.destroy(f->pci);
    assert_null(f->peers[0].handler.receive);
    assert_null(f->peers[1].handler.receive);
    vd_machine_free(&f->m);
}

static void print(struct fixture *f, unsigned queue, const char *text, bool indirect)
{
    uint32_t size_bytes = (uint32_t)strlen(text);
    uint64_t gpa = vd_alloc(&f->m, size_bytes, 16);
    memcpy(ram_hva(f->m.ram, gpa, size_bytes), text, size_bytes);
    struct vd_buffer buffers[2] = {{gpa, 1, false}, {gpa + 1, size_bytes - 1, false}};
    vd_add(&f->d, queue, buffers, 2, indirect);
    vd_kick(&f->d, queue);
}

static bool reclaim(struct fixture *f, unsigned queue)
{
    uint16_t id;
    uint32_t used_bytes;
    return vd_used(&f->d, queue, &id, &used_bytes);
}

static uint64_t give_buffer(struct fixture *f, unsigned queue, uint32_t size_bytes)
{
    uint64_t gpa = vd_alloc(&f->m, size_bytes, 16);
    vd_add(&f->d, queue, &(struct vd_buffer){gpa, size_bytes, true}, 1, false);
    vd_kick(&f->d, queue);
    return gpa;
}

static void must_read(struct fixture *f, unsigned queue, uint64_t gpa, const char *text)
{
    uint16_t id;
    uint32_t used_bytes;
    assert_true(vd_used(&f->d, queue, &id, &used_bytes));
    assert_int_equal(used_bytes, strlen(text));
    assert_memory_equal(ram_hva(f->m.ram, gpa, used_bytes), text, used_bytes);
}

static void tell(struct fixture *f, uint32_t port, uint16_t event, uint16_t value)
{
    uint64_t gpa = vd_alloc(&f->m, 8, 8);
    vd_put(&f->m, gpa, port, 4);
    vd_put(&f->m, gpa + 4, event, 2);
    vd_put(&f->m, gpa + 6, value, 2);
    vd_add(&f->d, CONTROL_TX, &(struct vd_buffer){gpa, 8, false}, 1, false);
    vd_kick(&f->d, CONTROL_TX);
    assert_true(reclaim(f, CONTROL_TX));
}

/* The next message to the guest; false when there is none. */
static bool hear(struct fixture *f, uint32_t port, uint16_t event, uint16_t value, const char *rest,
                 uint32_t rest_bytes)
{
    uint64_t gpa = give_buffer(f, CONTROL_RX, 128);
    uint16_t id;
    uint32_t used_bytes;
    if (!vd_used(&f->d, CONTROL_RX, &id, &used_bytes))
        return false;
    assert_int_equal(vd_get(&f->m, gpa, 4), port);
    assert_int_equal(vd_get(&f->m, gpa + 4, 2), event);
    assert_int_equal(vd_get(&f->m, gpa + 6, 2), value);
    assert_int_equal(used_bytes, 8 + rest_bytes);
    if (rest_bytes)
        assert_memory_equal(ram_hva(f->m.ram, gpa + 8, rest_bytes), rest, rest_bytes);
    return true;
}

static void bring_up_ports(struct fixture *f)
{
    start(f, F_MULTIPORT | F_SIZE);
    tell(f, 0, DEVICE_READY, 1);
    assert_true(hear(f, 0, PORT_ADD, 1, NULL, 0));
    assert_true(hear(f, 1, PORT_ADD, 1, NULL, 0));
    tell(f, 0, PORT_READY, 1);
    tell(f, 1, PORT_READY, 1);
    assert_true(hear(f, 0, CONSOLE_PORT, 1, NULL, 0));
    assert_true(hear(f, 0, RESIZE, 1, "\x50\0\x19\0", 4));
    assert_true(hear(f, 0, PORT_OPEN, 1, NULL, 0));
    assert_true(hear(f, 1, PORT_NAME, 1, "org.skep.test", 13));
}

/* ---- tests ---- */

static void both_ways_in_all_formats(void **state)
{
    for (unsigned i = 0; i < 8; i++) {
        struct fixture f;
        create(&f);
        start(&f, (i & 1 ? VIRTIO_F_RING_PACKED : 0) | (i & 2 ? VIRTIO_F_EVENT_IDX : 0) |
                      (i & 4 ? VIRTIO_F_INDIRECT_DESC : 0));
        for (unsigned n = 0; n < 3 * QUEUE_SIZE; n++) {
            f.peers[0].got_bytes = 0;
            print(&f, TX, "hello\n", i & 4);
            assert_true(reclaim(&f, TX));
            assert_int_equal(f.peers[0].got_bytes, 6);
            assert_memory_equal(f.peers[0].got, "hello\n", 6);
            uint64_t gpa = give_buffer(&f, RX, 16);
            assert_int_equal(type(&f.peers[0], "ls\r"), 3);
            must_read(&f, RX, gpa, "ls\r");
        }
        assert_int_equal(vd_status(&f.d), 0xf);
        teardown(&f);
    }
}

static void configuration(void **state)
{
    struct fixture f;
    create(&f);
    assert_int_equal(vd_read(&f.d, f.d.config, 2), 80);
    assert_int_equal(vd_read(&f.d, f.d.config + 2, 2), 25);
    assert_int_equal(vd_read(&f.d, f.d.config + 4, 4), 2);
    vd_write(&f.d, f.d.config + 8, '!', 4); /* emergency: before the driver is up */
    assert_int_equal(f.peers[0].got_bytes, 1);
    assert_int_equal(f.peers[0].got[0], '!');
    start(&f, F_SIZE);
    virtio_console_resize(f.device, 132, 43);
    assert_int_equal(vd_isr(&f.d) & 2, 2);
    assert_int_equal(vd_read(&f.d, f.d.config, 2), 132);
    teardown(&f);
}

/* The back end takes a part of a buffer: the rest follows, none of it twice. */
static void back_end_without_room(void **state)
{
    for (unsigned packed = 0; packed < 2; packed++) {
        struct fixture f;
        struct peer *peer = &f.peers[0];
        create(&f);
        start(&f, packed ? VIRTIO_F_RING_PACKED : 0);
        peer->room = 4;
        print(&f, TX, "abcdef", false);
        print(&f, TX, "ghi", false);
        assert_int_equal(peer->got_bytes, 4);
        assert_false(reclaim(&f, TX));
        vd_kick(&f.d, TX);
        assert_int_equal(peer->got_bytes, 4);
        peer->room = 3;
        peer->handler.writable(peer->handler.opaque);
        assert_int_equal(peer->got_bytes, 7);
        assert_true(reclaim(&f, TX));
        assert_false(reclaim(&f, TX));
        /* Saved and loaded in the middle, it goes on there. */
        struct save save = {0};
        struct load load;
        uint32_t version;
        save_begin(&save, "test", 1);
        virtio_save(f.device, &save);
        save_end(&save);
        load_init(&load, save.bytes, save.size_bytes);
        assert_true(load_begin(&load, "test", &version));
        peer->room = 100;
        assert_true(virtio_load(f.device, &load));
        assert_true(load_end(&load));
        virtio_pci_kick_all(f.pci);
        assert_int_equal(peer->got_bytes, 9);
        assert_memory_equal(peer->got, "abcdefghi", 9);
        assert_true(reclaim(&f, TX));
        save_free(&save);
        teardown(&f);
    }
}

static void driver_without_room(void **state)
{
    struct fixture f;
    struct peer *peer = &f.peers[0];
    create(&f);
    assert_int_equal(type(peer, "early"), 0); /* nobody is there yet */
    start(&f, 0);
    assert_true(peer->accepted > 0);
    assert_int_equal(type(peer, "x"), 0);
    unsigned accepted = peer->accepted;
    uint64_t gpa = give_buffer(&f, RX, 4);
    assert_int_equal(peer->accepted, accepted + 1);
    assert_int_equal(type(peer, "abcdef"), 4);
    must_read(&f, RX, gpa, "abcd");
    accepted = peer->accepted;
    give_buffer(&f, RX, 4);
    assert_int_equal(peer->accepted, accepted + 1);
    assert_int_equal(type(peer, "ef"), 2);
    teardown(&f);
}

static void ports(void **state)
{
    struct fixture f;
    create(&f);
    bring_up_ports(&f);
    /* Held until someone in the guest has the port open. */
    uint64_t gpa = give_buffer(&f, RX1, 16);
    assert_int_equal(type(&f.peers[1], "hi"), 0);
    unsigned accepted = f.peers[1].accepted;
    tell(&f, 1, PORT_OPEN, 1);
    assert_int_equal(f.peers[1].accepted, accepted + 1);
    assert_int_equal(type(&f.peers[1], "hi"), 2);
    must_read(&f, RX1, gpa, "hi");
    print(&f, TX1, "there", false);
    assert_true(reclaim(&f, TX1));
    assert_memory_equal(f.peers[1].got, "there", 5);
    assert_int_equal(f.peers[0].got_bytes, 0);
    tell(&f, 1, PORT_OPEN, 0);
    assert_int_equal(type(&f.peers[1], "hi"), 0);

    assert_false(hear(&f, 0, 0, 0, NULL, 0)); /* that buffer stays: the next message uses it */
    f.peers[1].is_connected = true;
    f.peers[1].handler.connected(f.peers[1].handler.opaque, true);
    assert_true(reclaim(&f, CONTROL_RX));
    f.peers[1].is_connected = false;
    f.peers[1].handler.connected(f.peers[1].handler.opaque, false);
    assert_true(hear(&f, 1, PORT_OPEN, 0, NULL, 0));
    virtio_console_resize(f.device, 100, 50);
    assert_true(hear(&f, 0, RESIZE, 1, "\x64\0\x32\0", 4));
    teardown(&f);
}

/* A driver that asks without end and gives no buffers makes nothing grow: one message of a kind. */
static void questions_without_buffers(void **state)
{
    struct fixture f;
    create(&f);
    start(&f, F_MULTIPORT);
    for (unsigned i = 0; i < 1000; i++)
        tell(&f, 0, DEVICE_READY, 1);
    assert_true(hear(&f, 0, PORT_ADD, 1, NULL, 0));
    assert_true(hear(&f, 1, PORT_ADD, 1, NULL, 0));
    assert_false(hear(&f, 0, 0, 0, NULL, 0));
    teardown(&f);
}

static void wrong_messages(void **state)
{
    struct fixture f;
    create(&f);
    start(&f, F_MULTIPORT);
    tell(&f, 2, PORT_READY, 1);
    tell(&f, 0xffffffff, PORT_OPEN, 1);
    tell(&f, 0x10000, PORT_READY, 1);
    tell(&f, 0, 999, 1);
    uint64_t gpa = vd_alloc(&f.m, 8, 8);
    vd_add(&f.d, CONTROL_TX, &(struct vd_buffer){gpa, 3, false}, 1, false);
    vd_add(&f.d, CONTROL_TX, &(struct vd_buffer){gpa, 8, true}, 1, false);
    vd_kick(&f.d, CONTROL_TX);
    assert_true(reclaim(&f, CONTROL_TX));
    assert_true(reclaim(&f, CONTROL_TX));
    assert_int_equal(vd_status(&f.d), 0xf);
    tell(&f, 0, DEVICE_READY, 1);
    assert_true(hear(&f, 0, PORT_ADD, 1, NULL, 0));
    give_buffer(&f, CONTROL_RX, 5); /* too small for any message */
    assert_true(vd_status(&f.d) & VIRTIO_STATUS_NEEDS_RESET);
    assert_int_equal(type(&f.peers[0], "x"), 0);
    teardown(&f);
}

static void input_buffer_of_nothing(void **state)
{
    struct fixture f;
    create(&f);
    start(&f, 0);
    uint64_t gpa = vd_alloc(&f.m, 8, 8);
    vd_add(&f.d, RX, &(struct vd_buffer){gpa, 8, false}, 1, false);
    vd_kick(&f.d, RX);
    assert_int_equal(type(&f.peers[0], "x"), 0);
    assert_true(vd_status(&f.d) & VIRTIO_STATUS_NEEDS_RESET);
    teardown(&f);
}

/* A driver that fills the ring as fast as it is served does not keep the device. */
static void a_busy_driver(void **state)
{
    struct fixture f;
    create(&f);
    start(&f, 0);
    uint64_t gpa = vd_alloc(&f.m, 1, 16);
    vd_add(&f.d, 1, &(struct vd_buffer){gpa, 1, false}, 1, false);
    vd_check_turns(&f.d, 1);
    assert_int_equal(f.peers[0].got_bytes, f.m.refills);
    teardown(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_ways_in_all_formats),
        cmocka_unit_test(configuration),
        cmocka_unit_test(back_end_without_room),
        cmocka_unit_test(driver_without_room),
        cmocka_unit_test(ports),
        cmocka_unit_test(questions_without_buffers),
        cmocka_unit_test(wrong_messages),
        cmocka_unit_test(input_buffer_of_nothing),
        cmocka_unit_test(a_busy_driver),
    };
    return cmocka_run_group_tests_name("virtio-console", tests, NULL, NULL);
}
