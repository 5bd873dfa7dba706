/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What each instruction of a block does to the arithmetic flags, and which flags matter where. At a
 * block's end that is told by a look at the code behind its exits, as far as it is in the same
 * page: when that code changes, this block is void, too.
 *
 * Flags that are overwritten before an instruction uses them may be stale in the frame of a fault
 * between the two, unless translator_options.has_exact_flags.
 */
#include "cpu/soft/tlb.h"
#include "cpu/soft/translator/internal.h"

static unsigned kind_of(const ZydisDecodedOperand *operand)
{
    switch (operand->type) {
    case ZYDIS_OPERAND_TYPE_REGISTER: return KIND_REG;
    case ZYDIS_OPERAND_TYPE_MEMORY: return KIND_MEM;
    case ZYDIS_OPERAND_TYPE_IMMEDIATE: return KIND_IMM;
    default: return KIND_NONE;
    }
}

static unsigned form_of(const struct insn_facts *facts)
{
    unsigned kind[3] = {KIND_NONE, KIND_NONE, KIND_NONE};
    for (unsigned i = 0; i < facts->info.operand_count_visible && i < 3; i++)
        kind[i] = kind_of(&facts->operand[i]);
    return kind[0] | kind[1] << 2 | kind[2] << 4;
}

static bool is_shift(ZydisMnemonic mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_SHL:
    case ZYDIS_MNEMONIC_SHR:
    case ZYDIS_MNEMONIC_SAR:
    case ZYDIS_MNEMONIC_ROL:
    case ZYDIS_MNEMONIC_ROR:
    case ZYDIS_MNEMONIC_RCL:
    case ZYDIS_MNEMONIC_RCR:
    case ZYDIS_MNEMONIC_SHLD:
    case ZYDIS_MNEMONIC_SHRD: return true;
    default: return false;
    }
}

/* Whether flags that the manual leaves undefined are surely overwritten: the interpreter takes them
 * from the host's instruction without handing old ones in. */
static bool overwrites_all(ZydisMnemonic mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_ADD:
    case ZYDIS_MNEMONIC_OR:
    case ZYDIS_MNEMONIC_ADC:
    case ZYDIS_MNEMONIC_SBB:
    case ZYDIS_MNEMONIC_AND:
    case ZYDIS_MNEMONIC_SUB:
    case ZYDIS_MNEMONIC_XOR:
    case ZYDIS_MNEMONIC_CMP:
    case ZYDIS_MNEMONIC_TEST:
    case ZYDIS_MNEMONIC_NEG:
    case ZYDIS_MNEMONIC_XADD: return true;
    default: return false;
    }
}

/* With a count of 0 it changes no flags (SDM 2B REP). */
static bool is_repeated(const ZydisDecodedInstruction *info)
{
    return info->meta.category == ZYDIS_CATEGORY_STRINGOP &&
           (info->attributes & (ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE));
}

/* `count`: of a shift by an immediate, 0 when it isn't known to be more. */
static void flags_of(const ZydisDecodedInstruction *info, unsigned count, uint16_t *reads,
                     uint16_t *writes)
{
    const ZydisAccessedFlags *flags = info->cpu_flags;
    *reads = *writes = 0;
    if (!flags)
        return;
    uint32_t changed = flags->modified | flags->set_0 | flags->set_1 | flags->undefined;
    *reads = flags->tested & ALL_FLAGS;
    if (is_repeated(info))
        return;
    if (overwrites_all(info->mnemonic))
        *writes = ALL_FLAGS;
    else if (!is_shift(info->mnemonic) || count > 0)
        *writes = changed & ~flags->undefined & ALL_FLAGS;
}

/* Instructions that may look at all flags in a way that the tables don't tell: by entering a
 * handler of the guest's, or storing them; IRET does where it goes back to another task. */
static bool sees_flags(const ZydisDecodedInstruction *info)
{
    if (info->mnemonic == ZYDIS_MNEMONIC_IRET || info->mnemonic == ZYDIS_MNEMONIC_IRETD)
        return true;
    switch (info->meta.category) {
    case ZYDIS_CATEGORY_INTERRUPT:
    case ZYDIS_CATEGORY_SYSCALL:
    case ZYDIS_CATEGORY_SYSRET:
    case ZYDIS_CATEGORY_SYSTEM:
    case ZYDIS_CATEGORY_FLAGOP:
    case ZYDIS_CATEGORY_IO:
    case ZYDIS_CATEGORY_IOSTRINGOP:
    case ZYDIS_CATEGORY_SEGOP: return true;
    case ZYDIS_CATEGORY_PUSH: return info->mnemonic != ZYDIS_MNEMONIC_PUSH;
    case ZYDIS_CATEGORY_POP: return info->mnemonic != ZYDIS_MNEMONIC_POP;
    default: return false;
    }
}

static unsigned shift_count(const struct insn_facts *facts)
{
    if (!is_shift(facts->info.mnemonic))
        return 0;
    const ZydisDecodedOperand *last = &facts->operand[facts->info.operand_count_visible - 1];
    if (last->type != ZYDIS_OPERAND_TYPE_IMMEDIATE)
        return 0;
    return (unsigned)last->imm.value.u & (facts->operand[0].size == 64 ? 63 : 31);
}

bool insn_writes(const struct insn_facts *facts, unsigned slot)
{
    for (unsigned i = 0; i < facts->info.operand_count; i++) {
        const ZydisDecodedOperand *operand = &facts->operand[i];
        if (operand->type != ZYDIS_OPERAND_TYPE_REGISTER ||
            !(operand->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
            continue;
        ZydisRegister whole =
            ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, operand->reg.value);
        if (whole == ZYDIS_REGISTER_RAX + slot)
            return true;
    }
    return false;
}

static emit_fn *find(const struct unit *unit, const struct op *op, const struct insn_facts *facts)
{
    emit_fn *fn = integer_find(unit, op, facts);
    if (!fn)
        fn = flow_find(unit, op, facts);
    if (!fn)
        fn = string_find(unit, op, facts);
    if (!fn)
        fn = system_find(unit, op, facts);
    if (!fn)
        fn = bmi_find(unit, op, facts);
    if (!fn)
        fn = x87_find(unit, op, facts);
    return fn ? fn : vector_find(unit, op, facts);
}

static bool learn(struct unit *unit, ZydisDecoder *decoder, unsigned i)
{
    const struct op *op = &unit->block->op[i];
    struct insn_facts *facts = &unit->fact[i];
    ZydisDecoderContext context;
    memset(facts, 0, offsetof(struct insn_facts, operand));
    facts->emit = NULL;
    facts->group = 0;
    facts->live_exit = 0;
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(decoder, &context, op_bytes(unit, op),
                                                    op->length, &facts->info)) ||
        !ZYAN_SUCCESS(ZydisDecoderDecodeOperands(decoder, &context, &facts->info, facts->operand,
                                                 facts->info.operand_count)) ||
        facts->info.length != op->length) {
        /* Not an instruction: it raises. */
        facts->reads = ALL_FLAGS;
        facts->writes = 0;
        facts->touches = false;
        return true;
    }
    facts->form = form_of(facts);
    flags_of(&facts->info, shift_count(facts), &facts->reads, &facts->writes);
    unit->op = op;
    unit->facts = facts;
    facts->emit = op->fn == op_undefined ? NULL : find(unit, op, facts);
    const ZydisAccessedFlags *flags = facts->info.cpu_flags;
    facts->touches =
        facts->emit && flags &&
        ((flags->modified | flags->set_0 | flags->set_1 | flags->undefined) & ALL_FLAGS);
    bool may_see = sees_flags(&facts->info) || (op->flags & OP_ENDS_BLOCK);
    bool stores_flags = facts->info.mnemonic == ZYDIS_MNEMONIC_PUSHFQ ||
                        facts->info.mnemonic == ZYDIS_MNEMONIC_PUSHFD;
    if ((!facts->emit && may_see) || stores_flags)
        facts->reads = ALL_FLAGS;
    return true;
}

/* --- behind the exits --------------------------------------------------------------------- */

enum { PEEK_INSTRUCTIONS = 24, PEEK_BYTES = 64, PEEK_DEPTH = 3 };

/* A look along the code from some place of the page on. */
struct peek {
    struct unit *unit;
    ZydisDecoder *decoder;
    unsigned left; /* instructions that may still be decoded */
};

static uint16_t peek_at(struct peek *peek, int64_t offset, unsigned depth);

/* Decoded from a copy. The mark comes first, then the bytes: as in block.c. A newer generation
 * means that this block is dead already. */
static unsigned peek_bytes(const struct unit *unit, unsigned offset, uint8_t *bytes)
{
    const uint8_t *page = unit->block->hva - unit->page_offset;
    unsigned available = PAGE_BYTES - offset;
    if (available > PEEK_BYTES)
        available = PEEK_BYTES;
    code_page_mark(unit->cpu, unit->block->page, (uint8_t *)(uintptr_t)page, offset, available);
    memcpy(bytes, page + offset, available);
    return available;
}

/* What matters behind a branch that ends at `behind`. */
static uint16_t peek_branch(struct peek *peek, const ZydisDecodedInstruction *info, int64_t behind,
                            unsigned depth)
{
    const struct unit *unit = peek->unit;
    /* Outside of 64-bit mode a jump may wrap at 64 KiB, and beyond the limit of CS raises. */
    bool is_whole = unit->has_links && (unit->is_64bit || info->operand_width == 32);
    bool is_direct =
        info->raw.imm[0].is_relative && is_whole &&
        (info->meta.category == ZYDIS_CATEGORY_COND_BR || info->mnemonic == ZYDIS_MNEMONIC_JMP ||
         info->mnemonic == ZYDIS_MNEMONIC_CALL);
    if (!is_direct || depth == 0)
        return ALL_FLAGS;
    uint16_t live = peek_at(peek, behind + info->raw.imm[0].value.s, depth - 1);
    if (info->meta.category == ZYDIS_CATEGORY_COND_BR)
        live |= peek_at(peek, behind, depth - 1);
    return live;
}

static uint16_t peek_at(struct peek *peek, int64_t offset, unsigned depth)
{
    const struct unit *unit = peek->unit;
    if (offset < 0 || offset >= PAGE_BYTES)
        return ALL_FLAGS;
    const struct block *known =
        block_peek(unit->cpu, unit->block->hva - unit->page_offset + offset, unit->block->mode);
    if (known && known->is_live_known && known->generation == unit->block->generation)
        return known->live;
    uint8_t bytes[PEEK_BYTES];
    unsigned available = peek_bytes(unit, (unsigned)offset, bytes), at = 0;
    uint16_t live = 0, open = ALL_FLAGS;
    for (; peek->left > 0 && open; peek->left--) {
        ZydisDecodedInstruction info;
        ZydisDecoderContext context;
        uint16_t reads, writes;
        if (!ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(peek->decoder, &context, bytes + at,
                                                        available - at, &info)) ||
            sees_flags(&info) || (info.attributes & ZYDIS_ATTRIB_IS_PRIVILEGED))
            break;
        flags_of(&info, 0, &reads, &writes);
        live |= reads & open;
        open &= (uint16_t)~writes;
        at += info.length;
        if (info.meta.branch_type != ZYDIS_BRANCH_TYPE_NONE)
            return live | (open & peek_branch(peek, &info, offset + at, depth));
    }
    return live | open;
}

static uint16_t peek(struct unit *unit, ZydisDecoder *decoder, int64_t offset)
{
    struct peek peek = {unit, decoder, PEEK_INSTRUCTIONS};
    return peek_at(&peek, offset, PEEK_DEPTH);
}

static bool is_relative(const struct insn_facts *facts)
{
    return facts->info.meta.branch_type != ZYDIS_BRANCH_TYPE_NONE &&
           facts->operand[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE &&
           facts->operand[0].imm.is_relative;
}

static void look_behind(struct unit *unit, ZydisDecoder *decoder)
{
    const struct block *block = unit->block;
    const struct op *last = block->end - 1;
    const struct insn_facts *facts = &unit->fact[block->op_count - 1];
    int64_t end = unit_end(unit);
    unit->live_next = unit->live_taken = ALL_FLAGS;
    if (unit->cpu->system->translator.has_exact_flags)
        return;
    if (facts->emit && is_relative(facts) && unit->has_links)
        unit->live_taken = peek(unit, decoder, end + (int64_t)last->imm);
    bool goes_on = !(last->flags & OP_ENDS_BLOCK) ||
                   facts->info.meta.category == ZYDIS_CATEGORY_COND_BR ||
                   (facts->emit && facts->info.meta.category == ZYDIS_CATEGORY_STRINGOP);
    if (goes_on)
        unit->live_next = peek(unit, decoder, end);
}

/* Branches inside of a superblock leave it one way. False: one can't be emitted as such. */
static bool look_aside(struct unit *unit, ZydisDecoder *decoder)
{
    const struct block *block = unit->block;
    for (unsigned i = 0; i + 1 < block->op_count; i++) {
        const struct op *op = &block->op[i];
        struct insn_facts *facts = &unit->fact[i];
        if (unit->follows[i] == FOLLOWS_NONE || !(op->flags & OP_ENDS_BLOCK))
            continue;
        if (!facts->emit)
            return false;
        if (facts->info.meta.category != ZYDIS_CATEGORY_COND_BR)
            continue;
        int64_t behind = (int64_t)unit->page_offset + op->offset + op->length;
        bool leaves_behind = unit->follows[i] == FOLLOWS_AWAY;
        facts->live_exit = peek(unit, decoder, leaves_behind ? behind : behind + (int64_t)op->imm);
    }
    return true;
}

/* Vector instructions behind one that may change what they were armed by are called. */
static void settle_vectors(struct unit *unit)
{
    bool may_be_disarmed = false;
    unit->vector_level = 0;
    for (unsigned i = 0; i < unit->block->op_count; i++) {
        struct insn_facts *facts = &unit->fact[i];
        may_be_disarmed |= !facts->emit && vector_may_disarm(facts);
        if (!vector_is_inline(facts))
            continue;
        if (may_be_disarmed) {
            facts->emit = NULL;
            facts->touches = false;
        } else if (vector_level_of(facts) > unit->vector_level) {
            unit->vector_level = vector_level_of(facts);
        }
    }
}

/* Whether an exit of the unit leads to its start. */
static bool is_loop(const struct unit *unit)
{
    const struct block *block = unit->block;
    for (unsigned i = 0; i < block->op_count; i++) {
        const struct op *op = &block->op[i];
        int64_t behind = (int64_t)unit->page_offset + op->offset + op->length;
        bool is_branch = unit->fact[i].emit && is_relative(&unit->fact[i]);
        if (is_branch && behind + (int64_t)op->imm == (int64_t)unit->page_offset)
            return true;
    }
    return false;
}

bool analyse(struct unit *unit)
{
    const struct block *block = unit->block;
    ZydisDecoder decoder;
    decoder_init(&decoder, block->mode);
    for (unsigned i = 0; i < block->op_count; i++)
        learn(unit, &decoder, i);
    settle_vectors(unit);
    x87_settle(unit);
    group_find(unit);
    unit->is_loop = unit->domain != CLASS_OTHER && !block->is_unslotted && is_loop(unit);
    look_behind(unit, &decoder);
    if (!look_aside(unit, &decoder))
        return false;
    const struct insn_facts *last = &unit->fact[block->op_count - 1];
    uint16_t live = unit->live_next;
    if (last->emit && is_relative(last)) {
        bool is_conditional = last->info.meta.category == ZYDIS_CATEGORY_COND_BR;
        live = is_conditional ? live | unit->live_taken : unit->live_taken;
    }
    bool is_exact = unit->cpu->system->translator.has_exact_flags;
    for (unsigned i = block->op_count; i-- > 0;) {
        struct insn_facts *facts = &unit->fact[i];
        facts->live = live | facts->live_exit;
        live = (uint16_t)((facts->live & ~facts->writes) | facts->reads);
        if (is_exact)
            live = ALL_FLAGS;
    }
    /* Of the block that the unit begins with: what comes to it need not look again. */
    struct block *head = block->head ? block->head : unit->block;
    head->live = live;
    head->is_live_known = true;
    return true;
}
