/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Near control transfers: JMP CALL RET Jcc LOOPcc JrCXZ. In 64-bit mode a near branch always has a
 * 64-bit target (SDM 2A, 66H is ignored there as on Intel); elsewhere cpu_jump cuts the target to
 * the operand size and checks the limit of CS. Each handler ends its block.
 */
#include "cpu/soft/integer/condition.h"
#include "cpu/soft/integer/integer.h"

/* A target that is not canonical faults at the branch itself, before anything else happens. */
static inline void jump64(struct cpu *cpu, uint64_t target)
{
    if (__builtin_expect((uint64_t)((int64_t)(target << 16) >> 16) != target, 0))
        cpu_raise_code(cpu, VECTOR_GP, 0);
    cpu->rip = target;
}

static inline uint64_t relative(const struct cpu *cpu, const struct op *op)
{
    return op_next_rip(cpu, op) + op->imm;
}

#define JCC(name)                                                                                  \
    static void j##name##_64(struct cpu *cpu, const struct op *op)                                 \
    {                                                                                              \
        uint64_t next = op_next_rip(cpu, op);                                                      \
        if (CONDITION_##name(cpu->cc))                                                             \
            jump64(cpu, next + op->imm);                                                           \
        else                                                                                       \
            cpu->rip = next;                                                                       \
    }                                                                                              \
    static void j##name(struct cpu *cpu, const struct op *op)                                      \
    {                                                                                              \
        if (CONDITION_##name(cpu->cc))                                                             \
            cpu_jump(cpu, relative(cpu, op), op->size_bytes);                                      \
        else                                                                                       \
            cpu->rip = op_next_rip(cpu, op);                                                       \
    }
FOR_EACH_CONDITION(JCC)

static void jmp_relative_64(struct cpu *cpu, const struct op *op)
{
    jump64(cpu, relative(cpu, op));
}

static void jmp_relative(struct cpu *cpu, const struct op *op)
{
    cpu_jump(cpu, relative(cpu, op), op->size_bytes);
}

static uint64_t read_target(struct cpu *cpu, const struct op *op)
{
    uint64_t linear = op_address(cpu, op, op->size_bytes, ACCESS_READ);
    uint64_t target = 0;
    memory_read(cpu, linear, &target, op->size_bytes);
    return target;
}

static void jmp_r64(struct cpu *cpu, const struct op *op)
{
    jump64(cpu, get64(cpu, op->reg[0]));
}

static void jmp_m64(struct cpu *cpu, const struct op *op)
{
    jump64(cpu, memory_read64(cpu, op_address(cpu, op, 8, ACCESS_READ)));
}

static void jmp_r(struct cpu *cpu, const struct op *op)
{
    cpu_jump(cpu, get64(cpu, op->reg[0]), op->size_bytes);
}

static void jmp_m(struct cpu *cpu, const struct op *op)
{
    cpu_jump(cpu, read_target(cpu, op), op->size_bytes);
}

/* The target is checked before the push, and RIP is only set after it: both may fault. */
static inline void call64(struct cpu *cpu, const struct op *op, uint64_t target)
{
    jump64(cpu, target);
    stack_push64(cpu, op_next_rip(cpu, op));
}

static void call_relative_64(struct cpu *cpu, const struct op *op)
{
    call64(cpu, op, relative(cpu, op));
}

static void call_r64(struct cpu *cpu, const struct op *op)
{
    call64(cpu, op, get64(cpu, op->reg[0]));
}

static void call_m64(struct cpu *cpu, const struct op *op)
{
    call64(cpu, op, memory_read64(cpu, op_address(cpu, op, 8, ACCESS_READ)));
}

static void call_legacy(struct cpu *cpu, const struct op *op, uint64_t target)
{
    cpu_jump(cpu, target, op->size_bytes);
    stack_push(cpu, op_next_rip(cpu, op), op->size_bytes);
}

static void call_relative(struct cpu *cpu, const struct op *op)
{
    call_legacy(cpu, op, relative(cpu, op));
}

static void call_r(struct cpu *cpu, const struct op *op)
{
    call_legacy(cpu, op, get64(cpu, op->reg[0]));
}

static void call_m(struct cpu *cpu, const struct op *op)
{
    call_legacy(cpu, op, read_target(cpu, op));
}

static void ret64(struct cpu *cpu, const struct op *op)
{
    uint64_t rsp = cpu->gpr[RSP];
    jump64(cpu, stack_read64(cpu, rsp));
    cpu->gpr[RSP] = rsp + 8 + op->imm;
}

/* Outside 64-bit mode; the stack may be 16 or 32 bits wide, whatever the operand size. */
static void ret_legacy(struct cpu *cpu, const struct op *op)
{
    uint64_t mask = cpu->mode & MODE_STACK32 ? UINT32_MAX : UINT16_MAX;
    uint64_t rsp = cpu->gpr[RSP];
    uint64_t target = 0;
    memory_read(cpu, segment_address(cpu, SEG_SS, rsp & mask, op->size_bytes, ACCESS_READ), &target,
                op->size_bytes);
    cpu_jump(cpu, target, op->size_bytes);
    cpu->gpr[RSP] = (rsp & ~mask) | ((rsp + op->size_bytes + op->imm) & mask);
}

/* The counter of LOOP and JrCXZ is as wide as an address. */
static uint64_t counter_mask(const struct op *op)
{
    if (op->flags & OP_ADDRESS_16)
        return UINT16_MAX;
    return op->flags & OP_ADDRESS_32 ? UINT32_MAX : UINT64_MAX;
}

static void branch_if(struct cpu *cpu, const struct op *op, bool taken)
{
    if (taken)
        cpu_jump(cpu, relative(cpu, op), op->size_bytes);
    else
        cpu->rip = op_next_rip(cpu, op);
}

static void jrcxz(struct cpu *cpu, const struct op *op)
{
    branch_if(cpu, op, (cpu->gpr[RCX] & counter_mask(op)) == 0);
}

static void loop_while(struct cpu *cpu, const struct op *op, bool condition)
{
    uint64_t mask = counter_mask(op);
    uint64_t count = (cpu->gpr[RCX] - 1) & mask;
    branch_if(cpu, op, count != 0 && condition);
    cpu->gpr[RCX] = mask == UINT16_MAX ? (cpu->gpr[RCX] & ~mask) | count : count;
}

static void loop(struct cpu *cpu, const struct op *op)
{
    loop_while(cpu, op, true);
}
static void loope(struct cpu *cpu, const struct op *op)
{
    loop_while(cpu, op, cpu->cc & CC_ZF);
}
static void loopne(struct cpu *cpu, const struct op *op)
{
    loop_while(cpu, op, !(cpu->cc & CC_ZF));
}

static op_fn *condition_fn(ZydisMnemonic mnemonic, bool is_64bit)
{
    switch (mnemonic) {
#define CASE(name)                                                                                 \
    case ZYDIS_MNEMONIC_J##name: return is_64bit ? j##name##_64 : j##name;
        FOR_EACH_CONDITION(CASE)
#undef CASE
    default: return NULL;
    }
}

/* One of six for JMP and CALL: relative, register, memory; in 64-bit mode and elsewhere. */
static op_fn *transfer_fn(const struct insn *insn, bool is_64bit, op_fn *const fns[3][2])
{
    switch (insn->form) {
    case FORM_I: return fns[0][is_64bit];
    case FORM_R: return fns[1][is_64bit];
    case FORM_M: return fns[2][is_64bit];
    default: return NULL;
    }
}

static op_fn *near_fn(const struct insn *insn, bool is_64bit)
{
    static op_fn *const jmp_fns[3][2] = {
        {jmp_relative, jmp_relative_64}, {jmp_r, jmp_r64}, {jmp_m, jmp_m64}};
    static op_fn *const call_fns[3][2] = {
        {call_relative, call_relative_64}, {call_r, call_r64}, {call_m, call_m64}};
    switch (insn->info->mnemonic) {
    case ZYDIS_MNEMONIC_JMP: return transfer_fn(insn, is_64bit, jmp_fns);
    case ZYDIS_MNEMONIC_CALL: return transfer_fn(insn, is_64bit, call_fns);
    case ZYDIS_MNEMONIC_RET: return is_64bit ? ret64 : ret_legacy;
    case ZYDIS_MNEMONIC_LOOP: return loop;
    case ZYDIS_MNEMONIC_LOOPE: return loope;
    case ZYDIS_MNEMONIC_LOOPNE: return loopne;
    case ZYDIS_MNEMONIC_JCXZ:
    case ZYDIS_MNEMONIC_JECXZ:
    case ZYDIS_MNEMONIC_JRCXZ: return jrcxz;
    default: return condition_fn(insn->info->mnemonic, is_64bit);
    }
}

bool bind_branch(const struct insn *insn, struct op *op)
{
    bool is_64bit = (insn->mode & MODE_SIZE_MASK) == MODE_64;
    if (insn->info->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
        return false;
    op->fn = near_fn(insn, is_64bit);
    if (!op->fn)
        return false;
    op->size_bytes = is_64bit ? 8 : insn->info->operand_width / 8;
    op->flags |= OP_ENDS_BLOCK;
    if (insn->info->mnemonic == ZYDIS_MNEMONIC_JMP || insn->info->mnemonic == ZYDIS_MNEMONIC_CALL ||
        insn->info->mnemonic == ZYDIS_MNEMONIC_RET)
        op->flags |= OP_ALWAYS_BRANCHES;
    if (insn->info->mnemonic == ZYDIS_MNEMONIC_RET)
        op->imm = insn->form == FORM_I ? (uint16_t)insn->operands[0].imm.value.u : 0;
    return true;
}
