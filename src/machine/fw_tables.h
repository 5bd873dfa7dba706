/* SPDX-License-Identifier: BSD-2-Clause
 *
 * ACPI and SMBIOS tables for firmware that puts them where it likes: files of the firmware
 * configuration device and the script that says how to link them.
 */
#ifndef SKEP_MACHINE_FW_TABLES_H
#define SKEP_MACHINE_FW_TABLES_H

#include "base/error.h"
#include "dev/fw_cfg.h"
#include "machine/acpi.h"
#include "machine/bytes.h"

/* Makes the tables for guest address `gpa` anew, as the board is now; of the same size each time.
 * With the device's lock held, on a vCPU's thread. */
typedef bool fw_tables_make_fn(void *opaque, uint64_t gpa, struct bytes *acpi,
                               struct acpi_links *links, struct error *err);

struct fw_tables;

/* Firmware reads them after it has placed PCI functions and windows, so they are made when it does.
 * `smbios` has an entry point of `anchor_bytes`, and its structures at `structures_at`. NULL:
 * `err`. To be freed after the device. */
struct fw_tables *fw_tables_put(struct fw_cfg *fw, fw_tables_make_fn *make, void *opaque,
                                const struct bytes *smbios, size_t anchor_bytes,
                                size_t structures_at, struct error *err);
void fw_tables_free(struct fw_tables *tables); /* NULL is fine */

#endif
