/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A virtual machine as a command runs it: the loop, the machine on it, signals, its control socket,
 * when it is saved, and the exit code that its end stands for. All functions belong to the calling
 * thread, which becomes the loop's, unless they say otherwise.
 */
#ifndef SKEP_VM_VM_H
#define SKEP_VM_VM_H

#include "base/error.h"
#include "base/log.h"
#include "base/loop.h"
#include "machine/machine.h"

#include <stdbool.h>
#include <stddef.h>

struct typing;
struct vm;

enum { VM_SAVES_MAX = 8 };

/* When the machine is saved by itself. */
struct vm_save_on {
    int signal; /* its number; 0: whatever would press the power button from outside the guest */
    const char *path;
};

struct vm_config {
    struct machine_config machine; /* its callbacks are set by vm_create() */
    /* A GDB server at "[ADDR:]PORT" or "unix:PATH"; NULL: none. */
    const char *gdb;
    bool gdb_waits;   /* the guest starts when a debugger lets it */
    bool gdb_is_i386; /* registers of 32 bits, for symbols of 32 bits */
    /* The key after the terminal's escape (Ctrl-]); while vm_run() runs. May be NULL. */
    void (*key)(void *opaque, struct vm *vm, char key);
    /* SIGINT, SIGTERM or SIGHUP arrived: the first presses the power button, the next ends the
     * machine. Only tells. May be NULL. */
    void (*signalled)(void *opaque, struct vm *vm, bool is_ending);
    /* The guest has halted for good (machine.h). May be NULL. */
    void (*halted)(void *opaque, struct vm *vm);
    bool usr_pauses;     /* SIGUSR1 pauses the machine, SIGUSR2 resumes it, unless they save */
    const char *control; /* as control.h reads it; NULL: there is no control socket */
    /* SIGUSR1 and SIGUSR2 save, and the machine goes on; all else saves and then ends it. */
    struct vm_save_on saves[VM_SAVES_MAX];
    unsigned save_count;
    /* While it is saved because of one of these, and after; `err` NULL: it worked. Otherwise it
     * goes on. Either may be NULL. */
    void (*saving)(void *opaque, uint64_t done_bytes, uint64_t total_bytes);
    void (*saved)(void *opaque, const char *path, const struct error *err);
    void *opaque;
};

/* Makes loop and machine; nothing runs yet. What `config` points to must stay until vm_destroy().
 * NULL: `err` tells why. */
struct vm *vm_create(const struct vm_config *config, const struct log *log, struct error *err);
void vm_destroy(struct vm *vm); /* NULL is fine; gives the terminal back */

/* Runs the machine until it ends, fills `end` and returns the exit code: 0 when the guest powered
 * off, rebooted under no_reboot, halted under halt_ends, or vm_quit() was called; (value << 1) | 1
 * for the exit port (its low 8 bits, as the system has it); 1 when it failed. A signal that ended
 * it at once gives 128 + its number. */
int vm_run(struct vm *vm, struct machine_end *end);

/* Where the GDB server listens, as GDB's `target remote` takes it; NULL: there is none. */
const char *vm_gdb_address(const struct vm *vm);

struct loop *vm_loop(struct vm *vm);
struct machine *vm_machine(struct vm *vm);

struct typing *vm_typing(struct vm *vm); /* types into it: vm/typing.h */

/* Saves the machine (machine.h) and, with `stops`, ends it if that worked. */
bool vm_save(struct vm *vm, const char *path, bool stops, machine_progress_fn *progress,
             void *opaque, struct error *err);

/* Presses the power button, unless it is configured to be saved instead. */
void vm_stop(struct vm *vm);

/* As those of machine.h; any thread. */
void vm_power_button(struct vm *vm);
void vm_reset(struct vm *vm);
void vm_quit(struct vm *vm);

/* Text for a person: engine, processors, memory, uptime. Returns its length. */
size_t vm_info(struct vm *vm, char *text, size_t size_bytes);

/* Whether the terminal belongs to the guest, so that keys reach it and the escape works. */
bool vm_has_terminal(const struct vm *vm);

/* Writes to the terminal between what the guest writes. False when it isn't the guest's: then
 * nothing is written. */
bool vm_print(struct vm *vm, const char *text);

/* For `skep doctor`: probes all engines of this build; returns their number. */
unsigned vm_engines(struct machine_engine engines[MACHINE_MAX_ENGINES]);

#endif
