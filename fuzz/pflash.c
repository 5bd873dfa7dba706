/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Fuzz target: flash memory and shadow RAM as a hostile guest writes to them, and saved states of
 * flash that are anything. Each operation is four bytes: what, where (twelve bits of a block and
 * its number), and a value.
 */
#include "dev/pflash.h"
#include "dev/pam.h"
#include "fuzz/device.h"

enum { FLASH_BYTES = 4 * PFLASH_BLOCK_BYTES, ROM_BYTES = 128 << 10 };
#define PLACE UINT64_C(0xffc00000)

struct world {
    struct ram *ram;
    struct bus *bus;
    struct physmap *physmap;
    struct pflash *flash;
    struct pam *pam;
    uint8_t *bytes, *rom, kept[FLASH_BYTES];
    uint8_t registers[PAM_REGISTERS];
};

static bool keep(void *opaque, uint64_t offset, const void *bytes, size_t size_bytes)
{
    struct world *world = opaque;
    require(offset <= FLASH_BYTES && size_bytes <= FLASH_BYTES - offset, "a store beyond the end");
    memcpy(world->kept + offset, bytes, size_bytes);
    return true;
}

static void make(struct world *world)
{
    world->ram = ram_create(2 << 20, NULL);
    world->bus = bus_create(NULL);
    world->physmap = physmap_create(world->ram);
    world->bytes = aligned_alloc(4096, FLASH_BYTES);
    world->rom = aligned_alloc(4096, ROM_BYTES);
    memset(world->bytes, 0xff, FLASH_BYTES);
    memset(world->kept, 0xff, FLASH_BYTES);
    memset(world->rom, 0xcc, ROM_BYTES);
    const struct pflash_config flash = {.gpa = PLACE,
                                        .bytes = world->bytes,
                                        .size_bytes = FLASH_BYTES,
                                        .store = {keep, world},
                                        .bus = world->bus,
                                        .physmap = world->physmap};
    const struct pam_config pam = {.physmap = world->physmap,
                                   .ram = world->ram,
                                   .bus = world->bus,
                                   .rom = world->rom,
                                   .rom_bytes = ROM_BYTES};
    world->flash = pflash_create(&flash, NULL);
    world->pam = pam_create(&pam, NULL);
    require(world->flash && world->pam, "out of memory");
}

static void drop(struct world *world)
{
    pflash_ops.destroy(world->flash);
    pam_destroy(world->pam);
    physmap_destroy(world->physmap);
    bus_destroy(world->bus);
    ram_destroy(world->ram);
    free(world->bytes);
    free(world->rom);
}

static void load_anything(struct world *world, const uint8_t *data, size_t size_bytes)
{
    struct load load;
    load_init(&load, data, size_bytes);
    load.section_end = size_bytes;
    pflash_ops.load(world->flash, &load, pflash_ops.version);
}

static void operate(struct world *world, const uint8_t op[4])
{
    uint64_t gpa = PLACE + ((uint64_t)op[1] << 8 | op[2]) % FLASH_BYTES;
    unsigned size_bytes = 1u << (op[0] >> 4 & 3);
    switch (op[0] & 7) {
    case 0:
    case 1:
    case 2: bus_write(world->bus, BUS_MMIO, gpa, op[3] * UINT64_C(0x010101), size_bytes); break;
    case 3: bus_read(world->bus, BUS_MMIO, gpa, size_bytes); break;
    case 4:
        world->registers[op[1] % PAM_REGISTERS] = op[3];
        pam_set(world->pam, world->registers);
        break;
    case 5:
        bus_write(world->bus, BUS_MMIO, 0xc0000 + (op[1] << 10 | op[2]), op[3], size_bytes);
        break;
    case 6: pflash_ops.reset(world->flash); break;
    default: break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
    struct world world = {0};
    make(&world);
    if (size_bytes && data[0] == 0xff)
        load_anything(&world, data + 1, size_bytes - 1);
    for (size_t at = 0; at + 4 <= size_bytes; at += 4)
        operate(&world, data + at);
    require(!memcmp(world.kept, world.bytes, FLASH_BYTES), "the store is not what the guest has");
    for (unsigned i = 0; i < ROM_BYTES; i++)
        require(world.rom[i] == 0xcc, "ROM was written");
    drop(&world);
    return 0;
}
