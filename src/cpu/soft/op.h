/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A decoded instruction, and how instructions find their handlers. Private to cpu/soft.
 *
 * decode.c runs Zydis over guest code, fills a `struct op` with the operands, and asks in turn
 * bind_system, bind_integer and bind_vector for the handler.
 */
#ifndef SKEP_CPU_SOFT_OP_H
#define SKEP_CPU_SOFT_OP_H

#include "cpu/soft/cpu.h"

#include <stdbool.h>
#include <stdint.h>
#include <Zydis/Zydis.h>

typedef void op_fn(struct cpu *cpu, const struct op *op);

enum {
    OP_FLAT = 1 << 0,       /* the address is base + index * scale + disp: 64-bit mode, 64-bit
                               addresses, no FS or GS */
    OP_ADDRESS_32 = 1 << 1, /* cut the effective address to 32 bits */
    OP_ADDRESS_16 = 1 << 2, /* cut the effective address to 16 bits */
    OP_LOCK = 1 << 3,
    OP_REP = 1 << 4,        /* F3 */
    OP_REPNE = 1 << 5,      /* F2 */
    OP_ENDS_BLOCK = 1 << 6, /* the handler sets cpu->rip: control flow, or what can change mode,
                             TLB or IF, and what must be interruptible */
    OP_ALIGNED = 1 << 7,    /* memory operand must be aligned to its size, else #GP(0) */
    OP_ENDS_SOON = 1 << 8,  /* the next instruction is the block's last */
    OP_ALWAYS_BRANCHES = 1 << 9, /* JMP CALL RET, for the branch trap */
    OP_ANY_ALIGNMENT = 1 << 10,  /* no #AC: gathers and VMASKMOV */
};

struct op {
    op_fn *fn;
    uint64_t imm; /* immediate, sign-extended to 64 bits; for relative branches the distance from
                     the end of the instruction */
    int64_t disp; /* displacement; RIP-relative ones are already relative to GPR_BLOCK_RIP; moffs */
    void *aux;    /* a handler's own: a vector stub */
    /* Operands 0, 1 and 2. A general register: byte offset into cpu->gpr (AH … BH are odd). A
     * vector, x87, MMX, segment, control or debug register: its number. */
    uint8_t reg[3];
    uint8_t base, index; /* slots of cpu->gpr; GPR_ZERO when absent */
    uint8_t scale;       /* as a shift */
    uint8_t segment;     /* of the memory operand, after override and default */
    uint8_t size_bytes;  /* of operand 0 as it is accessed; see decode.c for the odd ones */
    uint8_t length;      /* in bytes, of the instruction */
    uint8_t imm2;        /* the second immediate of ENTER, EXTRQ and far pointers' selector: low */
    int16_t offset;      /* of the first byte from the block's start */
    uint16_t flags;
    uint16_t number; /* of this op in its block */
};

/* The kinds of the visible operands (info->operand_count_visible: those a disassembler shows, such
 * as the CL of a shift), in order. */
enum operand_kind { KIND_NONE, KIND_REG, KIND_MEM, KIND_IMM };
#define FORM(a, b, c) ((unsigned)(KIND_##a) | (unsigned)(KIND_##b) << 2 | (unsigned)(KIND_##c) << 4)
enum operand_form {
    FORM_NONE = FORM(NONE, NONE, NONE),
    FORM_R = FORM(REG, NONE, NONE),
    FORM_M = FORM(MEM, NONE, NONE),
    FORM_I = FORM(IMM, NONE, NONE),
    FORM_RR = FORM(REG, REG, NONE),
    FORM_RM = FORM(REG, MEM, NONE),
    FORM_MR = FORM(MEM, REG, NONE),
    FORM_RI = FORM(REG, IMM, NONE),
    FORM_MI = FORM(MEM, IMM, NONE),
    FORM_IR = FORM(IMM, REG, NONE),
    FORM_RRI = FORM(REG, REG, IMM),
    FORM_RMI = FORM(REG, MEM, IMM),
    FORM_MRI = FORM(MEM, REG, IMM),
    FORM_RRR = FORM(REG, REG, REG),
    FORM_RRM = FORM(REG, REG, MEM),
    FORM_RMR = FORM(REG, MEM, REG),
    FORM_MRR = FORM(MEM, REG, REG),
};

/* What a bind function sees beside the op that it completes. */
struct insn {
    const ZydisDecodedInstruction *info;
    const ZydisDecodedOperand *operands; /* all of them, hidden ones too: info->operand_count */
    const uint8_t *bytes;                /* info->length of them */
    unsigned form;                       /* enum operand_form of the visible operands 0 … 2 */
    uint32_t mode;                       /* enum cpu_mode bits */
    struct cpu *cpu;                     /* for the stub memory only; no guest state */
};

/* Each sets op->fn (and flags, aux) and returns true when the instruction is its own. */
bool bind_system(const struct insn *insn, struct op *op); /* system.c …: privileged, far, flags */
bool bind_integer(const struct insn *insn, struct op *op); /* integer*.c, string.c, branch.c */
bool bind_vector(const struct insn *insn, struct op *op);  /* vector*.c, x87.c, xsave.c */

/* What has no handler: #UD, with a rate-limited log line that names the bytes. */
void op_undefined(struct cpu *cpu, const struct op *op);

/* General registers by the byte offset in op->reg[]. Writing 32 bits clears the upper half. */
static inline uint8_t *op_reg8(struct cpu *cpu, uint8_t offset)
{
    return (uint8_t *)cpu->gpr + offset;
}
static inline uint16_t *op_reg16(struct cpu *cpu, uint8_t offset)
{
    return (uint16_t *)(void *)((uint8_t *)cpu->gpr + offset);
}
static inline uint64_t *op_reg64(struct cpu *cpu, uint8_t offset)
{
    return (uint64_t *)(void *)((uint8_t *)cpu->gpr + offset);
}

/* RIP of the instruction after `op`. */
static inline uint64_t op_next_rip(const struct cpu *cpu, const struct op *op)
{
    return cpu->gpr[GPR_BLOCK_RIP] + (uint64_t)op->offset + op->length;
}

#endif
