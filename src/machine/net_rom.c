/* SPDX-License-Identifier: BSD-2-Clause
 *
 * iPXE's ROMs; see net_rom.h. One of them serves cards that it is not marked for: firmware would
 * pass it over, so the mark is changed (as QEMU does). OVMF has a virtio driver of its own; that
 * card's ROM is for BIOS alone, since UEFI would spend seconds on unpacking another.
 */
#include "machine/net_rom.h"

#include "machine/bytes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROM_MAX_BYTES = 1 << 20 };

enum { /* a ROM image's header and data structure: PCI Firmware 3.0, 5.1.1 and 5.1.2 */
       IMAGE_SIZE = 0x02,  /* in 512 bytes, of PC images: what their checksum is of */
       IMAGE_SPARE = 0x06, /* iPXE's byte that makes the checksum right */
       IMAGE_DATA = 0x18,
       IMAGE_HEADER_BYTES = 0x1a,
       DATA_DEVICE = 0x06,
       DATA_LENGTH = 0x10, /* in 512 bytes */
       DATA_CODE = 0x14,
       DATA_INDICATOR = 0x15,
       DATA_BYTES = 0x18,
       CODE_PC = 0,
       INDICATOR_LAST = 0x80,
       UNIT_BYTES = 512,
};

static const struct {
    const char *path;
    uint16_t device;
} roms[MACHINE_NET_MODELS] = {
    [MACHINE_NET_VIRTIO] = {"/usr/lib/ipxe/qemu/pxe-virtio.rom", 0x1041},
    [MACHINE_NET_E1000] = {"/usr/lib/ipxe/qemu/efi-e1000.rom", 0x100f},
    [MACHINE_NET_E1000E] = {"/usr/lib/ipxe/qemu/efi-e1000e.rom", 0x10d3},
};

/* One image of at most `size_bytes`; gives its length, 0 when there is none or it is the last. */
static size_t adapt_image(uint8_t *image, size_t size_bytes, uint16_t device)
{
    if (size_bytes < IMAGE_HEADER_BYTES || image[0] != 0x55 || image[1] != 0xaa)
        return 0;
    const size_t at = le16_get(image + IMAGE_DATA);
    if (at + DATA_BYTES > size_bytes || memcmp(image + at, "PCIR", 4) != 0)
        return 0;
    uint8_t *data = image + at;
    const size_t length = (size_t)le16_get(data + DATA_LENGTH) * UNIT_BYTES;
    uint8_t before = (uint8_t)(data[DATA_DEVICE] + data[DATA_DEVICE + 1]);
    le16_put(data + DATA_DEVICE, device);
    if (data[DATA_CODE] == CODE_PC && image[IMAGE_SIZE])
        image[IMAGE_SPARE] =
            (uint8_t)(image[IMAGE_SPARE] + before - data[DATA_DEVICE] - data[DATA_DEVICE + 1]);
    return data[DATA_INDICATOR] & INDICATOR_LAST || length > size_bytes ? 0 : length;
}

void net_rom_adapt(uint8_t *bytes, size_t size_bytes, uint16_t device)
{
    size_t at = 0, length;
    do {
        length = adapt_image(bytes + at, size_bytes - at, device);
        at += length;
    } while (length);
}

void *net_rom_read(const struct machine *machine, enum machine_net_model model, size_t *size_bytes)
{
    const char *path = roms[model].path;
    *size_bytes = 0;
    if (!machine->config.rom)
        return NULL;
    FILE *file = fopen(path, "re");
    uint8_t *bytes = malloc(ROM_MAX_BYTES);
    if (file && bytes)
        *size_bytes = fread(bytes, 1, ROM_MAX_BYTES, file);
    if (file)
        fclose(file);
    if (*size_bytes) {
        net_rom_adapt(bytes, *size_bytes, roms[model].device);
        return bytes;
    }
    free(bytes);
    log_write(machine->log, LOG_INFO, "network",
              "%s is not there (package ipxe-qemu): firmware may not boot from this card", path);
    return NULL;
}
