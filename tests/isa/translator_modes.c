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
#include "isa/blocks.h"

#include <assert.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>

enum processor { INTERPRETER, EXACT, FAST, FAST_AGAIN, HOT, CHECKED, PROCESSORS };
static const char *const names[PROCESSORS] = {"interpreter", "exact",      "fast",
                                              "linked",      "superblock", "checked"};
enum { DEFAULT_CASES = 20000, MAX_DIFFERENCES = 5, HOT_RUNS = 6 };
enum { ROM_BYTES = BLOCK_ROM_BYTES, RAM_BYTES = BLOCK_RAM_BYTES };

struct machine {
    struct soft_system system;
    struct cpu *cpu;
    uint8_t *rom, *ram;
    bool is_long; /* the tables in ROM */
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
    block_make_tables(machine->rom, false, BLOCK_HALTS);
    return machine;
}

static void close_machine(struct machine *machine)
{
    cpu_destroy(machine->cpu);
    soft_system_close(&machine->system);
    munmap(machine->rom, ROM_BYTES + RAM_BYTES);
    free(machine);
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
                const struct random_block *block, struct result *result)
{
    bool is_long = in->efer & EFER_LMA;
    unsigned at = block_gpa(block, in);
    memcpy(machine->ram, memory, RAM_BYTES);
    soft_written(&machine->system, ROM_BYTES, RAM_BYTES);
    if (is_long != machine->is_long) {
        machine->is_long = is_long;
        block_make_tables(machine->rom, is_long, BLOCK_HALTS);
        soft_written(&machine->system, 0, BLOCK_CODE);
    }
    if (memcmp(machine->rom + at, block->bytes, block->length) != 0) {
        memcpy(machine->rom + at, block->bytes, block->length);
        soft_written(&machine->system, at, block->length);
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
                          const uint8_t *memory, const struct random_block *block,
                          struct result *result)
{
    enum { LIMIT_US = 20000, MAX_INSTRUCTIONS = 200 };
    const uint64_t before = machine->cpu->stats.instructions;
    const struct itimerval limit = {.it_value.tv_usec = LIMIT_US}, none = {0};
    watched = machine->cpu;
    setitimer(ITIMER_VIRTUAL, &limit, NULL);
    run(machine, in, memory, block, result);
    setitimer(ITIMER_VIRTUAL, &none, NULL);
    watched = NULL;
    return result->exit != CPU_KICKED &&
           machine->cpu->stats.instructions - before <= MAX_INSTRUCTIONS;
}

/* The vector whose handler has halted; -1: the program has, or shut down. */
static int vector_of(const struct result *result)
{
    return result->exit == CPU_HALTED ? block_vector(&result->state, BLOCK_HALTS) : -1;
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

static void print_difference(const struct random_block *block, const struct result *a,
                             const struct result *b, const char *name, uint64_t seed)
{
    printf("%s: difference of %s; repeat with: 1 0x%" PRIx64 " %u\n", block_mode_name(block->mode),
           name, seed, (unsigned)block->mode);
    block_print(block);
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
    uint64_t cases[BLOCK_MODES], faults[BLOCK_MODES], differences;
    uint64_t seed; /* of the present case, for a debugger */
};

static uint64_t run_case(void *opaque, enum block_mode mode, uint64_t seed)
{
    struct test *test = opaque;
    static struct result result[PROCESSORS];
    struct random random = {.state = seed};
    struct x86_state in;
    struct random_block block;
    test->seed = seed;
    block_make(&random, mode, BLOCK_HALTS, &in, &block);
    const uint8_t *memory = test->pool + random_below(&random, RAM_BYTES / 8) * 8;
    if (!run_reference(test->machine[INTERPRETER], &in, memory, &block, &result[INTERPRETER]))
        return test->differences;
    for (unsigned i = EXACT; i < PROCESSORS; i++) {
        struct machine *machine = test->machine[i == FAST_AGAIN ? FAST : i];
        for (unsigned runs = i == HOT ? HOT_RUNS + 2 : 1; runs > 0; runs--)
            run(machine, &in, memory, &block, &result[i]);
    }
    test->cases[mode]++;
    test->faults[mode] += vector_of(&result[INTERPRETER]) >= 0;
    for (unsigned i = EXACT; i < PROCESSORS; i++) {
        if (is_equal(&result[INTERPRETER], &result[i], i == EXACT))
            continue;
        if (test->differences++ < MAX_DIFFERENCES)
            print_difference(&block, &result[INTERPRETER], &result[i], names[i], seed);
        break;
    }
    return test->differences;
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
    static struct test test;
    test.machine[INTERPRETER] = open_machine((struct translator_options){.is_on = false});
    test.machine[EXACT] = open_translator(true, false);
    test.machine[FAST] = open_translator(false, false);
    test.machine[CHECKED] = open_translator(false, true);
    test.machine[HOT] = open_machine(
        (struct translator_options){.is_on = true, .threshold = HOT_RUNS, .code_bytes = 1});
    random_pool(test.pool, sizeof(test.pool));
    signal(SIGVTALRM, stop_watched);
    block_run_cases(argc, argv, DEFAULT_CASES, run_case, &test);
    for (unsigned i = 0; i < BLOCK_MODES; i++)
        printf("%s: %" PRIu64 " cases, %" PRIu64 " of them faults\n", block_mode_name(i),
               test.cases[i], test.faults[i]);
    printf("%" PRIu64 " blocks translated, %" PRIu64 " superblocks, %" PRIu64 " differences\n",
           test.machine[FAST]->cpu->stats.blocks_translated,
           test.machine[HOT]->cpu->stats.superblocks, test.differences);
    for (unsigned i = 0; i < PROCESSORS; i++)
        if (test.machine[i])
            close_machine(test.machine[i]);
    return test.differences != 0;
}
