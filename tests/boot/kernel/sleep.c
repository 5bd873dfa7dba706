/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Suspend to memory (ACPI 6.4, 16.1.3): the RTC's alarm wakes, and the kernel goes on in real mode
 * where the FACS tells, finds its memory as it was, the reason in PM1's status, and its devices as
 * after a reset.
 */
#include "kernel.h"

enum { FADT_FACS = 36, FADT_EVENT = 56, FADT_CONTROL = 64, FACS_VECTOR = 12 };
enum { STATUS_BUTTON = 1 << 8, STATUS_RTC = 1 << 10, STATUS_WAKE = 1 << 15, ENABLE_RTC = 1 << 10 };
enum { CONTROL_S3 = 1 << 10, CONTROL_SLEEP = 1 << 13 };
enum { RTC_SECONDS_ALARM = 1, RTC_ANY = 0xc0, RTC_A = 10, RTC_B = 11, RTC_C = 12, B_ALARM = 0x20 };
enum { GDT_POINTER_GPA = 0x7000, VECTOR_GPA = 0x7010, KEPT = 0x5a17 };

uint64_t sleep_saved_rsp;
extern const char sleep_wake[], sleep_wake_end[], trampoline_gdt[];
/* Writes the value to the port, and returns when the machine is awake again. */
void sleep_enter(uint16_t port, uint16_t value);

__asm__(".pushsection .text\n"
        "    .code64\n"
        "sleep_enter:\n"
        "    push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
        "    mov %rsp, sleep_saved_rsp\n"
        "    mov %edi, %edx\n"
        "    mov %esi, %eax\n"
        "    outw %ax, %dx\n"
        "1:  pause\n"
        "    jmp 1b\n"
        "    .code16\n"
        "sleep_wake:\n" /* at VECTOR_GPA */
        "    cli\n"
        "    xor %ax, %ax\n"
        "    mov %ax, %ds\n"
        "    lgdtl 0x7000\n"
        "    mov %cr0, %eax\n"
        "    or $1, %eax\n"
        "    mov %eax, %cr0\n"
        "    ljmpl $0x10, $1f\n"
        "sleep_wake_end:\n"
        "    .code32\n"
        "1:  mov $0x18, %ax\n"
        "    mov %ax, %ds\n"
        "    mov %ax, %es\n"
        "    mov %ax, %ss\n"
        "    mov sleep_saved_rsp, %esp\n"
        "    sub $64, %esp\n"
        "    call enter_long_mode\n"
        "    ljmp $0x08, $1f\n"
        "    .code64\n"
        "1:  xor %eax, %eax\n"
        "    mov %eax, %ds\n"
        "    mov %eax, %es\n"
        "    mov %eax, %ss\n"
        "    mov sleep_saved_rsp, %rsp\n"
        "    pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
        "    ret\n"
        "    .popsection");

static uint32_t read32(const uint8_t *at)
{
    return *(const uint32_t *)(const void *)at;
}

static uint8_t rtc_read(uint8_t number)
{
    out8(0x70, number);
    return in8(0x71);
}

static void rtc_write(uint8_t number, uint8_t value)
{
    out8(0x70, number);
    out8(0x71, value);
}

/* Each second has one. */
static void set_alarm(void)
{
    rtc_read(RTC_C);
    for (uint8_t i = 0; i < 3; i++)
        rtc_write((uint8_t)(RTC_SECONDS_ALARM + 2 * i), RTC_ANY);
    rtc_write(RTC_B, rtc_read(RTC_B) | B_ALARM);
}

static void put_wake_code(volatile uint8_t *facs)
{
    for (unsigned i = 0; i < 6; i++)
        ((volatile uint8_t *)GDT_POINTER_GPA)[i] = (uint8_t)trampoline_gdt[i];
    for (unsigned i = 0; i < (unsigned)(sleep_wake_end - sleep_wake); i++)
        ((volatile uint8_t *)VECTOR_GPA)[i] = (uint8_t)sleep_wake[i];
    *(volatile uint32_t *)(volatile void *)(facs + FACS_VECTOR) = VECTOR_GPA;
}

void test_sleep(void)
{
    static volatile unsigned kept;
    const uint8_t *fadt = find_table("FACP");
    if (!fadt) {
        check(false, "there is a FADT");
        return;
    }
    uint16_t event = (uint16_t)read32(fadt + FADT_EVENT);
    uint16_t control = (uint16_t)read32(fadt + FADT_CONTROL);
    put_wake_code((volatile uint8_t *)(uintptr_t)read32(fadt + FADT_FACS));
    kept = KEPT;
    out16(event, 0xffff);
    out16(event + 2, ENABLE_RTC);
    set_alarm();
    out32(0xe0, 0x12345678);
    sleep_enter(control, CONTROL_S3 | CONTROL_SLEEP);
    load_idt();
    apic_enable();
    check_equal(kept, KEPT, "memory is kept over a sleep");
    uint16_t status = in16(event);
    check_equal(status & (STATUS_WAKE | STATUS_RTC | STATUS_BUTTON), STATUS_WAKE | STATUS_RTC,
                "the RTC's alarm has woken it");
    check_equal(in32(0xe0), 0, "devices are as after a reset");
    check_equal(rtc_read(RTC_B) & B_ALARM, 0, "the RTC, too");
    out16(event, STATUS_WAKE | STATUS_RTC);
    check_equal(in16(event) & (STATUS_WAKE | STATUS_RTC), 0, "the status is cleared by writing it");
    start_processors();
}
