/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Vector, x87 and state instructions where the host can't be asked (random.c asks it for all the
 * rest): what control registers forbid, pending exceptions, formats of other modes, masked
 * accesses, the XSAVE family, the stub pool.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cpu/soft/cpu.h"
#include "cpu/soft/memory.h"
#include "cpu/soft/vector/vector.h"
#include "isa/native.h"
#include "isa/soft.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NOT_OFFERED = -2, DATA = 1024 };
enum { CR0_MP = 2, CR0_EM = 4, CR0_TS = 8, CR0_NE = 32 };
enum { CR4_OSFXSR = 1 << 9, CR4_OSXMMEXCPT = 1 << 10, CR4_OSXSAVE = 1 << 18 };

static uint8_t memory[ISA_SCRATCH_BYTES] __attribute__((aligned(4096)));

static struct sigaction skep_action; /* what vector_open installs for SIGFPE */

struct fixture {
    struct soft_runner *runner;
    struct cpu *cpu;
    struct isa_state state;
};

static void put(void *at, uint64_t value, unsigned size_bytes)
{
    memcpy(at, &value, size_bytes);
}

static uint64_t get(const void *at, unsigned size_bytes)
{
    uint64_t value = 0;
    memcpy(&value, at, size_bytes);
    return value;
}

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    fixture->runner = soft_runner_open(memory);
    fixture->cpu = soft_runner_cpu(fixture->runner);
    put(fixture->state.fx, 0x37f, 2);
    put(fixture->state.fx + 24, 0x1f80, 4);
    fixture->state.rflags = 0x202;
    for (unsigned n = 0; n < 16; n++)
        memset(fixture->state.vector[n], 0x10 + (int)n, 32);
    fixture->state.gpr[RAX] = ISA_SCRATCH + DATA;
    memset(memory, 0xa5, sizeof(memory));
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    soft_runner_close(fixture->runner);
    free(fixture);
    return 0;
}

/* Runs one instruction, given in hexadecimal, on the fixture's state: the exception's vector,
 * ISA_NO_FAULT or NOT_OFFERED. */
static int run(struct fixture *fixture, const char *hex)
{
    uint8_t bytes[15];
    unsigned length = 0, byte;
    for (; sscanf(hex + length * 2, "%2x", &byte) == 1 && length < sizeof(bytes); length++)
        bytes[length] = (uint8_t)byte;
    sigaction(SIGFPE, &skep_action, NULL); /* cmocka has put its own there */
    if (!soft_run(fixture->runner, &fixture->state, bytes, length))
        return NOT_OFFERED;
    return fixture->state.fault;
}

static uint32_t mxcsr_of(const struct fixture *fixture)
{
    return (uint32_t)get(fixture->state.fx + 24, 4);
}

/* --- availability --------------------------------------------------------------------------- */

static void test_control_registers(void **state)
{
    struct fixture *fixture = *state;
    static const struct {
        const char *hex;
        uint64_t cr0_set, cr4_clear, xcr0;
        int fault;
    } cases[] = {
        {"0f58c1", 0, 0, 7, ISA_NO_FAULT}, /* addps xmm0, xmm1 */
        {"0f58c1", CR0_TS, 0, 7, VECTOR_NM},
        {"0f58c1", CR0_EM, 0, 7, VECTOR_UD},
        {"0f58c1", CR0_EM | CR0_TS, 0, 7, VECTOR_UD},
        {"0f58c1", 0, CR4_OSFXSR, 7, VECTOR_UD},
        {"0f58c1", CR0_TS, CR4_OSFXSR, 7, VECTOR_UD},
        {"0f58c1", 0, CR4_OSXSAVE, 7, ISA_NO_FAULT},
        {"0f58c1", 0, 0, 1, ISA_NO_FAULT},
        {"0f28c1", CR0_TS, 0, 7, VECTOR_NM}, /* movaps: a direct handler */
        {"0f28c1", 0, CR4_OSFXSR, 7, VECTOR_UD},
        {"c5f458c1", 0, 0, 7, ISA_NO_FAULT}, /* vaddps ymm0, ymm1, ymm1 */
        {"c5f458c1", CR0_EM, CR4_OSFXSR, 7, ISA_NO_FAULT},
        {"c5f458c1", CR0_TS, 0, 7, VECTOR_NM},
        {"c5f458c1", 0, CR4_OSXSAVE, 7, VECTOR_UD},
        {"c5f458c1", CR0_TS, CR4_OSXSAVE, 7, VECTOR_UD},
        {"c5f458c1", 0, 0, 3, VECTOR_UD},
        {"c5f458c1", 0, 0, 1, VECTOR_UD},
        {"c5fc28c1", 0, 0, 3, VECTOR_UD},  /* vmovaps */
        {"c5f877", 0, 0, 3, VECTOR_UD},    /* vzeroupper */
        {"0ffcc1", 0, 0, 7, ISA_NO_FAULT}, /* paddb mm0, mm1 */
        {"0ffcc1", 0, CR4_OSFXSR, 7, ISA_NO_FAULT},
        {"0ffcc1", CR0_EM, 0, 7, VECTOR_UD},
        {"0ffcc1", CR0_TS, 0, 7, VECTOR_NM},
        {"0f2ac1", 0, CR4_OSFXSR, 7, VECTOR_UD}, /* cvtpi2ps xmm0, mm1 */
        {"d9e8", 0, 0, 7, ISA_NO_FAULT},         /* fld1 */
        {"d9e8", CR0_EM, 0, 7, VECTOR_NM},
        {"d9e8", CR0_TS, 0, 7, VECTOR_NM},
        {"dfe0", CR0_TS, 0, 7, VECTOR_NM}, /* fnstsw ax */
        {"9b", CR0_TS, 0, 7, VECTOR_NM},   /* fwait: MP is set */
        {"9b", CR0_EM, 0, 7, ISA_NO_FAULT},
        {"0fae00", CR0_TS, 0, 7, VECTOR_NM}, /* fxsave [rax] */
        {"0fae00", CR0_EM, 0, 7, VECTOR_NM},
        {"0fae20", 0, CR4_OSXSAVE, 7, VECTOR_UD}, /* xsave [rax] */
        {"0fae20", CR0_TS, 0, 7, VECTOR_NM},
        {"0fae18", CR0_TS, 0, 7, VECTOR_NM}, /* stmxcsr [rax] */
        {"0fae18", 0, CR4_OSFXSR, 7, VECTOR_UD},
        {"0f01d0", 0, CR4_OSXSAVE, 7, VECTOR_UD},                 /* xgetbv */
        {"0fc318", CR0_TS | CR0_EM, CR4_OSFXSR, 7, ISA_NO_FAULT}, /* movnti [rax], ebx */
    };
    uint64_t cr0 = fixture->cpu->cr0, cr4 = fixture->cpu->cr4;
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        fixture->state.gpr[RAX] = ISA_SCRATCH + DATA;
        fixture->cpu->cr0 = cr0 | cases[i].cr0_set;
        fixture->cpu->cr4 = cr4 & ~cases[i].cr4_clear;
        fixture->cpu->xcr0 = cases[i].xcr0;
        int fault = run(fixture, cases[i].hex);
        if (fault != cases[i].fault)
            fail_msg("case %u (%s): %d, not %d", i, cases[i].hex, fault, cases[i].fault);
    }
    fixture->cpu->cr0 = (cr0 & ~(uint64_t)CR0_MP) | CR0_TS;
    fixture->cpu->cr4 = cr4;
    assert_int_equal(run(fixture, "9b"), ISA_NO_FAULT);
}

static void test_not_offered(void **state)
{
    struct fixture *fixture = *state;
    static const char *const cases[] = {
        "62f17c48c6c100", /* AVX-512: vshufps zmm0, zmm0, zmm1, 0 */
        "62f1742858c1",   /* AVX-512VL */
        "0f0fc19e",       /* 3DNow!: pfadd */
        "f20f79c1",       /* SSE4a: insertq */
        "c4e27ddcc1",     /* VAES of 256 bits: vaesenc ymm0, ymm0, ymm1 */
        "c4e37d44c100",   /* VPCLMULQDQ of 256 bits */
        "660f38cfc1",     /* GFNI: gf2p8mulb */
        "8fe97880c1",     /* XOP: vfrczps */
        "c4e27150c1",     /* AVX-VNNI: vpdpbusd */
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        if (run(fixture, cases[i]) != NOT_OFFERED)
            fail_msg("%s is offered", cases[i]);
    /* No VEX in real mode: there it is another instruction, or none. */
    fixture->cpu->mode = MODE_16 | MODE_REAL;
    assert_int_equal(run(fixture, "c5f458c1"), NOT_OFFERED);
}

/* --- exceptions ----------------------------------------------------------------------------- */

static void test_unmasked_simd(void **state)
{
    struct fixture *fixture = *state;
    for (unsigned i = 0; i < 32; i += 4) {
        put(fixture->state.vector[0] + i, 0x3f800000, 4);
        put(fixture->state.vector[1] + i, 0, 4);
    }
    struct isa_state before = fixture->state;
    put(before.fx + 24, 0x1d80, 4); /* divide by zero is unmasked */
    static const char *const hex[] = {"0f5ec1", "c5fc5ec1", "f30f5ec1"};
    for (unsigned i = 0; i < 3; i++) {
        fixture->state = before;
        fixture->cpu->cr4 |= CR4_OSXMMEXCPT;
        assert_int_equal(run(fixture, hex[i]), VECTOR_XM);
        assert_int_equal(mxcsr_of(fixture), 0x1d84);
        assert_memory_equal(fixture->state.vector, before.vector, sizeof(before.vector));
        fixture->state = before;
        fixture->cpu->cr4 &= ~(uint64_t)CR4_OSXMMEXCPT;
        assert_int_equal(run(fixture, hex[i]), VECTOR_UD);
        assert_int_equal(mxcsr_of(fixture), 0x1d84);
    }
    put(before.fx + 24, 0x1f80, 4);
    fixture->state = before;
    assert_int_equal(run(fixture, hex[0]), ISA_NO_FAULT);
    assert_int_equal(mxcsr_of(fixture), 0x1f84);
    assert_int_equal(get(fixture->state.vector[0], 4), 0x7f800000);
    /* The host's own MXCSR has not been left changed. */
    assert_int_equal(__builtin_ia32_stmxcsr() & 0xffc0, 0x1f80);
}

/* ST0 = 1, ST1 = 0, division by zero unmasked. */
static void prepare_x87(struct fixture *fixture)
{
    memset(fixture->state.fx, 0, 160);
    put(fixture->state.fx, 0x37b, 2);
    put(fixture->state.fx + 24, 0x1f80, 4);
    fixture->state.fx[4] = 0x03; /* TOP is 0: physical 0 and 1 are ST0 and ST1 */
    put(fixture->state.fx + 32, UINT64_C(1) << 63, 8);
    put(fixture->state.fx + 40, 0x3fff, 2);
}

static void test_pending_x87(void **state)
{
    struct fixture *fixture = *state;
    prepare_x87(fixture);
    assert_int_equal(run(fixture, "d8f1"), ISA_NO_FAULT); /* fdiv st0, st1 */
    assert_int_equal(get(fixture->state.fx + 2, 2) & 0x8084, 0x8084);
    struct isa_state pending = fixture->state;
    static const char *const waiting[] = {"9b",     "d8c1", "d9e8", "d900", "d918",  "d928",
                                          "0ffcc1", "0f77", "d920", "dd20", "0f2ac1"};
    for (unsigned i = 0; i < sizeof(waiting) / sizeof(waiting[0]); i++) {
        fixture->state = pending;
        if (run(fixture, waiting[i]) != VECTOR_MF)
            fail_msg("%s does not wait", waiting[i]);
        assert_memory_equal(fixture->state.fx, pending.fx, 160);
    }
    static const char *const not_waiting[] = {"dfe0", "d938", "dd38",   "d930",  "dd30",
                                              "dbe2", "dbe3", "0fae00", "0f58c1"};
    for (unsigned i = 0; i < sizeof(not_waiting) / sizeof(not_waiting[0]); i++) {
        fixture->state = pending;
        fixture->state.gpr[RAX] = ISA_SCRATCH + DATA;
        if (run(fixture, not_waiting[i]) != ISA_NO_FAULT)
            fail_msg("%s waits", not_waiting[i]);
    }
    fixture->state = pending;
    fixture->cpu->cr0 &= ~(uint64_t)CR0_NE; /* no FERR#: #MF all the same */
    assert_int_equal(run(fixture, "9b"), VECTOR_MF);
}

/* A store that an unmasked exception keeps from happening, where the operand crosses pages. */
static void test_x87_store_across_pages(void **state)
{
    struct fixture *fixture = *state;
    uint8_t *operand = memory + ISA_PAGE - 2;
    prepare_x87(fixture);
    fixture->state.gpr[RAX] = ISA_SCRATCH + ISA_PAGE - 2;
    put(fixture->state.fx + 40, 0x4fff, 2);               /* too large for a float */
    put(fixture->state.fx, 0x377, 2);                     /* overflow unmasked */
    assert_int_equal(run(fixture, "d910"), ISA_NO_FAULT); /* fst dword [rax] */
    assert_int_equal(get(operand, 4), 0xa5a5a5a5);
    assert_int_equal(get(fixture->state.fx + 2, 2) & 0x88, 0x88);
    prepare_x87(fixture);
    put(fixture->state.fx + 32, UINT64_C(0x8000000000000001), 8); /* inexact as a float */
    put(fixture->state.fx, 0x35f, 2);                             /* precision unmasked */
    assert_int_equal(run(fixture, "d910"), ISA_NO_FAULT);
    assert_int_equal(get(operand, 4), 0x3f800000);
    assert_int_equal(get(fixture->state.fx + 2, 2) & 0xa0, 0xa0);
}

/* --- x87 environments ----------------------------------------------------------------------- */

static void test_x87_pointers(void **state)
{
    struct fixture *fixture = *state;
    prepare_x87(fixture);
    put(memory + DATA, 0x3f800000, 4);
    assert_int_equal(run(fixture, "d800"), ISA_NO_FAULT); /* fadd dword [rax] */
    assert_int_equal(get(fixture->state.fx + 6, 2), 0x000);
    assert_int_equal(get(fixture->state.fx + 8, 8), ISA_CODE);
    assert_int_equal(get(fixture->state.fx + 16, 8), ISA_SCRATCH + DATA);
    assert_int_equal(run(fixture, "ddd1"), ISA_NO_FAULT); /* fst st1: no operand in memory */
    assert_int_equal(get(fixture->state.fx + 6, 2), 0x5d1);
    assert_int_equal(get(fixture->state.fx + 16, 8), ISA_SCRATCH + DATA);
    put(fixture->state.fx + 8, 0, 8);
    assert_int_equal(run(fixture, "d928"), ISA_NO_FAULT); /* fldcw: a control instruction */
    assert_int_equal(get(fixture->state.fx + 6, 2), 0x5d1);
    assert_int_equal(get(fixture->state.fx + 8, 8), 0);
    /* An instruction that faults leaves no trace. */
    fixture->state.gpr[RAX] = ISA_SCRATCH + ISA_SCRATCH_BYTES;
    put(fixture->state.fx + 8, 0x1234, 8);
    put(fixture->state.fx, 0x37f, 2);
    assert_int_equal(run(fixture, "d800"), VECTOR_PF);
    assert_int_equal(get(fixture->state.fx + 8, 8), 0x1234);
    put(fixture->state.fx + 8, 0x1234, 8);
    assert_int_equal(run(fixture, "dbe3"), ISA_NO_FAULT); /* fninit */
    assert_int_equal(get(fixture->state.fx + 8, 8), 0);
}

struct env_case {
    uint32_t mode;
    const char *store, *load, *save, *restore; /* fnstenv, fldenv, fnsave, frstor [bx] or [eax] */
    unsigned env_bytes;
    const uint8_t pointers[16]; /* behind CW, SW and TW */
};

/* FOP 5A3H, FIP 12345H, FDP 6789AH. */
static const struct env_case env_cases[] = {
    {MODE_32,
     "d930",
     "d920",
     "dd30",
     "dd20",
     28,
     {0x45, 0x23, 0x01, 0, 0, 0, 0xa3, 0x05, 0x9a, 0x78, 0x06, 0, 0, 0, 0xff, 0xff}},
    {MODE_32, "66d930", "66d920", "66dd30", "66dd20", 14, {0x45, 0x23, 0, 0, 0x9a, 0x78, 0, 0}},
    {MODE_16 | MODE_REAL,
     "66d937",
     "66d927",
     "66dd37",
     "66dd27",
     28,
     {0x45, 0x23, 0, 0, 0xa3, 0x15, 0, 0, 0x9a, 0x78, 0, 0, 0, 0x60, 0, 0}},
    {MODE_16 | MODE_REAL,
     "d937",
     "d927",
     "dd37",
     "dd27",
     14,
     {0x45, 0x23, 0xa3, 0x15, 0x9a, 0x78, 0, 0x60}},
};

static void prepare_env(struct fixture *fixture)
{
    prepare_x87(fixture);
    put(fixture->state.fx, 0x27f, 2);
    put(fixture->state.fx + 2, 0x4100, 2);
    put(fixture->state.fx + 6, 0x5a3, 2);
    put(fixture->state.fx + 8, 0x12345, 8);
    put(fixture->state.fx + 16, 0x6789a, 8);
}

static void check_env(struct fixture *fixture, const struct env_case *env)
{
    unsigned step = env->env_bytes / 7;
    fixture->cpu->mode = env->mode;
    /* Real mode: DS:BX, with DS at scratch memory. */
    fixture->cpu->segment[SEG_DS].base = env->mode & MODE_REAL ? ISA_SCRATCH : 0;
    fixture->state.gpr[RBX] = DATA;
    fixture->state.gpr[RAX] = ISA_SCRATCH + DATA;
    prepare_env(fixture);
    struct isa_state before = fixture->state;
    memset(memory + DATA, 0xa5, 256);
    assert_int_equal(run(fixture, env->store), ISA_NO_FAULT);
    assert_int_equal(get(memory + DATA, 2), 0x27f);
    assert_int_equal(get(memory + DATA + step, 2), 0x4100);
    assert_int_equal(get(memory + DATA + step * 2, 2), 0xfff4); /* valid, zero, six empty */
    assert_memory_equal(memory + DATA + step * 3, env->pointers, step * 4);
    assert_int_equal(memory[DATA + env->env_bytes], 0xa5);
    /* Back into a unit that knows nothing of it. */
    assert_int_equal(run(fixture, "dbe3"), ISA_NO_FAULT);
    assert_int_equal(run(fixture, env->load), ISA_NO_FAULT);
    assert_memory_equal(fixture->state.fx, before.fx, 6);
    if (memchr(env->pointers, 0xa3, 8) != NULL) { /* the format has FOP */
        assert_memory_equal(fixture->state.fx + 6, before.fx + 6, 18);
    } else {
        assert_int_equal(get(fixture->state.fx + 8, 8), 0x2345);
    }
    fixture->state = before;
    memset(memory + DATA, 0xa5, 256);
    assert_int_equal(run(fixture, env->save), ISA_NO_FAULT);
    assert_int_equal(memory[DATA + env->env_bytes + 80], 0xa5);
    assert_int_equal(get(fixture->state.fx, 6), 0x37f); /* as FNINIT leaves it */
    assert_int_equal(run(fixture, env->restore), ISA_NO_FAULT);
    assert_memory_equal(fixture->state.fx, before.fx, 6);
    assert_memory_equal(fixture->state.fx + 32, before.fx + 32, 128);
}

static void test_environments(void **state)
{
    for (unsigned i = 0; i < sizeof(env_cases) / sizeof(env_cases[0]); i++)
        check_env(*state, &env_cases[i]);
}

/* --- masked accesses ------------------------------------------------------------------------ */

static void set_mask(uint8_t vector[32], unsigned element_bytes, uint32_t selected)
{
    for (unsigned i = 0; i < 32 / element_bytes; i++)
        memset(vector + i * element_bytes, selected & 1u << i ? 0x80 : 0x7f, element_bytes);
}

static void test_masked_moves(void **state)
{
    struct fixture *fixture = *state;
    const uint64_t end = ISA_SCRATCH + ISA_SCRATCH_BYTES;
    for (unsigned i = 0; i < 16; i++)
        memory[ISA_SCRATCH_BYTES - 16 + i] = (uint8_t)i;
    /* vmaskmovps ymm0, ymm1, [rax]: the upper half is in the guard page */
    fixture->state.gpr[RAX] = end - 16;
    set_mask(fixture->state.vector[1], 4, 0x0b);
    assert_int_equal(run(fixture, "c4e2752c00"), ISA_NO_FAULT);
    assert_int_equal(get(fixture->state.vector[0], 8), UINT64_C(0x0706050403020100));
    assert_int_equal(get(fixture->state.vector[0] + 8, 8), UINT64_C(0x0f0e0d0c00000000));
    assert_int_equal(get(fixture->state.vector[0] + 16, 8), 0);
    set_mask(fixture->state.vector[1], 4, 0x28);
    struct isa_state before = fixture->state;
    assert_int_equal(run(fixture, "c4e2752c00"), VECTOR_PF);
    assert_int_equal(fixture->state.fault_address, end + 4);
    assert_memory_equal(fixture->state.vector, before.vector, sizeof(before.vector));
    /* vpmaskmovq [rax], ymm1, ymm2: writable, then read-only; all or nothing */
    fixture->state.gpr[RAX] = ISA_SCRATCH + ISA_WRITABLE_BYTES - 16;
    set_mask(fixture->state.vector[1], 8, 0x9);
    assert_int_equal(run(fixture, "c4e2f58e10"), VECTOR_PF);
    assert_int_equal(fixture->state.error_code, 7);
    assert_int_equal(fixture->state.fault_address, ISA_SCRATCH + ISA_WRITABLE_BYTES + 8);
    assert_int_equal(get(memory + ISA_WRITABLE_BYTES - 16, 8), UINT64_C(0xa5a5a5a5a5a5a5a5));
    set_mask(fixture->state.vector[1], 8, 0x2);
    assert_int_equal(run(fixture, "c4e2f58e10"), ISA_NO_FAULT);
    assert_int_equal(get(memory + ISA_WRITABLE_BYTES - 16, 8), UINT64_C(0xa5a5a5a5a5a5a5a5));
    assert_int_equal(get(memory + ISA_WRITABLE_BYTES - 8, 8), UINT64_C(0x1212121212121212));
    /* maskmovdqu xmm2, xmm1: to [rdi], bytes beyond the page not selected */
    fixture->state.gpr[RDI] = ISA_SCRATCH + ISA_WRITABLE_BYTES - 4;
    set_mask(fixture->state.vector[1], 1, 0x5);
    assert_int_equal(run(fixture, "660ff7d1"), ISA_NO_FAULT);
    assert_int_equal(get(memory + ISA_WRITABLE_BYTES - 4, 4), 0x12121212);
    set_mask(fixture->state.vector[1], 1, 0x18);
    assert_int_equal(run(fixture, "660ff7d1"), VECTOR_PF);
}

static void test_gather_keeps_progress(void **state)
{
    struct fixture *fixture = *state;
    /* vpgatherdd ymm0, [rax+ymm2*4], ymm1 */
    fixture->state.gpr[RAX] = ISA_SCRATCH;
    set_mask(fixture->state.vector[1], 4, 0xff);
    memset(fixture->state.vector[2], 0, 32);
    for (unsigned i = 0; i < 8; i++)
        put(fixture->state.vector[2] + i * 4, i == 5 ? (unsigned)ISA_SCRATCH_BYTES / 4 : i, 4);
    for (unsigned i = 0; i < 8; i++)
        put(memory + i * 4, 100 + i, 4);
    assert_int_equal(run(fixture, "c4e275900490"), VECTOR_PF);
    assert_int_equal(fixture->state.fault_address, ISA_SCRATCH + ISA_SCRATCH_BYTES);
    for (unsigned i = 0; i < 8; i++) {
        assert_int_equal(get(fixture->state.vector[0] + i * 4, 4), i < 5 ? 100 + i : 0x10101010);
        assert_int_equal(get(fixture->state.vector[1] + i * 4, 4), i < 5 ? 0 : 0x80808080);
    }
    put(fixture->state.vector[2] + 20, 5, 4);
    assert_int_equal(run(fixture, "c4e275900490"), ISA_NO_FAULT);
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(get(fixture->state.vector[0] + i * 4, 4), 100 + i);
    assert_int_equal(run(fixture, "c4e275900490"), ISA_NO_FAULT); /* mask is clear: nothing */
    assert_int_equal(run(fixture, "c4e26d900490"), NOT_OFFERED);  /* mask is index */
}

/* --- 32-bit mode ---------------------------------------------------------------------------- */

static void test_eight_registers(void **state)
{
    struct fixture *fixture = *state;
    fixture->cpu->mode = MODE_32;
    assert_int_equal(run(fixture, "c5fc77"), ISA_NO_FAULT); /* vzeroall */
    assert_int_equal(get(fixture->state.vector[7], 8), 0);
    assert_int_equal(get(fixture->state.vector[8], 8), UINT64_C(0x1818181818181818));
    /* VEX.W is ignored, bits that would name registers 8 … 15 too: vmovd xmm1, eax */
    fixture->state.gpr[RAX] = UINT64_C(0x1122334455667788);
    assert_int_equal(run(fixture, "c4e1f96ec8"), ISA_NO_FAULT);
    assert_int_equal(get(fixture->state.vector[1], 8), 0x55667788);
    memset(fixture->state.vector[2], 0x33, 32);
    assert_int_equal(run(fixture, "c4e3694acab0"), ISA_NO_FAULT); /* is4 names xmm3, not 11 */
    fixture->state.gpr[RAX] = ISA_SCRATCH + DATA;
    assert_int_equal(run(fixture, "0fae00"), ISA_NO_FAULT); /* fxsave */
    assert_int_equal(get(memory + DATA + 160 + 16 * 8 - 8, 8), 0);
    assert_int_equal(memory[DATA + 160 + 16 * 8], 0xa5);
}

/* --- FXSAVE and XSAVE ----------------------------------------------------------------------- */

static void test_fxsave(void **state)
{
    struct fixture *fixture = *state;
    prepare_env(fixture);
    put(fixture->state.fx + 8, UINT64_C(0x123456789abc), 8);
    struct isa_state before = fixture->state;
    assert_int_equal(run(fixture, "480fae00"), ISA_NO_FAULT);
    assert_memory_equal(memory + DATA, before.fx, 24);
    assert_int_equal(get(memory + DATA + 24, 8), UINT64_C(0xffff00001f80));
    for (unsigned n = 0; n < 16; n++)
        assert_memory_equal(memory + DATA + 160 + n * 16, before.vector[n], 16);
    assert_int_equal(memory[DATA + 416], 0xa5);
    assert_int_equal(run(fixture, "0fae00"), ISA_NO_FAULT); /* 32 bits of FIP, selector 0 */
    assert_int_equal(get(memory + DATA + 8, 8), 0x56789abc);
    assert_int_equal(run(fixture, "0fae4008"), VECTOR_GP);
    put(memory + DATA + 24, 0x11f80, 4);
    assert_int_equal(run(fixture, "0fae08"), VECTOR_GP); /* fxrstor with a reserved MXCSR bit */
    put(memory + DATA + 24, 0x9fc0, 4);
    memset(memory + DATA + 160, 0x77, 256);
    assert_int_equal(run(fixture, "0fae08"), ISA_NO_FAULT);
    assert_int_equal(mxcsr_of(fixture), 0x9fc0);
    assert_int_equal(get(fixture->state.vector[15], 8), UINT64_C(0x7777777777777777));
    assert_int_equal(get(fixture->state.vector[15] + 16, 8), UINT64_C(0x1f1f1f1f1f1f1f1f));
}

static void test_mxcsr_reserved(void **state)
{
    struct fixture *fixture = *state;
    put(memory + DATA, 0x10000, 4);
    assert_int_equal(run(fixture, "0fae10"), VECTOR_GP);   /* ldmxcsr */
    assert_int_equal(run(fixture, "c5f8ae10"), VECTOR_GP); /* vldmxcsr */
    put(memory + DATA, 0xffff, 4);
    assert_int_equal(run(fixture, "0fae10"), ISA_NO_FAULT);
    assert_int_equal(mxcsr_of(fixture), 0xffff);
}

static const uint64_t area_address = ISA_SCRATCH + DATA;
static uint8_t *const area = memory + DATA;

/* An XSAVE instruction with its mask in EDX:EAX and the area at [rbx]. */
static int run_xsave(struct fixture *fixture, const char *hex, uint64_t mask)
{
    fixture->state.gpr[RAX] = mask & UINT32_MAX;
    fixture->state.gpr[RDX] = mask >> 32;
    fixture->state.gpr[RBX] = area_address;
    return run(fixture, hex);
}

#define XSAVE    "480fae23"
#define XRSTOR   "480fae2b"
#define XSAVEOPT "480fae33"
#define XSAVEC   "480fc723"
#define XSAVES   "480fc72b"
#define XRSTORS  "480fc71b"

static void make_initial(struct fixture *fixture)
{
    memset(fixture->state.fx, 0, 160);
    put(fixture->state.fx, 0x37f, 2);
    put(fixture->state.fx + 24, 0x1f80, 4);
    memset(fixture->state.vector, 0, sizeof(fixture->state.vector));
}

static void test_xsave(void **state)
{
    struct fixture *fixture = *state;
    prepare_env(fixture);
    put(area + 512, 0xf0, 8);
    assert_int_equal(run_xsave(fixture, XSAVE, 7), ISA_NO_FAULT);
    assert_int_equal(get(area + 512, 8), 0xf7);
    assert_int_equal(get(area + 520, 8), UINT64_C(0xa5a5a5a5a5a5a5a5)); /* not its to write */
    assert_memory_equal(area, fixture->state.fx, 24);
    assert_int_equal(get(area + 160 + 16, 8), UINT64_C(0x1111111111111111));
    assert_int_equal(get(area + 576 + 240, 8), UINT64_C(0x1f1f1f1f1f1f1f1f));
    /* A subset leaves the rest alone, bits of XSTATE_BV too; MXCSR goes with AVX as well. */
    memset(area, 0xa5, 832);
    put(area + 512, 3, 8);
    assert_int_equal(run_xsave(fixture, XSAVE, 4), ISA_NO_FAULT);
    assert_int_equal(get(area + 512, 8), 7);
    assert_int_equal(area[0], 0xa5);
    assert_int_equal(area[160], 0xa5);
    assert_int_equal(get(area + 24, 4), 0x1f80);
    /* Beyond XCR0 there is nothing to save. */
    fixture->cpu->xcr0 = 3;
    memset(area, 0xa5, 832);
    put(area + 512, 0, 8);
    assert_int_equal(run_xsave(fixture, XSAVE, ~UINT64_C(0)), ISA_NO_FAULT);
    assert_int_equal(get(area + 512, 8), 3);
    assert_int_equal(area[576], 0xa5);
    fixture->state.gpr[RBX] = area_address + 16;
    assert_int_equal(run(fixture, XSAVE), VECTOR_GP);
}

static void test_xsave_initial(void **state)
{
    struct fixture *fixture = *state;
    make_initial(fixture);
    put(area + 512, 7, 8);
    assert_int_equal(run_xsave(fixture, XSAVEOPT, 7), ISA_NO_FAULT);
    assert_int_equal(get(area + 512, 8), 0);
    assert_int_equal(area[0], 0xa5);
    assert_int_equal(area[160], 0xa5);
    assert_int_equal(area[576], 0xa5);
    put(area + 512, 7, 8);
    assert_int_equal(run_xsave(fixture, XSAVE, 7), ISA_NO_FAULT); /* writes what it calls initial */
    assert_int_equal(get(area + 512, 8), 0);
    assert_int_equal(get(area, 2), 0x37f);
    assert_int_equal(area[160], 0);
    assert_int_equal(area[576], 0);
    /* Compacted: MXCSR counts as part of SSE, and what is initial is not written. */
    memset(area, 0xa5, 832);
    assert_int_equal(run_xsave(fixture, XSAVEC, 7), ISA_NO_FAULT);
    assert_int_equal(get(area + 512, 8), 0);
    assert_int_equal(get(area + 520, 8), UINT64_C(0x8000000000000007));
    assert_int_equal(area[24], 0xa5);
    put(fixture->state.fx + 24, 0x1fa0, 4);
    fixture->state.vector[3][31] = 1;
    assert_int_equal(run_xsave(fixture, XSAVEC, 7), ISA_NO_FAULT);
    assert_int_equal(get(area + 512, 8), 6);
    assert_int_equal(get(area + 24, 4), 0x1fa0);
    assert_int_equal(area[576 + 3 * 16 + 15], 1);
    assert_int_equal(area[0], 0xa5);
    fixture->state.gpr[RCX] = 1;
    assert_int_equal(run(fixture, "0f01d0"), ISA_NO_FAULT); /* xgetbv: XINUSE */
    assert_int_equal(fixture->state.gpr[RAX], 4);
    assert_int_equal(fixture->state.gpr[RDX], 0);
}

static void test_xrstor(void **state)
{
    struct fixture *fixture = *state;
    prepare_env(fixture);
    struct isa_state full = fixture->state;
    memset(area, 0, 832);
    assert_int_equal(run_xsave(fixture, XSAVE, 7), ISA_NO_FAULT);
    make_initial(fixture);
    assert_int_equal(run_xsave(fixture, XRSTOR, 7), ISA_NO_FAULT);
    assert_memory_equal(fixture->state.fx, full.fx, 28);
    assert_memory_equal(fixture->state.fx + 32, full.fx + 32, 128);
    assert_memory_equal(fixture->state.vector, full.vector, sizeof(full.vector));
    /* Components that XSTATE_BV lacks become initial; those that the mask lacks stay. MXCSR comes
     * from memory all the same. */
    put(area + 512, 2, 8);
    put(area + 24, 0x1f81, 4);
    assert_int_equal(run_xsave(fixture, XRSTOR, 5), ISA_NO_FAULT);
    assert_int_equal(get(fixture->state.fx, 6), 0x37f);
    assert_int_equal(get(fixture->state.vector[9], 8), UINT64_C(0x1919191919191919));
    assert_int_equal(get(fixture->state.vector[9] + 16, 8), 0);
    assert_int_equal(mxcsr_of(fixture), 0x1f81);
    put(area + 512, 0, 8);
    assert_int_equal(run_xsave(fixture, XRSTOR, 2), ISA_NO_FAULT);
    assert_int_equal(get(fixture->state.vector[9], 8), 0);
    assert_int_equal(mxcsr_of(fixture), 0x1f81);
    /* Compacted form, made by XSAVEC: MXCSR is SSE's. */
    fixture->state = full;
    memset(area, 0, 832);
    assert_int_equal(run_xsave(fixture, XSAVEC, 6), ISA_NO_FAULT);
    make_initial(fixture);
    assert_int_equal(run_xsave(fixture, XRSTOR, 7), ISA_NO_FAULT);
    assert_memory_equal(fixture->state.vector, full.vector, sizeof(full.vector));
    put(fixture->state.fx + 24, 0x1fbf, 4);
    put(area + 512, 4, 8);
    assert_int_equal(run_xsave(fixture, XRSTOR, 4), ISA_NO_FAULT);
    assert_int_equal(mxcsr_of(fixture), 0x1fbf);
    assert_int_equal(run_xsave(fixture, XRSTOR, 2), ISA_NO_FAULT);
    assert_int_equal(mxcsr_of(fixture), 0x1f80);
    assert_int_equal(get(fixture->state.vector[9], 8), 0);
}

static void test_xrstor_refuses(void **state)
{
    struct fixture *fixture = *state;
    const uint64_t compacted = UINT64_C(1) << 63;
    static const struct {
        uint64_t xstate_bv, xcomp_bv, reserved[6];
        uint32_t mxcsr;
        uint64_t mask;
        bool refused;
    } cases[] = {
        {7, 0, {0}, 0x1f80, 7, false},
        {8, 0, {0}, 0x1f80, 7, true}, /* not in XCR0 */
        {0x8000000000000000, 0, {0}, 0x1f80, 7, true},
        {7, 1, {0}, 0x1f80, 7, true},
        {7, 0, {1}, 0x1f80, 7, true},
        {7, 0, {0, 1, 1, 1, 1, 1}, 0x1f80, 7, false}, /* standard: only bytes 23:8 count */
        {7, 0, {0}, 0x11f80, 7, true},
        {0, 0, {0}, 0x11f80, 4, true}, /* MXCSR is loaded in any case */
        {7, 0, {0}, 0x11f80, 1, false},
        {7, UINT64_C(0x8000000000000007), {0}, 0x1f80, 7, false},
        {7, UINT64_C(0x8000000000000003), {0}, 0x1f80, 7, true}, /* not in the format */
        {3, UINT64_C(0x800000000000000b), {0}, 0x1f80, 7, true}, /* not in XCR0 */
        {7, UINT64_C(0x8000000000000007), {0, 0, 0, 0, 0, 1}, 0x1f80, 7, true},
        {5, UINT64_C(0x8000000000000007), {0}, 0x11f80, 7, false}, /* initialised instead */
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        memset(area, 0, 832);
        put(area + 24, cases[i].mxcsr, 4);
        memcpy(area + 512, &cases[i], 64);
        struct isa_state before = fixture->state;
        int fault = run_xsave(fixture, XRSTOR, cases[i].mask);
        if (fault != (cases[i].refused ? VECTOR_GP : ISA_NO_FAULT))
            fail_msg("case %u: %d", i, fault);
        if (fault == VECTOR_GP)
            assert_memory_equal(fixture->state.vector, before.vector, sizeof(before.vector));
    }
    /* The privileged pair: compacted only, and CPL 0 only. */
    memset(area, 0, 832);
    put(area + 24, 0x1f80, 4);
    put(area + 520, compacted | 7, 8);
    assert_int_equal(run_xsave(fixture, XRSTORS, 7), VECTOR_GP);
    assert_int_equal(run_xsave(fixture, XSAVES, 7), VECTOR_GP);
    fixture->cpu->cpl = 0;
    assert_int_equal(run_xsave(fixture, XRSTORS, 7), ISA_NO_FAULT);
    put(area + 520, 0, 8);
    assert_int_equal(run_xsave(fixture, XRSTORS, 7), VECTOR_GP);
    fixture->state.vector[1][0] = 1;
    assert_int_equal(run_xsave(fixture, XSAVES, 7), ISA_NO_FAULT);
    assert_int_equal(get(area + 512, 8), 2);
    assert_int_equal(get(area + 520, 8), compacted | 7);
}

static void test_xcr0(void **state)
{
    struct fixture *fixture = *state;
    static const struct {
        uint64_t value, index;
        uint8_t cpl;
        int fault;
    } cases[] = {
        {7, 0, 0, ISA_NO_FAULT},
        {3, 0, 0, ISA_NO_FAULT},
        {1, 0, 0, ISA_NO_FAULT},
        {0, 0, 0, VECTOR_GP},
        {5, 0, 0, VECTOR_GP},
        {6, 0, 0, VECTOR_GP},
        {7, 1, 0, VECTOR_GP},
        {7, 0, 3, VECTOR_GP},
        {0xf, 0, 0, VECTOR_GP},
        {0xe7, 0, 0, VECTOR_GP},
        {UINT64_C(0x100000007), 0, 0, VECTOR_GP},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        fixture->cpu->cpl = cases[i].cpl;
        fixture->state.gpr[RAX] = cases[i].value & UINT32_MAX;
        fixture->state.gpr[RDX] = cases[i].value >> 32;
        fixture->state.gpr[RCX] = cases[i].index;
        int fault = run(fixture, "0f01d1");
        if (fault != cases[i].fault)
            fail_msg("case %u: %d", i, fault);
        if (fault == ISA_NO_FAULT)
            assert_int_equal(fixture->cpu->xcr0, cases[i].value);
    }
    fixture->state.gpr[RCX] = 2;
    assert_int_equal(run(fixture, "0f01d0"), VECTOR_GP);
}

/* --- the pool, and state from outside -------------------------------------------------------- */

/* vpblendw xmm, xmm, xmm, imm8 has 2^18 encodings that make a stub each, shared by equal ones. */
static void decode_nth_blend(struct cpu *cpu, unsigned i)
{
    struct op op, again;
    uint8_t bytes[6] = {0xc4, i >> 6 & 1 ? 0xc3 : 0xe3,   (uint8_t)(0x01 | (i >> 7 & 15) << 3),
                        0x0e, (uint8_t)(0xc0 | (i & 63)), (uint8_t)(i >> 11)};
    assert_true(soft_decode(cpu, bytes, sizeof(bytes), &op));
    assert_true(soft_decode(cpu, bytes, sizeof(bytes), &again));
    assert_ptr_equal(op.aux, again.aux);
}

static void test_stub_pool(void **state)
{
    struct fixture *fixture = *state;
    struct cpu *cpu = fixture->cpu;
    unsigned made = 0;
    /* Blocks of stubs that are all different: one that starts finds room. */
    while (!vector_wants_flush(cpu) && made < 1u << 18) {
        for (unsigned i = 0; i < VECTOR_MAX_BLOCK_OPS; i++, made++)
            decode_nth_blend(cpu, made);
    }
    assert_true(vector_wants_flush(cpu));
    assert_true(made > 10000);
    vector_flush_stubs(cpu);
    assert_false(vector_wants_flush(cpu));
    memset(fixture->state.vector[0], 0x0f, 32);
    memset(fixture->state.vector[1], 0x01, 32);
    assert_int_equal(run(fixture, "c5fdfcc1"), ISA_NO_FAULT); /* vpaddb ymm0, ymm0, ymm1 */
    assert_int_equal(get(fixture->state.vector[0] + 24, 8), UINT64_C(0x1010101010101010));
}

static void test_state(void **state)
{
    struct fixture *fixture = *state;
    struct x86_state whole, back;
    prepare_env(fixture);
    fixture->state.gpr[RAX] = ISA_SCRATCH + DATA;
    assert_int_equal(run(fixture, "0f57c0"), ISA_NO_FAULT);
    memset(&whole, 0, sizeof(whole));
    memset(&back, 0, sizeof(back));
    vector_get_state(fixture->cpu, &whole);
    assert_int_equal(whole.xsave[512], 7);
    vector_reset(fixture->cpu);
    assert_int_equal(fixture->cpu->xcr0, 1);
    assert_int_equal(fixture->cpu->vector[9].bytes[30], 0);
    assert_true(vector_set_state(fixture->cpu, &whole));
    vector_get_state(fixture->cpu, &back);
    assert_memory_equal(whole.xsave, back.xsave, sizeof(whole.xsave));
    assert_int_equal(whole.xcr0, back.xcr0);
    /* What XRSTOR refuses is refused. */
    put(whole.xsave + 24, 0x10000, 4);
    assert_false(vector_set_state(fixture->cpu, &whole));
    put(whole.xsave + 24, 0x1f80, 4);
    whole.xsave[520] = 1;
    assert_false(vector_set_state(fixture->cpu, &whole));
    whole.xsave[520] = 0;
    whole.xsave[512] = 0x0f;
    assert_false(vector_set_state(fixture->cpu, &whole));
    whole.xsave[512] = 0;
    whole.xcr0 = 5;
    assert_false(vector_set_state(fixture->cpu, &whole));
    vector_get_state(fixture->cpu, &whole);
    assert_memory_equal(whole.xsave, back.xsave, sizeof(whole.xsave));
    /* The state of x86_state_reset() is that of vector_reset(). */
    x86_state_reset(&whole, true);
    assert_true(vector_set_state(fixture->cpu, &whole));
    vector_get_state(fixture->cpu, &whole);
    vector_reset(fixture->cpu);
    vector_get_state(fixture->cpu, &back);
    assert_memory_equal(whole.xsave, back.xsave, sizeof(whole.xsave));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    struct soft_runner *first = soft_runner_open(memory);
    sigaction(SIGFPE, NULL, &skep_action);
    soft_runner_close(first);
    const struct CMUnitTest tests[] = {
        TEST(test_control_registers),
        TEST(test_not_offered),
        TEST(test_unmasked_simd),
        TEST(test_pending_x87),
        TEST(test_x87_store_across_pages),
        TEST(test_x87_pointers),
        TEST(test_environments),
        TEST(test_masked_moves),
        TEST(test_gather_keeps_progress),
        TEST(test_eight_registers),
        TEST(test_fxsave),
        TEST(test_mxcsr_reserved),
        TEST(test_xsave),
        TEST(test_xsave_initial),
        TEST(test_xrstor),
        TEST(test_xrstor_refuses),
        TEST(test_xcr0),
        TEST(test_stub_pool),
        TEST(test_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
