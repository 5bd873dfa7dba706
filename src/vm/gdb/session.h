/* SPDX-License-Identifier: BSD-2-Clause
 *
 * One debugger's session: GDB's remote serial protocol over bytes in and out, for what `gdb_target`
 * offers. It knows no socket and no machine. All-stop mode; a thread is a vCPU, with the number of
 * the vCPU plus one. Single thread.
 */
#ifndef SKEP_VM_GDB_SESSION_H
#define SKEP_VM_GDB_SESSION_H

#include "machine/debug.h"
#include "vm/gdb/registers.h"

/* What is debugged. But for stop(), called while it stands still only. */
struct gdb_target {
    void *opaque;
    unsigned vcpu_count; /* 1 … MACHINE_MAX_VCPUS */
    enum gdb_arch arch;

    bool (*get_state)(void *opaque, unsigned vcpu, struct x86_state *state);
    bool (*set_state)(void *opaque, unsigned vcpu, const struct x86_state *state);
    /* As machine_debug_read() and machine_debug_write(). */
    size_t (*read)(void *opaque, const struct x86_state *state, uint64_t address, void *buffer,
                   size_t size_bytes);
    size_t (*write)(void *opaque, const struct x86_state *state, uint64_t address,
                    const void *buffer, size_t size_bytes);
    bool (*insert)(void *opaque, const struct breakpoint *breakpoint, unsigned vcpu);
    void (*remove)(void *opaque, const struct breakpoint *breakpoint);

    void (*stop)(void *opaque); /* it stands still when this returns */
    bool (*resume)(void *opaque, const enum machine_debug_action *actions, bool takes_interrupts);
    void (*detach)(void *opaque); /* all breakpoints go, and it runs on */
    void (*kill)(void *opaque);
    void (*reset)(void *opaque); /* soon, with it standing still before and after */
    size_t (*info)(void *opaque, char *text, size_t size_bytes); /* for a person */
};

/* Bytes for the debugger. Called from within gdb_session_input(), _stopped() and _ended() only. */
typedef void gdb_send_fn(void *opaque, const char *bytes, size_t size_bytes);

struct gdb_session;

/* A debugger has come; the target stands still and has no breakpoints. NULL: no memory. */
struct gdb_session *gdb_session_create(const struct gdb_target *target, gdb_send_fn *send,
                                       void *opaque);
void gdb_session_destroy(struct gdb_session *session); /* NULL is fine; tells the target nothing */

/* A byte from the debugger. False: the session is over (it has detached, or killed the target). */
bool gdb_session_input(struct gdb_session *session, uint8_t byte);

/* The target has stopped by itself. */
void gdb_session_stopped(struct gdb_session *session, unsigned vcpu, const struct debug_stop *stop);
/* It has ended with this exit code. */
void gdb_session_ended(struct gdb_session *session, uint8_t code);

#endif
