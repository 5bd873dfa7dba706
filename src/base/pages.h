/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Memory that gets into use from its start on: the host is asked for its pages a piece at a time,
 * which costs less than a fault for each.
 */
#ifndef SKEP_BASE_PAGES_H
#define SKEP_BASE_PAGES_H

#include <stddef.h>
#include <stdint.h>

struct pages {
    uint8_t *start; /* a mapping's */
    size_t size_bytes;
    size_t piece_bytes; /* a multiple of the page size */
    size_t ready_bytes; /* 0 at first */
};

void pages_populate_piece(struct pages *pages);

/* The first `used_bytes` are in use, and what follows soon will be. */
static inline void pages_use(struct pages *pages, size_t used_bytes)
{
    if (used_bytes >= pages->ready_bytes && pages->ready_bytes < pages->size_bytes)
        pages_populate_piece(pages);
}

#endif
