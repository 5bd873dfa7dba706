/* SPDX-License-Identifier: BSD-2-Clause
 *
 * For crossing.py, which saves the machine whenever READY is printed and goes on with it on another
 * engine: interrupt controllers and timers in the middle of something. What is typed then says
 * where it is now: 's' where all has to be as on a PC, 'k' on a KVM that imitates guests in
 * software: there an interrupt has ended when it begins, and RDTSC gives the host's counter, so
 * that no case begins there that remembers what it read.
 */
#include "kernel.h"

enum { COM1 = 0x3f8, PIC = 0x20, PIT = 0x40, PORT_B = 0x61, TEST_GSI = 0x2000 };
enum { TIMER = 0xb1, LEVEL = 0xa1, SELF = 0x91, PIT_TICK = 0x81, PIC_BASE = 0x50 };
enum { LEVEL_GSI = 21, PIC_IRQ = 5, PIC_LATER = 7, PIT_PIN = 2 };
enum { KVM_SYSTEM_TIME = 0x4b564d01 };
#define IOAPIC UINT64_C(0xfec00000)
#define SECOND tsc_hz

static volatile unsigned timers, levels, selves, ticks, pics;
static uint64_t tsc_hz;
static bool is_exact;
static _Alignas(64) volatile struct {
    uint32_t version, pad;
    uint64_t tsc, system_ns;
    uint32_t multiplier;
    int8_t shift;
    uint8_t flags, pad2[2];
} kvm_clock;

static uint32_t ioapic_read(unsigned number)
{
    *(volatile uint32_t *)(uintptr_t)IOAPIC = number;
    return *(volatile uint32_t *)(uintptr_t)(IOAPIC + 0x10);
}

static void ioapic_write(unsigned number, uint32_t value)
{
    *(volatile uint32_t *)(uintptr_t)IOAPIC = number;
    *(volatile uint32_t *)(uintptr_t)(IOAPIC + 0x10) = value;
}

static void on_timer(struct frame *frame)
{
    timers++;
    apic_eoi();
}

static void on_level(struct frame *frame)
{
    if (levels++)
        out8(TEST_GSI + LEVEL_GSI, 0);
    apic_eoi();
}

static void on_self(struct frame *frame)
{
    selves++;
    apic_eoi();
}

static void on_tick(struct frame *frame)
{
    ticks++;
    apic_eoi();
}

/* It stays in service. */
static void on_pic(struct frame *frame)
{
    pics++;
}

static void cross(void)
{
    print("READY\n");
    while (!(in8(COM1 + 5) & 1))
        relax();
    is_exact = in8(COM1) == 's';
}

static void wait_for(volatile unsigned *value, unsigned wanted, uint64_t limit)
{
    uint64_t start = rdtsc();
    sti();
    while (*value < wanted && rdtsc() - start < limit)
        relax();
    cli();
}

static bool bit_of(unsigned offset, unsigned vector)
{
    return apic_read(offset + vector / 32 * 16) >> vector % 32 & 1;
}

/* As the hypervisor tells, or by counter 2 of the 8254, a twentieth of a second: a busy host makes
 * it longer, never shorter. */
static void measure_tsc(void)
{
    if (cpuid(0x40000000, 0).eax >= 0x40000010)
        tsc_hz = (uint64_t)cpuid(0x40000010, 0).eax * 1000;
    if (tsc_hz)
        return;
    for (unsigned i = 0; i < 5; i++) {
        out8(PORT_B, 0);
        out8(PIT + 3, 0xb0);
        out8(PIT + 2, 59659 & 0xff);
        out8(PIT + 2, 59659 >> 8);
        out8(PORT_B, 1);
        uint64_t start = rdtsc();
        while (!(in8(PORT_B) & 0x20))
            relax();
        uint64_t hz = (rdtsc() - start) * 20;
        if (!tsc_hz || hz < tsc_hz)
            tsc_hz = hz;
    }
    out8(PORT_B, 0);
}

/* ---- periodic timer, requests in the IRR, a level with remote IRR, the 8259, the 8254 ---- */

static void start_pic(void)
{
    handle(PIC_BASE + PIC_IRQ, on_pic);
    out8(PIC, 0x11);
    out8(PIC + 1, PIC_BASE);
    out8(PIC + 1, 4);
    out8(PIC + 1, 1);
    out8(PIC + 1, (uint8_t) ~(1 << PIC_IRQ | 1 << PIC_LATER));
    apic_write(APIC_LVT_LINT0, 0x700);
    out8(TEST_GSI + PIC_IRQ, 1);
    wait_for(&pics, 1, 5 * SECOND);
    check_equal(pics, 1, "an interrupt of the 8259 is in service");
    out8(TEST_GSI + PIC_LATER, 1);
}

static uint8_t read_pic(uint8_t what)
{
    out8(PIC, what);
    return in8(PIC);
}

static void check_pic(void)
{
    check_equal(in8(PIC + 1), (uint8_t) ~(1 << PIC_IRQ | 1 << PIC_LATER), "the 8259's mask");
    check_equal(read_pic(0x0b), 1 << PIC_IRQ, "its interrupt in service");
    check_equal(read_pic(0x0a) & 1 << PIC_LATER, 1 << PIC_LATER, "and one that waits behind it");
    handle(PIC_BASE + PIC_LATER, on_pic);
    out8(PIC, 0x20);
    wait_for(&pics, 2, 5 * SECOND);
    check_equal(pics, 2, "which comes after the end of the first");
    check_equal(read_pic(0x0b), 1 << PIC_LATER, "and is in service then");
    out8(PIC, 0x20);
    out8(TEST_GSI + PIC_IRQ, 0);
    out8(TEST_GSI + PIC_LATER, 0);
    out8(PIC + 1, 0xff);
    apic_write(APIC_LVT_LINT0, 1 << 16);
}

static void start_level(void)
{
    handle(LEVEL, on_level);
    ioapic_write(0x11 + 2 * LEVEL_GSI, my_id() << 24);
    ioapic_write(0x10 + 2 * LEVEL_GSI, 1 << 15 | LEVEL);
    out8(TEST_GSI + LEVEL_GSI, 1);
    check(ioapic_read(0x10 + 2 * LEVEL_GSI) & 1 << 14, "a level has set remote IRR");
}

static void check_level(void)
{
    wait_for(&levels, is_exact ? 2 : 1, 5 * SECOND);
    if (is_exact) {
        check_equal(levels, 2, "it is served, and again while the line is up");
        check(!(ioapic_read(0x10 + 2 * LEVEL_GSI) & 1 << 14), "then remote IRR is clear");
        out8(TEST_GSI + LEVEL_GSI, 1);
        wait_for(&levels, 3, 5 * SECOND);
        check_equal(levels, 3, "and the line can be raised anew");
    } else {
        check(levels >= 1, "it is served");
    }
    out8(TEST_GSI + LEVEL_GSI, 0);
    ioapic_write(0x10 + 2 * LEVEL_GSI, 1 << 16);
}

static void start_pit(void)
{
    handle(PIT_TICK, on_tick);
    ioapic_write(0x11 + 2 * PIT_PIN, my_id() << 24);
    ioapic_write(0x10 + 2 * PIT_PIN, PIT_TICK);
    out8(PIT + 3, 0x34);
    out8(PIT, 11932 & 0xff); /* 100 Hz */
    out8(PIT, 11932 >> 8);
    wait_for(&ticks, 1, 5 * SECOND);
}

static void check_pit(void)
{
    unsigned before = ticks;
    wait_for(&ticks, before + 20, 20 * SECOND);
    check(ticks >= before + 20, "the 8254 goes on with its periods");
    out8(PIT + 3, 0xe2); /* status of counter 0 */
    check_equal(in8(PIT) & 0x3f, 0x34, "in its mode");
    ioapic_write(0x10 + 2 * PIT_PIN, 1 << 16);
}

static void first_crossing(void)
{
    start_pit();
    start_pic();
    start_level();
    handle(SELF, on_self);
    handle(TIMER, on_timer);
    apic_send(ICR_SELF | SELF, 0);
    apic_write(APIC_LDR, 0x40000000);
    apic_write(APIC_DIVIDE, 0xb);
    apic_write(APIC_LVT_TIMER, 1 << 17 | TIMER);
    apic_write(APIC_INITIAL, 100000000); /* a tenth of a second */
    write_cr8(2);
    selves = 0;
    cross();
    check_equal(read_cr8(), 2, "CR8");
    check_equal(apic_read(APIC_SVR), 0x1ff, "the spurious vector register");
    check_equal(apic_read(APIC_LDR), 0x40000000, "the logical destination");
    check_equal(apic_read(APIC_LVT_TIMER) & 0x600ff, 1 << 17 | TIMER, "the timer's LVT entry");
    check_equal(apic_read(APIC_INITIAL), 100000000, "its initial count");
    check(apic_read(APIC_CURRENT) <= 100000000, "its current count");
    check(bit_of(APIC_IRR, SELF), "a request that waits in the IRR");
    check_equal(ioapic_read(0x10 + 2 * LEVEL_GSI) & 0x1ffff, 1 << 15 | 1 << 14 | LEVEL,
                "an entry of the I/O APIC, with remote IRR");
    check(bit_of(APIC_IRR, LEVEL) && bit_of(APIC_TMR, LEVEL), "its request, of level trigger");
    wait_for(&selves, 1, 5 * SECOND);
    check_equal(selves, 1, "is delivered");
    check_pic();
    check_level();
    unsigned before = timers;
    wait_for(&timers, before + 5, 20 * SECOND);
    check(timers >= before + 5, "the local APIC's timer goes on with its periods");
    check_pit();
    apic_write(APIC_INITIAL, 0);
    write_cr8(0);
    sti(); /* what waits of it comes now */
    cli();
}

/* ---- deadline, one-shot, x2APIC, a halted processor, clocks ---- */

static void deadline_crossing(void)
{
    if (!is_exact || !(cpuid(1, 0).ecx & 1 << 24))
        return;
    apic_x2();
    timers = 0;
    apic_write(APIC_LVT_TIMER, 2 << 17 | TIMER);
    uint64_t deadline = rdtsc() + 2 * SECOND;
    wrmsr(MSR_TSC_DEADLINE, deadline);
    cross();
    check(is_x2apic(), "the mode of the APIC");
    uint64_t armed = rdmsr(MSR_TSC_DEADLINE);
    check(armed == deadline || (!armed && rdtsc() >= deadline), "the deadline");
    wait_for(&timers, 1, 20 * SECOND);
    check(timers == 1 && (rdtsc() >= deadline || !is_exact), "it comes, and not before");
    apic_reset();
}

static void one_shot_crossing(void)
{
    timers = 0;
    apic_write(APIC_DIVIDE, 0xb);
    apic_write(APIC_LVT_TIMER, TIMER);
    apic_write(APIC_INITIAL, 2000000000); /* two seconds */
    uint64_t start = rdtsc();
    bool is_clock = is_exact;
    cross();
    uint32_t left = apic_read(APIC_CURRENT);
    check(left < 2000000000, "the count has gone on");
    wait_for(&timers, 1, 20 * SECOND);
    uint64_t took = rdtsc() - start;
    check_equal(timers, 1, "the one-shot comes");
    uint64_t took_ms = took / (SECOND / 1000);
    /* The frequency of the TSC was measured, perhaps on a busy host. */
    if (is_clock && is_exact)
        check_equal(took_ms < 1500 ? took_ms : 2000, 2000, "and not before two seconds");
    delay(SECOND / 5);
    sti();
    cli();
    check_equal(timers, 1, "once");
}

/* READY, then HLT: it is saved halted, or a moment before; the timer wakes it elsewhere. */
static void halted_crossing(void)
{
    timers = 0;
    apic_write(APIC_LVT_TIMER, TIMER);
    apic_write(APIC_INITIAL, 3000000000); /* three seconds */
    print("READY\n");
    for (cli(); !timers; cli())
        __asm__ volatile("sti; hlt" : : : "memory");
    check_equal(timers, 1, "a halted processor wakes");
    while (!(in8(COM1 + 5) & 1))
        relax();
    is_exact = in8(COM1) == 's';
}

static uint64_t kvm_ns(void)
{
    uint64_t delta = rdtsc() - kvm_clock.tsc;
    delta = kvm_clock.shift < 0 ? delta >> -kvm_clock.shift : delta << kvm_clock.shift;
    return kvm_clock.system_ns + (uint64_t)((unsigned __int128)delta * kvm_clock.multiplier >> 32);
}

static void clock_crossing(void)
{
    if (!is_exact || cpuid(0x40000000, 0).ebx != 0x4b4d564b || !(cpuid(0x40000001, 0).eax & 8))
        return;
    wrmsr(KVM_SYSTEM_TIME, (uint64_t)(uintptr_t)&kvm_clock | 1);
    uint64_t tsc = rdtsc(), ns = kvm_ns();
    cross();
    uint64_t passed = rdtsc() - tsc, passed_ns = kvm_ns() - ns;
    check(passed < 60 * SECOND && passed_ns < UINT64_C(60000000000), "clocks go on from before");
    uint64_t expected_ns = passed / (tsc_hz / 1000000) * 1000;
    uint64_t off_ns = passed_ns > expected_ns ? passed_ns - expected_ns : expected_ns - passed_ns;
    /* The TSC of this clock was measured by a busy host. */
    if (is_exact)
        check(off_ns < expected_ns / 10 + 20000000, "KVM's clock and the TSC have gone on alike");
    wrmsr(KVM_SYSTEM_TIME, 0);
}

void test_crossing(void)
{
    measure_tsc();
    first_crossing();
    deadline_crossing();
    one_shot_crossing();
    halted_crossing();
    clock_crossing();
}
