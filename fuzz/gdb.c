/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Fuzz target: what comes over the socket of the GDB server. The first byte chooses the
 * architecture; then follow operations: bytes as they are, a packet that is framed rightly, and a
 * stop of the target while it runs. Beyond what the sanitizers see, the target checks that nothing
 * is asked of it while it runs, and each answer that its frame is right.
 */
#include "unit/gdb_target.h"
#include "vm/gdb/packet.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes);

enum { OP_RAW, OP_PACKET, OP_STOP, OPERATIONS };

struct input {
    const uint8_t *at, *end;
};

static void require(bool truth, const char *what)
{
    if (truth)
        return;
    fprintf(stderr, "broken promise: %s\n", what);
    abort();
}

static uint8_t take(struct input *in)
{
    return in->at < in->end ? *in->at++ : 0;
}

/* What the session sends, read as a debugger would. */
static void receive(void *opaque, const char *bytes, size_t size_bytes)
{
    struct gdb_reader *reader = opaque;
    for (size_t i = 0; i < size_bytes; i++)
        require(gdb_read(reader, (uint8_t)bytes[i]) != GDB_INPUT_BAD, "answers are framed rightly");
}

static bool give(struct gdb_session *session, const void *bytes, size_t size_bytes)
{
    const uint8_t *at = bytes;
    for (size_t i = 0; i < size_bytes; i++)
        if (!gdb_session_input(session, at[i]))
            return false;
    return true;
}

static bool operate(struct gdb_session *session, struct fake_target *fake, struct input *in)
{
    static char frame[GDB_FRAME_BYTES];
    unsigned operation = take(in) % OPERATIONS;
    size_t length = take(in);
    if (length > (size_t)(in->end - in->at))
        length = (size_t)(in->end - in->at);
    const uint8_t *bytes = in->at;
    if (operation == OP_STOP) {
        const struct debug_stop stop = {length % 4, {length / 4 % 4, length / 16 % 2, length, 8}};
        if (stop.kind == DEBUG_STOP_WATCHPOINT && stop.breakpoint.kind == BREAK_EXECUTE)
            return true; /* no engine tells that */
        if (fake->is_running) {
            fake->is_running = false;
            gdb_session_stopped(session, length % FAKE_VCPUS, &stop);
        }
        return true;
    }
    in->at += length;
    if (operation == OP_RAW)
        return give(session, bytes, length);
    return give(session, frame, gdb_frame(frame, (const char *)bytes, length));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
    struct input in = {data, data + size_bytes};
    struct fake_target *fake = calloc(1, sizeof(*fake));
    struct gdb_reader *reader = calloc(1, sizeof(*reader));
    require(fake && reader, "there is memory");
    for (unsigned i = 0; i < FAKE_VCPUS; i++)
        x86_state_reset(&fake->state[i], i == 0);
    struct gdb_target target = fake_target(fake, take(&in) & 1 ? GDB_I386 : GDB_X86_64);
    struct gdb_session *session = gdb_session_create(&target, receive, reader);
    require(session, "there is a session");
    while (in.at < in.end && operate(session, fake, &in))
        require(fake->mistakes == 0, "nothing is asked of a target that runs");
    require(fake->mistakes == 0, "nothing is asked of a target that runs");
    gdb_session_destroy(session);
    free(reader);
    free(fake);
    return 0;
}
