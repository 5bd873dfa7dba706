/* SPDX-License-Identifier: BSD-2-Clause
 * The program skep: global flags, the table of verbs, and how errors and logs look. */
#include "cli/cli.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct verb *const verbs[] = {
    &verb_run,  &verb_status, &verb_pause,   &verb_resume,     &verb_save,
    &verb_stop, &verb_media,  &verb_balloon, &verb_screenshot, &verb_type,
    &verb_key,  &verb_doctor, &verb_xhyve};
enum { VERB_COUNT = sizeof(verbs) / sizeof(verbs[0]) };

/* What the flags before the verb ask for. */
struct global {
    bool json, quiet, debug, no_color, help, version;
};

#define FLAG(name)                                                                                 \
    static bool store_##name(void *target, const char *value, struct error *err)                   \
    {                                                                                              \
        ((struct global *)target)->name = true;                                                    \
        return true;                                                                               \
    }
FLAG(json)
FLAG(quiet)
FLAG(debug)
FLAG(no_color)
FLAG(help)
FLAG(version)

static const struct option_spec global_options[] = {
    {"json", 0, NULL, "print results as JSON", store_json},
    {"quiet", 'q', NULL, "no progress, only results and errors", store_quiet},
    {"debug", 0, NULL, "tell more about what happens", store_debug},
    {"no-color", 0, NULL, "no colours (NO_COLOR in the environment does the same)", store_no_color},
    {"version", 0, NULL, "print the version", store_version},
    {"help", 'h', NULL, "print this", store_help},
};
enum { GLOBAL_COUNT = sizeof(global_options) / sizeof(global_options[0]) };

static void write_log(void *opaque, enum log_level level, const char *module, const char *text)
{
    static const char *const names[] = {"error", "warning", "info", "debug"};
    const struct cli *cli = opaque;
    const char *start = cli->color && level <= LOG_WARNING ? "\033[33m" : "";
    /* \r: the terminal may be in raw mode */
    const char *end = isatty(STDERR_FILENO) ? "\r\n" : "\n";
    fprintf(stderr, "%sskep: %s: %s: %s%s%s", start, names[level], module, text,
            *start ? "\033[0m" : "", end);
}

int cli_fail(const struct cli *cli, const struct error *err)
{
    const char *start = cli->color ? "\033[31m" : "";
    const char *end = cli->color ? "\033[0m" : "";
    fprintf(stderr, "%sskep: %s%s%s: %s%s\n", start, err->what, err->where[0] ? " " : "",
            err->where, err->cause, end);
    if (err->hint[0])
        fprintf(stderr, "hint: %s\n", err->hint);
    else if (err->kind == ERROR_USAGE)
        fprintf(stderr, "hint: `man skep` tells what the option takes\n");
    return err->kind == ERROR_USAGE ? EXIT_USAGE : EXIT_FAILED;
}

void cli_progress(const struct cli *cli, const char *format, ...)
{
    if (cli->quiet)
        return;
    va_list args;
    va_start(args, format);
    fputs("skep: ", stderr);
    vfprintf(stderr, format, args);
    putc('\n', stderr);
    va_end(args);
}

int cli_help(const struct verb *verb)
{
    printf("Usage: skep %s %s\n\n%s\n\nOptions:\n", verb->name, verb->synopsis, verb->description);
    options_help(stdout, verb->options, verb->option_count);
    return EXIT_OK;
}

static void print_help(FILE *out)
{
    fprintf(out, "skep runs virtual machines, with or without hardware virtualization.\n\n"
                 "Usage: skep [GLOBAL OPTION]… VERB [OPTION]…\n\nVerbs:\n");
    for (size_t i = 0; i < VERB_COUNT; i++)
        fprintf(out, "  %-28s%s\n", verbs[i]->name, verbs[i]->summary);
    fprintf(out, "\nGlobal options:\n");
    options_help(out, global_options, GLOBAL_COUNT);
    fprintf(out, "\n`skep VERB --help` tells about a verb. `skep doctor` tells what this machine "
                 "offers.\n");
}

/* The verb's place in argv: the first word that is no option. Global options take no arguments. */
static int find_verb(int argc, char **argv)
{
    int at = 1;
    while (at < argc && argv[at][0] == '-')
        at++;
    return at;
}

static int run_verb(struct cli *cli, int argc, char **argv)
{
    for (size_t i = 0; i < VERB_COUNT; i++)
        if (!strcmp(verbs[i]->name, argv[0]))
            return verbs[i]->run(cli, verbs[i], argc, argv);
    struct error err = {0};
    error_usage(&err, "no verb", argv[0], "skep does not know it");
    error_hint(&err, "`skep --help` lists the verbs");
    return cli_fail(cli, &err);
}

/* A link named xhyve or hyperkit to this program takes their command lines. */
static bool is_called_xhyve(const char *program)
{
    const char *slash = program ? strrchr(program, '/') : NULL;
    const char *name = slash ? slash + 1 : program;
    return name && (strstr(name, "xhyve") || strstr(name, "hyperkit"));
}

/* What is closed would be the number of the next file that is opened: a disk's, or the loop's. */
static bool open_standard_files(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd)
            return false;
    return true;
}

int main(int argc, char **argv)
{
    if (!open_standard_files())
        return EXIT_FAILED;
    struct global global = {0};
    struct error err = {0};
    struct cli cli = {0};
    int at = find_verb(argc, argv);
    int operands;
    if (is_called_xhyve(argv[0])) {
        cli.color = !getenv("NO_COLOR") && isatty(STDERR_FILENO);
        cli.log = (struct log){LOG_WARNING, write_log, &cli};
        return verb_xhyve.run(&cli, &verb_xhyve, argc, argv);
    }
    char *name = argv[0];
    argv[0] = ""; /* so the hint of a bad option says `skep --help` */
    if (!options_parse(global_options, GLOBAL_COUNT, at, argv, &global, &operands, &err))
        return cli_fail(&cli, &err);
    argv[0] = name;
    cli = (struct cli){
        .json = global.json,
        .quiet = global.quiet,
        .debug = global.debug,
        .color = !global.no_color && !getenv("NO_COLOR") && isatty(STDERR_FILENO),
    };
    cli.log = (struct log){global.debug ? LOG_DEBUG : LOG_WARNING, write_log, &cli};
    if (global.version) {
        printf("skep %s\n", SKEP_VERSION);
        return EXIT_OK;
    }
    if (global.help) {
        print_help(stdout);
        return EXIT_OK;
    }
    if (at == argc) {
        print_help(stderr);
        return EXIT_USAGE;
    }
    return run_verb(&cli, argc - at, argv + at);
}
