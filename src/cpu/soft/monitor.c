/* SPDX-License-Identifier: BSD-2-Clause
 *
 * MONITOR and MWAIT: SDM 2B, 3A 8.10.2 to 8.10.4.
 *
 * A monitored line is marked as if it held decoded code, so that whoever writes it, processor or
 * device, comes by code_page.c and makes a new generation of its page. Code of that page which is
 * written does so, too: the manual allows false wake-ups.
 */
#include "cpu/soft/core.h"

#include "cpu/soft/tlb.h"

enum { MWAIT_MASKED_INTERRUPTS = 1 }; /* of ECX */

/* Not at level 3, so not in virtual-8086 mode either. */
static void require_offered(struct cpu *cpu)
{
    if (cpu->cpl != 0 || !cpuid_has_monitor(cpu))
        cpu_raise(cpu, VECTOR_UD);
}

/* ECX, or RCX in 64-bit mode. */
static uint64_t extensions(const struct cpu *cpu)
{
    return cpu_is_64bit(cpu) ? cpu->gpr[RCX] : (uint32_t)cpu->gpr[RCX];
}

static bool is_armed(const struct cpu *cpu)
{
    struct code_page *page = atomic_load(&cpu->monitor_page);
    return page && atomic_load(&page->generation) == cpu->monitor_generation;
}

/* A line that is no RAM is not monitored, and MWAIT does not wait for it. */
static void arm(struct cpu *cpu, uint64_t linear)
{
    const struct tlb_entry *entry = tlb_get(cpu, linear, ACCESS_READ, cpu->tlb_view);
    monitor_disarm(cpu);
    if (entry->tag & TLB_MMIO_TAG)
        return;
    uint8_t *hva = (uint8_t *)(linear + entry->addend);
    struct code_page *page = soft_page_of(cpu->system, hva);
    if (!page)
        return;
    unsigned offset = (uintptr_t)hva & (PAGE_BYTES - 1);
    unsigned line = offset & ~(unsigned)(MONITOR_LINE_BYTES - 1);
    cpu->monitor_generation = code_page_mark(cpu, page, hva - offset, line, MONITOR_LINE_BYTES);
    atomic_store(&cpu->monitor_page, page);
}

static void monitor(struct cpu *cpu, const struct op *op)
{
    require_offered(cpu);
    if (extensions(cpu) != 0)
        cpu_raise_code(cpu, VECTOR_GP, 0);
    uint64_t offset = op_effective(cpu, op);
    uint64_t linear = segment_address(cpu, op->segment, offset, 1, ACCESS_READ);
    uint8_t byte;
    memory_read(cpu, linear, &byte, 1);
    arm(cpu, linear);
    cpu->rip = op_next_rip(cpu, op);
}

/* EAX is a hint. */
static void mwait(struct cpu *cpu, const struct op *op)
{
    require_offered(cpu);
    uint64_t ecx = extensions(cpu);
    if (ecx & ~(uint64_t)MWAIT_MASKED_INTERRUPTS)
        cpu_raise_code(cpu, VECTOR_GP, 0);
    cpu->rip = op_next_rip(cpu, op);
    if (!is_armed(cpu)) {
        monitor_disarm(cpu);
        return;
    }
    cpu->is_in_mwait = true;
    cpu->wakes_masked = ecx & MWAIT_MASKED_INTERRUPTS;
    cpu->run_state = X86_HALTED;
    cpu_look(cpu);
}

bool monitor_wakes(const struct cpu *cpu, uint32_t requests)
{
    if (!cpu->is_in_mwait)
        return false;
    return !is_armed(cpu) || (cpu->wakes_masked && (requests & REQUEST_INTR));
}

void monitor_disarm(struct cpu *cpu)
{
    atomic_store(&cpu->monitor_page, NULL);
    cpu->is_in_mwait = false;
}

void monitor_tell(struct soft_system *system, const struct code_page *page)
{
    const struct soft_callbacks *callbacks = &system->callbacks;
    for (unsigned i = 0; i < system->cpu_count; i++) {
        struct cpu *cpu = system->cpu[i];
        if (cpu && atomic_load(&cpu->monitor_page) == page && callbacks->wake)
            callbacks->wake(callbacks->opaque, i);
    }
}

/* The decoder knows no memory operand of it: RAX, or what the address size leaves of it, in DS or
 * where the last prefix says. */
static uint8_t segment_of(const struct insn *insn)
{
    uint8_t segment = SEG_DS;
    bool is_64bit = (insn->mode & MODE_SIZE_MASK) == MODE_64;
    for (unsigned i = 0; i < insn->info->raw.prefix_count; i++) {
        switch (insn->info->raw.prefixes[i].value) {
        case 0x26: segment = SEG_ES; break;
        case 0x2e: segment = SEG_CS; break;
        case 0x36: segment = SEG_SS; break;
        case 0x3e: segment = SEG_DS; break;
        case 0x64: segment = SEG_FS; break;
        case 0x65: segment = SEG_GS; break;
        default: break;
        }
    }
    return is_64bit && segment < SEG_FS ? SEG_DS : segment;
}

bool bind_monitor(const struct insn *insn, struct op *op)
{
    if (insn->info->mnemonic != ZYDIS_MNEMONIC_MONITOR &&
        insn->info->mnemonic != ZYDIS_MNEMONIC_MWAIT)
        return false;
    op->fn = insn->info->mnemonic == ZYDIS_MNEMONIC_MONITOR ? monitor : mwait;
    op->base = RAX;
    op->segment = segment_of(insn);
    op->flags |= OP_ENDS_BLOCK;
    return true;
}
