/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Memory operands that can be checked together: those of straight code at small distances from the
 * same unchanged registers. Nothing in between may be a handler's own, since handlers may change
 * the TLB; the slow paths of other accesses don't: they fill it, and what they know remains true
 * until a processor polls its requests.
 */
#include "cpu/soft/translator/internal.h"

enum { MAX_RANGE_BYTES = 512, OPEN_GROUPS = 4 };

static const ZydisDecodedOperand *memory_operand(const struct insn_facts *facts)
{
    for (unsigned i = 0; i < facts->info.operand_count_visible; i++)
        if (facts->operand[i].type == ZYDIS_OPERAND_TYPE_MEMORY &&
            facts->operand[i].mem.type == ZYDIS_MEMOP_TYPE_MEM)
            return &facts->operand[i];
    return NULL;
}

/* The address of these depends on a register beyond those of the operand. */
static bool is_bit_string(const struct insn_facts *facts)
{
    switch (facts->info.mnemonic) {
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC: return facts->form == FORM_MR;
    default: return false;
    }
}

/* By general registers alone; what has a slot for its page does better. */
static bool can_group(const struct unit *unit, const struct op *op, const struct insn_facts *facts)
{
    bool is_based = op->base < 16 && op->base != RSP;
    return facts->emit && is_based && op->segment < SEG_FS && address_is_plain(unit, op) &&
           !is_bit_string(facts);
}

static bool fits(const struct group *group, const struct op *op, int32_t lo, int32_t hi)
{
    if (!group->is_open || group->base != op->base || group->index != op->index ||
        (op->index != GPR_ZERO && group->scale != op->scale))
        return false;
    int32_t all_lo = lo < group->lo ? lo : group->lo;
    int32_t all_hi = hi > group->hi ? hi : group->hi;
    return all_hi - all_lo <= MAX_RANGE_BYTES;
}

/* A slot of cpu->group that no open group has: the group that was opened first gives way. */
static uint8_t take_slot(struct unit *unit)
{
    uint8_t used = 0;
    for (unsigned i = 0; i < unit->group_count; i++)
        if (unit->group[i].is_open)
            used |= (uint8_t)(1u << unit->group[i].slot);
    for (uint8_t slot = 0; slot < OPEN_GROUPS; slot++)
        if (!(used >> slot & 1))
            return slot;
    for (unsigned i = 0; i < unit->group_count; i++)
        if (unit->group[i].is_open) {
            unit->group[i].is_open = false;
            return unit->group[i].slot;
        }
    return 0;
}

static struct group *group_for(struct unit *unit, const struct op *op, int32_t lo, int32_t hi)
{
    for (unsigned i = 0; i < unit->group_count; i++)
        if (fits(&unit->group[i], op, lo, hi))
            return &unit->group[i];
    uint8_t slot = take_slot(unit);
    struct group *group = &unit->group[unit->group_count++];
    *group = (struct group){.base = op->base,
                            .index = op->index,
                            .scale = op->scale,
                            .slot = slot,
                            .is_open = true,
                            .lo = lo,
                            .hi = hi};
    return group;
}

static void add(struct unit *unit, const struct op *op, struct insn_facts *facts)
{
    const ZydisDecodedOperand *operand = memory_operand(facts);
    if (!operand || !can_group(unit, op, facts))
        return;
    int32_t lo = (int32_t)op->disp, hi = lo + operand->size / 8;
    if (lo < -(1 << 30) || lo > 1 << 30)
        return;
    struct group *group = group_for(unit, op, lo, hi);
    group->lo = lo < group->lo ? lo : group->lo;
    group->hi = hi > group->hi ? hi : group->hi;
    group->is_write |= (operand->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != 0;
    group->count++;
    facts->group = (uint8_t)(group - unit->group + 1);
}

static void close_by_writes(struct unit *unit, const struct insn_facts *facts)
{
    for (unsigned i = 0; i < unit->group_count; i++) {
        struct group *group = &unit->group[i];
        if (group->is_open && (insn_writes(facts, group->base) || insn_writes(facts, group->index)))
            group->is_open = false;
    }
}

void group_find(struct unit *unit)
{
    unit->group_count = 0;
    if (unit->block->is_ungrouped)
        return;
    for (unsigned i = 0; i < unit->block->op_count; i++) {
        struct insn_facts *facts = &unit->fact[i];
        if (facts->emit) {
            add(unit, &unit->block->op[i], facts);
            close_by_writes(unit, facts);
        } else {
            for (unsigned k = 0; k < unit->group_count; k++)
                unit->group[k].is_open = false;
        }
    }
    for (unsigned i = 0; i < unit->block->op_count; i++)
        if (unit->fact[i].group && unit->group[unit->fact[i].group - 1].count < 2)
            unit->fact[i].group = 0;
}
