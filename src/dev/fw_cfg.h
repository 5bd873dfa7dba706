/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The firmware configuration device of QEMU (its docs/specs/fw_cfg): numbered items and named files
 * that a guest reads, byte by byte or by DMA.
 */
#ifndef SKEP_DEV_FW_CFG_H
#define SKEP_DEV_FW_CFG_H

#include "base/error.h"
#include "bus/bus.h"
#include "bus/device.h"
#include "bus/ram.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum fw_cfg_key {
    FW_CFG_SIGNATURE = 0x00, /* these two are the device's own */
    FW_CFG_ID = 0x01,
    FW_CFG_UUID = 0x02,
    FW_CFG_RAM_SIZE = 0x03,
    FW_CFG_NOGRAPHIC = 0x04,
    FW_CFG_NB_CPUS = 0x05,
    FW_CFG_KERNEL_ADDR = 0x07,
    FW_CFG_KERNEL_SIZE = 0x08,
    FW_CFG_KERNEL_CMDLINE = 0x09,
    FW_CFG_INITRD_ADDR = 0x0a,
    FW_CFG_INITRD_SIZE = 0x0b,
    FW_CFG_BOOT_MENU = 0x0e,
    FW_CFG_MAX_CPUS = 0x0f,
    FW_CFG_KERNEL_ENTRY = 0x10,
    FW_CFG_KERNEL_DATA = 0x11,
    FW_CFG_INITRD_DATA = 0x12,
    FW_CFG_CMDLINE_ADDR = 0x13,
    FW_CFG_CMDLINE_SIZE = 0x14,
    FW_CFG_CMDLINE_DATA = 0x15,
    FW_CFG_SETUP_ADDR = 0x16,
    FW_CFG_SETUP_SIZE = 0x17,
    FW_CFG_SETUP_DATA = 0x18,
    FW_CFG_FILE_DIR = 0x19, /* the device's own */
    FW_CFG_FILE_FIRST = 0x20,
    FW_CFG_IRQ0_OVERRIDE = 0x8002, /* of PCs */
};

enum { FW_CFG_PORTS = 2, FW_CFG_DMA_OFFSET = 4, FW_CFG_DMA_PORTS = 8, FW_CFG_NAME_BYTES = 56 };

struct fw_cfg_config {
    uint16_t base;   /* 0x510: selector and data; the DMA register is at +4 */
    struct ram *ram; /* must outlive the device */
};

/* Bytes of an item that are not in memory: gives those at [offset, offset + size_bytes), which are
 * in the item; false when they can't be read. With the device's lock held, on a vCPU's thread. */
typedef bool fw_cfg_read_fn(void *opaque, uint64_t offset, void *buffer, size_t size_bytes);

struct fw_cfg;

/* `bus` must outlive the device. NULL and `err` filled on failure. Free with fw_cfg_ops.destroy. */
struct fw_cfg *fw_cfg_create(const struct fw_cfg_config *config, struct bus *bus,
                             struct error *err);

/* Before the guest runs; an item that is there already is replaced. False: out of memory, or one
 * too many. Bytes are copied. */
bool fw_cfg_put(struct fw_cfg *fw, unsigned key, const void *bytes, size_t size_bytes);
bool fw_cfg_put_number(struct fw_cfg *fw, unsigned key, uint64_t value, unsigned size_bytes);
bool fw_cfg_put_source(struct fw_cfg *fw, unsigned key, uint32_t size_bytes, fw_cfg_read_fn *read,
                       void *opaque);
/* A file of the directory; its name has at most FW_CFG_NAME_BYTES - 1 bytes. */
bool fw_cfg_put_file(struct fw_cfg *fw, const char *name, const void *bytes, size_t size_bytes);
bool fw_cfg_put_file_source(struct fw_cfg *fw, const char *name, uint32_t size_bytes,
                            fw_cfg_read_fn *read, void *opaque);

extern const struct device_ops fw_cfg_ops;

#endif
