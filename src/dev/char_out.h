/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Bytes from a device that knows no flow control to a character back end: what the back end does
 * not take waits in a queue, and when that is full bytes are lost, with a log line. Part of the
 * debug console, the parallel port and the POST port.
 */
#ifndef SKEP_DEV_CHAR_OUT_H
#define SKEP_DEV_CHAR_OUT_H

#include "base/error.h"
#include "base/log.h"
#include "bus/char.h"

#include <stdint.h>

struct char_out;

/* `name` is static text, for messages. `backend` is the caller's, must outlive this, and gets its
 * handler from here; NULL: bytes are dropped. `log` may be NULL. NULL: out of memory, told in
 * `err`. */
struct char_out *char_out_open(const char *name, const struct char_backend *backend,
                               const struct log *log, struct error *err);

void char_out_put(struct char_out *out, uint8_t byte); /* any thread */

/* On the loop's thread; NULL is fine. */
void char_out_close(struct char_out *out);

#endif
