/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The interrupt controllers and timer inside KVM: lines and messages into them, their reset; their
 * state as KVM has it. Lines and messages come from this process, so KVM_IRQ_LINE and
 * KVM_SIGNAL_MSI are as short as an irqfd would be. Lines and messages: any thread; the rest: the
 * machine's.
 */
#include "cpu/kvm/kvm.h"

#include <errno.h>
#include <string.h>

enum { ISA_GSIS = 16, GSIS = 24, PIC_PINS = 8, PIT_PIN = 2 };
enum { MSR_TSC_DEADLINE = 0x6e0, MSR_APIC_BASE = 0x1b };

static void route(struct kvm_irq_routing *routing, unsigned gsi, unsigned chip, unsigned pin)
{
    routing->entries[routing->nr++] = (struct kvm_irq_routing_entry){
        .gsi = gsi, .type = KVM_IRQ_ROUTING_IRQCHIP, .u.irqchip = {.irqchip = chip, .pin = pin}};
}

/* As on a PC: ISA interrupts reach both the 8259s and the I/O APIC, there number 0 on pin 2, where
 * the 8259 has its cascade. */
static bool set_routes(struct engine_vm *vm, struct error *err)
{
    union {
        struct kvm_irq_routing head;
        char room[sizeof(struct kvm_irq_routing) +
                  (GSIS + ISA_GSIS) * sizeof(struct kvm_irq_routing_entry)];
    } routes;
    memset(&routes, 0, sizeof(routes));
    for (unsigned gsi = 0; gsi < ISA_GSIS; gsi++) {
        if (gsi == PIT_PIN)
            continue;
        bool master = gsi < PIC_PINS;
        route(&routes.head, gsi, master ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE,
              gsi % PIC_PINS);
    }
    for (unsigned gsi = 0; gsi < GSIS; gsi++)
        route(&routes.head, gsi, KVM_IRQCHIP_IOAPIC, gsi ? gsi : PIT_PIN);
    if (kvm_ioctl(vm->vm_fd, KVM_SET_GSI_ROUTING, &routes) < 0)
        return error_errno(err, "cannot route interrupts", "KVM_SET_GSI_ROUTING", errno);
    return true;
}

bool kvm_vm_irq_get(struct engine_vm *vm, struct kvm_vm_irq *irq)
{
    memset(irq, 0, sizeof(*irq));
    for (unsigned i = 0; i < KVM_IRQCHIPS; i++) {
        irq->chip[i].chip_id = i;
        if (kvm_ioctl(vm->vm_fd, KVM_GET_IRQCHIP, &irq->chip[i]) < 0)
            return false;
    }
    return kvm_ioctl(vm->vm_fd, KVM_GET_PIT2, &irq->pit) >= 0;
}

bool kvm_vm_irq_set(struct engine_vm *vm, struct kvm_vm_irq *irq)
{
    for (unsigned i = 0; i < KVM_IRQCHIPS; i++) {
        irq->chip[i].chip_id = i;
        if (kvm_ioctl(vm->vm_fd, KVM_SET_IRQCHIP, &irq->chip[i]) < 0)
            return false;
    }
    return kvm_ioctl(vm->vm_fd, KVM_SET_PIT2, &irq->pit) >= 0;
}

bool kvm_irqchip_create(struct engine_vm *vm, struct error *err)
{
    static const char what[] = "cannot make the interrupt controllers";
    if (kvm_ioctl_value(vm->vm_fd, KVM_CREATE_IRQCHIP, 0) < 0)
        return error_errno(err, what, "KVM_CREATE_IRQCHIP", errno);
    struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};
    if (kvm_ioctl(vm->vm_fd, KVM_CREATE_PIT2, &pit) < 0)
        return error_errno(err, what, "KVM_CREATE_PIT2", errno);
    if (!set_routes(vm, err))
        return false;
    if (!kvm_vm_irq_get(vm, &vm->irq_at_reset))
        return error_errno(err, what, "KVM_GET_IRQCHIP", errno);
    return true;
}

bool kvm_vcpu_irq_get(struct engine_vcpu *vcpu, struct kvm_vcpu_irq *irq)
{
    kvm_msr_get(vcpu, MSR_TSC_DEADLINE, &irq->tsc_deadline);
    return kvm_msr_get(vcpu, MSR_APIC_BASE, &irq->apic_base) &&
           kvm_ioctl(vcpu->fd, KVM_GET_LAPIC, &irq->lapic) >= 0;
}

/* The base first, since it says how the registers are to be read; the deadline last, since the
 * LVT's mode decides whether it counts. */
bool kvm_vcpu_irq_set(struct engine_vcpu *vcpu, struct kvm_vcpu_irq *irq)
{
    return kvm_msr_set(vcpu, MSR_APIC_BASE, irq->apic_base) &&
           kvm_ioctl(vcpu->fd, KVM_SET_LAPIC, &irq->lapic) >= 0 &&
           (kvm_msr_set(vcpu, MSR_TSC_DEADLINE, irq->tsc_deadline) || !irq->tsc_deadline);
}

bool kvm_irqchip_vcpu_opened(struct engine_vcpu *vcpu, struct error *err)
{
    if (!kvm_vcpu_irq_get(vcpu, &vcpu->irq_at_reset))
        return error_errno(err, "cannot read the local APIC", "KVM_GET_LAPIC", errno);
    struct kvm_vcpu_irq irq = vcpu->irq_at_reset;
    /* KVM's map of destinations does not know a new vCPU until its local APIC is set. */
    if (!kvm_vcpu_irq_set(vcpu, &irq))
        return error_errno(err, "cannot set the local APIC", "KVM_SET_LAPIC", errno);
    return true;
}

static bool reset(struct engine_vm *vm)
{
    struct kvm_vm_irq chips = vm->irq_at_reset;
    bool good = kvm_vm_irq_set(vm, &chips);
    for (unsigned i = 0; i < vm->vcpu_count; i++)
        if (vm->vcpus[i]) {
            struct kvm_vcpu_irq irq = vm->vcpus[i]->irq_at_reset;
            good &= kvm_vcpu_irq_set(vm->vcpus[i], &irq);
        }
    return good;
}

static void reset_irqchip(struct engine_vm *vm)
{
    if (!reset(vm))
        log_write(vm->log, LOG_ERROR, "kvm", "cannot reset the interrupt controllers: %s",
                  strerror(errno));
}

static void set_line(void *opaque, unsigned number, bool level)
{
    struct engine_vm *vm = opaque;
    struct kvm_irq_level line = {.irq = number, .level = level};
    if (kvm_ioctl(vm->vm_fd, KVM_IRQ_LINE, &line) < 0)
        log_limited(vm->log, &vm->log_limit, LOG_WARNING, "kvm", "interrupt line %u: %s", number,
                    strerror(errno));
}

static void send_message(void *opaque, uint64_t address, uint32_t data)
{
    struct engine_vm *vm = opaque;
    struct kvm_msi msi = {
        .address_lo = (uint32_t)address, .address_hi = (uint32_t)(address >> 32), .data = data};
    if (kvm_ioctl(vm->vm_fd, KVM_SIGNAL_MSI, &msi) < 0)
        log_limited(vm->log, &vm->log_limit, LOG_WARNING, "kvm", "interrupt message %#llx: %s",
                    (unsigned long long)address, strerror(errno));
}

static struct irq_line gsi(struct engine_vm *vm, unsigned number)
{
    if (number >= GSIS)
        return (struct irq_line){0};
    return (struct irq_line){.set = set_line, .opaque = vm, .number = number};
}

static struct msi_sink msi(struct engine_vm *vm)
{
    return (struct msi_sink){.send = send_message, .opaque = vm};
}

/* HPET's legacy replacement takes interrupt 0 from the 8254. A setting that it has changes nothing,
 * since KVM would start the counters anew. */
static void take_pit(void *opaque, unsigned number, bool is_taken)
{
    struct engine_vm *vm = opaque;
    struct kvm_pit_state2 pit;
    uint32_t flag = KVM_PIT_FLAGS_HPET_LEGACY;
    bool done = kvm_ioctl(vm->vm_fd, KVM_GET_PIT2, &pit) >= 0;
    if (done && !(pit.flags & flag) == is_taken) {
        pit.flags ^= flag;
        done = kvm_ioctl(vm->vm_fd, KVM_SET_PIT2, &pit) >= 0;
    }
    if (!done)
        log_limited(vm->log, &vm->log_limit, LOG_WARNING, "kvm", "interrupt line of the 8254: %s",
                    strerror(errno));
}

static struct irq_line pit_taken(struct engine_vm *vm)
{
    return (struct irq_line){.set = take_pit, .opaque = vm};
}

const struct engine_irqchip kvm_engine_irqchip = {
    .gsi = gsi,
    .msi = msi,
    .pit_taken = pit_taken,
    .reset = reset_irqchip,
    .get = kvm_irqchip_get,
    .set = kvm_irqchip_set,
};
