/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Blocks of random instructions outside of 64-bit mode: flat 32-bit code with and without paging,
 * segments with bases and limits, compatibility mode, 16-bit protected mode, real and virtual-8086
 * mode; with the tables and handlers that they need, and states to run them in.
 *
 * Code, tables and handlers are in ROM, so that what random code writes keeps the run short: each
 * block goes forward only, and ends by its own or by the handler of what it has raised.
 */
#ifndef SKEP_TESTS_ISA_BLOCKS_H
#define SKEP_TESTS_ISA_BLOCKS_H

#include "cpu/state.h"
#include "isa/generate.h"

/* Physical memory, mapped one to one where there is paging: ROM, then RAM. */
enum {
    BLOCK_HANDLERS = 0x4000, /* 16 bytes a vector */
    BLOCK_CODE = 0xa000,     /* two pages */
    BLOCK_ROM_BYTES = 0x10000,
    BLOCK_RAM_BYTES = 0x8000,
};

enum block_mode { FLAT, PAE_USER, NOT_FLAT, COMPATIBLE, PROTECTED16, REAL, V86, BLOCK_MODES };
const char *block_mode_name(enum block_mode mode);

/* How blocks and handlers end: HLT, or OUT to a port. Level 3 may do neither. */
enum block_end { BLOCK_HALTS, BLOCK_OUTS };
enum { BLOCK_END_PORT = 0xe0 };

enum { RANDOM_BLOCK_BYTES = 1024 };
struct random_block {
    uint8_t bytes[RANDOM_BLOCK_BYTES];
    unsigned length;
    enum block_mode mode;
    uint64_t rip;
    bool is_open; /* an instruction leaves what is up to the processor */
};

/* Everything in ROM but the block. */
void block_make_tables(uint8_t *rom, bool is_long, enum block_end end);

/* A state to run in, and a block for it. */
void block_make(struct random *random, enum block_mode mode, enum block_end end,
                struct x86_state *state, struct random_block *block);

/* Where it belongs, with such a state. */
unsigned block_gpa(const struct random_block *block, const struct x86_state *state);

/* The vector whose handler has ended; -1: none, the block has. */
int block_vector(const struct x86_state *state, enum block_end end);

/* Its instructions, one after another: decodes the one at `at`; false after the last. */
bool block_decode(const struct random_block *block, unsigned at, ZydisDecodedInstruction *info,
                  ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT]);

/* The cases of a program's command line, `[CASES [SEED [MODE]]]`: the first one has the seed
 * itself, and without MODE they go through all modes. Each tells the differences so far. */
typedef uint64_t block_case_fn(void *test, enum block_mode mode, uint64_t seed);
void block_run_cases(int argc, char **argv, uint64_t default_cases, block_case_fn *run, void *test);

void block_print(const struct random_block *block);

#endif
