/* SPDX-License-Identifier: BSD-2-Clause
 * See nvram.h. */
#include "host/nvram.h"

#include "host/file_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BLOCK_BYTES = 4096, COPY_BYTES = 65536 };

struct nvram {
    const struct log *log;
    struct log_limit limit;
    int fd;
    uint8_t *bytes; /* mmap'ed */
    uint64_t size_bytes;
};

static const char what[] = "cannot use the firmware's variables";

static bool read_all(int fd, void *buffer, size_t size_bytes, uint64_t offset)
{
    for (size_t done = 0; done < size_bytes;) {
        ssize_t got = pread(fd, (char *)buffer + done, size_bytes - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got == 0)
            errno = ENODATA;
        if (got <= 0)
            return false;
        done += (size_t)got;
    }
    return true;
}

static bool write_all(int fd, const void *bytes, size_t size_bytes, uint64_t offset)
{
    for (size_t done = 0; done < size_bytes;) {
        ssize_t put =
            pwrite(fd, (const char *)bytes + done, size_bytes - done, (off_t)(offset + done));
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return false;
        done += (size_t)put;
    }
    return true;
}

/* ---- making it ---- */

static bool copy(int from, int to, uint64_t size_bytes)
{
    char *buffer = malloc(COPY_BYTES);
    bool ok = buffer;
    for (uint64_t at = 0; ok && at < size_bytes;) {
        size_t piece = size_bytes - at < COPY_BYTES ? (size_t)(size_bytes - at) : COPY_BYTES;
        ok = read_all(from, buffer, piece, at) && write_all(to, buffer, piece, at);
        at += piece;
    }
    free(buffer);
    return ok && fsync(to) == 0;
}

/* link() fails when somebody was quicker; then theirs is as good. */
static bool copy_and_link(const char *path, int from, struct error *err)
{
    char temporary[4096];
    struct stat status;
    int length = snprintf(temporary, sizeof(temporary), "%s.XXXXXX", path);
    if (length < 0 || (size_t)length >= sizeof(temporary))
        return error_errno(err, what, path, ENAMETOOLONG);
    int to = mkostemp(temporary, O_CLOEXEC);
    if (to < 0)
        return error_errno(err, what, path, errno);
    bool ok = fstat(from, &status) == 0 && copy(from, to, (uint64_t)status.st_size) &&
              (link(temporary, path) == 0 || errno == EEXIST);
    int error = errno;
    close(to);
    unlink(temporary);
    return ok || error_errno(err, what, path, error);
}

static bool make(const struct nvram_config *config, struct error *err)
{
    int from = open(config->template_path, O_RDONLY | O_CLOEXEC);
    if (from < 0)
        return error_errno(err, what, config->template_path, errno);
    bool ok = copy_and_link(config->path, from, err);
    close(from);
    return ok;
}

/* ---- opening it ---- */

static bool lock(struct nvram *nvram, const char *path, struct error *err)
{
    char holder[64] = "another process";
    if (file_lock(nvram->fd, true) != FILE_LOCK_BUSY)
        return true;
    file_lock_holder(nvram->fd, holder, sizeof(holder));
    error_set(err, what, path, "%s uses them", holder);
    return error_hint(err, "each machine has a file of its own: --nvram FILE");
}

static bool take_contents(struct nvram *nvram, const char *path, struct error *err)
{
    struct stat status;
    if (fstat(nvram->fd, &status) != 0)
        return error_errno(err, what, path, errno);
    if (!S_ISREG(status.st_mode) || status.st_size <= 0 || status.st_size > NVRAM_MAX_BYTES ||
        status.st_size % BLOCK_BYTES != 0)
        return error_set(err, what, path, "it is no file of whole blocks of 4 KiB up to %d MiB",
                         NVRAM_MAX_BYTES >> 20);
    nvram->size_bytes = (uint64_t)status.st_size;
    void *bytes =
        mmap(NULL, nvram->size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (bytes == MAP_FAILED)
        return error_errno(err, what, path, errno);
    nvram->bytes = bytes;
    return read_all(nvram->fd, bytes, nvram->size_bytes, 0) || error_errno(err, what, path, errno);
}

static bool open_file(struct nvram *nvram, const struct nvram_config *config, struct error *err)
{
    nvram->fd = open(config->path, O_RDWR | O_CLOEXEC);
    if (nvram->fd < 0 && errno == ENOENT && config->template_path) {
        if (!make(config, err))
            return false;
        nvram->fd = open(config->path, O_RDWR | O_CLOEXEC);
    }
    if (nvram->fd < 0)
        return error_errno(err, what, config->path, errno);
    return lock(nvram, config->path, err) && take_contents(nvram, config->path, err);
}

struct nvram *nvram_open(const struct nvram_config *config, struct error *err)
{
    struct nvram *nvram = calloc(1, sizeof(*nvram));
    if (!nvram) {
        error_errno(err, what, config->path, ENOMEM);
        return NULL;
    }
    nvram->fd = -1;
    nvram->log = config->log;
    if (open_file(nvram, config, err))
        return nvram;
    if (err && !err->hint[0])
        error_hint(err, "name another file by --nvram, in a folder that you can write to");
    nvram_close(nvram);
    return NULL;
}

void nvram_close(struct nvram *nvram)
{
    if (!nvram)
        return;
    if (nvram->bytes)
        munmap(nvram->bytes, nvram->size_bytes);
    if (nvram->fd >= 0)
        close(nvram->fd);
    free(nvram);
}

uint8_t *nvram_bytes(struct nvram *nvram)
{
    return nvram->bytes;
}

uint64_t nvram_size_bytes(const struct nvram *nvram)
{
    return nvram->size_bytes;
}

bool nvram_write(void *opaque, uint64_t offset, const void *bytes, size_t size_bytes)
{
    struct nvram *nvram = opaque;
    if (write_all(nvram->fd, bytes, size_bytes, offset))
        return true;
    log_limited(nvram->log, &nvram->limit, LOG_WARNING, "nvram",
                "the firmware's variables could not be written: %s", strerror(errno));
    return false;
}
