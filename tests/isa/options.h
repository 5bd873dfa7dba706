/* SPDX-License-Identifier: BSD-2-Clause
 *
 * How the processors of the test programs run: by SKEP_TEST_TRANSLATOR in the environment, so that
 * one program tests interpreter and translator. Unset: the interpreter alone. "eager": every block
 * is translated before it runs first. "check": that, and each is compared with the interpreter.
 */
#ifndef SKEP_TESTS_ISA_OPTIONS_H
#define SKEP_TESTS_ISA_OPTIONS_H

#include "cpu/soft/system.h"

#include <stdlib.h>
#include <string.h>

static inline struct translator_options translator_by_environment(void)
{
    const char *value = getenv("SKEP_TEST_TRANSLATOR");
    bool is_check = value && strcmp(value, "check") == 0;
    bool is_eager = is_check || (value && strcmp(value, "eager") == 0);
    return (struct translator_options){
        .is_on = is_eager, .is_eager = is_eager, .is_check = is_check, .has_exact_flags = is_eager};
}

#endif
