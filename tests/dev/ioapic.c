/* SPDX-License-Identifier: BSD-2-Clause
 * The I/O APIC: pins in, messages out; and together with a local APIC, the round of a level
 * interrupt. */
#include "dev/apic_fakes.h"

#include "dev/ioapic.h"

#define BASE    UINT64_C(0xfec00000)
#define LBASE   UINT64_C(0xfee00000)
#define LOGICAL (1 << 11)
#define LOW     (1 << 13)
#define RIRR    (1 << 14)
#define LEVEL   (1 << 15)
#define MASKED  (1 << 16)

struct fixture {
    struct bus *bus;
    struct ioapic *ioapic;
    unsigned sent;
    uint64_t address;
    uint32_t data;
    struct clock clock;
    struct lapics *lapics; /* joined by join_lapic() */
    bool intr;
};

static void on_send(void *opaque, uint64_t address, uint32_t data)
{
    struct fixture *f = opaque;
    f->sent++;
    f->address = address;
    f->data = data;
    if (f->lapics)
        lapic_message(f->lapics, address, data);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    f->bus = bus_create(NULL);
    const struct ioapic_config config = {
        .bus = f->bus,
        .base = BASE,
        .id = 5,
        .sink = {.send = on_send, .opaque = f},
    };
    f->ioapic = ioapic_create(&config, NULL);
    assert_non_null(f->ioapic);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    if (f->lapics)
        lapic_ops.destroy(f->lapics);
    ioapic_ops.destroy(f->ioapic);
    bus_destroy(f->bus);
    free(f);
    return 0;
}

static uint32_t get(struct fixture *f, uint8_t reg)
{
    bus_write(f->bus, BUS_MMIO, BASE, reg, 4);
    return (uint32_t)bus_read(f->bus, BUS_MMIO, BASE + 0x10, 4);
}

static void put(struct fixture *f, uint8_t reg, uint32_t value)
{
    bus_write(f->bus, BUS_MMIO, BASE, reg, 4);
    bus_write(f->bus, BUS_MMIO, BASE + 0x10, value, 4);
}

static void program(struct fixture *f, unsigned pin, uint8_t destination, uint32_t low)
{
    put(f, (uint8_t)(0x11 + pin * 2), (uint32_t)destination << 24);
    put(f, (uint8_t)(0x10 + pin * 2), low);
}

static void pulse(struct fixture *f, unsigned pin)
{
    ioapic_set_irq(f->ioapic, pin, true);
    ioapic_set_irq(f->ioapic, pin, false);
}

static void test_registers(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(get(f, 0), 5 << 24);
    assert_int_equal(get(f, 1), 0x00170020);
    assert_int_equal(get(f, 2), 5 << 24);
    for (unsigned i = 0; i < 24; i++)
        assert_int_equal(get(f, (uint8_t)(0x10 + 2 * i)), MASKED);
    put(f, 0, 0xffffffff);
    assert_int_equal(get(f, 0), 0x0f000000);
    put(f, 1, 0);
    assert_int_equal(get(f, 1), 0x00170020);
    put(f, 0x10, 0xffffffff); /* delivery status and remote IRR can't be written */
    assert_int_equal(get(f, 0x10), 0x1afff);
    put(f, 0x11, 0xffffffff);
    assert_int_equal(get(f, 0x11), 0xff000000);
    assert_int_equal(get(f, 0x40), 0xffffffff); /* past the table */
    put(f, 0x40, 0);
    put(f, 0xff, 0);
    assert_int_equal(bus_read(f->bus, BUS_MMIO, BASE, 1), 0xff);
    assert_int_equal(f->sent, 0);
}

static void test_edge(void **state)
{
    struct fixture *f = *state;
    program(f, 4, 3, 0x34);
    ioapic_set_irq(f->ioapic, 4, true);
    assert_int_equal(f->sent, 1);
    assert_int_equal(f->address, LBASE | 3 << 12);
    assert_int_equal(f->data, 0x34);
    ioapic_set_irq(f->ioapic, 4, true); /* no edge */
    assert_int_equal(f->sent, 1);
    ioapic_set_irq(f->ioapic, 4, false);
    assert_int_equal(f->sent, 1);
    assert_int_equal(get(f, 0x18) & RIRR, 0);
    pulse(f, 4);
    assert_int_equal(f->sent, 2);
    put(f, 0x18, 0x34 | MASKED); /* an edge on a masked pin is lost */
    pulse(f, 4);
    put(f, 0x18, 0x34);
    assert_int_equal(f->sent, 2);
    put(f, 0x18, 0x34 | MASKED);
    ioapic_set_irq(f->ioapic, 4, true);
    put(f, 0x18, 0x34);
    assert_int_equal(f->sent, 2);
    ioapic_set_irq(f->ioapic, 24, true); /* no such pin */
    ioapic_set_irq(f->ioapic, 1000, true);
}

static void test_polarity_does_not_invert(void **state)
{
    struct fixture *f = *state;
    program(f, 9, 0, 0x39 | LOW);
    assert_int_equal(f->sent, 0);
    pulse(f, 9);
    assert_int_equal(f->sent, 1);
    assert_int_equal(get(f, 0x22), 0x39 | LOW);
}

static void test_modes(void **state)
{
    struct fixture *f = *state;
    for (unsigned mode = 0; mode < 8; mode++) {
        program(f, 7, 0x81, 0x37 | mode << 8 | LOGICAL | LEVEL);
        unsigned before = f->sent;
        ioapic_set_irq(f->ioapic, 7, true);
        assert_int_equal(f->sent, before + 1);
        assert_int_equal(f->address, LBASE | 0x81 << 12 | 4);
        bool level = mode < 2; /* the others are edges */
        assert_int_equal(f->data, 0x37 | mode << 8 | (level ? 0xc000 : 0));
        assert_int_equal(!!(get(f, 0x1e) & RIRR), level);
        ioapic_set_irq(f->ioapic, 7, false);
        ioapic_eoi(f->ioapic, 0x37);
        assert_int_equal(f->sent, before + 1);
    }
}

static void test_level(void **state)
{
    struct fixture *f = *state;
    program(f, 16, 0, 0x50 | LEVEL | LOW);
    ioapic_set_irq(f->ioapic, 16, true);
    assert_int_equal(f->sent, 1);
    assert_int_equal(get(f, 0x30), 0x50 | LEVEL | LOW | RIRR);
    ioapic_set_irq(f->ioapic, 16, false);
    ioapic_set_irq(f->ioapic, 16, true); /* still in service */
    assert_int_equal(f->sent, 1);
    ioapic_eoi(f->ioapic, 0x51); /* another's */
    assert_int_equal(f->sent, 1);
    ioapic_eoi(f->ioapic, 0x50); /* still asserted: again */
    assert_int_equal(f->sent, 2);
    ioapic_set_irq(f->ioapic, 16, false);
    bus_write(f->bus, BUS_MMIO, BASE + 0x40, 0x50, 4); /* the EOI register */
    assert_int_equal(f->sent, 2);
    assert_int_equal(get(f, 0x30), 0x50 | LEVEL | LOW);
    put(f, 0x30, 0x50 | LEVEL | MASKED);
    ioapic_set_irq(f->ioapic, 16, true); /* a level waits for the unmasking */
    assert_int_equal(f->sent, 2);
    put(f, 0x30, 0x50 | LEVEL);
    assert_int_equal(f->sent, 3);
    put(f, 0x30, 0x50 | MASKED); /* how guests clear a stuck remote IRR */
    put(f, 0x30, 0x50 | MASKED | LEVEL);
    assert_int_equal(get(f, 0x30) & RIRR, 0);
    put(f, 0x30, 0x50 | LEVEL);
    assert_int_equal(f->sent, 4);
}

static void test_shared_vector(void **state)
{
    struct fixture *f = *state;
    program(f, 17, 0, 0x60 | LEVEL);
    program(f, 18, 0, 0x60 | LEVEL);
    ioapic_set_irq(f->ioapic, 17, true);
    ioapic_set_irq(f->ioapic, 18, true);
    assert_int_equal(f->sent, 2);
    ioapic_set_irq(f->ioapic, 17, false);
    ioapic_eoi(f->ioapic, 0x60);
    assert_int_equal(f->sent, 3);
    assert_int_equal(get(f, 0x32) & RIRR, 0);
    assert_int_equal(get(f, 0x34) & RIRR, RIRR);
}

static void on_intr(void *opaque, unsigned vcpu, bool level)
{
    ((struct fixture *)opaque)->intr = level;
}

static void ignore(void *opaque, unsigned vcpu) {}

static void ignore_sipi(void *opaque, unsigned vcpu, uint8_t vector) {}

static unsigned vcpu_zero(void *opaque)
{
    return 0;
}

static uint64_t no_tsc(void *opaque, unsigned vcpu)
{
    return 0;
}

static void join_lapic(struct fixture *f)
{
    const struct lapic_config config = {
        .vcpu_count = 1,
        .bus = f->bus,
        .base = LBASE,
        .clock = &f->clock,
        .cpu = {.intr = on_intr, .nmi = ignore, .init = ignore, .sipi = ignore_sipi, .opaque = f},
        .current_vcpu = vcpu_zero,
        .read_tsc = no_tsc,
        .tsc_hz = 1000000000,
    };
    f->lapics = lapic_create(&config, NULL);
    assert_non_null(f->lapics);
    lapic_set_eoi_listener(f->lapics, ioapic_eoi, f->ioapic);
    bus_write(f->bus, BUS_MMIO, LBASE + 0xf0, 0x1ff, 4);
}

static void test_level_round_with_lapic(void **state)
{
    struct fixture *f = *state;
    join_lapic(f);
    program(f, 16, 0, 0x50 | LEVEL);
    ioapic_set_irq(f->ioapic, 16, true);
    assert_true(f->intr);
    for (unsigned i = 0; i < 3; i++) { /* comes again until the device is served */
        assert_int_equal(lapic_acknowledge(f->lapics, 0), 0x50);
        assert_false(f->intr);
        if (i == 2)
            ioapic_set_irq(f->ioapic, 16, false);
        bus_write(f->bus, BUS_MMIO, LBASE + 0xb0, 0, 4);
        assert_int_equal(f->intr, i < 2);
    }
    bus_write(f->bus, BUS_MMIO, LBASE + 0xf0, 0x11ff, 4); /* directed EOI */
    ioapic_set_irq(f->ioapic, 16, true);
    assert_int_equal(lapic_acknowledge(f->lapics, 0), 0x50);
    bus_write(f->bus, BUS_MMIO, LBASE + 0xb0, 0, 4);
    assert_false(f->intr);
    bus_write(f->bus, BUS_MMIO, BASE + 0x40, 0x50, 4);
    assert_true(f->intr);
}

static bool load_from(struct fixture *f, const void *bytes, size_t size_bytes)
{
    struct load load;
    uint32_t version;
    load_init(&load, bytes, size_bytes);
    return load_begin(&load, ioapic_ops.name, &version) &&
           ioapic_ops.load(f->ioapic, &load, version) && load_end(&load);
}

static void test_save_and_load(void **state)
{
    struct fixture *f = *state;
    struct save save = {0};
    put(f, 0, 7 << 24);
    program(f, 16, 2, 0x50 | LEVEL);
    ioapic_set_irq(f->ioapic, 16, true);
    bus_write(f->bus, BUS_MMIO, BASE, 0x30, 4);
    save_begin(&save, ioapic_ops.name, ioapic_ops.version);
    ioapic_ops.save(f->ioapic, &save);
    save_end(&save);
    ioapic_set_irq(f->ioapic, 16, false);
    ioapic_ops.reset(f->ioapic);
    assert_int_equal(get(f, 0), 5 << 24);
    assert_true(load_from(f, save.bytes, save.size_bytes));
    assert_int_equal(bus_read(f->bus, BUS_MMIO, BASE, 4), 0x30);
    assert_int_equal(get(f, 0), 7 << 24);
    assert_int_equal(get(f, 0x30), 0x50 | LEVEL | RIRR);
    assert_int_equal(get(f, 0x31), 2 << 24);
    f->sent = 0;
    ioapic_eoi(f->ioapic, 0x50); /* the pin was saved asserted */
    assert_int_equal(f->sent, 1);
    save.bytes[save.size_bytes - 1 - 4] |= 0x02; /* a reserved bit of the last entry */
    assert_false(load_from(f, save.bytes, save.size_bytes));
    assert_int_equal(get(f, 0), 5 << 24);
    assert_int_equal(get(f, 0x30), MASKED);
    save_free(&save);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_registers),
        T(test_edge),
        T(test_polarity_does_not_invert),
        T(test_modes),
        T(test_level),
        T(test_shared_vector),
        T(test_level_round_with_lapic),
        T(test_save_and_load),
    };
    return cmocka_run_group_tests_name("ioapic", tests, NULL, NULL);
}
