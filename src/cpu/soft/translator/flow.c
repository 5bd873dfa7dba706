/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Control flow and the stack in generated code: PUSH POP LEAVE CALL RET JMP Jcc. Targets that are
 * not known are looked up in the jump cache; those that are not canonical are the handler's.
 */
#include "cpu/soft/translator/internal.h"

static const unsigned host_rsp = HOST_R12, host_rbp = HOST_R13;

static void move_rsp(struct unit *unit, int32_t distance)
{
    emit_lea(&unit->e, host_rsp, rm_mem(host_rsp, distance));
}

/* Where the next instruction and a relative target are, from the page's start. */
static int64_t offset_behind(const struct unit *unit, const struct op *op)
{
    return (int64_t)unit->page_offset + op->offset + op->length;
}

static int64_t target_of(const struct unit *unit, const struct op *op)
{
    return offset_behind(unit, op) + (int64_t)op->imm;
}

/* --- the stack ---------------------------------------------------------------------------- */

static void push_reg(struct unit *unit, const struct op *op)
{
    struct rm to = address_check_at(unit, RSP, -8, 8, ACCESS_WRITE);
    unsigned from = reg_begin(unit, op->reg[0], 8, true);
    emit_store(&unit->e, to, from);
    move_rsp(unit, -8);
}

static void push_imm(struct unit *unit, const struct op *op)
{
    struct rm to = address_check_at(unit, RSP, -8, 8, ACCESS_WRITE);
    emit_modrm(&unit->e, 0xc7 | EMIT_EXTENSION, 8, 0, to);
    emit32(&unit->e, (uint32_t)op->imm);
    move_rsp(unit, -8);
}

static void push_mem(struct unit *unit, const struct op *op)
{
    struct rm from = address_check(unit, op, 8, ACCESS_READ);
    emit_load(&unit->e, SCRATCH0, from);
    emit_store(&unit->e, CPU_FIELD(spill), SCRATCH0);
    struct rm to = address_check_at(unit, RSP, -8, 8, ACCESS_WRITE);
    emit_load(&unit->e, SCRATCH1, CPU_FIELD(spill));
    emit_store(&unit->e, to, SCRATCH1);
    move_rsp(unit, -8);
}

static void pop_reg(struct unit *unit, const struct op *op)
{
    struct rm from = address_check_at(unit, RSP, 0, 8, ACCESS_READ);
    if (op->reg[0] == RSP * 8) {
        emit_load(&unit->e, host_rsp, from);
        return;
    }
    unsigned to = reg_begin(unit, op->reg[0], 8, false);
    emit_load(&unit->e, to, from);
    reg_end(unit, op->reg[0], 8);
    move_rsp(unit, 8);
}

enum { MAX_RUN = 8 };

static bool is_in_run(const struct unit *unit, unsigned i, emit_fn *fn)
{
    return i < unit->block->op_count && unit->fact[i].emit == fn &&
           unit->block->op[i].reg[0] != RSP * 8;
}

unsigned flow_run_length(const struct unit *unit, unsigned i)
{
    emit_fn *fn = unit->fact[i].emit;
    unsigned length = 0;
    if (fn == push_reg || fn == pop_reg)
        while (length < MAX_RUN && is_in_run(unit, i + length, fn))
            length++;
    return length > 1 ? length : 1;
}

/* The whole range lies in one page, or the slow path does one op after another. */
void flow_emit_run(struct unit *unit, unsigned ops)
{
    const struct op *op = unit->op;
    bool is_push = unit->facts->emit == push_reg;
    int32_t size = (int32_t)ops * 8;
    struct rm at = address_check_at(unit, RSP, is_push ? -size : 0, (unsigned)size,
                                    is_push ? ACCESS_WRITE : ACCESS_READ);
    const int32_t first = is_push ? size - 8 : 0, step = is_push ? -8 : 8;
    for (unsigned i = 0; i < ops; i++) {
        struct rm slot = at;
        slot.disp += first + step * (int32_t)i;
        unsigned reg = reg_begin(unit, op[i].reg[0], 8, is_push);
        if (is_push) {
            emit_store(&unit->e, slot, reg);
        } else {
            emit_load(&unit->e, reg, slot);
            reg_end(unit, op[i].reg[0], 8);
        }
    }
    move_rsp(unit, is_push ? -size : size);
}

static void leave(struct unit *unit, const struct op *op)
{
    struct rm from = address_check_at(unit, RBP, 0, 8, ACCESS_READ);
    emit_load(&unit->e, SCRATCH1, from);
    emit_lea(&unit->e, host_rsp, rm_mem(host_rbp, 8));
    emit_mov_rr(&unit->e, host_rbp, SCRATCH1);
}

/* --- branches ----------------------------------------------------------------------------- */

static void jcc(struct unit *unit, const struct op *op)
{
    flags_need(unit, unit->facts->reads);
    emit_exit_if(unit, condition_of(unit->facts), target_of(unit, op), unit->live_taken);
    emit_exit(unit, offset_behind(unit, op), unit->live_next);
    unit->ends = true;
}

static void jmp_relative(struct unit *unit, const struct op *op)
{
    emit_exit(unit, target_of(unit, op), unit->live_taken);
    unit->ends = true;
}

/* To what is in SCRATCH0, once it is known to be canonical. */
static void emit_go(struct unit *unit)
{
    emit_lookup(&unit->e, thunk(unit, unit->translator->leave));
    unit->ends = true;
}

/* SCRATCH0 must be canonical, or the handler will raise. */
static void check_canonical(struct unit *unit)
{
    struct emitter *e = &unit->e;
    emit_mov_rr(e, SCRATCH1, SCRATCH0);
    emit_modrm(e, 0xc1 | EMIT_EXTENSION, 8, 4, rm_reg(SCRATCH1)); /* shl */
    emit8(e, 16);
    emit_modrm(e, 0xc1 | EMIT_EXTENSION, 8, 7, rm_reg(SCRATCH1)); /* sar */
    emit8(e, 16);
    emit_modrm(e, 0x3b, 8, SCRATCH1, rm_reg(SCRATCH0)); /* cmp */
    slow_if(unit, CONDITION_NE);
}

static void load_target(struct unit *unit, const struct op *op)
{
    flags_clobber(unit);
    if (unit->facts->form == FORM_R)
        emit_modrm(&unit->e, 0x8b, 8, SCRATCH0, reg_rm(op->reg[0]));
    else
        emit_load(&unit->e, SCRATCH0, address_check(unit, op, 8, ACCESS_READ));
    check_canonical(unit);
}

static void jmp_indirect(struct unit *unit, const struct op *op)
{
    load_target(unit, op);
    emit_go(unit);
}

static void push_return(struct unit *unit, const struct op *op)
{
    struct emitter *e = &unit->e;
    struct rm to = address_check_at(unit, RSP, -8, 8, ACCESS_WRITE);
    emit_load(e, SCRATCH1, gpr_slot(GPR_PAGE_RIP));
    emit_lea(e, SCRATCH1, rm_mem(SCRATCH1, (int32_t)offset_behind(unit, op)));
    emit_store(e, to, SCRATCH1);
    move_rsp(unit, -8);
}

static void call_relative(struct unit *unit, const struct op *op)
{
    push_return(unit, op);
    emit_exit(unit, target_of(unit, op), unit->live_taken);
    unit->ends = true;
}

static void call_indirect(struct unit *unit, const struct op *op)
{
    load_target(unit, op);
    emit_store(&unit->e, CPU_FIELD(spill), SCRATCH0);
    push_return(unit, op);
    emit_load(&unit->e, SCRATCH0, CPU_FIELD(spill));
    emit_go(unit);
}

static void ret(struct unit *unit, const struct op *op)
{
    struct rm from = address_check_at(unit, RSP, 0, 8, ACCESS_READ);
    emit_load(&unit->e, SCRATCH0, from);
    check_canonical(unit);
    move_rsp(unit, 8 + (int32_t)op->imm);
    emit_go(unit);
}

/* --- finding ------------------------------------------------------------------------------ */

static bool is_reachable(const struct unit *unit, const struct op *op)
{
    int64_t target = target_of(unit, op);
    return target == (int32_t)target;
}

static emit_fn *transfer(const struct unit *unit, const struct op *op,
                         const struct insn_facts *facts, emit_fn *relative, emit_fn *indirect)
{
    if (facts->info.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
        return NULL;
    switch (facts->form) {
    case FORM_I: return is_reachable(unit, op) ? relative : NULL;
    case FORM_R: return indirect;
    case FORM_M: return address_is_simple(unit, op) ? indirect : NULL;
    default: return NULL;
    }
}

static bool is_general(const struct insn_facts *facts)
{
    return facts->operand[0].type != ZYDIS_OPERAND_TYPE_REGISTER ||
           ZydisRegisterGetClass(facts->operand[0].reg.value) == ZYDIS_REGCLASS_GPR64;
}

static emit_fn *find_push(const struct unit *unit, const struct op *op,
                          const struct insn_facts *facts)
{
    switch (facts->form) {
    case FORM_R: return push_reg;
    case FORM_I: return push_imm;
    case FORM_M: return address_is_simple(unit, op) ? push_mem : NULL;
    default: return NULL;
    }
}

emit_fn *flow_find(const struct unit *unit, const struct op *op, const struct insn_facts *facts)
{
    bool is_wide = facts->info.operand_width == 64 && is_general(facts);
    switch (facts->info.mnemonic) {
    case ZYDIS_MNEMONIC_PUSH: return is_wide ? find_push(unit, op, facts) : NULL;
    case ZYDIS_MNEMONIC_POP: return is_wide && facts->form == FORM_R ? pop_reg : NULL;
    case ZYDIS_MNEMONIC_LEAVE: return is_wide ? leave : NULL;
    case ZYDIS_MNEMONIC_JMP: return transfer(unit, op, facts, jmp_relative, jmp_indirect);
    case ZYDIS_MNEMONIC_CALL: return transfer(unit, op, facts, call_relative, call_indirect);
    case ZYDIS_MNEMONIC_RET:
        return facts->info.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR ? NULL : ret;
    default: break;
    }
    unsigned opcode = facts->info.opcode & 0xf0;
    bool is_jcc = (facts->info.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && opcode == 0x70) ||
                  (facts->info.opcode_map == ZYDIS_OPCODE_MAP_0F && opcode == 0x80);
    return is_jcc && is_reachable(unit, op) ? jcc : NULL;
}
