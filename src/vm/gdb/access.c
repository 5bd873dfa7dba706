/* SPDX-License-Identifier: BSD-2-Clause
 * Registers and memory of the vCPU that Hg has chosen. */
#include "vm/gdb/internal.h"

enum { MEMORY_MAX_BYTES = (GDB_PACKET_BYTES - 64) / 2 };

static bool get_state(struct gdb_session *session, struct x86_state *state)
{
    return session->target.get_state(session->target.opaque, session->general, state);
}

static bool set_state(struct gdb_session *session, const struct x86_state *state)
{
    return session->target.set_state(session->target.opaque, session->general, state);
}

/* ---- registers ---- */

void gdb_read_registers(struct gdb_session *session, struct gdb_text *answer)
{
    struct x86_state state;
    uint8_t bytes[GDB_REGISTER_BYTES];
    if (!get_state(session, &state)) {
        gdb_answer_error(answer, GDB_EIO);
        return;
    }
    for (unsigned i = 0; i < session->registers.count; i++) {
        gdb_register_get(&session->registers.list[i], &state, bytes);
        gdb_put_hex(answer, bytes, session->registers.list[i].size_bytes);
    }
}

/* Those that can't be written keep their values: GDB sends all that it has read. */
static bool scan_registers(const struct gdb_session *session, struct gdb_scan *scan,
                           struct x86_state *state)
{
    uint8_t bytes[GDB_REGISTER_BYTES];
    for (unsigned i = 0; i < session->registers.count && !gdb_scan_is_done(scan); i++) {
        const struct gdb_register *reg = &session->registers.list[i];
        if (!gdb_scan_bytes(scan, bytes, reg->size_bytes))
            return false;
        gdb_register_set(reg, state, bytes);
    }
    return gdb_scan_is_done(scan);
}

void gdb_write_registers(struct gdb_session *session, struct gdb_scan *scan,
                         struct gdb_text *answer)
{
    struct x86_state state;
    if (get_state(session, &state) && scan_registers(session, scan, &state) &&
        set_state(session, &state))
        gdb_answer_ok(answer);
    else
        gdb_answer_error(answer, GDB_EINVAL);
}

static const struct gdb_register *scan_register(const struct gdb_session *session,
                                                struct gdb_scan *scan)
{
    uint64_t number;
    if (!gdb_scan_number(scan, &number) || number >= session->registers.count)
        return NULL;
    return &session->registers.list[number];
}

void gdb_read_register(struct gdb_session *session, struct gdb_scan *scan, struct gdb_text *answer)
{
    struct x86_state state;
    uint8_t bytes[GDB_REGISTER_BYTES];
    const struct gdb_register *reg = scan_register(session, scan);
    if (!reg || !get_state(session, &state)) {
        gdb_answer_error(answer, GDB_EINVAL);
        return;
    }
    gdb_register_get(reg, &state, bytes);
    gdb_put_hex(answer, bytes, reg->size_bytes);
}

void gdb_write_register(struct gdb_session *session, struct gdb_scan *scan, struct gdb_text *answer)
{
    struct x86_state state;
    uint8_t bytes[GDB_REGISTER_BYTES];
    const struct gdb_register *reg = scan_register(session, scan);
    if (reg && gdb_scan_char(scan, '=') && gdb_scan_bytes(scan, bytes, reg->size_bytes) &&
        gdb_scan_is_done(scan) && get_state(session, &state) &&
        gdb_register_set(reg, &state, bytes) && set_state(session, &state))
        gdb_answer_ok(answer);
    else
        gdb_answer_error(answer, GDB_EINVAL);
}

/* ---- memory ---- */

/* "ADDRESS,COUNT"; the count is bounded by what a packet holds. */
static bool scan_range(struct gdb_scan *scan, uint64_t *address, uint64_t *count)
{
    return gdb_scan_number(scan, address) && gdb_scan_char(scan, ',') &&
           gdb_scan_number(scan, count);
}

/* The address space that addresses are of: false when it can't be told. */
static bool choose_space(struct gdb_session *session, struct x86_state *state,
                         const struct x86_state **space)
{
    *space = session->is_physical ? NULL : state;
    return session->is_physical || get_state(session, state);
}

void gdb_read_memory(struct gdb_session *session, struct gdb_scan *scan, struct gdb_text *answer)
{
    uint8_t bytes[MEMORY_MAX_BYTES];
    uint64_t address, count;
    struct x86_state state;
    const struct x86_state *space;
    if (!scan_range(scan, &address, &count) || !gdb_scan_is_done(scan) ||
        !choose_space(session, &state, &space)) {
        gdb_answer_error(answer, GDB_EINVAL);
        return;
    }
    if (count > sizeof(bytes))
        count = sizeof(bytes); /* an answer may be shorter than what was asked for */
    size_t got = session->target.read(session->target.opaque, space, address, bytes, (size_t)count);
    if (got || !count)
        gdb_put_hex(answer, bytes, got);
    else
        gdb_answer_error(answer, GDB_EFAULT);
}

static bool scan_data(struct gdb_scan *scan, bool is_binary, uint8_t *bytes, uint64_t count)
{
    if (!is_binary)
        return gdb_scan_bytes(scan, bytes, (size_t)count) && gdb_scan_is_done(scan);
    if (gdb_scan_left(scan) != count)
        return false;
    for (uint64_t i = 0; i < count; i++)
        bytes[i] = (uint8_t)*scan->at++;
    return true;
}

void gdb_write_memory(struct gdb_session *session, struct gdb_scan *scan, bool is_binary,
                      struct gdb_text *answer)
{
    uint8_t bytes[GDB_PACKET_BYTES];
    uint64_t address, count;
    struct x86_state state;
    const struct x86_state *space;
    if (!scan_range(scan, &address, &count) || !gdb_scan_char(scan, ':') || count > sizeof(bytes) ||
        !scan_data(scan, is_binary, bytes, count) || !choose_space(session, &state, &space)) {
        gdb_answer_error(answer, GDB_EINVAL);
        return;
    }
    size_t done =
        session->target.write(session->target.opaque, space, address, bytes, (size_t)count);
    if (done == count)
        gdb_answer_ok(answer);
    else
        gdb_answer_error(answer, GDB_EFAULT);
}
