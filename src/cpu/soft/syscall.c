/* SPDX-License-Identifier: BSD-2-Clause
 *
 * SYSCALL SYSRET SYSENTER SYSEXIT SWAPGS, RD/WR FS/GS BASE: SDM 2B, APM 3. Where Intel and AMD
 * differ the processor is as the vendor that CPUID names: SYSCALL from compatibility mode is AMD's,
 * SYSENTER in long mode is Intel's.
 */
#include "cpu/soft/core.h"

#include "cpu/soft/debug.h"

enum {
    ATTRIBUTES_CODE64 = 0xa09b,
    ATTRIBUTES_CODE32 = 0xc09b,
    ATTRIBUTES_DATA = 0xc093,
    DPL3 = 3 << SEGMENT_DPL_SHIFT,
};

/* Flat segments, as these instructions load them without a look at the tables. */
static void set_flat(struct cpu *cpu, uint16_t cs, uint16_t ss, bool is_64bit, unsigned cpl)
{
    uint32_t dpl = cpl << SEGMENT_DPL_SHIFT;
    uint32_t code = is_64bit ? ATTRIBUTES_CODE64 : ATTRIBUTES_CODE32;
    cpu->segment[SEG_CS] = (struct x86_segment){0, UINT32_MAX, code | dpl, cs};
    cpu->segment[SEG_SS] = (struct x86_segment){0, UINT32_MAX, ATTRIBUTES_DATA | dpl, ss};
    cpu->cpl = (uint8_t)cpl;
}

/* Unlike other instructions, SYSCALL and SYSRET are trapped after by the TF that they load (as
 * processors do; so FMASK can keep the kernel from a #DB, and the one of a SYSCALL comes after the
 * SYSRET). */
static void trap_by_new_flags(struct cpu *cpu)
{
    cpu->traps = false;
    if (cpu->rflags & RFLAGS_TF)
        debug_trap(cpu, DR6_BS);
}

/* AMD's outside of long mode: no LSTAR, no R11, no mask. */
static void syscall_legacy(struct cpu *cpu, const struct op *op)
{
    uint16_t cs = cpu->star >> 32 & 0xfffc;
    cpu->gpr[RCX] = (uint32_t)op_next_rip(cpu, op);
    cpu->rflags &= ~(uint64_t)(RFLAGS_VM | RFLAGS_IF | RFLAGS_RF);
    set_flat(cpu, cs, (uint16_t)(cs + 8), false, 0);
    cpu->rip = (uint32_t)cpu->star;
    cpu_update_mode(cpu);
}

static void syscall(struct cpu *cpu, const struct op *op)
{
    bool is_amd = cpu->system->features.is_amd;
    if (!(cpu->efer & EFER_SCE) || !(cpu->cr0 & CR0_PE) || !(cpu_is_64bit(cpu) || is_amd))
        cpu_raise(cpu, VECTOR_UD);
    if (!is_long_mode(cpu)) {
        syscall_legacy(cpu, op);
        return;
    }
    uint64_t target = cpu_is_64bit(cpu) ? cpu->lstar : cpu->cstar;
    uint64_t flags = cpu_get_rflags(cpu);
    uint16_t cs = cpu->star >> 32 & 0xfffc;
    cpu->gpr[RCX] = op_next_rip(cpu, op);
    cpu->gpr[R11] = flags & ~(uint64_t)RFLAGS_RF;
    cpu_set_rflags(cpu, flags & ~cpu->sfmask & ~(uint64_t)RFLAGS_RF);
    set_flat(cpu, cs, (uint16_t)(cs + 8), true, 0);
    cpu->rip = target;
    cpu_update_mode(cpu);
    trap_by_new_flags(cpu);
}

/* AMD's outside of 64-bit mode: to 32-bit code, with interrupts on. */
static void sysret_legacy(struct cpu *cpu)
{
    uint16_t base = (uint16_t)(cpu->star >> 48);
    set_flat(cpu, base | 3, (uint16_t)((base + 8) | 3), false, 3);
    cpu->rip = (uint32_t)cpu->gpr[RCX];
    cpu->rflags |= RFLAGS_IF;
    cpu_update_mode(cpu);
}

static void sysret(struct cpu *cpu, const struct op *op)
{
    bool is_amd = cpu->system->features.is_amd;
    if (!(cpu->efer & EFER_SCE) || !(cpu_is_64bit(cpu) || is_amd))
        cpu_raise(cpu, VECTOR_UD);
    if (!(cpu->cr0 & CR0_PE))
        cpu_raise_code(cpu, VECTOR_GP, 0);
    require_cpl0(cpu);
    if (!cpu_is_64bit(cpu)) {
        sysret_legacy(cpu);
        return;
    }
    bool to_64bit = op->size_bytes == 8;
    uint64_t rip = to_64bit ? cpu->gpr[RCX] : (uint32_t)cpu->gpr[RCX];
    if (!is_canonical(rip) && !cpu->system->features.is_amd)
        cpu_raise_code(cpu, VECTOR_GP, 0);
    uint16_t base = (uint16_t)(cpu->star >> 48);
    uint16_t cs = (uint16_t)((base + (to_64bit ? 16 : 0)) | 3);
    set_flat(cpu, cs, (uint16_t)((base + 8) | 3), to_64bit, 3);
    cpu->rip = rip;
    flags_load(cpu, cpu->gpr[R11], UINT64_C(0x3c7fd7));
    cpu_update_mode(cpu);
    trap_by_new_flags(cpu);
}

static void sysenter(struct cpu *cpu, const struct op *op)
{
    if (is_long_mode(cpu) && cpu->system->features.is_amd)
        cpu_raise(cpu, VECTOR_UD);
    if (!(cpu->cr0 & CR0_PE) || !(cpu->sysenter_cs & 0xfffc))
        cpu_raise_code(cpu, VECTOR_GP, 0);
    bool is_long = is_long_mode(cpu);
    uint16_t cs = cpu->sysenter_cs & 0xfffc;
    set_flat(cpu, cs, (uint16_t)(cs + 8), is_long, 0);
    cpu->rflags &= ~(uint64_t)(RFLAGS_VM | RFLAGS_IF | RFLAGS_RF);
    cpu->gpr[RSP] = is_long ? cpu->sysenter_esp : (uint32_t)cpu->sysenter_esp;
    cpu->rip = is_long ? cpu->sysenter_eip : (uint32_t)cpu->sysenter_eip;
    cpu_update_mode(cpu);
}

static void sysexit(struct cpu *cpu, const struct op *op)
{
    if (is_long_mode(cpu) && cpu->system->features.is_amd)
        cpu_raise(cpu, VECTOR_UD);
    if (!(cpu->cr0 & CR0_PE) || !(cpu->sysenter_cs & 0xfffc))
        cpu_raise_code(cpu, VECTOR_GP, 0);
    require_cpl0(cpu);
    bool to_64bit = op->size_bytes == 8;
    uint64_t rip = to_64bit ? cpu->gpr[RDX] : (uint32_t)cpu->gpr[RDX];
    uint64_t rsp = to_64bit ? cpu->gpr[RCX] : (uint32_t)cpu->gpr[RCX];
    if (!is_canonical(rip) || !is_canonical(rsp))
        cpu_raise_code(cpu, VECTOR_GP, 0);
    uint16_t cs = (uint16_t)(((cpu->sysenter_cs & 0xfffc) + (to_64bit ? 32 : 16)) | 3);
    set_flat(cpu, cs, (uint16_t)(cs + 8), to_64bit, 3);
    cpu->rip = rip;
    cpu->gpr[RSP] = rsp;
    cpu_update_mode(cpu);
}

static void swapgs(struct cpu *cpu, const struct op *op)
{
    require_cpl0(cpu);
    uint64_t base = cpu->segment[SEG_GS].base;
    cpu->segment[SEG_GS].base = cpu->kernel_gs_base;
    cpu->kernel_gs_base = base;
}

static void require_fsgsbase(struct cpu *cpu)
{
    if (!(cpu->cr4 & CR4_FSGSBASE))
        cpu_raise(cpu, VECTOR_UD);
}

static void read_base(struct cpu *cpu, const struct op *op, enum x86_segment_name name)
{
    require_fsgsbase(cpu);
    register_write(cpu, op->reg[0], cpu->segment[name].base, op->size_bytes);
}

static void write_base(struct cpu *cpu, const struct op *op, enum x86_segment_name name)
{
    require_fsgsbase(cpu);
    uint64_t base = *op_reg64(cpu, op->reg[0]);
    if (op->size_bytes == 4)
        base = (uint32_t)base;
    if (!is_canonical(base))
        cpu_raise_code(cpu, VECTOR_GP, 0);
    cpu->segment[name].base = base;
}

static void rdfsbase(struct cpu *cpu, const struct op *op)
{
    read_base(cpu, op, SEG_FS);
}
static void rdgsbase(struct cpu *cpu, const struct op *op)
{
    read_base(cpu, op, SEG_GS);
}
static void wrfsbase(struct cpu *cpu, const struct op *op)
{
    write_base(cpu, op, SEG_FS);
}
static void wrgsbase(struct cpu *cpu, const struct op *op)
{
    write_base(cpu, op, SEG_GS);
}

bool bind_syscall(const struct insn *insn, struct op *op)
{
    bool ends_block = true;
    switch (insn->info->mnemonic) {
    case ZYDIS_MNEMONIC_SYSCALL: op->fn = syscall; break;
    case ZYDIS_MNEMONIC_SYSRET: op->fn = sysret; break;
    case ZYDIS_MNEMONIC_SYSENTER: op->fn = sysenter; break;
    case ZYDIS_MNEMONIC_SYSEXIT: op->fn = sysexit; break;
    default: ends_block = false;
    }
    switch (insn->info->mnemonic) {
    case ZYDIS_MNEMONIC_SWAPGS: op->fn = swapgs; break;
    case ZYDIS_MNEMONIC_RDFSBASE: op->fn = rdfsbase; break;
    case ZYDIS_MNEMONIC_RDGSBASE: op->fn = rdgsbase; break;
    case ZYDIS_MNEMONIC_WRFSBASE: op->fn = wrfsbase; break;
    case ZYDIS_MNEMONIC_WRGSBASE: op->fn = wrgsbase; break;
    default:
        if (!ends_block)
            return false;
    }
    if (ends_block) {
        op->size_bytes = insn->info->raw.rex.W ? 8 : 4;
        op->flags |= OP_ENDS_BLOCK;
    }
    return true;
}
