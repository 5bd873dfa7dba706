/* SPDX-License-Identifier: BSD-2-Clause
 * The VNC server on the loop's thread: where it listens, and what goes to and fro; see vnc.h. */
#include "host/vnc_internal.h"

#include "host/fd.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum { FIRST_PORT = 5900 };

static const char what[] = "cannot serve VNC";

/* ---- to the server's thread ---- */

static void ring(const struct vnc *vnc)
{
    const uint64_t one = 1;
    ssize_t written = write(vnc->bell, &one, sizeof(one));
    (void)written; /* it only fails when it rings already */
}

static void copy_rectangle(struct vnc_shared *shared, const struct display_canvas *canvas,
                           const struct display_rectangle *r)
{
    for (uint32_t y = r->y; y < r->y + r->height; y++)
        memcpy(shared->pixels + (size_t)y * shared->width + r->x,
               canvas->pixels + (size_t)y * canvas->stride_pixels + r->x, r->width * 4);
}

static void replaced(void *opaque, const struct display_canvas *canvas)
{
    struct vnc *vnc = opaque;
    struct vnc_shared *shared = &vnc->shared;
    const struct display_rectangle all = {0, 0, canvas->width, canvas->height};
    uint32_t *pixels = malloc((size_t)canvas->width * canvas->height * sizeof(*pixels));
    if (!pixels)
        return; /* viewers keep what they see */
    pthread_mutex_lock(&vnc->lock);
    free(shared->pixels);
    shared->pixels = pixels;
    shared->width = canvas->width;
    shared->height = canvas->height;
    shared->is_replaced = true;
    shared->change_count = 0;
    copy_rectangle(shared, canvas, &all);
    pthread_mutex_unlock(&vnc->lock);
    ring(vnc);
}

/* When there are too many, one that covers all. */
static void note_change(struct vnc_shared *shared, const struct display_rectangle *r)
{
    if (shared->change_count == VNC_CHANGES_MAX) {
        shared->changes[0] = (struct display_rectangle){0, 0, shared->width, shared->height};
        shared->change_count = 1;
    }
    shared->changes[shared->change_count++] = *r;
}

static void drawn(void *opaque, const struct display_canvas *canvas,
                  const struct display_rectangle *r)
{
    struct vnc *vnc = opaque;
    struct vnc_shared *shared = &vnc->shared;
    pthread_mutex_lock(&vnc->lock);
    if (shared->pixels && shared->width == canvas->width && shared->height == canvas->height) {
        copy_rectangle(shared, canvas, r);
        note_change(shared, r);
    }
    pthread_mutex_unlock(&vnc->lock);
    ring(vnc);
}

static void cursor_changed(void *opaque, const struct display_cursor *cursor)
{
    struct vnc *vnc = opaque;
    struct vnc_shared *shared = &vnc->shared;
    if (cursor->width > VNC_CURSOR_MAX || cursor->height > VNC_CURSOR_MAX)
        return;
    pthread_mutex_lock(&vnc->lock);
    shared->cursor = *cursor;
    shared->has_cursor = true;
    if (cursor->pixels) {
        memcpy(shared->cursor_pixels, cursor->pixels,
               sizeof(uint32_t) * cursor->width * cursor->height);
        shared->cursor.pixels = shared->cursor_pixels;
    }
    pthread_mutex_unlock(&vnc->lock);
    ring(vnc);
}

/* ---- from the server's thread ---- */

void vnc_post(struct vnc *vnc, const struct vnc_event *event)
{
    pthread_mutex_lock(&vnc->lock);
    struct vnc_event *last =
        &vnc->events[(vnc->event_head + vnc->event_count + VNC_EVENTS_MAX - 1) % VNC_EVENTS_MAX];
    /* Of movements on the way to a button's or key's event only the last matters. */
    if (vnc->event_count && event->kind == VNC_POINTER && last->kind == VNC_POINTER &&
        last->pointer.buttons == event->pointer.buttons && !event->pointer.wheel_up &&
        !event->pointer.wheel_right && !last->pointer.wheel_up && !last->pointer.wheel_right)
        *last = *event;
    else if (vnc->event_count < VNC_EVENTS_MAX)
        vnc->events[(vnc->event_head + vnc->event_count++) % VNC_EVENTS_MAX] = *event;
    pthread_mutex_unlock(&vnc->lock);
    wake_ring(vnc->wake);
}

static bool next_event(struct vnc *vnc, struct vnc_event *event)
{
    pthread_mutex_lock(&vnc->lock);
    bool any = vnc->event_count;
    if (any) {
        *event = vnc->events[vnc->event_head];
        vnc->event_head = (vnc->event_head + 1) % VNC_EVENTS_MAX;
        vnc->event_count--;
    }
    pthread_mutex_unlock(&vnc->lock);
    return any;
}

/* The screen is drawn while somebody looks. */
static void viewers_changed(struct vnc *vnc, unsigned viewers)
{
    const struct screen_viewer viewer = {replaced, drawn, cursor_changed, vnc};
    if (viewers && !vnc->is_attached) {
        vnc->is_attached = screen_attach(vnc->screen, &viewer, NULL);
    } else if (!viewers && vnc->is_attached) {
        screen_detach(vnc->screen, vnc);
        vnc->is_attached = false;
    }
}

static void on_events(void *opaque)
{
    struct vnc *vnc = opaque;
    const struct vnc_input *input = &vnc->config.input;
    struct vnc_event event;
    while (next_event(vnc, &event)) {
        switch (event.kind) {
        case VNC_KEY: input->key(input->opaque, event.key, event.is_down); break;
        case VNC_POINTER: input->pointer(input->opaque, &event.pointer); break;
        case VNC_RELEASE: input->release(input->opaque); break;
        case VNC_SIZE: screen_suggest_size(vnc->screen, event.width, event.height); break;
        case VNC_VIEWERS: viewers_changed(vnc, event.viewers); break;
        }
    }
}

/* ---- making it ---- */

/* The first line of the file. */
static bool take_password(struct vnc *vnc, const char *path, struct error *err)
{
    static const char cannot[] = "cannot take the password";
    static const char hint[] = "write it into the first line of a file that only you can read";
    char line[256] = "";
    FILE *file = fopen(path, "re");
    if (!file) {
        error_errno(err, cannot, path, errno);
        return error_hint(err, hint);
    }
    bool got = fgets(line, sizeof(line), file);
    fclose(file);
    line[strcspn(line, "\r\n")] = '\0';
    size_t length = strlen(line);
    if (!got || !length) {
        error_set(err, cannot, path, "its first line is empty");
        return error_hint(err, hint);
    }
    if (length > VNC_PASSWORD_BYTES) {
        error_set(err, cannot, path, "it has %zu bytes", length);
        return error_hint(err, "VNC looks at the first %d only", VNC_PASSWORD_BYTES);
    }
    strcpy(vnc->password, line);
    return true;
}

static bool is_loopback(int fd)
{
    struct sockaddr_storage address = {0};
    socklen_t size = sizeof(address);
    if (getsockname(fd, (struct sockaddr *)&address, &size) != 0)
        return false;
    if (address.ss_family == AF_INET6)
        return IN6_IS_ADDR_LOOPBACK(&((struct sockaddr_in6 *)&address)->sin6_addr);
    return address.ss_family == AF_INET &&
           ntohl(((struct sockaddr_in *)&address)->sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
}

static bool open_tcp(struct vnc *vnc, const char *where, struct error *err)
{
    char display[16];
    unsigned number;
    char rest;
    if (sscanf(where, ":%5u%c", &number, &rest) == 1 && number <= UINT16_MAX - FIRST_PORT) {
        snprintf(display, sizeof(display), "%u", FIRST_PORT + number);
        where = display;
    }
    if (!listener_open_tcp(&vnc->listener, where, vnc->address, sizeof(vnc->address), err))
        return false;
    if (vnc->password[0] || is_loopback(vnc->listener.fd))
        return true;
    error_usage(err, what, where, "other hosts could look and type there without a password");
    return error_hint(err, "add password-file=FILE, or listen on 127.0.0.1 and use an ssh tunnel");
}

static bool open_listener(struct vnc *vnc, struct error *err)
{
    const char *where = vnc->config.where;
    if (strncmp(where, "unix:", 5) != 0)
        return open_tcp(vnc, where, err);
    snprintf(vnc->address, sizeof(vnc->address), "%s", where);
    return listener_open_unix(&vnc->listener, where + 5, err);
}

struct vnc *vnc_create(const struct vnc_config *config, struct loop *loop, struct error *err)
{
    struct vnc *vnc = calloc(1, sizeof(*vnc));
    if (!vnc) {
        error_errno(err, what, config->where, ENOMEM);
        return NULL;
    }
    pthread_mutex_init(&vnc->lock, NULL);
    vnc->config = *config;
    vnc->loop = loop;
    vnc->listener.fd = -1;
    vnc->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    fd_ignore_signals();
    if (vnc->bell < 0)
        error_errno(err, what, "eventfd", errno);
    else if ((!config->password_file || take_password(vnc, config->password_file, err)) &&
             (vnc->keymap = keymap_create(config->keymap, err)) && open_listener(vnc, err) &&
             (vnc->wake = wake_open(loop, on_events, vnc, err)))
        return vnc;
    vnc_destroy(vnc);
    return NULL;
}

bool vnc_start(struct vnc *vnc, struct screen *screen, struct error *err)
{
    vnc->screen = screen;
    vnc->can_resize = screen_can_resize(screen);
    return vnc_server_start(vnc, err);
}

void vnc_destroy(struct vnc *vnc)
{
    if (!vnc)
        return;
    pthread_mutex_lock(&vnc->lock);
    vnc->shared.stops = true;
    pthread_mutex_unlock(&vnc->lock);
    ring(vnc);
    vnc_server_stop(vnc);
    if (vnc->is_attached)
        screen_detach(vnc->screen, vnc);
    wake_close(vnc->wake);
    listener_close(&vnc->listener);
    if (vnc->bell >= 0)
        close(vnc->bell);
    keymap_destroy(vnc->keymap);
    free(vnc->shared.pixels);
    explicit_bzero(vnc->password, sizeof(vnc->password));
    pthread_mutex_destroy(&vnc->lock);
    free(vnc);
}

const char *vnc_address(const struct vnc *vnc)
{
    return vnc->address;
}
