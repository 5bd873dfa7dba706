/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The xHC and its keyboard and tablet through the bus, with a small driver written here: enumerate,
 * address, configure, reports, stalls, short packets, resets, and rings and contexts that make no
 * sense. Section numbers are those of xHCI 1.1.
 */
#include "dev/virtio_driver.h"

#include "dev/usb/hid.h"
#include "dev/usb/xhci.h"

#include <time.h>

enum {
    SLOT = 3,
    RING_TRBS = 64,
    EVENTS = 64,
    KEYBOARD_PORT = 1, /* as the guest counts */
    TABLET_PORT = 2,
    OPERATIONAL = 0x40,
    COMMAND = 0x40,
    STATUS = 0x44,
    INTERRUPTER = 0x1020,
    DOORBELLS = 0x2000,
    MSI_DATA = 0x4000,
};

enum { /* TRB types and codes */
       NORMAL = 1,
       SETUP = 2,
       DATA = 3,
       STAGE_STATUS = 4,
       LINK = 6,
       EVENT_DATA = 7,
       ENABLE_SLOT = 9,
       DISABLE_SLOT = 10,
       ADDRESS = 11,
       CONFIGURE = 12,
       EVALUATE = 13,
       RESET_ENDPOINT = 14,
       STOP_ENDPOINT = 15,
       SET_DEQUEUE = 16,
       RESET_DEVICE = 17,
       NOOP = 23,
       TRANSFER_EVENT = 32,
       COMMAND_EVENT = 33,
       PORT_EVENT = 34,
       SUCCESS = 1,
       BABBLE = 3,
       TRB_ERROR = 5,
       STALL = 6,
       NO_SLOTS = 9,
       NOT_ENABLED = 11,
       SHORT = 13,
       PARAMETER = 17,
       CONTEXT_STATE = 19,
       STOPPED = 26,
};

struct ring {
    uint64_t gpa;
    unsigned index;
    bool cycle;
};

struct event {
    uint64_t parameter;
    uint32_t status, control;
};

struct fixture {
    struct vd_machine m;
    struct clock *clock;
    struct xhci *xhci;
    struct input_device keyboard, tablet;
    struct usb_device *keyboard_device;
    uint64_t bar;
    struct ring commands, control, interrupts; /* of one device */
    uint64_t contexts, input, output, events, table;
    unsigned event_index;
    bool event_cycle;
    unsigned slot;
};

/* ---- registers ---- */

static uint32_t get(struct fixture *f, unsigned offset)
{
    return (uint32_t)bus_read(f->m.bus, BUS_MMIO, f->bar + offset, 4);
}

static void put(struct fixture *f, unsigned offset, uint32_t value)
{
    bus_write(f->m.bus, BUS_MMIO, f->bar + offset, value, 4);
}

static void put64(struct fixture *f, unsigned offset, uint64_t value)
{
    put(f, offset, (uint32_t)value);
    put(f, offset + 4, (uint32_t)(value >> 32));
}

static unsigned port_at(unsigned port)
{
    return 0x430 + 0x10 * port;
}

/* ---- rings ---- */

static struct ring ring_make(struct fixture *f)
{
    struct ring ring = {vd_alloc(&f->m, RING_TRBS * 16, 64), 0, true};
    return ring;
}

static void trb_write(struct fixture *f, uint64_t gpa, uint64_t parameter, uint32_t status,
                      uint32_t control)
{
    vd_put(&f->m, gpa, parameter, 8);
    vd_put(&f->m, gpa + 8, status, 4);
    vd_put(&f->m, gpa + 12, control, 4);
}

/* Puts a TRB into a ring, with a link at its end that turns the cycle bit over. */
static uint64_t push(struct fixture *f, struct ring *ring, uint64_t parameter, uint32_t status,
                     unsigned type, uint32_t flags)
{
    uint64_t gpa = ring->gpa + 16 * ring->index;
    trb_write(f, gpa, parameter, status, type << 10 | flags | ring->cycle);
    if (++ring->index == RING_TRBS - 1) {
        trb_write(f, ring->gpa + 16 * ring->index, ring->gpa, 0,
                  LINK << 10 | 2 | (flags & 0x10) | ring->cycle);
        ring->index = 0;
        ring->cycle = !ring->cycle;
    }
    return gpa;
}

static bool next_event(struct fixture *f, struct event *event)
{
    uint64_t gpa = f->events + 16 * f->event_index;
    event->parameter = vd_get(&f->m, gpa, 8);
    event->status = (uint32_t)vd_get(&f->m, gpa + 8, 4);
    event->control = (uint32_t)vd_get(&f->m, gpa + 12, 4);
    if ((event->control & 1) != f->event_cycle)
        return false;
    if (++f->event_index == EVENTS) {
        f->event_index = 0;
        f->event_cycle = !f->event_cycle;
    }
    put64(f, INTERRUPTER + 0x18, (f->events + 16 * f->event_index) | 8);
    return true;
}

static unsigned type_of(const struct event *event)
{
    return event->control >> 10 & 63;
}

static unsigned code_of(const struct event *event)
{
    return event->status >> 24;
}

/* The next event, which must be of this type; others than port changes are not passed over. */
static struct event expect(struct fixture *f, unsigned type)
{
    struct event event;
    do
        assert_true(next_event(f, &event));
    while (type != PORT_EVENT && type_of(&event) == PORT_EVENT);
    assert_int_equal(type_of(&event), type);
    return event;
}

static void expect_none(struct fixture *f)
{
    struct event event;
    while (next_event(f, &event))
        assert_int_equal(type_of(&event), PORT_EVENT);
}

static struct event command(struct fixture *f, uint64_t parameter, unsigned type, uint32_t flags)
{
    uint64_t gpa = push(f, &f->commands, parameter, 0, type, flags);
    put(f, DOORBELLS, 0);
    struct event event = expect(f, COMMAND_EVENT);
    assert_int_equal(event.parameter, gpa);
    return event;
}

static unsigned command_code(struct fixture *f, uint64_t parameter, unsigned type, uint32_t flags)
{
    struct event event = command(f, parameter, type, flags);
    return code_of(&event);
}

static void ring_doorbell(struct fixture *f, unsigned endpoint)
{
    put(f, DOORBELLS + 4 * f->slot, endpoint);
}

/* ---- bringing it up ---- */

static struct xhci *make(struct fixture *f, struct input_device *keyboard,
                         struct input_device *tablet, unsigned slot)
{
    struct xhci_config config = {.pci = f->m.pci,
                                 .slot = slot,
                                 .msi = vd_msi(&f->m),
                                 .ram = f->m.ram,
                                 .clock = f->clock,
                                 .log = &f->m.log};
    config.devices[0] = usb_keyboard_create(f->clock, keyboard, NULL);
    config.devices[1] = usb_tablet_create(f->clock, tablet, NULL);
    if (!f->keyboard_device)
        f->keyboard_device = config.devices[0];
    struct xhci *xhci = xhci_create(&config, NULL);
    assert_non_null(xhci);
    return xhci;
}

static void start(struct fixture *f)
{
    f->commands = ring_make(f);
    f->contexts = vd_alloc(&f->m, 8 * 17, 64);
    f->events = vd_alloc(&f->m, EVENTS * 16, 64);
    f->table = vd_alloc(&f->m, 16, 64);
    f->event_index = 0;
    f->event_cycle = true;
    vd_put(&f->m, f->table, f->events, 8);
    vd_put(&f->m, f->table + 8, EVENTS, 4);
    put(f, 0x78, 16);                        /* CONFIG */
    put64(f, 0x70, f->contexts);             /* DCBAAP */
    put64(f, 0x58, f->commands.gpa | 1);     /* CRCR */
    put(f, INTERRUPTER + 8, 1);              /* ERSTSZ */
    put64(f, INTERRUPTER + 0x18, f->events); /* ERDP */
    put64(f, INTERRUPTER + 0x10, f->table);  /* ERSTBA */
    put(f, INTERRUPTER + 4, 0);              /* no moderation */
    put(f, INTERRUPTER, 2);
    put(f, COMMAND, 5);
    assert_int_equal(get(f, STATUS) & 1, 0);
}

static void setup(struct fixture *f)
{
    memset(f, 0, sizeof(*f));
    vd_machine_init(&f->m, 8 << 20);
    f->clock = clock_create(NULL);
    f->xhci = make(f, &f->keyboard, &f->tablet, SLOT);
    vd_boot(&f->m);
    f->bar = vd_bar(&f->m, SLOT, 0);
    start(f);
}

static void teardown(struct fixture *f)
{
    xhci_ops.destroy(f->xhci);
    clock_destroy(f->clock);
    vd_machine_free(&f->m);
}

static void word(struct fixture *f, unsigned context, unsigned index, uint32_t value)
{
    vd_put(&f->m, f->input + 32 * context + 4 * index, value, 4);
}

static uint32_t told(struct fixture *f, unsigned context, unsigned index)
{
    return (uint32_t)vd_get(&f->m, f->output + 32 * context + 4 * index, 4);
}

static void fill_address(struct fixture *f, unsigned port)
{
    f->input = vd_alloc(&f->m, 33 * 32, 64);
    f->control = ring_make(f);
    word(f, 0, 1, 3);
    word(f, 1, 0, 1u << 27 | 1 << 20);
    word(f, 1, 1, port << 16);
    word(f, 2, 1, 8u << 16 | 4 << 3 | 3 << 1);
    vd_put(&f->m, f->input + 2 * 32 + 8, f->control.gpa | 1, 8);
}

static void enable(struct fixture *f)
{
    struct event event = command(f, 0, ENABLE_SLOT, 0);
    assert_int_equal(code_of(&event), SUCCESS);
    f->slot = event.control >> 24;
    f->output = vd_alloc(&f->m, 1024, 64);
    vd_put(&f->m, f->contexts + 8 * f->slot, f->output, 8);
}

static void reset_port(struct fixture *f, unsigned port)
{
    put(f, port_at(port), 1 << 9 | 1 << 4);
    uint32_t status = get(f, port_at(port));
    assert_int_equal(status & 0x1e3, 3); /* connected, enabled, U0 */
    assert_true(status & 1 << 21);
    put(f, port_at(port), 1 << 9 | 0x7f << 17);
}

static void address(struct fixture *f, unsigned port)
{
    reset_port(f, port);
    enable(f);
    fill_address(f, port);
    assert_int_equal(command_code(f, f->input, ADDRESS, f->slot << 24), SUCCESS);
    assert_int_equal(told(f, 0, 3) >> 27, 2);
    assert_int_equal(told(f, 1, 0) & 7, 1);
}

/* A control transfer; gives the completion code of what ended it, and how much came. */
static unsigned control(struct fixture *f, const uint8_t request[8], uint64_t gpa, unsigned *got)
{
    uint64_t setup_packet;
    memcpy(&setup_packet, request, 8);
    unsigned length = request[6] | request[7] << 8;
    bool is_in = request[0] & 0x80;
    push(f, &f->control, setup_packet, 8, SETUP, 1 << 6 | (length ? (is_in ? 3 : 2) << 16 : 0));
    if (length)
        push(f, &f->control, gpa, length, DATA, 1 << 2 | (is_in ? 1 << 16 : 0));
    push(f, &f->control, 0, 0, STAGE_STATUS, 1 << 5 | (is_in && length ? 0 : 1 << 16));
    ring_doorbell(f, 1);
    struct event event = expect(f, TRANSFER_EVENT);
    assert_int_equal(event.control >> 16 & 31, 1);
    assert_int_equal(event.control >> 24, f->slot);
    if (got)
        *got = length;
    if (code_of(&event) == SHORT) {
        if (got)
            *got = length - (event.status & 0xffffff);
        event = expect(f, TRANSFER_EVENT);
    }
    return code_of(&event);
}

static void configure(struct fixture *f)
{
    static const uint8_t set_configuration[8] = {0, 9, 1};
    memset(ram_hva(f->m.ram, f->input, 33 * 32), 0, 33 * 32);
    f->interrupts = ring_make(f);
    word(f, 0, 1, 1 | 1 << 3);
    word(f, 1, 0, 3u << 27 | 1 << 20);
    word(f, 4, 0, 6 << 16);
    word(f, 4, 1, 8u << 16 | 7 << 3 | 3 << 1);
    vd_put(&f->m, f->input + 4 * 32 + 8, f->interrupts.gpa | 1, 8);
    assert_int_equal(command_code(f, f->input, CONFIGURE, f->slot << 24), SUCCESS);
    assert_int_equal(told(f, 0, 3) >> 27, 3);
    assert_int_equal(told(f, 3, 0) & 7, 1);
    assert_int_equal(control(f, set_configuration, 0, NULL), SUCCESS);
}

/* Asks for a report; gives where it will be. */
static uint64_t ask(struct fixture *f, unsigned size_bytes)
{
    uint64_t gpa = vd_alloc(&f->m, 64, 64);
    push(f, &f->interrupts, gpa, size_bytes, NORMAL, 1 << 5 | 1 << 2);
    ring_doorbell(f, 3);
    return gpa;
}

static void expect_report(struct fixture *f, uint64_t gpa, const void *bytes, unsigned size_bytes)
{
    struct event event = expect(f, TRANSFER_EVENT);
    assert_int_equal(code_of(&event), SUCCESS);
    assert_int_equal(event.control >> 16 & 31, 3);
    assert_memory_equal(ram_hva(f->m.ram, gpa, size_bytes), bytes, size_bytes);
}

/* ---- tests ---- */

static void test_capabilities(void **state)
{
    struct fixture f;
    setup(&f);
    assert_int_equal(vd_config_read(&f.m, SLOT, 8, 4) >> 8, 0x0c0330);
    assert_int_equal(get(&f, 0), 0x01000040);
    assert_int_equal(get(&f, 4) >> 24, 8);
    unsigned at = (get(&f, 0x10) >> 16) * 4;
    assert_int_equal(get(&f, at) & 0xff0000ff, 0x02000002);
    assert_int_equal(get(&f, at + 8) & 0xffff, 0x0401);
    at += (get(&f, at) >> 8 & 0xff) * 4;
    assert_int_equal(get(&f, at), 0x03000002);
    assert_int_equal(get(&f, at + 8) & 0xffff, 0x0405);
    assert_int_equal(get(&f, 0x48), 1);
    assert_int_equal(bus_read(f.m.bus, BUS_MMIO, f.bar, 1), 0x40);
    assert_int_equal(bus_read(f.m.bus, BUS_MMIO, f.bar, 8) >> 32, get(&f, 4));
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
    uint64_t gpa = vd_alloc(&f.m, 4096, 4096);
    const uint8_t *bytes = ram_hva(f.m.ram, gpa, 4096);
    address(&f, KEYBOARD_PORT);
    assert_int_equal(control(&f, get_device, gpa, &got), SUCCESS);
    assert_int_equal(got, 18);
    assert_int_equal(bytes[1], 1);
    assert_int_equal(control(&f, get_configuration, gpa, &got), SUCCESS);
    assert_int_equal(got, bytes[2]);
    assert_int_equal(control(&f, get_string, gpa, &got), SUCCESS);
    assert_int_equal(got, 2 + 2 * strlen("USB keyboard"));
    assert_int_equal(bytes[2], 'U');
    assert_int_equal(control(&f, get_report_descriptor, gpa, &got), SUCCESS);
    assert_in_range(got, 40, 100);
    configure(&f);
    teardown(&f);
}

static void test_keyboard(void **state)
{
    struct fixture f;
    setup(&f);
    address(&f, KEYBOARD_PORT);
    configure(&f);
    assert_false(f.keyboard.is_listening(f.keyboard.opaque));
    uint64_t gpa = ask(&f, 8);
    assert_true(f.keyboard.is_listening(f.keyboard.opaque));
    expect_none(&f);
    f.keyboard.key(f.keyboard.opaque, 30, true); /* A */
    expect_report(&f, gpa, "\0\0\4\0\0\0\0\0", 8);
    f.keyboard.key(f.keyboard.opaque, 30, true); /* repeats: nothing */
    f.keyboard.key(f.keyboard.opaque, 42, true); /* left shift: waits for the next transfer */
    f.keyboard.key(f.keyboard.opaque, 30, false);
    expect_none(&f);
    gpa = ask(&f, 8);
    expect_report(&f, gpa, "\2\0\4\0\0\0\0\0", 8);
    gpa = ask(&f, 8);
    expect_report(&f, gpa, "\2\0\0\0\0\0\0\0", 8);
    for (unsigned key = 16; key < 23; key++) /* seven at once */
        f.keyboard.key(f.keyboard.opaque, key, true);
    for (unsigned i = 0; i < 7; i++) {
        gpa = ask(&f, 8);
        struct event event = expect(&f, TRANSFER_EVENT);
        assert_int_equal(code_of(&event), SUCCESS);
    }
    assert_memory_equal(ram_hva(f.m.ram, gpa, 8), "\2\0\1\1\1\1\1\1", 8);
    static const uint8_t set_report[8] = {0x21, 9, 0, 2, 0, 0, 1, 0};
    vd_put(&f.m, gpa, 3, 1);
    assert_int_equal(control(&f, set_report, gpa, NULL), SUCCESS);
    assert_int_equal(usb_keyboard_leds(f.keyboard_device), 3);
    teardown(&f);
}

/* More keys than find room: none stays down. */
static void test_keys_are_not_lost(void **state)
{
    struct fixture f;
    setup(&f);
    address(&f, KEYBOARD_PORT);
    configure(&f);
    uint64_t gpa = ask(&f, 8);
    for (unsigned i = 0; i < 1001; i++)
        f.keyboard.key(f.keyboard.opaque, 30, i % 2 == 0);
    f.keyboard.key(f.keyboard.opaque, 30, false);
    expect(&f, TRANSFER_EVENT);
    for (unsigned i = 0; i < 200; i++) {
        struct event event;
        uint64_t next = ask(&f, 8);
        if (next_event(&f, &event))
            gpa = next;
    }
    assert_memory_equal(ram_hva(f.m.ram, gpa, 8), "\0\0\0\0\0\0\0\0", 8);
    teardown(&f);
}

static void test_tablet(void **state)
{
    struct fixture f;
    setup(&f);
    address(&f, TABLET_PORT);
    configure(&f);
    uint64_t gpa = ask(&f, 8); /* 7 bytes: a short packet */
    const struct input_pointer at = {
        .is_absolute = true, .x = 0x1234, .y = 0x7fff, .wheel_up = -1, .buttons = INPUT_RIGHT};
    f.tablet.pointer(f.tablet.opaque, &at);
    struct event event = expect(&f, TRANSFER_EVENT);
    assert_int_equal(code_of(&event), SHORT);
    assert_int_equal(event.status & 0xffffff, 1);
    assert_memory_equal(ram_hva(f.m.ram, gpa, 7), "\x02\x34\x12\xff\x7f\xff\x00", 7);
    gpa = ask(&f, 7);
    expect_none(&f);
    f.tablet.pointer(f.tablet.opaque, &(struct input_pointer){.x = 1, .wheel_right = 2});
    expect_report(&f, gpa, "\x00\x01\x00\x00\x00\x00\x02", 7);
    for (unsigned i = 0; i < 1000; i++) /* movement waits as one */
        f.tablet.pointer(f.tablet.opaque, &(struct input_pointer){.x = (uint16_t)i, .wheel_up = 1});
    gpa = ask(&f, 7);
    expect_report(&f, gpa, "\x00\xe7\x03\x00\x00\x7f\x00", 7);
    ask(&f, 7);
    expect_none(&f);
    teardown(&f);
}

/* An event data TRB tells how much has come, 4.11.5.2. */
static void test_event_data(void **state)
{
    struct fixture f;
    setup(&f);
    address(&f, TABLET_PORT);
    configure(&f);
    uint64_t gpa = vd_alloc(&f.m, 64, 64);
    push(&f, &f.interrupts, gpa, 4, NORMAL, 1 << 4);
    push(&f, &f.interrupts, gpa + 32, 16, NORMAL, 1 << 4);
    push(&f, &f.interrupts, 0x1122334455667788, 0, EVENT_DATA, 1 << 5);
    ring_doorbell(&f, 3);
    f.tablet.pointer(f.tablet.opaque, &(struct input_pointer){.x = 0x0102, .y = 0x0304});
    struct event event = expect(&f, TRANSFER_EVENT);
    assert_int_equal(event.parameter, 0x1122334455667788);
    assert_int_equal(code_of(&event), SHORT);
    assert_int_equal(event.status & 0xffffff, 7);
    assert_true(event.control & 1 << 2);
    assert_memory_equal(ram_hva(f.m.ram, gpa, 4), "\x00\x02\x01\x04", 4);
    assert_memory_equal(ram_hva(f.m.ram, gpa + 32, 3), "\x03\x00\x00", 3);
    expect_none(&f);
    teardown(&f);
}

static void test_stall_and_babble(void **state)
{
    static const uint8_t unknown[8] = {0x80, 6, 0, 99, 0, 0, 8, 0};
    static const uint8_t get_status[8] = {0x80, 0, 0, 0, 0, 0, 2, 0};
    struct fixture f;
    setup(&f);
    uint64_t gpa = vd_alloc(&f.m, 64, 64);
    address(&f, KEYBOARD_PORT);
    configure(&f);
    assert_int_equal(control(&f, unknown, gpa, NULL), STALL);
    assert_int_equal(told(&f, 1, 0) & 7, 2); /* halted */
    ring_doorbell(&f, 1);
    expect_none(&f);
    uint32_t flags = f.slot << 24 | 1 << 16;
    assert_int_equal(command_code(&f, f.control.gpa, SET_DEQUEUE, flags), CONTEXT_STATE);
    assert_int_equal(command_code(&f, 0, RESET_ENDPOINT, flags), SUCCESS);
    assert_int_equal(command_code(&f, 0, RESET_ENDPOINT, flags), CONTEXT_STATE);
    f.control = ring_make(&f);
    assert_int_equal(command_code(&f, f.control.gpa | 1, SET_DEQUEUE, flags), SUCCESS);
    assert_int_equal(control(&f, get_status, gpa, NULL), SUCCESS);
    ask(&f, 4); /* of 8 */
    f.keyboard.key(f.keyboard.opaque, 30, true);
    struct event event = expect(&f, TRANSFER_EVENT);
    assert_int_equal(code_of(&event), BABBLE);
    assert_int_equal(told(&f, 3, 0) & 7, 2);
    teardown(&f);
}

static void test_stop_and_restart(void **state)
{
    struct fixture f;
    setup(&f);
    address(&f, KEYBOARD_PORT);
    configure(&f);
    uint32_t flags = f.slot << 24 | 3 << 16;
    uint64_t gpa = ask(&f, 8);
    push(&f, &f.commands, 0, 0, STOP_ENDPOINT, flags);
    put(&f, DOORBELLS, 0);
    struct event event = expect(&f, TRANSFER_EVENT);
    assert_int_equal(code_of(&event), STOPPED);
    assert_int_equal(event.status & 0xffffff, 8);
    event = expect(&f, COMMAND_EVENT);
    assert_int_equal(code_of(&event), SUCCESS);
    assert_int_equal(vd_get(&f.m, f.output + 3 * 32 + 8, 8), f.interrupts.gpa | 1);
    assert_false(f.keyboard.is_listening(f.keyboard.opaque));
    assert_int_equal(command_code(&f, 0, STOP_ENDPOINT, flags), CONTEXT_STATE);
    ring_doorbell(&f, 3);
    f.keyboard.key(f.keyboard.opaque, 2, true);
    expect_report(&f, gpa, "\0\0\x1e\0\0\0\0\0", 8);
    teardown(&f);
}

static void test_commands(void **state)
{
    struct fixture f;
    setup(&f);
    for (unsigned i = 0; i < 3 * RING_TRBS; i++) /* round the rings, commands and events */
        assert_int_equal(command_code(&f, 0, NOOP, 0), SUCCESS);
    assert_int_equal(command_code(&f, 0, 63, 0), TRB_ERROR);
    assert_int_equal(command_code(&f, 0, DISABLE_SLOT, 1u << 24), NOT_ENABLED);
    assert_int_equal(command_code(&f, 0, DISABLE_SLOT, 200u << 24), NOT_ENABLED);
    for (unsigned i = 0; i < 16; i++)
        assert_int_equal(command_code(&f, 0, ENABLE_SLOT, 0), SUCCESS);
    assert_int_equal(command_code(&f, 0, ENABLE_SLOT, 0), NO_SLOTS);
    assert_int_equal(command_code(&f, 0, DISABLE_SLOT, 5u << 24), SUCCESS);
    struct event event = command(&f, 0, ENABLE_SLOT, 0);
    assert_int_equal(event.control >> 24, 5);
    assert_int_equal(command_code(&f, 0, RESET_DEVICE, 5u << 24), CONTEXT_STATE);
    assert_int_equal(command_code(&f, 0, CONFIGURE, 5u << 24), CONTEXT_STATE);
    assert_int_equal(command_code(&f, 0, EVALUATE, 5u << 24), CONTEXT_STATE);
    assert_int_equal(get(&f, 0x58), 8); /* the ring runs */
    put(&f, 0x58, 2);
    event = expect(&f, COMMAND_EVENT);
    assert_int_equal(code_of(&event), 24);
    assert_int_equal(get(&f, 0x58), 0);
    teardown(&f);
}

static void test_bad_contexts(void **state)
{
    struct fixture f;
    setup(&f);
    reset_port(&f, KEYBOARD_PORT);
    enable(&f);
    uint32_t flags = f.slot << 24;
    fill_address(&f, KEYBOARD_PORT);
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
        uint64_t gpa = f.input + 32 * cases[i].context + 4 * cases[i].index;
        uint32_t good = (uint32_t)vd_get(&f.m, gpa, 4);
        vd_put(&f.m, gpa, cases[i].value, 4);
        assert_int_equal(command_code(&f, f.input, ADDRESS, flags), cases[i].code);
        vd_put(&f.m, gpa, good, 4);
    }
    assert_int_equal(command_code(&f, 0xfffffffffffffff0, ADDRESS, flags), PARAMETER);
    vd_put(&f.m, f.contexts + 8 * f.slot, 0xfffffffff000, 8);
    assert_int_equal(command_code(&f, f.input, ADDRESS, flags), PARAMETER);
    vd_put(&f.m, f.contexts + 8 * f.slot, f.output, 8);
    assert_int_equal(command_code(&f, f.input, ADDRESS, flags | 1 << 9), SUCCESS);
    assert_int_equal(told(&f, 0, 3) >> 27, 1);
    assert_int_equal(command_code(&f, f.input, ADDRESS, flags | 1 << 9), CONTEXT_STATE);
    assert_int_equal(command_code(&f, f.input, ADDRESS, flags), SUCCESS);
    word(&f, 0, 1, 1 | 1 << 3); /* an endpoint of the wrong direction */
    word(&f, 4, 1, 8u << 16 | 3 << 3);
    assert_int_equal(command_code(&f, f.input, CONFIGURE, flags), PARAMETER);
    word(&f, 0, 0, 1);
    assert_int_equal(command_code(&f, f.input, CONFIGURE, flags), PARAMETER);
    assert_int_equal(told(&f, 0, 3) >> 27, 2);
    enable(&f); /* a second slot for the same device */
    fill_address(&f, KEYBOARD_PORT);
    assert_int_equal(command_code(&f, f.input, ADDRESS, f.slot << 24), TRB_ERROR);
    teardown(&f);
}

/* Rings without an end, outside of memory, and of nonsense: nothing hangs, and a reset helps. */
static void test_bad_rings(void **state)
{
    struct fixture f;
    setup(&f);
    address(&f, KEYBOARD_PORT);
    configure(&f);
    f.keyboard.key(f.keyboard.opaque, 30, true);
    trb_write(&f, f.interrupts.gpa, f.interrupts.gpa, 0, LINK << 10 | 1);
    ring_doorbell(&f, 3);
    struct event event = expect(&f, TRANSFER_EVENT);
    assert_int_equal(code_of(&event), TRB_ERROR);
    assert_int_equal(told(&f, 3, 0) & 7, 4);
    assert_int_equal(command_code(&f, 0xfffffffffff0, SET_DEQUEUE, f.slot << 24 | 3 << 16),
                     SUCCESS);
    ring_doorbell(&f, 3);
    event = expect(&f, TRANSFER_EVENT);
    assert_int_equal(code_of(&event), TRB_ERROR);
    f.interrupts = ring_make(&f);
    assert_int_equal(command_code(&f, f.interrupts.gpa | 1, SET_DEQUEUE, f.slot << 24 | 3 << 16),
                     SUCCESS);
    push(&f, &f.interrupts, 0x123456789000, 8, NORMAL, 0); /* no memory there */
    ring_doorbell(&f, 3);
    event = expect(&f, TRANSFER_EVENT);
    assert_int_equal(code_of(&event), TRB_ERROR);
    push(&f, &f.control, 0, 0, STAGE_STATUS, 1 << 5); /* of no request */
    ring_doorbell(&f, 1);
    event = expect(&f, TRANSFER_EVENT);
    assert_int_equal(code_of(&event), TRB_ERROR);
    uint64_t gpa = f.commands.gpa + 16 * f.commands.index;
    trb_write(&f, gpa, gpa, 0, LINK << 10 | f.commands.cycle); /* links to itself */
    put(&f, DOORBELLS, 0);
    put(&f, COMMAND, 2);
    assert_int_equal(get(&f, STATUS) & 0x1001, 1);
    start(&f);
    assert_int_equal(command_code(&f, 0, NOOP, 0), SUCCESS);
    put64(&f, INTERRUPTER + 0x10, 0xfffffffff000); /* a table outside of memory */
    assert_true(get(&f, STATUS) & 1 << 12);
    put(&f, COMMAND, 2);
    assert_false(get(&f, STATUS) & 1 << 12);
    teardown(&f);
}

/* An event ring that the guest does not read: nothing is overwritten, and all goes on after. */
static void test_event_ring_full(void **state)
{
    struct fixture f;
    setup(&f);
    for (unsigned i = 0; i < 3; i++)
        push(&f, &f.commands, 0, 0, NOOP, 0);
    put(&f, DOORBELLS, 0);
    for (unsigned i = 0; i < RING_TRBS - 5; i++)
        push(&f, &f.commands, 0, 0, NOOP, 0);
    put(&f, DOORBELLS, 0);
    unsigned seen = 0;
    struct timespec pause = {0, 1000000};
    for (unsigned i = 0; i < 10000 && seen < RING_TRBS - 2; i++) {
        struct event event;
        if (!next_event(&f, &event))
            nanosleep(&pause, NULL);
        else
            seen += type_of(&event) == COMMAND_EVENT && code_of(&event) == SUCCESS;
    }
    assert_int_equal(seen, RING_TRBS - 2);
    teardown(&f);
}

static void test_ports(void **state)
{
    struct fixture f;
    setup(&f);
    assert_int_equal(get(&f, port_at(3)) & 1, 0);
    put(&f, port_at(3), 1 << 9 | 1 << 4); /* nothing to reset */
    assert_int_equal(get(&f, port_at(3)) & 2, 0);
    address(&f, KEYBOARD_PORT);
    configure(&f);
    static const uint8_t wake[8] = {0, 3, 1};
    assert_int_equal(control(&f, wake, 0, NULL), SUCCESS);
    uint64_t gpa = ask(&f, 8);
    put(&f, port_at(1), 1 << 9 | 1 << 16 | 3 << 5); /* U3 */
    assert_int_equal(get(&f, port_at(1)) >> 5 & 15, 3);
    expect_none(&f);
    f.keyboard.key(f.keyboard.opaque, 30, true);
    struct event event = expect(&f, PORT_EVENT);
    assert_int_equal(event.parameter >> 24, KEYBOARD_PORT);
    assert_int_equal(get(&f, port_at(1)) >> 5 & 15, 15); /* resume */
    put(&f, port_at(1), 1 << 9 | 1 << 16 | 1 << 22);     /* to U0, the change taken */
    assert_int_equal(get(&f, port_at(1)) >> 5 & 15, 0);
    struct timespec pause = {0, 1000000};
    for (unsigned i = 0; i < 10000 && !vd_get(&f.m, gpa + 2, 1); i++)
        nanosleep(&pause, NULL);
    expect_report(&f, gpa, "\0\0\4\0\0\0\0\0", 8);
    put(&f, port_at(1), 1 << 9 | 1 << 1); /* disabled */
    assert_int_equal(get(&f, port_at(1)) & 2, 0);
    teardown(&f);
}

static void test_reset_while_busy(void **state)
{
    struct fixture f;
    setup(&f);
    address(&f, KEYBOARD_PORT);
    configure(&f);
    ask(&f, 8);
    put(&f, COMMAND, 2);
    assert_int_equal(get(&f, COMMAND), 0);
    assert_false(f.keyboard.is_listening(f.keyboard.opaque));
    f.keyboard.key(f.keyboard.opaque, 30, true);
    start(&f);
    address(&f, KEYBOARD_PORT);
    configure(&f);
    ask(&f, 8);
    assert_int_equal(command_code(&f, 0, RESET_DEVICE, f.slot << 24), SUCCESS);
    assert_int_equal(told(&f, 0, 3) >> 27, 1);
    assert_int_equal(told(&f, 3, 0) & 7, 0);
    ring_doorbell(&f, 3);
    expect_none(&f);
    xhci_ops.reset(f.xhci);
    teardown(&f);
}

static void test_interrupts(void **state)
{
    struct fixture f;
    setup(&f);
    expect_none(&f);
    put(&f, INTERRUPTER, 3);
    assert_false(f.m.intx);
    push(&f, &f.commands, 0, 0, NOOP, 0);
    put(&f, DOORBELLS, 0);
    assert_true(f.m.intx);
    assert_true(get(&f, STATUS) & 8);
    put(&f, INTERRUPTER, 3); /* pending is taken away */
    assert_false(f.m.intx);
    expect(&f, COMMAND_EVENT);
    unsigned at = vd_capability(&f.m, SLOT, PCI_CAPABILITY_MSIX, 0);
    uint64_t table = vd_bar(&f.m, SLOT, 2);
    bus_write(f.m.bus, BUS_MMIO, table, VD_MSI_ADDRESS, 8);
    bus_write(f.m.bus, BUS_MMIO, table + 8, MSI_DATA, 8);
    vd_config_write(&f.m, SLOT, at + 2, 0x8000, 2);
    f.m.msi_count = 0;
    push(&f, &f.commands, 0, 0, NOOP, 0);
    put(&f, DOORBELLS, 0);
    push(&f, &f.commands, 0, 0, NOOP, 0);
    put(&f, DOORBELLS, 0);
    assert_int_equal(f.m.msi_count, 1); /* the handler is busy */
    assert_int_equal(f.m.msi_data[0], MSI_DATA);
    assert_int_equal(get(&f, INTERRUPTER) & 1, 0);
    expect(&f, COMMAND_EVENT); /* reads one of two: there is more */
    assert_int_equal(f.m.msi_count, 2);
    teardown(&f);
}

static bool load_into(struct xhci *xhci, const struct save *save)
{
    struct load load;
    uint32_t version;
    load_init(&load, save->bytes, save->size_bytes);
    return load_begin(&load, xhci_ops.name, &version) && xhci_ops.load(xhci, &load, version) &&
           load_end(&load);
}

static void save_from(struct xhci *xhci, struct save *save)
{
    save_begin(save, xhci_ops.name, xhci_ops.version);
    xhci_ops.save(xhci, save);
    save_end(save);
    assert_false(save->failed);
}

/* A transfer that waits for a key is answered by the controller that was loaded. */
static void test_save_and_load(void **state)
{
    struct fixture f;
    struct save save = {0}, again = {0};
    setup(&f);
    address(&f, KEYBOARD_PORT);
    configure(&f);
    uint64_t gpa = ask(&f, 8);
    f.keyboard.key(f.keyboard.opaque, 42, true);
    expect_report(&f, gpa, "\2\0\0\0\0\0\0\0", 8);
    f.keyboard.key(f.keyboard.opaque, 30, true);
    gpa = ask(&f, 8);
    expect_report(&f, gpa, "\2\0\4\0\0\0\0\0", 8);
    gpa = ask(&f, 8);
    clock_pause(f.clock);
    save_from(f.xhci, &save);
    xhci_ops.destroy(f.xhci);
    f.keyboard_device = NULL;
    f.xhci = make(&f, &f.keyboard, &f.tablet, SLOT);
    assert_true(load_into(f.xhci, &save));
    save_from(f.xhci, &again);
    assert_int_equal(again.size_bytes, save.size_bytes);
    assert_memory_equal(again.bytes, save.bytes, save.size_bytes);
    clock_resume(f.clock);
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
    address(&f, KEYBOARD_PORT);
    configure(&f);
    ask(&f, 8);
    save_from(f.xhci, &save);
    for (size_t at = 48; at < save.size_bytes; at += 7) {
        uint8_t byte = save.bytes[at];
        save.bytes[at] ^= 0xff;
        refused += !load_into(f.xhci, &save);
        f.keyboard.key(f.keyboard.opaque, 30, at % 2);
        put(&f, DOORBELLS, 0);
        put(&f, DOORBELLS + 4, 3);
        save.bytes[at] = byte;
    }
    assert_true(refused > 50);
    save.bytes[save.size_bytes - 1] ^= 0;
    assert_true(load_into(f.xhci, &save));
    save_free(&save);
    teardown(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_capabilities),
        cmocka_unit_test(test_enumerate),
        cmocka_unit_test(test_keyboard),
        cmocka_unit_test(test_keys_are_not_lost),
        cmocka_unit_test(test_tablet),
        cmocka_unit_test(test_event_data),
        cmocka_unit_test(test_stall_and_babble),
        cmocka_unit_test(test_stop_and_restart),
        cmocka_unit_test(test_commands),
        cmocka_unit_test(test_bad_contexts),
        cmocka_unit_test(test_bad_rings),
        cmocka_unit_test(test_event_ring_full),
        cmocka_unit_test(test_ports),
        cmocka_unit_test(test_reset_while_busy),
        cmocka_unit_test(test_interrupts),
        cmocka_unit_test(test_save_and_load),
        cmocka_unit_test(test_load_checks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
