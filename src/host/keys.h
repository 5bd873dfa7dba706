/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Keys by Linux's numbers (input-event-codes.h): their names, and where characters and keysyms are
 * on a US keyboard.
 */
#ifndef SKEP_HOST_KEYS_H
#define SKEP_HOST_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What is held down beside a key for a character. */
enum { KEYS_SHIFT = 1, KEYS_ALTGR = 2 };

/* The key of this name ("a", "f2", "ctrl", "pagedown" …; case doesn't matter), `length` bytes long.
 * False: there is none. */
bool keys_find(const char *name, size_t length, unsigned *key);

/* The next name that keys_find() knows, from 0 on; NULL after the last. */
const char *keys_name(unsigned index);

/* Where a character is on a US keyboard; newline, tab, backspace and escape are keys, too. False:
 * it is nowhere. */
bool keys_us_character(uint32_t character, unsigned *key, unsigned *modifiers);

/* The same of a keysym (X11's keysymdef.h; of the RFB protocol). */
bool keys_us_keysym(uint32_t keysym, unsigned *key, unsigned *modifiers);

/* The key of a scan code of set 1 as RFB's extended key events have it: 0x80 stands for the prefix
 * e0. False: it is none. */
bool keys_of_scancode(uint32_t scancode, unsigned *key);

#endif
