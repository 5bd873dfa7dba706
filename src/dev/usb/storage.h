/* SPDX-License-Identifier: BSD-2-Clause
 *
 * USB mass storage: a SCSI unit behind the Bulk-Only Transport (USB Mass Storage Class, Bulk-Only
 * Transport, revision 1.0), as a SuperSpeed device with one unit.
 */
#ifndef SKEP_DEV_USB_STORAGE_H
#define SKEP_DEV_USB_STORAGE_H

#include "base/error.h"
#include "dev/storage/scsi.h"
#include "dev/usb/usb.h"

struct usb_storage_config {
    struct scsi_lun *lun; /* one that keeps its sense data; taken over, also on failure */
    const char *serial;   /* up to 32 characters; copied. 4.1.1 wants twelve hex digits */
};

/* NULL and `err` filled on failure. While a command is under way at the unit's medium it must not
 * be destroyed. */
struct usb_device *usb_storage_create(const struct usb_storage_config *config, struct error *err);

#endif
