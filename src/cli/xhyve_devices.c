/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Devices and firmware as xhyve and HyperKit name them. What this host can't offer but a script can
 * do without is told and left out; what changes the machine's work is an error that names what to
 * use instead.
 */
#include "cli/xhyve.h"

#include "cli/display.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *next_piece(char **rest)
{
    const char *piece = strsep(rest, ",");
    return piece ? piece : "";
}

/* ---- -s ---- */

/* What follows the emulation's name; NULL: nothing. */
typedef bool plug_fn(struct xhyve *xhyve, uint8_t devfn, char *rest, struct error *err);

static bool plug_nothing(struct xhyve *xhyve, uint8_t devfn, char *rest, struct error *err)
{
    return true; /* the board has its own */
}

static bool disk_format(const char *piece, struct error *err)
{
    if (!strcmp(piece, "format=raw"))
        return true;
    error_usage(err, "disk option", piece, "only raw images can be opened");
    return error_hint(err, "convert it: qemu-img convert -O raw IMAGE disk.raw");
}

/* "LOGICAL[/PHYSICAL]": only the logical size decides what a partition table means. */
static bool disk_sectors(const char *piece, const char *sizes, struct error *err)
{
    char *end;
    if (strtoul(sizes, &end, 10) == 512 && (!*end || *end == '/'))
        return true;
    error_usage(err, "disk option", piece, "disks have sectors of 512 bytes here");
    return error_hint(err, "leave it out if the disk was not partitioned with it");
}

/* sync, direct and buffered choose between ways of macOS to write; skep's writes are buffered, and
 * a flush of the guest reaches the disk. */
static bool disk_option(struct machine_disk *disk, const char *piece, struct error *err)
{
    static const char *const inert[] = {"sync",         "direct",    "nocache",      "nodelete",
                                        "qcow-config=", "buffered=", "discard-size="};
    if (!strcmp(piece, "ro"))
        return disk->read_only = true;
    if (!strncmp(piece, "format=", 7))
        return disk_format(piece, err);
    if (!strncmp(piece, "sectorsize=", 11))
        return disk_sectors(piece, piece + 11, err);
    for (size_t i = 0; i < sizeof(inert) / sizeof(inert[0]); i++) {
        size_t length = strlen(inert[i]);
        bool takes_value = inert[i][length - 1] == '=';
        if (takes_value ? !strncmp(piece, inert[i], length) : !strcmp(piece, inert[i]))
            return true;
    }
    error_usage(err, "disk option", piece, "it is not known");
    return error_hint(err, "known are ro, sync, direct, sectorsize=N and format=raw");
}

static struct machine_disk *take_disk(struct xhyve *xhyve, char *rest, struct error *err)
{
    struct machine_config *machine = &xhyve->vm.machine;
    if (machine->disk_count == MACHINE_MAX_DISKS) {
        error_usage(err, "too many", "disks", "a machine has at most %d of them",
                    MACHINE_MAX_DISKS);
        return NULL;
    }
    const char *path = next_piece(&rest);
    if (!*path) {
        error_usage(err, "disk", NULL, "it has no path");
        error_hint(err, "as -s 4,virtio-blk,disk.img");
        return NULL;
    }
    if (!strncmp(path, "file://", 7)) {
        path += 7;
        char *query = strchr(path, '?');
        if (query)
            *query = '\0';
    }
    struct machine_disk *disk = &machine->disks[machine->disk_count++];
    disk->path = path;
    while (rest)
        if (!disk_option(disk, next_piece(&rest), err))
            return NULL;
    return disk;
}

static bool plug_virtio_blk(struct xhyve *xhyve, uint8_t devfn, char *rest, struct error *err)
{
    struct machine_disk *disk = take_disk(xhyve, rest, err);
    if (disk)
        disk->devfn = devfn;
    return disk;
}

/* All ports are of the chipset's own controller, whatever slot was named. */
static bool plug_ahci_hd(struct xhyve *xhyve, uint8_t devfn, char *rest, struct error *err)
{
    struct machine_disk *disk = take_disk(xhyve, rest, err);
    if (disk)
        disk->bus = MACHINE_DISK_AHCI;
    return disk;
}

static bool plug_ahci_cd(struct xhyve *xhyve, uint8_t devfn, char *rest, struct error *err)
{
    struct machine_disk *disk = take_disk(xhyve, rest, err);
    if (!disk)
        return false;
    disk->bus = MACHINE_DISK_AHCI;
    disk->is_cdrom = disk->read_only = true;
    return true;
}

/* A viewer's password can only be in a file; this one is nobody else's, and goes with the process.
 */
static bool take_password(struct xhyve *xhyve, const char *password, struct error *err)
{
    char path[64];
    int fd = memfd_create("skep-password", 0);
    if (fd < 0 || write(fd, password, strlen(password)) != (ssize_t)strlen(password))
        return error_errno(err, "cannot keep the password", NULL, errno);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    xhyve->vm.machine.display.password_file = xhyve_copy(xhyve, path, err);
    return xhyve->vm.machine.display.password_file;
}

static bool screen_option(struct xhyve *xhyve, const char *piece, unsigned long size[2],
                          struct error *err)
{
    struct machine_display *display = &xhyve->vm.machine.display;
    if (!strncmp(piece, "tcp=", 4) || !strncmp(piece, "rfb=", 4)) {
        display->vnc = piece + 4;
        return true;
    }
    if (!strncmp(piece, "w=", 2))
        return parse_number(piece + 2, "width of the screen", 320, 1920, &size[0], err);
    if (!strncmp(piece, "h=", 2))
        return parse_number(piece + 2, "height of the screen", 200, 1200, &size[1], err);
    if (!strncmp(piece, "password=", 9))
        return take_password(xhyve, piece + 9, err);
    if (!strcmp(piece, "wait"))
        cli_progress(xhyve->cli, "fbuf: the guest starts without waiting for a viewer");
    else if (strncmp(piece, "vga=", 4) != 0)
        return error_usage(err, "option of fbuf", piece, "it is not known") ||
               error_hint(err, "known are tcp=[ADDRESS:]PORT, w=, h=, vga=, wait and password=");
    return true;
}

static bool plug_fbuf(struct xhyve *xhyve, uint8_t devfn, char *rest, struct error *err)
{
    unsigned long size[2] = {1024, 768};
    char text[64];
    while (rest)
        if (!screen_option(xhyve, next_piece(&rest), size, err))
            return false;
    snprintf(text, sizeof(text), "std,size=%lux%lu", size[0], size[1]);
    char *vga = xhyve_copy(xhyve, text, err);
    return vga && display_parse_vga(&xhyve->vm.machine, vga, err);
}

static struct machine_net *take_net(struct xhyve *xhyve, uint8_t devfn, struct error *err)
{
    struct machine_config *machine = &xhyve->vm.machine;
    if (machine->net_count == MACHINE_MAX_NETS) {
        error_usage(err, "too many", "network cards", "a machine has at most %d of them",
                    MACHINE_MAX_NETS);
        return NULL;
    }
    struct machine_net *net = &machine->nets[machine->net_count++];
    net->devfn = devfn;
    return net;
}

/* Options of HyperKit's networks that name its helpers' sockets and files are of no use here. */
static bool net_options(struct machine_net *net, char *rest, struct error *err)
{
    while (rest) {
        const char *piece = next_piece(&rest);
        if (!strncmp(piece, "mac=", 4) && !parse_mac(piece + 4, net->mac, err))
            return false;
    }
    return true;
}

static bool plug_virtio_net(struct xhyve *xhyve, uint8_t devfn, char *rest, struct error *err)
{
    struct machine_net *net = take_net(xhyve, devfn, err);
    if (!net)
        return false;
    net->kind = MACHINE_NET_USER;
    return net_options(net, rest, err);
}

static bool plug_e1000(struct xhyve *xhyve, uint8_t devfn, char *rest, struct error *err)
{
    if (!plug_virtio_net(xhyve, devfn, rest, err))
        return false;
    xhyve->vm.machine.nets[xhyve->vm.machine.net_count - 1].model = MACHINE_NET_E1000;
    return true;
}

static bool plug_vpnkit(struct xhyve *xhyve, uint8_t devfn, char *rest, struct error *err)
{
    cli_progress(xhyve->cli, "no VPNKit is asked: skep's own user network serves this card");
    return plug_virtio_net(xhyve, devfn, rest, err);
}

static bool plug_tap(struct xhyve *xhyve, uint8_t devfn, char *rest, struct error *err)
{
    struct machine_net *net = take_net(xhyve, devfn, err);
    if (!net)
        return false;
    net->kind = MACHINE_NET_TAP;
    net->tap_name = next_piece(&rest);
    if (*net->tap_name)
        return net_options(net, rest, err);
    error_usage(err, "tap", NULL, "no name was given");
    return error_hint(err, "as -s 2,virtio-tap,tap0");
}

static bool plug_rng(struct xhyve *xhyve, uint8_t devfn, char *rest, struct error *err)
{
    xhyve->has_rng = true;
    xhyve->vm.machine.rng_devfn = devfn;
    return true;
}

static bool plug_uart(struct xhyve *xhyve, uint8_t devfn, char *rest, struct error *err)
{
    error_usage(err, "emulation", "uart", "serial ports are not offered as PCI functions");
    return error_hint(err, "use -l com1 to com4");
}

static bool plug_9p(struct xhyve *xhyve, uint8_t devfn, char *rest, struct error *err)
{
    error_usage(err, "emulation", "virtio-9p", "skep shares no folders yet");
    return error_hint(err, "leave this slot out, and put the files on a disk: "
                           "-s N,virtio-blk,IMAGE");
}

static bool plug_sock(struct xhyve *xhyve, uint8_t devfn, char *rest, struct error *err)
{
    error_usage(err, "emulation", "virtio-sock", "skep has no virtio sockets yet");
    return error_hint(err, "leave this slot out; skep run --virtio-console NAME=unix:PATH makes "
                           "byte channels");
}

static const struct {
    const char *name;
    plug_fn *plug;
    bool is_at_slot;
} emulations[] = {
    {"hostbridge", plug_nothing, false},   {"amd_hostbridge", plug_nothing, false},
    {"lpc", plug_nothing, false},          {"dummy", plug_nothing, false},
    {"virtio-blk", plug_virtio_blk, true}, {"ahci-hd", plug_ahci_hd, false},
    {"ahci-cd", plug_ahci_cd, false},      {"fbuf", plug_fbuf, false},
    {"virtio-net", plug_virtio_net, true}, {"e1000", plug_e1000, true},
    {"virtio-vpnkit", plug_vpnkit, true},  {"virtio-tap", plug_tap, true},
    {"virtio-rnd", plug_rng, true},        {"uart", plug_uart, false},
    {"virtio-9p", plug_9p, false},         {"virtio-sock", plug_sock, false},
};

static bool parse_place(const char *text, uint8_t *devfn, struct error *err)
{
    unsigned number[3] = {0}, count = 0;
    const char *at = text;
    while (isdigit((unsigned char)*at) && count < 3) {
        char *end;
        unsigned long value = strtoul(at, &end, 10);
        number[count++] = value > 255 ? 255 : (unsigned)value;
        at = end;
        if (*at == ':')
            at++;
    }
    unsigned bus = count == 3 ? number[0] : 0;
    unsigned slot = count == 3 ? number[1] : number[0];
    unsigned function = count == 3 ? number[2] : number[1];
    if (!*at && count > 0 && bus == 0 && slot < 32 && function < 8) {
        *devfn = (uint8_t)(slot << 3 | function);
        return true;
    }
    error_usage(err, "slot", text, "there is none on this board");
    return error_hint(err, "write SLOT, SLOT:FUNCTION or 0:SLOT:FUNCTION, slots 0 to 31");
}

static bool check_place(struct xhyve *xhyve, const char *text, uint8_t devfn, bool is_at_slot,
                        struct error *err)
{
    if (xhyve->has_slot[devfn])
        return error_usage(err, "slot", text, "it is taken already");
    xhyve->has_slot[devfn] = true;
    if (!is_at_slot || (devfn >> 3 != 0 && devfn >> 3 != 31))
        return true;
    error_usage(err, "slot", text, "it is the chipset's");
    return error_hint(err, "choose a slot from 1 to 30");
}

bool xhyve_slot(struct xhyve *xhyve, const char *value, struct error *err)
{
    uint8_t devfn = 0;
    char *rest = xhyve_copy(xhyve, value, err);
    if (!rest)
        return false;
    const char *place = next_piece(&rest), *name = next_piece(&rest);
    if (!parse_place(place, &devfn, err))
        return false;
    for (size_t i = 0; i < sizeof(emulations) / sizeof(emulations[0]); i++)
        if (!strcmp(emulations[i].name, name))
            return check_place(xhyve, place, devfn, emulations[i].is_at_slot, err) &&
                   emulations[i].plug(xhyve, devfn, rest, err);
    error_usage(err, "emulation", name, "there is none of this name");
    return error_hint(err, "the man page skep(1) lists them under xhyve");
}

/* ---- -l ---- */

/* Where it goes; the name of a link to a pseudo terminal goes with that. */
static bool serial_target(struct xhyve *xhyve, unsigned port, char *target, struct error *err)
{
    const char **where = &xhyve->vm.machine.serials[port];
    struct stat info;
    char text[512];
    if (*where) {
        error_usage(err, "serial port's back end", target, "it has one already");
        return error_hint(err, "beside it there may be log=FILE");
    }
    if (!strcmp(target, "stdio") || !strcmp(target, "null")) {
        *where = target;
        return true;
    }
    if (!strcmp(target, "autopty") || !strncmp(target, "autopty=", 8)) {
        *where = "pty";
        xhyve->links[port] = target[7] ? target + 8 : NULL;
        return true;
    }
    if (target[0] != '/') {
        error_usage(err, "serial port's back end", target, "there is none of this name");
        return error_hint(err, "it is stdio, null, autopty[=LINK], log=FILE, asl or a device");
    }
    bool is_pipe = stat(target, &info) == 0 && S_ISFIFO(info.st_mode);
    snprintf(text, sizeof(text), "%s:%s", is_pipe ? "pipe" : "tty", target);
    *where = xhyve_copy(xhyve, text, err);
    return *where;
}

/* HyperKit's ports may have a log beside their back end, or only that. */
static bool serial_backends(struct xhyve *xhyve, unsigned port, char *rest, struct error *err)
{
    struct machine_config *machine = &xhyve->vm.machine;
    while (rest) {
        char *piece = strsep(&rest, ",");
        if (!strcmp(piece, "asl"))
            cli_progress(xhyve->cli, "com%u: this host has no Apple system log; use log=FILE",
                         port + 1);
        else if (!strncmp(piece, "log=", 4))
            machine->serial_logs[port] = piece + 4;
        else if (!serial_target(xhyve, port, piece, err))
            return false;
    }
    if (!machine->serials[port])
        machine->serials[port] = "null";
    return true;
}

bool xhyve_lpc(struct xhyve *xhyve, const char *value, struct error *err)
{
    struct machine_config *machine = &xhyve->vm.machine;
    char *rest = xhyve_copy(xhyve, value, err);
    if (!rest)
        return false;
    const char *name = next_piece(&rest);
    if (!rest || !*rest) {
        error_usage(err, "LPC device", value, "nothing was said of what it is made of");
        return error_hint(err, "as -l com1,stdio or -l bootrom,/usr/share/ovmf/OVMF.fd");
    }
    if (!strcmp(name, "bootrom")) {
        machine->rom = rest;
        return true;
    }
    bool is_com = !strncmp(name, "com", 3) && name[3] >= '1' && name[3] <= '4' && !name[4];
    if (!is_com) {
        error_usage(err, "LPC device", name, "there is none of this name");
        return error_hint(err, "they are com1 to com4 and bootrom");
    }
    unsigned port = (unsigned)(name[3] - '1');
    if (machine->serial_count <= port)
        machine->serial_count = port + 1;
    return serial_backends(xhyve, port, rest, err);
}

/* ---- -f ---- */

static char *unquote(char *text)
{
    size_t length = text ? strlen(text) : 0;
    if (length < 2 || text[0] != '"' || text[length - 1] != '"')
        return text;
    text[length - 1] = '\0';
    return text + 1;
}

static bool kernel_options(struct machine_config *machine, char *rest, struct error *err)
{
    machine->kernel = next_piece(&rest);
    if (!*machine->kernel) {
        error_usage(err, "firmware", "kexec", "no kernel was given");
        return error_hint(err, "as -f kexec,vmlinuz,initrd.gz,\"console=ttyS0\"");
    }
    const char *initrd = next_piece(&rest);
    if (*initrd)
        machine->initrds[machine->initrd_count++] = initrd;
    machine->cmdline = rest ? unquote(rest) : "";
    return true;
}

/* A module's arguments stand behind a semicolon there, behind a blank here. */
static void module_arguments(struct machine_config *machine)
{
    for (unsigned i = 0; i < machine->initrd_count; i++) {
        char *at = strchr((char *)(uintptr_t)machine->initrds[i], ';');
        if (at)
            *at = ' ';
    }
}

bool xhyve_firmware(struct xhyve *xhyve, const char *value, struct error *err)
{
    struct machine_config *machine = &xhyve->vm.machine;
    char *rest = xhyve_copy(xhyve, value, err);
    if (!rest)
        return false;
    if (machine->kernel || machine->rom)
        return error_usage(err, "firmware", value, "there is one already");
    const char *kind = next_piece(&rest);
    if (!strcmp(kind, "kexec"))
        return kernel_options(machine, rest, err);
    if (!strcmp(kind, "multiboot")) {
        bool is_good = kernel_options(machine, rest, err);
        module_arguments(machine);
        return is_good;
    }
    if (!strcmp(kind, "bootrom")) {
        machine->rom = next_piece(&rest);
        return *machine->rom || error_usage(err, "firmware", kind, "no ROM was given");
    }
    if (!strcmp(kind, "fbsd")) {
        error_usage(err, "firmware", kind,
                    "userboot.so is a loader for FreeBSD's and Apple's hosts, not for this one");
        return error_hint(err,
                          "boot the disk by its own loader: -l bootrom,/usr/share/ovmf/OVMF.fd");
    }
    error_usage(err, "firmware", kind, "there is none of this name");
    return error_hint(err, "they are kexec, multiboot and bootrom");
}
