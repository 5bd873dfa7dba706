/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What a person does with keyboard and pointer, on its way from a viewer or a command to a device.
 * Keys and buttons have the numbers of Linux's input-event-codes.h (KEY_A is 30, BTN_LEFT is
 * 0x110), which name a key's place, not the letter on it.
 */
#ifndef SKEP_BUS_INPUT_H
#define SKEP_BUS_INPUT_H

#include <stdbool.h>
#include <stdint.h>

/* Positions of an absolute pointer run from 0 to this, whatever the size of the screen. */
enum { INPUT_POSITION_MAX = 0x7fff };

enum input_button {
    INPUT_LEFT = 1 << 0,
    INPUT_RIGHT = 1 << 1,
    INPUT_MIDDLE = 1 << 2,
    INPUT_SIDE = 1 << 3,
    INPUT_EXTRA = 1 << 4,
};

/* A pointer's state after it has changed. */
struct input_pointer {
    bool is_absolute;
    uint16_t x, y;    /* of an absolute pointer: 0 … INPUT_POSITION_MAX */
    int dx, dy;       /* of a relative one: right and down */
    int wheel_up;     /* notches away from the person */
    int wheel_right;  /* notches to the right */
    unsigned buttons; /* enum input_button: those that are down */
};

/* A device that takes input. All calls on any thread; what finds no room is lost, as on real
 * hardware. Either function may be NULL: it takes no such input. */
struct input_device {
    void (*key)(void *opaque, unsigned key, bool is_down);
    void (*pointer)(void *opaque, const struct input_pointer *pointer);
    bool takes_absolute; /* its pointer is an absolute one; otherwise it wants relative ones */
    /* Whether the guest's driver listens to it at present; NULL: always. The machine sends input to
     * the last device of its kind that listens. */
    bool (*is_listening)(void *opaque);
    void *opaque;
};

#endif
