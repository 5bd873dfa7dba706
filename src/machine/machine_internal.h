/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The machine's parts as its own files see them: machine.c (life), backends.c (what the host
 * gives), snapshot.c (save and load). Private to src/machine.
 */
#ifndef SKEP_MACHINE_MACHINE_INTERNAL_H
#define SKEP_MACHINE_MACHINE_INTERNAL_H

#include "bus/block.h"
#include "bus/bus.h"
#include "bus/char.h"
#include "bus/clock.h"
#include "bus/net.h"
#include "bus/physmap.h"
#include "bus/ram.h"
#include "bus/tpm.h"
#include "host/chardev.h"
#include "host/nvram.h"
#include "machine/boot.h"
#include "machine/boot_disk.h"
#include "machine/boot_rom.h"
#include "machine/machine.h"
#include "machine/q35.h"
#include "machine/vcpus.h"

#include <pthread.h>
#include <stdatomic.h>

struct machine_char {
    struct char_backend backend;
    struct chardev *chardev; /* NULL: none */
};

/* Host back ends; a disk or net that isn't open has close == NULL. */
struct backends {
    struct block_backend disk[MACHINE_MAX_DISKS];
    struct net_backend net[MACHINE_MAX_NETS];
    struct machine_char serial[MACHINE_MAX_SERIALS];
    struct machine_char console[MACHINE_MAX_CONSOLES];
    struct machine_char debugcon;
    struct machine_char post;
    struct machine_char parallel;
    struct tpm_backend tpm; /* close == NULL: none */
};

/* What vCPU threads ask of the loop's thread, in the order of their weight. */
enum machine_request {
    REQUEST_QUIT = 1 << 0,
    REQUEST_FAILED = 1 << 1,
    REQUEST_EXIT = 1 << 2,
    REQUEST_POWER_OFF = 1 << 3,
    REQUEST_RESET = 1 << 4,
    REQUEST_DEBUG = 1 << 5, /* a vCPU has stopped for the debugger */
    REQUEST_SLEEP = 1 << 6, /* ACPI's S3 */
    REQUEST_WAKE = 1 << 7,
    REQUEST_HALTED = 1 << 8, /* the vCPUs may have halted for good: it is to be looked at */
};

struct machine_debug;
struct screen;
struct vnc;
struct scsi_lun;

struct machine {
    struct machine_config config;
    struct loop *loop;
    const struct log *log;
    machine_finished_fn *finished;
    void *opaque;

    const struct engine *engine;
    struct engine_vm *vm;
    struct ram *ram;
    struct physmap *physmap;
    struct bus *bus;
    struct clock *clock;
    struct vcpus *vcpus;
    struct q35 *board;
    struct backends backends;
    struct vnc *vnc;                            /* NULL: nobody looks that way */
    struct screen *screen;                      /* NULL: there is no graphics device */
    struct virtio_device *console;              /* the board's; NULL: none */
    struct virtio_device *balloon;              /* the same */
    struct scsi_lun *cdroms[MACHINE_MAX_DISKS]; /* by number of the disk; the board's */
    char *media[MACHINE_MAX_DISKS];             /* paths of those that were put in later, ours */
    struct boot_rom rom;
    struct nvram *nvram;         /* NULL: no file of variables */
    struct boot_rom variables;   /* those without a file, as they are at each start */
    struct boot_file *kernel;    /* NULL: only a ROM */
    struct boot_disk disk_files; /* with kernel_from_disk: kernel and initrds are its */
    struct boot_file *initrds[MACHINE_MAX_INITRDS];
    unsigned initrd_count;
    struct boot_config fw_boot; /* what the firmware configuration device reads from */
    struct memory_map fw_map;
    char *module_texts[MACHINE_MAX_INITRDS]; /* of a Multiboot kernel */

    int request_fd; /* an eventfd: there are requests */
    struct loop_watch *request_watch;
    atomic_uint requests;         /* of enum machine_request; any thread */
    atomic_bool has_triple_fault; /* it is why a reset was asked for */
    pthread_mutex_t request_lock;
    struct error failure; /* under request_lock: the first one */
    uint32_t exit_value;  /* under request_lock: the first one */

    struct loop_timer *halt_watch; /* NULL: the engine tells */
    uint64_t halt_watched_ns;

    struct machine_debug *debug; /* NULL: nobody debugs the guest */

    bool is_running; /* started and not paused */
    bool is_halted;  /* for good, as halt.c tells it */
    bool is_asleep;  /* in ACPI's S3: no vCPU runs until it wakes */
    bool is_finished;
    bool needs_kick; /* loaded: queues are to be looked at when it starts */
    unsigned reboots;
};

/* kernel.c: opens what the configuration names. What is open after a failure is closed by
 * kernel_close(). */
bool kernel_open(struct machine *machine, struct error *err);
void kernel_close(struct machine *machine);
/* With kernel_from_disk: reads it, instead of what was read before. */
bool kernel_read_disk(struct machine *machine, struct error *err);

/* Has it done on the loop's thread. Any thread. */
void machine_request(struct machine *machine, enum machine_request what);

/* debug.c: with all vCPUs paused, REQUEST_DEBUG and a restart. */
void machine_debug_stopped(struct machine *machine);
/* debug.c: the machine is about to run again; what it could not tell while paused is told. */
void machine_debug_running(struct machine *machine);
/* debug.c: memory as the guest has it, without a debugger's INT3s, and with them again. */
void machine_debug_hide(struct machine *machine);
void machine_debug_show(struct machine *machine);
void machine_debug_restarted(struct machine *machine);
/* On the vCPU's thread: it has met a triple fault. True: the debugger is to look at it first. */
bool machine_debug_shutdown(struct machine *machine, unsigned vcpu);

/* halt.c: with all vCPUs paused, whether all have halted with interrupts off. Not said while a
 * debugger is attached, who may change that. */
bool halt_is_possible(struct machine *machine);
/* halt.c: whether nothing else gets them out of it either but a reset; with the machine paused. */
bool halt_is_final(struct machine *machine);
/* halt.c: an engine that does not tell when it may be so is watched; the machine's timer. */
bool halt_watch_open(struct machine *machine, struct error *err);

/* boot_order.c: tells firmware by fw_cfg and CMOS what to boot. */
bool boot_order_tell(struct machine *machine, struct error *err);

/* Opens the back ends that the configuration names. Those that are open after a failure are closed
 * by backends_close(). */
bool backends_open(struct machine *machine, struct error *err);
/* Makes the virtio devices on them. */
bool backends_plug(struct machine *machine, struct error *err);
/* The function that a disk or a network card is, or hangs on. */
struct q35_place backends_disk_place(struct machine *machine, unsigned disk);
struct q35_place backends_net_place(struct machine *machine, unsigned net);
void backends_drain(struct machine *machine);
/* The same, and what was written is on the disks. */
bool backends_flush(struct machine *machine, struct error *err);

/* Opens an image as the medium of this disk or drive; out->close frees it. */
bool backends_open_disk(struct machine *machine, unsigned index, const char *path,
                        struct block_backend *out, struct error *err);
void backends_close(struct machine *machine);
const struct char_backend *backends_char(const struct machine_char *one); /* NULL: there is none */

/* plug_input.c: the input devices beside the board's own, but USB ones. */
bool plug_input(struct machine *machine, struct error *err);
/* plug_usb.c: the USB controller with all that is on it, if something is. */
bool plug_usb(struct machine *machine, struct error *err);
/* display.c: where viewers come from, as a part of backends_open(); the graphics device and its
 * screen, as one of backends_plug(); and, before the board goes, the end of both. */
bool display_open(struct machine *machine, struct error *err);
bool display_plug(struct machine *machine, struct error *err);
void display_close(struct machine *machine);

/* What was asked for before the machine was paused: it is then done, or the machine has ended. */
void machine_serve_requests(struct machine *machine);

/* Those of a machine that runs, unless it is asleep. */
void machine_resume_vcpus(struct machine *machine);

uint64_t snapshot_tsc_hz(const struct machine *machine); /* 0: booted, or not known */
/* Steps of making a machine that was saved, in this order; snapshot.c. */
bool snapshot_take_shape(struct machine *machine, struct error *err);
bool snapshot_check_rom(const struct machine *machine, struct error *err);
bool snapshot_map_memory(struct machine *machine, struct error *err);
bool snapshot_load(struct machine *machine, struct error *err);

#endif
