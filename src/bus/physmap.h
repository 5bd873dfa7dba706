/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What of the guest-physical addresses is memory: RAM, and what devices lay under or over it (ROM,
 * flash, frame buffers, shadow RAM). Where nothing is, accesses reach the bus; so do writes to
 * memory that can only be read. Device DMA does not come by here: ram.h is RAM as it is without
 * what lies over it.
 *
 * Changes come from any thread, also while processors run: an access of a processor that makes the
 * change itself sees it from the next instruction on, the others soon after. They are made under
 * one lock, which is taken last: a device's lock may be held.
 */
#ifndef SKEP_BUS_PHYSMAP_H
#define SKEP_BUS_PHYSMAP_H

#include "base/error.h"
#include "bus/ram.h"

#include <stdbool.h>
#include <stdint.h>

enum { PHYSMAP_MAX_RANGES = 64 };

/* Which one is seen where several are: a BAR that the guest lays over RAM stays invisible. */
enum physmap_layer {
    PHYSMAP_DEVICE, /* BARs, flash: under RAM */
    PHYSMAP_RAM,    /* ram.h's, put there by physmap_create() */
    PHYSMAP_SHADOW, /* what the chipset lays over RAM */
    PHYSMAP_LAYERS
};

struct physmap_range {
    uint64_t gpa;
    uint64_t size_bytes; /* whole pages of 4 KiB, as are gpa and hva */
    uint8_t *hva;        /* NULL: no memory, whatever is below; for PHYSMAP_SHADOW */
    bool read_only;
    bool is_logged; /* physmap_take_written() is going to be asked about it */
};

/* An engine. `set` gets all there is, in the order of addresses, without overlaps; every hva that
 * it was ever given stays mapped on the host until the engine is closed. */
struct physmap_listener {
    bool (*set)(void *opaque, const struct physmap_range *ranges, unsigned count,
                struct error *err);
    void (*take_written)(void *opaque, const uint8_t *hva, uint64_t size_bytes, uint64_t *pages);
    void *opaque;
};

struct physmap;

/* With RAM in it. NULL: out of memory. `ram` must outlive it. */
struct physmap *physmap_create(const struct ram *ram);
void physmap_destroy(struct physmap *map); /* NULL is fine */

/* Gives the listener what there is, now and after each change. Before vCPUs run. NULL: no more. */
bool physmap_set_listener(struct physmap *map, const struct physmap_listener *listener,
                          struct error *err);

/* Lays a range into a layer, or replaces the one there with the same address and size. Fails, and
 * changes nothing, when it meets another one of that layer, when there are too many, or when the
 * engine has no room. */
bool physmap_map(struct physmap *map, enum physmap_layer layer, const struct physmap_range *range,
                 struct error *err);

/* Takes away the layer's range that begins at gpa, if there is one. */
void physmap_unmap(struct physmap *map, enum physmap_layer layer, uint64_t gpa);

/* What is at gpa: the piece that is seen, cut by what lies over it. False: nothing, or no memory.
 */
bool physmap_find(struct physmap *map, uint64_t gpa, struct physmap_range *range);

/* Copies; false (and nothing copied) unless all of it is memory. */
bool physmap_read(struct physmap *map, uint64_t gpa, void *buffer, uint64_t size_bytes);

/* Sets bit n of pages[] (64 a word; cleared first) when page n of the host's memory [hva, hva +
 * size), which is or was a logged range, may have been written by the guest since the last call.
 * A page is never missed; one that was not written may be told, all of them after it has moved. */
void physmap_take_written(struct physmap *map, const uint8_t *hva, uint64_t size_bytes,
                          uint64_t *pages);

#endif
