/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What ends a KVM_RUN: port and MMIO accesses go to the bus, the rest to the machine. Runs on the
 * vCPU's thread.
 */
#include "cpu/kvm/kvm.h"

#include <stdio.h>
#include <string.h>

static uint64_t load_le(const uint8_t *bytes, unsigned size_bytes)
{
    uint64_t value = 0;
    memcpy(&value, bytes, size_bytes);
    return value;
}

/* A repeated string instruction gives up to a page of accesses at once, memory side done by KVM. */
static void port_access(struct engine_vcpu *vcpu)
{
    struct kvm_run *run = vcpu->run;
    uint8_t *data = (uint8_t *)run + run->io.data_offset;
    for (uint32_t i = 0; i < run->io.count; i++, data += run->io.size) {
        if (run->io.direction == KVM_EXIT_IO_OUT) {
            bus_write(vcpu->vm->bus, BUS_PORT, run->io.port, load_le(data, run->io.size),
                      run->io.size);
        } else {
            uint64_t value = bus_read(vcpu->vm->bus, BUS_PORT, run->io.port, run->io.size);
            memcpy(data, &value, run->io.size);
        }
    }
    atomic_fetch_add_explicit(&vcpu->pio, run->io.count, memory_order_relaxed);
}

/* An access that crosses a page may come in odd sizes: the bus takes 1, 2, 4 and 8. */
static void mmio_access(struct engine_vcpu *vcpu)
{
    struct kvm_run *run = vcpu->run;
    uint64_t gpa = run->mmio.phys_addr;
    unsigned left = run->mmio.len < 8 ? run->mmio.len : 8;
    uint8_t *data = run->mmio.data;
    while (left) {
        unsigned size_bytes = 1u << (31 - __builtin_clz(left));
        if (run->mmio.is_write) {
            bus_write(vcpu->vm->bus, BUS_MMIO, gpa, load_le(data, size_bytes), size_bytes);
        } else {
            uint64_t value = bus_read(vcpu->vm->bus, BUS_MMIO, gpa, size_bytes);
            memcpy(data, &value, size_bytes);
        }
        gpa += size_bytes;
        data += size_bytes;
        left -= size_bytes;
    }
    atomic_fetch_add_explicit(&vcpu->mmio, 1, memory_order_relaxed);
}

enum { INSTRUCTION_MAX = 15 };

/* The bytes at CS:RIP, by the guest's own page tables; how many could be read. */
static unsigned fetch_instruction(struct engine_vcpu *vcpu, uint64_t linear, uint8_t *bytes)
{
    unsigned count = 0;
    for (; count < INSTRUCTION_MAX; count++) {
        struct kvm_translation translation = {.linear_address = linear + count};
        if (kvm_ioctl(vcpu->fd, KVM_TRANSLATE, &translation) < 0 || !translation.valid ||
            !ram_read(vcpu->vm->ram, translation.physical_address, bytes + count, 1))
            break;
    }
    return count;
}

static void describe_place(struct engine_vcpu *vcpu, char *text, size_t size_bytes)
{
    struct kvm_run *run = vcpu->run;
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    if (kvm_ioctl(vcpu->fd, KVM_GET_REGS, &regs) < 0 ||
        kvm_ioctl(vcpu->fd, KVM_GET_SREGS, &sregs) < 0) {
        snprintf(text, size_bytes, "at an unknown place");
        return;
    }
    uint8_t bytes[INSTRUCTION_MAX];
    unsigned count = 0;
    if (run->exit_reason == KVM_EXIT_INTERNAL_ERROR &&
        run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION && run->internal.ndata >= 3 &&
        (run->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES) &&
        run->emulation_failure.insn_size <= INSTRUCTION_MAX) {
        count = run->emulation_failure.insn_size;
        memcpy(bytes, run->emulation_failure.insn_bytes, count);
    }
    if (!count)
        count = fetch_instruction(vcpu, sregs.cs.base + regs.rip, bytes);
    int used = snprintf(text, size_bytes, "at %04x:%llx in %s mode, instruction bytes",
                        sregs.cs.selector, (unsigned long long)regs.rip,
                        !(sregs.cr0 & 1)          ? "real"
                        : !(sregs.efer & 1 << 10) ? "protected"
                        : sregs.cs.l              ? "64-bit"
                                                  : "compatibility");
    for (unsigned i = 0; i < count && (size_t)used + 4 < size_bytes; i++)
        used += snprintf(text + used, size_bytes - (size_t)used, " %02x", bytes[i]);
    if (!count)
        snprintf(text + used, size_bytes - (size_t)used, " not readable");
}

static bool fail(struct engine_vcpu *vcpu, struct engine_exit *exit, const char *cause)
{
    char place[128], where[32];
    describe_place(vcpu, place, sizeof(place));
    snprintf(where, sizeof(where), "vCPU %u", vcpu->index);
    exit->reason = ENGINE_EXIT_FAILED;
    error_set(&exit->error, "KVM cannot run the guest", where, "%s %s", cause, place);
    return error_hint(&exit->error, "--engine soft runs what this host's KVM does not");
}

static bool internal_error(struct engine_vcpu *vcpu, struct engine_exit *exit)
{
    switch (vcpu->run->internal.suberror) {
    case KVM_INTERNAL_ERROR_EMULATION: return fail(vcpu, exit, "it can't emulate the instruction");
    case KVM_INTERNAL_ERROR_SIMUL_EX: return fail(vcpu, exit, "exceptions coincided");
    case KVM_INTERNAL_ERROR_DELIVERY_EV:
        return fail(vcpu, exit, "it could not deliver an interrupt");
    case KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON:
        return fail(vcpu, exit, "the processor left the guest for an unknown reason");
    }
    char cause[64];
    snprintf(cause, sizeof(cause), "internal error %u", vcpu->run->internal.suberror);
    return fail(vcpu, exit, cause);
}

static bool unknown_exit(struct engine_vcpu *vcpu, struct engine_exit *exit)
{
    struct kvm_run *run = vcpu->run;
    char cause[96];
    if (run->exit_reason == KVM_EXIT_FAIL_ENTRY)
        snprintf(cause, sizeof(cause), "the processor refused the guest's state (reason %#llx)",
                 (unsigned long long)run->fail_entry.hardware_entry_failure_reason);
    else if (run->exit_reason == KVM_EXIT_UNKNOWN)
        snprintf(cause, sizeof(cause), "unknown exit of the processor (reason %#llx)",
                 (unsigned long long)run->hw.hardware_exit_reason);
    else
        snprintf(cause, sizeof(cause), "unexpected exit %u", run->exit_reason);
    return fail(vcpu, exit, cause);
}

static bool leave(struct engine_exit *exit, enum engine_exit_reason reason)
{
    exit->reason = reason;
    return false;
}

bool kvm_handle_exit(struct engine_vcpu *vcpu, struct engine_exit *exit)
{
    switch (vcpu->run->exit_reason) {
    case KVM_EXIT_IO: port_access(vcpu); return true;
    case KVM_EXIT_MMIO: mmio_access(vcpu); return true;
    case KVM_EXIT_DEBUG: return kvm_debug_exit(vcpu, exit);
    case KVM_EXIT_INTR:
    case KVM_EXIT_IRQ_WINDOW_OPEN: return true;
    case KVM_EXIT_SHUTDOWN: return leave(exit, ENGINE_EXIT_SHUTDOWN);
    case KVM_EXIT_SYSTEM_EVENT:
        switch (vcpu->run->system_event.type) {
        case KVM_SYSTEM_EVENT_SHUTDOWN: return leave(exit, ENGINE_EXIT_SHUTDOWN);
        case KVM_SYSTEM_EVENT_RESET: return leave(exit, ENGINE_EXIT_RESET);
        default: return fail(vcpu, exit, "the guest reported a crash");
        }
    case KVM_EXIT_INTERNAL_ERROR: return internal_error(vcpu, exit);
    default: return unknown_exit(vcpu, exit);
    }
}
