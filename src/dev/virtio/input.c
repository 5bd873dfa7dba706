/* SPDX-License-Identifier: BSD-2-Clause
 *
 * virtio input device (virtio 1.2, 5.8). Events are Linux's: type, code, value. Those that find no
 * buffer wait in a queue of our own; when that is full, whole groups of events are lost.
 */
#include "dev/virtio/input.h"

#include <errno.h>
#include <linux/input-event-codes.h>
#include <stdlib.h>
#include <string.h>

enum { EVENT_QUEUE, STATUS_QUEUE, QUEUE_COUNT, QUEUE_SIZE = 64 };

enum { /* 5.8.4: what the driver selects */
       SELECT_NONE = 0x00,
       SELECT_NAME = 0x01,
       SELECT_SERIAL = 0x02,
       SELECT_IDS = 0x03,
       SELECT_PROPERTIES = 0x10,
       SELECT_EVENTS = 0x11,
       SELECT_AXIS = 0x12,
};

enum { /* offsets in the configuration */
       CONFIG_SELECT = 0,
       CONFIG_SUBSELECT = 1,
       CONFIG_SIZE = 2,
       CONFIG_DATA = 8,
       DATA_BYTES = 128,
       CONFIG_BYTES = CONFIG_DATA + DATA_BYTES,
};

enum {
    EVENT_BYTES = 8,
    WAITING_MAX = 128,
    GROUP_MAX = 12, /* events of one change, with the one that ends it */
    KEYS = 248,     /* the keyboard's are 1 … 247 */
    BUS_OF_VIRTUALS = 6,
};

struct event {
    uint16_t type, code;
    uint32_t value;
};

struct group {
    struct event events[GROUP_MAX];
    unsigned count;
};

struct virtio_input {
    struct virtio_device *device;
    bool is_tablet;
    uint8_t select, subselect;
    uint16_t leds;
    uint8_t buttons; /* as they were told */
    struct event waiting[WAITING_MAX];
    unsigned head, count;
    struct virtio_chain chain;
};

static const uint16_t button_codes[] = {BTN_LEFT, BTN_RIGHT, BTN_MIDDLE, BTN_SIDE, BTN_EXTRA};
enum { BUTTONS = sizeof(button_codes) / sizeof(button_codes[0]) };

/* ---- configuration ---- */

static uint8_t put_text(uint8_t *data, const char *text)
{
    size_t length = strlen(text);
    memcpy(data, text, length);
    return (uint8_t)length;
}

static void put_bit(uint8_t *data, uint8_t *size, unsigned bit)
{
    data[bit / 8] |= (uint8_t)(1 << bit % 8);
    if (*size <= bit / 8)
        *size = (uint8_t)(bit / 8 + 1);
}

static uint8_t put_events(const struct virtio_input *input, unsigned type, uint8_t *data)
{
    uint8_t size = 0;
    if (!input->is_tablet) {
        if (type == EV_KEY)
            for (unsigned key = 1; key < KEYS; key++)
                put_bit(data, &size, key);
        if (type == EV_REP) /* the driver repeats by itself */
            for (unsigned bit = REP_DELAY; bit <= REP_PERIOD; bit++)
                put_bit(data, &size, bit);
        if (type == EV_LED)
            for (unsigned led = LED_NUML; led <= LED_SCROLLL; led++)
                put_bit(data, &size, led);
        return size;
    }
    if (type == EV_KEY)
        for (unsigned i = 0; i < BUTTONS; i++)
            put_bit(data, &size, button_codes[i]);
    if (type == EV_REL) {
        put_bit(data, &size, REL_WHEEL);
        put_bit(data, &size, REL_HWHEEL);
    }
    if (type == EV_ABS) {
        put_bit(data, &size, ABS_X);
        put_bit(data, &size, ABS_Y);
    }
    return size;
}

static uint8_t put_axis(const struct virtio_input *input, unsigned axis, uint8_t *data)
{
    const uint32_t range[5] = {0, INPUT_POSITION_MAX}; /* then fuzz, flat, resolution */
    if (!input->is_tablet || (axis != ABS_X && axis != ABS_Y))
        return 0;
    memcpy(data, range, sizeof(range));
    return sizeof(range);
}

/* Gives how many bytes there are of what is selected; 0: it does not exist. */
static uint8_t put_selected(const struct virtio_input *input, uint8_t *data)
{
    const uint16_t ids[4] = {BUS_OF_VIRTUALS, 0x1af4, input->is_tablet ? 2 : 1, 1};
    if (input->select < SELECT_EVENTS && input->subselect)
        return 0;
    switch (input->select) {
    case SELECT_NAME:
        return put_text(data, input->is_tablet ? "skep virtio tablet" : "skep virtio keyboard");
    case SELECT_SERIAL: return put_text(data, input->is_tablet ? "tablet" : "keyboard");
    case SELECT_IDS: memcpy(data, ids, sizeof(ids)); return sizeof(ids);
    case SELECT_EVENTS: return put_events(input, input->subselect, data);
    case SELECT_AXIS: return put_axis(input, input->subselect, data);
    default: return 0; /* properties: it has none */
    }
}

static void input_config_read(void *self, uint32_t offset, void *buffer, uint32_t size_bytes)
{
    const struct virtio_input *input = self;
    uint8_t config[CONFIG_BYTES] = {input->select, input->subselect};
    config[CONFIG_SIZE] = put_selected(input, config + CONFIG_DATA);
    memcpy(buffer, config + offset, size_bytes);
}

static void input_config_write(void *self, uint32_t offset, const void *buffer, uint32_t size_bytes)
{
    struct virtio_input *input = self;
    const uint8_t *bytes = buffer;
    for (uint32_t i = 0; i < size_bytes; i++) {
        if (offset + i == CONFIG_SELECT)
            input->select = bytes[i];
        else if (offset + i == CONFIG_SUBSELECT)
            input->subselect = bytes[i];
    }
}

/* ---- events to the driver ---- */

/* Gives waiting events to the driver, one a buffer, as far as there are buffers. */
static void deliver(struct virtio_input *input)
{
    struct virtio_queue *q = virtio_queue(input->device, EVENT_QUEUE);
    bool is_any = false;
    while (input->count && virtio_queue_pop(q, &input->chain)) {
        const struct event *event = &input->waiting[input->head];
        uint8_t bytes[EVENT_BYTES];
        memcpy(bytes, &event->type, 2);
        memcpy(bytes + 2, &event->code, 2);
        memcpy(bytes + 4, &event->value, 4);
        size_t written = virtio_chain_write(&input->chain, 0, bytes, sizeof(bytes));
        virtio_queue_push(q, &input->chain, written);
        input->head = (input->head + 1) % WAITING_MAX;
        input->count--;
        is_any = true;
    }
    if (is_any)
        virtio_queue_notify(q);
}

static void group_add(struct group *group, unsigned type, unsigned code, uint32_t value)
{
    group->events[group->count++] = (struct event){(uint16_t)type, (uint16_t)code, value};
}

/* Ends a group and queues it; a group that has no room is lost whole: false. */
static bool group_send(struct virtio_input *input, struct group *group)
{
    group_add(group, EV_SYN, SYN_REPORT, 0);
    if (!virtio_live(input->device) || input->count + group->count > WAITING_MAX)
        return false;
    for (unsigned i = 0; i < group->count; i++)
        input->waiting[(input->head + input->count++) % WAITING_MAX] = group->events[i];
    deliver(input);
    return true;
}

static void input_key(void *opaque, unsigned key, bool is_down)
{
    struct virtio_input *input = opaque;
    struct group group = {0};
    if (!key || key >= KEYS)
        return;
    virtio_lock(input->device);
    group_add(&group, EV_KEY, key, is_down);
    group_send(input, &group);
    virtio_unlock(input->device);
}

static void input_pointer(void *opaque, const struct input_pointer *pointer)
{
    struct virtio_input *input = opaque;
    struct group group = {0};
    virtio_lock(input->device);
    group_add(&group, EV_ABS, ABS_X, pointer->x);
    group_add(&group, EV_ABS, ABS_Y, pointer->y);
    for (unsigned i = 0; i < BUTTONS; i++)
        if ((pointer->buttons ^ input->buttons) >> i & 1)
            group_add(&group, EV_KEY, button_codes[i], pointer->buttons >> i & 1);
    if (pointer->wheel_up)
        group_add(&group, EV_REL, REL_WHEEL, (uint32_t)pointer->wheel_up);
    if (pointer->wheel_right)
        group_add(&group, EV_REL, REL_HWHEEL, (uint32_t)pointer->wheel_right);
    if (group_send(input, &group))
        input->buttons = pointer->buttons & ((1 << BUTTONS) - 1);
    virtio_unlock(input->device);
}

static bool is_listening(void *opaque)
{
    struct virtio_input *input = opaque;
    virtio_lock(input->device);
    bool is_live = virtio_live(input->device);
    virtio_unlock(input->device);
    return is_live;
}

/* ---- status from the driver ---- */

static void note_status(struct virtio_input *input)
{
    struct event event;
    if (virtio_chain_read(&input->chain, 0, &event, sizeof(event)) != sizeof(event) ||
        event.type != EV_LED || event.code > LED_SCROLLL)
        return;
    uint16_t bit = (uint16_t)(1 << event.code);
    input->leds = event.value ? input->leds | bit : input->leds & (uint16_t)~bit;
}

static enum virtio_taken take_status(void *self, unsigned index)
{
    struct virtio_input *input = self;
    struct virtio_queue *q = virtio_queue(input->device, index);
    if (!virtio_queue_pop(q, &input->chain))
        return VIRTIO_NONE;
    note_status(input);
    virtio_queue_push(q, &input->chain, 0);
    return VIRTIO_TAKEN;
}

unsigned virtio_input_leds(struct virtio_device *device)
{
    const struct virtio_input *input = virtio_self(device);
    virtio_lock(device);
    unsigned leds = input->leds;
    virtio_unlock(device);
    return leds;
}

/* ---- struct virtio_ops ---- */

static void input_kick(void *self, unsigned index)
{
    struct virtio_input *input = self;
    if (index == EVENT_QUEUE)
        deliver(input);
    else
        virtio_serve(input->device, index, take_status);
}

static void input_reset(void *self)
{
    struct virtio_input *input = self;
    input->select = input->subselect = 0;
    input->leds = 0;
    input->buttons = 0;
    input->head = input->count = 0;
}

static void input_save(void *self, struct save *save)
{
    const struct virtio_input *input = self;
    save_bool(save, input->is_tablet);
    save_u8(save, input->select);
    save_u8(save, input->subselect);
    save_u16(save, input->leds);
    save_u8(save, input->buttons);
    save_u32(save, input->count);
    for (unsigned i = 0; i < input->count; i++) {
        const struct event *event = &input->waiting[(input->head + i) % WAITING_MAX];
        save_u16(save, event->type);
        save_u16(save, event->code);
        save_u32(save, event->value);
    }
}

static bool input_load(void *self, struct load *load, uint32_t version)
{
    struct virtio_input *input = self;
    if (load_bool(load) != input->is_tablet)
        load_fail(load);
    input->select = load_u8(load);
    input->subselect = load_u8(load);
    input->leds = load_u16(load);
    input->buttons = load_u8(load);
    unsigned count = load_u32(load);
    if (count > WAITING_MAX || input->leds >> (LED_SCROLLL + 1) || input->buttons >> BUTTONS) {
        load_fail(load);
        count = 0;
    }
    input->head = 0;
    input->count = count;
    for (unsigned i = 0; i < count; i++) {
        input->waiting[i].type = load_u16(load);
        input->waiting[i].code = load_u16(load);
        input->waiting[i].value = load_u32(load);
    }
    return !load->failed;
}

static void input_destroy(void *self)
{
    free(self);
}

static const struct virtio_ops input_ops = {
    .name = "virtio-input",
    .type = VIRTIO_TYPE_INPUT,
    .pci_class = 0x098000,
    .version = 1,
    .config_read = input_config_read,
    .config_write = input_config_write,
    .kick = input_kick,
    .reset = input_reset,
    .save = input_save,
    .load = input_load,
    .destroy = input_destroy,
};

struct virtio_device *virtio_input_create(const struct virtio_input_config *config,
                                          struct input_device *device, struct error *err)
{
    static const uint16_t sizes[QUEUE_COUNT] = {QUEUE_SIZE, QUEUE_SIZE};
    struct virtio_input *input = calloc(1, sizeof(*input));
    if (!input) {
        error_errno(err, "cannot create device", input_ops.name, ENOMEM);
        return NULL;
    }
    input->is_tablet = config->is_tablet;
    const struct virtio_config core = {.ops = &input_ops,
                                       .self = input,
                                       .ram = config->ram,
                                       .loop = config->loop,
                                       .log = config->log,
                                       .features_off = config->features_off,
                                       .config_size_bytes = CONFIG_BYTES,
                                       .queue_count = QUEUE_COUNT,
                                       .queue_sizes = sizes};
    input->device = virtio_create(&core, err);
    if (!input->device) {
        free(input);
        return NULL;
    }
    *device = (struct input_device){.is_listening = is_listening, .opaque = input};
    device->takes_absolute = input->is_tablet;
    if (input->is_tablet)
        device->pointer = input_pointer;
    else
        device->key = input_key;
    return input->device;
}
