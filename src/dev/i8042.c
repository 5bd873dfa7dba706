/* SPDX-License-Identifier: BSD-2-Clause
 *
 * 8042 keyboard controller (IBM Personal System/2 Hardware Interface Technical Reference,
 * "Keyboard and Auxiliary Device Controller") with a 101-key keyboard ("Keyboards, 101- and
 * 102-key", scan code sets 1 to 3) and a mouse with wheel and five buttons ("Mouse"; IntelliMouse
 * and its Explorer's knocks).
 *
 * Left out: the controller's own program memory beyond the command byte, active multiplexing,
 * typematic repeat (the source of keys repeats them), the reduced set of keys that repeat or break
 * in scan code set 3 (all break).
 *
 * A device answers at once, its answer waits in its queue until the output buffer is free. vCPU
 * threads use the ports, any thread brings input; one lock, not held when reset or set_a20 run.
 */
#include "dev/i8042.h"

#include "dev/ports.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { QUEUE_BYTES = 256, ANSWER_BYTES = 32, KEY_MAX_BYTES = 8, PACKET_MAX_BYTES = 4 };

enum { /* the controller */
       STATUS_OUTPUT_FULL = 0x01,
       STATUS_SYSTEM = 0x04,
       STATUS_COMMAND = 0x08,
       STATUS_UNLOCKED = 0x10,
       STATUS_AUX = 0x20,
       MODE_KEYBOARD_IRQ = 0x01,
       MODE_MOUSE_IRQ = 0x02,
       MODE_SYSTEM = 0x04,
       MODE_KEYBOARD_OFF = 0x10,
       MODE_MOUSE_OFF = 0x20,
       MODE_TRANSLATE = 0x40,
       OUTPUT_NOT_RESET = 0x01,
       OUTPUT_A20 = 0x02,
       SELF_TEST_PASSED = 0x55,
};

enum { /* what devices say */
       ACK = 0xfa,
       RESEND = 0xfe,
       BAT_PASSED = 0xaa,
       ECHO = 0xee,
};

/* A queue of bytes; one that would overflow takes nothing. */
struct queue {
    uint8_t bytes[QUEUE_BYTES];
    uint16_t head, count;
};

struct keyboard {
    struct queue queue;
    bool scanning;
    uint8_t set;     /* scan code set 1 to 3 */
    uint8_t command; /* waits for its argument; 0: none */
    uint8_t leds, typematic;
    uint8_t last; /* for resend */
};

struct mouse {
    struct queue queue;
    bool reporting, remote, wrap, scale2;
    uint8_t command;
    uint8_t rate, resolution;
    uint8_t id;       /* 0 plain, 3 wheel, 4 five buttons */
    uint8_t rates[3]; /* the last ones set: the knock */
    uint8_t buttons, sent_buttons;
    int32_t dx, dy, dz; /* not yet sent */
    uint8_t last;
};

struct kbc_state {
    uint8_t mode; /* the command byte */
    uint8_t output_port;
    uint8_t command; /* waits for its argument at the data port; 0: none */
    uint8_t status;  /* STATUS_SYSTEM and STATUS_COMMAND */
    uint8_t data;    /* output buffer */
    bool full, from_mouse;
    bool is_answer;    /* of the controller */
    uint8_t held_data; /* a device's byte that an answer has displaced comes back after it */
    bool held, held_from_mouse;
    bool translate_break; /* translation saw 0xf0 */
    struct keyboard keyboard;
    struct mouse mouse;
};

struct i8042 {
    pthread_mutex_t lock;
    struct i8042_config config;
    struct bus *bus;
    struct bus_range ranges[2];
    struct kbc_state s;
    bool keyboard_irq, mouse_irq;
    bool reset_wanted; /* told when the lock is free */
};

/* Code of set 2 for each code of set 1; the controller's translation is the inverse. */
static const uint8_t set2_of_set1[128] = {
    0x00, 0x76, 0x16, 0x1e, 0x26, 0x25, 0x2e, 0x36, 0x3d, 0x3e, 0x46, 0x45, 0x4e, 0x55, 0x66, 0x0d,
    0x15, 0x1d, 0x24, 0x2d, 0x2c, 0x35, 0x3c, 0x43, 0x44, 0x4d, 0x54, 0x5b, 0x5a, 0x14, 0x1c, 0x1b,
    0x23, 0x2b, 0x34, 0x33, 0x3b, 0x42, 0x4b, 0x4c, 0x52, 0x0e, 0x12, 0x5d, 0x1a, 0x22, 0x21, 0x2a,
    0x32, 0x31, 0x3a, 0x41, 0x49, 0x4a, 0x59, 0x7c, 0x11, 0x29, 0x58, 0x05, 0x06, 0x04, 0x0c, 0x03,
    0x0b, 0x83, 0x0a, 0x01, 0x09, 0x77, 0x7e, 0x6c, 0x75, 0x7d, 0x7b, 0x6b, 0x73, 0x74, 0x79, 0x69,
    0x72, 0x7a, 0x70, 0x71, 0x84, 0x60, 0x61, 0x78, 0x07, 0x0f, 0x17, 0x1f, 0x27, 0x2f, 0x37, 0x3f,
    0x47, 0x4f, 0x56, 0x5e, 0x08, 0x10, 0x18, 0x20, 0x28, 0x30, 0x38, 0x40, 0x48, 0x50, 0x57, 0x6f,
    0x13, 0x19, 0x39, 0x51, 0x53, 0x5c, 0x5f, 0x62, 0x63, 0x64, 0x65, 0x67, 0x68, 0x6a, 0x6d, 0x6e,
};

/* Where set 3 differs from set 2, by the code of set 1. */
struct set3_key {
    uint16_t set1;
    uint8_t set3;
};
static const struct set3_key set3_keys[] = {
    {0x01, 0x08},   {0x1d, 0x11},   {0x2b, 0x5c},   {0x38, 0x19},   {0x3a, 0x14},   {0x3b, 0x07},
    {0x3c, 0x0f},   {0x3d, 0x17},   {0x3e, 0x1f},   {0x3f, 0x27},   {0x40, 0x2f},   {0x41, 0x37},
    {0x42, 0x3f},   {0x43, 0x47},   {0x44, 0x4f},   {0x45, 0x76},   {0x46, 0x5f},   {0x37, 0x7e},
    {0x4a, 0x84},   {0x4e, 0x7c},   {0x56, 0x13},   {0x57, 0x56},   {0x58, 0x5e},   {0xe01c, 0x79},
    {0xe01d, 0x58}, {0xe035, 0x77}, {0xe037, 0x57}, {0xe038, 0x39}, {0xe047, 0x6e}, {0xe048, 0x63},
    {0xe049, 0x6f}, {0xe04b, 0x61}, {0xe04d, 0x6a}, {0xe04f, 0x65}, {0xe050, 0x60}, {0xe051, 0x6d},
    {0xe052, 0x67}, {0xe053, 0x64}, {0xe05b, 0x8b}, {0xe05c, 0x8c}, {0xe05d, 0x8d}, {0xe11d, 0x62},
};

static bool queue_put(struct queue *queue, const uint8_t *bytes, unsigned count, unsigned limit)
{
    if (queue->count + count > limit)
        return false;
    for (unsigned i = 0; i < count; i++)
        queue->bytes[(queue->head + queue->count++) % QUEUE_BYTES] = bytes[i];
    return true;
}

static uint8_t queue_get(struct queue *queue)
{
    uint8_t byte = queue->bytes[queue->head];
    queue->head = (uint16_t)((queue->head + 1) % QUEUE_BYTES);
    queue->count--;
    return byte;
}

static void queue_clear(struct queue *queue)
{
    queue->head = queue->count = 0;
}

/* Answers have the queue's last bytes for themselves, so that keys cannot crowd them out. */
static void queue_answer(struct queue *queue, uint8_t byte)
{
    queue_put(queue, &byte, 1, QUEUE_BYTES);
}

static bool queue_input(struct queue *queue, const uint8_t *bytes, unsigned count)
{
    return queue_put(queue, bytes, count, QUEUE_BYTES - ANSWER_BYTES);
}

/* --- the controller's output buffer --- */

static void kbc_update_irqs(struct i8042 *kbc)
{
    const struct kbc_state *s = &kbc->s;
    bool keyboard = s->full && !s->from_mouse && (s->mode & MODE_KEYBOARD_IRQ);
    bool mouse = s->full && s->from_mouse && (s->mode & MODE_MOUSE_IRQ);
    if (keyboard != kbc->keyboard_irq) {
        kbc->keyboard_irq = keyboard;
        irq_set(&kbc->config.keyboard_irq, keyboard);
    }
    if (mouse != kbc->mouse_irq) {
        kbc->mouse_irq = mouse;
        irq_set(&kbc->config.mouse_irq, mouse);
    }
}

static void kbc_output(struct i8042 *kbc, uint8_t data, bool from_mouse)
{
    kbc->s.data = data;
    kbc->s.full = true;
    kbc->s.from_mouse = from_mouse;
    kbc->s.is_answer = false;
}

/* An answer of the controller goes before what is in the buffer: the guest waits for it now. */
static void kbc_answer_as(struct i8042 *kbc, uint8_t data, bool from_mouse)
{
    struct kbc_state *s = &kbc->s;
    if (s->full && !s->is_answer && !s->held) {
        s->held = true;
        s->held_data = s->data;
        s->held_from_mouse = s->from_mouse;
    }
    kbc_output(kbc, data, from_mouse);
    s->is_answer = true;
}

static void kbc_answer(struct i8042 *kbc, uint8_t data)
{
    kbc_answer_as(kbc, data, false);
}

/* Set 2 to set 1; false when nothing comes of the byte (0xf0 marks the next one as a break). */
static bool kbc_translate(struct kbc_state *s, uint8_t *byte)
{
    if (*byte == 0xf0) {
        s->translate_break = true;
        return false;
    }
    uint8_t break_bit = s->translate_break ? 0x80 : 0;
    s->translate_break = false;
    if (*byte == 0x02 || *byte == 0x7f) { /* also F7 and SysRq, and "set 2" */
        *byte = (*byte == 0x02 ? 0x41 : 0x54) | break_bit;
        return true;
    }
    for (unsigned i = 1; i < 128; i++) {
        if (set2_of_set1[i] == *byte) {
            *byte = (uint8_t)(i | break_bit);
            break;
        }
    }
    return true;
}

/* Moves the next byte of a device into a free output buffer. */
static void kbc_advance(struct i8042 *kbc)
{
    struct kbc_state *s = &kbc->s;
    if (!s->full && s->held) {
        s->held = false;
        kbc_output(kbc, s->held_data, s->held_from_mouse);
    }
    while (!s->full && !(s->mode & MODE_KEYBOARD_OFF) && s->keyboard.queue.count) {
        uint8_t byte = queue_get(&s->keyboard.queue);
        s->keyboard.last = byte;
        if (!(s->mode & MODE_TRANSLATE) || kbc_translate(s, &byte))
            kbc_output(kbc, byte, false);
    }
    if (!s->full && !(s->mode & MODE_MOUSE_OFF) && s->mouse.queue.count) {
        s->mouse.last = queue_get(&s->mouse.queue);
        kbc_output(kbc, s->mouse.last, true);
    }
}

/* --- the keyboard --- */

static void keyboard_defaults(struct keyboard *keyboard, bool scanning)
{
    queue_clear(&keyboard->queue);
    keyboard->scanning = scanning;
    keyboard->set = 2;
    keyboard->command = 0;
    keyboard->typematic = 0x2b;
}

static void keyboard_argument(struct keyboard *keyboard, uint8_t value)
{
    uint8_t command = keyboard->command;
    keyboard->command = 0;
    if (command == 0xed) {
        keyboard->leds = value & 7;
    } else if (command == 0xf3) {
        keyboard->typematic = value & 0x7f;
    } else if (command == 0xf0 && value == 0) {
        queue_answer(&keyboard->queue, ACK);
        queue_answer(&keyboard->queue, keyboard->set);
        return;
    } else if (command == 0xf0 && value <= 3) {
        keyboard->set = value;
    } else if (command == 0xf0) {
        queue_answer(&keyboard->queue, RESEND);
        return;
    }
    queue_answer(&keyboard->queue, ACK);
}

static void keyboard_command(struct keyboard *keyboard, uint8_t value)
{
    struct queue *queue = &keyboard->queue;
    switch (value) {
    case 0xed: /* LEDs */
    case 0xf0: /* scan code set */
    case 0xf3: /* typematic rate and delay */
    case 0xfb: /* set 3: types of single keys; the argument is taken */
    case 0xfc:
    case 0xfd: keyboard->command = value; break;
    case 0xee: queue_answer(queue, ECHO); return;
    case 0xf2:
        queue_answer(queue, ACK);
        queue_answer(queue, 0xab);
        queue_answer(queue, 0x83);
        return;
    case 0xf4:
        queue_clear(queue);
        keyboard->scanning = true;
        break;
    case 0xf5: keyboard_defaults(keyboard, false); break;
    case 0xf6: keyboard_defaults(keyboard, true); break;
    case 0xf7: /* set 3: types of all keys */
    case 0xf8:
    case 0xf9:
    case 0xfa: break;
    case 0xfe: queue_answer(queue, keyboard->last); return;
    case 0xff:
        keyboard_defaults(keyboard, true);
        keyboard->leds = 0;
        queue_answer(queue, ACK);
        queue_answer(queue, BAT_PASSED);
        return;
    default: queue_answer(queue, RESEND); return;
    }
    queue_answer(queue, ACK);
}

static void keyboard_write(struct keyboard *keyboard, uint8_t value)
{
    /* A command in place of an argument ends the wait for it. */
    if (keyboard->command && value < 0xed) {
        keyboard_argument(keyboard, value);
    } else {
        keyboard->command = 0;
        keyboard_command(keyboard, value);
    }
}

static uint8_t set3_of_set1(unsigned scancode)
{
    for (unsigned i = 0; i < sizeof(set3_keys) / sizeof(set3_keys[0]); i++)
        if (set3_keys[i].set1 == scancode)
            return set3_keys[i].set3;
    return scancode < 128 ? set2_of_set1[scancode] : 0;
}

static unsigned pause_bytes(unsigned set, uint8_t *bytes)
{
    static const uint8_t set1[] = {0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5};
    static const uint8_t set2[] = {0xe1, 0x14, 0x77, 0xe1, 0xf0, 0x14, 0xf0, 0x77};
    memcpy(bytes, set == 1 ? set1 : set2, set == 1 ? sizeof(set1) : sizeof(set2));
    return set == 1 ? sizeof(set1) : sizeof(set2);
}

/* What the keyboard sends for a key; returns how many of KEY_MAX_BYTES bytes. */
static unsigned keyboard_encode(unsigned set, unsigned scancode, bool pressed, uint8_t *bytes)
{
    unsigned count = 0, code = scancode & 0x7f;
    bool is_pause = scancode == 0xe11d;
    if (set == 3) {
        uint8_t set3 = set3_of_set1(scancode);
        if (!pressed && set3)
            bytes[count++] = 0xf0;
        if (set3)
            bytes[count++] = set3;
        return count;
    }
    if (is_pause)
        return pressed ? pause_bytes(set, bytes) : 0; /* make and break at once */
    if (scancode >> 8)
        bytes[count++] = 0xe0;
    if (set == 1) {
        bytes[count++] = (uint8_t)(code | (pressed ? 0 : 0x80));
        return count;
    }
    if (!pressed)
        bytes[count++] = 0xf0;
    bytes[count++] = set2_of_set1[code];
    return count;
}

bool i8042_key(struct i8042 *kbc, unsigned scancode, bool pressed)
{
    uint8_t bytes[KEY_MAX_BYTES];
    unsigned prefix = scancode >> 8;
    if (!(scancode & 0x7f) || (scancode & 0x80) || (prefix && prefix != 0xe0 && scancode != 0xe11d))
        return true;
    bool taken = true;
    pthread_mutex_lock(&kbc->lock);
    struct keyboard *keyboard = &kbc->s.keyboard;
    if (keyboard->scanning) {
        unsigned count = keyboard_encode(keyboard->set, scancode, pressed, bytes);
        taken = queue_input(&keyboard->queue, bytes, count);
        kbc_advance(kbc);
        kbc_update_irqs(kbc);
    }
    pthread_mutex_unlock(&kbc->lock);
    return taken;
}

/* --- the mouse --- */

static void mouse_defaults(struct mouse *mouse)
{
    queue_clear(&mouse->queue);
    mouse->reporting = mouse->remote = mouse->scale2 = mouse->wrap = false;
    mouse->command = 0;
    mouse->rate = 100;
    mouse->resolution = 2;
    mouse->dx = mouse->dy = mouse->dz = 0;
}

static int32_t clamp(int32_t value, int32_t low, int32_t high)
{
    return value < low ? low : value > high ? high : value;
}

/* 2:1 scaling of stream mode, by the reference's table. */
static int32_t mouse_scale(int32_t value)
{
    static const uint8_t table[6] = {0, 1, 1, 3, 6, 9};
    int32_t size = value < 0 ? -value : value;
    size = size < 6 ? table[size] : 2 * size;
    return value < 0 ? -size : size;
}

/* Takes what one packet can tell out of the pending movement. */
static unsigned mouse_packet(struct mouse *mouse, bool scaled, uint8_t *bytes)
{
    int32_t dx = clamp(mouse->dx, -127, 127), dy = clamp(mouse->dy, -127, 127);
    int32_t dz = clamp(mouse->dz, mouse->id == 4 ? -7 : -127, mouse->id == 4 ? 7 : 127);
    mouse->dx -= dx;
    mouse->dy -= dy;
    mouse->dz = mouse->id ? mouse->dz - dz : 0;
    mouse->sent_buttons = mouse->buttons;
    if (scaled && mouse->scale2) {
        dx = mouse_scale(dx);
        dy = mouse_scale(dy);
    }
    bytes[0] = (uint8_t)((mouse->buttons & 7) | 8 | (dx < 0 ? 0x10 : 0) | (dy < 0 ? 0x20 : 0));
    bytes[1] = (uint8_t)dx;
    bytes[2] = (uint8_t)dy;
    if (mouse->id == 3)
        bytes[3] = (uint8_t)dz;
    else if (mouse->id == 4)
        bytes[3] = (uint8_t)((dz & 15) | (mouse->buttons & 0x18) << 1);
    return mouse->id ? 4 : 3;
}

/* In stream mode, sends what has moved as far as the queue has room. */
static void mouse_stream(struct mouse *mouse)
{
    while (mouse->reporting && !mouse->remote && !mouse->wrap &&
           mouse->queue.count + PACKET_MAX_BYTES <= QUEUE_BYTES - ANSWER_BYTES &&
           (mouse->dx || mouse->dy || (mouse->id && mouse->dz) ||
            mouse->buttons != mouse->sent_buttons)) {
        uint8_t bytes[PACKET_MAX_BYTES];
        unsigned count = mouse_packet(mouse, true, bytes);
        queue_input(&mouse->queue, bytes, count);
    }
}

void i8042_mouse(struct i8042 *kbc, int dx, int dy, int dz, unsigned buttons)
{
    const int32_t limit = 4096; /* what piles up while nobody reads */
    pthread_mutex_lock(&kbc->lock);
    struct mouse *mouse = &kbc->s.mouse;
    mouse->dx = clamp(mouse->dx + clamp(dx, -limit, limit), -limit, limit);
    mouse->dy = clamp(mouse->dy - clamp(dy, -limit, limit), -limit, limit);
    mouse->dz = clamp(mouse->dz + clamp(dz, -limit, limit), -limit, limit);
    mouse->buttons = buttons & 0x1f;
    mouse_stream(mouse);
    kbc_advance(kbc);
    kbc_update_irqs(kbc);
    pthread_mutex_unlock(&kbc->lock);
}

static void mouse_set_rate(struct mouse *mouse, uint8_t rate)
{
    mouse->rate = rate;
    mouse->rates[0] = mouse->rates[1];
    mouse->rates[1] = mouse->rates[2];
    mouse->rates[2] = rate;
    if (mouse->rates[0] != 200 || mouse->rates[2] != 80)
        return;
    if (mouse->rates[1] == 100 && mouse->id == 0)
        mouse->id = 3;
    else if (mouse->rates[1] == 200 && mouse->id)
        mouse->id = 4;
}

static void mouse_status(struct mouse *mouse)
{
    struct queue *queue = &mouse->queue;
    queue_answer(queue, ACK);
    queue_answer(queue, (uint8_t)((mouse->remote ? 0x40 : 0) | (mouse->reporting ? 0x20 : 0) |
                                  (mouse->scale2 ? 0x10 : 0) | (mouse->buttons & 1 ? 4 : 0) |
                                  (mouse->buttons & 4 ? 2 : 0) | (mouse->buttons & 2 ? 1 : 0)));
    queue_answer(queue, mouse->resolution);
    queue_answer(queue, mouse->rate);
}

static void mouse_reset(struct mouse *mouse)
{
    mouse_defaults(mouse);
    mouse->id = 0;
    memset(mouse->rates, 0, sizeof(mouse->rates));
    queue_answer(&mouse->queue, ACK);
    queue_answer(&mouse->queue, BAT_PASSED);
    queue_answer(&mouse->queue, mouse->id);
}

static void mouse_read_data(struct mouse *mouse)
{
    uint8_t bytes[PACKET_MAX_BYTES];
    unsigned count = mouse_packet(mouse, false, bytes);
    queue_answer(&mouse->queue, ACK);
    for (unsigned i = 0; i < count; i++)
        queue_answer(&mouse->queue, bytes[i]);
}

static void mouse_command(struct mouse *mouse, uint8_t value)
{
    struct queue *queue = &mouse->queue;
    switch (value) {
    case 0xe6: mouse->scale2 = false; break;
    case 0xe7: mouse->scale2 = true; break;
    case 0xe8: /* resolution */
    case 0xf3: mouse->command = value; break;
    case 0xe9: mouse_status(mouse); return;
    case 0xea: mouse->remote = false; break;
    case 0xeb: mouse_read_data(mouse); return;
    case 0xec: mouse->wrap = false; break;
    case 0xee: mouse->wrap = true; break;
    case 0xf0: mouse->remote = true; break;
    case 0xf2:
        queue_answer(queue, ACK);
        queue_answer(queue, mouse->id);
        return;
    case 0xf4:
        mouse->reporting = true;
        mouse->dx = mouse->dy = mouse->dz = 0;
        mouse->sent_buttons = mouse->buttons;
        break;
    case 0xf5:
        mouse->reporting = false;
        queue_clear(queue);
        break;
    case 0xf6: mouse_defaults(mouse); break;
    case 0xfe: queue_answer(queue, mouse->last); return;
    case 0xff: mouse_reset(mouse); return;
    default: queue_answer(queue, RESEND); return;
    }
    queue_answer(queue, ACK);
}

static void mouse_write(struct mouse *mouse, uint8_t value)
{
    if (mouse->wrap && value != 0xec && value != 0xff) {
        queue_answer(&mouse->queue, value);
        return;
    }
    if (!mouse->command) {
        mouse_command(mouse, value);
        return;
    }
    bool is_rate = mouse->command == 0xf3;
    mouse->command = 0;
    if (is_rate ? value == 0 || value > 200 : value > 3) {
        queue_answer(&mouse->queue, RESEND);
        return;
    }
    if (is_rate)
        mouse_set_rate(mouse, value);
    else
        mouse->resolution = value;
    queue_answer(&mouse->queue, ACK);
}

/* --- the controller's ports --- */

static void kbc_set_output_port(struct i8042 *kbc, uint8_t value)
{
    if (!(value & OUTPUT_NOT_RESET))
        kbc->reset_wanted = true;
    kbc->s.output_port = value | OUTPUT_NOT_RESET;
}

static uint8_t kbc_output_port(const struct i8042 *kbc)
{
    const struct kbc_state *s = &kbc->s;
    return (uint8_t)((s->output_port & 0xcf) | (s->full && !s->from_mouse ? 0x10 : 0) |
                     (s->full && s->from_mouse ? 0x20 : 0));
}

static void kbc_self_test(struct i8042 *kbc)
{
    struct kbc_state *s = &kbc->s;
    s->status |= STATUS_SYSTEM;
    s->mode = MODE_TRANSLATE | MODE_KEYBOARD_OFF | MODE_MOUSE_OFF | MODE_SYSTEM;
    queue_clear(&s->keyboard.queue);
    queue_clear(&s->mouse.queue);
    s->full = s->held = s->translate_break = false;
    kbc_answer(kbc, SELF_TEST_PASSED);
}

static void kbc_command(struct i8042 *kbc, uint8_t value)
{
    struct kbc_state *s = &kbc->s;
    s->status |= STATUS_COMMAND;
    s->command = 0;
    switch (value) {
    case 0x20: kbc_answer(kbc, s->mode); break;
    case 0x60: /* command byte */
    case 0xd1: /* output port */
    case 0xd2: /* as if from the keyboard */
    case 0xd3: /* as if from the mouse */
    case 0xd4: /* to the mouse */ s->command = value; break;
    case 0xa7: s->mode |= MODE_MOUSE_OFF; break;
    case 0xa8: s->mode &= (uint8_t)~MODE_MOUSE_OFF; break;
    case 0xa9:
    case 0xab: kbc_answer(kbc, 0x00); break; /* interface tests: no error */
    case 0xaa: kbc_self_test(kbc); break;
    case 0xad: s->mode |= MODE_KEYBOARD_OFF; break;
    case 0xae: s->mode &= (uint8_t)~MODE_KEYBOARD_OFF; break;
    case 0xc0: kbc_answer(kbc, 0x80); break; /* input port: keyboard not locked */
    case 0xd0: kbc_answer(kbc, kbc_output_port(kbc)); break;
    case 0xdd: s->output_port &= (uint8_t)~OUTPUT_A20; break;
    case 0xdf: s->output_port |= OUTPUT_A20; break;
    default:
        /* 0xf0 to 0xff pulse the lines whose bit is zero; only the reset line is wired. */
        if (value >= 0xf0 && !(value & OUTPUT_NOT_RESET))
            kbc->reset_wanted = true;
        break;
    }
}

static void kbc_write_data(struct i8042 *kbc, uint8_t value)
{
    struct kbc_state *s = &kbc->s;
    uint8_t command = s->command;
    s->status &= (uint8_t)~STATUS_COMMAND;
    s->command = 0;
    switch (command) {
    case 0x60:
        s->mode = value & 0x7f;
        s->status =
            (uint8_t)((s->status & ~STATUS_SYSTEM) | (value & MODE_SYSTEM ? STATUS_SYSTEM : 0));
        break;
    case 0xd1: kbc_set_output_port(kbc, value); break;
    case 0xd2: kbc_answer_as(kbc, value, false); break;
    case 0xd3: kbc_answer_as(kbc, value, true); break;
    case 0xd4:
        s->mode &= (uint8_t)~MODE_MOUSE_OFF; /* else the answer would not come */
        mouse_write(&s->mouse, value);
        mouse_stream(&s->mouse);
        break;
    default:
        s->mode &= (uint8_t)~MODE_KEYBOARD_OFF;
        keyboard_write(&s->keyboard, value);
        break;
    }
}

/* Updates the lines, unlocks and tells what must be told without the lock. */
static void kbc_unlock(struct i8042 *kbc, bool a20_before)
{
    kbc_advance(kbc);
    kbc_update_irqs(kbc);
    bool reset = kbc->reset_wanted, a20 = kbc->s.output_port & OUTPUT_A20;
    kbc->reset_wanted = false;
    pthread_mutex_unlock(&kbc->lock);
    if (a20 != a20_before && kbc->config.set_a20)
        kbc->config.set_a20(kbc->config.opaque, a20);
    if (reset && kbc->config.reset)
        kbc->config.reset(kbc->config.opaque);
}

static void kbc_write_byte(struct i8042 *kbc, bool is_command, uint8_t value)
{
    pthread_mutex_lock(&kbc->lock);
    bool a20 = kbc->s.output_port & OUTPUT_A20;
    if (is_command)
        kbc_command(kbc, value);
    else
        kbc_write_data(kbc, value);
    kbc_unlock(kbc, a20);
}

static void data_write_byte(void *kbc, unsigned offset, uint8_t value)
{
    kbc_write_byte(kbc, false, value);
}

static void command_write_byte(void *kbc, unsigned offset, uint8_t value)
{
    kbc_write_byte(kbc, true, value);
}

/* The interrupt falls before the next byte raises it again. */
static uint8_t data_read_byte(void *opaque, unsigned offset)
{
    struct i8042 *kbc = opaque;
    pthread_mutex_lock(&kbc->lock);
    uint8_t value = kbc->s.data;
    kbc->s.full = false;
    kbc_update_irqs(kbc);
    mouse_stream(&kbc->s.mouse); /* movement that waited for room */
    kbc_advance(kbc);
    kbc_update_irqs(kbc);
    pthread_mutex_unlock(&kbc->lock);
    return value;
}

static uint8_t status_read_byte(void *opaque, unsigned offset)
{
    struct i8042 *kbc = opaque;
    pthread_mutex_lock(&kbc->lock);
    const struct kbc_state *s = &kbc->s;
    uint8_t value = (uint8_t)(s->status | STATUS_UNLOCKED | (s->full ? STATUS_OUTPUT_FULL : 0) |
                              (s->full && s->from_mouse ? STATUS_AUX : 0));
    pthread_mutex_unlock(&kbc->lock);
    return value;
}

static uint64_t data_read(void *kbc, uint64_t offset, unsigned size_bytes)
{
    return ports_read(data_read_byte, kbc, 1, offset, size_bytes);
}

static void data_write(void *kbc, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    ports_write(data_write_byte, kbc, 1, offset, value, size_bytes);
}

static uint64_t command_read(void *kbc, uint64_t offset, unsigned size_bytes)
{
    return ports_read(status_read_byte, kbc, 1, offset, size_bytes);
}

static void command_write(void *kbc, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    ports_write(command_write_byte, kbc, 1, offset, value, size_bytes);
}

/* As firmware finds it: both ports work, translation is on, A20 is open. */
static void kbc_clear(struct i8042 *kbc)
{
    memset(&kbc->s, 0, sizeof(kbc->s));
    kbc->s.mode = MODE_KEYBOARD_IRQ | MODE_MOUSE_IRQ | MODE_TRANSLATE;
    kbc->s.output_port = OUTPUT_NOT_RESET | OUTPUT_A20;
    keyboard_defaults(&kbc->s.keyboard, true);
    mouse_defaults(&kbc->s.mouse);
    kbc->reset_wanted = false;
    kbc->keyboard_irq = kbc->mouse_irq = false;
    irq_set(&kbc->config.keyboard_irq, false);
    irq_set(&kbc->config.mouse_irq, false);
}

struct i8042 *i8042_create(const struct i8042_config *config, struct bus *bus, struct error *err)
{
    struct i8042 *kbc = calloc(1, sizeof(*kbc));
    if (!kbc) {
        error_set(err, "cannot create device", "i8042", "out of memory");
        return NULL;
    }
    kbc->config = *config;
    kbc->bus = bus;
    pthread_mutex_init(&kbc->lock, NULL);
    kbc_clear(kbc);
    kbc->ranges[0] = (struct bus_range){"i8042 data", BUS_PORT, config->data_base, 1, data_read,
                                        data_write,   kbc};
    kbc->ranges[1] = (struct bus_range){
        "i8042 command", BUS_PORT, config->command_base, 1, command_read, command_write, kbc};
    if (!ports_map_all(bus, kbc->ranges, 2, err)) {
        pthread_mutex_destroy(&kbc->lock);
        free(kbc);
        return NULL;
    }
    return kbc;
}

static void i8042_reset(void *device)
{
    struct i8042 *kbc = device;
    pthread_mutex_lock(&kbc->lock);
    kbc_clear(kbc);
    pthread_mutex_unlock(&kbc->lock);
}

static void queue_save(const struct queue *queue, struct save *save)
{
    save_u16(save, queue->count);
    for (unsigned i = 0; i < queue->count; i++)
        save_u8(save, queue->bytes[(queue->head + i) % QUEUE_BYTES]);
}

static void queue_load(struct queue *queue, struct load *load)
{
    queue_clear(queue);
    unsigned count = load_u16(load);
    if (count > QUEUE_BYTES) {
        load_fail(load);
        return;
    }
    load_bytes(load, queue->bytes, count);
    queue->count = (uint16_t)count;
}

static void mouse_save(const struct mouse *mouse, struct save *save)
{
    queue_save(&mouse->queue, save);
    save_bool(save, mouse->reporting);
    save_bool(save, mouse->remote);
    save_bool(save, mouse->wrap);
    save_bool(save, mouse->scale2);
    save_u8(save, mouse->command);
    save_u8(save, mouse->rate);
    save_u8(save, mouse->resolution);
    save_u8(save, mouse->id);
    save_bytes(save, mouse->rates, sizeof(mouse->rates));
    save_u8(save, mouse->buttons);
    save_u8(save, mouse->sent_buttons);
    save_u32(save, (uint32_t)mouse->dx);
    save_u32(save, (uint32_t)mouse->dy);
    save_u32(save, (uint32_t)mouse->dz);
    save_u8(save, mouse->last);
}

static int32_t load_movement(struct load *load)
{
    int32_t value = (int32_t)load_u32(load);
    if (value < -4096 || value > 4096)
        load_fail(load);
    return value;
}

static void mouse_load(struct mouse *mouse, struct load *load)
{
    queue_load(&mouse->queue, load);
    mouse->reporting = load_bool(load);
    mouse->remote = load_bool(load);
    mouse->wrap = load_bool(load);
    mouse->scale2 = load_bool(load);
    mouse->command = load_u8(load);
    mouse->rate = load_u8(load);
    mouse->resolution = load_u8(load);
    mouse->id = load_u8(load);
    load_bytes(load, mouse->rates, sizeof(mouse->rates));
    mouse->buttons = load_u8(load);
    mouse->sent_buttons = load_u8(load);
    mouse->dx = load_movement(load);
    mouse->dy = load_movement(load);
    mouse->dz = load_movement(load);
    mouse->last = load_u8(load);
    if ((mouse->command && mouse->command != 0xe8 && mouse->command != 0xf3) || !mouse->rate ||
        mouse->rate > 200 || mouse->resolution > 3 ||
        (mouse->id != 0 && mouse->id != 3 && mouse->id != 4) || mouse->buttons > 0x1f ||
        mouse->sent_buttons > 0x1f)
        load_fail(load);
}

static void keyboard_save(const struct keyboard *keyboard, struct save *save)
{
    queue_save(&keyboard->queue, save);
    save_bool(save, keyboard->scanning);
    save_u8(save, keyboard->set);
    save_u8(save, keyboard->command);
    save_u8(save, keyboard->leds);
    save_u8(save, keyboard->typematic);
    save_u8(save, keyboard->last);
}

static void keyboard_load(struct keyboard *keyboard, struct load *load)
{
    queue_load(&keyboard->queue, load);
    keyboard->scanning = load_bool(load);
    keyboard->set = load_u8(load);
    keyboard->command = load_u8(load);
    keyboard->leds = load_u8(load);
    keyboard->typematic = load_u8(load);
    keyboard->last = load_u8(load);
    if (keyboard->set < 1 || keyboard->set > 3 || keyboard->leds > 7 || keyboard->typematic > 0x7f)
        load_fail(load);
}

static void i8042_save(void *device, struct save *save)
{
    struct i8042 *kbc = device;
    pthread_mutex_lock(&kbc->lock);
    const struct kbc_state *s = &kbc->s;
    save_u8(save, s->mode);
    save_u8(save, s->output_port);
    save_u8(save, s->command);
    save_u8(save, s->status);
    save_u8(save, s->data);
    save_bool(save, s->full);
    save_bool(save, s->from_mouse);
    save_bool(save, s->is_answer);
    save_u8(save, s->held_data);
    save_bool(save, s->held);
    save_bool(save, s->held_from_mouse);
    save_bool(save, s->translate_break);
    keyboard_save(&s->keyboard, save);
    mouse_save(&s->mouse, save);
    save_bool(save, kbc->keyboard_irq);
    save_bool(save, kbc->mouse_irq);
    pthread_mutex_unlock(&kbc->lock);
}

static bool i8042_load(void *device, struct load *load, uint32_t version)
{
    struct i8042 *kbc = device;
    struct kbc_state s = {0};
    s.mode = load_u8(load);
    s.output_port = load_u8(load);
    s.command = load_u8(load);
    s.status = load_u8(load);
    s.data = load_u8(load);
    s.full = load_bool(load);
    s.from_mouse = load_bool(load);
    s.is_answer = load_bool(load);
    s.held_data = load_u8(load);
    s.held = load_bool(load);
    s.held_from_mouse = load_bool(load);
    s.translate_break = load_bool(load);
    keyboard_load(&s.keyboard, load);
    mouse_load(&s.mouse, load);
    bool keyboard_irq = load_bool(load), mouse_irq = load_bool(load);
    if ((s.mode & 0x80) || (s.status & ~(STATUS_SYSTEM | STATUS_COMMAND)) ||
        !(s.output_port & OUTPUT_NOT_RESET))
        load_fail(load);
    bool ok = version == i8042_ops.version && !load->failed;
    pthread_mutex_lock(&kbc->lock);
    if (ok) {
        kbc->s = s;
        kbc->keyboard_irq = keyboard_irq; /* who receives the lines saves their levels */
        kbc->mouse_irq = mouse_irq;
    } else {
        kbc_clear(kbc);
    }
    pthread_mutex_unlock(&kbc->lock);
    return ok;
}

static void i8042_destroy(void *device)
{
    struct i8042 *kbc = device;
    ports_unmap_all(kbc->bus, kbc->ranges, 2);
    pthread_mutex_destroy(&kbc->lock);
    free(kbc);
}

const struct device_ops i8042_ops = {
    .name = "i8042",
    .version = 1,
    .reset = i8042_reset,
    .save = i8042_save,
    .load = i8042_load,
    .destroy = i8042_destroy,
};
