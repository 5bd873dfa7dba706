/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The software processor's core, by programs in machine code (programs.S): modes, paging and its
 * error codes, exceptions and interrupts, system calls, self-modifying code, several processors.
 * The facts are the SDM's.
 */
#include "isa/harness.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

PROGRAM(modes)
PROGRAM(read)
PROGRAM(write)
PROGRAM(execute)
PROGRAM(syscall)
PROGRAM(sti)
PROGRAM(mov_ss)
PROGRAM(popf)
PROGRAM(sti_hlt)
PROGRAM(patch_self)
PROGRAM(patch_other)
PROGRAM(call_loop)
PROGRAM(wait_call)
PROGRAM(wait_patch)
PROGRAM(locked_add)
PROGRAM(single_step)
PROGRAM(compat)
PROGRAM(limit32)
PROGRAM(int32)
PROGRAM(iret32)
PROGRAM(pcid)
PROGRAM(invlpg)
PROGRAM(ports)
PROGRAM(port_user)
PROGRAM(nmi)
PROGRAM(double_fault)
PROGRAM(sregs)

static int setup(void **state)
{
    *state = harness_open(1);
    return 0;
}

static int teardown(void **state)
{
    harness_close(*state);
    return 0;
}

/* MOV EAX, constant; RET. */
static void put_function(struct harness *h, uint64_t gpa, uint32_t constant)
{
    uint8_t code[6] = {0xb8, 0, 0, 0, 0, 0xc3};
    memcpy(code + 1, &constant, 4);
    memcpy(h->ram + gpa, code, sizeof(code));
}

/* --- modes ---------------------------------------------------------------------------------- */

static void real_to_long_mode(void **test)
{
    struct harness *h = *test;
    struct x86_state state;
    harness_long_mode(h, &state); /* for its page tables */
    LOAD(h, modes);
    x86_state_reset(&state, true);
    state.segment[SEG_CS].selector = CODE >> 4;
    state.segment[SEG_CS].base = CODE;
    state.rip = 0;
    assert_int_equal(harness_run(h, &state), CPU_HALTED);
    assert_int_equal(state.gpr[RAX], 0x1122334455667788);
    assert_int_equal(state.gpr[RBX], 0x12345678);
    assert_true(state.efer & EFER_LMA);
    assert_int_equal(state.gpr[RDX], 0xe0000011);
    assert_int_equal(state.segment[SEG_CS].selector, 0x18);
    assert_int_equal(state.segment[SEG_ES].base, CODE); /* from real mode, untouched */
    /* The processor has set the accessed bits of the descriptors it loaded. */
    uint64_t gdt = state.gdtr.base;
    assert_int_equal(harness_get64(h, gdt + 8), 0x00cf9b000000ffff);
    assert_int_equal(harness_get64(h, gdt + 16), 0x00cf93000000ffff);
}

static void startup_ipi(void **test)
{
    struct harness *h = harness_open(2);
    struct cpu *ap = h->cpu[1];
    struct x86_state state;
    assert_int_equal(cpu_run(ap), CPU_HALTED); /* waits */
    h->ram[0x9000] = 0xf4;
    atomic_store(&ap->sipi_vector, 9);
    assert_false(cpu_has_work(ap));
    cpu_request(ap, REQUEST_INIT);
    cpu_request(ap, REQUEST_SIPI);
    assert_true(cpu_has_work(ap));
    assert_int_equal(cpu_run(ap), CPU_HALTED);
    cpu_get_state(ap, &state);
    assert_int_equal(state.run_state, X86_HALTED);
    assert_int_equal(state.segment[SEG_CS].selector, 0x900);
    assert_int_equal(state.segment[SEG_CS].base, 0x9000);
    assert_int_equal(state.rip, 1);
    harness_close(h);
}

static void compatibility_mode(void **test)
{
    struct harness *h = *test;
    struct x86_state state;
    harness_long_mode(h, &state);
    LOAD(h, compat);
    /* A gate that level 3 may use. */
    harness_put64(h, IDT + 0x80 * 16, harness_get64(h, IDT + 0x80 * 16) | UINT64_C(0x6000) << 32);
    assert_int_equal(harness_run(h, &state), CPU_HALTED);
    assert_int_equal(harness_vector(&state), 0x80);
    assert_int_equal(state.gpr[RAX], 3);
    assert_int_equal(state.gpr[RBX], 0xc000);
    assert_int_equal(harness_frame(h, &state, 1), USER_CS32);
    assert_int_equal(harness_frame(h, &state, 3), 0xc000 - 4);
    assert_int_equal(harness_frame(h, &state, 4), USER_SS);
    assert_int_equal(harness_get32(h, 0xc000 - 4), 0x55);
    assert_int_equal(state.segment[SEG_SS].selector, 0);
}

/* --- paging --------------------------------------------------------------------------------- */

enum access { READ, WRITE, EXECUTE };

struct fault_case {
    uint64_t pte; /* of the page that is accessed */
    enum access access;
    bool user, no_wp, smep, smap, ac, no_nxe;
    int error_code; /* -1: none */
};

enum { NO_FAULT = -1 };

static const struct fault_case fault_cases[] = {
    {.pte = 0, .access = READ, .error_code = 0},
    {.pte = 0, .access = WRITE, .error_code = 2},
    {.pte = 0, .access = EXECUTE, .error_code = 16},
    {.pte = 0, .access = EXECUTE, .no_nxe = true, .error_code = 0},
    {.pte = 0, .access = EXECUTE, .no_nxe = true, .smep = true, .error_code = 16},
    {.pte = 0, .access = READ, .user = true, .error_code = 4},
    {.pte = 0, .access = WRITE, .user = true, .error_code = 6},
    {.pte = 0, .access = EXECUTE, .user = true, .error_code = 20},
    {.pte = PTE_P | PTE_W, .access = READ, .user = true, .error_code = 5},
    {.pte = PTE_P | PTE_W, .access = WRITE, .user = true, .error_code = 7},
    {.pte = PTE_P | PTE_W, .access = EXECUTE, .user = true, .error_code = 21},
    {.pte = PTE_P | PTE_U, .access = READ, .user = true, .error_code = NO_FAULT},
    {.pte = PTE_P | PTE_U, .access = WRITE, .user = true, .error_code = 7},
    {.pte = PTE_P | PTE_U, .access = WRITE, .user = true, .no_wp = true, .error_code = 7},
    {.pte = PTE_P | PTE_U | PTE_W, .access = WRITE, .user = true, .error_code = NO_FAULT},
    {.pte = PTE_P | PTE_U, .access = EXECUTE, .user = true, .error_code = NO_FAULT},
    {.pte = PTE_P | PTE_U | PTE_NX, .access = EXECUTE, .user = true, .error_code = 21},
    {.pte = PTE_P | PTE_U | PTE_NX, .access = READ, .user = true, .error_code = NO_FAULT},
    {.pte = PTE_P | PTE_U | PTE_NX, .access = READ, .no_nxe = true, .error_code = 9},
    {.pte = PTE_P | PTE_NX, .access = EXECUTE, .error_code = 17},
    {.pte = PTE_P, .access = WRITE, .error_code = 3},
    {.pte = PTE_P, .access = WRITE, .no_wp = true, .error_code = NO_FAULT},
    {.pte = PTE_P | PTE_U, .access = READ, .error_code = NO_FAULT},
    {.pte = PTE_P | PTE_U, .access = EXECUTE, .error_code = NO_FAULT},
    {.pte = PTE_P | PTE_U, .access = EXECUTE, .smep = true, .error_code = 17},
    {.pte = PTE_P | PTE_U, .access = READ, .smep = true, .error_code = NO_FAULT},
    {.pte = PTE_P | PTE_U, .access = READ, .smap = true, .error_code = 1},
    {.pte = PTE_P | PTE_U | PTE_W, .access = WRITE, .smap = true, .error_code = 3},
    {.pte = PTE_P | PTE_U, .access = READ, .smap = true, .ac = true, .error_code = NO_FAULT},
    {.pte = PTE_P | PTE_U, .access = EXECUTE, .smap = true, .error_code = NO_FAULT},
    {.pte = PTE_P | PTE_U, .access = READ, .user = true, .smap = true, .error_code = NO_FAULT},
    {.pte = PTE_P | UINT64_C(1) << 51, .access = READ, .error_code = 9},
    {.pte = PTE_P | PTE_U | UINT64_C(1) << 51, .access = WRITE, .user = true, .error_code = 15},
};

static void load_access(struct harness *h, enum access access)
{
    if (access == READ)
        LOAD(h, read);
    else if (access == WRITE)
        LOAD(h, write);
    else
        LOAD(h, execute);
}

/* Without a fault the program ends in HLT, which level 3 may not execute: #GP. */
static void check_outcome(struct harness *h, const struct fault_case *c,
                          const struct x86_state *state)
{
    uint64_t pte = harness_get64(h, PT + FREE_PAGE / PAGE_BYTES * 8);
    if (c->error_code == NO_FAULT) {
        assert_int_equal(harness_vector(state), c->user ? VECTOR_GP : -1);
        assert_true(pte & PTE_A);
        assert_int_equal(!!(pte & PTE_D), c->access == WRITE);
        return;
    }
    assert_int_equal(harness_vector(state), VECTOR_PF);
    assert_int_equal(harness_frame(h, state, 0), c->error_code);
    assert_int_equal(state->cr2, FREE_PAGE + 8);
    assert_int_equal(harness_frame(h, state, 1), c->access == EXECUTE ? FREE_PAGE + 8 : CODE);
    assert_true(harness_frame(h, state, 3) & RFLAGS_RF);
    assert_false(pte & (PTE_A | PTE_D));
}

static void page_faults(void **test)
{
    struct harness *h = *test;
    for (unsigned i = 0; i < sizeof(fault_cases) / sizeof(fault_cases[0]); i++) {
        const struct fault_case *c = &fault_cases[i];
        struct x86_state state;
        harness_long_mode(h, &state);
        load_access(h, c->access);
        if (c->user)
            harness_user(&state);
        /* With SMEP or SMAP the kernel's own pages may not be the user's. */
        for (uint64_t linear = 0; linear < (c->user ? STACK_IST : FREE_PAGE); linear += PAGE_BYTES)
            harness_map(h, linear, linear, PTE_P | PTE_W);
        harness_map(h, FREE_PAGE, FREE_PAGE, c->pte);
        h->ram[FREE_PAGE + 8] = 0xf4;
        state.gpr[RDI] = FREE_PAGE + 8;
        state.cr0 = c->no_wp ? state.cr0 & ~CR0_WP : state.cr0;
        state.cr4 |= (c->smep ? CR4_SMEP : 0) | (c->smap ? CR4_SMAP : 0);
        state.efer = c->no_nxe ? state.efer & ~EFER_NXE : state.efer;
        state.rflags |= c->ac ? RFLAGS_AC : 0;
        assert_int_equal(harness_run(h, &state), CPU_HALTED);
        check_outcome(h, c, &state);
    }
}

static void not_canonical(void **test)
{
    struct harness *h = *test;
    struct x86_state state;
    harness_long_mode(h, &state);
    LOAD(h, read);
    state.gpr[RDI] = UINT64_C(0x0000800000000000);
    harness_run(h, &state);
    assert_int_equal(harness_vector(&state), VECTOR_GP);
    assert_int_equal(harness_frame(h, &state, 0), 0);
    harness_long_mode(h, &state);
    LOAD(h, execute);
    state.gpr[RDI] = UINT64_C(0xffff7fffffffffff);
    harness_run(h, &state);
    assert_int_equal(harness_vector(&state), VECTOR_GP);
    assert_int_equal(harness_frame(h, &state, 1), CODE); /* at the jump itself */
    /* Eight bytes whose last is not canonical. */
    harness_long_mode(h, &state);
    LOAD(h, read);
    state.gpr[RDI] = UINT64_C(0x00007ffffffffffc);
    harness_run(h, &state);
    assert_int_equal(harness_vector(&state), VECTOR_PF);
}

/* A page that ends where nothing is mapped: nothing of the store may be seen. */
static void crossing_writes(void **test)
{
    struct harness *h = *test;
    struct x86_state state;
    harness_long_mode(h, &state);
    LOAD(h, write);
    harness_map(h, FREE_PAGE + PAGE_BYTES, 0, 0);
    state.gpr[RDI] = FREE_PAGE + PAGE_BYTES - 4;
    state.gpr[RAX] = UINT64_MAX;
    harness_put64(h, FREE_PAGE + PAGE_BYTES - 8, 0);
    harness_run(h, &state);
    assert_int_equal(harness_vector(&state), VECTOR_PF);
    assert_int_equal(harness_frame(h, &state, 0), 2);
    assert_int_equal(state.cr2, FREE_PAGE + PAGE_BYTES);
    assert_int_equal(harness_get64(h, FREE_PAGE + PAGE_BYTES - 8), 0);
    /* Two pages that are not neighbours in memory. */
    harness_long_mode(h, &state);
    harness_map(h, FREE_PAGE + PAGE_BYTES, FREE_PAGE + 4 * PAGE_BYTES, PTE_P | PTE_W);
    state.gpr[RDI] = FREE_PAGE + PAGE_BYTES - 4;
    state.gpr[RAX] = UINT64_C(0x1122334455667788);
    harness_run(h, &state);
    assert_int_equal(harness_vector(&state), -1);
    assert_int_equal(harness_get32(h, FREE_PAGE + PAGE_BYTES - 4), 0x55667788);
    assert_int_equal(harness_get32(h, FREE_PAGE + 4 * PAGE_BYTES), 0x11223344);
}

static void mmio_access(void **test)
{
    struct harness *h = *test;
    struct x86_state state;
    harness_long_mode(h, &state);
    LOAD(h, write);
    harness_map(h, FREE_PAGE, MMIO, PTE_P | PTE_W);
    state.gpr[RDI] = FREE_PAGE + 0x10;
    state.gpr[RAX] = UINT64_C(0x1122334455667788);
    harness_run(h, &state);
    assert_int_equal(h->mmio_accesses, 1);
    assert_int_equal(h->last_mmio, MMIO + 0x10);
    assert_int_equal(h->last_mmio_value, 0x1122334455667788);
    LOAD(h, read);
    state.rip = CODE;
    state.run_state = X86_RUNNING;
    state.gpr[RAX] = 0;
    harness_run(h, &state);
    assert_int_equal(h->mmio_accesses, 2);
    assert_int_equal(state.gpr[RAX], 0x1122334455667788);
}

static void invalidation(void **test)
{
    struct harness *h = *test;
    struct x86_state state;
    harness_long_mode(h, &state);
    LOAD(h, invlpg);
    harness_put64(h, FREE_PAGE, 111);
    harness_put64(h, FREE_PAGE + PAGE_BYTES, 222);
    state.gpr[RDI] = FREE_PAGE;
    state.gpr[RDX] = PT + FREE_PAGE / PAGE_BYTES * 8;
    state.gpr[RSI] = (FREE_PAGE + PAGE_BYTES) | PTE_P;
    harness_run(h, &state);
    assert_int_equal(state.gpr[R8], 111);
    assert_int_equal(state.gpr[R9], 222);
}

/* A second root that maps the page elsewhere, told apart by PCID. */
static void pcids(void **test)
{
    enum { PML4_2 = 0x110000, PDPT_2 = 0x111000, PD_2 = 0x112000, PT_2 = 0x113000 };
    struct harness *h = *test;
    struct x86_state state;
    harness_long_mode(h, &state);
    LOAD(h, pcid);
    memcpy(h->ram + PT_2, h->ram + PT, PAGE_BYTES);
    harness_put64(h, PML4_2, PDPT_2 | PTE_P | PTE_W);
    harness_put64(h, PDPT_2, PD_2 | PTE_P | PTE_W);
    harness_put64(h, PD_2, PT_2 | PTE_P | PTE_W);
    uint64_t at = PT_2 + FREE_PAGE / PAGE_BYTES * 8;
    harness_put64(h, at, (FREE_PAGE + PAGE_BYTES) | PTE_P);
    harness_put64(h, FREE_PAGE, 111);
    harness_put64(h, FREE_PAGE + PAGE_BYTES, 222);
    harness_put64(h, FREE_PAGE + 2 * PAGE_BYTES, 333);
    state.cr4 |= CR4_PCIDE;
    state.gpr[R8] = PML4 | 1;
    state.gpr[R9] = PML4_2 | 2;
    state.gpr[RDI] = FREE_PAGE;
    state.gpr[RDX] = at;
    state.gpr[RSI] = (FREE_PAGE + 2 * PAGE_BYTES) | PTE_P;
    harness_run(h, &state);
    assert_int_equal(harness_vector(&state), -1);
    assert_int_equal(state.gpr[R10], 111);
    assert_int_equal(state.gpr[R11], 222);
    assert_int_equal(state.gpr[R12], 111);
    assert_int_equal(state.gpr[R13], 222);
    assert_int_equal(state.gpr[R14], 333);
}

/* 2 MiB pages; INVLPG of one address drops all of the page. */
static void large_pages(void **test)
{
    struct harness *h = *test;
    struct x86_state state;
    harness_long_mode(h, &state);
    LOAD(h, invlpg);
    harness_put64(h, PD + 8, 0x200000 | PTE_P | PTE_W | PTE_PS);
    harness_put64(h, 0x200000 + 0x5008, 111);
    harness_put64(h, 0x400000 + 0x5008, 222);
    state.gpr[RDI] = 0x205008;
    state.gpr[RDX] = PD + 8;
    state.gpr[RSI] = 0x400000 | PTE_P | PTE_PS;
    harness_run(h, &state);
    assert_int_equal(state.gpr[R8], 111);
    assert_int_equal(state.gpr[R9], 222);
    assert_true(harness_get64(h, PD + 8) & PTE_A);
    /* Bit 13 of a 2 MiB entry is reserved. */
    harness_long_mode(h, &state);
    LOAD(h, read);
    harness_put64(h, PD + 8, 0x202000 | PTE_P | PTE_PS);
    state.gpr[RDI] = 0x205008;
    harness_run(h, &state);
    assert_int_equal(harness_vector(&state), VECTOR_PF);
    assert_int_equal(harness_frame(h, &state, 0), 9);
}

/* --- 32-bit mode ---------------------------------------------------------------------------- */

static void segment_limits(void **test)
{
    struct harness *h = *test;
    struct x86_state state;
    harness_protected_mode(h, &state);
    LOAD(h, limit32);
    state.segment[SEG_ES].base = FREE_PAGE;
    state.segment[SEG_ES].limit = 15;
    state.gpr[RDI] = 0;
    assert_int_equal(harness_run(h, &state), CPU_HALTED);
    assert_int_equal(harness_vector(&state), VECTOR_GP);
    assert_int_equal(harness_frame(h, &state, 0), 0);
    assert_int_equal(harness_frame(h, &state, 1), CODE + 3 + 4);
}

static void stack_switch(void **test)
{
    struct harness *h = *test;
    struct x86_state state;
    harness_protected_mode(h, &state);
    LOAD(h, int32);
    harness_user(&state);
    state.segment[SEG_TR].attributes = 0x8b;
    harness_put64(h, IDT + 0x80 * 8, harness_get64(h, IDT + 0x80 * 8) | UINT64_C(0x6000) << 32);
    harness_run(h, &state);
    assert_int_equal(harness_vector(&state), 0x80);
    assert_int_equal(state.gpr[RSP], STACK0 - 20);
    assert_int_equal(harness_frame(h, &state, 0), CODE + 4);
    assert_int_equal(harness_frame(h, &state, 1), USER_CS32);
    assert_int_equal(harness_frame(h, &state, 3), STACK3 - 4);
    assert_int_equal(harness_frame(h, &state, 4), USER_SS);
    assert_int_equal(state.segment[SEG_SS].selector, KERNEL_SS);
}

static void return_to_user_32(void **test)
{
    struct harness *h = *test;
    struct x86_state state;
    harness_protected_mode(h, &state);
    LOAD(h, iret32);
    harness_user(&state);
    harness_put64(h, IDT + 0x80 * 8,
                  UINT64_C(0x0001ee0000000000) | (uint64_t)KERNEL_CS32 << 16 | 0x100);
    harness_run(h, &state);
    /* INT3 is not for level 3: its gate's DPL is 0. */
    assert_int_equal(harness_vector(&state), VECTOR_GP);
    assert_int_equal(harness_frame(h, &state, 0), VECTOR_BP * 8 + 2);
    assert_int_equal(harness_frame(h, &state, 2), USER_CS32);
    assert_int_equal(state.gpr[RAX], 16);
    assert_int_equal(state.gpr[RBX] & 0xffff, KERNEL_SS);
    assert_int_equal(state.gpr[RCX] & 0xffff, KERNEL_CS32);
}

/* PAE and two-level paging, without long mode. */
static void paging_32(void **test)
{
    struct harness *h = *test;
    struct x86_state state;
    harness_long_mode(h, &state);
    harness_protected_mode(h, &state);
    LOAD(h, limit32);
    harness_put64(h, PDPT, PD | PTE_P); /* no W or U there */
    harness_map(h, FREE_PAGE, FREE_PAGE + PAGE_BYTES, PTE_P);
    harness_put64(h, FREE_PAGE + PAGE_BYTES + 12, 0x1234);
    state.cr0 |= CR0_PG | CR0_WP;
    state.cr4 = CR4_PAE;
    state.cr3 = PDPT;
    state.gpr[RDI] = FREE_PAGE;
    state.segment[SEG_ES].limit = 0;
    harness_run(h, &state);
    assert_int_equal(harness_vector(&state), VECTOR_GP);
    assert_int_equal(state.gpr[RAX], 0x1234);
    harness_protected_mode(h, &state);
    uint32_t directory[1024] = {PTE_P | PTE_W | PTE_PS, 0x400000 | PTE_P | PTE_W | PTE_PS};
    memcpy(h->ram + 0x120000, directory, sizeof(directory));
    harness_put64(h, 0x500000 + 12, 0x5678);
    state.cr0 |= CR0_PG | CR0_WP;
    state.cr4 = CR4_PSE;
    state.cr3 = 0x120000;
    state.gpr[RDI] = 0x500000;
    state.segment[SEG_ES].limit = 0;
    harness_run(h, &state);
    assert_int_equal(state.gpr[RAX], 0x5678);
    assert_true(harness_get32(h, 0x120004) & PTE_A);
}

/* --- exceptions and interrupts -------------------------------------------------------------- */

static void interrupt_stack_table(void **test)
{
    struct harness *h = *test;
    struct x86_state state;
    harness_long_mode(h, &state);
    LOAD(h, read);
    harness_put64(h, IDT + VECTOR_GP * 16,
                  harness_get64(h, IDT + VECTOR_GP * 16) | UINT64_C(1) << 32);
    state.gpr[RSP] = STACK0 - 3; /* the new stack is aligned, the pushed RSP is not */
    state.gpr[RDI] = UINT64_C(0x8000000000000000);
    harness_run(h, &state);
    assert_int_equal(harness_vector(&state), VECTOR_GP);
    assert_int_equal(state.gpr[RSP], STACK_IST - 48);
    assert_int_equal(harness_frame(h, &state, 4), STACK0 - 3);
    assert_int_equal(harness_frame(h, &state, 5), KERNEL_SS);
}

static void system_calls(void **test)
{
    struct harness *h = *test;
    struct x86_state state;
    harness_long_mode(h, &state);
    LOAD(h, syscall);
    harness_user(&state);
    state.rflags |= RFLAGS_IF | RFLAGS_DF;
    state.star = (uint64_t)USER_CS32 << 48 | (uint64_t)KERNEL_CS << 32;
    state.lstar = CODE + 0x100;
    state.sfmask = RFLAGS_IF | RFLAGS_CF;
    harness_run(h, &state);
    assert_int_equal(harness_vector(&state), VECTOR_GP); /* HLT at level 3 */
    assert_int_equal(state.gpr[RBX], 0x1234);
    assert_int_equal(state.gpr[R8], CODE + 8);
    assert_int_equal(state.gpr[R9], RFLAGS_IF | RFLAGS_DF | RFLAGS_CF | 2);
    assert_int_equal(state.gpr[R10], RFLAGS_DF | 2);
    assert_int_equal(state.gpr[R12] & 0xffff, KERNEL_CS);
    assert_int_equal(state.gpr[R13] & 0xffff, KERNEL_SS);
    assert_int_equal(harness_frame(h, &state, 2), USER_CS);
    assert_int_equal(harness_frame(h, &state, 5), USER_SS);
    assert_int_equal(harness_frame(h, &state, 3) & ~(uint64_t)RFLAGS_RF,
                     RFLAGS_IF | RFLAGS_DF | RFLAGS_CF | 2);
}

static uint64_t run_with_interrupt(struct harness *h, struct x86_state *state)
{
    h->vector = 0x40;
    cpu_request(h->cpu[0], REQUEST_INTR);
    assert_int_equal(harness_run(h, state), CPU_HALTED);
    return state->gpr[RAX];
}

static void interrupt_shadows(void **test)
{
    struct harness *h = *test;
    struct x86_state state;
    harness_long_mode(h, &state);
    LOAD(h, sti);
    assert_int_equal(run_with_interrupt(h, &state), 2);
    assert_int_equal(harness_vector(&state), 0x40);
    assert_int_equal(harness_frame(h, &state, 0), CODE + 7);
    assert_false(state.rflags & RFLAGS_IF);
    assert_int_equal(h->acknowledged, 1);
    harness_long_mode(h, &state);
    LOAD(h, popf);
    assert_int_equal(run_with_interrupt(h, &state), 0);
    harness_long_mode(h, &state);
    LOAD(h, mov_ss);
    /* IF comes from the POPF, so the interrupt comes before MOV SS; without it, after the shadow.
     */
    state.rip = CODE + 2 + 5 + 1 + 8 + 1;
    state.gpr[RCX] = KERNEL_SS;
    state.gpr[RAX] = 0;
    state.rflags |= RFLAGS_IF;
    state.pending.sti_shadow = true; /* lets MOV SS itself begin */
    assert_int_equal(run_with_interrupt(h, &state), 1);
}

/* With STI before it, HLT begins before the interrupt, which then ends it. */
static void halt_after_sti(void **test)
{
    struct harness *h = *test;
    struct x86_state state;
    harness_long_mode(h, &state);
    LOAD(h, sti_hlt);
    run_with_interrupt(h, &state);
    assert_int_equal(harness_vector(&state), 0x40);
    assert_int_equal(harness_frame(h, &state, 0), CODE + 2);
}

static void halted_until_interrupt(void **test)
{
    struct harness *h = *test;
    struct x86_state state;
    harness_long_mode(h, &state);
    LOAD(h, nmi);
    state.rflags |= RFLAGS_IF;
    assert_int_equal(harness_run(h, &state), CPU_HALTED);
    assert_false(cpu_has_work(h->cpu[0]));
    assert_int_equal(cpu_run(h->cpu[0]), CPU_HALTED);
    h->vector = 0x41;
    cpu_request(h->cpu[0], REQUEST_INTR);
    assert_true(cpu_has_work(h->cpu[0]));
    assert_int_equal(cpu_run(h->cpu[0]), CPU_HALTED);
    cpu_get_state(h->cpu[0], &state);
    assert_int_equal(harness_vector(&state), 0x41);
    cpu_request(h->cpu[0], REQUEST_KICK);
    assert_int_equal(cpu_run(h->cpu[0]), CPU_KICKED);
}

/* A state of KVM's may hold an interrupt that was acknowledged and not yet delivered: it comes
 * before the next instruction, whatever IF is by then, as an interrupt with no error code; its
 * frame has no RF, and a missing gate is a fault with EXT. */
static void acknowledged_interrupt(void **test)
{
    struct harness *h = *test;
    struct x86_state state;
    harness_long_mode(h, &state);
    LOAD(h, nmi);
    state.pending = (struct x86_pending){.exception = true, .vector = 0x41};
    assert_int_equal(harness_run(h, &state), CPU_HALTED);
    assert_int_equal(harness_vector(&state), 0x41);
    assert_int_equal(harness_frame(h, &state, 0), CODE);
    assert_int_equal(harness_frame(h, &state, 2) & RFLAGS_RF, 0);
    harness_long_mode(h, &state);
    uint64_t gate = harness_get64(h, IDT + 0x41 * 16);
    harness_put64(h, IDT + 0x41 * 16, gate & ~(UINT64_C(0x8000) << 32));
    state.pending = (struct x86_pending){.exception = true, .vector = 0x41};
    assert_int_equal(harness_run(h, &state), CPU_HALTED);
    assert_int_equal(harness_vector(&state), VECTOR_NP);
    assert_int_equal(harness_frame(h, &state, 0), 0x41 * 8 + 3);
    state.pending = (struct x86_pending){.exception = true, .vector = 0x41, .has_error_code = true};
    assert_false(cpu_set_state(h->cpu[0], &state));
}

/* A second NMI waits for the IRET of the first. */
static void nmi_blocking(void **test)
{
    struct harness *h = *test;
    struct x86_state state;
    harness_long_mode(h, &state);
    LOAD(h, nmi);
    cpu_request(h->cpu[0], REQUEST_NMI);
    assert_int_equal(harness_run(h, &state), CPU_HALTED);
    assert_int_equal(harness_vector(&state), VECTOR_NMI);
    assert_int_equal(harness_frame(h, &state, 0), CODE);
    assert_true(state.pending.nmi_blocked);
    cpu_request(h->cpu[0], REQUEST_NMI);
    assert_false(cpu_has_work(h->cpu[0]));
    static const uint8_t iretq[] = {0x48, 0xcf};
    memcpy(h->ram + CODE, iretq, 2);
    uint64_t rsp = state.gpr[RSP];
    state.rip = CODE;
    state.run_state = X86_RUNNING;
    state.pending.nmi = true;
    harness_put64(h, rsp, CODE + 2);
    soft_written(&h->system, CODE, 3);
    harness_run(h, &state);
    assert_int_equal(harness_vector(&state), VECTOR_NMI);
    assert_int_equal(harness_frame(h, &state, 0), CODE + 2);
}

static void double_fault(void **test)
{
    struct harness *h = *test;
    struct x86_state state;
    harness_long_mode(h, &state);
    LOAD(h, double_fault);
    state.gpr[RDI] = 0x40000000; /* not mapped */
    uint64_t gate = harness_get64(h, IDT + VECTOR_PF * 16);
    harness_put64(h, IDT + VECTOR_PF * 16, gate & ~(UINT64_C(0x8000) << 32));
    assert_int_equal(harness_run(h, &state), CPU_HALTED);
    assert_int_equal(harness_vector(&state), VECTOR_DF);
    assert_int_equal(harness_frame(h, &state, 0), 0);
    assert_int_equal(harness_frame(h, &state, 1), CODE);
    assert_int_equal(state.cr2, 0x40000000);
    /* A benign exception with a missing gate is no double fault: #NP of that vector, EXT set. */
    harness_long_mode(h, &state);
    h->ram[CODE] = 0x0f;
    h->ram[CODE + 1] = 0x0b;
    soft_written(&h->system, CODE, 2);
    gate = harness_get64(h, IDT + VECTOR_UD * 16);
    harness_put64(h, IDT + VECTOR_UD * 16, gate & ~(UINT64_C(0x8000) << 32));
    assert_int_equal(harness_run(h, &state), CPU_HALTED);
    assert_int_equal(harness_vector(&state), VECTOR_NP);
    assert_int_equal(harness_frame(h, &state, 0), VECTOR_UD * 8 + 3);
}

static void triple_fault(void **test)
{
    struct harness *h = *test;
    struct x86_state state;
    harness_long_mode(h, &state);
    LOAD(h, double_fault);
    state.gpr[RDI] = 0x40000000;
    state.idtr.limit = 0;
    assert_int_equal(harness_run(h, &state), CPU_SHUTDOWN);
    assert_int_equal(cpu_run(h->cpu[0]), CPU_SHUTDOWN); /* until a reset */
    harness_long_mode(h, &state);
    LOAD(h, popf);
    assert_int_equal(harness_run(h, &state), CPU_HALTED);
}

static void single_step(void **test)
{
    struct harness *h = *test;
    struct x86_state state;
    harness_long_mode(h, &state);
    LOAD(h, single_step);
    state.gpr[RAX] = 0;
    assert_int_equal(harness_run(h, &state), CPU_HALTED);
    assert_int_equal(harness_vector(&state), VECTOR_DB);
    assert_int_equal(state.gpr[RAX], 1);
    assert_int_equal(harness_frame(h, &state, 0), CODE + 1 + 8 + 1 + 2);
    assert_true(harness_frame(h, &state, 2) & RFLAGS_TF);
    assert_false(state.rflags & RFLAGS_TF);
    assert_true(state.dr[6] & 1 << 14);
}

static void selectors(void **test)
{
    static const struct {
        uint16_t selector;
        int vector; /* -1: loads */
    } cases[] = {
        {0, -1},
        {3, -1},
        {KERNEL_SS, -1},
        {USER_SS, -1},
        {KERNEL_CS, -1},
        {0x48, VECTOR_GP},
        {KERNEL_SS | 3, VECTOR_GP},
        {4, VECTOR_GP},
        {TSS_SELECTOR, VECTOR_GP},
        {0x38, VECTOR_GP},
    };
    struct harness *h = *test;
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct x86_state state;
        harness_long_mode(h, &state);
        LOAD(h, sregs);
        state.gpr[RCX] = cases[i].selector;
        harness_run(h, &state);
        assert_int_equal(harness_vector(&state), cases[i].vector);
        if (cases[i].vector >= 0)
            assert_int_equal(harness_frame(h, &state, 0), cases[i].selector & ~3);
        else
            assert_int_equal(state.segment[SEG_DS].selector, cases[i].selector);
    }
    /* A segment that is not present. */
    struct x86_state state;
    harness_long_mode(h, &state);
    harness_put64(h, GDT + KERNEL_SS, UINT64_C(0x00cf13000000ffff));
    state.gpr[RCX] = KERNEL_SS;
    harness_run(h, &state);
    assert_int_equal(harness_vector(&state), VECTOR_NP);
    assert_int_equal(harness_frame(h, &state, 0), KERNEL_SS);
}

static void port_access(void **test)
{
    struct harness *h = *test;
    struct x86_state state;
    harness_long_mode(h, &state);
    LOAD(h, ports);
    state.gpr[RDI] = FREE_PAGE;
    harness_run(h, &state);
    assert_int_equal(h->ports[0x80], 0x5a);
    assert_int_equal(h->ports[0x1237], 0xde);
    assert_int_equal(state.gpr[RAX], 0xdeadbe5a);
    assert_int_equal(harness_get32(h, FREE_PAGE), 0xefefefef);
    assert_int_equal(state.gpr[RDI], FREE_PAGE + 4);
    assert_int_equal(state.gpr[RCX], 0);
    /* Level 3: only what the bitmap allows. */
    harness_long_mode(h, &state);
    harness_user(&state);
    LOAD(h, port_user);
    harness_run(h, &state);
    assert_int_equal(harness_vector(&state), VECTOR_GP);
    assert_int_equal(harness_frame(h, &state, 1), CODE);
    harness_long_mode(h, &state);
    harness_user(&state);
    memset(h->ram + TSS + 0x68, 0, 32);
    state.segment[SEG_TR].limit = 0x68 + 32;
    harness_run(h, &state);
    assert_int_equal(harness_frame(h, &state, 1), CODE + 2);
    assert_int_equal(state.gpr[RAX], 0x5a);
}

/* --- code that changes ---------------------------------------------------------------------- */

static void own_block(void **test)
{
    struct harness *h = *test;
    struct x86_state state;
    harness_long_mode(h, &state);
    LOAD(h, patch_self);
    harness_run(h, &state);
    assert_int_equal(state.gpr[RAX], 2);
    assert_int_equal(harness_vector(&state), -1);
}

static void other_page(void **test)
{
    struct harness *h = *test;
    struct x86_state state;
    harness_long_mode(h, &state);
    LOAD(h, patch_other);
    put_function(h, FREE_PAGE, 1);
    harness_map(h, FREE_PAGE + 5 * PAGE_BYTES, FREE_PAGE, PTE_P | PTE_W);
    state.gpr[RDI] = FREE_PAGE;
    state.gpr[RSI] = FREE_PAGE + 5 * PAGE_BYTES;
    harness_run(h, &state);
    assert_int_equal(state.gpr[R8], 1);
    assert_int_equal(state.gpr[R9], 2);
    assert_int_equal(state.gpr[R10], 3);
    assert_int_equal(state.gpr[RAX], 4);
}

static void by_device(void **test)
{
    struct harness *h = *test;
    struct x86_state state;
    for (uint32_t constant = 1; constant < 4; constant++) {
        harness_long_mode(h, &state);
        LOAD(h, call_loop);
        put_function(h, FREE_PAGE, constant);
        soft_written(&h->system, FREE_PAGE, 6);
        state.gpr[RDI] = FREE_PAGE;
        state.gpr[R15] = 10;
        harness_run(h, &state);
        assert_int_equal(state.gpr[RBX], 10 * constant);
    }
}

static void straddling(void **test)
{
    struct harness *h = *test;
    struct x86_state state;
    const uint64_t at = FREE_PAGE + PAGE_BYTES - 3;
    harness_long_mode(h, &state);
    LOAD(h, call_loop);
    put_function(h, at, 5);
    state.gpr[RDI] = at;
    state.gpr[R15] = 4;
    harness_map(h, FREE_PAGE + PAGE_BYTES, 0, 0);
    harness_run(h, &state);
    assert_int_equal(harness_vector(&state), VECTOR_PF);
    assert_int_equal(state.cr2, FREE_PAGE + PAGE_BYTES);
    assert_int_equal(harness_frame(h, &state, 0), 16);
    assert_int_equal(harness_frame(h, &state, 1), at);
    harness_long_mode(h, &state);
    state.gpr[RDI] = at;
    state.gpr[R15] = 4;
    harness_run(h, &state);
    assert_int_equal(state.gpr[RBX], 20);
    /* Another second page, whose rest of the constant differs. */
    harness_long_mode(h, &state);
    memcpy(h->ram + FREE_PAGE + 6 * PAGE_BYTES, "\x01\x00\xc3", 3);
    harness_map(h, FREE_PAGE + PAGE_BYTES, FREE_PAGE + 6 * PAGE_BYTES, PTE_P);
    state.gpr[RDI] = at;
    state.gpr[R15] = 1;
    harness_run(h, &state);
    assert_int_equal(state.gpr[RBX], 0x10005);
    /* And a change of the second page's bytes. */
    harness_long_mode(h, &state);
    h->ram[FREE_PAGE + PAGE_BYTES] = 2;
    soft_written(&h->system, FREE_PAGE + PAGE_BYTES, 1);
    state.gpr[RDI] = at;
    state.gpr[R15] = 1;
    harness_run(h, &state);
    assert_int_equal(state.gpr[RBX], 0x20005);
}

/* Fifteen bytes are the most; prefixes alone that go on are #GP, also at the end of a page. */
static void too_long(void **test)
{
    struct harness *h = *test;
    for (unsigned i = 0; i < 2; i++) {
        struct x86_state state;
        uint64_t at = i == 0 ? FREE_PAGE : FREE_PAGE + PAGE_BYTES - 7;
        harness_long_mode(h, &state);
        memset(h->ram + at, 0x66, 16);
        state.rip = at;
        harness_run(h, &state);
        assert_int_equal(harness_vector(&state), VECTOR_GP);
        assert_int_equal(harness_frame(h, &state, 1), at);
    }
}

/* --- several processors --------------------------------------------------------------------- */

struct runner {
    struct cpu *cpu;
    enum cpu_exit exit;
};

static void *run_thread(void *opaque)
{
    struct runner *runner = opaque;
    runner->exit = cpu_run(runner->cpu);
    return NULL;
}

static void run_both(struct harness *h, struct x86_state states[2])
{
    struct runner runners[2];
    pthread_t threads[2];
    for (unsigned i = 0; i < 2; i++) {
        runners[i].cpu = h->cpu[i];
        assert_true(cpu_set_state(h->cpu[i], &states[i]));
    }
    for (unsigned i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, run_thread, &runners[i]);
    for (unsigned i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(runners[i].exit, CPU_HALTED);
        cpu_get_state(h->cpu[i], &states[i]);
    }
}

/* One processor changes code that the other has run; the writer has had the page writable before
 * the other decoded it. */
static void cross_modification(void **test)
{
    struct harness *h = harness_open(2);
    for (unsigned round = 0; round < 50; round++) {
        struct x86_state states[2];
        harness_long_mode(h, &states[0]);
        states[1] = states[0];
        LOAD(h, wait_call);
        memcpy(h->ram + CODE + PAGE_BYTES, program_wait_patch,
               (size_t)(program_wait_patch_end - program_wait_patch));
        put_function(h, FREE_PAGE, 1);
        soft_written(&h->system, FREE_PAGE, 6);
        harness_put64(h, FREE_PAGE + 5 * PAGE_BYTES, 0);
        for (unsigned i = 0; i < 2; i++) {
            states[i].gpr[RDI] = FREE_PAGE;
            states[i].gpr[RSI] = FREE_PAGE + 5 * PAGE_BYTES;
        }
        states[1].rip = CODE + PAGE_BYTES;
        states[1].gpr[RSP] = STACK_IST;
        run_both(h, states);
        assert_int_equal(states[0].gpr[R8], 1);
        assert_int_equal(states[0].gpr[R9], 7);
    }
    harness_close(h);
}

/* Locked additions are atomic on one page, and across two. */
static void locked_counter(void **test)
{
    enum { TIMES = 100000 };
    struct harness *h = harness_open(2);
    for (unsigned i = 0; i < 2; i++) {
        struct x86_state states[2];
        uint64_t at = i == 0 ? FREE_PAGE + 8 : FREE_PAGE + PAGE_BYTES - 2;
        harness_long_mode(h, &states[0]);
        LOAD(h, locked_add);
        harness_put64(h, at, 0);
        states[0].gpr[RDI] = at;
        states[0].gpr[RCX] = TIMES;
        states[1] = states[0];
        run_both(h, states);
        assert_int_equal(harness_get32(h, at), 2 * TIMES);
    }
    harness_close(h);
}

/* --- state ---------------------------------------------------------------------------------- */

static void state_kept(void **test)
{
    struct harness *h = *test;
    struct x86_state in, out;
    harness_long_mode(h, &in);
    harness_user(&in);
    for (unsigned i = 0; i < 16; i++)
        in.gpr[i] = 0x0101010101010101 * (i + 1);
    in.rflags = 0x2 | RFLAGS_IF | RFLAGS_OF | RFLAGS_SF | RFLAGS_AF | RFLAGS_ID;
    in.cr2 = 0x1234;
    in.lstar = 0xffffffff81000000;
    in.kernel_gs_base = 0xffff888000000000;
    in.tsc_aux = 7;
    in.mtrr_base[7] = 0x80000006;
    in.debugctl = 2;
    in.pkru = 0x55555554;
    in.mcg_status = 4;
    in.mc_bank[9][2] = 0x1234;
    in.pending = (struct x86_pending){.exception = true,
                                      .vector = VECTOR_PF,
                                      .has_error_code = true,
                                      .error_code = 6,
                                      .nmi = true,
                                      .nmi_blocked = true,
                                      .mov_ss_shadow = true,
                                      .debug = 1 << 14 | 2};
    assert_true(cpu_set_state(h->cpu[0], &in));
    cpu_get_state(h->cpu[0], &out);
    in.tsc = out.tsc = 0;
    in.apic_base = 0; /* the embedder's */
    assert_memory_equal(out.xsave, in.xsave, 28);
    memcpy(in.xsave, out.xsave, sizeof(in.xsave)); /* MXCSR_MASK and XSTATE_BV are filled in */
    assert_memory_equal(&in, &out, sizeof(in));
    /* States that no processor can be in. */
    struct x86_state bad = in;
    bad.cr0 &= ~CR0_PE;
    assert_false(cpu_set_state(h->cpu[0], &bad));
    bad = in;
    bad.xcr0 = 0;
    assert_false(cpu_set_state(h->cpu[0], &bad));
    bad = in;
    bad.efer &= ~EFER_LMA;
    assert_false(cpu_set_state(h->cpu[0], &bad));
    cpu_get_state(h->cpu[0], &out);
    out.tsc = 0;
    assert_memory_equal(&in, &out, sizeof(in));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(real_to_long_mode),
        TEST(startup_ipi),
        TEST(compatibility_mode),
        TEST(page_faults),
        TEST(not_canonical),
        TEST(crossing_writes),
        TEST(mmio_access),
        TEST(invalidation),
        TEST(pcids),
        TEST(large_pages),
        TEST(segment_limits),
        TEST(stack_switch),
        TEST(return_to_user_32),
        TEST(paging_32),
        TEST(interrupt_stack_table),
        TEST(system_calls),
        TEST(interrupt_shadows),
        TEST(halt_after_sti),
        TEST(halted_until_interrupt),
        TEST(acknowledged_interrupt),
        TEST(nmi_blocking),
        TEST(double_fault),
        TEST(triple_fault),
        TEST(single_step),
        TEST(selectors),
        TEST(port_access),
        TEST(own_block),
        TEST(other_page),
        TEST(by_device),
        TEST(straddling),
        TEST(too_long),
        TEST(cross_modification),
        TEST(locked_counter),
        TEST(state_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
