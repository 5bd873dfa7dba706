/* SPDX-License-Identifier: BSD-2-Clause
 * The terminal as a character back end; see tty.h. On the loop's thread, write() and accept()
 * aside. */
#include "host/tty.h"

#include "host/duplex.h"
#include "host/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

struct tty {
    struct tty_config config;
    struct duplex *duplex;
    int in_fd, out_fd; /* ours, which do not block */
    bool is_raw;
    bool in_escape; /* Ctrl-] was the last key */
    struct termios before, raw;
};

/* From the background, tcsetattr would stop the process; what it is to do is wanted all the same.
 */
static void set_mode(const struct tty *tty, const struct termios *mode)
{
    if (!tty->is_raw)
        return;
    int errno_before = errno;
    sigset_t block, before;
    sigemptyset(&block);
    sigaddset(&block, SIGTTOU);
    pthread_sigmask(SIG_BLOCK, &block, &before);
    while (tcsetattr(tty->in_fd, TCSANOW, mode) < 0 && errno == EINTR)
        ;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = errno_before;
}

void tty_restore(const struct tty *tty)
{
    set_mode(tty, &tty->before);
}

void tty_resume(const struct tty *tty)
{
    set_mode(tty, &tty->raw);
}

bool tty_is_raw(const struct tty *tty)
{
    return tty->is_raw;
}

/* Takes the escapes out of what was typed. */
static size_t filter(void *opaque, uint8_t *bytes, size_t size_bytes)
{
    struct tty *tty = opaque;
    if (!tty->is_raw || !tty->config.escape)
        return size_bytes;
    size_t kept = 0;
    for (size_t i = 0; i < size_bytes; i++) {
        if (!tty->in_escape && bytes[i] == TTY_ESCAPE) {
            tty->in_escape = true;
            continue;
        }
        if (tty->in_escape && bytes[i] != TTY_ESCAPE)
            tty->config.escape(tty->config.opaque, (char)bytes[i]);
        else
            bytes[kept++] = bytes[i];
        tty->in_escape = false;
    }
    return kept;
}

static size_t backend_write(void *opaque, const uint8_t *bytes, size_t size_bytes)
{
    const struct tty *tty = opaque;
    return duplex_write(tty->duplex, bytes, size_bytes);
}

static void backend_accept(void *opaque)
{
    const struct tty *tty = opaque;
    duplex_accept(tty->duplex);
}

static void backend_set_handler(void *opaque, const struct char_handler *handler)
{
    const struct tty *tty = opaque;
    duplex_set_handler(tty->duplex, handler);
}

static bool backend_is_connected(void *opaque)
{
    return true;
}

static void tty_free(struct tty *tty)
{
    if (tty->in_fd >= 0)
        close(tty->in_fd);
    if (tty->out_fd >= 0)
        close(tty->out_fd);
    free(tty);
}

static void backend_close(void *opaque)
{
    struct tty *tty = opaque;
    duplex_destroy(tty->duplex);
    tty_restore(tty);
    tty_free(tty);
}

static bool tty_start(struct tty *tty, struct loop *loop, struct error *err)
{
    tty->in_fd = fd_open_again(tty->config.in_fd, O_RDONLY);
    tty->out_fd = tty->in_fd < 0 ? -1 : fd_open_again(tty->config.out_fd, O_WRONLY);
    if (tty->out_fd < 0)
        return error_errno(err, "cannot use the terminal", NULL, errno);
    tty->is_raw =
        isatty(tty->in_fd) && isatty(tty->out_fd) && tcgetattr(tty->in_fd, &tty->before) == 0;
    /* An escape must work also when the guest hangs. */
    struct duplex_owner owner = {.filter = filter, .reads_always = tty->is_raw, .opaque = tty};
    tty->duplex = duplex_create(loop, &owner, err);
    if (!tty->duplex)
        return false;
    if (!duplex_attach(tty->duplex, tty->in_fd, tty->out_fd, err)) {
        duplex_destroy(tty->duplex);
        return false;
    }
    tty->raw = tty->before;
    cfmakeraw(&tty->raw);
    tty_resume(tty);
    return true;
}

struct tty *tty_open(const struct tty_config *config, struct loop *loop, struct char_backend *out,
                     struct error *err)
{
    struct tty *tty = calloc(1, sizeof(*tty));
    if (!tty) {
        error_errno(err, "cannot use the terminal", NULL, ENOMEM);
        return NULL;
    }
    fd_ignore_signals();
    tty->config = *config;
    tty->in_fd = tty->out_fd = -1;
    if (!tty_start(tty, loop, err)) {
        tty_free(tty);
        return NULL;
    }
    *out = (struct char_backend){backend_write,        backend_accept, backend_set_handler,
                                 backend_is_connected, backend_close,  tty};
    return tty;
}

void tty_print(struct tty *tty, const char *text)
{
    for (; *text; text += strcspn(text, "\n")) {
        size_t newlines = strspn(text, "\n");
        for (size_t i = 0; i < newlines; i++)
            duplex_write(tty->duplex, (const uint8_t *)"\r\n" + !tty->is_raw, 1 + tty->is_raw);
        text += newlines;
        duplex_write(tty->duplex, (const uint8_t *)text, strcspn(text, "\n"));
    }
}

bool tty_size(const struct tty *tty, unsigned *columns, unsigned *rows)
{
    struct winsize size;
    if (ioctl(tty->out_fd, TIOCGWINSZ, &size) < 0 || size.ws_col == 0 || size.ws_row == 0)
        return false;
    *columns = size.ws_col;
    *rows = size.ws_row;
    return true;
}
