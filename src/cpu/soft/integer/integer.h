/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What the integer handlers share: typed register access, binding by operand form, and pieces of
 * host assembly that load and store the guest's arithmetic flags (see cpu.h, cpu->cc).
 */
#ifndef SKEP_CPU_SOFT_INTEGER_INTEGER_H
#define SKEP_CPU_SOFT_INTEGER_INTEGER_H

#include "cpu/soft/memory.h"

/* Each file binds a group of mnemonics and says whether the instruction was one of them. */
bool bind_alu(const struct insn *insn, struct op *op);
bool bind_shift(const struct insn *insn, struct op *op);
bool bind_multiply(const struct insn *insn, struct op *op);
bool bind_move(const struct insn *insn, struct op *op);
bool bind_stack(const struct insn *insn, struct op *op);
bool bind_bits(const struct insn *insn, struct op *op);
bool bind_bmi(const struct insn *insn, struct op *op);
bool bind_atomic(const struct insn *insn, struct op *op);
bool bind_branch(const struct insn *insn, struct op *op);
bool bind_string(const struct insn *insn, struct op *op);
bool bind_decimal(const struct insn *insn, struct op *op);

/* Host assembly. AX holds the guest's flags in the form of cpu->cc: LAHF stores the low byte of
 * RFLAGS to AH, SETO stores OF to AL. ADD of 127 to AL sets OF again when AL is 1. */
#define FLAGS_OUT "lahf\n\tseto %%al\n\t"
#define FLAGS_IN  "addb $127, %%al\n\tsahf\n\t"
#define CARRY_IN  "btl $8, %%eax\n\t"

/* In op->flags: the operand that may be a register or memory is in memory, for handlers that serve
 * both. */
enum { OP_MEMORY_SOURCE = 1 << 15 };

/* Operands in guest memory: of any alignment and type. */
typedef uint8_t word8;
typedef uint16_t word16 __attribute__((aligned(1), may_alias));
typedef uint32_t word32 __attribute__((aligned(1), may_alias));
typedef uint64_t word64 __attribute__((aligned(1), may_alias));

static inline uint8_t get8(struct cpu *cpu, uint8_t offset)
{
    return *op_reg8(cpu, offset);
}
static inline uint16_t get16(struct cpu *cpu, uint8_t offset)
{
    return *op_reg16(cpu, offset);
}
static inline uint32_t get32(struct cpu *cpu, uint8_t offset)
{
    return (uint32_t)*op_reg64(cpu, offset);
}
static inline uint64_t get64(struct cpu *cpu, uint8_t offset)
{
    return *op_reg64(cpu, offset);
}
static inline void put8(struct cpu *cpu, uint8_t offset, uint8_t value)
{
    *op_reg8(cpu, offset) = value;
}
static inline void put16(struct cpu *cpu, uint8_t offset, uint16_t value)
{
    *op_reg16(cpu, offset) = value;
}
static inline void put32(struct cpu *cpu, uint8_t offset, uint32_t value)
{
    *op_reg64(cpu, offset) = value;
}
static inline void put64(struct cpu *cpu, uint8_t offset, uint64_t value)
{
    *op_reg64(cpu, offset) = value;
}

/* 0 … 3 for 1, 2, 4, 8 bytes. */
static inline unsigned size_index(unsigned size_bytes)
{
    return (unsigned)__builtin_ctz(size_bytes);
}

/* Places in a row of handlers for one operation and size. */
enum { AT_RR, AT_RI, AT_RM, AT_MR, AT_MI, AT_LOCK_MR, AT_LOCK_MI, AT_R, AT_M, AT_LOCK_M, AT_COUNT };

/* The place for the instruction's form and LOCK prefix; AT_COUNT when there is none. */
unsigned place_of(const struct insn *insn, const struct op *op);

/* Binds from a table of [size][place]; false when the place is empty. */
bool bind_row(const struct insn *insn, struct op *op, op_fn *const table[4][AT_COUNT]);

#endif
