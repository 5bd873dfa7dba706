/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The board: an Intel Q35 PC. It alone knows at which address and on which interrupt each chip is,
 * and tells ACPI and SMBIOS. Belongs to the machine's thread unless a function says otherwise.
 */
#ifndef SKEP_MACHINE_Q35_H
#define SKEP_MACHINE_Q35_H

#include "base/error.h"
#include "base/log.h"
#include "bus/block.h"
#include "bus/bus.h"
#include "bus/char.h"
#include "bus/clock.h"
#include "bus/device.h"
#include "bus/irq.h"
#include "bus/physmap.h"
#include "bus/ram.h"
#include "bus/stream.h"
#include "bus/tpm.h"
#include "cpu/engine.h"
#include "dev/fw_cfg.h"
#include "dev/pci.h"
#include "dev/pflash.h"
#include "dev/virtio/virtio.h"
#include "machine/input.h"
#include "machine/memory_map.h"
#include "machine/vcpus.h"

#include <stdbool.h>
#include <stdint.h>

enum { Q35_MAX_UARTS = 4, Q35_MIN_UARTS = 2 };

/* What can be plugged into PCI slots, each kind into places of its own, so that a disk more doesn't
 * rename the network card. Q35_DISK is for those that are PCI functions themselves; the others hang
 * on a controller. */
enum q35_plug_kind {
    Q35_NET,
    Q35_CONSOLE,
    Q35_RNG,
    Q35_BALLOON,
    Q35_DISK,
    Q35_GRAPHICS,
    Q35_XHCI,
    Q35_SCSI,
    Q35_INPUT,
    Q35_AHCI,
    Q35_IDE,
};

/* A place for a PCI function, and what it is wired to there. */
struct q35_place {
    struct pci_bus *pci;
    unsigned slot, function;
    struct msi_sink msi;
    const void *rom; /* what is put there gets a copy as its expansion ROM; NULL: none */
    size_t rom_bytes;
};

/* On any thread, also with a device's lock held. */
struct q35_callbacks {
    void (*reset)(void *opaque);
    void (*power_off)(void *opaque);
    void (*sleep)(void *opaque); /* ACPI's S3: all but memory goes off; then wake, when it ends */
    void (*wake)(void *opaque);
    void (*exit)(void *opaque, uint32_t value);
    void *opaque;
};

/* What the processor starts in; the memory is the caller's, until no vCPU runs any more. */
struct q35_firmware {
    uint8_t *rom; /* ends at 4 GiB; NULL: none, the board is set up as firmware leaves it */
    uint64_t rom_bytes;
    /* The board is as after power-on, and firmware sets it up and takes ACPI and SMBIOS tables from
     * fw_cfg. Otherwise the ROM is a program that finds the chipset set up but for PCI. */
    bool is_setting_up;
    uint8_t *variables; /* flash below the ROM; NULL: none */
    uint64_t variables_bytes;
    struct pflash_store store;
};

struct q35_config {
    const struct engine *engine;
    struct engine_vm *vm;
    struct vcpus *vcpus;
    unsigned vcpu_count;
    struct engine_topology topology;
    struct ram *ram;
    struct physmap *physmap; /* with RAM in it */
    struct bus *bus;
    struct clock *clock;
    const struct log *log; /* may be NULL */
    struct q35_firmware firmware;
    uint8_t uuid[16];
    bool rtc_is_local; /* the RTC starts with the host's local time instead of UTC */
    /* Back ends are the caller's and outlive the board; NULL: none. */
    const struct char_backend *uart[Q35_MAX_UARTS];
    unsigned uart_count; /* Q35_MIN_UARTS … Q35_MAX_UARTS */
    const struct char_backend *debugcon;
    uint16_t debugcon_port; /* 0: the customary one */
    const struct char_backend *post;
    const struct char_backend *parallel; /* NULL: no parallel port */
    const struct tpm_backend *tpm;       /* NULL: no TPM */
    bool tpm_is_tis;
    /* Drives of the floppy controller; none: there is no controller. */
    struct {
        bool is_there;
        const struct block_backend *medium; /* NULL: it is empty */
        const char *name;                   /* of its image, for a message */
    } floppies[2];
    bool parallel_ignores_strobe;
    bool has_exit_port;
    uint16_t exit_port; /* 0: the customary one */
    bool has_testdev;
    struct q35_callbacks callbacks;
};

struct ata_drive;
struct q35;
struct vga;

struct q35 *q35_create(const struct q35_config *config, struct error *err);
void q35_destroy(struct q35 *board); /* NULL is fine */

/* The place of number `index` of a kind; asserts that there are so many. */
struct q35_place q35_place(struct q35 *board, enum q35_plug_kind kind, unsigned index);
/* The place of that slot and function, which may be taken: the device's create() tells. */
struct q35_place q35_place_at(struct q35 *board, uint8_t devfn);
/* Hands over a device that was made for that place: it is reset, saved, loaded and destroyed with
 * the board. */
void q35_adopt(struct q35 *board, const struct q35_place *place, const struct device_ops *ops,
               void *device);

/* Puts a virtio device, which it takes over, into a place. */
bool q35_plug(struct q35 *board, const struct q35_place *place, struct virtio_device *device,
              struct error *err);

/* What a monitor likes best where nobody has said so. */
enum { Q35_SCREEN_WIDTH = 1280, Q35_SCREEN_HEIGHT = 800 };

/* The VGA: it has ports and a window of its own beside its place. 0 in any of these: a sound
 * default. NULL: `err` tells why. The board's. */
struct q35_vga {
    uint32_t memory_bytes;
    uint32_t width, height; /* what the monitor likes best */
    const void *rom;        /* its BIOS; NULL: none */
    size_t rom_bytes;
};
struct vga *q35_plug_vga(struct q35 *board, const struct q35_vga *vga, struct error *err);
/* Kinds of boot devices in PC firmware's order, for a BIOS that has no list of devices: 1 floppy, 2
 * hard disk, 3 CD-ROM, 4 network; 0 ends it. */
void q35_set_boot_order(struct q35 *board, const uint8_t kinds[3]);

/* The IDE controller, with its four drives, which it takes over; NULL: none there. */
bool q35_add_ide(struct q35 *board, struct ata_drive *const drives[4], struct error *err);

/* After the last q35_plug: composes the tables. */
bool q35_finish(struct q35 *board, struct error *err);

/* All devices as after power-on, while no vCPU runs. */
void q35_reset(struct q35 *board);

/* What firmware would leave behind, in memory that is clear: tables, places of BARs. Gives the
 * memory map and where the ACPI tables are. */
bool q35_boot(struct q35 *board, struct memory_map *map, uint64_t *rsdp_gpa, struct error *err);

/* The same map by itself. */
void q35_memory_map(const struct q35 *board, struct memory_map *map);

/* What firmware is told by; the machine fills it. */
struct fw_cfg *q35_fw_cfg(struct q35 *board);

/* Where keys and pointer go in; devices that take input are added to it as they are plugged. */
struct input *q35_input(struct q35 *board);

/* Takes the disk out of a floppy drive (NULL), or puts another one in, which is the caller's; on
 * return the old one is not used any more. False: the drive does not take it. */
bool q35_change_floppy(struct q35 *board, unsigned drive, const struct block_backend *medium);

void q35_press_power_button(struct q35 *board); /* any thread */

/* Of ACPI's S3, with all vCPUs stopped. */
bool q35_is_asleep(struct q35 *board);
/* The board as firmware leaves it when it wakes, memory kept. False: BARs can't be placed. */
bool q35_wake(struct q35 *board, struct error *err);
/* Where in real mode the guest goes on, which it has written into the FACS; 0: it has not. */
uint32_t q35_waking_vector(const struct q35 *board);

/* The local APICs and the I/O APIC, of which no other thing is told; while no vCPU runs and time
 * stands still. False: the engine does not tell. */
bool q35_irqchip_state(struct q35 *board, struct irqchip_state *state);

void q35_save(struct q35 *board, struct save *save);
/* Devices are told apart by their names, in the order in which they were made. */
bool q35_load(struct q35 *board, struct load *load, struct error *err);
void q35_kick_all(struct q35 *board); /* after q35_load, when vCPUs are about to run */

/* What a processor without a local APIC of its own asks the board; `opaque` is to be a
 * struct q35 ** that is set before vCPUs run. */
struct engine_hooks q35_hooks(struct q35 **board);

#endif
