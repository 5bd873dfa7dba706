/* SPDX-License-Identifier: BSD-2-Clause
 * Errors and the log: what is filled, cut, dropped and counted. */
#include "base/error.h"
#include "base/log.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void test_error_fields(void **state)
{
    struct error err = {.hint = "an old hint"};
    assert_false(error_set(&err, "cannot open", "/dev/kvm", "reason %d", 7));
    assert_int_equal(err.kind, ERROR_FAILED);
    assert_string_equal(err.what, "cannot open");
    assert_string_equal(err.where, "/dev/kvm");
    assert_string_equal(err.cause, "reason 7");
    assert_string_equal(err.hint, "");
    assert_false(error_hint(&err, "try %s", "again"));
    assert_string_equal(err.hint, "try again");
    assert_string_equal(err.cause, "reason 7");

    assert_false(error_usage(&err, "cannot parse", NULL, "no number"));
    assert_int_equal(err.kind, ERROR_USAGE);
    assert_string_equal(err.where, "");
    assert_string_equal(err.hint, "");

    assert_false(error_errno(&err, "cannot open", "x", EACCES));
    assert_int_equal(err.kind, ERROR_FAILED);
    assert_string_equal(err.cause, strerror(EACCES));
}

static void test_error_null(void **state)
{
    assert_false(error_set(NULL, "a", "b", "c"));
    assert_false(error_usage(NULL, "a", NULL, "c"));
    assert_false(error_errno(NULL, "a", NULL, EIO));
    assert_false(error_hint(NULL, "h"));
}

static void test_error_long_text_is_cut(void **state)
{
    char text[2000];
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    struct error err;
    error_set(&err, text, text, "%s", text);
    error_hint(&err, "%s", text);
    assert_int_equal(strlen(err.what), sizeof(err.what) - 1);
    assert_int_equal(strlen(err.where), sizeof(err.where) - 1);
    assert_int_equal(strlen(err.cause), sizeof(err.cause) - 1);
    assert_int_equal(strlen(err.hint), sizeof(err.hint) - 1);
}

struct sink {
    unsigned lines;
    enum log_level level;
    char module[32];
    char text[1024];
    char before[1024]; /* the line before the last */
};

static void sink_write(void *opaque, enum log_level level, const char *module, const char *text)
{
    struct sink *sink = opaque;
    sink->lines++;
    sink->level = level;
    memcpy(sink->before, sink->text, sizeof(sink->before));
    strncpy(sink->module, module, sizeof(sink->module) - 1);
    strncpy(sink->text, text, sizeof(sink->text) - 1);
    sink->text[sizeof(sink->text) - 1] = '\0';
}

static void test_log_levels(void **state)
{
    struct sink sink = {0};
    struct log log = {.level = LOG_WARNING, .write = sink_write, .opaque = &sink};
    log_write(&log, LOG_INFO, "uart", "dropped");
    assert_int_equal(sink.lines, 0);
    log_write(&log, LOG_WARNING, "uart", "port 0x%x", 0x3f8);
    assert_int_equal(sink.lines, 1);
    assert_int_equal(sink.level, LOG_WARNING);
    assert_string_equal(sink.module, "uart");
    assert_string_equal(sink.text, "port 0x3f8");
    log_write(&log, LOG_ERROR, "uart", "kept");
    assert_int_equal(sink.lines, 2);
}

static void test_log_without_sink(void **state)
{
    struct log_limit limit = {0};
    struct log silent = {.level = LOG_DEBUG};
    log_write(NULL, LOG_ERROR, "x", "y");
    log_limited(NULL, &limit, LOG_ERROR, "x", "y");
    log_write(&silent, LOG_ERROR, "x", "y");
    log_limited(&silent, &limit, LOG_ERROR, "x", "y");
    assert_int_equal(limit.used, 0);
}

static void test_log_long_line_is_cut(void **state)
{
    char text[2000];
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    struct sink sink = {0};
    struct log log = {.level = LOG_DEBUG, .write = sink_write, .opaque = &sink};
    log_write(&log, LOG_INFO, "x", "%s", text);
    assert_int_equal(strlen(sink.text), 511);
}

static void test_log_limit(void **state)
{
    struct sink sink = {0};
    struct log log = {.level = LOG_DEBUG, .write = sink_write, .opaque = &sink};
    struct log_limit limit = {0};
    for (unsigned i = 0; i < 1000; i++)
        log_limited(&log, &limit, LOG_INFO, "x", "line %u", i);
    /* Ten, and a few more if the host stood still for seconds meanwhile. */
    assert_in_range(sink.lines, 10, 100);

    /* The window over, the next line comes with the count of what was left out. */
    limit.window_start_ns = 1;
    limit.used = 10;
    limit.dropped = 990;
    unsigned before = sink.lines;
    log_limited(&log, &limit, LOG_INFO, "x", "the last");
    assert_int_equal(sink.lines, before + 2);
    assert_non_null(strstr(sink.before, "990"));
    assert_string_equal(sink.text, "the last");
    assert_int_equal(limit.dropped, 0);
}

static void test_log_limit_is_of_the_object(void **state)
{
    struct sink sink = {0};
    struct log log = {.level = LOG_DEBUG, .write = sink_write, .opaque = &sink};
    struct log_limit one = {0};
    struct log_limit other = {0};
    for (unsigned i = 0; i < 100; i++)
        log_limited(&log, &one, LOG_INFO, "x", "noise");
    unsigned before = sink.lines;
    log_limited(&log, &other, LOG_INFO, "x", "heard");
    assert_int_equal(sink.lines, before + 1);
    assert_string_equal(sink.text, "heard");
}

static void test_log_limit_ignores_dropped_levels(void **state)
{
    struct sink sink = {0};
    struct log log = {.level = LOG_ERROR, .write = sink_write, .opaque = &sink};
    struct log_limit limit = {0};
    for (unsigned i = 0; i < 100; i++)
        log_limited(&log, &limit, LOG_DEBUG, "x", "noise");
    log_limited(&log, &limit, LOG_ERROR, "x", "heard");
    assert_int_equal(sink.lines, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_error_fields),
        cmocka_unit_test(test_error_null),
        cmocka_unit_test(test_error_long_text_is_cut),
        cmocka_unit_test(test_log_levels),
        cmocka_unit_test(test_log_without_sink),
        cmocka_unit_test(test_log_long_line_is_cut),
        cmocka_unit_test(test_log_limit),
        cmocka_unit_test(test_log_limit_is_of_the_object),
        cmocka_unit_test(test_log_limit_ignores_dropped_levels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
