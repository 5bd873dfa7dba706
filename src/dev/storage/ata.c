/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Commands of ATA drives (ATA8-ACS, chapter 7): what each would move, and carrying it out. Identify
 * data, SMART and logs are in ata_identify.c and ata_smart.c. Left out: security, host protected
 * area, streaming, configuration overlay, advanced power management, microcode.
 */
#include "dev/storage/ata_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { SECTOR = ATA_SECTOR_BYTES, VERIFY_CHUNK_BYTES = 65536, TRIM_RANGE_BYTES = 8 };

enum operation {
    OP_NOTHING,
    OP_READ,
    OP_WRITE,
    OP_VERIFY,
    OP_FLUSH,
    OP_TRIM,
    OP_IDENTIFY,
    OP_SET_FEATURES,
    OP_SET_MULTIPLE,
    OP_SET_PARAMETERS,
    OP_SMART,
    OP_LOG,
    OP_NATIVE_MAX,
    OP_STANDBY,
    OP_SLEEP,
    OP_IDLE,
    OP_CHECK_POWER,
    OP_DIAGNOSTIC,
    OP_PACKET,
};

enum {               /* of commands */
       EXT = 1 << 0, /* 48-bit address, 16-bit count */
       FUA = 1 << 1,
       MULTIPLE = 1 << 2,
       QUEUED = 1 << 3,
       DISK = 1 << 4, /* who knows it */
       ATAPI = 1 << 5,
       BOTH = DISK | ATAPI,
};

struct command {
    uint8_t opcode, operation, protocol, flags;
};

static const struct command commands[] = {
    {0x06, OP_TRIM, ATA_DMA_OUT, DISK | EXT},
    {0x08, OP_NOTHING, ATA_DEVICE_RESET, ATAPI},
    {0x20, OP_READ, ATA_PIO_IN, DISK},
    {0x21, OP_READ, ATA_PIO_IN, DISK},
    {0x24, OP_READ, ATA_PIO_IN, DISK | EXT},
    {0x25, OP_READ, ATA_DMA_IN, DISK | EXT},
    {0x27, OP_NATIVE_MAX, ATA_NO_DATA, DISK | EXT},
    {0x29, OP_READ, ATA_PIO_IN, DISK | EXT | MULTIPLE},
    {0x2f, OP_LOG, ATA_PIO_IN, DISK | EXT},
    {0x30, OP_WRITE, ATA_PIO_OUT, DISK},
    {0x31, OP_WRITE, ATA_PIO_OUT, DISK},
    {0x34, OP_WRITE, ATA_PIO_OUT, DISK | EXT},
    {0x35, OP_WRITE, ATA_DMA_OUT, DISK | EXT},
    {0x39, OP_WRITE, ATA_PIO_OUT, DISK | EXT | MULTIPLE},
    {0x3d, OP_WRITE, ATA_DMA_OUT, DISK | EXT | FUA},
    {0x40, OP_VERIFY, ATA_NO_DATA, DISK},
    {0x41, OP_VERIFY, ATA_NO_DATA, DISK},
    {0x42, OP_VERIFY, ATA_NO_DATA, DISK | EXT},
    {0x60, OP_READ, ATA_QUEUED_IN, DISK | EXT | QUEUED},
    {0x61, OP_WRITE, ATA_QUEUED_OUT, DISK | EXT | QUEUED},
    {0x70, OP_NOTHING, ATA_NO_DATA, DISK}, /* SEEK */
    {0x90, OP_DIAGNOSTIC, ATA_NO_DATA, BOTH},
    {0x91, OP_SET_PARAMETERS, ATA_NO_DATA, DISK},
    {0xa0, OP_PACKET, ATA_PACKET, ATAPI},
    {0xa1, OP_IDENTIFY, ATA_PIO_IN, ATAPI},
    {0xb0, OP_SMART, ATA_NO_DATA, DISK},
    {0xc4, OP_READ, ATA_PIO_IN, DISK | MULTIPLE},
    {0xc5, OP_WRITE, ATA_PIO_OUT, DISK | MULTIPLE},
    {0xc6, OP_SET_MULTIPLE, ATA_NO_DATA, DISK},
    {0xc8, OP_READ, ATA_DMA_IN, DISK},
    {0xc9, OP_READ, ATA_DMA_IN, DISK},
    {0xca, OP_WRITE, ATA_DMA_OUT, DISK},
    {0xcb, OP_WRITE, ATA_DMA_OUT, DISK},
    {0xce, OP_WRITE, ATA_PIO_OUT, DISK | EXT | MULTIPLE | FUA},
    {0xe0, OP_STANDBY, ATA_NO_DATA, BOTH},
    {0xe1, OP_IDLE, ATA_NO_DATA, BOTH},
    {0xe2, OP_STANDBY, ATA_NO_DATA, BOTH},
    {0xe3, OP_IDLE, ATA_NO_DATA, BOTH},
    {0xe5, OP_CHECK_POWER, ATA_NO_DATA, BOTH},
    {0xe6, OP_SLEEP, ATA_NO_DATA, BOTH},
    {0xe7, OP_FLUSH, ATA_NO_DATA, BOTH},
    {0xea, OP_FLUSH, ATA_NO_DATA, DISK},
    {0xec, OP_IDENTIFY, ATA_PIO_IN, DISK},
    {0xef, OP_SET_FEATURES, ATA_NO_DATA, BOTH},
    {0xf8, OP_NATIVE_MAX, ATA_NO_DATA, DISK},
};

static const struct command *find_command(const struct ata_drive *drive, uint8_t opcode)
{
    unsigned who = drive->config.cdrom ? ATAPI : DISK;
    /* RECALIBRATE has sixteen opcodes. */
    static const struct command recalibrate = {0x10, OP_NOTHING, ATA_NO_DATA, DISK};
    if ((opcode & 0xf0) == 0x10)
        return who == DISK ? &recalibrate : NULL;
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        if (commands[i].opcode == opcode)
            return (commands[i].flags & who) ? &commands[i] : NULL;
    return NULL;
}

uint64_t ata_sectors(const struct ata_drive *drive)
{
    return drive->info.size_bytes / SECTOR;
}

unsigned ata_cylinders(const struct ata_drive *drive)
{
    uint64_t cylinders = ata_sectors(drive) / ((unsigned)drive->heads * drive->sectors);
    return cylinders < 16383 ? (unsigned)cylinders : 16383;
}

/* ---- addresses ---- */

/* Cylinder, head and sector, which counts from 1. UINT64_MAX: there is no such place. */
static uint64_t chs_address(const struct ata_drive *drive, const struct ata_taskfile *tf)
{
    unsigned sector = tf->lba & 0xff, head = tf->device & 0xf;
    uint64_t cylinder = tf->lba >> 8 & 0xffff;
    if (!sector || sector > drive->sectors || head >= drive->heads)
        return UINT64_MAX;
    return (cylinder * drive->heads + head) * drive->sectors + sector - 1;
}

static uint64_t address(const struct ata_drive *drive, const struct command *command,
                        const struct ata_taskfile *tf)
{
    if (command->flags & EXT)
        return tf->lba & UINT64_C(0xffffffffffff);
    if (tf->device & 0x40)
        return (tf->lba & 0xffffff) | (uint64_t)(tf->device & 0xf) << 24;
    return chs_address(drive, tf);
}

static unsigned sector_count(const struct command *command, const struct ata_taskfile *tf)
{
    unsigned count = command->flags & QUEUED ? tf->features : tf->count;
    if (command->flags & EXT)
        return count ? count : 65536;
    return count & 0xff ? count & 0xff : 256;
}

static bool range_valid(const struct ata_drive *drive, uint64_t lba, uint64_t sectors)
{
    uint64_t all = ata_sectors(drive);
    return lba <= all && sectors <= all - lba;
}

/* ---- plans ---- */

static void plan_transfer(const struct ata_drive *drive, const struct command *command,
                          const struct ata_taskfile *tf, struct ata_plan *plan)
{
    unsigned sectors = sector_count(command, tf);
    uint64_t lba = address(drive, command, tf);
    bool is_queued = command->flags & QUEUED;
    if (lba == UINT64_MAX || !range_valid(drive, lba, sectors))
        plan->error = ATA_ERROR_IDNF;
    if (((command->flags & MULTIPLE) && !drive->multiple) ||
        (is_queued && !drive->config.is_serial_ata) ||
        (command->operation == OP_WRITE && drive->info.read_only))
        plan->error = ATA_ERROR_ABRT;
    if (command->operation != OP_VERIFY)
        plan->data_bytes = (uint64_t)sectors * SECTOR;
    plan->block_bytes = SECTOR * (command->flags & MULTIPLE ? drive->multiple : 1);
}

static void plan_trim(const struct ata_drive *drive, const struct ata_taskfile *tf,
                      struct ata_plan *plan)
{
    if (!drive->info.can_discard || !(tf->features & 1) || !tf->count ||
        tf->count > ATA_TRIM_BLOCKS)
        plan->error = ATA_ERROR_ABRT;
    plan->data_bytes = (uint64_t)tf->count * SECTOR;
}

static struct ata_plan make_plan(const struct ata_drive *drive, const struct ata_taskfile *tf)
{
    const struct command *command = find_command(drive, tf->command);
    struct ata_plan plan = {.protocol = ATA_NO_DATA, .block_bytes = SECTOR};
    if (!command) {
        plan.error = ATA_ERROR_ABRT;
        return plan;
    }
    plan.protocol = command->protocol;
    switch (command->operation) {
    case OP_READ:
    case OP_WRITE:
    case OP_VERIFY: plan_transfer(drive, command, tf, &plan); break;
    case OP_TRIM: plan_trim(drive, tf, &plan); break;
    case OP_IDENTIFY: plan.data_bytes = SECTOR; break;
    case OP_SMART:
        if (!ata_smart_plan(drive, tf, &plan))
            plan.error = ATA_ERROR_ABRT;
        break;
    case OP_LOG:
        if (!ata_log_plan(tf, &plan))
            plan.error = ATA_ERROR_ABRT;
        break;
    default: break;
    }
    return plan;
}

struct ata_plan ata_plan(struct ata_drive *drive, const struct ata_taskfile *tf)
{
    pthread_mutex_lock(&drive->lock);
    struct ata_plan plan = make_plan(drive, tf);
    pthread_mutex_unlock(&drive->lock);
    return plan;
}

enum scsi_direction ata_packet_direction(struct ata_drive *drive, const uint8_t *packet,
                                         uint64_t *size_bytes)
{
    return scsi_lun_direction(drive->config.cdrom, packet, size_bytes);
}

/* ---- the life of a request ---- */

static bool fail(struct ata_request *r, uint8_t error)
{
    r->status = ATA_READY | ATA_STATUS_ERR;
    r->error = error;
    return false;
}

static void request_end(struct ata_request *r)
{
    free(r->scratch);
    r->scratch = NULL;
}

static void block_done(struct block_request *block, int error)
{
    struct ata_request *r = block->opaque;
    struct ata_drive *drive = r->drive;
    pthread_mutex_lock(&drive->lock);
    if (error) {
        log_limited(drive->config.log, &drive->limit, LOG_WARNING, "ata", "request failed: %s",
                    strerror(error));
        r->moved_bytes = 0;
        fail(r, block->kind == BLOCK_READ ? ATA_ERROR_UNC : ATA_ERROR_ABRT);
    }
    bool goes_on = !error && r->step && r->step(r);
    if (!goes_on)
        request_end(r);
    pthread_mutex_unlock(&drive->lock);
    if (!goes_on)
        r->done(r);
}

/* Hands the request's block part to the disk. Gives true. */
static bool start(struct ata_request *r, enum block_kind kind, uint64_t offset_bytes,
                  uint64_t size_bytes, bool (*step)(struct ata_request *r))
{
    const struct block_backend *disk = &r->drive->disk;
    r->step = step;
    r->block.kind = kind;
    r->block.offset_bytes = offset_bytes;
    r->block.size_bytes = size_bytes;
    r->block.done = block_done;
    r->block.opaque = r;
    disk->submit(disk->opaque, &r->block);
    return true;
}

static bool start_flush(struct ata_request *r, bool (*step)(struct ata_request *r))
{
    if (r->drive->config.cdrom)
        return step && step(r);
    r->block.iov = NULL;
    r->block.iov_count = 0;
    return start(r, BLOCK_FLUSH, 0, 0, step);
}

/* ---- moving data ---- */

static bool transferred(struct ata_request *r)
{
    r->moved_bytes = r->block.size_bytes;
    return r->then_flush && start_flush(r, NULL);
}

static bool run_transfer(struct ata_drive *drive, const struct command *command,
                         struct ata_request *r, const struct ata_plan *plan)
{
    bool is_write = command->operation == OP_WRITE;
    uint64_t offset = address(drive, command, &r->tf) * SECTOR + r->at_bytes;
    if (r->at_bytes >= plan->data_bytes || r->data_bytes > plan->data_bytes - r->at_bytes ||
        !r->data_bytes || (is_write && r->data_bytes % SECTOR))
        return fail(r, ATA_ERROR_ABRT);
    r->block.iov = r->iov;
    r->block.iov_count = r->iov_count;
    r->then_flush = is_write && (drive->no_write_cache || (command->flags & FUA) ||
                                 ((command->flags & QUEUED) && (r->tf.device & 0x80)));
    return start(r, is_write ? BLOCK_WRITE : BLOCK_READ, offset, r->data_bytes, transferred);
}

/* Reads the next chunk of what is to be verified. */
static bool verify_next(struct ata_request *r)
{
    uint64_t offset = r->block.offset_bytes + r->piece.iov_len;
    uint64_t n = r->left_bytes < VERIFY_CHUNK_BYTES ? r->left_bytes : VERIFY_CHUNK_BYTES;
    if (!n)
        return false;
    r->left_bytes -= n;
    r->piece = (struct iovec){r->scratch, (size_t)n};
    r->block.iov = &r->piece;
    r->block.iov_count = 1;
    return start(r, BLOCK_READ, offset, n, verify_next);
}

static bool run_verify(struct ata_drive *drive, const struct command *command,
                       struct ata_request *r)
{
    r->scratch = malloc(VERIFY_CHUNK_BYTES);
    if (!r->scratch)
        return fail(r, ATA_ERROR_ABRT);
    r->left_bytes = (uint64_t)sector_count(command, &r->tf) * SECTOR;
    r->block.offset_bytes = address(drive, command, &r->tf) * SECTOR;
    r->piece.iov_len = 0;
    return verify_next(r);
}

static size_t copy_memory(const struct ata_request *r, uint8_t *buffer, size_t size_bytes,
                          bool is_out)
{
    size_t done = 0;
    for (unsigned i = 0; i < r->iov_count && done < size_bytes; i++) {
        size_t n = r->iov[i].iov_len;
        n = n < size_bytes - done ? n : size_bytes - done;
        if (is_out)
            memcpy(buffer + done, r->iov[i].iov_base, n);
        else
            memcpy(r->iov[i].iov_base, buffer + done, n);
        done += n;
    }
    return done;
}

/* A range of TRIM: address and length in one word (ATA8-ACS, 7.10.3). */
static void trim_range(const uint8_t *at, uint64_t *lba, unsigned *sectors)
{
    uint64_t word = 0;
    for (unsigned i = 8; i-- > 0;)
        word = word << 8 | at[i];
    *lba = word & UINT64_C(0xffffffffffff);
    *sectors = (unsigned)(word >> 48);
}

static bool trim_next(struct ata_request *r)
{
    while (r->range_next < r->range_count) {
        uint64_t lba;
        unsigned sectors;
        trim_range(r->scratch + (size_t)TRIM_RANGE_BYTES * r->range_next++, &lba, &sectors);
        if (sectors)
            return start(r, BLOCK_DISCARD, lba * SECTOR, (uint64_t)sectors * SECTOR, trim_next);
    }
    return false;
}

/* All ranges are checked before the first is given back. */
static bool run_trim(struct ata_drive *drive, struct ata_request *r, const struct ata_plan *plan)
{
    r->scratch = malloc((size_t)plan->data_bytes);
    if (!r->scratch ||
        copy_memory(r, r->scratch, (size_t)plan->data_bytes, true) != plan->data_bytes)
        return fail(r, ATA_ERROR_ABRT);
    r->moved_bytes = plan->data_bytes;
    r->range_next = 0;
    r->range_count = (unsigned)(plan->data_bytes / TRIM_RANGE_BYTES);
    for (unsigned i = 0; i < r->range_count; i++) {
        uint64_t lba;
        unsigned sectors;
        trim_range(r->scratch + (size_t)TRIM_RANGE_BYTES * i, &lba, &sectors);
        if (sectors && !range_valid(drive, lba, sectors))
            return fail(r, ATA_ERROR_IDNF);
    }
    return trim_next(r);
}

/* Commands whose data is a page that is made here, or that have none. */
static bool run_page(struct ata_drive *drive, const struct command *command, struct ata_request *r)
{
    uint8_t page[SECTOR] = {0};
    if (command->operation == OP_IDENTIFY)
        ata_identify(drive, page);
    else if (command->operation == OP_LOG)
        ata_log(drive, &r->tf, page);
    else
        ata_smart(drive, &r->tf, page);
    r->moved_bytes = copy_memory(r, page, r->data_bytes < SECTOR ? r->data_bytes : SECTOR, false);
    return false;
}

/* ---- settings ---- */

/* ATA8-ACS, 7.46.3: kind of transfer and mode. */
static bool set_transfer_mode(struct ata_drive *drive, struct ata_request *r, uint8_t mode)
{
    static const struct {
        uint8_t base, last;
    } modes[] = {{0x00, 0x01}, {0x08, 0x0c}, {0x20, 0x22}, {0x40, 0x46}};
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++)
        if (mode >= modes[i].base && mode <= modes[i].last) {
            if (mode >= 0x20)
                drive->dma_mode = mode;
            return false;
        }
    return fail(r, ATA_ERROR_ABRT);
}

static bool run_set_features(struct ata_drive *drive, struct ata_request *r)
{
    uint8_t count = (uint8_t)r->tf.count;
    switch (r->tf.features & 0xff) {
    case 0x02: drive->no_write_cache = false; return false;
    case 0x82: /* what is in it is written */
        drive->no_write_cache = true;
        return start_flush(r, NULL);
    case 0x03: return set_transfer_mode(drive, r, count);
    case 0x55: drive->no_read_ahead = true; return false;
    case 0xaa: drive->no_read_ahead = false; return false;
    case 0x66:
    case 0xcc: return false; /* whether a reset restores settings: it does */
    default: return fail(r, ATA_ERROR_ABRT);
    }
}

static bool run_set_multiple(struct ata_drive *drive, struct ata_request *r)
{
    unsigned count = r->tf.count & 0xff;
    if (count > ATA_MULTIPLE_MAX || (count & (count - 1)))
        return fail(r, ATA_ERROR_ABRT);
    drive->multiple = (uint8_t)count;
    return false;
}

static bool run_set_parameters(struct ata_drive *drive, struct ata_request *r)
{
    uint8_t sectors = (uint8_t)r->tf.count;
    if (!sectors)
        return fail(r, ATA_ERROR_ABRT);
    drive->heads = (uint8_t)((r->tf.device & 0xf) + 1);
    drive->sectors = sectors;
    return false;
}

static bool run_native_max(const struct ata_drive *drive, const struct command *command,
                           struct ata_request *r)
{
    uint64_t last = ata_sectors(drive) - 1;
    if (command->flags & EXT) {
        r->tf.lba = last;
        return false;
    }
    if (last > 0xfffffff)
        last = 0xfffffff;
    r->tf.lba = last & 0xffffff;
    r->tf.device = (uint8_t)((r->tf.device & 0xf0) | last >> 24);
    return false;
}

static bool now_standby(struct ata_request *r)
{
    r->drive->power = ATA_STANDBY;
    return false;
}

static bool now_asleep(struct ata_request *r)
{
    r->drive->power = ATA_ASLEEP;
    return false;
}

/* ---- packets ---- */

static void packet_end(struct ata_request *r)
{
    r->moved_bytes = r->scsi.moved_bytes;
    /* ATA8-ACS, 7.18.6: the sense key; and in the count: a command is awaited, data goes in. */
    if (r->scsi.status != SCSI_GOOD)
        fail(r, (uint8_t)(r->scsi.sense[2] << 4));
    r->tf.count = 3;
}

static void packet_done(struct scsi_request *scsi)
{
    struct ata_request *r = scsi->opaque;
    packet_end(r);
    r->done(r);
}

static bool run_packet(struct ata_drive *drive, struct ata_request *r)
{
    memcpy(r->scsi.cdb, r->packet, sizeof(r->scsi.cdb));
    r->scsi.iov = r->iov;
    r->scsi.iov_count = r->iov_count;
    r->scsi.data_bytes = r->data_bytes;
    r->scsi.done = packet_done;
    r->scsi.opaque = r;
    if (scsi_lun_submit(drive->config.cdrom, &r->scsi))
        return true;
    packet_end(r);
    return false;
}

/* ---- the command ---- */

static bool request_run(struct ata_drive *drive, struct ata_request *r)
{
    const struct command *command = find_command(drive, r->tf.command);
    const struct ata_plan plan = make_plan(drive, &r->tf);
    if (!command || plan.error) {
        /* An ATAPI drive says so by its signature where it is taken for a disk: ATA8-ACS, 7.17. */
        if (drive->config.cdrom)
            r->tf = ata_drive_signature(drive);
        return fail(r, plan.error);
    }
    if (command->operation != OP_CHECK_POWER)
        drive->power = ATA_ACTIVE;
    switch (command->operation) {
    case OP_READ:
    case OP_WRITE: return run_transfer(drive, command, r, &plan);
    case OP_VERIFY: return run_verify(drive, command, r);
    case OP_FLUSH: return start_flush(r, NULL);
    case OP_TRIM: return run_trim(drive, r, &plan);
    case OP_IDENTIFY:
    case OP_SMART:
    case OP_LOG: return run_page(drive, command, r);
    case OP_SET_FEATURES: return run_set_features(drive, r);
    case OP_SET_MULTIPLE: return run_set_multiple(drive, r);
    case OP_SET_PARAMETERS: return run_set_parameters(drive, r);
    case OP_NATIVE_MAX: return run_native_max(drive, command, r);
    case OP_STANDBY: return start_flush(r, now_standby);
    case OP_SLEEP: return start_flush(r, now_asleep);
    case OP_CHECK_POWER: r->tf.count = drive->power == ATA_ACTIVE ? 0xff : 0; return false;
    case OP_DIAGNOSTIC:
        r->tf = ata_drive_signature(drive);
        r->error = 1; /* passed */
        return false;
    case OP_PACKET: return run_packet(drive, r);
    default: return false;
    }
}

bool ata_submit(struct ata_drive *drive, struct ata_request *r)
{
    pthread_mutex_lock(&drive->lock);
    r->drive = drive;
    r->status = ATA_READY;
    r->error = 0;
    r->moved_bytes = 0;
    r->scratch = NULL;
    r->step = NULL;
    r->then_flush = false;
    memset(&r->block, 0, sizeof(r->block));
    bool is_under_way = request_run(drive, r);
    if (!is_under_way)
        request_end(r);
    pthread_mutex_unlock(&drive->lock);
    return is_under_way;
}

void ata_queue_failed(struct ata_drive *drive, const struct ata_request *r, unsigned tag)
{
    pthread_mutex_lock(&drive->lock);
    drive->queue_error = (struct ata_queue_error){true, (uint8_t)tag, r->status, r->error, r->tf};
    pthread_mutex_unlock(&drive->lock);
}

/* ---- life ---- */

bool ata_drive_is_atapi(const struct ata_drive *drive)
{
    return drive->config.cdrom;
}

struct ata_taskfile ata_drive_signature(const struct ata_drive *drive)
{
    return (struct ata_taskfile){.count = 1, .lba = drive->config.cdrom ? 0xeb1401 : 0x000001};
}

static void settings_clear(struct ata_drive *drive)
{
    drive->heads = ATA_HEADS;
    drive->sectors = ATA_SECTORS;
    drive->multiple = 0;
    drive->dma_mode = 0x45;
    drive->power = ATA_ACTIVE;
    drive->no_write_cache = drive->no_read_ahead = drive->smart_disabled = false;
    drive->queue_error = (struct ata_queue_error){0};
}

void ata_drive_reset(struct ata_drive *drive, bool is_power_on)
{
    pthread_mutex_lock(&drive->lock);
    settings_clear(drive);
    if (drive->config.cdrom)
        scsi_lun_reset(drive->config.cdrom, is_power_on);
    pthread_mutex_unlock(&drive->lock);
}

static void save_queue_error(const struct ata_queue_error *error, struct save *save)
{
    save_bool(save, error->is_there);
    save_u8(save, error->tag);
    save_u8(save, error->status);
    save_u8(save, error->error);
    save_u8(save, error->tf.command);
    save_u8(save, error->tf.device);
    save_u16(save, error->tf.count);
    save_u64(save, error->tf.lba);
}

void ata_drive_save(struct ata_drive *drive, struct save *save)
{
    pthread_mutex_lock(&drive->lock);
    save_u8(save, drive->heads);
    save_u8(save, drive->sectors);
    save_u8(save, drive->multiple);
    save_u8(save, drive->dma_mode);
    save_u8(save, drive->power);
    save_bool(save, drive->no_write_cache);
    save_bool(save, drive->no_read_ahead);
    save_bool(save, drive->smart_disabled);
    save_queue_error(&drive->queue_error, save);
    if (drive->config.cdrom)
        scsi_lun_save(drive->config.cdrom, save);
    pthread_mutex_unlock(&drive->lock);
}

static bool settings_valid(const struct ata_drive *drive)
{
    return drive->heads >= 1 && drive->heads <= 16 && drive->sectors &&
           drive->multiple <= ATA_MULTIPLE_MAX && !(drive->multiple & (drive->multiple - 1)) &&
           drive->power <= ATA_ASLEEP && drive->queue_error.tag < ATA_QUEUE_DEPTH;
}

static void load_queue_error(struct ata_queue_error *error, struct load *load)
{
    error->is_there = load_bool(load);
    error->tag = load_u8(load);
    error->status = load_u8(load);
    error->error = load_u8(load);
    error->tf.command = load_u8(load);
    error->tf.device = load_u8(load);
    error->tf.count = load_u16(load);
    error->tf.lba = load_u64(load);
}

bool ata_drive_load(struct ata_drive *drive, struct load *load)
{
    pthread_mutex_lock(&drive->lock);
    drive->heads = load_u8(load);
    drive->sectors = load_u8(load);
    drive->multiple = load_u8(load);
    drive->dma_mode = load_u8(load);
    drive->power = load_u8(load);
    drive->no_write_cache = load_bool(load);
    drive->no_read_ahead = load_bool(load);
    drive->smart_disabled = load_bool(load);
    load_queue_error(&drive->queue_error, load);
    if (!settings_valid(drive))
        load_fail(load);
    if (drive->config.cdrom && !load->failed)
        scsi_lun_load(drive->config.cdrom, load);
    bool is_good = !load->failed;
    if (!is_good)
        settings_clear(drive);
    pthread_mutex_unlock(&drive->lock);
    return is_good;
}

struct ata_drive *ata_drive_create(const struct ata_drive_config *config, struct error *err)
{
    struct ata_drive *drive = calloc(1, sizeof(*drive));
    if (!drive) {
        error_set(err, "cannot create device", "ata", "out of memory");
        return NULL;
    }
    drive->config = *config;
    pthread_mutex_init(&drive->lock, NULL);
    if (config->serial)
        memcpy(drive->serial, config->serial, strnlen(config->serial, ATA_SERIAL_BYTES));
    if (config->disk) {
        drive->disk = *config->disk;
        drive->disk.info(drive->disk.opaque, &drive->info);
    }
    settings_clear(drive);
    return drive;
}

void ata_drive_destroy(struct ata_drive *drive)
{
    if (!drive)
        return;
    scsi_lun_destroy(drive->config.cdrom);
    pthread_mutex_destroy(&drive->lock);
    free(drive);
}
