/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Numbers as SCSI has them: the most significant byte first, at any address.
 */
#ifndef SKEP_DEV_STORAGE_BYTES_BE_H
#define SKEP_DEV_STORAGE_BYTES_BE_H

#include <stdint.h>

static inline uint64_t be_get(const uint8_t *at, unsigned size_bytes)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < size_bytes; i++)
        value = value << 8 | at[i];
    return value;
}

static inline void be_put(uint8_t *at, uint64_t value, unsigned size_bytes)
{
    for (unsigned i = size_bytes; i-- > 0; value >>= 8)
        at[i] = (uint8_t)value;
}

#endif
