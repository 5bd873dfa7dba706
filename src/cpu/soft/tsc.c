/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The time-stamp counter: the host's plus an offset, where the host's is invariant; otherwise
 * nanoseconds of the monotonic clock. SDM 3B 17.17. RDTSC runs on the cpu's thread, tsc_guest may
 * be called from any.
 *
 * It stands still while the machine does, and a machine that was saved on a host of another
 * frequency keeps its own: the host's ticks are then multiplied.
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

static uint64_t scaled(const struct soft_system *system, uint64_t ticks)
{
    return system->tsc_ratio ? (uint64_t)((unsigned __int128)ticks * system->tsc_ratio >> 32)
                             : ticks;
}

/* Not read ahead of what came before (SDM 2B RDTSC): see translator/system.c. */
static uint64_t running(const struct soft_system *system)
{
    __builtin_ia32_lfence();
    return scaled(system,
                  system->tsc_is_synthetic ? now_ns(CLOCK_MONOTONIC) : __builtin_ia32_rdtsc());
}

uint64_t tsc_host(const struct soft_system *system)
{
    if (__builtin_expect(__atomic_load_n(&system->tsc_is_stopped, __ATOMIC_RELAXED), 0))
        return system->tsc_stopped_at;
    return running(system);
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

static uint64_t measured_khz(long measure_ns)
{
    uint64_t start_ns = now_ns(CLOCK_MONOTONIC_RAW);
    uint64_t start = __builtin_ia32_rdtsc();
    struct timespec pause = {0, measure_ns};
    nanosleep(&pause, NULL);
    uint64_t elapsed_ns = now_ns(CLOCK_MONOTONIC_RAW) - start_ns;
    uint64_t elapsed = __builtin_ia32_rdtsc() - start;
    return (uint64_t)((unsigned __int128)elapsed * 1000000 / elapsed_ns);
}

/* As far as a guest corrects by itself (250 ppm), two numbers are one frequency measured twice. */
static bool is_same(uint64_t khz, uint64_t other_khz)
{
    uint64_t difference = khz > other_khz ? khz - other_khz : other_khz - khz;
    return difference * 4000 <= khz;
}

static uint64_t host_khz(const struct soft_system *system, uint64_t known_khz)
{
    enum { LOOK_NS = 1000000, MEASURE_NS = 20000000 };
    if (system->tsc_is_synthetic)
        return 1000000;
    uint64_t khz = told_khz();
    if (khz)
        return khz;
    /* A short look tells well enough whether it is the host that the number comes from. */
    if (known_khz && is_same(measured_khz(LOOK_NS), known_khz))
        return known_khz;
    return measured_khz(MEASURE_NS);
}

void tsc_open(struct soft_system *system, uint64_t hz)
{
    uint64_t khz = (hz + 500) / 1000;
    system->tsc_is_synthetic = !is_host_invariant();
    system->tsc_khz = host_khz(system, khz);
    if (!khz)
        return;
    if (!is_same(system->tsc_khz, khz))
        system->tsc_ratio = (uint64_t)(((unsigned __int128)khz << 32) / system->tsc_khz);
    system->tsc_khz = khz;
}

/* All processors of a system count alike, though each was set at a moment of its own. */
void tsc_set_state(struct cpu *cpu, uint64_t tsc, uint64_t adjust)
{
    struct soft_system *system = cpu->system;
    uint64_t offset = tsc - tsc_host(system);
    uint64_t near = system->tsc_khz * 1000; /* a second */
    pthread_mutex_lock(&system->shootdown_lock);
    bool is_near = system->has_tsc_offset && !system->tsc_is_stopped &&
                   system->tsc_adjust == adjust && offset - system->tsc_offset + near < 2 * near;
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

/* What the running counter was, or will be, at a moment not far from now. Of some tries the
 * shortest counts, since a thread may lose the processor between the two readings. */
static uint64_t running_at(const struct soft_system *system, uint64_t monotonic_ns)
{
    enum { TRIES = 8 };
    uint64_t best_ns = UINT64_MAX, ticks = 0, ticks_ns = 0;
    for (int i = 0; i < TRIES; i++) {
        uint64_t before_ns = now_ns(CLOCK_MONOTONIC);
        uint64_t value = running(system);
        uint64_t took_ns = now_ns(CLOCK_MONOTONIC) - before_ns;
        if (took_ns >= best_ns)
            continue;
        best_ns = took_ns;
        ticks = value;
        ticks_ns = before_ns + took_ns / 2;
    }
    __int128 away_ns = (int64_t)(monotonic_ns - ticks_ns);
    return ticks + (uint64_t)(away_ns * (__int128)system->tsc_khz / 1000000);
}

void tsc_stop(struct soft_system *system, uint64_t monotonic_ns)
{
    if (system->tsc_is_stopped)
        return;
    system->tsc_stopped_at = running_at(system, monotonic_ns);
    __atomic_store_n(&system->tsc_is_stopped, true, __ATOMIC_RELEASE);
}

/* The paravirtual clock needs nothing: it is read by the counter, which has just not gone on. */
void tsc_start(struct soft_system *system, uint64_t monotonic_ns)
{
    if (!system->tsc_is_stopped)
        return;
    uint64_t passed = running_at(system, monotonic_ns) - system->tsc_stopped_at;
    for (unsigned i = 0; i < system->cpu_count; i++)
        if (system->cpu[i])
            __atomic_store_n(&system->cpu[i]->tsc_offset, system->cpu[i]->tsc_offset - passed,
                             __ATOMIC_RELAXED);
    system->tsc_offset -= passed;
    __atomic_store_n(&system->tsc_is_stopped, false, __ATOMIC_RELEASE);
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
