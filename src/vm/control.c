/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The control socket: its peers, their lines, and the table of commands. A request is
 *
 *     {"command": NAME, …arguments…, "id": ANY}
 *
 * and has one answer, {"ok": {…}} or {"error": {"what", "where", "cause", "hint"}}, with the id of
 * the request if it had one; before it there may be lines {"progress": {"done", "total"}}.
 */
#include "vm/control.h"

#include "machine/debug.h"
#include "vm/typing.h"
#include "vm/vm.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { PEERS_MAX = 16, LINE_MAX_BYTES = 16384 };

struct peer {
    struct control *control;
    int fd;
    struct loop_watch *watch;
    size_t used_bytes;
    char line[LINE_MAX_BYTES];
};

struct control {
    struct vm *vm;
    char path[CONTROL_PATH_BYTES];
    int fd;
    bool is_bound;
    struct loop_watch *watch;
    struct peer *peers[PEERS_MAX];
};

/* ---- commands ---- */

struct call {
    struct vm *vm;
    struct peer *peer;
    const json_t *request;
    json_t *result; /* an object, to be filled */
};

struct command {
    const char *name;
    const char *help;
    bool (*run)(const struct call *call, struct error *err);
};

static void send_line(struct peer *peer, json_t *object);

static bool run_status(const struct call *call, struct error *err)
{
    struct machine *machine = vm_machine(call->vm);
    const struct machine_config *config = machine_configuration(machine);
    struct machine_stats stats;
    machine_stats(machine, &stats);
    json_t *values =
        json_pack("{s:s, s:I, s:s, s:i, s:I, s:I, s:i}", "state", machine_state(machine), "pid",
                  (json_int_t)getpid(), "engine", machine_engine_name(machine), "cpus",
                  config->vcpu_count, "memory", (json_int_t)config->memory_bytes, "uptime_ns",
                  (json_int_t)stats.uptime_ns, "reboots", stats.reboots);
    json_object_update(call->result, values);
    json_decref(values);
    return true;
}

static bool run_pause(const struct call *call, struct error *err)
{
    machine_pause(vm_machine(call->vm));
    return true;
}

static bool run_resume(const struct call *call, struct error *err)
{
    struct machine *machine = vm_machine(call->vm);
    if (machine_debug_holds(machine))
        return error_set(err, "cannot resume the machine", NULL, "a debugger has stopped it");
    machine_resume(machine);
    return true;
}

static bool run_reset(const struct call *call, struct error *err)
{
    vm_reset(call->vm);
    return true;
}

static bool run_stop(const struct call *call, struct error *err)
{
    if (json_is_true(json_object_get(call->request, "now")))
        vm_quit(call->vm);
    else
        vm_stop(call->vm);
    return true;
}

static void tell_progress(void *opaque, uint64_t done_bytes, uint64_t total_bytes)
{
    struct peer *peer = opaque;
    send_line(peer, json_pack("{s:{s:I, s:I}}", "progress", "done", (json_int_t)done_bytes, "total",
                              (json_int_t)total_bytes));
}

/* A relative name would mean the machine's folder, not that of whoever asks. */
static bool run_save(const struct call *call, struct error *err)
{
    const char *file = json_string_value(json_object_get(call->request, "file"));
    bool stops = json_is_true(json_object_get(call->request, "stop"));
    if (!file || file[0] != '/')
        return error_usage(err, "save", file, "it takes the absolute name of a \"file\"");
    return vm_save(call->vm, file, stops, tell_progress, call->peer, err);
}

static bool run_screenshot(const struct call *call, struct error *err)
{
    const char *file = json_string_value(json_object_get(call->request, "file"));
    if (!file || file[0] != '/')
        return error_usage(err, "screenshot", file, "it takes the absolute name of a \"file\"");
    return machine_screenshot(vm_machine(call->vm), file, err);
}

static void tell_left(const struct call *call)
{
    json_object_set_new(call->result, "left_ms", json_integer(typing_left_ms(vm_typing(call->vm))));
}

static bool run_type(const struct call *call, struct error *err)
{
    const char *text = json_string_value(json_object_get(call->request, "text"));
    if (!text)
        return error_usage(err, "type", NULL, "it takes a \"text\"");
    bool done = typing_text(vm_typing(call->vm), text, err);
    tell_left(call);
    return done;
}

static bool run_key(const struct call *call, struct error *err)
{
    const char *chord = json_string_value(json_object_get(call->request, "key"));
    if (!chord)
        return error_usage(err, "key", NULL, "it takes a \"key\", as ctrl-alt-f2");
    bool done = typing_chord(vm_typing(call->vm), chord, err);
    tell_left(call);
    return done;
}

/* Of a file the name is absolute, as for save; null ejects. */
static bool run_media(const struct call *call, struct error *err)
{
    const char *drive = json_string_value(json_object_get(call->request, "drive"));
    const json_t *file = json_object_get(call->request, "file");
    bool is_forced = json_is_true(json_object_get(call->request, "force"));
    if (!json_is_null(file) && (!json_is_string(file) || json_string_value(file)[0] != '/'))
        return error_usage(err, "media", json_string_value(file),
                           "it takes the absolute name of a \"file\", or null to eject");
    return machine_change_medium(vm_machine(call->vm), drive, json_string_value(file), is_forced,
                                 err);
}

static bool run_balloon(const struct call *call, struct error *err)
{
    static const char *const names[MACHINE_MEMORIES] = {
        [MACHINE_MEMORY_ACTUAL] = "memory",
        [MACHINE_MEMORY_FREE] = "free",
        [MACHINE_MEMORY_AVAILABLE] = "available",
        [MACHINE_MEMORY_CACHE] = "cache",
    };
    const json_t *size = json_object_get(call->request, "size");
    int64_t values[MACHINE_MEMORIES];
    if (json_is_integer(size) && json_integer_value(size) >= 0)
        return machine_set_balloon(vm_machine(call->vm), (uint64_t)json_integer_value(size), err);
    if (size)
        return error_usage(err, "balloon", NULL, "its \"size\" is a number of bytes");
    if (!machine_get_balloon(vm_machine(call->vm), values, err))
        return false;
    for (unsigned i = 0; i < MACHINE_MEMORIES; i++)
        if (values[i] >= 0)
            json_object_set_new(call->result, names[i], json_integer(values[i]));
    return true;
}

static bool run_help(const struct call *call, struct error *err);

static const struct command commands[] = {
    {"help", "lists the commands", run_help},
    {"status", "tells about the machine", run_status},
    {"pause", "stops processors and clocks", run_pause},
    {"resume", "lets them go on", run_resume},
    {"reset", "resets the machine", run_reset},
    {"stop", "presses the power button; with \"now\": true ends the machine at once", run_stop},
    {"save", "saves the machine to \"file\"; with \"stop\": true ends it then", run_save},
    {"media", "puts \"file\" into the CD-ROM drive \"drive\"; null ejects what is in it",
     run_media},
    {"balloon", "has the guest use \"size\" bytes of its memory; without, tells what it uses",
     run_balloon},
    {"screenshot", "writes what the screen shows to \"file\", a PNG", run_screenshot},
    {"type", "types \"text\"; tells in how many \"left_ms\" all is typed", run_type},
    {"key", "presses a \"key\", or several at once as ctrl-alt-f2", run_key},
};
enum { COMMANDS = sizeof(commands) / sizeof(commands[0]) };

static bool run_help(const struct call *call, struct error *err)
{
    for (unsigned i = 0; i < COMMANDS; i++)
        json_object_set_new(call->result, commands[i].name, json_string(commands[i].help));
    return true;
}

static bool run_command(const struct call *call, struct error *err)
{
    const char *name = json_string_value(json_object_get(call->request, "command"));
    if (!name)
        return error_usage(err, "control request", NULL, "it names no \"command\"");
    for (unsigned i = 0; i < COMMANDS; i++)
        if (!strcmp(commands[i].name, name))
            return commands[i].run(call, err);
    error_usage(err, "control request", name, "there is no such command");
    return error_hint(err, "{\"command\": \"help\"} lists them");
}

/* ---- peers ---- */

static void close_peer(struct peer *peer)
{
    for (unsigned i = 0; i < PEERS_MAX; i++)
        if (peer->control->peers[i] == peer)
            peer->control->peers[i] = NULL;
    if (peer->watch)
        loop_watch_close(peer->watch);
    close(peer->fd);
    free(peer);
}

/* Takes the object over. A peer that does not read what it asked for loses the rest: answers are
 * far smaller than a socket's buffer. */
static void send_line(struct peer *peer, json_t *object)
{
    char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
    json_decref(object);
    if (!text)
        return;
    size_t length = strlen(text);
    text[length] = '\n'; /* in place of the zero */
    ssize_t sent = send(peer->fd, text, length + 1, MSG_NOSIGNAL | MSG_DONTWAIT);
    (void)sent;
    free(text);
}

static json_t *error_object(const struct error *err)
{
    return json_pack("{s:s, s:s, s:s, s:s}", "what", err->what, "where", err->where, "cause",
                     err->cause, "hint", err->hint);
}

static void answer(struct peer *peer, const char *line, size_t size_bytes)
{
    struct error err = {0};
    json_error_t json_error;
    json_t *request = json_loadb(line, size_bytes, JSON_REJECT_DUPLICATES, &json_error);
    json_t *reply = json_object(), *result = json_object();
    const struct call call = {peer->control->vm, peer, request, result};
    bool done = false;
    if (json_is_object(request))
        done = run_command(&call, &err);
    else
        error_usage(&err, "control request", NULL, "it is no JSON object");
    if (json_object_get(request, "id"))
        json_object_set(reply, "id", json_object_get(request, "id"));
    if (done)
        json_object_set(reply, "ok", result);
    else
        json_object_set_new(reply, "error", error_object(&err));
    json_decref(result);
    json_decref(request);
    send_line(peer, reply);
}

/* Answers the whole lines and keeps the rest. */
static void take_lines(struct peer *peer)
{
    char *line = peer->line, *end;
    size_t left = peer->used_bytes;
    while ((end = memchr(line, '\n', left))) {
        if (end > line)
            answer(peer, line, (size_t)(end - line));
        left -= (size_t)(end + 1 - line);
        line = end + 1;
    }
    memmove(peer->line, line, left);
    peer->used_bytes = left;
}

static void on_peer(void *opaque, unsigned events)
{
    struct peer *peer = opaque;
    ssize_t got = recv(peer->fd, peer->line + peer->used_bytes,
                       sizeof(peer->line) - peer->used_bytes, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got > 0) {
        peer->used_bytes += (size_t)got;
        take_lines(peer);
    }
    /* Gone, or a line that no request needs. */
    if (got <= 0 || peer->used_bytes == sizeof(peer->line))
        close_peer(peer);
}

/* The socket's mode keeps others out; where the folder was shared it could have been replaced. */
static bool is_ours(int fd)
{
    struct ucred who;
    socklen_t size = sizeof(who);
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &size) == 0 &&
           (who.uid == geteuid() || who.uid == 0);
}

static void on_connection(void *opaque, unsigned events)
{
    struct control *control = opaque;
    int fd = accept4(control->fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return;
    unsigned free_place = 0;
    while (free_place < PEERS_MAX && control->peers[free_place])
        free_place++;
    struct peer *peer = free_place < PEERS_MAX && is_ours(fd) ? calloc(1, sizeof(*peer)) : NULL;
    if (!peer) {
        close(fd);
        return;
    }
    peer->control = control;
    peer->fd = fd;
    control->peers[free_place] = peer;
    peer->watch = loop_watch_open(vm_loop(control->vm), fd, on_peer, peer, NULL);
    if (peer->watch)
        loop_watch_set(peer->watch, LOOP_READABLE);
    else
        close_peer(peer);
}

/* ---- the socket ---- */

static const char what_open[] = "cannot make the control socket";

/* A socket that nobody listens on was left behind by a machine that was killed. */
static bool clear_path(const struct sockaddr_un *address, struct error *err)
{
    struct stat status;
    if (lstat(address->sun_path, &status) != 0)
        return true; /* bind() tells what else is wrong */
    if (!S_ISSOCK(status.st_mode)) {
        error_set(err, what_open, address->sun_path, "there is a file of that name");
        return error_hint(err, "choose another path, or remove the file");
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool is_alive =
        fd >= 0 &&
        (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 || errno == EAGAIN);
    if (fd >= 0)
        close(fd);
    if (is_alive) {
        error_set(err, what_open, address->sun_path, "another machine has it");
        return error_hint(err, "`skep status` with this name tells about that machine");
    }
    unlink(address->sun_path);
    return true;
}

static bool listen_at(struct control *control, struct error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, control->path);
    if (!clear_path(&address, err))
        return false;
    control->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    /* On Linux the mode of the socket, set before, is that of its name: no moment with another. */
    if (control->fd < 0 || fchmod(control->fd, 0600) != 0 ||
        bind(control->fd, (const struct sockaddr *)&address, sizeof(address)) != 0) {
        bool is_missing = errno == ENOENT || errno == ENOTDIR;
        error_errno(err, what_open, control->path, errno);
        return error_hint(err, is_missing ? "make its folder first" : "choose another folder");
    }
    control->is_bound = true;
    if (listen(control->fd, SOMAXCONN) != 0)
        return error_errno(err, what_open, control->path, errno);
    control->watch =
        loop_watch_open(vm_loop(control->vm), control->fd, on_connection, control, err);
    if (!control->watch)
        return false;
    loop_watch_set(control->watch, LOOP_READABLE);
    return true;
}

struct control *control_open(struct vm *vm, const char *target, struct error *err)
{
    struct control *control = calloc(1, sizeof(*control));
    if (!control) {
        error_errno(err, what_open, target, ENOMEM);
        return NULL;
    }
    control->vm = vm;
    control->fd = -1;
    if (control_path(target, true, control->path, err) && listen_at(control, err))
        return control;
    control_close(control);
    return NULL;
}

void control_close(struct control *control)
{
    if (!control)
        return;
    for (unsigned i = 0; i < PEERS_MAX; i++)
        if (control->peers[i])
            close_peer(control->peers[i]);
    if (control->watch)
        loop_watch_close(control->watch);
    if (control->fd >= 0)
        close(control->fd);
    if (control->is_bound)
        unlink(control->path);
    free(control);
}
