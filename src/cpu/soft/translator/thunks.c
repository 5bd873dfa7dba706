/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The code that all blocks share: into and out of generated code, calls of the interpreter's
 * handlers, and the look-up of a jump's target in the jump cache.
 */
#include "cpu/soft/translator/internal.h"

const uint8_t host_of[16] = {
    HOST_RAX, HOST_RCX, HOST_RDX, HOST_RBX, HOST_R12,  HOST_R13,  HOST_RSI,  HOST_RDI,
    HOST_R8,  HOST_R9,  HOST_R10, HOST_R11, HOST_NONE, HOST_NONE, HOST_NONE, HOST_NONE,
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

/* Flags that the host's MXCSR has collected since it was armed are the guest's. */
static void emit_disarm(struct emitter *e)
{
    emit_alu_imm(e, 7, 4, CPU_FIELD(armed), 0, 0);
    uint8_t *over = emit_jcc(e, CONDITION_E);
    emit_modrm(e, 0xc7 | EMIT_EXTENSION, 4, 0, CPU_FIELD(armed)); /* mov */
    emit32(e, 0);
    emit_modrm(e, IN_0F(0xae) | EMIT_EXTENSION, 4, 3, CPU_FIELD(spill)); /* stmxcsr */
    emit_modrm(e, 0x8b, 4, SCRATCH0, CPU_FIELD(spill));
    emit_alu_imm(e, 4, 4, rm_reg(SCRATCH0), 0x3f, 0);
    emit_modrm(e, 0x09, 4, SCRATCH0, CPU_FIELD(mxcsr)); /* or */
    emit_bind(over, e->at);
}

static void make_leave(struct emitter *e)
{
    emit_disarm(e);
    emit_registers(e, true);
    for (unsigned i = sizeof(saved); i-- > 0;)
        emit_pop(e, saved[i]);
    emit8(e, 0xc3);
}

/* Called, or jumped to by code that was, with the op in SCRATCH1. */
static void make_handler(struct emitter *e)
{
    emit_alu_imm(e, 0, 8, CPU_FIELD(stats.handler_calls), 1, 0);
    emit_disarm(e);
    emit_registers(e, true);
    emit_store(e, CPU_FIELD(op), SCRATCH1);
    emit_lea(e, HOST_RDI, rm_mem(HOST_CPU, -CPU_BIAS));
    emit_mov_rr(e, HOST_RSI, SCRATCH1);
    emit_modrm(e, 0xff | EMIT_EXTENSION, 4, 2, /* call */
               rm_mem(SCRATCH1, (int32_t)offsetof(struct op, fn)));
    emit_registers(e, false);
    emit8(e, 0xc3);
}

/* Called; guest registers are kept. */
static void make_arm(struct emitter *e)
{
    emit_disarm(e);
    emit_registers(e, true);
    emit_lea(e, HOST_RDI, rm_mem(HOST_CPU, -CPU_BIAS));
    emit_mov_imm(e, HOST_RAX, (uintptr_t)translator_arm);
    emit_modrm(e, 0xff | EMIT_EXTENSION, 4, 2, rm_reg(HOST_RAX)); /* call */
    emit_registers(e, false);
    emit8(e, 0xc3);
}

/* With the canonical RIP in SCRATCH0: what jump_slot and jump_tag do. It is emitted at each jump
 * that is taken often: so each has a jump of its own for the host's processor to predict. */
void emit_lookup(struct emitter *e, const uint8_t *leave)
{
    const int32_t jump = (int32_t)offsetof(struct cpu, jump) - CPU_BIAS;
    const int32_t key = (int32_t)offsetof(struct cpu, jump_key) - CPU_BIAS;
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
    emit_alu_imm(e, 4, 8, rm_reg(SCRATCH0), -PAGE_BYTES, 0);
    emit_store(e, gpr_slot(GPR_PAGE_RIP), SCRATCH0);
    emit_modrm(e, 0xff | EMIT_EXTENSION, 4, 4,
               rm_mem(SCRATCH1, (int32_t)offsetof(struct block, code)));
}

_Static_assert(sizeof(struct jump_entry) == 16, "emit_lookup");
_Static_assert(offsetof(struct jump_entry, block) == 8, "emit_lookup");

/* Jumped to with the target's offset in the page in SCRATCH0, the jump's place in SCRATCH1. */
static void make_unlinked(struct emitter *e, const uint8_t *leave)
{
    emit_modrm(e, 0x03, 8, SCRATCH0, gpr_slot(GPR_PAGE_RIP));
    emit_store(e, CPU_FIELD(rip), SCRATCH0);
    emit_modrm(e, 0x89, 4, SCRATCH1, CPU_FIELD(link_site));
    emit_bind(emit_jmp(e), leave);
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
    t->leave = align(t, &e);
    make_leave(&e);
    t->handler = align(t, &e);
    make_handler(&e);
    t->lookup = align(t, &e);
    emit_lookup(&e, t->writable + t->leave);
    t->arm = align(t, &e);
    make_arm(&e);
    t->unlinked = align(t, &e);
    make_unlinked(&e, t->writable + t->leave);
    t->thunk_bytes = t->used_bytes = align(t, &e);
}
