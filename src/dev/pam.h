/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Programmable attribute map of a host bridge: which pieces of 0xc0000 to 0xfffff are RAM for reads
 * and for writes, and which are ROM or nothing. A part of pci_host.c.
 */
#ifndef SKEP_DEV_PAM_H
#define SKEP_DEV_PAM_H

#include "base/error.h"
#include "base/log.h"
#include "bus/bus.h"
#include "bus/physmap.h"
#include "bus/ram.h"

#include <stdint.h>

enum { PAM_REGISTERS = 7 };

struct pam;

struct pam_config {
    struct physmap *physmap;
    struct ram *ram;
    struct bus *bus;
    const struct log *log; /* may be NULL */
    uint8_t *rom;          /* ends at 1 MiB; NULL: none */
    uint32_t rom_bytes;    /* a multiple of 16 KiB, up to 256 KiB */
};

/* All must outlive it. Nothing is mapped before pam_set(). NULL: `err`. */
struct pam *pam_create(const struct pam_config *config, struct error *err);
void pam_destroy(struct pam *pam); /* NULL is fine */

/* The registers have these values now. From one thread at a time. */
void pam_set(struct pam *pam, const uint8_t registers[PAM_REGISTERS]);

#endif
