/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A processor's state in the save/load stream.
 */
#ifndef SKEP_MACHINE_STATE_STREAM_H
#define SKEP_MACHINE_STATE_STREAM_H

#include "bus/stream.h"
#include "cpu/state.h"

#include <stdbool.h>

/* One section a processor. */
void state_save(const struct x86_state *state, struct save *save);

/* False when the section is not one of these or a value is out of its type's range. Whether the
 * registers make sense together is the engine's to check. */
bool state_load(struct x86_state *state, struct load *load);

#endif
