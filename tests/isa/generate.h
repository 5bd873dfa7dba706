/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Random instructions of user mode that change no control flow, with random state in which their
 * memory operands are in or near scratch memory (native.h).
 */
#ifndef SKEP_TESTS_ISA_GENERATE_H
#define SKEP_TESTS_ISA_GENERATE_H

#include "isa/native.h"

#include <Zydis/Zydis.h>

/* xorshift64*: a generator of our own, so that a seed means the same everywhere. */
struct random {
    uint64_t state;
};
uint64_t random_next(struct random *random);
unsigned random_below(struct random *random, unsigned limit);
bool random_chance(struct random *random, unsigned percent);

/* Values that matter: edges of integers and floating-point numbers among them. */
void random_bytes(struct random *random, uint8_t *bytes, unsigned length);
/* What memory is taken from: the same in every run. */
void random_pool(uint8_t *pool, unsigned length);
void random_state(struct random *random, enum isa_mode mode, struct isa_state *state);

struct instruction {
    uint8_t bytes[ZYDIS_MAX_INSTRUCTION_LENGTH];
    ZydisDecodedInstruction info;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    enum isa_mode mode;
    uint64_t target; /* linear address of the memory operand, as far as it was aimed */
};
void random_instruction(struct random *random, enum isa_mode mode, struct instruction *instruction);

/* The linear address of a memory operand, with the registers of the state; and whether its
 * segment's limit allows all of it there. */
uint64_t operand_address(const struct instruction *instruction, const struct isa_state *state,
                         const ZydisDecodedOperand *operand);
bool operand_is_in_limit(const struct instruction *instruction, uint64_t linear,
                         const ZydisDecodedOperand *operand);

/* Sets registers of the state, or the instruction's displacement, so that memory operands are where
 * they matter. The instruction stands at ISA_CODE. False: an operand went astray. */
bool aim_all(struct random *random, struct instruction *instruction, struct isa_state *state);

/* Prints how far a long run is, every hundred thousand cases; one that is ended early has told it.
 */
void isa_tell_progress(uint64_t cases, uint64_t differences);

bool is_masked_store(const ZydisDecodedInstruction *info);

#endif
