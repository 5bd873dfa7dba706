/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Packets in and answers out: GDB manual, appendix E. A command that is not known gets an empty
 * answer, as the protocol wants it.
 */
#include "vm/gdb/internal.h"

#include <assert.h>
#include <stdlib.h>

void gdb_answer_ok(struct gdb_text *answer)
{
    answer->used_bytes = 0;
    gdb_put(answer, "OK");
}

void gdb_answer_error(struct gdb_text *answer, unsigned number)
{
    answer->used_bytes = 0;
    gdb_put(answer, "E%02x", number);
}

void gdb_send_packet(struct gdb_session *session, const struct gdb_text *answer)
{
    assert(!answer->is_cut); /* commands bound what they ask for */
    session->frame_bytes = gdb_frame(session->frame, answer->bytes, answer->used_bytes);
    session->send(session->opaque, session->frame, session->frame_bytes);
}

static struct gdb_text new_answer(struct gdb_session *session)
{
    return (struct gdb_text){.bytes = session->answer_bytes,
                             .size_bytes = sizeof(session->answer_bytes)};
}

struct gdb_session *gdb_session_create(const struct gdb_target *target, gdb_send_fn *send,
                                       void *opaque)
{
    assert(target->vcpu_count >= 1 && target->vcpu_count <= MACHINE_MAX_VCPUS);
    struct gdb_session *session = calloc(1, sizeof(*session));
    if (!session)
        return NULL;
    session->target = *target;
    session->send = send;
    session->opaque = opaque;
    session->control = GDB_ALL_VCPUS;
    session->last.signal = GDB_SIGTRAP;
    gdb_registers_list(&session->registers, target->arch);
    struct gdb_text xml = {.bytes = session->xml, .size_bytes = sizeof(session->xml)};
    gdb_registers_describe(&session->registers, &xml);
    assert(!xml.is_cut);
    session->xml_bytes = xml.used_bytes;
    return session;
}

void gdb_session_destroy(struct gdb_session *session)
{
    free(session);
}

/* ---- commands ---- */

static void detach(struct gdb_session *session, struct gdb_text *answer)
{
    gdb_answer_ok(answer);
    session->is_over = true;
    session->target.detach(session->target.opaque);
}

static void kill_target(struct gdb_session *session)
{
    session->is_over = true;
    session->target.kill(session->target.opaque);
}

/* Words that begin with v. True: the answer comes later. */
static bool verbose(struct gdb_session *session, struct gdb_scan *scan, struct gdb_text *answer)
{
    if (gdb_scan_word(scan, "Cont?")) {
        gdb_put(answer, "vCont;c;C;s;S");
    } else if (gdb_scan_word(scan, "Cont;")) {
        return gdb_vcont(session, scan, answer);
    } else if (gdb_scan_word(scan, "Kill;")) {
        gdb_answer_ok(answer);
        kill_target(session);
    }
    return false;
}

/* True: no answer, now or at all. */
static bool run_command(struct gdb_session *session, char command, struct gdb_scan *scan,
                        struct gdb_text *answer)
{
    switch (command) {
    case '?': gdb_put_stop(session, answer); break;
    case 'g': gdb_read_registers(session, answer); break;
    case 'G': gdb_write_registers(session, scan, answer); break;
    case 'p': gdb_read_register(session, scan, answer); break;
    case 'P': gdb_write_register(session, scan, answer); break;
    case 'm': gdb_read_memory(session, scan, answer); break;
    case 'M': gdb_write_memory(session, scan, false, answer); break;
    case 'X': gdb_write_memory(session, scan, true, answer); break;
    case 'Z': gdb_breakpoint(session, scan, true, answer); break;
    case 'z': gdb_breakpoint(session, scan, false, answer); break;
    case 'H': gdb_set_thread(session, scan, answer); break;
    case 'T': gdb_is_alive(session, scan, answer); break;
    case 'q': gdb_query(session, scan, answer); break;
    case 'Q': gdb_set(session, scan, answer); break;
    case 'D': detach(session, answer); break;
    case 'c':
    case 'C': return gdb_continue(session, scan, answer);
    case 's':
    case 'S': return gdb_step(session, scan, answer);
    case 'v': return verbose(session, scan, answer);
    case 'k': kill_target(session); return true;
    default: break;
    }
    return false;
}

static void packet(struct gdb_session *session)
{
    struct gdb_text answer = new_answer(session);
    const char *data = session->reader.data;
    struct gdb_scan scan = {data + 1, data + session->reader.used_bytes};
    bool had_no_acks = session->has_no_acks;
    if (!had_no_acks)
        session->send(session->opaque, "+", 1);
    if (session->reader.used_bytes == 0) {
        gdb_send_packet(session, &answer);
    } else if (session->is_running) {
        gdb_answer_error(&answer, GDB_EBUSY);
        gdb_send_packet(session, &answer);
    } else if (!run_command(session, data[0], &scan, &answer)) {
        gdb_send_packet(session, &answer);
    }
}

bool gdb_session_input(struct gdb_session *session, uint8_t byte)
{
    switch (gdb_read(&session->reader, byte)) {
    case GDB_INPUT_PACKET: packet(session); break;
    case GDB_INPUT_BAD:
        if (!session->has_no_acks)
            session->send(session->opaque, "-", 1);
        break;
    case GDB_INPUT_INTERRUPT: gdb_interrupt(session); break;
    case GDB_INPUT_NACK:
        if (!session->has_no_acks && session->frame_bytes)
            session->send(session->opaque, session->frame, session->frame_bytes);
        break;
    case GDB_INPUT_ACK:
    case GDB_INPUT_NONE: break;
    }
    return !session->is_over;
}

/* ---- from the target ---- */

void gdb_session_stopped(struct gdb_session *session, unsigned vcpu, const struct debug_stop *stop)
{
    struct gdb_text answer = new_answer(session);
    session->last.vcpu = vcpu;
    session->last.signal = stop->kind == DEBUG_STOP_SHUTDOWN ? GDB_SIGABRT : GDB_SIGTRAP;
    session->last.is_by_target = true;
    session->last.stop = *stop;
    session->is_running = false;
    session->general = vcpu;
    gdb_put_stop(session, &answer);
    gdb_send_packet(session, &answer);
}

void gdb_session_ended(struct gdb_session *session, uint8_t code)
{
    struct gdb_text answer = new_answer(session);
    if (session->is_running) {
        gdb_put(&answer, "W%02x", code);
        gdb_send_packet(session, &answer);
    }
    session->is_running = false;
    session->is_over = true;
}
