/* SPDX-License-Identifier: BSD-2-Clause
 * CRC-32C against the examples of RFC 3720, B.4, and four at once against one by one. */
#include "base/crc32c.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void test_examples(void **state)
{
    uint8_t bytes[32] = {0};
    assert_int_equal(crc32c(bytes, sizeof(bytes)), 0x8a9136aa);
    memset(bytes, 0xff, sizeof(bytes));
    assert_int_equal(crc32c(bytes, sizeof(bytes)), 0x62a8ab43);
    for (unsigned i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)i;
    assert_int_equal(crc32c(bytes, sizeof(bytes)), 0x46dd794e);
    assert_int_equal(crc32c("123456789", 9), 0xe3069283); /* a length that is no multiple of 8 */
    assert_int_equal(crc32c("", 0), 0);
}

static void test_four(void **state)
{
    enum { BLOCK = 72 };
    uint8_t bytes[4 * BLOCK];
    uint32_t sums[4];
    for (unsigned i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i * 151 + i / 7);
    crc32c_four(bytes, BLOCK, sums);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(sums[i], crc32c(bytes + i * BLOCK, BLOCK));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_examples),
                                       cmocka_unit_test(test_four)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
