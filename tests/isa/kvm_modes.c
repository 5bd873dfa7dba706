/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Blocks of random instructions outside of 64-bit mode (blocks.h) on KVM and on the interpreter:
 * registers, segments, faults and memory have to be the same. What user code does, isa-random and
 * isa-translator compare with the host; here is what only a kernel can do, and real mode.
 *
 *     test-isa-kvm-modes [CASES [SEED [MODE]]]
 *
 * Where the host's kernel imitates guest kernels in software (kvm_pvm), it knows few instructions:
 * what ends there by a failure, by a shutdown (it delivers no exception in protected mode), by
 * another #UD than the interpreter's, or goes on where the interpreter refuses, is counted only.
 */
#include "bus/bus.h"
#include "bus/ram.h"
#include "cpu/engine.h"
#include "cpu/soft/core.h"
#include "isa/blocks.h"

#include <assert.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

enum { DEFAULT_CASES = 20000, MAX_DIFFERENCES = 10, LIMIT_US = 20000, MAX_INSTRUCTIONS = 200 };
enum { RESULT_ENDED, RESULT_SHUTDOWN, RESULT_LOST, RESULT_FAILED };

struct guest {
    const struct engine *engine;
    struct ram *ram; /* ROM, too: it is laid over */
    struct bus *bus;
    struct engine_vm *vm;
    struct engine_vcpu *vcpu;
    bool is_long;    /* the tables in ROM */
    bool has_ended;  /* by the port */
    bool has_missed; /* it has come where no RAM is */
};

struct result {
    int kind;
    struct x86_state state;
    uint8_t memory[BLOCK_RAM_BYTES];
};

/* --- guests ------------------------------------------------------------------------------- */

static void check(bool ok, const struct error *err)
{
    if (ok)
        return;
    fprintf(stderr, "%s %s: %s\n", err->what, err->where, err->cause);
    exit(1);
}

/* Where neither ROM nor RAM is; and writes to ROM. */
static uint64_t nothing_read(void *opaque, uint64_t offset, unsigned size_bytes)
{
    struct guest *guest = opaque;
    guest->has_missed = true;
    return UINT64_MAX;
}

static void nothing_write(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    struct guest *guest = opaque;
    guest->has_missed = true;
}

static void end_write(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    struct guest *guest = opaque;
    guest->has_ended = true;
    guest->engine->kick(guest->vcpu);
}

static int no_interrupt(void *opaque, unsigned vcpu)
{
    return -1;
}

static uint64_t no_cr8(void *opaque, unsigned vcpu)
{
    return 0;
}

static void write_cr8(void *opaque, unsigned vcpu, uint64_t value) {}

static bool read_msr(void *opaque, unsigned vcpu, uint32_t msr, uint64_t *value)
{
    return false;
}

static bool write_msr(void *opaque, unsigned vcpu, uint32_t msr, uint64_t value)
{
    return false;
}

static void map_bus(struct guest *guest)
{
    const struct bus_range end = {.name = "end",
                                  .space = BUS_PORT,
                                  .base = BLOCK_END_PORT,
                                  .size_bytes = 1,
                                  .write = end_write,
                                  .opaque = guest};
    const struct bus_range nothing = {.name = "nothing",
                                      .space = BUS_MMIO,
                                      .base = 0,
                                      .size_bytes = UINT64_C(1) << 32,
                                      .read = nothing_read,
                                      .write = nothing_write,
                                      .opaque = guest};
    bool ok = bus_map(guest->bus, &end, NULL) && bus_map(guest->bus, &nothing, NULL);
    assert(ok);
}

static uint8_t *rom_of(const struct guest *guest)
{
    return ram_hva(guest->ram, 0, BLOCK_ROM_BYTES);
}

static void guest_open(struct guest *guest, const struct engine *engine, const char *options)
{
    struct error err = {0};
    *guest = (struct guest){.engine = engine};
    guest->ram = ram_create(BLOCK_ROM_BYTES + BLOCK_RAM_BYTES, &err);
    check(guest->ram, &err);
    guest->bus = bus_create(NULL);
    map_bus(guest);
    const struct engine_config config = {
        .options = options,
        .vcpu_count = 1,
        .topology = {1, 1, 1},
        .ram = guest->ram,
        .bus = guest->bus,
        .hooks = {guest, no_interrupt, no_cr8, write_cr8, read_msr, write_msr, NULL},
        .counts_instructions = true,
    };
    guest->vm = engine->vm_open(&config, &err);
    check(guest->vm, &err);
    const struct physmap_range ranges[] = {
        {.gpa = 0, .size_bytes = BLOCK_ROM_BYTES, .hva = rom_of(guest), .read_only = true},
        {.gpa = BLOCK_ROM_BYTES,
         .size_bytes = BLOCK_RAM_BYTES,
         .hva = ram_hva(guest->ram, BLOCK_ROM_BYTES, BLOCK_RAM_BYTES)},
    };
    check(engine->set_memory(guest->vm, ranges, 2, &err), &err);
    guest->vcpu = engine->vcpu_open(guest->vm, 0, &err);
    check(guest->vcpu, &err);
    block_make_tables(rom_of(guest), false, BLOCK_OUTS);
}

static void guest_close(struct guest *guest)
{
    guest->engine->vcpu_close(guest->vcpu);
    guest->engine->vm_close(guest->vm);
    bus_destroy(guest->bus);
    ram_destroy(guest->ram);
}

static uint64_t instructions_of(const struct guest *guest)
{
    struct engine_stats stats = {0};
    guest->engine->stats(guest->vm, &stats);
    return stats.instructions;
}

/* --- running ------------------------------------------------------------------------------ */

/* A block that has gone astray may never end. */
static struct guest *volatile watched;

static void stop_watched(int signal)
{
    if (watched)
        watched->engine->kick(watched->vcpu);
}

static void put_block(struct guest *guest, const struct x86_state *in, const uint8_t *memory,
                      const struct random_block *block)
{
    bool is_long = in->efer & EFER_LMA;
    uint8_t *rom = rom_of(guest);
    if (is_long != guest->is_long)
        block_make_tables(rom, is_long, BLOCK_OUTS);
    guest->is_long = is_long;
    memset(rom + BLOCK_CODE, 0, BLOCK_ROM_BYTES - BLOCK_CODE); /* code can be read */
    memcpy(rom + block_gpa(block, in), block->bytes, block->length);
    ram_written(guest->ram, 0, BLOCK_ROM_BYTES);
    memcpy(ram_hva(guest->ram, BLOCK_ROM_BYTES, BLOCK_RAM_BYTES), memory, BLOCK_RAM_BYTES);
    ram_written(guest->ram, BLOCK_ROM_BYTES, BLOCK_RAM_BYTES);
}

static void run(struct guest *guest, const struct x86_state *in, const uint8_t *memory,
                const struct random_block *block, struct result *result)
{
    const struct itimerval limit = {.it_value.tv_usec = LIMIT_US}, none = {0};
    struct engine_exit exit = {0};
    struct error err = {0};
    put_block(guest, in, memory, block);
    check(guest->engine->set_state(guest->vcpu, in, &err), &err);
    guest->has_ended = guest->has_missed = false;
    watched = guest;
    setitimer(ITIMER_REAL, &limit, NULL);
    guest->engine->run(guest->vcpu, &exit);
    setitimer(ITIMER_REAL, &none, NULL);
    watched = NULL;
    check(guest->engine->get_state(guest->vcpu, &result->state, &err), &err);
    memcpy(result->memory, ram_hva(guest->ram, BLOCK_ROM_BYTES, BLOCK_RAM_BYTES), BLOCK_RAM_BYTES);
    result->kind = exit.reason == ENGINE_EXIT_SHUTDOWN ? RESULT_SHUTDOWN
                   : exit.reason == ENGINE_EXIT_FAILED ? RESULT_FAILED
                   : guest->has_ended                  ? RESULT_ENDED
                                                       : RESULT_LOST;
}

/* --- comparing ---------------------------------------------------------------------------- */

static bool segments_are_equal(const struct x86_segment *a, const struct x86_segment *b)
{
    /* Of a register that is loaded with a null selector, nothing else matters. */
    if (a->attributes & SEGMENT_UNUSABLE)
        return a->selector == b->selector && !(b->attributes & SEGMENT_P);
    const uint32_t compared = ~1u; /* accessed: tables are in ROM */
    return a->selector == b->selector && a->base == b->base && a->limit == b->limit &&
           ((a->attributes ^ b->attributes) & compared) == 0;
}

/* Without the x87's opcode and pointers, which AMD's processors mostly hide. */
static bool units_are_equal(const uint8_t *a, const uint8_t *b)
{
    for (unsigned i = 0; i < 8; i++)
        if (memcmp(a + 32 + i * 16, b + 32 + i * 16, 10) != 0 ||
            memcmp(a + 160 + i * 16, b + 160 + i * 16, 16) != 0 ||
            memcmp(a + 576 + i * 16, b + 576 + i * 16, 16) != 0)
            return false;
    return memcmp(a, b, 5) == 0 && memcmp(a + 24, b + 24, 4) == 0;
}

static bool is_equal(const struct result *a, const struct result *b)
{
    if (a->kind != b->kind)
        return false;
    if (a->kind != RESULT_ENDED) /* what is left after a shutdown is nobody's */
        return true;
    for (unsigned i = 0; i < 8; i++)
        if ((uint32_t)a->state.gpr[i] != (uint32_t)b->state.gpr[i])
            return false;
    for (unsigned i = SEG_ES; i <= SEG_GS; i++)
        if (!segments_are_equal(&a->state.segment[i], &b->state.segment[i]))
            return false;
    return a->state.rip == b->state.rip && a->state.rflags == b->state.rflags &&
           a->state.cr0 == b->state.cr0 && units_are_equal(a->state.xsave, b->state.xsave) &&
           (block_vector(&a->state, BLOCK_OUTS) != VECTOR_PF || a->state.cr2 == b->state.cr2) &&
           memcmp(a->memory, b->memory, sizeof(a->memory)) == 0;
}

static void print_difference(const struct random_block *block, const struct x86_state *in,
                             const struct result *soft, const struct result *kvm, uint64_t seed)
{
    printf("%s: difference; repeat with: 1 0x%" PRIx64 " %u\n", block_mode_name(block->mode), seed,
           (unsigned)block->mode);
    block_print(block);
    printf("  interpreter, KVM: end %d %d, vector %d %d, rip %" PRIx64 " %" PRIx64
           ", flags %" PRIx64 " %" PRIx64 ", cr2 %" PRIx64 " %" PRIx64 "\n",
           soft->kind, kvm->kind, block_vector(&soft->state, BLOCK_OUTS),
           block_vector(&kvm->state, BLOCK_OUTS), soft->state.rip, kvm->state.rip,
           soft->state.rflags, kvm->state.rflags, soft->state.cr2, kvm->state.cr2);
    for (unsigned i = 0; i < 8; i++)
        if ((uint32_t)soft->state.gpr[i] != (uint32_t)kvm->state.gpr[i])
            printf("  register %u: %" PRIx64 " %" PRIx64 ", was %" PRIx64 "\n", i,
                   soft->state.gpr[i], kvm->state.gpr[i], in->gpr[i]);
    for (unsigned i = SEG_ES; i <= SEG_GS; i++) {
        const struct x86_segment *a = &soft->state.segment[i], *b = &kvm->state.segment[i];
        if (!segments_are_equal(a, b))
            printf("  segment %u: %x %" PRIx64 " %x %x, %x %" PRIx64 " %x %x\n", i, a->selector,
                   a->base, a->limit, a->attributes, b->selector, b->base, b->limit, b->attributes);
    }
    if (!units_are_equal(soft->state.xsave, kvm->state.xsave))
        printf("  x87, MMX or vector registers\n");
    for (unsigned i = 0, shown = 0; i < BLOCK_RAM_BYTES && shown < 16; i++)
        if (soft->memory[i] != kvm->memory[i])
            printf("  memory at %x: %02x %02x\n", i + BLOCK_ROM_BYTES, soft->memory[i],
                   kvm->memory[i]),
                shown++;
}

/* --- cases -------------------------------------------------------------------------------- */

struct test {
    struct guest soft, kvm;
    bool is_imitated;
    uint8_t pool[2 * BLOCK_RAM_BYTES];
    uint64_t cases[BLOCK_MODES], faults[BLOCK_MODES], unknown[BLOCK_MODES], differences;
};

/* What the emulator of a KVM that imitates guest kernels does otherwise. */
static bool is_done_otherwise(const ZydisDecodedInstruction *info)
{
    switch (info->mnemonic) {
    case ZYDIS_MNEMONIC_INT:
    case ZYDIS_MNEMONIC_INT1:
    case ZYDIS_MNEMONIC_INT3:
    case ZYDIS_MNEMONIC_INTO:
    case ZYDIS_MNEMONIC_TZCNT:
    case ZYDIS_MNEMONIC_LZCNT: return true;
    default:
        return info->meta.isa_set == ZYDIS_ISA_SET_FAT_NOP ||
               info->meta.isa_set == ZYDIS_ISA_SET_PENTIUMMMX;
    }
}

/* What such a KVM does not know, or not check: see above. Virtual-8086 mode it takes for real mode;
 * it lets accesses wrap at 4 GiB and go by a null selector, which processors do not. */
static bool is_unknown(const struct test *test, const struct random_block *block,
                       const struct result *soft, const struct result *kvm)
{
    ZydisDecodedInstruction info;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    int wanted = block_vector(&soft->state, BLOCK_OUTS);
    bool is_refused = soft->kind == RESULT_SHUTDOWN || wanted == VECTOR_GP || wanted == VECTOR_SS ||
                      wanted == VECTOR_UD;
    bool is_known = !is_refused && kvm->kind == RESULT_ENDED && block->mode != V86 &&
                    block_vector(&kvm->state, BLOCK_OUTS) != VECTOR_UD;
    for (unsigned at = 0; is_known && block_decode(block, at, &info, operands); at += info.length)
        is_known = !is_done_otherwise(&info);
    return test->is_imitated && !is_known;
}

static uint64_t run_case(void *opaque, enum block_mode mode, uint64_t seed)
{
    struct test *test = opaque;
    static struct result soft, kvm;
    struct random random = {.state = seed};
    struct x86_state in;
    struct random_block block;
    block_make(&random, mode, BLOCK_OUTS, &in, &block);
    const uint8_t *memory = test->pool + random_below(&random, BLOCK_RAM_BYTES / 8) * 8;
    uint64_t before = instructions_of(&test->soft);
    run(&test->soft, &in, memory, &block, &soft);
    bool is_astray = instructions_of(&test->soft) - before > MAX_INSTRUCTIONS;
    /* What comes to the bus is emulated by KVM on every processor: its flags may be others. */
    if (block.is_open || is_astray || soft.kind == RESULT_LOST || test->soft.has_missed)
        return test->differences;
    run(&test->kvm, &in, memory, &block, &kvm);
    bool is_same = is_equal(&soft, &kvm);
    if (!is_same && is_unknown(test, &block, &soft, &kvm)) {
        test->unknown[mode]++;
        return test->differences;
    }
    test->cases[mode]++;
    test->faults[mode] += block_vector(&soft.state, BLOCK_OUTS) >= 0;
    if (!is_same && test->differences++ < MAX_DIFFERENCES)
        print_difference(&block, &in, &soft, &kvm, seed);
    return test->differences;
}

int main(int argc, char **argv)
{
    static struct test test;
    struct engine_probe probe;
    engine_kvm.probe(&probe);
    if (!probe.available) {
        printf("%s %s: %s\n", probe.error.what, probe.error.where, probe.error.cause);
        return 77;
    }
    printf("%s\n", probe.detail);
    test.is_imitated = !probe.backed_by_hardware;
    guest_open(&test.soft, &engine_soft, "translator=off");
    guest_open(&test.kvm, &engine_kvm, NULL);
    random_pool(test.pool, sizeof(test.pool));
    signal(SIGALRM, stop_watched);
    block_run_cases(argc, argv, DEFAULT_CASES, run_case, &test);
    for (unsigned i = 0; i < BLOCK_MODES; i++)
        printf("%s: %" PRIu64 " cases, %" PRIu64 " of them faults; %" PRIu64 " unknown to KVM\n",
               block_mode_name(i), test.cases[i], test.faults[i], test.unknown[i]);
    printf("%" PRIu64 " differences\n", test.differences);
    guest_close(&test.soft);
    guest_close(&test.kvm);
    return test.differences != 0;
}
