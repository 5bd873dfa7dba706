/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A machine's configuration as JSON. A new option of a plain kind is a line in one of the tables
 * below; a key that is not known is an option of a newer skep, and is refused.
 */
#include "machine/description.h"

#include <assert.h>
#include <jansson.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct description {
    json_t *root; /* the strings are its */
    struct machine_config config;
    struct machine_forward forwards[MACHINE_MAX_NETS][MACHINE_MAX_FORWARDS];
};

static const char what_parse[] = "cannot restore the machine";

struct field {
    const char *name;
    size_t offset;
};
#define FIELD(type, name)                                                                          \
    {                                                                                              \
#name, offsetof(struct type, name)                                                         \
    }

static const struct field strings[] = {FIELD(machine_config, cmdline)};
/* Where bytes go: host/chardev.h. */
static const struct field places[] = {FIELD(machine_config, debugcon), FIELD(machine_config, post),
                                      FIELD(machine_config, parallel), FIELD(machine_config, tpm)};
static const struct field flags[] = {
    FIELD(machine_config, no_balloon),      FIELD(machine_config, no_rng),
    FIELD(machine_config, no_reboot),       FIELD(machine_config, kernel_from_disk),
    FIELD(machine_config, rtc_is_local),    FIELD(machine_config, has_exit_port),
    FIELD(machine_config, has_testdev),     FIELD(machine_config, parallel_ignores_strobe),
    FIELD(machine_config, rom_is_firmware), FIELD(machine_config, boot_menu),
    FIELD(machine_config, tpm_is_tis)};
#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

static const char *const disk_buses[MACHINE_DISK_BUSES] = {
    [MACHINE_DISK_VIRTIO] = "virtio", [MACHINE_DISK_NVME] = "nvme", [MACHINE_DISK_SCSI] = "scsi",
    [MACHINE_DISK_FLOPPY] = "floppy", [MACHINE_DISK_AHCI] = "ahci", [MACHINE_DISK_IDE] = "ide",
    [MACHINE_DISK_USB] = "usb"};

static const char *const vgas[MACHINE_VGAS] = {
    [MACHINE_VGA_NONE] = "none", [MACHINE_VGA_STD] = "std", [MACHINE_VGA_VIRTIO] = "virtio"};

const char *machine_vga_name(enum machine_vga vga)
{
    return vgas[vga];
}

bool machine_vga_find(const char *name, enum machine_vga *vga)
{
    for (*vga = 0; *vga < MACHINE_VGAS; (*vga)++)
        if (!strcmp(name, vgas[*vga]))
            return true;
    return false;
}

static const char *const inputs[MACHINE_INPUTS] = {
    [MACHINE_INPUT_PS2] = "ps2", [MACHINE_INPUT_USB] = "usb", [MACHINE_INPUT_VIRTIO] = "virtio"};

const char *machine_input_name(enum machine_input kind)
{
    return inputs[kind];
}

bool machine_input_find(const char *name, enum machine_input *kind)
{
    for (*kind = 0; *kind < MACHINE_INPUTS; (*kind)++)
        if (!strcmp(name, inputs[*kind]))
            return true;
    return false;
}

static const char *const cpu_levels[CPU_LEVELS] = {
    [CPU_LEVEL_HOST] = "host", [CPU_LEVEL_1] = "x86-64", [CPU_LEVEL_3] = "x86-64-v3"};

bool machine_cpu_find(const char *name, enum cpu_level *level)
{
    for (*level = 0; *level < CPU_LEVELS; (*level)++)
        if (!strcmp(name, cpu_levels[*level]))
            return true;
    return false;
}

const char *machine_disk_bus_name(enum machine_disk_bus bus)
{
    return disk_buses[bus];
}

bool machine_disk_bus_find(const char *name, enum machine_disk_bus *bus)
{
    for (*bus = 0; *bus < MACHINE_DISK_BUSES; (*bus)++)
        if (!strcmp(name, disk_buses[*bus]))
            return true;
    return false;
}

static const char *const boots[MACHINE_BOOTS] = {[MACHINE_BOOT_DISK] = "disk",
                                                 [MACHINE_BOOT_CDROM] = "cdrom",
                                                 [MACHINE_BOOT_NET] = "net",
                                                 [MACHINE_BOOT_FLOPPY] = "floppy"};

const char *machine_boot_name(enum machine_boot boot)
{
    return boots[boot];
}

bool machine_boot_find(const char *name, enum machine_boot *boot)
{
    for (*boot = 0; *boot < MACHINE_BOOTS; (*boot)++)
        if (!strcmp(name, boots[*boot]))
            return true;
    return false;
}

static const char *const net_models[] = {
    [MACHINE_NET_VIRTIO] = "virtio",
    [MACHINE_NET_E1000] = "e1000",
    [MACHINE_NET_E1000E] = "e1000e",
};

const char *machine_net_model_name(enum machine_net_model model)
{
    return model < MACHINE_NET_MODELS ? net_models[model] : NULL;
}

static const char **string_at(struct machine_config *config, const struct field *field)
{
    return (const char **)(void *)((char *)config + field->offset);
}

static bool *flag_at(struct machine_config *config, const struct field *field)
{
    return (bool *)(void *)((char *)config + field->offset);
}

/* ---- to text ---- */

static json_t *string_of(const char *text)
{
    return text ? json_string(text) : json_null();
}

static json_t *path_of(const char *path)
{
    char *absolute = path ? realpath(path, NULL) : NULL;
    json_t *value = string_of(absolute ? absolute : path);
    free(absolute);
    return value;
}

/* A file; or, for a Multiboot kernel, files with arguments behind commas, each with the folder of a
 * relative name (machine.h). */
static json_t *initrd_of(const char *text)
{
    char *absolute = realpath(text, NULL), *folder = getcwd(NULL, 0);
    json_t *value = absolute || !folder ? string_of(absolute ? absolute : text) : json_string("");
    bool begins = true;
    for (const char *at = text; !absolute && folder && *at; at++) {
        bool is_comma = *at == ',' && at[1] == ',';
        json_t *more =
            json_sprintf("%s%s%s%.*s", json_string_value(value), begins && *at != '/' ? folder : "",
                         begins && *at != '/' ? "/" : "", is_comma ? 2 : 1, at);
        json_decref(value);
        value = more;
        begins = *at == ',' && !is_comma;
        at += is_comma;
    }
    free(absolute);
    free(folder);
    return value;
}

/* Where bytes go (host/chardev.h), with the folder of a relative name. */
static json_t *where_of(const char *where)
{
    static const char *const kinds[] = {"file:", "pipe:", "unix:"};
    for (size_t i = 0; where && i < COUNT(kinds); i++) {
        size_t length = strlen(kinds[i]);
        if (strncmp(where, kinds[i], length) != 0 || where[length] == '/')
            continue;
        char *folder = getcwd(NULL, 0);
        json_t *value =
            folder ? json_sprintf("%s%s/%s", kinds[i], folder, where + length) : string_of(where);
        free(folder);
        return value;
    }
    return string_of(where);
}

/* A list that lacks an entry would make another machine: it is dropped as a whole, and with it the
 * description that it is a part of. */
static void append(json_t **list, json_t *value)
{
    if (*list && json_array_append_new(*list, value) == 0)
        return;
    json_decref(*list);
    *list = NULL;
}

static json_t *disks_of(const struct machine_config *config)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < config->disk_count; i++) {
        const struct machine_disk *disk = &config->disks[i];
        append(&list, json_pack("{s:o, s:b, s:s, s:i, s:o, s:b, s:b}", "path", path_of(disk->path),
                                "cdrom", disk->is_cdrom, "bus", machine_disk_bus_name(disk->bus),
                                "devfn", disk->devfn, "serial", string_of(disk->serial),
                                "read_only", disk->read_only, "raw", disk->is_surely_raw));
    }
    return list;
}

static json_t *forwards_of(const struct machine_net *net)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < net->forward_count; i++) {
        const struct machine_forward *forward = &net->forwards[i];
        append(&list, json_pack("{s:b, s:o, s:i, s:i}", "udp", forward->is_udp, "address",
                                string_of(forward->host_address), "host", forward->host_port,
                                "guest", forward->guest_port));
    }
    return list;
}

static json_t *nets_of(const struct machine_config *config)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < config->net_count; i++) {
        const struct machine_net *net = &config->nets[i];
        json_t *mac = json_array();
        for (unsigned j = 0; j < sizeof(net->mac); j++)
            json_array_append_new(mac, json_integer(net->mac[j]));
        append(&list, json_pack("{s:s, s:s, s:o, s:o, s:o, s:i, s:o, s:o, s:o}", "kind",
                                net->kind == MACHINE_NET_USER ? "user" : "tap", "model",
                                machine_net_model_name(net->model), "tftp", string_of(net->tftp),
                                "bootfile", string_of(net->bootfile), "http", string_of(net->http),
                                "devfn", net->devfn, "tap", string_of(net->tap_name), "mac", mac,
                                "forwards", forwards_of(net)));
    }
    return list;
}

static json_t *list_of(const char *const *texts, unsigned count, json_t *(*to)(const char *text))
{
    json_t *list = json_array();
    for (unsigned i = 0; i < count; i++)
        append(&list, to(texts[i]));
    return list;
}

static json_t *consoles_of(const struct machine_config *config)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < config->console_count; i++)
        append(&list, json_pack("{s:o, s:o}", "name", string_of(config->consoles[i].name), "where",
                                where_of(config->consoles[i].where)));
    return list;
}

static json_t *boots_of(const struct machine_config *config)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < config->boot_count; i++)
        append(&list, json_string(machine_boot_name(config->boot[i])));
    return list;
}

static json_t *uuid_of(const struct machine_config *config)
{
    char text[2 * sizeof(config->uuid) + 1];
    for (unsigned i = 0; i < sizeof(config->uuid); i++)
        snprintf(text + 2 * i, 3, "%02x", config->uuid[i]);
    return json_string(text);
}

static json_t *screen_of(const struct machine_config *config)
{
    const struct machine_display *display = &config->display;
    return json_pack("{s:s, s:I, s:I, s:I, s:o, s:o, s:o}", "vga", machine_vga_name(config->vga),
                     "memory", (json_int_t)config->vga_memory_bytes, "width",
                     (json_int_t)config->screen_width, "height", (json_int_t)config->screen_height,
                     "vnc", where_of(display->vnc), "password_file",
                     path_of(display->password_file), "keymap", string_of(display->keymap));
}

char *description_text(const struct machine_config *config)
{
    struct machine_config copy = *config;
    json_t *root = json_pack(
        "{s:i, s:[i,i,i], s:s, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:i, s:i, s:i, s:o, "
        "s:o, "
        "s:o}",
        "cpus", config->vcpu_count, "topology", config->topology.sockets, config->topology.cores,
        config->topology.threads, "cpu", cpu_levels[config->cpu_level], "memory",
        (json_int_t)config->memory_bytes, "uuid", uuid_of(config), "kernel",
        path_of(config->kernel), "rom", path_of(config->rom), "initrds",
        list_of(config->initrds, config->initrd_count, initrd_of), "disks", disks_of(config),
        "nets", nets_of(config), "serials",
        list_of(config->serials, config->serial_count, where_of), "consoles", consoles_of(config),
        "exit_port", config->exit_port, "rng_devfn", config->rng_devfn, "debugcon_port",
        config->debugcon_port, "nvram", path_of(config->nvram), "nvram_template",
        path_of(config->nvram_template), "boot", boots_of(config));
    if (!root)
        return NULL;
    json_object_set_new(root, "screen", screen_of(config));
    json_object_set_new(root, "input", json_string(machine_input_name(config->input)));
    for (size_t i = 0; i < COUNT(strings); i++)
        json_object_set_new(root, strings[i].name, string_of(*string_at(&copy, &strings[i])));
    for (size_t i = 0; i < COUNT(places); i++)
        json_object_set_new(root, places[i].name, where_of(*string_at(&copy, &places[i])));
    for (size_t i = 0; i < COUNT(flags); i++)
        json_object_set_new(root, flags[i].name, json_boolean(*flag_at(&copy, &flags[i])));
    char *text = json_dumps(root, JSON_COMPACT);
    json_decref(root);
    return text;
}

/* ---- from text ---- */

/* A string, or NULL for null. False: neither. */
static bool take_string(const json_t *value, const char **text)
{
    *text = json_string_value(value);
    return *text || json_is_null(value);
}

static bool take_number(const json_t *value, json_int_t low, json_int_t high, json_int_t *number)
{
    *number = json_integer_value(value);
    return json_is_integer(value) && *number >= low && *number <= high;
}

static bool take_flag(const json_t *value, bool *flag)
{
    *flag = json_is_true(value);
    return json_is_boolean(value);
}

/* The list under `key`, of at most `most`. */
static bool take_list(const json_t *root, const char *key, size_t most, json_t **list,
                      unsigned *count)
{
    *list = json_object_get(root, key);
    *count = (unsigned)json_array_size(*list);
    return json_is_array(*list) && json_array_size(*list) <= most;
}

static bool take_devfn(const json_t *from, const char *key, uint8_t *devfn)
{
    json_int_t number;
    if (!take_number(json_object_get(from, key), 0, MACHINE_LAST_DEVFN, &number))
        return false;
    *devfn = (uint8_t)number;
    return true;
}

static bool take_disk_bus(const json_t *from, enum machine_disk_bus *bus)
{
    const char *name = json_string_value(json_object_get(from, "bus"));
    return name && machine_disk_bus_find(name, bus);
}

static bool take_disks(struct machine_config *config, const json_t *root)
{
    json_t *list;
    if (!take_list(root, "disks", MACHINE_MAX_DISKS, &list, &config->disk_count))
        return false;
    for (unsigned i = 0; i < config->disk_count; i++) {
        struct machine_disk *disk = &config->disks[i];
        const json_t *from = json_array_get(list, i);
        if (!take_string(json_object_get(from, "path"), &disk->path) ||
            !take_flag(json_object_get(from, "cdrom"), &disk->is_cdrom) ||
            !take_disk_bus(from, &disk->bus) || !take_devfn(from, "devfn", &disk->devfn) ||
            !take_string(json_object_get(from, "serial"), &disk->serial) ||
            !take_flag(json_object_get(from, "read_only"), &disk->read_only) ||
            !take_flag(json_object_get(from, "raw"), &disk->is_surely_raw))
            return false;
    }
    return true;
}

static bool take_forwards(struct machine_net *net, struct machine_forward *forwards,
                          const json_t *from)
{
    json_t *list;
    json_int_t host, guest;
    if (!take_list(from, "forwards", MACHINE_MAX_FORWARDS, &list, &net->forward_count))
        return false;
    net->forwards = forwards;
    for (unsigned i = 0; i < net->forward_count; i++) {
        const json_t *one = json_array_get(list, i);
        if (!take_flag(json_object_get(one, "udp"), &forwards[i].is_udp) ||
            !take_string(json_object_get(one, "address"), &forwards[i].host_address) ||
            !take_number(json_object_get(one, "host"), 1, 65535, &host) ||
            !take_number(json_object_get(one, "guest"), 1, 65535, &guest))
            return false;
        forwards[i].host_port = (uint16_t)host;
        forwards[i].guest_port = (uint16_t)guest;
    }
    return true;
}

/* Machines that were saved before there were models have virtio cards. */
static bool take_net_model(struct machine_net *net, const json_t *from)
{
    const char *name = json_string_value(json_object_get(from, "model"));
    for (unsigned i = 0; i < MACHINE_NET_MODELS; i++) {
        if (!strcmp(name ? name : "virtio", net_models[i])) {
            net->model = (enum machine_net_model)i;
            return true;
        }
    }
    return false;
}

static bool take_net(struct machine_net *net, struct machine_forward *forwards, const json_t *from)
{
    const char *kind;
    json_int_t byte;
    const json_t *mac = json_object_get(from, "mac");
    if (!take_string(json_object_get(from, "kind"), &kind) || !kind ||
        !take_string(json_object_get(from, "tap"), &net->tap_name) || !take_net_model(net, from) ||
        !take_devfn(from, "devfn", &net->devfn))
        return false;
    net->kind = strcmp(kind, "tap") ? MACHINE_NET_USER : MACHINE_NET_TAP;
    net->tftp = json_string_value(json_object_get(from, "tftp"));
    net->bootfile = json_string_value(json_object_get(from, "bootfile"));
    net->http = json_string_value(json_object_get(from, "http"));
    net->tap_fd = -1; /* a descriptor that was given away can't be had again */
    if (json_array_size(mac) != sizeof(net->mac))
        return false;
    for (unsigned i = 0; i < sizeof(net->mac); i++) {
        if (!take_number(json_array_get(mac, i), 0, 255, &byte))
            return false;
        net->mac[i] = (uint8_t)byte;
    }
    return take_forwards(net, forwards, from);
}

static bool take_nets(struct description *description, const json_t *root)
{
    struct machine_config *config = &description->config;
    json_t *list;
    if (!take_list(root, "nets", MACHINE_MAX_NETS, &list, &config->net_count))
        return false;
    for (unsigned i = 0; i < config->net_count; i++)
        if (!take_net(&config->nets[i], description->forwards[i], json_array_get(list, i)))
            return false;
    return true;
}

static bool take_strings(const json_t *root, const char *key, const char **texts, unsigned most,
                         unsigned *count)
{
    json_t *list;
    if (!take_list(root, key, most, &list, count))
        return false;
    for (unsigned i = 0; i < *count; i++)
        if (!take_string(json_array_get(list, i), &texts[i]))
            return false;
    return true;
}

static bool take_consoles(struct machine_config *config, const json_t *root)
{
    json_t *list;
    if (!take_list(root, "consoles", MACHINE_MAX_CONSOLES, &list, &config->console_count))
        return false;
    for (unsigned i = 0; i < config->console_count; i++) {
        const json_t *from = json_array_get(list, i);
        struct machine_console *console = &config->consoles[i];
        if (!take_string(json_object_get(from, "name"), &console->name) ||
            !take_string(json_object_get(from, "where"), &console->where) || !console->where)
            return false;
    }
    return true;
}

static bool take_screen(struct machine_config *config, const json_t *root)
{
    const json_t *from = json_object_get(root, "screen");
    const char *vga = json_string_value(json_object_get(from, "vga"));
    json_int_t memory, width, height;
    if (!vga || !machine_vga_find(vga, &config->vga) ||
        !take_number(json_object_get(from, "memory"), 0, MACHINE_MAX_VGA_MEMORY_BYTES, &memory) ||
        !take_number(json_object_get(from, "width"), 0, MACHINE_MAX_SCREEN, &width) ||
        !take_number(json_object_get(from, "height"), 0, MACHINE_MAX_SCREEN, &height))
        return false;
    config->vga_memory_bytes = (uint32_t)memory;
    config->screen_width = (uint32_t)width;
    config->screen_height = (uint32_t)height;
    return take_string(json_object_get(from, "vnc"), &config->display.vnc) &&
           take_string(json_object_get(from, "password_file"), &config->display.password_file) &&
           take_string(json_object_get(from, "keymap"), &config->display.keymap);
}

static bool take_input(struct machine_config *config, const json_t *root)
{
    const char *kind = json_string_value(json_object_get(root, "input"));
    return kind && machine_input_find(kind, &config->input);
}

static bool take_cpu(struct machine_config *config, const json_t *root)
{
    const char *level = json_string_value(json_object_get(root, "cpu"));
    return level && machine_cpu_find(level, &config->cpu_level);
}

static bool take_uuid(struct machine_config *config, const json_t *root)
{
    const char *text = json_string_value(json_object_get(root, "uuid"));
    if (!text || strlen(text) != 2 * sizeof(config->uuid))
        return false;
    for (unsigned i = 0; i < sizeof(config->uuid); i++)
        if (sscanf(text + 2 * i, "%2hhx", &config->uuid[i]) != 1)
            return false;
    return true;
}

static bool take_shape(struct machine_config *config, const json_t *root)
{
    json_int_t number;
    unsigned *const topology[] = {&config->topology.sockets, &config->topology.cores,
                                  &config->topology.threads};
    if (!take_number(json_object_get(root, "cpus"), 1, MACHINE_MAX_VCPUS, &number))
        return false;
    config->vcpu_count = (unsigned)number;
    for (unsigned i = 0; i < COUNT(topology); i++) {
        const json_t *value = json_array_get(json_object_get(root, "topology"), i);
        if (!take_number(value, 1, MACHINE_MAX_VCPUS, &number))
            return false;
        *topology[i] = (unsigned)number;
    }
    if (!take_number(json_object_get(root, "memory"), MACHINE_MIN_MEMORY_BYTES, INT64_MAX, &number))
        return false;
    config->memory_bytes = (uint64_t)number;
    if (!take_number(json_object_get(root, "exit_port"), 0, UINT16_MAX, &number))
        return false;
    config->exit_port = (uint16_t)number;
    return take_cpu(config, root) && take_uuid(config, root);
}

static bool take_plain(struct machine_config *config, const json_t *root)
{
    for (size_t i = 0; i < COUNT(strings); i++)
        if (!take_string(json_object_get(root, strings[i].name), string_at(config, &strings[i])))
            return false;
    for (size_t i = 0; i < COUNT(places); i++)
        if (!take_string(json_object_get(root, places[i].name), string_at(config, &places[i])))
            return false;
    for (size_t i = 0; i < COUNT(flags); i++)
        if (!take_flag(json_object_get(root, flags[i].name), flag_at(config, &flags[i])))
            return false;
    return true;
}

/* A machine that says more than this skep reads would be made as another one. */
static bool knows_all(json_t *root, struct error *err)
{
    const size_t own = 20; /* those of take_all() that are not plain */
    if (json_object_size(root) == own + COUNT(strings) + COUNT(places) + COUNT(flags))
        return true;
    error_set(err, what_parse, NULL, "it has options that this skep does not know");
    return error_hint(err, "use the version of skep that saved it");
}

static bool take_firmware(struct machine_config *config, const json_t *root)
{
    json_t *list;
    json_int_t port;
    if (!take_string(json_object_get(root, "nvram"), &config->nvram) ||
        !take_string(json_object_get(root, "nvram_template"), &config->nvram_template) ||
        !take_number(json_object_get(root, "debugcon_port"), 0, UINT16_MAX, &port) ||
        !take_list(root, "boot", MACHINE_MAX_BOOTS, &list, &config->boot_count))
        return false;
    config->debugcon_port = (uint16_t)port;
    for (unsigned i = 0; i < config->boot_count; i++) {
        const char *name = json_string_value(json_array_get(list, i));
        if (!name || !machine_boot_find(name, &config->boot[i]))
            return false;
    }
    return true;
}

static bool take_all(struct description *description, const json_t *root)
{
    struct machine_config *config = &description->config;
    return take_shape(config, root) &&
           take_string(json_object_get(root, "kernel"), &config->kernel) &&
           take_string(json_object_get(root, "rom"), &config->rom) &&
           take_strings(root, "initrds", config->initrds, MACHINE_MAX_INITRDS,
                        &config->initrd_count) &&
           take_disks(config, root) && take_nets(description, root) &&
           take_strings(root, "serials", config->serials, MACHINE_MAX_SERIALS,
                        &config->serial_count) &&
           take_consoles(config, root) && take_devfn(root, "rng_devfn", &config->rng_devfn) &&
           take_screen(config, root) && take_input(config, root) && take_firmware(config, root) &&
           take_plain(config, root);
}

struct description *description_parse(const char *text, size_t size_bytes, struct error *err)
{
    struct description *description = calloc(1, sizeof(*description));
    json_error_t json_error;
    if (!description) {
        error_set(err, what_parse, NULL, "out of memory");
        return NULL;
    }
    description->root = json_loadb(text, size_bytes, JSON_REJECT_DUPLICATES, &json_error);
    if (json_is_object(description->root) && take_all(description, description->root)) {
        if (knows_all(description->root, err))
            return description;
    } else {
        error_set(err, what_parse, NULL, "its description makes no sense");
    }
    description_free(description);
    return NULL;
}

const struct machine_config *description_config(const struct description *description)
{
    return &description->config;
}

void description_free(struct description *description)
{
    if (!description)
        return;
    json_decref(description->root);
    free(description);
}
