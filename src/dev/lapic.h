/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The local APICs of all processors of a machine (SDM 3A chapter 11, xAPIC and x2APIC). One object
 * holds them all, since interprocessor interrupts cross from one to another. Every function may be
 * called from any thread unless it says otherwise.
 *
 * Locks: each local APIC has its own, and no two are ever held at once. The callbacks to the
 * processor run under the lock of the APIC concerned; those to the 8259 and the I/O APIC run
 * without any.
 */
#ifndef SKEP_DEV_LAPIC_H
#define SKEP_DEV_LAPIC_H

#include "base/error.h"
#include "base/log.h"
#include "bus/bus.h"
#include "bus/clock.h"
#include "bus/device.h"
#include "bus/irqchip.h"

#include <stdbool.h>
#include <stdint.h>

enum { LAPIC_MAX_VCPUS = IRQCHIP_MAX_VCPUS };
#define LAPIC_DEFAULT_BASE UINT64_C(0xfee00000)
#define LAPIC_DEFAULT_HZ   UINT64_C(1000000000)

/* Towards the processors. Called under a lock: they set a flag and wake the vCPU, and must not call
 * back into the local APICs. None may be NULL. */
struct lapic_cpu {
    void (*intr)(void *opaque, unsigned vcpu, bool level); /* called on changes only */
    void (*nmi)(void *opaque, unsigned vcpu);
    void (*init)(void *opaque, unsigned vcpu);
    void (*sipi)(void *opaque, unsigned vcpu, uint8_t vector);
    void *opaque;
};

struct lapic_config {
    unsigned vcpu_count; /* 1 … LAPIC_MAX_VCPUS; number 0 is the bootstrap processor */
    const uint8_t *ids;  /* APIC ids of the processors, all different; NULL: their numbers */
    struct bus *bus;
    uint64_t base; /* of the 4 KiB of MMIO; LAPIC_DEFAULT_BASE */
    struct clock *clock;
    const struct log *log; /* may be NULL */
    struct lapic_cpu cpu;

    /* Which processor makes the MMIO access that runs on the calling thread; LAPIC_MAX_VCPUS or
     * more when none does. */
    unsigned (*current_vcpu)(void *opaque);
    void *current_vcpu_opaque;

    uint64_t timer_hz; /* what the timer counts before its divider; 0: LAPIC_DEFAULT_HZ */

    /* The guest's time-stamp counter and its frequency, for the TSC deadline. Called under the
     * APIC's lock, on the vCPU's or the clock's thread. */
    uint64_t (*read_tsc)(void *opaque, unsigned vcpu);
    void *read_tsc_opaque;
    uint64_t tsc_hz;

    /* INTA to the 8259: the vector of an ExtINT interrupt, or -1. NULL: there is no 8259. */
    int (*extint_acknowledge)(void *opaque);
    void *extint_opaque;
};

struct lapics;

enum { LAPIC_CHIP_VERSION = 0x14 }; /* bits 7:0 of its version register */

/* Maps the MMIO page. Returns NULL when it can't. Destroyed through lapic_ops. */
struct lapics *lapic_create(const struct lapic_config *config, struct error *err);

/* Whom to tell of the EOI of a level interrupt (ioapic_eoi). Before vCPUs run. */
void lapic_set_eoi_listener(struct lapics *lapics, void (*eoi)(void *opaque, uint8_t vector),
                            void *opaque);

/* LINT0 (pin 0: the 8259's INTR) and LINT1 (pin 1: NMI), wired to all processors. An irq_line. */
void lapic_set_lint(void *lapics, unsigned pin, bool level);

/* An interrupt message, as PCI devices and the I/O APIC send them: an msi_sink. Messages outside
 * 0xfee00000–0xfeefffff are dropped. */
void lapic_message(void *lapics, uint64_t address, uint32_t data);

/* INTA: the vector to deliver, now in service; -1 when none is deliverable. vCPU's thread. */
int lapic_acknowledge(struct lapics *lapics, unsigned vcpu);

/* Whether lapic_acknowledge would give a vector now: the level that cpu.intr was last told. */
bool lapic_intr(struct lapics *lapics, unsigned vcpu);

/* CR8 is bits 7:4 of the TPR. vCPU's thread. */
uint64_t lapic_read_cr8(struct lapics *lapics, unsigned vcpu);
void lapic_write_cr8(struct lapics *lapics, unsigned vcpu, uint64_t value);

/* IA32_APIC_BASE (0x1b), IA32_TSC_DEADLINE (0x6e0), x2APIC (0x800–0x8ff). False: the access raises
 * #GP(0), also for any other MSR. vCPU's thread. */
bool lapic_read_msr(struct lapics *lapics, unsigned vcpu, uint32_t msr, uint64_t *value);
bool lapic_write_msr(struct lapics *lapics, unsigned vcpu, uint32_t msr, uint64_t value);

/* The guest's TSC jumped (IA32_TSC or IA32_TSC_ADJUST written, state loaded): a TSC deadline that
 * is armed is measured anew. */
void lapic_tsc_changed(struct lapics *lapics, unsigned vcpu);

/* Of all processors, as they are now. */
void lapic_get(struct lapics *lapics, struct lapic_state *states);
/* What lapic_ops saves, and its reading back: false and failed when a value is out of range, or it
 * is of another number of processors. */
void lapic_state_save(const struct lapic_state *states, unsigned count, struct save *stream);
bool lapic_state_load(struct lapic_state *states, unsigned count, struct load *stream);
/* Whether what comes by this pin (lapic_set_lint) interrupts a processor with interrupts off. */
bool lapic_state_lint_is_unmaskable(const struct lapic_state *state, unsigned pin);

/* `self` is the struct lapics. After reset, LINT0 of the bootstrap processor is in ExtINT mode, as
 * firmware would leave it (virtual wire), so that the 8259 works without a firmware. load() re-arms
 * timers, so the clock and the processors' TSC are to be loaded before (or lapic_tsc_changed()
 * called after), and tells cpu.intr the level of each processor. */
extern const struct device_ops lapic_ops;

#endif
