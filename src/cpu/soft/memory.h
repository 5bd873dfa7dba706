/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Guest memory as an instruction sees it. Every function takes a linear address and either
 * succeeds or raises the guest's fault (it does not return then). Private to cpu/soft.
 *
 * Fast paths are inline and need one TLB compare; the tag also fails when the access runs into the
 * next page. Host and guest byte order are the same.
 */
#ifndef SKEP_CPU_SOFT_MEMORY_H
#define SKEP_CPU_SOFT_MEMORY_H

#include "cpu/soft/cpu.h"
#include "cpu/soft/op.h"

#include <string.h>

enum memory_access { ACCESS_READ, ACCESS_WRITE, ACCESS_EXECUTE };

/* Everything that the fast path below does not take: walks the tables, fills the TLB, reaches MMIO,
 * splits at page ends, sees writes to code. For data at cpu's own privilege. */
void memory_read_slow(struct cpu *cpu, uint64_t linear, void *buffer, unsigned size_bytes);
void memory_write_slow(struct cpu *cpu, uint64_t linear, const void *buffer, unsigned size_bytes);

/* Faults, as a write would, at any byte of the range; changes no memory (A and D bits may be set).
 * For stores that must not fail after other effects. */
void memory_probe_write(struct cpu *cpu, uint64_t linear, unsigned size_bytes);

/* Any size, any alignment; faults at the lowest bad byte, before anything was written. */
void memory_read(struct cpu *cpu, uint64_t linear, void *buffer, unsigned size_bytes);
void memory_write(struct cpu *cpu, uint64_t linear, const void *buffer, unsigned size_bytes);

/* The implicit supervisor accesses to descriptor tables, TSS and interrupt stacks (SDM 3A 4.6). */
void memory_read_system(struct cpu *cpu, uint64_t linear, void *buffer, unsigned size_bytes);
void memory_write_system(struct cpu *cpu, uint64_t linear, const void *buffer, unsigned size_bytes);

static inline unsigned tlb_index(uint64_t linear)
{
    return (linear >> 12) & (TLB_ENTRIES - 1);
}

/* The host address when [linear, linear + size) is plain RAM on one page that the TLB knows; NULL
 * otherwise, and then the caller uses memory_read or memory_write. Never faults. */
static inline const uint8_t *memory_hit_read(struct cpu *cpu, uint64_t linear, unsigned size_bytes)
{
    const struct tlb_entry *entry = &cpu->tlb->read[tlb_index(linear)];
    if (__builtin_expect(entry->tag == ((linear + size_bytes - 1) & ~UINT64_C(0xfff)), 1))
        return (const uint8_t *)(linear + entry->addend);
    return NULL;
}

static inline uint8_t *memory_hit_write(struct cpu *cpu, uint64_t linear, unsigned size_bytes)
{
    const struct tlb_entry *entry = &cpu->tlb->write[tlb_index(linear)];
    if (__builtin_expect(entry->tag == ((linear + size_bytes - 1) & ~UINT64_C(0xfff)), 1))
        return (uint8_t *)(linear + entry->addend);
    return NULL;
}

#define MEMORY_ACCESSORS(bits)                                                                     \
    static inline uint##bits##_t memory_read##bits(struct cpu *cpu, uint64_t linear)               \
    {                                                                                              \
        uint##bits##_t value;                                                                      \
        const uint8_t *hva = memory_hit_read(cpu, linear, bits / 8);                               \
        if (__builtin_expect(hva != NULL, 1))                                                      \
            memcpy(&value, hva, sizeof(value));                                                    \
        else                                                                                       \
            memory_read_slow(cpu, linear, &value, sizeof(value));                                  \
        return value;                                                                              \
    }                                                                                              \
    static inline void memory_write##bits(struct cpu *cpu, uint64_t linear, uint##bits##_t value)  \
    {                                                                                              \
        uint8_t *hva = memory_hit_write(cpu, linear, bits / 8);                                    \
        if (__builtin_expect(hva != NULL, 1))                                                      \
            memcpy(hva, &value, sizeof(value));                                                    \
        else                                                                                       \
            memory_write_slow(cpu, linear, &value, sizeof(value));                                 \
    }
MEMORY_ACCESSORS(8)
MEMORY_ACCESSORS(16)
MEMORY_ACCESSORS(32)
MEMORY_ACCESSORS(64)
#undef MEMORY_ACCESSORS

/* Read-modify-write. begin faults as a write does and gives a host address at which the operand
 * stands: guest memory itself (then a locked host instruction on it is atomic against all vCPUs and
 * devices), or cpu->bounce for MMIO and page-crossing operands (then begin has taken the system's
 * split lock if `locked`). end writes a bounced operand back and releases. Between them the handler
 * must not raise. */
void *memory_rmw_begin_slow(struct cpu *cpu, uint64_t linear, unsigned size_bytes, bool locked);
void memory_rmw_end_slow(struct cpu *cpu, uint64_t linear, unsigned size_bytes, bool locked,
                         void *hva);

static inline void *memory_rmw_begin(struct cpu *cpu, uint64_t linear, unsigned size_bytes,
                                     bool locked)
{
    uint8_t *hva = memory_hit_write(cpu, linear, size_bytes);
    return __builtin_expect(hva != NULL, 1)
               ? hva
               : memory_rmw_begin_slow(cpu, linear, size_bytes, locked);
}

/* `fast`: what memory_hit_write would say again; so pass the pointer that begin gave. */
static inline void memory_rmw_end(struct cpu *cpu, uint64_t linear, unsigned size_bytes,
                                  bool locked, void *hva)
{
    if (__builtin_expect(memory_hit_write(cpu, linear, size_bytes) != hva, 0))
        memory_rmw_end_slow(cpu, linear, size_bytes, locked, hva);
}

/* The linear address of op's memory operand, for an access of size_bytes: effective address,
 * address size, segment base, and outside 64-bit mode segment type and limit (#GP or #SS). */
uint64_t op_address_slow(struct cpu *cpu, const struct op *op, unsigned size_bytes,
                         enum memory_access access);

/* The effective address alone (LEA), cut to the address size. */
static inline uint64_t op_effective(const struct cpu *cpu, const struct op *op)
{
    uint64_t ea = cpu->gpr[op->base] + (cpu->gpr[op->index] << op->scale) + (uint64_t)op->disp;
    if (__builtin_expect(op->flags & (OP_ADDRESS_32 | OP_ADDRESS_16), 0))
        ea &= op->flags & OP_ADDRESS_32 ? UINT64_C(0xffffffff) : UINT64_C(0xffff);
    return ea;
}

static inline uint64_t op_address(struct cpu *cpu, const struct op *op, unsigned size_bytes,
                                  enum memory_access access)
{
    if (__builtin_expect(op->flags & OP_FLAT, 1))
        return cpu->gpr[op->base] + (cpu->gpr[op->index] << op->scale) + (uint64_t)op->disp;
    return op_address_slow(cpu, op, size_bytes, access);
}

/* A linear address in a segment at a given offset, for string and stack instructions, far pointers;
 * checks as op_address does. */
uint64_t segment_address(struct cpu *cpu, enum x86_segment_name segment, uint64_t offset,
                         unsigned size_bytes, enum memory_access access);

/* The stack: pushes and pops of 2, 4 or 8 bytes with the stack's own address size. pop does not
 * move RSP when it faults, push neither. */
void stack_push(struct cpu *cpu, uint64_t value, unsigned size_bytes);
uint64_t stack_pop(struct cpu *cpu, unsigned size_bytes);

/* The same for 64-bit mode, with the fast path inline; read64 leaves RSP alone. */
static inline void stack_push64(struct cpu *cpu, uint64_t value)
{
    uint8_t *hva = memory_hit_write(cpu, cpu->gpr[RSP] - 8, 8);
    if (__builtin_expect(hva == NULL, 0)) {
        stack_push(cpu, value, 8);
        return;
    }
    memcpy(hva, &value, sizeof(value));
    cpu->gpr[RSP] -= 8;
}

static inline uint64_t stack_read64(struct cpu *cpu, uint64_t address)
{
    uint64_t value;
    const uint8_t *hva = memory_hit_read(cpu, address, 8);
    if (__builtin_expect(hva != NULL, 1))
        memcpy(&value, hva, sizeof(value));
    else
        memory_read(cpu, segment_address(cpu, SEG_SS, address, 8, ACCESS_READ), &value, 8);
    return value;
}

#endif
