/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The interpreter on trial: it runs instructions as always, but what they write to memory is kept
 * apart, and they read it back from there, so that nobody else sees any of it. While cpu->trial is
 * set, cpu->tlb is a view with no entries, so that every access comes by the slow path, which asks
 * here. Used by translator/check.c. Private to cpu/soft; own thread only.
 */
#ifndef SKEP_CPU_SOFT_TRIAL_H
#define SKEP_CPU_SOFT_TRIAL_H

#include "cpu/soft/tlb.h"

enum { TRIAL_LINES = 1024, TRIAL_LINE_BYTES = 64, TRIAL_SLOTS = 4096 };

/* Memory of which a byte was written. */
struct trial_line {
    uint8_t *hva;
    uint64_t known;   /* bytes whose value before the first trial is in `before` */
    uint64_t written; /* bytes that this trial has written: `after` */
    uint8_t before[TRIAL_LINE_BYTES], after[TRIAL_LINE_BYTES];
    /* Bits that a walk of page tables has set. Another walker need not: it may know the page. */
    uint8_t walked[TRIAL_LINE_BYTES];
};

struct trial {
    struct tlb_tables no_entries; /* what cpu->tlb is meanwhile */
    struct tlb_set set;           /* what walks have told, beyond the cpu's own, for this trial */
    sigjmp_buf *give_up;          /* where to go from what can't be tried */
    uint64_t seen;                /* a hash of all that was read */
    unsigned line_count;
    uint16_t slot[TRIAL_SLOTS]; /* the number of a line from 1, by its address; 0: none */
    struct trial_line line[TRIAL_LINES];
};

/* NULL: memory is short. */
struct trial *trial_create(void);
void trial_destroy(struct trial *trial);

/* For another block, and for the same one again: then memory looks as it did before the first time,
 * as far as it was written since. */
void trial_forget(struct trial *trial);
void trial_rewind(struct trial *trial);

/* From here on, and no more. */
void trial_begin(struct cpu *cpu, struct trial *trial);
void trial_end(struct cpu *cpu);

/* For memory.c. `hva` NULL: not RAM. They don't return when there is no room, or it isn't RAM. */
void trial_read(struct cpu *cpu, const uint8_t *hva, uint8_t *buffer, unsigned size_bytes);
void trial_write(struct cpu *cpu, uint8_t *hva, const uint8_t *buffer, unsigned size_bytes);

/* For paging.c: reads an entry, and writes it with `bits`, accessed and dirty ones, set. */
void trial_look(struct cpu *cpu, const uint8_t *hva, void *entry, unsigned size_bytes);
void trial_mark(struct cpu *cpu, uint8_t *hva, uint64_t entry, uint64_t bits, unsigned size_bytes);

#endif
