/* SPDX-License-Identifier: BSD-2-Clause
 *
 * KVM's paravirtual clock: a page that tells how to get nanoseconds from the TSC, the same for all
 * processors and valid for good, since the TSC is invariant (Documentation/virt/kvm/x86/msr.rst).
 * It reads what the TSC would if the guest never wrote it, so it goes on where a saved state ended;
 * in a machine that was saved on KVM with a distance, which stays.
 * Not offered: steal time, asynchronous page faults, paravirtual EOI.
 */
#include "cpu/soft/core.h"

#include <time.h>

enum {
    MSR_WALL_CLOCK = 0x11,
    MSR_SYSTEM_TIME = 0x12,
    MSR_WALL_CLOCK_NEW = 0x4b564d00,
    MSR_SYSTEM_TIME_NEW = 0x4b564d01,
    FLAG_TSC_STABLE = 1,
};

struct vcpu_time_info {
    uint32_t version, pad0;
    uint64_t tsc_timestamp;
    uint64_t system_time;
    uint32_t tsc_to_system_mul;
    int8_t tsc_shift;
    uint8_t flags, pad[2];
};

struct wall_clock {
    uint32_t version, seconds, nanoseconds;
};

_Static_assert(sizeof(struct vcpu_time_info) == 32, "as KVM has it");

static uint8_t *ram_at(struct cpu *cpu, uint64_t gpa, unsigned size_bytes)
{
    struct soft_region region;
    if (!soft_region_find(cpu->system, gpa, &region) || region.read_only ||
        gpa - region.gpa + size_bytes > region.size_bytes)
        return NULL;
    return region.hva + (gpa - region.gpa);
}

/* ns = (ticks << shift) * mul >> 32, mul as large as its 32 bits allow. */
static void scale(uint64_t khz, uint32_t *mul, int8_t *shift)
{
    uint64_t ticks = khz * 1000, ns = 1000000000;
    *shift = 0;
    while (ticks > 2 * ns) {
        ticks >>= 1;
        --*shift;
    }
    while (ticks <= ns) {
        ticks <<= 1;
        ++*shift;
    }
    /* The shift above may have dropped bits of ticks: divide the exact value. */
    unsigned __int128 numerator = (unsigned __int128)ns << 32;
    if (*shift < 0)
        numerator <<= -*shift;
    unsigned __int128 denominator = (unsigned __int128)khz * 1000;
    if (*shift > 0)
        denominator <<= *shift;
    *mul = (uint32_t)(numerator / denominator);
}

void kvmclock_update(struct cpu *cpu)
{
    if (!(cpu->kvm_system_time & KVM_CLOCK_ENABLE))
        return;
    uint8_t *at = ram_at(cpu, cpu->kvm_system_time & ~UINT64_C(1), sizeof(struct vcpu_time_info));
    if (!at)
        return;
    struct vcpu_time_info info = {0};
    uint32_t version;
    memcpy(&version, at, sizeof(version));
    version = (version | 1) + 2;
    info.version = version;
    info.tsc_timestamp = cpu->tsc_adjust;
    info.system_time = cpu->system->kvmclock_base_ns;
    info.flags = FLAG_TSC_STABLE;
    scale(cpu->system->tsc_khz, &info.tsc_to_system_mul, &info.tsc_shift);
    memcpy(at, &info, sizeof(info)); /* odd: being written */
    atomic_thread_fence(memory_order_seq_cst);
    version++;
    memcpy(at, &version, sizeof(version));
    code_page_written(cpu, at, sizeof(info));
}

/* As the guest computes it. */
uint64_t kvmclock_ns(const struct cpu *cpu)
{
    uint32_t mul;
    int8_t shift;
    uint64_t ticks = tsc_guest(cpu) - cpu->tsc_adjust;
    scale(cpu->system->tsc_khz, &mul, &shift);
    ticks = shift < 0 ? ticks >> -shift : ticks << shift;
    return cpu->system->kvmclock_base_ns + (uint64_t)((unsigned __int128)ticks * mul >> 32);
}

void kvmclock_set_ns(struct soft_system *system, uint64_t ns)
{
    system->kvmclock_base_ns += ns - kvmclock_ns(system->cpu[0]);
    for (unsigned i = 0; i < system->cpu_count; i++)
        kvmclock_update(system->cpu[i]);
}

static void write_wall_clock(struct cpu *cpu)
{
    uint8_t *at = ram_at(cpu, cpu->kvm_wall_clock, sizeof(struct wall_clock));
    if (!at)
        return;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec - kvmclock_ns(cpu);
    struct wall_clock wall = {2, (uint32_t)(ns / 1000000000), (uint32_t)(ns % 1000000000)};
    memcpy(at, &wall, sizeof(wall));
    code_page_written(cpu, at, sizeof(wall));
}

bool kvmclock_write_msr(struct cpu *cpu, uint32_t msr, uint64_t value)
{
    switch (msr) {
    case MSR_SYSTEM_TIME:
    case MSR_SYSTEM_TIME_NEW:
        cpu->kvm_system_time = value;
        kvmclock_update(cpu);
        return true;
    case MSR_WALL_CLOCK:
    case MSR_WALL_CLOCK_NEW:
        cpu->kvm_wall_clock = value;
        write_wall_clock(cpu);
        return true;
    default: return false;
    }
}
