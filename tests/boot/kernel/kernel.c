/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The test kernel: printing, checks, interrupts, and which cases run. The command line names them,
 * by words; without any all run. Its end is port 0xf4: 0 when nothing failed.
 */
#include "kernel.h"

enum { COM1 = 0x3f8, EXIT_PORT = 0xf4, MAX_FAILURES = 100 };
enum { CS64 = 0x08, GATE_INTERRUPT = 0x8e };

const struct multiboot *boot;
static unsigned failures;
static volatile unsigned print_lock;
static handler_fn *handlers[256];
/* Of the processors that expect a fault: where to go on. By stack, so that none is in the way of
 * another. */
static struct {
    uint64_t stack, resume;
    bool faulted;
} expected[CPUS_MAX];

extern const char gates[];
void interrupt(struct frame *frame);
void kernel_main(uint32_t magic, uint32_t info);

/* The compiler calls them where it likes. */
void *memcpy(void *restrict to, const void *restrict from, size_t size_bytes);

void *memset(void *to, int value, size_t size_bytes)
{
    for (size_t i = 0; i < size_bytes; i++)
        ((volatile uint8_t *)to)[i] = (uint8_t)value;
    return to;
}

void *memcpy(void *restrict to, const void *restrict from, size_t size_bytes)
{
    for (size_t i = 0; i < size_bytes; i++)
        ((volatile uint8_t *)to)[i] = ((const uint8_t *)from)[i];
    return to;
}

static void lock(void)
{
    while (__atomic_exchange_n(&print_lock, 1, __ATOMIC_ACQUIRE))
        relax();
}

static void unlock(void)
{
    __atomic_store_n(&print_lock, 0, __ATOMIC_RELEASE);
}

void print(const char *text)
{
    for (; *text; text++) {
        while (!(in8(COM1 + 5) & 0x20))
            relax();
        out8(COM1, (uint8_t)*text);
    }
}

void print_hex(uint64_t value)
{
    char text[19] = "0x";
    unsigned at = 2, shift = 60;
    while (shift && !(value >> shift & 15))
        shift -= 4;
    for (;; shift -= 4) {
        text[at++] = "0123456789abcdef"[value >> shift & 15];
        if (!shift)
            break;
    }
    text[at] = 0;
    print(text);
}

static void finish(unsigned value)
{
    out8(EXIT_PORT, (uint8_t)value);
    for (;;)
        __asm__ volatile("cli; hlt");
}

void check_equal(uint64_t got, uint64_t wanted, const char *what)
{
    lock();
    print(got == wanted ? "PASS: " : "FAIL: ");
    print(what);
    if (got != wanted) {
        print(" (");
        print_hex(got);
        print(", not ");
        print_hex(wanted);
        print(")");
        failures++;
    }
    print("\n");
    unlock();
    if (failures >= MAX_FAILURES)
        finish(MAX_FAILURES);
}

void check(bool ok, const char *what)
{
    check_equal(ok, true, what);
}

bool text_equal(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

/* ---- interrupts ---- */

static uint64_t stack_of(uint64_t rsp)
{
    return (rsp - 1) & ~UINT64_C(16383);
}

void interrupt(struct frame *frame)
{
    if (frame->vector == 13) {
        for (unsigned i = 0; i < CPUS_MAX; i++)
            if (expected[i].resume && expected[i].stack == stack_of(frame->rsp)) {
                expected[i].faulted = true;
                frame->rip = expected[i].resume;
                return;
            }
    }
    if (handlers[frame->vector]) {
        handlers[frame->vector](frame);
        return;
    }
    print("FAIL: unexpected interrupt ");
    print_hex(frame->vector);
    print(" error ");
    print_hex(frame->error_code);
    print(" at ");
    print_hex(frame->rip);
    print("\n");
    finish(MAX_FAILURES);
}

void handle(uint8_t vector, handler_fn *fn)
{
    handlers[vector] = fn;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static struct {
    uint16_t offset_low, selector;
    uint8_t stack, kind;
    uint16_t offset_middle;
    uint32_t offset_high, zero;
} idt[256];

void load_idt(void)
{
    struct __attribute__((packed)) {
        uint16_t limit;
        uint64_t base;
    } pointer = {sizeof(idt) - 1, (uint64_t)(uintptr_t)idt};
    __asm__ volatile("lidt %0" : : "m"(pointer));
}

static void make_idt(void)
{
    for (unsigned i = 0; i < 256; i++) {
        uint64_t gate = (uint64_t)(uintptr_t)gates + 16 * i;
        idt[i].offset_low = (uint16_t)gate;
        idt[i].selector = CS64;
        idt[i].kind = GATE_INTERRUPT;
        idt[i].offset_middle = (uint16_t)(gate >> 16);
        idt[i].offset_high = (uint32_t)(gate >> 32);
    }
}

static unsigned expect_fault(void)
{
    uint64_t rsp;
    __asm__ volatile("mov %%rsp, %0" : "=r"(rsp));
    for (unsigned i = 0;; i = (i + 1) % CPUS_MAX) {
        uint64_t none = 0;
        if (__atomic_compare_exchange_n(&expected[i].stack, &none, stack_of(rsp), false,
                                        __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
            expected[i].faulted = false;
            return i;
        }
    }
}

static bool fault_done(unsigned slot)
{
    bool ok = !expected[slot].faulted;
    expected[slot].resume = 0;
    __atomic_store_n(&expected[slot].stack, 0, __ATOMIC_SEQ_CST);
    return ok;
}

bool rdmsr_ok(uint32_t msr, uint64_t *value)
{
    uint32_t low = 0, high = 0;
    unsigned slot = expect_fault();
    __asm__ volatile("lea 1f(%%rip), %%r8\n mov %%r8, %3\n rdmsr\n 1:"
                     : "+a"(low), "+d"(high)
                     : "c"(msr), "m"(expected[slot].resume)
                     : "r8", "memory");
    *value = (uint64_t)high << 32 | low;
    return fault_done(slot);
}

bool wrmsr_ok(uint32_t msr, uint64_t value)
{
    unsigned slot = expect_fault();
    __asm__ volatile("lea 1f(%%rip), %%r8\n mov %%r8, %3\n wrmsr\n 1:"
                     :
                     : "a"((uint32_t)value), "d"((uint32_t)(value >> 32)), "c"(msr),
                       "m"(expected[slot].resume)
                     : "r8", "memory");
    return fault_done(slot);
}

uint64_t rdmsr(uint32_t msr)
{
    uint32_t low, high;
    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
    return (uint64_t)high << 32 | low;
}

void wrmsr(uint32_t msr, uint64_t value)
{
    __asm__ volatile("wrmsr"
                     :
                     : "a"((uint32_t)value), "d"((uint32_t)(value >> 32)), "c"(msr)
                     : "memory");
}

/* Twenty seconds of a processor of 3 GHz. */
bool wait_until(volatile unsigned *value, unsigned wanted)
{
    uint64_t start = rdtsc();
    while (__atomic_load_n(value, __ATOMIC_ACQUIRE) != wanted) {
        if (rdtsc() - start > UINT64_C(60000000000))
            return false;
        relax();
    }
    return true;
}

void delay(uint64_t ticks)
{
    uint64_t start = rdtsc();
    while (rdtsc() - start < ticks)
        relax();
}

/* ---- the cases ---- */

static const struct {
    const char *name;
    void (*run)(void);
} cases[] = {
    {"loader", test_loader},     {"devices", test_devices}, {"apic", test_apic},
    {"timers", test_timers},     {"nmi", test_nmi},         {"ioapic", test_ioapic},
    {"ids", test_ids},           {"smp", test_smp},         {"init", test_init},
    {"clock", test_clock},       {"lock", test_lock},       {"barrier", test_barrier},
    {"message", test_message},   {"store", test_store},     {"iriw", test_iriw},
    {"mmio", test_mmio},         {"paging", test_paging},   {"compare", test_compare},
    {"crossing", test_crossing}, {"mwait", test_mwait},     {"sleep", test_sleep},
};

/* Whether the words behind the first, the kernel's name, have this one; or there is none, which is
 * all cases but those which wait for input. */
static bool is_wanted(const char *name)
{
    const char *at = (const char *)(uintptr_t)boot->cmdline;
    bool any = false;
    while (*at && *at != ' ')
        at++;
    while (*at) {
        while (*at == ' ')
            at++;
        const char *n = name;
        any |= *at != 0;
        while (*n && *n == *at)
            n++, at++;
        if (!*n && (!*at || *at == ' '))
            return true;
        while (*at && *at != ' ')
            at++;
    }
    return !any && !text_equal(name, "compare") && !text_equal(name, "crossing");
}

void kernel_main(uint32_t magic, uint32_t info)
{
    boot = (const struct multiboot *)(uintptr_t)info;
    make_idt();
    load_idt();
    check_equal(magic, 0x2badb002, "EAX holds Multiboot's magic number");
    out8(0x21, 0xff); /* no interrupts of the 8259 pair */
    out8(0xa1, 0xff);
    apic_reset();
    start_processors();
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        if (is_wanted(cases[i].name))
            cases[i].run();
    print(failures ? "FAILED\n" : "DONE\n");
    finish(failures);
}
