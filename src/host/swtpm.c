/* SPDX-License-Identifier: BSD-2-Clause
 *
 * swtpm's control channel (its manual page swtpm_ioctls(3)): messages of big-endian words, each
 * answered at once by a result and what belongs to it. It is used on the loop's thread and waited
 * for. Commands to the TPM go through a pair of sockets of our own, of which swtpm gets one end,
 * and are answered whenever the TPM is done.
 */
#include "host/swtpm.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    CMD_GET_CAPABILITY = 1,
    CMD_INIT = 2,
    CMD_SET_LOCALITY = 5,
    CMD_GET_STATEBLOB = 12,
    CMD_SET_STATEBLOB = 13,
    CMD_STOP = 14,
    CMD_SET_DATAFD = 16,
    CMD_SET_BUFFERSIZE = 17,

    CAPABILITIES = 1 << 0 | 1 << 3 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 12 | 1 << 13,
    BLOB_TYPES = 3, /* permanent, volatile, saved state: 1 to 3 */
    BLOB_SAVED = 3,
    BLOB_MAX_BYTES = 1 << 20,
    CONTROL_SECONDS = 10,
    SIZE_AT = 2,
};

struct swtpm {
    struct loop *loop;
    const struct log *log;
    struct log_limit log_limit;
    char *path;
    uint32_t buffer_bytes;
    int control_fd, data_fd;
    struct loop_watch *watch;
    struct tpm_handler handler;
    int locality; /* that it was told last; -1: none */

    pthread_mutex_t lock; /* guards what follows: submit() comes from any thread */
    bool is_busy, is_posted;
    unsigned post_count; /* of send_command() that have not run yet */
    unsigned wanted_locality;
    uint32_t command_bytes;
    uint8_t command[TPM_COMMAND_MAX_BYTES];

    uint32_t response_bytes; /* that have come so far */
    uint8_t response[TPM_COMMAND_MAX_BYTES];
};

static uint32_t get_be32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static void put_be32(uint8_t *at, uint32_t value)
{
    value = htonl(value);
    memcpy(at, &value, 4);
}

/* ---- the control channel ---- */

static bool send_all(int fd, const void *bytes, size_t size_bytes)
{
    const uint8_t *at = bytes;
    while (size_bytes) {
        ssize_t sent = send(fd, at, size_bytes, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent <= 0)
            return false;
        at += sent;
        size_bytes -= (size_t)sent;
    }
    return true;
}

static bool receive_all(int fd, void *bytes, size_t size_bytes)
{
    uint8_t *at = bytes;
    while (size_bytes) {
        ssize_t got = recv(fd, at, size_bytes, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false; /* a timeout, too */
        at += got;
        size_bytes -= (size_t)got;
    }
    return true;
}

/* Sends a command with its words; the answer begins with a result, which must be 0. */
static bool control(struct swtpm *tpm, uint32_t command, const uint32_t *words, unsigned count)
{
    uint8_t bytes[16], result[4];
    put_be32(bytes, command);
    for (unsigned i = 0; i < count; i++)
        put_be32(bytes + 4 + 4 * i, words[i]);
    return send_all(tpm->control_fd, bytes, 4 + 4 * (size_t)count) &&
           receive_all(tpm->control_fd, result, sizeof(result)) && !get_be32(result);
}

static bool set_locality(struct swtpm *tpm, unsigned locality)
{
    uint8_t bytes[5], result[4];
    if (tpm->locality == (int)locality)
        return true;
    put_be32(bytes, CMD_SET_LOCALITY);
    bytes[4] = (uint8_t)locality;
    if (!send_all(tpm->control_fd, bytes, sizeof(bytes)) ||
        !receive_all(tpm->control_fd, result, sizeof(result)) || get_be32(result))
        return false;
    tpm->locality = (int)locality;
    return true;
}

static bool has_capabilities(struct swtpm *tpm)
{
    uint8_t bytes[4], answer[8];
    put_be32(bytes, CMD_GET_CAPABILITY);
    return send_all(tpm->control_fd, bytes, sizeof(bytes)) &&
           receive_all(tpm->control_fd, answer, sizeof(answer)) &&
           (get_be32(answer + 4) & CAPABILITIES) == CAPABILITIES;
}

static bool give_data_fd(struct swtpm *tpm, int fd)
{
    uint8_t bytes[4], result[4];
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } room = {0};
    struct iovec iov = {bytes, sizeof(bytes)};
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = room.bytes,
                             .msg_controllen = sizeof(room.bytes)};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &fd, sizeof(fd));
    put_be32(bytes, CMD_SET_DATAFD);
    return sendmsg(tpm->control_fd, &message, MSG_NOSIGNAL) == (ssize_t)sizeof(bytes) &&
           receive_all(tpm->control_fd, result, sizeof(result)) && !get_be32(result);
}

/* The answer also tells the bounds of it, which must be read. */
static bool set_buffer_size(struct swtpm *tpm)
{
    uint8_t sizes[12];
    return control(tpm, CMD_SET_BUFFERSIZE, &tpm->buffer_bytes, 1) &&
           receive_all(tpm->control_fd, sizes, sizeof(sizes)) &&
           get_be32(sizes) <= tpm->buffer_bytes;
}

static bool start(struct swtpm *tpm)
{
    const uint32_t no_flags = 0;
    tpm->locality = -1;
    return control(tpm, CMD_INIT, &no_flags, 1);
}

static bool stop(struct swtpm *tpm)
{
    return control(tpm, CMD_STOP, NULL, 0);
}

/* ---- commands ---- */

static void complain(struct swtpm *tpm, const char *what)
{
    log_limited(tpm->log, &tpm->log_limit, LOG_WARNING, "swtpm", "%s: %s", tpm->path, what);
}

/* The command under way has ended. */
static void respond(struct swtpm *tpm, uint32_t size_bytes)
{
    pthread_mutex_lock(&tpm->lock);
    bool was_busy = tpm->is_busy;
    tpm->is_busy = false;
    tpm->response_bytes = 0;
    pthread_mutex_unlock(&tpm->lock);
    if (was_busy && tpm->handler.respond)
        tpm->handler.respond(tpm->handler.opaque, tpm->response, size_bytes);
}

/* What has gone wrong with the channel stays so. */
static void fail(struct swtpm *tpm, const char *what)
{
    complain(tpm, what);
    if (tpm->watch)
        loop_watch_set(tpm->watch, 0);
    if (tpm->data_fd >= 0)
        shutdown(tpm->data_fd, SHUT_RDWR);
    respond(tpm, 0);
}

/* On the loop's thread: the command that submit() has left here. */
static void send_command(struct swtpm *tpm)
{
    pthread_mutex_lock(&tpm->lock);
    bool is_posted = tpm->is_posted;
    unsigned locality = tpm->wanted_locality;
    tpm->is_posted = false;
    pthread_mutex_unlock(&tpm->lock);
    if (!is_posted)
        return; /* drain() was first */
    if (!set_locality(tpm, locality))
        fail(tpm, "it does not take the locality");
    else if (!send_all(tpm->data_fd, tpm->command, tpm->command_bytes))
        fail(tpm, "it has closed the channel");
}

static void posted(void *opaque)
{
    struct swtpm *tpm = opaque;
    send_command(tpm);
    pthread_mutex_lock(&tpm->lock);
    tpm->post_count--;
    pthread_mutex_unlock(&tpm->lock);
}

static void swtpm_submit(void *opaque, unsigned locality, const uint8_t *command, size_t size_bytes)
{
    struct swtpm *tpm = opaque;
    pthread_mutex_lock(&tpm->lock);
    memcpy(tpm->command, command, size_bytes);
    tpm->command_bytes = (uint32_t)size_bytes;
    tpm->wanted_locality = locality;
    tpm->is_busy = tpm->is_posted = true;
    tpm->post_count++;
    pthread_mutex_unlock(&tpm->lock);
    loop_post(tpm->loop, posted, tpm);
}

/* Reads what has come of an answer, of which the header tells the size. */
static void readable(void *opaque, unsigned events)
{
    struct swtpm *tpm = opaque;
    uint32_t want = TPM_HEADER_BYTES;
    if (tpm->response_bytes >= TPM_HEADER_BYTES)
        want = get_be32(tpm->response + SIZE_AT);
    ssize_t got = recv(tpm->data_fd, tpm->response + tpm->response_bytes,
                       want - tpm->response_bytes, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        fail(tpm, "it has closed the channel");
        return;
    }
    tpm->response_bytes += (uint32_t)got;
    if (tpm->response_bytes < TPM_HEADER_BYTES)
        return;
    uint32_t size = get_be32(tpm->response + SIZE_AT);
    if (size < TPM_HEADER_BYTES || size > sizeof(tpm->response))
        fail(tpm, "its answer has no sensible size");
    else if (tpm->response_bytes == size)
        respond(tpm, size);
}

static bool is_busy(struct swtpm *tpm)
{
    pthread_mutex_lock(&tpm->lock);
    bool busy = tpm->is_busy;
    pthread_mutex_unlock(&tpm->lock);
    return busy;
}

/* A TPM may make a key for minutes, but not for ever. */
static void swtpm_drain(void *opaque)
{
    enum { DRAIN_MS = 120000 };
    struct swtpm *tpm = opaque;
    send_command(tpm);
    while (is_busy(tpm)) {
        struct pollfd poll_fd = {.fd = tpm->data_fd, .events = POLLIN};
        int ready = poll(&poll_fd, 1, DRAIN_MS);
        if (ready > 0)
            readable(tpm, LOOP_READABLE);
        else if (ready == 0 || errno != EINTR)
            fail(tpm, "it does not answer");
    }
}

static void swtpm_reset(void *opaque)
{
    struct swtpm *tpm = opaque;
    if (!stop(tpm) || !start(tpm))
        complain(tpm, "the TPM could not be started again");
}

static void swtpm_set_handler(void *opaque, const struct tpm_handler *handler)
{
    struct swtpm *tpm = opaque;
    tpm->handler = handler ? *handler : (struct tpm_handler){0};
}

/* ---- state ---- */

static bool save_blob(struct swtpm *tpm, uint32_t type, struct save *save)
{
    enum { DECRYPTED = 1 };
    uint8_t request[16], answer[16]; /* result, flags, total, length */
    put_be32(request, CMD_GET_STATEBLOB);
    put_be32(request + 4, DECRYPTED);
    put_be32(request + 8, type);
    put_be32(request + 12, 0);
    if (!send_all(tpm->control_fd, request, sizeof(request)) ||
        !receive_all(tpm->control_fd, answer, sizeof(answer)))
        return false;
    uint32_t size = get_be32(answer + 12);
    /* A TPM that was not shut down has no saved state: that is told as a failure, of no bytes. */
    bool is_absent = type == BLOB_SAVED && !size;
    if ((get_be32(answer) && !is_absent) || size != get_be32(answer + 8) || size > BLOB_MAX_BYTES)
        return false;
    uint8_t *bytes = malloc(size ? size : 1);
    bool ok = bytes && receive_all(tpm->control_fd, bytes, size);
    save_u32(save, size);
    if (ok)
        save_bytes(save, bytes, size);
    free(bytes);
    return ok;
}

static bool swtpm_save(void *opaque, struct save *save)
{
    for (uint32_t type = 1; type <= BLOB_TYPES; type++)
        if (!save_blob(opaque, type, save))
            return false;
    return true;
}

static bool load_blob(struct swtpm *tpm, uint32_t type, struct load *load)
{
    uint8_t header[16], result[4];
    uint32_t size = load_u32(load);
    if (load->failed || size > BLOB_MAX_BYTES)
        return false;
    uint8_t *bytes = malloc(size ? size : 1);
    if (!bytes)
        return false;
    load_bytes(load, bytes, size);
    put_be32(header, CMD_SET_STATEBLOB);
    put_be32(header + 4, 0);
    put_be32(header + 8, type);
    put_be32(header + 12, size);
    bool ok = !load->failed;
    if (ok && size)
        ok = send_all(tpm->control_fd, header, sizeof(header)) &&
             send_all(tpm->control_fd, bytes, size) &&
             receive_all(tpm->control_fd, result, sizeof(result)) && !get_be32(result);
    free(bytes);
    return ok;
}

static bool swtpm_load(void *opaque, struct load *load)
{
    struct swtpm *tpm = opaque;
    if (!stop(tpm))
        return false;
    for (uint32_t type = 1; type <= BLOB_TYPES; type++)
        if (!load_blob(tpm, type, load))
            return false;
    return start(tpm);
}

/* ---- life ---- */

static void swtpm_free(struct swtpm *tpm)
{
    if (tpm->watch)
        loop_watch_close(tpm->watch);
    if (tpm->data_fd >= 0)
        close(tpm->data_fd);
    if (tpm->control_fd >= 0)
        close(tpm->control_fd);
    pthread_mutex_destroy(&tpm->lock);
    free(tpm->path);
    free(tpm);
}

/* No vCPU runs, so there are no new posts. */
static void swtpm_close(void *opaque)
{
    enum { POST_WAIT_MS = 10 };
    struct swtpm *tpm = opaque;
    tpm->handler = (struct tpm_handler){0};
    swtpm_drain(tpm);
    while (tpm->post_count)
        loop_run_once(tpm->loop, POST_WAIT_MS);
    swtpm_free(tpm);
}

static bool connect_control(struct swtpm *tpm, struct error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const struct timeval limit = {.tv_sec = CONTROL_SECONDS};
    if (strlen(tpm->path) >= sizeof(address.sun_path))
        return error_set(err, "cannot connect to the TPM", tpm->path, "the name is too long");
    strcpy(address.sun_path, tpm->path);
    tpm->control_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (tpm->control_fd < 0 ||
        connect(tpm->control_fd, (const struct sockaddr *)&address, sizeof(address))) {
        error_errno(err, "cannot connect to the TPM", tpm->path, errno);
        return error_hint(err, "start one: swtpm socket --tpm2 --tpmstate dir=DIR --ctrl "
                               "type=unixio,path=PATH");
    }
    setsockopt(tpm->control_fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    setsockopt(tpm->control_fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    return true;
}

static bool set_up(struct swtpm *tpm, struct error *err)
{
    int fds[2];
    if (!has_capabilities(tpm)) {
        error_set(err, "cannot use the TPM", tpm->path, "it does not answer as swtpm does");
        return error_hint(err, "perhaps another machine uses it: each needs a swtpm of its own");
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds))
        return error_errno(err, "cannot use the TPM", tpm->path, errno);
    tpm->data_fd = fds[0];
    bool is_given = give_data_fd(tpm, fds[1]);
    close(fds[1]);
    if (!is_given || !stop(tpm) || !set_buffer_size(tpm) || !start(tpm))
        return error_set(err, "cannot use the TPM", tpm->path, "it does not start");
    tpm->watch = loop_watch_open(tpm->loop, tpm->data_fd, readable, tpm, err);
    if (!tpm->watch)
        return false;
    loop_watch_set(tpm->watch, LOOP_READABLE);
    return true;
}

bool swtpm_open(const struct swtpm_config *config, struct loop *loop, struct tpm_backend *out,
                struct error *err)
{
    struct swtpm *tpm = calloc(1, sizeof(*tpm));
    if (!tpm)
        return error_errno(err, "cannot use the TPM", config->path, ENOMEM);
    tpm->loop = loop;
    tpm->log = config->log;
    tpm->buffer_bytes = config->buffer_bytes;
    tpm->control_fd = tpm->data_fd = tpm->locality = -1;
    pthread_mutex_init(&tpm->lock, NULL);
    tpm->path = strdup(config->path);
    if (!tpm->path || !connect_control(tpm, err) || !set_up(tpm, err)) {
        swtpm_free(tpm);
        return false;
    }
    *out = (struct tpm_backend){.set_handler = swtpm_set_handler,
                                .submit = swtpm_submit,
                                .drain = swtpm_drain,
                                .reset = swtpm_reset,
                                .save = swtpm_save,
                                .load = swtpm_load,
                                .close = swtpm_close,
                                .opaque = tpm};
    return true;
}
