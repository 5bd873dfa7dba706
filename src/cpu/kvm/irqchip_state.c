/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The state of KVM's local APICs, I/O APIC and 8259 pair to and from the plain values of
 * bus/irqchip.h (kernel: Documentation/virt/kvm/api.rst; registers: SDM 3A 11.4). What KVM does not
 * tell: whether a one-shot timer that has run down was delivered, so it counts as due, as for KVM
 * itself; levels of inputs that are edge-triggered, which the board knows. Runs while no vCPU does.
 */
#include "cpu/kvm/kvm.h"
#include "cpu/topology.h"

#include <errno.h>
#include <string.h>

enum { MSR_TSC_DEADLINE = 0x6e0, MSR_APIC_BASE = 0x1b };
enum { BASE_X2APIC = 1 << 10 };
enum {
    APIC_ID = 0x20,
    APIC_TPR = 0x80,
    APIC_LDR = 0xd0,
    APIC_DFR = 0xe0,
    APIC_SVR = 0xf0,
    APIC_ISR = 0x100,
    APIC_TMR = 0x180,
    APIC_IRR = 0x200,
    APIC_ESR = 0x280,
    APIC_ICR = 0x300,
    APIC_ICR_HIGH = 0x310,
    APIC_LVT = 0x320,
    APIC_INITIAL = 0x380,
    APIC_CURRENT = 0x390,
    APIC_DIVIDE = 0x3e0,
};
enum { SVR_NO_EOI_BROADCAST = 1 << 12, SVR_BITS = 0x1ff | SVR_NO_EOI_BROADCAST };
enum { LVT_TIMER, LVT_LINT0 = 3, LVT_LINT1, LVT_ERROR };
enum { LVT_MASKED = 1 << 16, LVT_PERIODIC = 1 << 17, LVT_DEADLINE = 2 << 17 };
/* Vector and mask; mode of the timer; delivery mode; polarity, remote IRR and trigger of pins. */
static const uint32_t lvt_bits[IRQCHIP_LVTS] = {0x700ff, 0x107ff, 0x107ff,
                                                0x1e7ff, 0x1e7ff, 0x100ff};

/* Vector, delivery, destination mode, polarity, remote IRR, trigger, mask; destination. */
#define ENTRY_BITS       (UINT64_C(0xff) << 56 | UINT64_C(0x1efff))
#define ENTRY_REMOTE_IRR (UINT64_C(1) << 14)
#define ENTRY_LEVEL      (UINT64_C(1) << 15)
#define IOAPIC_GPA       UINT64_C(0xfec00000)

/* ---- local APICs ---- */

static uint32_t get_register(const struct kvm_lapic_state *lapic, unsigned offset)
{
    uint32_t value;
    memcpy(&value, lapic->regs + offset, sizeof(value));
    return value;
}

static void set_register(struct kvm_lapic_state *lapic, unsigned offset, uint32_t value)
{
    memcpy(lapic->regs + offset, &value, sizeof(value));
}

static void get_vectors(const struct kvm_lapic_state *lapic, unsigned offset, uint64_t bits[4])
{
    for (unsigned i = 0; i < 4; i++)
        bits[i] = get_register(lapic, offset + i * 0x20) |
                  (uint64_t)get_register(lapic, offset + i * 0x20 + 0x10) << 32;
    bits[0] &= ~UINT64_C(0xffff); /* no vectors */
}

static void set_vectors(struct kvm_lapic_state *lapic, unsigned offset, const uint64_t bits[4])
{
    for (unsigned i = 0; i < 8; i++)
        set_register(lapic, offset + i * 0x10, (uint32_t)(bits[i / 2] >> i % 2 * 32));
}

/* KVM's timer counts nanoseconds before its divider, as the board's does. SDM 3A figure 11-10. */
static unsigned divisor(uint32_t divide)
{
    unsigned code = (divide & 3) | (divide & 8) >> 1;
    return code == 7 ? 1 : 2u << code;
}

static void get_timer(struct engine_vcpu *vcpu, const struct kvm_vcpu_irq *irq, uint64_t now_ns,
                      struct lapic_state *state)
{
    uint32_t lvt = state->lvt[LVT_TIMER];
    bool is_stopped = vcpu->vm->time_is_stopped;
    uint32_t count = is_stopped ? vcpu->stopped_count : get_register(&irq->lapic, APIC_CURRENT);
    state->timer_divide = get_register(&irq->lapic, APIC_DIVIDE) & 0xb;
    if (lvt & LVT_DEADLINE) {
        state->tsc_deadline = is_stopped ? vcpu->stopped_deadline : irq->tsc_deadline;
        state->timer_running = state->tsc_deadline;
        return;
    }
    state->timer_initial = get_register(&irq->lapic, APIC_INITIAL);
    state->timer_running =
        state->timer_initial && (count || (lvt & LVT_PERIODIC) || !(lvt & LVT_MASKED));
    state->timer_deadline_ns = now_ns + (uint64_t)count * divisor(state->timer_divide);
}

static bool get_lapic(struct engine_vcpu *vcpu, uint64_t now_ns, struct lapic_state *state)
{
    struct kvm_vcpu_irq irq;
    const struct kvm_lapic_state *lapic = &irq.lapic;
    if (!kvm_vcpu_irq_get(vcpu, &irq))
        return false;
    *state = (struct lapic_state){
        .base = irq.apic_base,
        .xapic_id = (uint8_t)(get_register(lapic, APIC_ID) >> 24),
        .tpr = get_register(lapic, APIC_TPR) & 0xff,
        .svr = get_register(lapic, APIC_SVR) & SVR_BITS,
        .dfr = get_register(lapic, APIC_DFR) | 0x0fffffff,
        .esr = get_register(lapic, APIC_ESR) & 0xff,
        .icr = (uint64_t)get_register(lapic, APIC_ICR_HIGH) << 32 | get_register(lapic, APIC_ICR),
    };
    if (!(irq.apic_base & BASE_X2APIC))
        state->ldr = get_register(lapic, APIC_LDR) & 0xff000000;
    get_vectors(lapic, APIC_IRR, state->irr);
    get_vectors(lapic, APIC_ISR, state->isr);
    get_vectors(lapic, APIC_TMR, state->tmr);
    for (unsigned i = 0; i < IRQCHIP_LVTS; i++)
        state->lvt[i] = get_register(lapic, APIC_LVT + i * 0x10) & lvt_bits[i];
    get_timer(vcpu, &irq, now_ns, state);
    return true;
}

/* An initial count without a current one would start a one-shot anew. */
static uint32_t set_timer(struct kvm_lapic_state *lapic, const struct lapic_state *state,
                          uint64_t now_ns)
{
    bool counts = !(state->lvt[LVT_TIMER] & LVT_DEADLINE) && state->timer_running;
    uint32_t unit_ns = divisor(state->timer_divide), initial = counts ? state->timer_initial : 0;
    uint64_t left_ns = state->timer_deadline_ns > now_ns ? state->timer_deadline_ns - now_ns : 0;
    uint64_t count = counts ? (left_ns + unit_ns - 1) / unit_ns : 0;
    if (count > initial)
        count = initial;
    set_register(lapic, APIC_INITIAL, initial);
    set_register(lapic, APIC_CURRENT, (uint32_t)count);
    set_register(lapic, APIC_DIVIDE, state->timer_divide);
    return (uint32_t)count;
}

static bool set_lapic(struct engine_vcpu *vcpu, uint64_t now_ns, const struct lapic_state *state)
{
    const struct engine_topology *topology = &vcpu->vm->topology;
    struct kvm_vcpu_irq irq = vcpu->irq_at_reset; /* for what only KVM's has */
    struct kvm_lapic_state *lapic = &irq.lapic;
    uint32_t id = topology_apic_id(topology->cores, topology->threads, vcpu->index);
    irq.apic_base = state->base;
    irq.tsc_deadline = state->lvt[LVT_TIMER] & LVT_DEADLINE ? state->tsc_deadline : 0;
    set_register(lapic, APIC_ID, (state->base & BASE_X2APIC ? id : state->xapic_id) << 24);
    set_register(lapic, APIC_TPR, state->tpr);
    set_register(lapic, APIC_LDR, state->ldr);
    set_register(lapic, APIC_DFR, state->dfr);
    set_register(lapic, APIC_SVR, state->svr);
    set_register(lapic, APIC_ESR, state->esr);
    set_register(lapic, APIC_ICR, (uint32_t)state->icr);
    set_register(lapic, APIC_ICR_HIGH, (uint32_t)(state->icr >> 32));
    set_vectors(lapic, APIC_IRR, state->irr);
    set_vectors(lapic, APIC_ISR, state->isr);
    set_vectors(lapic, APIC_TMR, state->tmr);
    for (unsigned i = 0; i < IRQCHIP_LVTS; i++)
        set_register(lapic, APIC_LVT + i * 0x10, state->lvt[i]);
    vcpu->stopped_count = set_timer(lapic, state, now_ns);
    vcpu->stopped_deadline = irq.tsc_deadline;
    return kvm_vcpu_irq_set(vcpu, &irq);
}

uint32_t kvm_lapic_count(struct engine_vcpu *vcpu)
{
    struct kvm_lapic_state lapic;
    return kvm_ioctl(vcpu->fd, KVM_GET_LAPIC, &lapic) < 0 ? 0 : get_register(&lapic, APIC_CURRENT);
}

/* ---- I/O APIC ---- */

static void get_ioapic(const struct kvm_ioapic_state *chip, struct ioapic_state *state)
{
    *state = (struct ioapic_state){.id = chip->id & 0xf, .select = (uint8_t)chip->ioregsel};
    for (unsigned i = 0; i < IRQCHIP_PINS; i++) {
        uint64_t entry = chip->redirtbl[i].bits & ENTRY_BITS;
        bool is_level = (entry & ENTRY_LEVEL) && (entry >> 8 & 7) <= 1;
        state->table[i] = is_level ? entry : entry & ~ENTRY_REMOTE_IRR;
        if (is_level)
            state->pins |= chip->irr & UINT32_C(1) << i;
    }
}

/* A set bit of `irr` is a request: a level that is up, but for an edge one that is to come. */
static void set_ioapic(struct kvm_ioapic_state *chip, const struct ioapic_state *state)
{
    *chip = (struct kvm_ioapic_state){
        .base_address = IOAPIC_GPA, .ioregsel = state->select, .id = state->id};
    for (unsigned i = 0; i < IRQCHIP_PINS; i++) {
        chip->redirtbl[i].bits = state->table[i];
        if ((state->table[i] & ENTRY_LEVEL) && (state->table[i] >> 8 & 7) <= 1)
            chip->irr |= state->pins & UINT32_C(1) << i;
    }
}

/* ---- the 8259 pair ---- */

enum { CASCADE = 1 << 2 };
static const uint8_t elcr_mask[2] = {0xf8, 0xde};

static void get_pic(const struct kvm_pic_state *chip, unsigned index, struct i8259_chip *state)
{
    *state = (struct i8259_chip){
        .lines = chip->last_irr,
        .irr = chip->irr,
        .imr = chip->imr,
        .isr = chip->isr,
        .elcr = chip->elcr & elcr_mask[index],
        .vector_base = chip->irq_base & 0xf8,
        .lowest = (chip->priority_add + 7) & 7,
        .icw = chip->init_state & 3,
        .expects_icw4 = chip->init4,
        .auto_eoi = chip->auto_eoi,
        .rotate_auto_eoi = chip->rotate_on_auto_eoi,
        .special_mask = chip->special_mask,
        .special_nested = chip->special_fully_nested_mode,
        .read_isr = chip->read_reg_select,
        .poll = chip->poll,
    };
}

/* KVM makes its own pulses on the cascade. */
static void set_pic(struct kvm_pic_state *chip, unsigned index, const struct i8259_chip *state)
{
    *chip = (struct kvm_pic_state){
        .last_irr = index ? state->lines : state->lines & (uint8_t)~CASCADE,
        .irr = state->irr,
        .imr = state->imr,
        .isr = state->isr,
        .priority_add = (state->lowest + 1) & 7,
        .irq_base = state->vector_base,
        .read_reg_select = state->read_isr,
        .poll = state->poll,
        .special_mask = state->special_mask,
        .init_state = state->icw,
        .auto_eoi = state->auto_eoi,
        .rotate_on_auto_eoi = state->rotate_auto_eoi,
        .special_fully_nested_mode = state->special_nested,
        .init4 = state->expects_icw4,
        .elcr = state->elcr,
        .elcr_mask = elcr_mask[index],
    };
}

/* ---- all of it ---- */

bool kvm_irqchip_get(struct engine_vm *vm, uint64_t now_ns, struct irqchip_state *state,
                     struct error *err)
{
    struct kvm_vm_irq chips;
    bool good = kvm_vm_irq_get(vm, &chips);
    for (unsigned i = 0; i < vm->vcpu_count && good; i++)
        good = vm->vcpus[i] && get_lapic(vm->vcpus[i], now_ns, &state->lapic[i]);
    if (!good)
        return error_errno(err, "cannot read the interrupt controllers", "/dev/kvm", errno);
    for (unsigned i = 0; i < 2; i++)
        get_pic(&chips.chip[i].chip.pic, i, &state->i8259.chips[i]);
    get_ioapic(&chips.chip[KVM_IRQCHIP_IOAPIC].chip.ioapic, &state->ioapic);
    kvm_pit_from(vm, &chips.pit, now_ns, &state->i8254);
    return true;
}

bool kvm_irqchip_set(struct engine_vm *vm, uint64_t now_ns, const struct irqchip_state *state,
                     struct error *err)
{
    static const char what[] = "cannot set the interrupt controllers";
    struct kvm_vm_irq chips = {0};
    for (unsigned i = 0; i < vm->vcpu_count; i++)
        if (state->lapic[i].svr & SVR_NO_EOI_BROADCAST)
            return error_set(err, what, "/dev/kvm",
                             "a local APIC keeps ends of interrupts from the I/O APIC, and KVM's "
                             "has no register for them");
    for (unsigned i = 0; i < 2; i++)
        set_pic(&chips.chip[i].chip.pic, i, &state->i8259.chips[i]);
    set_ioapic(&chips.chip[KVM_IRQCHIP_IOAPIC].chip.ioapic, &state->ioapic);
    kvm_pit_to(&state->i8254, now_ns, &chips.pit);
    /* The local APICs first: a request of the I/O APIC that still stands is delivered at once. */
    bool good = true;
    for (unsigned i = 0; i < vm->vcpu_count && good; i++)
        good = vm->vcpus[i] && set_lapic(vm->vcpus[i], now_ns, &state->lapic[i]);
    return (good && kvm_vm_irq_set(vm, &chips)) || error_errno(err, what, "/dev/kvm", errno);
}
