/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Text of packets: hexadecimal in, and bounded buffers out. What is read came from a socket.
 */
#ifndef SKEP_VM_GDB_TEXT_H
#define SKEP_VM_GDB_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A reader over a packet's bytes; all functions stay within them. */
struct gdb_scan {
    const char *at, *end;
};

/* Takes the character when it is next. */
bool gdb_scan_char(struct gdb_scan *scan, char c);
/* Takes the word when the text goes on with it. */
bool gdb_scan_word(struct gdb_scan *scan, const char *word);
/* Takes 1 to 16 hexadecimal digits, big end first. */
bool gdb_scan_number(struct gdb_scan *scan, uint64_t *value);
/* Takes two hexadecimal digits a byte; false unless there are so many. */
bool gdb_scan_bytes(struct gdb_scan *scan, uint8_t *bytes, size_t count);
static inline bool gdb_scan_is_done(const struct gdb_scan *scan)
{
    return scan->at == scan->end;
}
static inline size_t gdb_scan_left(const struct gdb_scan *scan)
{
    return (size_t)(scan->end - scan->at);
}

/* What is built in a buffer of fixed size; what has no room is left out, and `is_cut` says so. */
struct gdb_text {
    char *bytes;
    size_t size_bytes, used_bytes;
    bool is_cut;
};

void gdb_put(struct gdb_text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
void gdb_put_raw(struct gdb_text *text, const void *bytes, size_t count);
void gdb_put_hex(struct gdb_text *text, const void *bytes, size_t count);

#endif
