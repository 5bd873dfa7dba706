/* SPDX-License-Identifier: BSD-2-Clause
 *
 * virtio-input: keys and movement, buffers for events given and not given, what a driver says of
 * LEDs, the configuration space. A keyboard or a tablet, by the first byte. Rings themselves are
 * fuzz/virtio_queue.c's.
 */
#include "dev/virtio/input.h"

#include "base/loop.h"
#include "fuzz/device.h"

enum {
    RAM_BYTES = 64 << 10,
    RING_BYTES = 0x1000, /* of a queue: descriptors, then the other two */
    BUFFERS = 0x4000,
    BUFFER_BYTES = 64,
    RING_SIZE = 16,
    EVENTS = 0,
    STATUS = 1,
    OPERATIONS_MAX = 600,
};

struct machine {
    struct ram *ram;
    struct loop *loop;
    struct virtio_device *device;
    struct input_device input;
    uint16_t next[2]; /* of the rings */
};

static void put(struct machine *m, uint64_t gpa, uint64_t value, unsigned size_bytes)
{
    ram_write(m->ram, gpa, &value, size_bytes);
}

static uint64_t ring_at(unsigned queue)
{
    return RING_BYTES * (queue + 1);
}

/* A buffer of up to BUFFER_BYTES, in one piece or two. */
static void give(struct machine *m, unsigned queue, unsigned size_bytes, bool is_split)
{
    const uint64_t ring = ring_at(queue);
    const unsigned slot = m->next[queue] % (RING_SIZE / 2), first = is_split ? size_bytes / 2 : 0;
    const uint64_t gpa = BUFFERS + (queue * RING_SIZE + slot) * (uint64_t)BUFFER_BYTES;
    const uint16_t flags = queue == EVENTS ? 2 : 0;
    for (unsigned i = 0; i < 2; i++) {
        const uint64_t at = ring + 16 * (2 * slot + i);
        put(m, at, gpa + (i ? first : 0), 8);
        put(m, at + 8, i ? size_bytes - first : first, 4);
        put(m, at + 12, flags | (i ? 0 : 1), 2);
        put(m, at + 14, 2 * slot + 1, 2);
    }
    put(m, ring + 0x400 + 4 + 2 * (m->next[queue] % RING_SIZE), 2 * slot + !is_split, 2);
    put(m, ring + 0x400 + 2, ++m->next[queue], 2);
    virtio_kick(m->device, queue);
}

static void begin(struct machine *m)
{
    virtio_set_status(m->device, 0);
    m->next[0] = m->next[1] = 0;
    for (unsigned i = 0; i < 2; i++) {
        put(m, ring_at(i) + 0x400, 0, 4);
        put(m, ring_at(i) + 0x800, 0, 4);
    }
    virtio_set_status(m->device, 1 | 2);
    virtio_set_driver_features(m->device, 1, 1);
    virtio_set_status(m->device, 1 | 2 | 8);
    for (unsigned i = 0; i < 2; i++) {
        const struct virtio_queue_setup setup = {.size = RING_SIZE,
                                                 .descriptor_gpa = ring_at(i),
                                                 .driver_gpa = ring_at(i) + 0x400,
                                                 .device_gpa = ring_at(i) + 0x800};
        virtio_queue_set(m->device, i, &setup);
        virtio_queue_start(m->device, i);
    }
    virtio_set_status(m->device, 1 | 2 | 8 | 4);
}

static void save_device(void *opaque, struct save *save)
{
    virtio_save(opaque, save);
}

static bool load_device(void *opaque, struct load *load, uint32_t version)
{
    return virtio_load(opaque, load);
}

static void configuration(struct machine *m, struct input *in, bool is_write)
{
    const uint32_t size = virtio_config_size(m->device), at = (uint32_t)take(in, 1) % size;
    uint8_t bytes[8];
    const uint32_t count = at + 8 <= size ? 8 : 1;
    if (!is_write) {
        virtio_config_read(m->device, at, bytes, count);
        return;
    }
    bytes[0] = (uint8_t)take(in, 1);
    virtio_config_write(m->device, at, bytes, 1);
}

static void point(struct machine *m, struct input *in)
{
    const struct input_pointer pointer = {.is_absolute = true,
                                          .x = (uint16_t)take(in, 2),
                                          .y = (uint16_t)take(in, 2),
                                          .wheel_up = (int32_t)take(in, 4),
                                          .wheel_right = (int32_t)take(in, 1) - 128,
                                          .buttons = (unsigned)take(in, 1)};
    if (m->input.pointer)
        m->input.pointer(m->input.opaque, &pointer);
}

static void operation(struct machine *m, struct input *in)
{
    static const struct device_ops saving = {
        .name = "device", .version = 1, .save = save_device, .load = load_device};
    const uint8_t code = (uint8_t)take(in, 1);
    switch (code & 7) {
    case 0: give(m, EVENTS, code & 0x80 ? take(in, 1) % BUFFER_BYTES : 8, code & 0x40); break;
    case 1:
        fuzz_write_memory(in, m->ram, RAM_BYTES);
        give(m, STATUS, code & 0x80 ? take(in, 1) % BUFFER_BYTES : 8, code & 0x40);
        break;
    case 2:
    case 3:
        if (m->input.key)
            m->input.key(m->input.opaque, (unsigned)take(in, code & 0x80 ? 2 : 1), code & 8);
        break;
    case 4: point(m, in); break;
    case 5: configuration(m, in, code & 8); break;
    case 6:
        fuzz_save_and_load(in, &saving, m->device);
        if (!(virtio_status(m->device) & 4))
            begin(m);
        break;
    case 7:
        if (code & 8)
            begin(m);
        else
            require(m->input.is_listening(m->input.opaque) ==
                        ((virtio_status(m->device) & (4 | 0x40 | 0x80)) == 4),
                    "it listens while it is live, and only then");
        break;
    }
}

static struct machine machines[2];

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    struct ram *ram = ram_create(RAM_BYTES, NULL);
    struct loop *loop = loop_create(NULL);
    require(ram && loop, "the machine is made");
    ram_set_watcher(ram, fuzz_ram_written, ram);
    for (unsigned i = 0; i < 2; i++) {
        struct machine *m = &machines[i];
        const struct virtio_input_config config = {.ram = ram, .loop = loop, .is_tablet = i};
        m->ram = ram;
        m->loop = loop;
        m->device = virtio_input_create(&config, &m->input, NULL);
        require(m->device, "the device is made");
    }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
    static const uint8_t zeroes[RAM_BYTES];
    struct input in = {data, size_bytes};
    struct machine *m = &machines[take(&in, 1) & 1];
    ram_write(m->ram, 0, zeroes, sizeof(zeroes));
    loop_run_once(m->loop, 0);
    virtio_reset(m->device);
    begin(m);
    for (unsigned i = 0; in.left && i < OPERATIONS_MAX; i++)
        operation(m, &in);
    return 0;
}
