/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The command phase of the 82077AA, commands that move no data, and the result phase (data sheet,
 * chapter 5 and 6). Left out: the scan commands and what later chips added, which are invalid.
 * Heads move at once.
 */
#include "dev/storage/floppy_internal.h"

#include <string.h>

enum {
    VERSION_82077 = 0x90,
    LAST_TRACK = 79, /* RECALIBRATE steps no further than this */
};

/* ---- results ---- */

void floppy_give_results(struct floppy *f, const uint8_t *results, unsigned count)
{
    memcpy(f->result, results, count);
    f->result_count = (uint8_t)count;
    f->result_at = 0;
    f->phase = FLOPPY_RESULTS;
}

static void give_one(struct floppy *f, uint8_t result)
{
    floppy_give_results(f, &result, 1);
}

uint8_t floppy_read_fifo(struct floppy *f)
{
    if (f->phase == FLOPPY_GIVES)
        return floppy_data_out(f);
    if (f->phase != FLOPPY_RESULTS)
        return 0;
    floppy_set_interrupt(f, false);
    uint8_t value = f->result[f->result_at++];
    if (f->result_at == f->result_count)
        f->phase = FLOPPY_IDLE;
    return value;
}

/* ---- heads ---- */

void floppy_step(struct floppy_drive *drive, uint8_t track)
{
    drive->track = track;
    if (drive->has_medium)
        drive->is_changed = false;
}

static void tell_seek(struct floppy *f, unsigned unit, uint8_t status)
{
    f->seek_status[unit] = (uint8_t)(status | unit);
    f->seeks_to_tell |= (uint8_t)(1u << unit);
    f->phase = FLOPPY_IDLE;
    floppy_set_interrupt(f, true);
}

/* A drive that is not there never says that it is on track 0. */
static void recalibrate(struct floppy *f)
{
    unsigned unit = f->command[1] & 3;
    struct floppy_drive *drive = floppy_drive_of(f, unit);
    if (!drive) {
        tell_seek(f, unit, ST0_ABNORMAL | ST0_SEEK_END | ST0_CHECK);
        return;
    }
    bool is_far = drive->track > LAST_TRACK; /* then the next one gets there */
    floppy_step(drive, (uint8_t)(is_far ? drive->track - LAST_TRACK : 0));
    tell_seek(f, unit, is_far ? ST0_ABNORMAL | ST0_SEEK_END | ST0_CHECK : ST0_SEEK_END);
}

static void seek(struct floppy *f)
{
    unsigned unit = f->command[1] & 3;
    struct floppy_drive *drive = floppy_drive_of(f, unit);
    if (drive)
        floppy_step(drive, f->command[2]);
    tell_seek(f, unit, (uint8_t)(ST0_SEEK_END | (f->command[1] & 4)));
}

static void relative_seek(struct floppy *f)
{
    unsigned unit = f->command[1] & 3, count = f->command[2];
    struct floppy_drive *drive = floppy_drive_of(f, unit);
    if (drive) {
        unsigned track = drive->track;
        bool is_inward = f->command[0] & 0x40;
        if (is_inward)
            track = track + count > 255 ? 255 : track + count;
        else
            track = track > count ? track - count : 0;
        floppy_step(drive, (uint8_t)track);
    }
    tell_seek(f, unit, (uint8_t)(ST0_SEEK_END | (f->command[1] & 4)));
}

/* ---- state ---- */

static uint8_t track_of(struct floppy *f, unsigned unit)
{
    const struct floppy_drive *drive = floppy_drive_of(f, unit);
    return drive ? drive->track : 0;
}

static void sense_interrupt(struct floppy *f)
{
    uint8_t results[2] = {ST0_INVALID, 0};
    floppy_set_interrupt(f, false);
    if (f->resets_to_tell) {
        unsigned unit = FLOPPY_UNITS - f->resets_to_tell--;
        results[0] = (uint8_t)(ST0_POLLED | unit);
        results[1] = track_of(f, unit);
        floppy_give_results(f, results, 2);
        return;
    }
    for (unsigned unit = 0; unit < FLOPPY_UNITS; unit++) {
        if (!(f->seeks_to_tell >> unit & 1))
            continue;
        f->seeks_to_tell &= (uint8_t) ~(1u << unit);
        results[0] = f->seek_status[unit];
        results[1] = track_of(f, unit);
        floppy_give_results(f, results, 2);
        return;
    }
    floppy_give_results(f, results, 1);
}

static void sense_drive(struct floppy *f)
{
    const struct floppy_drive *drive = floppy_drive_of(f, f->command[1] & 3);
    uint8_t status = f->command[1] & 7;
    if (drive)
        status |= (uint8_t)(ST3_READY | ST3_TWO_SIDED | (drive->track ? 0 : ST3_TRACK_0) |
                            (drive->has_medium && drive->read_only ? ST3_PROTECTED : 0));
    give_one(f, status);
}

static void dump_registers(struct floppy *f)
{
    const uint8_t results[FLOPPY_RESULTS_MAX] = {
        track_of(f, 0),
        track_of(f, 1),
        0,
        0,
        f->step_rate,
        (uint8_t)(f->load_time << 1 | f->no_dma),
        f->transfer.last,
        (uint8_t)((f->is_locked ? 0x80 : 0) | (f->perpendicular & 0x3f)),
        f->configuration,
        f->precompensation,
    };
    floppy_give_results(f, results, sizeof(results));
}

static void specify(struct floppy *f)
{
    f->step_rate = f->command[1];
    f->load_time = f->command[2] >> 1;
    f->no_dma = f->command[2] & 1;
    f->phase = FLOPPY_IDLE;
}

static void configure(struct floppy *f)
{
    f->configuration = f->command[2] & 0x7f;
    f->precompensation = f->command[3];
    f->phase = FLOPPY_IDLE;
}

/* The drives' bits change only where OW says so (5.2.10). */
static void set_perpendicular(struct floppy *f)
{
    uint8_t value = f->command[1];
    f->perpendicular = value & 0x80 ? value & 0x7f : (f->perpendicular & 0x7c) | (value & 3);
    f->phase = FLOPPY_IDLE;
}

static void lock(struct floppy *f)
{
    f->is_locked = f->command[0] & 0x80;
    give_one(f, f->is_locked ? 0x10 : 0);
}

static void version(struct floppy *f)
{
    give_one(f, VERSION_82077);
}

static void read_data(struct floppy *f)
{
    floppy_start_transfer(f, FLOPPY_READ);
}

static void read_track(struct floppy *f)
{
    floppy_start_transfer(f, FLOPPY_READ_TRACK);
}

static void verify(struct floppy *f)
{
    floppy_start_transfer(f, FLOPPY_VERIFY);
}

static void write_data(struct floppy *f)
{
    floppy_start_transfer(f, FLOPPY_WRITE);
}

/* ---- the command phase ---- */

static const struct command {
    uint8_t code, mask, bytes; /* the first byte under the mask; how many there are in all */
    void (*run)(struct floppy *f);
} commands[] = {
    {0x03, 0xff, 3, specify},
    {0x04, 0xff, 2, sense_drive},
    {0x05, 0x3f, 9, write_data},
    {0x09, 0x3f, 9, write_data},
    {0x06, 0x1f, 9, read_data},
    {0x0c, 0x1f, 9, read_data},
    {0x02, 0x9f, 9, read_track},
    {0x16, 0x1f, 9, verify},
    {0x07, 0xff, 2, recalibrate},
    {0x08, 0xff, 1, sense_interrupt},
    {0x0a, 0xbf, 2, floppy_read_id},
    {0x0d, 0xbf, 6, floppy_start_format},
    {0x0e, 0xff, 1, dump_registers},
    {0x0f, 0xff, 3, seek},
    {0x8f, 0xbf, 3, relative_seek},
    {0x10, 0xff, 1, version},
    {0x12, 0xff, 2, set_perpendicular},
    {0x13, 0xff, 4, configure},
    {0x14, 0x7f, 1, lock},
};

static const struct command *find_command(uint8_t code)
{
    for (unsigned i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        if ((code & commands[i].mask) == commands[i].code)
            return &commands[i];
    return NULL;
}

unsigned floppy_command_bytes(uint8_t code)
{
    const struct command *command = find_command(code);
    return command ? command->bytes : 0;
}

void floppy_write_fifo(struct floppy *f, uint8_t value)
{
    if (f->phase == FLOPPY_TAKES) {
        floppy_data_in(f, value);
        return;
    }
    if (f->phase != FLOPPY_IDLE && f->phase != FLOPPY_COMMAND)
        return;
    if (f->phase == FLOPPY_IDLE) {
        const struct command *command = find_command(value);
        if (!command) {
            give_one(f, ST0_INVALID);
            return;
        }
        f->command_bytes = command->bytes;
        f->command_count = 0;
        f->phase = FLOPPY_COMMAND;
    }
    f->command[f->command_count++] = value;
    if (f->command_count == f->command_bytes)
        find_command(f->command[0])->run(f);
}

/* ---- reset ---- */

/* LOCK keeps what CONFIGURE has set for the FIFO over this (5.2.11); polling is on again, so there
 * is something to be told of each unit (6.4). */
void floppy_soft_reset(struct floppy *f)
{
    enum { FIFO_OFF = 0x20, FIFO_BITS = 0x2f };
    f->generation++;
    f->phase = FLOPPY_IDLE;
    f->command_count = f->command_bytes = f->result_count = 0;
    f->seeks_to_tell = 0;
    f->perpendicular &= 0x7c;
    f->configuration = f->is_locked ? f->configuration & FIFO_BITS : FIFO_OFF;
    if (!f->is_locked)
        f->precompensation = 0;
    f->resets_to_tell = FLOPPY_UNITS;
    floppy_set_interrupt(f, true);
}
