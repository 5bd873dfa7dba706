/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The MSRs of struct x86_state to and from KVM. A host that lacks one is fine as long as the guest
 * holds 0 in it. Runs while the vCPU does not.
 */
#include "cpu/kvm/kvm.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

struct msr_field {
    uint32_t msr;
    uint16_t offset;
};

#define FIELD(msr, name)                                                                           \
    {                                                                                              \
        (msr), offsetof(struct x86_state, name)                                                    \
    }

/* CTL, STATUS, ADDR, MISC. */
#define BANK(n)                                                                                    \
    FIELD(0x400 + 4 * (n), mc_bank[n][0]), FIELD(0x401 + 4 * (n), mc_bank[n][1]),                  \
        FIELD(0x402 + 4 * (n), mc_bank[n][2]), FIELD(0x403 + 4 * (n), mc_bank[n][3])

/* In the order in which they are set: the TSC before the deadline that is compared with it. */
static const struct msr_field fields[] = {
    FIELD(0xc0000081, star),
    FIELD(0xc0000082, lstar),
    FIELD(0xc0000083, cstar),
    FIELD(0xc0000084, sfmask),
    FIELD(0xc0000102, kernel_gs_base),
    FIELD(0xc0000103, tsc_aux),
    FIELD(0x174, sysenter_cs),
    FIELD(0x175, sysenter_esp),
    FIELD(0x176, sysenter_eip),
    FIELD(0x277, pat),
    FIELD(0x1a0, misc_enable),
    FIELD(0x48, spec_ctrl),
    FIELD(0x250, mtrr_fixed[0]),
    FIELD(0x258, mtrr_fixed[1]),
    FIELD(0x259, mtrr_fixed[2]),
    FIELD(0x268, mtrr_fixed[3]),
    FIELD(0x269, mtrr_fixed[4]),
    FIELD(0x26a, mtrr_fixed[5]),
    FIELD(0x26b, mtrr_fixed[6]),
    FIELD(0x26c, mtrr_fixed[7]),
    FIELD(0x26d, mtrr_fixed[8]),
    FIELD(0x26e, mtrr_fixed[9]),
    FIELD(0x26f, mtrr_fixed[10]),
    FIELD(0x200, mtrr_base[0]),
    FIELD(0x201, mtrr_mask[0]),
    FIELD(0x202, mtrr_base[1]),
    FIELD(0x203, mtrr_mask[1]),
    FIELD(0x204, mtrr_base[2]),
    FIELD(0x205, mtrr_mask[2]),
    FIELD(0x206, mtrr_base[3]),
    FIELD(0x207, mtrr_mask[3]),
    FIELD(0x208, mtrr_base[4]),
    FIELD(0x209, mtrr_mask[4]),
    FIELD(0x20a, mtrr_base[5]),
    FIELD(0x20b, mtrr_mask[5]),
    FIELD(0x20c, mtrr_base[6]),
    FIELD(0x20d, mtrr_mask[6]),
    FIELD(0x20e, mtrr_base[7]),
    FIELD(0x20f, mtrr_mask[7]),
    FIELD(0x2ff, mtrr_def_type),
    FIELD(0x1d9, debugctl),
    FIELD(0x17a, mcg_status),
    BANK(0),
    BANK(1),
    BANK(2),
    BANK(3),
    BANK(4),
    BANK(5),
    BANK(6),
    BANK(7),
    BANK(8),
    BANK(9),
    FIELD(0x4b564d00, kvm_wall_clock),
    FIELD(0x4b564d01, kvm_system_time),
    FIELD(0x4b564d04, kvm_eoi),
    FIELD(0x3b, tsc_adjust),
    FIELD(0x10, tsc),
    FIELD(0x6e0, tsc_deadline),
};
enum { FIELD_COUNT = sizeof(fields) / sizeof(fields[0]) };
_Static_assert(sizeof(fields) / sizeof(fields[0]) <= (size_t)KVM_MSRS,
               "more MSRs than a batch holds");

/* struct kvm_msrs with its room. */
struct batch {
    uint32_t nmsrs, padding;
    struct kvm_msr_entry entries[KVM_MSRS];
};
_Static_assert(offsetof(struct batch, entries) == sizeof(struct kvm_msrs), "the kernel's layout");

bool kvm_msr_get(struct engine_vcpu *vcpu, uint32_t msr, uint64_t *value)
{
    struct batch batch = {.nmsrs = 1, .entries[0].index = msr};
    bool known = kvm_ioctl(vcpu->fd, KVM_GET_MSRS, &batch) == 1;
    *value = known ? batch.entries[0].data : 0;
    return known;
}

bool kvm_msr_set(struct engine_vcpu *vcpu, uint32_t msr, uint64_t value)
{
    struct batch batch = {.nmsrs = 1, .entries[0] = {.index = msr, .data = value}};
    return kvm_ioctl(vcpu->fd, KVM_SET_MSRS, &batch) == 1;
}

static uint64_t *field_of(struct x86_state *state, const struct msr_field *field)
{
    return (uint64_t *)(void *)((char *)state + field->offset);
}

/* KVM stops at the first MSR that it does not take and tells how many it took: go on after it. */
bool kvm_msrs_get(struct engine_vcpu *vcpu, struct x86_state *state, struct error *err)
{
    for (unsigned done = 0; done < FIELD_COUNT;) {
        struct batch batch = {.nmsrs = FIELD_COUNT - done};
        for (unsigned i = done; i < FIELD_COUNT; i++)
            batch.entries[i - done].index = fields[i].msr;
        int taken = kvm_ioctl(vcpu->fd, KVM_GET_MSRS, &batch);
        if (taken < 0)
            return error_set(err, "cannot read the processor's state", "KVM_GET_MSRS",
                             "KVM refuses it");
        for (int i = 0; i < taken; i++)
            *field_of(state, &fields[done++]) = batch.entries[i].data;
        if (done < FIELD_COUNT)
            *field_of(state, &fields[done++]) = 0;
    }
    return true;
}

bool kvm_msrs_set(struct engine_vcpu *vcpu, const struct x86_state *state, struct error *err)
{
    struct x86_state copy = *state;
    for (unsigned done = 0; done < FIELD_COUNT;) {
        struct batch batch = {.nmsrs = FIELD_COUNT - done};
        for (unsigned i = done; i < FIELD_COUNT; i++)
            batch.entries[i - done] = (struct kvm_msr_entry){.index = fields[i].msr,
                                                             .data = *field_of(&copy, &fields[i])};
        int taken = kvm_ioctl(vcpu->fd, KVM_SET_MSRS, &batch);
        if (taken < 0)
            return error_set(err, "cannot set the processor's state", "KVM_SET_MSRS",
                             "KVM refuses it");
        done += (unsigned)taken;
        if (done < FIELD_COUNT && *field_of(&copy, &fields[done])) {
            char where[32];
            snprintf(where, sizeof(where), "MSR %#x", fields[done].msr);
            return error_set(err, "cannot set the processor's state", where,
                             "this host's KVM does not take the value %#llx",
                             (unsigned long long)*field_of(&copy, &fields[done]));
        }
        done++;
    }
    return true;
}
