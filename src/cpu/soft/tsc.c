/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The time-stamp counter: the host's plus an offset, where the host's is invariant; otherwise
 * nanoseconds of the monotonic clock. SDM 3B 17.17. RDTSC runs on the cpu's thread, tsc_guest may
 * be called from any.
 */
#include "cpu/soft/core.h"

#include <cpuid.h>
#include <time.h>

static uint64_t now_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t tsc_host(const struct soft_system *system)
{
    return system->tsc_is_synthetic ? now_ns(CLOCK_MONOTONIC) : __builtin_ia32_rdtsc();
}

uint64_t tsc_guest(const struct cpu *cpu)
{
    return tsc_host(cpu->system) + __atomic_load_n(&cpu->tsc_offset, __ATOMIC_RELAXED);
}

static bool is_host_invariant(void)
{
    uint32_t a, b, c, d;
    return __get_cpuid(0x80000007, &a, &b, &c, &d) && (d & 1 << 8);
}

/* From CPUID: a hypervisor's leaf, or the crystal's. 0: it doesn't tell. */
static uint64_t told_khz(void)
{
    uint32_t a, b, c, d;
    if (__get_cpuid(1, &a, &b, &c, &d) && c >> 31) {
        __cpuid(0x40000000, a, b, c, d);
        if (a >= 0x40000010) {
            __cpuid(0x40000010, a, b, c, d);
            if (a != 0)
                return a;
        }
    }
    if (__get_cpuid(0x15, &a, &b, &c, &d) && a && b && c)
        return (uint64_t)c * b / a / 1000;
    return 0;
}

static uint64_t measured_khz(void)
{
    enum { MEASURE_NS = 20000000 };
    uint64_t start_ns = now_ns(CLOCK_MONOTONIC_RAW);
    uint64_t start = __builtin_ia32_rdtsc();
    struct timespec pause = {0, MEASURE_NS};
    nanosleep(&pause, NULL);
    uint64_t elapsed_ns = now_ns(CLOCK_MONOTONIC_RAW) - start_ns;
    uint64_t elapsed = __builtin_ia32_rdtsc() - start;
    return (uint64_t)((unsigned __int128)elapsed * 1000000 / elapsed_ns);
}

void tsc_open(struct soft_system *system)
{
    system->tsc_is_synthetic = !is_host_invariant();
    system->tsc_khz = system->tsc_is_synthetic ? 1000000 : told_khz();
    if (system->tsc_khz == 0)
        system->tsc_khz = measured_khz();
}

/* All processors of a system count alike, though each was set at a moment of its own. */
void tsc_set_state(struct cpu *cpu, uint64_t tsc, uint64_t adjust)
{
    struct soft_system *system = cpu->system;
    uint64_t offset = tsc - tsc_host(system);
    uint64_t near = system->tsc_khz * 1000; /* a second */
    pthread_mutex_lock(&system->shootdown_lock);
    bool is_near = system->has_tsc_offset && system->tsc_adjust == adjust &&
                   offset - system->tsc_offset + near < 2 * near;
    if (is_near) {
        offset = system->tsc_offset;
    } else {
        system->has_tsc_offset = true;
        system->tsc_offset = offset;
        system->tsc_adjust = adjust;
    }
    pthread_mutex_unlock(&system->shootdown_lock);
    cpu->tsc_adjust = adjust;
    __atomic_store_n(&cpu->tsc_offset, offset, __ATOMIC_RELAXED);
}

static void set_offset(struct cpu *cpu, uint64_t offset)
{
    __atomic_store_n(&cpu->tsc_offset, offset, __ATOMIC_RELAXED);
    kvmclock_update(cpu);
    if (cpu->system->callbacks.tsc_changed)
        cpu->system->callbacks.tsc_changed(cpu->system->callbacks.opaque, cpu->index);
}

/* A write to either of the two registers moves the other by as much. */
void tsc_write(struct cpu *cpu, uint64_t value)
{
    uint64_t delta = value - tsc_guest(cpu);
    cpu->tsc_adjust += delta;
    set_offset(cpu, cpu->tsc_offset + delta);
}

void tsc_write_adjust(struct cpu *cpu, uint64_t value)
{
    uint64_t delta = value - cpu->tsc_adjust;
    cpu->tsc_adjust = value;
    set_offset(cpu, cpu->tsc_offset + delta);
}
