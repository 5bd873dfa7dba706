/* SPDX-License-Identifier: BSD-2-Clause
 *
 * MOVS STOS LODS CMPS SCAS, alone and repeated: SDM 2B, REP. INS and OUTS are in system.c.
 *
 * A repeated one works page by page on host memory where both operands are plain RAM and go
 * forward, otherwise element by element. After each chunk the registers are as the architecture
 * shows them at an interrupt or a fault, so that the instruction can be left and begun again.
 */
#include "cpu/soft/integer/integer.h"

/* In elements: how much is done before interrupts are looked at. */
enum { CHUNK_LIMIT = 65536, PAGE_BYTES = 4096 };

struct string {
    unsigned size_bytes;
    uint64_t mask; /* of RCX, RSI, RDI: the address size */
    int64_t step;  /* size_bytes or its negative, by DF */
};

static struct string string_of(const struct cpu *cpu, const struct op *op)
{
    struct string s = {.size_bytes = op->size_bytes, .mask = UINT64_MAX};
    if (op->flags & OP_ADDRESS_16)
        s.mask = UINT16_MAX;
    else if (op->flags & OP_ADDRESS_32)
        s.mask = UINT32_MAX;
    s.step = cpu->rflags & RFLAGS_DF ? -(int64_t)s.size_bytes : (int64_t)s.size_bytes;
    return s;
}

/* 32-bit registers are zero-extended, 16-bit ones keep what is above. */
static void set_register(struct cpu *cpu, enum x86_gpr reg, uint64_t value, uint64_t mask)
{
    uint64_t keep = mask == UINT16_MAX ? ~mask : 0;
    cpu->gpr[reg] = (cpu->gpr[reg] & keep) | (value & mask);
}

static void advance(struct cpu *cpu, enum x86_gpr reg, const struct string *s, int64_t elements)
{
    set_register(cpu, reg, cpu->gpr[reg] + (uint64_t)(elements * s->step), s->mask);
}

static uint64_t source(struct cpu *cpu, const struct op *op, const struct string *s)
{
    return segment_address(cpu, op->segment, cpu->gpr[RSI] & s->mask, s->size_bytes, ACCESS_READ);
}

static uint64_t destination(struct cpu *cpu, const struct string *s, enum memory_access access)
{
    return segment_address(cpu, SEG_ES, cpu->gpr[RDI] & s->mask, s->size_bytes, access);
}

/* How many whole elements lie between the address and the end of its page. */
static uint64_t elements_on_page(uint64_t linear, unsigned size_bytes)
{
    return (PAGE_BYTES - (linear & (PAGE_BYTES - 1))) / size_bytes;
}

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Whether a run of elements may be taken at once: forward, and in 64-bit mode, where neither a
 * segment limit nor a wrap of the address can lie inside a page. */
static bool can_run(const struct cpu *cpu, const struct string *s)
{
    return s->step > 0 && s->mask == UINT64_MAX && cpu_is_64bit(cpu);
}

/* Each step function does at least one and at most `limit` elements and returns how many. */
typedef uint64_t step_fn(struct cpu *cpu, const struct op *op, const struct string *s,
                         uint64_t limit);

/* Copies forward as the instruction does, element after element: where the destination lies just
 * behind the source, each element is read after it was overwritten. */
static void copy_forward(uint8_t *to, const uint8_t *from, size_t size_bytes)
{
    if (to > from && to < from + size_bytes)
        __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size_bytes) : : "memory");
    else
        memmove(to, from, size_bytes);
}

static uint64_t movs_step(struct cpu *cpu, const struct op *op, const struct string *s,
                          uint64_t limit)
{
    uint64_t from = source(cpu, op, s);
    uint64_t to = destination(cpu, s, ACCESS_WRITE);
    uint64_t count = 1;
    if (limit > 1 && can_run(cpu, s)) {
        uint64_t run = smaller(limit, smaller(elements_on_page(from, s->size_bytes),
                                              elements_on_page(to, s->size_bytes)));
        unsigned run_bytes = (unsigned)(run * s->size_bytes);
        const uint8_t *from_hva = run ? memory_hit_read(cpu, from, run_bytes) : NULL;
        uint8_t *to_hva = run ? memory_hit_write(cpu, to, run_bytes) : NULL;
        /* An overlap nearer than an element would need the exact element size. */
        bool is_near = to - from < s->size_bytes && to != from;
        if (from_hva && to_hva && !is_near) {
            copy_forward(to_hva, from_hva, run_bytes);
            count = run;
            goto done;
        }
    }
    uint64_t value = 0;
    memory_read(cpu, from, &value, s->size_bytes);
    memory_write(cpu, to, &value, s->size_bytes);
done:
    advance(cpu, RSI, s, (int64_t)count);
    advance(cpu, RDI, s, (int64_t)count);
    return count;
}

static void fill(uint8_t *to, uint64_t value, uint64_t count, unsigned size_bytes)
{
    switch (size_bytes) {
    case 1: __asm__ volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(value) : "memory"); break;
    case 2: __asm__ volatile("rep stosw" : "+D"(to), "+c"(count) : "a"(value) : "memory"); break;
    case 4: __asm__ volatile("rep stosl" : "+D"(to), "+c"(count) : "a"(value) : "memory"); break;
    default: __asm__ volatile("rep stosq" : "+D"(to), "+c"(count) : "a"(value) : "memory"); break;
    }
}

static uint64_t stos_step(struct cpu *cpu, const struct op *op, const struct string *s,
                          uint64_t limit)
{
    uint64_t to = destination(cpu, s, ACCESS_WRITE);
    uint64_t count = 1;
    uint64_t run =
        limit > 1 && can_run(cpu, s) ? smaller(limit, elements_on_page(to, s->size_bytes)) : 0;
    uint8_t *hva = run ? memory_hit_write(cpu, to, (unsigned)(run * s->size_bytes)) : NULL;
    if (hva) {
        fill(hva, cpu->gpr[RAX], run, s->size_bytes);
        count = run;
    } else {
        memory_write(cpu, to, &cpu->gpr[RAX], s->size_bytes);
    }
    advance(cpu, RDI, s, (int64_t)count);
    return count;
}

static void set_accumulator(struct cpu *cpu, uint64_t value, unsigned size_bytes)
{
    switch (size_bytes) {
    case 1: put8(cpu, RAX, (uint8_t)value); break;
    case 2: put16(cpu, RAX, (uint16_t)value); break;
    default: cpu->gpr[RAX] = value; break;
    }
}

static uint64_t lods_step(struct cpu *cpu, const struct op *op, const struct string *s,
                          uint64_t limit)
{
    uint64_t value = 0;
    memory_read(cpu, source(cpu, op, s), &value, s->size_bytes);
    set_accumulator(cpu, value, s->size_bytes);
    advance(cpu, RSI, s, 1);
    return 1;
}

/* The flags of a - b at the operand size, as CMP gives them. */
static void compare(struct cpu *cpu, uint64_t a, uint64_t b, unsigned size_bytes)
{
    unsigned shift = 64 - 8 * size_bytes;
    uint32_t cc = 0;
    /* At the top of 64 bits carry, overflow, sign and zero come out right; PF and AF depend on the
     * low byte, so a byte compare gives those. */
    __asm__ volatile("cmpq %[b], %[a]\n\t" FLAGS_OUT
                     : "+a"(cc)
                     : [a] "r"(a << shift), [b] "r"(b << shift)
                     : "cc");
    uint32_t low = 0;
    __asm__ volatile("cmpb %[b], %[a]\n\t" FLAGS_OUT
                     : "+a"(low)
                     : [a] "q"((uint8_t)a), [b] "q"((uint8_t)b)
                     : "cc");
    uint32_t from_low = CC_PF | CC_AF;
    cpu->cc = (uint16_t)((cc & ~from_low) | (low & from_low));
}

static uint64_t cmps_step(struct cpu *cpu, const struct op *op, const struct string *s,
                          uint64_t limit)
{
    uint64_t a = 0;
    uint64_t b = 0;
    memory_read(cpu, source(cpu, op, s), &a, s->size_bytes);
    memory_read(cpu, destination(cpu, s, ACCESS_READ), &b, s->size_bytes);
    compare(cpu, a, b, s->size_bytes);
    advance(cpu, RSI, s, 1);
    advance(cpu, RDI, s, 1);
    return 1;
}

static uint64_t scas_step(struct cpu *cpu, const struct op *op, const struct string *s,
                          uint64_t limit)
{
    uint64_t b = 0;
    memory_read(cpu, destination(cpu, s, ACCESS_READ), &b, s->size_bytes);
    uint64_t a = cpu->gpr[RAX];
    compare(cpu, a, b, s->size_bytes);
    advance(cpu, RDI, s, 1);
    return 1;
}

/* What a repeated instruction does between its elements: counts down, looks at ZF when it is one
 * that compares, and gives way to interrupts with RIP on itself. */
static void repeat(struct cpu *cpu, const struct op *op, step_fn *step, bool compares)
{
    struct string s = string_of(cpu, op);
    uint64_t budget = cpu->repeats_once ? 1 : CHUNK_LIMIT;
    for (;;) {
        uint64_t left = cpu->gpr[RCX] & s.mask;
        if (left == 0)
            break;
        uint64_t count = step(cpu, op, &s, smaller(left, budget));
        set_register(cpu, RCX, left - count, s.mask);
        if (compares && !(cpu->cc & CC_ZF) == !(op->flags & OP_REPNE))
            break;
        if (left == count)
            break;
        budget -= smaller(budget, count);
        if (budget == 0 || atomic_load_explicit(&cpu->requests, memory_order_relaxed)) {
            cpu_repeat_later(cpu);
            return;
        }
    }
    cpu->rip = op_next_rip(cpu, op);
}

#define STRING(name, compares)                                                                     \
    static void name(struct cpu *cpu, const struct op *op)                                         \
    {                                                                                              \
        struct string s = string_of(cpu, op);                                                      \
        name##_step(cpu, op, &s, 1);                                                               \
    }                                                                                              \
    static void rep_##name(struct cpu *cpu, const struct op *op)                                   \
    {                                                                                              \
        repeat(cpu, op, name##_step, compares);                                                    \
    }
STRING(movs, false)
STRING(stos, false)
STRING(lods, false)
STRING(cmps, true)
STRING(scas, true)

static op_fn *string_fn(ZydisMnemonic mnemonic, bool repeated)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_MOVSB:
    case ZYDIS_MNEMONIC_MOVSW:
    case ZYDIS_MNEMONIC_MOVSD:
    case ZYDIS_MNEMONIC_MOVSQ: return repeated ? rep_movs : movs;
    case ZYDIS_MNEMONIC_STOSB:
    case ZYDIS_MNEMONIC_STOSW:
    case ZYDIS_MNEMONIC_STOSD:
    case ZYDIS_MNEMONIC_STOSQ: return repeated ? rep_stos : stos;
    case ZYDIS_MNEMONIC_LODSB:
    case ZYDIS_MNEMONIC_LODSW:
    case ZYDIS_MNEMONIC_LODSD:
    case ZYDIS_MNEMONIC_LODSQ: return repeated ? rep_lods : lods;
    case ZYDIS_MNEMONIC_CMPSB:
    case ZYDIS_MNEMONIC_CMPSW:
    case ZYDIS_MNEMONIC_CMPSD:
    case ZYDIS_MNEMONIC_CMPSQ: return repeated ? rep_cmps : cmps;
    case ZYDIS_MNEMONIC_SCASB:
    case ZYDIS_MNEMONIC_SCASW:
    case ZYDIS_MNEMONIC_SCASD:
    case ZYDIS_MNEMONIC_SCASQ: return repeated ? rep_scas : scas;
    default: return NULL;
    }
}

static uint8_t segment_of(ZydisRegister segment)
{
    switch (segment) {
    case ZYDIS_REGISTER_ES: return SEG_ES;
    case ZYDIS_REGISTER_CS: return SEG_CS;
    case ZYDIS_REGISTER_SS: return SEG_SS;
    case ZYDIS_REGISTER_FS: return SEG_FS;
    case ZYDIS_REGISTER_GS: return SEG_GS;
    default: return SEG_DS;
    }
}

bool bind_string(const struct insn *insn, struct op *op)
{
    /* MOVSD and CMPSD are SSE instructions too, which have visible operands. */
    if (insn->info->meta.category != ZYDIS_CATEGORY_STRINGOP)
        return false;
    bool repeated = op->flags & (OP_REP | OP_REPNE);
    op->fn = string_fn(insn->info->mnemonic, repeated);
    if (!op->fn)
        return false;
    op->size_bytes = insn->info->operand_width / 8;
    op->segment = SEG_DS;
    for (unsigned i = 0; i < insn->info->operand_count; i++) {
        const ZydisDecodedOperand *operand = &insn->operands[i];
        bool is_source =
            operand->type == ZYDIS_OPERAND_TYPE_MEMORY &&
            (operand->mem.base == ZYDIS_REGISTER_RSI || operand->mem.base == ZYDIS_REGISTER_ESI ||
             operand->mem.base == ZYDIS_REGISTER_SI);
        if (is_source)
            op->segment = segment_of(operand->mem.segment);
    }
    if (repeated)
        op->flags |= OP_ENDS_BLOCK;
    return true;
}
