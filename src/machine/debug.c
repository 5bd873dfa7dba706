/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A debugger's side of a machine. Software breakpoints of an engine that wants an INT3 in memory
 * are written here, and hidden from the debugger's own reads and writes.
 */
#include "machine/debug.h"

#include "cpu/translate.h"
#include "machine/machine_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { INT3 = 0xcc };

struct patch {
    bool is_written, is_hidden;
    uint64_t gpa;
    uint8_t original;
};

struct machine_debug {
    struct machine_debugger debugger;
    struct breakpoint breakpoint[DEBUG_MAX_BREAKPOINTS];
    struct patch patch[DEBUG_MAX_BREAKPOINTS]; /* of the breakpoint of the same index */
    unsigned count;
    /* Stops of several vCPUs at once are told one after another. A breakpoint is hit again when
     * its vCPU goes on, and needs no memory; an access has happened. */
    bool has_access[MACHINE_MAX_VCPUS];
    struct debug_stop access[MACHINE_MAX_VCPUS];
    bool is_held[MACHINE_MAX_VCPUS];
    /* A triple fault: told first, and then what the machine does without a debugger is done. */
    atomic_bool has_shutdown[MACHINE_MAX_VCPUS];
    bool resets;
    bool holds;   /* the guest stands still until the debugger lets it run */
    bool is_late; /* stops are to be told when the machine, paused by somebody else, goes on */
};

/* ---- INT3 in memory ---- */

static void patch_write(struct machine *machine, struct patch *patch)
{
    const uint8_t int3 = INT3;
    patch->is_written = ram_read(machine->ram, patch->gpa, &patch->original, 1) &&
                        ram_write(machine->ram, patch->gpa, &int3, 1);
}

/* What the guest has written over it meanwhile stays; false then. */
static bool patch_remove(struct machine *machine, struct patch *patch)
{
    uint8_t now = 0;
    bool is_there = patch->is_written && ram_read(machine->ram, patch->gpa, &now, 1) && now == INT3;
    if (is_there)
        ram_write(machine->ram, patch->gpa, &patch->original, 1);
    patch->is_written = false;
    return is_there;
}

void machine_debug_hide(struct machine *machine)
{
    struct machine_debug *d = machine->debug;
    for (unsigned i = 0; d && i < d->count; i++)
        d->patch[i].is_hidden = patch_remove(machine, &d->patch[i]);
}

void machine_debug_show(struct machine *machine)
{
    struct machine_debug *d = machine->debug;
    for (unsigned i = 0; d && i < d->count; i++) {
        if (d->patch[i].is_hidden)
            patch_write(machine, &d->patch[i]);
        d->patch[i].is_hidden = false;
    }
}

static bool patch_insert(struct machine *machine, const struct breakpoint *breakpoint,
                         unsigned vcpu, struct patch *patch, struct error *err)
{
    static const char what[] = "cannot set a breakpoint";
    struct x86_state state;
    *patch = (struct patch){0};
    if (!machine->engine->breaks_at_int3 || breakpoint->kind != BREAK_EXECUTE ||
        !breakpoint->is_software)
        return true;
    if (!vcpus_get_state(machine->vcpus, vcpu, &state, err))
        return false;
    if (!x86_translate(&state, machine->ram, breakpoint->linear, &patch->gpa))
        return error_set(err, what, NULL, "nothing is mapped at %#llx",
                         (unsigned long long)breakpoint->linear);
    patch_write(machine, patch);
    return patch->is_written || error_set(err, what, NULL, "there is no RAM at %#llx",
                                          (unsigned long long)breakpoint->linear);
}

/* Copies between what the debugger sees at a place that an INT3 covers, and its original. */
static void show_originals(const struct machine *machine, uint64_t gpa, uint8_t *bytes,
                           size_t size_bytes)
{
    const struct machine_debug *d = machine->debug;
    for (unsigned i = 0; d && i < d->count; i++)
        if (d->patch[i].is_written && d->patch[i].gpa - gpa < size_bytes)
            bytes[d->patch[i].gpa - gpa] = d->patch[i].original;
}

static void cover_again(struct machine *machine, uint64_t gpa, size_t size_bytes)
{
    struct machine_debug *d = machine->debug;
    for (unsigned i = 0; d && i < d->count; i++)
        if (d->patch[i].is_written && d->patch[i].gpa - gpa < size_bytes)
            patch_write(machine, &d->patch[i]);
}

/* ---- breakpoints ---- */

static bool tell_vcpu(struct machine *machine, unsigned vcpu, enum machine_debug_action action,
                      bool takes_interrupts, struct error *err)
{
    struct machine_debug *d = machine->debug;
    const struct debug_request request = {
        .steps = action == MACHINE_DEBUG_STEP,
        .takes_interrupts = takes_interrupts,
        .count = d->count,
        .breakpoints = d->breakpoint,
    };
    d->is_held[vcpu] = action == MACHINE_DEBUG_HOLD;
    vcpus_hold(machine->vcpus, vcpu, d->is_held[vcpu]);
    return vcpus_set_debug(machine->vcpus, vcpu, &request, err);
}

static bool tell_all(struct machine *machine, struct error *err)
{
    for (unsigned i = 0; i < machine->config.vcpu_count; i++)
        if (!tell_vcpu(machine, i, MACHINE_DEBUG_CONTINUE, false, err))
            return false;
    return true;
}

static bool is_same(const struct breakpoint *a, const struct breakpoint *b)
{
    return a->kind == b->kind && a->is_software == b->is_software && a->linear == b->linear &&
           a->size_bytes == b->size_bytes;
}

static unsigned find(const struct machine_debug *d, const struct breakpoint *breakpoint)
{
    unsigned i = 0;
    while (i < d->count && !is_same(&d->breakpoint[i], breakpoint))
        i++;
    return i;
}

bool machine_debug_insert(struct machine *machine, const struct breakpoint *breakpoint,
                          unsigned vcpu, struct error *err)
{
    struct machine_debug *d = machine->debug;
    assert(!machine->is_running);
    if (find(d, breakpoint) < d->count)
        return true;
    if (d->count == DEBUG_MAX_BREAKPOINTS)
        return error_set(err, "cannot set a breakpoint", NULL, "there are %d already",
                         DEBUG_MAX_BREAKPOINTS);
    if (!patch_insert(machine, breakpoint, vcpu, &d->patch[d->count], err))
        return false;
    d->breakpoint[d->count++] = *breakpoint;
    if (tell_all(machine, err))
        return true;
    machine_debug_remove(machine, breakpoint);
    return false;
}

void machine_debug_remove(struct machine *machine, const struct breakpoint *breakpoint)
{
    struct machine_debug *d = machine->debug;
    assert(!machine->is_running);
    unsigned i = find(d, breakpoint);
    if (i == d->count)
        return;
    patch_remove(machine, &d->patch[i]);
    d->count--;
    d->breakpoint[i] = d->breakpoint[d->count];
    d->patch[i] = d->patch[d->count];
    tell_all(machine, NULL); /* fewer than the engine has taken before */
}

/* ---- running and stopping ---- */

bool machine_debug_attach(struct machine *machine, const struct machine_debugger *debugger,
                          struct error *err)
{
    assert(!machine->debug && !machine->is_running);
    machine->debug = calloc(1, sizeof(*machine->debug));
    if (!machine->debug)
        return error_errno(err, "cannot debug the guest", NULL, ENOMEM);
    machine->debug->debugger = *debugger;
    machine->debug->holds = true;
    machine->is_halted = false; /* the debugger may change that */
    if (tell_all(machine, err))
        return true;
    free(machine->debug);
    machine->debug = NULL;
    return false;
}

/* Takes the stops of all vCPUs. The one to tell: a step that is done, or else the first. */
static bool collect_stops(struct machine *machine, unsigned *vcpu, struct debug_stop *stop)
{
    struct machine_debug *d = machine->debug;
    bool found = false;
    for (unsigned i = 0; i < machine->config.vcpu_count; i++) {
        struct debug_stop one;
        if (!vcpus_take_stop(machine->vcpus, i, &one))
            continue;
        if (one.kind == DEBUG_STOP_WATCHPOINT) {
            d->has_access[i] = true;
            d->access[i] = one;
        } else if (!found || (one.kind == DEBUG_STOP_STEP && stop->kind != DEBUG_STOP_STEP)) {
            found = true;
            *vcpu = i;
            *stop = one;
        }
    }
    return found;
}

bool machine_debug_shutdown(struct machine *machine, unsigned vcpu)
{
    if (!machine->debug)
        return false;
    atomic_store(&machine->debug->has_shutdown[vcpu], true);
    machine_request(machine, REQUEST_DEBUG);
    return true;
}

static bool take_shutdown(struct machine *machine, unsigned *vcpu, struct debug_stop *stop)
{
    struct machine_debug *d = machine->debug;
    for (unsigned i = 0; i < machine->config.vcpu_count; i++) {
        if (!atomic_exchange(&d->has_shutdown[i], false))
            continue;
        d->resets = true;
        *vcpu = i;
        *stop = (struct debug_stop){.kind = DEBUG_STOP_SHUTDOWN};
    }
    return d->resets;
}

void machine_debug_detach(struct machine *machine)
{
    struct machine_debug *d = machine->debug;
    if (!d)
        return;
    assert(!machine->is_running);
    unsigned shut_down;
    struct debug_stop untold;
    for (unsigned i = 0; i < d->count; i++)
        patch_remove(machine, &d->patch[i]);
    if (take_shutdown(machine, &shut_down, &untold))
        machine_request(machine, REQUEST_RESET);
    for (unsigned i = 0; i < machine->config.vcpu_count; i++) {
        struct debug_stop stop;
        vcpus_take_stop(machine->vcpus, i, &stop);
        vcpus_hold(machine->vcpus, i, false);
        vcpus_set_debug(machine->vcpus, i, NULL, NULL);
    }
    machine->debug = NULL;
    free(d);
    machine_request(machine, REQUEST_HALTED); /* which was not looked at meanwhile */
}

/* An access that was not told yet, of a vCPU that was to run, to what is still watched. */
static bool take_access(struct machine *machine, unsigned *vcpu, struct debug_stop *stop)
{
    struct machine_debug *d = machine->debug;
    for (unsigned i = 0; i < machine->config.vcpu_count; i++) {
        if (!d->has_access[i] || d->is_held[i])
            continue;
        d->has_access[i] = false;
        if (find(d, &d->access[i].breakpoint) == d->count)
            continue;
        *vcpu = i;
        *stop = d->access[i];
        return true;
    }
    return false;
}

void machine_debug_stopped(struct machine *machine)
{
    struct machine_debug *d = machine->debug;
    unsigned vcpu = 0;
    struct debug_stop stop = {0};
    if (!machine->is_running) {
        if (d)
            d->is_late = true;
        return;
    }
    bool found = d && (take_shutdown(machine, &vcpu, &stop) ||
                       collect_stops(machine, &vcpu, &stop) || take_access(machine, &vcpu, &stop));
    if (!found) {
        machine_resume_vcpus(machine);
        return;
    }
    machine_pause(machine);
    d->holds = true;
    d->debugger.stopped(d->debugger.opaque, vcpu, &stop);
}

void machine_debug_running(struct machine *machine)
{
    struct machine_debug *d = machine->debug;
    if (d && d->is_late) {
        d->is_late = false;
        machine_request(machine, REQUEST_DEBUG); /* before a vCPU runs */
    }
}

void machine_debug_stop(struct machine *machine)
{
    machine_pause(machine);
    machine->debug->holds = true;
}

bool machine_debug_holds(const struct machine *machine)
{
    return machine->debug && machine->debug->holds;
}

void machine_debug_restarted(struct machine *machine)
{
    struct machine_debug *d = machine->debug;
    struct debug_stop stop;
    unsigned vcpu;
    if (!d)
        return;
    collect_stops(machine, &vcpu, &stop);
    memset(d->has_access, 0, sizeof(d->has_access));
    take_shutdown(machine, &vcpu, &stop);
    d->resets = false;
    for (unsigned i = 0; i < d->count; i++)
        if (d->patch[i].is_written)
            patch_write(machine, &d->patch[i]);
}

bool machine_debug_resume(struct machine *machine, const enum machine_debug_action *actions,
                          bool takes_interrupts, struct error *err)
{
    struct machine_debug *d = machine->debug;
    struct debug_stop stop;
    unsigned vcpu;
    assert(!machine->is_running);
    for (unsigned i = 0; i < machine->config.vcpu_count; i++)
        if (!tell_vcpu(machine, i, actions[i], takes_interrupts, err))
            return false;
    collect_stops(machine, &vcpu, &stop); /* of before: only accesses count */
    for (unsigned i = 0; i < machine->config.vcpu_count; i++)
        if (d->has_access[i] && !d->is_held[i])
            machine_request(machine, REQUEST_DEBUG); /* then it does not run, but tells */
    if (d->resets)
        machine_request(machine, REQUEST_RESET);
    d->holds = false;
    machine_resume(machine);
    return true;
}

/* ---- registers and memory ---- */

bool machine_debug_get_state(struct machine *machine, unsigned vcpu, struct x86_state *state,
                             struct error *err)
{
    return vcpus_get_state(machine->vcpus, vcpu, state, err);
}

bool machine_debug_set_state(struct machine *machine, unsigned vcpu, const struct x86_state *state,
                             struct error *err)
{
    return vcpus_set_state(machine->vcpus, vcpu, state, err);
}

/* The physical address of `address`, and how many bytes up to the end of its page. */
static bool place(struct machine *machine, const struct x86_state *state, uint64_t address,
                  uint64_t *gpa, size_t *left_bytes)
{
    *gpa = address;
    *left_bytes = RAM_PAGE_BYTES - address % RAM_PAGE_BYTES;
    return !state || x86_translate(state, machine->ram, address, gpa);
}

size_t machine_debug_read(struct machine *machine, const struct x86_state *state, uint64_t address,
                          void *buffer, size_t size_bytes)
{
    size_t done = 0;
    while (done < size_bytes) {
        uint64_t gpa;
        size_t piece;
        uint8_t *to = (uint8_t *)buffer + done;
        if (!place(machine, state, address + done, &gpa, &piece))
            break;
        if (piece > size_bytes - done)
            piece = size_bytes - done;
        if (!physmap_read(machine->physmap, gpa, to, piece)) /* flash and ROM, too */
            break;
        show_originals(machine, gpa, to, piece);
        done += piece;
    }
    return done;
}

size_t machine_debug_write(struct machine *machine, const struct x86_state *state, uint64_t address,
                           const void *buffer, size_t size_bytes)
{
    size_t done = 0;
    while (done < size_bytes) {
        uint64_t gpa;
        size_t piece;
        if (!place(machine, state, address + done, &gpa, &piece))
            break;
        if (piece > size_bytes - done)
            piece = size_bytes - done;
        if (!ram_write(machine->ram, gpa, (const uint8_t *)buffer + done, piece))
            break;
        cover_again(machine, gpa, piece);
        done += piece;
    }
    return done;
}
