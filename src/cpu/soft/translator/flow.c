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

void emit_canonical_compare(struct emitter *e)
{
    emit_mov_rr(e, SCRATCH1, SCRATCH0);
    emit_modrm(e, 0xc1 | EMIT_EXTENSION, 8, 7, rm_reg(SCRATCH1)); /* sar */
    emit8(e, 47);
    emit_alu_imm(e, 0, 8, rm_reg(SCRATCH1), 1, 0);
    emit_alu_imm(e, 7, 8, rm_reg(SCRATCH1), 1, 0);
}

/* SCRATCH0 must be canonical, or the handler will raise. */
static void check_canonical(struct unit *unit)
{
    emit_canonical_compare(&unit->e);
    slow_if(unit, CONDITION_A);
}

static struct rm cache_field(const struct unit *unit, size_t caches, size_t cache_bytes,
                             unsigned index, unsigned scale, size_t field)
{
    size_t at = caches + unit->domain * cache_bytes + field;
    return rm_indexed(HOST_CPU, index, scale, (int32_t)at - CPU_BIAS);
}

/* Of the entry of cpu->targets whose number times eight is in SCRATCH1. */
static struct rm target_field(const struct unit *unit, size_t field)
{
    return cache_field(unit, offsetof(struct cpu, targets), sizeof(((struct cpu *)0)->targets[0]),
                       SCRATCH1, 1, field);
}

/* Of the entry of cpu->returns whose number times eight is in `index`. */
static struct rm return_field(const struct unit *unit, unsigned index, size_t field)
{
    return cache_field(unit, offsetof(struct cpu, returns), sizeof(((struct cpu *)0)->returns[0]),
                       index, 1, field);
}

/* RIP in SCRATCH0 is where control goes: its page. */
static void enter_page(struct emitter *e)
{
    emit_alu_imm(e, 4, 8, rm_reg(SCRATCH0), -PAGE_BYTES, 0);
    emit_store(e, gpr_slot(GPR_PAGE_RIP), SCRATCH0);
}

static void miss_if(struct unit *unit, unsigned condition, int32_t rsp_distance)
{
    unit->misses[unit->miss_count++] = (struct target_miss){
        .from = emit_jcc(&unit->e, condition),
        .rsp_distance = rsp_distance,
        .slow = slow_later(unit),
    };
}

/* The number of RIP's entry in cpu->targets, times eight: bits 3 up of RIP, mixed with higher ones
 * since functions begin at multiples of sixteen. */
void emit_target_index(struct emitter *e)
{
    emit_modrm(e, 0x8b, 4, SCRATCH1, rm_reg(SCRATCH0)); /* mov */
    emit_modrm(e, 0xc1 | EMIT_EXTENSION, 4, 5, rm_reg(SCRATCH1));
    emit8(e, 5);                                        /* shr */
    emit_modrm(e, 0x33, 4, SCRATCH1, rm_reg(SCRATCH0)); /* xor */
    emit_alu_imm(e, 4, 4, rm_reg(SCRATCH1), (TARGET_ENTRIES - 1) << 3, 0);
}

/* To the RIP in SCRATCH0, found in cpu->targets in place: so each jump has one of the host's own to
 * be predicted. */
static void emit_go(struct unit *unit, bool is_canonical)
{
    struct emitter *e = &unit->e;
    unit->ends = true;
    if (unit->domain == CLASS_OTHER) {
        if (!is_canonical)
            check_canonical(unit);
        emit_bind(emit_jmp(e), thunk(unit, unit->translator->lookup[CLASS_OTHER]));
        return;
    }
    emit_target_index(e);
    emit_modrm(e, 0x3b, 8, SCRATCH0, target_field(unit, offsetof(struct code_target, rip)));
    miss_if(unit, CONDITION_NE, 0);
    emit_load(e, SCRATCH1, target_field(unit, offsetof(struct code_target, code)));
    enter_page(e);
    emit_modrm(e, 0xff | EMIT_EXTENSION, 4, 4, rm_reg(SCRATCH1)); /* jmp */
}

static void load_target(struct unit *unit, const struct op *op)
{
    flags_clobber(unit);
    if (unit->facts->form == FORM_R)
        emit_modrm(&unit->e, 0x8b, 8, SCRATCH0, reg_rm(op->reg[0]));
    else
        emit_load(&unit->e, SCRATCH0, address_check(unit, op, 8, ACCESS_READ));
}

static void jmp_indirect(struct unit *unit, const struct op *op)
{
    load_target(unit, op);
    emit_go(unit, false);
}

static void emit_return_index(struct emitter *e, unsigned to)
{
    emit_modrm(e, 0x8b, 4, to, rm_reg(host_rsp)); /* mov */
    emit_alu_imm(e, 4, 4, rm_reg(to), (RETURN_ENTRIES - 1) << 3, 0);
}

/* Notes where host code for the return address is: behind this block, a jump that is linked as any
 * other, when that is in the same page. */
static void note_return(struct unit *unit, int64_t behind)
{
    struct emitter *e = &unit->e;
    if (unit->domain == CLASS_OTHER || behind >= PAGE_BYTES)
        return;
    emit_return_index(e, SCRATCH0);
    emit_store(e, return_field(unit, SCRATCH0, offsetof(struct code_target, rip)), SCRATCH1);
    unit->return_address = emit_lea_rip(e, SCRATCH1);
    emit_store(e, return_field(unit, SCRATCH0, offsetof(struct code_target, code)), SCRATCH1);
    unit->return_target = behind;
}

static void push_return(struct unit *unit, const struct op *op)
{
    struct emitter *e = &unit->e;
    struct rm to = address_check_at(unit, RSP, -8, 8, ACCESS_WRITE);
    emit_load(e, SCRATCH1, gpr_slot(GPR_PAGE_RIP));
    emit_lea(e, SCRATCH1, rm_mem(SCRATCH1, (int32_t)offset_behind(unit, op)));
    emit_store(e, to, SCRATCH1);
    move_rsp(unit, -8);
    note_return(unit, offset_behind(unit, op));
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
    check_canonical(unit);
    emit_store(&unit->e, CPU_FIELD(spill), SCRATCH0);
    push_return(unit, op);
    emit_load(&unit->e, SCRATCH0, CPU_FIELD(spill));
    emit_go(unit, true);
}

/* Where the call has noted it, else as any indirect jump. */
static void ret(struct unit *unit, const struct op *op)
{
    struct emitter *e = &unit->e;
    const int32_t distance = 8 + (int32_t)op->imm;
    struct rm from = address_check_at(unit, RSP, 0, 8, ACCESS_READ);
    emit_load(e, SCRATCH0, from);
    unit->ends = true;
    if (unit->domain == CLASS_OTHER) {
        check_canonical(unit);
        move_rsp(unit, distance);
        emit_bind(emit_jmp(e), thunk(unit, unit->translator->lookup[CLASS_OTHER]));
        return;
    }
    emit_return_index(e, SCRATCH1);
    emit_modrm(e, 0x3b, 8, SCRATCH0,
               return_field(unit, SCRATCH1, offsetof(struct code_target, rip)));
    miss_if(unit, CONDITION_NE, distance);
    move_rsp(unit, distance);
    enter_page(e);
    emit_modrm(e, 0xff | EMIT_EXTENSION, 4, 4, /* jmp */
               return_field(unit, SCRATCH1, offsetof(struct code_target, code)));
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
