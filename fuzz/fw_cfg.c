/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Fuzz target: the firmware configuration device: keys, bytes, DMA descriptors anywhere, items that
 * can't be read, saved states. An item is never asked for bytes that it does not have.
 */
#include "dev/fw_cfg.h"
#include "fuzz/device.h"

enum {
    BASE = 0x510,
    DMA = BASE + FW_CFG_DMA_OFFSET,
    USED_RAM_BYTES = 64 << 10,
    SOURCE_BYTES = 5000,
    BAD_SOURCE_BYTES = 3,
    OPERATIONS_MAX = 400,
};

static struct {
    struct ram *ram;
    struct bus *bus;
    struct fw_cfg *fw;
} machine;

/* `opaque` is its size; a bad source can't be read. */
static bool read_source(void *opaque, uint64_t offset, void *buffer, size_t size_bytes)
{
    const uint64_t *source_bytes = opaque;
    require(size_bytes && offset < *source_bytes && size_bytes <= *source_bytes - offset,
            "a source is read where it is");
    memset(buffer, 0x5a, size_bytes);
    return *source_bytes != BAD_SOURCE_BYTES;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    static uint64_t good = SOURCE_BYTES, bad = BAD_SOURCE_BYTES;
    uint8_t bytes[600] = {1, 2, 3};
    machine.ram = ram_create(FUZZ_RAM_BYTES, NULL);
    machine.bus = bus_create(NULL);
    require(machine.ram && machine.bus, "the machine is made");
    ram_set_watcher(machine.ram, fuzz_ram_written, machine.ram);
    const struct fw_cfg_config config = {.base = BASE, .ram = machine.ram};
    machine.fw = fw_cfg_create(&config, machine.bus, NULL);
    require(
        machine.fw && fw_cfg_put_number(machine.fw, FW_CFG_NB_CPUS, 2, 2) &&
            fw_cfg_put(machine.fw, FW_CFG_CMDLINE_DATA, "", 0) &&
            fw_cfg_put_source(machine.fw, FW_CFG_KERNEL_DATA, SOURCE_BYTES, read_source, &good) &&
            fw_cfg_put_file(machine.fw, "etc/bytes", bytes, sizeof(bytes)) &&
            fw_cfg_put_file_source(machine.fw, "etc/bad", BAD_SOURCE_BYTES, read_source, &bad),
        "the device is made");
    return 0;
}

static uint16_t key(uint8_t choice)
{
    static const uint16_t keys[] = {
        FW_CFG_SIGNATURE,   FW_CFG_ID,       FW_CFG_NB_CPUS,    FW_CFG_CMDLINE_DATA,
        FW_CFG_KERNEL_DATA, FW_CFG_FILE_DIR, FW_CFG_FILE_FIRST, FW_CFG_FILE_FIRST + 1};
    return keys[choice & 7] | (uint16_t)(choice >> 7 << 14);
}

/* A descriptor, most of them right but for one thing, and the register that starts it. */
static void dma(struct input *in)
{
    uint8_t shape = (uint8_t)take(in, 1);
    uint64_t gpa = shape & 1 ? take(in, 8) : take(in, 2);
    uint32_t words[4] = {(uint32_t)take(in, 1) | (uint32_t)key((uint8_t)take(in, 1)) << 16,
                         (uint32_t)take(in, shape & 2 ? 4 : 2),
                         shape & 4 ? (uint32_t)take(in, 4) : 0,
                         (uint32_t)take(in, shape & 8 ? 4 : 2)};
    for (unsigned i = 0; i < 4; i++)
        words[i] = __builtin_bswap32(words[i]);
    if (ram_hva(machine.ram, gpa, sizeof(words)))
        ram_write(machine.ram, gpa, words, sizeof(words));
    if (shape & 1)
        bus_write(machine.bus, BUS_PORT, DMA, __builtin_bswap32((uint32_t)(gpa >> 32)), 4);
    bus_write(machine.bus, BUS_PORT, DMA + 4, __builtin_bswap32((uint32_t)gpa), 4);
}

static void operation(struct input *in)
{
    uint8_t code = (uint8_t)take(in, 1);
    unsigned size = 1u << (code >> 4) % 3;
    switch (code & 7) {
    case 0: bus_write(machine.bus, BUS_PORT, BASE, key((uint8_t)take(in, 1)), 2); break;
    case 1: bus_write(machine.bus, BUS_PORT, BASE, take(in, 2), 2); break;
    case 2:
        for (unsigned i = (unsigned)take(in, 1); i; i--)
            bus_read(machine.bus, BUS_PORT, BASE + 1, 1);
        break;
    case 3:
    case 4: dma(in); break;
    case 5: bus_write(machine.bus, BUS_PORT, BASE + (code >> 3 & 15), take(in, 4), size); break;
    case 6: bus_read(machine.bus, BUS_PORT, BASE + (code >> 3 & 15), size); break;
    case 7: fuzz_save_and_load(in, &fw_cfg_ops, machine.fw); break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
    static const uint8_t zeroes[USED_RAM_BYTES];
    struct input in = {data, size_bytes};
    fw_cfg_ops.reset(machine.fw);
    ram_write(machine.ram, 0, zeroes, sizeof(zeroes));
    for (unsigned i = 0; in.left && i < OPERATIONS_MAX; i++)
        operation(&in);
    return 0;
}
