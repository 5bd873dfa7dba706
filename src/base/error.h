/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What went wrong: what was attempted, on which object, why it failed, and what to do next.
 * Libraries fill one of these and return false or NULL; only cli/ prints it, as
 *
 *     skep: WHAT WHERE: CAUSE
 *     hint: HINT
 */
#ifndef SKEP_BASE_ERROR_H
#define SKEP_BASE_ERROR_H

#include <stdbool.h>

enum error_kind {
    ERROR_NONE,
    ERROR_FAILED, /* the attempt failed: exit code 1 */
    ERROR_USAGE,  /* the request itself is wrong: exit code 2 */
};

struct error {
    enum error_kind kind;
    char what[160];  /* the attempt: "cannot open disk image" */
    char where[256]; /* the object: "/dev/kvm"; may be empty */
    char cause[256]; /* why: "Permission denied" */
    char hint[256];  /* what to do next; may be empty */
};

/* Fills `err` (which may be NULL) and returns false, so that a caller can `return error_set(...)`.
 * `what` and `where` are copied, `where` may be NULL; the cause is formatted. Clears the hint. */
bool error_set(struct error *err, const char *what, const char *where, const char *cause, ...)
    __attribute__((format(printf, 4, 5)));

/* The same with kind ERROR_USAGE. */
bool error_usage(struct error *err, const char *what, const char *where, const char *cause, ...)
    __attribute__((format(printf, 4, 5)));

/* The same with strerror(errno_value) as cause. */
bool error_errno(struct error *err, const char *what, const char *where, int errno_value);

/* Sets the hint of an error that is already filled; returns false. `err` may be NULL. */
bool error_hint(struct error *err, const char *hint, ...) __attribute__((format(printf, 2, 3)));

#endif
