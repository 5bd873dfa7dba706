/* SPDX-License-Identifier: BSD-2-Clause
 *
 * See machine.h. The instruction is followed by HLT, which CPL 3 may not execute: a #GP(0) there is
 * the normal end. Every vector has a handler of one HLT, so where the processor halts tells the
 * vector, and the frame on the kernel's stack the rest.
 */
#include "isa/machine.h"

#include "isa/options.h"

#include "cpu/soft/block.h"
#include "cpu/soft/core.h"
#include "cpu/soft/translator/check.h"
#include "cpu/soft/vector/vector.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Physical memory. All of it is mapped for the kernel at KERNEL. */
enum {
    PML4 = 0x1000,
    PDPT = 0x2000,
    PD_USER = 0x3000,
    PD_KERNEL = 0x4000,
    PT_CODE = 0x5000,
    PT_SCRATCH = 0x6000,
    GDT = 0x8000,
    IDT = 0x9000,
    TSS = 0xa000,
    STACK_END = 0xc000,
    HANDLERS = 0xc000,
    CODE = 0xd000,
    SCRATCH = 0x10000,
    RAM_BYTES = 2 << 20,
};
#define KERNEL UINT64_C(0x40000000)

enum { PTE_P = 1, PTE_W = 2, PTE_U = 4, PTE_PS = 0x80 };
enum { KERNEL_CS = 0x08, KERNEL_SS = 0x10 };

struct machine {
    struct soft_system system;
    struct cpu *cpu;
    uint8_t *ram;
    struct x86_state base[ISA_MODES]; /* what every run starts from, but for isa_state */
    uint32_t mode[ISA_MODES];         /* as cpu->mode has it */
    bool steps; /* under TF and with data breakpoints, by SKEP_TEST_STEP: see go_on() */
};

static void put64(struct machine *machine, uint64_t at, uint64_t value)
{
    memcpy(machine->ram + at, &value, sizeof(value));
}

static uint64_t get64(const struct machine *machine, uint64_t at)
{
    uint64_t value;
    memcpy(&value, machine->ram + at, sizeof(value));
    return value;
}

static void map_page(struct machine *machine, uint64_t table, uint64_t linear, uint64_t gpa,
                     uint64_t flags)
{
    put64(machine, table + (linear >> 12 & 511) * 8, gpa | flags);
}

static void make_page_tables(struct machine *machine)
{
    const uint64_t all = PTE_P | PTE_W | PTE_U;
    put64(machine, PML4, PDPT | all);
    put64(machine, PDPT, PD_USER | all);
    put64(machine, PDPT + (KERNEL >> 30) * 8, PD_KERNEL | all);
    put64(machine, PD_KERNEL, PTE_PS | PTE_P | PTE_W);
    put64(machine, PD_USER + (ISA_CODE >> 21 & 511) * 8, PT_CODE | all);
    put64(machine, PD_USER + (ISA_SCRATCH >> 21 & 511) * 8, PT_SCRATCH | all);
    map_page(machine, PT_CODE, ISA_CODE, CODE, PTE_P | PTE_U);
    for (unsigned at = 0; at < ISA_SCRATCH_BYTES; at += ISA_PAGE)
        map_page(machine, PT_SCRATCH, ISA_SCRATCH + at, SCRATCH + at,
                 at < ISA_WRITABLE_BYTES ? all : all & ~(uint64_t)PTE_W);
}

static void make_tables(struct machine *machine)
{
    put64(machine, GDT + KERNEL_CS, UINT64_C(0x00209b0000000000));
    put64(machine, GDT + KERNEL_SS, UINT64_C(0x00cf93000000ffff));
    put64(machine, TSS + 4, KERNEL + STACK_END); /* RSP0 */
    for (unsigned vector = 0; vector < 256; vector++) {
        uint64_t handler = KERNEL + HANDLERS + vector * 16;
        put64(machine, IDT + vector * 16,
              (handler & 0xffff) | KERNEL_CS << 16 | UINT64_C(0x8e00) << 32 |
                  (handler >> 16 & 0xffff) << 48);
        put64(machine, IDT + vector * 16 + 8, handler >> 32);
        machine->ram[HANDLERS + vector * 16] = 0xf4; /* HLT */
    }
}

static void set_segment(struct x86_state *state, enum x86_segment_name to, enum isa_mode mode,
                        enum isa_segment_name name)
{
    const struct isa_segment *from = isa_segment(mode, name);
    state->segment[to] = (struct x86_segment){.base = from->base,
                                              .limit = from->limit,
                                              .attributes = from->attributes | 1, /* accessed */
                                              .selector = from->selector};
}

static void make_base_state(struct machine *machine, enum isa_mode mode)
{
    struct x86_state *state = &machine->base[mode];
    x86_state_reset(state, true);
    state->rip = isa_entry(mode);
    state->cr0 = CR0_PG | CR0_WP | CR0_NE | CR0_ET | CR0_MP | CR0_PE | CR0_AM;
    state->cr3 = PML4;
    state->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
    state->efer = EFER_LME | EFER_LMA | EFER_NXE | EFER_SCE;
    state->xcr0 = vector_xcr0_supported(machine->cpu);
    set_segment(state, SEG_CS, mode, ISA_CS);
    set_segment(state, SEG_SS, mode, ISA_SS);
    set_segment(state, SEG_DS, mode, ISA_DS);
    set_segment(state, SEG_ES, mode, ISA_ES);
    set_segment(state, SEG_FS, mode, ISA_DS);
    set_segment(state, SEG_GS, mode, ISA_GS);
    state->segment[SEG_TR] =
        (struct x86_segment){.base = KERNEL + TSS, .limit = 0x67, .attributes = 0xb | SEGMENT_P};
    state->segment[SEG_LDTR] = (struct x86_segment){.attributes = SEGMENT_UNUSABLE};
    state->gdtr = (struct x86_table){KERNEL + GDT, 0x3f};
    state->idtr = (struct x86_table){KERNEL + IDT, 0xfff};
    if (machine->steps) {
        state->dr[0] = ISA_SCRATCH + 0x40;
        state->dr[1] = ISA_SCRATCH + ISA_PAGE + 0x100;
        state->dr[7] = 0x00b10405; /* a written byte, eight bytes that are read or written */
    }
    bool ok = cpu_set_state(machine->cpu, state);
    assert(ok);
    machine->mode[mode] = machine->cpu->mode;
}

static int no_interrupt(void *opaque, unsigned vcpu)
{
    return -1;
}

static uint64_t no_cr8(void *opaque, unsigned vcpu)
{
    return 0;
}

struct machine *machine_open(void)
{
    return machine_open_with(translator_by_environment());
}

struct machine *machine_open_with(struct translator_options translator)
{
    struct machine *machine = calloc(1, sizeof(*machine));
    assert(machine != NULL);
    machine->ram =
        mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert(machine->ram != MAP_FAILED);
    soft_system_open(&machine->system);
    machine->system.translator = translator;
    machine->system.callbacks.acknowledge = no_interrupt;
    machine->system.callbacks.read_cr8 = no_cr8;
    bool ok = soft_region_add(&machine->system, 0, machine->ram, RAM_BYTES, false);
    assert(ok);
    machine->cpu = cpu_create(&machine->system, 0, NULL);
    assert(machine->cpu != NULL);
    machine->steps = getenv("SKEP_TEST_STEP") != NULL;
    make_page_tables(machine);
    make_tables(machine);
    for (unsigned mode = 0; mode < ISA_MODES; mode++)
        make_base_state(machine, mode);
    return machine;
}

void machine_close(struct machine *machine)
{
    cpu_destroy(machine->cpu);
    soft_system_close(&machine->system);
    munmap(machine->ram, RAM_BYTES);
    free(machine);
}

uint8_t *machine_scratch(struct machine *machine)
{
    return machine->ram + SCRATCH;
}

bool machine_offers(struct machine *machine, enum isa_mode mode, const uint8_t *bytes,
                    unsigned length)
{
    struct op op;
    unsigned size_bytes;
    machine->cpu->mode = machine->mode[mode];
    if (vector_wants_flush(machine->cpu))
        block_cache_flush(machine->cpu);
    return decode_block(machine->cpu, bytes, length, &op, 1, &size_bytes) == 1 &&
           op.fn != op_undefined;
}

static void fill_state(const struct machine *machine, struct x86_state *whole,
                       const struct isa_state *state)
{
    static const uint64_t components = 7;
    memcpy(whole->gpr, state->gpr, sizeof(state->gpr));
    whole->rflags = state->rflags | 2;
    if (machine->steps)
        whole->rflags |= RFLAGS_TF;
    memcpy(whole->xsave, state->fx, 160);
    memcpy(whole->xsave + 512, &components, sizeof(components));
    for (unsigned n = 0; n < 16; n++) {
        memcpy(whole->xsave + 160 + n * 16, state->vector[n], 16);
        memcpy(whole->xsave + 576 + n * 16, state->vector[n] + 16, 16);
    }
}

/* False: it is not the handler of #DB that has halted. Else what was interrupted goes on, with TF
 * and RF of the frame, as if the handler had returned. */
static bool go_on(struct machine *machine, enum isa_mode mode, struct x86_state *whole)
{
    if (whole->rip != KERNEL + HANDLERS + VECTOR_DB * 16 + 1)
        return false;
    uint64_t at = whole->gpr[RSP] - KERNEL;
    const struct x86_state *base = &machine->base[mode];
    whole->rip = get64(machine, at);
    whole->rflags = get64(machine, at + 16);
    whole->gpr[RSP] = get64(machine, at + 24);
    whole->segment[SEG_CS] = base->segment[SEG_CS];
    whole->segment[SEG_SS] = base->segment[SEG_SS];
    whole->run_state = X86_RUNNING;
    bool ok = cpu_set_state(machine->cpu, whole);
    assert(ok);
    return true;
}

/* The exception frame: its error code first, if the vector has one. */
static void take_frame(struct machine *machine, const struct x86_state *whole, unsigned length,
                       struct isa_state *state)
{
    int vector = (int)(whole->rip - 1 - KERNEL - HANDLERS) / 16;
    uint64_t at = whole->gpr[RSP] - KERNEL;
    bool has_code = vector == 8 || (vector >= 10 && vector <= 14) || vector == 17;
    assert(vector >= 0 && vector < 256 && at < RAM_BYTES - 64);
    state->fault = vector;
    state->error_code = 0;
    state->fault_address = whole->cr2;
    if (has_code) {
        state->error_code = (uint32_t)get64(machine, at);
        at += 8;
    }
    uint64_t rip = get64(machine, at);
    state->rflags = get64(machine, at + 16);
    state->gpr[RSP] = get64(machine, at + 24);
    state->fault_offset = rip - isa_entry(state->mode);
    if (vector == VECTOR_GP && state->fault_offset == length) {
        state->fault = ISA_NO_FAULT;
        state->fault_offset = 0;
    }
}

void machine_run(struct machine *machine, struct isa_state *state, const uint8_t *bytes,
                 unsigned length)
{
    struct x86_state whole = machine->base[state->mode];
    fill_state(machine, &whole, state);
    uint8_t *code = machine->ram + CODE;
    if (memcmp(code, bytes, length) != 0 || code[length] != 0xf4) {
        memcpy(code, bytes, length);
        code[length] = 0xf4;
        soft_written(&machine->system, CODE, length + 1);
    }
    bool ok = cpu_set_state(machine->cpu, &whole);
    assert(ok);
    do {
        enum cpu_exit exit = cpu_run(machine->cpu);
        cpu_get_state(machine->cpu, &whole);
        const struct error *difference = check_failure(machine->cpu);
        if (difference)
            fprintf(stderr, "%s: %s\n", difference->where, difference->cause);
        assert(exit == CPU_HALTED);
    } while (machine->steps && go_on(machine, state->mode, &whole));
    memcpy(state->gpr, whole.gpr, sizeof(state->gpr));
    take_frame(machine, &whole, length, state);
    memcpy(state->fx, whole.xsave, 160);
    memset(state->fx + 160, 0, sizeof(state->fx) - 160);
    for (unsigned n = 0; n < 16; n++) {
        memcpy(state->vector[n], whole.xsave + 160 + n * 16, 16);
        memcpy(state->vector[n] + 16, whole.xsave + 576 + n * 16, 16);
    }
    isa_state_narrow(state);
}
