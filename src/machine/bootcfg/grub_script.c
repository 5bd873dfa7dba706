/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Words, quotes, variables, if, functions and menu entries of GRUB's script. Loops are passed over:
 * no distribution's menu depends on one.
 */
#include "machine/bootcfg/grub.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

/* ---- tokens ---- */

static size_t skip_quoted(const char *text, size_t at)
{
    char quote = text[at++];
    while (text[at] && text[at] != quote)
        at += text[at] == '\\' && quote == '"' && text[at + 1] ? 2 : 1;
    return text[at] ? at + 1 : at;
}

static size_t word_end(const char *text, size_t at)
{
    while (text[at] && !strchr(" \t\r\n;", text[at])) {
        if (text[at] == '\'' || text[at] == '"')
            at = skip_quoted(text, at);
        else if (text[at] == '$' && text[at + 1] == '{')
            at += strcspn(text + at, "}\n");
        else
            at += text[at] == '\\' && text[at + 1] ? 2 : 1;
    }
    return at;
}

static bool add_token(struct grub_script *script, enum grub_token_kind kind, size_t start,
                      size_t length)
{
    if (script->count == GRUB_MAX_TOKENS)
        return false;
    if (!(script->count & (script->count - 1))) {
        size_t room = script->count ? 2 * (size_t)script->count : 1;
        struct grub_token *more = realloc(script->tokens, room * sizeof(*more));
        if (!more)
            return false;
        script->tokens = more;
    }
    script->tokens[script->count++] = (struct grub_token){kind, (uint32_t)start, (uint32_t)length};
    return true;
}

static bool tokenize(struct grub_script *script)
{
    const char *text = script->text;
    bool ok = true;
    for (size_t at = 0; ok && text[at];) {
        if (strchr(" \t\r", text[at])) {
            at++;
        } else if (text[at] == '\\' && text[at + 1] == '\n') {
            at += 2;
        } else if (text[at] == '#') {
            at += strcspn(text + at, "\n");
        } else if (text[at] == '\n' || text[at] == ';') {
            ok = add_token(script, GRUB_END, at++, 1);
        } else {
            size_t end = word_end(text, at);
            enum grub_token_kind kind = GRUB_WORD;
            if (end - at == 1 && (text[at] == '{' || text[at] == '}'))
                kind = text[at] == '{' ? GRUB_OPEN : GRUB_CLOSE;
            ok = add_token(script, kind, at, end - at);
            at = end;
        }
    }
    return ok;
}

void grub_free_scripts(struct grub *grub)
{
    for (unsigned i = 0; i < grub->script_count; i++) {
        free(grub->scripts[i].text);
        free(grub->scripts[i].tokens);
    }
}

bool grub_run_text(struct grub *grub, char *text)
{
    if (grub->script_count == GRUB_MAX_SCRIPTS) {
        free(text);
        return false;
    }
    struct grub_script *script = &grub->scripts[grub->script_count++];
    *script = (struct grub_script){.text = text};
    if (!tokenize(script))
        return false;
    struct grub_range all = {grub->script_count - 1, 0, script->count};
    grub_run(grub, &all);
    return true;
}

/* ---- words to arguments ---- */

static bool put(struct grub_arguments *arguments, char byte)
{
    if (arguments->used + 1 >= sizeof(arguments->bytes))
        return false;
    arguments->bytes[arguments->used++] = byte;
    return true;
}

/* "$name", "${name}"; gives where it ends. */
static size_t put_variable(struct grub *grub, struct grub_arguments *arguments, const char *word,
                           size_t at, size_t length)
{
    char name[GRUB_NAME_BYTES];
    size_t used = 0;
    bool has_brace = at + 1 < length && word[at + 1] == '{';
    at += has_brace ? 2 : 1;
    while (at < length &&
           (has_brace ? word[at] != '}' : isalnum((unsigned char)word[at]) || word[at] == '_')) {
        if (used + 1 < sizeof(name))
            name[used++] = word[at];
        at++;
    }
    name[used] = '\0';
    for (const char *value = grub_get(grub, name); *value; value++)
        put(arguments, *value);
    return has_brace && at < length ? at + 1 : at;
}

/* A word that comes to nothing and had no quotes is no argument. */
static void add_argument(struct grub *grub, struct grub_arguments *arguments, const char *word,
                         size_t length)
{
    size_t start = arguments->used;
    bool has_quotes = false;
    char quote = 0;
    for (size_t at = 0; at < length;) {
        char byte = word[at];
        if (quote ? byte == quote : byte == '\'' || byte == '"') {
            quote = quote ? 0 : byte;
            has_quotes = true;
            at++;
        } else if (byte == '\\' && quote != '\'' && at + 1 < length) {
            put(arguments, word[at + 1]);
            at += 2;
        } else if (byte == '$' && quote != '\'') {
            at = put_variable(grub, arguments, word, at, length);
        } else {
            put(arguments, byte);
            at++;
        }
    }
    bool is_word = has_quotes || arguments->used > start;
    if (!is_word || arguments->count == GRUB_MAX_ARGUMENTS || !put(arguments, '\0')) {
        arguments->used = start;
        return;
    }
    arguments->value[arguments->count++] = arguments->bytes + start;
}

/* ---- running ---- */

static const struct grub_token *token(const struct grub *grub, const struct grub_range *range,
                                      unsigned at)
{
    return &grub->scripts[range->script].tokens[at];
}

static bool is_word(const struct grub *grub, const struct grub_range *range, unsigned at,
                    const char *word)
{
    const struct grub_token *found = token(grub, range, at);
    return found->kind == GRUB_WORD && found->length == strlen(word) &&
           !memcmp(grub->scripts[range->script].text + found->start, word, found->length);
}

static bool is_any_word(const struct grub *grub, const struct grub_range *range, unsigned at,
                        const char *const *words)
{
    for (; *words; words++)
        if (is_word(grub, range, at, *words))
            return true;
    return false;
}

/* The first of these words, NULL at their end, that begins a command and is in no inner block; or
 * the range's end. */
static unsigned find(const struct grub *grub, const struct grub_range *range, unsigned at,
                     const char *const *words)
{
    static const char *const opening[] = {"if", "while", "until", "for", NULL};
    static const char *const closing[] = {"fi", "done", NULL};
    static const char *const leading[] = {"then", "else", "elif", "do", "if", "while", NULL};
    unsigned depth = 0;
    bool begins = true;
    for (; at < range->end; at++) {
        enum grub_token_kind kind = token(grub, range, at)->kind;
        if (kind == GRUB_OPEN)
            depth++;
        if (kind == GRUB_CLOSE)
            depth -= depth > 0;
        if (kind == GRUB_WORD && begins) {
            if (!depth && is_any_word(grub, range, at, words))
                return at;
            depth += is_any_word(grub, range, at, opening);
            depth -= depth > 0 && is_any_word(grub, range, at, closing);
        }
        begins = kind != GRUB_WORD || (begins && is_any_word(grub, range, at, leading));
    }
    return range->end;
}

/* Behind the block that opens at `at`: *body is what is in it. */
static unsigned block(const struct grub *grub, const struct grub_range *range, unsigned at,
                      struct grub_range *body)
{
    unsigned depth = 0;
    *body = (struct grub_range){range->script, at + 1, range->end};
    for (; at < range->end; at++) {
        enum grub_token_kind kind = token(grub, range, at)->kind;
        depth += kind == GRUB_OPEN;
        depth -= kind == GRUB_CLOSE && depth > 0;
        if (!depth) {
            body->end = at;
            return at + 1;
        }
    }
    return at;
}

static bool run_part(struct grub *grub, const struct grub_range *range, unsigned first,
                     unsigned end)
{
    struct grub_range part = {range->script, first < end ? first : end, end};
    return grub_run(grub, &part);
}

static unsigned run_if(struct grub *grub, const struct grub_range *range, unsigned at, bool *status)
{
    static const char *const then[] = {"then", NULL};
    static const char *const next[] = {"elif", "else", "fi", NULL};
    static const char *const last[] = {"fi", NULL};
    *status = true;
    for (;;) {
        unsigned condition = at + 1, body = find(grub, range, condition, then);
        if (body == range->end)
            return body;
        unsigned end = find(grub, range, body + 1, next);
        if (run_part(grub, range, condition, body)) {
            *status = run_part(grub, range, body + 1, end);
            break;
        }
        if (end == range->end || is_word(grub, range, end, "fi"))
            return end + (end < range->end);
        at = end;
        if (is_word(grub, range, end, "else")) {
            *status = run_part(grub, range, end + 1, find(grub, range, end + 1, last));
            break;
        }
    }
    unsigned end = find(grub, range, at + 1, last);
    return end + (end < range->end);
}

static unsigned take_words(struct grub *grub, const struct grub_range *range, unsigned at,
                           struct grub_arguments *arguments)
{
    const char *text = grub->scripts[range->script].text;
    arguments->used = arguments->count = 0;
    for (; at < range->end && token(grub, range, at)->kind == GRUB_WORD; at++)
        add_argument(grub, arguments, text + token(grub, range, at)->start,
                     token(grub, range, at)->length);
    return at;
}

static void add_function(struct grub *grub, const struct grub_arguments *arguments,
                         const struct grub_range *body)
{
    if (arguments->count < 2 || grub->function_count == GRUB_MAX_FUNCTIONS ||
        strlen(arguments->value[1]) >= GRUB_NAME_BYTES)
        return;
    struct grub_function *function = &grub->functions[grub->function_count++];
    strcpy(function->name, arguments->value[1]);
    function->body = *body;
}

/* A command, with the block behind it if there is one. */
static unsigned run_command(struct grub *grub, const struct grub_range *range, unsigned at,
                            bool *status)
{
    static const char *const done[] = {"done", NULL};
    static const char *const loops[] = {"while", "until", "for", NULL};
    if (is_any_word(grub, range, at, loops)) {
        unsigned end = find(grub, range, at + 1, done);
        return end + (end < range->end);
    }
    struct grub_arguments *arguments = malloc(sizeof(*arguments));
    struct grub_range body;
    if (!arguments)
        return range->end;
    bool is_function = is_word(grub, range, at, "function");
    bool is_submenu = is_word(grub, range, at, "submenu");
    bool is_entry = is_submenu || is_word(grub, range, at, "menuentry");
    at = take_words(grub, range, at, arguments);
    if (at < range->end && token(grub, range, at)->kind == GRUB_OPEN) {
        at = block(grub, range, at, &body);
        if (is_function)
            add_function(grub, arguments, &body);
        else if (is_entry)
            grub_add_entry(grub, arguments, is_submenu, &body);
        else
            *status = grub_run(grub, &body);
    } else if (arguments->count) {
        *status = grub_command(grub, arguments);
    }
    free(arguments);
    return at;
}

bool grub_run(struct grub *grub, const struct grub_range *range)
{
    bool status = true;
    if (grub->depth == GRUB_MAX_DEPTH)
        return false;
    grub->depth++;
    for (unsigned at = range->first; at < range->end;) {
        enum grub_token_kind kind = token(grub, range, at)->kind;
        if (++grub->steps > GRUB_MAX_STEPS)
            break;
        if (kind == GRUB_END || kind == GRUB_CLOSE)
            at++;
        else if (is_word(grub, range, at, "if"))
            at = run_if(grub, range, at, &status);
        else
            at = run_command(grub, range, at, &status);
    }
    grub->depth--;
    return status;
}
