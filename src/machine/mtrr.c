/* SPDX-License-Identifier: BSD-2-Clause
 * See mtrr.h; SDM 3A 11.11.2. */
#include "machine/mtrr.h"

#include "bus/ram.h"

#include <assert.h>

enum { TYPE_UNCACHED = 0, TYPE_WRITE_PROTECTED = 5, TYPE_WRITE_BACK = 6 };
enum { DEF_TYPE_FIXED = 1 << 10, DEF_TYPE_ENABLED = 1 << 11, MASK_VALID = 1 << 11 };

/* The same type in the eight ranges of a fixed register. */
static uint64_t eight_of(uint64_t type)
{
    return type * UINT64_C(0x0101010101010101);
}

void mtrr_fill(struct x86_state *state, unsigned physical_bits)
{
    enum { FIXED_A0000 = 2, FIXED_C0000 = 3, FIXED_COUNT = 11, VARIABLE_COUNT = 8 };
    assert(physical_bits >= 32 && physical_bits < 64);
    const uint64_t addresses = (UINT64_C(1) << physical_bits) - 1;
    for (unsigned i = 0; i < FIXED_COUNT; i++)
        state->mtrr_fixed[i] = eight_of(i >= FIXED_C0000 ? TYPE_WRITE_PROTECTED : TYPE_WRITE_BACK);
    state->mtrr_fixed[FIXED_A0000] = eight_of(TYPE_UNCACHED);
    /* Each range is as large as its base is aligned. */
    uint64_t base = RAM_LOW_MAX_BYTES;
    for (unsigned n = 0; base < RAM_HIGH_BASE; n++) {
        uint64_t size_bytes = base & -base;
        assert(n < VARIABLE_COUNT);
        state->mtrr_base[n] = base | TYPE_UNCACHED;
        state->mtrr_mask[n] = (addresses & ~(size_bytes - 1)) | MASK_VALID;
        base += size_bytes;
    }
    state->mtrr_def_type = DEF_TYPE_ENABLED | DEF_TYPE_FIXED | TYPE_WRITE_BACK;
}
