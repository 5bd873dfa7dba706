/* SPDX-License-Identifier: BSD-2-Clause
 *
 * RDMSR, WRMSR, RDTSC, RDTSCP, RDPID, RDPMC. Registers of the local APIC are the embedder's. One
 * that is not known raises #GP, as on a processor. SDM 4.
 *
 * Memory types (MTRRs, PAT) are kept and checked, and change nothing: memory is the host's. Machine
 * check banks never report anything by themselves; as KVM's they take what is written to ADDR and
 * MISC, and only zero to STATUS. IA32_DEBUGCTL has BTF; a write of LBR is ignored, as KVM does
 * without the register stack.
 */
#include "cpu/soft/core.h"

#include "cpu/soft/debug.h"
#include "cpu/soft/tlb.h"

enum {
    MSR_TSC = 0x10,
    MSR_PLATFORM_ID = 0x17,
    MSR_APIC_BASE = 0x1b,
    MSR_TSC_ADJUST = 0x3b,
    MSR_SPEC_CTRL = 0x48,
    MSR_PRED_CMD = 0x49,
    MSR_BIOS_SIGN_ID = 0x8b,
    MSR_MTRR_CAP = 0xfe,
    MSR_ARCH_CAPABILITIES = 0x10a,
    MSR_SYSENTER_CS = 0x174,
    MSR_SYSENTER_ESP = 0x175,
    MSR_SYSENTER_EIP = 0x176,
    MSR_MCG_CAP = 0x179,
    MSR_MCG_STATUS = 0x17a,
    MSR_MISC_ENABLE = 0x1a0,
    MSR_DEBUGCTL = 0x1d9,
    MSR_MTRR_BASE0 = 0x200,
    MSR_MTRR_LAST = 0x20f,
    MSR_MTRR_FIX64K = 0x250,
    MSR_MTRR_FIX16K_80000 = 0x258,
    MSR_MTRR_FIX16K_A0000 = 0x259,
    MSR_MTRR_FIX4K_C0000 = 0x268,
    MSR_MTRR_FIX4K_F8000 = 0x26f,
    MSR_PAT = 0x277,
    MSR_MTRR_DEF_TYPE = 0x2ff,
    MSR_MC0_CTL = 0x400,
    MSR_MC_LAST = MSR_MC0_CTL + 4 * X86_MC_BANKS - 1,
    MSR_TSC_DEADLINE = 0x6e0,
    MSR_X2APIC_FIRST = 0x800,
    MSR_X2APIC_LAST = 0x8ff,
    MSR_XSS = 0xda0,
    MSR_KVM_CLOCK_OLD_WALL = 0x11,
    MSR_KVM_CLOCK_OLD = 0x12,
    MSR_KVM_WALL_CLOCK = 0x4b564d00,
    MSR_KVM_SYSTEM_TIME = 0x4b564d01,
};
#define MSR_EFER           UINT32_C(0xc0000080)
#define MSR_STAR           UINT32_C(0xc0000081)
#define MSR_LSTAR          UINT32_C(0xc0000082)
#define MSR_CSTAR          UINT32_C(0xc0000083)
#define MSR_SFMASK         UINT32_C(0xc0000084)
#define MSR_FS_BASE        UINT32_C(0xc0000100)
#define MSR_GS_BASE        UINT32_C(0xc0000101)
#define MSR_KERNEL_GS_BASE UINT32_C(0xc0000102)
#define MSR_TSC_AUX        UINT32_C(0xc0000103)
#define MSR_AMD_SYSCFG     UINT32_C(0xc0010010)
#define MSR_AMD_NB_CFG     UINT32_C(0xc001001f)
#define MSR_AMD_HWCR       UINT32_C(0xc0010015)
#define MSR_AMD_PSTATE_LIM UINT32_C(0xc0010061)
#define MSR_AMD_DE_CFG     UINT32_C(0xc0011029)
#define HWCR_TSC_FREQ_SEL  (UINT64_C(1) << 24) /* the TSC counts at the P0 frequency */
#define EFER_AIBRSE        (UINT64_C(1) << 21)

/* No Meltdown, enhanced IBRS, no L1TF flush needed, no SSB, MDS, page-size MCE, TAA, MMIO stale
 * data, PBRSB, gather data sampling, register file sampling, BHI, ITS: there is no speculation
 * across the guest's privilege levels in a processor made of software. */
#define ARCH_CAPABILITIES                                                                          \
    (UINT64_C(1) << 0 | UINT64_C(1) << 1 | UINT64_C(1) << 3 | UINT64_C(1) << 4 |                   \
     UINT64_C(1) << 5 | UINT64_C(1) << 6 | UINT64_C(1) << 8 | UINT64_C(1) << 13 |                  \
     UINT64_C(1) << 14 | UINT64_C(1) << 15 | UINT64_C(1) << 20 | UINT64_C(1) << 24 |               \
     UINT64_C(1) << 26 | UINT64_C(1) << 27 | UINT64_C(1) << 62)

/* Eight variable ranges, fixed ranges, write-combining. */
enum { MTRR_CAP = 8 | 1 << 8 | 1 << 10 };

enum { MC_CTL, MC_STATUS };

/* IA32_MISC_ENABLE: fast strings, thermal control, prefetching, FERR#, SpeedStep and its lock,
 * MONITOR, CPUID limit, xTPR, XD, the L1 mode, turbo. Read-only: performance counters (there are
 * none), and no BTS and PEBS. */
#define MISC_ENABLE_WRITABLE UINT64_C(0xe400dd0609)
#define MISC_ENABLE_FIXED    UINT64_C(0x1800)

static bool is_hooked(uint32_t msr)
{
    return msr == MSR_APIC_BASE || msr == MSR_TSC_DEADLINE ||
           (msr >= MSR_X2APIC_FIRST && msr <= MSR_X2APIC_LAST);
}

/* Registers that are plain storage; NULL: not one of them. */
static uint64_t *mtrr_slot(struct cpu *cpu, uint32_t msr)
{
    if (msr >= MSR_MTRR_BASE0 && msr <= MSR_MTRR_LAST) {
        unsigned n = (msr - MSR_MTRR_BASE0) / 2;
        return msr & 1 ? &cpu->mtrr_mask[n] : &cpu->mtrr_base[n];
    }
    if (msr >= MSR_MTRR_FIX4K_C0000 && msr <= MSR_MTRR_FIX4K_F8000)
        return &cpu->mtrr_fixed[3 + msr - MSR_MTRR_FIX4K_C0000];
    switch (msr) {
    case MSR_MTRR_FIX64K: return &cpu->mtrr_fixed[0];
    case MSR_MTRR_FIX16K_80000: return &cpu->mtrr_fixed[1];
    case MSR_MTRR_FIX16K_A0000: return &cpu->mtrr_fixed[2];
    case MSR_MTRR_DEF_TYPE: return &cpu->mtrr_def_type;
    default: return NULL;
    }
}

static uint64_t *bank_slot(struct cpu *cpu, uint32_t msr)
{
    if (msr < MSR_MC0_CTL || msr > MSR_MC_LAST)
        return mtrr_slot(cpu, msr);
    return &cpu->mc_bank[(msr - MSR_MC0_CTL) / 4][msr & 3];
}

static uint64_t *storage(struct cpu *cpu, uint32_t msr)
{
    switch (msr) {
    case MSR_DEBUGCTL: return &cpu->debugctl;
    case MSR_MCG_STATUS: return &cpu->mcg_status;
    case MSR_SYSENTER_CS: return &cpu->sysenter_cs;
    case MSR_SYSENTER_ESP: return &cpu->sysenter_esp;
    case MSR_SYSENTER_EIP: return &cpu->sysenter_eip;
    case MSR_MISC_ENABLE: return &cpu->misc_enable;
    case MSR_PAT: return &cpu->pat;
    case MSR_STAR: return &cpu->star;
    case MSR_LSTAR: return &cpu->lstar;
    case MSR_CSTAR: return &cpu->cstar;
    case MSR_SFMASK: return &cpu->sfmask;
    case MSR_FS_BASE: return &cpu->segment[SEG_FS].base;
    case MSR_GS_BASE: return &cpu->segment[SEG_GS].base;
    case MSR_KERNEL_GS_BASE: return &cpu->kernel_gs_base;
    case MSR_TSC_AUX: return &cpu->tsc_aux;
    case MSR_EFER: return &cpu->efer;
    case MSR_TSC_ADJUST: return &cpu->tsc_adjust;
    case MSR_SPEC_CTRL: return cpu->system->features.is_amd ? NULL : &cpu->spec_ctrl;
    case MSR_KVM_CLOCK_OLD_WALL:
    case MSR_KVM_WALL_CLOCK: return &cpu->kvm_wall_clock;
    case MSR_KVM_CLOCK_OLD:
    case MSR_KVM_SYSTEM_TIME: return &cpu->kvm_system_time;
    default: return bank_slot(cpu, msr);
    }
}

/* Registers of one value; false: not one of them. */
static bool read_constant(const struct cpu *cpu, uint32_t msr, uint64_t *value)
{
    bool is_amd = cpu->system->features.is_amd;
    *value = 0;
    switch (msr) {
    case MSR_MTRR_CAP: *value = MTRR_CAP; return true;
    case MSR_ARCH_CAPABILITIES: *value = ARCH_CAPABILITIES; return true;
    case MSR_BIOS_SIGN_ID: *value = UINT64_C(1) << 32; return true;
    case MSR_MCG_CAP: *value = X86_MC_BANKS; return true;
    case MSR_PLATFORM_ID:
    case MSR_XSS: return true;
    case MSR_AMD_DE_CFG: *value = 2; return is_amd; /* LFENCE serialises */
    case MSR_AMD_HWCR: *value = HWCR_TSC_FREQ_SEL; return is_amd;
    case MSR_AMD_SYSCFG:
    case MSR_AMD_NB_CFG:
    case MSR_AMD_PSTATE_LIM: return is_amd;
    default: return false;
    }
}

bool msr_read(struct cpu *cpu, uint32_t msr, uint64_t *value)
{
    const struct soft_callbacks *callbacks = &cpu->system->callbacks;
    if (is_hooked(msr))
        return callbacks->read_msr(callbacks->opaque, cpu->index, msr, value);
    if (msr == MSR_TSC) {
        *value = tsc_guest(cpu);
        return true;
    }
    const uint64_t *slot = storage(cpu, msr);
    if (slot) {
        *value = *slot | (msr == MSR_MISC_ENABLE ? MISC_ENABLE_FIXED : 0);
        return true;
    }
    return read_constant(cpu, msr, value);
}

static bool is_pat_valid(uint64_t value)
{
    for (unsigned i = 0; i < 8; i++) {
        unsigned type = value >> 8 * i & 0xff;
        if (type == 2 || type == 3 || type > 7)
            return false;
    }
    return true;
}

static bool write_efer(struct cpu *cpu, uint64_t value)
{
    uint64_t known = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
    if (cpu->system->features.is_amd)
        known |= EFER_AIBRSE;
    uint64_t changed = value ^ cpu->efer;
    if ((value & ~known) || ((changed & EFER_LME) && (cpu->cr0 & CR0_PG)))
        return false;
    cpu->efer = (value & ~EFER_LMA) | (cpu->efer & EFER_LMA);
    if (changed & EFER_NXE) {
        tlb_flush_all(cpu);
        tlb_switch(cpu, cpu->cr4 & CR4_PCIDE ? cpu->cr3 & 0xfff : 0, false);
    }
    return true;
}

static bool is_memory_type(unsigned type)
{
    return type <= 1 || (type >= 4 && type <= 6);
}

/* SDM 3A 11.11.2. */
static bool is_mtrr_valid(const struct cpu *cpu, uint32_t msr, uint64_t value)
{
    if (msr >= MSR_MTRR_BASE0 && msr <= MSR_MTRR_LAST) {
        uint64_t reserved = physical_excess(cpu) | (msr & 1 ? 0x7ff : 0xf00);
        return !(value & reserved) && (msr & 1 || is_memory_type(value & 0xff));
    }
    if (msr == MSR_MTRR_DEF_TYPE)
        return !(value & ~UINT64_C(0xcff)) && is_memory_type(value & 0xff);
    for (unsigned i = 0; i < 8; i++)
        if (!is_memory_type(value >> 8 * i & 0xff))
            return false;
    return true;
}

static bool is_mtrr(uint32_t msr)
{
    return (msr >= MSR_MTRR_BASE0 && msr <= MSR_MTRR_LAST) ||
           (msr >= MSR_MTRR_FIX64K && msr <= MSR_MTRR_FIX4K_F8000) || msr == MSR_MTRR_DEF_TYPE;
}

/* SDM 3B 15.3.2: all error reporting or none; and STATUS can only be cleared. */
static bool is_bank_valid(uint32_t msr, uint64_t value)
{
    switch (msr & 3) {
    case MC_CTL: return value == 0 || value == UINT64_MAX;
    case MC_STATUS: return value == 0;
    default: return true;
    }
}

/* Registers whose values are checked. */
static bool is_value_valid(const struct cpu *cpu, uint32_t msr, uint64_t value)
{
    if (is_mtrr(msr))
        return is_mtrr_valid(cpu, msr, value);
    if (msr >= MSR_MC0_CTL && msr <= MSR_MC_LAST)
        return is_bank_valid(msr, value);
    switch (msr) {
    case MSR_APIC_BASE: return !(value & (physical_excess(cpu) | UINT64_C(0x2ff)));
    case MSR_MISC_ENABLE: return !(value & ~(MISC_ENABLE_WRITABLE | MISC_ENABLE_FIXED));
    case MSR_DEBUGCTL: return !(value & ~(uint64_t)(DEBUGCTL_LBR | DEBUGCTL_BTF));
    case MSR_MCG_STATUS: return !(value & ~UINT64_C(7));
    case MSR_LSTAR:
    case MSR_CSTAR:
    case MSR_FS_BASE:
    case MSR_GS_BASE:
    case MSR_KERNEL_GS_BASE:
    case MSR_SYSENTER_ESP:
    case MSR_SYSENTER_EIP: return is_canonical(value);
    case MSR_PAT: return is_pat_valid(value);
    case MSR_TSC_AUX: return value >> 32 == 0;
    case MSR_SPEC_CTRL: return !(value & ~UINT64_C(0x401)); /* IBRS, BHI_DIS_S */
    default: return true;
    }
}

/* Writes that are taken and do nothing. */
static bool is_ignored(const struct cpu *cpu, uint32_t msr, uint64_t value)
{
    bool is_amd = cpu->system->features.is_amd;
    switch (msr) {
    case MSR_PRED_CMD: return !is_amd && !(value & ~UINT64_C(1));
    case MSR_XSS: return value == 0;
    case MSR_BIOS_SIGN_ID: return true;
    case MSR_AMD_HWCR:
    case MSR_AMD_NB_CFG:
    case MSR_AMD_SYSCFG:
    case MSR_AMD_DE_CFG: return is_amd;
    default: return false;
    }
}

bool msr_write(struct cpu *cpu, uint32_t msr, uint64_t value)
{
    const struct soft_callbacks *callbacks = &cpu->system->callbacks;
    if (!is_value_valid(cpu, msr, value))
        return false;
    if (is_hooked(msr))
        return callbacks->write_msr(callbacks->opaque, cpu->index, msr, value);
    if (kvmclock_write_msr(cpu, msr, value))
        return true;
    if (msr == MSR_DEBUGCTL)
        value &= ~(uint64_t)DEBUGCTL_LBR;
    switch (msr) {
    case MSR_TSC: tsc_write(cpu, value); return true;
    case MSR_TSC_ADJUST: tsc_write_adjust(cpu, value); return true;
    case MSR_EFER: return write_efer(cpu, value);
    default: break;
    }
    uint64_t *slot = storage(cpu, msr);
    if (!slot)
        return is_ignored(cpu, msr, value);
    *slot = value;
    return true;
}

/* --- instructions --------------------------------------------------------------------------- */

static void refuse(struct cpu *cpu, const char *what, uint32_t msr)
{
    log_limited(cpu->system->log, &cpu->system->log_limit, LOG_DEBUG, "cpu",
                "guest %s of unknown MSR %#x", what, msr);
    cpu_raise_code(cpu, VECTOR_GP, 0);
}

static void rdmsr(struct cpu *cpu, const struct op *op)
{
    uint64_t value = 0;
    uint32_t msr = (uint32_t)cpu->gpr[RCX];
    require_cpl0(cpu);
    if (!msr_read(cpu, msr, &value))
        refuse(cpu, "read", msr);
    cpu->gpr[RAX] = (uint32_t)value;
    cpu->gpr[RDX] = value >> 32;
}

static void wrmsr(struct cpu *cpu, const struct op *op)
{
    uint32_t msr = (uint32_t)cpu->gpr[RCX];
    require_cpl0(cpu);
    if (!msr_write(cpu, msr, cpu->gpr[RDX] << 32 | (uint32_t)cpu->gpr[RAX]))
        refuse(cpu, "write", msr);
    cpu->rip = op_next_rip(cpu, op);
}

static void rdtsc(struct cpu *cpu, const struct op *op)
{
    if ((cpu->cr4 & CR4_TSD) && cpu->cpl != 0)
        cpu_raise_code(cpu, VECTOR_GP, 0);
    uint64_t value = tsc_guest(cpu);
    cpu->gpr[RAX] = (uint32_t)value;
    cpu->gpr[RDX] = value >> 32;
}

static void rdtscp(struct cpu *cpu, const struct op *op)
{
    rdtsc(cpu, op);
    cpu->gpr[RCX] = (uint32_t)cpu->tsc_aux;
}

static void rdpid(struct cpu *cpu, const struct op *op)
{
    *op_reg64(cpu, op->reg[0]) = (uint32_t)cpu->tsc_aux;
}

/* There are no counters. */
static void rdpmc(struct cpu *cpu, const struct op *op)
{
    cpu_raise_code(cpu, VECTOR_GP, 0);
}

static void check_pkru(struct cpu *cpu)
{
    if (!(cpu->cr4 & CR4_PKE))
        cpu_raise(cpu, VECTOR_UD);
    if ((uint32_t)cpu->gpr[RCX] != 0)
        cpu_raise_code(cpu, VECTOR_GP, 0);
}

static void rdpkru(struct cpu *cpu, const struct op *op)
{
    check_pkru(cpu);
    cpu->gpr[RAX] = cpu->pkru;
    cpu->gpr[RDX] = 0;
}

static void wrpkru(struct cpu *cpu, const struct op *op)
{
    check_pkru(cpu);
    if ((uint32_t)cpu->gpr[RDX] != 0)
        cpu_raise_code(cpu, VECTOR_GP, 0);
    cpu_set_pkru(cpu, (uint32_t)cpu->gpr[RAX]);
}

bool bind_msr(const struct insn *insn, struct op *op)
{
    switch (insn->info->mnemonic) {
    case ZYDIS_MNEMONIC_RDMSR: op->fn = rdmsr; return true;
    case ZYDIS_MNEMONIC_WRMSR:
        op->fn = wrmsr;
        op->flags |= OP_ENDS_BLOCK;
        return true;
    case ZYDIS_MNEMONIC_RDTSC: op->fn = rdtsc; return true;
    case ZYDIS_MNEMONIC_RDTSCP: op->fn = rdtscp; return true;
    case ZYDIS_MNEMONIC_RDPID: op->fn = rdpid; return true;
    case ZYDIS_MNEMONIC_RDPMC: op->fn = rdpmc; return true;
    case ZYDIS_MNEMONIC_RDPKRU: op->fn = rdpkru; return true;
    case ZYDIS_MNEMONIC_WRPKRU: op->fn = wrpkru; return true;
    default: return false;
    }
}
