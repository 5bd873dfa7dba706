/* SPDX-License-Identifier: BSD-2-Clause
 * skep run: the options of terminals and of other ports whose bytes go somewhere. */
#include "cli/request.h"

#include <string.h>

bool store_console(void *target, const char *value, struct error *err)
{
    struct request *request = target;
    request->has_console = true;
    request->vm.machine.serials[0] = !strcmp(value, "none") ? NULL : value;
    return true;
}

/* COM1 is the console's. */
bool store_serial(void *target, const char *value, struct error *err)
{
    struct machine_config *machine = &((struct request *)target)->vm.machine;
    ((struct request *)target)->has_serial = true;
    if (machine->serial_count == 0)
        machine->serial_count = 1;
    if (machine->serial_count == MACHINE_MAX_SERIALS)
        return request_too_many("serial ports", MACHINE_MAX_SERIALS, err);
    machine->serials[machine->serial_count++] = !strcmp(value, "none") ? NULL : value;
    return true;
}

/* NAME=WHERE is a byte channel, WHERE alone a terminal. A path may hold a '=' too. */
bool store_virtio_console(void *target, const char *value, struct error *err)
{
    struct request *request = target;
    struct machine_config *machine = &request->vm.machine;
    if (machine->console_count == MACHINE_MAX_CONSOLES)
        return request_too_many("virtio consoles", MACHINE_MAX_CONSOLES, err);
    struct machine_console *console = &machine->consoles[machine->console_count++];
    char *text = request_copy(request, value);
    size_t name_bytes = strcspn(text, "=:/");
    console->where = text;
    if (text[name_bytes] == '=') {
        text[name_bytes] = '\0';
        console->name = text;
        console->where = text + name_bytes + 1;
    }
    return true;
}

/* A path may hold commas: only this one ending is an option. */
bool store_debugcon(void *target, const char *value, struct error *err)
{
    static const char port[] = ",port=";
    struct request *request = target;
    struct machine_config *machine = &request->vm.machine;
    if (machine->debugcon)
        return request_too_many("debug consoles", 1, err);
    char *where = request_copy(request, value);
    char *option = strstr(where, port);
    machine->debugcon = where;
    if (!option)
        return true;
    *option = '\0';
    return parse_io_port(option + sizeof(port) - 1, 1, &machine->debugcon_port, err);
}

bool store_post(void *target, const char *value, struct error *err)
{
    ((struct request *)target)->vm.machine.post = value;
    return true;
}

/* A path may hold commas: only this one ending is an option. */
bool store_parallel(void *target, const char *value, struct error *err)
{
    static const char strobe[] = ",strobe=";
    struct request *request = target;
    struct machine_config *machine = &request->vm.machine;
    if (machine->parallel)
        return request_too_many("parallel ports", 1, err);
    char *where = request_copy(request, value);
    char *option = strstr(where, strobe);
    machine->parallel = where;
    if (!option)
        return true;
    *option = '\0';
    const char *is_heeded = option + sizeof(strobe) - 1;
    machine->parallel_ignores_strobe = !strcmp(is_heeded, "off");
    if (machine->parallel_ignores_strobe || !strcmp(is_heeded, "on"))
        return true;
    error_usage(err, "parallel port", value, "strobe is neither on nor off");
    return error_hint(err, "with strobe=off all that is written to the data register is printed");
}
