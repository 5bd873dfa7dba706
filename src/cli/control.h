/* SPDX-License-Identifier: BSD-2-Clause
 * What the verbs that talk to a running machine share: control.c. */
#ifndef SKEP_CLI_CONTROL_H
#define SKEP_CLI_CONTROL_H

#include "cli/cli.h"

#include <jansson.h>
#include <limits.h>

/* Sends a request, which it takes over, to the machine's control socket and gives the object under
 * "ok", the caller's. NULL: `err` tells why, maybe in the machine's words. */
json_t *control_ask(const struct cli *cli, const char *target, json_t *request, struct error *err);

/* A file's name as seen from anywhere: the machine has another folder. */
bool control_absolute(const char *file, char path[PATH_MAX], struct error *err);

#endif
