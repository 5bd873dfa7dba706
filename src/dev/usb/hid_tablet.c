/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A USB tablet: a pointer with absolute positions, five buttons, a wheel and a sideways wheel
 * (HID 1.11; HID Usage Tables: Generic Desktop, Button, Consumer AC Pan).
 */
#include "dev/usb/hid_internal.h"

enum { QUEUE_STATES = 32, REPORT_BYTES = 7, BUTTONS = 0x1f, WHEEL_MAX = 127 };

static const uint8_t report_descriptor[] =
    {
        0x05, 0x01, 0x09, 0x02, 0xa1, 0x01, 0x09, 0x01, 0xa1, 0x00, /* a pointer */
        0x05, 0x09, 0x19, 0x01, 0x29, 0x05, 0x15, 0x00, 0x25, 0x01, /* five buttons */
        0x95, 0x05, 0x75, 0x01, 0x81, 0x02, 0x95, 0x01, 0x75, 0x03, 0x81, 0x01,
        0x05, 0x01, 0x09, 0x30, 0x09, 0x31, 0x15, 0x00, 0x26, 0xff, 0x7f, /* x and y, absolute */
        0x35, 0x00, 0x46, 0xff, 0x7f, 0x75, 0x10, 0x95, 0x02, 0x81, 0x02, 0x09,
        0x38, 0x15, 0x81, 0x25, 0x7f, 0x35, 0x00, 0x45, 0x00, /* the wheel, relative */
        0x75, 0x08, 0x95, 0x01, 0x81, 0x06, 0x05, 0x0c, 0x0a, 0x38, 0x02, 0x95,
        0x01, 0x81, 0x06, /* and the one to the side */
        0xc0, 0xc0,
};

static const uint8_t device_descriptor[] = {
    18, USB_DESCRIPTOR_DEVICE, 0x00, 0x02, 0, 0, 0, 8, 0x09, 0x12, 0x02, 0x00, 0x00, 0x01, 1, 2, 0,
    1,
};

enum { HID_DESCRIPTOR_AT = 18 };
static const uint8_t configuration[] = {
    9,
    USB_DESCRIPTOR_CONFIGURATION,
    34,
    0,
    1,
    1,
    0,
    0xa0,
    USB_BUS_POWERED_MA / 2,
    9,
    USB_DESCRIPTOR_INTERFACE,
    0,
    0,
    1,
    3,
    0,
    0,
    0, /* HID */
    9,
    HID_DESCRIPTOR,
    0x11,
    0x01,
    0,
    1,
    HID_DESCRIPTOR_REPORT,
    sizeof(report_descriptor),
    0,
    7,
    USB_DESCRIPTOR_ENDPOINT,
    HID_ENDPOINT,
    3,
    8,
    0,
    4,
};

struct state {
    uint8_t buttons;
    uint16_t x, y;
    int32_t wheel, pan;
};

struct tablet {
    struct hid hid;
    struct state queue[QUEUE_STATES];
    unsigned head, count;
    struct state now; /* of the last report */
};

/* ---- from the person ---- */

static int32_t clamp(int64_t value)
{
    return value < -WHEEL_MAX ? -WHEEL_MAX : value > WHEEL_MAX ? WHEEL_MAX : (int32_t)value;
}

/* Movement with the same buttons is one movement; so is all when there is no more room. */
static void enqueue(struct tablet *tablet, const struct input_pointer *pointer)
{
    const struct state state = {.buttons = pointer->buttons & BUTTONS,
                                .x = pointer->x,
                                .y = pointer->y,
                                .wheel = clamp(pointer->wheel_up),
                                .pan = clamp(pointer->wheel_right)};
    struct state *last = &tablet->queue[(tablet->head + tablet->count - 1) % QUEUE_STATES];
    if (tablet->count && (last->buttons == state.buttons || tablet->count == QUEUE_STATES)) {
        int32_t wheel = clamp((int64_t)last->wheel + state.wheel);
        int32_t pan = clamp((int64_t)last->pan + state.pan);
        *last = state;
        last->wheel = wheel;
        last->pan = pan;
        return;
    }
    tablet->queue[(tablet->head + tablet->count++) % QUEUE_STATES] = state;
}

static void input_pointer(void *opaque, const struct input_pointer *pointer)
{
    struct tablet *tablet = opaque;
    usb_device_lock(tablet->hid.device);
    if (tablet->hid.is_asked) {
        enqueue(tablet, pointer);
        usb_device_wakeup(tablet->hid.device, HID_ENDPOINT);
    }
    usb_device_unlock(tablet->hid.device);
}

/* ---- struct hid_type ---- */

static bool tablet_advance(struct hid *hid)
{
    struct tablet *tablet = (struct tablet *)hid;
    tablet->now.wheel = tablet->now.pan = 0; /* told once */
    if (!tablet->count)
        return false;
    tablet->now = tablet->queue[tablet->head];
    tablet->head = (tablet->head + 1) % QUEUE_STATES;
    tablet->count--;
    return true;
}

static void tablet_report(const struct hid *hid, uint8_t *bytes)
{
    const struct state *now = &((const struct tablet *)hid)->now;
    bytes[0] = now->buttons;
    bytes[1] = (uint8_t)now->x;
    bytes[2] = (uint8_t)(now->x >> 8);
    bytes[3] = (uint8_t)now->y;
    bytes[4] = (uint8_t)(now->y >> 8);
    bytes[5] = (uint8_t)now->wheel;
    bytes[6] = (uint8_t)now->pan;
}

/* ---- struct usb_device_ops ---- */

static void tablet_reset(void *self)
{
    struct tablet *tablet = self;
    hid_reset(&tablet->hid);
    tablet->head = tablet->count = 0;
    tablet->now = (struct state){0};
}

static void save_state(const struct state *state, struct save *save)
{
    save_u8(save, state->buttons);
    save_u16(save, state->x);
    save_u16(save, state->y);
    save_u8(save, (uint8_t)state->wheel);
    save_u8(save, (uint8_t)state->pan);
}

static void load_state(struct state *state, struct load *load)
{
    state->buttons = load_u8(load);
    state->x = load_u16(load);
    state->y = load_u16(load);
    state->wheel = (int8_t)load_u8(load);
    state->pan = (int8_t)load_u8(load);
    if ((state->buttons & ~BUTTONS) || state->x > INPUT_POSITION_MAX ||
        state->y > INPUT_POSITION_MAX)
        load_fail(load);
}

static void tablet_save(void *self, struct save *save)
{
    const struct tablet *tablet = self;
    hid_save(&tablet->hid, save);
    save_state(&tablet->now, save);
    save_u8(save, (uint8_t)tablet->count);
    for (unsigned i = 0; i < tablet->count; i++)
        save_state(&tablet->queue[(tablet->head + i) % QUEUE_STATES], save);
}

static bool tablet_load(void *self, struct load *load, uint32_t version)
{
    struct tablet *tablet = self;
    hid_load(&tablet->hid, load);
    load_state(&tablet->now, load);
    unsigned count = load_u8(load);
    if (count > QUEUE_STATES) {
        load_fail(load);
        count = 0;
    }
    tablet->head = 0;
    tablet->count = count;
    for (unsigned i = 0; i < count; i++)
        load_state(&tablet->queue[i], load);
    return !load->failed;
}

static const struct usb_device_ops ops = {
    .name = "USB tablet",
    .version = 1,
    .request = hid_request,
    .transfer = hid_transfer,
    .stopped = hid_stopped,
    .reset = tablet_reset,
    .save = tablet_save,
    .load = tablet_load,
    .destroy = hid_destroy,
};

static const struct hid_type type = {
    .ops = &ops,
    .size_bytes = sizeof(struct tablet),
    .device_descriptor = device_descriptor,
    .configuration = configuration,
    .configuration_bytes = sizeof(configuration),
    .report_descriptor = report_descriptor,
    .report_descriptor_bytes = sizeof(report_descriptor),
    .hid_descriptor = configuration + HID_DESCRIPTOR_AT,
    .report_bytes = REPORT_BYTES,
    .advance = tablet_advance,
    .report = tablet_report,
};

struct usb_device *usb_tablet_create(struct clock *clock, struct input_device *input,
                                     struct error *err)
{
    struct hid *hid = hid_create(&type, clock, err);
    if (!hid)
        return NULL;
    *input = (struct input_device){.pointer = input_pointer,
                                   .takes_absolute = true,
                                   .is_listening = hid_is_listening,
                                   .opaque = hid};
    return hid->device;
}
