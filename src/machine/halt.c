/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A machine that has halted for good: each vCPU is in HLT with interrupts off (RFLAGS.IF clear) or
 * waits for a SIPI, and nothing is set up to interrupt it all the same. What is told without being
 * looked at is a message of a PCI device or HPET that is an NMI, an SMI or an INIT.
 *
 * An engine that returns from HLT tells when it may be so. KVM waits within; there the vCPUs'
 * threads are watched: those that do nothing for a second are looked at.
 */
#include "machine/machine_internal.h"

#include <errno.h>

enum {
    WATCH_MS = 1000,
    IDLE_NS = 1000000, /* what being looked at takes is less */
    VECTOR_DELIVERY_SHIFT = 8,
    VECTOR_MASKED = 1 << 16,
    LVT_LINT0 = 3, /* LINT1 is not connected */
    BASE_ENABLED = 1 << 11,
    SVR_ENABLED = 1 << 8,
    RFLAGS_INTERRUPTS = 1 << 9,
};

/* SDM 3A 11.5.1; the I/O APIC's are the same. */
enum { DELIVERY_SMI = 2, DELIVERY_NMI = 4, DELIVERY_INIT = 5 };

static bool is_unmaskable(uint64_t entry)
{
    unsigned delivery = entry >> VECTOR_DELIVERY_SHIFT & 7;
    return !(entry & VECTOR_MASKED) &&
           (delivery == DELIVERY_SMI || delivery == DELIVERY_NMI || delivery == DELIVERY_INIT);
}

/* Whether the interrupt controllers let nothing through to a vCPU that has interrupts off. */
bool halt_is_final(struct machine *machine)
{
    struct irqchip_state state;
    if (!q35_irqchip_state(machine->board, &state))
        return false;
    for (unsigned i = 0; i < IRQCHIP_PINS; i++)
        if (is_unmaskable(state.ioapic.table[i]))
            return false;
    for (unsigned i = 0; i < machine->config.vcpu_count; i++) {
        const struct lapic_state *lapic = &state.lapic[i];
        if ((lapic->base & BASE_ENABLED) && (lapic->svr & SVR_ENABLED) &&
            is_unmaskable(lapic->lvt[LVT_LINT0]))
            return false;
    }
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
