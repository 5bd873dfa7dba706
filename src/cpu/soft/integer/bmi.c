/* SPDX-License-Identifier: BSD-2-Clause
 *
 * BMI1, BMI2 and ADX: SDM 2A, 2B, 2C. Operands are 32 or 64 bits wide.
 */
#include "cpu/soft/integer/integer.h"

/* clang-format off */

/* The operand that may stand in memory; `at` is its place among the registers. */
#define SOURCE(bits, at)                                                                           \
    (op->flags & OP_MEMORY_SOURCE                                                                  \
         ? memory_read##bits(cpu, op_address(cpu, op, bits / 8, ACCESS_READ))                      \
         : get##bits(cpu, op->reg[at]))

/* dst = insn(a, b) in AT&T order "insn last, …, dst". `flags` is FLAGS_OUT or "". */
#define THREE(name, insn, first, second, bits)                                                     \
    static void name##bits(struct cpu *cpu, const struct op *op)                                   \
    {                                                                                              \
        uint32_t cc = cpu->cc;                                                                     \
        word##bits a = first(bits, 1);                                                             \
        word##bits b = second(bits, 2);                                                            \
        word##bits d;                                                                              \
        __asm__ volatile(FLAGS_IN insn " %[b], %[a], %[dst]\n\t" FLAGS_OUT                         \
                         : "+a"(cc), [dst] "=&r"(d) : [a] "r"(a), [b] "r"(b) : "cc");              \
        put##bits(cpu, op->reg[0], d);                                                             \
        cpu->cc = (uint16_t)cc;                                                                    \
    }
#define REGISTER(bits, at) get##bits(cpu, op->reg[at])
#define THREE_BOTH(name, insn, first, second)                                                      \
    THREE(name, insn, first, second, 32)                                                           \
    THREE(name, insn, first, second, 64)                                                           \
    static op_fn *const name##_fns[2] = {name##32, name##64};

THREE_BOTH(andn, "andn", REGISTER, SOURCE)
THREE_BOTH(pdep, "pdep", REGISTER, SOURCE)
THREE_BOTH(pext, "pext", REGISTER, SOURCE)
/* These have the memory operand second in Intel's order: dst, r/m, register. */
THREE_BOTH(bextr, "bextr", SOURCE, REGISTER)
THREE_BOTH(bzhi, "bzhi", SOURCE, REGISTER)
THREE_BOTH(sarx, "sarx", SOURCE, REGISTER)
THREE_BOTH(shlx, "shlx", SOURCE, REGISTER)
THREE_BOTH(shrx, "shrx", SOURCE, REGISTER)

#define TWO(name, insn, bits)                                                                      \
    static void name##bits(struct cpu *cpu, const struct op *op)                                   \
    {                                                                                              \
        uint32_t cc = cpu->cc;                                                                     \
        word##bits s = SOURCE(bits, 1);                                                            \
        word##bits d;                                                                              \
        __asm__ volatile(FLAGS_IN insn " %[src], %[dst]\n\t" FLAGS_OUT                             \
                         : "+a"(cc), [dst] "=&r"(d) : [src] "r"(s) : "cc");                        \
        put##bits(cpu, op->reg[0], d);                                                             \
        cpu->cc = (uint16_t)cc;                                                                    \
    }
#define TWO_BOTH(name, insn)                                                                       \
    TWO(name, insn, 32)                                                                            \
    TWO(name, insn, 64)                                                                            \
    static op_fn *const name##_fns[2] = {name##32, name##64};
TWO_BOTH(blsi, "blsi")
TWO_BOTH(blsmsk, "blsmsk")
TWO_BOTH(blsr, "blsr")

/* ADCX reads and writes CF alone, ADOX OF alone. */
#define ADD_CARRY(name, insn, bits)                                                                \
    static void name##bits(struct cpu *cpu, const struct op *op)                                   \
    {                                                                                              \
        uint32_t cc = cpu->cc;                                                                     \
        word##bits s = SOURCE(bits, 1);                                                            \
        word##bits d = get##bits(cpu, op->reg[0]);                                                 \
        __asm__ volatile(FLAGS_IN insn " %[src], %[dst]\n\t" FLAGS_OUT                             \
                         : "+a"(cc), [dst] "+r"(d) : [src] "r"(s) : "cc");                         \
        put##bits(cpu, op->reg[0], d);                                                             \
        cpu->cc = (uint16_t)cc;                                                                    \
    }
ADD_CARRY(adcx, "adcx", 32)
ADD_CARRY(adcx, "adcx", 64)
ADD_CARRY(adox, "adox", 32)
ADD_CARRY(adox, "adox", 64)
static op_fn *const adcx_fns[2] = {adcx32, adcx64};
static op_fn *const adox_fns[2] = {adox32, adox64};

/* clang-format on */

/* MULX: high half to operand 0, low half to operand 1; when they are one register, the high half
 * stays (SDM 2B MULX). No flags. */
static void mulx32(struct cpu *cpu, const struct op *op)
{
    uint64_t product = (uint64_t)SOURCE(32, 2) * (uint32_t)cpu->gpr[RDX];
    put32(cpu, op->reg[1], (uint32_t)product);
    put32(cpu, op->reg[0], (uint32_t)(product >> 32));
}

static void mulx64(struct cpu *cpu, const struct op *op)
{
    unsigned __int128 product = (unsigned __int128)SOURCE(64, 2) * cpu->gpr[RDX];
    put64(cpu, op->reg[1], (uint64_t)product);
    put64(cpu, op->reg[0], (uint64_t)(product >> 64));
}

static void rorx32(struct cpu *cpu, const struct op *op)
{
    uint32_t value = SOURCE(32, 1);
    unsigned count = op->imm & 31;
    put32(cpu, op->reg[0], value >> count | value << (-count & 31));
}

static void rorx64(struct cpu *cpu, const struct op *op)
{
    uint64_t value = SOURCE(64, 1);
    unsigned count = op->imm & 63;
    put64(cpu, op->reg[0], value >> count | value << (-count & 63));
}

static op_fn *const *bmi_fns(ZydisMnemonic mnemonic)
{
    static op_fn *const mulx_fns[2] = {mulx32, mulx64};
    static op_fn *const rorx_fns[2] = {rorx32, rorx64};
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_ANDN: return andn_fns;
    case ZYDIS_MNEMONIC_BEXTR: return bextr_fns;
    case ZYDIS_MNEMONIC_BLSI: return blsi_fns;
    case ZYDIS_MNEMONIC_BLSMSK: return blsmsk_fns;
    case ZYDIS_MNEMONIC_BLSR: return blsr_fns;
    case ZYDIS_MNEMONIC_BZHI: return bzhi_fns;
    case ZYDIS_MNEMONIC_MULX: return mulx_fns;
    case ZYDIS_MNEMONIC_PDEP: return pdep_fns;
    case ZYDIS_MNEMONIC_PEXT: return pext_fns;
    case ZYDIS_MNEMONIC_RORX: return rorx_fns;
    case ZYDIS_MNEMONIC_SARX: return sarx_fns;
    case ZYDIS_MNEMONIC_SHLX: return shlx_fns;
    case ZYDIS_MNEMONIC_SHRX: return shrx_fns;
    case ZYDIS_MNEMONIC_ADCX: return adcx_fns;
    case ZYDIS_MNEMONIC_ADOX: return adox_fns;
    default: return NULL;
    }
}

bool bind_bmi(const struct insn *insn, struct op *op)
{
    op_fn *const *fns = bmi_fns(insn->info->mnemonic);
    /* BEXTR with an immediate is TBM's, which is not offered. */
    if (!fns || (insn->info->mnemonic == ZYDIS_MNEMONIC_BEXTR &&
                 insn->operands[2].type == ZYDIS_OPERAND_TYPE_IMMEDIATE))
        return false;
    for (unsigned i = 0; i < insn->info->operand_count_visible; i++)
        if (insn->operands[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
            op->flags |= OP_MEMORY_SOURCE;
    op->fn = fns[op->size_bytes == 8];
    return true;
}
