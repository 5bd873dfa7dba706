/* SPDX-License-Identifier: BSD-2-Clause
 *
 * skep under the name of xhyve or HyperKit: their flags, exit codes and signals, so that scripts
 * written for them run as they are.
 */
#include "cli/xhyve.h"

#include "base/crc32c.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const unsigned long long default_memory_bytes = 256ULL << 20;

/* Exit codes; those of HyperKit tell a reset from a failure, too. */
enum {
    XHYVE_RESET = 0,
    XHYVE_OFF = 1,
    XHYVE_HALTED = 2,
    HYPERKIT_OFF = 0,
    HYPERKIT_RESET = 2,
    HYPERKIT_BAD_EXIT = 100,
    ANY_FAILED = 1,
    ANY_TRIPLE_FAULT = 3,
};

char *xhyve_copy(struct xhyve *xhyve, const char *text, struct error *err)
{
    char *copy = xhyve->copy_count < XHYVE_MAX_COPIES ? strdup(text) : NULL;
    if (copy)
        xhyve->copies[xhyve->copy_count++] = copy;
    else
        error_usage(err, "option", text, "there are too many of them");
    return copy;
}

/* ---- flags ---- */

/* A bare number below a Mi counts MiB, else bytes. */
static bool take_memory(struct xhyve *xhyve, const char *value, struct error *err)
{
    char *end;
    unsigned long long bare = strtoull(value, &end, 10), bytes;
    unsigned long long unit = !*end && bare < 1 << 20 ? 1 << 20 : 1;
    if (!parse_size(value, unit, &bytes, err))
        return false;
    if (bytes < MACHINE_MIN_MEMORY_BYTES)
        return error_usage(err, "memory", value, "a machine needs at least %d MiB",
                           MACHINE_MIN_MEMORY_BYTES >> 20);
    xhyve->vm.machine.memory_bytes = bytes & ~4095ULL;
    return true;
}

static bool take_uuid(struct xhyve *xhyve, const char *value, struct error *err)
{
    uint8_t *uuid = xhyve->vm.machine.uuid;
    unsigned digits = 0;
    for (const char *at = value; *at; at++) {
        unsigned digit;
        if (*at == '-')
            continue;
        if (digits == 32 || sscanf(at, "%1x", &digit) != 1)
            return error_usage(err, "UUID", value, "it does not have 32 hexadecimal digits");
        uuid[digits / 2] = (uint8_t)(uuid[digits / 2] << 4 | digit);
        digits++;
    }
    xhyve->has_uuid = digits == 32;
    return xhyve->has_uuid ||
           error_usage(err, "UUID", value, "it does not have 32 hexadecimal digits");
}

static bool take_pin(struct xhyve *xhyve, const char *value, struct error *err)
{
    char *text = xhyve_copy(xhyve, value, err);
    unsigned long from, to;
    if (!text || !parse_pin(text, &from, &to, err))
        return false;
    xhyve->vm.machine.pins[from] = (uint16_t)(to + 1);
    return true;
}

static bool take_cpus(struct xhyve *xhyve, const char *value, struct error *err)
{
    unsigned long count;
    if (!parse_number(value, "number of processors", 1, MACHINE_MAX_VCPUS, &count, err))
        return false;
    xhyve->vm.machine.vcpu_count = (unsigned)count;
    return true;
}

/* Says what a flag would have done that it does not do here. */
static void tell_flag(struct xhyve *xhyve, int flag)
{
    static const struct {
        char flag;
        const char *text;
    } told[] = {
        {'b', "-b: there is no console of FreeBSD's bvm; use -l com1,stdio"},
        {'w', "-w: an unknown MSR raises a general protection fault, as on a processor"},
    };
    for (size_t i = 0; i < sizeof(told) / sizeof(told[0]); i++)
        if (told[i].flag == flag)
            cli_progress(xhyve->cli, "%s", told[i].text);
}

static bool take_flag(struct xhyve *xhyve, int flag, const char *value, struct error *err)
{
    switch (flag) {
    case 'c': return take_cpus(xhyve, value, err);
    case 'e': xhyve->vm.machine.stray_port_fails = true; return true;
    case 'f': return xhyve_firmware(xhyve, value, err);
    case 'g': xhyve->vm.gdb = value; return true;
    case 'l': return xhyve_lpc(xhyve, value, err);
    case 'm': return take_memory(xhyve, value, err);
    case 'p': return take_pin(xhyve, value, err);
    case 's': return xhyve_slot(xhyve, value, err);
    case 'u': xhyve->vm.machine.rtc_is_local = false; return true;
    case 'F': xhyve->pid_file = value; return true;
    case 'M': xhyve->prints_mac = true; return true;
    case 'U': return take_uuid(xhyve, value, err);
    /* ACPI tables, x2APIC and MSI-X are there, an MP table is not; HLT and PAUSE cost nothing; what
     * a core dump holds is the system's matter. */
    default: tell_flag(xhyve, flag); return true;
    }
}

static const char usage[] =
    "Usage: skep xhyve [-AbCeHMPuwWxY] [-c vcpus] [-m size] [-s slot,emulation[,conf]]…\n"
    "                  [-l com1,backend] [-f firmware] [-F pidfile] [-U uuid] [-g port]\n"
    "                  [-p vcpu:hostcpu] [-v] [-h]\n\n"
    "Takes the command lines of xhyve and HyperKit; skep(1) tells what each becomes here.\n";

/* Returns whether to go on; otherwise *status is the exit code. */
static bool parse(struct xhyve *xhyve, int argc, char **argv, int *status)
{
    struct error err = {0};
    int flag;
    opterr = 0;
    optind = 1;
    while ((flag = getopt(argc, argv, "+:behvuwxMACHPWYf:F:g:c:s:m:p:l:U:")) != -1) {
        char text[3] = {'-', (char)(flag == '?' || flag == ':' ? optopt : flag), 0};
        *status = EXIT_OK;
        if (flag == 'h') {
            fputs(usage, stdout);
            return false;
        }
        if (flag == 'v') {
            printf("skep %s, taking the place of xhyve\n", SKEP_VERSION);
            return false;
        }
        *status = ANY_FAILED;
        if (flag == '?' || flag == ':') {
            error_usage(&err, "flag", text, flag == '?' ? "it is not known" : "it needs a value");
            error_hint(&err, "-h lists them");
        } else if (take_flag(xhyve, flag, optarg, &err)) {
            continue;
        }
        cli_fail(xhyve->cli, &err);
        return false;
    }
    /* As those programs do; often it is what a command line lacks. */
    if (optind < argc)
        cli_progress(xhyve->cli,
                     "'%s' and what follows it is passed over: is a quotation mark "
                     "missing?",
                     argv[optind]);
    return true;
}

/* ---- run ---- */

/* As on macOS, where the address follows from the UUID. */
static void choose_macs(struct xhyve *xhyve)
{
    static const uint8_t none[6];
    struct machine_config *machine = &xhyve->vm.machine;
    uint32_t sum = crc32c(machine->uuid, sizeof(machine->uuid));
    for (unsigned i = 0; xhyve->has_uuid && i < machine->net_count; i++) {
        const uint8_t mac[6] = {
            0x52, 0x54, 0x00, (uint8_t)(sum >> 16), (uint8_t)(sum >> 8), (uint8_t)(sum + i)};
        if (!memcmp(machine->nets[i].mac, none, sizeof(none)))
            memcpy(machine->nets[i].mac, mac, sizeof(mac));
    }
}

/* A boot ROM sets the board up; one that is too small for that is a program for it. */
static bool is_firmware(const char *path)
{
    enum { LEAST_BYTES = 64 << 10 };
    struct stat info;
    return stat(path, &info) == 0 && info.st_size >= LEAST_BYTES;
}

static bool complete(struct xhyve *xhyve, struct error *err)
{
    struct machine_config *machine = &xhyve->vm.machine;
    if (!machine->memory_bytes)
        machine->memory_bytes = default_memory_bytes;
    machine->no_reboot = machine->halt_ends = true;
    machine->rom_is_firmware = machine->rom && is_firmware(machine->rom);
    machine->no_balloon = true; /* its slot may be a script's */
    machine->no_rng = !xhyve->has_rng;
    xhyve->vm.usr_pauses = true;
    choose_macs(xhyve);
    if (machine->kernel || machine->rom || xhyve->prints_mac)
        return true;
    error_usage(err, "nothing to run", NULL, "neither -f nor -l bootrom was given");
    return error_hint(err, "as -f kexec,vmlinuz,initrd.gz,\"console=ttyS0\"");
}

static int print_mac(const struct xhyve *xhyve)
{
    static const uint8_t first[6] = {0x52, 0x54, 0x00, 0x12, 0x34, 0x56};
    const struct machine_config *machine = &xhyve->vm.machine;
    const uint8_t *mac = machine->net_count && xhyve->has_uuid ? machine->nets[0].mac : first;
    printf("MAC: %02x:%02x:%02x:%02x:%02x:%02x\n", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
    return EXIT_OK;
}

static bool make_pid_file(struct xhyve *xhyve, struct error *err)
{
    if (!xhyve->pid_file)
        return true;
    int fd = open(xhyve->pid_file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0) {
        int error = errno;
        error_errno(err, "cannot make the pid file", xhyve->pid_file, error);
        return error_hint(err, error == EEXIST
                                   ? "a file that is left from a run that is over may be removed"
                                   : "the file is made anew, in a folder that is there");
    }
    xhyve->pid_file_is_made = true;
    bool is_written = dprintf(fd, "%ld\n", (long)getpid()) > 0;
    if (close(fd) == 0 && is_written)
        return true;
    return error_errno(err, "cannot write the pid file", xhyve->pid_file, errno);
}

/* A link of an earlier run is replaced; anything else of that name is somebody's. */
static bool link_pty(struct xhyve *xhyve, unsigned port, const char *path, struct error *err)
{
    const char *link = xhyve->links[port];
    char old[8];
    if (!link)
        return true;
    if (readlink(link, old, sizeof(old)) >= 0)
        unlink(link);
    if (symlink(path, link) != 0)
        return error_errno(err, "cannot link to the pseudo terminal", link, errno);
    return xhyve->link_is_made[port] = true;
}

static bool tell_ports(struct xhyve *xhyve, struct vm *vm, struct error *err)
{
    for (unsigned i = 0; i < xhyve->vm.machine.serial_count; i++) {
        const char *path = machine_serial_path(vm_machine(vm), i);
        if (!path || !path[0])
            continue;
        if (!link_pty(xhyve, i, path, err))
            return false;
        printf("com%u is at %s\n", i + 1, path);
        fflush(stdout);
    }
    return true;
}

static int exit_code(bool is_hyperkit, const struct machine_end *end, int code)
{
    switch (end->reason) {
    case MACHINE_POWERED_OFF: return is_hyperkit ? HYPERKIT_OFF : XHYVE_OFF;
    case MACHINE_HALTED: return is_hyperkit ? HYPERKIT_OFF : XHYVE_HALTED;
    case MACHINE_REBOOTED:
        if (end->triple_fault)
            return ANY_TRIPLE_FAULT;
        return is_hyperkit ? HYPERKIT_RESET : XHYVE_RESET;
    case MACHINE_QUIT: return code ? code : ANY_FAILED;
    case MACHINE_EXIT_PORT: return code;
    case MACHINE_FAILED: break;
    }
    return is_hyperkit ? HYPERKIT_BAD_EXIT : ANY_FAILED;
}

static void clean_up(struct xhyve *xhyve)
{
    if (xhyve->pid_file_is_made)
        unlink(xhyve->pid_file);
    for (unsigned i = 0; i < MACHINE_MAX_SERIALS; i++)
        if (xhyve->link_is_made[i])
            unlink(xhyve->links[i]);
    for (unsigned i = 0; i < xhyve->copy_count; i++)
        free(xhyve->copies[i]);
}

static int run_machine(struct xhyve *xhyve, bool is_hyperkit)
{
    struct error err = {0};
    struct vm *vm = NULL;
    struct machine_end end = {0};
    if (!complete(xhyve, &err) || (!xhyve->prints_mac && !make_pid_file(xhyve, &err))) {
        cli_fail(xhyve->cli, &err);
        return ANY_FAILED;
    }
    if (xhyve->prints_mac)
        return print_mac(xhyve);
    vm = vm_create(&xhyve->vm, &xhyve->cli->log, &err);
    if (!vm || !tell_ports(xhyve, vm, &err)) {
        cli_fail(xhyve->cli, &err);
        vm_destroy(vm);
        return ANY_FAILED;
    }
    if (machine_vnc_address(vm_machine(vm)))
        cli_progress(xhyve->cli, "VNC server at %s", machine_vnc_address(vm_machine(vm)));
    if (vm_gdb_address(vm))
        cli_progress(xhyve->cli, "GDB server: target remote %s", vm_gdb_address(vm));
    int code = vm_run(vm, &end);
    int status = exit_code(is_hyperkit, &end, code);
    vm_destroy(vm);
    if (end.reason == MACHINE_FAILED)
        cli_fail(xhyve->cli, &end.error);
    return status;
}

static int run(struct cli *cli, const struct verb *verb, int argc, char **argv)
{
    struct xhyve xhyve = {.cli = cli, .vm = {.machine = {.rtc_is_local = true}}};
    int status;
    bool is_hyperkit = strstr(program_invocation_short_name, "hyperkit");
    if (parse(&xhyve, argc, argv, &status))
        status = run_machine(&xhyve, is_hyperkit);
    clean_up(&xhyve);
    return status;
}

const struct verb verb_xhyve = {
    .name = "xhyve",
    .summary = "take a command line of xhyve or HyperKit",
    .run = run,
};
