/* SPDX-License-Identifier: BSD-2-Clause
 * Key maps; see keymap.h. */
#include "host/keymap.h"

#include "host/keys.h"

#include <errno.h>
#include <linux/input-event-codes.h>
#include <stdlib.h>
#include <string.h>

struct entry {
    uint32_t keysym;
    uint16_t key;
    uint8_t modifiers; /* also the order among keys for the same keysym */
};

struct keymap {
    struct entry *entries; /* sorted; NULL: the US layout of keys.h */
    size_t count;
};

static const char what[] = "cannot use the key map";

#ifdef SKEP_HAVE_XKBCOMMON

#include <xkbcommon/xkbcommon.h>

enum {
    EVDEV_OFFSET = 8,
    LEVELS = 4,
    KEYSYM_FIRST_FUNCTION = 0xfe00,
    KEYSYM_UNICODE = 0x01000000,
};

static int compare(const void *left, const void *right)
{
    const struct entry *a = left, *b = right;
    if (a->keysym != b->keysym)
        return a->keysym < b->keysym ? -1 : 1;
    return a->modifiers - b->modifiers;
}

/* XKB knows keys that give characters and are on no PC's keyboard, as one for a parenthesis alone.
 * The guest has none of them. */
static bool is_common(unsigned key, xkb_keysym_t keysym)
{
    bool is_character = keysym < KEYSYM_FIRST_FUNCTION || keysym >= KEYSYM_UNICODE;
    return !is_character || key <= KEY_RO || key == KEY_YEN;
}

/* Levels 1 to 4 of a key are plain, with shift, with AltGr, with both. */
static bool take_key(struct keymap *keymap, struct xkb_keymap *xkb, xkb_keycode_t code)
{
    for (xkb_level_index_t level = 0; level < LEVELS; level++) {
        const xkb_keysym_t *keysyms;
        if (level >= xkb_keymap_num_levels_for_key(xkb, code, 0) ||
            xkb_keymap_key_get_syms_by_level(xkb, code, 0, level, &keysyms) != 1 ||
            !is_common(code - EVDEV_OFFSET, keysyms[0]))
            continue;
        struct entry *more =
            realloc(keymap->entries, (keymap->count + 1) * sizeof(*keymap->entries));
        if (!more)
            return false;
        keymap->entries = more;
        more[keymap->count++] =
            (struct entry){keysyms[0], (uint16_t)(code - EVDEV_OFFSET), (uint8_t)level};
    }
    return true;
}

static bool take_keys(struct keymap *keymap, struct xkb_keymap *xkb)
{
    for (xkb_keycode_t code = xkb_keymap_min_keycode(xkb); code <= xkb_keymap_max_keycode(xkb);
         code++)
        if (code >= EVDEV_OFFSET && code < 0x300 && !take_key(keymap, xkb, code))
            return false;
    if (keymap->count)
        qsort(keymap->entries, keymap->count, sizeof(*keymap->entries), compare);
    return keymap->count;
}

/* "de(nodeadkeys)" into its two parts. */
static void split(const char *text, char layout[64], char variant[64])
{
    size_t length = strcspn(text, "(");
    snprintf(layout, 64, "%.*s", (int)(length < 63 ? length : 63), text);
    variant[0] = '\0';
    if (text[length])
        snprintf(variant, 64, "%.*s", (int)strcspn(text + length + 1, ")"), text + length + 1);
}

static void ignore(struct xkb_context *context, enum xkb_log_level level, const char *format,
                   va_list args)
{
}

static bool load(struct keymap *keymap, const char *text)
{
    char layout[64], variant[64];
    split(text, layout, variant);
    const struct xkb_rule_names names = {
        .rules = "evdev", .model = "pc105", .layout = layout, .variant = variant, .options = ""};
    struct xkb_context *context = xkb_context_new(XKB_CONTEXT_NO_ENVIRONMENT_NAMES);
    if (!context)
        return false;
    xkb_context_set_log_fn(context, ignore);
    struct xkb_keymap *xkb =
        xkb_keymap_new_from_names(context, &names, XKB_KEYMAP_COMPILE_NO_FLAGS);
    bool done = xkb && take_keys(keymap, xkb);
    xkb_keymap_unref(xkb);
    xkb_context_unref(context);
    return done;
}

static bool refuse(const char *layout, struct error *err)
{
    error_usage(err, what, layout, "libxkbcommon does not know it");
    return error_hint(err,
                      "names are those of XKB, as de, fr, gb or us; package xkb-data has them");
}

#else

static bool load(struct keymap *keymap, const char *text)
{
    return false;
}

static bool refuse(const char *layout, struct error *err)
{
    error_set(err, what, layout, "this skep was built without libxkbcommon and knows only us");
    return error_hint(err, "install libxkbcommon-dev and build skep anew");
}

#endif

struct keymap *keymap_create(const char *layout, struct error *err)
{
    struct keymap *keymap = calloc(1, sizeof(*keymap));
    if (!keymap) {
        error_errno(err, what, layout, ENOMEM);
        return NULL;
    }
    if (!layout)
        layout = "us";
    if (!strcmp(layout, "uk"))
        layout = "gb";
    if (load(keymap, layout))
        return keymap;
    free(keymap->entries);
    *keymap = (struct keymap){0};
    if (!strcmp(layout, "us"))
        return keymap;
    free(keymap);
    refuse(layout, err);
    return NULL;
}

void keymap_destroy(struct keymap *keymap)
{
    if (!keymap)
        return;
    free(keymap->entries);
    free(keymap);
}

/* The first entry of this keysym; NULL: none. */
static const struct entry *find(const struct keymap *keymap, uint32_t keysym)
{
    size_t low = 0, high = keymap->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (keymap->entries[middle].keysym < keysym)
            low = middle + 1;
        else
            high = middle;
    }
    return low < keymap->count && keymap->entries[low].keysym == keysym ? &keymap->entries[low]
                                                                        : NULL;
}

bool keymap_find(const struct keymap *keymap, uint32_t keysym, unsigned *key, unsigned *modifiers)
{
    const struct entry *entry = find(keymap, keysym);
    if (!entry) /* keys that the layout says nothing about are where they always are */
        return (!keymap->entries || keysym >= 0xfe00) && keys_us_keysym(keysym, key, modifiers);
    *key = entry->key;
    *modifiers = entry->modifiers;
    return true;
}
