/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A virtual machine: a Q35 board with its processors, memory, devices and what backs them on the
 * host. Every function belongs to the loop's thread unless it says otherwise.
 */
#ifndef SKEP_MACHINE_MACHINE_H
#define SKEP_MACHINE_MACHINE_H

#include "base/error.h"
#include "base/log.h"
#include "base/loop.h"
#include "bus/input.h"
#include "cpu/engine.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    MACHINE_MAX_VCPUS = ENGINE_MAX_VCPUS,
    MACHINE_MAX_HOST_CPU = 1023, /* the last that can be named */
    MACHINE_MAX_INITRDS = 16,
    MACHINE_MAX_BOOTS = 4,
    MACHINE_MAX_DISKS = 22,
    MACHINE_MAX_FLOPPIES = 2,
    MACHINE_MAX_NETS = 4,
    MACHINE_MAX_FORWARDS = 64, /* a network card */
    MACHINE_MAX_SERIALS = 4,
    MACHINE_MAX_CONSOLES = 8,
    MACHINE_LAST_DEVFN = 31 << 3 | 7,
    MACHINE_MIN_MEMORY_BYTES = 16 << 20,
    MACHINE_MIN_VGA_MEMORY_BYTES = 1 << 20,
    MACHINE_MAX_VGA_MEMORY_BYTES = 256 << 20,
    MACHINE_MIN_SCREEN = 64, /* either way, in pixels */
    MACHINE_MAX_SCREEN = 4095,
};

/* What a disk is attached to. */
enum machine_disk_bus {
    MACHINE_DISK_VIRTIO,
    MACHINE_DISK_NVME,
    MACHINE_DISK_SCSI,   /* on one virtio SCSI host */
    MACHINE_DISK_FLOPPY, /* a disk in a floppy drive */
    MACHINE_DISK_AHCI,
    MACHINE_DISK_IDE,
    MACHINE_DISK_USB, /* mass storage on the xHCI controller */
    MACHINE_DISK_BUSES
};

struct machine_disk {
    const char *path; /* NULL: a CD-ROM or floppy drive with nothing in it */
    bool is_cdrom;    /* a drive for ISO images, which is read-only */
    enum machine_disk_bus bus;
    const char *serial; /* what the guest sees as the disk's id, up to 20 bytes; may be NULL */
    bool read_only;
    bool is_surely_raw; /* do not look for the marks of other formats */
    uint8_t devfn;      /* where it is a PCI function: slot << 3 | function; 0: the usual place */
};

enum machine_boot {
    MACHINE_BOOT_DISK,
    MACHINE_BOOT_CDROM,
    MACHINE_BOOT_NET,
    MACHINE_BOOT_FLOPPY,
    MACHINE_BOOTS
};

struct machine_forward {
    bool is_udp;
    const char *host_address; /* NULL: 127.0.0.1 */
    uint16_t host_port, guest_port;
};

struct machine_console {
    const char *name;  /* of a byte channel, /dev/virtio-ports/NAME; NULL: a terminal, /dev/hvcN */
    const char *where; /* as host/chardev.h reads it; not NULL */
};

enum machine_net_kind { MACHINE_NET_USER, MACHINE_NET_TAP };

/* The card that the guest sees. */
enum machine_net_model {
    MACHINE_NET_VIRTIO,
    MACHINE_NET_E1000,  /* Intel 82545EM */
    MACHINE_NET_E1000E, /* Intel 82574L */
    MACHINE_NET_MODELS,
};

/* As the command line and a saved machine name it; NULL beyond the last. */
const char *machine_net_model_name(enum machine_net_model model);

struct machine_net {
    enum machine_net_kind kind;
    enum machine_net_model model;
    const char *tap_name;                   /* of MACHINE_NET_TAP; NULL: tap_fd is used */
    int tap_fd;                             /* an open tap, given away */
    const struct machine_forward *forwards; /* of MACHINE_NET_USER */
    unsigned forward_count;
    /* Of MACHINE_NET_USER: the folder that the network's TFTP server gives out, and the file in it
     * that DHCP tells of; NULL: none. */
    const char *tftp, *bootfile;
    const char *http; /* the folder that it gives out by HTTP; NULL: none */
    uint8_t mac[6];   /* all zero: one is chosen by number */
    uint8_t devfn;    /* as of a disk */
};

/* The graphics device. */
enum machine_vga { MACHINE_VGA_NONE, MACHINE_VGA_STD, MACHINE_VGA_VIRTIO, MACHINE_VGAS };

/* Where the screen is shown. */
struct machine_display {
    const char *vnc;           /* as host/vnc.h reads it; NULL: nowhere */
    const char *password_file; /* NULL: none is asked for */
    const char *keymap;        /* the layout that the guest is set to, by XKB's name; NULL: us */
};

/* Keyboard and pointer, beside the board's PS/2 ones. */
enum machine_input {
    MACHINE_INPUT_PS2, /* nothing beside them */
    MACHINE_INPUT_USB,
    MACHINE_INPUT_VIRTIO,
    MACHINE_INPUTS,
};

struct machine_saved;

/* All that it points to must stay until machine_destroy(). */
struct machine_config {
    bool counts_instructions;         /* as in engine_config */
    const char *engine;               /* "auto", "soft", "kvm", with ",options"; NULL: auto */
    unsigned vcpu_count;              /* 0: 1 */
    struct engine_topology topology;  /* all zero: one socket, a core each */
    uint16_t pins[MACHINE_MAX_VCPUS]; /* the host's processor that a vCPU stays on, + 1; 0: any */
    uint64_t memory_bytes;
    uint8_t uuid[16]; /* all zero: random */

    /* A ROM to start in at the reset vector: then it gets the kernel, if there is one, by fw_cfg.
     * NULL: the kernel is started. */
    const char *rom;
    /* It is a BIOS or UEFI, which sets the board up and boots from its devices. */
    bool rom_is_firmware;
    const char *nvram;          /* the file of its variables, in flash below it; NULL: none */
    const char *nvram_template; /* what that file is made of the first time; without a file, what
                                   the variables are at each start. NULL: none */
    enum machine_boot boot[MACHINE_MAX_BOOTS]; /* what it tries, in this order; none: as it likes */
    unsigned boot_count;
    bool boot_menu;     /* it asks */
    const char *kernel; /* a bzImage, an ELF vmlinux, or a Multiboot kernel */
    /* A file each; for a Multiboot kernel modules, as "FILE[ ARGUMENTS][,FILE[ ARGUMENTS]]…", where
     * ",," is a comma. */
    const char *initrds[MACHINE_MAX_INITRDS];
    unsigned initrd_count;
    /* Instead of kernel and initrds: what the boot loader of the first disk that has one would
     * boot, read anew each time the guest starts; cmdline is put behind its own. */
    bool kernel_from_disk;
    const char *cmdline; /* NULL: BOOT_LINUX_CMDLINE; for a Multiboot kernel nothing */

    struct machine_disk disks[MACHINE_MAX_DISKS];
    unsigned disk_count;
    struct machine_net nets[MACHINE_MAX_NETS];
    unsigned net_count;
    /* Where they go, as host/chardev.h reads them; NULL: nowhere. Serial ports 1 and 2 are there in
     * any case. */
    const char *serials[MACHINE_MAX_SERIALS];
    unsigned serial_count;
    const char
        *serial_logs[MACHINE_MAX_SERIALS]; /* files that get what they put out, too; or NULL */
    struct machine_console consoles[MACHINE_MAX_CONSOLES]; /* ports of one virtio console */
    unsigned console_count;
    const char *debugcon;         /* NULL: none */
    uint16_t debugcon_port;       /* 0: 0xe9 */
    const char *post;             /* ports 0x80 and 0x190; NULL: what is written there is dropped */
    const char *parallel;         /* the parallel port; NULL: there is none */
    bool parallel_ignores_strobe; /* prints all that is written to its data register */

    enum machine_vga vga;
    uint32_t vga_memory_bytes;            /* of MACHINE_VGA_STD; 0: 16 MiB */
    uint32_t screen_width, screen_height; /* what the monitor likes best; 0: 1280x800 */
    struct machine_display display;
    enum machine_input input;

    const char *tpm; /* "unix:PATH" of swtpm's control socket; NULL: the machine has no TPM */
    bool tpm_is_tis; /* its interface is a FIFO (TIS), not a command and response buffer */

    bool no_balloon, no_rng;
    uint8_t rng_devfn;        /* as of a disk */
    enum cpu_level cpu_level; /* what CPUID tells of */
    bool rtc_is_local;        /* the RTC starts with the host's local time instead of UTC */
    bool stray_port_fails;    /* a port access that no device answers is a failure */
    bool no_reboot;           /* a reboot ends the machine */
    bool halt_ends;           /* a guest that halts for good does, too */
    bool has_exit_port;
    uint16_t exit_port; /* 0: 0xf4 */
    bool has_testdev;

    /* NULL: it is booted. Otherwise it goes on where this one was saved: of the above, processors,
     * memory (0: as saved) and uuid are taken from there, the rest must make the same devices. */
    const struct machine_saved *saved;
    bool trust_disks; /* although they seem to have changed since */

    /* Callbacks on the loop's thread; either may be NULL: the key after the terminal's escape, and
     * that the guest has halted for good, with all processors in HLT and interrupts off, so that
     * only a reset helps. */
    void (*escape)(void *opaque, char key);
    void (*halted)(void *opaque);
    void *opaque;
};

enum machine_end_reason {
    MACHINE_POWERED_OFF,
    MACHINE_REBOOTED, /* with no_reboot: it is stopped where it wanted to start again */
    MACHINE_HALTED,   /* with halt_ends */
    MACHINE_QUIT,     /* machine_quit() */
    MACHINE_EXIT_PORT,
    MACHINE_FAILED,
};

struct machine_end {
    enum machine_end_reason reason;
    uint32_t exit_value; /* of MACHINE_EXIT_PORT */
    bool triple_fault;   /* of MACHINE_REBOOTED: what made it reset itself */
    struct error error;  /* of MACHINE_FAILED */
};

struct machine_stats {
    uint64_t uptime_ns; /* guest time since it was made */
    unsigned reboots;
    struct engine_stats engine;
};

struct machine;

/* On the loop's thread, once. The vCPUs stand still; only stats, info and destroy make sense
 * after. */
typedef void machine_finished_fn(void *opaque, const struct machine_end *end);

/* As options and saved machines call it. */
const char *machine_vga_name(enum machine_vga vga);
bool machine_vga_find(const char *name, enum machine_vga *vga); /* false: there is none */
const char *machine_input_name(enum machine_input kind);
bool machine_input_find(const char *name, enum machine_input *kind); /* false: there is none */
bool machine_cpu_find(const char *name, enum cpu_level *level);      /* false: there is none */
const char *machine_disk_bus_name(enum machine_disk_bus bus);
const char *machine_boot_name(enum machine_boot boot);
bool machine_boot_find(const char *name, enum machine_boot *boot);
/* What booting from this disk or drive is called. */
enum machine_boot machine_boot_of(const struct machine_disk *disk);
/* False: there is none of this name. */
bool machine_disk_bus_find(const char *name, enum machine_disk_bus *bus);

/* Builds the machine, opens what backs it, loads the kernel. Nothing runs yet. NULL: `err` tells
 * why, and nothing is left behind. `loop` and `log` (may be NULL) must outlive it. */
struct machine *machine_create(const struct machine_config *config, struct loop *loop,
                               const struct log *log, machine_finished_fn *finished, void *opaque,
                               struct error *err);
void machine_destroy(struct machine *machine); /* NULL is fine; not from `finished` */

void machine_start(struct machine *machine);
void machine_pause(struct machine *machine); /* time stands still too */
void machine_resume(struct machine *machine);

/* These ask; what they ask for happens soon. Any thread. */
void machine_power_button(struct machine *machine);
void machine_reset(struct machine *machine);
void machine_quit(struct machine *machine);

/* Puts an ISO image into a CD-ROM drive in place of what is in it, or takes that out (`path` NULL).
 * Drives are "cdrom0" …, in the order of their options; NULL is the first. A guest that has locked
 * the drive is only told that the medium is wanted, and it is a failure, unless `is_forced`. */
bool machine_change_medium(struct machine *machine, const char *drive, const char *path,
                           bool is_forced, struct error *err);

/* What the guest has told of its memory by the balloon. */
enum machine_memory {
    MACHINE_MEMORY_ACTUAL, /* what it has, without what it has given back */
    MACHINE_MEMORY_FREE,
    MACHINE_MEMORY_AVAILABLE, /* without swapping */
    MACHINE_MEMORY_CACHE,
    MACHINE_MEMORIES,
};

/* The guest is to have so much of its memory; it gives the rest back to the host as far as it can
 * spare it. Any thread. False: there is no balloon, or it is more than the guest was started with.
 */
bool machine_set_balloon(struct machine *machine, uint64_t size_bytes, struct error *err);
/* In bytes, as the guest told it last, which it is asked for anew; -1: it has not told. Any thread.
 * False: there is no balloon. */
bool machine_get_balloon(struct machine *machine, int64_t values[MACHINE_MEMORIES],
                         struct error *err);

/* With kernel_from_disk, what was found: a line for a person. NULL otherwise. */
const char *machine_boot_summary(const struct machine *machine);

/* Text for a person, in lines, cut to fit; returns its length. */
size_t machine_info(struct machine *machine, char *text, size_t size_bytes);
void machine_stats(struct machine *machine, struct machine_stats *stats);
const char *machine_engine_name(const struct machine *machine);
unsigned machine_vcpu_count(const struct machine *machine);
const char *
machine_state(const struct machine *machine); /* "running", "halted", "asleep", "paused", "ended" */
const struct machine_config *machine_configuration(const struct machine *machine);

/* Whether a serial port or console is on the terminal, and keys go to the guest as they come. */
bool machine_has_terminal(const struct machine *machine);
/* Writes text between what the guest writes there; false when nothing of the guest is there. */
bool machine_print(struct machine *machine, const char *text);
/* The process was stopped and goes on: sets the terminal anew. */
void machine_terminal_resume(struct machine *machine);
/* The terminal's window has another size. */
void machine_terminal_resized(struct machine *machine);

/* Where a serial port or console is to be reached (a pty's name, an address); NULL: nowhere. */
const char *machine_serial_path(const struct machine *machine, unsigned index);
const char *machine_console_path(const struct machine *machine, unsigned index);

/* ---- input: bus/input.h; any thread ---- */

/* A key goes down (or, while it is down, repeats) or up; by Linux's numbers. */
void machine_key(struct machine *machine, unsigned key, bool is_down);
/* The pointer's state after it has changed: a viewer gives positions, whatever the device wants. */
void machine_pointer(struct machine *machine, const struct input_pointer *pointer);
/* Whether the guest's pointer goes where it is told to; otherwise it gets movement only. */
bool machine_pointer_is_absolute(struct machine *machine);
/* All keys and buttons go up: whoever held them is gone. */
void machine_release_input(struct machine *machine);

/* ---- the screen ---- */

/* Writes what it shows to a PNG file. Fails where there is none, or no libpng. */
bool machine_screenshot(struct machine *machine, const char *path, struct error *err);
/* Where VNC is served, as "127.0.0.1:5901" or "unix:PATH"; NULL: nowhere. */
const char *machine_vnc_address(const struct machine *machine);

/* ---- saved machines: docs/snapshot.md ---- */

typedef void machine_progress_fn(void *opaque, uint64_t done_bytes, uint64_t total_bytes);

/* Writes the whole machine to a file, on to the disk; afterwards it goes on as before, whether that
 * worked or not. Takes as long as the disk does, on the calling thread. `progress` may be NULL. */
bool machine_save(struct machine *machine, const char *path, machine_progress_fn *progress,
                  void *opaque, struct error *err);

/* Opens such a file. What it holds is not trusted: all of it is checked, the memory by
 * machine_create(). While a machine runs that was made from it, it must not be changed in place (a
 * new one may take its name, and it may be removed). */
struct machine_saved *machine_saved_open(const char *path, struct error *err);
void machine_saved_close(struct machine_saved *saved); /* NULL is fine; the mapping stays */
/* As it was made; strings live as long as `saved`. */
const struct machine_config *machine_saved_config(const struct machine_saved *saved);

/* When it is destroyed, peers of the user network's connections see them reset instead of closed:
 * it is to go on elsewhere, without them. */
void machine_reset_connections(struct machine *machine);

/* ---- engines, for `skep doctor` ---- */

enum { MACHINE_MAX_ENGINES = 8 };

struct machine_engine {
    const char *name;
    bool is_chosen; /* by auto */
    struct engine_probe probe;
};

/* Probes all engines of this build; returns their number. */
unsigned machine_engines(struct machine_engine engines[MACHINE_MAX_ENGINES]);

#endif
