/* SPDX-License-Identifier: BSD-2-Clause
 * Commands of GDB's `monitor`, for what the protocol has no packets for. */
#include "vm/gdb/internal.h"

#include <string.h>

enum { INFO_BYTES = 1024 };

typedef void monitor_fn(struct gdb_session *session, const char *argument, struct gdb_text *output);

static monitor_fn tell_help;

static void tell_info(struct gdb_session *session, const char *argument, struct gdb_text *output)
{
    char text[INFO_BYTES];
    size_t length = session->target.info(session->target.opaque, text, sizeof(text));
    gdb_put_raw(output, text, length);
}

/* Sets the switch when the argument says how, and tells how it is. */
static void set_switch(bool *value, const char *name, const char *argument, struct gdb_text *output)
{
    if (!strcmp(argument, "on")) {
        *value = true;
    } else if (!strcmp(argument, "off")) {
        *value = false;
    } else if (*argument) {
        gdb_put(output, "%s is either on or off\n", name);
        return;
    }
    gdb_put(output, "%s is %s\n", name, *value ? "on" : "off");
}

static void physical(struct gdb_session *session, const char *argument, struct gdb_text *output)
{
    set_switch(&session->is_physical, "physical", argument, output);
}

static void step_interrupts(struct gdb_session *session, const char *argument,
                            struct gdb_text *output)
{
    set_switch(&session->takes_interrupts, "step-interrupts", argument, output);
}

static void reset(struct gdb_session *session, const char *argument, struct gdb_text *output)
{
    session->target.reset(session->target.opaque);
    gdb_put(output, "the machine is reset; `maintenance flush register-cache` makes GDB look\n");
}

static const struct {
    const char *name, *arguments, *help;
    monitor_fn *run;
} commands[] = {
    {"help", "", "tells this", tell_help},
    {"info", "", "tells about the machine", tell_info},
    {"physical", " [on|off]", "addresses of memory are physical ones", physical},
    {"step-interrupts", " [on|off]", "single steps take interrupts", step_interrupts},
    {"reset", "", "resets the machine, which stays stopped", reset},
};
enum { COMMANDS = sizeof(commands) / sizeof(commands[0]) };

static void tell_help(struct gdb_session *session, const char *argument, struct gdb_text *output)
{
    for (unsigned i = 0; i < COMMANDS; i++) {
        size_t column = output->used_bytes + 26;
        gdb_put(output, "%s%s", commands[i].name, commands[i].arguments);
        while (output->used_bytes < column && !output->is_cut)
            gdb_put(output, " ");
        gdb_put(output, "%s\n", commands[i].help);
    }
}

void gdb_monitor(struct gdb_session *session, const char *command, struct gdb_text *output)
{
    size_t length = strcspn(command, " ");
    const char *argument = command + length;
    argument += strspn(argument, " ");
    for (unsigned i = 0; i < COMMANDS; i++) {
        if (strlen(commands[i].name) == length && !memcmp(commands[i].name, command, length)) {
            commands[i].run(session, argument, output);
            return;
        }
    }
    gdb_put(output, "there is no such command; `monitor help` lists them\n");
}
