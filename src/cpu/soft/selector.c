/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Segment registers and selectors: MOV PUSH POP LxS, LLDT LTR SLDT STR, LAR LSL VERR VERW ARPL.
 * SDM 2A/2B, 3A 5.10.
 */
#include "cpu/soft/core.h"

static void load(struct cpu *cpu, const struct op *op, enum x86_segment_name name,
                 uint16_t selector)
{
    segment_load(cpu, name, selector);
    if (name == SEG_SS)
        cpu_update_mode(cpu);
    else
        cpu_update_segments(cpu);
    cpu->rip = op_next_rip(cpu, op);
}

/* MOV and POP; LSS, which loads both halves of the stack pointer, begins no shadow: SDM 3A 6.8.3.
 */
static void load_with_shadow(struct cpu *cpu, const struct op *op, enum x86_segment_name name,
                             uint16_t selector)
{
    load(cpu, op, name, selector);
    if (name == SEG_SS)
        flags_begin_shadow(cpu, true);
}

/* reg[0] is the segment register. */
static void mov_to_segment(struct cpu *cpu, const struct op *op)
{
    if (op->reg[0] == SEG_CS || op->reg[0] > SEG_GS)
        cpu_raise(cpu, VECTOR_UD);
    load_with_shadow(cpu, op, op->reg[0], (uint16_t)operand_read(cpu, op, 1, 2));
}

/* To memory two bytes, to a register zero-extended to the operand size. */
static void mov_from_segment(struct cpu *cpu, const struct op *op)
{
    if (op->reg[1] > SEG_GS)
        cpu_raise(cpu, VECTOR_UD);
    operand_write(cpu, op, cpu->segment[op->reg[1]].selector,
                  op->flags & OP_IN_MEMORY ? 2 : op->size_bytes);
}

/* A push of the full size; processors write only the selector, and leave what is above. */
static void push_segment(struct cpu *cpu, const struct op *op)
{
    stack_push(cpu, cpu->segment[op->reg[0]].selector, op->size_bytes);
}

static void pop_segment(struct cpu *cpu, const struct op *op)
{
    uint64_t rsp = cpu->gpr[RSP];
    uint16_t selector = (uint16_t)stack_peek(cpu, 0, op->size_bytes);
    uint64_t mask = stack_mask_of(cpu);
    load_with_shadow(cpu, op, op->reg[0], selector);
    cpu->gpr[RSP] = (rsp & ~mask) | ((rsp + op->size_bytes) & mask);
}

/* reg[0] is the general register, imm the segment register. */
static void load_far(struct cpu *cpu, const struct op *op)
{
    uint8_t bytes[10];
    unsigned size_bytes = op->size_bytes;
    memory_read(cpu, op_address(cpu, op, size_bytes + 2, ACCESS_READ), bytes, size_bytes + 2);
    uint16_t selector;
    uint64_t offset = 0;
    memcpy(&selector, bytes + size_bytes, 2);
    memcpy(&offset, bytes, size_bytes);
    load(cpu, op, (enum x86_segment_name)op->imm, selector);
    register_write(cpu, op->reg[0], offset, size_bytes);
}

/* --- system segments ------------------------------------------------------------------------ */

static void require_protected(struct cpu *cpu)
{
    if (is_real_mode(cpu))
        cpu_raise(cpu, VECTOR_UD);
}

static void lldt(struct cpu *cpu, const struct op *op)
{
    require_protected(cpu);
    require_cpl0(cpu);
    segment_load_ldt(cpu, (uint16_t)operand_read(cpu, op, 0, 2));
}

static void ltr(struct cpu *cpu, const struct op *op)
{
    require_protected(cpu);
    require_cpl0(cpu);
    segment_load_task(cpu, (uint16_t)operand_read(cpu, op, 0, 2));
}

static void store(struct cpu *cpu, const struct op *op, enum x86_segment_name name)
{
    require_protected(cpu);
    if ((cpu->cr4 & CR4_UMIP) && cpu->cpl != 0)
        cpu_raise_code(cpu, VECTOR_GP, 0);
    operand_write(cpu, op, cpu->segment[name].selector,
                  op->flags & OP_IN_MEMORY ? 2 : op->size_bytes);
}

static void sldt(struct cpu *cpu, const struct op *op)
{
    store(cpu, op, SEG_LDTR);
}
static void str(struct cpu *cpu, const struct op *op)
{
    store(cpu, op, SEG_TR);
}

/* --- asking about selectors ----------------------------------------------------------------- */

static void set_zf(struct cpu *cpu, bool is_set)
{
    cpu->cc = (uint16_t)(is_set ? cpu->cc | CC_ZF : cpu->cc & ~CC_ZF);
}

/* Whether the descriptor exists and its privilege lets the selector be used. */
static bool find_visible(struct cpu *cpu, uint16_t selector, struct descriptor *descriptor)
{
    if (!(selector & ~SELECTOR_RPL) || !descriptor_find(cpu, selector, descriptor))
        return false;
    uint32_t attributes = descriptor->attributes;
    bool is_conforming = (attributes & (SEGMENT_S | TYPE_CODE | TYPE_CONFORMING)) ==
                         (SEGMENT_S | TYPE_CODE | TYPE_CONFORMING);
    unsigned dpl = segment_dpl(attributes);
    return is_conforming || (cpu->cpl <= dpl && (unsigned)(selector & SELECTOR_RPL) <= dpl);
}

static bool has_access_rights(const struct cpu *cpu, uint32_t attributes)
{
    if (attributes & SEGMENT_S)
        return true;
    unsigned type = attributes & SEGMENT_TYPE;
    uint32_t legacy =
        1u << TYPE_TSS16 | 1u << TYPE_TSS16_BUSY | 1u << TYPE_CALL_GATE16 | 1u << TYPE_TASK_GATE;
    uint32_t all =
        1u << TYPE_LDT | 1u << TYPE_TSS32 | 1u << TYPE_TSS32_BUSY | 1u << TYPE_CALL_GATE32;
    return (is_long_mode(cpu) ? all : all | legacy) >> type & 1;
}

static bool has_limit(const struct cpu *cpu, uint32_t attributes)
{
    unsigned type = attributes & SEGMENT_TYPE;
    bool is_gate = type == TYPE_CALL_GATE16 || type == TYPE_CALL_GATE32 || type == TYPE_TASK_GATE;
    return (attributes & SEGMENT_S) || (!is_gate && has_access_rights(cpu, attributes));
}

static void lar(struct cpu *cpu, const struct op *op)
{
    struct descriptor descriptor;
    require_protected(cpu);
    uint16_t selector = (uint16_t)operand_read(cpu, op, 1, 2);
    bool found =
        find_visible(cpu, selector, &descriptor) && has_access_rights(cpu, descriptor.attributes);
    if (found)
        register_write(cpu, op->reg[0], descriptor.raw >> 32 & 0xffff00, op->size_bytes);
    set_zf(cpu, found);
}

static void lsl(struct cpu *cpu, const struct op *op)
{
    struct descriptor descriptor;
    require_protected(cpu);
    uint16_t selector = (uint16_t)operand_read(cpu, op, 1, 2);
    bool found = find_visible(cpu, selector, &descriptor) && has_limit(cpu, descriptor.attributes);
    if (found)
        register_write(cpu, op->reg[0], descriptor.limit, op->size_bytes);
    set_zf(cpu, found);
}

static void verr(struct cpu *cpu, const struct op *op)
{
    struct descriptor descriptor;
    require_protected(cpu);
    uint16_t selector = (uint16_t)operand_read(cpu, op, 0, 2);
    bool found = find_visible(cpu, selector, &descriptor) && (descriptor.attributes & SEGMENT_S) &&
                 (!(descriptor.attributes & TYPE_CODE) || (descriptor.attributes & TYPE_READABLE));
    set_zf(cpu, found);
}

static void verw(struct cpu *cpu, const struct op *op)
{
    struct descriptor descriptor;
    require_protected(cpu);
    uint16_t selector = (uint16_t)operand_read(cpu, op, 0, 2);
    bool found = find_visible(cpu, selector, &descriptor) &&
                 (descriptor.attributes & (SEGMENT_S | TYPE_CODE | TYPE_WRITABLE)) ==
                     (SEGMENT_S | TYPE_WRITABLE);
    set_zf(cpu, found);
}

static void arpl(struct cpu *cpu, const struct op *op)
{
    require_protected(cpu);
    uint16_t to = (uint16_t)operand_read(cpu, op, 0, 2);
    unsigned rpl = *op_reg16(cpu, op->reg[1]) & SELECTOR_RPL;
    bool is_lower = (unsigned)(to & SELECTOR_RPL) < rpl;
    if (is_lower)
        operand_write(cpu, op, (to & ~(unsigned)SELECTOR_RPL) | rpl, 2);
    set_zf(cpu, is_lower);
}

/* --- binding -------------------------------------------------------------------------------- */

static bool is_segment(const ZydisDecodedOperand *operand)
{
    return operand->type == ZYDIS_OPERAND_TYPE_REGISTER &&
           ZydisRegisterGetClass(operand->reg.value) == ZYDIS_REGCLASS_SEGMENT;
}

static bool bind_move(const struct insn *insn, struct op *op)
{
    if (is_segment(&insn->operands[0]) && insn->info->mnemonic == ZYDIS_MNEMONIC_MOV)
        op->fn = mov_to_segment;
    else if (is_segment(&insn->operands[0]) && insn->info->mnemonic == ZYDIS_MNEMONIC_POP)
        op->fn = pop_segment;
    else if (is_segment(&insn->operands[0]) && insn->info->mnemonic == ZYDIS_MNEMONIC_PUSH)
        op->fn = push_segment;
    else if (insn->info->operand_count_visible > 1 && is_segment(&insn->operands[1]))
        op->fn = mov_from_segment;
    else
        return false;
    if (op->fn == mov_to_segment || op->fn == pop_segment)
        op->flags |= OP_ENDS_BLOCK;
    return true;
}

static bool bind_load_far(const struct insn *insn, struct op *op)
{
    switch (insn->info->mnemonic) {
    case ZYDIS_MNEMONIC_LES: op->imm = SEG_ES; break;
    case ZYDIS_MNEMONIC_LSS: op->imm = SEG_SS; break;
    case ZYDIS_MNEMONIC_LDS: op->imm = SEG_DS; break;
    case ZYDIS_MNEMONIC_LFS: op->imm = SEG_FS; break;
    case ZYDIS_MNEMONIC_LGS: op->imm = SEG_GS; break;
    default: return false;
    }
    op->fn = load_far;
    op->flags |= OP_ENDS_BLOCK;
    return true;
}

static op_fn *plain_fn(ZydisMnemonic mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_LLDT: return lldt;
    case ZYDIS_MNEMONIC_LTR: return ltr;
    case ZYDIS_MNEMONIC_SLDT: return sldt;
    case ZYDIS_MNEMONIC_STR: return str;
    case ZYDIS_MNEMONIC_LAR: return lar;
    case ZYDIS_MNEMONIC_LSL: return lsl;
    case ZYDIS_MNEMONIC_VERR: return verr;
    case ZYDIS_MNEMONIC_VERW: return verw;
    case ZYDIS_MNEMONIC_ARPL: return arpl;
    default: return NULL;
    }
}

bool bind_selector(const struct insn *insn, struct op *op)
{
    bool is_move = insn->info->mnemonic == ZYDIS_MNEMONIC_MOV ||
                   insn->info->mnemonic == ZYDIS_MNEMONIC_PUSH ||
                   insn->info->mnemonic == ZYDIS_MNEMONIC_POP;
    op->fn = NULL;
    if (!(is_move && bind_move(insn, op)) && !bind_load_far(insn, op))
        op->fn = plain_fn(insn->info->mnemonic);
    if (!op->fn)
        return false;
    op->size_bytes = (uint8_t)(insn->info->operand_width / 8);
    for (unsigned i = 0; i < insn->info->operand_count_visible; i++)
        if (insn->operands[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
            op->flags |= OP_IN_MEMORY;
    return true;
}
