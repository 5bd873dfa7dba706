/* SPDX-License-Identifier: BSD-2-Clause
 * The options of `skep run` about the screen. */
#ifndef SKEP_CLI_DISPLAY_H
#define SKEP_CLI_DISPLAY_H

#include "vm/vm.h"

/* Both cut `value` into pieces, which the configuration keeps. */
bool display_parse_vga(struct machine_config *machine, char *value, struct error *err);
bool display_parse_display(struct machine_config *machine, char *value, struct error *err);

#endif
