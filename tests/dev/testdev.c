/* SPDX-License-Identifier: BSD-2-Clause
 * The test device through the bus. */
#include "legacy.h"

#include "dev/testdev.h"

enum { GSI = 0x2000, VALUE = 0xe0, FLUSH = 0xe4 };
#define MEMORY UINT64_C(0xff000000)

struct fixture {
    struct bus *bus;
    struct ram *ram;
    struct testdev *dev;
    struct wire wire;
    unsigned watched;
};

static void on_written(void *opaque, uint64_t gpa, uint64_t size_bytes)
{
    struct fixture *f = opaque;
    assert_int_equal(gpa, 0x5000);
    assert_int_equal(size_bytes, 4096);
    f->watched++;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    f->bus = bus_create(NULL);
    f->ram = ram_create(1 << 20, NULL);
    const struct testdev_config config = {.gsi_base = GSI,
                                          .value_base = VALUE,
                                          .flush_base = FLUSH,
                                          .memory_base = MEMORY,
                                          .gsi = wire_line(&f->wire, 0),
                                          .ram = f->ram};
    f->dev = testdev_create(&config, f->bus, NULL);
    assert_non_null(f->dev);
    assert_null(testdev_create(&config, f->bus, NULL)); /* the place is taken */
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    testdev_ops.destroy(f->dev);
    ram_destroy(f->ram);
    bus_destroy(f->bus);
    free(f);
    return 0;
}

static void test_gsi(void **state)
{
    struct fixture *f = *state;
    out8(f->bus, GSI + 14, 1);
    assert_int_equal(f->wire.number, 14);
    assert_true(f->wire.level);
    assert_int_equal(in8(f->bus, GSI + 14), 1);
    assert_int_equal(in8(f->bus, GSI + 13), 0);
    out8(f->bus, GSI + 14, 0);
    assert_false(f->wire.level);
    bus_write(f->bus, BUS_PORT, GSI + 23, 0x80000000, 4);
    assert_int_equal(f->wire.number, 23);
    assert_true(f->wire.level);
    f->wire.rises = 0;
    out8(f->bus, GSI + 24, 1); /* none there */
    assert_int_equal(f->wire.rises, 0);
    testdev_ops.reset(f->dev); /* lets go of the line */
    assert_false(f->wire.level);
    assert_int_equal(f->wire.number, 23);
}

static void test_values(void **state)
{
    struct fixture *f = *state;
    bus_write(f->bus, BUS_PORT, VALUE, 0x12345678, 4);
    assert_int_equal(bus_read(f->bus, BUS_PORT, VALUE, 4), 0x12345678);
    bus_write(f->bus, BUS_PORT, VALUE, 0xabcd, 2);
    assert_int_equal(bus_read(f->bus, BUS_PORT, VALUE, 4), 0x1234abcd);
    out8(f->bus, VALUE + 3, 0x99);
    assert_int_equal(bus_read(f->bus, BUS_PORT, VALUE, 4), 0x9934abcd);
    assert_int_equal(bus_read(f->bus, BUS_PORT, VALUE + 2, 2), 0x9934);
}

static void test_memory(void **state)
{
    struct fixture *f = *state;
    for (unsigned size = 1; size <= 8; size *= 2) {
        uint64_t value = UINT64_C(0x1122334455667788) * size;
        uint64_t mask = size == 8 ? UINT64_MAX : (UINT64_C(1) << 8 * size) - 1;
        bus_write(f->bus, BUS_MMIO, MEMORY + 0x100, UINT64_MAX, 8);
        bus_write(f->bus, BUS_MMIO, MEMORY + 0x100, value, size);
        assert_int_equal(bus_read(f->bus, BUS_MMIO, MEMORY + 0x100, size), value & mask);
        assert_int_equal(bus_read(f->bus, BUS_MMIO, MEMORY + 0x100, 8), value | ~mask);
    }
    bus_write(f->bus, BUS_MMIO, MEMORY + 0xfffe, 0x55, 4); /* past the end: dropped */
    assert_int_equal(bus_read(f->bus, BUS_MMIO, MEMORY + 0xfffe, 2), 0);
}

/* The page keeps its contents, and whoever watches memory is told. */
static void test_flush(void **state)
{
    struct fixture *f = *state;
    uint32_t value = 0x600dcafe;
    assert_true(ram_write(f->ram, 0x5ff0, &value, sizeof(value)));
    const uint8_t *hva = ram_hva(f->ram, 0x5000, 1);
    ram_set_watcher(f->ram, on_written, f);
    bus_write(f->bus, BUS_PORT, FLUSH, 0x5123, 4);
    assert_int_equal(f->watched, 1);
    assert_ptr_equal(ram_hva(f->ram, 0x5000, 1), hva);
    value = 0;
    assert_true(ram_read(f->ram, 0x5ff0, &value, sizeof(value)));
    assert_int_equal(value, 0x600dcafe);
    bus_write(f->bus, BUS_PORT, FLUSH, 0xfffff000, 4); /* no memory: nothing */
    assert_int_equal(f->watched, 1);
    ram_set_watcher(f->ram, NULL, NULL);
}

static void test_save(void **state)
{
    struct fixture *f = *state;
    bus_write(f->bus, BUS_PORT, VALUE, 0x12345678, 4);
    bus_write(f->bus, BUS_MMIO, MEMORY + 8, 77, 8);
    out8(f->bus, GSI + 3, 1);
    save_and_load(&testdev_ops, f->dev, f->dev);
    assert_int_equal(bus_read(f->bus, BUS_PORT, VALUE, 4), 0x12345678);
    assert_int_equal(bus_read(f->bus, BUS_MMIO, MEMORY + 8, 8), 77);
    assert_int_equal(in8(f->bus, GSI + 3), 1);
    assert_true(load_mutations(&testdev_ops, f->dev, 8) > 0);
    hostile_ports(f->bus, GSI - 4, 40);
    hostile_ports(f->bus, VALUE - 4, 16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_gsi, setup, teardown),
        cmocka_unit_test_setup_teardown(test_values, setup, teardown),
        cmocka_unit_test_setup_teardown(test_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_flush, setup, teardown),
        cmocka_unit_test_setup_teardown(test_save, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
