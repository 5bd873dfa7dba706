/* SPDX-License-Identifier: BSD-2-Clause
 * The HTTP folder, by its socket: files, ranges of them, names that lead out of the folder. */
#include "host/http_folder.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

enum { FILE_BYTES = 300000, ANSWER_MAX_BYTES = FILE_BYTES + 4096 };

struct env {
    char folder[64];
    struct http_folder *http;
    uint8_t *bytes; /* of the file */
    char *answer;   /* the last one, ended by a zero */
    size_t answer_bytes;
};

static void write_file(const struct env *env, const char *name, const void *bytes, size_t size)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/%s", env->folder, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, size), size);
    close(fd);
}

static void make_link(const struct env *env, const char *name, const char *target)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/%s", env->folder, name);
    assert_int_equal(symlink(target, path), 0);
}

static int setup(void **state)
{
    struct error err = {0};
    struct env *env = calloc(1, sizeof(*env));
    char path[128];
    strcpy(env->folder, "/tmp/skep-test-XXXXXX");
    assert_non_null(mkdtemp(env->folder));
    env->bytes = malloc(FILE_BYTES);
    env->answer = malloc(ANSWER_MAX_BYTES);
    for (size_t i = 0; i < FILE_BYTES; i++)
        env->bytes[i] = (uint8_t)(i * 7 + i / 251);
    write_file(env, "file", env->bytes, FILE_BYTES);
    write_file(env, "a b+c", "odd name", 8);
    write_file(env, "empty", "", 0);
    snprintf(path, sizeof(path), "%s/in", env->folder);
    assert_int_equal(mkdir(path, 0700), 0);
    write_file(env, "in/side", "inside", 6);
    make_link(env, "near", "in/side");
    make_link(env, "far", "/etc/passwd");
    make_link(env, "up", "..");
    make_link(env, "self", "/proc/self/fd/0");
    snprintf(path, sizeof(path), "%s/pipe", env->folder);
    assert_int_equal(mkfifo(path, 0600), 0);
    setenv("TMPDIR", env->folder, 1); /* nothing may be left there */
    env->http = http_folder_open(env->folder, &err);
    if (!env->http && strstr(err.cause, "without libmicrohttpd"))
        print_message("%s\n", err.cause);
    else
        assert_non_null(env->http);
    *state = env;
    return 0;
}

static int teardown(void **state)
{
    static const char *const names[] = {"file", "a b+c", "empty", "in/side", "in",
                                        "near", "far",   "up",    "self",    "pipe"};
    struct env *env = *state;
    char path[128];
    http_folder_close(env->http);
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        snprintf(path, sizeof(path), "%s/%s", env->folder, names[i]);
        assert_int_equal(remove(path), 0);
    }
    assert_int_equal(rmdir(env->folder), 0);
    free(env->bytes);
    free(env->answer);
    free(env);
    return 0;
}

static int connect_to(const struct env *env)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (!env->http)
        skip();
    strcpy(address.sun_path, http_folder_socket(env->http));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

/* Sends a request, and reads until the server closes. Gives the status. */
static int ask(struct env *env, const char *method, const char *path, const char *header)
{
    char request[1024];
    int fd = connect_to(env), status = 0;
    snprintf(request, sizeof(request), "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s\r\n",
             method, path, header);
    assert_int_equal(send(fd, request, strlen(request), MSG_NOSIGNAL), strlen(request));
    env->answer_bytes = 0;
    for (ssize_t n = 1; n > 0; env->answer_bytes += (size_t)n) {
        n = read(fd, env->answer + env->answer_bytes, ANSWER_MAX_BYTES - 1 - env->answer_bytes);
        assert_true(n >= 0);
    }
    env->answer[env->answer_bytes] = '\0';
    close(fd);
    assert_int_equal(sscanf(env->answer, "HTTP/1.1 %d", &status), 1);
    return status;
}

static bool has_header(const struct env *env, const char *header)
{
    const char *end = strstr(env->answer, "\r\n\r\n"), *at = strstr(env->answer, header);
    return at && at < end;
}

static void expect_body(const struct env *env, const void *bytes, size_t size)
{
    const char *body = strstr(env->answer, "\r\n\r\n") + 4;
    assert_int_equal(env->answer_bytes - (size_t)(body - env->answer), size);
    assert_memory_equal(body, bytes, size);
}

static void test_files(void **state)
{
    struct env *env = *state;
    assert_int_equal(ask(env, "GET", "/file", ""), 200);
    assert_true(has_header(env, "Content-Length: 300000\r\n"));
    assert_true(has_header(env, "Accept-Ranges: bytes\r\n"));
    expect_body(env, env->bytes, FILE_BYTES);
    assert_int_equal(ask(env, "HEAD", "/file", ""), 200);
    assert_true(has_header(env, "Content-Length: 300000\r\n"));
    expect_body(env, "", 0);
    assert_int_equal(ask(env, "GET", "/file?query=1", ""), 200);
    assert_int_equal(ask(env, "GET", "/in/side", ""), 200);
    expect_body(env, "inside", 6);
    assert_int_equal(ask(env, "GET", "//in//./side", ""), 200);
    assert_int_equal(ask(env, "GET", "/near", ""), 200);
    expect_body(env, "inside", 6);
    assert_int_equal(ask(env, "GET", "/a%20b+c", ""), 200);
    expect_body(env, "odd name", 8);
    assert_int_equal(ask(env, "GET", "/empty", ""), 200);
    assert_true(has_header(env, "Content-Length: 0\r\n"));
    assert_int_equal(ask(env, "PUT", "/file", "Content-Length: 0\r\n"), 405);
    assert_true(has_header(env, "Allow: GET, HEAD\r\n"));
    assert_int_equal(ask(env, "POST", "/file", "Content-Length: 0\r\n"), 405);
    assert_int_equal(ask(env, "DELETE", "/file", ""), 405);
}

static void test_not_there(void **state)
{
    static const char *const names[] = {
        "/",
        "/none",
        "/in",
        "/in/",
        "/up/etc/passwd",
        "/../etc/passwd",
        "/far",
        "/%2e%2e/etc/passwd",
        "/self",
        "/pipe",
        "/in/../../etc/passwd",
        "/file/",
    };
    struct env *env = *state;
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        int status = ask(env, "GET", names[i], "");
        if (status != 404)
            fail_msg("%s: %d", names[i], status);
        expect_body(env, "", 0);
    }
}

static void test_ranges(void **state)
{
    static const struct {
        const char *header;
        int status;
        size_t first, length;
    } cases[] = {
        {"Range: bytes=0-0\r\n", 206, 0, 1},
        {"Range: bytes=100-199\r\n", 206, 100, 100},
        {"Range: bytes=299999-\r\n", 206, 299999, 1},
        {"Range: bytes=299990-400000\r\n", 206, 299990, 10},
        {"Range: bytes=-7\r\n", 206, 299993, 7},
        {"Range: bytes=-999999\r\n", 206, 0, FILE_BYTES},
        {"Range: bytes=300000-\r\n", 416, 0, 0},
        {"Range: bytes=-0\r\n", 416, 0, 0},
        {"Range: bytes=5-4\r\n", 200, 0, FILE_BYTES},
        {"Range: bytes=0-1,5-6\r\n", 200, 0, FILE_BYTES},
        {"Range: bytes=99999999999999999999999-\r\n", 200, 0, FILE_BYTES},
        {"Range: lines=0-1\r\n", 200, 0, FILE_BYTES},
        {"Range: bytes=0-1\r\nIf-Range: \"x\"\r\n", 200, 0, FILE_BYTES},
    };
    struct env *env = *state;
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char expected[64];
        assert_int_equal(ask(env, "GET", "/file", cases[i].header), cases[i].status);
        expect_body(env, env->bytes + cases[i].first, cases[i].length);
        snprintf(expected, sizeof(expected), "Content-Range: bytes %zu-%zu/300000\r\n",
                 cases[i].first, cases[i].first + cases[i].length - 1);
        assert_int_equal(has_header(env, expected), cases[i].status == 206);
    }
    assert_int_equal(ask(env, "GET", "/file", "Range: bytes=300000-\r\n"), 416);
    assert_true(has_header(env, "Content-Range: bytes */300000\r\n"));
}

/* Many at a time, some of which say nothing; and it can be closed while they are there. */
static void test_many(void **state)
{
    struct env *env = *state;
    int fds[20];
    for (unsigned i = 0; i < 20; i++) {
        fds[i] = connect_to(env);
        assert_int_equal(send(fds[i], "GET /fi", 7, MSG_NOSIGNAL), 7);
    }
    assert_int_equal(ask(env, "GET", "/file", ""), 200);
    expect_body(env, env->bytes, FILE_BYTES);
    http_folder_close(env->http);
    env->http = NULL;
    for (unsigned i = 0; i < 20; i++)
        close(fds[i]);
}

static void test_mistakes(void **state)
{
    struct env *env = *state;
    struct error err = {0};
    if (!env->http)
        skip();
    assert_null(http_folder_open("/nonexistent", &err));
    assert_string_equal(err.where, "/nonexistent");
    assert_null(http_folder_open("/etc/passwd", &err));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_files, setup, teardown),
        cmocka_unit_test_setup_teardown(test_not_there, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ranges, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many, setup, teardown),
        cmocka_unit_test_setup_teardown(test_mistakes, setup, teardown),
    };
    return cmocka_run_group_tests_name("http_folder", tests, NULL, NULL);
}
