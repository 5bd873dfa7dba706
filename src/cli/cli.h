/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What the verbs share: global flags, and the only places that print.
 */
#ifndef SKEP_CLI_CLI_H
#define SKEP_CLI_CLI_H

#include "base/error.h"
#include "base/log.h"
#include "cli/option.h"

#include <stdbool.h>

struct cli {
    bool json;  /* results as JSON on stdout */
    bool quiet; /* no progress on stderr */
    bool debug; /* log lines of all levels */
    bool color; /* stderr is a terminal, and neither NO_COLOR nor --no-color */
    struct log log;
};

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

struct verb {
    const char *name;
    const char *summary;  /* one line of `skep --help` */
    const char *synopsis; /* after the verb's name in its own help */
    const char *description;
    const struct option_spec *options;
    size_t option_count;
    /* argv[0] is the verb's name. Returns the exit code. */
    int (*run)(struct cli *cli, const struct verb *verb, int argc, char **argv);
};

extern const struct verb verb_run;
extern const struct verb verb_doctor;
extern const struct verb verb_xhyve;
extern const struct verb verb_status, verb_pause, verb_resume, verb_save, verb_stop, verb_media,
    verb_balloon;
extern const struct verb verb_screenshot, verb_type, verb_key;

/* "skep: WHAT WHERE: CAUSE" and its hint, on stderr; returns the exit code of the error's kind. */
int cli_fail(const struct cli *cli, const struct error *err);

/* A line of progress on stderr, unless quiet. */
void cli_progress(const struct cli *cli, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The verb's own --help on stdout; returns EXIT_OK. */
int cli_help(const struct verb *verb);

#endif
