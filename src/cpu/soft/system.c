/* SPDX-License-Identifier: BSD-2-Clause
 *
 * bind_system: instructions about the processor itself. Most are in files of their own; here are
 * hints, fences and the instructions that are undefined on purpose.
 */
#include "cpu/soft/core.h"

#include <sched.h>

uint64_t operand_read(struct cpu *cpu, const struct op *op, unsigned operand, unsigned size_bytes)
{
    uint64_t value = 0;
    if (op->flags & OP_IN_MEMORY)
        memory_read(cpu, op_address(cpu, op, size_bytes, ACCESS_READ), &value, size_bytes);
    else
        memcpy(&value, op_reg8(cpu, op->reg[operand]), size_bytes);
    return value;
}

void register_write(struct cpu *cpu, uint8_t offset, uint64_t value, unsigned size_bytes)
{
    if (size_bytes == 2)
        *op_reg16(cpu, offset) = (uint16_t)value;
    else if (size_bytes == 1)
        *op_reg8(cpu, offset) = (uint8_t)value;
    else
        *op_reg64(cpu, offset) = size_bytes == 4 ? (uint32_t)value : value;
}

void operand_write(struct cpu *cpu, const struct op *op, uint64_t value, unsigned size_bytes)
{
    if (op->flags & OP_IN_MEMORY)
        memory_write(cpu, op_address(cpu, op, size_bytes, ACCESS_WRITE), &value, size_bytes);
    else
        register_write(cpu, op->reg[0], value, size_bytes);
}

static void op_hint(struct cpu *cpu, const struct op *op) {}

static void pause(struct cpu *cpu, const struct op *op)
{
    __builtin_ia32_pause();
}

static void mfence(struct cpu *cpu, const struct op *op)
{
    atomic_thread_fence(memory_order_seq_cst);
}

/* Caches are coherent and not modelled; the address must be one that can be read. */
static void cache_line(struct cpu *cpu, const struct op *op)
{
    uint8_t byte;
    memory_read(cpu, op_address(cpu, op, 1, ACCESS_READ), &byte, 1);
}

static void cache_all(struct cpu *cpu, const struct op *op)
{
    require_cpl0(cpu);
}

static void ud(struct cpu *cpu, const struct op *op)
{
    cpu_raise(cpu, VECTOR_UD);
}

static op_fn *hint_fn(const struct insn *insn)
{
    switch (insn->info->mnemonic) {
    case ZYDIS_MNEMONIC_NOP:
    case ZYDIS_MNEMONIC_PREFETCH:
    case ZYDIS_MNEMONIC_PREFETCHNTA:
    case ZYDIS_MNEMONIC_PREFETCHT0:
    case ZYDIS_MNEMONIC_PREFETCHT1:
    case ZYDIS_MNEMONIC_PREFETCHT2:
    case ZYDIS_MNEMONIC_PREFETCHW:
    case ZYDIS_MNEMONIC_PREFETCHWT1:
    case ZYDIS_MNEMONIC_LFENCE: return op_hint;
    case ZYDIS_MNEMONIC_SERIALIZE: /* changed code is never run from a copy */
    case ZYDIS_MNEMONIC_SFENCE:
    case ZYDIS_MNEMONIC_MFENCE: return mfence;
    case ZYDIS_MNEMONIC_PAUSE: return insn->info->raw.rex.B ? NULL : pause; /* XCHG R8 */
    case ZYDIS_MNEMONIC_CLFLUSH:
    case ZYDIS_MNEMONIC_CLFLUSHOPT:
    case ZYDIS_MNEMONIC_CLWB: return cache_line;
    case ZYDIS_MNEMONIC_WBINVD:
    case ZYDIS_MNEMONIC_INVD: return cache_all;
    case ZYDIS_MNEMONIC_UD0:
    case ZYDIS_MNEMONIC_UD1:
    case ZYDIS_MNEMONIC_UD2: return ud;
    default: return NULL;
    }
}

bool bind_system(const struct insn *insn, struct op *op)
{
    op->fn = hint_fn(insn);
    if (op->fn) {
        if (op->fn == ud)
            op->flags |= OP_ENDS_BLOCK;
        return true;
    }
    return bind_control(insn, op) || bind_flags(insn, op) || bind_selector(insn, op) ||
           bind_far(insn, op) || bind_interrupt(insn, op) || bind_syscall(insn, op) ||
           bind_msr(insn, op) || bind_cpuid(insn, op) || bind_io(insn, op) ||
           bind_hypercall(insn, op) || bind_monitor(insn, op);
}
