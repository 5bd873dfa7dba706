/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Integer instructions in generated code: the guest's instruction on the host, with its memory
 * operand checked and its registers in place. Instructions that may raise anything but a page fault
 * test for it first. What is not found here is called.
 */
#include "cpu/soft/translator/internal.h"

static unsigned sized(unsigned opcode, unsigned size_bytes)
{
    return opcode | (size_bytes == 1 ? 0 : 1);
}

static unsigned lock_of(const struct op *op)
{
    return op->flags & OP_LOCK ? EMIT_LOCK : 0;
}

static bool is_stored(unsigned offset)
{
    return !reg_rm(offset).is_reg;
}

/* --- ADD OR ADC SBB AND SUB XOR CMP, TEST -------------------------------------------------- */

enum { TEST = 8 };

static unsigned alu_digit(ZydisMnemonic mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_ADD: return 0;
    case ZYDIS_MNEMONIC_OR: return 1;
    case ZYDIS_MNEMONIC_ADC: return 2;
    case ZYDIS_MNEMONIC_SBB: return 3;
    case ZYDIS_MNEMONIC_AND: return 4;
    case ZYDIS_MNEMONIC_SUB: return 5;
    case ZYDIS_MNEMONIC_XOR: return 6;
    case ZYDIS_MNEMONIC_CMP: return 7;
    default: return TEST;
    }
}

static unsigned alu_opcode(unsigned digit, bool to_reg, unsigned size_bytes)
{
    if (digit == TEST)
        return sized(0x84, size_bytes);
    return sized(digit << 3 | (to_reg ? 2 : 0), size_bytes);
}

static void alu_imm(struct unit *unit, unsigned digit, const struct op *op, struct rm rm)
{
    unsigned size = op->size_bytes;
    if (digit != TEST) {
        emit_alu_imm(&unit->e, digit, size, rm, (int32_t)op->imm, lock_of(op));
        return;
    }
    emit_modrm(&unit->e, sized(0xf6, size) | EMIT_EXTENSION, size, 0, rm);
    emit_imm(&unit->e, op->imm, size);
}

static void alu_rr(struct unit *unit, const struct op *op)
{
    unsigned digit = alu_digit(unit->facts->info.mnemonic), size = op->size_bytes;
    struct rm from = reg_rm(op->reg[1]);
    flags_before_native(unit);
    if (size == 8 && is_stored(op->reg[0]) && from.is_reg) {
        emit_modrm(&unit->e, alu_opcode(digit, false, 8), 8, from.reg, reg_rm(op->reg[0]));
        flags_after_native(unit);
        return;
    }
    unsigned to = reg_begin(unit, op->reg[0], size, true);
    emit_modrm(&unit->e, alu_opcode(digit, true, size), size, to, from);
    if (digit < 7)
        reg_end(unit, op->reg[0], size);
    flags_after_native(unit);
}

static void alu_ri(struct unit *unit, const struct op *op)
{
    unsigned digit = alu_digit(unit->facts->info.mnemonic), size = op->size_bytes;
    flags_before_native(unit);
    if (size == 4 && digit < 7 && is_stored(op->reg[0])) {
        alu_imm(unit, digit, op, rm_reg(reg_begin(unit, op->reg[0], 4, true)));
        reg_end(unit, op->reg[0], 4);
    } else {
        alu_imm(unit, digit, op, reg_rm(op->reg[0]));
    }
    flags_after_native(unit);
}

static void alu_rm(struct unit *unit, const struct op *op)
{
    unsigned digit = alu_digit(unit->facts->info.mnemonic), size = op->size_bytes;
    struct rm from = address_check(unit, op, size, ACCESS_READ);
    flags_before_native(unit);
    unsigned to = reg_begin(unit, op->reg[0], size, true);
    emit_modrm(&unit->e, alu_opcode(digit, true, size), size, to, from);
    if (digit < 7)
        reg_end(unit, op->reg[0], size);
    flags_after_native(unit);
}

static void alu_mr(struct unit *unit, const struct op *op)
{
    unsigned digit = alu_digit(unit->facts->info.mnemonic), size = op->size_bytes;
    struct rm to = address_check(unit, op, size, digit < 7 ? ACCESS_WRITE : ACCESS_READ);
    flags_before_native(unit);
    unsigned from = reg_begin(unit, op->reg[1], size, true);
    emit_modrm(&unit->e, alu_opcode(digit, false, size) | lock_of(op), size, from, to);
    flags_after_native(unit);
}

static void alu_mi(struct unit *unit, const struct op *op)
{
    unsigned digit = alu_digit(unit->facts->info.mnemonic), size = op->size_bytes;
    struct rm to = address_check(unit, op, size, digit < 7 ? ACCESS_WRITE : ACCESS_READ);
    flags_before_native(unit);
    alu_imm(unit, digit, op, to);
    flags_after_native(unit);
}

static emit_fn *find_alu(const struct insn_facts *facts)
{
    switch (facts->form) {
    case FORM_RR: return alu_rr;
    case FORM_RI: return alu_ri;
    case FORM_RM: return alu_rm;
    case FORM_MR: return alu_mr;
    case FORM_MI: return alu_mi;
    default: return NULL;
    }
}

/* --- INC DEC NOT NEG ---------------------------------------------------------------------- */

static void unary_on(struct unit *unit, const struct op *op, struct rm rm)
{
    unsigned opcode, digit;
    switch (unit->facts->info.mnemonic) {
    case ZYDIS_MNEMONIC_INC: opcode = 0xfe, digit = 0; break;
    case ZYDIS_MNEMONIC_DEC: opcode = 0xfe, digit = 1; break;
    case ZYDIS_MNEMONIC_NOT: opcode = 0xf6, digit = 2; break;
    default: opcode = 0xf6, digit = 3; break;
    }
    emit_modrm(&unit->e, sized(opcode, op->size_bytes) | EMIT_EXTENSION | lock_of(op),
               op->size_bytes, digit, rm);
}

static void unary_r(struct unit *unit, const struct op *op)
{
    flags_before_native(unit);
    if (op->size_bytes == 8 && is_stored(op->reg[0])) {
        unary_on(unit, op, reg_rm(op->reg[0]));
        flags_after_native(unit);
        return;
    }
    unary_on(unit, op, rm_reg(reg_begin(unit, op->reg[0], op->size_bytes, true)));
    reg_end(unit, op->reg[0], op->size_bytes);
    flags_after_native(unit);
}

static void unary_m(struct unit *unit, const struct op *op)
{
    struct rm rm = address_check(unit, op, op->size_bytes, ACCESS_WRITE);
    flags_before_native(unit);
    unary_on(unit, op, rm);
    flags_after_native(unit);
}

/* --- shifts ------------------------------------------------------------------------------- */

static unsigned shift_digit(ZydisMnemonic mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_ROL: return 0;
    case ZYDIS_MNEMONIC_ROR: return 1;
    case ZYDIS_MNEMONIC_RCL: return 2;
    case ZYDIS_MNEMONIC_RCR: return 3;
    case ZYDIS_MNEMONIC_SHL: return 4;
    case ZYDIS_MNEMONIC_SHR: return 5;
    default: return 7;
    }
}

static bool is_by_imm(const struct insn_facts *facts)
{
    return facts->operand[facts->info.operand_count_visible - 1].type ==
           ZYDIS_OPERAND_TYPE_IMMEDIATE;
}

static void shift_on(struct unit *unit, const struct op *op, struct rm rm)
{
    unsigned digit = shift_digit(unit->facts->info.mnemonic);
    if (is_by_imm(unit->facts)) {
        emit_modrm(&unit->e, sized(0xc0, op->size_bytes) | EMIT_EXTENSION, op->size_bytes, digit,
                   rm);
        emit8(&unit->e, (uint8_t)op->imm);
    } else {
        emit_modrm(&unit->e, sized(0xd2, op->size_bytes) | EMIT_EXTENSION, op->size_bytes, digit,
                   rm);
    }
}

static void shift_r(struct unit *unit, const struct op *op)
{
    flags_before_native(unit);
    shift_on(unit, op, rm_reg(reg_begin(unit, op->reg[0], op->size_bytes, true)));
    reg_end(unit, op->reg[0], op->size_bytes);
    flags_after_native(unit);
}

static void shift_m(struct unit *unit, const struct op *op)
{
    struct rm rm = address_check(unit, op, op->size_bytes, ACCESS_WRITE);
    flags_before_native(unit);
    shift_on(unit, op, rm);
    flags_after_native(unit);
}

static void double_shift(struct unit *unit, const struct op *op)
{
    unsigned opcode = unit->facts->info.mnemonic == ZYDIS_MNEMONIC_SHLD ? IN_0F(0xa4) : IN_0F(0xac);
    flags_before_native(unit);
    unsigned from = reg_rm(op->reg[1]).reg;
    if (is_stored(op->reg[1])) {
        emit_load(&unit->e, SCRATCH0, reg_rm(op->reg[1]));
        from = SCRATCH0;
    }
    struct rm to = rm_reg(reg_begin(unit, op->reg[0], op->size_bytes, true));
    if (is_by_imm(unit->facts)) {
        emit_modrm(&unit->e, opcode, op->size_bytes, from, to);
        emit8(&unit->e, (uint8_t)op->imm);
    } else {
        emit_modrm(&unit->e, opcode | 1, op->size_bytes, from, to);
    }
    reg_end(unit, op->reg[0], op->size_bytes);
    flags_after_native(unit);
}

/* --- multiplication and division ---------------------------------------------------------- */

static void imul_with(struct unit *unit, const struct op *op, struct rm from, bool has_imm)
{
    unsigned size = op->size_bytes;
    flags_before_native(unit);
    unsigned to = reg_begin(unit, op->reg[0], size, !has_imm);
    if (has_imm) {
        emit_modrm(&unit->e, 0x69, size, to, from);
        emit_imm(&unit->e, op->imm, size);
    } else {
        emit_modrm(&unit->e, IN_0F(0xaf), size, to, from);
    }
    reg_end(unit, op->reg[0], size);
    flags_after_native(unit);
}

static void imul(struct unit *unit, const struct op *op)
{
    bool has_imm = unit->facts->form == FORM_RRI || unit->facts->form == FORM_RMI;
    bool in_memory = unit->facts->form == FORM_RM || unit->facts->form == FORM_RMI;
    struct rm from =
        in_memory ? address_check(unit, op, op->size_bytes, ACCESS_READ) : reg_rm(op->reg[1]);
    imul_with(unit, op, from, has_imm);
}

/* The operand of MUL, IMUL, DIV and IDIV with the accumulator. */
static struct rm accumulator_operand(struct unit *unit, const struct op *op)
{
    if (unit->facts->form == FORM_M)
        return address_check(unit, op, op->size_bytes, ACCESS_READ);
    return reg_rm(op->reg[0]);
}

static void accumulate(struct unit *unit, const struct op *op, unsigned digit, struct rm from)
{
    flags_before_native(unit);
    emit_modrm(&unit->e, sized(0xf6, op->size_bytes) | EMIT_EXTENSION, op->size_bytes, digit, from);
    flags_after_native(unit);
}

static void multiply(struct unit *unit, const struct op *op)
{
    unsigned digit = unit->facts->info.mnemonic == ZYDIS_MNEMONIC_MUL ? 4 : 5;
    accumulate(unit, op, digit, accumulator_operand(unit, op));
}

/* The quotient fits when the upper half of the dividend is less than the divisor. */
static void divide(struct unit *unit, const struct op *op)
{
    flags_clobber(unit);
    struct rm by = accumulator_operand(unit, op);
    emit_modrm(&unit->e, 0x3b, op->size_bytes, HOST_RDX, by); /* cmp */
    slow_if(unit, CONDITION_AE);
    accumulate(unit, op, 6, by);
}

/* Only what compilers make: a dividend that is sign-extended, by neither 0 nor -1. */
static void divide_signed(struct unit *unit, const struct op *op)
{
    struct emitter *e = &unit->e;
    unsigned size = op->size_bytes;
    flags_clobber(unit);
    struct rm by = accumulator_operand(unit, op);
    emit_modrm(e, 0x8b, size, SCRATCH1, rm_reg(HOST_RAX));
    emit_modrm(e, 0xc1 | EMIT_EXTENSION, size, 7, rm_reg(SCRATCH1)); /* sar */
    emit8(e, (uint8_t)(size * 8 - 1));
    emit_modrm(e, 0x3b, size, SCRATCH1, rm_reg(HOST_RDX)); /* cmp */
    slow_if(unit, CONDITION_NE);
    emit_modrm(e, 0x8b, size, SCRATCH1, by);
    emit_alu_imm(e, 0, size, rm_reg(SCRATCH1), 1, 0);
    emit_alu_imm(e, 7, size, rm_reg(SCRATCH1), 1, 0);
    slow_if(unit, CONDITION_BE);
    accumulate(unit, op, 7, by);
}

/* --- moves -------------------------------------------------------------------------------- */

static void mov_rr(struct unit *unit, const struct op *op)
{
    unsigned size = op->size_bytes;
    struct rm from = reg_rm(op->reg[1]);
    if (size == 8 && is_stored(op->reg[0]) && from.is_reg) {
        emit_store(&unit->e, reg_rm(op->reg[0]), from.reg);
        return;
    }
    unsigned to = reg_begin(unit, op->reg[0], size, false);
    emit_modrm(&unit->e, sized(0x8a, size), size, to, from);
    reg_end(unit, op->reg[0], size);
}

static void mov_ri(struct unit *unit, const struct op *op)
{
    unsigned size = op->size_bytes;
    if (size < 4) {
        emit_modrm(&unit->e, sized(0xc6, size) | EMIT_EXTENSION, size, 0, reg_rm(op->reg[0]));
        emit_imm(&unit->e, op->imm, size);
        return;
    }
    unsigned to = reg_begin(unit, op->reg[0], size, false);
    emit_mov_imm(&unit->e, to, size == 4 ? (uint32_t)op->imm : op->imm);
    reg_end(unit, op->reg[0], size);
}

static void mov_rm(struct unit *unit, const struct op *op)
{
    unsigned size = op->size_bytes;
    struct rm from = address_check(unit, op, size, ACCESS_READ);
    unsigned to = reg_begin(unit, op->reg[0], size, false);
    emit_modrm(&unit->e, sized(0x8a, size), size, to, from);
    reg_end(unit, op->reg[0], size);
}

static void mov_mr(struct unit *unit, const struct op *op)
{
    unsigned size = op->size_bytes;
    struct rm to = address_check(unit, op, size, ACCESS_WRITE);
    unsigned from = reg_begin(unit, op->reg[1], size, true);
    emit_modrm(&unit->e, sized(0x88, size), size, from, to);
}

static void mov_mi(struct unit *unit, const struct op *op)
{
    unsigned size = op->size_bytes;
    struct rm to = address_check(unit, op, size, ACCESS_WRITE);
    emit_modrm(&unit->e, sized(0xc6, size) | EMIT_EXTENSION, size, 0, to);
    emit_imm(&unit->e, op->imm, size);
}

static emit_fn *find_mov(const struct op *op, const struct insn_facts *facts)
{
    switch (facts->form) {
    case FORM_RR: return mov_rr;
    case FORM_RI: return mov_ri;
    case FORM_RM: return mov_rm;
    case FORM_MR: return mov_mr;
    case FORM_MI: return mov_mi;
    default: return NULL;
    }
}

static unsigned source_bytes(const struct unit *unit)
{
    return unit->facts->operand[1].size / 8;
}

static void extend(struct unit *unit, const struct op *op)
{
    unsigned from_bytes = source_bytes(unit), opcode;
    bool is_signed = unit->facts->info.mnemonic != ZYDIS_MNEMONIC_MOVZX;
    if (from_bytes == 4)
        opcode = 0x63;
    else
        opcode = IN_0F((is_signed ? 0xbe : 0xb6) | (from_bytes == 2));
    if (from_bytes == 1)
        opcode |= EMIT_RM8;
    struct rm from = unit->facts->form == FORM_RM ? address_check(unit, op, from_bytes, ACCESS_READ)
                                                  : reg_rm(op->reg[1]);
    unsigned to = reg_begin(unit, op->reg[0], op->size_bytes, false);
    emit_modrm(&unit->e, opcode, op->size_bytes, to, from);
    reg_end(unit, op->reg[0], op->size_bytes);
}

static void lea(struct unit *unit, const struct op *op)
{
    unsigned size = op->size_bytes;
    struct rm rm;
    if (address_is_direct(unit, op, &rm)) {
        unsigned to = reg_begin(unit, op->reg[0], size, false);
        emit_modrm(&unit->e, 0x8d, size, to, rm);
    } else {
        address_effective(unit, op, SCRATCH0);
        unsigned to = reg_begin(unit, op->reg[0], size, false);
        emit_modrm(&unit->e, 0x8b, size, to, rm_reg(SCRATCH0));
    }
    reg_end(unit, op->reg[0], size);
}

static void setcc(struct unit *unit, const struct op *op)
{
    struct rm to =
        unit->facts->form == FORM_M ? address_check(unit, op, 1, ACCESS_WRITE) : reg_rm(op->reg[0]);
    flags_need(unit, unit->facts->reads);
    emit_modrm(&unit->e, IN_0F(0x90 | condition_of(unit->facts)) | EMIT_EXTENSION, 1, 0, to);
}

static void cmov(struct unit *unit, const struct op *op)
{
    unsigned size = op->size_bytes;
    struct rm from = unit->facts->form == FORM_RM ? address_check(unit, op, size, ACCESS_READ)
                                                  : reg_rm(op->reg[1]);
    flags_need(unit, unit->facts->reads);
    unsigned to = reg_begin(unit, op->reg[0], size, true);
    emit_modrm(&unit->e, IN_0F(0x40 | condition_of(unit->facts)), size, to, from);
    reg_end(unit, op->reg[0], size);
}

/* CBW CWDE CDQE, CWD CDQ CQO: RAX and RDX are in place. */
static void widen(struct unit *unit, const struct op *op)
{
    uint8_t opcode = unit->facts->info.opcode;
    switch (unit->facts->info.mnemonic) {
    case ZYDIS_MNEMONIC_CBW:
    case ZYDIS_MNEMONIC_CWD: EMIT(&unit->e, 0x66, opcode); break;
    case ZYDIS_MNEMONIC_CDQE:
    case ZYDIS_MNEMONIC_CQO: EMIT(&unit->e, 0x48, opcode); break;
    default: emit8(&unit->e, opcode); break;
    }
}

static void bswap(struct unit *unit, const struct op *op)
{
    unsigned reg = reg_begin(unit, op->reg[0], op->size_bytes, true);
    unsigned rex = (op->size_bytes == 8 ? 0x48 : 0) | (reg >= 8 ? 0x41 : 0);
    if (rex)
        emit8(&unit->e, (uint8_t)rex);
    EMIT(&unit->e, 0x0f, (uint8_t)(0xc8 | (reg & 7)));
    reg_end(unit, op->reg[0], op->size_bytes);
}

static void nothing(struct unit *unit, const struct op *op) {}

/* CLC STC CMC. */
static void carry(struct unit *unit, const struct op *op)
{
    flags_before_native(unit);
    emit8(&unit->e, unit->facts->info.opcode);
    flags_after_native(unit);
}

/* --- bits --------------------------------------------------------------------------------- */

static unsigned bit_digit(ZydisMnemonic mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_BT: return 4;
    case ZYDIS_MNEMONIC_BTS: return 5;
    case ZYDIS_MNEMONIC_BTR: return 6;
    default: return 7;
    }
}

static void bit_imm(struct unit *unit, const struct op *op)
{
    unsigned digit = bit_digit(unit->facts->info.mnemonic), size = op->size_bytes;
    bool in_memory = unit->facts->form == FORM_MI;
    struct rm rm = {0};
    if (in_memory)
        rm = address_check(unit, op, size, digit == 4 ? ACCESS_READ : ACCESS_WRITE);
    flags_before_native(unit);
    if (!in_memory)
        rm = rm_reg(reg_begin(unit, op->reg[0], size, true));
    emit_modrm(&unit->e, IN_0F(0xba) | EMIT_EXTENSION | lock_of(op), size, digit, rm);
    emit8(&unit->e, (uint8_t)(op->imm & (size * 8 - 1)));
    if (!in_memory && digit != 4)
        reg_end(unit, op->reg[0], size);
    flags_after_native(unit);
}

static void bit_reg(struct unit *unit, const struct op *op)
{
    unsigned digit = bit_digit(unit->facts->info.mnemonic), size = op->size_bytes;
    flags_before_native(unit);
    unsigned bit = reg_rm(op->reg[1]).reg;
    if (is_stored(op->reg[1])) {
        emit_load(&unit->e, SCRATCH0, reg_rm(op->reg[1]));
        bit = SCRATCH0;
    }
    struct rm rm = rm_reg(reg_begin(unit, op->reg[0], size, true));
    emit_modrm(&unit->e, IN_0F(0x83 | digit << 3), size, bit, rm);
    if (digit != 4)
        reg_end(unit, op->reg[0], size);
    flags_after_native(unit);
}

/* A register's bit is any of the memory around the operand: its word is addressed first. */
static void bit_of_memory(struct unit *unit, const struct op *op)
{
    struct emitter *e = &unit->e;
    unsigned digit = bit_digit(unit->facts->info.mnemonic), size = op->size_bytes;
    struct rm bit = reg_rm(op->reg[1]);
    flags_clobber(unit);
    address_linear(unit, op, SCRATCH0);
    emit_modrm(e, size == 8 ? 0x8b : 0x63, 8, SCRATCH1, bit);     /* mov, movsxd */
    emit_modrm(e, 0xc1 | EMIT_EXTENSION, 8, 7, rm_reg(SCRATCH1)); /* sar */
    emit8(e, size == 8 ? 6 : 5);
    emit_modrm(e, 0x8d, unit->rip_bytes, SCRATCH0, /* lea: addresses are as wide as RIP */
               rm_indexed(SCRATCH0, SCRATCH1, size == 8 ? 3 : 2, 0));
    struct rm word = address_check_computed(unit, size, digit == 4 ? ACCESS_READ : ACCESS_WRITE);
    emit_modrm(e, 0x8b, size, SCRATCH1, bit);
    emit_alu_imm(e, 4, 4, rm_reg(SCRATCH1), (int32_t)size * 8 - 1, 0);
    emit_store(e, CPU_FIELD(spill), SCRATCH1);
    flags_before_native(unit);
    emit_load(e, SCRATCH1, CPU_FIELD(spill));
    emit_modrm(e, IN_0F(0x83 | digit << 3) | lock_of(op), size, SCRATCH1, word);
    flags_after_native(unit);
}

/* BSF BSR TZCNT LZCNT POPCNT. The first two leave their destination alone when there is no bit. */
static void scan(struct unit *unit, const struct op *op)
{
    unsigned opcode, size = op->size_bytes;
    switch (unit->facts->info.mnemonic) {
    case ZYDIS_MNEMONIC_BSF: opcode = IN_0F(0xbc); break;
    case ZYDIS_MNEMONIC_BSR: opcode = IN_0F(0xbd); break;
    case ZYDIS_MNEMONIC_TZCNT: opcode = WITH_PREFIX(0xf3, IN_0F(0xbc)); break;
    case ZYDIS_MNEMONIC_LZCNT: opcode = WITH_PREFIX(0xf3, IN_0F(0xbd)); break;
    default: opcode = WITH_PREFIX(0xf3, IN_0F(0xb8)); break;
    }
    struct rm from = unit->facts->form == FORM_RM ? address_check(unit, op, size, ACCESS_READ)
                                                  : reg_rm(op->reg[1]);
    flags_before_native(unit);
    unsigned to = reg_begin(unit, op->reg[0], 8, true);
    emit_modrm(&unit->e, opcode, size, to, from);
    reg_end(unit, op->reg[0], 8);
    flags_after_native(unit);
}

/* --- exchanges ---------------------------------------------------------------------------- */

static void write_reg(struct unit *unit, unsigned offset, unsigned size_bytes, unsigned from)
{
    struct rm to = reg_rm(offset);
    if (to.is_reg)
        emit_modrm(&unit->e, 0x8b, size_bytes, to.reg, rm_reg(from));
    else
        emit_store(&unit->e, to, from);
}

static void xchg_rr(struct unit *unit, const struct op *op)
{
    unsigned size = op->size_bytes;
    struct rm a = reg_rm(op->reg[0]), b = reg_rm(op->reg[1]);
    if (a.is_reg && b.is_reg) {
        emit_modrm(&unit->e, sized(0x86, size), size, a.reg, b);
        return;
    }
    emit_modrm(&unit->e, 0x8b, size, SCRATCH0, a);
    emit_modrm(&unit->e, 0x8b, size, SCRATCH1, b);
    write_reg(unit, op->reg[0], size, SCRATCH1);
    write_reg(unit, op->reg[1], size, SCRATCH0);
}

static void xchg_m(struct unit *unit, const struct op *op)
{
    unsigned size = op->size_bytes;
    unsigned offset = op->reg[unit->facts->form == FORM_RM ? 0 : 1];
    struct rm rm = address_check(unit, op, size, ACCESS_WRITE);
    unsigned reg = reg_begin(unit, offset, size, true);
    emit_modrm(&unit->e, sized(0x86, size), size, reg, rm);
    reg_end(unit, offset, size);
}

/* CMPXCHG and XADD; the accumulator is in place. */
static void exchange(struct unit *unit, const struct op *op)
{
    unsigned size = op->size_bytes;
    bool is_xadd = unit->facts->info.mnemonic == ZYDIS_MNEMONIC_XADD;
    struct rm rm = address_check(unit, op, size, ACCESS_WRITE);
    flags_before_native(unit);
    unsigned reg = reg_begin(unit, op->reg[1], size, true);
    emit_modrm(&unit->e, sized(is_xadd ? IN_0F(0xc0) : IN_0F(0xb0), size) | lock_of(op), size, reg,
               rm);
    if (is_xadd)
        reg_end(unit, op->reg[1], size);
    flags_after_native(unit);
}

/* CMPXCHG8B and 16B: all their registers are in place. */
static void exchange_wide(struct unit *unit, const struct op *op)
{
    bool is_16 = unit->facts->info.mnemonic == ZYDIS_MNEMONIC_CMPXCHG16B;
    unit->align_mask = is_16 ? 15 : 0;
    struct rm rm = address_check(unit, op, is_16 ? 16 : 8, ACCESS_WRITE);
    unit->align_mask = 0;
    flags_before_native(unit);
    emit_modrm(&unit->e, IN_0F(0xc7) | EMIT_EXTENSION | lock_of(op), is_16 ? 8 : 4, 1, rm);
    flags_after_native(unit);
}

/* --- finding ------------------------------------------------------------------------------ */

static bool is_high_byte(const struct insn_facts *facts, unsigned i)
{
    const ZydisDecodedOperand *operand = &facts->operand[i];
    return i < facts->info.operand_count_visible && operand->type == ZYDIS_OPERAND_TYPE_REGISTER &&
           operand->reg.value >= ZYDIS_REGISTER_AH && operand->reg.value <= ZYDIS_REGISTER_BH;
}

/* AH to BH can't be named in an instruction with a REX prefix. */
static bool high_bytes_fit(const struct op *op, const struct insn_facts *facts)
{
    if (!is_high_byte(facts, 0) && !is_high_byte(facts, 1))
        return true;
    if (facts->form != FORM_RR && facts->form != FORM_RI && facts->form != FORM_R)
        return false;
    if (op->size_bytes > 4)
        return false;
    for (unsigned i = 0; i < 2 && i < facts->info.operand_count_visible; i++) {
        if (facts->operand[i].type != ZYDIS_OPERAND_TYPE_REGISTER || is_high_byte(facts, i))
            continue;
        unsigned limit = facts->operand[i].size == 8 ? 4 : 8;
        struct rm rm = reg_rm(op->reg[i]);
        if (!rm.is_reg || rm.reg >= limit)
            return false;
    }
    return true;
}

static bool operands_are_plain(const struct unit *unit, const struct op *op,
                               const struct insn_facts *facts)
{
    if (facts->info.operand_count_visible > 3)
        return false;
    for (unsigned i = 0; i < facts->info.operand_count_visible; i++) {
        const ZydisDecodedOperand *operand = &facts->operand[i];
        ZydisRegisterClass domain = ZydisRegisterGetClass(operand->reg.value);
        if (operand->type == ZYDIS_OPERAND_TYPE_REGISTER && domain != ZYDIS_REGCLASS_GPR8 &&
            domain != ZYDIS_REGCLASS_GPR16 && domain != ZYDIS_REGCLASS_GPR32 &&
            domain != ZYDIS_REGCLASS_GPR64)
            return false;
        if (operand->type == ZYDIS_OPERAND_TYPE_MEMORY && !address_is_simple(unit, op))
            return false;
    }
    return high_bytes_fit(op, facts);
}

static emit_fn *find_in_memory(const struct insn_facts *facts, emit_fn *reg, emit_fn *memory)
{
    return facts->operand[0].type == ZYDIS_OPERAND_TYPE_MEMORY ? memory : reg;
}

static emit_fn *find_xchg(const struct op *op, const struct insn_facts *facts)
{
    if (facts->form != FORM_RR)
        return xchg_m;
    bool is_mapped = !is_stored(op->reg[0]) && !is_stored(op->reg[1]);
    return is_mapped || op->size_bytes >= 4 ? xchg_rr : NULL;
}

static emit_fn *find_bit(const struct unit *unit, const struct op *op,
                         const struct insn_facts *facts)
{
    bool is_wide =
        op->size_bytes >= 4 &&
        (unit->is_64bit || (address_is_flat(unit, op->segment) && (op->flags & OP_ADDRESS_32)));
    switch (facts->form) {
    case FORM_RR: return bit_reg;
    case FORM_RI:
    case FORM_MI: return bit_imm;
    case FORM_MR: return is_wide ? bit_of_memory : NULL;
    default: return NULL;
    }
}

static emit_fn *find_rare(const struct unit *unit, const struct op *op,
                          const struct insn_facts *facts)
{
    unsigned size = op->size_bytes;
    switch (facts->info.mnemonic) {
    case ZYDIS_MNEMONIC_MUL: return multiply;
    case ZYDIS_MNEMONIC_IMUL:
        return facts->form == FORM_R || facts->form == FORM_M ? multiply : imul;
    case ZYDIS_MNEMONIC_DIV: return size >= 4 ? divide : NULL;
    case ZYDIS_MNEMONIC_IDIV: return size >= 4 ? divide_signed : NULL;
    case ZYDIS_MNEMONIC_BSWAP: return size >= 4 ? bswap : NULL;
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC: return find_bit(unit, op, facts);
    case ZYDIS_MNEMONIC_BSF:
    case ZYDIS_MNEMONIC_BSR:
    case ZYDIS_MNEMONIC_TZCNT:
    case ZYDIS_MNEMONIC_LZCNT:
    case ZYDIS_MNEMONIC_POPCNT: return scan;
    case ZYDIS_MNEMONIC_XCHG: return find_xchg(op, facts);
    case ZYDIS_MNEMONIC_CMPXCHG:
    case ZYDIS_MNEMONIC_XADD: return facts->form == FORM_MR ? exchange : NULL;
    case ZYDIS_MNEMONIC_CMPXCHG8B:
    case ZYDIS_MNEMONIC_CMPXCHG16B: return address_is_simple(unit, op) ? exchange_wide : NULL;
    case ZYDIS_MNEMONIC_SHLD:
    case ZYDIS_MNEMONIC_SHRD:
        return facts->operand[0].type == ZYDIS_OPERAND_TYPE_REGISTER ? double_shift : NULL;
    case ZYDIS_MNEMONIC_CBW:
    case ZYDIS_MNEMONIC_CWDE:
    case ZYDIS_MNEMONIC_CDQE:
    case ZYDIS_MNEMONIC_CWD:
    case ZYDIS_MNEMONIC_CDQ:
    case ZYDIS_MNEMONIC_CQO: return widen;
    case ZYDIS_MNEMONIC_CLC:
    case ZYDIS_MNEMONIC_STC:
    case ZYDIS_MNEMONIC_CMC: return carry;
    default: return NULL;
    }
}

static emit_fn *find_conditional(const struct insn_facts *facts)
{
    if (facts->info.opcode_map != ZYDIS_OPCODE_MAP_0F)
        return NULL;
    if ((facts->info.opcode & 0xf0) == 0x90 &&
        facts->info.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY)
        return setcc;
    if (facts->info.meta.category == ZYDIS_CATEGORY_CMOV)
        return cmov;
    return NULL;
}

emit_fn *integer_find(const struct unit *unit, const struct op *op, const struct insn_facts *facts)
{
    switch (facts->info.mnemonic) {
    case ZYDIS_MNEMONIC_NOP:
    case ZYDIS_MNEMONIC_PREFETCH:
    case ZYDIS_MNEMONIC_PREFETCHNTA:
    case ZYDIS_MNEMONIC_PREFETCHT0:
    case ZYDIS_MNEMONIC_PREFETCHT1:
    case ZYDIS_MNEMONIC_PREFETCHT2:
    case ZYDIS_MNEMONIC_PREFETCHW:
    case ZYDIS_MNEMONIC_LFENCE: return nothing;
    default: break;
    }
    if (facts->info.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY ||
        !operands_are_plain(unit, op, facts))
        return NULL;
    switch (facts->info.mnemonic) {
    case ZYDIS_MNEMONIC_ADD:
    case ZYDIS_MNEMONIC_OR:
    case ZYDIS_MNEMONIC_ADC:
    case ZYDIS_MNEMONIC_SBB:
    case ZYDIS_MNEMONIC_AND:
    case ZYDIS_MNEMONIC_SUB:
    case ZYDIS_MNEMONIC_XOR:
    case ZYDIS_MNEMONIC_CMP:
    case ZYDIS_MNEMONIC_TEST: return find_alu(facts);
    case ZYDIS_MNEMONIC_INC:
    case ZYDIS_MNEMONIC_DEC:
    case ZYDIS_MNEMONIC_NOT:
    case ZYDIS_MNEMONIC_NEG: return find_in_memory(facts, unary_r, unary_m);
    case ZYDIS_MNEMONIC_SHL:
    case ZYDIS_MNEMONIC_SHR:
    case ZYDIS_MNEMONIC_SAR:
    case ZYDIS_MNEMONIC_ROL:
    case ZYDIS_MNEMONIC_ROR:
    case ZYDIS_MNEMONIC_RCL:
    case ZYDIS_MNEMONIC_RCR: return find_in_memory(facts, shift_r, shift_m);
    case ZYDIS_MNEMONIC_MOV: return find_mov(op, facts);
    case ZYDIS_MNEMONIC_MOVZX:
    case ZYDIS_MNEMONIC_MOVSX:
    case ZYDIS_MNEMONIC_MOVSXD: return op->size_bytes >= 4 || !unit->is_64bit ? extend : NULL;
    case ZYDIS_MNEMONIC_LEA: return lea;
    default: break;
    }
    emit_fn *fn = find_conditional(facts);
    return fn ? fn : find_rare(unit, op, facts);
}
