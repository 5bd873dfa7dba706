/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Kernel, initrds and command line from the guest's own disk, as its boot loader's configuration
 * says (bootcfg/): a machine starts as fast as with --kernel, and never with a stale one.
 */
#ifndef SKEP_MACHINE_BOOT_DISK_H
#define SKEP_MACHINE_BOOT_DISK_H

#include "base/error.h"
#include "machine/boot_file.h"
#include "machine/bootcfg/bootcfg.h"

#include <stdbool.h>

struct boot_disk {
    struct boot_file *kernel;
    struct boot_file *initrds[BOOTCFG_MAX_INITRDS];
    unsigned initrd_count;
    char *cmdline;
    char *summary; /* for a person: title, kernel, where it is configured */
};

/* Reads from the first of these raw images that has a boot loader's configuration; `more` is put
 * behind the command line, NULL: nothing. Where no console is named, the first serial port is
 * added. Takes some hundreds of milliseconds. Fills `disk`, which is to be freed; false: nothing
 * is. */
bool boot_disk_read(struct boot_disk *disk, const char *const *images, unsigned image_count,
                    const char *more, struct error *err);
void boot_disk_free(struct boot_disk *disk); /* one that is all zero is fine */

#endif
