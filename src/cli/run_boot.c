/* SPDX-License-Identifier: BSD-2-Clause
 * skep run: the options of what is booted. */
#include "cli/firmware.h"
#include "cli/request.h"

#include <string.h>

bool store_rom(void *target, const char *value, struct error *err)
{
    ((struct request *)target)->vm.machine.rom = value;
    return true;
}

bool store_firmware(void *target, const char *value, struct error *err)
{
    ((struct request *)target)->firmware.name = value;
    return true;
}

bool store_nvram(void *target, const char *value, struct error *err)
{
    ((struct request *)target)->vm.machine.nvram = value;
    return true;
}

bool store_boot(void *target, const char *value, struct error *err)
{
    return firmware_parse_boot(&((struct request *)target)->vm.machine, value, err);
}

static bool is_there(const struct machine_config *machine, enum machine_boot kind)
{
    if (kind == MACHINE_BOOT_NET)
        return machine->net_count;
    for (unsigned i = 0; i < machine->disk_count; i++)
        if (machine_boot_of(&machine->disks[i]) == kind)
            return true;
    return false;
}

bool check_boot(const struct machine_config *machine, struct error *err)
{
    for (unsigned i = 0; i < machine->boot_count; i++)
        if (is_there(machine, machine->boot[i]))
            return true;
    if (!machine->boot_count)
        return true;
    error_usage(err, "boot order", machine_boot_name(machine->boot[0]),
                "the machine has nothing of what it names");
    return error_hint(err, "add --disk, --cdrom, --floppy or --net, or leave --boot out");
}

bool store_kernel(void *target, const char *value, struct error *err)
{
    ((struct request *)target)->vm.machine.kernel = value;
    return true;
}

bool store_kernel_from_disk(void *target, const char *value, struct error *err)
{
    ((struct request *)target)->vm.machine.kernel_from_disk = true;
    return true;
}

bool store_initrd(void *target, const char *value, struct error *err)
{
    struct machine_config *machine = &((struct request *)target)->vm.machine;
    if (machine->initrd_count == MACHINE_MAX_INITRDS)
        return request_too_many("initrds", MACHINE_MAX_INITRDS, err);
    machine->initrds[machine->initrd_count++] = value;
    return true;
}

bool store_cmdline(void *target, const char *value, struct error *err)
{
    ((struct request *)target)->vm.machine.cmdline = value;
    return true;
}
