/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The modes of user code that are compared with the host's processor (native.c), and the segments
 * that it has there. Those are descriptors of the process's LDT, the flat ones Linux's own; the
 * software processor has the same.
 */
#ifndef SKEP_TESTS_ISA_SEGMENTS_H
#define SKEP_TESTS_ISA_SEGMENTS_H

#include <stdint.h>
#include <Zydis/Zydis.h>

enum isa_mode {
    ISA_64,
    ISA_32,       /* compatibility mode, flat but for GS */
    ISA_32_BASED, /* every data segment with base and limit, the stack expand-down */
    ISA_16,       /* 16-bit protected mode */
    ISA_MODES,
};

const char *isa_mode_name(enum isa_mode mode);

/* As in a descriptor (SDM 3A 3.4.5); the limit in bytes, inclusive. */
struct isa_segment {
    uint32_t base, limit;
    uint16_t selector, attributes;
};

/* What Linux has in its GDT for user code. */
enum { ISA_HOST_CS32 = 0x23, ISA_HOST_SS = 0x2b, ISA_HOST_CS = 0x33 };

/* FS is left out: it is the test's own thread pointer. */
enum isa_segment_name { ISA_CS, ISA_SS, ISA_DS, ISA_ES, ISA_GS, ISA_SEGMENTS };
const struct isa_segment *isa_segment(enum isa_mode mode, enum isa_segment_name name);

/* Where ISA_CODE is for code of the mode. */
uint64_t isa_entry(enum isa_mode mode);

void isa_decoder_init(ZydisDecoder *decoder, enum isa_mode mode);

#endif
