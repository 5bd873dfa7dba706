/* SPDX-License-Identifier: BSD-2-Clause
 * One processor: making it, RESET and INIT (SDM 3A 9.1), its state in and out, RFLAGS, mode. */
#include "cpu/soft/core.h"

#include "cpu/soft/block.h"
#include "cpu/soft/debug.h"
#include "cpu/soft/debugger.h"
#include "cpu/soft/tlb.h"
#include "cpu/soft/translator/translator.h"
#include "cpu/soft/vector/vector.h"

#include <errno.h>
#include <stdlib.h>

struct cpu *cpu_create(struct soft_system *system, unsigned index, struct error *err)
{
    struct cpu *cpu = aligned_alloc(64, (sizeof(*cpu) + 63) & ~(size_t)63);
    if (!cpu) {
        error_errno(err, "cannot make a processor", NULL, ENOMEM);
        return NULL;
    }
    memset(cpu, 0, sizeof(*cpu));
    cpu->system = system;
    cpu->index = index;
    cpu->delivering = DELIVERING_NONE;
    if (!tlb_open(cpu)) {
        error_errno(err, "cannot make a processor", NULL, ENOMEM);
        goto fail;
    }
    if (!block_cache_open(cpu, err) || !vector_open(cpu, err) || !translator_open(cpu, err))
        goto fail;
    cpu_reset(cpu);
    system->cpu[index] = cpu;
    if (system->cpu_count <= index)
        system->cpu_count = index + 1;
    return cpu;
fail:
    vector_close(cpu);
    block_cache_close(cpu);
    tlb_close(cpu);
    free(cpu);
    return NULL;
}

void cpu_destroy(struct cpu *cpu)
{
    if (!cpu)
        return;
    cpu->system->cpu[cpu->index] = NULL;
    debugger_close(cpu);
    translator_close(cpu);
    vector_close(cpu);
    block_cache_close(cpu);
    tlb_close(cpu);
    free(cpu);
}

/* --- RFLAGS and mode ------------------------------------------------------------------------ */

uint64_t cpu_rip(const struct cpu *cpu)
{
    return cpu->op ? cpu->gpr[GPR_BLOCK_RIP] + (uint64_t)cpu->op->offset : cpu->rip;
}

uint64_t cpu_get_rflags(const struct cpu *cpu)
{
    uint64_t low = cpu->cc >> 8 & RFLAGS_ARITHMETIC;
    return cpu->rflags | low | (cpu->cc & CC_OF ? RFLAGS_OF : 0) | 2;
}

void cpu_set_rflags(struct cpu *cpu, uint64_t rflags)
{
    uint64_t low = rflags & RFLAGS_ARITHMETIC & 0xff;
    cpu->cc = (uint16_t)(low << 8 | (rflags & RFLAGS_OF ? CC_OF : 0));
    cpu->rflags = (rflags & ~(uint64_t)RFLAGS_ARITHMETIC) | 2;
}

void cpu_update_view(struct cpu *cpu)
{
    cpu->checks_alignment = (cpu->rflags & RFLAGS_AC) && cpu->cpl == 3 && (cpu->cr0 & CR0_AM);
    tlb_set_view(cpu, view_data(cpu));
}

void cpu_set_pkru(struct cpu *cpu, uint32_t pkru)
{
    uint32_t changed = cpu->pkru ^ pkru;
    cpu->pkru = pkru;
    if (changed && (cpu->cr4 & CR4_PKE))
        tlb_flush_keys(cpu, changed);
}

void cpu_repeat_later(struct cpu *cpu)
{
    cpu->rip = cpu_rip(cpu);
    debug_resume(cpu);
}

static bool is_flat(const struct cpu *cpu, enum x86_segment_name name)
{
    return cpu->segment[name].base == 0 && cpu->bounds[name].read_last == UINT32_MAX &&
           cpu->bounds[name].write_last == UINT32_MAX;
}

/* MODE_FLAT, or 0. */
static uint32_t flatness(const struct cpu *cpu, uint32_t mode)
{
    const struct x86_segment *cs = &cpu->segment[SEG_CS];
    bool is_code_flat = cs->base == 0 && cs->limit == UINT32_MAX;
    bool is_32bit =
        (mode & (MODE_SIZE_MASK | MODE_STACK32 | MODE_REAL)) == (MODE_32 | MODE_STACK32);
    return is_32bit && is_code_flat && is_flat(cpu, SEG_SS) && is_flat(cpu, SEG_DS) &&
                   is_flat(cpu, SEG_ES)
               ? MODE_FLAT
               : 0;
}

void cpu_update_segments(struct cpu *cpu)
{
    if (cpu_is_64bit(cpu))
        return;
    for (unsigned i = SEG_ES; i <= SEG_GS; i++)
        cpu->bounds[i] = segment_bounds_of(&cpu->segment[i], is_real_mode(cpu));
    uint32_t mode = (cpu->mode & ~(uint32_t)MODE_FLAT) | flatness(cpu, cpu->mode);
    if (mode == cpu->mode)
        return;
    cpu->mode = mode;
    tlb_update_jump_key(cpu);
}

/* The upper halves of registers are undefined after a change from 64-bit mode (SDM 1 3.4.1.1); here
 * they are zero outside of it, so that addresses are what registers hold. */
static void leave_64bit(struct cpu *cpu)
{
    for (unsigned i = RAX; i <= RDI; i++)
        cpu->gpr[i] = (uint32_t)cpu->gpr[i];
}

void cpu_update_mode(struct cpu *cpu)
{
    const struct x86_segment *cs = &cpu->segment[SEG_CS];
    uint32_t mode = cs->attributes & SEGMENT_DB ? MODE_32 : MODE_16;
    bool is_64bit = is_long_mode(cpu) && (cs->attributes & SEGMENT_L);
    if (is_64bit)
        mode = MODE_64;
    else if (cpu->segment[SEG_SS].attributes & SEGMENT_DB)
        mode |= MODE_STACK32;
    if (!(cpu->cr0 & CR0_PE) || (cpu->rflags & RFLAGS_VM))
        mode |= MODE_REAL;
    if (cpu->cpl == 3)
        mode |= MODE_USER;
    cpu->mode = mode;
    if (!is_64bit) {
        leave_64bit(cpu);
        cpu->is_32bit_known = true;
        cpu_update_segments(cpu);
    }
    cpu_update_view(cpu);
    if (!is_64bit && (cs->base != cpu->code_base || cs->limit != cpu->code_limit)) {
        cpu->code_base = cs->base;
        cpu->code_limit = cs->limit;
        tlb_new_epochs(cpu);
    }
    tlb_update_jump_key(cpu);
}

void cpu_jump(struct cpu *cpu, uint64_t rip, unsigned size_bytes)
{
    if (cpu_is_64bit(cpu)) {
        if (!is_canonical(rip))
            cpu_raise_code(cpu, VECTOR_GP, 0);
    } else {
        rip &= size_bytes == 2 ? UINT16_MAX : UINT32_MAX;
        if (rip > cpu->segment[SEG_CS].limit)
            cpu_raise_code(cpu, VECTOR_GP, 0);
    }
    cpu->rip = rip;
}

/* --- RESET and INIT ------------------------------------------------------------------------- */

/* What RESET and INIT have in common, from the state after RESET. */
static void take_common(struct cpu *cpu, const struct x86_state *state)
{
    memcpy(cpu->gpr, state->gpr, sizeof(state->gpr));
    cpu->gpr[GPR_ZERO] = 0;
    cpu->rip = state->rip;
    cpu_set_rflags(cpu, state->rflags);
    memcpy(cpu->segment, state->segment, sizeof(cpu->segment));
    cpu->gdtr = state->gdtr;
    cpu->idtr = state->idtr;
    cpu->cr2 = state->cr2;
    cpu->cr3 = state->cr3;
    cpu->cr4 = state->cr4;
    cpu->efer = state->efer;
    memcpy(cpu->dr, state->dr, sizeof(cpu->dr));
    cpu->run_state = state->run_state;
    cpu->pending = (struct x86_pending){0};
    cpu->cpl = 0;
    cpu->op = NULL;
    monitor_disarm(cpu);
    cpu->nmi_blocked = false;
    cpu->interrupt_shadow = cpu->mov_ss_shadow = false;
    cpu->steps_next = cpu->repeats_once = false;
    cpu->debug_hits = cpu->pending_debug = 0;
    cpu->debugctl = state->debugctl;
    cpu->triple_fault = false;
    cpu->delivering = DELIVERING_NONE;
    cpu->delivering_ext = false;
}

static bool has_pae_paging(const struct cpu *cpu)
{
    return (cpu->cr0 & CR0_PG) && (cpu->cr4 & CR4_PAE) && !is_long_mode(cpu);
}

static void settle(struct cpu *cpu)
{
    cpu->x87_ready = false;
    tlb_flush_all(cpu);
    tlb_switch(cpu, cpu->cr4 & CR4_PCIDE ? cpu->cr3 & 0xfff : 0, false);
    cpu_update_mode(cpu);
    debug_update(cpu);
    cpu_look(cpu);
}

void cpu_init(struct cpu *cpu)
{
    struct x86_state state;
    x86_state_reset(&state, cpu->index == 0);
    take_common(cpu, &state);
    cpu->cr0 = (cpu->cr0 & (CR0_CD | CR0_NW)) | CR0_ET;
    cpu_withdraw(cpu, REQUEST_NMI | REQUEST_NMI_AGAIN);
    settle(cpu);
}

/* --- NMI ------------------------------------------------------------------------------------ */

/* A processor remembers one NMI while it serves another (SDM 3A 6.7.1). One that comes before an
 * earlier one is delivered is not lost in it: so two may be pending while none is served. Both are
 * bits of one word, so that no thread sees half of a change. */
void cpu_post_nmi(struct cpu *cpu)
{
    uint32_t now = atomic_load(&cpu->requests), next;
    do
        next = now | (now & REQUEST_NMI ? REQUEST_NMI_AGAIN : REQUEST_NMI);
    while (!atomic_compare_exchange_weak(&cpu->requests, &now, next));
}

void cpu_take_nmi(struct cpu *cpu)
{
    uint32_t now = atomic_load(&cpu->requests), next;
    do
        next = now & ~(uint32_t)(now & REQUEST_NMI_AGAIN ? REQUEST_NMI_AGAIN : REQUEST_NMI);
    while (!atomic_compare_exchange_weak(&cpu->requests, &now, next));
    cpu->nmi_blocked = true;
}

void cpu_unblock_nmi(struct cpu *cpu)
{
    if (cpu->nmi_blocked)
        cpu_withdraw(cpu, REQUEST_NMI_AGAIN);
    cpu->nmi_blocked = false;
}

/* --- reset ---------------------------------------------------------------------------------- */

void cpu_reset(struct cpu *cpu)
{
    struct x86_state state;
    x86_state_reset(&state, cpu->index == 0);
    vector_reset(cpu);
    cpu_set_state(cpu, &state);
    cpu_withdraw(cpu, REQUEST_NMI | REQUEST_NMI_AGAIN | REQUEST_INIT | REQUEST_SIPI | REQUEST_KICK);
}

/* --- state in and out ----------------------------------------------------------------------- */

static void get_msrs(struct cpu *cpu, struct x86_state *state)
{
    state->star = cpu->star;
    state->lstar = cpu->lstar;
    state->cstar = cpu->cstar;
    state->sfmask = cpu->sfmask;
    state->kernel_gs_base = cpu->kernel_gs_base;
    state->sysenter_cs = cpu->sysenter_cs;
    state->sysenter_esp = cpu->sysenter_esp;
    state->sysenter_eip = cpu->sysenter_eip;
    state->pat = cpu->pat;
    state->tsc = tsc_guest(cpu);
    state->tsc_adjust = cpu->tsc_adjust;
    state->tsc_aux = cpu->tsc_aux;
    state->misc_enable = cpu->misc_enable;
    state->spec_ctrl = cpu->spec_ctrl;
    state->mtrr_def_type = cpu->mtrr_def_type;
    memcpy(state->mtrr_fixed, cpu->mtrr_fixed, sizeof(state->mtrr_fixed));
    memcpy(state->mtrr_base, cpu->mtrr_base, sizeof(state->mtrr_base));
    memcpy(state->mtrr_mask, cpu->mtrr_mask, sizeof(state->mtrr_mask));
    state->kvm_system_time = cpu->kvm_system_time;
    state->kvm_wall_clock = cpu->kvm_wall_clock;
    state->kvm_eoi = cpu->kvm_eoi;
    state->debugctl = cpu->debugctl;
    state->mcg_status = cpu->mcg_status;
    memcpy(state->mc_bank, cpu->mc_bank, sizeof(state->mc_bank));
    state->pkru = cpu->pkru;
}

void cpu_get_state(struct cpu *cpu, struct x86_state *state)
{
    memset(state, 0, sizeof(*state));
    memcpy(state->gpr, cpu->gpr, sizeof(state->gpr));
    state->rip = cpu->rip;
    state->rflags = cpu_get_rflags(cpu);
    memcpy(state->segment, cpu->segment, sizeof(state->segment));
    state->gdtr = cpu->gdtr;
    state->idtr = cpu->idtr;
    state->cr0 = cpu->cr0;
    state->cr2 = cpu->cr2;
    state->cr3 = cpu->cr3;
    state->cr4 = cpu->cr4;
    state->has_pdptes = has_pae_paging(cpu);
    if (state->has_pdptes)
        memcpy(state->pdpte, cpu->pdpte, sizeof(state->pdpte));
    state->efer = cpu->efer;
    state->xcr0 = cpu->xcr0;
    memcpy(state->dr, cpu->dr, sizeof(state->dr));
    get_msrs(cpu, state);
    vector_get_state(cpu, state);
    /* MWAIT may end at any time: whoever takes this state over goes on behind it. */
    state->run_state =
        cpu->is_in_mwait && cpu->run_state == X86_HALTED ? X86_RUNNING : cpu->run_state;
    state->pending = cpu->pending;
    unsigned requests = atomic_load(&cpu->requests);
    state->pending.nmi = requests & REQUEST_NMI;
    state->pending.nmi_again = requests & REQUEST_NMI_AGAIN;
    state->pending.init = requests & REQUEST_INIT;
    state->pending.sipi = requests & REQUEST_SIPI;
    state->pending.sipi_vector = atomic_load(&cpu->sipi_vector);
    state->pending.nmi_blocked = cpu->nmi_blocked;
    state->pending.sti_shadow = cpu->interrupt_shadow;
    state->pending.mov_ss_shadow = cpu->mov_ss_shadow;
    state->pending.debug = cpu->pending_debug | cpu->debug_hits;
}

static void set_msrs(struct cpu *cpu, const struct x86_state *state)
{
    cpu->star = state->star;
    cpu->lstar = state->lstar;
    cpu->cstar = state->cstar;
    cpu->sfmask = state->sfmask;
    cpu->kernel_gs_base = state->kernel_gs_base;
    cpu->sysenter_cs = state->sysenter_cs;
    cpu->sysenter_esp = state->sysenter_esp;
    cpu->sysenter_eip = state->sysenter_eip;
    cpu->pat = state->pat;
    tsc_set_state(cpu, state->tsc, state->tsc_adjust);
    cpu->tsc_aux = state->tsc_aux;
    cpu->misc_enable = state->misc_enable;
    cpu->spec_ctrl = state->spec_ctrl;
    cpu->mtrr_def_type = state->mtrr_def_type;
    memcpy(cpu->mtrr_fixed, state->mtrr_fixed, sizeof(cpu->mtrr_fixed));
    memcpy(cpu->mtrr_base, state->mtrr_base, sizeof(cpu->mtrr_base));
    memcpy(cpu->mtrr_mask, state->mtrr_mask, sizeof(cpu->mtrr_mask));
    cpu->kvm_system_time = state->kvm_system_time;
    cpu->kvm_wall_clock = state->kvm_wall_clock;
    cpu->kvm_eoi = state->kvm_eoi;
    cpu->mcg_status = state->mcg_status;
    memcpy(cpu->mc_bank, state->mc_bank, sizeof(cpu->mc_bank));
    cpu->pkru = state->pkru;
    kvmclock_update(cpu);
}

static bool is_state_possible(const struct cpu *cpu, const struct x86_state *state)
{
    bool is_paged = state->cr0 & CR0_PG;
    bool is_long = state->efer & EFER_LMA;
    bool is_paging_sound = !is_paged || (state->cr0 & CR0_PE);
    bool is_long_sound =
        is_long == (is_paged && (state->efer & EFER_LME)) && (!is_long || (state->cr4 & CR4_PAE));
    bool is_xcr0_sound =
        (state->xcr0 & 1) && !(state->xcr0 & ~(vector_xcr0_supported(cpu) | UINT64_C(3)));
    bool is_v86_sound = !(state->rflags & RFLAGS_VM) || ((state->cr0 & CR0_PE) && !is_long);
    bool is_exception_sound = !state->pending.exception || !state->pending.has_error_code ||
                              state->pending.vector < VECTOR_FIRST_EXTERNAL;
    bool is_pdpte_sound = !state->has_pdptes || paging_are_pdptes_good(cpu, state->pdpte);
    return is_paging_sound && is_long_sound && is_pdpte_sound && is_v86_sound && is_xcr0_sound &&
           is_exception_sound && state->run_state <= X86_WAIT_FOR_SIPI &&
           (!is_long || is_canonical(state->rip)) && !(state->cr4 & ~cpuid_cr4_allowed(cpu));
}

/* An INIT or SIPI that is not in the state is not under way any more; an NMI that came since stays.
 */
static void set_requests(struct cpu *cpu, const struct x86_pending *pending)
{
    cpu_withdraw(cpu, REQUEST_INIT | REQUEST_SIPI);
    atomic_store(&cpu->sipi_vector, pending->sipi_vector);
    if (pending->nmi)
        cpu_request(cpu, REQUEST_NMI | (pending->nmi_again ? REQUEST_NMI_AGAIN : 0));
    if (pending->init)
        cpu_request(cpu, REQUEST_INIT);
    if (pending->sipi)
        cpu_request(cpu, REQUEST_SIPI);
}

bool cpu_set_state(struct cpu *cpu, const struct x86_state *state)
{
    if (!is_state_possible(cpu, state) || !vector_set_state(cpu, state))
        return false;
    take_common(cpu, state);
    cpu->cr0 = state->cr0;
    cpu->xcr0 = state->xcr0;
    set_msrs(cpu, state);
    cpu->pending = state->pending;
    cpu->nmi_blocked = state->pending.nmi_blocked;
    cpu->interrupt_shadow = state->pending.sti_shadow;
    cpu->mov_ss_shadow = state->pending.mov_ss_shadow;
    if (state->has_pdptes)
        memcpy(cpu->pdpte, state->pdpte, sizeof(cpu->pdpte));
    else if (has_pae_paging(cpu))
        paging_load_pdptes(cpu, cpu->cr3);
    cpu->pending_debug = state->pending.debug & (DR6_HITS | DR6_BS | DR6_BT);
    if (cpu->cr0 & CR0_PE)
        cpu->cpl =
            (uint8_t)(cpu->rflags & RFLAGS_VM ? 3 : segment_dpl(cpu->segment[SEG_SS].attributes));
    set_requests(cpu, &state->pending);
    settle(cpu);
    return true;
}
