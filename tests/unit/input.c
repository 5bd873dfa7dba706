/* SPDX-License-Identifier: BSD-2-Clause
 * Who gets keys and pointer: the last device that listens, and nothing stays down. */
#include "machine/input.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

struct sink {
    bool is_listening;
    unsigned keys, downs, last_key;
    struct input_pointer pointer;
    unsigned pointers;
    int dx, dy; /* summed up */
};

struct fixture {
    struct input *input;
    struct sink mouse, tablet, keyboard; /* in this order; the first takes keys, too */
};

static void take_key(void *opaque, unsigned key, bool is_down)
{
    struct sink *sink = opaque;
    sink->keys++;
    sink->downs += is_down ? 1 : (unsigned)-1;
    sink->last_key = key;
}

static void take_pointer(void *opaque, const struct input_pointer *pointer)
{
    struct sink *sink = opaque;
    sink->pointer = *pointer;
    sink->pointers++;
    sink->dx += pointer->dx;
    sink->dy += pointer->dy;
}

static bool is_listening(void *opaque)
{
    return ((struct sink *)opaque)->is_listening;
}

static void fill(struct fixture *f)
{
    f->input = input_create(NULL);
    assert_non_null(f->input);
    input_add(f->input, &(struct input_device){
                            .key = take_key, .pointer = take_pointer, .opaque = &f->mouse});
    input_add(f->input, &(struct input_device){.pointer = take_pointer,
                                               .takes_absolute = true,
                                               .is_listening = is_listening,
                                               .opaque = &f->tablet});
    input_add(f->input, &(struct input_device){
                            .key = take_key, .is_listening = is_listening, .opaque = &f->keyboard});
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    fill(f);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    input_ops.destroy(f->input);
    free(f);
    return 0;
}

static void test_keys(void **state)
{
    struct fixture *f = *state;
    input_key(f->input, 30, true);
    assert_int_equal(f->mouse.downs, 1);
    f->keyboard.is_listening = true;
    input_key(f->input, 31, true);
    assert_int_equal(f->keyboard.downs, 1);
    assert_int_equal(f->keyboard.last_key, 31);
    input_key(f->input, 30, true); /* repeats, and goes up, where it is down */
    input_key(f->input, 30, false);
    assert_int_equal(f->mouse.keys, 3);
    input_key(f->input, 30, false); /* is up */
    input_key(f->input, INPUT_MAX_KEYS, true);
    input_key(f->input, UINT32_MAX, true);
    assert_int_equal(f->mouse.keys, 3);
    assert_int_equal(f->keyboard.keys, 1);
    input_key(f->input, 29, true);
    input_release(f->input);
    assert_int_equal(f->keyboard.downs, 0);
    assert_int_equal(f->keyboard.keys, 4);
    input_release(f->input);
    assert_int_equal(f->keyboard.keys, 4);
}

static void test_absolute(void **state)
{
    struct fixture *f = *state;
    struct input_pointer at = {.is_absolute = true, .x = 100, .y = 200, .wheel_up = 1};
    assert_false(input_is_absolute(f->input));
    f->tablet.is_listening = true;
    assert_true(input_is_absolute(f->input));
    input_pointer(f->input, &at);
    assert_true(f->tablet.pointer.is_absolute);
    assert_int_equal(f->tablet.pointer.x, 100);
    assert_int_equal(f->tablet.pointer.y, 200);
    assert_int_equal(f->tablet.pointer.wheel_up, 1);
    at.x = 0xffff;
    input_pointer(f->input, &at);
    assert_int_equal(f->tablet.pointer.x, INPUT_POSITION_MAX);
    struct input_pointer by = {.dx = -2000000000, .dy = 384};
    input_pointer(f->input, &by);
    assert_int_equal(f->tablet.pointer.x, 0);
    assert_int_equal(f->tablet.pointer.y, 200 + INPUT_POSITION_MAX / 2);
}

/* However small the steps: over the whole screen the movement is the screen's. */
static void test_positions_to_movement(void **state)
{
    struct fixture *f = *state;
    struct input_pointer at = {.is_absolute = true};
    for (unsigned x = 0; x <= INPUT_POSITION_MAX; x += 7) {
        at.x = at.y = (uint16_t)x;
        input_pointer(f->input, &at);
    }
    assert_false(f->mouse.pointer.is_absolute);
    assert_in_range(f->mouse.dx, 1022, 1024);
    assert_in_range(f->mouse.dy, 766, 768);
    at.x = at.y = 0;
    input_pointer(f->input, &at);
    assert_in_range(f->mouse.dx + 1, 0, 2);
    assert_in_range(f->mouse.dy + 1, 0, 2);
}

static void test_buttons(void **state)
{
    struct fixture *f = *state;
    struct input_pointer press = {.is_absolute = true, .x = 5, .y = 6, .buttons = 0x1ff};
    input_pointer(f->input, &press);
    assert_int_equal(f->mouse.pointer.buttons, 0x1f);
    f->tablet.is_listening = true; /* the guest's driver comes while the button is down */
    input_pointer(f->input, &press);
    assert_int_equal(f->mouse.pointer.buttons, 0);
    assert_int_equal(f->tablet.pointer.buttons, 0x1f);
    input_release(f->input);
    assert_int_equal(f->tablet.pointer.buttons, 0);
    assert_int_equal(f->tablet.pointer.x, 5);
    assert_int_equal(f->tablet.pointers, 2);
}

static void save_to(struct fixture *f, struct save *save)
{
    save_begin(save, input_ops.name, input_ops.version);
    input_ops.save(f->input, save);
    save_end(save);
}

static bool load_from(struct fixture *f, const struct save *save)
{
    struct load load;
    uint32_t version;
    load_init(&load, save->bytes, save->size_bytes);
    return load_begin(&load, input_ops.name, &version) &&
           input_ops.load(f->input, &load, version) && load_end(&load);
}

/* What was held when a machine was saved goes up in the one that goes on. */
static void test_save_and_load(void **state)
{
    struct fixture *f = *state, other = {0};
    struct save save = {0};
    f->keyboard.is_listening = true;
    input_key(f->input, 42, true);
    input_pointer(f->input, &(struct input_pointer){.dx = 1, .buttons = INPUT_RIGHT});
    save_to(f, &save);
    fill(&other);
    assert_true(load_from(&other, &save));
    input_release(other.input);
    assert_int_equal(other.keyboard.last_key, 42);
    assert_int_equal(other.keyboard.keys, 1);
    assert_int_equal(other.mouse.pointers, 1);
    /* There is no device of number 255. */
    for (size_t i = save.size_bytes - 782; i < save.size_bytes - 12; i++) {
        uint8_t byte = save.bytes[i];
        save.bytes[i] = 0xff;
        assert_false(load_from(&other, &save));
        save.bytes[i] = byte;
    }
    input_ops.reset(f->input);
    input_release(f->input);
    assert_int_equal(f->keyboard.keys, 1);
    input_ops.destroy(other.input);
    save_free(&save);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_keys, setup, teardown),
        cmocka_unit_test_setup_teardown(test_absolute, setup, teardown),
        cmocka_unit_test_setup_teardown(test_positions_to_movement, setup, teardown),
        cmocka_unit_test_setup_teardown(test_buttons, setup, teardown),
        cmocka_unit_test_setup_teardown(test_save_and_load, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
