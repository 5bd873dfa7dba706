/* SPDX-License-Identifier: BSD-2-Clause
 * The KVM engine with small guest programs in real, protected and 64-bit mode. Skipped, with the
 * reason, where /dev/kvm can't be used. A program ends with `out` to port 0xf4, which kicks.
 *
 * What hosts whose kernel imitates guest kernels (the module kvm_pvm; no vmx or svm) do otherwise,
 * and is then not asserted: CPUID leaves 7 and 0xd come from the real processor whatever KVM is
 * told, the TSC can't be set, and an interrupt in service does not show in the ISR. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cpu/engine.h"
#include "cpu/kvm/kvm.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The guest programs; each runs at 0x1000 (SIPI: 0x9000). */
#define PROGRAM(name, bits, text)                                                                  \
    extern const char name##_start[], name##_end[];                                                \
    __asm__(".pushsection .rodata\n" #name "_start:\n.code" #bits "\n" text "\n.code64\n" #name    \
            "_end:\n.popsection\n")

PROGRAM(real, 16,
        "movb $0x41, %al; outb %al, $0x10\n"
        "movw $0x1234, %ax; outw %ax, $0x12\n"
        "inb $0x11, %al; addb $1, %al; outb %al, $0x10\n"
        "movw $0x3000, %si; movw $5, %cx; movw $0x10, %dx; cld; rep outsb\n"
        "movw $0x3100, %di; movw $4, %cx; movw $0x11, %dx; rep insb\n"
        "outb %al, $0xf4");
PROGRAM(protected, 32,
        "movl $0xc0000000, %ebx\n"
        "movl $0x11223344, (%ebx); movw $0x5566, 4(%ebx); movb $0x77, 6(%ebx)\n"
        "movl 8(%ebx), %eax; movl %eax, 0x3000\n"
        "movzbl 9(%ebx), %eax; movl %eax, 0x3004\n"
        "outb %al, $0xf4");
PROGRAM(longmode, 64,
        "movq $0xc0000000, %rbx\n"
        "movabsq $0x1122334455667788, %rax; movq %rax, (%rbx)\n"
        "movq 8(%rbx), %rcx; movq %rcx, 0x3000\n"
        "movl $0xb, %eax; movl $1, %ecx; cpuid; movl %ebx, 0x3010; movl %edx, 0x3014\n"
        "movl $1, %eax; cpuid; movl %ebx, 0x3018; movl %ecx, 0x301c\n"
        "movl $0xd, %eax; xorl %ecx, %ecx; cpuid; movl %eax, 0x3020\n"
        "movl $0x40000000, %eax; cpuid; movl %ebx, 0x3024\n"
        "outb %al, $0xf4");
PROGRAM(spin, 64, "1: incq %rax; jmp 1b");
PROGRAM(halt, 64, "cli; 1: hlt; jmp 1b");
PROGRAM(triple, 64, "ud2"); /* with no IDT */
PROGRAM(wander, 32, "movl $0xc0000000, %eax; jmp *%eax");
PROGRAM(rings, 64,
        "movq $0xc0000100, %rbx; movw $3, %ax; movw %ax, (%rbx)\n"
        "movl $5, 4(%rbx)\n"
        "outb %al, $0xf4");
PROGRAM(rom, 32,
        "movl 0x40000000, %eax; movl %eax, 0x3000\n"
        "movl $0x12345678, 0x40000004; movl 0x40000004, %eax; movl %eax, 0x3004\n"
        "outb %al, $0xf4");
/* Enables its local APIC, asks for an interrupt by port 0x16, waits for it halted; the handler,
 * at 0x1800, ends it. */
PROGRAM(waits, 64,
        "movl $0xfee00000, %ebx; movl $0x1ff, 0xf0(%rbx); movl $0x31, 0x350(%rbx)\n"
        "outb %al, $0x16\n"
        "sti; 1: hlt; jmp 1b");
PROGRAM(handler, 64,
        "movl $0xfee00000, %ebx; movl 0x120(%rbx), %eax; movl %eax, 0x3000\n"
        "movl $0, 0xb0(%rbx); outb %al, $0xf4");
/* Starts processor 1 as an operating system does. */
PROGRAM(starts, 64,
        "movl $0xfee00000, %ebx; movl $0x1000000, 0x310(%rbx)\n"
        "movl $0xc500, 0x300(%rbx); movl $0x8500, 0x300(%rbx); movl $0x4609, 0x300(%rbx)\n"
        "1: hlt; jmp 1b");
PROGRAM(nmi_handler, 64, "movl $0x4e4d49, 0x3000; outb %al, $0xf4");
PROGRAM(second, 16, "movw $0xbeef, %ax; outw %ax, $0x12; outb %al, $0xf4");

enum { RAM_BYTES = 4 << 20, CODE = 0x1000, DATA = 0x3000, TABLES = 0x10000, IDT = 0x8000 };
#define DEVICE UINT64_C(0xc0000000)

struct fixture {
    struct ram *ram;
    struct bus *bus;
    struct engine_vm *vm;
    struct engine_vcpu *vcpus[2];
    unsigned vcpu_count;
    struct engine_vcpu *running; /* kicked by port 0xf4 */
    char written[64];
    unsigned written_count;
    uint32_t word;
    uint8_t next_in;
    uint8_t device[256];
    unsigned device_writes, interrupt_requests;
    pthread_mutex_t lock;
    unsigned rings;
};

static uint64_t port_read(void *opaque, uint64_t offset, unsigned size_bytes)
{
    struct fixture *f = opaque;
    return f->next_in++;
}

static void port_write(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    struct fixture *f = opaque;
    if (offset == 0 && f->written_count < sizeof(f->written))
        f->written[f->written_count++] = (char)value;
    else if (offset == 2)
        f->word = (uint32_t)value | size_bytes << 16;
}

static void end_write(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    struct fixture *f = opaque;
    engine_kvm.kick(f->running);
}

static uint64_t device_read(void *opaque, uint64_t offset, unsigned size_bytes)
{
    struct fixture *f = opaque;
    uint64_t value = 0;
    memcpy(&value, f->device + offset, size_bytes);
    return value;
}

static void device_write(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    struct fixture *f = opaque;
    memcpy(f->device + offset, &value, size_bytes);
    f->device_writes++;
}

static void map(struct fixture *f, enum bus_space space, uint64_t base, uint64_t size_bytes,
                bus_read_fn *read_fn, bus_write_fn *write_fn)
{
    const struct bus_range range = {.name = "test",
                                    .space = space,
                                    .base = base,
                                    .size_bytes = size_bytes,
                                    .read = read_fn,
                                    .write = write_fn,
                                    .opaque = f};
    assert_true(bus_map(f->bus, &range, NULL));
}

static void check(bool good, const struct error *err)
{
    if (!good)
        fail_msg("%s %s: %s", err->what, err->where, err->cause);
}

static int setup_count(void **state, unsigned vcpu_count)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct error err = {0};
    f->ram = ram_create(RAM_BYTES, &err);
    check(f->ram, &err);
    f->bus = bus_create(NULL);
    f->vcpu_count = vcpu_count;
    f->next_in = 0x50;
    pthread_mutex_init(&f->lock, NULL);
    map(f, BUS_PORT, 0x10, 4, port_read, port_write);
    map(f, BUS_PORT, 0xf4, 1, NULL, end_write);
    map(f, BUS_MMIO, DEVICE, sizeof(f->device), device_read, device_write);
    const struct engine_config config = {
        .vcpu_count = vcpu_count, .topology = {1, vcpu_count, 1}, .ram = f->ram, .bus = f->bus};
    f->vm = engine_kvm.vm_open(&config, &err);
    check(f->vm, &err);
    for (unsigned i = 0; i < vcpu_count; i++) {
        f->vcpus[i] = engine_kvm.vcpu_open(f->vm, i, &err);
        check(f->vcpus[i], &err);
    }
    f->running = f->vcpus[0];
    *state = f;
    return 0;
}

static int setup(void **state)
{
    return setup_count(state, 1);
}

static int setup_two(void **state)
{
    return setup_count(state, 2);
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    for (unsigned i = 0; i < f->vcpu_count; i++)
        engine_kvm.vcpu_close(f->vcpus[i]);
    engine_kvm.vm_close(f->vm);
    bus_destroy(f->bus);
    ram_destroy(f->ram);
    pthread_mutex_destroy(&f->lock);
    free(f);
    return 0;
}

static void put(struct fixture *f, uint64_t gpa, const char *start, const char *end)
{
    assert_true(ram_write(f->ram, gpa, start, (size_t)(end - start)));
}

static uint32_t word_at(struct fixture *f, uint64_t gpa)
{
    uint32_t value = 0;
    assert_true(ram_read(f->ram, gpa, &value, sizeof(value)));
    return value;
}

static void put64(struct fixture *f, uint64_t gpa, uint64_t value)
{
    assert_true(ram_write(f->ram, gpa, &value, sizeof(value)));
}

static void set(struct fixture *f, const struct x86_state *state)
{
    struct error err = {0};
    check(engine_kvm.set_state(f->vcpus[0], state, &err), &err);
}

static void get(struct fixture *f, struct x86_state *state)
{
    struct error err = {0};
    check(engine_kvm.get_state(f->vcpus[0], state, &err), &err);
}

static void real_state(struct x86_state *state)
{
    x86_state_reset(state, true);
    state->rip = CODE;
    state->segment[SEG_CS].selector = 0;
    state->segment[SEG_CS].base = 0;
    state->gpr[RSP] = 0x7000;
}

static void flat(struct x86_state *state, uint32_t code_bit)
{
    for (int i = SEG_ES; i <= SEG_GS; i++)
        state->segment[i] =
            (struct x86_segment){.limit = UINT32_MAX,
                                 .selector = i == SEG_CS ? 0x8 : 0x10,
                                 .attributes = SEGMENT_S | SEGMENT_P | SEGMENT_G |
                                               (i == SEG_CS ? 0xb | code_bit : 0x3u | SEGMENT_DB)};
    state->segment[SEG_TR].limit = 0x67;
    state->segment[SEG_LDTR].attributes = SEGMENT_UNUSABLE;
}

static void protected_state(struct x86_state *state)
{
    real_state(state);
    flat(state, SEGMENT_DB);
    state->cr0 |= 1;
}

/* The low 4 GiB mapped one to one in pages of 2 MiB. */
static void long_state(struct fixture *f, struct x86_state *state)
{
    protected_state(state);
    flat(state, SEGMENT_L);
    put64(f, TABLES, (TABLES + 0x1000) | 3);
    for (uint64_t i = 0; i < 4; i++) {
        put64(f, TABLES + 0x1000 + i * 8, (TABLES + 0x2000 + i * 0x1000) | 3);
        for (uint64_t j = 0; j < 512; j++)
            put64(f, TABLES + 0x2000 + i * 0x1000 + j * 8, i << 30 | j << 21 | 0x83);
    }
    state->cr3 = TABLES;
    state->cr4 = 1 << 5;
    state->efer = 0x500;
    state->cr0 = 0x80000031;
    state->idtr.limit = 0;
    /* A GDT with what the selectors say, for interrupts. */
    put64(f, 0x7000, 0);
    put64(f, 0x7008, UINT64_C(0x00af9b000000ffff));
    put64(f, 0x7010, UINT64_C(0x00cf93000000ffff));
    state->gdtr = (struct x86_table){0x7000, 0x17};
}

static struct engine_exit run(struct fixture *f)
{
    struct engine_exit exit;
    engine_kvm.run(f->running, &exit);
    return exit;
}

static void run_to_end(struct fixture *f)
{
    struct engine_exit exit = run(f);
    if (exit.reason == ENGINE_EXIT_FAILED)
        fail_msg("%s %s: %s", exit.error.what, exit.error.where, exit.error.cause);
    assert_int_equal(exit.reason, ENGINE_EXIT_KICKED);
}

static bool on_hardware(void)
{
    struct engine_probe probe;
    engine_kvm.probe(&probe);
    return probe.backed_by_hardware;
}

static void test_probe(void **state)
{
    struct engine_probe probe;
    engine_kvm.probe(&probe);
    assert_true(probe.available);
    assert_true(probe.detail[0]);
    print_message("kvm: %s\n", probe.detail);
    struct error err = {0};
    const struct engine_config config = {.vcpu_count = 1, .options = "turbo"};
    assert_null(engine_kvm.vm_open(&config, &err));
    assert_int_equal(err.kind, ERROR_USAGE);
}

static void test_real_mode_ports(void **state)
{
    struct fixture *f = *state;
    struct x86_state cpu;
    put(f, CODE, real_start, real_end);
    assert_true(ram_write(f->ram, DATA, "hello", 5));
    real_state(&cpu);
    set(f, &cpu);
    run_to_end(f);
    assert_int_equal(f->written_count, 7);
    assert_memory_equal(f->written, "A\x51hello", 7);
    assert_int_equal(f->word, 0x21234);
    assert_int_equal(word_at(f, 0x3100), 0x54535251);
    get(f, &cpu);
    assert_int_equal(cpu.rip, CODE + (uint64_t)(real_end - real_start));
    assert_int_equal(cpu.gpr[RCX], 0);
    assert_int_equal(cpu.gpr[RDI] & 0xffff, 0x3104);
    struct engine_stats stats;
    engine_kvm.stats(f->vm, &stats);
    assert_int_equal(stats.pio, 14);
}

static void test_protected_mode_mmio(void **state)
{
    struct fixture *f = *state;
    struct x86_state cpu;
    put(f, CODE, protected_start, protected_end);
    memcpy(f->device + 8, "\x01\x02\x03\x04", 4);
    protected_state(&cpu);
    set(f, &cpu);
    run_to_end(f);
    assert_memory_equal(f->device, "\x44\x33\x22\x11\x66\x55\x77", 7);
    assert_int_equal(f->device_writes, 3);
    assert_int_equal(word_at(f, DATA), 0x04030201);
    assert_int_equal(word_at(f, DATA + 4), 2);
}

static void test_long_mode_and_cpuid(void **state)
{
    struct fixture *f = *state;
    struct x86_state cpu;
    put(f, CODE, longmode_start, longmode_end);
    memcpy(f->device + 8, "\x01\x02\x03\x04\x05\x06\x07\x08", 8);
    long_state(f, &cpu);
    set(f, &cpu);
    run_to_end(f);
    assert_memory_equal(f->device, "\x88\x77\x66\x55\x44\x33\x22\x11", 8);
    assert_int_equal(word_at(f, DATA), 0x04030201);
    assert_int_equal(word_at(f, DATA + 4), 0x08070605);
    assert_int_equal(word_at(f, 0x3010), 2);       /* two processors a package */
    assert_int_equal(word_at(f, 0x3014), 0);       /* x2APIC id */
    assert_int_equal(word_at(f, 0x3018) >> 16, 2); /* APIC id 0, two logical processors */
    assert_true(word_at(f, 0x301c) & 1u << 31);    /* hypervisor */
    if (on_hardware())
        assert_int_equal(word_at(f, 0x3020) & ~7u, 0); /* XSAVE: x87, SSE, AVX at most */
    assert_int_equal(word_at(f, 0x3024), 0x4b4d564b);  /* "KVMK" */
}

static const struct kvm_cpuid_entry2 *leaf(const struct kvm_cpuid_table *table, uint32_t function,
                                           uint32_t index)
{
    for (unsigned i = 0; i < table->nent; i++)
        if (table->entries[i].function == function && table->entries[i].index == index)
            return &table->entries[i];
    return NULL;
}

static void test_cpuid_tables(void **state)
{
    struct fixture *f = *state;
    struct error err = {0};
    struct kvm_cpuid_table *table = calloc(1, sizeof(*table));
    f->vm->topology = (struct engine_topology){.sockets = 2, .cores = 3, .threads = 2};
    check(kvm_cpuid_compose(f->vm, 7, table, &err), &err);
    const struct kvm_cpuid_entry2 *e = leaf(table, 1, 0);
    assert_non_null(e);
    assert_int_equal(e->ebx >> 16, 0x0908);          /* id: socket 1, core 0, thread 1 */
    assert_int_equal(e->ecx & 1u << 31, 1u << 31);   /* hypervisor */
    assert_int_equal(e->ecx & (1 << 5 | 1 << 3), 0); /* VMX, MONITOR */
    assert_int_equal(e->edx & 1 << 28, 1 << 28);     /* HTT */
    e = leaf(table, 7, 0);
    assert_int_equal(e->ebx & 0xdc230000, 0); /* AVX-512 */
    assert_int_equal(e->ecx & 0x18, 0);       /* PKU */
    e = leaf(table, 0xd, 0);
    assert_int_equal(e->eax & ~7u, 0);
    assert_int_equal(e->ecx, e->eax & 4 ? 832 : 576);
    assert_null(leaf(table, 0xd, 5));
    assert_int_equal(leaf(table, 0xd, 1)->eax & 8, 0); /* XSAVES */
    assert_null(leaf(table, 0xa, 0));
    e = leaf(table, 0xb, 0);
    assert_int_equal(e->eax, 1);
    assert_int_equal(e->ebx, 2);
    assert_int_equal(e->edx, 9);
    e = leaf(table, 0xb, 1);
    assert_int_equal(e->eax, 3);
    assert_int_equal(e->ebx, 6);
    assert_int_equal(e->ecx, 0x201);
    e = leaf(table, 0x80000001, 0);
    assert_int_equal(e->ecx & 4, 0); /* SVM */
    e = leaf(table, 0x40000001, 0);
    assert_int_equal(e->eax & (1 << 4 | 1 << 5), 0); /* async page faults, steal time */
    assert_int_equal(e->eax & 1 << 3, 1 << 3);       /* clock */
    free(table);
}

/* Every field that KVM can carry comes back as it was set. */
static void test_state_round_trip(void **state)
{
    struct fixture *f = *state;
    struct x86_state set_to, got;
    long_state(f, &set_to);
    for (int i = 0; i < 16; i++)
        set_to.gpr[i] = UINT64_C(0x0123456789abcdef) * (unsigned)(i + 1);
    set_to.rflags = 0x246;
    set_to.cr2 = 0xdead000;
    set_to.cr8 = 5;
    set_to.dr[0] = 0x1111;
    set_to.dr[3] = 0x3333;
    set_to.segment[SEG_FS].base = UINT64_C(0x7fff12345000);
    set_to.segment[SEG_GS].base = UINT64_C(0xffff888000000000);
    set_to.idtr = (struct x86_table){0x8000, 0xfff};
    set_to.efer |= 1;
    set_to.star = UINT64_C(0x0023001000000000);
    set_to.lstar = UINT64_C(0xffffffff81000000);
    set_to.cstar = UINT64_C(0xffffffff81000100);
    set_to.sfmask = 0x47700;
    set_to.kernel_gs_base = UINT64_C(0xffff888000001000);
    set_to.sysenter_cs = 0x10;
    set_to.sysenter_esp = UINT64_C(0xffff888000002000);
    set_to.sysenter_eip = UINT64_C(0xffffffff81000200);
    set_to.pat = UINT64_C(0x0407050600070106);
    set_to.mtrr_def_type = 0xc06;
    set_to.mtrr_base[0] = 0xc0000000;
    set_to.mtrr_mask[0] = UINT64_C(0xffc0000800);
    set_to.mtrr_fixed[0] = UINT64_C(0x0606060606060606);
    set_to.tsc = UINT64_C(1) << 40;
    set_to.xcr0 = 7;
    set_to.xsave[512] = 7;
    memcpy(set_to.xsave, "\x7f\x03", 2);
    memset(set_to.xsave + 160, 0xa5, 256); /* XMM0 … XMM15 */
    memset(set_to.xsave + 576, 0x5a, 256); /* their upper halves */
    set_to.pending.nmi_blocked = true;
    set(f, &set_to);
    get(f, &got);
    assert_memory_equal(got.gpr, set_to.gpr, sizeof(got.gpr));
    assert_int_equal(got.rip, set_to.rip);
    assert_int_equal(got.rflags, set_to.rflags);
    for (int i = 0; i < SEG_COUNT; i++) {
        assert_int_equal(got.segment[i].base, set_to.segment[i].base);
        assert_int_equal(got.segment[i].selector, set_to.segment[i].selector);
        if (set_to.segment[i].attributes & SEGMENT_UNUSABLE) {
            assert_true(got.segment[i].attributes & SEGMENT_UNUSABLE);
            continue;
        }
        assert_int_equal(got.segment[i].limit, set_to.segment[i].limit);
        assert_int_equal(got.segment[i].attributes, set_to.segment[i].attributes);
    }
    assert_int_equal(got.gdtr.base, set_to.gdtr.base);
    assert_int_equal(got.gdtr.limit, set_to.gdtr.limit);
    assert_int_equal(got.idtr.base, set_to.idtr.base);
    assert_int_equal(got.idtr.limit, set_to.idtr.limit);
    assert_int_equal(got.cr0, set_to.cr0);
    assert_int_equal(got.cr2, set_to.cr2);
    assert_int_equal(got.cr3, set_to.cr3);
    assert_int_equal(got.cr4, set_to.cr4);
    assert_int_equal(got.cr8, set_to.cr8);
    assert_int_equal(got.efer, set_to.efer);
    assert_memory_equal(got.dr, set_to.dr, sizeof(got.dr));
    assert_int_equal(got.star, set_to.star);
    assert_int_equal(got.lstar, set_to.lstar);
    assert_int_equal(got.cstar, set_to.cstar);
    assert_int_equal(got.sfmask, set_to.sfmask);
    assert_int_equal(got.kernel_gs_base, set_to.kernel_gs_base);
    assert_int_equal(got.sysenter_cs, set_to.sysenter_cs);
    assert_int_equal(got.sysenter_esp, set_to.sysenter_esp);
    assert_int_equal(got.sysenter_eip, set_to.sysenter_eip);
    assert_int_equal(got.pat, set_to.pat);
    assert_int_equal(got.mtrr_def_type, set_to.mtrr_def_type);
    assert_int_equal(got.mtrr_base[0], set_to.mtrr_base[0]);
    assert_int_equal(got.mtrr_mask[0], set_to.mtrr_mask[0]);
    assert_int_equal(got.mtrr_fixed[0], set_to.mtrr_fixed[0]);
    if (on_hardware())
        assert_true(got.tsc >= set_to.tsc && got.tsc - set_to.tsc < UINT64_C(1) << 39);
    assert_int_equal(got.apic_base, set_to.apic_base);
    assert_int_equal(got.xcr0, 7);
    assert_int_equal(got.xsave[512], 7);
    assert_memory_equal(got.xsave, set_to.xsave, 6);
    assert_memory_equal(got.xsave + 24, set_to.xsave + 24, 4);
    assert_memory_equal(got.xsave + 160, set_to.xsave + 160, 256);
    assert_memory_equal(got.xsave + 576, set_to.xsave + 576, 256);
    assert_true(got.pending.nmi_blocked);
    assert_int_equal(got.run_state, X86_RUNNING);
}

static void test_pending_and_run_states(void **state)
{
    struct fixture *f = *state;
    struct x86_state set_to, got;
    long_state(f, &set_to);
    set_to.rflags = 0x202;
    set_to.pending = (struct x86_pending){.exception = true, .vector = 0x45};
    set(f, &set_to);
    get(f, &got); /* an interrupt on its way */
    assert_true(got.pending.exception);
    assert_int_equal(got.pending.vector, 0x45);
    set_to.pending = (struct x86_pending){
        .exception = true, .vector = 14, .has_error_code = true, .error_code = 2, .nmi = true};
    set(f, &set_to);
    get(f, &got);
    assert_true(got.pending.exception && got.pending.has_error_code && got.pending.nmi);
    assert_int_equal(got.pending.vector, 14);
    assert_int_equal(got.pending.error_code, 2);
    memset(&set_to.pending, 0, sizeof(set_to.pending));
    for (enum x86_run_state s = X86_RUNNING; s <= X86_WAIT_FOR_SIPI; s++) {
        set_to.run_state = s;
        set(f, &set_to);
        get(f, &got);
        assert_int_equal(got.run_state, s);
        assert_false(got.pending.exception);
    }
}

static void *kick_later(void *opaque)
{
    struct fixture *f = opaque;
    usleep(20000);
    engine_kvm.kick(f->vcpus[0]);
    return NULL;
}

static void run_kicked_by_thread(struct fixture *f)
{
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, kick_later, f), 0);
    run_to_end(f);
    pthread_join(thread, NULL);
}

static void test_kick(void **state)
{
    struct fixture *f = *state;
    struct x86_state cpu;
    put(f, CODE, spin_start, spin_end);
    long_state(f, &cpu);
    set(f, &cpu);
    engine_kvm.kick(f->vcpus[0]); /* before: the next run returns */
    run_to_end(f);
    get(f, &cpu);
    assert_int_equal(cpu.gpr[RAX], 0);
    for (int i = 0; i < 5; i++) {
        uint64_t before = cpu.gpr[RAX];
        run_kicked_by_thread(f);
        get(f, &cpu);
        assert_true(cpu.gpr[RAX] > before);
    }
}

static void test_kick_while_halted(void **state)
{
    struct fixture *f = *state;
    struct x86_state cpu;
    put(f, CODE, halt_start, halt_end);
    long_state(f, &cpu);
    set(f, &cpu);
    run_kicked_by_thread(f);
    get(f, &cpu);
    assert_int_equal(cpu.rip, CODE + 2);
    assert_int_equal(cpu.run_state, X86_HALTED);
    run_kicked_by_thread(f);
}

static void test_triple_fault(void **state)
{
    struct fixture *f = *state;
    struct x86_state cpu;
    put(f, CODE, triple_start, triple_end);
    long_state(f, &cpu);
    set(f, &cpu);
    assert_int_equal(run(f).reason, ENGINE_EXIT_SHUTDOWN);
    f->vm->log = NULL; /* and can be started again */
    kvm_engine_irqchip.reset(f->vm);
    put(f, CODE, real_start, real_end);
    real_state(&cpu);
    set(f, &cpu);
    run_to_end(f);
    assert_int_equal(f->written[0], 'A');
}

static void test_failure_tells_where(void **state)
{
    struct fixture *f = *state;
    struct x86_state cpu;
    put(f, CODE, wander_start, wander_end);
    protected_state(&cpu);
    set(f, &cpu);
    struct engine_exit exit = run(f);
    assert_int_equal(exit.reason, ENGINE_EXIT_FAILED);
    assert_non_null(strstr(exit.error.cause, "at 0008:c0000000 in protected mode"));
    print_message("kvm: %s\n", exit.error.cause);
}

static void on_ring(void *opaque)
{
    struct fixture *f = opaque;
    usleep(1000); /* so that a run() that does not wait is found out */
    pthread_mutex_lock(&f->lock);
    f->rings++;
    pthread_mutex_unlock(&f->lock);
}

static void test_doorbells(void **state)
{
    struct fixture *f = *state;
    struct x86_state cpu;
    map(f, BUS_MMIO, DEVICE + 0x100, 8, NULL, device_write);
    const struct bus_doorbell bell = {
        .space = BUS_MMIO, .base = DEVICE + 0x100, .size_bytes = 8, .ring = on_ring, .opaque = f};
    bus_doorbell_add(f->bus, &bell);
    put(f, CODE, rings_start, rings_end);
    long_state(f, &cpu);
    set(f, &cpu);
    run_to_end(f);
    assert_int_equal(f->rings, 2); /* one by eventfd, one by exit; served when run() returns */
    assert_int_equal(f->device_writes, 0);
    struct engine_stats stats;
    engine_kvm.stats(f->vm, &stats);
    if (f->vm->doorbells)
        assert_int_equal(stats.mmio, 1);
    bus_doorbell_remove(f->bus, BUS_MMIO, DEVICE + 0x100);
    set(f, &cpu);
    run_to_end(f);
    assert_int_equal(f->rings, 2);
    assert_int_equal(f->device_writes, 2);
}

static void test_rom_is_read_only(void **state)
{
    struct fixture *f = *state;
    struct x86_state cpu;
    struct error err = {0};
    uint8_t *rom = aligned_alloc(4096, 4096);
    memset(rom, 0x5c, 4096);
    const struct ram_region *ram = ram_region(f->ram, 0);
    const struct physmap_range ranges[] = {
        {.gpa = ram->gpa, .size_bytes = ram->size_bytes, .hva = ram->hva},
        {.gpa = 0x40000000, .size_bytes = 4096, .hva = rom, .read_only = true},
    };
    check(engine_kvm.set_memory(f->vm, ranges, 2, &err), &err);
    put(f, CODE, rom_start, rom_end);
    protected_state(&cpu);
    set(f, &cpu);
    run_to_end(f);
    assert_int_equal(word_at(f, DATA), 0x5c5c5c5c);
    assert_int_equal(word_at(f, DATA + 4), 0x5c5c5c5c);
    engine_kvm.vcpu_close(f->vcpus[0]); /* the ROM must outlive the machine */
    f->vcpu_count = 0;
    free(rom);
}

static void send_msi(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    struct fixture *f = opaque;
    struct msi_sink sink = kvm_engine_irqchip.msi(f->vm);
    f->interrupt_requests++;
    msi_send(&sink, 0xfee00000, 0x45);
}

/* A gate of 64 bits for `vector` to the handler at 0x1800. */
static void gate(struct fixture *f, unsigned vector)
{
    put64(f, IDT + vector * 16, UINT64_C(0x1800) | UINT64_C(8) << 16 | UINT64_C(0x8e00) << 32);
    put64(f, IDT + vector * 16 + 8, 0);
}

static void prepare_interrupt(struct fixture *f, struct x86_state *cpu)
{
    put(f, CODE, waits_start, waits_end);
    put(f, 0x1800, handler_start, handler_end);
    long_state(f, cpu);
    gate(f, 0x45);
    cpu->idtr = (struct x86_table){IDT, 0xfff};
    cpu->gpr[RSP] = 0x6000;
}

static void test_msi_wakes_a_halted_guest(void **state)
{
    struct fixture *f = *state;
    struct x86_state cpu;
    prepare_interrupt(f, &cpu);
    map(f, BUS_PORT, 0x16, 1, NULL, send_msi);
    set(f, &cpu);
    run_to_end(f);
    assert_int_equal(f->interrupt_requests, 1);
    get(f, &cpu);
    assert_int_equal(cpu.rip, 0x1800 + (uint64_t)(handler_end - handler_start));
    if (on_hardware())
        assert_int_equal(word_at(f, DATA), 1 << 5); /* 0x45 in service */
}

/* Through the plain state and back all that KVM has is as before. */
static void test_irqchip_get_set_reset(void **state)
{
    test_msi_wakes_a_halted_guest(state); /* leaves SVR and LVT0 set */
    struct fixture *f = *state;
    struct kvm_lapic_state before, reset, after;
    struct irqchip_state irqchip;
    struct error err = {0};
    assert_int_equal(kvm_ioctl(f->vcpus[0]->fd, KVM_GET_LAPIC, &before), 0);
    check(kvm_engine_irqchip.get(f->vm, 1000, &irqchip, &err), &err);
    assert_int_equal(irqchip.lapic[0].svr, 0x1ff);
    kvm_engine_irqchip.reset(f->vm);
    assert_int_equal(kvm_ioctl(f->vcpus[0]->fd, KVM_GET_LAPIC, &reset), 0);
    assert_int_equal((uint8_t)before.regs[0xf1], 1);
    assert_int_equal((uint8_t)reset.regs[0xf1], 0);
    check(kvm_engine_irqchip.set(f->vm, 1000, &irqchip, &err), &err);
    assert_int_equal(kvm_ioctl(f->vcpus[0]->fd, KVM_GET_LAPIC, &after), 0);
    assert_memory_equal(&before, &after, sizeof(before));
    irqchip.lapic[0].svr |= 1 << 12;
    assert_false(kvm_engine_irqchip.set(f->vm, 1000, &irqchip, &err));
    assert_non_null(strstr(err.cause, "ends of interrupts"));
}

static void *run_second(void *opaque)
{
    struct fixture *f = opaque;
    struct engine_exit exit;
    engine_kvm.run(f->vcpus[1], &exit);
    return (void *)(uintptr_t)exit.reason;
}

static void finish_second(struct fixture *f, pthread_t thread)
{
    void *reason;
    pthread_join(thread, &reason);
    assert_int_equal((uintptr_t)reason, ENGINE_EXIT_KICKED);
    assert_int_equal(f->word, 0x2beef);
}

static void test_injected_init_and_sipi(void **state)
{
    struct fixture *f = *state;
    pthread_t thread;
    put(f, 0x9000, second_start, second_end);
    f->running = f->vcpus[1];
    assert_int_equal(pthread_create(&thread, NULL, run_second, f), 0);
    engine_kvm.inject(f->vcpus[1], ENGINE_INIT, 0);
    usleep(10000);
    engine_kvm.inject(f->vcpus[1], ENGINE_SIPI, 0x09);
    finish_second(f, thread);
    f->word = 0;
    f->written_count = 0;
    engine_kvm.inject(f->vcpus[1], ENGINE_SIPI, 0x0a); /* it does not wait for one: ignored */
    engine_kvm.inject(f->vcpus[1], ENGINE_INIT, 0);    /* before a run, together */
    engine_kvm.inject(f->vcpus[1], ENGINE_SIPI, 0x09);
    assert_int_equal(pthread_create(&thread, NULL, run_second, f), 0);
    finish_second(f, thread);
}

static void *run_first(void *opaque)
{
    struct fixture *f = opaque;
    struct engine_exit exit;
    engine_kvm.run(f->vcpus[0], &exit);
    return NULL;
}

static void test_processor_starts_another(void **state)
{
    struct fixture *f = *state;
    struct x86_state cpu;
    pthread_t first, second;
    put(f, CODE, starts_start, starts_end);
    put(f, 0x9000, second_start, second_end);
    long_state(f, &cpu);
    set(f, &cpu);
    f->running = f->vcpus[1];
    assert_int_equal(pthread_create(&second, NULL, run_second, f), 0);
    assert_int_equal(pthread_create(&first, NULL, run_first, f), 0);
    finish_second(f, second);
    engine_kvm.kick(f->vcpus[0]);
    pthread_join(first, NULL);
}

static void test_injected_nmi(void **state)
{
    struct fixture *f = *state;
    struct x86_state cpu;
    put(f, CODE, halt_start, halt_end);
    put(f, 0x1800, nmi_handler_start, nmi_handler_end);
    long_state(f, &cpu);
    gate(f, 2);
    cpu.idtr = (struct x86_table){IDT, 0xfff};
    cpu.gpr[RSP] = 0x6000;
    set(f, &cpu);
    engine_kvm.inject(f->vcpus[0], ENGINE_NMI, 0);
    run_to_end(f);
    assert_int_equal(word_at(f, DATA), 0x4e4d49);
    get(f, &cpu);
    assert_true(cpu.pending.nmi_blocked);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_probe),
        T(test_real_mode_ports),
        T(test_protected_mode_mmio),
        cmocka_unit_test_setup_teardown(test_long_mode_and_cpuid, setup_two, teardown),
        T(test_cpuid_tables),
        T(test_state_round_trip),
        T(test_pending_and_run_states),
        T(test_kick),
        T(test_kick_while_halted),
        T(test_triple_fault),
        T(test_failure_tells_where),
        T(test_doorbells),
        T(test_rom_is_read_only),
        T(test_msi_wakes_a_halted_guest),
        T(test_irqchip_get_set_reset),
        T(test_injected_nmi),
        cmocka_unit_test_setup_teardown(test_injected_init_and_sipi, setup_two, teardown),
        cmocka_unit_test_setup_teardown(test_processor_starts_another, setup_two, teardown),
    };
    struct engine_probe probe;
    engine_kvm.probe(&probe);
    if (!probe.available) {
        printf("kvm: skipped: %s %s: %s\n", probe.error.what, probe.error.where, probe.error.cause);
        return 0;
    }
    alarm(60); /* a guest that hangs ends the test */
    return cmocka_run_group_tests_name("kvm", tests, NULL, NULL);
}
