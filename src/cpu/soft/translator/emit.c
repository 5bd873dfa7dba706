/* SPDX-License-Identifier: BSD-2-Clause
 * Host instructions, encoded: see emit.h and SDM 2A 2.1, 2.2. */
#include "cpu/soft/translator/emit.h"

#include <assert.h>
#include <string.h>

/* Inline here, where most bytes are written one by one. */
static inline void put(struct emitter *e, const void *bytes, unsigned count)
{
    assert((size_t)(e->end - e->at) >= count);
    memcpy(e->at, bytes, count);
    e->at += count;
}

static inline void put8(struct emitter *e, unsigned value)
{
    const uint8_t byte = (uint8_t)value;
    put(e, &byte, 1);
}

void emit_bytes(struct emitter *e, const void *bytes, unsigned count)
{
    put(e, bytes, count);
}

void emit8(struct emitter *e, uint8_t value)
{
    put(e, &value, 1);
}

void emit32(struct emitter *e, uint32_t value)
{
    put(e, &value, 4);
}

void emit64(struct emitter *e, uint64_t value)
{
    put(e, &value, 8);
}

void emit_imm(struct emitter *e, uint64_t value, unsigned size_bytes)
{
    emit_bytes(e, &value, size_bytes > 4 ? 4 : size_bytes);
}

static bool is_high_byte(unsigned reg)
{
    return reg >= HOST_AH && reg <= HOST_BH;
}

static unsigned low_bits(unsigned reg)
{
    return is_high_byte(reg) ? reg - HOST_AH + 4 : reg & 7;
}

static unsigned extension_bit(unsigned reg)
{
    return reg < 16 ? reg >> 3 : 0;
}

/* SPL BPL SIL DIL are named with a REX prefix only. */
static bool needs_rex(unsigned byte_reg)
{
    return byte_reg >= 4 && byte_reg < 8;
}

static void emit_memory(struct emitter *e, unsigned reg, const struct rm *rm)
{
    unsigned field = low_bits(reg) << 3;
    if (rm->base == HOST_NONE) {
        unsigned index = rm->index == HOST_NONE ? 4 : low_bits(rm->index);
        put8(e, field | 4);
        put8(e, (unsigned)rm->scale << 6 | index << 3 | 5);
        emit32(e, (uint32_t)rm->disp);
        return;
    }
    unsigned base = low_bits(rm->base);
    bool is_short = rm->disp >= -128 && rm->disp < 128;
    unsigned mod = rm->disp == 0 && base != 5 ? 0x00 : is_short ? 0x40 : 0x80;
    if (rm->index != HOST_NONE || base == 4) {
        unsigned index = rm->index == HOST_NONE ? 4 : low_bits(rm->index);
        put8(e, mod | field | 4);
        put8(e, (unsigned)rm->scale << 6 | index << 3 | base);
    } else {
        put8(e, (uint8_t)(mod | field | base));
    }
    if (mod == 0x40)
        put8(e, (uint8_t)rm->disp);
    else if (mod == 0x80)
        emit32(e, (uint32_t)rm->disp);
}

static unsigned rex_of(unsigned opcode, unsigned size_bytes, unsigned reg, const struct rm *rm)
{
    bool has_extension = opcode & EMIT_EXTENSION;
    bool is_rm8 = size_bytes == 1 || (opcode & EMIT_RM8);
    unsigned rex = size_bytes == 8 ? 0x48 : 0;
    if (!has_extension && extension_bit(reg))
        rex |= 0x44;
    if (rm->is_reg) {
        if (extension_bit(rm->reg))
            rex |= 0x41;
        if (is_rm8 && needs_rex(rm->reg))
            rex |= 0x40;
    } else {
        if (rm->base != HOST_NONE && extension_bit(rm->base))
            rex |= 0x41;
        if (rm->index != HOST_NONE && extension_bit(rm->index))
            rex |= 0x42;
    }
    if (size_bytes == 1 && !has_extension && needs_rex(reg))
        rex |= 0x40;
    assert(rex == 0 || !(is_high_byte(reg) || (rm->is_reg && is_high_byte(rm->reg))));
    return rex;
}

void emit_modrm(struct emitter *e, unsigned opcode, unsigned size_bytes, unsigned reg, struct rm rm)
{
    unsigned prefix = opcode >> 16 & 0xff;
    if (opcode & EMIT_LOCK)
        put8(e, 0xf0);
    if (size_bytes == 2)
        put8(e, 0x66);
    if (prefix)
        put8(e, (uint8_t)prefix);
    unsigned rex = rex_of(opcode, size_bytes, reg, &rm);
    if (rex)
        put8(e, (uint8_t)rex);
    switch (opcode >> 8 & 3) {
    case 1: put8(e, 0x0f); break;
    case 2: put(e, "\x0f\x38", 2); break;
    case 3: put(e, "\x0f\x3a", 2); break;
    default: break;
    }
    put8(e, (uint8_t)opcode);
    if (rm.is_reg)
        put8(e, (uint8_t)(0xc0 | low_bits(reg) << 3 | low_bits(rm.reg)));
    else
        emit_memory(e, reg, &rm);
}

void emit_vex(struct emitter *e, unsigned map, uint8_t last, uint8_t opcode, unsigned reg,
              struct rm rm)
{
    bool r = reg & 8;
    bool x = !rm.is_reg && rm.index != HOST_NONE && (rm.index & 8);
    bool b = rm.is_reg ? rm.reg & 8 : rm.base != HOST_NONE && (rm.base & 8);
    EMIT(e, 0xc4, (uint8_t)((r ? 0 : 0x80) | (x ? 0 : 0x40) | (b ? 0 : 0x20) | map), last, opcode);
    if (rm.is_reg)
        emit8(e, (uint8_t)(0xc0 | (reg & 7) << 3 | (rm.reg & 7)));
    else
        emit_memory(e, reg & 7, &rm);
}

void emit_mov_rr(struct emitter *e, unsigned to, unsigned from)
{
    emit_modrm(e, 0x8b, 8, to, rm_reg(from));
}

void emit_load(struct emitter *e, unsigned to, struct rm from)
{
    emit_modrm(e, 0x8b, 8, to, from);
}

void emit_store(struct emitter *e, struct rm to, unsigned from)
{
    emit_modrm(e, 0x89, 8, from, to);
}

void emit_lea(struct emitter *e, unsigned to, struct rm from)
{
    emit_modrm(e, 0x8d, 8, to, from);
}

uint8_t *emit_lea_rip(struct emitter *e, unsigned to)
{
    EMIT(e, (uint8_t)(to >= 8 ? 0x4c : 0x48), 0x8d, (uint8_t)((to & 7) << 3 | 5));
    emit32(e, 0);
    return e->at - 4;
}

void emit_mov_imm(struct emitter *e, unsigned to, uint64_t value)
{
    if (value <= UINT32_MAX) {
        if (to >= 8)
            emit8(e, 0x41);
        emit8(e, (uint8_t)(0xb8 | (to & 7)));
        emit32(e, (uint32_t)value);
    } else if ((int64_t)value == (int32_t)value) {
        emit_modrm(e, 0xc7 | EMIT_EXTENSION, 8, 0, rm_reg(to));
        emit32(e, (uint32_t)value);
    } else {
        EMIT(e, (uint8_t)(to >= 8 ? 0x49 : 0x48), (uint8_t)(0xb8 | (to & 7)));
        emit64(e, value);
    }
}

void emit_alu_imm(struct emitter *e, unsigned digit, unsigned size_bytes, struct rm rm,
                  int32_t value, unsigned flags)
{
    flags |= EMIT_EXTENSION;
    if (size_bytes == 1) {
        emit_modrm(e, 0x80 | flags, 1, digit, rm);
        emit8(e, (uint8_t)value);
        return;
    }
    int32_t as_wide = size_bytes == 2 ? (int16_t)value : value;
    if (as_wide >= -128 && as_wide < 128) {
        emit_modrm(e, 0x83 | flags, size_bytes, digit, rm);
        emit8(e, (uint8_t)value);
    } else {
        emit_modrm(e, 0x81 | flags, size_bytes, digit, rm);
        emit_imm(e, (uint32_t)value, size_bytes);
    }
}

uint8_t *emit_jcc(struct emitter *e, unsigned condition)
{
    EMIT(e, 0x0f, (uint8_t)(0x80 | condition));
    emit32(e, 0);
    return e->at - 4;
}

uint8_t *emit_jmp(struct emitter *e)
{
    emit8(e, 0xe9);
    emit32(e, 0);
    return e->at - 4;
}

uint8_t *emit_call(struct emitter *e)
{
    emit8(e, 0xe8);
    emit32(e, 0);
    return e->at - 4;
}

void emit_bind(uint8_t *distance, const uint8_t *target)
{
    int32_t value = (int32_t)(target - (distance + 4));
    memcpy(distance, &value, sizeof(value));
}
