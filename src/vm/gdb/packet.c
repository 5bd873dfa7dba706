/* SPDX-License-Identifier: BSD-2-Clause
 * See packet.h. */
#include "vm/gdb/packet.h"

#include <assert.h>

enum { CTRL_C = 3, ESCAPE_XOR = 0x20 };

static enum gdb_input outside(struct gdb_reader *reader, uint8_t byte)
{
    switch (byte) {
    case '$':
        reader->state = GDB_DATA;
        reader->used_bytes = 0;
        reader->sum = 0;
        reader->is_bad = false;
        return GDB_INPUT_NONE;
    case CTRL_C: return GDB_INPUT_INTERRUPT;
    case '+': return GDB_INPUT_ACK;
    case '-': return GDB_INPUT_NACK;
    default: return GDB_INPUT_NONE; /* what a line may have left behind */
    }
}

static void take(struct gdb_reader *reader, uint8_t byte)
{
    if (reader->used_bytes < sizeof(reader->data))
        reader->data[reader->used_bytes++] = (char)byte;
    else
        reader->is_bad = true;
}

static enum gdb_input data(struct gdb_reader *reader, uint8_t byte)
{
    if (byte == '$') /* the end of the one before was lost */
        return outside(reader, byte);
    if (byte == '#') {
        reader->is_bad |= reader->state == GDB_ESCAPED;
        reader->state = GDB_SUM_HIGH;
        return GDB_INPUT_NONE;
    }
    reader->sum = (uint8_t)(reader->sum + byte);
    if (reader->state == GDB_ESCAPED) {
        take(reader, byte ^ ESCAPE_XOR);
        reader->state = GDB_DATA;
    } else if (byte == '}') {
        reader->state = GDB_ESCAPED;
    } else {
        take(reader, byte);
    }
    return GDB_INPUT_NONE;
}

static uint8_t digit(struct gdb_reader *reader, uint8_t byte)
{
    if (byte >= '0' && byte <= '9')
        return (uint8_t)(byte - '0');
    if (byte >= 'a' && byte <= 'f')
        return (uint8_t)(byte - 'a' + 10);
    if (byte >= 'A' && byte <= 'F')
        return (uint8_t)(byte - 'A' + 10);
    reader->is_bad = true;
    return 0;
}

enum gdb_input gdb_read(struct gdb_reader *reader, uint8_t byte)
{
    switch (reader->state) {
    case GDB_OUTSIDE: return outside(reader, byte);
    case GDB_DATA:
    case GDB_ESCAPED: return data(reader, byte);
    case GDB_SUM_HIGH:
        reader->told_sum = (uint8_t)(digit(reader, byte) << 4);
        reader->state = GDB_SUM_LOW;
        return GDB_INPUT_NONE;
    case GDB_SUM_LOW: break;
    }
    reader->told_sum |= digit(reader, byte);
    reader->state = GDB_OUTSIDE;
    return reader->is_bad || reader->told_sum != reader->sum ? GDB_INPUT_BAD : GDB_INPUT_PACKET;
}

size_t gdb_frame(char frame[GDB_FRAME_BYTES], const char *data_bytes, size_t size_bytes)
{
    static const char digits[] = "0123456789abcdef";
    uint8_t sum = 0;
    size_t used = 0;
    assert(size_bytes <= GDB_PACKET_BYTES);
    frame[used++] = '$';
    for (size_t i = 0; i < size_bytes; i++) {
        char c = data_bytes[i];
        if (c == '#' || c == '$' || c == '}' || c == '*') {
            frame[used++] = '}';
            sum = (uint8_t)(sum + '}');
            c ^= ESCAPE_XOR;
        }
        frame[used++] = c;
        sum = (uint8_t)(sum + (uint8_t)c);
    }
    frame[used++] = '#';
    frame[used++] = digits[sum >> 4];
    frame[used++] = digits[sum & 15];
    return used;
}
