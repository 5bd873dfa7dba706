/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A logical unit's frame: taking commands, moving data, sense data, unit attentions, the medium.
 * The commands themselves are in scsi_common.c, scsi_mode.c, scsi_disk.c and scsi_cdrom.c.
 */
#include "dev/storage/scsi_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- sense ---- */

static void sense_fill(uint8_t *sense, enum scsi_sense_key key, uint16_t code)
{
    memset(sense, 0, SCSI_SENSE_BYTES);
    sense[0] = 0x70; /* SPC-3, 4.5.3: current, fixed format */
    sense[2] = (uint8_t)key;
    sense[7] = SCSI_SENSE_BYTES - 8;
    be_put(sense + 12, code, 2);
}

bool scsi_fail(struct scsi_request *r, enum scsi_sense_key key, uint16_t code)
{
    r->status = SCSI_CHECK_CONDITION;
    sense_fill(r->sense, key, code);
    return false;
}

/* What an error of the host looks like to the guest. */
static void fail_errno(struct scsi_request *r, int error)
{
    bool is_read = r->block.kind == BLOCK_READ;
    if (error == EROFS || error == EPERM || error == EACCES)
        scsi_fail(r, SCSI_DATA_PROTECT, SENSE_WRITE_PROTECTED);
    else if (error == ENOSPC || error == EDQUOT)
        scsi_fail(r, SCSI_DATA_PROTECT, SENSE_SPACE_ALLOCATION);
    else if (error == EOPNOTSUPP || error == ENOSYS)
        scsi_fail(r, SCSI_ILLEGAL_REQUEST, SENSE_INVALID_OPCODE);
    else
        scsi_fail(r, SCSI_MEDIUM_ERROR, is_read ? SENSE_UNRECOVERED_READ : SENSE_WRITE_ERROR);
}

/* ---- the request's memory ---- */

/* Copies between the memory and a buffer, as far as both go. */
static size_t memory_copy(const struct scsi_request *r, uint64_t offset, void *out, const void *in,
                          size_t size_bytes)
{
    size_t done = 0;
    for (unsigned i = 0; i < r->iov_count && done < size_bytes; i++) {
        const struct iovec *piece = &r->iov[i];
        if (offset >= piece->iov_len) {
            offset -= piece->iov_len;
            continue;
        }
        size_t n = piece->iov_len - (size_t)offset;
        n = n < size_bytes - done ? n : size_bytes - done;
        uint8_t *memory = (uint8_t *)piece->iov_base + offset;
        if (out)
            memcpy((uint8_t *)out + done, memory, n);
        else
            memcpy(memory, (const uint8_t *)in + done, n);
        done += n;
        offset = 0;
    }
    return done;
}

size_t scsi_take(const struct scsi_request *r, uint64_t offset, void *buffer, size_t size_bytes)
{
    return memory_copy(r, offset, buffer, NULL, size_bytes);
}

size_t scsi_give(const struct scsi_request *r, uint64_t offset, const void *buffer,
                 size_t size_bytes)
{
    return memory_copy(r, offset, NULL, buffer, size_bytes);
}

bool scsi_reply(struct scsi_request *r, const void *data, size_t size_bytes,
                uint64_t allocation_bytes)
{
    if (size_bytes > allocation_bytes)
        size_bytes = (size_t)allocation_bytes;
    r->moved_bytes = scsi_give(r, 0, data, size_bytes);
    return false;
}

void scsi_cut(struct scsi_request *r, uint64_t size_bytes)
{
    unsigned i = 0;
    while (size_bytes > r->iov[i].iov_len)
        size_bytes -= r->iov[i++].iov_len;
    r->cut = &r->iov[i];
    r->cut_bytes = r->cut->iov_len;
    r->cut->iov_len = (size_t)size_bytes;
    r->block.iov = r->iov;
    r->block.iov_count = i + 1;
}

bool scsi_scratch(struct scsi_request *r, size_t size_bytes)
{
    r->scratch = malloc(size_bytes);
    if (r->scratch)
        return true;
    return scsi_fail(r, SCSI_HARDWARE_ERROR, SENSE_INTERNAL_FAILURE);
}

/* ---- the life of a request ---- */

static const struct scsi_command *find_command(const struct scsi_lun *lun, uint8_t opcode)
{
    for (unsigned i = 0; i < lun->kind->command_count; i++)
        if (lun->kind->commands[i].opcode == opcode)
            return &lun->kind->commands[i];
    return NULL;
}

static uint64_t command_bytes(const struct scsi_lun *lun, const struct scsi_command *command,
                              const uint8_t *cdb)
{
    if (command->length == LENGTH_FIXED)
        return command->length_of;
    uint64_t length = be_get(cdb + command->length_at, command->length_of);
    switch ((enum scsi_length)command->length) {
    case LENGTH_NONE:
    case LENGTH_FIXED: return 0;
    case LENGTH_BYTES: return length;
    case LENGTH_BLOCKS: return length * lun->kind->block_bytes;
    case LENGTH_BLOCKS_6: return (length ? length : 256) * lun->kind->block_bytes;
    case LENGTH_ONE_BLOCK: return cdb[0] == 0x93 && (cdb[1] & 1) ? 0 : lun->kind->block_bytes;
    case LENGTH_CHECKED: return (cdb[1] & 6) ? length * lun->kind->block_bytes : 0;
    case LENGTH_CD: return (cdb[9] & 0x10) ? length * lun->kind->block_bytes : 0;
    }
    return 0;
}

enum scsi_direction scsi_lun_direction(struct scsi_lun *lun, const uint8_t *cdb,
                                       uint64_t *size_bytes)
{
    const struct scsi_command *command = find_command(lun, cdb[0]);
    *size_bytes = command ? command_bytes(lun, command, cdb) : 0;
    if (!*size_bytes)
        return SCSI_NO_DATA;
    return command->flags & TO_UNIT ? SCSI_TO_UNIT : SCSI_FROM_UNIT;
}

/* Whether the medium can be used; otherwise the request has failed. */
static bool check_ready(const struct scsi_lun *lun, struct scsi_request *r)
{
    if (lun->is_open)
        return scsi_fail(r, SCSI_NOT_READY, SENSE_NO_MEDIUM_OPEN);
    if (!lun->has_medium)
        return scsi_fail(r, SCSI_NOT_READY, SENSE_NO_MEDIUM_CLOSED);
    if (lun->is_stopped)
        return scsi_fail(r, SCSI_NOT_READY, SENSE_BECOMING_READY_START);
    return true;
}

/* A unit attention ends the next command but some (SPC-3, 5.8.5), and is told once. */
static bool take_attention(struct scsi_lun *lun, struct scsi_request *r)
{
    uint16_t code = lun->attention;
    if (!code && !lun->medium_attention)
        return false;
    if (!code) {
        code = SENSE_MEDIUM_CHANGED;
        lun->medium_attention = false;
    }
    lun->attention = 0;
    scsi_fail(r, SCSI_UNIT_ATTENTION, code);
    return true;
}

static bool request_run(struct scsi_lun *lun, struct scsi_request *r)
{
    const struct scsi_command *command = find_command(lun, r->cdb[0]);
    if (!(command && command->flags & PASSES_ATTENTION) && take_attention(lun, r))
        return false;
    if (!command)
        return scsi_fail(r, SCSI_ILLEGAL_REQUEST, SENSE_INVALID_OPCODE);
    if ((command->flags & NEEDS_MEDIUM) && !check_ready(lun, r))
        return false;
    if (command->length > LENGTH_BYTES &&
        command_bytes(lun, command, r->cdb) > SCSI_TRANSFER_MAX_BYTES)
        return scsi_fail(r, SCSI_ILLEGAL_REQUEST, SENSE_INVALID_FIELD);
    return command->run(lun, r);
}

static void request_end(struct scsi_lun *lun, struct scsi_request *r)
{
    if (r->cut)
        r->cut->iov_len = r->cut_bytes;
    free(r->scratch);
    r->cut = NULL;
    r->scratch = NULL;
    if (lun->config.keeps_sense && r->status == SCSI_CHECK_CONDITION)
        memcpy(lun->kept_sense, r->sense, sizeof(lun->kept_sense));
}

bool scsi_lun_submit(struct scsi_lun *lun, struct scsi_request *r)
{
    pthread_mutex_lock(&lun->lock);
    r->lun = lun;
    r->medium = lun->medium;
    r->status = SCSI_GOOD;
    memset(r->sense, 0, sizeof(r->sense));
    r->moved_bytes = r->at_bytes = r->left_bytes = 0;
    r->scratch = NULL;
    r->cut = NULL;
    r->step = NULL;
    r->then_flush = r->is_write = false;
    memset(&r->block, 0, sizeof(r->block));
    /* SPC-3, 6.27: sense data is kept until another command comes. */
    if (r->cdb[0] != 0x03)
        memset(lun->kept_sense, 0, sizeof(lun->kept_sense));
    bool is_under_way = request_run(lun, r);
    if (!is_under_way)
        request_end(lun, r);
    pthread_mutex_unlock(&lun->lock);
    return is_under_way;
}

static void block_done(struct block_request *block, int error)
{
    struct scsi_request *r = block->opaque;
    struct scsi_lun *lun = r->lun;
    pthread_mutex_lock(&lun->lock);
    if (error) {
        log_limited(lun->config.log, &lun->limit, LOG_WARNING, "scsi", "%s request failed: %s",
                    lun->kind->product, strerror(error));
        r->moved_bytes = 0;
        fail_errno(r, error);
    }
    bool goes_on = !error && r->step && r->step(r);
    if (!goes_on)
        request_end(lun, r);
    pthread_mutex_unlock(&lun->lock);
    if (!goes_on)
        r->done(r);
}

bool scsi_start(struct scsi_request *r, enum block_kind kind, uint64_t offset_bytes,
                uint64_t size_bytes, bool (*step)(struct scsi_request *r))
{
    r->step = step;
    r->block.kind = kind;
    r->block.offset_bytes = offset_bytes;
    r->block.size_bytes = size_bytes;
    r->block.done = block_done;
    r->block.opaque = r;
    r->medium.submit(r->medium.opaque, &r->block);
    return true;
}

/* ---- reads and writes ---- */

uint64_t scsi_blocks(const struct scsi_lun *lun)
{
    return lun->info.size_bytes / lun->kind->block_bytes;
}

bool scsi_range_valid(const struct scsi_lun *lun, uint64_t lba, uint64_t blocks)
{
    uint64_t all = scsi_blocks(lun);
    return lba <= all && blocks <= all - lba;
}

static bool transferred(struct scsi_request *r)
{
    r->moved_bytes = r->left_bytes;
    if (!r->then_flush)
        return false;
    r->block.iov = NULL;
    r->block.iov_count = 0;
    return scsi_start(r, BLOCK_FLUSH, 0, 0, NULL);
}

bool scsi_transfer(struct scsi_lun *lun, struct scsi_request *r, bool is_write, uint64_t lba,
                   uint64_t blocks, bool is_forced)
{
    uint64_t size_bytes = blocks * lun->kind->block_bytes;
    if (!scsi_range_valid(lun, lba, blocks))
        return scsi_fail(r, SCSI_ILLEGAL_REQUEST, SENSE_LBA_RANGE);
    if (is_write && lun->info.read_only)
        return scsi_fail(r, SCSI_DATA_PROTECT, SENSE_WRITE_PROTECTED);
    if (is_write && size_bytes > r->data_bytes)
        return scsi_fail(r, SCSI_ABORTED_COMMAND, SENSE_DATA_PHASE);
    if (size_bytes > r->data_bytes)
        size_bytes = r->data_bytes;
    if (!size_bytes)
        return false;
    scsi_cut(r, size_bytes);
    r->left_bytes = size_bytes;
    r->then_flush = is_write && (is_forced || lun->write_through);
    return scsi_start(r, is_write ? BLOCK_WRITE : BLOCK_READ, lba * lun->kind->block_bytes,
                      size_bytes, transferred);
}

/* ---- the medium ---- */

static void medium_set(struct scsi_lun *lun, const struct block_backend *medium)
{
    lun->has_medium = medium;
    memset(&lun->info, 0, sizeof(lun->info));
    memset(&lun->medium, 0, sizeof(lun->medium));
    if (medium) {
        lun->medium = *medium;
        medium->info(medium->opaque, &lun->info);
    }
}

static void tell(struct scsi_lun *lun, enum scsi_event event)
{
    if (lun->config.event)
        lun->config.event(lun->config.opaque, event);
}

bool scsi_lun_change_medium(struct scsi_lun *lun, const struct block_backend *medium,
                            bool is_forced)
{
    pthread_mutex_lock(&lun->lock);
    bool is_refused = lun->is_locked && lun->has_medium && !lun->is_open && !is_forced;
    struct block_backend old = lun->medium;
    bool had_medium = lun->has_medium;
    if (is_refused) {
        lun->event = MEDIA_EJECT_REQUEST;
    } else {
        medium_set(lun, NULL);
        lun->is_open = false;
        lun->is_stopped = false;
        lun->event = MEDIA_REMOVAL;
        lun->medium_attention = had_medium;
    }
    pthread_mutex_unlock(&lun->lock);
    if (is_refused) {
        tell(lun, SCSI_EVENT_EJECT_REQUESTED);
        return false;
    }
    /* No new request finds the old medium; those under way still use it. */
    if (had_medium)
        old.drain(old.opaque);
    if (medium) {
        pthread_mutex_lock(&lun->lock);
        medium_set(lun, medium);
        lun->event = MEDIA_NEW;
        lun->medium_attention = true;
        pthread_mutex_unlock(&lun->lock);
    }
    tell(lun, SCSI_EVENT_MEDIUM_CHANGED);
    return true;
}

bool scsi_lun_is_cdrom(const struct scsi_lun *lun)
{
    return lun->config.is_cdrom;
}

/* ---- life ---- */

static void lun_clear(struct scsi_lun *lun)
{
    memset(lun->kept_sense, 0, sizeof(lun->kept_sense));
    lun->attention = 0;
    lun->is_locked = false;
    lun->is_stopped = false;
    lun->write_through = false;
}

void scsi_lun_reset(struct scsi_lun *lun, bool is_power_on)
{
    pthread_mutex_lock(&lun->lock);
    lun_clear(lun);
    if (is_power_on) {
        lun->is_open = false;
        lun->medium_attention = false;
        lun->event = 0;
    } else {
        lun->attention = SENSE_RESET;
    }
    pthread_mutex_unlock(&lun->lock);
}

void scsi_lun_save(struct scsi_lun *lun, struct save *save)
{
    pthread_mutex_lock(&lun->lock);
    save_bytes(save, lun->kept_sense, sizeof(lun->kept_sense));
    save_u16(save, lun->attention);
    save_bool(save, lun->medium_attention);
    save_bool(save, lun->is_locked);
    save_bool(save, lun->is_stopped);
    save_bool(save, lun->is_open);
    save_bool(save, lun->write_through);
    save_u8(save, lun->event);
    pthread_mutex_unlock(&lun->lock);
}

bool scsi_lun_load(struct scsi_lun *lun, struct load *load)
{
    pthread_mutex_lock(&lun->lock);
    load_bytes(load, lun->kept_sense, sizeof(lun->kept_sense));
    lun->attention = load_u16(load);
    lun->medium_attention = load_bool(load);
    lun->is_locked = load_bool(load);
    lun->is_stopped = load_bool(load);
    lun->is_open = load_bool(load);
    lun->write_through = load_bool(load);
    lun->event = load_u8(load);
    if ((lun->is_open && !lun->config.is_cdrom) || lun->event > MEDIA_REMOVAL)
        load_fail(load);
    bool is_good = !load->failed;
    if (!is_good) {
        lun_clear(lun);
        lun->is_open = lun->medium_attention = false;
        lun->event = 0;
    }
    pthread_mutex_unlock(&lun->lock);
    return is_good;
}

/* Text padded with spaces, as SCSI has it. */
static void put_text(char *field, size_t size_bytes, const char *text)
{
    memset(field, ' ', size_bytes);
    memcpy(field, text, strnlen(text, size_bytes));
}

struct scsi_lun *scsi_lun_create(const struct scsi_lun_config *config, struct error *err)
{
    struct scsi_lun *lun = calloc(1, sizeof(*lun));
    if (!lun) {
        error_set(err, "cannot create device", "scsi", "out of memory");
        return NULL;
    }
    lun->config = *config;
    lun->kind = config->is_cdrom ? &scsi_cdrom_kind : &scsi_disk_kind;
    pthread_mutex_init(&lun->lock, NULL);
    put_text(lun->vendor, sizeof(lun->vendor), config->vendor ? config->vendor : "skep");
    put_text(lun->product, sizeof(lun->product),
             config->product ? config->product : lun->kind->product);
    put_text(lun->revision, sizeof(lun->revision), config->revision ? config->revision : "1");
    if (config->serial)
        memcpy(lun->serial, config->serial, strnlen(config->serial, SCSI_SERIAL_BYTES));
    medium_set(lun, config->medium);
    return lun;
}

void scsi_lun_destroy(struct scsi_lun *lun)
{
    if (!lun)
        return;
    pthread_mutex_destroy(&lun->lock);
    free(lun);
}
