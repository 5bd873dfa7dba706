/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A vCPU of KVM: its life, its run loop, and how another thread ends it. A kick sets
 * immediate_exit, which KVM looks at when KVM_RUN begins, and then sends a signal to a thread that
 * may be inside; so none is lost. KVM_RUN with immediate_exit completes a port or MMIO access that
 * was under way, so the state is whole after KICKED.
 */
#include "cpu/kvm/kvm.h"
#include "cpu/topology.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

static int kick_signal(void)
{
    return SIGRTMIN;
}

static void ignore_signal(int number) {}

/* The handler does nothing: the signal is there to interrupt KVM_RUN. */
bool kvm_install_signal(struct error *err)
{
    struct sigaction action = {.sa_handler = ignore_signal, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    if (sigaction(kick_signal(), &action, NULL) < 0)
        return error_errno(err, "cannot install the handler of vCPU kicks", NULL, errno);
    return true;
}

static bool open_fd(struct engine_vcpu *vcpu, struct error *err)
{
    static const char what[] = "cannot make a virtual processor";
    const struct engine_topology *topology = &vcpu->vm->topology;
    /* KVM's number of a vCPU is its APIC id. */
    unsigned id = topology_apic_id(topology->cores, topology->threads, vcpu->index);
    vcpu->fd = kvm_ioctl_value(vcpu->vm->vm_fd, KVM_CREATE_VCPU, id);
    if (vcpu->fd < 0)
        return error_errno(err, what, "KVM_CREATE_VCPU", errno);
    void *run =
        mmap(NULL, vcpu->vm->run_size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
    if (run == MAP_FAILED)
        return error_errno(err, what, "mmap", errno);
    vcpu->run = run;
    return true;
}

struct engine_vcpu *kvm_vcpu_open(struct engine_vm *vm, unsigned index, struct error *err)
{
    struct engine_vcpu *vcpu = calloc(1, sizeof(*vcpu));
    if (!vcpu) {
        error_errno(err, "cannot make a virtual processor", NULL, ENOMEM);
        return NULL;
    }
    vcpu->vm = vm;
    vcpu->index = index;
    vcpu->fd = -1;
    struct x86_state state;
    x86_state_reset(&state, index == 0);
    if (!open_fd(vcpu, err) || !kvm_cpuid_set(vcpu, err) || !kvm_set_tsc_hz(vcpu, err) ||
        !kvm_set_state(vcpu, &state, err) || !kvm_irqchip_vcpu_opened(vcpu, err)) {
        kvm_vcpu_close(vcpu);
        return NULL;
    }
    vm->vcpus[index] = vcpu;
    return vcpu;
}

void kvm_vcpu_close(struct engine_vcpu *vcpu)
{
    if (vcpu->vm->vcpus[vcpu->index] == vcpu)
        vcpu->vm->vcpus[vcpu->index] = NULL;
    if (vcpu->run)
        munmap(vcpu->run, vcpu->vm->run_size_bytes);
    if (vcpu->fd >= 0)
        close(vcpu->fd);
    free(vcpu->debug);
    free(vcpu);
}

static void set_immediate_exit(struct engine_vcpu *vcpu, uint8_t value)
{
    __atomic_store_n(&vcpu->run->immediate_exit, value, __ATOMIC_SEQ_CST);
}

void kvm_interrupt_run(struct engine_vcpu *vcpu)
{
    set_immediate_exit(vcpu, 1);
    if (atomic_load(&vcpu->in_kvm))
        tgkill(getpid(), atomic_load(&vcpu->tid), kick_signal());
}

void kvm_kick(struct engine_vcpu *vcpu)
{
    atomic_store(&vcpu->kicked, true);
    kvm_interrupt_run(vcpu);
}

static int enter(struct engine_vcpu *vcpu)
{
    atomic_store(&vcpu->in_kvm, true);
    int result = ioctl(vcpu->fd, KVM_RUN, 0);
    int errno_value = errno;
    atomic_store(&vcpu->in_kvm, false);
    return result < 0 ? errno_value : 0;
}

static void failed(struct engine_exit *exit, const char *what, int errno_value)
{
    exit->reason = ENGINE_EXIT_FAILED;
    error_errno(&exit->error, what, "/dev/kvm", errno_value);
}

static void run_until_exit(struct engine_vcpu *vcpu, struct engine_exit *exit)
{
    for (;;) {
        if (atomic_load(&vcpu->requests) && !kvm_apply_requests(vcpu)) {
            failed(exit, "cannot interrupt the guest", errno);
            return;
        }
        int errno_value = enter(vcpu);
        switch (errno_value) {
        case 0:
            if (!kvm_handle_exit(vcpu, exit))
                return;
            break;
        case EAGAIN: break; /* a vCPU that waited for INIT got it */
        case EINTR:
            /* In this order: a kick that comes in between is seen by one of the two, what is
             * injected by the next round. */
            set_immediate_exit(vcpu, 0);
            if (atomic_exchange(&vcpu->kicked, false)) {
                exit->reason = ENGINE_EXIT_KICKED;
                return;
            }
            break;
        default: failed(exit, "cannot run the guest", errno_value); return;
        }
    }
}

/* When all vCPUs of a machine have returned, no doorbell that they rang is still being served: the
 * machine may then save or destroy its devices. */
void kvm_run_vcpu(struct engine_vcpu *vcpu, struct engine_exit *exit)
{
    memset(exit, 0, sizeof(*exit));
    atomic_store(&vcpu->tid, gettid());
    run_until_exit(vcpu, exit);
    kvm_doorbells_drain(vcpu->vm->doorbells);
}
