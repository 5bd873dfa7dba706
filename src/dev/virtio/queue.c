/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Virtqueues, split (virtio 1.2, 2.7) and packed (2.8); what is left out and which threads run it:
 * see queue.h. The ring areas are mapped when the queue is enabled, each inside one region of RAM
 * and aligned, so that indices and flags are read and written atomically; every descriptor is
 * copied before it is looked at.
 */
#include "dev/virtio/queue.h"

#include <assert.h>
#include <string.h>

enum {
    DESCRIPTOR_BYTES = 16, /* in both formats */
    DESCRIPTOR_NEXT = 1,
    DESCRIPTOR_WRITE = 2,
    DESCRIPTOR_INDIRECT = 4,
    PACKED_AVAIL = 1 << 7,
    PACKED_USED = 1 << 15,

    /* Split rings: offsets in the driver and device areas. */
    RING_FLAGS = 0,
    RING_INDEX = 2,
    RING_ENTRIES = 4,
    USED_ENTRY_BYTES = 8,
    NO_INTERRUPT = 1, /* avail flags */
    NO_NOTIFY = 1,    /* used flags */

    /* Packed rings: the two event suppression areas. */
    EVENT_OFFSET = 0,
    EVENT_FLAGS = 2,
    EVENT_ENABLE = 0,
    EVENT_DISABLE = 1,
    EVENT_DESCRIPTOR = 2,
    EVENT_BYTES = 4,
    WRAP_BIT = 0x8000,
};

/* A descriptor of either format, copied from the guest. */
struct descriptor {
    uint64_t gpa;
    uint32_t size_bytes;
    uint16_t flags;
    uint16_t next; /* split */
    uint16_t id;   /* packed */
};

/* ---- shared words: aligned, in guest RAM ---- */

static uint16_t word_read(const uint8_t *hva)
{
    return __atomic_load_n((const uint16_t *)(const void *)hva, __ATOMIC_RELAXED);
}

static uint16_t word_read_acquire(const uint8_t *hva)
{
    return __atomic_load_n((const uint16_t *)(const void *)hva, __ATOMIC_ACQUIRE);
}

static void word_write(uint8_t *hva, uint16_t value)
{
    __atomic_store_n((uint16_t *)(void *)hva, value, __ATOMIC_RELAXED);
}

static void word_write_release(uint8_t *hva, uint16_t value)
{
    __atomic_store_n((uint16_t *)(void *)hva, value, __ATOMIC_RELEASE);
}

/* Between a write that the driver reads and a read of what the driver writes. */
static void full_barrier(void)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

/* ---- setting up ---- */

void virtio_queue_init(struct virtio_queue *q, struct ram *ram, unsigned index, uint16_t size_max,
                       const struct virtio_queue_hooks *hooks)
{
    assert(size_max && size_max <= VIRTIO_QUEUE_SIZE_MAX && (size_max & (size_max - 1)) == 0);
    memset(q, 0, sizeof(*q));
    q->ram = ram;
    q->hooks = *hooks;
    q->index = index;
    q->size_max = size_max;
    virtio_queue_reset(q);
}

void virtio_queue_reset(struct virtio_queue *q)
{
    struct virtio_queue fresh = {.ram = q->ram,
                                 .hooks = q->hooks,
                                 .index = q->index,
                                 .size_max = q->size_max,
                                 .size = q->size_max,
                                 .avail_wrap = true,
                                 .used_wrap = true,
                                 .generation = q->generation + 1,
                                 .holds = q->holds};
    *q = fresh;
}

void virtio_queue_break(struct virtio_queue *q, const char *why)
{
    if (q->broken)
        return;
    q->broken = true;
    if (q->hooks.broken)
        q->hooks.broken(q->hooks.opaque, q->index, why);
}

/* One area of the ring; NULL unless it is aligned and all RAM. */
static uint8_t *area_map(const struct virtio_queue *q, uint64_t gpa, uint64_t size_bytes,
                         unsigned align)
{
    return gpa % align ? NULL : ram_hva(q->ram, gpa, size_bytes);
}

static bool areas_map(struct virtio_queue *q)
{
    uint64_t size = q->size;
    uint64_t driver_bytes = q->packed ? EVENT_BYTES : RING_ENTRIES + 2 * size + 2;
    uint64_t device_bytes = q->packed ? EVENT_BYTES : RING_ENTRIES + USED_ENTRY_BYTES * size + 2;
    q->descriptors = area_map(q, q->descriptor_gpa, DESCRIPTOR_BYTES * size, 16);
    q->driver = area_map(q, q->driver_gpa, driver_bytes, q->packed ? 4 : 2);
    q->device = area_map(q, q->device_gpa, device_bytes, 4);
    return q->descriptors && q->driver && q->device;
}

static bool size_valid(const struct virtio_queue *q)
{
    return q->size && q->size <= q->size_max && (q->packed || (q->size & (q->size - 1)) == 0);
}

bool virtio_queue_enable(struct virtio_queue *q, bool packed, bool event_idx, bool indirect)
{
    q->packed = packed;
    q->event_idx = event_idx;
    q->indirect = indirect;
    if (!size_valid(q)) {
        virtio_queue_break(q, "the queue's size is not valid");
        return false;
    }
    if (!areas_map(q)) {
        virtio_queue_break(q, "the ring is not aligned or not in RAM");
        return false;
    }
    q->enabled = true;
    return true;
}

static bool usable(const struct virtio_queue *q)
{
    return q->enabled && !q->broken;
}

/* ---- collecting a chain ---- */

static bool chain_add_piece(struct virtio_queue *q, struct virtio_chain *chain, bool is_writable,
                            void *hva, size_t size_bytes)
{
    unsigned count = chain->readable_count + chain->writable_count;
    if (count == VIRTIO_CHAIN_IOV_MAX) {
        virtio_queue_break(q, "a chain has too many pieces");
        return false;
    }
    chain->iov[count] = (struct iovec){hva, size_bytes};
    if (is_writable)
        chain->writable_count++;
    else
        chain->readable_count++;
    return true;
}

/* How much of [gpa, gpa + size) lies in the region that has gpa; NULL in *hva: in none. */
static uint64_t piece_of_region(const struct virtio_queue *q, uint64_t gpa, uint64_t size_bytes,
                                uint8_t **hva)
{
    for (unsigned i = 0; i < ram_region_count(q->ram); i++) {
        const struct ram_region *region = ram_region(q->ram, i);
        if (gpa < region->gpa || gpa - region->gpa >= region->size_bytes)
            continue;
        uint64_t left = region->size_bytes - (gpa - region->gpa);
        *hva = region->hva + (gpa - region->gpa);
        return size_bytes < left ? size_bytes : left;
    }
    *hva = NULL;
    return 0;
}

/* Adds the memory of one descriptor; regions that lie side by side make several pieces. */
static bool chain_add(struct virtio_queue *q, struct virtio_chain *chain,
                      const struct descriptor *d)
{
    bool is_writable = d->flags & DESCRIPTOR_WRITE;
    uint64_t gpa = d->gpa, left = d->size_bytes;
    const char *why = NULL;
    if (!left)
        why = "a descriptor has length 0";
    else if (!is_writable && chain->writable_count)
        why = "a readable descriptor follows a writable one";
    else if (chain->readable_bytes + chain->writable_bytes + left > UINT32_MAX)
        why = "a chain is longer than 4 GiB";
    if (why) {
        virtio_queue_break(q, why);
        return false;
    }
    while (left) {
        uint8_t *hva;
        uint64_t piece = piece_of_region(q, gpa, left, &hva);
        if (!hva) {
            virtio_queue_break(q, "a descriptor points outside RAM");
            return false;
        }
        if (!chain_add_piece(q, chain, is_writable, hva, piece))
            return false;
        gpa += piece;
        left -= piece;
    }
    if (is_writable)
        chain->writable_bytes += d->size_bytes;
    else
        chain->readable_bytes += d->size_bytes;
    return true;
}

static void descriptor_copy(struct descriptor *d, const uint8_t *from, bool packed)
{
    uint8_t bytes[DESCRIPTOR_BYTES];
    uint16_t words[2];
    memcpy(bytes, from, sizeof(bytes));
    memcpy(&d->gpa, bytes, 8);
    memcpy(&d->size_bytes, bytes + 8, 4);
    memcpy(words, bytes + 12, 4);
    /* Split: flags, next. Packed: id, flags. */
    d->flags = words[packed];
    d->next = words[1];
    d->id = words[0];
}

static void chain_start(const struct virtio_queue *q, struct virtio_chain *chain)
{
    chain->generation = q->generation;
    chain->id = 0;
    chain->descriptor_count = 1;
    chain->readable_count = chain->writable_count = 0;
    chain->readable_bytes = chain->writable_bytes = 0;
}

/* The table of an indirect descriptor. Split: a chain inside the table. Packed: all of the table in
 * order (2.8.8), flags other than WRITE are reserved. */
static bool chain_add_table(struct virtio_queue *q, struct virtio_chain *chain,
                            const struct descriptor *table)
{
    const char *why = NULL;
    uint32_t count = table->size_bytes / DESCRIPTOR_BYTES;
    const uint8_t *hva = NULL;
    if (!q->indirect)
        why = "an indirect descriptor was not negotiated";
    else if (table->flags & DESCRIPTOR_NEXT)
        why = "an indirect descriptor has a next one";
    else if (!count || table->size_bytes % DESCRIPTOR_BYTES)
        why = "an indirect table has no valid length";
    else if (!(hva = ram_hva(q->ram, table->gpa, table->size_bytes)))
        why = "an indirect table is not in RAM";
    uint32_t at = 0, taken = 0;
    while (!why) {
        struct descriptor d;
        descriptor_copy(&d, hva + (size_t)at * DESCRIPTOR_BYTES, q->packed);
        if (d.flags & DESCRIPTOR_INDIRECT) {
            why = "an indirect descriptor is inside a table";
            break;
        }
        if (!chain_add(q, chain, &d))
            return false;
        bool more = q->packed ? taken + 1 < count : d.flags & DESCRIPTOR_NEXT;
        if (!more)
            return true;
        at = q->packed ? at + 1 : d.next;
        if (at >= count)
            why = "an indirect chain leaves its table";
        else if (++taken >= count)
            why = "an indirect chain has a loop";
    }
    virtio_queue_break(q, why);
    return false;
}

/* ---- taking from a split ring ---- */

static bool split_has_next(const struct virtio_queue *q)
{
    return word_read_acquire(q->driver + RING_INDEX) != q->avail_index;
}

static bool split_chain(struct virtio_queue *q, struct virtio_chain *chain, uint16_t head)
{
    uint16_t at = head;
    for (unsigned taken = 0; taken < q->size; taken++) {
        if (at >= q->size) {
            virtio_queue_break(q, "a descriptor index is outside the ring");
            return false;
        }
        struct descriptor d;
        descriptor_copy(&d, q->descriptors + (size_t)at * DESCRIPTOR_BYTES, false);
        if (d.flags & DESCRIPTOR_INDIRECT)
            return chain_add_table(q, chain, &d);
        if (!chain_add(q, chain, &d))
            return false;
        if (!(d.flags & DESCRIPTOR_NEXT))
            return true;
        at = d.next;
    }
    virtio_queue_break(q, "a descriptor chain has a loop");
    return false;
}

static bool split_pop(struct virtio_queue *q, struct virtio_chain *chain)
{
    uint16_t waiting = (uint16_t)(word_read_acquire(q->driver + RING_INDEX) - q->avail_index);
    if (!waiting)
        return false;
    if (waiting > q->size || q->in_use >= q->size) {
        virtio_queue_break(q, "more is available than the ring holds");
        return false;
    }
    unsigned slot = q->avail_index % q->size;
    uint16_t head = word_read(q->driver + RING_ENTRIES + 2 * slot);
    chain->id = head;
    if (!split_chain(q, chain, head))
        return false;
    q->avail_index++;
    return true;
}

/* ---- taking from a packed ring ---- */

static uint8_t *packed_slot(const struct virtio_queue *q, unsigned index)
{
    return q->descriptors + (size_t)index * DESCRIPTOR_BYTES;
}

static bool packed_has_next(const struct virtio_queue *q)
{
    uint16_t flags = word_read_acquire(packed_slot(q, q->avail_index) + 14);
    bool avail = flags & PACKED_AVAIL, used = flags & PACKED_USED;
    return avail == q->avail_wrap && used != q->avail_wrap;
}

/* Steps an index of a packed ring over `count` slots. */
static void packed_step(const struct virtio_queue *q, uint16_t *index, bool *wrap, unsigned count)
{
    unsigned next = *index + count;
    if (next >= q->size) {
        next -= q->size;
        *wrap = !*wrap;
    }
    *index = (uint16_t)next;
}

/* Slots after the first are the chain's whatever their own availability bits say: the driver writes
 * the first one last (2.8.21). */
static bool packed_chain(struct virtio_queue *q, struct virtio_chain *chain)
{
    uint16_t at = q->avail_index;
    bool wrap = q->avail_wrap;
    for (unsigned taken = 1; taken <= (unsigned)(q->size - q->in_use); taken++) {
        struct descriptor d;
        descriptor_copy(&d, packed_slot(q, at), true);
        chain->descriptor_count = (uint16_t)taken;
        chain->id = d.id;
        if (d.flags & DESCRIPTOR_INDIRECT)
            return chain_add_table(q, chain, &d);
        if (!chain_add(q, chain, &d))
            return false;
        if (!(d.flags & DESCRIPTOR_NEXT))
            return true;
        packed_step(q, &at, &wrap, 1);
    }
    virtio_queue_break(q, "a descriptor chain is longer than the ring");
    return false;
}

static bool packed_pop(struct virtio_queue *q, struct virtio_chain *chain)
{
    if (!packed_has_next(q))
        return false;
    if (q->in_use >= q->size) {
        virtio_queue_break(q, "more is available than the ring holds");
        return false;
    }
    if (!packed_chain(q, chain))
        return false;
    packed_step(q, &q->avail_index, &q->avail_wrap, chain->descriptor_count);
    return true;
}

bool virtio_queue_has_next(const struct virtio_queue *q)
{
    return usable(q) && (q->packed ? packed_has_next(q) : split_has_next(q));
}

bool virtio_queue_pop(struct virtio_queue *q, struct virtio_chain *chain)
{
    if (!usable(q))
        return false;
    chain_start(q, chain);
    if (!(q->packed ? packed_pop(q, chain) : split_pop(q, chain)))
        return false;
    q->in_use = (uint16_t)(q->in_use + chain->descriptor_count);
    return true;
}

void virtio_queue_unpop(struct virtio_queue *q, const struct virtio_chain *chain)
{
    if (chain->generation != q->generation || !usable(q))
        return;
    assert(q->in_use >= chain->descriptor_count);
    q->in_use = (uint16_t)(q->in_use - chain->descriptor_count);
    if (!q->packed) {
        q->avail_index--;
        return;
    }
    unsigned index = q->avail_index;
    if (index < chain->descriptor_count) {
        index += q->size;
        q->avail_wrap = !q->avail_wrap;
    }
    q->avail_index = (uint16_t)(index - chain->descriptor_count);
}

/* ---- giving back ---- */

bool virtio_queue_gpa(const struct virtio_queue *q, const void *hva, uint64_t *gpa)
{
    uintptr_t address = (uintptr_t)hva;
    for (unsigned i = 0; i < ram_region_count(q->ram); i++) {
        const struct ram_region *region = ram_region(q->ram, i);
        uintptr_t start = (uintptr_t)region->hva;
        if (address >= start && address - start < region->size_bytes) {
            *gpa = region->gpa + (address - start);
            return true;
        }
    }
    return false;
}

static void tell_written(const struct virtio_queue *q, const void *hva, uint64_t size_bytes)
{
    uint64_t gpa;
    if (size_bytes && virtio_queue_gpa(q, hva, &gpa))
        ram_written(q->ram, gpa, size_bytes);
}

static void chain_tell_written(const struct virtio_queue *q, const struct virtio_chain *chain,
                               uint64_t written_bytes)
{
    const struct iovec *piece = chain->iov + chain->readable_count;
    for (unsigned i = 0; i < chain->writable_count && written_bytes; i++, piece++) {
        uint64_t size = piece->iov_len < written_bytes ? piece->iov_len : written_bytes;
        tell_written(q, piece->iov_base, size);
        written_bytes -= size;
    }
}

static void split_fill(struct virtio_queue *q, const struct virtio_chain *chain, uint32_t written)
{
    unsigned slot = (uint16_t)(q->used_index + q->filled) % q->size;
    uint8_t *entry = q->device + RING_ENTRIES + USED_ENTRY_BYTES * slot;
    uint32_t id = chain->id;
    memcpy(entry, &id, 4);
    memcpy(entry + 4, &written, 4);
    tell_written(q, entry, USED_ENTRY_BYTES);
}

/* All but the first slot's flags: the driver sees nothing of the batch before those (publish). */
static void packed_fill(struct virtio_queue *q, const struct virtio_chain *chain, uint32_t written)
{
    if (!q->filled) {
        q->fill_index = q->first_index = q->used_index;
        q->fill_wrap = q->used_wrap;
    }
    uint16_t flags = q->fill_wrap ? PACKED_AVAIL | PACKED_USED : 0;
    if (chain->writable_bytes)
        flags |= DESCRIPTOR_WRITE;
    uint8_t *slot = packed_slot(q, q->fill_index);
    memcpy(slot + 8, &written, 4);
    memcpy(slot + 12, &chain->id, 2);
    if (q->filled)
        word_write_release(slot + 14, flags);
    else
        q->first_flags = flags;
    tell_written(q, slot, DESCRIPTOR_BYTES);
    packed_step(q, &q->fill_index, &q->fill_wrap, chain->descriptor_count);
}

void virtio_queue_fill(struct virtio_queue *q, const struct virtio_chain *chain,
                       uint64_t written_bytes)
{
    if (written_bytes > chain->writable_bytes)
        written_bytes = chain->writable_bytes;
    chain_tell_written(q, chain, written_bytes);
    if (chain->generation != q->generation || !usable(q))
        return;
    assert(q->in_use >= chain->descriptor_count);
    if (q->packed)
        packed_fill(q, chain, (uint32_t)written_bytes);
    else
        split_fill(q, chain, (uint32_t)written_bytes);
    q->in_use = (uint16_t)(q->in_use - chain->descriptor_count);
    q->filled++;
    q->filled_slots = (uint16_t)(q->filled_slots + chain->descriptor_count);
}

void virtio_queue_publish(struct virtio_queue *q)
{
    if (!q->filled || !usable(q))
        return;
    if (q->packed) {
        word_write_release(packed_slot(q, q->first_index) + 14, q->first_flags);
        q->used_index = q->fill_index;
        q->used_wrap = q->fill_wrap;
    } else {
        q->used_index = (uint16_t)(q->used_index + q->filled);
        word_write_release(q->device + RING_INDEX, q->used_index);
        tell_written(q, q->device + RING_INDEX, 2);
    }
    /* Kept from wrapping: beyond 64 Ki all answers are the same. */
    q->unsignalled += q->filled_slots;
    if (q->unsignalled > UINT16_MAX + 1)
        q->unsignalled = UINT16_MAX + 1;
    q->filled = q->filled_slots = 0;
}

void virtio_queue_push(struct virtio_queue *q, const struct virtio_chain *chain,
                       uint64_t written_bytes)
{
    virtio_queue_fill(q, chain, written_bytes);
    virtio_queue_publish(q);
}

/* ---- notifications ---- */

/* Whether `event` is among the `count` indices before `now` (2.7.7.1). */
static bool event_passed(uint16_t event, uint16_t now, uint32_t count)
{
    return (uint16_t)(now - event - 1) < count;
}

static bool split_wants_interrupt(const struct virtio_queue *q)
{
    if (!q->event_idx)
        return !(word_read(q->driver + RING_FLAGS) & NO_INTERRUPT);
    uint16_t event = word_read(q->driver + RING_ENTRIES + 2 * q->size);
    return event_passed(event, q->used_index, q->unsignalled);
}

static bool packed_wants_interrupt(const struct virtio_queue *q)
{
    uint16_t flags = word_read_acquire(q->driver + EVENT_FLAGS) & 3;
    if (flags == EVENT_DISABLE)
        return false;
    if (flags != EVENT_DESCRIPTOR || !q->event_idx || q->unsignalled >= q->size)
        return true;
    uint16_t word = word_read(q->driver + EVENT_OFFSET);
    uint16_t event = word & (WRAP_BIT - 1);
    /* Of the lap before: count it below the indices of this one. */
    if (((word & WRAP_BIT) != 0) != q->used_wrap)
        event = (uint16_t)(event - q->size);
    return event_passed(event, q->used_index, q->unsignalled);
}

void virtio_queue_notify(struct virtio_queue *q)
{
    if (!usable(q) || !q->unsignalled)
        return;
    full_barrier();
    bool wanted = q->packed ? packed_wants_interrupt(q) : split_wants_interrupt(q);
    q->unsignalled = 0;
    if (wanted && q->hooks.interrupt)
        q->hooks.interrupt(q->hooks.opaque, q->index);
}

void virtio_queue_suppress(struct virtio_queue *q)
{
    if (!usable(q))
        return;
    if (q->packed) {
        word_write(q->device + EVENT_FLAGS, EVENT_DISABLE);
        tell_written(q, q->device, EVENT_BYTES);
    } else if (!q->event_idx) {
        word_write(q->device + RING_FLAGS, NO_NOTIFY);
        tell_written(q, q->device + RING_FLAGS, 2);
    }
    /* A split ring with event indices: the event that was passed asks for no more kicks. */
}

bool virtio_queue_listen(struct virtio_queue *q)
{
    if (!usable(q))
        return false;
    uint8_t *written = q->device;
    if (q->packed && q->event_idx) {
        uint16_t wrap = q->avail_wrap ? WRAP_BIT : 0;
        word_write(q->device + EVENT_OFFSET, q->avail_index | wrap);
        word_write_release(q->device + EVENT_FLAGS, EVENT_DESCRIPTOR);
    } else if (q->packed) {
        word_write(q->device + EVENT_FLAGS, EVENT_ENABLE);
    } else if (q->event_idx) {
        written = q->device + RING_ENTRIES + USED_ENTRY_BYTES * q->size;
        word_write(written, q->avail_index);
    } else {
        word_write(q->device + RING_FLAGS, 0);
    }
    tell_written(q, written, q->packed ? EVENT_BYTES : 2);
    full_barrier();
    return virtio_queue_has_next(q);
}

/* ---- access to a chain ---- */

/* Walks `count` pieces from `offset`, copying in one direction. */
static size_t pieces_copy(const struct iovec *piece, unsigned count, uint64_t offset, void *out,
                          const void *in, size_t size_bytes)
{
    size_t done = 0;
    for (unsigned i = 0; i < count && done < size_bytes; i++, piece++) {
        if (offset >= piece->iov_len) {
            offset -= piece->iov_len;
            continue;
        }
        size_t here = piece->iov_len - (size_t)offset;
        if (here > size_bytes - done)
            here = size_bytes - done;
        uint8_t *guest = (uint8_t *)piece->iov_base + offset;
        if (out)
            memcpy((uint8_t *)out + done, guest, here);
        else
            memcpy(guest, (const uint8_t *)in + done, here);
        done += here;
        offset = 0;
    }
    return done;
}

size_t virtio_chain_read(const struct virtio_chain *chain, uint64_t offset, void *buffer,
                         size_t size_bytes)
{
    return pieces_copy(chain->iov, chain->readable_count, offset, buffer, NULL, size_bytes);
}

size_t virtio_chain_write(const struct virtio_chain *chain, uint64_t offset, const void *buffer,
                          size_t size_bytes)
{
    return pieces_copy(chain->iov + chain->readable_count, chain->writable_count, offset, NULL,
                       buffer, size_bytes);
}

uint64_t virtio_iov_skip(struct iovec **iov, unsigned *count, uint64_t size_bytes)
{
    uint64_t done = 0;
    while (*count && done < size_bytes) {
        uint64_t left = size_bytes - done;
        if (left < (*iov)->iov_len) {
            (*iov)->iov_base = (uint8_t *)(*iov)->iov_base + left;
            (*iov)->iov_len -= left;
            return size_bytes;
        }
        done += (*iov)->iov_len;
        (*iov)++;
        (*count)--;
    }
    return done;
}

/* ---- saved state ---- */

void virtio_queue_save(const struct virtio_queue *q, struct save *save)
{
    save_u16(save, q->size);
    save_u64(save, q->descriptor_gpa);
    save_u64(save, q->driver_gpa);
    save_u64(save, q->device_gpa);
    save_bool(save, q->enabled);
    save_bool(save, q->broken);
    save_bool(save, q->packed);
    save_bool(save, q->event_idx);
    save_bool(save, q->indirect);
    save_u16(save, q->avail_index);
    save_bool(save, q->avail_wrap);
    save_u16(save, q->used_index);
    save_bool(save, q->used_wrap);
    save_u32(save, q->unsignalled);
}

static bool loaded_valid(const struct virtio_queue *q)
{
    if (!q->enabled)
        return true; /* any size may wait there to be refused when it is enabled */
    return size_valid(q) && (!q->packed || (q->avail_index < q->size && q->used_index < q->size));
}

bool virtio_queue_load(struct virtio_queue *q, struct load *load)
{
    virtio_queue_reset(q);
    q->size = load_u16(load);
    q->descriptor_gpa = load_u64(load);
    q->driver_gpa = load_u64(load);
    q->device_gpa = load_u64(load);
    q->enabled = load_bool(load);
    q->broken = load_bool(load);
    q->packed = load_bool(load);
    q->event_idx = load_bool(load);
    q->indirect = load_bool(load);
    q->avail_index = load_u16(load);
    q->avail_wrap = load_bool(load);
    q->used_index = load_u16(load);
    q->used_wrap = load_bool(load);
    q->unsignalled = load_u32(load);
    if (!load->failed && loaded_valid(q) && (!q->enabled || areas_map(q)))
        return true;
    load_fail(load);
    virtio_queue_reset(q);
    return false;
}
