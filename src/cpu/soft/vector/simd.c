/* SPDX-License-Identifier: BSD-2-Clause
 *
 * MMX, SSE, AVX, FMA, F16C, AES, PCLMULQDQ and SHA instructions that run as host code stubs: the
 * handlers that come before and after the stub. One family by what has to be available (SDM 2
 * 2.4), times where the memory operand is.
 */
#include "cpu/soft/vector/internal.h"

void vector_raise_unavailable_sse(struct cpu *cpu)
{
    if ((cpu->cr0 & VECTOR_CR0_EM) || !(cpu->cr4 & VECTOR_CR4_OSFXSR))
        cpu_raise(cpu, VECTOR_UD);
    cpu_raise(cpu, VECTOR_NM);
}

void vector_raise_unavailable_avx(struct cpu *cpu)
{
    if (!(cpu->cr4 & VECTOR_CR4_OSXSAVE) || (~cpu->xcr0 & (XCR0_SSE | XCR0_AVX)))
        cpu_raise(cpu, VECTOR_UD);
    cpu_raise(cpu, VECTOR_NM);
}

void vector_raise_unavailable_mmx(struct cpu *cpu)
{
    cpu_raise(cpu, cpu->cr0 & VECTOR_CR0_EM ? VECTOR_UD : VECTOR_NM);
}

static inline void run_load(struct cpu *cpu, const struct op *op)
{
    _Alignas(32) uint8_t bounce[32];
    unsigned size = op->size_bytes;
    uint64_t linear = vector_address(cpu, op, size, ACCESS_READ);
    const uint8_t *hva = memory_hit_read(cpu, linear, size);
    if (__builtin_expect(hva != NULL, 1)) {
        stub_run(cpu, op, (void *)(uintptr_t)hva);
        return;
    }
    memory_read(cpu, linear, bounce, size);
    stub_run(cpu, op, bounce);
}

/* A stub that raises a SIMD exception leaves from here with nothing written. */
static inline void run_store(struct cpu *cpu, const struct op *op)
{
    _Alignas(32) uint8_t bounce[32];
    unsigned size = op->size_bytes;
    uint64_t linear = vector_address(cpu, op, size, ACCESS_WRITE);
    uint8_t *hva = memory_hit_write(cpu, linear, size);
    if (__builtin_expect(hva != NULL, 1)) {
        stub_run(cpu, op, hva);
        return;
    }
    memory_probe_write(cpu, linear, size);
    stub_run(cpu, op, bounce);
    memory_write(cpu, linear, bounce, size);
}

#define HANDLERS(name, check)                                                                      \
    static void op_##name##_reg(struct cpu *cpu, const struct op *op)                              \
    {                                                                                              \
        check;                                                                                     \
        stub_run(cpu, op, NULL);                                                                   \
    }                                                                                              \
    static void op_##name##_load(struct cpu *cpu, const struct op *op)                             \
    {                                                                                              \
        check;                                                                                     \
        run_load(cpu, op);                                                                         \
    }                                                                                              \
    static void op_##name##_store(struct cpu *cpu, const struct op *op)                            \
    {                                                                                              \
        check;                                                                                     \
        run_store(cpu, op);                                                                        \
    }

HANDLERS(sse, check_sse(cpu))
HANDLERS(avx, check_avx(cpu))
HANDLERS(mmx, check_mmx(cpu))
HANDLERS(both, (check_sse(cpu), check_pending_x87(cpu))) /* XMM and MMX registers */

/* CVTPI2PS from memory names no MMX register; whether it counts as an MMX instruction all the same
 * is up to the host (signal.c takes its #MF). */
static void op_cvtpi2ps_load(struct cpu *cpu, const struct op *op)
{
    check_sse(cpu);
    if (!cpu->x87_live)
        x87_make_live(cpu);
    run_load(cpu, op);
}

static op_fn *const handlers[4][3] = {
    {op_sse_reg, op_sse_load, op_sse_store},
    {op_avx_reg, op_avx_load, op_avx_store},
    {op_mmx_reg, op_mmx_load, op_mmx_store},
    {op_both_reg, op_both_load, op_both_store},
};

/* Whether MXCSR controls the instruction or takes its flags. */
static bool uses_mxcsr(const ZydisDecodedInstruction *info)
{
    switch (info->meta.exception_class) {
    case ZYDIS_EXCEPTION_CLASS_SSE2:
    case ZYDIS_EXCEPTION_CLASS_SSE3:
    case ZYDIS_EXCEPTION_CLASS_AVX2:
    case ZYDIS_EXCEPTION_CLASS_AVX3:
    case ZYDIS_EXCEPTION_CLASS_AVX11: return true;
    default: break;
    }
    switch (info->mnemonic) {
    case ZYDIS_MNEMONIC_CVTPI2PS: /* these have no class in the tables */
    case ZYDIS_MNEMONIC_CVTPS2PI:
    case ZYDIS_MNEMONIC_CVTTPS2PI:
    case ZYDIS_MNEMONIC_CVTPD2PI:
    case ZYDIS_MNEMONIC_CVTTPD2PI:
    case ZYDIS_MNEMONIC_VCVTPH2PS:
    case ZYDIS_MNEMONIC_VCVTPS2PH:
    case ZYDIS_MNEMONIC_RCPPS: /* raise nothing, but some processors heed DAZ */
    case ZYDIS_MNEMONIC_RCPSS:
    case ZYDIS_MNEMONIC_RSQRTPS:
    case ZYDIS_MNEMONIC_RSQRTSS:
    case ZYDIS_MNEMONIC_VRCPPS:
    case ZYDIS_MNEMONIC_VRCPSS:
    case ZYDIS_MNEMONIC_VRSQRTPS:
    case ZYDIS_MNEMONIC_VRSQRTSS: return true;
    default: return info->meta.isa_set == ZYDIS_ISA_SET_FMA;
    }
}

/* Legacy SSE operands of 16 bytes must be aligned, with a few exceptions. */
static bool needs_alignment(const struct insn *insn)
{
    const ZydisDecodedOperand *memory = insn_memory(insn);
    if (memory == NULL || insn->info->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY ||
        memory->size != 128)
        return false;
    switch (insn->info->mnemonic) {
    case ZYDIS_MNEMONIC_PCMPESTRI:
    case ZYDIS_MNEMONIC_PCMPESTRM:
    case ZYDIS_MNEMONIC_PCMPISTRI:
    case ZYDIS_MNEMONIC_PCMPISTRM: return false;
    default: return true;
    }
}

bool bind_vector_stub(const struct insn *insn, struct op *op)
{
    const ZydisDecodedInstruction *info = insn->info;
    bool has_mmx = info->mnemonic == ZYDIS_MNEMONIC_EMMS;
    /* CVTSD2SI and its like name no vector register when their operand is in memory. */
    bool has_xmm = info->meta.category == ZYDIS_CATEGORY_CONVERT;
    for (unsigned i = 0; i < info->operand_count; i++) {
        if (insn->operands[i].type != ZYDIS_OPERAND_TYPE_REGISTER)
            continue;
        ZydisRegisterClass class = ZydisRegisterGetClass(insn->operands[i].reg.value);
        has_xmm |= class == ZYDIS_REGCLASS_XMM || class == ZYDIS_REGCLASS_YMM;
        has_mmx |= class == ZYDIS_REGCLASS_MMX;
    }
    if (!has_xmm && !has_mmx)
        return false;
    const ZydisDecodedOperand *memory = insn_memory(insn);
    if (memory != NULL && (memory->size == 0 || memory->size > 256))
        return false;
    if (!stub_bind(insn, op, uses_mxcsr(info)))
        return false;
    unsigned family = info->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX ? 1
                      : !has_mmx                                       ? 0
                      : !has_xmm                                       ? 2
                                                                       : 3;
    unsigned place = memory == NULL ? 0 : memory->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE ? 2 : 1;
    op->fn = handlers[family][place];
    if (info->mnemonic == ZYDIS_MNEMONIC_CVTPI2PS && memory != NULL)
        op->fn = op_cvtpi2ps_load;
    if (needs_alignment(insn))
        op->flags |= OP_ALIGNED;
    return true;
}
