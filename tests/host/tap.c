/* SPDX-License-Identifier: BSD-2-Clause
 * A tap interface in a network namespace of its own, which nothing leaves; a packet socket on it
 * plays the network. Needs the right to make one: skipped without. */
#include "host/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

enum { ETHERTYPE = 0x88b5 }; /* for experiments */

struct env {
    struct loop *loop;
    struct net_backend net;
    uint8_t got[2000];
    size_t got_bytes;
    unsigned count;
    bool has_room;
};

static bool receive(void *opaque, const struct iovec *iov, unsigned iov_count,
                    const struct net_offload *offload)
{
    struct env *env = opaque;
    assert_int_equal(iov_count, 1);
    const uint8_t *frame = iov[0].iov_base;
    if (iov[0].iov_len < 60 || frame[12] != ETHERTYPE >> 8)
        return true; /* the kernel's own */
    if (!env->has_room)
        return false;
    assert_true(iov[0].iov_len <= sizeof(env->got));
    memcpy(env->got, iov[0].iov_base, iov[0].iov_len);
    env->got_bytes = iov[0].iov_len;
    env->count++;
    return true;
}

static bool may_make_taps(void)
{
    if (unshare(CLONE_NEWNET) != 0)
        return false;
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return false;
    close(fd);
    return true;
}

static int setup(void **state)
{
    struct env *env = calloc(1, sizeof(*env));
    env->loop = loop_create(NULL);
    env->has_room = true;
    *state = env;
    return 0;
}

static int teardown(void **state)
{
    struct env *env = *state;
    loop_destroy(env->loop);
    free(env);
    return 0;
}

static void bring_up(const char *name)
{
    struct ifreq request = {0};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    strcpy(request.ifr_name, name);
    request.ifr_flags = IFF_UP;
    assert_int_equal(ioctl(fd, SIOCSIFFLAGS, &request), 0);
    close(fd);
}

static int packet_socket(const char *name)
{
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK,
                    (ETHERTYPE & 0xff) << 8 | ETHERTYPE >> 8);
    struct sockaddr_ll address = {.sll_family = AF_PACKET,
                                  .sll_protocol = (ETHERTYPE & 0xff) << 8 | ETHERTYPE >> 8,
                                  .sll_ifindex = (int)if_nametoindex(name)};
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

static void make_frame(uint8_t *frame, size_t size_bytes, uint8_t seed)
{
    for (size_t i = 0; i < size_bytes; i++)
        frame[i] = (uint8_t)(i + seed);
    memset(frame, 0xff, 6);
    memcpy(frame + 6, "\x52\x54\0\1\2\3\x88\xb5", 8);
}

static void run_until(struct env *env, unsigned count)
{
    for (int i = 0; i < 200 && env->count < count; i++)
        loop_run_once(env->loop, 10);
    assert_int_equal(env->count, count);
}

static void check_traffic(struct env *env, const char *name)
{
    struct net_receiver receiver = {receive, env};
    uint8_t frame[1000], back[2000];
    env->net.set_receiver(env->net.opaque, &receiver);
    bring_up(name);
    int fd = packet_socket(name);
    make_frame(frame, sizeof(frame), 1);
    assert_int_equal(send(fd, frame, sizeof(frame), 0), sizeof(frame));
    run_until(env, 1);
    assert_int_equal(env->got_bytes, sizeof(frame));
    assert_memory_equal(env->got, frame, sizeof(frame));

    make_frame(frame, sizeof(frame), 2);
    struct iovec iov[200];
    for (unsigned i = 0; i < 200; i++)
        iov[i] = (struct iovec){frame + 5 * i, 5};
    static const struct net_offload none;
    for (unsigned pass = 0; pass < 2; pass++) { /* few pieces, and more than go directly */
        struct iovec two[2] = {{frame, 20}, {frame + 20, sizeof(frame) - 20}};
        env->net.send(env->net.opaque, pass ? iov : two, pass ? 200 : 2, &none);
        ssize_t n = -1;
        for (int i = 0; i < 100 && n != (ssize_t)sizeof(frame); i++) {
            loop_run_once(env->loop, 5);
            n = recv(fd, back, sizeof(back), 0);
        }
        assert_int_equal(n, sizeof(frame));
        assert_memory_equal(back, frame, sizeof(frame));
    }
    /* No room: kept, and the next ones behind it, in order. */
    env->has_room = false;
    for (uint8_t i = 0; i < 5; i++) {
        make_frame(frame, 100, i);
        assert_int_equal(send(fd, frame, 100, 0), 100);
    }
    for (int i = 0; i < 10; i++)
        loop_run_once(env->loop, 5);
    env->net.resume(env->net.opaque);
    assert_int_equal(env->count, 1);
    env->has_room = true;
    env->net.resume(env->net.opaque);
    make_frame(frame, 100, 0);
    assert_memory_equal(env->got, frame, 100);
    run_until(env, 6);
    make_frame(frame, 100, 4);
    assert_memory_equal(env->got, frame, 100);
    close(fd);
}

static void test_by_name(void **state)
{
    struct env *env = *state;
    struct error err = {0};
    if (!may_make_taps())
        skip();
    struct tap_config config = {.name = "skep0"};
    if (!tap_open(&config, env->loop, &env->net, &err))
        fail_msg("%s %s: %s", err.what, err.where, err.cause);
    assert_true(env->net.offers_offloads);
    assert_int_equal(env->net.mtu_bytes, 1500);
    struct net_guest_features features = {true, true, true};
    env->net.set_guest_features(env->net.opaque, &features);
    check_traffic(env, "skep0");
    /* A second user of the same one. */
    struct net_backend second;
    assert_false(tap_open(&config, env->loop, &second, &err));
    assert_non_null(strstr(err.cause, "in use"));
    assert_true(err.hint[0]);
    env->net.close(env->net.opaque);
    config.name = "lo";
    assert_false(tap_open(&config, env->loop, &second, &err));
    assert_non_null(strstr(err.cause, "no tap"));
}

static void test_by_descriptor(void **state)
{
    struct env *env = *state;
    struct error err = {0};
    if (!may_make_taps())
        skip();
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    struct ifreq request = {.ifr_name = "skep1", .ifr_flags = IFF_TAP | IFF_NO_PI};
    assert_int_equal(ioctl(fd, TUNSETIFF, &request), 0);
    struct tap_config config = {.fd = fd};
    assert_true(tap_open(&config, env->loop, &env->net, &err));
    assert_false(env->net.offers_offloads); /* it was made without the header */
    check_traffic(env, "skep1");
    env->net.close(env->net.opaque);
}

static void test_wrong_ones(void **state)
{
    struct env *env = *state;
    struct error err = {0};
    static const char *const names[] = {"", "much-too-long-for-one", "a/b", "a b", "x%d"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        struct tap_config config = {.name = names[i]};
        assert_false(tap_open(&config, env->loop, &env->net, &err));
        assert_int_equal(err.kind, ERROR_USAGE);
        assert_true(err.hint[0]);
    }
    struct tap_config config = {.fd = open("/dev/null", O_RDWR | O_CLOEXEC)};
    assert_false(tap_open(&config, env->loop, &env->net, &err));
    assert_int_equal(err.kind, ERROR_USAGE);
    assert_non_null(strstr(err.cause, "no tap"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_wrong_ones, setup, teardown),
        cmocka_unit_test_setup_teardown(test_by_name, setup, teardown),
        cmocka_unit_test_setup_teardown(test_by_descriptor, setup, teardown),
    };
    return cmocka_run_group_tests_name("tap", tests, NULL, NULL);
}
