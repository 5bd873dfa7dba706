/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What the host gives to the machine: opens disks, networks and character back ends as configured,
 * and puts the virtio devices on them into their slots. Runs on the loop's thread.
 */
#include "dev/net/e1000.h"
#include "dev/storage/nvme.h"
#include "dev/tpm.h"
#include "dev/virtio/balloon.h"
#include "dev/virtio/blk.h"
#include "dev/virtio/console.h"
#include "dev/virtio/net.h"
#include "dev/virtio/rng.h"
#include "host/char_log.h"
#include "host/raw.h"
#include "host/slirp.h"
#include "host/swtpm.h"
#include "host/tap.h"
#include "host/tty.h"
#include "machine/drives.h"
#include "machine/machine_internal.h"
#include "machine/net_rom.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Two disks of one image would overwrite each other; when both are only read it is fine. The lock
 * would tell of another virtual machine. */
static bool is_on_another(const struct machine *machine, unsigned index, const char *path)
{
    const struct machine_disk *disks = machine->config.disks;
    struct stat one, other;
    if (stat(path, &one) != 0)
        return false;
    for (unsigned i = 0; i < machine->config.disk_count; i++)
        if (i != index && disks[i].path && !(disks[index].read_only && disks[i].read_only) &&
            stat(disks[i].path, &other) == 0 && one.st_dev == other.st_dev &&
            one.st_ino == other.st_ino)
            return true;
    return false;
}

bool backends_open_disk(struct machine *machine, unsigned index, const char *path,
                        struct block_backend *out, struct error *err)
{
    const struct machine_disk *disk = &machine->config.disks[index];
    if (is_on_another(machine, index, path)) {
        error_usage(err, "cannot attach disk", path, "another disk of the machine is the same");
        return error_hint(err, "give each an image of its own, or add ,ro to both");
    }
    const struct raw_config config = {
        .path = path,
        .read_only = disk->read_only || disk->is_cdrom,
        .is_surely_raw = disk->is_surely_raw || disk->is_cdrom,
        .new_size = disk->is_cdrom                     ? NULL
                    : disk->bus == MACHINE_DISK_FLOPPY ? "1440K"
                                                       : "10G",
        .log = machine->log,
    };
    return raw_open(&config, machine->loop, out, err);
}

static bool open_disks(struct machine *machine, struct error *err)
{
    for (unsigned i = 0; i < machine->config.disk_count; i++) {
        const char *path = machine->config.disks[i].path;
        if (path && !backends_open_disk(machine, i, path, &machine->backends.disk[i], err))
            return false;
    }
    return true;
}

static bool open_user_net(struct machine *machine, const struct machine_net *net,
                          struct net_backend *out, struct error *err)
{
    struct slirp_forward forwards[MACHINE_MAX_FORWARDS];
    for (unsigned i = 0; i < net->forward_count; i++)
        forwards[i] = (struct slirp_forward){
            .is_udp = net->forwards[i].is_udp,
            .host_addr = net->forwards[i].host_address,
            .host_port = net->forwards[i].host_port,
            .guest_port = net->forwards[i].guest_port,
        };
    const struct slirp_config config = {
        .forwards = forwards,
        .forward_count = net->forward_count,
        .tftp = net->tftp,
        .bootfile = net->bootfile,
        .http = net->http,
        .log = machine->log,
    };
    return slirp_open(&config, machine->loop, out, err);
}

static bool open_tap(struct machine *machine, const struct machine_net *net,
                     struct net_backend *out, struct error *err)
{
    const struct tap_config config = {
        .name = net->tap_name, .fd = net->tap_fd, .log = machine->log};
    return tap_open(&config, machine->loop, out, err);
}

static bool open_nets(struct machine *machine, struct error *err)
{
    for (unsigned i = 0; i < machine->config.net_count; i++) {
        const struct machine_net *net = &machine->config.nets[i];
        struct net_backend *out = &machine->backends.net[i];
        bool is_open = false;
        switch (net->kind) {
        case MACHINE_NET_USER: is_open = open_user_net(machine, net, out, err); break;
        case MACHINE_NET_TAP: is_open = open_tap(machine, net, out, err); break;
        }
        if (!is_open)
            return false;
    }
    return true;
}

static bool open_char(struct machine *machine, const char *spec, struct machine_char *out,
                      struct error *err)
{
    if (!spec)
        return true;
    const struct chardev_config config = {
        .spec = spec, .escape = machine->config.escape, .escape_opaque = machine->config.opaque};
    out->chardev = chardev_open(&config, machine->loop, &out->backend, err);
    return out->chardev;
}

static bool open_chars(struct machine *machine, struct error *err)
{
    struct backends *backends = &machine->backends;
    for (unsigned i = 0; i < machine->config.serial_count; i++) {
        const char *log = machine->config.serial_logs[i];
        struct machine_char *serial = &backends->serial[i];
        if (!open_char(machine, machine->config.serials[i], serial, err) ||
            (log && serial->chardev && !char_log_open(&serial->backend, log, err)))
            return false;
    }
    for (unsigned i = 0; i < machine->config.console_count; i++)
        if (!open_char(machine, machine->config.consoles[i].where, &backends->console[i], err))
            return false;
    return open_char(machine, machine->config.debugcon, &backends->debugcon, err) &&
           open_char(machine, machine->config.post, &backends->post, err) &&
           open_char(machine, machine->config.parallel, &backends->parallel, err);
}

static bool open_tpm(struct machine *machine, struct error *err)
{
    static const char kind[] = "unix:";
    const char *where = machine->config.tpm;
    if (!where)
        return true;
    if (strncmp(where, kind, strlen(kind)) != 0)
        return error_usage(err, "TPM", where, "it is not of the form unix:PATH");
    const struct swtpm_config config = {
        .path = where + strlen(kind),
        .buffer_bytes =
            machine->config.tpm_is_tis ? (uint32_t)TPM_TIS_BUFFER_BYTES : TPM_CRB_BUFFER_BYTES,
        .log = machine->log,
    };
    return swtpm_open(&config, machine->loop, &machine->backends.tpm, err);
}

/* The terminal last: it changes the person's screen, so nothing should fail after it. */
bool backends_open(struct machine *machine, struct error *err)
{
    return open_disks(machine, err) && open_tpm(machine, err) && open_nets(machine, err) &&
           display_open(machine, err) && open_chars(machine, err);
}

/* A place of the user's choice, or that of number `index` of its kind. */
static struct q35_place place_of(struct machine *machine, uint8_t devfn, enum q35_plug_kind kind,
                                 unsigned index)
{
    return devfn ? q35_place_at(machine->board, devfn) : q35_place(machine->board, kind, index);
}

static bool is_function(const struct machine_disk *disk)
{
    return disk->bus == MACHINE_DISK_VIRTIO || disk->bus == MACHINE_DISK_NVME;
}

struct q35_place backends_disk_place(struct machine *machine, unsigned disk)
{
    const struct machine_disk *disks = machine->config.disks;
    unsigned before = 0;
    for (unsigned i = 0; i < disk; i++)
        before += is_function(&disks[i]);
    if (disks[disk].bus == MACHINE_DISK_AHCI)
        return q35_place(machine->board, Q35_AHCI, 0);
    if (disks[disk].bus == MACHINE_DISK_IDE)
        return q35_place(machine->board, Q35_IDE, 0);
    if (disks[disk].bus == MACHINE_DISK_SCSI)
        return q35_place(machine->board, Q35_SCSI, 0);
    if (disks[disk].bus == MACHINE_DISK_USB)
        return q35_place(machine->board, Q35_XHCI, 0);
    return place_of(machine, disks[disk].devfn, Q35_DISK, before);
}

struct q35_place backends_net_place(struct machine *machine, unsigned net)
{
    return place_of(machine, machine->config.nets[net].devfn, Q35_NET, net);
}

static bool plug_virtio_disk(struct machine *machine, unsigned disk, unsigned place,
                             struct error *err)
{
    const struct virtio_blk_config config = {
        .ram = machine->ram,
        .loop = machine->loop,
        .log = machine->log,
        .backend = &machine->backends.disk[disk],
        .serial = machine->config.disks[disk].serial,
        .queue_count = machine->config.vcpu_count,
    };
    struct virtio_device *device = virtio_blk_create(&config, err);
    const struct q35_place at =
        place_of(machine, machine->config.disks[disk].devfn, Q35_DISK, place);
    return device && q35_plug(machine->board, &at, device, err);
}

static bool plug_nvme_disk(struct machine *machine, unsigned disk, unsigned place,
                           struct error *err)
{
    const struct q35_place where =
        place_of(machine, machine->config.disks[disk].devfn, Q35_DISK, place);
    const struct nvme_config config = {
        .pci = where.pci,
        .slot = where.slot,
        .function = where.function,
        .msi = where.msi,
        .ram = machine->ram,
        .log = machine->log,
        .backend = &machine->backends.disk[disk],
        .serial = machine->config.disks[disk].serial,
    };
    struct nvme *nvme = nvme_create(&config, err);
    if (!nvme)
        return false;
    q35_adopt(machine->board, &where, &nvme_ops, nvme);
    return true;
}

/* Disks that are PCI functions themselves have places by their number among those. */
static bool plug_disks(struct machine *machine, struct error *err)
{
    unsigned places = 0;
    for (unsigned i = 0; i < machine->config.disk_count; i++) {
        switch (machine->config.disks[i].bus) {
        case MACHINE_DISK_VIRTIO:
            if (!plug_virtio_disk(machine, i, places++, err))
                return false;
            break;
        case MACHINE_DISK_NVME:
            if (!plug_nvme_disk(machine, i, places++, err))
                return false;
            break;
        case MACHINE_DISK_FLOPPY: break; /* the board's own */
        case MACHINE_DISK_SCSI:
        case MACHINE_DISK_AHCI:
        case MACHINE_DISK_USB:
        case MACHINE_DISK_IDE: break; /* drives.c */
        case MACHINE_DISK_BUSES: assert(false);
        }
    }
    return true;
}

/* As QEMU numbers its cards; the first bits say that it is locally administered. */
static void choose_mac(const struct machine_net *net, unsigned index, uint8_t mac[6])
{
    static const uint8_t none[6];
    const uint8_t numbered[6] = {0x52, 0x54, 0x00, 0x12, 0x34, (uint8_t)(0x56 + index)};
    memcpy(mac, memcmp(net->mac, none, sizeof(none)) ? net->mac : numbered, sizeof(none));
}

static bool plug_virtio_net(struct machine *machine, unsigned net, const struct q35_place *place,
                            struct error *err)
{
    struct virtio_net_config config = {
        .ram = machine->ram,
        .log = machine->log,
        .loop = machine->loop,
        .backend = machine->backends.net[net],
    };
    choose_mac(&machine->config.nets[net], net, config.mac);
    struct virtio_device *device = virtio_net_create(&config, err);
    return device && q35_plug(machine->board, place, device, err);
}

static bool plug_e1000(struct machine *machine, unsigned net, const struct q35_place *place,
                       struct error *err)
{
    bool is_e1000e = machine->config.nets[net].model == MACHINE_NET_E1000E;
    struct e1000_config config = {
        .model = is_e1000e ? E1000_82574L : E1000_82545EM,
        .pci = place->pci,
        .slot = place->slot,
        .function = place->function,
        .msi = place->msi,
        .ram = machine->ram,
        .clock = machine->clock,
        .loop = machine->loop,
        .log = machine->log,
        .backend = machine->backends.net[net],
        .rom = place->rom,
        .rom_bytes = place->rom_bytes,
    };
    choose_mac(&machine->config.nets[net], net, config.mac);
    struct e1000 *e1000 = e1000_create(&config, err);
    if (!e1000)
        return false;
    q35_adopt(machine->board, place, e1000_ops_of(config.model), e1000);
    return true;
}

static bool plug_nets(struct machine *machine, struct error *err)
{
    for (unsigned i = 0; i < machine->config.net_count; i++) {
        const struct machine_net *net = &machine->config.nets[i];
        struct q35_place place = place_of(machine, net->devfn, Q35_NET, i);
        void *rom = net_rom_read(machine, net->model, &place.rom_bytes);
        place.rom = rom;
        bool is_plugged = net->model == MACHINE_NET_VIRTIO
                              ? plug_virtio_net(machine, i, &place, err)
                              : plug_e1000(machine, i, &place, err);
        free(rom);
        if (!is_plugged)
            return false;
    }
    return true;
}

/* The size of the terminal that port 0 is on, if it is on one. */
static bool console_size(const struct machine *machine, uint16_t *columns, uint16_t *rows)
{
    struct chardev *chardev = machine->backends.console[0].chardev;
    const struct tty *tty = chardev ? chardev_tty(chardev) : NULL;
    unsigned wide, high;
    if (!tty || !tty_size(tty, &wide, &high))
        return false;
    *columns = (uint16_t)wide;
    *rows = (uint16_t)high;
    return true;
}

static bool plug_consoles(struct machine *machine, struct error *err)
{
    struct virtio_console_port ports[MACHINE_MAX_CONSOLES] = {0};
    struct virtio_console_config config = {.ram = machine->ram,
                                           .log = machine->log,
                                           .loop = machine->loop,
                                           .ports = ports,
                                           .port_count = machine->config.console_count};
    if (!config.port_count)
        return true;
    for (unsigned i = 0; i < config.port_count; i++) {
        ports[i].backend = machine->backends.console[i].backend;
        ports[i].name = machine->config.consoles[i].name;
        ports[i].is_console = !ports[i].name;
    }
    console_size(machine, &config.columns, &config.rows);
    machine->console = virtio_console_create(&config, err);
    const struct q35_place place = q35_place(machine->board, Q35_CONSOLE, 0);
    return machine->console && q35_plug(machine->board, &place, machine->console, err);
}

void machine_terminal_resized(struct machine *machine)
{
    uint16_t columns, rows;
    if (machine->console && console_size(machine, &columns, &rows))
        virtio_console_resize(machine->console, columns, rows);
}

static bool plug_rng(struct machine *machine, struct error *err)
{
    const struct virtio_rng_config config = {
        .ram = machine->ram, .loop = machine->loop, .log = machine->log};
    if (machine->config.no_rng)
        return true;
    struct virtio_device *device = virtio_rng_create(&config, err);
    const struct q35_place place = place_of(machine, machine->config.rng_devfn, Q35_RNG, 0);
    return device && q35_plug(machine->board, &place, device, err);
}

static bool plug_balloon(struct machine *machine, struct error *err)
{
    const struct virtio_balloon_config config = {
        .ram = machine->ram, .loop = machine->loop, .log = machine->log};
    if (machine->config.no_balloon)
        return true;
    machine->balloon = virtio_balloon_create(&config, err);
    const struct q35_place place = q35_place(machine->board, Q35_BALLOON, 0);
    return machine->balloon && q35_plug(machine->board, &place, machine->balloon, err);
}

static bool has_balloon(const struct machine *machine, const char *what, struct error *err)
{
    if (machine->balloon)
        return true;
    error_set(err, what, NULL, "the machine has no balloon");
    return error_hint(err, "start it without --no-balloon");
}

bool machine_set_balloon(struct machine *machine, uint64_t size_bytes, struct error *err)
{
    static const char what[] = "cannot change the guest's memory";
    if (!has_balloon(machine, what, err))
        return false;
    if (!size_bytes || size_bytes > machine->config.memory_bytes) {
        error_usage(err, what, NULL, "it can have some of the %llu MiB that it was started with",
                    (unsigned long long)(machine->config.memory_bytes >> 20));
        return error_hint(err, "for more, start it with another -m");
    }
    virtio_balloon_set_target(machine->balloon, size_bytes);
    return true;
}

bool machine_get_balloon(struct machine *machine, int64_t values[MACHINE_MEMORIES],
                         struct error *err)
{
    static const enum virtio_balloon_stat stats_of[MACHINE_MEMORIES] = {
        [MACHINE_MEMORY_FREE] = BALLOON_FREE_BYTES,
        [MACHINE_MEMORY_AVAILABLE] = BALLOON_AVAILABLE_BYTES,
        [MACHINE_MEMORY_CACHE] = BALLOON_CACHE_BYTES};
    struct virtio_balloon_stats stats;
    if (!has_balloon(machine, "cannot tell the guest's memory", err))
        return false;
    virtio_balloon_get_stats(machine->balloon, &stats);
    (void)virtio_balloon_request_stats(machine->balloon);
    values[MACHINE_MEMORY_ACTUAL] = (int64_t)virtio_balloon_actual_bytes(machine->balloon);
    for (unsigned i = MACHINE_MEMORY_FREE; i < MACHINE_MEMORIES; i++)
        values[i] = stats.valid >> stats_of[i] & 1 ? (int64_t)stats.values[stats_of[i]] : -1;
    return true;
}

bool backends_plug(struct machine *machine, struct error *err)
{
    return plug_rng(machine, err) && plug_balloon(machine, err) && plug_nets(machine, err) &&
           plug_consoles(machine, err) && plug_disks(machine, err) &&
           drives_plug_ahci(machine, err) && drives_plug_ide(machine, err) &&
           drives_plug_scsi(machine, err) && display_plug(machine, err) && plug_usb(machine, err) &&
           plug_input(machine, err);
}

void backends_drain(struct machine *machine)
{
    const struct tpm_backend *tpm = &machine->backends.tpm;
    if (tpm->close)
        tpm->drain(tpm->opaque);
    for (unsigned i = 0; i < machine->config.disk_count; i++) {
        const struct block_backend *disk = &machine->backends.disk[i];
        if (disk->close)
            disk->drain(disk->opaque);
    }
}

static void flushed(struct block_request *request, int error)
{
    *(int *)request->opaque = error;
}

bool backends_flush(struct machine *machine, struct error *err)
{
    struct block_request requests[MACHINE_MAX_DISKS];
    int errors[MACHINE_MAX_DISKS] = {0};
    backends_drain(machine);
    for (unsigned i = 0; i < machine->config.disk_count; i++) {
        const struct block_backend *disk = &machine->backends.disk[i];
        requests[i] =
            (struct block_request){.kind = BLOCK_FLUSH, .done = flushed, .opaque = &errors[i]};
        if (disk->close && !machine->config.disks[i].read_only)
            disk->submit(disk->opaque, &requests[i]);
    }
    backends_drain(machine);
    for (unsigned i = 0; i < machine->config.disk_count; i++)
        if (errors[i])
            return error_errno(err, "cannot write back the disk", machine->config.disks[i].path,
                               errors[i]);
    return true;
}

void machine_reset_connections(struct machine *machine)
{
    for (unsigned i = 0; i < machine->config.net_count; i++) {
        const struct net_backend *net = &machine->backends.net[i];
        if (net->reset_connections)
            net->reset_connections(net->opaque);
    }
}

static void close_char(struct machine_char *one)
{
    if (one->chardev)
        one->backend.close(one->backend.opaque);
    *one = (struct machine_char){0};
}

void backends_close(struct machine *machine)
{
    struct backends *backends = &machine->backends;
    for (unsigned i = 0; i < MACHINE_MAX_DISKS; i++)
        if (backends->disk[i].close)
            backends->disk[i].close(backends->disk[i].opaque);
    for (unsigned i = 0; i < MACHINE_MAX_NETS; i++)
        if (backends->net[i].close)
            backends->net[i].close(backends->net[i].opaque);
    if (backends->tpm.close)
        backends->tpm.close(backends->tpm.opaque);
    for (unsigned i = 0; i < MACHINE_MAX_SERIALS; i++)
        close_char(&backends->serial[i]);
    for (unsigned i = 0; i < MACHINE_MAX_CONSOLES; i++)
        close_char(&backends->console[i]);
    close_char(&backends->debugcon);
    close_char(&backends->post);
    close_char(&backends->parallel);
    memset(backends, 0, sizeof(*backends));
}

const struct char_backend *backends_char(const struct machine_char *one)
{
    return one->chardev ? &one->backend : NULL;
}

static struct tty *tty_of(const struct machine_char *one)
{
    return one->chardev ? chardev_tty(one->chardev) : NULL;
}

static struct tty *find_tty(const struct machine *machine)
{
    const struct backends *backends = &machine->backends;
    struct tty *tty = NULL;
    for (unsigned i = 0; i < MACHINE_MAX_SERIALS && !tty; i++)
        tty = tty_of(&backends->serial[i]);
    for (unsigned i = 0; i < MACHINE_MAX_CONSOLES && !tty; i++)
        tty = tty_of(&backends->console[i]);
    if (!tty)
        tty = tty_of(&backends->debugcon);
    if (!tty)
        tty = tty_of(&backends->post);
    return tty ? tty : tty_of(&backends->parallel);
}

bool machine_has_terminal(const struct machine *machine)
{
    const struct tty *tty = find_tty(machine);
    return tty && tty_is_raw(tty);
}

bool machine_print(struct machine *machine, const char *text)
{
    struct tty *tty = find_tty(machine);
    if (tty)
        tty_print(tty, text);
    return tty;
}

void machine_terminal_resume(struct machine *machine)
{
    const struct tty *tty = find_tty(machine);
    if (tty)
        tty_resume(tty);
}

static const char *path_of(const struct machine_char *one)
{
    return one->chardev ? chardev_path(one->chardev) : NULL;
}

const char *machine_serial_path(const struct machine *machine, unsigned index)
{
    return index < MACHINE_MAX_SERIALS ? path_of(&machine->backends.serial[index]) : NULL;
}

const char *machine_console_path(const struct machine *machine, unsigned index)
{
    return index < MACHINE_MAX_CONSOLES ? path_of(&machine->backends.console[index]) : NULL;
}
