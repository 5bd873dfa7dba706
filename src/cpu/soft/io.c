/* SPDX-License-Identifier: BSD-2-Clause
 *
 * IN OUT INS OUTS: SDM 2A/2B, 1 chapter 19; privilege by IOPL or the bitmap of the TSS. The string
 * forms go element by element and give way to interrupts between them.
 */
#include "cpu/soft/core.h"

#include "cpu/soft/debug.h"

enum { REPEAT_LIMIT = 4096 };

static void check_bitmap(struct cpu *cpu, uint16_t port, unsigned size_bytes)
{
    enum { TSS_IO_MAP = 102 };
    const struct x86_segment *task = &cpu->segment[SEG_TR];
    bool is_32bit = task->attributes & 8;
    uint16_t offset, bits;
    if (!is_32bit || task->limit < TSS_IO_MAP + 1)
        cpu_raise_code(cpu, VECTOR_GP, 0);
    memory_read_system(cpu, task->base + TSS_IO_MAP, &offset, 2);
    uint32_t at = offset + port / 8u;
    if (at + 1 > task->limit)
        cpu_raise_code(cpu, VECTOR_GP, 0);
    memory_read_system(cpu, task->base + at, &bits, 2);
    if (bits >> port % 8 & ((1u << size_bytes) - 1))
        cpu_raise_code(cpu, VECTOR_GP, 0);
}

static void check_privilege(struct cpu *cpu, uint16_t port, unsigned size_bytes)
{
    if (!(cpu->cr0 & CR0_PE))
        return;
    unsigned iopl = (cpu->rflags & RFLAGS_IOPL) >> 12;
    if (cpu->cpl > iopl || (cpu->rflags & RFLAGS_VM))
        check_bitmap(cpu, port, size_bytes);
}

static uint64_t port_read(struct cpu *cpu, uint16_t port, unsigned size_bytes)
{
    cpu->stats.pio++;
    return cpu->system->callbacks.port_read(cpu->system->callbacks.opaque, port, size_bytes);
}

static void port_write(struct cpu *cpu, uint16_t port, uint64_t value, unsigned size_bytes)
{
    uint64_t mask = size_bytes == 4 ? UINT32_MAX : (1u << 8 * size_bytes) - 1;
    cpu->stats.pio++;
    cpu->system->callbacks.port_write(cpu->system->callbacks.opaque, port, value & mask,
                                      size_bytes);
    memory_settle(cpu);
}

static void in(struct cpu *cpu, uint16_t port, unsigned size_bytes)
{
    check_privilege(cpu, port, size_bytes);
    debug_port(cpu, port, size_bytes);
    register_write(cpu, RAX * 8, port_read(cpu, port, size_bytes), size_bytes);
}

static void out(struct cpu *cpu, uint16_t port, unsigned size_bytes)
{
    check_privilege(cpu, port, size_bytes);
    debug_port(cpu, port, size_bytes);
    port_write(cpu, port, cpu->gpr[RAX], size_bytes);
}

static void in_imm(struct cpu *cpu, const struct op *op)
{
    in(cpu, (uint8_t)op->imm, op->size_bytes);
}
static void in_dx(struct cpu *cpu, const struct op *op)
{
    in(cpu, (uint16_t)cpu->gpr[RDX], op->size_bytes);
}
static void out_imm(struct cpu *cpu, const struct op *op)
{
    out(cpu, (uint8_t)op->imm, op->size_bytes);
}
static void out_dx(struct cpu *cpu, const struct op *op)
{
    out(cpu, (uint16_t)cpu->gpr[RDX], op->size_bytes);
}

/* --- strings -------------------------------------------------------------------------------- */

static uint64_t address_mask(const struct op *op)
{
    if (op->flags & OP_ADDRESS_16)
        return UINT16_MAX;
    return op->flags & OP_ADDRESS_32 ? UINT32_MAX : UINT64_MAX;
}

static void set_register(struct cpu *cpu, enum x86_gpr reg, uint64_t value, uint64_t mask)
{
    uint64_t keep = mask == UINT16_MAX ? ~mask : 0;
    cpu->gpr[reg] = (cpu->gpr[reg] & keep) | (value & mask);
}

static void advance(struct cpu *cpu, const struct op *op, enum x86_gpr reg)
{
    uint64_t step = op->size_bytes;
    if (cpu->rflags & RFLAGS_DF)
        step = -step;
    set_register(cpu, reg, cpu->gpr[reg] + step, address_mask(op));
}

static void ins_one(struct cpu *cpu, const struct op *op)
{
    uint16_t port = (uint16_t)cpu->gpr[RDX];
    check_privilege(cpu, port, op->size_bytes);
    uint64_t linear = segment_address(cpu, SEG_ES, cpu->gpr[RDI] & address_mask(op), op->size_bytes,
                                      ACCESS_WRITE);
    memory_probe_write(cpu, linear, op->size_bytes);
    debug_port(cpu, port, op->size_bytes);
    uint64_t value = port_read(cpu, port, op->size_bytes);
    memory_write(cpu, linear, &value, op->size_bytes);
    advance(cpu, op, RDI);
}

static void outs_one(struct cpu *cpu, const struct op *op)
{
    uint16_t port = (uint16_t)cpu->gpr[RDX];
    check_privilege(cpu, port, op->size_bytes);
    uint64_t linear = segment_address(cpu, op->segment, cpu->gpr[RSI] & address_mask(op),
                                      op->size_bytes, ACCESS_READ);
    uint64_t value = 0;
    memory_read(cpu, linear, &value, op->size_bytes);
    debug_port(cpu, port, op->size_bytes);
    port_write(cpu, port, value, op->size_bytes);
    advance(cpu, op, RSI);
}

/* Ends with RIP on itself when it gives way. */
static void repeat(struct cpu *cpu, const struct op *op, op_fn *one)
{
    uint64_t mask = address_mask(op);
    for (unsigned i = 0; cpu->gpr[RCX] & mask; i++) {
        bool is_due = atomic_load_explicit(&cpu->requests, memory_order_relaxed) != 0;
        if (i == REPEAT_LIMIT || (i > 0 && (is_due || cpu->repeats_once))) {
            cpu_repeat_later(cpu);
            return;
        }
        one(cpu, op);
        set_register(cpu, RCX, cpu->gpr[RCX] - 1, mask);
    }
    cpu->rip = op_next_rip(cpu, op);
}

static void rep_ins(struct cpu *cpu, const struct op *op)
{
    repeat(cpu, op, ins_one);
}
static void rep_outs(struct cpu *cpu, const struct op *op)
{
    repeat(cpu, op, outs_one);
}

static bool bind_string(const struct insn *insn, struct op *op, bool is_ins)
{
    bool is_repeated = op->flags & (OP_REP | OP_REPNE);
    op->size_bytes = (uint8_t)(insn->info->operand_width / 8);
    switch (insn->info->mnemonic) {
    case ZYDIS_MNEMONIC_INSB:
    case ZYDIS_MNEMONIC_OUTSB: op->size_bytes = 1; break;
    case ZYDIS_MNEMONIC_INSW:
    case ZYDIS_MNEMONIC_OUTSW: op->size_bytes = 2; break;
    default: op->size_bytes = 4;
    }
    if (is_repeated) {
        op->fn = is_ins ? rep_ins : rep_outs;
        op->flags |= OP_ENDS_BLOCK;
    } else {
        op->fn = is_ins ? ins_one : outs_one;
    }
    return true;
}

bool bind_io(const struct insn *insn, struct op *op)
{
    switch (insn->info->mnemonic) {
    case ZYDIS_MNEMONIC_IN:
        op->fn = insn->form == FORM_RI ? in_imm : in_dx;
        op->size_bytes = (uint8_t)(insn->operands[0].size / 8);
        return true;
    case ZYDIS_MNEMONIC_OUT:
        op->fn = insn->form == FORM_IR ? out_imm : out_dx;
        op->size_bytes = (uint8_t)(insn->operands[1].size / 8);
        op->flags |= OP_ENDS_BLOCK;
        return true;
    case ZYDIS_MNEMONIC_INSB:
    case ZYDIS_MNEMONIC_INSW:
    case ZYDIS_MNEMONIC_INSD: return bind_string(insn, op, true);
    case ZYDIS_MNEMONIC_OUTSB:
    case ZYDIS_MNEMONIC_OUTSW:
    case ZYDIS_MNEMONIC_OUTSD: return bind_string(insn, op, false);
    default: return false;
    }
}
