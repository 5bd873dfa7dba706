/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What the state of a saved machine consists of: its description, its shape and clocks, what its
 * processors can do, its disks, then processors, the engine's own part and devices. Memory is a
 * part of its own of the file. Runs on the loop's thread while the machine is paused.
 */
#include "base/crc32c.h"
#include "machine/description.h"
#include "machine/machine_internal.h"
#include "machine/saved_file.h"
#include "machine/state_stream.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char description_section[] = "description", shape_section[] = "machine";
static const char features_section[] = "cpuid", disks_section[] = "disks";
/* Of each of these; machines whose shape and features are of version 1 have an older description.
 */
enum { SECTION_VERSION = 1, SHAPE_VERSION = 2, FEATURES_VERSION = 2 };
enum { ENGINE_NAME_BYTES = 16 };

static const char what_load[] = "cannot restore the machine";

struct machine_saved {
    char *path;
    struct saved_file file;
    struct description *description;
    struct load load; /* behind the sections that are read at once */
    uint64_t clock_ns, tsc_hz, paravirtual_ns;
    uint32_t reboots;
    uint64_t rom_bytes; /* 0: no ROM */
    uint32_t rom_sum;
};

/* Opens a section of `load` in the one version that is read. */
static bool begin(struct load *load, const char *name, uint32_t wanted, struct error *err)
{
    uint32_t version;
    if (!load_begin(load, name, &version))
        return error_set(err, what_load, NULL, "it has no part '%s' where one belongs", name);
    if (version == wanted)
        return true;
    error_set(err, what_load, NULL, "its part '%s' is of version %" PRIu32, name, version);
    return error_hint(err, "use the version of skep that saved it");
}

static bool end(struct load *load, const char *name, struct error *err)
{
    return load_end(load) ||
           error_set(err, what_load, NULL, "its part '%s' is not as it should be", name);
}

/* ---- description and shape ---- */

static bool save_description(const struct machine *machine, struct save *save)
{
    char *text = description_text(&machine->config);
    save_begin(save, description_section, SECTION_VERSION);
    if (text)
        save_bytes(save, text, strlen(text));
    save_end(save);
    free(text);
    return text;
}

static bool load_description(struct machine_saved *saved, struct load *load, struct error *err)
{
    if (!begin(load, description_section, SECTION_VERSION, err))
        return false;
    size_t size_bytes = load->section_end - load->offset;
    char *text = malloc(size_bytes + 1);
    if (!text)
        return error_errno(err, what_load, saved->path, ENOMEM);
    load_bytes(load, text, size_bytes);
    saved->description = description_parse(text, size_bytes, err);
    free(text);
    return saved->description && end(load, description_section, err);
}

static uint32_t rom_sum(const struct machine *machine)
{
    return machine->rom.bytes ? crc32c(machine->rom.bytes, machine->rom.size_bytes) : 0;
}

static void save_shape(struct machine *machine, struct save *save)
{
    char engine[ENGINE_NAME_BYTES] = {0}; /* for people: any engine goes on with it */
    snprintf(engine, sizeof(engine), "%s", machine->engine->name);
    save_begin(save, shape_section, SHAPE_VERSION);
    save_bytes(save, engine, sizeof(engine));
    save_bool(save, machine->engine->irqchip);
    save_u64(save, clock_now_ns(machine->clock));
    save_u64(save, machine->engine->tsc_hz(machine->vm));
    save_u32(save, machine->reboots);
    save_u64(save, machine->rom.size_bytes);
    save_u32(save, rom_sum(machine));
    save_u64(save, machine->engine->paravirtual_ns(machine->vm));
    save_end(save);
}

static bool load_shape(struct machine_saved *saved, struct load *load, struct error *err)
{
    char engine[ENGINE_NAME_BYTES];
    if (!begin(load, shape_section, SHAPE_VERSION, err))
        return false;
    load_bytes(load, engine, sizeof(engine));
    load_bool(load);
    saved->clock_ns = load_u64(load);
    saved->tsc_hz = load_u64(load);
    saved->reboots = load_u32(load);
    saved->rom_bytes = load_u64(load);
    saved->rom_sum = load_u32(load);
    saved->paravirtual_ns = load_u64(load);
    return end(load, shape_section, err);
}

/* ---- what the processors can do ---- */

enum { EAX, EBX, ECX, EDX };

/* Words of features; `ignored` are bits that follow the guest's own registers, or its topology. */
static const struct feature_word {
    uint32_t leaf, subleaf, ignored;
    uint8_t reg;
    char name[4];
} feature_words[] = {
    {1, 0, 1 << 27 /* OSXSAVE */, ECX, "ECX"},
    {1, 0, 1 << 9 | 1 << 28 /* APIC, HTT */, EDX, "EDX"},
    {7, 0, 0, EBX, "EBX"},
    {7, 0, 1 << 4 /* OSPKE */, ECX, "ECX"},
    {7, 0, 0, EDX, "EDX"},
    {0xd, 0, 0, EAX, "EAX"},
    {0xd, 1, 0, EAX, "EAX"},
    {0x40000001, 0, 0, EAX, "EAX"},
    {0x80000001, 0, 1 << 1 /* CMP_LEGACY */, ECX, "ECX"},
    {0x80000001, 0, 1 << 9 /* APIC */, EDX, "EDX"},
    {0x80000008, 0, 0, EBX, "EBX"},
    {7, 1, 0, EAX, "EAX"},
};
enum { FEATURE_WORDS = sizeof(feature_words) / sizeof(feature_words[0]), VENDOR_BYTES = 12 };

static void vendor_of(struct machine *machine, uint8_t vendor[VENDOR_BYTES])
{
    uint32_t r[4];
    machine->engine->cpuid(machine->vm, 0, 0, r);
    memcpy(vendor, &r[EBX], 4);
    memcpy(vendor + 4, &r[EDX], 4);
    memcpy(vendor + 8, &r[ECX], 4);
}

static uint32_t features_of(struct machine *machine, const struct feature_word *word)
{
    uint32_t r[4];
    machine->engine->cpuid(machine->vm, word->leaf, word->subleaf, r);
    return r[word->reg] & ~word->ignored;
}

static void save_features(struct machine *machine, struct save *save)
{
    uint8_t vendor[VENDOR_BYTES];
    vendor_of(machine, vendor);
    save_begin(save, features_section, FEATURES_VERSION);
    save_bytes(save, vendor, sizeof(vendor));
    for (unsigned i = 0; i < FEATURE_WORDS; i++)
        save_u32(save, features_of(machine, &feature_words[i]));
    save_end(save);
}

static bool lacks(const struct feature_word *word, uint32_t missing, struct error *err)
{
    error_set(err, what_load, NULL,
              "its processors have features that those here lack (CPUID %#" PRIx32 ", %s: %#" PRIx32
              ")",
              word->leaf, word->name, missing);
    return error_hint(err, "restore it with the engine and on a host that has them; a machine "
                           "started with --cpu x86-64-v3 or x86-64 goes to others, too");
}

static bool load_features(struct machine *machine, struct load *load, struct error *err)
{
    uint8_t vendor[VENDOR_BYTES], wanted[VENDOR_BYTES];
    if (!begin(load, features_section, FEATURES_VERSION, err))
        return false;
    vendor_of(machine, vendor);
    load_bytes(load, wanted, sizeof(wanted));
    if (!load->failed && memcmp(vendor, wanted, sizeof(vendor)) != 0)
        return error_set(err, what_load, NULL, "its processors are %.12s, not %.12s",
                         (const char *)wanted, (const char *)vendor);
    for (unsigned i = 0; i < FEATURE_WORDS; i++) {
        uint32_t missing = load_u32(load) & ~features_of(machine, &feature_words[i]);
        if (missing)
            return lacks(&feature_words[i], missing, err);
    }
    return end(load, features_section, err);
}

/* ---- disks: their contents are not in the file, so they must be those of then ---- */

/* Of a drive with no medium all is 0. */
static struct block_info info_of(const struct machine *machine, unsigned index)
{
    const struct block_backend *disk = &machine->backends.disk[index];
    struct block_info info = {0};
    if (disk->close)
        disk->info(disk->opaque, &info);
    return info;
}

static void save_disks(const struct machine *machine, struct save *save)
{
    save_begin(save, disks_section, SECTION_VERSION);
    save_u32(save, machine->config.disk_count);
    for (unsigned i = 0; i < machine->config.disk_count; i++) {
        const struct block_info info = info_of(machine, i);
        save_u64(save, info.size_bytes);
        save_u64(save, (uint64_t)info.changed_ns);
    }
    save_end(save);
}

static bool check_disk(const struct machine *machine, unsigned index, struct load *load,
                       struct error *err)
{
    const char *path = machine->config.disks[index].path;
    const struct block_info info = info_of(machine, index);
    uint64_t size_bytes = load_u64(load);
    int64_t changed_ns = (int64_t)load_u64(load);
    if (load->failed)
        return false;
    if (size_bytes != info.size_bytes)
        return error_set(err, "cannot restore the machine with disk", path,
                         "it has %" PRIu64 " bytes, not the %" PRIu64 " of when it was saved",
                         info.size_bytes, size_bytes);
    if (changed_ns == info.changed_ns || machine->config.trust_disks)
        return true;
    error_set(err, "cannot restore the machine with disk", path,
              "it was changed after the machine was saved");
    return error_hint(err, "the guest would destroy its file systems; --trust-disks if it is a "
                           "copy that is as it was then");
}

static bool load_disks(const struct machine *machine, struct load *load, struct error *err)
{
    if (!begin(load, disks_section, SECTION_VERSION, err))
        return false;
    uint32_t count = load_u32(load);
    if (!load->failed && count != machine->config.disk_count) {
        error_set(err, what_load, NULL, "it has %" PRIu32 " drives, not %u", count,
                  machine->config.disk_count);
        return error_hint(err, "name all that it was started with, or none");
    }
    for (unsigned i = 0; i < machine->config.disk_count; i++)
        if (!check_disk(machine, i, load, err) && !load->failed)
            return false;
    return end(load, disks_section, err);
}

/* ---- saving ---- */

static bool save_state(struct machine *machine, struct save *save, struct error *err)
{
    if (!save_description(machine, save))
        return error_errno(err, "cannot save the machine", NULL, ENOMEM);
    save_shape(machine, save);
    save_features(machine, save);
    save_disks(machine, save);
    for (unsigned i = 0; i < machine->config.vcpu_count; i++) {
        struct x86_state state;
        if (!vcpus_get_state(machine->vcpus, i, &state, err))
            return false;
        state_save(&state, save);
    }
    q35_save(machine->board, save);
    return !save->failed || error_set(err, "cannot save the machine", NULL,
                                      "out of memory, or the engine does not give its state");
}

bool machine_save(struct machine *machine, const char *path, machine_progress_fn *progress,
                  void *opaque, struct error *err)
{
    struct save save = {0};
    bool was_running = machine->is_running;
    machine_pause(machine);
    machine_serve_requests(machine);
    if (machine->is_finished)
        return error_set(err, "cannot save the machine", NULL, "it has ended");
    machine_debug_hide(machine);
    bool done = backends_flush(machine, err) && save_state(machine, &save, err);
    const struct saved_file_contents contents = {
        .state = &save, .ram = machine->ram, .progress = progress, .opaque = opaque};
    done = done && saved_file_write(path, &contents, err);
    machine_debug_show(machine);
    save_free(&save);
    if (was_running)
        machine_resume(machine);
    return done;
}

/* ---- opening ---- */

struct machine_saved *machine_saved_open(const char *path, struct error *err)
{
    struct machine_saved *saved = calloc(1, sizeof(*saved));
    if (saved)
        saved->file.fd = -1;
    if (saved)
        saved->path = strdup(path);
    if (!saved || !saved->path) {
        error_errno(err, what_load, path, ENOMEM);
    } else if (saved_file_open(&saved->file, saved->path, err)) {
        load_init(&saved->load, saved->file.state, saved->file.state_bytes);
        if (load_description(saved, &saved->load, err) && load_shape(saved, &saved->load, err))
            return saved;
    }
    machine_saved_close(saved);
    return NULL;
}

void machine_saved_close(struct machine_saved *saved)
{
    if (!saved)
        return;
    saved_file_close(&saved->file);
    description_free(saved->description);
    free(saved->path);
    free(saved);
}

const struct machine_config *machine_saved_config(const struct machine_saved *saved)
{
    return description_config(saved->description);
}

/* ---- restoring, in the order in which a machine is built ---- */

static bool check_size(const char *what, uint64_t saved, uint64_t wanted, struct error *err)
{
    if (!wanted || wanted == saved)
        return true;
    error_usage(err, what_load, NULL, "it has %" PRIu64 " %s, not %" PRIu64, saved, what, wanted);
    return error_hint(err, "leave the option out: the saved machine has its own");
}

/* What makes the guest's devices is always the saved machine's. */
bool snapshot_take_shape(struct machine *machine, struct error *err)
{
    struct machine_config *config = &machine->config;
    const struct machine_config *saved = machine_saved_config(config->saved);
    if (!check_size("processors", saved->vcpu_count, config->vcpu_count, err) ||
        !check_size("MiB of memory", saved->memory_bytes >> 20, config->memory_bytes >> 20, err))
        return false;
    if (saved->memory_bytes != config->saved->file.memory_bytes)
        return error_set(err, what_load, NULL, "its memory is not of the size that it tells");
    config->vcpu_count = saved->vcpu_count;
    config->topology = saved->topology;
    config->memory_bytes = saved->memory_bytes;
    config->cpu_level = saved->cpu_level;
    memcpy(config->uuid, saved->uuid, sizeof(config->uuid));
    return true;
}

/* Checked through the mapping, so that the pages are there when the guest wants them. */
bool snapshot_map_memory(struct machine *machine, struct error *err)
{
    const struct saved_file *file = &machine->config.saved->file;
    return ram_overlay(machine->ram, file->fd, file->memory_offset, err) &&
           saved_file_check_memory(file, ram_bytes(machine->ram), err);
}

/* It is a part of memory that is not in the file. */
bool snapshot_check_rom(const struct machine *machine, struct error *err)
{
    const struct machine_saved *saved = machine->config.saved;
    if (machine->rom.size_bytes == saved->rom_bytes && rom_sum(machine) == saved->rom_sum)
        return true;
    error_set(err, "cannot restore the machine with ROM",
              machine->config.rom ? machine->config.rom : "none",
              "it is not the one that the machine was saved with");
    return error_hint(err, "it must be found again, byte for byte: --rom tells where it is now");
}

uint64_t snapshot_tsc_hz(const struct machine *machine)
{
    return machine->config.saved ? machine->config.saved->tsc_hz : 0;
}

static bool load_processors(struct machine *machine, struct load *load, struct error *err)
{
    for (unsigned i = 0; i < machine->config.vcpu_count; i++) {
        struct x86_state state;
        if (!state_load(&state, load))
            return error_set(err, what_load, NULL,
                             "the state of processor %u is not as it should be", i);
        if (!vcpus_set_state(machine->vcpus, i, &state, err))
            return false;
    }
    return true;
}

/* Time and processors before devices, since these arm timers. */
bool snapshot_load(struct machine *machine, struct error *err)
{
    const struct machine_saved *saved = machine->config.saved;
    struct load load = saved->load;
    clock_set_ns(machine->clock, saved->clock_ns);
    machine->reboots = saved->reboots;
    if (!load_features(machine, &load, err) || !load_disks(machine, &load, err) ||
        !load_processors(machine, &load, err))
        return false;
    machine->engine->set_paravirtual_ns(machine->vm, saved->paravirtual_ns);
    if (!q35_load(machine->board, &load, err))
        return false;
    if (load.offset != load.size_bytes)
        return error_set(err, what_load, NULL, "it has more parts than this skep knows");
    machine->needs_kick = true;
    machine->is_asleep = q35_is_asleep(machine->board);
    return true;
}
