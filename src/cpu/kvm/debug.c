/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A debugger outside of the guest by KVM_SET_GUEST_DEBUG: the processor's four debug registers and
 * RFLAGS.TF serve it, and an INT3 that somebody has written for it ends the run. While it has
 * breakpoints in debug registers the guest's own do not work; KVM offers no more. What turns out to
 * be the guest's own #DB or #BP is handed to the guest.
 */
#include "cpu/kvm/kvm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

enum { DEBUG_REGISTERS = 4, VECTOR_DB = 1, VECTOR_BP = 3 };
enum { DR7_GE = 1 << 9, DR7_FIXED = 1 << 10, DR6_BS = 1 << 14 };

struct kvm_debug {
    struct kvm_guest_debug guest;
    struct breakpoint list[DEBUG_MAX_BREAKPOINTS];
    unsigned count;
    struct breakpoint in_register[DEBUG_REGISTERS];
    unsigned registers;
    bool steps;
};

static const char setting[] = "cannot set breakpoints";

/* R/W and LEN fields of DR7 (SDM 3B 18.2.4): there is none for reads alone. */
static uint64_t dr7_bits(const struct breakpoint *breakpoint, unsigned index)
{
    static const uint8_t rw[] = {
        [BREAK_EXECUTE] = 0, [WATCH_WRITE] = 1, [WATCH_READ] = 3, [WATCH_ACCESS] = 3};
    uint64_t length = 0;
    if (breakpoint->kind != BREAK_EXECUTE)
        length = breakpoint->size_bytes == 8 ? 2 : breakpoint->size_bytes - 1;
    return UINT64_C(2) << 2 * index | (uint64_t)rw[breakpoint->kind] << (16 + 4 * index) |
           length << (18 + 4 * index);
}

static bool fits_register(const struct breakpoint *breakpoint)
{
    uint64_t size = breakpoint->size_bytes;
    return breakpoint->kind == BREAK_EXECUTE ||
           ((size == 1 || size == 2 || size == 4 || size == 8) && breakpoint->linear % size == 0);
}

static bool use_register(struct kvm_debug *debug, const struct breakpoint *breakpoint,
                         struct error *err)
{
    if (!fits_register(breakpoint))
        return error_set(err, setting, NULL,
                         "a watched range must have 1, 2, 4 or 8 bytes and be aligned");
    if (debug->registers == DEBUG_REGISTERS)
        return error_set(err, setting, NULL, "the processor has only %d in hardware",
                         DEBUG_REGISTERS);
    unsigned index = debug->registers++;
    debug->in_register[index] = *breakpoint;
    debug->guest.arch.debugreg[index] = breakpoint->linear;
    debug->guest.arch.debugreg[7] |= dr7_bits(breakpoint, index);
    return true;
}

static bool take_breakpoints(struct kvm_debug *debug, const struct debug_request *request,
                             struct error *err)
{
    debug->guest.arch.debugreg[7] = DR7_FIXED | DR7_GE;
    for (unsigned i = 0; i < request->count; i++) {
        const struct breakpoint *breakpoint = &request->breakpoints[i];
        debug->list[debug->count++] = *breakpoint;
        if (breakpoint->kind == BREAK_EXECUTE && breakpoint->is_software)
            debug->guest.control |= KVM_GUESTDBG_USE_SW_BP;
        else if (!use_register(debug, breakpoint, err))
            return false;
    }
    if (debug->registers)
        debug->guest.control |= KVM_GUESTDBG_USE_HW_BP;
    return true;
}

/* Interrupts wait for the end of a step where the host's KVM knows how. */
static void take_step(struct engine_vcpu *vcpu, struct kvm_debug *debug,
                      const struct debug_request *request)
{
    debug->steps = request->steps;
    if (!request->steps)
        return;
    debug->guest.control |= KVM_GUESTDBG_SINGLESTEP;
    int known = ioctl(vcpu->vm->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_SET_GUEST_DEBUG2);
    if (known > 0 && (known & KVM_GUESTDBG_BLOCKIRQ) && !request->takes_interrupts)
        debug->guest.control |= KVM_GUESTDBG_BLOCKIRQ;
}

static bool replace(struct engine_vcpu *vcpu, struct kvm_debug *debug, struct error *err)
{
    struct kvm_guest_debug off = {0};
    if (kvm_ioctl(vcpu->fd, KVM_SET_GUEST_DEBUG, debug ? &debug->guest : &off) < 0) {
        free(debug);
        return error_errno(err, setting, "KVM_SET_GUEST_DEBUG", errno);
    }
    free(vcpu->debug);
    vcpu->debug = debug;
    return true;
}

bool kvm_set_debug(struct engine_vcpu *vcpu, const struct debug_request *request, struct error *err)
{
    if (!request)
        return replace(vcpu, NULL, err);
    struct kvm_debug *debug = calloc(1, sizeof(*debug));
    if (!debug)
        return error_errno(err, setting, NULL, ENOMEM);
    debug->guest.control = KVM_GUESTDBG_ENABLE;
    take_step(vcpu, debug, request);
    if (!take_breakpoints(debug, request, err)) {
        free(debug);
        return false;
    }
    return replace(vcpu, debug, err);
}

/* ---- exits ---- */

static bool stop(struct engine_exit *exit, enum debug_stop_kind kind,
                 const struct breakpoint *breakpoint)
{
    exit->reason = ENGINE_EXIT_DEBUG;
    exit->stop = (struct debug_stop){.kind = kind};
    if (breakpoint)
        exit->stop.breakpoint = *breakpoint;
    return true;
}

static bool explains_db(const struct kvm_debug *debug, uint64_t dr6, struct engine_exit *exit)
{
    for (unsigned i = 0; i < debug->registers; i++) {
        const struct breakpoint *hit = &debug->in_register[i];
        if (dr6 >> i & 1)
            return stop(exit,
                        hit->kind == BREAK_EXECUTE ? DEBUG_STOP_BREAKPOINT : DEBUG_STOP_WATCHPOINT,
                        hit);
    }
    return (dr6 & DR6_BS) && debug->steps && stop(exit, DEBUG_STOP_STEP, NULL);
}

static bool explains_bp(const struct kvm_debug *debug, uint64_t linear, struct engine_exit *exit)
{
    for (unsigned i = 0; i < debug->count; i++)
        if (debug->list[i].kind == BREAK_EXECUTE && debug->list[i].is_software &&
            debug->list[i].linear == linear)
            return stop(exit, DEBUG_STOP_BREAKPOINT, &debug->list[i]);
    return false;
}

/* The guest's own: it gets it. */
static bool hand_to_guest(struct engine_vcpu *vcpu, const struct kvm_debug_exit_arch *arch)
{
    struct kvm_guest_debug guest = vcpu->debug ? vcpu->debug->guest : (struct kvm_guest_debug){0};
    guest.control |= arch->exception == VECTOR_BP ? KVM_GUESTDBG_INJECT_BP : KVM_GUESTDBG_INJECT_DB;
    guest.control |= KVM_GUESTDBG_ENABLE;
    return kvm_ioctl(vcpu->fd, KVM_SET_GUEST_DEBUG, &guest) == 0;
}

bool kvm_debug_exit(struct engine_vcpu *vcpu, struct engine_exit *exit)
{
    const struct kvm_debug_exit_arch *arch = &vcpu->run->debug.arch;
    bool is_ours = false;
    if (vcpu->debug)
        is_ours = arch->exception == VECTOR_BP ? explains_bp(vcpu->debug, arch->pc, exit)
                                               : explains_db(vcpu->debug, arch->dr6, exit);
    if (is_ours)
        return false;
    if (hand_to_guest(vcpu, arch))
        return true;
    exit->reason = ENGINE_EXIT_FAILED;
    error_errno(&exit->error, "cannot hand a debug exception to the guest", "KVM_SET_GUEST_DEBUG",
                errno);
    return false;
}
