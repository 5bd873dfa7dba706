/* SPDX-License-Identifier: BSD-2-Clause
 * See translate.h. */
#include "cpu/translate.h"

#define PTE_P       UINT64_C(0x1)
#define PTE_PS      UINT64_C(0x80)
#define PTE_ADDRESS UINT64_C(0x000ffffffffff000)

#define CR0_PG   (UINT64_C(1) << 31)
#define CR4_PSE  (UINT64_C(1) << 4)
#define CR4_PAE  (UINT64_C(1) << 5)
#define CR4_LA57 (UINT64_C(1) << 12)
#define EFER_LMA (UINT64_C(1) << 10)

static uint64_t low_bits(unsigned count)
{
    return (UINT64_C(1) << count) - 1;
}

/* Entries of 8 bytes: 4-level, 5-level and PAE paging. */
static bool walk_wide(const struct x86_state *state, const struct ram *ram, uint64_t linear,
                      uint64_t *gpa)
{
    bool is_long = state->efer & EFER_LMA;
    unsigned level = !is_long ? 3 : state->cr4 & CR4_LA57 ? 5 : 4;
    uint64_t table = state->cr3 & (is_long ? PTE_ADDRESS : UINT64_C(0xffffffe0));
    for (;; level--) {
        unsigned shift = 12 + 9 * (level - 1);
        uint64_t index = linear >> shift & (level == 3 && !is_long ? 3 : 511);
        uint64_t entry;
        if (level == 3 && state->has_pdptes)
            entry = state->pdpte[index];
        else if (!ram_read(ram, table + index * 8, &entry, 8))
            return false;
        if (!(entry & PTE_P))
            return false;
        bool may_be_large = level == 2 || (level == 3 && is_long);
        if (level == 1 || (may_be_large && (entry & PTE_PS))) {
            *gpa = (entry & PTE_ADDRESS & ~low_bits(shift)) | (linear & low_bits(shift));
            return true;
        }
        table = entry & PTE_ADDRESS;
    }
}

/* Entries of 4 bytes; PSE-36: bits 20:13 of a large one are address bits 39:32. */
static bool walk_32bit(const struct x86_state *state, const struct ram *ram, uint64_t linear,
                       uint64_t *gpa)
{
    uint32_t entry;
    uint64_t table = state->cr3 & UINT64_C(0xfffff000);
    if (!ram_read(ram, table + (linear >> 22 & 0x3ff) * 4, &entry, 4) || !(entry & PTE_P))
        return false;
    if ((entry & PTE_PS) && (state->cr4 & CR4_PSE)) {
        *gpa = (entry & 0xffc00000) | (uint64_t)(entry & 0x1fe000) << 19 | (linear & 0x3fffff);
        return true;
    }
    table = entry & UINT64_C(0xfffff000);
    if (!ram_read(ram, table + (linear >> 12 & 0x3ff) * 4, &entry, 4) || !(entry & PTE_P))
        return false;
    *gpa = (entry & UINT64_C(0xfffff000)) | (linear & 0xfff);
    return true;
}

static bool is_canonical(const struct x86_state *state, uint64_t linear)
{
    unsigned unused = state->cr4 & CR4_LA57 ? 7 : 16;
    return (uint64_t)((int64_t)(linear << unused) >> unused) == linear;
}

bool x86_translate(const struct x86_state *state, const struct ram *ram, uint64_t linear,
                   uint64_t *gpa)
{
    if (state->efer & EFER_LMA) {
        if (!is_canonical(state, linear))
            return false;
    } else {
        if (linear > UINT32_MAX)
            return false;
    }
    if (!(state->cr0 & CR0_PG)) {
        *gpa = linear;
        return true;
    }
    return state->cr4 & CR4_PAE ? walk_wide(state, ram, linear, gpa)
                                : walk_32bit(state, ram, linear, gpa);
}
