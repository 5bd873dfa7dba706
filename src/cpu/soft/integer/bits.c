/* SPDX-License-Identifier: BSD-2-Clause
 *
 * BT BTS BTR BTC, BSF BSR, POPCNT LZCNT TZCNT, CRC32, RDRAND RDSEED: SDM 2A, 2B.
 * A bit string in memory reaches beyond its operand: the register's bit offset, signed, moves the
 * address (SDM 2A 3.1.1.9).
 */
#include "cpu/soft/integer/integer.h"

/* clang-format off */

#define BIT(prefix, insn, suffix, destination, constraint, offset)                                 \
    __asm__ volatile(FLAGS_IN prefix insn suffix " %[bit], %[dst]\n\t" FLAGS_OUT                   \
                     : "+a"(cc), [dst] constraint(destination)                                     \
                     : [bit] "r"(offset) : "cc", "memory")

/* The operand that holds bit `offset` of the string at op's address, for register offsets. */
#define BIT_STRING(bits, access)                                                                   \
    struct op at = *op;                                                                            \
    int64_t offset = (int##bits##_t)get##bits(cpu, op->reg[1]);                                    \
    at.disp += (offset >> BIT_SHIFT_##bits) * (bits / 8);                                          \
    uint64_t linear = op_address(cpu, &at, bits / 8, access);                                      \
    word##bits bit = (word##bits)((uint64_t)offset & (bits - 1));
#define BIT_IMMEDIATE(bits, access)                                                                \
    uint64_t linear = op_address(cpu, op, bits / 8, access);                                       \
    word##bits bit = (word##bits)(op->imm & (bits - 1));
#define BIT_SHIFT_16 4
#define BIT_SHIFT_32 5
#define BIT_SHIFT_64 6

#define BIT_MEMORY(name, locate, lock, locked, insn, bits, suffix)                                 \
    static void name##bits(struct cpu *cpu, const struct op *op)                                   \
    {                                                                                              \
        uint32_t cc = cpu->cc;                                                                     \
        locate(bits, ACCESS_WRITE)                                                                 \
        word##bits *hva = memory_rmw_begin(cpu, linear, bits / 8, locked);                         \
        BIT(lock, insn, suffix, *hva, "+m", bit);                                                  \
        memory_rmw_end(cpu, linear, bits / 8, locked, hva);                                        \
        cpu->cc = (uint16_t)cc;                                                                    \
    }

#define BIT_READ(name, locate, bits, suffix)                                                       \
    static void name##bits(struct cpu *cpu, const struct op *op)                                   \
    {                                                                                              \
        uint32_t cc = cpu->cc;                                                                     \
        locate(bits, ACCESS_READ)                                                                  \
        word##bits d = memory_read##bits(cpu, linear);                                             \
        BIT("", "bt", suffix, d, "+r", bit);                                                       \
        cpu->cc = (uint16_t)cc;                                                                    \
    }

#define BIT_REGISTER(name, source, insn, bits, suffix)                                             \
    static void name##bits(struct cpu *cpu, const struct op *op)                                   \
    {                                                                                              \
        uint32_t cc = cpu->cc;                                                                     \
        word##bits d = get##bits(cpu, op->reg[0]);                                                 \
        word##bits bit = (word##bits)(source);                                                     \
        BIT("", insn, suffix, d, "+r", bit);                                                       \
        put##bits(cpu, op->reg[0], d);                                                             \
        cpu->cc = (uint16_t)cc;                                                                    \
    }

/* BT leaves even the upper half of a 32-bit register alone. */
#define BIT_TEST(name, source, bits, suffix)                                                       \
    static void name##bits(struct cpu *cpu, const struct op *op)                                   \
    {                                                                                              \
        uint32_t cc = cpu->cc;                                                                     \
        word##bits d = get##bits(cpu, op->reg[0]);                                                 \
        word##bits bit = (word##bits)(source);                                                     \
        BIT("", "bt", suffix, d, "+r", bit);                                                       \
        cpu->cc = (uint16_t)cc;                                                                    \
    }

#define BIT_SIZE(name, insn, bits, suffix)                                                         \
    BIT_REGISTER(name##_rr, get##bits(cpu, op->reg[1]), insn, bits, suffix)                        \
    BIT_REGISTER(name##_ri, op->imm, insn, bits, suffix)                                           \
    BIT_MEMORY(name##_mr, BIT_STRING, "", false, insn, bits, suffix)                               \
    BIT_MEMORY(name##_mi, BIT_IMMEDIATE, "", false, insn, bits, suffix)                            \
    BIT_MEMORY(name##_lock_mr, BIT_STRING, "lock; ", true, insn, bits, suffix)                     \
    BIT_MEMORY(name##_lock_mi, BIT_IMMEDIATE, "lock; ", true, insn, bits, suffix)

#define BIT_ROW(name, bits)                                                                        \
    {                                                                                              \
        [AT_RR] = name##_rr##bits, [AT_RI] = name##_ri##bits, [AT_MR] = name##_mr##bits,           \
        [AT_MI] = name##_mi##bits, [AT_LOCK_MR] = name##_lock_mr##bits,                            \
        [AT_LOCK_MI] = name##_lock_mi##bits                                                        \
    }

#define BIT_GROUP(name, insn)                                                                      \
    BIT_SIZE(name, insn, 16, "w")                                                                  \
    BIT_SIZE(name, insn, 32, "l")                                                                  \
    BIT_SIZE(name, insn, 64, "q")                                                                  \
    static op_fn *const name##_fns[4][AT_COUNT] = {                                                \
        {NULL}, BIT_ROW(name, 16), BIT_ROW(name, 32), BIT_ROW(name, 64)};

BIT_GROUP(bts, "bts")
BIT_GROUP(btr, "btr")
BIT_GROUP(btc, "btc")

#define BT_SIZE(bits, suffix)                                                                      \
    BIT_TEST(bt_rr, get##bits(cpu, op->reg[1]), bits, suffix)                                      \
    BIT_TEST(bt_ri, op->imm, bits, suffix)                                                         \
    BIT_READ(bt_mr, BIT_STRING, bits, suffix)                                                      \
    BIT_READ(bt_mi, BIT_IMMEDIATE, bits, suffix)
BT_SIZE(16, "w")
BT_SIZE(32, "l")
BT_SIZE(64, "q")

#define BT_ROW(bits)                                                                               \
    {                                                                                              \
        [AT_RR] = bt_rr##bits, [AT_RI] = bt_ri##bits, [AT_MR] = bt_mr##bits, [AT_MI] = bt_mi##bits \
    }
static op_fn *const bt_fns[4][AT_COUNT] = {{NULL}, BT_ROW(16), BT_ROW(32), BT_ROW(64)};

/* Counting: dst = f(src). BSF and BSR of zero leave the destination as it was, as processors do;
 * so the old value goes in, and a 32-bit destination that was not written keeps its upper half. */
#define SCAN_SIZE(name, insn, bits, suffix)                                                        \
    static void name##bits(struct cpu *cpu, const struct op *op)                                   \
    {                                                                                              \
        uint32_t cc = cpu->cc;                                                                     \
        word##bits s = op->flags & OP_MEMORY_SOURCE                                                \
                           ? memory_read##bits(cpu, op_address(cpu, op, bits / 8, ACCESS_READ))    \
                           : get##bits(cpu, op->reg[1]);                                           \
        uint64_t d = get64(cpu, op->reg[0]);                                                       \
        __asm__ volatile(FLAGS_IN insn suffix " %[src], %" DST_##bits "[dst]\n\t" FLAGS_OUT        \
                         : "+a"(cc), [dst] "+r"(d) : [src] "r"(s) : "cc");                         \
        put64(cpu, op->reg[0], d);                                                                 \
        cpu->cc = (uint16_t)cc;                                                                    \
    }
#define DST_16 "w"
#define DST_32 "k"
#define DST_64 "q"

#define SCAN(name, insn)                                                                           \
    SCAN_SIZE(name, insn, 16, "w")                                                                 \
    SCAN_SIZE(name, insn, 32, "l")                                                                 \
    SCAN_SIZE(name, insn, 64, "q")                                                                 \
    static op_fn *const name##_fns[4] = {NULL, name##16, name##32, name##64};

SCAN(bsf, "bsf")
SCAN(bsr, "bsr")
SCAN(popcnt, "popcnt")
SCAN(lzcnt, "lzcnt")
SCAN(tzcnt, "tzcnt")

/* CRC32 touches no flags; its destination is 32 bits, or 64 with REX.W, always cleared above 32. */
#define CRC32_SIZE(bits, suffix, destination)                                                      \
    static void crc32_##bits(struct cpu *cpu, const struct op *op)                                 \
    {                                                                                              \
        word##bits s = op->flags & OP_MEMORY_SOURCE                                                \
                           ? memory_read##bits(cpu, op_address(cpu, op, bits / 8, ACCESS_READ))    \
                           : get##bits(cpu, op->reg[1]);                                           \
        uint64_t d = get32(cpu, op->reg[0]);                                                       \
        __asm__ volatile("crc32" suffix " %[src], %" destination "[dst]"                           \
                         : [dst] "+r"(d) : [src] "r"(s));                                          \
        put32(cpu, op->reg[0], (uint32_t)d);                                                       \
    }
CRC32_SIZE(8, "b", "k")
CRC32_SIZE(16, "w", "k")
CRC32_SIZE(32, "l", "k")
CRC32_SIZE(64, "q", "q")

#define RANDOM(name, bits, suffix)                                                                 \
    static void name##bits(struct cpu *cpu, const struct op *op)                                   \
    {                                                                                              \
        uint32_t cc;                                                                               \
        word##bits d;                                                                              \
        __asm__ volatile(#name " %[dst]\n\t" FLAGS_OUT : "=a"(cc), [dst] "=r"(d) : : "cc");        \
        put##bits(cpu, op->reg[0], d);                                                             \
        cpu->cc = (uint16_t)cc;                                                                    \
    }
RANDOM(rdrand, 16, "w")
RANDOM(rdrand, 32, "l")
RANDOM(rdrand, 64, "q")
RANDOM(rdseed, 16, "w")
RANDOM(rdseed, 32, "l")
RANDOM(rdseed, 64, "q")

/* clang-format on */

static bool bind_source(const struct insn *insn, struct op *op, op_fn *const fns[4], unsigned size)
{
    op->fn = fns[size_index(size)];
    if (insn->form == FORM_RM)
        op->flags |= OP_MEMORY_SOURCE;
    return op->fn != NULL;
}

bool bind_bits(const struct insn *insn, struct op *op)
{
    static op_fn *const crc32_fns[4] = {crc32_8, crc32_16, crc32_32, crc32_64};
    static op_fn *const rdrand_fns[4] = {NULL, rdrand16, rdrand32, rdrand64};
    static op_fn *const rdseed_fns[4] = {NULL, rdseed16, rdseed32, rdseed64};
    unsigned size = op->size_bytes;
    /* Zydis also knows the VEX forms of a coprocessor, which are #UD here. */
    if (insn->info->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY)
        return false;
    switch (insn->info->mnemonic) {
    case ZYDIS_MNEMONIC_BT: return bind_row(insn, op, bt_fns);
    case ZYDIS_MNEMONIC_BTS: return bind_row(insn, op, bts_fns);
    case ZYDIS_MNEMONIC_BTR: return bind_row(insn, op, btr_fns);
    case ZYDIS_MNEMONIC_BTC: return bind_row(insn, op, btc_fns);
    case ZYDIS_MNEMONIC_BSF: return bind_source(insn, op, bsf_fns, size);
    case ZYDIS_MNEMONIC_BSR: return bind_source(insn, op, bsr_fns, size);
    case ZYDIS_MNEMONIC_POPCNT: return bind_source(insn, op, popcnt_fns, size);
    case ZYDIS_MNEMONIC_LZCNT: return bind_source(insn, op, lzcnt_fns, size);
    case ZYDIS_MNEMONIC_TZCNT: return bind_source(insn, op, tzcnt_fns, size);
    case ZYDIS_MNEMONIC_CRC32: return bind_source(insn, op, crc32_fns, insn->operands[1].size / 8);
    case ZYDIS_MNEMONIC_RDRAND: op->fn = rdrand_fns[size_index(size)]; return op->fn;
    case ZYDIS_MNEMONIC_RDSEED: op->fn = rdseed_fns[size_index(size)]; return op->fn;
    default: return false;
    }
}
