/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Walking the guest's page tables: 4-level, PAE and 32-bit paging, SDM 3A 4.3 to 4.7. Accessed and
 * dirty bits are set by compare-exchange on guest memory, after all checks; a walk that meets a
 * changed entry begins anew. Left out: 5-level paging. Runs on the cpu's thread.
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

enum { ERROR_P = 1, ERROR_W = 2, ERROR_U = 4, ERROR_RSVD = 8, ERROR_I = 16, ERROR_PK = 32 };
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
    struct soft_region region;
    bool is_memory = soft_region_find(cpu->system, gpa, &region);
    const void *hva = is_memory ? region.hva + (gpa - region.gpa) : NULL;
    if (cpu->trial) {
        uint64_t entry = 0;
        trial_look(cpu, hva, &entry, is_pae ? 8 : 4);
        return entry;
    }
    if (!is_memory)
        return cpu->system->callbacks.mmio_read(cpu->system->callbacks.opaque, gpa, is_pae ? 8 : 4);
    if (is_pae)
        return atomic_load_explicit((const _Atomic uint64_t *)hva, memory_order_relaxed);
    return atomic_load_explicit((const _Atomic uint32_t *)hva, memory_order_relaxed);
}

/* Whether the entry now has `bits`; false when it has changed. What can't be written keeps its
 * bits as they are. */
static bool entry_set(struct cpu *cpu, uint64_t gpa, bool is_pae, uint64_t old, uint64_t bits)
{
    struct soft_region region;
    if ((old & bits) == bits || !soft_region_find(cpu->system, gpa, &region) || region.read_only)
        return true;
    uint8_t *hva = region.hva + (gpa - region.gpa);
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

/* Entries of PAE paging have none of the bits that 4-level paging ignores or keeps keys in. */
static uint64_t entry_reserved(const struct cpu *cpu)
{
    const uint64_t above_52 = UINT64_C(0x7ff0000000000000);
    return physical_reserved(cpu) | (cpu->efer & EFER_NXE ? 0 : PTE_NX) |
           (is_long_mode(cpu) ? 0 : above_52);
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

/* Follows the tables to the leaf; fills mapping->gpa and level. The PDPTEs of PAE paging are
 * registers: they have no rights, no accessed bits, and were checked when they were loaded. */
static bool walk_pae(struct walk *walk, struct mapping *mapping, uint32_t *error)
{
    struct cpu *cpu = walk->cpu;
    bool is_long = is_long_mode(cpu);
    uint64_t root = is_long ? cpu->cr3 : cpu->pdpte[walk->linear >> 30 & 3];
    uint64_t table = root & PTE_ADDRESS;
    *error = 0;
    if (!is_long && !(root & PTE_P))
        return false;
    for (unsigned level = is_long ? 4 : 2;; level--) {
        unsigned shift = 12 + 9 * (level - 1);
        unsigned index = walk->linear >> shift & 511;
        if (!step(walk, table, index, level == 4 ? PTE_PS : 0, error))
            return false;
        uint64_t entry = walk->entry[walk->count - 1];
        bool is_large = level > 1 && level < 4 && (entry & PTE_PS);
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
    uint64_t reserved = physical_reserved(cpu);
    if (!step(walk, cpu->cr3 & UINT64_C(0xfffff000), walk->linear >> 22 & 0x3ff, 0, error))
        return false;
    uint64_t entry = walk->entry[0];
    if ((entry & PTE_PS) && (cpu->cr4 & CR4_PSE)) {
        /* PSE-36 (SDM 3A table 4-4): bits 20:13 are address bits 39:32, those past MAXPHYADDR and
         * bit 21 are reserved. */
        if ((entry & UINT64_C(0x200000)) || ((entry & UINT64_C(0x1fe000)) << 19 & reserved))
            return false; /* *error says so */
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

/* SDM 3A 4.6.2: of pages that are the user's, whoever accesses them. */
static void take_key(const struct cpu *cpu, uint64_t leaf, enum tlb_view view,
                     struct mapping *mapping)
{
    mapping->key = 0;
    mapping->key_denies_read = mapping->key_denies_write = false;
    if (!mapping->user || !(cpu->cr4 & CR4_PKE) || !is_long_mode(cpu))
        return;
    mapping->key = leaf >> 59 & 15;
    unsigned rights = cpu->pkru >> 2 * mapping->key & 3;
    bool obeys_write = view == TLB_USER || (cpu->cr0 & CR0_WP);
    mapping->key_denies_read = rights & 1;
    mapping->key_denies_write = (rights & 1) || ((rights & 2) && obeys_write);
}

/* Permissions along the walk, as `view` may use them. */
static void combine(const struct walk *walk, enum tlb_view view, struct mapping *mapping)
{
    const struct cpu *cpu = walk->cpu;
    uint64_t all = PTE_U | PTE_W;
    uint64_t any = 0;
    for (unsigned i = 0; i < walk->count; i++) {
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
    take_key(cpu, leaf, view, mapping);
}

static bool is_denied_by_key(const struct mapping *mapping, enum memory_access access)
{
    return (access == ACCESS_READ && mapping->key_denies_read) ||
           (access == ACCESS_WRITE && mapping->key_denies_write);
}

static bool is_allowed(const struct mapping *mapping, enum memory_access access, enum tlb_view view)
{
    if (view == TLB_USER && !mapping->user)
        return false;
    if (access == ACCESS_EXECUTE)
        return mapping->executable;
    if ((view == TLB_SUPERVISOR_SMAP && mapping->user) || is_denied_by_key(mapping, access))
        return false;
    return access == ACCESS_READ || mapping->writable;
}

static bool set_accessed(struct walk *walk, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (!entry_set(walk->cpu, walk->gpa[i], walk->is_pae, walk->entry[i], PTE_A))
            return false;
    return true;
}

/* Entries that led to the next table were used, also when the last one denies the access: their
 * accessed bits are set (SDM 3A 4.8). */
static bool set_bits(struct walk *walk, bool is_allowed, bool is_write)
{
    unsigned leaf = walk->count - 1;
    if (!set_accessed(walk, leaf))
        return false;
    uint64_t bits = PTE_A | (is_write ? PTE_D : 0);
    return !is_allowed ||
           entry_set(walk->cpu, walk->gpa[leaf], walk->is_pae, walk->entry[leaf], bits);
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

/* One walk. False: an entry has changed meanwhile. */
static bool try_walk(struct walk *walk, enum memory_access access, enum tlb_view view,
                     struct mapping *mapping, bool *is_good, uint32_t *error_code)
{
    const struct cpu *cpu = walk->cpu;
    uint32_t error = 0;
    *is_good = walk->is_pae ? walk_pae(walk, mapping, &error) : walk_32bit(walk, mapping, &error);
    if (*is_good) {
        combine(walk, view, mapping);
        *is_good = is_allowed(mapping, access, view);
        error = ERROR_P | (is_denied_by_key(mapping, access) ? ERROR_PK : 0);
    }
    *error_code = error | access_error(cpu, access, view);
    return walk->count == 0 || set_bits(walk, *is_good, access == ACCESS_WRITE);
}

bool paging_walk(struct cpu *cpu, uint64_t linear, enum memory_access access, enum tlb_view view,
                 struct mapping *mapping, uint32_t *error_code)
{
    bool is_good;
    *mapping = (struct mapping){0};
    if (!(cpu->cr0 & CR0_PG)) {
        mapping->gpa = linear & PAGE_MASK;
        mapping->writable = mapping->executable = mapping->dirty = true;
        mapping->level = 1;
        return true;
    }
    cpu->stats.page_walks++;
    for (;;) {
        struct walk walk = {.cpu = cpu, .linear = linear, .is_pae = cpu->cr4 & CR4_PAE};
        if (walk.is_pae)
            walk.reserved = entry_reserved(cpu);
        if (try_walk(&walk, access, view, mapping, &is_good, error_code))
            break;
    }
    mapping->dirty |= access == ACCESS_WRITE;
    return is_good;
}

bool paging_are_pdptes_good(const struct cpu *cpu, const uint64_t entry[4])
{
    uint64_t reserved = UINT64_C(0x1e6) | UINT64_C(0xfff0000000000000) | physical_reserved(cpu);
    for (unsigned i = 0; i < 4; i++)
        if ((entry[i] & PTE_P) && (entry[i] & reserved))
            return false;
    return true;
}

bool paging_load_pdptes(struct cpu *cpu, uint64_t cr3)
{
    uint64_t entry[4];
    for (unsigned i = 0; i < 4; i++)
        entry[i] = entry_read(cpu, (cr3 & UINT64_C(0xffffffe0)) + i * 8, true);
    if (!paging_are_pdptes_good(cpu, entry))
        return false;
    memcpy(cpu->pdpte, entry, sizeof(entry));
    return true;
}
