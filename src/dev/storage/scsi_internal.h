/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What the parts of a logical unit share. Everything here is called with the unit's lock held.
 */
#ifndef SKEP_DEV_STORAGE_SCSI_INTERNAL_H
#define SKEP_DEV_STORAGE_SCSI_INTERNAL_H

#include "dev/storage/bytes_be.h"
#include "dev/storage/scsi.h"

#include <pthread.h>
#include <stddef.h>

enum {
    SCSI_DISK_BLOCK_BYTES = 512,
    SCSI_CD_BLOCK_BYTES = 2048,
    SCSI_SERIAL_BYTES = 32,
    SCSI_CHUNK_BYTES = 65536, /* of memory of our own, for commands that need it */
};

enum { /* additional sense code and qualifier: SPC-3, annex D */
       SENSE_BECOMING_READY_START = 0x0402,
       SENSE_WRITE_ERROR = 0x0c00,
       SENSE_UNRECOVERED_READ = 0x1100,
       SENSE_PARAMETER_LIST_LENGTH = 0x1a00,
       SENSE_MISCOMPARE = 0x1d00,
       SENSE_INVALID_OPCODE = 0x2000,
       SENSE_LBA_RANGE = 0x2100,
       SENSE_INVALID_FIELD = 0x2400,
       SENSE_INVALID_PARAMETER = 0x2600,
       SENSE_WRITE_PROTECTED = 0x2700,
       SENSE_SPACE_ALLOCATION = 0x2707,
       SENSE_MEDIUM_CHANGED = 0x2800,
       SENSE_RESET = 0x2900,
       SENSE_SAVING_UNSUPPORTED = 0x3900,
       SENSE_NO_MEDIUM_CLOSED = 0x3a01,
       SENSE_NO_MEDIUM_OPEN = 0x3a02,
       SENSE_INTERNAL_FAILURE = 0x4400,
       SENSE_DATA_PHASE = 0x4b00,
       SENSE_REMOVAL_PREVENTED = 0x5302,
       SENSE_ILLEGAL_MODE = 0x6400,
};

enum { MEDIA_EJECT_REQUEST = 1, MEDIA_NEW = 2, MEDIA_REMOVAL = 3 }; /* events: MMC-5, table 296 */

/* What the length in a command counts. */
enum scsi_length {
    LENGTH_NONE,
    LENGTH_FIXED, /* as many bytes as length_of says */
    LENGTH_BYTES,
    LENGTH_BLOCKS,
    LENGTH_BLOCKS_6,  /* 0 means 256 (SBC-3, 5.7) */
    LENGTH_ONE_BLOCK, /* unless the command says that there is none */
    LENGTH_CHECKED,   /* blocks, when they are to be compared */
    LENGTH_CD,        /* blocks, when user data is asked for (READ CD) */
};

enum { /* what a command needs or escapes */
       NEEDS_MEDIUM = 1 << 0,
       PASSES_ATTENTION = 1 << 1, /* SPC-3, 5.8.5: a unit attention stays for the next one */
       TO_UNIT = 1 << 2,
};

struct scsi_command {
    uint8_t opcode;
    uint8_t flags;
    uint8_t length;               /* enum scsi_length */
    uint8_t length_at, length_of; /* first byte and number of bytes in the CDB */
    /* True: under way. False: done, with status and data in the request. */
    bool (*run)(struct scsi_lun *lun, struct scsi_request *r);
};

struct scsi_mode_page {
    uint8_t code;
    uint8_t size_bytes; /* with the two bytes of its head */
    /* Fills what follows these two: values, or ones where they can be changed. */
    void (*fill)(const struct scsi_lun *lun, uint8_t *body, bool is_mask);
    bool (*change)(struct scsi_lun *lun, const uint8_t *body); /* NULL: nothing can be */
};

/* A kind of unit. */
struct scsi_kind {
    uint8_t peripheral_type;
    uint32_t block_bytes;
    const char *product;
    const struct scsi_command *commands;
    unsigned command_count;
    const struct scsi_mode_page *pages;
    unsigned page_count;
    /* A page of vital product data beyond those that all have; gives its size, 0: none. */
    unsigned (*vital)(const struct scsi_lun *lun, uint8_t page, uint8_t *body);
    const uint8_t *vital_pages;
    unsigned vital_page_count;
};

struct scsi_lun {
    pthread_mutex_t lock;
    struct scsi_lun_config config;
    const struct scsi_kind *kind;
    char vendor[8], product[16], revision[4]; /* padded with spaces */
    char serial[SCSI_SERIAL_BYTES + 1];
    struct block_backend medium;
    bool has_medium;
    struct block_info info;
    struct log_limit limit;

    uint8_t kept_sense[SCSI_SENSE_BYTES]; /* zeroes: none */
    uint16_t attention;                   /* of a reset; 0: none */
    bool medium_attention;
    bool is_locked; /* PREVENT ALLOW MEDIUM REMOVAL */
    bool is_stopped;
    bool is_open;       /* the tray, by the guest's command */
    bool write_through; /* a disk's caching page */
    uint8_t event;      /* MMC-5, table 296: media event code that waits */
};

extern const struct scsi_kind scsi_disk_kind, scsi_cdrom_kind;

/* ---- for commands ---- */

/* Ends a command with CHECK CONDITION; gives false. */
bool scsi_fail(struct scsi_request *r, enum scsi_sense_key key, uint16_t code);

/* Answers with `size_bytes`, cut to the command's allocation length and the memory; gives false. */
bool scsi_reply(struct scsi_request *r, const void *data, size_t size_bytes,
                uint64_t allocation_bytes);

/* Copies from the memory, at most what is there; returns how much that was. */
size_t scsi_take(const struct scsi_request *r, uint64_t offset, void *buffer, size_t size_bytes);
/* And into it. */
size_t scsi_give(const struct scsi_request *r, uint64_t offset, const void *buffer,
                 size_t size_bytes);

/* Cuts the memory to its first `size_bytes`, which are there, for the time of the request. */
void scsi_cut(struct scsi_request *r, uint64_t size_bytes);

/* Hands the request's block part to the medium; `step` (may be NULL) runs when it ended well. Gives
 * true. */
bool scsi_start(struct scsi_request *r, enum block_kind kind, uint64_t offset_bytes,
                uint64_t size_bytes, bool (*step)(struct scsi_request *r));

/* Memory of the request's own; false: there is none, and the request has failed. */
bool scsi_scratch(struct scsi_request *r, size_t size_bytes);

/* Reads or writes `blocks` from `lba` on to or from the request's memory. `is_forced`: it is to
 * last when it is answered. */
bool scsi_transfer(struct scsi_lun *lun, struct scsi_request *r, bool is_write, uint64_t lba,
                   uint64_t blocks, bool is_forced);

uint64_t scsi_blocks(const struct scsi_lun *lun); /* of the medium */
bool scsi_range_valid(const struct scsi_lun *lun, uint64_t lba, uint64_t blocks);

/* Commands of every unit. */
bool scsi_inquiry(struct scsi_lun *lun, struct scsi_request *r);
bool scsi_nothing(struct scsi_lun *lun, struct scsi_request *r);
bool scsi_request_sense(struct scsi_lun *lun, struct scsi_request *r);
bool scsi_report_luns(struct scsi_lun *lun, struct scsi_request *r);
bool scsi_mode_sense(struct scsi_lun *lun, struct scsi_request *r);
bool scsi_mode_select(struct scsi_lun *lun, struct scsi_request *r);
bool scsi_prevent_removal(struct scsi_lun *lun, struct scsi_request *r);
bool scsi_read_capacity_10(struct scsi_lun *lun, struct scsi_request *r);

#endif
