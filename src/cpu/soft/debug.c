/* SPDX-License-Identifier: BSD-2-Clause
 * Breakpoints and debug exceptions: see debug.h. SDM 3B 17.2, 17.3. */
#include "cpu/soft/debug.h"

#include "cpu/soft/block.h"
#include "cpu/soft/tlb.h"

enum { BREAKPOINTS = 4 };
enum breakpoint_kind { ON_EXECUTE, ON_WRITE, ON_PORT, ON_ACCESS };

#define NO_PAGE UINT64_C(1)

struct breakpoint {
    bool is_enabled;
    enum breakpoint_kind kind;
    uint64_t first, last;
};

/* The low bits of the address that the length covers are ignored (SDM 3B 17.2.5). */
static struct breakpoint breakpoint_of(const struct cpu *cpu, unsigned n)
{
    static const uint8_t lengths[] = {1, 2, 8, 4};
    unsigned control = cpu->dr[7] >> (16 + 4 * n) & 0xf;
    struct breakpoint b = {.is_enabled = cpu->dr[7] >> 2 * n & 3, .kind = control & 3};
    unsigned length = b.kind == ON_EXECUTE ? 1 : lengths[control >> 2];
    b.first = cpu->dr[n] & ~(uint64_t)(length - 1);
    b.last = b.first + length - 1;
    /* Without CR4.DE this kind is undefined. */
    if (b.kind == ON_PORT && !(cpu->cr4 & CR4_DE))
        b.is_enabled = false;
    return b;
}

void debug_update(struct cpu *cpu)
{
    uint64_t watch[BREAKPOINTS], stop[BREAKPOINTS];
    cpu->debug_armed = 0;
    for (unsigned n = 0; n < BREAKPOINTS; n++) {
        struct breakpoint b = breakpoint_of(cpu, n);
        watch[n] = stop[n] = NO_PAGE;
        if (!b.is_enabled)
            continue;
        if (b.kind == ON_EXECUTE) {
            stop[n] = b.first & PAGE_MASK;
            cpu->debug_armed |= DEBUG_EXECUTE;
        } else if (b.kind == ON_PORT) {
            cpu->debug_armed |= DEBUG_IO;
        } else {
            watch[n] = b.first & PAGE_MASK;
            cpu->debug_armed |= DEBUG_DATA;
        }
    }
    if (memcmp(stop, cpu->break_page, sizeof(stop)) != 0)
        tlb_new_epochs(cpu);
    if (memcmp(watch, cpu->watch_page, sizeof(watch)) != 0)
        tlb_flush_all(cpu);
    memcpy(cpu->break_page, stop, sizeof(stop));
    memcpy(cpu->watch_page, watch, sizeof(watch));
}

bool debug_watches_page(const struct cpu *cpu, uint64_t linear)
{
    if (!(cpu->debug_armed & DEBUG_DATA))
        return false;
    for (unsigned n = 0; n < BREAKPOINTS; n++)
        if (cpu->watch_page[n] == (linear & PAGE_MASK))
            return true;
    return false;
}

/* --- hits ----------------------------------------------------------------------------------- */

/* Nothing else of a block runs before the run loop looks. */
static bool is_alone(const struct cpu *cpu)
{
    return !cpu->op || cpu->is_stepping;
}

/* Back to the run loop as a fault goes, but with nothing to deliver. The second half of the shadow
 * of STI is that its next instruction ends the block: see flags.c. */
static _Noreturn void begin_again(struct cpu *cpu)
{
    bool is_behind_sti = cpu->op > cpu->block->op && cpu->op[-1].flags & OP_ENDS_SOON;
    cpu->steps_next = true;
    cpu->interrupt_shadow |= is_behind_sti;
    cpu->delivering = DELIVERING_NONE;
    siglongjmp(cpu->unwind, 1);
}

static uint32_t hits_of(const struct cpu *cpu, uint64_t first, unsigned size_bytes,
                        bool (*is_meant)(enum breakpoint_kind kind))
{
    uint32_t hits = 0;
    for (unsigned n = 0; n < BREAKPOINTS; n++) {
        struct breakpoint b = breakpoint_of(cpu, n);
        bool overlaps = first <= b.last && b.first <= first + size_bytes - 1;
        if (b.is_enabled && is_meant(b.kind) && overlaps)
            hits |= 1u << n;
    }
    return hits;
}

static bool is_for_reads(enum breakpoint_kind kind)
{
    return kind == ON_ACCESS;
}

static bool is_for_writes(enum breakpoint_kind kind)
{
    return kind == ON_ACCESS || kind == ON_WRITE;
}

static bool is_for_ports(enum breakpoint_kind kind)
{
    return kind == ON_PORT;
}

static bool is_for_code(enum breakpoint_kind kind)
{
    return kind == ON_EXECUTE;
}

uint32_t debug_data_hits(struct cpu *cpu, uint64_t linear, unsigned size_bytes, bool is_write)
{
    uint32_t hits = 0;
    if (cpu->debug_armed & DEBUG_DATA)
        hits = hits_of(cpu, linear, size_bytes, is_write ? is_for_writes : is_for_reads);
    if (hits && !is_alone(cpu))
        begin_again(cpu);
    return hits;
}

void debug_port(struct cpu *cpu, uint16_t port, unsigned size_bytes)
{
    if (__builtin_expect(!(cpu->debug_armed & DEBUG_IO), 1))
        return;
    uint32_t hits = hits_of(cpu, port, size_bytes, is_for_ports);
    if (hits && !is_alone(cpu))
        begin_again(cpu);
    debug_note_hits(cpu, hits);
}

/* --- exceptions ----------------------------------------------------------------------------- */

void debug_trap(struct cpu *cpu, uint32_t bits)
{
    cpu->pending_debug |= bits;
    cpu_look(cpu);
}

/* B0 … B3 tell of this exception alone; the processor clears nothing else (17.2.3). It does clear
 * DR7.GD, and the branch flags of IA32_DEBUGCTL (17.4.1). What waits in the shadow of MOV SS is
 * told by whichever #DB comes first. */
void debug_set_status(struct cpu *cpu, uint32_t bits)
{
    cpu->dr[6] = (cpu->dr[6] & ~(uint64_t)DR6_HITS) | bits | cpu->pending_debug;
    cpu->pending_debug = 0;
    cpu->dr[7] &= ~(uint64_t)DR7_GD;
    cpu->debugctl &= ~(uint64_t)(DEBUGCTL_BTF | DEBUGCTL_LBR);
}

static void make_pending(struct cpu *cpu, uint32_t bits)
{
    debug_set_status(cpu, bits);
    cpu->pending.exception = true;
    cpu->pending.vector = VECTOR_DB;
    cpu->pending.has_error_code = false;
}

void debug_take_pending(struct cpu *cpu)
{
    make_pending(cpu, 0);
}

void debug_resume(struct cpu *cpu)
{
    bool is_seen = (cpu->debug_armed & DEBUG_EXECUTE) || atomic_load(&cpu->requests) != 0;
    if (!is_seen)
        return;
    cpu->rflags |= RFLAGS_RF;
    cpu_look(cpu);
}

bool debug_break(struct cpu *cpu)
{
    uint64_t linear = debug_code_linear(cpu);
    if (!debug_breaks_in_page(cpu, linear))
        return false;
    uint32_t hits = hits_of(cpu, linear, 1, is_for_code);
    if (hits)
        make_pending(cpu, hits);
    return hits != 0;
}
