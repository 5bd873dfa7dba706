/* SPDX-License-Identifier: BSD-2-Clause
 *
 * MUL IMUL DIV IDIV: SDM 2A. Quotients that do not fit raise #DE; that is found out before the
 * host's own division runs, which then gives result and flags.
 */
#include "cpu/soft/integer/integer.h"

/* clang-format off */

#define LOAD_OPERAND(bits)                                                                         \
    (op->flags & OP_MEMORY_SOURCE ? memory_read##bits(cpu, op_address(cpu, op, bits / 8, ACCESS_READ)) \
                                  : get##bits(cpu, op->reg[0]))

/* The accumulator pair as the low and high word of the host's own. */
#define WIDEN(name, insn, bits, suffix)                                                            \
    static void name##bits(struct cpu *cpu, const struct op *op)                                   \
    {                                                                                              \
        word##bits s = LOAD_OPERAND(bits);                                                         \
        uint64_t low = cpu->gpr[RAX], high = cpu->gpr[RDX];                                        \
        uint32_t cc = cpu->cc;                                                                     \
        __asm__ volatile("movl %k[cc], %%eax\n\t" FLAGS_IN "movq %[low], %%rax\n\t"                \
                         insn suffix " %[src]\n\t"                                                 \
                         "movq %%rax, %[low]\n\t" FLAGS_OUT "movl %%eax, %k[cc]"                   \
                         : [low] "+&r"(low), "+&d"(high), [cc] "+&r"(cc)                           \
                         : [src] "r"(s) : "rax", "cc");                                            \
        STORE_PAIR(bits)                                                                           \
        cpu->cc = (uint16_t)cc;                                                                    \
    }

#define STORE_PAIR(bits) STORE_PAIR_##bits
#define STORE_PAIR_8  put16(cpu, RAX * 8, (uint16_t)low);
#define STORE_PAIR_16 put16(cpu, RAX * 8, (uint16_t)low); put16(cpu, RDX * 8, (uint16_t)high);
#define STORE_PAIR_32 cpu->gpr[RAX] = (uint32_t)low; cpu->gpr[RDX] = (uint32_t)high;
#define STORE_PAIR_64 cpu->gpr[RAX] = low; cpu->gpr[RDX] = high;

WIDEN(mul, "mul", 8, "b")
WIDEN(mul, "mul", 16, "w")
WIDEN(mul, "mul", 32, "l")
WIDEN(mul, "mul", 64, "q")
WIDEN(imul, "imul", 8, "b")
WIDEN(imul, "imul", 16, "w")
WIDEN(imul, "imul", 32, "l")
WIDEN(imul, "imul", 64, "q")

/* Two and three operands: dst = a * b. */
#define IMUL_WITH(name, bits, suffix, a, b)                                                        \
    static void name##bits(struct cpu *cpu, const struct op *op)                                   \
    {                                                                                              \
        uint32_t cc = cpu->cc;                                                                     \
        word##bits d = (a);                                                                        \
        word##bits s = (b);                                                                        \
        __asm__ volatile(FLAGS_IN "imul" suffix " %[src], %[dst]\n\t" FLAGS_OUT                    \
                         : "+a"(cc), [dst] "+r"(d) : [src] "r"(s) : "cc");                         \
        put##bits(cpu, op->reg[0], d);                                                             \
        cpu->cc = (uint16_t)cc;                                                                    \
    }
#define IMUL_SIZE(bits, suffix)                                                                    \
    IMUL_WITH(imul_rr, bits, suffix, get##bits(cpu, op->reg[0]), get##bits(cpu, op->reg[1]))       \
    IMUL_WITH(imul_rm, bits, suffix,                                                               \
              memory_read##bits(cpu, op_address(cpu, op, bits / 8, ACCESS_READ)),                  \
              get##bits(cpu, op->reg[0]))                                                          \
    IMUL_WITH(imul_rri, bits, suffix, get##bits(cpu, op->reg[1]), (word##bits)op->imm)             \
    IMUL_WITH(imul_rmi, bits, suffix,                                                              \
              memory_read##bits(cpu, op_address(cpu, op, bits / 8, ACCESS_READ)),                  \
              (word##bits)op->imm)
IMUL_SIZE(16, "w")
IMUL_SIZE(32, "l")
IMUL_SIZE(64, "q")

/* Whether the dividend high:low over `divisor` gives a quotient of as many bits as the divisor has. */
static bool unsigned_fits(uint64_t high, uint64_t divisor) { return divisor != 0 && high < divisor; }

/* A quotient of absolute values must be at most 2^(bits-1) when it is negative, less when not. */
static bool signed_fits(__int128 dividend, int64_t divisor, unsigned bits)
{
    if (divisor == 0)
        return false;
    bool negative = (dividend < 0) != (divisor < 0);
    unsigned __int128 a = dividend < 0 ? -(unsigned __int128)dividend : (unsigned __int128)dividend;
    uint64_t b = divisor < 0 ? -(uint64_t)divisor : (uint64_t)divisor;
    unsigned __int128 limit = (unsigned __int128)1 << (bits - 1);
    /* a / b <= limit - !negative, without the division */
    return a < (limit + negative) * b;
}

#define DIV_CHECK_8  unsigned_fits((uint16_t)low >> 8, s)
#define DIV_CHECK_16 unsigned_fits((uint16_t)high, s)
#define DIV_CHECK_32 unsigned_fits((uint32_t)high, s)
#define DIV_CHECK_64 unsigned_fits(high, s)
#define IDIV_CHECK_8  signed_fits((int16_t)low, (int8_t)s, 8)
#define IDIV_CHECK_16 signed_fits((int32_t)((uint32_t)high << 16 | (uint16_t)low), (int16_t)s, 16)
#define IDIV_CHECK_32 signed_fits((int64_t)(high << 32 | (uint32_t)low), (int32_t)s, 32)
#define IDIV_CHECK_64 signed_fits((__int128)((unsigned __int128)high << 64 | low), (int64_t)s, 64)

#define DIVIDE(name, insn, check, bits, suffix)                                                    \
    static void name##bits(struct cpu *cpu, const struct op *op)                                   \
    {                                                                                              \
        word##bits s = LOAD_OPERAND(bits);                                                         \
        uint64_t low = cpu->gpr[RAX], high = cpu->gpr[RDX];                                        \
        if (!(check))                                                                              \
            cpu_raise(cpu, VECTOR_DE);                                                             \
        uint32_t cc = cpu->cc;                                                                     \
        __asm__ volatile("movl %k[cc], %%eax\n\t" FLAGS_IN "movq %[low], %%rax\n\t"                \
                         insn suffix " %[src]\n\t"                                                 \
                         "movq %%rax, %[low]\n\t" FLAGS_OUT "movl %%eax, %k[cc]"                   \
                         : [low] "+&r"(low), "+&d"(high), [cc] "+&r"(cc)                           \
                         : [src] "r"(s) : "rax", "cc");                                            \
        STORE_PAIR(bits)                                                                           \
        cpu->cc = (uint16_t)cc;                                                                    \
    }

DIVIDE(div, "div", DIV_CHECK_8, 8, "b")
DIVIDE(div, "div", DIV_CHECK_16, 16, "w")
DIVIDE(div, "div", DIV_CHECK_32, 32, "l")
DIVIDE(div, "div", DIV_CHECK_64, 64, "q")
DIVIDE(idiv, "idiv", IDIV_CHECK_8, 8, "b")
DIVIDE(idiv, "idiv", IDIV_CHECK_16, 16, "w")
DIVIDE(idiv, "idiv", IDIV_CHECK_32, 32, "l")
DIVIDE(idiv, "idiv", IDIV_CHECK_64, 64, "q")

/* clang-format on */

static bool bind_accumulator(const struct insn *insn, struct op *op, op_fn *const fns[4])
{
    op->fn = fns[size_index(op->size_bytes)];
    if (insn->form == FORM_M)
        op->flags |= OP_MEMORY_SOURCE;
    return true;
}

static bool bind_imul(const struct insn *insn, struct op *op)
{
    static op_fn *const accumulator_fns[4] = {imul8, imul16, imul32, imul64};
    static op_fn *const rr[4] = {NULL, imul_rr16, imul_rr32, imul_rr64};
    static op_fn *const rm[4] = {NULL, imul_rm16, imul_rm32, imul_rm64};
    static op_fn *const rri[4] = {NULL, imul_rri16, imul_rri32, imul_rri64};
    static op_fn *const rmi[4] = {NULL, imul_rmi16, imul_rmi32, imul_rmi64};
    unsigned size = size_index(op->size_bytes);
    switch (insn->form) {
    case FORM_RR: op->fn = rr[size]; break;
    case FORM_RM: op->fn = rm[size]; break;
    case FORM_RRI: op->fn = rri[size]; break;
    case FORM_RMI: op->fn = rmi[size]; break;
    default: return bind_accumulator(insn, op, accumulator_fns);
    }
    return op->fn != NULL;
}

bool bind_multiply(const struct insn *insn, struct op *op)
{
    static op_fn *const mul_fns[4] = {mul8, mul16, mul32, mul64};
    static op_fn *const div_fns[4] = {div8, div16, div32, div64};
    static op_fn *const idiv_fns[4] = {idiv8, idiv16, idiv32, idiv64};
    switch (insn->info->mnemonic) {
    case ZYDIS_MNEMONIC_MUL: return bind_accumulator(insn, op, mul_fns);
    case ZYDIS_MNEMONIC_IMUL: return bind_imul(insn, op);
    case ZYDIS_MNEMONIC_DIV: return bind_accumulator(insn, op, div_fns);
    case ZYDIS_MNEMONIC_IDIV: return bind_accumulator(insn, op, idiv_fns);
    default: return false;
    }
}
