/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Expansion ROMs of network cards: iPXE, from Debian's package ipxe-qemu. Private to src/machine.
 */
#ifndef SKEP_MACHINE_NET_ROM_H
#define SKEP_MACHINE_NET_ROM_H

#include "machine/machine_internal.h"

/* The ROM of a card of this model, malloc'ed, its size in *size_bytes. NULL where there is none to
 * be had, which is logged, or none is wanted: without firmware. */
void *net_rom_read(const struct machine *machine, enum machine_net_model model, size_t *size_bytes);

/* Makes all images of a ROM (PCI Firmware 3.0, 5.1) be for the card with this device number of the
 * vendor that they are for. What makes no sense stays as it is. */
void net_rom_adapt(uint8_t *bytes, size_t size_bytes, uint16_t device);

#endif
