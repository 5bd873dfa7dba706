/* SPDX-License-Identifier: BSD-2-Clause
 * The verbs about a running machine's screen and keyboard: screenshot, type, key. */
#include "cli/control.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

struct options {
    bool help;
};

static bool store_help(void *target, const char *value, struct error *err)
{
    ((struct options *)target)->help = true;
    return true;
}

static const struct option_spec options[] = {{"help", 'h', NULL, "print this", store_help}};

/* Parses the words; false: *status is the verb's, since it has failed or only helped. */
static bool begin(struct cli *cli, const struct verb *verb, int argc, char **argv, int least,
                  int most, int *operands, int *status)
{
    struct error err = {0};
    struct options given = {0};
    if (!options_parse(verb->options, verb->option_count, argc, argv, &given, operands, &err)) {
        *status = cli_fail(cli, &err);
        return false;
    }
    if (given.help) {
        *status = cli_help(verb);
        return false;
    }
    if (argc - *operands >= least && argc - *operands <= most)
        return true;
    error_usage(&err, verb->name, NULL, "it takes %s", verb->synopsis);
    error_hint(&err, "the name is that of `skep run --name`, or a control socket's path");
    *status = cli_fail(cli, &err);
    return false;
}

/* ---- screenshot ---- */

static int run_screenshot(struct cli *cli, const struct verb *verb, int argc, char **argv)
{
    struct error err = {0};
    char path[PATH_MAX];
    int at, status;
    if (!begin(cli, verb, argc, argv, 1, 2, &at, &status))
        return status;
    const char *file = argc - at > 1 ? argv[at + 1] : "screenshot.png";
    json_t *ok = NULL;
    if (control_absolute(file, path, &err))
        ok = control_ask(cli, argv[at],
                         json_pack("{s:s, s:s}", "command", "screenshot", "file", path), &err);
    if (!ok)
        return cli_fail(cli, &err);
    json_decref(ok);
    if (argc - at == 1)
        printf("%s\n", file);
    return EXIT_OK;
}

const struct verb verb_screenshot = {
    .name = "screenshot",
    .summary = "save what a machine's screen shows",
    .synopsis = "NAME|SOCKET [FILE]",
    .description = "Writes what the machine's screen shows to a PNG file (screenshot.png).",
    .options = options,
    .option_count = 1,
    .run = run_screenshot,
};

/* ---- type and key ---- */

/* Asks, and waits until the machine has typed all. */
static bool type(const struct cli *cli, const char *target, json_t *request, struct error *err)
{
    while (true) {
        json_t *ok = control_ask(cli, target, request, err);
        if (!ok)
            return false;
        json_int_t left_ms = json_integer_value(json_object_get(ok, "left_ms"));
        json_decref(ok);
        if (left_ms <= 0)
            return true;
        struct timespec pause = {left_ms / 1000, left_ms % 1000 * 1000000};
        nanosleep(&pause, NULL);
        request = json_pack("{s:s, s:s}", "command", "type", "text", "");
    }
}

/* A character after a backslash; 0: it stands for none. */
static char unescape(char c)
{
    switch (c) {
    case 'n': return '\n';
    case 't': return '\t';
    case 'b': return '\b';
    case 'e': return '\033';
    case '\\': return '\\';
    default: return 0;
    }
}

/* Text with its backslashes done, the caller's. NULL: `err` tells why. */
static char *take_text(const char *from, struct error *err)
{
    char *text = malloc(strlen(from) + 1), *to = text;
    if (!text) {
        error_set(err, "type", NULL, "out of memory");
        return NULL;
    }
    for (; *from; from++) {
        char c = *from == '\\' ? unescape(*++from) : *from;
        if (!c) {
            error_usage(err, "type", from, "a backslash stands before n, t, b, e or \\");
            free(text);
            return NULL;
        }
        *to++ = c;
    }
    *to = '\0';
    return text;
}

static int run_type(struct cli *cli, const struct verb *verb, int argc, char **argv)
{
    struct error err = {0};
    int at, status;
    if (!begin(cli, verb, argc, argv, 2, 2, &at, &status))
        return status;
    char *text = take_text(argv[at + 1], &err);
    json_t *request = text ? json_pack("{s:s, s:s}", "command", "type", "text", text) : NULL;
    if (text && !request)
        error_usage(&err, "type", text, "it is not UTF-8");
    bool done = request && type(cli, argv[at], request, &err);
    free(text);
    return done ? EXIT_OK : cli_fail(cli, &err);
}

static int run_key(struct cli *cli, const struct verb *verb, int argc, char **argv)
{
    struct error err = {0};
    int at, status;
    if (!begin(cli, verb, argc, argv, 2, INT_MAX, &at, &status))
        return status;
    for (int i = at + 1; i < argc; i++) {
        json_t *request = json_pack("{s:s, s:s}", "command", "key", "key", argv[i]);
        if (!request)
            error_usage(&err, "key", argv[i], "it is not UTF-8");
        if (!request || !type(cli, argv[at], request, &err))
            return cli_fail(cli, &err);
    }
    return EXIT_OK;
}

const struct verb verb_type = {
    .name = "type",
    .summary = "type text on a machine's keyboard",
    .synopsis = "NAME|SOCKET TEXT",
    .description =
        "Types text on the machine's keyboard, as on a US one; \\n is the enter key, \\t\n"
        "tab, \\b backspace, \\e escape and \\\\ a backslash. Returns when all is typed.",
    .options = options,
    .option_count = 1,
    .run = run_type,
};

const struct verb verb_key = {
    .name = "key",
    .summary = "press keys of a machine's keyboard",
    .synopsis = "NAME|SOCKET KEY…",
    .description = "Presses keys one after another; those joined by - at once, as ctrl-alt-f2.",
    .options = options,
    .option_count = 1,
    .run = run_key,
};
