/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The board described to its operating system in ACPI tables (ACPI 6.4). All addresses and
 * interrupt numbers come from the board.
 */
#ifndef SKEP_MACHINE_ACPI_H
#define SKEP_MACHINE_ACPI_H

#include "base/error.h"
#include "machine/bytes.h"

#include <stdbool.h>
#include <stdint.h>

enum { ACPI_MAX_UARTS = 4, ACPI_PCI_SLOTS = 32, ACPI_PCI_PINS = 4 };

struct acpi_uart {
    uint16_t port;
    uint8_t irq;
};

struct acpi_pm_ports {
    uint16_t event;         /* PM1a_EVT, 4 bytes */
    uint16_t control;       /* PM1a_CNT, 2 bytes */
    uint16_t timer;         /* PM_TMR, 4 bytes */
    uint16_t gpe;           /* GPE0 status and enable */
    uint8_t gpe_size_bytes; /* of both; 0: there is none */
    bool timer_is_32_bits;
    uint8_t sleep_type_s5; /* SLP_TYP of soft off */
    bool has_s3;
    uint8_t sleep_type_s3; /* of suspend to memory */
    uint8_t sci_irq;
    uint16_t all_base, all_size_bytes; /* the whole block, reserved */
};

struct acpi_config {
    unsigned vcpu_count;
    const uint8_t *apic_ids; /* of vcpu_count, 0 … 254; NULL: their numbers */
    uint32_t lapic_base;
    uint32_t ioapic_base;
    uint8_t ioapic_id;
    bool pit_on_gsi2;       /* ISA IRQ 0 reaches I/O APIC pin 2 */
    uint32_t hpet_base;     /* 0: none */
    uint32_t hpet_block_id; /* low half of its capabilities */
    uint32_t ecam_base;
    unsigned ecam_bus_count; /* 1 … 256 */
    uint32_t mmio32_first, mmio32_last;
    uint32_t more32_first, more32_last; /* another such window; last 0: none */
    uint64_t mmio64_first, mmio64_last; /* last 0: no such window */
    uint8_t lpc_slot;                   /* device number of the ISA bridge, function 0 */
    uint8_t pci_gsi[ACPI_PCI_SLOTS][ACPI_PCI_PINS]; /* where INTA … INTD of a slot go */
    struct acpi_pm_ports pm;
    uint16_t reset_port;
    uint8_t reset_value;
    struct acpi_uart uart[ACPI_MAX_UARTS];
    unsigned uart_count;
    uint16_t rtc_port;
    uint8_t rtc_irq, rtc_century; /* the CMOS index of the century */
    uint16_t pit_port, pic_port[2], elcr_port;
    uint16_t keyboard_port[2];
    uint8_t keyboard_irq, mouse_irq;
    uint16_t parallel_port; /* 0: none */
    uint8_t parallel_irq;
    uint16_t dma_port[3]; /* channels 0 to 3, page registers, channels 4 to 7; 0, 0, 0: none */
    uint32_t tpm_base, tpm_size_bytes; /* base 0: none */
    uint32_t tpm_control;              /* of its command and response buffer; 0: a FIFO */
    uint16_t floppy_port;              /* 0: none */
    uint16_t fw_cfg_port;
    uint8_t floppy_irq, floppy_dma;
    uint8_t floppy_type[2]; /* as in CMOS memory; 0: no such drive */
};

enum { ACPI_RSDP_BYTES = 36, ACPI_TABLES_AT = 64, ACPI_MAX_POINTERS = 24, ACPI_MAX_TABLES = 10 };

/* Where the addresses of tables are, and what has a checksum, but for the RSDP: for whoever puts
 * them elsewhere. Offsets count from the start of what acpi_build() made; tables begin at
 * ACPI_TABLES_AT. */
struct acpi_links {
    struct {
        uint32_t at;
        uint8_t size_bytes;
    } pointer[ACPI_MAX_POINTERS];
    unsigned pointer_count;
    struct {
        uint32_t start, size_bytes;
    } table[ACPI_MAX_TABLES];
    unsigned table_count;
};
enum { ACPI_CHECKSUM_AT = 9 }; /* in a table */

/* Composes the tables for guest address `gpa` (a multiple of 64) into `out`, which must be empty;
 * the RSDP is its start. `links` may be NULL. Fails only when out of memory or when they exceed
 * `limit_bytes`. */
bool acpi_build(const struct acpi_config *config, uint64_t gpa, size_t limit_bytes,
                struct bytes *out, struct acpi_links *links, struct error *err);

/* The body of the DSDT; for acpi.c. */
void acpi_dsdt(const struct acpi_config *config, struct bytes *aml);

#endif
