/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The virtio SCSI host device (virtio 1.2, 5.6), with a logical unit on each of its targets.
 */
#ifndef SKEP_DEV_VIRTIO_SCSI_H
#define SKEP_DEV_VIRTIO_SCSI_H

#include "dev/storage/scsi.h"
#include "dev/virtio/virtio.h"

enum { VIRTIO_SCSI_TARGETS_MAX = 64, VIRTIO_SCSI_QUEUES_MAX = 64 };

struct virtio_scsi_config {
    struct ram *ram;
    struct loop *loop;
    const struct log *log;
    /* The unit of target n; event, opaque and keeps_sense are filled here. Media stay the caller's
     * and are drained before the device is reset by the machine, saved or destroyed. */
    const struct scsi_lun_config *units;
    unsigned unit_count;   /* up to VIRTIO_SCSI_TARGETS_MAX */
    unsigned queue_count;  /* for requests; 0: 1 */
    uint64_t features_off; /* not to be offered */
};

/* The device for virtio_pci_create(). NULL and `err` filled on failure. */
struct virtio_device *virtio_scsi_create(const struct virtio_scsi_config *config,
                                         struct error *err);

/* The unit of a target, to change its medium. */
struct scsi_lun *virtio_scsi_unit(struct virtio_device *device, unsigned target);

#endif
