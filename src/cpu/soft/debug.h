/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Debug registers: which breakpoints are armed, what they match, and the debug exceptions that are
 * due. SDM 3B chapter 17. Private to the core; own thread only.
 *
 * Nothing of this costs the fast paths anything. Pages with data breakpoints have no fast tags in
 * the TLB, so accesses to them come to memory.c. Pages with instruction breakpoints are never in
 * the jump cache, so the run loop sees them before each instruction. What hits a data or I/O
 * breakpoint in the middle of a block is begun again by itself: the trap comes right behind it.
 */
#ifndef SKEP_CPU_SOFT_DEBUG_H
#define SKEP_CPU_SOFT_DEBUG_H

#include "cpu/soft/core.h"

/* Kinds of armed breakpoints, in cpu->debug_armed. */
enum { DEBUG_EXECUTE = 1 << 0, DEBUG_DATA = 1 << 1, DEBUG_IO = 1 << 2 };

enum {
    DR6_HITS = 0xf, /* B0 … B3 */
    DR6_BD = 1 << 13,
    DR6_BS = 1 << 14,
    DR6_BT = 1 << 15,
    DR7_LOCAL = 0x55,
    DR7_LE = 1 << 8,
    DR7_GD = 1 << 13,
};
#define DR6_FIXED    UINT64_C(0xffff0ff0)
#define DR6_WRITABLE UINT64_C(0xe00f)
#define DR7_FIXED    UINT64_C(0x400)
#define DR7_WRITABLE UINT64_C(0xffff23ff)

enum { DEBUGCTL_LBR = 1 << 0, DEBUGCTL_BTF = 1 << 1 };

/* To be called after a change of DR0 … DR3, DR7 or CR4.DE. The handler that does so ends its
 * block. */
void debug_update(struct cpu *cpu);

/* Whether accesses to the page must be looked at. */
bool debug_watches_page(const struct cpu *cpu, uint64_t linear);

/* The data breakpoints (bits of DR6) that an access hits. Does not return when there are some and
 * other instructions of the running block would go on before the trap: then the instruction is
 * begun again by itself. Nothing may have been changed before. */
uint32_t debug_data_hits(struct cpu *cpu, uint64_t linear, unsigned size_bytes, bool is_write);

/* The access was made: the trap is due when the instruction completes. */
static inline void debug_note_hits(struct cpu *cpu, uint32_t hits)
{
    if (hits) {
        cpu->debug_hits |= hits;
        cpu_look(cpu);
    }
}

/* Both for a port, before the access. */
void debug_port(struct cpu *cpu, uint16_t port, unsigned size_bytes);

/* A trap that is due after the running instruction, or after this one's shadow: bits of DR6. */
void debug_trap(struct cpu *cpu, uint32_t bits);

/* The exception that is due now becomes cpu->pending. */
void debug_take_pending(struct cpu *cpu);

/* DR6 gets the bits of a debug exception that is about to be raised. */
void debug_set_status(struct cpu *cpu, uint32_t bits);

/* The instruction at RIP is not to hit its breakpoint (again): RFLAGS.RF, as far as somebody could
 * see it. IRET, and what is left in the middle. */
void debug_resume(struct cpu *cpu);

/* Whether an instruction breakpoint is at RIP: then the fault is in cpu->pending. */
bool debug_break(struct cpu *cpu);

static inline bool debug_breaks_in_page(const struct cpu *cpu, uint64_t linear)
{
    if (__builtin_expect(!(cpu->debug_armed & DEBUG_EXECUTE), 1))
        return false;
    for (unsigned i = 0; i < 4; i++)
        if (cpu->break_page[i] == (linear & PAGE_MASK))
            return true;
    return false;
}

/* Linear address of the next instruction. */
static inline uint64_t debug_code_linear(const struct cpu *cpu)
{
    return cpu_is_64bit(cpu) ? cpu->rip : (uint32_t)(cpu->code_base + cpu->rip);
}

#endif
