/* SPDX-License-Identifier: BSD-2-Clause
 *
 * x87 in generated code: the guest's instruction as it is, with its memory operand checked and
 * rewritten. MMX is vector.c's, but for what is said here of blocks.
 *
 * Blocks with such instructions run when cpu->x87_ready says so: the guest's state is in the host's
 * unit, CR0 lets it be used, and the control word masks all exceptions, so that none is ever
 * pending (SDM 1 8.5). C code leaves the unit alone, so that holds over calls of it, but for a few
 * handlers: behind these the block asks again.
 *
 * The pointers to the last operation and its operand, and its opcode, are stored before anything
 * that may look: a call of C code, a slow path, the block's end.
 */
#include "cpu/soft/translator/internal.h"
#include "cpu/soft/vector/vector.h"

enum { CONTROL_MASKS = 0x3f };

void translator_arm_x87(struct cpu *cpu)
{
    vector_make_x87_ready(cpu);
}

/* --- instructions ------------------------------------------------------------------------- */

static const ZydisDecodedOperand *memory_operand(const struct insn_facts *facts)
{
    for (unsigned i = 0; i < facts->info.operand_count_visible; i++)
        if (facts->operand[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
            return &facts->operand[i];
    return NULL;
}

/* FNCLEX, FNSTSW AX. */
static void control(struct unit *unit, const struct op *op)
{
    const ZydisDecodedInstruction *info = &unit->facts->info;
    flags_before_native(unit);
    EMIT(&unit->e, info->opcode, op_bytes(unit, op)[info->raw.modrm.offset]);
    flags_after_native(unit);
}

static struct rm check_operand(struct unit *unit, const struct op *op)
{
    const ZydisDecodedOperand *memory = memory_operand(unit->facts);
    bool is_write = memory->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
    return address_check(unit, op, memory->size / 8, is_write ? ACCESS_WRITE : ACCESS_READ);
}

/* FNSTCW, FNSTSW. */
static void control_memory(struct unit *unit, const struct op *op)
{
    const ZydisDecodedInstruction *info = &unit->facts->info;
    struct rm operand = check_operand(unit, op);
    emit_modrm(&unit->e, info->opcode | EMIT_EXTENSION, 4, info->raw.modrm.reg, operand);
}

static void emit_operand_pointer(struct unit *unit, const struct op *op)
{
    address_effective(unit, op, SCRATCH0);
    emit_store(&unit->e, CPU_FIELD(x87_rdp), SCRATCH0);
}

/* An operation, which the pointers are to point at. */
static void operate(struct unit *unit, const struct op *op)
{
    control(unit, op);
}

static void operate_memory(struct unit *unit, const struct op *op)
{
    control_memory(unit, op);
    if (!unit->facts->is_late)
        emit_operand_pointer(unit, op);
}

/* One that unmasks an exception is the handler's. What was looked at is what is loaded, whatever
 * another processor writes there. */
static void fldcw(struct unit *unit, const struct op *op)
{
    struct emitter *e = &unit->e;
    struct rm operand = check_operand(unit, op);
    emit_modrm(e, IN_0F(0xb7), 4, SCRATCH1, operand); /* movzx */
    emit_store(e, CPU_FIELD(spill), SCRATCH1);
    emit_modrm(e, 0xf7 | EMIT_EXTENSION, 4, 2, rm_reg(SCRATCH1)); /* not */
    emit_modrm(e, 0xf6 | EMIT_EXTENSION, 1, 0, rm_reg(SCRATCH1)); /* test */
    emit8(e, CONTROL_MASKS);
    slow_if(unit, CONDITION_NE);
    emit_modrm(e, 0xd9 | EMIT_EXTENSION, 4, 5, CPU_FIELD(spill));
}

/* FWAIT, FNOP and the like look for what isn't there in a block that may run. */
static void nothing(struct unit *unit, const struct op *op) {}

static void emms(struct unit *unit, const struct op *op)
{
    EMIT(&unit->e, 0x0f, 0x77);
}

/* --- finding ------------------------------------------------------------------------------ */

static bool is_x87(const ZydisDecodedInstruction *info)
{
    return info->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY &&
           info->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT &&
           ((info->opcode & 0xf8) == 0xd8 || info->opcode == 0x9b);
}

/* Which of these have an operand in memory is told by size: not the environments. */
static bool operand_fits(const struct unit *unit, const struct op *op,
                         const ZydisDecodedOperand *memory)
{
    switch (memory->size) {
    case 16:
    case 32:
    case 64:
    case 80: break;
    default: return false;
    }
    return memory->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM &&
           memory->mem.type == ZYDIS_MEMOP_TYPE_MEM && address_is_simple(unit, op);
}

emit_fn *x87_find(const struct unit *unit, const struct op *op, const struct insn_facts *facts)
{
    if (facts->info.mnemonic == ZYDIS_MNEMONIC_EMMS)
        return emms;
    if (!is_x87(&facts->info) || (unit->block->mode & MODE_REAL)) /* pointers are linear there */
        return NULL;
    const ZydisDecodedOperand *memory = memory_operand(facts);
    if (memory && !operand_fits(unit, op, memory))
        return NULL;
    switch (facts->info.mnemonic) {
    case ZYDIS_MNEMONIC_FWAIT:
    case ZYDIS_MNEMONIC_FNOP:
    case ZYDIS_MNEMONIC_FENI8087_NOP:
    case ZYDIS_MNEMONIC_FDISI8087_NOP:
    case ZYDIS_MNEMONIC_FSETPM287_NOP: return nothing;
    case ZYDIS_MNEMONIC_FNCLEX:
    case ZYDIS_MNEMONIC_FNSTSW:
    case ZYDIS_MNEMONIC_FNSTCW: return memory ? control_memory : control;
    case ZYDIS_MNEMONIC_FLDCW: return fldcw;
    case ZYDIS_MNEMONIC_FNINIT:
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FRSTOR: return NULL;
    default: return memory ? operate_memory : operate;
    }
}

static bool is_operation_of_memory(const struct insn_facts *facts)
{
    return facts->emit == operate_memory;
}

static bool is_operation(const struct insn_facts *facts)
{
    return facts->emit == operate || is_operation_of_memory(facts);
}

static bool is_inline(const struct insn_facts *facts)
{
    emit_fn *fn = facts->emit;
    return is_operation(facts) || fn == control || fn == control_memory || fn == fldcw ||
           fn == nothing || fn == emms || vector_uses_mmx(facts);
}

/* --- blocks ------------------------------------------------------------------------------- */

/* Whether the registers of op's address keep their values up to where its pointer may be wanted for
 * the last time: before the next one is, a call of C code, the block's end. */
static bool keeps_address(const struct unit *unit, const struct op *op)
{
    for (const struct op *next = op + 1; next < unit->block->end; next++) {
        const struct insn_facts *facts = &unit->fact[next->number];
        bool is_end = (next->flags & OP_ENDS_BLOCK) && unit->follows[next->number] == FOLLOWS_NONE;
        if (!facts->emit || is_operation_of_memory(facts) || is_end)
            return true;
        if ((op->base < 16 && insn_writes(facts, op->base)) ||
            (op->index < 16 && insn_writes(facts, op->index)))
            return false;
    }
    return true;
}

void x87_settle(struct unit *unit)
{
    unit->uses_x87 = false;
    for (unsigned i = 0; i < unit->block->op_count; i++) {
        struct insn_facts *facts = &unit->fact[i];
        unit->uses_x87 |= is_inline(facts);
        facts->is_late = is_operation_of_memory(facts) && keeps_address(unit, &unit->block->op[i]);
    }
}

/* What may take away what cpu->x87_ready stands for. */
static bool may_unready(const struct insn_facts *facts)
{
    switch (facts->info.mnemonic) {
    case ZYDIS_MNEMONIC_FLDCW:
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64:
    case ZYDIS_MNEMONIC_XRSTORS:
    case ZYDIS_MNEMONIC_XRSTORS64: return true;
    default: return facts->info.attributes & ZYDIS_ATTRIB_IS_PRIVILEGED;
    }
}

void x87_rearm(struct unit *unit, const struct op *op)
{
    struct emitter *e = &unit->e;
    if (!unit->uses_x87 || op + 1 == unit->block->end || !may_unready(&unit->fact[op->number]))
        return;
    emit_alu_imm(e, 7, 4, CPU_FIELD(x87_ready), 1, 0);
    uint8_t *is_ready = emit_jcc(e, CONDITION_AE);
    emit_bind(emit_call(e), thunk(unit, unit->translator->arm_x87));
    emit_alu_imm(e, 7, 4, CPU_FIELD(x87_ready), 1, 0);
    uint8_t *became_ready = emit_jcc(e, CONDITION_AE);
    emit_leave_to_interpreter(unit, op + 1);
    emit_bind(is_ready, e->at);
    emit_bind(became_ready, e->at);
}

/* The last one before `op` whose pointers may be wanted: a call of C code has seen to those of what
 * came before it. NULL: none. */
static const struct op *last_of(const struct unit *unit, const struct op *op,
                                bool (*is_one)(const struct insn_facts *facts))
{
    while (unit->uses_x87 && op > unit->block->op) {
        const struct insn_facts *facts = &unit->fact[(--op)->number];
        if (is_one(facts))
            return op;
        if (!facts->emit)
            break;
    }
    return NULL;
}

void x87_emit_pointers(struct unit *unit, const struct op *before)
{
    struct emitter *e = &unit->e;
    const struct op *op = last_of(unit, before, is_operation);
    if (!op)
        return;
    emit_rip(unit, SCRATCH0, (int64_t)unit->page_offset + op->offset);
    emit_store(e, CPU_FIELD(x87_rip), SCRATCH0);
    emit_modrm(e, 0xc7 | EMIT_EXTENSION, 4, 0, CPU_FIELD(x87_fop)); /* mov */
    emit32(e, (uint32_t)op->imm);
    op = last_of(unit, before, is_operation_of_memory);
    if (op && unit->fact[op->number].is_late)
        emit_operand_pointer(unit, op);
}
