/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A small virtio driver for tests: a machine of RAM, bus and PCI; a device found through its
 * capabilities and driven through bus_read and bus_write; rings of both formats written in guest
 * RAM, event indices and indirect tables included. Single-threaded. All asserts are cmocka's.
 *
 *     struct vd_machine m;                     struct vd d;
 *     vd_machine_init(&m, 16 << 20);           (create a virtio device in slot 3)
 *     vd_boot(&m);                             vd_open(&d, &m, 3);
 *     vd_negotiate(&d, VIRTIO_F_VERSION_1);    vd_queue_setup(&d, 0, 8);   vd_start(&d);
 *     vd_add(&d, 0, buffers, count, false);    vd_kick(&d, 0);
 *     vd_used(&d, 0, &id, &length);
 */
#ifndef SKEP_TESTS_DEV_VIRTIO_DRIVER_H
#define SKEP_TESTS_DEV_VIRTIO_DRIVER_H

#include "base/loop.h"
#include "bus/bus.h"
#include "bus/ram.h"
#include "dev/pci.h"
#include "dev/pci_host.h"
#include "dev/virtio/pci.h"
#include "dev/virtio/virtio.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum {
    VD_ADDRESS_PORT = 0xcf8,
    VD_QUEUES_MAX = 80,
    VD_RING_MAX = 1024,
    VD_MSI_MAX = 4096,
    VD_NO_VECTOR = 0xffff,
    VD_MSI_DATA = 0x4000, /* vector n sends VD_MSI_DATA + n */
};
#define VD_MSI_ADDRESS UINT64_C(0xfee00000)
#define VD_ECAM_BASE   UINT64_C(0xb0000000)
#define VD_MMIO32_BASE UINT64_C(0xc0000000)
#define VD_MMIO64_BASE UINT64_C(0x800000000)

/* ---- the machine ---- */

struct vd_machine {
    struct ram *ram;
    struct physmap *physmap;
    struct bus *bus;
    struct pci_bus *pci;
    struct pci_host *host;
    struct loop *loop;
    struct log log;
    unsigned log_lines;
    uint64_t next_gpa; /* of vd_alloc */
    bool intx;         /* all pins are one wire here */
    unsigned msi_count;
    uint32_t msi_data[VD_MSI_MAX];
    uint64_t written_bytes; /* what ram_written() was told */
    uint64_t watched_gpa;   /* a byte … */
    bool watched_written;   /* … that it was told of */
    struct vd *busy;        /* a driver that refills … */
    unsigned busy_queue;    /* … this queue, see vd_check_turns() */
    unsigned refills;
};

static inline void vd_refill(struct vd_machine *m);

static inline void vd_log(void *opaque, enum log_level level, const char *module, const char *text)
{
    ((struct vd_machine *)opaque)->log_lines++;
}

static inline void vd_irq_set(void *opaque, unsigned number, bool level)
{
    ((struct vd_machine *)opaque)->intx = level;
}

static inline struct irq_line vd_route(void *opaque, unsigned slot, unsigned pin)
{
    return (struct irq_line){vd_irq_set, opaque, 16};
}

static inline void vd_msi_send(void *opaque, uint64_t address, uint32_t data)
{
    struct vd_machine *m = opaque;
    assert_int_equal(address, VD_MSI_ADDRESS);
    assert_true(m->msi_count < VD_MSI_MAX);
    m->msi_data[m->msi_count++] = data;
}

static inline struct msi_sink vd_msi(struct vd_machine *m)
{
    return (struct msi_sink){vd_msi_send, m};
}

static inline void vd_ram_watch(void *opaque, uint64_t gpa, uint64_t size_bytes)
{
    struct vd_machine *m = opaque;
    m->written_bytes += size_bytes;
    if (m->watched_gpa >= gpa && m->watched_gpa - gpa < size_bytes)
        m->watched_written = true;
    if (m->busy)
        vd_refill(m);
}

static inline void vd_machine_init(struct vd_machine *m, uint64_t ram_bytes)
{
    struct error err = {0};
    memset(m, 0, sizeof(*m));
    m->log = (struct log){LOG_DEBUG, vd_log, m};
    m->next_gpa = 0x10000;
    m->ram = ram_create(ram_bytes, &err);
    assert_non_null(m->ram);
    ram_set_watcher(m->ram, vd_ram_watch, m);
    m->bus = bus_create(&m->log);
    assert_non_null(m->bus);
    m->physmap = physmap_create(m->ram);
    assert_non_null(m->physmap);
    struct pci_bus_config pci = {m->bus, &m->log, vd_route, m, m->physmap};
    m->pci = pci_bus_create(&pci, &err);
    assert_non_null(m->pci);
    struct pci_host_config host = {m->pci, VD_ADDRESS_PORT, VD_ECAM_BASE};
    m->host = pci_host_create(&host, &err);
    assert_non_null(m->host);
    m->loop = loop_create(&err);
    assert_non_null(m->loop);
}

/* After the test's devices are destroyed. */
static inline void vd_machine_free(struct vd_machine *m)
{
    loop_destroy(m->loop);
    pci_host_ops.destroy(m->host);
    pci_bus_destroy(m->pci);
    bus_destroy(m->bus);
    physmap_destroy(m->physmap);
    ram_destroy(m->ram);
}

/* Places the BARs, as the machine does when no firmware runs. */
static inline void vd_boot(struct vd_machine *m)
{
    struct error err = {0};
    struct pci_windows windows = {.mmio32 = {VD_MMIO32_BASE, 0x10000000},
                                  .mmio64 = {VD_MMIO64_BASE, 0x100000000},
                                  .io = {0xc000, 0x1000}};
    assert_true(pci_assign_bars(m->pci, &windows, &err));
}

static inline uint32_t vd_config_read(struct vd_machine *m, unsigned slot, unsigned reg,
                                      unsigned size_bytes)
{
    uint32_t address = UINT32_C(0x80000000) | slot << 11 | (reg & 0xfc);
    bus_write(m->bus, BUS_PORT, VD_ADDRESS_PORT, address, 4);
    return (uint32_t)bus_read(m->bus, BUS_PORT, VD_ADDRESS_PORT + 4 + (reg & 3), size_bytes);
}

static inline void vd_config_write(struct vd_machine *m, unsigned slot, unsigned reg,
                                   uint32_t value, unsigned size_bytes)
{
    uint32_t address = UINT32_C(0x80000000) | slot << 11 | (reg & 0xfc);
    bus_write(m->bus, BUS_PORT, VD_ADDRESS_PORT, address, 4);
    bus_write(m->bus, BUS_PORT, VD_ADDRESS_PORT + 4 + (reg & 3), value, size_bytes);
}

static inline uint64_t vd_bar(struct vd_machine *m, unsigned slot, unsigned index)
{
    uint64_t low = vd_config_read(m, slot, PCI_BAR0 + 4 * index, 4);
    if ((low & 7) == 4)
        low |= (uint64_t)vd_config_read(m, slot, PCI_BAR0 + 4 * index + 4, 4) << 32;
    return low & ~UINT64_C(0xf);
}

/* The first capability with this id after `previous` (0: from the start); 0 when there is none. */
static inline unsigned vd_capability(struct vd_machine *m, unsigned slot, uint8_t id,
                                     unsigned previous)
{
    unsigned at = vd_config_read(m, slot, previous ? previous + 1 : PCI_CAPABILITIES, 1);
    for (unsigned tries = 0; at && tries < 48; tries++) {
        if (vd_config_read(m, slot, at, 1) == id)
            return at;
        at = vd_config_read(m, slot, at + 1, 1);
    }
    return 0;
}

/* Guest memory that nothing else uses, zeroed. */
static inline uint64_t vd_alloc(struct vd_machine *m, uint64_t size_bytes, uint64_t align)
{
    m->next_gpa = (m->next_gpa + align - 1) / align * align;
    uint64_t gpa = m->next_gpa;
    m->next_gpa += size_bytes;
    void *hva = ram_hva(m->ram, gpa, size_bytes);
    assert_non_null(hva);
    memset(hva, 0, size_bytes);
    return gpa;
}

static inline void vd_put(struct vd_machine *m, uint64_t gpa, uint64_t value, unsigned size_bytes)
{
    void *hva = ram_hva(m->ram, gpa, size_bytes);
    assert_non_null(hva);
    memcpy(hva, &value, size_bytes);
}

static inline uint64_t vd_get(struct vd_machine *m, uint64_t gpa, unsigned size_bytes)
{
    uint64_t value = 0;
    void *hva = ram_hva(m->ram, gpa, size_bytes);
    assert_non_null(hva);
    memcpy(&value, hva, size_bytes);
    return value;
}

/* ---- the device ---- */

struct vd_buffer {
    uint64_t gpa;
    uint32_t size_bytes;
    bool is_writable;
};

struct vd_queue {
    uint16_t size;
    uint64_t descriptors, driver, device; /* gpa */
    uint64_t doorbell;                    /* address */
    uint16_t vector;
    uint16_t avail_index, used_index;
    bool avail_wrap, used_wrap;
    uint16_t free_count;            /* ring slots */
    bool id_used[VD_RING_MAX];      /* split: descriptor; packed: buffer id */
    uint16_t id_slots[VD_RING_MAX]; /* of the chain that starts there */
    uint16_t id_next[VD_RING_MAX];  /* split: as in the ring */
};

struct vd {
    struct vd_machine *m;
    unsigned slot;
    uint64_t common, notify, isr, config; /* addresses; config 0: none */
    uint32_t notify_step, config_size_bytes;
    uint64_t msix_table;
    unsigned msix_vectors;
    bool msix;
    uint64_t features;
    struct vd_queue queues[VD_QUEUES_MAX];
};

static inline uint64_t vd_read(struct vd *d, uint64_t address, unsigned size_bytes)
{
    return bus_read(d->m->bus, BUS_MMIO, address, size_bytes);
}

static inline void vd_write(struct vd *d, uint64_t address, uint64_t value, unsigned size_bytes)
{
    bus_write(d->m->bus, BUS_MMIO, address, value, size_bytes);
}

static inline void vd_find_areas(struct vd *d)
{
    unsigned at = 0;
    while ((at = vd_capability(d->m, d->slot, PCI_CAPABILITY_VENDOR, at)) != 0) {
        unsigned type = vd_config_read(d->m, d->slot, at + 3, 1);
        unsigned bar = vd_config_read(d->m, d->slot, at + 4, 1);
        uint32_t offset = vd_config_read(d->m, d->slot, at + 8, 4);
        uint64_t address = type == 5 ? 0 : vd_bar(d->m, d->slot, bar) + offset;
        switch (type) {
        case 1: d->common = address; break;
        case 2:
            d->notify = address;
            d->notify_step = vd_config_read(d->m, d->slot, at + 16, 4);
            break;
        case 3: d->isr = address; break;
        case 4:
            d->config = address;
            d->config_size_bytes = vd_config_read(d->m, d->slot, at + 12, 4);
            break;
        }
    }
}

/* Finds the device's registers (its BARs are placed: vd_boot) and resets it. */
static inline void vd_open(struct vd *d, struct vd_machine *m, unsigned slot)
{
    memset(d, 0, sizeof(*d));
    d->m = m;
    d->slot = slot;
    assert_int_equal(vd_config_read(m, slot, PCI_VENDOR, 2), 0x1af4);
    vd_find_areas(d);
    assert_true(d->common && d->notify && d->isr);
    unsigned msix = vd_capability(m, slot, PCI_CAPABILITY_MSIX, 0);
    assert_true(msix);
    d->msix_vectors = (vd_config_read(m, slot, msix + 2, 2) & 0x7ff) + 1;
    uint32_t table = vd_config_read(m, slot, msix + 4, 4);
    d->msix_table = vd_bar(m, slot, table & 7) + (table & ~UINT32_C(7));
    vd_write(d, d->common + 20, 0, 1);
    vd_write(d, d->common + 20, VIRTIO_STATUS_ACKNOWLEDGE, 1);
    vd_write(d, d->common + 20, VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER, 1);
}

static inline uint8_t vd_status(struct vd *d)
{
    return (uint8_t)vd_read(d, d->common + 20, 1);
}

static inline void vd_reset(struct vd *d)
{
    vd_write(d, d->common + 20, 0, 1);
}

static inline uint64_t vd_offered(struct vd *d)
{
    uint64_t features = 0;
    for (unsigned window = 0; window < 2; window++) {
        vd_write(d, d->common, window, 4);
        features |= vd_read(d, d->common + 4, 4) << (32 * window);
    }
    return features;
}

/* Sets features and FEATURES_OK; gives whether the device took them. */
static inline bool vd_negotiate(struct vd *d, uint64_t features)
{
    for (unsigned window = 0; window < 2; window++) {
        vd_write(d, d->common + 8, window, 4);
        vd_write(d, d->common + 12, (uint32_t)(features >> (32 * window)), 4);
    }
    d->features = features;
    vd_write(d, d->common + 20, vd_status(d) | VIRTIO_STATUS_FEATURES_OK, 1);
    return vd_status(d) & VIRTIO_STATUS_FEATURES_OK;
}

/* Switches MSI-X on: vector n sends VD_MSI_DATA + n. Before queues are set up; queue n gets vector
 * n + 1, configuration vector 0. */
static inline void vd_enable_msix(struct vd *d)
{
    unsigned at = vd_capability(d->m, d->slot, PCI_CAPABILITY_MSIX, 0);
    for (unsigned i = 0; i < d->msix_vectors; i++) {
        vd_write(d, d->msix_table + 16 * i, VD_MSI_ADDRESS, 4);
        vd_write(d, d->msix_table + 16 * i + 4, 0, 4);
        vd_write(d, d->msix_table + 16 * i + 8, VD_MSI_DATA + i, 4);
        vd_write(d, d->msix_table + 16 * i + 12, 0, 4);
    }
    vd_config_write(d->m, d->slot, at + 2, 0x8000, 2);
    vd_write(d, d->common + 16, 0, 2);
    assert_int_equal(vd_read(d, d->common + 16, 2), 0);
    d->msix = true;
}

/* How many messages of a vector were sent. */
static inline unsigned vd_msi_of(struct vd_machine *m, unsigned vector)
{
    unsigned count = 0;
    for (unsigned i = 0; i < m->msi_count; i++)
        count += m->msi_data[i] == VD_MSI_DATA + vector;
    return count;
}

static inline bool vd_is_packed(const struct vd *d)
{
    return d->features & VIRTIO_F_RING_PACKED;
}

/* Writes queue registers without enabling; a test may change them first. */
static inline void vd_queue_place(struct vd *d, unsigned index, uint16_t size, uint64_t descriptors,
                                  uint64_t driver, uint64_t device)
{
    struct vd_queue *q = &d->queues[index];
    memset(q, 0, sizeof(*q));
    q->size = q->free_count = size;
    q->descriptors = descriptors;
    q->driver = driver;
    q->device = device;
    q->avail_wrap = q->used_wrap = true;
    q->vector = d->msix ? (uint16_t)(index + 1) : VD_NO_VECTOR;
    vd_write(d, d->common + 22, index, 2);
    vd_write(d, d->common + 24, size, 2);
    vd_write(d, d->common + 26, q->vector, 2);
    for (unsigned half = 0; half < 2; half++) {
        vd_write(d, d->common + 32 + 4 * half, (uint32_t)(descriptors >> (32 * half)), 4);
        vd_write(d, d->common + 40 + 4 * half, (uint32_t)(driver >> (32 * half)), 4);
        vd_write(d, d->common + 48 + 4 * half, (uint32_t)(device >> (32 * half)), 4);
    }
    q->doorbell = d->notify + vd_read(d, d->common + 30, 2) * d->notify_step;
}

static inline void vd_queue_enable(struct vd *d, unsigned index)
{
    vd_write(d, d->common + 22, index, 2);
    vd_write(d, d->common + 28, 1, 2);
}

/* Allocates a ring of the negotiated format and enables it. */
static inline void vd_queue_setup(struct vd *d, unsigned index, uint16_t size)
{
    assert_true(index < VD_QUEUES_MAX && size <= VD_RING_MAX);
    uint64_t descriptors = vd_alloc(d->m, 16U * size, 16);
    uint64_t driver = vd_alloc(d->m, 6U + 2U * size, 4);
    uint64_t device = vd_alloc(d->m, 6U + 8U * size, 4);
    vd_queue_place(d, index, size, descriptors, driver, device);
    vd_queue_enable(d, index);
    assert_int_equal(vd_read(d, d->common + 28, 2), 1);
}

static inline void vd_start(struct vd *d)
{
    vd_write(d, d->common + 20, vd_status(d) | VIRTIO_STATUS_DRIVER_OK, 1);
}

/* ---- rings ---- */

enum { VD_NEXT = 1, VD_WRITE = 2, VD_INDIRECT = 4, VD_AVAIL = 1 << 7, VD_USED = 1 << 15 };

static inline void vd_put_descriptor(struct vd_machine *m, uint64_t at, uint64_t gpa,
                                     uint32_t size_bytes, uint16_t word0, uint16_t word1)
{
    vd_put(m, at, gpa, 8);
    vd_put(m, at + 8, size_bytes, 4);
    vd_put(m, at + 12, word0, 2);
    vd_put(m, at + 14, word1, 2);
}

static inline uint16_t vd_take_id(struct vd_queue *q)
{
    for (uint16_t i = 0; i < q->size; i++) {
        if (!q->id_used[i]) {
            q->id_used[i] = true;
            return i;
        }
    }
    fail_msg("the test's ring is full");
    return 0;
}

/* Makes an indirect table of the buffers; gives the one descriptor that points to it. */
static inline struct vd_buffer vd_indirect_table(struct vd *d, const struct vd_buffer *buffers,
                                                 unsigned count)
{
    uint64_t table = vd_alloc(d->m, 16U * count, 16);
    for (unsigned i = 0; i < count; i++) {
        uint16_t flags = buffers[i].is_writable ? VD_WRITE : 0;
        bool more = i + 1 < count;
        if (vd_is_packed(d))
            vd_put_descriptor(d->m, table + 16 * i, buffers[i].gpa, buffers[i].size_bytes, 0,
                              flags);
        else
            vd_put_descriptor(d->m, table + 16 * i, buffers[i].gpa, buffers[i].size_bytes,
                              flags | (more ? VD_NEXT : 0), (uint16_t)(more ? i + 1 : 0));
    }
    return (struct vd_buffer){table, 16U * count, false};
}

static inline uint16_t vd_add_split(struct vd *d, struct vd_queue *q,
                                    const struct vd_buffer *buffers, unsigned count, uint16_t extra)
{
    uint16_t ids[VD_RING_MAX];
    for (unsigned i = 0; i < count; i++)
        ids[i] = vd_take_id(q);
    for (unsigned i = 0; i < count; i++) {
        bool more = i + 1 < count;
        uint16_t flags =
            (uint16_t)(extra | (buffers[i].is_writable ? VD_WRITE : 0) | (more ? VD_NEXT : 0));
        q->id_next[ids[i]] = more ? ids[i + 1] : 0;
        vd_put_descriptor(d->m, q->descriptors + 16U * ids[i], buffers[i].gpa,
                          buffers[i].size_bytes, flags, q->id_next[ids[i]]);
    }
    vd_put(d->m, q->driver + 4 + 2U * (q->avail_index % q->size), ids[0], 2);
    q->avail_index++;
    vd_put(d->m, q->driver + 2, q->avail_index, 2);
    q->id_slots[ids[0]] = (uint16_t)count;
    return ids[0];
}

static inline uint16_t vd_add_packed(struct vd *d, struct vd_queue *q,
                                     const struct vd_buffer *buffers, unsigned count,
                                     uint16_t extra)
{
    uint16_t id = vd_take_id(q);
    uint64_t first_at = 0;
    uint16_t first_flags = 0;
    for (unsigned i = 0; i < count; i++) {
        uint16_t flags =
            (uint16_t)(extra | (buffers[i].is_writable ? VD_WRITE : 0) |
                       (i + 1 < count ? VD_NEXT : 0) | (q->avail_wrap ? VD_AVAIL : VD_USED));
        uint64_t at = q->descriptors + 16U * q->avail_index;
        uint16_t old = (uint16_t)vd_get(d->m, at + 14, 2);
        vd_put_descriptor(d->m, at, buffers[i].gpa, buffers[i].size_bytes, id, i ? flags : old);
        if (i == 0) {
            first_at = at;
            first_flags = flags;
        }
        if (++q->avail_index == q->size) {
            q->avail_index = 0;
            q->avail_wrap = !q->avail_wrap;
        }
    }
    vd_put(d->m, first_at + 14, first_flags, 2);
    q->id_slots[id] = (uint16_t)count;
    return id;
}

/* Makes a chain available (readable buffers first); gives the id that comes back with it. */
static inline uint16_t vd_add(struct vd *d, unsigned index, const struct vd_buffer *buffers,
                              unsigned count, bool indirect)
{
    struct vd_queue *q = &d->queues[index];
    struct vd_buffer table;
    uint16_t extra = 0;
    if (indirect) {
        table = vd_indirect_table(d, buffers, count);
        buffers = &table;
        count = 1;
        extra = VD_INDIRECT;
    }
    assert_true(count && count <= q->free_count);
    q->free_count = (uint16_t)(q->free_count - count);
    return vd_is_packed(d) ? vd_add_packed(d, q, buffers, count, extra)
                           : vd_add_split(d, q, buffers, count, extra);
}

/* Rings the doorbell, wanted or not. */
static inline void vd_kick(struct vd *d, unsigned index)
{
    vd_write(d, d->queues[index].doorbell, index, 2);
}

/* Gives back what the device has used next; false when nothing is. */
static inline bool vd_used(struct vd *d, unsigned index, uint16_t *id, uint32_t *size_bytes)
{
    struct vd_queue *q = &d->queues[index];
    uint64_t at;
    if (vd_is_packed(d)) {
        at = q->descriptors + 16U * q->used_index;
        uint16_t flags = (uint16_t)vd_get(d->m, at + 14, 2);
        bool avail = flags & VD_AVAIL, used = flags & VD_USED;
        if (avail != used || used != q->used_wrap || q->free_count == q->size)
            return false;
        *size_bytes = (uint32_t)vd_get(d->m, at + 8, 4);
        *id = (uint16_t)vd_get(d->m, at + 12, 2);
    } else {
        if ((uint16_t)vd_get(d->m, q->device + 2, 2) == q->used_index)
            return false;
        at = q->device + 4 + 8U * (q->used_index % q->size);
        *id = (uint16_t)vd_get(d->m, at, 4);
        *size_bytes = (uint32_t)vd_get(d->m, at + 4, 4);
    }
    assert_true(*id < q->size && q->id_used[*id]);
    uint16_t slots = q->id_slots[*id];
    q->free_count = (uint16_t)(q->free_count + slots);
    unsigned next = q->used_index + (vd_is_packed(d) ? slots : 1U);
    if (vd_is_packed(d) && next >= q->size) {
        next -= q->size;
        q->used_wrap = !q->used_wrap;
    }
    q->used_index = (uint16_t)next;
    uint16_t at_id = *id;
    for (unsigned i = 0; i < (vd_is_packed(d) ? 1U : slots); i++) {
        q->id_used[at_id] = false;
        at_id = q->id_next[at_id];
    }
    return true;
}

/* Whether the device wants to be kicked for what was added last (`count` slots or chains before
 * the driver's index). */
static inline bool vd_kick_wanted(struct vd *d, unsigned index, unsigned count)
{
    struct vd_queue *q = &d->queues[index];
    bool event_idx = d->features & VIRTIO_F_EVENT_IDX;
    if (!vd_is_packed(d)) {
        if (!event_idx)
            return !(vd_get(d->m, q->device, 2) & 1);
        uint16_t event = (uint16_t)vd_get(d->m, q->device + 4 + 8U * q->size, 2);
        return (uint16_t)(q->avail_index - event - 1) < count;
    }
    uint16_t flags = (uint16_t)vd_get(d->m, q->device + 2, 2) & 3;
    if (flags != 2)
        return flags == 0;
    uint16_t word = (uint16_t)vd_get(d->m, q->device, 2), event = word & 0x7fff;
    if ((word >> 15) != q->avail_wrap)
        event = (uint16_t)(event - q->size);
    return (uint16_t)(q->avail_index - event - 1) < count;
}

/* How the driver wants to hear of used buffers: always, never, or (event index) only once the
 * device has used `after` more slots or chains than the driver has seen. */
enum vd_interrupts { VD_INTERRUPTS_ON, VD_INTERRUPTS_OFF, VD_INTERRUPTS_AFTER };
static inline void vd_interrupts(struct vd *d, unsigned index, enum vd_interrupts mode,
                                 unsigned after)
{
    struct vd_queue *q = &d->queues[index];
    if (!vd_is_packed(d)) {
        vd_put(d->m, q->driver, mode == VD_INTERRUPTS_OFF, 2);
        if (mode == VD_INTERRUPTS_AFTER)
            vd_put(d->m, q->driver + 4 + 2U * q->size, (uint16_t)(q->used_index + after), 2);
        return;
    }
    unsigned event = q->used_index + after;
    bool wrap = q->used_wrap;
    if (event >= q->size) {
        event -= q->size;
        wrap = !wrap;
    }
    vd_put(d->m, q->driver, event | (wrap ? 0x8000U : 0), 2);
    vd_put(d->m, q->driver + 2, (uint64_t)mode, 2);
}

/* Reads the ISR, which also lowers INTx. */
static inline uint8_t vd_isr(struct vd *d)
{
    return (uint8_t)vd_read(d, d->isr, 1);
}

/* ---- a driver on another processor that never lets a queue run empty ---- */

static inline void vd_refill(struct vd_machine *m)
{
    struct vd_queue *q = &m->busy->queues[m->busy_queue];
    uint16_t id;
    uint32_t size_bytes;
    while (vd_used(m->busy, m->busy_queue, &id, &size_bytes)) {
        uint16_t at = id;
        for (unsigned i = 0; i < q->id_slots[id]; i++, at = q->id_next[at])
            q->id_used[at] = true;
        q->free_count = (uint16_t)(q->free_count - q->id_slots[id]);
        vd_put(m, q->driver + 4 + 2U * (q->avail_index % q->size), id, 2);
        vd_put(m, q->driver + 2, ++q->avail_index, 2);
        m->refills++;
    }
}

/* What is in a queue (of a split ring; vd_add() without vd_kick()) is answered, and comes again at
 * once: no kick takes more of it than a ring of it, and the loop goes on, until the driver resets
 * the device. */
static inline void vd_check_turns(struct vd *d, unsigned index)
{
    struct vd_machine *m = d->m;
    assert_false(vd_is_packed(d));
    m->busy = d;
    m->busy_queue = index;
    m->refills = 0;
    vd_kick(d, index);
    assert_int_equal(m->refills, d->queues[index].size);
    for (unsigned turn = 2; turn <= 3; turn++) {
        loop_run_once(m->loop, 1000);
        assert_int_equal(m->refills, turn * d->queues[index].size);
    }
    vd_reset(d);
    loop_run_once(m->loop, 0);
    assert_int_equal(m->refills, 3 * d->queues[index].size);
    m->busy = NULL;
}

#endif
