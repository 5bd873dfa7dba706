/* SPDX-License-Identifier: BSD-2-Clause
 * The software TLB: see tlb.h. Flushes touch only what was filled since the last one. */
#include "cpu/soft/tlb.h"

#include "cpu/soft/debugger.h"

#include <stdlib.h>
#include <sys/mman.h>

static const struct tlb_entry invalid_entry = {TLB_INVALID_TAG, TLB_INVALID_TAG, TLB_INVALID_TAG,
                                               0};

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
            set->entry[view][set->log[view][i]] = invalid_entry;
    else
        for (unsigned i = 0; i < TLB_ENTRIES; i++)
            set->entry[view][i] = invalid_entry;
    set->filled[view] = 0;
}

static void set_flush(struct cpu *cpu, struct tlb_set *set)
{
    for (unsigned view = 0; view < TLB_VIEWS; view++)
        view_clear(set, view);
    memset(&set->large, 0, sizeof(set->large));
    memset(&set->huge, 0, sizeof(set->huge));
    set->has_global = false;
    tlb_new_epoch(cpu, set);
    if (cpu->tlb_all->is_upper_private)
        tlb_new_upper_epoch(cpu);
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

void tlb_set_view(struct cpu *cpu, enum tlb_view view)
{
    cpu->tlb_all->view = (uint8_t)view;
    cpu->tlb = cpu->tlb_set->entry[view];
}

static void set_keys(struct cpu *cpu, unsigned half, uint64_t epoch)
{
    uint64_t key = epoch << JUMP_MODE_BITS | cpu->mode;
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
        set->is_used = true;
        set->pcid = pcid;
        keep = false;
    }
    set->last_use = ++tlb->clock;
    cpu->tlb_set = set;
    cpu->tlb = set->entry[tlb->view];
    if (!keep)
        set_flush(cpu, set);
    else if (tlb->is_upper_private)
        tlb_new_upper_epoch(cpu);
    else
        tlb_update_jump_key(cpu);
}

void tlb_flush_all(struct cpu *cpu)
{
    for (unsigned i = 0; i < TLB_SETS; i++)
        if (&cpu->tlb_all->set[i] != cpu->tlb_set)
            cpu->tlb_all->set[i].is_used = false;
    cpu->tlb_all->is_upper_private = false;
    set_flush(cpu, cpu->tlb_set);
    tlb_new_upper_epoch(cpu);
}

void tlb_flush_pcid(struct cpu *cpu, uint16_t pcid)
{
    struct tlb_set *set = set_find(cpu->tlb_all, pcid);
    if (set == cpu->tlb_set)
        set_flush(cpu, set);
    else if (set)
        set->is_used = false;
}

static void flush_region(struct tlb_set *set, uint64_t linear)
{
    for (unsigned view = 0; view < TLB_VIEWS; view++)
        for (unsigned i = 0; i < TLB_ENTRIES; i++) {
            struct tlb_entry *entry = &set->entry[view][i];
            uint64_t tag = entry->exec_tag & TLB_INVALID_TAG ? entry->read_tag : entry->exec_tag;
            if (!((tag ^ linear) >> 22))
                *entry = invalid_entry;
        }
}

static void set_flush_page(struct cpu *cpu, struct tlb_set *set, uint64_t linear)
{
    bool has_code = bloom_has(code_bloom(cpu, set, linear), linear >> PAGE_SHIFT);
    if (bloom_has(&set->huge, linear >> 30)) {
        set_flush(cpu, set);
        new_epoch_of(cpu, set, linear);
        return;
    }
    unsigned i = linear >> PAGE_SHIFT & (TLB_ENTRIES - 1);
    for (unsigned view = 0; view < TLB_VIEWS; view++)
        set->entry[view][i] = invalid_entry;
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

static void drop_write(struct tlb_entry *entry, const uint8_t *page)
{
    uint64_t other = TLB_INVALID_TAG | TLB_MMIO_TAG;
    if (!(entry->write_tag & other) &&
        (entry->write_tag & PAGE_MASK) + entry->addend == (uintptr_t)page)
        entry->write_tag |= TLB_CODE_TAG;
}

void tlb_drop_writes(struct cpu *cpu, const uint8_t *page)
{
    for (unsigned s = 0; s < TLB_SETS; s++) {
        struct tlb_set *set = &cpu->tlb_all->set[s];
        if (!set->is_used)
            continue;
        for (unsigned view = 0; view < TLB_VIEWS; view++) {
            if (set->filled[view] <= TLB_LOG_ENTRIES)
                for (unsigned i = 0; i < set->filled[view]; i++)
                    drop_write(&set->entry[view][set->log[view][i]], page);
            else
                for (unsigned i = 0; i < TLB_ENTRIES; i++)
                    drop_write(&set->entry[view][i], page);
        }
    }
}

static void fill_ram(struct cpu *cpu, struct tlb_entry *entry, uint64_t linear,
                     const struct mapping *mapping, struct soft_region *region)
{
    uint64_t page = linear & PAGE_MASK;
    uint64_t offset = mapping->gpa - region->gpa;
    entry->addend = (uintptr_t)region->hva + offset - page;
    if (mapping->executable)
        entry->exec_tag = page;
    if (mapping->writable && mapping->dirty && !region->read_only)
        entry->write_tag = code_page_take_write(cpu, &region->pages[offset >> PAGE_SHIFT])
                               ? page
                               : page | TLB_CODE_TAG;
}

/* Whether data may be read through this view follows from the walk; writes need the dirty bit. */
static void fill(struct cpu *cpu, struct tlb_entry *entry, uint64_t linear, enum tlb_view view,
                 const struct mapping *mapping)
{
    uint64_t page = linear & PAGE_MASK;
    bool is_readable = !(view == TLB_SUPERVISOR_SMAP && mapping->user);
    struct soft_region *region = soft_region_find(cpu->system, mapping->gpa);
    *entry = invalid_entry;
    if (region) {
        fill_ram(cpu, entry, linear, mapping, region);
        if (is_readable)
            entry->read_tag = page;
        else
            entry->write_tag = TLB_INVALID_TAG;
    } else if (is_readable) {
        entry->addend = mapping->gpa - page;
        entry->read_tag = page | TLB_MMIO_TAG;
        if (mapping->writable && mapping->dirty)
            entry->write_tag = page | TLB_MMIO_TAG;
    }
    if (debugger_watches(cpu, page, PAGE_BYTES)) {
        entry->read_tag |= TLB_WATCH_TAG;
        entry->write_tag |= TLB_WATCH_TAG;
    }
}

static void note_fill(struct tlb_set *set, unsigned view, uint64_t linear,
                      const struct mapping *mapping)
{
    unsigned n = set->filled[view];
    if (n < TLB_LOG_ENTRIES)
        set->log[view][n] = linear >> PAGE_SHIFT & (TLB_ENTRIES - 1);
    if (n <= TLB_LOG_ENTRIES)
        set->filled[view] = n + 1;
    if (mapping->level == 2)
        bloom_add(&set->large, linear >> 22);
    if (mapping->level == 3)
        bloom_add(&set->huge, linear >> 30);
    set->has_global |= mapping->global;
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
    struct tlb_entry *entry = &set->entry[view][linear >> PAGE_SHIFT & (TLB_ENTRIES - 1)];
    uint64_t tag = access == ACCESS_READ    ? entry->read_tag
                   : access == ACCESS_WRITE ? entry->write_tag
                                            : entry->exec_tag;
    uint64_t flags = TLB_CODE_TAG | TLB_MMIO_TAG | TLB_WATCH_TAG;
    if ((tag & ~flags) == (linear & PAGE_MASK))
        return entry;
    struct mapping mapping;
    uint32_t error_code = 0;
    cpu->stats.tlb_misses++;
    if (!paging_walk(cpu, linear, access, view, &mapping, &error_code))
        cpu_raise_page_fault(cpu, linear, error_code);
    fill(cpu, entry, linear, view, &mapping);
    note_fill(set, view, linear, &mapping);
    note_private(cpu, linear, &mapping);
    return entry;
}
