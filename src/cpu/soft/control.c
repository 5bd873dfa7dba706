/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Control and debug registers, descriptor table registers, TLB invalidation and HLT: SDM 3A 2.5,
 * 4.10, 3B 17.2. What breakpoints do is in debug.c.
 */
#include "cpu/soft/core.h"

#include "cpu/soft/debug.h"
#include "cpu/soft/tlb.h"

#define CR0_KNOWN                                                                                  \
    (CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD |     \
     CR0_PG)

static void gp(struct cpu *cpu)
{
    cpu_raise_code(cpu, VECTOR_GP, 0);
}

static uint16_t current_pcid(const struct cpu *cpu)
{
    return cpu->cr4 & CR4_PCIDE ? cpu->cr3 & 0xfff : 0;
}

static void flush_all(struct cpu *cpu)
{
    tlb_flush_all(cpu);
    tlb_switch(cpu, current_pcid(cpu), false);
}

/* PG goes from 0 to 1 with EFER.LME set. */
static void begin_long_mode(struct cpu *cpu)
{
    bool is_task_16bit =
        (cpu->segment[SEG_TR].attributes & (SEGMENT_S | SEGMENT_TYPE)) == TYPE_TSS16_BUSY;
    if (!(cpu->cr4 & CR4_PAE) || (cpu->segment[SEG_CS].attributes & SEGMENT_L) || is_task_16bit)
        gp(cpu);
    cpu->efer |= EFER_LMA;
}

static void write_cr0(struct cpu *cpu, uint64_t value)
{
    uint64_t changed = (value ^ cpu->cr0) & CR0_KNOWN;
    bool is_unsound = ((value & CR0_PG) && !(value & CR0_PE)) ||
                      ((value & CR0_NW) && !(value & CR0_CD)) || value >> 32;
    if (is_unsound)
        gp(cpu);
    if ((changed & CR0_PG) && (value & CR0_PG) && (cpu->efer & EFER_LME))
        begin_long_mode(cpu);
    /* SDM 3A 4.4.1. */
    bool loads_pdptes = (value & CR0_PG) && (changed & (CR0_PG | CR0_CD | CR0_NW)) &&
                        (cpu->cr4 & CR4_PAE) && !is_long_mode(cpu);
    if (loads_pdptes && !paging_load_pdptes(cpu, cpu->cr3))
        gp(cpu);
    if ((changed & CR0_PG) && !(value & CR0_PG)) {
        if (cpu_is_64bit(cpu) || (cpu->cr4 & CR4_PCIDE))
            gp(cpu);
        cpu->efer &= ~EFER_LMA;
    }
    cpu->cr0 = (value & CR0_KNOWN) | CR0_ET;
    cpu->x87_ready = false;
    if (changed & (CR0_PG | CR0_WP | CR0_PE))
        flush_all(cpu);
    cpu_update_mode(cpu);
}

void control_write_cr3(struct cpu *cpu, uint64_t value)
{
    bool keep = false;
    if (cpu->cr4 & CR4_PCIDE) {
        keep = value >> 63;
        value &= ~(UINT64_C(1) << 63);
    }
    if (is_long_mode(cpu) && value >> cpu->system->features.physical_bits)
        gp(cpu);
    bool is_pae = (cpu->cr0 & CR0_PG) && (cpu->cr4 & CR4_PAE) && !is_long_mode(cpu);
    if (is_pae && !paging_load_pdptes(cpu, value))
        gp(cpu);
    cpu->cr3 = value;
    tlb_switch(cpu, current_pcid(cpu), keep);
}

static void write_cr4(struct cpu *cpu, uint64_t value)
{
    uint64_t changed = value ^ cpu->cr4;
    if (value & ~cpuid_cr4_allowed(cpu))
        gp(cpu);
    if (is_long_mode(cpu) && !(value & CR4_PAE))
        gp(cpu);
    if ((changed & value & CR4_PCIDE) && (!is_long_mode(cpu) || (cpu->cr3 & 0xfff)))
        gp(cpu);
    bool is_pae = (cpu->cr0 & CR0_PG) && (value & CR4_PAE) && !is_long_mode(cpu);
    if (is_pae && (changed & (CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP)) &&
        !paging_load_pdptes(cpu, cpu->cr3))
        gp(cpu);
    cpu->cr4 = value;
    if (changed & (CR4_PGE | CR4_PSE | CR4_PAE | CR4_SMEP | CR4_PCIDE | CR4_PKE))
        flush_all(cpu);
    if (changed & CR4_DE)
        debug_update(cpu);
    cpu_update_mode(cpu);
}

static void write_cr8(struct cpu *cpu, uint64_t value)
{
    if (value & ~UINT64_C(0xf))
        gp(cpu);
    cpu->system->callbacks.write_cr8(cpu->system->callbacks.opaque, cpu->index, value);
}

static void mov_to_cr(struct cpu *cpu, const struct op *op)
{
    require_cpl0(cpu);
    uint64_t value = *op_reg64(cpu, op->reg[1]);
    if (!cpu_is_64bit(cpu))
        value = (uint32_t)value;
    switch (op->reg[0]) {
    case 0: write_cr0(cpu, value); break;
    case 2: cpu->cr2 = value; break;
    case 3: control_write_cr3(cpu, value); break;
    case 4: write_cr4(cpu, value); break;
    case 8: write_cr8(cpu, value); break;
    default: cpu_raise(cpu, VECTOR_UD);
    }
    cpu->rip = op_next_rip(cpu, op);
}

static void mov_from_cr(struct cpu *cpu, const struct op *op)
{
    const struct soft_callbacks *callbacks = &cpu->system->callbacks;
    uint64_t value = 0;
    require_cpl0(cpu);
    switch (op->reg[1]) {
    case 0: value = cpu->cr0; break;
    case 2: value = cpu->cr2; break;
    case 3: value = cpu->cr3; break;
    case 4: value = cpu->cr4; break;
    case 8: value = callbacks->read_cr8(callbacks->opaque, cpu->index); break;
    default: cpu_raise(cpu, VECTOR_UD);
    }
    *op_reg64(cpu, op->reg[0]) = cpu_is_64bit(cpu) ? value : (uint32_t)value;
}

/* DR4 and DR5 are names of DR6 and DR7 unless CR4.DE. General detect is a fault (SDM 3B 17.3.1.3),
 * so the handler's frame has RF set. */
static unsigned debug_register(struct cpu *cpu, unsigned n)
{
    require_cpl0(cpu);
    if (n == 4 || n == 5) {
        if (cpu->cr4 & CR4_DE)
            cpu_raise(cpu, VECTOR_UD);
        n += 2;
    }
    if (n > 7)
        cpu_raise(cpu, VECTOR_UD);
    if (cpu->dr[7] & DR7_GD) {
        debug_set_status(cpu, DR6_BD);
        cpu->rflags |= RFLAGS_RF;
        cpu_raise(cpu, VECTOR_DB);
    }
    return n;
}

static void mov_to_dr(struct cpu *cpu, const struct op *op)
{
    unsigned n = debug_register(cpu, op->reg[0]);
    uint64_t value = *op_reg64(cpu, op->reg[1]);
    if (!cpu_is_64bit(cpu))
        value = (uint32_t)value;
    if (n >= 6 && value >> 32)
        gp(cpu);
    if (n == 6)
        value = (value & DR6_WRITABLE) | DR6_FIXED;
    if (n == 7)
        value = (value & DR7_WRITABLE) | DR7_FIXED;
    cpu->dr[n] = value;
    if (n != 6)
        debug_update(cpu);
    cpu->rip = op_next_rip(cpu, op);
}

static void mov_from_dr(struct cpu *cpu, const struct op *op)
{
    unsigned n = debug_register(cpu, op->reg[1]);
    *op_reg64(cpu, op->reg[0]) = cpu_is_64bit(cpu) ? cpu->dr[n] : (uint32_t)cpu->dr[n];
}

static void clts(struct cpu *cpu, const struct op *op)
{
    require_cpl0(cpu);
    cpu->cr0 &= ~CR0_TS;
}

static void lmsw(struct cpu *cpu, const struct op *op)
{
    require_cpl0(cpu);
    uint64_t value = operand_read(cpu, op, 0, 2) & 0xf;
    value |= cpu->cr0 & CR0_PE; /* can't be cleared by it */
    write_cr0(cpu, (cpu->cr0 & ~UINT64_C(0xf)) | value);
    cpu->rip = op_next_rip(cpu, op);
}

static void require_umip(struct cpu *cpu)
{
    if ((cpu->cr4 & CR4_UMIP) && cpu->cpl != 0)
        gp(cpu);
}

static void smsw(struct cpu *cpu, const struct op *op)
{
    require_umip(cpu);
    operand_write(cpu, op, cpu->cr0, op->flags & OP_IN_MEMORY ? 2 : op->size_bytes);
}

/* --- GDTR and IDTR -------------------------------------------------------------------------- */

static void load_table(struct cpu *cpu, const struct op *op, struct x86_table *table)
{
    uint8_t bytes[10] = {0};
    unsigned size_bytes = cpu_is_64bit(cpu) ? 10 : 6;
    require_cpl0(cpu);
    memory_read(cpu, op_address(cpu, op, size_bytes, ACCESS_READ), bytes, size_bytes);
    uint64_t base = 0;
    memcpy(&base, bytes + 2, size_bytes - 2);
    if (!is_canonical(base))
        gp(cpu);
    memcpy(&table->limit, bytes, 2);
    bool is_16bit = size_bytes == 6 && op->size_bytes == 2;
    table->base = is_16bit ? base & 0xffffff : base;
}

static void store_table(struct cpu *cpu, const struct op *op, const struct x86_table *table)
{
    uint8_t bytes[10];
    unsigned size_bytes = cpu_is_64bit(cpu) ? 10 : 6;
    require_umip(cpu);
    memcpy(bytes, &table->limit, 2);
    memcpy(bytes + 2, &table->base, 8);
    memory_write(cpu, op_address(cpu, op, size_bytes, ACCESS_WRITE), bytes, size_bytes);
}

static void lgdt(struct cpu *cpu, const struct op *op)
{
    load_table(cpu, op, &cpu->gdtr);
}
static void lidt(struct cpu *cpu, const struct op *op)
{
    load_table(cpu, op, &cpu->idtr);
}
static void sgdt(struct cpu *cpu, const struct op *op)
{
    store_table(cpu, op, &cpu->gdtr);
}
static void sidt(struct cpu *cpu, const struct op *op)
{
    store_table(cpu, op, &cpu->idtr);
}

/* --- TLB and HLT ---------------------------------------------------------------------------- */

static void invlpg(struct cpu *cpu, const struct op *op)
{
    require_cpl0(cpu);
    uint64_t linear = op_effective(cpu, op);
    if (!cpu_is_64bit(cpu))
        linear = (uint32_t)(linear + cpu->segment[op->segment].base);
    else if (op->segment >= SEG_FS)
        linear += cpu->segment[op->segment].base;
    if (is_canonical(linear))
        tlb_flush_page(cpu, linear);
    cpu->rip = op_next_rip(cpu, op);
}

enum { INVPCID_ADDRESS, INVPCID_CONTEXT, INVPCID_ALL_GLOBAL, INVPCID_ALL };

static void invpcid(struct cpu *cpu, const struct op *op)
{
    uint64_t descriptor[2];
    require_cpl0(cpu);
    uint64_t type =
        cpu_is_64bit(cpu) ? *op_reg64(cpu, op->reg[0]) : (uint32_t)*op_reg64(cpu, op->reg[0]);
    memory_read(cpu, op_address(cpu, op, 16, ACCESS_READ), descriptor, 16);
    uint16_t pcid = descriptor[0] & 0xfff;
    bool names_pcid = type == INVPCID_ADDRESS || type == INVPCID_CONTEXT;
    if (type > INVPCID_ALL || descriptor[0] >> 12 ||
        (names_pcid && pcid != 0 && !(cpu->cr4 & CR4_PCIDE)) ||
        (type == INVPCID_ADDRESS && !is_canonical(descriptor[1])))
        gp(cpu);
    if (type == INVPCID_ADDRESS)
        tlb_flush_page_pcid(cpu, descriptor[1], pcid);
    else if (type == INVPCID_CONTEXT)
        tlb_flush_pcid(cpu, pcid);
    else
        flush_all(cpu);
    cpu->rip = op_next_rip(cpu, op);
}

static void hlt(struct cpu *cpu, const struct op *op)
{
    require_cpl0(cpu);
    monitor_disarm(cpu);
    cpu->run_state = X86_HALTED;
    cpu->rip = op_next_rip(cpu, op);
    cpu_look(cpu);
}

/* --- binding -------------------------------------------------------------------------------- */

/* MOV between a general register and CRn or DRn. */
static bool bind_mov(const struct insn *insn, struct op *op)
{
    if (insn->form != FORM_RR)
        return false;
    ZydisRegisterClass to = ZydisRegisterGetClass(insn->operands[0].reg.value);
    ZydisRegisterClass from = ZydisRegisterGetClass(insn->operands[1].reg.value);
    if (to == ZYDIS_REGCLASS_CONTROL) {
        op->fn = mov_to_cr;
        op->flags |= OP_ENDS_BLOCK;
    } else if (from == ZYDIS_REGCLASS_CONTROL) {
        op->fn = mov_from_cr;
    } else if (to == ZYDIS_REGCLASS_DEBUG) {
        op->fn = mov_to_dr;
        op->flags |= OP_ENDS_BLOCK;
    } else if (from == ZYDIS_REGCLASS_DEBUG) {
        op->fn = mov_from_dr;
    } else {
        return false;
    }
    return true;
}

static op_fn *plain_fn(ZydisMnemonic mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_CLTS: return clts;
    case ZYDIS_MNEMONIC_LMSW: return lmsw;
    case ZYDIS_MNEMONIC_SMSW: return smsw;
    case ZYDIS_MNEMONIC_LGDT: return lgdt;
    case ZYDIS_MNEMONIC_LIDT: return lidt;
    case ZYDIS_MNEMONIC_SGDT: return sgdt;
    case ZYDIS_MNEMONIC_SIDT: return sidt;
    case ZYDIS_MNEMONIC_INVLPG: return invlpg;
    case ZYDIS_MNEMONIC_INVPCID: return invpcid;
    case ZYDIS_MNEMONIC_HLT: return hlt;
    default: return NULL;
    }
}

bool bind_control(const struct insn *insn, struct op *op)
{
    if (insn->info->mnemonic == ZYDIS_MNEMONIC_MOV)
        return bind_mov(insn, op);
    op->fn = plain_fn(insn->info->mnemonic);
    if (!op->fn)
        return false;
    op->size_bytes = (uint8_t)(insn->info->operand_width / 8);
    if (insn->operands[0].type == ZYDIS_OPERAND_TYPE_MEMORY)
        op->flags |= OP_IN_MEMORY;
    if (op->fn == lmsw || op->fn == invlpg || op->fn == invpcid || op->fn == hlt)
        op->flags |= OP_ENDS_BLOCK;
    return true;
}
