/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Bytes to ops: Zydis decodes, this takes its operands apart, and the bind functions find the
 * handler. Decoding depends on the bytes and on cpu->mode only. What the processor does not have is
 * #UD, with a log line that names the bytes.
 */
#include "cpu/soft/block.h"

#include <stdio.h>

struct decoding {
    struct cpu *cpu;
    ZydisDecoder decoder;
    ZydisDecodedInstruction info;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
};

void decoder_init(ZydisDecoder *decoder, uint32_t mode)
{
    bool is_stack32 = mode & MODE_STACK32;
    ZydisStackWidth stack = is_stack32 ? ZYDIS_STACK_WIDTH_32 : ZYDIS_STACK_WIDTH_16;
    switch (mode & MODE_SIZE_MASK) {
    case MODE_64:
        ZydisDecoderInit(decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
        break;
    case MODE_32: ZydisDecoderInit(decoder, ZYDIS_MACHINE_MODE_LEGACY_32, stack); break;
    /* Not Zydis's real mode, which knows neither virtual-8086 mode nor SYSENTER there; handlers
     * say themselves what needs protected mode. */
    default: ZydisDecoderInit(decoder, ZYDIS_MACHINE_MODE_LEGACY_16, stack);
    }
    /* Without these extensions their encodings are hints, which do nothing. */
    ZydisDecoderEnableMode(decoder, ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
    ZydisDecoderEnableMode(decoder, ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
    ZydisDecoderEnableMode(decoder, ZYDIS_DECODER_MODE_CLDEMOTE, ZYAN_FALSE);
    /* And of this one their prefix is ignored: it is WBINVD. */
    ZydisDecoderEnableMode(decoder, ZYDIS_DECODER_MODE_WBNOINVD, ZYAN_FALSE);
}

/* --- operands ------------------------------------------------------------------------------- */

static uint8_t register_number(ZydisRegister reg)
{
    int id = ZydisRegisterGetId(reg);
    switch (ZydisRegisterGetClass(reg)) {
    case ZYDIS_REGCLASS_GPR8: {
        /* AL CL DL BL, AH CH DH BH, SPL BPL SIL DIL, R8B … */
        int n = reg - ZYDIS_REGISTER_AL;
        if (n >= 4 && n < 8)
            return (uint8_t)((n - 4) * 8 + 1);
        return (uint8_t)((n < 4 ? n : n - 4) * 8);
    }
    case ZYDIS_REGCLASS_GPR16:
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64: return (uint8_t)(id * 8);
    default: return (uint8_t)(id < 0 ? 0 : id);
    }
}

static uint8_t address_slot(ZydisRegister reg)
{
    if (reg == ZYDIS_REGISTER_NONE)
        return GPR_ZERO;
    if (reg == ZYDIS_REGISTER_RIP || reg == ZYDIS_REGISTER_EIP)
        return GPR_BLOCK_RIP;
    /* Vector indices of gathers are the vector unit's own business. */
    int id = ZydisRegisterGetId(reg);
    return id >= 0 && id < 16 ? (uint8_t)id : GPR_ZERO;
}

static uint8_t segment_number(ZydisRegister reg)
{
    switch (reg) {
    case ZYDIS_REGISTER_ES: return SEG_ES;
    case ZYDIS_REGISTER_CS: return SEG_CS;
    case ZYDIS_REGISTER_SS: return SEG_SS;
    case ZYDIS_REGISTER_FS: return SEG_FS;
    case ZYDIS_REGISTER_GS: return SEG_GS;
    default: return SEG_DS;
    }
}

static void set_address_flags(const struct decoding *d, struct op *op)
{
    switch (d->info.address_width) {
    case 16: op->flags |= OP_ADDRESS_16; break;
    case 32: op->flags |= OP_ADDRESS_32; break;
    default:
        if (op->segment < SEG_FS)
            op->flags |= OP_FLAT;
    }
}

/* SIB with mod = 0 and base = 5 means a displacement and no base, whatever REX.B says (SDM 2A table
 * 2-3). Zydis 4.0 names R13D there when addresses have 32 bits. */
static bool has_no_base(const ZydisDecodedInstruction *info)
{
    return info->attributes & ZYDIS_ATTRIB_HAS_SIB && info->raw.modrm.mod == 0 &&
           info->raw.sib.base == 5;
}

static void take_memory(const struct decoding *d, const ZydisDecodedOperand *operand, struct op *op)
{
    op->base = address_slot(operand->mem.base);
    op->index = address_slot(operand->mem.index);
    op->scale = operand->mem.scale ? (uint8_t)__builtin_ctz(operand->mem.scale) : 0;
    op->disp = operand->mem.disp.has_displacement ? operand->mem.disp.value : 0;
    if (has_no_base(&d->info)) {
        op->base = GPR_ZERO;
        op->disp = d->info.raw.disp.value;
    }
    if (op->base == GPR_BLOCK_RIP)
        op->disp += op->offset + op->length;
    op->segment = segment_number(operand->mem.segment);
}

static unsigned take_operand(const struct decoding *d, unsigned i, struct op *op)
{
    const ZydisDecodedOperand *operand = &d->operands[i];
    switch (operand->type) {
    case ZYDIS_OPERAND_TYPE_REGISTER:
        op->reg[i] = register_number(operand->reg.value);
        return KIND_REG;
    case ZYDIS_OPERAND_TYPE_MEMORY: take_memory(d, operand, op); return KIND_MEM;
    case ZYDIS_OPERAND_TYPE_POINTER:
        op->imm = operand->ptr.offset | (uint64_t)operand->ptr.segment << 32;
        return KIND_IMM;
    case ZYDIS_OPERAND_TYPE_IMMEDIATE: op->imm = operand->imm.value.u; return KIND_IMM;
    default: return KIND_NONE;
    }
}

/* Pushes and pops fault on the stack segment though no visible operand says so. */
static uint8_t default_segment(const struct decoding *d)
{
    for (unsigned i = 0; i < d->info.operand_count; i++)
        if (d->operands[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
            return segment_number(d->operands[i].mem.segment);
    return SEG_DS;
}

static void take_prefixes(const struct decoding *d, struct op *op)
{
    if (d->info.attributes & ZYDIS_ATTRIB_HAS_LOCK)
        op->flags |= OP_LOCK;
    for (unsigned i = 0; i < d->info.raw.prefix_count; i++) {
        uint8_t value = d->info.raw.prefixes[i].value;
        if (value == 0xf3)
            op->flags = (uint16_t)((op->flags & ~OP_REPNE) | OP_REP);
        else if (value == 0xf2)
            op->flags = (uint16_t)((op->flags & ~OP_REP) | OP_REPNE);
    }
}

static unsigned take_operands(const struct decoding *d, struct op *op)
{
    unsigned kinds[3] = {KIND_NONE, KIND_NONE, KIND_NONE};
    op->base = op->index = GPR_ZERO;
    op->segment = default_segment(d);
    op->size_bytes = (uint8_t)(d->operands[0].size / 8);
    if (d->info.operand_count == 0)
        op->size_bytes = 0;
    for (unsigned i = 0; i < d->info.operand_count_visible && i < 3; i++)
        kinds[i] = take_operand(d, i, op);
    take_prefixes(d, op);
    set_address_flags(d, op);
    return kinds[0] | kinds[1] << 2 | kinds[2] << 4;
}

/* --- what can't be decoded ------------------------------------------------------------------ */

/* imm and disp hold the first bytes, reg[0] how many. */
static void remember_bytes(struct op *op, const uint8_t *bytes, unsigned available)
{
    uint8_t all[16] = {0};
    unsigned count = available < INSN_MAX_BYTES ? available : INSN_MAX_BYTES;
    memcpy(all, bytes, count);
    memcpy(&op->imm, all, 8);
    memcpy(&op->disp, all + 8, 8);
    op->reg[0] = (uint8_t)count;
}

void op_undefined(struct cpu *cpu, const struct op *op)
{
    uint8_t bytes[16];
    char text[3 * 16 + 1] = "";
    memcpy(bytes, &op->imm, 8);
    memcpy(bytes + 8, &op->disp, 8);
    for (unsigned i = 0; i < op->reg[0]; i++)
        snprintf(text + 3 * i, 4, " %02x", bytes[i]);
    log_limited(cpu->system->log, &cpu->system->log_limit, LOG_WARNING, "cpu",
                "undefined instruction at %#llx, mode %#x:%s", (unsigned long long)cpu_rip(cpu),
                cpu->mode, text);
    cpu_raise(cpu, VECTOR_UD);
}

static void op_too_long(struct cpu *cpu, const struct op *op)
{
    cpu_raise_code(cpu, VECTOR_GP, 0);
}

static void make_faulting(struct op *op, op_fn *fn, const uint8_t *bytes, unsigned available)
{
    op->fn = fn;
    op->flags |= OP_ENDS_BLOCK;
    if (op->length == 0)
        op->length = fn == op_too_long ? INSN_MAX_BYTES : 1;
    if (fn == op_undefined)
        remember_bytes(op, bytes, available);
}

/* --- one instruction, and many -------------------------------------------------------------- */

static void bind(const struct decoding *d, const uint8_t *bytes, struct op *op)
{
    struct insn insn = {&d->info, d->operands, bytes, 0, d->cpu->mode, d->cpu};
    insn.form = take_operands(d, op);
    /* SDM 2A 2.3.1: VEX is no prefix in real and virtual-8086 mode. */
    bool is_known =
        d->info.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY || !(d->cpu->mode & MODE_REAL);
    bool is_bound =
        is_known && (bind_system(&insn, op) || bind_integer(&insn, op) || bind_vector(&insn, op));
    if (!is_bound)
        make_faulting(op, op_undefined, bytes, d->info.length);
}

/* False: the bytes end before the instruction does. */
static bool decode_one(struct decoding *d, const uint8_t *bytes, unsigned available, struct op *op)
{
    ZydisDecoderContext context;
    ZyanStatus status =
        ZydisDecoderDecodeInstruction(&d->decoder, &context, bytes, available, &d->info);
    if (ZYAN_SUCCESS(status))
        status = ZydisDecoderDecodeOperands(&d->decoder, &context, &d->info, d->operands,
                                            d->info.operand_count);
    if (ZYAN_SUCCESS(status)) {
        op->length = d->info.length;
        bind(d, bytes, op);
        return true;
    }
    if (status == ZYDIS_STATUS_NO_MORE_DATA && available < INSN_MAX_BYTES)
        return false;
    bool is_too_long =
        status == ZYDIS_STATUS_NO_MORE_DATA || status == ZYDIS_STATUS_INSTRUCTION_TOO_LONG;
    make_faulting(op, is_too_long ? op_too_long : op_undefined, bytes, available);
    return true;
}

unsigned decode_block(struct cpu *cpu, const uint8_t *bytes, unsigned available, struct op *op,
                      unsigned max_ops, unsigned *size_bytes)
{
    struct decoding d;
    unsigned count = 0;
    unsigned offset = 0;
    d.cpu = cpu;
    decoder_init(&d.decoder, cpu->mode);
    while (count < max_ops) {
        struct op *next = &op[count];
        memset(next, 0, sizeof(*next));
        next->offset = (int16_t)offset;
        if (!decode_one(&d, bytes + offset, available - offset, next))
            break;
        offset += next->length;
        count++;
        bool is_last = count > 1 && (op[count - 2].flags & OP_ENDS_SOON);
        if ((next->flags & OP_ENDS_BLOCK) || is_last)
            break;
    }
    *size_bytes = offset;
    return count;
}
