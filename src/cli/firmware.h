/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Which firmware a machine starts in, and where its files are.
 */
#ifndef SKEP_CLI_FIRMWARE_H
#define SKEP_CLI_FIRMWARE_H

#include "base/error.h"
#include "vm/vm.h"

#include <stdbool.h>

struct firmware_choice {
    const char *name;   /* "bios", "uefi" or a file, as given; NULL: by the first disk */
    const char *reason; /* set when it was chosen by the disk; static text */
    char *nvram;        /* malloc'ed: the file of variables that goes with the disk; or NULL */
};

/* --boot KIND[,KIND]…[,menu] */
bool firmware_parse_boot(struct machine_config *machine, const char *value, struct error *err);

/* Fills rom, rom_is_firmware, nvram (unless given) and nvram_template. */
bool firmware_choose(struct firmware_choice *choice, struct machine_config *machine,
                     struct error *err);

#endif
