/* SPDX-License-Identifier: BSD-2-Clause
 *
 * USB input devices (Device Class Definition for HID 1.11): a keyboard of the boot interface with
 * LEDs, and a tablet with absolute positions, five buttons and two wheels.
 */
#ifndef SKEP_DEV_USB_HID_H
#define SKEP_DEV_USB_HID_H

#include "base/error.h"
#include "bus/clock.h"
#include "bus/input.h"
#include "dev/usb/usb.h"

/* Each gives the device and its side of bus/input.h, which lives as long. The clock, for reports at
 * the idle rate, must outlive both. NULL and `err` filled on failure. */
struct usb_device *usb_keyboard_create(struct clock *clock, struct input_device *input,
                                       struct error *err);
struct usb_device *usb_tablet_create(struct clock *clock, struct input_device *input,
                                     struct error *err);

/* The keyboard's LEDs as the guest has set them: bits of 7.2.2 (Num Lock 1, Caps Lock 2). */
unsigned usb_keyboard_leds(struct usb_device *device);

#endif
