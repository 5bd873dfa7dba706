/* SPDX-License-Identifier: BSD-2-Clause
 *
 * MODE SENSE and MODE SELECT (SPC-3, 6.9 … 6.12, 7.4) over the pages that a kind of unit has. None
 * is saved by the unit itself.
 */
#include "dev/storage/scsi_internal.h"

#include <string.h>

enum {
    ALL_PAGES = 0x3f,
    ALL_SUBPAGES = 0xff,
    CONTROL_CURRENT = 0,
    CONTROL_CHANGEABLE = 1,
    CONTROL_SAVED = 3,
    DESCRIPTOR_BYTES = 8,
    MODE_MAX_BYTES = 256,
    PAGE_HEAD_BYTES = 2,
};

static bool is_short(const struct scsi_request *r)
{
    return r->cdb[0] == 0x1a || r->cdb[0] == 0x15;
}

static unsigned head_bytes(const struct scsi_request *r)
{
    return is_short(r) ? 4 : 8;
}

/* A disk has a block descriptor (SBC-3, 6.4.2), a CD-ROM drive none. */
static unsigned put_descriptor(const struct scsi_lun *lun, uint8_t *at)
{
    uint64_t blocks = scsi_blocks(lun);
    if (lun->config.is_cdrom)
        return 0;
    be_put(at, blocks < UINT32_MAX ? blocks : UINT32_MAX, 4);
    be_put(at + 4, lun->kind->block_bytes, 4);
    return DESCRIPTOR_BYTES;
}

static unsigned put_page(const struct scsi_lun *lun, const struct scsi_mode_page *page, uint8_t *at,
                         bool is_mask)
{
    at[0] = page->code;
    at[1] = (uint8_t)(page->size_bytes - PAGE_HEAD_BYTES);
    page->fill(lun, at + PAGE_HEAD_BYTES, is_mask);
    return page->size_bytes;
}

static unsigned put_pages(const struct scsi_lun *lun, uint8_t code, uint8_t *at, bool is_mask)
{
    unsigned size = 0;
    for (unsigned i = 0; i < lun->kind->page_count; i++)
        if (code == ALL_PAGES || code == lun->kind->pages[i].code)
            size += put_page(lun, &lun->kind->pages[i], at + size, is_mask);
    return size;
}

bool scsi_mode_sense(struct scsi_lun *lun, struct scsi_request *r)
{
    uint8_t data[MODE_MAX_BYTES] = {0};
    unsigned head = head_bytes(r), size = head;
    uint8_t code = r->cdb[2] & 0x3f, control = r->cdb[2] >> 6, subpage = r->cdb[3];
    if (control == CONTROL_SAVED)
        return scsi_fail(r, SCSI_ILLEGAL_REQUEST, SENSE_SAVING_UNSUPPORTED);
    if (!(r->cdb[1] & 8))
        size += put_descriptor(lun, data + size);
    unsigned descriptor = size - head;
    unsigned pages = 0;
    if (!subpage || (code == ALL_PAGES && subpage == ALL_SUBPAGES))
        pages = put_pages(lun, code, data + size, control == CONTROL_CHANGEABLE);
    if (!pages)
        return scsi_fail(r, SCSI_ILLEGAL_REQUEST, SENSE_INVALID_FIELD);
    size += pages;
    /* SBC-3, 6.4.1: write protected; that DPO and FUA are understood. */
    uint8_t parameter = lun->config.is_cdrom ? 0 : (lun->info.read_only ? 0x80 : 0) | 0x10;
    if (is_short(r)) {
        data[0] = (uint8_t)(size - 1);
        data[2] = parameter;
        data[3] = (uint8_t)descriptor;
        return scsi_reply(r, data, size, r->cdb[4]);
    }
    be_put(data, size - 2, 2);
    data[3] = parameter;
    be_put(data + 6, descriptor, 2);
    return scsi_reply(r, data, size, be_get(r->cdb + 7, 2));
}

static const struct scsi_mode_page *find_page(const struct scsi_lun *lun, uint8_t code)
{
    for (unsigned i = 0; i < lun->kind->page_count; i++)
        if (lun->kind->pages[i].code == code)
            return &lun->kind->pages[i];
    return NULL;
}

/* Only what may be changed differs from what is there. */
static bool page_acceptable(const struct scsi_lun *lun, const struct scsi_mode_page *page,
                            const uint8_t *body)
{
    uint8_t now[MODE_MAX_BYTES] = {0}, mask[MODE_MAX_BYTES] = {0};
    page->fill(lun, now, false);
    page->fill(lun, mask, true);
    for (unsigned i = 0; i < (unsigned)page->size_bytes - PAGE_HEAD_BYTES; i++)
        if ((now[i] ^ body[i]) & ~mask[i])
            return false;
    return true;
}

/* Goes through the pages; with `apply` takes them over, otherwise only checks. 0: all is well. */
static uint16_t pages_select(struct scsi_lun *lun, const uint8_t *at, unsigned size, bool apply)
{
    while (size) {
        if (size < PAGE_HEAD_BYTES)
            return SENSE_PARAMETER_LIST_LENGTH;
        const struct scsi_mode_page *page = find_page(lun, at[0] & 0x7f);
        unsigned page_bytes = PAGE_HEAD_BYTES + at[1];
        if (page_bytes > size)
            return SENSE_PARAMETER_LIST_LENGTH;
        if (!page || page_bytes != page->size_bytes ||
            !page_acceptable(lun, page, at + PAGE_HEAD_BYTES))
            return SENSE_INVALID_PARAMETER;
        if (apply && page->change && !page->change(lun, at + PAGE_HEAD_BYTES))
            return SENSE_INVALID_PARAMETER;
        at += page_bytes;
        size -= page_bytes;
    }
    return 0;
}

bool scsi_mode_select(struct scsi_lun *lun, struct scsi_request *r)
{
    uint8_t data[MODE_MAX_BYTES];
    uint64_t size = is_short(r) ? r->cdb[4] : be_get(r->cdb + 7, 2);
    unsigned head = head_bytes(r);
    if (r->cdb[1] & 1) /* nothing is saved */
        return scsi_fail(r, SCSI_ILLEGAL_REQUEST, SENSE_INVALID_FIELD);
    if (!size)
        return false;
    if (size > sizeof(data) || size < head || scsi_take(r, 0, data, (size_t)size) != size)
        return scsi_fail(r, SCSI_ILLEGAL_REQUEST, SENSE_PARAMETER_LIST_LENGTH);
    unsigned skip = head + (is_short(r) ? data[3] : (unsigned)be_get(data + 6, 2));
    uint16_t code = skip > size ? (uint16_t)SENSE_PARAMETER_LIST_LENGTH : 0;
    for (unsigned pass = 0; pass < 2 && !code; pass++)
        code = pages_select(lun, data + skip, (unsigned)size - skip, pass == 1);
    if (code)
        return scsi_fail(r, SCSI_ILLEGAL_REQUEST, code);
    r->moved_bytes = size;
    return false;
}
