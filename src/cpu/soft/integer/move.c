/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Moves without arithmetic: MOV MOVZX MOVSX MOVSXD LEA BSWAP MOVBE CMOVcc SETcc, the sign
 * extensions of the accumulator, XLAT, and the flag instructions that need no privilege. MOV to and
 * from segment, control and debug registers is in system.c.
 */
#include "cpu/soft/integer/condition.h"
#include "cpu/soft/integer/integer.h"

/* clang-format off */

#define MOV_SIZE(bits)                                                                             \
    static void mov_rr##bits(struct cpu *cpu, const struct op *op)                                 \
    {                                                                                              \
        put##bits(cpu, op->reg[0], get##bits(cpu, op->reg[1]));                                    \
    }                                                                                              \
    static void mov_ri##bits(struct cpu *cpu, const struct op *op)                                 \
    {                                                                                              \
        put##bits(cpu, op->reg[0], (word##bits)op->imm);                                           \
    }                                                                                              \
    static void mov_rm##bits(struct cpu *cpu, const struct op *op)                                 \
    {                                                                                              \
        put##bits(cpu, op->reg[0],                                                                 \
                  memory_read##bits(cpu, op_address(cpu, op, bits / 8, ACCESS_READ)));             \
    }                                                                                              \
    static void mov_mr##bits(struct cpu *cpu, const struct op *op)                                 \
    {                                                                                              \
        memory_write##bits(cpu, op_address(cpu, op, bits / 8, ACCESS_WRITE),                       \
                           get##bits(cpu, op->reg[1]));                                            \
    }                                                                                              \
    static void mov_mi##bits(struct cpu *cpu, const struct op *op)                                 \
    {                                                                                              \
        memory_write##bits(cpu, op_address(cpu, op, bits / 8, ACCESS_WRITE), (word##bits)op->imm); \
    }

#define MOVBE_SIZE(bits)                                                                           \
    static void movbe_rm##bits(struct cpu *cpu, const struct op *op)                               \
    {                                                                                              \
        put##bits(cpu, op->reg[0], swap##bits(memory_read##bits(                                   \
                                       cpu, op_address(cpu, op, bits / 8, ACCESS_READ))));         \
    }                                                                                              \
    static void movbe_mr##bits(struct cpu *cpu, const struct op *op)                               \
    {                                                                                              \
        memory_write##bits(cpu, op_address(cpu, op, bits / 8, ACCESS_WRITE),                       \
                           swap##bits(get##bits(cpu, op->reg[1])));                                \
    }

static inline uint16_t swap16(uint16_t value) { return __builtin_bswap16(value); }
static inline uint32_t swap32(uint32_t value) { return __builtin_bswap32(value); }
static inline uint64_t swap64(uint64_t value) { return __builtin_bswap64(value); }

MOV_SIZE(8)
MOV_SIZE(16)
MOV_SIZE(32)
MOV_SIZE(64)
MOVBE_SIZE(16)
MOVBE_SIZE(32)
MOVBE_SIZE(64)

#define MOV_ROW(bits)                                                                              \
    {                                                                                              \
        [AT_RR] = mov_rr##bits, [AT_RI] = mov_ri##bits, [AT_RM] = mov_rm##bits,                    \
        [AT_MR] = mov_mr##bits, [AT_MI] = mov_mi##bits                                             \
    }
static op_fn *const mov_fns[4][AT_COUNT] = {MOV_ROW(8), MOV_ROW(16), MOV_ROW(32), MOV_ROW(64)};

#define MOVBE_ROW(bits) { [AT_RM] = movbe_rm##bits, [AT_MR] = movbe_mr##bits }
static op_fn *const movbe_fns[4][AT_COUNT] = {{NULL}, MOVBE_ROW(16), MOVBE_ROW(32), MOVBE_ROW(64)};

/* Extensions: `to` is the unsigned type written, `from` the type read. */
#define EXTEND(name, from_type, from_bits, to_bits)                                                \
    static void name##_rr(struct cpu *cpu, const struct op *op)                                    \
    {                                                                                              \
        put##to_bits(cpu, op->reg[0],                                                              \
                     (uint##to_bits##_t)(from_type)get##from_bits(cpu, op->reg[1]));               \
    }                                                                                              \
    static void name##_rm(struct cpu *cpu, const struct op *op)                                    \
    {                                                                                              \
        uint64_t linear = op_address(cpu, op, from_bits / 8, ACCESS_READ);                         \
        put##to_bits(cpu, op->reg[0],                                                              \
                     (uint##to_bits##_t)(from_type)memory_read##from_bits(cpu, linear));           \
    }

EXTEND(movzx_8_16, uint8_t, 8, 16)
EXTEND(movzx_8_32, uint8_t, 8, 32)
EXTEND(movzx_8_64, uint8_t, 8, 64)
EXTEND(movzx_16_16, uint16_t, 16, 16)
EXTEND(movzx_16_32, uint16_t, 16, 32)
EXTEND(movzx_16_64, uint16_t, 16, 64)
EXTEND(movsx_8_16, int8_t, 8, 16)
EXTEND(movsx_8_32, int8_t, 8, 32)
EXTEND(movsx_8_64, int8_t, 8, 64)
EXTEND(movsx_16_16, int16_t, 16, 16)
EXTEND(movsx_16_32, int16_t, 16, 32)
EXTEND(movsx_16_64, int16_t, 16, 64)
EXTEND(movsx_32_16, int32_t, 32, 16)
EXTEND(movsx_32_32, int32_t, 32, 32)
EXTEND(movsx_32_64, int32_t, 32, 64)

/* Rows of [source size][destination size][register or memory]. */
#define PAIR(name) {name##_rr, name##_rm}
static op_fn *const movzx_fns[3][4][2] = {
    {{NULL, NULL}, PAIR(movzx_8_16), PAIR(movzx_8_32), PAIR(movzx_8_64)},
    {{NULL, NULL}, PAIR(movzx_16_16), PAIR(movzx_16_32), PAIR(movzx_16_64)},
};
static op_fn *const movsx_fns[3][4][2] = {
    {{NULL, NULL}, PAIR(movsx_8_16), PAIR(movsx_8_32), PAIR(movsx_8_64)},
    {{NULL, NULL}, PAIR(movsx_16_16), PAIR(movsx_16_32), PAIR(movsx_16_64)},
    {{NULL, NULL}, PAIR(movsx_32_16), PAIR(movsx_32_32), PAIR(movsx_32_64)},
};

#define SETCC(name)                                                                                \
    static void set##name##_r(struct cpu *cpu, const struct op *op)                                \
    {                                                                                              \
        put8(cpu, op->reg[0], !!CONDITION_##name(cpu->cc));                                        \
    }                                                                                              \
    static void set##name##_m(struct cpu *cpu, const struct op *op)                                \
    {                                                                                              \
        memory_write8(cpu, op_address(cpu, op, 1, ACCESS_WRITE), !!CONDITION_##name(cpu->cc));     \
    }
FOR_EACH_CONDITION(SETCC)

/* A CMOV reads its memory operand, and a 32-bit one clears the upper half, whether or not it moves. */
#define CMOV_SIZE(name, bits)                                                                      \
    static void cmov##name##_rr##bits(struct cpu *cpu, const struct op *op)                        \
    {                                                                                              \
        uint8_t from = CONDITION_##name(cpu->cc) ? op->reg[1] : op->reg[0];                        \
        put##bits(cpu, op->reg[0], get##bits(cpu, from));                                          \
    }                                                                                              \
    static void cmov##name##_rm##bits(struct cpu *cpu, const struct op *op)                        \
    {                                                                                              \
        word##bits value = memory_read##bits(cpu, op_address(cpu, op, bits / 8, ACCESS_READ));     \
        word##bits old = get##bits(cpu, op->reg[0]);                                               \
        put##bits(cpu, op->reg[0], CONDITION_##name(cpu->cc) ? value : old);                       \
    }
#define CMOV(name)                                                                                 \
    CMOV_SIZE(name, 16)                                                                            \
    CMOV_SIZE(name, 32)                                                                            \
    CMOV_SIZE(name, 64)                                                                            \
    static op_fn *const cmov##name##_fns[4][AT_COUNT] = {                                          \
        {NULL},                                                                                    \
        {[AT_RR] = cmov##name##_rr16, [AT_RM] = cmov##name##_rm16},                                \
        {[AT_RR] = cmov##name##_rr32, [AT_RM] = cmov##name##_rm32},                                \
        {[AT_RR] = cmov##name##_rr64, [AT_RM] = cmov##name##_rm64}};
FOR_EACH_CONDITION(CMOV)

/* clang-format on */

static void lea16(struct cpu *cpu, const struct op *op)
{
    put16(cpu, op->reg[0], (uint16_t)op_effective(cpu, op));
}

static void lea32(struct cpu *cpu, const struct op *op)
{
    put32(cpu, op->reg[0], (uint32_t)op_effective(cpu, op));
}

static void lea64(struct cpu *cpu, const struct op *op)
{
    put64(cpu, op->reg[0], op_effective(cpu, op));
}

/* BSWAP of 16 bits is undefined in the manual; processors write zero. */
static void bswap16(struct cpu *cpu, const struct op *op)
{
    put16(cpu, op->reg[0], 0);
}

static void bswap32(struct cpu *cpu, const struct op *op)
{
    put32(cpu, op->reg[0], swap32(get32(cpu, op->reg[0])));
}

static void bswap64(struct cpu *cpu, const struct op *op)
{
    put64(cpu, op->reg[0], swap64(get64(cpu, op->reg[0])));
}

static void cbw(struct cpu *cpu, const struct op *op)
{
    put16(cpu, RAX, (uint16_t)(int8_t)cpu->gpr[RAX]);
}
static void cwde(struct cpu *cpu, const struct op *op)
{
    cpu->gpr[RAX] = (uint32_t)(int16_t)cpu->gpr[RAX];
}
static void cdqe(struct cpu *cpu, const struct op *op)
{
    cpu->gpr[RAX] = (uint64_t)(int32_t)cpu->gpr[RAX];
}
static void cwd(struct cpu *cpu, const struct op *op)
{
    put16(cpu, RDX * 8, (int16_t)cpu->gpr[RAX] < 0 ? UINT16_MAX : 0);
}
static void cdq(struct cpu *cpu, const struct op *op)
{
    cpu->gpr[RDX] = (int32_t)cpu->gpr[RAX] < 0 ? UINT32_MAX : 0;
}
static void cqo(struct cpu *cpu, const struct op *op)
{
    cpu->gpr[RDX] = (int64_t)cpu->gpr[RAX] < 0 ? UINT64_MAX : 0;
}

static void lahf(struct cpu *cpu, const struct op *op)
{
    put8(cpu, RAX * 8 + 1, (uint8_t)(cpu->cc >> 8) | 2);
}

static void sahf(struct cpu *cpu, const struct op *op)
{
    uint8_t low = (get8(cpu, RAX * 8 + 1) & (RFLAGS_ARITHMETIC & 0xff)) | 2;
    cpu->cc = (uint16_t)(low << 8 | (cpu->cc & CC_OF));
}

static void clc(struct cpu *cpu, const struct op *op)
{
    cpu->cc &= (uint16_t)~CC_CF;
}
static void stc(struct cpu *cpu, const struct op *op)
{
    cpu->cc |= CC_CF;
}
static void cmc(struct cpu *cpu, const struct op *op)
{
    cpu->cc ^= CC_CF;
}
static void cld(struct cpu *cpu, const struct op *op)
{
    cpu->rflags &= ~(uint64_t)RFLAGS_DF;
}
static void std(struct cpu *cpu, const struct op *op)
{
    cpu->rflags |= RFLAGS_DF;
}

static void salc(struct cpu *cpu, const struct op *op)
{
    put8(cpu, RAX, cpu->cc & CC_CF ? UINT8_MAX : 0);
}

static void xlat(struct cpu *cpu, const struct op *op)
{
    struct op at = *op;
    at.base = RBX;
    at.index = GPR_ZERO;
    at.disp = (uint8_t)cpu->gpr[RAX];
    put8(cpu, RAX, memory_read8(cpu, op_address(cpu, &at, 1, ACCESS_READ)));
}

static op_fn *set_fn(ZydisMnemonic mnemonic, bool in_memory)
{
    switch (mnemonic) {
#define CASE(name)                                                                                 \
    case ZYDIS_MNEMONIC_SET##name: return in_memory ? set##name##_m : set##name##_r;
        FOR_EACH_CONDITION(CASE)
#undef CASE
    default: return NULL;
    }
}

static bool bind_cmov(const struct insn *insn, struct op *op)
{
    switch (insn->info->mnemonic) {
#define CASE(name)                                                                                 \
    case ZYDIS_MNEMONIC_CMOV##name: return bind_row(insn, op, cmov##name##_fns);
        FOR_EACH_CONDITION(CASE)
#undef CASE
    default: return false;
    }
}

static bool bind_extend(const struct insn *insn, struct op *op, op_fn *const table[3][4][2])
{
    unsigned from = size_index(insn->operands[1].size / 8);
    bool in_memory = insn->operands[1].type == ZYDIS_OPERAND_TYPE_MEMORY;
    op->fn = table[from][size_index(insn->operands[0].size / 8)][in_memory];
    return op->fn != NULL;
}

/* Instructions with one handler, whatever their operands. */
static op_fn *plain_fn(ZydisMnemonic mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_CBW: return cbw;
    case ZYDIS_MNEMONIC_CWDE: return cwde;
    case ZYDIS_MNEMONIC_CDQE: return cdqe;
    case ZYDIS_MNEMONIC_CWD: return cwd;
    case ZYDIS_MNEMONIC_CDQ: return cdq;
    case ZYDIS_MNEMONIC_CQO: return cqo;
    case ZYDIS_MNEMONIC_LAHF: return lahf;
    case ZYDIS_MNEMONIC_SAHF: return sahf;
    case ZYDIS_MNEMONIC_CLC: return clc;
    case ZYDIS_MNEMONIC_STC: return stc;
    case ZYDIS_MNEMONIC_CMC: return cmc;
    case ZYDIS_MNEMONIC_CLD: return cld;
    case ZYDIS_MNEMONIC_STD: return std;
    case ZYDIS_MNEMONIC_SALC: return salc;
    default: return NULL;
    }
}

/* XLAT's address is hidden from decode.c: segment, width and flatness are set here. */
static bool bind_xlat(const struct insn *insn, struct op *op)
{
    ZydisRegister segment = insn->operands[0].mem.segment;
    op->fn = xlat;
    op->segment = segment == ZYDIS_REGISTER_ES   ? SEG_ES
                  : segment == ZYDIS_REGISTER_CS ? SEG_CS
                  : segment == ZYDIS_REGISTER_SS ? SEG_SS
                  : segment == ZYDIS_REGISTER_FS ? SEG_FS
                  : segment == ZYDIS_REGISTER_GS ? SEG_GS
                                                 : SEG_DS;
    op->flags &= (uint16_t)~OP_FLAT;
    return true;
}

bool bind_move(const struct insn *insn, struct op *op)
{
    static op_fn *const lea_fns[4] = {NULL, lea16, lea32, lea64};
    static op_fn *const bswap_fns[4] = {NULL, bswap16, bswap32, bswap64};
    bool in_memory = insn->operands[0].type == ZYDIS_OPERAND_TYPE_MEMORY;
    switch (insn->info->mnemonic) {
    case ZYDIS_MNEMONIC_MOV: return bind_row(insn, op, mov_fns);
    case ZYDIS_MNEMONIC_MOVBE: return bind_row(insn, op, movbe_fns);
    case ZYDIS_MNEMONIC_MOVZX: return bind_extend(insn, op, movzx_fns);
    case ZYDIS_MNEMONIC_MOVSX:
    case ZYDIS_MNEMONIC_MOVSXD: return bind_extend(insn, op, movsx_fns);
    case ZYDIS_MNEMONIC_LEA: op->fn = lea_fns[size_index(op->size_bytes)]; return op->fn;
    case ZYDIS_MNEMONIC_BSWAP: op->fn = bswap_fns[size_index(op->size_bytes)]; return op->fn;
    case ZYDIS_MNEMONIC_XLAT: return bind_xlat(insn, op);
    default: break;
    }
    op->fn = plain_fn(insn->info->mnemonic);
    if (!op->fn)
        op->fn = set_fn(insn->info->mnemonic, in_memory);
    return op->fn || bind_cmov(insn, op);
}
