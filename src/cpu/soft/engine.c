/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The software processor as an engine: the machine's bus, RAM and hooks become the callbacks and
 * regions of a soft_system. It runs on any x86-64 host.
 */
#include "cpu/engine.h"

#include "cpu/soft/core.h"
#include "cpu/soft/debugger.h"
#include "cpu/soft/translator/check.h"
#include "cpu/soft/vector/vector.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct engine_vm {
    struct soft_system system;
    struct bus *bus;
    struct ram *ram;
    struct engine_hooks hooks;
};

/* The two are one object, seen from the two sides of the interface. */
static struct cpu *cpu_of(struct engine_vcpu *vcpu)
{
    return (struct cpu *)(void *)vcpu;
}

static void soft_probe(struct engine_probe *probe)
{
    *probe = (struct engine_probe){.available = true};
    snprintf(probe->detail, sizeof(probe->detail),
             "the processor in software: runs anywhere, slower than hardware");
}

/* --- callbacks ------------------------------------------------------------------------------ */

static uint64_t port_read(void *opaque, uint16_t port, unsigned size_bytes)
{
    struct engine_vm *vm = opaque;
    return bus_read(vm->bus, BUS_PORT, port, size_bytes);
}

static void port_write(void *opaque, uint16_t port, uint64_t value, unsigned size_bytes)
{
    struct engine_vm *vm = opaque;
    bus_write(vm->bus, BUS_PORT, port, value, size_bytes);
}

static uint64_t mmio_read(void *opaque, uint64_t gpa, unsigned size_bytes)
{
    struct engine_vm *vm = opaque;
    return bus_read(vm->bus, BUS_MMIO, gpa, size_bytes);
}

static void mmio_write(void *opaque, uint64_t gpa, uint64_t value, unsigned size_bytes)
{
    struct engine_vm *vm = opaque;
    bus_write(vm->bus, BUS_MMIO, gpa, value, size_bytes);
}

static int acknowledge(void *opaque, unsigned vcpu)
{
    struct engine_vm *vm = opaque;
    return vm->hooks.acknowledge(vm->hooks.opaque, vcpu);
}

static uint64_t read_cr8(void *opaque, unsigned vcpu)
{
    struct engine_vm *vm = opaque;
    return vm->hooks.read_cr8(vm->hooks.opaque, vcpu);
}

static void write_cr8(void *opaque, unsigned vcpu, uint64_t value)
{
    struct engine_vm *vm = opaque;
    vm->hooks.write_cr8(vm->hooks.opaque, vcpu, value);
}

static bool read_msr(void *opaque, unsigned vcpu, uint32_t msr, uint64_t *value)
{
    struct engine_vm *vm = opaque;
    return vm->hooks.read_msr(vm->hooks.opaque, vcpu, msr, value);
}

static bool write_msr(void *opaque, unsigned vcpu, uint32_t msr, uint64_t value)
{
    struct engine_vm *vm = opaque;
    return vm->hooks.write_msr(vm->hooks.opaque, vcpu, msr, value);
}

static void tsc_changed(void *opaque, unsigned vcpu)
{
    struct engine_vm *vm = opaque;
    if (vm->hooks.tsc_changed)
        vm->hooks.tsc_changed(vm->hooks.opaque, vcpu);
}

static void wake(void *opaque, unsigned vcpu)
{
    struct engine_vm *vm = opaque;
    if (vm->hooks.wake)
        vm->hooks.wake(vm->hooks.opaque, vcpu);
}

static void ram_changed(void *opaque, uint64_t gpa, uint64_t size_bytes)
{
    struct engine_vm *vm = opaque;
    soft_written(&vm->system, gpa, size_bytes);
}

/* --- the machine ---------------------------------------------------------------------------- */

static bool take_option(struct translator_options *translator, const char *option, size_t length,
                        struct error *err)
{
    static const struct {
        const char *text;
        bool is_on, is_eager, is_check, perf_map, has_exact_flags;
    } known[] = {
        {.text = "translator=on", .is_on = true},
        {.text = "translator=off"},
        {.text = "translator=eager", .is_on = true, .is_eager = true},
        {.text = "translator=check", .is_on = true, .is_eager = true, .is_check = true},
        {.text = "perf-map", .is_on = true, .perf_map = true},
        {.text = "exact-flags", .is_on = true, .has_exact_flags = true},
    };
    for (unsigned i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (strlen(known[i].text) != length || memcmp(known[i].text, option, length) != 0)
            continue;
        translator->is_on = known[i].is_on;
        translator->is_eager |= known[i].is_eager;
        translator->is_check |= known[i].is_check;
        translator->perf_map |= known[i].perf_map;
        translator->has_exact_flags |= known[i].has_exact_flags;
        return true;
    }
    char text[64];
    snprintf(text, sizeof(text), "%.*s", (int)length, option);
    error_usage(err, "cannot use the engine option", text, "soft does not have it");
    error_hint(err, "soft takes translator=on, translator=off, translator=eager, "
                    "translator=check, perf-map and exact-flags");
    return false;
}

/* Options are separated by commas. */
static bool take_options(struct translator_options *translator, const char *options,
                         struct error *err)
{
    *translator = (struct translator_options){.is_on = true};
    while (options && *options) {
        size_t length = strcspn(options, ",");
        if (!take_option(translator, options, length, err))
            return false;
        options += length + (options[length] == ',');
    }
    return true;
}

static bool check_config(const struct engine_config *config, struct error *err)
{
    const struct engine_topology *t = &config->topology;
    if (config->tsc_hz && (config->tsc_hz < TSC_MIN_HZ || config->tsc_hz > TSC_MAX_HZ))
        return error_set(err, "cannot make processors", NULL,
                         "%llu Hz is no frequency of a time-stamp counter",
                         (unsigned long long)config->tsc_hz);
    if (config->vcpu_count == 0 || config->vcpu_count > SOFT_MAX_CPUS)
        return error_usage(err, "cannot make processors", NULL, "their number must be 1 to %d",
                           SOFT_MAX_CPUS);
    if ((uint64_t)t->sockets * t->cores * t->threads != config->vcpu_count)
        return error_usage(err, "cannot make processors", NULL,
                           "%u sockets of %u cores of %u threads are not %u processors", t->sockets,
                           t->cores, t->threads, config->vcpu_count);
    return true;
}

static void touch(void *opaque, const uint8_t *hva)
{
    struct engine_vm *vm = opaque;
    ram_touch(vm->ram, hva);
}

static bool add_ram(struct engine_vm *vm, struct error *err)
{
    for (unsigned i = 0; i < ram_region_count(vm->ram); i++) {
        const struct ram_region *region = ram_region(vm->ram, i);
        if (!soft_region_add(&vm->system, region->gpa, region->hva, region->size_bytes, false))
            return error_errno(err, "cannot map guest memory", NULL, ENOMEM);
    }
    return true;
}

static void soft_vm_close(struct engine_vm *vm)
{
    if (!vm)
        return;
    ram_set_watcher(vm->ram, NULL, NULL);
    soft_system_close(&vm->system);
    free(vm);
}

static struct engine_vm *soft_vm_open(const struct engine_config *config, struct error *err)
{
    if (!check_config(config, err))
        return NULL;
    struct engine_vm *vm = calloc(1, sizeof(*vm));
    if (!vm) {
        error_errno(err, "cannot make processors", NULL, ENOMEM);
        return NULL;
    }
    soft_system_open_rate(&vm->system, config->tsc_hz);
    if (!take_options(&vm->system.translator, config->options, err)) {
        soft_system_close(&vm->system);
        free(vm);
        return NULL;
    }
    vm->system.translator.has_counts = config->counts_instructions;
    vm->bus = config->bus;
    vm->ram = config->ram;
    vm->hooks = config->hooks;
    vm->system.log = config->log;
    vm->system.cpu_level = config->cpu_level;
    vm->system.sockets = config->topology.sockets;
    vm->system.cores = config->topology.cores;
    vm->system.threads = config->topology.threads;
    vm->system.callbacks = (struct soft_callbacks){
        vm,        port_read, port_write, mmio_read,   mmio_write, acknowledge, read_cr8,
        write_cr8, read_msr,  write_msr,  tsc_changed, touch,      wake,
    };
    if (!add_ram(vm, err)) {
        soft_vm_close(vm);
        return NULL;
    }
    ram_set_watcher(vm->ram, ram_changed, vm);
    return vm;
}

static bool soft_set_memory(struct engine_vm *vm, const struct physmap_range *ranges,
                            unsigned count, struct error *err)
{
    struct soft_region regions[PHYSMAP_MAX_RANGES];
    static_assert((int)PHYSMAP_MAX_RANGES <= (int)SOFT_MAX_REGIONS, "room for all of them");
    for (unsigned i = 0; i < count; i++)
        regions[i] = (struct soft_region){
            .gpa = ranges[i].gpa,
            .size_bytes = ranges[i].size_bytes,
            .hva = ranges[i].hva,
            .read_only = ranges[i].read_only,
            .is_logged = ranges[i].is_logged,
        };
    if (soft_set_regions(&vm->system, regions, count))
        return true;
    return error_set(err, "cannot map memory", NULL, "the processor has no room for more");
}

static void soft_engine_take_written(struct engine_vm *vm, const uint8_t *hva, uint64_t size_bytes,
                                     uint64_t *pages)
{
    soft_take_written(&vm->system, hva, size_bytes, pages);
}

/* --- processors ----------------------------------------------------------------------------- */

static struct engine_vcpu *soft_vcpu_open(struct engine_vm *vm, unsigned index, struct error *err)
{
    return (struct engine_vcpu *)(void *)cpu_create(&vm->system, index, err);
}

static void soft_vcpu_close(struct engine_vcpu *vcpu)
{
    cpu_destroy(cpu_of(vcpu));
}

static void soft_run(struct engine_vcpu *vcpu, struct engine_exit *exit)
{
    static const enum engine_exit_reason reasons[] = {
        [CPU_KICKED] = ENGINE_EXIT_KICKED,     [CPU_HALTED] = ENGINE_EXIT_HALTED,
        [CPU_SHUTDOWN] = ENGINE_EXIT_SHUTDOWN, [CPU_DEBUG] = ENGINE_EXIT_DEBUG,
        [CPU_FAILED] = ENGINE_EXIT_FAILED,
    };
    const struct cpu *cpu = cpu_of(vcpu);
    exit->reason = reasons[cpu_run(cpu_of(vcpu))];
    exit->is_deaf = cpu->run_state == X86_WAIT_FOR_SIPI || !(cpu->rflags & RFLAGS_IF);
    if (exit->reason == ENGINE_EXIT_DEBUG)
        exit->stop = debugger_take_stop(cpu_of(vcpu));
    if (exit->reason == ENGINE_EXIT_FAILED)
        exit->error = *check_failure(cpu_of(vcpu));
}

static void soft_kick(struct engine_vcpu *vcpu)
{
    cpu_request(cpu_of(vcpu), REQUEST_KICK);
}

static void soft_inject(struct engine_vcpu *vcpu, enum engine_event event, unsigned value)
{
    struct cpu *cpu = cpu_of(vcpu);
    switch (event) {
    case ENGINE_INTR:
        if (value)
            cpu_request(cpu, REQUEST_INTR);
        else
            cpu_withdraw(cpu, REQUEST_INTR);
        break;
    case ENGINE_NMI: cpu_post_nmi(cpu); break;
    case ENGINE_INIT:
        cpu_withdraw(cpu, REQUEST_SIPI); /* one that came before starts nothing after it */
        cpu_request(cpu, REQUEST_INIT);
        break;
    case ENGINE_SIPI:
        atomic_store(&cpu->sipi_vector, (uint8_t)value);
        cpu_request(cpu, REQUEST_SIPI);
        break;
    case ENGINE_SMI: break;
    }
}

static bool soft_has_work(struct engine_vcpu *vcpu)
{
    return cpu_has_work(cpu_of(vcpu));
}

static bool soft_get_state(struct engine_vcpu *vcpu, struct x86_state *state, struct error *err)
{
    struct cpu *cpu = cpu_of(vcpu);
    const struct soft_callbacks *callbacks = &cpu->system->callbacks;
    cpu_get_state(cpu, state);
    state->cr8 = callbacks->read_cr8(callbacks->opaque, cpu->index);
    callbacks->read_msr(callbacks->opaque, cpu->index, 0x1b, &state->apic_base);
    callbacks->read_msr(callbacks->opaque, cpu->index, 0x6e0, &state->tsc_deadline);
    return true;
}

static bool soft_set_state(struct engine_vcpu *vcpu, const struct x86_state *state,
                           struct error *err)
{
    if (!cpu_set_state(cpu_of(vcpu), state))
        return error_set(err, "cannot set a processor's state", NULL,
                         "it is one that no processor can be in");
    return true;
}

static bool soft_set_debug(struct engine_vcpu *vcpu, const struct debug_request *request,
                           struct error *err)
{
    return debugger_set(cpu_of(vcpu), request, err);
}

static uint64_t soft_read_tsc(struct engine_vcpu *vcpu)
{
    return tsc_guest(cpu_of(vcpu));
}

static uint64_t soft_tsc_hz(struct engine_vm *vm)
{
    return vm->system.tsc_khz * 1000;
}

static unsigned soft_physical_bits(struct engine_vm *vm)
{
    return vm->system.features.physical_bits;
}

static void soft_stop_time(struct engine_vm *vm, uint64_t monotonic_ns)
{
    tsc_stop(&vm->system, monotonic_ns);
}

static void soft_start_time(struct engine_vm *vm, uint64_t monotonic_ns)
{
    tsc_start(&vm->system, monotonic_ns);
}

static uint64_t soft_paravirtual_ns(struct engine_vm *vm)
{
    return kvmclock_ns(vm->system.cpu[0]);
}

static void soft_set_paravirtual_ns(struct engine_vm *vm, uint64_t ns)
{
    kvmclock_set_ns(&vm->system, ns);
}

static void soft_cpuid(struct engine_vm *vm, uint32_t leaf, uint32_t subleaf, uint32_t registers[4])
{
    struct cpuid_result r = cpuid_leaf(vm->system.cpu[0], leaf, subleaf);
    registers[0] = r.eax;
    registers[1] = r.ebx;
    registers[2] = r.ecx;
    registers[3] = r.edx;
}

static void soft_get_stats(struct engine_vm *vm, struct engine_stats *stats)
{
    *stats = (struct engine_stats){0};
    for (unsigned i = 0; i < vm->system.cpu_count; i++) {
        const struct cpu *cpu = vm->system.cpu[i];
        if (!cpu)
            continue;
        uint64_t *sum = (uint64_t *)stats;
        const uint64_t *one = (const uint64_t *)&cpu->stats;
        for (unsigned k = 0; k < sizeof(*stats) / sizeof(*sum); k++)
            sum[k] += one[k];
    }
}

const struct engine engine_soft = {
    .name = "soft",
    .probe = soft_probe,
    .vm_open = soft_vm_open,
    .vm_close = soft_vm_close,
    .set_memory = soft_set_memory,
    .take_written = soft_engine_take_written,
    .vcpu_open = soft_vcpu_open,
    .vcpu_close = soft_vcpu_close,
    .run = soft_run,
    .kick = soft_kick,
    .inject = soft_inject,
    .has_work = soft_has_work,
    .get_state = soft_get_state,
    .set_state = soft_set_state,
    .set_debug = soft_set_debug,
    .read_tsc = soft_read_tsc,
    .tsc_hz = soft_tsc_hz,
    .physical_bits = soft_physical_bits,
    .stop_time = soft_stop_time,
    .start_time = soft_start_time,
    .cpuid = soft_cpuid,
    .stats = soft_get_stats,
    .paravirtual_ns = soft_paravirtual_ns,
    .set_paravirtual_ns = soft_set_paravirtual_ns,
};
