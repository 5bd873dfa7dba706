/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A CD and DVD drive's commands (MMC-5, chapter 6) and mode pages, for a disc of one data track in
 * blocks of 2048 bytes: what ISO images hold. Left out: audio, raw sectors, sub-channels,
 * recording.
 *
 * A medium that the guest ejects stays in the open tray: closing it brings it back.
 */
#include "dev/storage/scsi_internal.h"

#include <string.h>

enum {
    EVENT_CLASS_MEDIA = 4,

    PROFILE_CD_ROM = 0x0008,
    PROFILE_DVD_ROM = 0x0010,
    /* What fits on a CD of 90 minutes; anything larger is a DVD. */
    CD_MAX_BLOCKS = 90 * 60 * 75,

    FIRST_TRACK = 1,
    LEAD_OUT = 0xaa,
    TRACK_IS_DATA = 0x14, /* ADR 1, control 4 */
    MSF_LEAD_IN = 150,    /* frames before address 0 */
    DVD_FIRST_SECTOR = 0x030000,
    DVD_STRUCTURE_BYTES = 2048,
};

static bool is_readable(const struct scsi_lun *lun)
{
    return lun->has_medium && !lun->is_open;
}

static unsigned profile(const struct scsi_lun *lun)
{
    if (!is_readable(lun))
        return 0;
    return scsi_blocks(lun) > CD_MAX_BLOCKS ? PROFILE_DVD_ROM : PROFILE_CD_ROM;
}

/* ---- reading ---- */

static bool read_blocks(struct scsi_lun *lun, struct scsi_request *r)
{
    bool is_long = r->cdb[0] == 0xa8;
    uint64_t blocks = is_long ? be_get(r->cdb + 6, 4) : be_get(r->cdb + 7, 2);
    return scsi_transfer(lun, r, false, be_get(r->cdb + 2, 4), blocks, false);
}

/* MMC-5, 6.20: user data of data sectors, or nothing, which only seeks. */
static bool read_cd(struct scsi_lun *lun, struct scsi_request *r)
{
    uint64_t lba = be_get(r->cdb + 2, 4), blocks = be_get(r->cdb + 6, 3);
    uint8_t type = r->cdb[1] >> 2 & 7, selection = r->cdb[9] & 0xf8;
    if (!scsi_range_valid(lun, lba, blocks))
        return scsi_fail(r, SCSI_ILLEGAL_REQUEST, SENSE_LBA_RANGE);
    if ((type != 0 && type != 2) || (selection && selection != 0x10))
        return scsi_fail(r, SCSI_ILLEGAL_REQUEST, SENSE_ILLEGAL_MODE);
    return selection && scsi_transfer(lun, r, false, lba, blocks, false);
}

/* ---- what is on the disc ---- */

static void put_msf(uint8_t *at, uint64_t lba)
{
    uint64_t frame = lba + MSF_LEAD_IN, minute = frame / (60 * 75);
    at[0] = (uint8_t)(minute < 255 ? minute : 255);
    at[1] = (uint8_t)(frame / 75 % 60);
    at[2] = (uint8_t)(frame % 75);
}

static void put_address(uint8_t *at, uint64_t lba, bool as_msf)
{
    at[0] = 0;
    if (as_msf)
        put_msf(at + 1, lba);
    else
        be_put(at, lba, 4);
}

static uint8_t *put_track(uint8_t *at, uint8_t track, uint64_t lba, bool as_msf)
{
    at[1] = TRACK_IS_DATA;
    at[2] = track;
    put_address(at + 4, lba, as_msf);
    return at + 8;
}

/* One entry of the full table: MMC-5, table 490. */
static uint8_t *put_point(uint8_t *at, uint8_t point)
{
    at[0] = 1; /* session */
    at[1] = TRACK_IS_DATA;
    at[3] = point;
    return at + 11;
}

static uint8_t *put_full_table(const struct scsi_lun *lun, uint8_t *at)
{
    at[8] = FIRST_TRACK;
    at = put_point(at, 0xa0);
    at[8] = FIRST_TRACK;
    at = put_point(at, 0xa1);
    put_msf(at + 8, scsi_blocks(lun));
    at = put_point(at, 0xa2);
    put_msf(at + 8, 0);
    return put_point(at, FIRST_TRACK);
}

/* MMC-5, 6.26. */
static bool read_toc(struct scsi_lun *lun, struct scsi_request *r)
{
    uint8_t data[64] = {0, 0, FIRST_TRACK, FIRST_TRACK}, *end = data + 4;
    bool as_msf = r->cdb[1] & 2;
    uint8_t first = r->cdb[6];
    /* Old drivers have the format in the control byte. */
    unsigned format = r->cdb[2] & 0xf ? r->cdb[2] & 0xf : r->cdb[9] >> 6;
    switch (format) {
    case 0:
        if (first > FIRST_TRACK && first != LEAD_OUT)
            return scsi_fail(r, SCSI_ILLEGAL_REQUEST, SENSE_INVALID_FIELD);
        if (first <= FIRST_TRACK)
            end = put_track(end, FIRST_TRACK, 0, as_msf);
        end = put_track(end, LEAD_OUT, scsi_blocks(lun), as_msf);
        break;
    case 1: end = put_track(end, FIRST_TRACK, 0, as_msf); break;
    case 2: end = put_full_table(lun, end); break;
    default: return scsi_fail(r, SCSI_ILLEGAL_REQUEST, SENSE_INVALID_FIELD);
    }
    be_put(data, (uint64_t)(end - data) - 2, 2);
    return scsi_reply(r, data, (size_t)(end - data), be_get(r->cdb + 7, 2));
}

/* MMC-5, 6.22: one complete session of one track. */
static bool read_disc_information(struct scsi_lun *lun, struct scsi_request *r)
{
    (void)lun;
    uint8_t data[34] = {0};
    if (r->cdb[1] & 7)
        return scsi_fail(r, SCSI_ILLEGAL_REQUEST, SENSE_INVALID_FIELD);
    be_put(data, sizeof(data) - 2, 2);
    data[2] = 0x0e; /* last session and disc are complete */
    data[3] = FIRST_TRACK;
    data[4] = 1; /* sessions */
    data[5] = data[6] = FIRST_TRACK;
    data[7] = 0x20;             /* use is not restricted */
    memset(data + 16, 0xff, 8); /* where another session could go: nowhere */
    return scsi_reply(r, data, sizeof(data), be_get(r->cdb + 7, 2));
}

/* MMC-5, 6.27. */
static bool read_track_information(struct scsi_lun *lun, struct scsi_request *r)
{
    uint8_t data[36] = {0};
    uint64_t what = be_get(r->cdb + 2, 4);
    unsigned by = r->cdb[1] & 3;
    bool is_there = by == 0 ? what < scsi_blocks(lun) : by < 3 && what == 1;
    if (!is_there)
        return scsi_fail(r, SCSI_ILLEGAL_REQUEST, SENSE_INVALID_FIELD);
    be_put(data, sizeof(data) - 2, 2);
    data[2] = data[3] = 1; /* track, session */
    data[5] = 4;           /* data */
    data[6] = 1;           /* mode 1 */
    be_put(data + 24, scsi_blocks(lun), 4);
    be_put(data + 28, scsi_blocks(lun) - 1, 4);
    return scsi_reply(r, data, sizeof(data), be_get(r->cdb + 7, 2));
}

/* MMC-5, 6.24: physical format, and that nothing is protected against copying. */
static bool read_dvd_structure(struct scsi_lun *lun, struct scsi_request *r)
{
    uint8_t data[4 + DVD_STRUCTURE_BYTES] = {0};
    uint64_t size = r->cdb[7] == 1 ? 4 : DVD_STRUCTURE_BYTES;
    uint64_t last = DVD_FIRST_SECTOR + scsi_blocks(lun) - 1;
    if (profile(lun) != PROFILE_DVD_ROM || r->cdb[7] > 1 || r->cdb[6])
        return scsi_fail(r, SCSI_ILLEGAL_REQUEST, SENSE_INVALID_FIELD);
    be_put(data, size + 2, 2);
    if (r->cdb[7] == 0) {
        data[4] = 0x01; /* DVD-ROM, version 1 */
        data[5] = 0x02; /* 120 mm, 10 Mbit/s */
        data[6] = 0x01; /* one layer, embossed */
        be_put(data + 8, DVD_FIRST_SECTOR, 4);
        be_put(data + 12, last < 0xffffff ? last : 0xffffff, 4);
    }
    return scsi_reply(r, data, (size_t)(4 + size), be_get(r->cdb + 8, 2));
}

/* ---- what the drive can ---- */

/* A feature (MMC-5, 5.2): number, version, whether it is persistent, its data. */
struct feature {
    uint16_t code;
    uint8_t version, is_persistent;
    uint8_t data_bytes;
    uint8_t data[12];
};

static const struct feature features[] = {
    {0x0000, 0, 1, 8, {0, PROFILE_DVD_ROM, 0, 0, 0, PROFILE_CD_ROM, 0, 0}},
    {0x0001, 1, 1, 8, {0, 0, 0, 2 /* ATAPI */, 0x01, 0, 0, 0}},
    {0x0002, 1, 1, 4, {0x02, 0, 0, 0}},                /* tells of events */
    {0x0003, 0, 1, 4, {0x29, 0, 0, 0}},                /* tray, eject, lock */
    {0x0010, 0, 0, 8, {0, 0, 0x08, 0, 0, 1, 0x01, 0}}, /* blocks of 2048 bytes */
    {0x001e, 2, 0, 4, {0, 0, 0, 0}},                   /* CD */
    {0x001f, 1, 0, 4, {0, 0, 0, 0}},                   /* DVD */
    {0x0100, 0, 1, 0, {0}},                            /* power */
    {0x0105, 0, 1, 4, {0, 0, 0, 0}},                   /* timeout */
};

static bool feature_current(const struct scsi_lun *lun, const struct feature *feature)
{
    switch (feature->code) {
    case 0x0010: return profile(lun);
    case 0x001e: return profile(lun) == PROFILE_CD_ROM;
    case 0x001f: return profile(lun) == PROFILE_DVD_ROM;
    default: return true;
    }
}

static uint8_t *put_feature(const struct scsi_lun *lun, const struct feature *feature, uint8_t *at)
{
    bool is_current = feature_current(lun, feature);
    be_put(at, feature->code, 2);
    at[2] = (uint8_t)(feature->version << 2 | feature->is_persistent << 1 | is_current);
    at[3] = feature->data_bytes;
    memcpy(at + 4, feature->data, feature->data_bytes);
    if (!feature->code) { /* the current one among the profiles */
        at[6] = profile(lun) == PROFILE_DVD_ROM;
        at[10] = profile(lun) == PROFILE_CD_ROM;
    }
    return at + 4 + feature->data_bytes;
}

/* MMC-5, 6.6. */
static bool get_configuration(struct scsi_lun *lun, struct scsi_request *r)
{
    uint8_t data[128] = {0}, *end = data + 8;
    unsigned which = r->cdb[1] & 3, from = (unsigned)be_get(r->cdb + 2, 2);
    if (which == 3)
        return scsi_fail(r, SCSI_ILLEGAL_REQUEST, SENSE_INVALID_FIELD);
    for (size_t i = 0; i < sizeof(features) / sizeof(features[0]); i++) {
        const struct feature *feature = &features[i];
        bool is_wanted = which == 2   ? feature->code == from
                         : which == 1 ? feature->code >= from && feature_current(lun, feature)
                                      : feature->code >= from;
        if (is_wanted)
            end = put_feature(lun, feature, end);
    }
    be_put(data, (uint64_t)(end - data) - 4, 4);
    be_put(data + 6, profile(lun), 2);
    return scsi_reply(r, data, (size_t)(end - data), be_get(r->cdb + 7, 2));
}

/* MMC-5, 6.7: polled, and of the media alone. */
static bool get_event_status(struct scsi_lun *lun, struct scsi_request *r)
{
    uint8_t data[8] = {0, 2, 0x80, 1 << EVENT_CLASS_MEDIA};
    size_t size = 4;
    uint64_t allocation = be_get(r->cdb + 7, 2);
    if (!(r->cdb[1] & 1))
        return scsi_fail(r, SCSI_ILLEGAL_REQUEST, SENSE_INVALID_FIELD);
    if (r->cdb[4] & 1 << EVENT_CLASS_MEDIA) {
        data[1] = 6;
        data[2] = EVENT_CLASS_MEDIA;
        data[4] = lun->event;
        data[5] = (uint8_t)((lun->has_medium && !lun->is_open) << 1 | lun->is_open);
        size = 8;
        if (allocation >= size) /* it was told */
            lun->event = 0;
    }
    return scsi_reply(r, data, size, allocation);
}

/* MMC-5, 6.11. */
static bool mechanism_status(struct scsi_lun *lun, struct scsi_request *r)
{
    uint8_t data[8] = {0};
    data[1] = lun->is_open ? 0x10 : 0;
    return scsi_reply(r, data, sizeof(data), be_get(r->cdb + 8, 2));
}

static void tray_open(struct scsi_lun *lun)
{
    if (is_readable(lun))
        lun->event = MEDIA_REMOVAL;
    lun->is_open = true;
}

static void tray_close(struct scsi_lun *lun)
{
    if (lun->is_open && lun->has_medium) {
        lun->event = MEDIA_NEW;
        lun->medium_attention = true;
    }
    lun->is_open = false;
}

/* MMC-5, 6.42. The disc turns whenever it is needed, so that a stop changes nothing. */
static bool start_stop(struct scsi_lun *lun, struct scsi_request *r)
{
    bool is_eject = (r->cdb[4] & 3) == 2;
    if (r->cdb[4] >> 4)
        return false;
    if (is_eject && lun->is_locked)
        return scsi_fail(r, SCSI_ILLEGAL_REQUEST, SENSE_REMOVAL_PREVENTED);
    if (is_eject)
        tray_open(lun);
    else if ((r->cdb[4] & 3) == 3)
        tray_close(lun);
    return false;
}

/* ---- mode pages: MMC-5, 7 ---- */

static void page_recovery(const struct scsi_lun *lun, uint8_t *body, bool is_mask)
{
    (void)lun;
    if (!is_mask)
        body[1] = 1; /* retries */
}

static void page_power(const struct scsi_lun *lun, uint8_t *body, bool is_mask)
{
    (void)lun;
    (void)body;
    (void)is_mask;
}

/* 7.3.10 of MMC-3, which all drivers still read. */
static void page_capabilities(const struct scsi_lun *lun, uint8_t *body, bool is_mask)
{
    if (is_mask)
        return;
    body[0] = 0x0f;                                       /* reads CD-R, CD-RW, DVD-ROM */
    body[4] = (uint8_t)(0x29 | (lun->is_locked ? 2 : 0)); /* tray, eject, lock */
    be_put(body + 6, 8467, 2);                            /* kB/s: 48 times */
    be_put(body + 10, 512, 2);                            /* KiB of buffer */
    be_put(body + 12, 8467, 2);
}

static const struct scsi_mode_page pages[] = {
    {0x01, 12, page_recovery, NULL},
    {0x1a, 12, page_power, NULL},
    {0x2a, 22, page_capabilities, NULL},
};

static const struct scsi_command commands[] = {
    {0x00, NEEDS_MEDIUM, LENGTH_NONE, 0, 0, scsi_nothing}, /* TEST UNIT READY */
    {0x03, PASSES_ATTENTION, LENGTH_BYTES, 4, 1, scsi_request_sense},
    {0x12, PASSES_ATTENTION, LENGTH_BYTES, 3, 2, scsi_inquiry},
    {0x15, TO_UNIT, LENGTH_BYTES, 4, 1, scsi_mode_select},
    {0x1a, 0, LENGTH_BYTES, 4, 1, scsi_mode_sense},
    {0x1b, 0, LENGTH_NONE, 0, 0, start_stop},
    {0x1e, 0, LENGTH_NONE, 0, 0, scsi_prevent_removal},
    {0x25, NEEDS_MEDIUM, LENGTH_FIXED, 0, 8, scsi_read_capacity_10},
    {0x28, NEEDS_MEDIUM, LENGTH_BLOCKS, 7, 2, read_blocks},
    {0x2b, NEEDS_MEDIUM, LENGTH_NONE, 0, 0, scsi_nothing}, /* SEEK */
    {0x35, NEEDS_MEDIUM, LENGTH_NONE, 0, 0, scsi_nothing}, /* SYNCHRONIZE CACHE */
    {0x43, NEEDS_MEDIUM, LENGTH_BYTES, 7, 2, read_toc},
    {0x46, PASSES_ATTENTION, LENGTH_BYTES, 7, 2, get_configuration},
    {0x4a, PASSES_ATTENTION, LENGTH_BYTES, 7, 2, get_event_status},
    {0x51, NEEDS_MEDIUM, LENGTH_BYTES, 7, 2, read_disc_information},
    {0x52, NEEDS_MEDIUM, LENGTH_BYTES, 7, 2, read_track_information},
    {0x55, TO_UNIT, LENGTH_BYTES, 7, 2, scsi_mode_select},
    {0x5a, 0, LENGTH_BYTES, 7, 2, scsi_mode_sense},
    {0xa0, PASSES_ATTENTION, LENGTH_BYTES, 6, 4, scsi_report_luns},
    {0xa8, NEEDS_MEDIUM, LENGTH_BLOCKS, 6, 4, read_blocks},
    {0xad, NEEDS_MEDIUM, LENGTH_BYTES, 8, 2, read_dvd_structure},
    {0xbb, 0, LENGTH_NONE, 0, 0, scsi_nothing}, /* SET CD SPEED */
    {0xbd, 0, LENGTH_BYTES, 8, 2, mechanism_status},
    {0xbe, NEEDS_MEDIUM, LENGTH_CD, 6, 3, read_cd},
};

const struct scsi_kind scsi_cdrom_kind = {
    .peripheral_type = 0x05,
    .block_bytes = SCSI_CD_BLOCK_BYTES,
    .product = "CD-ROM",
    .commands = commands,
    .command_count = sizeof(commands) / sizeof(commands[0]),
    .pages = pages,
    .page_count = sizeof(pages) / sizeof(pages[0]),
};
