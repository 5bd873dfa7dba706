/* SPDX-License-Identifier: BSD-2-Clause
 * Linear addresses by a processor's page tables, for debuggers: nothing is changed, no right is
 * looked at. */
#ifndef SKEP_CPU_TRANSLATE_H
#define SKEP_CPU_TRANSLATE_H

#include "bus/ram.h"
#include "cpu/state.h"

#include <stdbool.h>
#include <stdint.h>

/* Where the byte at `linear` stands in physical memory. False: it is not mapped, or the tables are
 * not in RAM. Accessed and dirty bits stay as they are; pages that the present privilege may not
 * use are found too. SDM 3A 4.3 to 4.5. */
bool x86_translate(const struct x86_state *state, const struct ram *ram, uint64_t linear,
                   uint64_t *gpa);

#endif
