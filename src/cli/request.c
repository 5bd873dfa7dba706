/* SPDX-License-Identifier: BSD-2-Clause
 * What the parsers of `skep run` share; see request.h. */
#include "cli/request.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

char *request_copy(struct request *request, const char *value)
{
    assert(request->copy_count < sizeof(request->copies) / sizeof(request->copies[0]));
    char *copy = strdup(value);
    if (!copy) {
        fputs("skep: out of memory\n", stderr);
        exit(EXIT_FAILED);
    }
    request->copies[request->copy_count++] = copy;
    return copy;
}

bool request_too_many(const char *what, unsigned most, struct error *err)
{
    return error_usage(err, "too many", what, "a machine has at most %u of them", most);
}

char *next_piece(char **rest)
{
    return strsep(rest, ",");
}
