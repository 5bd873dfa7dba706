/* SPDX-License-Identifier: BSD-2-Clause
 *
 * translator=check: host code is spoiled by hand, and the difference must be found, named and told;
 * and what must not be taken for one: I/O and MMIO, which happen once, and memory that a device
 * changes.
 */
#include "cpu/soft/translator/check.h"
#include "cpu/soft/translator/internal.h"
#include "isa/harness.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { DATA = FREE_PAGE, TARGET = CODE + 0x800, LOG_BYTES = 64 << 10 };

struct fixture {
    struct harness *h;
    struct log log;
    char text[LOG_BYTES];
    struct x86_state state;
};

static void keep(void *opaque, enum log_level level, const char *module, const char *text)
{
    struct fixture *f = opaque;
    size_t length = strlen(f->text);
    snprintf(f->text + length, sizeof(f->text) - length, "%s\n", text);
}

static int setup(void **test)
{
    struct fixture *f = calloc(1, sizeof(*f));
    f->h = harness_open_with(
        1, (struct translator_options){.is_on = true, .is_eager = true, .is_check = true});
    f->log = (struct log){LOG_ERROR, keep, f};
    f->h->system.log = &f->log;
    harness_long_mode(f->h, &f->state);
    f->state.cr4 |= CR4_OSFXSR;
    f->state.gpr[RDI] = DATA;
    f->state.gpr[RAX] = 7;
    f->state.gpr[RBX] = 9;
    f->h->ram[TARGET] = 0xf4;
    *test = f;
    return 0;
}

static int teardown(void **test)
{
    struct fixture *f = *test;
    harness_close(f->h);
    free(f);
    return 0;
}

#define LOAD_BYTES(f, ...)                                                                         \
    load_bytes(f, (const uint8_t[]){__VA_ARGS__}, sizeof((uint8_t[]){__VA_ARGS__}))

static void load_bytes(struct fixture *f, const uint8_t *bytes, size_t count)
{
    harness_load(f->h, bytes, bytes + count);
}

static enum cpu_exit run(struct fixture *f)
{
    struct x86_state state = f->state;
    return harness_run(f->h, &state);
}

/* Changes host code of the block at CODE: the bytes `from`, which must be there once. */
static void spoil(struct fixture *f, const char *from, const char *to, size_t count)
{
    struct cpu *cpu = f->h->cpu[0];
    const struct block *block = jump_slot(cpu, CODE)->block;
    assert_true(block && block->is_translated);
    uint8_t *code = cpu->translator->writable + (block->code - cpu->translator->executable);
    uint8_t *found = memmem(code, block->host_bytes, from, count);
    assert_non_null(found);
    size_t left = block->host_bytes - (size_t)(found + 1 - code);
    assert_null(memmem(found + 1, left, from, count));
    memcpy(found, to, count);
}

/* As it is, no difference; spoiled, one in `instruction`, told as `cause`. */
static void expect_found(struct fixture *f, const char *from, const char *to, size_t count,
                         const char *instruction, const char *cause)
{
    struct cpu *cpu = f->h->cpu[0];
    assert_int_equal(run(f), CPU_HALTED);
    assert_null(check_failure(cpu));
    assert_true(cpu->stats.blocks_checked + cpu->stats.blocks_checked_partly > 0);
    spoil(f, from, to, count);
    assert_int_equal(run(f), CPU_FAILED);
    const struct error *error = check_failure(cpu);
    assert_non_null(error);
    if (!strstr(error->where, instruction) || !strstr(error->cause, cause))
        fail_msg("%s: %s", error->where, error->cause);
    assert_non_null(strstr(f->text, instruction));
    assert_non_null(strstr(f->text, "host code, "));
    assert_int_equal(run(f), CPU_FAILED);
}

static void test_register(void **test)
{
    struct fixture *f = *test;
    LOAD_BYTES(f, 0x48, 0x31, 0xd2, 0x48, 0x01, 0xd8, 0x48, 0xff, 0xc1, 0xff, 0xe6);
    f->state.gpr[RSI] = TARGET; /* xor rdx, rdx; add rax, rbx; inc rcx; jmp rsi */
    expect_found(f, "\x48\x03\xc3", "\x48\x2b\xc3", 3, "add rax, rbx at RIP 0x10003",
                 "RAX is fffffffffffffffe, should be 0000000000000010");
    assert_non_null(strstr(f->text, "> 0x10003"));
    assert_non_null(strstr(f->text, "RAX: before 0000000000000007, interpreter 0000000000000010"));
    assert_null(strstr(f->text, "RCX:"));
}

static void test_stored_register(void **test)
{
    struct fixture *f = *test;
    LOAD_BYTES(f, 0x4d, 0x8d, 0x6d, 0x05, 0xff, 0xe6); /* lea r13, [r13+5]; jmp rsi */
    f->state.gpr[RSI] = TARGET;
    f->state.gpr[R13] = 1;
    struct cpu *cpu = f->h->cpu[0];
    assert_int_equal(run(f), CPU_HALTED);
    const struct block *block = jump_slot(cpu, CODE)->block;
    uint8_t *code = cpu->translator->writable + (block->code - cpu->translator->executable);
    uint8_t *disp = memchr(code + POLL_BYTES, 5, block->host_bytes);
    assert_non_null(disp);
    *disp = 6;
    assert_int_equal(run(f), CPU_FAILED);
    assert_non_null(strstr(check_failure(cpu)->where, "lea r13"));
}

static void test_flags(void **test)
{
    struct fixture *f = *test;
    LOAD_BYTES(f, 0x48, 0x39, 0xd8, 0x48, 0x89, 0xc2, 0xff, 0xe6);
    f->state.gpr[RSI] = TARGET; /* cmp rax, rbx; mov rdx, rax; jmp rsi */
    expect_found(f, "\x48\x3b\xc3", "\x48\x85\xc3", 3, "cmp rax, rbx",
                 "RFLAGS is 0000000000000002, should be 0000000000000093");
}

/* Flags that nothing uses are no difference: the next instruction overwrites them. */
static void test_dead_flags(void **test)
{
    struct fixture *f = *test;
    LOAD_BYTES(f, 0x48, 0x39, 0xd8, 0x48, 0x01, 0xd8, 0xff, 0xe6);
    f->state.gpr[RSI] = TARGET; /* cmp rax, rbx; add rax, rbx; jmp rsi */
    assert_int_equal(run(f), CPU_HALTED);
    spoil(f, "\x48\x3b\xc3", "\x48\x85\xc3", 3);
    assert_int_equal(run(f), CPU_HALTED);
}

static void test_memory(void **test)
{
    struct fixture *f = *test;
    LOAD_BYTES(f, 0x48, 0x89, 0x47, 0x40, 0x48, 0xff, 0xc0, 0xff, 0xc9, 0x75, 0xf5, 0xff, 0xe6);
    f->state.gpr[RSI] = TARGET; /* mov [rdi+40h], rax; inc rax; dec ecx; jnz; jmp rsi */
    f->state.gpr[RCX] = 3;      /* the first time the page isn't in the TLB */
    expect_found(f, "\x49\x89\x44\x3e\x40", "\x49\x29\x44\x3e\x40", 5, "mov [rdi+0x40], rax",
                 "memory at gpa 0x180040 is ffffffffffffffff, should be 0000000000000008");
    assert_non_null(strstr(f->text, "before 0000000000000007, interpreter"));
}

static void test_vector(void **test)
{
    struct fixture *f = *test;
    LOAD_BYTES(f, 0x66, 0x0f, 0xfe, 0xc1, 0xff, 0xe6); /* paddd xmm0, xmm1; jmp rsi */
    f->state.gpr[RSI] = TARGET;
    f->state.xsave[512] = 2; /* XSTATE_BV: SSE */
    f->state.xsave[160 + 16] = 3;
    memcpy(f->state.xsave + 24, (const uint32_t[]){0x1f80}, 4);
    expect_found(
        f, "\x66\x0f\xfe\xc1", "\x66\x0f\xfa\xc1", 4, "paddd xmm0, xmm1",
        "fffffffd, should be 0000000000000000000000000000000000000000000000000000000000000003");
}

/* Translated code raises where the interpreter doesn't. */
static void test_exception(void **test)
{
    struct fixture *f = *test;
    LOAD_BYTES(f, 0x48, 0x01, 0xd7, 0x48, 0x8b, 0x0f, 0xff, 0xe6);
    f->state.gpr[RSI] = TARGET; /* add rdi, rdx; mov rcx, [rdi]; jmp rsi */
    f->state.gpr[RDX] = 0x1000;
    harness_map(f->h, DATA - 0x1000, 0, 0);
    expect_found(f, "\x48\x03\xfa", "\x48\x2b\xfa", 3, "mov rcx, [rdi]",
                 "exception is 14(0), should be none");
}

/* Compared up to the instruction that writes the port, and that writes once. */
static void test_port(void **test)
{
    struct fixture *f = *test;
    LOAD_BYTES(f, 0x48, 0x01, 0xd8, 0xee, 0xff, 0xe6); /* add rax, rbx; out dx, al; jmp rsi */
    f->state.gpr[RSI] = TARGET;
    f->state.gpr[RDX] = 0x80;
    expect_found(f, "\x48\x03\xc3", "\x48\x2b\xc3", 3, "add rax, rbx", "RAX");
    assert_true(f->h->cpu[0]->stats.blocks_checked_partly > 0);
}

static void test_mmio_once(void **test)
{
    struct fixture *f = *test;
    LOAD_BYTES(f, 0x48, 0x01, 0xd8, 0x48, 0x8b, 0x0f, 0xff, 0xe6);
    f->state.gpr[RSI] = TARGET; /* add rax, rbx; mov rcx, [rdi]; jmp rsi */
    harness_map(f->h, DATA, MMIO, PTE_P | PTE_W | PTE_U);
    assert_int_equal(run(f), CPU_HALTED);
    assert_int_equal(f->h->mmio_accesses, 1);
    spoil(f, "\x48\x03\xc3", "\x48\x2b\xc3", 3);
    assert_int_equal(run(f), CPU_FAILED);
    assert_int_equal(f->h->mmio_accesses, 2);
    assert_non_null(strstr(check_failure(f->h->cpu[0])->where, "add rax, rbx"));
}

/* A device that writes all the time what the guest reads: until it has once done so between all of
 * the runs that are compared. */
struct device {
    _Atomic uint64_t *word;
    atomic_bool ends;
};

static void *write_always(void *opaque)
{
    struct device *device = opaque;
    while (!atomic_load(&device->ends))
        atomic_fetch_add(device->word, 1);
    return NULL;
}

static void test_device(void **test)
{
    struct fixture *f = *test;
    struct device device = {.word = (void *)(f->h->ram + DATA)};
    pthread_t thread;
    LOAD_BYTES(f, 0x48, 0x8b, 0x17, 0x48, 0x01, 0xd3, 0xff, 0xc9, 0x75, 0xf6, 0xf4);
    f->state.gpr[RCX] = 100000; /* mov rdx, [rdi]; add rbx, rdx; dec ecx; jnz; hlt */
    assert_int_equal(pthread_create(&thread, NULL, write_always, &device), 0);
    enum cpu_exit exit;
    do
        exit = run(f);
    while (exit == CPU_HALTED && f->h->cpu[0]->stats.blocks_disturbed == 0);
    atomic_store(&device.ends, true);
    pthread_join(thread, NULL);
    if (exit == CPU_FAILED)
        fail_msg("%s", f->text);
    assert_int_equal(exit, CPU_HALTED);
}

/* Strings: done by the host at once, by the interpreter one by one; in a page, then over the end of
 * one, by the handler. Each run has two blocks beside that of HLT. */
static void test_string(void **test)
{
    struct fixture *f = *test;
    LOAD_BYTES(f, 0xb9, 0x00, 0x02, 0, 0, 0xf3, 0x48, 0xab, 0x48, 0x01, 0xd8, 0xff, 0xe6);
    f->state.gpr[RSI] = TARGET; /* mov ecx, 512; rep stosq; add rax, rbx; jmp rsi */
    for (unsigned i = 0; i < 40; i++) {
        f->state.gpr[RDI] = i < 20 ? DATA : DATA + 0xff8;
        assert_int_equal(run(f), CPU_HALTED);
    }
    assert_int_equal(harness_get64(f->h, DATA + 511 * 8), 7);
    assert_int_equal(harness_get64(f->h, DATA + 1022 * 8), 7);
    assert_int_equal(f->h->cpu[0]->stats.blocks_checked, 80);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(register),  TEST(stored_register), TEST(flags),     TEST(dead_flags),
        TEST(memory),    TEST(vector),          TEST(exception), TEST(port),
        TEST(mmio_once), TEST(device),          TEST(string),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
