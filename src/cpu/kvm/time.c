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

/* The paravirtual clock at that moment. Of some tries the shortest counts, since a thread may lose
 * the processor between the two readings. */
static uint64_t clock_at(struct engine_vm *vm, uint64_t monotonic_ns)
{
    enum { TRIES = 8 };
    uint64_t best_ns = UINT64_MAX, result = 0;
    for (int i = 0; i < TRIES; i++) {
        struct kvm_clock_data clock = {0};
        uint64_t before_ns = now_ns();
        kvm_ioctl(vm->vm_fd, KVM_GET_CLOCK, &clock);
        uint64_t took_ns = now_ns() - before_ns;
        if (took_ns >= best_ns)
            continue;
        best_ns = took_ns;
        result = clock.clock - (before_ns + took_ns / 2 - monotonic_ns);
    }
    return result;
}

/* Counters that agree to within a millisecond, which is what reading them one after another takes,
 * are one counter: another engine would keep the difference. */
static void stop_counters(struct engine_vm *vm, uint64_t monotonic_ns)
{
    uint64_t near = vm->tsc_khz, first = 0;
    for (unsigned i = 0; i < vm->vcpu_count; i++) {
        struct engine_vcpu *vcpu = vm->vcpus[i];
        kvm_msr_get(vcpu, MSR_TSC_DEADLINE, &vcpu->stopped_deadline);
        vcpu->stopped_count = kvm_lapic_count(vcpu);
        kvm_msr_get(vcpu, MSR_TSC, &vcpu->stopped_tsc);
        vcpu->stopped_tsc -= ticks_since(vm, monotonic_ns);
        if (i == 0)
            first = vcpu->stopped_tsc;
        else if (vcpu->stopped_tsc - first + near < 2 * near)
            vcpu->stopped_tsc = first;
    }
}

void kvm_stop_time(struct engine_vm *vm, uint64_t monotonic_ns)
{
    if (vm->time_is_stopped)
        return;
    kvm_tsc_hz(vm);
    stop_counters(vm, monotonic_ns);
    vm->stopped_clock_ns = clock_at(vm, monotonic_ns);
    vm->stopped_monotonic_ns = monotonic_ns;
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

uint64_t kvm_paravirtual_ns(struct engine_vm *vm)
{
    return vm->stopped_clock_ns;
}

void kvm_set_paravirtual_ns(struct engine_vm *vm, uint64_t ns)
{
    vm->stopped_clock_ns = ns;
}
