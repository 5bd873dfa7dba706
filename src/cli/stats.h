/* SPDX-License-Identifier: BSD-2-Clause
 * What `skep run --stats` prints. */
#ifndef SKEP_CLI_STATS_H
#define SKEP_CLI_STATS_H

#include "cli/cli.h"
#include "vm/vm.h"

/* Lines "name value" on stderr, or with --json an object on stdout. */
void stats_print(const struct cli *cli, const struct machine_stats *stats);

#endif
