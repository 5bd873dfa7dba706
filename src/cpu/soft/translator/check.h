/* SPDX-License-Identifier: BSD-2-Clause
 *
 * translator=check: interpreter and translator in lockstep. Each block that is about to run
 * translated runs in the interpreter first, on trial (trial.h), then translated and for good, and
 * what the two leave is compared. At the first difference the processor stops for good.
 */
#ifndef SKEP_CPU_SOFT_TRANSLATOR_CHECK_H
#define SKEP_CPU_SOFT_TRANSLATOR_CHECK_H

#include "cpu/soft/block.h"
#include "cpu/soft/trial.h"

/* Makes cpu->check. */
bool check_open(struct cpu *cpu, struct error *err);
void check_close(struct cpu *cpu);

/* Around each stay in the run loop. Processors that are checked take turns, so that what one reads
 * twice doesn't change in between by another. No-ops without cpu->check. */
void check_enter(struct cpu *cpu);
void check_leave(struct cpu *cpu);

/* Between two blocks: lets the other processors have their turn. */
void check_share(struct cpu *cpu);

/* Runs a block that is translated, both ways. Raises what it raises. */
void check_block(struct cpu *cpu, struct block *block);

/* Translated code is about to call op's handler; cpu->op is it. */
void check_handler(struct cpu *cpu, const struct op *op);

/* The difference that was found; NULL: none. The log has it in full. */
const struct error *check_failure(const struct cpu *cpu);

/* --- check.c and check_report.c ------------------------------------------------------------- */

/* What of struct cpu an instruction may change: from rflags on all up to these. */
enum {
    CHECK_FROM = offsetof(struct cpu, rflags),
    CHECK_BYTES = offsetof(struct cpu, sipi_vector) - CHECK_FROM,
};

struct check_state {
    uint64_t gpr[GPR_SLOTS];
    uint64_t rip; /* that of the instruction when it has raised */
    uint16_t cc;
    uint8_t cpl, tlb_view;
    uint32_t mode;
    bool has_raised, is_translated;
    struct x86_pending pending;
    const struct op *op;
    struct block *block;
    _Alignas(16) uint8_t rest[CHECK_BYTES];
};

struct check {
    struct trial *trial;
    sigjmp_buf caught;
    struct block *block;
    const uint8_t *code; /* of the block */
    unsigned limit;      /* so many of its ops run on trial */
    /* Where a repeated string instruction, the op at the limit, stops; CHECK_NO_COUNT: it doesn't
     * run. */
    uint64_t string_count;
    unsigned begun;                   /* of them */
    bool has_raised;                  /* the last one of those */
    uint64_t seen[BLOCK_MAX_OPS + 1]; /* before each op, by trial->seen; and at the end */
    uint64_t seen_first[BLOCK_MAX_OPS + 1];
    unsigned begun_first;
    struct check_state before, expected, after, stopped;
    const struct check_state *found; /* `after`, or `stopped` when that is to be compared: */
    const struct op *stop;           /* when translated code calls this op's handler */
    bool has_stopped;                /* it has */
    uint8_t found_memory[TRIAL_LINES][TRIAL_LINE_BYTES];
    unsigned found_lines;
    /* Flags after the last block as the interpreter has them, while nothing else has run. */
    bool has_cc;
    uint64_t last_rip;
    uint16_t last_cc, true_cc;
    bool was_x87_live;
    uint16_t cc, trial_cc; /* at the start of this block, translated and in the interpreter */
    unsigned turns;        /* blocks since the last processor's turn */
    uint32_t counter;      /* of blocks */
    bool has_failed;
    struct error error;
};

enum { CHECK_VALUE_BYTES = 32 };

/* Registers are numbered. Gives the size and fills `value`, 0 for a number past the last. */
unsigned check_register(const struct check_state *state, unsigned number,
                        uint8_t value[CHECK_VALUE_BYTES], const char **name);
/* The arithmetic flags, as in cpu->cc, that are different and matter. */
uint16_t check_flags(struct cpu *cpu);
/* Whether byte i of a line is as the interpreter left it. */
bool check_byte(const struct check *check, unsigned line, unsigned i);
uint8_t check_expected_byte(const struct check *check, unsigned line, unsigned i);
/* Runs the block's first `limit` ops on trial again, and leaves their state in check->expected. */
void check_try_again(struct cpu *cpu, unsigned limit, uint64_t string_count);
#define CHECK_NO_COUNT UINT64_MAX

/* check_report.c: fills check->error and logs. */
void check_report(struct cpu *cpu);

#endif
