/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What the files of the local APIC share: lapic.c (registers, life cycle), lapic_base.c (modes, the
 * page's place), lapic_deliver.c (interrupts in, between and out), lapic_timer.c. See lapic.h for
 * the locks.
 */
#ifndef SKEP_DEV_LAPIC_INTERNAL_H
#define SKEP_DEV_LAPIC_INTERNAL_H

#include "dev/lapic.h"

#include <pthread.h>
#include <stdatomic.h>

/* Register numbers: the MMIO offset / 16, or the MSR - 0x800. */
enum lapic_register {
    LAPIC_ID = 0x02,
    LAPIC_VERSION = 0x03,
    LAPIC_TPR = 0x08,
    LAPIC_APR = 0x09,
    LAPIC_PPR = 0x0a,
    LAPIC_EOI = 0x0b,
    LAPIC_RRD = 0x0c,
    LAPIC_LDR = 0x0d,
    LAPIC_DFR = 0x0e,
    LAPIC_SVR = 0x0f,
    LAPIC_ISR = 0x10, /* eight registers each */
    LAPIC_TMR = 0x18,
    LAPIC_IRR = 0x20,
    LAPIC_ESR = 0x28,
    LAPIC_ICR = 0x30,
    LAPIC_ICR_HIGH = 0x31,
    LAPIC_LVT = 0x32, /* enum lapic_lvt */
    LAPIC_TIMER_INITIAL = 0x38,
    LAPIC_TIMER_CURRENT = 0x39,
    LAPIC_TIMER_DIVIDE = 0x3e,
    LAPIC_SELF_IPI = 0x3f,
};

/* The local vector table, in the order of its registers. */
enum lapic_lvt {
    LVT_TIMER,
    LVT_THERMAL,
    LVT_PMC,
    LVT_LINT0,
    LVT_LINT1,
    LVT_ERROR,
    LVT_COUNT,
};

enum {
    LVT_VECTOR = 0xff,
    LVT_DELIVERY_SHIFT = 8,
    LVT_DELIVERY = 7 << LVT_DELIVERY_SHIFT,
    LVT_POLARITY = 1 << 13,
    LVT_REMOTE_IRR = 1 << 14,
    LVT_LEVEL = 1 << 15,
    LVT_MASKED = 1 << 16,
    LVT_READ_ONLY = 1 << 12 | LVT_REMOTE_IRR, /* delivery status: always idle */
    LVT_TIMER_MODE_SHIFT = 17,
    LVT_TIMER_MODE = 3 << LVT_TIMER_MODE_SHIFT,
};

enum { SVR_ENABLED = 1 << 8, SVR_NO_EOI_BROADCAST = 1 << 12 };

enum { BASE_BSP = 1 << 8, BASE_X2APIC = 1 << 10, BASE_ENABLED = 1 << 11 };
#define BASE_ADDRESS UINT64_C(0xffffffffff000) /* MAXPHYADDR is the processor's to check */

enum {
    ESR_SEND_ILLEGAL = 1 << 5,
    ESR_RECEIVE_ILLEGAL = 1 << 6,
    ESR_REGISTER = 1 << 7,
    ESR_BITS = 0xff
};

enum lapic_delivery {
    DELIVERY_FIXED,
    DELIVERY_LOWEST,
    DELIVERY_SMI,
    DELIVERY_REMOTE_READ,
    DELIVERY_NMI,
    DELIVERY_INIT,
    DELIVERY_STARTUP,
    DELIVERY_EXTINT,
};

enum lapic_timer_mode { TIMER_ONE_SHOT, TIMER_PERIODIC, TIMER_TSC_DEADLINE, TIMER_RESERVED };

enum { LAPIC_FIRST_VECTOR = 16 }; /* those below are illegal */

enum lapic_mode { LAPIC_OFF, LAPIC_XAPIC, LAPIC_X2APIC };

/* How others see an APIC's destination, in one word that is read without its lock. */
#define ADDRESS_MODE           UINT64_C(3)        /* enum lapic_mode */
#define ADDRESS_ENABLED        (UINT64_C(1) << 2) /* by SVR */
#define ADDRESS_FLAT           (UINT64_C(1) << 3)
#define ADDRESS_PRIORITY_SHIFT 8
#define ADDRESS_PRIORITY       (UINT64_C(0xff) << ADDRESS_PRIORITY_SHIFT)
#define ADDRESS_ID_SHIFT       16 /* the xAPIC id */
#define ADDRESS_LDR_SHIFT      32

struct lapic_timer {
    struct clock_timer *host;
    uint32_t initial;
    uint32_t divide;      /* the register */
    bool running;         /* counting, or TSC deadline armed */
    uint64_t deadline_ns; /* one-shot and periodic: when the count reaches 0 (next) */
    uint64_t tsc_deadline;
};

struct lapic {
    _Alignas(64) pthread_mutex_t lock;
    struct lapics *all;
    unsigned id;       /* the processor's number */
    uint8_t x2apic_id; /* and the xAPIC id after reset */
    uint8_t xapic_id;

    uint64_t base; /* IA32_APIC_BASE */
    uint64_t irr[4], isr[4], tmr[4];
    uint32_t tpr, svr, ldr, dfr; /* ldr: the xAPIC's; x2APIC derives it from the id */
    uint32_t lvt[LVT_COUNT];
    uint32_t esr, esr_pending;
    uint64_t icr;
    bool lint[2];
    bool extint_latched; /* an ExtINT message came, and no INTA since */
    bool intr;           /* what cpu.intr was last told */
    struct lapic_timer timer;

    _Atomic uint64_t address;
};

/* A page on the bus that is some processors' registers. */
struct lapic_window {
    struct lapics *all;
    uint64_t gpa;
    unsigned users; /* processors whose page it is; under window_lock */
    bool is_mapped;
};

enum { LAPIC_WINDOWS = LAPIC_MAX_VCPUS + 1 };

struct lapics {
    struct lapic_config config;
    pthread_mutex_t window_lock;               /* taken within an APIC's lock */
    struct lapic_window window[LAPIC_WINDOWS]; /* the first is always on the bus */
    atomic_bool has_own_ids;                   /* some xAPIC id is not its processor's number */
    void (*eoi)(void *opaque, uint8_t vector);
    void *eoi_opaque;
    uint64_t timer_ns_mul, tsc_ns_mul; /* ns per tick, 32.32 fixed point, rounded up */
    _Atomic unsigned next_lowest;      /* where the search for the lowest priority starts */
    struct log_limit log_limit;
    struct lapic apic[]; /* config.vcpu_count */
};

struct lapic_ipi {
    uint32_t destination;
    uint8_t vector;
    uint8_t delivery; /* enum lapic_delivery */
    bool logical;
    bool wide;  /* a destination of 32 bits (x2APIC), else of 8 */
    bool level; /* trigger mode */
    bool one;   /* redirect to the one of lowest priority */
};

/* What remains to be done when the APIC's lock has been released. */
struct lapic_effect {
    bool eoi, send;
    uint8_t eoi_vector;
    uint64_t icr;
};

static inline enum lapic_mode lapic_mode(const struct lapic *apic)
{
    if (!(apic->base & BASE_ENABLED))
        return LAPIC_OFF;
    return apic->base & BASE_X2APIC ? LAPIC_X2APIC : LAPIC_XAPIC;
}

static inline uint64_t lapic_page(uint64_t base)
{
    return base & BASE_ADDRESS;
}

static inline uint32_t lapic_x2apic_ldr(unsigned id)
{
    return (id >> 4) << 16 | 1u << (id & 15);
}

/* All below but lapic_send and lapic_perform are called with the APIC's lock held. */

/* Recomputes priorities, tells the processor and other APICs when something changed for them. */
void lapic_update(struct lapic *apic);
uint8_t lapic_ppr(const struct lapic *apic);
uint8_t lapic_apr(const struct lapic *apic);
void lapic_accept(struct lapic *apic, uint8_t vector, bool level);
void lapic_error(struct lapic *apic, uint32_t esr_bit);
/* A LINT pin or its LVT changed; `rising` when the pin just did. */
void lapic_lint_evaluate(struct lapic *apic, unsigned pin, bool rising);
void lapic_end_of_interrupt(struct lapic *apic, struct lapic_effect *effect);
/* To the state after INIT; IA32_APIC_BASE stays. */
void lapic_init_state(struct lapic *apic);

/* IA32_APIC_BASE as the guest writes it, false: #GP; and set with no question asked. */
bool lapic_write_base(struct lapic *apic, uint64_t value);
void lapic_set_base(struct lapic *apic, uint64_t value);
void lapic_set_xapic_id(struct lapic *apic, uint8_t id); /* lapic_update() is to follow */

/* Without any lock. */
uint64_t lapic_mmio_read(struct lapic *apic, uint64_t offset, unsigned size_bytes);
void lapic_mmio_write(struct lapic *apic, uint64_t offset, uint64_t value, unsigned size_bytes);
bool lapic_windows_open(struct lapics *all, struct error *err);
void lapic_windows_close(struct lapics *all);
void lapic_send(struct lapics *all, unsigned from, uint64_t icr, bool x2apic);
void lapic_perform(struct lapic *apic, const struct lapic_effect *effect);

void lapic_timer_setup(struct lapics *all);
void lapic_timer_expired(void *opaque); /* clock_timer_fn of a struct lapic; takes the lock */
void lapic_timer_stop(struct lapic *apic);
void lapic_timer_set_initial(struct lapic *apic, uint32_t value);
void lapic_timer_set_divide(struct lapic *apic, uint32_t value);
void lapic_timer_set_lvt(struct lapic *apic, uint32_t value);
uint32_t lapic_timer_count(struct lapic *apic);
uint64_t lapic_timer_deadline(struct lapic *apic);
void lapic_timer_set_deadline(struct lapic *apic, uint64_t value);
/* Fires or arms the host's timer for the state as it is now (after load, TSC change, unmasking). */
void lapic_timer_rearm(struct lapic *apic);

#endif
