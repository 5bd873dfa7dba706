/* SPDX-License-Identifier: BSD-2-Clause
 * Z and z: breakpoints and watchpoints by linear address. */
#include "vm/gdb/internal.h"

/* "TYPE,ADDRESS,KIND": the kind is a watched range's size. */
static bool scan_breakpoint(struct gdb_scan *scan, struct breakpoint *breakpoint)
{
    static const struct breakpoint types[] = {
        {BREAK_EXECUTE, true, 0, 0}, {BREAK_EXECUTE, false, 0, 0}, {WATCH_WRITE, false, 0, 0},
        {WATCH_READ, false, 0, 0},   {WATCH_ACCESS, false, 0, 0},
    };
    uint64_t type, address, kind;
    if (!gdb_scan_number(scan, &type) || type >= sizeof(types) / sizeof(types[0]) ||
        !gdb_scan_char(scan, ',') || !gdb_scan_number(scan, &address) ||
        !gdb_scan_char(scan, ',') || !gdb_scan_number(scan, &kind) || !gdb_scan_is_done(scan))
        return false;
    *breakpoint = types[type];
    breakpoint->linear = address;
    breakpoint->size_bytes = breakpoint->kind == BREAK_EXECUTE ? 1 : kind;
    return breakpoint->size_bytes && address + (breakpoint->size_bytes - 1) >= address;
}

void gdb_breakpoint(struct gdb_session *session, struct gdb_scan *scan, bool is_insert,
                    struct gdb_text *answer)
{
    struct breakpoint breakpoint;
    if (!scan_breakpoint(scan, &breakpoint)) {
        gdb_answer_error(answer, GDB_EINVAL);
        return;
    }
    if (!is_insert) {
        session->target.remove(session->target.opaque, &breakpoint);
    } else if (!session->target.insert(session->target.opaque, &breakpoint, session->general)) {
        gdb_answer_error(answer, GDB_ENOSPC);
        return;
    }
    gdb_answer_ok(answer);
}
