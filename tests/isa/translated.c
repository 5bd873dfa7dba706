/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The translator where translators go wrong: code that changes, faults and interrupts in the middle
 * of blocks, modes and address spaces that change in hot code, a code cache that turns over, other
 * processors. Each scenario runs on the interpreter and in several ways on the translator, and must
 * leave the same trace; what is known of the right result is asserted, too. Programs:
 * translated_programs.S.
 */
#include "isa/harness.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

PROGRAM(patch_ahead)
PROGRAM(patch_behind)
PROGRAM(patch_mov)
PROGRAM(patch_bytes)
PROGRAM(patch_xchg)
PROGRAM(patch_locked)
PROGRAM(patch_stos)
PROGRAM(patch_movs)
PROGRAM(patch_push)
PROGRAM(patch_sse)
PROGRAM(patch_device)
PROGRAM(jit)
PROGRAM(cross_call)
PROGRAM(cross_write)
PROGRAM(faults)
PROGRAM(load)
PROGRAM(halts)
PROGRAM(shadow)
PROGRAM(stepped)
PROGRAM(levels)
PROGRAM(spaces)
PROGRAM(protection)
PROGRAM(narrow)
PROGRAM(forever_one)
PROGRAM(forever_two)
PROGRAM(forever_pages)
PROGRAM(forever_call)
PROGRAM(forever_indirect)
PROGRAM(forever_string)
PROGRAM(counters)
PROGRAM(send)
PROGRAM(receive)
PROGRAM(buffering)

#define LABEL(name) extern const uint8_t label_##name[];
LABEL(faults_after)
LABEL(faults_handler)
LABEL(load_handler)
LABEL(halts_handler)
LABEL(shadow_after)
LABEL(shadow_handler)
LABEL(stepped_handler)
LABEL(levels_syscall)
LABEL(levels_int)
LABEL(protection_handler)
#define AT(program, label) (CODE + (uint64_t)(label_##label - program_##program))

enum {
    LOG = 0x140000,
    LOG_RECORDS = LOG + 64,
    FLAGS_LOG = 0x150000,
    FLAGS_RECORDS = FLAGS_LOG + 64,
    DATA = 0x160000,
    OTHER_TABLES = 0x170000,
    OSFXSR = 1 << 9,
    ALL = PTE_P | PTE_W | PTE_U,
};

/* --- the same everywhere -------------------------------------------------------------------- */

enum { TRACE_VALUES = 1 << 18 };

/* What a scenario has seen. Values that depend on dead flags are apart: only a translator with
 * exact flags has to give them. */
struct trace {
    unsigned count, inexact_count;
    uint64_t value[TRACE_VALUES], inexact[TRACE_VALUES];
};

static void note(struct trace *trace, uint64_t value)
{
    assert_true(trace->count < TRACE_VALUES);
    trace->value[trace->count++] = value;
}

/* RFLAGS in the frame of a fault, where arithmetic flags may be dead. */
static void note_fault_flags(struct trace *trace, uint64_t rflags)
{
    note(trace, rflags & ~(uint64_t)RFLAGS_ARITHMETIC);
    assert_true(trace->inexact_count < TRACE_VALUES);
    trace->inexact[trace->inexact_count++] = rflags;
}

static void note_state(struct trace *trace, const struct x86_state *state)
{
    for (unsigned i = 0; i < 16; i++)
        note(trace, state->gpr[i]);
    note(trace, state->rip);
    note_fault_flags(trace, state->rflags);
    note(trace, state->cr2);
    note(trace, state->segment[SEG_CS].selector);
    note(trace, state->segment[SEG_SS].selector);
}

static const struct way {
    const char *name;
    struct translator_options options;
} ways[] = {
    {"interpreter", {.is_on = false}},
    {"exact", {.is_on = true, .is_eager = true, .has_exact_flags = true}},
    {"eager", {.is_on = true, .is_eager = true}},
    {"tiers", {.is_on = true, .threshold = 3}},
    {"small", {.is_on = true, .is_eager = true, .code_bytes = 1}},
};
enum { WAYS = sizeof(ways) / sizeof(ways[0]) };

typedef void scenario_fn(struct harness *h, struct trace *trace);

static void compare(const char *way, const char *what, const uint64_t *a, unsigned a_count,
                    const uint64_t *b, unsigned b_count)
{
    for (unsigned i = 0; i < a_count && i < b_count; i++)
        if (a[i] != b[i])
            fail_msg("%s: %s %u is %#llx, not %#llx", way, what, i, (unsigned long long)b[i],
                     (unsigned long long)a[i]);
    assert_int_equal(a_count, b_count);
}

static void run_everywhere(scenario_fn *scenario, unsigned cpus)
{
    static struct trace traces[WAYS];
    for (unsigned i = 0; i < WAYS; i++) {
        const struct way *way = &ways[i];
        struct harness *h = harness_open_with(cpus, way->options);
        struct trace *trace = &traces[i];
        trace->count = trace->inexact_count = 0;
        scenario(h, trace);
        if (!way->options.is_on || way->options.is_eager)
            assert_int_equal(h->cpu[0]->stats.blocks_translated > 0, way->options.is_on);
        harness_close(h);
        compare(way->name, "value", traces[0].value, traces[0].count, trace->value, trace->count);
        if (way->options.has_exact_flags)
            compare(way->name, "flags", traces[0].inexact, traces[0].inexact_count, trace->inexact,
                    trace->inexact_count);
    }
}

static void set_handler(struct harness *h, unsigned vector, uint64_t handler, unsigned dpl,
                        unsigned ist)
{
    harness_put64(h, IDT + vector * 16,
                  (handler & 0xffff) | (uint64_t)KERNEL_CS << 16 | (uint64_t)ist << 32 |
                      (UINT64_C(0x8e00) | dpl << 13) << 32 | (handler >> 16 & 0xffff) << 48);
}

static void run_to_halt(struct harness *h, struct x86_state *state)
{
    assert_int_equal(harness_run(h, state), CPU_HALTED);
    assert_int_equal(harness_vector(state), -1);
}

/* MOV EAX, constant; RET. */
static void put_function(struct harness *h, uint64_t gpa, uint32_t constant)
{
    uint8_t code[6] = {0xb8, 0, 0, 0, 0, 0xc3};
    memcpy(code + 1, &constant, 4);
    memcpy(h->ram + gpa, code, sizeof(code));
    soft_written(&h->system, gpa, sizeof(code));
}

/* --- code that changes ---------------------------------------------------------------------- */

enum { PATCHES = 1000 };

static void patch_own_block(struct harness *h, struct trace *trace)
{
    for (unsigned i = 0; i < 2; i++) {
        struct x86_state state;
        harness_long_mode(h, &state);
        if (i == 0)
            LOAD(h, patch_ahead);
        else
            LOAD(h, patch_behind);
        state.gpr[RCX] = 255;
        run_to_halt(h, &state);
        assert_int_equal(state.gpr[RBX], 255 * 256 / 2 - i); /* behind: 0 first, never 1 */
        note_state(trace, &state);
    }
}

struct patch_program {
    const uint8_t *start, *end;
};

#define PATCH(name)                                                                                \
    {                                                                                              \
        program_patch_##name, program_patch_##name##_end                                           \
    }
static const struct patch_program patch_programs[] = {
    PATCH(mov),  PATCH(bytes), PATCH(xchg), PATCH(locked),
    PATCH(stos), PATCH(movs),  PATCH(push), PATCH(sse),
};

/* Where the function is, and where it is written. */
static const struct {
    uint64_t call, write;
} patch_places[] = {
    {CODE + 0x800, CODE + 0x800},             /* own page */
    {CODE + 0x800, FREE_PAGE + 0x9800},       /* through another mapping */
    {FREE_PAGE + 0x40, FREE_PAGE + 0x40},     /* other page */
    {FREE_PAGE + 0x40, FREE_PAGE + 0xa040},   /* through another mapping */
    {FREE_PAGE + 0x1ffd, FREE_PAGE + 0x1ffd}, /* straddles */
    {FREE_PAGE + 0x1ffd, FREE_PAGE + 0xbffd}, /* through another mapping */
    {FREE_PAGE + 0x1fff, FREE_PAGE + 0x1fff}, /* its constant is in the second page */
    {FREE_PAGE + 0x1ffb, FREE_PAGE + 0x1ffb}, /* its RET is */
};

static void patch_called(struct harness *h, struct trace *trace)
{
    for (unsigned p = 0; p < sizeof(patch_programs) / sizeof(patch_programs[0]); p++) {
        for (unsigned i = 0; i < sizeof(patch_places) / sizeof(patch_places[0]); i++) {
            struct x86_state state;
            harness_long_mode(h, &state);
            state.cr4 |= OSFXSR;
            harness_map(h, FREE_PAGE + 0x9000, CODE, ALL);
            harness_map(h, FREE_PAGE + 0xa000, FREE_PAGE, ALL);
            harness_map(h, FREE_PAGE + 0xb000, FREE_PAGE + 0x1000, ALL);
            harness_map(h, FREE_PAGE + 0xc000, FREE_PAGE + 0x2000, ALL);
            harness_load(h, patch_programs[p].start, patch_programs[p].end);
            put_function(h, patch_places[i].call, 0);
            state.gpr[RDI] = patch_places[i].call;
            state.gpr[RSI] = patch_places[i].write;
            state.gpr[RCX] = PATCHES;
            run_to_halt(h, &state);
            assert_int_equal(state.gpr[RBX], PATCHES * (PATCHES + 1) / 2);
            assert_int_equal(state.gpr[R9], 0);
            note_state(trace, &state);
        }
    }
}

/* A device whose register is the function's constant. */
static void device_write(void *opaque, uint64_t gpa, uint64_t value, unsigned size_bytes)
{
    struct harness *h = opaque;
    put_function(h, FREE_PAGE + 0xffd, (uint32_t)value);
    h->mmio_accesses++;
}

static void patch_by_device(struct harness *h, struct trace *trace)
{
    struct x86_state state;
    harness_long_mode(h, &state);
    LOAD(h, patch_device);
    h->system.callbacks.mmio_write = device_write;
    harness_map(h, DATA, MMIO, ALL);
    for (unsigned i = 0; i < 2; i++) {
        /* Straddling, and the same function by another mapping whose second page follows. */
        uint64_t away = i * 0x9000;
        harness_map(h, FREE_PAGE + 0x9000, FREE_PAGE, ALL);
        harness_map(h, FREE_PAGE + 0xa000, FREE_PAGE + 0x1000, ALL);
        state.rip = CODE;
        state.run_state = X86_RUNNING;
        state.gpr[RDI] = FREE_PAGE + 0xffd + away;
        state.gpr[RSI] = DATA;
        state.gpr[RCX] = PATCHES;
        run_to_halt(h, &state);
        assert_int_equal(state.gpr[RBX], PATCHES * (PATCHES + 1) / 2);
        note_state(trace, &state);
    }
    assert_int_equal(h->mmio_accesses, 2 * PATCHES);
}

static void guest_jit(struct harness *h, struct trace *trace)
{
    static const uint64_t places[] = {FREE_PAGE, FREE_PAGE + 0xfe5, CODE + 0x800};
    for (unsigned i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        struct x86_state state;
        harness_long_mode(h, &state);
        LOAD(h, jit);
        state.gpr[RDI] = places[i];
        state.gpr[RCX] = 6000;
        run_to_halt(h, &state);
        note_state(trace, &state);
    }
}

/* The same in C, for the guest JIT's sum must be right and not just the same. */
static void guest_jit_sum(struct harness *h, struct trace *trace)
{
    uint32_t first[64], second[64];
    uint64_t sum = 0;
    struct x86_state state;
    for (uint32_t i = 0; i < 640; i++) {
        sum += i + i * 3;
        first[i & 63] = i;
        second[i & 63] = (uint32_t)sum;
        sum += (uint32_t)(i + second[i & 63]);
        for (unsigned k = 0; k < 64 && (i & 63) == 63; k++)
            sum = (uint32_t)(first[k] + second[k]) + sum * 4;
    }
    harness_long_mode(h, &state);
    LOAD(h, jit);
    state.gpr[RDI] = FREE_PAGE + 0xfe5;
    state.gpr[RCX] = 640;
    run_to_halt(h, &state);
    assert_int_equal(state.gpr[RBX], sum);
    note(trace, sum);
}

/* --- faults --------------------------------------------------------------------------------- */

enum { FAULT_PAGES = 0x2a };
enum page_state { PAGE_FREE, PAGE_READ_ONLY, PAGE_MISSING };

static void prepare_fault_data(struct harness *h)
{
    for (unsigned at = 0; at < FAULT_PAGES * PAGE_BYTES; at += 8)
        harness_put64(h, FREE_PAGE + at, at * UINT64_C(0x9e3779b97f4a7c15) >> 8);
    harness_put64(h, FREE_PAGE, 5);
    harness_put64(h, FREE_PAGE + 0x21000, 0xfffffff1);
    harness_put64(h, FREE_PAGE + 0x29000, AT(faults, faults_after));
    harness_put64(h, LOG, LOG_RECORDS);
    harness_put64(h, FLAGS_LOG, FLAGS_RECORDS);
}

static void set_fault_page(struct harness *h, unsigned page, enum page_state page_state)
{
    uint64_t at = FREE_PAGE + page * PAGE_BYTES;
    static const uint64_t bits[] = {PTE_P | PTE_W, PTE_P, 0};
    harness_map(h, at, at, bits[page_state]);
}

/* One run of the program, and everything it left in the trace. Returns the number of faults. */
static unsigned run_faults(struct harness *h, struct trace *trace, struct x86_state *state)
{
    state->rip = CODE;
    state->rflags = 2;
    state->run_state = X86_RUNNING;
    memset(state->gpr, 0, sizeof(state->gpr));
    state->gpr[RBX] = FREE_PAGE;
    state->gpr[RSP] = STACK0;
    prepare_fault_data(h);
    run_to_halt(h, state);
    note_state(trace, state);
    uint64_t end = harness_get64(h, LOG);
    unsigned faults = (unsigned)((end - LOG_RECORDS) / 152);
    for (uint64_t at = LOG_RECORDS; at < end; at += 8)
        note(trace, harness_get64(h, at));
    for (unsigned i = 0; i < faults; i++)
        note_fault_flags(trace, harness_get64(h, FLAGS_RECORDS + i * 8));
    uint64_t hash = 0;
    for (unsigned at = 0; at < FAULT_PAGES * PAGE_BYTES; at += 8)
        hash = (hash ^ harness_get64(h, FREE_PAGE + at)) * UINT64_C(0x100000001b3);
    note(trace, hash);
    return faults;
}

static void start_faults(struct harness *h, struct x86_state *state)
{
    harness_long_mode(h, state);
    state->cr4 |= OSFXSR;
    LOAD(h, faults);
    set_handler(h, VECTOR_PF, AT(faults, faults_handler), 0, 1);
}

/* Hot first; then each page alone missing, or not writable; then all. The result is that of the run
 * without faults. */
static void faults_everywhere(struct harness *h, struct trace *trace)
{
    struct x86_state state;
    start_faults(h, &state);
    unsigned total[3] = {0};
    uint64_t r15 = 0;
    for (unsigned i = 0; i < 5; i++) {
        total[PAGE_FREE] += run_faults(h, trace, &state);
        r15 = state.gpr[R15];
    }
    for (enum page_state kind = PAGE_READ_ONLY; kind <= PAGE_MISSING; kind++) {
        for (unsigned page = 0; page < FAULT_PAGES; page++) {
            set_fault_page(h, page, kind);
            total[kind] += run_faults(h, trace, &state);
            assert_int_equal(state.gpr[R15], r15);
        }
    }
    assert_int_equal(total[PAGE_FREE], 0);
    assert_true(total[PAGE_READ_ONLY] > 15);
    assert_int_equal(total[PAGE_MISSING], FAULT_PAGES);
    for (unsigned round = 0; round < 4; round++) {
        for (unsigned page = 0; page < FAULT_PAGES; page++)
            set_fault_page(h, page, round & 1 ? PAGE_READ_ONLY : PAGE_MISSING);
        run_faults(h, trace, &state);
        assert_int_equal(state.gpr[R15], r15);
    }
}

#define SCENARIO(name, cpus)                                                                       \
    static void test_##name(void **test)                                                           \
    {                                                                                              \
        run_everywhere(name, cpus);                                                                \
    }
SCENARIO(patch_own_block, 1)
SCENARIO(patch_called, 1)
SCENARIO(patch_by_device, 1)
SCENARIO(guest_jit, 1)
SCENARIO(guest_jit_sum, 1)
SCENARIO(faults_everywhere, 1)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_patch_own_block), cmocka_unit_test(test_patch_called),
        cmocka_unit_test(test_patch_by_device), cmocka_unit_test(test_guest_jit),
        cmocka_unit_test(test_guest_jit_sum),   cmocka_unit_test(test_faults_everywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
