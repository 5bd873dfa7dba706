/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A whole software processor around one instruction: page tables, descriptor tables, handlers, run
 * by cpu_run() at CPL 3. It sees scratch memory where native.c has it.
 */
#ifndef SKEP_TESTS_ISA_MACHINE_H
#define SKEP_TESTS_ISA_MACHINE_H

#include "isa/native.h"

struct machine;
struct machine *machine_open(void);
struct translator_options;
struct machine *machine_open_with(struct translator_options translator);
void machine_close(struct machine *machine);

/* The machine's scratch memory, ISA_SCRATCH_BYTES of it. */
uint8_t *machine_scratch(struct machine *machine);

/* Whether the processor offers the instruction. */
bool machine_offers(struct machine *machine, enum isa_mode mode, const uint8_t *bytes,
                    unsigned length);

/* Executes it, or several after one another, as native_run() does. */
void machine_run(struct machine *machine, struct isa_state *state, const uint8_t *bytes,
                 unsigned length);

#endif
