/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Virtual-8086 mode: its segments, the way in and out by IRET, and INT n with the redirection
 * bitmap of CR4.VME. SDM 3A chapter 20. Interrupts out of it are interrupt.c's.
 */
#include "cpu/soft/core.h"

#include "cpu/soft/debug.h"

enum { ATTRIBUTES_V86 = 0xf3 }; /* present, DPL 3, data, writable, accessed: SDM 3A 20.2 */

void v86_set_segment(struct cpu *cpu, enum x86_segment_name name, uint16_t selector)
{
    cpu->segment[name] =
        (struct x86_segment){(uint64_t)selector << 4, UINT16_MAX, ATTRIBUTES_V86, selector};
}

static bool has_iopl3(const struct cpu *cpu)
{
    return (cpu->rflags & RFLAGS_IOPL) == RFLAGS_IOPL;
}

static _Noreturn void gp(struct cpu *cpu)
{
    cpu_raise_code(cpu, VECTOR_GP, 0);
}

/* --- by IRET -------------------------------------------------------------------------------- */

/* The frame at level 0: EIP, CS, EFLAGS, ESP, SS, ES, DS, FS, GS. */
void v86_enter(struct cpu *cpu)
{
    uint32_t frame[9];
    for (unsigned i = 0; i < 9; i++)
        frame[i] = (uint32_t)stack_peek(cpu, i, 4);
    if (frame[0] > UINT16_MAX)
        gp(cpu);
    cpu_unblock_nmi(cpu);
    cpu->cpl = 3;
    cpu->rip = frame[0];
    cpu->gpr[RSP] = frame[3];
    flags_load(cpu, frame[2], UINT32_C(0x3e7fd5)); /* all but RF, which debug_resume sets */
    v86_set_segment(cpu, SEG_CS, (uint16_t)frame[1]);
    v86_set_segment(cpu, SEG_SS, (uint16_t)frame[4]);
    v86_set_segment(cpu, SEG_ES, (uint16_t)frame[5]);
    v86_set_segment(cpu, SEG_DS, (uint16_t)frame[6]);
    v86_set_segment(cpu, SEG_FS, (uint16_t)frame[7]);
    v86_set_segment(cpu, SEG_GS, (uint16_t)frame[8]);
    cpu_update_mode(cpu);
    if (frame[2] & RFLAGS_RF)
        debug_resume(cpu);
}

uint64_t v86_popped_flags(struct cpu *cpu, uint64_t flags, uint64_t *mask, unsigned size_bytes)
{
    if (has_iopl3(cpu))
        return flags;
    bool is_virtual = (cpu->cr4 & CR4_VME) && size_bytes == 2;
    if (!is_virtual || (flags & RFLAGS_TF) || ((flags & RFLAGS_IF) && (cpu->rflags & RFLAGS_VIP)))
        gp(cpu);
    *mask = (*mask & ~(uint64_t)(RFLAGS_IF | RFLAGS_IOPL)) | RFLAGS_VIF;
    return (flags & ~(uint64_t)RFLAGS_VIF) | (flags & RFLAGS_IF ? RFLAGS_VIF : 0);
}

uint64_t v86_pushed_flags(struct cpu *cpu, uint64_t flags, unsigned size_bytes)
{
    if (has_iopl3(cpu))
        return flags;
    if (!(cpu->cr4 & CR4_VME) || size_bytes != 2)
        gp(cpu);
    flags = (flags & ~(uint64_t)RFLAGS_IF) | (flags & RFLAGS_VIF ? RFLAGS_IF : 0);
    return flags | RFLAGS_IOPL;
}

/* --- INT n ---------------------------------------------------------------------------------- */

/* The bit of the map below the I/O bitmap: set when the vector is the protected-mode handler's. */
static bool is_redirected(struct cpu *cpu, uint8_t vector)
{
    enum { TSS_IO_MAP = 102, MAP_BYTES = 32 };
    const struct x86_segment *task = &cpu->segment[SEG_TR];
    uint16_t io_map;
    uint8_t bits;
    if (!(task->attributes & TSS_IS_32BIT) || task->limit < TSS_IO_MAP + 1)
        gp(cpu);
    memory_read_system(cpu, (uint32_t)(task->base + TSS_IO_MAP), &io_map, 2);
    uint32_t at = (uint32_t)io_map - MAP_BYTES + vector / 8;
    if (at > task->limit)
        gp(cpu);
    memory_read_system(cpu, (uint32_t)(task->base + at), &bits, 1);
    return !(bits >> vector % 8 & 1);
}

/* To the 8086 program's own handler, as in real mode: SDM 3A 20.3.3, methods 5 and 6. */
static void deliver_8086(struct cpu *cpu, const struct op *op, uint8_t vector)
{
    uint16_t target[2];
    uint64_t flags = v86_pushed_flags(cpu, cpu_get_rflags(cpu), 2);
    uint64_t cleared = RFLAGS_TF | RFLAGS_RF | (has_iopl3(cpu) ? RFLAGS_IF : RFLAGS_VIF);
    memory_read_system(cpu, vector * 4u, target, 4);
    if (target[0] > cpu->segment[SEG_CS].limit)
        gp(cpu);
    uint64_t frame[3] = {flags, cpu->segment[SEG_CS].selector, op_next_rip(cpu, op)};
    stack_push_all(cpu, frame, 3, 2);
    v86_set_segment(cpu, SEG_CS, target[1]);
    cpu->rip = target[0];
    cpu->rflags &= ~cleared;
    cpu->traps = false; /* as after software() of interrupt.c */
    cpu_update_mode(cpu);
}

bool v86_int_n(struct cpu *cpu, const struct op *op, uint8_t vector)
{
    if ((cpu->cr4 & CR4_VME) && is_redirected(cpu, vector)) {
        deliver_8086(cpu, op, vector);
        return true;
    }
    if (!has_iopl3(cpu))
        gp(cpu);
    return false;
}
