/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The save/load stream: named, versioned sections of little-endian values. A writer grows a buffer
 * in memory; a reader walks one that is not trusted. Both keep their first failure and then do
 * nothing more (a reader gives zeroes), so that callers check once at the end.
 */
#ifndef SKEP_BUS_STREAM_H
#define SKEP_BUS_STREAM_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct save {
    uint8_t *bytes; /* malloc'ed; save_free() frees it */
    size_t size_bytes;
    size_t capacity_bytes;
    size_t section_start; /* where the open section's length goes; 0 when none is open */
    bool failed;          /* out of memory */
};

void save_free(struct save *save);
void save_begin(struct save *save, const char *name, uint32_t version); /* name: 1–31 bytes */
void save_end(struct save *save);
void save_u8(struct save *save, uint8_t value);
void save_u16(struct save *save, uint16_t value);
void save_u32(struct save *save, uint32_t value);
void save_u64(struct save *save, uint64_t value);
void save_bool(struct save *save, bool value);
void save_bytes(struct save *save, const void *bytes, size_t size_bytes); /* length is not stored */

struct load {
    const uint8_t *bytes; /* the caller's */
    size_t size_bytes;
    size_t offset;
    size_t section_end;
    bool failed;
};

void load_init(struct load *load, const void *bytes, size_t size_bytes);
/* Opens the next section, which must have this name; gives its version. False and failed if not. */
bool load_begin(struct load *load, const char *name, uint32_t *version);
/* Closes the section; what is left of it unread is a failure. */
bool load_end(struct load *load);
uint8_t load_u8(struct load *load);
uint16_t load_u16(struct load *load);
uint32_t load_u32(struct load *load);
uint64_t load_u64(struct load *load);
bool load_bool(struct load *load); /* any value but 0 and 1 fails */
void load_bytes(struct load *load, void *bytes, size_t size_bytes);
/* For values outside their range: marks the stream as failed. */
void load_fail(struct load *load);

#endif
