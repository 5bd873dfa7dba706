/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Host instructions, encoded. A small assembler for what the translator emits: one function for
 * everything with a ModRM byte, and a few for the rest. Private to cpu/soft/translator.
 */
#ifndef SKEP_CPU_SOFT_TRANSLATOR_EMIT_H
#define SKEP_CPU_SOFT_TRANSLATOR_EMIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Where code is written. All jumps inside are relative, so it doesn't matter that it runs in
 * another mapping. Who begins to emit makes sure of the room. */
struct emitter {
    uint8_t *at;
    uint8_t *end;
};

enum host_reg {
    HOST_RAX,
    HOST_RCX,
    HOST_RDX,
    HOST_RBX,
    HOST_RSP,
    HOST_RBP,
    HOST_RSI,
    HOST_RDI,
    HOST_R8,
    HOST_R9,
    HOST_R10,
    HOST_R11,
    HOST_R12,
    HOST_R13,
    HOST_R14,
    HOST_R15,
    HOST_AH, /* AH CH DH BH: only where no REX prefix is needed */
    HOST_CH,
    HOST_DH,
    HOST_BH,
    HOST_NONE = 0xff,
};

/* What a ModRM byte's rm names: a register, or [base + index << scale + disp]. Without base the
 * displacement is absolute. */
struct rm {
    bool is_reg;
    uint8_t reg;
    uint8_t base, index, scale;
    int32_t disp;
};

static inline struct rm rm_reg(unsigned reg)
{
    return (struct rm){.is_reg = true, .reg = (uint8_t)reg};
}

static inline struct rm rm_mem(unsigned base, int32_t disp)
{
    return (struct rm){.base = (uint8_t)base, .index = HOST_NONE, .disp = disp};
}

static inline struct rm rm_indexed(unsigned base, unsigned index, unsigned scale, int32_t disp)
{
    return (struct rm){
        .base = (uint8_t)base, .index = (uint8_t)index, .scale = (uint8_t)scale, .disp = disp};
}

/* An opcode with its map and mandatory prefix; LOCK; and which operands of a byte instruction are
 * none (an opcode extension) or wider. */
#define IN_0F(opcode)           (0x100 | (opcode))
#define IN_0F38(opcode)         (0x200 | (opcode))
#define IN_0F3A(opcode)         (0x300 | (opcode))
#define WITH_PREFIX(prefix, op) ((unsigned)(prefix) << 16 | (op))
enum { EMIT_LOCK = 1 << 24, EMIT_EXTENSION = 1 << 25, EMIT_RM8 = 1 << 26 };

/* prefix REX opcode ModRM SIB disp. `size_bytes` is the operand size: 1 2 4 8. With
 * EMIT_EXTENSION `reg` is a digit of the opcode; with EMIT_RM8 rm is a byte though size isn't. */
void emit_modrm(struct emitter *e, unsigned opcode, unsigned size_bytes, unsigned reg,
                struct rm rm);

/* VEX, opcode, ModRM …: `map` is m-mmmm, `last` W vvvv L pp as encoded. */
void emit_vex(struct emitter *e, unsigned map, uint8_t last, uint8_t opcode, unsigned reg,
              struct rm rm);

void emit_bytes(struct emitter *e, const void *bytes, unsigned count);
void emit8(struct emitter *e, uint8_t value);
void emit32(struct emitter *e, uint32_t value);
void emit64(struct emitter *e, uint64_t value);
#define EMIT(e, ...) emit_bytes(e, (const uint8_t[]){__VA_ARGS__}, sizeof((uint8_t[]){__VA_ARGS__}))

/* An immediate as long as an instruction of the size takes it: 1, 2 or 4 bytes. */
void emit_imm(struct emitter *e, uint64_t value, unsigned size_bytes);

void emit_mov_rr(struct emitter *e, unsigned to, unsigned from);   /* 64 bits */
void emit_load(struct emitter *e, unsigned to, struct rm from);    /* 64 bits */
void emit_store(struct emitter *e, struct rm to, unsigned from);   /* 64 bits */
void emit_mov_imm(struct emitter *e, unsigned to, uint64_t value); /* leaves flags */
void emit_lea(struct emitter *e, unsigned to, struct rm from);     /* 64 bits */
/* The address of code whose distance is bound later. */
uint8_t *emit_lea_rip(struct emitter *e, unsigned to);
/* digit: 0 ADD 1 OR 2 ADC 3 SBB 4 AND 5 SUB 6 XOR 7 CMP, with the shortest immediate. */
void emit_alu_imm(struct emitter *e, unsigned digit, unsigned size_bytes, struct rm rm,
                  int32_t value, unsigned flags);

/* Jumps with 32-bit distances. They give the place of the distance; bind sets it. */
enum {
    CONDITION_B = 2,
    CONDITION_E = 4,
    CONDITION_NE = 5,
    CONDITION_A = 7,
    CONDITION_BE = 6,
    CONDITION_AE = 3,
    CONDITION_G = 15
};
uint8_t *emit_jcc(struct emitter *e, unsigned condition);
uint8_t *emit_jmp(struct emitter *e);
uint8_t *emit_call(struct emitter *e);
void emit_bind(uint8_t *distance, const uint8_t *target);

#endif
