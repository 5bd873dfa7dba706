/* SPDX-License-Identifier: BSD-2-Clause
 * An instruction in the software processor, without paging: the TLB is filled by hand with the
 * scratch pages, and what misses it is a page fault. See native.h. */
#include "isa/soft.h"
#include "cpu/soft/cpu.h"
#include "cpu/soft/memory.h"
#include "cpu/soft/op.h"
#include "cpu/soft/vector/vector.h"
#include "isa/native.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct soft_runner {
    struct cpu *cpu;
    struct soft_system system;
    uint8_t *shadow;
    struct tlb_tables tlb;
};

static void fill_tlb(struct soft_runner *runner, uint64_t linear, uint8_t *hva, bool writable)
{
    unsigned i = tlb_index(linear);
    runner->tlb.read[i] = (struct tlb_entry){linear, (uintptr_t)hva - linear};
    if (writable)
        runner->tlb.write[i] = runner->tlb.read[i];
}

static void reset_tlb(struct soft_runner *runner)
{
    for (unsigned i = 0; i < TLB_ENTRIES; i++)
        runner->tlb.read[i].tag = runner->tlb.write[i].tag = TLB_INVALID_TAG;
    for (unsigned at = 0; at < ISA_SCRATCH_BYTES; at += ISA_PAGE)
        fill_tlb(runner, ISA_SCRATCH + at, runner->shadow + at, at < ISA_WRITABLE_BYTES);
}

struct soft_runner *soft_runner_open(uint8_t *shadow)
{
    struct soft_runner *runner = calloc(1, sizeof(*runner));
    struct cpu *cpu = aligned_alloc(64, (sizeof(struct cpu) + 63) & ~(size_t)63);
    assert(runner != NULL && cpu != NULL);
    memset(cpu, 0, sizeof(*cpu));
    runner->shadow = shadow;
    runner->cpu = cpu;
    cpu->system = &runner->system;
    cpu->tlb = &runner->tlb;
    cpu->mode = MODE_64 | MODE_USER;
    cpu->cpl = 3;
    cpu->cr0 = 0x80000033;       /* PG, NE, ET, MP, PE */
    cpu->cr4 = 0x40668 | 1 << 5; /* OSXSAVE, OSXMMEXCPT, OSFXSR, MCE, PAE, DE */
    cpu->rflags = 2;
    cpu->segment[SEG_GS].base = ISA_GS_BASE;
    reset_tlb(runner);
    if (!vector_open(cpu, NULL)) {
        free(cpu);
        free(runner);
        return NULL;
    }
    cpu->xcr0 = vector_xcr0_supported(cpu);
    return runner;
}

void soft_runner_close(struct soft_runner *runner)
{
    vector_close(runner->cpu);
    free(runner->cpu);
    free(runner);
}

struct cpu *soft_runner_cpu(struct soft_runner *runner)
{
    return runner->cpu;
}

static void load_state(struct cpu *cpu, const struct isa_state *state)
{
    static const uint64_t all = 7;
    struct x86_state whole = {.xcr0 = cpu->xcr0};
    memcpy(cpu->gpr, state->gpr, sizeof(state->gpr));
    cpu->gpr[GPR_ZERO] = 0;
    cpu->gpr[GPR_BLOCK_RIP] = ISA_CODE;
    cpu_set_rflags(cpu, state->rflags | 2);
    memcpy(whole.xsave, state->fx, 160);
    memcpy(whole.xsave + 512, &all, sizeof(all));
    for (unsigned n = 0; n < 16; n++) {
        memcpy(whole.xsave + 160 + n * 16, state->vector[n], 16);
        memcpy(whole.xsave + 576 + n * 16, state->vector[n] + 16, 16);
    }
    bool ok = vector_set_state(cpu, &whole);
    assert(ok);
}

static void store_state(struct cpu *cpu, struct isa_state *state)
{
    struct x86_state whole;
    vector_get_state(cpu, &whole);
    memcpy(state->gpr, cpu->gpr, sizeof(state->gpr));
    state->rflags = cpu_get_rflags(cpu);
    memcpy(state->fx, whole.xsave, 160);
    memset(state->fx + 160, 0, sizeof(state->fx) - 160);
    for (unsigned n = 0; n < 16; n++) {
        memcpy(state->vector[n], whole.xsave + 160 + n * 16, 16);
        memcpy(state->vector[n] + 16, whole.xsave + 576 + n * 16, 16);
    }
}

/* Runs what is bound until it has gone on to the next instruction. */
static void execute(struct cpu *cpu, struct op *op)
{
    vector_enter(cpu);
    if (sigsetjmp(cpu->unwind, 0) == 0) {
        cpu->op = op;
        do {
            cpu->rip = 0;
            op->fn(cpu, op);
        } while ((op->flags & OP_ENDS_BLOCK) && cpu->rip == ISA_CODE);
    }
    vector_leave(cpu);
}

bool soft_run(struct soft_runner *runner, struct isa_state *state, const uint8_t *bytes,
              unsigned length)
{
    struct cpu *cpu = runner->cpu;
    struct op op;
    if (vector_wants_flush(cpu))
        vector_flush_stubs(cpu);
    if (!soft_decode(cpu, bytes, length, &op))
        return false;
    load_state(cpu, state);
    memset(&cpu->pending, 0, sizeof(cpu->pending));
    execute(cpu, &op);
    store_state(cpu, state);
    state->fault = cpu->pending.exception ? cpu->pending.vector : ISA_NO_FAULT;
    state->error_code = cpu->pending.has_error_code ? cpu->pending.error_code : 0;
    state->fault_address = cpu->cr2;
    return true;
}
