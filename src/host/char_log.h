/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A character back end whose output also goes to a file, behind what that has. What the file does
 * not take, on a full disk, is missing there and nowhere else.
 */
#ifndef SKEP_HOST_CHAR_LOG_H
#define SKEP_HOST_CHAR_LOG_H

#include "base/error.h"
#include "bus/char.h"

/* Puts itself before `backend`, and closes it with itself. False: the file can't be opened, and
 * `backend` is as it was. */
bool char_log_open(struct char_backend *backend, const char *path, struct error *err);

#endif
