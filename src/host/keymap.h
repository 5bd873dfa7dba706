/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Which key of the guest's keyboard a viewer's keysym is, by the layout that the guest is set to:
 * through libxkbcommon, or without it that of the US.
 */
#ifndef SKEP_HOST_KEYMAP_H
#define SKEP_HOST_KEYMAP_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

struct keymap;

/* `layout` is a name of XKB's ("de", "fr", "gb"; "uk" is "gb"; "de(nodeadkeys)" names a variant);
 * NULL: "us". NULL: `err` tells why. */
struct keymap *keymap_create(const char *layout, struct error *err);
void keymap_destroy(struct keymap *keymap); /* NULL is fine */

/* The key, and what of host/keys.h is held down with it. False: no key gives this keysym. */
bool keymap_find(const struct keymap *keymap, uint32_t keysym, unsigned *key, unsigned *modifiers);

#endif
