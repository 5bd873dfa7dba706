/* SPDX-License-Identifier: BSD-2-Clause
 * See segments.h. Limits end in the middle of scratch memory, so that it matters to reach them. */
#include "isa/segments.h"

#include "cpu/state.h"
#include "isa/native.h"

enum {
    DATA = 0x3 | SEGMENT_S | SEGMENT_P | 3 << SEGMENT_DPL_SHIFT,
    CODE = DATA | 0x8,
    EXPAND_DOWN = DATA | 0x4,
    BIG = SEGMENT_DB,
    PAGES = SEGMENT_G,
};
#define LDT(index)   ((index) << 3 | 7)
#define FLAT(kind)   0, UINT32_MAX, ISA_HOST_##kind
#define AT(distance) ((uint32_t)ISA_SCRATCH + (distance))

static const struct isa_segment segments[ISA_MODES][ISA_SEGMENTS] = {
    /* In 64-bit mode only GS's base matters. */
    [ISA_64] = {[ISA_CS] = {FLAT(CS), CODE | SEGMENT_L | PAGES},
                [ISA_SS] = {FLAT(SS), DATA | BIG | PAGES},
                [ISA_DS] = {FLAT(SS), DATA | BIG | PAGES},
                [ISA_ES] = {FLAT(SS), DATA | BIG | PAGES},
                [ISA_GS] = {ISA_GS_BASE, 0x2567ffff, LDT(0), DATA | BIG | PAGES}},
    [ISA_32] = {[ISA_CS] = {FLAT(CS32), CODE | BIG | PAGES},
                [ISA_SS] = {FLAT(SS), DATA | BIG | PAGES},
                [ISA_DS] = {FLAT(SS), DATA | BIG | PAGES},
                [ISA_ES] = {FLAT(SS), DATA | BIG | PAGES},
                [ISA_GS] = {ISA_GS_BASE, 0x2567ffff, LDT(0), DATA | BIG | PAGES}},
    [ISA_32_BASED] = {[ISA_CS] = {FLAT(CS32), CODE | BIG | PAGES},
                      [ISA_SS] = {AT(-0x1000), 0x11ff, LDT(1), EXPAND_DOWN | BIG},
                      [ISA_DS] = {AT(-0x1234), 0x2fff, LDT(2), DATA | BIG},
                      /* Its addresses wrap at 4 GiB. */
                      [ISA_ES] = {0xf0000010, UINT32_MAX, LDT(3), DATA | BIG | PAGES},
                      [ISA_GS] = {AT(-0xe000), 0xe0ff, LDT(4), EXPAND_DOWN}},
    [ISA_16] = {[ISA_CS] = {ISA_CODE, UINT16_MAX, LDT(5), CODE},
                [ISA_SS] = {AT(-0x8000), UINT16_MAX, LDT(6), DATA},
                [ISA_DS] = {AT(-0x1000), 0x2dff, LDT(7), DATA},
                [ISA_ES] = {AT(-0x8010), UINT16_MAX, LDT(8), DATA},
                [ISA_GS] = {AT(-0xe000), 0xe0ff, LDT(4), EXPAND_DOWN}},
};

const char *isa_mode_name(enum isa_mode mode)
{
    static const char *const names[ISA_MODES] = {"64 bits", "32 bits", "32 bits, not flat",
                                                 "16 bits"};
    return names[mode];
}

const struct isa_segment *isa_segment(enum isa_mode mode, enum isa_segment_name name)
{
    return &segments[mode][name];
}

uint64_t isa_entry(enum isa_mode mode)
{
    return ISA_CODE - segments[mode][ISA_CS].base;
}

void isa_decoder_init(ZydisDecoder *decoder, enum isa_mode mode)
{
    if (mode == ISA_64)
        ZydisDecoderInit(decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    else if (mode == ISA_16)
        ZydisDecoderInit(decoder, ZYDIS_MACHINE_MODE_LONG_COMPAT_16, ZYDIS_STACK_WIDTH_16);
    else
        ZydisDecoderInit(decoder, ZYDIS_MACHINE_MODE_LONG_COMPAT_32, ZYDIS_STACK_WIDTH_32);
}
