/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Shares input out; see input.h. Its lock is held while a device is called, which takes its own.
 */
#include "machine/input.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* What a whole screen is in counts of a relative device. The guest's acceleration makes something
 * else of it anyway. */
enum { SCREEN_COUNTS_X = 1024, SCREEN_COUNTS_Y = 768 };

/* Where one axis is: the position and, for a relative device, what has not been told of it. */
struct axis {
    int32_t position;
    int32_t untold; /* in positions times counts, less than INPUT_POSITION_MAX either way */
};

struct input {
    pthread_mutex_t lock;
    struct input_device devices[INPUT_MAX_DEVICES];
    unsigned device_count;
    uint8_t held_by[INPUT_MAX_KEYS]; /* the device that was told that it is down, + 1; 0: up */
    uint8_t buttons_held_by;         /* the same of the buttons */
    uint8_t buttons;
    struct axis x, y;
};

struct input *input_create(struct error *err)
{
    struct input *input = calloc(1, sizeof(*input));
    if (!input) {
        error_errno(err, "cannot make the machine's input", NULL, ENOMEM);
        return NULL;
    }
    pthread_mutex_init(&input->lock, NULL);
    return input;
}

void input_add(struct input *input, const struct input_device *device)
{
    assert(input->device_count < INPUT_MAX_DEVICES);
    input->devices[input->device_count++] = *device;
}

/* The number of the last device of the kind that listens, + 1; 0: there is none. */
static unsigned find(const struct input *input, bool takes_keys)
{
    for (unsigned number = input->device_count; number; number--) {
        const struct input_device *device = &input->devices[number - 1];
        bool is_kind = takes_keys ? device->key != NULL : device->pointer != NULL;
        if (is_kind && (!device->is_listening || device->is_listening(device->opaque)))
            return number;
    }
    return 0;
}

void input_key(struct input *input, unsigned key, bool is_down)
{
    if (key >= INPUT_MAX_KEYS)
        return;
    pthread_mutex_lock(&input->lock);
    unsigned number = input->held_by[key];
    if (!number && is_down)
        number = find(input, true);
    input->held_by[key] = is_down ? (uint8_t)number : 0;
    if (number) {
        const struct input_device *device = &input->devices[number - 1];
        device->key(device->opaque, key, is_down);
    }
    pthread_mutex_unlock(&input->lock);
}

static int32_t clamp(int64_t value, int32_t low, int32_t high)
{
    return value < low ? low : value > high ? high : (int32_t)value;
}

/* Moves an axis to a position and gives the counts that a relative device is to tell. */
static int move_to(struct axis *axis, uint16_t position, int counts)
{
    int32_t to = clamp(position, 0, INPUT_POSITION_MAX);
    int32_t untold = axis->untold + (to - axis->position) * counts;
    axis->position = to;
    axis->untold = untold % INPUT_POSITION_MAX;
    return untold / INPUT_POSITION_MAX;
}

/* Moves an axis by counts and gives the position. */
static uint16_t move_by(struct axis *axis, int delta, int counts)
{
    axis->position =
        clamp(axis->position + (int64_t)delta * INPUT_POSITION_MAX / counts, 0, INPUT_POSITION_MAX);
    return (uint16_t)axis->position;
}

static void tell_pointer(struct input *input, unsigned number, struct input_pointer pointer)
{
    const struct input_device *device = &input->devices[number - 1];
    if (pointer.is_absolute) {
        pointer.dx = move_to(&input->x, pointer.x, SCREEN_COUNTS_X);
        pointer.dy = move_to(&input->y, pointer.y, SCREEN_COUNTS_Y);
        pointer.x = (uint16_t)input->x.position;
        pointer.y = (uint16_t)input->y.position;
    } else {
        pointer.x = move_by(&input->x, pointer.dx, SCREEN_COUNTS_X);
        pointer.y = move_by(&input->y, pointer.dy, SCREEN_COUNTS_Y);
    }
    pointer.is_absolute = device->takes_absolute;
    device->pointer(device->opaque, &pointer);
}

static void release_buttons(struct input *input)
{
    if (input->buttons_held_by) {
        const struct input_pointer up = {
            .is_absolute = true,
            .x = (uint16_t)input->x.position,
            .y = (uint16_t)input->y.position,
        };
        tell_pointer(input, input->buttons_held_by, up);
    }
    input->buttons = input->buttons_held_by = 0;
}

void input_pointer(struct input *input, const struct input_pointer *pointer)
{
    pthread_mutex_lock(&input->lock);
    unsigned number = find(input, false);
    if (input->buttons_held_by && input->buttons_held_by != number)
        release_buttons(input);
    if (number) {
        struct input_pointer copy = *pointer;
        copy.buttons &= 0x1f;
        tell_pointer(input, number, copy);
        input->buttons = (uint8_t)copy.buttons;
        input->buttons_held_by = copy.buttons ? (uint8_t)number : 0;
    }
    pthread_mutex_unlock(&input->lock);
}

bool input_is_absolute(struct input *input)
{
    pthread_mutex_lock(&input->lock);
    unsigned number = find(input, false);
    bool is_absolute = number && input->devices[number - 1].takes_absolute;
    pthread_mutex_unlock(&input->lock);
    return is_absolute;
}

void input_release(struct input *input)
{
    pthread_mutex_lock(&input->lock);
    for (unsigned key = 0; key < INPUT_MAX_KEYS; key++) {
        if (!input->held_by[key])
            continue;
        const struct input_device *device = &input->devices[input->held_by[key] - 1];
        input->held_by[key] = 0;
        device->key(device->opaque, key, false);
    }
    release_buttons(input);
    pthread_mutex_unlock(&input->lock);
}

/* ---- struct device_ops ---- */

static void forget(struct input *input)
{
    memset(input->held_by, 0, sizeof(input->held_by));
    input->buttons = input->buttons_held_by = 0;
    input->x = input->y = (struct axis){0};
}

static void input_reset(void *device)
{
    struct input *input = device;
    pthread_mutex_lock(&input->lock);
    forget(input);
    pthread_mutex_unlock(&input->lock);
}

static void axis_save(const struct axis *axis, struct save *save)
{
    save_u16(save, (uint16_t)axis->position);
    save_u32(save, (uint32_t)axis->untold);
}

static void axis_load(struct axis *axis, struct load *load)
{
    axis->position = load_u16(load);
    axis->untold = (int32_t)load_u32(load);
    if (axis->position > INPUT_POSITION_MAX || axis->untold <= -INPUT_POSITION_MAX ||
        axis->untold >= INPUT_POSITION_MAX)
        load_fail(load);
}

static void input_save(void *device, struct save *save)
{
    struct input *input = device;
    pthread_mutex_lock(&input->lock);
    save_bytes(save, input->held_by, sizeof(input->held_by));
    save_u8(save, input->buttons_held_by);
    save_u8(save, input->buttons);
    axis_save(&input->x, save);
    axis_save(&input->y, save);
    pthread_mutex_unlock(&input->lock);
}

/* Number of a device, + 1, that takes such input; 0 is fine. */
static bool is_number(const struct input *input, unsigned number, bool takes_keys)
{
    if (!number || number > input->device_count)
        return !number;
    const struct input_device *device = &input->devices[number - 1];
    return takes_keys ? device->key != NULL : device->pointer != NULL;
}

static bool input_load(void *device, struct load *load, uint32_t version)
{
    struct input *input = device;
    pthread_mutex_lock(&input->lock);
    load_bytes(load, input->held_by, sizeof(input->held_by));
    input->buttons_held_by = load_u8(load);
    input->buttons = load_u8(load);
    axis_load(&input->x, load);
    axis_load(&input->y, load);
    for (unsigned key = 0; key < INPUT_MAX_KEYS; key++)
        if (!is_number(input, input->held_by[key], true))
            load_fail(load);
    if (!is_number(input, input->buttons_held_by, false) || input->buttons > 0x1f ||
        version != input_ops.version)
        load_fail(load);
    if (load->failed)
        forget(input);
    pthread_mutex_unlock(&input->lock);
    return !load->failed;
}

static void input_destroy(void *device)
{
    struct input *input = device;
    pthread_mutex_destroy(&input->lock);
    free(input);
}

const struct device_ops input_ops = {
    .name = "input",
    .version = 1,
    .reset = input_reset,
    .save = input_save,
    .load = input_load,
    .destroy = input_destroy,
};
