/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A debugger outside of the guest: breakpoints, watchpoints and single steps that the guest does
 * not see. Without one, cpu->debugger is NULL, and nothing of this is on a path that is taken
 * often. Private to cpu/soft; own thread only.
 *
 * - Blocks end before an address with a breakpoint, and a block that starts at one is neither in
 *   the jump cache nor linked to, so block_find() comes by each time.
 * - Watched pages have no tag in the TLB that a fast path takes, so memory.c comes by.
 * - While something is watched, blocks have one instruction and none is translated: the access is
 *   told right after its instruction.
 */
#ifndef SKEP_CPU_SOFT_DEBUGGER_H
#define SKEP_CPU_SOFT_DEBUGGER_H

#include "cpu/debug.h"
#include "cpu/soft/block.h"

struct debugger {
    struct debug_request request; /* its breakpoints are these: */
    struct breakpoint breakpoint[DEBUG_MAX_BREAKPOINTS];
    unsigned watch_count;
    bool is_changed;   /* since the decoded blocks were last looked at */
    bool tlb_is_stale; /* other pages are watched now */
    bool has_stopped;
    struct debug_stop stop;
    /* What the decoded blocks go by. It lags behind in single steps, so that a step over a
     * breakpoint, which is taken away for it, keeps all that is decoded and translated. */
    uint64_t split[DEBUG_MAX_BREAKPOINTS];
    unsigned split_count;
    bool has_single_ops;
    struct translator *idle_translator; /* cpu->translator while that is NULL for our sake */
};

/* For the embedder, while cpu_run() is not under way. NULL: no debugger any more. */
bool debugger_set(struct cpu *cpu, const struct debug_request *request, struct error *err);
/* After CPU_DEBUG. */
struct debug_stop debugger_take_stop(struct cpu *cpu);
void debugger_close(struct cpu *cpu);

void debugger_apply(struct cpu *cpu);
bool debugger_fetch_slow(struct cpu *cpu, uint64_t linear);
unsigned debugger_cut_slow(const struct cpu *cpu, uint64_t linear, const struct op *op,
                           unsigned count, unsigned *size_bytes);
bool debugger_allows_slow(const struct cpu *cpu, uint64_t linear, const struct block *block);
bool debugger_watches_slow(const struct cpu *cpu, uint64_t linear, uint64_t size_bytes);
void debugger_note_access_slow(struct cpu *cpu, uint64_t linear, unsigned size_bytes,
                               enum memory_access access);

/* --- for run.c ------------------------------------------------------------------------------ */

/* A run begins: what was changed meanwhile takes effect. */
static inline void debugger_enter(struct cpu *cpu)
{
    if (cpu->debugger && cpu->debugger->is_changed)
        debugger_apply(cpu);
}

/* Before an instruction that the run loop takes alone; notes the stop. */
bool debugger_breaks_here(struct cpu *cpu);

static inline bool debugger_steps(const struct cpu *cpu)
{
    return cpu->debugger && cpu->debugger->request.steps;
}

/* A timer that ran out while the guest stood still would otherwise turn every step into one of its
 * handler. A halted processor goes on by nothing else. */
static inline bool debugger_holds_interrupts(const struct cpu *cpu)
{
    return debugger_steps(cpu) && !cpu->debugger->request.takes_interrupts &&
           cpu->run_state == X86_RUNNING;
}

static inline bool debugger_has_stopped(const struct cpu *cpu)
{
    return cpu->debugger && cpu->debugger->has_stopped;
}

/* A watched access may have happened in the step, too: that is told then. */
static inline bool debugger_end_step(struct cpu *cpu)
{
    if (!debugger_steps(cpu))
        return false;
    if (!cpu->debugger->has_stopped)
        cpu->debugger->stop = (struct debug_stop){.kind = DEBUG_STOP_STEP};
    cpu->debugger->has_stopped = true;
    return true;
}

/* The instruction ended in a fault: it has accessed nothing. */
static inline void debugger_forget_access(struct cpu *cpu)
{
    if (cpu->debugger && cpu->debugger->stop.kind == DEBUG_STOP_WATCHPOINT)
        cpu->debugger->has_stopped = false;
}

/* --- for block.c ---------------------------------------------------------------------------- */

/* Code at the linear address is about to run: ends the run when there is a breakpoint. True: there
 * was or will be one, and block_find() is to be asked the next time too. */
static inline bool debugger_fetch(struct cpu *cpu, uint64_t linear)
{
    return cpu->debugger && debugger_fetch_slow(cpu, linear);
}

/* How many of the ops, the first of which is at `linear`, may be one block. */
static inline unsigned debugger_cut(const struct cpu *cpu, uint64_t linear, const struct op *op,
                                    unsigned count, unsigned *size_bytes)
{
    return cpu->debugger ? debugger_cut_slow(cpu, linear, op, count, size_bytes) : count;
}

static inline bool debugger_allows(const struct cpu *cpu, uint64_t linear,
                                   const struct block *block)
{
    return !cpu->debugger || debugger_allows_slow(cpu, linear, block);
}

/* --- for tlb.c and memory.c ----------------------------------------------------------------- */

static inline bool debugger_watches(const struct cpu *cpu, uint64_t linear, uint64_t size_bytes)
{
    return cpu->debugger && debugger_watches_slow(cpu, linear, size_bytes);
}

static inline void debugger_note_access(struct cpu *cpu, uint64_t linear, unsigned size_bytes,
                                        enum memory_access access)
{
    if (cpu->debugger && cpu->debugger->watch_count)
        debugger_note_access_slow(cpu, linear, size_bytes, access);
}

#endif
