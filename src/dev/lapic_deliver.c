/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Interrupts into, between and out of local APICs (SDM 3A 11.5–11.8, 11.10, 11.11): messages from
 * devices and other processors, LINT pins, priorities, INTA and EOI. Left out: SMI (there is no
 * SMM), remote read (refused as by every processor since the Pentium 4), the arbitration bus.
 * Runs on any thread; a message locks its targets one after the other.
 */
#include "dev/lapic_internal.h"

static int highest(const uint64_t bits[4])
{
    for (int i = 3; i >= 0; i--)
        if (bits[i])
            return i * 64 + 63 - __builtin_clzll(bits[i]);
    return -1;
}

static void put_bit(uint64_t bits[4], uint8_t number, bool value)
{
    uint64_t mask = UINT64_C(1) << (number & 63);
    bits[number >> 6] = value ? bits[number >> 6] | mask : bits[number >> 6] & ~mask;
}

static bool get_bit(const uint64_t bits[4], uint8_t number)
{
    return bits[number >> 6] >> (number & 63) & 1;
}

/* The vector as a priority; none counts as 0. */
static uint32_t highest_class(const uint64_t bits[4])
{
    int vector = highest(bits);
    return vector < 0 ? 0 : (uint32_t)vector & 0xf0;
}

uint8_t lapic_ppr(const struct lapic *apic)
{
    uint32_t in_service = highest_class(apic->isr);
    return (apic->tpr & 0xf0) >= in_service ? (uint8_t)apic->tpr : (uint8_t)in_service;
}

uint8_t lapic_apr(const struct lapic *apic)
{
    uint32_t task = apic->tpr & 0xf0;
    uint32_t in_service = highest_class(apic->isr), requested = highest_class(apic->irr);
    if (task >= requested && task > in_service)
        return (uint8_t)apic->tpr;
    uint32_t both = task & in_service;
    return (uint8_t)(both > requested ? both : requested);
}

/* The vector that INTA would give from the IRR. */
static int deliverable(const struct lapic *apic)
{
    int vector = highest(apic->irr);
    return vector >= 0 && (vector & 0xf0) > (lapic_ppr(apic) & 0xf0) ? vector : -1;
}

/* An APIC that is off leaves its LINT0 to be the processor's INTR pin. */
static bool extint_wanted(const struct lapic *apic)
{
    if (!apic->all->config.extint_acknowledge)
        return false;
    if (apic->extint_latched)
        return true;
    if (!apic->lint[0])
        return false;
    uint32_t lvt = apic->lvt[LVT_LINT0];
    return lapic_mode(apic) == LAPIC_OFF ||
           (lvt & (LVT_DELIVERY | LVT_MASKED)) == DELIVERY_EXTINT << LVT_DELIVERY_SHIFT;
}

static void publish_address(struct lapic *apic)
{
    enum lapic_mode mode = lapic_mode(apic);
    uint64_t ldr = mode == LAPIC_X2APIC ? lapic_x2apic_ldr(apic->x2apic_id) : apic->ldr;
    uint64_t address =
        mode | ldr << ADDRESS_LDR_SHIFT | (uint64_t)lapic_apr(apic) << ADDRESS_PRIORITY_SHIFT;
    address |= (uint64_t)apic->xapic_id << ADDRESS_ID_SHIFT;
    if (apic->svr & SVR_ENABLED)
        address |= ADDRESS_ENABLED;
    if (apic->dfr >> 28 == 0xf)
        address |= ADDRESS_FLAT;
    if (address != atomic_load_explicit(&apic->address, memory_order_relaxed))
        atomic_store_explicit(&apic->address, address, memory_order_release);
}

void lapic_update(struct lapic *apic)
{
    publish_address(apic);
    bool intr = deliverable(apic) >= 0 || extint_wanted(apic);
    if (intr != apic->intr) {
        const struct lapic_cpu *cpu = &apic->all->config.cpu;
        apic->intr = intr;
        cpu->intr(cpu->opaque, apic->id, intr);
    }
}

void lapic_error(struct lapic *apic, uint32_t esr_bit)
{
    apic->esr_pending |= esr_bit;
    uint32_t lvt = apic->lvt[LVT_ERROR];
    if (!(lvt & LVT_MASKED) && (lvt & LVT_VECTOR) >= LAPIC_FIRST_VECTOR)
        lapic_accept(apic, lvt & LVT_VECTOR, false);
}

void lapic_accept(struct lapic *apic, uint8_t vector, bool level)
{
    if (lapic_mode(apic) == LAPIC_OFF || !(apic->svr & SVR_ENABLED))
        return;
    if (vector < LAPIC_FIRST_VECTOR) {
        lapic_error(apic, ESR_RECEIVE_ILLEGAL);
        return;
    }
    put_bit(apic->irr, vector, true);
    put_bit(apic->tmr, vector, level);
    lapic_update(apic);
}

static void deliver(struct lapic *apic, const struct lapic_ipi *ipi)
{
    const struct lapic_cpu *cpu = &apic->all->config.cpu;
    pthread_mutex_lock(&apic->lock);
    if (lapic_mode(apic) != LAPIC_OFF) {
        switch (ipi->delivery) {
        case DELIVERY_FIXED:
        case DELIVERY_LOWEST: lapic_accept(apic, ipi->vector, ipi->level); break;
        case DELIVERY_NMI: cpu->nmi(cpu->opaque, apic->id); break;
        case DELIVERY_INIT:
            lapic_init_state(apic);
            cpu->init(cpu->opaque, apic->id);
            break;
        case DELIVERY_STARTUP: cpu->sipi(cpu->opaque, apic->id, ipi->vector); break;
        case DELIVERY_EXTINT:
            apic->extint_latched = true;
            lapic_update(apic);
            break;
        default: break; /* SMI, remote read */
        }
    }
    pthread_mutex_unlock(&apic->lock);
}

static bool is_broadcast(const struct lapic_ipi *ipi)
{
    return ipi->destination == (ipi->wide ? UINT32_MAX : 0xff);
}

static bool matches_logical(uint64_t address, const struct lapic_ipi *ipi)
{
    uint32_t destination = ipi->destination, ldr = (uint32_t)(address >> ADDRESS_LDR_SHIFT);
    if ((address & ADDRESS_MODE) == LAPIC_X2APIC)
        return destination >> 16 == ldr >> 16 && (destination & ldr & 0xffff);
    if (destination > 0xff)
        return false;
    ldr >>= 24;
    if (address & ADDRESS_FLAT)
        return destination & ldr;
    return destination >> 4 == ldr >> 4 && (destination & ldr & 0xf);
}

static uint64_t load_address(const struct lapic *apic)
{
    return atomic_load_explicit(&apic->address, memory_order_acquire);
}

/* Of `targets`, the one of lowest priority; equals take turns. */
static struct lapic *choose_lowest(struct lapics *all, uint64_t targets)
{
    struct lapic *best = NULL;
    uint64_t best_priority = 0;
    unsigned count = all->config.vcpu_count;
    unsigned start = atomic_fetch_add_explicit(&all->next_lowest, 1, memory_order_relaxed);
    for (unsigned i = 0; i < count; i++) {
        struct lapic *apic = &all->apic[(start + i) % count];
        uint64_t address = load_address(apic);
        if (!(targets >> apic->id & 1) || !(address & ADDRESS_MODE) || !(address & ADDRESS_ENABLED))
            continue;
        if (!best || (address & ADDRESS_PRIORITY) < best_priority) {
            best = apic;
            best_priority = address & ADDRESS_PRIORITY;
        }
    }
    return best;
}

static void deliver_to(struct lapics *all, uint64_t targets, const struct lapic_ipi *ipi)
{
    if (ipi->one || ipi->delivery == DELIVERY_LOWEST) {
        struct lapic *apic = choose_lowest(all, targets);
        if (apic)
            deliver(apic, ipi);
        return;
    }
    for (; targets; targets &= targets - 1)
        deliver(&all->apic[__builtin_ctzll(targets)], ipi);
}

static uint64_t everyone(const struct lapics *all)
{
    return UINT64_MAX >> (64 - all->config.vcpu_count);
}

void lapic_set_xapic_id(struct lapic *apic, uint8_t id)
{
    apic->xapic_id = id;
    if (id != apic->id)
        atomic_store(&apic->all->has_own_ids, true);
}

static bool matches_physical(uint64_t address, unsigned id, uint32_t destination)
{
    if ((address & ADDRESS_MODE) == LAPIC_X2APIC)
        return destination == id;
    return destination == (address >> ADDRESS_ID_SHIFT & 0xff);
}

static uint64_t physical_targets(struct lapics *all, uint32_t destination)
{
    uint64_t targets = 0;
    if (!atomic_load_explicit(&all->has_own_ids, memory_order_relaxed))
        return destination < all->config.vcpu_count ? UINT64_C(1) << destination : 0;
    for (unsigned i = 0; i < all->config.vcpu_count; i++)
        if (matches_physical(load_address(&all->apic[i]), all->apic[i].x2apic_id, destination))
            targets |= UINT64_C(1) << i;
    return targets;
}

static void route(struct lapics *all, const struct lapic_ipi *ipi)
{
    unsigned count = all->config.vcpu_count;
    uint64_t targets = 0;
    if (is_broadcast(ipi)) {
        targets = everyone(all);
    } else if (!ipi->logical) {
        targets = physical_targets(all, ipi->destination);
    } else {
        for (unsigned i = 0; i < count; i++)
            if (matches_logical(load_address(&all->apic[i]), ipi))
                targets |= UINT64_C(1) << i;
    }
    deliver_to(all, targets, ipi);
}

/* SDM table 11-3 calls most delivery modes with the shorthands "self" and "all" invalid and leaves
 * open what becomes of them; they are delivered, as KVM and QEMU do. */
void lapic_send(struct lapics *all, unsigned from, uint64_t icr, bool x2apic)
{
    struct lapic_ipi ipi = {
        .destination = (uint32_t)(x2apic ? icr >> 32 : icr >> 56),
        .vector = (uint8_t)icr,
        .delivery = icr >> 8 & 7,
        .logical = icr >> 11 & 1,
        .wide = x2apic,
    };
    unsigned shorthand = icr >> 18 & 3;
    bool assert_level = icr >> 14 & 1, level = icr >> 15 & 1;
    if (ipi.delivery == DELIVERY_INIT && level && !assert_level)
        return; /* INIT level de-assert only sets arbitration ids, which there are none of */
    if (ipi.delivery == DELIVERY_EXTINT)
        return;
    if (ipi.delivery <= DELIVERY_LOWEST && ipi.vector < LAPIC_FIRST_VECTOR) {
        struct lapic *self = &all->apic[from];
        pthread_mutex_lock(&self->lock);
        lapic_error(self, ESR_SEND_ILLEGAL);
        pthread_mutex_unlock(&self->lock);
        return;
    }
    uint64_t self_bit = UINT64_C(1) << from;
    switch (shorthand) {
    case 0: route(all, &ipi); break;
    case 1: deliver_to(all, self_bit, &ipi); break;
    case 2: deliver_to(all, everyone(all), &ipi); break;
    default: deliver_to(all, everyone(all) & ~self_bit, &ipi); break;
    }
}

void lapic_message(void *lapics, uint64_t address, uint32_t data)
{
    struct lapics *all = lapics;
    if (address >> 20 != 0xfee) {
        log_limited(all->config.log, &all->log_limit, LOG_WARNING, "lapic",
                    "interrupt message to %#llx, where no APIC is", (unsigned long long)address);
        return;
    }
    struct lapic_ipi ipi = {
        .destination = address >> 12 & 0xff,
        .vector = (uint8_t)data,
        .delivery = data >> 8 & 7,
        .logical = address >> 2 & 1,
        .one = address >> 3 & 1,
        .level = data >> 15 & 1,
    };
    bool asserted = data >> 14 & 1;
    if ((ipi.level && !asserted) || ipi.delivery == DELIVERY_STARTUP)
        return;
    route(all, &ipi);
}

void lapic_lint_evaluate(struct lapic *apic, unsigned pin, bool rising)
{
    const struct lapic_cpu *cpu = &apic->all->config.cpu;
    uint32_t *lvt = &apic->lvt[LVT_LINT0 + pin];
    if (lapic_mode(apic) == LAPIC_OFF) {
        if (pin == 1 && rising)
            cpu->nmi(cpu->opaque, apic->id);
    } else if (!(*lvt & LVT_MASKED)) {
        switch ((*lvt & LVT_DELIVERY) >> LVT_DELIVERY_SHIFT) {
        case DELIVERY_FIXED:
            if (!(*lvt & LVT_LEVEL)) {
                if (rising)
                    lapic_accept(apic, *lvt & LVT_VECTOR, false);
            } else if (apic->lint[pin] && !(*lvt & LVT_REMOTE_IRR)) {
                *lvt |= LVT_REMOTE_IRR;
                lapic_accept(apic, *lvt & LVT_VECTOR, true);
            }
            break;
        case DELIVERY_NMI:
            if (rising)
                cpu->nmi(cpu->opaque, apic->id);
            break;
        default: break; /* SMI; INIT by pin is not wired; ExtINT is a level: lapic_update */
        }
    }
    lapic_update(apic);
}

void lapic_set_lint(void *lapics, unsigned pin, bool level)
{
    struct lapics *all = lapics;
    if (pin > 1)
        return;
    for (unsigned i = 0; i < all->config.vcpu_count; i++) {
        struct lapic *apic = &all->apic[i];
        pthread_mutex_lock(&apic->lock);
        if (apic->lint[pin] != level) {
            apic->lint[pin] = level;
            lapic_lint_evaluate(apic, pin, level);
        }
        pthread_mutex_unlock(&apic->lock);
    }
}

int lapic_acknowledge(struct lapics *lapics, unsigned vcpu)
{
    struct lapic *apic = &lapics->apic[vcpu];
    pthread_mutex_lock(&apic->lock);
    if (extint_wanted(apic)) {
        apic->extint_latched = false;
        pthread_mutex_unlock(&apic->lock);
        int vector = lapics->config.extint_acknowledge(lapics->config.extint_opaque);
        pthread_mutex_lock(&apic->lock);
        if (vector >= 0) {
            lapic_update(apic);
            pthread_mutex_unlock(&apic->lock);
            return vector;
        }
    }
    int vector = deliverable(apic);
    if (vector >= 0) {
        put_bit(apic->irr, (uint8_t)vector, false);
        put_bit(apic->isr, (uint8_t)vector, true);
    }
    lapic_update(apic);
    pthread_mutex_unlock(&apic->lock);
    return vector;
}

bool lapic_intr(struct lapics *lapics, unsigned vcpu)
{
    struct lapic *apic = &lapics->apic[vcpu];
    pthread_mutex_lock(&apic->lock);
    bool intr = apic->intr;
    pthread_mutex_unlock(&apic->lock);
    return intr;
}

static void end_lint_level(struct lapic *apic, uint8_t vector)
{
    for (unsigned pin = 0; pin < 2; pin++) {
        uint32_t *lvt = &apic->lvt[LVT_LINT0 + pin];
        if ((*lvt & LVT_REMOTE_IRR) && (*lvt & LVT_VECTOR) == vector) {
            *lvt &= ~(uint32_t)LVT_REMOTE_IRR;
            lapic_lint_evaluate(apic, pin, false);
        }
    }
}

void lapic_end_of_interrupt(struct lapic *apic, struct lapic_effect *effect)
{
    int vector = highest(apic->isr);
    if (vector < 0)
        return;
    put_bit(apic->isr, (uint8_t)vector, false);
    if (get_bit(apic->tmr, (uint8_t)vector)) {
        end_lint_level(apic, (uint8_t)vector);
        effect->eoi = !(apic->svr & SVR_NO_EOI_BROADCAST);
        effect->eoi_vector = (uint8_t)vector;
    }
    lapic_update(apic);
}

void lapic_perform(struct lapic *apic, const struct lapic_effect *effect)
{
    struct lapics *all = apic->all;
    if (effect->eoi && all->eoi)
        all->eoi(all->eoi_opaque, effect->eoi_vector);
    if (effect->send)
        lapic_send(all, apic->id, effect->icr, apic->base & BASE_X2APIC);
}
