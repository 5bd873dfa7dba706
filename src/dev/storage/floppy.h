/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A floppy disk controller, Intel's 82077AA, with two drives.
 */
#ifndef SKEP_DEV_STORAGE_FLOPPY_H
#define SKEP_DEV_STORAGE_FLOPPY_H

#include "base/error.h"
#include "base/log.h"
#include "bus/block.h"
#include "bus/bus.h"
#include "bus/device.h"
#include "bus/dma.h"
#include "bus/irq.h"

#include <stdbool.h>
#include <stdint.h>

enum { FLOPPY_DRIVES = 2 };

/* As the PC's CMOS memory numbers them. */
enum floppy_drive_type {
    FLOPPY_NONE = 0,
    FLOPPY_360K = 1,
    FLOPPY_1200K = 2,
    FLOPPY_720K = 3,
    FLOPPY_1440K = 4,
    FLOPPY_2880K = 5,
};

struct floppy_config {
    uint16_t base; /* eight ports, of which the seventh belongs to IDE: 0x3f0 on a PC */
    struct irq_line irq;
    struct dma_channel dma;
    const struct log *log; /* may be NULL */
    struct {
        bool is_there;
        /* NULL: no disk is in it. The caller's; outlives its stay in the drive, and is drained
         * before reset, save, load and destroy. */
        const struct block_backend *medium;
        const char *name; /* of the image, for a message; may be NULL */
    } drives[FLOPPY_DRIVES];
};

struct floppy;

/* What a drive must be to take an image of this size: FLOPPY_NONE for a size no floppy has. An
 * empty drive is for 1440K. */
enum floppy_drive_type floppy_type_for(uint64_t size_bytes);

/* `bus` must outlive the device. NULL and `err` filled on failure, also for a medium of a size that
 * no floppy has. Free with floppy_ops.destroy. */
struct floppy *floppy_create(const struct floppy_config *config, struct bus *bus,
                             struct error *err);

enum floppy_drive_type floppy_drive_type(const struct floppy *floppy, unsigned drive);

/* Takes the disk out of a drive (NULL) or puts another one in; the guest sees the change line. On
 * return nothing uses the old one. False: the drive does not take a disk of this size. On the
 * loop's thread. */
bool floppy_change_medium(struct floppy *floppy, unsigned drive,
                          const struct block_backend *medium);

extern const struct device_ops floppy_ops;

#endif
