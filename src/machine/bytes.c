/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A growing buffer of little-endian values. Runs on whichever thread owns the buffer.
 */
#include "machine/bytes.h"

#include <assert.h>
#include <endian.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_CAPACITY_BYTES = 1024 };

void bytes_free(struct bytes *bytes)
{
    free(bytes->data);
    *bytes = (struct bytes){0};
}

static bool reserve(struct bytes *bytes, size_t more_bytes)
{
    if (bytes->failed)
        return false;
    size_t wanted = bytes->size_bytes + more_bytes;
    if (wanted < more_bytes) {
        bytes->failed = true;
        return false;
    }
    if (wanted <= bytes->capacity_bytes)
        return true;
    size_t capacity = bytes->capacity_bytes ? bytes->capacity_bytes : FIRST_CAPACITY_BYTES;
    while (capacity < wanted && capacity <= SIZE_MAX / 2)
        capacity *= 2;
    uint8_t *data = capacity < wanted ? NULL : realloc(bytes->data, capacity);
    if (!data) {
        bytes->failed = true;
        return false;
    }
    bytes->data = data;
    bytes->capacity_bytes = capacity;
    return true;
}

void bytes_put(struct bytes *bytes, const void *data, size_t size_bytes)
{
    if (!size_bytes || !reserve(bytes, size_bytes))
        return;
    memcpy(bytes->data + bytes->size_bytes, data, size_bytes);
    bytes->size_bytes += size_bytes;
}

void bytes_zero(struct bytes *bytes, size_t size_bytes)
{
    if (!size_bytes || !reserve(bytes, size_bytes))
        return;
    memset(bytes->data + bytes->size_bytes, 0, size_bytes);
    bytes->size_bytes += size_bytes;
}

void bytes_u8(struct bytes *bytes, uint8_t value)
{
    bytes_put(bytes, &value, sizeof(value));
}

void bytes_u16(struct bytes *bytes, uint16_t value)
{
    value = htole16(value);
    bytes_put(bytes, &value, sizeof(value));
}

void bytes_u32(struct bytes *bytes, uint32_t value)
{
    value = htole32(value);
    bytes_put(bytes, &value, sizeof(value));
}

void bytes_u64(struct bytes *bytes, uint64_t value)
{
    value = htole64(value);
    bytes_put(bytes, &value, sizeof(value));
}

void bytes_text(struct bytes *bytes, const char *text, size_t size_bytes, char fill)
{
    size_t length = strnlen(text, size_bytes);
    bytes_put(bytes, text, length);
    for (size_t i = length; i < size_bytes; i++)
        bytes_u8(bytes, (uint8_t)fill);
}

void bytes_align(struct bytes *bytes, size_t alignment)
{
    bytes_zero(bytes, -bytes->size_bytes & (alignment - 1));
}

void bytes_insert(struct bytes *bytes, size_t offset, const void *data, size_t size_bytes)
{
    if (!size_bytes || !reserve(bytes, size_bytes))
        return;
    assert(offset <= bytes->size_bytes);
    memmove(bytes->data + offset + size_bytes, bytes->data + offset, bytes->size_bytes - offset);
    memcpy(bytes->data + offset, data, size_bytes);
    bytes->size_bytes += size_bytes;
}

static uint8_t *at(struct bytes *bytes, size_t offset, size_t size_bytes)
{
    if (bytes->failed)
        return NULL;
    assert(offset <= bytes->size_bytes && size_bytes <= bytes->size_bytes - offset);
    return bytes->data + offset;
}

void bytes_set_u8(struct bytes *bytes, size_t offset, uint8_t value)
{
    uint8_t *field = at(bytes, offset, sizeof(value));
    if (field)
        *field = value;
}

void bytes_set_u32(struct bytes *bytes, size_t offset, uint32_t value)
{
    uint8_t *field = at(bytes, offset, sizeof(value));
    if (field)
        le32_put(field, value);
}

void bytes_set_u64(struct bytes *bytes, size_t offset, uint64_t value)
{
    uint8_t *field = at(bytes, offset, sizeof(value));
    if (field)
        le64_put(field, value);
}

uint8_t bytes_checksum(const void *data, size_t size_bytes)
{
    const uint8_t *bytes = data;
    unsigned sum = 0;
    for (size_t i = 0; i < size_bytes; i++)
        sum += bytes[i];
    return (uint8_t)(0 - sum);
}

uint16_t le16_get(const void *field)
{
    uint16_t value;
    memcpy(&value, field, sizeof(value));
    return le16toh(value);
}

uint32_t le32_get(const void *field)
{
    uint32_t value;
    memcpy(&value, field, sizeof(value));
    return le32toh(value);
}

uint64_t le64_get(const void *field)
{
    uint64_t value;
    memcpy(&value, field, sizeof(value));
    return le64toh(value);
}

void le16_put(void *field, uint16_t value)
{
    value = htole16(value);
    memcpy(field, &value, sizeof(value));
}

void le32_put(void *field, uint32_t value)
{
    value = htole32(value);
    memcpy(field, &value, sizeof(value));
}

void le64_put(void *field, uint64_t value)
{
    value = htole64(value);
    memcpy(field, &value, sizeof(value));
}
