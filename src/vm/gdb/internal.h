/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What the files of a session share: session.c (packets in, answers out), run.c (stops, resuming,
 * threads), access.c (registers and memory), breakpoints.c, query.c, monitor.c. Each command gets
 * the rest of its packet and fills the answer. Private to vm/gdb.
 */
#ifndef SKEP_VM_GDB_INTERNAL_H
#define SKEP_VM_GDB_INTERNAL_H

#include "vm/gdb/packet.h"
#include "vm/gdb/session.h"

enum { GDB_XML_BYTES = 24576 };

struct gdb_session {
    struct gdb_target target;
    gdb_send_fn *send;
    void *opaque;
    struct gdb_registers registers;
    char xml[GDB_XML_BYTES];
    size_t xml_bytes;

    struct gdb_reader reader;
    char answer_bytes[GDB_PACKET_BYTES];
    char frame[GDB_FRAME_BYTES]; /* the last one, to be sent again */
    size_t frame_bytes;
    bool has_no_acks;
    bool knows_swbreak, knows_hwbreak; /* the debugger's features */

    bool is_running; /* a stop reply is owed */
    bool is_over;
    bool is_physical;          /* addresses of memory are physical ones */
    bool takes_interrupts;     /* in single steps */
    unsigned general, control; /* vCPUs of Hg and Hc; a control of ALL_VCPUS: all */
    struct {
        unsigned vcpu;
        unsigned signal;
        bool is_by_target;
        struct debug_stop stop;
    } last;          /* the last stop */
    unsigned listed; /* of qsThreadInfo: the next vCPU */
};

enum { GDB_ALL_VCPUS = UINT16_MAX };

/* Signals as GDB numbers them. */
enum { GDB_SIGINT = 2, GDB_SIGTRAP = 5, GDB_SIGABRT = 6 };

/* Error numbers of answers: GDB shows them and nothing else. */
enum { GDB_EIO = 5, GDB_EBUSY = 16, GDB_EFAULT = 14, GDB_EINVAL = 22, GDB_ENOSPC = 28 };

void gdb_answer_ok(struct gdb_text *answer);
void gdb_answer_error(struct gdb_text *answer, unsigned number);
/* What a command ends in that gives no answer now. */
void gdb_send_packet(struct gdb_session *session, const struct gdb_text *answer);

/* run.c */
void gdb_put_stop(struct gdb_session *session, struct gdb_text *answer);
bool gdb_continue(struct gdb_session *session, struct gdb_scan *scan, struct gdb_text *answer);
bool gdb_step(struct gdb_session *session, struct gdb_scan *scan, struct gdb_text *answer);
/* "Cont;…": true when it runs now, and the answer comes with the stop. */
bool gdb_vcont(struct gdb_session *session, struct gdb_scan *scan, struct gdb_text *answer);
void gdb_interrupt(struct gdb_session *session);
void gdb_set_thread(struct gdb_session *session, struct gdb_scan *scan, struct gdb_text *answer);
void gdb_is_alive(struct gdb_session *session, struct gdb_scan *scan, struct gdb_text *answer);

/* access.c */
void gdb_read_registers(struct gdb_session *session, struct gdb_text *answer);
void gdb_write_registers(struct gdb_session *session, struct gdb_scan *scan,
                         struct gdb_text *answer);
void gdb_read_register(struct gdb_session *session, struct gdb_scan *scan, struct gdb_text *answer);
void gdb_write_register(struct gdb_session *session, struct gdb_scan *scan,
                        struct gdb_text *answer);
void gdb_read_memory(struct gdb_session *session, struct gdb_scan *scan, struct gdb_text *answer);
void gdb_write_memory(struct gdb_session *session, struct gdb_scan *scan, bool is_binary,
                      struct gdb_text *answer);

/* breakpoints.c */
void gdb_breakpoint(struct gdb_session *session, struct gdb_scan *scan, bool is_insert,
                    struct gdb_text *answer);

/* query.c: q… and Q… */
void gdb_query(struct gdb_session *session, struct gdb_scan *scan, struct gdb_text *answer);
void gdb_set(struct gdb_session *session, struct gdb_scan *scan, struct gdb_text *answer);

/* monitor.c: a command of `monitor`; its output for a person. */
void gdb_monitor(struct gdb_session *session, const char *command, struct gdb_text *output);

#endif
