/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The identify command (NVM Express 1.4, 5.15): what the controller and its namespace are.
 */
#include "dev/storage/nvme_internal.h"

#include <stdio.h>
#include <string.h>

enum {
    DATA_BYTES = 4096,
    CNS_NAMESPACE = 0,
    CNS_CONTROLLER = 1,
    CNS_ACTIVE = 2,
    CNS_DESCRIPTORS = 3,
};

static void put(uint8_t *data, unsigned offset, uint64_t value, unsigned size_bytes)
{
    memcpy(data + offset, &value, size_bytes);
}

/* ASCII, filled up with spaces (1.6). */
static void put_text(uint8_t *data, unsigned offset, const char *text, unsigned size_bytes)
{
    memset(data + offset, ' ', size_bytes);
    memcpy(data + offset, text, strnlen(text, size_bytes));
}

/* A UUID of version 8 (RFC 9562, 5.8) that follows from the serial number: two FNV-1a hashes. */
static void make_uuid(const struct nvme *nvme, uint8_t uuid[16])
{
    for (unsigned half = 0; half < 2; half++) {
        uint64_t hash = UINT64_C(0xcbf29ce484222325) ^ half;
        for (unsigned i = 0; i < NVME_SERIAL_BYTES; i++)
            hash = (hash ^ (uint8_t)nvme->serial[i]) * UINT64_C(0x100000001b3);
        memcpy(uuid + 8 * half, &hash, 8);
    }
    uuid[6] = (uint8_t)((uuid[6] & 0x0f) | 0x80);
    uuid[8] = (uint8_t)((uuid[8] & 0x3f) | 0x80);
}

static void put_controller_limits(uint8_t *data)
{
    put(data, 77, NVME_MDTS, 1);
    put(data, 80, 0x10400, 4);              /* VER */
    put(data, 111, 1, 1);                   /* CNTRLTYPE: I/O */
    put(data, 258, 3, 1);                   /* ACL: four aborts */
    put(data, 259, NVME_EVENTS_MAX - 1, 1); /* AERL */
    put(data, 260, 1 << 1 | 1, 1);          /* FRMW: one slot, read-only */
    put(data, 261, 1 << 2 | 1 << 1, 1);     /* LPA: long log pages; commands' effects */
    put(data, 262, NVME_ERRORS_MAX - 1, 1); /* ELPE */
    put(data, 266, NVME_TEMPERATURE_WARNING, 2);
    put(data, 268, NVME_TEMPERATURE_CRITICAL, 2);
    put(data, 512, 0x66, 1); /* SQES: 64 bytes */
    put(data, 513, 0x44, 1); /* CQES: 16 bytes */
    put(data, 516, 1, 4);    /* NN */
}

static void controller_data(const struct nvme *nvme, uint8_t *data)
{
    enum { COMPARE = 1 << 0, DATASET = 1 << 2, WRITE_ZEROES = 1 << 3 };
    unsigned commands = COMPARE;
    if (!nvme->info.read_only)
        commands |= WRITE_ZEROES | (nvme->info.can_discard ? DATASET : 0);
    put(data, 0, NVME_PCI_VENDOR, 2);
    put(data, 2, NVME_PCI_VENDOR, 2);
    put_text(data, 4, nvme->serial, NVME_SERIAL_BYTES);
    put_text(data, 24, NVME_MODEL, 40);
    put_text(data, 64, NVME_FIRMWARE, 8);
    put_controller_limits(data);
    put(data, 520, commands, 2);   /* ONCS */
    put(data, 525, 3 << 1 | 1, 1); /* VWC: there; flush takes all namespaces */
    /* The name of a subsystem that has no other: 7.9. */
    snprintf((char *)data + 768, 256, "nqn.2014.08.org.nvmexpress:%04x%04x%.20s%-40s",
             NVME_PCI_VENDOR, NVME_PCI_VENDOR, (const char *)data + 4, NVME_MODEL);
    put(data, 2048, 100, 2); /* PSD0: 1 W */
}

static void namespace_data(const struct nvme *nvme, uint8_t *data)
{
    enum { OPTIMAL_SIZES = 1 << 4, ZEROES_DEALLOCATE = 1 << 3, WRITE_PROTECTED = 1 << 0 };
    uint64_t blocks = nvme_blocks(nvme);
    unsigned physical = nvme->info.physical_block_bytes >> NVME_BLOCK_SHIFT;
    unsigned granularity = nvme->info.discard_granularity_bytes >> NVME_BLOCK_SHIFT;
    physical = physical ? physical : 1;
    granularity = granularity ? granularity : 1;
    put(data, 0, blocks, 8); /* NSZE, NCAP, NUSE */
    put(data, 8, blocks, 8);
    put(data, 16, blocks, 8);
    put(data, 24, OPTIMAL_SIZES, 1);                                  /* NSFEAT */
    put(data, 33, nvme->info.can_discard ? ZEROES_DEALLOCATE : 0, 1); /* DLFEAT */
    put(data, 48, nvme->info.size_bytes, 8);                          /* NVMCAP */
    put(data, 64, physical - 1, 2);                                   /* NPWG, NPWA */
    put(data, 66, physical - 1, 2);
    put(data, 68, granularity - 1, 2); /* NPDG, NPDA */
    put(data, 70, granularity - 1, 2);
    put(data, 99, nvme->info.read_only ? WRITE_PROTECTED : 0, 1); /* NSATTR */
    put(data, 128, NVME_BLOCK_SHIFT << 16, 4);                    /* LBAF0 */
}

/* Figure 249: one descriptor, of the type UUID. */
static void descriptors_data(const struct nvme *nvme, uint8_t *data)
{
    data[0] = 3;
    data[1] = 16;
    make_uuid(nvme, data + 4);
}

enum nvme_status nvme_identify(struct nvme *nvme, const struct nvme_command *command)
{
    uint8_t data[DATA_BYTES] = {0};
    switch (command->dw[0] & 0xff) {
    case CNS_NAMESPACE:
        if (command->nsid != 1)
            return NVME_INVALID_NAMESPACE;
        nvme->backend.info(nvme->backend.opaque, &nvme->info);
        namespace_data(nvme, data);
        break;
    case CNS_CONTROLLER: controller_data(nvme, data); break;
    case CNS_ACTIVE: /* those above the number that is given */
        if (command->nsid >= UINT32_MAX - 1)
            return NVME_INVALID_NAMESPACE;
        put(data, 0, command->nsid == 0, 4);
        break;
    case CNS_DESCRIPTORS:
        if (command->nsid != 1)
            return NVME_INVALID_NAMESPACE;
        descriptors_data(nvme, data);
        break;
    default: return NVME_INVALID_FIELD;
    }
    return nvme_put(nvme, command, data, sizeof(data));
}
