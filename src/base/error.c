/* SPDX-License-Identifier: BSD-2-Clause
 * Filling an error. Text that does not fit is cut; nothing here allocates or fails. */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void fill(struct error *err, enum error_kind kind, const char *what, const char *where,
                 const char *cause, va_list args)
{
    err->kind = kind;
    snprintf(err->what, sizeof(err->what), "%s", what);
    snprintf(err->where, sizeof(err->where), "%s", where ? where : "");
    vsnprintf(err->cause, sizeof(err->cause), cause, args);
    err->hint[0] = '\0';
}

bool error_set(struct error *err, const char *what, const char *where, const char *cause, ...)
{
    if (err) {
        va_list args;
        va_start(args, cause);
        fill(err, ERROR_FAILED, what, where, cause, args);
        va_end(args);
    }
    return false;
}

bool error_usage(struct error *err, const char *what, const char *where, const char *cause, ...)
{
    if (err) {
        va_list args;
        va_start(args, cause);
        fill(err, ERROR_USAGE, what, where, cause, args);
        va_end(args);
    }
    return false;
}

bool error_errno(struct error *err, const char *what, const char *where, int errno_value)
{
    return error_set(err, what, where, "%s", strerror(errno_value));
}

bool error_hint(struct error *err, const char *hint, ...)
{
    if (err) {
        va_list args;
        va_start(args, hint);
        vsnprintf(err->hint, sizeof(err->hint), hint, args);
        va_end(args);
    }
    return false;
}
