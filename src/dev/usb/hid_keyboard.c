/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A USB keyboard of the boot interface (HID 1.11, appendix B.1 and E): eight modifiers, six further
 * keys at once, five LEDs. Which key of Linux's numbers has which usage is from the HID Usage
 * Tables, chapter 10.
 */
#include "dev/usb/hid_internal.h"

#include <string.h>

enum {
    QUEUE_KEYS = 64,
    KEYS_AT_ONCE = 6,
    ROLL_OVER = 1, /* in place of all keys when there are more */
    FIRST_MODIFIER = 0xe0,
    KEY_DOWN = 0x100, /* beside the usage, in the queue */
    LEDS = 0x1f,
};

/* Usages by Linux's key numbers; 0: the keyboard has no such key. */
static const uint8_t usages[] = {
    0,    0x29, 0x1e, 0x1f, 0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x2d, 0x2e, 0x2a, 0x2b,
    0x14, 0x1a, 0x08, 0x15, 0x17, 0x1c, 0x18, 0x0c, 0x12, 0x13, 0x2f, 0x30, 0x28, 0xe0, 0x04, 0x16,
    0x07, 0x09, 0x0a, 0x0b, 0x0d, 0x0e, 0x0f, 0x33, 0x34, 0x35, 0xe1, 0x31, 0x1d, 0x1b, 0x06, 0x19,
    0x05, 0x11, 0x10, 0x36, 0x37, 0x38, 0xe5, 0x55, 0xe2, 0x2c, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0x3e,
    0x3f, 0x40, 0x41, 0x42, 0x43, 0x53, 0x47, 0x5f, 0x60, 0x61, 0x56, 0x5c, 0x5d, 0x5e, 0x57, 0x59,
    0x5a, 0x5b, 0x62, 0x63, 0,    0x94, 0x64, 0x44, 0x45, 0x87, 0x92, 0x93, 0x8a, 0x88, 0x8b, 0x8c,
    0x58, 0xe4, 0x54, 0x46, 0xe6, 0,    0x4a, 0x52, 0x4b, 0x50, 0x4f, 0x4d, 0x51, 0x4e, 0x49, 0x4c,
    0,    0x7f, 0x81, 0x80, 0x66, 0x67, 0,    0x48, 0,    0x85, 0x90, 0x91, 0x89, 0xe3, 0xe7, 0x65,
};
enum { KEY_F13 = 183, KEY_F24 = 194, USAGE_F13 = 0x68 };

static const uint8_t report_descriptor[] = {
    0x05, 0x01, 0x09, 0x06, 0xa1, 0x01,                         /* a keyboard */
    0x05, 0x07, 0x19, 0xe0, 0x29, 0xe7, 0x15, 0x00, 0x25, 0x01, /* modifiers, a bit each */
    0x75, 0x01, 0x95, 0x08, 0x81, 0x02, 0x95, 0x01, 0x75, 0x08, 0x81, 0x01, /* a byte of nothing */
    0x95, 0x05, 0x75, 0x01, 0x05, 0x08, 0x19, 0x01, 0x29, 0x05,             /* LEDs */
    0x91, 0x02, 0x95, 0x01, 0x75, 0x03, 0x91, 0x01, 0x95, 0x06, 0x75, 0x08,
    0x15, 0x00, 0x26, 0xff, 0x00, /* six keys */
    0x05, 0x07, 0x19, 0x00, 0x2a, 0xff, 0x00, 0x81, 0x00, 0xc0,
};

static const uint8_t device_descriptor[] = {
    18, USB_DESCRIPTOR_DEVICE, 0x00, 0x02, 0, 0, 0, 8, 0x09, 0x12, 0x01, 0x00, 0x00, 0x01, 1, 2, 0,
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
    1,
    1,
    0, /* HID, boot interface, keyboard */
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
    10,
};

struct keyboard {
    struct hid hid;
    uint16_t queue[QUEUE_KEYS]; /* usages, and whether they go down */
    unsigned head, count;
    uint8_t leds;
    bool is_lost;     /* keys found no room: the next report says what is down */
    uint8_t down[32]; /* a bit a usage: the person's */
    uint8_t told[32]; /* and as the last report has told it */
};

static unsigned usage_of(unsigned key)
{
    if (key >= KEY_F13 && key <= KEY_F24)
        return USAGE_F13 + key - KEY_F13;
    return key < sizeof(usages) ? usages[key] : 0;
}

static void set_bit(uint8_t *bits, unsigned usage, bool is_set)
{
    bits[usage / 8] =
        (uint8_t)((bits[usage / 8] & ~(1 << usage % 8)) | (is_set ? 1 << usage % 8 : 0));
}

static bool get_bit(const uint8_t *bits, unsigned usage)
{
    return bits[usage / 8] >> usage % 8 & 1;
}

/* ---- from the person ---- */

static void input_key(void *opaque, unsigned key, bool is_down)
{
    struct keyboard *keyboard = opaque;
    unsigned usage = usage_of(key);
    if (!usage)
        return;
    usb_device_lock(keyboard->hid.device);
    /* Of a repeated key nothing is told: the guest repeats by itself. */
    if (get_bit(keyboard->down, usage) != is_down && keyboard->hid.is_asked) {
        set_bit(keyboard->down, usage, is_down);
        if (keyboard->count < QUEUE_KEYS)
            keyboard->queue[(keyboard->head + keyboard->count++) % QUEUE_KEYS] =
                (uint16_t)(usage | (is_down ? KEY_DOWN : 0));
        else
            keyboard->is_lost = true;
        usb_device_wakeup(keyboard->hid.device, HID_ENDPOINT);
    }
    usb_device_unlock(keyboard->hid.device);
}

/* ---- struct hid_type ---- */

static bool keyboard_advance(struct hid *hid)
{
    struct keyboard *keyboard = (struct keyboard *)hid;
    if (keyboard->count) {
        uint16_t event = keyboard->queue[keyboard->head];
        keyboard->head = (keyboard->head + 1) % QUEUE_KEYS;
        keyboard->count--;
        set_bit(keyboard->told, event & 0xff, event & KEY_DOWN);
        return true;
    }
    if (!keyboard->is_lost)
        return false;
    keyboard->is_lost = false;
    memcpy(keyboard->told, keyboard->down, sizeof(keyboard->told));
    return true;
}

static void keyboard_report(const struct hid *hid, uint8_t *bytes)
{
    const struct keyboard *keyboard = (const struct keyboard *)hid;
    unsigned count = 0;
    memset(bytes, 0, 8);
    bytes[0] = keyboard->told[FIRST_MODIFIER / 8];
    for (unsigned usage = 1; usage < FIRST_MODIFIER; usage++) {
        if (!get_bit(keyboard->told, usage))
            continue;
        if (count == KEYS_AT_ONCE) {
            memset(bytes + 2, ROLL_OVER, KEYS_AT_ONCE);
            return;
        }
        bytes[2 + count++] = (uint8_t)usage;
    }
}

static enum usb_status keyboard_output(struct hid *hid, const uint8_t *bytes, size_t size_bytes)
{
    if (size_bytes != 1)
        return USB_STALL;
    ((struct keyboard *)hid)->leds = bytes[0] & LEDS;
    return USB_OK;
}

/* ---- struct usb_device_ops ---- */

static void keyboard_reset(void *self)
{
    struct keyboard *keyboard = self;
    hid_reset(&keyboard->hid);
    keyboard->head = keyboard->count = 0;
    keyboard->leds = 0;
    keyboard->is_lost = false;
    memset(keyboard->down, 0, sizeof(keyboard->down));
    memset(keyboard->told, 0, sizeof(keyboard->told));
}

static void keyboard_save(void *self, struct save *save)
{
    const struct keyboard *keyboard = self;
    hid_save(&keyboard->hid, save);
    save_u8(save, keyboard->leds);
    save_bool(save, keyboard->is_lost);
    save_bytes(save, keyboard->down, sizeof(keyboard->down));
    save_bytes(save, keyboard->told, sizeof(keyboard->told));
    save_u8(save, (uint8_t)keyboard->count);
    for (unsigned i = 0; i < keyboard->count; i++)
        save_u16(save, keyboard->queue[(keyboard->head + i) % QUEUE_KEYS]);
}

static bool keyboard_load(void *self, struct load *load, uint32_t version)
{
    struct keyboard *keyboard = self;
    hid_load(&keyboard->hid, load);
    keyboard->leds = load_u8(load);
    keyboard->is_lost = load_bool(load);
    load_bytes(load, keyboard->down, sizeof(keyboard->down));
    load_bytes(load, keyboard->told, sizeof(keyboard->told));
    unsigned count = load_u8(load);
    if (count > QUEUE_KEYS || (keyboard->leds & ~LEDS)) {
        load_fail(load);
        count = 0;
    }
    keyboard->head = 0;
    keyboard->count = count;
    for (unsigned i = 0; i < count; i++) {
        keyboard->queue[i] = load_u16(load);
        if (keyboard->queue[i] > (KEY_DOWN | 0xff))
            load_fail(load);
    }
    return !load->failed;
}

static const struct usb_device_ops ops = {
    .name = "USB keyboard",
    .version = 1,
    .request = hid_request,
    .transfer = hid_transfer,
    .stopped = hid_stopped,
    .reset = keyboard_reset,
    .save = keyboard_save,
    .load = keyboard_load,
    .destroy = hid_destroy,
};

static const struct hid_type type = {
    .ops = &ops,
    .size_bytes = sizeof(struct keyboard),
    .device_descriptor = device_descriptor,
    .configuration = configuration,
    .configuration_bytes = sizeof(configuration),
    .report_descriptor = report_descriptor,
    .report_descriptor_bytes = sizeof(report_descriptor),
    .hid_descriptor = configuration + HID_DESCRIPTOR_AT,
    .report_bytes = 8,
    .advance = keyboard_advance,
    .report = keyboard_report,
    .output = keyboard_output,
    .has_protocol = true,
};

struct usb_device *usb_keyboard_create(struct clock *clock, struct input_device *input,
                                       struct error *err)
{
    struct hid *hid = hid_create(&type, clock, err);
    if (!hid)
        return NULL;
    *input =
        (struct input_device){.key = input_key, .is_listening = hid_is_listening, .opaque = hid};
    return hid->device;
}

unsigned usb_keyboard_leds(struct usb_device *device)
{
    struct keyboard *keyboard = usb_device_self(device);
    usb_device_lock(device);
    unsigned leds = keyboard->leds;
    usb_device_unlock(device);
    return leds;
}
