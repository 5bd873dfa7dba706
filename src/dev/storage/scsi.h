/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A SCSI logical unit, whatever transport it is reached by: a disk (SPC-3, SBC-3) or a CD and DVD
 * drive (MMC-5). A transport hands over a command with the memory for its data and gets status,
 * sense and what was moved.
 *
 * Threads: a unit has a lock of its own, taken after the transport's. Commands come from any
 * thread; done() runs on the loop's thread with no lock of the unit held. The other functions
 * belong to the machine's thread unless they say otherwise.
 */
#ifndef SKEP_DEV_STORAGE_SCSI_H
#define SKEP_DEV_STORAGE_SCSI_H

#include "base/error.h"
#include "base/log.h"
#include "bus/block.h"
#include "bus/stream.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

enum {
    SCSI_CDB_BYTES = 16,
    SCSI_SENSE_BYTES = 18,
    /* No command moves more: a longer one is refused (SBC-3, 6.6.4: maximum transfer length). */
    SCSI_TRANSFER_MAX_BYTES = 32 << 20,
};

enum scsi_status { SCSI_GOOD = 0x00, SCSI_CHECK_CONDITION = 0x02 };

/* SPC-3, table 27. */
enum scsi_sense_key {
    SCSI_NO_SENSE = 0x0,
    SCSI_NOT_READY = 0x2,
    SCSI_MEDIUM_ERROR = 0x3,
    SCSI_HARDWARE_ERROR = 0x4,
    SCSI_ILLEGAL_REQUEST = 0x5,
    SCSI_UNIT_ATTENTION = 0x6,
    SCSI_DATA_PROTECT = 0x7,
    SCSI_ABORTED_COMMAND = 0xb,
    SCSI_MISCOMPARE = 0xe,
};

struct scsi_lun;

enum scsi_direction { SCSI_NO_DATA, SCSI_FROM_UNIT, SCSI_TO_UNIT };

/* A command under way. The transport keeps it and the memory that it points to until it is done. */
struct scsi_request {
    /* The transport fills these. */
    uint8_t cdb[SCSI_CDB_BYTES]; /* shorter ones are followed by zeroes */
    struct iovec *iov;           /* where the data is or goes; changed meanwhile, as before after */
    unsigned iov_count;
    uint64_t data_bytes; /* the sum of their lengths */
    void (*done)(struct scsi_request *request);
    void *opaque;

    /* What came of it. */
    enum scsi_status status;
    uint8_t sense[SCSI_SENSE_BYTES]; /* fixed format; zeroes unless the status is CHECK CONDITION */
    uint64_t moved_bytes;            /* from the start of the memory; the rest is the residual */

    /* The unit's own. */
    struct scsi_lun *lun;
    struct block_backend medium; /* that it began with */
    struct block_request block;
    bool (*step)(struct scsi_request *request); /* what follows; true: a step is under way again */
    uint8_t *scratch;
    uint64_t at_bytes, left_bytes, chunk_bytes;
    struct iovec piece; /* of scratch */
    unsigned index, count;
    bool then_flush, is_write, compares;
    struct iovec *cut; /* the piece that was shortened, and its length before */
    size_t cut_bytes;
};

enum scsi_event {
    SCSI_EVENT_MEDIUM_CHANGED,  /* there is another one, or none, or there is one again */
    SCSI_EVENT_EJECT_REQUESTED, /* a person wants it, but the guest has locked it */
};

struct scsi_lun_config {
    bool is_cdrom;
    /* NULL: a drive with no medium (only of a CD-ROM). Stays the caller's and outlives the unit. */
    const struct block_backend *medium;
    const char *vendor, *product, *revision; /* up to 8, 16 and 4 characters; NULL: skep's */
    const char *serial;                      /* up to 32; NULL: none */
    /* Sense data waits for a REQUEST SENSE command, as transports without autosense want it (ATAPI,
     * USB bulk-only). Otherwise it is in the request only. */
    bool keeps_sense;
    const struct log *log; /* may be NULL */
    /* For a transport that tells the guest of events; may be NULL. On the thread that causes it,
     * with no lock of the unit held. */
    void (*event)(void *opaque, enum scsi_event event);
    void *opaque;
};

struct scsi_lun *scsi_lun_create(const struct scsi_lun_config *config, struct error *err);
void scsi_lun_destroy(struct scsi_lun *lun); /* NULL is fine; nothing is under way */

/* Which way data goes in a command, and how much of it at most: its transfer length or allocation
 * length. What a unit does not know moves no data. Any thread. */
enum scsi_direction scsi_lun_direction(struct scsi_lun *lun, const uint8_t *cdb,
                                       uint64_t *size_bytes);

/* Carries a command out. True: it is under way, and done() will be called. False: it is done
 * already, the result is filled and done() is not called. Memory is written before, but it is the
 * transport that calls ram_written() after. Any thread. */
bool scsi_lun_submit(struct scsi_lun *lun, struct scsi_request *request);

/* After a reset by the transport, which cares for nothing any more that is under way. A unit
 * attention tells the guest, but not after power on. The door is unlocked. */
void scsi_lun_reset(struct scsi_lun *lun, bool is_power_on);

/* ---- the medium of a CD-ROM drive, on the loop's thread ---- */

/* Takes the medium out (NULL) or puts another one in; the guest is told. On return nothing uses the
 * old one. False: the guest has locked the door and is asked to release it, unless `is_forced`. */
bool scsi_lun_change_medium(struct scsi_lun *lun, const struct block_backend *medium,
                            bool is_forced);

bool scsi_lun_is_cdrom(const struct scsi_lun *lun);
void scsi_lun_save(struct scsi_lun *lun, struct save *save); /* nothing is under way */
bool scsi_lun_load(struct scsi_lun *lun, struct load *load); /* false: as after reset */

#endif
