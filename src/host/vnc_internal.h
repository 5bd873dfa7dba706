/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The VNC server's two sides: vnc.c on the loop's thread, vnc_server.c (libvncserver) and
 * vnc_keys.c on its own. Between them, under one lock that nobody holds for long: a copy of the
 * screen with what has changed in it, on the way out; what viewers do, on the way in. Private to
 * src/host.
 */
#ifndef SKEP_HOST_VNC_INTERNAL_H
#define SKEP_HOST_VNC_INTERNAL_H

#include "base/wake.h"
#include "host/keymap.h"
#include "host/listener.h"
#include "host/vnc.h"

#include <pthread.h>
#include <rfb/rfb.h>

enum {
    VNC_EVENTS_MAX = 1024,
    VNC_CHANGES_MAX = 64,
    VNC_VIEWERS_MAX = 16,
    VNC_PASSWORD_BYTES = 8,
    VNC_CURSOR_MAX = 64,
};

enum vnc_event_kind { VNC_KEY, VNC_POINTER, VNC_RELEASE, VNC_SIZE, VNC_VIEWERS };

struct vnc_event {
    enum vnc_event_kind kind;
    unsigned key;
    bool is_down;
    struct input_pointer pointer;
    uint32_t width, height; /* of VNC_SIZE */
    unsigned viewers;       /* of VNC_VIEWERS */
};

/* The screen on its way to the viewers. */
struct vnc_shared {
    uint32_t *pixels; /* NULL: there is none yet */
    uint32_t width, height;
    bool is_replaced;
    struct display_rectangle changes[VNC_CHANGES_MAX];
    unsigned change_count;
    bool has_cursor; /* a new one */
    struct display_cursor cursor;
    uint32_t cursor_pixels[VNC_CURSOR_MAX * VNC_CURSOR_MAX];
    bool stops;
};

struct vnc {
    struct vnc_config config;
    struct loop *loop;
    struct listener listener;
    char address[128];
    char password[VNC_PASSWORD_BYTES + 1]; /* empty: none */
    struct keymap *keymap;
    struct wake *wake; /* there are events */
    struct screen *screen;
    bool is_attached;
    bool can_resize; /* constant once the thread runs */

    pthread_mutex_t lock; /* around the next ones */
    struct vnc_shared shared;
    struct vnc_event events[VNC_EVENTS_MAX]; /* a ring */
    unsigned event_head, event_count;

    /* Of the server's thread: */
    pthread_t thread;
    bool has_thread;
    int bell; /* an eventfd: `shared` has changed */
    rfbScreenInfoPtr server;
    char *password_list[2];
    rfbProtocolExtension extension; /* extended key events */
    int extension_encodings[2];
    unsigned viewers;
    unsigned held;    /* modifiers that viewers hold down: a bit each of those below */
    bool caps_lock;   /* as far as is known */
    unsigned buttons; /* as RFB has them */
    uint32_t *frame;  /* what libvncserver encodes, 0x00BBGGRR */
};

/* ---- vnc_server.c ---- */

bool vnc_server_start(struct vnc *vnc, struct error *err);
void vnc_server_stop(struct vnc *vnc); /* fine when it has not started */

/* ---- vnc_keys.c, on the server's thread ---- */

void vnc_keysym(struct vnc *vnc, uint32_t keysym, bool is_down);
/* QEMU's extended key events, for viewers that know them. */
void vnc_keys_register(struct vnc *vnc);
void vnc_keys_unregister(struct vnc *vnc);

/* Hands an event to the loop. On the server's thread. */
void vnc_post(struct vnc *vnc, const struct vnc_event *event);

#endif
