/* SPDX-License-Identifier: BSD-2-Clause
 *
 * How an ISA device moves data by a DMA controller: one channel of it. Any thread, with the
 * device's lock held; the controller takes its own and never calls back.
 */
#ifndef SKEP_BUS_DMA_H
#define SKEP_BUS_DMA_H

#include <stdbool.h>
#include <stddef.h>

struct dma_channel {
    /* Moves up to `size_bytes` between `buffer` and guest memory, as the channel is programmed;
     * returns how many it was. Fewer: the count has run out (*is_over), or the channel is masked. A
     * channel set to verify counts, but moves nothing. */
    size_t (*move)(void *opaque, unsigned number, void *buffer, size_t size_bytes, bool to_memory,
                   bool *is_over);
    void *opaque;
    unsigned number;
};

/* A channel that is not connected (move == NULL) moves nothing. */
static inline size_t dma_move(const struct dma_channel *channel, void *buffer, size_t size_bytes,
                              bool to_memory, bool *is_over)
{
    *is_over = false;
    if (!channel->move)
        return 0;
    return channel->move(channel->opaque, channel->number, buffer, size_bytes, to_memory, is_over);
}

#endif
