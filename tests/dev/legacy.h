/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What the tests of the legacy chips share: a bus, a clock, lines that remember, and the round
 * trip through a saved machine.
 */
#ifndef SKEP_TESTS_DEV_LEGACY_H
#define SKEP_TESTS_DEV_LEGACY_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bus/bus.h"
#include "bus/char.h"
#include "bus/clock.h"
#include "bus/device.h"
#include "bus/irq.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* A wire's far end. `rises` counts edges. */
struct wire {
    atomic_bool level;
    atomic_uint rises;
    atomic_uint number;
};

static inline void wire_set(void *opaque, unsigned number, bool level)
{
    struct wire *wire = opaque;
    if (level && !atomic_load(&wire->level))
        atomic_fetch_add(&wire->rises, 1);
    atomic_store(&wire->level, level);
    atomic_store(&wire->number, number);
}

static inline struct irq_line wire_line(struct wire *wire, unsigned number)
{
    return (struct irq_line){wire_set, wire, number};
}

static inline uint8_t in8(struct bus *bus, uint16_t port)
{
    return (uint8_t)bus_read(bus, BUS_PORT, port, 1);
}

static inline void out8(struct bus *bus, uint16_t port, uint8_t value)
{
    bus_write(bus, BUS_PORT, port, value, 1);
}

static inline void wait_ms(unsigned ms)
{
    struct timespec delay = {ms / 1000, (long)(ms % 1000) * 1000000};
    nanosleep(&delay, NULL);
}

/* Waits for a condition that another thread brings about; fails after ten seconds. */
#define WAIT_FOR(condition)                                                                        \
    do {                                                                                           \
        for (unsigned waited_ = 0; !(condition) && waited_ < 10000; waited_++)                     \
            wait_ms(1);                                                                            \
        assert_true(condition);                                                                    \
    } while (0)

/* Saves `from`, resets `to` (the same device or another one of its kind) and loads it there. */
static inline void save_and_load(const struct device_ops *ops, void *from, void *to)
{
    struct save save = {0};
    uint32_t version;
    save_begin(&save, ops->name, ops->version);
    ops->save(from, &save);
    save_end(&save);
    assert_false(save.failed);
    ops->reset(to);
    struct load load;
    load_init(&load, save.bytes, save.size_bytes);
    assert_true(load_begin(&load, ops->name, &version));
    assert_true(ops->load(to, &load, version));
    assert_true(load_end(&load));
    save_free(&save);
}

/* Loads the saved device with one byte changed at a time, and cut off at every length: the device
 * must refuse or take it, and stay usable. Returns how many were refused. */
static inline unsigned load_mutations(const struct device_ops *ops, void *device, size_t max_bytes)
{
    struct save save = {0};
    save_begin(&save, ops->name, ops->version);
    ops->save(device, &save);
    save_end(&save);
    unsigned refused = 0;
    size_t header = save.size_bytes;
    /* The section's body starts behind its header: find it as the size of an empty one. */
    struct save empty = {0};
    save_begin(&empty, ops->name, ops->version);
    save_end(&empty);
    header = empty.size_bytes;
    save_free(&empty);
    for (size_t i = header; i < save.size_bytes && i < header + max_bytes; i++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            struct load load;
            uint32_t version;
            save.bytes[i] ^= (uint8_t)(1u << bit);
            load_init(&load, save.bytes, save.size_bytes);
            assert_true(load_begin(&load, ops->name, &version));
            if (!ops->load(device, &load, version))
                refused++;
            save.bytes[i] ^= (uint8_t)(1u << bit);
        }
    }
    struct load load = {
        .bytes = save.bytes, .size_bytes = header, .offset = header, .section_end = header};
    if (save.size_bytes > header)
        assert_false(ops->load(device, &load, ops->version));
    load_init(&load, save.bytes, save.size_bytes);
    uint32_t version;
    assert_true(load_begin(&load, ops->name, &version));
    assert_false(ops->load(device, &load, ops->version + 1));
    save_free(&save);
    return refused;
}

/* Reads and writes with every size in and around a range of ports; nothing may break. */
static inline void hostile_ports(struct bus *bus, uint16_t base, unsigned count)
{
    uint32_t seed = 12345;
    for (unsigned round = 0; round < 4000; round++) {
        seed = seed * 1664525 + 1013904223;
        unsigned port = base + (seed >> 8) % count;
        unsigned size = 1u << ((seed >> 16) % 3);
        if (seed >> 31)
            bus_write(bus, BUS_PORT, port, seed * 2654435761u, size);
        else
            bus_read(bus, BUS_PORT, port, size);
    }
}

/* A character back end that takes `room` bytes. Calls back only when the test says so. */
struct sink {
    struct char_backend backend;
    struct char_handler handler;
    size_t room;
    uint8_t bytes[70000];
    size_t count;
    unsigned accepts;
    bool connected;
};

static inline size_t sink_write(void *opaque, const uint8_t *bytes, size_t size_bytes)
{
    struct sink *sink = opaque;
    size_t taken = size_bytes < sink->room ? size_bytes : sink->room;
    assert_true(sink->count + taken <= sizeof(sink->bytes));
    memcpy(sink->bytes + sink->count, bytes, taken);
    sink->count += taken;
    sink->room -= taken;
    return taken;
}

static inline void sink_accept(void *opaque)
{
    ((struct sink *)opaque)->accepts++;
}

static inline void sink_set_handler(void *opaque, const struct char_handler *handler)
{
    ((struct sink *)opaque)->handler = *handler;
}

static inline bool sink_is_connected(void *opaque)
{
    return ((struct sink *)opaque)->connected;
}

static inline void sink_init(struct sink *sink)
{
    memset(sink, 0, sizeof(*sink));
    sink->room = SIZE_MAX;
    sink->connected = true;
    sink->backend = (struct char_backend){.write = sink_write,
                                          .accept = sink_accept,
                                          .set_handler = sink_set_handler,
                                          .is_connected = sink_is_connected,
                                          .opaque = sink};
}

#endif
