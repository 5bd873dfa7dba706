/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The DSDT: processors, the PCI host bridge with its windows and interrupt routes, and what is
 * soldered to the board (ACPI 6.4, 5.2.11.1; PCI Firmware 3.2, 4.5 for _OSC). Interrupts are
 * described for the I/O APIC only; a system that stays with the 8259 pair sees no PCI interrupts.
 * Runs on the machine's thread.
 */
#include "machine/acpi.h"
#include "machine/aml.h"

#include <stdio.h>

enum { FW_CFG_BYTES = 12 }; /* selector and data, a gap, the DMA register */

static void put_sleep_state(struct bytes *aml, const char *name, uint8_t sleep_type)
{
    aml_name(aml, name);
    size_t package = aml_package_begin(aml, 4);
    aml_integer(aml, sleep_type);
    aml_integer(aml, sleep_type);
    aml_integer(aml, 0);
    aml_integer(aml, 0);
    aml_end(aml, package);
}

static void put_sleep_states(const struct acpi_config *config, struct bytes *aml)
{
    if (config->pm.has_s3)
        put_sleep_state(aml, "\\_S3", config->pm.sleep_type_s3);
    put_sleep_state(aml, "\\_S5", config->pm.sleep_type_s5);
}

static void put_processors(const struct acpi_config *config, struct bytes *aml)
{
    for (unsigned i = 0; i < config->vcpu_count; i++) {
        char name[5];
        snprintf(name, sizeof(name), "C%03X", i & 0xfff);
        size_t device = aml_device_begin(aml, name);
        aml_name_string(aml, "_HID", "ACPI0007");
        aml_name_integer(aml, "_UID", i);
        aml_end(aml, device);
    }
}

/* What belongs to no driver but must not be given to one. */
static void put_motherboard(const struct acpi_config *config, struct bytes *aml)
{
    size_t device = aml_device_begin(aml, "MBRD");
    aml_name_eisa_id(aml, "_HID", "PNP0C02");
    aml_name_integer(aml, "_UID", 0);
    size_t resources = aml_resources_begin(aml, "_CRS");
    aml_memory32(aml, config->ecam_base, (uint32_t)config->ecam_bus_count << 20, true);
    aml_io(aml, config->pm.all_base, (uint8_t)config->pm.all_size_bytes);
    aml_io(aml, config->elcr_port, 2);
    aml_resources_end(aml, resources);
    aml_end(aml, device);
}

static void put_pci_windows(const struct acpi_config *config, struct bytes *aml)
{
    enum { CONFIG_PORT = 0xcf8, CONFIG_BYTES = 8 }; /* PCI 3.0, 3.2.2.3.2 */
    size_t resources = aml_resources_begin(aml, "_CRS");
    aml_bus_window(aml, 0, (uint16_t)(config->ecam_bus_count - 1));
    aml_io(aml, CONFIG_PORT, CONFIG_BYTES);
    aml_io_window(aml, 0, CONFIG_PORT - 1);
    aml_io_window(aml, CONFIG_PORT + CONFIG_BYTES, 0xffff);
    aml_memory32_window(aml, config->mmio32_first, config->mmio32_last);
    if (config->more32_last)
        aml_memory32_window(aml, config->more32_first, config->more32_last);
    if (config->mmio64_last)
        aml_memory64_window(aml, config->mmio64_first, config->mmio64_last);
    aml_resources_end(aml, resources);
}

static void put_pci_routes(const struct acpi_config *config, struct bytes *aml)
{
    aml_name(aml, "_PRT");
    size_t table = aml_package_begin(aml, (ACPI_PCI_SLOTS - 1) * ACPI_PCI_PINS);
    for (unsigned slot = 1; slot < ACPI_PCI_SLOTS; slot++)
        for (unsigned pin = 0; pin < ACPI_PCI_PINS; pin++) {
            size_t route = aml_package_begin(aml, 4);
            aml_integer(aml, slot << 16 | 0xffff); /* all functions */
            aml_integer(aml, pin);
            aml_integer(aml, 0); /* a GSI, not a link device */
            aml_integer(aml, config->pci_gsi[slot][pin]);
            aml_end(aml, route);
        }
    aml_end(aml, table);
}

/* Gives the system all PCI Express features that it asks for, but for the hot-plug controller of
 * the standard kind, which the board hasn't got. Without _OSC Linux would take none. */
static void put_pci_osc(struct bytes *aml)
{
    static const uint8_t uuid[16] = {0x5b, 0x4d, 0xdb, 0x33, 0xf7, 0x1f, 0x1c, 0x40,
                                     0x96, 0x57, 0x74, 0x41, 0xc0, 0x3d, 0xd7, 0x66};
    enum { UNKNOWN_UUID = 1 << 2, MASKED = 1 << 4, GRANTED = 0x1d };
    size_t method = aml_method_begin(aml, "_OSC", 4);
    aml_create_dword_field(aml, 3, 0, "CDW1");
    size_t known = aml_if_begin(aml);
    aml_equal(aml);
    aml_argument(aml, 0);
    aml_buffer(aml, uuid, sizeof(uuid));
    aml_create_dword_field(aml, 3, 8, "CDW3");
    size_t masked = aml_if_begin(aml);
    aml_and(aml, "CDW3", ~(uint32_t)GRANTED);
    aml_or_into(aml, "CDW1", MASKED);
    aml_end(aml, masked);
    aml_and_into(aml, "CDW3", GRANTED);
    aml_end(aml, known);
    size_t unknown = aml_else_begin(aml);
    aml_or_into(aml, "CDW1", UNKNOWN_UUID);
    aml_end(aml, unknown);
    aml_return(aml);
    aml_argument(aml, 3);
    aml_end(aml, method);
}

static void put_isa_device(struct bytes *aml, const char *name, const char *id, uint16_t port,
                           uint8_t port_count, int irq)
{
    size_t device = aml_device_begin(aml, name);
    aml_name_eisa_id(aml, "_HID", id);
    size_t resources = aml_resources_begin(aml, "_CRS");
    aml_io(aml, port, port_count);
    if (irq >= 0)
        aml_irq(aml, (unsigned)irq);
    aml_resources_end(aml, resources);
    aml_end(aml, device);
}

static void put_uarts(const struct acpi_config *config, struct bytes *aml)
{
    for (unsigned i = 0; i < config->uart_count; i++) {
        char name[5];
        snprintf(name, sizeof(name), "COM%u", (i + 1) & 7);
        size_t device = aml_device_begin(aml, name);
        aml_name_eisa_id(aml, "_HID", "PNP0501");
        aml_name_integer(aml, "_UID", i + 1);
        size_t resources = aml_resources_begin(aml, "_CRS");
        aml_io(aml, config->uart[i].port, 8);
        aml_irq(aml, config->uart[i].irq);
        aml_resources_end(aml, resources);
        aml_end(aml, device);
    }
}

static void put_keyboard(const struct acpi_config *config, struct bytes *aml)
{
    size_t device = aml_device_begin(aml, "KBD");
    aml_name_eisa_id(aml, "_HID", "PNP0303");
    size_t resources = aml_resources_begin(aml, "_CRS");
    aml_io(aml, config->keyboard_port[0], 1);
    aml_io(aml, config->keyboard_port[1], 1);
    aml_irq(aml, config->keyboard_irq);
    aml_resources_end(aml, resources);
    aml_end(aml, device);
    if (!config->mouse_irq)
        return;
    device = aml_device_begin(aml, "MOU");
    aml_name_eisa_id(aml, "_HID", "PNP0F13");
    resources = aml_resources_begin(aml, "_CRS");
    aml_irq(aml, config->mouse_irq);
    aml_resources_end(aml, resources);
    aml_end(aml, device);
}

/* _FDI (ACPI 6.4, 9.8.4): what a PC's BIOS tells of a drive (interrupt 13h, function 8), with the
 * table of its parameters. */
static void put_floppy_drive(unsigned number, uint8_t type, struct bytes *aml)
{
    static const struct {
        uint8_t last_cylinder, sectors, gap, format_gap;
    } drives[] = {
        [1] = {39, 9, 0x2a, 0x50},  [2] = {79, 15, 0x1b, 0x54}, [3] = {79, 9, 0x2a, 0x50},
        [4] = {79, 18, 0x1b, 0x6c}, [5] = {79, 36, 0x1b, 0x50},
    };
    char name[5];
    if (!type || type >= sizeof(drives) / sizeof(drives[0]))
        return;
    const uint64_t values[16] = {number,
                                 type,
                                 drives[type].last_cylinder,
                                 drives[type].sectors,
                                 1,
                                 0xaf,
                                 2,
                                 0x25,
                                 2,
                                 drives[type].sectors,
                                 drives[type].gap,
                                 0xff,
                                 drives[type].format_gap,
                                 0xf6,
                                 15,
                                 8};
    snprintf(name, sizeof(name), "FLP%c", (char)('A' + (number & 1)));
    size_t device = aml_device_begin(aml, name);
    aml_name_integer(aml, "_ADR", number);
    aml_name(aml, "_FDI");
    size_t package = aml_package_begin(aml, 16);
    for (unsigned i = 0; i < 16; i++)
        aml_integer(aml, values[i]);
    aml_end(aml, package);
    aml_end(aml, device);
}

static void put_floppy(const struct acpi_config *config, struct bytes *aml)
{
    /* _FDE (9.8.3): four drives, 1 where there is one, and a tape drive: never. */
    uint8_t drives[20] = {
        [0] = config->floppy_type[0] != 0, [4] = config->floppy_type[1] != 0, [16] = 2};
    size_t device = aml_device_begin(aml, "FDC0");
    aml_name_eisa_id(aml, "_HID", "PNP0700");
    size_t resources = aml_resources_begin(aml, "_CRS");
    aml_io(aml, config->floppy_port + 2, 4);
    aml_io(aml, config->floppy_port + 7, 1);
    aml_irq(aml, config->floppy_irq);
    aml_dma(aml, config->floppy_dma);
    aml_resources_end(aml, resources);
    aml_name(aml, "_FDE");
    aml_buffer(aml, drives, sizeof(drives));
    for (unsigned i = 0; i < 2; i++)
        put_floppy_drive(i, config->floppy_type[i], aml);
    aml_end(aml, device);
}

static void put_dma(const struct acpi_config *config, struct bytes *aml)
{
    size_t device = aml_device_begin(aml, "DMAC");
    aml_name_eisa_id(aml, "_HID", "PNP0200");
    size_t resources = aml_resources_begin(aml, "_CRS");
    aml_io(aml, config->dma_port[0], 16);
    aml_io(aml, config->dma_port[1], 15);
    aml_io(aml, config->dma_port[2], 32);
    aml_dma(aml, 4);
    aml_resources_end(aml, resources);
    aml_end(aml, device);
}

static void put_pics(const struct acpi_config *config, struct bytes *aml)
{
    size_t device = aml_device_begin(aml, "PIC");
    aml_name_eisa_id(aml, "_HID", "PNP0000");
    size_t resources = aml_resources_begin(aml, "_CRS");
    aml_io(aml, config->pic_port[0], 2);
    aml_io(aml, config->pic_port[1], 2);
    aml_irq(aml, 2);
    aml_resources_end(aml, resources);
    aml_end(aml, device);
}

/* As QEMU's documentation of the device has it (docs/specs/fw_cfg): no person looks at it, so it is
 * not shown (_STA, 6.3.7). */
static void put_fw_cfg(const struct acpi_config *config, struct bytes *aml)
{
    size_t device = aml_device_begin(aml, "FWCF");
    aml_name_string(aml, "_HID", "QEMU0002");
    aml_name_integer(aml, "_STA", 0xb);
    size_t resources = aml_resources_begin(aml, "_CRS");
    aml_io(aml, config->fw_cfg_port, FW_CFG_BYTES);
    aml_resources_end(aml, resources);
    aml_end(aml, device);
}

static void put_isa(const struct acpi_config *config, struct bytes *aml)
{
    size_t device = aml_device_begin(aml, "ISA");
    aml_name_integer(aml, "_ADR", (uint64_t)config->lpc_slot << 16);
    put_pics(config, aml);
    if (config->dma_port[2])
        put_dma(config, aml);
    if (config->floppy_port)
        put_floppy(config, aml);
    put_isa_device(aml, "PIT", "PNP0100", config->pit_port, 4, 0);
    put_isa_device(aml, "RTC", "PNP0B00", config->rtc_port, 8, config->rtc_irq);
    put_keyboard(config, aml);
    put_fw_cfg(config, aml);
    put_uarts(config, aml);
    if (config->parallel_port)
        put_isa_device(aml, "LPT1", "PNP0400", config->parallel_port, 3, config->parallel_irq);
    aml_end(aml, device);
}

static void put_pci(const struct acpi_config *config, struct bytes *aml)
{
    size_t device = aml_device_begin(aml, "PCI0");
    aml_name_eisa_id(aml, "_HID", "PNP0A08");
    aml_name_eisa_id(aml, "_CID", "PNP0A03");
    aml_name_integer(aml, "_UID", 0);
    aml_name_integer(aml, "_SEG", 0);
    aml_name_integer(aml, "_BBN", 0);
    put_pci_windows(config, aml);
    put_pci_routes(config, aml);
    put_pci_osc(aml);
    put_isa(config, aml);
    aml_end(aml, device);
}

static void put_hpet(const struct acpi_config *config, struct bytes *aml)
{
    size_t device = aml_device_begin(aml, "HPET");
    aml_name_eisa_id(aml, "_HID", "PNP0103");
    aml_name_integer(aml, "_UID", 0);
    size_t resources = aml_resources_begin(aml, "_CRS");
    aml_memory32(aml, config->hpet_base, 0x400, false);
    aml_resources_end(aml, resources);
    aml_end(aml, device);
}

static void put_tpm(const struct acpi_config *config, struct bytes *aml)
{
    size_t device = aml_device_begin(aml, "TPM");
    aml_name_string(aml, "_HID", "MSFT0101");
    aml_name_integer(aml, "_UID", 0);
    size_t resources = aml_resources_begin(aml, "_CRS");
    aml_memory32(aml, config->tpm_base, config->tpm_size_bytes, true);
    aml_resources_end(aml, resources);
    aml_end(aml, device);
}

void acpi_dsdt(const struct acpi_config *config, struct bytes *aml)
{
    put_sleep_states(config, aml);
    size_t scope = aml_scope_begin(aml, "\\_SB");
    put_processors(config, aml);
    put_motherboard(config, aml);
    if (config->hpet_base)
        put_hpet(config, aml);
    if (config->tpm_base)
        put_tpm(config, aml);
    put_pci(config, aml);
    aml_end(aml, scope);
}
