/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Ranges of ports and MMIO, and who answers them. Engines call bus_read and bus_write from vCPU
 * threads; devices map their ranges when the machine is built, and PCI functions move theirs when
 * the guest writes a BAR. A callback runs without any lock of the bus, takes the device's own
 * lock, and may call back into the bus.
 */
#ifndef SKEP_BUS_BUS_H
#define SKEP_BUS_BUS_H

#include "base/error.h"
#include "base/log.h"

#include <stdbool.h>
#include <stdint.h>

struct bus;

enum bus_space { BUS_PORT, BUS_MMIO };

/* `offset` counts from the range's base. `size_bytes` is 1, 2, 4 or 8 (ports: at most 4). An access
 * that runs past the end of its range reaches only the first range, with its whole size: a device
 * must check offset + size. A value read is cut to size_bytes by the bus. */
typedef uint64_t bus_read_fn(void *opaque, uint64_t offset, unsigned size_bytes);
typedef void bus_write_fn(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes);

struct bus_range {
    const char *name; /* static text, for messages */
    enum bus_space space;
    uint64_t base;
    uint64_t size_bytes;
    bus_read_fn *read;   /* NULL: reads give all ones */
    bus_write_fn *write; /* NULL: writes are dropped */
    void *opaque;
};

/* Where a write only rings: the value and size do not matter. An engine may turn it into an
 * ioeventfd, so `ring` runs on a vCPU thread or on the loop's thread. */
typedef void bus_ring_fn(void *opaque);
struct bus_doorbell {
    enum bus_space space;
    uint64_t base;
    unsigned size_bytes; /* of the address range that rings */
    bus_ring_fn *ring;
    void *opaque;
};

/* Told of doorbells as they come and go (and, when set, of those there are); for engines. */
struct bus_listener {
    void (*added)(void *opaque, const struct bus_doorbell *doorbell);
    void (*removed)(void *opaque, const struct bus_doorbell *doorbell);
    void *opaque;
};

struct bus *bus_create(const struct log *log);

/* Told of each access to a port that nothing answers, on the vCPU's thread; before vCPUs run. */
typedef void bus_stray_fn(void *opaque, uint64_t port, bool is_write, unsigned size_bytes);
void bus_set_stray(struct bus *bus, bus_stray_fn *stray, void *opaque);
void bus_destroy(struct bus *bus);

/* Copies `range`. Fails when it overlaps a mapped range of the same space or wraps. Any thread. */
bool bus_map(struct bus *bus, const struct bus_range *range, struct error *err);

/* Removes the range with this base. A callback of it may still run on another thread. */
void bus_unmap(struct bus *bus, enum bus_space space, uint64_t base);

/* A doorbell lies over a mapped range and takes its writes. Never fails; at most one per address.
 */
void bus_doorbell_add(struct bus *bus, const struct bus_doorbell *doorbell);
void bus_doorbell_remove(struct bus *bus, enum bus_space space, uint64_t base);
void bus_set_listener(struct bus *bus, const struct bus_listener *listener); /* NULL to remove */

/* No range there: reads give all ones, writes vanish, both with a rate-limited debug line. */
uint64_t bus_read(struct bus *bus, enum bus_space space, uint64_t address, unsigned size_bytes);
void bus_write(struct bus *bus, enum bus_space space, uint64_t address, uint64_t value,
               unsigned size_bytes);

#endif
