/* SPDX-License-Identifier: BSD-2-Clause
 *
 * struct x86_state to and from KVM. An external interrupt that KVM has acknowledged but not yet
 * delivered becomes a pending "exception" with its vector (32 or more), so that none is lost
 * between engines. Runs while the vCPU does not.
 */
#include "cpu/kvm/kvm.h"

#include <errno.h>
#include <string.h>

static const char reading[] = "cannot read the processor's state";
static const char setting[] = "cannot set the processor's state";

enum { FIRST_INTERRUPT_VECTOR = 32, XSTATE_KNOWN = 7 /* x87, SSE, AVX */ };

/* The registers in the order of enum x86_gpr. */
static void gpr_from(uint64_t gpr[16], const struct kvm_regs *r)
{
    const uint64_t values[16] = {r->rax, r->rcx, r->rdx, r->rbx, r->rsp, r->rbp, r->rsi, r->rdi,
                                 r->r8,  r->r9,  r->r10, r->r11, r->r12, r->r13, r->r14, r->r15};
    memcpy(gpr, values, sizeof(values));
}

static void gpr_to(struct kvm_regs *r, const struct x86_state *state)
{
    const uint64_t *g = state->gpr;
    *r = (struct kvm_regs){
        .rax = g[RAX],
        .rcx = g[RCX],
        .rdx = g[RDX],
        .rbx = g[RBX],
        .rsp = g[RSP],
        .rbp = g[RBP],
        .rsi = g[RSI],
        .rdi = g[RDI],
        .r8 = g[R8],
        .r9 = g[R9],
        .r10 = g[R10],
        .r11 = g[R11],
        .r12 = g[R12],
        .r13 = g[R13],
        .r14 = g[R14],
        .r15 = g[R15],
        .rip = state->rip,
        .rflags = state->rflags,
    };
}

static struct x86_segment segment_from(const struct kvm_segment *s)
{
    return (struct x86_segment){
        .base = s->base,
        .limit = s->limit,
        .selector = s->selector,
        .attributes = (uint32_t)(s->type & SEGMENT_TYPE) | (s->s ? SEGMENT_S : 0) |
                      (uint32_t)(s->dpl & 3) << SEGMENT_DPL_SHIFT | (s->present ? SEGMENT_P : 0) |
                      (s->avl ? SEGMENT_AVL : 0) | (s->l ? SEGMENT_L : 0) |
                      (s->db ? SEGMENT_DB : 0) | (s->g ? SEGMENT_G : 0) |
                      (s->unusable ? SEGMENT_UNUSABLE : 0),
    };
}

static struct kvm_segment segment_to(const struct x86_segment *s)
{
    uint32_t a = s->attributes;
    return (struct kvm_segment){
        .base = s->base,
        .limit = s->limit,
        .selector = s->selector,
        .type = a & SEGMENT_TYPE,
        .s = !!(a & SEGMENT_S),
        .dpl = a >> SEGMENT_DPL_SHIFT & 3,
        .present = !!(a & SEGMENT_P),
        .avl = !!(a & SEGMENT_AVL),
        .l = !!(a & SEGMENT_L),
        .db = !!(a & SEGMENT_DB),
        .g = !!(a & SEGMENT_G),
        .unusable = !!(a & SEGMENT_UNUSABLE),
    };
}

static void sregs_from(struct x86_state *state, const struct kvm_sregs *s)
{
    const struct kvm_segment *const segments[SEG_COUNT] = {
        [SEG_ES] = &s->es, [SEG_CS] = &s->cs, [SEG_SS] = &s->ss,    [SEG_DS] = &s->ds,
        [SEG_FS] = &s->fs, [SEG_GS] = &s->gs, [SEG_LDTR] = &s->ldt, [SEG_TR] = &s->tr};
    for (int i = 0; i < SEG_COUNT; i++)
        state->segment[i] = segment_from(segments[i]);
    state->gdtr = (struct x86_table){s->gdt.base, s->gdt.limit};
    state->idtr = (struct x86_table){s->idt.base, s->idt.limit};
    state->cr0 = s->cr0;
    state->cr2 = s->cr2;
    state->cr3 = s->cr3;
    state->cr4 = s->cr4;
    state->cr8 = s->cr8;
    state->efer = s->efer;
    state->apic_base = s->apic_base;
}

static void sregs_to(struct kvm_sregs *s, const struct x86_state *state)
{
    const struct x86_segment *seg = state->segment;
    *s = (struct kvm_sregs){
        .es = segment_to(&seg[SEG_ES]),
        .cs = segment_to(&seg[SEG_CS]),
        .ss = segment_to(&seg[SEG_SS]),
        .ds = segment_to(&seg[SEG_DS]),
        .fs = segment_to(&seg[SEG_FS]),
        .gs = segment_to(&seg[SEG_GS]),
        .ldt = segment_to(&seg[SEG_LDTR]),
        .tr = segment_to(&seg[SEG_TR]),
        .gdt = {.base = state->gdtr.base, .limit = state->gdtr.limit},
        .idt = {.base = state->idtr.base, .limit = state->idtr.limit},
        .cr0 = state->cr0,
        .cr2 = state->cr2,
        .cr3 = state->cr3,
        .cr4 = state->cr4,
        .cr8 = state->cr8,
        .efer = state->efer,
        .apic_base = state->apic_base,
    };
}

/* The PDPTEs of PAE paging, which may be others than those in memory by now (SDM 3A 4.4.1). */
static bool get_pdptes(struct engine_vcpu *vcpu, struct x86_state *state, struct error *err)
{
    struct kvm_sregs2 sregs;
    if (!vcpu->vm->has_sregs2 || !x86_state_has_pae_paging(state))
        return true;
    if (kvm_ioctl(vcpu->fd, KVM_GET_SREGS2, &sregs) < 0)
        return error_errno(err, reading, "KVM_GET_SREGS2", errno);
    state->has_pdptes = sregs.flags & KVM_SREGS2_FLAGS_PDPTRS_VALID;
    for (int i = 0; i < 4 && state->has_pdptes; i++)
        state->pdpte[i] = sregs.pdptrs[i];
    return true;
}

/* Behind KVM_SET_SREGS, which has them read from memory. */
static bool set_pdptes(struct engine_vcpu *vcpu, const struct x86_state *state, struct error *err)
{
    struct kvm_sregs2 sregs;
    if (!vcpu->vm->has_sregs2 || !state->has_pdptes || !x86_state_has_pae_paging(state))
        return true;
    if (kvm_ioctl(vcpu->fd, KVM_GET_SREGS2, &sregs) < 0)
        return error_errno(err, setting, "KVM_GET_SREGS2", errno);
    sregs.flags |= KVM_SREGS2_FLAGS_PDPTRS_VALID;
    for (int i = 0; i < 4; i++)
        sregs.pdptrs[i] = state->pdpte[i];
    if (kvm_ioctl(vcpu->fd, KVM_SET_SREGS2, &sregs) < 0)
        return error_errno(err, setting, "KVM_SET_SREGS2", errno);
    return true;
}

static bool get_registers(struct engine_vcpu *vcpu, struct x86_state *state, struct error *err)
{
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    struct kvm_debugregs debug;
    if (kvm_ioctl(vcpu->fd, KVM_GET_REGS, &regs) < 0)
        return error_errno(err, reading, "KVM_GET_REGS", errno);
    if (kvm_ioctl(vcpu->fd, KVM_GET_SREGS, &sregs) < 0)
        return error_errno(err, reading, "KVM_GET_SREGS", errno);
    if (kvm_ioctl(vcpu->fd, KVM_GET_DEBUGREGS, &debug) < 0)
        return error_errno(err, reading, "KVM_GET_DEBUGREGS", errno);
    gpr_from(state->gpr, &regs);
    state->rip = regs.rip;
    state->rflags = regs.rflags;
    sregs_from(state, &sregs);
    for (int i = 0; i < 4; i++)
        state->dr[i] = debug.db[i];
    state->dr[6] = debug.dr6;
    state->dr[7] = debug.dr7;
    return get_pdptes(vcpu, state, err);
}

static bool set_registers(struct engine_vcpu *vcpu, const struct x86_state *state,
                          struct error *err)
{
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    struct kvm_debugregs debug = {.dr6 = state->dr[6], .dr7 = state->dr[7]};
    gpr_to(&regs, state);
    sregs_to(&sregs, state);
    for (int i = 0; i < 4; i++)
        debug.db[i] = state->dr[i];
    if (kvm_ioctl(vcpu->fd, KVM_SET_SREGS, &sregs) < 0)
        return error_errno(err, setting, "KVM_SET_SREGS", errno);
    if (!set_pdptes(vcpu, state, err))
        return false;
    if (kvm_ioctl(vcpu->fd, KVM_SET_REGS, &regs) < 0)
        return error_errno(err, setting, "KVM_SET_REGS", errno);
    if (kvm_ioctl(vcpu->fd, KVM_SET_DEBUGREGS, &debug) < 0)
        return error_errno(err, setting, "KVM_SET_DEBUGREGS", errno);
    return true;
}

/* KVM's area is in standard form as well; XSTATE_BV is at 512. */
static bool get_vectors(struct engine_vcpu *vcpu, struct x86_state *state, struct error *err)
{
    struct kvm_xsave xsave;
    struct kvm_xcrs xcrs;
    if (kvm_ioctl(vcpu->fd, KVM_GET_XSAVE, &xsave) < 0)
        return error_errno(err, reading, "KVM_GET_XSAVE", errno);
    memcpy(state->xsave, &xsave, sizeof(state->xsave));
    state->xsave[512] &= XSTATE_KNOWN;
    memset(state->xsave + 513, 0, 63); /* standard form: no compaction; the rest is reserved */
    state->xcr0 = 1;
    if (kvm_ioctl(vcpu->fd, KVM_GET_XCRS, &xcrs) < 0)
        return error_errno(err, reading, "KVM_GET_XCRS", errno);
    for (uint32_t i = 0; i < xcrs.nr_xcrs && i < KVM_MAX_XCRS; i++)
        if (xcrs.xcrs[i].xcr == 0)
            state->xcr0 = xcrs.xcrs[i].value;
    return true;
}

static bool set_vectors(struct engine_vcpu *vcpu, const struct x86_state *state, struct error *err)
{
    struct kvm_xsave xsave = {0};
    struct kvm_xcrs xcrs = {.nr_xcrs = 1, .xcrs[0] = {.xcr = 0, .value = state->xcr0}};
    memcpy(&xsave, state->xsave, sizeof(state->xsave));
    if (kvm_ioctl(vcpu->fd, KVM_SET_XCRS, &xcrs) < 0)
        return error_errno(err, setting, "KVM_SET_XCRS", errno);
    if (kvm_ioctl(vcpu->fd, KVM_SET_XSAVE, &xsave) < 0)
        return error_errno(err, setting, "KVM_SET_XSAVE", errno);
    return true;
}

static void events_from(struct x86_pending *pending, const struct kvm_vcpu_events *events)
{
    memset(pending, 0, sizeof(*pending));
    if (events->exception.injected) {
        pending->exception = true;
        pending->vector = events->exception.nr;
        pending->has_error_code = events->exception.has_error_code;
        pending->error_code = events->exception.error_code;
    } else if (events->interrupt.injected && !events->interrupt.soft) {
        /* Of INT n nothing is left to do: RIP is still at it. */
        pending->exception = true;
        pending->vector = events->interrupt.nr;
    }
    pending->nmi = events->nmi.pending || events->nmi.injected;
    pending->nmi_blocked = events->nmi.masked;
    pending->sti_shadow = events->interrupt.shadow & KVM_X86_SHADOW_INT_STI;
    pending->mov_ss_shadow = events->interrupt.shadow & KVM_X86_SHADOW_INT_MOV_SS;
}

static void events_to(struct kvm_vcpu_events *events, const struct x86_pending *pending)
{
    *events = (struct kvm_vcpu_events){
        .flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW,
        .nmi = {.pending = pending->nmi, .masked = pending->nmi_blocked},
        .interrupt.shadow = (pending->sti_shadow ? KVM_X86_SHADOW_INT_STI : 0) |
                            (pending->mov_ss_shadow ? KVM_X86_SHADOW_INT_MOV_SS : 0),
    };
    if (pending->exception && pending->vector >= FIRST_INTERRUPT_VECTOR) {
        events->interrupt.injected = 1;
        events->interrupt.nr = pending->vector;
    } else if (pending->exception) {
        events->exception.injected = 1;
        events->exception.nr = pending->vector;
        events->exception.has_error_code = pending->has_error_code;
        events->exception.error_code = pending->error_code;
    }
}

static bool get_events(struct engine_vcpu *vcpu, struct x86_state *state, struct error *err)
{
    struct kvm_mp_state mp;
    struct kvm_vcpu_events events;
    /* First, since KVM takes waiting INITs and SIPIs here. */
    if (kvm_ioctl(vcpu->fd, KVM_GET_MP_STATE, &mp) < 0)
        return error_errno(err, reading, "KVM_GET_MP_STATE", errno);
    if (kvm_ioctl(vcpu->fd, KVM_GET_VCPU_EVENTS, &events) < 0)
        return error_errno(err, reading, "KVM_GET_VCPU_EVENTS", errno);
    events_from(&state->pending, &events);
    state->run_state = mp.mp_state == KVM_MP_STATE_RUNNABLE ? X86_RUNNING
                       : mp.mp_state == KVM_MP_STATE_HALTED ? X86_HALTED
                                                            : X86_WAIT_FOR_SIPI;
    return true;
}

static bool set_events(struct engine_vcpu *vcpu, const struct x86_state *state, struct error *err)
{
    struct kvm_vcpu_events events;
    struct kvm_mp_state mp = {.mp_state = KVM_MP_STATE_RUNNABLE};
    if (state->run_state == X86_HALTED)
        mp.mp_state = KVM_MP_STATE_HALTED;
    else if (state->run_state == X86_WAIT_FOR_SIPI)
        mp.mp_state = KVM_MP_STATE_INIT_RECEIVED;
    events_to(&events, &state->pending);
    if (kvm_ioctl(vcpu->fd, KVM_SET_VCPU_EVENTS, &events) < 0)
        return error_errno(err, setting, "KVM_SET_VCPU_EVENTS", errno);
    if (kvm_ioctl(vcpu->fd, KVM_SET_MP_STATE, &mp) < 0)
        return error_errno(err, setting, "KVM_SET_MP_STATE", errno);
    return true;
}

/* What was injected and not yet handed over belongs to the state. */
bool kvm_get_state(struct engine_vcpu *vcpu, struct x86_state *state, struct error *err)
{
    memset(state, 0, sizeof(*state));
    if (!kvm_apply_requests(vcpu))
        return error_errno(err, reading, "KVM_NMI", errno);
    if (!get_events(vcpu, state, err) || !get_registers(vcpu, state, err) ||
        !get_vectors(vcpu, state, err) || !kvm_msrs_get(vcpu, state, err))
        return false;
    if (vcpu->vm->time_is_stopped)
        state->tsc = vcpu->stopped_tsc;
    return true;
}

bool kvm_set_state(struct engine_vcpu *vcpu, const struct x86_state *state, struct error *err)
{
    vcpu->stopped_tsc = state->tsc;
    vcpu->stopped_deadline = state->tsc_deadline;
    atomic_store(&vcpu->requests, 0);
    if (!set_registers(vcpu, state, err) || !set_vectors(vcpu, state, err) ||
        !kvm_msrs_set(vcpu, state, err) || !set_events(vcpu, state, err))
        return false;
    if (state->pending.init)
        kvm_inject(vcpu, ENGINE_INIT, 0);
    if (state->pending.sipi)
        kvm_inject(vcpu, ENGINE_SIPI, state->pending.sipi_vector);
    return true;
}
