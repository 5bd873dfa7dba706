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

static struct rm slot_field(const struct unit *unit, unsigned slot, size_t field)
{
    size_t at = offsetof(struct cpu, page_slot) +
                (unit->domain * PAGE_SLOTS + slot) * sizeof(struct page_slot) + field;
    return rm_mem(HOST_CPU, (int32_t)at - CPU_BIAS);
}

/* The address to SCRATCH0: registers and a distance, with at most one part to fetch. */
static void emit_address(struct emitter *e, const struct page_miss *access, unsigned distance)
{
    struct rm rm = access->address;
    rm.disp += (int32_t)distance;
    if (access->has_term) {
        emit_load(e, SCRATCH0, access->term);
        rm.base = SCRATCH0;
    }
    if (rm.base == HOST_NONE)
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
               slot_field(unit, access->slot, offsetof(struct page_slot, page)));
    return emit_jcc(e, CONDITION_NE);
}

/* Where the page is that of the slot, most likely. What is aligned doesn't leave it; what is larger
 * than a word is looked at from both ends. */
static struct rm check_slot(struct unit *unit, const struct address *a, unsigned slot,
                            unsigned size_bytes, enum memory_access access)
{
    struct emitter *e = &unit->e;
    struct page_miss *miss = &unit->page_miss[unit->page_miss_count++];
    flags_clobber(unit);
    *miss = (struct page_miss){.op = unit->op,
                               .address = rm_indexed(a->base, HOST_NONE, 0, a->disp),
                               .has_term = a->terms > 0,
                               .term = a->term[0],
                               .size_bytes = size_bytes,
                               .slot = slot,
                               .is_write = access == ACCESS_WRITE,
                               .slow = slow_later(unit)};
    if (unit->align_mask) {
        emit_address(e, miss, 0);
        check_alignment(unit);
    }
    miss->from[0] = compare_page(unit, miss, 0, size_bytes <= 8 ? size_bytes - 1 : 0);
    if (size_bytes > 8)
        miss->from[1] = compare_page(unit, miss, size_bytes - 1, 0);
    emit_load(e, SCRATCH0, slot_field(unit, slot, offsetof(struct page_slot, addend)));
    miss->back = e->at;
    return operand(e, a);
}

static void emit_page_miss(struct unit *unit, const struct page_miss *miss)
{
    struct emitter *e = &unit->e;
    const struct translator *t = unit->translator;
    const bool is_read_slot = miss->slot >= FIRST_READ_SLOT && miss->slot < FIRST_WRITE_SLOT;
    const enum page_access access = miss->is_write ? PAGE_WRITE
                                    : is_read_slot ? PAGE_READ_ONLY
                                                   : PAGE_READ;
    for (unsigned i = 0; i < 2; i++)
        if (miss->from[i])
            emit_bind(miss->from[i], e->at);
    emit_address(e, miss, 0);
    emit_lea(e, SCRATCH1, rm_mem(SCRATCH0, (int32_t)miss->size_bytes - 1));
    emit_modrm(e, 0xc7 | EMIT_EXTENSION, 4, 0, CPU_FIELD(missed_slot)); /* mov */
    emit32(e, (uint32_t)slot_field(unit, miss->slot, 0).disp);
    emit_bind(emit_call(e), thunk(unit, t->page_miss[access]));
    unit->slow[miss->slow].from = emit_jcc(e, CONDITION_NE);
    emit_bind(emit_jmp(e), miss->back);
}

void address_emit_misses(struct unit *unit)
{
    for (unsigned i = 0; i < unit->page_miss_count; i++)
        emit_page_miss(unit, &unit->page_miss[i]);
}

enum { NO_SLOT = PAGE_SLOTS };

/* What is addressed by RSP, RIP, FS or GS and a distance only; others are looked up. */
static unsigned slot_of(const struct unit *unit, const struct op *op, const struct address *a,
                        enum memory_access access)
{
    if (unit->domain == CLASS_OTHER || a->index != HOST_NONE || a->has_stored_index)
        return NO_SLOT;
    if (a->base == HOST_R12 && a->terms == 0)
        return (unsigned)a->disp / 64 % STACK_SLOTS;
    if (!op || op->index != GPR_ZERO || a->base != HOST_NONE || a->terms != 1)
        return NO_SLOT;
    if (op->base == GPR_BLOCK_RIP) {
        uint64_t linear = (unit->cpu->rip & PAGE_MASK) + (uint64_t)(int64_t)a->disp;
        unsigned page = (unsigned)(linear >> PAGE_SHIFT);
        return access == ACCESS_WRITE ? FIRST_WRITE_SLOT + page % WRITE_SLOTS
                                      : FIRST_READ_SLOT + page % READ_SLOTS;
    }
    if (op->base == GPR_ZERO && is_segmented(op))
        return FIRST_SEGMENT_SLOT + ((unsigned)a->disp >> PAGE_SHIFT) % SEGMENT_SLOTS;
    return NO_SLOT;
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

static struct rm check(struct unit *unit, const struct op *op, const struct address *a,
                       unsigned size_bytes, enum memory_access access)
{
    struct emitter *e = &unit->e;
    unsigned slot = slot_of(unit, op, a, access);
    if (slot != NO_SLOT)
        return check_slot(unit, a, slot, size_bytes, access);
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
    return check(unit, op, &a, size_bytes, access);
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
    return check(unit, NULL, &a, size_bytes, access);
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
