/* SPDX-License-Identifier: BSD-2-Clause
 *
 * virtio over PCI (virtio 1.2, 4.1): capabilities, the registers in BAR 0, interrupts by MSI-X or
 * INTx. Left out: the legacy interface, NOTIFICATION_DATA, shared memory. Registers are used by
 * vCPU threads; what they hold is guarded by the device's lock, which the core shares with us.
 */
#include "dev/virtio/pci.h"

#include "dev/msix.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum {
    VENDOR = 0x1af4,
    DEVICE_BASE = 0x1040,
    REVISION = 1,

    REGISTER_BAR = 0,
    MSIX_BAR = 4,
    NO_VECTOR = 0xffff,

    COMMON_AT = 0x0000, /* the areas of BAR 0 */
    ISR_AT = 0x1000,
    CONFIG_AT = 0x2000,
    NOTIFY_AT = 0x3000,
    AREA_BYTES = 0x1000,
    BAR_BYTES = 0x4000,
    NOTIFY_STEP = 4,

    ISR_QUEUE = 1,
    ISR_CONFIG = 2,

    CAPABILITY_COMMON = 1, /* cfg_type, 4.1.4 */
    CAPABILITY_NOTIFY = 2,
    CAPABILITY_ISR = 3,
    CAPABILITY_DEVICE = 4,
    CAPABILITY_PCI = 5,
    CAPABILITY_BYTES = 16,
    ACCESS_BAR = 4, /* fields of the capability for access by configuration space, 4.1.4.9 */
    ACCESS_OFFSET = 8,
    ACCESS_LENGTH = 12,
    ACCESS_DATA = 16,
    ACCESS_END = 20,
};

/* Offsets of the common configuration, 4.1.4.3. */
enum {
    COMMON_DEVICE_FEATURE_SELECT = 0,
    COMMON_DEVICE_FEATURE = 4,
    COMMON_DRIVER_FEATURE_SELECT = 8,
    COMMON_DRIVER_FEATURE = 12,
    COMMON_CONFIG_VECTOR = 16,
    COMMON_QUEUE_COUNT = 18,
    COMMON_STATUS = 20,
    COMMON_GENERATION = 21,
    COMMON_QUEUE_SELECT = 22,
    COMMON_QUEUE_SIZE = 24,
    COMMON_QUEUE_VECTOR = 26,
    COMMON_QUEUE_ENABLE = 28,
    COMMON_QUEUE_NOTIFY_OFF = 30,
    COMMON_QUEUE_DESCRIPTORS = 32,
    COMMON_QUEUE_DRIVER = 40,
    COMMON_QUEUE_DEVICE = 48,
    COMMON_QUEUE_RESET = 58,
    COMMON_BYTES = 64,
};

struct doorbell {
    struct virtio_pci *pci;
    unsigned index;
};

struct virtio_pci {
    struct bus *bus;
    struct virtio_device *device;
    struct pci_function *function;
    struct msix *msix;
    unsigned access_capability;
    struct doorbell *doorbells; /* one a queue */

    /* Under the device's lock: */
    uint32_t device_feature_select, driver_feature_select;
    uint16_t queue_select;
    uint16_t config_vector;
    uint16_t *queue_vectors;
    uint8_t isr;
};

/* ---- interrupts, from the core, with the lock held ---- */

static void transport_interrupt(void *opaque, int source)
{
    struct virtio_pci *pci = opaque;
    bool is_config = source == VIRTIO_INTERRUPT_CONFIG;
    if (msix_enabled(pci->msix)) {
        msix_notify(pci->msix, is_config ? pci->config_vector : pci->queue_vectors[source]);
        return;
    }
    pci->isr |= is_config ? ISR_CONFIG : ISR_QUEUE;
    pci_function_intx(pci->function, true);
}

static void transport_reset(void *opaque)
{
    struct virtio_pci *pci = opaque;
    pci->device_feature_select = pci->driver_feature_select = 0;
    pci->queue_select = 0;
    pci->config_vector = NO_VECTOR;
    for (unsigned i = 0; i < virtio_queue_count(pci->device); i++)
        pci->queue_vectors[i] = NO_VECTOR;
    pci->isr = 0;
    pci_function_intx(pci->function, false);
    msix_clear_pending(pci->msix);
}

/* ---- common configuration ---- */

static void image_put(uint8_t *image, unsigned offset, uint64_t value, unsigned size_bytes)
{
    memcpy(image + offset, &value, size_bytes);
}

static void common_image_queue(struct virtio_pci *pci, unsigned index, uint16_t vector,
                               uint8_t *image)
{
    struct virtio_queue_setup setup;
    if (!virtio_queue_get(pci->device, index, &setup))
        return; /* all zero: no such queue */
    image_put(image, COMMON_QUEUE_SIZE, setup.size, 2);
    image_put(image, COMMON_QUEUE_VECTOR, vector, 2);
    image_put(image, COMMON_QUEUE_ENABLE, setup.enabled || setup.resetting, 2);
    image_put(image, COMMON_QUEUE_NOTIFY_OFF, index, 2);
    image_put(image, COMMON_QUEUE_DESCRIPTORS, setup.descriptor_gpa, 8);
    image_put(image, COMMON_QUEUE_DRIVER, setup.driver_gpa, 8);
    image_put(image, COMMON_QUEUE_DEVICE, setup.device_gpa, 8);
    image_put(image, COMMON_QUEUE_RESET, setup.resetting, 2);
}

static void common_image(struct virtio_pci *pci, uint8_t *image)
{
    memset(image, 0, COMMON_BYTES);
    virtio_lock(pci->device);
    uint32_t device_select = pci->device_feature_select;
    uint32_t driver_select = pci->driver_feature_select;
    uint16_t index = pci->queue_select, config_vector = pci->config_vector;
    uint16_t vector =
        index < virtio_queue_count(pci->device) ? pci->queue_vectors[index] : NO_VECTOR;
    virtio_unlock(pci->device);
    uint64_t offered = virtio_offered(pci->device);
    image_put(image, COMMON_DEVICE_FEATURE_SELECT, device_select, 4);
    image_put(image, COMMON_DEVICE_FEATURE, device_select < 2 ? offered >> (32 * device_select) : 0,
              4);
    image_put(image, COMMON_DRIVER_FEATURE_SELECT, driver_select, 4);
    image_put(image, COMMON_DRIVER_FEATURE, virtio_driver_features(pci->device, driver_select), 4);
    image_put(image, COMMON_CONFIG_VECTOR, config_vector, 2);
    image_put(image, COMMON_QUEUE_COUNT, virtio_queue_count(pci->device), 2);
    image_put(image, COMMON_STATUS, virtio_status(pci->device), 1);
    image_put(image, COMMON_GENERATION, virtio_generation(pci->device), 1);
    image_put(image, COMMON_QUEUE_SELECT, index, 2);
    common_image_queue(pci, index, vector, image);
}

static uint64_t common_read(struct virtio_pci *pci, uint64_t offset, unsigned size_bytes)
{
    uint64_t value = 0;
    uint8_t image[COMMON_BYTES];
    if (offset >= COMMON_BYTES || size_bytes > COMMON_BYTES - offset)
        return 0;
    if (offset == COMMON_STATUS && size_bytes == 1)
        return virtio_status(pci->device);
    common_image(pci, image);
    memcpy(&value, image + offset, size_bytes);
    return value;
}

/* Selectors and vectors: what is ours. A vector that does not exist reads back as none. */
static bool common_write_own(struct virtio_pci *pci, uint64_t offset, uint64_t value)
{
    uint16_t vector = (uint16_t)value;
    if (vector >= msix_vectors(pci->msix))
        vector = NO_VECTOR;
    bool known = true;
    virtio_lock(pci->device);
    switch (offset) {
    case COMMON_DEVICE_FEATURE_SELECT: pci->device_feature_select = (uint32_t)value; break;
    case COMMON_DRIVER_FEATURE_SELECT: pci->driver_feature_select = (uint32_t)value; break;
    case COMMON_CONFIG_VECTOR: pci->config_vector = vector; break;
    case COMMON_QUEUE_SELECT: pci->queue_select = (uint16_t)value; break;
    case COMMON_QUEUE_VECTOR:
        if (pci->queue_select < virtio_queue_count(pci->device))
            pci->queue_vectors[pci->queue_select] = vector;
        break;
    default: known = false;
    }
    virtio_unlock(pci->device);
    return known;
}

/* An address, or its lower or upper half. */
static uint64_t merge_half(uint64_t old, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    if (size_bytes == 8)
        return value;
    unsigned shift = offset % 8 ? 32 : 0;
    return (old & ~((uint64_t)UINT32_MAX << shift)) | (value & UINT32_MAX) << shift;
}

static void common_write_queue(struct virtio_pci *pci, uint64_t offset, uint64_t value,
                               unsigned size_bytes)
{
    virtio_lock(pci->device);
    unsigned index = pci->queue_select;
    virtio_unlock(pci->device);
    struct virtio_queue_setup setup;
    if (!virtio_queue_get(pci->device, index, &setup))
        return;
    uint64_t *address = NULL;
    switch (offset & ~UINT64_C(7)) {
    case COMMON_QUEUE_DESCRIPTORS: address = &setup.descriptor_gpa; break;
    case COMMON_QUEUE_DRIVER: address = &setup.driver_gpa; break;
    case COMMON_QUEUE_DEVICE: address = &setup.device_gpa; break;
    }
    if (address && size_bytes >= 4)
        *address = merge_half(*address, offset, value, size_bytes);
    else if (offset == COMMON_QUEUE_SIZE && size_bytes == 2)
        setup.size = (uint16_t)value;
    else
        return;
    virtio_queue_set(pci->device, index, &setup);
}

static void common_queue_reset(struct virtio_pci *pci)
{
    virtio_lock(pci->device);
    unsigned index = pci->queue_select;
    if (index < virtio_queue_count(pci->device) && virtio_has(pci->device, VIRTIO_F_RING_RESET))
        pci->queue_vectors[index] = NO_VECTOR;
    virtio_unlock(pci->device);
    virtio_queue_stop(pci->device, index);
}

/* How wide a register is, by its offset; 0: none starts there. */
static unsigned common_width(uint64_t offset, unsigned size_bytes)
{
    if (offset >= COMMON_BYTES)
        return 0;
    if (offset < COMMON_CONFIG_VECTOR)
        return offset % 4 == 0 ? 4 : 0;
    if (offset == COMMON_STATUS || offset == COMMON_GENERATION)
        return 1;
    if (offset < COMMON_QUEUE_DESCRIPTORS || offset >= COMMON_QUEUE_DEVICE + 8)
        return offset % 2 == 0 ? 2 : 0;
    if (size_bytes == 8)
        return offset % 8 == 0 ? 8 : 0;
    return offset % 4 == 0 ? 4 : 0;
}

static void common_write(struct virtio_pci *pci, uint64_t offset, uint64_t value,
                         unsigned size_bytes)
{
    if (common_width(offset, size_bytes) != size_bytes) {
        log_limited(virtio_log(pci->device), virtio_log_limit(pci->device), LOG_DEBUG,
                    virtio_ops(pci->device)->name,
                    "common configuration: a write of %u bytes at 0x%x is dropped", size_bytes,
                    (unsigned)offset);
        return;
    }
    if (common_write_own(pci, offset, value))
        return;
    virtio_lock(pci->device);
    uint32_t window = pci->driver_feature_select;
    unsigned index = pci->queue_select;
    virtio_unlock(pci->device);
    switch (offset) {
    case COMMON_DRIVER_FEATURE:
        virtio_set_driver_features(pci->device, window, (uint32_t)value);
        break;
    case COMMON_STATUS: virtio_set_status(pci->device, (uint8_t)value); break;
    case COMMON_QUEUE_ENABLE:
        if (value == 1)
            virtio_queue_start(pci->device, index);
        break;
    case COMMON_QUEUE_RESET:
        if (value == 1)
            common_queue_reset(pci);
        break;
    default: common_write_queue(pci, offset, value, size_bytes);
    }
}

/* ---- BAR 0 ---- */

/* Reading says what happened and takes the interrupt back (4.1.4.5). */
static uint64_t isr_read(struct virtio_pci *pci)
{
    virtio_lock(pci->device);
    uint8_t isr = pci->isr;
    pci->isr = 0;
    pci_function_intx(pci->function, false);
    virtio_unlock(pci->device);
    return isr;
}

static uint64_t registers_read(void *opaque, uint64_t offset, unsigned size_bytes)
{
    struct virtio_pci *pci = opaque;
    uint64_t at = offset % AREA_BYTES, value = 0;
    switch (offset - at) {
    case COMMON_AT: return common_read(pci, at, size_bytes);
    case ISR_AT: return at == 0 ? isr_read(pci) : 0;
    case CONFIG_AT:
        if (size_bytes <= AREA_BYTES - at)
            virtio_config_read(pci->device, (uint32_t)at, &value, size_bytes);
        return value;
    default: return 0;
    }
}

static void registers_write(void *opaque, uint64_t offset, uint64_t value, unsigned size_bytes)
{
    struct virtio_pci *pci = opaque;
    uint64_t at = offset % AREA_BYTES;
    switch (offset - at) {
    case COMMON_AT: common_write(pci, at, value, size_bytes); break;
    case CONFIG_AT:
        if (size_bytes <= AREA_BYTES - at)
            virtio_config_write(pci->device, (uint32_t)at, &value, size_bytes);
        break;
    case NOTIFY_AT: virtio_kick(pci->device, (unsigned)(at / NOTIFY_STEP)); break;
    }
}

static void doorbell_ring(void *opaque)
{
    struct doorbell *doorbell = opaque;
    virtio_kick(doorbell->pci->device, doorbell->index);
}

static void registers_mapped(void *opaque, uint64_t base)
{
    struct virtio_pci *pci = opaque;
    for (unsigned i = 0; i < virtio_queue_count(pci->device); i++) {
        struct bus_doorbell doorbell = {.space = BUS_MMIO,
                                        .base = base + NOTIFY_AT + (uint64_t)i * NOTIFY_STEP,
                                        .size_bytes = NOTIFY_STEP,
                                        .ring = doorbell_ring,
                                        .opaque = &pci->doorbells[i]};
        bus_doorbell_add(pci->bus, &doorbell);
    }
}

static void registers_unmapped(void *opaque, uint64_t base)
{
    struct virtio_pci *pci = opaque;
    for (unsigned i = 0; i < virtio_queue_count(pci->device); i++)
        bus_doorbell_remove(pci->bus, BUS_MMIO, base + NOTIFY_AT + (uint64_t)i * NOTIFY_STEP);
}

/* ---- configuration space ---- */

/* Access to BAR 0 by way of configuration space, for firmware that has not mapped it. False unless
 * the fields name a place and length there. */
static bool access_window(struct virtio_pci *pci, uint32_t *offset, uint32_t *size_bytes)
{
    unsigned at = pci->access_capability;
    *offset = pci_function_get(pci->function, at + ACCESS_OFFSET, 4);
    *size_bytes = pci_function_get(pci->function, at + ACCESS_LENGTH, 4);
    if (pci_function_get(pci->function, at + ACCESS_BAR, 1) != REGISTER_BAR)
        return false;
    if (*size_bytes != 1 && *size_bytes != 2 && *size_bytes != 4)
        return false;
    return *offset % *size_bytes == 0 && *offset < BAR_BYTES && *size_bytes <= BAR_BYTES - *offset;
}

static bool touches_access_data(const struct virtio_pci *pci, unsigned offset, unsigned size_bytes)
{
    unsigned start = pci->access_capability + ACCESS_DATA;
    return offset < start + 4 && offset + size_bytes > start;
}

static void config_reading(void *opaque, unsigned offset, unsigned size_bytes)
{
    struct virtio_pci *pci = opaque;
    uint32_t at, length;
    if (touches_access_data(pci, offset, size_bytes) && access_window(pci, &at, &length))
        pci_function_put(pci->function, pci->access_capability + ACCESS_DATA,
                         (uint32_t)registers_read(pci, at, length), length);
}

static void config_written(void *opaque, unsigned offset, unsigned size_bytes)
{
    struct virtio_pci *pci = opaque;
    uint32_t at, length;
    msix_config_written(pci->msix, offset, size_bytes);
    if (touches_access_data(pci, offset, size_bytes) && access_window(pci, &at, &length))
        registers_write(
            pci, at, pci_function_get(pci->function, pci->access_capability + ACCESS_DATA, length),
            length);
}

static unsigned add_capability(struct virtio_pci *pci, uint8_t type, unsigned size_bytes,
                               uint32_t offset, uint32_t length)
{
    struct pci_function *f = pci->function;
    unsigned at = pci_function_capability(f, PCI_CAPABILITY_VENDOR, size_bytes);
    pci_function_init(f, at + 2, size_bytes, 1);
    pci_function_init(f, at + 3, type, 1);
    pci_function_init(f, at + 4, REGISTER_BAR, 1);
    pci_function_init(f, at + 8, offset, 4);
    pci_function_init(f, at + 12, length, 4);
    return at;
}

static void add_capabilities(struct virtio_pci *pci)
{
    struct pci_function *f = pci->function;
    unsigned queues = virtio_queue_count(pci->device);
    uint32_t config_size = virtio_config_size(pci->device);
    add_capability(pci, CAPABILITY_COMMON, CAPABILITY_BYTES, COMMON_AT, COMMON_BYTES);
    unsigned notify = add_capability(pci, CAPABILITY_NOTIFY, CAPABILITY_BYTES + 4, NOTIFY_AT,
                                     queues * NOTIFY_STEP);
    pci_function_init(f, notify + CAPABILITY_BYTES, NOTIFY_STEP, 4);
    add_capability(pci, CAPABILITY_ISR, CAPABILITY_BYTES, ISR_AT, 1);
    if (config_size)
        add_capability(pci, CAPABILITY_DEVICE, CAPABILITY_BYTES, CONFIG_AT, config_size);
    unsigned at = add_capability(pci, CAPABILITY_PCI, ACCESS_END, 0, 0);
    pci_function_writable(f, at + ACCESS_BAR, 0xff, 1);
    pci_function_writable(f, at + ACCESS_OFFSET, UINT32_MAX, 4);
    pci_function_writable(f, at + ACCESS_LENGTH, UINT32_MAX, 4);
    pci_function_writable(f, at + ACCESS_DATA, UINT32_MAX, 4);
    pci->access_capability = at;
}

/* ---- life ---- */

static bool allocate(struct virtio_pci *pci)
{
    unsigned queues = virtio_queue_count(pci->device);
    pci->doorbells = calloc(queues, sizeof(*pci->doorbells));
    pci->queue_vectors = calloc(queues, sizeof(*pci->queue_vectors));
    if (!pci->doorbells || !pci->queue_vectors)
        return false;
    for (unsigned i = 0; i < queues; i++) {
        pci->doorbells[i] = (struct doorbell){pci, i};
        pci->queue_vectors[i] = NO_VECTOR;
    }
    pci->config_vector = NO_VECTOR;
    return true;
}

static bool create_function(struct virtio_pci *pci, const struct virtio_pci_config *config,
                            struct error *err)
{
    const struct virtio_ops *ops = virtio_ops(pci->device);
    struct pci_function_config function = {.name = ops->name,
                                           .slot = config->slot,
                                           .function = config->function,
                                           .vendor = VENDOR,
                                           .device = (uint16_t)(DEVICE_BASE + ops->type),
                                           .subsystem_vendor = VENDOR,
                                           .subsystem = (uint16_t)(0x40 + ops->type),
                                           .class_code = ops->pci_class,
                                           .revision = REVISION,
                                           .pin = 1,
                                           .reading = config_reading,
                                           .written = config_written,
                                           .opaque = pci};
    pci->function = pci_function_create(config->pci, &function, err);
    if (!pci->function)
        return false;
    pci->msix = msix_create(pci->function, MSIX_BAR, virtio_queue_count(pci->device) + 1,
                            &config->msi, err);
    if (!pci->msix)
        return false;
    add_capabilities(pci);
    pci_function_bar(pci->function, REGISTER_BAR,
                     &(struct pci_bar){.is_64bit = true,
                                       .size_bytes = BAR_BYTES,
                                       .read = registers_read,
                                       .write = registers_write,
                                       .opaque = pci,
                                       .mapped = registers_mapped,
                                       .unmapped = registers_unmapped});
    return !config->rom || pci_function_rom(pci->function, config->rom, config->rom_bytes, err);
}

static void virtio_pci_destroy(void *opaque)
{
    struct virtio_pci *pci = opaque;
    pci_function_destroy(pci->function);
    virtio_set_transport(pci->device, &(struct virtio_transport){0});
    virtio_destroy(pci->device);
    msix_destroy(pci->msix);
    free(pci->doorbells);
    free(pci->queue_vectors);
    free(pci);
}

struct virtio_pci *virtio_pci_create(const struct virtio_pci_config *config,
                                     struct virtio_device *device, struct error *err)
{
    struct virtio_pci *pci = calloc(1, sizeof(*pci));
    if (!pci) {
        error_set(err, "cannot create device", virtio_ops(device)->name, "out of memory");
        virtio_destroy(device);
        return NULL;
    }
    pci->device = device;
    pci->bus = pci_bus_bus(config->pci);
    if (!allocate(pci)) {
        error_set(err, "cannot create device", virtio_ops(device)->name, "out of memory");
        virtio_pci_destroy(pci);
        return NULL;
    }
    if (!create_function(pci, config, err)) {
        virtio_pci_destroy(pci);
        return NULL;
    }
    virtio_set_transport(device,
                         &(struct virtio_transport){transport_interrupt, transport_reset, pci});
    return pci;
}

void virtio_pci_kick_all(struct virtio_pci *pci)
{
    virtio_kick_all(pci->device);
}

static void virtio_pci_reset(void *opaque)
{
    struct virtio_pci *pci = opaque;
    virtio_reset(pci->device);
    pci_function_reset(pci->function);
    msix_reset(pci->msix);
}

/* ---- saved state ---- */

static void virtio_pci_save(void *opaque, struct save *save)
{
    struct virtio_pci *pci = opaque;
    virtio_save(pci->device, save);
    pci_function_save(pci->function, save);
    msix_save(pci->msix, save);
    virtio_lock(pci->device);
    save_u32(save, pci->device_feature_select);
    save_u32(save, pci->driver_feature_select);
    save_u16(save, pci->queue_select);
    save_u8(save, pci->isr);
    save_u16(save, pci->config_vector);
    for (unsigned i = 0; i < virtio_queue_count(pci->device); i++)
        save_u16(save, pci->queue_vectors[i]);
    virtio_unlock(pci->device);
}

static uint16_t load_vector(struct virtio_pci *pci, struct load *load)
{
    uint16_t vector = load_u16(load);
    if (vector != NO_VECTOR && vector >= msix_vectors(pci->msix))
        load_fail(load);
    return vector;
}

static void load_registers(struct virtio_pci *pci, struct load *load)
{
    virtio_lock(pci->device);
    pci->device_feature_select = load_u32(load);
    pci->driver_feature_select = load_u32(load);
    pci->queue_select = load_u16(load);
    pci->isr = load_u8(load);
    if (pci->isr & ~(ISR_QUEUE | ISR_CONFIG))
        load_fail(load);
    pci->config_vector = load_vector(pci, load);
    for (unsigned i = 0; i < virtio_queue_count(pci->device); i++)
        pci->queue_vectors[i] = load_vector(pci, load);
    virtio_unlock(pci->device);
}

static bool virtio_pci_load(void *opaque, struct load *load, uint32_t version)
{
    struct virtio_pci *pci = opaque;
    /* The core first: its reset clears what the others then bring back. */
    if (version == virtio_pci_ops.version && virtio_load(pci->device, load) &&
        pci_function_load(pci->function, load) && msix_load(pci->msix, load))
        load_registers(pci, load);
    else
        load_fail(load);
    if (load->failed)
        virtio_pci_reset(pci);
    return !load->failed;
}

const struct device_ops virtio_pci_ops = {
    .name = "virtio-pci",
    .version = 1,
    .reset = virtio_pci_reset,
    .save = virtio_pci_save,
    .load = virtio_pci_load,
    .destroy = virtio_pci_destroy,
};
