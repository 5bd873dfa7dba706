/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The VNC server on its own thread: libvncserver and its viewers. A viewer that is slow to read
 * gets no update while much is still on its way to it; one that does not read at all for some
 * seconds is dropped. TLS is not offered: libvncserver 0.9.14 has it for WebSockets alone.
 */
#include "host/vnc_internal.h"

#include <errno.h>
#include <linux/sockios.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    FIRST_WIDTH = 720, /* until the guest's screen is known */
    FIRST_HEIGHT = 400,
    WAIT_MS = 3000,           /* for a viewer that doesn't read, or stops in a message */
    QUEUED_MAX_BYTES = 65536, /* to a viewer, beyond which it gets no update */
    BEHIND_POLL_MS = 10,
};

/* ---- what viewers do ---- */

static struct vnc *vnc_of(const rfbClientRec *client)
{
    return client->screen->screenData;
}

static void on_key(rfbBool down, rfbKeySym keysym, rfbClientPtr client)
{
    vnc_keysym(vnc_of(client), keysym, down);
}

static uint16_t position(int at, int size)
{
    if (at <= 0 || size < 2)
        return 0;
    return (uint16_t)(at < size ? (int64_t)at * INPUT_POSITION_MAX / (size - 1)
                                : INPUT_POSITION_MAX);
}

/* RFC 6143, 7.5.5: left, middle, right, wheel up and down; then left and right, and two more by
 * custom. A turn of the wheel is a button that goes down. */
static void on_pointer(int buttons, int x, int y, rfbClientPtr client)
{
    static const unsigned known[] = {INPUT_LEFT, INPUT_MIDDLE, INPUT_RIGHT, 0, 0, 0,
                                     0,          INPUT_SIDE,   INPUT_EXTRA};
    struct vnc *vnc = vnc_of(client);
    unsigned pressed = (unsigned)buttons & ~vnc->buttons;
    struct vnc_event event = {.kind = VNC_POINTER};
    event.pointer.is_absolute = true;
    event.pointer.x = position(x, vnc->server->width);
    event.pointer.y = position(y, vnc->server->height);
    event.pointer.wheel_up = (int)(pressed >> 3 & 1) - (int)(pressed >> 4 & 1);
    event.pointer.wheel_right = (int)(pressed >> 6 & 1) - (int)(pressed >> 5 & 1);
    for (unsigned i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (buttons >> i & 1)
            event.pointer.buttons |= known[i];
    vnc->buttons = (unsigned)buttons;
    vnc_post(vnc, &event);
    rfbDefaultPtrAddEvent(buttons, x, y, client);
}

static int on_size(int width, int height, int screens, struct rfbExtDesktopScreen *list,
                   rfbClientPtr client)
{
    struct vnc *vnc = vnc_of(client);
    if (!vnc->can_resize)
        return rfbExtDesktopSize_ResizeProhibited;
    if (width < 1 || height < 1 || width > DISPLAY_MAX_WIDTH || height > DISPLAY_MAX_HEIGHT ||
        screens != 1)
        return rfbExtDesktopSize_InvalidScreenLayout;
    vnc_post(vnc, &(struct vnc_event){
                      .kind = VNC_SIZE, .width = (uint32_t)width, .height = (uint32_t)height});
    return rfbExtDesktopSize_Success;
}

static void tell_viewers(struct vnc *vnc)
{
    vnc_post(vnc, &(struct vnc_event){.kind = VNC_VIEWERS, .viewers = vnc->viewers});
}

static void on_gone(rfbClientPtr client)
{
    struct vnc *vnc = vnc_of(client);
    vnc->viewers--;
    vnc->held = vnc->buttons = 0;
    vnc_post(vnc, &(struct vnc_event){.kind = VNC_RELEASE});
    tell_viewers(vnc);
}

static enum rfbNewClientAction on_new(rfbClientPtr client)
{
    struct vnc *vnc = vnc_of(client);
    client->clientGoneHook = on_gone;
    vnc->viewers++;
    tell_viewers(vnc);
    return RFB_CLIENT_ACCEPT;
}

/* ---- what the guest shows ---- */

/* libvncserver's own order of colours. */
static void copy_pixels(uint32_t *to, const uint32_t *from, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        to[i] = (from[i] >> 16 & 0xff) | (from[i] & 0xff00) | (from[i] & 0xff) << 16;
}

/* A frame of the new size; false: out of memory, the old one stays. With the lock held. */
static bool take_frame(struct vnc *vnc)
{
    const struct vnc_shared *shared = &vnc->shared;
    uint32_t *frame = malloc((size_t)shared->width * shared->height * sizeof(*frame));
    if (!frame)
        return false;
    copy_pixels(frame, shared->pixels, shared->width * shared->height);
    bool has_same_size =
        vnc->server->width == (int)shared->width && vnc->server->height == (int)shared->height;
    if (has_same_size) {
        vnc->server->frameBuffer = (char *)frame;
        rfbMarkRectAsModified(vnc->server, 0, 0, vnc->server->width, vnc->server->height);
    } else {
        rfbNewFramebuffer(vnc->server, (char *)frame, (int)shared->width, (int)shared->height, 8, 3,
                          4);
    }
    free(vnc->frame);
    vnc->frame = frame;
    return true;
}

static void take_changes(struct vnc *vnc)
{
    const struct vnc_shared *shared = &vnc->shared;
    if (vnc->server->width != (int)shared->width || vnc->server->height != (int)shared->height)
        return;
    for (unsigned i = 0; i < shared->change_count; i++) {
        const struct display_rectangle *r = &shared->changes[i];
        for (uint32_t y = r->y; y < r->y + r->height; y++) {
            size_t at = (size_t)y * shared->width + r->x;
            copy_pixels(vnc->frame + at, shared->pixels + at, r->width);
        }
        rfbMarkRectAsModified(vnc->server, (int)r->x, (int)r->y, (int)(r->x + r->width),
                              (int)(r->y + r->height));
    }
}

/* A picture for viewers that draw the pointer themselves, with a mask for those that know no
 * transparency. NULL: out of memory. */
static rfbCursorPtr make_cursor(const struct display_cursor *from)
{
    size_t count = (size_t)from->width * from->height, line_bytes = (from->width + 7) / 8;
    rfbCursorPtr cursor = calloc(1, sizeof(*cursor));
    uint32_t *pixels = malloc(count * sizeof(*pixels));
    unsigned char *alpha = malloc(count), *mask = calloc(from->height, line_bytes);
    if (!cursor || !pixels || !alpha || !mask) {
        free(cursor);
        free(pixels);
        free(alpha);
        free(mask);
        return NULL;
    }
    copy_pixels(pixels, from->pixels, (uint32_t)count);
    for (size_t i = 0; i < count; i++) {
        alpha[i] = (unsigned char)(from->pixels[i] >> 24);
        if (alpha[i] >= 0x80)
            mask[i / from->width * line_bytes + i % from->width / 8] |=
                (unsigned char)(0x80 >> i % from->width % 8);
    }
    *cursor = (rfbCursor){
        .cleanup = TRUE,
        .cleanupMask = TRUE,
        .cleanupRichSource = TRUE,
        .mask = mask,
        .richSource = (unsigned char *)pixels,
        .alphaSource = alpha,
        .alphaPreMultiplied = TRUE,
        .width = (unsigned short)from->width,
        .height = (unsigned short)from->height,
        .xhot = (unsigned short)(from->hot_x < from->width ? from->hot_x : 0),
        .yhot = (unsigned short)(from->hot_y < from->height ? from->hot_y : 0),
    };
    return cursor;
}

/* Takes over what the loop has left; false: it is over. */
static bool take_shared(struct vnc *vnc)
{
    struct vnc_shared *shared = &vnc->shared;
    pthread_mutex_lock(&vnc->lock);
    bool goes_on = !shared->stops;
    if (goes_on && shared->is_replaced) {
        shared->is_replaced = !take_frame(vnc);
    } else if (goes_on && shared->change_count) {
        take_changes(vnc);
    }
    shared->change_count = 0;
    if (goes_on && shared->has_cursor) {
        const struct display_cursor *cursor = &shared->cursor;
        bool is_shown = cursor->pixels && cursor->width && cursor->height;
        rfbSetCursor(vnc->server, is_shown ? make_cursor(cursor) : NULL);
        shared->has_cursor = false;
    }
    pthread_mutex_unlock(&vnc->lock);
    return goes_on;
}

/* ---- the thread ---- */

static void accept_viewer(struct vnc *vnc)
{
    int fd = accept4(vnc->listener.fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return;
    /* libvncserver keeps its sockets in an fd_set. */
    if (vnc->viewers == VNC_VIEWERS_MAX || fd >= FD_SETSIZE)
        close(fd);
    else
        rfbNewClient(vnc->server, fd);
}

/* Much of what it was sent is still on its way to it. */
static bool is_behind(const rfbClientRec *client)
{
    int queued_bytes = 0;
    ioctl(client->sock, SIOCOUTQ, &queued_bytes);
    return queued_bytes > QUEUED_MAX_BYTES;
}

/* Marks those viewers that are behind, or takes the mark away. Fills in the sockets of all, and
 * their number; true when one is behind. */
static bool mark_viewers(struct vnc *vnc, bool may_hold, struct pollfd *fds, nfds_t *count)
{
    bool any_behind = false;
    rfbClientIteratorPtr iterator = rfbGetClientIterator(vnc->server);
    rfbClientPtr client;
    *count = 0;
    while ((client = rfbClientIteratorNext(iterator)) && *count < VNC_VIEWERS_MAX) {
        client->onHold = may_hold && is_behind(client);
        any_behind |= client->onHold;
        fds[(*count)++] = (struct pollfd){.fd = client->sock, .events = POLLIN};
    }
    rfbReleaseClientIterator(iterator);
    return any_behind;
}

/* Takes what viewers have sent, then sends what they have asked for to those that keep up:
 * libvncserver would not listen to the others either. */
static bool serve_viewers(struct vnc *vnc, struct pollfd *fds, nfds_t *count)
{
    rfbCheckFds(vnc->server, 0);
    bool any_behind = mark_viewers(vnc, true, fds, count);
    rfbProcessEvents(vnc->server, 0);
    mark_viewers(vnc, false, fds, count);
    return any_behind;
}

static void serve_and_wait(struct vnc *vnc)
{
    struct pollfd fds[VNC_VIEWERS_MAX + 2];
    nfds_t count;
    bool any_behind = serve_viewers(vnc, fds, &count);
    fds[count++] = (struct pollfd){.fd = vnc->bell, .events = POLLIN};
    fds[count++] = (struct pollfd){.fd = vnc->listener.fd, .events = POLLIN};
    if (poll(fds, count, any_behind ? BEHIND_POLL_MS : -1) < 0)
        return;
    if (fds[count - 2].revents) {
        uint64_t rings;
        ssize_t got = read(vnc->bell, &rings, sizeof(rings));
        (void)got;
    }
    if (fds[count - 1].revents)
        accept_viewer(vnc);
}

static void *serve(void *opaque)
{
    struct vnc *vnc = opaque;
    while (take_shared(vnc))
        serve_and_wait(vnc);
    return NULL;
}

static bool make_server(struct vnc *vnc)
{
    rfbLogEnable(0);
    vnc->frame = calloc((size_t)FIRST_WIDTH * FIRST_HEIGHT, sizeof(*vnc->frame));
    vnc->server = rfbGetScreen(NULL, NULL, FIRST_WIDTH, FIRST_HEIGHT, 8, 3, 4);
    if (!vnc->frame || !vnc->server)
        return false;
    rfbScreenInfoPtr server = vnc->server;
    server->frameBuffer = (char *)vnc->frame;
    server->screenData = vnc;
    server->desktopName = vnc->config.name ? vnc->config.name : "skep";
    server->alwaysShared = TRUE;
    server->autoPort = FALSE;
    server->port = server->ipv6port = 0; /* the socket is ours */
    server->deferUpdateTime = 0;
    server->maxClientWait = WAIT_MS;
    server->cursor = NULL;
    server->kbdAddEvent = on_key;
    server->ptrAddEvent = on_pointer;
    server->newClientHook = on_new;
    server->setDesktopSizeHook = on_size;
    if (vnc->password[0]) {
        vnc->password_list[0] = vnc->password;
        server->authPasswdData = vnc->password_list;
        server->passwordCheck = rfbCheckPasswordByList;
    }
    rfbInitServer(server);
    vnc_keys_register(vnc);
    return true;
}

bool vnc_server_start(struct vnc *vnc, struct error *err)
{
    static const char what[] = "cannot serve VNC";
    if (!make_server(vnc))
        return error_errno(err, what, vnc->address, ENOMEM);
    int error = pthread_create(&vnc->thread, NULL, serve, vnc);
    if (error)
        return error_errno(err, what, vnc->address, error);
    vnc->has_thread = true;
    return true;
}

void vnc_server_stop(struct vnc *vnc)
{
    if (vnc->has_thread)
        pthread_join(vnc->thread, NULL);
    vnc->has_thread = false;
    if (vnc->server) {
        rfbShutdownServer(vnc->server, TRUE);
        vnc_keys_unregister(vnc);
        vnc->server->frameBuffer = NULL;
        rfbSetCursor(vnc->server, NULL);
        rfbScreenCleanup(vnc->server);
    }
    vnc->server = NULL;
    free(vnc->frame);
    vnc->frame = NULL;
}
