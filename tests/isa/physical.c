/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Physical memory that changes while processors run: data and code that come and go under their
 * addresses, writes to ROM, and the log of written pages. With and without the translator.
 */
#include "isa/harness.h"

#include "isa/options.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum { PLACE = FREE_PAGE, PLACE_BYTES = 16 * PAGE_BYTES, ROUNDS = 3000, WRITES = 2000000 };
enum { RAM_VALUE = 0x1111, ROM_VALUE = 0x2222, BUS_VALUE = 0x3333 };

struct fixture {
    struct harness *h;
    uint8_t *rom;
    unsigned outs;
    uint64_t bus_gpa, bus_value;
    unsigned bus_writes;
    _Atomic bool has_ended;
};

/* Looks at the place before and after each change, in one block. */
__asm__(".pushsection .rodata\n"
        "program_look:\n"
        "  mov (%rdi), %r8d\n"
        "  out %al, %dx\n"
        "  mov (%rdi), %r9d\n"
        "  movl $0x5555, (%rdi)\n"
        "  mov (%rdi), %r10d\n"
        "  out %al, %dx\n"
        "  mov (%rdi), %r11d\n"
        "  out %al, %dx\n"
        "  mov (%rdi), %r12d\n"
        "  hlt\n"
        "program_look_end:\n"
        /* Calls a function there, and has the memory changed each time. */
        "program_calls:\n"
        "1: call *%rdi\n"
        "  add %rax, %rbx\n"
        "  out %al, %dx\n"
        "  dec %ecx\n"
        "  jnz 1b\n"
        "  hlt\n"
        "program_calls_end:\n"
        /* Waits for another value. */
        "program_waits:\n"
        "1: mov (%rdi), %eax\n"
        "  cmp %ebx, %eax\n"
        "  je 1b\n"
        "  hlt\n"
        "program_waits_end:\n"
        /* Writes its counter into changing pages. */
        "program_writes:\n"
        "1: mov %ecx, %eax\n"
        "  imul $0x9e3779b1, %eax\n"
        "  shr $16, %eax\n"
        "  and $0xfff8, %eax\n"
        "  mov %rcx, (%rdi,%rax)\n"
        "  dec %ecx\n"
        "  jnz 1b\n"
        "  hlt\n"
        "program_writes_end:\n"
        ".popsection\n");
PROGRAM(look)
PROGRAM(calls)
PROGRAM(waits)
PROGRAM(writes)

enum what { IS_RAM, IS_ROM, IS_NOTHING };

static void lay(struct fixture *f, enum what what, bool is_logged)
{
    struct soft_region regions[] = {
        {.gpa = 0, .size_bytes = PLACE, .hva = f->h->ram},
        {.gpa = PLACE + PLACE_BYTES,
         .size_bytes = RAM_BYTES - PLACE - PLACE_BYTES,
         .hva = f->h->ram + PLACE + PLACE_BYTES},
        {.gpa = PLACE,
         .size_bytes = PLACE_BYTES,
         .hva = what == IS_ROM ? f->rom : f->h->ram + PLACE,
         .read_only = what == IS_ROM,
         .is_logged = is_logged},
    };
    assert_true(soft_set_regions(&f->h->system, regions, what == IS_NOTHING ? 2 : 3));
}

/* Each write to the port goes on to the next of RAM, ROM and nothing, or of the first two. */
static void port_write(void *opaque, uint16_t port, uint64_t value, unsigned size_bytes)
{
    struct fixture *f = opaque;
    f->outs++;
    lay(f, (enum what)(f->outs % (port == 0x20 ? 3 : 2)), false);
}

static uint64_t mmio_read(void *opaque, uint64_t gpa, unsigned size_bytes)
{
    return BUS_VALUE;
}

static void mmio_write(void *opaque, uint64_t gpa, uint64_t value, unsigned size_bytes)
{
    struct fixture *f = opaque;
    f->bus_gpa = gpa;
    f->bus_value = value;
    f->bus_writes++;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    f->h = harness_open(1);
    f->rom = aligned_alloc(PAGE_BYTES, PLACE_BYTES);
    memset(f->rom, 0, PLACE_BYTES);
    f->h->system.callbacks.opaque = f;
    f->h->system.callbacks.port_write = port_write;
    f->h->system.callbacks.mmio_read = mmio_read;
    f->h->system.callbacks.mmio_write = mmio_write;
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    harness_close(f->h);
    free(f->rom);
    free(f);
    return 0;
}

static void begin(struct fixture *f, struct x86_state *state)
{
    harness_long_mode(f->h, state);
    state->gpr[RDI] = PLACE;
    state->gpr[RDX] = 0x20;
}

static void put32(uint8_t *at, uint32_t value)
{
    memcpy(at, &value, sizeof(value));
}

static void test_next_instruction_sees_it(void **state)
{
    struct fixture *f = *state;
    struct x86_state cpu;
    put32(f->h->ram + PLACE, RAM_VALUE);
    put32(f->rom, ROM_VALUE);
    for (unsigned i = 1; i <= 200; i++) {
        begin(f, &cpu);
        LOAD(f->h, look);
        assert_int_equal(harness_run(f->h, &cpu), CPU_HALTED);
        assert_int_equal(cpu.gpr[R8], RAM_VALUE);
        assert_int_equal(cpu.gpr[R9], ROM_VALUE);
        assert_int_equal(cpu.gpr[R10], ROM_VALUE);
        assert_int_equal(cpu.gpr[R11], BUS_VALUE);
        assert_int_equal(cpu.gpr[R12], RAM_VALUE);
        assert_int_equal(f->bus_writes, i);
        assert_int_equal(f->bus_gpa, PLACE);
        assert_int_equal(f->bus_value, 0x5555);
    }
}

/* MOV EAX, constant; RET. */
static void put_function(uint8_t *at, uint32_t constant)
{
    *at = 0xb8;
    put32(at + 1, constant);
    at[5] = 0xc3;
}

static void test_code(void **state)
{
    struct fixture *f = *state;
    struct x86_state cpu;
    put_function(f->h->ram + PLACE, RAM_VALUE);
    put_function(f->rom, ROM_VALUE);
    begin(f, &cpu);
    LOAD(f->h, calls);
    cpu.gpr[RCX] = ROUNDS;
    cpu.gpr[RDX] = 0x21;
    assert_int_equal(harness_run(f->h, &cpu), CPU_HALTED);
    assert_int_equal(cpu.gpr[RBX], ROUNDS / 2 * (RAM_VALUE + ROM_VALUE));
    assert_int_equal(f->outs, ROUNDS);
}

static void *run(void *opaque)
{
    struct fixture *f = opaque;
    enum cpu_exit exit = cpu_run(f->h->cpu[0]);
    f->has_ended = true;
    return (void *)(uintptr_t)(exit == CPU_HALTED);
}

static void test_other_processors_see_it(void **state)
{
    struct fixture *f = *state;
    struct x86_state cpu;
    put32(f->h->ram + PLACE, RAM_VALUE);
    put32(f->rom, ROM_VALUE);
    for (unsigned i = 0; i < 20; i++) {
        pthread_t thread;
        void *is_good;
        lay(f, IS_RAM, false);
        begin(f, &cpu);
        LOAD(f->h, waits);
        cpu.gpr[RBX] = RAM_VALUE;
        assert_true(cpu_set_state(f->h->cpu[0], &cpu));
        assert_int_equal(pthread_create(&thread, NULL, run, f), 0);
        for (unsigned k = 0; k < i; k++)
            sched_yield();
        lay(f, IS_ROM, false);
        assert_int_equal(pthread_join(thread, &is_good), 0);
        assert_non_null(is_good);
        cpu_get_state(f->h->cpu[0], &cpu);
        assert_int_equal(cpu.gpr[RAX], ROM_VALUE);
    }
}

static uint64_t take(struct fixture *f)
{
    uint64_t pages = 0;
    soft_take_written(&f->h->system, f->h->ram + PLACE, PLACE_BYTES, &pages);
    return pages;
}

/* Who copies what the log tells has all in the end, however the two went on beside each other. */
static void test_log_misses_nothing(void **state)
{
    struct fixture *f = *state;
    struct x86_state cpu;
    uint8_t *copy = calloc(1, PLACE_BYTES), *place = f->h->ram + PLACE;
    pthread_t thread;
    void *is_good;
    lay(f, IS_RAM, true);
    assert_int_equal(take(f), 0xffff); /* it has just come */
    assert_int_equal(take(f), 0);
    begin(f, &cpu);
    LOAD(f->h, writes);
    cpu.gpr[RCX] = WRITES;
    assert_true(cpu_set_state(f->h->cpu[0], &cpu));
    assert_int_equal(pthread_create(&thread, NULL, run, f), 0);
    bool is_last = false;
    while (!is_last) {
        is_last = f->has_ended;
        uint64_t pages = take(f);
        for (unsigned i = 0; i < PLACE_BYTES / PAGE_BYTES; i++)
            if (pages >> i & 1)
                memcpy(copy + i * PAGE_BYTES, place + i * PAGE_BYTES, PAGE_BYTES);
    }
    assert_int_equal(pthread_join(thread, &is_good), 0);
    assert_non_null(is_good);
    assert_memory_equal(copy, place, PLACE_BYTES);
    assert_int_equal(take(f), 0);
    free(copy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_next_instruction_sees_it, setup, teardown),
        cmocka_unit_test_setup_teardown(test_code, setup, teardown),
        cmocka_unit_test_setup_teardown(test_other_processors_see_it, setup, teardown),
        cmocka_unit_test_setup_teardown(test_log_misses_nothing, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
