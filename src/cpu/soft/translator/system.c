/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Instructions about the processor itself in generated code: those that a kernel is full of, in
 * their ordinary case. Everything else about them (privilege, what raises) is their handlers'.
 */
#include "cpu/soft/translator/internal.h"

#include "cpu/soft/tlb.h"

static struct rm rflags_field(void)
{
    return CPU_FIELD(rflags);
}

/* CPL 1 and 2 are rare enough to be told apart here. */
static void require_ring0(struct unit *unit)
{
    flags_clobber(unit);
    emit_alu_imm(&unit->e, 7, 1, CPU_FIELD(cpl), 0, 0);
    slow_if(unit, CONDITION_NE);
}

static void set_rflag(struct unit *unit, int32_t flag)
{
    emit_alu_imm(&unit->e, 1, 4, rflags_field(), flag, 0); /* or */
}

static void clear_rflag(struct unit *unit, int32_t flag)
{
    emit_alu_imm(&unit->e, 4, 4, rflags_field(), ~flag, 0); /* and */
}

static void cli(struct unit *unit, const struct op *op)
{
    require_ring0(unit);
    clear_rflag(unit, RFLAGS_IF);
}

/* The next instruction ends the block, and the block behind it polls: that is the shadow of STI. */
static void sti(struct unit *unit, const struct op *op)
{
    require_ring0(unit);
    set_rflag(unit, RFLAGS_IF);
    unit->enables_interrupts = true;
}

static void direction(struct unit *unit, const struct op *op)
{
    flags_clobber(unit);
    if (unit->facts->info.mnemonic == ZYDIS_MNEMONIC_STD)
        set_rflag(unit, RFLAGS_DF);
    else
        clear_rflag(unit, RFLAGS_DF);
}

/* As view_data tells: AC opens user pages where SMAP is on. */
static void access_check(struct unit *unit, const struct op *op)
{
    struct emitter *e = &unit->e;
    bool is_clac = unit->facts->info.mnemonic == ZYDIS_MNEMONIC_CLAC;
    uint8_t *over = NULL;
    require_ring0(unit);
    emit_load(e, SCRATCH0, CPU_FIELD(tlb_set));
    if (is_clac) {
        clear_rflag(unit, RFLAGS_AC);
        emit_modrm(e, 0xf7 | EMIT_EXTENSION, 4, 0, CPU_FIELD(cr4)); /* test */
        emit32(e, CR4_SMAP);
    } else {
        set_rflag(unit, RFLAGS_AC);
    }
    emit_modrm(e, 0xc6 | EMIT_EXTENSION, 1, 0, CPU_FIELD(tlb_view)); /* mov */
    emit8(e, TLB_SUPERVISOR);
    if (is_clac) {
        over = emit_jcc(e, CONDITION_E);
        emit_lea(e, SCRATCH0,
                 rm_mem(SCRATCH0, (int32_t)(TLB_SUPERVISOR_SMAP * sizeof(struct tlb_tables))));
        emit_modrm(e, 0xc6 | EMIT_EXTENSION, 1, 0, CPU_FIELD(tlb_view));
        emit8(e, TLB_SUPERVISOR_SMAP);
        emit_bind(over, e->at);
    }
    emit_store(e, CPU_FIELD(tlb), SCRATCH0);
}

_Static_assert(offsetof(struct tlb_set, tables) == 0, "access_check");
_Static_assert((int)TLB_SUPERVISOR == 0, "access_check");

static void swapgs(struct unit *unit, const struct op *op)
{
    struct emitter *e = &unit->e;
    require_ring0(unit);
    emit_load(e, SCRATCH0, CPU_FIELD(segment[SEG_GS].base));
    emit_load(e, SCRATCH1, CPU_FIELD(kernel_gs_base));
    emit_store(e, CPU_FIELD(kernel_gs_base), SCRATCH0);
    emit_store(e, CPU_FIELD(segment[SEG_GS].base), SCRATCH1);
}

/* RFLAGS out of its two parts, in SCRATCH1. */
static void pushf(struct unit *unit, const struct op *op)
{
    struct emitter *e = &unit->e;
    const size_t cc = offsetof(struct cpu, cc);
    const unsigned size = op->size_bytes;
    struct rm to = address_check_at(unit, RSP, -(int32_t)size, size, ACCESS_WRITE);
    emit_lea(e, SCRATCH0, to);
    emit_store(e, CPU_FIELD(spill), SCRATCH0);
    emit_modrm(e, IN_0F(0xb6), 4, SCRATCH1, rm_mem(HOST_CPU, (int32_t)cc + 1 - CPU_BIAS));
    emit_alu_imm(e, 4, 4, rm_reg(SCRATCH1), RFLAGS_ARITHMETIC & 0xff, 0);
    emit_modrm(e, IN_0F(0xb6), 4, SCRATCH0, rm_mem(HOST_CPU, (int32_t)cc - CPU_BIAS));
    emit_alu_imm(e, 4, 4, rm_reg(SCRATCH0), CC_OF, 0);
    emit_modrm(e, 0xc1 | EMIT_EXTENSION, 4, 4, rm_reg(SCRATCH0)); /* shl */
    emit8(e, 11);
    emit_modrm(e, 0x0b, 4, SCRATCH1, rm_reg(SCRATCH0)); /* or */
    emit_modrm(e, 0x8b, 4, SCRATCH0, rflags_field());   /* mov */
    emit_alu_imm(e, 4, 4, rm_reg(SCRATCH0), ~(RFLAGS_VM | RFLAGS_RF), 0);
    emit_modrm(e, 0x0b, 4, SCRATCH1, rm_reg(SCRATCH0));
    emit_load(e, SCRATCH0, CPU_FIELD(spill));
    emit_modrm(e, 0x89, size, SCRATCH1, rm_mem(SCRATCH0, 0));
    emit_move_rsp(unit, -(int32_t)size);
}

/* RDTSC, RDTSCP; CR4.TSD keeps it from user programs. The guest's LFENCE is nothing here, so the
 * host's stands at what guests need it for: a counter that is not read ahead, such as of a lock. */
static void rdtsc(struct unit *unit, const struct op *op)
{
    struct emitter *e = &unit->e;
    flags_clobber(unit);
    if (unit->block->mode & MODE_USER) {
        emit_modrm(e, 0xf7 | EMIT_EXTENSION, 4, 0, CPU_FIELD(cr4)); /* test */
        emit32(e, CR4_TSD);
        slow_if(unit, CONDITION_NE);
    }
    if (unit->facts->info.mnemonic == ZYDIS_MNEMONIC_RDTSCP)
        emit_modrm(e, 0x8b, 4, HOST_RCX, CPU_FIELD(tsc_aux));
    EMIT(e, 0x0f, 0xae, 0xe8);                                    /* lfence */
    EMIT(e, 0x0f, 0x31);                                          /* rdtsc */
    emit_modrm(e, 0xc1 | EMIT_EXTENSION, 8, 4, rm_reg(HOST_RDX)); /* shl */
    emit8(e, 32);
    emit_modrm(e, 0x0b, 8, HOST_RAX, rm_reg(HOST_RDX));      /* or */
    emit_modrm(e, 0x03, 8, HOST_RAX, CPU_FIELD(tsc_offset)); /* add */
    emit_mov_rr(e, HOST_RDX, HOST_RAX);
    emit_modrm(e, 0xc1 | EMIT_EXTENSION, 8, 5, rm_reg(HOST_RDX)); /* shr */
    emit8(e, 32);
    emit_modrm(e, 0x8b, 4, HOST_RAX, rm_reg(HOST_RAX)); /* mov: clears the upper half */
}

/* Under translator=check the blocks with it are compared up to it, at the call of its handler. */
static bool is_tsc_inline(const struct soft_system *system)
{
    return tsc_is_host(system) && !system->translator.is_check;
}

static void mov_from_cr2(struct unit *unit, const struct op *op)
{
    require_ring0(unit);
    unsigned to = reg_begin(unit, op->reg[0], 8, false);
    emit_modrm(&unit->e, 0x8b, unit->rip_bytes, to, CPU_FIELD(cr2)); /* mov */
    reg_end(unit, op->reg[0], 8);
}

static void mov_from_segment(struct unit *unit, const struct op *op)
{
    const size_t at = offsetof(struct cpu, segment) + op->reg[1] * sizeof(struct x86_segment) +
                      offsetof(struct x86_segment, selector);
    unsigned to = reg_begin(unit, op->reg[0], 8, false);
    emit_modrm(&unit->e, IN_0F(0xb7), 4, to, rm_mem(HOST_CPU, (int32_t)at - CPU_BIAS)); /* movzx */
    reg_end(unit, op->reg[0], 8);
}

static void pause(struct unit *unit, const struct op *op)
{
    EMIT(&unit->e, 0xf3, 0x90);
}

static void fence(struct unit *unit, const struct op *op)
{
    EMIT(&unit->e, 0x0f, 0xae, 0xf0); /* mfence */
}

/* --- finding -------------------------------------------------------------------------------- */

static bool is_register(const struct insn_facts *facts, unsigned i, ZydisRegisterClass domain)
{
    return facts->operand[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
           ZydisRegisterGetClass(facts->operand[i].reg.value) == domain;
}

static emit_fn *find_mov(const struct op *op, const struct insn_facts *facts, bool is_user)
{
    if (facts->form != FORM_RR)
        return NULL;
    if (!is_user && facts->operand[1].reg.value == ZYDIS_REGISTER_CR2)
        return mov_from_cr2;
    bool is_wide =
        is_register(facts, 0, ZYDIS_REGCLASS_GPR32) || is_register(facts, 0, ZYDIS_REGCLASS_GPR64);
    return is_wide && is_register(facts, 1, ZYDIS_REGCLASS_SEGMENT) ? mov_from_segment : NULL;
}

static emit_fn *find_privileged(const struct unit *unit, const struct op *op,
                                const struct insn_facts *facts)
{
    switch (facts->info.mnemonic) {
    case ZYDIS_MNEMONIC_CLI: return cli;
    case ZYDIS_MNEMONIC_STI: return op + 1 == unit->block->end ? NULL : sti;
    case ZYDIS_MNEMONIC_CLAC:
    case ZYDIS_MNEMONIC_STAC: return access_check;
    case ZYDIS_MNEMONIC_SWAPGS: return swapgs;
    default: return NULL;
    }
}

emit_fn *system_find(const struct unit *unit, const struct op *op, const struct insn_facts *facts)
{
    bool is_user = unit->block->mode & MODE_USER;
    switch (facts->info.mnemonic) {
    case ZYDIS_MNEMONIC_CLD:
    case ZYDIS_MNEMONIC_STD: return direction;
    case ZYDIS_MNEMONIC_PUSHFQ: return pushf;
    case ZYDIS_MNEMONIC_PUSHFD: return unit->block->mode & MODE_REAL ? NULL : pushf;
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP: return is_tsc_inline(unit->cpu->system) ? rdtsc : NULL;
    case ZYDIS_MNEMONIC_MOV: return find_mov(op, facts, is_user);
    case ZYDIS_MNEMONIC_PAUSE: return facts->info.raw.rex.B ? NULL : pause;
    case ZYDIS_MNEMONIC_SERIALIZE:
    case ZYDIS_MNEMONIC_MFENCE:
    case ZYDIS_MNEMONIC_SFENCE: return fence;
    default: return is_user ? NULL : find_privileged(unit, op, facts);
    }
}
