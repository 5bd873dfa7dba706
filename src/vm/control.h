/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The control socket of a running machine: a Unix socket for its user alone, on which commands come
 * as JSON, one object a line. docs/control.md describes it. On the loop's thread.
 */
#ifndef SKEP_VM_CONTROL_H
#define SKEP_VM_CONTROL_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>

struct control;
struct vm;

enum { CONTROL_PATH_BYTES = 108 /* what a Unix socket's address holds */ };

/* Where the socket of `target` is: "unix:PATH", or a path with a '/' in it, or the name of a
 * machine, whose socket is in the user's runtime folder (which is made with `makes_folder`). */
bool control_path(const char *target, bool makes_folder, char path[CONTROL_PATH_BYTES],
                  struct error *err);

/* Listens. `vm` must outlive it. NULL: `err` tells why. */
struct control *control_open(struct vm *vm, const char *target, struct error *err);
void control_close(struct control *control); /* NULL is fine; removes the socket */

#endif
