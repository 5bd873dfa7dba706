/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Random instructions with random state, on the host's processor and in the software one; every
 * register, flag, fault and byte of memory has to be the same.
 *
 *     test-isa-random [CASES [SEED [MNEMONIC]…]]
 *
 * Instructions are random bytes with the structure of an encoding (legacy maps, VEX maps, x87),
 * kept when Zydis knows them and they are of user mode, change no control flow and are offered. A
 * difference is printed with the seed that repeats its case alone. MNEMONICs are left out.
 */
#include "cpu/soft/cpu.h"
#include "isa/machine.h"
#include "isa/native.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <Zydis/Zydis.h>

enum { DEFAULT_CASES = 200000, MAX_DIFFERENCES = 20 };

/* xorshift64*: a generator of our own, so that a seed means the same everywhere. */
struct random {
    uint64_t state;
};

static uint64_t random_next(struct random *random)
{
    random->state ^= random->state >> 12;
    random->state ^= random->state << 25;
    random->state ^= random->state >> 27;
    return random->state * UINT64_C(2685821657736338717);
}

static unsigned random_below(struct random *random, unsigned limit)
{
    return (unsigned)((random_next(random) >> 32) * limit >> 32);
}

static bool random_chance(struct random *random, unsigned percent)
{
    return random_below(random, 100) < percent;
}

/* --- values ------------------------------------------------------------------------------- */

static uint64_t random_integer(struct random *random)
{
    static const uint64_t edges[] = {0,
                                     1,
                                     2,
                                     0x7f,
                                     0x80,
                                     0xff,
                                     0x7fff,
                                     0x8000,
                                     0xffff,
                                     0x7fffffff,
                                     0x80000000,
                                     0xffffffff,
                                     UINT64_C(0x7fffffffffffffff),
                                     UINT64_C(0x8000000000000000),
                                     UINT64_C(0xffffffffffffffff),
                                     UINT64_C(0xfffffffffffffffe),
                                     UINT64_C(0xffffffff80000000)};
    switch (random_below(random, 4)) {
    case 0: return edges[random_below(random, sizeof(edges) / sizeof(edges[0]))];
    case 1: return random_next(random) >> random_below(random, 64);
    case 2: return UINT64_C(1) << random_below(random, 64);
    default: return random_next(random);
    }
}

static uint32_t random_float32(struct random *random)
{
    static const uint32_t edges[] = {0x00000000, 0x80000000, 0x3f800000, 0xbf800000, 0x7f800000,
                                     0xff800000, 0x7fc00000, 0xffc00000, 0x7f800001, 0xff812345,
                                     0x00000001, 0x807fffff, 0x00800000, 0x7f7fffff, 0x4f000000,
                                     0xcf000000, 0x5f000000, 0x4b000001, 0x3f000000, 0x33800000};
    if (random_chance(random, 50))
        return edges[random_below(random, sizeof(edges) / sizeof(edges[0]))];
    if (random_chance(random, 50)) /* near 1, so that sums and products mean something */
        return 0x3f000000 + (uint32_t)(random_next(random) & 0x80ffffff);
    return (uint32_t)random_next(random);
}

static uint64_t random_float64(struct random *random)
{
    static const uint64_t edges[] = {
        0,
        UINT64_C(0x8000000000000000),
        UINT64_C(0x3ff0000000000000),
        UINT64_C(0xbff0000000000000),
        UINT64_C(0x7ff0000000000000),
        UINT64_C(0xfff0000000000000),
        UINT64_C(0x7ff8000000000000),
        UINT64_C(0xfff8000000000001),
        UINT64_C(0x7ff0000000000001),
        UINT64_C(0xfff7ffffffffffff),
        1,
        UINT64_C(0x800fffffffffffff),
        UINT64_C(0x0010000000000000),
        UINT64_C(0x7fefffffffffffff),
        UINT64_C(0x41dfffffffc00000),
        UINT64_C(0xc1e0000000000000),
        UINT64_C(0x43e0000000000000),
        UINT64_C(0x3fe0000000000000),
        UINT64_C(0x36a0000000000000), /* least positive float */
        UINT64_C(0x47efffffffffffff),
    };
    if (random_chance(random, 50))
        return edges[random_below(random, sizeof(edges) / sizeof(edges[0]))];
    if (random_chance(random, 50))
        return UINT64_C(0x3fe0000000000000) + (random_next(random) & UINT64_C(0x801fffffffffffff));
    return random_next(random);
}

static void random_float80(struct random *random, uint8_t bytes[10])
{
    uint64_t mantissa = random_next(random);
    uint16_t exponent = (uint16_t)random_next(random);
    switch (random_below(random, 8)) {
    case 0:
        mantissa = UINT64_C(1) << 63;
        exponent |= 0x7fff;
        break; /* infinity */
    case 1:
        mantissa = 0;
        exponent &= 0x8000;
        break; /* zero */
    case 2:
        mantissa |= UINT64_C(1) << 63;
        exponent |= 0x7fff;
        break; /* NaN */
    case 3:
        mantissa &= ~(UINT64_C(1) << 63);
        exponent &= 0x8000;
        break; /* denormal */
    case 4:    /* near 1 */
    case 5:
        mantissa |= UINT64_C(1) << 63;
        exponent = 0x3ff0 + (exponent & 0x803f);
        break;
    case 6: mantissa |= UINT64_C(1) << 63; break; /* normal */
    default: break;                               /* unnormal and others */
    }
    memcpy(bytes, &mantissa, 8);
    memcpy(bytes + 8, &exponent, 2);
}

static void random_bytes(struct random *random, uint8_t *bytes, unsigned length)
{
    for (unsigned i = 0; i < length; i += 8) {
        uint64_t value;
        uint32_t low;
        switch (random_below(random, 4)) {
        case 0: value = random_float64(random); break;
        case 1:
            low = random_float32(random);
            value = low | (uint64_t)random_float32(random) << 32;
            break;
        default: value = random_integer(random); break;
        }
        memcpy(bytes + i, &value, length - i < 8 ? length - i : 8);
    }
}

static void random_state(struct random *random, struct isa_state *state)
{
    memset(state, 0, sizeof(*state));
    for (unsigned n = 0; n < 16; n++)
        state->gpr[n] = random_integer(random);
    state->rflags = 0x202 | (random_next(random) & (RFLAGS_ARITHMETIC | RFLAGS_DF));
    for (unsigned n = 0; n < 16; n++)
        random_bytes(random, state->vector[n], native_has_avx() ? 32 : 16);
    /* Mostly all masked, as in programs; the rest anything. */
    uint32_t mxcsr = 0x1f80;
    if (random_chance(random, 50))
        mxcsr |= (uint32_t)random_next(random) & 0xe07f;
    if (random_chance(random, 15))
        mxcsr = (uint32_t)random_next(random) & 0xffff;
    memcpy(state->fx + 24, &mxcsr, 4);
    uint16_t control = 0x37f, status = (uint16_t)random_next(random) & 0x7f7f;
    if (random_chance(random, 50))
        control = (uint16_t)((control & 0x3f) | ((uint16_t)random_next(random) & 0xf00));
    if (random_chance(random, 25))
        control = (uint16_t)random_next(random) & 0xf3f;
    control |= 0x40;
    if (random_chance(random, 60))
        status &= (uint16_t)~0x3f;
    if (status & ~control & 0x3f)
        status |= 0x8080; /* as a processor would have it */
    uint8_t tags = random_chance(random, 30) ? 0xff : (uint8_t)random_next(random);
    uint16_t opcode = (uint16_t)random_next(random) & 0x7ff;
    uint64_t pointers[2] = {random_next(random) >> 20, random_next(random) >> 20};
    memcpy(state->fx, &control, 2);
    memcpy(state->fx + 2, &status, 2);
    state->fx[4] = tags;
    memcpy(state->fx + 6, &opcode, 2);
    memcpy(state->fx + 8, pointers, 16);
    for (unsigned i = 0; i < 8; i++) {
        random_float80(random, state->fx + 32 + i * 16);
        if (random_chance(random, 25)) { /* MMX contents */
            random_bytes(random, state->fx + 32 + i * 16, 8);
            memset(state->fx + 40 + i * 16, 0xff, 2);
        }
    }
}

/* --- instructions ------------------------------------------------------------------------- */

struct instruction {
    uint8_t bytes[ZYDIS_MAX_INSTRUCTION_LENGTH];
    ZydisDecodedInstruction info;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    uint64_t target; /* linear address of the memory operand, as far as it was aimed */
};

static unsigned random_modrm(struct random *random, uint8_t *bytes)
{
    unsigned length = 0;
    bytes[length++] = (uint8_t)random_next(random);
    for (unsigned i = 0; i < 8; i++) /* SIB, displacement, immediate: as far as needed */
        bytes[length++] = (uint8_t)random_next(random);
    if (random_chance(random, 50))
        bytes[0] |= 0xc0;
    return length;
}

static unsigned random_legacy(struct random *random, uint8_t *bytes)
{
    static const uint8_t mandatory[] = {0x66, 0xf2, 0xf3};
    static const uint8_t others[] = {0x66, 0x67, 0xf2, 0xf3, 0x64, 0x65, 0x2e, 0x3e};
    unsigned length = 0;
    if (random_chance(random, 10))
        bytes[length++] = others[random_below(random, sizeof(others))];
    if (random_chance(random, 60))
        bytes[length++] = mandatory[random_below(random, 3)];
    if (random_chance(random, 40))
        bytes[length++] = (uint8_t)(0x40 | random_below(random, 16));
    bytes[length++] = 0x0f;
    unsigned map = random_below(random, 4);
    if (map == 2)
        bytes[length++] = 0x38;
    else if (map == 3)
        bytes[length++] = 0x3a;
    bytes[length++] = (uint8_t)random_next(random);
    return length + random_modrm(random, bytes + length);
}

static unsigned random_vex(struct random *random, uint8_t *bytes)
{
    unsigned length = 0;
    if (random_chance(random, 5))
        bytes[length++] = 0x67;
    if (random_chance(random, 20)) {
        bytes[length++] = 0xc5;
        bytes[length++] = (uint8_t)random_next(random);
    } else {
        bytes[length++] = 0xc4;
        bytes[length++] = (uint8_t)((random_next(random) & 0xe0) | (1 + random_below(random, 3)));
        bytes[length++] = (uint8_t)random_next(random);
    }
    if (random_chance(random, 20))
        bytes[length - 1] |= 0x78; /* vvvv = 1111b, which many demand */
    bytes[length++] = (uint8_t)random_next(random);
    return length + random_modrm(random, bytes + length);
}

/* One-byte opcodes: the integer instructions of old. */
static unsigned random_base(struct random *random, uint8_t *bytes)
{
    static const uint8_t prefixes[] = {0x66, 0x67, 0xf2, 0xf3, 0xf0, 0x65, 0x2e};
    unsigned length = 0;
    while (random_chance(random, 30) && length < 3)
        bytes[length++] = prefixes[random_below(random, sizeof(prefixes))];
    if (random_chance(random, 60))
        bytes[length++] = (uint8_t)(0x40 | random_below(random, 16));
    bytes[length++] = (uint8_t)random_next(random);
    return length + random_modrm(random, bytes + length);
}

static unsigned random_x87(struct random *random, uint8_t *bytes)
{
    unsigned length = 0;
    if (random_chance(random, 10))
        bytes[length++] = 0x66;
    bytes[length++] = (uint8_t)(0xd8 | random_below(random, 8));
    return length + random_modrm(random, bytes + length);
}

static bool is_wanted(const struct instruction *instruction)
{
    const ZydisDecodedInstruction *info = &instruction->info;
    for (unsigned i = 0; i < info->operand_count; i++) /* segments are the test's own */
        if (instruction->operands[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            ZydisRegisterGetClass(instruction->operands[i].reg.value) == ZYDIS_REGCLASS_SEGMENT)
            return false;

    if (info->attributes & ZYDIS_ATTRIB_HAS_SEGMENT_FS)
        return false; /* the test's own thread pointer */
    switch (info->meta.category) {
    case ZYDIS_CATEGORY_CALL:
    case ZYDIS_CATEGORY_COND_BR:
    case ZYDIS_CATEGORY_UNCOND_BR:
    case ZYDIS_CATEGORY_RET:
    case ZYDIS_CATEGORY_INTERRUPT:
    case ZYDIS_CATEGORY_SYSCALL:
    case ZYDIS_CATEGORY_SYSRET:
    case ZYDIS_CATEGORY_SYSTEM:
    case ZYDIS_CATEGORY_IO:
    case ZYDIS_CATEGORY_IOSTRINGOP:
    case ZYDIS_CATEGORY_RDWRFSGS:
    case ZYDIS_CATEGORY_SEGOP: return false;
    default: break;
    }
    if (info->opcode_map == ZYDIS_OPCODE_MAP_0F && info->opcode == 0x0d && info->raw.modrm.mod == 3)
        return false; /* PREFETCHW of a register: NOP on Intel's processors, #UD on AMD's */
    switch (info->mnemonic) {
    /* XINUSE, which they show, is up to the processor: tests/isa/vector.c looks at them. */
    case ZYDIS_MNEMONIC_XSAVE:
    case ZYDIS_MNEMONIC_XSAVE64:
    case ZYDIS_MNEMONIC_XSAVEC:
    case ZYDIS_MNEMONIC_XSAVEC64:
    case ZYDIS_MNEMONIC_XSAVEOPT:
    case ZYDIS_MNEMONIC_XSAVEOPT64:
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64:
    case ZYDIS_MNEMONIC_XGETBV:
    /* Random, or the processor's own matter. */
    case ZYDIS_MNEMONIC_RDRAND:
    case ZYDIS_MNEMONIC_RDSEED:
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP:
    case ZYDIS_MNEMONIC_RDPID:
    case ZYDIS_MNEMONIC_CPUID:
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_POPFQ: return false;
    default: return !(info->attributes & ZYDIS_ATTRIB_IS_PRIVILEGED);
    }
}

static bool decode(struct instruction *instruction, unsigned length)
{
    ZydisDecoder decoder;
    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    ZydisDecodedInstruction *info = &instruction->info;
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, instruction->bytes, length, info,
                                             instruction->operands)))
        return false;
    /* Zydis 4.0 takes "no base" for R13D when REX.B is set and addresses have 32 bits. */
    bool has_no_base =
        info->raw.modrm.mod == 0 && info->raw.modrm.rm == 4 && info->raw.sib.base == 5;
    for (unsigned i = 0; has_no_base && i < info->operand_count; i++)
        if (instruction->operands[i].type == ZYDIS_OPERAND_TYPE_MEMORY &&
            instruction->operands[i].mem.base == ZYDIS_REGISTER_R13D) {
            instruction->operands[i].mem.base = ZYDIS_REGISTER_NONE;
            instruction->operands[i].mem.disp.has_displacement = true;
            instruction->operands[i].mem.disp.value = info->raw.disp.value;
        }
    return true;
}

static void random_instruction(struct random *random, struct instruction *instruction)
{
    unsigned kind = random_below(random, 10);
    for (;;) {
        uint8_t bytes[64];
        unsigned length = kind < 4   ? random_legacy(random, bytes)
                          : kind < 6 ? random_vex(random, bytes)
                          : kind < 7 ? random_x87(random, bytes)
                                     : random_base(random, bytes);
        if (length > sizeof(instruction->bytes))
            length = sizeof(instruction->bytes);
        memcpy(instruction->bytes, bytes, length);
        if (decode(instruction, length) && is_wanted(instruction))
            return;
    }
}

/* --- memory operands ---------------------------------------------------------------------- */

static uint64_t random_target(struct random *random, unsigned size)
{
    unsigned align = 1u << random_below(random, 6);
    switch (random_below(random, 16)) {
    case 0: return ISA_SCRATCH + ISA_PAGE - random_below(random, size + 2); /* crosses */
    case 1:
        return ISA_SCRATCH + ISA_WRITABLE_BYTES - random_below(random, size + 2);    /* read-only */
    case 2: return ISA_SCRATCH + ISA_SCRATCH_BYTES - random_below(random, size + 2); /* guard */
    case 3: return ISA_SCRATCH - random_below(random, size + 2);
    case 4: return ISA_SCRATCH + random_below(random, ISA_SCRATCH_BYTES - 1024);
    case 5:
    case 6: return ISA_SCRATCH + random_below(random, ISA_WRITABLE_BYTES - 1024);
    default:
        return ISA_SCRATCH + ((512 + random_below(random, ISA_WRITABLE_BYTES - 2048)) &
                              ~(align - 1) & ~UINT64_C(15));
    }
}

static bool is_masked_store(const ZydisDecodedInstruction *info)
{
    return info->mnemonic == ZYDIS_MNEMONIC_MASKMOVQ ||
           info->mnemonic == ZYDIS_MNEMONIC_MASKMOVDQU ||
           info->mnemonic == ZYDIS_MNEMONIC_VMASKMOVDQU;
}

/* What is special about where an operand may be. */
static uint64_t choose_target(struct random *random, const struct instruction *instruction,
                              unsigned size)
{
    uint64_t target = random_target(random, size);
    switch (instruction->info.mnemonic) {
    /* Of a masked store that would fault with bytes that are not selected, the manual leaves open
     * what comes of it; AMD's processors then fault, and MASKMOVQ has changed to MMX state. */
    case ZYDIS_MNEMONIC_MASKMOVQ:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
        return ISA_SCRATCH + random_below(random, ISA_WRITABLE_BYTES - 64);
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
        return random_chance(random, 80) ? target & ~UINT64_C(15) : target;
    default: break;
    }
    /* AMD's processors don't demand alignment of SHA's operands, Intel's do (SDM 2 2.4.4). */
    return instruction->info.meta.isa_set == ZYDIS_ISA_SET_SHA ? target & ~UINT64_C(15) : target;
}

static bool must_be_aimed(const ZydisDecodedInstruction *info)
{
    return is_masked_store(info) || info->meta.isa_set == ZYDIS_ISA_SET_SHA;
}

static uint64_t *gpr_slot(struct isa_state *state, ZydisRegister reg)
{
    ZydisRegisterClass class = ZydisRegisterGetClass(reg);
    if (class != ZYDIS_REGCLASS_GPR64 && class != ZYDIS_REGCLASS_GPR32)
        return NULL;
    return &state->gpr[ZydisRegisterGetId(reg)];
}

/* Vector indices small, so that most elements are in scratch memory. */
static void tame_index(struct random *random, struct isa_state *state,
                       const ZydisDecodedOperand *operand, bool is_quad)
{
    uint8_t *bytes = state->vector[ZydisRegisterGetId(operand->mem.index)];
    for (unsigned i = 0; i < 32; i += is_quad ? 8 : 4) {
        int64_t value = (int64_t)random_below(random, 256) - 128;
        if (random_chance(random, 5))
            value *= 64; /* as far as the guard pages */
        memcpy(bytes + i, &value, is_quad ? 8 : 4);
    }
}

/* An operand without base register: its displacement is in the instruction. */
static void aim_by_displacement(struct random *random, struct instruction *instruction,
                                uint64_t *index, unsigned scale, uint64_t target)
{
    if (index != NULL) {
        *index = random_below(random, 4096);
        target -= *index * scale;
    }
    memcpy(instruction->bytes + instruction->info.raw.disp.offset, &target,
           instruction->info.raw.disp.size / 8);
}

static void aim(struct random *random, struct instruction *instruction, struct isa_state *state,
                const ZydisDecodedOperand *operand)
{
    uint64_t target = choose_target(random, instruction, operand->size / 8);
    int64_t disp = operand->mem.disp.has_displacement ? operand->mem.disp.value : 0;
    if (operand->mem.type == ZYDIS_MEMOP_TYPE_VSIB) {
        bool is_quad = strstr(ZydisMnemonicGetString(instruction->info.mnemonic), "gatherq");
        target = ISA_SCRATCH + 2048 + random_below(random, 4096);
        tame_index(random, state, operand, is_quad);
    }
    instruction->target = target;
    if (operand->mem.base == ZYDIS_REGISTER_RIP) {
        int32_t relative = (int32_t)(target - ISA_CODE - instruction->info.length);
        memcpy(instruction->bytes + instruction->info.raw.disp.offset, &relative, 4);
        return;
    }
    if (operand->mem.segment == ZYDIS_REGISTER_GS)
        target -= ISA_GS_BASE;
    uint64_t *base = gpr_slot(state, operand->mem.base);
    uint64_t *index = gpr_slot(state, operand->mem.index);
    if (base == NULL && instruction->info.raw.disp.size >= 32) {
        aim_by_displacement(random, instruction, index, operand->mem.scale, target);
        return;
    }
    if (base == NULL || (random_chance(random, 1) && !must_be_aimed(&instruction->info)))
        return;
    uint64_t offset = 0;
    if (index == base) { /* scale + 1 is 2, 3, 5 or 9 */
        *base = (target - (uint64_t)disp) / (1u + operand->mem.scale);
        return;
    }
    if (index != NULL) {
        if (random_chance(random, 50))
            *index = random_below(random, 4096);
        offset = *index * operand->mem.scale;
    }
    *base = target - (uint64_t)disp - offset;
}

static uint64_t effective_address(const struct instruction *instruction, struct isa_state *state,
                                  const ZydisDecodedOperand *operand)
{
    uint64_t address = operand->mem.disp.has_displacement ? (uint64_t)operand->mem.disp.value : 0;
    const uint64_t *base = gpr_slot(state, operand->mem.base);
    const uint64_t *index = gpr_slot(state, operand->mem.index);
    if (operand->mem.base == ZYDIS_REGISTER_RIP || operand->mem.base == ZYDIS_REGISTER_EIP)
        address += ISA_CODE + instruction->info.length;
    address += (base != NULL ? *base : 0) + (index != NULL ? *index * operand->mem.scale : 0);
    if (instruction->info.address_width == 32)
        address &= UINT32_MAX;
    return address + (operand->mem.segment == ZYDIS_REGISTER_GS ? ISA_GS_BASE : 0);
}

/* Whether an access stays away from what the test's own process has in memory. */
static bool is_harmless(const struct instruction *instruction, struct isa_state *state,
                        const ZydisDecodedOperand *operand)
{
    if (operand->mem.type == ZYDIS_MEMOP_TYPE_AGEN || operand->mem.type == ZYDIS_MEMOP_TYPE_MIB)
        return true;
    uint64_t at = effective_address(instruction, state, operand);
    return at - (ISA_SCRATCH - ISA_PAGE) < ISA_SCRATCH_BYTES + ISA_PAGE || at < 0x1000 ||
           at - (UINT64_C(1) << 47) < (UINT64_C(0xffff) << 48);
}

/* A bit offset in a register moves the operand: not far. */
static void tame_bit_offset(struct random *random, const struct instruction *instruction,
                            struct isa_state *state)
{
    uint64_t offset = random_below(random, 8192) - UINT64_C(4096);
    if (instruction->operands[0].type == ZYDIS_OPERAND_TYPE_MEMORY &&
        instruction->operands[1].type == ZYDIS_OPERAND_TYPE_REGISTER)
        state->gpr[ZydisRegisterGetId(instruction->operands[1].reg.value)] = offset;
}

/* False: an operand went astray. */
static bool aim_all(struct random *random, struct instruction *instruction, struct isa_state *state)
{
    for (unsigned i = 0; i < instruction->info.operand_count; i++)
        if (instruction->operands[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
            aim(random, instruction, state, &instruction->operands[i]);
    /* What takes lengths from registers, with lengths that matter. */
    switch (instruction->info.mnemonic) {
    case ZYDIS_MNEMONIC_PCMPESTRI:
    case ZYDIS_MNEMONIC_PCMPESTRM:
    case ZYDIS_MNEMONIC_VPCMPESTRI:
    case ZYDIS_MNEMONIC_VPCMPESTRM:
        if (random_chance(random, 70))
            state->gpr[RAX] = (uint64_t)(int64_t)(int)(random_below(random, 40) - 20);
        break;
    case ZYDIS_MNEMONIC_ENTER: state->gpr[RBP] = random_target(random, 8); break; /* old frames */
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTC:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTS: tame_bit_offset(random, instruction, state); break;
    default: break;
    }
    decode(instruction, instruction->info.length); /* RIP-relative displacements have changed */
    for (unsigned i = 0; i < instruction->info.operand_count; i++)
        if (instruction->operands[i].type == ZYDIS_OPERAND_TYPE_MEMORY &&
            !is_harmless(instruction, state, &instruction->operands[i]))
            return false;
    return true;
}

/* --- comparison --------------------------------------------------------------------------- */

struct counts {
    uint64_t cases, faults, not_offered, differences;
    uint64_t category[ZYDIS_ISA_SET_MAX_VALUE + 1];
    uint64_t mnemonic[ZYDIS_MNEMONIC_MAX_VALUE + 1];
    uint64_t refused[ZYDIS_MNEMONIC_MAX_VALUE + 1];
};

static uint8_t *shadow; /* the software processor's scratch memory */

/* x87 pointers (FOP, FIP, FDP). AMD's processors show them only while an unmasked exception is
 * pending, zeros otherwise; the software processor keeps them as Intel's do, always. FDP after an
 * instruction without memory operand is undefined. */
static bool pointers_are_equal(const struct instruction *instruction, const struct isa_state *host,
                               const struct isa_state *soft)
{
    static const uint8_t zero[18];
    if (memcmp(host->fx + 6, zero, sizeof(zero)) == 0)
        return true;
    bool has_memory = instruction->info.raw.modrm.mod != 3;
    /* FOP, and 48 bits of FIP and FDP: processors differ in how far they sign-extend. */
    return memcmp(host->fx + 6, soft->fx + 6, 8) == 0 &&
           (!has_memory || memcmp(host->fx + 16, soft->fx + 16, 6) == 0);
}

static void print_bytes(const char *name, const uint8_t *in, const uint8_t *host,
                        const uint8_t *soft, unsigned length)
{
    if (memcmp(host, soft, length) == 0)
        return;
    const uint8_t *all[3] = {in, host, soft};
    static const char *const titles[3] = {"before", "host", "soft"};
    for (unsigned k = 0; k < 3; k++) {
        printf("  %-6s %-6s", name, titles[k]);
        for (unsigned i = length; i-- > 0;)
            printf("%02x%s", all[k][i], i % 4 == 0 ? " " : "");
        printf("\n");
    }
}

static void print_inputs(const struct instruction *instruction, const struct isa_state *in)
{
    for (unsigned i = 0; i < instruction->info.operand_count; i++) {
        const ZydisDecodedOperand *operand = &instruction->operands[i];
        if (operand->type != ZYDIS_OPERAND_TYPE_REGISTER)
            continue;
        int id = ZydisRegisterGetId(operand->reg.value);
        switch (ZydisRegisterGetClass(operand->reg.value)) {
        case ZYDIS_REGCLASS_XMM:
        case ZYDIS_REGCLASS_YMM:
            printf("  in v%-3d       ", id);
            for (unsigned k = 32; k-- > 0;)
                printf("%02x%s", in->vector[id][k], k % 4 == 0 ? " " : "");
            printf("\n");
            break;
        case ZYDIS_REGCLASS_GPR32:
        case ZYDIS_REGCLASS_GPR64:
            printf("  in r%-3d       %016" PRIx64 "\n", id, in->gpr[id]);
            break;
        default: break;
        }
    }
}

static void print_difference(const struct instruction *instruction, const struct isa_state *in,
                             const struct isa_state *host, const struct isa_state *soft,
                             uint64_t seed)
{
    static const char *const names[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                          "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
    ZydisFormatter formatter;
    char text[128], name[8];
    ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
    ZydisFormatterFormatInstruction(&formatter, &instruction->info, instruction->operands,
                                    instruction->info.operand_count_visible, text, sizeof(text),
                                    ISA_CODE, NULL);
    printf("difference: %s  [", text);
    for (unsigned i = 0; i < instruction->info.length; i++)
        printf("%02x", instruction->bytes[i]);
    printf("]  repeat with: 1 0x%" PRIx64 "\n", seed);
    if (host->fault != soft->fault || host->fault != ISA_NO_FAULT)
        printf("  fault  host %d (%x) %" PRIx64 ", soft %d (%x) %" PRIx64 "\n", host->fault,
               host->error_code, host->fault_address, soft->fault, soft->error_code,
               soft->fault_address);
    print_inputs(instruction, in);
    for (unsigned n = 0; n < 16; n++)
        print_bytes(names[n], (const uint8_t *)&in->gpr[n], (const uint8_t *)&host->gpr[n],
                    (const uint8_t *)&soft->gpr[n], 8);
    print_bytes("flags", (const uint8_t *)&in->rflags, (const uint8_t *)&host->rflags,
                (const uint8_t *)&soft->rflags, 4);
    for (unsigned n = 0; n < 16; n++) {
        snprintf(name, sizeof(name), "v%u", n);
        print_bytes(name, in->vector[n], host->vector[n], soft->vector[n], 32);
    }
    print_bytes("fctl", in->fx, host->fx, soft->fx, 6);
    if (!pointers_are_equal(instruction, host, soft))
        print_bytes("fptr", in->fx + 6, host->fx + 6, soft->fx + 6, 18);
    print_bytes("mxcsr", in->fx + 24, host->fx + 24, soft->fx + 24, 4);
    for (unsigned n = 0; n < 8; n++) {
        snprintf(name, sizeof(name), "st%u", n);
        print_bytes(name, in->fx + 32 + n * 16, host->fx + 32 + n * 16, soft->fx + 32 + n * 16, 10);
    }
    for (unsigned i = 0; i < ISA_WRITABLE_BYTES; i++)
        if (native_scratch()[i] != shadow[i])
            printf("  memory at %x: host %02x, soft %02x\n", i, native_scratch()[i], shadow[i]);
}

/* Whether the instruction stores or loads a whole x87 state, in an order of its own. */
static bool is_x87_area(const ZydisDecodedInstruction *info)
{
    switch (info->mnemonic) {
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FRSTOR:
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64: return true;
    default: return false;
    }
}

/* Whether both RSI and RDI are outside of scratch memory, so far as CMPS and MOVS look at them. */
static bool operands_fault(const struct isa_state *state)
{
    return state->gpr[RSI] - ISA_SCRATCH > ISA_WRITABLE_BYTES - 8 &&
           state->gpr[RDI] - ISA_SCRATCH > ISA_WRITABLE_BYTES - 8;
}

static bool faults_are_equal(const struct instruction *instruction, const struct isa_state *host,
                             const struct isa_state *soft)
{
    /* Of two operands that both fault, either may be told. */
    if (instruction->info.meta.category == ZYDIS_CATEGORY_STRINGOP && host->fault != ISA_NO_FAULT &&
        soft->fault != ISA_NO_FAULT && operands_fault(soft))
        return true;
    /* ENTER reads and writes the stack many times, in no order that the manual tells. */
    if (instruction->info.mnemonic == ZYDIS_MNEMONIC_ENTER)
        return (host->fault == ISA_NO_FAULT) == (soft->fault == ISA_NO_FAULT);
    if (host->fault != soft->fault || host->fault != VECTOR_PF)
        return host->fault == soft->fault;
    /* Areas of many parts may fault at any of them, masked stores at bytes not selected. */
    if (is_x87_area(&instruction->info) || is_masked_store(&instruction->info))
        return true;
    if (host->fault_address != soft->fault_address)
        return false;
    /* Elsewhere, in its kernel for one, the host may have pages; the other processor has not. */
    bool is_near =
        host->fault_address - (ISA_SCRATCH - ISA_PAGE) < ISA_SCRATCH_BYTES + 2 * ISA_PAGE;
    uint32_t code_mask = is_near ? ~0u : ~1u;
    return ((host->error_code ^ soft->error_code) & code_mask) == 0;
}

/* Where the pointers are in memory after FXSAVE, FNSTENV and FNSAVE: see pointers_are_equal. */
static void forget_pointers(const struct instruction *instruction, uint8_t *scratch)
{
    unsigned first = 0, length = 0, wide = instruction->info.operand_width == 16 ? 0 : 1;
    switch (instruction->info.mnemonic) {
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64: first = 6, length = 18; break;
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FNSAVE: first = wide ? 12 : 6, length = wide ? 14 : 8; break;
    default: return;
    }
    uint64_t at = instruction->target - ISA_SCRATCH;
    if (at >= ISA_WRITABLE_BYTES - 32)
        return;
    memset(scratch + at + first, 0, length);
    if (first == 6 && length == 18)
        memset(scratch + at + 28, 0, 4); /* MXCSR_MASK: AMD's has MM, which is not offered */
}

static bool memory_is_equal(const struct instruction *instruction, const struct isa_state *host)
{
    /* A part may have been stored before the fault; the software processor doesn't. */
    if (host->fault != ISA_NO_FAULT &&
        (is_x87_area(&instruction->info) || instruction->info.mnemonic == ZYDIS_MNEMONIC_ENTER))
        return true;
    forget_pointers(instruction, shadow);
    forget_pointers(instruction, native_scratch());
    return memcmp(native_scratch(), shadow, ISA_WRITABLE_BYTES) == 0;
}

static bool is_equal(const struct instruction *instruction, const struct isa_state *host,
                     const struct isa_state *soft)
{
    if (instruction->info.meta.isa_set == ZYDIS_ISA_SET_SHA && soft->fault == VECTOR_GP)
        return true; /* misaligned in spite of choose_target */
    if (host->fx[26] & 2)
        return true; /* loaded MXCSR.MM, which is AMD's and not offered: #GP in the other */
    if (!faults_are_equal(instruction, host, soft))
        return false;
    if (memcmp(host->gpr, soft->gpr, sizeof(host->gpr)) != 0 ||
        memcmp(host->vector, soft->vector, sizeof(host->vector)) != 0)
        return false;
    const uint64_t flags = RFLAGS_ARITHMETIC | RFLAGS_DF;
    if ((host->rflags & flags) != (soft->rflags & flags))
        return false;
    if (memcmp(host->fx, soft->fx, 6) != 0 || memcmp(host->fx + 24, soft->fx + 24, 4) != 0)
        return false;
    if (!pointers_are_equal(instruction, host, soft))
        return false;
    for (unsigned i = 0; i < 8; i++)
        if (memcmp(host->fx + 32 + i * 16, soft->fx + 32 + i * 16, 10) != 0)
            return false;
    return memory_is_equal(instruction, host);
}

/* Memory too depends on the case's seed alone: a window of a fixed pool of values. */
static uint8_t pool[64 << 10];

static bool open_memory(void)
{
    struct random random = {.state = 0x1234567};
    random_bytes(&random, pool, sizeof(pool));
    memcpy(shadow, pool, ISA_SCRATCH_BYTES);
    return native_fill(shadow);
}

static void fill_memory(struct random *random)
{
    unsigned at = random_below(random, (sizeof(pool) - ISA_WRITABLE_BYTES) / 8) * 8;
    memcpy(shadow, pool + at, ISA_WRITABLE_BYTES);
    memcpy(native_scratch(), pool + at, ISA_WRITABLE_BYTES);
}

/* Mnemonics to leave out, from the command line. */
struct exceptions {
    char **names;
    int count;
};

static bool is_left_out(const struct exceptions *exceptions, ZydisMnemonic mnemonic)
{
    for (int i = 0; i < exceptions->count; i++)
        if (strcmp(exceptions->names[i], ZydisMnemonicGetString(mnemonic)) == 0)
            return true;
    return false;
}

static void run_case(struct machine *machine, uint64_t seed, const struct exceptions *exceptions,
                     struct counts *counts)
{
    struct random random = {.state = seed};
    struct instruction instruction;
    struct isa_state in;
    do {
        random_instruction(&random, &instruction);
        random_state(&random, &in);
    } while (!aim_all(&random, &instruction, &in) ||
             is_left_out(exceptions, instruction.info.mnemonic));
    struct isa_state host = in, soft = in;
    fill_memory(&random);
    if (!machine_offers(machine, instruction.bytes, instruction.info.length)) {
        counts->not_offered++;
        counts->refused[instruction.info.mnemonic]++;
        return;
    }
    machine_run(machine, &soft, instruction.bytes, instruction.info.length);
    native_run(&host, instruction.bytes, instruction.info.length);
    counts->cases++;
    counts->faults += host.fault != ISA_NO_FAULT;
    counts->category[instruction.info.meta.isa_set]++;
    counts->mnemonic[instruction.info.mnemonic]++;
    if (!is_equal(&instruction, &host, &soft)) {
        if (counts->differences++ < MAX_DIFFERENCES)
            print_difference(&instruction, &in, &host, &soft, seed);
    }
}

static void print_counts(const struct counts *counts)
{
    unsigned mnemonics = 0;
    for (unsigned i = 0; i <= ZYDIS_MNEMONIC_MAX_VALUE; i++)
        mnemonics += counts->mnemonic[i] != 0;
    printf("%" PRIu64 " cases, %" PRIu64 " of them faults, of %u mnemonics; %" PRIu64
           " instructions not offered\n",
           counts->cases, counts->faults, mnemonics, counts->not_offered);
    for (unsigned i = 0; i <= ZYDIS_ISA_SET_MAX_VALUE; i++)
        if (counts->category[i] != 0)
            printf("  %-12s %" PRIu64 "\n", ZydisISASetGetString((ZydisISASet)i),
                   counts->category[i]);
    for (unsigned i = 0; getenv("SKEP_MNEMONICS") && i <= ZYDIS_MNEMONIC_MAX_VALUE; i++)
        if (counts->mnemonic[i] != 0)
            printf("    %s %" PRIu64 "\n", ZydisMnemonicGetString((ZydisMnemonic)i),
                   counts->mnemonic[i]);
    for (unsigned i = 0; getenv("SKEP_MNEMONICS") && i <= ZYDIS_MNEMONIC_MAX_VALUE; i++)
        if (counts->refused[i] != 0)
            printf("    not offered: %s %" PRIu64 "\n", ZydisMnemonicGetString((ZydisMnemonic)i),
                   counts->refused[i]);
    printf("%" PRIu64 " differences\n", counts->differences);
}

int main(int argc, char **argv)
{
    uint64_t cases = argc > 1 ? strtoull(argv[1], NULL, 0) : DEFAULT_CASES;
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : UINT64_C(0x9e3779b97f4a7c15);
    /* The software processor first: signals are to come to the native side before it. */
    struct machine *machine = machine_open();
    shadow = machine_scratch(machine);
    if (!native_open() || !open_memory()) {
        fprintf(stderr, "cannot map the test's memory\n");
        return 77;
    }
    struct exceptions exceptions = {argv + 3, argc > 3 ? argc - 3 : 0};
    struct counts counts = {0};
    struct random random = {.state = seed};
    for (uint64_t i = 0; counts.cases < cases && i < cases * 100; i++) {
        uint64_t case_seed = i == 0 ? seed : random_next(&random) | 1;
        run_case(machine, case_seed, &exceptions, &counts);
    }
    machine_close(machine);
    print_counts(&counts);
    return counts.differences != 0;
}
