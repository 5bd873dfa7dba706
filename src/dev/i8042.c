/* SPDX-License-Identifier: BSD-2-Clause
 *
 * 8042 keyboard controller (IBM Personal System/2 Hardware Interface Technical Reference,
 * "Keyboard and Auxiliary Device Controller"); ps2.h has the devices on it.
 *
 * Left out: the controller's own program memory beyond the command byte, active multiplexing.
 *
 * What a device says waits in its queue until the output buffer is free. vCPU threads use the
 * ports, any thread brings input; one lock, not held when reset or set_a20 run.
 */
#include "dev/i8042.h"

#include "dev/ports.h"
#include "dev/ps2.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { /* the controller */
       STATUS_OUTPUT_FULL = 0x01,
       STATUS_SYSTEM = 0x04,
       STATUS_COMMAND = 0x08,
       STATUS_UNLOCKED = 0x10,
       STATUS_AUX = 0x20,
       MODE_KEYBOARD_IRQ = 0x01,
       MODE_MOUSE_IRQ = 0x02,
       MODE_SYSTEM = 0x04,
       MODE_KEYBOARD_OFF = 0x10,
       MODE_MOUSE_OFF = 0x20,
       MODE_TRANSLATE = 0x40,
       OUTPUT_NOT_RESET = 0x01,
       OUTPUT_A20 = 0x02,
       SELF_TEST_PASSED = 0x55,
};

struct kbc_state {
    uint8_t mode; /* the command byte */
    uint8_t output_port;
    uint8_t command; /* waits for its argument at the data port; 0: none */
    uint8_t status;  /* STATUS_SYSTEM and STATUS_COMMAND */
    uint8_t data;    /* output buffer */
    bool full, from_mouse;
    bool is_answer;    /* of the controller */
    uint8_t held_data; /* a device's byte that an answer has displaced comes back after it */
    bool held, held_from_mouse;
    bool translate_break; /* translation saw 0xf0 */
    struct ps2_keyboard keyboard;
    struct ps2_mouse mouse;
};

struct i8042 {
    pthread_mutex_t lock;
    struct i8042_config config;
    struct bus *bus;
    struct bus_range ranges[2];
    struct kbc_state s;
    bool keyboard_irq, mouse_irq;
    bool reset_wanted; /* told when the lock is free */
};

/* --- the controller's output buffer --- */

static void kbc_update_irqs(struct i8042 *kbc)
{
    const struct kbc_state *s = &kbc->s;
    bool keyboard = s->full && !s->from_mouse && (s->mode & MODE_KEYBOARD_IRQ);
    bool mouse = s->full && s->from_mouse && (s->mode & MODE_MOUSE_IRQ);
    if (keyboard != kbc->keyboard_irq) {
        kbc->keyboard_irq = keyboard;
        irq_set(&kbc->config.keyboard_irq, keyboard);
    }
    if (mouse != kbc->mouse_irq) {
        kbc->mouse_irq = mouse;
        irq_set(&kbc->config.mouse_irq, mouse);
    }
}

static void kbc_output(struct i8042 *kbc, uint8_t data, bool from_mouse)
{
    kbc->s.data = data;
    kbc->s.full = true;
    kbc->s.from_mouse = from_mouse;
    kbc->s.is_answer = false;
}

/* An answer of the controller goes before what is in the buffer: the guest waits for it now. */
static void kbc_answer_as(struct i8042 *kbc, uint8_t data, bool from_mouse)
{
    struct kbc_state *s = &kbc->s;
    if (s->full && !s->is_answer && !s->held) {
        s->held = true;
        s->held_data = s->data;
        s->held_from_mouse = s->from_mouse;
    }
    kbc_output(kbc, data, from_mouse);
    s->is_answer = true;
}

static void kbc_answer(struct i8042 *kbc, uint8_t data)
{
    kbc_answer_as(kbc, data, false);
}

/* Set 2 to set 1; false when nothing comes of the byte (0xf0 marks the next one as a break). */
static bool kbc_translate(struct kbc_state *s, uint8_t *byte)
{
    if (*byte == 0xf0) {
        s->translate_break = true;
        return false;
    }
    uint8_t break_bit = s->translate_break ? 0x80 : 0;
    s->translate_break = false;
    if (*byte == 0x02 || *byte == 0x7f) { /* also F7 and SysRq, and "set 2" */
        *byte = (*byte == 0x02 ? 0x41 : 0x54) | break_bit;
        return true;
    }
    for (unsigned i = 1; i < 128; i++) {
        if (ps2_set2_of_set1[i] == *byte) {
            *byte = (uint8_t)(i | break_bit);
            break;
        }
    }
    return true;
}

/* Moves the next byte of a device into a free output buffer. */
static void kbc_advance(struct i8042 *kbc)
{
    struct kbc_state *s = &kbc->s;
    if (!s->full && s->held) {
        s->held = false;
        kbc_output(kbc, s->held_data, s->held_from_mouse);
    }
    while (!s->full && !(s->mode & MODE_KEYBOARD_OFF) && s->keyboard.queue.count) {
        uint8_t byte = ps2_queue_get(&s->keyboard.queue);
        s->keyboard.last = byte;
        if (!(s->mode & MODE_TRANSLATE) || kbc_translate(s, &byte))
            kbc_output(kbc, byte, false);
    }
    if (!s->full && !(s->mode & MODE_MOUSE_OFF) && s->mouse.queue.count) {
        s->mouse.last = ps2_queue_get(&s->mouse.queue);
        kbc_output(kbc, s->mouse.last, true);
    }
}

/* --- input --- */

bool i8042_key(struct i8042 *kbc, unsigned scancode, bool pressed)
{
    pthread_mutex_lock(&kbc->lock);
    bool taken = ps2_keyboard_key(&kbc->s.keyboard, scancode, pressed);
    kbc_advance(kbc);
    kbc_update_irqs(kbc);
    pthread_mutex_unlock(&kbc->lock);
    return taken;
}

void i8042_mouse(struct i8042 *kbc, int dx, int dy, int dz, unsigned buttons)
{
    pthread_mutex_lock(&kbc->lock);
    ps2_mouse_move(&kbc->s.mouse, dx, dy, dz, buttons);
    kbc_advance(kbc);
    kbc_update_irqs(kbc);
    pthread_mutex_unlock(&kbc->lock);
}

/* --- the controller's ports --- */

static void kbc_set_output_port(struct i8042 *kbc, uint8_t value)
{
    if (!(value & OUTPUT_NOT_RESET))
        kbc->reset_wanted = true;
    kbc->s.output_port = value | OUTPUT_NOT_RESET;
}

static uint8_t kbc_output_port(const struct i8042 *kbc)
{
    const struct kbc_state *s = &kbc->s;
    return (uint8_t)((s->output_port & 0xcf) | (s->full && !s->from_mouse ? 0x10 : 0) |
                     (s->full && s->from_mouse ? 0x20 : 0));
}

static void kbc_self_test(struct i8042 *kbc)
{
    struct kbc_state *s = &kbc->s;
    s->status |= STATUS_SYSTEM;
    s->mode = MODE_TRANSLATE | MODE_KEYBOARD_OFF | MODE_MOUSE_OFF | MODE_SYSTEM;
    ps2_queue_clear(&s->keyboard.queue);
    ps2_queue_clear(&s->mouse.queue);
    s->full = s->held = s->translate_break = false;
    kbc_answer(kbc, SELF_TEST_PASSED);
}

static void kbc_command(struct i8042 *kbc, uint8_t value)
{
    struct kbc_state *s = &kbc->s;
    s->status |= STATUS_COMMAND;
    s->command = 0;
    switch (value) {
    case 0x20: kbc_answer(kbc, s->mode); break;
    case 0x60: /* command byte */
    case 0xd1: /* output port */
    case 0xd2: /* as if from the keyboard */
    case 0xd3: /* as if from the mouse */
    case 0xd4: /* to the mouse */ s->command = value; break;
    case 0xa7: s->mode |= MODE_MOUSE_OFF; break;
    case 0xa8: s->mode &= (uint8_t)~MODE_MOUSE_OFF; break;
    case 0xa9:
    case 0xab: kbc_answer(kbc, 0x00); break; /* interface tests: no error */
    case 0xaa: kbc_self_test(kbc); break;
    case 0xad: s->mode |= MODE_KEYBOARD_OFF; break;
    case 0xae: s->mode &= (uint8_t)~MODE_KEYBOARD_OFF; break;
    case 0xc0: kbc_answer(kbc, 0x80); break; /* input port: keyboard not locked */
    case 0xd0: kbc_answer(kbc, kbc_output_port(kbc)); break;
    case 0xdd: s->output_port &= (uint8_t)~OUTPUT_A20; break;
    case 0xdf: s->output_port |= OUTPUT_A20; break;
    default:
        /* 0xf0 to 0xff pulse the lines whose bit is zero; only the reset line is wired. */
        if (value >= 0xf0 && !(value & OUTPUT_NOT_RESET))
            kbc->reset_wanted = true;
        break;
    }
}

static void kbc_write_data(struct i8042 *kbc, uint8_t value)
{
    struct kbc_state *s = &kbc->s;
    uint8_t command = s->command;
    s->status &= (uint8_t)~STATUS_COMMAND;
    s->command = 0;
    switch (command) {
    case 0x60:
        s->mode = value & 0x7f;
        s->status =
            (uint8_t)((s->status & ~STATUS_SYSTEM) | (value & MODE_SYSTEM ? STATUS_SYSTEM : 0));
        break;
    case 0xd1: kbc_set_output_port(kbc, value); break;
    case 0xd2: kbc_answer_as(kbc, value, false); break;
    case 0xd3: kbc_answer_as(kbc, value, true); break;
    case 0xd4:
        s->mode &= (uint8_t)~MODE_MOUSE_OFF; /* else the answer would not come */
        ps2_mouse_write(&s->mouse, value);
        ps2_mouse_stream(&s->mouse);
        break;
    default:
        s->mode &= (uint8_t)~MODE_KEYBOARD_OFF;
        ps2_keyboard_write(&s->keyboard, value);
        break;
    }
}

/* Updates the lines, unlocks and tells what must be told without the lock. */
static void kbc_unlock(struct i8042 *kbc, bool a20_before)
{
    kbc_advance(kbc);
    kbc_update_irqs(kbc);
    bool reset = kbc->reset_wanted, a20 = kbc->s.output_port & OUTPUT_A20;
    kbc->reset_wanted = false;
    pthread_mutex_unlock(&kbc->lock);
    if (a20 != a20_before && kbc->config.set_a20)
        kbc->config.set_a20(kbc->config.opaque, a20);
    if (reset && kbc->config.reset)
        kbc->config.reset(kbc->config.opaque);
}

static void kbc_write_byte(struct i8042 *kbc, bool is_command, uint8_t value)
{
    pthread_mutex_lock(&kbc->lock);
    bool a20 = kbc->s.output_port & OUTPUT_A20;
    if (is_command)
        kbc_command(kbc, value);
    else
        kbc_write_data(kbc, value);
    kbc_unlock(kbc, a20);
}

static void data_write_byte(void *kbc, unsigned offset, uint8_t value)
{
    kbc_write_byte(kbc, false, value);
}

static void command_write_byte(void *kbc, unsigned offset, uint8_t value)
{
    kbc_write_byte(kbc, true, value);
}

/* The interrupt falls before the next byte raises it again. */
static uint8_t data_read_byte(void *opaque, unsigned offset)
{
    struct i8042 *kbc = opaque;
    pthread_mutex_lock(&kbc->lock);
    uint8_t value = kbc->s.data;
    kbc->s.full = false;
    kbc_update_irqs(kbc);
    ps2_mouse_stream(&kbc->s.mouse); /* movement that waited for room */
    kbc_advance(kbc);
    kbc_update_irqs(kbc);
    pthread_mutex_unlock(&kbc->lock);
    return value;
}

static uint8_t status_read_byte(void *opaque, unsigned offset)
{
    struct i8042 *kbc = opaque;
    pthread_mutex_lock(&kbc->lock);
    const struct kbc_state *s = &kbc->s;
    uint8_t value = (uint8_t)(s->status | STATUS_UNLOCKED | (s->full ? STATUS_OUTPUT_FULL : 0) |
                              (s->full && s->from_mouse ? STATUS_AUX : 0));
    pthread_mutex_unlock(&kbc->lock);
    return value;
}

static uint64_t data_read(void *kbc, uint64_t offset, unsigned size_bytes)
{
    return ports_read(data_read_byte, kbc, 1, offset, size_bytes);
}

static void data_write(void *kbc, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    ports_write(data_write_byte, kbc, 1, offset, value, size_bytes);
}

static uint64_t command_read(void *kbc, uint64_t offset, unsigned size_bytes)
{
    return ports_read(status_read_byte, kbc, 1, offset, size_bytes);
}

static void command_write(void *kbc, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    ports_write(command_write_byte, kbc, 1, offset, value, size_bytes);
}

/* As firmware finds it: both ports work, translation is on, A20 is open. */
static void kbc_clear(struct i8042 *kbc)
{
    memset(&kbc->s, 0, sizeof(kbc->s));
    kbc->s.mode = MODE_KEYBOARD_IRQ | MODE_MOUSE_IRQ | MODE_TRANSLATE;
    kbc->s.output_port = OUTPUT_NOT_RESET | OUTPUT_A20;
    ps2_keyboard_defaults(&kbc->s.keyboard, true);
    ps2_mouse_defaults(&kbc->s.mouse);
    kbc->reset_wanted = false;
    kbc->keyboard_irq = kbc->mouse_irq = false;
    irq_set(&kbc->config.keyboard_irq, false);
    irq_set(&kbc->config.mouse_irq, false);
}

struct i8042 *i8042_create(const struct i8042_config *config, struct bus *bus, struct error *err)
{
    struct i8042 *kbc = calloc(1, sizeof(*kbc));
    if (!kbc) {
        error_set(err, "cannot create device", "i8042", "out of memory");
        return NULL;
    }
    kbc->config = *config;
    kbc->bus = bus;
    pthread_mutex_init(&kbc->lock, NULL);
    kbc_clear(kbc);
    kbc->ranges[0] = (struct bus_range){"i8042 data", BUS_PORT, config->data_base, 1, data_read,
                                        data_write,   kbc};
    kbc->ranges[1] = (struct bus_range){
        "i8042 command", BUS_PORT, config->command_base, 1, command_read, command_write, kbc};
    if (!ports_map_all(bus, kbc->ranges, 2, err)) {
        pthread_mutex_destroy(&kbc->lock);
        free(kbc);
        return NULL;
    }
    return kbc;
}

static void i8042_reset(void *device)
{
    struct i8042 *kbc = device;
    pthread_mutex_lock(&kbc->lock);
    kbc_clear(kbc);
    pthread_mutex_unlock(&kbc->lock);
}

static void i8042_save(void *device, struct save *save)
{
    struct i8042 *kbc = device;
    pthread_mutex_lock(&kbc->lock);
    const struct kbc_state *s = &kbc->s;
    save_u8(save, s->mode);
    save_u8(save, s->output_port);
    save_u8(save, s->command);
    save_u8(save, s->status);
    save_u8(save, s->data);
    save_bool(save, s->full);
    save_bool(save, s->from_mouse);
    save_bool(save, s->is_answer);
    save_u8(save, s->held_data);
    save_bool(save, s->held);
    save_bool(save, s->held_from_mouse);
    save_bool(save, s->translate_break);
    ps2_keyboard_save(&s->keyboard, save);
    ps2_mouse_save(&s->mouse, save);
    save_bool(save, kbc->keyboard_irq);
    save_bool(save, kbc->mouse_irq);
    pthread_mutex_unlock(&kbc->lock);
}

static bool i8042_load(void *device, struct load *load, uint32_t version)
{
    struct i8042 *kbc = device;
    struct kbc_state s = {0};
    s.mode = load_u8(load);
    s.output_port = load_u8(load);
    s.command = load_u8(load);
    s.status = load_u8(load);
    s.data = load_u8(load);
    s.full = load_bool(load);
    s.from_mouse = load_bool(load);
    s.is_answer = load_bool(load);
    s.held_data = load_u8(load);
    s.held = load_bool(load);
    s.held_from_mouse = load_bool(load);
    s.translate_break = load_bool(load);
    ps2_keyboard_load(&s.keyboard, load);
    ps2_mouse_load(&s.mouse, load);
    bool keyboard_irq = load_bool(load), mouse_irq = load_bool(load);
    if ((s.mode & 0x80) || (s.status & ~(STATUS_SYSTEM | STATUS_COMMAND)) ||
        !(s.output_port & OUTPUT_NOT_RESET))
        load_fail(load);
    bool ok = version == i8042_ops.version && !load->failed;
    pthread_mutex_lock(&kbc->lock);
    if (ok) {
        kbc->s = s;
        kbc->keyboard_irq = keyboard_irq; /* who receives the lines saves their levels */
        kbc->mouse_irq = mouse_irq;
    } else {
        kbc_clear(kbc);
    }
    pthread_mutex_unlock(&kbc->lock);
    return ok;
}

static void i8042_destroy(void *device)
{
    struct i8042 *kbc = device;
    ports_unmap_all(kbc->bus, kbc->ranges, 2);
    pthread_mutex_destroy(&kbc->lock);
    free(kbc);
}

const struct device_ops i8042_ops = {
    .name = "i8042",
    .version = 1,
    .reset = i8042_reset,
    .save = i8042_save,
    .load = i8042_load,
    .destroy = i8042_destroy,
};
