/* SPDX-License-Identifier: BSD-2-Clause
 *
 * PAM0 to PAM6 of the 82Q35 (datasheet 316966, 5.1.22 on): two bits a segment, reads and writes of
 * which go to RAM, or else to the ROM behind the south bridge. Each segment always has a mapping of
 * its own, so that a change of one never moves others. Writes alone to RAM come by the bus, since
 * no memory is read in one place and written in another. DMA always reaches RAM.
 */
#include "dev/pam.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

enum {
    SEGMENTS = 13,
    SMALL_BYTES = 0x4000,
    FIRST_GPA = 0xc0000,
    LAST_GPA = 0xf0000, /* one segment from here to the end */
    END_GPA = 0x100000,
    READS_RAM = 1,
    WRITES_RAM = 2,
};

struct segment {
    struct pam *pam;
    uint64_t gpa, size_bytes;
    int is_now;      /* READS_RAM, WRITES_RAM; -1: not known yet */
    bool has_writes; /* on the bus */
};

struct pam {
    struct pam_config config;
    struct segment segment[SEGMENTS];
};

static void write_through(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    struct segment *segment = opaque;
    if (offset + size_bytes <= segment->size_bytes)
        ram_write(segment->pam->config.ram, segment->gpa + offset, &value, size_bytes);
}

/* What reads find when it isn't RAM; NULL: nothing. */
static uint8_t *rom_at(const struct pam *pam, const struct segment *segment)
{
    uint64_t first = END_GPA - pam->config.rom_bytes;
    return pam->config.rom && segment->gpa >= first ? pam->config.rom + (segment->gpa - first)
                                                    : NULL;
}

static void take_writes(struct segment *segment, bool wanted)
{
    struct bus *bus = segment->pam->config.bus;
    const struct bus_range range = {.name = "shadow RAM",
                                    .space = BUS_MMIO,
                                    .base = segment->gpa,
                                    .size_bytes = segment->size_bytes,
                                    .write = write_through,
                                    .opaque = segment};
    if (segment->has_writes && !wanted)
        bus_unmap(bus, BUS_MMIO, segment->gpa);
    if (wanted && !segment->has_writes)
        wanted = bus_map(bus, &range, NULL);
    segment->has_writes = wanted;
}

static void segment_set(struct segment *segment, int wanted)
{
    const struct pam *pam = segment->pam;
    struct error err = {0};
    if (segment->is_now == wanted)
        return;
    struct physmap_range range = {.gpa = segment->gpa, .size_bytes = segment->size_bytes};
    range.hva = wanted & READS_RAM ? ram_hva(pam->config.ram, range.gpa, range.size_bytes)
                                   : rom_at(pam, segment);
    range.read_only = !(wanted & READS_RAM) || !(wanted & WRITES_RAM);
    take_writes(segment, wanted == WRITES_RAM);
    if (!physmap_map(pam->config.physmap, PHYSMAP_SHADOW, &range, &err))
        log_write(pam->config.log, LOG_WARNING, "pam", "0x%llx stays as it is: %s",
                  (unsigned long long)range.gpa, err.cause);
    segment->is_now = wanted;
}

struct pam *pam_create(const struct pam_config *config, struct error *err)
{
    assert(config->rom_bytes % SMALL_BYTES == 0 && config->rom_bytes <= END_GPA - FIRST_GPA);
    assert(ram_hva(config->ram, FIRST_GPA, END_GPA - FIRST_GPA));
    struct pam *pam = calloc(1, sizeof(*pam));
    if (!pam) {
        error_errno(err, "cannot make the host bridge", NULL, ENOMEM);
        return NULL;
    }
    pam->config = *config;
    for (unsigned i = 0; i < SEGMENTS; i++) {
        uint64_t gpa = FIRST_GPA + (uint64_t)i * SMALL_BYTES;
        uint64_t size_bytes = gpa == LAST_GPA ? END_GPA - LAST_GPA : SMALL_BYTES;
        pam->segment[i] = (struct segment){pam, gpa, size_bytes, -1, false};
    }
    return pam;
}

void pam_destroy(struct pam *pam)
{
    if (!pam)
        return;
    for (unsigned i = 0; i < SEGMENTS; i++) {
        take_writes(&pam->segment[i], false);
        physmap_unmap(pam->config.physmap, PHYSMAP_SHADOW, pam->segment[i].gpa);
    }
    free(pam);
}

/* PAM0 has the last segment in its upper half, the others two each, the lower one first. */
void pam_set(struct pam *pam, const uint8_t registers[PAM_REGISTERS])
{
    for (unsigned i = 0; i + 1 < SEGMENTS; i++)
        segment_set(&pam->segment[i], registers[1 + i / 2] >> (i % 2 * 4) & 3);
    segment_set(&pam->segment[SEGMENTS - 1], registers[0] >> 4 & 3);
}
