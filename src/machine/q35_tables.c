/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What firmware and kernels are told of the board: ACPI, SMBIOS, the MP table, the memory map.
 */
#include "machine/q35_internal.h"

#include "machine/bytes.h"

#include <assert.h>
#include <string.h>

static_assert((int)ACPI_PCI_SLOTS == PCI_SLOT_COUNT && (int)MPTABLE_PCI_SLOTS == PCI_SLOT_COUNT &&
                  (int)ACPI_PCI_PINS == (int)MPTABLE_PCI_PINS,
              "one description of the wiring");

static void describe_wiring(uint8_t pci_gsi[PCI_SLOT_COUNT][ACPI_PCI_PINS])
{
    for (unsigned slot = 0; slot < PCI_SLOT_COUNT; slot++)
        for (unsigned pin = 0; pin < ACPI_PCI_PINS; pin++)
            pci_gsi[slot][pin] = (uint8_t)(GSI_PCI + q35_slot_pirq(slot, pin));
}

static struct acpi_pm_ports pm_ports(const struct q35 *board)
{
    return (struct acpi_pm_ports){
        .event = PM_PORT + ACPI_PM_EVENT_OFFSET,
        .control = PM_PORT + ACPI_PM_CONTROL_OFFSET,
        .timer = PM_PORT + ACPI_PM_TIMER_OFFSET,
        .gpe = PM_PORT + ACPI_PM_GPE0_OFFSET,
        .gpe_size_bytes = ACPI_PM_GPE0_BYTES,
        .timer_is_32_bits = true,
        .sleep_type_s5 = SLEEP_TYPE_S5,
        .has_s3 = q35_has_sleep(board),
        .sleep_type_s3 = SLEEP_TYPE_S3,
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
    const struct hpet_config hpet = q35_hpet_config(board);
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
        /* There are no bridges. Linux asks every bus that it is told of for its devices. */
        .ecam_bus_count = 1,
        .mmio32_first = (uint32_t)layout->mmio32[0].base,
        .mmio32_last = (uint32_t)last_of(&layout->mmio32[0]),
        .more32_first = (uint32_t)layout->mmio32[1].base,
        .more32_last = (uint32_t)last_of(&layout->mmio32[1]),
        .mmio64_first = layout->mmio64.base,
        .mmio64_last = last_of(&layout->mmio64),
        .lpc_slot = SLOT_LPC,
        .pm = pm_ports(board),
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
        .fw_cfg_port = FW_CFG_PORT,
        .tpm_base = board->config.tpm ? TPM_BASE : 0,
        .tpm_size_bytes = TPM_RANGE_BYTES,
        .tpm_control = board->config.tpm_is_tis ? 0 : TPM_BASE + TPM_CRB_CONTROL_OFFSET,
        .floppy_dma = DMA_FLOPPY,
    };
    static_assert((int)Q35_MAX_UARTS == (int)ACPI_MAX_UARTS, "as many places for them");
    memcpy(acpi.uart, q35_uarts, sizeof(q35_uarts));
    for (unsigned i = 0; board->floppy && i < FLOPPY_DRIVES; i++)
        acpi.floppy_type[i] = (uint8_t)floppy_drive_type(board->floppy, i);
    describe_wiring(acpi.pci_gsi);
    return acpi_build(&acpi, gpa, ACPI_BYTES, out, links, err);
}

static bool remake_acpi(void *opaque, uint64_t gpa, struct bytes *acpi, struct acpi_links *links,
                        struct error *err)
{
    struct q35 *board = opaque;
    const struct layout layout = firmware_layout(board);
    return build_acpi(board, &layout, gpa, acpi, links, err);
}

static bool build_mptable(struct q35 *board, struct error *err)
{
    uint32_t registers[4];
    board->config.engine->cpuid(board->config.vm, 1, 0, registers);
    struct mptable_config config = {
        .vcpu_count = board->config.vcpu_count,
        .apic_ids = board->apic_ids,
        .cpu_signature = registers[0],
        .cpu_features = registers[3],
        .lapic_base = LAPIC_BASE,
        .ioapic_base = IOAPIC_BASE,
        .lapic_version = LAPIC_CHIP_VERSION,
        .ioapic_version = IOAPIC_CHIP_VERSION,
        .ioapic_id = IOAPIC_ID,
        .pit_pin = GSI_PIT,
        .sci_irq = IRQ_SCI,
    };
    describe_wiring(config.pci_pin);
    return mptable_build(&config, MPTABLE_GPA, MPTABLE_BYTES, &board->mptable, err);
}

/* Firmware makes an MP table by itself, if it likes. */
static bool make_tables(struct q35 *board, struct error *err)
{
    const struct layout layout = own_layout(board);
    if (!board->config.firmware.is_setting_up)
        return build_acpi(board, &layout, ACPI_GPA, &board->acpi, NULL, err) &&
               build_mptable(board, err);
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

static bool place_bars(struct q35 *board, struct error *err)
{
    const struct layout layout = own_layout(board);
    const struct pci_windows windows = {
        .mmio32 = layout.mmio32[0],
        .mmio64 = layout.mmio64,
        .io = {PCI_IO_BASE, PCI_IO_BYTES},
        .interrupt_line = q35_interrupt_line,
    };
    return pci_assign_bars(board->pci, &windows, err);
}

bool q35_wake(struct q35 *board, struct error *err)
{
    q35_reset_but_power(board);
    return place_bars(board, err);
}

/* The FACS is where 64 divides its address (ACPI 6.4, 5.2.10). */
uint32_t q35_waking_vector(const struct q35 *board)
{
    enum { FACS_BYTES = 64, WAKING_VECTOR_AT = 12, REAL_MODE_END = 0x100000 };
    const struct bytes *acpi = &board->acpi;
    for (size_t at = 0; at + FACS_BYTES <= acpi->size_bytes; at += FACS_BYTES) {
        uint8_t vector[4];
        if (memcmp(acpi->data + at, "FACS", 4) != 0)
            continue;
        if (!ram_read(board->config.ram, ACPI_GPA + at + WAKING_VECTOR_AT, vector, sizeof(vector)))
            return 0;
        return le32_get(vector) < REAL_MODE_END ? le32_get(vector) : 0;
    }
    return 0;
}

bool q35_boot(struct q35 *board, struct memory_map *map, uint64_t *rsdp_gpa, struct error *err)
{
    if (!place_bars(board, err))
        return false;
    bool is_ram =
        ram_write(board->config.ram, ACPI_GPA, board->acpi.data, board->acpi.size_bytes) &&
        ram_write(board->config.ram, SMBIOS_GPA, board->smbios.data, board->smbios.size_bytes) &&
        ram_write(board->config.ram, MPTABLE_GPA, board->mptable.data, board->mptable.size_bytes);
    assert(is_ram);
    (void)is_ram;
    q35_memory_map(board, map);
    *rsdp_gpa = ACPI_GPA;
    return true;
}
