/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What HID devices share: class requests, reports on the interrupt endpoint, the idle rate. A
 * device begins with a struct hid and offers reports; what it does as all do, its usb_device_ops
 * have from here. Everything with the device's lock held.
 */
#ifndef SKEP_DEV_USB_HID_INTERNAL_H
#define SKEP_DEV_USB_HID_INTERNAL_H

#include "dev/usb/hid.h"

enum { HID_REPORT_MAX_BYTES = 8, HID_ENDPOINT = USB_IN | 1 };

enum { /* descriptor types, 7.1 */
       HID_DESCRIPTOR = 0x21,
       HID_DESCRIPTOR_REPORT = 0x22,
};

struct hid;

struct hid_type {
    const struct usb_device_ops *ops;
    size_t size_bytes; /* of the device, which begins with a struct hid */
    const uint8_t *device_descriptor, *configuration;
    size_t configuration_bytes;
    const uint8_t *report_descriptor;
    size_t report_descriptor_bytes;
    const uint8_t *hid_descriptor; /* inside the configuration; 9 bytes */
    unsigned report_bytes;
    /* Takes what has happened next, if something has, into the current report. */
    bool (*advance)(struct hid *hid);
    void (*report)(const struct hid *hid, uint8_t *bytes); /* the current one */
    /* An output report; NULL: it has none. */
    enum usb_status (*output)(struct hid *hid, const uint8_t *bytes, size_t size_bytes);
    bool has_protocol; /* it is of the boot interface */
};

struct hid {
    const struct hid_type *type;
    struct usb_device *device;
    struct clock *clock;
    struct clock_timer *timer; /* of the idle rate */
    uint8_t idle;              /* in 4 ms; 0: reports come only of changes */
    uint8_t protocol;          /* 0 boot, 1 report */
    bool is_asked;             /* the host asks for reports */
    bool is_due;               /* the idle time has passed */
    uint64_t reported_ns;      /* when the last report went out */
};

/* A device of this type, all zero but for its struct hid. NULL and `err` filled on failure. */
struct hid *hid_create(const struct hid_type *type, struct clock *clock, struct error *err);
void hid_reset(struct hid *hid);
bool hid_is_listening(void *opaque); /* struct input_device's, without the lock */

/* Of struct usb_device_ops; `self` is the device. */
enum usb_status hid_request(void *self, const struct usb_setup *setup, uint8_t *data,
                            size_t *size_bytes);
enum usb_status hid_transfer(void *self, struct usb_transfer *transfer);
void hid_stopped(void *self, uint8_t endpoint);
void hid_destroy(void *self);

void hid_save(const struct hid *hid, struct save *save);
void hid_load(struct hid *hid, struct load *load);

#endif
