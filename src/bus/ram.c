/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Guest RAM: one memfd, one mapping, two regions of guest-physical addresses. Any thread.
 *
 * The file is sealed against a change of its size, so that no process it is shared with can make
 * an access fault. No huge pages are asked for: a balloon gives memory back by the 4 KiB page. */
#include "bus/ram.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { REGION_MAX = 2 };

/* Little enough that a guest which uses one page of each piece still fits its host. */
#define TOUCH_BYTES (UINT64_C(512) << 10)

struct ram {
    uint64_t size_bytes;
    uint8_t *hva;
    int fd;
    bool has_overlay;
    unsigned region_count;
    struct ram_region regions[REGION_MAX];
    atomic_uchar *touched; /* a bit each for pieces of TOUCH_BYTES; NULL: not kept */
    _Atomic(ram_watch_fn *) watch;
    _Atomic(void *) watch_opaque;
};

static const char what_create[] = "cannot make the guest's memory";

static bool check_size(uint64_t size_bytes, struct error *err)
{
    if (size_bytes == 0 || size_bytes % RAM_PAGE_BYTES != 0) {
        error_usage(err, what_create, NULL,
                    "%" PRIu64 " bytes is not a multiple of 4096 bytes above 0", size_bytes);
        return error_hint(err, "give a size like 512M or 2G");
    }
    long pages = sysconf(_SC_PHYS_PAGES);
    long page_bytes = sysconf(_SC_PAGESIZE);
    uint64_t host_bytes = INT64_MAX;
    if (pages > 0 && page_bytes > 0)
        __builtin_mul_overflow((uint64_t)pages, (uint64_t)page_bytes, &host_bytes);
    if (size_bytes > host_bytes || size_bytes > INT64_MAX || size_bytes > SIZE_MAX) {
        error_set(err, what_create, NULL,
                  "%" PRIu64 " MiB is more than the %" PRIu64 " MiB that the host has",
                  size_bytes >> 20, host_bytes >> 20);
        return error_hint(err, "choose a size well below %" PRIu64 "M", host_bytes >> 20);
    }
    return true;
}

static bool map_file(struct ram *ram, struct error *err)
{
    ram->fd = memfd_create("skep-ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (ram->fd < 0)
        return error_errno(err, what_create, "memfd", errno);
    if (ftruncate(ram->fd, (off_t)ram->size_bytes) != 0 ||
        fcntl(ram->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0)
        return error_errno(err, what_create, "memfd", errno);
    void *hva =
        mmap(NULL, ram->size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, ram->fd, 0);
    if (hva == MAP_FAILED) {
        error_errno(err, what_create, "memfd", errno);
        return error_hint(err, "see whether `ulimit -v` limits the address space");
    }
    ram->hva = hva;
    madvise(hva, ram->size_bytes, MADV_DONTDUMP);
    return true;
}

static void add_region(struct ram *ram, uint64_t gpa, uint64_t file_offset, uint64_t size_bytes)
{
    ram->regions[ram->region_count++] = (struct ram_region){
        .gpa = gpa,
        .size_bytes = size_bytes,
        .hva = ram->hva + file_offset,
        .file_offset = file_offset,
    };
}

struct ram *ram_create(uint64_t size_bytes, struct error *err)
{
    if (!check_size(size_bytes, err))
        return NULL;
    struct ram *ram = calloc(1, sizeof(*ram));
    if (!ram) {
        error_errno(err, what_create, NULL, ENOMEM);
        return NULL;
    }
    ram->size_bytes = size_bytes;
    if (!map_file(ram, err)) {
        ram_destroy(ram);
        return NULL;
    }
    ram->touched = calloc(size_bytes / TOUCH_BYTES / 8 + 1, 1);
    uint64_t low_bytes = size_bytes < RAM_LOW_MAX_BYTES ? size_bytes : RAM_LOW_MAX_BYTES;
    add_region(ram, 0, 0, low_bytes);
    if (size_bytes > low_bytes)
        add_region(ram, RAM_HIGH_BASE, low_bytes, size_bytes - low_bytes);
    return ram;
}

void ram_destroy(struct ram *ram)
{
    if (!ram)
        return;
    if (ram->hva)
        munmap(ram->hva, ram->size_bytes);
    if (ram->fd >= 0)
        close(ram->fd);
    free(ram->touched);
    free(ram);
}

uint64_t ram_size_bytes(const struct ram *ram)
{
    return ram->size_bytes;
}

int ram_fd(const struct ram *ram)
{
    return ram->fd;
}

unsigned ram_region_count(const struct ram *ram)
{
    return ram->region_count;
}

const struct ram_region *ram_region(const struct ram *ram, unsigned index)
{
    return index < ram->region_count ? &ram->regions[index] : NULL;
}

void *ram_hva(const struct ram *ram, uint64_t gpa, uint64_t size_bytes)
{
    if (size_bytes == 0)
        return NULL;
    for (unsigned i = 0; i < ram->region_count; i++) {
        const struct ram_region *region = &ram->regions[i];
        uint64_t offset = gpa - region->gpa; /* wraps below the region, and is then too large */
        if (offset < region->size_bytes && size_bytes <= region->size_bytes - offset)
            return region->hva + offset;
    }
    return NULL;
}

bool ram_read(const struct ram *ram, uint64_t gpa, void *buffer, size_t size_bytes)
{
    if (size_bytes == 0)
        return true;
    const void *source = ram_hva(ram, gpa, size_bytes);
    if (!source)
        return false;
    memcpy(buffer, source, size_bytes);
    return true;
}

bool ram_write(struct ram *ram, uint64_t gpa, const void *buffer, size_t size_bytes)
{
    if (size_bytes == 0)
        return true;
    void *target = ram_hva(ram, gpa, size_bytes);
    if (!target)
        return false;
    memcpy(target, buffer, size_bytes);
    ram_written(ram, gpa, size_bytes);
    return true;
}

void ram_written(struct ram *ram, uint64_t gpa, uint64_t size_bytes)
{
    ram_watch_fn *watch = atomic_load_explicit(&ram->watch, memory_order_relaxed);
    /* A watcher indexes tables by address: it is told of RAM only. */
    if (!watch || !ram_hva(ram, gpa, size_bytes))
        return;
    watch(atomic_load_explicit(&ram->watch_opaque, memory_order_relaxed), gpa, size_bytes);
}

void ram_set_watcher(struct ram *ram, ram_watch_fn *fn, void *opaque)
{
    atomic_store(&ram->watch_opaque, opaque);
    atomic_store(&ram->watch, fn);
}

static bool punch(struct ram *ram, uint64_t file_offset, uint64_t size_bytes)
{
    int result;
    do {
        result = fallocate(ram->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)file_offset,
                           (off_t)size_bytes);
    } while (result != 0 && errno == EINTR);
    return result == 0;
}

/* Where an overlay may be, what is seen again is the memfd, which has a hole there. Neighbouring
 * pieces become one mapping. If the host allows no more mappings: zeroes, at the price of pages. */
static void uncover(struct ram *ram, uint64_t file_offset, uint64_t size_bytes)
{
    void *at = ram->hva + file_offset;
    if (mmap(at, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE | MAP_FIXED,
             ram->fd, (off_t)file_offset) == MAP_FAILED)
        memset(at, 0, size_bytes);
    else
        madvise(at, size_bytes, MADV_DONTDUMP);
}

bool ram_discard(struct ram *ram, uint64_t gpa, uint64_t size_bytes)
{
    uint8_t *hva = ram_hva(ram, gpa, size_bytes);
    if (!hva)
        return size_bytes == 0;
    /* The range is inside a region, so nothing below can overflow. */
    uint64_t first = (gpa + RAM_PAGE_BYTES - 1) & ~(RAM_PAGE_BYTES - 1);
    uint64_t end = (gpa + size_bytes) & ~(RAM_PAGE_BYTES - 1);
    if (first >= end)
        return true;
    uint64_t file_offset = (uint64_t)(hva - ram->hva) + (first - gpa);
    if (!punch(ram, file_offset, end - first))
        return false;
    if (ram->has_overlay)
        uncover(ram, file_offset, end - first);
    ram_written(ram, first, end - first);
    return true;
}

/* What an overlay's pages hold is nowhere else, so their mapping stays. A change of its rights that
 * takes none away is a change all the same for who follows it. */
static bool touch_overlay(void *hva, uint64_t size_bytes)
{
    return mprotect(hva, size_bytes, PROT_READ | PROT_WRITE | PROT_EXEC) == 0 &&
           mprotect(hva, size_bytes, PROT_READ | PROT_WRITE) == 0;
}

/* MAP_FIXED replaces a mapping in one step: an access in between waits for it. */
static bool map_again(struct ram *ram, uint8_t *hva, uint64_t size_bytes)
{
    void *mapped = mmap(hva, size_bytes, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_NORESERVE | MAP_FIXED, ram->fd, (off_t)(hva - ram->hva));
    if (mapped == MAP_FAILED)
        return false;
    madvise(hva, size_bytes, MADV_DONTDUMP);
    return true;
}

bool ram_remap(struct ram *ram, uint64_t gpa, uint64_t size_bytes)
{
    uint8_t *hva = ram_hva(ram, gpa, size_bytes);
    if (!hva || ((gpa | size_bytes) & (RAM_PAGE_BYTES - 1)))
        return false;
    if (!(ram->has_overlay ? touch_overlay(hva, size_bytes) : map_again(ram, hva, size_bytes)))
        return false;
    ram_written(ram, gpa, size_bytes);
    return true;
}

void ram_touch(struct ram *ram, const uint8_t *hva)
{
    uint64_t offset = (uint64_t)(hva - ram->hva), piece = offset / TOUCH_BYTES;
    if (offset >= ram->size_bytes || !ram->touched || ram->has_overlay)
        return;
    atomic_uchar *byte = &ram->touched[piece / 8];
    unsigned char bit = (unsigned char)(1u << piece % 8);
    if (atomic_load_explicit(byte, memory_order_relaxed) & bit)
        return;
    atomic_fetch_or_explicit(byte, bit, memory_order_relaxed);
    uint64_t start = piece * TOUCH_BYTES, left = ram->size_bytes - start;
    /* Refused by kernels before 5.14; then each page has its fault. */
    madvise(ram->hva + start, left < TOUCH_BYTES ? left : TOUCH_BYTES, MADV_POPULATE_WRITE);
}

static void all_written(struct ram *ram)
{
    for (unsigned i = 0; i < ram->region_count; i++)
        ram_written(ram, ram->regions[i].gpa, ram->regions[i].size_bytes);
}

void ram_clear(struct ram *ram)
{
    bool is_punched = punch(ram, 0, ram->size_bytes);
    if (ram->has_overlay)
        uncover(ram, 0, ram->size_bytes);
    ram->has_overlay = false;
    if (!is_punched)
        memset(ram->hva, 0, ram->size_bytes);
    all_written(ram);
}

bool ram_overlay(struct ram *ram, int fd, uint64_t offset, struct error *err)
{
    if (mmap(ram->hva, ram->size_bytes, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED, fd, (off_t)offset) == MAP_FAILED)
        return error_errno(err, "cannot map the guest's memory", NULL, errno);
    madvise(ram->hva, ram->size_bytes, MADV_DONTDUMP);
    ram->has_overlay = true;
    all_written(ram);
    return true;
}

const uint8_t *ram_bytes(const struct ram *ram)
{
    return ram->hva;
}

/* Under an overlay all counts: what of a private mapping was written is not to be asked cheaply,
 * and reading a hole of a file costs no memory that the host can't take back. */
bool ram_next_used(const struct ram *ram, uint64_t *offset, uint64_t *end)
{
    if (*offset >= ram->size_bytes)
        return false;
    *end = ram->size_bytes;
    if (ram->has_overlay)
        return true;
    off_t data = lseek(ram->fd, (off_t)*offset, SEEK_DATA);
    if (data < 0)
        return errno != ENXIO; /* all of it, where the host can't tell */
    off_t hole = lseek(ram->fd, data, SEEK_HOLE);
    *offset = (uint64_t)data & ~(RAM_PAGE_BYTES - 1);
    if (hole > data && (uint64_t)hole < ram->size_bytes)
        *end = ((uint64_t)hole + RAM_PAGE_BYTES - 1) & ~(RAM_PAGE_BYTES - 1);
    return true;
}
