/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The save/load stream. A section is
 *
 *     name     32 bytes, filled up with zeroes, the last always zero
 *     version  u32
 *     length   u64, of the values that follow
 *     values   little-endian, without padding
 *
 * and sections follow each other with nothing between. One thread at a time. */
#include "bus/stream.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_BYTES = 32, LENGTH_BYTES = 8, FIRST_CAPACITY_BYTES = 4096 };

void save_free(struct save *save)
{
    free(save->bytes);
    *save = (struct save){0};
}

/* Room for `size_bytes` more at the end, or NULL and failed. */
static uint8_t *save_extend(struct save *save, size_t size_bytes)
{
    if (save->failed)
        return NULL;
    size_t needed;
    if (__builtin_add_overflow(save->size_bytes, size_bytes, &needed)) {
        save->failed = true;
        return NULL;
    }
    if (needed > save->capacity_bytes) {
        size_t capacity = save->capacity_bytes ? save->capacity_bytes : FIRST_CAPACITY_BYTES;
        while (capacity < needed)
            capacity = capacity > SIZE_MAX / 2 ? needed : capacity * 2;
        uint8_t *bytes = realloc(save->bytes, capacity);
        if (!bytes) {
            save->failed = true;
            return NULL;
        }
        save->bytes = bytes;
        save->capacity_bytes = capacity;
    }
    uint8_t *room = save->bytes + save->size_bytes;
    save->size_bytes = needed;
    return room;
}

static void put_little(uint8_t *bytes, uint64_t value, unsigned size_bytes)
{
    for (unsigned i = 0; i < size_bytes; i++)
        bytes[i] = (uint8_t)(value >> (8 * i));
}

static uint64_t get_little(const uint8_t *bytes, unsigned size_bytes)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < size_bytes; i++)
        value |= (uint64_t)bytes[i] << (8 * i);
    return value;
}

static void save_number(struct save *save, uint64_t value, unsigned size_bytes)
{
    uint8_t *room = save_extend(save, size_bytes);
    if (room)
        put_little(room, value, size_bytes);
}

void save_begin(struct save *save, const char *name, uint32_t version)
{
    size_t name_bytes = strlen(name);
    assert(name_bytes >= 1 && name_bytes < NAME_BYTES);
    assert(save->failed || save->section_start == 0);
    uint8_t *room = save_extend(save, NAME_BYTES);
    if (room) {
        memset(room, 0, NAME_BYTES);
        memcpy(room, name, name_bytes);
    }
    save_u32(save, version);
    save->section_start = save->size_bytes;
    save_u64(save, 0);
}

void save_end(struct save *save)
{
    if (save->failed)
        return;
    assert(save->section_start != 0);
    size_t values = save->section_start + LENGTH_BYTES;
    put_little(save->bytes + save->section_start, save->size_bytes - values, LENGTH_BYTES);
    save->section_start = 0;
}

void save_u8(struct save *save, uint8_t value)
{
    save_number(save, value, 1);
}

void save_u16(struct save *save, uint16_t value)
{
    save_number(save, value, 2);
}

void save_u32(struct save *save, uint32_t value)
{
    save_number(save, value, 4);
}

void save_u64(struct save *save, uint64_t value)
{
    save_number(save, value, 8);
}

void save_bool(struct save *save, bool value)
{
    save_number(save, value ? 1 : 0, 1);
}

void save_bytes(struct save *save, const void *bytes, size_t size_bytes)
{
    if (size_bytes == 0)
        return;
    uint8_t *room = save_extend(save, size_bytes);
    if (room)
        memcpy(room, bytes, size_bytes);
}

void load_init(struct load *load, const void *bytes, size_t size_bytes)
{
    *load = (struct load){.bytes = bytes, .size_bytes = size_bytes};
}

void load_fail(struct load *load)
{
    load->failed = true;
}

/* The next bytes before `end`, or NULL and failed when there are not as many. */
static const uint8_t *load_take(struct load *load, size_t size_bytes, size_t end)
{
    if (load->failed || size_bytes > end - load->offset) {
        load->failed = true;
        return NULL;
    }
    const uint8_t *bytes = load->bytes + load->offset;
    load->offset += size_bytes;
    return bytes;
}

bool load_begin(struct load *load, const char *name, uint32_t *version)
{
    const unsigned header_bytes = NAME_BYTES + 4 + LENGTH_BYTES;
    char expected[NAME_BYTES] = {0};
    size_t name_bytes = strlen(name);
    assert(name_bytes >= 1 && name_bytes < NAME_BYTES);
    memcpy(expected, name, name_bytes);
    *version = 0;
    if (load->offset < load->section_end) /* the last section was not read to its end */
        load->failed = true;
    const uint8_t *header = load_take(load, header_bytes, load->size_bytes);
    if (!header)
        return false;
    uint64_t length = get_little(header + NAME_BYTES + 4, LENGTH_BYTES);
    if (memcmp(header, expected, NAME_BYTES) != 0 || length > load->size_bytes - load->offset) {
        load->failed = true;
        return false;
    }
    *version = (uint32_t)get_little(header + NAME_BYTES, 4);
    load->section_end = load->offset + (size_t)length;
    return true;
}

bool load_end(struct load *load)
{
    if (load->offset != load->section_end)
        load->failed = true;
    return !load->failed;
}

static uint64_t load_number(struct load *load, unsigned size_bytes)
{
    /* With no section open section_end is where the last one ended: nothing can be taken. */
    const uint8_t *bytes = load_take(load, size_bytes, load->section_end);
    return bytes ? get_little(bytes, size_bytes) : 0;
}

uint8_t load_u8(struct load *load)
{
    return (uint8_t)load_number(load, 1);
}

uint16_t load_u16(struct load *load)
{
    return (uint16_t)load_number(load, 2);
}

uint32_t load_u32(struct load *load)
{
    return (uint32_t)load_number(load, 4);
}

uint64_t load_u64(struct load *load)
{
    return load_number(load, 8);
}

bool load_bool(struct load *load)
{
    uint8_t value = load_u8(load);
    if (value > 1)
        load->failed = true;
    return value == 1;
}

void load_bytes(struct load *load, void *bytes, size_t size_bytes)
{
    if (size_bytes == 0)
        return;
    const uint8_t *source = load_take(load, size_bytes, load->section_end);
    if (source)
        memcpy(bytes, source, size_bytes);
    else
        memset(bytes, 0, size_bytes);
}
