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
PROGRAM(x87_units)
PROGRAM(x87_unmasked)
PROGRAM(x87_pointers)
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
LABEL(x87_units_handler)
LABEL(x87_unmasked_handler)
LABEL(x87_pointers_handler)
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
    FAULT_VECTORS = 0x170800,
    OTHER_TABLES = 0x171000,
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

/* XMM0 to XMM7. */
static void note_vectors(struct trace *trace, const struct x86_state *state)
{
    for (unsigned i = 0; i < 16; i++) {
        uint64_t value;
        memcpy(&value, state->xsave + 160 + i * 8, sizeof(value));
        note(trace, value);
    }
}

static const struct way {
    const char *name;
    struct translator_options options;
} ways[] = {
    {"interpreter", {.is_on = false}},
    {"exact", {.is_on = true, .is_eager = true, .has_exact_flags = true}},
    {"eager", {.is_on = true, .is_eager = true}},
    {"tiers", {.is_on = true, .threshold = 3}},
    {"superblocks", {.is_on = true, .threshold = 6}},
    {"small", {.is_on = true, .is_eager = true, .code_bytes = 1}},
    {"check", {.is_on = true, .is_eager = true, .is_check = true}},
    {"exact check", {.is_on = true, .is_eager = true, .is_check = true, .has_exact_flags = true}},
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
        assert_int_equal(h->cpu[0]->stats.blocks_checked > 0, way->options.is_check);
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

enum { FAULT_PAGES = 0x31 };
enum page_state { PAGE_FREE, PAGE_READ_ONLY, PAGE_MISSING };

static void prepare_fault_data(struct harness *h)
{
    for (unsigned at = 0; at < FAULT_PAGES * PAGE_BYTES; at += 8)
        harness_put64(h, FREE_PAGE + at, at * UINT64_C(0x9e3779b97f4a7c15) >> 8);
    harness_put64(h, FREE_PAGE, 5);
    harness_put64(h, FREE_PAGE + 0x21000, 0xfffffff1);
    harness_put64(h, FREE_PAGE + 0x30000, AT(faults, faults_after));
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
    memset(state->xsave + 160, 0, 256);
    run_to_halt(h, state);
    note_state(trace, state);
    note_vectors(trace, state);
    for (unsigned i = 0; i < 32; i += 8) /* XMM2 and XMM3 at the last fault */
        note(trace, harness_get64(h, FAULT_VECTORS + i));
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

/* --- flags ---------------------------------------------------------------------------------- */

/* Programs are made of pieces of machine code. */
struct assembly {
    uint8_t *at, *end;
};

struct piece {
    uint8_t length;
    uint8_t bytes[23];
};

#define PIECE(...)                                                                                 \
    {                                                                                              \
        sizeof((uint8_t[]){__VA_ARGS__}),                                                          \
        {                                                                                          \
            __VA_ARGS__                                                                            \
        }                                                                                          \
    }

static void put_piece(struct assembly *code, const struct piece *piece)
{
    assert_true(code->end - code->at >= piece->length);
    memcpy(code->at, piece->bytes, piece->length);
    code->at += piece->length;
}

/* On EAX, ECX and memory at RDI. */
static const struct piece writers[] = {
    PIECE(0x01, 0xc8),                   /* add eax, ecx */
    PIECE(0x29, 0xc8),                   /* sub */
    PIECE(0x11, 0xc8),                   /* adc */
    PIECE(0x48, 0x19, 0xc8),             /* sbb rax, rcx */
    PIECE(0x21, 0xc8),                   /* and */
    PIECE(0x38, 0xc8),                   /* cmp al, cl */
    PIECE(0x66, 0x39, 0xc8),             /* cmp ax, cx */
    PIECE(0x85, 0xc8),                   /* test */
    PIECE(0xff, 0xc0),                   /* inc eax */
    PIECE(0xff, 0xc8),                   /* dec eax */
    PIECE(0xf7, 0xd8),                   /* neg eax */
    PIECE(0xf7, 0xd0),                   /* not eax: none */
    PIECE(0xd1, 0xe0),                   /* shl eax, 1 */
    PIECE(0xd3, 0xe0),                   /* shl eax, cl: perhaps none */
    PIECE(0xd1, 0xd8),                   /* rcr eax, 1 */
    PIECE(0xd3, 0xc8),                   /* ror eax, cl */
    PIECE(0xc1, 0xf8, 0x00),             /* sar eax, 0: none */
    PIECE(0x0f, 0xaf, 0xc1),             /* imul eax, ecx */
    PIECE(0xf7, 0xe1),                   /* mul ecx */
    PIECE(0x0f, 0xa3, 0xc8),             /* bt eax, ecx */
    PIECE(0x0f, 0xbc, 0xc1),             /* bsf eax, ecx */
    PIECE(0x0f, 0xb1, 0xca),             /* cmpxchg edx, ecx */
    PIECE(0x0f, 0xc1, 0xc8),             /* xadd eax, ecx */
    PIECE(0xf9),                         /* stc */
    PIECE(0xf5),                         /* cmc */
    PIECE(0x03, 0x07),                   /* add eax, [rdi] */
    PIECE(0x29, 0x4f, 0x08),             /* sub [rdi+8], ecx */
    PIECE(0x83, 0x57, 0x10, 0x01),       /* adc [rdi+10h], 1 */
    PIECE(0xff, 0x4f, 0x18),             /* dec [rdi+18h] */
    PIECE(0xd3, 0x6f, 0x20),             /* shr [rdi+20h], cl */
    PIECE(0xf0, 0x0f, 0xb1, 0x4f, 0x28), /* lock cmpxchg [rdi+28h], ecx */
    PIECE(0x9e),                         /* sahf */
    PIECE(0x39, 0x4f, 0x3e),             /* cmp [rdi+3eh], ecx: of two lines */
    PIECE(0x01, 0x8b, 0xfe, 0x0f, 0, 0), /* add [rbx+ffeh], ecx: of two pages */
    PIECE(0x41, 0x3b, 0x0c, 0x24),       /* cmp ecx, [r12]: MMIO */
    PIECE(0x41, 0x01, 0x0c, 0x24),       /* add [r12], ecx */
};

static const struct piece betweens[] = {
    PIECE(0x90),
    PIECE(0x4c, 0x8b, 0x07),                               /* mov r8, [rdi] */
    PIECE(0x4c, 0x89, 0x47, 0x30),                         /* mov [rdi+30h], r8 */
    PIECE(0x4c, 0x8b, 0x83, 0xfc, 0x0f, 0, 0),             /* mov r8, [rbx+ffch]: of two pages */
    PIECE(0x4d, 0x8b, 0x04, 0x24),                         /* mov r8, [r12]: MMIO */
    PIECE(0x45, 0x89, 0x04, 0x24),                         /* mov [r12], r8d */
    PIECE(0x50, 0x41, 0x58),                               /* push rax; pop r8 */
    PIECE(0xe8, 0x01, 0, 0, 0, 0xc3, 0x90),                /* call over a RET (left on the stack) */
    PIECE(0xeb, 0x00),                                     /* a jump to the next block */
    PIECE(0x4c, 0x8d, 0x44, 0x01, 0x05),                   /* lea r8, [rcx+rax+5] */
    PIECE(0xff, 0x53, 0x08),                               /* call [rbx+8] */
    PIECE(0x49, 0x89, 0xc0, 0x4d, 0x0f, 0xb6, 0xc0),       /* mov r8, rax; movzx r8, r8b */
    PIECE(0xf3, 0xa4),                                     /* rep movsb, RCX as it is made small */
    PIECE(0x41, 0x54, 0x4c, 0x8b, 0x04, 0x24, 0x41, 0x5c), /* push r12; mov r8, [rsp]; pop r12 */
};
enum { BETWEEN_CALL = 7, BETWEEN_MOVS = 12 };

/* One test: flags and operands in, the writer, something between, SETcc and the branch; or PUSHFQ
 * for condition 16. R15 is where results go. */
static void put_case(struct assembly *code, unsigned writer, unsigned between, unsigned condition)
{
    static const struct piece load[] = {
        PIECE(0x41, 0xff, 0x75, 0x00, 0x9d), /* push [r13]; popfq */
        PIECE(0x49, 0x8b, 0x45, 0x08),       /* mov rax, [r13+8] */
        PIECE(0x49, 0x8b, 0x4d, 0x10),       /* mov rcx, [r13+10h] */
        PIECE(0x89, 0xca),                   /* mov edx, ecx */
    };
    static const struct piece bare_call = PIECE(0xe8, 0x00, 0, 0, 0, 0x41, 0x58); /* pop r8 */
    static const struct piece strings = PIECE(0x56, 0x57, 0x51, 0xb9, 3, 0, 0, 0, 0x48, 0x8d, 0x77,
                                              0x20, 0xf3, 0xa4, 0x59, 0x5f, 0x5e);
    static const struct piece all_flags = PIECE(0x9c, 0x41, 0x8f, 0x07, 0x4d, 0x8d, 0x7f, 0x10);
    for (unsigned i = 0; i < sizeof(load) / sizeof(load[0]); i++)
        put_piece(code, &load[i]);
    put_piece(code, &writers[writer]);
    if (between == BETWEEN_CALL)
        put_piece(code, &bare_call);
    else if (between == BETWEEN_MOVS)
        put_piece(code, &strings);
    else
        put_piece(code, &betweens[between]);
    if (condition == 16) {
        put_piece(code, &all_flags);
        return;
    }
    const struct piece use = PIECE(0x41, 0x0f, (uint8_t)(0x90 | condition), 0x07, /* setcc [r15] */
                                   (uint8_t)(0x70 | condition), 5,                /* jcc over */
                                   0x41, 0xc6, 0x47, 0x01, 0x77, /* mov byte [r15+1], 77h */
                                   0x41, 0x89, 0x47, 0x04,       /* mov [r15+4], eax */
                                   0x4d, 0x8d, 0x7f, 0x10);      /* lea r15, [r15+10h] */
    put_piece(code, &use);
}

static void run_flags(struct harness *h, struct trace *trace, struct x86_state *state,
                      unsigned cases)
{
    static const uint64_t in[][3] = {
        {0x002, 0, 0},           {0x8d7, 0x7fffffff, 1},          {0x003, 0x80000000, 0xffffffff},
        {0x082, 0x1234, 0x1234}, {0x892, UINT64_MAX, 0xffff0011}, {0x057, 0xff80ff80, 0x20},
    };
    enum { RESULTS = 0x600000 }; /* behind what harness.h has, mapped at the same place */
    for (unsigned i = 0; i < sizeof(in) / sizeof(in[0]); i++) {
        for (unsigned k = 0; k < 3; k++)
            harness_put64(h, DATA + 0x2000 + k * 8, in[i][k]);
        for (unsigned at = 0; at < 0x1800; at += 8)
            harness_put64(h, DATA + at, at * UINT64_C(0x9e3779b97f4a7c15) >> i);
        harness_put64(h, DATA + 8, CODE - 1); /* RET */
        memset(h->ram + RESULTS, 0, cases * 16);
        state->rip = CODE;
        state->run_state = X86_RUNNING;
        state->gpr[RDI] = DATA + 0x100;
        state->gpr[RBX] = DATA;
        state->gpr[R12] = DATA + 0x3000;
        state->gpr[R13] = DATA + 0x2000;
        state->gpr[R15] = RESULTS;
        state->gpr[RSP] = STACK0;
        h->last_mmio_value = 0x12345678 * i;
        run_to_halt(h, state);
        assert_int_equal(state->gpr[R15], RESULTS + cases * 16);
        for (unsigned c = 0; c < cases; c++)
            note(trace, harness_get64(h, RESULTS + c * 16));
        for (unsigned at = 0; at < 0x1800; at += 8)
            note(trace, harness_get64(h, DATA + at));
    }
}

/* Each writer, each thing between, each condition and all flags. */
static void flags_live(struct harness *h, struct trace *trace)
{
    enum { WRITERS = sizeof(writers) / sizeof(writers[0]) };
    enum { BETWEENS = sizeof(betweens) / sizeof(betweens[0]) };
    struct x86_state state;
    harness_long_mode(h, &state);
    harness_map(h, DATA + 0x3000, MMIO, ALL);
    for (uint64_t at = 1; at < 4; at++)
        harness_put64(h, PD + at * 8, at << 21 | ALL | PTE_PS);
    h->ram[CODE - 1] = 0xc3;
    for (unsigned writer = 0; writer < WRITERS; writer++) {
        struct assembly code = {h->ram + CODE, h->ram + PML4};
        unsigned cases = 0;
        for (unsigned between = 0; between < BETWEENS; between++)
            for (unsigned condition = 0; condition <= 16; condition++, cases++)
                put_case(&code, writer, between, condition);
        *code.at++ = 0xf4;
        soft_written(&h->system, CODE, (uint64_t)(code.at - h->ram - CODE));
        run_flags(h, trace, &state, cases);
    }
}

/* --- interrupts ----------------------------------------------------------------------------- */

enum { INTERRUPT = 0x40 };

static int acknowledge_one(void *opaque, unsigned vcpu)
{
    struct harness *h = opaque;
    cpu_withdraw(h->cpu[vcpu], REQUEST_INTR);
    return INTERRUPT;
}

struct timer {
    struct cpu *cpu;
    pthread_t thread;
    atomic_bool is_over;
};

static void *timer_thread(void *opaque)
{
    struct timer *timer = opaque;
    uint32_t random = 12345;
    while (!atomic_load(&timer->is_over)) {
        random = random * 1664525 + 1013904223;
        for (unsigned spins = random >> 20; spins > 0; spins--)
            __builtin_ia32_pause();
        cpu_request(timer->cpu, REQUEST_INTR);
        if (!(random >> 16 & 15))
            sched_yield();
    }
    return NULL;
}

static void timer_start(struct harness *h, struct timer *timer)
{
    h->system.callbacks.acknowledge = acknowledge_one;
    timer->cpu = h->cpu[0];
    atomic_store(&timer->is_over, false);
    assert_int_equal(pthread_create(&timer->thread, NULL, timer_thread, timer), 0);
}

static void timer_stop(struct timer *timer)
{
    atomic_store(&timer->is_over, true);
    pthread_join(timer->thread, NULL);
}

/* A sum with the carry around its end. */
static uint64_t sum_with_carry(const uint64_t value[16])
{
    uint64_t sum = 0, carry = 0;
    for (unsigned i = 0; i < 16; i++) {
        unsigned __int128 wide = (unsigned __int128)sum + value[i] + carry;
        sum = (uint64_t)wide;
        carry = (uint64_t)(wide >> 64);
    }
    return sum + carry;
}

static void interrupts_under_load(struct harness *h, struct trace *trace)
{
    struct x86_state state;
    struct timer timer;
    uint64_t value[16];
    harness_long_mode(h, &state);
    LOAD(h, load);
    set_handler(h, INTERRUPT, AT(load, load_handler), 0, 0);
    for (unsigned i = 0; i < 16; i++)
        harness_put64(h, DATA + i * 8,
                      value[i] = (i + 1) * UINT64_C(0x9e3779b97f4a7c15) | (uint64_t)(i & 1) << 63);
    state.gpr[RDI] = DATA;
    state.gpr[RSI] = DATA + 0x100;
    state.gpr[R8] = sum_with_carry(value);
    state.gpr[RCX] = 5000;
    state.rflags |= RFLAGS_IF;
    timer_start(h, &timer);
    run_to_halt(h, &state);
    timer_stop(&timer);
    assert_int_equal(state.gpr[R9], 0);
    assert_int_equal(state.gpr[RSP], STACK0);
    assert_true(harness_get64(h, DATA + 0x100) >= 5000);
    assert_int_equal(harness_get64(h, DATA + 0x108), 0);
    note(trace, state.gpr[R9]);
}

static void halts_and_shadows(struct harness *h, struct trace *trace)
{
    struct x86_state state;
    struct timer timer;
    const uint64_t count = 2000;
    harness_long_mode(h, &state);
    LOAD(h, halts);
    set_handler(h, INTERRUPT, AT(halts, halts_handler), 0, 0);
    state.gpr[RSI] = DATA;
    state.gpr[RCX] = count;
    assert_true(cpu_set_state(h->cpu[0], &state));
    timer_start(h, &timer);
    do {
        assert_int_equal(cpu_run(h->cpu[0]), CPU_HALTED);
        cpu_get_state(h->cpu[0], &state);
    } while (state.rflags & RFLAGS_IF);
    timer_stop(&timer);
    assert_true(harness_get64(h, DATA) >= count);
    assert_int_equal(harness_get64(h, DATA + 8), 0);
    assert_int_equal(harness_get64(h, DATA + 16), 0);
    note(trace, state.rip);
}

static void ask_for_interrupt(void *opaque, uint16_t port, uint64_t value, unsigned size_bytes)
{
    struct harness *h = opaque;
    cpu_request(h->cpu[0], REQUEST_INTR);
}

/* The interrupt comes right behind the instruction after STI, always. */
static void sti_shadow(struct harness *h, struct trace *trace)
{
    struct x86_state state;
    enum { TIMES = 500 };
    harness_long_mode(h, &state);
    LOAD(h, shadow);
    set_handler(h, INTERRUPT, AT(shadow, shadow_handler), 0, 0);
    h->system.callbacks.port_write = ask_for_interrupt;
    h->system.callbacks.acknowledge = acknowledge_one;
    state.gpr[RCX] = TIMES;
    run_to_halt(h, &state);
    uint64_t sum = 0;
    for (unsigned i = 0; i < TIMES; i++)
        sum = sum * 2 + AT(shadow, shadow_after);
    assert_int_equal(state.gpr[RBX], sum);
    assert_int_equal(state.gpr[RAX], TIMES);
    note_state(trace, &state);
}

static void single_step(struct harness *h, struct trace *trace)
{
    struct x86_state state;
    harness_long_mode(h, &state);
    LOAD(h, stepped);
    set_handler(h, VECTOR_DB, AT(stepped, stepped_handler), 0, 0);
    harness_put64(h, LOG, LOG_RECORDS);
    run_to_halt(h, &state);
    note_state(trace, &state);
    uint64_t end = harness_get64(h, LOG);
    assert_true(end - LOG_RECORDS > 40 * 24);
    for (uint64_t at = LOG_RECORDS; at < end; at += 24) {
        note(trace, harness_get64(h, at));
        note_fault_flags(trace, harness_get64(h, at + 8));
        note(trace, harness_get64(h, at + 16));
    }
}

/* --- modes ---------------------------------------------------------------------------------- */

static void rings(struct harness *h, struct trace *trace)
{
    struct x86_state state;
    enum { TIMES = 3000 };
    harness_long_mode(h, &state);
    LOAD(h, levels);
    harness_user(&state);
    set_handler(h, 0x80, AT(levels, levels_int), 3, 0);
    state.star = (uint64_t)USER_CS32 << 48 | (uint64_t)KERNEL_CS << 32;
    state.lstar = AT(levels, levels_syscall);
    state.sfmask = RFLAGS_IF | RFLAGS_CF;
    state.rflags |= RFLAGS_IF;
    state.gpr[R12] = TIMES;
    assert_int_equal(harness_run(h, &state), CPU_HALTED);
    assert_int_equal(harness_vector(&state), VECTOR_GP);
    assert_int_equal(state.gpr[R9], 0);
    assert_int_equal(state.gpr[RBX], 8ull * TIMES * (TIMES + 1) / 2 + TIMES);
    note_state(trace, &state);
}

/* A second set of tables, the same but for FREE_PAGE. */
static void make_other_space(struct harness *h)
{
    harness_put64(h, OTHER_TABLES, (OTHER_TABLES + 0x1000) | ALL);
    harness_put64(h, OTHER_TABLES + 0x1000, (OTHER_TABLES + 0x2000) | ALL);
    harness_put64(h, OTHER_TABLES + 0x2000, (OTHER_TABLES + 0x3000) | ALL);
    memcpy(h->ram + OTHER_TABLES + 0x3000, h->ram + PT, PAGE_BYTES);
    harness_put64(h, OTHER_TABLES + 0x3000 + FREE_PAGE / PAGE_BYTES * 8,
                  (FREE_PAGE + 0x1000) | ALL);
}

static void address_spaces(struct harness *h, struct trace *trace)
{
    /* In the middle of the page; straddling into a page that they share. */
    static const uint64_t places[] = {0x100, 0xffe};
    for (unsigned i = 0; i < 2; i++) {
        struct x86_state state;
        enum { TIMES = 400 };
        harness_long_mode(h, &state);
        LOAD(h, spaces);
        /* The linear page after FREE_PAGE is one of its own for the tails. */
        harness_map(h, FREE_PAGE + 0x1000, FREE_PAGE + 0x5000, ALL);
        make_other_space(h);
        put_function(h, FREE_PAGE + places[i], 3);
        put_function(h, FREE_PAGE + 0x1000 + places[i], 5);
        put_function(h, FREE_PAGE + 0x2000 + places[i], 7);
        memset(h->ram + FREE_PAGE + 0x5000, 0, 8);
        h->ram[FREE_PAGE + 0x5003] = 0xc3;
        soft_written(&h->system, FREE_PAGE + 0x5000, 8);
        if (i == 1) /* the constant's low byte alone is in the first page */
            put_function(h, FREE_PAGE + 0x6000, 0);
        state.gpr[R8] = OTHER_TABLES + 0x3000 + FREE_PAGE / PAGE_BYTES * 8;
        state.gpr[R12] = TIMES;
        state.gpr[R13] = PML4;
        state.gpr[R14] = OTHER_TABLES;
        state.gpr[R15] = (FREE_PAGE + 0x2000) | ALL;
        state.gpr[RDI] = FREE_PAGE + places[i];
        run_to_halt(h, &state);
        uint64_t sum = 0;
        for (unsigned k = 0; k < TIMES; k++) {
            sum = (sum * 2 + 3) * 2 + 5;
            sum = sum << 7 | sum >> 57;
            sum = (sum * 2 + 7) * 2 + 3;
        }
        assert_int_equal(state.gpr[RBX], sum);
        note_state(trace, &state);
    }
}

static void protections(struct harness *h, struct trace *trace)
{
    struct x86_state state;
    enum { TIMES = 400 };
    harness_long_mode(h, &state);
    LOAD(h, protection);
    set_handler(h, VECTOR_PF, AT(protection, protection_handler), 0, 0);
    for (uint64_t linear = 0; linear < 0x200000; linear += PAGE_BYTES)
        harness_map(h, linear, linear, PTE_P | PTE_W);
    harness_map(h, DATA, DATA, PTE_P);
    harness_map(h, DATA + 0x1000, DATA + 0x1000, ALL);
    state.cr4 |= CR4_SMAP;
    state.gpr[RDI] = DATA;
    state.gpr[RSI] = DATA + 0x1000;
    state.gpr[R12] = TIMES;
    run_to_halt(h, &state);
    assert_int_equal(state.gpr[RBX] & 0xffff, TIMES / 2 + TIMES * 3 / 4);
    assert_int_equal(state.gpr[RBX] >> 16, TIMES * 3 / 4);
    assert_int_equal(harness_get32(h, DATA), TIMES * 4);
    assert_int_equal(harness_get32(h, DATA + 8), TIMES * 10);
    assert_int_equal(state.gpr[R9], TIMES * (TIMES + 1) / 2);
    note_state(trace, &state);
}

/* --- x87 and MMX ---------------------------------------------------------------------------- */

enum { X87_TIMES = 400 };

static void x87_forbidden(struct harness *h, struct trace *trace)
{
    struct x86_state state;
    harness_long_mode(h, &state);
    LOAD(h, x87_units);
    set_handler(h, VECTOR_NM, AT(x87_units, x87_units_handler), 0, 0);
    set_handler(h, VECTOR_UD, AT(x87_units, x87_units_handler), 0, 0);
    harness_put64(h, DATA, UINT64_C(0x500000015));
    state.cr4 |= OSFXSR;
    state.gpr[RDI] = DATA;
    state.gpr[R12] = X87_TIMES;
    run_to_halt(h, &state);
    assert_int_equal(state.gpr[RBX], X87_TIMES / 4 * 3 * 2);
    assert_int_equal(state.gpr[R9], X87_TIMES * (42 + UINT64_C(0xa0000002a)));
    note_state(trace, &state);
}

static void x87_exceptions(struct harness *h, struct trace *trace)
{
    struct x86_state state;
    harness_long_mode(h, &state);
    LOAD(h, x87_unmasked);
    set_handler(h, VECTOR_MF, AT(x87_unmasked, x87_unmasked_handler), 0, 0);
    state.gpr[RDI] = DATA;
    state.gpr[R12] = X87_TIMES;
    run_to_halt(h, &state);
    /* Unmasked: at FWAIT and behind the branch. Else when FLDENV unmasks it. */
    assert_int_equal(state.gpr[RBX], X87_TIMES / 2 * 2 + X87_TIMES / 2);
    note_state(trace, &state);
}

static void x87_pointers(struct harness *h, struct trace *trace)
{
    struct x86_state state;
    harness_long_mode(h, &state);
    LOAD(h, x87_pointers);
    set_handler(h, VECTOR_PF, AT(x87_pointers, x87_pointers_handler), 0, 0);
    state.gpr[RDI] = DATA;
    state.gpr[RSI] = DATA + 0x1000;
    state.gpr[R12] = X87_TIMES;
    run_to_halt(h, &state);
    assert_int_equal(state.gpr[RBX], X87_TIMES * 2);
    note_state(trace, &state);
}

static void compatibility(struct harness *h, struct trace *trace)
{
    struct x86_state state;
    harness_long_mode(h, &state);
    LOAD(h, narrow);
    harness_user(&state);
    state.gpr[R12] = 1000;
    assert_int_equal(harness_run(h, &state), CPU_HALTED);
    assert_int_equal(harness_vector(&state), VECTOR_GP);
    assert_int_equal(state.gpr[R12], 0);
    /* EAX is 4 (n + 1) - 1 each time. Upper halves are undefined behind 32-bit code (SDM
     * 1 3.4.1.1). */
    state.gpr[RBX] = (uint32_t)state.gpr[RBX];
    assert_int_equal(state.gpr[RBX], 1000 + 4 * 1000 * 1001 / 2 + 3 * 1000);
    note_state(trace, &state);
}

/* --- much code ------------------------------------------------------------------------------ */

/* Calls 20,000 functions that are all different, three times: more than the small cache holds. */
static void much_code(struct harness *h, struct trace *trace)
{
    enum { FUNCTIONS = 20000, FUNCTION_BYTES = 32, BASE = 0x200000 };
    static const uint8_t main_code[] = {
        0x41, 0xb8, 3,
        0,    0,    0, /* mov r8d, 3 */
        0xbf, 0,    0,
        0x20, 0, /* mov edi, BASE */
        0xb9, 0x20, 0x4e,
        0,    0,    /* mov ecx, FUNCTIONS */
        0xff, 0xd7, /* call rdi */
        0x48, 0x8d, 0x5c,
        0x03, 0x01,                 /* lea rbx, [rbx+rax+1] */
        0x83, 0xc7, FUNCTION_BYTES, /* add edi, FUNCTION_BYTES */
        0xff, 0xc9, 0x75,
        0xf2, /* dec ecx; jnz call */
        0x41, 0xff, 0xc8,
        0x75, 0xe3, 0xf4, /* dec r8d; jnz mov edi; hlt */
    };
    struct x86_state state;
    uint64_t sum = 0;
    harness_long_mode(h, &state);
    for (uint64_t at = 1; at < 4; at++)
        harness_put64(h, PD + at * 8, at << 21 | ALL | PTE_PS);
    memcpy(h->ram + CODE, main_code, sizeof(main_code));
    for (uint32_t i = 0; i < FUNCTIONS; i++) {
        uint8_t *code = h->ram + BASE + i * FUNCTION_BYTES;
        memcpy(code, (uint8_t[]){0xb8, 0, 0, 0, 0, 0xa8, 0x01, 0x74, 0x05, 0x05}, 10);
        memcpy(code + 1, &i, 4); /* mov eax, i; test al, 1; jz over; add eax, 3 i */
        uint32_t times = i * 3;
        memcpy(code + 10, &times, 4);
        code[14] = 0xc3;
        sum += 3 * ((uint64_t)i * (i & 1 ? 4 : 1) + 1);
    }
    state.gpr[RBX] = 0;
    run_to_halt(h, &state);
    assert_int_equal(state.gpr[RBX], sum);
    note_state(trace, &state);
    if (h->system.translator.code_bytes)
        assert_true(h->cpu[0]->stats.code_flushes > 10);
}

/* --- leaving -------------------------------------------------------------------------------- */

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

/* Endless loops end by a kick, else the test does not. A short while is given to get hot. */
static void kicked(struct harness *h, struct trace *trace)
{
    static const struct patch_program programs[] = {
        {program_forever_one, program_forever_one_end},
        {program_forever_two, program_forever_two_end},
        {program_forever_pages, program_forever_pages_end},
        {program_forever_call, program_forever_call_end},
        {program_forever_indirect, program_forever_indirect_end},
        {program_forever_string, program_forever_string_end},
    };
    for (unsigned i = 0; i < sizeof(programs) / sizeof(programs[0]); i++) {
        struct x86_state state;
        harness_long_mode(h, &state);
        harness_load(h, programs[i].start, programs[i].end);
        assert_true(cpu_set_state(h->cpu[0], &state));
        for (unsigned times = 0; times < 5; times++) {
            struct runner runner = {.cpu = h->cpu[0]};
            pthread_t thread;
            assert_int_equal(pthread_create(&thread, NULL, run_thread, &runner), 0);
            nanosleep(&(struct timespec){0, times * 1000000}, NULL);
            cpu_request(h->cpu[0], REQUEST_KICK);
            pthread_join(thread, NULL);
            assert_int_equal(runner.exit, CPU_KICKED);
            cpu_get_state(h->cpu[0], &state);
            assert_in_range(state.rip, CODE, CODE + 0x1010);
        }
        note(trace, i);
    }
}

/* --- several processors --------------------------------------------------------------------- */

static void run_both(struct harness *h, struct x86_state states[2])
{
    struct runner runners[2];
    pthread_t threads[2];
    for (unsigned i = 0; i < 2; i++) {
        runners[i].cpu = h->cpu[i];
        assert_true(cpu_set_state(h->cpu[i], &states[i]));
    }
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, run_thread, &runners[i]), 0);
    for (unsigned i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(runners[i].exit, CPU_HALTED);
        cpu_get_state(h->cpu[i], &states[i]);
        assert_int_equal(harness_vector(&states[i]), -1);
    }
}

/* Two programs, the second at CODE + 1000H. */
static void start_both(struct harness *h, struct x86_state states[2], struct patch_program first,
                       struct patch_program second)
{
    harness_long_mode(h, &states[0]);
    harness_load(h, first.start, first.end);
    memcpy(h->ram + CODE + PAGE_BYTES, second.start, (size_t)(second.end - second.start));
    soft_written(&h->system, CODE + PAGE_BYTES, PAGE_BYTES);
    memset(h->ram + DATA, 0, 2 * PAGE_BYTES);
    states[0].gpr[RDI] = states[0].gpr[RSI] = DATA;
    states[1] = states[0];
    states[1].rip = CODE + PAGE_BYTES;
    states[1].gpr[RSP] = STACK_IST;
}

#define PAIR(name)                                                                                 \
    (struct patch_program)                                                                         \
    {                                                                                              \
        program_##name, program_##name##_end                                                       \
    }

/* In a page of its own; in the caller's; straddling. By the same address and another mapping. */
static void cross_modified(struct harness *h, struct trace *trace)
{
    for (unsigned i = 0; i < sizeof(patch_places) / sizeof(patch_places[0]); i++) {
        struct x86_state states[2];
        start_both(h, states, PAIR(cross_call), PAIR(cross_write));
        harness_map(h, FREE_PAGE + 0x9000, CODE, ALL);
        harness_map(h, FREE_PAGE + 0xa000, FREE_PAGE, ALL);
        harness_map(h, FREE_PAGE + 0xb000, FREE_PAGE + 0x1000, ALL);
        harness_map(h, FREE_PAGE + 0xc000, FREE_PAGE + 0x2000, ALL);
        put_function(h, patch_places[i].call, 0);
        for (unsigned cpu = 0; cpu < 2; cpu++) {
            states[cpu].gpr[RDI] = patch_places[i].call;
            states[cpu].gpr[RDX] = patch_places[i].write;
            states[cpu].gpr[RCX] = 300;
        }
        run_both(h, states);
        assert_int_equal(states[0].gpr[R9], 0);
        assert_int_equal(states[0].gpr[R8], 301);
        note(trace, states[0].gpr[R9]);
    }
}

static void counters(struct harness *h, struct trace *trace)
{
    enum { TIMES = 20000 };
    struct x86_state states[2];
    start_both(h, states, PAIR(counters), PAIR(counters));
    states[0].gpr[RCX] = states[1].gpr[RCX] = TIMES;
    run_both(h, states);
    static const uint64_t each[] = {3, 5, 7, 0, 1};
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(harness_get64(h, DATA + i * 64), 2 * TIMES * each[i]);
        note(trace, harness_get64(h, DATA + i * 64));
    }
}

static void message_passing(struct harness *h, struct trace *trace)
{
    struct x86_state states[2];
    start_both(h, states, PAIR(receive), PAIR(send));
    states[0].gpr[RCX] = states[1].gpr[RCX] = 300000;
    run_both(h, states);
    assert_int_equal(states[0].gpr[R9], 0);
    note(trace, harness_get64(h, DATA));
}

static void store_buffering(struct harness *h, struct trace *trace)
{
    struct x86_state states[2];
    start_both(h, states, PAIR(buffering), PAIR(buffering));
    for (unsigned i = 0; i < 2; i++) {
        states[i].gpr[RCX] = 2000;
        states[i].gpr[RDI] = DATA + i * 64;
        states[i].gpr[RSI] = DATA + !i * 64;
        states[i].gpr[RDX] = DATA + 0x200 + i * 64;
        states[i].gpr[R8] = DATA + 0x400;
        states[i].gpr[R10] = i;
    }
    run_both(h, states);
    assert_int_equal(harness_get64(h, DATA + 0x280), 0);
    note(trace, harness_get64(h, DATA));
}

#define SCENARIOS(X)                                                                               \
    X(patch_own_block, 1)                                                                          \
    X(patch_called, 1)                                                                             \
    X(patch_by_device, 1)                                                                          \
    X(guest_jit, 1)                                                                                \
    X(guest_jit_sum, 1)                                                                            \
    X(faults_everywhere, 1)                                                                        \
    X(flags_live, 1)                                                                               \
    X(x87_forbidden, 1)                                                                            \
    X(x87_exceptions, 1)                                                                           \
    X(x87_pointers, 1)                                                                             \
    X(interrupts_under_load, 1)                                                                    \
    X(halts_and_shadows, 1)                                                                        \
    X(sti_shadow, 1)                                                                               \
    X(single_step, 1)                                                                              \
    X(rings, 1)                                                                                    \
    X(address_spaces, 1)                                                                           \
    X(protections, 1)                                                                              \
    X(compatibility, 1)                                                                            \
    X(much_code, 1)                                                                                \
    X(kicked, 1)                                                                                   \
    X(cross_modified, 2)                                                                           \
    X(counters, 2)                                                                                 \
    X(message_passing, 2)                                                                          \
    X(store_buffering, 2)

#define DEFINE(name, cpus)                                                                         \
    static void test_##name(void **test)                                                           \
    {                                                                                              \
        run_everywhere(name, cpus);                                                                \
    }
SCENARIOS(DEFINE)

/* An argument: a pattern of names. */
int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
#define ENTRY(name, cpus) cmocka_unit_test(test_##name),
    const struct CMUnitTest tests[] = {SCENARIOS(ENTRY)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
