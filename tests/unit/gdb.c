/* SPDX-License-Identifier: BSD-2-Clause
 *
 * GDB's remote serial protocol, packet by packet, against a target that is no machine: framing,
 * registers and their description, memory, breakpoints, threads, resuming, and what is malformed.
 */
#include "unit/gdb_target.h"
#include "vm/gdb/packet.h"

#include <ctype.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

struct client {
    struct fake_target fake;
    struct gdb_session *session;
    char raw[65536]; /* all that came since it was last looked at */
    size_t used;
    char text[GDB_PACKET_BYTES + 1]; /* of the last packet, escapes taken out */
    bool is_over;
};

static void receive(void *opaque, const char *bytes, size_t size_bytes)
{
    struct client *c = opaque;
    assert_true(size_bytes < sizeof(c->raw) - c->used);
    memcpy(c->raw + c->used, bytes, size_bytes);
    c->used += size_bytes;
    c->raw[c->used] = '\0';
}

static void give(struct client *c, const void *bytes, size_t size_bytes)
{
    const uint8_t *at = bytes;
    for (size_t i = 0; i < size_bytes && !c->is_over; i++)
        c->is_over = !gdb_session_input(c->session, at[i]);
}

/* The text of the one packet in what came, the checksum of which must be right. */
static const char *packet_text(struct client *c)
{
    struct gdb_reader *reader = calloc(1, sizeof(*reader));
    unsigned packets = 0;
    c->text[0] = '\0';
    for (size_t i = 0; i < c->used; i++) {
        enum gdb_input input = gdb_read(reader, (uint8_t)c->raw[i]);
        assert_int_not_equal(input, GDB_INPUT_BAD);
        if (input != GDB_INPUT_PACKET)
            continue;
        packets++;
        memcpy(c->text, reader->data, reader->used_bytes);
        c->text[reader->used_bytes] = '\0';
    }
    free(reader);
    assert_int_equal(packets, 1);
    c->used = 0;
    return c->text;
}

static void send_packet(struct client *c, const char *data, size_t size_bytes)
{
    static char frame[GDB_FRAME_BYTES];
    c->used = 0;
    give(c, frame, gdb_frame(frame, data, size_bytes));
}

/* Sends a command and gives its answer. */
static const char *ask(struct client *c, const char *command)
{
    send_packet(c, command, strlen(command));
    return packet_text(c);
}

#define expect(c, command, answer) assert_string_equal(ask(c, command), answer)

static int open_client_for(void **state, enum gdb_arch arch)
{
    struct client *c = calloc(1, sizeof(*c));
    for (unsigned i = 0; i < FAKE_VCPUS; i++)
        x86_state_reset(&c->fake.state[i], i == 0);
    struct gdb_target target = fake_target(&c->fake, arch);
    c->session = gdb_session_create(&target, receive, c);
    *state = c;
    return !c->session;
}

static int open_client(void **state)
{
    return open_client_for(state, GDB_X86_64);
}

static int open_client32(void **state)
{
    return open_client_for(state, GDB_I386);
}

static int close_client(void **state)
{
    struct client *c = *state;
    unsigned mistakes = c->fake.mistakes;
    gdb_session_destroy(c->session);
    free(c);
    return mistakes != 0;
}

/* ---- framing ---- */

static void test_framing(void **state)
{
    struct client *c = *state;
    give(c, "$?#3f", 5);
    assert_memory_equal(c->raw, "+$T05thread:1;#", 15);
    c->used = 0;
    give(c, "$?#3e", 5); /* a wrong checksum */
    assert_string_equal(c->raw, "-");
    c->used = 0;
    give(c, "$?#zz", 5);
    assert_string_equal(c->raw, "-");
    c->used = 0;
    give(c, "-", 1); /* the last answer again */
    assert_memory_equal(c->raw, "$T05thread:1;#", 14);
    c->used = 0;
    give(c, "$nonsense$?#3f", 14); /* the end of the first was lost */
    assert_memory_equal(c->raw, "+$T05", 5);
    c->used = 0;
    give(c, "junk\n+++", 8);
    assert_int_equal(c->used, 0);
    expect(c, "QStartNoAckMode", "OK");
    c->used = 0;
    give(c, "$?#3f", 5);
    assert_memory_equal(c->raw, "$T05", 4);
    c->used = 0;
    give(c, "$?#3e", 5);
    assert_int_equal(c->used, 0);
}

static void test_unknown(void **state)
{
    struct client *c = *state;
    expect(c, "vMustReplyEmpty", "");
    expect(c, "", "");
    expect(c, "!", "");
    expect(c, "vFile:open:2f", "");
    expect(c, "qNothing", "");
    expect(c, "QNothing", "");
    expect(c, "jabber", "");
}

static void test_too_long(void **state)
{
    struct client *c = *state;
    char *longest = malloc(GDB_PACKET_BYTES + 1);
    memset(longest, 'j', GDB_PACKET_BYTES + 1);
    send_packet(c, longest, GDB_PACKET_BYTES);
    assert_string_equal(packet_text(c), "");
    give(c, "$", 1);
    for (unsigned i = 0; i < 5; i++)
        give(c, longest, GDB_PACKET_BYTES);
    c->used = 0;
    give(c, "#00", 3);
    assert_string_equal(c->raw, "-");
    expect(c, "?", "T05thread:1;");
    free(longest);
}

/* ---- registers ---- */

/* The number that the description gives a register. */
static unsigned number_of(const char *xml, const char *name)
{
    char mark[64];
    snprintf(mark, sizeof(mark), "<reg name=\"%s\" ", name);
    const char *at = strstr(xml, mark);
    assert_non_null(at);
    at = strstr(at, "regnum=\"");
    assert_non_null(at);
    return (unsigned)strtoul(at + 8, NULL, 10);
}

/* In pieces, as GDB may ask for it. */
static char *read_xml(struct client *c, unsigned piece)
{
    char *xml = calloc(1, 65536);
    size_t used = 0;
    for (;;) {
        char command[64];
        snprintf(command, sizeof(command), "qXfer:features:read:target.xml:%zx,%x", used, piece);
        const char *answer = ask(c, command);
        assert_true(*answer == 'm' || *answer == 'l');
        strcpy(xml + used, answer + 1);
        used += strlen(answer + 1);
        if (*answer == 'l')
            return xml;
    }
}

static void test_description(void **state)
{
    struct client *c = *state;
    char *xml = read_xml(c, 0xffb);
    char *again = read_xml(c, 0x3fff);
    static const char *const features[] = {"i386:x86-64",
                                           "org.gnu.gdb.i386.core\"",
                                           "org.gnu.gdb.i386.sse\"",
                                           "org.gnu.gdb.i386.avx\"",
                                           "org.gnu.gdb.i386.linux\"",
                                           "org.gnu.gdb.i386.segments\"",
                                           "org.skep.system\""};
    assert_string_equal(xml, again);
    for (unsigned i = 0; i < sizeof(features) / sizeof(features[0]); i++)
        assert_non_null(strstr(xml, features[i]));
    assert_non_null(strstr(xml, "</target>"));
    assert_int_equal(number_of(xml, "rax"), 0);
    assert_int_equal(number_of(xml, "rip"), 16);
    free(xml);
    free(again);
    expect(c, "qXfer:features:read:target.xml:ffffffff,10", "l");
    expect(c, "qXfer:features:read:other.xml:0,10", "E00");
    expect(c, "qXfer:features:read:target.xml:0", "E00");
    expect(c, "qXfer:features:read:target.xml:0,0", "m");
}

static void set_by_name(struct client *c, const char *xml, const char *name, const char *value)
{
    char command[128];
    snprintf(command, sizeof(command), "P%x=%s", number_of(xml, name), value);
    expect(c, command, "OK");
}

static void expect_by_name(struct client *c, const char *xml, const char *name, const char *value)
{
    char command[16];
    snprintf(command, sizeof(command), "p%x", number_of(xml, name));
    expect(c, command, value);
}

static void test_registers(void **state)
{
    struct client *c = *state;
    struct x86_state *s = &c->fake.state[0];
    char *xml = read_xml(c, 0x3000);
    s->gpr[RBX] = 0x1122334455667788;
    s->rip = 0xfff0;
    assert_memory_equal(ask(c, "g") + 16, "8877665544332211", 16);
    expect_by_name(c, xml, "rip", "f0ff000000000000");
    set_by_name(c, xml, "r15", "0102030405060708");
    assert_int_equal(s->gpr[R15], 0x0807060504030201);
    set_by_name(c, xml, "eflags", "46020000");
    assert_int_equal(s->rflags, 0x246);
    set_by_name(c, xml, "cr3", "0010000000000000");
    assert_int_equal(s->cr3, 0x1000);
    set_by_name(c, xml, "gs_base", "00000080ffffffff");
    assert_int_equal(s->segment[SEG_GS].base, 0xffffffff80000000);
    set_by_name(c, xml, "ds", "34120000"); /* in real mode */
    assert_int_equal(s->segment[SEG_DS].base, 0x12340);
    set_by_name(c, xml, "gdtr_limit", "7f00");
    assert_int_equal(s->gdtr.limit, 0x7f);
    expect_by_name(c, xml, "orig_rax", "ffffffffffffffff");
    char command[32];
    snprintf(command, sizeof(command), "P%x=0000000000000000", number_of(xml, "orig_rax"));
    expect(c, command, "E16");
    snprintf(command, sizeof(command), "P%x=000000800000", number_of(xml, "cr0"));
    expect(c, command, "E16"); /* too short */
    snprintf(command, sizeof(command), "P%x=0000008000000000", number_of(xml, "cr0"));
    expect(c, command, "E16"); /* paging without protection: the target refuses */
    free(xml);
    expect(c, "pffff", "E16");
    expect(c, "p", "E16");
    expect(c, "P0", "E16");
}

static void test_vector_registers(void **state)
{
    struct client *c = *state;
    struct x86_state *s = &c->fake.state[0];
    char *xml = read_xml(c, 0x3000);
    /* All components are in their initial state, whatever the bytes say. */
    memset(s->xsave, 0xaa, sizeof(s->xsave));
    memset(s->xsave + 512, 0, 64);
    expect_by_name(c, xml, "xmm3", "00000000000000000000000000000000");
    expect_by_name(c, xml, "fctrl", "7f030000");
    expect_by_name(c, xml, "ftag", "ffff0000");
    set_by_name(c, xml, "xmm3", "0102030405060708090a0b0c0d0e0f10");
    assert_int_equal(s->xsave[512], 2);
    assert_int_equal(s->xsave[160 + 3 * 16 + 15], 0x10);
    assert_int_equal(s->xsave[160], 0);
    set_by_name(c, xml, "ymm15h", "ff000000000000000000000000000001");
    assert_int_equal(s->xsave[576 + 15 * 16], 0xff);
    /* 1.0 in ST(0) with TOP 7: physical register 7. */
    set_by_name(c, xml, "st0", "0000000000000080ff3f");
    set_by_name(c, xml, "fstat", "00380000");
    set_by_name(c, xml, "ftag", "ff3f0000");
    assert_int_equal(s->xsave[4], 0x80);
    expect_by_name(c, xml, "ftag", "ff3f0000");
    set_by_name(c, xml, "st0", "00000000000000000000");
    expect_by_name(c, xml, "ftag", "ff7f0000"); /* a zero */
    assert_int_equal(s->xsave[512], 7);
    set_by_name(c, xml, "mxcsr", "a01f0000");
    assert_int_equal(s->xsave[24], 0xa0);
    free(xml);
}

/* What g gave is taken back by G, and changes what was changed only. */
static void test_all_registers(void **state)
{
    struct client *c = *state;
    struct x86_state before = c->fake.state[0];
    char *all = strdup(ask(c, "g"));
    char *command = malloc(strlen(all) + 2);
    command[0] = 'G';
    strcpy(command + 1, all);
    memcpy(command + 1, "0001000000000000", 16);
    expect(c, command, "OK");
    before.gpr[RAX] = 0x100;
    assert_memory_equal(&c->fake.state[0], &before, sizeof(before));
    command[strlen(command) - 1] = '\0';
    expect(c, command, "E16");
    free(all);
    free(command);
}

static void test_registers32(void **state)
{
    struct client *c = *state;
    struct x86_state *s = &c->fake.state[0];
    char *xml = read_xml(c, 0x3000);
    assert_non_null(strstr(xml, "<architecture>i386</architecture>"));
    assert_null(strstr(xml, "xmm8"));
    assert_null(strstr(xml, "\"r8\""));
    s->gpr[RCX] = 0x55667788;
    assert_memory_equal(ask(c, "g") + 8, "88776655", 8);
    s->gpr[RSI] = UINT64_C(0x100000000);
    set_by_name(c, xml, "esi", "01000000");
    assert_int_equal(s->gpr[RSI], UINT64_C(0x100000001));
    set_by_name(c, xml, "eip", "00000100");
    assert_int_equal(s->rip, 0x10000);
    set_by_name(c, xml, "fs_base", "0010000000000000");
    assert_int_equal(s->segment[SEG_FS].base, 0x1000);
    free(xml);
}

/* ---- memory ---- */

static void test_memory(void **state)
{
    struct client *c = *state;
    memcpy(c->fake.page, "\x01\x23\x45", 3);
    expect(c, "mffffffff80001000,3", "012345");
    expect(c, "mffffffff80001ffe,10", "0000"); /* up to the end of what is there */
    expect(c, "mffffffff80002000,1", "E0e");
    expect(c, "mffffffff80001000,0", "");
    expect(c, "Mffffffff80001001,2:abcd", "OK");
    assert_int_equal(c->fake.page[2], 0xcd);
    expect(c, "Mffffffff80001fff,2:abcd", "E0e");
    send_packet(c, "Xffffffff80001000,4:#$}*", 24);
    assert_string_equal(packet_text(c), "OK");
    assert_memory_equal(c->fake.page, "#$}*", 4);
    expect(c, "Xffffffff80001000,0:", "OK"); /* GDB's question whether X is known */
    expect(c, "Qqemu.PhyMemMode:1", "OK");
    expect(c, "qqemu.PhyMemMode", "1");
    expect(c, "m1000,4", "23247d2a");
    expect(c, "mffffffff80001000,4", "E0e");
    expect(c, "Qqemu.PhyMemMode:0", "OK");
    expect(c, "mffffffff80001000,1", "23");
    assert_true(strlen(ask(c, "mffffffff80001000,ffffffff")) == 2 * sizeof(c->fake.page));
}

static void test_malformed_memory(void **state)
{
    struct client *c = *state;
    static const char *const commands[] = {"m",
                                           "m,",
                                           "mzz,1",
                                           "m1000",
                                           "m1000,",
                                           "m1000,1x",
                                           "m11112222333344445,1",
                                           "M1000,2:ab",
                                           "M1000,1:abcd",
                                           "M1000,2:abxy",
                                           "M1000,ffffffffffffffff:00",
                                           "M1000,1",
                                           "X1000,2:a",
                                           "X1000,ffffffff:a",
                                           "X1000"};
    for (unsigned i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        expect(c, commands[i], "E16");
}

/* ---- breakpoints ---- */

static void test_breakpoints(void **state)
{
    struct client *c = *state;
    static const enum breakpoint_kind kinds[] = {BREAK_EXECUTE, BREAK_EXECUTE, WATCH_WRITE,
                                                 WATCH_READ, WATCH_ACCESS};
    for (unsigned i = 0; i < 5; i++) {
        char command[64];
        snprintf(command, sizeof(command), "Z%u,ffffffff80001000,4", i);
        expect(c, command, "OK");
        assert_int_equal(c->fake.count, 1);
        assert_int_equal(c->fake.breakpoint[0].kind, kinds[i]);
        assert_int_equal(c->fake.breakpoint[0].is_software, i == 0);
        assert_int_equal(c->fake.breakpoint[0].size_bytes, i < 2 ? 1 : 4);
        command[0] = 'z';
        expect(c, command, "OK");
        assert_int_equal(c->fake.count, 0);
    }
    static const char *const bad[] = {"Z",         "Z5,0,1", "Z0",     "Z0,",
                                      "Z0,1",      "Z0,1,",  "Z2,1,0", "Z2,ffffffffffffffff,2",
                                      "Z0,1,1;X1", "z9,0,1"};
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        expect(c, bad[i], "E16");
    for (unsigned i = 0; i < FAKE_BREAKPOINTS; i++)
        expect(c, "Z1,1000,1", "OK");
    expect(c, "Z1,1000,1", "E1c");
}

/* ---- threads and running ---- */

static void test_threads(void **state)
{
    struct client *c = *state;
    expect(c, "qfThreadInfo", "m1,2");
    expect(c, "qsThreadInfo", "l");
    expect(c, "qC", "QC1");
    expect(c, "Hg2", "OK");
    expect(c, "qC", "QC2");
    expect(c, "Hg3", "E16");
    expect(c, "Hg0", "OK");
    expect(c, "Hc-1", "OK");
    expect(c, "Hx1", "E16");
    expect(c, "T2", "OK");
    expect(c, "T3", "E16");
    expect(c, "T-1", "E16");
    c->fake.state[1].rip = 0x77;
    expect(c, "p10", "7700000000000000");
    expect(c, "qThreadExtraInfo,3", "E16");
    const char *hex = ask(c, "qThreadExtraInfo,2");
    assert_memory_equal(hex, "76435055203", 11); /* "vCPU " */
}

static void stop_with(struct client *c, unsigned vcpu, enum debug_stop_kind kind,
                      enum breakpoint_kind breakpoint, bool is_software, const char *answer)
{
    const struct debug_stop stop = {kind, {breakpoint, is_software, 0xabc, 8}};
    c->fake.is_running = false;
    c->used = 0;
    gdb_session_stopped(c->session, vcpu, &stop);
    assert_string_equal(packet_text(c), answer);
    expect(c, "?", answer);
}

/* Commands that are answered by the stop alone. */
static void set_going(struct client *c, const char *command)
{
    unsigned resumes = c->fake.resumes;
    send_packet(c, command, strlen(command));
    assert_string_equal(c->raw, "+");
    assert_int_equal(c->fake.resumes, resumes + 1);
    assert_true(c->fake.is_running);
}

static void test_resuming(void **state)
{
    struct client *c = *state;
    static const struct {
        const char *command;
        enum machine_debug_action first, second;
    } commands[] = {
        {"vCont;c", MACHINE_DEBUG_CONTINUE, MACHINE_DEBUG_CONTINUE},
        {"vCont;s:2", MACHINE_DEBUG_HOLD, MACHINE_DEBUG_STEP},
        {"vCont;s:2;c", MACHINE_DEBUG_CONTINUE, MACHINE_DEBUG_STEP},
        {"vCont;S05:1;c:2", MACHINE_DEBUG_STEP, MACHINE_DEBUG_CONTINUE},
        {"vCont;c:-1;s:1", MACHINE_DEBUG_CONTINUE, MACHINE_DEBUG_CONTINUE},
        {"c", MACHINE_DEBUG_CONTINUE, MACHINE_DEBUG_CONTINUE},
        {"C05", MACHINE_DEBUG_CONTINUE, MACHINE_DEBUG_CONTINUE},
        {"s", MACHINE_DEBUG_STEP, MACHINE_DEBUG_HOLD},
    };
    expect(c, "vCont?", "vCont;c;C;s;S");
    for (unsigned i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        set_going(c, commands[i].command);
        assert_int_equal(c->fake.action[0], commands[i].first);
        assert_int_equal(c->fake.action[1], commands[i].second);
        stop_with(c, 0, DEBUG_STOP_STEP, BREAK_EXECUTE, false, "T05thread:1;");
    }
    expect(c, "Hc2", "OK");
    set_going(c, "s1234");
    assert_int_equal(c->fake.action[1], MACHINE_DEBUG_STEP);
    assert_int_equal(c->fake.state[1].rip, 0x1234);
    stop_with(c, 1, DEBUG_STOP_STEP, BREAK_EXECUTE, false, "T05thread:2;");
    static const char *const bad[] = {"vCont;",     "vCont;x", "vCont;c:3", "vCont;c;", "vCont;C",
                                      "vCont;s:1x", "C",       "cxyz",      "S5;"};
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        expect(c, bad[i], "E16");
    assert_false(c->fake.is_running);
}

static void test_stops(void **state)
{
    struct client *c = *state;
    set_going(c, "vCont;c");
    stop_with(c, 1, DEBUG_STOP_BREAKPOINT, BREAK_EXECUTE, true, "T05thread:2;");
    assert_string_equal(ask(c, "qSupported:xmlRegisters=i386;swbreak+;hwbreak+;vContSupported+"),
                        "PacketSize=4000;QStartNoAckMode+;qXfer:features:read+;vContSupported+;"
                        "swbreak+;hwbreak+");
    set_going(c, "vCont;c");
    stop_with(c, 0, DEBUG_STOP_BREAKPOINT, BREAK_EXECUTE, true, "T05thread:1;swbreak:;");
    set_going(c, "vCont;c");
    stop_with(c, 1, DEBUG_STOP_BREAKPOINT, BREAK_EXECUTE, false, "T05thread:2;hwbreak:;");
    set_going(c, "vCont;c");
    stop_with(c, 0, DEBUG_STOP_WATCHPOINT, WATCH_WRITE, false, "T05thread:1;watch:abc;");
    set_going(c, "vCont;c");
    stop_with(c, 0, DEBUG_STOP_WATCHPOINT, WATCH_READ, false, "T05thread:1;rwatch:abc;");
    set_going(c, "vCont;c");
    stop_with(c, 0, DEBUG_STOP_WATCHPOINT, WATCH_ACCESS, false, "T05thread:1;awatch:abc;");
    set_going(c, "vCont;c");
    stop_with(c, 1, DEBUG_STOP_SHUTDOWN, BREAK_EXECUTE, false, "T06thread:2;");
}

static void test_interrupt(void **state)
{
    struct client *c = *state;
    const uint8_t ctrl_c = 3;
    give(c, &ctrl_c, 1); /* it stands still: nothing */
    assert_int_equal(c->used, 0);
    assert_int_equal(c->fake.stops, 0);
    set_going(c, "vCont;c");
    expect(c, "g", "E10"); /* nothing can be asked while it runs */
    c->used = 0;
    give(c, &ctrl_c, 1);
    assert_string_equal(packet_text(c), "T02thread:1;");
    assert_int_equal(c->fake.stops, 1);
    assert_true(strlen(ask(c, "g")) > 1000);
}

static void test_ends(void **state)
{
    struct client *c = *state;
    set_going(c, "vCont;c");
    c->used = 0;
    c->fake.is_running = false;
    gdb_session_ended(c->session, 3);
    assert_string_equal(packet_text(c), "W03");
}

static void test_detach(void **state)
{
    struct client *c = *state;
    expect(c, "qAttached", "1");
    expect(c, "D", "OK");
    assert_true(c->is_over);
    assert_int_equal(c->fake.detaches, 1);
}

static void test_kill(void **state)
{
    struct client *c = *state;
    expect(c, "vKill;1", "OK");
    assert_true(c->is_over);
    assert_int_equal(c->fake.kills, 1);
}

static void test_kill_silently(void **state)
{
    struct client *c = *state;
    send_packet(c, "k", 1);
    assert_string_equal(c->raw, "+");
    assert_true(c->is_over);
    assert_int_equal(c->fake.kills, 1);
}

/* ---- monitor, and what is as in QEMU ---- */

static const char *monitor(struct client *c, const char *command)
{
    static char text[8192];
    char packet[512] = "qRcmd,";
    for (size_t i = 0; command[i]; i++)
        snprintf(packet + 6 + 2 * i, 3, "%02x", (unsigned char)command[i]);
    const char *answer = ask(c, packet);
    if (!strcmp(answer, "OK"))
        return "";
    size_t length = strlen(answer) / 2;
    for (size_t i = 0; i < length; i++) {
        char digits[3] = {answer[2 * i], answer[2 * i + 1], '\0'};
        assert_true(isxdigit((unsigned char)digits[0]) && isxdigit((unsigned char)digits[1]));
        text[i] = (char)strtoul(digits, NULL, 16);
    }
    text[length] = '\0';
    return text;
}

static void test_monitor(void **state)
{
    struct client *c = *state;
    const char *help = monitor(c, "help");
    assert_non_null(strstr(help, "physical [on|off]"));
    assert_non_null(strstr(help, "reset"));
    assert_string_equal(monitor(c, "info"), "a fake\n");
    assert_string_equal(monitor(c, "physical"), "physical is off\n");
    assert_string_equal(monitor(c, "physical  on"), "physical is on\n");
    expect(c, "m1000,1", "00");
    assert_string_equal(monitor(c, "physical maybe"), "physical is either on or off\n");
    monitor(c, "reset");
    assert_int_equal(c->fake.resets, 1);
    assert_non_null(strstr(monitor(c, "frobnicate"), "no such command"));
    assert_non_null(strstr(monitor(c, ""), "no such command"));
    expect(c, "qRcmd,6g", "E16");
}

static void test_step_interrupts(void **state)
{
    struct client *c = *state;
    expect(c, "qqemu.sstepbits", "ENABLE=1,NOIRQ=2");
    expect(c, "qqemu.sstep", "0x3");
    set_going(c, "vCont;s:1");
    assert_false(c->fake.takes_interrupts);
    stop_with(c, 0, DEBUG_STOP_STEP, BREAK_EXECUTE, false, "T05thread:1;");
    expect(c, "Qqemu.sstep=0x1", "OK");
    expect(c, "qqemu.sstep", "0x1");
    set_going(c, "vCont;s:1");
    assert_true(c->fake.takes_interrupts);
    stop_with(c, 0, DEBUG_STOP_STEP, BREAK_EXECUTE, false, "T05thread:1;");
    assert_string_equal(monitor(c, "step-interrupts off"), "step-interrupts is off\n");
    expect(c, "qqemu.sstep", "0x3");
    expect(c, "Qqemu.sstep=x", "E16");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_client, close_client)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_framing),
        TEST(test_unknown),
        TEST(test_too_long),
        TEST(test_description),
        TEST(test_registers),
        TEST(test_vector_registers),
        TEST(test_all_registers),
        cmocka_unit_test_setup_teardown(test_registers32, open_client32, close_client),
        TEST(test_memory),
        TEST(test_malformed_memory),
        TEST(test_breakpoints),
        TEST(test_threads),
        TEST(test_resuming),
        TEST(test_stops),
        TEST(test_interrupt),
        TEST(test_ends),
        TEST(test_detach),
        TEST(test_kill),
        TEST(test_kill_silently),
        TEST(test_monitor),
        TEST(test_step_interrupts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
