/* SPDX-License-Identifier: BSD-2-Clause
 *
 * CRC-32C (Castagnoli; RFC 3720, B.4): the checksum of saved machines. By the processor's own
 * instruction where it has it. Any thread.
 */
#ifndef SKEP_BASE_CRC32C_H
#define SKEP_BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

uint32_t crc32c(const void *bytes, size_t size_bytes);

/* Those of four blocks that follow each other, at once: the instruction takes three cycles, but a
 * new one can begin each. `size_bytes` of one block, a multiple of 8. */
void crc32c_four(const void *bytes, size_t size_bytes, uint32_t sums[4]);

#endif
