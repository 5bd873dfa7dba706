/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A target for sessions of the GDB server that is no machine: two processors' states, a page of
 * memory, a list of breakpoints. Shared by the unit test and the fuzz target.
 */
#ifndef SKEP_TESTS_UNIT_GDB_TARGET_H
#define SKEP_TESTS_UNIT_GDB_TARGET_H

#include "vm/gdb/session.h"

#include <stdio.h>
#include <string.h>

enum { FAKE_VCPUS = 2, FAKE_BREAKPOINTS = 8 };
/* Where its page is, by linear and by physical address. */
#define FAKE_LINEAR   UINT64_C(0xffffffff80001000)
#define FAKE_PHYSICAL UINT64_C(0x1000)

struct fake_target {
    struct x86_state state[FAKE_VCPUS];
    uint8_t page[4096];
    struct breakpoint breakpoint[FAKE_BREAKPOINTS];
    unsigned count;
    enum machine_debug_action action[FAKE_VCPUS];
    bool is_running, takes_interrupts;
    unsigned stops, resumes, detaches, kills, resets, mistakes;
};

static inline void fake_still(struct fake_target *fake)
{
    fake->mistakes += fake->is_running;
}

static inline bool fake_get_state(void *opaque, unsigned vcpu, struct x86_state *state)
{
    struct fake_target *fake = opaque;
    fake_still(fake);
    fake->mistakes += vcpu >= FAKE_VCPUS;
    *state = fake->state[vcpu % FAKE_VCPUS];
    return true;
}

/* As an engine, it refuses what no processor can be in. */
static inline bool fake_set_state(void *opaque, unsigned vcpu, const struct x86_state *state)
{
    struct fake_target *fake = opaque;
    fake_still(fake);
    if ((state->cr0 >> 31 & 1) && !(state->cr0 & 1))
        return false;
    fake->state[vcpu % FAKE_VCPUS] = *state;
    return true;
}

static inline size_t fake_span(struct fake_target *fake, const struct x86_state *state,
                               uint64_t address, size_t size_bytes, uint64_t *offset)
{
    fake_still(fake);
    *offset = address - (state ? FAKE_LINEAR : FAKE_PHYSICAL);
    if (*offset >= sizeof(fake->page))
        return 0;
    uint64_t left = sizeof(fake->page) - *offset;
    return size_bytes < left ? size_bytes : (size_t)left;
}

static inline size_t fake_read(void *opaque, const struct x86_state *state, uint64_t address,
                               void *buffer, size_t size_bytes)
{
    struct fake_target *fake = opaque;
    uint64_t offset;
    size_t count = fake_span(fake, state, address, size_bytes, &offset);
    memcpy(buffer, fake->page + (count ? offset : 0), count);
    return count;
}

static inline size_t fake_write(void *opaque, const struct x86_state *state, uint64_t address,
                                const void *buffer, size_t size_bytes)
{
    struct fake_target *fake = opaque;
    uint64_t offset;
    size_t count = fake_span(fake, state, address, size_bytes, &offset);
    memcpy(fake->page + (count ? offset : 0), buffer, count);
    return count;
}

static inline bool fake_insert(void *opaque, const struct breakpoint *breakpoint, unsigned vcpu)
{
    struct fake_target *fake = opaque;
    fake_still(fake);
    fake->mistakes += !breakpoint->size_bytes ||
                      breakpoint->linear + (breakpoint->size_bytes - 1) < breakpoint->linear;
    if (fake->count == FAKE_BREAKPOINTS)
        return false;
    fake->breakpoint[fake->count++] = *breakpoint;
    return true;
}

static inline void fake_remove(void *opaque, const struct breakpoint *breakpoint)
{
    struct fake_target *fake = opaque;
    fake_still(fake);
    for (unsigned i = 0; i < fake->count; i++)
        if (fake->breakpoint[i].kind == breakpoint->kind &&
            fake->breakpoint[i].linear == breakpoint->linear)
            fake->breakpoint[i--] = fake->breakpoint[--fake->count];
}

static inline void fake_stop(void *opaque)
{
    struct fake_target *fake = opaque;
    fake->is_running = false;
    fake->stops++;
}

static inline bool fake_resume(void *opaque, const enum machine_debug_action *actions,
                               bool takes_interrupts)
{
    struct fake_target *fake = opaque;
    fake_still(fake);
    memcpy(fake->action, actions, sizeof(fake->action));
    fake->takes_interrupts = takes_interrupts;
    fake->is_running = true;
    fake->resumes++;
    return true;
}

static inline void fake_detach(void *opaque)
{
    struct fake_target *fake = opaque;
    fake->detaches++;
}

static inline void fake_kill(void *opaque)
{
    struct fake_target *fake = opaque;
    fake->kills++;
}

static inline void fake_reset(void *opaque)
{
    struct fake_target *fake = opaque;
    fake->resets++;
}

static inline size_t fake_info(void *opaque, char *text, size_t size_bytes)
{
    return (size_t)snprintf(text, size_bytes, "a fake\n");
}

static inline struct gdb_target fake_target(struct fake_target *fake, enum gdb_arch arch)
{
    return (struct gdb_target){
        .opaque = fake,
        .vcpu_count = FAKE_VCPUS,
        .arch = arch,
        .get_state = fake_get_state,
        .set_state = fake_set_state,
        .read = fake_read,
        .write = fake_write,
        .insert = fake_insert,
        .remove = fake_remove,
        .stop = fake_stop,
        .resume = fake_resume,
        .detach = fake_detach,
        .kill = fake_kill,
        .reset = fake_reset,
        .info = fake_info,
    };
}

#endif
