/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Fuzz target: what the user network does with a guest's frame before libslirp gets it, and with a
 * large one for the guest. The input's first bytes are the marks of the network card.
 */
#include "host/frame.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { HEAD_BYTES = 7, SEGMENT_BYTES = 32000 };

static void emit(void *opaque, const uint8_t *frame, size_t size_bytes)
{
    assert(size_bytes <= FRAME_ETHERNET_BYTES + FRAME_MTU_BYTES);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct frame_address host = {0x0a000202, 80, false}, http = {0x0a000204, 80, true};
    struct frame_parts parts;
    if (size <= HEAD_BYTES || size > HEAD_BYTES + NET_FRAME_MAX_BYTES)
        return 0;
    const struct net_offload offload = {
        .needs_checksum = data[0] & 1,
        .gso = data[0] >> 1 & 3,
        .checksum_start = (uint16_t)(data[1] | data[2] << 8),
        .checksum_offset = (uint16_t)(data[3] | data[4] << 8),
        .segment_bytes = (uint16_t)(data[5] | data[6] << 8),
    };
    const size_t size_bytes = size - HEAD_BYTES;
    uint8_t *frame = malloc(size_bytes); /* of its own size, to see what goes beyond */
    memcpy(frame, data + HEAD_BYTES, size_bytes);
    frame_raise_segment_size(frame, size_bytes, SEGMENT_BYTES, offload.needs_checksum);
    if (frame_complete(frame, size_bytes, &offload)) {
        frame_change_address(frame, size_bytes, &host, http.ipv4);
        frame_change_address(frame, size_bytes, &http, host.ipv4);
    }
    if (frame_parse(frame, size_bytes, &parts))
        frame_split(frame, &parts, emit, NULL);
    free(frame);
    return 0;
}
