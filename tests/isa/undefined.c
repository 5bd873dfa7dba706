/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Encodings that mean nothing: every opcode of the four maps, with each prefix that chooses another
 * one or none, each ModRM.reg, a register and a memory operand, in each mode of segments.h. What
 * the decoder knows nothing of has to be #UD in the software processor, and on the host's too (SDM
 * 2A 2.1, 2 #UD; 3A 8.1.2.2 for LOCK).
 *
 * Hosts know instructions that are younger than the decoder. So what a host executes, or refuses
 * otherwise, is counted and printed but no failure unless there are many.
 */
#include "cpu/soft/cpu.h"
#include "isa/machine.h"
#include "isa/native.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <Zydis/Zydis.h>

enum { LENGTH = 12, MAX_PRINTED = 20, MANY = 100 };

struct counts {
    unsigned tried, soft_differs, host_differs;
};

struct encoding {
    uint8_t bytes[LENGTH];
};

static const struct {
    uint8_t bytes[2];
    unsigned length;
} maps[] = {{{0}, 0}, {{0x0f}, 1}, {{0x0f, 0x38}, 2}, {{0x0f, 0x3a}, 2}};

/* None, those that choose an instruction, LOCK, and in 64-bit mode REX.W. */
static const uint8_t prefixes[] = {0, 0x66, 0xf2, 0xf3, 0xf0, 0x48};

/* What the decoder takes for something else: VPINSRQ and VPEXTRQ outside of 64-bit mode (SDM 2B
 * PINSRB/PINSRD/PINSRQ, PEXTRB/PEXTRD/PEXTRQ: #UD). */
static const struct encoding taken_otherwise[] = {{{0xc4, 0xe3, 0xf1, 0x22, 0xc0, 0x01}},
                                                  {{0xc4, 0xe3, 0xf9, 0x16, 0xc0, 0x01}}};

/* After ModRM come INT3s: a shorter instruction than was meant stops at them. */
static struct encoding encode(unsigned prefix, unsigned map, unsigned opcode, unsigned modrm)
{
    struct encoding e;
    unsigned at = 0;
    memset(e.bytes, 0xcc, sizeof(e.bytes));
    if (prefixes[prefix])
        e.bytes[at++] = prefixes[prefix];
    memcpy(e.bytes + at, maps[map].bytes, maps[map].length);
    at += maps[map].length;
    e.bytes[at++] = (uint8_t)opcode;
    e.bytes[at] = (uint8_t)modrm;
    return e;
}

static bool is_meaningless(const ZydisDecoder *decoder, const struct encoding *e)
{
    ZydisDecodedInstruction info;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    ZyanStatus status = ZydisDecoderDecodeFull(decoder, e->bytes, LENGTH, &info, operands);
    return !ZYAN_SUCCESS(status) && status != ZYDIS_STATUS_NO_MORE_DATA;
}

static void print(const char *where, const struct encoding *e, int fault)
{
    printf("%s: exception %d, not #UD:", where, fault);
    for (unsigned i = 0; i < LENGTH && e->bytes[i] != 0xcc; i++)
        printf(" %02x", e->bytes[i]);
    printf("\n");
}

/* All registers point into scratch memory. */
static void make_state(enum isa_mode mode, struct isa_state *state)
{
    memset(state, 0, sizeof(*state));
    state->mode = mode;
    for (unsigned i = 0; i < 16; i++)
        state->gpr[i] = ISA_SCRATCH - isa_segment(mode, ISA_DS)->base + 0x800;
    state->rflags = 0x202;
    state->fx[0] = 0x7f;
    state->fx[1] = 0x03;
    state->fx[24] = 0x80;
    state->fx[25] = 0x1f;
}

static void try_one(struct machine *machine, enum isa_mode mode, const struct encoding *e,
                    struct counts *counts)
{
    struct isa_state host, soft;
    make_state(mode, &host);
    soft = host;
    counts->tried++;
    machine_run(machine, &soft, e->bytes, LENGTH);
    if (soft.fault != VECTOR_UD || soft.fault_offset != 0) {
        if (counts->soft_differs++ < MAX_PRINTED)
            print("software processor", e, soft.fault);
    }
    native_run(&host, e->bytes, LENGTH);
    if (host.fault != VECTOR_UD || host.fault_offset != 0) {
        if (counts->host_differs++ < MAX_PRINTED)
            print("host", e, host.fault);
    }
}

static void try_all(struct machine *machine, enum isa_mode mode, struct counts *counts)
{
    ZydisDecoder decoder;
    isa_decoder_init(&decoder, mode);
    /* Without MPX and CET what they use are hints. */
    ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
    ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
    unsigned prefix_count = sizeof(prefixes) - (mode == ISA_64 ? 0 : 1);
    for (unsigned prefix = 0; prefix < prefix_count; prefix++)
        for (unsigned map = 0; map < sizeof(maps) / sizeof(*maps); map++)
            for (unsigned opcode = 0; opcode < 256; opcode++)
                for (unsigned reg = 0; reg < 8; reg++)
                    for (unsigned form = 0; form < 2; form++) {
                        unsigned modrm = reg << 3 | (form ? 0xc0 : 0) | RBX;
                        struct encoding e = encode(prefix, map, opcode, modrm);
                        if (is_meaningless(&decoder, &e))
                            try_one(machine, mode, &e, counts);
                    }
}

int main(void)
{
    struct counts counts = {0};
    struct machine *machine = machine_open();
    if (!native_open()) {
        fprintf(stderr, "cannot map the test's memory\n");
        return 77;
    }
    for (unsigned mode = 0; mode < ISA_MODES; mode++) {
        if (!native_offers(mode)) {
            printf("not tried: %s, the host does not run such code\n", isa_mode_name(mode));
            continue;
        }
        try_all(machine, mode, &counts);
        for (unsigned i = 0; mode != ISA_64 && i < 2; i++)
            try_one(machine, mode, &taken_otherwise[i], &counts);
    }
    machine_close(machine);
    printf("%u meaningless encodings; not #UD in the software processor: %u, on the host: %u\n",
           counts.tried, counts.soft_differs, counts.host_differs);
    return counts.tried < 1000 || counts.soft_differs != 0 || counts.host_differs > MANY;
}
