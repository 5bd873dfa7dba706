/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Stacks that handlers and procedures of call gates are entered on: the present one, or that of an
 * inner level, which the TSS names. SDM 3A 5.8.5, 6.12.1. Nothing is loaded before
 * stack_switch_commit, so whoever pushes can still raise.
 */
#include "cpu/soft/core.h"

void task_read(struct cpu *cpu, unsigned offset, void *buffer, unsigned size_bytes)
{
    const struct x86_segment *task = &cpu->segment[SEG_TR];
    if (offset + size_bytes - 1 > task->limit)
        raise_selector(cpu, VECTOR_TS, task->selector);
    uint64_t linear = task->base + offset;
    memory_read_system(cpu, is_long_mode(cpu) ? linear : (uint32_t)linear, buffer, size_bytes);
}

void stack_switch_none(struct cpu *cpu, struct stack_switch *stack)
{
    *stack = (struct stack_switch){.segment = cpu->segment[SEG_SS],
                                   .pointer = cpu->gpr[RSP],
                                   .cpl = cpu->cpl,
                                   .is_inner = false};
}

void stack_switch_inner(struct cpu *cpu, unsigned cpl, struct stack_switch *stack)
{
    struct descriptor descriptor;
    uint16_t ss = 0;
    uint32_t esp = 0;
    if (cpu->segment[SEG_TR].attributes & TSS_IS_32BIT) {
        task_read(cpu, 4 + 8 * cpl, &esp, 4);
        task_read(cpu, 8 + 8 * cpl, &ss, 2);
    } else {
        task_read(cpu, 2 + 4 * cpl, &esp, 2);
        task_read(cpu, 4 + 4 * cpl, &ss, 2);
    }
    segment_check_stack(cpu, ss, cpl, VECTOR_TS, &descriptor);
    descriptor_set_accessed(cpu, &descriptor);
    *stack = (struct stack_switch){
        .segment = {descriptor.base, descriptor.limit, descriptor.attributes, ss},
        .pointer = esp,
        .cpl = cpl,
        .is_inner = true};
}

static uint64_t mask_of(const struct stack_switch *stack)
{
    return stack->segment.attributes & SEGMENT_DB ? UINT32_MAX : UINT16_MAX;
}

void stack_switch_require(struct cpu *cpu, const struct stack_switch *stack, unsigned size_bytes)
{
    uint64_t lowest = (stack->pointer - size_bytes) & mask_of(stack);
    bool is_expand_down = stack->segment.attributes & TYPE_EXPAND_DOWN;
    bool fits = is_expand_down ? lowest > stack->segment.limit
                               : lowest + size_bytes - 1 <= stack->segment.limit;
    if (fits)
        return;
    if (stack->is_inner)
        raise_selector(cpu, VECTOR_SS, stack->segment.selector);
    raise_zero(cpu, VECTOR_SS);
}

void stack_switch_push(struct cpu *cpu, struct stack_switch *stack, uint64_t value,
                       unsigned size_bytes)
{
    uint64_t mask = mask_of(stack);
    stack->pointer = (stack->pointer & ~mask) | ((stack->pointer - size_bytes) & mask);
    uint64_t linear = (uint32_t)(stack->segment.base + (stack->pointer & mask));
    /* At level 3 only a user's own pages. */
    if (stack->cpl == 3)
        memory_write(cpu, linear, &value, size_bytes);
    else
        memory_write_system(cpu, linear, &value, size_bytes);
}

void stack_switch_commit(struct cpu *cpu, const struct stack_switch *stack)
{
    cpu->segment[SEG_SS] = stack->segment;
    cpu->gpr[RSP] = stack->pointer;
}
