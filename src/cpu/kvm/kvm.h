/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What the files of the KVM engine share: probe.c (what the host offers), vm.c (memory, life
 * cycle, the engine's table), vcpu.c (running), inject.c (NMI, INIT, SIPI),
 * slots.c (memory), exits.c (what ends a run), debug.c (breakpoints and steps), state.c and msr.c
 * (processor state), time.c (clocks that stop), cpuid.c, irqchip.c (interrupts), irqchip_state.c
 * and pit_state.c (their state), doorbell.c (ioeventfd).
 */
#ifndef SKEP_CPU_KVM_KVM_H
#define SKEP_CPU_KVM_KVM_H

#include "cpu/engine.h"

#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/types.h>

/* Three pages for the TSS and one for the page table that old Intel processors need to run real
 * mode; below the firmware, above RAM. */
#define KVM_IDENTITY_MAP_GPA UINT64_C(0xfeffc000)
#define KVM_TSS_GPA          UINT64_C(0xfeffd000)

enum { KVM_SLOTS = PHYSMAP_MAX_RANGES, KVM_MSRS = 96, KVM_IRQCHIPS = 3, KVM_CPUID_ENTRIES = 256 };

struct kvm_doorbells;
struct kvm_debug;

/* The interrupt controllers' state, raw as KVM gives it. */
struct kvm_vcpu_irq {
    uint64_t apic_base, tsc_deadline;
    struct kvm_lapic_state lapic;
};

struct kvm_vm_irq {
    struct kvm_irqchip chip[KVM_IRQCHIPS];
    struct kvm_pit_state2 pit;
};

struct kvm_slot {
    struct physmap_range range; /* size 0: the slot is free */
    bool is_new;                /* its log has not been asked for yet */
};

struct engine_vm {
    int kvm_fd, vm_fd;
    struct bus *bus;
    const struct log *log;
    struct log_limit log_limit;
    struct ram *ram;
    unsigned vcpu_count;
    struct engine_topology topology;
    struct engine_vcpu *vcpus[ENGINE_MAX_VCPUS]; /* those that are open */
    size_t run_size_bytes;
    bool has_sregs2; /* KVM tells and takes the PDPTEs of PAE paging */
    pthread_mutex_t slot_lock;
    struct kvm_slot slots[KVM_SLOTS];
    unsigned physical_bits;          /* as CPUID tells the guest; 0: no vCPU is open yet */
    struct kvm_doorbells *doorbells; /* NULL: the host can't; writes exit instead */
    struct kvm_vm_irq irq_at_reset;
    enum cpu_level cpu_level;
    uint64_t wanted_tsc_hz; /* 0: as the host's */
    uint64_t tsc_khz;       /* 0: KVM doesn't tell */
    bool time_is_stopped;
    uint64_t stopped_clock_ns; /* the paravirtual clock, while it is */
    uint64_t stopped_monotonic_ns;
};

struct engine_vcpu {
    struct engine_vm *vm;
    unsigned index;
    int fd;
    struct kvm_run *run;
    atomic_bool kicked;
    atomic_bool in_kvm;        /* the thread is in KVM_RUN, or about to be */
    _Atomic pid_t tid;         /* of that thread */
    _Atomic uint32_t requests; /* of inject.c, not yet handed to KVM */
    _Atomic uint64_t pio, mmio;
    struct kvm_debug *debug; /* NULL: no debugger */
    struct kvm_vcpu_irq irq_at_reset;
    uint64_t stopped_tsc, stopped_deadline; /* while the machine's time is stopped */
    uint32_t stopped_count;                 /* of the local APIC's timer */
};

/* ioctl() that is tried again on EINTR. */
int kvm_ioctl(int fd, unsigned long request, void *argument);
int kvm_ioctl_value(int fd, unsigned long request, unsigned long argument);

/* Opens /dev/kvm and looks whether all that is needed is there. -1 and `err`, or the descriptor. */
int kvm_open(struct error *err);
void kvm_probe(struct engine_probe *probe);

/* struct kvm_cpuid2 with its room. */
struct kvm_cpuid_table {
    uint32_t nent, padding;
    struct kvm_cpuid_entry2 entries[KVM_CPUID_ENTRIES];
};
_Static_assert(offsetof(struct kvm_cpuid_table, entries) == sizeof(struct kvm_cpuid2),
               "the kernel's layout");

/* As in struct engine. */
bool kvm_set_memory(struct engine_vm *vm, const struct physmap_range *ranges, unsigned count,
                    struct error *err);
void kvm_take_written(struct engine_vm *vm, const uint8_t *hva, uint64_t size_bytes,
                      uint64_t *pages);

/* What the guest's processor `index` is to be told, and the telling. */
bool kvm_cpuid_compose(struct engine_vm *vm, unsigned index, struct kvm_cpuid_table *table,
                       struct error *err);
bool kvm_cpuid_set(struct engine_vcpu *vcpu, struct error *err);
unsigned kvm_physical_bits(struct engine_vm *vm);
void kvm_cpuid(struct engine_vm *vm, uint32_t leaf, uint32_t subleaf, uint32_t registers[4]);

bool kvm_get_state(struct engine_vcpu *vcpu, struct x86_state *state, struct error *err);
bool kvm_set_state(struct engine_vcpu *vcpu, const struct x86_state *state, struct error *err);
bool kvm_msrs_get(struct engine_vcpu *vcpu, struct x86_state *state, struct error *err);
bool kvm_msrs_set(struct engine_vcpu *vcpu, const struct x86_state *state, struct error *err);
bool kvm_msr_get(struct engine_vcpu *vcpu, uint32_t msr, uint64_t *value);
bool kvm_msr_set(struct engine_vcpu *vcpu, uint32_t msr, uint64_t value);

uint64_t kvm_tsc_hz(struct engine_vm *vm);
bool kvm_set_tsc_hz(struct engine_vcpu *vcpu, struct error *err); /* as the machine wants it */
void kvm_stop_time(struct engine_vm *vm, uint64_t monotonic_ns);
void kvm_start_time(struct engine_vm *vm, uint64_t monotonic_ns);
uint64_t kvm_paravirtual_ns(struct engine_vm *vm);
void kvm_set_paravirtual_ns(struct engine_vm *vm, uint64_t ns);

struct engine_vcpu *kvm_vcpu_open(struct engine_vm *vm, unsigned index, struct error *err);
void kvm_vcpu_close(struct engine_vcpu *vcpu);
void kvm_run_vcpu(struct engine_vcpu *vcpu, struct engine_exit *exit);
void kvm_kick(struct engine_vcpu *vcpu);
bool kvm_install_signal(struct error *err);
/* Makes a KVM_RUN that is under way, or else the next one, end at once. */
void kvm_interrupt_run(struct engine_vcpu *vcpu);

void kvm_inject(struct engine_vcpu *vcpu, enum engine_event event, unsigned value);
/* Hands what was injected to KVM; the vCPU's thread, outside KVM_RUN. False: errno tells. */
bool kvm_apply_requests(struct engine_vcpu *vcpu);

/* Serves one exit of KVM_RUN. False: run() is to return `exit`. */
bool kvm_handle_exit(struct engine_vcpu *vcpu, struct engine_exit *exit);

bool kvm_set_debug(struct engine_vcpu *vcpu, const struct debug_request *request,
                   struct error *err);
/* KVM_EXIT_DEBUG; the same. */
bool kvm_debug_exit(struct engine_vcpu *vcpu, struct engine_exit *exit);

/* Makes irqchip, PIT and interrupt routes; before vCPUs. */
bool kvm_irqchip_create(struct engine_vm *vm, struct error *err);
bool kvm_irqchip_vcpu_opened(struct engine_vcpu *vcpu, struct error *err);
/* False: errno tells. */
bool kvm_vm_irq_get(struct engine_vm *vm, struct kvm_vm_irq *irq);
bool kvm_vm_irq_set(struct engine_vm *vm, struct kvm_vm_irq *irq);
bool kvm_vcpu_irq_get(struct engine_vcpu *vcpu, struct kvm_vcpu_irq *irq);
bool kvm_vcpu_irq_set(struct engine_vcpu *vcpu, struct kvm_vcpu_irq *irq);
/* As in struct engine_irqchip. */
bool kvm_irqchip_get(struct engine_vm *vm, uint64_t now_ns, struct irqchip_state *state,
                     struct error *err);
bool kvm_irqchip_set(struct engine_vm *vm, uint64_t now_ns, const struct irqchip_state *state,
                     struct error *err);
/* The 8254 to and from the state of irqchips, `now_ns` of the machine's clock; what follows from
 * counter 0 (line, next rise) is left out. */
void kvm_pit_from(const struct engine_vm *vm, const struct kvm_pit_state2 *pit, uint64_t now_ns,
                  struct i8254_state *state);
void kvm_pit_to(const struct i8254_state *state, uint64_t now_ns, struct kvm_pit_state2 *pit);
uint32_t kvm_lapic_count(struct engine_vcpu *vcpu); /* what the timer still has to count */
extern const struct engine_irqchip kvm_engine_irqchip;

/* Turns the bus's doorbells into ioeventfds, served by a thread of its own. NULL: `err`. */
struct kvm_doorbells *kvm_doorbells_open(struct engine_vm *vm, struct error *err);
void kvm_doorbells_close(struct kvm_doorbells *doorbells); /* NULL is allowed */
/* Returns when all that was rung before has been served. No device's lock may be held. */
void kvm_doorbells_drain(struct kvm_doorbells *doorbells);

#endif
