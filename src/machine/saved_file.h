/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The file of a saved machine: what is in it and where, without knowing what its state means.
 * docs/snapshot.md describes the format. Nothing in a file is trusted: each byte of it is under a
 * checksum, and all are checked before any is used.
 */
#ifndef SKEP_MACHINE_SAVED_FILE_H
#define SKEP_MACHINE_SAVED_FILE_H

#include "base/error.h"
#include "bus/ram.h"
#include "bus/stream.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct saved_file {
    int fd;
    const char *path; /* the caller's */
    uint8_t *state;   /* sections of bus/stream.h */
    size_t state_bytes;
    uint64_t memory_offset, memory_bytes; /* RAM as ram_bytes() has it; holes are zeroes */
    uint8_t *sums;                        /* CRC-32C of each page of memory, u32 little-endian */
};

typedef void saved_file_progress_fn(void *opaque, uint64_t done_bytes, uint64_t total_bytes);

struct saved_file_contents {
    const struct save *state;
    const struct ram *ram;
    saved_file_progress_fn *progress; /* may be NULL */
    void *opaque;
};

/* Writes to a temporary name beside `path`, on to the disk, and renames: `path` is what it was or
 * complete. */
bool saved_file_write(const char *path, const struct saved_file_contents *contents,
                      struct error *err);

/* Whether that has a chance; it is asked anyhow, here before there is anything to lose. The folder
 * may be gone, or its disk full, by the time it matters. */
bool saved_file_check_place(const char *path, struct error *err);

/* Opens and checks all but the memory. After a failure nothing is open. */
bool saved_file_open(struct saved_file *file, const char *path, struct error *err);

/* Checks the memory, which is mapped at `memory`: the mapping's pages are then there. */
bool saved_file_check_memory(const struct saved_file *file, const uint8_t *memory,
                             struct error *err);
void saved_file_close(struct saved_file *file);

#endif
