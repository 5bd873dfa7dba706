/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The map of ports and MMIO. Any thread reads and writes; changes are rare (a guest that moves a
 * BAR) and take a mutex.
 *
 * Lookups are the hot path of every device access, so they take no lock and write nothing: each
 * table is a sorted array under a sequence count, odd while it changes. A reader copies its entry
 * out and looks again when the count has moved. Every field is atomic and loaded with acquire (a
 * plain load on x86), so a reader that meets half a change reads stale values, never torn ones. An
 * array that grew is kept until bus_destroy(), for readers that still walk it; arrays double, so
 * the old ones together are no larger than the newest. */
#include "bus/bus.h"

#include <assert.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { SPACE_COUNT = 2, FIRST_CAPACITY = 32, SPINS_BEFORE_YIELD = 64 };
static const uint64_t port_last = 0xffff;

/* A range or a doorbell, told apart by its table. */
struct entry {
    uint64_t base;
    uint64_t last; /* inclusive: a range may end where the address space does */
    const char *name;
    bus_read_fn *read;
    bus_write_fn *write;
    bus_ring_fn *ring;
    void *opaque;
};

struct slot {
    _Atomic uint64_t base;
    _Atomic uint64_t last;
    _Atomic(const char *) name;
    _Atomic(bus_read_fn *) read;
    _Atomic(bus_write_fn *) write;
    _Atomic(bus_ring_fn *) ring;
    _Atomic(void *) opaque;
};

struct array {
    struct array *older;
    unsigned capacity;
    _Atomic unsigned count; /* never above capacity, so that any value seen is safe */
    struct slot slots[];
};

struct table {
    _Atomic uint64_t sequence;
    _Atomic(struct array *) array; /* NULL: nothing was ever added */
};

struct bus {
    struct table ranges[SPACE_COUNT];
    struct table doorbells[SPACE_COUNT];
    const struct log *log;
    struct log_limit unmapped_limit;
    pthread_mutex_t change_lock; /* guards changes of the tables, and the listener */
    struct bus_listener listener;
    bus_stray_fn *stray; /* NULL: nobody is told */
    void *stray_opaque;
};

static void slot_store(struct slot *slot, const struct entry *entry)
{
    atomic_store_explicit(&slot->base, entry->base, memory_order_release);
    atomic_store_explicit(&slot->last, entry->last, memory_order_release);
    atomic_store_explicit(&slot->name, entry->name, memory_order_release);
    atomic_store_explicit(&slot->read, entry->read, memory_order_release);
    atomic_store_explicit(&slot->write, entry->write, memory_order_release);
    atomic_store_explicit(&slot->ring, entry->ring, memory_order_release);
    atomic_store_explicit(&slot->opaque, entry->opaque, memory_order_release);
}

static void slot_load(struct slot *slot, struct entry *entry)
{
    entry->base = atomic_load_explicit(&slot->base, memory_order_acquire);
    entry->last = atomic_load_explicit(&slot->last, memory_order_acquire);
    entry->name = atomic_load_explicit(&slot->name, memory_order_acquire);
    entry->read = atomic_load_explicit(&slot->read, memory_order_acquire);
    entry->write = atomic_load_explicit(&slot->write, memory_order_acquire);
    entry->ring = atomic_load_explicit(&slot->ring, memory_order_acquire);
    entry->opaque = atomic_load_explicit(&slot->opaque, memory_order_acquire);
}

/* The index of the first slot whose base is above `address`. */
static unsigned array_upper(struct array *array, unsigned count, uint64_t address)
{
    unsigned low = 0;
    unsigned high = count;
    while (low < high) {
        unsigned middle = low + (high - low) / 2;
        if (atomic_load_explicit(&array->slots[middle].base, memory_order_acquire) <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool array_find(struct array *array, uint64_t address, struct entry *entry)
{
    unsigned count = atomic_load_explicit(&array->count, memory_order_acquire);
    unsigned index = array_upper(array, count, address);
    if (index == 0)
        return false;
    slot_load(&array->slots[index - 1], entry);
    return address >= entry->base && address <= entry->last;
}

static bool table_find(struct table *table, uint64_t address, struct entry *entry)
{
    for (unsigned tries = 0;; tries++) {
        uint64_t before = atomic_load_explicit(&table->sequence, memory_order_acquire);
        if ((before & 1) == 0) {
            struct array *array = atomic_load_explicit(&table->array, memory_order_acquire);
            bool found = array && array_find(array, address, entry);
            if (atomic_load_explicit(&table->sequence, memory_order_relaxed) == before)
                return found;
        }
        if (tries >= SPINS_BEFORE_YIELD)
            sched_yield();
    }
}

/* The rest of the table's functions are called with change_lock held. */

static void table_change_begin(struct table *table)
{
    atomic_fetch_add_explicit(&table->sequence, 1, memory_order_relaxed);
}

static void table_change_end(struct table *table)
{
    atomic_fetch_add_explicit(&table->sequence, 1, memory_order_release);
}

/* Makes room for one entry more; false when out of memory. */
static bool table_reserve(struct table *table)
{
    struct array *old = atomic_load(&table->array);
    unsigned count = old ? atomic_load(&old->count) : 0;
    if (old && count < old->capacity)
        return true;
    unsigned capacity = old ? old->capacity * 2 : FIRST_CAPACITY;
    struct array *array = calloc(1, sizeof(*array) + (size_t)capacity * sizeof(struct slot));
    if (!array)
        return false;
    array->older = old;
    array->capacity = capacity;
    for (unsigned i = 0; i < count; i++) {
        struct entry entry;
        slot_load(&old->slots[i], &entry);
        slot_store(&array->slots[i], &entry);
    }
    atomic_store(&array->count, count);
    /* Both arrays say the same: readers need not be told. */
    atomic_store_explicit(&table->array, array, memory_order_release);
    return true;
}

/* Whether [base, last] meets an entry, which is then copied out. */
static bool table_overlaps(struct table *table, uint64_t base, uint64_t last, struct entry *other)
{
    struct array *array = atomic_load(&table->array);
    unsigned index = array ? array_upper(array, atomic_load(&array->count), last) : 0;
    if (index == 0)
        return false;
    slot_load(&array->slots[index - 1], other);
    return other->last >= base;
}

static bool table_insert(struct table *table, const struct entry *entry)
{
    if (!table_reserve(table))
        return false;
    struct array *array = atomic_load(&table->array);
    unsigned count = atomic_load(&array->count);
    unsigned index = array_upper(array, count, entry->base);
    table_change_begin(table);
    for (unsigned i = count; i > index; i--) {
        struct entry moved;
        slot_load(&array->slots[i - 1], &moved);
        slot_store(&array->slots[i], &moved);
    }
    slot_store(&array->slots[index], entry);
    atomic_store_explicit(&array->count, count + 1, memory_order_release);
    table_change_end(table);
    return true;
}

/* Removes the entry that starts at `base` and gives it; false when there is none. */
static bool table_remove(struct table *table, uint64_t base, struct entry *removed)
{
    struct array *array = atomic_load(&table->array);
    unsigned count = array ? atomic_load(&array->count) : 0;
    unsigned index = array ? array_upper(array, count, base) : 0;
    if (index == 0)
        return false;
    slot_load(&array->slots[index - 1], removed);
    if (removed->base != base)
        return false;
    table_change_begin(table);
    for (unsigned i = index; i < count; i++) {
        struct entry moved;
        slot_load(&array->slots[i], &moved);
        slot_store(&array->slots[i - 1], &moved);
    }
    atomic_store_explicit(&array->count, count - 1, memory_order_release);
    table_change_end(table);
    return true;
}

static void table_free(struct table *table)
{
    struct array *array = atomic_load(&table->array);
    while (array) {
        struct array *older = array->older;
        free(array);
        array = older;
    }
}

struct bus *bus_create(const struct log *log)
{
    struct bus *bus = calloc(1, sizeof(*bus));
    if (!bus)
        return NULL;
    bus->log = log;
    pthread_mutex_init(&bus->change_lock, NULL);
    return bus;
}

void bus_destroy(struct bus *bus)
{
    if (!bus)
        return;
    for (unsigned i = 0; i < SPACE_COUNT; i++) {
        table_free(&bus->ranges[i]);
        table_free(&bus->doorbells[i]);
    }
    pthread_mutex_destroy(&bus->change_lock);
    free(bus);
}

static const char *space_name(enum bus_space space)
{
    return space == BUS_PORT ? "port" : "MMIO";
}

/* False when the range is empty or runs past the end of its space. */
static bool range_last(enum bus_space space, uint64_t base, uint64_t size_bytes, uint64_t *last)
{
    uint64_t space_last = space == BUS_PORT ? port_last : UINT64_MAX;
    if (size_bytes == 0 || base > space_last || size_bytes - 1 > space_last - base)
        return false;
    *last = base + (size_bytes - 1);
    return true;
}

static bool map_locked(struct bus *bus, const struct bus_range *range, uint64_t last,
                       struct error *err)
{
    struct table *table = &bus->ranges[range->space];
    struct entry other;
    if (table_overlaps(table, range->base, last, &other))
        return error_set(
            err, "cannot map a device", range->name,
            "%s range 0x%" PRIx64 "-0x%" PRIx64 " overlaps %s at 0x%" PRIx64 "-0x%" PRIx64,
            space_name(range->space), range->base, last, other.name, other.base, other.last);
    struct entry entry = {
        .base = range->base,
        .last = last,
        .name = range->name ? range->name : "a device",
        .read = range->read,
        .write = range->write,
        .opaque = range->opaque,
    };
    if (!table_insert(table, &entry))
        return error_set(err, "cannot map a device", range->name, "out of memory");
    return true;
}

bool bus_map(struct bus *bus, const struct bus_range *range, struct error *err)
{
    uint64_t last;
    if (!range_last(range->space, range->base, range->size_bytes, &last))
        return error_set(err, "cannot map a device", range->name,
                         "%s range of 0x%" PRIx64 " bytes at 0x%" PRIx64
                         " is empty or runs past the end of the address space",
                         space_name(range->space), range->size_bytes, range->base);
    pthread_mutex_lock(&bus->change_lock);
    bool mapped = map_locked(bus, range, last, err);
    pthread_mutex_unlock(&bus->change_lock);
    return mapped;
}

void bus_unmap(struct bus *bus, enum bus_space space, uint64_t base)
{
    struct entry removed;
    pthread_mutex_lock(&bus->change_lock);
    table_remove(&bus->ranges[space], base, &removed);
    pthread_mutex_unlock(&bus->change_lock);
}

static struct bus_doorbell doorbell_of(enum bus_space space, const struct entry *entry)
{
    return (struct bus_doorbell){
        .space = space,
        .base = entry->base,
        .size_bytes = (unsigned)(entry->last - entry->base) + 1,
        .ring = entry->ring,
        .opaque = entry->opaque,
    };
}

/* A doorbell that cannot be placed is left out with a line in the log: its writes reach the range
 * below, as if there were none. */
void bus_doorbell_add(struct bus *bus, const struct bus_doorbell *doorbell)
{
    struct table *table = &bus->doorbells[doorbell->space];
    struct entry entry = {
        .base = doorbell->base, .ring = doorbell->ring, .opaque = doorbell->opaque};
    struct entry other;
    assert(doorbell->ring);
    pthread_mutex_lock(&bus->change_lock);
    bool added = range_last(doorbell->space, doorbell->base, doorbell->size_bytes, &entry.last) &&
                 !table_overlaps(table, entry.base, entry.last, &other) &&
                 table_insert(table, &entry);
    /* With the lock held, so that an engine is told in the order in which things happen. */
    if (added && bus->listener.added)
        bus->listener.added(bus->listener.opaque, doorbell);
    pthread_mutex_unlock(&bus->change_lock);
    if (!added)
        log_write(bus->log, LOG_WARNING, "bus", "no place for a doorbell at 0x%" PRIx64,
                  doorbell->base);
}

void bus_doorbell_remove(struct bus *bus, enum bus_space space, uint64_t base)
{
    struct entry removed;
    pthread_mutex_lock(&bus->change_lock);
    if (table_remove(&bus->doorbells[space], base, &removed) && bus->listener.removed) {
        struct bus_doorbell doorbell = doorbell_of(space, &removed);
        bus->listener.removed(bus->listener.opaque, &doorbell);
    }
    pthread_mutex_unlock(&bus->change_lock);
}

static void listener_tell_all(struct bus *bus, enum bus_space space)
{
    struct array *array = atomic_load(&bus->doorbells[space].array);
    unsigned count = array ? atomic_load(&array->count) : 0;
    for (unsigned i = 0; i < count; i++) {
        struct entry entry;
        slot_load(&array->slots[i], &entry);
        struct bus_doorbell doorbell = doorbell_of(space, &entry);
        bus->listener.added(bus->listener.opaque, &doorbell);
    }
}

void bus_set_stray(struct bus *bus, bus_stray_fn *stray, void *opaque)
{
    bus->stray = stray;
    bus->stray_opaque = opaque;
}

void bus_set_listener(struct bus *bus, const struct bus_listener *listener)
{
    pthread_mutex_lock(&bus->change_lock);
    bus->listener = listener ? *listener : (struct bus_listener){0};
    if (bus->listener.added) {
        listener_tell_all(bus, BUS_PORT);
        listener_tell_all(bus, BUS_MMIO);
    }
    pthread_mutex_unlock(&bus->change_lock);
}

static uint64_t value_mask(unsigned size_bytes)
{
    return size_bytes >= 8 ? UINT64_MAX : (UINT64_C(1) << (size_bytes * 8)) - 1;
}

static void check_access(enum bus_space space, unsigned size_bytes)
{
    assert(size_bytes == 1 || size_bytes == 2 || size_bytes == 4 ||
           (size_bytes == 8 && space == BUS_MMIO));
}

static void tell_stray(struct bus *bus, enum bus_space space, uint64_t address, bool is_write,
                       unsigned size_bytes)
{
    if (bus->stray && space == BUS_PORT)
        bus->stray(bus->stray_opaque, address, is_write, size_bytes);
}

uint64_t bus_read(struct bus *bus, enum bus_space space, uint64_t address, unsigned size_bytes)
{
    uint64_t mask = value_mask(size_bytes);
    struct entry entry;
    check_access(space, size_bytes);
    if (!table_find(&bus->ranges[space], address, &entry)) {
        log_limited(bus->log, &bus->unmapped_limit, LOG_DEBUG, "bus",
                    "read of %u bytes at %s 0x%" PRIx64 ", where nothing is", size_bytes,
                    space_name(space), address);
        tell_stray(bus, space, address, false, size_bytes);
        return mask;
    }
    if (!entry.read)
        return mask;
    return entry.read(entry.opaque, address - entry.base, size_bytes) & mask;
}

void bus_write(struct bus *bus, enum bus_space space, uint64_t address, uint64_t value,
               unsigned size_bytes)
{
    struct entry entry;
    check_access(space, size_bytes);
    value &= value_mask(size_bytes);
    if (table_find(&bus->doorbells[space], address, &entry)) {
        entry.ring(entry.opaque);
        return;
    }
    if (!table_find(&bus->ranges[space], address, &entry)) {
        log_limited(bus->log, &bus->unmapped_limit, LOG_DEBUG, "bus",
                    "write of %u bytes (0x%" PRIx64 ") at %s 0x%" PRIx64 ", where nothing is",
                    size_bytes, value, space_name(space), address);
        tell_stray(bus, space, address, true, size_bytes);
        return;
    }
    if (entry.write)
        entry.write(entry.opaque, address - entry.base, value, size_bytes);
}
