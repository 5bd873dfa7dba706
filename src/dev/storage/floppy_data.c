/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Commands of the 82077AA that move data, a sector at a time (data sheet, 5.2 and 6.1): between the
 * disk and the controller on the loop's thread, between the controller and the guest by DMA, or
 * byte by byte without. Images hold no deleted marks, no ids and no other sizes of sectors than
 * 512, so those of a disk are as its format has them. FM (single density) finds nothing.
 */
#include "dev/storage/floppy_internal.h"

#include <stdlib.h>
#include <string.h>

enum { MULTI_TRACK = 0x80, MFM = 0x40, SKIP = 0x20, SIZE_512 = 2, ID_BYTES = 4 };

/* ---- the end ---- */

static void finish(struct floppy *f, uint8_t st0, uint8_t st1, uint8_t st2)
{
    const struct floppy_transfer *t = &f->transfer;
    const uint8_t results[7] = {(uint8_t)(st0 | t->head << 2 | t->unit),
                                st1,
                                st2,
                                t->cylinder,
                                t->head_id,
                                t->sector,
                                t->size_code};
    floppy_give_results(f, results, sizeof(results));
    floppy_set_interrupt(f, true);
}

static void fail(struct floppy *f, uint8_t st1, uint8_t st2)
{
    finish(f, ST0_ABNORMAL, st1, st2);
}

/* ---- where on the disk ---- */

/* Whether anything is found under the head at all. */
static bool has_track(const struct floppy *f, const struct floppy_drive *drive, unsigned head)
{
    return drive && drive->has_medium && f->command[0] & MFM && f->rate == drive->geometry->rate &&
           drive->track < drive->geometry->cylinders && head < drive->geometry->heads;
}

static uint64_t track_offset(const struct floppy_drive *drive, unsigned head)
{
    const struct floppy_geometry *g = drive->geometry;
    return ((uint64_t)drive->track * g->heads + head) * g->sectors * FLOPPY_SECTOR_BYTES;
}

/* The sector that the transfer has come to; false: it has failed. */
static bool locate(struct floppy *f, uint64_t *offset)
{
    const struct floppy_transfer *t = &f->transfer;
    const struct floppy_drive *drive = floppy_drive_of(f, t->unit);
    if (!has_track(f, drive, t->head)) {
        fail(f, ST1_NO_ADDRESS | ST1_NO_DATA, 0);
        return false;
    }
    if (t->cylinder != drive->track) {
        fail(f, ST1_NO_DATA, ST2_WRONG_CYLINDER);
        return false;
    }
    if (t->head_id != t->head || t->size_code != SIZE_512 || t->sector == 0 ||
        t->sector > drive->geometry->sectors) {
        fail(f, ST1_NO_DATA, 0);
        return false;
    }
    *offset = track_offset(drive, t->head) + (t->sector - 1U) * FLOPPY_SECTOR_BYTES;
    return true;
}

/* ---- the disk's side ---- */

static void disk_done(struct block_request *block, int error);

/* `data` is what is to be written; NULL: read. */
static void submit(struct floppy *f, uint64_t offset, const uint8_t *data, size_t size_bytes)
{
    struct floppy_drive *drive = floppy_drive_of(f, f->transfer.unit);
    struct floppy_request *r = malloc(sizeof(*r));
    if (!r) {
        fail(f, ST1_DATA_ERROR, ST2_DATA_ERROR);
        return;
    }
    if (data)
        memcpy(r->data, data, size_bytes);
    r->floppy = f;
    r->generation = f->generation;
    r->iov = (struct iovec){r->data, size_bytes};
    r->block = (struct block_request){.kind = data ? BLOCK_WRITE : BLOCK_READ,
                                      .offset_bytes = offset,
                                      .size_bytes = size_bytes,
                                      .iov = &r->iov,
                                      .iov_count = 1,
                                      .done = disk_done,
                                      .opaque = r};
    f->phase = FLOPPY_BUSY;
    drive->medium.submit(drive->medium.opaque, &r->block);
}

static void next_sector(struct floppy *f)
{
    struct floppy_transfer *t = &f->transfer;
    uint64_t offset;
    if (!locate(f, &offset))
        return;
    if (t->kind != FLOPPY_WRITE) {
        submit(f, offset, NULL, FLOPPY_SECTOR_BYTES);
        return;
    }
    t->data_bytes = FLOPPY_SECTOR_BYTES;
    t->data_at = 0;
    if (f->no_dma) {
        f->phase = FLOPPY_TAKES;
        floppy_set_interrupt(f, true);
        return;
    }
    memset(f->data, 0, FLOPPY_SECTOR_BYTES); /* what a sector that ends early is filled with */
    size_t moved = dma_move(&f->config.dma, f->data, FLOPPY_SECTOR_BYTES, false, &t->is_over);
    if (moved < FLOPPY_SECTOR_BYTES && !t->is_over)
        fail(f, ST1_OVERRUN, 0);
    else
        submit(f, offset, f->data, FLOPPY_SECTOR_BYTES);
}

/* Table 5-3: the id after the last sector. False: that was the last of the cylinder. */
static bool step_id(struct floppy *f)
{
    struct floppy_transfer *t = &f->transfer;
    if (t->sector != t->last) {
        t->sector++;
        return true;
    }
    t->sector = 1;
    if (t->multi_track && t->head == 0) {
        t->head = t->head_id = 1;
        return true;
    }
    t->cylinder++;
    if (t->multi_track)
        t->head_id = 0;
    return false;
}

/* A sector has been moved whole. */
static void sector_moved(struct floppy *f)
{
    struct floppy_transfer *t = &f->transfer;
    bool is_bounded = t->kind == FLOPPY_VERIFY || t->kind == FLOPPY_READ_TRACK;
    bool has_more = step_id(f);
    if (t->is_deleted) {
        finish(f, 0, 0, ST2_CONTROL_MARK); /* it had no deleted mark */
    } else if (t->is_over || (t->sectors_left && !--t->sectors_left)) {
        finish(f, 0, 0, 0);
    } else if (!has_more) {
        if (is_bounded)
            finish(f, 0, 0, 0);
        else
            fail(f, ST1_END_OF_CYLINDER, 0);
    } else {
        next_sector(f);
    }
}

/* A sector was read: on to the guest. */
static void give_sector(struct floppy *f)
{
    struct floppy_transfer *t = &f->transfer;
    if (t->kind == FLOPPY_VERIFY) {
        sector_moved(f);
        return;
    }
    t->data_bytes = FLOPPY_SECTOR_BYTES;
    t->data_at = 0;
    if (f->no_dma) {
        f->phase = FLOPPY_GIVES;
        floppy_set_interrupt(f, true);
        return;
    }
    size_t moved = dma_move(&f->config.dma, f->data, FLOPPY_SECTOR_BYTES, true, &t->is_over);
    if (moved < FLOPPY_SECTOR_BYTES && !t->is_over)
        fail(f, ST1_OVERRUN, 0);
    else
        sector_moved(f);
}

static void disk_done(struct block_request *block, int error)
{
    struct floppy_request *r = block->opaque;
    struct floppy *f = r->floppy;
    pthread_mutex_lock(&f->lock);
    if (error)
        log_limited(f->config.log, &f->log_limit, LOG_WARNING, "floppy", "request failed: %s",
                    strerror(error));
    if (r->generation == f->generation) {
        if (error) {
            fail(f, ST1_DATA_ERROR, ST2_DATA_ERROR);
        } else if (f->transfer.kind == FLOPPY_FORMAT) {
            finish(f, 0, 0, 0);
        } else if (f->transfer.kind == FLOPPY_WRITE) {
            sector_moved(f);
        } else {
            memcpy(f->data, r->data, FLOPPY_SECTOR_BYTES);
            give_sector(f);
        }
    }
    pthread_mutex_unlock(&f->lock);
    free(r);
}

/* ---- the start ---- */

static void begin(struct floppy *f, enum floppy_transfer_kind kind)
{
    f->transfer = (struct floppy_transfer){
        .kind = (uint8_t)kind, .unit = f->command[1] & 3, .head = f->command[1] >> 2 & 1};
}

static bool is_protected(struct floppy *f)
{
    const struct floppy_drive *drive = floppy_drive_of(f, f->transfer.unit);
    return drive && drive->has_medium && drive->read_only;
}

/* READ TRACK reads what comes, from the first sector on; VERIFY as many as DTL says, with EC. */
static void bound(struct floppy *f, enum floppy_transfer_kind kind)
{
    enum { ENABLE_COUNT = 0x80 };
    struct floppy_transfer *t = &f->transfer;
    if (kind == FLOPPY_READ_TRACK) {
        t->sectors_left = t->last;
        t->sector = 1;
    } else if (kind == FLOPPY_VERIFY && f->command[1] & ENABLE_COUNT) {
        t->sectors_left = f->command[8];
    }
}

void floppy_start_transfer(struct floppy *f, enum floppy_transfer_kind kind)
{
    enum { READ_DELETED = 0x0c };
    struct floppy_transfer *t = &f->transfer;
    begin(f, kind);
    t->cylinder = f->command[2];
    t->head_id = f->command[3];
    t->sector = f->command[4];
    t->size_code = f->command[5];
    t->last = f->command[6];
    t->multi_track = f->command[0] & MULTI_TRACK && kind != FLOPPY_READ_TRACK;
    t->is_deleted = (f->command[0] & 0x1f) == READ_DELETED;
    bound(f, kind);
    struct floppy_drive *drive = floppy_drive_of(f, t->unit);
    if (drive && f->configuration & FLOPPY_IMPLIED_SEEK)
        floppy_step(drive, t->cylinder);
    if (kind == FLOPPY_WRITE && is_protected(f))
        fail(f, ST1_NOT_WRITABLE, 0);
    else if (t->is_deleted && f->command[0] & SKIP)
        fail(f, ST1_NO_DATA, 0); /* all of them are skipped */
    else
        next_sector(f);
}

void floppy_read_id(struct floppy *f)
{
    struct floppy_transfer *t = &f->transfer;
    begin(f, FLOPPY_READ);
    struct floppy_drive *drive = floppy_drive_of(f, t->unit);
    if (!has_track(f, drive, t->head)) {
        fail(f, ST1_NO_ADDRESS | ST1_NO_DATA, 0);
        return;
    }
    drive->next_sector = (uint8_t)(drive->next_sector % drive->geometry->sectors + 1);
    t->cylinder = drive->track;
    t->head_id = t->head;
    t->sector = drive->next_sector;
    t->size_code = SIZE_512;
    finish(f, 0, 0, 0);
}

/* ---- format: four bytes of each sector's id come, then the track is written ---- */

static bool ids_fit(const struct floppy *f, const struct floppy_drive *drive)
{
    const struct floppy_transfer *t = &f->transfer;
    uint64_t seen = 0;
    for (unsigned i = 0; i < t->last; i++) {
        const uint8_t *id = f->data + (size_t)i * ID_BYTES;
        if (id[0] != drive->track || id[1] != t->head || id[2] == 0 ||
            id[2] > drive->geometry->sectors || id[3] != SIZE_512)
            return false;
        seen |= UINT64_C(1) << id[2];
    }
    return seen == ((UINT64_C(1) << drive->geometry->sectors) - 1) << 1;
}

static void write_track(struct floppy *f)
{
    struct floppy_transfer *t = &f->transfer;
    const struct floppy_drive *drive = floppy_drive_of(f, t->unit);
    if (!drive || !drive->has_medium || !ids_fit(f, drive)) {
        fail(f, ST1_NO_DATA, 0);
        return;
    }
    size_t size = (size_t)drive->geometry->sectors * FLOPPY_SECTOR_BYTES;
    memset(f->data, t->filler, size);
    submit(f, track_offset(drive, t->head), f->data, size);
}

void floppy_start_format(struct floppy *f)
{
    struct floppy_transfer *t = &f->transfer;
    begin(f, FLOPPY_FORMAT);
    t->size_code = f->command[2];
    t->last = f->command[3];
    t->filler = f->command[5];
    const struct floppy_drive *drive = floppy_drive_of(f, t->unit);
    if (!has_track(f, drive, t->head)) {
        fail(f, ST1_NO_ADDRESS, 0);
        return;
    }
    t->cylinder = drive->track;
    t->head_id = t->head;
    if (is_protected(f)) {
        fail(f, ST1_NOT_WRITABLE, 0);
        return;
    }
    if (t->last != drive->geometry->sectors || t->size_code != SIZE_512) {
        fail(f, ST1_NO_DATA, 0); /* a format that an image can't have */
        return;
    }
    t->data_bytes = (uint16_t)(t->last * ID_BYTES);
    if (f->no_dma) {
        f->phase = FLOPPY_TAKES;
        floppy_set_interrupt(f, true);
        return;
    }
    size_t moved = dma_move(&f->config.dma, f->data, t->data_bytes, false, &t->is_over);
    if (moved < t->data_bytes)
        fail(f, ST1_OVERRUN, 0);
    else
        write_track(f);
}

/* ---- bytes by programmed I/O ---- */

void floppy_data_in(struct floppy *f, uint8_t value)
{
    struct floppy_transfer *t = &f->transfer;
    uint64_t offset;
    f->data[t->data_at++] = value;
    if (t->data_at < t->data_bytes)
        return;
    floppy_set_interrupt(f, false);
    if (t->kind == FLOPPY_FORMAT)
        write_track(f);
    else if (locate(f, &offset)) /* the disk may have been changed */
        submit(f, offset, f->data, FLOPPY_SECTOR_BYTES);
}

uint8_t floppy_data_out(struct floppy *f)
{
    struct floppy_transfer *t = &f->transfer;
    uint8_t value = f->data[t->data_at++];
    if (t->data_at == t->data_bytes) {
        floppy_set_interrupt(f, false);
        sector_moved(f);
    }
    return value;
}
