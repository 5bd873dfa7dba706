/* SPDX-License-Identifier: BSD-2-Clause
 * Binding of integer instructions to their handlers: by group, then by operand form and size. */
#include "cpu/soft/integer/integer.h"

unsigned place_of(const struct insn *insn, const struct op *op)
{
    bool locked = op->flags & OP_LOCK;
    switch (insn->form) {
    case FORM_RR: return AT_RR;
    case FORM_RI: return AT_RI;
    case FORM_RM: return AT_RM;
    case FORM_MR: return locked ? AT_LOCK_MR : AT_MR;
    case FORM_MI: return locked ? AT_LOCK_MI : AT_MI;
    case FORM_R: return AT_R;
    case FORM_M: return locked ? AT_LOCK_M : AT_M;
    default: return AT_COUNT;
    }
}

bool bind_row(const struct insn *insn, struct op *op, op_fn *const table[4][AT_COUNT])
{
    unsigned place = place_of(insn, op);
    if (place == AT_COUNT)
        return false;
    op->fn = table[size_index(op->size_bytes)][place];
    return op->fn != NULL;
}

bool bind_integer(const struct insn *insn, struct op *op)
{
    return bind_alu(insn, op) || bind_move(insn, op) || bind_branch(insn, op) ||
           bind_stack(insn, op) || bind_shift(insn, op) || bind_string(insn, op) ||
           bind_multiply(insn, op) || bind_atomic(insn, op) || bind_bits(insn, op) ||
           bind_bmi(insn, op) || bind_decimal(insn, op);
}
