/* SPDX-License-Identifier: BSD-2-Clause
 * Decoding of one instruction of 64-bit mode, for soft.c. */
#ifndef SKEP_TESTS_ISA_SOFT_H
#define SKEP_TESTS_ISA_SOFT_H

#include "cpu/soft/cpu.h"
#include "cpu/soft/op.h"

/* False: not an instruction, or no handler. */
bool soft_decode(struct cpu *cpu, const uint8_t *bytes, unsigned length, struct op *op);

#endif
