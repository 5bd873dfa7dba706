/* SPDX-License-Identifier: BSD-2-Clause
 *
 * IDENTIFY DEVICE and IDENTIFY PACKET DEVICE (ATA8-ACS, 7.16 and 7.17).
 */
#include "dev/storage/ata_internal.h"

#include <string.h>

static void word(uint8_t *page, unsigned index, unsigned value)
{
    page[2 * index] = (uint8_t)value;
    page[2 * index + 1] = (uint8_t)(value >> 8);
}

static void words(uint8_t *page, unsigned index, uint64_t value, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        word(page, index + i, (unsigned)(value >> (16 * i)) & 0xffff);
}

/* Text has its bytes swapped in each word, and spaces behind it. */
static void text(uint8_t *page, unsigned index, unsigned size_bytes, const char *value)
{
    size_t length = strnlen(value, size_bytes);
    for (unsigned i = 0; i < size_bytes; i++)
        page[2 * index + (i ^ 1)] = (uint8_t)(i < length ? value[i] : ' ');
}

/* Word 255: the sum of all bytes is 0. */
static void seal(uint8_t *page)
{
    uint8_t sum = 0;
    page[510] = 0xa5;
    for (unsigned i = 0; i < 511; i++)
        sum = (uint8_t)(sum + page[i]);
    page[511] = (uint8_t)-sum;
}

/* What disks and ATAPI drives tell alike. */
static void common(const struct ata_drive *drive, uint8_t *page)
{
    bool is_serial = drive->config.is_serial_ata;
    uint8_t mode = drive->dma_mode;
    text(page, 10, 20, drive->serial);
    text(page, 23, 8, "1");
    word(page, 53, 6); /* words 64 to 70 and 88 hold something */
    word(page, 63, 0x0007 | (mode >> 5 == 1 ? 0x100u << (mode & 7) : 0));
    word(page, 64, 3); /* PIO 3 and 4 */
    for (unsigned i = 65; i <= 68; i++)
        word(page, i, 120); /* ns a cycle */
    if (is_serial)
        word(page, 76, 0x000e | (drive->config.cdrom ? 0 : 0x0100)); /* speeds, queuing */
    word(page, 80, 0x01f0);                                          /* ATA/ATAPI-4 … ATA8-ACS */
    word(page, 88, 0x007f | (mode >> 6 == 1 ? 0x100u << (mode & 7) : 0));
    /* Hardware reset result of a parallel drive: it passed, and the cable has 80 wires. */
    word(page, 93, is_serial ? 0 : 0x6001);
    word(page, 222, is_serial ? 0x101f : 0x001f);
}

static void disk_geometry(const struct ata_drive *drive, uint8_t *page)
{
    uint64_t sectors = ata_sectors(drive);
    unsigned cylinders = ata_cylinders(drive);
    uint64_t by_chs = (uint64_t)cylinders * drive->heads * drive->sectors;
    word(page, 1,
         (unsigned)(sectors / (ATA_HEADS * ATA_SECTORS) < 16383
                        ? sectors / (ATA_HEADS * ATA_SECTORS)
                        : 16383));
    word(page, 3, ATA_HEADS);
    word(page, 6, ATA_SECTORS);
    word(page, 54, cylinders);
    word(page, 55, drive->heads);
    word(page, 56, drive->sectors);
    words(page, 57, by_chs, 2);
    words(page, 60, sectors < 0xfffffff ? sectors : 0xfffffff, 2);
    words(page, 100, sectors, 4);
}

static unsigned physical_exponent(const struct block_info *info)
{
    unsigned exponent = 0;
    while (exponent < 15 &&
           (uint32_t)ATA_SECTOR_BYTES << (exponent + 1) <= info->physical_block_bytes)
        exponent++;
    return exponent;
}

/* Words 82 to 87: what it can, and what of it is on. */
static void disk_features(const struct ata_drive *drive, uint8_t *page)
{
    const unsigned sets[3] = {
        0x0069, /* SMART, power management, write cache, read look-ahead */
        0x7400, /* FLUSH CACHE (EXT), 48-bit addresses */
        0x4060, /* general purpose logs, WRITE DMA FUA EXT */
    };
    for (unsigned i = 0; i < 3; i++)
        word(page, 82 + i, sets[i]);
    word(page, 85,
         sets[0] & ~((drive->smart_disabled ? 1u : 0) | (drive->no_write_cache ? 0x20u : 0) |
                     (drive->no_read_ahead ? 0x40u : 0)));
    word(page, 86, 0x3400);
    word(page, 87, sets[2]);
}

static void identify_disk(const struct ata_drive *drive, uint8_t *page)
{
    unsigned exponent = physical_exponent(&drive->info);
    word(page, 0, 0x0040); /* a fixed disk */
    disk_geometry(drive, page);
    text(page, 27, 40, "skep disk");
    word(page, 47, 0x8000 | ATA_MULTIPLE_MAX);
    word(page, 49, 0x0f00); /* DMA, LBA, IORDY, standby timer */
    word(page, 50, 0x4000);
    word(page, 53, 7); /* 54 to 58, too */
    word(page, 59, drive->multiple ? 0x100u | drive->multiple : 0);
    if (drive->config.is_serial_ata)
        word(page, 75, ATA_QUEUE_DEPTH - 1);
    disk_features(drive, page);
    word(page, 106, exponent ? 0x6000 | exponent : 0x4000);
    word(page, 209, 0x4000); /* physical blocks begin at address 0 */
    if (drive->info.can_discard) {
        word(page, 105, ATA_TRIM_BLOCKS);
        word(page, 169, 1);
    }
    word(page, 217, 1); /* does not rotate */
}

static void identify_packet(uint8_t *page)
{
    word(page, 0, 0x85c0); /* ATAPI, CD-ROM, removable, DRQ within 50 µs, packets of 12 bytes */
    text(page, 27, 40, "skep CD-ROM");
    word(page, 49, 0x0f00);
    word(page, 82, 0x0010); /* PACKET */
    word(page, 83, 0x4000);
    word(page, 84, 0x4000);
    word(page, 85, 0x0010);
    word(page, 87, 0x4000);
}

void ata_identify(const struct ata_drive *drive, uint8_t *page)
{
    memset(page, 0, ATA_SECTOR_BYTES);
    common(drive, page);
    if (drive->config.cdrom)
        identify_packet(page);
    else
        identify_disk(drive, page);
    seal(page);
}
