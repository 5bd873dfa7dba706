/* SPDX-License-Identifier: BSD-2-Clause
 *
 * SSE and AVX in generated code: the guest's instruction as it is, with its memory operand checked
 * and rewritten.
 *
 * Blocks with such instructions run when cpu->armed says so: the units are enabled, MXCSR masks all
 * exceptions. Then all of the guest's vector registers, and MXCSR, are in the host's, from block to
 * block, until C code is called: that stores them and disarms; see thunks.c.
 */
#include "cpu/soft/vector/vector.h"
#include "cpu/soft/translator/internal.h"

enum { XCR0_SSE_AVX = 6, MXCSR_MASKS = 0x1f80 };

static bool has_upper_halves(const struct cpu *cpu)
{
    uint64_t any = 0;
    for (unsigned n = 0; n < 16; n++) {
        uint64_t upper[2];
        memcpy(upper, cpu->vector[n].bytes + 16, sizeof(upper));
        any |= upper[0] | upper[1];
    }
    return any != 0;
}

unsigned translator_arm(struct cpu *cpu)
{
    bool has_sse = !(cpu->cr0 & (CR0_EM | CR0_TS)) && (cpu->cr4 & CR4_OSFXSR) &&
                   (cpu->mxcsr & MXCSR_MASKS) == MXCSR_MASKS;
    bool has_avx = has_sse && (cpu->cr4 & CR4_OSXSAVE) && !(~cpu->xcr0 & XCR0_SSE_AVX);
    cpu->armed = has_avx ? ARMED_AVX : has_sse ? ARMED_SSE : 0;
    if (has_sse)
        __asm__ volatile("ldmxcsr %0" : : "m"(cpu->mxcsr));
    return has_avx && !has_upper_halves(cpu) ? ARMED_SSE : cpu->armed;
}

static bool is_vex(const struct insn_facts *facts)
{
    return facts->info.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;
}

void vector_rearm(struct unit *unit)
{
    if (!unit->vector_level)
        return;
    emit_alu_imm(&unit->e, 7, 4, CPU_FIELD(armed), (int32_t)unit->vector_level, 0);
    uint8_t *over = emit_jcc(&unit->e, CONDITION_AE);
    emit_bind(emit_call(&unit->e), thunk(unit, unit->translator->arm));
    emit_bind(over, unit->e.at);
}

/* --- operands ----------------------------------------------------------------------------- */

static bool is_vector(const ZydisDecodedOperand *operand)
{
    ZydisRegisterClass domain = ZydisRegisterGetClass(operand->reg.value);
    return operand->type == ZYDIS_OPERAND_TYPE_REGISTER &&
           (domain == ZYDIS_REGCLASS_XMM || domain == ZYDIS_REGCLASS_YMM ||
            domain == ZYDIS_REGCLASS_MMX);
}

static bool is_mmx(const ZydisDecodedOperand *operand)
{
    return operand->type == ZYDIS_OPERAND_TYPE_REGISTER &&
           ZydisRegisterGetClass(operand->reg.value) == ZYDIS_REGCLASS_MMX;
}

static bool is_general(const ZydisDecodedOperand *operand)
{
    ZydisRegisterClass domain = ZydisRegisterGetClass(operand->reg.value);
    return operand->type == ZYDIS_OPERAND_TYPE_REGISTER &&
           (domain == ZYDIS_REGCLASS_GPR32 || domain == ZYDIS_REGCLASS_GPR64);
}

static int find_by(const struct insn_facts *facts, ZydisOperandEncoding encoding)
{
    for (unsigned i = 0; i < facts->info.operand_count; i++)
        if (facts->operand[i].encoding == encoding)
            return (int)i;
    return -1;
}

static unsigned operand_bytes(const ZydisDecodedOperand *operand)
{
    return operand->size / 8;
}

static unsigned host_number(struct unit *unit, const struct op *op, int i)
{
    const ZydisDecodedOperand *operand = &unit->facts->operand[i];
    if (is_vector(operand))
        return (unsigned)ZydisRegisterGetId(operand->reg.value);
    return reg_begin(unit, op->reg[i], operand_bytes(operand), true);
}

/* --- instructions ------------------------------------------------------------------------- */

static void emit_instruction(struct unit *unit, unsigned reg, struct rm rm)
{
    struct emitter *e = &unit->e;
    const ZydisDecodedInstruction *info = &unit->facts->info;
    const uint8_t *bytes = op_bytes(unit, unit->op);
    if (is_vex(unit->facts)) {
        const uint8_t *vex = bytes + info->raw.vex.offset;
        bool is_short = vex[0] == 0xc5;
        uint8_t last = is_short ? vex[1] & 0x7f : vex[2];
        if (!unit->is_64bit)
            last = vector_vex_of_32bit(info, unit->facts->operand, last);
        emit_vex(e, is_short ? 1 : vex[1] & 0x1f, last, info->opcode, reg, rm);
    } else {
        unsigned map = info->opcode_map == ZYDIS_OPCODE_MAP_0F     ? 1
                       : info->opcode_map == ZYDIS_OPCODE_MAP_0F38 ? 2
                                                                   : 3;
        unsigned prefix = 0;
        for (unsigned i = 0; i < info->raw.prefix_count; i++)
            if (info->raw.prefixes[i].type == ZYDIS_PREFIX_TYPE_MANDATORY)
                prefix = info->raw.prefixes[i].value;
        emit_modrm(e, WITH_PREFIX(prefix, map << 8 | info->opcode), info->raw.rex.W ? 8 : 4, reg,
                   rm);
    }
    bool has_is4 = find_by(unit->facts, ZYDIS_OPERAND_ENCODING_IS4) >= 0;
    if (info->raw.imm[0].size != 0 || has_is4)
        emit8(e, bytes[info->length - 1] & (has_is4 && !unit->is_64bit ? 0x7f : 0xff));
}

static void vector(struct unit *unit, const struct op *op)
{
    const struct insn_facts *facts = unit->facts;
    int reg = find_by(facts, ZYDIS_OPERAND_ENCODING_MODRM_REG);
    int rm = find_by(facts, ZYDIS_OPERAND_ENCODING_MODRM_RM);
    unsigned reg_number = facts->info.raw.modrm.reg;
    struct rm operand = {0};
    bool in_memory = facts->operand[rm].type == ZYDIS_OPERAND_TYPE_MEMORY;
    if (in_memory) {
        bool is_write = facts->operand[rm].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
        unsigned size = operand_bytes(&facts->operand[rm]);
        unit->align_mask = op->flags & OP_ALIGNED ? (uint8_t)(size - 1) : 0;
        operand = address_check(unit, op, size, is_write ? ACCESS_WRITE : ACCESS_READ);
        unit->align_mask = 0;
    }
    flags_before_native(unit);
    if (reg >= 0)
        reg_number = host_number(unit, op, reg);
    if (!in_memory)
        operand = rm_reg(host_number(unit, op, rm));
    emit_instruction(unit, reg_number, operand);
    for (unsigned i = 0; i < facts->info.operand_count_visible; i++)
        if (is_general(&facts->operand[i]) &&
            (facts->operand[i].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
            reg_end(unit, op->reg[i], operand_bytes(&facts->operand[i]));
    flags_after_native(unit);
}

static void zero_upper(struct unit *unit, const struct op *op)
{
    EMIT(&unit->e, 0xc5, 0xf8, 0x77); /* vzeroupper */
}

/* --- finding ------------------------------------------------------------------------------ */

static bool is_known_set(ZydisISASet set)
{
    switch (set) {
    case ZYDIS_ISA_SET_PENTIUMMMX:
    case ZYDIS_ISA_SET_SSE:
    case ZYDIS_ISA_SET_SSE2:
    case ZYDIS_ISA_SET_SSE2MMX:
    case ZYDIS_ISA_SET_SSE3:
    case ZYDIS_ISA_SET_SSSE3:
    case ZYDIS_ISA_SET_SSSE3MMX:
    case ZYDIS_ISA_SET_SSE4:
    case ZYDIS_ISA_SET_SSE42:
    case ZYDIS_ISA_SET_AES:
    case ZYDIS_ISA_SET_PCLMULQDQ:
    case ZYDIS_ISA_SET_SHA:
    case ZYDIS_ISA_SET_AVX:
    case ZYDIS_ISA_SET_AVXAES:
    case ZYDIS_ISA_SET_AVX2:
    case ZYDIS_ISA_SET_FMA:
    case ZYDIS_ISA_SET_F16C: return true;
    default: return false;
    }
}

/* Registers that PCMPxSTRx names by itself. */
static bool is_in_place(const ZydisDecodedOperand *operand)
{
    if (operand->visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN)
        return false;
    switch (operand->reg.value) {
    case ZYDIS_REGISTER_EAX:
    case ZYDIS_REGISTER_RAX:
    case ZYDIS_REGISTER_ECX:
    case ZYDIS_REGISTER_RCX:
    case ZYDIS_REGISTER_EDX:
    case ZYDIS_REGISTER_RDX: return true;
    default: return false;
    }
}

/* Whether the host's processor wants the operand aligned. */
static bool wants_alignment(const struct insn_facts *facts, const ZydisDecodedOperand *memory)
{
    switch (facts->info.mnemonic) {
    case ZYDIS_MNEMONIC_VMOVAPS:
    case ZYDIS_MNEMONIC_VMOVAPD:
    case ZYDIS_MNEMONIC_VMOVDQA:
    case ZYDIS_MNEMONIC_VMOVNTDQ:
    case ZYDIS_MNEMONIC_VMOVNTDQA:
    case ZYDIS_MNEMONIC_VMOVNTPS:
    case ZYDIS_MNEMONIC_VMOVNTPD: return true;
    case ZYDIS_MNEMONIC_MOVUPS:
    case ZYDIS_MNEMONIC_MOVUPD:
    case ZYDIS_MNEMONIC_MOVDQU:
    case ZYDIS_MNEMONIC_LDDQU: return false;
    default: return !is_vex(facts) && memory->size == 128;
    }
}

static bool operand_fits(const struct unit *unit, const struct op *op,
                         const struct insn_facts *facts, const ZydisDecodedOperand *operand)
{
    switch (operand->type) {
    case ZYDIS_OPERAND_TYPE_IMMEDIATE: return true;
    case ZYDIS_OPERAND_TYPE_MEMORY: {
        unsigned size = operand_bytes(operand);
        bool is_size = size == 1 || size == 2 || size == 4 || size == 8 || size == 16 || size == 32;
        return operand->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM && is_size &&
               operand->mem.type == ZYDIS_MEMOP_TYPE_MEM && address_is_simple(unit, op) &&
               wants_alignment(facts, operand) == !!(op->flags & OP_ALIGNED);
    }
    case ZYDIS_OPERAND_TYPE_REGISTER: break;
    default: return false;
    }
    if (is_vector(operand))
        return ZydisRegisterGetId(operand->reg.value) < 16;
    if (is_in_place(operand))
        return true;
    if (is_general(operand))
        return operand->visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN &&
               (operand->encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG ||
                operand->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM);
    return operand->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN &&
           (operand->reg.value == ZYDIS_REGISTER_RFLAGS ||
            operand->reg.value == ZYDIS_REGISTER_MXCSR);
}

static bool is_excepted(ZydisMnemonic mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVPS:
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ:
    case ZYDIS_MNEMONIC_VZEROUPPER:
    case ZYDIS_MNEMONIC_VZEROALL:
    case ZYDIS_MNEMONIC_LDMXCSR:
    case ZYDIS_MNEMONIC_STMXCSR:
    case ZYDIS_MNEMONIC_VLDMXCSR:
    case ZYDIS_MNEMONIC_VSTMXCSR: return true;
    default: return false;
    }
}

emit_fn *vector_find(const struct unit *unit, const struct op *op, const struct insn_facts *facts)
{
    /* Outside of 64-bit mode it leaves registers 8 to 15 alone, which the host's holds, too. */
    if (facts->info.mnemonic == ZYDIS_MNEMONIC_VZEROUPPER)
        return unit->is_64bit ? zero_upper : NULL;
    if (!is_known_set(facts->info.meta.isa_set) || is_excepted(facts->info.mnemonic) ||
        facts->info.operand_count_visible > 4 ||
        !(facts->info.attributes & ZYDIS_ATTRIB_HAS_MODRM) ||
        find_by(facts, ZYDIS_OPERAND_ENCODING_MODRM_RM) < 0)
        return NULL;
    bool has_vector = false;
    for (unsigned i = 0; i < facts->info.operand_count; i++) {
        if (!operand_fits(unit, op, facts, &facts->operand[i]))
            return NULL;
        has_vector |= is_vector(&facts->operand[i]);
    }
    /* CVTSD2SI and its like from memory name no vector register, but are as good. */
    has_vector |= facts->info.meta.category == ZYDIS_CATEGORY_CONVERT;
    return has_vector ? vector : NULL;
}

bool vector_is_inline(const struct insn_facts *facts)
{
    return facts->emit == vector || facts->emit == zero_upper;
}

/* What may take away what arming has looked at. */
bool vector_may_disarm(const struct insn_facts *facts)
{
    switch (facts->info.mnemonic) {
    case ZYDIS_MNEMONIC_LDMXCSR:
    case ZYDIS_MNEMONIC_VLDMXCSR:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64:
    case ZYDIS_MNEMONIC_XRSTORS:
    case ZYDIS_MNEMONIC_XRSTORS64: return true;
    default: return facts->info.attributes & ZYDIS_ATTRIB_IS_PRIVILEGED;
    }
}

unsigned vector_level_of(const struct insn_facts *facts)
{
    bool has_mmx = false, has_xmm = facts->info.meta.category == ZYDIS_CATEGORY_CONVERT;
    for (unsigned i = 0; i < facts->info.operand_count; i++) {
        has_mmx |= is_mmx(&facts->operand[i]);
        has_xmm |= is_vector(&facts->operand[i]) && !is_mmx(&facts->operand[i]);
    }
    return is_vex(facts) ? ARMED_AVX : has_xmm || !has_mmx ? ARMED_SSE : 0;
}

bool vector_uses_mmx(const struct insn_facts *facts)
{
    /* Some processors count this one even when its operand is in memory. */
    bool has_mmx = facts->info.mnemonic == ZYDIS_MNEMONIC_CVTPI2PS;
    for (unsigned i = 0; i < facts->info.operand_count; i++)
        has_mmx |= is_mmx(&facts->operand[i]);
    return facts->emit == vector && has_mmx;
}
