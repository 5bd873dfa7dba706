/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A 101-key PS/2 keyboard (IBM Personal System/2 Hardware Interface Technical Reference,
 * "Keyboards, 101- and 102-key", scan code sets 1 to 3). Left out: typematic repeat (the source of
 * keys repeats them), the reduced set of keys that repeat or break in scan code set 3 (all break).
 */
#include "dev/ps2.h"

#include <string.h>

enum { KEY_MAX_BYTES = 8 };

const uint8_t ps2_set2_of_set1[128] = {
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

void ps2_keyboard_defaults(struct ps2_keyboard *keyboard, bool scanning)
{
    ps2_queue_clear(&keyboard->queue);
    keyboard->scanning = scanning;
    keyboard->set = 2;
    keyboard->command = 0;
    keyboard->typematic = 0x2b;
}

static void keyboard_argument(struct ps2_keyboard *keyboard, uint8_t value)
{
    uint8_t command = keyboard->command;
    keyboard->command = 0;
    if (command == 0xed) {
        keyboard->leds = value & 7;
    } else if (command == 0xf3) {
        keyboard->typematic = value & 0x7f;
    } else if (command == 0xf0 && value == 0) {
        ps2_queue_answer(&keyboard->queue, PS2_ACK);
        ps2_queue_answer(&keyboard->queue, keyboard->set);
        return;
    } else if (command == 0xf0 && value <= 3) {
        keyboard->set = value;
    } else if (command == 0xf0) {
        ps2_queue_answer(&keyboard->queue, PS2_RESEND);
        return;
    }
    ps2_queue_answer(&keyboard->queue, PS2_ACK);
}

static void keyboard_command(struct ps2_keyboard *keyboard, uint8_t value)
{
    struct ps2_queue *queue = &keyboard->queue;
    switch (value) {
    case 0xed: /* LEDs */
    case 0xf0: /* scan code set */
    case 0xf3: /* typematic rate and delay */
    case 0xfb: /* set 3: types of single keys; the argument is taken */
    case 0xfc:
    case 0xfd: keyboard->command = value; break;
    case 0xee: ps2_queue_answer(queue, PS2_ECHO); return;
    case 0xf2:
        ps2_queue_answer(queue, PS2_ACK);
        ps2_queue_answer(queue, 0xab);
        ps2_queue_answer(queue, 0x83);
        return;
    case 0xf4:
        ps2_queue_clear(queue);
        keyboard->scanning = true;
        break;
    case 0xf5: ps2_keyboard_defaults(keyboard, false); break;
    case 0xf6: ps2_keyboard_defaults(keyboard, true); break;
    case 0xf7: /* set 3: types of all keys */
    case 0xf8:
    case 0xf9:
    case 0xfa: break;
    case 0xfe: ps2_queue_answer(queue, keyboard->last); return;
    case 0xff:
        ps2_keyboard_defaults(keyboard, true);
        keyboard->leds = 0;
        ps2_queue_answer(queue, PS2_ACK);
        ps2_queue_answer(queue, PS2_BAT_PASSED);
        return;
    default: ps2_queue_answer(queue, PS2_RESEND); return;
    }
    ps2_queue_answer(queue, PS2_ACK);
}

void ps2_keyboard_write(struct ps2_keyboard *keyboard, uint8_t value)
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
    return scancode < 128 ? ps2_set2_of_set1[scancode] : 0;
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
    bytes[count++] = ps2_set2_of_set1[code];
    return count;
}

bool ps2_keyboard_key(struct ps2_keyboard *keyboard, unsigned scancode, bool pressed)
{
    uint8_t bytes[KEY_MAX_BYTES];
    unsigned prefix = scancode >> 8;
    if (!(scancode & 0x7f) || (scancode & 0x80) || (prefix && prefix != 0xe0 && scancode != 0xe11d))
        return true;
    if (!keyboard->scanning)
        return true;
    unsigned count = keyboard_encode(keyboard->set, scancode, pressed, bytes);
    return ps2_queue_input(&keyboard->queue, bytes, count);
}

void ps2_keyboard_save(const struct ps2_keyboard *keyboard, struct save *save)
{
    ps2_queue_save(&keyboard->queue, save);
    save_bool(save, keyboard->scanning);
    save_u8(save, keyboard->set);
    save_u8(save, keyboard->command);
    save_u8(save, keyboard->leds);
    save_u8(save, keyboard->typematic);
    save_u8(save, keyboard->last);
}

void ps2_keyboard_load(struct ps2_keyboard *keyboard, struct load *load)
{
    ps2_queue_load(&keyboard->queue, load);
    keyboard->scanning = load_bool(load);
    keyboard->set = load_u8(load);
    keyboard->command = load_u8(load);
    keyboard->leds = load_u8(load);
    keyboard->typematic = load_u8(load);
    keyboard->last = load_u8(load);
    if (keyboard->set < 1 || keyboard->set > 3 || keyboard->leds > 7 || keyboard->typematic > 0x7f)
        load_fail(load);
}
