/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The guest's time-stamp counters and paravirtual clock while the machine stands still, and their
 * rate. KVM lets both run on, so they are read when time stops and set when it starts. Timers
 * inside KVM (local APIC, 8254) run on as well: what fires meanwhile is pending afterwards. Runs
 * while no vCPU does.
 */
#include "cpu/kvm/kvm.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

enum { MSR_TSC = 0x10, MSR_TSC_DEADLINE = 0x6e0 };

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static uint64_t ticks_since(const struct engine_vm *vm, uint64_t monotonic_ns)
{
    return (uint64_t)((unsigned __int128)(now_ns() - monotonic_ns) * vm->tsc_khz / 1000000);
}

uint64_t kvm_tsc_hz(struct engine_vm *vm)
{
    int khz = vm->vcpus[0] ? ioctl(vm->vcpus[0]->fd, KVM_GET_TSC_KHZ, 0) : 0;
    vm->tsc_khz = khz > 0 ? (uint64_t)khz : 0;
    return vm->tsc_khz * 1000;
}

/* Within 250 ppm it is one frequency that two hosts measured, as for KVM itself. */
bool kvm_set_tsc_hz(struct engine_vcpu *vcpu, struct error *err)
{
    int khz = ioctl(vcpu->fd, KVM_GET_TSC_KHZ, 0);
    uint64_t host_hz = khz > 0 ? (uint64_t)khz * 1000 : 0, hz = vcpu->vm->wanted_tsc_hz;
    uint64_t difference = hz > host_hz ? hz - host_hz : host_hz - hz;
    if (!hz || !host_hz || difference < host_hz / 4000 ||
        kvm_ioctl_value(vcpu->fd, KVM_SET_TSC_KHZ, hz / 1000) >= 0)
        return true;
    return error_set(err, "cannot set the time-stamp counter", "KVM_SET_TSC_KHZ",
                     "this host's runs at %llu kHz, not %llu, and can't be scaled",
                     (unsigned long long)host_hz / 1000, (unsigned long long)hz / 1000);
}

void kvm_stop_time(struct engine_vm *vm, uint64_t monotonic_ns)
{
    if (vm->time_is_stopped)
        return;
    kvm_tsc_hz(vm);
    for (unsigned i = 0; i < vm->vcpu_count; i++) {
        struct engine_vcpu *vcpu = vm->vcpus[i];
        kvm_msr_get(vcpu, MSR_TSC_DEADLINE, &vcpu->stopped_deadline);
        kvm_msr_get(vcpu, MSR_TSC, &vcpu->stopped_tsc);
        vcpu->stopped_tsc -= ticks_since(vm, monotonic_ns);
    }
    struct kvm_clock_data clock = {0};
    kvm_ioctl(vm->vm_fd, KVM_GET_CLOCK, &clock);
    vm->stopped_clock_ns = clock.clock - (now_ns() - monotonic_ns);
    vm->time_is_stopped = true;
}

/* The deadline again, since KVM's timer for it was set by the counter as it was. */
void kvm_start_time(struct engine_vm *vm, uint64_t monotonic_ns)
{
    if (!vm->time_is_stopped)
        return;
    vm->time_is_stopped = false;
    for (unsigned i = 0; i < vm->vcpu_count; i++) {
        struct engine_vcpu *vcpu = vm->vcpus[i];
        kvm_msr_set(vcpu, MSR_TSC, vcpu->stopped_tsc + ticks_since(vm, monotonic_ns));
        if (vcpu->stopped_deadline)
            kvm_msr_set(vcpu, MSR_TSC_DEADLINE, vcpu->stopped_deadline);
    }
    struct kvm_clock_data clock = {.clock = vm->stopped_clock_ns + (now_ns() - monotonic_ns)};
    if (kvm_ioctl(vm->vm_fd, KVM_SET_CLOCK, &clock) < 0)
        log_write(vm->log, LOG_WARNING, "kvm", "cannot set the guest's clock: %s", strerror(errno));
}
