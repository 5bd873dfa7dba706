/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What the loader tells, ACPI's table of processors, fw_cfg, the test device, the I/O APIC, and
 * clocks.
 */
#include "kernel.h"

extern const char kernel_end[];

/* ---- the loader: Multiboot 3.3 ---- */

static bool starts_with(const char *text, const char *start)
{
    while (*start)
        if (*text++ != *start++)
            return false;
    return true;
}

static const char *word_after_path(const char *text)
{
    while (*text && *text != ' ')
        text++;
    return *text ? text + 1 : text;
}

void test_loader(void)
{
    struct module {
        uint32_t start, end, text, zero;
    };
    check_equal(boot->flags & 0x24d, 0x24d, "memory, command line, modules, map, loader's name");
    check(boot->mem_lower >= 600 && boot->mem_lower <= 640, "lower memory");
    const char *at = (const char *)(uintptr_t)boot->mmap_addr;
    const char *end = at + boot->mmap_length;
    uint64_t usable = 0;
    bool has_me = false;
    for (; at < end; at += *(const uint32_t *)(const void *)at + 4) {
        uint64_t base = *(const uint64_t *)(const void *)(at + 4);
        uint64_t length = *(const uint64_t *)(const void *)(at + 12);
        if (*(const uint32_t *)(const void *)(at + 20) != 1)
            continue;
        usable += length;
        has_me |= base <= 0x100000 && (uint64_t)(uintptr_t)kernel_end <= base + length;
    }
    uint64_t told = fw_cfg_number(3, 8);
    check(has_me, "the map has the kernel's memory as usable");
    check(usable <= told && usable + (1 << 20) >= told, "the map has the memory that fw_cfg tells");
    check_equal(boot->mem_upper, (told >> 10) - 1024, "upper memory");
    const struct module *module = (const struct module *)(uintptr_t)boot->mods_addr;
    for (unsigned i = 0; i < boot->mods_count; i++, module++) {
        print("module: ");
        print(word_after_path((const char *)(uintptr_t)module->text));
        print(": ");
        print((const char *)(uintptr_t)module->start); /* what the test gives ends with a zero */
        print("\n");
        check(module->start % 4096 == 0 && module->start >= (uint32_t)(uintptr_t)kernel_end,
              "a module is on a page of its own behind the kernel");
    }
}

/* ---- ACPI's tables, found as a kernel does that knows only the first ACPI ---- */

const uint8_t *find_table(const char *signature)
{
    for (const char *at = (const char *)0xe0000; at < (const char *)0x100000; at += 16) {
        if (!starts_with(at, "RSD PTR "))
            continue;
        const uint32_t *rsdt = (const uint32_t *)(uintptr_t) * (const uint32_t *)(at + 16);
        if (!rsdt || !starts_with((const char *)rsdt, "RSDT"))
            return NULL;
        for (unsigned i = 9; i < rsdt[1] / 4; i++)
            if (starts_with((const char *)(uintptr_t)rsdt[i], signature))
                return (const uint8_t *)(uintptr_t)rsdt[i];
    }
    return NULL;
}

bool madt_has(unsigned id)
{
    const uint8_t *madt = find_table("APIC");
    if (!madt)
        return false;
    uint32_t length = *(const uint32_t *)(const void *)(madt + 4);
    for (uint32_t at = 44; at < length; at += madt[at + 1])
        if (madt[at] == 0 && madt[at + 3] == id && (madt[at + 4] & 1))
            return true;
    return false;
}

/* ---- fw_cfg and the test device ---- */

static uint32_t swap(uint32_t value)
{
    return __builtin_bswap32(value);
}

static void test_fw_cfg(void)
{
    char text[5] = "";
    check_equal(fw_cfg_number(0, 4), 0x554d4551, "fw_cfg's signature");
    check_equal(fw_cfg_number(1, 4), 3, "fw_cfg has DMA");
    check_equal(fw_cfg_number(0xf, 2), cpu_count, "as many processors at most");
    check_equal(fw_cfg_number(3, 8) >> 10, boot->mem_upper + 1024, "the size of memory");
    const char *cmdline = (const char *)(uintptr_t)boot->cmdline;
    uint64_t size_bytes = fw_cfg_number(0x14, 4);
    while (*cmdline && *cmdline++ != ' ')
        ;
    bool is_same = true;
    out16(0x510, 0x15);
    for (uint64_t i = 0; i < size_bytes; i++)
        is_same &= (char)in8(0x511) == cmdline[i];
    check(is_same && size_bytes && !cmdline[size_bytes - 1], "the command line");
    static volatile struct {
        uint32_t control, length;
        uint32_t high, low;
    } access;
    access.control = swap(2 | 8);
    access.length = swap(4);
    access.high = 0;
    access.low = swap((uint32_t)(uintptr_t)text);
    out32(0x514, 0);
    out32(0x518, swap((uint32_t)(uintptr_t)&access));
    check(access.control == 0 && text_equal(text, "QEMU"), "fw_cfg reads by DMA");
    static char directory[4 + 64 * 8];
    out16(0x510, 0x19);
    for (unsigned i = 0; i < sizeof(directory); i++)
        directory[i] = (char)in8(0x511);
    unsigned count = swap(*(uint32_t *)(void *)directory);
    bool found = false;
    for (unsigned i = 0; i < count && i < 8; i++)
        found |= text_equal(directory + 4 + 64 * i + 8, "etc/e820");
    check(found, "the directory has etc/e820");
}

static int (*volatile called)(void);
static _Alignas(4096) uint8_t code[4096];

void test_devices(void)
{
    test_fw_cfg();
    out32(0xe0, 0x12345678);
    check_equal(in32(0xe0), 0x12345678, "a value of 32 bits");
    out16(0xe0, 0xabcd);
    check_equal(in16(0xe0), 0xabcd, "a value of 16 bits");
    out8(0xe0, 0x5a);
    check_equal(in32(0xe0), 0x1234ab5a, "a value of 8 bits, the others stay");
    const char *text = "string";
    unsigned long length = 6;
    __asm__ volatile("cld; rep outsb" : "+S"(text), "+c"(length) : "d"((uint16_t)0xe0) : "memory");
    check_equal(in8(0xe0), 'g', "REP OUTS leaves its last byte");
    volatile uint64_t *memory = (volatile uint64_t *)0xff000000;
    *memory = UINT64_C(0x1122334455667788);
    *(volatile uint16_t *)((volatile uint8_t *)memory + 2) = 0xbeef;
    check_equal(*memory, UINT64_C(0x11223344beef7788), "MMIO keeps what is written, by its width");
    /* Code in a page that is taken away and comes again runs on, and is what it was. */
    static const uint8_t return_7[] = {0xb8, 7, 0, 0, 0, 0xc3};
    __builtin_memcpy(code, return_7, sizeof(return_7));
    called = (int (*)(void))(uintptr_t)code;
    unsigned sum = 0;
    for (unsigned i = 0; i < 100; i++) {
        sum += (unsigned)called();
        out32(0xe4, (uint32_t)(uintptr_t)code);
    }
    check_equal(sum, 700, "a page that is flushed keeps its code");
    uint64_t rsp;
    __asm__ volatile("mov %%rsp, %0" : "=r"(rsp));
    out32(0xe4, (uint32_t)rsp);
    check(true, "the stack's page too");
    out8(0x80, 0x42);
    check_equal(in8(0x80), 0x42, "the POST port keeps its last value");
    out8(0x190, 0x43);
}

/* ---- I/O APIC ---- */

static void ioapic_write(uint8_t number, uint32_t value)
{
    *(volatile uint32_t *)0xfec00000 = number;
    *(volatile uint32_t *)0xfec00010 = value;
}

static uint32_t ioapic_read(uint8_t number)
{
    *(volatile uint32_t *)0xfec00000 = number;
    return *(volatile uint32_t *)0xfec00010;
}

enum { LEVEL = 1 << 15, MASK = 1 << 16, LOGICAL = 1 << 11, REMOTE_IRR = 1 << 14 };

static void route(unsigned pin, uint32_t low, uint32_t destination)
{
    ioapic_write((uint8_t)(0x10 + 2 * pin), MASK);
    ioapic_write((uint8_t)(0x11 + 2 * pin), destination << 24);
    ioapic_write((uint8_t)(0x10 + 2 * pin), low);
}

static void line(unsigned gsi, bool level)
{
    out8((uint16_t)(0x2000 + gsi), level);
}

static volatile unsigned irqs, last_vector, irq_pin, remote_irr_seen;
static volatile uint64_t came_at[256]; /* by vector */
static volatile unsigned lowers_after; /* so many interrupts; 0: never */

static void on_irq(struct frame *frame)
{
    if (frame->vector < last_vector)
        irqs = irqs + 0x100; /* a lower one behind a higher */
    last_vector = (unsigned)frame->vector;
    came_at[last_vector] = frame->rip;
    irqs = irqs + 1;
    remote_irr_seen = ioapic_read((uint8_t)(0x10 + 2 * irq_pin)) & REMOTE_IRR;
    if (lowers_after && irqs >= lowers_after)
        line(irq_pin, false);
    apic_eoi();
}

static void open_window(void)
{
    sti();
    __asm__ volatile("nop; nop");
    cli();
}

static void count_irqs(unsigned wanted, const char *what)
{
    open_window();
    check_equal(irqs, wanted, what);
    irqs = last_vector = 0;
}

static void test_levels(void)
{
    irq_pin = 14;
    lowers_after = 1;
    route(14, LEVEL | 0x77, my_id());
    line(14, true);
    count_irqs(1, "a level comes once when its handler lowers it");
    check(remote_irr_seen, "remote IRR is set in its handler");
    check(!(ioapic_read(0x2c) & REMOTE_IRR), "and clear behind the EOI");
    lowers_after = 5; /* no instruction but its handler's runs while the level stays */
    line(14, true);
    count_irqs(5, "a level that stays comes again behind each EOI");
    route(14, LEVEL | MASK | 0x77, my_id());
    line(14, true);
    count_irqs(0, "a masked level waits");
    lowers_after = 1;
    route(14, LEVEL | 0x77, my_id());
    count_irqs(1, "and comes when it is unmasked");
    line(14, false);
}

/* An interrupt that an instruction raises comes before the next one. */
static void test_at_once(void)
{
    irq_pin = 14;
    lowers_after = 1;
    route(14, LEVEL | 0x77, my_id());
    __asm__ volatile("sti; nop; outb %b0, %w1; cli" : : "a"(1), "d"(0x200e) : "memory");
    check_equal(irqs, 1, "an interrupt comes right behind the OUT that raises it");
    irqs = last_vector = 0;
}

static void test_directed_eoi(void)
{
    if (!(apic_read(APIC_VERSION) >> 24 & 1))
        return;
    apic_write(APIC_SVR, 0x1ff | 1 << 12);
    lowers_after = 0;
    route(14, LEVEL | 0x77, my_id());
    line(14, true);
    count_irqs(1, "without EOI broadcast a level does not come again");
    check(ioapic_read(0x2c) & REMOTE_IRR, "remote IRR stays");
    lowers_after = 1;
    *(volatile uint32_t *)0xfec00040 = 0x77;
    count_irqs(1, "until the I/O APIC gets its EOI");
    *(volatile uint32_t *)0xfec00040 = 0x77;
    check(!(ioapic_read(0x2c) & REMOTE_IRR), "a directed EOI clears remote IRR");
    apic_enable();
}

void test_ioapic(void)
{
    handle(0x77, on_irq);
    handle(0x66, on_irq);
    uint32_t version = ioapic_read(1);
    ioapic_write(1, ~version);
    check_equal(ioapic_read(1), version, "the version is read only");
    uint32_t id = ioapic_read(0);
    ioapic_write(0, 0xffffffff);
    check_equal(ioapic_read(0), 0x0f000000, "the id has four bits");
    check_equal(ioapic_read(2), 0x0f000000, "and is the arbitration id");
    ioapic_write(0, id);
    irqs = last_vector = irq_pin = 0;
    lowers_after = 0;
    for (unsigned pin = 3; pin < 24; pin += 3) {
        route(pin, 0x77, my_id());
        line(pin, true);
        line(pin, false);
        count_irqs(1, "an edge on a pin");
        route(pin, MASK | 0x77, my_id());
        line(pin, true);
        line(pin, false);
        count_irqs(0, "an edge on a masked pin is lost");
        ioapic_write((uint8_t)(0x10 + 2 * pin), 0x77);
        count_irqs(0, "and stays so");
        route(pin, MASK, 0);
    }
    route(14, 0x77, my_id());
    route(15, 0x66, my_id());
    line(15, true);
    line(14, true);
    line(15, false);
    line(14, false);
    open_window();
    check_equal(irqs, 0x102, "of two at once the higher vector comes first");
    check_equal(came_at[0x66], came_at[0x77], "and nothing runs between them");
    irqs = last_vector = 0;
    apic_write(APIC_DFR, 0xffffffff);
    apic_write(APIC_LDR, 0x80000000);
    route(14, LOGICAL | 0x77, 0x80);
    line(14, true);
    line(14, false);
    count_irqs(1, "a logical destination");
    route(15, MASK, 0);
    test_levels();
    test_at_once();
    test_directed_eoi();
    route(14, MASK, 0);
}
