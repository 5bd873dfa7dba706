/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What a debugger does with a machine: breakpoints, single steps, registers and memory. All of it
 * on the loop's thread; what is not said to run goes with the machine paused (machine_pause()).
 */
#ifndef SKEP_MACHINE_DEBUG_H
#define SKEP_MACHINE_DEBUG_H

#include "machine/machine.h"

struct machine_debugger {
    /* A vCPU has stopped by itself; all stand still now, as after machine_pause(). */
    void (*stopped)(void *opaque, unsigned vcpu, const struct debug_stop *stop);
    void *opaque;
};

enum machine_debug_action { MACHINE_DEBUG_HOLD, MACHINE_DEBUG_CONTINUE, MACHINE_DEBUG_STEP };

/* One debugger at a time. False: the engine can't. */
bool machine_debug_attach(struct machine *machine, const struct machine_debugger *debugger,
                          struct error *err);
/* Takes all breakpoints and holds away; the machine stays paused. */
void machine_debug_detach(struct machine *machine);

/* Sets one for all vCPUs; setting it twice is setting it once. `vcpu`: whose page tables tell where
 * an INT3 is to stand, when the engine needs that. */
bool machine_debug_insert(struct machine *machine, const struct breakpoint *breakpoint,
                          unsigned vcpu, struct error *err);
/* Removing one that is not there is nothing. */
void machine_debug_remove(struct machine *machine, const struct breakpoint *breakpoint);

/* Stops the guest for the debugger, which then holds it until it resumes it or goes: nobody else is
 * to resume the machine meanwhile. */
void machine_debug_stop(struct machine *machine);
bool machine_debug_holds(const struct machine *machine);

/* An action for each vCPU; then machine_resume(). `takes_interrupts`: also in steps. */
bool machine_debug_resume(struct machine *machine, const enum machine_debug_action *actions,
                          bool takes_interrupts, struct error *err);

bool machine_debug_get_state(struct machine *machine, unsigned vcpu, struct x86_state *state,
                             struct error *err);
bool machine_debug_set_state(struct machine *machine, unsigned vcpu, const struct x86_state *state,
                             struct error *err);

/* RAM by linear address in the address space of `state`, whatever its pages allow, or by physical
 * address where `state` is NULL. They return how many bytes could be read or written, up to the
 * first that is no RAM. */
size_t machine_debug_read(struct machine *machine, const struct x86_state *state, uint64_t address,
                          void *buffer, size_t size_bytes);
size_t machine_debug_write(struct machine *machine, const struct x86_state *state, uint64_t address,
                           const void *buffer, size_t size_bytes);

#endif
