/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Random instructions with random state, on the host's processor and in the software one; every
 * register, flag, fault and byte of memory has to be the same.
 *
 *     test-isa-random [CASES [SEED [MNEMONIC]…]]
 *
 * Instructions come from generate.c and are kept when they are offered. A difference is printed
 * with the seed that repeats its case alone. MNEMONICs are left out.
 *
 * With SKEP_TEST_STEP in the environment the software processor runs under single steps and data
 * breakpoints, with SKEP_TEST_ALIGNMENT both have RFLAGS.AC set.
 */
#include "cpu/soft/cpu.h"
#include "isa/generate.h"
#include "isa/machine.h"
#include "isa/native.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_CASES = 200000, MAX_DIFFERENCES = 20 };

/* --- comparison --------------------------------------------------------------------------- */

struct counts {
    uint64_t cases, faults, not_offered, differences;
    uint64_t mode[ISA_MODES];
    uint64_t category[ZYDIS_ISA_SET_MAX_VALUE + 1];
    uint64_t mnemonic[ZYDIS_MNEMONIC_MAX_VALUE + 1];
    uint64_t refused[ZYDIS_MNEMONIC_MAX_VALUE + 1];
};

static uint8_t *shadow; /* the software processor's scratch memory */

/* x87 pointers (FOP, FIP, FDP). AMD's processors show them only while an unmasked exception is
 * pending, zeros otherwise; the software processor keeps them as Intel's do, always. FDP after an
 * instruction without memory operand is undefined. */
static bool pointers_are_equal(const struct instruction *instruction, const struct isa_state *host,
                               const struct isa_state *soft)
{
    static const uint8_t zero[18];
    if (memcmp(host->fx + 6, zero, sizeof(zero)) == 0)
        return true;
    bool has_memory = instruction->info.raw.modrm.mod != 3;
    /* FOP, and 48 bits of FIP and FDP: processors differ in how far they sign-extend. */
    return memcmp(host->fx + 6, soft->fx + 6, 8) == 0 &&
           (!has_memory || memcmp(host->fx + 16, soft->fx + 16, 6) == 0);
}

static void print_bytes(const char *name, const uint8_t *in, const uint8_t *host,
                        const uint8_t *soft, unsigned length)
{
    if (memcmp(host, soft, length) == 0)
        return;
    const uint8_t *all[3] = {in, host, soft};
    static const char *const titles[3] = {"before", "host", "soft"};
    for (unsigned k = 0; k < 3; k++) {
        printf("  %-6s %-6s", name, titles[k]);
        for (unsigned i = length; i-- > 0;)
            printf("%02x%s", all[k][i], i % 4 == 0 ? " " : "");
        printf("\n");
    }
}

static void print_inputs(const struct instruction *instruction, const struct isa_state *in)
{
    for (unsigned i = 0; i < instruction->info.operand_count; i++) {
        const ZydisDecodedOperand *operand = &instruction->operands[i];
        if (operand->type != ZYDIS_OPERAND_TYPE_REGISTER)
            continue;
        int id = ZydisRegisterGetId(operand->reg.value);
        switch (ZydisRegisterGetClass(operand->reg.value)) {
        case ZYDIS_REGCLASS_XMM:
        case ZYDIS_REGCLASS_YMM:
            printf("  in v%-3d       ", id);
            for (unsigned k = 32; k-- > 0;)
                printf("%02x%s", in->vector[id][k], k % 4 == 0 ? " " : "");
            printf("\n");
            break;
        case ZYDIS_REGCLASS_GPR32:
        case ZYDIS_REGCLASS_GPR64:
            printf("  in r%-3d       %016" PRIx64 "\n", id, in->gpr[id]);
            break;
        default: break;
        }
    }
}

static void print_difference(const struct instruction *instruction, const struct isa_state *in,
                             const struct isa_state *host, const struct isa_state *soft,
                             uint64_t seed)
{
    static const char *const names[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                          "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
    ZydisFormatter formatter;
    char text[128], name[8];
    ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
    ZydisFormatterFormatInstruction(&formatter, &instruction->info, instruction->operands,
                                    instruction->info.operand_count_visible, text, sizeof(text),
                                    ISA_CODE, NULL);
    printf("difference, %s: %s  [", isa_mode_name(in->mode), text);
    for (unsigned i = 0; i < instruction->info.length; i++)
        printf("%02x", instruction->bytes[i]);
    printf("]  repeat with: 1 0x%" PRIx64 "\n", seed);
    if (host->fault != soft->fault || host->fault != ISA_NO_FAULT)
        printf("  fault  host %d (%x) %" PRIx64 ", soft %d (%x) %" PRIx64 "\n", host->fault,
               host->error_code, host->fault_address, soft->fault, soft->error_code,
               soft->fault_address);
    print_inputs(instruction, in);
    for (unsigned n = 0; n < 16; n++)
        print_bytes(names[n], (const uint8_t *)&in->gpr[n], (const uint8_t *)&host->gpr[n],
                    (const uint8_t *)&soft->gpr[n], 8);
    print_bytes("flags", (const uint8_t *)&in->rflags, (const uint8_t *)&host->rflags,
                (const uint8_t *)&soft->rflags, 4);
    for (unsigned n = 0; n < 16; n++) {
        snprintf(name, sizeof(name), "v%u", n);
        print_bytes(name, in->vector[n], host->vector[n], soft->vector[n], 32);
    }
    print_bytes("fctl", in->fx, host->fx, soft->fx, 6);
    if (!pointers_are_equal(instruction, host, soft))
        print_bytes("fptr", in->fx + 6, host->fx + 6, soft->fx + 6, 18);
    print_bytes("mxcsr", in->fx + 24, host->fx + 24, soft->fx + 24, 4);
    for (unsigned n = 0; n < 8; n++) {
        snprintf(name, sizeof(name), "st%u", n);
        print_bytes(name, in->fx + 32 + n * 16, host->fx + 32 + n * 16, soft->fx + 32 + n * 16, 10);
    }
    for (unsigned i = 0; i < ISA_WRITABLE_BYTES; i++)
        if (native_scratch()[i] != shadow[i])
            printf("  memory at %x: host %02x, soft %02x\n", i, native_scratch()[i], shadow[i]);
}

/* Whether the instruction stores or loads a whole x87 state, in an order of its own. */
static bool is_x87_area(const ZydisDecodedInstruction *info)
{
    switch (info->mnemonic) {
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FRSTOR:
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64: return true;
    default: return false;
    }
}

/* Whether all memory operands, of a string instruction that has stopped there, are outside of
 * scratch memory or beyond their segments' limits. */
static bool operands_fault(const struct instruction *instruction, const struct isa_state *state)
{
    for (unsigned i = 0; i < instruction->info.operand_count; i++) {
        const ZydisDecodedOperand *operand = &instruction->operands[i];
        if (operand->type != ZYDIS_OPERAND_TYPE_MEMORY)
            continue;
        uint64_t at = operand_address(instruction, state, operand);
        bool is_scratch = at - ISA_SCRATCH <= ISA_WRITABLE_BYTES - 8;
        if (is_scratch && operand_is_in_limit(instruction, at, operand))
            return false;
    }
    return true;
}

static bool is_misaligned(const struct instruction *instruction, const struct isa_state *state)
{
    for (unsigned i = 0; i < instruction->info.operand_count; i++)
        if (instruction->operands[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
            return operand_address(instruction, state, &instruction->operands[i]) % 16 != 0;
    return false;
}

static bool faults_are_equal(const struct instruction *instruction, const struct isa_state *host,
                             const struct isa_state *soft)
{
    /* Of two operands that both fault, either may be told. */
    if (instruction->info.meta.category == ZYDIS_CATEGORY_STRINGOP && host->fault != ISA_NO_FAULT &&
        soft->fault != ISA_NO_FAULT &&
        (operands_fault(instruction, soft) || (soft->rflags & RFLAGS_AC)))
        return true;
    /* ENTER reads and writes the stack many times, in no order that the manual tells. */
    if (instruction->info.mnemonic == ZYDIS_MNEMONIC_ENTER)
        return (host->fault == ISA_NO_FAULT) == (soft->fault == ISA_NO_FAULT);
    /* Beyond the limit and not aligned: both are faults of the same class (SDM 3A 7.9). */
    if (host->fault == VECTOR_GP && soft->fault == VECTOR_SS && is_misaligned(instruction, soft))
        return true;
    if (host->fault != soft->fault || host->fault != VECTOR_PF)
        return host->fault == soft->fault;
    /* Areas of many parts may fault at any of them, masked stores at bytes not selected. */
    if (is_x87_area(&instruction->info) || is_masked_store(&instruction->info))
        return true;
    /* With addresses of 16 bits, elements of VMASKMOV wrap on some processors. */
    if (instruction->info.address_width == 16 &&
        strstr(ZydisMnemonicGetString(instruction->info.mnemonic), "maskmov"))
        return true;
    if (host->fault_address != soft->fault_address)
        return false;
    /* Elsewhere, in its kernel for one, the host may have pages; the other processor has not. */
    bool is_near =
        host->fault_address - (ISA_SCRATCH - ISA_PAGE) < ISA_SCRATCH_BYTES + 2 * ISA_PAGE;
    uint32_t code_mask = is_near ? ~0u : ~1u;
    return ((host->error_code ^ soft->error_code) & code_mask) == 0;
}

/* Where the pointers are in memory after FXSAVE, FNSTENV and FNSAVE: see pointers_are_equal. */
static void forget_pointers(const struct instruction *instruction, uint8_t *scratch)
{
    unsigned first = 0, length = 0, wide = instruction->info.operand_width == 16 ? 0 : 1;
    switch (instruction->info.mnemonic) {
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64: first = 6, length = 18; break;
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FNSAVE: first = wide ? 12 : 6, length = wide ? 14 : 8; break;
    default: return;
    }
    uint64_t at = instruction->target - ISA_SCRATCH;
    if (at >= ISA_WRITABLE_BYTES - 32)
        return;
    memset(scratch + at + first, 0, length);
    if (first == 6 && length == 18)
        memset(scratch + at + 28, 0, 4); /* MXCSR_MASK: AMD's has MM, which is not offered */
}

static bool memory_is_equal(const struct instruction *instruction, const struct isa_state *host)
{
    /* A part may have been stored before the fault; the software processor doesn't. */
    ZydisMnemonic mnemonic = instruction->info.mnemonic;
    bool has_parts = is_x87_area(&instruction->info) || mnemonic == ZYDIS_MNEMONIC_ENTER ||
                     mnemonic == ZYDIS_MNEMONIC_PUSHA || mnemonic == ZYDIS_MNEMONIC_PUSHAD;
    if (host->fault != ISA_NO_FAULT && has_parts)
        return true;
    forget_pointers(instruction, shadow);
    forget_pointers(instruction, native_scratch());
    return memcmp(native_scratch(), shadow, ISA_WRITABLE_BYTES) == 0;
}

/* What processors do as they like: with alignment checks, stores of single bytes, and #AC or #GP
 * for areas of 512 bytes (SDM 2A FXSAVE); MASKMOVQ may have made the unit an MMX one before a
 * fault, and POPA have loaded some registers. */
static bool is_open(const struct instruction *instruction, const struct isa_state *host)
{
    bool checks = host->rflags & RFLAGS_AC, has_faulted = host->fault != ISA_NO_FAULT;
    switch (instruction->info.mnemonic) {
    case ZYDIS_MNEMONIC_POPA:
    case ZYDIS_MNEMONIC_POPAD: return has_faulted;
    case ZYDIS_MNEMONIC_MASKMOVQ: return checks || has_faulted;
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64: return checks;
    default: return false;
    }
}

/* Handlers use the host's own arithmetic, so that its undefined flags match; but it has no decimal
 * adjustments in 64-bit mode. */
static uint64_t flags_of_interest(const struct instruction *instruction)
{
    const uint64_t all = RFLAGS_ARITHMETIC | RFLAGS_DF;
    switch (instruction->info.mnemonic) {
    case ZYDIS_MNEMONIC_AAA:
    case ZYDIS_MNEMONIC_AAS:
        return all & ~(uint64_t)(RFLAGS_OF | RFLAGS_SF | RFLAGS_ZF | RFLAGS_PF);
    case ZYDIS_MNEMONIC_AAD:
    case ZYDIS_MNEMONIC_AAM: return all & ~(uint64_t)(RFLAGS_OF | RFLAGS_AF | RFLAGS_CF);
    case ZYDIS_MNEMONIC_DAA:
    case ZYDIS_MNEMONIC_DAS: return all & ~(uint64_t)RFLAGS_OF;
    default: return all;
    }
}

static bool is_equal(const struct instruction *instruction, const struct isa_state *host,
                     const struct isa_state *soft)
{
    if (instruction->info.meta.isa_set == ZYDIS_ISA_SET_SHA && soft->fault == VECTOR_GP)
        return true; /* misaligned in spite of choose_target */
    if (host->fx[26] & 2)
        return true; /* loaded MXCSR.MM, which is AMD's and not offered: #GP in the other */
    if (!faults_are_equal(instruction, host, soft) || soft->fault_offset != host->fault_offset)
        return false;
    if (memcmp(host->gpr, soft->gpr, sizeof(host->gpr)) != 0 ||
        memcmp(host->vector, soft->vector, sizeof(host->vector)) != 0)
        return false;
    if ((host->rflags ^ soft->rflags) & flags_of_interest(instruction))
        return false;
    if (memcmp(host->fx, soft->fx, 6) != 0 || memcmp(host->fx + 24, soft->fx + 24, 4) != 0)
        return false;
    if (!pointers_are_equal(instruction, host, soft))
        return false;
    for (unsigned i = 0; i < 8; i++)
        if (memcmp(host->fx + 32 + i * 16, soft->fx + 32 + i * 16, 10) != 0)
            return false;
    return memory_is_equal(instruction, host);
}

/* Memory too depends on the case's seed alone: a window of a fixed pool of values. */
static uint8_t pool[64 << 10];

static bool open_memory(void)
{
    random_pool(pool, sizeof(pool));
    memcpy(shadow, pool, ISA_SCRATCH_BYTES);
    return native_fill(shadow);
}

static void fill_memory(struct random *random)
{
    unsigned at = random_below(random, (sizeof(pool) - ISA_WRITABLE_BYTES) / 8) * 8;
    memcpy(shadow, pool + at, ISA_WRITABLE_BYTES);
    memcpy(native_scratch(), pool + at, ISA_WRITABLE_BYTES);
}

/* Mnemonics to leave out, from the command line. */
struct exceptions {
    char **names;
    int count;
};

static bool is_left_out(const struct exceptions *exceptions, ZydisMnemonic mnemonic)
{
    /* Under single steps it stores a TF that the host has not. */
    bool is_pushf = mnemonic == ZYDIS_MNEMONIC_PUSHF || mnemonic == ZYDIS_MNEMONIC_PUSHFD ||
                    mnemonic == ZYDIS_MNEMONIC_PUSHFQ;
    if (is_pushf && getenv("SKEP_TEST_STEP"))
        return true;
    for (int i = 0; i < exceptions->count; i++)
        if (strcmp(exceptions->names[i], ZydisMnemonicGetString(mnemonic)) == 0)
            return true;
    return false;
}

static void run_case(struct machine *machine, uint64_t seed, const struct exceptions *exceptions,
                     struct counts *counts)
{
    struct random random = {.state = seed};
    struct instruction instruction;
    struct isa_state in;
    enum isa_mode mode = random_chance(&random, 40) ? ISA_64 : random_below(&random, ISA_MODES);
    if (!native_offers(mode))
        mode = ISA_64;
    do {
        random_instruction(&random, mode, &instruction);
        random_state(&random, mode, &in);
    } while (!aim_all(&random, &instruction, &in) ||
             is_left_out(exceptions, instruction.info.mnemonic));
    if (getenv("SKEP_TEST_ALIGNMENT"))
        in.rflags |= RFLAGS_AC;
    struct isa_state host = in, soft = in;
    fill_memory(&random);
    if (!machine_offers(machine, mode, instruction.bytes, instruction.info.length)) {
        counts->not_offered++;
        counts->refused[instruction.info.mnemonic]++;
        return;
    }
    machine_run(machine, &soft, instruction.bytes, instruction.info.length);
    native_run(&host, instruction.bytes, instruction.info.length);
    counts->cases++;
    counts->mode[mode]++;
    counts->faults += host.fault != ISA_NO_FAULT;
    counts->category[instruction.info.meta.isa_set]++;
    counts->mnemonic[instruction.info.mnemonic]++;
    if (!is_open(&instruction, &host) && !is_equal(&instruction, &host, &soft)) {
        if (counts->differences++ < MAX_DIFFERENCES)
            print_difference(&instruction, &in, &host, &soft, seed);
    }
}

static void print_counts(const struct counts *counts)
{
    unsigned mnemonics = 0;
    for (unsigned i = 0; i <= ZYDIS_MNEMONIC_MAX_VALUE; i++)
        mnemonics += counts->mnemonic[i] != 0;
    printf("%" PRIu64 " cases, %" PRIu64 " of them faults, of %u mnemonics; %" PRIu64
           " instructions not offered\n",
           counts->cases, counts->faults, mnemonics, counts->not_offered);
    for (unsigned mode = 0; mode < ISA_MODES; mode++)
        printf("  %-18s %" PRIu64 "%s\n", isa_mode_name(mode), counts->mode[mode],
               native_offers(mode) ? "" : ": the host does not run such code");
    for (unsigned i = 0; i <= ZYDIS_ISA_SET_MAX_VALUE; i++)
        if (counts->category[i] != 0)
            printf("  %-12s %" PRIu64 "\n", ZydisISASetGetString((ZydisISASet)i),
                   counts->category[i]);
    for (unsigned i = 0; getenv("SKEP_MNEMONICS") && i <= ZYDIS_MNEMONIC_MAX_VALUE; i++)
        if (counts->mnemonic[i] != 0)
            printf("    %s %" PRIu64 "\n", ZydisMnemonicGetString((ZydisMnemonic)i),
                   counts->mnemonic[i]);
    for (unsigned i = 0; getenv("SKEP_MNEMONICS") && i <= ZYDIS_MNEMONIC_MAX_VALUE; i++)
        if (counts->refused[i] != 0)
            printf("    not offered: %s %" PRIu64 "\n", ZydisMnemonicGetString((ZydisMnemonic)i),
                   counts->refused[i]);
    printf("%" PRIu64 " differences\n", counts->differences);
}

int main(int argc, char **argv)
{
    uint64_t cases = argc > 1 ? strtoull(argv[1], NULL, 0) : DEFAULT_CASES;
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : UINT64_C(0x9e3779b97f4a7c15);
    /* The software processor first: signals are to come to the native side before it. */
    struct machine *machine = machine_open();
    shadow = machine_scratch(machine);
    if (!native_open() || !open_memory()) {
        fprintf(stderr, "cannot map the test's memory\n");
        return 77;
    }
    struct exceptions exceptions = {argv + 3, argc > 3 ? argc - 3 : 0};
    struct counts counts = {0};
    struct random random = {.state = seed};
    for (uint64_t i = 0; counts.cases < cases && i < cases * 100; i++) {
        uint64_t case_seed = i == 0 ? seed : random_next(&random) | 1;
        run_case(machine, case_seed, &exceptions, &counts);
    }
    machine_close(machine);
    print_counts(&counts);
    return counts.differences != 0;
}
