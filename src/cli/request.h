/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What the options of `skep run` ask for, and the functions that take them: one file for each kind
 * of option, run.c for the table and for what is done with it all.
 */
#ifndef SKEP_CLI_REQUEST_H
#define SKEP_CLI_REQUEST_H

#include "cli/cli.h"
#include "cli/firmware.h"
#include "vm/vm.h"

enum { MAX_DEVICES = 8 };

/* What the options ask for. Strings point into argv, or into `copies`. */
struct request {
    struct vm_config vm;
    struct machine_forward forwards[MACHINE_MAX_FORWARDS];
    unsigned forward_count;
    unsigned pin_count;
    bool no_net, has_console, has_serial, has_cpus, has_vga, has_display, has_input, stats, help;
    unsigned device_count;
    const char *restore; /* a saved machine; NULL: boot */
    struct machine_saved *saved;
    struct firmware_choice firmware;
    char *copies[MACHINE_MAX_DISKS + MACHINE_MAX_NETS + MACHINE_MAX_CONSOLES +
                 MACHINE_MAX_FORWARDS + MACHINE_MAX_VCPUS + MAX_DEVICES + VM_SAVES_MAX + 7];
    unsigned copy_count;
};

/* A copy that a parser may cut into pieces; freed with the request. The counts of what is copied
 * are bounded by their own limits. */
char *request_copy(struct request *request, const char *value);

/* Always false: the error that a machine has at most so many of these. */
bool request_too_many(const char *what, unsigned most, struct error *err);

/* Takes "PATH,word,name=value,…" apart at commas: returns the next piece and moves *rest on. */
char *next_piece(char **rest);

/* For struct option_spec: `target` is a struct request, `value` the option's, which stays the
 * caller's and is kept. False: *err says why. */
bool store_engine(void *target, const char *value, struct error *err);
bool store_cpus(void *target, const char *value, struct error *err);
bool store_pin(void *target, const char *value, struct error *err);
bool store_memory(void *target, const char *value, struct error *err);
bool store_cpu(void *target, const char *value, struct error *err);

bool store_rom(void *target, const char *value, struct error *err);
bool store_firmware(void *target, const char *value, struct error *err);
bool store_nvram(void *target, const char *value, struct error *err);
bool store_boot(void *target, const char *value, struct error *err);
/* False: the machine has nothing of what it is to boot from. */
bool check_boot(const struct machine_config *machine, struct error *err);
bool store_kernel(void *target, const char *value, struct error *err);
bool store_kernel_from_disk(void *target, const char *value, struct error *err);
bool store_initrd(void *target, const char *value, struct error *err);
bool store_cmdline(void *target, const char *value, struct error *err);

bool store_disk(void *target, const char *value, struct error *err);
bool store_floppy(void *target, const char *value, struct error *err);
bool store_cdrom(void *target, const char *value, struct error *err);
bool store_tpm(void *target, const char *value, struct error *err);
/* What no option can see alone. */
bool check_drives(const struct machine_config *machine, struct error *err);

bool store_net(void *target, const char *value, struct error *err);
bool store_port(void *target, const char *value, struct error *err);

bool store_console(void *target, const char *value, struct error *err);
bool store_serial(void *target, const char *value, struct error *err);
bool store_virtio_console(void *target, const char *value, struct error *err);
bool store_debugcon(void *target, const char *value, struct error *err);
bool store_post(void *target, const char *value, struct error *err);
bool store_parallel(void *target, const char *value, struct error *err);

bool store_vga(void *target, const char *value, struct error *err);
bool store_display(void *target, const char *value, struct error *err);
bool store_exit_port(void *target, const char *value, struct error *err);
bool store_device(void *target, const char *value, struct error *err);
bool store_rtc(void *target, const char *value, struct error *err);
bool store_no_balloon(void *target, const char *value, struct error *err);
bool store_no_rng(void *target, const char *value, struct error *err);
bool store_input(void *target, const char *value, struct error *err);

#endif
