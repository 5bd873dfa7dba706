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
