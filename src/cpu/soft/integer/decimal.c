/* SPDX-License-Identifier: BSD-2-Clause
 *
 * AAA AAD AAM AAS DAA DAS and BOUND, which exist outside 64-bit mode only: SDM 2A. A 64-bit host
 * cannot run them, so they are computed here; flags that the manual leaves undefined are set by
 * the result where that is natural, and cleared otherwise.
 */
#include "cpu/soft/integer/integer.h"

static uint16_t result_flags(uint8_t value)
{
    unsigned flags = 1 << 9; /* bit 1 of RFLAGS */
    if (value == 0)
        flags |= CC_ZF;
    if (value & 0x80)
        flags |= CC_SF;
    if (!__builtin_parity(value))
        flags |= CC_PF;
    return (uint16_t)flags;
}

static uint8_t al(const struct cpu *cpu)
{
    return (uint8_t)cpu->gpr[RAX];
}
static uint8_t ah(const struct cpu *cpu)
{
    return (uint8_t)(cpu->gpr[RAX] >> 8);
}

static void set_ax(struct cpu *cpu, uint8_t high, uint8_t low)
{
    put16(cpu, RAX, (uint16_t)(high << 8 | low));
}

/* AAA and AAS: the low nibble is a digit; carry goes to AH. */
static void ascii_adjust(struct cpu *cpu, int direction)
{
    uint16_t ax = (uint16_t)cpu->gpr[RAX];
    bool adjust = (ax & 0xf) > 9 || cpu->cc & CC_AF;
    if (adjust)
        ax = (uint16_t)(ax + direction * 0x106);
    uint8_t low = ax & 0xf;
    set_ax(cpu, (uint8_t)(ax >> 8), low);
    cpu->cc = (uint16_t)(result_flags(low) | (adjust ? CC_AF | CC_CF : 0));
}

static void aaa(struct cpu *cpu, const struct op *op)
{
    ascii_adjust(cpu, 1);
}
static void aas(struct cpu *cpu, const struct op *op)
{
    ascii_adjust(cpu, -1);
}

static void aad(struct cpu *cpu, const struct op *op)
{
    uint8_t low = (uint8_t)(al(cpu) + ah(cpu) * (uint8_t)op->imm);
    set_ax(cpu, 0, low);
    cpu->cc = result_flags(low);
}

static void aam(struct cpu *cpu, const struct op *op)
{
    uint8_t base = (uint8_t)op->imm;
    if (base == 0)
        cpu_raise(cpu, VECTOR_DE);
    uint8_t low = al(cpu) % base;
    set_ax(cpu, al(cpu) / base, low);
    cpu->cc = result_flags(low);
}

/* DAA and DAS: both nibbles are digits. */
static void decimal_adjust(struct cpu *cpu, int direction)
{
    uint8_t old = al(cpu);
    uint8_t value = old;
    unsigned flags = 0;
    if ((old & 0xf) > 9 || cpu->cc & CC_AF) {
        bool carry = direction > 0 ? value > 0xf9 : value < 6;
        value = (uint8_t)(value + direction * 6);
        flags |= CC_AF | (carry || cpu->cc & CC_CF ? CC_CF : 0);
    }
    if (old > 0x99 || cpu->cc & CC_CF) {
        value = (uint8_t)(value + direction * 0x60);
        flags |= CC_CF;
    }
    put8(cpu, RAX, value);
    cpu->cc = (uint16_t)(result_flags(value) | flags);
}

static void daa(struct cpu *cpu, const struct op *op)
{
    decimal_adjust(cpu, 1);
}
static void das(struct cpu *cpu, const struct op *op)
{
    decimal_adjust(cpu, -1);
}

/* BOUND: a signed index against the pair of bounds in memory. */
static void bound(struct cpu *cpu, const struct op *op)
{
    unsigned size_bytes = op->size_bytes;
    uint32_t pair[2] = {0, 0};
    uint64_t linear = op_address(cpu, op, 2 * size_bytes, ACCESS_READ);
    memory_read(cpu, linear, &pair[0], size_bytes);
    memory_read(cpu, linear + size_bytes, &pair[1], size_bytes);
    uint32_t index = get32(cpu, op->reg[0]);
    bool outside;
    if (size_bytes == 2)
        outside = (int16_t)index < (int16_t)pair[0] || (int16_t)index > (int16_t)pair[1];
    else
        outside = (int32_t)index < (int32_t)pair[0] || (int32_t)index > (int32_t)pair[1];
    if (outside)
        cpu_raise(cpu, VECTOR_BR);
}

bool bind_decimal(const struct insn *insn, struct op *op)
{
    switch (insn->info->mnemonic) {
    case ZYDIS_MNEMONIC_AAA: op->fn = aaa; return true;
    case ZYDIS_MNEMONIC_AAS: op->fn = aas; return true;
    case ZYDIS_MNEMONIC_AAD: op->fn = aad; return true;
    case ZYDIS_MNEMONIC_AAM: op->fn = aam; return true;
    case ZYDIS_MNEMONIC_DAA: op->fn = daa; return true;
    case ZYDIS_MNEMONIC_DAS: op->fn = das; return true;
    case ZYDIS_MNEMONIC_BOUND: op->fn = bound; return true;
    default: return false;
    }
}
