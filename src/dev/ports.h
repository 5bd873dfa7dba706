/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What the legacy chips share: each has byte-wide registers on a bus that splits a wider access
 * into bytes, lowest address first (ISA System Architecture), and maps several ranges or none.
 */
#ifndef SKEP_DEV_PORTS_H
#define SKEP_DEV_PORTS_H

#include "bus/bus.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t ports_read_fn(void *device, unsigned offset);
typedef void ports_write_fn(void *device, unsigned offset, uint8_t value);

/* Reads each byte of the access that lies inside the range; bytes past its end read as 0xff. */
static inline uint64_t ports_read(ports_read_fn *read, void *device, uint64_t range_bytes,
                                  uint64_t offset, unsigned size_bytes)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < size_bytes; i++) {
        uint8_t byte = offset + i < range_bytes ? read(device, (unsigned)(offset + i)) : 0xff;
        value |= (uint64_t)byte << (8 * i);
    }
    return value;
}

/* Writes each byte of the access that lies inside the range. */
static inline void ports_write(ports_write_fn *write, void *device, uint64_t range_bytes,
                               uint64_t offset, uint64_t value, unsigned size_bytes)
{
    for (unsigned i = 0; i < size_bytes && offset + i < range_bytes; i++)
        write(device, (unsigned)(offset + i), (uint8_t)(value >> (8 * i)));
}

/* Unmaps the first `count` ranges. */
static inline void ports_unmap_all(struct bus *bus, const struct bus_range *ranges, size_t count)
{
    for (size_t i = 0; i < count; i++)
        bus_unmap(bus, ranges[i].space, ranges[i].base);
}

/* Maps all ranges or none; false and `err` filled when one of them cannot be mapped. */
static inline bool ports_map_all(struct bus *bus, const struct bus_range *ranges, size_t count,
                                 struct error *err)
{
    for (size_t i = 0; i < count; i++) {
        if (!bus_map(bus, &ranges[i], err)) {
            ports_unmap_all(bus, ranges, i);
            return false;
        }
    }
    return true;
}

#endif
