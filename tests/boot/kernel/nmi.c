/* SPDX-License-Identifier: BSD-2-Clause
 *
 * NMI and its blocking (SDM 3A 6.7.1), its place behind STI (6.8.3), and INIT and SIPI at any time
 * (11.4.7.3, 9.4).
 */
#include "kernel.h"

static volatile unsigned nmis, nested;
static volatile uint64_t bad_rip;
extern const char after_sti[];

static void self_nmi(void)
{
    apic_send(ICR_NMI, my_id());
}

static void on_nmi(struct frame *frame)
{
    nmis = nmis + 1;
    if (frame->rip == (uint64_t)(uintptr_t)after_sti)
        bad_rip = frame->rip;
}

/* Ten more while the first is served: one is remembered. */
static void on_nmi_that_sends(struct frame *frame)
{
    nmis = nmis + 1;
    if (nmis == 1)
        for (unsigned i = 0; i < 10; i++)
            self_nmi();
    nested = nmis; /* none came in between */
}

/* IRET, even one that goes nowhere else, ends the blocking. */
static void on_nmi_with_iret(struct frame *frame)
{
    nmis = nmis + 1;
    if (nmis != 1)
        return;
    self_nmi();
    nested = nmis;
    __asm__ volatile("mov %%rsp, %%rax\n"
                     "mov %%ss, %%ecx\n"
                     "push %%rcx\n"
                     "push %%rax\n"
                     "pushfq\n"
                     "mov %%cs, %%ecx\n"
                     "push %%rcx\n"
                     "lea 1f(%%rip), %%rcx\n"
                     "push %%rcx\n"
                     "iretq\n"
                     "1:"
                     :
                     :
                     : "rax", "rcx", "memory");
    nested = nested << 8 | nmis; /* the second came right behind the IRET */
}

static volatile unsigned stop, rounds;

static __attribute__((noinline, noclone)) void sti_loop(void *opaque)
{
    while (!stop) {
        __asm__ volatile("cli\n"
                         "sti\n"
                         ".globl after_sti\n"
                         "after_sti:\n"
                         "nop\n"
                         "nop\n"
                         "cli" ::
                             : "memory");
        rounds = nmis;
    }
}

static volatile unsigned ready, go, flushed;

static void on_flush(struct frame *frame)
{
    flushed = 1;
    apic_eoi();
}

/* Sends an NMI to processor 0 at the moment that it sends one to itself. */
static void send_beside(void *opaque)
{
    for (unsigned i = 1; !stop; i++) {
        ready = i;
        while (go != i && !stop)
            relax();
        if (stop)
            return;
        apic_send(ICR_NMI, 0);
        apic_send(ICR_ASSERT | 0x44, 0);
        while (flushed != 2 && !stop)
            relax();
        flushed = 3;
    }
}

static void test_two_senders(void)
{
    unsigned bad = 0;
    handle(2, on_nmi);
    handle(0x44, on_flush);
    stop = ready = go = flushed = 0;
    start_on(1, send_beside, NULL);
    sti();
    for (unsigned i = 1; i <= 2000; i++) {
        nmis = 0;
        flushed = 0;
        while (ready != i)
            relax();
        go = i;
        self_nmi();
        while (flushed != 1)
            relax();
        bad += nmis != 2;
        flushed = 2;
        while (flushed != 3)
            relax();
    }
    stop = 1;
    cli();
    wait_for_all();
    check_equal(bad, 0, "two NMIs of two senders are both delivered");
}

void test_nmi(void)
{
    nmis = 0;
    handle(2, on_nmi);
    self_nmi();
    __asm__ volatile("nop");
    check_equal(nmis, 1, "an NMI comes with interrupts off");
    nmis = 0;
    handle(2, on_nmi_that_sends);
    self_nmi();
    __asm__ volatile("nop; nop");
    check_equal(nmis, 2, "of ten NMIs within an NMI one is remembered");
    nmis = nested = 0;
    handle(2, on_nmi_with_iret);
    self_nmi();
    __asm__ volatile("nop");
    check_equal(nested, 1 << 8 | 2, "IRET within an NMI lets the next one come");
    if (cpu_count < 2)
        return;
    handle(2, on_nmi);
    stop = nmis = 0;
    start_on(1, sti_loop, NULL);
    for (unsigned i = 1; i <= 2000; i++) {
        apic_send(ICR_NMI | ICR_ASSERT, 1);
        if (!wait_until(&rounds, i)) {
            check(false, "NMIs come in a loop of STI");
            break;
        }
    }
    stop = 1;
    wait_for_all();
    check_equal(bad_rip, 0, "no NMI comes right behind STI");
    test_two_senders();
}

/* ---- INIT and SIPI ---- */

static volatile unsigned spinning;

static void spin_with_interrupts_off(void *opaque)
{
    cli();
    spinning = 1;
    for (;;)
        relax();
}

static volatile unsigned answered;

static void answer(void *opaque)
{
    answered = answered + 1;
}

static void check_is_started(unsigned id, unsigned online_before, const char *what)
{
    check(wait_until(&processors_online, online_before + 1), what);
    answered = 0;
    run_on(id, answer, NULL);
    check_equal(answered, 1, "and it takes work");
}

/* One processor, running with interrupts off, halted or waiting, is started anew and anew. */
void test_init(void)
{
    if (cpu_count < 2)
        return;
    unsigned before = processors_online;
    apic_send(ICR_SIPI, 1);
    delay(3000000);
    check_equal(processors_online, before, "a SIPI to one that does not wait for it is lost");
    for (unsigned round = 0; round < 20; round++) {
        spinning = 0;
        start_on(1, spin_with_interrupts_off, NULL);
        if (!wait_until(&spinning, 1))
            check(false, "the processor spins");
        before = processors_online;
        apic_send(ICR_INIT | ICR_ASSERT, 1);
        forget_work(1);
        if (round % 2)
            delay(100000 * round);
        apic_send(ICR_SIPI, 1);
        check_is_started(1, before, "INIT and SIPI start one that runs");
    }
    before = processors_online;
    apic_send(ICR_INIT | ICR_ASSERT, 1);
    apic_send(ICR_INIT | ICR_ASSERT, 1);
    delay(1000000);
    apic_send(ICR_ASSERT | 0xe0, 1); /* for one that waits for a SIPI this is nothing */
    apic_send(ICR_SIPI, 1);
    apic_send(ICR_SIPI, 1); /* the second is lost */
    check_is_started(1, before, "INIT twice and SIPI twice start once");
    check_equal(processors_online, before + 1, "and not twice");
}
