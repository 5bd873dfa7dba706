/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Far JMP and CALL through call gates of 16, 32 and 64 bits: SDM 3A 5.8.3 to 5.8.6, 2A CALL and
 * JMP. All checks, and all pushes, come before the first change of a register.
 */
#include "cpu/soft/core.h"

struct call_gate {
    uint64_t offset;
    uint16_t selector;
    uint8_t size_bytes; /* of what it pushes */
    uint8_t parameters;
};

static struct call_gate gate_of(struct cpu *cpu, uint16_t selector,
                                const struct descriptor *descriptor)
{
    uint64_t raw = descriptor->raw;
    bool is_wide = descriptor->attributes & TYPE_GATE_IS_32BIT;
    struct call_gate gate = {
        .offset = (raw & 0xffff) | (is_wide ? raw >> 32 & 0xffff0000 : 0),
        .selector = (uint16_t)(raw >> 16),
        .size_bytes = is_wide ? 4 : 2,
        .parameters = raw >> 32 & 0x1f,
    };
    if (is_long_mode(cpu)) {
        struct descriptor upper = {.base = 0};
        descriptor_read_upper(cpu, selector, &upper, VECTOR_GP);
        gate.offset |= upper.base;
        gate.size_bytes = 8;
        gate.parameters = 0;
    }
    return gate;
}

/* The gate's target; gives the level that its code runs at. */
static unsigned read_target(struct cpu *cpu, const struct call_gate *gate, bool is_call,
                            struct descriptor *code)
{
    if (!(gate->selector & ~SELECTOR_RPL))
        cpu_raise_code(cpu, VECTOR_GP, 0);
    descriptor_read(cpu, gate->selector, code, VECTOR_GP);
    unsigned dpl = segment_dpl(code->attributes);
    bool is_code = (code->attributes & (SEGMENT_S | TYPE_CODE)) == (SEGMENT_S | TYPE_CODE);
    bool is_64bit = (code->attributes & (SEGMENT_L | SEGMENT_DB)) == SEGMENT_L;
    bool is_conforming = code->attributes & TYPE_CONFORMING;
    bool is_level_good = is_conforming || is_call ? dpl <= cpu->cpl : dpl == cpu->cpl;
    if (!is_code || !is_level_good || (is_long_mode(cpu) && !is_64bit))
        raise_selector(cpu, VECTOR_GP, gate->selector);
    if (!(code->attributes & SEGMENT_P))
        raise_selector(cpu, VECTOR_NP, gate->selector);
    return is_conforming ? cpu->cpl : dpl;
}

static void enter(struct cpu *cpu, const struct call_gate *gate, struct descriptor *code,
                  unsigned cpl)
{
    descriptor_set_accessed(cpu, code);
    segment_set(cpu, SEG_CS, (uint16_t)((gate->selector & ~SELECTOR_RPL) | cpl), code);
    cpu->cpl = (uint8_t)cpl;
    cpu->rip = gate->offset;
}

/* --- long mode: a frame of quadwords, no parameters, no new stack segment ------------------- */

static void call_long(struct cpu *cpu, const struct op *op, const struct call_gate *gate,
                      struct descriptor *code, unsigned cpl)
{
    enum { TSS64_RSP0 = 4 };
    bool is_inner = cpl < cpu->cpl;
    uint64_t rsp = cpu->gpr[RSP];
    uint64_t rip = cpu_wrap_rip(cpu, op_next_rip(cpu, op));
    uint64_t frame[4] = {rip, cpu->segment[SEG_CS].selector, cpu->gpr[RSP],
                         cpu->segment[SEG_SS].selector};
    unsigned size_bytes = is_inner ? 32 : 16;
    if (is_inner)
        task_read(cpu, TSS64_RSP0 + 8 * cpl, &rsp, 8);
    if (!is_canonical(rsp) || !is_canonical(rsp - size_bytes))
        cpu_raise_code(cpu, VECTOR_SS, 0);
    if (cpl == 3)
        memory_write(cpu, rsp - size_bytes, frame, size_bytes);
    else
        memory_write_system(cpu, rsp - size_bytes, frame, size_bytes);
    enter(cpu, gate, code, cpl);
    if (is_inner)
        segment_set_null(cpu, SEG_SS, (uint16_t)cpl);
    cpu->gpr[RSP] = rsp - size_bytes;
}

/* --- protected mode ------------------------------------------------------------------------- */

/* Parameters are read from the caller's stack with the caller's rights. */
static void read_parameters(struct cpu *cpu, const struct call_gate *gate, uint64_t *values)
{
    for (unsigned i = 0; i < gate->parameters; i++)
        values[i] = stack_peek(cpu, i, gate->size_bytes);
}

static void call_inner(struct cpu *cpu, const struct op *op, const struct call_gate *gate,
                       struct descriptor *code, unsigned cpl)
{
    struct stack_switch stack;
    uint64_t values[32];
    unsigned size_bytes = gate->size_bytes;
    stack_switch_inner(cpu, cpl, &stack);
    stack_switch_require(cpu, &stack, (4u + gate->parameters) * size_bytes);
    read_parameters(cpu, gate, values);
    stack_switch_push(cpu, &stack, cpu->segment[SEG_SS].selector, size_bytes);
    stack_switch_push(cpu, &stack, cpu->gpr[RSP], size_bytes);
    for (unsigned i = gate->parameters; i > 0; i--)
        stack_switch_push(cpu, &stack, values[i - 1], size_bytes);
    stack_switch_push(cpu, &stack, cpu->segment[SEG_CS].selector, size_bytes);
    stack_switch_push(cpu, &stack, op_next_rip(cpu, op), size_bytes);
    enter(cpu, gate, code, cpl);
    stack_switch_commit(cpu, &stack);
}

static void call_legacy(struct cpu *cpu, const struct op *op, const struct call_gate *gate,
                        struct descriptor *code, unsigned cpl)
{
    if (gate->offset > code->limit)
        cpu_raise_code(cpu, VECTOR_GP, 0);
    if (cpl < cpu->cpl) {
        call_inner(cpu, op, gate, code, cpl);
        return;
    }
    uint64_t frame[2] = {cpu->segment[SEG_CS].selector, op_next_rip(cpu, op)};
    stack_push_all(cpu, frame, 2, gate->size_bytes);
    enter(cpu, gate, code, cpl);
}

void gate_transfer(struct cpu *cpu, const struct op *op, uint16_t selector,
                   const struct descriptor *descriptor, bool is_call)
{
    struct descriptor code;
    struct call_gate gate = gate_of(cpu, selector, descriptor);
    unsigned cpl = read_target(cpu, &gate, is_call, &code);
    if (is_long_mode(cpu) && !is_canonical(gate.offset))
        cpu_raise_code(cpu, VECTOR_GP, 0);
    if (!is_call) {
        if (!is_long_mode(cpu) && gate.offset > code.limit)
            cpu_raise_code(cpu, VECTOR_GP, 0);
        enter(cpu, &gate, &code, cpl);
    } else if (is_long_mode(cpu)) {
        call_long(cpu, op, &gate, &code, cpl);
    } else {
        call_legacy(cpu, op, &gate, &code, cpl);
    }
    cpu_update_mode(cpu);
}
