/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A growing buffer of little-endian values, for what the board puts into guest memory: ACPI,
 * SMBIOS, boot parameters. It keeps its first failure (out of memory), so that callers check once
 * at the end. Zero-initialised is empty.
 */
#ifndef SKEP_MACHINE_BYTES_H
#define SKEP_MACHINE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bytes {
    uint8_t *data; /* malloc'ed; bytes_free() frees it */
    size_t size_bytes;
    size_t capacity_bytes;
    bool failed;
};

void bytes_free(struct bytes *bytes);
void bytes_put(struct bytes *bytes, const void *data, size_t size_bytes);
void bytes_zero(struct bytes *bytes, size_t size_bytes);
void bytes_u8(struct bytes *bytes, uint8_t value);
void bytes_u16(struct bytes *bytes, uint16_t value);
void bytes_u32(struct bytes *bytes, uint32_t value);
void bytes_u64(struct bytes *bytes, uint64_t value);

/* The text in a field of `size_bytes`, cut or filled up with `fill`; no terminating zero. */
void bytes_text(struct bytes *bytes, const char *text, size_t size_bytes, char fill);

/* Zeroes up to the next multiple of `alignment` (a power of two). */
void bytes_align(struct bytes *bytes, size_t alignment);

/* Moves what follows `offset` up by the size of `data` and puts it there. */
void bytes_insert(struct bytes *bytes, size_t offset, const void *data, size_t size_bytes);

/* Overwrites bytes that are there already; nothing happens after a failure. */
void bytes_set_u8(struct bytes *bytes, size_t offset, uint8_t value);
void bytes_set_u32(struct bytes *bytes, size_t offset, uint32_t value);
void bytes_set_u64(struct bytes *bytes, size_t offset, uint64_t value);

/* What must be added to the sum of the bytes to make it 0 (ACPI, SMBIOS, $PIR checksums). */
uint8_t bytes_checksum(const void *data, size_t size_bytes);

/* Little-endian fields in plain memory, of any alignment. */
uint16_t le16_get(const void *at);
uint32_t le32_get(const void *at);
uint64_t le64_get(const void *at);
void le16_put(void *at, uint16_t value);
void le32_put(void *at, uint32_t value);
void le64_put(void *at, uint64_t value);

#endif
