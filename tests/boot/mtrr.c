/* SPDX-License-Identifier: BSD-2-Clause
 * Memory types as a kernel reads them out of the MTRRs that direct boot fills: SDM 3A 11.11.4. */
#include "machine/mtrr.h"

#include "bus/ram.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { UNCACHED = 0, WRITE_PROTECTED = 5, WRITE_BACK = 6 };

static unsigned fixed_type(const struct x86_state *state, uint64_t gpa)
{
    if (gpa < 0x80000)
        return state->mtrr_fixed[0] >> (gpa >> 16) * 8 & 0xff;
    if (gpa < 0xc0000)
        return state->mtrr_fixed[1 + ((gpa - 0x80000) >> 17)] >> (gpa >> 14 & 7) * 8 & 0xff;
    return state->mtrr_fixed[3 + ((gpa - 0xc0000) >> 15)] >> (gpa >> 12 & 7) * 8 & 0xff;
}

static unsigned type_of(const struct x86_state *state, uint64_t gpa)
{
    if (gpa < 0x100000)
        return fixed_type(state, gpa);
    for (unsigned n = 0; n < 8; n++) {
        uint64_t mask = state->mtrr_mask[n] & ~UINT64_C(0xfff);
        bool is_valid = state->mtrr_mask[n] >> 11 & 1;
        if (is_valid && (gpa & mask) == (state->mtrr_base[n] & mask))
            return state->mtrr_base[n] & 0xff;
    }
    return state->mtrr_def_type & 0xff;
}

static void types(void **test)
{
    static const struct {
        uint64_t gpa;
        unsigned type;
    } cases[] = {
        {0, WRITE_BACK},
        {0x9ffff, WRITE_BACK},
        {0xa0000, UNCACHED},
        {0xbffff, UNCACHED},
        {0xc0000, WRITE_PROTECTED},
        {0xfffff, WRITE_PROTECTED},
        {0x100000, WRITE_BACK},
        {RAM_LOW_MAX_BYTES - 1, WRITE_BACK},
        {RAM_LOW_MAX_BYTES, UNCACHED},
        {0xc0000000, UNCACHED},
        {0xfee00000, UNCACHED},
        {0xffffffff, UNCACHED},
        {RAM_HIGH_BASE, WRITE_BACK},
        {UINT64_C(0x1b0000000), WRITE_BACK},
        {UINT64_C(0xfc0000000), WRITE_BACK},
    };
    static const unsigned widths[] = {36, 40, 46};
    for (unsigned w = 0; w < sizeof(widths) / sizeof(*widths); w++) {
        struct x86_state state;
        x86_state_reset(&state, true);
        mtrr_fill(&state, widths[w]);
        assert_int_equal(state.mtrr_def_type & ~UINT64_C(0xff), 0xc00); /* both kinds are enabled */
        for (unsigned n = 0; n < 8; n++) {
            assert_false(state.mtrr_base[n] >> widths[w]);
            assert_false(state.mtrr_mask[n] >> widths[w]);
        }
        for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++)
            assert_int_equal(type_of(&state, cases[i].gpa), cases[i].type);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(types)};
    return cmocka_run_group_tests_name("mtrr", tests, NULL, NULL);
}
