/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The Q35 board: 82Q35 host bridge, ICH9, and what hangs on them. It reads like the schematic. With
 * an engine that has an irqchip, the local APICs, I/O APIC, 8259 pair and 8254 are the engine's.
 */
#include "machine/q35_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

const struct acpi_uart q35_uarts[Q35_MAX_UARTS] = {{0x3f8, 4}, {0x2f8, 3}, {0x3e8, 4}, {0x2e8, 3}};

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
        .base = PIT_PORT, .port_b_base = PORT_B, .irq = q35_isa_line(board, IRQ_PIT)};
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
        if (!q35_irqchip_open(board, err))
            return false;
        for (unsigned i = 0; i < Q35_IRQCHIPS; i++)
            add(board, &board->irqchip_ops[i], board);
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

static void set_rtc_alarm(void *opaque, unsigned number, bool level)
{
    struct q35 *board = opaque;
    if (board->acpi_pm)
        acpi_pm_set_rtc_alarm(board->acpi_pm, number, level);
}

static bool make_rtc(struct q35 *board, struct error *err)
{
    uint64_t low_bytes = ram_region(board->config.ram, 0)->size_bytes;
    const struct mc146818_config config = {
        .base = RTC_PORT,
        .irq = q35_isa_line(board, IRQ_RTC),
        .alarm = {set_rtc_alarm, board, 0},
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
    q35_drive_gsi(board, pin, level);
}

struct hpet_config q35_hpet_config(struct q35 *board)
{
    struct hpet_config config = {
        .base = HPET_BASE,
        .timer_count = HPET_MIN_TIMERS,
        .route_mask = HPET_ROUTES,
        .ioapic = {set_ioapic_pin, board, 0},
        .legacy_timer = q35_isa_line_shared(board, IRQ_PIT, 1),
        .legacy_rtc = q35_isa_line_shared(board, IRQ_RTC, 1),
        .legacy_taken = {{0}, {mc146818_disconnect_irq, board->rtc, 0}},
        .msi = board->msi,
    };
    if (board->i8254)
        config.legacy_taken[0] = (struct irq_line){i8254_disconnect_irq, board->i8254, 0};
    else
        config.legacy_taken[0] = board->config.engine->irqchip->pit_taken(board->config.vm);
    return config;
}

static bool make_hpet(struct q35 *board, struct error *err)
{
    const struct hpet_config config = q35_hpet_config(board);
    struct hpet *hpet = hpet_create(&config, board->config.bus, board->config.clock, err);
    if (!hpet)
        return false;
    add(board, &hpet_ops, hpet);
    return true;
}

/* ---- power, reset, and what a test program uses ---- */

bool q35_has_sleep(const struct q35 *board)
{
    return !board->config.firmware.rom;
}

static bool make_acpi_pm(struct q35 *board, struct error *err)
{
    const struct acpi_pm_config config = {
        .base = PM_PORT,
        .sleep_type_s5 = SLEEP_TYPE_S5,
        .sleep_type_s3 = SLEEP_TYPE_S3,
        .timer_is_32_bit = true,
        .sci = q35_isa_line(board, IRQ_SCI),
        .power_off = board->config.callbacks.power_off,
        .sleep = q35_has_sleep(board) ? board->config.callbacks.sleep : NULL,
        .wake = board->config.callbacks.wake,
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
        .gsi = {q35_set_test_gsi, board, 0},
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
        .keyboard_irq = q35_isa_line(board, IRQ_KEYBOARD),
        .mouse_irq = q35_isa_line(board, IRQ_MOUSE),
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
            .base = q35_uarts[i].port,
            .irq = q35_isa_line_shared(board, q35_uarts[i].irq, i),
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
        .irq = q35_isa_line(board, IRQ_PARALLEL),
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
        .irq = q35_isa_line(board, IRQ_FLOPPY),
        .dma = i8237_channel(board->dma, DMA_FLOPPY),
        .log = board->config.log,
    };
    static_assert((int)FLOPPY_DRIVES == 2, "as many as the configuration has");
    if (!board->config.floppies[0].is_there && !board->config.floppies[1].is_there)
        return true;
    for (unsigned i = 0; i < FLOPPY_DRIVES; i++) {
        config.drives[i].is_there = board->config.floppies[i].is_there;
        config.drives[i].medium = board->config.floppies[i].medium;
        config.drives[i].name = board->config.floppies[i].name;
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
        .route = q35_route_pci,
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
        .pirq_changed = q35_pirq_changed,
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
    const struct virtio_pci_config config = {.pci = place->pci,
                                             .slot = place->slot,
                                             .function = place->function,
                                             .msi = place->msi,
                                             .rom = place->rom,
                                             .rom_bytes = place->rom_bytes};
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
        .irq = {q35_isa_line(board, IRQ_IDE), q35_isa_line(board, IRQ_IDE + 1)},
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
    q35_irqchip_close(board);
    fw_tables_free(board->fw_tables);
    bytes_free(&board->acpi);
    bytes_free(&board->smbios);
    bytes_free(&board->mptable);
    pthread_mutex_destroy(&board->irq_lock);
    free(board);
}
