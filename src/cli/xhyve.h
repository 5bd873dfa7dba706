/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The command lines of xhyve and HyperKit, turned into what vm_create() takes. xhyve.c has the
 * flags and the run, xhyve_devices.c what -s, -l and -f name.
 */
#ifndef SKEP_CLI_XHYVE_H
#define SKEP_CLI_XHYVE_H

#include "cli/cli.h"
#include "vm/vm.h"

enum { XHYVE_MAX_COPIES = 80 };

struct xhyve {
    const struct cli *cli;
    struct vm_config vm;
    const char *pid_file;
    bool pid_file_is_made;
    bool has_uuid, has_rng, prints_mac, has_slot[32 * 8];
    const char
        *links[MACHINE_MAX_SERIALS]; /* to the pseudo terminal of a serial port; NULL: none */
    bool link_is_made[MACHINE_MAX_SERIALS];
    char *copies[XHYVE_MAX_COPIES];
    unsigned copy_count;
};

/* A copy that may be cut into pieces and lives as long as the configuration. NULL: too many
 * options, or no memory; `err` tells. */
char *xhyve_copy(struct xhyve *xhyve, const char *text, struct error *err);

/* "[bus:]slot[:function],emulation[,configuration]" of -s. */
bool xhyve_slot(struct xhyve *xhyve, const char *value, struct error *err);
/* "com1,backend" or "bootrom,FILE" of -l. */
bool xhyve_lpc(struct xhyve *xhyve, const char *value, struct error *err);
/* "kexec,kernel[,initrd][,cmdline]" and its like of -f. */
bool xhyve_firmware(struct xhyve *xhyve, const char *value, struct error *err);

#endif
