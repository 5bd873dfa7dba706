/* SPDX-License-Identifier: BSD-2-Clause
 * A ROM is made to be for another card: its images' marks and checksums, and what is no ROM. */
#include "machine/net_rom.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { FIRST_BYTES = 1024, SECOND_BYTES = 512, ROM_BYTES = FIRST_BYTES + SECOND_BYTES };

static uint8_t sum(const uint8_t *bytes, size_t size_bytes)
{
    uint8_t total = 0;
    for (size_t i = 0; i < size_bytes; i++)
        total = (uint8_t)(total + bytes[i]);
    return total;
}

static void put_image(uint8_t *image, size_t size_bytes, uint8_t code, bool is_last)
{
    static const uint8_t data[0x18] = {'P', 'C', 'I', 'R', 0x86, 0x80, 0x0e, 0x10};
    for (size_t i = 0; i < size_bytes; i++)
        image[i] = (uint8_t)(i * 11);
    image[0] = 0x55;
    image[1] = 0xaa;
    image[2] = (uint8_t)(size_bytes / 512);
    image[0x18] = 0x40;
    image[0x19] = 0;
    memcpy(image + 0x40, data, sizeof(data));
    image[0x50] = (uint8_t)(size_bytes / 512);
    image[0x54] = code;
    image[0x55] = is_last ? 0x80 : 0;
    image[6] = (uint8_t)(image[6] - sum(image, size_bytes));
}

static void test_images(void **state)
{
    uint8_t rom[ROM_BYTES], before[ROM_BYTES];
    put_image(rom, FIRST_BYTES, 0, false);
    put_image(rom + FIRST_BYTES, SECOND_BYTES, 3, true);
    memcpy(before, rom, sizeof(rom));
    net_rom_adapt(rom, sizeof(rom), 0x100f);
    assert_int_equal(rom[0x46] | rom[0x47] << 8, 0x100f);
    assert_int_equal(sum(rom, FIRST_BYTES), 0);
    assert_int_equal(rom[FIRST_BYTES + 0x46], 0x0f);
    unsigned changed = 0;
    for (unsigned i = 0; i < sizeof(rom); i++)
        changed += rom[i] != before[i];
    assert_int_equal(changed, 3); /* a byte of each mark, and the one of the checksum */
    net_rom_adapt(rom, sizeof(rom), 0x100e);
    assert_memory_equal(rom, before, sizeof(rom));
}

/* In memory of exactly its size, so that sanitizers notice a byte beyond it. */
static void test_nonsense(void **state)
{
    uint8_t rom[FIRST_BYTES];
    for (size_t size = 0; size <= FIRST_BYTES; size++) {
        for (unsigned way = 0; way < 4; way++) {
            put_image(rom, FIRST_BYTES, 0, false);
            if (way == 1)
                rom[0x18] = rom[0x19] = 0xff; /* its data is beyond the end */
            else if (way == 2)
                rom[0x50] = rom[0x51] = 0; /* no length: no end */
            else if (way == 3)
                rom[0x18] = (uint8_t)size, rom[0x19] = (uint8_t)(size >> 8);
            uint8_t *cut = malloc(size ? size : 1);
            memcpy(cut, rom, size);
            net_rom_adapt(cut, size, 0x100f);
            free(cut);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_images),
        cmocka_unit_test(test_nonsense),
    };
    return cmocka_run_group_tests_name("net_rom", tests, NULL, NULL);
}
