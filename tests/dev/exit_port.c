/* SPDX-License-Identifier: BSD-2-Clause
 * The exit port through the bus. */
#include "legacy.h"

#include "dev/exit_port.h"

struct result {
    unsigned count;
    uint32_t value;
};

static void on_exit_value(void *opaque, uint32_t value)
{
    struct result *result = opaque;
    result->count++;
    result->value = value;
}

static void test_exit_port(void **state)
{
    struct bus *bus = bus_create(NULL);
    struct result result = {0};
    struct exit_port_config config = {0xf4, on_exit_value, &result};
    struct exit_port *port = exit_port_create(&config, bus, NULL);
    assert_non_null(port);
    assert_null(exit_port_create(&config, bus, NULL)); /* the place is taken */
    bus_write(bus, BUS_PORT, 0xf4, 0x12345678, 1);
    assert_int_equal(result.value, 0x78);
    bus_write(bus, BUS_PORT, 0xf4, 0x12345678, 2);
    assert_int_equal(result.value, 0x5678);
    bus_write(bus, BUS_PORT, 0xf4, 0x12345678, 4);
    assert_int_equal(result.value, 0x12345678);
    assert_int_equal(result.count, 3);
    bus_write(bus, BUS_PORT, 0xf5, 1, 1); /* not the port */
    bus_write(bus, BUS_PORT, 0xf7, 1, 4);
    assert_int_equal(result.count, 3);
    assert_int_equal(bus_read(bus, BUS_PORT, 0xf4, 4), 0);
    save_and_load(&exit_port_ops, port, port);
    exit_port_ops.destroy(port);
    bus_write(bus, BUS_PORT, 0xf4, 1, 1);
    assert_int_equal(result.count, 3);
    bus_destroy(bus);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_exit_port)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
