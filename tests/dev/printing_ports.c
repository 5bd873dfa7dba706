/* SPDX-License-Identifier: BSD-2-Clause
 * The parallel port and the POST ports through the bus: what comes out at their back ends. */
#include "legacy.h"

#include "dev/parallel.h"
#include "dev/post_port.h"

enum { LPT = 0x378, STROBE = 1, IRQ = 1 << 4 };

struct fixture {
    struct bus *bus;
    struct sink sink;
    struct wire wire;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    f->bus = bus_create(NULL);
    sink_init(&f->sink);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    assert_null(f->sink.handler.writable);
    bus_destroy(f->bus);
    free(f);
    return 0;
}

static struct parallel *make_parallel(struct fixture *f, bool ignores_strobe)
{
    const struct parallel_config config = {.base = LPT,
                                           .irq = wire_line(&f->wire, 7),
                                           .ignores_strobe = ignores_strobe,
                                           .backend = &f->sink.backend};
    struct parallel *port = parallel_create(&config, f->bus, NULL);
    assert_non_null(port);
    return port;
}

/* IEEE 1284 compatibility mode: a byte goes out when STROBE rises, once. */
static void test_strobe(void **state)
{
    struct fixture *f = *state;
    struct parallel *port = make_parallel(f, false);
    assert_int_equal(in8(f->bus, LPT + 1) & 0xf8, 0xd8); /* ready: not busy, selected, no error */
    out8(f->bus, LPT, 'x'); /* what a driver writes to find the port does not print */
    out8(f->bus, LPT, 'h');
    assert_int_equal(in8(f->bus, LPT), 'h');
    assert_int_equal(f->sink.count, 0);
    out8(f->bus, LPT + 2, 0x0c | STROBE);
    out8(f->bus, LPT + 2, 0x0c | STROBE);
    assert_int_equal(f->sink.count, 1);
    assert_int_equal(f->wire.rises, 0);
    out8(f->bus, LPT + 2, 0x0c);
    out8(f->bus, LPT, 'i');
    out8(f->bus, LPT + 2, 0x0c | STROBE | IRQ);
    assert_int_equal(f->wire.rises, 1);
    assert_false(f->wire.level);
    assert_memory_equal(f->sink.bytes, "hi", 2);
    assert_int_equal(in8(f->bus, LPT + 2), 0xc0 | 0x0c | STROBE | IRQ);
    save_and_load(&parallel_ops, port, port);
    assert_int_equal(in8(f->bus, LPT), 'i');
    assert_int_equal(in8(f->bus, LPT + 2), 0xc0 | 0x0c | STROBE | IRQ);
    assert_true(load_mutations(&parallel_ops, port, 8) > 0);
    hostile_ports(f->bus, LPT - 2, 8);
    parallel_ops.destroy(port);
}

static void test_no_strobe(void **state)
{
    struct fixture *f = *state;
    struct parallel *port = make_parallel(f, true);
    out8(f->bus, LPT, 'o');
    out8(f->bus, LPT, 'k');
    out8(f->bus, LPT + 2, 0x0c | STROBE);
    assert_int_equal(f->sink.count, 2);
    assert_memory_equal(f->sink.bytes, "ok", 2);
    parallel_ops.destroy(port);
}

static void test_post(void **state)
{
    struct fixture *f = *state;
    const struct post_port_config config = {
        .ports = {0x80, 0x190}, .port_count = 2, .backend = &f->sink.backend};
    struct post_port *post = post_port_create(&config, f->bus, NULL);
    assert_non_null(post);
    assert_null(post_port_create(&config, f->bus, NULL)); /* the places are taken */
    out8(f->bus, 0x80, 0x11);
    out8(f->bus, 0x190, 0x22);
    bus_write(f->bus, BUS_PORT, 0x190, 0x5533, 2); /* the next port is another's */
    out8(f->bus, 0x81, 0x44);
    assert_int_equal(f->sink.count, 3);
    assert_memory_equal(f->sink.bytes, "\x11\x22\x33", 3);
    assert_int_equal(in8(f->bus, 0x80), 0x11);
    assert_int_equal(in8(f->bus, 0x190), 0x33);
    save_and_load(&post_port_ops, post, post);
    assert_int_equal(in8(f->bus, 0x190), 0x33);
    post_port_ops.reset(post);
    assert_int_equal(in8(f->bus, 0x190), 0);
    load_mutations(&post_port_ops, post, 8);
    post_port_ops.destroy(post);
}

/* Without a back end a write is dropped, as kernels expect that pass time there. */
static void test_post_without_backend(void **state)
{
    struct fixture *f = *state;
    const struct post_port_config config = {.ports = {0x80}, .port_count = 1};
    struct post_port *post = post_port_create(&config, f->bus, NULL);
    assert_non_null(post);
    out8(f->bus, 0x80, 1);
    assert_int_equal(f->sink.count, 0);
    post_port_ops.destroy(post);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_strobe, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_strobe, setup, teardown),
        cmocka_unit_test_setup_teardown(test_post, setup, teardown),
        cmocka_unit_test_setup_teardown(test_post_without_backend, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
