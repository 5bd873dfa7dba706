/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Vector instructions whose memory accesses depend on data: VMASKMOVPS/PD, VPMASKMOVD/Q,
 * MASKMOVQ, MASKMOVDQU and the gathers of AVX2. In C, since each element can fault on its own.
 *
 * A masked store is all or nothing here, which the manual allows; a gather keeps what it had done
 * before the fault, as the manual demands (SDM 2, VPGATHERDD).
 */
#include "cpu/soft/vector/internal.h"

/* op->imm of these: how the handler sees the operands. */
union masked_shape {
    uint64_t imm;
    struct {
        uint8_t vector_bytes;  /* 8, 16 or 32 */
        uint8_t element_bytes; /* 1, 4 or 8 */
        uint8_t index_bytes;   /* gathers: 4 or 8 */
        uint8_t index_reg;     /* gathers */
        uint8_t elements;      /* gathers */
        uint8_t data, mask;    /* register numbers */
    };
};

static bool element_selected(const uint8_t *mask, unsigned element, unsigned size_bytes)
{
    return mask[(element + 1) * size_bytes - 1] & 0x80;
}

/* --- VMASKMOV and VPMASKMOV ---------------------------------------------------------------- */

/* Where the first element is. Limits matter from the first selected one to the last (SDM 2C
 * VMASKMOV: faults are those of elements whose mask is set). */
static uint64_t masked_address(struct cpu *cpu, const struct op *op, union masked_shape shape,
                               enum memory_access access)
{
    if (cpu_is_64bit(cpu))
        return op_address(cpu, op, shape.vector_bytes, access);
    const uint8_t *mask = cpu->vector[shape.mask].bytes;
    unsigned first = shape.vector_bytes, end = 0;
    for (unsigned at = 0; at < shape.vector_bytes; at += shape.element_bytes) {
        if (!element_selected(mask, at / shape.element_bytes, shape.element_bytes))
            continue;
        first = at < first ? at : first;
        end = at + shape.element_bytes;
    }
    if (end == 0)
        return 0; /* none will be accessed */
    uint32_t offset = (uint32_t)op_effective(cpu, op);
    return segment_address(cpu, op->segment, (uint64_t)offset + first, end - first, access) - first;
}

static void op_mask_load(struct cpu *cpu, const struct op *op)
{
    check_avx(cpu);
    const union masked_shape shape = {.imm = op->imm};
    const uint8_t *mask = cpu->vector[shape.mask].bytes;
    uint64_t linear = masked_address(cpu, op, shape, ACCESS_READ);
    uint8_t result[32] = {0};
    for (unsigned i = 0; i < shape.vector_bytes / shape.element_bytes; i++) {
        unsigned at = i * shape.element_bytes;
        if (element_selected(mask, i, shape.element_bytes))
            vector_read(cpu, linear + at, result + at, shape.element_bytes);
    }
    memcpy(cpu->vector[shape.data].bytes, result, sizeof(result));
}

/* Stores the selected elements; none when one of them would fault. */
static void mask_store(struct cpu *cpu, uint64_t linear, const uint8_t *data, const uint8_t *mask,
                       unsigned vector_bytes, unsigned element_bytes)
{
    for (unsigned at = 0; at < vector_bytes; at += element_bytes)
        if (element_selected(mask, at / element_bytes, element_bytes) &&
            memory_hit_write(cpu, linear + at, element_bytes) == NULL)
            memory_probe_write(cpu, linear + at, element_bytes);
    for (unsigned at = 0; at < vector_bytes; at += element_bytes)
        if (element_selected(mask, at / element_bytes, element_bytes))
            vector_write(cpu, linear + at, data + at, element_bytes);
}

static void op_mask_store(struct cpu *cpu, const struct op *op)
{
    check_avx(cpu);
    const union masked_shape shape = {.imm = op->imm};
    uint64_t linear = masked_address(cpu, op, shape, ACCESS_WRITE);
    mask_store(cpu, linear, cpu->vector[shape.data].bytes, cpu->vector[shape.mask].bytes,
               shape.vector_bytes, shape.element_bytes);
}

static bool bind_maskmov(const struct insn *insn, struct op *op, unsigned element_bytes)
{
    bool is_store = insn->operands[0].type == ZYDIS_OPERAND_TYPE_MEMORY;
    union masked_shape shape = {.imm = 0};
    shape.vector_bytes = insn->info->raw.vex.L ? 32 : 16;
    shape.element_bytes = (uint8_t)element_bytes;
    shape.data = op->reg[is_store ? 2 : 0];
    shape.mask = op->reg[1];
    op->imm = shape.imm;
    op->flags |= OP_ANY_ALIGNMENT;
    op->fn = is_store ? op_mask_store : op_mask_load;
    return true;
}

/* --- MASKMOVQ and MASKMOVDQU: to [DS:rDI] --------------------------------------------------- */

static void op_maskmovdqu(struct cpu *cpu, const struct op *op)
{
    check_sse(cpu);
    uint64_t linear = op_address(cpu, op, 16, ACCESS_WRITE);
    mask_store(cpu, linear, cpu->vector[op->reg[0]].bytes, cpu->vector[op->reg[1]].bytes, 16, 1);
}

static void op_vmaskmovdqu(struct cpu *cpu, const struct op *op)
{
    check_avx(cpu);
    uint64_t linear = op_address(cpu, op, 16, ACCESS_WRITE);
    mask_store(cpu, linear, cpu->vector[op->reg[0]].bytes, cpu->vector[op->reg[1]].bytes, 16, 1);
}

static void read_mmx(uint8_t value[8], unsigned n)
{
    uint64_t all[8];
    __asm__ volatile("movq %%mm0, %0\n\tmovq %%mm1, %1\n\tmovq %%mm2, %2\n\tmovq %%mm3, %3\n\t"
                     "movq %%mm4, %4\n\tmovq %%mm5, %5\n\tmovq %%mm6, %6\n\tmovq %%mm7, %7"
                     : "=m"(all[0]), "=m"(all[1]), "=m"(all[2]), "=m"(all[3]), "=m"(all[4]),
                       "=m"(all[5]), "=m"(all[6]), "=m"(all[7]));
    memcpy(value, &all[n & 7], 8);
}

static void op_maskmovq(struct cpu *cpu, const struct op *op)
{
    check_mmx(cpu);
    uint64_t linear = op_address(cpu, op, 8, ACCESS_WRITE);
    /* Reading the registers makes the unit's state an MMX one: not before the fault. They are in
     * the FXSAVE image too, but the image of a live unit is dearer. */
    memory_probe_write(cpu, linear, 8);
    uint8_t data[8], mask[8];
    read_mmx(data, op->reg[0]);
    read_mmx(mask, op->reg[1]);
    mask_store(cpu, linear, data, mask, 8, 1);
}

/* The hidden memory operand's address into op's fields. */
static void use_rdi(const struct insn *insn, struct op *op)
{
    unsigned hidden = insn->info->operand_count_visible;
    ZydisRegister segment = ZYDIS_REGISTER_DS;
    for (unsigned i = hidden; i < insn->info->operand_count; i++)
        if (insn->operands[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
            segment = insn->operands[i].mem.segment;
    op->base = RDI;
    op->index = GPR_ZERO;
    op->scale = 0;
    op->disp = 0;
    op->segment = (uint8_t)(segment == ZYDIS_REGISTER_FS   ? SEG_FS
                            : segment == ZYDIS_REGISTER_GS ? SEG_GS
                            : segment == ZYDIS_REGISTER_ES ? SEG_ES
                            : segment == ZYDIS_REGISTER_CS ? SEG_CS
                            : segment == ZYDIS_REGISTER_SS ? SEG_SS
                                                           : SEG_DS);
    op->flags &= (uint16_t) ~(OP_FLAT | OP_ADDRESS_16 | OP_ADDRESS_32);
    if (insn->info->address_width == 16)
        op->flags |= OP_ADDRESS_16;
    else if (insn->info->address_width == 32)
        op->flags |= OP_ADDRESS_32;
    else if (op->segment != SEG_FS && op->segment != SEG_GS)
        op->flags |= OP_FLAT;
}

/* --- gathers ------------------------------------------------------------------------------- */

static void op_gather(struct cpu *cpu, const struct op *op)
{
    check_avx(cpu);
    const union masked_shape shape = {.imm = op->imm};
    uint8_t *data = cpu->vector[shape.data].bytes;
    uint8_t *mask = cpu->vector[shape.mask].bytes;
    const uint8_t *index = cpu->vector[shape.index_reg].bytes;
    unsigned size = shape.element_bytes;
    struct op element = *op; /* with the index as part of the displacement */
    for (unsigned i = 0; i < shape.elements; i++) {
        if (!element_selected(mask, i, size)) {
            memset(mask + i * size, 0, size);
            continue;
        }
        int64_t offset;
        int32_t offset32;
        memcpy(&offset32, index + i * 4, sizeof(offset32));
        if (shape.index_bytes == 8)
            memcpy(&offset, index + i * 8, sizeof(offset));
        else
            offset = offset32;
        element.disp = (int64_t)((uint64_t)op->disp + ((uint64_t)offset << op->scale));
        uint8_t value[8];
        vector_read(cpu, op_address(cpu, &element, size, ACCESS_READ), value, size);
        memcpy(data + i * size, value, size);
        memset(mask + i * size, 0, size);
    }
    memset(data + shape.elements * size, 0, 32 - shape.elements * size);
    memset(mask + shape.elements * size, 0, 32 - shape.elements * size);
}

static bool bind_gather(const struct insn *insn, struct op *op, unsigned element_bytes,
                        unsigned index_bytes)
{
    const ZydisDecodedOperand *memory = &insn->operands[1];
    if (memory->type != ZYDIS_OPERAND_TYPE_MEMORY)
        return false;
    union masked_shape shape = {.imm = 0};
    unsigned vector_bytes = insn->info->raw.vex.L ? 32 : 16;
    shape.element_bytes = (uint8_t)element_bytes;
    shape.index_bytes = (uint8_t)index_bytes;
    shape.elements =
        (uint8_t)(vector_bytes / (element_bytes > index_bytes ? element_bytes : index_bytes));
    shape.index_reg = (uint8_t)ZydisRegisterGetId(memory->mem.index);
    shape.data = op->reg[0];
    shape.mask = op->reg[2];
    if (shape.data == shape.mask || shape.data == shape.index_reg || shape.mask == shape.index_reg)
        return false; /* #UD */
    op->imm = shape.imm;
    op->flags |= OP_ANY_ALIGNMENT;
    op->index = GPR_ZERO; /* decode can't put a vector register there */
    op->scale = (uint8_t)(memory->mem.scale == 8   ? 3
                          : memory->mem.scale == 4 ? 2
                          : memory->mem.scale == 2 ? 1
                                                   : 0);
    op->fn = op_gather;
    return true;
}

bool bind_vector_masked(const struct insn *insn, struct op *op)
{
    switch (insn->info->mnemonic) {
    case ZYDIS_MNEMONIC_VMASKMOVPS:
    case ZYDIS_MNEMONIC_VPMASKMOVD: return bind_maskmov(insn, op, 4);
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ: return bind_maskmov(insn, op, 8);
    case ZYDIS_MNEMONIC_MASKMOVQ: op->fn = op_maskmovq; break;
    case ZYDIS_MNEMONIC_MASKMOVDQU: op->fn = op_maskmovdqu; break;
    case ZYDIS_MNEMONIC_VMASKMOVDQU: op->fn = op_vmaskmovdqu; break;
    case ZYDIS_MNEMONIC_VPGATHERDD:
    case ZYDIS_MNEMONIC_VGATHERDPS: return bind_gather(insn, op, 4, 4);
    case ZYDIS_MNEMONIC_VPGATHERDQ:
    case ZYDIS_MNEMONIC_VGATHERDPD: return bind_gather(insn, op, 8, 4);
    case ZYDIS_MNEMONIC_VPGATHERQD:
    case ZYDIS_MNEMONIC_VGATHERQPS: return bind_gather(insn, op, 4, 8);
    case ZYDIS_MNEMONIC_VPGATHERQQ:
    case ZYDIS_MNEMONIC_VGATHERQPD: return bind_gather(insn, op, 8, 8);
    default: return false;
    }
    use_rdi(insn, op);
    return true;
}
