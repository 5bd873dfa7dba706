/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Guest memory in generated code: the linear address is looked up in the direct-mapped TLB view as
 * memory.h does. The operand is then named by the guest's own registers and the entry's addend, so
 * that two scratch registers are enough.
 */
#include "cpu/soft/translator/internal.h"

static bool is_segmented(const struct op *op)
{
    return op->segment >= SEG_FS;
}

static int64_t displacement(const struct unit *unit, const struct op *op)
{
    if (!unit->is_64bit)
        return (int32_t)op->disp;
    return op->disp + (op->base == GPR_BLOCK_RIP ? (int64_t)unit->page_offset : 0);
}

bool address_is_simple(const struct unit *unit, const struct op *op)
{
    int64_t disp = displacement(unit, op);
    if (!unit->is_64bit)
        return op->segment <= SEG_GS;
    return !(op->flags & (OP_ADDRESS_32 | OP_ADDRESS_16)) && disp == (int32_t)disp &&
           op->segment <= SEG_GS;
}

bool address_is_flat(const struct unit *unit, unsigned segment)
{
    return unit->has_links && (segment == SEG_SS || segment == SEG_DS || segment == SEG_ES);
}

/* Outside of 64-bit mode a sum of registers goes past 4 GiB all the time: where an index is
 * negative, where the kernel's addresses are distances. One register and a short distance is all
 * but sure not to: if it does, it is in no page of the TLB, and its handler's. */
bool address_is_plain(const struct unit *unit, const struct op *op)
{
    enum { NEAR = 1 << 16 };
    if (unit->is_64bit)
        return address_is_simple(unit, op);
    int64_t disp = displacement(unit, op);
    if (!address_is_flat(unit, op->segment) || !(op->flags & OP_ADDRESS_32) ||
        op->index != GPR_ZERO)
        return false;
    return op->base == GPR_ZERO ? disp >= 0 : disp > -NEAR && disp < NEAR;
}

static struct rm segment_base(unsigned segment)
{
    size_t at = offsetof(struct cpu, segment) + segment * sizeof(struct x86_segment) +
                offsetof(struct x86_segment, base);
    return rm_mem(HOST_CPU, (int32_t)at - CPU_BIAS);
}

static void take_base(struct address *a, uint8_t slot)
{
    if (slot == GPR_ZERO)
        return;
    if (slot == GPR_BLOCK_RIP)
        a->term[a->terms++] = gpr_slot(GPR_PAGE_RIP);
    else if (host_of[slot] == HOST_NONE)
        a->term[a->terms++] = gpr_slot(slot);
    else
        a->base = host_of[slot];
}

static struct address address_of(const struct unit *unit, const struct op *op, bool with_segment)
{
    struct address a = {.base = HOST_NONE, .index = HOST_NONE, .scale = op->scale};
    a.disp = (int32_t)displacement(unit, op);
    take_base(&a, op->base);
    if (op->index != GPR_ZERO && host_of[op->index] != HOST_NONE) {
        a.index = host_of[op->index];
    } else if (op->index != GPR_ZERO) {
        a.has_stored_index = true;
        a.stored = gpr_slot(op->index);
    }
    if (!unit->is_64bit) {
        if (!address_is_plain(unit, op))
            a.cut_bytes = op->flags & OP_ADDRESS_16 ? 2 : 4;
        a.is_segmented = with_segment && !address_is_flat(unit, op->segment);
        a.segment = op->segment;
    } else if (with_segment && is_segmented(op)) {
        a.term[a.terms++] = segment_base(op->segment);
    }
    return a;
}

static void emit_add(struct emitter *e, unsigned to, struct rm from)
{
    emit_modrm(e, 0x03, 8, to, from);
}

/* The sum of registers and distance, cut, with flags left alone. */
static void compute_cut(struct emitter *e, const struct address *a, unsigned to)
{
    if (a->base == HOST_NONE && a->index == HOST_NONE)
        emit_mov_imm(e, to, (uint32_t)a->disp);
    else
        emit_modrm(e, 0x8d, 4, to, rm_indexed(a->base, a->index, a->scale, a->disp)); /* lea */
    if (a->cut_bytes == 2)
        emit_modrm(e, IN_0F(0xb7), 4, to, rm_reg(to)); /* movzx */
}

/* With flags left alone when there is at most one part to fetch. */
static void compute(struct emitter *e, const struct address *a, unsigned to)
{
    unsigned term = 0;
    if (a->has_stored_index) {
        emit_load(e, to, a->stored);
        emit_lea(e, to, rm_indexed(a->base, to, a->scale, a->disp));
    } else if (a->terms > 0) {
        emit_load(e, to, a->term[term++]);
        if (a->base != HOST_NONE && a->index != HOST_NONE)
            emit_lea(e, to, rm_indexed(to, a->base, 0, 0));
        unsigned index = a->index != HOST_NONE ? a->index : a->base;
        unsigned scale = a->index != HOST_NONE ? a->scale : 0;
        if (index != HOST_NONE || a->disp != 0)
            emit_lea(e, to, rm_indexed(to, index, scale, a->disp));
    } else if (a->base == HOST_NONE && a->index == HOST_NONE) {
        emit_mov_imm(e, to, (uint64_t)(int64_t)a->disp);
    } else if (a->index == HOST_NONE && a->disp == 0) {
        emit_mov_rr(e, to, a->base);
    } else {
        emit_lea(e, to, rm_indexed(a->base, a->index, a->scale, a->disp));
    }
    for (; term < a->terms; term++)
        emit_add(e, to, a->term[term]);
}

/* The linear address of what is cut. */
static void compute_linear(struct emitter *e, const struct address *a, unsigned to)
{
    compute_cut(e, a, to);
    if (a->is_segmented)
        emit_modrm(e, 0x03, 4, to, segment_base(a->segment)); /* add */
}

/* The operand, given addend in SCRATCH0. */
static struct rm operand(struct emitter *e, const struct address *a)
{
    for (unsigned i = 0; i < a->terms; i++)
        emit_add(e, SCRATCH0, a->term[i]);
    if (a->has_stored_index) {
        emit_load(e, SCRATCH1, a->stored);
        emit_lea(e, SCRATCH0, rm_indexed(SCRATCH0, SCRATCH1, a->scale, 0));
    }
    if (a->index == HOST_NONE)
        return rm_indexed(SCRATCH0, a->base, 0, a->disp);
    if (a->base != HOST_NONE)
        emit_lea(e, SCRATCH0, rm_indexed(SCRATCH0, a->base, 0, 0));
    return rm_indexed(SCRATCH0, a->index, a->scale, a->disp);
}

static void check_alignment(struct unit *unit)
{
    if (!unit->align_mask)
        return;
    emit_modrm(&unit->e, 0xf6 | EMIT_EXTENSION, 1, 0, rm_reg(SCRATCH0)); /* test */
    emit8(&unit->e, unit->align_mask);
    slow_if(unit, CONDITION_NE);
}

static struct rm slot_field(const struct unit *unit, const struct page_miss *access, size_t field)
{
    size_t at = offsetof(struct cpu, page_slot) +
                (unit->domain * PAGE_SLOTS + access->slot) * sizeof(struct page_slot);
    if (access->slot < STACK_SLOTS && unit->is_64bit)
        at = offsetof(struct cpu, stack_slot) +
             (unit->domain * STACK_SLOTS + access->slot) * sizeof(struct page_slot);
    if (access->is_loop)
        at = offsetof(struct cpu, loop_slot) +
             (unit->domain * LOOP_SLOTS + access->slot) * sizeof(struct loop_slot);
    return rm_mem(HOST_CPU, (int32_t)(at + field) - CPU_BIAS);
}

_Static_assert(offsetof(struct page_slot, page) == offsetof(struct loop_slot, page) &&
                   offsetof(struct page_slot, addend) == offsetof(struct loop_slot, addend),
               "slot_field");

/* The address to SCRATCH0: registers and a distance, with at most one part to fetch. */
static void emit_address(struct emitter *e, const struct page_miss *access, unsigned distance)
{
    struct rm rm = access->address;
    rm.disp += (int32_t)distance;
    if (access->has_term) {
        emit_load(e, SCRATCH0, access->term);
        if (rm.base != HOST_NONE)
            emit_lea(e, SCRATCH0, rm_indexed(SCRATCH0, rm.base, 0, 0));
        rm.base = SCRATCH0;
    }
    if (rm.base == HOST_NONE && rm.index == HOST_NONE)
        emit_mov_imm(e, SCRATCH0, (uint64_t)(int64_t)rm.disp);
    else
        emit_lea(e, SCRATCH0, rm);
}

/* Jumps unless the byte at a distance is in the slot's page and bits of `also` are clear. */
static uint8_t *compare_page(struct unit *unit, const struct page_miss *access, unsigned distance,
                             unsigned also)
{
    struct emitter *e = &unit->e;
    emit_address(e, access, distance);
    emit_alu_imm(e, 4, 8, rm_reg(SCRATCH0), -PAGE_BYTES | (int32_t)also, 0);
    emit_modrm(e, 0x3b, 8, SCRATCH0, /* cmp */
               slot_field(unit, access, offsetof(struct page_slot, page)));
    return emit_jcc(e, CONDITION_NE);
}

/* Where the page is that of the slot, most likely. What is aligned doesn't leave it; what is larger
 * than a word is looked at from both ends. */
static struct rm check_slot(struct unit *unit, const struct address *a, unsigned slot, bool is_loop,
                            unsigned size_bytes, enum memory_access access)
{
    struct emitter *e = &unit->e;
    struct page_miss *miss = &unit->page_miss[unit->page_miss_count++];
    flags_clobber(unit);
    *miss = (struct page_miss){.op = unit->op,
                               .address = rm_indexed(a->base, a->index, a->scale, a->disp),
                               .has_term = a->terms > 0,
                               .term = a->term[0],
                               .size_bytes = size_bytes,
                               .slot = slot,
                               .is_loop = is_loop,
                               .is_write = access == ACCESS_WRITE,
                               .slow = slow_later(unit)};
    if (unit->align_mask) {
        emit_address(e, miss, 0);
        check_alignment(unit);
    }
    miss->from[0] = compare_page(unit, miss, 0, size_bytes <= 8 ? size_bytes - 1 : 0);
    if (size_bytes > 8)
        miss->from[1] = compare_page(unit, miss, size_bytes - 1, 0);
    emit_load(e, SCRATCH0, slot_field(unit, miss, offsetof(struct page_slot, addend)));
    miss->back = e->at;
    return operand(e, a);
}

static void begin_miss(struct emitter *e, const struct page_miss *miss)
{
    for (unsigned i = 0; i < 2; i++)
        if (miss->from[i])
            emit_bind(miss->from[i], e->at);
    if (!miss->cut)
        emit_address(e, miss, 0);
}

/* With the addend in SCRATCH0. */
static void end_miss(struct unit *unit, const struct page_miss *miss, unsigned failed)
{
    struct emitter *e = &unit->e;
    unit->slow[miss->slow].from = emit_jcc(e, failed);
    if (miss->cut) {
        compute_linear(e, miss->cut, SCRATCH1);
        emit_add(e, SCRATCH0, rm_reg(SCRATCH1));
    }
    emit_bind(emit_jmp(e), miss->back);
}

/* In C, which sees whether the slot is of use. */
static void emit_loop_miss(struct unit *unit, const struct page_miss *miss)
{
    struct emitter *e = &unit->e;
    begin_miss(e, miss);
    emit_modrm(e, 0xc7 | EMIT_EXTENSION, 4, 0, CPU_FIELD(missed_slot)); /* mov */
    emit32(e, miss->size_bytes);
    emit_modrm(e, 0xc7 | EMIT_EXTENSION, 4, 0, CPU_FIELD(missed_loop_slot));
    emit32(e, unit->domain * LOOP_SLOTS + miss->slot + 1);
    emit_op_number(unit, miss->op);
    emit_bind(emit_call(e), thunk(unit, unit->translator->group_miss[miss->is_write]));
    vector_rearm(unit);
    emit_modrm(e, 0x85, 8, SCRATCH0, rm_reg(SCRATCH0)); /* test */
    end_miss(unit, miss, CONDITION_E);
}

static void emit_page_miss(struct unit *unit, const struct page_miss *miss)
{
    struct emitter *e = &unit->e;
    const struct translator *t = unit->translator;
    const bool is_read_slot = miss->slot >= FIRST_READ_SLOT && miss->slot < FIRST_WRITE_SLOT;
    const enum page_access access = miss->is_write ? PAGE_WRITE
                                    : is_read_slot ? PAGE_READ_ONLY
                                                   : PAGE_READ;
    begin_miss(e, miss);
    emit_lea(e, SCRATCH1, rm_mem(SCRATCH0, (int32_t)miss->size_bytes - 1));
    emit_modrm(e, 0xc7 | EMIT_EXTENSION, 4, 0, CPU_FIELD(missed_slot)); /* mov */
    emit32(e, (uint32_t)slot_field(unit, miss, 0).disp);
    emit_bind(emit_call(e), thunk(unit, t->page_miss[access]));
    end_miss(unit, miss, CONDITION_NE);
}

enum { NO_SLOT = PAGE_SLOTS };

static unsigned slot_of_page(uint64_t linear, enum memory_access access)
{
    unsigned page = (unsigned)(linear >> PAGE_SHIFT);
    return access == ACCESS_WRITE ? FIRST_WRITE_SLOT + page % WRITE_SLOTS
                                  : FIRST_READ_SLOT + page % READ_SLOTS;
}

/* Outside of 64-bit mode, what no register is part of. */
static unsigned slot_of_constant(const struct address *a, enum memory_access access)
{
    if (a->base != HOST_NONE)
        return NO_SLOT;
    if (a->is_segmented && a->segment >= SEG_FS)
        return FIRST_SEGMENT_SLOT + ((unsigned)a->disp >> PAGE_SHIFT) % SEGMENT_SLOTS;
    return a->is_segmented ? NO_SLOT : slot_of_page((uint32_t)a->disp, access);
}

/* What is addressed by RSP, RIP, FS or GS and a distance only; others are looked up. */
static unsigned slot_of(const struct unit *unit, const struct op *op, const struct address *a,
                        enum memory_access access)
{
    if (unit->domain == CLASS_OTHER || a->index != HOST_NONE || a->has_stored_index)
        return NO_SLOT;
    if (a->base == HOST_R12 && a->terms == 0 && !a->is_segmented)
        return (unsigned)a->disp / 64 % STACK_SLOTS;
    if (!unit->is_64bit)
        return slot_of_constant(a, access);
    if (!op || op->index != GPR_ZERO || a->base != HOST_NONE || a->terms != 1)
        return NO_SLOT;
    if (op->base == GPR_BLOCK_RIP)
        return slot_of_page((unit->cpu->rip & PAGE_MASK) + (uint64_t)(int64_t)a->disp, access);
    if (op->base == GPR_ZERO && is_segmented(op))
        return FIRST_SEGMENT_SLOT + ((unsigned)a->disp >> PAGE_SHIFT) % SEGMENT_SLOTS;
    return NO_SLOT;
}

/* The address in SCRATCH0 becomes its page's addend. Gives the jump that a miss takes. */
static uint8_t *look_up(struct unit *unit, unsigned size_bytes, enum memory_access access)
{
    struct emitter *e = &unit->e;
    const int32_t table = access == ACCESS_WRITE ? (int32_t)offsetof(struct tlb_tables, write)
                                                 : (int32_t)offsetof(struct tlb_tables, read);
    if (size_bytes == 1)
        emit_mov_rr(e, SCRATCH1, SCRATCH0);
    else
        emit_lea(e, SCRATCH1, rm_mem(SCRATCH0, (int32_t)size_bytes - 1));
    emit_modrm(e, 0xc1 | EMIT_EXTENSION, 4, 5, rm_reg(SCRATCH0)); /* shr */
    emit8(e, PAGE_SHIFT - 4);
    emit_alu_imm(e, 4, 4, rm_reg(SCRATCH0), (TLB_ENTRIES - 1) << 4, 0);
    emit_alu_imm(e, 4, 8, rm_reg(SCRATCH1), -PAGE_BYTES, 0);
    emit_add(e, SCRATCH0, CPU_FIELD(tlb));
    emit_modrm(e, 0x3b, 8, SCRATCH1, rm_mem(SCRATCH0, table)); /* cmp */
    uint8_t *miss = emit_jcc(e, CONDITION_NE);
    emit_load(e, SCRATCH0, rm_mem(SCRATCH0, table + (int32_t)offsetof(struct tlb_entry, addend)));
    return miss;
}

/* --- addresses that are cut, and segments with bounds --------------------------------------- */

/* SCRATCH0 = the linear address; what is not in the segment's bounds is its handler's. */
static void compute_in_bounds(struct unit *unit, const struct address *a, unsigned size_bytes,
                              enum memory_access access)
{
    struct emitter *e = &unit->e;
    const size_t bounds = offsetof(struct cpu, bounds) + a->segment * sizeof(struct segment_bounds);
    const size_t last = access == ACCESS_WRITE ? offsetof(struct segment_bounds, write_last)
                                               : offsetof(struct segment_bounds, read_last);
    compute_cut(e, a, SCRATCH0);
    if (!a->is_segmented)
        return;
    emit_lea(e, SCRATCH1, rm_mem(SCRATCH0, (int32_t)size_bytes - 1));
    emit_modrm(e, 0x3b, 8, SCRATCH1, /* cmp */
               rm_mem(HOST_CPU, (int32_t)(bounds + last) - CPU_BIAS));
    slow_if(unit, CONDITION_G);
    emit_modrm(e, 0x03, 4, SCRATCH0, segment_base(a->segment)); /* add */
}

/* As compare_page, of the address in SCRATCH0. */
static uint8_t *compare_page_of(struct unit *unit, const struct page_miss *access,
                                unsigned distance, unsigned also)
{
    struct emitter *e = &unit->e;
    emit_lea(e, SCRATCH1, rm_mem(SCRATCH0, (int32_t)distance));
    emit_alu_imm(e, 4, 8, rm_reg(SCRATCH1), -PAGE_BYTES | (int32_t)also, 0);
    emit_modrm(e, 0x3b, 8, SCRATCH1, /* cmp */
               slot_field(unit, access, offsetof(struct page_slot, page)));
    return emit_jcc(e, CONDITION_NE);
}

static struct rm check_cut_slot(struct unit *unit, const struct address *a, unsigned slot,
                                bool is_loop, unsigned size_bytes, enum memory_access access)
{
    struct emitter *e = &unit->e;
    unsigned n = unit->page_miss_count++;
    struct page_miss *miss = &unit->page_miss[n];
    unit->cut[n] = *a;
    *miss = (struct page_miss){.op = unit->op,
                               .cut = &unit->cut[n],
                               .size_bytes = size_bytes,
                               .slot = slot,
                               .is_loop = is_loop,
                               .is_write = access == ACCESS_WRITE,
                               .slow = slow_later(unit)};
    miss->from[0] = compare_page_of(unit, miss, 0, size_bytes <= 8 ? size_bytes - 1 : 0);
    if (size_bytes > 8)
        miss->from[1] = compare_page_of(unit, miss, size_bytes - 1, 0);
    emit_add(e, SCRATCH0, slot_field(unit, miss, offsetof(struct page_slot, addend)));
    miss->back = e->at;
    return rm_mem(SCRATCH0, 0);
}

static struct rm check_cut(struct unit *unit, const struct address *a, unsigned size_bytes,
                           enum memory_access access)
{
    struct emitter *e = &unit->e;
    unsigned slot = unit->domain == CLASS_OTHER ? NO_SLOT : slot_of_constant(a, access);
    flags_clobber(unit);
    compute_in_bounds(unit, a, size_bytes, access);
    check_alignment(unit);
    if (slot != NO_SLOT)
        return check_cut_slot(unit, a, slot, false, size_bytes, access);
    if (unit->is_loop)
        return check_cut_slot(unit, a, unit->translator->next_loop_slot++ % LOOP_SLOTS, true,
                              size_bytes, access);
    slow_at(unit, look_up(unit, size_bytes, access));
    compute_linear(e, a, SCRATCH1);
    emit_add(e, SCRATCH0, rm_reg(SCRATCH1));
    return rm_mem(SCRATCH0, 0);
}

static struct rm check(struct unit *unit, const struct op *op, const struct address *a,
                       unsigned size_bytes, enum memory_access access)
{
    struct emitter *e = &unit->e;
    if (a->cut_bytes)
        return check_cut(unit, a, size_bytes, access);
    unsigned slot = slot_of(unit, op, a, access);
    if (slot != NO_SLOT)
        return check_slot(unit, a, slot, false, size_bytes, access);
    if (unit->is_loop && op && !a->has_stored_index && a->terms <= 1)
        return check_slot(unit, a, unit->translator->next_loop_slot++ % LOOP_SLOTS, true,
                          size_bytes, access);
    flags_clobber(unit);
    compute(e, a, SCRATCH0);
    check_alignment(unit);
    slow_at(unit, look_up(unit, size_bytes, access));
    return operand(e, a);
}

_Static_assert(sizeof(struct tlb_entry) == 16, "look_up");

/* --- groups --------------------------------------------------------------------------------- */

static struct rm group_field(const struct group *group)
{
    size_t at = offsetof(struct cpu, group) + group->slot * sizeof(uintptr_t);
    return rm_mem(HOST_CPU, (int32_t)at - CPU_BIAS);
}

static unsigned group_bytes(const struct group *group)
{
    return (unsigned)(group->hi - group->lo);
}

/* The addend of all of the group's operands, to SCRATCH0 and cpu->group. */
static void check_group(struct unit *unit, const struct op *op, struct group *group)
{
    struct emitter *e = &unit->e;
    const enum memory_access access = group->is_write ? ACCESS_WRITE : ACCESS_READ;
    struct group_miss *miss = &unit->group_miss[unit->group_miss_count++];
    *miss = (struct group_miss){.op = op, .group = group, .address = address_of(unit, op, false)};
    miss->address.disp = group->lo;
    compute(e, &miss->address, SCRATCH0);
    miss->from = look_up(unit, group_bytes(group), access);
    miss->back = e->at;
    emit_store(e, group_field(group), SCRATCH0);
    group->is_checked = true;
}

static struct rm check_member(struct unit *unit, const struct op *op, struct group *group)
{
    struct address a = address_of(unit, op, false);
    flags_clobber(unit);
    if (unit->align_mask) {
        compute(&unit->e, &a, SCRATCH0);
        check_alignment(unit);
    }
    if (group->is_checked)
        emit_load(&unit->e, SCRATCH0, group_field(group));
    else
        check_group(unit, op, group);
    return operand(&unit->e, &a);
}

static void emit_group_miss(struct unit *unit, const struct group_miss *miss)
{
    struct emitter *e = &unit->e;
    const struct translator *t = unit->translator;
    emit_bind(miss->from, e->at);
    x87_emit_pointers(unit, miss->op);
    compute(e, &miss->address, SCRATCH0);
    emit_modrm(e, 0xc7 | EMIT_EXTENSION, 4, 0, CPU_FIELD(missed_slot)); /* mov */
    emit32(e, group_bytes(miss->group));
    emit_op_number(unit, miss->op);
    emit_bind(emit_call(e), thunk(unit, t->group_miss[miss->group->is_write]));
    vector_rearm(unit);
    emit_modrm(e, 0x85, 8, SCRATCH0, rm_reg(SCRATCH0)); /* test */
    emit_bind(emit_jcc(e, CONDITION_NE), miss->back);
    emit_leave_to_interpreter(unit, miss->op);
}

/* The group that serves the access, NULL: none. */
static struct group *group_of(struct unit *unit, const struct op *op, unsigned size_bytes,
                              enum memory_access access)
{
    if (op != unit->op || !unit->facts->group)
        return NULL;
    struct group *group = &unit->group[unit->facts->group - 1];
    bool is_in_range = op->disp >= group->lo && op->disp + (int)size_bytes <= group->hi;
    return is_in_range && (access != ACCESS_WRITE || group->is_write) ? group : NULL;
}

struct rm address_check(struct unit *unit, const struct op *op, unsigned size_bytes,
                        enum memory_access access)
{
    struct group *group = group_of(unit, op, size_bytes, access);
    if (group)
        return check_member(unit, op, group);
    struct address a = address_of(unit, op, true);
    return check(unit, op, &a, size_bytes, access);
}

struct rm address_check_computed(struct unit *unit, unsigned size_bytes, enum memory_access access)
{
    flags_clobber(unit);
    emit_store(&unit->e, CPU_FIELD(spill), SCRATCH0);
    slow_at(unit, look_up(unit, size_bytes, access));
    emit_add(&unit->e, SCRATCH0, CPU_FIELD(spill));
    return rm_mem(SCRATCH0, 0);
}

struct rm address_check_at(struct unit *unit, unsigned guest_reg, int32_t disp, unsigned size_bytes,
                           enum memory_access access)
{
    struct address a = {.base = host_of[guest_reg], .index = HOST_NONE, .disp = disp, .terms = 0};
    if (!unit->is_64bit && !address_is_flat(unit, SEG_SS)) {
        a.cut_bytes = unit->stack_bytes;
        a.is_segmented = true;
        a.segment = SEG_SS;
    }
    return check(unit, NULL, &a, size_bytes, access);
}

void address_linear(struct unit *unit, const struct op *op, unsigned to)
{
    struct address a = address_of(unit, op, true);
    if (a.cut_bytes)
        compute_linear(&unit->e, &a, to);
    else
        compute(&unit->e, &a, to);
}

void address_emit_misses(struct unit *unit)
{
    for (unsigned i = 0; i < unit->page_miss_count; i++)
        if (unit->page_miss[i].is_loop)
            emit_loop_miss(unit, &unit->page_miss[i]);
        else
            emit_page_miss(unit, &unit->page_miss[i]);
    for (unsigned i = 0; i < unit->group_miss_count; i++)
        emit_group_miss(unit, &unit->group_miss[i]);
}

bool address_is_direct(const struct unit *unit, const struct op *op, struct rm *rm)
{
    struct address a = address_of(unit, op, false);
    if (a.terms > 0 || a.has_stored_index || (a.base == HOST_NONE && a.index == HOST_NONE) ||
        a.cut_bytes == 2)
        return false;
    *rm = rm_indexed(a.base, a.index, a.scale, a.disp);
    return true;
}

/* LEA leaves flags alone, so nothing is added here. */
void address_effective(struct unit *unit, const struct op *op, unsigned to)
{
    struct emitter *e = &unit->e;
    struct address a = address_of(unit, op, false);
    if (!unit->is_64bit) {
        compute_cut(e, &a, to);
    } else if (a.has_stored_index && a.terms > 0) {
        emit_load(e, SCRATCH1, a.stored);
        emit_load(e, to, a.term[0]);
        emit_lea(e, to, rm_indexed(to, SCRATCH1, a.scale, a.disp));
    } else {
        compute(e, &a, to);
    }
}
