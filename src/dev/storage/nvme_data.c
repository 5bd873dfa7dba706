/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A command's data in guest memory: PRP entries and lists (NVM Express 1.4, 4.3). Each entry is
 * copied once. A list is followed only as far as the transfer needs it, and the transfer is
 * bounded, so lists that point to themselves end.
 */
#include "dev/storage/nvme_internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { FREE_REQUESTS_MAX = 256 };

struct nvme_request *nvme_request_new(struct nvme *nvme, unsigned sq,
                                      const struct nvme_command *command)
{
    struct nvme_request *r = nvme->free_requests;
    if (r) {
        nvme->free_requests = r->next;
        nvme->free_count--;
    } else if (!(r = malloc(sizeof(*r)))) {
        return NULL;
    }
    memset(r, 0, offsetof(struct nvme_request, iov));
    r->nvme = nvme;
    r->generation = nvme->generation;
    r->sq = (uint16_t)sq;
    r->command = *command;
    return r;
}

void nvme_request_free(struct nvme_request *r)
{
    struct nvme *nvme = r->nvme;
    free(r->buffer);
    free(r->ranges);
    if (nvme->free_count == FREE_REQUESTS_MAX) {
        free(r);
        return;
    }
    r->next = nvme->free_requests;
    nvme->free_requests = r;
    nvme->free_count++;
}

/* One piece of at most a page; one that follows the last in memory makes that longer. */
static enum nvme_status add_piece(struct nvme_request *r, uint64_t gpa, uint64_t size_bytes)
{
    uint8_t *hva = ram_hva(r->nvme->ram, gpa, size_bytes);
    if (!hva)
        return NVME_DATA_TRANSFER_ERROR;
    unsigned last = r->iov_count - 1;
    if (r->iov_count && r->gpa[last] + r->iov[last].iov_len == gpa) {
        r->iov[last].iov_len += size_bytes;
        return NVME_OK;
    }
    assert(r->iov_count < NVME_IOV_MAX);
    r->gpa[r->iov_count] = gpa;
    r->iov[r->iov_count++] = (struct iovec){hva, size_bytes};
    return NVME_OK;
}

/* The list at `list` tells of `left` bytes. A page's last entry leads to the next page when there
 * is more than it could describe. */
static enum nvme_status map_list(struct nvme_request *r, uint64_t list, uint64_t left)
{
    uint64_t page = nvme_page_bytes(r->nvme), entry;
    if (list % 8)
        return NVME_PRP_OFFSET_INVALID;
    while (left) {
        if (!ram_read(r->nvme->ram, list, &entry, sizeof(entry)))
            return NVME_DATA_TRANSFER_ERROR;
        if (entry % page)
            return NVME_PRP_OFFSET_INVALID;
        if (list % page == page - 8 && left > page) {
            list = entry;
            continue;
        }
        uint64_t size = left < page ? left : page;
        enum nvme_status status = add_piece(r, entry, size);
        if (status != NVME_OK)
            return status;
        left -= size;
        list += 8;
    }
    return NVME_OK;
}

enum nvme_status nvme_map(struct nvme_request *r, uint64_t size_bytes)
{
    uint64_t page = nvme_page_bytes(r->nvme), first = r->command.prp[0];
    uint64_t second = r->command.prp[1];
    assert(size_bytes && size_bytes <= NVME_TRANSFER_MAX_BYTES);
    if (first % 4)
        return NVME_PRP_OFFSET_INVALID;
    uint64_t size = page - first % page;
    if (size > size_bytes)
        size = size_bytes;
    enum nvme_status status = add_piece(r, first, size);
    uint64_t left = size_bytes - size;
    if (status != NVME_OK || !left)
        return status;
    if (left > page)
        return map_list(r, second, left);
    return second % page ? NVME_PRP_OFFSET_INVALID : add_piece(r, second, left);
}

void nvme_written(const struct nvme_request *r)
{
    for (unsigned i = 0; i < r->iov_count; i++)
        ram_written(r->nvme->ram, r->gpa[i], r->iov[i].iov_len);
}

enum nvme_status nvme_put(struct nvme *nvme, const struct nvme_command *command, const void *data,
                          size_t size_bytes)
{
    const uint8_t *from = data;
    struct nvme_request *r = nvme_request_new(nvme, 0, command);
    if (!r)
        return NVME_INTERNAL_ERROR;
    enum nvme_status status = nvme_map(r, size_bytes);
    for (unsigned i = 0; i < r->iov_count && status == NVME_OK; i++) {
        memcpy(r->iov[i].iov_base, from, r->iov[i].iov_len);
        from += r->iov[i].iov_len;
    }
    if (status == NVME_OK)
        nvme_written(r);
    nvme_request_free(r);
    return status;
}

enum nvme_status nvme_get(struct nvme_request *r, void *data, size_t size_bytes)
{
    uint8_t *to = data;
    enum nvme_status status = nvme_map(r, size_bytes);
    for (unsigned i = 0; i < r->iov_count && status == NVME_OK; i++) {
        memcpy(to, r->iov[i].iov_base, r->iov[i].iov_len);
        to += r->iov[i].iov_len;
    }
    return status;
}
