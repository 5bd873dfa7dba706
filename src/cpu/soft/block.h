/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Decoded blocks and their cache. Private to the core; own thread only.
 */
#ifndef SKEP_CPU_SOFT_BLOCK_H
#define SKEP_CPU_SOFT_BLOCK_H

#include "cpu/soft/core.h"

#include <stddef.h>

enum { BLOCK_MAX_OPS = 64, BLOCK_MAX_BYTES = BLOCK_MAX_OPS * 15, INSN_MAX_BYTES = 15 };

/* A guess of the block that comes next: right when RIP and cpu->link_key are these. */
struct block_link {
    uint64_t rip, key;
    struct block *block;
};

struct block {
    struct code_page *page;
    uint32_t generation;
    uint16_t size_bytes;
    uint16_t op_count;
    uint16_t runs;   /* by the interpreter, until it is translated */
    bool is_refused; /* not to be translated */
    bool is_translated;
    bool is_live_known;
    uint16_t live;          /* flags that matter where it begins, by the translator */
    bool is_ungrouped;      /* its accesses are to be checked one by one */
    bool is_unslotted;      /* a loop that has no use for loop slots */
    uint8_t group_failures; /* how often accesses could not be checked together */
    uint8_t slot_failures;  /* how often a loop slot's page changed at once */
    uint8_t check_ops;      /* of translator=check: see check.c; 0: not looked at yet */
    bool ends_in_string;    /* the last op is a repeated string instruction; of check.c, too */
    uint16_t live_next, live_taken; /* flags that matter behind it when it is translated */
    uint32_t host_bytes;            /* of its translated code */
    uint64_t page_offset;           /* of its first byte */
    const uint8_t *code;     /* to jump to: what leaves to the run loop when not translated */
    const uint8_t *bytes;    /* what it was decoded from; NULL: not RAM */
    struct block *page_next; /* of the translated blocks of its page */
    uint32_t replaced;       /* offset of its former code, which then leads to the new; or 0 */
    uint32_t incoming;       /* the last link to it from another page: translator/cache.c */
    struct op *end;
    struct block_link link[2]; /* behind its end, and elsewhere */
    uint8_t went[2];           /* how often the interpreter went there */
    struct block *head;        /* of a superblock: the block that it stands for */
    /* From here on only for look-ups. */
    struct block *next;      /* in the hash chain */
    const uint8_t *hva;      /* of the first byte; with `mode` the key. NULL: not RAM */
    const uint8_t *hva2;     /* of a straddling instruction: its first byte in the second page */
    struct code_page *page2; /* and that page, else NULL */
    uint32_t generation2;
    uint32_t mode;
    struct op op[];
};

bool block_cache_open(struct cpu *cpu, struct error *err);
void block_cache_close(struct cpu *cpu);
void block_cache_flush(struct cpu *cpu); /* all blocks, and the vector stubs; no block may run */

/* The live block at a host address, or NULL when none is known. */
struct block *block_peek(struct cpu *cpu, const uint8_t *hva, uint32_t mode);

/* Room for a block that is in none of the look-ups; NULL when the cache is nearly full. */
struct block *block_room_for(struct cpu *cpu, unsigned op_count, unsigned size_bytes);

/* The block at cpu->rip, decoded if need be; raises what fetching raises. */
struct block *block_find(struct cpu *cpu);

/* A block of the same page as the running one was made void: the running one ends after the present
 * instruction if it is one of them. */
void block_leave_if_dead(struct cpu *cpu);

static inline struct block *block_of(const struct op *op)
{
    const struct op *first = op - op->number;
    return (struct block *)((uintptr_t)first - offsetof(struct block, op));
}

/* What blocks are told apart by besides their place: translated code knows its mode, and in which
 * half of the addresses it is. */
static inline uint32_t block_mode(const struct cpu *cpu)
{
    return cpu->mode | (cpu->rip >> 63 ? MODE_UPPER : 0);
}

static inline bool block_is_alive(const struct block *block)
{
    return atomic_load_explicit(&block->page->generation, memory_order_acquire) ==
           block->generation;
}

/* Where a relative branch may reach addresses that are not canonical, which a tag doesn't tell:
 * code there is not put in the jump cache and not translated. */
static inline bool is_near_hole(uint64_t rip)
{
    const uint64_t hole = UINT64_C(1) << 47, reach = (UINT64_C(1) << 31) + PAGE_BYTES;
    return rip - (hole - reach) < reach || rip + hole < reach;
}

static inline struct jump_entry *jump_slot(struct cpu *cpu, uint64_t rip)
{
    return &cpu->jump[(rip ^ rip >> 12) & (JUMP_ENTRIES - 1)];
}

static inline uint64_t jump_tag(const struct cpu *cpu, uint64_t rip)
{
    return rip << 16 | cpu->jump_key[rip >> 63];
}

/* decode.c: a decoder as it is used for code of this mode (enum cpu_mode). */
void decoder_init(ZydisDecoder *decoder, uint32_t mode);

/* Decodes instructions from bytes[0 … available) into op[] until one ends the block, the
 * next is not complete, or max_ops. Returns the number of ops; 0: not even the first is complete.
 * What can't be decoded becomes op_undefined. *size_bytes: how many bytes they take. */
unsigned decode_block(struct cpu *cpu, const uint8_t *bytes, unsigned available, struct op *op,
                      unsigned max_ops, unsigned *size_bytes);

#endif
