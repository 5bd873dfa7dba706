/* SPDX-License-Identifier: BSD-2-Clause
 * skep run: the options of network cards. */
#include "cli/request.h"

#include <string.h>

static bool net_kind(struct machine_net *net, const char *piece, struct error *err)
{
    unsigned long fd;
    if (!strcmp(piece, "user")) {
        net->kind = MACHINE_NET_USER;
    } else if (!strncmp(piece, "tap=", 4) && piece[4]) {
        net->kind = MACHINE_NET_TAP;
        net->tap_name = piece + 4;
    } else if (!strncmp(piece, "tap-fd=", 7)) {
        net->kind = MACHINE_NET_TAP;
        if (!parse_number(piece + 7, "descriptor", 0, 1 << 20, &fd, err))
            return false;
        net->tap_fd = (int)fd;
    } else {
        error_usage(err, "network", piece, "there is no such kind");
        return error_hint(err, "the kinds are user, tap=NAME, tap-fd=NUMBER and none");
    }
    return true;
}

static bool net_model(struct machine_net *net, const char *name, struct error *err)
{
    for (unsigned i = 0; i < MACHINE_NET_MODELS; i++) {
        if (!strcmp(name, machine_net_model_name((enum machine_net_model)i))) {
            net->model = (enum machine_net_model)i;
            return true;
        }
    }
    error_usage(err, "model of a network card", name, "there is no such model");
    return error_hint(err, "the models are virtio, e1000 and e1000e");
}

static bool net_user_option(struct machine_net *net, const char *piece, struct error *err)
{
    if (net->kind != MACHINE_NET_USER) {
        error_usage(err, "network option", piece, "only the user network has it");
        return error_hint(err, "leave it out, or take --net user");
    }
    if (!strncmp(piece, "tftp=", 5))
        net->tftp = piece + 5;
    else if (!strncmp(piece, "http=", 5))
        net->http = piece + 5;
    else
        net->bootfile = piece + 9;
    return true;
}

static bool net_option(struct machine_net *net, const char *piece, struct error *err)
{
    if (!strncmp(piece, "model=", 6))
        return net_model(net, piece + 6, err);
    if (((!strncmp(piece, "tftp=", 5) || !strncmp(piece, "http=", 5)) && piece[5]) ||
        (!strncmp(piece, "bootfile=", 9) && piece[9]))
        return net_user_option(net, piece, err);
    if (!strncmp(piece, "mac=", 4))
        return parse_mac(piece + 4, net->mac, err);
    if (!strncmp(piece, "slot=", 5))
        return parse_slot(piece + 5, &net->devfn, err);
    error_usage(err, "network option", piece, "it is not known");
    return error_hint(err, "known are model=MODEL, mac=ADDRESS and slot=N, for user tftp=FOLDER, "
                           "http=FOLDER and bootfile=FILE");
}

bool store_net(void *target, const char *value, struct error *err)
{
    struct request *request = target;
    struct machine_config *machine = &request->vm.machine;
    if (!strcmp(value, "none")) {
        request->no_net = true;
        return true;
    }
    if (!strncmp(value, "none,", 5)) {
        error_usage(err, "network option", value + 5, "without a network there is none");
        return error_hint(err, "--net none stands alone; a card needs user, tap= or tap-fd=");
    }
    if (machine->net_count == MACHINE_MAX_NETS)
        return request_too_many("network cards", MACHINE_MAX_NETS, err);
    char *rest = request_copy(request, value);
    struct machine_net *net = &machine->nets[machine->net_count++];
    if (!net_kind(net, next_piece(&rest), err))
        return false;
    while (rest) {
        const char *piece = next_piece(&rest);
        if (!net_option(net, piece, err))
            return false;
    }
    return true;
}

static bool bad_forward(const char *value, struct error *err)
{
    error_usage(err, "port", value, "it is not of the form [IP:]HOST:GUEST[/udp]");
    return error_hint(err, "-p 8080:80 makes the guest's port 80 the host's 127.0.0.1:8080");
}

/* The address may be an IPv6 one in brackets. */
bool store_port(void *target, const char *value, struct error *err)
{
    struct request *request = target;
    if (request->forward_count == MACHINE_MAX_FORWARDS)
        return request_too_many("forwarded ports", MACHINE_MAX_FORWARDS, err);
    struct machine_forward *forward = &request->forwards[request->forward_count];
    char *text = request_copy(request, value);
    char *protocol = strchr(text, '/');
    if (protocol) {
        *protocol++ = '\0';
        if (strcmp(protocol, "udp") != 0 && strcmp(protocol, "tcp") != 0)
            return bad_forward(value, err);
        forward->is_udp = !strcmp(protocol, "udp");
    }
    char *guest = strrchr(text, ':');
    if (!guest)
        return bad_forward(value, err);
    *guest++ = '\0';
    char *host = strrchr(text, ':');
    if (host) {
        *host++ = '\0';
        size_t length = strlen(text);
        if (text[0] == '[' && length > 1 && text[length - 1] == ']') {
            text[length - 1] = '\0';
            text++;
        }
        forward->host_address = text;
    }
    unsigned long host_port;
    unsigned long guest_port;
    if (!parse_number(host ? host : text, "host port", 1, 65535, &host_port, err) ||
        !parse_number(guest, "guest port", 1, 65535, &guest_port, err))
        return false;
    forward->host_port = (uint16_t)host_port;
    forward->guest_port = (uint16_t)guest_port;
    request->forward_count++;
    return true;
}
