/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The options of a verb as one table, from which parsing and --help both come. Parsing itself is
 * getopt_long's.
 */
#ifndef SKEP_CLI_OPTION_H
#define SKEP_CLI_OPTION_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct option_spec {
    const char *long_name;
    char short_name;      /* 0: none */
    const char *argument; /* what it is called in the help; NULL: takes none */
    const char *help;     /* lines after the first are indented under it */
    /* Stores the value; NULL value for options without an argument. */
    bool (*store)(void *target, const char *value, struct error *err);
};

/* Parses argv[1 …] into `target`. Operands may stand between options; "--" ends options. On success
 * *operands is the index in argv of the first operand (argv is permuted as getopt does). */
bool options_parse(const struct option_spec *specs, size_t count, int argc, char **argv,
                   void *target, int *operands, struct error *err);

/* One line per option, aligned. */
void options_help(FILE *out, const struct option_spec *specs, size_t count);

/* "512", "64K", "2G", "1.5G" → bytes; binary units, an optional B or iB after them. A number with
 * no unit counts `bare_unit` bytes. */
bool parse_size(const char *text, unsigned long long bare_unit, unsigned long long *bytes,
                struct error *err);

/* A whole number from `low` to `high`; `what` names it in the error: "number of processors". */
bool parse_number(const char *text, const char *what, unsigned long low, unsigned long high,
                  unsigned long *value, struct error *err);

/* "VCPU:HOSTCPU": cuts `text`; the number of a processor, and of the host's that it is to stay on.
 */
bool parse_pin(char *text, unsigned long *vcpu, unsigned long *host_cpu, struct error *err);

/* An Ethernet address, as 52:54:00:12:34:56, not of a group. */
bool parse_mac(const char *text, uint8_t mac[6], struct error *err);

/* A place on the PCI bus, as 5 or 5.1, as slot << 3 | function. Slots 0 and 31 are the chipset's.
 */
bool parse_slot(const char *text, uint8_t *devfn, struct error *err);

/* The first of port_count I/O ports, as 0xf4 or 244. */
bool parse_io_port(const char *text, unsigned port_count, uint16_t *port, struct error *err);

#endif
