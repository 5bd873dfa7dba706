/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A machine that has halted for good: each vCPU is in HLT with interrupts off (RFLAGS.IF clear) or
 * waits for a SIPI, and nothing is set up to interrupt it all the same. What is told without being
 * looked at is a message of a PCI device or HPET that is an NMI, an SMI or an INIT.
 *
 * An engine that returns from HLT tells when it may be so. KVM waits within; there the vCPUs'
 * threads are watched: those that do nothing for a second are looked at.
 */
#include "dev/lapic.h"
#include "machine/machine_internal.h"

#include <errno.h>

enum {
    WATCH_MS = 1000,
    IDLE_NS = 1000000, /* what being looked at takes is less */
    LINT0 = 0,         /* LINT1 is not connected */
    RFLAGS_INTERRUPTS = 1 << 9,
};

/* Whether the interrupt controllers let nothing through to a vCPU that has interrupts off. */
bool halt_is_final(struct machine *machine)
{
    struct irqchip_state state;
    if (!q35_irqchip_state(machine->board, &state))
        return false;
    for (unsigned i = 0; i < IRQCHIP_PINS; i++)
        if (irqchip_entry_is_unmaskable(state.ioapic.table[i]))
            return false;
    for (unsigned i = 0; i < machine->config.vcpu_count; i++)
        if (lapic_state_lint_is_unmaskable(&state.lapic[i], LINT0))
            return false;
    return true;
}

static bool is_deaf(const struct x86_state *state)
{
    const struct x86_pending *pending = &state->pending;
    if (pending->init || pending->exception || pending->debug)
        return false;
    if (state->run_state == X86_WAIT_FOR_SIPI)
        return !pending->sipi;
    return state->run_state == X86_HALTED && !(state->rflags & RFLAGS_INTERRUPTS) &&
           (!pending->nmi || pending->nmi_blocked);
}

bool halt_is_possible(struct machine *machine)
{
    struct x86_state state;
    if (machine->debug || machine->is_asleep)
        return false;
    for (unsigned i = 0; i < machine->config.vcpu_count; i++)
        if (!vcpus_get_state(machine->vcpus, i, &state, NULL) || !is_deaf(&state))
            return false;
    return true;
}

/* ---- engines that do not tell ---- */

static void watch(void *opaque)
{
    struct machine *machine = opaque;
    uint64_t now_ns = vcpus_host_ns(machine->vcpus);
    if (machine->is_running && !machine->is_halted && now_ns - machine->halt_watched_ns < IDLE_NS)
        machine_request(machine, REQUEST_HALTED);
    machine->halt_watched_ns = now_ns;
    loop_timer_start(machine->halt_watch, WATCH_MS);
}

bool halt_watch_open(struct machine *machine, struct error *err)
{
    if (!machine->engine->irqchip)
        return true;
    machine->halt_watch = loop_timer_open(machine->loop, watch, machine);
    if (!machine->halt_watch)
        return error_errno(err, "cannot make the machine", NULL, ENOMEM);
    loop_timer_start(machine->halt_watch, WATCH_MS);
    return true;
}
