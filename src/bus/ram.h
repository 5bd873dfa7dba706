/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Guest RAM: one memfd, mapped once. The part below the PCI hole starts at gpa 0, the rest at
 * 4 GiB. Pages are given by the host when first touched. Everything a device reads or writes in
 * guest memory goes through here; addresses come from the guest and are not trusted.
 *
 * The memory of a saved machine can be laid over it: a private mapping of its file, of which pages
 * come in as they are touched and the guest's writes are kept by this process alone.
 */
#ifndef SKEP_BUS_RAM_H
#define SKEP_BUS_RAM_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RAM_LOW_MAX_BYTES UINT64_C(0xb0000000) /* RAM below 4 GiB ends here at the latest */
#define RAM_HIGH_BASE     UINT64_C(0x100000000)
#define RAM_PAGE_BYTES    UINT64_C(4096)

struct ram_region {
    uint64_t gpa;
    uint64_t size_bytes;
    uint8_t *hva;
    uint64_t file_offset; /* in the memfd */
};

struct ram;

/* `size_bytes` must be a multiple of 4096 and not 0; fails when it exceeds the host's memory. */
struct ram *ram_create(uint64_t size_bytes, struct error *err);
void ram_destroy(struct ram *ram);

uint64_t ram_size_bytes(const struct ram *ram);
int ram_fd(const struct ram *ram); /* stays ram's; after ram_overlay() not where the contents are */
unsigned ram_region_count(const struct ram *ram);
const struct ram_region *ram_region(const struct ram *ram, unsigned index);

/* The host address of [gpa, gpa + size_bytes), or NULL unless all of it lies in one region.
 * Whoever writes through it calls ram_written() after. size 0 gives NULL. */
void *ram_hva(const struct ram *ram, uint64_t gpa, uint64_t size_bytes);

/* Copies; false (and nothing copied) unless all of the range is RAM. ram_write tells the watcher.
 */
bool ram_read(const struct ram *ram, uint64_t gpa, void *buffer, size_t size_bytes);
bool ram_write(struct ram *ram, uint64_t gpa, const void *buffer, size_t size_bytes);

/* A device has written [gpa, gpa + size_bytes), after the fact and before the guest is told: the
 * engine forgets what it decoded there. Cheap when nobody watches. Any thread. */
void ram_written(struct ram *ram, uint64_t gpa, uint64_t size_bytes);

/* The engine's interest in ram_written(); one watcher. Set before vCPUs run. */
typedef void ram_watch_fn(void *opaque, uint64_t gpa, uint64_t size_bytes);
void ram_set_watcher(struct ram *ram, ram_watch_fn *fn, void *opaque);

/* Gives whole pages inside the range back to the host; they read as zero after. */
bool ram_discard(struct ram *ram, uint64_t gpa, uint64_t size_bytes);

/* Takes the host's mapping of whole pages away and makes it anew at the same place, contents kept:
 * whoever follows the mapping (KVM) or remembers what is there (ram_set_watcher) looks again. Other
 * threads may use the memory meanwhile. False: not whole pages of RAM, or the host refuses. */
bool ram_remap(struct ram *ram, uint64_t gpa, uint64_t size_bytes);

/* The guest is about to use memory at this host address, perhaps for the first time: the host is
 * asked for the pages around it at once, which costs less than a fault for each. Only the first
 * call for such a piece does anything, so that what a balloon has given back stays given back. Any
 * thread. */
void ram_touch(struct ram *ram, const uint8_t *hva);

/* Zeroes all of RAM by giving it back; an overlay is gone. */
void ram_clear(struct ram *ram);

/* Lays the file's bytes from `offset` (a multiple of 4096) over all of RAM, privately. The caller
 * may close `fd`; the file must not change as long as the memory is in use. Before vCPUs run. */
bool ram_overlay(struct ram *ram, int fd, uint64_t offset, struct error *err);

/* RAM as one piece, both regions in the order of their addresses: how it lies in a file. */
const uint8_t *ram_bytes(const struct ram *ram);

/* The first run at or after *offset that may hold anything but zeroes: sets *offset and *end, in
 * whole pages. False when there is none. Reading elsewhere would only make the host give pages. */
bool ram_next_used(const struct ram *ram, uint64_t *offset, uint64_t *end);

#endif
