/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What an engine counts, of one processor or of all.
 */
#ifndef SKEP_CPU_STATS_H
#define SKEP_CPU_STATS_H

#include <stdint.h>

/* Counters since vm_open, for --stats and the benchmark. What an engine can't count stays 0. All
 * are uint64_t, so that they can be added up as an array. */
struct engine_stats {
    uint64_t instructions; /* all of them only with counts_instructions */
    uint64_t exceptions, interrupts;
    uint64_t mmio, pio;
    /* Decoding: blocks made; looked up by address, not found there. */
    uint64_t blocks_decoded, block_lookups, block_misses;
    /* Memory: look-ups of the TLB that had to walk, accesses that left the fast path since they
     * cross pages, or write to a page with decoded code; writes to decoded code. */
    uint64_t tlb_misses, page_walks, page_crossings, code_page_writes, code_writes;
    /* Flushes of the TLB: all of it, an address space, a page; address spaces entered, and those
     * that had to be emptied for it; new epochs, after which all code is looked up again. */
    uint64_t tlb_flushes, space_flushes, page_flushes, space_switches, space_misses, epochs;
    /* Translated code: blocks made, of several blocks each, and made void by writes to their page;
     * direct jumps linked; stays in it; calls of the interpreter's handlers from it; jumps that
     * neither a link nor a cache of targets took; failed guards among them; flushes of all code. */
    uint64_t blocks_translated, superblocks, blocks_voided, links, translator_stays, handler_calls;
    uint64_t jump_lookups, guard_misses, code_flushes;
    /* translator=check: blocks compared; those of which the rest from an instruction on can't run
     * twice; those that nothing is compared of; those whose memory others have changed meanwhile.
     */
    uint64_t blocks_checked, blocks_checked_partly, blocks_unchecked, blocks_disturbed;
    uint64_t group_failures; /* checks of several accesses at once that the interpreter took over */
};

#endif
