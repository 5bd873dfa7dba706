/* SPDX-License-Identifier: BSD-2-Clause
 * Sockets of the GDB server, and the machine as its target: see server.h. */
#include "vm/gdb/server.h"

#include "host/listener.h"
#include "machine/debug.h"
#include "vm/gdb/packet.h"
#include "vm/gdb/session.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Input is worked on only while no output waits, so output is bounded by the answer to one byte of
 * input and the stop of a guest: a few frames. */
enum { INPUT_BYTES = 4096, OUTPUT_BYTES = 4 * GDB_FRAME_BYTES, ADDRESS_BYTES = 128 };

struct gdb_server {
    struct machine *machine;
    struct loop *loop;
    const struct log *log;
    enum gdb_arch arch;
    unsigned vcpu_count;
    bool has_run; /* so that the guest is to run on without a debugger */
    struct listener listener;
    struct loop_watch *listener_watch;
    char address[ADDRESS_BYTES];

    struct gdb_session *session; /* NULL: there is no debugger */
    int fd;
    struct loop_watch *watch;
    uint8_t input[INPUT_BYTES];
    size_t input_start, input_end;
    char output[OUTPUT_BYTES];
    size_t output_start, output_end;
    bool is_over;   /* close when all is sent */
    bool is_broken; /* close now */
};

/* ---- the machine as a target ---- */

static void tell(struct gdb_server *server, const struct error *err)
{
    log_write(server->log, LOG_WARNING, "gdb", "%s%s%s: %s", err->what, err->where[0] ? " " : "",
              err->where, err->cause);
}

static bool target_get_state(void *opaque, unsigned vcpu, struct x86_state *state)
{
    struct gdb_server *server = opaque;
    struct error err = {0};
    if (machine_debug_get_state(server->machine, vcpu, state, &err))
        return true;
    tell(server, &err);
    return false;
}

static bool target_set_state(void *opaque, unsigned vcpu, const struct x86_state *state)
{
    struct gdb_server *server = opaque;
    struct error err = {0};
    if (machine_debug_set_state(server->machine, vcpu, state, &err))
        return true;
    tell(server, &err);
    return false;
}

static size_t target_read(void *opaque, const struct x86_state *state, uint64_t address,
                          void *buffer, size_t size_bytes)
{
    struct gdb_server *server = opaque;
    return machine_debug_read(server->machine, state, address, buffer, size_bytes);
}

static size_t target_write(void *opaque, const struct x86_state *state, uint64_t address,
                           const void *buffer, size_t size_bytes)
{
    struct gdb_server *server = opaque;
    return machine_debug_write(server->machine, state, address, buffer, size_bytes);
}

static bool target_insert(void *opaque, const struct breakpoint *breakpoint, unsigned vcpu)
{
    struct gdb_server *server = opaque;
    struct error err = {0};
    if (machine_debug_insert(server->machine, breakpoint, vcpu, &err))
        return true;
    tell(server, &err);
    return false;
}

static void target_remove(void *opaque, const struct breakpoint *breakpoint)
{
    struct gdb_server *server = opaque;
    machine_debug_remove(server->machine, breakpoint);
}

static void target_stop(void *opaque)
{
    struct gdb_server *server = opaque;
    machine_debug_stop(server->machine);
}

static bool target_resume(void *opaque, const enum machine_debug_action *actions,
                          bool takes_interrupts)
{
    struct gdb_server *server = opaque;
    struct error err = {0};
    server->has_run = true;
    if (machine_debug_resume(server->machine, actions, takes_interrupts, &err))
        return true;
    tell(server, &err);
    return false;
}

static void target_detach(void *opaque)
{
    struct gdb_server *server = opaque;
    server->has_run = true;
}

static void target_kill(void *opaque)
{
    struct gdb_server *server = opaque;
    machine_quit(server->machine);
}

static void target_reset(void *opaque)
{
    struct gdb_server *server = opaque;
    machine_reset(server->machine);
}

static size_t target_info(void *opaque, char *text, size_t size_bytes)
{
    struct gdb_server *server = opaque;
    return machine_info(server->machine, text, size_bytes);
}

/* ---- the connection ---- */

static void set_watch(struct gdb_server *server)
{
    bool has_output = server->output_start < server->output_end;
    loop_watch_set(server->watch, has_output ? LOOP_WRITABLE : LOOP_READABLE);
}

static void flush(struct gdb_server *server)
{
    while (server->output_start < server->output_end && !server->is_broken) {
        ssize_t n = send(server->fd, server->output + server->output_start,
                         server->output_end - server->output_start, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0)
            server->output_start += (size_t)n;
        else if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        else if (n == 0 || errno != EINTR)
            server->is_broken = true;
    }
    server->output_start = server->output_end = 0;
}

static void send_bytes(void *opaque, const char *bytes, size_t size_bytes)
{
    struct gdb_server *server = opaque;
    if (size_bytes > OUTPUT_BYTES - server->output_end) {
        server->is_broken = true; /* a debugger that reads nothing */
        return;
    }
    memcpy(server->output + server->output_end, bytes, size_bytes);
    server->output_end += size_bytes;
    flush(server);
}

/* The debugger is gone. */
static void disconnect(struct gdb_server *server)
{
    loop_watch_close(server->watch);
    close(server->fd);
    gdb_session_destroy(server->session);
    server->session = NULL;
    server->fd = -1;
    machine_pause(server->machine);
    machine_debug_detach(server->machine);
    if (server->has_run)
        machine_resume(server->machine);
}

static void disconnect_if_done(struct gdb_server *server)
{
    if (server->is_broken || (server->is_over && server->output_start == server->output_end))
        disconnect(server);
    else
        set_watch(server);
}

static void read_some(struct gdb_server *server)
{
    if (server->input_start < server->input_end)
        return;
    ssize_t n = recv(server->fd, server->input, sizeof(server->input), MSG_DONTWAIT);
    server->input_start = server->input_end = 0;
    if (n > 0)
        server->input_end = (size_t)n;
    else if (n == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR))
        server->is_broken = true;
}

static void ready(void *opaque, unsigned events)
{
    struct gdb_server *server = opaque;
    flush(server);
    if (server->output_start == server->output_end && !server->is_over && !server->is_broken)
        read_some(server);
    while (server->input_start < server->input_end && !server->is_over && !server->is_broken &&
           server->output_start == server->output_end)
        server->is_over = !gdb_session_input(server->session, server->input[server->input_start++]);
    disconnect_if_done(server);
}

static void stopped(void *opaque, unsigned vcpu, const struct debug_stop *stop)
{
    struct gdb_server *server = opaque;
    gdb_session_stopped(server->session, vcpu, stop);
    disconnect_if_done(server);
}

static bool open_session(struct gdb_server *server, struct error *err)
{
    const struct gdb_target target = {
        .opaque = server,
        .vcpu_count = server->vcpu_count,
        .arch = server->arch,
        .get_state = target_get_state,
        .set_state = target_set_state,
        .read = target_read,
        .write = target_write,
        .insert = target_insert,
        .remove = target_remove,
        .stop = target_stop,
        .resume = target_resume,
        .detach = target_detach,
        .kill = target_kill,
        .reset = target_reset,
        .info = target_info,
    };
    const struct machine_debugger debugger = {stopped, server};
    server->session = gdb_session_create(&target, send_bytes, server);
    if (!server->session)
        return error_errno(err, "cannot debug the guest", NULL, ENOMEM);
    machine_pause(server->machine);
    if (machine_debug_attach(server->machine, &debugger, err))
        return true;
    if (server->has_run)
        machine_resume(server->machine);
    gdb_session_destroy(server->session);
    server->session = NULL;
    return false;
}

static void take(struct gdb_server *server, int fd)
{
    struct error err = {0};
    int yes = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes)); /* fails on a unix socket */
    server->watch = loop_watch_open(server->loop, fd, ready, server, &err);
    if (!server->watch || !open_session(server, &err)) {
        tell(server, &err);
        if (server->watch)
            loop_watch_close(server->watch);
        close(fd);
        return;
    }
    server->fd = fd;
    server->input_start = server->input_end = 0;
    server->output_start = server->output_end = 0;
    server->is_over = server->is_broken = false;
    set_watch(server);
    log_write(server->log, LOG_INFO, "gdb", "a debugger has come; the guest stands still");
}

/* Who comes while there is a debugger is sent away. */
static void arrived(void *opaque, unsigned events)
{
    struct gdb_server *server = opaque;
    int fd = accept4(server->listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    if (server->session)
        close(fd);
    else
        take(server, fd);
}

/* ---- life ---- */

static bool listen_at(struct gdb_server *server, const char *where, struct error *err)
{
    if (!strncmp(where, "unix:", 5)) {
        snprintf(server->address, sizeof(server->address), "%s", where + 5);
        return listener_open_unix(&server->listener, where + 5, err);
    }
    return listener_open_tcp(&server->listener, where, server->address, sizeof(server->address),
                             err);
}

struct gdb_server *gdb_server_create(const char *where, enum gdb_arch arch, bool has_run,
                                     struct machine *machine, struct loop *loop,
                                     const struct log *log, struct error *err)
{
    struct gdb_server *server = calloc(1, sizeof(*server));
    if (!server) {
        error_errno(err, "cannot make the GDB server", NULL, ENOMEM);
        return NULL;
    }
    server->machine = machine;
    server->loop = loop;
    server->log = log;
    server->arch = arch;
    server->has_run = has_run;
    server->vcpu_count = machine_vcpu_count(machine);
    server->fd = -1;
    server->listener.fd = -1;
    if (listen_at(server, where, err))
        server->listener_watch = loop_watch_open(loop, server->listener.fd, arrived, server, err);
    if (!server->listener_watch) {
        gdb_server_destroy(server);
        return NULL;
    }
    loop_watch_set(server->listener_watch, LOOP_READABLE);
    return server;
}

void gdb_server_ended(struct gdb_server *server, uint8_t code)
{
    if (!server || !server->session || server->is_over)
        return;
    gdb_session_ended(server->session, code);
    server->is_over = true;
}

void gdb_server_destroy(struct gdb_server *server)
{
    if (!server)
        return;
    if (server->session) {
        server->has_run = false;
        disconnect(server);
    }
    if (server->listener_watch)
        loop_watch_close(server->listener_watch);
    listener_close(&server->listener);
    free(server);
}

const char *gdb_server_address(const struct gdb_server *server)
{
    return server->address;
}
