/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Raw images and block devices as disks. Requests are carried out by the threads of a block_queue
 * with preadv, pwritev, fdatasync and fallocate. Left out: O_DIRECT.
 *
 * When fdatasync has failed once, the kernel may have dropped what it could not write, and a later
 * fdatasync would say that all is well. So from then on every flush fails.
 */
#include "host/raw.h"

#include "host/block_queue.h"
#include "host/fd.h"
#include "host/file_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

enum { SECTOR_BYTES = 512, RAW_THREADS = 4, ZERO_CHUNK_BYTES = 65536 };

static const char attempt[] = "cannot open disk image";

struct raw {
    int fd;
    bool is_device;
    struct block_info info;
    uint32_t logical_block_bytes; /* of a device; 1 for a file */
    const struct log *log;
    struct log_limit log_limit;
    struct block_queue *queue;
    atomic_int flush_error; /* the first one, which stays */
    atomic_bool no_zero_range, no_punch_hole;
};

/* ---- carrying requests out, on any of the queue's threads ---- */

/* Transfers one piece as far as it goes in one system call; 0 at the end of the file. */
static ssize_t transfer_once(int fd, bool write, const struct iovec *iov, unsigned count,
                             uint64_t offset)
{
    ssize_t n;
    if (count > IOV_MAX)
        count = IOV_MAX;
    do {
        n = write ? pwritev(fd, iov, (int)count, (off_t)offset)
                  : preadv(fd, iov, (int)count, (off_t)offset);
    } while (n < 0 && errno == EINTR);
    return n;
}

/* Where a transfer stands in the request's pieces. */
struct place {
    const struct iovec *iov;
    unsigned count;
    size_t done_bytes; /* of the first piece */
};

static void place_advance(struct place *place, size_t size_bytes)
{
    while (place->count > 0) {
        size_t left = place->iov->iov_len - place->done_bytes;
        if (size_bytes < left) {
            place->done_bytes += size_bytes;
            return;
        }
        size_bytes -= left;
        place->done_bytes = 0;
        place->iov++;
        place->count--;
    }
}

static void place_zero(struct place *place)
{
    for (; place->count > 0; place->iov++, place->count--, place->done_bytes = 0)
        memset((uint8_t *)place->iov->iov_base + place->done_bytes, 0,
               place->iov->iov_len - place->done_bytes);
}

static int raw_transfer(struct raw *raw, const struct block_request *request)
{
    bool write = request->kind == BLOCK_WRITE;
    struct place place = {request->iov, request->iov_count, 0};
    uint64_t offset = request->offset_bytes;
    place_advance(&place, 0); /* past empty pieces */
    while (place.count > 0) {
        /* A piece that is half done goes alone, so that the list need not be copied. */
        struct iovec rest = {(uint8_t *)place.iov->iov_base + place.done_bytes,
                             place.iov->iov_len - place.done_bytes};
        ssize_t n = place.done_bytes
                        ? transfer_once(raw->fd, write, &rest, 1, offset)
                        : transfer_once(raw->fd, write, place.iov, place.count, offset);
        if (n < 0)
            return errno;
        if (n == 0 && write)
            return ENOSPC;
        if (n == 0) { /* the end of a file that is shorter than the disk */
            place_zero(&place);
            return 0;
        }
        offset += (uint64_t)n;
        place_advance(&place, (size_t)n);
    }
    return 0;
}

static int raw_flush(struct raw *raw)
{
    int error = atomic_load(&raw->flush_error);
    if (error)
        return error;
    int result;
    do {
        result = fdatasync(raw->fd);
    } while (result < 0 && errno == EINTR);
    if (result == 0 || (raw->info.read_only && (errno == EROFS || errno == EINVAL)))
        return 0;
    error = errno;
    int none = 0;
    if (atomic_compare_exchange_strong(&raw->flush_error, &none, error))
        log_limited(raw->log, &raw->log_limit, LOG_ERROR, "raw",
                    "data may be lost: fdatasync: %s; every flush fails from now on",
                    strerror(error));
    return error;
}

static bool means_unsupported(int error)
{
    return error == EOPNOTSUPP || error == ENOSYS || error == EINVAL || error == ENODEV ||
           error == ENOTTY;
}

/* fallocate with an errno value as result; remembers in `unsupported` that it need not be tried. */
static int raw_fallocate(struct raw *raw, int mode, atomic_bool *unsupported, uint64_t offset,
                         uint64_t size_bytes)
{
    if (atomic_load_explicit(unsupported, memory_order_relaxed))
        return EOPNOTSUPP;
    int result;
    do {
        result = fallocate(raw->fd, mode, (off_t)offset, (off_t)size_bytes);
    } while (result < 0 && errno == EINTR);
    if (result == 0)
        return 0;
    int error = errno;
    if (!means_unsupported(error))
        return error;
    if (error != EINVAL) /* which a device says for a range that is not aligned */
        atomic_store_explicit(unsupported, true, memory_order_relaxed);
    return EOPNOTSUPP;
}

static int raw_punch(struct raw *raw, uint64_t offset, uint64_t size_bytes)
{
    return raw_fallocate(raw, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, &raw->no_punch_hole,
                         offset, size_bytes);
}

/* A discard is advice: what cannot be given back stays. */
static int raw_discard(struct raw *raw, uint64_t offset, uint64_t size_bytes)
{
    int error;
    if (raw->is_device) {
        uint64_t block = raw->logical_block_bytes;
        uint64_t first = (offset + block - 1) / block * block;
        uint64_t end = (offset + size_bytes) / block * block;
        if (first >= end)
            return 0;
        uint64_t range[2] = {first, end - first};
        error = ioctl(raw->fd, BLKDISCARD, range) < 0 ? errno : 0;
    } else {
        error = raw_punch(raw, offset, size_bytes);
    }
    return means_unsupported(error) ? 0 : error;
}

static int write_zero_bytes(struct raw *raw, uint64_t offset, uint64_t size_bytes)
{
    static const uint8_t zeroes[ZERO_CHUNK_BYTES];
    while (size_bytes > 0) {
        size_t chunk = size_bytes < sizeof(zeroes) ? (size_t)size_bytes : sizeof(zeroes);
        struct iovec iov = {(void *)(uintptr_t)zeroes, chunk};
        ssize_t n = transfer_once(raw->fd, true, &iov, 1, offset);
        if (n <= 0)
            return n < 0 ? errno : ENOSPC;
        offset += (uint64_t)n;
        size_bytes -= (uint64_t)n;
    }
    return 0;
}

static int raw_write_zeroes(struct raw *raw, const struct block_request *request)
{
    uint64_t offset = request->offset_bytes, size_bytes = request->size_bytes;
    int error = EOPNOTSUPP;
    if (request->may_unmap)
        error = raw_punch(raw, offset, size_bytes);
    if (error == EOPNOTSUPP)
        error = raw_fallocate(raw, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, &raw->no_zero_range,
                              offset, size_bytes);
    if (error == EOPNOTSUPP)
        error = write_zero_bytes(raw, offset, size_bytes);
    return error;
}

static bool in_range(const struct raw *raw, const struct block_request *request)
{
    return request->offset_bytes <= raw->info.size_bytes &&
           request->size_bytes <= raw->info.size_bytes - request->offset_bytes;
}

static int raw_perform(void *opaque, struct block_request *request)
{
    struct raw *raw = opaque;
    if (request->kind == BLOCK_FLUSH)
        return raw_flush(raw);
    if (!in_range(raw, request))
        return EINVAL;
    if (request->kind != BLOCK_READ && raw->info.read_only)
        return EROFS;
    if (request->size_bytes == 0)
        return 0;
    switch (request->kind) {
    case BLOCK_READ:
    case BLOCK_WRITE: return raw_transfer(raw, request);
    case BLOCK_DISCARD: return raw_discard(raw, request->offset_bytes, request->size_bytes);
    case BLOCK_WRITE_ZEROES: return raw_write_zeroes(raw, request);
    default: return EINVAL;
    }
}

/* ---- struct block_backend ---- */

static void raw_submit(void *opaque, struct block_request *request)
{
    struct raw *raw = opaque;
    block_queue_submit(raw->queue, request);
}

static void raw_info(void *opaque, struct block_info *info)
{
    const struct raw *raw = opaque;
    struct stat status;
    *info = raw->info;
    if (!raw->is_device && fstat(raw->fd, &status) == 0)
        info->changed_ns = (int64_t)status.st_mtim.tv_sec * 1000000000 + status.st_mtim.tv_nsec;
}

static void raw_drain(void *opaque)
{
    struct raw *raw = opaque;
    block_queue_drain(raw->queue);
}

static void raw_close(void *opaque)
{
    struct raw *raw = opaque;
    block_queue_destroy(raw->queue);
    if (!raw->info.read_only)
        (void)raw_flush(raw); /* logs its failure */
    close(raw->fd);
    free(raw);
}

/* ---- opening ---- */

/* Opens for what was asked; tells "may not be written" apart from "may not be read". */
static int open_image(const struct raw_config *config, const struct stat *status, struct error *err)
{
    int flags = O_CLOEXEC | O_NOCTTY | O_NONBLOCK | (config->read_only ? O_RDONLY : O_RDWR);
    if (S_ISBLK(status->st_mode) && !config->read_only)
        flags |= O_EXCL; /* fails when it is mounted or otherwise the kernel's */
    int fd = open(config->path, flags);
    if (fd >= 0)
        return fd;
    int error = errno;
    error_errno(err, attempt, config->path, error);
    bool is_denied = error == EACCES || error == EPERM || error == EROFS;
    if (is_denied && !config->read_only && access(config->path, R_OK) == 0) {
        error_set(err, attempt, config->path, "it is read-only: %s", strerror(error));
        error_hint(err, "add ,ro to use it without writing, or make it writable");
    } else if (is_denied) {
        error_hint(err, "give yourself access to it (ls -l shows who has it)");
    } else if (error == EBUSY) {
        error_set(err, attempt, config->path, "the host uses this device (is it mounted?)");
        error_hint(err, "unmount it first, or add ,ro to use it without writing");
    }
    return -1;
}

/* For a file that is missing or empty; `otherwise` where none can be made out of nothing. */
static bool hint_to_make(const struct raw_config *config, const char *otherwise, struct error *err)
{
    if (config->new_size)
        return error_hint(err, "create it with: truncate -s %s %.200s", config->new_size,
                          config->path);
    return error_hint(err, "%s", otherwise);
}

static bool check_kind(const struct raw_config *config, struct stat *status, struct error *err)
{
    const char *path = config->path;
    if (stat(path, status) < 0) {
        error_errno(err, attempt, path, errno);
        return hint_to_make(config, "check the path; it is taken from the current directory", err);
    }
    if (S_ISREG(status->st_mode) || S_ISBLK(status->st_mode))
        return true;
    if (S_ISDIR(status->st_mode)) {
        error_set(err, attempt, path, "it is a directory");
        return error_hint(err, "give the path of an image file or of a block device");
    }
    error_set(err, attempt, path, "it is neither a file nor a block device");
    return error_hint(err, "give the path of an image file or of a block device");
}

static bool lock_image(const struct raw *raw, const struct raw_config *config, struct error *err)
{
    switch (file_lock(raw->fd, !config->read_only)) {
    case FILE_LOCK_TAKEN: return true;
    case FILE_LOCK_UNSUPPORTED:
        log_write(config->log, LOG_WARNING, "raw",
                  "%s: its file system has no locks: make sure that nobody else uses it",
                  config->path);
        return true;
    default: break;
    }
    char holder[64];
    error_set(err, attempt, config->path, "it is in use (locked) by another virtual machine");
    if (file_lock_holder(raw->fd, holder, sizeof(holder)))
        return error_hint(err, "stop %s, or use a copy of the image", holder);
    return error_hint(err, "stop who uses it, or use a copy of the image");
}

/* Marks that images of other formats begin with. */
static const struct {
    const char *format, *qemu_name;
    unsigned offset, size_bytes;
    char mark[24];
} formats[] = {
    {"qcow2", "qcow2", 0, 4, "QFI\xfb"},
    {"qed", "qed", 0, 4, "QED"},
    {"vmdk", "vmdk", 0, 4, "KDMV"},
    {"vmdk", "vmdk", 0, 4, "COWD"},
    {"vmdk", "vmdk", 0, 21, "# Disk DescriptorFile"},
    {"vdi", "vdi", 0x40, 4, "\x7f\x10\xda\xbe"},
    {"vhdx", "vhdx", 0, 8, "vhdxfile"},
    {"vhd", "vpc", 0, 8, "conectix"},
};

static bool check_format(const struct raw *raw, const struct raw_config *config, struct error *err)
{
    uint8_t start[SECTOR_BYTES] = {0};
    struct iovec iov = {start, sizeof(start)};
    if (transfer_once(raw->fd, false, &iov, 1, 0) < 0)
        return error_errno(err, "cannot read disk image", config->path, errno);
    if (config->is_surely_raw)
        return true;
    for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++) {
        if (memcmp(start + formats[i].offset, formats[i].mark, formats[i].size_bytes) != 0)
            continue;
        error_set(err, attempt, config->path, "it is a %s image, not a raw one", formats[i].format);
        return error_hint(err, "convert it: qemu-img convert -f %s -O raw %.80s NEW.raw",
                          formats[i].qemu_name, config->path);
    }
    return true;
}

/* Does the file system punch holes? Asked behind the end of the file, where it changes nothing. */
static bool file_punches(const struct raw *raw, const struct stat *status)
{
    off_t behind = (status->st_size + 4095) / 4096 * 4096;
    if (fallocate(raw->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, behind, 4096) != 0)
        return false;
    /* Nothing has changed, and saved machines look at the time. */
    const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, status->st_mtim};
    (void)futimens(raw->fd, times);
    return true;
}

static void measure_file(struct raw *raw, const struct stat *status)
{
    uint64_t size_bytes = (uint64_t)status->st_size;
    uint32_t block = (uint32_t)status->st_blksize;
    if (block < SECTOR_BYTES || block > 65536 || (block & (block - 1)))
        block = 4096;
    raw->logical_block_bytes = 1;
    raw->info.size_bytes = (size_bytes + SECTOR_BYTES - 1) / SECTOR_BYTES * SECTOR_BYTES;
    raw->info.physical_block_bytes = block;
    raw->info.discard_granularity_bytes = block;
    raw->info.can_discard = !raw->info.read_only && file_punches(raw, status);
}

/* A number from the device's queue folder in sysfs; a partition's is its disk's. */
static uint64_t device_queue_value(dev_t device, const char *name)
{
    static const char *const places[] = {"queue", "../queue"};
    for (size_t i = 0; i < 2; i++) {
        char path[128];
        unsigned long long value = 0;
        snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/%s/%s", major(device), minor(device),
                 places[i], name);
        FILE *file = fopen(path, "re");
        if (!file)
            continue;
        int got = fscanf(file, "%llu", &value);
        fclose(file);
        return got == 1 ? value : 0;
    }
    return 0;
}

static bool measure_device(struct raw *raw, const struct stat *status, struct error *err)
{
    int logical = 0;
    unsigned physical = 0;
    if (ioctl(raw->fd, BLKGETSIZE64, &raw->info.size_bytes) < 0)
        return error_errno(err, "cannot find the size of disk", NULL, errno);
    if (ioctl(raw->fd, BLKSSZGET, &logical) < 0 || logical < SECTOR_BYTES)
        logical = SECTOR_BYTES;
    if (ioctl(raw->fd, BLKPBSZGET, &physical) < 0 || physical < (unsigned)logical)
        physical = (unsigned)logical;
    raw->logical_block_bytes = (uint32_t)logical;
    raw->info.physical_block_bytes = physical;
    uint64_t granularity = device_queue_value(status->st_rdev, "discard_granularity");
    raw->info.can_discard = !raw->info.read_only && granularity > 0 &&
                            device_queue_value(status->st_rdev, "discard_max_bytes") > 0;
    raw->info.discard_granularity_bytes =
        granularity >= SECTOR_BYTES && granularity <= UINT32_MAX ? (uint32_t)granularity : physical;
    return true;
}

static bool measure(struct raw *raw, const struct raw_config *config, struct error *err)
{
    const char *path = config->path;
    struct stat status;
    if (fstat(raw->fd, &status) < 0)
        return error_errno(err, attempt, path, errno);
    raw->is_device = S_ISBLK(status.st_mode);
    if (!raw->is_device)
        measure_file(raw, &status);
    else if (!measure_device(raw, &status, err))
        return false;
    if (raw->info.size_bytes == 0) {
        error_set(err, attempt, path, "it is empty");
        if (raw->is_device)
            return error_hint(err, "give a block device with a medium in it");
        return hint_to_make(config, "copy or download it again", err);
    }
    return true;
}

static bool raw_setup(struct raw *raw, const struct raw_config *config, struct loop *loop,
                      struct error *err)
{
    if (!lock_image(raw, config, err) || !measure(raw, config, err) ||
        !check_format(raw, config, err))
        return false;
    raw->queue = block_queue_create(loop, RAW_THREADS, raw_perform, raw, err);
    return raw->queue != NULL;
}

bool raw_open(const struct raw_config *config, struct loop *loop, struct block_backend *out,
              struct error *err)
{
    struct stat status;
    fd_ignore_signals();
    if (!check_kind(config, &status, err))
        return false;
    int fd = open_image(config, &status, err);
    if (fd < 0)
        return false;
    struct raw *raw = calloc(1, sizeof(*raw));
    if (!raw) {
        close(fd);
        return error_errno(err, attempt, config->path, ENOMEM);
    }
    raw->fd = fd;
    raw->log = config->log;
    raw->info.read_only = config->read_only;
    if (!raw_setup(raw, config, loop, err)) {
        close(fd);
        free(raw);
        return false;
    }
    *out = (struct block_backend){raw_submit, raw_info, raw_drain, raw_close, raw};
    return true;
}
