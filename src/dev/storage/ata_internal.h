/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What the parts of an ATA drive share. Everything here is called with the drive's lock held.
 */
#ifndef SKEP_DEV_STORAGE_ATA_INTERNAL_H
#define SKEP_DEV_STORAGE_ATA_INTERNAL_H

#include "dev/storage/ata.h"

#include <pthread.h>

enum { ATA_TRIM_BLOCKS = 8, ATA_HEADS = 16, ATA_SECTORS = 63 };

/* The queued command that failed, for the log. */
struct ata_queue_error {
    bool is_there;
    uint8_t tag, status, error;
    struct ata_taskfile tf;
};

struct ata_drive {
    pthread_mutex_t lock;
    struct ata_drive_config config;
    struct block_backend disk;
    struct block_info info;
    char serial[ATA_SERIAL_BYTES + 1];
    struct log_limit limit;

    uint8_t heads, sectors; /* as INITIALIZE DEVICE PARAMETERS sets them */
    uint8_t multiple;       /* sectors; 0: not set */
    uint8_t dma_mode;       /* as SET FEATURES has it: 0x20 | n, 0x40 | n */
    uint8_t power;          /* enum ata_power */
    bool no_write_cache, no_read_ahead, smart_disabled;
    struct ata_queue_error queue_error;
};

enum ata_power { ATA_ACTIVE, ATA_STANDBY, ATA_ASLEEP };

uint64_t ata_sectors(const struct ata_drive *drive);
unsigned ata_cylinders(const struct ata_drive *drive);

/* The 512 bytes of IDENTIFY (PACKET) DEVICE. */
void ata_identify(const struct ata_drive *drive, uint8_t *page);

/* SMART: false, when there is no such function. Data of functions that have some goes to `page`. */
bool ata_smart_plan(const struct ata_drive *drive, const struct ata_taskfile *tf,
                    struct ata_plan *plan);
void ata_smart(struct ata_drive *drive, struct ata_taskfile *tf, uint8_t *page);

/* READ LOG EXT, of one page of 512 bytes: there is no longer log. */
bool ata_log_plan(const struct ata_taskfile *tf, struct ata_plan *plan);
void ata_log(struct ata_drive *drive, const struct ata_taskfile *tf, uint8_t *page);

#endif
