/* SPDX-License-Identifier: BSD-2-Clause
 *
 * SMART as far as programs ask for it (ATA8-ACS, 7.53), and the logs of READ LOG EXT (annex A):
 * the directory and what a queued command failed with. A disk here does not age, so its attributes
 * are few and good.
 */
#include "dev/storage/ata_internal.h"

#include <string.h>

enum { /* in the features register */
       SMART_READ_DATA = 0xd0,
       SMART_READ_THRESHOLDS = 0xd1,
       SMART_AUTOSAVE = 0xd2,
       SMART_IMMEDIATE = 0xd4,
       SMART_READ_LOG = 0xd5,
       SMART_ENABLE = 0xd8,
       SMART_DISABLE = 0xd9,
       SMART_STATUS = 0xda,
};

enum { SMART_KEY = 0xc24f00, LOG_DIRECTORY = 0x00, LOG_QUEUED_ERROR = 0x10, LOG_SELF_TEST = 0x06 };

struct attribute {
    uint8_t id, flags, value, threshold;
};

/* Reallocated sectors, power-on hours, power cycles, temperature. */
static const struct attribute attributes[] = {
    {5, 0x03, 100, 36}, {9, 0x03, 100, 0}, {12, 0x03, 100, 0}, {194, 0x02, 100, 0}};

static void checksum(uint8_t *page)
{
    uint8_t sum = 0;
    for (unsigned i = 0; i < 511; i++)
        sum = (uint8_t)(sum + page[i]);
    page[511] = (uint8_t)-sum;
}

bool ata_smart_plan(const struct ata_drive *drive, const struct ata_taskfile *tf,
                    struct ata_plan *plan)
{
    uint8_t function = (uint8_t)tf->features, log = (uint8_t)tf->lba;
    if ((tf->lba & 0xffff00) != SMART_KEY || (drive->smart_disabled && function != SMART_ENABLE))
        return false;
    switch (function) {
    case SMART_READ_LOG:
        if ((log != LOG_DIRECTORY && log != LOG_SELF_TEST) || tf->count != 1)
            return false;
        /* fallthrough */
    case SMART_READ_DATA:
    case SMART_READ_THRESHOLDS:
        plan->protocol = ATA_PIO_IN;
        plan->data_bytes = ATA_SECTOR_BYTES;
        return true;
    case SMART_AUTOSAVE:
    case SMART_IMMEDIATE:
    case SMART_ENABLE:
    case SMART_DISABLE:
    case SMART_STATUS: return true;
    default: return false;
    }
}

static void put_attributes(uint8_t *page, bool thresholds)
{
    page[0] = 0x10; /* revision */
    for (size_t i = 0; i < sizeof(attributes) / sizeof(attributes[0]); i++) {
        uint8_t *at = page + 2 + 12 * i;
        at[0] = attributes[i].id;
        at[1] = thresholds ? attributes[i].threshold : attributes[i].flags;
        if (!thresholds) {
            at[3] = at[4] = attributes[i].value;
            at[5] = attributes[i].id == 194 ? 30 : 0; /* degrees */
        }
    }
}

static void put_log(uint8_t log, uint8_t *page)
{
    page[0] = 1; /* version */
    if (log == LOG_DIRECTORY)
        page[2 * LOG_SELF_TEST] = 1;
    else
        checksum(page);
}

void ata_smart(struct ata_drive *drive, struct ata_taskfile *tf, uint8_t *page)
{
    switch (tf->features & 0xff) {
    case SMART_READ_DATA:
        put_attributes(page, false);
        page[368] = 0x03; /* saves attributes */
        checksum(page);
        break;
    case SMART_READ_THRESHOLDS:
        put_attributes(page, true);
        checksum(page);
        break;
    case SMART_READ_LOG: put_log((uint8_t)tf->lba, page); break;
    case SMART_ENABLE: drive->smart_disabled = false; break;
    case SMART_DISABLE: drive->smart_disabled = true; break;
    default: break; /* SMART_STATUS: the registers stay as they are when nothing is wrong */
    }
}

bool ata_log_plan(const struct ata_taskfile *tf, struct ata_plan *plan)
{
    uint8_t log = (uint8_t)tf->lba;
    uint64_t first = (tf->lba >> 8 & 0xff) | (tf->lba >> 24 & 0xff00);
    plan->data_bytes = ATA_SECTOR_BYTES;
    return (log == LOG_DIRECTORY || log == LOG_QUEUED_ERROR) && tf->count == 1 && !first;
}

void ata_log(struct ata_drive *drive, const struct ata_taskfile *tf, uint8_t *page)
{
    struct ata_queue_error *error = &drive->queue_error;
    if ((uint8_t)tf->lba == LOG_DIRECTORY) {
        page[0] = 1; /* version */
        page[2 * LOG_QUEUED_ERROR] = 1;
        return;
    }
    /* A.14: the top bit says that it was no queued command. */
    page[0] = error->is_there ? error->tag : 0x80;
    page[2] = error->status;
    page[3] = error->error;
    for (unsigned i = 0; i < 3; i++) {
        page[4 + i] = (uint8_t)(error->tf.lba >> (8 * i));
        page[8 + i] = (uint8_t)(error->tf.lba >> (24 + 8 * i));
    }
    page[7] = error->tf.device;
    page[12] = (uint8_t)error->tf.count;
    page[13] = (uint8_t)(error->tf.count >> 8);
    checksum(page);
    *error = (struct ata_queue_error){0};
}
