/* SPDX-License-Identifier: BSD-2-Clause
 * The reset control register through the bus. */
#include "legacy.h"

#include "dev/reset_cf9.h"

struct fixture {
    struct bus *bus;
    unsigned resets;
    struct reset_cf9 *device;
};

static void on_reset(void *opaque)
{
    struct fixture *f = opaque;
    f->resets++;
    in8(f->bus, 0xcf9); /* would hang with the lock held */
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    f->bus = bus_create(NULL);
    struct reset_cf9_config config = {0xcf9, on_reset, f};
    f->device = reset_cf9_create(&config, f->bus, NULL);
    assert_non_null(f->device);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    reset_cf9_ops.destroy(f->device);
    bus_destroy(f->bus);
    free(f);
    return 0;
}

static void test_reset(void **state)
{
    struct fixture *f = *state;
    out8(f->bus, 0xcf9, 0x02); /* says which kind; does nothing yet */
    assert_int_equal(f->resets, 0);
    assert_int_equal(in8(f->bus, 0xcf9), 0x02);
    out8(f->bus, 0xcf9, 0x06);
    assert_int_equal(f->resets, 1);
    out8(f->bus, 0xcf9, 0x06); /* only a rise counts */
    assert_int_equal(f->resets, 1);
    out8(f->bus, 0xcf9, 0xf2);
    assert_int_equal(in8(f->bus, 0xcf9), 0x02);
    out8(f->bus, 0xcf9, 0x0e);
    assert_int_equal(f->resets, 2);
    reset_cf9_ops.reset(f->device);
    assert_int_equal(in8(f->bus, 0xcf9), 0);
    bus_write(f->bus, BUS_PORT, 0xcf9, 0xffff0004, 4);
    assert_int_equal(f->resets, 3);
    assert_int_equal(bus_read(f->bus, BUS_PORT, 0xcf9, 4), 0xffffff04);
}

static void test_passed_on(void **state)
{
    struct fixture *f = *state;
    struct reset_cf9_config config = {0, on_reset, f};
    struct reset_cf9 *device = reset_cf9_create(&config, NULL, NULL);
    assert_non_null(device);
    reset_cf9_write(device, 0, 0x04, 1);
    assert_int_equal(f->resets, 1);
    assert_int_equal(reset_cf9_read(device, 0, 1), 0x04);
    reset_cf9_ops.destroy(device);
}

static void test_save_and_load(void **state)
{
    struct fixture *f = *state;
    out8(f->bus, 0xcf9, 0x04);
    save_and_load(&reset_cf9_ops, f->device, f->device);
    out8(f->bus, 0xcf9, 0x04); /* no rise */
    assert_int_equal(f->resets, 1);
    assert_int_equal(load_mutations(&reset_cf9_ops, f->device, 10), 5); /* the bits there are not */
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {T(test_reset), T(test_passed_on), T(test_save_and_load)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
