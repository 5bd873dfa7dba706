/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A thread for each vCPU: it opens the engine's vCPU, runs it, sleeps while it is halted, and
 * stands still while the machine is paused. Made paused.
 */
#ifndef SKEP_MACHINE_VCPUS_H
#define SKEP_MACHINE_VCPUS_H

#include "base/error.h"
#include "base/log.h"
#include "cpu/engine.h"

#include <stdbool.h>
#include <stdint.h>

struct vcpus;

enum vcpus_event {
    VCPUS_TRIPLE_FAULT,
    VCPUS_RESET,  /* the engine saw a request for a reset */
    VCPUS_HALTED, /* all may have halted for good; without a pause */
    VCPUS_DEBUG,  /* what vcpus_set_debug() asked for has happened: vcpus_take_stop() */
    VCPUS_FAILED, /* `error` tells why */
};

struct vcpus_config {
    const struct engine *engine;
    struct engine_vm *vm; /* must outlive the vCPUs */
    unsigned count;
    const uint16_t *pins; /* of each: the host's processor that it stays on, + 1; NULL, 0: any */
    /* On the vCPU's thread, after all vCPUs were asked to pause (but VCPUS_HALTED). */
    void (*event)(void *opaque, unsigned vcpu, enum vcpus_event event, const struct error *error);
    void *opaque;
};

/* Opens all vCPUs, each on its own thread. NULL when one can't be. */
struct vcpus *vcpus_create(const struct vcpus_config *config, struct error *err);

/* Stops and closes all; NULL is fine. From the machine's thread. */
void vcpus_destroy(struct vcpus *vcpus);

void vcpus_resume(struct vcpus *vcpus);

/* Returns when no vCPU runs. From the machine's thread, without any device's lock. */
void vcpus_pause(struct vcpus *vcpus);

/* The same without waiting, so that a vCPU's thread may ask: the calling one stops at the end of
 * its instruction. Any thread. */
void vcpus_request_pause(struct vcpus *vcpus);

/* engine->inject(), and wakes a vCPU that is halted. Any thread. */
void vcpus_inject(struct vcpus *vcpus, unsigned vcpu, enum engine_event event, unsigned value);

/* A vCPU that is halted looks whether it has work (struct engine_hooks). Any thread. */
void vcpus_wake(struct vcpus *vcpus, unsigned vcpu);

/* Which vCPU runs on the calling thread; UINT_MAX on other threads. */
unsigned vcpus_current(struct vcpus *vcpus);

/* The time that the host's processors have spent on all of them; any thread. */
uint64_t vcpus_host_ns(struct vcpus *vcpus);

/* The guest's time-stamp counter; any thread. The engine must have one to read. */
uint64_t vcpus_read_tsc(struct vcpus *vcpus, unsigned vcpu);

/* The state of a vCPU while all are paused; done on its own thread. */
bool vcpus_get_state(struct vcpus *vcpus, unsigned vcpu, struct x86_state *state,
                     struct error *err);
bool vcpus_set_state(struct vcpus *vcpus, unsigned vcpu, const struct x86_state *state,
                     struct error *err);

/* engine->set_debug() while all are paused. */
bool vcpus_set_debug(struct vcpus *vcpus, unsigned vcpu, const struct debug_request *request,
                     struct error *err);

/* A vCPU that is held stands still although the others run. While all are paused. */
void vcpus_hold(struct vcpus *vcpus, unsigned vcpu, bool is_held);

/* Why the vCPU has ended its run for the debugger, once; false when it has not. While all are
 * paused. */
bool vcpus_take_stop(struct vcpus *vcpus, unsigned vcpu, struct debug_stop *stop);

#endif
