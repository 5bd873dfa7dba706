/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The board as its own files see it: q35.c has the chips and their places, q35_wiring.c interrupts,
 * q35_tables.c what firmware and kernels are told, q35_state.c reset, save and load, q35_hooks.c
 * what a processor asks. Addresses and interrupt numbers are here and nowhere else. Private to
 * them.
 */
#ifndef SKEP_MACHINE_Q35_INTERNAL_H
#define SKEP_MACHINE_Q35_INTERNAL_H

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
#include "machine/mptable.h"
#include "machine/smbios.h"

#include <pthread.h>

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
    SMBIOS_BYTES = 0xf000,
    MPTABLE_GPA = 0xff000, /* where it is looked for: 0xf0000 to 0xfffff */
    MPTABLE_BYTES = 0x1000,
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

/* ---- PCI slots ---- */

enum { SLOT_HOST = 0, SLOT_LPC = 31, DEVICES_MAX = 80 };

enum { DEVICE_LABEL_BYTES = 32 };
enum { SLEEP_TYPE_S3 = 1, SLEEP_TYPE_S5 = 7, RESET_VALUE = 6, IOAPIC_ID = 0, RTC_CENTURY = 0x32 };
enum { CMOS_CPUS_BUT_ONE = 0x5f };

enum { Q35_IRQCHIPS = 4 };

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
    _Atomic uint32_t gsi_levels;      /* and their levels */
    struct irqchip_state *irqchip;    /* and its state, while it is saved or loaded */
    struct device_ops irqchip_ops[Q35_IRQCHIPS];
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
    struct bytes acpi, smbios, mptable;
};

extern const struct acpi_uart q35_uarts[Q35_MAX_UARTS];

/* ---- q35_wiring.c ---- */

/* The wire of an ISA interrupt; users who share it have numbers of their own. */
struct irq_line q35_isa_line_shared(struct q35 *board, unsigned irq, unsigned user);
struct irq_line q35_isa_line(struct q35 *board, unsigned irq);
/* An input of the I/O APIC, the board's or the engine's. */
void q35_drive_gsi(struct q35 *board, unsigned gsi, bool level);
void q35_set_test_gsi(void *opaque, unsigned gsi, bool level);
struct irq_line q35_route_pci(void *opaque, unsigned slot, unsigned pin);
void q35_pirq_changed(void *opaque, unsigned pirq, unsigned irq);
uint8_t q35_interrupt_line(void *opaque, unsigned slot, unsigned pin);
unsigned q35_slot_pirq(unsigned slot, unsigned pin);

/* Levels of the I/O APIC's inputs as the sources have them, all but HPET's own; input 2 as 0. */
uint32_t q35_wired_gsis(const struct q35 *board);
/* Those of ISA interrupts that only PIRQs raise: they are up where one input of an engine stands
 * for the 8259 pair's, too, and not on an I/O APIC of the board. */
uint32_t q35_pirq_gsis(const struct q35 *board);
/* The line of the 8254, where it is the engine's, as one of the sources of interrupt 0. */
void q35_set_pit_source(struct q35 *board, bool level);

/* ---- q35_irqchip.c ---- */

/* The engine's interrupt controllers as devices: their ops to irqchip_ops, for the board itself. */
bool q35_irqchip_open(struct q35 *board, struct error *err);
void q35_irqchip_close(struct q35 *board);
/* Around the saving of all devices; and behind their loading. */
void q35_irqchip_save_begin(struct q35 *board, struct save *save);
void q35_irqchip_save_end(struct q35 *board);
bool q35_irqchip_load_end(struct q35 *board, struct error *err);

/* ---- q35_state.c ---- */

void q35_reset_but_power(struct q35 *board);

/* ---- q35.c ---- */

/* Whether there is S3: behind a ROM the way back from it would be the ROM's. */
bool q35_has_sleep(const struct q35 *board);

/* What the HPET is made with, and ACPI tells of. */
struct hpet_config q35_hpet_config(struct q35 *board);

#endif
