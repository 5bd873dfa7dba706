/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The architectural state of one x86-64 processor, the same for every engine, so that a machine
 * saved on one resumes on another. Names follow the Intel SDM.
 */
#ifndef SKEP_CPU_STATE_H
#define SKEP_CPU_STATE_H

#include <stdbool.h>
#include <stdint.h>

enum x86_gpr { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 };

enum x86_segment_name {
    SEG_ES,
    SEG_CS,
    SEG_SS,
    SEG_DS,
    SEG_FS,
    SEG_GS,
    SEG_LDTR,
    SEG_TR,
    SEG_COUNT
};

/* Attribute bits as in the second doubleword of a descriptor, shifted right by 8 (SDM 3A 3.4.5). */
enum {
    SEGMENT_TYPE = 0xf,
    SEGMENT_S = 1 << 4, /* code or data */
    SEGMENT_DPL_SHIFT = 5,
    SEGMENT_P = 1 << 7,
    SEGMENT_AVL = 1 << 12,
    SEGMENT_L = 1 << 13,
    SEGMENT_DB = 1 << 14,
    SEGMENT_G = 1 << 15,
    SEGMENT_UNUSABLE = 1 << 16, /* loaded with a null selector */
};

struct x86_segment {
    uint64_t base;
    uint32_t limit; /* in bytes, inclusive, granularity already applied */
    uint32_t attributes;
    uint16_t selector;
};

struct x86_table {
    uint64_t base;
    uint16_t limit;
};

#define X86_MISC_ENABLE_MONITOR (UINT64_C(1) << 18) /* of IA32_MISC_ENABLE: MONITOR and MWAIT */

/* An XSAVE area in standard form: legacy region, header, AVX upper halves (SDM 1 13.4). */
enum { X86_XSAVE_BYTES = 512 + 64 + 256 };

enum x86_run_state { X86_RUNNING, X86_HALTED, X86_WAIT_FOR_SIPI };

struct x86_pending {
    bool exception; /* an exception to be delivered before the next instruction */
    bool has_error_code;
    uint8_t vector;
    uint32_t error_code;
    bool nmi;           /* latched, not yet delivered */
    bool nmi_again;     /* a second one behind it */
    bool nmi_blocked;   /* until IRET */
    bool sti_shadow;    /* interrupts held off for one instruction after STI */
    bool mov_ss_shadow; /* likewise after MOV SS, debug traps too */
    uint32_t debug;     /* bits of DR6 of a #DB that is due, in the shadow of MOV SS */
    bool init;          /* arrived, not yet taken */
    bool sipi;          /* likewise, with its vector */
    uint8_t sipi_vector;
};

/* Machine check banks; there is no IA32_MCG_CTL. */
enum { X86_MC_BANKS = 10 };

struct x86_state {
    uint64_t gpr[16];
    uint64_t rip;
    uint64_t rflags;
    struct x86_segment segment[SEG_COUNT];
    struct x86_table gdtr;
    struct x86_table idtr;
    uint64_t cr0, cr2, cr3, cr4, cr8;
    /* Of PAE paging outside of long mode, as they were when CR3 was loaded (SDM 3A 4.4.1); without
     * has_pdptes they are read from memory, as by a MOV to CR3. */
    bool has_pdptes;
    uint64_t pdpte[4];
    uint64_t xcr0;
    uint64_t dr[8]; /* 4 and 5 unused */
    uint64_t efer;
    uint64_t star, lstar, cstar, sfmask, kernel_gs_base;
    uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
    uint64_t pat;
    uint64_t tsc;        /* value at the moment of capture */
    uint64_t tsc_adjust; /* IA32_TSC_ADJUST */
    uint64_t tsc_aux;
    uint64_t tsc_deadline; /* 0: not armed */
    uint64_t apic_base;    /* IA32_APIC_BASE */
    uint64_t misc_enable;
    uint64_t spec_ctrl;
    uint64_t mtrr_def_type, mtrr_fixed[11], mtrr_base[8], mtrr_mask[8];
    uint64_t kvm_system_time, kvm_wall_clock, kvm_eoi;
    uint64_t debugctl;
    uint64_t mcg_status, mc_bank[X86_MC_BANKS][4]; /* CTL STATUS ADDR MISC */
    uint32_t pkru;
    uint8_t xsave[X86_XSAVE_BYTES];
    enum x86_run_state run_state;
    struct x86_pending pending;
};

/* Paging with PDPTEs: on, with CR4.PAE, outside of long mode. */
bool x86_state_has_pae_paging(const struct x86_state *state);

/* The state after RESET or power-up (SDM 3A 9.1.1); an application processor waits for a SIPI. */
void x86_state_reset(struct x86_state *state, bool is_bootstrap_processor);

#endif
