/* SPDX-License-Identifier: BSD-2-Clause
 *
 * 8254 interval timer (Intel 8254 data sheet, order 231164) and the PC's port 0x61 (ICH9 data
 * sheet, 13.7.1). All six modes, binary and BCD, latches and read-back. Nothing counts: what a
 * counter reads and its OUT follow from guest time whenever somebody looks.
 *
 * Left out: a sound from the speaker; NMI bits of port 0x61; counter 1's refresh follows its usual
 * programming. Of counter 0's OUT the line shows the level, but low pulses of one tick (modes 2 and
 * 4) and the low half of mode 3 only as an edge.
 *
 * When the host runs the timer late, the periods of mode 2 and 3 that have gone by are made up for
 * at twice the rate, at most MAX_OWED of them: no burst, and a guest that counts ticks keeps time.
 *
 * vCPU threads use the ports, the clock's thread the timer; one lock.
 */
#include "dev/i8254.h"

#include "dev/ports.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { PORTS = 4, COUNTERS = IRQCHIP_PIT_COUNTERS, CONTROL = 3, MAX_OWED = 200 };
enum { ACCESS_LATCH = 0, ACCESS_LOW = 1, ACCESS_HIGH = 2, ACCESS_WORD = 3 };
enum { STATUS_OUT = 0x80, STATUS_NULL = 0x40 };
enum { PORT_B_GATE = 0x01, PORT_B_SPEAKER = 0x02, PORT_B_STORED = 0x0f };
enum { PORT_B_REFRESH = 0x10, PORT_B_OUT = 0x20 };

static const uint64_t ns_per_second = 1000000000;
static const uint64_t refresh_ns = 15085;
/* The host is not asked for interrupts faster than this. */
static const uint64_t min_interval_ns = 20000;

struct i8254 {
    pthread_mutex_t lock;
    struct i8254_config config;
    struct bus *bus;
    struct clock *clock;
    struct clock_timer *timer;
    struct bus_range ranges[2];
    struct i8254_state state;
};

/* Whole and part seconds apart, so that nothing overflows in five hundred years. */
static uint64_t scale(uint64_t value, uint64_t to, uint64_t from)
{
    return value / from * to + value % from * to / from;
}

/* The first nanosecond that lies in `tick`. */
static uint64_t ns_of_tick(uint64_t tick)
{
    uint64_t ns = scale(tick, ns_per_second, I8254_HZ);
    return i8254_tick_of_ns(ns) < tick ? ns + 1 : ns;
}

static uint64_t pit_now_tick(const struct i8254 *pit)
{
    return i8254_tick_of_ns(clock_now_ns(pit->clock));
}

static uint32_t counter_modulus(const struct i8254_counter *counter)
{
    return counter->bcd ? 10000 : 65536;
}

static uint32_t counter_from_register(const struct i8254_counter *counter, uint16_t value)
{
    uint32_t count = value;
    if (counter->bcd)
        count = ((value >> 12) * 1000u + (value >> 8 & 15) * 100u + (value >> 4 & 15) * 10u +
                 (value & 15)) %
                10000;
    return count ? count : counter_modulus(counter);
}

static uint16_t counter_to_register(const struct i8254_counter *counter, uint32_t count)
{
    if (!counter->bcd)
        return (uint16_t)count;
    count %= 10000;
    return (uint16_t)(count / 1000 << 12 | count / 100 % 10 << 8 | count / 10 % 10 << 4 |
                      count % 10);
}

/* Ticks of mode 3's high half. */
static uint32_t counter_high_ticks(uint32_t count)
{
    return (count + 1) / 2;
}

/* How far it has counted since it was loaded. */
static uint64_t counter_elapsed(const struct i8254_counter *counter, uint64_t now)
{
    if (!counter->loaded || (i8254_is_triggered(counter) && !counter->triggered))
        return 0;
    if (!counter->gate && !i8254_is_triggered(counter))
        return counter->held_ticks;
    return now > counter->start_tick ? now - counter->start_tick : 0;
}

/* Brings in a count that was written while another one ran, once that has run out. */
static void counter_advance(struct i8254_counter *counter, uint64_t now)
{
    if (!counter->next_loaded || now < counter->next_tick)
        return;
    counter->next_loaded = false;
    counter->count = counter->next_count;
    counter->start_tick = counter->next_tick;
    if (counter->next_low)
        counter->start_tick -= counter_high_ticks(counter->count);
}

static bool counter_out(const struct i8254_counter *counter, uint64_t now)
{
    uint64_t elapsed = counter_elapsed(counter, now);
    uint32_t count = counter->count;
    switch (counter->mode) {
    case 0: return counter->loaded && elapsed >= count;
    case 1: return !counter->triggered || elapsed >= count;
    case 2: return !counter->loaded || !counter->gate || elapsed % count != count - 1;
    case 3:
        return !counter->loaded || !counter->gate || elapsed % count < counter_high_ticks(count);
    default: /* 4 and 5: low for the one tick after the last; idle is high */
        return !counter->loaded || elapsed != count;
    }
}

static uint16_t counter_value(const struct i8254_counter *counter, uint64_t now)
{
    uint64_t elapsed = counter_elapsed(counter, now);
    uint32_t count = counter->count, modulus = counter_modulus(counter);
    uint32_t value;
    if (counter->mode == 2) {
        value = count - (uint32_t)(elapsed % count);
    } else if (counter->mode == 3) { /* by twos, an odd count from the even below it */
        uint32_t in_period = (uint32_t)(elapsed % count), high = counter_high_ticks(count);
        value = (count & ~1u) - 2 * (in_period < high ? in_period : in_period - high);
    } else {
        value = (uint32_t)((count + modulus - elapsed % modulus) % modulus);
    }
    return counter_to_register(counter, value);
}

/* The next tick at which OUT rises after `now`; 0 when it does not. */
static uint64_t counter_next_rise(const struct i8254_counter *counter, uint64_t now)
{
    if (!counter->loaded || !counter->gate || i8254_is_triggered(counter))
        return 0; /* counter 0's gate is tied high, so modes 1 and 5 never start */
    uint64_t elapsed = counter_elapsed(counter, now);
    if (i8254_is_periodic(counter)) {
        uint64_t rise = counter->start_tick + (elapsed / counter->count + 1) * counter->count;
        if (counter->next_loaded && counter->next_low)
            rise = counter->next_tick + counter->next_count / 2;
        return rise;
    }
    uint64_t at = counter->count + (counter->mode == 4 ? 1 : 0);
    return elapsed < at ? counter->start_tick + at : 0;
}

static void pit_set_irq(struct i8254 *pit, bool level)
{
    level = level && !pit->state.disconnected;
    if (level != pit->state.irq) {
        pit->state.irq = level;
        irq_set(&pit->config.irq, level);
    }
}

static void pit_arm(struct i8254 *pit, uint64_t now_ns)
{
    if (!pit->state.rise_tick) {
        clock_timer_cancel(pit->timer);
        return;
    }
    uint64_t deadline_ns = ns_of_tick(pit->state.rise_tick);
    if (pit->state.owed) {
        uint64_t half_ns =
            scale(pit->state.counters[0].count, ns_per_second, 2 * (uint64_t)I8254_HZ);
        if (now_ns + half_ns < deadline_ns)
            deadline_ns = now_ns + half_ns;
    }
    if (deadline_ns < now_ns + min_interval_ns)
        deadline_ns = now_ns + min_interval_ns;
    clock_timer_arm(pit->timer, deadline_ns);
}

/* After the guest changed counter 0. */
static void pit_restart(struct i8254 *pit, uint64_t now)
{
    struct i8254_counter *counter = &pit->state.counters[0];
    pit->state.owed = 0;
    pit->state.rise_tick = counter_next_rise(counter, now);
    pit_set_irq(pit, counter->mode != 0 || counter_out(counter, now));
    pit_arm(pit, clock_now_ns(pit->clock));
}

/* How many rises went by before the newest that is due. Those too fast to be shown do not count. */
static uint64_t pit_missed(const struct i8254 *pit, uint64_t now)
{
    const struct i8254_counter *counter = &pit->state.counters[0];
    if (!i8254_is_periodic(counter) ||
        scale(counter->count, ns_per_second, I8254_HZ) < 4 * min_interval_ns)
        return 0;
    return (now - pit->state.rise_tick) / counter->count;
}

static void pit_on_timer(void *opaque)
{
    struct i8254 *pit = opaque;
    pthread_mutex_lock(&pit->lock);
    uint64_t now_ns = clock_now_ns(pit->clock), now = i8254_tick_of_ns(now_ns);
    bool due = false;
    if (pit->state.rise_tick && now >= pit->state.rise_tick) {
        uint64_t owed = pit->state.owed + pit_missed(pit, now);
        pit->state.owed = owed < MAX_OWED ? (uint32_t)owed : MAX_OWED;
        counter_advance(&pit->state.counters[0], now);
        pit->state.rise_tick = counter_next_rise(&pit->state.counters[0], now);
        due = true;
    } else if (pit->state.rise_tick && pit->state.owed) {
        pit->state.owed--;
        due = true;
    }
    if (due) {
        pit_set_irq(pit, false);
        pit_set_irq(pit, true);
    }
    pit_arm(pit, now_ns);
    pthread_mutex_unlock(&pit->lock);
}

static void counter_set_gate(struct i8254_counter *counter, bool gate, uint64_t now)
{
    if (gate == counter->gate)
        return;
    counter_advance(counter, now);
    uint64_t held = counter_elapsed(counter, now);
    counter->gate = gate;
    if (!gate) {
        counter->held_ticks = held;
    } else if (i8254_is_periodic(counter) || i8254_is_triggered(counter)) {
        counter->start_tick = now + 1;
        counter->held_ticks = 0;
        counter->triggered = counter->loaded;
        if (counter->next_loaded)
            counter->count = counter->next_count;
        counter->next_loaded = false;
    } else {
        counter->start_tick = now - held;
    }
}

/* A whole count has been written. The counting element takes it with the next tick, but a period
 * that is under way ends first (mode 3: half a period). */
static void counter_load(struct i8254_counter *counter, uint16_t value, uint64_t now)
{
    uint32_t count = counter_from_register(counter, value);
    counter_advance(counter, now);
    if (counter->loaded && i8254_is_periodic(counter) && counter->gate) {
        uint64_t elapsed = counter_elapsed(counter, now);
        uint64_t in_period = elapsed % counter->count, high = counter_high_ticks(counter->count);
        bool ends_high = counter->mode == 3 && in_period < high;
        counter->next_count = count;
        counter->next_loaded = true;
        counter->next_low = ends_high;
        counter->next_tick = now + (ends_high ? high : counter->count) - in_period;
        return;
    }
    if (counter->loaded && i8254_is_triggered(counter) && counter->triggered) {
        counter->next_count = count; /* for the next trigger */
        counter->next_loaded = true;
        counter->next_tick = UINT64_MAX;
        return;
    }
    counter->count = count;
    counter->loaded = true;
    counter->start_tick = now + 1;
    counter->held_ticks = 0;
}

static void counter_write(struct i8254_counter *counter, uint8_t value, uint64_t now)
{
    if (counter->access == ACCESS_LOW) {
        counter_load(counter, value, now);
    } else if (counter->access == ACCESS_HIGH) {
        counter_load(counter, (uint16_t)(value << 8), now);
    } else if (!counter->write_high) {
        counter->low_byte = value;
        counter->write_high = true;
        if (counter->mode == 0) { /* the first byte stops the count and lowers OUT */
            counter->loaded = false;
            counter->held_ticks = 0;
        }
    } else {
        counter->write_high = false;
        counter_load(counter, (uint16_t)(value << 8 | counter->low_byte), now);
    }
}

static uint8_t counter_read(struct i8254_counter *counter, uint64_t now)
{
    if (counter->status_latched) {
        counter->status_latched = false;
        return counter->status_latch;
    }
    counter_advance(counter, now);
    uint16_t value = counter->latched ? counter->latch : counter_value(counter, now);
    bool high = counter->access == ACCESS_HIGH || counter->read_high;
    if (counter->access == ACCESS_WORD)
        counter->read_high = !counter->read_high;
    if (counter->access != ACCESS_WORD || high)
        counter->latched = false;
    return (uint8_t)(high ? value >> 8 : value);
}

static void counter_latch(struct i8254_counter *counter, uint64_t now)
{
    if (counter->latched)
        return;
    counter_advance(counter, now);
    counter->latch = counter_value(counter, now);
    counter->latched = true;
}

static void counter_latch_status(struct i8254_counter *counter, uint64_t now)
{
    if (counter->status_latched)
        return;
    counter_advance(counter, now);
    bool null = !counter->loaded || counter->next_loaded ||
                (counter->gate && !i8254_is_triggered(counter) && now < counter->start_tick);
    counter->status_latch =
        (uint8_t)((counter_out(counter, now) ? STATUS_OUT : 0) | (null ? STATUS_NULL : 0) |
                  counter->access << 4 | counter->mode << 1 | counter->bcd);
    counter->status_latched = true;
}

static void counter_control(struct i8254_counter *counter, uint8_t value)
{
    uint8_t mode = value >> 1 & 7;
    bool gate = counter->gate;
    memset(counter, 0, sizeof(*counter));
    counter->gate = gate;
    counter->access = value >> 4 & 3;
    counter->mode = mode > 5 ? mode - 4 : mode; /* the top bit is open for modes 2 and 3 */
    counter->bcd = value & 1;
    counter->count = counter_modulus(counter);
}

static void pit_read_back(struct i8254 *pit, uint8_t value, uint64_t now)
{
    for (unsigned i = 0; i < COUNTERS; i++) {
        if (!(value & (2u << i)))
            continue;
        if (!(value & 0x20))
            counter_latch(&pit->state.counters[i], now);
        if (!(value & 0x10))
            counter_latch_status(&pit->state.counters[i], now);
    }
}

static void pit_write_control(struct i8254 *pit, uint8_t value, uint64_t now)
{
    unsigned index = value >> 6;
    if (index == COUNTERS) {
        pit_read_back(pit, value, now);
    } else if ((value >> 4 & 3) == ACCESS_LATCH) {
        counter_latch(&pit->state.counters[index], now);
    } else {
        counter_control(&pit->state.counters[index], value);
        if (index == 0)
            pit_restart(pit, now);
    }
}

static void pit_write_byte(void *opaque, unsigned offset, uint8_t value)
{
    struct i8254 *pit = opaque;
    pthread_mutex_lock(&pit->lock);
    uint64_t now = pit_now_tick(pit);
    if (offset == CONTROL) {
        pit_write_control(pit, value, now);
    } else {
        counter_write(&pit->state.counters[offset], value, now);
        if (offset == 0)
            pit_restart(pit, now);
    }
    pthread_mutex_unlock(&pit->lock);
}

static uint8_t pit_read_byte(void *opaque, unsigned offset)
{
    struct i8254 *pit = opaque;
    if (offset == CONTROL)
        return 0xff; /* write-only */
    pthread_mutex_lock(&pit->lock);
    uint8_t value = counter_read(&pit->state.counters[offset], pit_now_tick(pit));
    pthread_mutex_unlock(&pit->lock);
    return value;
}

static uint8_t port_b_read_byte(void *opaque, unsigned offset)
{
    struct i8254 *pit = opaque;
    pthread_mutex_lock(&pit->lock);
    uint64_t now_ns = clock_now_ns(pit->clock), now = i8254_tick_of_ns(now_ns);
    counter_advance(&pit->state.counters[2], now);
    uint8_t value = pit->state.port_b;
    if (counter_out(&pit->state.counters[2], now))
        value |= PORT_B_OUT;
    if (now_ns / refresh_ns & 1)
        value |= PORT_B_REFRESH;
    pthread_mutex_unlock(&pit->lock);
    return value;
}

static void port_b_write_byte(void *opaque, unsigned offset, uint8_t value)
{
    struct i8254 *pit = opaque;
    pthread_mutex_lock(&pit->lock);
    pit->state.port_b = value & PORT_B_STORED;
    counter_set_gate(&pit->state.counters[2], value & PORT_B_GATE, pit_now_tick(pit));
    pthread_mutex_unlock(&pit->lock);
}

static uint64_t pit_read(void *pit, uint64_t offset, unsigned size_bytes)
{
    return ports_read(pit_read_byte, pit, PORTS, offset, size_bytes);
}

static void pit_write(void *pit, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    ports_write(pit_write_byte, pit, PORTS, offset, value, size_bytes);
}

static uint64_t port_b_read(void *pit, uint64_t offset, unsigned size_bytes)
{
    return ports_read(port_b_read_byte, pit, 1, offset, size_bytes);
}

static void port_b_write(void *pit, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    ports_write(port_b_write_byte, pit, 1, offset, value, size_bytes);
}

void i8254_disconnect_irq(void *opaque, unsigned number, bool disconnected)
{
    struct i8254 *pit = opaque;
    pthread_mutex_lock(&pit->lock);
    pit->state.disconnected = disconnected;
    if (disconnected)
        pit_set_irq(pit, false);
    pthread_mutex_unlock(&pit->lock);
}

/* The chip has no reset and comes up undefined; firmware finds counter 0 stopped in mode 3. */
static void pit_clear(struct i8254 *pit)
{
    for (unsigned i = 0; i < COUNTERS; i++) {
        counter_control(&pit->state.counters[i], ACCESS_WORD << 4 | 3 << 1);
        pit->state.counters[i].gate = i != 2;
    }
    pit->state.port_b = 0;
    pit->state.disconnected = false;
    pit->state.rise_tick = 0;
    pit->state.owed = 0;
    clock_timer_cancel(pit->timer);
    pit->state.irq = false;
    irq_set(&pit->config.irq, false);
}

static void pit_free(struct i8254 *pit)
{
    if (pit->timer)
        clock_timer_close(pit->timer);
    pthread_mutex_destroy(&pit->lock);
    free(pit);
}

struct i8254 *i8254_create(const struct i8254_config *config, struct bus *bus, struct clock *clock,
                           struct error *err)
{
    struct i8254 *pit = calloc(1, sizeof(*pit));
    if (!pit) {
        error_set(err, "cannot create device", "i8254", "out of memory");
        return NULL;
    }
    pit->config = *config;
    pit->bus = bus;
    pit->clock = clock;
    pthread_mutex_init(&pit->lock, NULL);
    pit->timer = clock_timer_open(clock, pit_on_timer, pit);
    if (!pit->timer) {
        error_set(err, "cannot create device", "i8254", "out of memory");
        pit_free(pit);
        return NULL;
    }
    pit_clear(pit);
    pit->ranges[0] =
        (struct bus_range){"i8254", BUS_PORT, config->base, PORTS, pit_read, pit_write, pit};
    pit->ranges[1] = (struct bus_range){
        "i8254 port B", BUS_PORT, config->port_b_base, 1, port_b_read, port_b_write, pit};
    if (!ports_map_all(bus, pit->ranges, 2, err)) {
        pit_free(pit);
        return NULL;
    }
    return pit;
}

static void i8254_reset(void *device)
{
    struct i8254 *pit = device;
    pthread_mutex_lock(&pit->lock);
    pit_clear(pit);
    pthread_mutex_unlock(&pit->lock);
}

static void counter_save(const struct i8254_counter *counter, struct save *save)
{
    save_u8(save, counter->mode);
    save_u8(save, counter->access);
    save_bool(save, counter->bcd);
    save_bool(save, counter->gate);
    save_bool(save, counter->loaded);
    save_bool(save, counter->triggered);
    save_u32(save, counter->count);
    save_u64(save, counter->start_tick);
    save_u64(save, counter->held_ticks);
    save_bool(save, counter->next_loaded);
    save_u32(save, counter->next_count);
    save_u64(save, counter->next_tick);
    save_bool(save, counter->next_low);
    save_u16(save, counter->latch);
    save_u8(save, counter->status_latch);
    save_bool(save, counter->latched);
    save_bool(save, counter->status_latched);
    save_bool(save, counter->write_high);
    save_bool(save, counter->read_high);
    save_u8(save, counter->low_byte);
}

static void counter_restore(struct i8254_counter *counter, struct load *load)
{
    counter->mode = load_u8(load);
    counter->access = load_u8(load);
    counter->bcd = load_bool(load);
    counter->gate = load_bool(load);
    counter->loaded = load_bool(load);
    counter->triggered = load_bool(load);
    counter->count = load_u32(load);
    counter->start_tick = load_u64(load);
    counter->held_ticks = load_u64(load);
    counter->next_loaded = load_bool(load);
    counter->next_count = load_u32(load);
    counter->next_tick = load_u64(load);
    counter->next_low = load_bool(load);
    counter->latch = load_u16(load);
    counter->status_latch = load_u8(load);
    counter->latched = load_bool(load);
    counter->status_latched = load_bool(load);
    counter->write_high = load_bool(load);
    counter->read_high = load_bool(load);
    counter->low_byte = load_u8(load);
    uint32_t modulus = counter_modulus(counter);
    if (counter->mode > 5 || counter->access < ACCESS_LOW || counter->access > ACCESS_WORD ||
        !counter->count || counter->count > modulus ||
        (counter->next_loaded && (!counter->next_count || counter->next_count > modulus)))
        load_fail(load);
}

void i8254_state_save(const struct i8254_state *state, struct save *save)
{
    for (unsigned i = 0; i < COUNTERS; i++)
        counter_save(&state->counters[i], save);
    save_u8(save, state->port_b);
    save_bool(save, state->irq);
    save_bool(save, state->disconnected);
    save_u64(save, state->rise_tick);
    save_u32(save, state->owed);
}

bool i8254_state_load(struct i8254_state *state, struct load *load)
{
    for (unsigned i = 0; i < COUNTERS; i++)
        counter_restore(&state->counters[i], load);
    state->port_b = load_u8(load);
    state->irq = load_bool(load);
    state->disconnected = load_bool(load);
    state->rise_tick = load_u64(load);
    state->owed = load_u32(load);
    if (!state->counters[0].gate || !state->counters[1].gate || state->owed > MAX_OWED ||
        (state->port_b & ~PORT_B_STORED))
        load_fail(load);
    return !load->failed;
}

void i8254_state_settle(struct i8254_state *state, uint64_t now_ns)
{
    const struct i8254_counter *counter = &state->counters[0];
    uint64_t now = i8254_tick_of_ns(now_ns);
    bool level = counter->mode != 0 ? counter->loaded : counter_out(counter, now);
    state->irq = level && !state->disconnected;
    state->rise_tick = counter_next_rise(counter, now);
    state->owed = 0;
}

static void i8254_save(void *device, struct save *save)
{
    struct i8254 *pit = device;
    pthread_mutex_lock(&pit->lock);
    i8254_state_save(&pit->state, save);
    pthread_mutex_unlock(&pit->lock);
}

static bool i8254_load(void *device, struct load *load, uint32_t version)
{
    struct i8254 *pit = device;
    struct i8254_state state;
    bool ok = version == i8254_ops.version && i8254_state_load(&state, load);
    pthread_mutex_lock(&pit->lock);
    if (ok) {
        pit->state = state;
        pit_arm(pit, clock_now_ns(pit->clock));
    } else {
        pit_clear(pit);
    }
    pthread_mutex_unlock(&pit->lock);
    return ok;
}

static void i8254_destroy(void *device)
{
    struct i8254 *pit = device;
    ports_unmap_all(pit->bus, pit->ranges, 2);
    pit_free(pit);
}

const struct device_ops i8254_ops = {
    .name = "i8254",
    .version = 1,
    .reset = i8254_reset,
    .save = i8254_save,
    .load = i8254_load,
    .destroy = i8254_destroy,
};
