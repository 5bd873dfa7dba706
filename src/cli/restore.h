/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What of a machine's options was given beside --restore, and what then comes from the saved one.
 */
#ifndef SKEP_CLI_RESTORE_H
#define SKEP_CLI_RESTORE_H

#include "vm/vm.h"

#include <stdbool.h>

struct restore_given {
    bool nets, console, serials, display;
};

/* Whether what was given that decides over the guest's devices is as the saved machine has it. */
bool restore_check(const struct machine_config *config, bool has_vga, struct error *err);

/* Fills up `config`, whose `saved` is set, with what the saved machine was made of and what was
 * not given anew. What decides over the guest's devices is always taken from there. */
void restore_fill(struct machine_config *config, const struct restore_given *given);

#endif
