/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Composes AML: ACPI 6.4, 20.2 (grammar) and 6.4 (resource descriptors). Runs on the machine's
 * thread.
 */
#include "machine/aml.h"

#include <assert.h>
#include <string.h>

enum {
    OP_ZERO = 0x00,
    OP_ONE = 0x01,
    OP_NAME = 0x08,
    OP_BYTE = 0x0a,
    OP_WORD = 0x0b,
    OP_DWORD = 0x0c,
    OP_STRING = 0x0d,
    OP_QWORD = 0x0e,
    OP_SCOPE = 0x10,
    OP_BUFFER = 0x11,
    OP_PACKAGE = 0x12,
    OP_METHOD = 0x14,
    PREFIX_DUAL = 0x2e,
    PREFIX_MULTI = 0x2f,
    OP_EXTENDED = 0x5b,
    OP_ARG0 = 0x68,
    OP_AND = 0x7b,
    OP_OR = 0x7d,
    OP_CREATE_DWORD_FIELD = 0x8a,
    OP_EQUAL = 0x93,
    OP_IF = 0xa0,
    OP_ELSE = 0xa1,
    OP_RETURN = 0xa4,
    EXTENDED_DEVICE = 0x82,
};

enum { NAME_BYTES = 4 };

static void put_segment(struct bytes *aml, const char *segment, size_t length)
{
    assert(length >= 1 && length <= NAME_BYTES);
    bytes_put(aml, segment, length);
    for (size_t i = length; i < NAME_BYTES; i++)
        bytes_u8(aml, '_');
}

void aml_path(struct bytes *aml, const char *path)
{
    if (*path == '\\')
        bytes_u8(aml, (uint8_t)*path++);
    unsigned count = 1;
    for (const char *p = path; *p; p++)
        count += *p == '.';
    if (count == 2) {
        bytes_u8(aml, PREFIX_DUAL);
    } else if (count > 2) {
        bytes_u8(aml, PREFIX_MULTI);
        bytes_u8(aml, (uint8_t)count);
    }
    for (unsigned i = 0; i < count; i++) {
        size_t length = strcspn(path, ".");
        put_segment(aml, path, length);
        path += length + 1;
    }
}

/* A package's length comes before what it counts, and counts itself: aml_end() inserts it. */
size_t aml_scope_begin(struct bytes *aml, const char *path)
{
    bytes_u8(aml, OP_SCOPE);
    size_t mark = aml->size_bytes;
    aml_path(aml, path);
    return mark;
}

size_t aml_device_begin(struct bytes *aml, const char *name)
{
    bytes_u8(aml, OP_EXTENDED);
    bytes_u8(aml, EXTENDED_DEVICE);
    size_t mark = aml->size_bytes;
    aml_path(aml, name);
    return mark;
}

size_t aml_method_begin(struct bytes *aml, const char *name, unsigned argument_count)
{
    enum { SERIALIZED = 1 << 3 };
    assert(argument_count <= 7);
    bytes_u8(aml, OP_METHOD);
    size_t mark = aml->size_bytes;
    aml_path(aml, name);
    bytes_u8(aml, (uint8_t)(argument_count | SERIALIZED));
    return mark;
}

size_t aml_package_begin(struct bytes *aml, unsigned element_count)
{
    assert(element_count <= 255);
    bytes_u8(aml, OP_PACKAGE);
    size_t mark = aml->size_bytes;
    bytes_u8(aml, (uint8_t)element_count);
    return mark;
}

size_t aml_if_begin(struct bytes *aml)
{
    bytes_u8(aml, OP_IF);
    return aml->size_bytes;
}

size_t aml_else_begin(struct bytes *aml)
{
    bytes_u8(aml, OP_ELSE);
    return aml->size_bytes;
}

void aml_end(struct bytes *aml, size_t mark)
{
    if (aml->failed)
        return;
    size_t length = aml->size_bytes - mark;
    uint8_t encoded[4];
    unsigned more = 0; /* bytes after the first: 20.2.4 */
    while (length + 1 + more >= (more ? (size_t)1 << (4 + 8 * more) : 64))
        more++;
    assert(more <= 3);
    length += 1 + more;
    encoded[0] = (uint8_t)(more ? more << 6 | (length & 0xf) : length);
    for (unsigned i = 0; i < more; i++)
        encoded[1 + i] = (uint8_t)(length >> (4 + 8 * i));
    bytes_insert(aml, mark, encoded, 1 + more);
}

void aml_name(struct bytes *aml, const char *name)
{
    bytes_u8(aml, OP_NAME);
    aml_path(aml, name);
}

void aml_integer(struct bytes *aml, uint64_t value)
{
    if (value <= 1) {
        bytes_u8(aml, value ? OP_ONE : OP_ZERO);
    } else if (value <= UINT8_MAX) {
        bytes_u8(aml, OP_BYTE);
        bytes_u8(aml, (uint8_t)value);
    } else if (value <= UINT16_MAX) {
        bytes_u8(aml, OP_WORD);
        bytes_u16(aml, (uint16_t)value);
    } else if (value <= UINT32_MAX) {
        bytes_u8(aml, OP_DWORD);
        bytes_u32(aml, (uint32_t)value);
    } else {
        bytes_u8(aml, OP_QWORD);
        bytes_u64(aml, value);
    }
}

void aml_string(struct bytes *aml, const char *text)
{
    bytes_u8(aml, OP_STRING);
    bytes_put(aml, text, strlen(text) + 1);
}

static unsigned hex_digit(char digit)
{
    return digit <= '9' ? (unsigned)(digit - '0') : (unsigned)(digit - 'A' + 10);
}

/* Three letters in five bits each, then four hex digits, most significant byte first. */
void aml_eisa_id(struct bytes *aml, const char *id)
{
    assert(strlen(id) == 7);
    uint32_t value = 0;
    for (unsigned i = 0; i < 3; i++)
        value = value << 5 | (uint32_t)((id[i] - '@') & 0x1f);
    for (unsigned i = 3; i < 7; i++)
        value = value << 4 | hex_digit(id[i]);
    bytes_u8(aml, OP_DWORD);
    bytes_u32(aml, __builtin_bswap32(value));
}

void aml_buffer(struct bytes *aml, const void *data, size_t size_bytes)
{
    bytes_u8(aml, OP_BUFFER);
    size_t mark = aml->size_bytes;
    aml_integer(aml, size_bytes);
    bytes_put(aml, data, size_bytes);
    aml_end(aml, mark);
}

void aml_name_integer(struct bytes *aml, const char *name, uint64_t value)
{
    aml_name(aml, name);
    aml_integer(aml, value);
}

void aml_name_string(struct bytes *aml, const char *name, const char *text)
{
    aml_name(aml, name);
    aml_string(aml, text);
}

void aml_name_eisa_id(struct bytes *aml, const char *name, const char *id)
{
    aml_name(aml, name);
    aml_eisa_id(aml, id);
}

void aml_argument(struct bytes *aml, unsigned index)
{
    bytes_u8(aml, (uint8_t)(OP_ARG0 + index));
}

void aml_return(struct bytes *aml)
{
    bytes_u8(aml, OP_RETURN);
}

void aml_equal(struct bytes *aml)
{
    bytes_u8(aml, OP_EQUAL);
}

void aml_create_dword_field(struct bytes *aml, unsigned argument, unsigned offset_bytes,
                            const char *name)
{
    bytes_u8(aml, OP_CREATE_DWORD_FIELD);
    aml_argument(aml, argument);
    aml_integer(aml, offset_bytes);
    aml_path(aml, name);
}

void aml_and(struct bytes *aml, const char *name, uint64_t mask)
{
    bytes_u8(aml, OP_AND);
    aml_path(aml, name);
    aml_integer(aml, mask);
    bytes_u8(aml, OP_ZERO); /* no target */
}

static void operate_into(struct bytes *aml, uint8_t op, const char *name, uint64_t value)
{
    bytes_u8(aml, op);
    aml_path(aml, name);
    aml_integer(aml, value);
    aml_path(aml, name);
}

void aml_and_into(struct bytes *aml, const char *name, uint64_t mask)
{
    operate_into(aml, OP_AND, name, mask);
}

void aml_or_into(struct bytes *aml, const char *name, uint64_t bits)
{
    operate_into(aml, OP_OR, name, bits);
}

/* The buffer's size is a word, filled in at the end. */
size_t aml_resources_begin(struct bytes *aml, const char *name)
{
    aml_name(aml, name);
    bytes_u8(aml, OP_BUFFER);
    size_t mark = aml->size_bytes;
    bytes_u8(aml, OP_WORD);
    bytes_u16(aml, 0);
    return mark;
}

void aml_resources_end(struct bytes *aml, size_t mark)
{
    bytes_u8(aml, 0x79); /* end tag; a checksum of 0 counts as right */
    bytes_u8(aml, 0);
    if (aml->failed)
        return;
    le16_put(aml->data + mark + 1, (uint16_t)(aml->size_bytes - mark - 3));
    aml_end(aml, mark);
}

void aml_io(struct bytes *aml, uint16_t port, uint8_t size)
{
    bytes_u8(aml, 0x47);
    bytes_u8(aml, 1); /* 16 address lines decoded */
    bytes_u16(aml, port);
    bytes_u16(aml, port);
    bytes_u8(aml, 1);
    bytes_u8(aml, size);
}

void aml_irq(struct bytes *aml, unsigned irq)
{
    assert(irq < 16);
    bytes_u8(aml, 0x22);
    bytes_u16(aml, (uint16_t)(1u << irq));
}

void aml_dma(struct bytes *aml, unsigned channel)
{
    assert(channel < 8);
    bytes_u8(aml, 0x2a);
    bytes_u8(aml, (uint8_t)(1u << channel));
    bytes_u8(aml, 0);
}

void aml_memory32(struct bytes *aml, uint32_t base, uint32_t size_bytes, bool writable)
{
    bytes_u8(aml, 0x86);
    bytes_u16(aml, 9);
    bytes_u8(aml, writable);
    bytes_u32(aml, base);
    bytes_u32(aml, size_bytes);
}

/* Address space descriptors: 6.4.3.5. */
enum { SPACE_MEMORY = 0, SPACE_IO = 1, SPACE_BUS = 2 };
enum { PRODUCER_FIXED = 0x0c, MEMORY_WRITABLE = 0x01, IO_ENTIRE_RANGE = 0x03 };

static void address_head(struct bytes *aml, uint8_t tag, unsigned field_bytes, uint8_t space,
                         uint8_t type_flags)
{
    bytes_u8(aml, tag);
    bytes_u16(aml, (uint16_t)(3 + 5 * field_bytes));
    bytes_u8(aml, space);
    bytes_u8(aml, PRODUCER_FIXED);
    bytes_u8(aml, type_flags);
}

static void word_window(struct bytes *aml, uint8_t space, uint8_t type_flags, uint16_t first,
                        uint16_t last)
{
    address_head(aml, 0x88, 2, space, type_flags);
    bytes_u16(aml, 0); /* granularity */
    bytes_u16(aml, first);
    bytes_u16(aml, last);
    bytes_u16(aml, 0); /* translation */
    bytes_u16(aml, (uint16_t)(last - first + 1));
}

void aml_bus_window(struct bytes *aml, uint16_t first, uint16_t last)
{
    word_window(aml, SPACE_BUS, 0, first, last);
}

void aml_io_window(struct bytes *aml, uint16_t first, uint16_t last)
{
    word_window(aml, SPACE_IO, IO_ENTIRE_RANGE, first, last);
}

void aml_memory32_window(struct bytes *aml, uint32_t first, uint32_t last)
{
    address_head(aml, 0x87, 4, SPACE_MEMORY, MEMORY_WRITABLE);
    bytes_u32(aml, 0);
    bytes_u32(aml, first);
    bytes_u32(aml, last);
    bytes_u32(aml, 0);
    bytes_u32(aml, last - first + 1);
}

void aml_memory64_window(struct bytes *aml, uint64_t first, uint64_t last)
{
    address_head(aml, 0x8a, 8, SPACE_MEMORY, MEMORY_WRITABLE);
    bytes_u64(aml, 0);
    bytes_u64(aml, first);
    bytes_u64(aml, last);
    bytes_u64(aml, 0);
    bytes_u64(aml, last - first + 1);
}
