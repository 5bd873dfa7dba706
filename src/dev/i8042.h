/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The PC's keyboard controller with a PS/2 keyboard and a PS/2 wheel mouse.
 */
#ifndef SKEP_DEV_I8042_H
#define SKEP_DEV_I8042_H

#include "base/error.h"
#include "bus/bus.h"
#include "bus/device.h"
#include "bus/input.h"
#include "bus/irq.h"

#include <stdbool.h>
#include <stdint.h>

struct i8042;

struct i8042_config {
    uint16_t data_base;    /* one port: 0x60 on a PC */
    uint16_t command_base; /* one port: 0x64 on a PC */
    struct irq_line keyboard_irq, mouse_irq;
    void (*reset)(void *opaque); /* the guest pulses the reset line; on a vCPU thread, no lock held;
                                    may be NULL */
    /* The guest switches A20; told with no lock held, on change only. May be NULL. */
    void (*set_a20)(void *opaque, bool enabled);
    void *opaque;
};

/* `bus` must outlive the device. NULL and `err` filled on failure. Free with i8042_ops.destroy. */
struct i8042 *i8042_create(const struct i8042_config *config, struct bus *bus, struct error *err);

/* A key goes down or up. `scancode` is its make code of set 1: 0x01 to 0x7f, with 0xe0 in the high
 * byte for extended keys (0xe048 is cursor up), 0xe11d for Pause. Others are ignored. False when
 * the keyboard's queue is full: the key is lost, as on a real one. Any thread. */
bool i8042_key(struct i8042 *kbc, unsigned scancode, bool pressed);

/* The mouse moves by (dx right, dy down) and its wheel by dz (down); bits of `buttons`: 1 left, 2
 * right, 4 middle, 8 and 16 the side ones. Any thread. */
void i8042_mouse(struct i8042 *kbc, int dx, int dy, int dz, unsigned buttons);

/* Both as one device that takes input: keys by Linux's numbers, relative movement. It always
 * listens. */
struct input_device i8042_input(struct i8042 *kbc);

extern const struct device_ops i8042_ops;

#endif
