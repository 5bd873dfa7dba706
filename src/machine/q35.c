/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The Q35 board: 82Q35 host bridge, ICH9, and what hangs on them. It reads like the schematic:
 * addresses and interrupt numbers are here and nowhere else. With an engine that has an irqchip
 * the local APICs, I/O APIC, 8259 pair and 8254 are left out.
 */
#include "machine/q35.h"

#include "cpu/topology.h"
#include "dev/acpi_pm.h"
#include "dev/debugcon.h"
#include "dev/exit_port.h"
#include "dev/hpet.h"
#include "dev/i8042.h"
#include "dev/i8237.h"
#include "dev/i8254.h"
#include "dev/i8259.h"
#include "dev/ich9_lpc.h"
#include "dev/ioapic.h"
#include "dev/lapic.h"
#include "dev/mc146818.h"
#include "dev/parallel.h"
#include "dev/pci.h"
#include "dev/pci_host.h"
#include "dev/post_port.h"
#include "dev/reset_cf9.h"
#include "dev/storage/floppy.h"
#include "dev/storage/ide.h"
#include "dev/testdev.h"
#include "dev/tpm.h"
#include "dev/uart16550.h"
#include "dev/vga/vga.h"
#include "dev/virtio/pci.h"
#include "machine/acpi.h"
#include "machine/fw_tables.h"
#include "machine/smbios.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- memory ---- */

#define GIB UINT64_C(0x40000000)

enum {
    VGA_WINDOW_GPA = 0xa0000, /* no RAM is seen here, but what a graphics card has */
    VGA_WINDOW_BYTES = 0x20000,
    ROM_BELOW_1M_BYTES = 0x20000, /* the end of the ROM, below 1 MiB, until RAM takes its place */
    LOW_MEMORY_END = 0x9fc00,     /* 639 KiB: where the extended BIOS data area would be */
    ACPI_GPA = 0xe0000,
    ACPI_BYTES = 0x10000,
    SMBIOS_GPA = 0xf0000,
    SMBIOS_BYTES = 0x10000,
    FIRMWARE_END = 0x100000,
};

#define ECAM_BASE    UINT64_C(0xb0000000)
#define MMIO32_BASE  UINT64_C(0xc0000000)
#define MMIO32_BYTES (IOAPIC_BASE - MMIO32_BASE)
#define IOAPIC_BASE  UINT64_C(0xfec00000)
#define HPET_BASE    UINT64_C(0xfed00000)
#define TPM_BASE     UINT64_C(0xfed40000)
#define LAPIC_BASE   UINT64_C(0xfee00000)
#define TESTDEV_BASE UINT64_C(0xff000000)
#define ROM_END      UINT64_C(0x100000000)
#define MMIO32_SPLIT UINT64_C(0xe0000000) /* any place within; see layout_of() */
#define MMIO64_BASE  (256 * GIB)
#define MMIO64_BYTES (256 * GIB) /* up to what 39 address lines reach */

/* ---- ports ---- */

enum {
    DMA_BYTE_PORT = 0x00,
    PIC_MASTER_PORT = 0x20,
    PIT_PORT = 0x40,
    KEYBOARD_DATA_PORT = 0x60,
    PORT_B = 0x61,
    KEYBOARD_COMMAND_PORT = 0x64,
    RTC_PORT = 0x70,
    POST_PORT = 0x80,
    DMA_PAGE_PORT = 0x81,
    PIC_SLAVE_PORT = 0xa0,
    IDE_PORT_2 = 0x170,
    IDE_PORT = 0x1f0,
    IDE_CONTROL_PORT_2 = 0x376,
    IDE_CONTROL_PORT = 0x3f6,
    DMA_WORD_PORT = 0xc0,
    TESTDEV_VALUE_PORT = 0xe0,
    TESTDEV_FLUSH_PORT = 0xe4,
    DEBUGCON_PORT = 0xe9,
    EXIT_PORT = 0xf4,
    POST_PORT_PS2 = 0x190,
    VGA_DISPI_PORT = 0x1ce,
    PARALLEL_PORT = 0x378,
    VGA_PORT = 0x3b0,
    FLOPPY_PORT = 0x3f0,
    ELCR_PORT = 0x4d0,
    FW_CFG_PORT = 0x510,
    PM_PORT = 0x600,
    PCI_ADDRESS_PORT = 0xcf8,
    RESET_PORT = 0xcf9,
    TESTDEV_GSI_PORT = 0x2000,
    PCI_IO_BASE = 0xc000,
    PCI_IO_BYTES = 0x4000,
};

/* ---- interrupts ---- */

enum {
    IRQ_PIT = 0,
    IRQ_KEYBOARD = 1,
    IRQ_CASCADE = 2,
    IRQ_FLOPPY = 6,
    IRQ_PARALLEL = 7,
    IRQ_RTC = 8,
    IRQ_SCI = 9,
    IRQ_MOUSE = 12,
    IRQ_IDE = 14, /* and 15 for the second channel */
    DMA_FLOPPY = 2,
    ISA_IRQS = 16,
    GSI_PIT = 2,
    GSI_PCI = 16,           /* PIRQA … PIRQH */
    HPET_ROUTES = 0xf00000, /* I/O APIC inputs 20 … 23 */
};

static const struct acpi_uart uarts[Q35_MAX_UARTS] = {
    {0x3f8, 4}, {0x2f8, 3}, {0x3e8, 4}, {0x2e8, 3}};

/* ---- PCI slots ---- */

enum { SLOT_HOST = 0, SLOT_LPC = 31, DEVICES_MAX = 80 };

/* `count` places from this slot and function on, in as many slots; those that don't fit into the
 * slots are further functions of them. A function 0 is there whenever another one is. */
static const struct {
    uint8_t slot, slots, function, count;
} plugs[] = {
    [Q35_RNG] = {1, 1, 0, 1},         [Q35_BALLOON] = {2, 1, 0, 1},
    [Q35_NET] = {3, 4, 0, 4},         [Q35_CONSOLE] = {7, 1, 0, 1},
    [Q35_DISK] = {8, 16, 0, 32},      [Q35_GRAPHICS] = {24, 1, 0, 1},
    [Q35_XHCI] = {25, 1, 0, 1},       [Q35_SCSI] = {26, 1, 0, 1},
    [Q35_INPUT] = {27, 3, 0, 3},      [Q35_IDE] = {SLOT_LPC, 1, 1, 1},
    [Q35_AHCI] = {SLOT_LPC, 1, 2, 1},
};

enum { DEVICE_LABEL_BYTES = 32 };
enum { SLEEP_TYPE_S5 = 7, RESET_VALUE = 6, IOAPIC_ID = 0, RTC_CENTURY = 0x32 };
enum { CMOS_CPUS_BUT_ONE = 0x5f };

struct q35 {
    struct q35_config config;
    struct device device[DEVICES_MAX];
    char label[DEVICES_MAX][DEVICE_LABEL_BYTES]; /* what a saved machine tells them apart by */
    unsigned device_count;
    struct virtio_pci *virtio[DEVICES_MAX];
    unsigned virtio_count;

    struct lapics *lapics; /* these four are NULL where the engine has them */
    struct ioapic *ioapic;
    struct i8259 *i8259;
    struct i8254 *i8254;
    struct irq_line gsi[IOAPIC_PINS]; /* with an engine's irqchip: its inputs */
    struct msi_sink msi;
    struct acpi_pm *acpi_pm;
    struct mc146818 *rtc;
    struct i8237 *dma;
    struct floppy *floppy; /* NULL: none */
    struct pci_bus *pci;
    struct pci_host *host;
    struct fw_cfg *fw_cfg;
    struct fw_tables *fw_tables;
    struct input *input;

    /* The sources of each ISA interrupt, since some are shared: a bit each. */
    pthread_mutex_t irq_lock;
    uint32_t isa_sources[ISA_IRQS];
    uint32_t test_levels;                  /* of the GSIs, by the test device */
    uint8_t pirq_levels;                   /* bit n: PIRQ n is up */
    uint8_t pirq_irq[ICH9_LPC_PIRQ_COUNT]; /* of the 8259 pair; 0: none */

    uint8_t apic_ids[ENGINE_MAX_VCPUS];
    struct bytes acpi, smbios;
};

static void add(struct q35 *board, const struct device_ops *ops, void *self)
{
    assert(board->device_count < DEVICES_MAX);
    snprintf(board->label[board->device_count], DEVICE_LABEL_BYTES, "%s", ops->name);
    board->device[board->device_count++] = (struct device){ops, self};
}

/* Devices that can be there several times are told apart by their places. */
static void label_place(struct q35 *board, const char *name, const struct q35_place *place)
{
    char function[4] = "";
    if (place->function)
        snprintf(function, sizeof(function), ".%u", place->function & 7);
    snprintf(board->label[board->device_count - 1], DEVICE_LABEL_BYTES, "%s in slot %u%s", name,
             place->slot, function);
}

/* ---- interrupt wiring ---- */

/* Sources of an ISA interrupt: the devices on it and the PIRQs that are routed to it. */
enum { SOURCE_PIRQ = 0, SOURCE_DEVICE = ICH9_LPC_PIRQ_COUNT, SOURCE_TEST = 16 };

/* With irq_lock held. */
static void drive_pic(struct q35 *board, unsigned irq)
{
    if (board->i8259)
        i8259_set_irq(board->i8259, irq, board->isa_sources[irq]);
}

static void drive_gsi(struct q35 *board, unsigned gsi, bool level)
{
    if (board->ioapic)
        ioapic_set_irq(board->ioapic, gsi, level);
    else
        irq_set(&board->gsi[gsi], level);
}

static void set_source(struct q35 *board, unsigned irq, unsigned source, bool level)
{
    if (level)
        board->isa_sources[irq] |= 1u << source;
    else
        board->isa_sources[irq] &= ~(1u << source);
}

/* An ISA interrupt goes to the 8259 pair and to the I/O APIC. `number` is irq | source << 8. */
static void set_isa(void *opaque, unsigned number, bool level)
{
    struct q35 *board = opaque;
    unsigned irq = number & 0xff;
    pthread_mutex_lock(&board->irq_lock);
    set_source(board, irq, number >> 8, level);
    bool any_device = board->isa_sources[irq] >> SOURCE_DEVICE;
    drive_pic(board, irq);
    /* An engine's irqchip knows by itself that the timer is on another input. */
    drive_gsi(board, board->ioapic && irq == IRQ_PIT ? GSI_PIT : irq, any_device);
    pthread_mutex_unlock(&board->irq_lock);
}

static struct irq_line isa_line_shared(struct q35 *board, unsigned irq, unsigned user)
{
    assert(irq < ISA_IRQS && irq != IRQ_CASCADE);
    return (struct irq_line){set_isa, board, irq | (SOURCE_DEVICE + user) << 8};
}

static struct irq_line isa_line(struct q35 *board, unsigned irq)
{
    return isa_line_shared(board, irq, 0);
}

static unsigned slot_pirq(unsigned slot, unsigned pin)
{
    return (slot + pin) % ICH9_LPC_PIRQ_COUNT;
}

/* A PIRQ goes to its own input of the I/O APIC, and to the 8259 pair where the guest says. */
static void set_pirq(void *opaque, unsigned pirq, bool level)
{
    struct q35 *board = opaque;
    pthread_mutex_lock(&board->irq_lock);
    if (level)
        board->pirq_levels |= (uint8_t)(1u << pirq);
    else
        board->pirq_levels &= (uint8_t) ~(1u << pirq);
    unsigned irq = board->pirq_irq[pirq];
    if (irq) {
        set_source(board, irq, SOURCE_PIRQ + pirq, level);
        drive_pic(board, irq);
    }
    drive_gsi(board, GSI_PCI + pirq, level || board->test_levels >> (GSI_PCI + pirq) & 1);
    pthread_mutex_unlock(&board->irq_lock);
}

/* The test device raises any input of the I/O APIC, and with those of ISA interrupts the 8259
 * pair's. It is one source beside the devices. */
static void set_test_gsi(void *opaque, unsigned gsi, bool level)
{
    struct q35 *board = opaque;
    if (gsi < ISA_IRQS && gsi != IRQ_CASCADE) {
        set_isa(board, gsi | SOURCE_TEST << 8, level);
        return;
    }
    pthread_mutex_lock(&board->irq_lock);
    uint32_t bit = UINT32_C(1) << gsi;
    board->test_levels = level ? board->test_levels | bit : board->test_levels & ~bit;
    drive_gsi(board, gsi, level || (gsi >= GSI_PCI && board->pirq_levels >> (gsi - GSI_PCI) & 1));
    pthread_mutex_unlock(&board->irq_lock);
}

static struct irq_line route_pci(void *opaque, unsigned slot, unsigned pin)
{
    return (struct irq_line){set_pirq, opaque, slot_pirq(slot, pin - 1)};
}

static void pirq_changed(void *opaque, unsigned pirq, unsigned irq)
{
    struct q35 *board = opaque;
    pthread_mutex_lock(&board->irq_lock);
    unsigned old = board->pirq_irq[pirq];
    if (old) {
        set_source(board, old, SOURCE_PIRQ + pirq, false);
        drive_pic(board, old);
    }
    board->pirq_irq[pirq] = (uint8_t)(irq < ISA_IRQS ? irq : 0);
    if (board->pirq_irq[pirq]) {
        set_source(board, irq, SOURCE_PIRQ + pirq, board->pirq_levels >> pirq & 1);
        drive_pic(board, irq);
    }
    pthread_mutex_unlock(&board->irq_lock);
}

static uint8_t pci_interrupt_line(void *opaque, unsigned slot, unsigned pin)
{
    return (uint8_t)(GSI_PCI + slot_pirq(slot, pin - 1));
}

/* ---- processors and their interrupt controllers ---- */

static void cpu_intr(void *opaque, unsigned vcpu, bool level)
{
    struct q35 *board = opaque;
    vcpus_inject(board->config.vcpus, vcpu, ENGINE_INTR, level);
}

static void cpu_nmi(void *opaque, unsigned vcpu)
{
    struct q35 *board = opaque;
    vcpus_inject(board->config.vcpus, vcpu, ENGINE_NMI, 0);
}

static void cpu_init(void *opaque, unsigned vcpu)
{
    struct q35 *board = opaque;
    vcpus_inject(board->config.vcpus, vcpu, ENGINE_INIT, 0);
}

static void cpu_sipi(void *opaque, unsigned vcpu, uint8_t vector)
{
    struct q35 *board = opaque;
    vcpus_inject(board->config.vcpus, vcpu, ENGINE_SIPI, vector);
}

static unsigned current_vcpu(void *opaque)
{
    struct q35 *board = opaque;
    return vcpus_current(board->config.vcpus);
}

static uint64_t read_tsc(void *opaque, unsigned vcpu)
{
    struct q35 *board = opaque;
    return vcpus_read_tsc(board->config.vcpus, vcpu);
}

static int extint_acknowledge(void *opaque)
{
    struct q35 *board = opaque;
    return i8259_has_interrupt(board->i8259) ? i8259_acknowledge(board->i8259) : -1;
}

static bool make_lapics(struct q35 *board, struct error *err)
{
    const struct q35_config *config = &board->config;
    const struct lapic_config lapic = {
        .vcpu_count = config->vcpu_count,
        .ids = board->apic_ids,
        .bus = config->bus,
        .base = LAPIC_BASE,
        .clock = config->clock,
        .log = config->log,
        .cpu = {cpu_intr, cpu_nmi, cpu_init, cpu_sipi, board},
        .current_vcpu = current_vcpu,
        .current_vcpu_opaque = board,
        .read_tsc = read_tsc,
        .read_tsc_opaque = board,
        .tsc_hz = config->engine->tsc_hz(config->vm),
        .extint_acknowledge = extint_acknowledge,
        .extint_opaque = board,
    };
    board->lapics = lapic_create(&lapic, err);
    if (!board->lapics)
        return false;
    add(board, &lapic_ops, board->lapics);
    return true;
}

static bool make_ioapic(struct q35 *board, struct error *err)
{
    const struct ioapic_config config = {
        .bus = board->config.bus,
        .base = IOAPIC_BASE,
        .id = IOAPIC_ID,
        .sink = board->msi,
        .log = board->config.log,
    };
    board->ioapic = ioapic_create(&config, err);
    if (!board->ioapic)
        return false;
    add(board, &ioapic_ops, board->ioapic);
    lapic_set_eoi_listener(board->lapics, ioapic_eoi, board->ioapic);
    return true;
}

static bool make_i8259(struct q35 *board, struct error *err)
{
    const struct i8259_config config = {
        .master_base = PIC_MASTER_PORT,
        .slave_base = PIC_SLAVE_PORT,
        .elcr_base = ELCR_PORT,
        .intr = {lapic_set_lint, board->lapics, 0},
    };
    board->i8259 = i8259_create(&config, board->config.bus, err);
    if (!board->i8259)
        return false;
    add(board, &i8259_ops, board->i8259);
    return true;
}

static bool make_i8254(struct q35 *board, struct error *err)
{
    const struct i8254_config config = {
        .base = PIT_PORT, .port_b_base = PORT_B, .irq = isa_line(board, IRQ_PIT)};
    board->i8254 = i8254_create(&config, board->config.bus, board->config.clock, err);
    if (!board->i8254)
        return false;
    add(board, &i8254_ops, board->i8254);
    return true;
}

static bool make_interrupts(struct q35 *board, struct error *err)
{
    const struct engine_irqchip *irqchip = board->config.engine->irqchip;
    if (irqchip) {
        for (unsigned i = 0; i < IOAPIC_PINS; i++)
            board->gsi[i] = irqchip->gsi(board->config.vm, i);
        board->msi = irqchip->msi(board->config.vm);
        return true;
    }
    if (!make_lapics(board, err))
        return false;
    board->msi = (struct msi_sink){lapic_message, board->lapics};
    return make_ioapic(board, err) && make_i8259(board, err) && make_i8254(board, err);
}

/* ---- clocks ---- */

static int32_t local_offset_s(void)
{
    time_t now = time(NULL);
    struct tm local;
    return localtime_r(&now, &local) ? (int32_t)local.tm_gmtoff : 0;
}

static bool make_rtc(struct q35 *board, struct error *err)
{
    uint64_t low_bytes = ram_region(board->config.ram, 0)->size_bytes;
    const struct mc146818_config config = {
        .base = RTC_PORT,
        .irq = isa_line(board, IRQ_RTC),
        .low_memory_bytes = low_bytes,
        .high_memory_bytes = ram_size_bytes(board->config.ram) - low_bytes,
        .utc_offset_s = board->config.rtc_is_local ? local_offset_s() : 0,
    };
    board->rtc = mc146818_create(&config, board->config.bus, board->config.clock, err);
    if (!board->rtc)
        return false;
    mc146818_set_cmos(board->rtc, CMOS_CPUS_BUT_ONE, (uint8_t)(board->config.vcpu_count - 1));
    add(board, &mc146818_ops, board->rtc);
    return true;
}

static void set_ioapic_pin(void *opaque, unsigned pin, bool level)
{
    struct q35 *board = opaque;
    drive_gsi(board, pin, level);
}

static struct hpet_config hpet_config(struct q35 *board)
{
    struct hpet_config config = {
        .base = HPET_BASE,
        .timer_count = HPET_MIN_TIMERS,
        .route_mask = HPET_ROUTES,
        .ioapic = {set_ioapic_pin, board, 0},
        .legacy_timer = isa_line_shared(board, IRQ_PIT, 1),
        .legacy_rtc = isa_line_shared(board, IRQ_RTC, 1),
        .legacy_taken = {{0}, {mc146818_disconnect_irq, board->rtc, 0}},
        .msi = board->msi,
    };
    if (board->i8254)
        config.legacy_taken[0] = (struct irq_line){i8254_disconnect_irq, board->i8254, 0};
    return config;
}

static bool make_hpet(struct q35 *board, struct error *err)
{
    const struct hpet_config config = hpet_config(board);
    struct hpet *hpet = hpet_create(&config, board->config.bus, board->config.clock, err);
    if (!hpet)
        return false;
    add(board, &hpet_ops, hpet);
    return true;
}

/* ---- power, reset, and what a test program uses ---- */

static bool make_acpi_pm(struct q35 *board, struct error *err)
{
    const struct acpi_pm_config config = {
        .base = PM_PORT,
        .sleep_type_s5 = SLEEP_TYPE_S5,
        .timer_is_32_bit = true,
        .sci = isa_line(board, IRQ_SCI),
        .power_off = board->config.callbacks.power_off,
        .opaque = board->config.callbacks.opaque,
        .log = board->config.log,
    };
    board->acpi_pm = acpi_pm_create(&config, board->config.bus, board->config.clock, err);
    if (!board->acpi_pm)
        return false;
    add(board, &acpi_pm_ops, board->acpi_pm);
    return true;
}

static bool make_reset(struct q35 *board, struct error *err)
{
    const struct reset_cf9_config config = {
        .base = RESET_PORT,
        .reset = board->config.callbacks.reset,
        .opaque = board->config.callbacks.opaque,
    };
    struct reset_cf9 *reset = reset_cf9_create(&config, board->config.bus, err);
    if (!reset)
        return false;
    add(board, &reset_cf9_ops, reset);
    return true;
}

static bool make_post(struct q35 *board, struct error *err)
{
    const struct post_port_config config = {
        .ports = {POST_PORT, POST_PORT_PS2},
        .port_count = 2,
        .backend = board->config.post,
        .log = board->config.log,
    };
    struct post_port *post = post_port_create(&config, board->config.bus, err);
    if (!post)
        return false;
    add(board, &post_port_ops, post);
    return true;
}

static bool make_testdev(struct q35 *board, struct error *err)
{
    if (!board->config.has_testdev)
        return true;
    const struct testdev_config config = {
        .gsi_base = TESTDEV_GSI_PORT,
        .value_base = TESTDEV_VALUE_PORT,
        .flush_base = TESTDEV_FLUSH_PORT,
        .memory_base = TESTDEV_BASE,
        .gsi = {set_test_gsi, board, 0},
        .ram = board->config.ram,
    };
    struct testdev *testdev = testdev_create(&config, board->config.bus, err);
    if (!testdev)
        return false;
    add(board, &testdev_ops, testdev);
    return true;
}

static bool make_fw_cfg(struct q35 *board, struct error *err)
{
    const struct fw_cfg_config config = {.base = FW_CFG_PORT, .ram = board->config.ram};
    board->fw_cfg = fw_cfg_create(&config, board->config.bus, err);
    if (!board->fw_cfg)
        return false;
    add(board, &fw_cfg_ops, board->fw_cfg);
    return true;
}

struct fw_cfg *q35_fw_cfg(struct q35 *board)
{
    return board->fw_cfg;
}

/* Last: its port may be the user's choice, and another device's. */
static bool make_exit_port(struct q35 *board, struct error *err)
{
    const struct q35_config *config = &board->config;
    if (!config->has_exit_port)
        return true;
    const struct exit_port_config exit = {config->exit_port ? config->exit_port : EXIT_PORT,
                                          config->callbacks.exit, config->callbacks.opaque};
    struct exit_port *port = exit_port_create(&exit, config->bus, err);
    if (!port)
        return error_hint(err, "choose another port for the debug exit");
    add(board, &exit_port_ops, port);
    return true;
}

static bool make_debug_ports(struct q35 *board, struct error *err)
{
    const struct q35_config *config = &board->config;
    if (config->debugcon) {
        const struct debugcon_config debug = {config->debugcon_port ? config->debugcon_port
                                                                    : DEBUGCON_PORT,
                                              config->debugcon, config->log};
        struct debugcon *debugcon = debugcon_create(&debug, config->bus, err);
        if (!debugcon)
            return false;
        add(board, &debugcon_ops, debugcon);
    }
    return make_post(board, err);
}

/* ---- keyboard and serial ports ---- */

static bool make_i8042(struct q35 *board, struct error *err)
{
    const struct i8042_config config = {
        .data_base = KEYBOARD_DATA_PORT,
        .command_base = KEYBOARD_COMMAND_PORT,
        .keyboard_irq = isa_line(board, IRQ_KEYBOARD),
        .mouse_irq = isa_line(board, IRQ_MOUSE),
        .reset = board->config.callbacks.reset,
        .opaque = board->config.callbacks.opaque,
    };
    struct i8042 *i8042 = i8042_create(&config, board->config.bus, err);
    if (!i8042)
        return false;
    add(board, &i8042_ops, i8042);
    const struct input_device device = i8042_input(i8042);
    input_add(board->input, &device);
    return true;
}

static bool make_input(struct q35 *board, struct error *err)
{
    board->input = input_create(err);
    if (!board->input)
        return false;
    add(board, &input_ops, board->input);
    return true;
}

struct input *q35_input(struct q35 *board)
{
    return board->input;
}

static bool make_uarts(struct q35 *board, struct error *err)
{
    for (unsigned i = 0; i < board->config.uart_count; i++) {
        const struct uart16550_config config = {
            .base = uarts[i].port,
            .irq = isa_line_shared(board, uarts[i].irq, i),
            .backend = board->config.uart[i],
            .log = board->config.log,
        };
        struct uart16550 *uart =
            uart16550_create(&config, board->config.bus, board->config.clock, err);
        if (!uart)
            return false;
        add(board, &uart16550_ops, uart);
    }
    return true;
}

static bool make_parallel(struct q35 *board, struct error *err)
{
    if (!board->config.parallel)
        return true;
    const struct parallel_config config = {
        .base = PARALLEL_PORT,
        .irq = isa_line(board, IRQ_PARALLEL),
        .ignores_strobe = board->config.parallel_ignores_strobe,
        .backend = board->config.parallel,
        .log = board->config.log,
    };
    struct parallel *parallel = parallel_create(&config, board->config.bus, err);
    if (!parallel)
        return false;
    add(board, &parallel_ops, parallel);
    return true;
}

/* ---- DMA and floppy drives ---- */

static bool make_dma(struct q35 *board, struct error *err)
{
    const struct i8237_config config = {
        .byte_base = DMA_BYTE_PORT,
        .word_base = DMA_WORD_PORT,
        .page_base = DMA_PAGE_PORT,
        .ram = board->config.ram,
    };
    board->dma = i8237_create(&config, board->config.bus, err);
    if (!board->dma)
        return false;
    add(board, &i8237_ops, board->dma);
    return true;
}

/* What a PC's setup program leaves in CMOS memory: types of both drives, and how many there are. */
static void tell_floppies(struct q35 *board)
{
    enum { CMOS_TYPES = 0x10, CMOS_EQUIPMENT = 0x14 };
    unsigned first = floppy_drive_type(board->floppy, 0);
    unsigned second = floppy_drive_type(board->floppy, 1);
    unsigned count = (first != FLOPPY_NONE) + (second != FLOPPY_NONE);
    mc146818_set_cmos(board->rtc, CMOS_TYPES, (uint8_t)(first << 4 | second));
    mc146818_set_cmos(board->rtc, CMOS_EQUIPMENT, (uint8_t)((count - 1) << 6 | 1));
}

static bool make_floppy(struct q35 *board, struct error *err)
{
    struct floppy_config config = {
        .base = FLOPPY_PORT,
        .irq = isa_line(board, IRQ_FLOPPY),
        .dma = i8237_channel(board->dma, DMA_FLOPPY),
        .log = board->config.log,
    };
    static_assert((int)FLOPPY_DRIVES == 2, "as many as the configuration has");
    if (!board->config.floppies[0].is_there && !board->config.floppies[1].is_there)
        return true;
    for (unsigned i = 0; i < FLOPPY_DRIVES; i++) {
        config.drives[i].is_there = board->config.floppies[i].is_there;
        config.drives[i].medium = board->config.floppies[i].medium;
    }
    board->floppy = floppy_create(&config, board->config.bus, err);
    if (!board->floppy)
        return false;
    add(board, &floppy_ops, board->floppy);
    tell_floppies(board);
    return true;
}

bool q35_change_floppy(struct q35 *board, unsigned drive, const struct block_backend *medium)
{
    return board->floppy && floppy_change_medium(board->floppy, drive, medium);
}

/* ---- TPM ---- */

static bool make_tpm(struct q35 *board, struct error *err)
{
    const struct tpm_config config = {.base = TPM_BASE, .backend = board->config.tpm};
    if (!config.backend)
        return true;
    if (board->config.tpm_is_tis) {
        struct tpm_tis *tis = tpm_tis_create(&config, board->config.bus, err);
        if (tis)
            add(board, &tpm_tis_ops, tis);
        return tis;
    }
    struct tpm_crb *crb = tpm_crb_create(&config, board->config.bus, err);
    if (crb)
        add(board, &tpm_crb_ops, crb);
    return crb;
}

/* ---- PCI ---- */

static void pm_changed(void *opaque, uint16_t base, bool enabled, unsigned sci)
{
    struct q35 *board = opaque;
    struct error err;
    if (enabled && base && !acpi_pm_set_base(board->acpi_pm, base, &err))
        log_write(board->config.log, LOG_WARNING, "q35", "PMBASE stays where it is: %s", err.cause);
    if (sci != IRQ_SCI)
        log_write(board->config.log, LOG_WARNING, "q35", "the SCI stays at interrupt %d", IRQ_SCI);
}

/* Firmware places the configuration window and opens shadow RAM itself. */
static bool make_pci_host(struct q35 *board, struct error *err)
{
    const struct q35_firmware *firmware = &board->config.firmware;
    struct pci_host_config config = {
        .pci = board->pci, .address_port = PCI_ADDRESS_PORT, .ecam_base = ECAM_BASE};
    if (firmware->is_setting_up) {
        uint64_t below = firmware->rom_bytes;
        if (below > ROM_BELOW_1M_BYTES)
            below = ROM_BELOW_1M_BYTES;
        config.ecam_base = 0;
        config.physmap = board->config.physmap;
        config.ram = board->config.ram;
        config.rom_bytes = (uint32_t)below;
        config.rom = firmware->rom + (firmware->rom_bytes - below);
    }
    board->host = pci_host_create(&config, err);
    if (!board->host)
        return false;
    add(board, &pci_host_ops, board->host);
    return true;
}

static bool make_pci(struct q35 *board, struct error *err)
{
    const struct pci_bus_config bus = {
        .bus = board->config.bus,
        .physmap = board->config.physmap,
        .log = board->config.log,
        .route = route_pci,
        .opaque = board,
    };
    board->pci = pci_bus_create(&bus, err);
    if (!board->pci)
        return false;
    if (!make_pci_host(board, err))
        return false;
    const struct ich9_lpc_config lpc_config = {
        .pci = board->pci,
        .slot = SLOT_LPC,
        .pm_base = PM_PORT,
        .acpi_enabled = true,
        .sci = IRQ_SCI,
        .pm_changed = pm_changed,
        .pirq_changed = pirq_changed,
        .opaque = board,
    };
    struct ich9_lpc *lpc = ich9_lpc_create(&lpc_config, err);
    if (!lpc)
        return false;
    add(board, &ich9_lpc_ops, lpc);
    return true;
}

struct q35_place q35_place(struct q35 *board, enum q35_plug_kind kind, unsigned index)
{
    assert(index < plugs[kind].count);
    return (struct q35_place){
        .pci = board->pci,
        .slot = plugs[kind].slot + index % plugs[kind].slots,
        .function = plugs[kind].function + index / plugs[kind].slots,
        .msi = board->msi,
    };
}

struct q35_place q35_place_at(struct q35 *board, uint8_t devfn)
{
    return (struct q35_place){
        .pci = board->pci, .slot = devfn >> 3, .function = devfn & 7, .msi = board->msi};
}

void q35_adopt(struct q35 *board, const struct q35_place *place, const struct device_ops *ops,
               void *device)
{
    add(board, ops, device);
    label_place(board, ops->name, place);
}

bool q35_plug(struct q35 *board, const struct q35_place *place, struct virtio_device *device,
              struct error *err)
{
    assert(board->virtio_count < DEVICES_MAX);
    const struct virtio_pci_config config = {
        .pci = place->pci, .slot = place->slot, .function = place->function, .msi = place->msi};
    struct virtio_pci *virtio = virtio_pci_create(&config, device, err);
    if (!virtio)
        return false;
    board->virtio[board->virtio_count++] = virtio;
    add(board, &virtio_pci_ops, virtio);
    /* A virtio device is more than its transport. */
    label_place(board, virtio_ops(device)->name, place);
    return true;
}

struct vga *q35_plug_vga(struct q35 *board, const struct q35_vga *vga, struct error *err)
{
    const struct q35_place place = q35_place(board, Q35_GRAPHICS, 0);
    const struct vga_config config = {
        .pci = place.pci,
        .slot = place.slot,
        .function = place.function,
        .vga_port = VGA_PORT,
        .dispi_port = VGA_DISPI_PORT,
        .window_base = VGA_WINDOW_GPA,
        .memory_bytes = vga->memory_bytes ? vga->memory_bytes : VGA_MEMORY_DEFAULT_BYTES,
        .width = vga->width ? vga->width : Q35_SCREEN_WIDTH,
        .height = vga->height ? vga->height : Q35_SCREEN_HEIGHT,
        .clock = board->config.clock,
        .physmap = board->config.physmap,
        .rom = vga->rom,
        .rom_bytes = vga->rom_bytes,
    };
    struct vga *device = vga_create(&config, err);
    if (device)
        q35_adopt(board, &place, &vga_ops, device);
    return device;
}

bool q35_add_ide(struct q35 *board, struct ata_drive *const drives[4], struct error *err)
{
    const struct q35_place place = q35_place(board, Q35_IDE, 0);
    struct ide_config config = {
        .pci = place.pci,
        .slot = place.slot,
        .function = place.function,
        .ram = board->config.ram,
        .port = {IDE_PORT, IDE_PORT_2},
        .control_port = {IDE_CONTROL_PORT, IDE_CONTROL_PORT_2},
        .irq = {isa_line(board, IRQ_IDE), isa_line(board, IRQ_IDE + 1)},
    };
    memcpy(config.drives, drives, sizeof(config.drives));
    struct ide *ide = ide_create(&config, err);
    if (ide)
        q35_adopt(board, &place, &ide_ops, ide);
    return ide;
}

/* ---- firmware ---- */

static bool make_flash(struct q35 *board, struct error *err)
{
    const struct q35_firmware *firmware = &board->config.firmware;
    const struct physmap_range rom = {.gpa = ROM_END - firmware->rom_bytes,
                                      .size_bytes = firmware->rom_bytes,
                                      .hva = firmware->rom,
                                      .read_only = true};
    const struct physmap_range hole = {.gpa = VGA_WINDOW_GPA, .size_bytes = VGA_WINDOW_BYTES};
    const struct pflash_config config = {
        .gpa = rom.gpa - firmware->variables_bytes,
        .bytes = firmware->variables,
        .size_bytes = firmware->variables_bytes,
        .store = firmware->store,
        .bus = board->config.bus,
        .physmap = board->config.physmap,
        .log = board->config.log,
    };
    if (!physmap_map(board->config.physmap, PHYSMAP_SHADOW, &hole, err) ||
        (firmware->rom && !physmap_map(board->config.physmap, PHYSMAP_DEVICE, &rom, err)))
        return false;
    if (!firmware->variables)
        return true;
    struct pflash *flash = pflash_create(&config, err);
    if (!flash)
        return false;
    add(board, &pflash_ops, flash);
    return true;
}

void q35_set_boot_order(struct q35 *board, const uint8_t kinds[3])
{
    enum { BOOT_FLAG_1 = 0x38, BOOT_FLAG_2 = 0x3d, NO_FLOPPY_CHECK = 1 };
    mc146818_set_cmos(board->rtc, BOOT_FLAG_2, (uint8_t)(kinds[0] | kinds[1] << 4));
    mc146818_set_cmos(board->rtc, BOOT_FLAG_1, (uint8_t)(kinds[2] << 4 | NO_FLOPPY_CHECK));
}

/* ---- the whole ---- */

struct q35 *q35_create(const struct q35_config *config, struct error *err)
{
    assert(config->uart_count >= Q35_MIN_UARTS && config->uart_count <= Q35_MAX_UARTS);
    struct q35 *board = calloc(1, sizeof(*board));
    if (!board) {
        error_errno(err, "cannot make the board", NULL, ENOMEM);
        return NULL;
    }
    board->config = *config;
    for (unsigned i = 0; i < config->vcpu_count; i++)
        board->apic_ids[i] =
            (uint8_t)topology_apic_id(config->topology.cores, config->topology.threads, i);
    pthread_mutex_init(&board->irq_lock, NULL);
    if (!make_flash(board, err) || !make_interrupts(board, err) || !make_rtc(board, err) ||
        !make_hpet(board, err) || !make_acpi_pm(board, err) || !make_reset(board, err) ||
        !make_debug_ports(board, err) || !make_input(board, err) || !make_i8042(board, err) ||
        !make_tpm(board, err) || !make_dma(board, err) || !make_floppy(board, err) ||
        !make_uarts(board, err) || !make_parallel(board, err) || !make_fw_cfg(board, err) ||
        !make_pci(board, err) || !make_testdev(board, err) || !make_exit_port(board, err)) {
        q35_destroy(board);
        return NULL;
    }
    return board;
}

void q35_destroy(struct q35 *board)
{
    if (!board)
        return;
    while (board->device_count) {
        const struct device *device = &board->device[--board->device_count];
        device->ops->destroy(device->self);
    }
    if (board->pci)
        pci_bus_destroy(board->pci);
    fw_tables_free(board->fw_tables);
    bytes_free(&board->acpi);
    bytes_free(&board->smbios);
    pthread_mutex_destroy(&board->irq_lock);
    free(board);
}

/* ---- tables ---- */

static void describe_wiring(struct acpi_config *acpi)
{
    for (unsigned slot = 0; slot < ACPI_PCI_SLOTS; slot++)
        for (unsigned pin = 0; pin < ACPI_PCI_PINS; pin++)
            acpi->pci_gsi[slot][pin] = (uint8_t)(GSI_PCI + slot_pirq(slot, pin));
}

static struct acpi_pm_ports pm_ports(void)
{
    return (struct acpi_pm_ports){
        .event = PM_PORT + ACPI_PM_EVENT_OFFSET,
        .control = PM_PORT + ACPI_PM_CONTROL_OFFSET,
        .timer = PM_PORT + ACPI_PM_TIMER_OFFSET,
        .gpe = PM_PORT + ACPI_PM_GPE0_OFFSET,
        .gpe_size_bytes = ACPI_PM_GPE0_BYTES,
        .timer_is_32_bits = true,
        .sleep_type_s5 = SLEEP_TYPE_S5,
        .sci_irq = IRQ_SCI,
        .all_base = PM_PORT,
        .all_size_bytes = ACPI_PM_BLOCK_BYTES,
    };
}

static uint64_t high_memory_end(const struct q35 *board)
{
    const struct ram_region *high = ram_region(board->config.ram, 1);
    return high ? high->gpa + high->size_bytes : 0;
}

static bool has_mmio64(const struct q35 *board)
{
    return high_memory_end(board) <= MMIO64_BASE;
}

static uint64_t last_of(const struct pci_window *window)
{
    return window->size_bytes ? window->base + (window->size_bytes - 1) : 0;
}

/* What of the address space below and above 4 GiB is PCI's. */
struct layout {
    uint64_t ecam_base, ecam_bytes;
    struct pci_window mmio32[2], mmio64;
};

static struct layout own_layout(const struct q35 *board)
{
    return (struct layout){
        .ecam_base = ECAM_BASE,
        .ecam_bytes = MMIO32_BASE - ECAM_BASE,
        .mmio32 = {{MMIO32_BASE, MMIO32_BYTES}},
        .mmio64 = {MMIO64_BASE, has_mmio64(board) ? MMIO64_BYTES : 0},
    };
}

/* Firmware places ECAM somewhere above RAM, and BARs below and above it, those of 64 bits behind
 * RAM. There are always two windows of 32 bits, so that tables keep their size. */
static struct layout firmware_layout(const struct q35 *board)
{
    struct layout layout = own_layout(board);
    uint64_t base, size_bytes = pci_host_ecam(board->host, &base);
    if (size_bytes && base >= RAM_LOW_MAX_BYTES && base + size_bytes <= IOAPIC_BASE) {
        layout.ecam_base = base;
        layout.ecam_bytes = size_bytes;
    }
    uint64_t first = RAM_LOW_MAX_BYTES, split = layout.ecam_base;
    uint64_t second = layout.ecam_base + layout.ecam_bytes;
    if (layout.ecam_base < MMIO32_SPLIT) {
        first = second;
        split = second = MMIO32_SPLIT;
    }
    layout.mmio32[0] = (struct pci_window){first, split - first};
    layout.mmio32[1] = (struct pci_window){second, IOAPIC_BASE - second};
    uint64_t above = high_memory_end(board) ? high_memory_end(board) : RAM_HIGH_BASE;
    above = (above + GIB - 1) & ~(GIB - 1);
    uint64_t end = MMIO64_BASE + MMIO64_BYTES;
    layout.mmio64 = (struct pci_window){above, above < end ? end - above : 0};
    return layout;
}

static bool build_acpi(struct q35 *board, const struct layout *layout, uint64_t gpa,
                       struct bytes *out, struct acpi_links *links, struct error *err)
{
    const struct hpet_config hpet = hpet_config(board);
    struct acpi_config acpi = {
        .vcpu_count = board->config.vcpu_count,
        .apic_ids = board->apic_ids,
        .lapic_base = LAPIC_BASE,
        .ioapic_base = IOAPIC_BASE,
        .ioapic_id = IOAPIC_ID,
        .pit_on_gsi2 = true,
        .hpet_base = HPET_BASE,
        .hpet_block_id = hpet_block_id(&hpet),
        .ecam_base = (uint32_t)layout->ecam_base,
        .ecam_bus_count = (unsigned)(layout->ecam_bytes >> 20),
        .mmio32_first = (uint32_t)layout->mmio32[0].base,
        .mmio32_last = (uint32_t)last_of(&layout->mmio32[0]),
        .more32_first = (uint32_t)layout->mmio32[1].base,
        .more32_last = (uint32_t)last_of(&layout->mmio32[1]),
        .mmio64_first = layout->mmio64.base,
        .mmio64_last = last_of(&layout->mmio64),
        .lpc_slot = SLOT_LPC,
        .pm = pm_ports(),
        .reset_port = RESET_PORT,
        .reset_value = RESET_VALUE,
        .uart_count = board->config.uart_count,
        .rtc_port = RTC_PORT,
        .rtc_irq = IRQ_RTC,
        .rtc_century = RTC_CENTURY,
        .pit_port = PIT_PORT,
        .pic_port = {PIC_MASTER_PORT, PIC_SLAVE_PORT},
        .elcr_port = ELCR_PORT,
        .keyboard_port = {KEYBOARD_DATA_PORT, KEYBOARD_COMMAND_PORT},
        .keyboard_irq = IRQ_KEYBOARD,
        .mouse_irq = IRQ_MOUSE,
        .parallel_port = board->config.parallel ? PARALLEL_PORT : 0,
        .parallel_irq = IRQ_PARALLEL,
        .dma_port = {DMA_BYTE_PORT, DMA_PAGE_PORT, DMA_WORD_PORT},
        .floppy_port = board->floppy ? FLOPPY_PORT : 0,
        .floppy_irq = IRQ_FLOPPY,
        .tpm_base = board->config.tpm ? TPM_BASE : 0,
        .tpm_size_bytes = TPM_RANGE_BYTES,
        .tpm_control = board->config.tpm_is_tis ? 0 : TPM_BASE + TPM_CRB_CONTROL_OFFSET,
        .floppy_dma = DMA_FLOPPY,
    };
    static_assert((int)Q35_MAX_UARTS == (int)ACPI_MAX_UARTS, "as many places for them");
    memcpy(acpi.uart, uarts, sizeof(uarts));
    for (unsigned i = 0; board->floppy && i < FLOPPY_DRIVES; i++)
        acpi.floppy_type[i] = (uint8_t)floppy_drive_type(board->floppy, i);
    describe_wiring(&acpi);
    return acpi_build(&acpi, gpa, ACPI_BYTES, out, links, err);
}

static bool remake_acpi(void *opaque, uint64_t gpa, struct bytes *acpi, struct acpi_links *links,
                        struct error *err)
{
    struct q35 *board = opaque;
    const struct layout layout = firmware_layout(board);
    return build_acpi(board, &layout, gpa, acpi, links, err);
}

static bool make_tables(struct q35 *board, struct error *err)
{
    const struct layout layout = own_layout(board);
    if (!board->config.firmware.is_setting_up)
        return build_acpi(board, &layout, ACPI_GPA, &board->acpi, NULL, err);
    board->fw_tables = fw_tables_put(board->fw_cfg, remake_acpi, board, &board->smbios,
                                     SMBIOS_ANCHOR_BYTES, SMBIOS_STRUCTURES_AT, err);
    return board->fw_tables;
}

bool q35_finish(struct q35 *board, struct error *err)
{
    const struct ram_region *high = ram_region(board->config.ram, 1);
    struct smbios_config smbios = {
        .version = SKEP_VERSION,
        .sockets = board->config.topology.sockets,
        .cores = board->config.topology.cores,
        .threads = board->config.topology.threads,
        .memory_low_bytes = ram_region(board->config.ram, 0)->size_bytes,
        .memory_high_bytes = high ? high->size_bytes : 0,
    };
    memcpy(smbios.uuid, board->config.uuid, sizeof(smbios.uuid));
    return smbios_build(&smbios, SMBIOS_GPA, SMBIOS_BYTES, &board->smbios, err) &&
           make_tables(board, err);
}

void q35_memory_map(const struct q35 *board, struct memory_map *map)
{
    uint64_t low_bytes = ram_region(board->config.ram, 0)->size_bytes;
    *map = (struct memory_map){0};
    if (board->config.firmware.is_setting_up) { /* it reserves what it uses */
        memory_map_add(map, 0, low_bytes, MEMORY_USABLE);
        memory_map_add(map, RAM_HIGH_BASE, ram_size_bytes(board->config.ram) - low_bytes,
                       MEMORY_USABLE);
        return;
    }
    memory_map_add(map, 0, LOW_MEMORY_END, MEMORY_USABLE);
    memory_map_add(map, LOW_MEMORY_END, 0xa0000 - LOW_MEMORY_END, MEMORY_RESERVED);
    memory_map_add(map, ACPI_GPA, FIRMWARE_END - ACPI_GPA, MEMORY_RESERVED);
    memory_map_add(map, FIRMWARE_END, low_bytes - FIRMWARE_END, MEMORY_USABLE);
    memory_map_add(map, ECAM_BASE, MMIO32_BASE - ECAM_BASE, MEMORY_RESERVED);
    if (high_memory_end(board))
        memory_map_add(map, RAM_HIGH_BASE, high_memory_end(board) - RAM_HIGH_BASE, MEMORY_USABLE);
}

bool q35_boot(struct q35 *board, struct memory_map *map, uint64_t *rsdp_gpa, struct error *err)
{
    const struct layout layout = own_layout(board);
    const struct pci_windows windows = {
        .mmio32 = layout.mmio32[0],
        .mmio64 = layout.mmio64,
        .io = {PCI_IO_BASE, PCI_IO_BYTES},
        .interrupt_line = pci_interrupt_line,
    };
    if (!pci_assign_bars(board->pci, &windows, err))
        return false;
    bool is_ram =
        ram_write(board->config.ram, ACPI_GPA, board->acpi.data, board->acpi.size_bytes) &&
        ram_write(board->config.ram, SMBIOS_GPA, board->smbios.data, board->smbios.size_bytes);
    assert(is_ram);
    (void)is_ram;
    q35_memory_map(board, map);
    *rsdp_gpa = ACPI_GPA;
    return true;
}

/* ---- reset, save, load ---- */

void q35_reset(struct q35 *board)
{
    for (unsigned i = 0; i < board->device_count; i++)
        board->device[i].ops->reset(board->device[i].self);
}

void q35_press_power_button(struct q35 *board)
{
    acpi_pm_press_power_button(board->acpi_pm);
}

static const char wiring_section[] = "q35";
enum { WIRING_VERSION = 2 };

static void save_wiring(const struct q35 *board, struct save *save)
{
    save_begin(save, wiring_section, WIRING_VERSION);
    for (unsigned i = 0; i < ISA_IRQS; i++)
        save_u32(save, board->isa_sources[i]);
    save_u32(save, board->test_levels);
    save_u8(save, board->pirq_levels);
    save_bytes(save, board->pirq_irq, sizeof(board->pirq_irq));
    save_end(save);
}

static bool load_wiring(struct q35 *board, struct load *load)
{
    uint32_t version;
    if (!load_begin(load, wiring_section, &version) || version != WIRING_VERSION)
        return false;
    for (unsigned i = 0; i < ISA_IRQS; i++)
        board->isa_sources[i] = load_u32(load);
    board->test_levels = load_u32(load);
    board->pirq_levels = load_u8(load);
    load_bytes(load, board->pirq_irq, sizeof(board->pirq_irq));
    for (unsigned i = 0; i < ICH9_LPC_PIRQ_COUNT; i++)
        if (board->pirq_irq[i] >= ISA_IRQS)
            board->pirq_irq[i] = 0;
    return load_end(load);
}

static const char devices_section[] = "devices";

static void save_devices(const struct q35 *board, struct save *save)
{
    save_begin(save, devices_section, 1);
    save_u32(save, board->device_count);
    for (unsigned i = 0; i < board->device_count; i++) {
        save_bytes(save, board->label[i], DEVICE_LABEL_BYTES);
        save_u32(save, board->device[i].ops->version);
    }
    save_end(save);
}

static const char what_load[] = "cannot restore the machine";

static bool other_device(const char *saved, const char *here, struct error *err)
{
    if (saved && here)
        error_set(err, what_load, NULL, "it has a device '%s' where this one has '%s'", saved,
                  here);
    else if (saved)
        error_set(err, what_load, NULL, "it has a device '%s' that this one lacks", saved);
    else
        error_set(err, what_load, NULL, "it lacks the device '%s' of this one", here);
    return error_hint(err, "give the options that it was started with, or none");
}

/* `here` NULL: there is no further device. */
static bool check_device(const struct device_ops *ops, const char *here, struct load *load,
                         struct error *err)
{
    char name[DEVICE_LABEL_BYTES];
    load_bytes(load, name, sizeof(name));
    name[sizeof(name) - 1] = '\0';
    uint32_t version = load_u32(load);
    if (load->failed)
        return error_set(err, what_load, NULL, "its list of devices is cut short");
    if (!here || strcmp(name, here) != 0)
        return other_device(name, here, err);
    if (version <= ops->version)
        return true;
    error_set(err, what_load, NULL, "its device '%s' is of version %u, newer than %u", name,
              version, ops->version);
    return error_hint(err, "use the version of skep that saved it");
}

/* Which devices there are, before the state of the first is touched. */
static bool check_devices(const struct q35 *board, struct load *load, struct error *err)
{
    uint32_t version;
    if (!load_begin(load, devices_section, &version) || version != 1)
        return error_set(err, what_load, NULL, "it has no list of devices that this skep can read");
    uint32_t count = load_u32(load);
    for (unsigned i = 0; i < count || i < board->device_count; i++) {
        const char *here = i < board->device_count ? board->label[i] : NULL;
        if (i >= count)
            return other_device(NULL, here, err);
        if (!check_device(here ? board->device[i].ops : NULL, here, load, err))
            return false;
    }
    return load_end(load) || error_set(err, what_load, NULL, "its list of devices is too long");
}

void q35_save(struct q35 *board, struct save *save)
{
    save_devices(board, save);
    save_wiring(board, save);
    for (unsigned i = 0; i < board->device_count; i++) {
        const struct device *device = &board->device[i];
        save_begin(save, device->ops->name, device->ops->version);
        device->ops->save(device->self, save);
        save_end(save);
    }
}

/* The wires first: a device that drives its line while it is loaded then changes nothing. */
bool q35_load(struct q35 *board, struct load *load, struct error *err)
{
    if (!check_devices(board, load, err))
        return false;
    if (!load_wiring(board, load))
        return error_set(err, what_load, NULL, "the state of its wiring is not as it should be");
    for (unsigned i = 0; i < board->device_count; i++) {
        const struct device *device = &board->device[i];
        uint32_t version;
        if (!load_begin(load, device->ops->name, &version) ||
            !device->ops->load(device->self, load, version) || !load_end(load))
            return error_set(err, what_load, NULL,
                             "the state of its device '%s' is not as it should be",
                             device->ops->name);
    }
    return true;
}

void q35_kick_all(struct q35 *board)
{
    for (unsigned i = 0; i < board->virtio_count; i++)
        virtio_pci_kick_all(board->virtio[i]);
}

/* ---- what the engine asks ---- */

static struct lapics *hook_lapics(void *opaque)
{
    struct q35 **board = opaque;
    return (*board)->lapics;
}

static int hook_acknowledge(void *opaque, unsigned vcpu)
{
    return lapic_acknowledge(hook_lapics(opaque), vcpu);
}

static uint64_t hook_read_cr8(void *opaque, unsigned vcpu)
{
    return lapic_read_cr8(hook_lapics(opaque), vcpu);
}

static void hook_write_cr8(void *opaque, unsigned vcpu, uint64_t value)
{
    lapic_write_cr8(hook_lapics(opaque), vcpu, value);
}

static bool hook_read_msr(void *opaque, unsigned vcpu, uint32_t msr, uint64_t *value)
{
    return lapic_read_msr(hook_lapics(opaque), vcpu, msr, value);
}

static bool hook_write_msr(void *opaque, unsigned vcpu, uint32_t msr, uint64_t value)
{
    return lapic_write_msr(hook_lapics(opaque), vcpu, msr, value);
}

static void hook_tsc_changed(void *opaque, unsigned vcpu)
{
    lapic_tsc_changed(hook_lapics(opaque), vcpu);
}

struct engine_hooks q35_hooks(struct q35 **board)
{
    return (struct engine_hooks){
        .opaque = board,
        .acknowledge = hook_acknowledge,
        .read_cr8 = hook_read_cr8,
        .write_cr8 = hook_write_cr8,
        .read_msr = hook_read_msr,
        .write_msr = hook_write_msr,
        .tsc_changed = hook_tsc_changed,
    };
}
