/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Fuzz target: virtio-gpu's commands. Each operation is a request of bytes from the input, in one
 * of the two queues; the screen is looked at and the device saved in between. Rings themselves are
 * fuzz/virtio_queue.c's.
 */
#include "dev/virtio/gpu.h"

#include "base/loop.h"
#include "fuzz/canvas.h"

enum {
    RAM_BYTES = 64 << 10,
    RING_BYTES = 0x1000, /* of a queue: descriptors, then the other two */
    REQUEST = 0x4000,
    ANSWER = 0x5000,
    ANSWER_BYTES = 2048,
    OPERATIONS_MAX = 200,
    REFRESHES_MAX = 4,
};

struct machine {
    struct ram *ram;
    struct virtio_device *gpu;
    uint16_t next[2]; /* of the rings */
    struct display_canvas canvas;
};
static struct loop *loop;

static void put(struct machine *m, uint64_t gpa, uint64_t value, unsigned size_bytes)
{
    ram_write(m->ram, gpa, &value, size_bytes);
}

static void put_descriptor(struct machine *m, uint64_t at, uint64_t gpa, uint32_t size_bytes,
                           uint16_t flags, uint16_t next)
{
    put(m, at, gpa, 8);
    put(m, at + 8, size_bytes, 4);
    put(m, at + 12, flags, 2);
    put(m, at + 14, next, 2);
}

static void send(struct machine *m, unsigned queue, const uint8_t *bytes, uint32_t size_bytes)
{
    uint64_t ring = RING_BYTES * (queue + 1);
    ram_write(m->ram, REQUEST, bytes, size_bytes);
    put_descriptor(m, ring, REQUEST, size_bytes, 1, 1);
    put_descriptor(m, ring + 16, ANSWER, ANSWER_BYTES, 2, 0);
    put(m, ring + 0x400 + 4 + 2 * (m->next[queue] % 16), 0, 2);
    put(m, ring + 0x400 + 2, ++m->next[queue], 2);
    virtio_kick(m->gpu, queue);
}

static void begin(struct machine *m)
{
    virtio_set_status(m->gpu, 0);
    m->next[0] = m->next[1] = 0;
    for (unsigned i = 0; i < 2; i++) {
        uint64_t ring = RING_BYTES * (i + 1);
        put(m, ring + 0x400, 0, 4);
        put(m, ring + 0x800, 0, 4);
    }
    virtio_set_status(m->gpu, 1 | 2);
    virtio_set_driver_features(m->gpu, 0, 2);
    virtio_set_driver_features(m->gpu, 1, 1);
    virtio_set_status(m->gpu, 1 | 2 | 8);
    for (unsigned i = 0; i < 2; i++) {
        uint64_t ring = RING_BYTES * (i + 1);
        const struct virtio_queue_setup setup = {.size = 16,
                                                 .descriptor_gpa = ring,
                                                 .driver_gpa = ring + 0x400,
                                                 .device_gpa = ring + 0x800};
        virtio_queue_set(m->gpu, i, &setup);
        virtio_queue_start(m->gpu, i);
    }
    virtio_set_status(m->gpu, 1 | 2 | 8 | 4);
}

static void save_and_load(struct machine *m, uint8_t change, uint16_t at)
{
    struct save save = {0};
    virtio_save(m->gpu, &save);
    if (change && at < save.size_bytes)
        save.bytes[at] ^= change;
    struct load load;
    load_init(&load, save.bytes, save.size_bytes);
    load.section_end = save.size_bytes;
    bool loaded = virtio_load(m->gpu, &load);
    require(loaded || change, "what was saved is loaded");
    save_free(&save);
    if (!loaded)
        begin(m);
}

/* An operation: its length, what it is, its bytes. */
static void operations(struct machine *m, const uint8_t *data, size_t left)
{
    unsigned refreshes = 0;
    for (unsigned i = 0; i < OPERATIONS_MAX && left >= 2; i++) {
        uint8_t size = data[0] & 0x7f, code = data[1];
        data += 2;
        left -= 2;
        if (size > left)
            size = (uint8_t)left;
        if (code < 0xf0)
            send(m, code & 1, data, size);
        else if (code < 0xf8 && size >= 3)
            save_and_load(m, data[0], (uint16_t)(data[1] | data[2] << 8));
        else if (++refreshes <= REFRESHES_MAX)
            fuzz_canvas_refresh(&m->canvas, virtio_gpu_display(m->gpu), false);
        data += size;
        left -= size;
    }
    fuzz_canvas_refresh(&m->canvas, virtio_gpu_display(m->gpu), false);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    loop = loop_create(NULL);
    require(loop, "the loop is made");
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
    struct machine m = {.ram = ram_create(RAM_BYTES, NULL)};
    const struct virtio_gpu_config config = {
        .ram = m.ram, .loop = loop, .width = 640, .height = 480};
    m.gpu = virtio_gpu_create(&config, NULL);
    require(m.gpu, "the device is made");
    begin(&m);
    operations(&m, data, size_bytes);
    loop_run_once(loop, 0); /* queues that are to be served on */
    virtio_destroy(m.gpu);
    loop_run_once(loop, 0); /* the device's bell is gone then */
    ram_destroy(m.ram);
    free(m.canvas.pixels);
    return 0;
}
