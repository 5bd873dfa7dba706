/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The code that all blocks share: into and out of generated code, calls of the interpreter's
 * handlers, vector registers to and fro, and the look-ups of jumps and of pages.
 */
#include "cpu/soft/translator/internal.h"

const uint8_t host_of[16] = {
    HOST_RAX, HOST_RCX, HOST_RDX,  HOST_RBX,  HOST_R12, HOST_R13, HOST_RSI,  HOST_RDI,
    HOST_R8,  HOST_R9,  HOST_NONE, HOST_NONE, HOST_R10, HOST_R11, HOST_NONE, HOST_NONE,
};

static void emit_registers(struct emitter *e, bool store)
{
    for (unsigned i = 0; i < 16; i++) {
        if (host_of[i] == HOST_NONE)
            continue;
        if (store)
            emit_store(e, gpr_slot(i), host_of[i]);
        else
            emit_load(e, host_of[i], gpr_slot(i));
    }
}

static const uint8_t saved[] = {HOST_RBX, HOST_RBP, HOST_R12, HOST_R13, HOST_R14, HOST_R15};

static void emit_push(struct emitter *e, unsigned reg)
{
    if (reg >= 8)
        emit8(e, 0x41);
    emit8(e, (uint8_t)(0x50 | (reg & 7)));
}

static void emit_pop(struct emitter *e, unsigned reg)
{
    if (reg >= 8)
        emit8(e, 0x41);
    emit8(e, (uint8_t)(0x58 | (reg & 7)));
}

/* void enter(struct cpu *cpu, const uint8_t *code). RSP is 8 past a multiple of 16 in blocks. */
static void make_enter(struct emitter *e)
{
    for (unsigned i = 0; i < sizeof(saved); i++)
        emit_push(e, saved[i]);
    emit_lea(e, HOST_CPU, rm_mem(HOST_RDI, CPU_BIAS));
    emit_mov_rr(e, SCRATCH0, HOST_RSI);
    emit_registers(e, false);
    emit_modrm(e, 0xff | EMIT_EXTENSION, 4, 4, rm_reg(SCRATCH0)); /* jmp */
}

/* --- vector registers ----------------------------------------------------------------------- */

static void emit_vectors(struct emitter *e, bool is_wide, bool store)
{
    uint8_t opcode = store ? 0x11 : 0x10;
    for (unsigned n = 0; n < 16; n++) {
        size_t at = offsetof(struct cpu, vector) + n * sizeof(struct vector_register);
        struct rm rm = rm_mem(HOST_CPU, (int32_t)at - CPU_BIAS);
        if (is_wide)
            emit_vex(e, 1, 0x7c, opcode, n, rm); /* vmovups, 256 bits */
        else
            emit_modrm(e, IN_0F(opcode), 4, n, rm); /* movups */
    }
}

static void emit_vzeroupper(struct emitter *e)
{
    EMIT(e, 0xc5, 0xf8, 0x77);
}

/* Called when cpu->armed, before C code: the guest's registers go back to struct cpu, flags that
 * the host's MXCSR has collected are the guest's. Changes SCRATCH0. */
static void make_disarm(struct emitter *e)
{
    emit_alu_imm(e, 7, 4, CPU_FIELD(armed), ARMED_AVX, 0);
    uint8_t *narrow = emit_jcc(e, CONDITION_NE);
    emit_vectors(e, true, true);
    emit_vzeroupper(e);
    uint8_t *over = emit_jmp(e);
    emit_bind(narrow, e->at);
    emit_vectors(e, false, true);
    emit_bind(over, e->at);
    emit_modrm(e, 0xc7 | EMIT_EXTENSION, 4, 0, CPU_FIELD(armed)); /* mov */
    emit32(e, 0);
    emit_modrm(e, IN_0F(0xae) | EMIT_EXTENSION, 4, 3, CPU_FIELD(mxcsr)); /* stmxcsr */
    emit_modrm(e, 0x8b, 4, SCRATCH0, CPU_FIELD(mxcsr));
    emit_alu_imm(e, 4, 4, rm_reg(SCRATCH0), 0xffc0, 0);
    emit_alu_imm(e, 7, 4, rm_reg(SCRATCH0), MXCSR_DEFAULT, 0);
    uint8_t *is_default = emit_jcc(e, CONDITION_E);
    emit_modrm(e, 0xc7 | EMIT_EXTENSION, 4, 0, CPU_FIELD(spill));
    emit32(e, MXCSR_DEFAULT);
    emit_modrm(e, IN_0F(0xae) | EMIT_EXTENSION, 4, 2, CPU_FIELD(spill)); /* ldmxcsr */
    emit_bind(is_default, e->at);
    emit8(e, 0xc3);
}

/* Inline in other thunks. */
static void emit_disarm(struct emitter *e, const uint8_t *disarm)
{
    emit_alu_imm(e, 7, 4, CPU_FIELD(armed), 0, 0);
    uint8_t *over = emit_jcc(e, CONDITION_E);
    emit_bind(emit_call(e), disarm);
    emit_bind(over, e->at);
}

static void emit_call_c(struct emitter *e, uintptr_t function)
{
    emit_lea(e, HOST_RDI, rm_mem(HOST_CPU, -CPU_BIAS));
    emit_mov_imm(e, HOST_RAX, function);
    emit_modrm(e, 0xff | EMIT_EXTENSION, 4, 2, rm_reg(HOST_RAX)); /* call */
}

/* Called; guest registers are kept, vector registers are in the host if they may be. */
static void make_arm(struct emitter *e, const uint8_t *disarm)
{
    emit_disarm(e, disarm);
    emit_registers(e, true);
    emit_call_c(e, (uintptr_t)translator_arm);
    emit_alu_imm(e, 7, 4, rm_reg(HOST_RAX), ARMED_SSE, 0);
    uint8_t *none = emit_jcc(e, CONDITION_B);
    uint8_t *wide = emit_jcc(e, CONDITION_A);
    emit_vectors(e, false, false);
    uint8_t *over = emit_jmp(e);
    emit_bind(wide, e->at);
    emit_vectors(e, true, false);
    emit_bind(none, e->at);
    emit_bind(over, e->at);
    emit_registers(e, false);
    emit8(e, 0xc3);
}

/* Called; guest registers are kept, vector registers are stored. */
static void make_arm_x87(struct emitter *e, const uint8_t *disarm)
{
    emit_disarm(e, disarm);
    emit_registers(e, true);
    emit_call_c(e, (uintptr_t)translator_arm_x87);
    emit_registers(e, false);
    emit8(e, 0xc3);
}

/* --- to C code ------------------------------------------------------------------------------ */

static void emit_return(struct emitter *e)
{
    for (unsigned i = sizeof(saved); i-- > 0;)
        emit_pop(e, saved[i]);
    emit8(e, 0xc3);
}

static void make_leave(struct emitter *e, const uint8_t *disarm)
{
    emit_disarm(e, disarm);
    emit_registers(e, true);
    emit_return(e);
}

static void emit_handle(struct emitter *e, const uint8_t *disarm)
{
    emit_disarm(e, disarm);
    emit_registers(e, true);
    emit_modrm(e, 0x8b, 4, HOST_RSI, rm_reg(SCRATCH1)); /* mov */
    emit_call_c(e, (uintptr_t)translator_handle);
    emit_modrm(e, 0x84, 1, HOST_RAX, rm_reg(HOST_RAX)); /* test */
}

/* Called by a block with the op's number in SCRATCH1. */
static void make_handler(struct emitter *e, const uint8_t *disarm)
{
    emit_handle(e, disarm);
    uint8_t *out = emit_jcc(e, CONDITION_NE);
    emit_registers(e, false);
    emit8(e, 0xc3);
    emit_bind(out, e->at);
    emit_lea(e, HOST_RSP, rm_mem(HOST_RSP, 8));
    emit_return(e);
}

/* Jumped to for the last op of a block; cpu->rip is the next. */
static void make_last_handler(struct emitter *e, const uint8_t *disarm, const uint8_t *lookup)
{
    emit_lea(e, HOST_RSP, rm_mem(HOST_RSP, -8));
    emit_handle(e, disarm);
    emit_lea(e, HOST_RSP, rm_mem(HOST_RSP, 8));
    uint8_t *out = emit_jcc(e, CONDITION_NE);
    emit_registers(e, false);
    emit_load(e, SCRATCH0, CPU_FIELD(rip));
    emit_bind(emit_jmp(e), lookup);
    emit_bind(out, e->at);
    emit_return(e);
}

/* --- jumps ---------------------------------------------------------------------------------- */

/* Notes RAX, which is code of the block at RIP, in cpu->targets. */
static void emit_note_target(struct emitter *e, enum code_class domain)
{
    const int32_t cache =
        (int32_t)(offsetof(struct cpu, targets) + domain * sizeof(((struct cpu *)0)->targets[0])) -
        CPU_BIAS;
    const size_t used = offsetof(struct cpu, targets_used) + domain * sizeof(uint32_t);
    emit_load(e, SCRATCH0, CPU_FIELD(rip));
    emit_target_index(e);
    emit_store(e, rm_indexed(HOST_CPU, SCRATCH1, 1, cache), SCRATCH0);
    emit_store(e, rm_indexed(HOST_CPU, SCRATCH1, 1, cache + 8), HOST_RAX);
    emit_modrm(e, 0xc7 | EMIT_EXTENSION, 4, 0, rm_mem(HOST_CPU, (int32_t)used - CPU_BIAS));
    emit32(e, 1);
}

/* The same when blocks run alone: the next one is found by C code. */
static void make_no_lookup(struct emitter *e, const uint8_t *leave)
{
    emit_store(e, CPU_FIELD(rip), SCRATCH0);
    emit_bind(emit_jmp(e), leave);
}

/* Jumped to with the canonical RIP in SCRATCH0: what jump_slot and jump_tag do. */
static void make_lookup(struct emitter *e, enum code_class domain, const uint8_t *leave)
{
    const int32_t jump = (int32_t)offsetof(struct cpu, jump) - CPU_BIAS;
    const int32_t key = (int32_t)offsetof(struct cpu, jump_key) - CPU_BIAS;
    emit_alu_imm(e, 0, 8, CPU_FIELD(stats.jump_lookups), 1, 0);
    emit_store(e, CPU_FIELD(rip), SCRATCH0);
    emit_mov_rr(e, SCRATCH1, SCRATCH0);
    emit_modrm(e, 0xc1 | EMIT_EXTENSION, 8, 5, rm_reg(SCRATCH1)); /* shr 63 */
    emit8(e, 63);
    emit_modrm(e, IN_0F(0xb7), 4, SCRATCH1, rm_indexed(HOST_CPU, SCRATCH1, 1, key));
    emit_modrm(e, 0xc1 | EMIT_EXTENSION, 8, 4, rm_reg(SCRATCH0)); /* shl 16 */
    emit8(e, 16);
    emit_modrm(e, 0x0b, 8, SCRATCH0, rm_reg(SCRATCH1)); /* or: the tag */
    emit_load(e, SCRATCH1, CPU_FIELD(rip));
    emit_modrm(e, 0xc1 | EMIT_EXTENSION, 8, 5, rm_reg(SCRATCH1)); /* shr 12 */
    emit8(e, 12);
    emit_modrm(e, 0x33, 4, SCRATCH1, CPU_FIELD(rip)); /* xor */
    emit_alu_imm(e, 4, 4, rm_reg(SCRATCH1), JUMP_ENTRIES - 1, 0);
    emit_modrm(e, 0xc1 | EMIT_EXTENSION, 4, 4, rm_reg(SCRATCH1)); /* shl */
    emit8(e, 4);
    emit_modrm(e, 0x3b, 8, SCRATCH0, rm_indexed(HOST_CPU, SCRATCH1, 0, jump)); /* cmp */
    emit_bind(emit_jcc(e, CONDITION_NE), leave);
    emit_load(e, SCRATCH1, rm_indexed(HOST_CPU, SCRATCH1, 0, jump + 8));
    emit_modrm(e, 0xc1 | EMIT_EXTENSION, 8, 7, rm_reg(SCRATCH0)); /* sar 16 */
    emit8(e, 16);
    emit_modrm(e, 0x2b, 8, SCRATCH0, /* sub */
               rm_mem(SCRATCH1, (int32_t)offsetof(struct block, page_offset)));
    emit_store(e, gpr_slot(GPR_PAGE_RIP), SCRATCH0);
    const struct rm code = rm_mem(SCRATCH1, (int32_t)offsetof(struct block, code));
    if (domain == CLASS_OTHER) {
        emit_modrm(e, 0xff | EMIT_EXTENSION, 4, 4, code); /* jmp */
        return;
    }
    emit_alu_imm(e, 7, 1, rm_mem(SCRATCH1, (int32_t)offsetof(struct block, is_translated)), 0, 0);
    emit_bind(emit_jcc(e, CONDITION_E), leave);
    emit_store(e, CPU_FIELD(spill), HOST_RAX);
    emit_load(e, HOST_RAX, code);
    emit_note_target(e, domain);
    emit_mov_rr(e, SCRATCH1, HOST_RAX);
    emit_load(e, HOST_RAX, CPU_FIELD(spill));
    emit_modrm(e, 0xff | EMIT_EXTENSION, 4, 4, rm_reg(SCRATCH1)); /* jmp */
}

_Static_assert(sizeof(struct jump_entry) == 16, "make_lookup");
_Static_assert(offsetof(struct jump_entry, block) == 8, "make_lookup");

/* Jumped to by way of an empty entry of a cache of targets. */
static void make_zero(struct emitter *e, const uint8_t *lookup)
{
    emit_mov_imm(e, SCRATCH0, 0);
    emit_bind(emit_jmp(e), lookup);
}

/* Jumped to with the target's RIP in SCRATCH0, the offset of the link's record in SCRATCH1. */
static void make_unlinked(struct emitter *e, const uint8_t *leave)
{
    emit_store(e, CPU_FIELD(rip), SCRATCH0);
    emit_modrm(e, 0x89, 4, SCRATCH1, CPU_FIELD(link_site));
    emit_bind(emit_jmp(e), leave);
}

/* The same for a link to another page: when it is linked its guard has failed, as when another
 * program runs the code. Then the target is looked up, and sometimes linked anew. */
static void make_far(struct emitter *e, const struct translator *t, const uint8_t *lookup)
{
    const int32_t linked = (int32_t)offsetof(struct link_record, linked);
    emit_store(e, CPU_FIELD(spill), SCRATCH1);
    uint8_t *base = emit_lea_rip(e, SCRATCH1);
    emit_bind(base, t->writable);
    emit_modrm(e, 0x03, 8, SCRATCH1, CPU_FIELD(spill)); /* add */
    emit_alu_imm(e, 7, 8, rm_mem(SCRATCH1, linked), 0, 0);
    uint8_t *unlinked = emit_jcc(e, CONDITION_E);
    emit_alu_imm(e, 0, 8, CPU_FIELD(stats.guard_misses), 1, 0);
    emit_alu_imm(e, 5, 4, CPU_FIELD(relink_budget), 1, 0);
    emit_bind(emit_jcc(e, CONDITION_NE), lookup);
    emit_modrm(e, 0xc7 | EMIT_EXTENSION, 4, 0, CPU_FIELD(relink_budget)); /* mov */
    emit32(e, RELINK_BUDGET);
    emit_bind(unlinked, e->at);
    emit_load(e, SCRATCH1, CPU_FIELD(spill));
    emit_bind(emit_jmp(e), t->writable + t->unlinked);
}

/* --- pages ---------------------------------------------------------------------------------- */

/* The slot is cpu->missed_slot. With AC set the page might be one that isn't
 * accessible later. */
static void emit_fill_slot(struct emitter *e)
{
    emit_modrm(e, 0xf7 | EMIT_EXTENSION, 4, 0, CPU_FIELD(rflags)); /* test */
    emit32(e, RFLAGS_AC);
    uint8_t *over = emit_jcc(e, CONDITION_NE);
    emit_push(e, HOST_RAX);
    emit_modrm(e, 0x63, 8, HOST_RAX, CPU_FIELD(missed_slot)); /* movsxd */
    emit_store(e, rm_indexed(HOST_CPU, HOST_RAX, 0, 0), SCRATCH1);
    emit_store(e, rm_indexed(HOST_CPU, HOST_RAX, 0, 8), SCRATCH0);
    emit_pop(e, HOST_RAX);
    emit_modrm(e, 0xc7 | EMIT_EXTENSION, 4, 0, CPU_FIELD(page_slots_used)); /* mov */
    emit32(e, 1);
    emit_bind(over, e->at);
    emit_modrm(e, 0x3b, 8, SCRATCH0, rm_reg(SCRATCH0)); /* cmp: equal */
    emit8(e, 0xc3);
}

/* Called with the address in SCRATCH0 and that of the last byte in SCRATCH1, when they aren't in
 * the slot's page. Equal: the addend is in SCRATCH0, and in the slot if it may be there. */
static void make_page_miss(struct emitter *e, enum page_access access)
{
    const int32_t read = (int32_t)offsetof(struct tlb_tables, read);
    const int32_t table =
        access == PAGE_READ_ONLY ? read : (int32_t)offsetof(struct tlb_tables, write);
    emit_alu_imm(e, 4, 8, rm_reg(SCRATCH1), -PAGE_BYTES, 0);
    emit_modrm(e, 0xc1 | EMIT_EXTENSION, 4, 5, rm_reg(SCRATCH0)); /* shr */
    emit8(e, PAGE_SHIFT - 4);
    emit_alu_imm(e, 4, 4, rm_reg(SCRATCH0), (TLB_ENTRIES - 1) << 4, 0);
    emit_modrm(e, 0x03, 8, SCRATCH0, CPU_FIELD(tlb));          /* add */
    emit_modrm(e, 0x3b, 8, SCRATCH1, rm_mem(SCRATCH0, table)); /* cmp */
    uint8_t *missing = emit_jcc(e, CONDITION_NE);
    emit_load(e, SCRATCH0, rm_mem(SCRATCH0, table + 8));
    emit_fill_slot(e);
    emit_bind(missing, e->at);
    if (access == PAGE_READ) {
        emit_modrm(e, 0x3b, 8, SCRATCH1, rm_mem(SCRATCH0, read)); /* cmp */
        emit_load(e, SCRATCH0, rm_mem(SCRATCH0, read + 8));
    }
    emit8(e, 0xc3);
}

/* Called with the address in SCRATCH0, the op's number in SCRATCH1, the number of bytes in
 * cpu->missed_slot. Gives the addend in SCRATCH0, 0: none. */
static void make_group_miss(struct emitter *e, bool is_write, const uint8_t *disarm)
{
    emit_store(e, CPU_FIELD(rip), SCRATCH0); /* which is free meanwhile */
    emit_disarm(e, disarm);
    emit_registers(e, true);
    emit_load(e, HOST_RSI, CPU_FIELD(rip));
    emit_modrm(e, 0x8b, 4, HOST_RDX, CPU_FIELD(missed_slot)); /* mov */
    emit_mov_imm(e, HOST_RCX, is_write);
    emit_modrm(e, 0x8b, 4, HOST_R8, rm_reg(SCRATCH1));
    emit_call_c(e, (uintptr_t)translator_probe);
    emit_mov_rr(e, SCRATCH0, HOST_RAX);
    emit_registers(e, false);
    emit8(e, 0xc3);
}

static uint32_t align(struct translator *translator, struct emitter *e)
{
    while ((e->at - translator->writable) % 16)
        emit8(e, 0xcc);
    return (uint32_t)(e->at - translator->writable);
}

void thunks_make(struct translator *t)
{
    struct emitter e = {t->writable, t->writable + t->size_bytes};
    t->enter = align(t, &e);
    make_enter(&e);
    t->disarm = align(t, &e);
    make_disarm(&e);
    const uint8_t *disarm = t->writable + t->disarm;
    t->arm = align(t, &e);
    make_arm(&e, disarm);
    t->arm_x87 = align(t, &e);
    make_arm_x87(&e, disarm);
    t->leave = align(t, &e);
    const uint8_t *leave = t->writable + t->leave;
    make_leave(&e, disarm);
    for (enum code_class domain = CLASS_KERNEL; domain <= CLASS_OTHER; domain++) {
        t->lookup[domain] = align(t, &e);
        if (t->is_alone)
            make_no_lookup(&e, leave);
        else
            make_lookup(&e, domain, leave);
    }
    const uint8_t *lookup = t->writable + t->lookup[CLASS_OTHER];
    t->zero = align(t, &e);
    make_zero(&e, lookup);
    t->handler = align(t, &e);
    make_handler(&e, disarm);
    t->last_handler = align(t, &e);
    make_last_handler(&e, disarm, lookup);
    for (unsigned log = 0; log < 4; log++) {
        t->movs[log] = align(t, &e);
        string_make_movs(&e, log);
        t->stos[log] = align(t, &e);
        string_make_stos(&e, log);
    }
    t->unlinked = align(t, &e);
    make_unlinked(&e, leave);
    t->far = align(t, &e);
    make_far(&e, t, lookup);
    for (enum page_access access = PAGE_READ; access <= PAGE_READ_ONLY; access++) {
        t->page_miss[access] = align(t, &e);
        make_page_miss(&e, access);
    }
    for (unsigned is_write = 0; is_write < 2; is_write++) {
        t->group_miss[is_write] = align(t, &e);
        make_group_miss(&e, is_write, disarm);
    }
    t->thunk_bytes = t->hot_bytes = align(t, &e);
    t->cold_start = t->cold_bytes = t->size_bytes / 5 * 2 & PAGE_MASK;
}
