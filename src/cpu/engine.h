/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What a processor engine offers (soft, kvm) and what it needs from the machine.
 *
 * Port and MMIO accesses do not return from run(): engines call bus_read and bus_write on the
 * vCPU's thread, since one instruction can touch several devices. run() returns only when there is
 * something for the machine to do.
 */
#ifndef SKEP_CPU_ENGINE_H
#define SKEP_CPU_ENGINE_H

#include "base/error.h"
#include "base/log.h"
#include "bus/bus.h"
#include "bus/irq.h"
#include "bus/irqchip.h"
#include "bus/physmap.h"
#include "bus/ram.h"
#include "cpu/debug.h"
#include "cpu/level.h"
#include "cpu/state.h"
#include "cpu/stats.h"

#include <stdbool.h>
#include <stdint.h>

enum { ENGINE_MAX_VCPUS = 64 };

/* The parts of a processor that live outside the engine: the local APIC, when the engine has no
 * irqchip of its own. All but the last are called on the vCPU's own thread, without any lock of the
 * engine. */
struct engine_hooks {
    void *opaque;
    /* INTR acknowledge: the vector to deliver, or -1 when none is deliverable after all. Called
     * only after inject(INTR, true), with RFLAGS.IF set. Lowers the request as a real INTA does. */
    int (*acknowledge)(void *opaque, unsigned vcpu);
    /* CR8, bits 3:0. */
    uint64_t (*read_cr8)(void *opaque, unsigned vcpu);
    void (*write_cr8)(void *opaque, unsigned vcpu, uint64_t value);
    /* IA32_APIC_BASE (0x1b), IA32_TSC_DEADLINE (0x6e0) and the x2APIC range 0x800-0x8ff. False: the
     * access raises #GP(0). */
    bool (*read_msr)(void *opaque, unsigned vcpu, uint32_t msr, uint64_t *value);
    bool (*write_msr)(void *opaque, unsigned vcpu, uint32_t msr, uint64_t value);
    /* The guest's TSC has jumped (IA32_TSC or IA32_TSC_ADJUST written): a deadline is measured
     * anew. */
    void (*tsc_changed)(void *opaque, unsigned vcpu);
    /* A vCPU for which run() has told HALTED may have work by now: somebody has written what its
     * MWAIT waits for. Any thread, also while devices write guest memory. */
    void (*wake)(void *opaque, unsigned vcpu);
};

struct engine_topology {
    unsigned sockets, cores, threads; /* their product is the number of vCPUs */
};

struct engine_config {
    unsigned vcpu_count; /* 1 … ENGINE_MAX_VCPUS; APIC ids: topology.h */
    struct engine_topology topology;
    struct ram *ram; /* mapped as it is, until set_memory() */
    struct bus *bus;
    struct engine_hooks hooks; /* ignored by engines with has_irqchip */
    const struct log *log;     /* may be NULL */
    /* How fast the guest's time-stamp counter runs, which a restored guest has measured already;
     * 0: as the host's. */
    uint64_t tsc_hz;
    const char *options;      /* what follows the engine's name in --engine NAME,…; may be NULL */
    enum cpu_level cpu_level; /* what CPUID tells of */
    bool counts_instructions; /* at some cost; else engine_stats.instructions is of some only */
};

struct engine_vm;
struct engine_vcpu;

enum engine_exit_reason {
    ENGINE_EXIT_KICKED, /* kick() was called; the machine looks what it wanted */
    ENGINE_EXIT_HALTED, /* HLT, MWAIT (or waiting for a SIPI): run again after inject() or kick() */
    ENGINE_EXIT_SHUTDOWN, /* triple fault */
    ENGINE_EXIT_RESET,    /* the engine saw a reset request (KVM) */
    ENGINE_EXIT_DEBUG,    /* what set_debug() asked for has happened: `stop` */
    ENGINE_EXIT_FAILED,   /* `error` tells why; the vCPU can't go on */
};

struct engine_exit {
    enum engine_exit_reason reason;
    bool is_deaf; /* of HALTED: interrupts are off, so nothing but an NMI, INIT or SIPI ends it */
    struct debug_stop stop;
    struct error error;
};

enum engine_event {
    ENGINE_INTR, /* value 1: the local APIC (or 8259) requests an interrupt; 0: no more. A level. */
    ENGINE_NMI,  /* an edge */
    ENGINE_SMI,  /* ignored: there is no SMM */
    ENGINE_INIT, /* to the state of SDM 3A 9.1.4, then waits for a SIPI (a BSP restarts) */
    ENGINE_SIPI, /* value: the vector; ignored unless waiting for it */
};

struct engine_probe {
    bool available;          /* vm_open has a chance */
    bool backed_by_hardware; /* `auto` may take it */
    struct error error;      /* why not available */
    char detail[160];        /* one line for `skep doctor` */
};

/* A message-signalled or line interrupt straight into an engine's own irqchip. */
struct engine_irqchip {
    struct irq_line (*gsi)(struct engine_vm *vm, unsigned gsi); /* a line into it */
    struct msi_sink (*msi)(struct engine_vm *vm);
    /* While it is raised, the 8254 does not drive interrupt 0. */
    struct irq_line (*pit_taken)(struct engine_vm *vm);
    /* As after power-up, local APICs included; while no vCPU runs, before set_state(). */
    void (*reset)(struct engine_vm *vm);
    /* All of it, at time `now_ns` of the machine's clock, while time is stopped; set() after
     * set_state(). What the caller has to add to what get() tells: levels of the I/O APIC's inputs
     * that are edge-triggered, and what follows from the rest: the 8254's line and its next rise,
     * the slave's input of the master, the LINT pins. */
    bool (*get)(struct engine_vm *vm, uint64_t now_ns, struct irqchip_state *state,
                struct error *err);
    bool (*set)(struct engine_vm *vm, uint64_t now_ns, const struct irqchip_state *state,
                struct error *err);
};

struct engine {
    const char *name;
    /* The local APICs, I/O APIC, 8259 and 8254 are the engine's; the board leaves its own out. */
    const struct engine_irqchip *irqchip; /* NULL: the board has them, hooks are used */

    void (*probe)(struct engine_probe *probe);
    struct engine_vm *(*vm_open)(const struct engine_config *config, struct error *err);
    void (*vm_close)(struct engine_vm *vm); /* after all vcpu_close */

    /* What is memory from now on, in place of all that was; physmap.h. Any thread, also while
     * vCPUs run: one that is within a bus access sees it with its next instruction, the others
     * soon. Fails when there is no room. */
    bool (*set_memory)(struct engine_vm *vm, const struct physmap_range *ranges, unsigned count,
                       struct error *err);
    /* As physmap_take_written(); bits are only set. Any thread, holding no lock that a device
     * takes when the guest accesses it (it would wait in vain for a while). */
    void (*take_written)(struct engine_vm *vm, const uint8_t *hva, uint64_t size_bytes,
                         uint64_t *pages);

    /* vCPU `index` in the state of x86_state_reset(). It belongs to no thread until it runs; run,
     * get_state and set_state are never called at once for one vCPU. */
    struct engine_vcpu *(*vcpu_open)(struct engine_vm *vm, unsigned index, struct error *err);
    void (*vcpu_close)(struct engine_vcpu *vcpu);

    void (*run)(struct engine_vcpu *vcpu, struct engine_exit *exit);
    /* Makes a run() that is under way, or else the next one, return KICKED soon. Any thread. */
    void (*kick)(struct engine_vcpu *vcpu);
    /* Any thread, also from within the vCPU's own hooks. Wakes nothing by itself beyond run(): the
     * machine wakes a vCPU that it holds in HALTED, asking has_work(). */
    void (*inject)(struct engine_vcpu *vcpu, enum engine_event event, unsigned value);
    /* Whether a halted vCPU has a reason to run again (interrupt with IF set, NMI, INIT, SIPI). */
    bool (*has_work)(struct engine_vcpu *vcpu);

    bool (*get_state)(struct engine_vcpu *vcpu, struct x86_state *state, struct error *err);
    bool (*set_state)(struct engine_vcpu *vcpu, const struct x86_state *state, struct error *err);

    /* What a debugger wants of the vCPU from the next run() on; NULL: no more. Called as set_state
     * is. Fails when the engine has not so many or no such breakpoints; what was asked for before
     * stays then. Engines that can't debug at all leave it out. */
    bool (*set_debug)(struct engine_vcpu *vcpu, const struct debug_request *request,
                      struct error *err);
    /* A software breakpoint must stand as INT3 in guest memory: whoever asks for it writes it. */
    bool breaks_at_int3;

    /* The guest's time-stamp counter now, for the TSC deadline of the board's local APIC. Any
     * thread, also from within hooks. NULL in engines with an irqchip. */
    uint64_t (*read_tsc)(struct engine_vcpu *vcpu);
    /* Its frequency; 0: the host doesn't tell (never without an irqchip). */
    uint64_t (*tsc_hz)(struct engine_vm *vm);

    /* MAXPHYADDR, as CPUID tells the guest. Once a vCPU is open. */
    unsigned (*physical_bits)(struct engine_vm *vm);
    /* The time-stamp counters, and clocks of the engine's own that the guest reads, stand still
     * between these two moments of CLOCK_MONOTONIC, which are those at which the machine's clock
     * stopped and started. While no vCPU runs; states are read and set in between. */
    void (*stop_time)(struct engine_vm *vm, uint64_t monotonic_ns);
    void (*start_time)(struct engine_vm *vm, uint64_t monotonic_ns);

    /* CPUID as the first processor has it, so that a saved machine isn't resumed on a processor
     * with less. */
    void (*cpuid)(struct engine_vm *vm, uint32_t leaf, uint32_t subleaf, uint32_t registers[4]);

    void (*stats)(struct engine_vm *vm, struct engine_stats *stats);

    /* KVM's paravirtual clock, as the guest would read it, while time is stopped. Setting it comes
     * after set_state() of all vCPUs. */
    uint64_t (*paravirtual_ns)(struct engine_vm *vm);
    void (*set_paravirtual_ns)(struct engine_vm *vm, uint64_t ns);
};

extern const struct engine engine_soft;
extern const struct engine engine_kvm;

/* The engine for `name` ("auto", "soft", "kvm", each with optional ",options", which are left in
 * *options). auto takes kvm only where it is backed by vmx or svm. NULL: unknown name. */
const struct engine *engine_find(const char *name, const char **options, struct error *err);

/* All engines of this build, ended by NULL, for `skep doctor`. */
const struct engine *const *engine_all(void);

#endif
