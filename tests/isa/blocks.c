/* SPDX-License-Identifier: BSD-2-Clause
 * Random blocks outside of 64-bit mode: see blocks.h. */
#include "isa/blocks.h"

#include "cpu/soft/block.h"
#include "cpu/soft/core.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    IVT = 0,
    GDT = 0x1000,
    TSS = 0x1800,
    IDT = 0x2000,
    HANDLERS = BLOCK_HANDLERS,
    PML4 = 0x5000,
    PDPT = 0x6000,
    PD = 0x7000,   /* of 8-byte entries */
    PD32 = 0x8000, /* of 4-byte entries */
    CODE = BLOCK_CODE,
    SCRATCH = BLOCK_ROM_BYTES,
    SCRATCH_BYTES = 0x4000,
    STACK0 = SCRATCH + 0x7ff0, /* of level 0 */
    LIMIT = 0x3fff,
};

enum { MAX_PARTS = 8 };

/* Selectors. Those from BASED on are what random code may load. */
enum {
    KERNEL_CS32 = 0x08,
    KERNEL_SS = 0x10,
    USER_CS32 = 0x18 | 3,
    USER_SS = 0x20 | 3,
    KERNEL_CS = 0x28,
    TSS_SELECTOR = 0x30, /* and 0x38 in long mode */
    CODE_LIMITED = 0x40, /* of CODE_AT, 32 bits */
    CODE16 = 0x48,
    BASED = 0x50 | 3, /* at SCRATCH, to LIMIT */
    READ_ONLY = 0x58 | 3,
    EXPAND_DOWN = 0x60 | 3,
    DATA16 = 0x68 | 3,
    FAR_BASE = 0x70 | 3, /* its addresses wrap at 4 GiB */
    GDT_BYTES = 0x78,
    CODE_AT = CODE + 0x10, /* the base of CODE_LIMITED and CODE16: not a page's start */
};

const char *block_mode_name(enum block_mode mode)
{
    static const char *const names[BLOCK_MODES] = {"flat",    "pae",  "not flat", "compatibility",
                                                   "16 bits", "real", "v86"};
    return names[mode];
}

/* --- tables ------------------------------------------------------------------------------- */

static void put64(uint8_t *rom, unsigned gpa, uint64_t value)
{
    memcpy(rom + gpa, &value, sizeof(value));
}

static unsigned put_end(uint8_t *at, enum block_end end)
{
    if (end == BLOCK_HALTS) {
        at[0] = 0xf4;
        return 1;
    }
    at[0] = 0xe6; /* OUT imm8, AL */
    at[1] = BLOCK_END_PORT;
    return 2;
}

static uint64_t descriptor(uint64_t base, uint32_t limit, uint32_t attributes)
{
    uint64_t high =
        (base >> 16 & 0xff) | (uint64_t)attributes << 8 | (limit & 0xf0000) | (base & 0xff000000);
    return (limit & 0xffff) | (base & 0xffff) << 16 | high << 32;
}

static void make_gdt(uint8_t *rom, bool is_long)
{
    const struct {
        unsigned selector;
        uint64_t raw;
    } gdt[] = {
        {KERNEL_CS32, descriptor(0, 0xfffff, 0xc09b)},
        {KERNEL_SS, descriptor(0, 0xfffff, 0xc093)},
        {USER_CS32, descriptor(0, 0xfffff, 0xc0fb)},
        {USER_SS, descriptor(0, 0xfffff, 0xc0f3)},
        {KERNEL_CS, descriptor(0, 0xfffff, 0xa09b)},
        {TSS_SELECTOR, descriptor(TSS, 0x67, 0x8b)},
        {CODE_LIMITED, descriptor(CODE_AT, 0x1f00, 0x409b)},
        {CODE16, descriptor(CODE_AT, 0x1f00, 0x009b)},
        {BASED, descriptor(SCRATCH, LIMIT, 0x40f3)},
        {READ_ONLY, descriptor(SCRATCH, LIMIT, 0x40f1)},
        {EXPAND_DOWN, descriptor(SCRATCH, 0x7ff, 0x40f7)},
        {DATA16, descriptor(SCRATCH, LIMIT, 0x00f3)},
        {FAR_BASE, descriptor(0xfffff000, 0xfffff, 0xc0f3)},
    };
    memset(rom + GDT, 0, GDT_BYTES + 8);
    for (unsigned i = 0; i < sizeof(gdt) / sizeof(gdt[0]); i++)
        put64(rom, GDT + (gdt[i].selector & ~7u), gdt[i].raw);
    put64(rom, TSS + 4, is_long ? STACK0 : STACK0 | (uint64_t)KERNEL_SS << 32);
    if (is_long) /* the upper half of the TSS's */
        put64(rom, GDT + TSS_SELECTOR + 8, 0);
}

static void make_vectors(uint8_t *rom, bool is_long, enum block_end end)
{
    for (unsigned vector = 0; vector < 256; vector++) {
        uint64_t handler = HANDLERS + vector * 16;
        uint64_t gate = (handler & 0xffff) | UINT64_C(0x8e00) << 32;
        uint32_t real = (uint32_t)handler;
        if (is_long) {
            put64(rom, IDT + vector * 16, gate | KERNEL_CS << 16);
            put64(rom, IDT + vector * 16 + 8, 0);
        } else {
            put64(rom, IDT + vector * 8, gate | KERNEL_CS32 << 16);
        }
        memcpy(rom + IVT + vector * 4, &real, 4);
        put_end(rom + handler, end);
    }
}

static void make_page_tables(uint8_t *rom)
{
    enum { ALL = 0x67, LARGE = 0x80 };
    const uint32_t large32 = ALL | LARGE;
    put64(rom, PML4, PDPT | ALL);
    put64(rom, PDPT, PD | ALL);
    put64(rom, PDPT + 0x800, PD | 1); /* as PDPTEs of PAE paging have it */
    put64(rom, PD, ALL | LARGE);
    memcpy(rom + PD32, &large32, 4);
}

void block_make_tables(uint8_t *rom, bool is_long, enum block_end end)
{
    make_gdt(rom, is_long);
    make_vectors(rom, is_long, end);
    make_page_tables(rom);
}

/* --- states ------------------------------------------------------------------------------- */

static void load(struct x86_state *state, enum x86_segment_name name, unsigned selector)
{
    static const struct {
        unsigned selector;
        struct x86_segment segment;
    } known[] = {
        {KERNEL_CS32, {0, UINT32_MAX, 0xc09b, KERNEL_CS32}},
        {KERNEL_SS, {0, UINT32_MAX, 0xc093, KERNEL_SS}},
        {USER_CS32, {0, UINT32_MAX, 0xc0fb, USER_CS32}},
        {USER_SS, {0, UINT32_MAX, 0xc0f3, USER_SS}},
        {CODE_LIMITED, {CODE_AT, 0x1f00, 0x409b, CODE_LIMITED}},
        {CODE16, {CODE_AT, 0x1f00, 0x009b, CODE16}},
        {BASED, {SCRATCH, LIMIT, 0x40f3, BASED}},
        {READ_ONLY, {SCRATCH, LIMIT, 0x40f1, READ_ONLY}},
        {EXPAND_DOWN, {SCRATCH, 0x7ff, 0x40f7, EXPAND_DOWN}},
        {DATA16, {SCRATCH, LIMIT, 0x00f3, DATA16}},
        {FAR_BASE, {0xfffff000, UINT32_MAX, 0xc0f3, FAR_BASE}},
    };
    for (unsigned i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (known[i].selector == selector)
            state->segment[name] = known[i].segment;
}

static unsigned any_data(struct random *random)
{
    static const uint8_t selectors[] = {USER_SS,     BASED,  BASED,   READ_ONLY,
                                        EXPAND_DOWN, DATA16, FAR_BASE};
    return selectors[random_below(random, sizeof(selectors))];
}

/* A stack at level 0: the descriptors above are of level 3. */
static void load_stack(struct random *random, struct x86_state *state)
{
    struct x86_segment *ss = &state->segment[SEG_SS];
    load(state, SEG_SS, random_chance(random, 50) ? BASED : DATA16);
    ss->attributes &= ~(3u << SEGMENT_DPL_SHIFT);
}

static void common_state(struct x86_state *state, bool is_user)
{
    x86_state_reset(state, true);
    load(state, SEG_CS, is_user ? USER_CS32 : KERNEL_CS32);
    for (unsigned i = SEG_ES; i <= SEG_GS; i++)
        if (i != SEG_CS)
            load(state, i, is_user ? USER_SS : KERNEL_SS);
    state->segment[SEG_TR] = (struct x86_segment){TSS, 0x67, 0x8b, TSS_SELECTOR};
    state->segment[SEG_LDTR] = (struct x86_segment){.attributes = SEGMENT_UNUSABLE};
    state->gdtr = (struct x86_table){GDT, GDT_BYTES - 1};
    state->idtr = (struct x86_table){IDT, 0xfff};
    state->cr0 = CR0_NE | CR0_ET | CR0_PE | CR0_MP;
    state->cr4 = CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
    state->rip = CODE;
}

/* Real-mode segments around scratch memory, and CS at the code, not at a page's start. */
static void real_state(struct random *random, struct x86_state *state, bool is_v86)
{
    const uint32_t attributes = is_v86 ? 0xf3 : 0x93;
    for (unsigned i = SEG_ES; i <= SEG_GS; i++) {
        uint16_t selector =
            (uint16_t)(i == SEG_CS ? CODE_AT >> 4 : (SCRATCH >> 4) + random_below(random, 64));
        state->segment[i] =
            (struct x86_segment){(uint64_t)selector << 4, UINT16_MAX, attributes, selector};
    }
    state->rip = CODE - CODE_AT + 0x10;
    if (is_v86) {
        state->rflags |= RFLAGS_VM | (random_chance(random, 50) ? RFLAGS_IOPL : 0);
    } else {
        state->cr0 &= ~CR0_PE;
        state->idtr = (struct x86_table){IVT, 0x3ff};
    }
}

static void mode_state(struct random *random, enum block_mode mode, struct x86_state *state)
{
    common_state(state, mode == PAE_USER || mode == V86 ||
                            (mode == COMPATIBLE && random_chance(random, 70)));
    switch (mode) {
    case FLAT:
        if (random_chance(random, 50)) {
            state->cr0 |= CR0_PG | CR0_WP;
            state->cr3 = PD32;
            state->cr4 |= CR4_PSE;
        }
        break;
    case PAE_USER:
        state->cr0 |= CR0_PG | CR0_WP;
        state->cr3 = PDPT + 0x800;
        state->cr4 |= CR4_PAE;
        break;
    case COMPATIBLE:
        state->cr0 |= CR0_PG | CR0_WP;
        state->cr3 = PML4;
        state->cr4 |= CR4_PAE;
        state->efer = EFER_LME | EFER_LMA | EFER_NXE | EFER_SCE;
        break;
    case NOT_FLAT:
    case PROTECTED16:
        load(state, SEG_CS, mode == NOT_FLAT ? CODE_LIMITED : CODE16);
        load(state, SEG_DS, any_data(random));
        load(state, SEG_ES, any_data(random));
        load_stack(random, state);
        state->rip = 0;
        break;
    case REAL:
    case V86: real_state(random, state, mode == V86); break;
    default: break;
    }
    if (mode != REAL && mode != V86 && random_chance(random, 70)) {
        load(state, SEG_FS, any_data(random));
        load(state, SEG_GS, any_data(random));
    }
}

/* Whether offsets begin at scratch memory. */
static bool is_based(enum block_mode mode)
{
    return mode == NOT_FLAT || mode >= PROTECTED16;
}

/* An offset into scratch memory or somewhat beside it. */
static uint32_t target(struct random *random, enum block_mode mode)
{
    uint32_t offset = random_below(random, SCRATCH_BYTES);
    if (random_chance(random, 20)) /* around a page's end */
        offset = 0xff8 + 0x1000 * random_below(random, 4) + random_below(random, 16);
    if (random_chance(random, 5))
        offset = random_below(random, SCRATCH_BYTES + 0x200) - 0x100;
    return offset + (is_based(mode) ? 0 : SCRATCH);
}

/* --- programs ----------------------------------------------------------------------------- */

static bool is_16bit(enum block_mode mode)
{
    return mode >= PROTECTED16;
}

static void put(struct random_block *block, const void *bytes, unsigned length)
{
    memcpy(block->bytes + block->length, bytes, length);
    block->length += length;
}

static void put_mov(struct random_block *block, unsigned reg, uint32_t value)
{
    uint8_t bytes[6] = {0x66, (uint8_t)(0xb8 | reg)};
    memcpy(bytes + 2, &value, 4);
    bool is_prefixed = is_16bit(block->mode);
    put(block, bytes + !is_prefixed, 5 + is_prefixed);
}

static uint32_t decoder_mode(enum block_mode mode)
{
    return is_16bit(mode) ? MODE_16 : MODE_32 | MODE_STACK32;
}

/* What would go on elsewhere, take forever, or give another answer each time. */
static bool is_wanted(const ZydisDecodedInstruction *info)
{
    switch (info->meta.category) {
    case ZYDIS_CATEGORY_CALL:
    case ZYDIS_CATEGORY_COND_BR:
    case ZYDIS_CATEGORY_UNCOND_BR:
    case ZYDIS_CATEGORY_RET:
    case ZYDIS_CATEGORY_SYSCALL:
    case ZYDIS_CATEGORY_SYSRET:
    case ZYDIS_CATEGORY_IO:
    case ZYDIS_CATEGORY_IOSTRINGOP: return false;
    case ZYDIS_CATEGORY_STRINGOP:
        return !(info->attributes &
                 (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE));
    default: break;
    }
    switch (info->mnemonic) {
    case ZYDIS_MNEMONIC_RDRAND:
    case ZYDIS_MNEMONIC_RDSEED:
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP:
    case ZYDIS_MNEMONIC_CPUID:
    case ZYDIS_MNEMONIC_VMCALL:
    case ZYDIS_MNEMONIC_VMMCALL:
    case ZYDIS_MNEMONIC_POPF: /* TF */
    case ZYDIS_MNEMONIC_POPFD: return false;
    case ZYDIS_MNEMONIC_CLI:
    case ZYDIS_MNEMONIC_STI:
    case ZYDIS_MNEMONIC_CLTS: return true;
    default: return !(info->attributes & ZYDIS_ATTRIB_IS_PRIVILEGED);
    }
}

/* Flags that are undefined, x87 pointers in memory, areas that are written or read by parts. */
static bool is_open(const ZydisDecodedInstruction *info)
{
    bool pushes_segment = info->mnemonic == ZYDIS_MNEMONIC_PUSH &&
                          info->meta.isa_set == ZYDIS_ISA_SET_I86 &&
                          (info->opcode < 0x40 || info->opcode_map == ZYDIS_OPCODE_MAP_0F);
    if (pushes_segment) /* two bytes or all of the operand */
        return true;
    switch (info->mnemonic) {
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_XSAVE:
    case ZYDIS_MNEMONIC_XSAVEC:
    case ZYDIS_MNEMONIC_XSAVEOPT:
    case ZYDIS_MNEMONIC_PUSHA:
    case ZYDIS_MNEMONIC_PUSHAD:
    case ZYDIS_MNEMONIC_POPA:
    case ZYDIS_MNEMONIC_POPAD:
    case ZYDIS_MNEMONIC_ENTER: return true;
    default: return info->meta.category == ZYDIS_CATEGORY_DECIMAL || is_masked_store(info);
    }
}

static unsigned random_encoding(struct random *random, uint8_t *bytes)
{
    static const uint8_t prefixes[] = {0x66, 0x66, 0x67, 0x67, 0x64, 0x65, 0x26,
                                       0x2e, 0x36, 0x3e, 0xf0, 0xf2, 0xf3};
    unsigned length = 0, kind = random_below(random, 20);
    while (random_chance(random, 30) && length < 3)
        bytes[length++] = prefixes[random_below(random, sizeof(prefixes))];
    if (kind < 5) {
        bytes[length++] = 0x0f;
        if (kind == 0)
            bytes[length++] = random_chance(random, 50) ? 0x38 : 0x3a;
    } else if (kind < 7) {
        bytes[length++] = 0xc4;
        bytes[length++] = (uint8_t)(0xc1 | (random_next(random) & 0x22));
        bytes[length++] = (uint8_t)random_next(random);
    } else if (kind == 7) {
        bytes[length++] = (uint8_t)(0xd8 | random_below(random, 8));
        bytes[length++] = (uint8_t)random_next(random);
    }
    for (unsigned i = 0; i < 10; i++)
        bytes[length++] = (uint8_t)random_next(random);
    return length;
}

/* Displacements of full size are such that the operand is in or near scratch memory, with registers
 * added as they are now. */
static void aim(struct random *random, const ZydisDecodedInstruction *info,
                const ZydisDecodedOperand *operands, struct random_block *block, uint8_t *bytes)
{
    for (unsigned i = 0; i < info->operand_count; i++) {
        const ZydisDecodedOperand *operand = &operands[i];
        if (operand->type != ZYDIS_OPERAND_TYPE_MEMORY || info->raw.disp.size < 16)
            continue;
        uint32_t disp = target(random, block->mode);
        const ZydisRegister part[2] = {operand->mem.base, operand->mem.index};
        const uint32_t scale[2] = {1, operand->mem.scale ? operand->mem.scale : 1};
        for (unsigned k = 0; k < 2; k++) {
            int reg = ZydisRegisterGetId(part[k]);
            if (part[k] == ZYDIS_REGISTER_NONE || reg < 0 || reg > 7 || reg == RSP)
                continue;
            uint32_t value = (uint32_t)random_next(random);
            put_mov(block, (unsigned)reg, value);
            disp -= value * scale[k];
        }
        memcpy(bytes + info->raw.disp.offset, &disp, info->raw.disp.size / 8);
        return;
    }
    /* Registers only, and a short distance: one of them is aimed. */
    for (unsigned i = 0; i < info->operand_count; i++) {
        int reg = ZydisRegisterGetId(operands[i].mem.base);
        bool is_aimed = operands[i].type == ZYDIS_OPERAND_TYPE_MEMORY &&
                        operands[i].mem.base != ZYDIS_REGISTER_NONE && reg < 8 && reg != RSP &&
                        random_chance(random, 70);
        if (is_aimed)
            put_mov(block, (unsigned)reg, target(random, block->mode));
        int index = ZydisRegisterGetId(operands[i].mem.index);
        if (is_aimed && operands[i].mem.index != ZYDIS_REGISTER_NONE && index != reg)
            put_mov(block, (unsigned)index, random_below(random, 64) - 32);
    }
}

static void add_instruction(struct random *random, struct random_block *block)
{
    ZydisDecoder decoder;
    decoder_init(&decoder, decoder_mode(block->mode));
    for (;;) {
        uint8_t bytes[32];
        ZydisDecodedInstruction info;
        ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
        unsigned length = random_encoding(random, bytes);
        if (length > ZYDIS_MAX_INSTRUCTION_LENGTH)
            length = ZYDIS_MAX_INSTRUCTION_LENGTH;
        if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, bytes, length, &info, operands)) ||
            !is_wanted(&info))
            continue;
        aim(random, &info, operands, block, bytes);
        block->is_open |= is_open(&info);
        put(block, bytes, info.length);
        return;
    }
}

/* Pushes or pops of registers, of either size. */
static void add_stack(struct random *random, struct random_block *block)
{
    put_mov(block, RSP, target(random, block->mode));
    uint8_t opcode = random_chance(random, 50) ? 0x50 : 0x58;
    bool is_other_size = random_chance(random, 30);
    for (unsigned count = 1 + random_below(random, 9); count > 0; count--) {
        uint8_t bytes[2] = {0x66, (uint8_t)(opcode | random_below(random, 8))};
        if (bytes[1] == 0x5c) /* POP ESP would go anywhere */
            bytes[1] = 0x58;
        put(block, bytes + !is_other_size, 1u + is_other_size);
    }
}

/* A segment register gets another selector, or one that may not be loaded. */
static void add_segment(struct random *random, struct random_block *block)
{
    static const uint8_t registers[] = {SEG_ES, SEG_DS, SEG_FS, SEG_GS};
    unsigned reg = registers[random_below(random, 4)];
    uint32_t selector = any_data(random);
    if (block->mode == REAL || block->mode == V86)
        selector = (SCRATCH >> 4) + random_below(random, 0x100);
    else if (random_chance(random, 10))
        selector = random_below(random, GDT_BYTES + 8);
    put_mov(block, RAX, selector);
    uint8_t mov[2] = {0x8e, (uint8_t)(0xc0 | reg << 3)};
    put(block, mov, sizeof(mov));
}

/* REP MOVS or STOS, of a few elements. */
static void add_string(struct random *random, struct random_block *block)
{
    static const uint8_t opcodes[] = {0xa4, 0xa5, 0xaa, 0xab, 0xa6, 0xae};
    put_mov(block, RSI, target(random, block->mode));
    put_mov(block, RDI, target(random, block->mode));
    put_mov(block, RCX, random_below(random, random_chance(random, 20) ? 3000 : 40));
    uint8_t rep[2] = {0xf3, opcodes[random_below(random, sizeof(opcodes))]};
    if (random_chance(random, 10))
        put(block, "\x67", 1);
    put(block, rep, sizeof(rep));
}

/* Where code of this offset in the program stands. */
static uint32_t rip_of(const struct random_block *block, unsigned offset)
{
    return (uint32_t)block->rip + offset;
}

/* A jump, call or return to what comes next or a bit later; gives the place of its distance. */
static uint8_t *add_branch(struct random *random, struct random_block *block)
{
    static const uint8_t short_jumps[] = {0xeb, 0xe0, 0xe1, 0xe2, 0xe3};
    unsigned kind = random_below(random, 10), size = is_16bit(block->mode) ? 2 : 4;
    if (kind < 7) {
        uint8_t jump[2] = {(uint8_t)(0x70 | random_below(random, 16))};
        if (kind == 6)
            jump[0] = short_jumps[random_below(random, sizeof(short_jumps))];
        if (random_chance(random, 5))
            put(block, "\x66", 1);
        put(block, jump, sizeof(jump));
        return &block->bytes[block->length - 1];
    }
    put_mov(block, RSP, target(random, block->mode));
    if (kind == 7) { /* CALL to the next instruction */
        uint8_t call[5] = {0xe8};
        put(block, call, 1 + size);
    } else if (kind == 8) { /* CALL of a register, to the next instruction */
        unsigned length = size == 2 ? 8 : 7;
        put_mov(block, RBX, rip_of(block, block->length + length));
        put(block, "\xff\xd3", 2);
    } else { /* PUSH and RET */
        uint32_t next = rip_of(block, block->length + 1 + size + 1);
        put(block, "\x68", 1);
        put(block, &next, size);
        put(block, "\xc3", 1);
    }
    return NULL;
}

static void make_program(struct random *random, enum block_mode mode, uint64_t rip,
                         enum block_end end, struct random_block *block)
{
    *block = (struct random_block){.mode = mode, .rip = rip};
    unsigned parts = 1 + random_below(random, MAX_PARTS);
    for (unsigned i = 0; i < parts; i++) {
        uint8_t *distance = random_chance(random, 30) ? add_branch(random, block) : NULL;
        unsigned kind = random_below(random, 20);
        if (kind == 0)
            add_segment(random, block);
        else if (kind == 1)
            add_string(random, block);
        else if (kind < 5)
            add_stack(random, block);
        else
            add_instruction(random, block);
        unsigned length = distance ? (unsigned)(block->bytes + block->length - distance - 1) : 0;
        if (distance)
            *distance = (uint8_t)(length < 128 ? length : 0);
    }
    block->length += put_end(block->bytes + block->length, end);
}

static void fill_registers(struct random *random, enum block_mode mode, struct x86_state *state)
{
    struct isa_state random_values;
    random_state(random, ISA_64, &random_values);
    for (unsigned i = 0; i < 8; i++)
        state->gpr[i] =
            random_chance(random, 60) ? target(random, mode) : (uint32_t)random_values.gpr[i];
    state->gpr[RSP] = target(random, mode);
    state->rflags |= random_values.rflags & (RFLAGS_ARITHMETIC | RFLAGS_DF);
    static const uint64_t components = 7;
    state->xcr0 = 7;
    memcpy(state->xsave, random_values.fx, 160);
    memcpy(state->xsave + 512, &components, sizeof(components));
    for (unsigned n = 0; n < 8; n++) {
        memcpy(state->xsave + 160 + n * 16, random_values.vector[n], 16);
        memcpy(state->xsave + 576 + n * 16, random_values.vector[n] + 16, 16);
    }
}

void block_make(struct random *random, enum block_mode mode, enum block_end end,
                struct x86_state *state, struct random_block *block)
{
    mode_state(random, mode, state);
    fill_registers(random, mode, state);
    if (random_chance(random, 20)) /* over a page's end */
        state->rip += 0xf80 + random_below(random, 0x70);
    make_program(random, mode, state->rip, end, block);
}

unsigned block_gpa(const struct random_block *block, const struct x86_state *state)
{
    bool is_flat = block->mode == FLAT || block->mode == PAE_USER || block->mode == COMPATIBLE;
    return (unsigned)(state->rip + (is_flat ? 0 : state->segment[SEG_CS].base));
}

int block_vector(const struct x86_state *state, enum block_end end)
{
    uint64_t at = state->rip - (end == BLOCK_HALTS ? 1 : 2) - HANDLERS;
    bool is_handler = at < 256 * 16 && at % 16 == 0 && state->segment[SEG_CS].base == 0;
    return is_handler ? (int)(at / 16) : -1;
}

bool block_decode(const struct random_block *block, unsigned at, ZydisDecodedInstruction *info,
                  ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT])
{
    ZydisDecoder decoder;
    decoder_init(&decoder, decoder_mode(block->mode));
    return ZYAN_SUCCESS(
        ZydisDecoderDecodeFull(&decoder, block->bytes + at, block->length - at, info, operands));
}

void block_print(const struct random_block *block)
{
    ZydisFormatter formatter;
    ZydisDecodedInstruction info;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
    for (unsigned at = 0; block_decode(block, at, &info, operands); at += info.length) {
        char text[128];
        ZydisFormatterFormatInstruction(&formatter, &info, operands, info.operand_count_visible,
                                        text, sizeof(text), block->rip + at, NULL);
        printf("    %4x  %s\n", rip_of(block, at), text);
    }
}

void block_run_cases(int argc, char **argv, uint64_t default_cases, block_case_fn *run, void *test)
{
    uint64_t cases = argc > 1 ? strtoull(argv[1], NULL, 0) : default_cases;
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : UINT64_C(0x2545f4914f6cdd1d);
    struct random random = {.state = seed};
    for (uint64_t i = 0; i < cases; i++) {
        uint64_t of_case = i == 0 ? seed : random_next(&random) | 1;
        unsigned long mode = argc > 3 ? strtoul(argv[3], NULL, 0) : i % BLOCK_MODES;
        isa_tell_progress(i + 1, run(test, (enum block_mode)mode, of_case));
    }
}
