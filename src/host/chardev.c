/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Back ends for serial ports and consoles; see chardev.h. Each is a duplex with descriptors: fixed
 * ones (file, pipe), a pty that counts as connected while its other side is open, or a client that
 * a listening socket accepted. On the loop's thread, write() and accept() aside.
 */
#include "host/chardev.h"

#include "host/duplex.h"
#include "host/fd.h"
#include "host/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

enum { PATH_BYTES = 256, PTY_LOOK_MS = 200 };

static const char attempt[] = "cannot open character device";

struct chardev {
    struct loop *loop;
    struct duplex *duplex;
    int in_fd, out_fd; /* in use; may be the same */
    atomic_bool is_connected;
    char path[PATH_BYTES]; /* for chardev_path(); may be empty */

    struct tty *tty; /* stdio: it does all */
    struct char_backend tty_backend;

    int pty_fd;              /* of pty: the master, always open; else -1 */
    struct loop_timer *look; /* of pty: whether someone has opened it */

    struct listener listener; /* of sockets; fd -1 otherwise */
    struct loop_watch *listen_watch;
};

/* ---- common ---- */

static size_t backend_write(void *opaque, const uint8_t *bytes, size_t size_bytes)
{
    const struct chardev *chardev = opaque;
    return duplex_write(chardev->duplex, bytes, size_bytes);
}

static void backend_accept(void *opaque)
{
    const struct chardev *chardev = opaque;
    duplex_accept(chardev->duplex);
}

static void backend_set_handler(void *opaque, const struct char_handler *handler)
{
    const struct chardev *chardev = opaque;
    duplex_set_handler(chardev->duplex, handler);
}

static bool backend_is_connected(void *opaque)
{
    struct chardev *chardev = opaque;
    return atomic_load(&chardev->is_connected);
}

static void set_connected(struct chardev *chardev, bool is_connected)
{
    if (atomic_exchange(&chardev->is_connected, is_connected) != is_connected)
        duplex_tell_connected(chardev->duplex, is_connected);
}

static void close_fds(struct chardev *chardev)
{
    if (chardev->in_fd >= 0 && chardev->in_fd != chardev->pty_fd)
        close(chardev->in_fd);
    if (chardev->out_fd >= 0 && chardev->out_fd != chardev->in_fd)
        close(chardev->out_fd);
    chardev->in_fd = chardev->out_fd = -1;
}

static void chardev_free(struct chardev *chardev)
{
    if (chardev->duplex)
        duplex_destroy(chardev->duplex);
    close_fds(chardev);
    loop_timer_close(chardev->look);
    if (chardev->pty_fd >= 0)
        close(chardev->pty_fd);
    loop_watch_close(chardev->listen_watch);
    listener_close(&chardev->listener);
    free(chardev);
}

static void backend_close(void *opaque)
{
    chardev_free(opaque);
}

static bool attach(struct chardev *chardev, int in_fd, int out_fd, struct error *err)
{
    chardev->in_fd = in_fd;
    chardev->out_fd = out_fd;
    return duplex_attach(chardev->duplex, in_fd, out_fd, err);
}

/* ---- file and pipe ---- */

static bool open_file(struct chardev *chardev, const char *argument, struct error *err)
{
    static const char suffix[] = ",append";
    size_t length = strlen(argument), cut = sizeof(suffix) - 1;
    bool is_append = length > cut && strcmp(argument + length - cut, suffix) == 0;
    char path[PATH_BYTES];
    snprintf(path, sizeof(path), "%.*s", (int)(is_append ? length - cut : length), argument);
    int fd = open(
        path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOCTTY | (is_append ? O_APPEND : O_TRUNC), 0666);
    if (fd < 0) {
        int error = errno;
        error_errno(err, attempt, path, error);
        if (error == ENOENT)
            error_hint(err, "make its folder first");
        else if (error == EISDIR)
            error_hint(err, "give the path of a file");
        return false;
    }
    chardev->is_connected = true;
    return attach(chardev, -1, fd, err);
}

/* For reading and writing at once: then opening waits for nobody, and a peer that goes away is no
 * end. -1 and errno when it is not a pipe. */
static int open_fifo(const char *path)
{
    int fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    struct stat status;
    if (fd >= 0 && (fstat(fd, &status) < 0 || !S_ISFIFO(status.st_mode))) {
        close(fd);
        errno = ENOTSUP;
        return -1;
    }
    return fd;
}

static bool open_pipe(struct chardev *chardev, const char *argument, struct error *err)
{
    char in_path[PATH_BYTES + 8], out_path[PATH_BYTES + 8];
    snprintf(in_path, sizeof(in_path), "%.240s.in", argument);
    snprintf(out_path, sizeof(out_path), "%.240s.out", argument);
    int in_fd = open_fifo(in_path), out_fd = open_fifo(out_path);
    if (in_fd < 0 || out_fd < 0) {
        if (in_fd >= 0)
            close(in_fd);
        if (out_fd >= 0)
            close(out_fd);
        in_fd = out_fd = open_fifo(argument);
    }
    if (in_fd < 0) {
        int error = errno;
        error_errno(err, attempt, argument, error);
        if (error == ENOTSUP)
            error_set(err, attempt, argument, "it is not a named pipe");
        return error_hint(err, "make the pipes with: mkfifo %.90s.in %.90s.out", argument,
                          argument);
    }
    chardev->is_connected = true;
    return attach(chardev, in_fd, out_fd, err);
}

/* ---- terminals ---- */

static bool open_tty(struct chardev *chardev, const char *argument, struct error *err)
{
    struct termios mode;
    int fd = open(argument, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    bool works = fd >= 0 && tcgetattr(fd, &mode) == 0;
    if (works) {
        cfmakeraw(&mode);
        works = tcsetattr(fd, TCSANOW, &mode) == 0;
    }
    if (!works) {
        if (errno == ENOTTY) {
            error_set(err, attempt, argument, "it is not a terminal");
            error_hint(err, "name a terminal or serial line, as /dev/ttyS0");
        } else {
            error_errno(err, attempt, argument, errno);
        }
        if (fd >= 0)
            close(fd);
        return false;
    }
    chardev->is_connected = true;
    return attach(chardev, fd, fd, err);
}

/* The kernel tells of a pty whose other side is not open by POLLHUP only, and all the time: so it
 * is watched while it is open, and looked at now and then while it is not. */
static void pty_look(void *opaque)
{
    struct chardev *chardev = opaque;
    struct pollfd pollfd = {.fd = chardev->pty_fd};
    if (poll(&pollfd, 1, 0) == 0 && attach(chardev, chardev->pty_fd, chardev->pty_fd, NULL))
        set_connected(chardev, true);
    else
        loop_timer_start(chardev->look, PTY_LOOK_MS);
}

static bool open_pty(struct chardev *chardev, const char *argument, struct error *err)
{
    int slave;
    struct termios mode;
    if (openpty(&chardev->pty_fd, &slave, NULL, NULL, NULL) < 0) {
        chardev->pty_fd = -1;
        return error_errno(err, attempt, "pty", errno);
    }
    fcntl(chardev->pty_fd, F_SETFD, FD_CLOEXEC);
    bool works = ttyname_r(slave, chardev->path, sizeof(chardev->path)) == 0 &&
                 tcgetattr(slave, &mode) == 0 && fd_set_nonblocking(chardev->pty_fd);
    if (works) {
        cfmakeraw(&mode);
        works = tcsetattr(slave, TCSANOW, &mode) == 0;
    }
    int error = errno;
    close(slave);
    if (!works)
        return error_errno(err, attempt, "pty", error);
    chardev->look = loop_timer_open(chardev->loop, pty_look, chardev);
    if (!chardev->look)
        return error_errno(err, attempt, "pty", ENOMEM);
    loop_timer_start(chardev->look, 0);
    return true;
}

/* ---- sockets ---- */

/* The next client waits in the kernel until this one is gone. */
static void on_client(void *opaque, unsigned events)
{
    struct chardev *chardev = opaque;
    int fd = accept4(chardev->listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    if (!attach(chardev, fd, fd, NULL)) {
        close_fds(chardev);
        return;
    }
    loop_watch_set(chardev->listen_watch, 0);
    set_connected(chardev, true);
}

static bool watch_listener(struct chardev *chardev, struct error *err)
{
    chardev->listen_watch =
        loop_watch_open(chardev->loop, chardev->listener.fd, on_client, chardev, err);
    if (!chardev->listen_watch)
        return false;
    loop_watch_set(chardev->listen_watch, LOOP_READABLE);
    return true;
}

static bool open_unix(struct chardev *chardev, const char *argument, struct error *err)
{
    snprintf(chardev->path, sizeof(chardev->path), "%s", argument);
    return listener_open_unix(&chardev->listener, argument, err) && watch_listener(chardev, err);
}

static bool open_tcp(struct chardev *chardev, const char *argument, struct error *err)
{
    return listener_open_tcp(&chardev->listener, argument, chardev->path, sizeof(chardev->path),
                             err) &&
           watch_listener(chardev, err);
}

/* ---- the end of a peer ---- */

/* Of a file or pipe only a failed output is heard here: from then on it is dropped. */
static void on_ended(void *opaque, bool is_input)
{
    struct chardev *chardev = opaque;
    if (chardev->pty_fd < 0 && chardev->listener.fd < 0)
        return;
    duplex_detach(chardev->duplex);
    close_fds(chardev);
    set_connected(chardev, false);
    if (chardev->pty_fd >= 0)
        loop_timer_start(chardev->look, PTY_LOOK_MS);
    else
        loop_watch_set(chardev->listen_watch, LOOP_READABLE);
}

/* ---- by name ---- */

static bool open_null(struct chardev *chardev, const char *argument, struct error *err)
{
    chardev->is_connected = true;
    return true;
}

static const struct kind {
    const char *name;
    bool has_argument;
    bool (*open)(struct chardev *chardev, const char *argument, struct error *err);
} kinds[] = {
    {"null", false, open_null}, {"pty", false, open_pty},  {"tty", true, open_tty},
    {"file", true, open_file},  {"pipe", true, open_pipe}, {"unix", true, open_unix},
    {"tcp", true, open_tcp},
};

static const struct kind *find_kind(const char *spec, const char **argument, struct error *err)
{
    size_t length = strcspn(spec, ":");
    *argument = spec[length] ? spec + length + 1 : spec + length;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        const struct kind *kind = &kinds[i];
        if (strlen(kind->name) != length || strncmp(kind->name, spec, length) != 0)
            continue;
        if (kind->has_argument == (**argument != '\0') && strlen(*argument) < PATH_BYTES)
            return kind;
        error_usage(err, attempt, spec, "\"%s\" %s", kind->name,
                    !kind->has_argument ? "takes nothing after it"
                    : **argument        ? "has too long a path"
                                        : "needs a path or port after \":\"");
        return NULL;
    }
    error_usage(err, attempt, spec, "there is no such kind");
    error_hint(err, "use stdio, null, pty, tty:PATH, file:PATH[,append], pipe:PATH, unix:PATH or "
                    "tcp:[ADDR:]PORT");
    return NULL;
}

static bool open_stdio(struct chardev *chardev, const struct chardev_config *config,
                       struct char_backend *out, struct error *err);

struct chardev *chardev_open(const struct chardev_config *config, struct loop *loop,
                             struct char_backend *out, struct error *err)
{
    const char *argument = NULL;
    const struct kind *kind = NULL;
    bool is_stdio = strcmp(config->spec, "stdio") == 0;
    if (!is_stdio && !(kind = find_kind(config->spec, &argument, err)))
        return NULL;
    struct chardev *chardev = calloc(1, sizeof(*chardev));
    if (!chardev) {
        error_errno(err, attempt, config->spec, ENOMEM);
        return NULL;
    }
    fd_ignore_signals();
    chardev->loop = loop;
    chardev->in_fd = chardev->out_fd = chardev->pty_fd = chardev->listener.fd = -1;
    *out = (struct char_backend){backend_write,        backend_accept, backend_set_handler,
                                 backend_is_connected, backend_close,  chardev};
    bool works = is_stdio && open_stdio(chardev, config, out, err);
    if (!is_stdio) {
        struct duplex_owner owner = {.ended = on_ended, .opaque = chardev};
        chardev->duplex = duplex_create(loop, &owner, err);
        works = chardev->duplex && kind->open(chardev, argument, err);
    }
    if (!works) {
        chardev_free(chardev);
        return NULL;
    }
    return chardev;
}

/* ---- stdio: all goes to the terminal's own back end ---- */

static size_t stdio_write(void *opaque, const uint8_t *bytes, size_t size_bytes)
{
    const struct chardev *chardev = opaque;
    return chardev->tty_backend.write(chardev->tty_backend.opaque, bytes, size_bytes);
}

static void stdio_accept(void *opaque)
{
    const struct chardev *chardev = opaque;
    chardev->tty_backend.accept(chardev->tty_backend.opaque);
}

static void stdio_set_handler(void *opaque, const struct char_handler *handler)
{
    const struct chardev *chardev = opaque;
    chardev->tty_backend.set_handler(chardev->tty_backend.opaque, handler);
}

static void stdio_close(void *opaque)
{
    struct chardev *chardev = opaque;
    chardev->tty_backend.close(chardev->tty_backend.opaque);
    chardev_free(chardev);
}

static bool open_stdio(struct chardev *chardev, const struct chardev_config *config,
                       struct char_backend *out, struct error *err)
{
    struct tty_config tty = {STDIN_FILENO, STDOUT_FILENO, config->escape, config->escape_opaque};
    chardev->tty = tty_open(&tty, chardev->loop, &chardev->tty_backend, err);
    chardev->is_connected = true;
    *out = (struct char_backend){stdio_write,          stdio_accept, stdio_set_handler,
                                 backend_is_connected, stdio_close,  chardev};
    return chardev->tty != NULL;
}

const char *chardev_path(const struct chardev *chardev)
{
    return chardev->path[0] ? chardev->path : NULL;
}

struct tty *chardev_tty(const struct chardev *chardev)
{
    return chardev->tty;
}
