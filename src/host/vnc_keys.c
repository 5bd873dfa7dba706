/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Keys of VNC's viewers, on the server's thread. A keysym says what a viewer's keyboard has made of
 * a key; the guest makes something of it again by its own layout, so the key is found that gives
 * the same there, and shift or AltGr are added or taken away around it where the viewer holds
 * others. Viewers that know QEMU's extension send the key's own number instead, and then layouts
 * don't matter.
 */
#include "host/vnc_internal.h"

#include "host/keys.h"

#include <arpa/inet.h>
#include <linux/input-event-codes.h>
#include <string.h>

/* Bits of `held`. */
enum { HELD_SHIFT = 1, HELD_SHIFT_R = 2, HELD_ALTGR = 4 };

enum {
    QEMU_MESSAGE = 255,
    QEMU_EXTENDED_KEY = 0, /* submessage */
    KEYSYM_FIRST_FUNCTION = 0xfe00,
    KEYSYM_UNICODE = 0x01000000,
};

static void post_key(struct vnc *vnc, unsigned key, bool is_down)
{
    unsigned bit = key == KEY_LEFTSHIFT    ? HELD_SHIFT
                   : key == KEY_RIGHTSHIFT ? HELD_SHIFT_R
                   : key == KEY_RIGHTALT   ? HELD_ALTGR
                                           : 0;
    vnc->held = is_down ? vnc->held | bit : vnc->held & ~bit;
    vnc->caps_lock ^= key == KEY_CAPSLOCK && is_down;
    vnc_post(vnc, &(struct vnc_event){.kind = VNC_KEY, .key = key, .is_down = is_down});
}

static bool is_letter(uint32_t keysym)
{
    return (keysym >= 'A' && keysym <= 'Z') || (keysym >= 'a' && keysym <= 'z');
}

/* Keysyms of characters, whose key depends on shift. */
static bool is_character(uint32_t keysym)
{
    return keysym < KEYSYM_FIRST_FUNCTION || keysym >= KEYSYM_UNICODE;
}

/* Puts the modifiers in `bits` into the state `wanted`; gives those that were changed. */
static unsigned set_modifiers(struct vnc *vnc, unsigned bits, unsigned wanted)
{
    static const struct {
        unsigned bit, key;
    } keys[] = {
        {HELD_SHIFT, KEY_LEFTSHIFT}, {HELD_SHIFT_R, KEY_RIGHTSHIFT}, {HELD_ALTGR, KEY_RIGHTALT}};
    unsigned changed = (vnc->held ^ wanted) & bits;
    for (unsigned i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        if (changed & keys[i].bit)
            post_key(vnc, keys[i].key, wanted & keys[i].bit);
    return changed;
}

static void press_character(struct vnc *vnc, uint32_t keysym, unsigned key, unsigned modifiers)
{
    bool wants_shift = modifiers & KEYS_SHIFT;
    unsigned before = vnc->held, wanted = before, shifts = HELD_SHIFT | HELD_SHIFT_R;
    if (is_letter(keysym))
        wants_shift ^= vnc->caps_lock;
    if (!wants_shift)
        wanted &= ~shifts;
    else if (!(before & shifts))
        wanted |= HELD_SHIFT;
    if (modifiers & KEYS_ALTGR)
        wanted |= HELD_ALTGR; /* which may also be an Alt that is meant so: never taken away */
    set_modifiers(vnc, shifts | HELD_ALTGR, wanted);
    post_key(vnc, key, true);
    set_modifiers(vnc, shifts | HELD_ALTGR, before);
}

void vnc_keysym(struct vnc *vnc, uint32_t keysym, bool is_down)
{
    unsigned key, modifiers;
    if (!keymap_find(vnc->keymap, keysym, &key, &modifiers))
        return;
    if (is_down && is_character(keysym))
        press_character(vnc, keysym, key, modifiers);
    else
        post_key(vnc, key, is_down);
}

/* ---- extended key events (the RFB protocol's community specification, "QEMU Extended Key Event
 * Message") ---- */

/* The viewer offers it: an empty rectangle of that encoding accepts. */
static rfbBool enable_extension(rfbClientPtr client, void **data, int encoding)
{
    struct {
        rfbFramebufferUpdateMsg message;
        rfbFramebufferUpdateRectHeader rectangle;
    } __attribute__((packed)) accept = {0};
    accept.message.type = rfbFramebufferUpdate;
    accept.message.nRects = htons(1);
    accept.rectangle.encoding = htonl((uint32_t)encoding);
    if (encoding != (int)rfbEncodingQemuExtendedKeyEvent)
        return FALSE;
    return rfbWriteExact(client, (const char *)&accept, sizeof(accept)) > 0;
}

static rfbBool take_message(rfbClientPtr client, void *data, const rfbClientToServerMsg *message)
{
    struct {
        uint8_t submessage;
        uint16_t is_down;
        uint32_t keysym, scancode;
    } __attribute__((packed)) rest;
    struct vnc *vnc = client->screen->screenData;
    unsigned key;
    if (message->type != QEMU_MESSAGE)
        return FALSE;
    if (rfbReadExact(client, (char *)&rest, sizeof(rest)) <= 0 ||
        rest.submessage != QEMU_EXTENDED_KEY) {
        rfbCloseClient(client); /* the length of any other is not known */
        return TRUE;
    }
    if (client->viewOnly)
        return TRUE;
    if (keys_of_scancode(ntohl(rest.scancode), &key))
        post_key(vnc, key, ntohs(rest.is_down));
    else
        vnc_keysym(vnc, ntohl(rest.keysym), ntohs(rest.is_down));
    return TRUE;
}

void vnc_keys_register(struct vnc *vnc)
{
    vnc->extension_encodings[0] = (int)rfbEncodingQemuExtendedKeyEvent;
    vnc->extension = (rfbProtocolExtension){
        .pseudoEncodings = vnc->extension_encodings,
        .enablePseudoEncoding = enable_extension,
        .handleMessage = take_message,
    };
    rfbRegisterProtocolExtension(&vnc->extension);
}

void vnc_keys_unregister(struct vnc *vnc)
{
    rfbUnregisterProtocolExtension(&vnc->extension);
}
