/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What a debugger outside of the guest asks of a processor, the same for every engine. Nothing of
 * it is visible to the guest: its DR0 to DR7 and RFLAGS.TF stay its own.
 */
#ifndef SKEP_CPU_DEBUG_H
#define SKEP_CPU_DEBUG_H

#include <stdbool.h>
#include <stdint.h>

enum breakpoint_kind { BREAK_EXECUTE, WATCH_WRITE, WATCH_READ, WATCH_ACCESS };

struct breakpoint {
    enum breakpoint_kind kind;
    bool is_software; /* of BREAK_EXECUTE: an engine that has few may want an INT3 in memory */
    uint64_t linear;
    uint64_t size_bytes; /* of a watched range, at least 1; it doesn't wrap */
};

enum { DEBUG_MAX_BREAKPOINTS = 256 };

struct debug_request {
    bool steps;            /* run() ends after one instruction, or the delivery of an exception */
    bool takes_interrupts; /* also in a step; else they wait for the end of it */
    unsigned count;        /* at most DEBUG_MAX_BREAKPOINTS */
    const struct breakpoint *breakpoints; /* copied */
};

enum debug_stop_kind {
    DEBUG_STOP_STEP,
    DEBUG_STOP_BREAKPOINT, /* before the instruction at RIP */
    DEBUG_STOP_WATCHPOINT, /* after the instruction that accessed it */
    DEBUG_STOP_SHUTDOWN,   /* a triple fault; told by the machine, not by engines */
};

struct debug_stop {
    enum debug_stop_kind kind;
    struct breakpoint breakpoint; /* the one that was hit */
};

#endif
