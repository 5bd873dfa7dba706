/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What the programs of engines.c can't show of tasks, virtual-8086 mode and system calls: NMIs,
 * state in and out, and both vendors' instructions on one host.
 */
#include "isa/harness.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

enum {
    TASK = FREE_PAGE, /* its TSS */
    TASK_SELECTOR = 0x48,
    WIDE_GDT_BYTES = 0x50,
    TASK_CODE = FREE_PAGE + PAGE_BYTES,
    TASK_STACK = FREE_PAGE + 2 * PAGE_BYTES,
    TSS_EIP = 32,
    TSS_EFLAGS = 36,
    TSS_ESP = 56,
    TSS_ES = 72,
};

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

static void put32(struct harness *h, uint64_t gpa, uint32_t value)
{
    memcpy(h->ram + gpa, &value, sizeof(value));
}

static void put_code(struct harness *h, uint64_t gpa, const char *bytes, unsigned count)
{
    memcpy(h->ram + gpa, bytes, count);
    soft_written(&h->system, gpa, count);
}

/* A second task of level 0, at TASK_CODE. */
static void make_task(struct harness *h, struct x86_state *state)
{
    harness_put64(h, GDT + TASK_SELECTOR,
                  UINT64_C(0x0000890000000067) | (uint64_t)(TASK & 0xffff) << 16 |
                      (uint64_t)(TASK >> 16) << 32);
    h->ram[GDT + TSS_SELECTOR + 5] = 0x8b; /* busy, as the state has it */
    state->gdtr.limit = WIDE_GDT_BYTES - 1;
    memset(h->ram + TASK, 0, 0x68);
    put32(h, TASK + TSS_EIP, TASK_CODE);
    put32(h, TASK + TSS_EFLAGS, 2);
    put32(h, TASK + TSS_ESP, TASK_STACK);
    for (unsigned i = SEG_ES; i <= SEG_GS; i++)
        put32(h, TASK + TSS_ES + 4 * i, i == SEG_CS ? KERNEL_CS32 : KERNEL_SS);
}

static void task_gate(struct harness *h, unsigned vector)
{
    harness_put64(h, IDT + vector * 8, UINT64_C(0x850000000000) | (uint64_t)TASK_SELECTOR << 16);
}

/* SDM 3A 6.7.1, 7.3: an NMI through a task gate blocks others until the task's IRET. */
static void nmi_by_task_gate(void **test)
{
    struct harness *h = *test;
    struct x86_state state;
    harness_protected_mode(h, &state);
    make_task(h, &state);
    task_gate(h, VECTOR_NMI);
    put_code(h, CODE, "\x90\xf4", 2);              /* NOP; HLT */
    put_code(h, TASK_CODE, "\xf4\xcf\xeb\xfc", 4); /* HLT; IRET; JMP */
    cpu_request(h->cpu[0], REQUEST_NMI);
    assert_int_equal(harness_run(h, &state), CPU_HALTED);
    assert_int_equal(state.segment[SEG_TR].selector, TASK_SELECTOR);
    assert_int_equal(state.rip, TASK_CODE + 1);
    assert_true(state.pending.nmi_blocked);
    cpu_request(h->cpu[0], REQUEST_NMI);
    assert_false(cpu_has_work(h->cpu[0]));
    state.pending.nmi = true;
    state.run_state = X86_RUNNING;
    /* IRET leads back, and the second NMI into the task again, behind its IRET. */
    assert_int_equal(harness_run(h, &state), CPU_HALTED);
    assert_int_equal(state.segment[SEG_TR].selector, TASK_SELECTOR);
    assert_int_equal(state.rip, TASK_CODE + 1);
    assert_true(state.pending.nmi_blocked);
    assert_int_equal(harness_get32(h, TSS + TSS_EIP), CODE);
    state.run_state = X86_RUNNING;
    assert_int_equal(harness_run(h, &state), CPU_HALTED);
    assert_int_equal(state.segment[SEG_TR].selector, TSS_SELECTOR);
    assert_int_equal(state.rip, CODE + 2);
    assert_false(state.pending.nmi_blocked);
}

/* SDM 3A 4.4.1: the PDPTEs are registers, loaded with CR3; what memory has of them later counts no
 * more, in a processor that takes the state over neither. */
static void pdptes(void **test)
{
    enum { PAE_PDPT = FREE_PAGE, PAE_PD = FREE_PAGE + PAGE_BYTES };
    struct harness *h = *test;
    struct x86_state state;
    harness_protected_mode(h, &state);
    harness_put64(h, PAE_PDPT, PAE_PD | PTE_P);
    for (unsigned i = 1; i < 4; i++)
        harness_put64(h, PAE_PDPT + 8 * i, 0);
    harness_put64(h, PAE_PD, PTE_PS | PTE_W | PTE_P); /* the first 2 MiB */
    state.cr0 |= CR0_PG;
    state.cr4 |= CR4_PAE;
    state.cr3 = PAE_PDPT;
    put_code(h, CODE, "\xa1\0\0\x01\0\xf4", 6); /* MOV EAX, [CODE]; HLT */
    assert_int_equal(harness_run(h, &state), CPU_HALTED);
    assert_int_equal(state.rip, CODE + 6);
    assert_true(state.has_pdptes);
    assert_int_equal(state.pdpte[0], PAE_PD | PTE_P);
    harness_put64(h, PAE_PDPT, 0);
    state.run_state = X86_RUNNING;
    state.rip = CODE;
    assert_int_equal(harness_run(h, &state), CPU_HALTED);
    assert_int_equal(state.rip, CODE + 6);
    state.pdpte[3] = PTE_P | PTE_W; /* a reserved bit */
    assert_false(cpu_set_state(h->cpu[0], &state));
    /* Without them they are read by CR3: now nothing is mapped, and the third fault is the last. */
    state.has_pdptes = false;
    state.run_state = X86_RUNNING;
    state.rip = CODE;
    assert_int_equal(harness_run(h, &state), CPU_SHUTDOWN);
}

/* --- the end of a code segment -------------------------------------------------------------- */

enum { SEGMENT_END = CODE + 0x1000 };

/* A segment of 4 GiB whose last byte is the one before SEGMENT_END; EIP 0 is there. `count` bytes
 * of code end with it, and are entered. */
static void at_end(struct harness *h, struct x86_state *state, const char *bytes, unsigned count)
{
    harness_protected_mode(h, state);
    state->segment[SEG_CS].base = SEGMENT_END;
    state->segment[SEG_CS].limit = UINT32_MAX;
    put_code(h, SEGMENT_END - count, bytes, count);
    put_code(h, SEGMENT_END, "\xf4\xf4\xf4\xf4", 4);
    put_code(h, SEGMENT_END + 16, "\xf4", 1);
    state->rip = UINT32_MAX - count + 1;
}

/* EIP has 32 bits: code goes on at 0, as the host's processor does (SDM 3A 5.3 leaves it open). */
static void end_of_4g(void **test)
{
    struct harness *h = *test;
    struct x86_state state;
    for (unsigned round = 0; round < 2; round++) { /* decoded, and found again */
        at_end(h, &state, "\x90\x90", 2);
        assert_int_equal(harness_run(h, &state), CPU_HALTED);
        assert_int_equal(state.rip, 1);
    }
    at_end(h, &state, "\xeb\x10", 2); /* JMP +16 */
    assert_int_equal(harness_run(h, &state), CPU_HALTED);
    assert_int_equal(state.rip, 17);
    at_end(h, &state, "\xe8\x10\0\0\0", 5); /* CALL +16 */
    assert_int_equal(harness_run(h, &state), CPU_HALTED);
    assert_int_equal(state.rip, 17);
    assert_int_equal(harness_get32(h, state.gpr[RSP]), 0);
    at_end(h, &state, "\xcd\x80", 2); /* INT 80H */
    assert_int_equal(harness_run(h, &state), CPU_HALTED);
    assert_int_equal(harness_vector(&state), 0x80);
    assert_int_equal(harness_frame(h, &state, 0), 0);
    at_end(h, &state, "\x90", 1);
    state.rflags |= RFLAGS_TF;
    assert_int_equal(harness_run(h, &state), CPU_HALTED);
    assert_int_equal(harness_vector(&state), VECTOR_DB);
    assert_int_equal(harness_frame(h, &state, 0), 0);
    /* An instruction that is not whole in front of the end. */
    at_end(h, &state, "\xb8\x12", 2); /* MOV EAX, … */
    assert_int_equal(harness_run(h, &state), CPU_HALTED);
    assert_int_equal(harness_vector(&state), VECTOR_GP);
    assert_int_equal(harness_frame(h, &state, 0), 0);
    assert_int_equal(harness_frame(h, &state, 1), UINT32_MAX - 1);
}

/* In compatibility mode the frame of an interrupt has room for more than 32 bits. */
static void end_of_compatibility(void **test)
{
    struct harness *h = *test;
    struct x86_state state, compat;
    at_end(h, &compat, "\xcd\x80", 2);
    harness_long_mode(h, &state);
    state.segment[SEG_CS] = compat.segment[SEG_CS];
    state.rip = compat.rip;
    assert_int_equal(harness_run(h, &state), CPU_HALTED);
    assert_int_equal(harness_vector(&state), 0x80);
    assert_int_equal(harness_frame(h, &state, 0), 0);
    assert_int_equal(harness_frame(h, &state, 1), KERNEL_CS32);
}

/* SDM 3A 5.3: 64 KiB are a limit as any: what is beyond is #GP, IP does not wrap. */
static void end_of_64k(void **test)
{
    struct harness *h = *test;
    struct x86_state state;
    static const struct {
        char code[3];
        uint32_t eip;
    } cases[] = {{"\x90\x90", 0x10000}, {"\xb8\x12", 0xfffe}};
    for (unsigned i = 0; i < 2; i++) {
        harness_protected_mode(h, &state);
        state.segment[SEG_CS] = (struct x86_segment){CODE, UINT16_MAX, 0x9b, KERNEL_CS32};
        put_code(h, CODE + 0xfffe, cases[i].code, 2);
        put_code(h, CODE, "\xf4", 1);
        state.rip = 0xfffe;
        assert_int_equal(harness_run(h, &state), CPU_HALTED);
        assert_int_equal(harness_vector(&state), VECTOR_GP);
        assert_int_equal(harness_frame(h, &state, 0), 0);
        assert_int_equal(harness_frame(h, &state, 1), cases[i].eip);
    }
}

/* --- virtual-8086 mode ---------------------------------------------------------------------- */

static void v86_mode(struct harness *h, struct x86_state *state)
{
    harness_protected_mode(h, state);
    for (unsigned i = SEG_ES; i <= SEG_GS; i++)
        state->segment[i] = (struct x86_segment){CODE + i * 16, UINT16_MAX, 0xf3, (CODE >> 4) + i};
    state->segment[SEG_CS] = (struct x86_segment){CODE, UINT16_MAX, 0xf3, CODE >> 4};
    state->rflags = 2 | RFLAGS_VM | RFLAGS_IF | RFLAGS_IOPL;
    state->rip = 0;
    state->gpr[RSP] = 0x1000;
}

/* SDM 3A 20.3.1: nine doublewords; those of the error code and behind it are `n` = 0. */
static void check_v86_frame(const struct harness *h, const struct x86_state *state, unsigned n)
{
    assert_int_equal(harness_frame(h, state, n), 0);
    assert_int_equal(harness_frame(h, state, n + 1), CODE >> 4);
    assert_int_equal(harness_frame(h, state, n + 2) & (RFLAGS_VM | RFLAGS_IOPL),
                     RFLAGS_VM | RFLAGS_IOPL);
    assert_int_equal(harness_frame(h, state, n + 3), 0x1000);
    assert_int_equal(harness_frame(h, state, n + 4), (CODE >> 4) + SEG_SS);
    assert_int_equal(harness_frame(h, state, n + 5), (CODE >> 4) + SEG_ES);
    assert_int_equal(harness_frame(h, state, n + 6), (CODE >> 4) + SEG_DS);
    assert_int_equal(harness_frame(h, state, n + 7), (CODE >> 4) + SEG_FS);
    assert_int_equal(harness_frame(h, state, n + 8), (CODE >> 4) + SEG_GS);
    assert_false(state->rflags & RFLAGS_VM);
    assert_int_equal(state->segment[SEG_GS].selector, 0);
}

static void v86_events(void **test)
{
    struct harness *h = *test;
    struct x86_state state, out;
    put_code(h, CODE, "\xf4", 1); /* HLT is level 0's: #GP(0) */
    v86_mode(h, &state);
    assert_true(cpu_set_state(h->cpu[0], &state));
    cpu_get_state(h->cpu[0], &out);
    assert_memory_equal(out.segment, state.segment, sizeof(state.segment));
    assert_int_equal(out.rflags, state.rflags);
    out.cr0 &= ~CR0_PE;
    assert_false(cpu_set_state(h->cpu[0], &out));
    harness_long_mode(h, &out);
    out.rflags |= RFLAGS_VM;
    assert_false(cpu_set_state(h->cpu[0], &out));
    v86_mode(h, &state);
    assert_int_equal(harness_run(h, &state), CPU_HALTED);
    assert_int_equal(harness_vector(&state), VECTOR_GP);
    assert_int_equal(harness_frame(h, &state, 0), 0);
    check_v86_frame(h, &state, 1);
    v86_mode(h, &state);
    h->vector = 0x40;
    cpu_request(h->cpu[0], REQUEST_INTR);
    assert_int_equal(harness_run(h, &state), CPU_HALTED);
    assert_int_equal(harness_vector(&state), 0x40);
    check_v86_frame(h, &state, 0);
}

/* --- system calls of the two vendors -------------------------------------------------------- */

/* SDM 2B SYSENTER, SYSEXIT: in long mode Intel's go to 64-bit code; AMD's are undefined there. */
static void sysenter_in_long_mode(void **test)
{
    struct harness *h = *test;
    struct x86_state state;
    put_code(h, CODE, "\x0f\x34", 2);
    put_code(h, CODE + 16, "\xf4", 1);
    for (unsigned is_amd = 0; is_amd < 2; is_amd++) {
        h->system.features.is_amd = is_amd;
        harness_long_mode(h, &state);
        harness_user(&state);
        state.rflags |= RFLAGS_IF;
        state.sysenter_cs = KERNEL_CS;
        state.sysenter_eip = CODE + 16;
        state.sysenter_esp = STACK_IST;
        assert_int_equal(harness_run(h, &state), CPU_HALTED);
        if (is_amd) {
            assert_int_equal(harness_vector(&state), VECTOR_UD);
            continue;
        }
        assert_int_equal(state.rip, CODE + 17);
        assert_int_equal(state.gpr[RSP], STACK_IST);
        assert_int_equal(state.segment[SEG_CS].selector, KERNEL_CS);
        assert_int_equal(state.segment[SEG_SS].selector, KERNEL_SS);
        assert_true(state.segment[SEG_CS].attributes & SEGMENT_L);
        assert_false(state.rflags & RFLAGS_IF);
    }
}

static void run_sysexit(struct harness *h, struct x86_state *state, uint64_t rip)
{
    harness_long_mode(h, state);
    state->sysenter_cs = KERNEL_CS;
    state->gpr[RDX] = rip;
    state->gpr[RCX] = STACK3;
    assert_int_equal(harness_run(h, state), CPU_HALTED);
    assert_int_equal(harness_vector(state), VECTOR_GP);
}

static void sysexit_in_long_mode(void **test)
{
    struct harness *h = *test;
    struct x86_state state;
    h->system.features.is_amd = false;
    put_code(h, CODE + 16, "\xf4", 1);
    put_code(h, CODE, "\x0f\x35", 2);
    run_sysexit(h, &state, UINT64_C(0xffffffff00000000) | (CODE + 16));
    assert_int_equal(harness_frame(h, &state, 1), CODE + 16);
    assert_int_equal(harness_frame(h, &state, 2), USER_CS32);
    put_code(h, CODE, "\x48\x0f\x35", 3);
    run_sysexit(h, &state, CODE + 16);
    assert_int_equal(harness_frame(h, &state, 1), CODE + 16);
    assert_int_equal(harness_frame(h, &state, 2), USER_CS);
    assert_int_equal(harness_frame(h, &state, 4), STACK3);
    assert_int_equal(harness_frame(h, &state, 5), USER_CS + 8);
    run_sysexit(h, &state, UINT64_C(1) << 47); /* not canonical: at level 0, nothing changed */
    assert_int_equal(harness_frame(h, &state, 1), CODE);
    assert_int_equal(harness_frame(h, &state, 2), KERNEL_CS);
}

/* APM 3 SYSCALL, SYSRET: outside of long mode AMD's go to STAR's EIP; Intel's are undefined there.
 */
static void syscall_legacy(void **test)
{
    struct harness *h = *test;
    struct x86_state state;
    put_code(h, CODE, "\x0f\x05\xf4", 3);          /* SYSCALL; HLT */
    put_code(h, CODE + 16, "\x89\xcb\x0f\x07", 4); /* MOV EBX, ECX; SYSRET */
    for (unsigned is_amd = 0; is_amd < 2; is_amd++) {
        h->system.features.is_amd = is_amd;
        harness_protected_mode(h, &state);
        harness_user(&state);
        state.rflags |= RFLAGS_IF;
        state.efer = EFER_SCE;
        state.star = (uint64_t)(USER_CS32 & ~3) << 48 | (uint64_t)KERNEL_CS32 << 32 | (CODE + 16);
        assert_int_equal(harness_run(h, &state), CPU_HALTED);
        if (!is_amd) {
            assert_int_equal(harness_vector(&state), VECTOR_UD);
            continue;
        }
        assert_int_equal(harness_vector(&state), VECTOR_GP); /* HLT at level 3 */
        assert_int_equal(state.gpr[RBX], CODE + 2);
        assert_int_equal(harness_frame(h, &state, 1), CODE + 2);
        assert_int_equal(harness_frame(h, &state, 2), USER_CS32);
        assert_true(harness_frame(h, &state, 3) & RFLAGS_IF);
        assert_int_equal(harness_frame(h, &state, 5), USER_SS);
    }
}

/* --- real mode ------------------------------------------------------------------------------ */

/* SDM 3A 9.9.2 asks for segments of 64 KiB before real mode. One that was null has them once real
 * mode has loaded it: the manual leaves that open. */
static void null_segment_to_real(void **test)
{
    struct harness *h = *test;
    struct x86_state state;
    put_code(h, CODE, "\x8e\xe0\x64\x8b\x1e\x10\x00\xf4", 8); /* FS from AX, BX from FS:10H, HLT */
    harness_put64(h, STACK3 + 0x10, 0x1357);
    x86_state_reset(&state, true);
    state.segment[SEG_CS].selector = CODE >> 4;
    state.segment[SEG_CS].base = CODE;
    state.segment[SEG_FS] = (struct x86_segment){.attributes = SEGMENT_UNUSABLE};
    state.rip = 0;
    state.gpr[RAX] = STACK3 >> 4;
    assert_int_equal(harness_run(h, &state), CPU_HALTED);
    assert_int_equal(state.rip, 8);
    assert_int_equal(state.gpr[RBX], 0x1357);
    assert_int_equal(state.segment[SEG_FS].limit, UINT16_MAX);
}

/* --- jumps to nowhere ----------------------------------------------------------------------- */

/* What is at address 0 is in no cache of targets, though these are empty when they hold zeros. */
static void branch_to_zero(void **test)
{
    static const struct {
        const char *bytes;
        unsigned count;
    } code[] = {{"\x31\xc0\xff\xe0", 4}, {"\x31\xc0\xff\xd0", 4}, {"\x6a\x00\xc3", 3}};
    struct harness *h = *test;
    for (unsigned i = 0; i < 3; i++)
        for (unsigned is_long = 0; is_long < 2; is_long++) {
            struct x86_state state;
            put_code(h, CODE, code[i].bytes, code[i].count);
            if (is_long) {
                harness_long_mode(h, &state);
                harness_map(h, 0, 0, 0);
            } else {
                harness_protected_mode(h, &state);
                put_code(h, 0, "\x0f\x0b", 2); /* UD2 */
            }
            harness_user(&state);
            assert_int_equal(harness_run(h, &state), CPU_HALTED);
            assert_int_equal(harness_vector(&state), is_long ? VECTOR_PF : VECTOR_UD);
            assert_int_equal(harness_frame(h, &state, is_long), 0);
        }
}

/* --- MONITOR and MWAIT ---------------------------------------------------------------------- */

/* SDM 3A 8.10.4: a device's write of the line ends the wait, one of the next line does not. Whoever
 * takes the state meanwhile has a processor that runs. */
static void monitored_by_device(void **test)
{
    enum { LINE = FREE_PAGE + 3 * 64 };
    struct harness *h = *test;
    struct x86_state state;
    harness_long_mode(h, &state);
    put_code(h, CODE, "\x0f\x01\xc8\x0f\x01\xc9\xf4", 7); /* MONITOR; MWAIT; HLT */
    state.gpr[RAX] = LINE + 5;
    state.gpr[RCX] = state.gpr[RDX] = 0;
    assert_true(cpu_set_state(h->cpu[0], &state));
    assert_int_equal(cpu_run(h->cpu[0]), CPU_HALTED);
    soft_written(&h->system, LINE + 64, 4);
    assert_false(cpu_has_work(h->cpu[0]));
    assert_int_equal(h->wakes, 0);
    cpu_get_state(h->cpu[0], &state);
    assert_int_equal(state.run_state, X86_RUNNING);
    assert_int_equal(state.rip, CODE + 6);
    soft_written(&h->system, LINE - 60, 64);
    assert_true(cpu_has_work(h->cpu[0]));
    assert_int_equal(h->wakes, 1);
    assert_int_equal(cpu_run(h->cpu[0]), CPU_HALTED);
    assert_false(cpu_has_work(h->cpu[0]));
    cpu_get_state(h->cpu[0], &state);
    assert_int_equal(state.run_state, X86_HALTED);
    assert_int_equal(state.rip, CODE + 7);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(pdptes),
        TEST(end_of_4g),
        TEST(end_of_compatibility),
        TEST(end_of_64k),
        TEST(nmi_by_task_gate),
        TEST(v86_events),
        TEST(sysenter_in_long_mode),
        TEST(sysexit_in_long_mode),
        TEST(syscall_legacy),
        TEST(null_segment_to_real),
        TEST(branch_to_zero),
        TEST(monitored_by_device),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
