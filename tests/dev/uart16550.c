/* SPDX-License-Identifier: BSD-2-Clause
 * The 16550A through the bus. */
#include "legacy.h"

#include "dev/uart16550.h"

enum { BASE = 0x3f8, DATA = BASE, IER, IIR, LCR, MCR, LSR, MSR, SCR };

struct fixture {
    struct bus *bus;
    struct clock *clock;
    struct wire irq;
    struct sink sink;
    struct uart16550 *uart;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    f->bus = bus_create(NULL);
    f->clock = clock_create(NULL);
    sink_init(&f->sink);
    struct uart16550_config config = {
        .base = BASE, .irq = wire_line(&f->irq, 4), .backend = &f->sink.backend};
    f->uart = uart16550_create(&config, f->bus, f->clock, NULL);
    assert_non_null(f->uart);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    uart16550_ops.destroy(f->uart);
    assert_null(f->sink.handler.receive);
    bus_destroy(f->bus);
    clock_destroy(f->clock);
    free(f);
    return 0;
}

static size_t receive(struct fixture *f, const char *text)
{
    return f->sink.handler.receive(f->sink.handler.opaque, (const uint8_t *)text, strlen(text));
}

static void test_registers(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(in8(f->bus, LSR), 0x60);
    assert_int_equal(in8(f->bus, IIR), 0x01);
    assert_int_equal(in8(f->bus, MSR), 0xb0);
    out8(f->bus, SCR, 0x5a);
    assert_int_equal(in8(f->bus, SCR), 0x5a);
    out8(f->bus, LCR, 0x83);
    out8(f->bus, DATA, 0x01);
    out8(f->bus, IER, 0x02);
    assert_int_equal(bus_read(f->bus, BUS_PORT, BASE, 2), 0x0201);
    out8(f->bus, LCR, 0x03);
    assert_int_equal(f->sink.count, 0); /* the divisor is not sent */
    out8(f->bus, IER, 0xff);
    assert_int_equal(in8(f->bus, IER), 0x0f);
    out8(f->bus, IIR, 0xc1);
    assert_int_equal(in8(f->bus, IIR) & 0xc0, 0xc0);
}

static void test_transmit(void **state)
{
    struct fixture *f = *state;
    for (const char *p = "hello"; *p; p++)
        out8(f->bus, DATA, (uint8_t)*p);
    assert_int_equal(f->sink.count, 5);
    assert_memory_equal(f->sink.bytes, "hello", 5);
}

static void test_transmit_interrupt(void **state)
{
    struct fixture *f = *state;
    out8(f->bus, IER, 0x02);
    assert_true(f->irq.level);
    assert_int_equal(in8(f->bus, IIR), 0x02);
    assert_false(f->irq.level); /* reading IIR ends it */
    assert_int_equal(in8(f->bus, IIR), 0x01);
    out8(f->bus, DATA, 'x');
    assert_true(f->irq.level);
    out8(f->bus, IER, 0x00);
    assert_false(f->irq.level);
}

static void test_back_pressure(void **state)
{
    struct fixture *f = *state;
    out8(f->bus, IIR, 0x01);
    f->sink.room = 2;
    out8(f->bus, IER, 0x02);
    in8(f->bus, IIR);
    for (unsigned i = 0; i < 16; i++)
        out8(f->bus, DATA, (uint8_t)('a' + i));
    assert_int_equal(in8(f->bus, LSR) & 0x60, 0);
    /* The first byte was taken whole and rang; nothing more rings while bytes wait. */
    in8(f->bus, IIR);
    assert_false(f->irq.level);
    out8(f->bus, IIR, 0x07); /* clearing the FIFO does not unsend */
    f->sink.room = SIZE_MAX;
    f->sink.handler.writable(f->sink.handler.opaque);
    assert_true(f->irq.level);
    assert_int_equal(in8(f->bus, LSR) & 0x60, 0x60);
    assert_int_equal(f->sink.count, 16);
    assert_memory_equal(f->sink.bytes, "abcdefghijklmnop", 16);
}

static void test_impatient_guest(void **state)
{
    struct fixture *f = *state;
    f->sink.room = 0;
    for (unsigned i = 0; i < 66000; i++)
        out8(f->bus, DATA, (uint8_t)i);
    f->sink.room = SIZE_MAX;
    f->sink.handler.writable(f->sink.handler.opaque);
    assert_int_equal(f->sink.count, 65536); /* what was promised, in order */
    for (unsigned i = 0; i < 65536; i++)
        assert_int_equal(f->sink.bytes[i], (uint8_t)i);
}

static void test_receive_single(void **state)
{
    struct fixture *f = *state;
    out8(f->bus, IER, 0x01);
    assert_int_equal(receive(f, "xyz"), 1); /* no FIFO: one */
    assert_true(f->irq.level);
    assert_int_equal(in8(f->bus, IIR), 0x04);
    assert_int_equal(in8(f->bus, LSR), 0x61);
    assert_int_equal(f->sink.accepts, 0);
    assert_int_equal(in8(f->bus, DATA), 'x');
    assert_int_equal(f->sink.accepts, 1);
    assert_false(f->irq.level);
    assert_int_equal(receive(f, "yz"), 1);
    assert_int_equal(in8(f->bus, DATA), 'y');
}

static void test_receive_trigger(void **state)
{
    struct fixture *f = *state;
    /* A slow line, so that the timeout does not come in between. */
    out8(f->bus, LCR, 0x83);
    bus_write(f->bus, BUS_PORT, BASE, 0xffff, 2);
    out8(f->bus, LCR, 0x03);
    out8(f->bus, IIR, 0x81); /* eight */
    out8(f->bus, IER, 0x01);
    assert_int_equal(receive(f, "1234567"), 7);
    assert_false(f->irq.level);
    assert_int_equal(receive(f, "89abcdefghijkl"), 9);
    assert_true(f->irq.level);
    for (unsigned i = 0; i < 9; i++)
        assert_int_equal(in8(f->bus, DATA), "123456789"[i]);
    assert_false(f->irq.level); /* seven left */
    assert_int_equal(in8(f->bus, LSR) & 1, 1);
    out8(f->bus, IIR, 0x83); /* clear */
    assert_int_equal(in8(f->bus, LSR) & 1, 0);
}

static void test_receive_timeout(void **state)
{
    struct fixture *f = *state;
    out8(f->bus, IIR, 0x81);
    out8(f->bus, IER, 0x01);
    receive(f, "ab");
    WAIT_FOR(f->irq.level);
    assert_int_equal(in8(f->bus, IIR), 0xcc);
    assert_int_equal(in8(f->bus, DATA), 'a');
    WAIT_FOR(f->irq.level); /* starts over for the rest */
    assert_int_equal(in8(f->bus, DATA), 'b');
    assert_false(f->irq.level);
    assert_int_equal(in8(f->bus, IIR), 0xc1);
}

static void test_priorities(void **state)
{
    struct fixture *f = *state;
    out8(f->bus, IER, 0x0f);
    f->sink.handler.send_break(f->sink.handler.opaque);
    f->sink.handler.connected(f->sink.handler.opaque, false);
    assert_int_equal(in8(f->bus, IIR), 0x06);
    assert_int_equal(in8(f->bus, LSR), 0x71); /* break, and its zero byte */
    assert_int_equal(in8(f->bus, IIR), 0x04);
    assert_int_equal(in8(f->bus, DATA), 0);
    assert_int_equal(in8(f->bus, IIR), 0x02);
    assert_int_equal(in8(f->bus, IIR), 0x00);
    assert_int_equal(in8(f->bus, MSR), 0x1a); /* DSR and DCD fell */
    assert_int_equal(in8(f->bus, MSR), 0x10);
    assert_int_equal(in8(f->bus, IIR), 0x01);
    assert_false(f->irq.level);
}

static void test_break_in_fifo(void **state)
{
    struct fixture *f = *state;
    out8(f->bus, IIR, 0x01);
    receive(f, "a");
    f->sink.handler.send_break(f->sink.handler.opaque);
    assert_int_equal(in8(f->bus, LSR), 0xe1); /* an error, but not at the top */
    assert_int_equal(in8(f->bus, DATA), 'a');
    assert_int_equal(in8(f->bus, LSR), 0xf1);
    assert_int_equal(in8(f->bus, LSR), 0x61);
}

static void test_loopback(void **state)
{
    struct fixture *f = *state;
    out8(f->bus, MCR, 0x10);
    assert_int_equal(in8(f->bus, MSR) & 0xf0, 0);
    out8(f->bus, MCR, 0x1f);
    assert_int_equal(in8(f->bus, MSR), 0xfb); /* a rise of RI is no event */
    out8(f->bus, MCR, 0x1b);
    assert_int_equal(in8(f->bus, MSR), 0xb4); /* its end is */
    out8(f->bus, DATA, 'q');
    assert_int_equal(f->sink.count, 0);
    assert_int_equal(in8(f->bus, DATA), 'q');
    assert_int_equal(receive(f, "z"), 0); /* refused, offered again after */
    out8(f->bus, DATA, '1');
    out8(f->bus, DATA, '2');
    assert_int_equal(in8(f->bus, LSR) & 0x02, 0x02); /* overrun */
    assert_int_equal(in8(f->bus, DATA), '2');
    out8(f->bus, LCR, 0x43);
    assert_int_equal(in8(f->bus, LSR) & 0x11, 0x11);
    in8(f->bus, DATA);
    assert_int_equal(f->sink.accepts, 0);
    out8(f->bus, MCR, 0x03);
    assert_int_equal(f->sink.accepts, 1);
}

static void test_save_and_load(void **state)
{
    struct fixture *f = *state;
    out8(f->bus, IIR, 0x41);
    out8(f->bus, IER, 0x03);
    out8(f->bus, SCR, 0x77);
    receive(f, "abc");
    f->sink.room = 0;
    out8(f->bus, DATA, 'X');
    out8(f->bus, DATA, 'Y');
    unsigned rises = f->irq.rises;
    save_and_load(&uart16550_ops, f->uart, f->uart);
    assert_int_equal(f->irq.rises, rises); /* a load moves no line */
    assert_int_equal(in8(f->bus, SCR), 0x77);
    assert_int_equal(in8(f->bus, LSR), 0x01);
    assert_int_equal(in8(f->bus, DATA), 'a');
    f->sink.room = SIZE_MAX;
    f->sink.handler.writable(f->sink.handler.opaque);
    assert_memory_equal(f->sink.bytes, "XY", 2);
    assert_int_equal(f->sink.count, 2);
    WAIT_FOR(f->irq.level);
    f->sink.room = 0;
    out8(f->bus, DATA, 'Z');
    assert_true(load_mutations(&uart16550_ops, f->uart, 40) > 20);
}

static void test_output_after_load(void **state)
{
    struct fixture *f = *state;
    f->sink.room = 0;
    out8(f->bus, DATA, 'X');
    clock_pause(f->clock);
    out8(f->bus, IER, 0x02);
    f->sink.room = 1;
    save_and_load(&uart16550_ops, f->uart, f->uart);
    assert_int_equal(f->sink.count, 0);
    clock_resume(f->clock); /* nobody calls writable(): the device looks by itself */
    WAIT_FOR(f->irq.level);
    assert_int_equal(f->sink.count, 1);
}

static void test_hostile(void **state)
{
    struct fixture *f = *state;
    hostile_ports(f->bus, BASE, 8);
    assert_int_equal(bus_read(f->bus, BUS_PORT, SCR, 4) >> 8, 0xffffff);
    uart16550_ops.reset(f->uart);
    assert_int_equal(in8(f->bus, LSR), 0x60);
    assert_false(f->irq.level);
}

static void test_no_backend(void **state)
{
    struct fixture *f = *state;
    struct uart16550_config config = {.base = 0x2f8};
    struct uart16550 *uart = uart16550_create(&config, f->bus, f->clock, NULL);
    assert_non_null(uart);
    out8(f->bus, 0x2f8, 'x');
    assert_int_equal(in8(f->bus, 0x2fd), 0x60);
    uart16550_ops.destroy(uart);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_registers),         T(test_transmit),        T(test_transmit_interrupt),
        T(test_back_pressure),     T(test_impatient_guest), T(test_receive_single),
        T(test_receive_trigger),   T(test_receive_timeout), T(test_priorities),
        T(test_break_in_fifo),     T(test_loopback),        T(test_save_and_load),
        T(test_output_after_load), T(test_hostile),         T(test_no_backend),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
