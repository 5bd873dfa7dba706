/* SPDX-License-Identifier: BSD-2-Clause
 *
 * SHL SHR SAR ROL ROR RCL RCR and SHLD SHRD: SDM 2B. The guest's flags go into the host before the
 * host's own shift, which so leaves them right for a count of zero as well.
 */
#include "cpu/soft/integer/integer.h"

/* clang-format off */

#define SHIFT(insn, suffix, destination, constraint, count)                                        \
    __asm__ volatile(FLAGS_IN insn suffix " %%cl, %[dst]\n\t" FLAGS_OUT                            \
                     : "+a"(cc), [dst] constraint(destination)                                     \
                     : "c"(count)                                                                  \
                     : "cc", "memory")

#define SHIFT_WITH(name, insn, bits, suffix, count)                                                \
    static void name##_r##bits(struct cpu *cpu, const struct op *op)                               \
    {                                                                                              \
        uint32_t cc = cpu->cc;                                                                     \
        word##bits d = get##bits(cpu, op->reg[0]);                                                 \
        SHIFT(insn, suffix, d, "+r", (uint8_t)(count));                                            \
        put##bits(cpu, op->reg[0], d);                                                             \
        cpu->cc = (uint16_t)cc;                                                                    \
    }                                                                                              \
    static void name##_m##bits(struct cpu *cpu, const struct op *op)                               \
    {                                                                                              \
        uint32_t cc = cpu->cc;                                                                     \
        uint64_t linear = op_address(cpu, op, bits / 8, ACCESS_WRITE);                             \
        word##bits *hva = memory_rmw_begin(cpu, linear, bits / 8, false);                          \
        SHIFT(insn, suffix, *hva, "+m", (uint8_t)(count));                                         \
        memory_rmw_end(cpu, linear, bits / 8, false, hva);                                         \
        cpu->cc = (uint16_t)cc;                                                                    \
    }

/* Rows of [by CL or immediate][size][register or memory]. */
#define SHIFT_SIZE(name, insn, bits, suffix)                                                       \
    SHIFT_WITH(name##_cl, insn, bits, suffix, cpu->gpr[RCX])                                       \
    SHIFT_WITH(name##_i, insn, bits, suffix, op->imm)

#define SHIFT_GROUP(name, insn)                                                                    \
    SHIFT_SIZE(name, insn, 8, "b")                                                                 \
    SHIFT_SIZE(name, insn, 16, "w")                                                                \
    SHIFT_SIZE(name, insn, 32, "l")                                                                \
    SHIFT_SIZE(name, insn, 64, "q")                                                                \
    static op_fn *const name##_fns[2][4][2] = {                                                    \
        {{name##_cl_r8, name##_cl_m8}, {name##_cl_r16, name##_cl_m16},                             \
         {name##_cl_r32, name##_cl_m32}, {name##_cl_r64, name##_cl_m64}},                          \
        {{name##_i_r8, name##_i_m8}, {name##_i_r16, name##_i_m16},                                 \
         {name##_i_r32, name##_i_m32}, {name##_i_r64, name##_i_m64}}};

SHIFT_GROUP(shl, "shl")
SHIFT_GROUP(shr, "shr")
SHIFT_GROUP(sar, "sar")
SHIFT_GROUP(rol, "rol")
SHIFT_GROUP(ror, "ror")
SHIFT_GROUP(rcl, "rcl")
SHIFT_GROUP(rcr, "rcr")

#define DOUBLE(insn, suffix, destination, constraint, source, count)                               \
    __asm__ volatile(FLAGS_IN insn suffix " %%cl, %[src], %[dst]\n\t" FLAGS_OUT                    \
                     : "+a"(cc), [dst] constraint(destination)                                     \
                     : "c"(count), [src] "r"(source)                                               \
                     : "cc", "memory")

#define DOUBLE_WITH(name, insn, bits, suffix, count)                                               \
    static void name##_r##bits(struct cpu *cpu, const struct op *op)                               \
    {                                                                                              \
        uint32_t cc = cpu->cc;                                                                     \
        word##bits d = get##bits(cpu, op->reg[0]);                                                 \
        DOUBLE(insn, suffix, d, "+r", get##bits(cpu, op->reg[1]), (uint8_t)(count));               \
        put##bits(cpu, op->reg[0], d);                                                             \
        cpu->cc = (uint16_t)cc;                                                                    \
    }                                                                                              \
    static void name##_m##bits(struct cpu *cpu, const struct op *op)                               \
    {                                                                                              \
        uint32_t cc = cpu->cc;                                                                     \
        uint64_t linear = op_address(cpu, op, bits / 8, ACCESS_WRITE);                             \
        word##bits *hva = memory_rmw_begin(cpu, linear, bits / 8, false);                          \
        DOUBLE(insn, suffix, *hva, "+m", get##bits(cpu, op->reg[1]), (uint8_t)(count));            \
        memory_rmw_end(cpu, linear, bits / 8, false, hva);                                         \
        cpu->cc = (uint16_t)cc;                                                                    \
    }

#define DOUBLE_GROUP(name, insn)                                                                   \
    DOUBLE_WITH(name##_cl, insn, 16, "w", cpu->gpr[RCX])                                           \
    DOUBLE_WITH(name##_cl, insn, 32, "l", cpu->gpr[RCX])                                           \
    DOUBLE_WITH(name##_cl, insn, 64, "q", cpu->gpr[RCX])                                           \
    DOUBLE_WITH(name##_i, insn, 16, "w", op->imm)                                                  \
    DOUBLE_WITH(name##_i, insn, 32, "l", op->imm)                                                  \
    DOUBLE_WITH(name##_i, insn, 64, "q", op->imm)                                                  \
    static op_fn *const name##_fns[2][4][2] = {                                                    \
        {{NULL, NULL}, {name##_cl_r16, name##_cl_m16},                                             \
         {name##_cl_r32, name##_cl_m32}, {name##_cl_r64, name##_cl_m64}},                          \
        {{NULL, NULL}, {name##_i_r16, name##_i_m16},                                               \
         {name##_i_r32, name##_i_m32}, {name##_i_r64, name##_i_m64}}};

DOUBLE_GROUP(shld, "shld")
DOUBLE_GROUP(shrd, "shrd")

/* clang-format on */

/* The count is the last visible operand: CL, an immediate, or the one of the D0 and D1 forms. */
static bool bind_count(const struct insn *insn, struct op *op, op_fn *const table[2][4][2])
{
    const ZydisDecodedOperand *count = &insn->operands[insn->info->operand_count_visible - 1];
    bool by_immediate = count->type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
    if (by_immediate)
        op->imm = (uint8_t)count->imm.value.u;
    bool in_memory = insn->operands[0].type == ZYDIS_OPERAND_TYPE_MEMORY;
    op->fn = table[by_immediate][size_index(op->size_bytes)][in_memory];
    return op->fn != NULL;
}

bool bind_shift(const struct insn *insn, struct op *op)
{
    switch (insn->info->mnemonic) {
    case ZYDIS_MNEMONIC_SHL: return bind_count(insn, op, shl_fns);
    case ZYDIS_MNEMONIC_SHR: return bind_count(insn, op, shr_fns);
    case ZYDIS_MNEMONIC_SAR: return bind_count(insn, op, sar_fns);
    case ZYDIS_MNEMONIC_ROL: return bind_count(insn, op, rol_fns);
    case ZYDIS_MNEMONIC_ROR: return bind_count(insn, op, ror_fns);
    case ZYDIS_MNEMONIC_RCL: return bind_count(insn, op, rcl_fns);
    case ZYDIS_MNEMONIC_RCR: return bind_count(insn, op, rcr_fns);
    case ZYDIS_MNEMONIC_SHLD: return bind_count(insn, op, shld_fns);
    case ZYDIS_MNEMONIC_SHRD: return bind_count(insn, op, shrd_fns);
    default: return false;
    }
}
