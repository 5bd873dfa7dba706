/* SPDX-License-Identifier: BSD-2-Clause
 *
 * GRUB's script (GRUB manual, chapter 6) as far as menus need it: grub_script.c has words, control
 * and functions, grub.c commands, variables and the menu. Private to bootcfg.
 */
#ifndef SKEP_MACHINE_BOOTCFG_GRUB_H
#define SKEP_MACHINE_BOOTCFG_GRUB_H

#include "machine/bootcfg/bootcfg.h"

#include <stdint.h>

enum {
    GRUB_MAX_TOKENS = 1 << 17,
    GRUB_MAX_SCRIPTS = 16,
    GRUB_MAX_VARIABLES = 256,
    GRUB_MAX_FUNCTIONS = 64,
    GRUB_MAX_ENTRIES = 512,
    GRUB_MAX_ARGUMENTS = 128,
    GRUB_MAX_DEPTH = 24,
    GRUB_MAX_STEPS = 200000,
    GRUB_NAME_BYTES = 64,
    GRUB_VALUE_BYTES = 4096,
    GRUB_ARGUMENT_BYTES = 16384,
};

enum grub_token_kind { GRUB_WORD, GRUB_END, GRUB_OPEN, GRUB_CLOSE };

struct grub_token {
    enum grub_token_kind kind;
    uint32_t start, length; /* of a word, as it is written */
};

struct grub_script {
    char *text;
    struct grub_token *tokens;
    unsigned count;
};

/* Tokens [first, end) of a script. */
struct grub_range {
    unsigned script, first, end;
};

struct grub_variable {
    char name[GRUB_NAME_BYTES];
    char *value;
};

struct grub_function {
    char name[GRUB_NAME_BYTES];
    struct grub_range body;
};

struct grub_entry {
    char title[BOOTCFG_TITLE_BYTES], id[BOOTCFG_TITLE_BYTES];
    struct grub_range body;
    int parent; /* the submenu that it is in; -1: none */
    bool is_submenu;
};

struct grub_arguments {
    char bytes[GRUB_ARGUMENT_BYTES];
    const char *value[GRUB_MAX_ARGUMENTS];
    size_t used;
    unsigned count;
};

struct grub {
    const struct bootcfg_files *files;
    struct grub_script scripts[GRUB_MAX_SCRIPTS];
    unsigned script_count;
    struct grub_variable variables[GRUB_MAX_VARIABLES];
    unsigned variable_count;
    struct grub_function functions[GRUB_MAX_FUNCTIONS];
    unsigned function_count;
    struct grub_entry entries[GRUB_MAX_ENTRIES];
    unsigned entry_count;
    int submenu; /* that entries are being collected for; -1: none */
    unsigned depth, steps;
    struct bootcfg_choice *choice;
};

/* Takes over `text` and runs it; false: too much of something, or no memory. */
bool grub_run_text(struct grub *grub, char *text);
/* Runs tokens; gives the status of the last command. */
bool grub_run(struct grub *grub, const struct grub_range *range);
void grub_free_scripts(struct grub *grub);

/* ---- grub.c, for the script ---- */

const char *grub_get(struct grub *grub, const char *name); /* empty: not set */
bool grub_command(struct grub *grub, struct grub_arguments *arguments);
void grub_add_entry(struct grub *grub, const struct grub_arguments *arguments, bool is_submenu,
                    const struct grub_range *body);

#endif
