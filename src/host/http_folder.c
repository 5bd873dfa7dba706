/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A folder by HTTP; see http_folder.h. Names come from a guest: the kernel itself keeps them below
 * the folder (openat2(2), RESOLVE_BENEATH), symbolic links included.
 *
 * The socket has a name only until this process has a handle of it; connecting goes by way of that
 * handle, so nothing stays behind in the file system, however the process ends.
 */
#include "host/http_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <microhttpd.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

enum { CONNECTIONS_MAX = 64, IDLE_SECONDS = 60, BACKLOG = 16 };

struct http_folder {
    int folder;           /* O_PATH */
    int handle;           /* of the socket, O_PATH */
    char socket_path[32]; /* by that */
    struct MHD_Daemon *daemon;
};

/* ---- answers ---- */

static enum MHD_Result answer_status(struct MHD_Connection *connection, unsigned status,
                                     const char *header, const char *value)
{
    struct MHD_Response *response = MHD_create_response_from_buffer(0, "", MHD_RESPMEM_PERSISTENT);
    if (!response)
        return MHD_NO;
    if (header)
        MHD_add_response_header(response, header, value);
    enum MHD_Result result = MHD_queue_response(connection, status, response);
    MHD_destroy_response(response);
    return result;
}

/* A file below the folder; -1 and errno. Never waits, whatever kind of file it is. */
static int open_below(const struct http_folder *http, const char *name)
{
    const struct open_how how = {.flags = O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK,
                                 .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
    return (int)syscall(SYS_openat2, http->folder, name, &how, sizeof(how));
}

enum range { RANGE_NONE, RANGE_GOOD, RANGE_BEYOND };

/* A number, if one is there; `at` is moved past it. */
static bool take_number(const char **at, uint64_t *value)
{
    char *end;
    if (**at < '0' || **at > '9')
        return false;
    errno = 0;
    *value = strtoull(*at, &end, 10);
    *at = end;
    return !errno;
}

/* RFC 9110, 14.1.2 and 14.2: one range of bytes; what is of another form is passed over. */
static enum range read_range(const char *text, uint64_t size_bytes, uint64_t *first,
                             uint64_t *length)
{
    static const char unit[] = "bytes=";
    uint64_t from = 0, to = UINT64_MAX, suffix = 0;
    if (!text || strncmp(text, unit, sizeof(unit) - 1) != 0)
        return RANGE_NONE;
    text += sizeof(unit) - 1;
    const bool is_suffix = *text == '-';
    if (is_suffix) {
        text++;
        if (!take_number(&text, &suffix) || *text)
            return RANGE_NONE;
        from = size_bytes - (suffix < size_bytes ? suffix : size_bytes);
    } else if (!take_number(&text, &from) || *text++ != '-' ||
               (*text && !take_number(&text, &to)) || *text || to < from) {
        return RANGE_NONE;
    }
    if (from >= size_bytes)
        return RANGE_BEYOND;
    *first = from;
    *length = to < size_bytes ? to - from + 1 : size_bytes - from;
    return RANGE_GOOD;
}

/* Takes `fd` over. */
static enum MHD_Result answer_file(struct MHD_Connection *connection, int fd, uint64_t size_bytes)
{
    const char *asked =
        MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_RANGE);
    uint64_t first = 0, length = size_bytes;
    char text[80];
    /* It asks for a range of a version that it knows; versions have no names here. */
    if (MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_IF_RANGE))
        asked = NULL;
    const enum range range = read_range(asked, size_bytes, &first, &length);
    if (range == RANGE_BEYOND) {
        close(fd);
        snprintf(text, sizeof(text), "bytes */%llu", (unsigned long long)size_bytes);
        return answer_status(connection, MHD_HTTP_RANGE_NOT_SATISFIABLE,
                             MHD_HTTP_HEADER_CONTENT_RANGE, text);
    }
    struct MHD_Response *response = MHD_create_response_from_fd_at_offset64(length, fd, first);
    if (!response) {
        close(fd);
        return MHD_NO;
    }
    MHD_add_response_header(response, MHD_HTTP_HEADER_ACCEPT_RANGES, "bytes");
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, "application/octet-stream");
    if (range == RANGE_GOOD) {
        snprintf(text, sizeof(text), "bytes %llu-%llu/%llu", (unsigned long long)first,
                 (unsigned long long)(first + length - 1), (unsigned long long)size_bytes);
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_RANGE, text);
    }
    enum MHD_Result result = MHD_queue_response(
        connection, range == RANGE_GOOD ? MHD_HTTP_PARTIAL_CONTENT : MHD_HTTP_OK, response);
    MHD_destroy_response(response);
    return result;
}

/* MHD's MHD_AccessHandlerCallback; it has decoded the path, and leaves a body out for HEAD. */
static enum MHD_Result answer(void *opaque, struct MHD_Connection *connection, const char *path,
                              const char *method, const char *version, const char *upload,
                              size_t *upload_bytes, void **state)
{
    const struct http_folder *http = opaque;
    struct stat info;
    if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
        return answer_status(connection, MHD_HTTP_METHOD_NOT_ALLOWED, MHD_HTTP_HEADER_ALLOW,
                             "GET, HEAD");
    const int fd = open_below(http, path + strspn(path, "/"));
    if (fd < 0)
        return answer_status(connection, errno == EACCES ? MHD_HTTP_FORBIDDEN : MHD_HTTP_NOT_FOUND,
                             NULL, NULL);
    if (fstat(fd, &info) < 0 || !S_ISREG(info.st_mode)) {
        close(fd);
        return answer_status(connection, MHD_HTTP_NOT_FOUND, NULL, NULL);
    }
    return answer_file(connection, fd, (uint64_t)info.st_size);
}

/* ---- life ---- */

static const char attempt[] = "cannot give out by HTTP";

static bool open_folder(struct http_folder *http, const char *folder, struct error *err)
{
    http->folder = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (http->folder < 0) {
        error_errno(err, attempt, folder, errno);
        return error_hint(err, "give the path of a folder");
    }
    const int fd = open_below(http, ".");
    if (fd < 0) {
        error_errno(err, attempt, folder, errno);
        if (errno == ENOSYS)
            return error_hint(err, "it takes openat2(2), which Linux has since 5.6");
        return false;
    }
    close(fd);
    return true;
}

/* A socket that listens, and a handle of it; its name is gone when this returns. */
static int listen_hidden(struct http_folder *http, struct error *err)
{
    const char *temporary = getenv("TMPDIR");
    char folder[64];
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = -1;
    snprintf(folder, sizeof(folder), "%.40s/skep-http-XXXXXX",
             temporary && *temporary && strlen(temporary) <= 40 ? temporary : "/tmp");
    if (!mkdtemp(folder)) {
        error_errno(err, attempt, folder, errno);
        return -1;
    }
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/socket", folder);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool ok = fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 &&
              listen(fd, BACKLOG) == 0;
    if (ok)
        http->handle = open(address.sun_path, O_PATH | O_CLOEXEC);
    if (!ok || http->handle < 0) {
        error_errno(err, attempt, address.sun_path, errno);
        if (fd >= 0)
            close(fd);
        fd = -1;
    }
    unlink(address.sun_path);
    rmdir(folder);
    return fd;
}

/* Takes the listening socket over. */
static bool start(struct http_folder *http, int listener, struct error *err)
{
    /* Signals are the main thread's. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    http->daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_USE_INTERNAL_POLLING_THREAD, 0, NULL, NULL, answer, http,
        MHD_OPTION_LISTEN_SOCKET, listener, MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS_MAX,
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_SECONDS, MHD_OPTION_END);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (http->daemon)
        return true;
    close(listener);
    return error_set(err, attempt, NULL, "libmicrohttpd does not start");
}

struct http_folder *http_folder_open(const char *folder, struct error *err)
{
    struct http_folder *http = calloc(1, sizeof(*http));
    if (!http) {
        error_errno(err, attempt, folder, ENOMEM);
        return NULL;
    }
    http->folder = http->handle = -1;
    const int listener = open_folder(http, folder, err) ? listen_hidden(http, err) : -1;
    if (listener < 0 || !start(http, listener, err)) {
        http_folder_close(http);
        return NULL;
    }
    snprintf(http->socket_path, sizeof(http->socket_path), "/proc/self/fd/%d", http->handle);
    return http;
}

void http_folder_close(struct http_folder *http)
{
    if (!http)
        return;
    if (http->daemon)
        MHD_stop_daemon(http->daemon); /* closes the listening socket */
    if (http->handle >= 0)
        close(http->handle);
    if (http->folder >= 0)
        close(http->folder);
    free(http);
}

const char *http_folder_socket(const struct http_folder *http)
{
    return http->socket_path;
}
