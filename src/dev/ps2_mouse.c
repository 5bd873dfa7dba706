/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A PS/2 mouse with wheel and five buttons (IBM Personal System/2 Hardware Interface Technical
 * Reference, "Mouse"; the knocks of IntelliMouse and its Explorer).
 */
#include "dev/ps2.h"

#include <string.h>

enum { PACKET_MAX_BYTES = 4, MOVEMENT_MAX = 4096 /* that piles up while nobody reads */ };

void ps2_mouse_defaults(struct ps2_mouse *mouse)
{
    ps2_queue_clear(&mouse->queue);
    mouse->reporting = mouse->remote = mouse->scale2 = mouse->wrap = false;
    mouse->command = 0;
    mouse->rate = 100;
    mouse->resolution = 2;
    mouse->dx = mouse->dy = mouse->dz = 0;
}

static int32_t clamp(int32_t value, int32_t low, int32_t high)
{
    return value < low ? low : value > high ? high : value;
}

/* 2:1 scaling of stream mode, by the reference's table. */
static int32_t mouse_scale(int32_t value)
{
    static const uint8_t table[6] = {0, 1, 1, 3, 6, 9};
    int32_t size = value < 0 ? -value : value;
    size = size < 6 ? table[size] : 2 * size;
    return value < 0 ? -size : size;
}

/* Takes what one packet can tell out of the pending movement. */
static unsigned mouse_packet(struct ps2_mouse *mouse, bool scaled, uint8_t *bytes)
{
    int32_t dx = clamp(mouse->dx, -127, 127), dy = clamp(mouse->dy, -127, 127);
    int32_t dz = clamp(mouse->dz, mouse->id == 4 ? -7 : -127, mouse->id == 4 ? 7 : 127);
    mouse->dx -= dx;
    mouse->dy -= dy;
    mouse->dz = mouse->id ? mouse->dz - dz : 0;
    mouse->sent_buttons = mouse->buttons;
    if (scaled && mouse->scale2) {
        dx = mouse_scale(dx);
        dy = mouse_scale(dy);
    }
    bytes[0] = (uint8_t)((mouse->buttons & 7) | 8 | (dx < 0 ? 0x10 : 0) | (dy < 0 ? 0x20 : 0));
    bytes[1] = (uint8_t)dx;
    bytes[2] = (uint8_t)dy;
    if (mouse->id == 3)
        bytes[3] = (uint8_t)dz;
    else if (mouse->id == 4)
        bytes[3] = (uint8_t)((dz & 15) | (mouse->buttons & 0x18) << 1);
    return mouse->id ? 4 : 3;
}

void ps2_mouse_stream(struct ps2_mouse *mouse)
{
    while (mouse->reporting && !mouse->remote && !mouse->wrap &&
           mouse->queue.count + PACKET_MAX_BYTES <= PS2_QUEUE_BYTES - PS2_ANSWER_BYTES &&
           (mouse->dx || mouse->dy || (mouse->id && mouse->dz) ||
            mouse->buttons != mouse->sent_buttons)) {
        uint8_t bytes[PACKET_MAX_BYTES];
        unsigned count = mouse_packet(mouse, true, bytes);
        ps2_queue_input(&mouse->queue, bytes, count);
    }
}

void ps2_mouse_move(struct ps2_mouse *mouse, int dx, int dy, int dz, unsigned buttons)
{
    const int32_t limit = MOVEMENT_MAX;
    mouse->dx = clamp(mouse->dx + clamp(dx, -limit, limit), -limit, limit);
    mouse->dy = clamp(mouse->dy - clamp(dy, -limit, limit), -limit, limit);
    mouse->dz = clamp(mouse->dz + clamp(dz, -limit, limit), -limit, limit);
    mouse->buttons = buttons & 0x1f;
    ps2_mouse_stream(mouse);
}

static void mouse_set_rate(struct ps2_mouse *mouse, uint8_t rate)
{
    mouse->rate = rate;
    mouse->rates[0] = mouse->rates[1];
    mouse->rates[1] = mouse->rates[2];
    mouse->rates[2] = rate;
    if (mouse->rates[0] != 200 || mouse->rates[2] != 80)
        return;
    if (mouse->rates[1] == 100 && mouse->id == 0)
        mouse->id = 3;
    else if (mouse->rates[1] == 200 && mouse->id)
        mouse->id = 4;
}

static void mouse_status(struct ps2_mouse *mouse)
{
    struct ps2_queue *queue = &mouse->queue;
    ps2_queue_answer(queue, PS2_ACK);
    ps2_queue_answer(queue, (uint8_t)((mouse->remote ? 0x40 : 0) | (mouse->reporting ? 0x20 : 0) |
                                      (mouse->scale2 ? 0x10 : 0) | (mouse->buttons & 1 ? 4 : 0) |
                                      (mouse->buttons & 4 ? 2 : 0) | (mouse->buttons & 2 ? 1 : 0)));
    ps2_queue_answer(queue, mouse->resolution);
    ps2_queue_answer(queue, mouse->rate);
}

static void mouse_reset(struct ps2_mouse *mouse)
{
    ps2_mouse_defaults(mouse);
    mouse->id = 0;
    memset(mouse->rates, 0, sizeof(mouse->rates));
    ps2_queue_answer(&mouse->queue, PS2_ACK);
    ps2_queue_answer(&mouse->queue, PS2_BAT_PASSED);
    ps2_queue_answer(&mouse->queue, mouse->id);
}

static void mouse_read_data(struct ps2_mouse *mouse)
{
    uint8_t bytes[PACKET_MAX_BYTES];
    unsigned count = mouse_packet(mouse, false, bytes);
    ps2_queue_answer(&mouse->queue, PS2_ACK);
    for (unsigned i = 0; i < count; i++)
        ps2_queue_answer(&mouse->queue, bytes[i]);
}

static void mouse_command(struct ps2_mouse *mouse, uint8_t value)
{
    struct ps2_queue *queue = &mouse->queue;
    switch (value) {
    case 0xe6: mouse->scale2 = false; break;
    case 0xe7: mouse->scale2 = true; break;
    case 0xe8: /* resolution */
    case 0xf3: mouse->command = value; break;
    case 0xe9: mouse_status(mouse); return;
    case 0xea: mouse->remote = false; break;
    case 0xeb: mouse_read_data(mouse); return;
    case 0xec: mouse->wrap = false; break;
    case 0xee: mouse->wrap = true; break;
    case 0xf0: mouse->remote = true; break;
    case 0xf2:
        ps2_queue_answer(queue, PS2_ACK);
        ps2_queue_answer(queue, mouse->id);
        return;
    case 0xf4:
        mouse->reporting = true;
        mouse->dx = mouse->dy = mouse->dz = 0;
        mouse->sent_buttons = mouse->buttons;
        break;
    case 0xf5:
        mouse->reporting = false;
        ps2_queue_clear(queue);
        break;
    case 0xf6: ps2_mouse_defaults(mouse); break;
    case 0xfe: ps2_queue_answer(queue, mouse->last); return;
    case 0xff: mouse_reset(mouse); return;
    default: ps2_queue_answer(queue, PS2_RESEND); return;
    }
    ps2_queue_answer(queue, PS2_ACK);
}

void ps2_mouse_write(struct ps2_mouse *mouse, uint8_t value)
{
    if (mouse->wrap && value != 0xec && value != 0xff) {
        ps2_queue_answer(&mouse->queue, value);
        return;
    }
    if (!mouse->command) {
        mouse_command(mouse, value);
        return;
    }
    bool is_rate = mouse->command == 0xf3;
    mouse->command = 0;
    if (is_rate ? value == 0 || value > 200 : value > 3) {
        ps2_queue_answer(&mouse->queue, PS2_RESEND);
        return;
    }
    if (is_rate)
        mouse_set_rate(mouse, value);
    else
        mouse->resolution = value;
    ps2_queue_answer(&mouse->queue, PS2_ACK);
}

void ps2_mouse_save(const struct ps2_mouse *mouse, struct save *save)
{
    ps2_queue_save(&mouse->queue, save);
    save_bool(save, mouse->reporting);
    save_bool(save, mouse->remote);
    save_bool(save, mouse->wrap);
    save_bool(save, mouse->scale2);
    save_u8(save, mouse->command);
    save_u8(save, mouse->rate);
    save_u8(save, mouse->resolution);
    save_u8(save, mouse->id);
    save_bytes(save, mouse->rates, sizeof(mouse->rates));
    save_u8(save, mouse->buttons);
    save_u8(save, mouse->sent_buttons);
    save_u32(save, (uint32_t)mouse->dx);
    save_u32(save, (uint32_t)mouse->dy);
    save_u32(save, (uint32_t)mouse->dz);
    save_u8(save, mouse->last);
}

static int32_t load_movement(struct load *load)
{
    int32_t value = (int32_t)load_u32(load);
    if (value < -MOVEMENT_MAX || value > MOVEMENT_MAX)
        load_fail(load);
    return value;
}

void ps2_mouse_load(struct ps2_mouse *mouse, struct load *load)
{
    ps2_queue_load(&mouse->queue, load);
    mouse->reporting = load_bool(load);
    mouse->remote = load_bool(load);
    mouse->wrap = load_bool(load);
    mouse->scale2 = load_bool(load);
    mouse->command = load_u8(load);
    mouse->rate = load_u8(load);
    mouse->resolution = load_u8(load);
    mouse->id = load_u8(load);
    load_bytes(load, mouse->rates, sizeof(mouse->rates));
    mouse->buttons = load_u8(load);
    mouse->sent_buttons = load_u8(load);
    mouse->dx = load_movement(load);
    mouse->dy = load_movement(load);
    mouse->dz = load_movement(load);
    mouse->last = load_u8(load);
    if ((mouse->command && mouse->command != 0xe8 && mouse->command != 0xf3) || !mouse->rate ||
        mouse->rate > 200 || mouse->resolution > 3 ||
        (mouse->id != 0 && mouse->id != 3 && mouse->id != 4) || mouse->buttons > 0x1f ||
        mouse->sent_buttons > 0x1f)
        load_fail(load);
}
