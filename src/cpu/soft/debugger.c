/* SPDX-License-Identifier: BSD-2-Clause
 * Breakpoints, watchpoints and steps of a debugger outside of the guest: see debugger.h. */
#include "cpu/soft/debugger.h"

#include "cpu/soft/tlb.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

/* --- setting -------------------------------------------------------------------------------- */

/* Blocks are decoded anew. Jumps in translated code go by the place in physical memory, and a page
 * of user code may be mapped at several addresses: only in the kernel's half, where that is not
 * done, may translated code have breakpoints. */
static void rebuild(struct cpu *cpu)
{
    struct debugger *d = cpu->debugger;
    bool has_lower = false;
    d->split_count = 0;
    d->has_single_ops = d->watch_count > 0;
    for (unsigned i = 0; i < d->request.count; i++) {
        if (d->breakpoint[i].kind != BREAK_EXECUTE)
            continue;
        d->split[d->split_count++] = d->breakpoint[i].linear;
        has_lower |= !(d->breakpoint[i].linear >> 63);
    }
    if (d->idle_translator)
        cpu->translator = d->idle_translator;
    d->idle_translator = NULL;
    block_cache_flush(cpu);
    if (d->has_single_ops || has_lower) {
        d->idle_translator = cpu->translator;
        cpu->translator = NULL;
    }
}

static bool is_rebuild_due(const struct debugger *d)
{
    unsigned count = 0;
    if (d->has_single_ops != (d->watch_count > 0))
        return true;
    for (unsigned i = 0; i < d->request.count; i++) {
        if (d->breakpoint[i].kind != BREAK_EXECUTE)
            continue;
        if (count == d->split_count || d->split[count] != d->breakpoint[i].linear)
            return true;
        count++;
    }
    return count != d->split_count;
}

void debugger_apply(struct cpu *cpu)
{
    struct debugger *d = cpu->debugger;
    if (d->tlb_is_stale)
        tlb_flush_all(cpu);
    d->tlb_is_stale = false;
    if (d->request.steps)
        return; /* is_changed stays, for the first run that is no step */
    d->is_changed = false;
    if (is_rebuild_due(d))
        rebuild(cpu);
}

void debugger_close(struct cpu *cpu)
{
    struct debugger *d = cpu->debugger;
    if (!d)
        return;
    d->request.count = d->watch_count = 0;
    if (d->split_count || d->has_single_ops)
        rebuild(cpu);
    tlb_flush_all(cpu);
    cpu->debugger = NULL;
    free(d);
}

bool debugger_set(struct cpu *cpu, const struct debug_request *request, struct error *err)
{
    if (!request) {
        debugger_close(cpu);
        return true;
    }
    assert(request->count <= DEBUG_MAX_BREAKPOINTS);
    if (!cpu->debugger)
        cpu->debugger = calloc(1, sizeof(*cpu->debugger));
    struct debugger *d = cpu->debugger;
    if (!d)
        return error_errno(err, "cannot set breakpoints", NULL, ENOMEM);
    d->request = *request;
    d->request.breakpoints = NULL;
    d->tlb_is_stale |= d->watch_count > 0;
    d->watch_count = 0;
    for (unsigned i = 0; i < request->count; i++) {
        d->breakpoint[i] = request->breakpoints[i];
        d->watch_count += d->breakpoint[i].kind != BREAK_EXECUTE;
    }
    d->tlb_is_stale |= d->watch_count > 0;
    d->is_changed = true;
    return true;
}

struct debug_stop debugger_take_stop(struct cpu *cpu)
{
    cpu->debugger->has_stopped = false;
    return cpu->debugger->stop;
}

/* --- breakpoints ---------------------------------------------------------------------------- */

static const struct breakpoint *find_breakpoint(const struct debugger *d, uint64_t linear)
{
    for (unsigned i = 0; i < d->request.count; i++)
        if (d->breakpoint[i].kind == BREAK_EXECUTE && d->breakpoint[i].linear == linear)
            return &d->breakpoint[i];
    return NULL;
}

static bool is_split(const struct debugger *d, uint64_t linear)
{
    for (unsigned i = 0; i < d->split_count; i++)
        if (d->split[i] == linear)
            return true;
    return false;
}

/* A step from a breakpoint's address runs its instruction, as RFLAGS.RF would let it. */
static bool note_breakpoint(struct debugger *d, uint64_t linear)
{
    const struct breakpoint *hit = d->request.steps ? NULL : find_breakpoint(d, linear);
    if (!hit)
        return false;
    d->stop = (struct debug_stop){DEBUG_STOP_BREAKPOINT, *hit};
    d->has_stopped = true;
    return true;
}

bool debugger_breaks_here(struct cpu *cpu)
{
    uint64_t linear = cpu->rip;
    if (!cpu_is_64bit(cpu))
        linear = (uint32_t)(cpu->segment[SEG_CS].base + linear);
    return cpu->debugger && note_breakpoint(cpu->debugger, linear);
}

bool debugger_fetch_slow(struct cpu *cpu, uint64_t linear)
{
    if (note_breakpoint(cpu->debugger, linear))
        siglongjmp(cpu->unwind, 1);
    return is_split(cpu->debugger, linear);
}

unsigned debugger_cut_slow(const struct cpu *cpu, uint64_t linear, const struct op *op,
                           unsigned count, unsigned *size_bytes)
{
    for (unsigned i = 1; i < count; i++)
        if (cpu->debugger->has_single_ops || is_split(cpu->debugger, linear + op[i].offset)) {
            *size_bytes = op[i].offset;
            return i;
        }
    return count;
}

bool debugger_allows_slow(const struct cpu *cpu, uint64_t linear, const struct block *block)
{
    unsigned size_bytes;
    return debugger_cut_slow(cpu, linear, block->op, block->op_count, &size_bytes) ==
           block->op_count;
}

/* --- watchpoints ---------------------------------------------------------------------------- */

static bool is_touched(const struct breakpoint *watch, uint64_t linear, uint64_t size_bytes)
{
    return linear <= watch->linear + (watch->size_bytes - 1) &&
           watch->linear <= linear + (size_bytes - 1);
}

bool debugger_watches_slow(const struct cpu *cpu, uint64_t linear, uint64_t size_bytes)
{
    const struct debugger *d = cpu->debugger;
    for (unsigned i = 0; i < d->request.count && d->watch_count; i++)
        if (d->breakpoint[i].kind != BREAK_EXECUTE &&
            is_touched(&d->breakpoint[i], linear, size_bytes))
            return true;
    return false;
}

static bool is_wanted(enum breakpoint_kind kind, enum memory_access access)
{
    return kind == WATCH_ACCESS || kind == (access == ACCESS_WRITE ? WATCH_WRITE : WATCH_READ);
}

/* The run loop looks after the instruction, and then ends the run. */
void debugger_note_access_slow(struct cpu *cpu, uint64_t linear, unsigned size_bytes,
                               enum memory_access access)
{
    struct debugger *d = cpu->debugger;
    for (unsigned i = 0; i < d->request.count && !d->has_stopped; i++) {
        const struct breakpoint *watch = &d->breakpoint[i];
        if (watch->kind == BREAK_EXECUTE || !is_wanted(watch->kind, access) ||
            !is_touched(watch, linear, size_bytes))
            continue;
        d->stop = (struct debug_stop){DEBUG_STOP_WATCHPOINT, *watch};
        d->has_stopped = true;
        cpu_look(cpu);
    }
}
