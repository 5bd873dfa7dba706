/* SPDX-License-Identifier: BSD-2-Clause
 * Queries and settings: GDB manual, E.4; those named qemu are as QEMU has them. */
#include "vm/gdb/internal.h"

#include <stdio.h>
#include <string.h>

enum { OUTPUT_BYTES = 4096, SSTEP_ENABLE = 1, SSTEP_NOIRQ = 2 };

static void supported(struct gdb_session *session, struct gdb_scan *scan, struct gdb_text *answer)
{
    while (!gdb_scan_is_done(scan)) {
        if (gdb_scan_word(scan, "swbreak+"))
            session->knows_swbreak = true;
        else if (gdb_scan_word(scan, "hwbreak+"))
            session->knows_hwbreak = true;
        else
            scan->at++;
    }
    gdb_put(answer,
            "PacketSize=%x;QStartNoAckMode+;qXfer:features:read+;vContSupported+;swbreak+;hwbreak+",
            GDB_PACKET_BYTES);
}

/* "target.xml:OFFSET,LENGTH" */
static void features(struct gdb_session *session, struct gdb_scan *scan, struct gdb_text *answer)
{
    enum { MOST = GDB_PACKET_BYTES - 1 };
    uint64_t offset, length;
    if (!gdb_scan_word(scan, "target.xml:") || !gdb_scan_number(scan, &offset) ||
        !gdb_scan_char(scan, ',') || !gdb_scan_number(scan, &length) || !gdb_scan_is_done(scan)) {
        gdb_answer_error(answer, 0); /* no such annex, or a malformed request */
        return;
    }
    size_t left = offset < session->xml_bytes ? session->xml_bytes - (size_t)offset : 0;
    size_t piece = left < MOST ? left : MOST;
    if (length < piece)
        piece = (size_t)length;
    gdb_put(answer, "%s", piece < left ? "m" : "l");
    gdb_put_raw(answer, session->xml + (session->xml_bytes - left), piece);
}

static void thread_list(struct gdb_session *session, struct gdb_text *answer)
{
    gdb_put(answer, "m");
    for (unsigned i = 0; i < session->target.vcpu_count; i++)
        gdb_put(answer, "%s%x", i ? "," : "", i + 1);
}

static const char *describe_mode(const struct x86_state *state)
{
    if (!(state->cr0 & 1))
        return "real mode";
    if (state->rflags & 1 << 17)
        return "virtual-8086 mode";
    if (state->segment[SEG_CS].attributes & SEGMENT_L && state->efer & 1 << 10)
        return "64-bit";
    return state->segment[SEG_CS].attributes & SEGMENT_DB ? "32-bit" : "16-bit";
}

static void thread_info(struct gdb_session *session, struct gdb_scan *scan, struct gdb_text *answer)
{
    static const char *const states[] = {
        [X86_RUNNING] = "", [X86_HALTED] = ", halted", [X86_WAIT_FOR_SIPI] = ", waits for a SIPI"};
    uint64_t id;
    struct x86_state state;
    char text[64];
    if (!gdb_scan_number(scan, &id) || id < 1 || id > session->target.vcpu_count ||
        !session->target.get_state(session->target.opaque, (unsigned)id - 1, &state)) {
        gdb_answer_error(answer, GDB_EINVAL);
        return;
    }
    snprintf(text, sizeof(text), "vCPU %u, %s%s", (unsigned)id - 1, describe_mode(&state),
             states[state.run_state]);
    gdb_put_hex(answer, text, strlen(text));
}

/* The command is in hexadecimal, and so is what it prints. */
static void monitor(struct gdb_session *session, struct gdb_scan *scan, struct gdb_text *answer)
{
    char command[128], output[OUTPUT_BYTES];
    struct gdb_text text = {.bytes = output, .size_bytes = sizeof(output)};
    size_t length = gdb_scan_left(scan) / 2;
    if (length >= sizeof(command) || !gdb_scan_bytes(scan, (uint8_t *)command, length)) {
        gdb_answer_error(answer, GDB_EINVAL);
        return;
    }
    command[length] = '\0';
    gdb_monitor(session, command, &text);
    if (text.used_bytes)
        gdb_put_hex(answer, output, text.used_bytes);
    else
        gdb_answer_ok(answer);
}

void gdb_query(struct gdb_session *session, struct gdb_scan *scan, struct gdb_text *answer)
{
    if (gdb_scan_word(scan, "Supported"))
        supported(session, scan, answer);
    else if (gdb_scan_word(scan, "Xfer:features:read:"))
        features(session, scan, answer);
    else if (gdb_scan_word(scan, "ThreadExtraInfo,"))
        thread_info(session, scan, answer);
    else if (gdb_scan_word(scan, "fThreadInfo"))
        thread_list(session, answer);
    else if (gdb_scan_word(scan, "sThreadInfo"))
        gdb_put(answer, "l");
    else if (gdb_scan_word(scan, "Rcmd,"))
        monitor(session, scan, answer);
    else if (gdb_scan_word(scan, "Attached"))
        gdb_put(answer, "1"); /* so quitting GDB detaches, and does not kill */
    else if (gdb_scan_word(scan, "Symbol::"))
        gdb_answer_ok(answer); /* no symbol is needed */
    else if (gdb_scan_word(scan, "qemu.PhyMemMode"))
        gdb_put(answer, "%d", session->is_physical);
    else if (gdb_scan_word(scan, "qemu.sstepbits"))
        gdb_put(answer, "ENABLE=%x,NOIRQ=%x", SSTEP_ENABLE, SSTEP_NOIRQ);
    else if (gdb_scan_word(scan, "qemu.sstep"))
        gdb_put(answer, "0x%x", SSTEP_ENABLE | (session->takes_interrupts ? 0 : SSTEP_NOIRQ));
    else if (gdb_scan_word(scan, "C") && gdb_scan_is_done(scan))
        gdb_put(answer, "QC%x", session->general + 1);
}

void gdb_set(struct gdb_session *session, struct gdb_scan *scan, struct gdb_text *answer)
{
    uint64_t value;
    if (gdb_scan_word(scan, "StartNoAckMode")) {
        session->has_no_acks = true;
        gdb_answer_ok(answer);
    } else if (gdb_scan_word(scan, "qemu.PhyMemMode:")) {
        session->is_physical = gdb_scan_char(scan, '1');
        gdb_answer_ok(answer);
    } else if (gdb_scan_word(scan, "qemu.sstep=")) {
        gdb_scan_word(scan, "0x");
        if (!gdb_scan_number(scan, &value) || !(value & SSTEP_ENABLE)) {
            gdb_answer_error(answer, GDB_EINVAL);
            return;
        }
        session->takes_interrupts = !(value & SSTEP_NOIRQ);
        gdb_answer_ok(answer);
    }
}
