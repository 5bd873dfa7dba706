/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What a debugger outside of the guest may ask of an engine: breakpoints, watchpoints and single
 * steps, on the interpreter, the translator and KVM. Programs run twice, in the lower and in the
 * upper half of addresses, where the translator goes different ways.
 */
#include "cpu/engine.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

extern const char debugger_start[], debugger_end[], debugger16_start[], debugger16_end[];
extern const char calls[], at_return[], at_return_2[], at_callee[];
extern const char loop[], at_loop[], at_middle[], steps[], at_steps_1[], at_steps_3[], at_steps_4[],
    at_steps_5[], at_steps_6[], at_steps_7[], own[], at_own[], fault[], at_fault[],
    at_after_fault[], ud_handler[], db_handler[], at_handler_2[], interruptible[],
    at_interruptible[], at_interruptible_2[], at_interruptible_3[], interrupt_handler[], accesses[],
    at_byte_written[], at_read_across[], at_exchanged[], at_vector_written[], at_pushed[],
    at_popped[], at_filled[], half[], at_half_read[], pf_handler[], own_int3[], at_own_int3[],
    bp_handler[], at_real[];

enum {
    RAM_BYTES = 8 << 20,
    GDT = 0x500,
    IDT = 0x1000,
    PML4 = 0x2000,
    PDPT = 0x3000,
    PD = 0x4000,
    STACK = 0x9000,
    CODE = 0x10000,
    DATA = 0x20000,
    END_PORT = 0xf4,
    INTERRUPT = 0x40,
    HANG_S = 60,
};
#define UPPER UINT64_C(0xffffffff80000000)

struct guest {
    const struct engine *engine;
    const char *options;
    uint64_t base; /* of the addresses it runs at */
    struct ram *ram;
    struct bus *bus;
    struct engine_vm *vm;
    struct engine_vcpu *vcpu;
    bool has_ended;
    bool has_interrupt;
    struct breakpoint breakpoint[8];
    uint8_t original[8]; /* under an INT3, where the engine wants one */
    unsigned count;
    struct engine_exit exit;
    struct x86_state state;
};

/* ---- around the processor ---- */

static void end_write(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    struct guest *g = opaque;
    g->has_ended = true;
    g->engine->kick(g->vcpu);
}

static int acknowledge(void *opaque, unsigned vcpu)
{
    struct guest *g = opaque;
    g->has_interrupt = false;
    g->engine->inject(g->vcpu, ENGINE_INTR, 0);
    return INTERRUPT;
}

static uint64_t read_cr8(void *opaque, unsigned vcpu)
{
    return 0;
}

static void write_cr8(void *opaque, unsigned vcpu, uint64_t value) {}

static bool read_msr(void *opaque, unsigned vcpu, uint32_t msr, uint64_t *value)
{
    *value = 0;
    return true;
}

static bool write_msr(void *opaque, unsigned vcpu, uint32_t msr, uint64_t value)
{
    return true;
}

static void require(bool ok, const struct error *err)
{
    if (!ok)
        fail_msg("%s: %s", err->what, err->cause);
}

static uint64_t at(const struct guest *g, const char *label)
{
    return g->base + CODE + (uint64_t)(label - debugger_start);
}

static void put(struct guest *g, uint64_t gpa, const void *bytes, size_t size_bytes)
{
    assert_true(ram_write(g->ram, gpa, bytes, size_bytes));
}

static void put64(struct guest *g, uint64_t gpa, uint64_t value)
{
    put(g, gpa, &value, 8);
}

/* 2 MiB pages over all of RAM, at 0 and at UPPER. */
static void make_tables(struct guest *g)
{
    put64(g, PML4, PDPT | 3);
    put64(g, PML4 + 511 * 8, PDPT | 3);
    put64(g, PDPT, PD | 3);
    put64(g, PDPT + 510 * 8, PD | 3);
    for (unsigned i = 0; i < RAM_BYTES >> 21; i++)
        put64(g, PD + i * 8, (uint64_t)i << 21 | 0x83);
    put64(g, GDT + 0x10, UINT64_C(0x00af9b000000ffff));
    put64(g, GDT + 0x18, UINT64_C(0x00cf93000000ffff));
}

static void set_gate(struct guest *g, unsigned vector, const char *handler)
{
    uint64_t rip = at(g, handler);
    put64(g, IDT + vector * 16,
          (rip & 0xffff) | 0x10 << 16 | UINT64_C(0x8e00) << 32 | (rip & 0xffff0000) << 32);
    put64(g, IDT + vector * 16 + 8, rip >> 32);
}

static void make_state(struct guest *g, const char *program)
{
    struct x86_state *s = &g->state;
    x86_state_reset(s, true);
    for (unsigned i = SEG_ES; i <= SEG_GS; i++)
        s->segment[i] = (struct x86_segment){0, UINT32_MAX, 0xc093, 0x18};
    s->segment[SEG_CS] = (struct x86_segment){0, UINT32_MAX, 0xa09b, 0x10};
    s->gdtr = (struct x86_table){GDT, 0x1f};
    s->idtr = (struct x86_table){IDT, 0xfff};
    s->cr0 = 0x80000031;
    s->cr3 = PML4;
    s->cr4 = 0x620; /* PAE, OSFXSR, OSXMMEXCPT */
    s->efer = 0x500;
    s->rip = at(g, program);
    s->gpr[RSP] = g->base + STACK;
    s->gpr[RBX] = g->base + DATA;
}

static void set_state(struct guest *g)
{
    struct error err = {0};
    require(g->engine->set_state(g->vcpu, &g->state, &err), &err);
}

static void get_state(struct guest *g)
{
    struct error err = {0};
    require(g->engine->get_state(g->vcpu, &g->state, &err), &err);
}

static void open_guest(struct guest *g)
{
    struct error err = {0};
    const struct bus_range end = {.name = "end",
                                  .space = BUS_PORT,
                                  .base = END_PORT,
                                  .size_bytes = 1,
                                  .write = end_write,
                                  .opaque = g};
    g->ram = ram_create(RAM_BYTES, &err);
    g->bus = bus_create(NULL);
    assert_true(g->ram && g->bus && bus_map(g->bus, &end, NULL));
    const struct engine_config config = {
        .vcpu_count = 1,
        .topology = {1, 1, 1},
        .ram = g->ram,
        .bus = g->bus,
        .hooks = {g, acknowledge, read_cr8, write_cr8, read_msr, write_msr, NULL},
        .options = g->options,
    };
    g->vm = g->engine->vm_open(&config, &err);
    require(g->vm, &err);
    g->vcpu = g->engine->vcpu_open(g->vm, 0, &err);
    require(g->vcpu, &err);
    make_tables(g);
    put(g, CODE, debugger_start, (size_t)(debugger_end - debugger_start));
    set_gate(g, 1, db_handler);
    set_gate(g, 3, bp_handler);
    set_gate(g, 6, ud_handler);
    set_gate(g, 14, pf_handler);
    set_gate(g, INTERRUPT, interrupt_handler);
}

static void close_guest(struct guest *g)
{
    g->engine->vcpu_close(g->vcpu);
    g->engine->vm_close(g->vm);
    bus_destroy(g->bus);
    ram_destroy(g->ram);
}

/* ---- the debugger ---- */

static void tell(struct guest *g, bool is_step, bool takes_interrupts)
{
    struct error err = {0};
    const struct debug_request request = {is_step, takes_interrupts, g->count, g->breakpoint};
    require(g->engine->set_debug(g->vcpu, &request, &err), &err);
}

static void add(struct guest *g, enum breakpoint_kind kind, bool is_software, uint64_t linear,
                uint64_t size_bytes)
{
    const uint8_t int3 = 0xcc;
    uint64_t gpa = linear - g->base;
    if (is_software && g->engine->breaks_at_int3) {
        assert_true(ram_read(g->ram, gpa, &g->original[g->count], 1));
        put(g, gpa, &int3, 1);
    }
    g->breakpoint[g->count++] = (struct breakpoint){kind, is_software, linear, size_bytes};
}

static void remove_all(struct guest *g)
{
    while (g->count) {
        const struct breakpoint *last = &g->breakpoint[--g->count];
        if (last->is_software && g->engine->breaks_at_int3)
            put(g, last->linear - g->base, &g->original[g->count], 1);
    }
}

/* Until the debugger or the end of the program stops it; true for the debugger. */
static bool run(struct guest *g)
{
    g->has_ended = false;
    do {
        g->engine->run(g->vcpu, &g->exit);
    } while (g->exit.reason == ENGINE_EXIT_KICKED && !g->has_ended);
    get_state(g);
    if (g->exit.reason == ENGINE_EXIT_FAILED)
        fail_msg("%s: %s", g->exit.error.what, g->exit.error.cause);
    return g->exit.reason == ENGINE_EXIT_DEBUG;
}

static bool resume(struct guest *g)
{
    tell(g, false, false);
    return run(g);
}

static void expect_step(struct guest *g, const char *label)
{
    tell(g, true, false);
    assert_true(run(g));
    assert_int_equal(g->exit.stop.kind, DEBUG_STOP_STEP);
    assert_int_equal(g->state.rip, at(g, label));
}

static void expect_break(struct guest *g, const char *label)
{
    assert_true(resume(g));
    assert_int_equal(g->exit.stop.kind, DEBUG_STOP_BREAKPOINT);
    assert_int_equal(g->state.rip, at(g, label));
    assert_int_equal(g->exit.stop.breakpoint.linear, at(g, label));
}

static void expect_access(struct guest *g, const char *label)
{
    assert_true(resume(g));
    assert_int_equal(g->exit.stop.kind, DEBUG_STOP_WATCHPOINT);
    assert_int_equal(g->state.rip, at(g, label));
}

static void expect_end(struct guest *g)
{
    assert_false(resume(g));
    assert_true(g->has_ended);
}

/* Over a breakpoint as GDB does it: it is taken away, and set again. */
static void step_over(struct guest *g)
{
    struct breakpoint kept[8];
    unsigned count = g->count;
    memcpy(kept, g->breakpoint, sizeof(kept));
    remove_all(g);
    tell(g, true, false);
    assert_true(run(g));
    for (unsigned i = 0; i < count; i++)
        add(g, kept[i].kind, kept[i].is_software, kept[i].linear, kept[i].size_bytes);
}

static void start(struct guest *g, const char *program)
{
    make_state(g, program);
    set_state(g);
}

/* ---- cases ---- */

static void breaks(struct guest *g, bool is_software)
{
    start(g, loop);
    g->state.gpr[RCX] = 5;
    set_state(g);
    add(g, BREAK_EXECUTE, is_software, at(g, at_middle), 1);
    for (uint64_t i = 1; i <= 5; i++) {
        expect_break(g, at_middle);
        assert_int_equal(g->state.gpr[RAX], i);
        assert_int_equal(g->exit.stop.breakpoint.is_software, is_software);
        step_over(g);
    }
    expect_end(g);
    remove_all(g);
}

static void software_breakpoint(struct guest *g)
{
    breaks(g, true);
}

static void hardware_breakpoint(struct guest *g)
{
    breaks(g, false);
}

/* The loop has run until it was translated and linked, before and between. */
static void breakpoint_in_hot_code(struct guest *g)
{
    for (unsigned round = 0; round < 3; round++) {
        start(g, loop);
        g->state.gpr[RCX] = 100000;
        set_state(g);
        expect_end(g);
        assert_int_equal(g->state.gpr[RAX], 100000);
        start(g, loop);
        g->state.gpr[RCX] = 1000;
        set_state(g);
        add(g, BREAK_EXECUTE, true, at(g, at_loop), 1);
        add(g, BREAK_EXECUTE, false, at(g, at_middle), 1);
        for (uint64_t i = 0; i < 3; i++) {
            expect_break(g, at_loop);
            step_over(g);
            expect_break(g, at_middle);
            assert_int_equal(g->state.gpr[RAX], i + 1);
            step_over(g);
        }
        remove_all(g);
        expect_end(g);
        assert_int_equal(g->state.gpr[RAX], 1000);
    }
}

/* Where translated code goes by calls, returns and registers. */
static void breakpoint_behind_jumps(struct guest *g)
{
    static const char *const places[] = {at_callee, at_return, at_callee, at_return_2};
    for (unsigned round = 0; round < 3; round++) {
        start(g, calls);
        g->state.gpr[RCX] = 100000;
        set_state(g);
        expect_end(g);
        assert_int_equal(g->state.gpr[RAX], 200000);
        start(g, calls);
        g->state.gpr[RCX] = 1000;
        set_state(g);
        for (unsigned i = 0; i < 2 * 4 + round; i++) {
            add(g, BREAK_EXECUTE, false, at(g, places[i % 4]), 1);
            expect_break(g, places[i % 4]);
            assert_int_equal(g->state.gpr[RCX], 1000 - i / 4);
            remove_all(g);
        }
        expect_end(g);
        assert_int_equal(g->state.gpr[RAX], 2000);
    }
}

/* A run that is not told to step stops again at once, before anything was executed. */
static void breakpoint_stays(struct guest *g)
{
    start(g, loop);
    g->state.gpr[RCX] = 2;
    set_state(g);
    add(g, BREAK_EXECUTE, true, at(g, at_loop), 1);
    for (unsigned i = 0; i < 3; i++) {
        expect_break(g, at_loop);
        assert_int_equal(g->state.gpr[RAX], 0);
    }
    remove_all(g);
    expect_end(g);
}

static void single_steps(struct guest *g)
{
    start(g, steps);
    expect_step(g, at_steps_1);
    expect_step(g, at_steps_3);
    expect_step(g, at_steps_5);
    expect_step(g, at_steps_6);
    expect_step(g, at_steps_7);
    expect_step(g, at_steps_4);
    assert_int_equal(g->state.gpr[RAX], 1);
    assert_int_equal(g->state.gpr[RSP], g->base + STACK);
    expect_end(g);
}

static void guest_sees_nothing(struct guest *g)
{
    start(g, own);
    add(g, WATCH_WRITE, false, g->base + DATA + 0x800, 8);
    add(g, BREAK_EXECUTE, false, at(g, at_own), 1);
    expect_break(g, at_own);
    for (unsigned i = 0; i < 2; i++) {
        tell(g, true, false);
        assert_true(run(g));
    }
    assert_int_equal(g->state.gpr[RSI], 0x400);
    assert_int_equal(g->state.gpr[RDI], 0xffff0ff0);
    assert_int_equal(g->state.gpr[RDX] & 0x100, 0);
    assert_int_equal(g->state.rflags & 0x100, 0);
    remove_all(g);
    expect_end(g);
}

/* A step ends at the first instruction of the handler. */
static void step_into_fault(struct guest *g)
{
    start(g, fault);
    expect_step(g, at_fault);
    expect_step(g, ud_handler);
    expect_step(g, at_handler_2);
    expect_step(g, at_after_fault);
    expect_end(g);
    assert_int_equal(g->state.gpr[RAX] & 0xff, 8);
}

static void request_interrupt(struct guest *g)
{
    g->has_interrupt = true;
    g->engine->inject(g->vcpu, ENGINE_INTR, 1);
}

static void step_holds_interrupts(struct guest *g)
{
    start(g, interruptible);
    add(g, BREAK_EXECUTE, false, at(g, at_interruptible), 1);
    expect_break(g, at_interruptible);
    remove_all(g);
    request_interrupt(g);
    expect_step(g, at_interruptible_2);
    assert_true(g->has_interrupt);
    tell(g, true, true);
    assert_true(run(g));
    assert_int_equal(g->state.rip, at(g, interrupt_handler));
    assert_false(g->has_interrupt);
    expect_end(g);
    assert_int_equal(g->state.gpr[RBP], 1);
    assert_int_equal(g->state.gpr[RAX] & 0xff, 3);
}

static void watch(struct guest *g, enum breakpoint_kind kind)
{
    start(g, accesses);
    uint64_t zero[0x100] = {0};
    put(g, DATA, zero, sizeof(zero));
    add(g, kind, false, g->base + DATA + 0x100, 8);
}

static void watch_writes(struct guest *g)
{
    watch(g, WATCH_WRITE);
    expect_access(g, at_byte_written);
    assert_int_equal(g->exit.stop.breakpoint.kind, WATCH_WRITE);
    assert_int_equal(g->exit.stop.breakpoint.linear, g->base + DATA + 0x100);
    uint8_t byte;
    assert_true(ram_read(g->ram, DATA + 0x103, &byte, 1));
    assert_int_equal(byte, 5);
    expect_access(g, at_exchanged);
    expect_access(g, at_vector_written);
    expect_access(g, at_pushed);
    /* The eight bytes of REP STOSB: it may stop within the instruction. */
    unsigned stops = 0;
    while (resume(g)) {
        assert_int_equal(g->exit.stop.kind, DEBUG_STOP_WATCHPOINT);
        assert_true(g->state.gpr[RDI] > g->base + DATA + 0x100);
        stops++;
    }
    assert_true(stops >= 1 && stops <= 8);
    assert_true(g->has_ended);
    remove_all(g);
}

static void watch_reads(struct guest *g)
{
    watch(g, WATCH_READ);
    expect_access(g, at_read_across);
    expect_access(g, at_exchanged);
    expect_access(g, at_popped);
    expect_end(g);
    remove_all(g);
}

static void watch_accesses(struct guest *g)
{
    watch(g, WATCH_ACCESS);
    expect_access(g, at_byte_written);
    expect_access(g, at_read_across);
    expect_access(g, at_exchanged);
    expect_access(g, at_vector_written);
    expect_access(g, at_pushed);
    expect_access(g, at_popped);
    remove_all(g);
    expect_end(g);
}

/* Steps tell of accesses too, and a watchpoint that goes leaves no trace. */
static void step_with_watch(struct guest *g)
{
    watch(g, WATCH_WRITE);
    for (unsigned i = 0; i < 4; i++) {
        tell(g, true, false);
        assert_true(run(g));
        assert_int_equal(g->exit.stop.kind, DEBUG_STOP_STEP);
    }
    tell(g, true, false);
    assert_true(run(g));
    assert_int_equal(g->exit.stop.kind, DEBUG_STOP_WATCHPOINT);
    assert_int_equal(g->state.rip, at(g, at_byte_written));
    remove_all(g);
    expect_end(g);
}

/* MOVSB reads what is watched and faults on its write: the read of the next one is told. */
static void faulting_access(struct guest *g)
{
    start(g, half);
    add(g, WATCH_READ, false, g->base + DATA, 1);
    expect_access(g, at_half_read);
    remove_all(g);
    expect_end(g);
}

static void guests_own_int3(struct guest *g)
{
    start(g, own_int3);
    add(g, BREAK_EXECUTE, true, at(g, at_own_int3), 1);
    expect_break(g, at_own_int3);
    assert_int_equal(g->state.gpr[RBP], 1);
    remove_all(g);
    expect_end(g);
}

/* Breakpoints are linear addresses: CS counts. */
static void real_mode(struct guest *g)
{
    uint64_t base = g->base;
    const uint64_t linear = 0x30000 + (uint64_t)(at_real - debugger16_start);
    put(g, 0x30000, debugger16_start, (size_t)(debugger16_end - debugger16_start));
    x86_state_reset(&g->state, true);
    g->state.segment[SEG_CS].selector = 0x3000;
    g->state.segment[SEG_CS].base = 0x30000;
    g->state.rip = 0;
    set_state(g);
    g->base = 0;
    add(g, BREAK_EXECUTE, false, linear, 1);
    assert_true(resume(g));
    assert_int_equal(g->exit.stop.kind, DEBUG_STOP_BREAKPOINT);
    assert_int_equal(g->state.rip, linear - 0x30000);
    assert_int_equal(g->state.gpr[RAX] & 0xffff, 3);
    remove_all(g);
    expect_end(g);
    assert_int_equal(g->state.gpr[RAX] & 0xffff, 4);
    g->base = base;
}

/* After the debugger has gone nothing is left of it. */
static void gone(struct guest *g)
{
    struct error err = {0};
    start(g, loop);
    g->state.gpr[RCX] = 100;
    set_state(g);
    add(g, BREAK_EXECUTE, false, at(g, at_loop), 1);
    add(g, WATCH_ACCESS, false, g->base + DATA, 8);
    expect_break(g, at_loop);
    remove_all(g);
    require(g->engine->set_debug(g->vcpu, NULL, &err), &err);
    assert_false(run(g));
    assert_true(g->has_ended);
    assert_int_equal(g->state.gpr[RAX], 100);
}

/* The guest and the debugger have a breakpoint at one instruction, and the guest watches what the
 * debugger watches: the debugger stops first, and what it sees and does changes nothing for the
 * guest. RF, with which the guest's handler returns, is still there behind a stop. */
static void same_breakpoint(struct guest *g)
{
    start(g, loop);
    g->state.gpr[RCX] = 3;
    g->state.dr[1] = at(g, at_middle);
    g->state.dr[7] = 0x408; /* G1 */
    set_state(g);
    add(g, BREAK_EXECUTE, true, at(g, at_middle), 1);
    for (uint64_t i = 1; i <= 3; i++) {
        expect_break(g, at_middle);
        assert_int_equal(g->state.gpr[RBP], i - 1);
        step_over(g);
        assert_int_equal(g->state.rip, at(g, db_handler));
        assert_int_equal(g->state.dr[6] & 0xf, 2);
        expect_break(g, at_middle);
        set_state(g);
        step_over(g);
        assert_int_equal(g->state.gpr[RDX], 2 * i);
        assert_int_equal(g->state.gpr[RBP], i);
    }
    expect_end(g);
    remove_all(g);
}

static void same_watch(struct guest *g)
{
    start(g, accesses);
    g->state.dr[0] = g->base + DATA + 0x100;
    g->state.dr[7] = 0x90402; /* G0, writes, 8 bytes */
    set_state(g);
    add(g, WATCH_WRITE, false, g->base + DATA + 0x100, 8);
    expect_access(g, at_byte_written);
    assert_int_equal(g->state.gpr[RBP], 0);
    set_state(g);
    expect_step(g, db_handler);
    assert_int_equal(g->state.dr[6] & 0xf, 1);
    remove_all(g);
    expect_end(g);
}

/* Where a case can't run. A KVM that imitates the guest's kernel mode in software (module kvm_pvm)
 * knows no INT3 and sees no accesses; what a processor's own debug registers and RFLAGS.TF don't do
 * is not to be had on any KVM. */
enum gap { NO_GAP, GAP_PVM, GAP_KVM };

static const struct {
    const char *name;
    void (*run)(struct guest *g);
    enum gap gap;
} cases[] = {
    {"software breakpoint", software_breakpoint, GAP_PVM},
    {"hardware breakpoint", hardware_breakpoint, NO_GAP},
    {"breakpoint in hot code", breakpoint_in_hot_code, GAP_PVM},
    {"breakpoint behind jumps", breakpoint_behind_jumps, NO_GAP},
    {"breakpoint stays", breakpoint_stays, GAP_PVM},
    {"single steps", single_steps, NO_GAP},
    {"the guest sees nothing", guest_sees_nothing, NO_GAP},
    {"step into a fault", step_into_fault, GAP_KVM},
    {"steps hold interrupts", step_holds_interrupts, GAP_KVM},
    {"watch writes", watch_writes, GAP_PVM},
    {"watch reads", watch_reads, GAP_KVM},
    {"watch accesses", watch_accesses, GAP_PVM},
    {"step with a watchpoint", step_with_watch, GAP_PVM},
    {"an access that faults", faulting_access, GAP_KVM},
    {"the guest's own INT3", guests_own_int3, GAP_PVM},
    {"the guest's breakpoint at the same place", same_breakpoint, GAP_KVM},
    {"the guest watches the same", same_watch, GAP_KVM},
    {"real mode", real_mode, NO_GAP},
    {"gone", gone, NO_GAP},
};

static const struct variant {
    const char *name;
    const struct engine *engine;
    const char *options;
    uint64_t base;
} variants[] = {
    {"interpreter", &engine_soft, "translator=off", 0},
    {"interpreter, upper half", &engine_soft, "translator=off", UPPER},
    {"translator", &engine_soft, "translator=eager", 0},
    {"translator, upper half", &engine_soft, "translator=eager", UPPER},
    {"translator after a while, upper half", &engine_soft, "translator=on", UPPER},
    {"kvm, upper half", &engine_kvm, NULL, UPPER},
};

enum {
    CASES = sizeof(cases) / sizeof(cases[0]),
    VARIANTS = sizeof(variants) / sizeof(variants[0])
};

static void run_case(void **state)
{
    unsigned index = *(const unsigned *)*state;
    const struct variant *variant = &variants[index / CASES];
    struct engine_probe probe;
    variant->engine->probe(&probe);
    bool is_kvm = variant->engine == &engine_kvm;
    enum gap gap = cases[index % CASES].gap;
    if (!probe.available || (is_kvm && gap == GAP_KVM) ||
        (is_kvm && gap == GAP_PVM && !probe.backed_by_hardware))
        skip();
    struct guest *g = calloc(1, sizeof(*g));
    g->engine = variant->engine;
    g->options = variant->options;
    g->base = variant->base;
    open_guest(g);
    alarm(HANG_S);
    cases[index % CASES].run(g);
    alarm(0);
    close_guest(g);
    free(g);
}

int main(void)
{
    static struct CMUnitTest tests[CASES * VARIANTS];
    static char names[CASES * VARIANTS][96];
    static unsigned numbers[CASES * VARIANTS];
    for (unsigned i = 0; i < CASES * VARIANTS; i++) {
        snprintf(names[i], sizeof(names[i]), "%s: %s", variants[i / CASES].name,
                 cases[i % CASES].name);
        numbers[i] = i;
        tests[i] = (struct CMUnitTest){names[i], run_case, NULL, NULL, &numbers[i]};
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
