/* SPDX-License-Identifier: BSD-2-Clause
 * skep doctor: what this host offers, which engine `auto` takes and why, what is missing and the
 * command that mends it. */
#include "cli/cli.h"
#include "vm/vm.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <unistd.h>

enum { MAX_FINDINGS = MACHINE_MAX_ENGINES + 4 };

enum state { STATE_GOOD, STATE_MISSING };

struct finding {
    char topic[40];
    enum state state;
    bool is_chosen; /* the engine that auto takes */
    char detail[320];
    char hint[256];
};

struct findings {
    struct finding list[MAX_FINDINGS];
    unsigned count;
};

static struct finding *add(struct findings *findings, enum state state)
{
    struct finding *finding = &findings->list[findings->count++];
    finding->state = state;
    return finding;
}

static void examine_engines(struct findings *findings)
{
    struct machine_engine engines[MACHINE_MAX_ENGINES];
    unsigned count = vm_engines(engines);
    for (unsigned i = 0; i < count; i++) {
        const struct engine_probe *probe = &engines[i].probe;
        struct finding *f = add(findings, probe->available ? STATE_GOOD : STATE_MISSING);
        snprintf(f->topic, sizeof(f->topic), "engine %s", engines[i].name);
        f->is_chosen = engines[i].is_chosen;
        if (probe->available)
            snprintf(f->detail, sizeof(f->detail), "%s", probe->detail);
        else
            snprintf(f->detail, sizeof(f->detail), "%.60s %.80s: %.160s", probe->error.what,
                     probe->error.where, probe->error.cause);
        snprintf(f->hint, sizeof(f->hint), "%s", probe->error.hint);
    }
}

static void examine_memory(struct findings *findings)
{
    struct sysinfo info;
    if (sysinfo(&info) != 0)
        return;
    struct finding *f = add(findings, STATE_GOOD);
    snprintf(f->topic, sizeof(f->topic), "memory");
    snprintf(f->detail, sizeof(f->detail), "%llu MiB, %llu MiB free",
             (unsigned long long)info.totalram * info.mem_unit >> 20,
             (unsigned long long)info.freeram * info.mem_unit >> 20);
}

static void examine_tap(struct findings *findings)
{
    const char *path = "/dev/net/tun";
    bool is_open = access(path, R_OK | W_OK) == 0;
    struct finding *f = add(findings, is_open ? STATE_GOOD : STATE_MISSING);
    snprintf(f->topic, sizeof(f->topic), "tap networking");
    if (is_open) {
        snprintf(f->detail, sizeof(f->detail), "%s can be opened", path);
        return;
    }
    snprintf(f->detail, sizeof(f->detail), "%s: %s (--net user works without it)", path,
             strerror(errno));
    snprintf(f->hint, sizeof(f->hint), "sudo modprobe tun");
}

static void print_finding(const struct finding *f)
{
    printf("%-18s %-8s %s%s\n", f->topic, f->state == STATE_GOOD ? "ok" : "missing", f->detail,
           f->is_chosen ? " (auto takes it)" : "");
    if (f->hint[0])
        printf("%-27s hint: %s\n", "", f->hint);
}

static void print_json(const struct findings *findings)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < findings->count; i++) {
        const struct finding *f = &findings->list[i];
        json_array_append_new(list, json_pack("{s:s, s:b, s:b, s:s, s:s}", "topic", f->topic, "ok",
                                              f->state == STATE_GOOD, "chosen", f->is_chosen,
                                              "detail", f->detail, "hint", f->hint));
    }
    json_dumpf(list, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(list);
}

struct request {
    bool help;
};

static bool store_help(void *target, const char *value, struct error *err)
{
    ((struct request *)target)->help = true;
    return true;
}

static const struct option_spec options[] = {
    {"help", 'h', NULL, "print this", store_help},
};

static int doctor(struct cli *cli, const struct verb *verb, int argc, char **argv)
{
    struct request request = {0};
    struct error err = {0};
    int operands;
    if (!options_parse(verb->options, verb->option_count, argc, argv, &request, &operands, &err))
        return cli_fail(cli, &err);
    if (request.help)
        return cli_help(verb);
    if (operands < argc) {
        error_usage(&err, "unexpected argument", argv[operands], "doctor takes none");
        return cli_fail(cli, &err);
    }
    struct findings findings = {0};
    examine_engines(&findings);
    examine_memory(&findings);
    examine_tap(&findings);
    if (cli->json) {
        print_json(&findings);
    } else {
        for (unsigned i = 0; i < findings.count; i++)
            print_finding(&findings.list[i]);
    }
    return EXIT_OK;
}

const struct verb verb_doctor = {
    .name = "doctor",
    .summary = "tell which engines work here and what is missing",
    .synopsis = "",
    .description = "Tells which engines there are here, which one auto takes and why, and what to\n"
                   "do about what is missing.",
    .options = options,
    .option_count = sizeof(options) / sizeof(options[0]),
    .run = doctor,
};
