/* SPDX-License-Identifier: BSD-2-Clause
 *
 * 8259A pair (Intel 8259A data sheet, order 231468; ELCR as in the ICH9 data sheet, 13.4 and
 * 13.5.1). Everything of the 8086 mode: initialization, masks, all ends of interrupt, rotation,
 * special mask, special fully nested, automatic end of interrupt, poll.
 *
 * Left out: the 8080/85 mode, and LTIM of ICW1, whose place ELCR takes. A request on an edge input
 * stays latched when the input falls before the acknowledge, so that a short pulse is not lost;
 * the real chip would then report a spurious IRQ 7. ICW3 is taken and ignored: the wiring is fixed.
 *
 * vCPU threads use the ports, any thread drives inputs; one lock.
 */
#include "dev/i8259.h"

#include "dev/ports.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { CASCADE_IRQ = 2, SPURIOUS_IRQ = 7, PORTS_EACH = 2 };

enum {
    ICW1_IC4 = 0x01,
    ICW1_SINGLE = 0x02,
    ICW1 = 0x10,
    ICW4_AUTO_EOI = 0x02,
    ICW4_NESTED = 0x10,
    OCW3 = 0x08,
    OCW3_READ_ISR = 0x01,
    OCW3_READ = 0x02,
    OCW3_POLL = 0x04,
    OCW3_SPECIAL_MASK = 0x20,
    OCW3_SET_SPECIAL_MASK = 0x40,
    POLL_REQUEST = 0x80,
};

/* Which word the next write to the odd port is. */
enum icw_state { ICW_NONE, ICW_2, ICW_3, ICW_4, ICW_STATES };

struct i8259 {
    pthread_mutex_t lock;
    struct i8259_config config;
    struct bus *bus;
    struct bus_range ranges[3];
    struct i8259_state state;
    bool intr;
};

static const uint8_t elcr_writable[2] = {0xf8, 0xde};

/* The first input of `set` in order of priority, or -1. */
static int chip_highest(const struct i8259_chip *chip, uint8_t set)
{
    for (unsigned i = 1; set && i <= 8; i++) {
        unsigned irq = (chip->lowest + i) & 7;
        if (set & (1u << irq))
            return (int)irq;
    }
    return -1;
}

static unsigned chip_rank(const struct i8259_chip *chip, int irq)
{
    return irq < 0 ? 8 : ((unsigned)irq - chip->lowest - 1) & 7;
}

/* The input that asks for service now, or -1. */
static int chip_request(const struct i8259_chip *chip, bool is_master)
{
    uint8_t in_service = chip->isr;
    if (chip->special_mask)
        in_service &= (uint8_t)~chip->imr;
    /* In special fully nested mode the slave may interrupt itself. */
    if (is_master && chip->special_nested)
        in_service &= (uint8_t) ~(1u << CASCADE_IRQ);
    int irq = chip_highest(chip, chip->irr & (uint8_t)~chip->imr);
    if (chip_rank(chip, irq) >= chip_rank(chip, chip_highest(chip, in_service)))
        return -1;
    return irq;
}

static void chip_set_line(struct i8259_chip *chip, unsigned irq, bool level)
{
    uint8_t bit = (uint8_t)(1u << irq);
    bool was = chip->lines & bit;
    if (level)
        chip->lines |= bit;
    else
        chip->lines &= (uint8_t)~bit;
    if (level && (!was || (chip->elcr & bit)))
        chip->irr |= bit;
    else if (!level && (chip->elcr & bit))
        chip->irr &= (uint8_t)~bit;
}

static void pic_update(struct i8259 *pic)
{
    chip_set_line(&pic->state.chips[0], CASCADE_IRQ,
                  chip_request(&pic->state.chips[1], false) >= 0);
    bool intr = chip_request(&pic->state.chips[0], true) >= 0;
    if (intr != pic->intr) {
        pic->intr = intr;
        irq_set(&pic->config.intr, intr);
    }
}

static void chip_acknowledge(struct i8259_chip *chip, unsigned irq)
{
    uint8_t bit = (uint8_t)(1u << irq);
    if (!(chip->elcr & bit))
        chip->irr &= (uint8_t)~bit;
    if (!chip->auto_eoi)
        chip->isr |= bit;
    else if (chip->rotate_auto_eoi)
        chip->lowest = (uint8_t)irq;
}

/* INT falls with the acknowledge, so that another request of the slave is an edge again. */
static void pic_acknowledge_slave(struct i8259 *pic, unsigned irq)
{
    chip_acknowledge(&pic->state.chips[1], irq);
    chip_set_line(&pic->state.chips[0], CASCADE_IRQ, false);
}

int i8259_acknowledge(struct i8259 *pic)
{
    pthread_mutex_lock(&pic->lock);
    struct i8259_chip *master = &pic->state.chips[0], *slave = &pic->state.chips[1];
    int irq = chip_request(master, true);
    int vector = master->vector_base + SPURIOUS_IRQ;
    if (irq >= 0) {
        chip_acknowledge(master, (unsigned)irq);
        vector = master->vector_base + irq;
    }
    if (irq == CASCADE_IRQ) {
        irq = chip_request(slave, false);
        if (irq >= 0)
            pic_acknowledge_slave(pic, (unsigned)irq);
        vector = slave->vector_base + (irq >= 0 ? irq : SPURIOUS_IRQ);
    }
    pic_update(pic);
    pthread_mutex_unlock(&pic->lock);
    return vector;
}

bool i8259_has_interrupt(struct i8259 *pic)
{
    pthread_mutex_lock(&pic->lock);
    bool intr = pic->intr;
    pthread_mutex_unlock(&pic->lock);
    return intr;
}

void i8259_set_irq(void *opaque, unsigned irq, bool level)
{
    struct i8259 *pic = opaque;
    if (irq > 15 || irq == CASCADE_IRQ)
        return;
    pthread_mutex_lock(&pic->lock);
    chip_set_line(&pic->state.chips[irq >> 3], irq & 7, level);
    pic_update(pic);
    pthread_mutex_unlock(&pic->lock);
}

static void chip_write_icw1(struct i8259_chip *chip, uint8_t value)
{
    /* The edge detectors start anew; a level that is still there asks again. */
    chip->irr = chip->lines & chip->elcr;
    chip->imr = chip->isr = 0;
    chip->lowest = 7;
    chip->special_mask = chip->read_isr = chip->poll = false;
    chip->expects_icw4 = value & ICW1_IC4;
    chip->single = value & ICW1_SINGLE;
    chip->auto_eoi = chip->rotate_auto_eoi = chip->special_nested = false;
    chip->icw = ICW_2;
}

static void chip_write_ocw2(struct i8259_chip *chip, uint8_t value)
{
    bool rotate = value & 0x80, specific = value & 0x40, eoi = value & 0x20;
    int irq = value & 7;
    if (!eoi && !specific) {
        chip->rotate_auto_eoi = rotate;
        return;
    }
    if (eoi && !specific) {
        uint8_t in_service = chip->isr;
        if (chip->special_mask)
            in_service &= (uint8_t)~chip->imr;
        irq = chip_highest(chip, in_service);
        if (irq < 0)
            return;
    }
    if (eoi)
        chip->isr &= (uint8_t) ~(1u << irq);
    if (rotate)
        chip->lowest = (uint8_t)irq;
}

static void chip_write_ocw3(struct i8259_chip *chip, uint8_t value)
{
    if (value & OCW3_SET_SPECIAL_MASK)
        chip->special_mask = value & OCW3_SPECIAL_MASK;
    if (value & OCW3_READ)
        chip->read_isr = value & OCW3_READ_ISR;
    chip->poll = value & OCW3_POLL;
}

static void chip_write_data(struct i8259_chip *chip, uint8_t value)
{
    switch (chip->icw) {
    case ICW_2:
        chip->vector_base = value & 0xf8;
        chip->icw = !chip->single ? ICW_3 : chip->expects_icw4 ? ICW_4 : ICW_NONE;
        break;
    case ICW_3: chip->icw = chip->expects_icw4 ? ICW_4 : ICW_NONE; break;
    case ICW_4:
        chip->auto_eoi = value & ICW4_AUTO_EOI;
        chip->special_nested = value & ICW4_NESTED;
        chip->icw = ICW_NONE;
        break;
    default: chip->imr = value; break;
    }
}

static void pic_write_byte(void *opaque, unsigned index, unsigned offset, uint8_t value)
{
    struct i8259 *pic = opaque;
    struct i8259_chip *chip = &pic->state.chips[index];
    pthread_mutex_lock(&pic->lock);
    if (offset == 1)
        chip_write_data(chip, value);
    else if (value & ICW1)
        chip_write_icw1(chip, value);
    else if (value & OCW3)
        chip_write_ocw3(chip, value);
    else
        chip_write_ocw2(chip, value);
    pic_update(pic);
    pthread_mutex_unlock(&pic->lock);
}

/* A read after a poll command is the acknowledge. */
static uint8_t pic_poll(struct i8259 *pic, unsigned index)
{
    struct i8259_chip *chip = &pic->state.chips[index];
    chip->poll = false;
    int irq = chip_request(chip, index == 0);
    if (irq < 0)
        return SPURIOUS_IRQ;
    if (index == 0)
        chip_acknowledge(chip, (unsigned)irq);
    else
        pic_acknowledge_slave(pic, (unsigned)irq);
    pic_update(pic);
    return (uint8_t)(POLL_REQUEST | irq);
}

static uint8_t pic_read_byte(void *opaque, unsigned index, unsigned offset)
{
    struct i8259 *pic = opaque;
    struct i8259_chip *chip = &pic->state.chips[index];
    uint8_t value;
    pthread_mutex_lock(&pic->lock);
    if (chip->poll)
        value = pic_poll(pic, index);
    else if (offset == 1)
        value = chip->imr;
    else
        value = chip->read_isr ? chip->isr : chip->irr;
    pthread_mutex_unlock(&pic->lock);
    return value;
}

static uint8_t master_read_byte(void *pic, unsigned offset)
{
    return pic_read_byte(pic, 0, offset);
}

static uint8_t slave_read_byte(void *pic, unsigned offset)
{
    return pic_read_byte(pic, 1, offset);
}

static void master_write_byte(void *pic, unsigned offset, uint8_t value)
{
    pic_write_byte(pic, 0, offset, value);
}

static void slave_write_byte(void *pic, unsigned offset, uint8_t value)
{
    pic_write_byte(pic, 1, offset, value);
}

static uint8_t elcr_read_byte(void *opaque, unsigned offset)
{
    struct i8259 *pic = opaque;
    pthread_mutex_lock(&pic->lock);
    uint8_t value = pic->state.chips[offset].elcr;
    pthread_mutex_unlock(&pic->lock);
    return value;
}

static void elcr_write_byte(void *opaque, unsigned offset, uint8_t value)
{
    struct i8259 *pic = opaque;
    struct i8259_chip *chip = &pic->state.chips[offset];
    pthread_mutex_lock(&pic->lock);
    chip->elcr = value & elcr_writable[offset];
    chip->irr = (uint8_t)((chip->irr & ~chip->elcr) | (chip->lines & chip->elcr));
    pic_update(pic);
    pthread_mutex_unlock(&pic->lock);
}

static uint64_t master_read(void *pic, uint64_t offset, unsigned size_bytes)
{
    return ports_read(master_read_byte, pic, PORTS_EACH, offset, size_bytes);
}

static void master_write(void *pic, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    ports_write(master_write_byte, pic, PORTS_EACH, offset, value, size_bytes);
}

static uint64_t slave_read(void *pic, uint64_t offset, unsigned size_bytes)
{
    return ports_read(slave_read_byte, pic, PORTS_EACH, offset, size_bytes);
}

static void slave_write(void *pic, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    ports_write(slave_write_byte, pic, PORTS_EACH, offset, value, size_bytes);
}

static uint64_t elcr_read(void *pic, uint64_t offset, unsigned size_bytes)
{
    return ports_read(elcr_read_byte, pic, PORTS_EACH, offset, size_bytes);
}

static void elcr_write(void *pic, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    ports_write(elcr_write_byte, pic, PORTS_EACH, offset, value, size_bytes);
}

/* All but the levels of the inputs, which are the other devices'. */
static void pic_clear(struct i8259 *pic)
{
    for (unsigned i = 0; i < 2; i++) {
        uint8_t lines = pic->state.chips[i].lines;
        memset(&pic->state.chips[i], 0, sizeof(pic->state.chips[i]));
        pic->state.chips[i].lines = lines;
        pic->state.chips[i].lowest = 7;
    }
    pic->state.chips[0].lines &= (uint8_t) ~(1u << CASCADE_IRQ);
    pic->intr = false;
    irq_set(&pic->config.intr, false);
}

struct i8259 *i8259_create(const struct i8259_config *config, struct bus *bus, struct error *err)
{
    struct i8259 *pic = calloc(1, sizeof(*pic));
    if (!pic) {
        error_set(err, "cannot create device", "i8259", "out of memory");
        return NULL;
    }
    pic->config = *config;
    pic->bus = bus;
    pthread_mutex_init(&pic->lock, NULL);
    pic_clear(pic);
    pic->ranges[0] = (struct bus_range){
        "i8259 master", BUS_PORT, config->master_base, PORTS_EACH, master_read, master_write, pic};
    pic->ranges[1] = (struct bus_range){
        "i8259 slave", BUS_PORT, config->slave_base, PORTS_EACH, slave_read, slave_write, pic};
    pic->ranges[2] = (struct bus_range){
        "i8259 elcr", BUS_PORT, config->elcr_base, PORTS_EACH, elcr_read, elcr_write, pic};
    if (!ports_map_all(bus, pic->ranges, 3, err)) {
        pthread_mutex_destroy(&pic->lock);
        free(pic);
        return NULL;
    }
    return pic;
}

static void i8259_reset(void *device)
{
    struct i8259 *pic = device;
    pthread_mutex_lock(&pic->lock);
    pic_clear(pic);
    pthread_mutex_unlock(&pic->lock);
}

static void chip_save(const struct i8259_chip *chip, struct save *save)
{
    save_u8(save, chip->lines);
    save_u8(save, chip->irr);
    save_u8(save, chip->imr);
    save_u8(save, chip->isr);
    save_u8(save, chip->elcr);
    save_u8(save, chip->vector_base);
    save_u8(save, chip->lowest);
    save_u8(save, chip->icw);
    save_bool(save, chip->expects_icw4);
    save_bool(save, chip->single);
    save_bool(save, chip->auto_eoi);
    save_bool(save, chip->rotate_auto_eoi);
    save_bool(save, chip->special_mask);
    save_bool(save, chip->special_nested);
    save_bool(save, chip->read_isr);
    save_bool(save, chip->poll);
}

static void chip_load(struct i8259_chip *chip, struct load *load, uint8_t writable)
{
    chip->lines = load_u8(load);
    chip->irr = load_u8(load);
    chip->imr = load_u8(load);
    chip->isr = load_u8(load);
    chip->elcr = load_u8(load);
    chip->vector_base = load_u8(load);
    chip->lowest = load_u8(load);
    chip->icw = load_u8(load);
    chip->expects_icw4 = load_bool(load);
    chip->single = load_bool(load);
    chip->auto_eoi = load_bool(load);
    chip->rotate_auto_eoi = load_bool(load);
    chip->special_mask = load_bool(load);
    chip->special_nested = load_bool(load);
    chip->read_isr = load_bool(load);
    chip->poll = load_bool(load);
    if ((chip->elcr & ~writable) || (chip->vector_base & 7) || chip->lowest > 7 ||
        chip->icw >= ICW_STATES)
        load_fail(load);
}

void i8259_state_save(const struct i8259_state *state, struct save *save)
{
    chip_save(&state->chips[0], save);
    chip_save(&state->chips[1], save);
}

bool i8259_state_load(struct i8259_state *state, struct load *load)
{
    for (unsigned i = 0; i < 2; i++)
        chip_load(&state->chips[i], load, elcr_writable[i]);
    return !load->failed;
}

bool i8259_state_intr(const struct i8259_state *state)
{
    return chip_request(&state->chips[0], true) >= 0;
}

bool i8259_state_cascade(const struct i8259_state *state)
{
    return chip_request(&state->chips[1], false) >= 0;
}

static void i8259_save(void *device, struct save *save)
{
    struct i8259 *pic = device;
    pthread_mutex_lock(&pic->lock);
    i8259_state_save(&pic->state, save);
    pthread_mutex_unlock(&pic->lock);
}

static bool i8259_load(void *device, struct load *load, uint32_t version)
{
    struct i8259 *pic = device;
    struct i8259_state state;
    bool ok = version == i8259_ops.version && i8259_state_load(&state, load);
    pthread_mutex_lock(&pic->lock);
    if (ok) {
        pic->state = state;
        pic->intr = i8259_state_intr(&state);
        irq_set(&pic->config.intr, pic->intr);
    } else {
        pic_clear(pic);
    }
    pthread_mutex_unlock(&pic->lock);
    return ok;
}

static void i8259_destroy(void *device)
{
    struct i8259 *pic = device;
    ports_unmap_all(pic->bus, pic->ranges, 3);
    pthread_mutex_destroy(&pic->lock);
    free(pic);
}

const struct device_ops i8259_ops = {
    .name = "i8259",
    .version = 1,
    .reset = i8259_reset,
    .save = i8259_save,
    .load = i8259_load,
    .destroy = i8259_destroy,
};
