/* SPDX-License-Identifier: BSD-2-Clause
 * The debug console through the bus. */
#include "legacy.h"

#include "dev/debugcon.h"

struct fixture {
    struct bus *bus;
    struct sink sink;
    struct debugcon *con;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    f->bus = bus_create(NULL);
    sink_init(&f->sink);
    struct debugcon_config config = {.base = 0xe9, .backend = &f->sink.backend};
    f->con = debugcon_create(&config, f->bus, NULL);
    assert_non_null(f->con);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    debugcon_ops.destroy(f->con);
    assert_null(f->sink.handler.writable);
    bus_destroy(f->bus);
    free(f);
    return 0;
}

static void test_output(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(in8(f->bus, 0xe9), 0xe9);
    for (const char *p = "hi\n"; *p; p++)
        out8(f->bus, 0xe9, (uint8_t)*p);
    bus_write(f->bus, BUS_PORT, 0xe9, 0x41424344, 4); /* one byte is the port's */
    assert_int_equal(bus_read(f->bus, BUS_PORT, 0xe9, 2), 0xffe9);
    assert_int_equal(f->sink.count, 4);
    assert_memory_equal(f->sink.bytes, "hi\nD", 4);
    save_and_load(&debugcon_ops, f->con, f->con);
}

static void test_slow_backend(void **state)
{
    struct fixture *f = *state;
    f->sink.room = 3;
    for (unsigned i = 0; i < 66000; i++)
        out8(f->bus, 0xe9, (uint8_t)(i * 7));
    assert_int_equal(f->sink.count, 3);
    f->sink.room = 10;
    f->sink.handler.writable(f->sink.handler.opaque);
    assert_int_equal(f->sink.count, 13);
    out8(f->bus, 0xe9, 0xaa); /* behind the others */
    f->sink.room = SIZE_MAX;
    f->sink.handler.writable(f->sink.handler.opaque);
    assert_int_equal(f->sink.count, 3 + 65536 + 1);
    for (unsigned i = 0; i < 3 + 65536; i++)
        assert_int_equal(f->sink.bytes[i], (uint8_t)(i * 7));
    assert_int_equal(f->sink.bytes[3 + 65536], 0xaa);
}

static void test_no_backend(void **state)
{
    struct fixture *f = *state;
    struct debugcon_config config = {.base = 0x402};
    struct debugcon *con = debugcon_create(&config, f->bus, NULL);
    assert_non_null(con);
    out8(f->bus, 0x402, 'x');
    assert_int_equal(f->sink.count, 0);
    debugcon_ops.destroy(con);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {T(test_output), T(test_slow_backend), T(test_no_backend)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
