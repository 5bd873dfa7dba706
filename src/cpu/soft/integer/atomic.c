/* SPDX-License-Identifier: BSD-2-Clause
 *
 * XCHG XADD CMPXCHG CMPXCHG8B CMPXCHG16B: SDM 2A, 2B. In memory they run as the host's own locked
 * instruction on guest memory itself, with or without LOCK, which costs little and is never wrong.
 */
#include "cpu/soft/integer/integer.h"

/* clang-format off */

#define EXCHANGE_SIZE(bits)                                                                        \
    static void xchg_rr##bits(struct cpu *cpu, const struct op *op)                                \
    {                                                                                              \
        word##bits a = get##bits(cpu, op->reg[0]);                                                 \
        put##bits(cpu, op->reg[0], get##bits(cpu, op->reg[1]));                                    \
        put##bits(cpu, op->reg[1], a);                                                             \
    }                                                                                              \
    static void xchg_m##bits(struct cpu *cpu, const struct op *op)                                 \
    {                                                                                              \
        uint8_t reg = op->reg[op->flags & OP_MEMORY_SOURCE ? 0 : 1];                               \
        word##bits value = get##bits(cpu, reg);                                                    \
        uint64_t linear = op_address(cpu, op, bits / 8, ACCESS_WRITE);                             \
        word##bits *hva = memory_rmw_begin(cpu, linear, bits / 8, true);                           \
        __asm__ volatile("xchg %[value], %[memory]"                                                \
                         : [value] "+r"(value), [memory] "+m"(*hva) : : "memory");                 \
        memory_rmw_end(cpu, linear, bits / 8, true, hva);                                          \
        put##bits(cpu, reg, value);                                                                \
    }                                                                                              \
    static void xadd_r##bits(struct cpu *cpu, const struct op *op)                                 \
    {                                                                                              \
        uint32_t cc = 0;                                                                           \
        word##bits d = get##bits(cpu, op->reg[0]);                                                 \
        word##bits s = get##bits(cpu, op->reg[1]);                                                 \
        __asm__ volatile("xadd %[src], %[dst]\n\t" FLAGS_OUT                                       \
                         : "+a"(cc), [dst] "+r"(d), [src] "+r"(s) : : "cc");                       \
        put##bits(cpu, op->reg[1], s);                                                             \
        put##bits(cpu, op->reg[0], d);                                                             \
        cpu->cc = (uint16_t)cc;                                                                    \
    }                                                                                              \
    static void xadd_m##bits(struct cpu *cpu, const struct op *op)                                 \
    {                                                                                              \
        uint32_t cc = 0;                                                                           \
        word##bits s = get##bits(cpu, op->reg[1]);                                                 \
        uint64_t linear = op_address(cpu, op, bits / 8, ACCESS_WRITE);                             \
        word##bits *hva = memory_rmw_begin(cpu, linear, bits / 8, true);                           \
        __asm__ volatile("lock; xadd %[src], %[dst]\n\t" FLAGS_OUT                                 \
                         : "+a"(cc), [dst] "+m"(*hva), [src] "+r"(s) : : "cc", "memory");          \
        memory_rmw_end(cpu, linear, bits / 8, true, hva);                                          \
        put##bits(cpu, op->reg[1], s);                                                             \
        cpu->cc = (uint16_t)cc;                                                                    \
    }                                                                                              \
    /* Either the destination or the accumulator is written, and only that one's upper half goes. */                              \
    static void cmpxchg_r##bits(struct cpu *cpu, const struct op *op)                              \
    {                                                                                              \
        uint64_t a = cpu->gpr[RAX];                                                                \
        uint32_t cc;                                                                               \
        word##bits d = get##bits(cpu, op->reg[0]);                                                 \
        word##bits s = get##bits(cpu, op->reg[1]);                                                 \
        __asm__ volatile("cmpxchg %[src], %[dst]\n\tmovq %%rax, %[old]\n\t" FLAGS_OUT              \
                         "movl %%eax, %k[cc]\n\tmovq %[old], %%rax"                                \
                         : "+a"(a), [dst] "+&r"(d), [cc] "=&r"(cc), [old] "=&r"((uint64_t){0})     \
                         : [src] "r"(s) : "cc");                                                   \
        if (cc & CC_ZF)                                                                            \
            put##bits(cpu, op->reg[0], d);                                                         \
        else                                                                                       \
            put##bits(cpu, RAX * 8, (word##bits)a);                                                \
        cpu->cc = (uint16_t)cc;                                                                    \
    }                                                                                              \
    static void cmpxchg_m##bits(struct cpu *cpu, const struct op *op)                              \
    {                                                                                              \
        uint64_t a = cpu->gpr[RAX];                                                                \
        uint32_t cc;                                                                               \
        word##bits s = get##bits(cpu, op->reg[1]);                                                 \
        uint64_t linear = op_address(cpu, op, bits / 8, ACCESS_WRITE);                             \
        word##bits *hva = memory_rmw_begin(cpu, linear, bits / 8, true);                           \
        __asm__ volatile("lock; cmpxchg %[src], %[dst]\n\tmovq %%rax, %[old]\n\t" FLAGS_OUT        \
                         "movl %%eax, %k[cc]\n\tmovq %[old], %%rax"                                \
                         : "+a"(a), [dst] "+m"(*hva), [cc] "=&r"(cc), [old] "=&r"((uint64_t){0})   \
                         : [src] "r"(s) : "cc", "memory");                                         \
        memory_rmw_end(cpu, linear, bits / 8, true, hva);                                          \
        if (!(cc & CC_ZF))                                                                         \
            put##bits(cpu, RAX * 8, (word##bits)a);                                                \
        cpu->cc = (uint16_t)cc;                                                                    \
    }

EXCHANGE_SIZE(8)
EXCHANGE_SIZE(16)
EXCHANGE_SIZE(32)
EXCHANGE_SIZE(64)

#define SIZES(name) {name##8, name##16, name##32, name##64}

/* clang-format on */

/* Of CMPXCHG8B and 16B only ZF changes. */
static void set_zf(struct cpu *cpu, bool is_equal)
{
    cpu->cc = (uint16_t)((cpu->cc & ~CC_ZF) | (is_equal ? CC_ZF : 0));
}

static void cmpxchg8b(struct cpu *cpu, const struct op *op)
{
    uint64_t linear = op_address(cpu, op, 8, ACCESS_WRITE);
    word64 *hva = memory_rmw_begin(cpu, linear, 8, true);
    uint64_t expected = cpu->gpr[RDX] << 32 | (uint32_t)cpu->gpr[RAX];
    uint64_t desired = cpu->gpr[RCX] << 32 | (uint32_t)cpu->gpr[RBX];
    bool is_equal;
    __asm__ volatile("lock; cmpxchg %[desired], %[memory]"
                     : "+a"(expected), [memory] "+m"(*hva), "=@ccz"(is_equal)
                     : [desired] "r"(desired)
                     : "memory");
    memory_rmw_end(cpu, linear, 8, true, hva);
    if (!is_equal) {
        cpu->gpr[RAX] = (uint32_t)expected;
        cpu->gpr[RDX] = expected >> 32;
    }
    set_zf(cpu, is_equal);
}

struct pair {
    _Alignas(16) uint64_t low;
    uint64_t high;
} __attribute__((may_alias));

static bool compare_exchange_pair(struct pair *memory, struct pair *expected, struct pair desired)
{
    bool is_equal;
    __asm__ volatile("lock; cmpxchg16b %[memory]"
                     : "+a"(expected->low), "+d"(expected->high), [memory] "+m"(*memory),
                       "=@ccz"(is_equal)
                     : "b"(desired.low), "c"(desired.high)
                     : "memory");
    return is_equal;
}

/* The operand must be aligned; a bounced one (MMIO) is worked on in an aligned copy. */
static void cmpxchg16b(struct cpu *cpu, const struct op *op)
{
    uint64_t linear = op_address(cpu, op, 16, ACCESS_WRITE);
    if (linear & 15)
        cpu_raise_code(cpu, VECTOR_GP, 0);
    uint8_t *hva = memory_rmw_begin(cpu, linear, 16, true);
    struct pair expected = {cpu->gpr[RAX], cpu->gpr[RDX]};
    struct pair desired = {cpu->gpr[RBX], cpu->gpr[RCX]};
    bool is_equal;
    if (((uintptr_t)hva & 15) == 0) {
        is_equal = compare_exchange_pair((struct pair *)(void *)hva, &expected, desired);
    } else {
        struct pair copy;
        memcpy(&copy, hva, sizeof(copy));
        is_equal = compare_exchange_pair(&copy, &expected, desired);
        memcpy(hva, &copy, sizeof(copy));
    }
    memory_rmw_end(cpu, linear, 16, true, hva);
    if (!is_equal) {
        cpu->gpr[RAX] = expected.low;
        cpu->gpr[RDX] = expected.high;
    }
    set_zf(cpu, is_equal);
}

/* F3 90 with REX.B: XCHG R8 with the accumulator, which Zydis takes for PAUSE. */
static bool bind_xchg_r8(const struct insn *insn, struct op *op)
{
    bool is_word = insn->info->attributes & ZYDIS_ATTRIB_HAS_OPERANDSIZE;
    op->fn = insn->info->raw.rex.W ? xchg_rr64 : is_word ? xchg_rr16 : xchg_rr32;
    op->reg[0] = R8 * 8;
    op->reg[1] = RAX * 8;
    return true;
}

bool bind_atomic(const struct insn *insn, struct op *op)
{
    static op_fn *const xchg_fns[2][4] = {SIZES(xchg_rr), SIZES(xchg_m)};
    static op_fn *const xadd_fns[2][4] = {SIZES(xadd_r), SIZES(xadd_m)};
    static op_fn *const cmpxchg_fns[2][4] = {SIZES(cmpxchg_r), SIZES(cmpxchg_m)};
    bool in_memory = insn->form == FORM_RM || insn->form == FORM_MR;
    unsigned size = insn->operands[0].size / 8;
    switch (insn->info->mnemonic) {
    case ZYDIS_MNEMONIC_XCHG:
        op->fn = xchg_fns[in_memory][size_index(size)];
        if (insn->form == FORM_RM)
            op->flags |= OP_MEMORY_SOURCE;
        return true;
    case ZYDIS_MNEMONIC_XADD: op->fn = xadd_fns[in_memory][size_index(size)]; return true;
    case ZYDIS_MNEMONIC_CMPXCHG: op->fn = cmpxchg_fns[in_memory][size_index(size)]; return true;
    case ZYDIS_MNEMONIC_PAUSE: return bind_xchg_r8(insn, op);
    case ZYDIS_MNEMONIC_CMPXCHG8B: op->fn = cmpxchg8b; return true;
    case ZYDIS_MNEMONIC_CMPXCHG16B: op->fn = cmpxchg16b; return true;
    default: return false;
    }
}
