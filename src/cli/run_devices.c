/* SPDX-License-Identifier: BSD-2-Clause
 * skep run: the options of the screen and of further devices. */
#include "cli/display.h"
#include "cli/request.h"

#include <string.h>

bool store_vga(void *target, const char *value, struct error *err)
{
    struct request *request = target;
    if (request->has_vga)
        return request_too_many("graphics devices", 1, err);
    request->has_vga = true;
    return display_parse_vga(&request->vm.machine, request_copy(request, value), err);
}

bool store_display(void *target, const char *value, struct error *err)
{
    struct request *request = target;
    if (request->has_display)
        return request_too_many("displays", 1, err);
    request->has_display = true;
    return display_parse_display(&request->vm.machine, request_copy(request, value), err);
}

bool store_exit_port(void *target, const char *value, struct error *err)
{
    ((struct request *)target)->vm.machine.has_exit_port = true;
    return true;
}

static bool debug_exit_options(struct machine_config *machine, char *rest, struct error *err)
{
    machine->has_exit_port = true;
    while (rest) {
        const char *piece = next_piece(&rest);
        if (strncmp(piece, "port=", 5)) {
            error_usage(err, "option of debug-exit", piece, "it is not known");
            return error_hint(err, "known is port=NUMBER");
        }
        if (!parse_io_port(piece + 5, 4, &machine->exit_port, err))
            return false;
    }
    return true;
}

bool store_device(void *target, const char *value, struct error *err)
{
    struct request *request = target;
    struct machine_config *machine = &request->vm.machine;
    if (request->device_count == MAX_DEVICES)
        return request_too_many("devices", MAX_DEVICES, err);
    request->device_count++;
    char *rest = request_copy(request, value);
    const char *kind = next_piece(&rest);
    if (!strcmp(kind, "debug-exit"))
        return debug_exit_options(machine, rest, err);
    if (!strcmp(kind, "testdev") && !rest) {
        machine->has_testdev = true;
        return true;
    }
    if (!strcmp(kind, "testdev")) {
        error_usage(err, "option of testdev", rest, "it has none");
        return error_hint(err, "write --device testdev");
    }
    error_usage(err, "device", kind, "there is no such kind");
    return error_hint(err, "the kinds are debug-exit[,port=NUMBER] and testdev");
}

bool store_rtc(void *target, const char *value, struct error *err)
{
    struct machine_config *machine = &((struct request *)target)->vm.machine;
    machine->rtc_is_local = !strcmp(value, "local");
    if (machine->rtc_is_local || !strcmp(value, "utc"))
        return true;
    error_usage(err, "clock", value, "there is no such time");
    return error_hint(err, "it is utc (the default) or local, which Windows and DOS expect");
}

bool store_no_balloon(void *target, const char *value, struct error *err)
{
    ((struct request *)target)->vm.machine.no_balloon = true;
    return true;
}

bool store_no_rng(void *target, const char *value, struct error *err)
{
    ((struct request *)target)->vm.machine.no_rng = true;
    return true;
}

bool store_input(void *target, const char *value, struct error *err)
{
    struct request *request = target;
    if (request->has_input)
        return request_too_many("kinds of input devices", 1, err);
    request->has_input = true;
    if (machine_input_find(value, &request->vm.machine.input))
        return true;
    error_usage(err, "input devices", value, "there is no such kind");
    return error_hint(err, "the kinds are ps2, usb and virtio");
}
