/* SPDX-License-Identifier: BSD-2-Clause
 *
 * NMI, INIT and SIPI from outside the guest. KVM takes these only from the vCPU's own calls, which
 * wait while KVM_RUN is under way: so they are noted by any thread and handed over by the vCPU's
 * thread before it enters the guest. (As interrupt messages they would be lost while the guest's
 * local APIC is disabled.)
 */
#include "cpu/kvm/kvm.h"

enum { REQUEST_NMI = 1 << 8, REQUEST_INIT = 1 << 9, REQUEST_SIPI = 1 << 10, SIPI_VECTOR = 0xff };

void kvm_inject(struct engine_vcpu *vcpu, enum engine_event event, unsigned value)
{
    switch (event) {
    case ENGINE_NMI: atomic_fetch_or(&vcpu->requests, REQUEST_NMI); break;
    case ENGINE_INIT: atomic_store(&vcpu->requests, REQUEST_INIT); break; /* forgets the rest */
    case ENGINE_SIPI:
        atomic_fetch_and(&vcpu->requests, ~(uint32_t)SIPI_VECTOR);
        atomic_fetch_or(&vcpu->requests, REQUEST_SIPI | (value & SIPI_VECTOR));
        break;
    case ENGINE_INTR: /* the local APIC is KVM's */
    case ENGINE_SMI: return;
    }
    kvm_interrupt_run(vcpu);
}

/* Setting the event latches an INIT even without SMM, and getting the state makes KVM take it. */
static bool init(struct engine_vcpu *vcpu)
{
    struct kvm_vcpu_events events;
    struct kvm_mp_state mp;
    if (kvm_ioctl(vcpu->fd, KVM_GET_VCPU_EVENTS, &events) < 0)
        return false;
    events.flags |= KVM_VCPUEVENT_VALID_SMM;
    events.smi.latched_init = 1;
    return kvm_ioctl(vcpu->fd, KVM_SET_VCPU_EVENTS, &events) >= 0 &&
           kvm_ioctl(vcpu->fd, KVM_GET_MP_STATE, &mp) >= 0;
}

static bool sipi(struct engine_vcpu *vcpu, uint8_t vector)
{
    struct kvm_vcpu_events events;
    struct kvm_mp_state mp;
    if (kvm_ioctl(vcpu->fd, KVM_GET_MP_STATE, &mp) < 0)
        return false;
    if (mp.mp_state != KVM_MP_STATE_INIT_RECEIVED)
        return true;
    if (kvm_ioctl(vcpu->fd, KVM_GET_VCPU_EVENTS, &events) < 0)
        return false;
    events.flags |= KVM_VCPUEVENT_VALID_SIPI_VECTOR;
    events.sipi_vector = vector;
    mp.mp_state = KVM_MP_STATE_SIPI_RECEIVED;
    return kvm_ioctl(vcpu->fd, KVM_SET_VCPU_EVENTS, &events) >= 0 &&
           kvm_ioctl(vcpu->fd, KVM_SET_MP_STATE, &mp) >= 0;
}

bool kvm_apply_requests(struct engine_vcpu *vcpu)
{
    uint32_t requests = atomic_exchange(&vcpu->requests, 0);
    if ((requests & REQUEST_INIT) && !init(vcpu))
        return false;
    if ((requests & REQUEST_SIPI) && !sipi(vcpu, requests & SIPI_VECTOR))
        return false;
    return !(requests & REQUEST_NMI) || kvm_ioctl_value(vcpu->fd, KVM_NMI, 0) >= 0;
}
