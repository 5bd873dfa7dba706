/* SPDX-License-Identifier: BSD-2-Clause
 *
 * USB mass storage, without a controller: transfers and requests from the input, most of them as a
 * driver makes them. A disk or a CD-ROM drive, by the first byte.
 */
#include "dev/usb/storage.h"

#include "fuzz/device.h"

enum { OPERATIONS_MAX = 300, MEMORY_BYTES = 4096, IN = USB_IN | 1, OUT = 2 };

static struct {
    struct usb_device *device[2];
    struct fuzz_disk disk;
    struct block_backend backend;
    uint8_t memory[MEMORY_BYTES];
    unsigned woken; /* endpoints, a bit each */
    bool is_locked;
} machine;

static void lock(void *opaque)
{
    require(!machine.is_locked, "the lock is taken once");
    machine.is_locked = true;
}

static void unlock(void *opaque)
{
    machine.is_locked = false;
}

static void wakeup(void *opaque, unsigned port, uint8_t endpoint)
{
    require(machine.is_locked, "the lock is held");
    require(endpoint == IN || endpoint == OUT, "an endpoint that is there");
    machine.woken |= 1u << (endpoint == IN);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    static const struct usb_host host = {lock, unlock, wakeup, NULL};
    fuzz_disk_init(&machine.disk, FUZZ_DISK_BYTES);
    machine.backend = fuzz_disk_backend(&machine.disk);
    for (unsigned i = 0; i < 2; i++) {
        const struct scsi_lun_config unit = {
            .is_cdrom = i, .medium = &machine.backend, .serial = "S", .keeps_sense = true};
        const struct usb_storage_config config = {scsi_lun_create(&unit, NULL), "0123456789AB"};
        machine.device[i] = usb_storage_create(&config, NULL);
        require(machine.device[i], "the device is made");
        usb_device_attach(machine.device[i], &host, i);
    }
    return 0;
}

/* A transfer in two pieces. */
static void transfer(struct usb_device *device, uint8_t endpoint, size_t size, size_t first)
{
    if (size > MEMORY_BYTES)
        size = MEMORY_BYTES;
    if (first > size)
        first = size;
    const struct iovec iov[2] = {{machine.memory, first}, {machine.memory + first, size - first}};
    struct usb_transfer t = {.endpoint = endpoint, .iov = iov, .iov_count = 2, .size_bytes = size};
    machine.woken &= ~(1u << (endpoint == IN));
    enum usb_status status = usb_device_transfer(device, &t);
    require(t.done_bytes <= size, "no more than there is room for");
    require(endpoint == IN || status != USB_OK || t.done_bytes == size, "all of it, or nothing");
}

static void request(struct usb_device *device, struct input *in)
{
    static const struct usb_setup usual[] = {
        {0x00, 9, 1, 0, 0},    {0x00, 9, 0, 0, 0},    {0x21, 0xff, 0, 0, 0}, {0xa1, 0xfe, 0, 0, 1},
        {0x02, 1, 0, 0x81, 0}, {0x02, 1, 0, 0x02, 0}, {0x02, 3, 0, 0x81, 0},
    };
    uint8_t data[64] = {0}, which = (uint8_t)take(in, 1);
    struct usb_setup setup = usual[which % 7];
    if (which >= 0xe0) {
        setup.type = (uint8_t)take(in, 1);
        setup.request = (uint8_t)take(in, 1);
        setup.value = (uint16_t)take(in, 2);
        setup.index = (uint16_t)take(in, 2);
        setup.length = take(in, 1) & 63;
    }
    size_t size = setup.length;
    usb_device_control(device, &setup, data, &size);
    require(size <= setup.length, "no more than there is room for");
}

static void command_block(struct usb_device *device, struct input *in)
{
    const uint32_t signature = 0x43425355;
    uint32_t length = (uint32_t)take(in, 2);
    uint8_t shape = (uint8_t)take(in, 1);
    memset(machine.memory, 0, 31);
    memcpy(machine.memory, &signature, 4);
    memcpy(machine.memory + 8, &length, 4);
    machine.memory[12] = shape & 0x80;
    machine.memory[14] = shape & 0x1f;
    for (unsigned i = 15; i < 31; i++)
        machine.memory[i] = (uint8_t)take(in, 1);
    transfer(device, OUT, 31, 31);
}

static void save_device(void *opaque, struct save *save)
{
    usb_device_save(opaque, save);
}

static bool load_device(void *opaque, struct load *load, uint32_t version)
{
    return usb_device_load(opaque, load);
}

static void operation(struct usb_device *device, struct input *in)
{
    static const struct device_ops saving = {
        .name = "device", .version = 1, .save = save_device, .load = load_device};
    uint8_t code = (uint8_t)take(in, 1);
    switch (code & 7) {
    case 0:
    case 1: command_block(device, in); break;
    case 2: transfer(device, OUT, take(in, 2), take(in, 1)); break;
    case 3: transfer(device, IN, take(in, 2), take(in, 1)); break;
    case 4: request(device, in); break;
    case 5:
        machine.is_locked = false;
        fuzz_disk_finish_any(in, &machine.disk);
        machine.is_locked = true;
        break;
    case 6:
        machine.memory[take(in, 2) % MEMORY_BYTES] = (uint8_t)take(in, 1);
        usb_device_stopped(device, code & 8 ? IN : OUT);
        break;
    case 7:
        if (code & 0x10) {
            usb_device_reset(device);
        } else {
            machine.is_locked = false;
            fuzz_disk_drain(&machine.disk);
            machine.is_locked = true;
            fuzz_save_and_load(in, &saving, device);
        }
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
    static const struct usb_setup configure = {0x00, 9, 1, 0, 0};
    struct input in = {data, size_bytes};
    struct usb_device *device = machine.device[take(&in, 1) & 1];
    size_t none = 0;
    machine.is_locked = false;
    fuzz_disk_drain(&machine.disk);
    machine.is_locked = true;
    usb_device_power_on(device);
    usb_device_control(device, &configure, NULL, &none);
    for (unsigned i = 0; in.left && i < OPERATIONS_MAX; i++)
        operation(device, &in);
    return 0;
}
