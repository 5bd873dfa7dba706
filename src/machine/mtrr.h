/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Memory type range registers as firmware leaves them, for kernels that are booted without any.
 */
#ifndef SKEP_MACHINE_MTRR_H
#define SKEP_MACHINE_MTRR_H

#include "cpu/state.h"

/* Write-back everywhere but in the VGA window and from the end of low memory to 4 GiB, which are
 * uncached, and the ROMs below 1 MiB, which are write-protected. `physical_bits`: MAXPHYADDR, at
 * least 32. */
void mtrr_fill(struct x86_state *state, unsigned physical_bits);

#endif
