/* SPDX-License-Identifier: BSD-2-Clause
 *
 * IA-PC HPET (specification 1.0a, chapter 2): a 64-bit counter of 10 ns, comparators of 32 and 64
 * bits, one-shot and periodic, legacy replacement, level and edge, FSB (MSI) delivery.
 *
 * Differences from the real one: a comparator that is set to a time just gone by fires at once
 * instead of a wrap of the counter later, so that a slow guest does not lose its timer; periods
 * that go by before the host runs the timer are told by one interrupt.
 *
 * The counter does not count: it follows from guest time. vCPU threads use the block, the clock's
 * thread the timers; one lock.
 */
#include "dev/hpet.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum {
    REG_CAPABILITIES = 0x000,
    REG_CONFIG = 0x010,
    REG_STATUS = 0x020,
    REG_COUNTER = 0x0f0,
    REG_TIMERS = 0x100,
    TIMER_BYTES = 0x20,
    TIMER_CONFIG = 0x00,
    TIMER_COMPARATOR = 0x08,
    TIMER_FSB = 0x10,
};

enum {
    CONFIG_ENABLE = 0x1,
    CONFIG_LEGACY = 0x2,
    TN_LEVEL = 0x0002,
    TN_ENABLE = 0x0004,
    TN_PERIODIC = 0x0008,
    TN_PERIODIC_CAP = 0x0010,
    TN_64_BIT_CAP = 0x0020,
    TN_SET_VALUE = 0x0040,
    TN_32_BIT = 0x0100,
    TN_ROUTE_SHIFT = 9,
    TN_ROUTE = 0x3e00,
    TN_FSB = 0x4000,
    TN_FSB_CAP = 0x8000,
    TN_STORED = TN_LEVEL | TN_ENABLE | TN_PERIODIC | TN_SET_VALUE | TN_32_BIT | TN_ROUTE | TN_FSB,
};

enum { TICK_NS = 10 };
/* The host is not asked for interrupts faster than this. */
static const uint64_t min_interval_ns = 20000;
/* Three centuries, which is never. */
static const uint64_t max_wait_ticks = UINT64_C(1000000000000000000);

struct timer {
    uint16_t config; /* TN_STORED */
    uint64_t comparator, period;
    uint64_t fsb;
    bool fresh; /* the comparator was written and has not fired since */
    bool waits; /* fires at counter value `due` (of 64 bits) while the counter runs */
    uint64_t due;
    bool line; /* level: what the line shows */
};

struct alarm {
    struct hpet *hpet;
    unsigned index;
    struct clock_timer *timer;
};

struct hpet {
    pthread_mutex_t lock;
    struct hpet_config config;
    struct bus *bus;
    struct clock *clock;
    struct alarm alarms[HPET_MAX_TIMERS];
    uint8_t general; /* CONFIG_ENABLE, CONFIG_LEGACY */
    uint32_t status;
    uint64_t counter; /* while halted; else what is to be added to guest time in ticks */
    struct timer timers[HPET_MAX_TIMERS];
    bool legacy_taken;
};

uint32_t hpet_block_id(const struct hpet_config *config)
{
    return (uint32_t)HPET_ID_VENDOR << 16 | 1u << 15 /* legacy */ | 1u << 13 /* 64 bits */ |
           (config->timer_count - 1) << 8 | 1 /* revision */;
}

static bool hpet_runs(const struct hpet *hpet)
{
    return hpet->general & CONFIG_ENABLE;
}

static uint64_t hpet_counter(const struct hpet *hpet)
{
    if (!hpet_runs(hpet))
        return hpet->counter;
    return hpet->counter + clock_now_ns(hpet->clock) / TICK_NS;
}

static struct irq_line hpet_line(const struct hpet *hpet, unsigned index)
{
    const struct timer *timer = &hpet->timers[index];
    if ((hpet->general & CONFIG_LEGACY) && index < 2)
        return index == 0 ? hpet->config.legacy_timer : hpet->config.legacy_rtc;
    struct irq_line line = hpet->config.ioapic;
    line.number = (timer->config & TN_ROUTE) >> TN_ROUTE_SHIFT;
    if (!(hpet->config.route_mask >> line.number & 1))
        line.set = NULL;
    return line;
}

/* Makes a level-triggered line follow the status. */
static void hpet_update_line(struct hpet *hpet, unsigned index)
{
    struct timer *timer = &hpet->timers[index];
    bool level = (timer->config & TN_LEVEL) && (timer->config & TN_ENABLE) &&
                 !(timer->config & TN_FSB) && (hpet->status >> index & 1);
    if (level != timer->line) {
        struct irq_line line = hpet_line(hpet, index);
        timer->line = level;
        irq_set(&line, level);
    }
}

/* Before the route or the kind of a line changes. */
static void hpet_drop_line(struct hpet *hpet, unsigned index)
{
    struct irq_line line = hpet_line(hpet, index);
    if (hpet->timers[index].line)
        irq_set(&line, false);
    hpet->timers[index].line = false;
}

static void hpet_interrupt(struct hpet *hpet, unsigned index)
{
    struct timer *timer = &hpet->timers[index];
    if (timer->config & TN_LEVEL)
        hpet->status |= 1u << index;
    if (!(timer->config & TN_ENABLE))
        return;
    if (timer->config & TN_FSB) {
        msi_send(&hpet->config.msi, timer->fsb >> 32, (uint32_t)timer->fsb);
    } else if (timer->config & TN_LEVEL) {
        hpet_update_line(hpet, index);
    } else {
        struct irq_line line = hpet_line(hpet, index);
        irq_set(&line, true);
        irq_set(&line, false);
    }
}

/* A timer that may not interrupt needs none of the host's: see hpet_catch_up(). */
static void hpet_arm(struct hpet *hpet, unsigned index)
{
    const struct timer *timer = &hpet->timers[index];
    uint64_t now_ns = clock_now_ns(hpet->clock), counter = hpet_counter(hpet);
    uint64_t ahead = timer->due > counter ? timer->due - counter : 0;
    bool is_enabled = timer->config & TN_ENABLE;
    if (!hpet_runs(hpet) || !is_enabled || !timer->waits || ahead > max_wait_ticks) {
        clock_timer_cancel(hpet->alarms[index].timer);
        return;
    }
    uint64_t wait_ns = ahead * TICK_NS;
    clock_timer_arm(hpet->alarms[index].timer,
                    now_ns + (wait_ns > min_interval_ns ? wait_ns : min_interval_ns));
}

/* Finds when the comparator matches next. A time just gone by counts when it was never told. */
static void hpet_wait(struct hpet *hpet, unsigned index)
{
    struct timer *timer = &hpet->timers[index];
    uint64_t now = hpet_counter(hpet);
    bool may_be_past = timer->fresh || ((timer->config & TN_PERIODIC) && timer->period);
    timer->waits = true;
    if (timer->config & TN_32_BIT) {
        uint32_t ahead = (uint32_t)timer->comparator - (uint32_t)now;
        uint32_t behind = (uint32_t)now - (uint32_t)timer->comparator;
        if (behind > INT32_MAX || !may_be_past)
            timer->due = now + (ahead ? ahead : UINT64_C(1) << 32);
        else
            timer->due = behind <= now ? now - behind : now;
    } else {
        timer->due = timer->comparator;
        timer->waits = timer->comparator > now || may_be_past;
    }
    hpet_arm(hpet, index);
}

/* After a match at `now`: the next one. */
static void hpet_advance(struct timer *timer, uint64_t now)
{
    timer->fresh = false;
    if ((timer->config & TN_PERIODIC) && timer->period) {
        uint64_t periods = (now - timer->due) / timer->period + 1;
        timer->due += periods * timer->period;
        timer->comparator += periods * timer->period;
        if (timer->config & TN_32_BIT)
            timer->comparator = (uint32_t)timer->comparator;
    } else if (timer->config & TN_32_BIT) {
        timer->due += UINT64_C(1) << 32;
    } else {
        timer->waits = false;
    }
}

static void hpet_match(struct hpet *hpet, unsigned index)
{
    struct timer *timer = &hpet->timers[index];
    uint64_t now = hpet_counter(hpet);
    if (!hpet_runs(hpet) || !timer->waits || now < timer->due)
        return;
    hpet_advance(timer, now);
    hpet_interrupt(hpet, index);
}

/* Matches of timers that may not interrupt show only in registers: in time when these are looked
 * at. Linux leaves a periodic timer like that for good, which woke the host 250 times a second. */
static void hpet_catch_up(struct hpet *hpet)
{
    for (unsigned i = 0; i < hpet->config.timer_count; i++)
        if (!(hpet->timers[i].config & TN_ENABLE))
            hpet_match(hpet, i);
}

static void hpet_on_alarm(void *opaque)
{
    struct alarm *alarm = opaque;
    struct hpet *hpet = alarm->hpet;
    pthread_mutex_lock(&hpet->lock);
    hpet_match(hpet, alarm->index);
    hpet_arm(hpet, alarm->index);
    pthread_mutex_unlock(&hpet->lock);
}

static uint64_t hpet_timer_config(const struct hpet *hpet, unsigned index)
{
    uint64_t fsb_cap = hpet->config.msi.send ? TN_FSB_CAP : 0;
    return (uint64_t)hpet->config.route_mask << 32 | hpet->timers[index].config | TN_PERIODIC_CAP |
           TN_64_BIT_CAP | fsb_cap;
}

/* The 64-bit register at `offset`, a multiple of 8. */
static uint64_t hpet_read_register(struct hpet *hpet, unsigned offset)
{
    unsigned index = (offset - REG_TIMERS) / TIMER_BYTES;
    if (offset >= REG_TIMERS && index < hpet->config.timer_count) {
        switch (offset % TIMER_BYTES) {
        case TIMER_CONFIG: return hpet_timer_config(hpet, index);
        case TIMER_COMPARATOR: return hpet->timers[index].comparator;
        case TIMER_FSB: return hpet->timers[index].fsb;
        default: return 0;
        }
    }
    switch (offset) {
    case REG_CAPABILITIES: return (uint64_t)HPET_PERIOD_FS << 32 | hpet_block_id(&hpet->config);
    case REG_CONFIG: return hpet->general;
    case REG_STATUS: return hpet->status;
    case REG_COUNTER: return hpet_counter(hpet);
    default: return 0;
    }
}

static void hpet_tell_legacy(struct hpet *hpet)
{
    bool taken = hpet->general == (CONFIG_ENABLE | CONFIG_LEGACY);
    if (taken == hpet->legacy_taken)
        return;
    hpet->legacy_taken = taken;
    for (unsigned i = 0; i < 2; i++)
        irq_set(&hpet->config.legacy_taken[i], taken);
}

static void hpet_write_config(struct hpet *hpet, uint64_t value)
{
    uint8_t general = value & (CONFIG_ENABLE | CONFIG_LEGACY);
    for (unsigned i = 0; i < hpet->config.timer_count; i++)
        hpet_drop_line(hpet, i);
    uint64_t counter = hpet_counter(hpet);
    bool toggled = (general ^ hpet->general) & CONFIG_ENABLE;
    hpet->general = general;
    if (toggled)
        hpet->counter = hpet_runs(hpet) ? counter - clock_now_ns(hpet->clock) / TICK_NS : counter;
    for (unsigned i = 0; i < hpet->config.timer_count; i++) {
        hpet_update_line(hpet, i);
        if (toggled && hpet_runs(hpet))
            hpet_wait(hpet, i);
        else
            hpet_arm(hpet, i);
    }
    hpet_tell_legacy(hpet);
}

static void hpet_write_timer_config(struct hpet *hpet, unsigned index, uint64_t value)
{
    struct timer *timer = &hpet->timers[index];
    hpet_drop_line(hpet, index);
    uint16_t old = timer->config;
    timer->config = value & TN_STORED;
    if (!hpet->config.msi.send)
        timer->config &= (uint16_t)~TN_FSB;
    if (!(timer->config & TN_PERIODIC))
        timer->config &= (uint16_t)~TN_SET_VALUE;
    if (!(timer->config & TN_LEVEL))
        hpet->status &= ~(1u << index);
    if (timer->config & TN_32_BIT) {
        timer->comparator = (uint32_t)timer->comparator;
        timer->period = (uint32_t)timer->period;
    }
    hpet_update_line(hpet, index);
    if ((old ^ timer->config) & TN_32_BIT) {
        timer->fresh = false;
        hpet_wait(hpet, index);
    } else {
        hpet_arm(hpet, index);
    }
}

static uint64_t merge(uint64_t old, uint64_t value, uint64_t mask)
{
    return (old & ~mask) | (value & mask);
}

static void hpet_write_comparator(struct hpet *hpet, unsigned index, uint64_t value, uint64_t mask)
{
    struct timer *timer = &hpet->timers[index];
    bool is_periodic = timer->config & TN_PERIODIC;
    uint64_t width = timer->config & TN_32_BIT ? UINT32_MAX : UINT64_MAX;
    if (is_periodic)
        timer->period = merge(timer->period, value, mask) & width;
    if (is_periodic && !(timer->config & TN_SET_VALUE))
        return;
    timer->config &= (uint16_t)~TN_SET_VALUE;
    timer->comparator = merge(timer->comparator, value, mask) & width;
    timer->fresh = true;
    hpet_wait(hpet, index);
}

static void hpet_write_status(struct hpet *hpet, uint64_t value)
{
    hpet->status &= ~(uint32_t)value;
    for (unsigned i = 0; i < hpet->config.timer_count; i++)
        hpet_update_line(hpet, i);
}

/* `mask` has ones where the access writes. */
static void hpet_write_register(struct hpet *hpet, unsigned offset, uint64_t value, uint64_t mask)
{
    unsigned index = (offset - REG_TIMERS) / TIMER_BYTES;
    if (offset == REG_STATUS) {
        hpet_write_status(hpet, value & mask);
        return;
    }
    uint64_t merged = merge(hpet_read_register(hpet, offset), value, mask);
    if (offset >= REG_TIMERS && index < hpet->config.timer_count) {
        if (offset % TIMER_BYTES == TIMER_CONFIG)
            hpet_write_timer_config(hpet, index, merged);
        else if (offset % TIMER_BYTES == TIMER_COMPARATOR)
            hpet_write_comparator(hpet, index, value, mask);
        else if (offset % TIMER_BYTES == TIMER_FSB)
            hpet->timers[index].fsb = merged;
    } else if (offset == REG_CONFIG) {
        hpet_write_config(hpet, merged);
    } else if (offset == REG_COUNTER && !hpet_runs(hpet)) {
        hpet->counter = merged;
    }
}

/* Software is to use aligned accesses of 32 and 64 bits; narrower ones work for reads. */
static uint64_t hpet_read(void *opaque, uint64_t offset, unsigned size_bytes)
{
    struct hpet *hpet = opaque;
    unsigned in_register = offset & 7;
    if (offset >= HPET_BLOCK_BYTES || in_register + size_bytes > 8)
        return UINT64_MAX;
    pthread_mutex_lock(&hpet->lock);
    hpet_catch_up(hpet);
    uint64_t value = hpet_read_register(hpet, (unsigned)offset & ~7u);
    pthread_mutex_unlock(&hpet->lock);
    return value >> (8 * in_register);
}

static void hpet_write(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    struct hpet *hpet = opaque;
    if (offset >= HPET_BLOCK_BYTES || size_bytes < 4 || offset % size_bytes)
        return;
    unsigned shift = 8 * (offset & 7);
    uint64_t mask = size_bytes == 8 ? UINT64_MAX : UINT64_C(0xffffffff) << shift;
    pthread_mutex_lock(&hpet->lock);
    hpet_catch_up(hpet);
    hpet_write_register(hpet, (unsigned)offset & ~7u, value << shift, mask);
    pthread_mutex_unlock(&hpet->lock);
}

static void hpet_clear(struct hpet *hpet)
{
    for (unsigned i = 0; i < hpet->config.timer_count; i++) {
        hpet_drop_line(hpet, i);
        clock_timer_cancel(hpet->alarms[i].timer);
    }
    memset(hpet->timers, 0, sizeof(hpet->timers));
    for (unsigned i = 0; i < hpet->config.timer_count; i++)
        hpet->timers[i].comparator = UINT64_MAX;
    hpet->general = 0;
    hpet->status = 0;
    hpet->counter = 0;
    hpet_tell_legacy(hpet);
}

static void hpet_free(struct hpet *hpet)
{
    for (unsigned i = 0; i < HPET_MAX_TIMERS; i++)
        if (hpet->alarms[i].timer)
            clock_timer_close(hpet->alarms[i].timer);
    pthread_mutex_destroy(&hpet->lock);
    free(hpet);
}

static bool hpet_open_alarms(struct hpet *hpet)
{
    for (unsigned i = 0; i < hpet->config.timer_count; i++) {
        hpet->alarms[i].hpet = hpet;
        hpet->alarms[i].index = i;
        hpet->alarms[i].timer = clock_timer_open(hpet->clock, hpet_on_alarm, &hpet->alarms[i]);
        if (!hpet->alarms[i].timer)
            return false;
    }
    return true;
}

struct hpet *hpet_create(const struct hpet_config *config, struct bus *bus, struct clock *clock,
                         struct error *err)
{
    if (config->timer_count < HPET_MIN_TIMERS || config->timer_count > HPET_MAX_TIMERS) {
        error_set(err, "cannot create device", "hpet", "%u timers: it has %d to %d",
                  config->timer_count, HPET_MIN_TIMERS, HPET_MAX_TIMERS);
        return NULL;
    }
    struct hpet *hpet = calloc(1, sizeof(*hpet));
    if (!hpet) {
        error_set(err, "cannot create device", "hpet", "out of memory");
        return NULL;
    }
    hpet->config = *config;
    hpet->bus = bus;
    hpet->clock = clock;
    pthread_mutex_init(&hpet->lock, NULL);
    if (!hpet_open_alarms(hpet)) {
        error_set(err, "cannot create device", "hpet", "out of memory");
        hpet_free(hpet);
        return NULL;
    }
    hpet_clear(hpet);
    struct bus_range range = {"hpet",    BUS_MMIO,   config->base, HPET_BLOCK_BYTES,
                              hpet_read, hpet_write, hpet};
    if (!bus_map(bus, &range, err)) {
        hpet_free(hpet);
        return NULL;
    }
    return hpet;
}

static void hpet_reset(void *device)
{
    struct hpet *hpet = device;
    pthread_mutex_lock(&hpet->lock);
    hpet_clear(hpet);
    pthread_mutex_unlock(&hpet->lock);
}

static void hpet_save(void *device, struct save *save)
{
    struct hpet *hpet = device;
    pthread_mutex_lock(&hpet->lock);
    hpet_catch_up(hpet);
    save_u8(save, (uint8_t)hpet->config.timer_count);
    save_u8(save, hpet->general);
    save_u32(save, hpet->status);
    save_u64(save, hpet->counter);
    save_bool(save, hpet->legacy_taken);
    for (unsigned i = 0; i < hpet->config.timer_count; i++) {
        const struct timer *timer = &hpet->timers[i];
        save_u16(save, timer->config);
        save_u64(save, timer->comparator);
        save_u64(save, timer->period);
        save_u64(save, timer->fsb);
        save_bool(save, timer->fresh);
        save_bool(save, timer->waits);
        save_u64(save, timer->due);
        save_bool(save, timer->line);
    }
    pthread_mutex_unlock(&hpet->lock);
}

static void timer_load(struct timer *timer, struct load *load, bool has_fsb)
{
    timer->config = load_u16(load);
    timer->comparator = load_u64(load);
    timer->period = load_u64(load);
    timer->fsb = load_u64(load);
    timer->fresh = load_bool(load);
    timer->waits = load_bool(load);
    timer->due = load_u64(load);
    timer->line = load_bool(load);
    if ((timer->config & ~TN_STORED) || ((timer->config & TN_FSB) && !has_fsb))
        load_fail(load);
}

static bool hpet_load(void *device, struct load *load, uint32_t version)
{
    struct hpet *hpet = device;
    struct timer timers[HPET_MAX_TIMERS] = {0};
    if (load_u8(load) != hpet->config.timer_count)
        load_fail(load);
    uint8_t general = load_u8(load);
    uint32_t status = load_u32(load);
    uint64_t counter = load_u64(load);
    bool legacy_taken = load_bool(load);
    for (unsigned i = 0; i < hpet->config.timer_count; i++)
        timer_load(&timers[i], load, hpet->config.msi.send != NULL);
    if ((general & ~(CONFIG_ENABLE | CONFIG_LEGACY)) || status >> hpet->config.timer_count)
        load_fail(load);
    bool ok = version == hpet_ops.version && !load->failed;
    pthread_mutex_lock(&hpet->lock);
    if (ok) {
        hpet->general = general;
        hpet->status = status;
        hpet->counter = counter;
        hpet->legacy_taken = legacy_taken; /* who receives the lines saves their levels */
        memcpy(hpet->timers, timers, sizeof(timers));
        for (unsigned i = 0; i < hpet->config.timer_count; i++)
            hpet_arm(hpet, i);
    } else {
        hpet_clear(hpet);
    }
    pthread_mutex_unlock(&hpet->lock);
    return ok;
}

static void hpet_destroy(void *device)
{
    struct hpet *hpet = device;
    bus_unmap(hpet->bus, BUS_MMIO, hpet->config.base);
    hpet_free(hpet);
}

const struct device_ops hpet_ops = {
    .name = "hpet",
    .version = 1,
    .reset = hpet_reset,
    .save = hpet_save,
    .load = hpet_load,
    .destroy = hpet_destroy,
};
