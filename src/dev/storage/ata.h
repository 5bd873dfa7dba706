/* SPDX-License-Identifier: BSD-2-Clause
 *
 * An ATA drive's command set (ATA8-ACS), whatever controller it hangs on: a disk, or an ATAPI
 * drive, which is a SCSI unit behind the PACKET command. The controller owns registers, protocols
 * and memory; it asks what a command would move, and has it carried out in one piece or several.
 *
 * Threads: a drive has a lock of its own, taken after the controller's. done() runs on the loop's
 * thread with no lock of the drive held.
 */
#ifndef SKEP_DEV_STORAGE_ATA_H
#define SKEP_DEV_STORAGE_ATA_H

#include "base/error.h"
#include "base/log.h"
#include "bus/block.h"
#include "bus/stream.h"
#include "dev/storage/scsi.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

enum {
    ATA_SECTOR_BYTES = 512,
    ATA_QUEUE_DEPTH = 32,
    ATA_MULTIPLE_MAX = 16, /* sectors of a DRQ data block */
    ATA_SERIAL_BYTES = 20,
    ATA_PACKET_BYTES = 12,
};

enum { /* the status register */
       ATA_STATUS_ERR = 0x01,
       ATA_STATUS_DRQ = 0x08,
       ATA_STATUS_DSC = 0x10,
       ATA_STATUS_DF = 0x20,
       ATA_STATUS_DRDY = 0x40,
       ATA_STATUS_BSY = 0x80,
       ATA_READY = ATA_STATUS_DRDY | ATA_STATUS_DSC,
};

enum { /* the error register */
       ATA_ERROR_ABRT = 0x04,
       ATA_ERROR_IDNF = 0x10,
       ATA_ERROR_UNC = 0x40,
       ATA_ERROR_ICRC = 0x80,
};

/* Registers of a command. 28-bit commands have their highest address bits in `device`. */
struct ata_taskfile {
    uint8_t command, device;
    uint16_t features, count;
    uint64_t lba; /* 48 bits */
};

enum ata_protocol {
    ATA_NO_DATA,
    ATA_PIO_IN,
    ATA_PIO_OUT,
    ATA_DMA_IN,
    ATA_DMA_OUT,
    ATA_QUEUED_IN, /* the tag is in the count register */
    ATA_QUEUED_OUT,
    ATA_PACKET,
    ATA_DEVICE_RESET,
};

struct ata_plan {
    enum ata_protocol protocol;
    uint8_t error; /* the command is refused with this */
    uint64_t data_bytes;
    uint32_t block_bytes; /* of PIO: what is moved between two interrupts */
};

/* A command, or a piece of one, under way. Stays the controller's until it is done. */
struct ata_request {
    struct ata_taskfile tf;
    uint8_t packet[SCSI_CDB_BYTES]; /* of PACKET */
    uint64_t at_bytes;              /* where in the command's data the piece begins */
    struct iovec *iov;              /* the piece's memory */
    unsigned iov_count;
    uint64_t data_bytes;
    void (*done)(struct ata_request *request);
    void *opaque;

    /* What came of it, with the registers in `tf`. */
    uint8_t status, error;
    uint64_t moved_bytes;

    /* The drive's own. */
    struct ata_drive *drive;
    struct block_request block;
    struct scsi_request scsi;
    bool (*step)(struct ata_request *request); /* what follows; true: a step is under way again */
    uint8_t *scratch;
    struct iovec piece; /* of scratch */
    uint64_t left_bytes;
    unsigned range_next, range_count;
    bool then_flush;
};

struct ata_drive_config {
    const struct block_backend *disk; /* a disk; stays the caller's and outlives the drive */
    struct scsi_lun *cdrom;           /* or an ATAPI drive, which is taken over */
    const char *serial;               /* up to 20 characters; may be NULL */
    bool is_serial_ata;               /* with command queuing, and no cable to be measured */
    const struct log *log;            /* may be NULL */
};

struct ata_drive;

/* On failure a CD-ROM stays the caller's. */
struct ata_drive *ata_drive_create(const struct ata_drive_config *config, struct error *err);
void ata_drive_destroy(struct ata_drive *drive); /* NULL is fine; nothing is under way */

/* After power on, or a reset by the controller. Nothing is under way. */
void ata_drive_reset(struct ata_drive *drive, bool is_power_on);
/* What registers hold after a reset: ATA8-APT, 4.3. */
struct ata_taskfile ata_drive_signature(const struct ata_drive *drive);
bool ata_drive_is_atapi(const struct ata_drive *drive);

/* What a command would move. Any thread. */
struct ata_plan ata_plan(struct ata_drive *drive, const struct ata_taskfile *tf);

/* How much data a packet moves at most, and which way. */
enum scsi_direction ata_packet_direction(struct ata_drive *drive, const uint8_t *packet,
                                         uint64_t *size_bytes);

/* Carries it out. True: it is under way, and done() will be called. False: it is done already and
 * done() is not called. Less memory than data moves less. Any thread. */
bool ata_submit(struct ata_drive *drive, struct ata_request *request);

/* A queued command has failed: the drive remembers it for its error log (ATA8-ACS, A.14). */
void ata_queue_failed(struct ata_drive *drive, const struct ata_request *request, unsigned tag);

void ata_drive_save(struct ata_drive *drive, struct save *save); /* nothing is under way */
bool ata_drive_load(struct ata_drive *drive, struct load *load); /* false: as after reset */

#endif
