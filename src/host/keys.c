/* SPDX-License-Identifier: BSD-2-Clause
 * Tables of keys; see keys.h. */
#include "host/keys.h"

#include <linux/input-event-codes.h>
#include <string.h>
#include <strings.h>

struct named {
    const char *name;
    uint16_t key;
    uint32_t keysym; /* 0: none of its own */
};

/* The first name of a key is the one that is told. */
static const struct named names[] = {
    {"esc", KEY_ESC, 0xff1b},
    {"escape", KEY_ESC, 0},
    {"backspace", KEY_BACKSPACE, 0xff08},
    {"tab", KEY_TAB, 0xff09},
    {"ret", KEY_ENTER, 0xff0d},
    {"enter", KEY_ENTER, 0},
    {"return", KEY_ENTER, 0},
    {"spc", KEY_SPACE, 0},
    {"space", KEY_SPACE, 0},
    {"ctrl", KEY_LEFTCTRL, 0xffe3},
    {"ctrl_r", KEY_RIGHTCTRL, 0xffe4},
    {"shift", KEY_LEFTSHIFT, 0xffe1},
    {"shift_r", KEY_RIGHTSHIFT, 0xffe2},
    {"alt", KEY_LEFTALT, 0xffe9},
    {"alt_r", KEY_RIGHTALT, 0xffea},
    {"altgr", KEY_RIGHTALT, 0xfe03},
    {"meta", KEY_LEFTMETA, 0xffeb},
    {"meta_r", KEY_RIGHTMETA, 0xffec},
    {"menu", KEY_COMPOSE, 0xff67},
    {"caps_lock", KEY_CAPSLOCK, 0xffe5},
    {"num_lock", KEY_NUMLOCK, 0xff7f},
    {"scroll_lock", KEY_SCROLLLOCK, 0xff14},
    {"sysrq", KEY_SYSRQ, 0xff15},
    {"print", KEY_SYSRQ, 0xff61},
    {"pause", KEY_PAUSE, 0xff13},
    {"insert", KEY_INSERT, 0xff63},
    {"delete", KEY_DELETE, 0xffff},
    {"home", KEY_HOME, 0xff50},
    {"end", KEY_END, 0xff57},
    {"pageup", KEY_PAGEUP, 0xff55},
    {"pgup", KEY_PAGEUP, 0},
    {"pagedown", KEY_PAGEDOWN, 0xff56},
    {"pgdn", KEY_PAGEDOWN, 0},
    {"left", KEY_LEFT, 0xff51},
    {"up", KEY_UP, 0xff52},
    {"right", KEY_RIGHT, 0xff53},
    {"down", KEY_DOWN, 0xff54},
    {"f1", KEY_F1, 0xffbe},
    {"f2", KEY_F2, 0xffbf},
    {"f3", KEY_F3, 0xffc0},
    {"f4", KEY_F4, 0xffc1},
    {"f5", KEY_F5, 0xffc2},
    {"f6", KEY_F6, 0xffc3},
    {"f7", KEY_F7, 0xffc4},
    {"f8", KEY_F8, 0xffc5},
    {"f9", KEY_F9, 0xffc6},
    {"f10", KEY_F10, 0xffc7},
    {"f11", KEY_F11, 0xffc8},
    {"f12", KEY_F12, 0xffc9},
    {"kp_0", KEY_KP0, 0xffb0},
    {"kp_1", KEY_KP1, 0xffb1},
    {"kp_2", KEY_KP2, 0xffb2},
    {"kp_3", KEY_KP3, 0xffb3},
    {"kp_4", KEY_KP4, 0xffb4},
    {"kp_5", KEY_KP5, 0xffb5},
    {"kp_6", KEY_KP6, 0xffb6},
    {"kp_7", KEY_KP7, 0xffb7},
    {"kp_8", KEY_KP8, 0xffb8},
    {"kp_9", KEY_KP9, 0xffb9},
    {"kp_add", KEY_KPPLUS, 0xffab},
    {"kp_subtract", KEY_KPMINUS, 0xffad},
    {"kp_multiply", KEY_KPASTERISK, 0xffaa},
    {"kp_divide", KEY_KPSLASH, 0xffaf},
    {"kp_enter", KEY_KPENTER, 0xff8d},
    {"kp_decimal", KEY_KPDOT, 0xffae},
    {"minus", KEY_MINUS, 0},
    {"equal", KEY_EQUAL, 0},
    {"comma", KEY_COMMA, 0},
    {"dot", KEY_DOT, 0},
    {"slash", KEY_SLASH, 0},
    {"semicolon", KEY_SEMICOLON, 0},
    {"apostrophe", KEY_APOSTROPHE, 0},
    {"backslash", KEY_BACKSLASH, 0},
    {"grave", KEY_GRAVE, 0},
    {"bracket_left", KEY_LEFTBRACE, 0},
    {"bracket_right", KEY_RIGHTBRACE, 0},
    {"less", KEY_102ND, 0},
    {"mute", KEY_MUTE, 0x1008ff12},
    {"volumedown", KEY_VOLUMEDOWN, 0x1008ff11},
    {"volumeup", KEY_VOLUMEUP, 0x1008ff13},
    {"power", KEY_POWER, 0},
    {"sleep", KEY_SLEEP, 0x1008ff2f},
    {"wake", KEY_WAKEUP, 0x1008ff2b},
    /* further keysyms of keys that have a name */
    {"meta", KEY_LEFTMETA, 0xffe7},
    {"meta_r", KEY_RIGHTMETA, 0xffe8},
    {"tab", KEY_TAB, 0xfe20}, /* ISO_Left_Tab: with shift */
    {"kp_7", KEY_KP7, 0xff95},
    {"kp_4", KEY_KP4, 0xff96},
    {"kp_8", KEY_KP8, 0xff97},
    {"kp_6", KEY_KP6, 0xff98},
    {"kp_2", KEY_KP2, 0xff99},
    {"kp_9", KEY_KP9, 0xff9a},
    {"kp_3", KEY_KP3, 0xff9b},
    {"kp_1", KEY_KP1, 0xff9c},
    {"kp_5", KEY_KP5, 0xff9d},
    {"kp_0", KEY_KP0, 0xff9e},
    {"kp_decimal", KEY_KPDOT, 0xff9f},
    {"pause", KEY_PAUSE, 0xff6b},
};
enum { NAMES = sizeof(names) / sizeof(names[0]) };

/* The rows of a US keyboard as they follow one another, from the key of the first on; without and
 * with shift. */
static const struct {
    uint16_t first;
    const char *plain, *shifted;
} rows[] = {
    {KEY_1, "1234567890-=", "!@#$%^&*()_+"},
    {KEY_Q, "qwertyuiop[]", "QWERTYUIOP{}"},
    {KEY_A, "asdfghjkl;'`", "ASDFGHJKL:\"~"},
    {KEY_BACKSLASH, "\\zxcvbnm,./", "|ZXCVBNM<>?"},
    {KEY_SPACE, " ", ""},
    {KEY_ENTER, "\n", ""},
    {KEY_ENTER, "\r", ""},
    {KEY_TAB, "\t", ""},
    {KEY_BACKSPACE, "\b", ""},
    {KEY_BACKSPACE, "\177", ""},
    {KEY_ESC, "\033", ""},
};

static bool find_in(const char *row, uint32_t character, uint16_t first, unsigned *key)
{
    const char *at = character && character < 0x80 ? strchr(row, (int)character) : NULL;
    if (!at)
        return false;
    *key = first + (unsigned)(at - row);
    return true;
}

bool keys_us_character(uint32_t character, unsigned *key, unsigned *modifiers)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        bool is_plain = find_in(rows[i].plain, character, rows[i].first, key);
        *modifiers = is_plain ? 0 : KEYS_SHIFT;
        if (is_plain || find_in(rows[i].shifted, character, rows[i].first, key))
            return true;
    }
    return false;
}

bool keys_us_keysym(uint32_t keysym, unsigned *key, unsigned *modifiers)
{
    if (keysym >= 0x20 && keysym < 0x7f)
        return keys_us_character(keysym, key, modifiers);
    for (unsigned i = 0; i < NAMES; i++) {
        if (!keysym || names[i].keysym != keysym)
            continue;
        *key = names[i].key;
        *modifiers = 0;
        return true;
    }
    return false;
}

bool keys_find(const char *name, size_t length, unsigned *key)
{
    for (unsigned i = 0; i < NAMES; i++) {
        if (strlen(names[i].name) != length || strncasecmp(names[i].name, name, length) != 0)
            continue;
        *key = names[i].key;
        return true;
    }
    /* A character's key, whatever is above it on the key cap. */
    unsigned modifiers;
    return length == 1 && (unsigned char)*name > 0x20 &&
           keys_us_character((unsigned char)*name, key, &modifiers);
}

const char *keys_name(unsigned index)
{
    return index < NAMES ? names[index].name : NULL;
}

bool keys_of_scancode(uint32_t scancode, unsigned *key)
{
    static const struct {
        uint8_t scancode, key;
    } odd[] = {
        {0x54, KEY_SYSRQ},     {0x59, KEY_KPEQUAL},   {0x70, KEY_KATAKANAHIRAGANA},
        {0x73, KEY_RO},        {0x79, KEY_HENKAN},    {0x7b, KEY_MUHENKAN},
        {0x7d, KEY_YEN},       {0x7e, KEY_KPCOMMA},   {0x9c, KEY_KPENTER},
        {0x9d, KEY_RIGHTCTRL}, {0xa0, KEY_MUTE},      {0xae, KEY_VOLUMEDOWN},
        {0xb0, KEY_VOLUMEUP},  {0xb5, KEY_KPSLASH},   {0xb7, KEY_SYSRQ},
        {0xb8, KEY_RIGHTALT},  {0xc6, KEY_PAUSE},     {0xc7, KEY_HOME},
        {0xc8, KEY_UP},        {0xc9, KEY_PAGEUP},    {0xcb, KEY_LEFT},
        {0xcd, KEY_RIGHT},     {0xcf, KEY_END},       {0xd0, KEY_DOWN},
        {0xd1, KEY_PAGEDOWN},  {0xd2, KEY_INSERT},    {0xd3, KEY_DELETE},
        {0xdb, KEY_LEFTMETA},  {0xdc, KEY_RIGHTMETA}, {0xdd, KEY_COMPOSE},
        {0xde, KEY_POWER},     {0xdf, KEY_SLEEP},     {0xe3, KEY_WAKEUP},
    };
    /* Linux's numbers are those of set 1 for what the first PCs' keyboards had, and a bit more. */
    *key = scancode;
    if ((scancode >= 0x01 && scancode <= 0x53) || (scancode >= 0x56 && scancode <= 0x58))
        return true;
    for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
        if (odd[i].scancode != scancode)
            continue;
        *key = odd[i].key;
        return true;
    }
    return false;
}
