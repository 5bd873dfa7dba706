/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The vector instructions that programs execute most, in C rather than by stubs: moves, a few
 * bitwise and byte operations, VZEROUPPER and VZEROALL, non-temporal moves (which are plain ones
 * here: guest memory is write-back).
 */
#include "cpu/soft/vector/internal.h"

#include <emmintrin.h>

static inline uint8_t *vector_bytes(struct cpu *cpu, unsigned n)
{
    return cpu->vector[n].bytes;
}

static inline __m128i get128(struct cpu *cpu, unsigned n, unsigned half)
{
    return _mm_load_si128((const void *)(cpu->vector[n].bytes + half * 16));
}

static inline void put128(struct cpu *cpu, unsigned n, unsigned half, __m128i value)
{
    _mm_store_si128((void *)(cpu->vector[n].bytes + half * 16), value);
}

/* Everything above `size` bytes to zero: what VEX moves do. */
static inline void clear_above(struct cpu *cpu, unsigned n, unsigned size)
{
    memset(cpu->vector[n].bytes + size, 0, 32 - size);
}

/* --- whole registers: MOVAPS, MOVUPS, MOVDQA, MOVDQU, LDDQU, MOVNT* ------------------------ */

static void op_move_rr(struct cpu *cpu, const struct op *op)
{
    check_sse(cpu);
    put128(cpu, op->reg[0], 0, get128(cpu, op->reg[1], 0));
}

static void op_move_rm(struct cpu *cpu, const struct op *op)
{
    check_sse(cpu);
    uint64_t linear = vector_address(cpu, op, 16, ACCESS_READ);
    __m128i value;
    vector_read(cpu, linear, &value, sizeof(value));
    put128(cpu, op->reg[0], 0, value);
}

static void op_move_mr(struct cpu *cpu, const struct op *op)
{
    check_sse(cpu);
    uint64_t linear = vector_address(cpu, op, 16, ACCESS_WRITE);
    vector_write(cpu, linear, vector_bytes(cpu, op->reg[1]), 16);
}

static void op_vmove_rr(struct cpu *cpu, const struct op *op)
{
    check_avx(cpu);
    __m128i low = get128(cpu, op->reg[1], 0), high = get128(cpu, op->reg[1], 1);
    put128(cpu, op->reg[0], 0, low);
    put128(cpu, op->reg[0], 1, op->imm2 ? high : _mm_setzero_si128());
}

static void op_vmove128_rm(struct cpu *cpu, const struct op *op)
{
    check_avx(cpu);
    uint64_t linear = vector_address(cpu, op, 16, ACCESS_READ);
    __m128i value;
    vector_read(cpu, linear, &value, sizeof(value));
    put128(cpu, op->reg[0], 0, value);
    put128(cpu, op->reg[0], 1, _mm_setzero_si128());
}

static void op_vmove256_rm(struct cpu *cpu, const struct op *op)
{
    check_avx(cpu);
    uint64_t linear = vector_address(cpu, op, 32, ACCESS_READ);
    __m128i value[2];
    vector_read(cpu, linear, value, sizeof(value));
    put128(cpu, op->reg[0], 0, value[0]);
    put128(cpu, op->reg[0], 1, value[1]);
}

static void op_vmove128_mr(struct cpu *cpu, const struct op *op)
{
    check_avx(cpu);
    uint64_t linear = vector_address(cpu, op, 16, ACCESS_WRITE);
    vector_write(cpu, linear, vector_bytes(cpu, op->reg[1]), 16);
}

static void op_vmove256_mr(struct cpu *cpu, const struct op *op)
{
    check_avx(cpu);
    uint64_t linear = vector_address(cpu, op, 32, ACCESS_WRITE);
    vector_write(cpu, linear, vector_bytes(cpu, op->reg[1]), 32);
}

/* --- scalars: MOVSS, MOVSD, MOVD, MOVQ ----------------------------------------------------- */

/* From memory, into a zeroed register; `vex` clears the upper half too. */
#define SCALAR_LOADS(size)                                                                         \
    static void op_scalar##size##_rm(struct cpu *cpu, const struct op *op)                         \
    {                                                                                              \
        check_sse(cpu);                                                                            \
        uint64_t value = memory_read##size(cpu, op_address(cpu, op, size / 8, ACCESS_READ));       \
        put128(cpu, op->reg[0], 0, _mm_cvtsi64_si128((long long)value));                           \
    }                                                                                              \
    static void op_vscalar##size##_rm(struct cpu *cpu, const struct op *op)                        \
    {                                                                                              \
        check_avx(cpu);                                                                            \
        uint64_t value = memory_read##size(cpu, op_address(cpu, op, size / 8, ACCESS_READ));       \
        put128(cpu, op->reg[0], 0, _mm_cvtsi64_si128((long long)value));                           \
        put128(cpu, op->reg[0], 1, _mm_setzero_si128());                                           \
    }                                                                                              \
    static inline void store_scalar##size(struct cpu *cpu, const struct op *op)                    \
    {                                                                                              \
        uint64_t linear = op_address(cpu, op, size / 8, ACCESS_WRITE);                             \
        uint##size##_t value;                                                                      \
        memcpy(&value, vector_bytes(cpu, op->reg[1]), sizeof(value));                              \
        memory_write##size(cpu, linear, value);                                                    \
    }                                                                                              \
    static void op_scalar##size##_mr(struct cpu *cpu, const struct op *op)                         \
    {                                                                                              \
        check_sse(cpu);                                                                            \
        store_scalar##size(cpu, op);                                                               \
    }                                                                                              \
    static void op_vscalar##size##_mr(struct cpu *cpu, const struct op *op)                        \
    {                                                                                              \
        check_avx(cpu);                                                                            \
        store_scalar##size(cpu, op);                                                               \
    }                                                                                              \
    /* The register form of MOVSS and MOVSD merges. */                                             \
    static void op_merge##size##_rr(struct cpu *cpu, const struct op *op)                          \
    {                                                                                              \
        check_sse(cpu);                                                                            \
        memmove(vector_bytes(cpu, op->reg[0]), vector_bytes(cpu, op->reg[1]), size / 8);           \
    }                                                                                              \
    /* MOVD and MOVQ with a general register. */                                                   \
    static void op_move##size##_xr(struct cpu *cpu, const struct op *op)                           \
    {                                                                                              \
        check_sse(cpu);                                                                            \
        uint##size##_t value = (uint##size##_t) * op_reg64(cpu, op->reg[1]);                       \
        put128(cpu, op->reg[0], 0, _mm_cvtsi64_si128((long long)(uint64_t)value));                 \
    }                                                                                              \
    static void op_vmove##size##_xr(struct cpu *cpu, const struct op *op)                          \
    {                                                                                              \
        check_avx(cpu);                                                                            \
        uint##size##_t value = (uint##size##_t) * op_reg64(cpu, op->reg[1]);                       \
        put128(cpu, op->reg[0], 0, _mm_cvtsi64_si128((long long)(uint64_t)value));                 \
        put128(cpu, op->reg[0], 1, _mm_setzero_si128());                                           \
    }                                                                                              \
    static inline void to_gpr##size(struct cpu *cpu, const struct op *op)                          \
    {                                                                                              \
        uint##size##_t value;                                                                      \
        memcpy(&value, vector_bytes(cpu, op->reg[1]), sizeof(value));                              \
        *op_reg64(cpu, op->reg[0]) = value;                                                        \
    }                                                                                              \
    static void op_move##size##_rx(struct cpu *cpu, const struct op *op)                           \
    {                                                                                              \
        check_sse(cpu);                                                                            \
        to_gpr##size(cpu, op);                                                                     \
    }                                                                                              \
    static void op_vmove##size##_rx(struct cpu *cpu, const struct op *op)                          \
    {                                                                                              \
        check_avx(cpu);                                                                            \
        to_gpr##size(cpu, op);                                                                     \
    }
SCALAR_LOADS(32)
SCALAR_LOADS(64)
#undef SCALAR_LOADS

/* MOVQ between vector registers. */
static void op_movq_rr(struct cpu *cpu, const struct op *op)
{
    check_sse(cpu);
    put128(cpu, op->reg[0], 0, _mm_move_epi64(get128(cpu, op->reg[1], 0)));
}

static void op_vmovq_rr(struct cpu *cpu, const struct op *op)
{
    check_avx(cpu);
    put128(cpu, op->reg[0], 0, _mm_move_epi64(get128(cpu, op->reg[1], 0)));
    clear_above(cpu, op->reg[0], 16);
}

/* --- two-operand arithmetic that string functions live on ---------------------------------- */

#define BYTEWISE(name, intrinsic)                                                                  \
    static void op_##name##_rr(struct cpu *cpu, const struct op *op)                               \
    {                                                                                              \
        check_sse(cpu);                                                                            \
        put128(cpu, op->reg[0], 0,                                                                 \
               intrinsic(get128(cpu, op->reg[0], 0), get128(cpu, op->reg[1], 0)));                 \
    }                                                                                              \
    static void op_##name##_rm(struct cpu *cpu, const struct op *op)                               \
    {                                                                                              \
        check_sse(cpu);                                                                            \
        uint64_t linear = vector_address(cpu, op, 16, ACCESS_READ);                                \
        __m128i value;                                                                             \
        vector_read(cpu, linear, &value, sizeof(value));                                           \
        put128(cpu, op->reg[0], 0, intrinsic(get128(cpu, op->reg[0], 0), value));                  \
    }                                                                                              \
    static void op_v##name##_rrr(struct cpu *cpu, const struct op *op)                             \
    {                                                                                              \
        check_avx(cpu);                                                                            \
        __m128i low = intrinsic(get128(cpu, op->reg[1], 0), get128(cpu, op->reg[2], 0));           \
        __m128i high = intrinsic(get128(cpu, op->reg[1], 1), get128(cpu, op->reg[2], 1));          \
        put128(cpu, op->reg[0], 0, low);                                                           \
        put128(cpu, op->reg[0], 1, op->imm2 ? high : _mm_setzero_si128());                         \
    }                                                                                              \
    static void op_v##name##_rrm(struct cpu *cpu, const struct op *op)                             \
    {                                                                                              \
        check_avx(cpu);                                                                            \
        unsigned size = op->imm2 ? 32 : 16;                                                        \
        uint64_t linear = vector_address(cpu, op, size, ACCESS_READ);                              \
        __m128i value[2];                                                                          \
        vector_read(cpu, linear, value, size);                                                     \
        put128(cpu, op->reg[0], 0, intrinsic(get128(cpu, op->reg[1], 0), value[0]));               \
        put128(cpu, op->reg[0], 1,                                                                 \
               op->imm2 ? intrinsic(get128(cpu, op->reg[1], 1), value[1]) : _mm_setzero_si128());  \
    }
BYTEWISE(pxor, _mm_xor_si128)
BYTEWISE(pand, _mm_and_si128)
BYTEWISE(por, _mm_or_si128)
BYTEWISE(pcmpeqb, _mm_cmpeq_epi8)
BYTEWISE(pminub, _mm_min_epu8)
#undef BYTEWISE

static void op_pmovmskb(struct cpu *cpu, const struct op *op)
{
    check_sse(cpu);
    *op_reg64(cpu, op->reg[0]) = (uint32_t)_mm_movemask_epi8(get128(cpu, op->reg[1], 0));
}

static void op_vpmovmskb(struct cpu *cpu, const struct op *op)
{
    check_avx(cpu);
    uint32_t low = (uint32_t)_mm_movemask_epi8(get128(cpu, op->reg[1], 0));
    uint32_t high = (uint32_t)_mm_movemask_epi8(get128(cpu, op->reg[1], 1));
    *op_reg64(cpu, op->reg[0]) = low | (op->imm2 ? high << 16 : 0);
}

/* --- the rest ------------------------------------------------------------------------------ */

static void op_vzeroupper(struct cpu *cpu, const struct op *op)
{
    check_avx(cpu);
    for (unsigned n = 0; n < (cpu_is_64bit(cpu) ? 16 : 8); n++)
        clear_above(cpu, n, 16);
}

static void op_vzeroall(struct cpu *cpu, const struct op *op)
{
    check_avx(cpu);
    for (unsigned n = 0; n < (cpu_is_64bit(cpu) ? 16 : 8); n++)
        clear_above(cpu, n, 0);
}

/* MOVNTI needs no vector unit at all. */
static void op_movnti32(struct cpu *cpu, const struct op *op)
{
    memory_write32(cpu, op_address(cpu, op, 4, ACCESS_WRITE), (uint32_t)*op_reg64(cpu, op->reg[1]));
}

static void op_movnti64(struct cpu *cpu, const struct op *op)
{
    memory_write64(cpu, op_address(cpu, op, 8, ACCESS_WRITE), *op_reg64(cpu, op->reg[1]));
}

/* --- binding ------------------------------------------------------------------------------- */

static bool set_fn(struct op *op, op_fn *fn)
{
    op->fn = fn;
    return fn != NULL;
}

static bool bind_whole(const struct insn *insn, struct op *op, bool is_aligned)
{
    if (is_aligned && insn_memory(insn) != NULL)
        op->flags |= OP_ALIGNED;
    switch (insn->form) {
    case FORM_RR: return set_fn(op, op_move_rr);
    case FORM_RM: return set_fn(op, op_move_rm);
    case FORM_MR: return set_fn(op, op_move_mr);
    default: return false;
    }
}

static bool bind_vex_whole(const struct insn *insn, struct op *op, bool is_aligned)
{
    if (is_aligned && insn_memory(insn) != NULL)
        op->flags |= OP_ALIGNED;
    op->imm2 = insn->info->raw.vex.L;
    switch (insn->form) {
    case FORM_RR: return set_fn(op, op_vmove_rr);
    case FORM_RM: return set_fn(op, op->imm2 ? op_vmove256_rm : op_vmove128_rm);
    case FORM_MR: return set_fn(op, op->imm2 ? op_vmove256_mr : op_vmove128_mr);
    default: return false;
    }
}

static bool is_gpr(const struct insn *insn, unsigned operand)
{
    return insn->operands[operand].type == ZYDIS_OPERAND_TYPE_REGISTER &&
           ZydisRegisterGetClass(insn->operands[operand].reg.value) != ZYDIS_REGCLASS_XMM;
}

static bool is_mmx(const struct insn *insn)
{
    for (unsigned i = 0; i < insn->info->operand_count_visible; i++)
        if (insn->operands[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            ZydisRegisterGetClass(insn->operands[i].reg.value) == ZYDIS_REGCLASS_MMX)
            return true;
    return false;
}

/* MOVSS, MOVSD, and MOVD, MOVQ, whose forms differ where a register is concerned. */
static bool bind_scalar(const struct insn *insn, struct op *op, bool is_64, bool is_vex)
{
    switch (insn->form) {
    case FORM_RM:
        return set_fn(op, is_vex  ? is_64 ? op_vscalar64_rm : op_vscalar32_rm
                          : is_64 ? op_scalar64_rm
                                  : op_scalar32_rm);
    case FORM_MR:
        return set_fn(op, is_vex  ? is_64 ? op_vscalar64_mr : op_vscalar32_mr
                          : is_64 ? op_scalar64_mr
                                  : op_scalar32_mr);
    default: return false;
    }
}

static bool bind_scalar_register(const struct insn *insn, struct op *op, bool is_64, bool is_vex)
{
    if (insn->form != FORM_RR)
        return bind_scalar(insn, op, is_64, is_vex);
    if (is_gpr(insn, 0))
        return set_fn(op, is_vex  ? is_64 ? op_vmove64_rx : op_vmove32_rx
                          : is_64 ? op_move64_rx
                                  : op_move32_rx);
    if (is_gpr(insn, 1))
        return set_fn(op, is_vex  ? is_64 ? op_vmove64_xr : op_vmove32_xr
                          : is_64 ? op_move64_xr
                                  : op_move32_xr);
    return set_fn(op, is_vex ? op_vmovq_rr : op_movq_rr);
}

/* A byte operation in its four shapes. */
static bool bind_bytewise(const struct insn *insn, struct op *op, op_fn *rr, op_fn *rm, op_fn *rrr,
                          op_fn *rrm)
{
    switch (insn->form) {
    case FORM_RR: return set_fn(op, rr);
    case FORM_RM: op->flags |= OP_ALIGNED; return set_fn(op, rm);
    case FORM_RRR: op->imm2 = insn->info->raw.vex.L; return set_fn(op, rrr);
    case FORM_RRM: op->imm2 = insn->info->raw.vex.L; return set_fn(op, rrm);
    default: return false;
    }
}

#define BIND_BYTEWISE(name)                                                                        \
    bind_bytewise(insn, op, op_##name##_rr, op_##name##_rm, op_v##name##_rrr, op_v##name##_rrm)

static bool bind_arithmetic(const struct insn *insn, struct op *op)
{
    switch (insn->info->mnemonic) {
    case ZYDIS_MNEMONIC_PXOR:
    case ZYDIS_MNEMONIC_XORPS:
    case ZYDIS_MNEMONIC_XORPD:
    case ZYDIS_MNEMONIC_VPXOR:
    case ZYDIS_MNEMONIC_VXORPS:
    case ZYDIS_MNEMONIC_VXORPD: return BIND_BYTEWISE(pxor);
    case ZYDIS_MNEMONIC_PAND:
    case ZYDIS_MNEMONIC_ANDPS:
    case ZYDIS_MNEMONIC_ANDPD:
    case ZYDIS_MNEMONIC_VPAND:
    case ZYDIS_MNEMONIC_VANDPS:
    case ZYDIS_MNEMONIC_VANDPD: return BIND_BYTEWISE(pand);
    case ZYDIS_MNEMONIC_POR:
    case ZYDIS_MNEMONIC_ORPS:
    case ZYDIS_MNEMONIC_ORPD:
    case ZYDIS_MNEMONIC_VPOR:
    case ZYDIS_MNEMONIC_VORPS:
    case ZYDIS_MNEMONIC_VORPD: return BIND_BYTEWISE(por);
    case ZYDIS_MNEMONIC_PCMPEQB:
    case ZYDIS_MNEMONIC_VPCMPEQB: return BIND_BYTEWISE(pcmpeqb);
    case ZYDIS_MNEMONIC_PMINUB:
    case ZYDIS_MNEMONIC_VPMINUB: return BIND_BYTEWISE(pminub);
    case ZYDIS_MNEMONIC_PMOVMSKB: return set_fn(op, op_pmovmskb);
    case ZYDIS_MNEMONIC_VPMOVMSKB:
        op->imm2 = insn->info->raw.vex.L;
        return set_fn(op, op_vpmovmskb);
    case ZYDIS_MNEMONIC_VZEROUPPER: return set_fn(op, op_vzeroupper);
    case ZYDIS_MNEMONIC_VZEROALL: return set_fn(op, op_vzeroall);
    case ZYDIS_MNEMONIC_MOVNTI: return set_fn(op, op->size_bytes == 8 ? op_movnti64 : op_movnti32);
    default: return false;
    }
}

bool bind_vector_move(const struct insn *insn, struct op *op)
{
    if (is_mmx(insn))
        return false;
    bool is_rr = insn->form == FORM_RR;
    switch (insn->info->mnemonic) {
    case ZYDIS_MNEMONIC_MOVUPS:
    case ZYDIS_MNEMONIC_MOVUPD:
    case ZYDIS_MNEMONIC_MOVDQU:
    case ZYDIS_MNEMONIC_LDDQU: return bind_whole(insn, op, false);
    case ZYDIS_MNEMONIC_MOVAPS:
    case ZYDIS_MNEMONIC_MOVAPD:
    case ZYDIS_MNEMONIC_MOVDQA:
    case ZYDIS_MNEMONIC_MOVNTDQ:
    case ZYDIS_MNEMONIC_MOVNTDQA:
    case ZYDIS_MNEMONIC_MOVNTPS:
    case ZYDIS_MNEMONIC_MOVNTPD: return bind_whole(insn, op, true);
    case ZYDIS_MNEMONIC_VMOVUPS:
    case ZYDIS_MNEMONIC_VMOVUPD:
    case ZYDIS_MNEMONIC_VMOVDQU:
    case ZYDIS_MNEMONIC_VLDDQU: return bind_vex_whole(insn, op, false);
    case ZYDIS_MNEMONIC_VMOVAPS:
    case ZYDIS_MNEMONIC_VMOVAPD:
    case ZYDIS_MNEMONIC_VMOVDQA:
    case ZYDIS_MNEMONIC_VMOVNTDQ:
    case ZYDIS_MNEMONIC_VMOVNTDQA:
    case ZYDIS_MNEMONIC_VMOVNTPS:
    case ZYDIS_MNEMONIC_VMOVNTPD: return bind_vex_whole(insn, op, true);
    case ZYDIS_MNEMONIC_MOVSS:
        return is_rr ? set_fn(op, op_merge32_rr) : bind_scalar(insn, op, false, false);
    case ZYDIS_MNEMONIC_MOVSD:
        return is_rr ? set_fn(op, op_merge64_rr) : bind_scalar(insn, op, true, false);
    case ZYDIS_MNEMONIC_VMOVSS: return bind_scalar(insn, op, false, true);
    case ZYDIS_MNEMONIC_VMOVSD: return bind_scalar(insn, op, true, true);
    case ZYDIS_MNEMONIC_MOVD: return bind_scalar_register(insn, op, false, false);
    case ZYDIS_MNEMONIC_MOVQ: return bind_scalar_register(insn, op, true, false);
    case ZYDIS_MNEMONIC_VMOVD: return bind_scalar_register(insn, op, false, true);
    case ZYDIS_MNEMONIC_VMOVQ: return bind_scalar_register(insn, op, true, true);
    default: return bind_arithmetic(insn, op);
    }
}
