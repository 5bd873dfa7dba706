/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Log lines go to a sink that the program supplies; libraries hold a `struct log *` and never
 * print. What a guest can provoke is logged through a limit, so that it cannot flood the sink.
 * Any thread may log.
 */
#ifndef SKEP_BASE_LOG_H
#define SKEP_BASE_LOG_H

#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>

enum log_level { LOG_ERROR, LOG_WARNING, LOG_INFO, LOG_DEBUG };

struct log {
    enum log_level level; /* lines above this level are dropped */
    void (*write)(void *opaque, enum log_level level, const char *module, const char *text);
    void *opaque;
};

/* A budget of lines: ten at once, then one a second. Zero-initialised is full. Embed one in each
 * object that a guest can make complain. */
struct log_limit {
    _Atomic uint64_t window_start_ns;
    _Atomic uint32_t used;
    _Atomic uint32_t dropped;
};

/* Formats one line (no newline) of at most 511 bytes. `log` may be NULL: then nothing happens. */
void log_write(const struct log *log, enum log_level level, const char *module, const char *format,
               ...) __attribute__((format(printf, 4, 5)));

/* The same, unless `limit` is used up; lines dropped so are counted and told with the next one. */
void log_limited(const struct log *log, struct log_limit *limit, enum log_level level,
                 const char *module, const char *format, ...) __attribute__((format(printf, 5, 6)));

#endif
