/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Clocks: none goes back from one processor to another; and for clocks.py, which compares them with
 * the host's, all of them read at one moment.
 */
#include "kernel.h"

static volatile unsigned clock_lock, warps;
static volatile uint64_t last_ns, last_tsc;
static _Alignas(4096) volatile struct pvclock {
    uint32_t version, pad;
    uint64_t tsc, system_ns;
    uint32_t multiplier;
    int8_t shift;
    uint8_t flags, pad2[2];
    uint8_t rest[32];
} clocks[CPUS_MAX];

enum { KVM_SYSTEM_TIME = 0x4b564d01 };

static uint64_t kvm_now(void)
{
    const volatile struct pvclock *clock = &clocks[my_id() % CPUS_MAX];
    uint64_t ns;
    uint32_t version;
    do {
        version = clock->version;
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        uint64_t delta = rdtsc() - clock->tsc;
        delta = clock->shift < 0 ? delta >> -clock->shift : delta << clock->shift;
        ns = clock->system_ns + (uint64_t)((unsigned __int128)delta * clock->multiplier >> 32);
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
    } while ((version & 1) || version != clock->version);
    return ns;
}

static void watch_clocks(void *opaque)
{
    bool has_kvm_clock = *(bool *)opaque;
    if (has_kvm_clock)
        wrmsr(KVM_SYSTEM_TIME, (uint64_t)(uintptr_t)&clocks[my_id() % CPUS_MAX] | 1);
    for (unsigned i = 0; i < 20000; i++) {
        while (__atomic_exchange_n(&clock_lock, 1, __ATOMIC_ACQUIRE))
            relax();
        uint64_t tsc = rdtsc(), ns = has_kvm_clock ? kvm_now() : 0;
        if (tsc < last_tsc || ns < last_ns)
            warps = warps + 1;
        last_tsc = tsc;
        last_ns = ns;
        __atomic_store_n(&clock_lock, 0, __ATOMIC_RELEASE);
    }
    if (has_kvm_clock)
        wrmsr(KVM_SYSTEM_TIME, 0);
}

void test_clock(void)
{
    bool has_kvm_clock = cpuid(0x40000000, 0).ebx == 0x4b4d564b && (cpuid(0x40000001, 0).eax & 8);
    for (unsigned id = 1; id < 255; id++)
        if (id != my_id() && madt_has(id))
            start_on(id, watch_clocks, &has_kvm_clock);
    watch_clocks(&has_kvm_clock);
    wait_for_all();
    check_equal(warps, 0, "no clock goes back from one processor to another");
    if (has_kvm_clock) {
        uint32_t result = 0;
        __asm__ volatile("vmcall" : "=a"(result) : "a"(0x1234) : "memory");
        check_equal(result, (uint32_t)-1000, "an unknown hypercall is answered");
    }
}

/* ---- all at one moment ---- */

enum { COM1 = 0x3f8, COM1_PIN = 4, COM1_VECTOR = 0x60, PM_TIMER = 0x608, RTC = 0x70 };
#define HPET UINT64_C(0xfed00000)

static volatile uint64_t *hpet(unsigned offset)
{
    return (volatile uint64_t *)(uintptr_t)(HPET + offset);
}

struct moment {
    uint64_t tsc, after, kvm_ns, hpet, pm;
};

/* The host may take the processor away in between: of some tries the shortest counts. */
static struct moment now(bool has_kvm_clock)
{
    struct moment best = {0, UINT64_MAX, 0, 0, 0};
    for (unsigned i = 0; i < 50; i++) {
        struct moment m = {.tsc = rdtsc()};
        m.hpet = *hpet(0xf0);
        m.pm = in32(PM_TIMER);
        m.kvm_ns = has_kvm_clock ? kvm_now() : 0;
        m.after = rdtsc();
        if (m.after - m.tsc < best.after - best.tsc)
            best = m;
    }
    return best;
}

static uint8_t rtc(uint8_t number)
{
    out8(RTC, number);
    return in8(RTC + 1);
}

/* Seconds of the day, in BCD: 24 hours, as firmware leaves it. */
static uint64_t rtc_time(void)
{
    while (rtc(0x0a) & 0x80)
        relax();
    return (uint64_t)rtc(4) << 16 | (uint64_t)rtc(2) << 8 | rtc(0);
}

static void on_com1(struct frame *frame)
{
    apic_eoi();
}

static void com1_interrupts(void)
{
    volatile uint32_t *select = (volatile uint32_t *)0xfec00000, *data = select + 4;
    handle(COM1_VECTOR, on_com1);
    *select = 0x11 + 2 * COM1_PIN;
    *data = my_id() << 24;
    *select = 0x10 + 2 * COM1_PIN;
    *data = COM1_VECTOR;
    out8(COM1 + 4, 0x0b); /* OUT2 lets interrupts out */
    out8(COM1 + 1, 1);
}

/* Halted until there is one: the processor costs nothing meanwhile. */
static uint8_t read_byte(void)
{
    for (;;) {
        cli();
        if (in8(COM1 + 5) & 1)
            return in8(COM1);
        __asm__ volatile("sti; hlt" : : : "memory");
    }
}

static void print_field(const char *name, uint64_t value)
{
    print(name);
    print_hex(value);
}

/* A line for each byte that comes, but for 'q', which is the end. */
void test_compare(void)
{
    bool has_kvm_clock = cpuid(0x40000000, 0).ebx == 0x4b4d564b && (cpuid(0x40000001, 0).eax & 8);
    bool tells_hz = cpuid(0x40000000, 0).eax >= 0x40000010;
    if (has_kvm_clock)
        wrmsr(KVM_SYSTEM_TIME, (uint64_t)(uintptr_t)&clocks[my_id() % CPUS_MAX] | 1);
    *hpet(0x10) |= 1;
    com1_interrupts();
    print_field("clocks: tsc_khz=", tells_hz ? cpuid(0x40000010, 0).eax : 0);
    print_field(" hpet_fs=", *hpet(0) >> 32);
    print("\n");
    while (read_byte() != 'q') {
        struct moment m = now(has_kvm_clock);
        print_field("clocks: tsc=", m.tsc);
        print_field(" after=", m.after);
        print_field(" kvm=", m.kvm_ns);
        print_field(" hpet=", m.hpet);
        print_field(" pm=", m.pm);
        print_field(" rtc=", rtc_time());
        print("\n");
    }
    if (has_kvm_clock)
        wrmsr(KVM_SYSTEM_TIME, 0);
    out8(COM1 + 1, 0);
    handle(COM1_VECTOR, NULL);
    check(true, "clocks were read until the end");
}
