/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Files that a machine boots from. Runs on the machine's thread.
 */
#include "machine/boot_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* No kernel or initrd that comes through a pipe is larger than this. */
#define PIPE_MAX_BYTES (UINT64_C(1) << 30)

struct boot_file {
    const char *what;
    char *path;
    int fd;              /* -1: the file is in memory */
    const uint8_t *data; /* of a file in memory */
    uint8_t *owned;      /* the same, when it is ours to free */
    uint64_t size_bytes;
};

static bool cannot(struct error *err, const struct boot_file *file, const char *verb, int number)
{
    char what[80];
    snprintf(what, sizeof(what), "cannot %s %s", verb, file->what);
    return error_errno(err, what, file->path, number);
}

static struct boot_file *file_new(const char *what, const char *path)
{
    struct boot_file *file = calloc(1, sizeof(*file));
    if (!file)
        return NULL;
    file->what = what;
    file->fd = -1;
    file->path = strdup(path);
    if (!file->path) {
        free(file);
        return NULL;
    }
    return file;
}

static bool read_all(struct boot_file *file, struct error *err)
{
    size_t capacity = 0, size = 0;
    for (;;) {
        if (size == capacity) {
            if (capacity >= PIPE_MAX_BYTES) {
                cannot(err, file, "read", EFBIG);
                return error_hint(err, "what is no file may bring 1 GiB: is this the right one?");
            }
            capacity = capacity ? capacity * 2 : 1 << 20;
            uint8_t *more = realloc(file->owned, capacity);
            if (!more)
                return cannot(err, file, "read", ENOMEM);
            file->owned = more;
        }
        ssize_t got = read(file->fd, file->owned + size, capacity - size);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return cannot(err, file, "read", errno);
        if (!got)
            break;
        size += (size_t)got;
    }
    close(file->fd);
    file->fd = -1;
    file->data = file->owned;
    file->size_bytes = size;
    return true;
}

static bool take_kind(struct boot_file *file, struct error *err)
{
    struct stat status;
    if (fstat(file->fd, &status) < 0)
        return cannot(err, file, "read", errno);
    if (S_ISDIR(status.st_mode)) {
        cannot(err, file, "read", EISDIR);
        return error_hint(err, "name a file in it");
    }
    file->size_bytes = (uint64_t)status.st_size;
    if (!S_ISREG(status.st_mode) && !read_all(file, err))
        return false;
    if (!file->size_bytes) {
        char what[80];
        snprintf(what, sizeof(what), "cannot use %s", file->what);
        error_set(err, what, file->path, "the file is empty");
        return error_hint(err, "copy or download it again");
    }
    return true;
}

struct boot_file *boot_file_open(const char *what, const char *path, struct error *err)
{
    struct boot_file *file = file_new(what, path);
    if (!file) {
        error_errno(err, "cannot open boot file", path, ENOMEM);
        return NULL;
    }
    file->fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (file->fd < 0) {
        int number = errno;
        cannot(err, file, "open", number);
        if (number == ENOENT)
            error_hint(err, "check the path; it is taken from the current directory");
        else if (number == EACCES)
            error_hint(err, "Debian's kernels in /boot may be readable by root only: copy the file "
                            "or chmod it");
        boot_file_close(file);
        return NULL;
    }
    if (!take_kind(file, err)) {
        boot_file_close(file);
        return NULL;
    }
    return file;
}

struct boot_file *boot_file_take(const char *what, const char *path, int fd, struct error *err)
{
    struct boot_file *file = file_new(what, path);
    if (!file) {
        error_errno(err, "cannot open boot file", path, ENOMEM);
        close(fd);
        return NULL;
    }
    file->fd = fd;
    if (take_kind(file, err))
        return file;
    boot_file_close(file);
    return NULL;
}

struct boot_file *boot_file_memory(const char *what, const void *bytes, size_t size_bytes)
{
    struct boot_file *file = file_new(what, "(memory)");
    if (!file)
        return NULL;
    file->data = bytes;
    file->size_bytes = size_bytes;
    return file;
}

void boot_file_close(struct boot_file *file)
{
    if (!file)
        return;
    if (file->fd >= 0)
        close(file->fd);
    free(file->owned);
    free(file->path);
    free(file);
}

const char *boot_file_path(const struct boot_file *file)
{
    return file->path;
}

uint64_t boot_file_size_bytes(const struct boot_file *file)
{
    return file->size_bytes;
}

static bool too_short(const struct boot_file *file, struct error *err)
{
    char what[80];
    snprintf(what, sizeof(what), "cannot read %s", file->what);
    error_set(err, what, file->path, "the file ends early");
    return error_hint(err, "it is truncated, or was changed while in use: copy it again");
}

bool boot_file_read(const struct boot_file *file, uint64_t offset, void *buffer, size_t size_bytes,
                    struct error *err)
{
    if (offset > file->size_bytes || size_bytes > file->size_bytes - offset)
        return too_short(file, err);
    if (file->fd < 0) {
        if (size_bytes)
            memcpy(buffer, file->data + offset, size_bytes);
        return true;
    }
    for (size_t done = 0; done < size_bytes;) {
        ssize_t got =
            pread(file->fd, (char *)buffer + done, size_bytes - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return cannot(err, file, "read", errno);
        if (!got)
            return too_short(file, err);
        done += (size_t)got;
    }
    return true;
}

bool boot_file_load(const struct boot_file *file, uint64_t offset, uint64_t size_bytes,
                    struct ram *ram, uint64_t gpa, struct error *err)
{
    if (!size_bytes)
        return true;
    void *hva = ram_hva(ram, gpa, size_bytes);
    if (!hva) {
        char what[80];
        snprintf(what, sizeof(what), "cannot load %s", file->what);
        return error_set(err, what, file->path,
                         "%" PRIu64 " bytes at 0x%" PRIx64 " are not in the guest's memory",
                         size_bytes, gpa);
    }
    bool ok = boot_file_read(file, offset, hva, size_bytes, err);
    ram_written(ram, gpa, size_bytes);
    return ok;
}
