/* SPDX-License-Identifier: BSD-2-Clause
 * skep run: a machine from the command line, with its console on the terminal. */
#include "cli/display.h"
#include "cli/firmware.h"
#include "cli/request.h"
#include "cli/restore.h"
#include "cli/stats.h"
#include "vm/vm.h"

#include <assert.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const unsigned long long default_memory_bytes = 512ULL << 20;

static bool store_no_reboot(void *target, const char *value, struct error *err)
{
    ((struct request *)target)->vm.machine.no_reboot = true;
    return true;
}

static bool gdb_option(struct vm_config *vm, const char *piece, struct error *err)
{
    if (!strcmp(piece, "wait")) {
        vm->gdb_waits = true;
    } else if (!strcmp(piece, "i386")) {
        vm->gdb_is_i386 = true;
    } else {
        error_usage(err, "GDB option", piece, "it is not known");
        return error_hint(err, "known are wait and i386");
    }
    return true;
}

static bool store_gdb(void *target, const char *value, struct error *err)
{
    struct request *request = target;
    if (request->vm.gdb)
        return request_too_many("GDB servers", 1, err) ||
               error_hint(err, "leave the second --gdb out");
    char *rest = request_copy(request, value);
    request->vm.gdb = next_piece(&rest);
    while (rest)
        if (!gdb_option(&request->vm, next_piece(&rest), err))
            return false;
    return true;
}

static bool store_control(void *target, const char *value, struct error *err)
{
    struct vm_config *vm = &((struct request *)target)->vm;
    if (vm->control) {
        error_usage(err, "control socket", value, "there is one already: %s", vm->control);
        return error_hint(err, "--name and --control are two ways to say where: leave one out");
    }
    vm->control = value;
    return true;
}

/* Else a path would be taken as one by whoever looks for the machine, and a name by nobody. */
static bool store_name(void *target, const char *value, struct error *err)
{
    if (strchr(value, '/') || !strncmp(value, "unix:", 5)) {
        error_usage(err, "the name of a machine", value, "it is a path");
        return error_hint(err, "--control unix:PATH makes the control socket there");
    }
    return store_control(target, value, err);
}

/* 0 for "stop"; -1: none of those that there are. */
static int parse_moment(const char *text)
{
    static const struct {
        const char *name;
        int signal;
    } moments[] = {{"stop", 0},     {"INT", SIGINT},   {"TERM", SIGTERM},
                   {"HUP", SIGHUP}, {"USR1", SIGUSR1}, {"USR2", SIGUSR2}};
    if (!strncasecmp(text, "SIG", 3))
        text += 3;
    for (size_t i = 0; i < sizeof(moments) / sizeof(moments[0]); i++)
        if (!strcasecmp(text, moments[i].name))
            return moments[i].signal;
    return -1;
}

static bool store_save_on(void *target, const char *value, struct error *err)
{
    struct request *request = target;
    struct vm_config *vm = &request->vm;
    if (vm->save_count == VM_SAVES_MAX)
        return request_too_many("moments to save at", VM_SAVES_MAX, err);
    char *text = request_copy(request, value);
    char *path = strchr(text, ':');
    if (path)
        *path++ = '\0';
    int moment = parse_moment(text);
    if (!path || !*path || moment < 0) {
        error_usage(err, "moment to save at", value, "it is not of the form WHEN:FILE");
        return error_hint(err, "WHEN is stop, INT, TERM, HUP, USR1 or USR2");
    }
    for (unsigned i = 0; i < vm->save_count; i++)
        if (vm->saves[i].signal == moment) {
            error_usage(err, "moment to save at", value, "there is one already: %s",
                        vm->saves[i].path);
            return error_hint(err, "each moment saves to one file");
        }
    vm->saves[vm->save_count++] = (struct vm_save_on){moment, path};
    return true;
}

static bool store_restore(void *target, const char *value, struct error *err)
{
    ((struct request *)target)->restore = value;
    return true;
}

static bool store_trust_disks(void *target, const char *value, struct error *err)
{
    ((struct request *)target)->vm.machine.trust_disks = true;
    return true;
}

static bool store_stats(void *target, const char *value, struct error *err)
{
    struct request *request = target;
    request->stats = request->vm.machine.counts_instructions = true;
    return true;
}

static bool store_help(void *target, const char *value, struct error *err)
{
    ((struct request *)target)->help = true;
    return true;
}

static const struct option_spec options[] = {
    {"engine", 0, "NAME", "the processor: auto (the default), kvm or soft", store_engine},
    {"cpus", 'c', "N[,sockets=S][,cores=C][,threads=T]",
     "number of processors (1), and how they are told", store_cpus},
    {"pin", 0, "VCPU:HOSTCPU", "keep a processor on one of the host's", store_pin},
    {"memory", 'm', "SIZE", "memory, as 512M or 2G (512M)", store_memory},
    {"kernel", 0, "FILE",
     "a Linux bzImage, an ELF kernel with a PVH note,\n"
     "or a Multiboot kernel",
     store_kernel},
    {"kernel-from-disk", 0, NULL,
     "boot what the disk's own boot loader would: its kernel,\n"
     "initrd and command line, as they are at each start",
     store_kernel_from_disk},
    {"rom", 0, "FILE", "a flat image, started at the reset vector", store_rom},
    {"firmware", 0, "NAME",
     "boot as a PC does: bios, uefi, or a file; without a kernel\n"
     "by itself, as the first disk needs it",
     store_firmware},
    {"nvram", 0, "FILE", "where UEFI keeps its variables (DISK.nvram)", store_nvram},
    {"boot", 0, "KIND[,KIND]…[,menu]", "what firmware tries: disk, cdrom, net, floppy", store_boot},
    {"initrd", 0, "FILE",
     "an initial root; several are joined. For Multiboot\n"
     "modules: FILE[ ARGUMENTS][,FILE[ ARGUMENTS]]…",
     store_initrd},
    {"cmdline", 0, "STRING", "the kernel's command line (makes the console the kernel's)",
     store_cmdline},
    {"disk", 0, "PATH[,ro][,raw][,serial=TEXT][,bus=NAME][,slot=N]",
     "a raw image or block device as /dev/vda, /dev/vdb …", store_disk},
    {"floppy", 0, "PATH[,ro][,raw]",
     "a floppy disk's image in the next drive; none: an empty drive", store_floppy},
    {"cdrom", 0, "PATH[,serial=TEXT][,bus=NAME]", "a CD-ROM drive with an ISO image, or with none",
     store_cdrom},
    {"tpm", 0, "unix:PATH[,model=crb|tis]", "a TPM 2.0: swtpm's control socket", store_tpm},
    {"net", 0, "KIND[,model=MODEL][,mac=ADDRESS][,slot=N]",
     "user (the default), tap=NAME, tap-fd=NUMBER or none", store_net},
    {"port", 'p', "[IP:]HOST:GUEST[/udp]", "forward a port of the host (127.0.0.1) to the guest",
     store_port},
    {"console", 0, "WHERE",
     "where the console (COM1) goes (stdio):\n"
     "stdio, null, pty, tty:PATH, file:PATH, pipe:PATH,\n"
     "unix:PATH, tcp:[IP:]PORT or none",
     store_console},
    {"serial", 0, "WHERE", "a further serial port: COM2, …", store_serial},
    {"virtio-console", 0, "[NAME=]WHERE",
     "a terminal /dev/hvc0 …, or with a name a byte channel\n"
     "/dev/virtio-ports/NAME",
     store_virtio_console},
    {"vga", 0, "KIND[,size=WxH][,memory=SIZE]",
     "the graphics device: std, virtio or none (the default,\n"
     "std with --display)",
     store_vga},
    {"display", 0, "vnc=WHERE[,password-file=FILE][,keymap=NAME]",
     "show the screen to VNC viewers at [ADDR:]PORT (127.0.0.1),\n"
     ":N or unix:PATH; or none (the default)",
     store_display},
    {"input", 0, "KIND",
     "keyboard and tablet beside the PS/2 ones: usb (the default\nwith --display), virtio or ps2 "
     "(none)",
     store_input},
    {"debugcon", 0, "WHERE[,port=NUMBER]", "where bytes written to port 0xe9 go", store_debugcon},
    {"post", 0, "WHERE", "where bytes written to ports 0x80 and 0x190 go", store_post},
    {"parallel", 0, "WHERE[,strobe=off]", "a parallel port, and where its printer's bytes go",
     store_parallel},
    {"device", 0, "KIND[,OPTION]…",
     "for test programs: debug-exit[,port=0xf4], a write\n"
     "of N ends skep with status 2N+1; testdev, as QEMU's",
     store_device},
    {"exit-port", 0, NULL, "the same as --device debug-exit", store_exit_port},
    {"cpu", 0, "LEVEL",
     "what the processors offer: host, all that the engine has here\n"
     "(the default), x86-64-v3 or x86-64, which a saved machine\n"
     "finds on other engines, too",
     store_cpu},
    {"rtc", 0, "TIME", "what the clock shows: utc (the default) or local", store_rtc},
    {"no-reboot", 0, NULL, "a reboot of the guest ends skep", store_no_reboot},
    {"no-balloon", 0, NULL, "no memory balloon", store_no_balloon},
    {"no-rng", 0, NULL, "no source of entropy", store_no_rng},
    {"gdb", 0, "WHERE[,wait][,i386]",
     "a GDB server at [IP:]PORT (127.0.0.1) or unix:PATH; with wait\n"
     "the guest starts when the debugger lets it",
     store_gdb},
    {"name", 0, "NAME", "a name under which skep status, pause, save … find the machine",
     store_name},
    {"control", 0, "unix:PATH", "a control socket at this path instead", store_control},
    {"save-on", 0, "WHEN:FILE",
     "save the machine to FILE instead of pressing its power\n"
     "button (stop), or at a signal: INT, TERM or HUP end it\n"
     "then, at USR1 and USR2 it goes on",
     store_save_on},
    {"restore", 0, "FILE", "go on where a machine was saved, as it was made then", store_restore},
    {"trust-disks", 0, NULL, "restore although a disk seems to have changed since",
     store_trust_disks},
    {"stats", 0, NULL, "at the end, print what the processors counted", store_stats},
    {"help", 'h', NULL, "print this", store_help},
};

/* The user's network takes the forwarded ports; from a saved machine its own, unless others are
 * given. */
static bool place_forwards(struct request *request, struct error *err)
{
    struct machine_config *machine = &request->vm.machine;
    struct machine_net *user = NULL;
    for (unsigned i = 0; i < machine->net_count && !user; i++)
        if (machine->nets[i].kind == MACHINE_NET_USER)
            user = &machine->nets[i];
    if (request->forward_count && !user) {
        error_usage(err, "port forward", NULL, "only the user network forwards ports");
        return error_hint(err, "leave -p out, or add --net user");
    }
    if (user && (request->forward_count || !user->forwards)) {
        user->forwards = request->forwards;
        user->forward_count = request->forward_count;
    }
    return true;
}

/* All that was not given is as it was. */
static bool complete_saved(struct request *request, struct error *err)
{
    struct machine_config *machine = &request->vm.machine;
    const struct restore_given given = {
        .nets = machine->net_count || request->no_net,
        .console = request->has_console,
        .serials = request->has_serial,
        .display = request->has_display,
    };
    request->saved = machine_saved_open(request->restore, err);
    if (!request->saved)
        return false;
    machine->saved = request->saved;
    if (!restore_check(machine, request->has_vga, err))
        return false;
    restore_fill(machine, &given);
    return place_forwards(request, err);
}

/* A disk without a kernel is booted by firmware. */
static bool choose_firmware(struct request *request, struct error *err)
{
    struct machine_config *machine = &request->vm.machine;
    bool is_direct = machine->kernel || machine->kernel_from_disk || machine->rom;
    bool is_wanted = request->firmware.name || (!is_direct && machine->disk_count);
    if (request->firmware.name && machine->rom) {
        error_usage(err, "firmware", request->firmware.name,
                    "there is a ROM: --rom and --firmware are two ways to start");
        return error_hint(err, "leave one of them out");
    }
    if (is_wanted)
        return firmware_choose(&request->firmware, machine, err);
    if (machine->nvram || machine->boot_count || machine->boot_menu) {
        error_usage(err, "firmware", NULL,
                    "--nvram and --boot are for firmware, and there is none");
        return error_hint(err, "add --firmware bios or --firmware uefi");
    }
    return true;
}

/* Options that depend on one another, once all are known. */
static bool complete(struct request *request, struct error *err)
{
    struct machine_config *machine = &request->vm.machine;
    if (request->restore)
        return complete_saved(request, err);
    if (!machine->memory_bytes)
        machine->memory_bytes = default_memory_bytes;
    if (!choose_firmware(request, err))
        return false;
    if (machine->rom && !machine->kernel && machine->initrd_count) {
        error_usage(err, "initrd", machine->initrds[0], "there is no kernel that takes it");
        return error_hint(err, "add --kernel FILE, or leave --initrd out");
    }
    if (machine->kernel_from_disk && (machine->kernel || machine->rom || machine->initrd_count)) {
        error_usage(err, "kernel", machine->kernel, "it is to be taken from the disk, too");
        return error_hint(err, "leave --kernel-from-disk out, or --kernel, --initrd and --rom");
    }
    if (!machine->kernel && !machine->rom && !machine->kernel_from_disk) {
        error_usage(err, "nothing to run", NULL, "no disk and no kernel was given");
        return error_hint(err,
                          "add --disk FILE or --kernel FILE; `make run` in skep's sources makes "
                          "a guest");
    }
    if (request->no_net && machine->net_count) {
        error_usage(err, "network", "none", "it was asked for beside another network");
        return error_hint(err, "leave one of them out");
    }
    if (!request->no_net && machine->net_count == 0)
        machine->nets[machine->net_count++].kind = MACHINE_NET_USER;
    if (machine->display.vnc && !request->has_vga)
        machine->vga = MACHINE_VGA_STD;
    if (machine->display.vnc && !request->has_input)
        machine->input = MACHINE_INPUT_USB;
    if (!request->has_console)
        machine->serials[0] = "stdio";
    if (machine->serial_count == 0)
        machine->serial_count = 1;
    return check_drives(machine, err) && check_boot(machine, err) && place_forwards(request, err);
}

static const char escape_help[] = "\r\nskep: Ctrl-] then  q  ends the machine at once\r\n"
                                  "                   p  presses its power button\r\n"
                                  "                   r  resets it\r\n"
                                  "                   i  tells about it\r\n"
                                  "                   Ctrl-]  sends Ctrl-] itself\r\n";

/* The terminal is in raw mode: each line needs its carriage return. */
static void print_info(struct vm *vm)
{
    char text[1024];
    char raw[2 * sizeof(text) + 3];
    size_t at = 0;
    raw[at++] = '\r';
    raw[at++] = '\n';
    size_t length = vm_info(vm, text, sizeof(text));
    for (size_t i = 0; i < length; i++) {
        if (text[i] == '\n')
            raw[at++] = '\r';
        raw[at++] = text[i];
    }
    raw[at] = '\0';
    vm_print(vm, raw);
}

static void on_key(void *opaque, struct vm *vm, char key)
{
    switch (key) {
    case 'q': vm_quit(vm); break;
    case 'p': vm_stop(vm); break;
    case 'r': vm_reset(vm); break;
    case 'i': print_info(vm); break;
    default: vm_print(vm, escape_help); break;
    }
}

static void on_signal(void *opaque, struct vm *vm, bool is_ending)
{
    const struct cli *cli = opaque;
    if (is_ending)
        cli_progress(cli, "ended by a signal");
    else
        cli_progress(cli, "power button pressed; once more ends the machine at once");
}

static void on_halted(void *opaque, struct vm *vm)
{
    cli_progress(opaque, "the guest has halted for good%s",
                 vm_has_terminal(vm) ? "; Ctrl-] then q ends the machine, r resets it" : "");
}

static void on_saving(void *opaque, uint64_t done_bytes, uint64_t total_bytes)
{
    const struct cli *cli = opaque;
    if (!cli->quiet && isatty(STDERR_FILENO))
        fprintf(stderr, "\rskep: saving, %3d %%%s", (int)(100 * done_bytes / total_bytes),
                done_bytes == total_bytes ? "\r\n" : "");
}

static void on_saved(void *opaque, const char *path, const struct error *err)
{
    const struct cli *cli = opaque;
    if (err)
        cli_fail(cli, err);
    else
        cli_progress(cli, "saved to %s", path);
}

/* Where a person reaches what is not the terminal: a pty's name is only known now. */
static void tell_places(const struct cli *cli, const struct request *request, struct vm *vm)
{
    const struct machine_config *config = &request->vm.machine;
    if (vm_gdb_address(vm))
        cli_progress(cli, "GDB server: target remote %s%s", vm_gdb_address(vm),
                     request->vm.gdb_waits ? "; the guest waits for it" : "");
    if (machine_vnc_address(vm_machine(vm)))
        cli_progress(cli, "VNC server at %s", machine_vnc_address(vm_machine(vm)));
    for (unsigned i = 0; i < config->serial_count; i++) {
        const char *path = machine_serial_path(vm_machine(vm), i);
        if (path && path[0])
            cli_progress(cli, "serial port %u is at %s", i + 1, path);
    }
    for (unsigned i = 0; i < config->console_count; i++) {
        const char *path = machine_console_path(vm_machine(vm), i);
        if (path && path[0])
            cli_progress(cli, "virtio console %u is at %s", i, path);
    }
}

static int run_machine(const struct cli *cli, struct request *request, struct error *err)
{
    struct vm *vm = vm_create(&request->vm, &cli->log, err);
    if (!vm)
        return cli_fail(cli, err);
    cli_progress(cli, "engine %s%s", machine_engine_name(vm_machine(vm)),
                 vm_has_terminal(vm) ? "; Ctrl-] then ? lists the console's keys" : "");
    if (machine_boot_summary(vm_machine(vm)))
        cli_progress(cli, "boots %s", machine_boot_summary(vm_machine(vm)));
    if (request->firmware.reason)
        cli_progress(cli, "firmware %s: %s", request->firmware.name, request->firmware.reason);
    tell_places(cli, request, vm);
    struct machine_end end = {0};
    int status = vm_run(vm, &end);
    struct machine_stats stats;
    machine_stats(vm_machine(vm), &stats);
    vm_destroy(vm);
    if (request->stats)
        stats_print(cli, &stats);
    if (end.reason == MACHINE_FAILED)
        cli_fail(cli, &end.error);
    return status;
}

static int run(struct cli *cli, const struct verb *verb, int argc, char **argv)
{
    struct error err = {0};
    struct request request = {0};
    request.vm.key = on_key;
    request.vm.signalled = on_signal;
    request.vm.halted = on_halted;
    request.vm.saving = on_saving;
    request.vm.saved = on_saved;
    request.vm.opaque = cli;
    int operands;
    int status;
    bool parsed =
        options_parse(verb->options, verb->option_count, argc, argv, &request, &operands, &err);
    if (parsed && request.help) {
        status = cli_help(verb);
    } else if (!parsed) {
        status = cli_fail(cli, &err);
    } else if (operands < argc) {
        error_usage(&err, "unexpected argument", argv[operands], "run takes only options");
        error_hint(&err, "`skep run --help` lists them");
        status = cli_fail(cli, &err);
    } else if (!complete(&request, &err)) {
        status = cli_fail(cli, &err);
    } else {
        status = run_machine(cli, &request, &err);
    }
    machine_saved_close(request.saved);
    for (unsigned i = 0; i < request.copy_count; i++)
        free(request.copies[i]);
    free(request.firmware.nvram);
    return status;
}

const struct verb verb_run = {
    .name = "run",
    .summary = "run a machine until its guest powers off",
    .synopsis = "--disk FILE | --kernel FILE | --restore FILE [OPTION]…",
    .description = "Runs a machine until its guest powers off, with the console on the terminal.\n"
                   "Ctrl-] then q ends it at once, Ctrl-] then ? lists what else there is.",
    .options = options,
    .option_count = sizeof(options) / sizeof(options[0]),
    .run = run,
};
