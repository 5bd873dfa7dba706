/* SPDX-License-Identifier: BSD-2-Clause
 * The list of engines and the choice between them. */
#include "cpu/engine.h"

#include <string.h>

static const struct engine *const engines[] = {
    &engine_kvm,
    &engine_soft,
    NULL,
};

const struct engine *const *engine_all(void)
{
    return engines;
}

static const struct engine *choose(void)
{
    for (const struct engine *const *e = engines; *e; e++) {
        struct engine_probe probe = {0};
        (*e)->probe(&probe);
        if (probe.available && probe.backed_by_hardware)
            return *e;
    }
    return &engine_soft;
}

const struct engine *engine_find(const char *name, const char **options, struct error *err)
{
    size_t length = strcspn(name, ",");
    *options = name[length] ? name + length + 1 : NULL;
    if (length == strlen("auto") && !strncmp(name, "auto", length))
        return choose();
    for (const struct engine *const *e = engines; *e; e++)
        if (strlen((*e)->name) == length && !strncmp((*e)->name, name, length))
            return *e;
    error_usage(err, "no engine", name, "the engines are auto, kvm and soft");
    error_hint(err, "leave --engine out to have the best one chosen; `skep doctor` tells which");
    return NULL;
}
