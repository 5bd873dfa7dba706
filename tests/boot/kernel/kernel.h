/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What the files of the test kernel share. It is used as test suites use a machine: loaded as a
 * Multiboot image, told its number of processors by fw_cfg, prints on COM1, ends by port 0xf4.
 */
#ifndef SKEP_TESTS_KERNEL_H
#define SKEP_TESTS_KERNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CPUS_MAX = 64 };

struct frame {
    uint64_t gpr[15]; /* r15 … rax, as start.S pushes them */
    uint64_t vector, error_code, rip, cs, rflags, rsp, ss;
};

/* ---- instructions ---- */

static inline void out8(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}
static inline void out16(uint16_t port, uint16_t value)
{
    __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port));
}
static inline void out32(uint16_t port, uint32_t value)
{
    __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}
static inline uint8_t in8(uint16_t port)
{
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}
static inline uint16_t in16(uint16_t port)
{
    uint16_t value;
    __asm__ volatile("inw %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}
static inline uint32_t in32(uint16_t port)
{
    uint32_t value;
    __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}
static inline void sti(void)
{
    __asm__ volatile("sti; nop" : : : "memory");
}
static inline void cli(void)
{
    __asm__ volatile("cli" : : : "memory");
}
static inline void relax(void)
{
    __asm__ volatile("pause" : : : "memory");
}
/* LFENCE: the counter may be read ahead of the instructions before (SDM 2B RDTSC). */
static inline uint64_t rdtsc(void)
{
    uint32_t low, high;
    __asm__ volatile("lfence\n\trdtsc" : "=a"(low), "=d"(high) : : "memory");
    return (uint64_t)high << 32 | low;
}
static inline uint64_t read_cr8(void)
{
    uint64_t value;
    __asm__ volatile("mov %%cr8, %0" : "=r"(value));
    return value;
}
static inline void write_cr8(uint64_t value)
{
    __asm__ volatile("mov %0, %%cr8" : : "r"(value) : "memory");
}

struct cpuid {
    uint32_t eax, ebx, ecx, edx;
};
static inline struct cpuid cpuid(uint32_t leaf, uint32_t subleaf)
{
    struct cpuid r;
    __asm__ volatile("cpuid"
                     : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx)
                     : "a"(leaf), "c"(subleaf));
    return r;
}

/* ---- kernel.c: printing, checks, interrupts ---- */

void *memset(void *to, int value, size_t size_bytes);

void print(const char *text);
void print_hex(uint64_t value);
/* Prints PASS or FAIL and the text, and counts. */
void check(bool ok, const char *what);
void check_equal(uint64_t got, uint64_t wanted, const char *what);

typedef void handler_fn(struct frame *frame);
void load_idt(void);                          /* on each processor */
void handle(uint8_t vector, handler_fn *fn);  /* NULL: a mistake, which ends the kernel */
bool rdmsr_ok(uint32_t msr, uint64_t *value); /* false: #GP */
bool wrmsr_ok(uint32_t msr, uint64_t value);
uint64_t rdmsr(uint32_t msr);
void wrmsr(uint32_t msr, uint64_t value);
/* Waits until the condition holds; false after some seconds, which only ends a hang. */
bool wait_until(volatile unsigned *value, unsigned wanted);
void delay(uint64_t ticks); /* of the TSC, with interrupts as they are */

struct multiboot {
    uint32_t flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods_addr, syms[4];
    uint32_t mmap_length, mmap_addr, drives[2], config, loader_name;
};
extern const struct multiboot *boot;
bool text_equal(const char *a, const char *b);
const uint8_t *find_table(const char *signature); /* of ACPI; NULL: there is none */

/* ---- smp.c ---- */

uint64_t fw_cfg_number(uint16_t key, unsigned size_bytes);
extern unsigned cpu_count;
extern volatile unsigned processors_online; /* how often one came up, the first one left out */
void start_processors(void);
unsigned my_id(void); /* of the local APIC as CPUID tells it */
/* On the processor with this APIC id, waits for its end. */
void run_on(unsigned id, void (*fn)(void *opaque), void *opaque);
void start_on(unsigned id, void (*fn)(void *opaque), void *opaque);
void wait_for_all(void);       /* that were started */
void forget_work(unsigned id); /* of one that was reset in the middle of it */
bool madt_has(unsigned id);    /* whether ACPI tells of an enabled processor with this id */

/* ---- apic.c ---- */

enum {
    APIC_ID = 0x20,
    APIC_VERSION = 0x30,
    APIC_TPR = 0x80,
    APIC_PPR = 0xa0,
    APIC_EOI = 0xb0,
    APIC_LDR = 0xd0,
    APIC_DFR = 0xe0,
    APIC_SVR = 0xf0,
    APIC_ISR = 0x100,
    APIC_TMR = 0x180,
    APIC_IRR = 0x200,
    APIC_ESR = 0x280,
    APIC_ICR = 0x300,
    APIC_ICR_HIGH = 0x310,
    APIC_LVT_TIMER = 0x320,
    APIC_LVT_LINT0 = 0x350,
    APIC_LVT_LINT1 = 0x360,
    APIC_LVT_ERROR = 0x370,
    APIC_INITIAL = 0x380,
    APIC_CURRENT = 0x390,
    APIC_DIVIDE = 0x3e0,
};
enum {
    ICR_LOWEST = 1 << 8,
    ICR_NMI = 4 << 8,
    ICR_INIT = 5 << 8,
    ICR_SIPI = 6 << 8,
    ICR_LOGICAL = 1 << 11,
    ICR_ASSERT = 1 << 14,
    ICR_SELF = 1 << 18,
    ICR_ALL = 2 << 18,
    ICR_OTHERS = 3 << 18,
};
enum { MSR_APIC_BASE = 0x1b, MSR_TSC_DEADLINE = 0x6e0, MSR_X2APIC = 0x800 };
enum { BASE_X2APIC = 1 << 10, BASE_ENABLED = 1 << 11 };
#define APIC_PAGE UINT64_C(0xfee00000)

bool is_x2apic(void);
uint32_t apic_read(unsigned offset);
void apic_write(unsigned offset, uint32_t value);
void apic_send(uint32_t icr, uint32_t destination);
void apic_eoi(void);
void apic_reset(void);  /* off and on: xAPIC */
void apic_x2(void);     /* to x2APIC, from wherever */
void apic_enable(void); /* by the spurious vector register */

void test_apic(void);
void test_timers(void);
void test_nmi(void);
void test_ioapic(void);
void test_ids(void);
void test_smp(void);
void test_mwait(void);
void test_init(void);
void test_loader(void);
void test_devices(void);
void test_clock(void);
void test_mmio(void);
void test_paging(void);
void test_sleep(void);
/* Only when they are named, since they wait for input. */
void test_compare(void);
void test_crossing(void);
/* litmus.c: only with four processors or more */
void test_lock(void);
void test_barrier(void);
void test_message(void);
void test_store(void);
void test_iriw(void);

#endif
