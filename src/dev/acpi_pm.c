/* SPDX-License-Identifier: BSD-2-Clause
 *
 * ACPI fixed hardware (ACPI 6.5, 4.8.3 and 4.8.4), laid out as ICH9's PMBASE block (ICH9 data
 * sheet, 13.8.3): PM1a event and control, the power management timer of 3.579545 MHz, GPE0.
 *
 * Left out: sleep states but S3 and S5; the sleep button; SMI. ACPI is always enabled (SCI_EN is
 * fixed), so there is no SMI_CMD; SMI_EN reads with APMC_EN set, by which firmware takes SMM as set
 * up.
 *
 * vCPU threads use the ports, any thread presses buttons, the clock's the timer's overflow; one
 * lock, not held when power_off is called.
 */
#include "dev/acpi_pm.h"

#include "dev/ports.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum {
    PM1_TIMER = 0x0001,
    PM1_GLOBAL = 0x0020,
    PM1_POWER_BUTTON = 0x0100,
    PM1_RTC = 0x0400,
    PM1_WAKE = 0x8000,
    PM1_EVENTS = PM1_TIMER | PM1_GLOBAL | PM1_POWER_BUTTON | PM1_RTC,
    CONTROL_SCI_ENABLE = 0x0001,
    CONTROL_BUS_MASTER = 0x0002,
    CONTROL_SLEEP_TYPE = 0x1c00,
    CONTROL_SLEEP_TYPE_SHIFT = 10,
    CONTROL_SLEEP_ENABLE = 0x2000,
    CONTROL_STORED = CONTROL_BUS_MASTER | CONTROL_SLEEP_TYPE,
};

enum {
    REG_STATUS = ACPI_PM_EVENT_OFFSET,
    REG_ENABLE = REG_STATUS + 2,
    REG_CONTROL = ACPI_PM_CONTROL_OFFSET,
    REG_TIMER = ACPI_PM_TIMER_OFFSET,
    REG_GPE_STATUS = ACPI_PM_GPE0_OFFSET,
    REG_GPE_ENABLE = REG_GPE_STATUS + ACPI_PM_GPE0_BYTES / 2,
    REG_SMI_ENABLE = 0x30,
    SMI_APMC_ENABLE = 0x20,
    GPE_BYTES = ACPI_PM_GPE0_BYTES / 2,
};

static const uint64_t frequency_hz = 3579545;
static const uint64_t ns_per_second = 1000000000;

struct acpi_pm {
    pthread_mutex_t lock;
    struct acpi_pm_config config;
    struct bus *bus;
    struct clock *clock;
    struct clock_timer *timer;
    struct bus_range range;
    struct log_limit log_limit;
    uint16_t status, enable, control;
    uint64_t gpe_status, gpe_enable, gpe_lines;
    uint64_t seen_half; /* halves of the timer's range that TMR_STS has told */
    bool rtc_line, sci;
    bool is_asleep;
};

static uint64_t pm_ticks(const struct acpi_pm *pm)
{
    uint64_t ns = clock_now_ns(pm->clock);
    return ns / ns_per_second * frequency_hz + ns % ns_per_second * frequency_hz / ns_per_second;
}

static uint32_t pm_timer_value(const struct acpi_pm *pm)
{
    uint64_t ticks = pm_ticks(pm);
    return (uint32_t)(pm->config.timer_is_32_bit ? ticks : ticks & 0xffffff);
}

/* The status bit tells each change of the timer's top bit. */
static unsigned pm_half_shift(const struct acpi_pm *pm)
{
    return pm->config.timer_is_32_bit ? 31 : 23;
}

/* 4.8.3.1.1: the button needs no enabling to wake. */
static void pm_wake_if_due(struct acpi_pm *pm)
{
    bool is_due = (pm->status & (PM1_POWER_BUTTON | (pm->enable & PM1_RTC))) ||
                  (pm->gpe_status & pm->gpe_enable);
    if (!pm->is_asleep || !is_due)
        return;
    pm->is_asleep = false;
    pm->status |= PM1_WAKE;
    pm->config.wake(pm->config.opaque);
}

static void pm_update(struct acpi_pm *pm)
{
    uint64_t half = pm_ticks(pm) >> pm_half_shift(pm);
    if (half != pm->seen_half)
        pm->status |= PM1_TIMER;
    pm->seen_half = half;
    bool sci =
        (pm->status & pm->enable & PM1_EVENTS) != 0 || (pm->gpe_status & pm->gpe_enable) != 0;
    if (sci != pm->sci) {
        pm->sci = sci;
        irq_set(&pm->config.sci, sci);
    }
    pm_wake_if_due(pm);
}

/* Waits for the overflow only when it would interrupt. */
static void pm_arm(struct acpi_pm *pm)
{
    if (!(pm->enable & PM1_TIMER) || (pm->status & PM1_TIMER)) {
        clock_timer_cancel(pm->timer);
        return;
    }
    uint64_t tick = (pm->seen_half + 1) << pm_half_shift(pm);
    clock_timer_arm(pm->timer, tick / frequency_hz * ns_per_second +
                                   tick % frequency_hz * ns_per_second / frequency_hz + 1);
}

static void pm_on_timer(void *opaque)
{
    struct acpi_pm *pm = opaque;
    pthread_mutex_lock(&pm->lock);
    pm_update(pm);
    pm_arm(pm);
    pthread_mutex_unlock(&pm->lock);
}

static uint8_t byte_of(uint64_t value, unsigned index)
{
    return (uint8_t)(value >> (8 * index));
}

static uint8_t pm_read_register(struct acpi_pm *pm, unsigned offset)
{
    if (offset < REG_ENABLE)
        return byte_of(pm->status, offset);
    if (offset < REG_CONTROL)
        return byte_of(pm->enable, offset - REG_ENABLE);
    if (offset < REG_TIMER)
        return byte_of(pm->control | CONTROL_SCI_ENABLE, offset - REG_CONTROL);
    if (offset >= REG_GPE_STATUS && offset < REG_GPE_ENABLE)
        return byte_of(pm->gpe_status, offset - REG_GPE_STATUS);
    if (offset >= REG_GPE_ENABLE && offset < REG_GPE_ENABLE + GPE_BYTES)
        return byte_of(pm->gpe_enable, offset - REG_GPE_ENABLE);
    return offset == REG_SMI_ENABLE ? SMI_APMC_ENABLE : 0;
}

static uint64_t pm_read(void *opaque, uint64_t offset, unsigned size_bytes)
{
    struct acpi_pm *pm = opaque;
    uint64_t value = 0;
    pthread_mutex_lock(&pm->lock);
    pm_update(pm);
    pm_arm(pm);
    uint32_t timer = pm_timer_value(pm); /* one value for all bytes of the access */
    for (unsigned i = 0; i < size_bytes; i++) {
        uint64_t at = offset + i;
        uint8_t byte = 0xff;
        if (at >= REG_TIMER && at < REG_TIMER + 4)
            byte = byte_of(timer, (unsigned)at - REG_TIMER);
        else if (at < ACPI_PM_BLOCK_BYTES)
            byte = pm_read_register(pm, (unsigned)at);
        value |= (uint64_t)byte << (8 * i);
    }
    pthread_mutex_unlock(&pm->lock);
    return value;
}

/* True when the machine is to be switched off. */
static bool pm_write_control(struct acpi_pm *pm, unsigned index, uint8_t value)
{
    uint16_t mask = (uint16_t)(0xff << (8 * index)), bits = (uint16_t)(value << (8 * index));
    pm->control = ((pm->control & (uint16_t)~mask) | bits) & CONTROL_STORED;
    if (!(bits & CONTROL_SLEEP_ENABLE))
        return false;
    unsigned type = (pm->control & CONTROL_SLEEP_TYPE) >> CONTROL_SLEEP_TYPE_SHIFT;
    if (type == pm->config.sleep_type_s5)
        return true;
    if (pm->config.sleep && type == pm->config.sleep_type_s3) {
        pm->is_asleep = true;
        pm->config.sleep(pm->config.opaque);
        return false;
    }
    log_limited(pm->config.log, &pm->log_limit, LOG_WARNING, "acpi_pm",
                "the guest asks for sleep type %u, which there is not", type);
    return false;
}

static uint64_t with_byte(uint64_t old, unsigned index, uint8_t value)
{
    return (old & ~(UINT64_C(0xff) << (8 * index))) | (uint64_t)value << (8 * index);
}

static bool pm_write_register(struct acpi_pm *pm, unsigned offset, uint8_t value)
{
    if (offset < REG_ENABLE) {
        pm->status &= (uint16_t) ~((unsigned)value << (8 * offset));
    } else if (offset < REG_CONTROL) {
        pm->enable = (uint16_t)with_byte(pm->enable, offset - REG_ENABLE, value) & PM1_EVENTS;
    } else if (offset < REG_CONTROL + 2) {
        return pm_write_control(pm, offset - REG_CONTROL, value);
    } else if (offset >= REG_GPE_STATUS && offset < REG_GPE_ENABLE) {
        pm->gpe_status &= ~((uint64_t)value << (8 * (offset - REG_GPE_STATUS)));
        pm->gpe_status |= pm->gpe_lines;
    } else if (offset >= REG_GPE_ENABLE && offset < REG_GPE_ENABLE + GPE_BYTES) {
        pm->gpe_enable = with_byte(pm->gpe_enable, offset - REG_GPE_ENABLE, value);
    }
    return false;
}

static void pm_write(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    struct acpi_pm *pm = opaque;
    bool off = false;
    pthread_mutex_lock(&pm->lock);
    pm_update(pm); /* an overflow before the write is not cleared unseen later */
    for (unsigned i = 0; i < size_bytes && offset + i < ACPI_PM_BLOCK_BYTES; i++)
        off |= pm_write_register(pm, (unsigned)(offset + i), byte_of(value, i));
    pm_update(pm);
    pm_arm(pm);
    pthread_mutex_unlock(&pm->lock);
    if (off && pm->config.power_off)
        pm->config.power_off(pm->config.opaque);
}

static void pm_raise(struct acpi_pm *pm, uint16_t event)
{
    pm->status |= event;
    pm_update(pm);
}

bool acpi_pm_is_asleep(struct acpi_pm *pm)
{
    pthread_mutex_lock(&pm->lock);
    bool is_asleep = pm->is_asleep;
    pthread_mutex_unlock(&pm->lock);
    return is_asleep;
}

void acpi_pm_press_power_button(struct acpi_pm *pm)
{
    pthread_mutex_lock(&pm->lock);
    pm_raise(pm, PM1_POWER_BUTTON);
    pthread_mutex_unlock(&pm->lock);
}

void acpi_pm_set_rtc_alarm(void *opaque, unsigned number, bool level)
{
    struct acpi_pm *pm = opaque;
    pthread_mutex_lock(&pm->lock);
    if (level && !pm->rtc_line)
        pm_raise(pm, PM1_RTC);
    pm->rtc_line = level;
    pthread_mutex_unlock(&pm->lock);
}

void acpi_pm_set_gpe(void *opaque, unsigned gpe, bool level)
{
    struct acpi_pm *pm = opaque;
    if (gpe >= ACPI_PM_GPE_COUNT)
        return;
    uint64_t bit = UINT64_C(1) << gpe;
    pthread_mutex_lock(&pm->lock);
    pm->gpe_lines = level ? pm->gpe_lines | bit : pm->gpe_lines & ~bit;
    pm->gpe_status |= pm->gpe_lines;
    pm_update(pm);
    pthread_mutex_unlock(&pm->lock);
}

/* All but the levels of the inputs, which are other devices'. */
static void pm_clear(struct acpi_pm *pm)
{
    pm->status = pm->enable = pm->control = 0;
    pm->gpe_enable = 0;
    pm->gpe_status = pm->gpe_lines;
    pm->seen_half = pm_ticks(pm) >> pm_half_shift(pm);
    pm->sci = pm->is_asleep = false;
    clock_timer_cancel(pm->timer);
    irq_set(&pm->config.sci, false);
}

static void pm_free(struct acpi_pm *pm)
{
    if (pm->timer)
        clock_timer_close(pm->timer);
    pthread_mutex_destroy(&pm->lock);
    free(pm);
}

struct acpi_pm *acpi_pm_create(const struct acpi_pm_config *config, struct bus *bus,
                               struct clock *clock, struct error *err)
{
    struct acpi_pm *pm = calloc(1, sizeof(*pm));
    if (!pm) {
        error_set(err, "cannot create device", "acpi_pm", "out of memory");
        return NULL;
    }
    pm->config = *config;
    pm->bus = bus;
    pm->clock = clock;
    pthread_mutex_init(&pm->lock, NULL);
    pm->timer = clock_timer_open(clock, pm_on_timer, pm);
    if (!pm->timer) {
        error_set(err, "cannot create device", "acpi_pm", "out of memory");
        pm_free(pm);
        return NULL;
    }
    pm_clear(pm);
    pm->range = (struct bus_range){"acpi_pm", BUS_PORT, config->base, ACPI_PM_BLOCK_BYTES, pm_read,
                                   pm_write,  pm};
    if (!bus_map(bus, &pm->range, err)) {
        pm_free(pm);
        return NULL;
    }
    return pm;
}

bool acpi_pm_set_base(struct acpi_pm *pm, uint16_t base, struct error *err)
{
    if (base == pm->range.base)
        return true;
    struct bus_range range = pm->range;
    bus_unmap(pm->bus, BUS_PORT, pm->range.base);
    range.base = base;
    bool ok = bus_map(pm->bus, &range, err);
    if (ok)
        pm->range.base = base;
    else
        bus_map(pm->bus, &pm->range, NULL); /* was free a moment ago */
    return ok;
}

static void acpi_pm_reset(void *device)
{
    struct acpi_pm *pm = device;
    pthread_mutex_lock(&pm->lock);
    pm_clear(pm);
    pthread_mutex_unlock(&pm->lock);
}

static void acpi_pm_save(void *device, struct save *save)
{
    struct acpi_pm *pm = device;
    pthread_mutex_lock(&pm->lock);
    save_u16(save, pm->status);
    save_u16(save, pm->enable);
    save_u16(save, pm->control);
    save_u64(save, pm->gpe_status);
    save_u64(save, pm->gpe_enable);
    save_u64(save, pm->gpe_lines);
    save_u64(save, pm->seen_half);
    save_bool(save, pm->rtc_line);
    save_bool(save, pm->sci);
    save_bool(save, pm->is_asleep);
    pthread_mutex_unlock(&pm->lock);
}

static bool acpi_pm_load(void *device, struct load *load, uint32_t version)
{
    struct acpi_pm *pm = device;
    uint16_t status = load_u16(load), enable = load_u16(load), control = load_u16(load);
    uint64_t gpe_status = load_u64(load), gpe_enable = load_u64(load), gpe_lines = load_u64(load);
    uint64_t seen_half = load_u64(load);
    bool rtc_line = load_bool(load), sci = load_bool(load), is_asleep = load_bool(load);
    if ((status & ~(PM1_EVENTS | PM1_WAKE)) || (enable & ~PM1_EVENTS) ||
        (control & ~CONTROL_STORED) || seen_half > UINT64_MAX >> 32 ||
        (is_asleep && !pm->config.sleep))
        load_fail(load);
    bool ok = version == acpi_pm_ops.version && !load->failed;
    pthread_mutex_lock(&pm->lock);
    if (ok) {
        pm->status = status;
        pm->enable = enable;
        pm->control = control;
        pm->gpe_status = gpe_status;
        pm->gpe_enable = gpe_enable;
        pm->gpe_lines = gpe_lines;
        pm->seen_half = seen_half;
        pm->rtc_line = rtc_line;
        pm->is_asleep = is_asleep;
        pm->sci = sci; /* who receives the line saves its level */
        pm_arm(pm);
    } else {
        pm_clear(pm);
    }
    pthread_mutex_unlock(&pm->lock);
    return ok;
}

static void acpi_pm_destroy(void *device)
{
    struct acpi_pm *pm = device;
    bus_unmap(pm->bus, BUS_PORT, pm->range.base);
    pm_free(pm);
}

const struct device_ops acpi_pm_ops = {
    .name = "acpi_pm",
    .version = 2,
    .reset = acpi_pm_reset,
    .save = acpi_pm_save,
    .load = acpi_pm_load,
    .destroy = acpi_pm_destroy,
};
