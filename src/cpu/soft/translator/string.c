/* SPDX-License-Identifier: BSD-2-Clause
 *
 * REP MOVS and REP STOS in generated code, by the host's own, while all of it lies in a page at
 * either end. Longer runs are the handler's, which goes page by page.
 */
#include "cpu/soft/translator/internal.h"

static unsigned log_of(unsigned size_bytes)
{
    return (unsigned)__builtin_ctz(size_bytes);
}

static void rep_string(struct unit *unit, const struct op *op)
{
    struct emitter *e = &unit->e;
    const struct translator *t = unit->translator;
    unsigned log = log_of(op->size_bytes);
    bool is_movs = unit->facts->info.opcode <= 0xa5;
    flags_clobber(unit);
    emit_modrm(e, 0xf7 | EMIT_EXTENSION, 4, 0, CPU_FIELD(rflags)); /* test */
    emit32(e, RFLAGS_DF);
    slow_if(unit, CONDITION_NE);
    emit_bind(emit_call(e), thunk(unit, is_movs ? t->movs[log] : t->stos[log]));
    slow_if(unit, CONDITION_NE);
    if (!unit->is_64bit) {                                  /* at the end of 4 GiB they wrap */
        emit_modrm(e, 0x8b, 4, HOST_RSI, rm_reg(HOST_RSI)); /* mov */
        emit_modrm(e, 0x8b, 4, HOST_RDI, rm_reg(HOST_RDI));
    }
    emit_exit_behind(unit, (int64_t)unit->page_offset + op->offset + op->length, unit->live_next);
    unit->ends = true;
}

emit_fn *string_find(const struct unit *unit, const struct op *op, const struct insn_facts *facts)
{
    const unsigned address = op->flags & (OP_ADDRESS_32 | OP_ADDRESS_16);
    bool is_plain = unit->is_64bit ? !address && op->segment < SEG_FS
                                   : address == OP_ADDRESS_32 && address_is_flat(unit, op->segment);
    if (facts->info.meta.category != ZYDIS_CATEGORY_STRINGOP || !is_plain || !(op->flags & OP_REP))
        return NULL;
    switch (facts->info.opcode) {
    case 0xa4: /* MOVS */
    case 0xa5:
    case 0xaa: /* STOS */
    case 0xab: return rep_string;
    default: return NULL;
    }
}

/* --- thunks --------------------------------------------------------------------------------- */

/* SCRATCH1 is the number of bytes, on the host's stack too. Leaves the addend for the range at
 * `reg` in SCRATCH1; not equal: no. */
static void emit_range(struct emitter *e, unsigned reg, size_t table)
{
    emit_lea(e, SCRATCH0, rm_indexed(reg, SCRATCH1, 0, -1));
    emit_alu_imm(e, 4, 8, rm_reg(SCRATCH0), -PAGE_BYTES, 0);
    emit_modrm(e, 0x8b, 4, SCRATCH1, rm_reg(reg));                /* mov */
    emit_modrm(e, 0xc1 | EMIT_EXTENSION, 4, 5, rm_reg(SCRATCH1)); /* shr */
    emit8(e, PAGE_SHIFT - 4);
    emit_alu_imm(e, 4, 4, rm_reg(SCRATCH1), (TLB_ENTRIES - 1) << 4, 0);
    emit_modrm(e, 0x03, 8, SCRATCH1, CPU_FIELD(tlb));                   /* add */
    emit_modrm(e, 0x3b, 8, SCRATCH0, rm_mem(SCRATCH1, (int32_t)table)); /* cmp */
}

static void emit_addend(struct emitter *e, size_t table)
{
    const int32_t addend = (int32_t)(table + offsetof(struct tlb_entry, addend));
    emit_load(e, SCRATCH1, rm_mem(SCRATCH1, addend));
}

static void emit_push_scratch(struct emitter *e)
{
    EMIT(e, 0x41, 0x57); /* push SCRATCH1 */
}

static void emit_rep(struct emitter *e, unsigned opcode, unsigned log)
{
    if (log == 1)
        emit8(e, 0x66);
    emit8(e, 0xf3);
    if (log == 3)
        emit8(e, 0x48);
    emit8(e, (uint8_t)(log == 0 ? opcode : opcode + 1));
}

/* Both thunks are called, and say by equal that all is done. The number of bytes in SCRATCH1; more
 * than a page, or none, ends here. */
static uint8_t *emit_bytes_of(struct emitter *e, unsigned log)
{
    emit_mov_rr(e, SCRATCH1, HOST_RCX);
    emit_modrm(e, 0x85, 8, SCRATCH1, rm_reg(SCRATCH1)); /* test */
    uint8_t *none = emit_jcc(e, CONDITION_E);
    emit_alu_imm(e, 7, 8, rm_reg(SCRATCH1), PAGE_BYTES >> log, 0);
    uint8_t *many = emit_jcc(e, CONDITION_A);
    if (log > 0) {
        emit_modrm(e, 0xc1 | EMIT_EXTENSION, 8, 4, rm_reg(SCRATCH1)); /* shl */
        emit8(e, (uint8_t)log);
    }
    uint8_t *over = emit_jmp(e);
    emit_bind(none, e->at);
    emit_bind(many, e->at);
    emit8(e, 0xc3);
    return over;
}

static void emit_say_done(struct emitter *e)
{
    emit_modrm(e, 0x3b, 8, SCRATCH0, rm_reg(SCRATCH0)); /* cmp: equal */
    emit8(e, 0xc3);
}

void string_make_movs(struct emitter *e, unsigned log)
{
    const size_t read = offsetof(struct tlb_tables, read),
                 write = offsetof(struct tlb_tables, write);
    uint8_t *over = emit_bytes_of(e, log);
    emit_bind(over, e->at);
    emit_push_scratch(e);
    emit_range(e, HOST_RSI, read);
    uint8_t *no_source = emit_jcc(e, CONDITION_NE);
    emit_addend(e, read);
    emit_push_scratch(e);
    emit_load(e, SCRATCH1, rm_mem(HOST_RSP, 8));
    emit_range(e, HOST_RDI, write);
    uint8_t *no_destination = emit_jcc(e, CONDITION_NE);
    emit_addend(e, write);
    EMIT(e, 0x41, 0x5e);                                /* pop SCRATCH0 */
    emit_modrm(e, 0x03, 8, HOST_RSI, rm_reg(SCRATCH0)); /* add */
    emit_modrm(e, 0x03, 8, HOST_RDI, rm_reg(SCRATCH1));
    emit_rep(e, 0xa4, log);
    emit_modrm(e, 0x2b, 8, HOST_RSI, rm_reg(SCRATCH0)); /* sub */
    emit_modrm(e, 0x2b, 8, HOST_RDI, rm_reg(SCRATCH1));
    emit_lea(e, HOST_RSP, rm_mem(HOST_RSP, 8));
    emit_say_done(e);
    emit_bind(no_destination, e->at);
    emit_lea(e, HOST_RSP, rm_mem(HOST_RSP, 8));
    emit_bind(no_source, e->at);
    emit_lea(e, HOST_RSP, rm_mem(HOST_RSP, 8));
    emit8(e, 0xc3);
}

void string_make_stos(struct emitter *e, unsigned log)
{
    const size_t write = offsetof(struct tlb_tables, write);
    uint8_t *over = emit_bytes_of(e, log);
    emit_bind(over, e->at);
    emit_range(e, HOST_RDI, write);
    uint8_t *no = emit_jcc(e, CONDITION_NE);
    emit_addend(e, write);
    emit_modrm(e, 0x03, 8, HOST_RDI, rm_reg(SCRATCH1)); /* add */
    emit_rep(e, 0xaa, log);
    emit_modrm(e, 0x2b, 8, HOST_RDI, rm_reg(SCRATCH1)); /* sub */
    emit_say_done(e);
    emit_bind(no, e->at);
    emit8(e, 0xc3);
}
