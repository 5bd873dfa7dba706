/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Input (bus/input.h) on its way to the PS/2 keyboard and mouse: which key of Linux's numbers is
 * which scan code of set 1.
 */
#include "dev/i8042.h"

#include <limits.h>

enum { KEY_KPDOT = 83, KEY_F13 = 183, KEY_F23 = 193 };

/* Keys beyond KEY_KPDOT; up to there Linux's numbers are the codes of set 1. */
static const uint16_t scancodes[] = {
    [86] = 0x56,    [87] = 0x57,    [88] = 0x58,    [89] = 0x73,    [90] = 0x78,    [91] = 0x77,
    [92] = 0x79,    [93] = 0x70,    [94] = 0x7b,    [95] = 0x5c,    [96] = 0xe01c,  [97] = 0xe01d,
    [98] = 0xe035,  [99] = 0xe037,  [100] = 0xe038, [102] = 0xe047, [103] = 0xe048, [104] = 0xe049,
    [105] = 0xe04b, [106] = 0xe04d, [107] = 0xe04f, [108] = 0xe050, [109] = 0xe051, [110] = 0xe052,
    [111] = 0xe053, [113] = 0xe020, [114] = 0xe02e, [115] = 0xe030, [116] = 0xe05e, [117] = 0x59,
    [119] = 0xe11d, [121] = 0x7e,   [124] = 0x7d,   [125] = 0xe05b, [126] = 0xe05c, [127] = 0xe05d,
    [128] = 0xe068, [140] = 0xe021, [142] = 0xe05f, [143] = 0xe063, [155] = 0xe06c, [156] = 0xe066,
    [157] = 0xe06b, [158] = 0xe06a, [159] = 0xe069, [163] = 0xe019, [164] = 0xe022, [165] = 0xe010,
    [166] = 0xe024, [172] = 0xe032, [173] = 0xe067, [194] = 0x76,   [217] = 0xe065, [226] = 0xe06d,
};

/* 0: a PS/2 keyboard has no such key. */
static unsigned scancode_of(unsigned key)
{
    if (key <= KEY_KPDOT)
        return key;
    if (key >= KEY_F13 && key <= KEY_F23)
        return 0x64 + key - KEY_F13;
    return key < sizeof(scancodes) / sizeof(scancodes[0]) ? scancodes[key] : 0;
}

static void input_key(void *opaque, unsigned key, bool is_down)
{
    unsigned scancode = scancode_of(key);
    if (scancode)
        i8042_key(opaque, scancode, is_down);
}

static void input_pointer(void *opaque, const struct input_pointer *pointer)
{
    const int wheel_down = pointer->wheel_up < -INT_MAX ? INT_MAX : -pointer->wheel_up;
    i8042_mouse(opaque, pointer->dx, pointer->dy, wheel_down, pointer->buttons);
}

struct input_device i8042_input(struct i8042 *kbc)
{
    return (struct input_device){.key = input_key, .pointer = input_pointer, .opaque = kbc};
}
