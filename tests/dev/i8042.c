/* SPDX-License-Identifier: BSD-2-Clause
 * The keyboard controller, keyboard and mouse through the bus. */
#include "legacy.h"

#include "dev/i8042.h"

#include <limits.h>

struct fixture {
    struct bus *bus;
    struct wire keyboard, mouse;
    unsigned resets;
    int a20; /* -1: not told */
    struct i8042 *kbc;
};

static void on_reset(void *opaque)
{
    struct fixture *f = opaque;
    f->resets++;
    in8(f->bus, 0x64); /* would hang with the lock held */
}

static void on_a20(void *opaque, bool enabled)
{
    struct fixture *f = opaque;
    f->a20 = enabled;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    f->bus = bus_create(NULL);
    f->a20 = -1;
    struct i8042_config config = {.data_base = 0x60,
                                  .command_base = 0x64,
                                  .keyboard_irq = wire_line(&f->keyboard, 1),
                                  .mouse_irq = wire_line(&f->mouse, 12),
                                  .reset = on_reset,
                                  .set_a20 = on_a20,
                                  .opaque = f};
    f->kbc = i8042_create(&config, f->bus, NULL);
    assert_non_null(f->kbc);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    i8042_ops.destroy(f->kbc);
    bus_destroy(f->bus);
    free(f);
    return 0;
}

static void command(struct fixture *f, uint8_t value)
{
    out8(f->bus, 0x64, value);
}

static void data(struct fixture *f, uint8_t value)
{
    out8(f->bus, 0x60, value);
}

static void to_mouse(struct fixture *f, uint8_t value)
{
    command(f, 0xd4);
    data(f, value);
}

/* The next byte, which must be there and be the keyboard's (or the controller's). */
static uint8_t key(struct fixture *f)
{
    assert_int_equal(in8(f->bus, 0x64) & 0x21, 0x01);
    return in8(f->bus, 0x60);
}

static uint8_t aux(struct fixture *f)
{
    assert_int_equal(in8(f->bus, 0x64) & 0x21, 0x21);
    return in8(f->bus, 0x60);
}

static void assert_empty(struct fixture *f)
{
    assert_int_equal(in8(f->bus, 0x64) & 1, 0);
}

static void set_mode(struct fixture *f, uint8_t mode)
{
    command(f, 0x60);
    data(f, mode);
}

static void test_controller(void **state)
{
    struct fixture *f = *state;
    assert_empty(f);
    command(f, 0xaa);
    assert_int_equal(key(f), 0x55);
    assert_int_equal(in8(f->bus, 0x64) & 0x0c, 0x0c);
    command(f, 0xab);
    assert_int_equal(key(f), 0);
    command(f, 0xa9);
    assert_int_equal(key(f), 0);
    set_mode(f, 0x47);
    command(f, 0x20);
    assert_int_equal(key(f), 0x47);
    command(f, 0xa7);
    command(f, 0xad);
    command(f, 0x20);
    assert_int_equal(key(f), 0x77);
    command(f, 0xa8);
    command(f, 0xae);
    command(f, 0x20);
    assert_int_equal(key(f), 0x47);
    assert_empty(f);
}

static void test_a20_and_reset(void **state)
{
    struct fixture *f = *state;
    command(f, 0xd0);
    assert_int_equal(key(f) & 0x03, 0x03);
    command(f, 0xdd);
    assert_int_equal(f->a20, 0);
    command(f, 0xdf);
    assert_int_equal(f->a20, 1);
    command(f, 0xd1);
    data(f, 0x01);
    assert_int_equal(f->a20, 0);
    assert_int_equal(f->resets, 0);
    command(f, 0xd1);
    data(f, 0x02);
    assert_int_equal(f->resets, 1);
    assert_int_equal(f->a20, 1);
    command(f, 0xff); /* pulses nothing */
    assert_int_equal(f->resets, 1);
    command(f, 0xfe);
    assert_int_equal(f->resets, 2);
}

static void test_keys_translated(void **state)
{
    struct fixture *f = *state;
    for (unsigned code = 1; code < 0x59; code++) { /* set 1 to 2 and back gives what went in */
        assert_true(i8042_key(f->kbc, code, true));
        assert_int_equal(key(f), code);
        assert_true(i8042_key(f->kbc, code, false));
        assert_int_equal(key(f), code | 0x80);
        assert_empty(f);
    }
    i8042_key(f->kbc, 0xe048, true);
    i8042_key(f->kbc, 0xe048, false);
    const uint8_t up[] = {0xe0, 0x48, 0xe0, 0xc8};
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(key(f), up[i]);
    i8042_key(f->kbc, 0xe11d, true);
    i8042_key(f->kbc, 0xe11d, false);
    const uint8_t pause[] = {0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5};
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(key(f), pause[i]);
    i8042_key(f->kbc, 0, true);
    i8042_key(f->kbc, 0x1234, true);
    i8042_key(f->kbc, 0x80, true);
    assert_empty(f);
}

static void test_scan_code_sets(void **state)
{
    struct fixture *f = *state;
    set_mode(f, 0x03);             /* no translation */
    i8042_key(f->kbc, 0x1e, true); /* A */
    i8042_key(f->kbc, 0x1e, false);
    assert_int_equal(key(f), 0x1c);
    assert_int_equal(key(f), 0xf0);
    assert_int_equal(key(f), 0x1c);
    data(f, 0xf0);
    assert_int_equal(key(f), 0xfa);
    data(f, 0x03);
    assert_int_equal(key(f), 0xfa);
    i8042_key(f->kbc, 0xe048, true); /* cursor up has a code of its own */
    i8042_key(f->kbc, 0x01, false);
    assert_int_equal(key(f), 0x63);
    assert_int_equal(key(f), 0xf0);
    assert_int_equal(key(f), 0x08);
    data(f, 0xf0);
    assert_int_equal(key(f), 0xfa);
    data(f, 0x00);
    assert_int_equal(key(f), 0xfa);
    assert_int_equal(key(f), 0x03);
    data(f, 0xf0);
    key(f);
    data(f, 0x01);
    key(f);
    i8042_key(f->kbc, 0x1e, false);
    assert_int_equal(key(f), 0x9e);
    data(f, 0xf0);
    key(f);
    data(f, 0x04);
    assert_int_equal(key(f), 0xfe);
    assert_empty(f);
}

/* With translation the answer to "which set" is translated like a key. */
static void test_translated_set(void **state)
{
    struct fixture *f = *state;
    const uint8_t told[4] = {0, 0x43, 0x41, 0x3f};
    for (uint8_t set = 1; set <= 3; set++) {
        data(f, 0xf0);
        assert_int_equal(key(f), 0xfa);
        data(f, set);
        assert_int_equal(key(f), 0xfa);
        data(f, 0xf0);
        assert_int_equal(key(f), 0xfa);
        data(f, 0);
        assert_int_equal(key(f), 0xfa);
        assert_int_equal(key(f), told[set]);
    }
}

static void test_keyboard_commands(void **state)
{
    struct fixture *f = *state;
    set_mode(f, 0x01);
    data(f, 0xff);
    assert_int_equal(key(f), 0xfa);
    assert_int_equal(key(f), 0xaa);
    data(f, 0xf2);
    assert_int_equal(key(f), 0xfa);
    assert_int_equal(key(f), 0xab);
    assert_int_equal(key(f), 0x83);
    data(f, 0xee);
    assert_int_equal(key(f), 0xee);
    data(f, 0xed);
    assert_int_equal(key(f), 0xfa);
    data(f, 0x02);
    assert_int_equal(key(f), 0xfa);
    data(f, 0xfe);
    assert_int_equal(key(f), 0xfa); /* the last one again */
    data(f, 0xf5);
    assert_int_equal(key(f), 0xfa);
    i8042_key(f->kbc, 0x1e, true);
    assert_empty(f); /* disabled */
    data(f, 0xf4);
    assert_int_equal(key(f), 0xfa);
    i8042_key(f->kbc, 0x1e, true);
    assert_int_equal(key(f), 0x1c);
    data(f, 0x42);
    assert_int_equal(key(f), 0xfe);
}

static void test_interrupts(void **state)
{
    struct fixture *f = *state;
    i8042_key(f->kbc, 0xe048, true);
    assert_true(f->keyboard.level);
    assert_int_equal(f->keyboard.number, 1);
    assert_int_equal(key(f), 0xe0);
    assert_int_equal(f->keyboard.rises, 2); /* an edge a byte */
    assert_int_equal(key(f), 0x48);
    assert_false(f->keyboard.level);
    command(f, 0xd3); /* as if from the mouse */
    data(f, 0xa5);
    assert_true(f->mouse.level);
    assert_int_equal(f->mouse.number, 12);
    assert_int_equal(aux(f), 0xa5);
    set_mode(f, 0x40);
    i8042_key(f->kbc, 0x1e, true);
    assert_false(f->keyboard.level);
    set_mode(f, 0x41);
    assert_true(f->keyboard.level);
}

static void test_answer_goes_first(void **state)
{
    struct fixture *f = *state;
    i8042_key(f->kbc, 0x1e, true);
    i8042_key(f->kbc, 0x1f, true);
    command(f, 0x20);
    assert_int_equal(key(f), 0x43);
    assert_int_equal(key(f), 0x1e); /* and no key is lost */
    assert_int_equal(key(f), 0x1f);
    command(f, 0xad);
    i8042_key(f->kbc, 0x20, true);
    assert_empty(f);
    command(f, 0xae);
    assert_int_equal(key(f), 0x20);
}

static void test_queue_is_bounded(void **state)
{
    struct fixture *f = *state;
    unsigned taken = 0;
    while (taken < 10000 && i8042_key(f->kbc, 0x1e, true))
        taken++;
    assert_in_range(taken, 16, 1000);
    for (unsigned i = 0; i < taken; i++)
        assert_int_equal(key(f), 0x1e);
    assert_empty(f);
    for (unsigned i = 0; i < 1000; i++)
        data(f, 0xf2);
    unsigned answers = 0;
    while ((in8(f->bus, 0x64) & 1) && answers < 10000) {
        in8(f->bus, 0x60);
        answers++;
    }
    assert_in_range(answers, 3, 1000);
}

static void test_mouse(void **state)
{
    struct fixture *f = *state;
    to_mouse(f, 0xff);
    assert_int_equal(aux(f), 0xfa);
    assert_int_equal(aux(f), 0xaa);
    assert_int_equal(aux(f), 0x00);
    i8042_mouse(f->kbc, 5, 5, 0, 1);
    assert_empty(f); /* reporting is off */
    to_mouse(f, 0xf4);
    assert_int_equal(aux(f), 0xfa);
    i8042_mouse(f->kbc, 10, 20, 3, 3);
    assert_int_equal(aux(f), 0x2b); /* dy is negative: upwards counts up */
    assert_int_equal(aux(f), 10);
    assert_int_equal(aux(f), (uint8_t)-20);
    assert_empty(f);
    i8042_mouse(f->kbc, -200, 0, 0, 0); /* in two packets */
    assert_int_equal(aux(f), 0x18);
    assert_int_equal(aux(f), (uint8_t)-127);
    assert_int_equal(aux(f), 0);
    assert_int_equal(aux(f), 0x18);
    assert_int_equal(aux(f), (uint8_t)-73);
    assert_int_equal(aux(f), 0);
    assert_empty(f);
    to_mouse(f, 0xe9);
    assert_int_equal(aux(f), 0xfa);
    assert_int_equal(aux(f), 0x20);
    assert_int_equal(aux(f), 2);
    assert_int_equal(aux(f), 100);
    to_mouse(f, 0xe8);
    assert_int_equal(aux(f), 0xfa);
    to_mouse(f, 9);
    assert_int_equal(aux(f), 0xfe);
}

static void set_rate(struct fixture *f, uint8_t rate)
{
    to_mouse(f, 0xf3);
    assert_int_equal(aux(f), 0xfa);
    to_mouse(f, rate);
    assert_int_equal(aux(f), 0xfa);
}

static void test_wheel(void **state)
{
    struct fixture *f = *state;
    set_rate(f, 200);
    set_rate(f, 100);
    set_rate(f, 80);
    to_mouse(f, 0xf2);
    assert_int_equal(aux(f), 0xfa);
    assert_int_equal(aux(f), 3);
    to_mouse(f, 0xf4);
    aux(f);
    i8042_mouse(f->kbc, 0, 0, -1, 4);
    const uint8_t packet[] = {0x0c, 0, 0, 0xff};
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(aux(f), packet[i]);
    set_rate(f, 200);
    set_rate(f, 200);
    set_rate(f, 80);
    to_mouse(f, 0xf2);
    aux(f);
    assert_int_equal(aux(f), 4);
    i8042_mouse(f->kbc, 0, 0, 1, 0x1c);
    const uint8_t side[] = {0x0c, 0, 0, 0x31};
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(aux(f), side[i]);
}

static void test_mouse_modes(void **state)
{
    struct fixture *f = *state;
    to_mouse(f, 0xee); /* wrap */
    assert_int_equal(aux(f), 0xfa);
    to_mouse(f, 0x77);
    assert_int_equal(aux(f), 0x77);
    to_mouse(f, 0xec);
    assert_int_equal(aux(f), 0xfa);
    to_mouse(f, 0xf4);
    aux(f);
    to_mouse(f, 0xf0); /* remote */
    aux(f);
    i8042_mouse(f->kbc, 7, 0, 0, 0);
    assert_empty(f);
    to_mouse(f, 0xeb);
    assert_int_equal(aux(f), 0xfa);
    assert_int_equal(aux(f), 0x08);
    assert_int_equal(aux(f), 7);
    assert_int_equal(aux(f), 0);
    to_mouse(f, 0xea);
    aux(f);
    i8042_mouse(f->kbc, 1000000000, -1000000000, 0, 0); /* held, bounded, sent on */
    unsigned packets = 0, sum = 0;
    while (in8(f->bus, 0x64) & 1) {
        aux(f);
        sum += aux(f);
        aux(f);
        packets++;
    }
    assert_int_equal(sum, 4096);
    assert_int_equal(packets, 33);
}

/* Every key of a keyboard of 104 keys arrives, by its number in Linux, as a code of its own. */
static void test_input_keys(void **state)
{
    struct fixture *f = *state;
    const struct input_device device = i8042_input(f->kbc);
    bool seen[2][128] = {0};
    unsigned keys = 0;
    assert_false(device.takes_absolute);
    for (unsigned number = 1; number <= 127; number++) {
        if (number == 119) /* Pause comes in one piece, see above */
            continue;
        device.key(device.opaque, number, true);
        if (!(in8(f->bus, 0x64) & 1))
            continue;
        uint8_t byte = key(f);
        bool is_extended = byte == 0xe0;
        if (is_extended)
            byte = key(f);
        assert_in_range(byte, 1, 127);
        assert_false(seen[is_extended][byte]);
        seen[is_extended][byte] = true;
        assert_empty(f);
        device.key(device.opaque, number, false);
        if (is_extended)
            assert_int_equal(key(f), 0xe0);
        assert_int_equal(key(f), byte | 0x80);
        assert_empty(f);
        keys++;
    }
    assert_true(keys >= 104);
    device.key(device.opaque, 106, true); /* cursor right */
    assert_int_equal(key(f), 0xe0);
    assert_int_equal(key(f), 0x4d);
    device.key(device.opaque, 0, true);
    device.key(device.opaque, 84, true);
    device.key(device.opaque, 100000, true);
    assert_empty(f);
}

static void test_input_pointer(void **state)
{
    struct fixture *f = *state;
    const struct input_device device = i8042_input(f->kbc);
    set_rate(f, 200);
    set_rate(f, 100);
    set_rate(f, 80);
    to_mouse(f, 0xf4);
    aux(f);
    device.pointer(device.opaque, &(struct input_pointer){
                                      .dx = 3, .dy = 4, .wheel_up = 1, .buttons = INPUT_MIDDLE});
    const uint8_t packet[] = {0x2c, 3, (uint8_t)-4, 0xff};
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(aux(f), packet[i]);
    device.pointer(device.opaque,
                   &(struct input_pointer){.wheel_up = INT_MIN, .buttons = INPUT_MIDDLE});
    const uint8_t down[] = {0x0c, 0, 0, 127};
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(aux(f), down[i]);
}

static void test_save_and_load(void **state)
{
    struct fixture *f = *state;
    set_mode(f, 0x43);
    to_mouse(f, 0xf4);
    aux(f);
    i8042_key(f->kbc, 0x1e, true);
    i8042_key(f->kbc, 0x1f, false);
    i8042_mouse(f->kbc, 1, 0, 0, 0);
    command(f, 0xd4); /* waits for its byte */
    save_and_load(&i8042_ops, f->kbc, f->kbc);
    f->keyboard.level = true; /* a load moves no line */
    data(f, 0xf2);
    assert_int_equal(key(f), 0x1e);
    assert_int_equal(key(f), 0x9f);
    assert_false(f->keyboard.level);
    assert_int_equal(aux(f), 0x08);
    assert_int_equal(aux(f), 1);
    assert_int_equal(aux(f), 0);
    assert_int_equal(aux(f), 0xfa);
    i8042_key(f->kbc, 0x1e, true);
    assert_true(load_mutations(&i8042_ops, f->kbc, 1000) > 40);
}

static void test_hostile(void **state)
{
    struct fixture *f = *state;
    hostile_ports(f->bus, 0x60, 1);
    hostile_ports(f->bus, 0x64, 1);
    hostile_ports(f->bus, 0x60, 5);
    i8042_ops.reset(f->kbc);
    assert_false(f->keyboard.level);
    assert_false(f->mouse.level);
    i8042_key(f->kbc, 0x1e, true);
    assert_int_equal(key(f), 0x1e);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_controller),       T(test_a20_and_reset),  T(test_keys_translated),
        T(test_scan_code_sets),   T(test_translated_set), T(test_keyboard_commands),
        T(test_interrupts),       T(test_mouse),          T(test_answer_goes_first),
        T(test_queue_is_bounded), T(test_wheel),          T(test_mouse_modes),
        T(test_save_and_load),    T(test_hostile),        T(test_input_keys),
        T(test_input_pointer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
