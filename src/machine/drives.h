/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Drives that hang on a controller instead of being PCI functions themselves, and what is in those
 * for CDs. Private to src/machine.
 */
#ifndef SKEP_MACHINE_DRIVES_H
#define SKEP_MACHINE_DRIVES_H

#include "dev/storage/scsi.h"
#include "dev/usb/usb.h"
#include "machine/machine_internal.h"

/* The SCSI unit of disk or CD-ROM drive `index`, the caller's; the rest of `how` (keeps_sense,
 * event) is the transport's. A drive is remembered, for machine_change_medium(). */
struct scsi_lun *drives_make_lun(struct machine *machine, unsigned index,
                                 const struct scsi_lun_config *how, struct error *err);

/* Disk or CD-ROM drive `index` as a USB device, the caller's. */
struct usb_device *drives_make_usb(struct machine *machine, unsigned index, struct error *err);

/* Always false: a bus has `room` for disks and drives, and this is one more. */
bool drives_no_room(const struct machine *machine, unsigned index, unsigned room,
                    struct error *err);

/* Controllers for the disks and drives that want one; each only when there are any. */
bool drives_plug_ahci(struct machine *machine, struct error *err);
bool drives_plug_ide(struct machine *machine, struct error *err);
bool drives_plug_scsi(struct machine *machine, struct error *err);

#endif
