/* SPDX-License-Identifier: BSD-2-Clause
 *
 * USB devices (USB 2.0, chapters 8 and 9; USB 3.2, chapter 9): the standard requests, common to
 * all, between a host controller (xhci.c) and what a device is (hid_keyboard.c …).
 *
 * A transfer never waits inside a device: one that has nothing to say, or no room, answers NAK, the
 * controller keeps the request in guest memory where it is, and asks again after
 * usb_device_wakeup(). So there is nothing to cancel, and nothing in flight to be saved.
 *
 * Threads: the controller's lock guards its devices, too. All of a device's functions are called
 * with it held; a device takes it itself (usb_device_lock) where it is called from elsewhere.
 */
#ifndef SKEP_DEV_USB_USB_H
#define SKEP_DEV_USB_USB_H

#include "base/error.h"
#include "bus/stream.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* As xHCI numbers them (7.2.2.1.1). */
enum usb_speed { USB_FULL = 1, USB_LOW = 2, USB_HIGH = 3, USB_SUPER = 4 };

enum usb_status {
    USB_OK,
    USB_NAK,    /* not now */
    USB_STALL,  /* not at all; the endpoint is halted */
    USB_BABBLE, /* it has more to say than was asked for */
    USB_ERROR,  /* it does not answer */
};

enum { /* descriptor types, 9.4 */
       USB_DESCRIPTOR_DEVICE = 1,
       USB_DESCRIPTOR_CONFIGURATION = 2,
       USB_DESCRIPTOR_STRING = 3,
       USB_DESCRIPTOR_INTERFACE = 4,
       USB_DESCRIPTOR_ENDPOINT = 5,
       USB_DESCRIPTOR_BOS = 15,
       USB_DESCRIPTOR_COMPANION = 48,
};

enum {
    USB_IN = 0x80, /* in an endpoint's address and in bmRequestType */
    USB_ENDPOINTS = 16,
    USB_CONTROL_MAX_BYTES = 4096, /* of a data stage; more is stalled */
    USB_STRINGS_MAX = 4,
    USB_BUS_POWERED_MA = 100,
};

/* A control request, 9.3. */
struct usb_setup {
    uint8_t type, request;
    uint16_t value, index, length;
};

/* A transfer to or from an endpoint other than 0; the memory is the guest's. */
struct usb_transfer {
    uint8_t endpoint; /* its address, direction included */
    const struct iovec *iov;
    unsigned iov_count;
    size_t size_bytes;
    size_t done_bytes; /* the device tells; less than all only of USB_IN, a short packet */
};

struct usb_device_ops {
    const char *name;
    uint32_t version; /* of what save writes */
    /* A class's or vendor's request, or a standard one that the core does not know. Of IN requests
     * `data` has room for *size_bytes, at most setup->length, and the device says how many it has
     * filled; of OUT ones they are what the host has sent. Never NAK. */
    enum usb_status (*request)(void *self, const struct usb_setup *setup, uint8_t *data,
                               size_t *size_bytes);
    enum usb_status (*transfer)(void *self, struct usb_transfer *transfer);
    /* The host takes back what it has asked of this endpoint, or does not ask any more. May be
     * NULL. */
    void (*stopped)(void *self, uint8_t endpoint);
    /* The host has cleared this endpoint's halt. May be NULL. */
    void (*unhalted)(void *self, uint8_t endpoint);
    /* As after a reset on the bus: not configured. */
    void (*reset)(void *self);
    /* Besides, the machine is as after power-on. May be NULL. */
    void (*power_on)(void *self);
    void (*save)(void *self, struct save *save);
    bool (*load)(void *self, struct load *load, uint32_t version); /* else as after reset */
    void (*destroy)(void *self);                                   /* without the lock */
};

struct usb_device_config {
    const struct usb_device_ops *ops;
    void *self; /* ops->destroy frees it */
    enum usb_speed speed;
    /* Static bytes; the configuration with all that belongs to it. */
    const uint8_t *device, *configuration, *bos; /* bos may be NULL */
    size_t configuration_bytes, bos_bytes;
    const char *strings[USB_STRINGS_MAX]; /* of index 1 on; they stay; NULL: none */
    bool can_wake;                        /* has remote wake-up */
};

/* The controller that a device is attached to. */
struct usb_host {
    void (*lock)(void *opaque);
    void (*unlock)(void *opaque);
    void (*wakeup)(void *opaque, unsigned port, uint8_t endpoint); /* with the lock held */
    void *opaque;
};

struct usb_device;

/* ---- for what a device is ---- */

/* On failure `self` stays the caller's. */
struct usb_device *usb_device_create(const struct usb_device_config *config, struct error *err);
void *usb_device_self(const struct usb_device *device);
/* Nothing happens while the device is attached nowhere. */
void usb_device_lock(struct usb_device *device);
void usb_device_unlock(struct usb_device *device);
bool usb_device_is_configured(const struct usb_device *device);
/* The endpoint would not say NAK any more; also wakes the port up, if it may. With the lock. From
 * within a transfer of another endpoint it is done a little later. */
void usb_device_wakeup(struct usb_device *device, uint8_t endpoint);
/* Halts an endpoint until the host clears that; its transfers are stalled. */
void usb_device_halt(struct usb_device *device, uint8_t endpoint);
bool usb_device_is_halted(const struct usb_device *device, uint8_t endpoint);

/* Copies into or out of a transfer's memory from its beginning; returns how much. */
size_t usb_transfer_fill(struct usb_transfer *transfer, const void *bytes, size_t size_bytes);
size_t usb_transfer_take(struct usb_transfer *transfer, void *bytes, size_t size_bytes);
/* Zeroes from `from_bytes` of its memory on, as far as there is some. */
void usb_transfer_clear(struct usb_transfer *transfer, size_t from_bytes, size_t size_bytes);

/* ---- for a controller; with its lock held, but for attach and destroy ---- */

void usb_device_attach(struct usb_device *device, const struct usb_host *host, unsigned port);
enum usb_speed usb_device_speed(const struct usb_device *device);
const char *usb_device_name(const struct usb_device *device);
/* Whether it may wake the host up: asked to, and able to. */
bool usb_device_wakes(const struct usb_device *device);
void usb_device_reset(struct usb_device *device); /* the bus is reset */
void usb_device_power_on(struct usb_device *device);
void usb_device_set_address(struct usb_device *device, uint8_t address);
/* A control transfer. `data` has room for USB_CONTROL_MAX_BYTES; *size_bytes as in ops->request. */
enum usb_status usb_device_control(struct usb_device *device, const struct usb_setup *setup,
                                   uint8_t *data, size_t *size_bytes);
enum usb_status usb_device_transfer(struct usb_device *device, struct usb_transfer *transfer);
void usb_device_stopped(struct usb_device *device, uint8_t endpoint);
void usb_device_save(struct usb_device *device, struct save *save);
bool usb_device_load(struct usb_device *device, struct load *load);
void usb_device_destroy(struct usb_device *device);

#endif
