/* SPDX-License-Identifier: BSD-2-Clause
 *
 * 16550A UART (National Semiconductor PC16550D data sheet, chapters 7 and 8): FIFOs, all interrupt
 * sources with their priorities, loopback, modem lines, break.
 *
 * Left out: the time that a character takes on the line (sent bytes go to the back end at once;
 * only the receive timeout is timed), parity and word length (bytes stay whole), DMA pins. OUT2
 * does not gate the interrupt line.
 *
 * Bytes that the back end does not take wait in a queue, and the transmitter reads as busy until
 * it is empty. A guest that goes on without looking (Linux's console gives up waiting after 10 ms)
 * has TX_QUEUE_BYTES until bytes are lost.
 *
 * vCPU threads use the ports, the loop's thread brings input, the clock's the timeout; one lock,
 * held while the back end's write() is called but not for its accept().
 */
#include "dev/uart16550.h"

#include "dev/ports.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { PORTS = 8, FIFO_BYTES = 16, TX_QUEUE_BYTES = 65536, INPUT_CLOCK_HZ = 1843200 };

enum { REG_DATA, REG_IER, REG_IIR_FCR, REG_LCR, REG_MCR, REG_LSR, REG_MSR, REG_SCR };

enum {
    IER_RECEIVE = 0x01,
    IER_TRANSMIT = 0x02,
    IER_LINE = 0x04,
    IER_MODEM = 0x08,
    IER_MASK = 0x0f,
    IIR_MODEM = 0x00,
    IIR_NONE = 0x01,
    IIR_TRANSMIT = 0x02,
    IIR_RECEIVE = 0x04,
    IIR_LINE = 0x06,
    IIR_TIMEOUT = 0x0c,
    IIR_FIFO = 0xc0,
    FCR_ENABLE = 0x01,
    FCR_CLEAR_RX = 0x02,
    FCR_STORED = 0xc9, /* enable, DMA mode, trigger level */
    LCR_STOP2 = 0x04,
    LCR_PARITY = 0x08,
    LCR_BREAK = 0x40,
    LCR_DLAB = 0x80,
    MCR_DTR = 0x01,
    MCR_RTS = 0x02,
    MCR_OUT1 = 0x04,
    MCR_OUT2 = 0x08,
    MCR_LOOPBACK = 0x10,
    MCR_MASK = 0x1f,
    LSR_READY = 0x01,
    LSR_OVERRUN = 0x02,
    LSR_BREAK = 0x10,
    LSR_ERRORS = 0x1e, /* overrun, parity, framing, break */
    LSR_THR_EMPTY = 0x20,
    LSR_EMPTY = 0x40,
    LSR_FIFO_ERROR = 0x80,
    MSR_DELTA = 0x0f,
    MSR_TERI = 0x04,
    MSR_CTS = 0x10,
    MSR_DSR = 0x20,
    MSR_RI = 0x40,
    MSR_DCD = 0x80,
};

struct uart_state {
    uint8_t ier, fcr, lcr, mcr, msr, scr;
    uint8_t lsr_errors; /* LSR_ERRORS that have not been read */
    uint16_t divisor;
    bool transmit_pending; /* the transmitter-empty interrupt */
    bool timeout_pending;
    bool last_break; /* loopback: the break condition is on the line */
    uint8_t rx[FIFO_BYTES], rx_errors[FIFO_BYTES]; /* the oldest first */
    uint8_t rx_count;
};

struct uart16550 {
    pthread_mutex_t lock;
    struct uart16550_config config;
    struct bus *bus;
    struct clock *clock;
    struct clock_timer *timer;
    struct bus_range range;
    struct log_limit log_limit;
    struct uart_state s;
    uint64_t timeout_ns; /* deadline of the receive timeout; 0: none */
    bool connected;
    bool starved; /* the back end has been told that there is no room */
    bool irq;
    bool resync;                /* after a load: look at the back end as soon as the clock runs */
    uint32_t tx_head, tx_count; /* queue as a ring */
    uint8_t tx[TX_QUEUE_BYTES];
};

static unsigned uart_rx_capacity(const struct uart16550 *uart)
{
    return uart->s.fcr & FCR_ENABLE ? FIFO_BYTES : 1;
}

static unsigned uart_trigger(const struct uart16550 *uart)
{
    static const uint8_t levels[4] = {1, 4, 8, 14};
    return uart->s.fcr & FCR_ENABLE ? levels[uart->s.fcr >> 6] : 1;
}

/* The source of highest priority that is enabled and pending. */
static uint8_t uart_source(const struct uart16550 *uart)
{
    const struct uart_state *s = &uart->s;
    if ((s->ier & IER_LINE) && s->lsr_errors)
        return IIR_LINE;
    if ((s->ier & IER_RECEIVE) && s->rx_count >= uart_trigger(uart))
        return IIR_RECEIVE;
    if ((s->ier & IER_RECEIVE) && s->timeout_pending)
        return IIR_TIMEOUT;
    if ((s->ier & IER_TRANSMIT) && s->transmit_pending)
        return IIR_TRANSMIT;
    if ((s->ier & IER_MODEM) && (s->msr & MSR_DELTA))
        return IIR_MODEM;
    return IIR_NONE;
}

static void uart_update_irq(struct uart16550 *uart)
{
    bool level = uart_source(uart) != IIR_NONE;
    if (level != uart->irq) {
        uart->irq = level;
        irq_set(&uart->config.irq, level);
    }
}

/* Four characters of the programmed length and speed. */
static uint64_t uart_timeout_ns(const struct uart16550 *uart)
{
    unsigned bits = 1 + 5 + (uart->s.lcr & 3) + 1; /* start, data, stop */
    bits += (uart->s.lcr & LCR_STOP2 ? 1 : 0) + (uart->s.lcr & LCR_PARITY ? 1 : 0);
    unsigned divisor = uart->s.divisor ? uart->s.divisor : 1;
    return UINT64_C(4) * bits * 16 * divisor * 1000000000 / INPUT_CLOCK_HZ;
}

/* The timeout starts over whenever a byte comes or goes. */
static void uart_restart_timeout(struct uart16550 *uart)
{
    uart->s.timeout_pending = false;
    uart->timeout_ns = 0;
    if ((uart->s.fcr & FCR_ENABLE) && uart->s.rx_count) {
        uart->timeout_ns = clock_now_ns(uart->clock) + uart_timeout_ns(uart);
        if (!uart->resync)
            clock_timer_arm(uart->timer, uart->timeout_ns);
    } else if (!uart->resync) {
        clock_timer_cancel(uart->timer);
    }
}

/* An error shows in LSR when its byte becomes the oldest. */
static void uart_expose_error(struct uart16550 *uart)
{
    if (uart->s.rx_count)
        uart->s.lsr_errors |= uart->s.rx_errors[0];
}

static void uart_push(struct uart16550 *uart, uint8_t byte, uint8_t errors)
{
    struct uart_state *s = &uart->s;
    if (s->rx_count >= uart_rx_capacity(uart)) {
        s->lsr_errors |= LSR_OVERRUN;
        /* A lone holding register is overwritten; a full FIFO keeps what it has. */
        if (!(s->fcr & FCR_ENABLE)) {
            s->rx[0] = byte;
            s->rx_errors[0] = errors;
            uart_expose_error(uart);
        }
        return;
    }
    s->rx[s->rx_count] = byte;
    s->rx_errors[s->rx_count] = errors;
    if (s->rx_count++ == 0)
        uart_expose_error(uart);
    uart_restart_timeout(uart);
}

static uint8_t uart_pop(struct uart16550 *uart)
{
    struct uart_state *s = &uart->s;
    if (!s->rx_count)
        return 0;
    uint8_t byte = s->rx[0];
    s->rx_count--;
    memmove(s->rx, s->rx + 1, s->rx_count);
    memmove(s->rx_errors, s->rx_errors + 1, s->rx_count);
    uart_expose_error(uart);
    uart_restart_timeout(uart);
    return byte;
}

static void uart_clear_rx(struct uart16550 *uart)
{
    uart->s.rx_count = 0;
    uart_restart_timeout(uart);
}

/* Hands the queue to the back end as far as it takes it. */
static void uart_flush(struct uart16550 *uart)
{
    const struct char_backend *backend = uart->config.backend;
    bool was_busy = uart->tx_count > 0;
    if (!backend)
        uart->tx_count = 0;
    while (uart->tx_count) {
        size_t run = TX_QUEUE_BYTES - uart->tx_head;
        if (run > uart->tx_count)
            run = uart->tx_count;
        size_t taken = backend->write(backend->opaque, uart->tx + uart->tx_head, run);
        if (taken > run)
            taken = run;
        uart->tx_head = (uint32_t)(uart->tx_head + taken) % TX_QUEUE_BYTES;
        uart->tx_count -= (uint32_t)taken;
        if (taken < run)
            break;
    }
    if (was_busy && !uart->tx_count)
        uart->s.transmit_pending = true;
}

static void uart_transmit(struct uart16550 *uart, uint8_t byte)
{
    uart->s.transmit_pending = false;
    if (uart->s.mcr & MCR_LOOPBACK) {
        if (!(uart->s.lcr & LCR_BREAK))
            uart_push(uart, byte, 0);
        uart->s.transmit_pending = uart->tx_count == 0;
        return;
    }
    if (uart->tx_count == TX_QUEUE_BYTES) {
        log_limited(uart->config.log, &uart->log_limit, LOG_WARNING, "uart16550",
                    "port %#x: the guest does not wait for the line; output is lost",
                    uart->config.base);
        return;
    }
    bool was_stuck = uart->tx_count > 0;
    uart->tx[(uart->tx_head + uart->tx_count) % TX_QUEUE_BYTES] = byte;
    uart->tx_count++;
    if (!was_stuck)
        uart_flush(uart);
}

/* CTS stays with no peer: flow control would stop a guest whose output is dropped anyway. */
static uint8_t uart_modem_inputs(const struct uart16550 *uart)
{
    uint8_t mcr = uart->s.mcr;
    if (!(mcr & MCR_LOOPBACK))
        return (uint8_t)(MSR_CTS | (uart->connected ? MSR_DSR | MSR_DCD : 0));
    return (uint8_t)((mcr & MCR_RTS ? MSR_CTS : 0) | (mcr & MCR_DTR ? MSR_DSR : 0) |
                     (mcr & MCR_OUT1 ? MSR_RI : 0) | (mcr & MCR_OUT2 ? MSR_DCD : 0));
}

static void uart_update_modem(struct uart16550 *uart)
{
    uint8_t lines = uart_modem_inputs(uart);
    uint8_t old = uart->s.msr & (uint8_t)~MSR_DELTA;
    uint8_t delta = (uint8_t)((old ^ lines) >> 4);
    /* Of the ring indicator only the end of the ring counts. */
    if (lines & MSR_RI)
        delta &= (uint8_t)~MSR_TERI;
    uart->s.msr = (uint8_t)(lines | (uart->s.msr & MSR_DELTA) | delta);
}

/* After a load the peer and its room may be other than they were when the machine was saved. */
static void uart_resync(struct uart16550 *uart)
{
    uart->resync = false;
    uart_update_modem(uart);
    uart_flush(uart);
    if (uart->timeout_ns)
        clock_timer_arm(uart->timer, uart->timeout_ns);
}

static void uart_on_timer(void *opaque)
{
    struct uart16550 *uart = opaque;
    pthread_mutex_lock(&uart->lock);
    if (uart->timeout_ns && clock_now_ns(uart->clock) >= uart->timeout_ns) {
        uart->timeout_ns = 0;
        uart->s.timeout_pending = true;
    }
    if (uart->resync)
        uart_resync(uart);
    uart_update_irq(uart);
    pthread_mutex_unlock(&uart->lock);
}

static uint8_t uart_read_lsr(struct uart16550 *uart)
{
    struct uart_state *s = &uart->s;
    uint8_t value = s->lsr_errors;
    if (s->rx_count)
        value |= LSR_READY;
    if (!uart->tx_count)
        value |= LSR_THR_EMPTY | LSR_EMPTY;
    for (unsigned i = 0; (s->fcr & FCR_ENABLE) && i < s->rx_count; i++)
        if (s->rx_errors[i])
            value |= LSR_FIFO_ERROR;
    s->lsr_errors = 0;
    if (s->rx_count)
        s->rx_errors[0] = 0;
    return value;
}

static uint8_t uart_read_iir(struct uart16550 *uart)
{
    uint8_t source = uart_source(uart);
    if (source == IIR_TRANSMIT)
        uart->s.transmit_pending = false;
    return source | (uart->s.fcr & FCR_ENABLE ? IIR_FIFO : 0);
}

static uint8_t uart_read_register(struct uart16550 *uart, unsigned offset)
{
    struct uart_state *s = &uart->s;
    uint8_t value;
    switch (offset) {
    case REG_DATA: return s->lcr & LCR_DLAB ? (uint8_t)s->divisor : uart_pop(uart);
    case REG_IER: return s->lcr & LCR_DLAB ? (uint8_t)(s->divisor >> 8) : s->ier;
    case REG_IIR_FCR: return uart_read_iir(uart);
    case REG_LCR: return s->lcr;
    case REG_MCR: return s->mcr;
    case REG_LSR: return uart_read_lsr(uart);
    case REG_MSR:
        value = s->msr;
        s->msr &= (uint8_t)~MSR_DELTA;
        return value;
    default: return s->scr;
    }
}

/* What has been sent is on the line already, so clearing the transmit FIFO does not unsend it. */
static void uart_write_fcr(struct uart16550 *uart, uint8_t value)
{
    struct uart_state *s = &uart->s;
    bool toggled = (value ^ s->fcr) & FCR_ENABLE;
    s->fcr = value & FCR_ENABLE ? value & FCR_STORED : 0;
    if (toggled || ((value & FCR_ENABLE) && (value & FCR_CLEAR_RX)))
        uart_clear_rx(uart);
}

static void uart_write_ier(struct uart16550 *uart, uint8_t value)
{
    struct uart_state *s = &uart->s;
    uint8_t rising = value & (uint8_t)~s->ier;
    s->ier = value & IER_MASK;
    if ((rising & IER_TRANSMIT) && !uart->tx_count)
        s->transmit_pending = true;
}

/* In loopback the line's own break comes in as one zero byte with its mark. */
static void uart_update_break(struct uart16550 *uart)
{
    bool on = (uart->s.lcr & LCR_BREAK) && (uart->s.mcr & MCR_LOOPBACK);
    if (on && !uart->s.last_break)
        uart_push(uart, 0, LSR_BREAK);
    uart->s.last_break = on;
}

static void uart_write_register(struct uart16550 *uart, unsigned offset, uint8_t value)
{
    struct uart_state *s = &uart->s;
    bool dlab = s->lcr & LCR_DLAB;
    switch (offset) {
    case REG_DATA:
        if (dlab)
            s->divisor = (uint16_t)((s->divisor & 0xff00) | value);
        else
            uart_transmit(uart, value);
        break;
    case REG_IER:
        if (dlab)
            s->divisor = (uint16_t)((s->divisor & 0x00ff) | value << 8);
        else
            uart_write_ier(uart, value);
        break;
    case REG_IIR_FCR: uart_write_fcr(uart, value); break;
    case REG_LCR:
        s->lcr = value;
        uart_update_break(uart);
        break;
    case REG_MCR:
        s->mcr = value & MCR_MASK;
        uart_update_modem(uart);
        uart_update_break(uart);
        break;
    case REG_SCR: s->scr = value; break;
    default: break; /* LSR and MSR are read-only */
    }
}

static bool uart_has_room(const struct uart16550 *uart)
{
    return uart->s.rx_count < uart_rx_capacity(uart) && !(uart->s.mcr & MCR_LOOPBACK);
}

/* Updates the line, unlocks, and tells a starved back end of room. */
static void uart_unlock(struct uart16550 *uart)
{
    uart_update_irq(uart);
    bool accept = uart->starved && uart_has_room(uart);
    if (accept)
        uart->starved = false;
    pthread_mutex_unlock(&uart->lock);
    if (accept)
        uart->config.backend->accept(uart->config.backend->opaque);
}

static uint8_t uart_read_byte(void *opaque, unsigned offset)
{
    struct uart16550 *uart = opaque;
    pthread_mutex_lock(&uart->lock);
    uint8_t value = uart_read_register(uart, offset);
    uart_unlock(uart);
    return value;
}

static void uart_write_byte(void *opaque, unsigned offset, uint8_t value)
{
    struct uart16550 *uart = opaque;
    pthread_mutex_lock(&uart->lock);
    uart_write_register(uart, offset, value);
    uart_unlock(uart);
}

static uint64_t uart_read(void *uart, uint64_t offset, unsigned size_bytes)
{
    return ports_read(uart_read_byte, uart, PORTS, offset, size_bytes);
}

static void uart_write(void *uart, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    ports_write(uart_write_byte, uart, PORTS, offset, value, size_bytes);
}

static size_t uart_on_receive(void *opaque, const uint8_t *bytes, size_t size_bytes)
{
    struct uart16550 *uart = opaque;
    size_t taken = 0;
    pthread_mutex_lock(&uart->lock);
    while (taken < size_bytes && uart_has_room(uart))
        uart_push(uart, bytes[taken++], 0);
    uart->starved = taken < size_bytes;
    uart_update_irq(uart);
    pthread_mutex_unlock(&uart->lock);
    return taken;
}

static void uart_on_writable(void *opaque)
{
    struct uart16550 *uart = opaque;
    pthread_mutex_lock(&uart->lock);
    uart_flush(uart);
    uart_update_irq(uart);
    pthread_mutex_unlock(&uart->lock);
}

static void uart_on_connected(void *opaque, bool is_connected)
{
    struct uart16550 *uart = opaque;
    pthread_mutex_lock(&uart->lock);
    uart->connected = is_connected;
    uart_update_modem(uart);
    uart_flush(uart); /* with no peer the back end takes all */
    uart_update_irq(uart);
    pthread_mutex_unlock(&uart->lock);
}

static void uart_on_break(void *opaque)
{
    struct uart16550 *uart = opaque;
    pthread_mutex_lock(&uart->lock);
    if (!(uart->s.mcr & MCR_LOOPBACK))
        uart_push(uart, 0, LSR_BREAK);
    uart_update_irq(uart);
    pthread_mutex_unlock(&uart->lock);
}

/* Bytes that wait for the back end were sent before the reset and still go out. */
static void uart_clear(struct uart16550 *uart)
{
    memset(&uart->s, 0, sizeof(uart->s));
    uart->s.divisor = 12; /* 9600 baud, which is as good as any */
    uart->s.msr = uart_modem_inputs(uart);
    uart->timeout_ns = 0;
    uart->resync = false;
    clock_timer_cancel(uart->timer);
    uart->irq = false;
    irq_set(&uart->config.irq, false);
}

static void uart_set_handler(struct uart16550 *uart, bool on)
{
    const struct char_backend *backend = uart->config.backend;
    struct char_handler handler = {0};
    if (on)
        handler = (struct char_handler){.receive = uart_on_receive,
                                        .writable = uart_on_writable,
                                        .connected = uart_on_connected,
                                        .send_break = uart_on_break,
                                        .opaque = uart};
    if (backend)
        backend->set_handler(backend->opaque, &handler);
}

static void uart_free(struct uart16550 *uart)
{
    if (uart->timer)
        clock_timer_close(uart->timer);
    pthread_mutex_destroy(&uart->lock);
    free(uart);
}

struct uart16550 *uart16550_create(const struct uart16550_config *config, struct bus *bus,
                                   struct clock *clock, struct error *err)
{
    struct uart16550 *uart = calloc(1, sizeof(*uart));
    if (!uart) {
        error_set(err, "cannot create device", "uart16550", "out of memory");
        return NULL;
    }
    uart->config = *config;
    uart->bus = bus;
    uart->clock = clock;
    pthread_mutex_init(&uart->lock, NULL);
    uart->timer = clock_timer_open(clock, uart_on_timer, uart);
    if (!uart->timer) {
        error_set(err, "cannot create device", "uart16550", "out of memory");
        uart_free(uart);
        return NULL;
    }
    const struct char_backend *backend = config->backend;
    uart->connected = backend && backend->is_connected(backend->opaque);
    uart_clear(uart);
    uart->range =
        (struct bus_range){"uart16550", BUS_PORT, config->base, PORTS, uart_read, uart_write, uart};
    if (!bus_map(bus, &uart->range, err)) {
        uart_free(uart);
        return NULL;
    }
    uart_set_handler(uart, true);
    return uart;
}

static void uart16550_reset(void *device)
{
    struct uart16550 *uart = device;
    pthread_mutex_lock(&uart->lock);
    uart_clear(uart);
    uart_unlock(uart);
}

static void uart16550_save(void *device, struct save *save)
{
    struct uart16550 *uart = device;
    pthread_mutex_lock(&uart->lock);
    const struct uart_state *s = &uart->s;
    save_u8(save, s->ier);
    save_u8(save, s->fcr);
    save_u8(save, s->lcr);
    save_u8(save, s->mcr);
    save_u8(save, s->msr);
    save_u8(save, s->scr);
    save_u8(save, s->lsr_errors);
    save_u16(save, s->divisor);
    save_bool(save, s->transmit_pending);
    save_bool(save, s->timeout_pending);
    save_bool(save, s->last_break);
    save_u8(save, s->rx_count);
    save_bytes(save, s->rx, s->rx_count);
    save_bytes(save, s->rx_errors, s->rx_count);
    save_u64(save, uart->timeout_ns);
    save_bool(save, uart->irq);
    save_u32(save, uart->tx_count);
    for (uint32_t i = 0; i < uart->tx_count; i++)
        save_u8(save, uart->tx[(uart->tx_head + i) % TX_QUEUE_BYTES]);
    pthread_mutex_unlock(&uart->lock);
}

static void uart_load_state(struct uart_state *s, struct load *load)
{
    s->ier = load_u8(load);
    s->fcr = load_u8(load);
    s->lcr = load_u8(load);
    s->mcr = load_u8(load);
    s->msr = load_u8(load);
    s->scr = load_u8(load);
    s->lsr_errors = load_u8(load);
    s->divisor = load_u16(load);
    s->transmit_pending = load_bool(load);
    s->timeout_pending = load_bool(load);
    s->last_break = load_bool(load);
    s->rx_count = load_u8(load);
    if ((s->ier & ~IER_MASK) || (s->fcr & ~FCR_STORED) || (s->mcr & ~MCR_MASK) ||
        (s->lsr_errors & ~LSR_ERRORS) || s->rx_count > (s->fcr & FCR_ENABLE ? FIFO_BYTES : 1)) {
        load_fail(load);
        s->rx_count = 0;
    }
    load_bytes(load, s->rx, s->rx_count);
    load_bytes(load, s->rx_errors, s->rx_count);
    for (unsigned i = 0; i < s->rx_count; i++)
        if (s->rx_errors[i] & ~LSR_ERRORS)
            load_fail(load);
}

static bool uart16550_load(void *device, struct load *load, uint32_t version)
{
    struct uart16550 *uart = device;
    struct uart_state s = {0};
    uart_load_state(&s, load);
    uint64_t timeout_ns = load_u64(load);
    bool irq = load_bool(load);
    uint32_t tx_count = load_u32(load);
    if (tx_count > TX_QUEUE_BYTES) {
        load_fail(load);
        tx_count = 0;
    }
    pthread_mutex_lock(&uart->lock);
    uart->tx_head = 0;
    uart->tx_count = 0;
    load_bytes(load, uart->tx, tx_count);
    bool ok = version == uart16550_ops.version && !load->failed;
    if (ok) {
        uart->s = s;
        uart->tx_count = tx_count;
        uart->timeout_ns = timeout_ns;
        uart->irq = irq; /* who receives the line saves its level */
        uart->resync = true;
        clock_timer_arm(uart->timer, clock_now_ns(uart->clock));
    } else {
        uart_clear(uart);
    }
    pthread_mutex_unlock(&uart->lock);
    return ok;
}

static void uart16550_destroy(void *device)
{
    struct uart16550 *uart = device;
    uart_set_handler(uart, false);
    bus_unmap(uart->bus, BUS_PORT, uart->config.base);
    uart_free(uart);
}

const struct device_ops uart16550_ops = {
    .name = "uart16550",
    .version = 1,
    .reset = uart16550_reset,
    .save = uart16550_save,
    .load = uart16550_load,
    .destroy = uart16550_destroy,
};
