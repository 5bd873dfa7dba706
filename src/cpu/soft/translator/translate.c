/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A block to host code: the poll at its start, its instructions one after another; and elsewhere,
 * so that it takes no room in the host's caches, what is rarely run: slow paths, exits that aren't
 * linked yet, the way out.
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
    bool is_there = unit->stored_at == unit->e.at && unit->stored_slot == offset / 8;
    if (load && !is_there)
        emit_modrm(&unit->e, size_bytes == 1 ? 0x8a : 0x8b, size_bytes, SCRATCH1, rm);
    return SCRATCH1;
}

static bool has_slow_path(const struct unit *unit)
{
    return unit->slow_count > 0 && unit->slow[unit->slow_count - 1].op == unit->op;
}

void reg_end(struct unit *unit, unsigned offset, unsigned size_bytes)
{
    struct rm rm = reg_rm(offset);
    if (rm.is_reg)
        return;
    if (size_bytes == 4) /* clears the upper half */
        size_bytes = 8;
    emit_modrm(&unit->e, size_bytes == 1 ? 0x88 : 0x89, size_bytes, SCRATCH1, rm);
    unit->stored_at = size_bytes == 8 && !has_slow_path(unit) ? unit->e.at : NULL;
    unit->stored_slot = offset / 8;
}

/* --- handlers ----------------------------------------------------------------------------- */

unsigned slow_later(struct unit *unit)
{
    unsigned n = unit->slow_count++;
    unit->slow[n] = (struct slow_path){.op = unit->op, .ops = 1};
    return n;
}

void slow_at(struct unit *unit, uint8_t *from)
{
    unsigned n = slow_later(unit);
    unit->slow[n].from = from;
}

void slow_if(struct unit *unit, unsigned condition)
{
    slow_at(unit, emit_jcc(&unit->e, condition));
}

void emit_op_number(struct unit *unit, const struct op *op)
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
    x87_emit_pointers(unit, op);
    call_handler(unit, op);
    if (op->flags & OP_ENDS_BLOCK) {
        unit->ends = true;
        return;
    }
    x87_rearm(unit, op);
    vector_rearm(unit);
}

static void emit_slow_path(struct unit *unit, const struct slow_path *slow)
{
    x87_emit_pointers(unit, slow->op);
    for (unsigned i = 0; i < slow->ops; i++)
        call_handler(unit, slow->op + i);
    if (!slow->back)
        return;
    x87_rearm(unit, slow->op);
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

void emit_rip(struct unit *unit, unsigned to, int64_t offset)
{
    emit_load(&unit->e, to, gpr_slot(GPR_PAGE_RIP));
    emit_lea(&unit->e, to, rm_mem(to, (int32_t)offset));
}

void emit_jump_rip(struct unit *unit, unsigned to, int64_t offset, unsigned size_bytes)
{
    struct emitter *e = &unit->e;
    emit_load(e, to, gpr_slot(GPR_PAGE_RIP));
    emit_modrm(e, 0x8d, unit->rip_bytes, to, rm_mem(to, (int32_t)offset)); /* lea */
    if (size_bytes == 2)
        emit_modrm(e, IN_0F(0xb7), 4, to, rm_reg(to)); /* movzx */
}

static void emit_leave_rip(struct unit *unit, int64_t offset, bool is_jump)
{
    if (is_jump)
        emit_jump_rip(unit, SCRATCH0, offset, unit->rip_bytes);
    else
        emit_rip(unit, SCRATCH0, offset);
}

/* Where nothing can be guarded, the target is looked up. `is_jump`: a jump goes there, else it is
 * what comes next, which outside of 64-bit mode goes on past the last address that RIP can hold. */
static void emit_leave_to(struct unit *unit, int64_t target, bool is_jump)
{
    struct emitter *e = &unit->e;
    if (unit->has_links && is_in_page(target)) {
        add_exit(unit, emit_jmp(e), target)->is_jump = is_jump;
    } else if (unit->domain != CLASS_OTHER) {
        struct exit_path *exit = add_exit(unit, emit_guard_room(unit), target);
        exit->is_far = true;
        exit->is_jump = is_jump;
    } else {
        emit_leave_rip(unit, target, is_jump);
        emit_bind(emit_jmp(e), thunk(unit, unit->translator->lookup[unit->domain]));
    }
}

void emit_exit(struct unit *unit, int64_t target, uint16_t live)
{
    flags_settle(unit, live);
    emit_leave_to(unit, target, true);
}

void emit_exit_behind(struct unit *unit, int64_t target, uint16_t live)
{
    flags_settle(unit, live);
    emit_leave_to(unit, target, false);
}

void emit_exit_if(struct unit *unit, unsigned condition, int64_t target, uint16_t live,
                  const struct op *op)
{
    struct exit_path *exit = add_exit(unit, emit_jcc(&unit->e, condition), target);
    exit->is_jump = op != NULL;
    exit->saves_flags = live && unit->in_host && !unit->in_memory;
    exit->is_behind = exit->saves_flags || !is_in_page(target);
    if (unit->has_links || !op)
        return;
    /* The handler looks at the condition again. */
    exit->saves_flags = unit->in_host && !unit->in_memory;
    exit->is_behind = true;
    exit->checked = op;
    exit->slow = slow_later(unit);
}

/* What an exit does before it is linked: goes to C with the place of the jump. */
static void emit_stub(struct unit *unit, const struct exit_path *exit)
{
    struct emitter *e = &unit->e;
    const struct translator *t = unit->translator;
    uint32_t stub = (uint32_t)(e->at - t->writable);
    emit_bind(exit->is_far ? exit->site + 1 : exit->site, e->at);
    emit_leave_rip(unit, exit->target, exit->is_jump);
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

/* Where each jump has to be looked at: the handler raises what is wrong with it. */
static void emit_checked_exit(struct unit *unit, const struct exit_path *exit)
{
    struct emitter *e = &unit->e;
    emit_jump_rip(unit, SCRATCH0, exit->target, exit->checked->size_bytes);
    emit_target_compare(unit);
    unit->slow[exit->slow].from = emit_jcc(e, CONDITION_A);
    emit_bind(emit_jmp(e), thunk(unit, unit->translator->lookup[unit->domain]));
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
        if (exit.checked)
            emit_checked_exit(unit, &exit);
        else
            emit_leave_to(unit, exit.target, exit.is_jump);
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
        if (emit_target_compare(unit))
            unit->slow[miss->slow].from = emit_jcc(e, CONDITION_A);
        if (miss->rsp_distance)
            emit_move_rsp(unit, miss->rsp_distance);
        emit_bind(emit_jmp(e), thunk(unit, unit->translator->lookup[unit->domain]));
    }
}

static void emit_leave_at(struct unit *unit, int offset)
{
    struct emitter *e = &unit->e;
    emit_rip(unit, SCRATCH0, (int64_t)unit->page_offset + offset);
    emit_store(e, CPU_FIELD(rip), SCRATCH0);
    emit_bind(emit_jmp(e), thunk(unit, unit->translator->leave));
}

static void emit_interpret_next(struct unit *unit)
{
    emit_modrm(&unit->e, 0xc7 | EMIT_EXTENSION, 4, 0, CPU_FIELD(interprets_next)); /* mov */
    emit32(&unit->e, 1);
}

void emit_leave_to_interpreter(struct unit *unit, const struct op *op)
{
    if (unit->cpu->system->translator.has_counts)
        emit_alu_imm(&unit->e, 5, 8, CPU_FIELD(stats.instructions),
                     (int32_t)(unit->block->end - op), 0);
    emit_interpret_next(unit);
    emit_leave_at(unit, op->offset);
}

/* The way out for requests, and what a dead block's first instruction becomes a jump to. */
static void emit_poll_path(struct unit *unit, uint8_t *from)
{
    emit_bind(from, unit->e.at);
    emit_leave_at(unit, 0);
}

/* A straddling instruction is what was decoded while its first page is at the same RIP in the same
 * address space and the second has not changed. */
void emit_straddle_guard(struct emitter *e, const struct cpu *cpu, const struct block *block,
                         const uint8_t *fail)
{
    const unsigned half = block->mode & MODE_UPPER ? 1 : 0;
    const size_t key = offsetof(struct cpu, link_key) + half * sizeof(uint64_t);
    EMIT(e, 0x49, 0xbe); /* mov SCRATCH0, imm64 */
    emit64(e, cpu->rip - block->page_offset);
    emit_modrm(e, 0x3b, 8, SCRATCH0, gpr_slot(GPR_PAGE_RIP)); /* cmp */
    emit_bind(emit_jcc(e, CONDITION_NE), fail);
    emit_modrm(e, 0x81 | EMIT_EXTENSION, 4, 7, rm_mem(HOST_CPU, (int32_t)key - CPU_BIAS));
    emit32(e, (uint32_t)cpu->link_key[half]);
    emit_bind(emit_jcc(e, CONDITION_NE), fail);
    EMIT(e, 0x49, 0xbe);
    emit64(e, (uintptr_t)&block->page2->generation);
    emit_modrm(e, 0x81 | EMIT_EXTENSION, 4, 7, rm_mem(SCRATCH0, 0));
    emit32(e, block->generation2);
    emit_bind(emit_jcc(e, CONDITION_NE), fail);
}

/* What a block needs beside its instructions: a field of struct cpu at a level, or the thunk that
 * tries to make it so. */
struct arming {
    struct rm field;
    unsigned level; /* 0: the block doesn't need it */
    uint32_t thunk;
    uint8_t *from;
    const uint8_t *back;
};

static void emit_arming(struct unit *unit, struct arming *arming)
{
    arming->from = NULL;
    if (arming->level) {
        emit_alu_imm(&unit->e, 7, 4, arming->field, (int32_t)arming->level, 0);
        arming->from = emit_jcc(&unit->e, CONDITION_B);
    }
    arming->back = unit->e.at;
}

/* When it turns out that the block can't run here, the interpreter does. */
static void emit_arm_path(struct unit *unit, const struct arming *arming)
{
    struct emitter *e = &unit->e;
    if (!arming->from)
        return;
    emit_bind(arming->from, e->at);
    emit_bind(emit_call(e), thunk(unit, arming->thunk));
    emit_alu_imm(e, 7, 4, arming->field, (int32_t)arming->level, 0);
    emit_bind(emit_jcc(e, CONDITION_AE), arming->back);
    emit_interpret_next(unit);
    emit_leave_at(unit, 0);
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
        x87_emit_pointers(unit, unit->op);
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
    if (mode & MODE_FLAT)
        return mode & MODE_USER ? CLASS_USER32 : CLASS_KERNEL32;
    if (!mode_is_64bit(mode))
        return CLASS_OTHER;
    if (mode & MODE_USER)
        return mode & MODE_UPPER ? CLASS_OTHER : CLASS_USER;
    return mode & MODE_UPPER ? CLASS_KERNEL : CLASS_OTHER;
}

void unit_set_block(struct unit *unit, struct block *block)
{
    unit->block = block;
    unit->page_offset = (unsigned)block->page_offset;
    unit->domain = class_of(block->mode);
    unit->is_64bit = mode_is_64bit(block->mode);
    unit->has_links = mode_has_links(block->mode);
    unit->rip_bytes = mode_rip_bytes(block->mode);
    unit->stack_bytes = unit->is_64bit ? 8 : block->mode & MODE_STACK32 ? 4 : 2;
}

static void begin(struct unit *unit)
{
    unit->slow_count = unit->page_miss_count = unit->group_miss_count = 0;
    unit->exit_count = unit->miss_count = 0;
    unit->return_address = NULL;
    unit->stored_at = NULL;
    unit->enables_interrupts = false;
    unit->ends = false;
    unit->align_mask = 0;
    unit->in_host = false;
    unit->in_memory = true;
}

const uint8_t *translate(struct unit *unit)
{
    const struct block *block = unit->block;
    struct emitter *e = &unit->e;
    const struct translator *t = unit->translator;
    const uint8_t *start = e->at;
    begin(unit);
    if (!analyse(unit))
        return NULL;
    emit_alu_imm(e, 7, 4, CPU_FIELD(requests), 0, 0);
    uint8_t *poll = emit_jcc(e, CONDITION_NE);
    assert(e->at - start == POLL_BYTES);
    if (block->page2)
        emit_straddle_guard(e, unit->cpu, block, unit->cold.at); /* the way of the poll */
    /* In this order: getting the x87 ready disarms the other. */
    struct arming x87 = {CPU_FIELD(x87_ready), unit->uses_x87, t->arm_x87};
    struct arming vectors = {CPU_FIELD(armed), unit->vector_level, t->arm};
    emit_arming(unit, &x87);
    emit_arming(unit, &vectors);
    if (unit->cpu->system->translator.has_counts)
        emit_alu_imm(e, 0, 8, CPU_FIELD(stats.instructions), block->op_count, 0);
    for (unsigned i = 0; i < block->op_count;)
        i += emit_op(unit, i);
    if (!unit->ends) {
        x87_emit_pointers(unit, block->end);
        emit_exit_behind(unit, unit_end(unit), unit->live_next);
    }
    if (unit->return_address) {
        emit_bind(unit->return_address, e->at);
        emit_leave_to(unit, unit->return_target, false);
    }
    struct emitter hot = *e;
    *e = unit->cold;
    emit_poll_path(unit, poll);
    emit_arm_path(unit, &x87);
    emit_arm_path(unit, &vectors);
    address_emit_misses(unit);
    emit_target_misses(unit);
    emit_exit_paths(unit);
    emit_slow_paths(unit);
    unit->cold = *e;
    *e = hot;
    return t->executable + (start - t->writable);
}
