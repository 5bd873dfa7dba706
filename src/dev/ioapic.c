/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The I/O APIC: 82093AA data sheet, section 3, and the EOI register at 0x40 of the ICH9 (data sheet
 * 13.5). As the data sheet says, an edge on a masked pin is lost, while a level that is still
 * asserted is delivered on unmasking. NMI, INIT, SMI and ExtINT are edges whatever the trigger mode
 * says. Polarity is kept and has no effect (see ioapic_set_irq). Left out: the serial APIC bus, so
 * the arbitration id is just the id. Runs on any thread, under one mutex.
 */
#include "dev/ioapic.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>

enum { PAGE_BYTES = 0x1000, WINDOW_SELECT = 0x00, WINDOW_DATA = 0x10, WINDOW_EOI = 0x40 };
enum { REG_ID = 0, REG_VERSION = 1, REG_ARBITRATION = 2, REG_TABLE = 0x10 };

#define ENTRY_VECTOR            UINT64_C(0xff)
#define ENTRY_DELIVERY          UINT64_C(0x700)
#define ENTRY_DELIVERY_SHIFT    8
#define ENTRY_LOGICAL           (UINT64_C(1) << 11)
#define ENTRY_POLARITY          (UINT64_C(1) << 13)
#define ENTRY_REMOTE_IRR        (UINT64_C(1) << 14)
#define ENTRY_LEVEL             (UINT64_C(1) << 15)
#define ENTRY_MASKED            (UINT64_C(1) << 16)
#define ENTRY_DESTINATION_SHIFT 56
#define ENTRY_DESTINATION       (UINT64_C(0xff) << ENTRY_DESTINATION_SHIFT)
#define ENTRY_WRITABLE                                                                             \
    (ENTRY_VECTOR | ENTRY_DELIVERY | ENTRY_LOGICAL | ENTRY_POLARITY | ENTRY_LEVEL | ENTRY_MASKED | \
     ENTRY_DESTINATION)

enum { DELIVERY_LOWEST = 1 };

struct ioapic {
    struct ioapic_config config;
    pthread_mutex_t lock;
    struct ioapic_state state;
};

/* Fixed and lowest priority know levels; the other modes only edges. */
static bool is_level(uint64_t entry)
{
    return (entry & ENTRY_LEVEL) &&
           (entry & ENTRY_DELIVERY) >> ENTRY_DELIVERY_SHIFT <= DELIVERY_LOWEST;
}

static void send(struct ioapic *ioapic, uint64_t entry)
{
    uint64_t address = UINT64_C(0xfee00000) | (entry >> ENTRY_DESTINATION_SHIFT) << 12;
    if (entry & ENTRY_LOGICAL)
        address |= 1 << 2;
    uint32_t data = (uint32_t)(entry & (ENTRY_VECTOR | ENTRY_DELIVERY));
    if (is_level(entry))
        data |= 3 << 14; /* level, asserted */
    msi_send(&ioapic->config.sink, address, data);
}

static void service_level(struct ioapic *ioapic, unsigned pin)
{
    uint64_t *entry = &ioapic->state.table[pin];
    if (!is_level(*entry) || (*entry & (ENTRY_MASKED | ENTRY_REMOTE_IRR)) ||
        !(ioapic->state.pins >> pin & 1))
        return;
    *entry |= ENTRY_REMOTE_IRR;
    send(ioapic, *entry);
}

void ioapic_set_irq(void *self, unsigned pin, bool level)
{
    struct ioapic *ioapic = self;
    if (pin >= IOAPIC_PINS)
        return;
    uint32_t bit = UINT32_C(1) << pin;
    pthread_mutex_lock(&ioapic->lock);
    bool rising = level && !(ioapic->state.pins & bit);
    ioapic->state.pins = level ? ioapic->state.pins | bit : ioapic->state.pins & ~bit;
    if (is_level(ioapic->state.table[pin]))
        service_level(ioapic, pin);
    else if (rising && !(ioapic->state.table[pin] & ENTRY_MASKED))
        send(ioapic, ioapic->state.table[pin]);
    pthread_mutex_unlock(&ioapic->lock);
}

static void end_of_interrupt(struct ioapic *ioapic, uint8_t vector)
{
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        uint64_t *entry = &ioapic->state.table[pin];
        if ((*entry & ENTRY_REMOTE_IRR) && (*entry & ENTRY_VECTOR) == vector) {
            *entry &= ~ENTRY_REMOTE_IRR;
            service_level(ioapic, pin);
        }
    }
}

void ioapic_eoi(void *self, uint8_t vector)
{
    struct ioapic *ioapic = self;
    pthread_mutex_lock(&ioapic->lock);
    end_of_interrupt(ioapic, vector);
    pthread_mutex_unlock(&ioapic->lock);
}

static uint32_t read_register(const struct ioapic *ioapic)
{
    switch (ioapic->state.select) {
    case REG_ID:
    case REG_ARBITRATION: return (uint32_t)ioapic->state.id << 24;
    case REG_VERSION: return IOAPIC_CHIP_VERSION | (IOAPIC_PINS - 1) << 16;
    }
    unsigned word = ioapic->state.select - (unsigned)REG_TABLE;
    if (word >= 2 * IOAPIC_PINS)
        return UINT32_MAX;
    return (uint32_t)(ioapic->state.table[word / 2] >> word % 2 * 32);
}

/* Guests clear a stuck remote IRR by making the pin an edge for a moment. */
static void write_entry(struct ioapic *ioapic, unsigned word, uint32_t value)
{
    unsigned pin = word / 2, shift = word % 2 * 32;
    uint64_t *entry = &ioapic->state.table[pin];
    uint64_t bits = ENTRY_WRITABLE & (UINT64_C(0xffffffff) << shift);
    *entry = (*entry & ~bits) | ((uint64_t)value << shift & bits);
    if (!is_level(*entry))
        *entry &= ~ENTRY_REMOTE_IRR;
    service_level(ioapic, pin);
}

static void write_register(struct ioapic *ioapic, uint32_t value)
{
    unsigned word = ioapic->state.select - (unsigned)REG_TABLE;
    if (ioapic->state.select == REG_ID)
        ioapic->state.id = value >> 24 & 0xf;
    else if (word < 2 * IOAPIC_PINS)
        write_entry(ioapic, word, value);
}

static uint64_t mmio_read(void *opaque, uint64_t offset, unsigned size_bytes)
{
    struct ioapic *ioapic = opaque;
    uint64_t value = 0;
    pthread_mutex_lock(&ioapic->lock);
    if (offset == WINDOW_SELECT)
        value = ioapic->state.select;
    else if (offset >= WINDOW_DATA && offset < WINDOW_DATA + 4)
        value = read_register(ioapic) >> (offset - WINDOW_DATA) * 8;
    pthread_mutex_unlock(&ioapic->lock);
    return value;
}

static void mmio_write(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    struct ioapic *ioapic = opaque;
    pthread_mutex_lock(&ioapic->lock);
    if (offset == WINDOW_SELECT)
        ioapic->state.select = (uint8_t)value;
    else if (offset == WINDOW_DATA && size_bytes >= 4)
        write_register(ioapic, (uint32_t)value);
    else if (offset == WINDOW_EOI)
        end_of_interrupt(ioapic, (uint8_t)value);
    pthread_mutex_unlock(&ioapic->lock);
}

/* The pins are the board's and keep their levels. */
static void reset(void *device)
{
    struct ioapic *ioapic = device;
    pthread_mutex_lock(&ioapic->lock);
    ioapic->state.id = ioapic->config.id & 0xf;
    ioapic->state.select = 0;
    for (unsigned i = 0; i < IOAPIC_PINS; i++)
        ioapic->state.table[i] = ENTRY_MASKED;
    pthread_mutex_unlock(&ioapic->lock);
}

void ioapic_state_save(const struct ioapic_state *state, struct save *stream)
{
    save_u8(stream, state->id);
    save_u8(stream, state->select);
    save_u32(stream, state->pins);
    for (unsigned i = 0; i < IOAPIC_PINS; i++)
        save_u64(stream, state->table[i]);
}

bool ioapic_state_load(struct ioapic_state *state, struct load *stream)
{
    state->id = load_u8(stream);
    state->select = load_u8(stream);
    state->pins = load_u32(stream);
    if (state->id > 0xf || state->pins >> IOAPIC_PINS)
        load_fail(stream);
    for (unsigned i = 0; i < IOAPIC_PINS; i++) {
        state->table[i] = load_u64(stream);
        if ((state->table[i] & ~(ENTRY_WRITABLE | ENTRY_REMOTE_IRR)) ||
            (!is_level(state->table[i]) && (state->table[i] & ENTRY_REMOTE_IRR)))
            load_fail(stream);
    }
    return !stream->failed;
}

struct ioapic_state ioapic_get(struct ioapic *ioapic)
{
    pthread_mutex_lock(&ioapic->lock);
    struct ioapic_state state = ioapic->state;
    pthread_mutex_unlock(&ioapic->lock);
    return state;
}

static void save(void *device, struct save *stream)
{
    const struct ioapic_state state = ioapic_get(device);
    ioapic_state_save(&state, stream);
}

static bool load(void *device, struct load *stream, uint32_t version)
{
    struct ioapic *ioapic = device;
    struct ioapic_state state;
    bool ok = version == ioapic_ops.version && ioapic_state_load(&state, stream);
    pthread_mutex_lock(&ioapic->lock);
    if (ok)
        ioapic->state = state;
    else
        ioapic->state.pins = 0;
    pthread_mutex_unlock(&ioapic->lock);
    if (!ok)
        reset(ioapic);
    return ok;
}

static void destroy(void *device)
{
    struct ioapic *ioapic = device;
    bus_unmap(ioapic->config.bus, BUS_MMIO, ioapic->config.base);
    pthread_mutex_destroy(&ioapic->lock);
    free(ioapic);
}

struct ioapic *ioapic_create(const struct ioapic_config *config, struct error *err)
{
    assert(!(config->base & (PAGE_BYTES - 1)));
    struct ioapic *ioapic = calloc(1, sizeof(*ioapic));
    if (!ioapic) {
        error_set(err, "cannot make the I/O APIC", NULL, "out of memory");
        return NULL;
    }
    ioapic->config = *config;
    pthread_mutex_init(&ioapic->lock, NULL);
    const struct bus_range range = {
        .name = "ioapic",
        .space = BUS_MMIO,
        .base = config->base,
        .size_bytes = PAGE_BYTES,
        .read = mmio_read,
        .write = mmio_write,
        .opaque = ioapic,
    };
    if (!bus_map(config->bus, &range, err)) {
        pthread_mutex_destroy(&ioapic->lock);
        free(ioapic);
        return NULL;
    }
    reset(ioapic);
    return ioapic;
}

const struct device_ops ioapic_ops = {
    .name = "ioapic",
    .version = 1,
    .reset = reset,
    .save = save,
    .load = load,
    .destroy = destroy,
};
