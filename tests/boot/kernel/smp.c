/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The other processors: started by INIT and SIPI broadcast with nothing in between, as test suites
 * do, and then given work by interrupt.
 */
#include "kernel.h"

enum { FW_CFG_PORT = 0x510, FW_CFG_NB_CPUS = 5, WORK_VECTOR = 0xe0 };

unsigned cpu_count;
volatile unsigned processors_online;
static volatile unsigned active;
static struct {
    void (*volatile fn)(void *opaque);
    void *volatile opaque;
    volatile unsigned busy;
} work[256];

void ap_main(void);

uint64_t fw_cfg_number(uint16_t key, unsigned size_bytes)
{
    uint64_t value = 0;
    out16(FW_CFG_PORT, key);
    for (unsigned i = 0; i < size_bytes; i++)
        value |= (uint64_t)in8(FW_CFG_PORT + 1) << 8 * i;
    return value;
}

unsigned my_id(void)
{
    return cpuid(1, 0).ebx >> 24;
}

static void on_work(struct frame *frame)
{
    unsigned id = my_id();
    void (*fn)(void *) = work[id].fn;
    void *opaque = work[id].opaque;
    apic_eoi();
    fn(opaque);
    __atomic_fetch_sub(&active, 1, __ATOMIC_SEQ_CST);
    __atomic_store_n(&work[id].busy, 0, __ATOMIC_RELEASE);
}

void ap_main(void)
{
    load_idt();
    apic_enable();
    __atomic_fetch_add(&processors_online, 1, __ATOMIC_SEQ_CST);
    for (;;)
        __asm__ volatile("sti; hlt");
}

void start_processors(void)
{
    cpu_count = (unsigned)fw_cfg_number(FW_CFG_NB_CPUS, 2);
    check(cpu_count >= 1 && cpu_count <= CPUS_MAX, "fw_cfg tells the number of processors");
    handle(WORK_VECTOR, on_work);
    apic_enable();
    processors_online = 0; /* behind a sleep they start once more */
    if (cpu_count > 1) {
        apic_send(ICR_OTHERS | ICR_INIT | ICR_ASSERT, 0);
        apic_send(ICR_OTHERS | ICR_SIPI, 0);
    }
    check(wait_until(&processors_online, cpu_count - 1), "INIT and SIPI to all others start them");
}

void start_on(unsigned id, void (*fn)(void *opaque), void *opaque)
{
    if (!wait_until(&work[id].busy, 0))
        check(false, "a processor takes work");
    work[id].fn = fn;
    work[id].opaque = opaque;
    work[id].busy = 1;
    __atomic_fetch_add(&active, 1, __ATOMIC_SEQ_CST);
    apic_send(ICR_ASSERT | WORK_VECTOR, id);
}

void run_on(unsigned id, void (*fn)(void *opaque), void *opaque)
{
    start_on(id, fn, opaque);
    if (!wait_until(&work[id].busy, 0))
        check(false, "a processor ends its work");
}

void wait_for_all(void)
{
    check(wait_until(&active, 0), "all processors end their work");
}

/* ---- cases ---- */

static volatile unsigned ids_seen[256], id_mistakes, counter, spin, plain;

static void tell_id(void *opaque)
{
    unsigned id = cpuid(1, 0).ebx >> 24;
    __atomic_fetch_add(&ids_seen[id], 1, __ATOMIC_SEQ_CST);
    if (id != *(unsigned *)opaque || cpuid(0xb, 0).edx != id || apic_read(APIC_ID) >> 24 != id)
        __atomic_fetch_add(&id_mistakes, 1, __ATOMIC_SEQ_CST);
}

static void count_up(void *opaque)
{
    for (unsigned i = 0; i < 2000; i++) {
        __atomic_fetch_add(&counter, 1, __ATOMIC_SEQ_CST);
        while (__atomic_exchange_n(&spin, 1, __ATOMIC_ACQUIRE))
            relax();
        plain = plain + 1;
        __atomic_store_n(&spin, 0, __ATOMIC_RELEASE);
    }
}

/* Ids may have holes where the topology is not of powers of two: the MADT tells. */
void test_ids(void)
{
    unsigned seen = 0;
    for (unsigned id = 1; id < 255 && seen < cpu_count - 1; id++) {
        if (!madt_has(id))
            continue;
        ids_seen[id] = 0;
        run_on(id, tell_id, &id);
        seen += ids_seen[id];
    }
    check_equal(seen, cpu_count - 1, "each processor of the MADT answers an interrupt");
    check_equal(id_mistakes, 0, "CPUID leaves 1 and 0xb and the APIC tell the same id");
}

void test_smp(void)
{
    unsigned started = 0;
    for (unsigned id = 1; id < 255; id++)
        if (madt_has(id)) {
            start_on(id, count_up, NULL);
            started++;
        }
    count_up(NULL);
    wait_for_all();
    check_equal(started, cpu_count - 1, "the MADT has all processors");
    check_equal(counter, (started + 1) * 2000, "locked additions are all counted");
    check_equal(plain, (started + 1) * 2000, "a spin lock keeps others out");
}

/* ---- MONITOR and MWAIT ---- */

static _Alignas(64) volatile unsigned line[16]; /* nothing else is in it */
static volatile unsigned lines_seen;

/* SDM 3A 8.10.4. */
static void wait_for_line(unsigned wanted)
{
    while (line[0] != wanted) {
        __asm__ volatile("monitor" : : "a"(line), "c"(0), "d"(0) : "memory");
        if (line[0] != wanted)
            __asm__ volatile("mwait" : : "a"(0), "c"(0) : "memory");
    }
}

/* Interrupts are off: a store alone ends the wait. */
static void follow_line(void *opaque)
{
    for (unsigned n = 1; n <= 20; n++) {
        wait_for_line(n);
        lines_seen = n;
    }
}

static void on_mwait_nmi(struct frame *frame) {}

static void wait_for_nmi(void *opaque)
{
    __asm__ volatile("monitor" : : "a"(line), "c"(0), "d"(0) : "memory");
    lines_seen = 21;
    __asm__ volatile("mwait" : : "a"(0), "c"(0) : "memory");
    lines_seen = 22;
}

void test_mwait(void)
{
    enum { ECX_MONITOR = 1 << 3, TICKS = 5000000 };
    unsigned id = 1;
    while (id < 255 && !madt_has(id))
        id++;
    if (id == 255 || !(cpuid(1, 0).ecx & ECX_MONITOR))
        return;
    start_on(id, follow_line, NULL);
    bool is_followed = true;
    for (unsigned n = 1; n <= 20; n++) {
        delay(TICKS); /* it is in MWAIT by now, most likely */
        line[0] = n;
        is_followed &= wait_until(&lines_seen, n);
    }
    check(is_followed, "a store ends another processor's MWAIT");
    wait_for_all();
    handle(2, on_mwait_nmi);
    start_on(id, wait_for_nmi, NULL);
    bool has_begun = wait_until(&lines_seen, 21);
    delay(TICKS);
    check(has_begun && lines_seen == 21, "MWAIT waits with interrupts off");
    for (unsigned n = 0; n < 1000 && lines_seen != 22; n++) { /* one may come before MWAIT */
        apic_send(ICR_NMI | ICR_ASSERT, id);
        delay(TICKS);
    }
    check_equal(lines_seen, 22, "an NMI ends MWAIT");
    wait_for_all();
}

/* The processor was reset in the middle of its work. */
void forget_work(unsigned id)
{
    __atomic_fetch_sub(&active, 1, __ATOMIC_SEQ_CST);
    work[id].busy = 0;
}
