/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Blocks of random instructions outside of 64-bit mode, translated and interpreted: flat 32-bit
 * code with and without paging, segments with bases and limits, compatibility mode, 16-bit
 * protected mode, real and virtual-8086 mode. Every register, segment, fault and byte of memory has
 * to be the same, wherever the block stops.
 *
 *     test-isa-translator-modes [CASES [SEED [MODE]]]
 *
 * The reference is the interpreter, which isa-engines and isa-random compare with processors. Code,
 * tables and handlers are in ROM, so that what random code writes keeps the run short: each block
 * goes forward only, and ends in HLT, by its own or by the handler of what it has raised.
 */
#include "cpu/soft/block.h"
#include "cpu/soft/core.h"
#include "cpu/soft/translator/check.h"
#include "isa/generate.h"

#include <assert.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>

/* Physical memory, mapped one to one where there is paging. */
enum {
    IVT = 0,
    GDT = 0x1000,
    TSS = 0x1800,
    IDT = 0x2000,
    HANDLERS = 0x4000, /* 16 bytes a vector: HLT */
    PML4 = 0x5000,
    PDPT = 0x6000,
    PD = 0x7000,   /* of 8-byte entries */
    PD32 = 0x8000, /* of 4-byte entries */
    CODE = 0xa000, /* two pages */
    ROM_BYTES = 0x10000,
    SCRATCH = ROM_BYTES,
    SCRATCH_BYTES = 0x4000,
    STACK0 = SCRATCH + 0x7ff0, /* of level 0 */
    RAM_BYTES = 0x8000,
    LIMIT = 0x3fff,
};

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

enum mode { FLAT, PAE_USER, NOT_FLAT, COMPATIBLE, PROTECTED16, REAL, V86, MODES };
static const char *const mode_names[MODES] = {"flat",    "pae",  "not flat", "compatibility",
                                              "16 bits", "real", "v86"};

enum processor { INTERPRETER, EXACT, FAST, FAST_AGAIN, HOT, CHECKED, PROCESSORS };
static const char *const names[PROCESSORS] = {"interpreter", "exact",      "fast",
                                              "linked",      "superblock", "checked"};
enum { DEFAULT_CASES = 20000, MAX_DIFFERENCES = 5, HOT_RUNS = 6, MAX_PARTS = 8, MAX_BYTES = 1024 };

struct machine {
    struct soft_system system;
    struct cpu *cpu;
    uint8_t *rom, *ram;
};

struct program {
    uint8_t bytes[MAX_BYTES];
    unsigned length;
    enum mode mode;
    uint64_t rip;
};

struct result {
    struct x86_state state;
    enum cpu_exit exit;
    uint8_t memory[RAM_BYTES];
};

/* --- the machine -------------------------------------------------------------------------- */

static uint64_t mmio_read(void *opaque, uint64_t gpa, unsigned size_bytes)
{
    return gpa * UINT64_C(0x9e3779b97f4a7c15) >> 17;
}

static void mmio_write(void *opaque, uint64_t gpa, uint64_t value, unsigned size_bytes) {}

static uint64_t port_read(void *opaque, uint16_t port, unsigned size_bytes)
{
    return port;
}

static void port_write(void *opaque, uint16_t port, uint64_t value, unsigned size_bytes) {}

static bool read_msr(void *opaque, unsigned vcpu, uint32_t msr, uint64_t *value)
{
    return false;
}

static bool write_msr(void *opaque, unsigned vcpu, uint32_t msr, uint64_t value)
{
    return false;
}

static void write_cr8(void *opaque, unsigned vcpu, uint64_t value) {}

static void tsc_changed(void *opaque, unsigned vcpu) {}

static int no_interrupt(void *opaque, unsigned vcpu)
{
    return -1;
}

static uint64_t no_cr8(void *opaque, unsigned vcpu)
{
    return 0;
}

static void put64(struct machine *machine, unsigned gpa, uint64_t value)
{
    memcpy(machine->rom + gpa, &value, sizeof(value));
}

static uint64_t descriptor(uint64_t base, uint32_t limit, uint32_t attributes)
{
    uint64_t high =
        (base >> 16 & 0xff) | (uint64_t)attributes << 8 | (limit & 0xf0000) | (base & 0xff000000);
    return (limit & 0xffff) | (base & 0xffff) << 16 | high << 32;
}

static void make_gdt(struct machine *machine, bool is_long)
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
    memset(machine->rom + GDT, 0, GDT_BYTES + 8);
    for (unsigned i = 0; i < sizeof(gdt) / sizeof(gdt[0]); i++)
        put64(machine, GDT + (gdt[i].selector & ~7u), gdt[i].raw);
    put64(machine, TSS + 4, is_long ? STACK0 : STACK0 | (uint64_t)KERNEL_SS << 32);
    if (is_long) /* the upper half of the TSS's */
        put64(machine, GDT + TSS_SELECTOR + 8, 0);
    for (unsigned vector = 0; vector < 256; vector++) {
        uint64_t handler = HANDLERS + vector * 16;
        uint64_t gate = (handler & 0xffff) | UINT64_C(0x8e00) << 32;
        uint32_t real = (uint32_t)handler;
        if (is_long) {
            put64(machine, IDT + vector * 16, gate | KERNEL_CS << 16);
            put64(machine, IDT + vector * 16 + 8, 0);
        } else {
            put64(machine, IDT + vector * 8, gate | KERNEL_CS32 << 16);
        }
        memcpy(machine->rom + IVT + vector * 4, &real, 4);
        machine->rom[handler] = 0xf4; /* HLT */
    }
    soft_written(&machine->system, 0, CODE);
}

static void make_page_tables(struct machine *machine)
{
    enum { ALL = 0x67, LARGE = 0x80 };
    const uint32_t large32 = ALL | LARGE;
    put64(machine, PML4, PDPT | ALL);
    put64(machine, PDPT, PD | ALL);
    put64(machine, PDPT + 0x800, PD | 1); /* as PDPTEs of PAE paging have it */
    put64(machine, PD, ALL | LARGE);
    memcpy(machine->rom + PD32, &large32, 4);
}

static struct machine *open_machine(struct translator_options translator)
{
    struct machine *machine = calloc(1, sizeof(*machine));
    assert(machine);
    uint8_t *memory = mmap(NULL, ROM_BYTES + RAM_BYTES, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert(memory != MAP_FAILED);
    machine->rom = memory;
    machine->ram = memory + ROM_BYTES;
    soft_system_open(&machine->system);
    machine->system.translator = translator;
    machine->system.callbacks = (struct soft_callbacks){
        .port_read = port_read,
        .port_write = port_write,
        .mmio_read = mmio_read,
        .mmio_write = mmio_write,
        .acknowledge = no_interrupt,
        .read_cr8 = no_cr8,
        .write_cr8 = write_cr8,
        .read_msr = read_msr,
        .write_msr = write_msr,
        .tsc_changed = tsc_changed,
    };
    bool ok = soft_region_add(&machine->system, 0, machine->rom, ROM_BYTES, true) &&
              soft_region_add(&machine->system, ROM_BYTES, machine->ram, RAM_BYTES, false);
    assert(ok);
    machine->cpu = cpu_create(&machine->system, 0, NULL);
    assert(machine->cpu);
    make_page_tables(machine);
    return machine;
}

static void close_machine(struct machine *machine)
{
    cpu_destroy(machine->cpu);
    soft_system_close(&machine->system);
    munmap(machine->rom, ROM_BYTES + RAM_BYTES);
    free(machine);
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

static void mode_state(struct random *random, enum mode mode, struct x86_state *state)
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
static bool is_based(enum mode mode)
{
    return mode == NOT_FLAT || mode >= PROTECTED16;
}

/* An offset into scratch memory or somewhat beside it. */
static uint32_t target(struct random *random, enum mode mode)
{
    uint32_t offset = random_below(random, SCRATCH_BYTES);
    if (random_chance(random, 20)) /* around a page's end */
        offset = 0xff8 + 0x1000 * random_below(random, 4) + random_below(random, 16);
    if (random_chance(random, 5))
        offset = random_below(random, SCRATCH_BYTES + 0x200) - 0x100;
    return offset + (is_based(mode) ? 0 : SCRATCH);
}

/* --- programs ----------------------------------------------------------------------------- */

static bool is_16bit(enum mode mode)
{
    return mode >= PROTECTED16;
}

static void put(struct program *program, const void *bytes, unsigned length)
{
    memcpy(program->bytes + program->length, bytes, length);
    program->length += length;
}

static void put_mov(struct program *program, unsigned reg, uint32_t value)
{
    uint8_t bytes[6] = {0x66, (uint8_t)(0xb8 | reg)};
    memcpy(bytes + 2, &value, 4);
    bool is_prefixed = is_16bit(program->mode);
    put(program, bytes + !is_prefixed, 5 + is_prefixed);
}

static uint32_t decoder_mode(enum mode mode)
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
                const ZydisDecodedOperand *operands, struct program *program, uint8_t *bytes)
{
    for (unsigned i = 0; i < info->operand_count; i++) {
        const ZydisDecodedOperand *operand = &operands[i];
        if (operand->type != ZYDIS_OPERAND_TYPE_MEMORY || info->raw.disp.size < 16)
            continue;
        uint32_t disp = target(random, program->mode);
        const ZydisRegister part[2] = {operand->mem.base, operand->mem.index};
        const uint32_t scale[2] = {1, operand->mem.scale ? operand->mem.scale : 1};
        for (unsigned k = 0; k < 2; k++) {
            int reg = ZydisRegisterGetId(part[k]);
            if (part[k] == ZYDIS_REGISTER_NONE || reg < 0 || reg > 7 || reg == RSP)
                continue;
            uint32_t value = (uint32_t)random_next(random);
            put_mov(program, (unsigned)reg, value);
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
            put_mov(program, (unsigned)reg, target(random, program->mode));
        int index = ZydisRegisterGetId(operands[i].mem.index);
        if (is_aimed && operands[i].mem.index != ZYDIS_REGISTER_NONE && index != reg)
            put_mov(program, (unsigned)index, random_below(random, 64) - 32);
    }
}

static void add_instruction(struct random *random, struct program *program)
{
    ZydisDecoder decoder;
    decoder_init(&decoder, decoder_mode(program->mode));
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
        aim(random, &info, operands, program, bytes);
        put(program, bytes, info.length);
        return;
    }
}

/* Pushes or pops of registers, of either size. */
static void add_stack(struct random *random, struct program *program)
{
    put_mov(program, RSP, target(random, program->mode));
    uint8_t opcode = random_chance(random, 50) ? 0x50 : 0x58;
    bool is_other_size = random_chance(random, 30);
    for (unsigned count = 1 + random_below(random, 9); count > 0; count--) {
        uint8_t bytes[2] = {0x66, (uint8_t)(opcode | random_below(random, 8))};
        if (bytes[1] == 0x5c) /* POP ESP would go anywhere */
            bytes[1] = 0x58;
        put(program, bytes + !is_other_size, 1u + is_other_size);
    }
}

/* A segment register gets another selector, or one that may not be loaded. */
static void add_segment(struct random *random, struct program *program)
{
    static const uint8_t registers[] = {SEG_ES, SEG_DS, SEG_FS, SEG_GS};
    unsigned reg = registers[random_below(random, 4)];
    uint32_t selector = any_data(random);
    if (program->mode == REAL || program->mode == V86)
        selector = (SCRATCH >> 4) + random_below(random, 0x100);
    else if (random_chance(random, 10))
        selector = random_below(random, GDT_BYTES + 8);
    put_mov(program, RAX, selector);
    uint8_t mov[2] = {0x8e, (uint8_t)(0xc0 | reg << 3)};
    put(program, mov, sizeof(mov));
}

/* REP MOVS or STOS, of a few elements. */
static void add_string(struct random *random, struct program *program)
{
    static const uint8_t opcodes[] = {0xa4, 0xa5, 0xaa, 0xab, 0xa6, 0xae};
    put_mov(program, RSI, target(random, program->mode));
    put_mov(program, RDI, target(random, program->mode));
    put_mov(program, RCX, random_below(random, random_chance(random, 20) ? 3000 : 40));
    uint8_t rep[2] = {0xf3, opcodes[random_below(random, sizeof(opcodes))]};
    if (random_chance(random, 10))
        put(program, "\x67", 1);
    put(program, rep, sizeof(rep));
}

/* Where code of this offset in the program stands. */
static uint32_t rip_of(const struct program *program, unsigned offset)
{
    return (uint32_t)program->rip + offset;
}

/* A jump, call or return to what comes next or a bit later; gives the place of its distance. */
static uint8_t *add_branch(struct random *random, struct program *program)
{
    static const uint8_t short_jumps[] = {0xeb, 0xe0, 0xe1, 0xe2, 0xe3};
    unsigned kind = random_below(random, 10), size = is_16bit(program->mode) ? 2 : 4;
    if (kind < 7) {
        uint8_t jump[2] = {(uint8_t)(0x70 | random_below(random, 16))};
        if (kind == 6)
            jump[0] = short_jumps[random_below(random, sizeof(short_jumps))];
        if (random_chance(random, 5))
            put(program, "\x66", 1);
        put(program, jump, sizeof(jump));
        return &program->bytes[program->length - 1];
    }
    put_mov(program, RSP, target(random, program->mode));
    if (kind == 7) { /* CALL to the next instruction */
        uint8_t call[5] = {0xe8};
        put(program, call, 1 + size);
    } else if (kind == 8) { /* CALL of a register, to the next instruction */
        unsigned length = size == 2 ? 8 : 7;
        put_mov(program, RBX, rip_of(program, program->length + length));
        put(program, "\xff\xd3", 2);
    } else { /* PUSH and RET */
        uint32_t next = rip_of(program, program->length + 1 + size + 1);
        put(program, "\x68", 1);
        put(program, &next, size);
        put(program, "\xc3", 1);
    }
    return NULL;
}

static void make_program(struct random *random, enum mode mode, uint64_t rip,
                         struct program *program)
{
    *program = (struct program){.mode = mode, .rip = rip};
    unsigned parts = 1 + random_below(random, MAX_PARTS);
    for (unsigned i = 0; i < parts; i++) {
        uint8_t *distance = random_chance(random, 30) ? add_branch(random, program) : NULL;
        unsigned kind = random_below(random, 20);
        if (kind == 0)
            add_segment(random, program);
        else if (kind == 1)
            add_string(random, program);
        else if (kind < 5)
            add_stack(random, program);
        else
            add_instruction(random, program);
        unsigned length =
            distance ? (unsigned)(program->bytes + program->length - distance - 1) : 0;
        if (distance)
            *distance = (uint8_t)(length < 128 ? length : 0);
    }
    put(program, "\xf4", 1); /* HLT */
}

/* --- running and comparing ---------------------------------------------------------------- */

static void clear_padding(struct x86_state *state)
{
    for (unsigned i = 0; i < SEG_COUNT; i++) {
        struct x86_segment segment;
        memset(&segment, 0, sizeof(segment));
        segment.base = state->segment[i].base;
        segment.limit = state->segment[i].limit;
        segment.attributes = state->segment[i].attributes;
        segment.selector = state->segment[i].selector;
        memcpy(&state->segment[i], &segment, sizeof(segment));
    }
}

static void run(struct machine *machine, const struct x86_state *in, const uint8_t *memory,
                const struct program *program, struct result *result)
{
    bool is_long = in->efer & EFER_LMA;
    unsigned at = program->mode == FLAT || program->mode == PAE_USER || program->mode == COMPATIBLE
                      ? (unsigned)in->rip
                      : (unsigned)(in->rip + in->segment[SEG_CS].base);
    memcpy(machine->ram, memory, RAM_BYTES);
    soft_written(&machine->system, ROM_BYTES, RAM_BYTES);
    make_gdt(machine, is_long);
    if (memcmp(machine->rom + at, program->bytes, program->length) != 0) {
        memcpy(machine->rom + at, program->bytes, program->length);
        soft_written(&machine->system, at, program->length);
    }
    bool ok = cpu_set_state(machine->cpu, in);
    assert(ok);
    result->exit = cpu_run(machine->cpu);
    cpu_get_state(machine->cpu, &result->state);
    result->state.tsc = 0;
    clear_padding(&result->state);
    memcpy(result->memory, machine->ram, RAM_BYTES);
    const struct error *difference = check_failure(machine->cpu);
    if (difference)
        fprintf(stderr, "%s: %s\n", difference->where, difference->cause);
    assert(!difference);
}

/* Random code may jump anywhere, by what it has popped or overwritten, and never end. */
static struct cpu *volatile watched;

static void stop_watched(int signal)
{
    if (watched)
        cpu_request(watched, REQUEST_KICK);
}

/* False: the interpreter has not come to an end, or has gone astray on its way there, where code
 * may be that gives another answer each time. */
static bool run_reference(struct machine *machine, const struct x86_state *in,
                          const uint8_t *memory, const struct program *program,
                          struct result *result)
{
    enum { LIMIT_US = 20000, MAX_INSTRUCTIONS = 200 };
    const uint64_t before = machine->cpu->stats.instructions;
    const struct itimerval limit = {.it_value.tv_usec = LIMIT_US}, none = {0};
    watched = machine->cpu;
    setitimer(ITIMER_VIRTUAL, &limit, NULL);
    run(machine, in, memory, program, result);
    setitimer(ITIMER_VIRTUAL, &none, NULL);
    watched = NULL;
    return result->exit != CPU_KICKED &&
           machine->cpu->stats.instructions - before <= MAX_INSTRUCTIONS;
}

/* The vector whose handler has halted; -1: the program has, or shut down. */
static int vector_of(const struct result *result)
{
    uint64_t at = result->state.rip - 1 - HANDLERS;
    bool is_handler = result->exit == CPU_HALTED && at < 256 * 16 && at % 16 == 0 &&
                      result->state.segment[SEG_CS].base == 0;
    return is_handler ? (int)(at / 16) : -1;
}

/* Arithmetic flags may be stale in the frame of a fault, and behind it in the handler. */
static void forget_flags(struct result *result)
{
    const struct x86_state *state = &result->state;
    int vector = vector_of(result);
    result->state.rflags &= ~(uint64_t)RFLAGS_ARITHMETIC;
    if (vector < 0)
        return;
    bool has_code = vector == 8 || (vector >= 10 && vector <= 14) || vector == 17;
    bool is_real = !(state->cr0 & CR0_PE), is_long = state->efer & EFER_LMA;
    unsigned size = is_real ? 2 : is_long ? 8 : 4;
    uint64_t at = state->gpr[RSP] + (has_code && !is_real ? 3 : 2) * size;
    if (!is_long) {
        at = state->segment[SEG_SS].attributes & SEGMENT_DB ? (uint32_t)at : (uint16_t)at;
        at += state->segment[SEG_SS].base;
    }
    at = (uint32_t)at - ROM_BYTES;
    for (unsigned i = 0; i < 2; i++)
        if (at + i < RAM_BYTES)
            result->memory[at + i] &= (uint8_t) ~(RFLAGS_ARITHMETIC >> i * 8);
}

static bool is_equal(struct result *a, struct result *b, bool is_exact)
{
    int vector = vector_of(a);
    if (a->exit != b->exit || vector != vector_of(b))
        return false;
    bool has_raised = vector >= 0 || a->exit != CPU_HALTED;
    static struct result left, right;
    left = *a, right = *b;
    if (has_raised && !is_exact) {
        forget_flags(&left);
        forget_flags(&right);
    }
    /* What was pushed before a second fault has stale flags, too. */
    bool has_memory = is_exact || (vector != VECTOR_DF && a->exit == CPU_HALTED);
    return memcmp(&left.state, &right.state, sizeof(left.state)) == 0 &&
           (!has_memory || memcmp(left.memory, right.memory, RAM_BYTES) == 0);
}

static void print_program(const struct program *program)
{
    ZydisDecoder decoder;
    ZydisFormatter formatter;
    decoder_init(&decoder, decoder_mode(program->mode));
    ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
    for (unsigned at = 0; at < program->length;) {
        ZydisDecodedInstruction info;
        ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
        char text[128];
        if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, program->bytes + at,
                                                 program->length - at, &info, operands)))
            break;
        ZydisFormatterFormatInstruction(&formatter, &info, operands, info.operand_count_visible,
                                        text, sizeof(text), program->rip + at, NULL);
        printf("    %4x  %s\n", rip_of(program, at), text);
        at += info.length;
    }
}

static void print_difference(const struct program *program, const struct result *a,
                             const struct result *b, const char *name, uint64_t seed)
{
    printf("%s: difference of %s; repeat with: 1 0x%" PRIx64 " %u\n", mode_names[program->mode],
           name, seed, (unsigned)program->mode);
    print_program(program);
    printf("  exit %d %d, vector %d %d, rip %" PRIx64 " %" PRIx64 ", flags %" PRIx64 " %" PRIx64
           "\n",
           a->exit, b->exit, vector_of(a), vector_of(b), a->state.rip, b->state.rip,
           a->state.rflags, b->state.rflags);
    for (unsigned i = 0; i < 16; i++)
        if (a->state.gpr[i] != b->state.gpr[i])
            printf("  register %u: %" PRIx64 " %" PRIx64 "\n", i, a->state.gpr[i], b->state.gpr[i]);
    for (unsigned i = 0; i < SEG_COUNT; i++)
        if (memcmp(&a->state.segment[i], &b->state.segment[i], sizeof(a->state.segment[i])) != 0)
            printf("  segment %u: %x %x\n", i, a->state.segment[i].selector,
                   b->state.segment[i].selector);
    const uint8_t *left = (const void *)&a->state, *right = (const void *)&b->state;
    for (unsigned i = 0, shown = 0; i < sizeof(a->state) && shown < 8; i++)
        if (left[i] != right[i])
            printf("  state at %u: %02x %02x\n", i, left[i], right[i]), shown++;
    for (unsigned i = 0, shown = 0; i < RAM_BYTES && shown < 16; i++)
        if (a->memory[i] != b->memory[i])
            printf("  memory at %x: %02x %02x\n", i + ROM_BYTES, a->memory[i], b->memory[i]),
                shown++;
}

struct test {
    struct machine *machine[PROCESSORS];
    uint8_t pool[2 * RAM_BYTES];
    uint64_t cases[MODES], faults[MODES], differences;
    uint64_t seed; /* of the present case, for a debugger */
};

static void fill_registers(struct random *random, enum mode mode, struct x86_state *state)
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

static void run_case(struct test *test, enum mode mode, uint64_t seed)
{
    static struct result result[PROCESSORS];
    struct random random = {.state = seed};
    struct x86_state in;
    struct program program;
    test->seed = seed;
    mode_state(&random, mode, &in);
    fill_registers(&random, mode, &in);
    /* Sometimes over a page's end. */
    if (random_chance(&random, 20))
        in.rip += 0xf80 + random_below(&random, 0x70);
    make_program(&random, mode, in.rip, &program);
    const uint8_t *memory = test->pool + random_below(&random, RAM_BYTES / 8) * 8;
    if (!run_reference(test->machine[INTERPRETER], &in, memory, &program, &result[INTERPRETER]))
        return;
    for (unsigned i = EXACT; i < PROCESSORS; i++) {
        struct machine *machine = test->machine[i == FAST_AGAIN ? FAST : i];
        for (unsigned runs = i == HOT ? HOT_RUNS + 2 : 1; runs > 0; runs--)
            run(machine, &in, memory, &program, &result[i]);
    }
    test->cases[mode]++;
    test->faults[mode] += vector_of(&result[INTERPRETER]) >= 0;
    for (unsigned i = EXACT; i < PROCESSORS; i++) {
        if (is_equal(&result[INTERPRETER], &result[i], i == EXACT))
            continue;
        if (test->differences++ < MAX_DIFFERENCES)
            print_difference(&program, &result[INTERPRETER], &result[i], names[i], seed);
        break;
    }
}

static struct machine *open_translator(bool has_exact_flags, bool is_check)
{
    return open_machine((struct translator_options){.is_on = true,
                                                    .is_eager = true,
                                                    .is_check = is_check,
                                                    .has_exact_flags = has_exact_flags,
                                                    .code_bytes = 1});
}

int main(int argc, char **argv)
{
    uint64_t cases = argc > 1 ? strtoull(argv[1], NULL, 0) : DEFAULT_CASES;
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : UINT64_C(0x2545f4914f6cdd1d);
    static struct test test;
    test.machine[INTERPRETER] = open_machine((struct translator_options){.is_on = false});
    test.machine[EXACT] = open_translator(true, false);
    test.machine[FAST] = open_translator(false, false);
    test.machine[CHECKED] = open_translator(false, true);
    test.machine[HOT] = open_machine(
        (struct translator_options){.is_on = true, .threshold = HOT_RUNS, .code_bytes = 1});
    struct random random = {.state = 0x1234567};
    random_bytes(&random, test.pool, sizeof(test.pool));
    random.state = seed;
    signal(SIGVTALRM, stop_watched);
    for (uint64_t i = 0; i < cases; i++) {
        uint64_t of_case = i == 0 ? seed : random_next(&random) | 1;
        enum mode mode = argc > 3 ? (enum mode)strtoul(argv[3], NULL, 0) : (enum mode)(i % MODES);
        run_case(&test, mode, of_case);
        isa_tell_progress(i + 1, test.differences);
    }
    for (unsigned i = 0; i < MODES; i++)
        printf("%s: %" PRIu64 " cases, %" PRIu64 " of them faults\n", mode_names[i], test.cases[i],
               test.faults[i]);
    printf("%" PRIu64 " blocks translated, %" PRIu64 " superblocks, %" PRIu64 " differences\n",
           test.machine[FAST]->cpu->stats.blocks_translated,
           test.machine[HOT]->cpu->stats.superblocks, test.differences);
    for (unsigned i = 0; i < PROCESSORS; i++)
        if (test.machine[i])
            close_machine(test.machine[i]);
    return test.differences != 0;
}
