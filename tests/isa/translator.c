/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Blocks of several random instructions, translated, interpreted and on the host's processor; every
 * register, flag, fault and byte of memory has to be the same, wherever in the block it stops.
 *
 *     test-isa-translator [CASES [SEED]]
 *
 * Registers that address memory are loaded before each instruction that uses them. Some
 * instructions are jumped over. Each case runs twice in the translator, the second time with its
 * blocks linked, so often in another that its blocks become superblocks, and once in lockstep
 * (translator=check). Processors differ in what flags the frame of a fault holds where they are
 * overwritten before use: one translator keeps them all, another as few as it may. Both have the
 * least memory for code, so that it turns over all the time.
 */
#include "cpu/soft/cpu.h"
#include "isa/generate.h"
#include "isa/machine.h"
#include "isa/native.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_CASES = 60000, MAX_DIFFERENCES = 10, MAX_INSTRUCTIONS = 8, MAX_BYTES = 1024 };

struct program {
    enum isa_mode mode;
    uint8_t bytes[MAX_BYTES];
    unsigned length;
    bool is_x87;   /* of instructions of x87 and MMX only */
    bool has_area; /* one of them stores or loads a whole x87 state */
};

static bool is_x87(const struct instruction *instruction)
{
    for (unsigned i = 0; i < instruction->info.operand_count; i++) {
        const ZydisDecodedOperand *operand = &instruction->operands[i];
        ZydisRegisterClass class = ZydisRegisterGetClass(operand->reg.value);
        if (operand->type == ZYDIS_OPERAND_TYPE_REGISTER &&
            (class == ZYDIS_REGCLASS_MMX || class == ZYDIS_REGCLASS_X87))
            return true;
    }
    return instruction->info.meta.isa_set == ZYDIS_ISA_SET_X87;
}

static bool is_area(const struct instruction *instruction)
{
    switch (instruction->info.mnemonic) {
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FRSTOR:
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64: return true;
    default: return false;
    }
}

/* String instructions end blocks and may stop in the middle, POPA with some registers loaded. What
 * is undefined of the flags of decimal adjustments differs from the host's, and goes on to what
 * comes next. */
static bool is_wanted(const struct instruction *instruction)
{
    const ZydisDecodedInstruction *info = &instruction->info;
    if (info->meta.category == ZYDIS_CATEGORY_DECIMAL || info->mnemonic == ZYDIS_MNEMONIC_POPA ||
        info->mnemonic == ZYDIS_MNEMONIC_POPAD)
        return false;
    if (info->meta.category == ZYDIS_CATEGORY_STRINGOP || info->mnemonic == ZYDIS_MNEMONIC_ENTER)
        return false;
    bool is_sha = info->meta.isa_set == ZYDIS_ISA_SET_SHA;
    return !is_sha && !is_masked_store(info);
}

static void put(struct program *program, const void *bytes, unsigned length)
{
    memcpy(program->bytes + program->length, bytes, length);
    program->length += length;
}

static void put_mov(struct program *program, unsigned reg, uint64_t value)
{
    uint8_t bytes[10] = {(uint8_t)(reg >= 8 ? 0x49 : 0x48), (uint8_t)(0xb8 | (reg & 7))};
    memcpy(bytes + 2, &value, 8);
    if (program->mode == ISA_64) {
        put(program, bytes, 10);
        return;
    }
    bytes[0] = 0x66; /* 32 bits in 16-bit code */
    bool is_prefixed = program->mode == ISA_16;
    put(program, bytes + !is_prefixed, 5u + is_prefixed);
}

/* What was aimed at ISA_CODE now stands elsewhere. */
static void put_instruction(struct program *program, struct instruction *instruction)
{
    for (unsigned i = 0; i < instruction->info.operand_count; i++) {
        const ZydisDecodedOperand *operand = &instruction->operands[i];
        if (operand->type != ZYDIS_OPERAND_TYPE_MEMORY ||
            (operand->mem.base != ZYDIS_REGISTER_RIP && operand->mem.base != ZYDIS_REGISTER_EIP))
            continue;
        uint8_t *at = instruction->bytes + instruction->info.raw.disp.offset;
        uint32_t disp;
        memcpy(&disp, at, sizeof(disp));
        disp -= program->length;
        memcpy(at, &disp, sizeof(disp));
        break;
    }
    put(program, instruction->bytes, instruction->info.length);
}

/* Pushes or pops of several registers, anywhere near scratch memory. */
static void add_stack(struct random *random, struct program *program)
{
    uint64_t scratch = ISA_SCRATCH - isa_segment(program->mode, ISA_SS)->base;
    put_mov(program, RSP, scratch - 64 + random_below(random, ISA_SCRATCH_BYTES + 128) / 4 * 4);
    if (random_chance(random, 50)) /* at a page's end */
        put_mov(program, RSP, scratch + ISA_PAGE - 48 + random_below(random, 16) * 8);
    uint8_t opcode = random_chance(random, 50) ? 0x50 : 0x58;
    bool has_rex = program->mode == ISA_64;
    for (unsigned count = 2 + random_below(random, 9); count > 0; count--) {
        unsigned reg = random_below(random, has_rex ? 16 : 8);
        if (opcode == 0x58 && reg == RSP) /* would go anywhere in the test's own memory */
            reg = RBX;
        uint8_t bytes[2] = {(uint8_t)(reg >= 8 ? 0x41 : 0x40), (uint8_t)(opcode | (reg & 7))};
        put(program, bytes + !has_rex, 1u + has_rex);
    }
}

/* One instruction, with the registers that it needs, and perhaps a jump over both. */
static void add(struct random *random, struct machine *machine, const struct isa_state *in,
                struct program *program)
{
    struct instruction instruction;
    struct isa_state state;
    do {
        random_instruction(random, program->mode, &instruction);
        state = *in;
    } while (!is_wanted(&instruction) || (program->is_x87 && !is_x87(&instruction)) ||
             !aim_all(random, &instruction, &state) ||
             !machine_offers(machine, program->mode, instruction.bytes, instruction.info.length));
    program->has_area |= is_area(&instruction);
    uint8_t *distance = NULL;
    if (random_chance(random, 25)) {
        uint8_t jump[2] = {
            (uint8_t)(random_chance(random, 90) ? 0x70 | random_below(random, 16) : 0xeb)};
        put(program, jump, sizeof(jump));
        distance = &program->bytes[program->length - 1];
    }
    for (unsigned reg = 0; reg < 16; reg++)
        if (state.gpr[reg] != in->gpr[reg])
            put_mov(program, reg, state.gpr[reg]);
    bool has_memory = false;
    for (unsigned i = 0; i < instruction.info.operand_count; i++)
        has_memory |= instruction.operands[i].type == ZYDIS_OPERAND_TYPE_MEMORY;
    /* Registers of addresses that were not aimed have had their value when the case began. */
    for (unsigned i = 0; has_memory && i < instruction.info.operand_count; i++) {
        const ZydisDecodedOperand *operand = &instruction.operands[i];
        const ZydisRegister parts[2] = {operand->mem.base, operand->mem.index};
        for (unsigned k = 0; operand->type == ZYDIS_OPERAND_TYPE_MEMORY && k < 2; k++) {
            int id = ZydisRegisterGetId(parts[k]);
            ZydisRegisterClass class = ZydisRegisterGetClass(parts[k]);
            if ((class == ZYDIS_REGCLASS_GPR64 || class == ZYDIS_REGCLASS_GPR32 ||
                 class == ZYDIS_REGCLASS_GPR16) &&
                state.gpr[id] == in->gpr[id])
                put_mov(program, (unsigned)id, state.gpr[id]);
        }
    }
    put_instruction(program, &instruction);
    if (distance)
        *distance = (uint8_t)(program->bytes + program->length - distance - 1);
}

/* --- comparison --------------------------------------------------------------------------- */

enum processor { HOST, INTERPRETER, EXACT, FAST, FAST_AGAIN, HOT, CHECKED, PROCESSORS };
static const char *const names[PROCESSORS] = {"host",   "interpreter", "exact",  "fast",
                                              "linked", "superblock",  "checked"};

struct result {
    struct isa_state state;
    uint8_t memory[ISA_WRITABLE_BYTES];
};

static bool faults_are_equal(const struct isa_state *a, const struct isa_state *b)
{
    if (a->fault_offset != b->fault_offset)
        return false;
    /* Beyond the stack's limit and not aligned: the host says the latter first. */
    if (a->mode == ISA_32_BASED && a->fault == VECTOR_GP && b->fault == VECTOR_SS)
        return true;
    if (a->fault != b->fault)
        return false;
    return a->fault != VECTOR_PF || a->fault_address == b->fault_address;
}

/* Control, status, tags and registers of the x87, and MXCSR. */
static bool x87_is_equal(const uint8_t *a, const uint8_t *b)
{
    for (unsigned i = 0; i < 8; i++)
        if (memcmp(a + 32 + i * 16, b + 32 + i * 16, 10) != 0)
            return false;
    return memcmp(a, b, 5) == 0 && memcmp(a + 24, b + 24, 4) == 0;
}

/* The opcode and the pointers of the last x87 operation: the host's may show none, see random.c. */
static bool pointers_are_equal(const struct result *a, const struct result *b)
{
    return memcmp(a->state.fx + 6, b->state.fx + 6, 18) == 0;
}

static bool is_equal(const struct result *a, const struct result *b, bool compares_flags)
{
    const uint64_t flags = compares_flags ? RFLAGS_ARITHMETIC | RFLAGS_DF : RFLAGS_DF;
    return faults_are_equal(&a->state, &b->state) &&
           memcmp(a->state.gpr, b->state.gpr, sizeof(a->state.gpr)) == 0 &&
           memcmp(a->state.vector, b->state.vector, sizeof(a->state.vector)) == 0 &&
           !((a->state.rflags ^ b->state.rflags) & flags) &&
           x87_is_equal(a->state.fx, b->state.fx) &&
           memcmp(a->memory, b->memory, sizeof(a->memory)) == 0;
}

static void print_program(const struct program *program)
{
    ZydisDecoder decoder;
    ZydisFormatter formatter;
    isa_decoder_init(&decoder, program->mode);
    ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
    for (unsigned at = 0; at < program->length;) {
        ZydisDecodedInstruction info;
        ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
        char text[128];
        if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, program->bytes + at,
                                                 program->length - at, &info, operands)))
            break;
        ZydisFormatterFormatInstruction(&formatter, &info, operands, info.operand_count_visible,
                                        text, sizeof(text), ISA_CODE + at, NULL);
        printf("    %3x  %s\n", at, text);
        at += info.length;
    }
}

static void print_difference(const struct program *program, const struct result *a,
                             const struct result *b, const char *name, uint64_t seed)
{
    printf("%s: difference of %s; repeat with: 1 0x%" PRIx64 "\n", isa_mode_name(program->mode),
           name, seed);
    print_program(program);
    printf("  fault %d at %" PRIx64 " (%" PRIx64 "), %d at %" PRIx64 " (%" PRIx64 ")\n",
           a->state.fault, a->state.fault_offset, a->state.fault_address, b->state.fault,
           b->state.fault_offset, b->state.fault_address);
    for (unsigned i = 0; i < 16; i++)
        if (a->state.gpr[i] != b->state.gpr[i])
            printf("  register %u: %016" PRIx64 " %016" PRIx64 "\n", i, a->state.gpr[i],
                   b->state.gpr[i]);
    for (unsigned i = 0; i < 16; i++)
        if (memcmp(a->state.vector[i], b->state.vector[i], 32) != 0)
            printf("  vector %u\n", i);
    printf("  flags %" PRIx64 " %" PRIx64 "\n", a->state.rflags, b->state.rflags);
    for (unsigned i = 0; i < 160; i++)
        if (a->state.fx[i] != b->state.fx[i])
            printf("  x87 state at %u: %02x %02x\n", i, a->state.fx[i], b->state.fx[i]);
    for (unsigned i = 0; i < sizeof(a->memory); i++)
        if (a->memory[i] != b->memory[i])
            printf("  memory at %x: %02x %02x\n", i, a->memory[i], b->memory[i]);
}

/* --- cases -------------------------------------------------------------------------------- */

enum { HOT_RUNS = 6 };

struct test {
    struct machine *interpreter, *exact, *fast, *hot, *checked;
    uint8_t pool[64 << 10];
    uint64_t cases[ISA_MODES], faults, differences;
};

static void run_soft(struct machine *machine, const struct isa_state *in, const uint8_t *memory,
                     const struct program *program, struct result *result)
{
    memcpy(machine_scratch(machine), memory, ISA_WRITABLE_BYTES);
    result->state = *in;
    machine_run(machine, &result->state, program->bytes, program->length);
    memcpy(result->memory, machine_scratch(machine), ISA_WRITABLE_BYTES);
}

static void run_host(const struct isa_state *in, const uint8_t *memory,
                     const struct program *program, struct result *result)
{
    memcpy(native_scratch(), memory, ISA_WRITABLE_BYTES);
    result->state = *in;
    native_run(&result->state, program->bytes, program->length);
    memcpy(result->memory, native_scratch(), ISA_WRITABLE_BYTES);
}

static void run_case(struct test *test, uint64_t seed)
{
    static struct result result[PROCESSORS];
    struct random random = {.state = seed};
    struct isa_state in;
    struct program program = {.is_x87 = random_chance(&random, 20)};
    if (random_chance(&random, 60))
        program.mode = random_below(&random, ISA_MODES);
    if (!native_offers(program.mode))
        program.mode = ISA_64;
    random_state(&random, program.mode, &in);
    unsigned count = 1 + random_below(&random, MAX_INSTRUCTIONS);
    for (unsigned i = 0; i < count; i++)
        if (!program.is_x87 && random_chance(&random, 10))
            add_stack(&random, &program);
        else
            add(&random, test->interpreter, &in, &program);
    const uint8_t *memory =
        test->pool + random_below(&random, (sizeof(test->pool) - ISA_WRITABLE_BYTES) / 8) * 8;
    run_host(&in, memory, &program, &result[HOST]);
    run_soft(test->interpreter, &in, memory, &program, &result[INTERPRETER]);
    run_soft(test->exact, &in, memory, &program, &result[EXACT]);
    run_soft(test->fast, &in, memory, &program, &result[FAST]);
    run_soft(test->fast, &in, memory, &program, &result[FAST_AGAIN]);
    /* Until its blocks have run so often that they become one. */
    for (unsigned i = 0; i < HOT_RUNS + 2; i++)
        run_soft(test->hot, &in, memory, &program, &result[HOT]);
    run_soft(test->checked, &in, memory, &program, &result[CHECKED]);
    test->cases[program.mode]++;
    bool is_fault = result[HOST].state.fault != ISA_NO_FAULT;
    test->faults += is_fault;
    /* The host's pointers are its own when they are stored, and so is the order in which it touches
     * an area. */
    const struct result *reference = &result[program.has_area ? INTERPRETER : HOST];
    for (unsigned i = INTERPRETER; i < PROCESSORS; i++) {
        bool compares_flags = !is_fault || i < FAST;
        if (is_equal(reference, &result[i], compares_flags) &&
            pointers_are_equal(&result[INTERPRETER], &result[i]))
            continue;
        if (test->differences++ < MAX_DIFFERENCES)
            print_difference(&program, reference, &result[i], names[i], seed);
        break;
    }
}

static struct machine *open_translator(bool has_exact_flags, bool is_check)
{
    return machine_open_with((struct translator_options){.is_on = true,
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
    test.interpreter = machine_open_with((struct translator_options){.is_on = false});
    test.exact = open_translator(true, false);
    test.fast = open_translator(false, false);
    test.checked = open_translator(false, true);
    test.hot = machine_open_with(
        (struct translator_options){.is_on = true, .threshold = HOT_RUNS, .code_bytes = 1});
    random_pool(test.pool, sizeof(test.pool));
    memcpy(machine_scratch(test.interpreter), test.pool, ISA_SCRATCH_BYTES);
    memcpy(machine_scratch(test.exact), test.pool, ISA_SCRATCH_BYTES);
    memcpy(machine_scratch(test.fast), test.pool, ISA_SCRATCH_BYTES);
    memcpy(machine_scratch(test.hot), test.pool, ISA_SCRATCH_BYTES);
    memcpy(machine_scratch(test.checked), test.pool, ISA_SCRATCH_BYTES);
    if (!native_open() || !native_fill(test.pool)) {
        fprintf(stderr, "cannot map the test's memory\n");
        return 77;
    }
    struct random random = {.state = seed};
    for (uint64_t i = 0; i < cases; i++) {
        run_case(&test, i == 0 ? seed : random_next(&random) | 1);
        isa_tell_progress(i + 1, test.differences);
    }
    machine_close(test.interpreter);
    machine_close(test.exact);
    machine_close(test.fast);
    machine_close(test.hot);
    machine_close(test.checked);
    for (unsigned mode = 0; mode < ISA_MODES; mode++)
        printf("%-18s %" PRIu64 " cases%s\n", isa_mode_name(mode), test.cases[mode],
               native_offers(mode) ? "" : ": the host does not run such code");
    printf("%" PRIu64 " of them faults, %" PRIu64 " differences\n", test.faults, test.differences);
    return test.differences != 0;
}
