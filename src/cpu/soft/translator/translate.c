/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A block to host code: the poll and the count at its start, its instructions one after another,
 * and behind them what is rarely run: slow paths, exits that aren't linked yet, the way out.
 *
 * A slow path leaves the whole instruction to the interpreter's handler. For that nothing of the
 * guest's may have changed yet, and flags that matter are in struct cpu.
 */
#include "cpu/soft/translator/internal.h"

#include <assert.h>

/* --- flags -------------------------------------------------------------------------------- */

/* RAX is the guest's: kept in scratch meanwhile. None of this changes flags. */
void emit_flags_save(struct emitter *e)
{
    emit_mov_rr(e, SCRATCH0, HOST_RAX);
    EMIT(e, 0x9f, 0x0f, 0x90, 0xc0); /* lahf; seto al */
    emit_modrm(e, 0x89, 2, HOST_RAX, CPU_FIELD(cc));
    emit_mov_rr(e, HOST_RAX, SCRATCH0);
}

void emit_flags_restore(struct emitter *e)
{
    emit_mov_rr(e, SCRATCH1, HOST_RAX);
    emit_modrm(e, IN_0F(0xb7), 4, HOST_RAX, CPU_FIELD(cc)); /* movzx */
    EMIT(e, 0x04, 0x7f, 0x9e);                              /* add al, 7fh; sahf */
    emit_mov_rr(e, HOST_RAX, SCRATCH1);
}

uint16_t flags_live_before(const struct unit *unit)
{
    const struct insn_facts *facts = unit->facts;
    uint16_t live = (uint16_t)((facts->live & ~facts->writes) | facts->reads);
    return unit->cpu->system->translator.has_exact_flags ? ALL_FLAGS : live;
}

static void save(struct unit *unit)
{
    if (unit->in_host && !unit->in_memory)
        emit_flags_save(&unit->e);
    unit->in_memory = true;
}

void flags_clobber(struct unit *unit)
{
    if (flags_live_before(unit))
        save(unit);
    unit->in_memory = true;
    unit->in_host = false;
}

void flags_need(struct unit *unit, uint16_t needed)
{
    if (needed && !unit->in_host) {
        emit_flags_restore(&unit->e);
        unit->in_host = true;
    }
}

void flags_before_native(struct unit *unit)
{
    const struct insn_facts *facts = unit->facts;
    uint16_t kept = facts->touches ? (uint16_t)(facts->live & ~facts->writes) : 0;
    flags_need(unit, facts->reads | kept);
}

void flags_after_native(struct unit *unit)
{
    if (unit->facts->touches) {
        unit->in_host = true;
        unit->in_memory = false;
    }
}

void flags_settle(struct unit *unit, uint16_t live)
{
    if (live && unit->in_host && !unit->in_memory)
        emit_flags_save(&unit->e);
}

/* --- registers ---------------------------------------------------------------------------- */

struct rm reg_rm(unsigned offset)
{
    unsigned slot = offset / 8;
    if (offset & 1)
        return rm_reg(HOST_AH + slot);
    return host_of[slot] == HOST_NONE ? gpr_slot(slot) : rm_reg(host_of[slot]);
}

unsigned reg_begin(struct unit *unit, unsigned offset, unsigned size_bytes, bool load)
{
    struct rm rm = reg_rm(offset);
    if (rm.is_reg)
        return rm.reg;
    if (load)
        emit_modrm(&unit->e, size_bytes == 1 ? 0x8a : 0x8b, size_bytes, SCRATCH1, rm);
    return SCRATCH1;
}

void reg_end(struct unit *unit, unsigned offset, unsigned size_bytes)
{
    struct rm rm = reg_rm(offset);
    if (rm.is_reg)
        return;
    if (size_bytes == 4) /* clears the upper half */
        size_bytes = 8;
    emit_modrm(&unit->e, size_bytes == 1 ? 0x88 : 0x89, size_bytes, SCRATCH1, rm);
}

/* --- handlers ----------------------------------------------------------------------------- */

static struct slow_path *add_slow(struct unit *unit, uint8_t *from)
{
    struct slow_path *slow = &unit->slow[unit->slow_count++];
    *slow = (struct slow_path){.from = from,
                               .op = unit->op,
                               .ops = 1,
                               .dirty = unit->vector_dirty,
                               .loaded = unit->vector_loaded};
    return slow;
}

void slow_if(struct unit *unit, unsigned condition)
{
    add_slow(unit, emit_jcc(&unit->e, condition));
}

/* In the slow paths: what handlers expect of struct cpu. */
static void emit_context(struct unit *unit, const struct op *op)
{
    struct emitter *e = &unit->e;
    emit_mov_imm(e, SCRATCH0, (uintptr_t)unit->block);
    emit_store(e, CPU_FIELD(block), SCRATCH0);
    emit_load(e, SCRATCH0, gpr_slot(GPR_PAGE_RIP));
    if (unit->page_offset)
        emit_lea(e, SCRATCH0, rm_mem(SCRATCH0, (int32_t)unit->page_offset));
    emit_store(e, gpr_slot(GPR_BLOCK_RIP), SCRATCH0);
    if (op->flags & OP_ENDS_BLOCK) {
        emit_lea(e, SCRATCH0, rm_mem(SCRATCH0, op->offset + op->length));
        emit_store(e, CPU_FIELD(rip), SCRATCH0);
    }
    emit_mov_imm(e, SCRATCH1, (uintptr_t)op);
}

static void emit_call_thunk(struct unit *unit, uint32_t offset)
{
    emit_bind(emit_call(&unit->e), thunk(unit, offset));
}

static void emit_lookup_rip(struct unit *unit)
{
    emit_load(&unit->e, SCRATCH0, CPU_FIELD(rip));
    emit_bind(emit_jmp(&unit->e), thunk(unit, unit->translator->lookup));
}

/* After a handler in the middle: leaves when the block may have become void by it. */
static void emit_leave_if_void(struct unit *unit, const struct op *op)
{
    struct emitter *e = &unit->e;
    const struct block *block = unit->block;
    if (op + 1 == block->end)
        return;                                                      /* the next block polls */
    emit_modrm(e, 0xf6 | EMIT_EXTENSION, 1, 0, CPU_FIELD(requests)); /* test */
    emit8(e, REQUEST_VOID);
    uint8_t *stay = emit_jcc(e, CONDITION_E);
    emit_load(e, SCRATCH0, gpr_slot(GPR_BLOCK_RIP));
    emit_lea(e, SCRATCH0, rm_mem(SCRATCH0, op->offset + op->length));
    emit_store(e, CPU_FIELD(rip), SCRATCH0);
    emit_alu_imm(e, 5, 8, CPU_FIELD(stats.instructions), (int32_t)(block->end - op - 1), 0);
    emit_bind(emit_jmp(e), thunk(unit, unit->translator->leave));
    emit_bind(stay, e->at);
}

static void call_handler(struct unit *unit, const struct op *op)
{
    emit_context(unit, op);
    emit_call_thunk(unit, unit->translator->handler);
}

void emit_call_handler(struct unit *unit, const struct op *op)
{
    flags_clobber(unit);
    vector_settle(unit);
    call_handler(unit, op);
    if (op->flags & OP_ENDS_BLOCK) {
        emit_lookup_rip(unit);
        unit->ends = true;
    } else {
        emit_leave_if_void(unit, op);
        vector_reload(unit, 0);
    }
}

static void emit_slow_path(struct unit *unit, const struct slow_path *slow)
{
    emit_bind(slow->from, unit->e.at);
    unit->vector_loaded = slow->loaded;
    if (slow->loaded)
        vector_store(unit, slow->dirty);
    for (unsigned i = 0; i < slow->ops; i++) {
        call_handler(unit, slow->op + i);
        if (slow->back)
            emit_leave_if_void(unit, slow->op + i);
    }
    if (!slow->back) {
        emit_lookup_rip(unit);
        return;
    }
    vector_reload(unit, slow->reloaded);
    if (slow->restores_flags)
        emit_flags_restore(&unit->e);
    emit_bind(emit_jmp(&unit->e), slow->back);
}

/* Both jumps of an op with two accesses go to one path. */
static void emit_slow_paths(struct unit *unit)
{
    for (unsigned i = 0; i < unit->slow_count; i++) {
        while (i + 1 < unit->slow_count && unit->slow[i + 1].op == unit->slow[i].op) {
            emit_bind(unit->slow[i].from, unit->e.at);
            i++;
        }
        emit_slow_path(unit, &unit->slow[i]);
    }
}

/* --- exits -------------------------------------------------------------------------------- */

static void add_exit(struct unit *unit, uint8_t *site, int64_t target)
{
    unit->exits[unit->exit_count++] = (struct exit_path){site, (uint32_t)target};
}

static bool is_in_page(int64_t target)
{
    return target >= 0 && target < PAGE_BYTES;
}

void emit_exit(struct unit *unit, int64_t target, uint16_t live)
{
    struct emitter *e = &unit->e;
    flags_settle(unit, live);
    if (is_in_page(target)) {
        add_exit(unit, emit_jmp(e), target);
        return;
    }
    emit_load(e, SCRATCH0, gpr_slot(GPR_PAGE_RIP));
    emit_lea(e, SCRATCH0, rm_mem(SCRATCH0, (int32_t)target));
    emit_lookup(e, thunk(unit, unit->translator->leave));
}

void emit_exit_if(struct unit *unit, unsigned condition, int64_t target, uint16_t live)
{
    bool needs_code = !is_in_page(target) || (live && unit->in_host && !unit->in_memory);
    if (!needs_code) {
        add_exit(unit, emit_jcc(&unit->e, condition), target);
        return;
    }
    uint8_t *over = emit_jcc(&unit->e, condition ^ 1);
    emit_exit(unit, target, live);
    emit_bind(over, unit->e.at);
}

static void emit_exit_paths(struct unit *unit)
{
    struct emitter *e = &unit->e;
    const struct translator *t = unit->translator;
    for (unsigned i = 0; i < unit->exit_count; i++) {
        const struct exit_path *exit = &unit->exits[i];
        emit_bind(exit->site, e->at);
        emit_mov_imm(e, SCRATCH0, exit->offset);
        emit8(e, 0x41); /* mov SCRATCH1, imm32: where the record will be */
        emit8(e, 0xb8 | (SCRATCH1 & 7));
        uint8_t *place = e->at;
        emit32(e, 0);
        emit_bind(emit_jmp(e), thunk(unit, t->unlinked));
        struct link_record record = {unit->block->page, (uint32_t)(exit->site - t->writable),
                                     (uint16_t)exit->offset, (uint16_t)unit->block->mode};
        uint32_t offset = (uint32_t)(e->at - t->writable);
        memcpy(place, &offset, sizeof(offset));
        emit_bytes(e, &record, sizeof(record));
    }
}

/* The way out for requests, and what a dead block's first instruction becomes a jump to. */
static void emit_poll_path(struct unit *unit, uint8_t *from)
{
    struct emitter *e = &unit->e;
    emit_bind(from, e->at);
    emit_load(e, SCRATCH0, gpr_slot(GPR_PAGE_RIP));
    emit_lea(e, SCRATCH0, rm_mem(SCRATCH0, (int32_t)unit->page_offset));
    emit_store(e, CPU_FIELD(rip), SCRATCH0);
    emit_bind(emit_jmp(e), thunk(unit, unit->translator->leave));
}

/* The count of instructions is undone when it turns out that the block can't run. */
static void emit_arm_path(struct unit *unit, uint8_t *from, const uint8_t *body)
{
    struct emitter *e = &unit->e;
    emit_bind(from, e->at);
    emit_bind(emit_call(e), thunk(unit, unit->translator->arm));
    emit_alu_imm(e, 7, 4, CPU_FIELD(armed), (int32_t)unit->vector_level, 0);
    emit_bind(emit_jcc(e, CONDITION_AE), body);
    emit_alu_imm(e, 5, 8, CPU_FIELD(stats.instructions), unit->block->op_count, 0);
    emit_modrm(e, 0xc7 | EMIT_EXTENSION, 4, 0, CPU_FIELD(interprets_next)); /* mov */
    emit32(e, 1);
    emit_poll_path(unit, emit_jmp(e));
}

/* --- the whole ---------------------------------------------------------------------------- */

/* Gives the number of ops that are done. */
static unsigned emit_op(struct unit *unit, unsigned i)
{
    unsigned first_slow = unit->slow_count;
    unit->op = &unit->block->op[i];
    unit->facts = &unit->fact[i];
    if (!unit->facts->emit) {
        emit_call_handler(unit, unit->op);
        return 1;
    }
    if (unit->op->flags & OP_ENDS_BLOCK)
        vector_settle(unit);
    unsigned ops = flow_run_length(unit, i);
    if (ops > 1)
        flow_emit_run(unit, ops);
    else
        unit->facts->emit(unit, unit->op);
    for (unsigned k = first_slow; k < unit->slow_count; k++) {
        unit->slow[k].back = unit->ends ? NULL : unit->e.at;
        unit->slow[k].restores_flags = unit->in_host && unit->facts->live;
        unit->slow[k].reloaded = unit->vector_loaded;
        unit->slow[k].ops = ops;
    }
    return ops;
}

const uint8_t *translate(struct unit *unit)
{
    struct block *block = unit->block;
    struct emitter *e = &unit->e;
    const struct translator *t = unit->translator;
    const uint8_t *start = e->at;
    unit->page_offset = (uintptr_t)block->hva & (PAGE_BYTES - 1);
    unit->slow_count = unit->exit_count = 0;
    unit->ends = false;
    unit->align_mask = 0;
    unit->vector_loaded = unit->vector_dirty = 0;
    if (!analyse(unit))
        return NULL;
    unit->in_host = false;
    unit->in_memory = true;
    emit_alu_imm(e, 7, 4, CPU_FIELD(requests), 0, 0);
    uint8_t *poll = emit_jcc(e, CONDITION_NE);
    assert(e->at - start == POLL_BYTES);
    emit_alu_imm(e, 0, 8, CPU_FIELD(stats.instructions), block->op_count, 0);
    uint8_t *unarmed = NULL;
    if (unit->vector_level) {
        emit_alu_imm(e, 7, 4, CPU_FIELD(armed), (int32_t)unit->vector_level, 0);
        unarmed = emit_jcc(e, CONDITION_B);
    }
    const uint8_t *body = e->at;
    for (unsigned i = 0; i < block->op_count;)
        i += emit_op(unit, i);
    vector_settle(unit);
    if (!unit->ends)
        emit_exit(unit, (int64_t)unit->page_offset + block->size_bytes, unit->live_next);
    emit_poll_path(unit, poll);
    if (unarmed)
        emit_arm_path(unit, unarmed, body);
    emit_slow_paths(unit);
    emit_exit_paths(unit);
    return t->executable + (start - t->writable);
}
