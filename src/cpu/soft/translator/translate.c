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

unsigned slow_later(struct unit *unit)
{
    unsigned n = unit->slow_count++;
    unit->slow[n] = (struct slow_path){.op = unit->op, .ops = 1};
    return n;
}

void slow_if(struct unit *unit, unsigned condition)
{
    unsigned n = slow_later(unit);
    unit->slow[n].from = emit_jcc(&unit->e, condition);
}

static void emit_op_number(struct unit *unit, const struct op *op)
{
    emit8(&unit->e, 0x41); /* mov SCRATCH1, imm32 */
    emit8(&unit->e, 0xb8 | (SCRATCH1 & 7));
    emit32(&unit->e, (uint32_t)((const uint8_t *)op - unit->cpu->block_arena));
}

/* It doesn't come back when the op ends the block, or when the block may have become void by it. */
static void call_handler(struct unit *unit, const struct op *op)
{
    const struct translator *t = unit->translator;
    emit_op_number(unit, op);
    if (op->flags & OP_ENDS_BLOCK)
        emit_bind(emit_jmp(&unit->e), thunk(unit, t->last_handler));
    else
        emit_bind(emit_call(&unit->e), thunk(unit, t->handler));
}

void emit_call_handler(struct unit *unit, const struct op *op)
{
    flags_clobber(unit);
    call_handler(unit, op);
    if (op->flags & OP_ENDS_BLOCK)
        unit->ends = true;
    else
        vector_rearm(unit);
}

static void emit_slow_path(struct unit *unit, const struct slow_path *slow)
{
    for (unsigned i = 0; i < slow->ops; i++)
        call_handler(unit, slow->op + i);
    if (!slow->back)
        return;
    vector_rearm(unit);
    if (slow->restores_flags)
        emit_flags_restore(&unit->e);
    emit_bind(emit_jmp(&unit->e), slow->back);
}

/* All jumps of an op go to one path. */
static void emit_slow_paths(struct unit *unit)
{
    for (unsigned i = 0; i < unit->slow_count;) {
        const struct slow_path *first = &unit->slow[i];
        for (; i < unit->slow_count && unit->slow[i].op == first->op; i++)
            if (unit->slow[i].from)
                emit_bind(unit->slow[i].from, unit->e.at);
        emit_slow_path(unit, first);
    }
}

/* --- exits -------------------------------------------------------------------------------- */

static bool is_in_page(int64_t target)
{
    return target >= 0 && target < PAGE_BYTES;
}

static struct exit_path *add_exit(struct unit *unit, uint8_t *site, int64_t target)
{
    struct exit_path *exit = &unit->exits[unit->exit_count++];
    *exit = (struct exit_path){.site = site, .target = target};
    return exit;
}

/* Room for the guard of a link to another page; link_far in cache.c fills it. */
static uint8_t *emit_guard_room(struct unit *unit)
{
    uint8_t *guard = unit->e.at;
    emit_jmp(&unit->e);
    while (unit->e.at < guard + GUARD_BYTES)
        emit8(&unit->e, 0xcc);
    return guard;
}

/* Where nothing can be guarded, the target is looked up. */
static void emit_jump(struct unit *unit, int64_t target)
{
    struct emitter *e = &unit->e;
    if (is_in_page(target)) {
        add_exit(unit, emit_jmp(e), target);
    } else if (unit->domain != CLASS_OTHER) {
        add_exit(unit, emit_guard_room(unit), target)->is_far = true;
    } else {
        emit_load(e, SCRATCH0, gpr_slot(GPR_PAGE_RIP));
        emit_lea(e, SCRATCH0, rm_mem(SCRATCH0, (int32_t)target));
        emit_bind(emit_jmp(e), thunk(unit, unit->translator->lookup[unit->domain]));
    }
}

void emit_exit(struct unit *unit, int64_t target, uint16_t live)
{
    flags_settle(unit, live);
    emit_jump(unit, target);
}

void emit_exit_if(struct unit *unit, unsigned condition, int64_t target, uint16_t live)
{
    struct exit_path *exit = add_exit(unit, emit_jcc(&unit->e, condition), target);
    exit->saves_flags = live && unit->in_host && !unit->in_memory;
    exit->is_behind = exit->saves_flags || !is_in_page(target);
}

/* What an exit does before it is linked: goes to C with the place of the jump. */
static void emit_stub(struct unit *unit, const struct exit_path *exit)
{
    struct emitter *e = &unit->e;
    const struct translator *t = unit->translator;
    uint32_t stub = (uint32_t)(e->at - t->writable);
    emit_bind(exit->is_far ? exit->site + 1 : exit->site, e->at);
    emit_load(e, SCRATCH0, gpr_slot(GPR_PAGE_RIP));
    emit_lea(e, SCRATCH0, rm_mem(SCRATCH0, (int32_t)exit->target));
    emit8(e, 0x41); /* mov SCRATCH1, imm32: where the record will be */
    emit8(e, 0xb8 | (SCRATCH1 & 7));
    uint8_t *place = e->at;
    emit32(e, 0);
    emit_bind(emit_jmp(e), thunk(unit, exit->is_far ? t->far : t->unlinked));
    struct link_record record = {
        .page = unit->block->page,
        .site = (uint32_t)(exit->site - t->writable),
        .stub = stub,
        .target = (int32_t)exit->target,
        .mode = (uint16_t)unit->block->mode,
        .is_far = exit->is_far,
        .is_forward = exit->target > (int64_t)unit->page_offset && !unit->enables_interrupts,
    };
    uint32_t offset = (uint32_t)(e->at - t->writable);
    memcpy(place, &offset, sizeof(offset));
    emit_bytes(e, &record, sizeof(record));
}

/* The list grows while it is walked, by what exits behind the block jump to. */
static void emit_exit_paths(struct unit *unit)
{
    for (unsigned i = 0; i < unit->exit_count; i++) {
        const struct exit_path exit = unit->exits[i];
        if (!exit.is_behind) {
            emit_stub(unit, &exit);
            continue;
        }
        emit_bind(exit.site, unit->e.at);
        if (exit.saves_flags)
            emit_flags_save(&unit->e);
        emit_jump(unit, exit.target);
    }
}

/* With RIP in SCRATCH0, which is not in the caches: RSP moves when it is sure that nothing faults.
 */
static void emit_target_misses(struct unit *unit)
{
    struct emitter *e = &unit->e;
    for (unsigned i = 0; i < unit->miss_count; i++) {
        const struct target_miss *miss = &unit->misses[i];
        emit_bind(miss->from, e->at);
        emit_canonical_compare(e);
        unit->slow[miss->slow].from = emit_jcc(e, CONDITION_A);
        if (miss->rsp_distance)
            emit_lea(e, HOST_R12, rm_mem(HOST_R12, miss->rsp_distance));
        emit_bind(emit_jmp(e), thunk(unit, unit->translator->lookup[unit->domain]));
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

/* When it turns out that the block can't run here, the interpreter does. */
static void emit_arm_path(struct unit *unit, uint8_t *from, const uint8_t *body)
{
    struct emitter *e = &unit->e;
    emit_bind(from, e->at);
    emit_bind(emit_call(e), thunk(unit, unit->translator->arm));
    emit_alu_imm(e, 7, 4, CPU_FIELD(armed), (int32_t)unit->vector_level, 0);
    emit_bind(emit_jcc(e, CONDITION_AE), body);
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
    unsigned ops = flow_run_length(unit, i);
    if (ops > 1)
        flow_emit_run(unit, ops);
    else
        unit->facts->emit(unit, unit->op);
    for (unsigned k = first_slow; k < unit->slow_count; k++) {
        unit->slow[k].back = unit->ends ? NULL : unit->e.at;
        unit->slow[k].restores_flags = unit->in_host && unit->facts->live;
        unit->slow[k].ops = ops;
    }
    return ops;
}

static enum code_class class_of(uint32_t mode)
{
    if (mode & MODE_USER)
        return mode & MODE_UPPER ? CLASS_OTHER : CLASS_USER;
    return mode & MODE_UPPER ? CLASS_KERNEL : CLASS_OTHER;
}

static void begin(struct unit *unit)
{
    unit->page_offset = (uintptr_t)unit->block->hva & (PAGE_BYTES - 1);
    unit->domain = class_of(unit->block->mode);
    unit->slow_count = unit->page_miss_count = unit->exit_count = unit->miss_count = 0;
    unit->return_address = NULL;
    unit->enables_interrupts = false;
    unit->ends = false;
    unit->align_mask = 0;
    unit->in_host = false;
    unit->in_memory = true;
}

const uint8_t *translate(struct unit *unit)
{
    struct block *block = unit->block;
    struct emitter *e = &unit->e;
    const struct translator *t = unit->translator;
    const uint8_t *start = e->at;
    begin(unit);
    if (!analyse(unit))
        return NULL;
    emit_alu_imm(e, 7, 4, CPU_FIELD(requests), 0, 0);
    uint8_t *poll = emit_jcc(e, CONDITION_NE);
    assert(e->at - start == POLL_BYTES);
    uint8_t *unarmed = NULL;
    if (unit->vector_level) {
        emit_alu_imm(e, 7, 4, CPU_FIELD(armed), (int32_t)unit->vector_level, 0);
        unarmed = emit_jcc(e, CONDITION_B);
    }
    const uint8_t *body = e->at;
    if (unit->cpu->system->translator.has_counts)
        emit_alu_imm(e, 0, 8, CPU_FIELD(stats.instructions), block->op_count, 0);
    for (unsigned i = 0; i < block->op_count;)
        i += emit_op(unit, i);
    if (!unit->ends)
        emit_exit(unit, (int64_t)unit->page_offset + block->size_bytes, unit->live_next);
    emit_poll_path(unit, poll);
    if (unarmed)
        emit_arm_path(unit, unarmed, body);
    address_emit_misses(unit);
    emit_target_misses(unit);
    emit_slow_paths(unit);
    if (unit->return_address) {
        emit_bind(unit->return_address, e->at);
        emit_jump(unit, unit->return_target);
    }
    emit_exit_paths(unit);
    return t->executable + (start - t->writable);
}
