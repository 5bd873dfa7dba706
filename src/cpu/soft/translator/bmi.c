/* SPDX-License-Identifier: BSD-2-Clause
 *
 * BMI1 and BMI2 in generated code: general registers under VEX (SDM 2A 2.3). Up to three registers
 * are named, by ModRM.reg, ModRM.rm and VEX.vvvv; those that stay in memory go by way of the two
 * scratch registers, or the instruction is its handler's.
 */
#include "cpu/soft/translator/internal.h"

static int find_by(const struct insn_facts *facts, ZydisOperandEncoding encoding)
{
    for (unsigned i = 0; i < facts->info.operand_count_visible; i++)
        if (facts->operand[i].encoding == encoding)
            return (int)i;
    return -1;
}

static bool is_stored(const struct op *op, int i)
{
    return i >= 0 && !reg_rm(op->reg[i]).is_reg;
}

static bool is_written(const struct insn_facts *facts, int i)
{
    return facts->operand[i].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
}

/* The host register of operand i: `scratch` when it stays in memory. */
static unsigned operand_reg(struct unit *unit, const struct op *op, int i, unsigned scratch)
{
    struct rm rm = reg_rm(op->reg[i]);
    if (rm.is_reg)
        return rm.reg;
    if (!is_written(unit->facts, i))
        emit_load(&unit->e, scratch, rm);
    return scratch;
}

static void operand_done(struct unit *unit, const struct op *op, int i, unsigned reg)
{
    if (i >= 0 && is_stored(op, i) && is_written(unit->facts, i))
        emit_store(&unit->e, reg_rm(op->reg[i]), reg);
}

static void bmi(struct unit *unit, const struct op *op)
{
    const struct insn_facts *facts = unit->facts;
    const ZydisDecodedInstruction *info = &facts->info;
    int reg = find_by(facts, ZYDIS_OPERAND_ENCODING_MODRM_REG);
    int rm = find_by(facts, ZYDIS_OPERAND_ENCODING_MODRM_RM);
    int third = find_by(facts, ZYDIS_OPERAND_ENCODING_NDSNDD);
    unsigned size_bytes = facts->operand[rm].size / 8;
    unsigned reg_number = info->raw.modrm.reg, third_number = 0;
    struct rm operand;
    if (facts->operand[rm].type == ZYDIS_OPERAND_TYPE_MEMORY)
        operand = address_check(unit, op, size_bytes, ACCESS_READ);
    else
        operand = rm_reg(operand_reg(unit, op, rm, SCRATCH0));
    flags_before_native(unit);
    if (third >= 0)
        third_number = operand_reg(unit, op, third, SCRATCH1);
    if (reg >= 0)
        reg_number = operand_reg(unit, op, reg, SCRATCH1);
    unsigned last =
        (size_bytes == 8 ? 1u << 7 : 0) | (~third_number & 15) << 3 | (unsigned)info->raw.vex.pp;
    emit_vex(&unit->e, info->raw.vex.m_mmmm, (uint8_t)last, info->opcode, reg_number, operand);
    if (info->raw.imm[0].size != 0)
        emit8(&unit->e, (uint8_t)info->raw.imm[0].value.u);
    operand_done(unit, op, reg, reg_number);
    operand_done(unit, op, third, third_number);
    flags_after_native(unit);
}

/* A register that is read and one that is written may share a scratch register, two that are
 * written, or read, may not; an operand in memory takes the other one. */
static bool registers_fit(const struct op *op, const struct insn_facts *facts)
{
    int reg = find_by(facts, ZYDIS_OPERAND_ENCODING_MODRM_REG);
    int third = find_by(facts, ZYDIS_OPERAND_ENCODING_NDSNDD);
    if (!is_stored(op, reg) || !is_stored(op, third))
        return true;
    return is_written(facts, reg) != is_written(facts, third);
}

emit_fn *bmi_find(const struct unit *unit, const struct op *op, const struct insn_facts *facts)
{
    int rm = find_by(facts, ZYDIS_OPERAND_ENCODING_MODRM_RM);
    bool is_known = facts->info.meta.isa_set == ZYDIS_ISA_SET_BMI1 ||
                    facts->info.meta.isa_set == ZYDIS_ISA_SET_BMI2;
    if (!is_known || facts->info.encoding != ZYDIS_INSTRUCTION_ENCODING_VEX || rm < 0)
        return NULL;
    bool in_memory = facts->operand[rm].type == ZYDIS_OPERAND_TYPE_MEMORY;
    if (in_memory && !address_is_simple(unit, op))
        return NULL;
    return registers_fit(op, facts) ? bmi : NULL;
}
