/* SPDX-License-Identifier: BSD-2-Clause
 * Types; see typing.h. */
#include "vm/typing.h"

#include "host/keys.h"

#include <errno.h>
#include <linux/input-event-codes.h>
#include <stdlib.h>
#include <string.h>

enum {
    STROKE_MS = 20, /* from one event to the next: a guest has to take it from the 8042 */
    STROKES_MAX = 65536,
    CHORD_KEYS_MAX = 8,
};

struct stroke {
    uint16_t key;
    bool is_down;
};

struct typing {
    struct machine *machine;
    struct loop_timer *timer;
    struct stroke *strokes; /* STROKES_MAX, as a ring */
    unsigned head, count;
    bool is_timing;
};

static const char what[] = "cannot type";

static void next_stroke(void *opaque)
{
    struct typing *typing = opaque;
    typing->is_timing = typing->count;
    if (!typing->count)
        return;
    loop_timer_start(typing->timer, STROKE_MS);
    if (strcmp(machine_state(typing->machine), "running") != 0)
        return; /* nobody would take it */
    const struct stroke *stroke = &typing->strokes[typing->head];
    machine_key(typing->machine, stroke->key, stroke->is_down);
    typing->head = (typing->head + 1) % STROKES_MAX;
    typing->count--;
}

static void start(struct typing *typing)
{
    if (!typing->is_timing)
        next_stroke(typing);
}

static void put(struct typing *typing, unsigned key, bool is_down)
{
    typing->strokes[(typing->head + typing->count++) % STROKES_MAX] =
        (struct stroke){(uint16_t)key, is_down};
}

static bool has_room(const struct typing *typing, size_t strokes, struct error *err)
{
    if (strokes <= STROKES_MAX - typing->count)
        return true;
    error_set(err, what, NULL, "that is more than is held at once");
    return error_hint(err, "wait until what was given before is typed");
}

bool typing_text(struct typing *typing, const char *text, struct error *err)
{
    unsigned key, modifiers;
    if (!has_room(typing, 4 * strlen(text), err))
        return false;
    for (const char *at = text; *at; at++) {
        if (!keys_us_character((unsigned char)*at, &key, &modifiers)) {
            error_usage(err, what, text, "byte %zu of it is on no key of a US keyboard",
                        (size_t)(at - text) + 1);
            return error_hint(err, "`skep key` sends keys by their names");
        }
    }
    for (const char *at = text; *at; at++) {
        keys_us_character((unsigned char)*at, &key, &modifiers);
        if (modifiers & KEYS_SHIFT)
            put(typing, KEY_LEFTSHIFT, true);
        put(typing, key, true);
        put(typing, key, false);
        if (modifiers & KEYS_SHIFT)
            put(typing, KEY_LEFTSHIFT, false);
    }
    start(typing);
    return true;
}

static bool unknown_key(const char *chord, const char *name, size_t length, struct error *err)
{
    error_usage(err, what, chord, "there is no key '%.*s'", (int)length, name);
    return error_hint(err, "names are as in ctrl-alt-f2, shift-a, ret, pgdn, kp_0; "
                           "the manual page has all");
}

/* The keys of "ctrl-alt-f2"; their number, 0 on failure. */
static unsigned parse_chord(const char *chord, unsigned keys[CHORD_KEYS_MAX], struct error *err)
{
    unsigned count = 0;
    for (const char *at = chord;;) {
        /* The separator itself is a key where a name is expected. */
        size_t length = *at ? 1 + strcspn(at + 1, "-+") : 0;
        if (count == CHORD_KEYS_MAX) {
            error_usage(err, what, chord, "those are too many keys: at most %d", CHORD_KEYS_MAX);
            return 0;
        }
        if (!length || !keys_find(at, length, &keys[count++])) {
            unknown_key(chord, at, length, err);
            return 0;
        }
        at += length;
        if (!*at)
            return count;
        at++;
    }
}

bool typing_chord(struct typing *typing, const char *chord, struct error *err)
{
    unsigned keys[CHORD_KEYS_MAX];
    unsigned count = parse_chord(chord, keys, err);
    if (!count || !has_room(typing, 2 * count, err))
        return false;
    for (unsigned i = 0; i < count; i++)
        put(typing, keys[i], true);
    for (unsigned i = count; i > 0; i--)
        put(typing, keys[i - 1], false);
    start(typing);
    return true;
}

unsigned typing_left_ms(const struct typing *typing)
{
    return (typing->count + typing->is_timing) * STROKE_MS;
}

struct typing *typing_create(struct loop *loop, struct machine *machine, struct error *err)
{
    struct typing *typing = calloc(1, sizeof(*typing));
    if (typing) {
        typing->machine = machine;
        typing->strokes = calloc(STROKES_MAX, sizeof(*typing->strokes));
        typing->timer = loop_timer_open(loop, next_stroke, typing);
    }
    if (typing && typing->strokes && typing->timer)
        return typing;
    error_errno(err, what, NULL, ENOMEM);
    typing_destroy(typing);
    return NULL;
}

void typing_destroy(struct typing *typing)
{
    if (!typing)
        return;
    if (typing->timer)
        loop_timer_close(typing->timer);
    free(typing->strokes);
    free(typing);
}
