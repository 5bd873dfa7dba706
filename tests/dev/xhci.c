/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The xHC and its keyboard and tablet through the bus: enumerate, address, configure, reports,
 * stalls, short packets, resets, and rings and contexts that make no sense. Section numbers are
 * those of xHCI 1.1.
 */
#include "dev/xhci_driver.h"

#include "dev/usb/hid.h"
#include "dev/usb/xhci.h"

#include <time.h>

enum { SLOT = 3, KEYBOARD_PORT = 1, TABLET_PORT = 2, MSI_DATA = 0x4000 };

struct fixture {
    struct xd x;
    struct xhci *xhci;
    struct input_device keyboard, tablet;
    struct usb_device *keyboard_device;
    struct xd_ring interrupts;
};

/* ---- bringing it up ---- */

static struct xhci *make(struct fixture *f, struct input_device *keyboard,
                         struct input_device *tablet, unsigned slot)
{
    struct xhci_config config = {.pci = f->x.m.pci,
                                 .slot = slot,
                                 .msi = vd_msi(&f->x.m),
                                 .ram = f->x.m.ram,
                                 .clock = f->x.clock,
                                 .log = &f->x.m.log};
    config.devices[0] = usb_keyboard_create(f->x.clock, keyboard, NULL);
    config.devices[1] = usb_tablet_create(f->x.clock, tablet, NULL);
    if (!f->keyboard_device)
        f->keyboard_device = config.devices[0];
    struct xhci *xhci = xhci_create(&config, NULL);
    assert_non_null(xhci);
    return xhci;
}

static void setup(struct fixture *f)
{
    memset(f, 0, sizeof(*f));
    vd_machine_init(&f->x.m, 8 << 20);
    f->x.clock = clock_create(NULL);
    f->xhci = make(f, &f->keyboard, &f->tablet, SLOT);
    vd_boot(&f->x.m);
    f->x.bar = vd_bar(&f->x.m, SLOT, 0);
    xd_start(&f->x);
}

static void teardown(struct fixture *f)
{
    xhci_ops.destroy(f->xhci);
    clock_destroy(f->x.clock);
    vd_machine_free(&f->x.m);
}

static void configure(struct fixture *f)
{
    static const uint8_t set_configuration[8] = {0, 9, 1};
    memset(ram_hva(f->x.m.ram, f->x.input, 33 * 32), 0, 33 * 32);
    f->interrupts = xd_ring_make(&f->x);
    xd_word(&f->x, 0, 1, 1 | 1 << 3);
    xd_word(&f->x, 1, 0, 3u << 27 | 1 << 20);
    xd_word(&f->x, 4, 0, 6 << 16);
    xd_word(&f->x, 4, 1, 8u << 16 | 7 << 3 | 3 << 1);
    vd_put(&f->x.m, f->x.input + 4 * 32 + 8, f->interrupts.gpa | 1, 8);
    assert_int_equal(xd_command_code(&f->x, f->x.input, CONFIGURE, f->x.slot << 24), SUCCESS);
    assert_int_equal(xd_told(&f->x, 0, 3) >> 27, 3);
    assert_int_equal(xd_told(&f->x, 3, 0) & 7, 1);
    assert_int_equal(xd_control(&f->x, set_configuration, 0, NULL), SUCCESS);
}

/* Asks for a report; gives where it will be. */
static uint64_t ask(struct fixture *f, unsigned size_bytes)
{
    uint64_t gpa = vd_alloc(&f->x.m, 64, 64);
    xd_push(&f->x, &f->interrupts, gpa, size_bytes, NORMAL, 1 << 5 | 1 << 2);
    xd_ring_doorbell(&f->x, 3);
    return gpa;
}

static void expect_report(struct fixture *f, uint64_t gpa, const void *bytes, unsigned size_bytes)
{
    struct xd_event event = xd_expect(&f->x, TRANSFER_EVENT);
    assert_int_equal(xd_code_of(&event), SUCCESS);
    assert_int_equal(event.control >> 16 & 31, 3);
    assert_memory_equal(ram_hva(f->x.m.ram, gpa, size_bytes), bytes, size_bytes);
}

/* ---- tests ---- */

static void test_capabilities(void **state)
{
    struct fixture f;
    setup(&f);
    assert_int_equal(vd_config_read(&f.x.m, SLOT, 8, 4) >> 8, 0x0c0330);
    assert_int_equal(xd_get(&f.x, 0), 0x01000040);
    assert_int_equal(xd_get(&f.x, 4) >> 24, 8);
    unsigned at = (xd_get(&f.x, 0x10) >> 16) * 4;
    assert_int_equal(xd_get(&f.x, at) & 0xff0000ff, 0x02000002);
    assert_int_equal(xd_get(&f.x, at + 8) & 0xffff, 0x0401);
    at += (xd_get(&f.x, at) >> 8 & 0xff) * 4;
    assert_int_equal(xd_get(&f.x, at), 0x03000002);
    assert_int_equal(xd_get(&f.x, at + 8) & 0xffff, 0x0405);
    assert_int_equal(xd_get(&f.x, 0x48), 1);
    assert_int_equal(bus_read(f.x.m.bus, BUS_MMIO, f.x.bar, 1), 0x40);
    assert_int_equal(bus_read(f.x.m.bus, BUS_MMIO, f.x.bar, 8) >> 32, xd_get(&f.x, 4));
    teardown(&f);
}

static void test_enumerate(void **state)
{
    static const uint8_t get_device[8] = {0x80, 6, 0, 1, 0, 0, 18, 0};
    static const uint8_t get_configuration[8] = {0x80, 6, 0, 2, 0, 0, 255, 0};
    static const uint8_t get_string[8] = {0x80, 6, 2, 3, 9, 4, 255, 0};
    static const uint8_t get_report_descriptor[8] = {0x81, 6, 0, 0x22, 0, 0, 0, 16};
    struct fixture f;
    unsigned got;
    setup(&f);
    uint64_t gpa = vd_alloc(&f.x.m, 4096, 4096);
    const uint8_t *bytes = ram_hva(f.x.m.ram, gpa, 4096);
    xd_address(&f.x, KEYBOARD_PORT);
    assert_int_equal(xd_control(&f.x, get_device, gpa, &got), SUCCESS);
    assert_int_equal(got, 18);
    assert_int_equal(bytes[1], 1);
    assert_int_equal(xd_control(&f.x, get_configuration, gpa, &got), SUCCESS);
    assert_int_equal(got, bytes[2]);
    assert_int_equal(xd_control(&f.x, get_string, gpa, &got), SUCCESS);
    assert_int_equal(got, 2 + 2 * strlen("USB keyboard"));
    assert_int_equal(bytes[2], 'U');
    assert_int_equal(xd_control(&f.x, get_report_descriptor, gpa, &got), SUCCESS);
    assert_in_range(got, 40, 100);
    configure(&f);
    teardown(&f);
}

static void test_keyboard(void **state)
{
    struct fixture f;
    setup(&f);
    xd_address(&f.x, KEYBOARD_PORT);
    configure(&f);
    assert_false(f.keyboard.is_listening(f.keyboard.opaque));
    uint64_t gpa = ask(&f, 8);
    assert_true(f.keyboard.is_listening(f.keyboard.opaque));
    xd_expect_none(&f.x);
    f.keyboard.key(f.keyboard.opaque, 30, true); /* A */
    expect_report(&f, gpa, "\0\0\4\0\0\0\0\0", 8);
    f.keyboard.key(f.keyboard.opaque, 30, true); /* repeats: nothing */
    f.keyboard.key(f.keyboard.opaque, 42, true); /* left shift: waits for the next transfer */
    f.keyboard.key(f.keyboard.opaque, 30, false);
    xd_expect_none(&f.x);
    gpa = ask(&f, 8);
    expect_report(&f, gpa, "\2\0\4\0\0\0\0\0", 8);
    gpa = ask(&f, 8);
    expect_report(&f, gpa, "\2\0\0\0\0\0\0\0", 8);
    for (unsigned key = 16; key < 23; key++) /* seven at once */
        f.keyboard.key(f.keyboard.opaque, key, true);
    for (unsigned i = 0; i < 7; i++) {
        gpa = ask(&f, 8);
        struct xd_event event = xd_expect(&f.x, TRANSFER_EVENT);
        assert_int_equal(xd_code_of(&event), SUCCESS);
    }
    assert_memory_equal(ram_hva(f.x.m.ram, gpa, 8), "\2\0\1\1\1\1\1\1", 8);
    static const uint8_t set_report[8] = {0x21, 9, 0, 2, 0, 0, 1, 0};
    vd_put(&f.x.m, gpa, 3, 1);
    assert_int_equal(xd_control(&f.x, set_report, gpa, NULL), SUCCESS);
    assert_int_equal(usb_keyboard_leds(f.keyboard_device), 3);
    teardown(&f);
}

/* More keys than find room: none stays down. */
static void test_keys_are_not_lost(void **state)
{
    struct fixture f;
    setup(&f);
    xd_address(&f.x, KEYBOARD_PORT);
    configure(&f);
    uint64_t gpa = ask(&f, 8);
    for (unsigned i = 0; i < 1001; i++)
        f.keyboard.key(f.keyboard.opaque, 30, i % 2 == 0);
    f.keyboard.key(f.keyboard.opaque, 30, false);
    xd_expect(&f.x, TRANSFER_EVENT);
    for (unsigned i = 0; i < 200; i++) {
        struct xd_event event;
        uint64_t next = ask(&f, 8);
        if (xd_next_event(&f.x, &event))
            gpa = next;
    }
    assert_memory_equal(ram_hva(f.x.m.ram, gpa, 8), "\0\0\0\0\0\0\0\0", 8);
    teardown(&f);
}

static void test_tablet(void **state)
{
    struct fixture f;
    setup(&f);
    xd_address(&f.x, TABLET_PORT);
    configure(&f);
    uint64_t gpa = ask(&f, 8); /* 7 bytes: a short packet */
    const struct input_pointer at = {
        .is_absolute = true, .x = 0x1234, .y = 0x7fff, .wheel_up = -1, .buttons = INPUT_RIGHT};
    f.tablet.pointer(f.tablet.opaque, &at);
    struct xd_event event = xd_expect(&f.x, TRANSFER_EVENT);
    assert_int_equal(xd_code_of(&event), SHORT);
    assert_int_equal(event.status & 0xffffff, 1);
    assert_memory_equal(ram_hva(f.x.m.ram, gpa, 7), "\x02\x34\x12\xff\x7f\xff\x00", 7);
    gpa = ask(&f, 7);
    xd_expect_none(&f.x);
    f.tablet.pointer(f.tablet.opaque, &(struct input_pointer){.x = 1, .wheel_right = 2});
    expect_report(&f, gpa, "\x00\x01\x00\x00\x00\x00\x02", 7);
    for (unsigned i = 0; i < 1000; i++) /* movement waits as one */
        f.tablet.pointer(f.tablet.opaque, &(struct input_pointer){.x = (uint16_t)i, .wheel_up = 1});
    gpa = ask(&f, 7);
    expect_report(&f, gpa, "\x00\xe7\x03\x00\x00\x7f\x00", 7);
    ask(&f, 7);
    xd_expect_none(&f.x);
    teardown(&f);
}

/* An event data TRB tells how much has come, 4.11.5.2. */
static void test_event_data(void **state)
{
    struct fixture f;
    setup(&f);
    xd_address(&f.x, TABLET_PORT);
    configure(&f);
    uint64_t gpa = vd_alloc(&f.x.m, 64, 64);
    xd_push(&f.x, &f.interrupts, gpa, 4, NORMAL, 1 << 4);
    xd_push(&f.x, &f.interrupts, gpa + 32, 16, NORMAL, 1 << 4);
    xd_push(&f.x, &f.interrupts, 0x1122334455667788, 0, EVENT_DATA, 1 << 5);
    xd_ring_doorbell(&f.x, 3);
    f.tablet.pointer(f.tablet.opaque, &(struct input_pointer){.x = 0x0102, .y = 0x0304});
    struct xd_event event = xd_expect(&f.x, TRANSFER_EVENT);
    assert_int_equal(event.parameter, 0x1122334455667788);
    assert_int_equal(xd_code_of(&event), SHORT);
    assert_int_equal(event.status & 0xffffff, 7);
    assert_true(event.control & 1 << 2);
    assert_memory_equal(ram_hva(f.x.m.ram, gpa, 4), "\x00\x02\x01\x04", 4);
    assert_memory_equal(ram_hva(f.x.m.ram, gpa + 32, 3), "\x03\x00\x00", 3);
    xd_expect_none(&f.x);
    teardown(&f);
}

static void test_stall_and_babble(void **state)
{
    static const uint8_t unknown[8] = {0x80, 6, 0, 99, 0, 0, 8, 0};
    static const uint8_t get_status[8] = {0x80, 0, 0, 0, 0, 0, 2, 0};
    struct fixture f;
    setup(&f);
    uint64_t gpa = vd_alloc(&f.x.m, 64, 64);
    xd_address(&f.x, KEYBOARD_PORT);
    configure(&f);
    assert_int_equal(xd_control(&f.x, unknown, gpa, NULL), STALL);
    assert_int_equal(xd_told(&f.x, 1, 0) & 7, 2); /* halted */
    xd_ring_doorbell(&f.x, 1);
    xd_expect_none(&f.x);
    uint32_t flags = f.x.slot << 24 | 1 << 16;
    assert_int_equal(xd_command_code(&f.x, f.x.control.gpa, SET_DEQUEUE, flags), CONTEXT_STATE);
    assert_int_equal(xd_command_code(&f.x, 0, RESET_ENDPOINT, flags), SUCCESS);
    assert_int_equal(xd_command_code(&f.x, 0, RESET_ENDPOINT, flags), CONTEXT_STATE);
    f.x.control = xd_ring_make(&f.x);
    assert_int_equal(xd_command_code(&f.x, f.x.control.gpa | 1, SET_DEQUEUE, flags), SUCCESS);
    assert_int_equal(xd_control(&f.x, get_status, gpa, NULL), SUCCESS);
    ask(&f, 4); /* of 8 */
    f.keyboard.key(f.keyboard.opaque, 30, true);
    struct xd_event event = xd_expect(&f.x, TRANSFER_EVENT);
    assert_int_equal(xd_code_of(&event), BABBLE);
    assert_int_equal(xd_told(&f.x, 3, 0) & 7, 2);
    teardown(&f);
}

/* A request that has something to say for another endpoint: the transfer that waits there is looked
 * at later, and the control endpoint goes on where it was. */
static void test_idle_rate_while_asked(void **state)
{
    static const uint8_t set_idle[8] = {0x21, 10, 0, 1}; /* a report every 4 ms */
    static const uint8_t get_status[8] = {0x80, 0, 0, 0, 0, 0, 2, 0};
    struct timespec pause = {0, 1000000};
    struct fixture f;
    struct xd_event event;
    setup(&f);
    uint64_t gpa = vd_alloc(&f.x.m, 64, 64);
    xd_address(&f.x, KEYBOARD_PORT);
    configure(&f);
    ask(&f, 8);
    assert_int_equal(xd_control(&f.x, set_idle, 0, NULL), SUCCESS);
    bool is_reported = false;
    for (unsigned i = 0; i < 10000 && !is_reported; i++) {
        is_reported = xd_next_event(&f.x, &event);
        nanosleep(&pause, NULL);
    }
    assert_true(is_reported);
    assert_int_equal(event.control >> 16 & 31, 3);
    assert_int_equal(xd_control(&f.x, get_status, gpa, NULL), SUCCESS);
    teardown(&f);
}

static void test_stop_and_restart(void **state)
{
    struct fixture f;
    setup(&f);
    xd_address(&f.x, KEYBOARD_PORT);
    configure(&f);
    uint32_t flags = f.x.slot << 24 | 3 << 16;
    uint64_t gpa = ask(&f, 8);
    xd_push(&f.x, &f.x.commands, 0, 0, STOP_ENDPOINT, flags);
    xd_put(&f.x, DOORBELLS, 0);
    struct xd_event event = xd_expect(&f.x, TRANSFER_EVENT);
    assert_int_equal(xd_code_of(&event), STOPPED);
    assert_int_equal(event.status & 0xffffff, 8);
    event = xd_expect(&f.x, COMMAND_EVENT);
    assert_int_equal(xd_code_of(&event), SUCCESS);
    assert_int_equal(vd_get(&f.x.m, f.x.output + 3 * 32 + 8, 8), f.interrupts.gpa | 1);
    assert_false(f.keyboard.is_listening(f.keyboard.opaque));
    assert_int_equal(xd_command_code(&f.x, 0, STOP_ENDPOINT, flags), CONTEXT_STATE);
    xd_ring_doorbell(&f.x, 3);
    f.keyboard.key(f.keyboard.opaque, 2, true);
    expect_report(&f, gpa, "\0\0\x1e\0\0\0\0\0", 8);
    teardown(&f);
}

static void test_commands(void **state)
{
    struct fixture f;
    setup(&f);
    for (unsigned i = 0; i < 3 * RING_TRBS; i++) /* round the rings, commands and events */
        assert_int_equal(xd_command_code(&f.x, 0, NOOP, 0), SUCCESS);
    assert_int_equal(xd_command_code(&f.x, 0, 63, 0), TRB_ERROR);
    assert_int_equal(xd_command_code(&f.x, 0, DISABLE_SLOT, 1u << 24), NOT_ENABLED);
    assert_int_equal(xd_command_code(&f.x, 0, DISABLE_SLOT, 200u << 24), NOT_ENABLED);
    for (unsigned i = 0; i < 16; i++)
        assert_int_equal(xd_command_code(&f.x, 0, ENABLE_SLOT, 0), SUCCESS);
    assert_int_equal(xd_command_code(&f.x, 0, ENABLE_SLOT, 0), NO_SLOTS);
    assert_int_equal(xd_command_code(&f.x, 0, DISABLE_SLOT, 5u << 24), SUCCESS);
    struct xd_event event = xd_command(&f.x, 0, ENABLE_SLOT, 0);
    assert_int_equal(event.control >> 24, 5);
    assert_int_equal(xd_command_code(&f.x, 0, RESET_DEVICE, 5u << 24), CONTEXT_STATE);
    assert_int_equal(xd_command_code(&f.x, 0, CONFIGURE, 5u << 24), CONTEXT_STATE);
    assert_int_equal(xd_command_code(&f.x, 0, EVALUATE, 5u << 24), CONTEXT_STATE);
    assert_int_equal(xd_get(&f.x, 0x58), 8); /* the ring runs */
    xd_put(&f.x, 0x58, 2);
    event = xd_expect(&f.x, COMMAND_EVENT);
    assert_int_equal(xd_code_of(&event), 24);
    assert_int_equal(xd_get(&f.x, 0x58), 0);
    teardown(&f);
}

static void test_bad_contexts(void **state)
{
    struct fixture f;
    setup(&f);
    xd_reset_port(&f.x, KEYBOARD_PORT);
    xd_enable(&f.x);
    uint32_t flags = f.x.slot << 24;
    xd_fill_address(&f.x, KEYBOARD_PORT);
    const struct {
        unsigned context, index;
        uint32_t value, code;
    } cases[] = {
        {0, 0, 8, PARAMETER},         {0, 1, 0xf, PARAMETER},     {1, 0, 1 << 27 | 5, PARAMETER},
        {1, 1, 0, PARAMETER},         {1, 1, 9 << 16, PARAMETER}, {1, 1, 255 << 16, PARAMETER},
        {1, 1, 3 << 16, 4},           {2, 1, 2 << 3, PARAMETER},  {2, 0, 31 << 10, PARAMETER},
        {1, 1, TABLET_PORT << 16, 4}, /* not reset yet */
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t gpa = f.x.input + 32 * cases[i].context + 4 * cases[i].index;
        uint32_t good = (uint32_t)vd_get(&f.x.m, gpa, 4);
        vd_put(&f.x.m, gpa, cases[i].value, 4);
        assert_int_equal(xd_command_code(&f.x, f.x.input, ADDRESS, flags), cases[i].code);
        vd_put(&f.x.m, gpa, good, 4);
    }
    assert_int_equal(xd_command_code(&f.x, 0xfffffffffffffff0, ADDRESS, flags), PARAMETER);
    vd_put(&f.x.m, f.x.contexts + 8 * f.x.slot, 0xfffffffff000, 8);
    assert_int_equal(xd_command_code(&f.x, f.x.input, ADDRESS, flags), PARAMETER);
    vd_put(&f.x.m, f.x.contexts + 8 * f.x.slot, f.x.output, 8);
    assert_int_equal(xd_command_code(&f.x, f.x.input, ADDRESS, flags | 1 << 9), SUCCESS);
    assert_int_equal(xd_told(&f.x, 0, 3) >> 27, 1);
    assert_int_equal(xd_command_code(&f.x, f.x.input, ADDRESS, flags | 1 << 9), CONTEXT_STATE);
    assert_int_equal(xd_command_code(&f.x, f.x.input, ADDRESS, flags), SUCCESS);
    xd_word(&f.x, 0, 1, 1 | 1 << 3); /* an endpoint of the wrong direction */
    xd_word(&f.x, 4, 1, 8u << 16 | 3 << 3);
    assert_int_equal(xd_command_code(&f.x, f.x.input, CONFIGURE, flags), PARAMETER);
    xd_word(&f.x, 0, 0, 1);
    assert_int_equal(xd_command_code(&f.x, f.x.input, CONFIGURE, flags), PARAMETER);
    assert_int_equal(xd_told(&f.x, 0, 3) >> 27, 2);
    xd_enable(&f.x); /* a second slot for the same device */
    xd_fill_address(&f.x, KEYBOARD_PORT);
    assert_int_equal(xd_command_code(&f.x, f.x.input, ADDRESS, f.x.slot << 24), TRB_ERROR);
    teardown(&f);
}

/* Rings without an end, outside of memory, and of nonsense: nothing hangs, and a reset helps. */
static void test_bad_rings(void **state)
{
    struct fixture f;
    setup(&f);
    xd_address(&f.x, KEYBOARD_PORT);
    configure(&f);
    f.keyboard.key(f.keyboard.opaque, 30, true);
    xd_trb_write(&f.x, f.interrupts.gpa, f.interrupts.gpa, 0, LINK << 10 | 1);
    xd_ring_doorbell(&f.x, 3);
    struct xd_event event = xd_expect(&f.x, TRANSFER_EVENT);
    assert_int_equal(xd_code_of(&event), TRB_ERROR);
    assert_int_equal(xd_told(&f.x, 3, 0) & 7, 4);
    assert_int_equal(xd_command_code(&f.x, 0xfffffffffff0, SET_DEQUEUE, f.x.slot << 24 | 3 << 16),
                     SUCCESS);
    xd_ring_doorbell(&f.x, 3);
    event = xd_expect(&f.x, TRANSFER_EVENT);
    assert_int_equal(xd_code_of(&event), TRB_ERROR);
    f.interrupts = xd_ring_make(&f.x);
    assert_int_equal(
        xd_command_code(&f.x, f.interrupts.gpa | 1, SET_DEQUEUE, f.x.slot << 24 | 3 << 16),
        SUCCESS);
    xd_push(&f.x, &f.interrupts, 0x123456789000, 8, NORMAL, 0); /* no memory there */
    xd_ring_doorbell(&f.x, 3);
    event = xd_expect(&f.x, TRANSFER_EVENT);
    assert_int_equal(xd_code_of(&event), TRB_ERROR);
    xd_push(&f.x, &f.x.control, 0, 0, STAGE_STATUS, 1 << 5); /* of no request */
    xd_ring_doorbell(&f.x, 1);
    event = xd_expect(&f.x, TRANSFER_EVENT);
    assert_int_equal(xd_code_of(&event), TRB_ERROR);
    uint64_t gpa = f.x.commands.gpa + 16 * f.x.commands.index;
    xd_trb_write(&f.x, gpa, gpa, 0, LINK << 10 | f.x.commands.cycle); /* links to itself */
    xd_put(&f.x, DOORBELLS, 0);
    xd_put(&f.x, COMMAND, 2);
    assert_int_equal(xd_get(&f.x, STATUS) & 0x1001, 1);
    xd_start(&f.x);
    assert_int_equal(xd_command_code(&f.x, 0, NOOP, 0), SUCCESS);
    xd_put64(&f.x, INTERRUPTER + 0x10, 0xfffffffff000); /* a table outside of memory */
    assert_true(xd_get(&f.x, STATUS) & 1 << 12);
    xd_put(&f.x, COMMAND, 2);
    assert_false(xd_get(&f.x, STATUS) & 1 << 12);
    teardown(&f);
}

/* An event ring that the guest does not read: nothing is overwritten, and all goes on after. */
static void test_event_ring_full(void **state)
{
    struct fixture f;
    setup(&f);
    for (unsigned i = 0; i < 3; i++)
        xd_push(&f.x, &f.x.commands, 0, 0, NOOP, 0);
    xd_put(&f.x, DOORBELLS, 0);
    for (unsigned i = 0; i < RING_TRBS - 5; i++)
        xd_push(&f.x, &f.x.commands, 0, 0, NOOP, 0);
    xd_put(&f.x, DOORBELLS, 0);
    unsigned seen = 0;
    struct timespec pause = {0, 1000000};
    for (unsigned i = 0; i < 10000 && seen < RING_TRBS - 2; i++) {
        struct xd_event event;
        if (!xd_next_event(&f.x, &event))
            nanosleep(&pause, NULL);
        else
            seen += xd_type_of(&event) == COMMAND_EVENT && xd_code_of(&event) == SUCCESS;
    }
    assert_int_equal(seen, RING_TRBS - 2);
    teardown(&f);
}

static void test_ports(void **state)
{
    struct fixture f;
    setup(&f);
    assert_int_equal(xd_get(&f.x, xd_port_at(3)) & 1, 0);
    xd_put(&f.x, xd_port_at(3), 1 << 9 | 1 << 4); /* nothing to reset */
    assert_int_equal(xd_get(&f.x, xd_port_at(3)) & 2, 0);
    xd_address(&f.x, KEYBOARD_PORT);
    configure(&f);
    static const uint8_t wake[8] = {0, 3, 1};
    assert_int_equal(xd_control(&f.x, wake, 0, NULL), SUCCESS);
    uint64_t gpa = ask(&f, 8);
    xd_put(&f.x, xd_port_at(1), 1 << 9 | 1 << 16 | 3 << 5); /* U3 */
    assert_int_equal(xd_get(&f.x, xd_port_at(1)) >> 5 & 15, 3);
    xd_expect_none(&f.x);
    f.keyboard.key(f.keyboard.opaque, 30, true);
    struct xd_event event = xd_expect(&f.x, PORT_EVENT);
    assert_int_equal(event.parameter >> 24, KEYBOARD_PORT);
    assert_int_equal(xd_get(&f.x, xd_port_at(1)) >> 5 & 15, 15); /* resume */
    xd_put(&f.x, xd_port_at(1), 1 << 9 | 1 << 16 | 1 << 22);     /* to U0, the change taken */
    assert_int_equal(xd_get(&f.x, xd_port_at(1)) >> 5 & 15, 0);
    struct timespec pause = {0, 1000000};
    for (unsigned i = 0; i < 10000 && !vd_get(&f.x.m, gpa + 2, 1); i++)
        nanosleep(&pause, NULL);
    expect_report(&f, gpa, "\0\0\4\0\0\0\0\0", 8);
    xd_put(&f.x, xd_port_at(1), 1 << 9 | 1 << 1); /* disabled */
    assert_int_equal(xd_get(&f.x, xd_port_at(1)) & 2, 0);
    teardown(&f);
}

static void test_reset_while_busy(void **state)
{
    struct fixture f;
    setup(&f);
    xd_address(&f.x, KEYBOARD_PORT);
    configure(&f);
    ask(&f, 8);
    xd_put(&f.x, COMMAND, 2);
    assert_int_equal(xd_get(&f.x, COMMAND), 0);
    assert_false(f.keyboard.is_listening(f.keyboard.opaque));
    f.keyboard.key(f.keyboard.opaque, 30, true);
    xd_start(&f.x);
    xd_address(&f.x, KEYBOARD_PORT);
    configure(&f);
    ask(&f, 8);
    assert_int_equal(xd_command_code(&f.x, 0, RESET_DEVICE, f.x.slot << 24), SUCCESS);
    assert_int_equal(xd_told(&f.x, 0, 3) >> 27, 1);
    assert_int_equal(xd_told(&f.x, 3, 0) & 7, 0);
    xd_ring_doorbell(&f.x, 3);
    xd_expect_none(&f.x);
    xhci_ops.reset(f.xhci);
    teardown(&f);
}

static void test_interrupts(void **state)
{
    struct fixture f;
    setup(&f);
    xd_expect_none(&f.x);
    xd_put(&f.x, INTERRUPTER, 3);
    assert_false(f.x.m.intx);
    xd_push(&f.x, &f.x.commands, 0, 0, NOOP, 0);
    xd_put(&f.x, DOORBELLS, 0);
    assert_true(f.x.m.intx);
    assert_true(xd_get(&f.x, STATUS) & 8);
    xd_put(&f.x, INTERRUPTER, 3); /* pending is taken away */
    assert_false(f.x.m.intx);
    xd_expect(&f.x, COMMAND_EVENT);
    unsigned at = vd_capability(&f.x.m, SLOT, PCI_CAPABILITY_MSIX, 0);
    uint64_t table = vd_bar(&f.x.m, SLOT, 2);
    bus_write(f.x.m.bus, BUS_MMIO, table, VD_MSI_ADDRESS, 8);
    bus_write(f.x.m.bus, BUS_MMIO, table + 8, MSI_DATA, 8);
    vd_config_write(&f.x.m, SLOT, at + 2, 0x8000, 2);
    f.x.m.msi_count = 0;
    xd_push(&f.x, &f.x.commands, 0, 0, NOOP, 0);
    xd_put(&f.x, DOORBELLS, 0);
    xd_push(&f.x, &f.x.commands, 0, 0, NOOP, 0);
    xd_put(&f.x, DOORBELLS, 0);
    assert_int_equal(f.x.m.msi_count, 1); /* the handler is busy */
    assert_int_equal(f.x.m.msi_data[0], MSI_DATA);
    assert_int_equal(xd_get(&f.x, INTERRUPTER) & 1, 0);
    xd_expect(&f.x, COMMAND_EVENT); /* reads one of two: there is more */
    assert_int_equal(f.x.m.msi_count, 2);
    teardown(&f);
}

/* A transfer that waits for a key is answered by the controller that was loaded. */
static void test_save_and_load(void **state)
{
    struct fixture f;
    struct save save = {0}, again = {0};
    setup(&f);
    xd_address(&f.x, KEYBOARD_PORT);
    configure(&f);
    uint64_t gpa = ask(&f, 8);
    f.keyboard.key(f.keyboard.opaque, 42, true);
    expect_report(&f, gpa, "\2\0\0\0\0\0\0\0", 8);
    f.keyboard.key(f.keyboard.opaque, 30, true);
    gpa = ask(&f, 8);
    expect_report(&f, gpa, "\2\0\4\0\0\0\0\0", 8);
    gpa = ask(&f, 8);
    clock_pause(f.x.clock);
    xd_save(f.xhci, &save);
    xhci_ops.destroy(f.xhci);
    f.keyboard_device = NULL;
    f.xhci = make(&f, &f.keyboard, &f.tablet, SLOT);
    assert_true(xd_load(f.xhci, &save));
    xd_save(f.xhci, &again);
    assert_int_equal(again.size_bytes, save.size_bytes);
    assert_memory_equal(again.bytes, save.bytes, save.size_bytes);
    clock_resume(f.x.clock);
    assert_true(f.keyboard.is_listening(f.keyboard.opaque));
    f.keyboard.key(f.keyboard.opaque, 42, false);
    expect_report(&f, gpa, "\0\0\4\0\0\0\0\0", 8);
    save_free(&save);
    save_free(&again);
    teardown(&f);
}

/* Whatever the bytes: refused, or as harmless as any other state. */
static void test_load_checks(void **state)
{
    struct fixture f;
    struct save save = {0};
    unsigned refused = 0;
    setup(&f);
    xd_address(&f.x, KEYBOARD_PORT);
    configure(&f);
    ask(&f, 8);
    xd_save(f.xhci, &save);
    for (size_t at = 48; at < save.size_bytes; at += 7) {
        uint8_t byte = save.bytes[at];
        save.bytes[at] ^= 0xff;
        refused += !xd_load(f.xhci, &save);
        f.keyboard.key(f.keyboard.opaque, 30, at % 2);
        xd_put(&f.x, DOORBELLS, 0);
        xd_put(&f.x, DOORBELLS + 4, 3);
        save.bytes[at] = byte;
    }
    assert_true(refused > 50);
    save.bytes[save.size_bytes - 1] ^= 0;
    assert_true(xd_load(f.xhci, &save));
    save_free(&save);
    teardown(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_capabilities),     cmocka_unit_test(test_enumerate),
        cmocka_unit_test(test_keyboard),         cmocka_unit_test(test_keys_are_not_lost),
        cmocka_unit_test(test_tablet),           cmocka_unit_test(test_event_data),
        cmocka_unit_test(test_stall_and_babble), cmocka_unit_test(test_idle_rate_while_asked),
        cmocka_unit_test(test_stop_and_restart), cmocka_unit_test(test_commands),
        cmocka_unit_test(test_bad_contexts),     cmocka_unit_test(test_bad_rings),
        cmocka_unit_test(test_event_ring_full),  cmocka_unit_test(test_ports),
        cmocka_unit_test(test_reset_while_busy), cmocka_unit_test(test_interrupts),
        cmocka_unit_test(test_save_and_load),    cmocka_unit_test(test_load_checks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
