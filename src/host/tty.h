/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The terminal (standard input and output) as a character back end.
 *
 * When both are terminals the input is in raw mode: each key goes to the guest, and Ctrl-] opens an
 * escape: the key after it goes to the callback (Ctrl-] itself goes to the guest). Otherwise
 * nothing is changed: bytes and lines as they come, no escape; the end of the input is the end of
 * input and of nothing else.
 */
#ifndef SKEP_HOST_TTY_H
#define SKEP_HOST_TTY_H

#include "base/error.h"
#include "base/loop.h"
#include "bus/char.h"

#include <stdbool.h>

enum { TTY_ESCAPE = 0x1d }; /* Ctrl-] */

struct tty;

struct tty_config {
    int in_fd, out_fd; /* stay the caller's */
    /* The key after Ctrl-], on the loop's thread; it must not close the terminal there and then.
     * May be NULL: there is no escape then. */
    void (*escape)(void *opaque, char key);
    void *opaque;
};

/* Fills `out`; its close() restores the terminal and frees. */
struct tty *tty_open(const struct tty_config *config, struct loop *loop, struct char_backend *out,
                     struct error *err);

bool tty_is_raw(const struct tty *tty);

/* Gives the terminal back as it was. Safe in a signal handler and on any thread. */
void tty_restore(const struct tty *tty);

/* Raw mode again, after tty_restore() or when the process goes on after it was stopped. */
void tty_resume(const struct tty *tty);

/* Writes text for the person, between what the guest writes; newlines become what the mode needs.
 */
void tty_print(struct tty *tty, const char *text);

/* The size of the window; false when there is none. */
bool tty_size(const struct tty *tty, unsigned *columns, unsigned *rows);

#endif
