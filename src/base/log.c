/* SPDX-License-Identifier: BSD-2-Clause
 * Log lines and their rate limit. */
#include "base/log.h"

#include <stdbool.h>
#include <stdio.h>
#include <time.h>

enum { LINE_BYTES = 512, BURST_LINES = 10 };
static const uint64_t window_ns = 10000000000;

static void write_line(const struct log *log, enum log_level level, const char *module,
                       const char *format, va_list args)
{
    char line[LINE_BYTES];
    vsnprintf(line, sizeof(line), format, args);
    log->write(log->opaque, level, module, line);
}

void log_write(const struct log *log, enum log_level level, const char *module, const char *format,
               ...)
{
    if (!log || !log->write || level > log->level)
        return;
    va_list args;
    va_start(args, format);
    write_line(log, level, module, format, args);
    va_end(args);
}

static uint64_t monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* A window holds BURST_LINES lines; two threads that open a window at once may let a few more
 * through, which does no harm. */
static bool limit_take(struct log_limit *limit)
{
    uint64_t now = monotonic_ns();
    uint64_t start = atomic_load(&limit->window_start_ns);
    if (start == 0 || now - start > window_ns) {
        if (atomic_compare_exchange_strong(&limit->window_start_ns, &start, now))
            atomic_store(&limit->used, 0);
    }
    if (atomic_fetch_add(&limit->used, 1) < BURST_LINES)
        return true;
    atomic_fetch_add(&limit->dropped, 1);
    return false;
}

void log_limited(const struct log *log, struct log_limit *limit, enum log_level level,
                 const char *module, const char *format, ...)
{
    if (!log || !log->write || level > log->level || !limit_take(limit))
        return;
    uint32_t dropped = atomic_exchange(&limit->dropped, 0);
    if (dropped)
        log_write(log, level, module, "(%u lines like the next were left out)", dropped);
    va_list args;
    va_start(args, format);
    write_line(log, level, module, format, args);
    va_end(args);
}
