/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A file that a machine boots from. It stays open, so that a reboot finds the same file even when
 * its name has been given to another, and is read straight into guest memory, so that no copy of
 * it is kept. What is no regular file (a pipe) is read once and held.
 */
#ifndef SKEP_MACHINE_BOOT_FILE_H
#define SKEP_MACHINE_BOOT_FILE_H

#include "base/error.h"
#include "bus/ram.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct boot_file;

/* Opens the file at `path`; `what` names its part ("kernel", "initrd") in messages and is static
 * text. Fails when it can't be read, is a directory or is empty. */
struct boot_file *boot_file_open(const char *what, const char *path, struct error *err);

/* A regular file that is open already: `fd` is given away; `path` is for messages. */
struct boot_file *boot_file_take(const char *what, const char *path, int fd, struct error *err);

/* A file that is in memory; `bytes` stay the caller's. NULL when out of memory. */
struct boot_file *boot_file_memory(const char *what, const void *bytes, size_t size_bytes);

void boot_file_close(struct boot_file *file); /* NULL is fine */

const char *boot_file_path(const struct boot_file *file);
uint64_t boot_file_size_bytes(const struct boot_file *file);

/* All of the range or failure. */
bool boot_file_read(const struct boot_file *file, uint64_t offset, void *buffer, size_t size_bytes,
                    struct error *err);

/* The same into guest memory, which must be RAM there. size 0 is fine. */
bool boot_file_load(const struct boot_file *file, uint64_t offset, uint64_t size_bytes,
                    struct ram *ram, uint64_t gpa, struct error *err);

#endif
