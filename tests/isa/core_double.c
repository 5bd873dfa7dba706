/* SPDX-License-Identifier: BSD-2-Clause
 * The parts of the processor's core that handlers call, for tests of handlers alone: 64-bit mode,
 * no paging beyond a TLB that the test fills. */
#include "cpu/soft/memory.h"
#include "cpu/soft/vector/vector.h"
#include "isa/soft.h"

#include <stdio.h>
#include <stdlib.h>

uint64_t cpu_rip(const struct cpu *cpu)
{
    return cpu->gpr[GPR_BLOCK_RIP] + cpu->op->offset;
}

uint64_t cpu_get_rflags(const struct cpu *cpu)
{
    return cpu->rflags | (cpu->cc & CC_OF ? RFLAGS_OF : 0) | (cpu->cc >> 8 & 0xd5);
}

void cpu_set_rflags(struct cpu *cpu, uint64_t rflags)
{
    cpu->rflags = rflags & ~(uint64_t)RFLAGS_ARITHMETIC;
    cpu->cc = (uint16_t)((rflags & 0xd5) << 8 | 0x200 | (rflags & RFLAGS_OF ? CC_OF : 0));
}

void cpu_raise(struct cpu *cpu, enum x86_vector vector)
{
    cpu->pending = (struct x86_pending){.exception = true, .vector = (uint8_t)vector};
    siglongjmp(cpu->unwind, 1);
}

void cpu_raise_code(struct cpu *cpu, enum x86_vector vector, uint32_t error_code)
{
    cpu->pending = (struct x86_pending){.exception = true,
                                        .vector = (uint8_t)vector,
                                        .has_error_code = true,
                                        .error_code = error_code};
    siglongjmp(cpu->unwind, 1);
}

void cpu_raise_page_fault(struct cpu *cpu, uint64_t linear, uint32_t error_code)
{
    cpu->cr2 = linear;
    cpu_raise_code(cpu, VECTOR_PF, error_code);
}

void cpu_update_mode(struct cpu *cpu) {}

static bool is_canonical(uint64_t linear)
{
    return (uint64_t)((int64_t)(linear << 16) >> 16) == linear;
}

/* The host address of a byte, or the fault. */
static uint8_t *byte_address(struct cpu *cpu, uint64_t linear, bool write)
{
    const struct tlb_entry *entry = tlb_slot(cpu, linear);
    uint64_t tag = linear & ~UINT64_C(0xfff);
    if ((write ? entry->write_tag : entry->read_tag) != tag)
        cpu_raise_page_fault(cpu, linear, 4 | (write ? 2 : 0) | (entry->read_tag == tag ? 1 : 0));
    return (uint8_t *)(linear + entry->addend);
}

/* An access that leaves the canonical range faults for that, whatever else it meets. */
static void check_canonical(struct cpu *cpu, uint64_t linear, unsigned size_bytes)
{
    if (!is_canonical(linear) || !is_canonical(linear + size_bytes - 1))
        cpu_raise_code(cpu, cpu->op->segment == SEG_SS ? VECTOR_SS : VECTOR_GP, 0);
}

void memory_read(struct cpu *cpu, uint64_t linear, void *buffer, unsigned size_bytes)
{
    check_canonical(cpu, linear, size_bytes);
    uint8_t *bytes = buffer;
    for (unsigned i = 0; i < size_bytes; i++)
        bytes[i] = *byte_address(cpu, linear + i, false);
}

void memory_probe_write(struct cpu *cpu, uint64_t linear, unsigned size_bytes)
{
    check_canonical(cpu, linear, size_bytes);
    for (unsigned i = 0; i < size_bytes; i++)
        byte_address(cpu, linear + i, true);
}

void memory_write(struct cpu *cpu, uint64_t linear, const void *buffer, unsigned size_bytes)
{
    memory_probe_write(cpu, linear, size_bytes);
    for (unsigned i = 0; i < size_bytes; i++)
        *byte_address(cpu, linear + i, true) = ((const uint8_t *)buffer)[i];
}

void memory_read_slow(struct cpu *cpu, uint64_t linear, void *buffer, unsigned size_bytes)
{
    memory_read(cpu, linear, buffer, size_bytes);
}

void memory_write_slow(struct cpu *cpu, uint64_t linear, const void *buffer, unsigned size_bytes)
{
    memory_write(cpu, linear, buffer, size_bytes);
}

uint64_t op_address_slow(struct cpu *cpu, const struct op *op, unsigned size_bytes,
                         enum memory_access access)
{
    uint64_t base = op->segment == SEG_FS || op->segment == SEG_GS || !cpu_is_64bit(cpu)
                        ? cpu->segment[op->segment].base
                        : 0;
    return base + op_effective(cpu, op);
}

void log_limited(const struct log *log, struct log_limit *limit, enum log_level level,
                 const char *module, const char *format, ...)
{
}

bool error_errno(struct error *err, const char *what, const char *where, int errno_value)
{
    return false;
}

bool error_hint(struct error *err, const char *hint, ...)
{
    return false;
}

static enum x86_segment_name segment_number(ZydisRegister segment)
{
    return segment == ZYDIS_REGISTER_FS   ? SEG_FS
           : segment == ZYDIS_REGISTER_GS ? SEG_GS
           : segment == ZYDIS_REGISTER_SS ? SEG_SS
                                          : SEG_DS;
}

static uint8_t slot_of(ZydisRegister reg)
{
    return reg == ZYDIS_REGISTER_NONE ? GPR_ZERO
           : reg == ZYDIS_REGISTER_RIP || reg == ZYDIS_REGISTER_EIP
               ? GPR_BLOCK_RIP
               : (uint8_t)(ZydisRegisterGetId(reg) & 15);
}

static void decode_memory(const ZydisDecodedInstruction *info, const ZydisDecodedOperand *operand,
                          struct op *op)
{
    op->base = slot_of(operand->mem.base);
    op->index = slot_of(operand->mem.index);
    op->scale = (uint8_t)__builtin_ctz(operand->mem.scale | 16);
    if (operand->mem.scale == 0)
        op->scale = 0;
    op->disp = operand->mem.disp.has_displacement ? operand->mem.disp.value : 0;
    if (info->raw.modrm.mod == 0 && info->raw.modrm.rm == 4 && info->raw.sib.base == 5) {
        op->base = GPR_ZERO; /* Zydis 4.0 takes it for R13D when REX.B is set */
        op->disp = info->raw.disp.value;
    }
    if (op->base == GPR_BLOCK_RIP)
        op->disp += info->length;
    op->segment = (uint8_t)segment_number(operand->mem.segment);
    if (info->address_width == 16)
        op->flags |= OP_ADDRESS_16;
    else if (info->address_width == 32)
        op->flags |= OP_ADDRESS_32;
    else if (op->segment != SEG_FS && op->segment != SEG_GS)
        op->flags |= OP_FLAT;
}

bool soft_decode(struct cpu *cpu, const uint8_t *bytes, unsigned length, struct op *op)
{
    ZydisDecoder decoder;
    ZydisDecodedInstruction info;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    switch (cpu->mode & (MODE_SIZE_MASK | MODE_REAL)) {
    case MODE_64:
        ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
        break;
    case MODE_32:
        ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
        break;
    case MODE_16:
        ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
        break;
    default: ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_REAL_16, ZYDIS_STACK_WIDTH_16); break;
    }
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, bytes, length, &info, operands)))
        return false;
    memset(op, 0, sizeof(*op));
    struct insn insn = {
        .info = &info, .operands = operands, .bytes = bytes, .mode = cpu->mode, .cpu = cpu};
    op->length = info.length;
    op->size_bytes = (uint8_t)(operands[0].size / 8);
    op->base = op->index = GPR_ZERO;
    for (unsigned i = 0; i < info.operand_count_visible; i++) {
        unsigned kind = KIND_IMM;
        if (operands[i].type == ZYDIS_OPERAND_TYPE_REGISTER) {
            kind = KIND_REG;
            int id = ZydisRegisterGetId(operands[i].reg.value);
            ZydisRegisterClass class = ZydisRegisterGetClass(operands[i].reg.value);
            bool is_gpr = class >= ZYDIS_REGCLASS_GPR8 && class <= ZYDIS_REGCLASS_GPR64;
            if (i < 3)
                op->reg[i] = (uint8_t)(is_gpr ? id * 8 : id);
        } else if (operands[i].type == ZYDIS_OPERAND_TYPE_MEMORY) {
            kind = KIND_MEM;
            decode_memory(&info, &operands[i], op);
        } else {
            op->imm = operands[i].imm.value.u;
        }
        if (i < 3)
            insn.form |= kind << (i * 2);
    }
    return bind_vector(&insn, op);
}
