/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The run loop: blocks one after another, and between them what was asked for by other threads and
 * by the last instruction. A guest's fault comes back here by siglongjmp.
 */
#include "cpu/soft/block.h"
#include "cpu/soft/debug.h"
#include "cpu/soft/debugger.h"
#include "cpu/soft/tlb.h"
#include "cpu/soft/translator/check.h"
#include "cpu/soft/translator/translator.h"
#include "cpu/soft/vector/vector.h"

void cpu_request(struct cpu *cpu, uint32_t request)
{
    atomic_fetch_or(&cpu->requests, request);
}

void cpu_withdraw(struct cpu *cpu, uint32_t request)
{
    atomic_fetch_and(&cpu->requests, ~request);
}

static bool has_interrupt(const struct cpu *cpu, uint32_t requests)
{
    return ((requests & REQUEST_NMI) && !cpu->nmi_blocked) ||
           ((requests & REQUEST_INTR) && (cpu->rflags & RFLAGS_IF));
}

bool cpu_has_work(struct cpu *cpu)
{
    uint32_t requests = atomic_load(&cpu->requests);
    if (requests & (REQUEST_INIT | REQUEST_KICK))
        return true;
    switch (cpu->run_state) {
    case X86_WAIT_FOR_SIPI: return requests & REQUEST_SIPI;
    case X86_HALTED:
        return has_interrupt(cpu, requests) || cpu->pending_debug || monitor_wakes(cpu, requests);
    default: return true;
    }
}

/* --- raising -------------------------------------------------------------------------------- */

static _Noreturn void unwind(struct cpu *cpu, enum x86_vector vector, bool has_error_code,
                             uint32_t error_code)
{
    cpu->pending.exception = true;
    cpu->pending.vector = (uint8_t)vector;
    cpu->pending.has_error_code = has_error_code;
    cpu->pending.error_code = error_code;
    siglongjmp(cpu->catcher ? *cpu->catcher : cpu->unwind, 1);
}

void cpu_raise(struct cpu *cpu, enum x86_vector vector)
{
    unwind(cpu, vector, false, 0);
}

void cpu_raise_code(struct cpu *cpu, enum x86_vector vector, uint32_t error_code)
{
    unwind(cpu, vector, true, error_code);
}

void cpu_raise_page_fault(struct cpu *cpu, uint64_t linear, uint32_t error_code)
{
    cpu->cr2 = linear;
    unwind(cpu, VECTOR_PF, true, error_code);
}

/* After the jump back: RIP on the instruction that faulted, and what the fault becomes when it hit
 * the delivery of another. */
static void settle_fault(struct cpu *cpu)
{
    if (cpu->op) {
        bool is_counted = !cpu->is_translated || cpu->system->translator.has_counts;
        if (!cpu->is_stepping && is_counted)
            cpu->stats.instructions -= (uint64_t)(cpu->block->end - cpu->op);
        cpu->rip = cpu_rip(cpu);
        cpu->op = NULL;
    }
    cpu->is_stepping = cpu->is_translated = cpu->repeats_once = false;
    cpu->debug_hits = 0;
    debugger_forget_access(cpu);
    cpu->delivering_ext = false;
    int first = cpu->delivering;
    cpu->delivering = DELIVERING_NONE;
    if (first != DELIVERING_NONE)
        interrupt_merge(cpu, first);
}

/* --- running -------------------------------------------------------------------------------- */

/* One instruction, for shadows and single steps; gives its block. */
static const struct block *step(struct cpu *cpu)
{
    uint64_t rip = cpu->rip;
    struct block *block = block_find(cpu);
    cpu->block = block;
    cpu->gpr[GPR_BLOCK_RIP] = rip;
    cpu->rip = rip + block->op[0].length;
    cpu->is_stepping = true;
    cpu->op = block->op;
    cpu->op->fn(cpu, cpu->op);
    cpu->op = NULL;
    cpu->rip = cpu_wrap_rip(cpu, cpu->rip);
    cpu->is_stepping = false;
    cpu->stats.instructions++;
    return block;
}

/* The block at RIP, past the guess of the last one. */
static __attribute__((noinline)) struct block *next_block(struct cpu *cpu, uint64_t rip)
{
    uint64_t last_end = cpu->gpr[GPR_BLOCK_RIP] + cpu->block->size_bytes;
    struct jump_entry *entry = jump_slot(cpu, rip);
    struct block *block = entry->block;
    if (entry->tag != jump_tag(cpu, rip) || !block_is_alive(block) || block->page2)
        block = block_find(cpu);
    /* What may not be in the jump cache may not be linked to either. */
    if (entry->tag == jump_tag(cpu, rip) && entry->block == block && !block->page2)
        cpu->block->link[rip != last_end] =
            (struct block_link){rip, cpu->link_key[rip >> 63], block};
    return block;
}

static inline void run_block(struct cpu *cpu)
{
    uint64_t rip = cpu->rip;
    struct block *last = cpu->block;
    unsigned way = rip != cpu->gpr[GPR_BLOCK_RIP] + last->size_bytes;
    const struct block_link *link = &last->link[way];
    last->went[way] = (uint8_t)(last->went[way] + (last->went[way] < UINT8_MAX));
    struct block *block = link->block;
    bool is_right = link->rip == rip && link->key == cpu->link_key[rip >> 63];
    if (__builtin_expect(!is_right || !block_is_alive(block), 0)) {
        cpu->rip = cpu_wrap_rip(cpu, rip);
        if (cpu->rip != rip)
            return;
        if (debug_breaks_in_page(cpu, debug_code_linear(cpu))) {
            cpu_look(cpu);
            return;
        }
        block = next_block(cpu, rip);
    }
    if (cpu->translator && translator_run(cpu, block))
        return;
    cpu->block = block;
    cpu->gpr[GPR_BLOCK_RIP] = rip;
    cpu->rip = rip + block->size_bytes;
    cpu->stats.instructions += block->op_count;
    const struct op *op = block->op;
    const struct op *end = block->end;
    do {
        cpu->op = op;
        op->fn(cpu, op);
    } while (++op != end);
}

enum action {
    ACTION_RUN,
    ACTION_AGAIN,
    ACTION_HALT,
    ACTION_KICK,
    ACTION_DEBUG,
    ACTION_SHUTDOWN,
    ACTION_FAIL,
};

/* After an instruction, or the delivery of an event: what a debugger's single step is. */
static enum action after_step(struct cpu *cpu)
{
    return debugger_end_step(cpu) ? ACTION_DEBUG : ACTION_AGAIN;
}

static void take_sipi(struct cpu *cpu)
{
    cpu_withdraw(cpu, REQUEST_SIPI);
    if (cpu->run_state != X86_WAIT_FOR_SIPI)
        return;
    uint8_t vector = atomic_load(&cpu->sipi_vector);
    segment_set_real(cpu, SEG_CS, (uint16_t)(vector << 8));
    cpu->rip = 0;
    cpu->run_state = X86_RUNNING;
    cpu_update_mode(cpu);
}

static void deliver_external(struct cpu *cpu, unsigned vector)
{
    cpu->delivering = DELIVERING_BENIGN;
    cpu->stats.interrupts++;
    interrupt_deliver(cpu, vector, EVENT_EXTERNAL, cpu->rip, NULL);
    cpu->delivering = DELIVERING_NONE;
}

static void take_interrupt(struct cpu *cpu, uint32_t requests)
{
    const struct soft_callbacks *callbacks = &cpu->system->callbacks;
    monitor_end_halt(cpu);
    if ((requests & REQUEST_NMI) && !cpu->nmi_blocked) {
        cpu_take_nmi(cpu);
        deliver_external(cpu, VECTOR_NMI);
        return;
    }
    int vector = callbacks->acknowledge(callbacks->opaque, cpu->index);
    if (vector >= 0)
        deliver_external(cpu, (unsigned)vector);
}

/* With IA32_DEBUGCTL.BTF only taken branches are trapped (SDM 3B 17.4.3). */
static bool is_branch_taken(const struct cpu *cpu, const struct block *block, uint64_t rip)
{
    const struct op *op = &block->op[0];
    bool is_repeating = cpu->rip == rip && (op->flags & (OP_REP | OP_REPNE));
    return (op->flags & OP_ALWAYS_BRANCHES) || (cpu->rip != rip + op->length && !is_repeating);
}

/* One instruction by itself: in a shadow, to be trapped after, or where breakpoints may be. The
 * trap of an instruction that begins the shadow of MOV SS is lost, its breakpoints wait; a MOV SS
 * in that shadow begins no other (SDM 3A 6.8.3). Intel's processors pass over an instruction
 * breakpoint there, too; AMD's do not. */
static enum action step_and_trap(struct cpu *cpu)
{
    bool in_mov_ss = cpu->mov_ss_shadow;
    bool is_passed_over = in_mov_ss && !cpu->system->features.is_amd;
    if (debugger_breaks_here(cpu)) /* while the shadow is still there */
        return ACTION_DEBUG;
    if (!(cpu->rflags & RFLAGS_RF) && !is_passed_over && debug_break(cpu))
        return ACTION_AGAIN;
    uint64_t rip = cpu->rip;
    cpu->interrupt_shadow = cpu->mov_ss_shadow = false;
    cpu->traps = cpu->rflags & RFLAGS_TF;
    cpu->repeats_once = cpu->traps || cpu->steps_next;
    cpu->steps_next = false;
    cpu->rflags &= ~(uint64_t)RFLAGS_RF;
    const struct block *block = step(cpu);
    cpu->repeats_once = false;
    if (in_mov_ss)
        cpu->mov_ss_shadow = false;
    bool is_skipped =
        cpu->mov_ss_shadow || ((cpu->debugctl & DEBUGCTL_BTF) && !is_branch_taken(cpu, block, rip));
    if (cpu->traps && !is_skipped)
        debug_trap(cpu, DR6_BS);
    return after_step(cpu);
}

/* The requests of other threads that are about the processor as a whole. */
static void take_resets(struct cpu *cpu, uint32_t requests)
{
    if (requests & REQUEST_SHOOTDOWN)
        code_page_serve(cpu);
    if (requests & REQUEST_VOID)
        translator_serve(cpu);
    if (requests & REQUEST_INIT) {
        cpu_withdraw(cpu, REQUEST_INIT);
        cpu_init(cpu);
    }
    if (requests & REQUEST_SIPI)
        take_sipi(cpu);
}

static enum action serve(struct cpu *cpu)
{
    uint32_t requests = atomic_load(&cpu->requests);
    cpu->op = NULL;
    cpu->rip = cpu_wrap_rip(cpu, cpu->rip);
    if (check_failure(cpu))
        return ACTION_FAIL;
    take_resets(cpu, requests);
    if (debugger_has_stopped(cpu))
        return ACTION_DEBUG;
    if (requests & REQUEST_KICK) {
        cpu_withdraw(cpu, REQUEST_KICK);
        return ACTION_KICK;
    }
    if (cpu->run_state == X86_WAIT_FOR_SIPI)
        return ACTION_HALT;
    cpu->pending_debug |= cpu->debug_hits;
    cpu->debug_hits = 0;
    if (!cpu->pending.exception && cpu->pending_debug && !cpu->mov_ss_shadow)
        debug_take_pending(cpu);
    if (cpu->pending.exception) {
        interrupt_deliver_pending(cpu);
        return after_step(cpu);
    }
    bool is_shadowed = cpu->interrupt_shadow || cpu->mov_ss_shadow;
    if (has_interrupt(cpu, requests) && !is_shadowed && !debugger_holds_interrupts(cpu)) {
        take_interrupt(cpu, requests);
        return after_step(cpu);
    }
    if (cpu->run_state == X86_HALTED && monitor_wakes(cpu, requests))
        monitor_end_halt(cpu);
    if (cpu->run_state == X86_HALTED)
        return ACTION_HALT;
    if (is_shadowed || (cpu->rflags & (RFLAGS_TF | RFLAGS_RF)) || cpu->steps_next ||
        debug_breaks_in_page(cpu, debug_code_linear(cpu)) || debugger_steps(cpu))
        return step_and_trap(cpu);
    if (requests & REQUEST_TRAP)
        cpu_withdraw(cpu, REQUEST_TRAP);
    return ACTION_RUN;
}

/* Apart from the function with sigsetjmp, which keeps nothing in registers. */
static __attribute__((noinline)) enum action run_until_served(struct cpu *cpu)
{
    for (;;) {
        if (__builtin_expect(atomic_load_explicit(&cpu->requests, memory_order_relaxed) != 0, 0)) {
            enum action action = serve(cpu);
            if (action == ACTION_AGAIN)
                continue;
            if (action != ACTION_RUN)
                return action;
        }
        run_block(cpu);
    }
}

static enum action run_with_faults(struct cpu *cpu)
{
    if (sigsetjmp(cpu->unwind, 0) != 0) {
        settle_fault(cpu);
        cpu_look(cpu);
    }
    if (cpu->triple_fault)
        return ACTION_SHUTDOWN;
    if (debugger_has_stopped(cpu))
        return ACTION_DEBUG;
    return run_until_served(cpu);
}

enum cpu_exit cpu_run(struct cpu *cpu)
{
    atomic_store(&cpu->is_running, true);
    vector_enter(cpu);
    debugger_enter(cpu);
    check_enter(cpu);
    cpu_look(cpu);
    enum action action = run_with_faults(cpu);
    cpu->op = NULL;
    check_leave(cpu);
    vector_leave(cpu);
    atomic_store(&cpu->is_running, false);
    switch (action) {
    case ACTION_HALT: return CPU_HALTED;
    case ACTION_KICK: return CPU_KICKED;
    case ACTION_DEBUG: return CPU_DEBUG;
    case ACTION_FAIL: return CPU_FAILED;
    default: return CPU_SHUTDOWN;
    }
}
