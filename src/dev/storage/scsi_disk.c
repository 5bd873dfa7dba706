/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A disk's commands (SBC-3, chapter 5), mode pages and vital product data. Blocks have 512 bytes.
 * Left out: protection information, COMPARE AND WRITE, WRITE LONG, FORMAT UNIT, log pages,
 * persistent reservations (RESERVE and RELEASE succeed: there is one initiator).
 */
#include "dev/storage/scsi_internal.h"

#include <string.h>

enum {
    BLOCK_BYTES = SCSI_DISK_BLOCK_BYTES,
    UNMAP_DESCRIPTORS = 128,
    UNMAP_HEAD_BYTES = 8,
    UNMAP_DESCRIPTOR_BYTES = 16,
    /* 1 GiB, so that one request does not keep a worker for long. */
    UNMAP_BLOCKS = 1 << 21,
};

/* ---- reading and writing ---- */

/* Address and length of a command, by its size, which the top bits of the opcode tell. */
static void cdb_range(const uint8_t *cdb, uint64_t *lba, uint64_t *blocks)
{
    switch (cdb[0] >> 5) {
    case 0:
        *lba = be_get(cdb + 1, 3) & 0x1fffff;
        *blocks = cdb[4] ? cdb[4] : 256;
        break;
    case 4:
        *lba = be_get(cdb + 2, 8);
        *blocks = be_get(cdb + 10, 4);
        break;
    case 5:
        *lba = be_get(cdb + 2, 4);
        *blocks = be_get(cdb + 6, 4);
        break;
    default:
        *lba = be_get(cdb + 2, 4);
        *blocks = be_get(cdb + 7, 2);
        break;
    }
}

/* The bits after the opcode: protection, DPO, FUA. A 6-byte command has an address there. */
static uint8_t cdb_flags(const uint8_t *cdb)
{
    return cdb[0] >> 5 ? cdb[1] : 0;
}

static bool read_blocks(struct scsi_lun *lun, struct scsi_request *r)
{
    uint64_t lba, blocks;
    cdb_range(r->cdb, &lba, &blocks);
    if (cdb_flags(r->cdb) & 0xe0)
        return scsi_fail(r, SCSI_ILLEGAL_REQUEST, SENSE_INVALID_FIELD);
    return scsi_transfer(lun, r, false, lba, blocks, false);
}

static bool write_blocks(struct scsi_lun *lun, struct scsi_request *r)
{
    uint64_t lba, blocks;
    cdb_range(r->cdb, &lba, &blocks);
    if (cdb_flags(r->cdb) & 0xe0)
        return scsi_fail(r, SCSI_ILLEGAL_REQUEST, SENSE_INVALID_FIELD);
    return scsi_transfer(lun, r, true, lba, blocks, cdb_flags(r->cdb) & 8);
}

static bool check_chunk(struct scsi_request *r);

/* Reads the next chunk of what is to be verified. */
static bool check_next(struct scsi_request *r)
{
    if (!r->left_bytes)
        return false;
    r->chunk_bytes = r->left_bytes < SCSI_CHUNK_BYTES ? r->left_bytes : SCSI_CHUNK_BYTES;
    r->piece = (struct iovec){r->scratch, (size_t)r->chunk_bytes};
    r->block.iov = &r->piece;
    r->block.iov_count = 1;
    return scsi_start(r, BLOCK_READ, r->block.offset_bytes, r->chunk_bytes, check_chunk);
}

/* Compares a chunk that was read with the request's memory, in small pieces. */
static bool chunk_equals(const struct scsi_request *r)
{
    uint8_t piece[512];
    for (uint64_t at = 0; at < r->chunk_bytes; at += sizeof(piece))
        if (scsi_take(r, r->at_bytes + at, piece, sizeof(piece)) != sizeof(piece) ||
            memcmp(piece, r->scratch + at, sizeof(piece)) != 0)
            return false;
    return true;
}

static bool check_chunk(struct scsi_request *r)
{
    if (r->compares && !chunk_equals(r))
        return scsi_fail(r, SCSI_MISCOMPARE, SENSE_MISCOMPARE);
    r->at_bytes += r->chunk_bytes;
    r->left_bytes -= r->chunk_bytes;
    r->block.offset_bytes += r->chunk_bytes;
    if (r->compares)
        r->moved_bytes = r->at_bytes;
    return check_next(r);
}

/* Reads a range, and compares it where that is asked for. */
static bool check_blocks(struct scsi_request *r, uint64_t lba, uint64_t blocks, bool compares)
{
    r->compares = compares;
    r->at_bytes = 0;
    r->left_bytes = blocks * BLOCK_BYTES;
    r->block.offset_bytes = lba * BLOCK_BYTES;
    return r->left_bytes && (r->scratch || scsi_scratch(r, SCSI_CHUNK_BYTES)) && check_next(r);
}

/* SBC-3, 5.22 … 5.24. */
static bool verify(struct scsi_lun *lun, struct scsi_request *r)
{
    uint64_t lba, blocks;
    cdb_range(r->cdb, &lba, &blocks);
    uint8_t check = r->cdb[1] >> 1 & 3;
    if ((r->cdb[1] & 0xe0) || check > 1)
        return scsi_fail(r, SCSI_ILLEGAL_REQUEST, SENSE_INVALID_FIELD);
    if (!scsi_range_valid(lun, lba, blocks))
        return scsi_fail(r, SCSI_ILLEGAL_REQUEST, SENSE_LBA_RANGE);
    if (check && r->data_bytes < blocks * BLOCK_BYTES)
        return scsi_fail(r, SCSI_ABORTED_COMMAND, SENSE_DATA_PHASE);
    return check_blocks(r, lba, blocks, check);
}

static bool write_then_check(struct scsi_request *r)
{
    uint64_t lba, blocks;
    cdb_range(r->cdb, &lba, &blocks);
    r->moved_bytes = blocks * BLOCK_BYTES;
    return check_blocks(r, lba, blocks, r->cdb[1] >> 1 & 1);
}

static bool write_then_flush(struct scsi_request *r)
{
    r->block.iov = NULL;
    r->block.iov_count = 0;
    return scsi_start(r, BLOCK_FLUSH, 0, 0, write_then_check);
}

/* SBC-3, 5.36: written to the medium, then read. */
static bool write_and_verify(struct scsi_lun *lun, struct scsi_request *r)
{
    if ((r->cdb[1] >> 1 & 3) > 1)
        return scsi_fail(r, SCSI_ILLEGAL_REQUEST, SENSE_INVALID_FIELD);
    if (!write_blocks(lun, r))
        return false;
    r->step = write_then_flush;
    return true;
}

static bool synchronize_cache(struct scsi_lun *lun, struct scsi_request *r)
{
    uint64_t lba, blocks;
    cdb_range(r->cdb, &lba, &blocks);
    if (!scsi_range_valid(lun, lba, blocks))
        return scsi_fail(r, SCSI_ILLEGAL_REQUEST, SENSE_LBA_RANGE);
    return scsi_start(r, BLOCK_FLUSH, 0, 0, NULL);
}

/* ---- giving blocks back, and filling them ---- */

static bool flush_after(struct scsi_request *r)
{
    r->block.iov = NULL;
    r->block.iov_count = 0;
    return scsi_start(r, BLOCK_FLUSH, 0, 0, NULL);
}

static bool unmap_next(struct scsi_request *r)
{
    while (r->index < r->count) {
        const uint8_t *at = r->scratch + UNMAP_HEAD_BYTES + UNMAP_DESCRIPTOR_BYTES * r->index++;
        uint64_t blocks = be_get(at + 8, 4);
        if (blocks)
            return scsi_start(r, BLOCK_DISCARD, be_get(at, 8) * BLOCK_BYTES, blocks * BLOCK_BYTES,
                              unmap_next);
    }
    return false;
}

/* All of the list is checked before the first range is given back. */
static uint16_t unmap_check(const struct scsi_lun *lun, const struct scsi_request *r)
{
    uint64_t all = 0;
    for (unsigned i = 0; i < r->count; i++) {
        const uint8_t *at = r->scratch + UNMAP_HEAD_BYTES + UNMAP_DESCRIPTOR_BYTES * i;
        uint64_t blocks = be_get(at + 8, 4);
        if (!scsi_range_valid(lun, be_get(at, 8), blocks))
            return SENSE_LBA_RANGE;
        all += blocks;
    }
    return all > UNMAP_BLOCKS ? (uint16_t)SENSE_INVALID_PARAMETER : 0;
}

/* SBC-3, 5.28. */
static bool unmap(struct scsi_lun *lun, struct scsi_request *r)
{
    const size_t room = UNMAP_HEAD_BYTES + UNMAP_DESCRIPTORS * UNMAP_DESCRIPTOR_BYTES;
    uint64_t size = be_get(r->cdb + 7, 2);
    if (lun->info.read_only)
        return scsi_fail(r, SCSI_DATA_PROTECT, SENSE_WRITE_PROTECTED);
    if (!lun->info.can_discard || (r->cdb[1] & 1))
        return scsi_fail(r, SCSI_ILLEGAL_REQUEST,
                         r->cdb[1] & 1 ? SENSE_INVALID_FIELD : SENSE_INVALID_OPCODE);
    if (!size)
        return false;
    if (size > room || size < UNMAP_HEAD_BYTES)
        return scsi_fail(r, SCSI_ILLEGAL_REQUEST, SENSE_PARAMETER_LIST_LENGTH);
    if (!scsi_scratch(r, room))
        return false;
    if (scsi_take(r, 0, r->scratch, (size_t)size) != size)
        return scsi_fail(r, SCSI_ABORTED_COMMAND, SENSE_DATA_PHASE);
    r->moved_bytes = size;
    uint64_t list = be_get(r->scratch + 2, 2);
    if (list > size - UNMAP_HEAD_BYTES)
        list = size - UNMAP_HEAD_BYTES;
    r->index = 0;
    r->count = (unsigned)(list / UNMAP_DESCRIPTOR_BYTES);
    uint16_t code = unmap_check(lun, r);
    return code ? scsi_fail(r, SCSI_ILLEGAL_REQUEST, code) : unmap_next(r);
}

/* Writes the next chunk of a pattern. */
static bool fill_next(struct scsi_request *r)
{
    r->at_bytes += r->chunk_bytes;
    if (r->at_bytes == r->left_bytes)
        return r->then_flush && flush_after(r);
    uint64_t left = r->left_bytes - r->at_bytes;
    uint64_t offset = r->block.offset_bytes + r->chunk_bytes;
    r->chunk_bytes = left < SCSI_CHUNK_BYTES ? left : SCSI_CHUNK_BYTES;
    r->piece = (struct iovec){r->scratch, (size_t)r->chunk_bytes};
    r->block.iov = &r->piece;
    r->block.iov_count = 1;
    return scsi_start(r, BLOCK_WRITE, offset, r->chunk_bytes, fill_next);
}

static bool fill_start(struct scsi_request *r, const uint8_t *pattern, uint64_t offset_bytes,
                       uint64_t size_bytes)
{
    if (!scsi_scratch(r, SCSI_CHUNK_BYTES))
        return false;
    for (unsigned at = 0; at < SCSI_CHUNK_BYTES; at += BLOCK_BYTES)
        memcpy(r->scratch + at, pattern, BLOCK_BYTES);
    r->at_bytes = r->chunk_bytes = 0;
    r->left_bytes = size_bytes;
    r->block.offset_bytes = offset_bytes;
    return fill_next(r);
}

/* SBC-3, 5.44 and 5.45. Zeroes are left to the back end. */
static bool write_same(struct scsi_lun *lun, struct scsi_request *r)
{
    static const uint8_t zeroes[BLOCK_BYTES];
    uint8_t pattern[BLOCK_BYTES] = {0};
    uint64_t lba, blocks;
    bool has_block = !(r->cdb[0] == 0x93 && (r->cdb[1] & 1)), may_unmap = r->cdb[1] & 8;
    cdb_range(r->cdb, &lba, &blocks);
    if (!blocks && scsi_range_valid(lun, lba, 0))
        blocks = scsi_blocks(lun) - lba;
    /* Protection, ANCHOR, and the obsolete ways of numbering blocks. */
    if ((r->cdb[1] & 0xf6) || blocks > UNMAP_BLOCKS)
        return scsi_fail(r, SCSI_ILLEGAL_REQUEST, SENSE_INVALID_FIELD);
    if (!scsi_range_valid(lun, lba, blocks))
        return scsi_fail(r, SCSI_ILLEGAL_REQUEST, SENSE_LBA_RANGE);
    if (lun->info.read_only)
        return scsi_fail(r, SCSI_DATA_PROTECT, SENSE_WRITE_PROTECTED);
    if (has_block && scsi_take(r, 0, pattern, sizeof(pattern)) != sizeof(pattern))
        return scsi_fail(r, SCSI_ABORTED_COMMAND, SENSE_DATA_PHASE);
    r->moved_bytes = has_block ? BLOCK_BYTES : 0;
    r->then_flush = lun->write_through;
    if (!blocks)
        return false;
    if (memcmp(pattern, zeroes, sizeof(zeroes)) != 0)
        return fill_start(r, pattern, lba * BLOCK_BYTES, blocks * BLOCK_BYTES);
    r->block.may_unmap = may_unmap;
    return scsi_start(r, BLOCK_WRITE_ZEROES, lba * BLOCK_BYTES, blocks * BLOCK_BYTES,
                      r->then_flush ? flush_after : NULL);
}

/* ---- capacity, power ---- */

static unsigned physical_exponent(const struct block_info *info)
{
    unsigned exponent = 0;
    while (exponent < 15 && (uint32_t)BLOCK_BYTES << (exponent + 1) <= info->physical_block_bytes)
        exponent++;
    return exponent;
}

/* SERVICE ACTION IN (16); SBC-3, 5.13. */
static bool service_action_in(struct scsi_lun *lun, struct scsi_request *r)
{
    uint8_t data[32] = {0};
    if ((r->cdb[1] & 0x1f) != 0x10)
        return scsi_fail(r, SCSI_ILLEGAL_REQUEST, SENSE_INVALID_FIELD);
    be_put(data, scsi_blocks(lun) - 1, 8);
    be_put(data + 8, BLOCK_BYTES, 4);
    data[13] = (uint8_t)physical_exponent(&lun->info);
    data[14] = lun->info.can_discard ? 0x80 : 0; /* blocks can be given back */
    return scsi_reply(r, data, sizeof(data), be_get(r->cdb + 10, 4));
}

static bool stopped(struct scsi_request *r)
{
    r->lun->is_stopped = true;
    return false;
}

/* SBC-3, 5.25. What is cached is written before the disk stops. */
static bool start_stop(struct scsi_lun *lun, struct scsi_request *r)
{
    if (r->cdb[4] >> 4) /* power conditions change nothing here */
        return false;
    if (r->cdb[4] & 2) /* it cannot be taken out */
        return scsi_fail(r, SCSI_ILLEGAL_REQUEST, SENSE_INVALID_FIELD);
    if (!(r->cdb[4] & 1))
        return scsi_start(r, BLOCK_FLUSH, 0, 0, stopped);
    lun->is_stopped = false;
    return false;
}

/* ---- mode pages: SPC-3, 7.4, and SBC-3, 6.4 ---- */

static void page_recovery(const struct scsi_lun *lun, uint8_t *body, bool is_mask)
{
    (void)lun;
    if (!is_mask)
        body[0] = 0xc0; /* blocks are replaced by themselves */
}

/* For systems that think in cylinders: 255 heads of 63 sectors. */
static void page_geometry(const struct scsi_lun *lun, uint8_t *body, bool is_mask)
{
    uint64_t cylinders = scsi_blocks(lun) / (255 * 63);
    if (is_mask)
        return;
    be_put(body, cylinders < 0xffffff ? cylinders : 0xffffff, 3);
    body[3] = 255;
    be_put(body + 18, 1, 2); /* does not rotate */
}

static void page_caching(const struct scsi_lun *lun, uint8_t *body, bool is_mask)
{
    body[0] = is_mask || !lun->write_through ? 0x04 : 0; /* WCE */
}

static bool change_caching(struct scsi_lun *lun, const uint8_t *body)
{
    lun->write_through = !(body[0] & 0x04);
    return true;
}

static void page_control(const struct scsi_lun *lun, uint8_t *body, bool is_mask)
{
    (void)lun;
    if (!is_mask)
        body[1] = 0x10; /* commands may be reordered */
}

static void page_exceptions(const struct scsi_lun *lun, uint8_t *body, bool is_mask)
{
    (void)lun;
    if (!is_mask)
        body[0] = 0x08; /* exceptions are not told */
}

static const struct scsi_mode_page pages[] = {
    {0x01, 12, page_recovery, NULL},          {0x04, 24, page_geometry, NULL},
    {0x08, 20, page_caching, change_caching}, {0x0a, 12, page_control, NULL},
    {0x1c, 12, page_exceptions, NULL},
};

/* ---- vital product data: SBC-3, 6.5 ---- */

static unsigned vital_limits(const struct scsi_lun *lun, uint8_t *body)
{
    uint32_t granularity = lun->info.discard_granularity_bytes / BLOCK_BYTES;
    be_put(body + 2, UINT64_C(1) << physical_exponent(&lun->info), 2);
    be_put(body + 4, SCSI_TRANSFER_MAX_BYTES / BLOCK_BYTES, 4);
    if (lun->info.can_discard) {
        be_put(body + 16, UNMAP_BLOCKS, 4);
        be_put(body + 20, UNMAP_DESCRIPTORS, 4);
        be_put(body + 24, granularity ? granularity : 1, 4);
    }
    be_put(body + 32, UNMAP_BLOCKS, 8); /* of WRITE SAME */
    return 60;
}

static unsigned vital(const struct scsi_lun *lun, uint8_t page, uint8_t *body)
{
    switch (page) {
    case 0xb0: return vital_limits(lun, body);
    case 0xb1:
        be_put(body, 1, 2); /* does not rotate */
        return 60;
    case 0xb2:
        /* UNMAP and WRITE SAME give blocks back; whether these read as zeroes then is open. */
        body[1] = lun->info.can_discard ? 0xe0 : 0;
        body[2] = lun->info.can_discard ? 2 : 0; /* thin provisioning */
        return 4;
    default: return 0;
    }
}

static const uint8_t vital_pages[] = {0xb0, 0xb1, 0xb2};

static const struct scsi_command commands[] = {
    {0x00, NEEDS_MEDIUM, LENGTH_NONE, 0, 0, scsi_nothing}, /* TEST UNIT READY */
    {0x03, PASSES_ATTENTION, LENGTH_BYTES, 4, 1, scsi_request_sense},
    {0x08, NEEDS_MEDIUM, LENGTH_BLOCKS_6, 4, 1, read_blocks},
    {0x0a, NEEDS_MEDIUM | TO_UNIT, LENGTH_BLOCKS_6, 4, 1, write_blocks},
    {0x12, PASSES_ATTENTION, LENGTH_BYTES, 3, 2, scsi_inquiry},
    {0x15, TO_UNIT, LENGTH_BYTES, 4, 1, scsi_mode_select},
    {0x16, 0, LENGTH_NONE, 0, 0, scsi_nothing}, /* RESERVE */
    {0x17, 0, LENGTH_NONE, 0, 0, scsi_nothing}, /* RELEASE */
    {0x1a, 0, LENGTH_BYTES, 4, 1, scsi_mode_sense},
    {0x1b, 0, LENGTH_NONE, 0, 0, start_stop},
    {0x1d, 0, LENGTH_NONE, 0, 0, scsi_nothing}, /* SEND DIAGNOSTIC: all is well */
    {0x1e, 0, LENGTH_NONE, 0, 0, scsi_prevent_removal},
    {0x25, NEEDS_MEDIUM, LENGTH_FIXED, 0, 8, scsi_read_capacity_10},
    {0x28, NEEDS_MEDIUM, LENGTH_BLOCKS, 7, 2, read_blocks},
    {0x2a, NEEDS_MEDIUM | TO_UNIT, LENGTH_BLOCKS, 7, 2, write_blocks},
    {0x2b, NEEDS_MEDIUM, LENGTH_NONE, 0, 0, scsi_nothing}, /* SEEK */
    {0x2e, NEEDS_MEDIUM | TO_UNIT, LENGTH_BLOCKS, 7, 2, write_and_verify},
    {0x2f, NEEDS_MEDIUM | TO_UNIT, LENGTH_CHECKED, 7, 2, verify},
    {0x35, NEEDS_MEDIUM, LENGTH_NONE, 0, 0, synchronize_cache},
    {0x41, NEEDS_MEDIUM | TO_UNIT, LENGTH_ONE_BLOCK, 0, 0, write_same},
    {0x42, NEEDS_MEDIUM | TO_UNIT, LENGTH_BYTES, 7, 2, unmap},
    {0x55, TO_UNIT, LENGTH_BYTES, 7, 2, scsi_mode_select},
    {0x56, 0, LENGTH_NONE, 0, 0, scsi_nothing}, /* RESERVE */
    {0x57, 0, LENGTH_NONE, 0, 0, scsi_nothing}, /* RELEASE */
    {0x5a, 0, LENGTH_BYTES, 7, 2, scsi_mode_sense},
    {0x88, NEEDS_MEDIUM, LENGTH_BLOCKS, 10, 4, read_blocks},
    {0x8a, NEEDS_MEDIUM | TO_UNIT, LENGTH_BLOCKS, 10, 4, write_blocks},
    {0x8e, NEEDS_MEDIUM | TO_UNIT, LENGTH_BLOCKS, 10, 4, write_and_verify},
    {0x8f, NEEDS_MEDIUM | TO_UNIT, LENGTH_CHECKED, 10, 4, verify},
    {0x91, NEEDS_MEDIUM, LENGTH_NONE, 0, 0, synchronize_cache},
    {0x93, NEEDS_MEDIUM | TO_UNIT, LENGTH_ONE_BLOCK, 0, 0, write_same},
    {0x9e, NEEDS_MEDIUM, LENGTH_BYTES, 10, 4, service_action_in},
    {0xa0, PASSES_ATTENTION, LENGTH_BYTES, 6, 4, scsi_report_luns},
    {0xa8, NEEDS_MEDIUM, LENGTH_BLOCKS, 6, 4, read_blocks},
    {0xaa, NEEDS_MEDIUM | TO_UNIT, LENGTH_BLOCKS, 6, 4, write_blocks},
    {0xae, NEEDS_MEDIUM | TO_UNIT, LENGTH_BLOCKS, 6, 4, write_and_verify},
    {0xaf, NEEDS_MEDIUM | TO_UNIT, LENGTH_CHECKED, 6, 4, verify},
};

const struct scsi_kind scsi_disk_kind = {
    .peripheral_type = 0x00,
    .block_bytes = BLOCK_BYTES,
    .product = "disk",
    .commands = commands,
    .command_count = sizeof(commands) / sizeof(commands[0]),
    .pages = pages,
    .page_count = sizeof(pages) / sizeof(pages[0]),
    .vital = vital,
    .vital_pages = vital_pages,
    .vital_page_count = sizeof(vital_pages),
};
