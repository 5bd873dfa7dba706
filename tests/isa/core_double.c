/* SPDX-License-Identifier: BSD-2-Clause
 * The parts of the processor's core that handlers call, for tests of handlers alone: 64-bit mode,
 * no paging beyond a TLB that the test fills. */
#include "cpu/soft/block.h"
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

void cpu_set_pkru(struct cpu *cpu, uint32_t pkru)
{
    cpu->pkru = pkru;
}

/* The host address of a byte, or the fault. */
static uint8_t *byte_address(struct cpu *cpu, uint64_t linear, bool write)
{
    unsigned i = tlb_index(linear);
    const struct tlb_entry *read = &cpu->tlb->read[i];
    const struct tlb_entry *entry = write ? &cpu->tlb->write[i] : read;
    uint64_t tag = linear & ~UINT64_C(0xfff);
    if (entry->tag != tag)
        cpu_raise_page_fault(cpu, linear, 4 | (write ? 2 : 0) | (read->tag == tag ? 1 : 0));
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

uint64_t segment_address(struct cpu *cpu, enum x86_segment_name segment, uint64_t offset,
                         unsigned size_bytes, enum memory_access access)
{
    return (segment >= SEG_FS || !cpu_is_64bit(cpu) ? cpu->segment[segment].base : 0) + offset;
}

bool bind_system(const struct insn *insn, struct op *op)
{
    return false;
}

bool bind_integer(const struct insn *insn, struct op *op)
{
    return false;
}

bool soft_decode(struct cpu *cpu, const uint8_t *bytes, unsigned length, struct op *op)
{
    unsigned size_bytes;
    return decode_block(cpu, bytes, length, op, 1, &size_bytes) == 1 && op->fn != op_undefined;
}
