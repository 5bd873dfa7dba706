/* SPDX-License-Identifier: BSD-2-Clause
 * The local APICs, driven by MMIO, MSRs, pins and messages, with processors that only listen. */
#include "dev/apic_fakes.h"

#include <pthread.h>
#include <stdatomic.h>

enum {
    ID = 0x20,
    VERSION = 0x30,
    TPR = 0x80,
    APR = 0x90,
    PPR = 0xa0,
    EOI = 0xb0,
    RRD = 0xc0,
    LDR = 0xd0,
    DFR = 0xe0,
    SVR = 0xf0,
    ISR = 0x100,
    TMR = 0x180,
    IRR = 0x200,
    ESR = 0x280,
    ICR = 0x300,
    ICR_HIGH = 0x310,
    LVT_TIMER = 0x320,
    LVT_PMC = 0x340,
    LVT_LINT0 = 0x350,
    LVT_LINT1 = 0x360,
    LVT_ERROR = 0x370,
    INITIAL = 0x380,
    CURRENT = 0x390,
    DIVIDE = 0x3e0,
    MASKED = 1 << 16,
    PERIODIC = 1 << 17,
    DEADLINE = 2 << 17,
};
enum { MSR_BASE = 0x1b, MSR_DEADLINE = 0x6e0 };
enum { CPUS = 4 };
#define BASE UINT64_C(0xfee00000)

struct fixture {
    struct bus *bus;
    struct clock clock;
    struct lapics *lapics;
    struct fake_cpu cpu[CPUS];
    unsigned current;
    uint64_t tsc_offset;
    int pic_vector; /* what the 8259 answers INTA with */
    unsigned pic_acks;
    atomic_uint eois;
    _Atomic uint8_t eoi_vector;
};

static void on_intr(void *opaque, unsigned vcpu, bool level)
{
    struct fixture *f = opaque;
    f->cpu[vcpu].intr = level;
    f->cpu[vcpu].intr_calls++;
}

static void on_nmi(void *opaque, unsigned vcpu)
{
    ((struct fixture *)opaque)->cpu[vcpu].nmis++;
}

static void on_init(void *opaque, unsigned vcpu)
{
    ((struct fixture *)opaque)->cpu[vcpu].inits++;
}

static void on_sipi(void *opaque, unsigned vcpu, uint8_t vector)
{
    struct fixture *f = opaque;
    f->cpu[vcpu].sipis++;
    f->cpu[vcpu].sipi_vector = vector;
}

static unsigned current_vcpu(void *opaque)
{
    return ((struct fixture *)opaque)->current;
}

/* 2 GHz. */
static uint64_t read_tsc(void *opaque, unsigned vcpu)
{
    struct fixture *f = opaque;
    return f->clock.now_ns * 2 + f->tsc_offset;
}

static int pic_acknowledge(void *opaque)
{
    struct fixture *f = opaque;
    f->pic_acks++;
    lapic_set_lint(f->lapics, 0, false);
    return f->pic_vector;
}

static void on_eoi(void *opaque, uint8_t vector)
{
    struct fixture *f = opaque;
    f->eois++;
    atomic_store(&f->eoi_vector, vector);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    f->bus = bus_create(NULL);
    f->clock.now_ns = 1000;
    const struct lapic_config config = {
        .vcpu_count = CPUS,
        .bus = f->bus,
        .base = BASE,
        .clock = &f->clock,
        .cpu = {.intr = on_intr, .nmi = on_nmi, .init = on_init, .sipi = on_sipi, .opaque = f},
        .current_vcpu = current_vcpu,
        .current_vcpu_opaque = f,
        .read_tsc = read_tsc,
        .read_tsc_opaque = f,
        .tsc_hz = 2000000000,
        .extint_acknowledge = pic_acknowledge,
        .extint_opaque = f,
    };
    f->lapics = lapic_create(&config, NULL);
    assert_non_null(f->lapics);
    lapic_set_eoi_listener(f->lapics, on_eoi, f);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    lapic_ops.destroy(f->lapics);
    bus_destroy(f->bus);
    free(f);
    return 0;
}

static uint32_t get(struct fixture *f, unsigned vcpu, unsigned offset)
{
    f->current = vcpu;
    return (uint32_t)bus_read(f->bus, BUS_MMIO, BASE + offset, 4);
}

static void put(struct fixture *f, unsigned vcpu, unsigned offset, uint32_t value)
{
    f->current = vcpu;
    bus_write(f->bus, BUS_MMIO, BASE + offset, value, 4);
}

static void enable(struct fixture *f, unsigned vcpu)
{
    put(f, vcpu, SVR, 0x1ff);
}

static void enable_all(struct fixture *f)
{
    for (unsigned i = 0; i < CPUS; i++)
        enable(f, i);
}

static void go_x2apic(struct fixture *f, unsigned vcpu)
{
    uint64_t base;
    assert_true(lapic_read_msr(f->lapics, vcpu, MSR_BASE, &base));
    assert_true(lapic_write_msr(f->lapics, vcpu, MSR_BASE, base | 0xc00));
    assert_true(lapic_write_msr(f->lapics, vcpu, 0x80f, 0x1ff));
}

static int ack(struct fixture *f, unsigned vcpu)
{
    return lapic_acknowledge(f->lapics, vcpu);
}

/* An edge with this vector, physically addressed. */
static void msi(struct fixture *f, unsigned vcpu, uint8_t vector)
{
    lapic_message(f->lapics, BASE | vcpu << 12, vector);
}

static bool has_irr(struct fixture *f, unsigned vcpu, uint8_t vector)
{
    return get(f, vcpu, IRR + vector / 32 * 16) >> vector % 32 & 1;
}

/* Which processors have `vector` requested; takes it from them. */
static unsigned takers(struct fixture *f, uint8_t vector)
{
    unsigned mask = 0;
    for (unsigned i = 0; i < CPUS; i++) {
        if (!lapic_intr(f->lapics, i))
            continue;
        assert_int_equal(ack(f, i), vector);
        mask |= 1u << i;
        uint64_t base;
        lapic_read_msr(f->lapics, i, MSR_BASE, &base);
        if (base & 0x400)
            lapic_write_msr(f->lapics, i, 0x80b, 0);
        else
            put(f, i, EOI, 0);
    }
    return mask;
}

static void save_to(struct fixture *f, struct save *save)
{
    save_begin(save, lapic_ops.name, lapic_ops.version);
    lapic_ops.save(f->lapics, save);
    save_end(save);
    assert_false(save->failed);
}

static bool load_from(struct fixture *f, const void *bytes, size_t size_bytes)
{
    struct load load;
    uint32_t version;
    load_init(&load, bytes, size_bytes);
    return load_begin(&load, lapic_ops.name, &version) &&
           lapic_ops.load(f->lapics, &load, version) && load_end(&load);
}

static void test_reset_state(void **state)
{
    struct fixture *f = *state;
    for (unsigned i = 0; i < CPUS; i++) {
        assert_int_equal(get(f, i, ID), i << 24);
        assert_int_equal(get(f, i, VERSION), 0x01050014);
        assert_int_equal(get(f, i, SVR), 0xff);
        assert_int_equal(get(f, i, DFR), 0xffffffff);
        assert_int_equal(get(f, i, LVT_TIMER), MASKED);
        assert_int_equal(get(f, i, LVT_LINT0), i ? MASKED : 0x700);
        uint64_t base;
        assert_true(lapic_read_msr(f->lapics, i, MSR_BASE, &base));
        assert_int_equal(base, i ? 0xfee00800 : 0xfee00900);
    }
    f->current = CPUS; /* no vCPU's thread */
    assert_int_equal(bus_read(f->bus, BUS_MMIO, BASE + ID, 4), 0xffffffff);
    msi(f, 1, 0x40); /* disabled by SVR: refused */
    assert_int_equal(ack(f, 1), -1);
}

static void test_priorities_and_nesting(void **state)
{
    struct fixture *f = *state;
    enable(f, 0);
    msi(f, 0, 0x41);
    assert_true(f->cpu[0].intr);
    msi(f, 0, 0x63);
    msi(f, 0, 0x45);
    assert_int_equal(ack(f, 0), 0x63);
    assert_int_equal(get(f, 0, PPR), 0x60);
    assert_false(f->cpu[0].intr); /* what is left has a lower class */
    assert_int_equal(ack(f, 0), -1);
    msi(f, 0, 0x6f); /* the same class does not nest */
    assert_false(f->cpu[0].intr);
    msi(f, 0, 0x80);
    assert_true(f->cpu[0].intr);
    assert_int_equal(ack(f, 0), 0x80);
    assert_int_equal(get(f, 0, ISR + 0x40), 1); /* 0x80 */
    assert_int_equal(get(f, 0, ISR + 0x30), 8); /* 0x63 */
    put(f, 0, EOI, 0);
    assert_int_equal(get(f, 0, ISR + 0x40), 0);
    assert_false(f->cpu[0].intr);
    put(f, 0, EOI, 0);
    assert_int_equal(ack(f, 0), 0x6f);
    put(f, 0, EOI, 0);
    assert_int_equal(ack(f, 0), 0x45);
    put(f, 0, EOI, 0);
    assert_int_equal(ack(f, 0), 0x41);
    put(f, 0, EOI, 0);
    assert_int_equal(ack(f, 0), -1);
    put(f, 0, EOI, 0); /* one too many does nothing */
    assert_int_equal(f->eois, 0);
}

static void test_same_vector_merges_and_queues_once(void **state)
{
    struct fixture *f = *state;
    enable(f, 0);
    msi(f, 0, 0x50);
    msi(f, 0, 0x50);
    assert_int_equal(ack(f, 0), 0x50);
    msi(f, 0, 0x50); /* while in service: one more is kept */
    msi(f, 0, 0x50);
    put(f, 0, EOI, 0);
    assert_int_equal(ack(f, 0), 0x50);
    put(f, 0, EOI, 0);
    assert_int_equal(ack(f, 0), -1);
}

static void test_tpr_and_cr8(void **state)
{
    struct fixture *f = *state;
    enable(f, 0);
    put(f, 0, TPR, 0x55);
    assert_int_equal(lapic_read_cr8(f->lapics, 0), 5);
    assert_int_equal(get(f, 0, PPR), 0x55);
    msi(f, 0, 0x5f);
    assert_false(f->cpu[0].intr);
    assert_true(has_irr(f, 0, 0x5f));
    msi(f, 0, 0x60);
    assert_true(f->cpu[0].intr);
    lapic_write_cr8(f->lapics, 0, 0xf);
    assert_int_equal(get(f, 0, TPR), 0xf0);
    assert_false(f->cpu[0].intr);
    assert_int_equal(ack(f, 0), -1);
    assert_int_equal(get(f, 0, APR), 0xf0);
    lapic_write_cr8(f->lapics, 0, 4);
    assert_true(f->cpu[0].intr);
    assert_int_equal(get(f, 0, APR), 0x60);
    assert_int_equal(ack(f, 0), 0x60);
}

static void test_logical_flat_and_cluster(void **state)
{
    struct fixture *f = *state;
    enable_all(f);
    for (unsigned i = 0; i < CPUS; i++)
        put(f, i, LDR, 1u << (24 + i));
    lapic_message(f->lapics, BASE | 0x6 << 12 | 4, 0x40);
    assert_int_equal(takers(f, 0x40), 0x6);
    lapic_message(f->lapics, BASE | 0xff << 12 | 4, 0x40);
    assert_int_equal(takers(f, 0x40), 0xf);
    lapic_message(f->lapics, BASE | 0x10 << 12 | 4, 0x40); /* nobody */
    assert_int_equal(takers(f, 0x40), 0);
    const uint32_t ldr[CPUS] = {0x11, 0x12, 0x21, 0x22}; /* two clusters of two */
    for (unsigned i = 0; i < CPUS; i++) {
        put(f, i, DFR, 0x0fffffff);
        put(f, i, LDR, ldr[i] << 24);
    }
    lapic_message(f->lapics, BASE | 0x13 << 12 | 4, 0x41);
    assert_int_equal(takers(f, 0x41), 0x3);
    lapic_message(f->lapics, BASE | 0x22 << 12 | 4, 0x41);
    assert_int_equal(takers(f, 0x41), 0x8);
    lapic_message(f->lapics, BASE | 0xff << 12, 0x41); /* physical broadcast */
    assert_int_equal(takers(f, 0x41), 0xf);
    lapic_message(f->lapics, BASE | 9 << 12, 0x41);
    assert_int_equal(takers(f, 0x41), 0);
}

static void test_lowest_priority(void **state)
{
    struct fixture *f = *state;
    enable_all(f);
    for (unsigned i = 0; i < CPUS; i++) {
        put(f, i, LDR, 1u << (24 + i));
        put(f, i, TPR, i == 2 ? 0x10 : 0x30);
    }
    for (unsigned i = 0; i < 3; i++) {
        lapic_message(f->lapics, BASE | 0xf << 12 | 4, 0x140);
        assert_int_equal(takers(f, 0x40), 0x4);
    }
    lapic_message(f->lapics, BASE | 0xb << 12 | 1 << 3 | 4, 0x40); /* redirection hint, fixed */
    assert_int_equal(__builtin_popcount(takers(f, 0x40)), 1);
    unsigned seen = 0; /* equals take turns */
    for (unsigned i = 0; i < CPUS; i++) {
        lapic_message(f->lapics, BASE | 0xb << 12 | 4, 0x140);
        seen |= takers(f, 0x40);
    }
    assert_int_equal(seen, 0xb);
    put(f, 2, SVR, 0xff); /* disabled: never chosen */
    lapic_message(f->lapics, BASE | 0xf << 12 | 4, 0x140);
    assert_int_equal(takers(f, 0x40) & 4, 0);
}

static void ipi(struct fixture *f, unsigned from, uint32_t high, uint32_t low)
{
    put(f, from, ICR_HIGH, high);
    put(f, from, ICR, low);
}

static void test_ipis(void **state)
{
    struct fixture *f = *state;
    enable_all(f);
    ipi(f, 0, 2u << 24, 0x4050);
    assert_int_equal(takers(f, 0x50), 4);
    assert_int_equal(get(f, 0, ICR), 0x4050);
    assert_int_equal(get(f, 0, ICR_HIGH), 2u << 24);
    ipi(f, 1, 0, 0x44050); /* self */
    assert_int_equal(takers(f, 0x50), 2);
    ipi(f, 1, 0, 0x84050); /* all */
    assert_int_equal(takers(f, 0x50), 0xf);
    ipi(f, 1, 0, 0xc4050); /* all but self */
    assert_int_equal(takers(f, 0x50), 0xd);
    ipi(f, 1, 0, 0xc4400); /* NMI */
    for (unsigned i = 0; i < CPUS; i++)
        assert_int_equal(f->cpu[i].nmis, i != 1);
    ipi(f, 0, 3u << 24, 0x4300); /* remote read: nothing, and the register reads 0 */
    assert_int_equal(takers(f, 0), 0);
    assert_int_equal(get(f, 0, RRD), 0);
}

static void test_init_and_sipi(void **state)
{
    struct fixture *f = *state;
    enable_all(f);
    put(f, 1, TPR, 0x20);
    msi(f, 1, 0x70);
    assert_true(f->cpu[1].intr);
    ipi(f, 0, 1u << 24, 0xc500); /* INIT, level, assert */
    assert_int_equal(f->cpu[1].inits, 1);
    assert_false(f->cpu[1].intr);
    assert_int_equal(get(f, 1, TPR), 0);
    assert_int_equal(get(f, 1, SVR), 0xff);
    assert_int_equal(get(f, 1, LVT_LINT0), MASKED);
    ipi(f, 0, 1u << 24, 0x8500); /* de-assert */
    assert_int_equal(f->cpu[1].inits, 1);
    ipi(f, 0, 1u << 24, 0x4699);
    assert_int_equal(f->cpu[1].sipis, 1);
    assert_int_equal(f->cpu[1].sipi_vector, 0x99);
    ipi(f, 0, 0, 0xc4608); /* SIPI to all but self */
    assert_int_equal(f->cpu[0].sipis, 0);
    assert_int_equal(f->cpu[1].sipis, 2);
    assert_int_equal(f->cpu[3].sipis, 1);
    ipi(f, 0, 0, 0x44500); /* INIT to self by shorthand: the manual leaves open what it does */
    assert_int_equal(f->cpu[0].inits, 1);
    ipi(f, 0, 0, 0x84400); /* and NMI to all */
    for (unsigned i = 0; i < CPUS; i++)
        assert_int_equal(f->cpu[i].nmis, 1);
}

/* SDM 3A 11.4.6: the xAPIC id is where messages go; the x2APIC id is fixed, and reset, or a turn
 * off and on, brings the first one back. INIT does not: 11.4.7.3. */
static void test_written_id(void **state)
{
    struct fixture *f = *state;
    uint64_t value;
    enable_all(f);
    put(f, 1, ID, 0x77000000);
    assert_int_equal(get(f, 1, ID), 0x77000000);
    ipi(f, 0, 0x77u << 24, 0x4050);
    assert_int_equal(takers(f, 0x50), 2);
    ipi(f, 0, 1u << 24, 0x4050);
    assert_int_equal(takers(f, 0x50), 0);
    msi(f, 2, 0x51);
    assert_int_equal(takers(f, 0x51), 4);
    put(f, 3, ID, 2u << 24); /* two of the same id both take it */
    msi(f, 2, 0x51);
    assert_int_equal(takers(f, 0x51), 0xc);
    ipi(f, 0, 0x77u << 24, 0xc500);
    assert_int_equal(f->cpu[1].inits, 1);
    assert_int_equal(get(f, 1, ID), 0x77000000);
    struct save saved = {0};
    save_to(f, &saved);
    lapic_ops.reset(f->lapics);
    assert_int_equal(get(f, 1, ID), 1u << 24);
    assert_true(load_from(f, saved.bytes, saved.size_bytes));
    save_free(&saved);
    assert_int_equal(get(f, 1, ID), 0x77000000);
    go_x2apic(f, 1);
    assert_true(lapic_read_msr(f->lapics, 1, 0x802, &value));
    assert_int_equal(value, 1);
    assert_false(lapic_write_msr(f->lapics, 1, 0x802, 1)); /* 11.12.1.2: read only */
    msi(f, 1, 0x52);
    assert_int_equal(takers(f, 0x52), 2);
    assert_true(lapic_write_msr(f->lapics, 1, MSR_BASE, BASE));
    assert_true(lapic_write_msr(f->lapics, 1, MSR_BASE, BASE | 0x800));
    assert_int_equal(get(f, 1, ID), 1u << 24);
}

static uint32_t get_at(struct fixture *f, unsigned vcpu, uint64_t gpa)
{
    f->current = vcpu;
    return (uint32_t)bus_read(f->bus, BUS_MMIO, gpa, 4);
}

/* SDM 3A 11.4.5: the page is where the processor's own IA32_APIC_BASE says. */
static void test_moved_page(void **state)
{
    struct fixture *f = *state;
    const uint64_t other = 0xfed40000, high = UINT64_C(0x2000000000);
    assert_true(lapic_write_msr(f->lapics, 1, MSR_BASE, other | 0x800));
    put(f, 0, TPR, 0x10);
    assert_int_equal(get_at(f, 1, other + VERSION), get(f, 0, VERSION));
    assert_int_equal(get(f, 1, VERSION), 0xffffffff);
    assert_int_equal(get_at(f, 0, other + VERSION), 0xffffffff);
    f->current = 1;
    bus_write(f->bus, BUS_MMIO, other + TPR, 0x40, 4);
    put(f, 1, TPR, 0x50); /* nobody's for this one */
    assert_int_equal(get_at(f, 1, other + TPR), 0x40);
    assert_int_equal(get(f, 0, TPR), 0x10);
    assert_true(lapic_write_msr(f->lapics, 2, MSR_BASE, other | 0x800)); /* two in one place */
    assert_int_equal(get_at(f, 2, other + ID), 2u << 24);
    assert_int_equal(get_at(f, 1, other + ID), 1u << 24);
    assert_true(lapic_write_msr(f->lapics, 1, MSR_BASE, high | 0x800));
    assert_int_equal(get_at(f, 2, other + ID), 2u << 24);
    struct save saved = {0};
    save_to(f, &saved);
    lapic_ops.reset(f->lapics);
    assert_int_equal(get(f, 1, ID), 1u << 24);
    assert_int_equal(get_at(f, 1, high + ID), 0xffffffff);
    assert_true(load_from(f, saved.bytes, saved.size_bytes));
    save_free(&saved);
    assert_int_equal(get_at(f, 1, high + TPR), 0x40);
    assert_int_equal(get_at(f, 2, other + ID), 2u << 24);
    const uint64_t reserved[] = {1, 0x80, 0x200, UINT64_C(1) << 52};
    for (unsigned i = 0; i < 4; i++)
        assert_false(lapic_write_msr(f->lapics, 0, MSR_BASE, BASE | 0x900 | reserved[i]));
    /* All processors in places of their own, and back. */
    for (unsigned i = 0; i < CPUS; i++)
        assert_true(lapic_write_msr(f->lapics, i, MSR_BASE, (high + i * 0x1000) | 0x800));
    for (unsigned i = 0; i < CPUS; i++)
        assert_int_equal(get_at(f, i, high + i * 0x1000 + ID), i << 24);
    for (unsigned i = 0; i < CPUS; i++)
        assert_true(lapic_write_msr(f->lapics, i, MSR_BASE, BASE | 0x800));
    assert_int_equal(get(f, 3, ID), 3u << 24);
}

static void test_errors(void **state)
{
    struct fixture *f = *state;
    enable_all(f);
    put(f, 0, LVT_ERROR, 0xfe);
    put(f, 0, ESR, 0);
    assert_int_equal(get(f, 0, ESR), 0);
    ipi(f, 0, 1u << 24, 0x4005); /* vector 5 */
    assert_int_equal(takers(f, 0xfe), 1);
    assert_int_equal(get(f, 0, ESR), 0); /* latched by a write only */
    put(f, 0, ESR, 0);
    assert_int_equal(get(f, 0, ESR), 0x20);
    put(f, 0, ESR, 0);
    assert_int_equal(get(f, 0, ESR), 0);
    msi(f, 0, 3);
    put(f, 0, ESR, 0);
    assert_int_equal(get(f, 0, ESR), 0x40);
    put(f, 0, 0x010, 1); /* reserved */
    get(f, 0, 0x3f0);
    put(f, 0, ESR, 0);
    assert_int_equal(get(f, 0, ESR), 0x80);
    assert_int_equal(takers(f, 0xfe), 1);
}

static void test_x2apic_transitions(void **state)
{
    struct fixture *f = *state;
    uint64_t value;
    const uint64_t base = BASE | 0x100;
    assert_false(lapic_read_msr(f->lapics, 0, 0x802, &value)); /* in xAPIC mode */
    assert_false(lapic_write_msr(f->lapics, 0, 0x80b, 0));
    assert_false(lapic_write_msr(f->lapics, 0, MSR_BASE, base | 0x400)); /* EXTD without EN */
    assert_false(lapic_write_msr(f->lapics, 0, MSR_BASE, base | 0x800 | 1));
    put(f, 0, SVR, 0x1ff);
    put(f, 0, TPR, 0x30);
    assert_true(lapic_write_msr(f->lapics, 0, MSR_BASE, base | 0xc00));
    assert_int_equal(get(f, 0, TPR), 0xffffffff); /* MMIO is gone */
    put(f, 0, TPR, 0);
    assert_true(lapic_read_msr(f->lapics, 0, 0x808, &value));
    assert_int_equal(value, 0x30);
    assert_false(lapic_write_msr(f->lapics, 0, MSR_BASE, base | 0x800)); /* back to xAPIC */
    assert_true(lapic_write_msr(f->lapics, 0, MSR_BASE, base));          /* off */
    assert_false(lapic_read_msr(f->lapics, 0, 0x808, &value));
    assert_int_equal(get(f, 0, TPR), 0xffffffff);
    assert_false(lapic_write_msr(f->lapics, 0, MSR_BASE, base | 0xc00)); /* off to x2APIC */
    assert_true(lapic_write_msr(f->lapics, 0, MSR_BASE, base | 0x800));
    assert_int_equal(get(f, 0, SVR), 0xff); /* and lost its state */
    assert_int_equal(get(f, 0, TPR), 0);
}

static void test_x2apic_registers(void **state)
{
    struct fixture *f = *state;
    struct lapics *l = f->lapics;
    uint64_t v;
    for (unsigned i = 0; i < CPUS; i++)
        go_x2apic(f, i);
    assert_true(lapic_read_msr(l, 3, 0x802, &v));
    assert_int_equal(v, 3);
    assert_true(lapic_read_msr(l, 3, 0x80d, &v));
    assert_int_equal(v, 1 << 3);
    const uint32_t refused_reads[] = {0x800, 0x809, 0x80b, 0x80c, 0x80e, 0x831, 0x83f, 0x8ff};
    for (unsigned i = 0; i < 8; i++)
        assert_false(lapic_read_msr(l, 0, refused_reads[i], &v));
    const uint32_t refused_writes[] = {0x802, 0x803, 0x80a, 0x80d, 0x80e, 0x810, 0x831, 0x839};
    for (unsigned i = 0; i < 8; i++)
        assert_false(lapic_write_msr(l, 0, refused_writes[i], 0));
    assert_false(lapic_write_msr(l, 0, 0x80b, 1));
    assert_false(lapic_write_msr(l, 0, 0x828, 1));
    assert_false(lapic_write_msr(l, 0, 0x808, 0x100));
    assert_false(lapic_write_msr(l, 0, 0x832, UINT64_C(1) << 32));
    assert_false(lapic_write_msr(l, 0, 0x837, 0x100));
    assert_false(lapic_write_msr(l, 0, 0x83e, 4));
    assert_false(lapic_write_msr(l, 0, 0x83f, 0x100));
    assert_false(lapic_write_msr(l, 0, 0x830, 1 << 20));
    assert_true(lapic_write_msr(l, 0, 0x830, UINT64_C(2) << 32 | 0x55));
    assert_true(lapic_read_msr(l, 0, 0x830, &v));
    assert_int_equal(v, UINT64_C(2) << 32 | 0x55);
    assert_int_equal(takers(f, 0x55), 4);
    assert_true(lapic_write_msr(l, 0, 0x830, UINT64_C(0x00a) << 32 | 0x855)); /* logical */
    assert_int_equal(takers(f, 0x55), 0xa);
    assert_true(lapic_write_msr(l, 0, 0x830, UINT64_C(0x1000a) << 32 | 0x855)); /* other cluster */
    assert_int_equal(takers(f, 0x55), 0);
    assert_true(lapic_write_msr(l, 0, 0x830, UINT64_C(0xffffffff) << 32 | 0x55));
    assert_int_equal(takers(f, 0x55), 0xf);
    assert_true(lapic_write_msr(l, 0, 0x830, UINT64_C(0xff) << 32 | 0x55)); /* id 255, not all */
    assert_int_equal(takers(f, 0x55), 0);
    assert_true(lapic_write_msr(l, 1, 0x83f, 0x77));
    assert_int_equal(takers(f, 0x77), 2);
    lapic_message(l, BASE | 5 << 12 | 4, 0x66); /* devices reach logical ids of cluster 0 */
    assert_int_equal(takers(f, 0x66), 5);
}

static void test_one_shot(void **state)
{
    struct fixture *f = *state;
    enable(f, 0);
    put(f, 0, DIVIDE, 0x3); /* by 16 */
    put(f, 0, LVT_TIMER, 0x30);
    put(f, 0, INITIAL, 1000);
    assert_int_equal(get(f, 0, CURRENT), 1000);
    fake_clock_run_to(&f->clock, 1000 + 8000);
    assert_int_equal(get(f, 0, CURRENT), 500);
    put(f, 0, DIVIDE, 0xb); /* by 1: 500 ns are left */
    assert_int_equal(get(f, 0, CURRENT), 500);
    assert_int_equal(fake_clock_run_to(&f->clock, 9000 + 499), 0);
    assert_int_equal(fake_clock_run_to(&f->clock, 9000 + 500), 1);
    assert_int_equal(takers(f, 0x30), 1);
    assert_int_equal(get(f, 0, CURRENT), 0);
    assert_int_equal(fake_clock_run_to(&f->clock, 1000000), 0);
    put(f, 0, INITIAL, 1000);
    put(f, 0, INITIAL, 0); /* stopped */
    assert_int_equal(fake_clock_run_to(&f->clock, 2000000), 0);
    assert_int_equal(takers(f, 0x30), 0);
    put(f, 0, INITIAL, 1000);
    put(f, 0, LVT_TIMER, 0x30 | MASKED); /* expires unheard */
    fake_clock_run_to(&f->clock, 3000000);
    put(f, 0, LVT_TIMER, 0x30);
    assert_int_equal(takers(f, 0x30), 0);
    put(f, 0, INITIAL, 1000);
    put(f, 0, LVT_TIMER, 0x30 | MASKED); /* unmasked in time */
    put(f, 0, LVT_TIMER, 0x31);
    fake_clock_run_to(&f->clock, 4000000);
    assert_int_equal(takers(f, 0x31), 1);
}

static void test_divisors(void **state)
{
    struct fixture *f = *state;
    const uint32_t code[8] = {0, 1, 2, 3, 8, 9, 10, 11};
    const unsigned by[8] = {2, 4, 8, 16, 32, 64, 128, 1};
    enable(f, 0);
    put(f, 0, LVT_TIMER, 0x30);
    for (unsigned i = 0; i < 8; i++) {
        put(f, 0, DIVIDE, code[i]);
        put(f, 0, INITIAL, 100000);
        uint64_t start = f->clock.now_ns;
        fake_clock_run_to(&f->clock, start + 100000ull * by[i] - 1);
        assert_int_equal(takers(f, 0x30), 0);
        fake_clock_run_to(&f->clock, start + 100000ull * by[i]);
        assert_int_equal(takers(f, 0x30), 1);
    }
}

static void test_periodic(void **state)
{
    struct fixture *f = *state;
    enable(f, 0);
    put(f, 0, DIVIDE, 0xb);
    put(f, 0, LVT_TIMER, 0x30 | PERIODIC);
    put(f, 0, INITIAL, 1000000);
    for (unsigned i = 1; i <= 3; i++) {
        assert_int_equal(fake_clock_run_to(&f->clock, 1000 + i * 1000000), 1);
        assert_int_equal(takers(f, 0x30), 1);
    }
    f->clock.now_ns += 250000;
    assert_int_equal(get(f, 0, CURRENT), 750000);
    f->clock.now_ns += 5000000; /* the host slept: one interrupt, the phase is kept */
    assert_int_equal(fake_clock_run_to(&f->clock, f->clock.now_ns), 1);
    assert_int_equal(takers(f, 0x30), 1);
    assert_int_equal(get(f, 0, CURRENT), 750000);
    assert_int_equal(fake_clock_run_to(&f->clock, f->clock.now_ns + 749999), 0);
    assert_int_equal(fake_clock_run_to(&f->clock, f->clock.now_ns + 1), 1);
    assert_int_equal(takers(f, 0x30), 1);
    put(f, 0, LVT_TIMER, 0x30 | PERIODIC | MASKED);
    assert_int_equal(fake_clock_run_to(&f->clock, f->clock.now_ns + 10500000), 0);
    assert_int_equal(get(f, 0, CURRENT), 500000);
    put(f, 0, LVT_TIMER, 0x30 | PERIODIC);
    assert_int_equal(takers(f, 0x30), 0);
    assert_int_equal(fake_clock_run_to(&f->clock, f->clock.now_ns + 500000), 1);
    assert_int_equal(takers(f, 0x30), 1);
    put(f, 0, INITIAL, 1); /* a storm is held back */
    assert_true(fake_clock_run_to(&f->clock, f->clock.now_ns + 1000000) <= 20);
}

static void test_tsc_deadline(void **state)
{
    struct fixture *f = *state;
    struct lapics *l = f->lapics;
    uint64_t v;
    enable(f, 0);
    assert_true(lapic_write_msr(l, 0, MSR_DEADLINE, 100000)); /* another mode: ignored */
    assert_true(lapic_read_msr(l, 0, MSR_DEADLINE, &v));
    assert_int_equal(v, 0);
    put(f, 0, LVT_TIMER, 0x30 | DEADLINE);
    put(f, 0, INITIAL, 500); /* ignored likewise */
    assert_int_equal(get(f, 0, INITIAL), 0);
    assert_true(lapic_write_msr(l, 0, MSR_DEADLINE, 100000)); /* at 50000 ns */
    assert_true(lapic_read_msr(l, 0, MSR_DEADLINE, &v));
    assert_int_equal(v, 100000);
    assert_int_equal(get(f, 0, CURRENT), 0);
    fake_clock_run_to(&f->clock, 49999);
    assert_int_equal(takers(f, 0x30), 0);
    fake_clock_run_to(&f->clock, 50001);
    assert_int_equal(takers(f, 0x30), 1);
    assert_true(lapic_read_msr(l, 0, MSR_DEADLINE, &v));
    assert_int_equal(v, 0);
    assert_true(lapic_write_msr(l, 0, MSR_DEADLINE, 5)); /* past: at once */
    assert_int_equal(takers(f, 0x30), 1);
    assert_true(lapic_write_msr(l, 0, MSR_DEADLINE, 200000));
    assert_true(lapic_write_msr(l, 0, MSR_DEADLINE, 0)); /* disarmed */
    fake_clock_run_to(&f->clock, 200000);
    assert_int_equal(takers(f, 0x30), 0);
    assert_true(lapic_write_msr(l, 0, MSR_DEADLINE, 2000000));
    put(f, 0, LVT_TIMER, 0x30); /* leaving the mode disarms */
    fake_clock_run_to(&f->clock, 2000000);
    assert_int_equal(takers(f, 0x30), 0);
    assert_true(lapic_read_msr(l, 0, MSR_DEADLINE, &v));
    assert_int_equal(v, 0);
    put(f, 0, LVT_TIMER, 0x30 | DEADLINE);
    assert_true(lapic_write_msr(l, 0, MSR_DEADLINE, UINT64_MAX)); /* the far future */
    fake_clock_run_to(&f->clock, 1000000000);
    assert_int_equal(takers(f, 0x30), 0);
    f->tsc_offset = UINT64_MAX - 2 * f->clock.now_ns; /* the TSC jumps there */
    lapic_tsc_changed(l, 0);
    assert_int_equal(takers(f, 0x30), 1);
}

static void test_deadline_in_another_mode_is_ignored(void **state)
{
    struct fixture *f = *state;
    enable(f, 0);
    put(f, 0, LVT_TIMER, 0x30);
    assert_true(lapic_write_msr(f->lapics, 0, MSR_DEADLINE, 1)); /* past */
    assert_true(lapic_write_msr(f->lapics, 0, MSR_DEADLINE, 100000));
    assert_int_equal(fake_clock_run_to(&f->clock, 1000000), 0);
    assert_int_equal(takers(f, 0x30), 0);
}

static void test_tsc_jump_back_is_seen_at_expiry(void **state)
{
    struct fixture *f = *state;
    enable(f, 0);
    f->tsc_offset = 100000;
    put(f, 0, LVT_TIMER, 0x30 | DEADLINE);
    lapic_write_msr(f->lapics, 0, MSR_DEADLINE, 202000); /* at 51000 ns */
    f->tsc_offset = 0;
    assert_int_equal(fake_clock_run_to(&f->clock, 100000), 1);
    assert_int_equal(takers(f, 0x30), 0);
    assert_int_equal(fake_clock_run_to(&f->clock, 101001), 1);
    assert_int_equal(takers(f, 0x30), 1);
}

static void test_level_and_eoi(void **state)
{
    struct fixture *f = *state;
    enable(f, 0);
    lapic_message(f->lapics, BASE, 0xc0a5);
    assert_int_equal(get(f, 0, TMR + 0x50), 1 << 5);
    assert_int_equal(ack(f, 0), 0xa5);
    assert_int_equal(f->eois, 0);
    put(f, 0, EOI, 0);
    assert_int_equal(f->eois, 1);
    assert_int_equal(f->eoi_vector, 0xa5);
    lapic_message(f->lapics, BASE, 0x80a5); /* level, de-asserted: nothing */
    assert_int_equal(takers(f, 0xa5), 0);
    put(f, 0, SVR, 0x11ff); /* broadcast suppressed */
    lapic_message(f->lapics, BASE, 0xc0a5);
    assert_int_equal(takers(f, 0xa5), 1);
    assert_int_equal(f->eois, 1);
    put(f, 0, SVR, 0x1ff);
    msi(f, 0, 0xa5); /* as an edge */
    assert_int_equal(takers(f, 0xa5), 1);
    assert_int_equal(f->eois, 1);
}

static void test_message_modes(void **state)
{
    struct fixture *f = *state;
    enable_all(f);
    lapic_message(f->lapics, BASE | 1 << 12, 0x400);
    assert_int_equal(f->cpu[1].nmis, 1);
    lapic_message(f->lapics, BASE | 2 << 12, 0x500);
    assert_int_equal(f->cpu[2].inits, 1);
    lapic_message(f->lapics, BASE | 3 << 12, 0x608); /* no SIPI by message */
    assert_int_equal(f->cpu[3].sipis, 0);
    f->pic_vector = 0x38;
    lapic_message(f->lapics, BASE | 3 << 12, 0x700);
    assert_true(f->cpu[3].intr);
    assert_int_equal(ack(f, 3), 0x38);
    assert_int_equal(f->pic_acks, 1);
    assert_false(f->cpu[3].intr);
    lapic_message(f->lapics, 0x1000, 0x40); /* no APIC there */
    lapic_message(f->lapics, BASE | UINT64_C(1) << 32, 0x40);
    assert_int_equal(takers(f, 0x40), 0);
}

static void test_lint_pins(void **state)
{
    struct fixture *f = *state;
    f->pic_vector = 0x08;
    lapic_set_lint(f->lapics, 0, true); /* virtual wire after reset: to the BSP alone */
    assert_true(f->cpu[0].intr);
    assert_false(f->cpu[1].intr);
    assert_int_equal(ack(f, 0), 0x08);
    assert_false(f->cpu[0].intr);
    assert_int_equal(get(f, 0, ISR), 0); /* the 8259's are not ours to end */
    enable(f, 0);
    put(f, 0, LVT_LINT0, 0x700 | MASKED);
    lapic_set_lint(f->lapics, 0, true);
    assert_false(f->cpu[0].intr);
    put(f, 0, LVT_LINT0, 0x700);
    assert_true(f->cpu[0].intr);
    lapic_set_lint(f->lapics, 0, false);
    assert_false(f->cpu[0].intr);
    put(f, 0, LVT_LINT0, 0x45); /* fixed, edge */
    lapic_set_lint(f->lapics, 0, true);
    assert_int_equal(takers(f, 0x45), 1);
    lapic_set_lint(f->lapics, 0, true);
    assert_int_equal(takers(f, 0x45), 0);
    lapic_set_lint(f->lapics, 0, false);
    put(f, 0, LVT_LINT0, 0x8046); /* fixed, level: again after EOI while it lasts */
    lapic_set_lint(f->lapics, 0, true);
    assert_int_equal(get(f, 0, LVT_LINT0), 0xc046);
    assert_int_equal(ack(f, 0), 0x46);
    put(f, 0, EOI, 0);
    assert_int_equal(ack(f, 0), 0x46);
    lapic_set_lint(f->lapics, 0, false);
    put(f, 0, EOI, 0);
    assert_int_equal(get(f, 0, LVT_LINT0), 0x8046);
    assert_int_equal(ack(f, 0), -1);
    put(f, 0, LVT_LINT1, 0x400);
    lapic_set_lint(f->lapics, 1, true);
    lapic_set_lint(f->lapics, 1, false);
    assert_int_equal(f->cpu[0].nmis, 1);
    assert_int_equal(f->cpu[1].nmis, 0);
}

static void test_apic_off_leaves_the_pins(void **state)
{
    struct fixture *f = *state;
    enable(f, 0);
    msi(f, 0, 0x60);
    assert_true(lapic_write_msr(f->lapics, 0, MSR_BASE, BASE | 0x100));
    assert_false(f->cpu[0].intr);
    msi(f, 0, 0x60);
    assert_false(f->cpu[0].intr);
    f->pic_vector = 0x21;
    lapic_set_lint(f->lapics, 0, true);
    assert_true(f->cpu[0].intr);
    assert_int_equal(ack(f, 0), 0x21);
    lapic_set_lint(f->lapics, 1, true);
    assert_int_equal(f->cpu[0].nmis, 1);
    ipi(f, 1, 0, 0xc500); /* INIT does not reach it */
    assert_int_equal(f->cpu[0].inits, 0);
}

static void test_soft_disable_masks(void **state)
{
    struct fixture *f = *state;
    enable(f, 0);
    put(f, 0, LVT_TIMER, 0x30);
    put(f, 0, LVT_PMC, 0x400);
    msi(f, 0, 0x50);
    put(f, 0, SVR, 0xff);
    assert_int_equal(get(f, 0, LVT_TIMER), 0x30 | MASKED);
    assert_int_equal(get(f, 0, LVT_PMC), 0x400 | MASKED);
    put(f, 0, LVT_TIMER, 0x30);
    assert_int_equal(get(f, 0, LVT_TIMER), 0x30 | MASKED);
    msi(f, 0, 0x51);                   /* refused */
    assert_int_equal(ack(f, 0), 0x50); /* held from before */
    assert_int_equal(ack(f, 0), -1);
    lapic_message(f->lapics, BASE, 0x400); /* NMI still comes */
    assert_int_equal(f->cpu[0].nmis, 1);
}

static void test_access_sizes(void **state)
{
    struct fixture *f = *state;
    f->current = 1;
    assert_int_equal(bus_read(f->bus, BUS_MMIO, BASE + ID + 3, 1), 1);
    assert_int_equal(bus_read(f->bus, BUS_MMIO, BASE + VERSION, 2), 0x0014);
    bus_write(f->bus, BUS_MMIO, BASE + TPR, 0x20, 1);
    bus_write(f->bus, BUS_MMIO, BASE + TPR + 4, 0x20, 4);
    assert_int_equal(get(f, 1, TPR), 0);
    assert_int_equal(bus_read(f->bus, BUS_MMIO, BASE + 0xffc, 8), UINT64_MAX);
}

static void test_save_and_load(void **state)
{
    struct fixture *f = *state;
    struct save saved = {0}, again = {0};
    enable_all(f);
    put(f, 0, TPR, 0x20);
    msi(f, 0, 0x40);
    msi(f, 0, 0x90);
    assert_int_equal(ack(f, 0), 0x90);
    lapic_message(f->lapics, BASE, 0xc0a5);
    put(f, 1, DIVIDE, 0xb);
    put(f, 1, LVT_TIMER, 0x31 | PERIODIC);
    put(f, 1, INITIAL, 1000000);
    go_x2apic(f, 2);
    assert_true(lapic_write_msr(f->lapics, 2, 0x832, 0x32 | DEADLINE));
    assert_true(lapic_write_msr(f->lapics, 2, MSR_DEADLINE, 3000000)); /* at 1500000 ns */
    save_to(f, &saved);
    lapic_ops.reset(f->lapics);
    assert_false(f->cpu[0].intr);
    assert_int_equal(get(f, 0, TPR), 0);
    fake_clock_run_to(&f->clock, 500000);
    assert_int_equal(takers(f, 0), 0);
    assert_true(load_from(f, saved.bytes, saved.size_bytes));
    save_to(f, &again);
    assert_int_equal(again.size_bytes, saved.size_bytes);
    assert_memory_equal(again.bytes, saved.bytes, saved.size_bytes);
    assert_true(f->cpu[0].intr);
    assert_int_equal(get(f, 0, TPR), 0x20);
    assert_int_equal(ack(f, 0), 0xa5);
    put(f, 0, EOI, 0);
    assert_int_equal(f->eois, 1);
    put(f, 0, EOI, 0);
    assert_int_equal(ack(f, 0), 0x40);
    fake_clock_run_to(&f->clock, 1001000);
    assert_true(f->cpu[1].intr);
    assert_false(f->cpu[2].intr);
    fake_clock_run_to(&f->clock, 1500001);
    assert_int_equal(ack(f, 2), 0x32);
    save_free(&saved);
    save_free(&again);
}

/* Whatever bytes come: refused and as after reset, or taken; never worse. */
static void test_load_of_damaged_bytes(void **state)
{
    struct fixture *f = *state;
    struct save saved = {0};
    enable_all(f);
    put(f, 1, LVT_TIMER, 0x31 | PERIODIC);
    put(f, 1, INITIAL, 1000000);
    save_to(f, &saved);
    unsigned refused = 0;
    for (size_t i = 0; i < saved.size_bytes; i++) {
        uint8_t old = saved.bytes[i];
        saved.bytes[i] ^= 0xff;
        if (!load_from(f, saved.bytes, saved.size_bytes))
            refused++;
        fake_clock_run_to(&f->clock, f->clock.now_ns + 100000);
        saved.bytes[i] = old;
    }
    assert_true(refused > saved.size_bytes / 8);
    struct load load;
    uint32_t version;
    load_init(&load, saved.bytes, saved.size_bytes);
    assert_true(load_begin(&load, lapic_ops.name, &version));
    assert_false(lapic_ops.load(f->lapics, &load, version + 1));
    assert_int_equal(get(f, 1, LVT_TIMER), MASKED);
    assert_true(load_from(f, saved.bytes, saved.size_bytes));
    assert_int_equal(get(f, 1, LVT_TIMER), 0x31 | PERIODIC);
    save_free(&saved);
}

enum { ROUNDS = 20000, IPI_VECTOR = 0x51, TICK_VECTOR = 0x61, LEVEL_VECTOR = 0x71 };

struct worker {
    struct fixture *f;
    unsigned vcpu;
    unsigned taken[256];
};

static void serve(struct worker *w)
{
    for (int vector; (vector = lapic_acknowledge(w->f->lapics, w->vcpu)) >= 0;) {
        w->taken[vector]++;
        lapic_write_msr(w->f->lapics, w->vcpu, 0x80b, 0);
    }
}

/* A processor: sends IPIs to all others, arms its timer, takes what comes. */
static void *work(void *opaque)
{
    struct worker *w = opaque;
    for (unsigned i = 0; i < ROUNDS; i++) {
        lapic_write_msr(w->f->lapics, w->vcpu, 0x830, 0xc0000 | IPI_VECTOR);
        lapic_write_msr(w->f->lapics, w->vcpu, MSR_DEADLINE, 1 + i % 2 * 1000000000);
        if (i % 64 == 0)
            lapic_write_cr8(w->f->lapics, w->vcpu, i % 128 ? 0 : 15);
        serve(w);
    }
    lapic_write_cr8(w->f->lapics, w->vcpu, 0);
    return NULL;
}

/* Nothing hangs, no request is left behind, and each kind came through on each processor. */
static void test_many_threads(void **state)
{
    struct fixture *f = *state;
    struct worker workers[CPUS] = {0};
    pthread_t threads[CPUS];
    for (unsigned i = 0; i < CPUS; i++) {
        go_x2apic(f, i);
        assert_true(lapic_write_msr(f->lapics, i, 0x832, TICK_VECTOR | DEADLINE));
        workers[i] = (struct worker){.f = f, .vcpu = i};
        assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    }
    for (unsigned i = 0; i < ROUNDS; i++) { /* a device; level, lowest priority or to all */
        lapic_message(f->lapics, BASE | 0xff << 12, 0xc000 | (i % 2) << 8 | LEVEL_VECTOR);
        lapic_set_lint(f->lapics, 1, i % 2);
    }
    for (unsigned i = 0; i < CPUS; i++)
        pthread_join(threads[i], NULL);
    for (unsigned i = 0; i < CPUS; i++) {
        serve(&workers[i]);
        assert_false(f->cpu[i].intr);
        assert_false(lapic_intr(f->lapics, i));
        assert_true(workers[i].taken[IPI_VECTOR] && workers[i].taken[TICK_VECTOR]);
        assert_true(workers[i].taken[LEVEL_VECTOR]);
    }
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_reset_state),
        T(test_priorities_and_nesting),
        T(test_same_vector_merges_and_queues_once),
        T(test_tpr_and_cr8),
        T(test_logical_flat_and_cluster),
        T(test_lowest_priority),
        T(test_ipis),
        T(test_init_and_sipi),
        T(test_written_id),
        T(test_moved_page),
        T(test_errors),
        T(test_x2apic_transitions),
        T(test_x2apic_registers),
        T(test_one_shot),
        T(test_divisors),
        T(test_periodic),
        T(test_tsc_deadline),
        T(test_deadline_in_another_mode_is_ignored),
        T(test_tsc_jump_back_is_seen_at_expiry),
        T(test_level_and_eoi),
        T(test_message_modes),
        T(test_lint_pins),
        T(test_apic_off_leaves_the_pins),
        T(test_soft_disable_masks),
        T(test_access_sizes),
        T(test_save_and_load),
        T(test_load_of_damaged_bytes),
        T(test_many_threads),
    };
    return cmocka_run_group_tests_name("lapic", tests, NULL, NULL);
}
