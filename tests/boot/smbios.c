/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The SMBIOS tables, walked as an operating system does.
 */
#include "machine/smbios.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define TABLES_GPA UINT64_C(0xf0000)
enum { LIMIT_BYTES = 0x8000, TYPES = 128 };

static struct smbios_config machine(void)
{
    return (struct smbios_config){
        .version = "1.2.3",
        .uuid = {0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd,
                 0xee, 0xff},
        .sockets = 1,
        .cores = 1,
        .threads = 1,
        .memory_low_bytes = UINT64_C(512) << 20,
    };
}

struct walk {
    unsigned count[TYPES];
    const uint8_t *first[TYPES];
};

/* Structures up to and with type 127, each with its length and strings inside the table. */
static struct walk walk(const struct bytes *out)
{
    struct walk result = {0};
    const uint8_t *entry = out->data;
    assert_memory_equal(entry, "_SM3_", 5);
    assert_int_equal(bytes_checksum(entry, entry[6]), 0);
    uint64_t at = le64_get(entry + 16) - TABLES_GPA;
    uint64_t end = at + le32_get(entry + 12);
    assert_int_equal(end, out->size_bytes);
    for (;;) {
        assert_true(at + 4 <= end);
        const uint8_t *structure = out->data + at;
        assert_true(structure[0] < TYPES && structure[1] >= 4);
        if (!result.count[structure[0]]++)
            result.first[structure[0]] = structure;
        at += structure[1];
        assert_true(at + 2 <= end);
        while (out->data[at] || out->data[at + 1]) {
            at++;
            assert_true(at + 2 <= end);
        }
        at += 2;
        if (structure[0] == 127)
            break;
    }
    assert_int_equal(at, end);
    return result;
}

static const char *string_of(const uint8_t *structure, unsigned number)
{
    const char *text = (const char *)structure + structure[1];
    while (--number)
        text += strlen(text) + 1;
    return text;
}

static struct bytes build(const struct smbios_config *config)
{
    struct bytes out = {0};
    struct error err = {0};
    assert_true(smbios_build(config, TABLES_GPA, LIMIT_BYTES, &out, &err));
    return out;
}

static void test_structures(void **state)
{
    static const unsigned types[] = {0, 1, 3, 4, 16, 17, 19, 32, 127};
    struct smbios_config config = machine();
    struct bytes out = build(&config);
    struct walk found = walk(&out);
    for (unsigned i = 0; i < sizeof(types) / sizeof(*types); i++)
        assert_int_equal(found.count[types[i]], 1);
    const uint8_t *system = found.first[1];
    assert_string_equal(string_of(system, system[4]), "skep");
    assert_string_equal(string_of(system, system[6]), "1.2.3");
    static const uint8_t uuid[16] = {0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66,
                                     0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff};
    assert_memory_equal(system + 8, uuid, 16);
    bytes_free(&out);
}

static void test_processors(void **state)
{
    struct smbios_config config = machine();
    config.sockets = 2;
    config.cores = 3;
    config.threads = 2;
    struct bytes out = build(&config);
    struct walk found = walk(&out);
    assert_int_equal(found.count[4], 2);
    assert_int_equal(found.first[4][0x23], 3);
    assert_int_equal(found.first[4][0x25], 6);
    assert_int_equal(le16_get(found.first[4] + 0x2e), 6);
    bytes_free(&out);
}

static void test_memory(void **state)
{
    struct smbios_config config = machine();
    struct bytes out = build(&config);
    struct walk found = walk(&out);
    assert_int_equal(le64_get(found.first[16] + 15), UINT64_C(512) << 20);
    assert_int_equal(le16_get(found.first[17] + 12), 512);
    assert_int_equal(le32_get(found.first[19] + 4), 0);
    assert_int_equal(le32_get(found.first[19] + 8), 512 * 1024 - 1);
    bytes_free(&out);

    config.memory_low_bytes = UINT64_C(0xb0000000);
    config.memory_high_bytes = UINT64_C(61) << 30;
    out = build(&config);
    found = walk(&out);
    assert_int_equal(found.count[19], 2);
    assert_int_equal(le16_get(found.first[17] + 12), 0x7fff);
    assert_int_equal(le32_get(found.first[17] + 28), 61 * 1024 + 0xb00);
    bytes_free(&out);
}

static void test_limit(void **state)
{
    struct smbios_config config = machine();
    config.sockets = 64;
    struct bytes out = {0};
    struct error err = {0};
    assert_false(smbios_build(&config, TABLES_GPA, 256, &out, &err));
    assert_non_null(strstr(err.cause, "256"));
    bytes_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_structures),
        cmocka_unit_test(test_processors),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
