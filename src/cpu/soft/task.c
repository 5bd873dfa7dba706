/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Hardware task switches between TSSs of 16 and 32 bits: SDM 3A chapter 7. The old task is saved
 * and the new one loaded when no access can fault any more; what is wrong with the new task's
 * segments is then raised in the new task, as table 7-1 has it.
 */
#include "cpu/soft/core.h"

#include "cpu/soft/debug.h"

/* All that there is but RF, which debug_resume sets. */
#define TASK_FLAGS UINT32_C(0x3e7fd7)

enum task_reason { TASK_JMP, TASK_CALL, TASK_RETURN };

enum {
    TSS16_BYTES = 44,
    TSS32_BYTES = 104,
    TSS16_SAVED = 14, /* where the fields that a switch writes begin: IP … DS */
    TSS16_SAVED_BYTES = 28,
    TSS32_CR3 = 28,
    TSS32_SAVED = 32, /* EIP … GS */
    TSS32_SAVED_BYTES = 64,
    TSS32_LDT = 96,
    TSS32_TRAP = 100,
    TYPE_BUSY = 2,
};

/* What a TSS holds of a task, in the order of its fields. */
struct task {
    uint32_t rip, flags, gpr[8];
    uint16_t segment[6], ldt;
    uint32_t cr3;
    bool has_cr3, is_trapped;
};

static _Noreturn void raise_tss(struct cpu *cpu, uint16_t selector)
{
    raise_selector(cpu, VECTOR_TS, selector);
}

static uint32_t field(const uint8_t *at, unsigned size_bytes)
{
    uint32_t value = 0;
    memcpy(&value, at, size_bytes);
    return value;
}

/* --- the old task --------------------------------------------------------------------------- */

static unsigned put_fields(uint8_t *at, const uint32_t *values, unsigned count, unsigned size_bytes)
{
    for (unsigned i = 0; i < count; i++)
        memcpy(at + i * size_bytes, &values[i], size_bytes);
    return count * size_bytes;
}

/* In one write, that either happens or faults. The unused halves of selectors stay as they are. */
static void task_save(struct cpu *cpu, uint64_t rip, uint64_t flags)
{
    const struct x86_segment *tr = &cpu->segment[SEG_TR];
    bool is_32bit = tr->attributes & TSS_IS_32BIT;
    unsigned size_bytes = is_32bit ? 4 : 2;
    unsigned total = is_32bit ? TSS32_SAVED_BYTES : TSS16_SAVED_BYTES;
    uint64_t linear = (uint32_t)(tr->base + (is_32bit ? TSS32_SAVED : TSS16_SAVED));
    uint8_t image[TSS32_SAVED_BYTES];
    uint32_t values[10] = {(uint32_t)rip, (uint32_t)flags};
    for (unsigned i = 0; i < 8; i++)
        values[2 + i] = (uint32_t)cpu->gpr[i];
    memory_read_system(cpu, linear, image, total);
    unsigned at = put_fields(image, values, 10, size_bytes);
    for (unsigned i = SEG_ES; i <= (is_32bit ? SEG_GS : SEG_DS); i++)
        memcpy(image + at + i * size_bytes, &cpu->segment[i].selector, 2);
    memory_write_system(cpu, linear, image, total);
}

static uint64_t descriptor_byte(const struct cpu *cpu, uint16_t selector)
{
    return (uint32_t)(cpu->gdtr.base + (selector & SELECTOR_INDEX) + 5);
}

static void set_busy(struct cpu *cpu, uint16_t selector, bool is_busy)
{
    uint8_t type;
    memory_read_system(cpu, descriptor_byte(cpu, selector), &type, 1);
    type = (uint8_t)(is_busy ? type | TYPE_BUSY : type & ~TYPE_BUSY);
    memory_write_system(cpu, descriptor_byte(cpu, selector), &type, 1);
}

/* --- the new task --------------------------------------------------------------------------- */

static struct task task_of(const uint8_t *tss, bool is_32bit)
{
    struct task task = {.has_cr3 = is_32bit};
    unsigned size_bytes = is_32bit ? 4 : 2;
    const uint8_t *at = tss + (is_32bit ? TSS32_SAVED : TSS16_SAVED);
    task.rip = field(at, size_bytes);
    task.flags = field(at + size_bytes, size_bytes);
    at += 2 * size_bytes;
    for (unsigned i = 0; i < 8; i++, at += size_bytes)
        task.gpr[i] = field(at, size_bytes);
    for (unsigned i = SEG_ES; i <= (is_32bit ? SEG_GS : SEG_DS); i++, at += size_bytes)
        task.segment[i] = (uint16_t)field(at, 2);
    task.ldt = (uint16_t)field(at, 2);
    if (is_32bit) {
        task.cr3 = field(tss + TSS32_CR3, 4);
        task.is_trapped = tss[TSS32_TRAP] & 1;
    }
    return task;
}

static void load_ldt(struct cpu *cpu, uint16_t selector)
{
    struct descriptor descriptor;
    if (!(selector & ~SELECTOR_RPL))
        return;
    if (selector & SELECTOR_TI || !descriptor_find(cpu, selector, &descriptor) ||
        (descriptor.attributes & (SEGMENT_S | SEGMENT_TYPE)) != TYPE_LDT ||
        !(descriptor.attributes & SEGMENT_P))
        raise_tss(cpu, selector);
    segment_set(cpu, SEG_LDTR, selector, &descriptor);
}

static void load_code(struct cpu *cpu, uint16_t selector)
{
    struct descriptor code;
    if (!(selector & ~SELECTOR_RPL))
        raise_tss(cpu, selector);
    descriptor_read(cpu, selector, &code, VECTOR_TS);
    unsigned dpl = segment_dpl(code.attributes);
    bool is_code = (code.attributes & (SEGMENT_S | TYPE_CODE)) == (SEGMENT_S | TYPE_CODE);
    bool is_level_good =
        code.attributes & TYPE_CONFORMING ? dpl <= cpu->cpl : dpl == (unsigned)cpu->cpl;
    if (!is_code || !is_level_good)
        raise_tss(cpu, selector);
    if (!(code.attributes & SEGMENT_P))
        raise_selector(cpu, VECTOR_NP, selector);
    descriptor_set_accessed(cpu, &code);
    segment_set(cpu, SEG_CS, selector, &code);
}

static void load_stack(struct cpu *cpu, uint16_t selector)
{
    struct descriptor descriptor;
    segment_check_stack(cpu, selector, cpu->cpl, VECTOR_TS, &descriptor);
    descriptor_set_accessed(cpu, &descriptor);
    segment_set(cpu, SEG_SS, selector, &descriptor);
}

static void load_segments(struct cpu *cpu, const struct task *task)
{
    load_ldt(cpu, task->ldt);
    if (cpu->rflags & RFLAGS_VM)
        return;
    load_code(cpu, task->segment[SEG_CS]);
    load_stack(cpu, task->segment[SEG_SS]);
    segment_load_data(cpu, SEG_ES, task->segment[SEG_ES], VECTOR_TS);
    segment_load_data(cpu, SEG_DS, task->segment[SEG_DS], VECTOR_TS);
    segment_load_data(cpu, SEG_FS, task->segment[SEG_FS], VECTOR_TS);
    segment_load_data(cpu, SEG_GS, task->segment[SEG_GS], VECTOR_TS);
}

/* From the first line on the new task runs: what is raised is its own. Selectors are in their
 * registers before their descriptors are looked at, so that a handler sees them. */
static void task_load(struct cpu *cpu, const struct task *task)
{
    cpu->op = NULL;
    cpu->rip = task->rip;
    for (unsigned i = 0; i < 8; i++)
        cpu->gpr[i] = task->gpr[i];
    cpu_set_rflags(cpu, task->flags & TASK_FLAGS);
    if (cpu->rflags & RFLAGS_VM) {
        cpu->cpl = 3;
        for (unsigned i = SEG_ES; i <= SEG_GS; i++)
            v86_set_segment(cpu, i, task->segment[i]);
    } else {
        cpu->cpl = task->segment[SEG_CS] & SELECTOR_RPL;
        for (unsigned i = SEG_ES; i <= SEG_GS; i++)
            segment_set_null(cpu, i, task->segment[i]);
    }
    segment_set_null(cpu, SEG_LDTR, task->ldt);
    cpu->dr[7] &= ~(uint64_t)(DR7_LOCAL | DR7_LE); /* SDM 3B 17.2.4 */
    debug_update(cpu);
    if (task->flags & RFLAGS_RF)
        debug_resume(cpu);
    cpu_update_mode(cpu);
    if (task->has_cr3 && (cpu->cr0 & CR0_PG))
        control_write_cr3(cpu, task->cr3);
    load_segments(cpu, task);
    if (cpu->rip > cpu->segment[SEG_CS].limit)
        raise_zero(cpu, VECTOR_GP);
    cpu_update_mode(cpu);
    cpu_look(cpu);
}

/* --- the switch ----------------------------------------------------------------------------- */

static unsigned tss_bytes(uint32_t attributes)
{
    return attributes & TSS_IS_32BIT ? TSS32_BYTES : TSS16_BYTES;
}

/* `rip` and `flags`: with which the old task goes on when something returns to it. */
static void task_switch(struct cpu *cpu, uint16_t selector, struct descriptor *next,
                        enum task_reason reason, uint64_t rip, uint64_t flags)
{
    uint8_t tss[TSS32_BYTES];
    uint16_t old = cpu->segment[SEG_TR].selector;
    unsigned bytes = tss_bytes(next->attributes);
    if (next->limit < bytes - 1 ||
        cpu->segment[SEG_TR].limit < tss_bytes(cpu->segment[SEG_TR].attributes) - 1)
        raise_tss(cpu, selector);
    memory_read_system(cpu, next->base, tss, bytes);
    struct task task = task_of(tss, next->attributes & TSS_IS_32BIT);
    if (reason == TASK_CALL) {
        memory_write_system(cpu, next->base, &old, 2);
        task.flags |= RFLAGS_NT;
    }
    task_save(cpu, rip, flags);
    if (reason != TASK_CALL)
        set_busy(cpu, old, false);
    if (reason != TASK_RETURN)
        set_busy(cpu, selector, true);
    next->attributes |= TYPE_BUSY;
    segment_set(cpu, SEG_TR, selector, next);
    cpu->cr0 |= CR0_TS;
    cpu->x87_ready = false;
    task_load(cpu, &task);
    if (task.is_trapped)
        debug_trap(cpu, DR6_BT);
}

/* A TSS that is not busy, named by a task gate or a far pointer. */
static void read_available(struct cpu *cpu, uint16_t selector, struct descriptor *tss)
{
    if (selector & SELECTOR_TI || !descriptor_find(cpu, selector, tss))
        raise_selector(cpu, VECTOR_GP, selector);
    unsigned type = tss->attributes & (SEGMENT_S | SEGMENT_TYPE);
    if (type != TYPE_TSS16 && type != TYPE_TSS32)
        raise_selector(cpu, VECTOR_GP, selector);
    if (!(tss->attributes & SEGMENT_P))
        raise_selector(cpu, VECTOR_NP, selector);
}

void task_transfer(struct cpu *cpu, const struct op *op, uint16_t selector,
                   const struct descriptor *descriptor, bool is_call)
{
    struct descriptor tss;
    bool is_gate = (descriptor->attributes & SEGMENT_TYPE) == TYPE_TASK_GATE;
    uint16_t target = is_gate ? (uint16_t)(descriptor->raw >> 16) : selector;
    read_available(cpu, target, &tss);
    task_switch(cpu, target, &tss, is_call ? TASK_CALL : TASK_JMP, op_next_rip(cpu, op),
                cpu_get_rflags(cpu));
}

void task_interrupt(struct cpu *cpu, uint16_t selector, uint64_t rip, uint64_t flags,
                    const uint32_t *error_code)
{
    struct descriptor tss;
    read_available(cpu, selector, &tss);
    task_switch(cpu, selector, &tss, TASK_CALL, rip, flags);
    if (error_code)
        stack_push(cpu, *error_code, tss.attributes & TSS_IS_32BIT ? 4 : 2);
}

void task_return(struct cpu *cpu, const struct op *op)
{
    struct descriptor tss;
    uint16_t link;
    task_read(cpu, 0, &link, 2);
    if (link & SELECTOR_TI || !(link & ~SELECTOR_RPL) || !descriptor_find(cpu, link, &tss))
        raise_tss(cpu, link);
    unsigned type = tss.attributes & (SEGMENT_S | SEGMENT_TYPE);
    if (type != TYPE_TSS16_BUSY && type != TYPE_TSS32_BUSY)
        raise_tss(cpu, link);
    if (!(tss.attributes & SEGMENT_P))
        raise_selector(cpu, VECTOR_NP, link);
    cpu_unblock_nmi(cpu);
    uint64_t flags = cpu_get_rflags(cpu) & ~(uint64_t)RFLAGS_NT;
    task_switch(cpu, link, &tss, TASK_RETURN, op_next_rip(cpu, op), flags);
}
