/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The parts of the floppy controller among themselves: floppy.c (registers, drives, life),
 * floppy_command.c (commands without data), floppy_data.c (those with). Intel 82077AA data sheet.
 *
 * Threads: one lock. Ports are used by vCPU threads; the disk's answers come on the loop's. While
 * the disk has a transfer's sector, nothing else touches that transfer; a reset in the meantime
 * leaves it alone and it is thrown away when it is back.
 */
#ifndef SKEP_DEV_STORAGE_FLOPPY_INTERNAL_H
#define SKEP_DEV_STORAGE_FLOPPY_INTERNAL_H

#include "dev/storage/floppy.h"

#include <pthread.h>
#include <sys/uio.h>

enum {
    FLOPPY_SECTOR_BYTES = 512,
    FLOPPY_SECTORS_MAX = 36,
    FLOPPY_TRACK_BYTES = FLOPPY_SECTORS_MAX * FLOPPY_SECTOR_BYTES,
    FLOPPY_PARAMETERS_MAX = 9,
    FLOPPY_RESULTS_MAX = 10,
    FLOPPY_UNITS = 4, /* that can be selected */
};

/* Status registers 0 to 3 (5.1 to 5.4). */
enum {
    ST0_ABNORMAL = 0x40,
    ST0_INVALID = 0x80,
    ST0_POLLED = 0xc0,
    ST0_SEEK_END = 0x20,
    ST0_CHECK = 0x10,
    ST1_END_OF_CYLINDER = 0x80,
    ST1_OVERRUN = 0x10,
    ST1_DATA_ERROR = 0x20,
    ST1_NO_DATA = 0x04,
    ST1_NOT_WRITABLE = 0x02,
    ST1_NO_ADDRESS = 0x01,
    ST2_CONTROL_MARK = 0x40,
    ST2_DATA_ERROR = 0x20,
    ST2_WRONG_CYLINDER = 0x10,
    ST3_PROTECTED = 0x40,
    ST3_READY = 0x20,
    ST3_TRACK_0 = 0x10,
    ST3_TWO_SIDED = 0x08,
    ST3_HEAD = 0x04,
};

enum { FLOPPY_IMPLIED_SEEK = 0x40 }; /* of CONFIGURE */
enum { DOR_NOT_RESET = 0x04, DOR_DMA = 0x08 };

enum floppy_phase {
    FLOPPY_IDLE,    /* waits for a command */
    FLOPPY_COMMAND, /* takes its parameters */
    FLOPPY_BUSY,    /* the disk is at work */
    FLOPPY_TAKES,   /* the guest writes data */
    FLOPPY_GIVES,   /* the guest reads data */
    FLOPPY_RESULTS,
    FLOPPY_PHASES,
};

struct floppy_geometry {
    uint32_t kib;
    uint8_t cylinders, heads, sectors;
    uint8_t drive; /* enum floppy_drive_type */
    uint8_t rate;  /* CCR's two bits */
};

struct floppy_drive {
    bool is_there, has_medium, is_changed;
    enum floppy_drive_type type;
    const struct floppy_geometry *geometry; /* of the medium */
    struct block_backend medium;
    bool read_only;
    uint8_t track;       /* where the head is */
    uint8_t next_sector; /* what passes under it next, for READ ID */
};

enum floppy_transfer_kind {
    FLOPPY_READ,
    FLOPPY_READ_TRACK,
    FLOPPY_VERIFY,
    FLOPPY_WRITE,
    FLOPPY_FORMAT,
    FLOPPY_KINDS,
};

/* A command with data, where it is. */
struct floppy_transfer {
    uint8_t kind; /* enum floppy_transfer_kind */
    uint8_t unit, head;
    uint8_t cylinder, head_id, sector, size_code; /* C, H, R, N */
    uint8_t last;                                 /* EOT; of FORMAT the count */
    uint8_t filler;
    bool multi_track, is_deleted, is_over;
    uint16_t sectors_left; /* of VERIFY and READ TRACK; 0: no limit */
    uint16_t data_bytes, data_at;
};

/* What the disk has. Outlives a reset of the controller. */
struct floppy_request {
    struct block_request block;
    struct floppy *floppy;
    uint32_t generation;
    struct iovec iov;
    uint8_t data[FLOPPY_TRACK_BYTES];
};

struct floppy {
    struct floppy_config config;
    struct bus *bus;
    struct log_limit log_limit;
    pthread_mutex_t lock;
    struct floppy_drive drive[FLOPPY_DRIVES];

    uint8_t dor, tdr, dsr, rate;
    enum floppy_phase phase;
    uint8_t command[FLOPPY_PARAMETERS_MAX], command_count, command_bytes;
    uint8_t result[FLOPPY_RESULTS_MAX], result_count, result_at;
    bool interrupt;         /* of a command's end or data */
    uint8_t resets_to_tell; /* by SENSE INTERRUPT, after a reset */
    uint8_t seeks_to_tell;  /* a bit a unit */
    uint8_t seek_status[FLOPPY_UNITS];

    uint8_t step_rate, load_time; /* of SPECIFY */
    bool no_dma;
    uint8_t configuration, precompensation; /* of CONFIGURE */
    uint8_t perpendicular;
    bool is_locked;

    uint32_t generation;
    struct floppy_transfer transfer;
    uint8_t data[FLOPPY_TRACK_BYTES]; /* of the sector, or the ids of FORMAT */
};

/* ---- floppy.c ---- */

void floppy_set_interrupt(struct floppy *f, bool level);
/* NULL: there is no such drive. */
struct floppy_drive *floppy_drive_of(struct floppy *f, unsigned unit);
void floppy_soft_reset(struct floppy *f);

/* ---- floppy_command.c ---- */

void floppy_write_fifo(struct floppy *f, uint8_t value);
uint8_t floppy_read_fifo(struct floppy *f);
unsigned floppy_command_bytes(uint8_t code); /* with its parameters; 0: it is invalid */
void floppy_give_results(struct floppy *f, const uint8_t *results, unsigned count);
/* Moves the head; clears the change line when there is a disk. */
void floppy_step(struct floppy_drive *drive, uint8_t track);

/* ---- floppy_data.c ---- */

void floppy_start_transfer(struct floppy *f, enum floppy_transfer_kind kind);
void floppy_start_format(struct floppy *f);
void floppy_read_id(struct floppy *f);
/* A byte of data, by programmed I/O. */
void floppy_data_in(struct floppy *f, uint8_t value);
uint8_t floppy_data_out(struct floppy *f);

#endif
