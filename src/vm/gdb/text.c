/* SPDX-License-Identifier: BSD-2-Clause
 * See text.h. */
#include "vm/gdb/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

bool gdb_scan_char(struct gdb_scan *scan, char c)
{
    if (scan->at == scan->end || *scan->at != c)
        return false;
    scan->at++;
    return true;
}

bool gdb_scan_word(struct gdb_scan *scan, const char *word)
{
    size_t length = strlen(word);
    if (gdb_scan_left(scan) < length || memcmp(scan->at, word, length) != 0)
        return false;
    scan->at += length;
    return true;
}

static int digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

bool gdb_scan_number(struct gdb_scan *scan, uint64_t *value)
{
    unsigned count = 0;
    *value = 0;
    for (; scan->at != scan->end && digit(*scan->at) >= 0; scan->at++, count++) {
        if (*value >> 60)
            return false;
        *value = *value << 4 | (unsigned)digit(*scan->at);
    }
    return count > 0;
}

bool gdb_scan_bytes(struct gdb_scan *scan, uint8_t *bytes, size_t count)
{
    if (gdb_scan_left(scan) / 2 < count)
        return false;
    for (size_t i = 0; i < count; i++, scan->at += 2) {
        int high = digit(scan->at[0]), low = digit(scan->at[1]);
        if (high < 0 || low < 0)
            return false;
        bytes[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

void gdb_put(struct gdb_text *text, const char *format, ...)
{
    size_t room = text->size_bytes - text->used_bytes;
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text->bytes + text->used_bytes, room, format, arguments);
    va_end(arguments);
    if (length >= 0 && (size_t)length < room)
        text->used_bytes += (size_t)length;
    else
        text->is_cut = true;
}

void gdb_put_raw(struct gdb_text *text, const void *bytes, size_t count)
{
    if (count > text->size_bytes - text->used_bytes) {
        text->is_cut = true;
        return;
    }
    memcpy(text->bytes + text->used_bytes, bytes, count);
    text->used_bytes += count;
}

void gdb_put_hex(struct gdb_text *text, const void *bytes, size_t count)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *from = bytes;
    if (count > (text->size_bytes - text->used_bytes) / 2) {
        text->is_cut = true;
        return;
    }
    for (size_t i = 0; i < count; i++) {
        text->bytes[text->used_bytes++] = digits[from[i] >> 4];
        text->bytes[text->used_bytes++] = digits[from[i] & 15];
    }
}
