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
#include "bus/ram.h"
#include "host/chardev.h"
#include "machine/boot.h"
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
};

/* What vCPU threads ask of the loop's thread, in the order of their weight. */
enum machine_request {
    REQUEST_QUIT = 1 << 0,
    REQUEST_FAILED = 1 << 1,
    REQUEST_EXIT = 1 << 2,
    REQUEST_POWER_OFF = 1 << 3,
    REQUEST_RESET = 1 << 4,
};

struct machine {
    struct machine_config config;
    struct loop *loop;
    const struct log *log;
    machine_finished_fn *finished;
    void *opaque;

    const struct engine *engine;
    struct engine_vm *vm;
    struct ram *ram;
    struct bus *bus;
    struct clock *clock;
    struct vcpus *vcpus;
    struct q35 *board;
    struct backends backends;
    struct virtio_device *console; /* the board's; NULL: none */
    struct boot_rom rom;
    struct boot_file *kernel; /* NULL: only a ROM */
    struct boot_file *initrds[MACHINE_MAX_INITRDS];
    unsigned initrd_count;
    struct boot_config fw_boot; /* what the firmware configuration device reads from */
    struct memory_map fw_map;
    char *module_texts[MACHINE_MAX_INITRDS]; /* of a Multiboot kernel */

    int request_fd; /* an eventfd: there are requests */
    struct loop_watch *request_watch;
    atomic_uint requests; /* of enum machine_request; any thread */
    pthread_mutex_t request_lock;
    struct error failure; /* under request_lock: the first one */
    uint32_t exit_value;  /* under request_lock: the first one */

    bool is_running; /* started and not paused */
    bool is_finished;
    bool needs_kick; /* loaded: queues are to be looked at when it starts */
    unsigned reboots;
};

/* Opens the back ends that the configuration names. Those that are open after a failure are closed
 * by backends_close(). */
bool backends_open(struct machine *machine, struct error *err);
/* Makes the virtio devices on them. */
bool backends_plug(struct machine *machine, struct error *err);
void backends_drain(struct machine *machine);
void backends_close(struct machine *machine);
const struct char_backend *backends_char(const struct machine_char *one); /* NULL: there is none */

#endif
