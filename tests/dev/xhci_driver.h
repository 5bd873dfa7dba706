/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A small xHCI driver for tests: rings, events, commands, control transfers, bringing a device to
 * its address. Section numbers are those of xHCI 1.1. Single-threaded. All asserts are cmocka's.
 */
#ifndef SKEP_TESTS_DEV_XHCI_DRIVER_H
#define SKEP_TESTS_DEV_XHCI_DRIVER_H

#include "dev/virtio_driver.h"

#include "bus/clock.h"
#include "dev/usb/xhci.h"

enum {
    RING_TRBS = 64,
    EVENTS = 64,
    COMMAND = 0x40,
    STATUS = 0x44,
    INTERRUPTER = 0x1020,
    DOORBELLS = 0x2000,
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

struct xd_ring {
    uint64_t gpa;
    unsigned index;
    bool cycle;
};

struct xd_event {
    uint64_t parameter;
    uint32_t status, control;
};

struct xd {
    struct vd_machine m;
    struct clock *clock;
    uint64_t bar;
    struct xd_ring commands, control; /* the latter of one device */
    uint64_t contexts, input, output, events, table;
    unsigned event_index;
    bool event_cycle;
    unsigned slot; /* the device's */
};

/* ---- registers ---- */

static inline uint32_t xd_get(struct xd *f, unsigned offset)
{
    return (uint32_t)bus_read(f->m.bus, BUS_MMIO, f->bar + offset, 4);
}

static inline void xd_put(struct xd *f, unsigned offset, uint32_t value)
{
    bus_write(f->m.bus, BUS_MMIO, f->bar + offset, value, 4);
}

static inline void xd_put64(struct xd *f, unsigned offset, uint64_t value)
{
    xd_put(f, offset, (uint32_t)value);
    xd_put(f, offset + 4, (uint32_t)(value >> 32));
}

static inline unsigned xd_port_at(unsigned port)
{
    return 0x430 + 0x10 * port;
}

/* ---- rings ---- */

static inline struct xd_ring xd_ring_make(struct xd *f)
{
    struct xd_ring ring = {vd_alloc(&f->m, RING_TRBS * 16, 64), 0, true};
    return ring;
}

static inline void xd_trb_write(struct xd *f, uint64_t gpa, uint64_t parameter, uint32_t status,
                                uint32_t control)
{
    vd_put(&f->m, gpa, parameter, 8);
    vd_put(&f->m, gpa + 8, status, 4);
    vd_put(&f->m, gpa + 12, control, 4);
}

/* Puts a TRB into a ring, with a link at its end that turns the cycle bit over. */
static inline uint64_t xd_push(struct xd *f, struct xd_ring *ring, uint64_t parameter,
                               uint32_t status, unsigned type, uint32_t flags)
{
    uint64_t gpa = ring->gpa + 16 * ring->index;
    xd_trb_write(f, gpa, parameter, status, type << 10 | flags | ring->cycle);
    if (++ring->index == RING_TRBS - 1) {
        xd_trb_write(f, ring->gpa + 16 * ring->index, ring->gpa, 0,
                     LINK << 10 | 2 | (flags & 0x10) | ring->cycle);
        ring->index = 0;
        ring->cycle = !ring->cycle;
    }
    return gpa;
}

static inline bool xd_next_event(struct xd *f, struct xd_event *event)
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
    xd_put64(f, INTERRUPTER + 0x18, (f->events + 16 * f->event_index) | 8);
    return true;
}

static inline unsigned xd_type_of(const struct xd_event *event)
{
    return event->control >> 10 & 63;
}

static inline unsigned xd_code_of(const struct xd_event *event)
{
    return event->status >> 24;
}

/* The next event, which must be of this type; others than port changes are not passed over. */
static inline struct xd_event xd_expect(struct xd *f, unsigned type)
{
    struct xd_event event;
    do
        assert_true(xd_next_event(f, &event));
    while (type != PORT_EVENT && xd_type_of(&event) == PORT_EVENT);
    assert_int_equal(xd_type_of(&event), type);
    return event;
}

static inline void xd_expect_none(struct xd *f)
{
    struct xd_event event;
    while (xd_next_event(f, &event))
        assert_int_equal(xd_type_of(&event), PORT_EVENT);
}

static inline struct xd_event xd_command(struct xd *f, uint64_t parameter, unsigned type,
                                         uint32_t flags)
{
    uint64_t gpa = xd_push(f, &f->commands, parameter, 0, type, flags);
    xd_put(f, DOORBELLS, 0);
    struct xd_event event = xd_expect(f, COMMAND_EVENT);
    assert_int_equal(event.parameter, gpa);
    return event;
}

static inline unsigned xd_command_code(struct xd *f, uint64_t parameter, unsigned type,
                                       uint32_t flags)
{
    struct xd_event event = xd_command(f, parameter, type, flags);
    return xd_code_of(&event);
}

static inline void xd_ring_doorbell(struct xd *f, unsigned endpoint)
{
    xd_put(f, DOORBELLS + 4 * f->slot, endpoint);
}

static inline void xd_start(struct xd *f)
{
    f->commands = xd_ring_make(f);
    f->contexts = vd_alloc(&f->m, 8 * 17, 64);
    f->events = vd_alloc(&f->m, EVENTS * 16, 64);
    f->table = vd_alloc(&f->m, 16, 64);
    f->event_index = 0;
    f->event_cycle = true;
    vd_put(&f->m, f->table, f->events, 8);
    vd_put(&f->m, f->table + 8, EVENTS, 4);
    xd_put(f, 0x78, 16);                        /* CONFIG */
    xd_put64(f, 0x70, f->contexts);             /* DCBAAP */
    xd_put64(f, 0x58, f->commands.gpa | 1);     /* CRCR */
    xd_put(f, INTERRUPTER + 8, 1);              /* ERSTSZ */
    xd_put64(f, INTERRUPTER + 0x18, f->events); /* ERDP */
    xd_put64(f, INTERRUPTER + 0x10, f->table);  /* ERSTBA */
    xd_put(f, INTERRUPTER + 4, 0);              /* no moderation */
    xd_put(f, INTERRUPTER, 2);
    xd_put(f, COMMAND, 5);
    assert_int_equal(xd_get(f, STATUS) & 1, 0);
}

static inline void xd_word(struct xd *f, unsigned context, unsigned index, uint32_t value)
{
    vd_put(&f->m, f->input + 32 * context + 4 * index, value, 4);
}

static inline uint32_t xd_told(struct xd *f, unsigned context, unsigned index)
{
    return (uint32_t)vd_get(&f->m, f->output + 32 * context + 4 * index, 4);
}

static inline void xd_fill_address(struct xd *f, unsigned port)
{
    f->input = vd_alloc(&f->m, 33 * 32, 64);
    f->control = xd_ring_make(f);
    xd_word(f, 0, 1, 3);
    xd_word(f, 1, 0, 1u << 27 | 1 << 20);
    xd_word(f, 1, 1, port << 16);
    xd_word(f, 2, 1, 8u << 16 | 4 << 3 | 3 << 1);
    vd_put(&f->m, f->input + 2 * 32 + 8, f->control.gpa | 1, 8);
}

static inline void xd_enable(struct xd *f)
{
    struct xd_event event = xd_command(f, 0, ENABLE_SLOT, 0);
    assert_int_equal(xd_code_of(&event), SUCCESS);
    f->slot = event.control >> 24;
    f->output = vd_alloc(&f->m, 1024, 64);
    vd_put(&f->m, f->contexts + 8 * f->slot, f->output, 8);
}

static inline void xd_reset_port(struct xd *f, unsigned port)
{
    xd_put(f, xd_port_at(port), 1 << 9 | 1 << 4);
    uint32_t status = xd_get(f, xd_port_at(port));
    assert_int_equal(status & 0x1e3, 3); /* connected, enabled, U0 */
    assert_true(status & 1 << 21);
    xd_put(f, xd_port_at(port), 1 << 9 | 0x7f << 17);
}

static inline void xd_address(struct xd *f, unsigned port)
{
    xd_reset_port(f, port);
    xd_enable(f);
    xd_fill_address(f, port);
    assert_int_equal(xd_command_code(f, f->input, ADDRESS, f->slot << 24), SUCCESS);
    assert_int_equal(xd_told(f, 0, 3) >> 27, 2);
    assert_int_equal(xd_told(f, 1, 0) & 7, 1);
}

/* A control transfer; gives the completion code of what ended it, and how much came. */
static inline unsigned xd_control(struct xd *f, const uint8_t request[8], uint64_t gpa,
                                  unsigned *got)
{
    uint64_t setup_packet;
    memcpy(&setup_packet, request, 8);
    unsigned length = request[6] | request[7] << 8;
    bool is_in = request[0] & 0x80;
    xd_push(f, &f->control, setup_packet, 8, SETUP, 1 << 6 | (length ? (is_in ? 3 : 2) << 16 : 0));
    if (length)
        xd_push(f, &f->control, gpa, length, DATA, 1 << 2 | (is_in ? 1 << 16 : 0));
    xd_push(f, &f->control, 0, 0, STAGE_STATUS, 1 << 5 | (is_in && length ? 0 : 1 << 16));
    xd_ring_doorbell(f, 1);
    struct xd_event event = xd_expect(f, TRANSFER_EVENT);
    assert_int_equal(event.control >> 16 & 31, 1);
    assert_int_equal(event.control >> 24, f->slot);
    if (got)
        *got = length;
    if (xd_code_of(&event) == SHORT) {
        if (got)
            *got = length - (event.status & 0xffffff);
        event = xd_expect(f, TRANSFER_EVENT);
    }
    return xd_code_of(&event);
}

/* ---- saving ---- */

static inline bool xd_load(struct xhci *xhci, const struct save *save)
{
    struct load load;
    uint32_t version;
    load_init(&load, save->bytes, save->size_bytes);
    return load_begin(&load, xhci_ops.name, &version) && xhci_ops.load(xhci, &load, version) &&
           load_end(&load);
}

static inline void xd_save(struct xhci *xhci, struct save *save)
{
    save_begin(save, xhci_ops.name, xhci_ops.version);
    xhci_ops.save(xhci, save);
    save_end(save);
    assert_false(save->failed);
}

#endif
