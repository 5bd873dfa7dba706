/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The whole state of a machine in the save/load stream: its shape, time, memory (pages that are not
 * zero), processors, the engine's own part, devices. Runs on the loop's thread while the machine is
 * paused.
 */
#include "machine/machine_internal.h"
#include "machine/state_stream.h"

#include <errno.h>
#include <string.h>

static const char machine_section[] = "machine", memory_section[] = "memory";
enum { MACHINE_VERSION = 1, MEMORY_VERSION = 1 };
#define MEMORY_END UINT64_MAX

static void save_shape(struct machine *machine, struct save *save)
{
    save_begin(save, machine_section, MACHINE_VERSION);
    save_u32(save, machine->config.vcpu_count);
    save_u64(save, ram_size_bytes(machine->ram));
    save_bool(save, machine->engine->irqchip);
    save_u64(save, clock_now_ns(machine->clock));
    save_end(save);
}

static bool is_zero(const uint8_t *page)
{
    return !page[0] && !memcmp(page, page + 1, RAM_PAGE_BYTES - 1);
}

static void save_memory(struct machine *machine, struct save *save)
{
    save_begin(save, memory_section, MEMORY_VERSION);
    for (unsigned i = 0; i < ram_region_count(machine->ram); i++) {
        const struct ram_region *region = ram_region(machine->ram, i);
        for (uint64_t at = 0; at < region->size_bytes && !save->failed; at += RAM_PAGE_BYTES) {
            if (is_zero(region->hva + at))
                continue;
            save_u64(save, region->gpa + at);
            save_bytes(save, region->hva + at, RAM_PAGE_BYTES);
        }
    }
    save_u64(save, MEMORY_END);
    save_end(save);
}

bool machine_save(struct machine *machine, struct save *save, struct error *err)
{
    backends_drain(machine);
    save_shape(machine, save);
    save_memory(machine, save);
    for (unsigned i = 0; i < machine->config.vcpu_count; i++) {
        struct x86_state state;
        if (!vcpus_get_state(machine->vcpus, i, &state, err))
            return false;
        state_save(&state, save);
    }
    if (machine->engine->save)
        machine->engine->save(machine->vm, save);
    q35_save(machine->board, save);
    return !save->failed || error_errno(err, "cannot save the machine", NULL, ENOMEM);
}

static bool load_shape(struct machine *machine, struct load *load, struct error *err)
{
    static const char what[] = "cannot load the machine";
    uint32_t version;
    if (!load_begin(load, machine_section, &version) || version != MACHINE_VERSION)
        return error_set(err, what, NULL, "what is given is not a saved machine");
    uint32_t vcpu_count = load_u32(load);
    uint64_t memory_bytes = load_u64(load);
    bool has_irqchip = load_bool(load);
    uint64_t now_ns = load_u64(load);
    if (!load_end(load))
        return error_set(err, what, NULL, "the saved machine is damaged");
    if (vcpu_count != machine->config.vcpu_count)
        return error_set(err, what, NULL, "it has %u vCPUs, not %u", vcpu_count,
                         machine->config.vcpu_count);
    if (memory_bytes != ram_size_bytes(machine->ram))
        return error_set(err, what, NULL, "it has another size of memory");
    if (has_irqchip != (machine->engine->irqchip != NULL))
        return error_set(err, what, NULL, "it ran on another kind of engine");
    clock_set_ns(machine->clock, now_ns);
    return true;
}

static bool load_memory(struct machine *machine, struct load *load)
{
    uint32_t version;
    uint8_t page[RAM_PAGE_BYTES];
    ram_clear(machine->ram);
    if (!load_begin(load, memory_section, &version) || version != MEMORY_VERSION)
        return false;
    for (;;) {
        uint64_t gpa = load_u64(load);
        if (load->failed || gpa == MEMORY_END)
            break;
        load_bytes(load, page, sizeof(page));
        if (load->failed || gpa % RAM_PAGE_BYTES ||
            !ram_write(machine->ram, gpa, page, sizeof(page)))
            return false;
    }
    return load_end(load);
}

static bool load_processors(struct machine *machine, struct load *load, struct error *err)
{
    for (unsigned i = 0; i < machine->config.vcpu_count; i++) {
        struct x86_state state;
        if (!state_load(&state, load))
            return error_set(err, "cannot load the machine", NULL,
                             "the state of vCPU %u is damaged", i);
        if (!vcpus_set_state(machine->vcpus, i, &state, err))
            return false;
    }
    return true;
}

/* Time and processors before devices, since timers are armed by them. */
bool machine_load(struct machine *machine, struct load *load, struct error *err)
{
    static const char what[] = "cannot load the machine";
    if (!load_shape(machine, load, err))
        return false;
    if (!load_memory(machine, load))
        return error_set(err, what, NULL, "its memory is damaged");
    if (!load_processors(machine, load, err))
        return false;
    if (machine->engine->load && !machine->engine->load(machine->vm, load))
        return error_set(err, what, NULL, "the state of its engine is damaged");
    if (!q35_load(machine->board, load))
        return error_set(err, what, NULL, "the state of a device is damaged");
    machine->needs_kick = true;
    return true;
}
