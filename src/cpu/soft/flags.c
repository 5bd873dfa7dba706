/* SPDX-License-Identifier: BSD-2-Clause
 * CLI STI PUSHF POPF CLAC STAC: SDM 2A, 2B; 3A 6.8.1, 20.3.3, 20.4 (CR4.VME and PVI). */
#include "cpu/soft/block.h"

void flags_load(struct cpu *cpu, uint64_t value, uint64_t mask)
{
    cpu_set_rflags(cpu, (cpu_get_rflags(cpu) & ~mask) | (value & mask));
    if (cpu->rflags & RFLAGS_TF)
        cpu_look(cpu);
}

void flags_begin_shadow(struct cpu *cpu, bool by_mov_ss)
{
    if (by_mov_ss)
        cpu->mov_ss_shadow = true;
    else
        cpu->interrupt_shadow = true;
    cpu_look(cpu);
}

static bool has_io_privilege(const struct cpu *cpu)
{
    return cpu->cpl <= (cpu->rflags & RFLAGS_IOPL) >> 12;
}

/* Whether CLI and STI are about VIF instead of IF; #GP(0) when they may not be used. */
static bool is_if_virtual(struct cpu *cpu)
{
    if (has_io_privilege(cpu))
        return false;
    uint64_t needed = cpu->rflags & RFLAGS_VM ? CR4_VME : CR4_PVI;
    if (cpu->cpl != 3 || !(cpu->cr4 & needed))
        cpu_raise_code(cpu, VECTOR_GP, 0);
    return true;
}

static void cli(struct cpu *cpu, const struct op *op)
{
    if (is_if_virtual(cpu))
        cpu->rflags &= ~(uint64_t)RFLAGS_VIF;
    else
        cpu->rflags &= ~(uint64_t)RFLAGS_IF;
}

static void sti(struct cpu *cpu, const struct op *op)
{
    if (is_if_virtual(cpu)) {
        if (cpu->rflags & RFLAGS_VIP)
            cpu_raise_code(cpu, VECTOR_GP, 0);
        cpu->rflags |= RFLAGS_VIF;
        return;
    }
    if (cpu->rflags & RFLAGS_IF)
        return;
    cpu->rflags |= RFLAGS_IF;
    /* The next instruction mostly is the last of this block, and that is the shadow. */
    if (cpu->is_stepping || op + 1 == cpu->block->end)
        flags_begin_shadow(cpu, false);
}

static void pushf(struct cpu *cpu, const struct op *op)
{
    uint64_t value = cpu_get_rflags(cpu);
    if (cpu->rflags & RFLAGS_VM)
        value = v86_pushed_flags(cpu, value, op->size_bytes);
    value &= ~(uint64_t)(RFLAGS_VM | RFLAGS_RF);
    stack_push(cpu, value, op->size_bytes);
}

static void popf(struct cpu *cpu, const struct op *op)
{
    uint64_t value = stack_peek(cpu, 0, op->size_bytes);
    uint64_t mask = RFLAGS_ARITHMETIC | RFLAGS_TF | RFLAGS_DF | RFLAGS_NT;
    if (op->size_bytes > 2)
        mask |= RFLAGS_AC | RFLAGS_ID;
    if (has_io_privilege(cpu))
        mask |= RFLAGS_IF;
    if (cpu->cpl == 0)
        mask |= RFLAGS_IOPL;
    if (cpu->rflags & RFLAGS_VM)
        value = v86_popped_flags(cpu, value, &mask, op->size_bytes);
    stack_set_pointer(cpu, cpu->gpr[RSP] + op->size_bytes);
    flags_load(cpu, value, mask);
    cpu_update_view(cpu);
    cpu->rip = op_next_rip(cpu, op);
}

static void set_ac(struct cpu *cpu, bool is_set)
{
    if (cpu->cpl != 0)
        cpu_raise(cpu, VECTOR_UD);
    cpu->rflags &= ~(uint64_t)RFLAGS_AC;
    if (is_set)
        cpu->rflags |= RFLAGS_AC;
    cpu_update_view(cpu);
}

static void clac(struct cpu *cpu, const struct op *op)
{
    set_ac(cpu, false);
}
static void stac(struct cpu *cpu, const struct op *op)
{
    set_ac(cpu, true);
}

bool bind_flags(const struct insn *insn, struct op *op)
{
    switch (insn->info->mnemonic) {
    case ZYDIS_MNEMONIC_CLI: op->fn = cli; break;
    case ZYDIS_MNEMONIC_STI: op->fn = sti; break;
    case ZYDIS_MNEMONIC_CLAC: op->fn = clac; break;
    case ZYDIS_MNEMONIC_STAC: op->fn = stac; break;
    case ZYDIS_MNEMONIC_PUSHF:
    case ZYDIS_MNEMONIC_PUSHFD:
    case ZYDIS_MNEMONIC_PUSHFQ: op->fn = pushf; break;
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_POPFQ: op->fn = popf; break;
    default: return false;
    }
    op->size_bytes = (uint8_t)(insn->info->operand_width / 8);
    if (op->fn == popf)
        op->flags |= OP_ENDS_BLOCK;
    if (op->fn == sti)
        op->flags |= OP_ENDS_SOON;
    return true;
}
