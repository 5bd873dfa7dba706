/* SPDX-License-Identifier: BSD-2-Clause
 * The user-mode network, with a small guest in the test that speaks ARP, DHCP, UDP and TCP by hand:
 * an address, connections through forwards both ways with checksums and segmentation left to the
 * network card, a guest without room, ports in use. Traffic only on loopback. */
#include "host/slirp.h"
#include "host/frame.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

enum {
    SYN = 2,
    FIN = 1,
    ACK = 16,
    GUEST_PORT = 80,
    BULK = 400000,
    HTTP_BYTES = 200000,
    GUEST_IP = 0x0a00020f,
    HOST_IP = 0x0a000202,
};
static const uint8_t guest_mac[6] = {0x52, 0x54, 0, 0x12, 0x34, 0x56};

/* One end of a TCP connection, in the guest. */
struct tcp {
    uint16_t active_port; /* the guest has begun it, from there */
    bool is_open, peer_finished;
    uint16_t peer_port;
    uint32_t send_next, acked, receive_next;
    uint32_t window;
};

struct env {
    struct loop *loop;
    struct net_backend net;
    bool is_open;
    uint16_t tcp_port, udp_port;
    uint8_t host_mac[6];
    uint8_t offer[64]; /* DHCP: the address offered, and by which message */
    uint32_t offered_ip;
    uint8_t dhcp_type;
    char dhcp_class[32], dhcp_file[128]; /* option 60, and the boot file */
    struct tcp tcp;
    uint8_t *received; /* stream of the connection */
    size_t received_bytes;
    unsigned gso_frames, plain_large, frame_count;
    unsigned refuse; /* that many offers of a frame */
    uint8_t udp[4096];
    size_t udp_bytes;
    unsigned udp_fragments;
};

/* ---- numbers in frames ---- */

static void put16(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static void put32(uint8_t *at, uint32_t value)
{
    put16(at, value >> 16);
    put16(at + 2, value & 0xffff);
}

static uint32_t get16(const uint8_t *at)
{
    return (uint32_t)at[0] << 8 | at[1];
}

static uint32_t get32(const uint8_t *at)
{
    return get16(at) << 16 | get16(at + 2);
}

/* The plain way of RFC 1071, to check the fast one by. */
static uint32_t sum(const uint8_t *at, size_t size_bytes, uint32_t start)
{
    uint32_t total = start;
    for (size_t i = 0; i < size_bytes; i++)
        total += i & 1 ? at[i] : (uint32_t)at[i] << 8;
    while (total >> 16)
        total = (total & 0xffff) + (total >> 16);
    return total;
}

static uint32_t pseudo(const uint8_t *ip, uint32_t size_bytes)
{
    return sum(ip + 12, 8, ip[9] + (size_bytes & 0xffff) + (size_bytes >> 16));
}

/* ---- what the guest sends ---- */

static void send_frame(struct env *env, uint8_t *frame, size_t size_bytes,
                       const struct net_offload *offload)
{
    static const struct net_offload none;
    struct iovec iov[2] = {{frame, 10}, {frame + 10, size_bytes - 10}};
    env->net.send(env->net.opaque, iov, 2, offload ? offload : &none);
}

static void ethernet(uint8_t *frame, const uint8_t *to, uint16_t type)
{
    memcpy(frame, to, 6);
    memcpy(frame + 6, guest_mac, 6);
    put16(frame + 12, type);
}

static void ipv4(struct env *env, uint8_t *frame, uint32_t from, uint32_t to, uint8_t protocol,
                 size_t payload_bytes)
{
    static const uint8_t broadcast[6] = {255, 255, 255, 255, 255, 255};
    ethernet(frame, to == 0xffffffff ? broadcast : env->host_mac, 0x0800);
    uint8_t *ip = frame + 14;
    memset(ip, 0, 20);
    ip[0] = 0x45;
    put16(ip + 2, (uint32_t)(20 + payload_bytes));
    ip[8] = 64;
    ip[9] = protocol;
    put32(ip + 12, from);
    put32(ip + 16, to);
    put16(ip + 10, ~sum(ip, 20, 0) & 0xffff);
}

static void send_arp(struct env *env, uint16_t operation, const uint8_t *to_mac, uint32_t to_ip)
{
    static const uint8_t broadcast[6] = {255, 255, 255, 255, 255, 255};
    uint8_t frame[42] = {0};
    ethernet(frame, operation == 1 ? broadcast : to_mac, 0x0806);
    memcpy(frame + 14, "\0\1\x08\0\6\4", 6);
    put16(frame + 20, operation);
    memcpy(frame + 22, guest_mac, 6);
    put32(frame + 28, GUEST_IP);
    memcpy(frame + 32, to_mac, 6);
    put32(frame + 38, to_ip);
    send_frame(env, frame, sizeof(frame), NULL);
}

/* A segment; checksum (and cutting) left to the card, unless `is_complete`. */
static void send_tcp(struct env *env, uint8_t flags, const uint8_t *payload, size_t payload_bytes,
                     bool is_complete)
{
    static uint8_t frame[65536];
    size_t header = flags & SYN ? 24 : 20, size_bytes = header + payload_bytes;
    ipv4(env, frame, GUEST_IP, HOST_IP, 6, size_bytes);
    uint8_t *tcp = frame + 34;
    memset(tcp, 0, header);
    put16(tcp, env->tcp.active_port ? env->tcp.active_port : GUEST_PORT);
    put16(tcp + 2, env->tcp.peer_port);
    put32(tcp + 4, env->tcp.send_next);
    put32(tcp + 8, env->tcp.receive_next);
    tcp[12] = (uint8_t)(header / 4 << 4);
    tcp[13] = flags;
    put16(tcp + 14, 65535);
    if (flags & SYN)
        memcpy(tcp + 20, "\2\4\x05\xb4", 4); /* 1460 */
    if (payload_bytes > 0)
        memcpy(tcp + header, payload, payload_bytes);
    uint32_t start = pseudo(frame + 14, (uint32_t)size_bytes);
    struct net_offload offload = {
        .needs_checksum = true, .checksum_start = 34, .checksum_offset = 16};
    if (payload_bytes > 1460) {
        offload.gso = NET_GSO_TCPV4;
        offload.header_bytes = (uint16_t)(34 + header);
        offload.segment_bytes = 1460;
    }
    if (is_complete) {
        put16(tcp + 16, ~sum(tcp, size_bytes, start) & 0xffff);
        offload = (struct net_offload){0};
    } else {
        put16(tcp + 16, start);
    }
    env->tcp.send_next += (uint32_t)payload_bytes + !!(flags & (SYN | FIN));
    send_frame(env, frame, 34 + size_bytes, &offload);
}

static void send_udp(struct env *env, uint32_t from, uint32_t to, uint16_t from_port,
                     uint16_t to_port, const void *payload, size_t payload_bytes)
{
    uint8_t frame[1514];
    ipv4(env, frame, from, to, 17, 8 + payload_bytes);
    uint8_t *udp = frame + 34;
    put16(udp, from_port);
    put16(udp + 2, to_port);
    put16(udp + 4, (uint32_t)(8 + payload_bytes));
    put16(udp + 6, pseudo(frame + 14, (uint32_t)(8 + payload_bytes)));
    memcpy(udp + 8, payload, payload_bytes);
    struct net_offload offload = {
        .needs_checksum = true, .checksum_start = 34, .checksum_offset = 6};
    send_frame(env, frame, 42 + payload_bytes, &offload);
}

/* ---- what the guest receives ---- */

static void take_arp(struct env *env, const uint8_t *frame)
{
    if (get32(frame + 38) != GUEST_IP)
        return;
    if (get16(frame + 20) == 1)
        send_arp(env, 2, frame + 22, get32(frame + 28));
    else
        memcpy(env->host_mac, frame + 22, 6);
}

static void take_options(struct env *env, const uint8_t *bootp, size_t size_bytes)
{
    memcpy(env->dhcp_file, bootp + 108, sizeof(env->dhcp_file));
    memset(env->dhcp_class, 0, sizeof(env->dhcp_class));
    for (size_t at = 240; bootp[at] != 255; at += 2u + bootp[at + 1]) {
        assert_true(at + 2 < size_bytes && at + 2 + bootp[at + 1] < size_bytes);
        if (bootp[at] == 60)
            memcpy(env->dhcp_class, bootp + at + 2, bootp[at + 1]);
    }
}

static void take_udp(struct env *env, const uint8_t *ip, size_t ip_bytes)
{
    assert_int_equal(sum(ip, 20, 0), 0xffff);
    uint32_t fragment = get16(ip + 6);
    if (fragment & 0x3fff) {
        env->udp_fragments++;
        size_t at = (fragment & 0x1fff) * 8, n = ip_bytes - 20;
        assert_true(at + n <= sizeof(env->udp));
        memcpy(env->udp + at, ip + 20, n);
        if (!(fragment & 0x2000))
            env->udp_bytes = at + n;
        return;
    }
    const uint8_t *udp = ip + 20;
    assert_int_equal(sum(udp, ip_bytes - 20, pseudo(ip, (uint32_t)ip_bytes - 20)), 0xffff);
    if (get16(udp + 2) == 68) {
        const uint8_t *bootp = udp + 8;
        env->offered_ip = get32(bootp + 16);
        assert_int_equal(bootp[240], 53); /* libslirp puts the type first */
        env->dhcp_type = bootp[242];
        take_options(env, bootp, ip_bytes - 28);
        return;
    }
    env->udp_bytes = ip_bytes - 20;
    memcpy(env->udp, udp, env->udp_bytes);
}

static void take_tcp(struct env *env, const uint8_t *ip, size_t ip_bytes,
                     const struct net_offload *offload)
{
    const uint8_t *tcp = ip + 20;
    struct tcp *c = &env->tcp;
    uint32_t tcp_bytes = (uint32_t)ip_bytes - 20, start = pseudo(ip, tcp_bytes);
    assert_int_equal(sum(ip, 20, 0), 0xffff);
    if (offload->gso) {
        assert_int_equal(offload->gso, NET_GSO_TCPV4);
        assert_true(offload->needs_checksum);
        assert_int_equal(offload->checksum_start, 34);
        assert_int_equal(offload->checksum_offset, 16);
        assert_int_equal(offload->segment_bytes, 1460);
        assert_int_equal(offload->header_bytes, 34 + (tcp[12] >> 4) * 4);
        assert_int_equal(get16(tcp + 16), start);
        env->gso_frames++;
    } else {
        assert_true(ip_bytes <= 1500);
        assert_int_equal(sum(tcp, tcp_bytes, start), 0xffff);
    }
    assert_int_equal(get32(ip + 12), HOST_IP);
    if (c->active_port && tcp[13] & SYN) {
        c->receive_next = get32(tcp + 4) + 1;
        c->is_open = true;
        send_tcp(env, ACK, NULL, 0, true);
        return;
    }
    if (tcp[13] & SYN) {
        c->peer_port = (uint16_t)get16(tcp);
        c->receive_next = get32(tcp + 4) + 1;
        c->send_next = 1000;
        send_tcp(env, SYN | ACK, NULL, 0, true);
        return;
    }
    c->is_open = true;
    c->acked = get32(tcp + 8);
    c->window = get16(tcp + 14);
    size_t header = (tcp[12] >> 4) * 4u, payload = tcp_bytes - header;
    if (get32(tcp + 4) == c->receive_next && (payload || tcp[13] & FIN)) {
        assert_true(env->received_bytes + payload <= BULK);
        memcpy(env->received + env->received_bytes, tcp + header, payload);
        env->received_bytes += payload;
        c->receive_next += (uint32_t)payload + !!(tcp[13] & FIN);
        c->peer_finished |= !!(tcp[13] & FIN);
    }
    if (payload || tcp[13] & FIN)
        send_tcp(env, ACK, NULL, 0, false);
}

struct arrival {
    struct env *env;
    struct net_offload offload;
    size_t size_bytes;
    uint8_t bytes[];
};

static void take_frame(void *opaque)
{
    struct arrival *arrival = opaque;
    struct env *env = arrival->env;
    const uint8_t *frame = arrival->bytes;
    uint32_t type = get16(frame + 12);
    if (type == 0x0806) {
        take_arp(env, frame);
    } else if (type == 0x0800) {
        size_t ip_bytes = get16(frame + 16);
        assert_int_equal(ip_bytes + 14, arrival->size_bytes);
        if (frame[23] == 17)
            take_udp(env, frame + 14, ip_bytes);
        else if (frame[23] == 6)
            take_tcp(env, frame + 14, ip_bytes, &arrival->offload);
    }
    free(arrival);
}

/* As a device does, the guest answers later, not from inside. */
static bool receive(void *opaque, const struct iovec *iov, unsigned iov_count,
                    const struct net_offload *offload)
{
    struct env *env = opaque;
    if (env->refuse > 0) {
        env->refuse--;
        return false;
    }
    size_t size_bytes = 0;
    for (unsigned i = 0; i < iov_count; i++)
        size_bytes += iov[i].iov_len;
    struct arrival *arrival = malloc(sizeof(*arrival) + size_bytes);
    *arrival = (struct arrival){env, *offload, 0};
    for (unsigned i = 0; i < iov_count; i++) {
        memcpy(arrival->bytes + arrival->size_bytes, iov[i].iov_base, iov[i].iov_len);
        arrival->size_bytes += iov[i].iov_len;
    }
    env->frame_count++;
    loop_post(env->loop, take_frame, arrival);
    return true;
}

/* ---- set-up ---- */

static uint16_t free_port(int type)
{
    int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(address);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, length), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &length), 0);
    close(fd);
    return ntohs(address.sin_port);
}

static int setup(void **state)
{
    struct env *env = calloc(1, sizeof(*env));
    env->received = malloc(BULK);
    env->loop = loop_create(NULL);
    env->tcp_port = free_port(SOCK_STREAM);
    env->udp_port = free_port(SOCK_DGRAM);
    struct slirp_forward forwards[] = {{false, NULL, env->tcp_port, GUEST_PORT},
                                       {true, "127.0.0.1", env->udp_port, 7}};
    struct slirp_config config = {.forwards = forwards, .forward_count = 2};
    struct error err = {0};
    if (!slirp_open(&config, env->loop, &env->net, &err)) {
        print_error("%s %s: %s\n", err.what, err.where, err.cause);
        return -1;
    }
    struct net_receiver receiver = {receive, env};
    env->net.set_receiver(env->net.opaque, &receiver);
    *state = env;
    return 0;
}

static int teardown(void **state)
{
    struct env *env = *state;
    env->net.close(env->net.opaque);
    for (int i = 0; i < 3; i++)
        loop_run_once(env->loop, 0); /* frees arrivals */
    loop_destroy(env->loop);
    free(env->received);
    free(env);
    return 0;
}

static void find_gateway(struct env *env)
{
    send_arp(env, 1, (const uint8_t[6]){0}, HOST_IP);
    for (int i = 0; i < 100 && !env->host_mac[0]; i++)
        loop_run_once(env->loop, 10);
    assert_int_equal(env->host_mac[0], 0x52);
}

static int host_connect(const struct env *env, int type, uint16_t port)
{
    int fd = socket(AF_INET, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int result = connect(fd, (struct sockaddr *)&address, sizeof(address));
    assert_true(result == 0 || errno == EINPROGRESS);
    return fd;
}

static int open_connection(struct env *env)
{
    find_gateway(env);
    int fd = host_connect(env, SOCK_STREAM, env->tcp_port);
    for (int i = 0; i < 300 && !env->tcp.is_open; i++)
        loop_run_once(env->loop, 10);
    assert_true(env->tcp.is_open);
    return fd;
}

static uint8_t pattern(size_t i)
{
    return (uint8_t)(i * 7 + i / 251);
}

static void host_to_guest(struct env *env, int fd, size_t size_bytes)
{
    uint8_t *bytes = malloc(size_bytes);
    for (size_t i = 0; i < size_bytes; i++)
        bytes[i] = pattern(i);
    size_t sent = 0;
    env->received_bytes = 0;
    for (int i = 0; i < 20000 && env->received_bytes < size_bytes; i++) {
        ssize_t n = sent < size_bytes ? send(fd, bytes + sent, size_bytes - sent, MSG_NOSIGNAL) : 0;
        sent += n > 0 ? (size_t)n : 0;
        loop_run_once(env->loop, 5);
        env->net.resume(env->net.opaque);
    }
    assert_int_equal(env->received_bytes, size_bytes);
    assert_memory_equal(env->received, bytes, size_bytes);
    free(bytes);
}

static void guest_to_host(struct env *env, int fd, size_t size_bytes, size_t segment_bytes)
{
    uint8_t *bytes = malloc(size_bytes), *back = malloc(size_bytes);
    for (size_t i = 0; i < size_bytes; i++)
        bytes[i] = pattern(i + 3);
    size_t sent = 0, have = 0;
    uint32_t first = env->tcp.send_next;
    env->tcp.acked = first;
    for (int i = 0; i < 20000 && have < size_bytes; i++) {
        size_t acked = env->tcp.acked - first;
        size_t step = size_bytes - sent < segment_bytes ? size_bytes - sent : segment_bytes;
        if (step && acked + env->tcp.window >= sent + step) {
            send_tcp(env, ACK, bytes + sent, step, false);
            sent += step;
        }
        loop_run_once(env->loop, 1);
        ssize_t n = recv(fd, back + have, size_bytes - have, 0);
        have += n > 0 ? (size_t)n : 0;
    }
    assert_int_equal(have, size_bytes);
    assert_memory_equal(back, bytes, size_bytes);
    free(bytes);
    free(back);
}

/* ---- tests ---- */

static void send_dhcp(struct env *env, uint8_t type, uint32_t requested)
{
    uint8_t bootp[300] = {1, 1, 6, 0, 0x12, 0x34, 0x56, 0x78};
    memcpy(bootp + 28, guest_mac, 6);
    memcpy(bootp + 236, "\x63\x82\x53\x63\x35\1", 6);
    bootp[242] = type;
    bootp[243] = 50;
    bootp[244] = 4;
    put32(bootp + 245, requested);
    bootp[249] = 255;
    env->dhcp_type = 0;
    send_udp(env, 0, 0xffffffff, 68, 67, bootp, sizeof(bootp));
    for (int i = 0; i < 100 && !env->dhcp_type; i++)
        loop_run_once(env->loop, 10);
}

static void test_dhcp(void **state)
{
    struct env *env = *state;
    send_dhcp(env, 1, GUEST_IP);
    assert_int_equal(env->dhcp_type, 2);
    assert_int_equal(env->offered_ip, GUEST_IP);
    send_dhcp(env, 3, env->offered_ip);
    assert_int_equal(env->dhcp_type, 5);
    assert_int_equal(env->offered_ip, GUEST_IP);
    find_gateway(env);
}

static void test_tcp_plain(void **state)
{
    struct env *env = *state;
    int fd = open_connection(env);
    host_to_guest(env, fd, 100000);
    assert_int_equal(env->gso_frames, 0);
    guest_to_host(env, fd, 100000, 1460);
    close(fd);
    for (int i = 0; i < 100 && !env->tcp.peer_finished; i++)
        loop_run_once(env->loop, 10);
    assert_true(env->tcp.peer_finished);
}

static void test_tcp_offloads(void **state)
{
    struct env *env = *state;
    struct net_guest_features features = {true, true, true};
    env->net.set_guest_features(env->net.opaque, &features);
    int fd = open_connection(env);
    env->frame_count = 0;
    host_to_guest(env, fd, BULK);
    assert_true(env->gso_frames > 0);
    assert_true(env->frame_count < BULK / 1460 / 4);
    guest_to_host(env, fd, 180000, 60000);
    /* The driver goes and one that cannot do so much comes: what is large is cut. */
    features = (struct net_guest_features){0};
    env->net.set_guest_features(env->net.opaque, &features);
    env->gso_frames = 0;
    host_to_guest(env, fd, 100000);
    assert_int_equal(env->gso_frames, 0);
    close(fd);
}

static void test_no_room(void **state)
{
    struct env *env = *state;
    int fd = open_connection(env);
    env->refuse = 40;
    host_to_guest(env, fd, 100000);
    assert_int_equal(env->refuse, 0);
    close(fd);
}

static void test_udp(void **state)
{
    struct env *env = *state;
    uint8_t data[3000], back[100];
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = pattern(i);
    find_gateway(env);
    int fd = host_connect(env, SOCK_DGRAM, env->udp_port);
    assert_int_equal(send(fd, data, 50, 0), 50);
    for (int i = 0; i < 300 && !env->udp_bytes; i++)
        loop_run_once(env->loop, 10);
    assert_int_equal(env->udp_bytes, 58);
    assert_memory_equal(env->udp + 8, data, 50);
    assert_int_equal(get16(env->udp + 2), 7);
    send_udp(env, GUEST_IP, HOST_IP, 7, (uint16_t)get16(env->udp), "answer", 6);
    ssize_t n = -1;
    for (int i = 0; i < 300 && n < 0; i++) {
        loop_run_once(env->loop, 10);
        n = recv(fd, back, sizeof(back), 0);
    }
    assert_int_equal(n, 6);
    assert_memory_equal(back, "answer", 6);
    /* One that does not fit a frame comes in pieces that do. */
    env->udp_bytes = 0;
    assert_int_equal(send(fd, data, sizeof(data), 0), sizeof(data));
    for (int i = 0; i < 300 && !env->udp_bytes; i++)
        loop_run_once(env->loop, 10);
    assert_int_equal(env->udp_bytes, sizeof(data) + 8);
    assert_int_equal(env->udp_fragments, 3);
    assert_memory_equal(env->udp + 8, data, sizeof(data));
    close(fd);
}

/* Marks and headers that lie: dropped or harmless, and the network still works. */
static void test_hostile_frames(void **state)
{
    struct env *env = *state;
    find_gateway(env);
    uint8_t frame[200];
    static const struct net_offload marks[] = {
        {.needs_checksum = true, .checksum_start = 199, .checksum_offset = 0},
        {.needs_checksum = true, .checksum_start = 65535, .checksum_offset = 65535},
        {.needs_checksum = true, .checksum_start = 0, .checksum_offset = 199},
        {.gso = NET_GSO_TCPV4, .segment_bytes = 0},
        {.gso = NET_GSO_TCPV6, .segment_bytes = 1},
        {.gso = NET_GSO_UDP},
        {.gso = 200},
        {0},
    };
    for (unsigned round = 0; round < 2000; round++) {
        for (size_t i = 0; i < sizeof(frame); i++)
            frame[i] = (uint8_t)(rand() >> 8);
        ethernet(frame, env->host_mac, round & 1 ? 0x0800 : 0x86dd);
        frame[14] = round & 1 ? (round & 2 ? 0x45 : 0x4f) : 0x60;
        if (round & 4)
            frame[round & 1 ? 23 : 20] = 6;
        size_t size_bytes = 14 + (round / 8) % 186;
        send_frame(env, frame, size_bytes, &marks[round % 8]);
    }
    int fd = open_connection(env);
    close(fd);
}

/* The guest fetches a file from 10.0.2.2, with checksums made by itself or left to the card, and
 * the answer in large packets or not. */
static void fetch(struct env *env, bool has_offloads)
{
    static const char request[] = "GET /file HTTP/1.0\r\n\r\n";
    const struct net_guest_features features = {
        .checksum = has_offloads, .tso4 = has_offloads, .tso6 = has_offloads};
    env->net.set_guest_features(env->net.opaque, &features);
    env->received_bytes = env->gso_frames = 0;
    env->tcp =
        (struct tcp){.active_port = has_offloads ? 4001 : 4000, .peer_port = 80, .send_next = 5000};
    find_gateway(env);
    send_tcp(env, SYN, NULL, 0, !has_offloads);
    for (int i = 0; i < 300 && !env->tcp.is_open; i++)
        loop_run_once(env->loop, 10);
    assert_true(env->tcp.is_open);
    send_tcp(env, ACK, (const uint8_t *)request, sizeof(request) - 1, !has_offloads);
    for (int i = 0; i < 3000 && !env->tcp.peer_finished; i++)
        loop_run_once(env->loop, 10);
    assert_true(env->tcp.peer_finished);
    assert_true(env->received_bytes > HTTP_BYTES);
    assert_memory_equal(env->received, "HTTP/1.1 200", 12);
    const uint8_t *body = env->received + env->received_bytes - HTTP_BYTES;
    for (size_t i = 0; i < HTTP_BYTES; i++)
        assert_int_equal(body[i], pattern(i));
    assert_int_equal(env->gso_frames > 0, has_offloads);
    send_tcp(env, FIN | ACK, NULL, 0, !has_offloads);
    for (int i = 0; i < 10; i++)
        loop_run_once(env->loop, 10);
}

static void test_http(void **state)
{
    struct env *env = *state;
    struct error err = {0};
    char folder[] = "/tmp/skep-test-XXXXXX", path[64];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/file", folder);
    FILE *file = fopen(path, "we");
    for (size_t i = 0; i < HTTP_BYTES; i++)
        fputc(pattern(i), file);
    fclose(file);
    env->net.close(env->net.opaque);
    struct slirp_config config = {.http = folder};
    bool is_open = slirp_open(&config, env->loop, &env->net, &err);
    if (is_open) {
        const struct net_receiver receiver = {receive, env};
        env->net.set_receiver(env->net.opaque, &receiver);
        fetch(env, false);
        fetch(env, true);
    } else {
        config.http = NULL;
        assert_true(slirp_open(&config, env->loop, &env->net, NULL));
    }
    unlink(path);
    rmdir(folder);
    if (!is_open && strstr(err.cause, "without libmicrohttpd"))
        skip();
    assert_true(is_open);
}

static void expect_boot(struct env *env, const struct slirp_config *config, const char *file,
                        const char *answer_class)
{
    const struct net_receiver receiver = {receive, env};
    struct error err = {0};
    env->net.close(env->net.opaque);
    if (!slirp_open(config, env->loop, &env->net, &err)) {
        const struct slirp_config plain = {0};
        assert_true(slirp_open(&plain, env->loop, &env->net, NULL)); /* for teardown() */
        if (strstr(err.cause, "without libmicrohttpd"))
            skip();
        fail_msg("%s %s: %s", err.what, err.where, err.cause);
    }
    env->net.set_receiver(env->net.opaque, &receiver);
    for (uint8_t type = 1; type <= 3; type += 2) {
        send_dhcp(env, type, GUEST_IP);
        assert_int_equal(env->dhcp_type, type == 1 ? 2 : 5);
        assert_string_equal(env->dhcp_file, file);
        assert_string_equal(env->dhcp_class, answer_class);
    }
}

/* A boot file by TFTP as it is, by HTTP as a URL, with what UEFI's HTTP boot wants to be told. */
static void test_boot_file(void **state)
{
    static const char far[] = "http://192.0.2.1/boot.efi";
    static const char prefix[] = "http://10.0.2.2/";
    char name[128], url[sizeof(prefix) + sizeof(name)];
    struct env *env = *state;
    struct slirp_config config = {.tftp = "/", .bootfile = "boot.efi"};
    expect_boot(env, &config, "boot.efi", "");
    config.bootfile = far;
    expect_boot(env, &config, far, "HTTPClient");
    config = (struct slirp_config){.http = "/", .bootfile = "//folder/boot.efi"};
    expect_boot(env, &config, "http://10.0.2.2/folder/boot.efi", "HTTPClient");
    memset(name, 'a', sizeof(name));
    name[sizeof(name) - sizeof(prefix)] = '\0';
    snprintf(url, sizeof(url), "%s%s", prefix, name);
    config.bootfile = name;
    expect_boot(env, &config, url, "HTTPClient");
    struct error err = {0};
    struct net_backend net;
    name[strlen(name)] = 'a';
    name[sizeof(name) - sizeof(prefix) + 1] = '\0';
    assert_false(slirp_open(&config, env->loop, &net, &err));
    assert_int_equal(err.kind, ERROR_USAGE);
    assert_non_null(strstr(err.cause, "too long"));
}

static void must_fail(struct env *env, const struct slirp_forward *forward, enum error_kind kind,
                      const char *where, const char *cause, const char *hint)
{
    struct slirp_config config = {.forwards = forward, .forward_count = 1};
    struct error err = {0};
    struct net_backend net;
    assert_false(slirp_open(&config, env->loop, &net, &err));
    assert_int_equal(err.kind, kind);
    if (!strstr(err.where, where) || !strstr(err.cause, cause) || !strstr(err.hint, hint))
        fail_msg("%s: %s (%s)", err.where, err.cause, err.hint);
}

static void test_ports(void **state)
{
    struct env *env = *state;
    char port[16];
    for (int is_udp = 0; is_udp < 2; is_udp++) {
        uint16_t number = is_udp ? env->udp_port : env->tcp_port;
        struct slirp_forward forward = {is_udp, NULL, number, 22};
        snprintf(port, sizeof(port), "%u", number);
        must_fail(env, &forward, ERROR_FAILED, port, "in use", "another host port");
    }
    struct slirp_forward strange = {false, "192.0.2.77", 12345, 22};
    must_fail(env, &strange, ERROR_FAILED, "192.0.2.77:12345", "", "ip addr");
    struct slirp_forward wrong = {false, "localhost.", 12345, 22};
    must_fail(env, &wrong, ERROR_USAGE, "localhost.", "IPv4", "127.0.0.1");
    struct slirp_forward zero = {false, NULL, 0, 22};
    must_fail(env, &zero, ERROR_USAGE, "127.0.0.1", "port 0", "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_dhcp, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tcp_plain, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tcp_offloads, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_room, setup, teardown),
        cmocka_unit_test_setup_teardown(test_udp, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hostile_frames, setup, teardown),
        cmocka_unit_test_setup_teardown(test_http, setup, teardown),
        cmocka_unit_test_setup_teardown(test_boot_file, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ports, setup, teardown),
    };
    return cmocka_run_group_tests_name("slirp", tests, NULL, NULL);
}
