/* SPDX-License-Identifier: BSD-2-Clause
 *
 * virtio-input: keys and movement, buffers for events given and not given, what a driver says of
 * LEDs, the configuration space. A keyboard or a tablet, by the first byte. Rings themselves are
 * fuzz/virtio_queue.c's.
 */
#include "dev/virtio/input.h"

#include "base/loop.h"
#include "fuzz/virtio_rings.h"

enum { EVENTS = 0, STATUS = 1, QUEUES = 2, GIVEN_MAX_BYTES = 64, OPERATIONS_MAX = 600 };

struct machine {
    struct fuzz_rings rings;
    struct loop *loop;
    struct input_device input;
};

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

/* How long a buffer is: mostly as an event is. */
static unsigned length(struct input *in, uint8_t code)
{
    return code & 0x80 ? (unsigned)take(in, 1) % GIVEN_MAX_BYTES : 8;
}

static void operation(struct machine *m, struct input *in)
{
    const uint8_t code = (uint8_t)take(in, 1);
    switch (code & 7) {
    case 0: fuzz_rings_give(&m->rings, EVENTS, 0, length(in, code), code & 0x40); break;
    case 1: {
        const unsigned size = length(in, code);
        fuzz_rings_fill(&m->rings, in, STATUS, size);
        fuzz_rings_give(&m->rings, STATUS, size, 0, code & 0x40);
        break;
    }
    case 2:
    case 3:
        if (m->input.key)
            m->input.key(m->input.opaque, (unsigned)take(in, code & 0x80 ? 2 : 1), code & 8);
        break;
    case 4: point(m, in); break;
    case 5: fuzz_rings_config(&m->rings, in, code & 8); break;
    case 6: fuzz_rings_save_and_load(&m->rings, in); break;
    case 7:
        if (code & 8)
            fuzz_rings_begin(&m->rings);
        else
            require(m->input.is_listening(m->input.opaque) ==
                        ((virtio_status(m->rings.device) & (4 | 0x40 | 0x80)) == 4),
                    "it listens while it is live, and only then");
        break;
    }
}

static struct machine machines[2];

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    struct ram *ram = ram_create(FUZZ_RINGS_RAM_BYTES, NULL);
    struct loop *loop = loop_create(NULL);
    require(ram && loop, "the machine is made");
    ram_set_watcher(ram, fuzz_ram_written, ram);
    for (unsigned i = 0; i < 2; i++) {
        struct machine *m = &machines[i];
        const struct virtio_input_config config = {.ram = ram, .loop = loop, .is_tablet = i};
        m->loop = loop;
        m->rings = (struct fuzz_rings){.ram = ram,
                                       .device = virtio_input_create(&config, &m->input, NULL),
                                       .count = QUEUES,
                                       .features = VIRTIO_F_VERSION_1};
        require(m->rings.device, "the device is made");
    }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
    static const uint8_t zeroes[FUZZ_RINGS_RAM_BYTES];
    struct input in = {data, size_bytes};
    struct machine *m = &machines[take(&in, 1) & 1];
    ram_write(m->rings.ram, 0, zeroes, sizeof(zeroes));
    loop_run_once(m->loop, 0);
    virtio_reset(m->rings.device);
    fuzz_rings_begin(&m->rings);
    for (unsigned i = 0; in.left && i < OPERATIONS_MAX; i++)
        operation(m, &in);
    return 0;
}
