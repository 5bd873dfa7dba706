/* SPDX-License-Identifier: BSD-2-Clause
 * Listening sockets; see listener.h. */
#include "host/listener.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static const char attempt[] = "cannot listen on";

/* True when there is a socket at the address that nobody listens on any more. */
static bool is_left_over(const struct sockaddr_un *address)
{
    struct stat status;
    if (lstat(address->sun_path, &status) < 0 || !S_ISSOCK(status.st_mode))
        return false;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return false;
    bool refused = connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 &&
                   errno == ECONNREFUSED;
    close(fd);
    return refused;
}

static bool bind_unix(int fd, const struct sockaddr_un *address)
{
    fchmod(fd, 0600); /* before bind, so that there is no moment at which others may connect */
    const struct sockaddr *generic = (const struct sockaddr *)address;
    if (bind(fd, generic, sizeof(*address)) == 0)
        return true;
    if (errno != EADDRINUSE)
        return false;
    if (!is_left_over(address)) {
        errno = EADDRINUSE;
        return false;
    }
    return unlink(address->sun_path) == 0 && bind(fd, generic, sizeof(*address)) == 0;
}

bool listener_open_unix(struct listener *listener, const char *path, struct error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    *listener = (struct listener){.fd = -1};
    if (!*path) {
        error_usage(err, attempt, "unix:", "there is no path");
        return error_hint(err, "write it like unix:/tmp/socket");
    }
    if (strlen(path) >= sizeof(address.sun_path)) {
        error_usage(err, attempt, path, "the path of a socket has at most %zu bytes",
                    sizeof(address.sun_path) - 1);
        return error_hint(err, "use a shorter path, or a relative one");
    }
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return error_errno(err, attempt, path, errno);
    if (!bind_unix(fd, &address)) {
        int error = errno;
        close(fd);
        error_errno(err, attempt, path, error);
        if (error == EADDRINUSE) {
            error_set(err, attempt, path, "something is there already, and in use");
            error_hint(err, "choose another path");
        } else if (error == ENOENT) {
            error_hint(err, "make its folder first");
        }
        return false;
    }
    listener->fd = fd;
    strcpy(listener->unlink_path, address.sun_path);
    if (listen(fd, 1) < 0) {
        error_errno(err, attempt, path, errno);
        listener_close(listener);
        return false;
    }
    return true;
}

/* Splits "[ADDR:]PORT"; ADDR may be in brackets. */
static bool split_address(const char *text, char *host, size_t host_bytes, const char **port)
{
    const char *colon = strrchr(text, ':');
    *port = colon ? colon + 1 : text;
    size_t length = colon ? (size_t)(colon - text) : 0;
    if (length >= 2 && text[0] == '[' && text[length - 1] == ']') {
        text++;
        length -= 2;
    } else if (memchr(text, ':', length)) {
        return false;
    }
    if (length >= host_bytes)
        return false;
    snprintf(host, host_bytes, "%.*s", (int)length, text);
    if (length == 0)
        snprintf(host, host_bytes, "127.0.0.1");
    char *end;
    unsigned long number = strtoul(*port, &end, 10);
    return **port >= '0' && **port <= '9' && *end == '\0' && number <= 65535;
}

static int bind_tcp(const struct addrinfo *info)
{
    int fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int yes = 1;
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
    if (bind(fd, info->ai_addr, info->ai_addrlen) == 0 && listen(fd, 1) == 0)
        return fd;
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

static void tell_name(int fd, char *name, size_t name_bytes)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof(address);
    char host[64], port[8];
    name[0] = '\0';
    if (getsockname(fd, (struct sockaddr *)&address, &length) == 0 &&
        getnameinfo((struct sockaddr *)&address, length, host, sizeof(host), port, sizeof(port),
                    NI_NUMERICHOST | NI_NUMERICSERV) == 0)
        snprintf(name, name_bytes, strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
}

bool listener_open_tcp(struct listener *listener, const char *address, char *name,
                       size_t name_bytes, struct error *err)
{
    char host[64];
    const char *port;
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE,
                             .ai_socktype = SOCK_STREAM};
    struct addrinfo *info;
    *listener = (struct listener){.fd = -1};
    if (!split_address(address, host, sizeof(host), &port) ||
        getaddrinfo(host, port, &hints, &info) != 0) {
        error_usage(err, attempt, address, "it is not an address with a port");
        return error_hint(err, "write it like 4321, 0.0.0.0:4321 or [::1]:4321");
    }
    listener->fd = bind_tcp(info);
    int error = errno;
    freeaddrinfo(info);
    if (listener->fd < 0) {
        error_errno(err, attempt, address, error);
        if (error == EADDRINUSE) {
            error_set(err, attempt, address, "port %s is in use", port);
            error_hint(err, "choose another port, or stop what has it: ss -ltnp shows it");
        } else if (error == EACCES) {
            error_hint(err, "ports below 1024 are for root: choose a greater one");
        } else if (error == EADDRNOTAVAIL) {
            error_hint(err, "this host has no address %s: ip addr shows those it has", host);
        }
        return false;
    }
    tell_name(listener->fd, name, name_bytes);
    return true;
}

void listener_close(struct listener *listener)
{
    if (listener->fd < 0)
        return;
    close(listener->fd);
    if (listener->unlink_path[0])
        unlink(listener->unlink_path);
    listener->fd = -1;
}
