/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Random instructions and states: see generate.h. Instructions are random bytes with the structure
 * of an encoding (legacy maps, VEX maps, x87), kept when Zydis knows them.
 */
#include "isa/generate.h"

#include "cpu/soft/cpu.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

uint64_t random_next(struct random *random)
{
    random->state ^= random->state >> 12;
    random->state ^= random->state << 25;
    random->state ^= random->state >> 27;
    return random->state * UINT64_C(2685821657736338717);
}

unsigned random_below(struct random *random, unsigned limit)
{
    return (unsigned)((random_next(random) >> 32) * limit >> 32);
}

bool random_chance(struct random *random, unsigned percent)
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

void random_bytes(struct random *random, uint8_t *bytes, unsigned length)
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

void random_pool(uint8_t *pool, unsigned length)
{
    struct random random = {.state = 0x1234567};
    random_bytes(&random, pool, length);
}

void random_state(struct random *random, enum isa_mode mode, struct isa_state *state)
{
    memset(state, 0, sizeof(*state));
    state->mode = mode;
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
    isa_state_narrow(state);
}

/* --- instructions ------------------------------------------------------------------------- */

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

static unsigned random_rex(struct random *random, enum isa_mode mode, unsigned percent,
                           uint8_t *bytes)
{
    if (!random_chance(random, percent) || mode != ISA_64)
        return 0;
    bytes[0] = (uint8_t)(0x40 | random_below(random, 16));
    return 1;
}

static unsigned random_legacy(struct random *random, enum isa_mode mode, uint8_t *bytes)
{
    static const uint8_t mandatory[] = {0x66, 0xf2, 0xf3};
    static const uint8_t others[] = {0x66, 0x67, 0xf2, 0xf3, 0x64, 0x65, 0x2e, 0x3e};
    unsigned length = 0;
    if (random_chance(random, 10))
        bytes[length++] = others[random_below(random, sizeof(others))];
    if (random_chance(random, 60))
        bytes[length++] = mandatory[random_below(random, 3)];
    length += random_rex(random, mode, 40, bytes + length);
    bytes[length++] = 0x0f;
    unsigned map = random_below(random, 4);
    if (map == 2)
        bytes[length++] = 0x38;
    else if (map == 3)
        bytes[length++] = 0x3a;
    bytes[length++] = (uint8_t)random_next(random);
    return length + random_modrm(random, bytes + length);
}

static unsigned random_vex(struct random *random, enum isa_mode mode, uint8_t *bytes)
{
    unsigned length = 0;
    const uint8_t no_les = mode == ISA_64 ? 0 : 0xc0; /* LES and LDS are C4h and C5h, too */
    if (random_chance(random, 5))
        bytes[length++] = 0x67;
    if (random_chance(random, 20)) {
        bytes[length++] = 0xc5;
        bytes[length++] = (uint8_t)random_next(random) | no_les;
    } else {
        bytes[length++] = 0xc4;
        bytes[length] = (uint8_t)((random_next(random) & 0xe0) | (1 + random_below(random, 3)));
        bytes[length++] |= no_les;
        bytes[length++] = (uint8_t)random_next(random);
    }
    if (random_chance(random, 20))
        bytes[length - 1] |= 0x78; /* vvvv = 1111b, which many demand */
    bytes[length++] = (uint8_t)random_next(random);
    return length + random_modrm(random, bytes + length);
}

/* One-byte opcodes: the integer instructions of old. */
static unsigned random_base(struct random *random, enum isa_mode mode, uint8_t *bytes)
{
    static const uint8_t prefixes[] = {0x66, 0x67, 0xf2, 0xf3, 0xf0, 0x65, 0x2e, 0x26, 0x36, 0x3e};
    unsigned length = 0;
    while (random_chance(random, 30) && length < 3)
        bytes[length++] = prefixes[random_below(random, sizeof(prefixes))];
    length += random_rex(random, mode, 60, bytes + length);
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
    if (info->mnemonic == ZYDIS_MNEMONIC_BOUND || info->mnemonic == ZYDIS_MNEMONIC_ARPL)
        return true; /* unlike others of their categories */
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
    case ZYDIS_MNEMONIC_SERIALIZE: /* the host may have none */
    case ZYDIS_MNEMONIC_VMCALL:    /* who answers is the hypervisor that the host runs in */
    case ZYDIS_MNEMONIC_VMMCALL:
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_POPFQ: return false;
    default: return !(info->attributes & ZYDIS_ATTRIB_IS_PRIVILEGED);
    }
}

static bool decode(struct instruction *instruction, unsigned length)
{
    ZydisDecoder decoder;
    isa_decoder_init(&decoder, instruction->mode);
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

void random_instruction(struct random *random, enum isa_mode mode, struct instruction *instruction)
{
    instruction->mode = mode;
    unsigned kind = random_below(random, 10);
    for (;;) {
        uint8_t bytes[64];
        unsigned length = kind < 4   ? random_legacy(random, mode, bytes)
                          : kind < 6 ? random_vex(random, mode, bytes)
                          : kind < 7 ? random_x87(random, bytes)
                                     : random_base(random, mode, bytes);
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

bool is_masked_store(const ZydisDecodedInstruction *info)
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

static int gpr_of(ZydisRegister reg)
{
    switch (ZydisRegisterGetClass(reg)) {
    case ZYDIS_REGCLASS_GPR64:
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR16: return ZydisRegisterGetId(reg);
    default: return -1;
    }
}

static uint64_t *gpr_slot(struct isa_state *state, ZydisRegister reg)
{
    int n = gpr_of(reg);
    return n < 0 ? NULL : &state->gpr[n];
}

/* The bits of an operand's offset. Those on the stack have its width. */
static uint64_t offset_mask(const struct instruction *instruction,
                            const ZydisDecodedOperand *operand)
{
    unsigned width = instruction->info.address_width;
    if (instruction->mode != ISA_64 && operand->mem.base != ZYDIS_REGISTER_NONE)
        width = ZydisRegisterGetWidth(instruction->info.machine_mode, operand->mem.base);
    return width == 64 ? UINT64_MAX : (UINT64_C(1) << width) - 1;
}

/* Bits that don't belong to the address stay as they are. */
static void set_address(const struct instruction *instruction, const ZydisDecodedOperand *operand,
                        uint64_t *reg, uint64_t value)
{
    uint64_t mask = instruction->mode == ISA_64 ? UINT64_MAX : offset_mask(instruction, operand);
    *reg = (*reg & ~mask) | (value & mask);
}

static const struct isa_segment *segment_of(enum isa_mode mode, ZydisRegister segment)
{
    switch (segment) {
    case ZYDIS_REGISTER_CS: return isa_segment(mode, ISA_CS);
    case ZYDIS_REGISTER_SS: return isa_segment(mode, ISA_SS);
    case ZYDIS_REGISTER_ES: return isa_segment(mode, ISA_ES);
    case ZYDIS_REGISTER_GS: return isa_segment(mode, ISA_GS);
    default: return isa_segment(mode, ISA_DS);
    }
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

/* By the registers that it has: the base gets what is left when the index has its value. */
static void aim_by_registers(struct random *random, const struct instruction *instruction,
                             const ZydisDecodedOperand *operand, struct isa_state *state,
                             uint64_t target)
{
    uint64_t mask = offset_mask(instruction, operand), offset = 0;
    uint64_t *base = gpr_slot(state, operand->mem.base);
    uint64_t *index = gpr_slot(state, operand->mem.index);
    if (instruction->mode != ISA_64)
        target &= mask;
    if (index == base) { /* scale + 1 is 2, 3, 5 or 9 */
        set_address(instruction, operand, base, target / (1u + operand->mem.scale));
        return;
    }
    if (index != NULL) {
        if (random_chance(random, 50))
            set_address(instruction, operand, index, random_below(random, 4096));
        offset = (instruction->mode == ISA_64 ? *index : *index & mask) * operand->mem.scale;
    }
    set_address(instruction, operand, base, target - offset);
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
    target -= segment_of(instruction->mode, operand->mem.segment)->base;
    unsigned full_disp = instruction->info.address_width == 16 ? 16 : 32;
    if (operand->mem.base == ZYDIS_REGISTER_NONE && instruction->info.raw.disp.size >= full_disp)
        aim_by_displacement(random, instruction, gpr_slot(state, operand->mem.index),
                            operand->mem.scale, target);
    else if (gpr_slot(state, operand->mem.base) != NULL &&
             (must_be_aimed(&instruction->info) || !random_chance(random, 1)))
        aim_by_registers(random, instruction, operand, state, target - (uint64_t)disp);
}

uint64_t operand_address(const struct instruction *instruction, const struct isa_state *state,
                         const ZydisDecodedOperand *operand)
{
    uint64_t offset = operand->mem.disp.has_displacement ? (uint64_t)operand->mem.disp.value : 0;
    int base = gpr_of(operand->mem.base), index = gpr_of(operand->mem.index);
    if (operand->mem.base == ZYDIS_REGISTER_RIP || operand->mem.base == ZYDIS_REGISTER_EIP)
        offset += ISA_CODE + instruction->info.length;
    if (base >= 0)
        offset += state->gpr[base];
    if (index >= 0)
        offset += state->gpr[index] * operand->mem.scale;
    offset &= offset_mask(instruction, operand);
    uint64_t linear = offset + segment_of(instruction->mode, operand->mem.segment)->base;
    return instruction->mode == ISA_64 ? linear : (uint32_t)linear;
}

bool operand_is_in_limit(const struct instruction *instruction, uint64_t linear,
                         const ZydisDecodedOperand *operand)
{
    const struct isa_segment *segment = segment_of(instruction->mode, operand->mem.segment);
    uint32_t offset = (uint32_t)linear - segment->base, last = offset + operand->size / 8 - 1;
    if (instruction->mode == ISA_64)
        return true;
    if (segment->attributes & 0x4 && !(segment->attributes & 0x8)) /* expand-down data */
        return offset > segment->limit &&
               last <= (segment->attributes & SEGMENT_DB ? UINT32_MAX : UINT16_MAX);
    return offset <= last && last <= segment->limit;
}

enum { LEAST_MAPPED = 0x10000 }; /* Linux maps nothing below (vm.mmap_min_addr) */

/* Whether an access stays away from what the test's own process has in memory. */
static bool is_harmless(const struct instruction *instruction, const struct isa_state *state,
                        const ZydisDecodedOperand *operand)
{
    if (operand->mem.type == ZYDIS_MEMOP_TYPE_AGEN || operand->mem.type == ZYDIS_MEMOP_TYPE_MIB)
        return true;
    uint64_t at = operand_address(instruction, state, operand);
    return at - (ISA_SCRATCH - ISA_PAGE) < ISA_SCRATCH_BYTES + ISA_PAGE || at < LEAST_MAPPED ||
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
bool aim_all(struct random *random, struct instruction *instruction, struct isa_state *state)
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
    case ZYDIS_MNEMONIC_ENTER: /* old frames */
        state->gpr[RBP] = random_target(random, 8) - isa_segment(instruction->mode, ISA_SS)->base;
        break;
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTC:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTS: tame_bit_offset(random, instruction, state); break;
    default: break;
    }
    isa_state_narrow(state);
    decode(instruction, instruction->info.length); /* RIP-relative displacements have changed */
    for (unsigned i = 0; i < instruction->info.operand_count; i++)
        if (instruction->operands[i].type == ZYDIS_OPERAND_TYPE_MEMORY &&
            !is_harmless(instruction, state, &instruction->operands[i]))
            return false;
    return true;
}

void isa_tell_progress(uint64_t cases, uint64_t differences)
{
    if (cases % 100000 != 0)
        return;
    printf("%" PRIu64 " cases, %" PRIu64 " differences so far\n", cases, differences);
    fflush(stdout);
}
