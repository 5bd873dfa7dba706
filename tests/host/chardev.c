/* SPDX-License-Identifier: BSD-2-Clause
 * Character back ends by name: each kind both ways, peers that come and go, slow ones, and specs
 * and places that do not work. */
#include "host/chardev.h"
#include "host/char_log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <pty.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include <cmocka.h>

struct env {
    struct loop *loop;
    char dir[64], path[128], spec[160];
    struct char_backend backend;
    struct chardev *chardev;
    char got[256];
    size_t got_bytes;
    unsigned writable_count, came, went;
};

static int setup(void **state)
{
    struct env *env = calloc(1, sizeof(*env));
    env->loop = loop_create(NULL);
    strcpy(env->dir, "/tmp/skep-char-XXXXXX");
    assert_non_null(mkdtemp(env->dir));
    snprintf(env->path, sizeof(env->path), "%s/x", env->dir);
    *state = env;
    return 0;
}

static void close_backend(struct env *env)
{
    if (env->chardev)
        env->backend.close(env->backend.opaque);
    env->chardev = NULL;
}

static int teardown(void **state)
{
    struct env *env = *state;
    close_backend(env);
    loop_destroy(env->loop);
    unlink(env->path);
    assert_int_equal(rmdir(env->dir), 0); /* nothing is left behind */
    free(env);
    return 0;
}

static size_t receive(void *opaque, const uint8_t *bytes, size_t size_bytes)
{
    struct env *env = opaque;
    assert_true(env->got_bytes + size_bytes <= sizeof(env->got));
    memcpy(env->got + env->got_bytes, bytes, size_bytes);
    env->got_bytes += size_bytes;
    return size_bytes;
}

static void writable(void *opaque)
{
    ((struct env *)opaque)->writable_count++;
}

static void connected(void *opaque, bool is_connected)
{
    struct env *env = opaque;
    if (is_connected)
        env->came++;
    else
        env->went++;
}

static void must_open(struct env *env, const char *format, const char *argument)
{
    snprintf(env->spec, sizeof(env->spec), format, argument);
    struct chardev_config config = {.spec = env->spec};
    struct error err = {0};
    env->chardev = chardev_open(&config, env->loop, &env->backend, &err);
    if (!env->chardev)
        fail_msg("%s %s: %s", err.what, err.where, err.cause);
    struct char_handler handler = {receive, writable, connected, NULL, env};
    env->backend.set_handler(env->backend.opaque, &handler);
}

static void must_fail(struct env *env, const char *spec, enum error_kind kind, const char *cause,
                      const char *hint)
{
    struct chardev_config config = {.spec = spec};
    struct error err = {0};
    struct char_backend backend;
    assert_null(chardev_open(&config, env->loop, &backend, &err));
    if (err.kind != kind || !strstr(err.cause, cause) || !strstr(err.hint, hint))
        fail_msg("%s: kind %d, %s %s: %s (%s)", spec, err.kind, err.what, err.where, err.cause,
                 err.hint);
}

static size_t put(struct env *env, const char *text)
{
    return env->backend.write(env->backend.opaque, (const uint8_t *)text, strlen(text));
}

static void turn(struct env *env, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        loop_run_once(env->loop, 5);
}

static void read_exactly(struct env *env, int fd, char *bytes, size_t size_bytes)
{
    size_t have = 0;
    for (unsigned i = 0; have < size_bytes && i < 1000; i++) {
        loop_run_once(env->loop, 0);
        struct pollfd pollfd = {.fd = fd, .events = POLLIN};
        if (poll(&pollfd, 1, 5) <= 0)
            continue;
        ssize_t n = read(fd, bytes + have, size_bytes - have);
        assert_true(n > 0);
        have += (size_t)n;
    }
    assert_int_equal(have, size_bytes);
}

/* Both ways over `fd`. */
static void check_both_ways(struct env *env, int fd)
{
    char back[8];
    env->got_bytes = 0;
    assert_int_equal(write(fd, "hello\n", 6), 6);
    for (unsigned i = 0; i < 200 && env->got_bytes < 6; i++)
        loop_run_once(env->loop, 5);
    assert_int_equal(env->got_bytes, 6);
    assert_memory_equal(env->got, "hello\n", 6);
    assert_int_equal(put(env, "world\r\n"), 7);
    read_exactly(env, fd, back, 7);
    assert_memory_equal(back, "world\r\n", 7);
}

static void wait_connected(struct env *env, bool wanted)
{
    for (unsigned i = 0; i < 400; i++) {
        if (env->backend.is_connected(env->backend.opaque) == wanted)
            return;
        loop_run_once(env->loop, 5);
    }
    fail_msg("connected is not %d", wanted);
}

static void test_null(void **state)
{
    struct env *env = *state;
    must_open(env, "null%s", "");
    for (int i = 0; i < 100000; i++)
        assert_int_equal(put(env, "0123456789"), 10);
    assert_null(chardev_path(env->chardev));
}

static void check_file(const struct env *env, const char *text)
{
    char bytes[64] = {0};
    int fd = open(env->path, O_RDONLY | O_CLOEXEC);
    assert_int_equal(read(fd, bytes, sizeof(bytes) - 1), strlen(text));
    assert_string_equal(bytes, text);
    close(fd);
}

static void test_file(void **state)
{
    struct env *env = *state;
    must_open(env, "file:%s", env->path);
    assert_int_equal(put(env, "first\n"), 6);
    close_backend(env); /* what is held is written */
    check_file(env, "first\n");
    must_open(env, "file:%s,append", env->path);
    assert_int_equal(put(env, "second\n"), 7);
    turn(env, 2);
    check_file(env, "first\nsecond\n");
    close_backend(env);
    must_open(env, "file:%s", env->path);
    close_backend(env);
    check_file(env, "");
}

/* A file that may not grow takes what it can; the process does not die of SIGXFSZ. */
static void test_file_limit(void **state)
{
    struct env *env = *state;
    struct rlimit old;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    const struct rlimit small = {8, old.rlim_max};
    must_open(env, "file:%s", env->path);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    for (unsigned i = 0; i < 4; i++) {
        put(env, "first\n");
        turn(env, 2);
    }
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    close_backend(env);
    check_file(env, "first\nfi");
}

static void test_pipe_pair(void **state)
{
    struct env *env = *state;
    char in_path[160], out_path[160], back[4];
    snprintf(in_path, sizeof(in_path), "%s.in", env->path);
    snprintf(out_path, sizeof(out_path), "%s.out", env->path);
    assert_int_equal(mkfifo(in_path, 0600), 0);
    assert_int_equal(mkfifo(out_path, 0600), 0);
    must_open(env, "pipe:%s", env->path);
    assert_int_equal(put(env, "boot"), 4); /* before anyone reads */
    turn(env, 2);
    for (int i = 0; i < 2; i++) { /* peers come and go */
        int in = open(in_path, O_WRONLY | O_CLOEXEC), out = open(out_path, O_RDONLY | O_CLOEXEC);
        read_exactly(env, out, back, 4);
        assert_memory_equal(back, "boot", 4);
        assert_int_equal(write(in, "abc", 3), 3);
        env->got_bytes = 0;
        turn(env, 3);
        assert_int_equal(env->got_bytes, 3);
        close(in);
        close(out);
        turn(env, 2);
        assert_int_equal(put(env, "boot"), 4);
    }
    unlink(in_path);
    unlink(out_path);
}

static void test_pty(void **state)
{
    struct env *env = *state;
    must_open(env, "pty%s", "");
    const char *path = chardev_path(env->chardev);
    assert_non_null(path);
    assert_int_equal(strncmp(path, "/dev/pts/", 9), 0);
    assert_false(env->backend.is_connected(env->backend.opaque));
    for (int i = 0; i < 20000; i++) /* nobody is there: dropped, and nothing stalls */
        assert_int_equal(put(env, "0123456789"), 10);
    turn(env, 3);
    for (unsigned round = 1; round <= 2; round++) {
        int fd = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
        assert_true(fd >= 0);
        struct termios mode;
        assert_int_equal(tcgetattr(fd, &mode), 0);
        assert_int_equal(mode.c_lflag & (ICANON | ECHO), 0);
        wait_connected(env, true);
        assert_int_equal(env->came, round);
        check_both_ways(env, fd);
        close(fd);
        wait_connected(env, false);
        assert_int_equal(env->went, round);
    }
}

/* A terminal that is there: the other side of it is the master of a pty that the test has. */
static void test_tty(void **state)
{
    struct env *env = *state;
    int master, slave;
    char path[64];
    struct termios mode;
    assert_int_equal(openpty(&master, &slave, path, NULL, NULL), 0);
    must_fail(env, "tty:/dev/null", ERROR_FAILED, "not a terminal", "ttyS0");
    must_fail(env, "tty:/no/such/line", ERROR_FAILED, "No such file", "");
    must_open(env, "tty:%s", path);
    assert_int_equal(tcgetattr(slave, &mode), 0);
    assert_int_equal(mode.c_lflag & (ICANON | ECHO), 0);
    assert_true(env->backend.is_connected(env->backend.opaque));
    check_both_ways(env, master);
    close_backend(env);
    close(master);
    close(slave);
}

/* What is written goes both ways, what comes only to the device; the file grows. */
static void test_log(void **state)
{
    struct env *env = *state;
    struct error err = {0};
    char log[80], text[64] = "";
    snprintf(log, sizeof(log), "%s/log", env->dir);
    for (unsigned round = 1; round <= 2; round++) {
        must_open(env, "null%s", "");
        assert_true(char_log_open(&env->backend, log, &err));
        assert_int_equal(put(env, "first "), 6);
        assert_int_equal(put(env, "second "), 7);
        close_backend(env);
    }
    FILE *file = fopen(log, "re");
    assert_non_null(file);
    assert_non_null(fgets(text, sizeof(text), file));
    fclose(file);
    assert_string_equal(text, "first second first second ");
    unlink(log);
    int master, slave;
    char path[64];
    assert_int_equal(openpty(&master, &slave, path, NULL, NULL), 0);
    must_open(env, "tty:%s", path);
    assert_true(char_log_open(&env->backend, "/dev/null", NULL));
    const struct char_handler handler = {receive, writable, connected, NULL, env};
    env->backend.set_handler(env->backend.opaque, &handler);
    check_both_ways(env, master);
    assert_false(char_log_open(&env->backend, "/no/such/log", &err));
    assert_non_null(strstr(err.cause, "No such file"));
    close_backend(env);
    close(master);
    close(slave);
}

static int connect_unix(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

static void test_unix(void **state)
{
    struct env *env = *state;
    must_open(env, "unix:%s", env->path);
    assert_string_equal(chardev_path(env->chardev), env->path);
    struct stat status;
    assert_int_equal(stat(env->path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    assert_int_equal(put(env, "lost"), 4);
    int first = connect_unix(env->path);
    wait_connected(env, true);
    int second = connect_unix(env->path); /* waits until the first is gone */
    check_both_ways(env, first);
    assert_int_equal(env->came, 1);
    close(first);
    for (unsigned i = 0; i < 200 && env->came < 2; i++)
        loop_run_once(env->loop, 5);
    assert_int_equal(env->went, 1);
    check_both_ways(env, second);

    char spec[160];
    snprintf(spec, sizeof(spec), "unix:%s", env->path);
    must_fail(env, spec, ERROR_FAILED, "in use", "another path");
    close(second);
    close_backend(env);
    assert_int_equal(access(env->path, F_OK), -1);
}

/* What a killed process left is no obstacle; a file that is no socket stays. */
static void test_unix_left_over(void **state)
{
    struct env *env = *state;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, env->path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    close(fd);
    must_open(env, "unix:%s", env->path);
    fd = connect_unix(env->path);
    wait_connected(env, true);
    close(fd);
    close_backend(env);

    fd = open(env->path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    close(fd);
    char spec[160];
    snprintf(spec, sizeof(spec), "unix:%s", env->path);
    must_fail(env, spec, ERROR_FAILED, "in use", "another path");
    assert_int_equal(access(env->path, F_OK), 0);
}

static int connect_tcp(const char *name)
{
    assert_int_equal(strncmp(name, "127.0.0.1:", 10), 0);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)atoi(name + 10)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

static void test_tcp(void **state)
{
    struct env *env = *state;
    must_open(env, "tcp:%s", "0");
    int fd = connect_tcp(chardev_path(env->chardev));
    wait_connected(env, true);
    check_both_ways(env, fd);
    char spec[300];
    snprintf(spec, sizeof(spec), "tcp:%s", chardev_path(env->chardev));
    must_fail(env, spec, ERROR_FAILED, "in use", "another port");

    struct linger reset = {1, 0}; /* a peer that dies is a peer that went */
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    close(fd);
    wait_connected(env, false);
    assert_int_equal(put(env, "lost"), 4);
    fd = connect_tcp(chardev_path(env->chardev));
    wait_connected(env, true);
    check_both_ways(env, fd);
    close(fd);
}

/* A peer that does not read: a bounded buffer, then no room, then all of it in order. */
static void test_slow_peer(void **state)
{
    enum { TOTAL = 1000000 };
    struct env *env = *state;
    must_open(env, "unix:%s", env->path);
    int fd = connect_unix(env->path);
    wait_connected(env, true);
    uint8_t *bytes = malloc(TOTAL);
    char *back = malloc(TOTAL);
    for (size_t i = 0; i < TOTAL; i++)
        bytes[i] = (uint8_t)(i * 13 + i / 257);
    size_t sent = 0, have = 0;
    for (unsigned i = 0; i < 30; i++) {
        sent += env->backend.write(env->backend.opaque, bytes + sent, TOTAL - sent);
        loop_run_once(env->loop, 1);
    }
    assert_true(sent < TOTAL);
    while (have < TOTAL) {
        size_t step = sent - have < 4096 ? sent - have : 4096;
        read_exactly(env, fd, back + have, step);
        have += step;
        if (env->writable_count) {
            env->writable_count = 0;
            sent += env->backend.write(env->backend.opaque, bytes + sent, TOTAL - sent);
        }
    }
    assert_memory_equal(bytes, back, TOTAL);
    /* It goes while there is no room: the device hears that there is some. */
    while (env->backend.write(env->backend.opaque, bytes, 10000) == 10000)
        loop_run_once(env->loop, 0);
    env->writable_count = 0;
    close(fd);
    wait_connected(env, false);
    assert_int_equal(env->writable_count, 1);
    free(bytes);
    free(back);
}

enum { THREAD_BYTES = 1000000 };

static void *write_all(void *opaque)
{
    struct env *env = opaque;
    for (size_t sent = 0; sent < THREAD_BYTES;) {
        uint8_t bytes[777];
        size_t n = THREAD_BYTES - sent < sizeof(bytes) ? THREAD_BYTES - sent : sizeof(bytes);
        for (size_t i = 0; i < n; i++)
            bytes[i] = (uint8_t)((sent + i) * 13 + (sent + i) / 257);
        size_t taken = env->backend.write(env->backend.opaque, bytes, n);
        env->backend.accept(env->backend.opaque);
        sent += taken;
        if (taken < n)
            usleep(100);
    }
    return NULL;
}

/* As from a vCPU's thread, while the loop sends. */
static void test_write_from_thread(void **state)
{
    struct env *env = *state;
    must_open(env, "unix:%s", env->path);
    int fd = connect_unix(env->path);
    wait_connected(env, true);
    pthread_t thread;
    char *back = malloc(THREAD_BYTES);
    assert_int_equal(pthread_create(&thread, NULL, write_all, env), 0);
    for (size_t have = 0; have < THREAD_BYTES;) {
        size_t step = THREAD_BYTES - have < 1000 ? THREAD_BYTES - have : 1000;
        read_exactly(env, fd, back + have, step);
        have += step;
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
    for (size_t i = 0; i < THREAD_BYTES; i++)
        assert_int_equal((uint8_t)back[i], (uint8_t)(i * 13 + i / 257));
    free(back);
    close(fd);
}

static void test_errors(void **state)
{
    struct env *env = *state;
    char spec[200];
    must_fail(env, "", ERROR_USAGE, "no such kind", "stdio");
    must_fail(env, "serial:x", ERROR_USAGE, "no such kind", "stdio");
    must_fail(env, "file", ERROR_USAGE, "needs a path", "");
    must_fail(env, "file:", ERROR_USAGE, "needs a path", "");
    must_fail(env, "pty:x", ERROR_USAGE, "takes nothing", "");
    must_fail(env, "tcp:99999", ERROR_USAGE, "not an address", "4321");
    must_fail(env, "tcp:12x", ERROR_USAGE, "not an address", "4321");
    must_fail(env, "tcp:::1:5", ERROR_USAGE, "not an address", "[::1]");
    must_fail(env, "tcp:host.invalid:5", ERROR_USAGE, "not an address", "4321");
    must_fail(env, "tcp:192.0.2.77:5555", ERROR_FAILED, "", "ip addr");
    snprintf(spec, sizeof(spec), "file:%s/none/x", env->dir);
    must_fail(env, spec, ERROR_FAILED, "No such file", "folder");
    snprintf(spec, sizeof(spec), "file:%s", env->dir);
    must_fail(env, spec, ERROR_FAILED, "directory", "file");
    snprintf(spec, sizeof(spec), "pipe:%s", env->path);
    must_fail(env, spec, ERROR_FAILED, "No such file", "mkfifo");
    snprintf(spec, sizeof(spec), "pipe:%s", env->dir);
    must_fail(env, spec, ERROR_FAILED, "", "mkfifo");
    snprintf(spec, sizeof(spec), "unix:%s/%0120d", env->dir, 0);
    must_fail(env, spec, ERROR_USAGE, "at most", "shorter");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_null, setup, teardown),
        cmocka_unit_test_setup_teardown(test_file, setup, teardown),
        cmocka_unit_test_setup_teardown(test_file_limit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pipe_pair, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pty, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tty, setup, teardown),
        cmocka_unit_test_setup_teardown(test_log, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unix, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unix_left_over, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tcp, setup, teardown),
        cmocka_unit_test_setup_teardown(test_slow_peer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_write_from_thread, setup, teardown),
        cmocka_unit_test_setup_teardown(test_errors, setup, teardown),
    };
    return cmocka_run_group_tests_name("chardev", tests, NULL, NULL);
}
