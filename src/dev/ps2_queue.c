/* SPDX-License-Identifier: BSD-2-Clause
 * What a PS/2 device has to say, until the controller takes it; see ps2.h. */
#include "dev/ps2.h"

static bool put(struct ps2_queue *queue, const uint8_t *bytes, unsigned count, unsigned limit)
{
    if (queue->count + count > limit)
        return false;
    for (unsigned i = 0; i < count; i++)
        queue->bytes[(queue->head + queue->count++) % PS2_QUEUE_BYTES] = bytes[i];
    return true;
}

uint8_t ps2_queue_get(struct ps2_queue *queue)
{
    uint8_t byte = queue->bytes[queue->head];
    queue->head = (uint16_t)((queue->head + 1) % PS2_QUEUE_BYTES);
    queue->count--;
    return byte;
}

void ps2_queue_clear(struct ps2_queue *queue)
{
    queue->head = queue->count = 0;
}

void ps2_queue_answer(struct ps2_queue *queue, uint8_t byte)
{
    put(queue, &byte, 1, PS2_QUEUE_BYTES);
}

bool ps2_queue_input(struct ps2_queue *queue, const uint8_t *bytes, unsigned count)
{
    return put(queue, bytes, count, PS2_QUEUE_BYTES - PS2_ANSWER_BYTES);
}

void ps2_queue_save(const struct ps2_queue *queue, struct save *save)
{
    save_u16(save, queue->count);
    for (unsigned i = 0; i < queue->count; i++)
        save_u8(save, queue->bytes[(queue->head + i) % PS2_QUEUE_BYTES]);
}

void ps2_queue_load(struct ps2_queue *queue, struct load *load)
{
    ps2_queue_clear(queue);
    unsigned count = load_u16(load);
    if (count > PS2_QUEUE_BYTES) {
        load_fail(load);
        return;
    }
    load_bytes(load, queue->bytes, count);
    queue->count = (uint16_t)count;
}
