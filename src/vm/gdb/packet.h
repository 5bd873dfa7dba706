/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Packets of GDB's remote serial protocol, `$DATA#CHECKSUM` (GDB manual, appendix E.1): taking them
 * out of a stream of bytes that is not trusted, and framing answers.
 */
#ifndef SKEP_VM_GDB_PACKET_H
#define SKEP_VM_GDB_PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    GDB_PACKET_BYTES = 16384, /* the longest data of a packet, either way */
    GDB_FRAME_BYTES = 2 * GDB_PACKET_BYTES + 4,
};

enum gdb_input {
    GDB_INPUT_NONE,      /* more bytes are needed */
    GDB_INPUT_PACKET,    /* data[0 … used_bytes) until the next byte */
    GDB_INPUT_BAD,       /* a packet with a wrong checksum, or too long */
    GDB_INPUT_INTERRUPT, /* the byte 03H outside of packets: Ctrl-C */
    GDB_INPUT_ACK,
    GDB_INPUT_NACK,
};

struct gdb_reader {
    char data[GDB_PACKET_BYTES]; /* escapes are taken out */
    size_t used_bytes;
    enum { GDB_OUTSIDE, GDB_DATA, GDB_ESCAPED, GDB_SUM_HIGH, GDB_SUM_LOW } state;
    uint8_t sum, told_sum;
    bool is_bad;
};

/* Takes the next byte; a zeroed reader is at the start. */
enum gdb_input gdb_read(struct gdb_reader *reader, uint8_t byte);

/* Frames data of at most GDB_PACKET_BYTES, with what has to be escaped; returns the length. */
size_t gdb_frame(char frame[GDB_FRAME_BYTES], const char *data, size_t size_bytes);

#endif
