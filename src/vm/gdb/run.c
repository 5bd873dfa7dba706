/* SPDX-License-Identifier: BSD-2-Clause
 * Threads, resuming and stopping: GDB manual, E.2 and E.3. */
#include "vm/gdb/internal.h"

/* ---- threads ---- */

enum { THREAD_ANY = 0 };

/* A thread's id: -1 for all, 0 for any, else a vCPU's number plus one. False: it is none. */
static bool scan_thread(const struct gdb_session *session, struct gdb_scan *scan, unsigned *vcpu,
                        unsigned any)
{
    uint64_t id;
    *vcpu = GDB_ALL_VCPUS;
    if (gdb_scan_word(scan, "-1"))
        return true;
    if (!gdb_scan_number(scan, &id) || id > session->target.vcpu_count)
        return false;
    *vcpu = id == THREAD_ANY ? any : (unsigned)id - 1;
    return true;
}

void gdb_set_thread(struct gdb_session *session, struct gdb_scan *scan, struct gdb_text *answer)
{
    unsigned vcpu;
    bool is_general = gdb_scan_char(scan, 'g');
    bool is_known = is_general || gdb_scan_char(scan, 'c');
    if (!is_known || !scan_thread(session, scan, &vcpu, session->general)) {
        gdb_answer_error(answer, GDB_EINVAL);
        return;
    }
    if (!is_general)
        session->control = vcpu;
    else if (vcpu != GDB_ALL_VCPUS)
        session->general = vcpu;
    gdb_answer_ok(answer);
}

void gdb_is_alive(struct gdb_session *session, struct gdb_scan *scan, struct gdb_text *answer)
{
    unsigned vcpu;
    if (scan_thread(session, scan, &vcpu, 0) && vcpu != GDB_ALL_VCPUS)
        gdb_answer_ok(answer);
    else
        gdb_answer_error(answer, GDB_EINVAL);
}

/* ---- stops ---- */

static void put_reason(const struct gdb_session *session, struct gdb_text *answer)
{
    static const char *const watches[] = {
        [WATCH_WRITE] = "watch", [WATCH_READ] = "rwatch", [WATCH_ACCESS] = "awatch"};
    const struct breakpoint *hit = &session->last.stop.breakpoint;
    switch (session->last.stop.kind) {
    case DEBUG_STOP_STEP:
    case DEBUG_STOP_SHUTDOWN: break;
    case DEBUG_STOP_BREAKPOINT:
        if (hit->is_software ? session->knows_swbreak : session->knows_hwbreak)
            gdb_put(answer, "%s:;", hit->is_software ? "swbreak" : "hwbreak");
        break;
    case DEBUG_STOP_WATCHPOINT:
        gdb_put(answer, "%s:%llx;", watches[hit->kind], (unsigned long long)hit->linear);
        break;
    }
}

void gdb_put_stop(struct gdb_session *session, struct gdb_text *answer)
{
    gdb_put(answer, "T%02xthread:%x;", session->last.signal, session->last.vcpu + 1);
    if (session->last.is_by_target)
        put_reason(session, answer);
}

void gdb_interrupt(struct gdb_session *session)
{
    struct gdb_text answer = {.bytes = session->answer_bytes,
                              .size_bytes = sizeof(session->answer_bytes)};
    if (!session->is_running)
        return; /* it has stopped by itself meanwhile */
    session->target.stop(session->target.opaque);
    session->is_running = false;
    session->last.signal = GDB_SIGINT;
    session->last.is_by_target = false;
    session->last.vcpu = session->general;
    gdb_put_stop(session, &answer);
    gdb_send_packet(session, &answer);
}

/* ---- resuming ---- */

static bool resume(struct gdb_session *session, const enum machine_debug_action *actions,
                   struct gdb_text *answer)
{
    session->is_running = true;
    if (session->target.resume(session->target.opaque, actions, session->takes_interrupts))
        return true;
    session->is_running = false;
    gdb_answer_error(answer, GDB_EIO);
    return false;
}

/* "[SIGNAL][;ADDRESS]" of C and S, "[ADDRESS]" of c and s: a guest has no signals. */
static bool take_address(struct gdb_session *session, struct gdb_scan *scan, bool has_signal)
{
    uint64_t value;
    struct x86_state state;
    unsigned vcpu = session->control == GDB_ALL_VCPUS ? session->general : session->control;
    if (has_signal && !gdb_scan_number(scan, &value))
        return false;
    if (gdb_scan_is_done(scan))
        return true;
    if (has_signal && !gdb_scan_char(scan, ';'))
        return false;
    if (!gdb_scan_number(scan, &value) || !gdb_scan_is_done(scan) ||
        !session->target.get_state(session->target.opaque, vcpu, &state))
        return false;
    state.rip = value;
    return session->target.set_state(session->target.opaque, vcpu, &state);
}

static bool legacy(struct gdb_session *session, struct gdb_scan *scan, bool steps,
                   struct gdb_text *answer)
{
    enum machine_debug_action actions[MACHINE_MAX_VCPUS];
    char command = scan->at[-1];
    if (!take_address(session, scan, command == 'C' || command == 'S')) {
        gdb_answer_error(answer, GDB_EINVAL);
        return false;
    }
    unsigned vcpu = session->control == GDB_ALL_VCPUS ? session->general : session->control;
    for (unsigned i = 0; i < session->target.vcpu_count; i++)
        actions[i] = steps ? MACHINE_DEBUG_HOLD : MACHINE_DEBUG_CONTINUE;
    if (steps)
        actions[vcpu] = MACHINE_DEBUG_STEP;
    return resume(session, actions, answer);
}

bool gdb_continue(struct gdb_session *session, struct gdb_scan *scan, struct gdb_text *answer)
{
    return legacy(session, scan, false, answer);
}

bool gdb_step(struct gdb_session *session, struct gdb_scan *scan, struct gdb_text *answer)
{
    return legacy(session, scan, true, answer);
}

struct plan {
    enum machine_debug_action action[MACHINE_MAX_VCPUS];
    bool is_set[MACHINE_MAX_VCPUS];
};

/* One "ACTION[:THREAD]": for those vCPUs that no action before it was for. */
static bool scan_action(const struct gdb_session *session, struct gdb_scan *scan, struct plan *plan)
{
    uint64_t signal;
    unsigned vcpu = GDB_ALL_VCPUS;
    bool has_signal = gdb_scan_left(scan) && (*scan->at == 'C' || *scan->at == 'S');
    bool steps = gdb_scan_char(scan, 's') || gdb_scan_char(scan, 'S');
    if (!steps && !gdb_scan_char(scan, 'c') && !gdb_scan_char(scan, 'C'))
        return false;
    if (has_signal && !gdb_scan_number(scan, &signal))
        return false;
    if (gdb_scan_char(scan, ':') && !scan_thread(session, scan, &vcpu, session->general))
        return false;
    for (unsigned i = 0; i < session->target.vcpu_count; i++) {
        if (plan->is_set[i] || (vcpu != GDB_ALL_VCPUS && vcpu != i))
            continue;
        plan->is_set[i] = true;
        plan->action[i] = steps ? MACHINE_DEBUG_STEP : MACHINE_DEBUG_CONTINUE;
    }
    return true;
}

bool gdb_vcont(struct gdb_session *session, struct gdb_scan *scan, struct gdb_text *answer)
{
    struct plan plan = {0}; /* all hold */
    bool any = false;
    do {
        if (!scan_action(session, scan, &plan)) {
            gdb_answer_error(answer, GDB_EINVAL);
            return false;
        }
    } while (gdb_scan_char(scan, ';'));
    for (unsigned i = 0; i < session->target.vcpu_count; i++)
        any |= plan.is_set[i];
    if (!gdb_scan_is_done(scan) || !any) {
        gdb_answer_error(answer, GDB_EINVAL);
        return false;
    }
    return resume(session, plan.action, answer);
}
