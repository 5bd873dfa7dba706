/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Lists of pieces of guest memory.
 */
#include "dev/storage/dma_list.h"

#include <stdlib.h>

enum { FIRST_ROOM = 32 };

void dma_list_clear(struct dma_list *list)
{
    list->count = 0;
    list->size_bytes = 0;
}

void dma_list_free(struct dma_list *list)
{
    free(list->iov);
    free(list->gpas);
    *list = (struct dma_list){0};
}

static bool grow(struct dma_list *list)
{
    unsigned room = list->room ? 2 * list->room : FIRST_ROOM;
    struct iovec *iov = realloc(list->iov, room * sizeof(*iov));
    if (!iov)
        return false;
    list->iov = iov;
    uint64_t *gpas = realloc(list->gpas, room * sizeof(*gpas));
    if (!gpas)
        return false;
    list->gpas = gpas;
    list->room = room;
    return true;
}

bool dma_list_add(struct dma_list *list, const struct ram *ram, uint64_t gpa, uint64_t size_bytes)
{
    void *hva = ram_hva(ram, gpa, size_bytes);
    if (!hva || (list->count == list->room && !grow(list)))
        return false;
    list->iov[list->count] = (struct iovec){hva, (size_t)size_bytes};
    list->gpas[list->count++] = gpa;
    list->size_bytes += size_bytes;
    return true;
}

void dma_list_written(const struct dma_list *list, struct ram *ram, uint64_t size_bytes)
{
    for (unsigned i = 0; i < list->count && size_bytes; i++) {
        uint64_t n = list->iov[i].iov_len < size_bytes ? list->iov[i].iov_len : size_bytes;
        ram_written(ram, list->gpas[i], n);
        size_bytes -= n;
    }
}
