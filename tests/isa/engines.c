/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The programs of engines_programs.S, each with the one result that the SDM gives, on every engine
 * through its public interface, and those of level 3 on the host's own processor too. A program
 * reports by port: 32-bit values in an order; the handlers of exceptions and the bus report too.
 *
 * Where a host's KVM imitates the guest's kernel mode in software (module kvm_pvm) some programs
 * can't run: the table in engines_programs.S names them with the reason. ENGINES_ONLY=TEXT runs
 * those with TEXT in their names, ENGINES_GAPS=1 runs on KVM also what can't run there.
 */
#include "isa/engines.h"

#include "cpu/engine.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>

#include <cmocka.h>

struct program {
    const char *name;
    const char *start, *end;
    const uint32_t *expected, *expected_end;
    const char *gap; /* why not under kvm_pvm; NULL: it runs there */
    uint64_t mode, flags;
};
extern const struct program engine_programs[], engine_programs_end[];
extern const char kernel16_start[], kernel16_end[], kernel32_start[], kernel32_end[];
extern const char kernel64_start[], kernel64_end[], trampoline_start[], trampoline_end[];

enum { MAX_REPORTS = 512, TIMEOUT_S = 60 };

struct guest {
    const struct engine *engine;
    struct ram *ram;
    struct bus *bus;
    struct engine_vm *vm;
    struct engine_vcpu *vcpus[2];
    unsigned vcpu_count;
    pthread_mutex_t lock;
    pthread_cond_t change;
    uint32_t reports[MAX_REPORTS];
    unsigned count;
    bool ended;
    int vector; /* what the interrupt controller has, -1: nothing */
    uint64_t cr8;
    struct engine_exit exit[2];
};

/* --- what is on the bus ------------------------------------------------------------------------
 */

static void add_report(struct guest *g, uint64_t value)
{
    pthread_mutex_lock(&g->lock);
    if (g->count < MAX_REPORTS)
        g->reports[g->count++] = (uint32_t)value;
    pthread_mutex_unlock(&g->lock);
}

/* B0 to say what follows; 1 for MMIO; 1 for a write; the size; the offset. Then the value. */
static void bus_report(struct guest *g, bool is_mmio, bool is_write, uint64_t offset,
                       uint64_t value, unsigned size_bytes)
{
    add_report(g, 0xb0000000 | (unsigned)is_mmio << 20 | (unsigned)is_write << 16 |
                      size_bytes << 8 | (unsigned)offset);
    if (is_write)
        add_report(g, value);
    if (is_write && size_bytes == 8)
        add_report(g, value >> 32);
}

/* Byte n of a device reads as A0H + n. */
static uint64_t device_value(uint64_t offset, unsigned size_bytes)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < size_bytes; i++)
        value |= (0xa0 + offset + i) << 8 * i;
    return value;
}

static uint64_t device_read(void *opaque, uint64_t offset, unsigned size_bytes)
{
    bus_report(opaque, false, false, offset, 0, size_bytes);
    return device_value(offset, size_bytes);
}

static void device_write(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    bus_report(opaque, false, true, offset, value, size_bytes);
}

static uint64_t mmio_read(void *opaque, uint64_t offset, unsigned size_bytes)
{
    bus_report(opaque, true, false, offset, 0, size_bytes);
    return device_value(offset, size_bytes);
}

static void mmio_write(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    bus_report(opaque, true, true, offset, value, size_bytes);
}

static void report_write(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    struct guest *g = opaque;
    if (offset == 0)
        add_report(g, value);
}

static void request_interrupt(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    struct guest *g = opaque;
    if (g->engine->irqchip) {
        struct msi_sink sink = g->engine->irqchip->msi(g->vm);
        msi_send(&sink, 0xfee00000, (uint8_t)value);
        return;
    }
    g->vector = (uint8_t)value;
    g->engine->inject(g->vcpus[0], ENGINE_INTR, 1);
}

static void start_second(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    struct guest *g = opaque;
    if (g->vcpu_count < 2)
        return;
    g->engine->inject(g->vcpus[1], ENGINE_INIT, 0);
    g->engine->inject(g->vcpus[1], ENGINE_SIPI, (uint8_t)value);
    pthread_mutex_lock(&g->lock);
    pthread_cond_broadcast(&g->change);
    pthread_mutex_unlock(&g->lock);
}

static void end_all(struct guest *g)
{
    pthread_mutex_lock(&g->lock);
    g->ended = true;
    pthread_cond_broadcast(&g->change);
    pthread_mutex_unlock(&g->lock);
    for (unsigned i = 0; i < g->vcpu_count; i++)
        g->engine->kick(g->vcpus[i]);
}

static void end_write(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    end_all(opaque);
}

/* --- the interrupt controller of engines that have none ------------------------------------ */

static int acknowledge(void *opaque, unsigned vcpu)
{
    struct guest *g = opaque;
    int vector = g->vector;
    g->vector = -1;
    g->engine->inject(g->vcpus[vcpu], ENGINE_INTR, 0);
    return vector;
}

static uint64_t read_cr8(void *opaque, unsigned vcpu)
{
    struct guest *g = opaque;
    return g->cr8;
}

static void write_cr8(void *opaque, unsigned vcpu, uint64_t value)
{
    struct guest *g = opaque;
    g->cr8 = value;
}

static bool read_msr(void *opaque, unsigned vcpu, uint32_t msr, uint64_t *value)
{
    *value = msr == 0x1b ? UINT64_C(0xfee00800) | (vcpu == 0) << 8 : 0;
    return msr == 0x1b;
}

static void wake(void *opaque, unsigned vcpu)
{
    struct guest *g = opaque;
    pthread_mutex_lock(&g->lock);
    pthread_cond_broadcast(&g->change);
    pthread_mutex_unlock(&g->lock);
}

static bool write_msr(void *opaque, unsigned vcpu, uint32_t msr, uint64_t value)
{
    return msr == 0x1b;
}

/* --- memory ------------------------------------------------------------------------------------
 */

static void put64(struct guest *g, uint64_t gpa, uint64_t value)
{
    assert_true(ram_write(g->ram, gpa, &value, sizeof(value)));
}

static void put32(struct guest *g, uint64_t gpa, uint32_t value)
{
    assert_true(ram_write(g->ram, gpa, &value, sizeof(value)));
}

static void put_bytes(struct guest *g, uint64_t gpa, const char *start, const char *end)
{
    assert_true(ram_write(g->ram, gpa, start, (size_t)(end - start)));
}

static void make_gdt(struct guest *g)
{
    static const uint64_t gdt[GDT_BYTES / 8] = {
        [KERNEL_CS / 8] = 0x00af9b000000ffff,
        [KERNEL_SS / 8] = 0x00cf93000000ffff,
        [USER_CS32 / 8] = 0x00cffb000000ffff,
        [USER_SS / 8] = 0x00cff3000000ffff,
        [USER_CS / 8] = 0x00affb000000ffff,
        [TSS_SELECTOR / 8] = 0x00008b0000000067 | (uint64_t)TSS << 16,
        [KERNEL_CS32 / 8] = 0x00cf9b000000ffff,
        [CODE16 / 8] = 0x00009b000000ffff | (uint64_t)CODE << 16,
        [DATA16 / 8] = 0x000093000000ffff | (uint64_t)CODE << 16,
        [STACK16 / 8] = 0x000093000000ffff,
        [LIMITED / 8] = 0x00409300000000ff | (uint64_t)DATA << 16,
        [EXPAND_DOWN / 8] = 0x00409700000000ff | (uint64_t)DATA << 16,
        [NOT_PRESENT / 8] = 0x00cf13000000ffff,
        [EXECUTE_ONLY / 8] = 0x00cf99000000ffff,
        [READ_ONLY / 8] = 0x00cf91000000ffff | (uint64_t)DATA << 16,
        [STACK64K / 8] = 0x004093000000ffff,
        [ABSENT_CODE / 8] = 0x00cf1b000000ffff,
        [CONFORMING / 8] = 0x00cf9f000000ffff,
        [LDT_SELECTOR / 8] = 0x000082000000000f | (uint64_t)FREE << 16,
        [CODE_R1 / 8] = 0x00cfbb000000ffff,
        [DATA_R1 / 8] = 0x00cfb3000000ffff,
        [CODE_R2 / 8] = 0x00cfdb000000ffff,
        [DATA_R2 / 8] = 0x00cfd3000000ffff,
    };
    assert_true(ram_write(g->ram, GDT, gdt, sizeof(gdt)));
}

static bool is_for_users(unsigned vector)
{
    return vector == 3 || vector == 4 || vector == 0x80 || vector == 0x90;
}

static void make_idt(struct guest *g, uint64_t mode)
{
    unsigned gate_bytes = mode >= LONG ? 16 : 8;
    uint64_t cs = mode >= LONG ? KERNEL_CS : KERNEL_CS32;
    for (unsigned vector = 0; vector < 256; vector++) {
        uint64_t handler = KERNEL + vector * 16;
        uint64_t type = is_for_users(vector) ? 0xee00 : 0x8e00;
        if (mode == REAL) {
            put32(g, vector * 4, (uint32_t)handler);
            continue;
        }
        put64(g, IDT + vector * gate_bytes, handler | cs << 16 | type << 32);
        if (mode >= LONG)
            put64(g, IDT + vector * gate_bytes + 8, 0);
    }
    if (mode >= LONG)
        put_bytes(g, KERNEL, kernel64_start, kernel64_end);
    else if (mode == REAL)
        put_bytes(g, KERNEL, kernel16_start, kernel16_end);
    else
        put_bytes(g, KERNEL, kernel32_start, kernel32_end);
}

/* For level 3 everything is the user's; else all is the kernel's (as SMEP and SMAP want it). */
static void make_page_tables(struct guest *g, uint64_t mode)
{
    uint64_t flags = mode == USER64 || mode == USER32 ? 7 : 3;
    put64(g, PML4, PDPT | 7);
    put64(g, PDPT, PD | 7);
    put64(g, PD, PT | 7);
    put64(g, PDPT32, PD | 1);
    put32(g, PD32, PT32 | 7);
    for (unsigned n = 0; n < FREE / 4096; n++) {
        put64(g, PT + n * 8, n << 12 | flags);
        put32(g, PT32 + n * 4, (uint32_t)(n << 12 | flags));
    }
    put64(g, PT + MMIO_PAGE / 4096 * 8, MMIO | 0x1b);
    put64(g, PT + APIC_PAGE / 4096 * 8, 0xfee0001b);
}

static void make_tss(struct guest *g, uint64_t mode)
{
    put64(g, TSS + 4, mode >= LONG ? STACK0 : STACK0 | (uint64_t)KERNEL_SS << 32);
    if (mode >= LONG)
        put64(g, TSS + 36, STACK_IST);
    put32(g, TSS + 100, 0x680000); /* no I/O bitmap within the limit */
}

/* --- the state to start with -------------------------------------------------------------------
 */

static struct x86_segment segment(uint16_t selector, uint64_t base, uint32_t limit,
                                  uint32_t attributes)
{
    return (struct x86_segment){base, limit, attributes, selector};
}

static void set_data(struct x86_state *state, struct x86_segment data)
{
    for (unsigned i = SEG_ES; i <= SEG_GS; i++)
        if (i != SEG_CS)
            state->segment[i] = data;
}

static void set_segments(struct x86_state *state, uint64_t mode)
{
    switch (mode) {
    case P16:
        set_data(state, segment(DATA16, CODE, 0xffff, 0x93));
        state->segment[SEG_CS] = segment(CODE16, CODE, 0xffff, 0x9b);
        state->segment[SEG_SS] = segment(STACK16, 0, 0xffff, 0x93);
        break;
    case P32:
        set_data(state, segment(KERNEL_SS, 0, UINT32_MAX, 0xc093));
        state->segment[SEG_CS] = segment(KERNEL_CS32, 0, UINT32_MAX, 0xc09b);
        break;
    case LONG:
        set_data(state, segment(KERNEL_SS, 0, UINT32_MAX, 0xc093));
        state->segment[SEG_CS] = segment(KERNEL_CS, 0, UINT32_MAX, 0xa09b);
        break;
    case USER64:
    case USER32:
        set_data(state, segment(USER_SS, 0, UINT32_MAX, 0xc0f3));
        state->segment[SEG_CS] = mode == USER64 ? segment(USER_CS, 0, UINT32_MAX, 0xa0fb)
                                                : segment(USER_CS32, 0, UINT32_MAX, 0xc0fb);
    }
    state->segment[SEG_TR] = segment(TSS_SELECTOR, TSS, 0x67, 0x8b);
    state->segment[SEG_LDTR] = segment(0, 0, 0, SEGMENT_UNUSABLE);
}

static void set_real(struct x86_state *state)
{
    for (unsigned i = SEG_ES; i <= SEG_GS; i++) {
        state->segment[i].selector = i == SEG_CS || i == SEG_DS || i == SEG_ES ? CODE >> 4 : 0;
        state->segment[i].base = (uint64_t)state->segment[i].selector << 4;
    }
    state->rip = 0;
    state->gpr[RSP] = STACK;
    state->idtr = (struct x86_table){0, 0x3ff};
}

static void make_state(struct x86_state *state, uint64_t mode)
{
    x86_state_reset(state, true);
    state->cr4 = 0x600; /* OSFXSR, OSXMMEXCPT */
    state->gdtr = (struct x86_table){GDT, GDT_BYTES - 1};
    state->cr0 = 0x30; /* ET, NE */
    for (unsigned i = 0; i < 16; i++)
        state->gpr[i] = 0;
    if (mode == REAL) {
        set_real(state);
        return;
    }
    bool is_user = mode == USER64 || mode == USER32;
    set_segments(state, mode);
    state->rip = mode == P16 ? 0 : CODE;
    state->gpr[RSP] = is_user ? STACK3 : STACK;
    state->rflags = is_user ? 0x202 : 2;
    state->idtr = (struct x86_table){IDT, mode >= LONG ? 0xfff : 0x7ff};
    state->cr0 |= 1;
    if (mode < LONG)
        return;
    state->cr0 |= 0x80050002; /* PG, AM, WP, MP */
    state->cr3 = PML4;
    state->cr4 |= 0x40020; /* OSXSAVE, PAE */
    state->efer = 0xd01;   /* NXE, LMA, LME, SCE */
    state->xcr0 = __builtin_cpu_supports("avx") ? 7 : 3;
}

/* --- running -----------------------------------------------------------------------------------
 */

static void check(bool good, const struct error *err)
{
    if (!good)
        fail_msg("%s %s: %s", err->what, err->where, err->cause);
}

static void map(struct guest *g, enum bus_space space, uint64_t base, uint64_t size_bytes,
                bus_read_fn *read_fn, bus_write_fn *write_fn)
{
    const struct bus_range range = {.name = "test",
                                    .space = space,
                                    .base = base,
                                    .size_bytes = size_bytes,
                                    .read = read_fn,
                                    .write = write_fn,
                                    .opaque = g};
    assert_true(bus_map(g->bus, &range, NULL));
}

static void guest_open(struct guest *g, const struct engine *engine, const char *options,
                       unsigned vcpu_count)
{
    struct error err = {0};
    *g = (struct guest){.engine = engine, .vcpu_count = vcpu_count, .vector = -1};
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->change, NULL);
    g->ram = ram_create(RAM_SIZE, &err);
    check(g->ram, &err);
    g->bus = bus_create(NULL);
    map(g, BUS_PORT, REPORT, 4, NULL, report_write);
    map(g, BUS_PORT, INTERRUPT, 1, NULL, request_interrupt);
    map(g, BUS_PORT, START, 1, NULL, start_second);
    map(g, BUS_PORT, END, 4, NULL, end_write);
    map(g, BUS_PORT, DEVICE, 16, device_read, device_write);
    map(g, BUS_MMIO, MMIO, 0x100, mmio_read, mmio_write);
    map(g, BUS_MMIO, HIGH + MMIO, 0x100, mmio_read, mmio_write);
    const struct engine_config config = {
        .options = options,
        .vcpu_count = vcpu_count,
        .topology = {1, vcpu_count, 1},
        .ram = g->ram,
        .bus = g->bus,
        .hooks = {g, acknowledge, read_cr8, write_cr8, read_msr, write_msr, NULL, wake},
    };
    g->vm = engine->vm_open(&config, &err);
    check(g->vm, &err);
    for (unsigned i = 0; i < vcpu_count; i++) {
        g->vcpus[i] = engine->vcpu_open(g->vm, i, &err);
        check(g->vcpus[i], &err);
    }
}

static void guest_close(struct guest *g)
{
    for (unsigned i = 0; i < g->vcpu_count; i++)
        g->engine->vcpu_close(g->vcpus[i]);
    g->engine->vm_close(g->vm);
    bus_destroy(g->bus);
    ram_destroy(g->ram);
    pthread_cond_destroy(&g->change);
    pthread_mutex_destroy(&g->lock);
}

static void run_vcpu(struct guest *g, unsigned index)
{
    for (;;) {
        g->engine->run(g->vcpus[index], &g->exit[index]);
        enum engine_exit_reason reason = g->exit[index].reason;
        pthread_mutex_lock(&g->lock);
        while (reason == ENGINE_EXIT_HALTED && !g->ended && !g->engine->has_work(g->vcpus[index]))
            pthread_cond_wait(&g->change, &g->lock);
        bool stop = g->ended || (reason != ENGINE_EXIT_HALTED && reason != ENGINE_EXIT_KICKED);
        pthread_mutex_unlock(&g->lock);
        if (stop)
            break;
    }
    end_all(g);
}

static void *run_second(void *opaque)
{
    run_vcpu(opaque, 1);
    return NULL;
}

/* A guest that hangs is ended. */
static void *watch(void *opaque)
{
    struct guest *g = opaque;
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += TIMEOUT_S;
    pthread_mutex_lock(&g->lock);
    while (!g->ended)
        if (pthread_cond_timedwait(&g->change, &g->lock, &until) != 0)
            break;
    bool hangs = !g->ended;
    pthread_mutex_unlock(&g->lock);
    if (hangs) {
        add_report(g, 0xdeadffff);
        end_all(g);
    }
    return NULL;
}

static void run_threads(struct guest *g)
{
    pthread_t watcher, second;
    assert_int_equal(pthread_create(&watcher, NULL, watch, g), 0);
    if (g->vcpu_count == 2)
        assert_int_equal(pthread_create(&second, NULL, run_second, g), 0);
    run_vcpu(g, 0);
    if (g->vcpu_count == 2)
        pthread_join(second, NULL);
    pthread_join(watcher, NULL);
}

static bool same_reports(const struct program *p, const char *where, const uint32_t *reports,
                         unsigned count)
{
    unsigned expected = (unsigned)(p->expected_end - p->expected);
    if (count == expected && memcmp(reports, p->expected, count * 4) == 0)
        return true;
    printf("%s on %s:\n  expected", p->name, where);
    for (unsigned i = 0; i < expected; i++)
        printf(" %x", p->expected[i]);
    printf("\n  reported");
    for (unsigned i = 0; i < count; i++)
        printf(" %x%s", reports[i], i < expected && reports[i] != p->expected[i] ? "(!)" : "");
    printf("\n");
    return false;
}

static bool is_same(const char *what, uint64_t got, uint64_t expected)
{
    if (got != expected)
        printf("%s: %llx instead of %llx\n", what, (unsigned long long)got,
               (unsigned long long)expected);
    return got == expected;
}

/* The registers and the memory that the program long_state leaves. */
static bool check_state(struct guest *g)
{
    static const enum x86_gpr from_rbx[] = {RBX, RDX, RSI, RDI, RBP};
    const uint64_t rbx = UINT64_C(0x0123456789abcdef);
    struct x86_state s;
    struct error err = {0};
    uint64_t memory[2] = {0};
    uint32_t mxcsr, xmm5[4];
    check(g->engine->get_state(g->vcpus[0], &s, &err), &err);
    assert_true(ram_read(g->ram, DATA, memory, sizeof(memory)));
    memcpy(&mxcsr, s.xsave + 24, sizeof(mxcsr));
    memcpy(xmm5, s.xsave + 160 + 5 * 16, sizeof(xmm5));
    bool good = is_same("memory", memory[0], rbx) & is_same("MM7", memory[1], rbx);
    for (unsigned i = 0; i < 5; i++)
        good &= is_same("register", s.gpr[from_rbx[i]], rbx + i);
    good &= is_same("RAX", s.gpr[RAX], 0x5eed) & is_same("RCX", s.gpr[RCX], 0xfacade);
    good &= is_same("R8", s.gpr[R8], rbx + 8) & is_same("R15", s.gpr[R15], rbx + 15);
    good &= is_same("RSP", s.gpr[RSP], STACK) & is_same("CF, DF", s.rflags & 0x401, 0x401);
    good &= is_same("CR2", s.cr2, 0x1000) & is_same("CR3", s.cr3, PML4);
    good &= is_same("CS", s.segment[SEG_CS].selector, KERNEL_CS);
    good &= is_same("FS", s.segment[SEG_FS].selector, LIMITED);
    good &= is_same("FS base", s.segment[SEG_FS].base, DATA);
    good &= is_same("FS limit", s.segment[SEG_FS].limit, 0xff);
    good &= is_same("EFER", s.efer, 0xd01) & is_same("MXCSR", mxcsr, 0x1fa0);
    good &= is_same("XMM5", (uint64_t)xmm5[1] << 32 | xmm5[0], rbx) & is_same("XMM5", xmm5[2], 0);
    good &= is_same("ST0", s.xsave[32 + 8] | s.xsave[32 + 9] << 8, 0x4000);
    return good & is_same("tags", s.xsave[4], 0x80);
}

static bool run_on_engine(const struct program *p, const struct engine *engine, const char *options)
{
    struct guest *g = calloc(1, sizeof(*g));
    struct x86_state state;
    struct error err = {0};
    guest_open(g, engine, options, p->flags & TWO ? 2 : 1);
    make_gdt(g);
    make_idt(g, p->mode);
    make_page_tables(g, p->mode);
    make_tss(g, p->mode);
    put_bytes(g, CODE, p->start, p->end);
    put_bytes(g, SIPI_PAGE, trampoline_start, trampoline_end);
    make_state(&state, p->mode);
    check(engine->set_state(g->vcpus[0], &state, &err), &err);
    run_threads(g);
    bool good = same_reports(p, options ? options : engine->name, g->reports, g->count);
    if (p->flags & STATE)
        good &= check_state(g);
    enum engine_exit_reason wanted =
        p->flags & SHUTDOWN ? ENGINE_EXIT_SHUTDOWN : ENGINE_EXIT_KICKED;
    enum engine_exit_reason reason = g->exit[0].reason;
    if (reason != wanted && !(wanted == ENGINE_EXIT_KICKED && reason == ENGINE_EXIT_HALTED)) {
        if (reason == ENGINE_EXIT_FAILED)
            printf("%s: %s\n", p->name, g->exit[0].error.cause);
        else
            printf("%s on %s: ended with reason %d\n", p->name, engine->name, reason);
        good = false;
    }
    guest_close(g);
    free(g);
    return good;
}

/* --- on the host's processor --------------------------------------------------------------- */

static struct native {
    ucontext_t outside; /* to return to */
    struct _libc_fpstate outside_fp;
    bool is_32;
    bool runs;
    uint32_t reports[MAX_REPORTS];
    unsigned count;
} native;

static void native_report(uint64_t value)
{
    if (native.count < MAX_REPORTS)
        native.reports[native.count++] = (uint32_t)value;
}

static void native_enter(ucontext_t *user)
{
    greg_t *r = user->uc_mcontext.gregs;
    memcpy(native.outside.uc_mcontext.gregs, r, sizeof(native.outside.uc_mcontext.gregs));
    for (int i = REG_R8; i <= REG_RCX; i++)
        r[i] = 0;
    r[REG_RSP] = STACK3;
    r[REG_RIP] = CODE;
    r[REG_EFL] = 0x202;
    if (native.is_32) /* CS, and SS in the highest 16 bits */
        r[REG_CSGSFS] = (greg_t)0x23 | (greg_t)0x2b << 48;
    user->uc_mcontext.fpregs->cwd = 0x37f;
    user->uc_mcontext.fpregs->mxcsr = 0x1f80;
    native.runs = true;
}

static void native_leave(ucontext_t *user)
{
    memcpy(user->uc_mcontext.gregs, native.outside.uc_mcontext.gregs,
           sizeof(native.outside.uc_mcontext.gregs));
    user->uc_mcontext.gregs[REG_RIP] += 2; /* the UD2 */
    user->uc_mcontext.fpregs->cwd = 0x37f;
    user->uc_mcontext.fpregs->swd = 0;
    user->uc_mcontext.fpregs->mxcsr = 0x1f80;
    native.runs = false;
}

static bool has_error_code(int vector)
{
    return vector == 8 || (vector >= 10 && vector <= 14) || vector == 17;
}

static void put_variable(uint64_t address, uint64_t value)
{
    memcpy((void *)(uintptr_t)address, &value, 8);
}

/* What the kernel of engines_programs.S does in the guest. */
static void native_exception(greg_t *r, ucontext_t *user)
{
    int vector = (int)r[REG_TRAPNO];
    native_report(VECTOR_TAG | (unsigned)vector);
    if (has_error_code(vector))
        native_report(CODE_TAG | (uint32_t)r[REG_ERR]);
    if (vector == 14)
        native_report((uint64_t)r[REG_CR2]);
    put_variable(FRAME_RIP, (uint64_t)r[REG_RIP]);
    put_variable(FRAME_FLAGS, (uint64_t)r[REG_EFL]);
    put_variable(FRAME_RSP, (uint64_t)r[REG_RSP]);
    uint64_t resume;
    memcpy(&resume, (const void *)RESUME, 8);
    put_variable(RESUME, 0);
    if (resume) {
        r[REG_RIP] = (greg_t)resume;
    } else if (vector != 1 && vector != 3 && vector != 4) {
        native_report(LOST_TAG | (unsigned)vector);
        native_leave(user);
    }
}

static void handle_signal(int number, siginfo_t *info, void *context)
{
    ucontext_t *user = context;
    greg_t *r = user->uc_mcontext.gregs;
    /* The program's AC is still set. */
    __asm__ volatile("pushfq\n\tandl $~0x40000, (%%rsp)\n\tpopfq" ::: "memory", "cc");
    if (!native.runs) {
        native_enter(user);
        return;
    }
    const uint8_t *code = (const uint8_t *)(uintptr_t)r[REG_RIP];
    bool is_inside = r[REG_RIP] >= CODE && r[REG_RIP] < HOST_END - 2;
    if (number == SIGSEGV && r[REG_TRAPNO] == 13 && is_inside && code[0] == 0xe7) {
        if (code[1] == END) {
            native_leave(user);
            return;
        }
        native_report((uint64_t)r[REG_RAX]);
        r[REG_RIP] += 2;
        return;
    }
    native_exception(r, user);
}

static bool native_open(void)
{
    void *stack = mmap(NULL, 256 << 10, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    const stack_t alternate = {.ss_sp = stack, .ss_size = 256 << 10};
    if (stack == MAP_FAILED || sigaltstack(&alternate, NULL) != 0)
        return false;
    if (mmap((void *)CODE, HOST_END - CODE, PROT_READ | PROT_WRITE | PROT_EXEC,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != (void *)CODE)
        return false;
    return true;
}

static void set_handlers(void (*handler)(int, siginfo_t *, void *))
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    if (!handler)
        action = (struct sigaction){.sa_handler = SIG_DFL};
    for (unsigned i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        sigaction(signals[i], &action, NULL);
}

static bool run_on_host(const struct program *p)
{
    memset((void *)CODE, 0, HOST_END - CODE);
    memcpy((void *)CODE, p->start, (size_t)(p->end - p->start));
    native.is_32 = p->mode == USER32;
    native.count = 0;
    set_handlers(handle_signal);
    /* The handler turns this into the program, and its end into what follows. */
    __asm__ volatile("ud2" ::
                         : "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6",
                           "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14",
                           "xmm15");
    set_handlers(NULL);
    return same_reports(p, "the host's processor", native.reports, native.count);
}

/* --- all of them -------------------------------------------------------------------------------
 */

static bool is_chosen(const struct program *p)
{
    const char *only = getenv("ENGINES_ONLY");
    if (only && !strstr(p->name, only))
        return false;
    return !(p->flags & NEEDS_AVX) || __builtin_cpu_supports("avx");
}

/* How many were not as expected. */
static unsigned run_all(const struct engine *engine, const char *options, bool has_gaps)
{
    unsigned ran = 0, bad = 0, gaps = 0;
    for (const struct program *p = engine_programs; p < engine_programs_end; p++) {
        if (!is_chosen(p))
            continue;
        if ((p->flags & SOFT_ONLY) && engine != &engine_soft)
            continue;
        if (has_gaps && p->gap && !getenv("ENGINES_GAPS")) {
            printf("%s: %s not run: %s\n", engine->name, p->name, p->gap);
            gaps++;
            continue;
        }
        ran++;
        bad += !run_on_engine(p, engine, options);
    }
    printf("%s%s%s: %u programs ran, %u not as expected, %u can't run here\n", engine->name,
           options ? "," : "", options ? options : "", ran, bad, gaps);
    return bad;
}

/* In one test: cmocka takes the SIGFPE handler, which a process installs once, away after each. */
static void on_soft(void **state)
{
    unsigned bad = run_all(&engine_soft, "translator=off", false);
    bad += run_all(&engine_soft, "translator=eager", false);
    bad += run_all(&engine_soft, "translator=check", false);
    assert_int_equal(bad, 0);
}

static void on_kvm(void **state)
{
    struct engine_probe probe;
    engine_kvm.probe(&probe);
    if (!probe.available) {
        printf("kvm: skipped: %s %s: %s\n", probe.error.what, probe.error.where, probe.error.cause);
        skip();
    }
    printf("kvm: %s\n", probe.detail);
    assert_int_equal(run_all(&engine_kvm, NULL, !probe.backed_by_hardware), 0);
}

static void on_host(void **state)
{
    unsigned ran = 0, bad = 0;
    if (!native_open()) {
        printf("host: skipped: memory at %#x can't be mapped\n", CODE);
        skip();
    }
    for (const struct program *p = engine_programs; p < engine_programs_end; p++) {
        if (p->mode < USER64 || (p->flags & NOT_ON_HOST) || !is_chosen(p))
            continue;
        ran++;
        bad += !run_on_host(p);
    }
    printf("host: %u programs ran, %u not as expected\n", ran, bad);
    assert_int_equal(bad, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(on_soft),
        cmocka_unit_test(on_kvm),
        cmocka_unit_test(on_host),
    };
    setvbuf(stdout, NULL, _IOLBF, 0);
    return cmocka_run_group_tests_name("engines", tests, NULL, NULL);
}
