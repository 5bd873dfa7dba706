/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The software TLB of one cpu. It keeps a set of views for each of the last address spaces (PCID),
 * so that a write to CR3 that does not flush costs a pointer. Global pages are filled in each set
 * anew and stay when a set goes to another address space; whatever invalidates them does so in all
 * sets. Private to the core; own thread only.
 */
#ifndef SKEP_CPU_SOFT_TLB_H
#define SKEP_CPU_SOFT_TLB_H

#include "cpu/soft/core.h"

enum { TLB_SETS = 6, TLB_LOG_ENTRIES = 1024, TLB_BLOOM_BITS = 4096, TLB_LOG_GLOBAL = 1 << 15 };

struct tlb_bloom {
    uint64_t word[TLB_BLOOM_BITS / 64];
};

struct tlb_set {
    struct tlb_tables tables[TLB_VIEWS];
    /* Which entries were filled since the last flush, with TLB_LOG_GLOBAL those of global pages. */
    uint16_t log[TLB_VIEWS][TLB_LOG_ENTRIES];
    unsigned filled[TLB_VIEWS]; /* past TLB_LOG_ENTRIES: too many to tell */
    struct tlb_bloom large;     /* 2 MiB regions that have entries from 2 and 4 MiB pages */
    struct tlb_bloom code; /* pages of the lower half that the jump cache may have entries of */
    struct tlb_bloom huge; /* 1 GiB regions that have entries from 1 GiB pages */
    bool is_used;
    bool has_global; /* entries of global pages */
    uint16_t pcid;
    uint64_t epoch;
    uint64_t last_use;
};

struct tlb {
    struct tlb_set set[TLB_SETS];
    uint64_t clock;
    uint64_t next_epoch;
    uint64_t upper_epoch;
    struct tlb_bloom upper_code;
    bool is_upper_private;  /* code of the upper half is in pages that are not global */
    bool has_keys;          /* entries of pages with a protection key that is not 0 */
    struct tlb_tables none; /* cpu->tlb while every access is to be checked */
};

/* A page as the tables give it: paging.c. */
struct mapping {
    uint64_t gpa; /* of the 4 KiB page */
    bool user, writable, executable, dirty, global;
    uint8_t key;
    bool key_denies_read, key_denies_write; /* by PKRU; writable says nothing of it */
    uint8_t level;                          /* 1: 4 KiB, 2: 2 or 4 MiB, 3: 1 GiB */
};

/* Walks the tables for one access and sets the accessed bit, and the dirty bit for a write. False:
 * not allowed; *error_code is that of the #PF, P, W and U and the others. */
bool paging_walk(struct cpu *cpu, uint64_t linear, enum memory_access access, enum tlb_view view,
                 struct mapping *mapping, uint32_t *error_code);

/* PDPTEs of PAE paging, read when CR3 is loaded: false, and nothing is changed, when one has
 * reserved bits set. */
bool paging_load_pdptes(struct cpu *cpu, uint64_t cr3);
/* Whether none of them that is present has a reserved bit. */
bool paging_are_pdptes_good(const struct cpu *cpu, const uint64_t entry[4]);

bool tlb_open(struct cpu *cpu);
void tlb_close(struct cpu *cpu);

/* CR3 now names `pcid` (0 without PCIDs). `keep`: its translations stay valid. */
void tlb_switch(struct cpu *cpu, uint16_t pcid, bool keep);
void tlb_flush_all(struct cpu *cpu);
void tlb_empty(struct cpu *cpu); /* of the present address space; code stays known */
void tlb_set_empty(struct tlb_set *set);
void tlb_flush_pcid(struct cpu *cpu, uint16_t pcid); /* all but global pages; all here */
void tlb_flush_page(struct cpu *cpu, uint64_t linear);
void tlb_flush_page_pcid(struct cpu *cpu, uint64_t linear, uint16_t pcid);
void tlb_set_view(struct cpu *cpu, enum tlb_view view);

/* Pages that translated code of a class (enum code_class) knows are to be looked up again. */
void tlb_forget_class(struct cpu *cpu, unsigned domain);

/* PKRU has changed in the bits `changed`: entries that depend on them go. */
void tlb_flush_keys(struct cpu *cpu, uint32_t changed);

/* Write tags of the host page go, in all sets; and those of pages whose writes are noted. */
void tlb_drop_writes(struct cpu *cpu, const uint8_t *page);
void tlb_drop_logged_writes(struct cpu *cpu);

/* The entry that serves the access, filled if need be; raises #PF. Its tag may have CODE, MMIO or
 * WATCH set; for MMIO addend is gpa - linear. */
struct tlb_entry *tlb_get(struct cpu *cpu, uint64_t linear, enum memory_access access,
                          enum tlb_view view);

/* The addend for [linear, linear + size) in the present view when that is RAM of one page which may
 * be accessed so: looked up, but nothing is raised, and no dirty bit set. 0: it isn't. */
uintptr_t tlb_probe(struct cpu *cpu, uint64_t linear, unsigned size_bytes,
                    enum memory_access access);

/* New jump cache tags: nothing that is in it is found any more, in the lower half of the set's
 * address space, or in the upper half of all. */
void tlb_new_epoch(struct cpu *cpu, struct tlb_set *set);
void tlb_new_upper_epoch(struct cpu *cpu);
void tlb_new_epochs(struct cpu *cpu); /* all */
void tlb_update_jump_key(struct cpu *cpu);
/* The jump cache is about to take an entry of this page. */
void tlb_note_code(struct cpu *cpu, uint64_t linear);

/* code_page.c: the page is about to have decoded code with bytes [offset, offset + size): no
 * processor writes there unseen after this. Gives the generation. */
uint32_t code_page_mark(struct cpu *cpu, struct code_page *page, uint8_t *hva_page, unsigned offset,
                        unsigned size_bytes);
/* This cpu takes a write tag of the page; false when it holds code and must not. */
bool code_page_take_write(struct cpu *cpu, struct code_page *page);

#endif
