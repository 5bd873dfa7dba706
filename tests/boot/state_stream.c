/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A processor's state in a saved machine: what is saved is loaded, in each version of its section;
 * what no processor can have is refused.
 */
#include "machine/state_stream.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { PDPTES_BYTES = 1 + 4 * 8 };
static const uint64_t cr0_pg_pe = UINT64_C(0x80000001), cr4_pae = 0x20;

/* Each field that could be mixed up with another has a value of its own. */
static void fill(struct x86_state *state)
{
    x86_state_reset(state, true);
    for (unsigned i = 0; i < 16; i++)
        state->gpr[i] = UINT64_C(0x1111111111111111) * i;
    state->rip = 0x1234;
    state->cr0 = cr0_pg_pe;
    state->cr3 = 0x5000;
    state->cr4 = cr4_pae;
    state->has_pdptes = true;
    for (unsigned i = 0; i < 4; i++)
        state->pdpte[i] = 0x100001 + 0x1000 * i;
    state->run_state = X86_HALTED;
    state->xsave[X86_XSAVE_BYTES - 1] = 0x99;
}

static void test_all_comes_back(void **test)
{
    struct x86_state in, out;
    struct save save = {0};
    struct load load;
    fill(&in);
    state_save(&in, &save);
    load_init(&load, save.bytes, save.size_bytes);
    assert_true(state_load(&out, &load));
    assert_int_equal(load.offset, save.size_bytes);
    assert_memory_equal(out.gpr, in.gpr, sizeof(in.gpr));
    assert_memory_equal(out.pdpte, in.pdpte, sizeof(in.pdpte));
    assert_memory_equal(out.xsave, in.xsave, sizeof(in.xsave));
    assert_true(out.has_pdptes);
    assert_int_equal(out.run_state, X86_HALTED);
    /* And saved again it is the same, byte by byte. */
    struct save again = {0};
    state_save(&out, &again);
    assert_int_equal(again.size_bytes, save.size_bytes);
    assert_memory_equal(again.bytes, save.bytes, save.size_bytes);
    save_free(&again);
    save_free(&save);
}

/* The section's contents of `save`, as another version that lacks the last `less_bytes`. */
static void as_version(const struct save *save, uint32_t version, size_t less_bytes,
                       struct save *out)
{
    struct load load;
    uint32_t own;
    load_init(&load, save->bytes, save->size_bytes);
    assert_true(load_begin(&load, "x86", &own));
    assert_int_equal(own, 4);
    save_begin(out, "x86", version);
    save_bytes(out, save->bytes + load.offset, load.section_end - load.offset - less_bytes);
    save_end(out);
}

static void test_versions(void **test)
{
    struct x86_state in, out;
    struct save save = {0}, old = {0}, newer = {0};
    struct load load;
    fill(&in);
    state_save(&in, &save);
    as_version(&save, 3, PDPTES_BYTES, &old);
    load_init(&load, old.bytes, old.size_bytes);
    assert_true(state_load(&out, &load));
    assert_int_equal(out.rip, in.rip);
    assert_memory_equal(out.xsave, in.xsave, sizeof(in.xsave));
    assert_false(out.has_pdptes);
    as_version(&save, 5, 0, &newer);
    load_init(&load, newer.bytes, newer.size_bytes);
    assert_false(state_load(&out, &load));
    save_free(&newer);
    save_free(&old);
    save_free(&save);
}

static void test_refused(void **test)
{
    struct x86_state in, out;
    struct save save = {0};
    struct load load;
    fill(&in);
    in.efer = 1 << 10; /* long mode has no PDPTEs in registers */
    state_save(&in, &save);
    load_init(&load, save.bytes, save.size_bytes);
    assert_false(state_load(&out, &load));
    for (size_t size_bytes = 0; size_bytes < save.size_bytes; size_bytes += 7) {
        load_init(&load, save.bytes, size_bytes);
        assert_false(state_load(&out, &load));
    }
    save_free(&save);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_comes_back),
        cmocka_unit_test(test_versions),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
