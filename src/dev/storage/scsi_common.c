/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Commands of every logical unit (SPC-3, chapter 6) but those of mode pages.
 */
#include "dev/storage/scsi_internal.h"

#include <string.h>

enum { VITAL_PAGES = 0x00, VITAL_SERIAL = 0x80, VITAL_IDENTIFICATION = 0x83 };
enum { VITAL_HEAD_BYTES = 4, VITAL_MAX_BYTES = 252 };

/* SPC-3, 7.6.3: one designator, of vendor, product and serial number. */
static unsigned vital_identification(const struct scsi_lun *lun, uint8_t *body)
{
    size_t serial_bytes = strlen(lun->serial);
    unsigned size = 4 + sizeof(lun->vendor);
    body[0] = 0x02; /* ASCII */
    body[1] = 0x01; /* of the unit, T10 vendor identification */
    memcpy(body + 4, lun->vendor, sizeof(lun->vendor));
    memcpy(body + size, lun->product, sizeof(lun->product));
    size += sizeof(lun->product);
    memcpy(body + size, lun->serial, serial_bytes);
    size += (unsigned)serial_bytes;
    body[3] = (uint8_t)(size - 4);
    return size;
}

static unsigned vital_list(const struct scsi_lun *lun, uint8_t *body)
{
    unsigned n = 0;
    body[n++] = VITAL_PAGES;
    if (lun->serial[0])
        body[n++] = VITAL_SERIAL;
    body[n++] = VITAL_IDENTIFICATION;
    for (unsigned i = 0; i < lun->kind->vital_page_count; i++)
        body[n++] = lun->kind->vital_pages[i];
    return n;
}

static bool inquiry_vital(struct scsi_lun *lun, struct scsi_request *r)
{
    uint8_t page[VITAL_HEAD_BYTES + VITAL_MAX_BYTES] = {0}, code = r->cdb[2];
    uint8_t *body = page + VITAL_HEAD_BYTES;
    unsigned size = 0;
    if (code == VITAL_PAGES) {
        size = vital_list(lun, body);
    } else if (code == VITAL_SERIAL) {
        size = (unsigned)strlen(lun->serial);
        memcpy(body, lun->serial, size);
    } else if (code == VITAL_IDENTIFICATION) {
        size = vital_identification(lun, body);
    } else if (lun->kind->vital) {
        size = lun->kind->vital(lun, code, body);
    }
    if (!size)
        return scsi_fail(r, SCSI_ILLEGAL_REQUEST, SENSE_INVALID_FIELD);
    page[0] = lun->kind->peripheral_type;
    page[1] = code;
    be_put(page + 2, size, 2);
    return scsi_reply(r, page, VITAL_HEAD_BYTES + size, be_get(r->cdb + 3, 2));
}

/* SPC-3, 6.4. */
bool scsi_inquiry(struct scsi_lun *lun, struct scsi_request *r)
{
    uint8_t data[36] = {0};
    if (r->cdb[1] & 1)
        return inquiry_vital(lun, r);
    if (r->cdb[2])
        return scsi_fail(r, SCSI_ILLEGAL_REQUEST, SENSE_INVALID_FIELD);
    data[0] = lun->kind->peripheral_type;
    data[1] = lun->config.is_cdrom ? 0x80 : 0; /* removable */
    data[2] = 5;                               /* SPC-3 */
    data[3] = 2;                               /* the format of this */
    data[4] = sizeof(data) - 5;
    data[7] = lun->config.is_cdrom ? 0 : 0x02; /* several commands at once */
    memcpy(data + 8, lun->vendor, sizeof(lun->vendor));
    memcpy(data + 16, lun->product, sizeof(lun->product));
    memcpy(data + 32, lun->revision, sizeof(lun->revision));
    return scsi_reply(r, data, sizeof(data), be_get(r->cdb + 3, 2));
}

/* TEST UNIT READY and others that have nothing to do where this one does it. */
bool scsi_nothing(struct scsi_lun *lun, struct scsi_request *r)
{
    (void)lun;
    (void)r;
    return false;
}

/* SPC-3, 6.27. A unit attention that waits is told here, too. */
bool scsi_request_sense(struct scsi_lun *lun, struct scsi_request *r)
{
    uint8_t fixed[SCSI_SENSE_BYTES], descriptor[8] = {0x72};
    memcpy(fixed, lun->kept_sense, sizeof(fixed));
    memset(lun->kept_sense, 0, sizeof(lun->kept_sense));
    if (!fixed[0]) {
        uint16_t code = lun->attention;
        if (!code && lun->medium_attention)
            code = SENSE_MEDIUM_CHANGED;
        if (lun->attention)
            lun->attention = 0;
        else
            lun->medium_attention = false;
        fixed[0] = 0x70;
        fixed[2] = code ? SCSI_UNIT_ATTENTION : SCSI_NO_SENSE;
        fixed[7] = SCSI_SENSE_BYTES - 8;
        be_put(fixed + 12, code, 2);
    }
    if (!(r->cdb[1] & 1))
        return scsi_reply(r, fixed, sizeof(fixed), r->cdb[4]);
    descriptor[1] = fixed[2];
    memcpy(descriptor + 2, fixed + 12, 2);
    return scsi_reply(r, descriptor, sizeof(descriptor), r->cdb[4]);
}

/* SPC-3, 6.21: this one alone. A transport with several answers by itself. */
bool scsi_report_luns(struct scsi_lun *lun, struct scsi_request *r)
{
    (void)lun;
    uint8_t data[16] = {0};
    be_put(data, 8, 4);
    return scsi_reply(r, data, sizeof(data), be_get(r->cdb + 6, 4));
}

/* SPC-3, 6.13. */
bool scsi_prevent_removal(struct scsi_lun *lun, struct scsi_request *r)
{
    lun->is_locked = r->cdb[4] & 1;
    return false;
}

/* SBC-3, 5.12, and MMC-5, 6.23. */
bool scsi_read_capacity_10(struct scsi_lun *lun, struct scsi_request *r)
{
    uint8_t data[8];
    uint64_t last = scsi_blocks(lun) - 1;
    be_put(data, last < UINT32_MAX ? last : UINT32_MAX, 4);
    be_put(data + 4, lun->kind->block_bytes, 4);
    return scsi_reply(r, data, sizeof(data), sizeof(data));
}
