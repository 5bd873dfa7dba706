/* SPDX-License-Identifier: BSD-2-Clause
 * The verbs that talk to a running machine: status, pause, resume, save, stop, media, balloon. Each
 * sends one command to the machine's control socket (docs/control.md) and shows the answer. */
#include "cli/control.h"

#include "cli/cli.h"
#include "vm/control.h"

#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* The options of all these verbs; each has its part of them. */
struct options {
    bool help, now, stop, force;
    const char *drive;
};

#define FLAG(name)                                                                                 \
    static bool store_##name(void *target, const char *value, struct error *err)                   \
    {                                                                                              \
        ((struct options *)target)->name = true;                                                   \
        return true;                                                                               \
    }
FLAG(help)
FLAG(now)
FLAG(stop)
FLAG(force)

static bool store_drive(void *target, const char *value, struct error *err)
{
    ((struct options *)target)->drive = value;
    return true;
}

static FILE *connect_to(const char *target, struct error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (!control_path(target, false, address.sun_path, err))
        return NULL;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    FILE *stream = NULL;
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
        stream = fdopen(fd, "r+");
    if (stream)
        return stream;
    int errno_value = errno;
    if (fd >= 0)
        close(fd);
    error_errno(err, "cannot reach the machine", target, errno_value);
    if (errno_value == ENOENT || errno_value == ECONNREFUSED)
        error_hint(err, "no machine with this name or control socket runs");
    return NULL;
}

static void show_progress(const struct cli *cli, const json_t *progress)
{
    json_int_t done = json_integer_value(json_object_get(progress, "done"));
    json_int_t total = json_integer_value(json_object_get(progress, "total"));
    if (!cli->quiet && total > 0 && isatty(STDERR_FILENO))
        fprintf(stderr, "\rskep: %3d %%%s", (int)(100 * done / total), done == total ? "\n" : "");
}

static void take_text(char *to, size_t size_bytes, const json_t *error, const char *key)
{
    const char *text = json_string_value(json_object_get(error, key));
    snprintf(to, size_bytes, "%s", text ? text : "");
}

/* The object under "ok", the caller's; NULL: `err` is what the machine says. */
static json_t *take_answer(const struct cli *cli, FILE *stream, struct error *err)
{
    char *line = NULL;
    size_t room = 0;
    json_t *ok = NULL;
    error_set(err, "no answer from the machine", NULL, "it ended, or is no skep");
    while (!ok && getline(&line, &room, stream) > 0) {
        json_error_t json_error;
        json_t *object = json_loads(line, 0, &json_error);
        const json_t *error = json_object_get(object, "error");
        if (json_object_get(object, "progress")) {
            show_progress(cli, json_object_get(object, "progress"));
            json_decref(object);
            continue;
        }
        ok = json_incref(json_object_get(object, "ok"));
        if (error) {
            take_text(err->what, sizeof(err->what), error, "what");
            take_text(err->where, sizeof(err->where), error, "where");
            take_text(err->cause, sizeof(err->cause), error, "cause");
            take_text(err->hint, sizeof(err->hint), error, "hint");
        }
        json_decref(object);
        break;
    }
    free(line);
    return ok;
}

json_t *control_ask(const struct cli *cli, const char *target, json_t *request, struct error *err)
{
    FILE *stream = connect_to(target, err);
    json_t *ok = NULL;
    if (stream) {
        json_dumpf(request, stream, JSON_COMPACT);
        fputc('\n', stream);
        if (fflush(stream) == 0)
            ok = take_answer(cli, stream, err);
        else
            error_errno(err, "cannot reach the machine", target, errno);
        fclose(stream);
    }
    json_decref(request);
    return ok;
}

static void print_values(const struct cli *cli, const json_t *values)
{
    const char *key;
    json_t *value;
    if (cli->json) {
        json_dumpf(values, stdout, JSON_INDENT(2));
        putchar('\n');
        return;
    }
    json_object_foreach((json_t *)(uintptr_t)values, key, value)
    {
        if (json_is_string(value))
            printf("%-12s%s\n", key, json_string_value(value));
        else
            printf("%-12s%lld\n", key, (long long)json_integer_value(value));
    }
}

bool control_absolute(const char *file, char path[PATH_MAX], struct error *err)
{
    char folder[PATH_MAX] = "";
    if (file[0] != '/' && !getcwd(folder, sizeof(folder)))
        return error_errno(err, "cannot tell the folder", NULL, errno);
    if (snprintf(path, PATH_MAX, "%s%s%s", folder, *folder ? "/" : "", file) >= PATH_MAX)
        return error_errno(err, "cannot use the file", file, ENAMETOOLONG);
    return true;
}

static json_t *media_request(const struct options *options, const char *what, struct error *err)
{
    char path[PATH_MAX];
    bool is_eject = !strcmp(what, "eject");
    if (!is_eject && !control_absolute(what, path, err))
        return NULL;
    json_t *request =
        json_pack("{s:s, s:s?, s:s?, s:b}", "command", "media", "file", is_eject ? NULL : path,
                  "drive", options->drive, "force", options->force);
    if (!request)
        error_set(err, "cannot use the file", what, "its name is not UTF-8");
    return request;
}

static json_t *balloon_request(const char *size, struct error *err)
{
    unsigned long long bytes;
    if (!size)
        return json_pack("{s:s}", "command", "balloon");
    if (!parse_size(size, 1 << 20, &bytes, err))
        return NULL;
    return json_pack("{s:s, s:I}", "command", "balloon", "size", (json_int_t)bytes);
}

static json_t *request_for(const struct verb *verb, const struct options *options, char **operands,
                           struct error *err)
{
    char path[PATH_MAX];
    if (!strcmp(verb->name, "stop"))
        return json_pack("{s:s, s:b}", "command", verb->name, "now", options->now);
    if (!strcmp(verb->name, "media"))
        return media_request(options, operands[1], err);
    if (!strcmp(verb->name, "balloon"))
        return balloon_request(operands[1], err); /* argv ends with NULL */
    if (strcmp(verb->name, "save") != 0)
        return json_pack("{s:s}", "command", verb->name);
    if (!control_absolute(operands[1], path, err))
        return NULL;
    json_t *request =
        json_pack("{s:s, s:s, s:b}", "command", "save", "file", path, "stop", options->stop);
    if (!request)
        error_set(err, "cannot save to", path, "its name is not UTF-8");
    return request;
}

static int command(struct cli *cli, const struct verb *verb, const struct options *options,
                   char **operands)
{
    struct error err = {0};
    json_t *request = request_for(verb, options, operands, &err);
    json_t *ok = request ? control_ask(cli, operands[0], request, &err) : NULL;
    if (!ok)
        return cli_fail(cli, &err);
    if (json_object_size(ok) || cli->json)
        print_values(cli, ok);
    json_decref(ok);
    return EXIT_OK;
}

static int run(struct cli *cli, const struct verb *verb, int argc, char **argv)
{
    struct error err = {0};
    struct options options = {0};
    int operands;
    bool takes_file = !strcmp(verb->name, "save") || !strcmp(verb->name, "media");
    bool takes_size = !strcmp(verb->name, "balloon");
    int least = takes_file ? 2 : 1, most = takes_file || takes_size ? 2 : 1;
    if (!options_parse(verb->options, verb->option_count, argc, argv, &options, &operands, &err))
        return cli_fail(cli, &err);
    if (options.help)
        return cli_help(verb);
    if (argc - operands < least || argc - operands > most) {
        error_usage(&err, verb->name, NULL, "it takes %s", verb->synopsis);
        error_hint(&err, "the name is that of `skep run --name`, or a control socket's path");
        return cli_fail(cli, &err);
    }
    return command(cli, verb, &options, argv + operands);
}

static const struct option_spec help_options[] = {{"help", 'h', NULL, "print this", store_help}};
static const struct option_spec stop_options[] = {
    {"now", 0, NULL, "end the machine at once, without its guest", store_now},
    {"help", 'h', NULL, "print this", store_help},
};
static const struct option_spec save_options[] = {
    {"stop", 0, NULL, "end the machine once it is saved", store_stop},
    {"help", 'h', NULL, "print this", store_help},
};

static const struct option_spec media_options[] = {
    {"drive", 0, "NAME", "which one: cdrom0 (the default), cdrom1 …, floppy0, floppy1",
     store_drive},
    {"force", 0, NULL, "although the guest has locked it", store_force},
    {"help", 'h', NULL, "print this", store_help},
};

const struct verb verb_status = {
    .name = "status",
    .summary = "tell about a running machine",
    .synopsis = "NAME|SOCKET",
    .description = "Tells about a machine that was started with --name or --control.",
    .options = help_options,
    .option_count = 1,
    .run = run,
};

const struct verb verb_pause = {
    .name = "pause",
    .summary = "stop a machine's processors and clocks",
    .synopsis = "NAME|SOCKET",
    .description = "Stops a machine's processors and clocks until `skep resume`.",
    .options = help_options,
    .option_count = 1,
    .run = run,
};

const struct verb verb_resume = {
    .name = "resume",
    .summary = "let a paused machine go on",
    .synopsis = "NAME|SOCKET",
    .description = "Lets a machine that was paused go on.",
    .options = help_options,
    .option_count = 1,
    .run = run,
};

const struct verb verb_stop = {
    .name = "stop",
    .summary = "press a machine's power button, or end it",
    .synopsis = "[--now] NAME|SOCKET",
    .description = "Presses the machine's power button, so that its guest ends in order.",
    .options = stop_options,
    .option_count = sizeof(stop_options) / sizeof(stop_options[0]),
    .run = run,
};

const struct verb verb_save = {
    .name = "save",
    .summary = "save a running machine to a file",
    .synopsis = "[--stop] NAME|SOCKET FILE",
    .description =
        "Saves a running machine to a file, from which `skep run --restore FILE` lets it\n"
        "go on. Disks are not in the file: without --stop the machine goes on and\n"
        "changes them, and the file is of use only with copies of them from then.",
    .options = save_options,
    .option_count = sizeof(save_options) / sizeof(save_options[0]),
    .run = run,
};

const struct verb verb_media = {
    .name = "media",
    .summary = "change what is in a machine's CD-ROM or floppy drive",
    .synopsis = "[--drive NAME] [--force] NAME|SOCKET eject|FILE",
    .description =
        "Puts an image into a CD-ROM or floppy drive of a running machine, or takes out what\n"
        "is in it. The guest is told.",
    .options = media_options,
    .option_count = sizeof(media_options) / sizeof(media_options[0]),
    .run = run,
};

const struct verb verb_balloon = {
    .name = "balloon",
    .summary = "have a guest give memory back, or tell what it uses",
    .synopsis = "NAME|SOCKET [SIZE]",
    .description =
        "Has the guest use SIZE of its memory and give the rest back to the host, as far as\n"
        "it can spare it; a larger SIZE lets it have that again. Without SIZE it tells, in\n"
        "bytes, what the guest said last that it has and what is free.",
    .options = help_options,
    .option_count = 1,
    .run = run,
};
