/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Walking the guest's page tables: 4-level, PAE and 32-bit paging, SDM 3A 4.3 to 4.7. Accessed and
 * dirty bits are set by compare-exchange on guest memory, after all checks; a walk that meets a
 * changed entry begins anew. Left out: 5-level paging, protection keys. Runs on the cpu's thread.
 */
#include "cpu/soft/trial.h"

#define PTE_P         UINT64_C(0x1)
#define PTE_W         UINT64_C(0x2)
#define PTE_U         UINT64_C(0x4)
#define PTE_A         UINT64_C(0x20)
#define PTE_D         UINT64_C(0x40)
#define PTE_PS        UINT64_C(0x80)
#define PTE_G         UINT64_C(0x100)
#define PTE_NX        (UINT64_C(1) << 63)
#define PTE_PAT_LARGE UINT64_C(0x1000)
#define PTE_ADDRESS   UINT64_C(0x000ffffffffff000)

enum { ERROR_P = 1, ERROR_W = 2, ERROR_U = 4, ERROR_RSVD = 8, ERROR_I = 16 };
enum { MAX_LEVELS = 4 };

struct walk {
    struct cpu *cpu;
    uint64_t linear;
    bool is_pae;
    uint64_t reserved; /* bits that must be 0 in every present entry */
    unsigned count;
    uint64_t gpa[MAX_LEVELS]; /* of the entries used, from the root */
    uint64_t entry[MAX_LEVELS];
};

static uint64_t entry_read(struct cpu *cpu, uint64_t gpa, bool is_pae)
{
    struct soft_region *region = soft_region_find(cpu->system, gpa);
    if (cpu->trial) {
        uint64_t entry = 0;
        trial_look(cpu, region ? region->hva + (gpa - region->gpa) : NULL, &entry, is_pae ? 8 : 4);
        return entry;
    }
    if (!region)
        return cpu->system->callbacks.mmio_read(cpu->system->callbacks.opaque, gpa, is_pae ? 8 : 4);
    const void *hva = region->hva + (gpa - region->gpa);
    if (is_pae)
        return atomic_load_explicit((const _Atomic uint64_t *)hva, memory_order_relaxed);
    return atomic_load_explicit((const _Atomic uint32_t *)hva, memory_order_relaxed);
}

/* Whether the entry now has `bits`; false when it has changed. What can't be written keeps its
 * bits as they are. */
static bool entry_set(struct cpu *cpu, uint64_t gpa, bool is_pae, uint64_t old, uint64_t bits)
{
    struct soft_region *region = soft_region_find(cpu->system, gpa);
    if (!region || region->read_only || (old & bits) == bits)
        return true;
    uint8_t *hva = region->hva + (gpa - region->gpa);
    bool ok;
    if (cpu->trial) {
        trial_mark(cpu, hva, old | bits, ~old & bits, is_pae ? 8 : 4);
        return true;
    }
    if (is_pae) {
        ok = atomic_compare_exchange_strong((_Atomic uint64_t *)(void *)hva, &old, old | bits);
    } else {
        uint32_t old32 = (uint32_t)old;
        ok = atomic_compare_exchange_strong((_Atomic uint32_t *)(void *)hva, &old32,
                                            old32 | (uint32_t)bits);
    }
    if (ok)
        code_page_written(cpu, hva, is_pae ? 8 : 4);
    return ok;
}

static uint64_t physical_reserved(const struct cpu *cpu)
{
    return PTE_ADDRESS & ~((UINT64_C(1) << cpu->system->features.physical_bits) - 1);
}

/* Reads the entry for `level` (4 … 1) of the table at `table`. False: not present, or reserved bits
 * set, told in *error. */
static bool step(struct walk *walk, uint64_t table, unsigned index, uint64_t also_reserved,
                 uint32_t *error)
{
    uint64_t gpa = table + (uint64_t)index * (walk->is_pae ? 8 : 4);
    uint64_t entry = entry_read(walk->cpu, gpa, walk->is_pae);
    walk->gpa[walk->count] = gpa;
    walk->entry[walk->count++] = entry;
    *error = 0;
    if (!(entry & PTE_P))
        return false;
    *error = ERROR_P | ERROR_RSVD;
    return !(entry & (walk->reserved | also_reserved));
}

/* Follows the tables to the leaf; fills mapping->gpa and level. */
static bool walk_pae(struct walk *walk, struct mapping *mapping, uint32_t *error)
{
    struct cpu *cpu = walk->cpu;
    bool is_long = is_long_mode(cpu);
    uint64_t table = is_long ? cpu->cr3 & PTE_ADDRESS : cpu->cr3 & UINT64_C(0xffffffe0);
    for (unsigned level = is_long ? 4 : 3;; level--) {
        unsigned shift = 12 + 9 * (level - 1);
        unsigned index = walk->linear >> shift & (level == 3 && !is_long ? 3 : 511);
        uint64_t also = 0;
        if (level == 4)
            also = PTE_PS;
        if (level == 3 && !is_long)
            also = UINT64_C(0x1e6) | PTE_NX | UINT64_C(0x7ff0000000000000);
        if (!step(walk, table, index, also, error))
            return false;
        uint64_t entry = walk->entry[walk->count - 1];
        bool is_large = level > 1 && level < 4 && (entry & PTE_PS) && !(level == 3 && !is_long);
        if (level == 1 || is_large) {
            uint64_t span = (UINT64_C(1) << shift) - 1;
            if (is_large && (entry & span & PTE_ADDRESS & ~PTE_PAT_LARGE))
                return false; /* *error says reserved */
            mapping->level = (uint8_t)level;
            mapping->gpa = ((entry & PTE_ADDRESS & ~span) | (walk->linear & span)) & PAGE_MASK;
            return true;
        }
        table = entry & PTE_ADDRESS;
    }
}

static bool walk_32bit(struct walk *walk, struct mapping *mapping, uint32_t *error)
{
    struct cpu *cpu = walk->cpu;
    if (!step(walk, cpu->cr3 & UINT64_C(0xfffff000), walk->linear >> 22 & 0x3ff, 0, error))
        return false;
    uint64_t entry = walk->entry[0];
    if ((entry & PTE_PS) && (cpu->cr4 & CR4_PSE)) {
        /* PSE-36: bits 20:13 are address bits 39:32; bit 21 is reserved. */
        if (entry & UINT64_C(0x200000))
            return false;
        mapping->level = 2;
        mapping->gpa = (entry & UINT64_C(0xffc00000)) | (entry & UINT64_C(0x1fe000)) << 19 |
                       (walk->linear & UINT64_C(0x3ff000));
        return true;
    }
    if (!step(walk, entry & UINT64_C(0xfffff000), walk->linear >> 12 & 0x3ff, 0, error))
        return false;
    mapping->level = 1;
    mapping->gpa = walk->entry[1] & UINT64_C(0xfffff000);
    return true;
}

/* Permissions along the walk, as `view` may use them. */
static void combine(const struct walk *walk, enum tlb_view view, struct mapping *mapping)
{
    const struct cpu *cpu = walk->cpu;
    bool is_legacy_pae = walk->is_pae && !is_long_mode(cpu);
    uint64_t all = PTE_U | PTE_W;
    uint64_t any = 0;
    for (unsigned i = is_legacy_pae ? 1 : 0; i < walk->count; i++) {
        all &= walk->entry[i];
        any |= walk->entry[i];
    }
    uint64_t leaf = walk->entry[walk->count - 1];
    mapping->user = all & PTE_U;
    mapping->writable = (all & PTE_W) || (view != TLB_USER && !(cpu->cr0 & CR0_WP));
    mapping->executable = !(walk->is_pae && (any & PTE_NX));
    if (view != TLB_USER && mapping->user && (cpu->cr4 & CR4_SMEP))
        mapping->executable = false;
    mapping->dirty = leaf & PTE_D;
    mapping->global = (leaf & PTE_G) && (cpu->cr4 & CR4_PGE);
}

static bool is_allowed(const struct mapping *mapping, enum memory_access access, enum tlb_view view)
{
    if (view == TLB_USER && !mapping->user)
        return false;
    if (access == ACCESS_EXECUTE)
        return mapping->executable;
    if (view == TLB_SUPERVISOR_SMAP && mapping->user)
        return false;
    return access == ACCESS_READ || mapping->writable;
}

static bool set_bits(struct walk *walk, bool is_write)
{
    bool is_legacy_pae = walk->is_pae && !is_long_mode(walk->cpu);
    for (unsigned i = is_legacy_pae ? 1 : 0; i < walk->count; i++) {
        bool is_leaf = i == walk->count - 1;
        uint64_t bits = PTE_A | (is_leaf && is_write ? PTE_D : 0);
        if (!entry_set(walk->cpu, walk->gpa[i], walk->is_pae, walk->entry[i], bits))
            return false;
    }
    return true;
}

static uint32_t access_error(const struct cpu *cpu, enum memory_access access, enum tlb_view view)
{
    uint32_t error = view == TLB_USER ? ERROR_U : 0;
    if (access == ACCESS_WRITE)
        error |= ERROR_W;
    bool has_nx = (cpu->cr4 & CR4_PAE) && (cpu->efer & EFER_NXE);
    if (access == ACCESS_EXECUTE && (has_nx || (cpu->cr4 & CR4_SMEP)))
        error |= ERROR_I;
    return error;
}

bool paging_walk(struct cpu *cpu, uint64_t linear, enum memory_access access, enum tlb_view view,
                 struct mapping *mapping, uint32_t *error_code)
{
    if (!(cpu->cr0 & CR0_PG)) {
        *mapping = (struct mapping){linear & PAGE_MASK, false, true, true, true, false, 1};
        return true;
    }
    cpu->stats.page_walks++;
    for (;;) {
        struct walk walk = {.cpu = cpu, .linear = linear, .is_pae = cpu->cr4 & CR4_PAE};
        if (walk.is_pae)
            walk.reserved = physical_reserved(cpu) | (cpu->efer & EFER_NXE ? 0 : PTE_NX);
        uint32_t error;
        bool found =
            walk.is_pae ? walk_pae(&walk, mapping, &error) : walk_32bit(&walk, mapping, &error);
        *error_code = error | access_error(cpu, access, view);
        if (!found)
            return false;
        combine(&walk, view, mapping);
        if (!is_allowed(mapping, access, view)) {
            *error_code = ERROR_P | access_error(cpu, access, view);
            return false;
        }
        if (!set_bits(&walk, access == ACCESS_WRITE))
            continue;
        mapping->dirty |= access == ACCESS_WRITE;
        return true;
    }
}

bool paging_check_pdptes(struct cpu *cpu, uint64_t cr3)
{
    uint64_t reserved = UINT64_C(0x1e6) | UINT64_C(0xfff0000000000000) | physical_reserved(cpu);
    for (unsigned i = 0; i < 4; i++) {
        uint64_t entry = entry_read(cpu, (cr3 & UINT64_C(0xffffffe0)) + i * 8, true);
        if ((entry & PTE_P) && (entry & reserved))
            return false;
    }
    return true;
}
