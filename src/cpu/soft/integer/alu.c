/* SPDX-License-Identifier: BSD-2-Clause
 *
 * ADD OR ADC SBB AND SUB XOR CMP TEST, INC DEC NEG NOT: SDM 2A. Each operation is the host's own,
 * so that its flags are too. A memory operand is worked on in place; with LOCK the host's
 * instruction is locked.
 */
#include "cpu/soft/integer/integer.h"

/* clang-format off */

/* `carry` is CARRY_IN for operations that read CF; "+a" hands the old flags in. */
#define COMPUTE(lock, carry, insn, suffix, destination, constraint, source)                        \
    __asm__ volatile(carry lock insn suffix " %[src], %[dst]\n\t" FLAGS_OUT                        \
                     : "+a"(cc), [dst] constraint(destination)                                     \
                     : [src] "r"(source)                                                           \
                     : "cc", "memory")

#define BINARY_REGISTER(name, insn, carry, bits, suffix, writes)                                   \
    static void name##_rr##bits(struct cpu *cpu, const struct op *op)                              \
    {                                                                                              \
        uint32_t cc = cpu->cc;                                                                     \
        word##bits d = get##bits(cpu, op->reg[0]);                                                 \
        word##bits s = get##bits(cpu, op->reg[1]);                                                 \
        COMPUTE("", carry, insn, suffix, d, "+r", s);                                              \
        if (writes)                                                                                \
            put##bits(cpu, op->reg[0], d);                                                         \
        cpu->cc = (uint16_t)cc;                                                                    \
    }                                                                                              \
    static void name##_ri##bits(struct cpu *cpu, const struct op *op)                              \
    {                                                                                              \
        uint32_t cc = cpu->cc;                                                                     \
        word##bits d = get##bits(cpu, op->reg[0]);                                                 \
        COMPUTE("", carry, insn, suffix, d, "+r", (word##bits)op->imm);                            \
        if (writes)                                                                                \
            put##bits(cpu, op->reg[0], d);                                                         \
        cpu->cc = (uint16_t)cc;                                                                    \
    }                                                                                              \
    static void name##_rm##bits(struct cpu *cpu, const struct op *op)                              \
    {                                                                                              \
        uint32_t cc = cpu->cc;                                                                     \
        word##bits s = memory_read##bits(cpu, op_address(cpu, op, bits / 8, ACCESS_READ));         \
        word##bits d = get##bits(cpu, op->reg[0]);                                                 \
        COMPUTE("", carry, insn, suffix, d, "+r", s);                                              \
        if (writes)                                                                                \
            put##bits(cpu, op->reg[0], d);                                                         \
        cpu->cc = (uint16_t)cc;                                                                    \
    }

#define BINARY_MEMORY_WITH(name, lock, locked, insn, carry, bits, suffix, source)                  \
    static void name##bits(struct cpu *cpu, const struct op *op)                                   \
    {                                                                                              \
        uint32_t cc = cpu->cc;                                                                     \
        uint64_t linear = op_address(cpu, op, bits / 8, ACCESS_WRITE);                             \
        word##bits *hva = memory_rmw_begin(cpu, linear, bits / 8, locked);                         \
        COMPUTE(lock, carry, insn, suffix, *hva, "+m", source);                                    \
        memory_rmw_end(cpu, linear, bits / 8, locked, hva);                                        \
        cpu->cc = (uint16_t)cc;                                                                    \
    }

#define BINARY_MEMORY(name, insn, carry, bits, suffix)                                             \
    BINARY_MEMORY_WITH(name##_mr, "", false, insn, carry, bits, suffix,                            \
                       get##bits(cpu, op->reg[1]))                                                 \
    BINARY_MEMORY_WITH(name##_mi, "", false, insn, carry, bits, suffix, (word##bits)op->imm)       \
    BINARY_MEMORY_WITH(name##_lock_mr, "lock; ", true, insn, carry, bits, suffix,                  \
                       get##bits(cpu, op->reg[1]))                                                 \
    BINARY_MEMORY_WITH(name##_lock_mi, "lock; ", true, insn, carry, bits, suffix,                  \
                       (word##bits)op->imm)

#define READ_ONLY_MEMORY(name, insn, bits, suffix)                                                 \
    static void name##_mr##bits(struct cpu *cpu, const struct op *op)                              \
    {                                                                                              \
        uint32_t cc = 0;                                                                           \
        word##bits d = memory_read##bits(cpu, op_address(cpu, op, bits / 8, ACCESS_READ));         \
        COMPUTE("", "", insn, suffix, d, "+r", get##bits(cpu, op->reg[1]));                        \
        cpu->cc = (uint16_t)cc;                                                                    \
    }                                                                                              \
    static void name##_mi##bits(struct cpu *cpu, const struct op *op)                              \
    {                                                                                              \
        uint32_t cc = 0;                                                                           \
        word##bits d = memory_read##bits(cpu, op_address(cpu, op, bits / 8, ACCESS_READ));         \
        COMPUTE("", "", insn, suffix, d, "+r", (word##bits)op->imm);                               \
        cpu->cc = (uint16_t)cc;                                                                    \
    }

#define BINARY_SIZE(name, insn, carry, bits, suffix)                                               \
    BINARY_REGISTER(name, insn, carry, bits, suffix, true)                                         \
    BINARY_MEMORY(name, insn, carry, bits, suffix)

#define BINARY_ROW(name, bits)                                                                     \
    {                                                                                              \
        [AT_RR] = name##_rr##bits, [AT_RI] = name##_ri##bits, [AT_RM] = name##_rm##bits,           \
        [AT_MR] = name##_mr##bits, [AT_MI] = name##_mi##bits,                                      \
        [AT_LOCK_MR] = name##_lock_mr##bits, [AT_LOCK_MI] = name##_lock_mi##bits,                  \
    }

#define BINARY(name, insn, carry)                                                                  \
    BINARY_SIZE(name, insn, carry, 8, "b")                                                         \
    BINARY_SIZE(name, insn, carry, 16, "w")                                                        \
    BINARY_SIZE(name, insn, carry, 32, "l")                                                        \
    BINARY_SIZE(name, insn, carry, 64, "q")                                                        \
    static op_fn *const name##_fns[4][AT_COUNT] = {                                                \
        BINARY_ROW(name, 8), BINARY_ROW(name, 16), BINARY_ROW(name, 32), BINARY_ROW(name, 64)};

#define COMPARE_SIZE(name, insn, bits, suffix)                                                     \
    BINARY_REGISTER(name, insn, "", bits, suffix, false)                                           \
    READ_ONLY_MEMORY(name, insn, bits, suffix)

#define COMPARE_ROW(name, bits)                                                                    \
    {                                                                                              \
        [AT_RR] = name##_rr##bits, [AT_RI] = name##_ri##bits, [AT_RM] = name##_rm##bits,           \
        [AT_MR] = name##_mr##bits, [AT_MI] = name##_mi##bits,                                      \
    }

#define COMPARE(name, insn)                                                                        \
    COMPARE_SIZE(name, insn, 8, "b")                                                               \
    COMPARE_SIZE(name, insn, 16, "w")                                                              \
    COMPARE_SIZE(name, insn, 32, "l")                                                              \
    COMPARE_SIZE(name, insn, 64, "q")                                                              \
    static op_fn *const name##_fns[4][AT_COUNT] = {                                                \
        COMPARE_ROW(name, 8), COMPARE_ROW(name, 16), COMPARE_ROW(name, 32), COMPARE_ROW(name, 64)};

BINARY(add, "add", "")
BINARY(or, "or", "")
BINARY(adc, "adc", CARRY_IN)
BINARY(sbb, "sbb", CARRY_IN)
BINARY(and, "and", "")
BINARY(sub, "sub", "")
BINARY(xor, "xor", "")
COMPARE(cmp, "cmp")
COMPARE(test, "test")

/* INC and DEC leave CF alone, NOT leaves all flags alone: the flags go in first. */
#define UNARY_SIZE(name, insn, bits, suffix)                                                       \
    static void name##_r##bits(struct cpu *cpu, const struct op *op)                               \
    {                                                                                              \
        uint32_t cc = cpu->cc;                                                                     \
        word##bits d = get##bits(cpu, op->reg[0]);                                                 \
        __asm__ volatile(FLAGS_IN insn suffix " %[dst]\n\t" FLAGS_OUT                              \
                         : "+a"(cc), [dst] "+r"(d) : : "cc");                                      \
        put##bits(cpu, op->reg[0], d);                                                             \
        cpu->cc = (uint16_t)cc;                                                                    \
    }                                                                                              \
    UNARY_MEMORY(name##_m, "", false, insn, bits, suffix)                                          \
    UNARY_MEMORY(name##_lock_m, "lock; ", true, insn, bits, suffix)

#define UNARY_MEMORY(name, lock, locked, insn, bits, suffix)                                       \
    static void name##bits(struct cpu *cpu, const struct op *op)                                   \
    {                                                                                              \
        uint32_t cc = cpu->cc;                                                                     \
        uint64_t linear = op_address(cpu, op, bits / 8, ACCESS_WRITE);                             \
        word##bits *hva = memory_rmw_begin(cpu, linear, bits / 8, locked);                         \
        __asm__ volatile(FLAGS_IN lock insn suffix " %[dst]\n\t" FLAGS_OUT                         \
                         : "+a"(cc), [dst] "+m"(*hva) : : "cc", "memory");                         \
        memory_rmw_end(cpu, linear, bits / 8, locked, hva);                                        \
        cpu->cc = (uint16_t)cc;                                                                    \
    }

#define UNARY_ROW(name, bits)                                                                      \
    { [AT_R] = name##_r##bits, [AT_M] = name##_m##bits, [AT_LOCK_M] = name##_lock_m##bits }

#define UNARY(name, insn)                                                                          \
    UNARY_SIZE(name, insn, 8, "b")                                                                 \
    UNARY_SIZE(name, insn, 16, "w")                                                                \
    UNARY_SIZE(name, insn, 32, "l")                                                                \
    UNARY_SIZE(name, insn, 64, "q")                                                                \
    static op_fn *const name##_fns[4][AT_COUNT] = {                                                \
        UNARY_ROW(name, 8), UNARY_ROW(name, 16), UNARY_ROW(name, 32), UNARY_ROW(name, 64)};

UNARY(inc, "inc")
UNARY(dec, "dec")
UNARY(neg, "neg")
UNARY(not, "not")

/* clang-format on */

/* XOR or SUB of a register with itself: the idiom for zero. The flags are constant. */
static void zero_r(struct cpu *cpu, const struct op *op)
{
    put64(cpu, op->reg[0], 0);
    cpu->cc = CC_ZF | CC_PF | 1 << 9; /* bit 1 of RFLAGS reads as one, as LAHF gives it */
}

static bool is_zero_idiom(const struct insn *insn, const struct op *op)
{
    return insn->form == FORM_RR && op->reg[0] == op->reg[1] && op->size_bytes >= 4;
}

bool bind_alu(const struct insn *insn, struct op *op)
{
    switch (insn->info->mnemonic) {
    case ZYDIS_MNEMONIC_ADD: return bind_row(insn, op, add_fns);
    case ZYDIS_MNEMONIC_OR: return bind_row(insn, op, or_fns);
    case ZYDIS_MNEMONIC_ADC: return bind_row(insn, op, adc_fns);
    case ZYDIS_MNEMONIC_SBB: return bind_row(insn, op, sbb_fns);
    case ZYDIS_MNEMONIC_AND: return bind_row(insn, op, and_fns);
    case ZYDIS_MNEMONIC_CMP: return bind_row(insn, op, cmp_fns);
    case ZYDIS_MNEMONIC_TEST: return bind_row(insn, op, test_fns);
    case ZYDIS_MNEMONIC_SUB: return bind_row(insn, op, sub_fns);
    case ZYDIS_MNEMONIC_XOR:
        if (is_zero_idiom(insn, op)) {
            op->fn = zero_r;
            return true;
        }
        return bind_row(insn, op, xor_fns);
    case ZYDIS_MNEMONIC_INC: return bind_row(insn, op, inc_fns);
    case ZYDIS_MNEMONIC_DEC: return bind_row(insn, op, dec_fns);
    case ZYDIS_MNEMONIC_NEG: return bind_row(insn, op, neg_fns);
    case ZYDIS_MNEMONIC_NOT: return bind_row(insn, op, not_fns);
    default: return false;
    }
}
