/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What HID devices share; see hid_internal.h. Section numbers are those of HID 1.11.
 */
#include "dev/usb/hid_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { /* bmRequestType and bRequest, 7.1 and 7.2 */
       TYPE_STANDARD_IN = 0x81,
       TYPE_CLASS_IN = 0xa1,
       TYPE_CLASS_OUT = 0x21,
       GET_REPORT = 1,
       GET_IDLE = 2,
       GET_PROTOCOL = 3,
       SET_REPORT = 9,
       SET_IDLE = 10,
       SET_PROTOCOL = 11,
       REPORT_INPUT = 1,
       REPORT_OUTPUT = 2,
       PROTOCOL_REPORT = 1,
       HID_DESCRIPTOR_BYTES = 9,
       IDLE_UNIT_NS = 4000000,
};

static void on_idle(void *opaque)
{
    struct hid *hid = opaque;
    usb_device_lock(hid->device);
    if (hid->idle && hid->is_asked) {
        hid->is_due = true;
        usb_device_wakeup(hid->device, HID_ENDPOINT);
    }
    usb_device_unlock(hid->device);
}

void hid_destroy(void *self)
{
    struct hid *hid = self;
    if (hid->timer)
        clock_timer_close(hid->timer);
    free(hid);
}

struct hid *hid_create(const struct hid_type *type, struct clock *clock, struct error *err)
{
    struct hid *hid = calloc(1, type->size_bytes);
    const struct usb_device_config config = {
        .ops = type->ops,
        .self = hid,
        .speed = USB_FULL,
        .device = type->device_descriptor,
        .configuration = type->configuration,
        .configuration_bytes = type->configuration_bytes,
        .strings = {"skep", type->ops->name},
        .can_wake = true,
    };
    if (hid) {
        hid->type = type;
        hid->clock = clock;
        hid->timer = clock_timer_open(clock, on_idle, hid);
        hid_reset(hid);
    }
    if (!hid || !hid->timer)
        error_errno(err, "cannot create device", type->ops->name, ENOMEM);
    else
        hid->device = usb_device_create(&config, err);
    if (hid && hid->device)
        return hid;
    if (hid)
        hid_destroy(hid);
    return NULL;
}

bool hid_is_listening(void *opaque)
{
    struct hid *hid = opaque;
    usb_device_lock(hid->device);
    bool is_asked = hid->is_asked;
    usb_device_unlock(hid->device);
    return is_asked;
}

void hid_reset(struct hid *hid)
{
    hid->idle = 0;
    hid->protocol = PROTOCOL_REPORT;
    hid->is_asked = hid->is_due = false;
}

static enum usb_status answer(uint8_t *data, size_t *size_bytes, const void *bytes, size_t have)
{
    if (*size_bytes > have)
        *size_bytes = have;
    memcpy(data, bytes, *size_bytes);
    return USB_OK;
}

static enum usb_status get_descriptor(const struct hid *hid, unsigned type, uint8_t *data,
                                      size_t *size_bytes)
{
    switch (type) {
    case HID_DESCRIPTOR:
        return answer(data, size_bytes, hid->type->hid_descriptor, HID_DESCRIPTOR_BYTES);
    case HID_DESCRIPTOR_REPORT:
        return answer(data, size_bytes, hid->type->report_descriptor,
                      hid->type->report_descriptor_bytes);
    default: return USB_STALL;
    }
}

static enum usb_status class_in(struct hid *hid, const struct usb_setup *setup, uint8_t *data,
                                size_t *size_bytes)
{
    uint8_t bytes[HID_REPORT_MAX_BYTES];
    switch (setup->request) {
    case GET_REPORT:
        if (setup->value >> 8 != REPORT_INPUT)
            return USB_STALL;
        hid->type->report(hid, bytes);
        return answer(data, size_bytes, bytes, hid->type->report_bytes);
    case GET_IDLE: return answer(data, size_bytes, &hid->idle, 1);
    case GET_PROTOCOL:
        return hid->type->has_protocol ? answer(data, size_bytes, &hid->protocol, 1) : USB_STALL;
    default: return USB_STALL;
    }
}

static enum usb_status class_out(struct hid *hid, const struct usb_setup *setup,
                                 const uint8_t *data, size_t size_bytes)
{
    switch (setup->request) {
    case SET_REPORT:
        if (setup->value >> 8 != REPORT_OUTPUT || !hid->type->output)
            return USB_STALL;
        return hid->type->output(hid, data, size_bytes);
    case SET_IDLE:
        hid->idle = (uint8_t)(setup->value >> 8);
        hid->is_due = false;
        /* A transfer may wait already: it is looked at anew, and the timer armed. */
        if (hid->is_asked)
            usb_device_wakeup(hid->device, HID_ENDPOINT);
        return USB_OK;
    case SET_PROTOCOL:
        if (!hid->type->has_protocol || setup->value > PROTOCOL_REPORT)
            return USB_STALL;
        hid->protocol = (uint8_t)setup->value;
        return USB_OK;
    default: return USB_STALL;
    }
}

enum usb_status hid_request(void *self, const struct usb_setup *setup, uint8_t *data,
                            size_t *size_bytes)
{
    struct hid *hid = self;
    const unsigned get = 6;
    if (setup->index)
        return USB_STALL; /* there is only interface 0 */
    switch (setup->type) {
    case TYPE_STANDARD_IN:
        return setup->request == get ? get_descriptor(hid, setup->value >> 8, data, size_bytes)
                                     : USB_STALL;
    case TYPE_CLASS_IN: return class_in(hid, setup, data, size_bytes);
    case TYPE_CLASS_OUT: return class_out(hid, setup, data, *size_bytes);
    default: return USB_STALL;
    }
}

enum usb_status hid_transfer(void *self, struct usb_transfer *transfer)
{
    struct hid *hid = self;
    uint8_t bytes[HID_REPORT_MAX_BYTES];
    hid->is_asked = true;
    if (!hid->type->advance(hid) && !hid->is_due) {
        if (hid->idle)
            clock_timer_arm(hid->timer, hid->reported_ns + (uint64_t)hid->idle * IDLE_UNIT_NS);
        return USB_NAK;
    }
    hid->is_due = false;
    hid->reported_ns = clock_now_ns(hid->clock);
    hid->type->report(hid, bytes);
    transfer->done_bytes = usb_transfer_fill(transfer, bytes, hid->type->report_bytes);
    return transfer->size_bytes < hid->type->report_bytes ? USB_BABBLE : USB_OK;
}

void hid_stopped(void *self, uint8_t endpoint)
{
    struct hid *hid = self;
    if (endpoint == HID_ENDPOINT)
        hid->is_asked = false;
}

void hid_save(const struct hid *hid, struct save *save)
{
    save_u8(save, hid->idle);
    save_u8(save, hid->protocol);
    save_bool(save, hid->is_asked);
    save_bool(save, hid->is_due);
    save_u64(save, hid->reported_ns);
}

void hid_load(struct hid *hid, struct load *load)
{
    hid->idle = load_u8(load);
    hid->protocol = load_u8(load);
    hid->is_asked = load_bool(load);
    hid->is_due = load_bool(load);
    hid->reported_ns = load_u64(load);
    if (hid->protocol > PROTOCOL_REPORT)
        load_fail(load);
    if (hid->idle && hid->is_asked && !load->failed)
        clock_timer_arm(hid->timer, 0);
}
