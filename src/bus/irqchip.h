/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The state of the PC's interrupt controllers and interval timer as plain values: what a device of
 * dev/ saves, and what an engine that has them inside (KVM) tells and takes. So a machine goes from
 * one to the other. Times are of the machine's clock.
 */
#ifndef SKEP_BUS_IRQCHIP_H
#define SKEP_BUS_IRQCHIP_H

#include <stdbool.h>
#include <stdint.h>

enum {
    IRQCHIP_MAX_VCPUS = 64,
    IRQCHIP_LVTS = 6, /* timer, thermal, performance, LINT0, LINT1, error */
    IRQCHIP_PINS = 24,
    IRQCHIP_PIT_COUNTERS = 3,
};

/* One local APIC; registers as in SDM 3A 11.4.1. */
struct lapic_state {
    uint64_t base;    /* IA32_APIC_BASE */
    uint8_t xapic_id; /* as the guest wrote it */
    uint64_t irr[4], isr[4], tmr[4];
    uint32_t tpr, svr, ldr, dfr; /* ldr: the xAPIC's */
    uint32_t lvt[IRQCHIP_LVTS];
    uint32_t esr, esr_pending;
    uint64_t icr;
    bool lint[2];        /* the pins */
    bool extint_latched; /* an ExtINT message came, and no INTA since */
    uint32_t timer_initial, timer_divide;
    bool timer_running;         /* counting, or TSC deadline armed */
    uint64_t timer_deadline_ns; /* one-shot and periodic: when the count is 0 (next) */
    uint64_t tsc_deadline;
};

struct ioapic_state {
    uint8_t id, select;
    uint32_t pins; /* levels */
    uint64_t table[IRQCHIP_PINS];
};

/* One 8259A. */
struct i8259_chip {
    uint8_t lines; /* levels of the inputs */
    uint8_t irr, imr, isr;
    uint8_t elcr;        /* bit set: level-triggered */
    uint8_t vector_base; /* low three bits zero */
    uint8_t lowest;      /* the input of lowest priority */
    uint8_t icw;         /* which word is expected: 0 none, else ICW2, ICW3, ICW4 as 1, 2, 3 */
    bool expects_icw4, single;
    bool auto_eoi, rotate_auto_eoi, special_mask, special_nested;
    bool read_isr, poll;
};

struct i8259_state {
    struct i8259_chip chips[2]; /* master, slave */
};

/* An entry of the I/O APIC's table or of a local vector table, which have mask and delivery mode at
 * the same place (SDM 3A 11.5.1): whether it interrupts a processor that has interrupts off. */
static inline bool irqchip_entry_is_unmaskable(uint64_t entry)
{
    enum { SMI = 2, NMI = 4, INIT = 5, MODE_SHIFT = 8, MASKED = 1 << 16 };
    unsigned mode = entry >> MODE_SHIFT & 7;
    return !(entry & MASKED) && (mode == SMI || mode == NMI || mode == INIT);
}

enum { I8254_HZ = 1193182 };

/* Ticks are those of I8254_HZ since the machine's clock was 0. */
struct i8254_counter {
    uint8_t mode, access;
    bool bcd, gate;
    bool loaded;         /* a whole count was written since the control word */
    bool triggered;      /* modes 1 and 5: the gate rose since */
    uint32_t count;      /* the count register, 1 to 65536 */
    uint64_t start_tick; /* when the counting element was loaded with `count` */
    uint64_t held_ticks; /* gate low: how far it had counted */
    bool next_loaded;    /* modes 2 and 3: `next_count` comes in at next_tick */
    uint32_t next_count;
    uint64_t next_tick;
    bool next_low; /* it starts with mode 3's low half */
    uint16_t latch;
    uint8_t status_latch;
    bool latched, status_latched;
    bool write_high, read_high; /* word access: the high byte is next */
    uint8_t low_byte;
};

static inline bool i8254_is_periodic(const struct i8254_counter *counter)
{
    return counter->mode == 2 || counter->mode == 3;
}

/* By a rise of the gate. */
static inline bool i8254_is_triggered(const struct i8254_counter *counter)
{
    return counter->mode == 1 || counter->mode == 5;
}

/* Whole and part seconds apart, so that nothing overflows in five hundred years. */
static inline uint64_t i8254_tick_of_ns(uint64_t ns)
{
    const uint64_t ns_per_second = 1000000000;
    return ns / ns_per_second * I8254_HZ + ns % ns_per_second * I8254_HZ / ns_per_second;
}

struct i8254_state {
    struct i8254_counter counters[IRQCHIP_PIT_COUNTERS];
    uint8_t port_b;
    bool irq, disconnected; /* the line of counter 0; HPET has taken it */
    uint64_t rise_tick;     /* when counter 0's OUT rises next; 0: never */
    uint32_t owed;          /* rises that the host ran too late for */
};

struct irqchip_state {
    struct lapic_state lapic[IRQCHIP_MAX_VCPUS]; /* one for each processor */
    struct ioapic_state ioapic;
    struct i8259_state i8259;
    struct i8254_state i8254;
};

#endif
