/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Configuration of extlinux and its relatives: keywords without regard to case, labels with their
 * kernel, its initrds and command line (Syslinux's wiki, "Config").
 */
#include "machine/bootcfg/bootcfg.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

struct parser {
    const char *device, *folder;
    char wanted[BOOTCFG_TITLE_BYTES];   /* the default label; empty: the first */
    char append[BOOTCFG_CMDLINE_BYTES]; /* of all labels without their own */
    struct bootcfg_choice first, chosen, present;
    char label[BOOTCFG_TITLE_BYTES]; /* of the present one; empty: before the first */
    bool is_default;                 /* MENU DEFAULT */
};

/* A relative path is one beside the configuration. */
static void place(const struct parser *parser, const char *path, char out[BOOTCFG_PATH_BYTES])
{
    char absolute[BOOTCFG_PATH_BYTES];
    snprintf(absolute, sizeof(absolute), "%s%s%s", path[0] == '/' ? "" : parser->folder,
             path[0] == '/' ? "" : "/", path);
    if (!bootcfg_path(out, parser->device, absolute))
        out[0] = '\0';
}

static void add_initrds(struct parser *parser, char *list)
{
    struct bootcfg_choice *present = &parser->present;
    for (char *path; (path = strsep(&list, ","));)
        if (path[0] && present->initrd_count < BOOTCFG_MAX_INITRDS)
            place(parser, path, present->initrds[present->initrd_count++]);
}

/* initrd= in APPEND is what INITRD says; the kernel is told, too, as by the loader. */
static void add_append(struct parser *parser, const char *value)
{
    struct bootcfg_choice *present = &parser->present;
    char words[BOOTCFG_CMDLINE_BYTES];
    snprintf(words, sizeof(words), "%s", value);
    present->cmdline[0] = '\0';
    for (char *rest = words, *word; (word = strsep(&rest, " \t"));) {
        if (!strncmp(word, "initrd=", 7))
            add_initrds(parser, word + 7);
        else if (word[0])
            bootcfg_add_word(present, word);
    }
}

static void end_label(struct parser *parser)
{
    bool is_wanted =
        parser->is_default || (parser->wanted[0] && !strcmp(parser->wanted, parser->label));
    if (parser->label[0] && parser->present.kernel[0]) {
        if (!parser->present.title[0])
            snprintf(parser->present.title, BOOTCFG_TITLE_BYTES, "%s", parser->label);
        if (!parser->first.kernel[0])
            parser->first = parser->present;
        if (is_wanted)
            parser->chosen = parser->present;
    }
    memset(&parser->present, 0, sizeof(parser->present));
    parser->is_default = false;
}

static void take_menu(struct parser *parser, char *value)
{
    char *rest = value + strcspn(value, " \t");
    if (*rest)
        *rest++ = '\0';
    if (!strcasecmp(value, "default"))
        parser->is_default = true;
    else if (!strcasecmp(value, "label"))
        snprintf(parser->present.title, BOOTCFG_TITLE_BYTES, "%s", rest + strspn(rest, " \t"));
}

static void take_line(struct parser *parser, char *line)
{
    line += strspn(line, " \t");
    char *value = line + strcspn(line, " \t");
    if (*value)
        *value++ = '\0';
    value += strspn(value, " \t");
    if (!strcasecmp(line, "label")) {
        end_label(parser);
        snprintf(parser->label, sizeof(parser->label), "%s", value);
        if (parser->append[0])
            add_append(parser, parser->append);
    } else if (!strcasecmp(line, "default")) {
        snprintf(parser->wanted, sizeof(parser->wanted), "%s", value);
    } else if (!strcasecmp(line, "linux") || !strcasecmp(line, "kernel")) {
        place(parser, value, parser->present.kernel);
    } else if (!strcasecmp(line, "initrd")) {
        add_initrds(parser, value);
    } else if (!strcasecmp(line, "append") && parser->label[0]) {
        add_append(parser, strcmp(value, "-") ? value : "");
    } else if (!strcasecmp(line, "append")) {
        snprintf(parser->append, sizeof(parser->append), "%s", value);
    } else if (!strcasecmp(line, "menu")) {
        take_menu(parser, value);
    }
}

bool bootcfg_extlinux(const char *device, const char *folder, char *text,
                      struct bootcfg_choice *choice)
{
    struct parser parser = {.device = device, .folder = folder};
    for (char *line; (line = strsep(&text, "\n"));) {
        line[strcspn(line, "\r")] = '\0';
        take_line(&parser, line);
    }
    end_label(&parser);
    *choice = parser.chosen.kernel[0] ? parser.chosen : parser.first;
    return choice->kernel[0];
}
