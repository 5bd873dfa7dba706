/* SPDX-License-Identifier: BSD-2-Clause
 *
 * MC146818A real-time clock (Motorola data sheet, 1984) with 2 x 128 bytes of CMOS memory at ports
 * 0x70 to 0x73 (ICH9 data sheet, 13.6). Time and calendar in all formats, alarm, periodic and
 * update-ended interrupts, UIP, the century at 0x32.
 *
 * The clock shows the host's UTC plus an offset that the guest moves by setting the time; it so
 * goes on while the machine is paused, as the real one does without power. The periodic interrupt
 * follows guest time. Left out: daylight saving, the square wave output. Periodic interrupts that
 * the guest leaves unread are not made up for.
 *
 * Flags are brought up to date when somebody looks or an enabled interrupt is due. vCPU threads use
 * the ports, the clock's thread the timer; one lock.
 */
#include "dev/mc146818.h"

#include "dev/ports.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { PORTS = 4, BANK_BYTES = 128, CMOS_BYTES = 256 };

enum {
    SECONDS,
    SECONDS_ALARM,
    MINUTES,
    MINUTES_ALARM,
    HOURS,
    HOURS_ALARM,
    WEEKDAY,
    DAY,
    MONTH,
    YEAR,
    REG_A,
    REG_B,
    REG_C,
    REG_D,
    CENTURY = 0x32,
};

enum {
    A_UIP = 0x80,
    A_DIVIDER = 0x70,
    A_DIVIDER_RESET = 0x60, /* 0x60 and 0x70 hold the divider chain */
    A_RATE = 0x0f,
    B_SET = 0x80,
    B_PERIODIC = 0x40,
    B_ALARM = 0x20,
    B_UPDATE = 0x10,
    B_BINARY = 0x04,
    B_24_HOURS = 0x02,
    C_IRQ = 0x80,
    C_FLAGS = 0x70, /* at the places of their enables in B */
    D_VALID = 0x80,
    HOUR_PM = 0x80,
    ALARM_ANY = 0xc0,
};

static const int64_t ns_per_second = 1000000000;
static const uint64_t divider_hz = 32768;
static const int64_t update_ns = 244000 + 1984000; /* UIP is up so long before the new second */
static const int64_t seconds_per_day = 86400;
static const int64_t min_year = 1900, max_year = 2150;
static const int64_t max_offset_ns = INT64_C(5500000000000000000);

struct mc146818 {
    pthread_mutex_t lock;
    struct mc146818_config config;
    struct bus *bus;
    struct clock *clock;
    struct clock_timer *timer;
    struct bus_range range;
    uint8_t cmos[CMOS_BYTES]; /* the clock's registers as they were last looked at or set */
    uint8_t index, extended_index;
    int64_t offset_ns;     /* our time is the host's UTC plus this */
    uint8_t weekday_shift; /* the guest's weekday may differ from the calendar's */
    int64_t seen_second;   /* update and alarm are told up to here */
    uint64_t seen_period;
    bool irq, disconnected;
};

static bool rtc_is_held(const struct mc146818 *rtc)
{
    return (rtc->cmos[REG_B] & B_SET) || (rtc->cmos[REG_A] & A_DIVIDER_RESET) == A_DIVIDER_RESET;
}

static int64_t rtc_host_ns(void)
{
    int64_t seconds;
    uint32_t nanoseconds;
    clock_host_utc(&seconds, &nanoseconds);
    return seconds * ns_per_second + nanoseconds;
}

static int64_t rtc_now_ns(const struct mc146818 *rtc)
{
    return rtc_host_ns() + rtc->offset_ns;
}

static int64_t floor_div(int64_t value, int64_t by)
{
    return value / by - (value % by < 0);
}

static uint8_t rtc_encode(const struct mc146818 *rtc, unsigned value)
{
    return (uint8_t)(rtc->cmos[REG_B] & B_BINARY ? value : value / 10 << 4 | value % 10);
}

static unsigned rtc_decode(const struct mc146818 *rtc, uint8_t value)
{
    return rtc->cmos[REG_B] & B_BINARY ? value : (value >> 4) * 10u + (value & 15);
}

static uint8_t rtc_encode_hour(const struct mc146818 *rtc, unsigned hour)
{
    if (rtc->cmos[REG_B] & B_24_HOURS)
        return rtc_encode(rtc, hour);
    return rtc_encode(rtc, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? HOUR_PM : 0);
}

static unsigned rtc_decode_hour(const struct mc146818 *rtc, uint8_t value)
{
    if (rtc->cmos[REG_B] & B_24_HOURS)
        return rtc_decode(rtc, value);
    return rtc_decode(rtc, value & (uint8_t)~HOUR_PM) % 12 + (value & HOUR_PM ? 12 : 0);
}

/* Days from 1970-01-01 to a day of the Gregorian calendar; years count from March. */
static int64_t days_of_date(int64_t year, unsigned month, unsigned day)
{
    year -= month <= 2;
    int64_t era = floor_div(year, 400), of_era = year - era * 400;
    int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

static void date_of_days(int64_t days, int64_t *year, unsigned *month, unsigned *day)
{
    days += 719468;
    int64_t era = floor_div(days, 146097), of_era = days - era * 146097;
    int64_t y = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int64_t of_year = of_era - (365 * y + y / 4 - y / 100);
    int64_t m = (5 * of_year + 2) / 153;
    *day = (unsigned)(of_year - (153 * m + 2) / 5 + 1);
    *month = (unsigned)(m < 10 ? m + 3 : m - 9);
    *year = era * 400 + y + (*month <= 2);
}

/* 0 is Sunday. */
static unsigned weekday_of_days(int64_t days)
{
    return (unsigned)(((days + 4) % 7 + 7) % 7);
}

/* Brings the registers of time up to now, unless the guest holds them. */
static void rtc_show_time(struct mc146818 *rtc)
{
    if (rtc_is_held(rtc))
        return;
    int64_t second = floor_div(rtc_now_ns(rtc), ns_per_second);
    int64_t days = floor_div(second, seconds_per_day), year;
    unsigned of_day = (unsigned)(second - days * seconds_per_day), month, day;
    date_of_days(days, &year, &month, &day);
    uint8_t *cmos = rtc->cmos;
    cmos[SECONDS] = rtc_encode(rtc, of_day % 60);
    cmos[MINUTES] = rtc_encode(rtc, of_day / 60 % 60);
    cmos[HOURS] = rtc_encode_hour(rtc, of_day / 3600);
    cmos[WEEKDAY] = rtc_encode(rtc, (weekday_of_days(days) + rtc->weekday_shift) % 7 + 1);
    cmos[DAY] = rtc_encode(rtc, day);
    cmos[MONTH] = rtc_encode(rtc, month);
    cmos[YEAR] = rtc_encode(rtc, (unsigned)(year % 100));
    cmos[CENTURY] = rtc_encode(rtc, (unsigned)(year / 100 % 100));
}

/* Makes now the time that the registers tell, `fraction_ns` into its second. */
static void rtc_set_time(struct mc146818 *rtc, int64_t fraction_ns)
{
    const uint8_t *cmos = rtc->cmos;
    unsigned month = rtc_decode(rtc, cmos[MONTH]);
    month = month < 1 ? 1 : month > 12 ? 12 : month;
    int64_t year = rtc_decode(rtc, cmos[CENTURY]) % 100 * 100 + rtc_decode(rtc, cmos[YEAR]) % 100;
    /* Further away, nanoseconds of 64 bits get short. */
    if (year < min_year || year > max_year)
        year = 2000 + year % 100;
    int64_t days = days_of_date(year, month, rtc_decode(rtc, cmos[DAY]));
    int64_t second = days * seconds_per_day + rtc_decode_hour(rtc, cmos[HOURS]) * 3600 +
                     rtc_decode(rtc, cmos[MINUTES]) * 60 + rtc_decode(rtc, cmos[SECONDS]);
    unsigned weekday = rtc_decode(rtc, cmos[WEEKDAY]);
    rtc->weekday_shift = (uint8_t)((weekday + 6 + 7 - weekday_of_days(days)) % 7);
    rtc->offset_ns = second * ns_per_second + fraction_ns - rtc_host_ns();
    rtc->seen_second = second;
}

static bool alarm_matches(uint8_t alarm, unsigned alarm_value, unsigned value)
{
    return (alarm & ALARM_ANY) == ALARM_ANY || alarm_value == value;
}

/* Whether the alarm lies in the seconds after `from` up to `to`. */
static bool rtc_alarm_between(const struct mc146818 *rtc, int64_t from, int64_t to)
{
    const uint8_t *cmos = rtc->cmos;
    if (from < to - seconds_per_day)
        from = to - seconds_per_day;
    for (int64_t second = from + 1; second <= to; second++) {
        unsigned of_day = (unsigned)(second - floor_div(second, seconds_per_day) * seconds_per_day);
        if (alarm_matches(cmos[SECONDS_ALARM], rtc_decode(rtc, cmos[SECONDS_ALARM]), of_day % 60) &&
            alarm_matches(cmos[MINUTES_ALARM], rtc_decode(rtc, cmos[MINUTES_ALARM]),
                          of_day / 60 % 60) &&
            alarm_matches(cmos[HOURS_ALARM], rtc_decode_hour(rtc, cmos[HOURS_ALARM]),
                          of_day / 3600))
            return true;
    }
    return false;
}

/* Ticks of the divider to a periodic interrupt; 0: none. Codes 1 and 2 repeat 8 and 9. */
static uint64_t rtc_period_ticks(const struct mc146818 *rtc)
{
    unsigned rate = rtc->cmos[REG_A] & A_RATE;
    if (!rate || (rtc->cmos[REG_A] & A_DIVIDER_RESET) == A_DIVIDER_RESET)
        return 0;
    return UINT64_C(1) << ((rate <= 2 ? rate + 7 : rate) - 1);
}

static uint64_t rtc_period_now(const struct mc146818 *rtc, uint64_t period_ticks)
{
    uint64_t ns = clock_now_ns(rtc->clock);
    uint64_t ticks = ns / 1000000000 * divider_hz + ns % 1000000000 * divider_hz / 1000000000;
    return ticks / period_ticks;
}

/* The first nanosecond of a period; the next one, to be past the rounding. */
static uint64_t rtc_period_ns(uint64_t period, uint64_t period_ticks)
{
    uint64_t ticks = period * period_ticks;
    return ticks / divider_hz * 1000000000 + ticks % divider_hz * 1000000000 / divider_hz + 1;
}

static void rtc_update_irq(struct mc146818 *rtc)
{
    uint8_t *c = &rtc->cmos[REG_C];
    bool level = *c & rtc->cmos[REG_B] & C_FLAGS;
    *c = (uint8_t)((*c & C_FLAGS) | (level ? C_IRQ : 0));
    level = level && !rtc->disconnected;
    if (level != rtc->irq) {
        rtc->irq = level;
        irq_set(&rtc->config.irq, level);
    }
    irq_set(&rtc->config.alarm, *c & rtc->cmos[REG_B] & B_ALARM);
}

/* Sets the flags of what has happened since the last look. */
static void rtc_advance(struct mc146818 *rtc)
{
    uint64_t period_ticks = rtc_period_ticks(rtc);
    if (period_ticks) {
        uint64_t period = rtc_period_now(rtc, period_ticks);
        if (period != rtc->seen_period)
            rtc->cmos[REG_C] |= B_PERIODIC;
        rtc->seen_period = period;
    }
    if (!rtc_is_held(rtc)) {
        int64_t second = floor_div(rtc_now_ns(rtc), ns_per_second);
        if (second > rtc->seen_second) {
            rtc->cmos[REG_C] |= B_UPDATE;
            if (rtc_alarm_between(rtc, rtc->seen_second, second))
                rtc->cmos[REG_C] |= B_ALARM;
        }
        rtc->seen_second = second;
    }
    rtc_update_irq(rtc);
}

/* Wakes for the next event whose interrupt is enabled and not yet told; the alarm looks at each
 * second. */
static void rtc_arm(struct mc146818 *rtc)
{
    uint8_t wanted = rtc->cmos[REG_B] & (uint8_t)~rtc->cmos[REG_C];
    uint64_t deadline_ns = UINT64_MAX, period_ticks = rtc_period_ticks(rtc);
    if ((wanted & B_PERIODIC) && period_ticks)
        deadline_ns = rtc_period_ns(rtc->seen_period + 1, period_ticks);
    if ((wanted & (B_ALARM | B_UPDATE)) && !rtc_is_held(rtc)) {
        int64_t now_ns = rtc_now_ns(rtc);
        int64_t left_ns = (floor_div(now_ns, ns_per_second) + 1) * ns_per_second - now_ns;
        uint64_t at_ns = clock_now_ns(rtc->clock) + (uint64_t)left_ns + 1000;
        if (at_ns < deadline_ns)
            deadline_ns = at_ns;
    }
    if (deadline_ns == UINT64_MAX)
        clock_timer_cancel(rtc->timer);
    else
        clock_timer_arm(rtc->timer, deadline_ns);
}

static void rtc_on_timer(void *opaque)
{
    struct mc146818 *rtc = opaque;
    pthread_mutex_lock(&rtc->lock);
    rtc_advance(rtc);
    rtc_arm(rtc);
    pthread_mutex_unlock(&rtc->lock);
}

static uint8_t rtc_read_a(struct mc146818 *rtc)
{
    uint8_t value = rtc->cmos[REG_A];
    int64_t now_ns = rtc_now_ns(rtc);
    int64_t into_ns = now_ns - floor_div(now_ns, ns_per_second) * ns_per_second;
    if (!rtc_is_held(rtc) && into_ns >= ns_per_second - update_ns)
        value |= A_UIP;
    return value;
}

static uint8_t rtc_read_c(struct mc146818 *rtc)
{
    rtc_advance(rtc);
    uint8_t value = rtc->cmos[REG_C];
    rtc->cmos[REG_C] = 0;
    rtc_update_irq(rtc);
    rtc_arm(rtc);
    return value;
}

static uint8_t rtc_read_cmos(struct mc146818 *rtc, unsigned index)
{
    switch (index) {
    case SECONDS:
    case MINUTES:
    case HOURS:
    case WEEKDAY:
    case DAY:
    case MONTH:
    case YEAR:
    case CENTURY: rtc_show_time(rtc); return rtc->cmos[index];
    case REG_A: return rtc_read_a(rtc);
    case REG_C: return rtc_read_c(rtc);
    case REG_D: return D_VALID;
    default: return rtc->cmos[index];
    }
}

static int64_t rtc_fraction_ns(const struct mc146818 *rtc)
{
    int64_t now_ns = rtc_now_ns(rtc);
    return now_ns - floor_div(now_ns, ns_per_second) * ns_per_second;
}

/* After A or B changed. When the divider chain is let go, the next second is half of one away (data
 * sheet, "Divider control"). */
static void rtc_after_control(struct mc146818 *rtc, bool was_held, bool was_held_by_divider)
{
    bool starts = was_held_by_divider && (rtc->cmos[REG_A] & A_DIVIDER_RESET) != A_DIVIDER_RESET;
    if (starts)
        rtc->offset_ns += ns_per_second / 2 - rtc_fraction_ns(rtc);
    if (was_held && !rtc_is_held(rtc))
        rtc_set_time(rtc, rtc_fraction_ns(rtc));
    uint64_t period_ticks = rtc_period_ticks(rtc);
    if (period_ticks)
        rtc->seen_period = rtc_period_now(rtc, period_ticks);
}

static void rtc_write_control(struct mc146818 *rtc, unsigned index, uint8_t value)
{
    rtc_advance(rtc);
    rtc_show_time(rtc);
    bool was_held = rtc_is_held(rtc);
    bool by_divider = (rtc->cmos[REG_A] & A_DIVIDER_RESET) == A_DIVIDER_RESET;
    uint8_t old_rate = rtc->cmos[REG_A] & (A_RATE | A_DIVIDER);
    if (index == REG_A) {
        rtc->cmos[REG_A] = value & (A_DIVIDER | A_RATE);
    } else {
        if (value & B_SET)
            value &= (uint8_t)~B_UPDATE;
        rtc->cmos[REG_B] = value;
    }
    uint64_t seen_period = rtc->seen_period;
    rtc_after_control(rtc, was_held, by_divider);
    if ((rtc->cmos[REG_A] & (A_RATE | A_DIVIDER)) == old_rate)
        rtc->seen_period = seen_period;
    rtc_update_irq(rtc);
    rtc_arm(rtc);
}

static void rtc_write_cmos(struct mc146818 *rtc, unsigned index, uint8_t value)
{
    switch (index) {
    case SECONDS:
    case MINUTES:
    case HOURS:
    case WEEKDAY:
    case DAY:
    case MONTH:
    case YEAR:
    case CENTURY:
        rtc_advance(rtc);
        rtc_show_time(rtc);
        rtc->cmos[index] = value;
        if (!rtc_is_held(rtc))
            rtc_set_time(rtc, rtc_fraction_ns(rtc));
        break;
    case SECONDS_ALARM:
    case MINUTES_ALARM:
    case HOURS_ALARM:
        rtc_advance(rtc); /* what went by counts for the old alarm */
        rtc->cmos[index] = value;
        break;
    case REG_A:
    case REG_B: rtc_write_control(rtc, index, value); return;
    case REG_C:
    case REG_D: return; /* read-only */
    default: rtc->cmos[index] = value; return;
    }
    rtc_arm(rtc);
}

static uint8_t rtc_read_byte(void *opaque, unsigned offset)
{
    struct mc146818 *rtc = opaque;
    uint8_t value = 0xff; /* the first index is write-only */
    pthread_mutex_lock(&rtc->lock);
    if (offset == 1)
        value = rtc_read_cmos(rtc, rtc->index);
    else if (offset == 2)
        value = rtc->extended_index;
    else if (offset == 3)
        value = rtc->cmos[BANK_BYTES + rtc->extended_index];
    pthread_mutex_unlock(&rtc->lock);
    return value;
}

static void rtc_write_byte(void *opaque, unsigned offset, uint8_t value)
{
    struct mc146818 *rtc = opaque;
    pthread_mutex_lock(&rtc->lock);
    if (offset == 0)
        rtc->index = value % BANK_BYTES; /* bit 7 masks NMI, of which there is none */
    else if (offset == 1)
        rtc_write_cmos(rtc, rtc->index, value);
    else if (offset == 2)
        rtc->extended_index = value % BANK_BYTES;
    else
        rtc->cmos[BANK_BYTES + rtc->extended_index] = value;
    pthread_mutex_unlock(&rtc->lock);
}

static uint64_t rtc_read(void *rtc, uint64_t offset, unsigned size_bytes)
{
    return ports_read(rtc_read_byte, rtc, PORTS, offset, size_bytes);
}

static void rtc_write(void *rtc, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    ports_write(rtc_write_byte, rtc, PORTS, offset, value, size_bytes);
}

/* The sum over 0x10 to 0x2d, which firmware checks. */
static void rtc_sum(struct mc146818 *rtc)
{
    unsigned sum = 0;
    for (unsigned i = 0x10; i <= 0x2d; i++)
        sum += rtc->cmos[i];
    rtc->cmos[0x2e] = (uint8_t)(sum >> 8);
    rtc->cmos[0x2f] = (uint8_t)sum;
}

void mc146818_set_cmos(struct mc146818 *rtc, unsigned index, uint8_t value)
{
    if (index <= REG_D || index == CENTURY || index >= CMOS_BYTES)
        return;
    pthread_mutex_lock(&rtc->lock);
    rtc->cmos[index] = value;
    rtc_sum(rtc);
    pthread_mutex_unlock(&rtc->lock);
}

void mc146818_disconnect_irq(void *opaque, unsigned number, bool disconnected)
{
    struct mc146818 *rtc = opaque;
    pthread_mutex_lock(&rtc->lock);
    rtc->disconnected = disconnected;
    rtc_update_irq(rtc);
    pthread_mutex_unlock(&rtc->lock);
}

static void put_u16(uint8_t *at, uint64_t value)
{
    value = value < 0xffff ? value : 0xffff;
    at[0] = (uint8_t)value;
    at[1] = (uint8_t)(value >> 8);
}

/* Memory sizes where firmware looks for them. */
static void rtc_fill_memory(struct mc146818 *rtc)
{
    const uint64_t mib = 1 << 20;
    uint64_t low = rtc->config.low_memory_bytes;
    uint64_t above_1m_kib = low > mib ? (low - mib) / 1024 : 0;
    uint64_t above_16m = low > 16 * mib ? (low - 16 * mib) / 65536 : 0;
    uint64_t high = rtc->config.high_memory_bytes / 65536;
    uint8_t *cmos = rtc->cmos;
    put_u16(cmos + 0x15, low < 640 * 1024 ? low / 1024 : 640);
    put_u16(cmos + 0x17, above_1m_kib);
    put_u16(cmos + 0x30, above_1m_kib);
    put_u16(cmos + 0x34, above_16m);
    high = high < 0xffffff ? high : 0xffffff;
    cmos[0x5b] = (uint8_t)high;
    cmos[0x5c] = (uint8_t)(high >> 8);
    cmos[0x5d] = (uint8_t)(high >> 16);
    rtc_sum(rtc);
}

static void rtc_power_on(struct mc146818 *rtc)
{
    memset(rtc->cmos, 0, sizeof(rtc->cmos));
    rtc->cmos[REG_A] = 0x26; /* 32768 Hz, 1024 a second: what a PC's firmware leaves */
    rtc->cmos[REG_B] = B_24_HOURS;
    rtc->index = rtc->extended_index = 0;
    rtc->offset_ns = rtc->config.utc_offset_s * ns_per_second;
    rtc->weekday_shift = 0;
    rtc->seen_second = floor_div(rtc_now_ns(rtc), ns_per_second);
    rtc->seen_period = rtc_period_now(rtc, rtc_period_ticks(rtc));
    rtc->irq = false;
    clock_timer_cancel(rtc->timer);
    irq_set(&rtc->config.irq, false);
    rtc_fill_memory(rtc);
}

static void rtc_free(struct mc146818 *rtc)
{
    if (rtc->timer)
        clock_timer_close(rtc->timer);
    pthread_mutex_destroy(&rtc->lock);
    free(rtc);
}

struct mc146818 *mc146818_create(const struct mc146818_config *config, struct bus *bus,
                                 struct clock *clock, struct error *err)
{
    struct mc146818 *rtc = calloc(1, sizeof(*rtc));
    if (!rtc) {
        error_set(err, "cannot create device", "mc146818", "out of memory");
        return NULL;
    }
    rtc->config = *config;
    rtc->bus = bus;
    rtc->clock = clock;
    pthread_mutex_init(&rtc->lock, NULL);
    rtc->timer = clock_timer_open(clock, rtc_on_timer, rtc);
    if (!rtc->timer) {
        error_set(err, "cannot create device", "mc146818", "out of memory");
        rtc_free(rtc);
        return NULL;
    }
    rtc_power_on(rtc);
    rtc->range =
        (struct bus_range){"mc146818", BUS_PORT, config->base, PORTS, rtc_read, rtc_write, rtc};
    if (!bus_map(bus, &rtc->range, err)) {
        rtc_free(rtc);
        return NULL;
    }
    return rtc;
}

/* The reset pin clears the enables and the flags; time and memory stay. */
static void mc146818_reset(void *device)
{
    struct mc146818 *rtc = device;
    pthread_mutex_lock(&rtc->lock);
    rtc->cmos[REG_B] &= B_SET | B_BINARY | B_24_HOURS | 1;
    rtc->cmos[REG_C] = 0;
    rtc->index = rtc->extended_index = 0;
    rtc->disconnected = false;
    rtc_update_irq(rtc);
    irq_set(&rtc->config.irq, false);
    rtc_arm(rtc);
    pthread_mutex_unlock(&rtc->lock);
}

static void mc146818_save(void *device, struct save *save)
{
    struct mc146818 *rtc = device;
    pthread_mutex_lock(&rtc->lock);
    save_bytes(save, rtc->cmos, sizeof(rtc->cmos));
    save_u8(save, rtc->index);
    save_u8(save, rtc->extended_index);
    save_u64(save, (uint64_t)rtc->offset_ns);
    save_u8(save, rtc->weekday_shift);
    save_u64(save, (uint64_t)rtc->seen_second);
    save_u64(save, rtc->seen_period);
    save_bool(save, rtc->irq);
    save_bool(save, rtc->disconnected);
    pthread_mutex_unlock(&rtc->lock);
}

static bool mc146818_load(void *device, struct load *load, uint32_t version)
{
    struct mc146818 *rtc = device;
    uint8_t cmos[CMOS_BYTES];
    load_bytes(load, cmos, sizeof(cmos));
    uint8_t index = load_u8(load), extended_index = load_u8(load);
    int64_t offset_ns = (int64_t)load_u64(load);
    uint8_t weekday_shift = load_u8(load);
    int64_t seen_second = (int64_t)load_u64(load);
    uint64_t seen_period = load_u64(load);
    bool irq = load_bool(load), disconnected = load_bool(load);
    const int64_t max_second = max_offset_ns / ns_per_second * 2;
    if (index >= BANK_BYTES || extended_index >= BANK_BYTES || weekday_shift > 6 ||
        offset_ns > max_offset_ns || offset_ns < -max_offset_ns || seen_second > max_second ||
        seen_second < -max_second || (cmos[REG_A] & A_UIP))
        load_fail(load);
    bool ok = version == mc146818_ops.version && !load->failed;
    pthread_mutex_lock(&rtc->lock);
    if (ok) {
        memcpy(rtc->cmos, cmos, sizeof(cmos));
        rtc->index = index;
        rtc->extended_index = extended_index;
        rtc->offset_ns = offset_ns;
        rtc->weekday_shift = weekday_shift;
        rtc->seen_second = seen_second;
        rtc->seen_period = seen_period;
        rtc->irq = irq; /* who receives the line saves its level */
        rtc->disconnected = disconnected;
        rtc_arm(rtc);
    } else {
        rtc_power_on(rtc);
    }
    pthread_mutex_unlock(&rtc->lock);
    return ok;
}

static void mc146818_destroy(void *device)
{
    struct mc146818 *rtc = device;
    bus_unmap(rtc->bus, BUS_PORT, rtc->config.base);
    rtc_free(rtc);
}

const struct device_ops mc146818_ops = {
    .name = "mc146818",
    .version = 1,
    .reset = mc146818_reset,
    .save = mc146818_save,
    .load = mc146818_load,
    .destroy = mc146818_destroy,
};
