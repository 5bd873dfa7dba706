/* SPDX-License-Identifier: BSD-2-Clause
 *
 * libslirp as a network back end; see slirp.h. All on the loop's thread.
 *
 * libslirp is made for poll(): it lists its sockets (fill), then asks what has become of each
 * (poll). Here its sockets are in an epoll set that the loop watches, which is changed only where
 * the list has. One pass (service) does poll and fill; whatever happens asks for a pass, and many
 * things that happen in one turn of the loop share one.
 *
 * Large packets: libslirp is told of an MTU of nearly 64 KiB. A guest that takes segments to be cut
 * (TSO) has the segment size that it offers in a SYN raised on the way, so that TCP comes in large
 * packets, which are marked for it to cut; for any other guest nothing changes, and what is too
 * large all the same is cut here.
 *
 * The HTTP folder: libslirp can lead connections to a Unix socket, but not those to the host's own
 * address. So it is told of another one, and the guest's 10.0.2.2:80 becomes that on the way, and
 * back.
 */
#include "host/slirp.h"

#include "host/fd.h"
#include "host/frame.h"
#include "host/http_folder.h"

#include <arpa/inet.h>
#include <errno.h>
#include <glib.h>
#include <libslirp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    STACK_MTU_BYTES = 65521, /* the greatest that libslirp takes */
    SEGMENT_BYTES = 32000,   /* two of them fit a window of 64 KiB */
    QUEUE_MAX_BYTES = 4 << 20,
    EVENTS_AT_ONCE = 64,
    HOST_IPV4 = 0x0a000202,
    HTTP_IPV4 = 0x0a000204, /* where libslirp has the HTTP folder */
    HTTP_PORT = 80,
    BOOT_FILE_BYTES = 128, /* DHCP's field for it, with a zero (RFC 2131, 2) */
};

/* A frame that the guest had no room for. */
struct queued_frame {
    struct queued_frame *next;
    struct net_offload offload;
    size_t size_bytes;
    uint8_t bytes[];
};

struct poll_entry {
    int fd, events; /* SLIRP_POLL_… */
};

/* What is known of a descriptor, by its number. */
struct fd_state {
    uint32_t armed;   /* EPOLL… events in the set; 0: not in it */
    uint32_t wanted;  /* of the pass `pass` */
    uint32_t revents; /* EPOLL… events that came */
    uint64_t pass;
    bool is_open; /* libslirp has it */
};

struct slirp {
    Slirp *stack;
    SlirpCb callbacks;
    struct loop *loop;
    const struct log *log;
    struct log_limit log_limit;
    unsigned log_handler;
    struct net_receiver receiver;
    struct net_guest_features features;

    int epoll_fd;
    struct loop_watch *watch;
    struct loop_timer *timer; /* the next pass: at once, or when libslirp wants it */
    bool pass_asked;
    uint64_t pass;
    struct poll_entry *entries, *entries_before;
    unsigned entry_count, entry_count_before, entry_max, entry_max_before;
    struct fd_state *fds;
    int fd_max;

    struct queued_frame *queue, **queue_end;
    size_t queue_bytes;
    uint8_t buffer[NET_FRAME_MAX_BYTES]; /* a frame of the guest, in one piece */

    struct http_folder *http;            /* NULL: none */
    char bootfile[BOOT_FILE_BYTES];      /* as DHCP tells it; empty: none */
    uint8_t answer[NET_FRAME_MAX_BYTES]; /* a frame to the guest, with the address it knows */
};

struct slirp_timer {
    struct loop_timer *timer;
    struct slirp *slirp;
    SlirpTimerId id;
    void *opaque;
};

static void ask_for_pass(struct slirp *slirp)
{
    if (slirp->pass_asked || slirp->queue)
        return;
    slirp->pass_asked = true;
    loop_timer_start(slirp->timer, 0);
}

/* ---- to the guest ---- */

/* Keeps a copy. What libslirp may have under way to a guest is far less than the bound; what a
 * guest provokes beyond it is lost, as on a wire. */
static void queue_frame(struct slirp *slirp, const struct iovec *iov, unsigned iov_count,
                        const struct net_offload *offload)
{
    size_t size_bytes = 0;
    for (unsigned i = 0; i < iov_count; i++)
        size_bytes += iov[i].iov_len;
    struct queued_frame *frame = NULL;
    if (slirp->queue_bytes + size_bytes <= QUEUE_MAX_BYTES)
        frame = malloc(sizeof(*frame) + size_bytes);
    if (!frame) {
        log_limited(slirp->log, &slirp->log_limit, LOG_WARNING, "slirp",
                    "the guest takes no frames: one of %zu bytes is lost", size_bytes);
        return;
    }
    *frame = (struct queued_frame){.offload = *offload, .size_bytes = size_bytes};
    uint8_t *to = frame->bytes;
    for (unsigned i = 0; i < iov_count; i++) {
        memcpy(to, iov[i].iov_base, iov[i].iov_len);
        to += iov[i].iov_len;
    }
    *slirp->queue_end = frame;
    slirp->queue_end = &frame->next;
    slirp->queue_bytes += size_bytes + sizeof(*frame);
    /* Nothing more is read for the guest until it has taken this. */
    loop_watch_set(slirp->watch, 0);
    loop_timer_stop(slirp->timer);
    slirp->pass_asked = false;
}

static void deliver(struct slirp *slirp, const struct iovec *iov, unsigned iov_count,
                    const struct net_offload *offload)
{
    const struct net_receiver *receiver = &slirp->receiver;
    if (!receiver->receive)
        return;
    if (slirp->queue || !receiver->receive(receiver->opaque, iov, iov_count, offload))
        queue_frame(slirp, iov, iov_count, offload);
}

/* One that is complete and no larger than Ethernet's. */
static void deliver_plain(void *opaque, const uint8_t *bytes, size_t size_bytes)
{
    struct slirp *slirp = opaque;
    struct iovec iov = {(void *)(uintptr_t)bytes, size_bytes};
    struct net_offload offload = {.checksum_valid = slirp->features.checksum};
    deliver(slirp, &iov, 1, &offload);
}

static void deliver_large(struct slirp *slirp, const uint8_t *bytes, size_t size_bytes)
{
    struct frame_parts parts;
    if (!frame_parse(bytes, size_bytes, &parts))
        return; /* no frame of libslirp's is like this */
    bool takes = parts.is_ipv6 ? slirp->features.tso6 : slirp->features.tso4;
    if (!parts.tcp_payload || !takes || !slirp->features.checksum) {
        frame_split(bytes, &parts, deliver_plain, slirp);
        return;
    }
    uint8_t headers[FRAME_HEADERS_MAX_BYTES];
    struct net_offload offload;
    memcpy(headers, bytes, parts.tcp_payload);
    frame_mark_gso(headers, &parts, &offload);
    struct iovec iov[2] = {
        {headers, parts.tcp_payload},
        {(void *)(uintptr_t)(bytes + parts.tcp_payload), parts.total_bytes - parts.tcp_payload}};
    deliver(slirp, iov, 2, &offload);
}

static ssize_t on_send_packet(const void *bytes, size_t size_bytes, void *opaque)
{
    struct slirp *slirp = opaque;
    static const struct frame_address http = {HTTP_IPV4, HTTP_PORT, true};
    if (slirp->http && size_bytes <= sizeof(slirp->answer) &&
        frame_has_address(bytes, size_bytes, &http)) {
        memcpy(slirp->answer, bytes, size_bytes);
        bytes = slirp->answer;
        frame_change_address(slirp->answer, size_bytes, &http, HOST_IPV4);
    }
    if (size_bytes <= FRAME_ETHERNET_BYTES + FRAME_MTU_BYTES)
        deliver_plain(slirp, bytes, size_bytes);
    else
        deliver_large(slirp, bytes, size_bytes);
    return (ssize_t)size_bytes;
}

static void backend_resume(void *opaque)
{
    struct slirp *slirp = opaque;
    while (slirp->queue) {
        struct queued_frame *frame = slirp->queue;
        struct iovec iov = {frame->bytes, frame->size_bytes};
        if (!slirp->receiver.receive ||
            !slirp->receiver.receive(slirp->receiver.opaque, &iov, 1, &frame->offload))
            return;
        slirp->queue = frame->next;
        if (!slirp->queue)
            slirp->queue_end = &slirp->queue;
        slirp->queue_bytes -= frame->size_bytes + sizeof(*frame);
        free(frame);
    }
    loop_watch_set(slirp->watch, LOOP_READABLE);
    ask_for_pass(slirp);
}

/* ---- from the guest ---- */

static void backend_send(void *opaque, const struct iovec *iov, unsigned iov_count,
                         const struct net_offload *offload)
{
    struct slirp *slirp = opaque;
    size_t size_bytes = 0;
    for (unsigned i = 0; i < iov_count; i++) {
        if (iov[i].iov_len > sizeof(slirp->buffer) - size_bytes)
            return;
        memcpy(slirp->buffer + size_bytes, iov[i].iov_base, iov[i].iov_len);
        size_bytes += iov[i].iov_len;
    }
    if (size_bytes < FRAME_ETHERNET_BYTES)
        return;
    bool is_ipv6 = slirp->buffer[12] == 0x86;
    if (slirp->features.checksum && (is_ipv6 ? slirp->features.tso6 : slirp->features.tso4))
        frame_raise_segment_size(slirp->buffer, size_bytes, SEGMENT_BYTES, offload->needs_checksum);
    if (!frame_complete(slirp->buffer, size_bytes, offload)) {
        log_limited(slirp->log, &slirp->log_limit, LOG_DEBUG, "slirp",
                    "a frame of the guest has marks that do not fit it");
        return;
    }
    if (slirp->http) {
        static const struct frame_address host = {HOST_IPV4, HTTP_PORT, false};
        frame_change_address(slirp->buffer, size_bytes, &host, HTTP_IPV4);
    }
    slirp_input(slirp->stack, slirp->buffer, (int)size_bytes);
    ask_for_pass(slirp);
}

/* ---- sockets ---- */

static struct fd_state *fd_state(struct slirp *slirp, int fd)
{
    if (fd < 0)
        return NULL;
    if (fd >= slirp->fd_max) {
        int max = (fd + 64) & ~63;
        struct fd_state *fds = realloc(slirp->fds, (size_t)max * sizeof(*fds));
        if (!fds)
            return NULL;
        memset(fds + slirp->fd_max, 0, (size_t)(max - slirp->fd_max) * sizeof(*fds));
        slirp->fds = fds;
        slirp->fd_max = max;
    }
    return &slirp->fds[fd];
}

/* The number may stand for another socket from now on: what was known is void. */
static void forget_fd(struct slirp *slirp, int fd)
{
    struct fd_state *state = fd_state(slirp, fd);
    if (!state)
        return;
    if (state->armed)
        epoll_ctl(slirp->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
    *state = (struct fd_state){0};
}

static void on_register(int fd, void *opaque)
{
    struct slirp *slirp = opaque;
    forget_fd(slirp, fd);
    struct fd_state *state = fd_state(slirp, fd);
    if (state)
        state->is_open = true;
}

static void on_unregister(int fd, void *opaque)
{
    forget_fd(opaque, fd);
}

/* A socket that is closed with linger on and no time left sends a reset (socket(7)). */
static void backend_reset_connections(void *opaque)
{
    struct slirp *slirp = opaque;
    const struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    for (int fd = 0; fd < slirp->fd_max; fd++) {
        int kind = 0;
        socklen_t size = sizeof(kind);
        if (slirp->fds[fd].is_open && getsockopt(fd, SOL_SOCKET, SO_TYPE, &kind, &size) == 0 &&
            kind == SOCK_STREAM)
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    }
}

static uint32_t to_epoll(int events)
{
    return (events & SLIRP_POLL_IN ? EPOLLIN : 0u) | (events & SLIRP_POLL_OUT ? EPOLLOUT : 0u) |
           (events & SLIRP_POLL_PRI ? EPOLLPRI : 0u);
}

static int from_epoll(uint32_t events)
{
    return (events & EPOLLIN ? SLIRP_POLL_IN : 0) | (events & EPOLLOUT ? SLIRP_POLL_OUT : 0) |
           (events & EPOLLPRI ? SLIRP_POLL_PRI : 0) | (events & EPOLLERR ? SLIRP_POLL_ERR : 0) |
           (events & EPOLLHUP ? SLIRP_POLL_HUP : 0);
}

/* -1 says to libslirp that the socket is not looked at; it offers it again in the next pass. */
static int on_add_poll(int fd, int events, void *opaque)
{
    struct slirp *slirp = opaque;
    struct fd_state *state = fd_state(slirp, fd);
    if (!state)
        return -1;
    if (slirp->entry_count == slirp->entry_max) {
        unsigned max = slirp->entry_max ? slirp->entry_max * 2 : 64;
        struct poll_entry *entries = realloc(slirp->entries, max * sizeof(*entries));
        if (!entries)
            return -1;
        slirp->entries = entries;
        slirp->entry_max = max;
    }
    slirp->entries[slirp->entry_count] = (struct poll_entry){fd, events};
    state->wanted = to_epoll(events) | (state->pass == slirp->pass ? state->wanted : 0);
    state->pass = slirp->pass;
    return (int)slirp->entry_count++;
}

static int on_get_revents(int index, void *opaque)
{
    const struct slirp *slirp = opaque;
    if (index < 0 || (unsigned)index >= slirp->entry_count)
        return 0;
    const struct poll_entry *entry = &slirp->entries[index];
    int allowed = entry->events | SLIRP_POLL_ERR | SLIRP_POLL_HUP;
    return from_epoll(slirp->fds[entry->fd].revents) & allowed;
}

static void arm(struct slirp *slirp, int fd, struct fd_state *state)
{
    /* ERR and HUP come unasked, so a socket with no other events stays in the set too. */
    uint32_t events = state->wanted | EPOLLERR;
    if (state->armed == events)
        return;
    struct epoll_event event = {.events = events, .data.fd = fd};
    int done = epoll_ctl(slirp->epoll_fd, state->armed ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event);
    if (done < 0 && errno == ENOENT)
        done = epoll_ctl(slirp->epoll_fd, EPOLL_CTL_ADD, fd, &event);
    else if (done < 0 && errno == EEXIST)
        done = epoll_ctl(slirp->epoll_fd, EPOLL_CTL_MOD, fd, &event);
    state->armed = done == 0 ? events : 0;
}

/* Takes what is not in this pass's list out of the set, and puts in what is. */
static void update_set(struct slirp *slirp)
{
    for (unsigned i = 0; i < slirp->entry_count_before; i++) {
        int fd = slirp->entries_before[i].fd;
        struct fd_state *state = &slirp->fds[fd];
        if (state->pass == slirp->pass || !state->armed)
            continue;
        epoll_ctl(slirp->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
        state->armed = 0;
    }
    for (unsigned i = 0; i < slirp->entry_count; i++)
        arm(slirp, slirp->entries[i].fd, &slirp->fds[slirp->entries[i].fd]);
}

static void list_sockets(struct slirp *slirp)
{
    struct poll_entry *entries = slirp->entries_before;
    unsigned max = slirp->entry_max_before;
    slirp->entries_before = slirp->entries;
    slirp->entry_max_before = slirp->entry_max;
    slirp->entry_count_before = slirp->entry_count;
    slirp->entries = entries;
    slirp->entry_max = max;
    slirp->entry_count = 0;
    slirp->pass++;
    uint32_t timeout_ms = UINT32_MAX;
    slirp_pollfds_fill(slirp->stack, &timeout_ms, on_add_poll, slirp);
    update_set(slirp);
    if (!slirp->pass_asked && !slirp->queue && timeout_ms != UINT32_MAX)
        loop_timer_start(slirp->timer, timeout_ms);
}

static void service(struct slirp *slirp)
{
    struct epoll_event events[EVENTS_AT_ONCE];
    slirp->pass_asked = false;
    int count = epoll_wait(slirp->epoll_fd, events, EVENTS_AT_ONCE, 0);
    for (int i = 0; i < count; i++)
        slirp->fds[events[i].data.fd].revents = events[i].events;
    slirp_pollfds_poll(slirp->stack, 0, on_get_revents, slirp);
    for (int i = 0; i < count; i++)
        slirp->fds[events[i].data.fd].revents = 0;
    list_sockets(slirp);
}

static void on_watch(void *opaque, unsigned events)
{
    struct slirp *slirp = opaque;
    if (!slirp->queue)
        service(slirp);
}

static void on_timer(void *opaque)
{
    on_watch(opaque, 0);
}

/* ---- what else libslirp calls ---- */

static void on_guest_error(const char *message, void *opaque)
{
    struct slirp *slirp = opaque;
    log_limited(slirp->log, &slirp->log_limit, LOG_INFO, "slirp", "the guest: %s", message);
}

static int64_t on_clock(void *opaque)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void on_stack_timer(void *opaque)
{
    struct slirp_timer *timer = opaque;
    slirp_handle_timer(timer->slirp->stack, timer->id, timer->opaque);
    ask_for_pass(timer->slirp);
}

static void *on_timer_new(SlirpTimerId id, void *timer_opaque, void *opaque)
{
    struct slirp *slirp = opaque;
    struct slirp_timer *timer = calloc(1, sizeof(*timer));
    if (!timer)
        return NULL;
    *timer = (struct slirp_timer){NULL, slirp, id, timer_opaque};
    timer->timer = loop_timer_open(slirp->loop, on_stack_timer, timer);
    return timer;
}

static void on_timer_free(void *opaque_timer, void *opaque)
{
    struct slirp_timer *timer = opaque_timer;
    if (!timer)
        return;
    loop_timer_close(timer->timer);
    free(timer);
}

static void on_timer_mod(void *opaque_timer, int64_t expire_ms, void *opaque)
{
    struct slirp_timer *timer = opaque_timer;
    if (!timer || !timer->timer)
        return;
    int64_t delay_ms = expire_ms - on_clock(opaque) / 1000000;
    loop_timer_start(timer->timer, delay_ms > 0 ? (uint64_t)delay_ms : 0);
}

static void on_notify(void *opaque)
{
    ask_for_pass(opaque);
}

/* libslirp speaks through GLib, which would print. */
static void on_log(const gchar *domain, GLogLevelFlags level, const gchar *message, gpointer opaque)
{
    struct slirp *slirp = opaque;
    bool is_serious = level & (G_LOG_LEVEL_ERROR | G_LOG_LEVEL_CRITICAL | G_LOG_LEVEL_WARNING);
    log_limited(slirp->log, &slirp->log_limit, is_serious ? LOG_WARNING : LOG_DEBUG, "slirp", "%s",
                message);
}

/* ---- life ---- */

static void backend_set_receiver(void *opaque, const struct net_receiver *receiver)
{
    struct slirp *slirp = opaque;
    slirp->receiver = receiver ? *receiver : (struct net_receiver){0};
}

static void backend_set_features(void *opaque, const struct net_guest_features *features)
{
    struct slirp *slirp = opaque;
    slirp->features = *features;
}

static bool backend_link_up(void *opaque)
{
    return true;
}

static void slirp_free(struct slirp *slirp)
{
    slirp->receiver = (struct net_receiver){0};
    if (slirp->stack)
        slirp_cleanup(slirp->stack);
    http_folder_close(slirp->http);
    if (slirp->log_handler)
        g_log_remove_handler("Slirp", slirp->log_handler);
    loop_watch_close(slirp->watch);
    loop_timer_close(slirp->timer);
    if (slirp->epoll_fd >= 0)
        close(slirp->epoll_fd);
    while (slirp->queue) {
        struct queued_frame *next = slirp->queue->next;
        free(slirp->queue);
        slirp->queue = next;
    }
    free(slirp->entries);
    free(slirp->entries_before);
    free(slirp->fds);
    free(slirp);
}

static void backend_close(void *opaque)
{
    slirp_free(opaque);
}

static bool make_stack(struct slirp *slirp, const struct slirp_config *config, struct error *err)
{
    slirp->callbacks = (SlirpCb){
        .send_packet = on_send_packet,
        .guest_error = on_guest_error,
        .clock_get_ns = on_clock,
        .timer_new_opaque = on_timer_new,
        .timer_free = on_timer_free,
        .timer_mod = on_timer_mod,
        .register_poll_fd = on_register,
        .unregister_poll_fd = on_unregister,
        .notify = on_notify,
    };
    SlirpConfig stack = {
        .version = 4,
        .restricted = config->is_isolated,
        .in_enabled = true,
        .in6_enabled = true,
        .vprefix_len = 64,
        .if_mtu = STACK_MTU_BYTES,
        .if_mru = STACK_MTU_BYTES,
        .tftp_path = config->tftp,
        .bootfile = slirp->bootfile[0] ? slirp->bootfile : NULL,
    };
    inet_pton(AF_INET, "10.0.2.0", &stack.vnetwork);
    inet_pton(AF_INET, "255.255.255.0", &stack.vnetmask);
    inet_pton(AF_INET, "10.0.2.2", &stack.vhost);
    inet_pton(AF_INET, "10.0.2.3", &stack.vnameserver);
    inet_pton(AF_INET, "10.0.2.15", &stack.vdhcp_start);
    inet_pton(AF_INET6, "fec0::", &stack.vprefix_addr6);
    inet_pton(AF_INET6, "fec0::2", &stack.vhost6);
    inet_pton(AF_INET6, "fec0::3", &stack.vnameserver6);
    slirp->stack = slirp_new(&stack, &slirp->callbacks, slirp);
    if (!slirp->stack)
        return error_set(err, "cannot start the user-mode network", NULL, "libslirp refused");
    return true;
}

static bool forward_failed(const struct slirp_forward *forward, const char *host, int error,
                           struct error *err)
{
    char where[80];
    const char *protocol = forward->is_udp ? "udp" : "tcp";
    snprintf(where, sizeof(where), "%.48s:%u/%s", host, forward->host_port, protocol);
    if (error == EADDRINUSE) {
        error_set(err, "cannot forward port", where, "port %u is in use", forward->host_port);
        return error_hint(err, "choose another host port, or stop what has it: ss -ln%cp shows it",
                          protocol[0]);
    }
    error_errno(err, "cannot forward port", where, error);
    if (error == EACCES)
        return error_hint(err, "ports below 1024 are for root: choose a greater one");
    if (error == EADDRNOTAVAIL)
        return error_hint(err, "this host has no address %s: ip addr shows those it has", host);
    return false;
}

static bool add_forward(struct slirp *slirp, const struct slirp_forward *forward, struct error *err)
{
    const char *host = forward->host_addr && *forward->host_addr ? forward->host_addr : "127.0.0.1";
    struct in_addr host_addr, guest_addr;
    if (inet_pton(AF_INET, host, &host_addr) != 1) {
        error_usage(err, "cannot forward port", host, "it is not an IPv4 address");
        return error_hint(err, "write it like 127.0.0.1 or 0.0.0.0");
    }
    if (forward->host_port == 0 || forward->guest_port == 0)
        return error_usage(err, "cannot forward port", host, "port 0 cannot be forwarded");
    inet_pton(AF_INET, "10.0.2.15", &guest_addr);
    errno = 0;
    if (slirp_add_hostfwd(slirp->stack, forward->is_udp, host_addr, forward->host_port, guest_addr,
                          forward->guest_port) < 0)
        return forward_failed(forward, host, errno ? errno : EADDRINUSE, err);
    return true;
}

static bool add_http(struct slirp *slirp, const char *folder, struct error *err)
{
    struct in_addr address = {.s_addr = htonl(HTTP_IPV4)};
    slirp->http = http_folder_open(folder, err);
    if (!slirp->http)
        return false;
    if (slirp_add_unix(slirp->stack, http_folder_socket(slirp->http), &address, HTTP_PORT) < 0)
        return error_set(err, "cannot give out by HTTP", folder, "libslirp refused");
    return true;
}

/* libslirp would only fail each transfer. */
static bool check_tftp(const struct slirp_config *config, struct error *err)
{
    struct stat info;
    if (config->bootfile && !config->tftp && !config->http) {
        error_usage(err, "boot file", config->bootfile, "there is no folder that it would be in");
        return error_hint(err, "add tftp=FOLDER or http=FOLDER");
    }
    if (!config->tftp)
        return true;
    bool is_there = stat(config->tftp, &info) == 0;
    if (is_there && S_ISDIR(info.st_mode))
        return true;
    error_errno(err, "cannot use the TFTP folder", config->tftp, is_there ? ENOTDIR : errno);
    return error_hint(err, "give the path of a folder");
}

/* A name is of a file by TFTP, if there is a folder for that, else by HTTP. libslirp offers a URL
 * to UEFI's HTTP boot as that takes it. */
static bool take_bootfile(struct slirp *slirp, const struct slirp_config *config, struct error *err)
{
    const char *name = config->bootfile ? config->bootfile : "";
    bool is_by_http = *name && !config->tftp && !strstr(name, "://");
    int length = snprintf(slirp->bootfile, sizeof(slirp->bootfile), "%s%s",
                          is_by_http ? "http://10.0.2.2/" : "",
                          is_by_http ? name + strspn(name, "/") : name);
    return length < BOOT_FILE_BYTES || error_usage(err, "boot file", name, "its name is too long");
}

static bool slirp_setup(struct slirp *slirp, const struct slirp_config *config, struct error *err)
{
    if (!check_tftp(config, err) || !take_bootfile(slirp, config, err))
        return false;
    slirp->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (slirp->epoll_fd < 0)
        return error_errno(err, "cannot start the user-mode network", "epoll", errno);
    slirp->watch = loop_watch_open(slirp->loop, slirp->epoll_fd, on_watch, slirp, err);
    if (!slirp->watch)
        return false;
    slirp->timer = loop_timer_open(slirp->loop, on_timer, slirp);
    if (!slirp->timer)
        return error_errno(err, "cannot start the user-mode network", NULL, ENOMEM);
    loop_watch_set(slirp->watch, LOOP_READABLE);
    slirp->log_handler = g_log_set_handler(
        "Slirp", G_LOG_LEVEL_MASK | G_LOG_FLAG_FATAL | G_LOG_FLAG_RECURSION, on_log, slirp);
    if (!make_stack(slirp, config, err))
        return false;
    for (unsigned i = 0; i < config->forward_count; i++)
        if (!add_forward(slirp, &config->forwards[i], err))
            return false;
    if (config->http && !add_http(slirp, config->http, err))
        return false;
    ask_for_pass(slirp);
    return true;
}

bool slirp_open(const struct slirp_config *config, struct loop *loop, struct net_backend *out,
                struct error *err)
{
    struct slirp *slirp = calloc(1, sizeof(*slirp));
    if (!slirp)
        return error_errno(err, "cannot start the user-mode network", NULL, ENOMEM);
    fd_ignore_signals();
    slirp->loop = loop;
    slirp->log = config->log;
    slirp->epoll_fd = -1;
    slirp->queue_end = &slirp->queue;
    if (!slirp_setup(slirp, config, err)) {
        slirp_free(slirp);
        return false;
    }
    *out = (struct net_backend){
        .send = backend_send,
        .set_receiver = backend_set_receiver,
        .set_guest_features = backend_set_features,
        .resume = backend_resume,
        .link_up = backend_link_up,
        .mtu_bytes = FRAME_MTU_BYTES,
        .offers_offloads = true,
        .reset_connections = backend_reset_connections,
        .close = backend_close,
        .opaque = slirp,
    };
    return true;
}
