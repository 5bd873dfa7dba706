/* SPDX-License-Identifier: BSD-2-Clause
 * Option tables on getopt_long, and the values that options take. */
#include "cli/option.h"

#include "vm/vm.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

enum { OPTIONS_MAX = 48, HELP_COLUMN = 30 };

/* getopt returns this plus the option's place, so that short and long forms are one. */
enum { RESULT_BASE = 256 };

static void fill_tables(const struct option_spec *specs, size_t count, struct option *longs,
                        char *shorts)
{
    *shorts++ = ':'; /* tells a missing argument from an unknown option */
    for (size_t i = 0; i < count; i++) {
        int has_argument = specs[i].argument ? required_argument : no_argument;
        longs[i] = (struct option){specs[i].long_name, has_argument, NULL, RESULT_BASE + (int)i};
        if (specs[i].short_name) {
            *shorts++ = specs[i].short_name;
            if (specs[i].argument)
                *shorts++ = ':';
        }
    }
    longs[count] = (struct option){0};
    *shorts = '\0';
}

static const struct option_spec *find(const struct option_spec *specs, size_t count, int result)
{
    if (result >= RESULT_BASE)
        return &specs[result - RESULT_BASE];
    for (size_t i = 0; i < count; i++)
        if (specs[i].short_name == result)
            return &specs[i];
    return NULL;
}

static bool bad_option(int result, char **argv, struct error *err)
{
    char name[64];
    if (optopt > 0 && optopt < RESULT_BASE)
        snprintf(name, sizeof(name), "-%c", optopt);
    else
        snprintf(name, sizeof(name), "%s", argv[optind - 1]);
    if (result == ':')
        error_usage(err, "option", name, "it needs an argument");
    else
        error_usage(err, "option", name, "there is no such option, or it takes no argument");
    return error_hint(err, "`skep%s%s --help` lists the options", argv[0][0] ? " " : "", argv[0]);
}

bool options_parse(const struct option_spec *specs, size_t count, int argc, char **argv,
                   void *target, int *operands, struct error *err)
{
    struct option longs[OPTIONS_MAX + 1];
    char shorts[2 * OPTIONS_MAX + 2];
    fill_tables(specs, count, longs, shorts);
    optind = 0; /* getopt starts anew: it was used for the options before the verb */
    opterr = 0;
    int result;
    while ((result = getopt_long(argc, argv, shorts, longs, NULL)) != -1) {
        if (result == ':' || result == '?')
            return bad_option(result, argv, err);
        const struct option_spec *spec = find(specs, count, result);
        if (!spec->store(target, optarg, err))
            return false;
    }
    *operands = optind;
    return true;
}

static void help_text(FILE *out, const char *text)
{
    for (const char *c = text; *c; c++) {
        putc(*c, out);
        if (*c == '\n')
            fprintf(out, "%*s", HELP_COLUMN, "");
    }
    putc('\n', out);
}

void options_help(FILE *out, const struct option_spec *specs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        char names[80];
        char short_name[8] = "    ";
        if (specs[i].short_name)
            snprintf(short_name, sizeof(short_name), "-%c, ", specs[i].short_name);
        snprintf(names, sizeof(names), "  %s--%s%s%s", short_name, specs[i].long_name,
                 specs[i].argument ? " " : "", specs[i].argument ? specs[i].argument : "");
        if (strlen(names) + 2 > HELP_COLUMN)
            fprintf(out, "%s\n%*s", names, HELP_COLUMN, "");
        else
            fprintf(out, "%-*s", HELP_COLUMN, names);
        help_text(out, specs[i].help);
    }
}

/* The power of two for a unit's letter; -1 for none known. */
static int unit_shift(char letter)
{
    const char *units = "kmgt";
    const char *at = letter ? strchr(units, tolower((unsigned char)letter)) : NULL;
    return at ? 10 * (int)(at - units + 1) : -1;
}

static bool bad_size(const char *text, struct error *err)
{
    error_usage(err, "size", text, "it is not a size");
    return error_hint(err, "write a number and a unit: 512M, 2G");
}

bool parse_size(const char *text, unsigned long long bare_unit, unsigned long long *bytes,
                struct error *err)
{
    char *end;
    errno = 0;
    double number = strtod(text, &end);
    if (end == text || !isdigit((unsigned char)text[0]) || errno || text[1] == 'x')
        return bad_size(text, err);
    double unit = (double)bare_unit;
    if (*end) {
        int shift = unit_shift(*end);
        if (shift < 0 && strcmp(end, "B") != 0)
            return bad_size(text, err);
        unit = shift < 0 ? 1 : (double)(1ULL << shift);
        end += shift < 0 ? 0 : 1;
        if (*end && strcmp(end, "B") != 0 && strcmp(end, "iB") != 0)
            return bad_size(text, err);
    }
    if (number * unit >= (double)(1ULL << 62))
        return error_usage(err, "size", text, "it is too large") ||
               error_hint(err, "write a number and a unit: 512M, 2G");
    *bytes = (unsigned long long)(number * unit);
    return true;
}

bool parse_number(const char *text, const char *what, unsigned long low, unsigned long high,
                  unsigned long *value, struct error *err)
{
    char *end;
    errno = 0;
    unsigned long number = strtoul(text, &end, 10);
    if (!isdigit((unsigned char)text[0]) || *end || errno || number < low || number > high) {
        error_usage(err, what, text, "it is out of range, or no number");
        return error_hint(err, "write a whole number from %lu to %lu", low, high);
    }
    *value = number;
    return true;
}

bool parse_io_port(const char *text, unsigned port_count, uint16_t *port, struct error *err)
{
    char *end;
    bool is_hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
    unsigned long number = strtoul(text, &end, is_hex ? 16 : 10);
    if (!isdigit((unsigned char)text[0]) || *end || number == 0 || number + port_count > 0x10000) {
        error_usage(err, "port", text, "it is no port of a PC");
        return error_hint(err, "write a number as 0xf4, up to %#x", 0x10000 - port_count);
    }
    *port = (uint16_t)number;
    return true;
}

bool parse_pin(char *text, unsigned long *vcpu, unsigned long *host_cpu, struct error *err)
{
    char *host = strchr(text, ':');
    if (!host) {
        error_usage(err, "pin", text, "it is not of the form VCPU:HOSTCPU");
        return error_hint(err, "0:2 keeps processor 0 on the host's processor 2");
    }
    *host++ = '\0';
    return parse_number(text, "pinned processor", 0, MACHINE_MAX_VCPUS - 1, vcpu, err) &&
           parse_number(host, "processor of the host", 0, MACHINE_MAX_HOST_CPU, host_cpu, err);
}

bool parse_mac(const char *text, uint8_t mac[6], struct error *err)
{
    char end;
    unsigned b[6];
    if (sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%c", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5], &end) !=
        6)
        return error_usage(err, "network address", text, "it is not of the form 52:54:00:12:34:56");
    for (int i = 0; i < 6; i++)
        mac[i] = (uint8_t)b[i];
    if (mac[0] & 1)
        return error_usage(err, "network address", text, "it is a multicast address") ||
               error_hint(err, "the first byte of a card's own is even, as in 52:54:00:12:34:56");
    return true;
}

bool parse_slot(const char *text, uint8_t *devfn, struct error *err)
{
    unsigned slot, function = 0;
    int end = 0;
    bool is_good = isdigit((unsigned char)text[0]) && sscanf(text, "%2u%n", &slot, &end) == 1;
    if (is_good && text[end] == '.')
        is_good = sscanf(text + end, ".%1u%n", &function, &(int){0}) == 1 && !text[end + 2];
    else
        is_good = is_good && !text[end];
    if (!is_good || slot == 0 || slot >= 31 || function > 7) {
        error_usage(err, "slot", text, "there is none on this board");
        return error_hint(err, "slots are 1 to 30, with a function as 5.1 if it is not the first");
    }
    *devfn = (uint8_t)(slot << 3 | function);
    return true;
}
