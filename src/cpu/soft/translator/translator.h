/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The translator of the software processor: x86-64 to x86-64, as the rest of cpu/soft sees it.
 * Blocks that the interpreter has run often get host code, see docs/translator.md. Own thread only.
 */
#ifndef SKEP_CPU_SOFT_TRANSLATOR_TRANSLATOR_H
#define SKEP_CPU_SOFT_TRANSLATOR_TRANSLATOR_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

struct block;
struct cpu;

/* Makes cpu->translator when system->translator says so. False and `err`: no executable memory. */
bool translator_open(struct cpu *cpu, struct error *err);
void translator_close(struct cpu *cpu);

/* What block->code of a block is that is not translated (yet). NULL: no translator. */
const uint8_t *translator_cold_code(const struct cpu *cpu);

/* Runs the block at cpu->rip, and what follows, until translated code has to be left; cpu->rip is
 * the next instruction then. False: the block is the interpreter's, this time. */
bool translator_run(struct cpu *cpu, struct block *block);

/* The same for one block that is translated; with translator_options.is_check nothing else runs
 * with it. */
void translator_enter(struct cpu *cpu, struct block *block);

/* What is known of targets in one half of addresses holds no more. 32-bit code is in the lower. */
void translator_forget(struct cpu *cpu, bool is_upper);

/* REQUEST_VOID: dead blocks become unreachable. */
void translator_serve(struct cpu *cpu);

/* All blocks go. */
void translator_flush(struct cpu *cpu);

#endif
