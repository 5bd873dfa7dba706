/* SPDX-License-Identifier: BSD-2-Clause
 * The virtio input device through the bus: what it says of itself, events, LEDs, save and load. */
#include "dev/virtio_driver.h"

#include "dev/virtio/input.h"

#include <linux/input-event-codes.h>

enum { SLOT = 3, QUEUE_SIZE = 16, CONFIG = 0x2000 };

struct fixture {
    struct vd_machine m;
    struct virtio_device *device;
    struct virtio_pci *pci;
    struct input_device input;
    struct vd d;
    uint64_t config; /* of the device */
};

static void make(struct fixture *f, bool is_tablet)
{
    const struct virtio_input_config config = {
        .ram = f->m.ram, .loop = f->m.loop, .log = &f->m.log, .is_tablet = is_tablet};
    f->device = virtio_input_create(&config, &f->input, NULL);
    assert_non_null(f->device);
    struct virtio_pci_config place = {f->m.pci, SLOT, 0, vd_msi(&f->m)};
    f->pci = virtio_pci_create(&place, f->device, NULL);
    assert_non_null(f->pci);
}

static void setup(struct fixture *f, bool is_tablet)
{
    vd_machine_init(&f->m, 8 << 20);
    make(f, is_tablet);
    vd_boot(&f->m);
    vd_open(&f->d, &f->m, SLOT);
    f->config = vd_bar(&f->m, SLOT, 0) + CONFIG;
}

static void start(struct fixture *f)
{
    assert_true(vd_negotiate(&f->d, VIRTIO_F_VERSION_1));
    vd_queue_setup(&f->d, 0, QUEUE_SIZE);
    vd_queue_setup(&f->d, 1, QUEUE_SIZE);
    vd_start(&f->d);
}

static void teardown(struct fixture *f)
{
    virtio_pci_ops.destroy(f->pci);
    vd_machine_free(&f->m);
}

/* Selects, and reads the data; gives its size. */
static unsigned look(struct fixture *f, uint8_t select, uint8_t subselect, uint8_t data[128])
{
    bus_write(f->m.bus, BUS_MMIO, f->config, select, 1);
    bus_write(f->m.bus, BUS_MMIO, f->config + 1, subselect, 1);
    for (unsigned i = 0; i < 128; i++)
        data[i] = (uint8_t)bus_read(f->m.bus, BUS_MMIO, f->config + 8 + i, 1);
    return (unsigned)bus_read(f->m.bus, BUS_MMIO, f->config + 2, 1);
}

static bool has_bit(const uint8_t *data, unsigned bit)
{
    return data[bit / 8] >> bit % 8 & 1;
}

static void test_keyboard_config(void **state)
{
    struct fixture f;
    uint8_t data[128];
    setup(&f, false);
    assert_int_equal(vd_config_read(&f.m, SLOT, PCI_DEVICE, 2), 0x1052);
    assert_int_equal(look(&f, 1, 0, data), strlen("skep virtio keyboard"));
    assert_memory_equal(data, "skep virtio keyboard", 20);
    assert_int_equal(look(&f, 3, 0, data), 8);
    assert_int_equal(look(&f, 0x11, EV_KEY, data), 31);
    assert_true(has_bit(data, KEY_A) && has_bit(data, KEY_RIGHTMETA) && !has_bit(data, 0));
    assert_int_equal(look(&f, 0x11, EV_LED, data), 1);
    assert_int_equal(data[0], 7);
    assert_int_equal(look(&f, 0x11, EV_ABS, data), 0);
    assert_int_equal(look(&f, 0x12, ABS_X, data), 0);
    for (unsigned i = 0; i < 0x10000; i += 7) /* nothing that is selected does harm */
        look(&f, (uint8_t)(i >> 8), (uint8_t)i, data);
    teardown(&f);
}

static void test_tablet_config(void **state)
{
    struct fixture f;
    uint8_t data[128];
    uint32_t range[5];
    setup(&f, true);
    look(&f, 0x11, EV_KEY, data);
    assert_true(has_bit(data, BTN_LEFT) && has_bit(data, BTN_EXTRA) && !has_bit(data, KEY_A));
    assert_int_equal(look(&f, 0x11, EV_ABS, data), 1);
    assert_int_equal(data[0], 3);
    assert_int_equal(look(&f, 0x12, ABS_Y, data), 20);
    memcpy(range, data, sizeof(range));
    assert_int_equal(range[0], 0);
    assert_int_equal(range[1], INPUT_POSITION_MAX);
    assert_int_equal(look(&f, 0x12, ABS_Z, data), 0);
    teardown(&f);
}

/* Gives the device `count` buffers for events; each is as long as one. */
static uint64_t give(struct fixture *f, unsigned count)
{
    uint64_t gpa = vd_alloc(&f->m, 8 * QUEUE_SIZE, 64);
    for (unsigned i = 0; i < count; i++) {
        struct vd_buffer buffer = {gpa + 8 * i, 8, true};
        vd_add(&f->d, 0, &buffer, 1, false);
    }
    vd_kick(&f->d, 0);
    return gpa;
}

static void expect_event(struct fixture *f, uint64_t gpa, unsigned type, unsigned code,
                         uint32_t value)
{
    uint16_t id;
    uint32_t size;
    assert_true(vd_used(&f->d, 0, &id, &size));
    assert_int_equal(size, 8);
    assert_int_equal(vd_get(&f->m, gpa, 2), type);
    assert_int_equal(vd_get(&f->m, gpa + 2, 2), code);
    assert_int_equal(vd_get(&f->m, gpa + 4, 4), value);
}

static void test_keys(void **state)
{
    struct fixture f;
    uint16_t id;
    uint32_t size;
    setup(&f, false);
    assert_false(f.input.is_listening(f.input.opaque));
    f.input.key(f.input.opaque, KEY_B, true); /* nobody is there */
    start(&f);
    assert_true(f.input.is_listening(f.input.opaque));
    uint64_t gpa = give(&f, 1);
    assert_false(vd_used(&f.d, 0, &id, &size));
    f.input.key(f.input.opaque, KEY_A, true);
    expect_event(&f, gpa, EV_KEY, KEY_A, 1);
    f.input.key(f.input.opaque, KEY_A, false); /* waits, as the rest does, for buffers */
    assert_false(vd_used(&f.d, 0, &id, &size));
    gpa = give(&f, 3);
    expect_event(&f, gpa, EV_SYN, SYN_REPORT, 0);
    expect_event(&f, gpa + 8, EV_KEY, KEY_A, 0);
    expect_event(&f, gpa + 16, EV_SYN, SYN_REPORT, 0);
    for (unsigned i = 0; i < 1000; i++) /* bounded */
        f.input.key(f.input.opaque, KEY_A, i % 2 == 0);
    f.input.key(f.input.opaque, 0, true);
    f.input.key(f.input.opaque, 100000, true);
    unsigned seen = 0, before;
    do {
        before = seen;
        give(&f, 2);
        while (vd_used(&f.d, 0, &id, &size))
            seen++;
    } while (seen > before);
    assert_int_equal(seen, 128);
    teardown(&f);
}

static void test_pointer(void **state)
{
    struct fixture f;
    setup(&f, true);
    start(&f);
    assert_true(f.input.takes_absolute);
    uint64_t gpa = give(&f, 12);
    f.input.pointer(f.input.opaque, &(struct input_pointer){
                                        .x = 5, .y = 6, .wheel_up = -1, .buttons = INPUT_RIGHT});
    expect_event(&f, gpa, EV_ABS, ABS_X, 5);
    expect_event(&f, gpa + 8, EV_ABS, ABS_Y, 6);
    expect_event(&f, gpa + 16, EV_KEY, BTN_RIGHT, 1);
    expect_event(&f, gpa + 24, EV_REL, REL_WHEEL, UINT32_MAX);
    expect_event(&f, gpa + 32, EV_SYN, SYN_REPORT, 0);
    f.input.pointer(f.input.opaque, &(struct input_pointer){.x = 7, .y = 6});
    expect_event(&f, gpa + 40, EV_ABS, ABS_X, 7);
    expect_event(&f, gpa + 48, EV_ABS, ABS_Y, 6);
    expect_event(&f, gpa + 56, EV_KEY, BTN_RIGHT, 0);
    expect_event(&f, gpa + 64, EV_SYN, SYN_REPORT, 0);
    teardown(&f);
}

static void set_led(struct fixture *f, unsigned type, unsigned code, uint32_t value,
                    uint32_t size_bytes)
{
    uint64_t gpa = vd_alloc(&f->m, 64, 64);
    uint16_t id;
    uint32_t size;
    vd_put(&f->m, gpa, type, 2);
    vd_put(&f->m, gpa + 2, code, 2);
    vd_put(&f->m, gpa + 4, value, 4);
    struct vd_buffer buffer = {gpa, size_bytes, false};
    vd_add(&f->d, 1, &buffer, 1, false);
    vd_kick(&f->d, 1);
    assert_true(vd_used(&f->d, 1, &id, &size));
}

static void test_leds(void **state)
{
    struct fixture f;
    setup(&f, false);
    start(&f);
    set_led(&f, EV_LED, LED_CAPSL, 1, 8);
    set_led(&f, EV_LED, LED_NUML, 1, 8);
    assert_int_equal(virtio_input_leds(f.device), 3);
    set_led(&f, EV_LED, LED_CAPSL, 0, 8);
    set_led(&f, EV_LED, 60000, 1, 8);
    set_led(&f, EV_KEY, 1, 1, 8);
    set_led(&f, EV_LED, LED_CAPSL, 1, 5); /* cut short */
    assert_int_equal(virtio_input_leds(f.device), 1);
    teardown(&f);
}

/* What waited for the driver before its reset is nothing to the next one; nor are its lights. */
static void test_reset(void **state)
{
    struct fixture f;
    uint16_t id;
    uint32_t size;
    setup(&f, false);
    start(&f);
    uint64_t gpa = give(&f, 1);
    set_led(&f, EV_LED, LED_CAPSL, 1, 8);
    f.input.key(f.input.opaque, KEY_A, true); /* its report waits for a second buffer */
    expect_event(&f, gpa, EV_KEY, KEY_A, 1);
    vd_reset(&f.d);
    assert_false(f.input.is_listening(f.input.opaque));
    assert_int_equal(virtio_input_leds(f.device), 0);
    vd_open(&f.d, &f.m, SLOT);
    start(&f);
    gpa = give(&f, 2);
    assert_false(vd_used(&f.d, 0, &id, &size));
    f.input.key(f.input.opaque, KEY_B, true);
    expect_event(&f, gpa, EV_KEY, KEY_B, 1);
    expect_event(&f, gpa + 8, EV_SYN, SYN_REPORT, 0);
    teardown(&f);
}

/* Events that wait for buffers are given to the driver after the machine was loaded. */
static void test_save_and_load(void **state)
{
    struct fixture f;
    struct save save = {0};
    struct load load;
    uint32_t version;
    setup(&f, false);
    start(&f);
    f.input.key(f.input.opaque, KEY_Q, true);
    save_begin(&save, virtio_pci_ops.name, virtio_pci_ops.version);
    virtio_pci_ops.save(f.pci, &save);
    save_end(&save);
    virtio_pci_ops.destroy(f.pci);
    make(&f, false);
    load_init(&load, save.bytes, save.size_bytes);
    assert_true(load_begin(&load, virtio_pci_ops.name, &version));
    assert_true(virtio_pci_ops.load(f.pci, &load, version));
    assert_true(load_end(&load));
    uint64_t gpa = give(&f, 2);
    expect_event(&f, gpa, EV_KEY, KEY_Q, 1);
    expect_event(&f, gpa + 8, EV_SYN, SYN_REPORT, 0);
    save_free(&save);
    teardown(&f);
}

/* A driver that fills the ring as fast as it is served does not keep the device. */
static void test_busy_driver(void **state)
{
    struct fixture f;
    setup(&f, false);
    start(&f);
    uint64_t gpa = vd_alloc(&f.m, 8, 8);
    vd_add(&f.d, 1, &(struct vd_buffer){gpa, 8, false}, 1, false);
    vd_check_turns(&f.d, 1);
    teardown(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keyboard_config),
        cmocka_unit_test(test_tablet_config),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_pointer),
        cmocka_unit_test(test_leds),
        cmocka_unit_test(test_reset),
        cmocka_unit_test(test_save_and_load),
        cmocka_unit_test(test_busy_driver),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
