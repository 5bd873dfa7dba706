/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Shares input out: viewers and commands give keys and pointer, and of the devices that take such
 * input the last one gets it that the guest listens to. Remembers what is down, so that nothing
 * stays down that nobody holds. All functions but create and add on any thread.
 */
#ifndef SKEP_MACHINE_INPUT_H
#define SKEP_MACHINE_INPUT_H

#include "base/error.h"
#include "bus/device.h"
#include "bus/input.h"

#include <stdbool.h>

enum { INPUT_MAX_DEVICES = 8, INPUT_MAX_KEYS = 768 };

struct input;

/* Free with input_ops.destroy. NULL: out of memory. */
struct input *input_create(struct error *err);

/* Devices are added in the same order in each life of a machine, before it runs, at most
 * INPUT_MAX_DEVICES. `device` is copied; it must outlive all input. */
void input_add(struct input *input, const struct input_device *device);

/* A key that is down goes down again: it repeats. One that goes up without being down does
 * nothing, and keys of INPUT_MAX_KEYS and more are none. */
void input_key(struct input *input, unsigned key, bool is_down);

/* Absolute positions become movement for a device that wants that, and the other way round. */
void input_pointer(struct input *input, const struct input_pointer *pointer);

/* Whether positions would arrive as such. */
bool input_is_absolute(struct input *input);

/* All keys and buttons go up. */
void input_release(struct input *input);

/* Its reset forgets what is down, since every device's reset does. */
extern const struct device_ops input_ops;

#endif
