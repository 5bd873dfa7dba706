/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The pieces of guest memory that a command's data is in, as a controller collects them from the
 * guest's tables. Addresses are the guest's; only what is RAM is taken.
 */
#ifndef SKEP_DEV_STORAGE_DMA_LIST_H
#define SKEP_DEV_STORAGE_DMA_LIST_H

#include "bus/ram.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

/* All zeroes is an empty one. */
struct dma_list {
    struct iovec *iov;
    uint64_t *gpas;
    unsigned count, room;
    uint64_t size_bytes;
};

void dma_list_clear(struct dma_list *list); /* keeps its memory for the next use */
void dma_list_free(struct dma_list *list);

/* Adds a piece at the end. False: it is no RAM, or there is no memory for it. */
bool dma_list_add(struct dma_list *list, const struct ram *ram, uint64_t gpa, uint64_t size_bytes);

/* The first `size_bytes` of it were written by a device. */
void dma_list_written(const struct dma_list *list, struct ram *ram, uint64_t size_bytes);

#endif
