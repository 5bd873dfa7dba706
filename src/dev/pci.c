/* SPDX-License-Identifier: BSD-2-Clause
 *
 * PCI functions on one bus (PCI Local Bus 3.0, chapter 6): configuration space, BARs, INTx. What is
 * left out and which threads run it: see pci.h. Two locks: `lock` around configuration space, and
 * `irq_lock`, taken last, around interrupt levels.
 */
#include "dev/pci.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    FUNCTIONS = PCI_SLOT_COUNT * PCI_FUNCTION_COUNT,
    FIRST_CAPABILITY = 0x40,
    ROM_BAR = PCI_BAR_COUNT, /* among the states of BARs */
    BAR_STATES,
    COMMAND_BITS = PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_PARITY |
                   PCI_COMMAND_SERR | PCI_COMMAND_INTX_DISABLE,
};

/* A wire and how many functions pull it. */
struct pci_wire {
    struct irq_line line;
    unsigned asserted;
};

struct pci_bar_state {
    struct pci_bar bar; /* size 0: not there */
    bool mapped;
    uint64_t base; /* while mapped */
};

struct pci_function {
    struct pci_bus *pci;
    struct pci_function_config config;
    unsigned devfn;
    uint8_t bytes[PCI_CONFIG_BYTES];
    uint8_t initial[PCI_CONFIG_BYTES];
    uint8_t writable[PCI_CONFIG_BYTES];
    unsigned capabilities_end; /* where the next capability may start */
    unsigned last_link;        /* the byte that links to the next capability */
    struct pci_bar_state bars[BAR_STATES];
    uint8_t *rom; /* mmap'ed, of the size of its BAR; NULL: none */

    /* Under irq_lock: */
    struct pci_wire *wire; /* NULL: none */
    bool intx, intx_disabled, intx_suppressed, intx_driven;
};

struct pci_bus {
    struct pci_bus_config config;
    pthread_mutex_t lock;
    pthread_mutex_t irq_lock;
    struct pci_function *functions[FUNCTIONS];
    struct pci_wire wires[PCI_SLOT_COUNT * 4];
    unsigned wire_count;
    struct log_limit limit;
};

struct pci_bus *pci_bus_create(const struct pci_bus_config *config, struct error *err)
{
    struct pci_bus *pci = calloc(1, sizeof(*pci));
    if (!pci) {
        error_set(err, "cannot create the PCI bus", NULL, "out of memory");
        return NULL;
    }
    pci->config = *config;
    pthread_mutex_init(&pci->lock, NULL);
    pthread_mutex_init(&pci->irq_lock, NULL);
    return pci;
}

void pci_bus_destroy(struct pci_bus *pci)
{
    if (!pci)
        return;
    for (unsigned i = 0; i < FUNCTIONS; i++)
        assert(!pci->functions[i]);
    pthread_mutex_destroy(&pci->lock);
    pthread_mutex_destroy(&pci->irq_lock);
    free(pci);
}

struct bus *pci_bus_bus(const struct pci_bus *pci)
{
    return pci->config.bus;
}

const struct log *pci_bus_log(const struct pci_bus *pci)
{
    return pci->config.log;
}

/* ---- INTx ---- */

/* Finds the wire of a function, among those that others use already. */
static struct pci_wire *wire_of(struct pci_bus *pci, unsigned slot, unsigned pin)
{
    if (!pin || !pci->config.route)
        return NULL;
    struct irq_line line = pci->config.route(pci->config.opaque, slot, pin);
    if (!line.set)
        return NULL;
    for (unsigned i = 0; i < pci->wire_count; i++) {
        struct irq_line *known = &pci->wires[i].line;
        if (known->set == line.set && known->opaque == line.opaque && known->number == line.number)
            return &pci->wires[i];
    }
    assert(pci->wire_count < sizeof(pci->wires) / sizeof(pci->wires[0]));
    struct pci_wire *wire = &pci->wires[pci->wire_count++];
    wire->line = line;
    return wire;
}

/* With irq_lock held: brings the wire to what the function's state asks for. */
static void intx_update(struct pci_function *f)
{
    bool driven = f->intx && !f->intx_disabled && !f->intx_suppressed;
    if (driven == f->intx_driven)
        return;
    f->intx_driven = driven;
    if (!f->wire)
        return;
    if (driven && f->wire->asserted++ == 0)
        irq_set(&f->wire->line, true);
    if (!driven && --f->wire->asserted == 0)
        irq_set(&f->wire->line, false);
}

void pci_function_intx(struct pci_function *f, bool level)
{
    pthread_mutex_lock(&f->pci->irq_lock);
    f->intx = level;
    intx_update(f);
    pthread_mutex_unlock(&f->pci->irq_lock);
}

void pci_function_suppress_intx(struct pci_function *f, bool is_suppressed)
{
    pthread_mutex_lock(&f->pci->irq_lock);
    f->intx_suppressed = is_suppressed;
    intx_update(f);
    pthread_mutex_unlock(&f->pci->irq_lock);
}

static void intx_command_changed(struct pci_function *f)
{
    pthread_mutex_lock(&f->pci->irq_lock);
    f->intx_disabled = pci_function_get(f, PCI_COMMAND, 2) & PCI_COMMAND_INTX_DISABLE;
    intx_update(f);
    pthread_mutex_unlock(&f->pci->irq_lock);
}

/* ---- bytes ---- */

void pci_function_put(struct pci_function *f, unsigned offset, uint32_t value, unsigned size_bytes)
{
    assert(size_bytes <= 4 && offset + size_bytes <= PCI_CONFIG_BYTES);
    for (unsigned i = 0; i < size_bytes; i++)
        f->bytes[offset + i] = (uint8_t)(value >> (8 * i));
}

void pci_function_init(struct pci_function *f, unsigned offset, uint32_t value, unsigned size_bytes)
{
    pci_function_put(f, offset, value, size_bytes);
    memcpy(f->initial + offset, f->bytes + offset, size_bytes);
}

void pci_function_writable(struct pci_function *f, unsigned offset, uint32_t mask,
                           unsigned size_bytes)
{
    assert(size_bytes <= 4 && offset + size_bytes <= PCI_CONFIG_BYTES);
    for (unsigned i = 0; i < size_bytes; i++)
        f->writable[offset + i] = (uint8_t)(mask >> (8 * i));
}

uint32_t pci_function_get(const struct pci_function *f, unsigned offset, unsigned size_bytes)
{
    assert(size_bytes <= 4 && offset + size_bytes <= PCI_CONFIG_BYTES);
    uint32_t value = 0;
    for (unsigned i = 0; i < size_bytes; i++)
        value |= (uint32_t)f->bytes[offset + i] << (8 * i);
    return value;
}

unsigned pci_function_capability(struct pci_function *f, uint8_t id, unsigned size_bytes)
{
    unsigned offset = f->capabilities_end;
    assert(size_bytes >= 2 && offset + size_bytes <= PCI_CONFIG_BYTES);
    f->capabilities_end = (offset + size_bytes + 3) & ~3U;
    pci_function_init(f, offset, id, 1);
    pci_function_init(f, f->last_link, offset, 1);
    f->last_link = offset + 1;
    uint32_t status = pci_function_get(f, PCI_STATUS, 2);
    pci_function_init(f, PCI_STATUS, status | PCI_STATUS_CAPABILITIES, 2);
    return offset;
}

/* ---- BARs ---- */

void pci_function_bar(struct pci_function *f, unsigned index, const struct pci_bar *bar)
{
    uint64_t size = bar->size_bytes;
    assert(index + bar->is_64bit < PCI_BAR_COUNT);
    assert(size && (size & (size - 1)) == 0);
    assert(bar->is_io ? size >= 4 && size <= 256 && !bar->is_64bit : size >= 16);
    assert(bar->is_64bit || size <= UINT64_C(0x80000000));
    assert(!bar->hva || (!bar->is_io && size >= RAM_PAGE_BYTES && f->pci->config.physmap));
    f->bars[index].bar = *bar;
    unsigned offset = PCI_BAR0 + 4 * index;
    uint32_t low =
        bar->is_io ? 1 : (uint32_t)(bar->is_64bit ? 4 : 0) | (bar->is_prefetchable ? 8 : 0);
    uint64_t mask = ~(size - 1);
    pci_function_init(f, offset, low, 4);
    pci_function_writable(f, offset, (uint32_t)mask, 4);
    if (bar->is_64bit)
        pci_function_writable(f, offset + 4, (uint32_t)(mask >> 32), 4);
}

static bool is_rom(const uint8_t *bytes, size_t size_bytes)
{
    return size_bytes >= 2 && size_bytes <= PCI_ROM_MAX_BYTES && bytes[0] == 0x55 &&
           bytes[1] == 0xaa;
}

bool pci_function_rom(struct pci_function *f, const void *bytes, size_t size_bytes,
                      struct error *err)
{
    static const char what[] = "cannot use the expansion ROM";
    assert(!f->rom && f->pci->config.physmap);
    if (!is_rom(bytes, size_bytes))
        return error_set(err, what, f->config.name,
                         "it has %zu bytes and does not begin with 55 AA, or is above %d MiB",
                         size_bytes, PCI_ROM_MAX_BYTES >> 20);
    size_t all_bytes = PCI_ROM_MIN_BYTES;
    while (all_bytes < size_bytes)
        all_bytes *= 2;
    void *rom = mmap(NULL, all_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (rom == MAP_FAILED)
        return error_errno(err, what, f->config.name, errno);
    memset(rom, 0xff, all_bytes);
    memcpy(rom, bytes, size_bytes);
    f->rom = rom;
    f->bars[ROM_BAR].bar = (struct pci_bar){.size_bytes = all_bytes, .hva = rom};
    pci_function_init(f, PCI_ROM, 0, 4);
    pci_function_writable(f, PCI_ROM, (uint32_t) ~(all_bytes - 1) | PCI_ROM_ENABLE, 4);
    return true;
}

static unsigned bar_offset(unsigned index)
{
    return index == ROM_BAR ? PCI_ROM : PCI_BAR0 + 4 * index;
}

/* Where the guest wants the BAR now; false: nowhere. An address of 0, or so high that the range
 * would wrap, is what sizing leaves behind. */
static bool bar_wanted(const struct pci_function *f, unsigned index, uint64_t *base)
{
    const struct pci_bar *bar = &f->bars[index].bar;
    uint32_t command = pci_function_get(f, PCI_COMMAND, 2);
    if (!bar->size_bytes ||
        !(command & (uint32_t)(bar->is_io ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY)))
        return false;
    unsigned offset = bar_offset(index);
    uint64_t address = pci_function_get(f, offset, 4);
    if (index == ROM_BAR && !(address & PCI_ROM_ENABLE))
        return false;
    if (bar->is_64bit)
        address |= (uint64_t)pci_function_get(f, offset + 4, 4) << 32;
    address &= ~(bar->size_bytes - 1);
    *base = address;
    uint64_t limit = bar->is_io ? 0xffff : bar->is_64bit ? UINT64_MAX - 1 : UINT32_MAX;
    return address && address <= limit - (bar->size_bytes - 1);
}

static void bar_unmap(struct pci_function *f, struct pci_bar_state *state)
{
    if (!state->mapped)
        return;
    if (state->bar.unmapped)
        state->bar.unmapped(state->bar.opaque, state->base);
    if (state->bar.hva)
        physmap_unmap(f->pci->config.physmap, PHYSMAP_DEVICE, state->base);
    else
        bus_unmap(f->pci->config.bus, state->bar.is_io ? BUS_PORT : BUS_MMIO, state->base);
    state->mapped = false;
}

static bool map_memory(struct pci_function *f, const struct pci_bar_state *state, uint64_t base,
                       struct error *err)
{
    const struct physmap_range range = {.gpa = base,
                                        .size_bytes = state->bar.size_bytes,
                                        .hva = state->bar.hva,
                                        .read_only = state == &f->bars[ROM_BAR],
                                        .is_logged = state->bar.is_logged};
    return physmap_map(f->pci->config.physmap, PHYSMAP_DEVICE, &range, err);
}

static bool map_registers(struct pci_function *f, const struct pci_bar_state *state, uint64_t base,
                          struct error *err)
{
    const struct bus_range range = {.name = f->config.name,
                                    .space = state->bar.is_io ? BUS_PORT : BUS_MMIO,
                                    .base = base,
                                    .size_bytes = state->bar.size_bytes,
                                    .read = state->bar.read,
                                    .write = state->bar.write,
                                    .opaque = state->bar.opaque};
    return bus_map(f->pci->config.bus, &range, err);
}

static void bar_map(struct pci_function *f, struct pci_bar_state *state, uint64_t base)
{
    struct error err = {0};
    if (!(state->bar.hva ? map_memory : map_registers)(f, state, base, &err)) {
        log_limited(f->pci->config.log, &f->pci->limit, LOG_WARNING, "pci",
                    "%s: BAR %u is not mapped at 0x%" PRIx64 ": %s", f->config.name,
                    (unsigned)(state - f->bars), base, err.cause);
        return;
    }
    state->mapped = true;
    state->base = base;
    if (state->bar.mapped)
        state->bar.mapped(state->bar.opaque, base);
}

/* Maps what wants to be mapped and is not. Also other functions', since a place that was taken may
 * have become free. */
static void map_all(struct pci_bus *pci)
{
    for (unsigned i = 0; i < FUNCTIONS; i++) {
        struct pci_function *f = pci->functions[i];
        for (unsigned bar = 0; f && bar < BAR_STATES; bar++) {
            uint64_t base;
            if (!f->bars[bar].mapped && bar_wanted(f, bar, &base))
                bar_map(f, &f->bars[bar], base);
        }
    }
}

/* After command or BARs of a function have changed. */
static void bars_update(struct pci_function *f)
{
    for (unsigned i = 0; i < BAR_STATES; i++) {
        uint64_t base;
        struct pci_bar_state *state = &f->bars[i];
        if (state->mapped && (!bar_wanted(f, i, &base) || base != state->base))
            bar_unmap(f, state);
    }
    map_all(f->pci);
}

bool pci_function_bar_address(struct pci_function *f, unsigned index, uint64_t *base)
{
    assert(index < PCI_BAR_COUNT);
    pthread_mutex_lock(&f->pci->lock);
    bool mapped = f->bars[index].mapped;
    if (mapped)
        *base = f->bars[index].base;
    pthread_mutex_unlock(&f->pci->lock);
    return mapped;
}

/* ---- configuration accesses ---- */

static uint32_t ones(unsigned size_bytes)
{
    return size_bytes >= 4 ? UINT32_MAX : (UINT32_C(1) << (8 * size_bytes)) - 1;
}

static uint32_t function_read(struct pci_function *f, unsigned offset, unsigned size_bytes)
{
    if (f->config.reading)
        f->config.reading(f->config.opaque, offset, size_bytes);
    uint32_t value = pci_function_get(f, offset, size_bytes);
    if (offset <= PCI_STATUS && offset + size_bytes > PCI_STATUS) {
        pthread_mutex_lock(&f->pci->irq_lock);
        if (f->intx)
            value |= (uint32_t)PCI_STATUS_INTERRUPT << (8 * (PCI_STATUS - offset));
        pthread_mutex_unlock(&f->pci->irq_lock);
    }
    return value;
}

uint32_t pci_bus_read(struct pci_bus *pci, unsigned devfn, unsigned offset, unsigned size_bytes)
{
    uint32_t value = ones(size_bytes);
    pthread_mutex_lock(&pci->lock);
    struct pci_function *f = devfn < FUNCTIONS ? pci->functions[devfn] : NULL;
    if (f && offset < PCI_CONFIG_BYTES && size_bytes <= PCI_CONFIG_BYTES - offset)
        value = function_read(f, offset, size_bytes);
    pthread_mutex_unlock(&pci->lock);
    return value;
}

static bool touches(unsigned offset, unsigned size_bytes, unsigned start, unsigned end)
{
    return offset < end && offset + size_bytes > start;
}

static void function_write(struct pci_function *f, unsigned offset, uint32_t value,
                           unsigned size_bytes)
{
    for (unsigned i = 0; i < size_bytes; i++) {
        uint8_t mask = f->writable[offset + i];
        uint8_t byte = (uint8_t)(value >> (8 * i));
        f->bytes[offset + i] = (uint8_t)((f->bytes[offset + i] & ~mask) | (byte & mask));
    }
    if (touches(offset, size_bytes, PCI_COMMAND, PCI_STATUS)) {
        intx_command_changed(f);
        bars_update(f);
    }
    if (touches(offset, size_bytes, PCI_BAR0, PCI_BAR0 + 4 * PCI_BAR_COUNT) ||
        touches(offset, size_bytes, PCI_ROM, PCI_ROM + 4))
        bars_update(f);
    if (f->config.written)
        f->config.written(f->config.opaque, offset, size_bytes);
}

void pci_bus_write(struct pci_bus *pci, unsigned devfn, unsigned offset, uint32_t value,
                   unsigned size_bytes)
{
    pthread_mutex_lock(&pci->lock);
    struct pci_function *f = devfn < FUNCTIONS ? pci->functions[devfn] : NULL;
    if (f && offset < PCI_CONFIG_BYTES && size_bytes <= PCI_CONFIG_BYTES - offset)
        function_write(f, offset, value, size_bytes);
    pthread_mutex_unlock(&pci->lock);
}

/* ---- life of a function ---- */

/* A slot with more than function 0 says so in function 0's header. */
static void mark_multifunction(struct pci_bus *pci, unsigned slot)
{
    struct pci_function *first = pci->functions[slot * PCI_FUNCTION_COUNT];
    bool is_multi = false;
    for (unsigned i = 1; i < PCI_FUNCTION_COUNT; i++)
        is_multi |= pci->functions[slot * PCI_FUNCTION_COUNT + i] != NULL;
    if (first)
        pci_function_init(first, PCI_HEADER_TYPE, is_multi ? 0x80 : 0, 1);
}

static void header_init(struct pci_function *f)
{
    const struct pci_function_config *config = &f->config;
    pci_function_init(f, PCI_VENDOR, config->vendor, 2);
    pci_function_init(f, PCI_DEVICE, config->device, 2);
    pci_function_init(f, PCI_REVISION, config->class_code << 8 | config->revision, 4);
    pci_function_init(f, PCI_SUBSYSTEM_VENDOR, config->subsystem_vendor, 2);
    pci_function_init(f, PCI_SUBSYSTEM, config->subsystem, 2);
    pci_function_init(f, PCI_INTERRUPT_PIN, config->pin, 1);
    pci_function_writable(f, PCI_COMMAND, COMMAND_BITS, 2);
    pci_function_writable(f, PCI_CACHE_LINE, 0xff, 1);
    pci_function_writable(f, PCI_INTERRUPT_LINE, 0xff, 1);
    f->capabilities_end = FIRST_CAPABILITY;
    f->last_link = PCI_CAPABILITIES;
}

struct pci_function *pci_function_create(struct pci_bus *pci,
                                         const struct pci_function_config *config,
                                         struct error *err)
{
    assert(config->slot < PCI_SLOT_COUNT && config->function < PCI_FUNCTION_COUNT);
    assert(config->pin <= 4);
    unsigned devfn = config->slot * PCI_FUNCTION_COUNT + config->function;
    if (pci->functions[devfn]) {
        error_set(err, "cannot add PCI function", config->name,
                  "slot %u function %u is taken by %s", config->slot, config->function,
                  pci->functions[devfn]->config.name);
        error_hint(err, "choose another slot for it");
        return NULL;
    }
    struct pci_function *f = calloc(1, sizeof(*f));
    if (!f) {
        error_set(err, "cannot add PCI function", config->name, "out of memory");
        return NULL;
    }
    f->pci = pci;
    f->config = *config;
    f->devfn = devfn;
    header_init(f);
    f->wire = wire_of(pci, config->slot, config->pin);
    pthread_mutex_lock(&pci->lock);
    pci->functions[devfn] = f;
    mark_multifunction(pci, config->slot);
    pthread_mutex_unlock(&pci->lock);
    return f;
}

void pci_function_destroy(struct pci_function *f)
{
    if (!f)
        return;
    struct pci_bus *pci = f->pci;
    pci_function_intx(f, false);
    pthread_mutex_lock(&pci->lock);
    for (unsigned i = 0; i < BAR_STATES; i++)
        bar_unmap(f, &f->bars[i]);
    pci->functions[f->devfn] = NULL;
    mark_multifunction(pci, f->config.slot);
    pthread_mutex_unlock(&pci->lock);
    if (f->rom)
        munmap(f->rom, f->bars[ROM_BAR].bar.size_bytes);
    free(f);
}

void pci_function_reset(struct pci_function *f)
{
    pthread_mutex_lock(&f->pci->irq_lock);
    f->intx = false;
    f->intx_suppressed = false;
    intx_update(f);
    pthread_mutex_unlock(&f->pci->irq_lock);
    pthread_mutex_lock(&f->pci->lock);
    memcpy(f->bytes, f->initial, sizeof(f->bytes));
    intx_command_changed(f);
    bars_update(f);
    pthread_mutex_unlock(&f->pci->lock);
}

void pci_function_save(struct pci_function *f, struct save *save)
{
    pthread_mutex_lock(&f->pci->lock);
    save_bytes(save, f->bytes, sizeof(f->bytes));
    pthread_mutex_lock(&f->pci->irq_lock);
    save_bool(save, f->intx);
    pthread_mutex_unlock(&f->pci->irq_lock);
    pthread_mutex_unlock(&f->pci->lock);
}

bool pci_function_load(struct pci_function *f, struct load *load)
{
    uint8_t bytes[PCI_CONFIG_BYTES];
    load_bytes(load, bytes, sizeof(bytes));
    bool intx = load_bool(load);
    for (unsigned i = 0; i < PCI_CONFIG_BYTES; i++) {
        if ((bytes[i] ^ f->initial[i]) & ~f->writable[i])
            load_fail(load);
    }
    if (load->failed)
        return false;
    pthread_mutex_lock(&f->pci->lock);
    memcpy(f->bytes, bytes, sizeof(bytes));
    intx_command_changed(f);
    bars_update(f);
    pthread_mutex_unlock(&f->pci->lock);
    pci_function_intx(f, intx);
    return true;
}

/* ---- placing BARs without firmware ---- */

struct placement {
    struct pci_function *function;
    unsigned index;
};

static const struct pci_bar *placement_bar(const struct placement *p)
{
    return &p->function->bars[p->index].bar;
}

/* Greatest first: with natural alignment nothing is then lost between them. */
static int placement_compare(const void *a, const void *b)
{
    const struct placement *left = a, *right = b;
    uint64_t left_size = placement_bar(left)->size_bytes;
    uint64_t right_size = placement_bar(right)->size_bytes;
    if (left_size != right_size)
        return left_size > right_size ? -1 : 1;
    if (left->function->devfn != right->function->devfn)
        return left->function->devfn < right->function->devfn ? -1 : 1;
    return left->index < right->index ? -1 : 1;
}

static bool place(const struct placement *p, struct pci_window *io, struct pci_window *mmio32,
                  struct pci_window *mmio64, struct error *err)
{
    const struct pci_bar *bar = placement_bar(p);
    struct pci_window *window = bar->is_io                            ? io
                                : bar->is_64bit && mmio64->size_bytes ? mmio64
                                                                      : mmio32;
    uint64_t align = bar->size_bytes;
    if (!bar->is_io && align < 4096)
        align = 4096;
    uint64_t skip = (align - (window->base & (align - 1))) & (align - 1);
    if (skip > window->size_bytes || align > window->size_bytes - skip)
        return error_set(err, "cannot place PCI BAR", p->function->config.name,
                         "the %s window is full", bar->is_io ? "I/O" : "memory");
    uint64_t address = window->base + skip;
    window->base = address + align;
    window->size_bytes -= skip + align;
    unsigned offset = PCI_BAR0 + 4 * p->index;
    uint32_t flags = pci_function_get(p->function, offset, 1) & (bar->is_io ? 0x3 : 0xf);
    pci_function_put(p->function, offset, (uint32_t)address | flags, 4);
    if (bar->is_64bit)
        pci_function_put(p->function, offset + 4, (uint32_t)(address >> 32), 4);
    return true;
}

/* Switches decoding off (so that BARs move past each other freely) and lists what is to be placed.
 */
static unsigned placement_collect(struct pci_bus *pci, struct placement *list)
{
    unsigned count = 0;
    for (unsigned i = 0; i < FUNCTIONS; i++) {
        struct pci_function *f = pci->functions[i];
        if (!f)
            continue;
        pci_function_put(f, PCI_COMMAND,
                         pci_function_get(f, PCI_COMMAND, 2) &
                             ~(uint32_t)(PCI_COMMAND_IO | PCI_COMMAND_MEMORY),
                         2);
        bars_update(f);
        for (unsigned bar = 0; bar < PCI_BAR_COUNT; bar++) {
            if (f->bars[bar].bar.size_bytes)
                list[count++] = (struct placement){f, bar};
        }
    }
    return count;
}

/* Switches on what a function has, and fills its interrupt line register. */
static void function_enable(struct pci_function *f, const struct pci_windows *windows)
{
    uint32_t command = pci_function_get(f, PCI_COMMAND, 2);
    for (unsigned i = 0; i < PCI_BAR_COUNT; i++) {
        if (f->bars[i].bar.size_bytes)
            command |= (uint32_t)(f->bars[i].bar.is_io ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY);
    }
    pci_function_put(f, PCI_COMMAND, command, 2);
    uint8_t line = 0xff;
    if (f->config.pin && windows->interrupt_line)
        line = windows->interrupt_line(windows->opaque, f->config.slot, f->config.pin);
    if (f->config.pin)
        pci_function_put(f, PCI_INTERRUPT_LINE, line, 1);
    bars_update(f);
}

bool pci_assign_bars(struct pci_bus *pci, const struct pci_windows *windows, struct error *err)
{
    struct placement *list = calloc((size_t)FUNCTIONS * PCI_BAR_COUNT, sizeof(*list));
    if (!list)
        return error_set(err, "cannot place PCI BARs", NULL, "out of memory");
    struct pci_window io = windows->io, mmio32 = windows->mmio32, mmio64 = windows->mmio64;
    pthread_mutex_lock(&pci->lock);
    unsigned count = placement_collect(pci, list);
    qsort(list, count, sizeof(*list), placement_compare);
    bool placed = true;
    for (unsigned i = 0; placed && i < count; i++)
        placed = place(&list[i], &io, &mmio32, &mmio64, err);
    for (unsigned i = 0; placed && i < FUNCTIONS; i++) {
        if (pci->functions[i])
            function_enable(pci->functions[i], windows);
    }
    pthread_mutex_unlock(&pci->lock);
    free(list);
    return placed;
}
