/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A virtual machine as a command runs it. A reboot of the guest is the machine's own matter: back
 * ends stay open, so the terminal, forwarded ports and pseudo terminals go on. Runs on the loop's
 * thread.
 */
#include "vm/vm.h"

#include "host/fd.h"
#include "machine/saved_file.h"
#include "vm/control.h"
#include "vm/gdb/server.h"
#include "vm/typing.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

static const int ending_signals[] = {SIGINT, SIGTERM, SIGHUP};
static const int user_signals[] = {SIGUSR1, SIGUSR2};
enum {
    ENDING_SIGNALS = sizeof(ending_signals) / sizeof(*ending_signals),
    USER_SIGNALS = sizeof(user_signals) / sizeof(*user_signals),
};

struct vm_signal {
    struct vm *vm;
    int number;
    struct loop_signal *watch;
};

struct vm {
    struct vm_config config;
    struct loop *loop;
    struct machine *machine;
    struct gdb_server *gdb; /* NULL: none */
    struct control *control;
    struct typing *typing;
    struct vm_signal signal[ENDING_SIGNALS];
    struct vm_signal user_signal[USER_SIGNALS];
    struct loop_signal *continued, *resized;
    unsigned signals_seen;
    int ended_by; /* a signal's number, or 0 */
    struct machine_end end;
};

static int exit_code(const struct vm *vm)
{
    switch (vm->end.reason) {
    case MACHINE_POWERED_OFF:
    case MACHINE_HALTED:
    case MACHINE_REBOOTED: return 0;
    case MACHINE_QUIT: return vm->ended_by ? 128 + vm->ended_by : 0;
    case MACHINE_EXIT_PORT: return (int)((vm->end.exit_value << 1 | 1) & 0xff);
    case MACHINE_FAILED: break;
    }
    return 1;
}

static void finished(void *opaque, const struct machine_end *end)
{
    struct vm *vm = opaque;
    vm->end = *end;
    gdb_server_ended(vm->gdb, (uint8_t)exit_code(vm));
    loop_stop(vm->loop);
}

static void escape(void *opaque, char key)
{
    struct vm *vm = opaque;
    if (vm->config.key && vm->machine)
        vm->config.key(vm->config.opaque, vm, key);
}

static void halted(void *opaque)
{
    struct vm *vm = opaque;
    if (vm->config.halted)
        vm->config.halted(vm->config.opaque, vm);
}

/* What is configured for the signal (0: for any that ends); NULL: nothing. */
static const struct vm_save_on *find_save(const struct vm *vm, int signal)
{
    for (unsigned i = 0; i < vm->config.save_count; i++)
        if (vm->config.saves[i].signal == signal)
            return &vm->config.saves[i];
    return NULL;
}

bool vm_save(struct vm *vm, const char *path, bool stops, machine_progress_fn *progress,
             void *opaque, struct error *err)
{
    bool was_running = strcmp(machine_state(vm->machine), "paused") != 0;
    if (stops)
        machine_pause(vm->machine); /* what it did after it was saved would be done twice */
    bool done = machine_save(vm->machine, path, progress, opaque, err);
    if (done && stops) {
        machine_reset_connections(vm->machine);
        machine_quit(vm->machine);
    } else if (stops && was_running) {
        machine_resume(vm->machine);
    }
    return done;
}

static void save_by_itself(struct vm *vm, const struct vm_save_on *save, bool stops)
{
    struct error err = {0};
    bool done = vm_save(vm, save->path, stops, vm->config.saving, vm->config.opaque, &err);
    if (vm->config.saved)
        vm->config.saved(vm->config.opaque, save->path, done ? NULL : &err);
}

void vm_stop(struct vm *vm)
{
    const struct vm_save_on *save = find_save(vm, 0);
    if (save)
        save_by_itself(vm, save, true);
    else
        machine_power_button(vm->machine);
}

static void signalled_by_user(void *opaque)
{
    struct vm_signal *signal = opaque;
    const struct vm_save_on *save = find_save(signal->vm, signal->number);
    if (save)
        save_by_itself(signal->vm, save, false);
    else if (signal->number == SIGUSR1)
        machine_pause(signal->vm->machine);
    else
        machine_resume(signal->vm->machine);
}

static void signalled(void *opaque)
{
    struct vm_signal *signal = opaque;
    struct vm *vm = signal->vm;
    bool is_ending = vm->signals_seen++ > 0;
    const struct vm_save_on *save = find_save(vm, signal->number);
    if (!save)
        save = find_save(vm, 0);
    if (save && !is_ending) {
        save_by_itself(vm, save, true);
        return;
    }
    if (vm->config.signalled)
        vm->config.signalled(vm->config.opaque, vm, is_ending);
    if (!is_ending) {
        machine_power_button(vm->machine);
        return;
    }
    vm->ended_by = signal->number;
    machine_quit(vm->machine);
}

/* The process was stopped and goes on: a shell may have changed the terminal. */
static void continued(void *opaque)
{
    struct vm *vm = opaque;
    machine_terminal_resume(vm->machine);
}

static void resized(void *opaque)
{
    struct vm *vm = opaque;
    machine_terminal_resized(vm->machine);
}

static bool watch_signals(struct vm *vm, struct error *err)
{
    for (unsigned i = 0; i < ENDING_SIGNALS; i++) {
        struct vm_signal *signal = &vm->signal[i];
        *signal = (struct vm_signal){.vm = vm, .number = ending_signals[i]};
        signal->watch = loop_signal_open(vm->loop, signal->number, signalled, signal, err);
        if (!signal->watch)
            return false;
    }
    for (unsigned i = 0; i < USER_SIGNALS; i++) {
        struct vm_signal *signal = &vm->user_signal[i];
        *signal = (struct vm_signal){.vm = vm, .number = user_signals[i]};
        if (!vm->config.usr_pauses && !find_save(vm, signal->number))
            continue;
        signal->watch = loop_signal_open(vm->loop, signal->number, signalled_by_user, signal, err);
        if (!signal->watch)
            return false;
    }
    vm->continued = loop_signal_open(vm->loop, SIGCONT, continued, vm, err);
    vm->resized = loop_signal_open(vm->loop, SIGWINCH, resized, vm, err);
    return vm->continued && vm->resized;
}

static bool open_gdb(struct vm *vm, const struct log *log, struct error *err)
{
    if (!vm->config.gdb)
        return true;
    vm->gdb = gdb_server_create(vm->config.gdb, vm->config.gdb_is_i386 ? GDB_I386 : GDB_X86_64,
                                !vm->config.gdb_waits, vm->machine, vm->loop, log, err);
    return vm->gdb;
}

static bool open_control(struct vm *vm, struct error *err)
{
    if (vm->config.control)
        vm->control = control_open(vm, vm->config.control, err);
    return vm->control || !vm->config.control;
}

/* A mistake there would be noticed only when the machine is to be saved. */
static bool check_saves(const struct vm_config *config, struct error *err)
{
    for (unsigned i = 0; i < config->save_count; i++)
        if (!saved_file_check_place(config->saves[i].path, err))
            return false;
    return true;
}

struct vm *vm_create(const struct vm_config *config, const struct log *log, struct error *err)
{
    if (!check_saves(config, err))
        return NULL;
    fd_ignore_signals(); /* the guest's memory is a file, too, for a limit of their size */
    struct vm *vm = calloc(1, sizeof(*vm));
    if (!vm) {
        error_errno(err, "cannot make the virtual machine", NULL, ENOMEM);
        return NULL;
    }
    vm->config = *config;
    vm->config.machine.escape = escape;
    vm->config.machine.halted = halted;
    vm->config.machine.opaque = vm;
    vm->loop = loop_create(err);
    if (vm->loop)
        vm->machine = machine_create(&vm->config.machine, vm->loop, log, finished, vm, err);
    if (vm->machine)
        vm->typing = typing_create(vm->loop, vm->machine, err);
    if (vm->typing && watch_signals(vm, err) && open_gdb(vm, log, err) && open_control(vm, err))
        return vm;
    vm_destroy(vm);
    return NULL;
}

void vm_destroy(struct vm *vm)
{
    if (!vm)
        return;
    control_close(vm->control);
    typing_destroy(vm->typing);
    for (unsigned i = 0; i < ENDING_SIGNALS; i++)
        if (vm->signal[i].watch)
            loop_signal_close(vm->signal[i].watch);
    for (unsigned i = 0; i < USER_SIGNALS; i++)
        if (vm->user_signal[i].watch)
            loop_signal_close(vm->user_signal[i].watch);
    if (vm->continued)
        loop_signal_close(vm->continued);
    if (vm->resized)
        loop_signal_close(vm->resized);
    gdb_server_destroy(vm->gdb);
    machine_destroy(vm->machine);
    if (vm->loop)
        loop_destroy(vm->loop);
    free(vm);
}

int vm_run(struct vm *vm, struct machine_end *end)
{
    if (!vm->gdb || !vm->config.gdb_waits)
        machine_start(vm->machine);
    loop_run(vm->loop);
    *end = vm->end;
    return exit_code(vm);
}

const char *vm_gdb_address(const struct vm *vm)
{
    return vm->gdb ? gdb_server_address(vm->gdb) : NULL;
}

struct loop *vm_loop(struct vm *vm)
{
    return vm->loop;
}

struct typing *vm_typing(struct vm *vm)
{
    return vm->typing;
}

struct machine *vm_machine(struct vm *vm)
{
    return vm->machine;
}

void vm_power_button(struct vm *vm)
{
    machine_power_button(vm->machine);
}

void vm_reset(struct vm *vm)
{
    machine_reset(vm->machine);
}

void vm_quit(struct vm *vm)
{
    machine_quit(vm->machine);
}

size_t vm_info(struct vm *vm, char *text, size_t size_bytes)
{
    return machine_info(vm->machine, text, size_bytes);
}

bool vm_has_terminal(const struct vm *vm)
{
    return machine_has_terminal(vm->machine);
}

bool vm_print(struct vm *vm, const char *text)
{
    return machine_print(vm->machine, text);
}

unsigned vm_engines(struct machine_engine engines[MACHINE_MAX_ENGINES])
{
    return machine_engines(engines);
}
