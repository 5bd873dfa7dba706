/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Locks of the open file description (fcntl F_OFD_SETLK) on a whole file, against a disk image
 * being used twice, by skep or by QEMU, whose locks are of the same kind.
 */
#ifndef SKEP_HOST_FILE_LOCK_H
#define SKEP_HOST_FILE_LOCK_H

#include <stdbool.h>
#include <stddef.h>

enum file_lock_result { FILE_LOCK_TAKEN, FILE_LOCK_BUSY, FILE_LOCK_UNSUPPORTED };

/* Takes an exclusive or a shared lock, which ends when the last copy of `fd` is closed. */
enum file_lock_result file_lock(int fd, bool exclusive);

/* Says who holds a lock on the file of `fd`: "process 123 (qemu-system-x86)"; false when nobody is
 * found, as with a process of another user. */
bool file_lock_holder(int fd, char *text, size_t size_bytes);

#endif
