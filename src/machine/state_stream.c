/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A processor's state in the save/load stream: one walk over all fields serves both ways, so that
 * they can't differ.
 */
#include "machine/state_stream.h"

#include <string.h>

/* Version 4 has the PDPTEs of PAE paging at its end. */
enum { FIRST_VERSION = 3, STATE_VERSION = 4 };

/* Saves, or loads when `save` is NULL. */
struct walk {
    struct save *save;
    struct load *load;
    uint32_t version;
};

static void walk_u8(struct walk *walk, uint8_t *value)
{
    if (walk->save)
        save_u8(walk->save, *value);
    else
        *value = load_u8(walk->load);
}

static void walk_u16(struct walk *walk, uint16_t *value)
{
    if (walk->save)
        save_u16(walk->save, *value);
    else
        *value = load_u16(walk->load);
}

static void walk_u32(struct walk *walk, uint32_t *value)
{
    if (walk->save)
        save_u32(walk->save, *value);
    else
        *value = load_u32(walk->load);
}

static void walk_u64(struct walk *walk, uint64_t *value)
{
    if (walk->save)
        save_u64(walk->save, *value);
    else
        *value = load_u64(walk->load);
}

static void walk_u64s(struct walk *walk, uint64_t *values, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        walk_u64(walk, &values[i]);
}

static void walk_bool(struct walk *walk, bool *value)
{
    if (walk->save)
        save_bool(walk->save, *value);
    else
        *value = load_bool(walk->load);
}

static void walk_table(struct walk *walk, struct x86_table *table)
{
    walk_u64(walk, &table->base);
    walk_u16(walk, &table->limit);
}

static void walk_segments(struct walk *walk, struct x86_state *state)
{
    for (unsigned i = 0; i < SEG_COUNT; i++) {
        walk_u64(walk, &state->segment[i].base);
        walk_u32(walk, &state->segment[i].limit);
        walk_u32(walk, &state->segment[i].attributes);
        walk_u16(walk, &state->segment[i].selector);
    }
    walk_table(walk, &state->gdtr);
    walk_table(walk, &state->idtr);
}

static void walk_msrs(struct walk *walk, struct x86_state *state)
{
    uint64_t *const msrs[] = {
        &state->efer,
        &state->star,
        &state->lstar,
        &state->cstar,
        &state->sfmask,
        &state->kernel_gs_base,
        &state->sysenter_cs,
        &state->sysenter_esp,
        &state->sysenter_eip,
        &state->pat,
        &state->tsc,
        &state->tsc_adjust,
        &state->tsc_aux,
        &state->tsc_deadline,
        &state->apic_base,
        &state->misc_enable,
        &state->spec_ctrl,
        &state->mtrr_def_type,
        &state->kvm_system_time,
        &state->kvm_wall_clock,
        &state->kvm_eoi,
        &state->debugctl,
        &state->mcg_status,
    };
    for (unsigned i = 0; i < sizeof(msrs) / sizeof(*msrs); i++)
        walk_u64(walk, msrs[i]);
    walk_u64s(walk, state->mtrr_fixed, 11);
    walk_u64s(walk, state->mtrr_base, 8);
    walk_u64s(walk, state->mtrr_mask, 8);
    for (unsigned i = 0; i < X86_MC_BANKS; i++)
        walk_u64s(walk, state->mc_bank[i], 4);
    walk_u32(walk, &state->pkru);
}

static void walk_pending(struct walk *walk, struct x86_state *state)
{
    uint8_t run_state = (uint8_t)state->run_state;
    walk_u8(walk, &run_state);
    if (walk->load && run_state > X86_WAIT_FOR_SIPI)
        load_fail(walk->load);
    else
        state->run_state = (enum x86_run_state)run_state;
    walk_bool(walk, &state->pending.exception);
    walk_bool(walk, &state->pending.has_error_code);
    walk_u8(walk, &state->pending.vector);
    walk_u32(walk, &state->pending.error_code);
    walk_bool(walk, &state->pending.nmi);
    walk_bool(walk, &state->pending.nmi_again);
    walk_bool(walk, &state->pending.nmi_blocked);
    walk_bool(walk, &state->pending.sti_shadow);
    walk_bool(walk, &state->pending.mov_ss_shadow);
    walk_u32(walk, &state->pending.debug);
    walk_bool(walk, &state->pending.init);
    walk_bool(walk, &state->pending.sipi);
    walk_u8(walk, &state->pending.sipi_vector);
}

static void walk_state(struct walk *walk, struct x86_state *state)
{
    uint64_t *const controls[] = {&state->rip, &state->rflags, &state->cr0, &state->cr2,
                                  &state->cr3, &state->cr4,    &state->cr8, &state->xcr0};
    walk_u64s(walk, state->gpr, 16);
    for (unsigned i = 0; i < sizeof(controls) / sizeof(*controls); i++)
        walk_u64(walk, controls[i]);
    walk_u64s(walk, state->dr, 8);
    walk_segments(walk, state);
    walk_msrs(walk, state);
    walk_pending(walk, state);
    if (walk->save)
        save_bytes(walk->save, state->xsave, sizeof(state->xsave));
    else
        load_bytes(walk->load, state->xsave, sizeof(state->xsave));
    if (walk->version == FIRST_VERSION)
        return;
    walk_bool(walk, &state->has_pdptes);
    walk_u64s(walk, state->pdpte, 4);
    if (walk->load && state->has_pdptes && !x86_state_has_pae_paging(state))
        load_fail(walk->load);
}

void state_save(const struct x86_state *state, struct save *save)
{
    struct walk walk = {.save = save, .version = STATE_VERSION};
    struct x86_state copy = *state;
    save_begin(save, "x86", STATE_VERSION);
    walk_state(&walk, &copy);
    save_end(save);
}

bool state_load(struct x86_state *state, struct load *load)
{
    struct walk walk = {.load = load};
    memset(state, 0, sizeof(*state));
    if (!load_begin(load, "x86", &walk.version) || walk.version < FIRST_VERSION ||
        walk.version > STATE_VERSION)
        return false;
    walk_state(&walk, state);
    return load_end(load);
}
