/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A PS/2 keyboard and mouse as the controller (i8042.c) has them on its wires: it writes a byte to
 * a device, and takes what waits in the device's queue. A device answers at once. The controller's
 * lock guards them.
 */
#ifndef SKEP_DEV_PS2_H
#define SKEP_DEV_PS2_H

#include "bus/stream.h"

#include <stdbool.h>
#include <stdint.h>

enum { PS2_QUEUE_BYTES = 256, PS2_ANSWER_BYTES = 32 };

enum { /* what devices say */
       PS2_ACK = 0xfa,
       PS2_RESEND = 0xfe,
       PS2_BAT_PASSED = 0xaa,
       PS2_ECHO = 0xee,
};

/* A queue of bytes; one that would overflow takes nothing. */
struct ps2_queue {
    uint8_t bytes[PS2_QUEUE_BYTES];
    uint16_t head, count;
};

struct ps2_keyboard {
    struct ps2_queue queue;
    bool scanning;
    uint8_t set;     /* scan code set 1 to 3 */
    uint8_t command; /* waits for its argument; 0: none */
    uint8_t leds, typematic;
    uint8_t last; /* for resend */
};

struct ps2_mouse {
    struct ps2_queue queue;
    bool reporting, remote, wrap, scale2;
    uint8_t command;
    uint8_t rate, resolution;
    uint8_t id;       /* 0 plain, 3 wheel, 4 five buttons */
    uint8_t rates[3]; /* the last ones set: the knock */
    uint8_t buttons, sent_buttons;
    int32_t dx, dy, dz; /* not yet sent */
    uint8_t last;
};

/* ---- ps2_queue.c ---- */

uint8_t ps2_queue_get(struct ps2_queue *queue); /* there is one */
void ps2_queue_clear(struct ps2_queue *queue);
/* Answers have the queue's last bytes for themselves, so that keys cannot crowd them out. */
void ps2_queue_answer(struct ps2_queue *queue, uint8_t byte);
bool ps2_queue_input(struct ps2_queue *queue, const uint8_t *bytes, unsigned count);
void ps2_queue_save(const struct ps2_queue *queue, struct save *save);
void ps2_queue_load(struct ps2_queue *queue, struct load *load);

/* ---- ps2_keyboard.c ---- */

/* Code of set 2 for each code of set 1; the controller's translation is the inverse. */
extern const uint8_t ps2_set2_of_set1[128];

void ps2_keyboard_defaults(struct ps2_keyboard *keyboard, bool scanning);
void ps2_keyboard_write(struct ps2_keyboard *keyboard, uint8_t value);
/* As i8042_key(). */
bool ps2_keyboard_key(struct ps2_keyboard *keyboard, unsigned scancode, bool pressed);
void ps2_keyboard_save(const struct ps2_keyboard *keyboard, struct save *save);
void ps2_keyboard_load(struct ps2_keyboard *keyboard, struct load *load);

/* ---- ps2_mouse.c ---- */

void ps2_mouse_defaults(struct ps2_mouse *mouse);
void ps2_mouse_write(struct ps2_mouse *mouse, uint8_t value);
/* As i8042_mouse(). */
void ps2_mouse_move(struct ps2_mouse *mouse, int dx, int dy, int dz, unsigned buttons);
/* In stream mode, sends what has moved as far as the queue has room. */
void ps2_mouse_stream(struct ps2_mouse *mouse);
void ps2_mouse_save(const struct ps2_mouse *mouse, struct save *save);
void ps2_mouse_load(struct ps2_mouse *mouse, struct load *load);

#endif
