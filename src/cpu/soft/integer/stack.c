/* SPDX-License-Identifier: BSD-2-Clause
 *
 * PUSH POP PUSHA POPA ENTER LEAVE: SDM 2B. PUSHF and POPF, and segment registers, are in system.c.
 * Nothing changes RSP before all accesses of the instruction are known to succeed.
 */
#include "cpu/soft/integer/integer.h"

static uint64_t stack_mask(const struct cpu *cpu)
{
    if (cpu_is_64bit(cpu))
        return UINT64_MAX;
    return cpu->mode & MODE_STACK32 ? UINT32_MAX : UINT16_MAX;
}

static void set_rsp(struct cpu *cpu, uint64_t value)
{
    uint64_t mask = stack_mask(cpu);
    cpu->gpr[RSP] = (cpu->gpr[RSP] & ~mask) | (value & mask);
}

static uint64_t stack_address(struct cpu *cpu, uint64_t offset, unsigned size_bytes,
                              enum memory_access access)
{
    return segment_address(cpu, SEG_SS, offset & stack_mask(cpu), size_bytes, access);
}

static void push_r64(struct cpu *cpu, const struct op *op)
{
    stack_push64(cpu, get64(cpu, op->reg[0]));
}

static void push_i64(struct cpu *cpu, const struct op *op)
{
    stack_push64(cpu, op->imm);
}

static void push_m64(struct cpu *cpu, const struct op *op)
{
    stack_push64(cpu, memory_read64(cpu, op_address(cpu, op, 8, ACCESS_READ)));
}

static void push_r(struct cpu *cpu, const struct op *op)
{
    stack_push(cpu, get64(cpu, op->reg[0]), op->size_bytes);
}

static void push_i(struct cpu *cpu, const struct op *op)
{
    stack_push(cpu, op->imm, op->size_bytes);
}

static void push_m(struct cpu *cpu, const struct op *op)
{
    uint64_t value = 0;
    memory_read(cpu, op_address(cpu, op, op->size_bytes, ACCESS_READ), &value, op->size_bytes);
    stack_push(cpu, value, op->size_bytes);
}

/* POP RSP ends with the popped value, so the register is written last. */
static void pop_r64(struct cpu *cpu, const struct op *op)
{
    uint64_t value;
    const uint8_t *hva = memory_hit_read(cpu, cpu->gpr[RSP], 8);
    if (__builtin_expect(hva != NULL, 1)) {
        memcpy(&value, hva, sizeof(value));
        cpu->gpr[RSP] += 8;
    } else {
        value = stack_pop(cpu, 8);
    }
    put64(cpu, op->reg[0], value);
}

static void pop_r32(struct cpu *cpu, const struct op *op)
{
    put32(cpu, op->reg[0], (uint32_t)stack_pop(cpu, 4));
}

static void pop_r16(struct cpu *cpu, const struct op *op)
{
    put16(cpu, op->reg[0], (uint16_t)stack_pop(cpu, 2));
}

/* The address of POP m is computed with RSP already incremented (SDM 2B POP); RSP itself only moves
 * when the write has not faulted. */
static void pop_m(struct cpu *cpu, const struct op *op)
{
    uint64_t value = 0;
    memory_read(cpu, stack_address(cpu, cpu->gpr[RSP], op->size_bytes, ACCESS_READ), &value,
                op->size_bytes);
    struct op at = *op;
    if (at.base == RSP)
        at.disp += op->size_bytes;
    uint64_t linear = op_address(cpu, &at, op->size_bytes, ACCESS_WRITE);
    memory_write(cpu, linear, &value, op->size_bytes);
    set_rsp(cpu, cpu->gpr[RSP] + op->size_bytes);
}

static void pusha(struct cpu *cpu, const struct op *op)
{
    unsigned size_bytes = op->size_bytes;
    uint64_t rsp = cpu->gpr[RSP];
    uint64_t linear[8];
    for (int i = 0; i < 8; i++) {
        linear[i] =
            stack_address(cpu, rsp - (unsigned)(i + 1) * size_bytes, size_bytes, ACCESS_WRITE);
        memory_probe_write(cpu, linear[i], size_bytes);
    }
    for (int i = 0; i < 8; i++)
        memory_write(cpu, linear[i], &cpu->gpr[RAX + i], size_bytes);
    set_rsp(cpu, rsp - 8 * size_bytes);
}

static void popa(struct cpu *cpu, const struct op *op)
{
    unsigned size_bytes = op->size_bytes;
    uint64_t value[8] = {0};
    for (unsigned i = 0; i < 8; i++)
        memory_read(cpu,
                    stack_address(cpu, cpu->gpr[RSP] + i * size_bytes, size_bytes, ACCESS_READ),
                    &value[i], size_bytes);
    set_rsp(cpu, cpu->gpr[RSP] + 8 * size_bytes);
    for (unsigned i = 0; i < 8; i++) {
        unsigned reg = RDI - i;
        if (reg == RSP)
            continue;
        if (size_bytes == 2)
            put16(cpu, (uint8_t)(reg * 8), (uint16_t)value[i]);
        else
            cpu->gpr[reg] = value[i];
    }
}

static void set_rbp(struct cpu *cpu, uint64_t value, unsigned size_bytes)
{
    if (size_bytes == 2)
        put16(cpu, RBP * 8, (uint16_t)value);
    else
        cpu->gpr[RBP] = size_bytes == 4 ? (uint32_t)value : value;
}

static void leave_64(struct cpu *cpu, const struct op *op)
{
    uint64_t rbp = cpu->gpr[RBP];
    uint64_t value = stack_read64(cpu, rbp);
    cpu->gpr[RSP] = rbp + 8;
    cpu->gpr[RBP] = value;
}

static void leave(struct cpu *cpu, const struct op *op)
{
    uint64_t rbp = cpu->gpr[RBP];
    uint64_t value = 0;
    memory_read(cpu, stack_address(cpu, rbp, op->size_bytes, ACCESS_READ), &value, op->size_bytes);
    set_rsp(cpu, rbp + op->size_bytes);
    set_rbp(cpu, value, op->size_bytes);
}

enum { ENTER_MAX_LEVEL = 31 };

static void enter_push(struct cpu *cpu, uint64_t *top, uint64_t value, unsigned size_bytes)
{
    *top -= size_bytes;
    memory_write(cpu, stack_address(cpu, *top, size_bytes, ACCESS_WRITE), &value, size_bytes);
}

/* SDM 2A ENTER. The frame pointers of outer levels are copied below the saved RBP, each read after
 * the ones before it were written, since frames may overlap; then the new frame pointer, then room
 * for locals. RSP and RBP change when nothing can fault any more. */
static void enter(struct cpu *cpu, const struct op *op)
{
    unsigned size_bytes = op->size_bytes;
    unsigned level = op->imm2 & ENTER_MAX_LEVEL;
    uint64_t top = cpu->gpr[RSP];
    uint64_t frame = top - size_bytes;
    enter_push(cpu, &top, cpu->gpr[RBP], size_bytes);
    for (unsigned i = 1; i < level; i++) {
        uint64_t outer = 0;
        memory_read(cpu,
                    stack_address(cpu, cpu->gpr[RBP] - i * size_bytes, size_bytes, ACCESS_READ),
                    &outer, size_bytes);
        enter_push(cpu, &top, outer, size_bytes);
    }
    if (level > 0)
        enter_push(cpu, &top, frame, size_bytes);
    top -= (uint16_t)op->imm;
    memory_probe_write(cpu, stack_address(cpu, top, size_bytes, ACCESS_WRITE), size_bytes);
    set_rsp(cpu, top);
    set_rbp(cpu, frame, size_bytes); /* 32 bits of ESP on a stack of 16, too, as processors do */
}

/* Segment registers are bound by system.c before this is asked. */
static op_fn *push_fn(const struct insn *insn, unsigned size_bytes)
{
    switch (insn->form) {
    case FORM_R: return size_bytes == 8 ? push_r64 : push_r;
    case FORM_M: return size_bytes == 8 ? push_m64 : push_m;
    case FORM_I: return size_bytes == 8 ? push_i64 : push_i;
    default: return NULL;
    }
}

static op_fn *pop_fn(const struct insn *insn, unsigned size_bytes)
{
    if (insn->form == FORM_M)
        return pop_m;
    return size_bytes == 8 ? pop_r64 : size_bytes == 4 ? pop_r32 : pop_r16;
}

bool bind_stack(const struct insn *insn, struct op *op)
{
    unsigned size_bytes = insn->info->operand_width / 8;
    switch (insn->info->mnemonic) {
    case ZYDIS_MNEMONIC_PUSH: op->fn = push_fn(insn, size_bytes); break;
    case ZYDIS_MNEMONIC_POP: op->fn = pop_fn(insn, size_bytes); break;
    case ZYDIS_MNEMONIC_PUSHA:
    case ZYDIS_MNEMONIC_PUSHAD: op->fn = pusha; break;
    case ZYDIS_MNEMONIC_POPA:
    case ZYDIS_MNEMONIC_POPAD: op->fn = popa; break;
    case ZYDIS_MNEMONIC_LEAVE: op->fn = size_bytes == 8 ? leave_64 : leave; break;
    case ZYDIS_MNEMONIC_ENTER:
        op->fn = enter;
        op->imm = insn->operands[0].imm.value.u;
        op->imm2 = (uint8_t)insn->operands[1].imm.value.u;
        break;
    default: return false;
    }
    op->size_bytes = (uint8_t)size_bytes;
    return op->fn != NULL;
}
