/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Far JMP, CALL and RET, and IRET, in real, virtual-8086, protected and long mode: SDM 2A/2B, 3A
 * 5.8, 6.14. Gates and tasks are gate.c's and task.c's.
 */
#include "cpu/soft/core.h"

#include "cpu/soft/debug.h"

static void set_code(struct cpu *cpu, uint16_t selector, const struct descriptor *descriptor,
                     unsigned cpl)
{
    segment_set(cpu, SEG_CS, (uint16_t)((selector & ~SELECTOR_RPL) | cpl), descriptor);
    cpu->cpl = (uint8_t)cpl;
}

/* Whether RIP is one that the new code segment can run at. */
static void check_target(struct cpu *cpu, const struct descriptor *code, uint64_t rip)
{
    bool is_64bit = is_long_mode(cpu) && (code->attributes & SEGMENT_L);
    if (is_64bit ? !is_canonical(rip) : rip > code->limit)
        cpu_raise_code(cpu, VECTOR_GP, 0);
}

/* A 64-bit code segment must not have D set. */
static void check_code_type(struct cpu *cpu, uint16_t selector, const struct descriptor *code)
{
    uint32_t both = SEGMENT_L | SEGMENT_DB;
    bool is_bad = is_long_mode(cpu) && (code->attributes & both) == both;
    if ((code->attributes & (SEGMENT_S | TYPE_CODE)) != (SEGMENT_S | TYPE_CODE) || is_bad)
        raise_selector(cpu, VECTOR_GP, selector);
}

/* The segment for a far JMP or CALL, which keeps CPL. */
static void check_code(struct cpu *cpu, uint16_t selector, const struct descriptor *code)
{
    check_code_type(cpu, selector, code);
    unsigned dpl = segment_dpl(code->attributes);
    bool is_allowed = code->attributes & TYPE_CONFORMING
                          ? dpl <= cpu->cpl
                          : dpl == cpu->cpl && (unsigned)(selector & SELECTOR_RPL) <= cpu->cpl;
    if (!is_allowed)
        raise_selector(cpu, VECTOR_GP, selector);
    if (!(code->attributes & SEGMENT_P))
        raise_selector(cpu, VECTOR_NP, selector);
}

/* What a far pointer may name that is no segment: gates and TSSs. */
static void transfer_system(struct cpu *cpu, const struct op *op, uint16_t selector,
                            const struct descriptor *descriptor, bool is_call)
{
    unsigned type = descriptor->attributes & SEGMENT_TYPE;
    unsigned dpl = segment_dpl(descriptor->attributes);
    bool is_gate = type == TYPE_CALL_GATE32 || (type == TYPE_CALL_GATE16 && !is_long_mode(cpu));
    bool is_task =
        (type == TYPE_TASK_GATE || type == TYPE_TSS16 || type == TYPE_TSS32) && !is_long_mode(cpu);
    bool is_allowed = dpl >= cpu->cpl && dpl >= (unsigned)(selector & SELECTOR_RPL);
    if (!(is_gate || is_task) || !is_allowed)
        raise_selector(cpu, VECTOR_GP, selector);
    if (!(descriptor->attributes & SEGMENT_P))
        raise_selector(cpu, VECTOR_NP, selector);
    if (is_gate)
        gate_transfer(cpu, op, selector, descriptor, is_call);
    else
        task_transfer(cpu, op, selector, descriptor, is_call);
}

static void transfer_protected(struct cpu *cpu, const struct op *op, uint16_t selector,
                               uint64_t rip, bool is_call)
{
    uint64_t frame[2] = {cpu->segment[SEG_CS].selector, op_next_rip(cpu, op)};
    struct descriptor descriptor;
    if (!(selector & ~SELECTOR_RPL))
        cpu_raise_code(cpu, VECTOR_GP, 0);
    descriptor_read(cpu, selector, &descriptor, VECTOR_GP);
    if (!(descriptor.attributes & SEGMENT_S)) {
        transfer_system(cpu, op, selector, &descriptor, is_call);
        return;
    }
    check_code(cpu, selector, &descriptor);
    check_target(cpu, &descriptor, rip);
    if (is_call)
        stack_push_all(cpu, frame, 2, op->size_bytes);
    descriptor_set_accessed(cpu, &descriptor);
    set_code(cpu, selector, &descriptor, cpu->cpl);
    cpu->rip = rip;
    cpu_update_mode(cpu);
}

static void transfer_real(struct cpu *cpu, const struct op *op, uint16_t selector, uint64_t rip,
                          bool is_call)
{
    uint64_t frame[2] = {cpu->segment[SEG_CS].selector, op_next_rip(cpu, op)};
    if (rip > cpu->segment[SEG_CS].limit)
        cpu_raise_code(cpu, VECTOR_GP, 0);
    if (is_call)
        stack_push_all(cpu, frame, 2, op->size_bytes);
    segment_set_real(cpu, SEG_CS, selector);
    cpu->rip = rip;
    cpu_update_mode(cpu);
}

/* A pointer in memory: offset of the operand size, then the selector. */
static void read_pointer(struct cpu *cpu, const struct op *op, uint16_t *selector, uint64_t *rip)
{
    uint64_t linear = op_address(cpu, op, op->size_bytes + 2U, ACCESS_READ);
    uint8_t bytes[10];
    memory_read(cpu, linear, bytes, op->size_bytes + 2U);
    *rip = 0;
    memcpy(rip, bytes, op->size_bytes);
    memcpy(selector, bytes + op->size_bytes, 2);
}

static void far_transfer(struct cpu *cpu, const struct op *op, bool is_call)
{
    uint16_t selector = (uint16_t)(op->imm >> 32);
    uint64_t rip = (uint32_t)op->imm;
    if (op->flags & OP_IN_MEMORY)
        read_pointer(cpu, op, &selector, &rip);
    if (is_real_mode(cpu))
        transfer_real(cpu, op, selector, rip, is_call);
    else
        transfer_protected(cpu, op, selector, rip, is_call);
}

static void far_jmp(struct cpu *cpu, const struct op *op)
{
    far_transfer(cpu, op, false);
}
static void far_call(struct cpu *cpu, const struct op *op)
{
    far_transfer(cpu, op, true);
}

/* What a far return or IRET found on the stack. */
struct frame {
    uint64_t rip, rsp;
    uint16_t cs, ss;
};

static void read_return_code(struct cpu *cpu, uint16_t selector, struct descriptor *code)
{
    if (!(selector & ~SELECTOR_RPL))
        cpu_raise_code(cpu, VECTOR_GP, 0);
    descriptor_read(cpu, selector, code, VECTOR_GP);
    check_code_type(cpu, selector, code);
    unsigned rpl = selector & SELECTOR_RPL;
    unsigned dpl = segment_dpl(code->attributes);
    bool is_allowed =
        rpl >= cpu->cpl && (code->attributes & TYPE_CONFORMING ? dpl <= rpl : dpl == rpl);
    if (!is_allowed)
        raise_selector(cpu, VECTOR_GP, selector);
    if (!(code->attributes & SEGMENT_P))
        raise_selector(cpu, VECTOR_NP, selector);
}

/* The new stack segment. Null is good for 64-bit code above level 3. */
static bool read_return_stack(struct cpu *cpu, const struct frame *frame,
                              const struct descriptor *code, struct descriptor *stack)
{
    unsigned cpl = frame->cs & SELECTOR_RPL;
    bool to_64bit = is_long_mode(cpu) && (code->attributes & SEGMENT_L);
    bool is_null = !(frame->ss & ~SELECTOR_RPL);
    if (is_null && to_64bit && cpl < 3 && (frame->ss & SELECTOR_RPL) == cpl)
        return false;
    segment_check_stack(cpu, frame->ss, cpl, VECTOR_GP, stack);
    return true;
}

/* Loads CS:RIP, and SS:RSP when `has_stack`; CPL becomes CS.RPL. All checks come first. */
static void return_to(struct cpu *cpu, const struct frame *frame, bool has_stack)
{
    struct descriptor code, stack = {0};
    unsigned old_cpl = cpu->cpl;
    read_return_code(cpu, frame->cs, &code);
    bool is_stack_valid = has_stack && read_return_stack(cpu, frame, &code, &stack);
    check_target(cpu, &code, frame->rip);
    descriptor_set_accessed(cpu, &code);
    if (is_stack_valid)
        descriptor_set_accessed(cpu, &stack);
    set_code(cpu, frame->cs, &code, frame->cs & SELECTOR_RPL);
    if (is_stack_valid)
        segment_set(cpu, SEG_SS, frame->ss, &stack);
    else if (has_stack)
        segment_set_null(cpu, SEG_SS, frame->ss);
    cpu->rip = frame->rip;
    cpu_update_mode(cpu);
    if (has_stack)
        stack_set_pointer(cpu, frame->rsp);
    if (cpu->cpl != old_cpl)
        segment_drop_privileged(cpu);
}

static void far_ret_real(struct cpu *cpu, const struct op *op)
{
    uint64_t rip = stack_peek(cpu, 0, op->size_bytes);
    uint16_t selector = (uint16_t)stack_peek(cpu, 1, op->size_bytes);
    if (rip > cpu->segment[SEG_CS].limit)
        cpu_raise_code(cpu, VECTOR_GP, 0);
    stack_set_pointer(cpu, cpu->gpr[RSP] + 2U * op->size_bytes + op->imm);
    segment_set_real(cpu, SEG_CS, selector);
    cpu->rip = rip;
    cpu_update_mode(cpu);
}

static void far_ret(struct cpu *cpu, const struct op *op)
{
    unsigned size_bytes = op->size_bytes;
    if (is_real_mode(cpu)) {
        far_ret_real(cpu, op);
        return;
    }
    struct frame frame = {.rip = stack_peek(cpu, 0, size_bytes),
                          .cs = (uint16_t)stack_peek(cpu, 1, size_bytes)};
    uint64_t rsp = cpu->gpr[RSP];
    if ((frame.cs & SELECTOR_RPL) <= cpu->cpl) {
        return_to(cpu, &frame, false);
        stack_set_pointer(cpu, rsp + 2U * size_bytes + op->imm);
        return;
    }
    uint64_t mask = stack_mask_of(cpu);
    uint64_t values[2] = {0, 0};
    for (unsigned i = 0; i < 2; i++) {
        uint64_t at = (rsp + op->imm + (2 + i) * size_bytes) & mask;
        memory_read(cpu, segment_address(cpu, SEG_SS, at, size_bytes, ACCESS_READ), &values[i],
                    size_bytes);
    }
    frame.rsp = values[0] + op->imm;
    frame.ss = (uint16_t)values[1];
    return_to(cpu, &frame, true);
}

/* --- IRET ----------------------------------------------------------------------------------- */

static uint64_t iret_flags_mask(const struct cpu *cpu, unsigned size_bytes)
{
    uint64_t mask = RFLAGS_ARITHMETIC | RFLAGS_TF | RFLAGS_DF | RFLAGS_NT;
    if (size_bytes > 2)
        mask |= RFLAGS_AC | RFLAGS_ID | RFLAGS_RF;
    if (cpu->cpl <= (cpu->rflags & RFLAGS_IOPL) >> 12)
        mask |= RFLAGS_IF;
    if (cpu->cpl == 0)
        mask |= RFLAGS_IOPL;
    if (cpu->cpl == 0 && size_bytes > 2 && !is_real_mode(cpu))
        mask |= RFLAGS_VIF | RFLAGS_VIP;
    return mask;
}

static void iret_done(struct cpu *cpu, uint64_t flags, uint64_t mask)
{
    cpu_unblock_nmi(cpu);
    flags_load(cpu, flags, mask & ~(uint64_t)RFLAGS_RF);
    cpu_update_mode(cpu);
    if (flags & mask & RFLAGS_RF)
        debug_resume(cpu);
}

static void iret_real(struct cpu *cpu, const struct op *op)
{
    uint64_t rip = stack_peek(cpu, 0, op->size_bytes);
    uint16_t selector = (uint16_t)stack_peek(cpu, 1, op->size_bytes);
    uint64_t flags = stack_peek(cpu, 2, op->size_bytes);
    if (rip > cpu->segment[SEG_CS].limit)
        cpu_raise_code(cpu, VECTOR_GP, 0);
    uint64_t mask = iret_flags_mask(cpu, op->size_bytes);
    if (cpu->rflags & RFLAGS_VM)
        flags = v86_popped_flags(cpu, flags, &mask, op->size_bytes);
    stack_set_pointer(cpu, cpu->gpr[RSP] + 3U * op->size_bytes);
    segment_set_real(cpu, SEG_CS, selector);
    cpu->rip = rip;
    iret_done(cpu, flags, mask);
}

static void iret_protected(struct cpu *cpu, const struct op *op)
{
    unsigned size_bytes = op->size_bytes;
    uint64_t flags = stack_peek(cpu, 2, size_bytes);
    if ((flags & RFLAGS_VM) && cpu->cpl == 0 && size_bytes == 4 && !is_long_mode(cpu)) {
        v86_enter(cpu);
        return;
    }
    struct frame frame = {.rip = stack_peek(cpu, 0, size_bytes),
                          .cs = (uint16_t)stack_peek(cpu, 1, size_bytes)};
    uint64_t mask = iret_flags_mask(cpu, size_bytes);
    if ((frame.cs & SELECTOR_RPL) > cpu->cpl) {
        frame.rsp = stack_peek(cpu, 3, size_bytes);
        frame.ss = (uint16_t)stack_peek(cpu, 4, size_bytes);
        return_to(cpu, &frame, true);
    } else {
        uint64_t rsp = cpu->gpr[RSP];
        return_to(cpu, &frame, false);
        stack_set_pointer(cpu, rsp + 3U * size_bytes);
    }
    iret_done(cpu, flags, mask);
}

/* In 64-bit mode SS:RSP are always popped. */
static void iret_64bit(struct cpu *cpu, const struct op *op)
{
    uint64_t values[5] = {0};
    if (op->size_bytes == 8) {
        uint64_t linear = segment_address(cpu, SEG_SS, cpu->gpr[RSP], 40, ACCESS_READ);
        memory_read(cpu, linear, values, 40);
    } else {
        for (unsigned i = 0; i < 5; i++)
            values[i] = stack_peek(cpu, i, op->size_bytes);
    }
    struct frame frame = {values[0], values[3], (uint16_t)values[1], (uint16_t)values[4]};
    uint64_t mask = iret_flags_mask(cpu, op->size_bytes);
    return_to(cpu, &frame, true);
    iret_done(cpu, values[2], mask);
}

static void iret(struct cpu *cpu, const struct op *op)
{
    if (is_real_mode(cpu)) {
        iret_real(cpu, op);
        return;
    }
    if (cpu->rflags & RFLAGS_NT) {
        if (is_long_mode(cpu))
            cpu_raise_code(cpu, VECTOR_GP, 0);
        task_return(cpu, op);
        return;
    }
    if (cpu_is_64bit(cpu))
        iret_64bit(cpu, op);
    else
        iret_protected(cpu, op);
}

bool bind_far(const struct insn *insn, struct op *op)
{
    switch (insn->info->mnemonic) {
    case ZYDIS_MNEMONIC_IRET:
    case ZYDIS_MNEMONIC_IRETD:
    case ZYDIS_MNEMONIC_IRETQ: op->fn = iret; break;
    case ZYDIS_MNEMONIC_JMP: op->fn = far_jmp; break;
    case ZYDIS_MNEMONIC_CALL: op->fn = far_call; break;
    case ZYDIS_MNEMONIC_RET:
        op->fn = far_ret;
        op->imm = insn->form == FORM_I ? (uint16_t)insn->operands[0].imm.value.u : 0;
        break;
    default: return false;
    }
    bool is_iret = op->fn == iret;
    if (!is_iret && insn->info->meta.branch_type != ZYDIS_BRANCH_TYPE_FAR)
        return false;
    op->flags |= OP_ALWAYS_BRANCHES;
    op->size_bytes = (uint8_t)(insn->info->operand_width / 8);
    if (insn->form == FORM_M)
        op->flags |= OP_IN_MEMORY;
    op->flags |= OP_ENDS_BLOCK;
    return true;
}
