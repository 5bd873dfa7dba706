/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A machine's life: building, start, pause, reset, power off, end. What a vCPU's thread asks for
 * (reset, power off, failure) stops all vCPUs at once and is then done on the loop's thread.
 */
#include "machine/machine.h"

#include "machine/boot.h"
#include "machine/debug.h"
#include "machine/fw_items.h"
#include "machine/machine_internal.h"
#include "machine/mtrr.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

/* ---- requests from any thread ---- */

void machine_request(struct machine *machine, enum machine_request what)
{
    if (atomic_fetch_or(&machine->requests, (unsigned)what))
        return; /* the loop was told already */
    const uint64_t one = 1;
    ssize_t written = write(machine->request_fd, &one, sizeof(one));
    (void)written; /* it only fails when the counter is full, and then the loop knows */
}

/* The same by the guest, which must not go on after it. */
static void request_and_stop(struct machine *machine, enum machine_request what)
{
    vcpus_request_pause(machine->vcpus);
    machine_request(machine, what);
}

static void board_reset(void *opaque)
{
    request_and_stop(opaque, REQUEST_RESET);
}

static void board_power_off(void *opaque)
{
    request_and_stop(opaque, REQUEST_POWER_OFF);
}

static void board_sleep(void *opaque)
{
    request_and_stop(opaque, REQUEST_SLEEP);
}

static void board_wake(void *opaque)
{
    machine_request(opaque, REQUEST_WAKE);
}

static void board_exit(void *opaque, uint32_t value)
{
    struct machine *machine = opaque;
    pthread_mutex_lock(&machine->request_lock);
    if (!(atomic_load(&machine->requests) & REQUEST_EXIT))
        machine->exit_value = value;
    request_and_stop(machine, REQUEST_EXIT);
    pthread_mutex_unlock(&machine->request_lock);
}

static void fail(struct machine *machine, const struct error *error)
{
    pthread_mutex_lock(&machine->request_lock);
    if (!(atomic_load(&machine->requests) & REQUEST_FAILED))
        machine->failure = *error;
    request_and_stop(machine, REQUEST_FAILED);
    pthread_mutex_unlock(&machine->request_lock);
}

static void vcpu_event(void *opaque, unsigned vcpu, enum vcpus_event event,
                       const struct error *error)
{
    struct machine *machine = opaque;
    switch (event) {
    case VCPUS_TRIPLE_FAULT:
        if (machine_debug_shutdown(machine, vcpu))
            break;
        log_write(machine->log, LOG_WARNING, "machine",
                  "triple fault on vCPU %u: the machine resets itself", vcpu);
        atomic_store(&machine->has_triple_fault, true);
        machine_request(machine, REQUEST_RESET);
        break;
    case VCPUS_HALTED: machine_request(machine, REQUEST_HALTED); break;
    case VCPUS_DEBUG: machine_request(machine, REQUEST_DEBUG); break;
    case VCPUS_RESET: machine_request(machine, REQUEST_RESET); break;
    case VCPUS_FAILED: fail(machine, error); break;
    }
}

static void stray_port(void *opaque, uint64_t port, bool is_write, unsigned size_bytes)
{
    char where[32];
    struct error error = {0};
    snprintf(where, sizeof(where), "port %#" PRIx64, port);
    error_set(&error, "the guest cannot go on", where, "it has %s %u bytes, and no device is there",
              is_write ? "written" : "read", size_bytes);
    fail(opaque, &error);
}

const char *machine_boot_summary(const struct machine *machine)
{
    return machine->disk_files.summary;
}

void machine_reset(struct machine *machine)
{
    machine_request(machine, REQUEST_RESET);
}

void machine_quit(struct machine *machine)
{
    machine_request(machine, REQUEST_QUIT);
}

void machine_power_button(struct machine *machine)
{
    q35_press_power_button(machine->board);
}

/* ---- input ---- */

void machine_key(struct machine *machine, unsigned key, bool is_down)
{
    input_key(q35_input(machine->board), key, is_down);
}

void machine_pointer(struct machine *machine, const struct input_pointer *pointer)
{
    input_pointer(q35_input(machine->board), pointer);
}

bool machine_pointer_is_absolute(struct machine *machine)
{
    return input_is_absolute(q35_input(machine->board));
}

void machine_release_input(struct machine *machine)
{
    input_release(q35_input(machine->board));
}

/* ---- boot and reset ---- */

/* Firmware gives all processors the same memory types; a kernel that is booted without takes them
 * to be disabled otherwise. A ROM does that itself. */
static bool set_states(struct machine *machine, struct x86_state *bsp, struct error *err)
{
    struct x86_state ap;
    unsigned physical_bits = machine->engine->physical_bits(machine->vm);
    x86_state_reset(&ap, false);
    ap.tsc = bsp->tsc;
    if (!machine->rom.bytes) {
        mtrr_fill(&ap, physical_bits);
        mtrr_fill(bsp, physical_bits);
    }
    for (unsigned i = 0; i < machine->config.vcpu_count; i++)
        if (!vcpus_set_state(machine->vcpus, i, i ? &ap : bsp, err))
            return false;
    return true;
}

static struct boot_config boot_config(struct machine *machine, const struct memory_map *map)
{
    return (struct boot_config){
        .kernel = machine->kernel,
        .initrds = machine->initrds,
        .initrd_count = machine->initrd_count,
        .module_texts =
            machine->module_texts[0] ? (const char *const *)machine->module_texts : NULL,
        .cmdline =
            machine->disk_files.cmdline ? machine->disk_files.cmdline : machine->config.cmdline,
        .map = map,
    };
}

/* From the state after power-on to where the kernel is entered; memory is clear. */
static bool boot(struct machine *machine, struct error *err)
{
    struct memory_map map;
    struct boot_config config = boot_config(machine, &map);
    struct x86_state bsp;
    if (!machine->kernel && (machine->config.kernel || !machine->rom.bytes))
        return error_set(err, "cannot start the guest again", machine->config.kernel,
                         "its kernel could not be opened");
    x86_state_reset(&bsp, true);
    if (machine->rom.bytes) {
        if (!machine->config.rom_is_firmware)
            boot_rom_shadow(&machine->rom, machine->ram);
        return set_states(machine, &bsp, err);
    }
    if (!q35_boot(machine->board, &map, &config.rsdp_gpa, err))
        return false;
    return boot_load(&config, machine->ram, &bsp, err) && set_states(machine, &bsp, err);
}

/* The guest's clocks all stop at one moment, and go on at one. */
static void stop_time(struct machine *machine)
{
    machine->engine->stop_time(machine->vm, clock_pause(machine->clock));
}

static void start_time(struct machine *machine)
{
    machine->engine->start_time(machine->vm, clock_resume(machine->clock));
}

/* With all vCPUs paused. In this order: nothing of what devices have under way may reach the memory
 * of the next run. */
static bool restart(struct machine *machine, struct error *err)
{
    backends_drain(machine);
    if (machine->config.kernel_from_disk && !kernel_read_disk(machine, err))
        return false;
    q35_reset(machine->board);
    ram_clear(machine->ram);
    if (!boot(machine, err))
        return false;
    machine->is_asleep = machine->is_halted = false;
    machine_debug_restarted(machine);
    machine->reboots++;
    return true;
}

/* Out of S3 (ACPI 6.4, 16.3.1.2): everything is as after a reset but memory, and the first
 * processor goes on in real mode where the guest has said. The time-stamp counters have gone on:
 * KVM's clock is read by them. With all vCPUs paused. */
static bool wake(struct machine *machine, struct error *err)
{
    struct x86_state bsp, old;
    uint32_t vector = q35_waking_vector(machine->board);
    if (!vector) {
        log_write(machine->log, LOG_WARNING, "machine",
                  "the guest woke up without saying where to go on: it starts again");
        return restart(machine, err);
    }
    backends_drain(machine);
    if (!vcpus_get_state(machine->vcpus, 0, &old, err) || !q35_wake(machine->board, err))
        return false;
    x86_state_reset(&bsp, true);
    bsp.tsc = old.tsc - old.tsc_adjust;
    bsp.segment[SEG_CS].selector = (uint16_t)(vector >> 4);
    bsp.segment[SEG_CS].base = vector & 0xffff0;
    bsp.rip = vector & 0xf;
    if (!set_states(machine, &bsp, err))
        return false;
    machine->is_asleep = false;
    machine_debug_restarted(machine);
    return true;
}

void machine_resume_vcpus(struct machine *machine)
{
    if (!machine->is_asleep)
        vcpus_resume(machine->vcpus);
}

/* ---- the loop's side of requests ---- */

/* With all vCPUs paused. */
static void finish(struct machine *machine, enum machine_end_reason reason)
{
    struct machine_end end = {.reason = reason};
    stop_time(machine);
    machine->is_running = false;
    machine->is_finished = true;
    pthread_mutex_lock(&machine->request_lock);
    if (reason == MACHINE_FAILED)
        end.error = machine->failure;
    if (reason == MACHINE_EXIT_PORT)
        end.exit_value = machine->exit_value;
    end.triple_fault = reason == MACHINE_REBOOTED && atomic_load(&machine->has_triple_fault);
    pthread_mutex_unlock(&machine->request_lock);
    machine->finished(machine->opaque, &end);
}

static void reset_now(struct machine *machine)
{
    if (machine->config.no_reboot) {
        finish(machine, MACHINE_REBOOTED);
        return;
    }
    struct error err = {0};
    atomic_store(&machine->has_triple_fault, false);
    if (!restart(machine, &err)) {
        machine->failure = err;
        finish(machine, MACHINE_FAILED);
        return;
    }
    log_write(machine->log, LOG_INFO, "machine", "the guest starts again%s%s",
              machine->disk_files.summary ? ": " : "",
              machine->disk_files.summary ? machine->disk_files.summary : "");
    if (machine->is_running)
        machine_resume_vcpus(machine);
}

/* A wake-up that comes at once is served with the request to sleep. */
static void sleep_or_wake(struct machine *machine, unsigned requests)
{
    struct error err = {0};
    machine->is_asleep |= (requests & REQUEST_SLEEP) != 0;
    if ((requests & REQUEST_WAKE) && machine->is_asleep && !wake(machine, &err)) {
        machine->failure = err;
        finish(machine, MACHINE_FAILED);
        return;
    }
    log_write(machine->log, LOG_INFO, "machine",
              machine->is_asleep ? "the guest sleeps" : "the guest is awake");
    if (requests & REQUEST_DEBUG)
        machine_debug_stopped(machine);
    else if (machine->is_running)
        machine_resume_vcpus(machine);
}

static void look_whether_halted(struct machine *machine)
{
    bool was_halted = machine->is_halted, was_running = machine->is_running;
    machine->is_halted = false;
    if (halt_is_possible(machine)) {
        machine_pause(machine);
        machine->is_halted = halt_is_final(machine);
    }
    if (machine->is_halted && machine->config.halt_ends) {
        finish(machine, MACHINE_HALTED);
        return;
    }
    if (machine->is_running)
        machine_resume_vcpus(machine);
    else if (was_running)
        machine_resume(machine);
    if (machine->is_halted && !was_halted && machine->config.halted)
        machine->config.halted(machine->config.opaque);
}

void machine_serve_requests(struct machine *machine)
{
    if (machine->is_finished || !atomic_load(&machine->requests))
        return;
    /* Once all stand still, what several vCPUs asked for at once is one request. */
    vcpus_pause(machine->vcpus);
    unsigned requests = atomic_exchange(&machine->requests, 0);
    if (requests & REQUEST_QUIT)
        finish(machine, MACHINE_QUIT);
    else if (requests & REQUEST_FAILED)
        finish(machine, MACHINE_FAILED);
    else if (requests & REQUEST_EXIT)
        finish(machine, MACHINE_EXIT_PORT);
    else if (requests & REQUEST_POWER_OFF)
        finish(machine, MACHINE_POWERED_OFF);
    else if (requests & REQUEST_RESET)
        reset_now(machine);
    else if (requests & (REQUEST_SLEEP | REQUEST_WAKE))
        sleep_or_wake(machine, requests);
    else if (requests & REQUEST_DEBUG)
        machine_debug_stopped(machine);
    else
        look_whether_halted(machine);
}

static void on_request(void *opaque, unsigned events)
{
    struct machine *machine = opaque;
    uint64_t count;
    ssize_t got = read(machine->request_fd, &count, sizeof(count));
    (void)got;
    machine_serve_requests(machine);
}

static bool open_requests(struct machine *machine, struct error *err)
{
    machine->request_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (machine->request_fd < 0)
        return error_errno(err, "cannot make the machine", "eventfd", errno);
    machine->request_watch =
        loop_watch_open(machine->loop, machine->request_fd, on_request, machine, err);
    if (!machine->request_watch)
        return false;
    loop_watch_set(machine->request_watch, LOOP_READABLE);
    return true;
}

/* ---- building ---- */

static bool check_memory(const struct machine_config *config, struct error *err)
{
    if (config->memory_bytes >= MACHINE_MIN_MEMORY_BYTES)
        return true;
    error_usage(err, "cannot make a machine", NULL,
                "%" PRIu64 " KiB of memory is too little: the least is %d MiB",
                config->memory_bytes >> 10, MACHINE_MIN_MEMORY_BYTES >> 20);
    return error_hint(err, "Debian's kernel takes 256M to start in");
}

/* Also of a saved machine, whose description may say anything. */
static bool check_drives(const struct machine_config *config, struct error *err)
{
    for (unsigned i = 0; i < config->disk_count; i++) {
        const struct machine_disk *disk = &config->disks[i];
        bool takes_cdroms = disk->bus == MACHINE_DISK_AHCI || disk->bus == MACHINE_DISK_IDE ||
                            disk->bus == MACHINE_DISK_SCSI || disk->bus == MACHINE_DISK_USB;
        if (disk->is_cdrom && !takes_cdroms) {
            error_usage(err, "cannot make a CD-ROM drive on", machine_disk_bus_name(disk->bus),
                        "it has no such drives");
            return error_hint(err, "the default is ahci; others are ide, scsi and usb");
        }
        if (!disk->path && !disk->is_cdrom && disk->bus != MACHINE_DISK_FLOPPY)
            return error_usage(err, "cannot make a disk", NULL, "it has no image");
    }
    return true;
}

static bool check_counts(const struct machine_config *config, struct error *err)
{
    static const char what[] = "cannot make a machine";
    if (config->vcpu_count > MACHINE_MAX_VCPUS)
        return error_usage(err, what, NULL, "%u vCPUs are too many: at most %d", config->vcpu_count,
                           MACHINE_MAX_VCPUS);
    if (config->disk_count > MACHINE_MAX_DISKS)
        return error_usage(err, what, NULL, "%u disks are too many: at most %d", config->disk_count,
                           MACHINE_MAX_DISKS);
    unsigned floppies = 0;
    for (unsigned i = 0; i < config->disk_count; i++)
        floppies += config->disks[i].bus == MACHINE_DISK_FLOPPY;
    if (floppies > MACHINE_MAX_FLOPPIES)
        return error_usage(err, what, NULL, "%u floppy drives are too many: at most %d", floppies,
                           MACHINE_MAX_FLOPPIES);
    if (config->net_count > MACHINE_MAX_NETS)
        return error_usage(err, what, NULL, "%u network cards are too many: at most %d",
                           config->net_count, MACHINE_MAX_NETS);
    if (config->serial_count > MACHINE_MAX_SERIALS)
        return error_usage(err, what, NULL, "%u serial ports are too many: at most %d",
                           config->serial_count, MACHINE_MAX_SERIALS);
    if (config->console_count > MACHINE_MAX_CONSOLES)
        return error_usage(err, what, NULL, "%u consoles are too many: at most %d",
                           config->console_count, MACHINE_MAX_CONSOLES);
    for (unsigned i = 0; i < config->console_count; i++)
        if (!config->consoles[i].where)
            return error_usage(err, what, NULL, "console %u has no back end", i);
    for (unsigned i = 0; i < config->net_count; i++)
        if (config->nets[i].forward_count > MACHINE_MAX_FORWARDS)
            return error_usage(err, what, NULL, "%u forwards are too many: at most %d a card",
                               config->nets[i].forward_count, MACHINE_MAX_FORWARDS);
    if (config->initrd_count > MACHINE_MAX_INITRDS)
        return error_usage(err, what, NULL, "%u initrds are too many: at most %d",
                           config->initrd_count, MACHINE_MAX_INITRDS);
    return true;
}

static bool take_topology(struct machine_config *config, struct error *err)
{
    struct engine_topology *topology = &config->topology;
    if (!config->vcpu_count)
        config->vcpu_count = 1;
    if (!topology->sockets && !topology->cores && !topology->threads)
        *topology = (struct engine_topology){1, config->vcpu_count, 1};
    for (unsigned i = config->vcpu_count; i < MACHINE_MAX_VCPUS; i++)
        if (config->pins[i])
            return error_usage(err, "cannot make a machine", NULL,
                               "vCPU %u is to be pinned, but there are only %u", i,
                               config->vcpu_count);
    uint64_t product = (uint64_t)topology->sockets * topology->cores;
    if (product <= MACHINE_MAX_VCPUS && product * topology->threads == config->vcpu_count)
        return true;
    return error_usage(err, "cannot make a machine", NULL,
                       "%u sockets of %u cores of %u threads are not %u vCPUs", topology->sockets,
                       topology->cores, topology->threads, config->vcpu_count);
}

/* A random UUID (RFC 4122, 4.4) unless there is one. */
static void take_uuid(struct machine_config *config)
{
    for (unsigned i = 0; i < sizeof(config->uuid); i++)
        if (config->uuid[i])
            return;
    if (getrandom(config->uuid, sizeof(config->uuid), 0) != sizeof(config->uuid))
        return; /* all zero stands for "not present" in SMBIOS */
    config->uuid[6] = (uint8_t)((config->uuid[6] & 0x0f) | 0x40);
    config->uuid[8] = (uint8_t)((config->uuid[8] & 0x3f) | 0x80);
}

enum { FIRMWARE_UNIT_BYTES = 16 << 10 }; /* the least that shadow RAM is opened for */

static bool open_rom(struct machine *machine, struct error *err)
{
    const struct machine_config *config = &machine->config;
    const struct nvram_config nvram = {config->nvram, config->nvram_template, machine->log};
    if (!config->rom)
        return true;
    if (!boot_rom_open(&machine->rom, config->rom, err))
        return false;
    if (config->rom_is_firmware && machine->rom.size_bytes % FIRMWARE_UNIT_BYTES) {
        error_set(err, "cannot use firmware", config->rom,
                  "it has %" PRIu64 " bytes; it is to have a multiple of %d",
                  machine->rom.size_bytes, FIRMWARE_UNIT_BYTES);
        return error_hint(err, "a program that is no firmware is run by --rom");
    }
    if (config->nvram) {
        machine->nvram = nvram_open(&nvram, err);
        return machine->nvram;
    }
    return !config->nvram_template ||
           boot_rom_open(&machine->variables, config->nvram_template, err);
}

static struct q35_firmware board_firmware(struct machine *machine)
{
    struct q35_firmware firmware = {
        .rom = machine->rom.bytes,
        .rom_bytes = machine->rom.size_bytes,
        .is_setting_up = machine->config.rom_is_firmware,
        .variables = machine->variables.bytes,
        .variables_bytes = machine->variables.size_bytes,
    };
    if (machine->nvram) {
        firmware.variables = nvram_bytes(machine->nvram);
        firmware.variables_bytes = nvram_size_bytes(machine->nvram);
        firmware.store = (struct pflash_store){nvram_write, machine->nvram};
    }
    return firmware;
}

static bool set_memory(void *opaque, const struct physmap_range *ranges, unsigned count,
                       struct error *err)
{
    struct machine *machine = opaque;
    return machine->engine->set_memory(machine->vm, ranges, count, err);
}

static void take_written(void *opaque, const uint8_t *hva, uint64_t size_bytes, uint64_t *pages)
{
    struct machine *machine = opaque;
    machine->engine->take_written(machine->vm, hva, size_bytes, pages);
}

static bool connect_memory(struct machine *machine, struct error *err)
{
    const struct physmap_listener listener = {set_memory, take_written, machine};
    return physmap_set_listener(machine->physmap, &listener, err);
}

static bool open_engine(struct machine *machine, struct error *err)
{
    const struct machine_config *config = &machine->config;
    const char *options;
    machine->engine = engine_find(config->engine ? config->engine : "auto", &options, err);
    if (!machine->engine)
        return false;
    const struct engine_config engine = {
        .vcpu_count = config->vcpu_count,
        .topology = config->topology,
        .ram = machine->ram,
        .bus = machine->bus,
        .hooks = q35_hooks(&machine->board),
        .log = machine->log,
        .tsc_hz = snapshot_tsc_hz(machine),
        .options = options,
        .cpu_level = config->cpu_level,
        .counts_instructions = config->counts_instructions,
    };
    machine->vm = machine->engine->vm_open(&engine, err);
    if (!machine->vm)
        return false;
    if (!connect_memory(machine, err))
        return false;
    const struct vcpus_config vcpus = {
        .engine = machine->engine,
        .vm = machine->vm,
        .count = config->vcpu_count,
        .pins = config->pins,
        .event = vcpu_event,
        .opaque = machine,
    };
    machine->vcpus = vcpus_create(&vcpus, err);
    return machine->vcpus;
}

static bool tell_firmware(struct machine *machine, struct error *err)
{
    q35_memory_map(machine->board, &machine->fw_map);
    machine->fw_boot = boot_config(machine, &machine->fw_map);
    const struct machine_config *config = &machine->config;
    const struct fw_items items = {
        .vcpu_count = config->vcpu_count,
        .memory_bytes = config->memory_bytes,
        .uuid = config->uuid,
        .map = &machine->fw_map,
        .boot = machine->kernel && !config->kernel_from_disk ? &machine->fw_boot : NULL,
        .cmdline = config->kernel_from_disk ? NULL : config->cmdline,
    };
    return fw_items_put(q35_fw_cfg(machine->board), &items, err) &&
           (!machine->config.rom_is_firmware || boot_order_tell(machine, err));
}

static void take_floppies(const struct machine *machine, struct q35_config *board)
{
    unsigned count = 0;
    for (unsigned i = 0; i < machine->config.disk_count; i++) {
        const struct block_backend *disk = &machine->backends.disk[i];
        if (machine->config.disks[i].bus != MACHINE_DISK_FLOPPY)
            continue;
        board->floppies[count].is_there = true;
        board->floppies[count].medium = disk->close ? disk : NULL;
        board->floppies[count++].name = machine->config.disks[i].path;
    }
}

static bool make_board(struct machine *machine, struct error *err)
{
    const struct machine_config *config = &machine->config;
    struct q35_config board = {
        .engine = machine->engine,
        .vm = machine->vm,
        .vcpus = machine->vcpus,
        .vcpu_count = config->vcpu_count,
        .topology = config->topology,
        .ram = machine->ram,
        .physmap = machine->physmap,
        .bus = machine->bus,
        .clock = machine->clock,
        .log = machine->log,
        .firmware = board_firmware(machine),
        .uart_count = config->serial_count < Q35_MIN_UARTS ? Q35_MIN_UARTS : config->serial_count,
        .debugcon = backends_char(&machine->backends.debugcon),
        .debugcon_port = config->debugcon_port,
        .post = backends_char(&machine->backends.post),
        .parallel = backends_char(&machine->backends.parallel),
        .parallel_ignores_strobe = config->parallel_ignores_strobe,
        .has_exit_port = config->has_exit_port,
        .exit_port = config->exit_port,
        .has_testdev = config->has_testdev,
        .callbacks = {board_reset, board_power_off, board_sleep, board_wake, board_exit, machine},
    };
    board.rtc_is_local = config->rtc_is_local;
    board.tpm = machine->backends.tpm.close ? &machine->backends.tpm : NULL;
    board.tpm_is_tis = config->tpm_is_tis;
    take_floppies(machine, &board);
    memcpy(board.uuid, config->uuid, sizeof(board.uuid));
    for (unsigned i = 0; i < config->serial_count; i++)
        board.uart[i] = backends_char(&machine->backends.serial[i]);
    machine->board = q35_create(&board, err);
    return machine->board && backends_plug(machine, err) && q35_finish(machine->board, err) &&
           tell_firmware(machine, err);
}

/* A saved machine needs its kernel only when its guest starts again: that it is gone is missed
 * then. A ROM is a part of the guest's memory. */
static bool open_kernel_again(struct machine *machine)
{
    struct error error = {0};
    if (machine->config.kernel_from_disk || kernel_open(machine, &error))
        return true;
    log_write(machine->log, LOG_WARNING, "machine",
              "the guest will not be able to reboot: %s %s: %s", error.what, error.where,
              error.cause);
    boot_file_close(machine->kernel);
    machine->kernel = NULL;
    return true;
}

static bool build(struct machine *machine, struct error *err)
{
    struct machine_config *config = &machine->config;
    if (config->saved && !snapshot_take_shape(machine, err))
        return false;
    if (!check_memory(config, err) || !check_counts(config, err) || !check_drives(config, err) ||
        !take_topology(config, err))
        return false;
    take_uuid(config);
    if (!open_rom(machine, err))
        return false;
    if (config->saved ? !open_kernel_again(machine) : !kernel_open(machine, err))
        return false;
    if (!open_requests(machine, err))
        return false;
    machine->ram = ram_create(config->memory_bytes, err);
    if (!machine->ram)
        return false;
    if (config->saved && (!snapshot_check_rom(machine, err) || !snapshot_map_memory(machine, err)))
        return false;
    machine->physmap = physmap_create(machine->ram);
    machine->bus = bus_create(machine->log);
    if (!machine->physmap || !machine->bus)
        return error_errno(err, "cannot make the machine", NULL, ENOMEM);
    if (config->stray_port_fails)
        bus_set_stray(machine->bus, stray_port, machine);
    machine->clock = clock_create(err);
    if (!machine->clock)
        return false;
    if (!open_engine(machine, err) || !halt_watch_open(machine, err))
        return false;
    stop_time(machine);
    return backends_open(machine, err) && make_board(machine, err) &&
           (config->saved ? snapshot_load(machine, err) : boot(machine, err));
}

struct machine *machine_create(const struct machine_config *config, struct loop *loop,
                               const struct log *log, machine_finished_fn *finished, void *opaque,
                               struct error *err)
{
    struct machine *machine = calloc(1, sizeof(*machine));
    if (!machine) {
        error_errno(err, "cannot make the machine", NULL, ENOMEM);
        return NULL;
    }
    machine->config = *config;
    machine->loop = loop;
    machine->log = log;
    machine->finished = finished;
    machine->opaque = opaque;
    machine->request_fd = -1;
    pthread_mutex_init(&machine->request_lock, NULL);
    if (!build(machine, err)) {
        machine_destroy(machine);
        return NULL;
    }
    return machine;
}

static void destroy_engine(struct machine *machine)
{
    vcpus_destroy(machine->vcpus);
    if (machine->vm)
        machine->engine->vm_close(machine->vm);
}

void machine_destroy(struct machine *machine)
{
    if (!machine)
        return;
    machine_pause(machine); /* no timer has a device ask its disk for more after the drain */
    if (machine->vcpus)
        vcpus_pause(machine->vcpus);
    machine_debug_detach(machine);
    backends_drain(machine);
    display_close(machine);
    q35_destroy(machine->board);
    backends_close(machine);
    destroy_engine(machine);
    if (machine->clock)
        clock_destroy(machine->clock);
    if (machine->bus)
        bus_destroy(machine->bus);
    physmap_destroy(machine->physmap);
    ram_destroy(machine->ram);
    boot_rom_close(&machine->rom);
    boot_rom_close(&machine->variables);
    nvram_close(machine->nvram);
    kernel_close(machine);
    if (machine->halt_watch)
        loop_timer_close(machine->halt_watch);
    if (machine->request_watch)
        loop_watch_close(machine->request_watch);
    if (machine->request_fd >= 0)
        close(machine->request_fd);
    pthread_mutex_destroy(&machine->request_lock);
    free(machine);
}

/* ---- running ---- */

void machine_resume(struct machine *machine)
{
    if (machine->is_running || machine->is_finished)
        return;
    machine->is_running = true;
    start_time(machine);
    if (machine->needs_kick) {
        q35_kick_all(machine->board);
        machine_release_input(machine); /* who held keys when it was saved is not here */
    }
    machine->needs_kick = false;
    machine_debug_running(machine);
    if (!atomic_load(&machine->requests))
        machine_resume_vcpus(machine);
}

void machine_start(struct machine *machine)
{
    machine_resume(machine);
}

/* What was asked for just before is done all the same when the loop comes to it. */
void machine_pause(struct machine *machine)
{
    if (!machine->is_running)
        return;
    vcpus_pause(machine->vcpus);
    stop_time(machine);
    machine->is_running = false;
}

/* ---- what it tells ---- */

const char *machine_engine_name(const struct machine *machine)
{
    return machine->engine->name;
}

unsigned machine_vcpu_count(const struct machine *machine)
{
    return machine->config.vcpu_count;
}

const char *machine_state(const struct machine *machine)
{
    if (machine->is_finished)
        return "ended";
    if (!machine->is_running)
        return "paused";
    if (machine->is_asleep)
        return "asleep";
    return machine->is_halted ? "halted" : "running";
}

const struct machine_config *machine_configuration(const struct machine *machine)
{
    return &machine->config;
}

void machine_stats(struct machine *machine, struct machine_stats *stats)
{
    *stats = (struct machine_stats){.uptime_ns = clock_now_ns(machine->clock),
                                    .reboots = machine->reboots};
    machine->engine->stats(machine->vm, &stats->engine);
}

size_t machine_info(struct machine *machine, char *text, size_t size_bytes)
{
    struct machine_stats stats;
    machine_stats(machine, &stats);
    int length = snprintf(text, size_bytes,
                          "engine        %s\n"
                          "vCPUs         %u\n"
                          "memory        %" PRIu64 " MiB\n"
                          "state         %s\n"
                          "uptime        %.1f s\n"
                          "reboots       %u\n",
                          machine->engine->name, machine->config.vcpu_count,
                          machine->config.memory_bytes >> 20, machine_state(machine),
                          (double)stats.uptime_ns / 1e9, stats.reboots);
    size_t used = length < 0 ? 0 : (size_t)length;
    if (machine->config.counts_instructions && used < size_bytes) {
        length = snprintf(text + used, size_bytes - used, "instructions  %.1f million\n",
                          (double)stats.engine.instructions / 1e6);
        used += length < 0 ? 0 : (size_t)length;
    }
    return used < size_bytes ? used : size_bytes ? size_bytes - 1 : 0;
}

unsigned machine_engines(struct machine_engine engines[MACHINE_MAX_ENGINES])
{
    const char *options;
    const struct engine *chosen = engine_find("auto", &options, NULL);
    unsigned count = 0;
    for (const struct engine *const *e = engine_all(); *e && count < MACHINE_MAX_ENGINES; e++) {
        engines[count] = (struct machine_engine){.name = (*e)->name, .is_chosen = *e == chosen};
        (*e)->probe(&engines[count++].probe);
    }
    return count;
}
