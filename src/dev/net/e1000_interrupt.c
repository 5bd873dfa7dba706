/* SPDX-License-Identifier: BSD-2-Clause
 *
 * e1000: causes and masks, delays (RDTR, RADV, TIDV, TADV), throttling (ITR), and the 82574L's
 * vectors (datasheet, 7.4). The vectors' own throttles (EITR) hold values and do nothing.
 */
#include "dev/net/e1000_internal.h"

enum {
    DELAY_UNIT_NS = 1024,
    ITR_UNIT_NS = 256,
    VECTOR_VALID = 8,
};

#define MSIX_CAUSES  (31U << 20)
#define OTHER_CAUSES (CAUSE_LSC | CAUSE_RXO | CAUSE_MDAC | 3U << 16 | 1U << 18)

static bool uses_vectors(struct e1000 *e)
{
    return e->msix && msix_enabled(e->msix);
}

/* IVAR: four bits for each of RXQ0, RXQ1, TXQ0, TXQ1 and other, which are causes 20 … 24. */
static void fire_vectors(struct e1000 *e, uint32_t causes)
{
    for (unsigned i = 0; i < E1000_VECTORS; i++) {
        uint32_t cause = CAUSE_RXQ0 << i;
        uint32_t entry = *e1000_reg(e, IVAR) >> (4 * i) & 15;
        if (!(causes & cause) || !(entry & VECTOR_VALID))
            continue;
        msix_notify(e->msix, entry & 7);
        if (*e1000_reg(e, CTRL_EXT) & CTRL_EXT_EIAME)
            *e1000_reg(e, IMS) &= ~(*e1000_reg(e, IAM) & cause);
        *e1000_reg(e, ICR) &= ~(*e1000_reg(e, EIAC) & cause);
    }
}

static void set_intx(struct e1000 *e, bool level)
{
    if (level != e->intx) {
        e->intx = level;
        pci_function_intx(e->function, level);
    }
}

/* The wire follows causes and masks, but rises no oftener than ITR allows. */
void e1000_update_interrupt(struct e1000 *e)
{
    uint32_t icr = *e1000_reg(e, ICR) & ~CAUSE_ASSERTED;
    bool wanted = icr & *e1000_reg(e, IMS);
    *e1000_reg(e, ICR) = wanted && e->is_82574 ? icr | CAUSE_ASSERTED : icr;
    if (uses_vectors(e)) {
        e->throttled = false;
        return;
    }
    uint64_t interval_ns = (uint64_t)(*e1000_reg(e, ITR) & 0xffff) * ITR_UNIT_NS;
    e->throttled = false;
    if (wanted && !e->intx && interval_ns) {
        uint64_t now_ns = clock_now_ns(e->clock);
        if (now_ns < e->next_interrupt_ns && e->next_interrupt_ns - now_ns <= interval_ns) {
            e->throttled = true;
            e1000_arm_timer(e);
            return;
        }
        e->next_interrupt_ns = now_ns + interval_ns;
    }
    set_intx(e, wanted);
}

void e1000_raise(struct e1000 *e, uint32_t causes)
{
    if (e->is_82574 && causes & OTHER_CAUSES)
        causes |= CAUSE_OTHER;
    *e1000_reg(e, ICR) |= causes & ~CAUSE_ASSERTED;
    if (uses_vectors(e))
        fire_vectors(e, causes & *e1000_reg(e, IMS) & MSIX_CAUSES);
    e1000_update_interrupt(e);
}

/* ---- delays ---- */

void e1000_arm_timer(struct e1000 *e)
{
    uint64_t due_ns = e->throttled ? e->next_interrupt_ns : UINT64_MAX;
    if (e->rx_delay.due_ns && e->rx_delay.due_ns < due_ns)
        due_ns = e->rx_delay.due_ns;
    if (e->tx_delay.due_ns && e->tx_delay.due_ns < due_ns)
        due_ns = e->tx_delay.due_ns;
    if (due_ns == UINT64_MAX)
        clock_timer_cancel(e->timer);
    else
        clock_timer_arm(e->timer, due_ns);
}

/* Each event starts the delay anew, up to the absolute limit counted from the first one. */
static void hold_back(struct e1000 *e, struct e1000_delay *delay, uint32_t causes,
                      unsigned delay_register, unsigned limit_register)
{
    uint64_t now_ns = clock_now_ns(e->clock);
    uint64_t delay_ns = (uint64_t)(*e1000_reg(e, delay_register) & 0xffff) * DELAY_UNIT_NS;
    uint64_t limit_ns = (uint64_t)(*e1000_reg(e, limit_register) & 0xffff) * DELAY_UNIT_NS;
    if (!delay->due_ns)
        delay->limit_ns = limit_ns ? now_ns + limit_ns : UINT64_MAX;
    delay->causes |= causes;
    delay->due_ns = now_ns + delay_ns < delay->limit_ns ? now_ns + delay_ns : delay->limit_ns;
    e1000_arm_timer(e);
}

void e1000_raise_rx(struct e1000 *e, uint32_t causes)
{
    if (*e1000_reg(e, RDTR) & 0xffff)
        hold_back(e, &e->rx_delay, causes, RDTR, RADV);
    else
        e1000_raise(e, causes);
}

void e1000_raise_tx(struct e1000 *e, uint32_t causes, bool may_wait)
{
    if (may_wait && *e1000_reg(e, TIDV) & 0xffff)
        hold_back(e, &e->tx_delay, causes, TIDV, TADV);
    else
        e1000_raise(e, causes);
}

static uint32_t take_due(struct e1000_delay *delay, uint64_t now_ns)
{
    uint32_t causes = 0;
    if (delay->due_ns && delay->due_ns <= now_ns) {
        causes = delay->causes;
        *delay = (struct e1000_delay){0};
    }
    return causes;
}

void e1000_timer_fired(void *opaque)
{
    struct e1000 *e = opaque;
    pthread_mutex_lock(&e->lock);
    uint64_t now_ns = clock_now_ns(e->clock);
    uint32_t causes = take_due(&e->rx_delay, now_ns) | take_due(&e->tx_delay, now_ns);
    if (causes)
        e1000_raise(e, causes);
    else
        e1000_update_interrupt(e);
    e1000_arm_timer(e);
    pthread_mutex_unlock(&e->lock);
}

/* ---- registers ---- */

/* 8254x, 13.4.17: a read clears. 82574, 10.2.4.1: only when an interrupt was asserted or all are
 * masked; then IAM masks too when CTRL_EXT.IAME says so. */
uint32_t e1000_read_icr(struct e1000 *e)
{
    uint32_t value = *e1000_reg(e, ICR);
    if (!e->is_82574) {
        *e1000_reg(e, ICR) = 0;
    } else if (value & CAUSE_ASSERTED || !*e1000_reg(e, IMS)) {
        *e1000_reg(e, ICR) = 0;
        if (value & CAUSE_ASSERTED && *e1000_reg(e, CTRL_EXT) & CTRL_EXT_IAME)
            *e1000_reg(e, IMS) &= ~*e1000_reg(e, IAM);
    }
    e1000_update_interrupt(e);
    return value;
}

void e1000_write_icr(struct e1000 *e, uint32_t value)
{
    if (*e1000_reg(e, ICR) & CAUSE_ASSERTED && *e1000_reg(e, CTRL_EXT) & CTRL_EXT_IAME)
        *e1000_reg(e, IMS) &= ~*e1000_reg(e, IAM);
    *e1000_reg(e, ICR) &= ~value;
    e1000_update_interrupt(e);
}

/* What waits and is no longer masked comes now. */
void e1000_write_ims(struct e1000 *e, uint32_t value)
{
    uint32_t before = *e1000_reg(e, IMS);
    *e1000_reg(e, IMS) |= value & ~CAUSE_ASSERTED;
    if (uses_vectors(e))
        fire_vectors(e, *e1000_reg(e, ICR) & *e1000_reg(e, IMS) & ~before & MSIX_CAUSES);
    e1000_update_interrupt(e);
}
