/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A person's typing in slow motion: keys go down and up one after another, with pauses in which a
 * guest takes them, since a PC's keyboard holds only a few. On the loop's thread.
 */
#ifndef SKEP_VM_TYPING_H
#define SKEP_VM_TYPING_H

#include "base/error.h"
#include "base/loop.h"
#include "machine/machine.h"

#include <stdbool.h>

struct typing;

/* `loop` and `machine` must outlive it. NULL: out of memory. */
struct typing *typing_create(struct loop *loop, struct machine *machine, struct error *err);
void typing_destroy(struct typing *typing); /* NULL is fine */

/* Each of these adds to what is to be typed, all of it or, on failure, nothing. */
/* Text on a US keyboard, with \n, \t, \b and ESC. */
bool typing_text(struct typing *typing, const char *text, struct error *err);
/* Keys that are held down together, as "ctrl-alt-f2"; their names are host/keys.h's. */
bool typing_chord(struct typing *typing, const char *chord, struct error *err);

/* How many milliseconds it will take until all is typed. */
unsigned typing_left_ms(const struct typing *typing);

#endif
