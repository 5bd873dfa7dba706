/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Control flow and the stack in generated code: PUSH POP LEAVE CALL RET JMP Jcc. Targets that are
 * not known are looked up in the jump cache; those that are not canonical are the handler's.
 */
#include "cpu/soft/translator/internal.h"

static const unsigned host_rsp = HOST_R12, host_rbp = HOST_R13;

/* LEA of 16 bits leaves what is above. */
void emit_move_rsp(struct unit *unit, int32_t distance)
{
    emit_modrm(&unit->e, 0x8d, unit->stack_bytes, host_rsp, rm_mem(host_rsp, distance));
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

/* Of 8 bytes in 64-bit mode, elsewhere of 4 or 2, whatever the stack pointer's size. */
static struct rm check_push(struct unit *unit, unsigned size_bytes)
{
    return address_check_at(unit, RSP, -(int32_t)size_bytes, size_bytes, ACCESS_WRITE);
}

static void push_reg(struct unit *unit, const struct op *op)
{
    unsigned size = op->size_bytes;
    struct rm to = check_push(unit, size);
    unsigned from = reg_begin(unit, op->reg[0], size, true);
    emit_modrm(&unit->e, 0x89, size, from, to);
    emit_move_rsp(unit, -(int32_t)size);
}

static void push_imm(struct unit *unit, const struct op *op)
{
    unsigned size = op->size_bytes;
    struct rm to = check_push(unit, size);
    emit_modrm(&unit->e, 0xc7 | EMIT_EXTENSION, size, 0, to);
    emit_imm(&unit->e, op->imm, size);
    emit_move_rsp(unit, -(int32_t)size);
}

static void push_mem(struct unit *unit, const struct op *op)
{
    unsigned size = op->size_bytes;
    struct rm from = address_check(unit, op, size, ACCESS_READ);
    emit_modrm(&unit->e, 0x8b, size, SCRATCH0, from);
    emit_store(&unit->e, CPU_FIELD(spill), SCRATCH0);
    struct rm to = check_push(unit, size);
    emit_load(&unit->e, SCRATCH1, CPU_FIELD(spill));
    emit_modrm(&unit->e, 0x89, size, SCRATCH1, to);
    emit_move_rsp(unit, -(int32_t)size);
}

static void push_segment(struct unit *unit, const struct op *op)
{
    const size_t at = offsetof(struct cpu, segment) + op->reg[0] * sizeof(struct x86_segment) +
                      offsetof(struct x86_segment, selector);
    unsigned size = op->size_bytes;
    struct rm to = check_push(unit, size);
    emit_modrm(&unit->e, IN_0F(0xb7), 4, SCRATCH1, /* movzx */
               rm_mem(HOST_CPU, (int32_t)at - CPU_BIAS));
    emit_modrm(&unit->e, 0x89, size, SCRATCH1, to);
    emit_move_rsp(unit, -(int32_t)size);
}

static void pop_reg(struct unit *unit, const struct op *op)
{
    unsigned size = op->size_bytes;
    struct rm from = address_check_at(unit, RSP, 0, size, ACCESS_READ);
    if (op->reg[0] == RSP * 8) {
        emit_modrm(&unit->e, 0x8b, size, host_rsp, from);
        return;
    }
    unsigned to = reg_begin(unit, op->reg[0], size, false);
    emit_modrm(&unit->e, 0x8b, size, to, from);
    reg_end(unit, op->reg[0], size);
    emit_move_rsp(unit, (int32_t)size);
}

enum { MAX_RUN = 8 };

static bool is_in_run(const struct unit *unit, unsigned i, unsigned first)
{
    const struct op *op = unit->block->op;
    return i < unit->block->op_count && unit->fact[i].emit == unit->fact[first].emit &&
           op[i].reg[0] != RSP * 8 && op[i].size_bytes == op[first].size_bytes;
}

unsigned flow_run_length(const struct unit *unit, unsigned i)
{
    emit_fn *fn = unit->fact[i].emit;
    unsigned length = 0;
    if (fn == push_reg || fn == pop_reg)
        while (length < MAX_RUN && is_in_run(unit, i + length, i))
            length++;
    return length > 1 ? length : 1;
}

/* The whole range lies in one page, or the slow path does one op after another. */
void flow_emit_run(struct unit *unit, unsigned ops)
{
    const struct op *op = unit->op;
    bool is_push = unit->facts->emit == push_reg;
    const int32_t each = op->size_bytes, size = (int32_t)ops * each;
    struct rm at = address_check_at(unit, RSP, is_push ? -size : 0, (unsigned)size,
                                    is_push ? ACCESS_WRITE : ACCESS_READ);
    const int32_t first = is_push ? size - each : 0, step = is_push ? -each : each;
    for (unsigned i = 0; i < ops; i++) {
        struct rm slot = at;
        slot.disp += first + step * (int32_t)i;
        unsigned reg = reg_begin(unit, op[i].reg[0], op->size_bytes, is_push);
        emit_modrm(&unit->e, is_push ? 0x89 : 0x8b, op->size_bytes, reg, slot);
        if (!is_push)
            reg_end(unit, op[i].reg[0], op->size_bytes);
    }
    emit_move_rsp(unit, is_push ? -size : size);
}

static void leave(struct unit *unit, const struct op *op)
{
    unsigned size = op->size_bytes;
    struct rm from = address_check_at(unit, RBP, 0, size, ACCESS_READ);
    emit_modrm(&unit->e, 0x8b, size, SCRATCH1, from);
    emit_modrm(&unit->e, 0x8d, unit->stack_bytes, host_rsp, rm_mem(host_rbp, (int32_t)size));
    emit_modrm(&unit->e, 0x8b, size, host_rbp, rm_reg(SCRATCH1));
}

/* --- branches ----------------------------------------------------------------------------- */

static void jcc(struct unit *unit, const struct op *op)
{
    const unsigned condition = condition_of(unit->facts);
    flags_need(unit, unit->facts->reads);
    switch (unit->follows[op->number]) {
    case FOLLOWS_BEHIND:
        emit_exit_if(unit, condition, target_of(unit, op), unit->facts->live_exit, op);
        return;
    case FOLLOWS_AWAY:
        emit_exit_if(unit, condition ^ 1, offset_behind(unit, op), unit->facts->live_exit, NULL);
        return;
    default: break;
    }
    emit_exit_if(unit, condition, target_of(unit, op), unit->live_taken, op);
    emit_exit_behind(unit, offset_behind(unit, op), unit->live_next);
    unit->ends = true;
}

/* With 4 GiB of flat segment any RIP is one to jump to. */
bool emit_target_compare(struct unit *unit)
{
    struct emitter *e = &unit->e;
    if (unit->is_64bit) { /* canonical */
        emit_mov_rr(e, SCRATCH1, SCRATCH0);
        emit_modrm(e, 0xc1 | EMIT_EXTENSION, 8, 7, rm_reg(SCRATCH1)); /* sar */
        emit8(e, 47);
        emit_alu_imm(e, 0, 8, rm_reg(SCRATCH1), 1, 0);
        emit_alu_imm(e, 7, 8, rm_reg(SCRATCH1), 1, 0);
        return true;
    }
    if (unit->has_links)
        return false;
    emit_modrm(e, 0x3b, 4, SCRATCH0, CPU_FIELD(code_limit)); /* cmp */
    return true;
}

/* The RIP in SCRATCH0 must be one to jump to, or the handler will raise. */
static void check_target(struct unit *unit)
{
    if (emit_target_compare(unit))
        slow_if(unit, CONDITION_A);
}

static void look_up_target(struct unit *unit)
{
    emit_bind(emit_jmp(&unit->e), thunk(unit, unit->translator->lookup[unit->domain]));
    unit->ends = true;
}

/* Where the limit of CS has to be looked at; gives RIP in SCRATCH0. */
static void check_relative(struct unit *unit, const struct op *op)
{
    flags_clobber(unit);
    emit_jump_rip(unit, SCRATCH0, target_of(unit, op), op->size_bytes);
    check_target(unit);
}

static void jmp_relative(struct unit *unit, const struct op *op)
{
    if (unit->follows[op->number] != FOLLOWS_NONE)
        return;
    if (!unit->has_links) {
        check_relative(unit, op);
        look_up_target(unit);
        return;
    }
    emit_exit(unit, target_of(unit, op), unit->live_taken);
    unit->ends = true;
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
        .slow = unit->is_64bit ? slow_later(unit) : 0,
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
static void emit_go(struct unit *unit, bool is_checked)
{
    struct emitter *e = &unit->e;
    if (unit->domain == CLASS_OTHER) {
        if (!is_checked)
            check_target(unit);
        look_up_target(unit);
        return;
    }
    unit->ends = true;
    emit_target_index(e);
    emit_modrm(e, 0x3b, 8, SCRATCH0, target_field(unit, offsetof(struct code_target, rip)));
    miss_if(unit, CONDITION_NE, 0);
    emit_load(e, SCRATCH1, target_field(unit, offsetof(struct code_target, code)));
    enter_page(e);
    emit_modrm(e, 0xff | EMIT_EXTENSION, 4, 4, rm_reg(SCRATCH1)); /* jmp */
}

/* To SCRATCH0, of 2, 4 or 8 bytes. */
static void load_rip(struct unit *unit, unsigned size_bytes, struct rm from)
{
    if (size_bytes == 2)
        emit_modrm(&unit->e, IN_0F(0xb7), 4, SCRATCH0, from); /* movzx */
    else
        emit_modrm(&unit->e, 0x8b, size_bytes, SCRATCH0, from);
}

static void load_target(struct unit *unit, const struct op *op)
{
    flags_clobber(unit);
    if (unit->facts->form == FORM_R)
        load_rip(unit, op->size_bytes, reg_rm(op->reg[0]));
    else
        load_rip(unit, op->size_bytes, address_check(unit, op, op->size_bytes, ACCESS_READ));
}

static void jmp_indirect(struct unit *unit, const struct op *op)
{
    load_target(unit, op);
    emit_go(unit, false);
}

/* By bits 3 up of RSP, by 2 up where stacks are made of doublewords. */
static void emit_return_index(const struct unit *unit, struct emitter *e, unsigned to)
{
    if (unit->is_64bit)
        emit_modrm(e, 0x8b, 4, to, rm_reg(host_rsp)); /* mov */
    else
        emit_modrm(e, 0x8d, 4, to, rm_indexed(host_rsp, host_rsp, 0, 0)); /* lea */
    emit_alu_imm(e, 4, 4, rm_reg(to), (RETURN_ENTRIES - 1) << 3, 0);
}

/* Notes where host code for the return address is: behind this block, a jump that is linked as any
 * other, when that is in the same page. */
static void note_return(struct unit *unit, int64_t behind)
{
    struct emitter *e = &unit->e;
    if (unit->domain == CLASS_OTHER || behind >= PAGE_BYTES)
        return;
    emit_return_index(unit, e, SCRATCH0);
    emit_store(e, return_field(unit, SCRATCH0, offsetof(struct code_target, rip)), SCRATCH1);
    unit->return_address = emit_lea_rip(e, SCRATCH1);
    emit_store(e, return_field(unit, SCRATCH0, offsetof(struct code_target, code)), SCRATCH1);
    unit->return_target = behind;
}

static void push_return(struct unit *unit, const struct op *op)
{
    unsigned size = op->size_bytes;
    struct rm to = check_push(unit, size);
    emit_rip(unit, SCRATCH1, offset_behind(unit, op));
    emit_modrm(&unit->e, 0x89, size, SCRATCH1, to);
    emit_move_rsp(unit, -(int32_t)size);
    note_return(unit, offset_behind(unit, op));
}

static void call_relative(struct unit *unit, const struct op *op)
{
    if (!unit->has_links) {
        check_relative(unit, op);
        push_return(unit, op);
        emit_jump_rip(unit, SCRATCH0, target_of(unit, op), op->size_bytes);
        look_up_target(unit);
        return;
    }
    push_return(unit, op);
    emit_exit(unit, target_of(unit, op), unit->live_taken);
    unit->ends = true;
}

static void call_indirect(struct unit *unit, const struct op *op)
{
    load_target(unit, op);
    check_target(unit);
    emit_store(&unit->e, CPU_FIELD(spill), SCRATCH0);
    push_return(unit, op);
    emit_load(&unit->e, SCRATCH0, CPU_FIELD(spill));
    emit_go(unit, true);
}

/* Where the call has noted it, else as any indirect jump. */
static void ret(struct unit *unit, const struct op *op)
{
    struct emitter *e = &unit->e;
    const int32_t distance = op->size_bytes + (int32_t)op->imm;
    struct rm from = address_check_at(unit, RSP, 0, op->size_bytes, ACCESS_READ);
    load_rip(unit, op->size_bytes, from);
    if (unit->domain == CLASS_OTHER) {
        check_target(unit);
        emit_move_rsp(unit, distance);
        look_up_target(unit);
        return;
    }
    unit->ends = true;
    emit_return_index(unit, e, SCRATCH1);
    emit_modrm(e, 0x3b, 8, SCRATCH0,
               return_field(unit, SCRATCH1, offsetof(struct code_target, rip)));
    miss_if(unit, CONDITION_NE, distance);
    emit_move_rsp(unit, distance);
    enter_page(e);
    emit_modrm(e, 0xff | EMIT_EXTENSION, 4, 4, /* jmp */
               return_field(unit, SCRATCH1, offsetof(struct code_target, code)));
}

/* --- finding ------------------------------------------------------------------------------ */

/* Where jumps are linked, one that cuts RIP to 16 bits may lead to another page than it seems. */
static bool is_rip_whole(const struct unit *unit, const struct op *op)
{
    return !unit->has_links || op->size_bytes == unit->rip_bytes;
}

static bool is_reachable(const struct unit *unit, const struct op *op)
{
    int64_t target = target_of(unit, op);
    return target == (int32_t)target && is_rip_whole(unit, op);
}

static emit_fn *transfer(const struct unit *unit, const struct op *op,
                         const struct insn_facts *facts, emit_fn *relative, emit_fn *indirect)
{
    if (facts->info.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR || !is_rip_whole(unit, op))
        return NULL;
    switch (facts->form) {
    case FORM_I: return is_reachable(unit, op) ? relative : NULL;
    case FORM_R: return indirect;
    case FORM_M: return address_is_simple(unit, op) ? indirect : NULL;
    default: return NULL;
    }
}

static ZydisRegisterClass class_of(const struct insn_facts *facts)
{
    return facts->operand[0].type == ZYDIS_OPERAND_TYPE_REGISTER
               ? ZydisRegisterGetClass(facts->operand[0].reg.value)
               : ZYDIS_REGCLASS_INVALID;
}

/* Not of 16 bits in 64-bit mode. */
static bool is_stack_operand(const struct unit *unit, const struct op *op,
                             const struct insn_facts *facts)
{
    switch (class_of(facts)) {
    case ZYDIS_REGCLASS_GPR16:
    case ZYDIS_REGCLASS_GPR32: return !unit->is_64bit;
    case ZYDIS_REGCLASS_INVALID:
    case ZYDIS_REGCLASS_GPR64: return !unit->is_64bit || facts->info.operand_width == 64;
    default: return false;
    }
}

/* A pop of SP under a 32-bit stack leaves the upper half as its increment has it. */
static emit_fn *find_pop(const struct unit *unit, const struct op *op,
                         const struct insn_facts *facts)
{
    bool is_part = op->reg[0] == RSP * 8 && op->size_bytes < unit->stack_bytes;
    bool is_reg = is_stack_operand(unit, op, facts) && facts->form == FORM_R;
    return is_reg && !is_part ? pop_reg : NULL;
}

static emit_fn *find_push(const struct unit *unit, const struct op *op,
                          const struct insn_facts *facts)
{
    if (class_of(facts) == ZYDIS_REGCLASS_SEGMENT && !unit->is_64bit)
        return push_segment;
    if (!is_stack_operand(unit, op, facts))
        return NULL;
    switch (facts->form) {
    case FORM_R: return push_reg;
    case FORM_I: return push_imm;
    case FORM_M: return address_is_simple(unit, op) ? push_mem : NULL;
    default: return NULL;
    }
}

emit_fn *flow_find(const struct unit *unit, const struct op *op, const struct insn_facts *facts)
{
    switch (facts->info.mnemonic) {
    case ZYDIS_MNEMONIC_PUSH: return find_push(unit, op, facts);
    case ZYDIS_MNEMONIC_POP: return find_pop(unit, op, facts);
    case ZYDIS_MNEMONIC_LEAVE: return is_stack_operand(unit, op, facts) ? leave : NULL;
    case ZYDIS_MNEMONIC_JMP: return transfer(unit, op, facts, jmp_relative, jmp_indirect);
    case ZYDIS_MNEMONIC_CALL: return transfer(unit, op, facts, call_relative, call_indirect);
    case ZYDIS_MNEMONIC_RET:
        return facts->info.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR || !is_rip_whole(unit, op)
                   ? NULL
                   : ret;
    default: break;
    }
    unsigned opcode = facts->info.opcode & 0xf0;
    bool is_jcc = (facts->info.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && opcode == 0x70) ||
                  (facts->info.opcode_map == ZYDIS_OPCODE_MAP_0F && opcode == 0x80);
    return is_jcc && is_reachable(unit, op) ? jcc : NULL;
}
