/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The local APIC as SDM 3A chapter 11 has it: modes, ids, destinations, priorities, errors, timers.
 */
#include "kernel.h"

enum { VECTOR = 0xf1, LOW_VECTOR = 0x41, HIGH_VECTOR = 0x71, TIMER_VECTOR = 0xee, ERROR = 0xfd };

bool is_x2apic(void)
{
    return rdmsr(MSR_APIC_BASE) & BASE_X2APIC;
}

static volatile uint32_t *page(unsigned offset)
{
    return (volatile uint32_t *)(uintptr_t)(APIC_PAGE + offset);
}

uint32_t apic_read(unsigned offset)
{
    return is_x2apic() ? (uint32_t)rdmsr(MSR_X2APIC + offset / 16) : *page(offset);
}

void apic_write(unsigned offset, uint32_t value)
{
    if (is_x2apic())
        wrmsr(MSR_X2APIC + offset / 16, value);
    else
        *page(offset) = value;
}

void apic_send(uint32_t icr, uint32_t destination)
{
    if (is_x2apic()) {
        wrmsr(MSR_X2APIC + APIC_ICR / 16, (uint64_t)destination << 32 | icr);
        return;
    }
    *page(APIC_ICR_HIGH) = destination << 24;
    *page(APIC_ICR) = icr;
}

void apic_eoi(void)
{
    apic_write(APIC_EOI, 0);
}

void apic_reset(void)
{
    uint64_t base = rdmsr(MSR_APIC_BASE) & ~(uint64_t)(BASE_ENABLED | BASE_X2APIC);
    wrmsr(MSR_APIC_BASE, base);
    wrmsr(MSR_APIC_BASE, base | BASE_ENABLED);
    apic_enable();
}

void apic_x2(void)
{
    wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | BASE_ENABLED | BASE_X2APIC);
    apic_enable();
}

void apic_enable(void)
{
    apic_write(APIC_SVR, 0x1ff);
}

/* ---- modes and ids ---- */

static bool base_ok(uint64_t value)
{
    return wrmsr_ok(MSR_APIC_BASE, value);
}

static bool has_apic(void)
{
    return cpuid(1, 0).edx >> 9 & 1;
}

static void check_page_is_dead(const char *what)
{
    uint64_t cr8 = read_cr8();
    for (unsigned i = 0; i < 4096; i++)
        ((volatile uint8_t *)(uintptr_t)APIC_PAGE)[i] = 0xff;
    bool ok = *page(APIC_VERSION) == 0xffffffff && read_cr8() == cr8;
    write_cr8(cr8 ^ 0xf);
    ok &= read_cr8() == (cr8 ^ 0xf) && *page(APIC_TPR) == 0xffffffff;
    write_cr8(cr8);
    check(ok, what);
}

/* 11.4.3, 11.12.5. */
static void test_modes(void)
{
    uint64_t base = rdmsr(MSR_APIC_BASE) & ~(uint64_t)(BASE_ENABLED | BASE_X2APIC);
    uint64_t value;
    uint32_t version = apic_read(APIC_VERSION);
    check((version & 0xff) >= 0x10 && (version & 0xff) <= 0x15, "the APIC has a version");
    check(base_ok(base), "the APIC goes off");
    check(!has_apic(), "CPUID has no APIC while it is off");
    check_page_is_dead("registers of an APIC that is off are not there, CR8 is");
    check(!base_ok(base | BASE_X2APIC), "off to the invalid mode: #GP");
    check(!base_ok(base | BASE_ENABLED | BASE_X2APIC), "off to x2APIC: #GP");
    check(base_ok(base | BASE_ENABLED), "off to xAPIC");
    check(has_apic(), "CPUID has the APIC again");
    check_equal(*page(APIC_VERSION), version, "its registers are there again");
    check_equal(*page(APIC_SVR), 0xff, "and as after reset");
    check(!rdmsr_ok(MSR_X2APIC + 2, &value), "x2APIC's MSRs in xAPIC mode: #GP");
    check(!base_ok(base | BASE_X2APIC), "xAPIC to the invalid mode: #GP");
    write_cr8(5);
    check_equal(*page(APIC_TPR), 0x50, "CR8 is the TPR's upper half");
    write_cr8(0);
    apic_x2();
    check_page_is_dead("registers of an x2APIC are not in memory");
    check(!base_ok(base | BASE_X2APIC), "x2APIC to the invalid mode: #GP");
    check(!base_ok(base | BASE_ENABLED), "x2APIC to xAPIC: #GP");
    check(!base_ok(rdmsr(MSR_APIC_BASE) | 1), "reserved low bits: #GP");
    unsigned width = cpuid(0x80000008, 0).eax & 0xff;
    check(!base_ok(rdmsr(MSR_APIC_BASE) | UINT64_C(1) << width), "bits above MAXPHYADDR: #GP");
    apic_reset();
    const uint64_t elsewhere = 0xfed40000;
    wrmsr(MSR_APIC_BASE, elsewhere | (base & 0x100) | BASE_ENABLED);
    check_equal(*(volatile uint32_t *)(uintptr_t)(elsewhere + APIC_VERSION), version,
                "the registers move to where the MSR says");
    check_equal(*page(APIC_VERSION), 0xffffffff, "and are not where they were");
    wrmsr(MSR_APIC_BASE, base | BASE_ENABLED);
    apic_enable();
}

/* 11.12.1.2, 11.12.1.3: each register of x2APIC by its rights. */
static void test_x2_registers(void)
{
    static const struct {
        uint8_t number;
        bool is_read, is_written; /* written with 0 */
    } rights[] = {
        {0x02, true, false},  {0x03, true, false},  {0x08, true, true},   {0x09, false, false},
        {0x0a, true, false},  {0x0b, false, true},  {0x0c, false, false}, {0x0d, true, false},
        {0x0e, false, false}, {0x10, true, false},  {0x17, true, false},  {0x18, true, false},
        {0x20, true, false},  {0x28, true, true},   {0x31, false, false}, {0x39, true, false},
        {0x3e, true, true},   {0x3f, false, false}, {0x40, false, false}, {0x38, true, true},
    };
    uint64_t value;
    apic_x2();
    for (unsigned i = 0; i < sizeof(rights) / sizeof(rights[0]); i++) {
        uint32_t msr = MSR_X2APIC + rights[i].number;
        bool ok = rdmsr_ok(msr, &value) == rights[i].is_read;
        if (rights[i].number != 0x3f)
            ok &= wrmsr_ok(msr, 0) == rights[i].is_written;
        check_equal(ok ? 0 : rights[i].number, 0, "an x2APIC register has its rights");
    }
    check(!wrmsr_ok(MSR_X2APIC + APIC_EOI / 16, 1), "EOI with another value than 0: #GP");
    check(!wrmsr_ok(MSR_X2APIC + APIC_ESR / 16, 1), "ESR with another value than 0: #GP");
    check(!wrmsr_ok(MSR_X2APIC + APIC_TPR / 16, 0x100), "TPR above 8 bits: #GP");
    check(!wrmsr_ok(MSR_X2APIC + APIC_ICR / 16, 1 << 20), "a reserved bit of the ICR: #GP");
    check(!wrmsr_ok(MSR_X2APIC + APIC_SVR / 16, 1 << 10), "a reserved bit of the SVR: #GP");
    check(!wrmsr_ok(MSR_X2APIC + 0x3f, 0x100), "SELF IPI above 8 bits: #GP");
    uint64_t id = rdmsr(MSR_X2APIC + 2);
    check_equal(id, cpuid(0xb, 0).edx, "the x2APIC id is CPUID's");
    check_equal(rdmsr(MSR_X2APIC + 0xd), (id >> 4) << 16 | 1u << (id & 15),
                "the logical x2APIC id follows from it");
    apic_reset();
}

static void write_id(void *opaque)
{
    uint32_t id = apic_read(APIC_ID) >> 24;
    check_equal(id, my_id(), "the xAPIC id is CPUID's");
    apic_write(APIC_ID, (id + 1) << 24);
    uint32_t now = apic_read(APIC_ID) >> 24;
    check(now == id || now == id + 1, "the xAPIC id is written or is not");
    apic_x2();
    check_equal(apic_read(APIC_ID), cpuid(0xb, 0).edx, "x2APIC has the id that it was born with");
    apic_reset();
    check_equal(apic_read(APIC_ID) >> 24, my_id(), "and so has the xAPIC after a reset");
}

/* ---- interrupts ---- */

static volatile unsigned hits;

static void on_hit(struct frame *frame)
{
    __atomic_fetch_add(&hits, 1, __ATOMIC_SEQ_CST);
    apic_eoi();
}

static void send_and_count(uint32_t icr, uint32_t destination, unsigned wanted, const char *what)
{
    hits = 0;
    handle(VECTOR, on_hit);
    sti();
    apic_send(icr | ICR_ASSERT | VECTOR, destination);
    wait_until(&hits, wanted);
    delay(3000000); /* for one too many */
    cli();
    check_equal(hits, wanted, what);
}

static void to_x2(void *opaque)
{
    apic_x2();
}
static void to_xapic(void *opaque)
{
    apic_reset();
}
static void set_logical(void *opaque)
{
    bool is_cluster = *(bool *)opaque;
    unsigned id = my_id();
    apic_write(APIC_DFR, is_cluster ? 0x0fffffff : 0xffffffff);
    apic_write(APIC_LDR, (is_cluster ? (id / 4) << 4 | 1u << id % 4 : 1u << id % 8) << 24);
}

static void on_all(void (*fn)(void *), void *opaque)
{
    for (unsigned id = 1; id < cpu_count; id++)
        run_on(id, fn, opaque);
    fn(opaque);
}

static void test_destinations(void)
{
    bool is_cluster = false;
    send_and_count(ICR_SELF, 0, 1, "xAPIC: to self");
    send_and_count(0, 0xff, cpu_count, "xAPIC: physical broadcast");
    send_and_count(ICR_ALL, 0, cpu_count, "xAPIC: all");
    send_and_count(ICR_OTHERS, 0, cpu_count - 1, "xAPIC: all but self");
    on_all(set_logical, &is_cluster);
    unsigned first = cpu_count < 8 ? cpu_count : 8;
    send_and_count(ICR_LOGICAL, 1, (cpu_count + 7) / 8, "xAPIC: flat, one bit");
    send_and_count(ICR_LOGICAL, (1u << first) - 1, cpu_count, "xAPIC: flat, all bits in use");
    send_and_count(ICR_LOGICAL | ICR_LOWEST, (1u << first) - 1, 1, "xAPIC: lowest priority");
    is_cluster = true;
    on_all(set_logical, &is_cluster);
    unsigned in_first = cpu_count < 4 ? cpu_count : 4;
    send_and_count(ICR_LOGICAL, 0x0f, in_first, "xAPIC: a cluster");
    send_and_count(ICR_LOGICAL, 0x01, 1, "xAPIC: one of a cluster");
    send_and_count(ICR_LOGICAL, 0xff, cpu_count, "xAPIC: all clusters");
    on_all(to_x2, NULL);
    in_first = cpu_count < 16 ? cpu_count : 16;
    send_and_count(ICR_SELF, 0, 1, "x2APIC: to self");
    send_and_count(0, 0xffffffff, cpu_count, "x2APIC: physical broadcast");
    send_and_count(ICR_ALL, 0, cpu_count, "x2APIC: all");
    send_and_count(ICR_OTHERS, 0, cpu_count - 1, "x2APIC: all but self");
    send_and_count(ICR_LOGICAL, 0xffff, in_first, "x2APIC: the first cluster");
    send_and_count(ICR_LOGICAL, 1u << (cpu_count - 1) % 16 | ((cpu_count - 1) / 16) << 16, 1,
                   "x2APIC: the last processor by its logical id");
    send_and_count(ICR_LOGICAL | ICR_LOWEST, 0xffff, 1, "x2APIC: lowest priority");
    hits = 0;
    sti();
    wrmsr(MSR_X2APIC + 0x3f, VECTOR);
    wait_until(&hits, 1);
    cli();
    check_equal(hits, 1, "x2APIC: SELF IPI");
    on_all(to_xapic, NULL);
}

static volatile unsigned order[4], order_count;

static void on_order(struct frame *frame)
{
    order[order_count++ & 3] = (unsigned)frame->vector;
    apic_eoi();
}

/* 11.8.3, 11.8.4: classes, TPR, nesting by class, one pending behind the one in service. */
static void test_priorities(void)
{
    handle(LOW_VECTOR, on_order);
    handle(HIGH_VECTOR, on_order);
    order_count = 0;
    apic_send(ICR_SELF | LOW_VECTOR, 0);
    apic_send(ICR_SELF | HIGH_VECTOR, 0);
    check_equal(apic_read(APIC_IRR + LOW_VECTOR / 32 * 16) >> LOW_VECTOR % 32 & 1, 1,
                "a request is in the IRR");
    sti();
    cli();
    check(order_count == 2 && order[0] == HIGH_VECTOR && order[1] == LOW_VECTOR,
          "the higher class goes first");
    order_count = 0;
    apic_write(APIC_TPR, 0x50);
    check_equal(apic_read(APIC_PPR), 0x50, "PPR follows the TPR");
    apic_send(ICR_SELF | LOW_VECTOR, 0);
    apic_send(ICR_SELF | HIGH_VECTOR, 0);
    sti();
    cli();
    check(order_count == 1 && order[0] == HIGH_VECTOR, "the TPR holds the lower class off");
    sti();
    write_cr8(0);
    __asm__ volatile("nop");
    cli();
    check_equal(order_count, 2, "and lets it go when it falls");
}

/* 11.5.3. */
static void test_errors(void)
{
    handle(ERROR, on_hit);
    hits = 0;
    apic_write(APIC_LVT_ERROR, ERROR);
    apic_write(APIC_ESR, 0);
    apic_send(ICR_ASSERT | 5, my_id());
    apic_write(APIC_ESR, 0);
    check_equal(apic_read(APIC_ESR), 0x20, "sending an illegal vector is in the ESR");
    sti();
    cli();
    check_equal(hits, 1, "and comes as an interrupt");
    (void)*page(0x3f0);
    apic_write(APIC_ESR, 0);
    check_equal(apic_read(APIC_ESR), 0x80, "an illegal register is in the ESR");
    apic_write(APIC_ESR, 0);
    check_equal(apic_read(APIC_ESR), 0, "the ESR is cleared by the next write");
    sti();
    cli();
    apic_write(APIC_LVT_ERROR, 1 << 16);
    apic_write(APIC_SVR, 0xff);
    apic_write(APIC_LVT_ERROR, ERROR);
    check_equal(apic_read(APIC_LVT_ERROR), 1 << 16 | ERROR,
                "the LVT is masked while the APIC is disabled by software");
    apic_enable();
    apic_write(APIC_LVT_ERROR, 1 << 16);
}

void test_apic(void)
{
    test_modes();
    test_x2_registers();
    if (cpu_count > 1)
        run_on(1, write_id, NULL);
    test_destinations();
    test_priorities();
    test_errors();
}

/* ---- timers: 11.5.4 ---- */

static void start_timer(uint32_t mode, uint32_t divide, uint32_t initial)
{
    hits = 0;
    handle(TIMER_VECTOR, on_hit);
    apic_write(APIC_LVT_TIMER, mode | TIMER_VECTOR);
    apic_write(APIC_DIVIDE, divide);
    apic_write(APIC_INITIAL, initial);
}

enum {
    COUNT = 100000000
}; /* a tenth of a second: a host that is busy may not let us look in time */

/* A count that is past its half becomes periodic; false: it was over before we looked. */
static bool become_periodic(void)
{
    start_timer(0, 0xb, COUNT);
    while (apic_read(APIC_CURRENT) > COUNT / 2)
        relax();
    apic_write(APIC_LVT_TIMER, 1 << 17 | TIMER_VECTOR);
    uint32_t now = apic_read(APIC_CURRENT);
    return now > 0 && now <= COUNT / 2;
}

static void test_counting(void)
{
    start_timer(0, 0xb, COUNT);
    check(apic_read(APIC_CURRENT) > 0, "one-shot: it counts");
    bool goes_on = false;
    for (unsigned i = 0; i < 50 && !goes_on; i++)
        goes_on = become_periodic();
    check(goes_on, "periodic: the count goes on from where it was");
    uint64_t limit = rdtsc() + UINT64_C(60000000000);
    uint32_t now, last = COUNT;
    while ((now = apic_read(APIC_CURRENT)) <= last && rdtsc() < limit)
        last = now;
    check(now > last, "periodic: it starts again at the initial count");
    apic_write(APIC_LVT_TIMER, TIMER_VECTOR);
    while (apic_read(APIC_CURRENT) && rdtsc() < limit)
        relax();
    check_equal(apic_read(APIC_CURRENT), 0, "one-shot again: it ends at 0");
    check_equal(apic_read(APIC_INITIAL), COUNT, "one-shot: the initial count stays");
    apic_write(APIC_LVT_TIMER, 1 << 17 | TIMER_VECTOR);
    check_equal(apic_read(APIC_CURRENT), 0, "periodic after the end: it stays at 0");
    apic_write(APIC_LVT_TIMER, 1 << 16 | TIMER_VECTOR);
    sti();
    cli();
}

/* What the timer counted, and how long it did: at least and at most, in ticks of the TSC. */
struct measure {
    uint64_t counts, least, most;
};

static struct measure measure(unsigned divide, uint8_t code)
{
    enum { TICKS = 3000000 };
    start_timer(1 << 16, code, 0); /* sets mode and divisor */
    uint64_t before = rdtsc();
    apic_write(APIC_INITIAL, 0xffffffff);
    uint64_t started = rdtsc();
    delay(TICKS);
    uint64_t ending = rdtsc();
    uint32_t current = apic_read(APIC_CURRENT);
    uint64_t after = rdtsc();
    return (struct measure){(uint64_t)(0xffffffff - current) * divide, ending - started,
                            after - before};
}

/* a / b <= c / d, give or take a fiftieth. */
static bool is_at_most(uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    return (unsigned __int128)a * d * 50 <= (unsigned __int128)c * b * 51;
}

/* The rate of count times divisor is the same for each. A host that is busy only makes the bounds
 * wider. */
static void test_divisors(void)
{
    static const uint8_t codes[8] = {0xb, 0, 1, 2, 3, 8, 9, 0xa}; /* 1, 2, 4 … 128 */
    struct measure by_1 = measure(1, codes[0]);
    for (unsigned i = 1; i < 8; i++) {
        struct measure m = measure(1u << i, codes[i]);
        check(is_at_most(m.counts, m.most, by_1.counts, by_1.least) &&
                  is_at_most(by_1.counts, by_1.most, m.counts, m.least),
              "the divide configuration divides");
    }
}

static void test_deadline(void)
{
    hits = 0;
    handle(TIMER_VECTOR, on_hit);
    apic_write(APIC_LVT_TIMER, 2 << 17 | TIMER_VECTOR);
    sti();
    wrmsr(MSR_TSC_DEADLINE, rdtsc());
    __asm__ volatile("nop");
    cli();
    check_equal(hits, 1, "a deadline that is past fires at once");
    check_equal(rdmsr(MSR_TSC_DEADLINE), 0, "and reads 0");
    uint64_t deadline = rdtsc() + 20000000;
    sti();
    wrmsr(MSR_TSC_DEADLINE, deadline);
    check(wait_until(&hits, 2), "a deadline to come fires");
    cli();
    check(rdtsc() >= deadline, "and not before it");
    apic_write(APIC_INITIAL, 1000);
    check_equal(apic_read(APIC_CURRENT), 0, "the count does not run in deadline mode");
    wrmsr(MSR_TSC_DEADLINE, rdtsc() + (UINT64_C(1) << 40));
    apic_write(APIC_LVT_TIMER, TIMER_VECTOR);
    check_equal(rdmsr(MSR_TSC_DEADLINE), 0, "another mode disarms the deadline");
    apic_write(APIC_LVT_TIMER, 1 << 16);
}

void test_timers(void)
{
    start_timer(0, 0xb, 0x10000);
    uint64_t start = rdtsc();
    sti();
    check(wait_until(&hits, 1), "one-shot: it fires");
    delay(3000000);
    cli();
    check_equal(hits, 1, "one-shot: it fires once");
    check(rdtsc() - start >= 0x10000, "one-shot: not too soon");
    start_timer(1 << 17, 0xb, 200000);
    sti();
    uint64_t limit = rdtsc() + UINT64_C(60000000000);
    while (hits < 10 && rdtsc() < limit)
        relax();
    apic_write(APIC_INITIAL, 0);
    cli();
    check(hits >= 10, "periodic: it fires again and again");
    test_counting();
    test_divisors();
    test_deadline();
}
