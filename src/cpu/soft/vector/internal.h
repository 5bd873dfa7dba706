/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What the files of cpu/soft/vector share: availability checks, host features, stubs, the live x87.
 */
#ifndef SKEP_CPU_SOFT_VECTOR_INTERNAL_H
#define SKEP_CPU_SOFT_VECTOR_INTERNAL_H

#include "cpu/soft/cpu.h"
#include "cpu/soft/memory.h"
#include "cpu/soft/op.h"
#include "cpu/soft/vector/vector.h"

#include <stddef.h>

enum {
    VECTOR_CR0_MP = 1 << 1,
    VECTOR_CR0_EM = 1 << 2,
    VECTOR_CR0_TS = 1 << 3,
    VECTOR_CR0_NE = 1 << 5,
    VECTOR_CR4_OSFXSR = 1 << 9,
    VECTOR_CR4_OSXMMEXCPT = 1 << 10,
    VECTOR_CR4_OSXSAVE = 1 << 18,
};

/* State components of XCR0 (SDM 1 13.1). */
enum { XCR0_X87 = 1 << 0, XCR0_SSE = 1 << 1, XCR0_AVX = 1 << 2, XCR0_PKRU = 1 << 9 };

enum { MXCSR_DEFAULT = 0x1f80, MXCSR_FLAGS = 0x3f, MXCSR_MASK = 0xffff };

/* Bytes of an FXSAVE image that are x87's own: control words and ST0 … ST7. */
enum { X87_IMAGE_BYTES = 160 };

/* What the host has, as far as the OS lets it be used: bits of enum host_feature. */
enum host_feature {
    HOST_SSE3 = 1 << 0,
    HOST_SSSE3 = 1 << 1,
    HOST_SSE41 = 1 << 2,
    HOST_SSE42 = 1 << 3,
    HOST_AES = 1 << 4,
    HOST_PCLMUL = 1 << 5,
    HOST_AVX = 1 << 6,
    HOST_AVX2 = 1 << 7,
    HOST_FMA = 1 << 8,
    HOST_F16C = 1 << 9,
    HOST_SHA = 1 << 10,
};
uint32_t vector_host_features(void);

/* --- stub.c ------------------------------------------------------------------------------- */

/* Code of one instruction with the loads and stores of the registers it names. `operand` is the
 * host address of its memory operand (rdi, rsi). A SIMD exception leaves it by way of
 * vector_raise_simd. */
typedef void stub_fn(struct cpu *cpu, void *operand);

/* Called through op->aux. */
static inline void stub_run(struct cpu *cpu, const struct op *op, void *operand)
{
    stub_fn *fn;
    memcpy(&fn, &op->aux, sizeof(fn));
    fn(cpu, operand);
}

/* Makes (or finds) the stub of insn and sets op->aux. `uses_mxcsr`: the guest's MXCSR is loaded
 * around the instruction and read back. False: the instruction can't be made into a stub. */
bool stub_bind(const struct insn *insn, struct op *op, bool uses_mxcsr);

/* The pool's executable range, for the signal handler. */
bool stub_contains(const struct vector_pool *pool, uintptr_t address);

bool stub_pool_open(struct cpu *cpu, struct error *err);
void stub_pool_close(struct cpu *cpu);

/* --- signal.c ----------------------------------------------------------------------------- */

bool signal_install(struct error *err);
void signal_set_running(struct cpu *cpu); /* of this thread; NULL: none */

/* --- bind functions of the families ------------------------------------------------------- */

bool bind_vector_move(const struct insn *insn, struct op *op);   /* move.c: direct handlers */
bool bind_vector_masked(const struct insn *insn, struct op *op); /* masked.c: VMASKMOV, gathers … */
bool bind_vector_stub(const struct insn *insn, struct op *op);   /* simd.c: by stubs */
bool bind_x87(const struct insn *insn, struct op *op);           /* x87.c */
bool bind_xsave(const struct insn *insn, struct op *op);         /* xsave.c */

/* The memory operand among the visible ones, or NULL. */
const ZydisDecodedOperand *insn_memory(const struct insn *insn);

/* --- x87.c -------------------------------------------------------------------------------- */

void x87_make_live(struct cpu *cpu);

/* Brings cpu->x87 up to date; what is live stays live. */
void x87_sync(struct cpu *cpu);

/* After x87_sync; the host's unit is put in its initial state, cpu->x87 holds the truth. */
void x87_unload(struct cpu *cpu);

/* The x87 part of a FXSAVE image, FIP and FDP of 64 or 32 bits, and back. put needs no sync before,
 * and leaves the state live. Bytes 24 … 31 (MXCSR) are left alone. */
void x87_get_image(struct cpu *cpu, uint8_t image[X87_IMAGE_BYTES], bool is_64bit);
void x87_put_image(struct cpu *cpu, const uint8_t image[X87_IMAGE_BYTES], bool is_64bit);
void x87_put_initial(struct cpu *cpu);
bool x87_is_initial(struct cpu *cpu);

/* The raising ends of the checks below. */
_Noreturn void vector_raise_unavailable_sse(struct cpu *cpu);
_Noreturn void vector_raise_unavailable_avx(struct cpu *cpu);
_Noreturn void vector_raise_unavailable_mmx(struct cpu *cpu);
_Noreturn void vector_raise_pending_x87(struct cpu *cpu);

static inline void check_sse(struct cpu *cpu)
{
    if (__builtin_expect(
            (cpu->cr0 & (VECTOR_CR0_EM | VECTOR_CR0_TS)) | (~cpu->cr4 & VECTOR_CR4_OSFXSR), 0))
        vector_raise_unavailable_sse(cpu);
}

static inline void check_avx(struct cpu *cpu)
{
    if (__builtin_expect((cpu->cr0 & VECTOR_CR0_TS) | (~cpu->cr4 & VECTOR_CR4_OSXSAVE) |
                             (~cpu->xcr0 & (XCR0_SSE | XCR0_AVX)),
                         0))
        vector_raise_unavailable_avx(cpu);
}

static inline uint16_t x87_status(void)
{
    uint16_t status;
    __asm__ volatile("fnstsw %0" : "=a"(status));
    return status;
}

/* For waiting x87 instructions and MMX: #MF when an unmasked exception is pending. */
static inline void check_pending_x87(struct cpu *cpu)
{
    if (__builtin_expect(!cpu->x87_live, 0))
        x87_make_live(cpu);
    if (__builtin_expect(x87_status() & 0x80, 0))
        vector_raise_pending_x87(cpu);
}

static inline void check_mmx(struct cpu *cpu)
{
    if (__builtin_expect(cpu->cr0 & (VECTOR_CR0_EM | VECTOR_CR0_TS), 0))
        vector_raise_unavailable_mmx(cpu);
    check_pending_x87(cpu);
}

static inline void check_x87(struct cpu *cpu)
{
    if (__builtin_expect(cpu->cr0 & (VECTOR_CR0_EM | VECTOR_CR0_TS), 0))
        cpu_raise(cpu, VECTOR_NM);
}

/* op_address, and #GP(0) where the exception class demands alignment (SDM 2 2.4). */
static inline uint64_t vector_address(struct cpu *cpu, const struct op *op, unsigned size_bytes,
                                      enum memory_access access)
{
    uint64_t linear = op_address(cpu, op, size_bytes, access);
    if (__builtin_expect((op->flags & OP_ALIGNED) && (linear & (size_bytes - 1)), 0))
        cpu_raise_code(cpu, VECTOR_GP, 0);
    return linear;
}

/* Reads into a buffer of the caller; `buffer` may be written even when the guest faults. */
static inline void vector_read(struct cpu *cpu, uint64_t linear, void *buffer, unsigned size_bytes)
{
    const uint8_t *hva = memory_hit_read(cpu, linear, size_bytes);
    if (__builtin_expect(hva != NULL, 1))
        memcpy(buffer, hva, size_bytes);
    else
        memory_read(cpu, linear, buffer, size_bytes);
}

static inline void vector_write(struct cpu *cpu, uint64_t linear, const void *buffer,
                                unsigned size_bytes)
{
    uint8_t *hva = memory_hit_write(cpu, linear, size_bytes);
    if (__builtin_expect(hva != NULL, 1))
        memcpy(hva, buffer, size_bytes);
    else
        memory_write(cpu, linear, buffer, size_bytes);
}

#endif
