/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Delivery of exceptions and interrupts through the IDT, in real, protected and long mode: SDM 3A
 * chapter 6, out of virtual-8086 mode 20.3. Nothing of the cpu changes before all accesses have
 * succeeded, but for what a task switch does (task.c).
 */
#include "cpu/soft/core.h"

#include "cpu/soft/debug.h"
#include "cpu/soft/tlb.h"

enum { ERROR_IDT = 2 };

struct delivery {
    unsigned vector;
    enum event_kind kind;
    uint64_t rip;
    const uint32_t *error_code;
    uint64_t flags; /* to be pushed */
};

struct gate {
    uint64_t offset;
    uint16_t selector;
    uint8_t type, dpl, ist;
};

static _Noreturn void raise_gate(struct cpu *cpu, enum x86_vector vector, const struct delivery *d)
{
    cpu_raise_code(cpu, vector, d->vector * 8 | ERROR_IDT | (cpu->delivering_ext ? 1 : 0));
}

/* Reads the gate and checks what does not depend on the mode. */
static struct gate gate_read(struct cpu *cpu, const struct delivery *d)
{
    bool is_long = is_long_mode(cpu);
    unsigned size_bytes = is_long ? 16 : 8;
    uint64_t raw[2] = {0, 0};
    if (d->vector * size_bytes + size_bytes - 1 > cpu->idtr.limit)
        raise_gate(cpu, VECTOR_GP, d);
    memory_read_system(cpu, cpu->idtr.base + d->vector * size_bytes, raw, size_bytes);
    struct gate gate = {
        .offset = (raw[0] & 0xffff) | (raw[0] >> 32 & 0xffff0000) | raw[1] << 32,
        .selector = (uint16_t)(raw[0] >> 16),
        .ist = raw[0] >> 32 & 7,
        .type = raw[0] >> 40 & 0x1f,
        .dpl = raw[0] >> 45 & 3,
    };
    bool is_wide = gate.type == TYPE_INTERRUPT_GATE32 || gate.type == TYPE_TRAP_GATE32;
    bool is_narrow = gate.type == TYPE_INTERRUPT_GATE16 || gate.type == TYPE_TRAP_GATE16 ||
                     gate.type == TYPE_TASK_GATE;
    if (!is_wide && (is_long || !is_narrow))
        raise_gate(cpu, VECTOR_GP, d);
    if (d->kind == EVENT_SOFTWARE && gate.dpl < cpu->cpl)
        raise_gate(cpu, VECTOR_GP, d);
    if (!(raw[0] >> 47 & 1))
        raise_gate(cpu, VECTOR_NP, d);
    return gate;
}

/* The handler's code segment; gives the CPL it runs at. */
static unsigned read_handler(struct cpu *cpu, const struct gate *gate, struct descriptor *code)
{
    if (!(gate->selector & ~SELECTOR_RPL))
        raise_zero(cpu, VECTOR_GP);
    descriptor_read(cpu, gate->selector, code, VECTOR_GP);
    unsigned dpl = segment_dpl(code->attributes);
    bool is_code = (code->attributes & (SEGMENT_S | TYPE_CODE)) == (SEGMENT_S | TYPE_CODE);
    bool is_64bit = (code->attributes & (SEGMENT_L | SEGMENT_DB)) == SEGMENT_L;
    bool is_conforming = code->attributes & TYPE_CONFORMING;
    /* Out of virtual-8086 mode only to level 0. */
    bool is_level_good = cpu->rflags & RFLAGS_VM ? dpl == 0 && !is_conforming : dpl <= cpu->cpl;
    if (!is_code || !is_level_good || (is_long_mode(cpu) && !is_64bit))
        raise_selector(cpu, VECTOR_GP, gate->selector);
    if (!(code->attributes & SEGMENT_P))
        raise_selector(cpu, VECTOR_NP, gate->selector);
    return is_conforming ? cpu->cpl : dpl;
}

static void commit(struct cpu *cpu, const struct gate *gate, const struct descriptor *code,
                   unsigned cpl)
{
    segment_set(cpu, SEG_CS, (uint16_t)((gate->selector & ~SELECTOR_RPL) | cpl), code);
    cpu->cpl = (uint8_t)cpl;
    cpu->rip = gate->offset;
    cpu->rflags &= ~(uint64_t)(RFLAGS_TF | RFLAGS_NT | RFLAGS_RF | RFLAGS_VM);
    if (!(gate->type & 1))
        cpu->rflags &= ~(uint64_t)RFLAGS_IF;
    cpu_update_mode(cpu);
}

static uint64_t long_stack(struct cpu *cpu, const struct gate *gate, unsigned cpl)
{
    enum { TSS64_RSP0 = 4, TSS64_IST1 = 36 };
    uint64_t rsp = cpu->gpr[RSP];
    if (gate->ist)
        task_read(cpu, TSS64_IST1 + 8 * (gate->ist - 1U), &rsp, 8);
    else if (cpl < cpu->cpl)
        task_read(cpu, TSS64_RSP0 + 8 * cpl, &rsp, 8);
    if (!is_canonical(rsp))
        raise_zero(cpu, VECTOR_SS);
    return rsp & ~UINT64_C(15);
}

static void deliver_long(struct cpu *cpu, const struct delivery *d)
{
    struct descriptor code;
    struct gate gate = gate_read(cpu, d);
    unsigned cpl = read_handler(cpu, &gate, &code);
    uint64_t rsp = long_stack(cpu, &gate, cpl);
    if (!is_canonical(gate.offset))
        raise_zero(cpu, VECTOR_GP);
    uint64_t frame[6] = {d->error_code ? *d->error_code : 0,
                         d->rip,
                         cpu->segment[SEG_CS].selector,
                         d->flags,
                         cpu->gpr[RSP],
                         cpu->segment[SEG_SS].selector};
    unsigned skip = d->error_code ? 0 : 1;
    unsigned size_bytes = (6 - skip) * 8;
    if (!is_canonical(rsp - size_bytes))
        raise_zero(cpu, VECTOR_SS);
    if (cpl == 3)
        memory_write(cpu, rsp - size_bytes, frame + skip, size_bytes);
    else
        memory_write_system(cpu, rsp - size_bytes, frame + skip, size_bytes);
    descriptor_set_accessed(cpu, &code);
    if (cpl < cpu->cpl)
        segment_set_null(cpu, SEG_SS, (uint16_t)cpl);
    cpu->gpr[RSP] = rsp - size_bytes;
    commit(cpu, &gate, &code, cpl);
}

static void push_frame(struct cpu *cpu, const struct delivery *d, struct stack_switch *stack,
                       unsigned size_bytes)
{
    static const enum x86_segment_name data[] = {SEG_GS, SEG_FS, SEG_DS, SEG_ES};
    bool from_v86 = cpu->rflags & RFLAGS_VM;
    unsigned count = 3 + (stack->is_inner ? 2 : 0) + (from_v86 ? 4 : 0) + (d->error_code ? 1 : 0);
    stack_switch_require(cpu, stack, count * size_bytes);
    for (unsigned i = 0; from_v86 && i < 4; i++)
        stack_switch_push(cpu, stack, cpu->segment[data[i]].selector, size_bytes);
    if (stack->is_inner) {
        stack_switch_push(cpu, stack, cpu->segment[SEG_SS].selector, size_bytes);
        stack_switch_push(cpu, stack, cpu->gpr[RSP], size_bytes);
    }
    stack_switch_push(cpu, stack, d->flags, size_bytes);
    stack_switch_push(cpu, stack, cpu->segment[SEG_CS].selector, size_bytes);
    stack_switch_push(cpu, stack, d->rip, size_bytes);
    if (d->error_code)
        stack_switch_push(cpu, stack, *d->error_code, size_bytes);
}

/* The segments of the 8086 program are no selectors: SDM 3A 20.3.1.1. */
static void drop_v86_segments(struct cpu *cpu)
{
    segment_set_null(cpu, SEG_ES, 0);
    segment_set_null(cpu, SEG_DS, 0);
    segment_set_null(cpu, SEG_FS, 0);
    segment_set_null(cpu, SEG_GS, 0);
}

static void deliver_protected(struct cpu *cpu, const struct delivery *d)
{
    struct descriptor code;
    struct gate gate = gate_read(cpu, d);
    if (gate.type == TYPE_TASK_GATE) {
        task_interrupt(cpu, gate.selector, d->rip, d->flags, d->error_code);
        return;
    }
    unsigned cpl = read_handler(cpu, &gate, &code);
    bool is_32bit = gate.type & TYPE_GATE_IS_32BIT;
    struct stack_switch stack;
    if (cpl < cpu->cpl)
        stack_switch_inner(cpu, cpl, &stack);
    else
        stack_switch_none(cpu, &stack);
    if (!is_32bit)
        gate.offset &= UINT16_MAX;
    if (gate.offset > code.limit)
        raise_zero(cpu, VECTOR_GP);
    push_frame(cpu, d, &stack, is_32bit ? 4 : 2);
    descriptor_set_accessed(cpu, &code);
    if (cpu->rflags & RFLAGS_VM)
        drop_v86_segments(cpu);
    stack_switch_commit(cpu, &stack);
    commit(cpu, &gate, &code, cpl);
}

static void deliver_real(struct cpu *cpu, const struct delivery *d)
{
    if (d->vector * 4 + 3 > cpu->idtr.limit)
        raise_gate(cpu, VECTOR_GP, d);
    uint16_t target[2];
    memory_read_system(cpu, cpu->idtr.base + d->vector * 4, target, 4);
    uint64_t frame[3] = {d->flags, cpu->segment[SEG_CS].selector, d->rip};
    stack_push_all(cpu, frame, 3, 2);
    segment_set_real(cpu, SEG_CS, target[1]);
    cpu->rip = target[0];
    cpu->rflags &= ~(uint64_t)(RFLAGS_IF | RFLAGS_TF | RFLAGS_AC | RFLAGS_RF);
    cpu_update_mode(cpu);
}

void interrupt_deliver(struct cpu *cpu, unsigned vector, enum event_kind kind, uint64_t return_rip,
                       const uint32_t *error_code)
{
    struct delivery d = {vector, kind, return_rip, error_code, cpu_get_rflags(cpu)};
    bool is_fault = kind == EVENT_EXCEPTION && vector != VECTOR_DB && vector != VECTOR_BP &&
                    vector != VECTOR_OF;
    if (is_fault)
        d.flags |= RFLAGS_RF;
    cpu->delivering_ext = kind != EVENT_SOFTWARE;
    if (is_long_mode(cpu))
        deliver_long(cpu, &d);
    else if (cpu->cr0 & CR0_PE)
        deliver_protected(cpu, &d);
    else
        deliver_real(cpu, &d);
    cpu->delivering_ext = false;
}

/* --- one fault upon another ----------------------------------------------------------------- */

static bool is_contributory(int vector)
{
    return vector == VECTOR_DE || (vector >= VECTOR_TS && vector <= VECTOR_GP);
}

void interrupt_merge(struct cpu *cpu, int first)
{
    int second = cpu->pending.vector;
    bool is_serious = is_contributory(second) || second == VECTOR_PF;
    if (first == VECTOR_DF && is_serious) {
        cpu->triple_fault = true;
        return;
    }
    bool is_double =
        (is_contributory(first) && is_contributory(second)) || (first == VECTOR_PF && is_serious);
    if (!is_double)
        return;
    cpu->pending.vector = VECTOR_DF;
    cpu->pending.has_error_code = true;
    cpu->pending.error_code = 0;
}

void interrupt_deliver_pending(struct cpu *cpu)
{
    struct x86_pending *pending = &cpu->pending;
    uint32_t error_code = pending->error_code;
    /* Real mode pushes no error codes. */
    bool has_error_code = pending->has_error_code && (cpu->cr0 & CR0_PE);
    pending->exception = false;
    /* The delivery ends shadows, and HLT when a trap of it is due. */
    cpu->interrupt_shadow = cpu->mov_ss_shadow = false;
    monitor_end_halt(cpu);
    /* From KVM's state there may be an external interrupt that has been acknowledged. */
    bool is_external = pending->vector >= VECTOR_FIRST_EXTERNAL;
    cpu->delivering = is_external ? DELIVERING_BENIGN : pending->vector;
    cpu->stats.exceptions++;
    interrupt_deliver(cpu, pending->vector, is_external ? EVENT_EXTERNAL : EVENT_EXCEPTION,
                      cpu->rip, has_error_code ? &error_code : NULL);
    cpu->delivering = DELIVERING_NONE;
}

/* --- INT n, INT3, INTO, INT1 ---------------------------------------------------------------- */

/* There is no single-step trap after them: they have cleared TF (SDM 3B 17.3.1.4). */
static void software(struct cpu *cpu, const struct op *op, unsigned vector, enum event_kind kind)
{
    cpu->delivering = DELIVERING_BENIGN;
    interrupt_deliver(cpu, vector, kind, cpu_wrap_rip(cpu, op_next_rip(cpu, op)), NULL);
    cpu->delivering = DELIVERING_NONE;
    cpu->traps = false;
}

static void int_n(struct cpu *cpu, const struct op *op)
{
    if ((cpu->rflags & RFLAGS_VM) && v86_int_n(cpu, op, (uint8_t)op->imm))
        return;
    software(cpu, op, (uint8_t)op->imm, EVENT_SOFTWARE);
}

static void int3(struct cpu *cpu, const struct op *op)
{
    software(cpu, op, VECTOR_BP, EVENT_SOFTWARE);
}

/* It leaves DR6 alone, unless there is a debug exception to be told that waits. */
static void int1(struct cpu *cpu, const struct op *op)
{
    software(cpu, op, VECTOR_DB, EVENT_INT1);
    if (cpu->pending_debug)
        debug_set_status(cpu, 0);
}

static void into(struct cpu *cpu, const struct op *op)
{
    if (cpu->cc & CC_OF)
        software(cpu, op, VECTOR_OF, EVENT_SOFTWARE);
}

bool bind_interrupt(const struct insn *insn, struct op *op)
{
    switch (insn->info->mnemonic) {
    case ZYDIS_MNEMONIC_INT: op->fn = int_n; break;
    case ZYDIS_MNEMONIC_INT3: op->fn = int3; break;
    case ZYDIS_MNEMONIC_INT1: op->fn = int1; break;
    case ZYDIS_MNEMONIC_INTO: op->fn = into; break;
    default: return false;
    }
    op->flags |= OP_ENDS_BLOCK;
    return true;
}
