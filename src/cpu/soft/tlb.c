/* SPDX-License-Identifier: BSD-2-Clause
 * The software TLB: see tlb.h. Flushes touch only what was filled since the last one. */
#include "cpu/soft/tlb.h"

#include "cpu/soft/debug.h"
#include "cpu/soft/debugger.h"
#include "cpu/soft/translator/translator.h"
#include "cpu/soft/trial.h"

#include <stdlib.h>
#include <sys/mman.h>

static const struct tlb_entry invalid_entry = {TLB_INVALID_TAG, 0};

static struct tlb_entry *entry_of(struct tlb_tables *tables, uint64_t linear,
                                  enum memory_access access)
{
    switch (access) {
    case ACCESS_READ: return &tables->read[tlb_index(linear)];
    case ACCESS_WRITE: return &tables->write[tlb_index(linear)];
    default: return &tables->execute[linear >> PAGE_SHIFT & (TLB_EXECUTE_ENTRIES - 1)];
    }
}

/* All entries that a page may be in. */
static void clear_index(struct tlb_tables *tables, unsigned i)
{
    tables->read[i] = tables->write[i] = invalid_entry;
    tables->execute[i & (TLB_EXECUTE_ENTRIES - 1)] = invalid_entry;
}

void tlb_forget_class(struct cpu *cpu, unsigned domain)
{
    for (unsigned i = domain < CLASS_KERNEL32 ? FIRST_READ_SLOT : 0; i < PAGE_SLOTS; i++)
        cpu->page_slot[domain][i].page = PAGE_SLOT_NONE;
    for (unsigned i = 0; i < LOOP_SLOTS; i++)
        cpu->loop_slot[domain][i].page = PAGE_SLOT_NONE;
}

/* What translated code knows to hit is to be looked up again. */
static void forget_page_slots(struct cpu *cpu)
{
    if (!cpu->page_slots_used)
        return;
    for (unsigned domain = CLASS_KERNEL; domain <= CLASS_USER; domain++)
        for (unsigned i = 0; i < STACK_SLOTS; i++)
            cpu->stack_slot[domain][i].page = PAGE_SLOT_NONE;
    unsigned classes = cpu->is_32bit_known ? CLASS_OTHER : CLASS_KERNEL32;
    for (unsigned domain = CLASS_KERNEL; domain < classes; domain++)
        tlb_forget_class(cpu, domain);
    cpu->page_slots_used = 0;
}

static unsigned bloom_index(uint64_t key)
{
    return (unsigned)((key * UINT64_C(0x9e3779b97f4a7c15)) >> 52);
}

static void bloom_add(struct tlb_bloom *bloom, uint64_t key)
{
    unsigned i = bloom_index(key);
    bloom->word[i / 64] |= UINT64_C(1) << i % 64;
}

static bool bloom_has(const struct tlb_bloom *bloom, uint64_t key)
{
    unsigned i = bloom_index(key);
    return bloom->word[i / 64] >> i % 64 & 1;
}

static void view_clear(struct tlb_set *set, unsigned view)
{
    if (set->filled[view] <= TLB_LOG_ENTRIES)
        for (unsigned i = 0; i < set->filled[view]; i++)
            clear_index(&set->tables[view], set->log[view][i] & (TLB_ENTRIES - 1));
    else
        for (unsigned i = 0; i < TLB_ENTRIES; i++)
            clear_index(&set->tables[view], i);
    set->filled[view] = 0;
}

static void set_flush(struct cpu *cpu, struct tlb_set *set)
{
    tlb_set_empty(set);
    forget_page_slots(cpu);
    memset(&set->large, 0, sizeof(set->large));
    memset(&set->huge, 0, sizeof(set->huge));
    set->has_global = false;
    tlb_new_epoch(cpu, set);
    if (cpu->tlb_all->is_upper_private)
        tlb_new_upper_epoch(cpu);
}

/* Entries of global pages stay, but those that share an index with others. */
static void view_drop_locals(struct tlb_set *set, unsigned view)
{
    unsigned kept = 0;
    if (set->filled[view] > TLB_LOG_ENTRIES) {
        view_clear(set, view);
        return;
    }
    for (unsigned i = 0; i < set->filled[view]; i++) {
        uint16_t filled = set->log[view][i];
        if (filled & TLB_LOG_GLOBAL)
            set->log[view][kept++] = filled;
        else
            clear_index(&set->tables[view], filled);
    }
    set->filled[view] = kept;
}

/* What MOV to CR3 invalidates (SDM 3A 4.10.4.1). */
static void set_drop_locals(struct cpu *cpu, struct tlb_set *set)
{
    for (unsigned view = 0; view < TLB_VIEWS; view++)
        view_drop_locals(set, view);
    forget_page_slots(cpu);
    tlb_new_epoch(cpu, set);
    if (cpu->tlb_all->is_upper_private)
        tlb_new_upper_epoch(cpu);
}

void tlb_set_empty(struct tlb_set *set)
{
    for (unsigned view = 0; view < TLB_VIEWS; view++)
        view_clear(set, view);
}

void tlb_empty(struct cpu *cpu)
{
    tlb_set_empty(cpu->tlb_set);
    forget_page_slots(cpu);
}

bool tlb_open(struct cpu *cpu)
{
    cpu->tlb_all = aligned_alloc(64, (sizeof(struct tlb) + 63) & ~(size_t)63);
    if (!cpu->tlb_all)
        return false;
    memset(cpu->tlb_all, 0, sizeof(struct tlb));
    for (unsigned i = 0; i < TLB_SETS; i++)
        for (unsigned view = 0; view < TLB_VIEWS; view++) {
            /* Entries of sets that are never used are never touched. */
            cpu->tlb_all->set[i].filled[view] = TLB_LOG_ENTRIES + 1;
        }
    struct tlb_tables *none = &cpu->tlb_all->none;
    for (unsigned i = 0; i < TLB_ENTRIES; i++)
        none->read[i] = none->write[i] = invalid_entry;
    for (unsigned i = 0; i < TLB_EXECUTE_ENTRIES; i++)
        none->execute[i] = invalid_entry;
    cpu->page_slots_used = 1;
    cpu->is_32bit_known = true;
    cpu->tlb_all->next_epoch = 1;
    cpu->tlb_set = &cpu->tlb_all->set[0];
    cpu->tlb_set->is_used = true;
    set_flush(cpu, cpu->tlb_set);
    tlb_set_view(cpu, TLB_SUPERVISOR);
    return true;
}

void tlb_close(struct cpu *cpu)
{
    free(cpu->tlb_all);
    cpu->tlb_all = NULL;
}

/* Translated code knows some pages to hit: not when alignment is to be checked from now on. */
static void set_fast_entries(struct cpu *cpu)
{
    bool is_none = cpu->tlb == &cpu->tlb_all->none;
    if (cpu->checks_alignment != is_none)
        forget_page_slots(cpu);
    cpu->tlb = cpu->trial              ? &cpu->trial->no_entries
               : cpu->checks_alignment ? &cpu->tlb_all->none
                                       : &cpu->tlb_set->tables[cpu->tlb_view];
}

void tlb_set_view(struct cpu *cpu, enum tlb_view view)
{
    cpu->tlb_view = (uint8_t)view;
    set_fast_entries(cpu);
}

void tlb_flush_keys(struct cpu *cpu, uint32_t changed)
{
    enum { KEY0 = 3 };
    if ((changed & KEY0) || cpu->tlb_all->has_keys)
        tlb_flush_all(cpu);
}

static void set_keys(struct cpu *cpu, unsigned half, uint64_t epoch)
{
    uint64_t key = epoch << JUMP_MODE_BITS | cpu->mode;
    if (epoch != cpu->link_key[half] >> JUMP_MODE_BITS)
        translator_forget(cpu, half != 0);
    cpu->jump_key[half] = (uint16_t)key;
    cpu->link_key[half] = key;
}

void tlb_update_jump_key(struct cpu *cpu)
{
    set_keys(cpu, 0, cpu->tlb_set->epoch);
    set_keys(cpu, 1, cpu->tlb_all->upper_epoch);
}

/* Tags of the jump cache hold the low bits of the epoch: before they come round all are taken anew,
 * and the cache is emptied. An epoch with low bits 0 is nobody's, as is an empty entry. */
static uint64_t take_epoch(struct cpu *cpu)
{
    cpu->stats.epochs++;
    struct tlb *tlb = cpu->tlb_all;
    if (tlb->next_epoch % JUMP_EPOCHS == 0) {
        memset(cpu->jump, 0, sizeof(cpu->jump));
        tlb->next_epoch++;
        for (unsigned i = 0; i < TLB_SETS; i++)
            tlb->set[i].epoch = tlb->next_epoch++;
        tlb->upper_epoch = tlb->next_epoch++;
    }
    return tlb->next_epoch++;
}

void tlb_new_epoch(struct cpu *cpu, struct tlb_set *set)
{
    set->epoch = take_epoch(cpu);
    memset(&set->code, 0, sizeof(set->code));
    tlb_update_jump_key(cpu);
}

void tlb_new_upper_epoch(struct cpu *cpu)
{
    cpu->tlb_all->upper_epoch = take_epoch(cpu);
    memset(&cpu->tlb_all->upper_code, 0, sizeof(cpu->tlb_all->upper_code));
    tlb_update_jump_key(cpu);
}

void tlb_new_epochs(struct cpu *cpu)
{
    for (unsigned i = 0; i < TLB_SETS; i++)
        if (cpu->tlb_all->set[i].is_used)
            tlb_new_epoch(cpu, &cpu->tlb_all->set[i]);
    tlb_new_upper_epoch(cpu);
}

static bool is_upper(uint64_t linear)
{
    return linear >> 63;
}

static struct tlb_bloom *code_bloom(struct cpu *cpu, struct tlb_set *set, uint64_t linear)
{
    return is_upper(linear) ? &cpu->tlb_all->upper_code : &set->code;
}

static void new_epoch_of(struct cpu *cpu, struct tlb_set *set, uint64_t linear)
{
    if (is_upper(linear))
        tlb_new_upper_epoch(cpu);
    else
        tlb_new_epoch(cpu, set);
}

void tlb_note_code(struct cpu *cpu, uint64_t linear)
{
    bloom_add(code_bloom(cpu, cpu->tlb_set, linear), linear >> PAGE_SHIFT);
}

static struct tlb_set *set_find(struct tlb *tlb, uint16_t pcid)
{
    for (unsigned i = 0; i < TLB_SETS; i++)
        if (tlb->set[i].is_used && tlb->set[i].pcid == pcid)
            return &tlb->set[i];
    return NULL;
}

static struct tlb_set *set_oldest(struct tlb *tlb)
{
    struct tlb_set *oldest = &tlb->set[0];
    for (unsigned i = 0; i < TLB_SETS; i++) {
        if (!tlb->set[i].is_used)
            return &tlb->set[i];
        if (tlb->set[i].last_use < oldest->last_use)
            oldest = &tlb->set[i];
    }
    return oldest;
}

void tlb_switch(struct cpu *cpu, uint16_t pcid, bool keep)
{
    struct tlb *tlb = cpu->tlb_all;
    struct tlb_set *set = set_find(tlb, pcid);
    if (!set) {
        set = set_oldest(tlb);
        if (!set->is_used)
            set_flush(cpu, set);
        set->is_used = true;
        set->pcid = pcid;
        keep = false;
    }
    set->last_use = ++tlb->clock;
    cpu->stats.space_switches++;
    cpu->stats.space_misses += !keep;
    cpu->tlb_set = set;
    set_fast_entries(cpu);
    forget_page_slots(cpu);
    if (!keep)
        set_drop_locals(cpu, set);
    else if (tlb->is_upper_private)
        tlb_new_upper_epoch(cpu);
    else
        tlb_update_jump_key(cpu);
}

void tlb_flush_all(struct cpu *cpu)
{
    cpu->stats.tlb_flushes++;
    for (unsigned i = 0; i < TLB_SETS; i++)
        if (&cpu->tlb_all->set[i] != cpu->tlb_set)
            cpu->tlb_all->set[i].is_used = false;
    cpu->tlb_all->is_upper_private = false;
    cpu->tlb_all->has_keys = false;
    set_flush(cpu, cpu->tlb_set);
    tlb_new_upper_epoch(cpu);
}

void tlb_flush_pcid(struct cpu *cpu, uint16_t pcid)
{
    struct tlb_set *set = set_find(cpu->tlb_all, pcid);
    cpu->stats.space_flushes++;
    if (set)
        set_drop_locals(cpu, set);
}

static void flush_region(struct tlb_set *set, uint64_t linear)
{
    for (unsigned view = 0; view < TLB_VIEWS; view++) {
        struct tlb_entry *entry = (void *)&set->tables[view];
        for (unsigned i = 0; i < sizeof(set->tables[view]) / sizeof(*entry); i++)
            if (!((entry[i].tag ^ linear) >> 22))
                entry[i] = invalid_entry;
    }
}

static void set_flush_page(struct cpu *cpu, struct tlb_set *set, uint64_t linear)
{
    bool has_code = bloom_has(code_bloom(cpu, set, linear), linear >> PAGE_SHIFT);
    cpu->stats.page_flushes++;
    if (bloom_has(&set->huge, linear >> 30)) {
        set_flush(cpu, set);
        new_epoch_of(cpu, set, linear);
        return;
    }
    forget_page_slots(cpu);
    for (unsigned view = 0; view < TLB_VIEWS; view++)
        clear_index(&set->tables[view], tlb_index(linear));
    if (bloom_has(&set->large, linear >> 22)) {
        flush_region(set, linear);
        has_code = true;
    }
    if (has_code)
        new_epoch_of(cpu, set, linear);
}

void tlb_flush_page(struct cpu *cpu, uint64_t linear)
{
    for (unsigned i = 0; i < TLB_SETS; i++) {
        struct tlb_set *set = &cpu->tlb_all->set[i];
        if (set == cpu->tlb_set || (set->is_used && set->has_global))
            set_flush_page(cpu, set, linear);
    }
}

void tlb_flush_page_pcid(struct cpu *cpu, uint64_t linear, uint16_t pcid)
{
    struct tlb_set *set = set_find(cpu->tlb_all, pcid);
    if (set)
        set_flush_page(cpu, set, linear);
}

/* The host page that the entry gives the fast path; NULL: none. */
static const uint8_t *page_of(const struct tlb_entry *entry)
{
    if (entry->tag & (TLB_INVALID_TAG | TLB_MMIO_TAG))
        return NULL;
    return (const uint8_t *)((entry->tag & PAGE_MASK) + entry->addend);
}

/* `page` NULL: all that are logged. */
static void drop_write(struct cpu *cpu, struct tlb_entry *entry, const uint8_t *page)
{
    const uint8_t *at = page_of(entry);
    if (at && (page ? at == page : soft_is_logged(cpu->system, at)))
        entry->tag |= TLB_CODE_TAG;
}

static void drop_writes(struct cpu *cpu, const uint8_t *page)
{
    forget_page_slots(cpu);
    for (unsigned s = 0; s < TLB_SETS; s++) {
        struct tlb_set *set = &cpu->tlb_all->set[s];
        if (!set->is_used)
            continue;
        for (unsigned view = 0; view < TLB_VIEWS; view++) {
            struct tlb_entry *write = set->tables[view].write;
            if (set->filled[view] <= TLB_LOG_ENTRIES)
                for (unsigned i = 0; i < set->filled[view]; i++)
                    drop_write(cpu, &write[set->log[view][i] & (TLB_ENTRIES - 1)], page);
            else
                for (unsigned i = 0; i < TLB_ENTRIES; i++)
                    drop_write(cpu, &write[i], page);
        }
    }
}

void tlb_drop_writes(struct cpu *cpu, const uint8_t *page)
{
    drop_writes(cpu, page);
}

void tlb_drop_logged_writes(struct cpu *cpu)
{
    drop_writes(cpu, NULL);
}

/* What else a walk has told is kept, too, unless that would drive another page out. */
static void set_entry(struct tlb_entry *entry, uint64_t tag, uintptr_t addend, bool is_wanted)
{
    bool is_free = entry->tag & TLB_INVALID_TAG || !((entry->tag ^ tag) & PAGE_MASK);
    if (is_wanted || is_free)
        *entry = (struct tlb_entry){tag, addend};
}

static void touch(struct cpu *cpu, const uint8_t *hva)
{
    const struct soft_callbacks *callbacks = &cpu->system->callbacks;
    if (callbacks->touch)
        callbacks->touch(callbacks->opaque, hva);
}

/* Whether data may be read through this view follows from the walk; writes need the dirty bit. A
 * write to ROM goes where MMIO goes. */
static void fill(struct cpu *cpu, struct tlb_tables *tables, uint64_t linear,
                 enum memory_access access, enum tlb_view view, const struct mapping *mapping)
{
    uint64_t page = linear & PAGE_MASK, kind = 0;
    bool is_data = !(view == TLB_SUPERVISOR_SMAP && mapping->user) && !mapping->key_denies_read;
    bool is_write = is_data && mapping->writable && mapping->dirty && !mapping->key_denies_write;
    struct soft_region region;
    bool is_memory = soft_region_find(cpu->system, mapping->gpa, &region);
    uint64_t offset = is_memory ? mapping->gpa - region.gpa : 0;
    uintptr_t physical = mapping->gpa - page;
    uintptr_t addend = is_memory ? (uintptr_t)region.hva + offset - page : physical;
    if (!is_memory)
        kind = TLB_MMIO_TAG;
    else
        touch(cpu, region.hva + offset);
    if (mapping->executable)
        set_entry(entry_of(tables, linear, ACCESS_EXECUTE), page | kind, addend,
                  access == ACCESS_EXECUTE);
    if (debug_watches_page(cpu, page) || debugger_watches(cpu, page, PAGE_BYTES))
        kind |= TLB_WATCH_TAG;
    if (is_data)
        set_entry(entry_of(tables, linear, ACCESS_READ), page | kind, addend,
                  access == ACCESS_READ);
    if (!is_write)
        return;
    if (is_memory && region.read_only) {
        kind |= TLB_MMIO_TAG;
        addend = physical;
    } else if (is_memory && !code_page_take_write(cpu, &region.pages[offset >> PAGE_SHIFT])) {
        kind |= TLB_CODE_TAG;
    }
    set_entry(entry_of(tables, linear, ACCESS_WRITE), page | kind, addend, access == ACCESS_WRITE);
}

static void note_fill(struct cpu *cpu, struct tlb_set *set, unsigned view, uint64_t linear,
                      const struct mapping *mapping)
{
    unsigned n = set->filled[view];
    if (n < TLB_LOG_ENTRIES)
        set->log[view][n] = (uint16_t)((linear >> PAGE_SHIFT & (TLB_ENTRIES - 1)) |
                                       (mapping->global ? TLB_LOG_GLOBAL : 0));
    if (n <= TLB_LOG_ENTRIES)
        set->filled[view] = n + 1;
    if (mapping->level == 2)
        bloom_add(&set->large, linear >> 22);
    if (mapping->level == 3)
        bloom_add(&set->huge, linear >> 30);
    set->has_global |= mapping->global;
    cpu->tlb_all->has_keys |= mapping->key != 0;
}

/* Code of the upper half that is not global: every flush must make the jump cache forget it. */
static void note_private(struct cpu *cpu, uint64_t linear, const struct mapping *mapping)
{
    if (is_upper(linear) && mapping->executable && !mapping->global &&
        !cpu->tlb_all->is_upper_private) {
        cpu->tlb_all->is_upper_private = true;
        tlb_new_upper_epoch(cpu);
    }
}

struct tlb_entry *tlb_get(struct cpu *cpu, uint64_t linear, enum memory_access access,
                          enum tlb_view view)
{
    struct tlb_set *set = cpu->tlb_set;
    struct tlb_entry *entry = entry_of(&set->tables[view], linear, access);
    uint64_t flags = TLB_CODE_TAG | TLB_MMIO_TAG | TLB_WATCH_TAG;
    if ((entry->tag & ~flags) == (linear & PAGE_MASK))
        return entry;
    if (cpu->trial) {
        set = &cpu->trial->set;
        entry = entry_of(&set->tables[view], linear, access);
        if ((entry->tag & ~flags) == (linear & PAGE_MASK))
            return entry;
    }
    struct mapping mapping;
    uint32_t error_code = 0;
    cpu->stats.tlb_misses++;
    if (!paging_walk(cpu, linear, access, view, &mapping, &error_code))
        cpu_raise_page_fault(cpu, linear, error_code);
    fill(cpu, &set->tables[view], linear, access, view, &mapping);
    note_fill(cpu, set, view, linear, &mapping);
    note_private(cpu, linear, &mapping);
    return entry;
}

uintptr_t tlb_probe(struct cpu *cpu, uint64_t linear, unsigned size_bytes,
                    enum memory_access access)
{
    struct tlb_set *set = cpu->tlb_set;
    struct tlb_tables *tables = &set->tables[cpu->tlb_view];
    const struct tlb_entry *entry = entry_of(tables, linear, access);
    struct mapping mapping;
    uint32_t error_code;
    bool is_crossing = (linear ^ (linear + size_bytes - 1)) & PAGE_MASK;
    if (cpu->checks_alignment || !is_canonical(linear) || is_crossing)
        return 0;
    if (entry->tag != (linear & PAGE_MASK)) {
        cpu->stats.tlb_misses++;
        if (!paging_walk(cpu, linear, ACCESS_READ, cpu->tlb_view, &mapping, &error_code))
            return 0;
        fill(cpu, tables, linear, access, cpu->tlb_view, &mapping);
        note_fill(cpu, set, cpu->tlb_view, linear, &mapping);
        note_private(cpu, linear, &mapping);
    }
    return entry->tag == (linear & PAGE_MASK) ? entry->addend : 0;
}
