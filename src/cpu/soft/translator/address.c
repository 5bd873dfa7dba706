/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Guest memory in generated code: the linear address is looked up in the direct-mapped TLB view as
 * memory.h does. The operand is then named by the guest's own registers and the entry's addend, so
 * that two scratch registers are enough.
 */
#include "cpu/soft/translator/internal.h"

/* The parts of an address: host registers, and what has to be fetched from struct cpu. */
struct address {
    uint8_t base, index, scale;
    int32_t disp;
    struct rm term[3]; /* added */
    unsigned terms;
    bool has_stored_index; /* the index is in struct cpu: `stored` */
    struct rm stored;
};

static bool is_segmented(const struct op *op)
{
    return op->segment >= SEG_FS;
}

static int64_t displacement(const struct unit *unit, const struct op *op)
{
    return op->disp + (op->base == GPR_BLOCK_RIP ? (int64_t)unit->page_offset : 0);
}

bool address_is_simple(const struct unit *unit, const struct op *op)
{
    int64_t disp = displacement(unit, op);
    return !(op->flags & (OP_ADDRESS_32 | OP_ADDRESS_16)) && disp == (int32_t)disp &&
           op->segment <= SEG_GS;
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
    if (with_segment && is_segmented(op)) {
        size_t at = offsetof(struct cpu, segment) + op->segment * sizeof(struct x86_segment) +
                    offsetof(struct x86_segment, base);
        a.term[a.terms++] = rm_mem(HOST_CPU, (int32_t)at - CPU_BIAS);
    }
    return a;
}

static void emit_add(struct emitter *e, unsigned to, struct rm from)
{
    emit_modrm(e, 0x03, 8, to, from);
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

/* Jumps when not equal to the page of cpu->stack_page, with bits of `also` clear. */
static uint8_t *compare_stack_page(struct unit *unit, struct rm address, unsigned also)
{
    struct emitter *e = &unit->e;
    const size_t at = offsetof(struct cpu, stack_page) + unit->class * sizeof(struct stack_page);
    emit_lea(e, SCRATCH0, address);
    emit_alu_imm(e, 4, 8, rm_reg(SCRATCH0), -PAGE_BYTES | (int32_t)also, 0);
    emit_modrm(e, 0x3b, 8, SCRATCH0, rm_mem(HOST_CPU, (int32_t)at - CPU_BIAS)); /* cmp */
    return emit_jcc(e, CONDITION_NE);
}

/* By RSP: most likely in the page of cpu->stack_page. What is aligned doesn't leave it; what is
 * larger than a word is looked at from both ends. */
static struct rm check_stack(struct unit *unit, const struct address *a, unsigned size_bytes,
                             enum memory_access access)
{
    struct emitter *e = &unit->e;
    const size_t at = offsetof(struct cpu, stack_page) + unit->class * sizeof(struct stack_page);
    const struct rm address = rm_indexed(a->base, HOST_NONE, 0, a->disp);
    const struct rm last = rm_indexed(a->base, HOST_NONE, 0, a->disp + (int32_t)size_bytes - 1);
    struct stack_miss *miss = &unit->stack[unit->stack_count++];
    flags_clobber(unit);
    *miss = (struct stack_miss){.address = address,
                                .size_bytes = size_bytes,
                                .is_write = access == ACCESS_WRITE,
                                .slow = slow_later(unit)};
    if (unit->align_mask) {
        emit_lea(e, SCRATCH0, address);
        check_alignment(unit);
    }
    miss->from[0] = compare_stack_page(unit, address, size_bytes <= 8 ? size_bytes - 1 : 0);
    if (size_bytes > 8)
        miss->from[1] = compare_stack_page(unit, last, 0);
    emit_load(e, SCRATCH0, rm_mem(HOST_CPU, (int32_t)at + 8 - CPU_BIAS));
    miss->back = e->at;
    return operand(e, a);
}

_Static_assert(offsetof(struct stack_page, addend) == 8, "check_stack");

static bool is_by_stack(const struct unit *unit, const struct address *a)
{
    return unit->class != CLASS_OTHER && a->base == HOST_R12 && a->index == HOST_NONE &&
           a->terms == 0 && !a->has_stored_index;
}

/* The address in SCRATCH0 becomes its page's addend. */
static void look_up(struct unit *unit, unsigned size_bytes, enum memory_access access)
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
    slow_if(unit, CONDITION_NE);
    emit_load(e, SCRATCH0, rm_mem(SCRATCH0, table + (int32_t)offsetof(struct tlb_entry, addend)));
}

static struct rm check(struct unit *unit, const struct address *a, unsigned size_bytes,
                       enum memory_access access)
{
    struct emitter *e = &unit->e;
    if (is_by_stack(unit, a))
        return check_stack(unit, a, size_bytes, access);
    flags_clobber(unit);
    compute(e, a, SCRATCH0);
    check_alignment(unit);
    look_up(unit, size_bytes, access);
    return operand(e, a);
}

_Static_assert(sizeof(struct tlb_entry) == 16, "check");

struct rm address_check(struct unit *unit, const struct op *op, unsigned size_bytes,
                        enum memory_access access)
{
    struct address a = address_of(unit, op, true);
    return check(unit, &a, size_bytes, access);
}

struct rm address_check_computed(struct unit *unit, unsigned size_bytes, enum memory_access access)
{
    flags_clobber(unit);
    emit_store(&unit->e, CPU_FIELD(spill), SCRATCH0);
    look_up(unit, size_bytes, access);
    emit_add(&unit->e, SCRATCH0, CPU_FIELD(spill));
    return rm_mem(SCRATCH0, 0);
}

struct rm address_check_at(struct unit *unit, unsigned guest_reg, int32_t disp, unsigned size_bytes,
                           enum memory_access access)
{
    struct address a = {.base = host_of[guest_reg], .index = HOST_NONE, .disp = disp, .terms = 0};
    return check(unit, &a, size_bytes, access);
}

void address_linear(struct unit *unit, const struct op *op, unsigned to)
{
    struct address a = address_of(unit, op, true);
    compute(&unit->e, &a, to);
}

bool address_is_direct(const struct unit *unit, const struct op *op, struct rm *rm)
{
    struct address a = address_of(unit, op, false);
    if (a.terms > 0 || a.has_stored_index || (a.base == HOST_NONE && a.index == HOST_NONE))
        return false;
    *rm = rm_indexed(a.base, a.index, a.scale, a.disp);
    return true;
}

/* LEA leaves flags alone, so nothing is added here. */
void address_effective(struct unit *unit, const struct op *op, unsigned to)
{
    struct emitter *e = &unit->e;
    struct address a = address_of(unit, op, false);
    if (a.has_stored_index && a.terms > 0) {
        emit_load(e, SCRATCH1, a.stored);
        emit_load(e, to, a.term[0]);
        emit_lea(e, to, rm_indexed(to, SCRATCH1, a.scale, a.disp));
    } else {
        compute(e, &a, to);
    }
}
