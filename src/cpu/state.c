/* SPDX-License-Identifier: BSD-2-Clause
 * The state of a processor after RESET (SDM 3A table 9-1), and which paging it has (4.1.1). */
#include "cpu/state.h"

#include <string.h>

enum { DATA_RW_ACCESSED = 0x3, CODE_RX_ACCESSED = 0xb, LDT = 0x2, TSS_BUSY = 0xb };

static void set_segment(struct x86_segment *segment, uint32_t type)
{
    segment->limit = 0xffff;
    segment->attributes = type | SEGMENT_P;
}

bool x86_state_has_pae_paging(const struct x86_state *state)
{
    const uint64_t cr0_pg = UINT64_C(1) << 31, cr4_pae = 1 << 5, efer_lma = 1 << 10;
    return (state->cr0 & cr0_pg) && (state->cr4 & cr4_pae) && !(state->efer & efer_lma);
}

void x86_state_reset(struct x86_state *state, bool is_bootstrap_processor)
{
    memset(state, 0, sizeof(*state));
    state->gpr[RDX] = 0x600;
    state->rip = 0xfff0;
    state->rflags = 0x2;
    for (int i = SEG_ES; i <= SEG_GS; i++)
        set_segment(&state->segment[i], DATA_RW_ACCESSED | SEGMENT_S);
    set_segment(&state->segment[SEG_CS], CODE_RX_ACCESSED | SEGMENT_S);
    state->segment[SEG_CS].selector = 0xf000;
    state->segment[SEG_CS].base = 0xffff0000;
    set_segment(&state->segment[SEG_LDTR], LDT);
    set_segment(&state->segment[SEG_TR], TSS_BUSY);
    state->gdtr.limit = 0xffff;
    state->idtr.limit = 0xffff;
    state->cr0 = 0x60000010;
    state->xcr0 = 1;
    state->dr[6] = 0xffff0ff0;
    state->dr[7] = 0x400;
    state->pat = UINT64_C(0x0007040600070406);
    state->apic_base = UINT64_C(0xfee00800) | (is_bootstrap_processor ? 0x100 : 0);
    state->misc_enable = X86_MISC_ENABLE_MONITOR | 1; /* fast strings */
    uint16_t fcw = 0x40; /* after RESET, before FINIT: SDM 3A table 9-1 */
    uint8_t ftw = 0xff;  /* abridged: all registers valid (+0.0), full tag 5555H */
    uint32_t mxcsr = 0x1f80;
    memcpy(state->xsave, &fcw, sizeof(fcw));
    memcpy(state->xsave + 4, &ftw, sizeof(ftw));
    memcpy(state->xsave + 24, &mxcsr, sizeof(mxcsr));
    state->xsave[512] = 3; /* XSTATE_BV: x87 and SSE hold what is above */
    state->run_state = is_bootstrap_processor ? X86_RUNNING : X86_WAIT_FOR_SIPI;
}
