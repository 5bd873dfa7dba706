/* SPDX-License-Identifier: BSD-2-Clause
 * The terminal: raw mode and back, escapes, a slow reader, pipes in place of a terminal. The
 * terminal here is a pty whose master plays the person. */
#include "host/tty.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <cmocka.h>

struct env {
    struct loop *loop;
    int master, slave;
    struct termios before;
    struct char_backend backend;
    struct tty *tty;
    char got[256]; /* what the device received */
    size_t got_bytes, room;
    char keys[16]; /* escapes */
    unsigned key_count, writable_count;
};

/* All that the kernel knows of a mode (glibc's struct has more). */
static void assert_same_mode(const struct termios *a, const struct termios *b)
{
    assert_int_equal(a->c_iflag, b->c_iflag);
    assert_int_equal(a->c_oflag, b->c_oflag);
    assert_int_equal(a->c_cflag, b->c_cflag);
    assert_int_equal(a->c_lflag, b->c_lflag);
    assert_memory_equal(a->c_cc, b->c_cc, 19);
}

static size_t receive(void *opaque, const uint8_t *bytes, size_t size_bytes)
{
    struct env *env = opaque;
    if (size_bytes > env->room)
        size_bytes = env->room;
    assert_true(env->got_bytes + size_bytes <= sizeof(env->got));
    memcpy(env->got + env->got_bytes, bytes, size_bytes);
    env->got_bytes += size_bytes;
    env->room -= size_bytes;
    return size_bytes;
}

static void writable(void *opaque)
{
    struct env *env = opaque;
    env->writable_count++;
}

static void escape(void *opaque, char key)
{
    struct env *env = opaque;
    assert_true(env->key_count < sizeof(env->keys));
    env->keys[env->key_count++] = key;
}

static void must_open(struct env *env, int in_fd, int out_fd)
{
    struct tty_config config = {in_fd, out_fd, escape, env};
    struct error err = {0};
    env->tty = tty_open(&config, env->loop, &env->backend, &err);
    if (!env->tty)
        fail_msg("%s: %s", err.what, err.cause);
    struct char_handler handler = {.receive = receive, .writable = writable, .opaque = env};
    env->backend.set_handler(env->backend.opaque, &handler);
}

static int setup(void **state)
{
    struct env *env = calloc(1, sizeof(*env));
    env->loop = loop_create(NULL);
    env->room = sizeof(env->got);
    struct winsize size = {.ws_row = 33, .ws_col = 111};
    assert_int_equal(openpty(&env->master, &env->slave, NULL, NULL, &size), 0);
    assert_int_equal(tcgetattr(env->slave, &env->before), 0);
    *state = env;
    return 0;
}

static int teardown(void **state)
{
    struct env *env = *state;
    if (env->tty)
        env->backend.close(env->backend.opaque);
    struct termios after;
    assert_int_equal(tcgetattr(env->slave, &after), 0);
    assert_same_mode(&after, &env->before);
    close(env->master);
    close(env->slave);
    loop_destroy(env->loop);
    free(env);
    return 0;
}

static void run_until_got(struct env *env, size_t size_bytes)
{
    for (unsigned i = 0; i < 500 && env->got_bytes < size_bytes; i++)
        loop_run_once(env->loop, 10);
    assert_int_equal(env->got_bytes, size_bytes);
}

/* Reads `size_bytes` from the person's side while the loop runs. */
static void read_exactly(struct env *env, int fd, char *bytes, size_t size_bytes)
{
    for (size_t have = 0; have < size_bytes;) {
        loop_run_once(env->loop, 0);
        struct pollfd pollfd = {.fd = fd, .events = POLLIN};
        if (poll(&pollfd, 1, 10) <= 0)
            continue;
        ssize_t n = read(fd, bytes + have, size_bytes - have);
        assert_true(n > 0);
        have += (size_t)n;
    }
}

static void test_raw_and_back(void **state)
{
    struct env *env = *state;
    must_open(env, env->slave, env->slave);
    assert_true(tty_is_raw(env->tty));
    struct termios now;
    assert_int_equal(tcgetattr(env->slave, &now), 0);
    assert_int_equal(now.c_lflag & (ICANON | ECHO | ISIG), 0);
    assert_int_equal(now.c_oflag & OPOST, 0);
    assert_int_equal(fcntl(env->slave, F_GETFL) & O_NONBLOCK, 0); /* the shell's are left alone */

    tty_restore(env->tty);
    assert_int_equal(tcgetattr(env->slave, &now), 0);
    assert_same_mode(&now, &env->before);
    tty_resume(env->tty);
    assert_int_equal(tcgetattr(env->slave, &now), 0);
    assert_int_equal(now.c_lflag & ICANON, 0);

    unsigned columns, rows;
    assert_true(tty_size(env->tty, &columns, &rows));
    assert_int_equal(columns, 111);
    assert_int_equal(rows, 33);
    /* teardown checks that close restores */
}

static void test_bytes(void **state)
{
    struct env *env = *state;
    must_open(env, env->slave, env->slave);
    assert_int_equal(write(env->master, "ls\r\x03\x1a\x04", 6), 6);
    run_until_got(env, 6);
    assert_memory_equal(env->got, "ls\r\x03\x1a\x04", 6); /* Ctrl-C, Ctrl-Z, Ctrl-D too */
    char back[16];
    assert_int_equal(env->backend.write(env->backend.opaque, (const uint8_t *)"a\nb\r\n", 5), 5);
    read_exactly(env, env->master, back, 5);
    assert_memory_equal(back, "a\nb\r\n", 5);
    tty_print(env->tty, "x\ny\n");
    read_exactly(env, env->master, back, 6);
    assert_memory_equal(back, "x\r\ny\r\n", 6);
}

static void test_escapes(void **state)
{
    struct env *env = *state;
    must_open(env, env->slave, env->slave);
    assert_int_equal(write(env->master,
                           "a\x1dqb\x1d\x1d"
                           "c\x1d",
                           8),
                     8);
    run_until_got(env, 4);
    assert_memory_equal(env->got,
                        "ab\x1d"
                        "c",
                        4);
    assert_int_equal(env->key_count, 1);
    assert_int_equal(env->keys[0], 'q');
    assert_int_equal(write(env->master, "?z", 2), 2); /* the key comes later than its Ctrl-] */
    run_until_got(env, 5);
    assert_int_equal(env->got[4], 'z');
    assert_int_equal(env->key_count, 2);
    assert_int_equal(env->keys[1], '?');
}

static void test_device_without_room(void **state)
{
    struct env *env = *state;
    env->room = 2;
    must_open(env, env->slave, env->slave);
    assert_int_equal(write(env->master, "hello", 5), 5);
    run_until_got(env, 2);
    for (int i = 0; i < 5; i++)
        loop_run_once(env->loop, 1);
    assert_int_equal(env->got_bytes, 2);
    env->room = 100;
    env->backend.accept(env->backend.opaque);
    run_until_got(env, 5);
    assert_memory_equal(env->got, "hello", 5);
}

/* The guest hangs: what is typed is kept as far as there is room, and escapes work all the same. */
static void test_escape_from_hung_guest(void **state)
{
    struct env *env = *state;
    char typed[1000];
    env->room = 0;
    must_open(env, env->slave, env->slave);
    memset(typed, 'x', sizeof(typed));
    for (int i = 0; i < 10; i++) {
        assert_int_equal(write(env->master, typed, sizeof(typed)), sizeof(typed));
        loop_run_once(env->loop, 5);
    }
    assert_int_equal(write(env->master, "\x1dq", 2), 2);
    for (int i = 0; i < 100 && env->key_count == 0; i++)
        loop_run_once(env->loop, 5);
    assert_int_equal(env->key_count, 1);
    assert_int_equal(env->keys[0], 'q');
    env->room = 100;
    env->backend.accept(env->backend.opaque);
    run_until_got(env, 100);
    assert_memory_equal(env->got, typed, 100);
}

/* The person does not read: write() takes what fits and no more, the loop does not block, and
 * nothing is lost. */
static void test_slow_reader(void **state)
{
    struct env *env = *state;
    must_open(env, env->slave, env->slave);
    uint8_t *bytes = malloc(300000);
    char *back = malloc(300000);
    for (size_t i = 0; i < 300000; i++)
        bytes[i] = (uint8_t)(i * 31 + i / 256);
    size_t sent = 0;
    for (unsigned i = 0; i < 20; i++) {
        sent += env->backend.write(env->backend.opaque, bytes + sent, 300000 - sent);
        loop_run_once(env->loop, 1);
    }
    assert_true(sent < 300000);
    assert_int_equal(env->writable_count, 0);
    size_t have = 0;
    while (have < 300000) {
        size_t step = sent - have < 1000 ? sent - have : 1000;
        read_exactly(env, env->master, back + have, step);
        have += step;
        if (env->writable_count) {
            env->writable_count = 0;
            sent += env->backend.write(env->backend.opaque, bytes + sent, 300000 - sent);
        }
    }
    assert_memory_equal(bytes, back, 300000);
    free(bytes);
    free(back);
}

static void test_pipes(void **state)
{
    struct env *env = *state;
    int in[2], out[2];
    assert_int_equal(pipe(in), 0);
    assert_int_equal(pipe(out), 0);
    must_open(env, in[0], out[1]);
    assert_false(tty_is_raw(env->tty));
    assert_int_equal(write(in[1], "one\n\x1dq", 6), 6);
    run_until_got(env, 6); /* no escape where there is no terminal */
    assert_memory_equal(env->got, "one\n\x1dq", 6);
    assert_int_equal(env->key_count, 0);
    close(in[1]); /* the end of the input ends nothing else */
    for (int i = 0; i < 5; i++)
        loop_run_once(env->loop, 1);
    char back[4];
    assert_int_equal(env->backend.write(env->backend.opaque, (const uint8_t *)"two\n", 4), 4);
    read_exactly(env, out[0], back, 4);
    assert_memory_equal(back, "two\n", 4);
    close(out[0]); /* nor does a reader that goes away */
    for (int i = 0; i < 5; i++) {
        assert_int_equal(env->backend.write(env->backend.opaque, (const uint8_t *)"x", 1), 1);
        loop_run_once(env->loop, 1);
    }
    close(in[0]);
    close(out[1]);
}

static void test_file_and_null(void **state)
{
    struct env *env = *state;
    char path[] = "/tmp/skep-tty-XXXXXX";
    int out = mkstemp(path), in = open("/dev/null", O_RDONLY);
    assert_int_equal(write(out, "before ", 7), 7);
    must_open(env, in, out);
    assert_int_equal(env->backend.write(env->backend.opaque, (const uint8_t *)"after", 5), 5);
    env->backend.close(env->backend.opaque); /* sends what it holds */
    env->tty = NULL;
    char back[16];
    assert_int_equal(pread(out, back, sizeof(back), 0), 12);
    assert_memory_equal(back, "before after", 12);
    close(in);
    close(out);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_raw_and_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_escapes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_device_without_room, setup, teardown),
        cmocka_unit_test_setup_teardown(test_escape_from_hung_guest, setup, teardown),
        cmocka_unit_test_setup_teardown(test_slow_reader, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pipes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_file_and_null, setup, teardown),
    };
    return cmocka_run_group_tests_name("tty", tests, NULL, NULL);
}
