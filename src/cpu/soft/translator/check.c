/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Lockstep, see check.h. The interpreter goes first and leaves no trace outside of its trial, so
 * that nothing has to be undone, and other processors and devices see each instruction once, as
 * translated code does it.
 *
 * What can't be tried (I/O, MMIO, what reads clocks or changes the TLB) runs once, translated. All
 * of it is called by its handler there; the comparison then is of what was before that call.
 *
 * Memory may change under the two runs: by a device. So a difference is tried again on the memory
 * as it is then, and is none when what the interpreter reads is no longer the same.
 */
#include "cpu/soft/translator/check.h"

#include "cpu/soft/tlb.h"
#include "cpu/soft/translator/internal.h"
#include "cpu/soft/vector/vector.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>

enum {
    BLOCKS_A_TURN = 64,
    TRIES = 4,
    TLB_EMPTIED_EACH = 64, /* blocks, so that translated code has to miss it */
    MAX_STRING_CALLS = 4,
    MAX_STRING_ELEMENTS = 1 << 17,
    X87_BYTES = 160, /* of cpu->x87, an FXSAVE image: up to ST7 */
};

bool check_open(struct cpu *cpu, struct error *err)
{
    cpu->check = aligned_alloc(16, (sizeof(*cpu->check) + 15) & ~(size_t)15);
    if (!cpu->check)
        return error_errno(err, "cannot make what checks translated code", NULL, ENOMEM);
    memset(cpu->check, 0, sizeof(*cpu->check));
    cpu->check->trial = trial_create();
    if (cpu->check->trial)
        return true;
    check_close(cpu);
    return error_errno(err, "cannot make what checks translated code", NULL, ENOMEM);
}

void check_close(struct cpu *cpu)
{
    if (!cpu->check)
        return;
    trial_destroy(cpu->check->trial);
    free(cpu->check);
    cpu->check = NULL;
}

const struct error *check_failure(const struct cpu *cpu)
{
    return cpu->check && cpu->check->has_failed ? &cpu->check->error : NULL;
}

/* --- turns ---------------------------------------------------------------------------------- */

/* Who has the turn may wait for the others to drop write tags. */
static void take_turn(struct cpu *cpu)
{
    struct soft_system *system = cpu->system;
    uint32_t ticket = atomic_fetch_add(&system->check_next, 1);
    while (atomic_load(&system->check_serving) != ticket) {
        if (atomic_load(&cpu->requests) & REQUEST_SHOOTDOWN)
            code_page_serve(cpu);
        sched_yield();
    }
}

static void give_turn(struct cpu *cpu)
{
    atomic_fetch_add(&cpu->system->check_serving, 1);
}

void check_enter(struct cpu *cpu)
{
    if (cpu->check)
        take_turn(cpu);
}

void check_leave(struct cpu *cpu)
{
    if (cpu->check)
        give_turn(cpu);
}

void check_share(struct cpu *cpu)
{
    struct soft_system *system = cpu->system;
    bool is_awaited = atomic_load(&system->check_next) != atomic_load(&system->check_serving) + 1;
    if (++cpu->check->turns < BLOCKS_A_TURN || !is_awaited)
        return;
    cpu->check->turns = 0;
    give_turn(cpu);
    take_turn(cpu);
}

/* --- state ---------------------------------------------------------------------------------- */

/* Of struct cpu from CHECK_FROM on: without what x87 leaves free, and registers that no instruction
 * that may run twice changes. */
static void copy_rest(uint8_t *to, const uint8_t *from)
{
    static const struct {
        size_t from, to;
    } part[] = {
        {offsetof(struct cpu, rflags), offsetof(struct cpu, x87) + X87_BYTES},
        {offsetof(struct cpu, x87_rip), offsetof(struct cpu, gdtr)},
        {offsetof(struct cpu, kernel_gs_base), offsetof(struct cpu, sysenter_cs)},
        {offsetof(struct cpu, run_state), offsetof(struct cpu, sipi_vector)},
    };
    for (unsigned i = 0; i < sizeof(part) / sizeof(part[0]); i++)
        memcpy(to + (part[i].from - CHECK_FROM), from + (part[i].from - CHECK_FROM),
               part[i].to - part[i].from);
}

static void take(struct cpu *cpu, struct check_state *state, bool has_raised)
{
    vector_sync(cpu);
    memcpy(state->gpr, cpu->gpr, sizeof(state->gpr));
    state->rip = has_raised ? cpu_rip(cpu) : cpu->rip;
    state->cc = cpu->cc;
    state->cpl = cpu->cpl;
    state->tlb_view = cpu->tlb_view;
    state->mode = cpu->mode;
    state->has_raised = has_raised;
    state->is_translated = cpu->is_translated;
    state->pending = cpu->pending;
    state->op = cpu->op;
    state->block = cpu->block;
    copy_rest(state->rest, (const uint8_t *)cpu + CHECK_FROM);
}

static void put(struct cpu *cpu, const struct check_state *state)
{
    vector_unload(cpu);
    memcpy(cpu->gpr, state->gpr, sizeof(state->gpr));
    cpu->rip = state->rip;
    cpu->cc = state->cc;
    cpu->cpl = state->cpl;
    cpu->pending = state->pending;
    cpu->op = state->op;
    cpu->block = state->block;
    cpu->is_translated = state->is_translated;
    copy_rest((uint8_t *)cpu + CHECK_FROM, state->rest);
    cpu->x87_live = false; /* the image was brought up to date */
    if (cpu->mode != state->mode || cpu->tlb_view != state->tlb_view)
        cpu_update_mode(cpu);
}

struct reg {
    char name[12];
    uint16_t at, size_bytes; /* in struct cpu */
};

#define MEMBER(name, member)                                                                       \
    {                                                                                              \
        name, offsetof(struct cpu, member), sizeof(((struct cpu *)0)->member)                      \
    }
#define PART(name, member, i, size)                                                                \
    {                                                                                              \
        name, (uint16_t)(offsetof(struct cpu, member) + (i)), size                                 \
    }
#define GPR(name) MEMBER(#name, gpr[name])
#define VECTOR(n) MEMBER("YMM" #n, vector[n])
#define ST(n)     PART("ST" #n, x87, 32 + (n)*16, 10)
#define SEGMENT(s)                                                                                 \
    MEMBER(#s, segment[SEG_##s].selector), MEMBER(#s ".base", segment[SEG_##s].base),              \
        MEMBER(#s ".limit", segment[SEG_##s].limit),                                               \
        MEMBER(#s ".attr", segment[SEG_##s].attributes)

static const struct reg registers[] = {
    MEMBER("RIP", rip),
    MEMBER("RFLAGS", rflags),
    GPR(RAX),
    GPR(RCX),
    GPR(RDX),
    GPR(RBX),
    GPR(RSP),
    GPR(RBP),
    GPR(RSI),
    GPR(RDI),
    GPR(R8),
    GPR(R9),
    GPR(R10),
    GPR(R11),
    GPR(R12),
    GPR(R13),
    GPR(R14),
    GPR(R15),
    VECTOR(0),
    VECTOR(1),
    VECTOR(2),
    VECTOR(3),
    VECTOR(4),
    VECTOR(5),
    VECTOR(6),
    VECTOR(7),
    VECTOR(8),
    VECTOR(9),
    VECTOR(10),
    VECTOR(11),
    VECTOR(12),
    VECTOR(13),
    VECTOR(14),
    VECTOR(15),
    MEMBER("MXCSR", mxcsr),
    PART("FCW", x87, 0, 2),
    PART("FSW", x87, 2, 2),
    PART("FTW", x87, 4, 1),
    ST(0),
    ST(1),
    ST(2),
    ST(3),
    ST(4),
    ST(5),
    ST(6),
    ST(7),
    MEMBER("FIP", x87_rip),
    MEMBER("FDP", x87_rdp),
    MEMBER("FOP", x87_fop),
    MEMBER("CPL", cpl),
    SEGMENT(ES),
    SEGMENT(CS),
    SEGMENT(SS),
    SEGMENT(DS),
    SEGMENT(FS),
    SEGMENT(GS),
    MEMBER("GS.kernel", kernel_gs_base),
    MEMBER("CR0", cr0),
    MEMBER("CR2", cr2),
    MEMBER("CR4", cr4),
    MEMBER("STI shadow", interrupt_shadow),
    MEMBER("MOV shadow", mov_ss_shadow),
    MEMBER("NMI blocked", nmi_blocked),
};
enum { REGISTERS = sizeof(registers) / sizeof(registers[0]), NUMBER_RFLAGS = 1 };

unsigned check_register(const struct check_state *state, unsigned number,
                        uint8_t value[CHECK_VALUE_BYTES], const char **name)
{
    if (number >= REGISTERS)
        return 0;
    const struct reg *reg = &registers[number];
    const uint8_t *from;
    uint64_t rflags;
    *name = reg->name;
    if (reg->at >= CHECK_FROM)
        from = state->rest + (reg->at - CHECK_FROM);
    else if (reg->at == offsetof(struct cpu, rip))
        from = (const uint8_t *)&state->rip;
    else if (reg->at == offsetof(struct cpu, cpl))
        from = &state->cpl;
    else
        from = (const uint8_t *)&state->gpr[reg->at / 8];
    if (number == NUMBER_RFLAGS) {
        memcpy(&rflags, from, sizeof(rflags));
        rflags |= (state->cc >> 8 & RFLAGS_ARITHMETIC) | (state->cc & CC_OF ? RFLAGS_OF : 0);
        from = (const uint8_t *)&rflags;
    }
    memcpy(value, from, reg->size_bytes);
    return reg->size_bytes;
}

/* --- trial ---------------------------------------------------------------------------------- */

/* Whether an instruction may run twice: all that its handler changes is in struct check_state, or
 * memory. */
static bool is_system_repeatable(const ZydisDecodedInstruction *info,
                                 const ZydisDecodedOperand *operands)
{
    switch (info->mnemonic) {
    case ZYDIS_MNEMONIC_CLI:
    case ZYDIS_MNEMONIC_STI:
    case ZYDIS_MNEMONIC_CLAC:
    case ZYDIS_MNEMONIC_STAC:
    case ZYDIS_MNEMONIC_SWAPGS:
    case ZYDIS_MNEMONIC_SYSCALL:
    case ZYDIS_MNEMONIC_SYSRET:
    case ZYDIS_MNEMONIC_IRETQ:
    case ZYDIS_MNEMONIC_IRETD:
    case ZYDIS_MNEMONIC_LAR:
    case ZYDIS_MNEMONIC_LSL:
    case ZYDIS_MNEMONIC_VERR:
    case ZYDIS_MNEMONIC_VERW:
    case ZYDIS_MNEMONIC_RDFSBASE:
    case ZYDIS_MNEMONIC_RDGSBASE:
    case ZYDIS_MNEMONIC_WRFSBASE:
    case ZYDIS_MNEMONIC_WRGSBASE:
    case ZYDIS_MNEMONIC_UD2: return true;
    case ZYDIS_MNEMONIC_MOV:
        return operands[1].type == ZYDIS_OPERAND_TYPE_REGISTER &&
               (operands[1].reg.value == ZYDIS_REGISTER_CR0 ||
                operands[1].reg.value == ZYDIS_REGISTER_CR2 ||
                operands[1].reg.value == ZYDIS_REGISTER_CR3 ||
                operands[1].reg.value == ZYDIS_REGISTER_CR4);
    default: return false;
    }
}

static bool is_repeatable(const ZydisDecodedInstruction *info, const ZydisDecodedOperand *operands)
{
    /* IRET may switch tasks outside of 64-bit mode. */
    bool is_far = info->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR;
    if (is_far && info->machine_mode != ZYDIS_MACHINE_MODE_LONG_64)
        return false;
    if (is_far)
        return is_system_repeatable(info, operands);
    switch (info->mnemonic) {
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP:
    case ZYDIS_MNEMONIC_RDRAND:
    case ZYDIS_MNEMONIC_RDSEED:
    case ZYDIS_MNEMONIC_RDPMC:
    case ZYDIS_MNEMONIC_MONITOR:
    case ZYDIS_MNEMONIC_MWAIT: return false;
    /* They change PKRU, and with it what the TLB may hold. */
    case ZYDIS_MNEMONIC_WRPKRU:
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64: return false;
    default: break;
    }
    if (info->attributes & ZYDIS_ATTRIB_IS_PRIVILEGED)
        return is_system_repeatable(info, operands);
    switch (info->meta.category) {
    case ZYDIS_CATEGORY_INTERRUPT:
    case ZYDIS_CATEGORY_IO:
    case ZYDIS_CATEGORY_IOSTRINGOP:
    case ZYDIS_CATEGORY_SYSTEM: return is_system_repeatable(info, operands);
    default: return true;
    }
}

/* Fills check_ops: one more than the number of ops from the first on that may run twice. */
static void look_at(struct block *block)
{
    ZydisDecoder decoder;
    decoder_init(&decoder, block->mode);
    unsigned i = 0;
    for (; i < block->op_count; i++) {
        const struct op *op = &block->op[i];
        ZydisDecodedInstruction info;
        ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
        if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, block->bytes + op->offset, op->length,
                                                 &info, operands)) ||
            !is_repeatable(&info, operands))
            break;
        block->ends_in_string =
            info.meta.category == ZYDIS_CATEGORY_STRINGOP && (op->flags & OP_ENDS_BLOCK);
    }
    block->check_ops = (uint8_t)(i + 1);
}

_Static_assert(BLOCK_MAX_OPS < UINT8_MAX, "check_ops");

static uint64_t block_rip(const struct cpu *cpu)
{
    return cpu->check->before.rip;
}

/* A repeated string instruction until it is done: it gives way to interrupts after each element, as
 * the trial takes them one by one, and after many. */
static void finish_string(struct cpu *cpu, const struct op *op)
{
    const uint64_t rip = block_rip(cpu) + op->offset;
    for (unsigned calls = 1; cpu->rip == rip; calls++) {
        bool is_interrupted = atomic_load_explicit(&cpu->requests, memory_order_relaxed);
        if (calls >= (is_interrupted ? MAX_STRING_ELEMENTS : MAX_STRING_CALLS))
            siglongjmp(*cpu->trial->give_up, 1);
        op->fn(cpu, op);
    }
}

/* The same up to where translated code has left it. */
static void run_string_to(struct cpu *cpu, const struct op *op, uint64_t count)
{
    cpu->op = op;
    cpu_look(cpu); /* so that it does one element a call */
    while (cpu->gpr[RCX] != count) {
        op->fn(cpu, op);
        if (cpu->rip != block_rip(cpu) + op->offset)
            return;
    }
}

static void interpret(struct cpu *cpu)
{
    struct check *check = cpu->check;
    struct block *block = check->block;
    cpu->block = block;
    cpu->gpr[GPR_BLOCK_RIP] = cpu->rip;
    cpu->rip += block->size_bytes;
    for (check->begun = 0; check->begun < check->limit;) {
        const struct op *op = &block->op[check->begun];
        check->seen[check->begun++] = check->trial->seen;
        cpu->op = op;
        op->fn(cpu, op);
        if (op + 1 == block->end && block->ends_in_string)
            finish_string(cpu, op);
    }
    if (check->limit == block->op_count)
        return;
    const struct op *op = &block->op[check->limit];
    if (check->string_count != CHECK_NO_COUNT)
        run_string_to(cpu, op, check->string_count);
    cpu->rip = block_rip(cpu) + op->offset;
}

typedef void run_fn(struct cpu *cpu);

/* Whether it has raised. */
static bool run_caught(struct cpu *cpu, run_fn *run)
{
    if (sigsetjmp(cpu->check->caught, 0) != 0) {
        cpu->catcher = NULL;
        return true;
    }
    cpu->catcher = &cpu->check->caught;
    run(cpu);
    cpu->catcher = NULL;
    return false;
}

/* From the state `before`, which cpu has, to `expected`; cpu has that then. False: it has come to
 * something that can't be tried, in the last op that was begun. */
static bool try_block(struct cpu *cpu)
{
    struct check *check = cpu->check;
    sigjmp_buf give_up;
    check->trial->give_up = &give_up;
    if (sigsetjmp(give_up, 0) != 0) {
        cpu->catcher = NULL;
        trial_end(cpu);
        return false;
    }
    trial_begin(cpu, check->trial);
    bool has_raised = run_caught(cpu, interpret);
    check->seen[check->begun] = check->trial->seen;
    take(cpu, &check->expected, has_raised);
    trial_end(cpu);
    return true;
}

void check_try_again(struct cpu *cpu, unsigned limit, uint64_t string_count)
{
    struct check *check = cpu->check;
    check->limit = limit;
    check->string_count = string_count;
    trial_rewind(check->trial);
    put(cpu, &check->before);
    if (!try_block(cpu))
        check->begun = 0;
}

/* As far as it can go. False: not at all. */
static bool try_first(struct cpu *cpu)
{
    struct check *check = cpu->check;
    const struct engine_stats stats = cpu->stats;
    /* A breakpoint that was hit twice would show. */
    bool is_tried = check->limit > 0 && !cpu->debug_armed;
    trial_forget(check->trial);
    if (is_tried && !try_block(cpu)) {
        check->limit = check->begun - 1;
        is_tried = check->limit > 0;
        trial_forget(check->trial);
        put(cpu, &check->before);
        is_tried = is_tried && try_block(cpu);
    }
    memcpy(check->seen_first, check->seen, (check->begun + 1) * sizeof(check->seen[0]));
    check->begun_first = check->begun;
    put(cpu, &check->before);
    cpu->stats = stats;
    return is_tried && block_is_alive(check->block);
}

/* --- comparison ----------------------------------------------------------------------------- */

static void take_memory(struct check *check, unsigned first)
{
    const struct trial *trial = check->trial;
    for (unsigned i = first; i < trial->line_count; i++)
        memcpy(check->found_memory[i], trial->line[i].hva, TRIAL_LINE_BYTES);
    check->found_lines = trial->line_count;
}

uint8_t check_expected_byte(const struct check *check, unsigned line, unsigned i)
{
    const struct trial_line *of = &check->trial->line[line];
    return of->written >> i & 1 ? of->after[i] : of->before[i];
}

bool check_byte(const struct check *check, unsigned line, unsigned i)
{
    const struct trial_line *of = &check->trial->line[line];
    uint8_t different = check_expected_byte(check, line, i) ^ check->found_memory[line][i];
    return !(of->known >> i & 1) || !(different & ~of->walked[i]);
}

static bool is_memory_equal(const struct check *check)
{
    for (unsigned line = 0; line < check->trial->line_count; line++)
        for (uint64_t left = check->trial->line[line].known; left; left &= left - 1)
            if (!check_byte(check, line, (unsigned)__builtin_ctzll(left)))
                return false;
    return true;
}

/* The op that the state `found` stands at; the number of ops: none of the block. */
static unsigned op_found(const struct check *check)
{
    unsigned i = 0;
    while (i < check->block->op_count &&
           check->before.rip + check->block->op[i].offset != check->found->rip)
        i++;
    return i;
}

static uint16_t flags_before_op(struct cpu *cpu, unsigned i)
{
    struct unit *unit = &cpu->translator->unit;
    unit->cpu = cpu;
    unit->translator = cpu->translator;
    trace_take_alone(unit, cpu->check->block);
    if (!analyse(unit))
        return ALL_FLAGS;
    unit->facts = &unit->fact[i];
    return flags_live_before(unit);
}

/* The flags that matter where `found` is. */
static uint16_t flags_live(struct cpu *cpu)
{
    const struct check *check = cpu->check;
    const struct block *block = check->block;
    bool is_inside =
        check->has_stopped || check->found->has_raised || check->limit != block->op_count;
    unsigned i = op_found(check);
    if (cpu->system->translator.has_exact_flags)
        return ALL_FLAGS;
    if (is_inside)
        return i < block->op_count ? flags_before_op(cpu, i) : ALL_FLAGS;
    if (check->found->rip != check->before.rip + block->size_bytes)
        return block->live_taken;
    bool is_jump_to_end = (block->end - 1)->imm == 0; /* then it is the target, too */
    return is_jump_to_end ? block->live_next & block->live_taken : block->live_next;
}

/* Those that were stale when the block began, and that neither side has touched, are still so:
 * translated code may have looked further ahead than this block goes. */
uint16_t check_flags(struct cpu *cpu)
{
    const struct check *check = cpu->check;
    const uint16_t expected = check->expected.cc, found = check->found->cc;
    uint16_t untouched = (uint16_t) ~((expected ^ check->trial_cc) | (found ^ check->cc));
    uint16_t different = (expected ^ found) & (uint16_t)~untouched;
    if (!different)
        return 0;
    uint16_t live = flags_live(cpu);
    return different & (uint16_t)((live & 0xff) << 8 | (live & RFLAGS_OF ? CC_OF : 0));
}

static bool is_raised_equal(const struct check_state *a, const struct check_state *b)
{
    if (a->has_raised != b->has_raised)
        return false;
    return !a->has_raised ||
           (a->pending.vector == b->pending.vector &&
            a->pending.has_error_code == b->pending.has_error_code &&
            (!a->pending.has_error_code || a->pending.error_code == b->pending.error_code));
}

/* One look at all, and only when that says no one at each register: there is more in it than
 * registers. */
static bool are_registers_equal(const struct check_state *expected, const struct check_state *found)
{
    uint8_t a[CHECK_VALUE_BYTES], b[CHECK_VALUE_BYTES];
    const char *name;
    if (expected->rip == found->rip && expected->cpl == found->cpl &&
        memcmp(expected->gpr, found->gpr, GPR_ZERO * sizeof(uint64_t)) == 0 &&
        memcmp(expected->rest, found->rest, CHECK_BYTES) == 0)
        return true;
    for (unsigned i = 0, size; (size = check_register(expected, i, a, &name)) > 0; i++) {
        check_register(found, i, b, &name);
        if (i != NUMBER_RFLAGS && memcmp(a, b, size) != 0)
            return false;
    }
    uint64_t of_expected, of_found;
    memcpy(&of_expected, expected->rest, sizeof(of_expected));
    memcpy(&of_found, found->rest, sizeof(of_found));
    /* A repeated string instruction that gives way has RF only where somebody may see it. */
    return !((of_expected ^ of_found) & ~(uint64_t)RFLAGS_RF);
}

_Static_assert(CHECK_FROM == offsetof(struct cpu, rflags), "are_registers_equal");

static bool is_equal(struct cpu *cpu)
{
    const struct check *check = cpu->check;
    return are_registers_equal(&check->expected, check->found) &&
           is_raised_equal(&check->expected, check->found) && is_memory_equal(check) &&
           !check_flags(cpu);
}

/* Where translated code has left the block on purpose, to be compared with as many ops: because
 * code has changed, because the interpreter is to go on, or in a string instruction. */
static void find_early(struct cpu *cpu, unsigned *limit, uint64_t *string_count)
{
    const struct check *check = cpu->check;
    const struct block *block = check->block;
    unsigned i = op_found(check);
    if (check->has_stopped || check->found->has_raised || i >= block->op_count)
        return;
    bool is_string = i + 1 == block->op_count && block->ends_in_string;
    bool is_void = atomic_load_explicit(&cpu->requests, memory_order_relaxed) & REQUEST_VOID;
    if (!is_string && !is_void && !cpu->interprets_next)
        return;
    *limit = i;
    *string_count = is_string ? check->found->gpr[RCX] : CHECK_NO_COUNT;
}

enum verdict { SAME, DIFFERENT, DISTURBED };

/* Tries again what was different, with memory as it is now, and looks whether it has changed. */
static enum verdict judge(struct cpu *cpu)
{
    struct check *check = cpu->check;
    unsigned limit = check->limit;
    uint64_t string_count = CHECK_NO_COUNT;
    const struct engine_stats stats = cpu->stats;
    if (is_equal(cpu))
        return SAME;
    find_early(cpu, &limit, &string_count);
    enum verdict verdict = DIFFERENT;
    for (unsigned tries = 0; tries < TRIES; tries++) {
        check_try_again(cpu, limit, string_count);
        unsigned begun = check->begun;
        take_memory(check, check->found_lines);
        if (is_equal(cpu)) {
            verdict = SAME;
            break;
        }
        bool is_known = string_count == CHECK_NO_COUNT && begun <= check->begun_first;
        if (is_known && check->seen[begun] != check->seen_first[begun]) {
            verdict = DISTURBED;
            break;
        }
    }
    if (verdict == DIFFERENT)
        check_report(cpu);
    put(cpu, &check->after);
    cpu->stats = stats;
    return verdict;
}

/* --- running -------------------------------------------------------------------------------- */

static void run_translated(struct cpu *cpu)
{
    translator_enter(cpu, cpu->check->block);
}

void check_handler(struct cpu *cpu, const struct op *op)
{
    struct check *check = cpu->check;
    if (op != check->stop || cpu->trial)
        return;
    take(cpu, &check->stopped, false);
    check->stopped.rip = cpu_rip(cpu);
    take_memory(check, 0);
    check->has_stopped = true;
    check->found = &check->stopped;
    check->stop = NULL;
}

/* Flags that translated code may leave stale are in the trial as they should be. */
static void begin(struct cpu *cpu, struct block *block)
{
    struct check *check = cpu->check;
    cpu->op = NULL;
    cpu->link_site = 0;
    check->was_x87_live = cpu->x87_live;
    vector_unload(cpu);
    take(cpu, &check->before, false);
    check->cc = check->trial_cc = cpu->cc;
    if (check->has_cc && check->last_rip == cpu->rip && check->last_cc == cpu->cc)
        cpu->cc = check->before.cc = check->trial_cc = check->true_cc;
    if (!block->check_ops)
        look_at(block);
    check->block = block;
    check->code = block->code;
    check->limit = block->check_ops - 1u;
    check->string_count = CHECK_NO_COUNT;
    check->stop = NULL;
    check->has_stopped = false;
    check->found = &check->after;
    check->found_lines = 0;
    check->has_cc = false;
}

static void finish(struct cpu *cpu, bool is_whole)
{
    struct check *check = cpu->check;
    enum verdict verdict = judge(cpu);
    if (verdict == DIFFERENT) {
        check->has_failed = true;
        cpu_look(cpu);
    }
    cpu->stats.blocks_disturbed += verdict == DISTURBED;
    cpu->stats.blocks_checked += verdict == SAME && is_whole;
    cpu->stats.blocks_checked_partly += verdict == SAME && !is_whole;
    check->has_cc = verdict == SAME && is_whole && !check->after.has_raised;
    check->last_rip = check->after.rip;
    check->last_cc = check->after.cc;
    check->true_cc = check->expected.cc;
}

void check_block(struct cpu *cpu, struct block *block)
{
    struct check *check = cpu->check;
    begin(cpu, block);
    if (++check->counter % TLB_EMPTIED_EACH == 0)
        tlb_empty(cpu);
    bool is_tried = try_first(cpu);
    bool is_whole = check->limit == block->op_count;
    cpu->cc = check->cc;
    if (check->was_x87_live)
        vector_load(cpu);
    check->stop = is_tried && !is_whole ? &block->op[check->limit] : NULL;
    bool has_raised = run_caught(cpu, run_translated);
    check->stop = NULL;
    take(cpu, &check->after, has_raised);
    if (!check->has_stopped)
        take_memory(check, 0);
    /* A string that is too long to be tried may be done without its handler. */
    if (is_tried && (is_whole || check->has_stopped || !block->ends_in_string))
        finish(cpu, is_whole);
    else
        cpu->stats.blocks_unchecked++;
    if (has_raised)
        siglongjmp(cpu->unwind, 1);
}
