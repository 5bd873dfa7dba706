/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The map of the guest's memory.
 */
#include "machine/memory_map.h"

#include <assert.h>

void memory_map_add(struct memory_map *map, uint64_t gpa, uint64_t size_bytes,
                    enum memory_kind kind)
{
    if (!size_bytes)
        return;
    assert(map->count < MEMORY_MAP_MAX);
    assert(!map->count ||
           map->range[map->count - 1].gpa + map->range[map->count - 1].size_bytes <= gpa);
    map->range[map->count++] = (struct memory_range){gpa, size_bytes, kind};
}

uint64_t memory_map_usable_end(const struct memory_map *map, uint64_t gpa)
{
    for (unsigned i = 0; i < map->count; i++) {
        const struct memory_range *range = &map->range[i];
        if (range->kind == MEMORY_USABLE && gpa >= range->gpa &&
            gpa - range->gpa < range->size_bytes)
            return range->gpa + range->size_bytes;
    }
    return 0;
}
