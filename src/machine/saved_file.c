/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The file of a saved machine:
 *
 *     header   one page: magic, version, places and checksums of the rest, its own checksum last
 *     memory   RAM as it is, so that it can be mapped; pages of zeroes are holes
 *     sums     u32 a page of memory
 *     state    sections of bus/stream.h
 *
 * each from a multiple of the page size on, filled up with zeroes, little-endian.
 */
#include "machine/saved_file.h"

#include "base/crc32c.h"
#include "machine/bytes.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PAGE = RAM_PAGE_BYTES, VERSION = 1, SUM_BYTES = 4, PAGES_AT_ONCE = 256 };
enum { STEP_BYTES = PAGES_AT_ONCE * PAGE, PROGRESS_BYTES = 16 << 20 };

/* Places in the header. The byte 1a ends a text on old systems; no text begins like this. */
static const uint8_t magic[8] = {'s', 'k', 'e', 'p', 'v', 'm', 0x1a, '\n'};
enum {
    AT_MAGIC = 0,
    AT_VERSION = 8,
    AT_FILE_BYTES = 16,
    AT_MEMORY_BYTES = 24,
    AT_STATE_BYTES = 32,
    AT_SUMS_SUM = 40,
    AT_STATE_SUM = 44,
    AT_SUM = PAGE - SUM_BYTES,
};

static const char what_save[] = "cannot save the machine to";
static const char what_open[] = "cannot restore the machine from";

struct layout {
    uint64_t memory, sums, sums_bytes, state, end;
};

static uint64_t whole_pages(uint64_t bytes)
{
    return (bytes + PAGE - 1) & ~(uint64_t)(PAGE - 1);
}

/* False when no file can be so large. */
static bool lay_out(struct layout *layout, uint64_t memory_bytes, uint64_t state_bytes)
{
    const uint64_t most = UINT64_C(1) << 56;
    if (memory_bytes % PAGE || !memory_bytes || memory_bytes > most || state_bytes > most)
        return false;
    layout->memory = PAGE;
    layout->sums = layout->memory + memory_bytes;
    layout->sums_bytes = memory_bytes / PAGE * SUM_BYTES;
    layout->state = layout->sums + whole_pages(layout->sums_bytes);
    layout->end = layout->state + whole_pages(state_bytes);
    return true;
}

/* ---- writing ---- */

struct writer {
    const struct saved_file_contents *contents;
    int fd;
    struct layout layout;
    uint64_t memory_bytes;
    uint8_t *sums;       /* whole pages of them */
    uint64_t told_bytes; /* up to where progress was told */
};

static bool put(int fd, const void *bytes, size_t size_bytes, uint64_t offset)
{
    const uint8_t *at = bytes;
    while (size_bytes) {
        ssize_t done = pwrite(fd, at, size_bytes, (off_t)offset);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0) {
            errno = done ? errno : ENOSPC;
            return false;
        }
        at += done;
        offset += (uint64_t)done;
        size_bytes -= (size_t)done;
    }
    return true;
}

static bool is_zero(const uint8_t *page)
{
    return !page[0] && !memcmp(page, page + 1, PAGE - 1);
}

/* Writes the pages of [first, end) that are not zero, as long runs, with their sums. */
static bool put_pages(struct writer *writer, uint64_t first, uint64_t end)
{
    const uint8_t *memory = ram_bytes(writer->contents->ram);
    uint64_t run = first;
    for (uint64_t at = first; at < end; at += PAGE) {
        bool zero = is_zero(memory + at);
        if (!zero)
            le32_put(writer->sums + at / PAGE * SUM_BYTES, crc32c(memory + at, PAGE));
        if (zero && run < at &&
            !put(writer->fd, memory + run, at - run, writer->layout.memory + run))
            return false;
        if (zero)
            run = at + PAGE;
    }
    return run >= end || put(writer->fd, memory + run, end - run, writer->layout.memory + run);
}

static void tell(struct writer *writer, uint64_t done_bytes, uint64_t step_bytes)
{
    const struct saved_file_contents *contents = writer->contents;
    if (!contents->progress || done_bytes < writer->told_bytes + step_bytes)
        return;
    writer->told_bytes = done_bytes;
    contents->progress(contents->opaque, done_bytes, writer->memory_bytes);
}

static bool put_memory(struct writer *writer)
{
    uint8_t zeroes[PAGE] = {0};
    uint32_t zero_sum = crc32c(zeroes, PAGE);
    for (uint64_t i = 0; i < writer->memory_bytes / PAGE; i++)
        le32_put(writer->sums + i * SUM_BYTES, zero_sum);
    uint64_t at = 0, end;
    while (ram_next_used(writer->contents->ram, &at, &end)) {
        uint64_t step = end - at < STEP_BYTES ? end - at : STEP_BYTES;
        if (!put_pages(writer, at, at + step))
            return false;
        at += step;
        tell(writer, at, PROGRESS_BYTES);
    }
    tell(writer, writer->memory_bytes, 0);
    return true;
}

static bool put_state(struct writer *writer, uint32_t *sum)
{
    const struct save *state = writer->contents->state;
    size_t padded_bytes = whole_pages(state->size_bytes);
    uint8_t *padded = calloc(1, padded_bytes);
    if (!padded)
        return false;
    memcpy(padded, state->bytes, state->size_bytes);
    *sum = crc32c(padded, padded_bytes);
    bool done = put(writer->fd, padded, padded_bytes, writer->layout.state);
    free(padded);
    return done;
}

/* The header last: what was not finished is no saved machine, even under its temporary name. */
static bool put_all(struct writer *writer)
{
    uint8_t header[PAGE] = {0};
    uint32_t state_sum;
    size_t sums_bytes = whole_pages(writer->layout.sums_bytes);
    if (ftruncate(writer->fd, (off_t)writer->layout.end) != 0 || !put_memory(writer) ||
        !put(writer->fd, writer->sums, sums_bytes, writer->layout.sums) ||
        !put_state(writer, &state_sum))
        return false;
    memcpy(header + AT_MAGIC, magic, sizeof(magic));
    le32_put(header + AT_VERSION, VERSION);
    le64_put(header + AT_FILE_BYTES, writer->layout.end);
    le64_put(header + AT_MEMORY_BYTES, writer->memory_bytes);
    le64_put(header + AT_STATE_BYTES, writer->contents->state->size_bytes);
    le32_put(header + AT_SUMS_SUM, crc32c(writer->sums, sums_bytes));
    le32_put(header + AT_STATE_SUM, state_sum);
    le32_put(header + AT_SUM, crc32c(header, AT_SUM));
    return put(writer->fd, header, sizeof(header), 0) && fsync(writer->fd) == 0;
}

/* So that the new name survives a crash of the host, too. A folder that can't be synced is fine. */
static void sync_folder(const char *path)
{
    char *copy = strdup(path);
    int fd = copy ? open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
    free(copy);
}

static bool failed_to_save(const char *path, int errno_value, struct error *err)
{
    error_errno(err, what_save, path, errno_value);
    if (errno_value == ENOSPC || errno_value == EDQUOT)
        error_hint(err, "up to the size of the guest's memory is needed: free some, or choose "
                        "another folder");
    else if (errno_value == EISDIR)
        error_hint(err, "name a file in it");
    else if (errno_value == ENOENT || errno_value == ENOTDIR)
        error_hint(err, "make its folder first");
    else if (errno_value == EACCES || errno_value == EROFS)
        error_hint(err, "choose a folder that you can write to");
    return false;
}

bool saved_file_check_place(const char *path, struct error *err)
{
    struct stat status;
    bool is_there = stat(path, &status) == 0;
    if (is_there && S_ISDIR(status.st_mode))
        return failed_to_save(path, EISDIR, err);
    if (is_there && !S_ISREG(status.st_mode)) { /* /dev/null is to stay one */
        error_set(err, what_save, path, "it is there, and no file");
        return error_hint(err, "choose another name");
    }
    char *copy = strdup(path);
    if (!copy)
        return failed_to_save(path, ENOMEM, err);
    const char *folder = dirname(copy);
    int errno_value = 0;
    if (stat(folder, &status) != 0)
        errno_value = errno;
    else if (!S_ISDIR(status.st_mode))
        errno_value = ENOTDIR;
    else if (access(folder, W_OK | X_OK) != 0)
        errno_value = errno;
    free(copy);
    return !errno_value || failed_to_save(path, errno_value, err);
}

static bool write_as(const char *path, const char *temporary, struct writer *writer,
                     struct error *err)
{
    int fd = writer->fd;
    bool done = put_all(writer) && rename(temporary, path) == 0;
    int errno_value = errno;
    close(fd);
    if (!done) {
        unlink(temporary);
        return failed_to_save(path, errno_value, err);
    }
    sync_folder(path);
    return true;
}

bool saved_file_write(const char *path, const struct saved_file_contents *contents,
                      struct error *err)
{
    struct writer writer = {.contents = contents, .memory_bytes = ram_size_bytes(contents->ram)};
    char *temporary = NULL;
    bool done = false;
    if (!saved_file_check_place(path, err))
        return false;
    if (contents->state->failed ||
        !lay_out(&writer.layout, writer.memory_bytes, contents->state->size_bytes))
        return failed_to_save(path, ENOMEM, err);
    writer.sums = calloc(1, whole_pages(writer.layout.sums_bytes));
    if (!writer.sums || asprintf(&temporary, "%s.XXXXXX", path) < 0) {
        free(writer.sums);
        return failed_to_save(path, ENOMEM, err);
    }
    writer.fd = mkostemp(temporary, O_CLOEXEC); /* readable by its owner only */
    if (writer.fd < 0)
        failed_to_save(path, errno, err);
    else
        done = write_as(path, temporary, &writer, err);
    free(temporary);
    free(writer.sums);
    return done;
}

/* ---- reading ---- */

static bool get(int fd, void *bytes, size_t size_bytes, uint64_t offset)
{
    uint8_t *at = bytes;
    while (size_bytes) {
        ssize_t done = pread(fd, at, size_bytes, (off_t)offset);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0) {
            errno = done ? errno : EIO;
            return false;
        }
        at += done;
        offset += (uint64_t)done;
        size_bytes -= (size_t)done;
    }
    return true;
}

static bool damaged(const struct saved_file *file, const char *part, struct error *err)
{
    error_set(err, what_open, file->path, "it is damaged: %s", part);
    return error_hint(err, "use another copy of it; nothing of the machine was started");
}

static bool refuse(const struct saved_file *file, const char *why, struct error *err)
{
    error_set(err, what_open, file->path, "%s", why);
    return error_hint(err, "`skep save` and `skep run --save-on` write such files");
}

static bool check_header(const struct saved_file *file, const uint8_t *header, uint64_t file_bytes,
                         struct error *err)
{
    if (memcmp(header + AT_MAGIC, magic, sizeof(magic)) != 0)
        return refuse(file, "it is no saved machine", err);
    uint32_t version = le32_get(header + AT_VERSION);
    if (version > VERSION) {
        error_set(err, what_open, file->path, "it has version %" PRIu32 " of the format", version);
        return error_hint(err, "this skep knows versions up to %d: use a newer one", VERSION);
    }
    if (version == 0 || le32_get(header + AT_SUM) != crc32c(header, AT_SUM))
        return damaged(file, "its header's checksum is wrong", err);
    if (le64_get(header + AT_FILE_BYTES) != file_bytes)
        return damaged(file, "it is not as long as it was written", err);
    return true;
}

static bool read_parts(struct saved_file *file, const uint8_t *header, uint64_t file_bytes,
                       struct error *err)
{
    struct layout layout;
    uint64_t state_bytes = le64_get(header + AT_STATE_BYTES);
    file->memory_bytes = le64_get(header + AT_MEMORY_BYTES);
    if (!lay_out(&layout, file->memory_bytes, state_bytes) || layout.end != file_bytes)
        return damaged(file, "its parts do not add up", err);
    file->memory_offset = layout.memory;
    file->state_bytes = state_bytes;
    size_t sums_bytes = whole_pages(layout.sums_bytes), padded_bytes = whole_pages(state_bytes);
    file->sums = malloc(sums_bytes);
    file->state = malloc(padded_bytes ? padded_bytes : 1);
    if (!file->sums || !file->state)
        return error_errno(err, what_open, file->path, ENOMEM);
    if (!get(file->fd, file->sums, sums_bytes, layout.sums) ||
        !get(file->fd, file->state, padded_bytes, layout.state))
        return error_errno(err, what_open, file->path, errno);
    if (crc32c(file->sums, sums_bytes) != le32_get(header + AT_SUMS_SUM))
        return damaged(file, "the list of its memory's checksums has a wrong one itself", err);
    if (crc32c(file->state, padded_bytes) != le32_get(header + AT_STATE_SUM))
        return damaged(file, "the checksum of its processors' and devices' state is wrong", err);
    return true;
}

static bool open_checked(struct saved_file *file, struct error *err)
{
    uint8_t header[PAGE];
    struct stat status;
    file->fd = open(file->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe would be waited for */
    if (file->fd < 0 || fstat(file->fd, &status) != 0) {
        error_errno(err, what_open, file->path, errno);
        return error_hint(err, "check the path; it is taken from the current directory");
    }
    if (!S_ISREG(status.st_mode))
        return refuse(file, "it is no file", err);
    if (status.st_size < PAGE)
        return refuse(file, "it is no saved machine", err);
    if (!get(file->fd, header, sizeof(header), 0))
        return error_errno(err, what_open, file->path, errno);
    return check_header(file, header, (uint64_t)status.st_size, err) &&
           read_parts(file, header, (uint64_t)status.st_size, err);
}

bool saved_file_open(struct saved_file *file, const char *path, struct error *err)
{
    *file = (struct saved_file){.fd = -1, .path = path};
    if (open_checked(file, err))
        return true;
    saved_file_close(file);
    return false;
}

void saved_file_close(struct saved_file *file)
{
    if (file->fd >= 0)
        close(file->fd);
    free(file->state);
    free(file->sums);
    *file = (struct saved_file){.fd = -1};
}

static uint32_t sum_of(const struct saved_file *file, uint64_t page)
{
    return le32_get(file->sums + page * SUM_BYTES);
}

static bool page_damaged(const struct saved_file *file, uint64_t page, struct error *err)
{
    char part[96];
    snprintf(part, sizeof(part), "the checksum of its memory at %#" PRIx64 " is wrong",
             page * PAGE);
    return damaged(file, part, err);
}

static bool check_pages(const struct saved_file *file, const uint8_t *memory, uint64_t first,
                        uint64_t end, struct error *err)
{
    enum { AT_ONCE = 4 };
    uint64_t page = first;
    for (; page + AT_ONCE <= end; page += AT_ONCE) {
        uint32_t sums[AT_ONCE];
        crc32c_four(memory + page * PAGE, PAGE, sums);
        for (unsigned i = 0; i < AT_ONCE; i++)
            if (sums[i] != sum_of(file, page + i))
                return page_damaged(file, page + i, err);
    }
    for (; page < end; page++)
        if (crc32c(memory + page * PAGE, PAGE) != sum_of(file, page))
            return page_damaged(file, page, err);
    return true;
}

/* The host takes the pages in, or says that it can't: touching them would be a fault then. A host
 * older than Linux 5.14 doesn't know how: they are read besides. */
static bool bring_in(const struct saved_file *file, const uint8_t *memory, uint64_t first,
                     uint64_t end, struct error *err)
{
    enum { POPULATE_READ = 22 };
    uint8_t page[PAGE];
    size_t size_bytes = (size_t)(end - first) * PAGE;
    if (madvise((void *)(uintptr_t)(memory + first * PAGE), size_bytes, POPULATE_READ) == 0)
        return true;
    if (errno != EINVAL)
        return error_errno(err, what_open, file->path, errno == EFAULT ? EIO : errno);
    for (uint64_t i = first; i < end; i++)
        if (!get(file->fd, page, PAGE, file->memory_offset + i * PAGE))
            return error_errno(err, what_open, file->path, errno);
    return true;
}

static bool check_data(const struct saved_file *file, const uint8_t *memory, uint64_t first,
                       uint64_t end, struct error *err)
{
    for (uint64_t at = first; at < end; at += PAGES_AT_ONCE) {
        uint64_t to = end - at < PAGES_AT_ONCE ? end : at + PAGES_AT_ONCE;
        if (!bring_in(file, memory, at, to, err) || !check_pages(file, memory, at, to, err))
            return false;
    }
    return true;
}

/* A hole is zeroes for sure and is not touched; its pages' sums must say so. */
static bool check_hole(const struct saved_file *file, uint64_t first, uint64_t end,
                       uint32_t zero_sum, struct error *err)
{
    for (uint64_t page = first; page < end; page++)
        if (sum_of(file, page) != zero_sum)
            return page_damaged(file, page, err);
    return true;
}

/* The part [at, end) of the file, which is memory. */
static bool check_part(const struct saved_file *file, const uint8_t *memory, uint32_t zero_sum,
                       uint64_t at, uint64_t end, struct error *err)
{
    uint64_t base = file->memory_offset;
    while (at < end) {
        /* Where the host can't tell holes, all is data. */
        off_t data = lseek(file->fd, (off_t)at, SEEK_DATA);
        uint64_t from = data >= 0 ? (uint64_t)data : errno == ENXIO ? end : at;
        off_t hole = data >= 0 ? lseek(file->fd, data, SEEK_HOLE) : -1;
        uint64_t to = hole >= 0 ? whole_pages((uint64_t)hole) : end;
        from = from < end ? from & ~(uint64_t)(PAGE - 1) : end;
        to = to < end ? to : end;
        if (!check_hole(file, (at - base) / PAGE, (from - base) / PAGE, zero_sum, err) ||
            (from < end &&
             !check_data(file, memory, (from - base) / PAGE, (to - base) / PAGE, err)))
            return false;
        at = from < end ? to : end;
    }
    return true;
}

enum { CHECKERS_MAX = 4, PART_BYTES = 4 << 20 };

/* Some threads take part after part, since checking is what a restore takes its time with. */
struct check {
    const struct saved_file *file;
    const uint8_t *memory;
    uint32_t zero_sum;
    _Atomic uint64_t next; /* in the file */
    atomic_bool failed;
    pthread_mutex_t lock;
    struct error error; /* under lock: of the first that failed */
};

static void *check_parts(void *opaque)
{
    struct check *check = opaque;
    uint64_t end = check->file->memory_offset + check->file->memory_bytes;
    for (;;) {
        uint64_t at = atomic_fetch_add(&check->next, PART_BYTES);
        struct error error = {0};
        if (at >= end || atomic_load(&check->failed))
            return NULL;
        uint64_t to = end - at < PART_BYTES ? end : at + PART_BYTES;
        if (check_part(check->file, check->memory, check->zero_sum, at, to, &error))
            continue;
        pthread_mutex_lock(&check->lock);
        if (!atomic_exchange(&check->failed, true))
            check->error = error;
        pthread_mutex_unlock(&check->lock);
    }
}

bool saved_file_check_memory(const struct saved_file *file, const uint8_t *memory,
                             struct error *err)
{
    const uint8_t zeroes[PAGE] = {0};
    struct check check = {.file = file,
                          .memory = memory,
                          .zero_sum = crc32c(zeroes, PAGE),
                          .next = file->memory_offset,
                          .lock = PTHREAD_MUTEX_INITIALIZER};
    pthread_t threads[CHECKERS_MAX];
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    int wanted = processors < CHECKERS_MAX ? (int)processors : CHECKERS_MAX, started = 0;
    while (started < wanted - 1 &&
           pthread_create(&threads[started], NULL, check_parts, &check) == 0)
        started++;
    check_parts(&check); /* the calling thread is one of them */
    while (started)
        pthread_join(threads[--started], NULL);
    if (check.failed && err)
        *err = check.error;
    return !check.failed;
}
