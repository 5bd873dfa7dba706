/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Old modes under a guest that means no good: random descriptor tables, gates, TSSs and stacks, and
 * code made of what uses them, with and without paging. Whatever it does, the processor has to stay
 * in a state that the manual allows: SDM 3A 5.5 (CPL, RPL, DPL), 20.2 (segments of virtual-8086
 * mode).
 *
 * HOSTILE_SEED=N runs one case, HOSTILE_CASES=N so many.
 */
#include "isa/harness.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>

#include <cmocka.h>

enum {
    CASES = 3000,
    ENTRIES = 24, /* of the GDT; behind those of the harness */
    FIRST_ENTRY = 9,
    TSS_AREA = FREE_PAGE, /* one every 256 bytes */
    TSS_COUNT = 4,
    LDT_AT = FREE_PAGE + PAGE_BYTES,
    DIRECTORY = FREE_PAGE + 2 * PAGE_BYTES, /* 32-bit paging, its one table behind it */
    CODE_BYTES = 512,
    KICK_US = 300,
    LEVEL1_CS = FIRST_ENTRY * 8 + 1,
    LEVEL1_SS = LEVEL1_CS + 8,
    LEVEL2_CS = LEVEL1_CS + 16 + 1,
    LEVEL2_SS = LEVEL2_CS + 8,
};

static struct cpu *kicked; /* for the signal handler */

static void kick(int number)
{
    cpu_request(kicked, REQUEST_KICK);
}

/* --- chance ------------------------------------------------------------------------------------
 */

struct chance {
    uint64_t state;
};

static uint32_t roll(struct chance *c, uint32_t below)
{
    c->state ^= c->state << 13;
    c->state ^= c->state >> 7;
    c->state ^= c->state << 17;
    return (uint32_t)(c->state >> 32) % below;
}

static bool is_likely(struct chance *c)
{
    return roll(c, 8) != 0;
}

static uint16_t any_selector(struct chance *c)
{
    if (!is_likely(c))
        return (uint16_t)roll(c, 0x10000);
    unsigned index = roll(c, FIRST_ENTRY + ENTRIES);
    return (uint16_t)(index * 8 + (is_likely(c) ? 0 : 4) + (roll(c, 2) ? 0 : roll(c, 4)));
}

static uint32_t any_flags(struct chance *c)
{
    uint32_t flags = 2 | roll(c, 4) << 12;
    flags |= roll(c, 4) == 0 ? (uint32_t)RFLAGS_VM : 0;
    flags |= roll(c, 4) == 0 ? (uint32_t)RFLAGS_NT : 0;
    flags |= roll(c, 2) ? (uint32_t)RFLAGS_IF : 0;
    flags |= roll(c, 16) == 0 ? (uint32_t)RFLAGS_TF : 0;
    return flags | (roll(c, 4) == 0 ? (uint32_t)(RFLAGS_VIF | RFLAGS_VIP) : 0);
}

static uint32_t any_address(struct chance *c)
{
    return is_likely(c) ? CODE + roll(c, CODE_BYTES) : roll(c, RAM_BYTES);
}

/* --- tables ------------------------------------------------------------------------------------
 */

static uint64_t make_descriptor(uint32_t base, uint32_t limit, uint32_t attributes)
{
    return (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)attributes << 40 |
           (uint64_t)(limit >> 16 & 0xf) << 48 | (uint64_t)(base >> 24) << 56;
}

static uint64_t make_gate(struct chance *c, unsigned type)
{
    uint32_t offset = any_address(c);
    uint64_t low = (offset & 0xffff) | (uint64_t)any_selector(c) << 16;
    uint64_t rights = (is_likely(c) ? 0x80 : 0) | roll(c, 4) << 5 | type;
    return low | (uint64_t)roll(c, 4) << 32 | rights << 40 | (uint64_t)(offset >> 16) << 48;
}

static uint64_t any_descriptor(struct chance *c)
{
    static const uint8_t gates[] = {TYPE_CALL_GATE16, TYPE_CALL_GATE32, TYPE_TASK_GATE};
    uint32_t rights = (is_likely(c) ? 0x80 : 0) | roll(c, 4) << 5;
    switch (roll(c, 6)) {
    case 0:
        return make_descriptor(TSS_AREA + roll(c, TSS_COUNT) * 256,
                               is_likely(c) ? 0xff : roll(c, 0xff),
                               rights | (roll(c, 2) ? TYPE_TSS32 : TYPE_TSS16));
    case 1: return make_gate(c, gates[roll(c, 3)]);
    case 2: return make_descriptor(LDT_AT, 0xff, rights | TYPE_LDT);
    default:
        return make_descriptor(is_likely(c) ? 0 : roll(c, RAM_BYTES),
                               is_likely(c) ? 0xfffff : roll(c, 0x100000),
                               rights | SEGMENT_S | roll(c, 16) | (is_likely(c) ? 0xc000 : 0));
    }
}

static void put32(struct harness *h, uint64_t gpa, uint32_t value)
{
    memcpy(h->ram + gpa, &value, sizeof(value));
}

/* Doublewords that are good for a TSS of either size, and for a stack. */
static uint32_t any_word(struct chance *c)
{
    switch (roll(c, 4)) {
    case 0: return any_flags(c);
    case 1: return any_address(c);
    case 2: return STACK0 - roll(c, 64) * 4;
    default: return any_selector(c);
    }
}

static void make_tss(struct harness *h, struct chance *c, uint64_t at)
{
    for (unsigned i = 0; i < 256; i += 4)
        put32(h, at + i, any_word(c));
    if (!is_likely(c))
        return;
    put32(h, at + 4, STACK0);
    put32(h, at + 8, KERNEL_SS);
    put32(h, at + 28, DIRECTORY);
    put32(h, at + 32, any_address(c));
    put32(h, at + 36, any_flags(c));
    put32(h, at + 56, STACK_IST);
    put32(h, at + 96, 0);
    for (unsigned i = SEG_ES; i <= SEG_GS; i++)
        put32(h, at + 72 + 4 * i, i == SEG_CS ? KERNEL_CS32 : KERNEL_SS);
}

/* Handlers go on somewhere, at their level, with a stack that is good at level 0. */
static void make_handler(struct harness *h, struct chance *c, uint64_t at)
{
    static const uint8_t mov_esp = 0xbc, jmp = 0xe9;
    h->ram[at] = mov_esp;
    put32(h, at + 1, STACK0 - roll(c, 32) * 4);
    h->ram[at + 5] = jmp;
    put32(h, at + 6, (uint32_t)(CODE + roll(c, CODE_BYTES) - (at + 10)));
}

static void make_tables(struct harness *h, struct chance *c)
{
    static const uint8_t gates[] = {TYPE_INTERRUPT_GATE32, TYPE_TRAP_GATE32, TYPE_INTERRUPT_GATE16,
                                    TYPE_TRAP_GATE16,      TYPE_TASK_GATE,   TYPE_INTERRUPT_GATE32};
    for (unsigned i = 0; i < ENTRIES; i++)
        harness_put64(h, GDT + (FIRST_ENTRY + i) * 8, any_descriptor(c));
    harness_put64(h, GDT + (LEVEL1_CS & ~3), UINT64_C(0x00cfbb000000ffff));
    harness_put64(h, GDT + (LEVEL1_SS & ~3), UINT64_C(0x00cfb3000000ffff));
    harness_put64(h, GDT + (LEVEL2_CS & ~3), UINT64_C(0x00cfdb000000ffff));
    harness_put64(h, GDT + (LEVEL2_SS & ~3), UINT64_C(0x00cfd3000000ffff));
    for (unsigned i = 0; i < 32; i++)
        harness_put64(h, LDT_AT + i * 8, any_descriptor(c));
    for (unsigned vector = 0; vector < 256; vector++)
        if (roll(c, 4) == 0)
            harness_put64(h, IDT + vector * 8, make_gate(c, gates[roll(c, 6)]));
    for (unsigned vector = 0; vector < 256; vector++)
        if (is_likely(c))
            make_handler(h, c, HANDLERS + vector * 16);
    for (unsigned i = 0; i < TSS_COUNT; i++)
        make_tss(h, c, TSS_AREA + i * 256);
    for (unsigned i = 0; i < 256; i += 4)
        put32(h, STACK0 - 256 + i, any_word(c));
}

/* One to one, with some pages of the tables, stacks and code gone, read-only or the kernel's. */
static void make_paging(struct harness *h, struct chance *c, struct x86_state *state)
{
    const uint32_t all = PTE_P | PTE_W | PTE_U;
    put32(h, DIRECTORY, (DIRECTORY + PAGE_BYTES) | all);
    put32(h, DIRECTORY + 4, 0x400000 | PTE_PS | all);
    for (uint32_t n = 0; n < 1024; n++) {
        uint32_t flags = roll(c, 12) == 0 ? roll(c, 8) : all;
        put32(h, DIRECTORY + PAGE_BYTES + n * 4, n * PAGE_BYTES | flags);
    }
    state->cr0 |= CR0_PG | CR0_WP;
    state->cr3 = DIRECTORY;
    state->cr4 |= CR4_PSE;
}

/* --- code --------------------------------------------------------------------------------------
 */

struct code {
    uint8_t bytes[CODE_BYTES + 32];
    unsigned count;
};

static void emit(struct code *code, const void *bytes, unsigned count)
{
    if (code->count + count > CODE_BYTES)
        return;
    memcpy(code->bytes + code->count, bytes, count);
    code->count += count;
}

static void emit_byte(struct code *code, uint8_t byte)
{
    emit(code, &byte, 1);
}

/* PUSH imm32. */
static void emit_push(struct code *code, uint32_t value)
{
    emit_byte(code, 0x68);
    emit(code, &value, 4);
}

static void emit_far(struct code *code, struct chance *c)
{
    uint32_t offset = any_address(c);
    uint16_t selector = any_selector(c);
    emit_byte(code, roll(c, 2) ? 0x9a : 0xea);
    emit(code, &offset, 4);
    emit(code, &selector, 2);
}

/* MOV AX, selector, and something that takes it. */
static void emit_selector(struct code *code, struct chance *c)
{
    static const char users[][3] = {
        {'\x8e', '\xc0', 0},      {'\x8e', '\xd0', 0},      {'\x8e', '\xd8', 0},
        {'\x8e', '\xe8', 0},      {'\x0f', '\x00', '\xd0'}, {'\x0f', '\x00', '\xd8'},
        {'\x0f', '\x02', '\xc8'}, {'\x0f', '\x03', '\xc8'}, {'\x0f', '\x00', '\xe0'},
        {'\x0f', '\x00', '\xe8'},
    };
    uint16_t selector = any_selector(c);
    unsigned which = roll(c, 10);
    emit(code, "\x66\xb8", 2);
    emit(code, &selector, 2);
    emit(code, users[which], which < 4 ? 2 : 3);
}

/* What a frame for IRET or RET needs to be good: to levels 1 to 3, or virtual-8086 mode. */
static void emit_good_frame(struct code *code, struct chance *c)
{
    static const uint16_t ss[] = {KERNEL_SS, LEVEL1_SS, LEVEL2_SS, USER_SS};
    static const uint16_t cs[] = {KERNEL_CS32, LEVEL1_CS, LEVEL2_CS, USER_CS32};
    unsigned level = roll(c, 4);
    uint32_t offset = roll(c, CODE_BYTES);
    if (level == 0) {
        for (unsigned i = 0; i < 5; i++)
            emit_push(code, i == 4 ? 0 : CODE >> 4);
        emit_push(code, STACK0);
        emit_push(code, any_flags(c) | RFLAGS_VM);
        emit_push(code, CODE >> 4);
        emit_push(code, offset);
        return;
    }
    emit_push(code, ss[level]);
    emit_push(code, STACK3);
    if (roll(c, 2))
        emit_push(code, any_flags(c) & ~(uint32_t)RFLAGS_VM);
    emit_push(code, cs[level]);
    emit_push(code, CODE + offset);
}

static void emit_return(struct code *code, struct chance *c)
{
    if (roll(c, 2)) {
        emit_good_frame(code, c);
    } else {
        for (unsigned i = roll(c, 10); i > 0; i--)
            emit_push(code, any_word(c));
        emit_push(code, any_flags(c));
        emit_push(code, any_selector(c));
        emit_push(code, any_address(c));
    }
    if (!is_likely(c))
        emit_byte(code, 0x66);
    emit_byte(code, roll(c, 3) ? 0xcf : 0xcb);
}

/* No SYSEXIT, which leaves data segments of level 0 in level 3. */
static void emit_any(struct code *code, struct chance *c)
{
    static const char others[][3] = {"\xfa", "\xfb", "\x9c",     "\x9d",     "\xcc",    "\xce",
                                     "\x1e", "\x07", "\x0f\xa1", "\xf4",     "\xec",    "\x6c",
                                     "\x1f", "\x17", "\x63\xc8", "\xc4\x03", "\x0f\x34"};
    switch (roll(c, 6)) {
    case 0: emit_far(code, c); break;
    case 1: emit_selector(code, c); break;
    case 2: emit_return(code, c); break;
    case 3:
        emit_byte(code, 0xcd);
        emit_byte(code, (uint8_t)roll(c, 256));
        break;
    case 4: {
        const char *other = others[roll(c, 17)];
        emit(code, other, (unsigned)strlen(other));
        break;
    }
    default: emit_push(code, any_word(c));
    }
}

/* --- one case ----------------------------------------------------------------------------------
 */

static bool is_v86_sound(const struct x86_state *s)
{
    for (unsigned i = SEG_ES; i <= SEG_GS; i++) {
        const struct x86_segment *segment = &s->segment[i];
        if (segment->base != (uint64_t)segment->selector << 4 || segment->limit != UINT16_MAX ||
            segment->attributes != 0xf3)
            return false;
    }
    return s->cr0 & CR0_PE;
}

static bool is_data_sound(const struct x86_segment *segment, unsigned cpl)
{
    uint32_t attributes = segment->attributes;
    if (attributes & SEGMENT_UNUSABLE)
        return true;
    bool is_code = attributes & TYPE_CODE;
    bool is_conforming = is_code && (attributes & TYPE_CONFORMING);
    return (attributes & SEGMENT_S) && (attributes & SEGMENT_P) &&
           (!is_code || (attributes & TYPE_READABLE)) &&
           (is_conforming || segment_dpl(attributes) >= cpl);
}

static bool is_sound(const struct x86_state *s)
{
    const struct x86_segment *cs = &s->segment[SEG_CS], *ss = &s->segment[SEG_SS];
    unsigned cpl = cs->selector & SELECTOR_RPL;
    if (s->rflags & RFLAGS_VM)
        return is_v86_sound(s);
    uint32_t code = SEGMENT_S | SEGMENT_P | TYPE_CODE;
    uint32_t stack = SEGMENT_S | SEGMENT_P | TYPE_WRITABLE;
    bool is_code_level = cs->attributes & TYPE_CONFORMING ? segment_dpl(cs->attributes) <= cpl
                                                          : segment_dpl(cs->attributes) == cpl;
    bool is_task = (s->segment[SEG_TR].attributes & ~(8u | 0xf0e0u)) == 3;
    return (cs->attributes & code) == code && is_code_level && (ss->attributes & stack) == stack &&
           !(ss->attributes & TYPE_CODE) && segment_dpl(ss->attributes) == cpl &&
           (ss->selector & SELECTOR_RPL) == cpl && is_task &&
           is_data_sound(&s->segment[SEG_DS], cpl) && is_data_sound(&s->segment[SEG_ES], cpl) &&
           is_data_sound(&s->segment[SEG_FS], cpl) && is_data_sound(&s->segment[SEG_GS], cpl);
}

struct tally {
    unsigned ended[3], v86, levels[4], tasks;
};

static void print_state(const struct x86_state *s)
{
    static const char *const names[] = {"ES", "CS", "SS", "DS", "FS", "GS", "LDTR", "TR"};
    printf("EIP %llx, EFLAGS %llx\n", (unsigned long long)s->rip, (unsigned long long)s->rflags);
    for (unsigned i = 0; i < SEG_COUNT; i++)
        printf("%s %04x: base %llx, limit %x, attributes %x\n", names[i], s->segment[i].selector,
               (unsigned long long)s->segment[i].base, s->segment[i].limit,
               s->segment[i].attributes);
}

static void run_case(struct harness *h, uint64_t seed, struct tally *tally)
{
    struct chance c = {seed * UINT64_C(0x9e3779b97f4a7c15) | 1};
    struct x86_state state;
    struct code code = {.count = 0};
    harness_protected_mode(h, &state);
    make_tables(h, &c);
    while (code.count < CODE_BYTES - 32)
        emit_any(&code, &c);
    memcpy(h->ram + CODE, code.bytes, CODE_BYTES);
    soft_written(&h->system, 0, RAM_BYTES);
    h->ram[GDT + TSS_SELECTOR + 5] = 0x8b;
    state.gdtr.limit = (FIRST_ENTRY + ENTRIES) * 8 - 1;
    state.gpr[RSP] = STACK0 - 128;
    state.gpr[RBX] = TSS_AREA;
    state.sysenter_cs = roll(&c, 2) ? KERNEL_CS : 0;
    state.sysenter_eip = any_address(&c);
    state.sysenter_esp = STACK_IST;
    state.cr4 = roll(&c, 4); /* VME, PVI */
    if (roll(&c, 2))
        make_paging(h, &c, &state);
    h->vector = (int)roll(&c, 256);
    cpu_request(h->cpu[0], REQUEST_INTR);
    enum cpu_exit exit = harness_run(h, &state);
    tally->ended[exit]++;
    if (exit == CPU_SHUTDOWN || state.pending.exception)
        return;
    tally->v86 += (state.rflags & RFLAGS_VM) != 0;
    tally->levels[state.segment[SEG_CS].selector & SELECTOR_RPL]++;
    tally->tasks += state.segment[SEG_TR].selector != TSS_SELECTOR;
    if (is_sound(&state))
        return;
    print_state(&state);
    fail_msg("HOSTILE_SEED=%llu: the state is none that can be", (unsigned long long)seed);
}

static void hostile(void **test)
{
    const struct itimerval interval = {{0, KICK_US}, {0, KICK_US}}, none = {{0, 0}, {0, 0}};
    const char *seed = getenv("HOSTILE_SEED"), *cases = getenv("HOSTILE_CASES");
    uint64_t first = seed ? strtoull(seed, NULL, 0) : 1;
    uint64_t count = seed ? 1 : cases ? strtoull(cases, NULL, 0) : CASES;
    struct harness *h = harness_open(1);
    struct tally t = {0};
    kicked = h->cpu[0];
    signal(SIGALRM, kick);
    setitimer(ITIMER_REAL, &interval, NULL);
    for (uint64_t i = first; i < first + count; i++)
        run_case(h, i, &t);
    setitimer(ITIMER_REAL, &none, NULL);
    harness_close(h);
    printf("%u kicked, %u halted, %u shut down; %u in virtual-8086 mode, %u in another task, at "
           "levels 0 to 3: %u %u %u %u\n",
           t.ended[CPU_KICKED], t.ended[CPU_HALTED], t.ended[CPU_SHUTDOWN], t.v86, t.tasks,
           t.levels[0], t.levels[1], t.levels[2], t.levels[3]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(hostile)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
