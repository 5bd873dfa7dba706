/* SPDX-License-Identifier: BSD-2-Clause
 *
 * USB mass storage by the Bulk-Only Transport; see storage.h. Section numbers are those of its
 * specification, revision 1.0.
 *
 * A command runs from and into a buffer of the device's own, once its data has come and before any
 * is asked for: so a transfer is never under way while the unit works, and says NAK then. Where
 * the host and the unit want different lengths (6.7) what is too little is filled with zeroes, and
 * what is too much is thrown away, as 6.7.2 and 6.7.3 allow; so no endpoint is ever halted but by
 * a command block that makes no sense. There are hosts (SeaBIOS) that do not recover from a halt.
 */
#include "dev/usb/storage.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    ENDPOINT_IN = USB_IN | 1,
    ENDPOINT_OUT = 2,
    SERIAL_BYTES = 33,
    PACKET_BYTES = 1024, /* of a bulk endpoint at SuperSpeed: USB 3.2, 9.6.6 */
};

enum { /* class requests, 3.1 and 3.2 */
       TYPE_CLASS_OUT = 0x21,
       TYPE_CLASS_IN = 0xa1,
       REQUEST_RESET = 0xff,
       REQUEST_MAX_LUN = 0xfe,
};

enum { /* command block wrapper, 5.1; command status wrapper, 5.2 */
       CBW_BYTES = 31,
       CBW_TAG = 4,
       CBW_LENGTH = 8,
       CBW_FLAGS = 12,
       CBW_LUN = 13,
       CBW_CB_LENGTH = 14,
       CBW_CB = 15,
       CSW_BYTES = 13,
       STATUS_PASSED = 0,
       STATUS_FAILED = 1,
       STATUS_PHASE_ERROR = 2,
};
#define CBW_SIGNATURE UINT32_C(0x43425355)
#define CSW_SIGNATURE UINT32_C(0x53425355)

static const uint8_t device_descriptor[] = {
    18, USB_DESCRIPTOR_DEVICE, 0x00, 0x03, 0, 0, 0, 9, 0x09, 0x12, 0x03, 0x00, 0x00, 0x01, 1, 2, 3,
    1,
};

/* Endpoints with their companions: bursts of 16 packets, no streams. */
static const uint8_t configuration[] = {
    9,
    USB_DESCRIPTOR_CONFIGURATION,
    44,
    0,
    1,
    1,
    0,
    0x80,
    USB_BUS_POWERED_MA / 8,
    9,
    USB_DESCRIPTOR_INTERFACE,
    0,
    0,
    2,
    8, /* mass storage, SCSI, bulk-only: 4.3 */
    6,
    0x50,
    0,
    7,
    USB_DESCRIPTOR_ENDPOINT,
    ENDPOINT_IN,
    2,
    PACKET_BYTES & 0xff,
    PACKET_BYTES >> 8,
    0,
    6,
    USB_DESCRIPTOR_COMPANION,
    15,
    0,
    0,
    0,
    7,
    USB_DESCRIPTOR_ENDPOINT,
    ENDPOINT_OUT,
    2,
    PACKET_BYTES & 0xff,
    PACKET_BYTES >> 8,
    0,
    6,
    USB_DESCRIPTOR_COMPANION,
    15,
    0,
    0,
    0,
};

/* USB 3.2, 9.6.2: the USB 2 extension that a SuperSpeed device must have, then its own capability:
 * it works at SuperSpeed only. */
static const uint8_t bos[] = {
    5, USB_DESCRIPTOR_BOS, 22, 0, 2, 7, 16, 2, 2, 0, 0, 0, 10, 16, 3, 0, 8, 0, 3, 10, 255, 7,
};

enum phase {
    PHASE_COMMAND,  /* waits for a command block */
    PHASE_DATA_OUT, /* gathers its data */
    PHASE_RUNNING,  /* the unit works */
    PHASE_DATA_IN,  /* gives its data */
    PHASE_STATUS,   /* gives its status */
    PHASE_BROKEN,   /* 6.6.1: has got no command block, and waits to be reset */
};

struct storage {
    struct usb_device *device;
    struct scsi_lun *lun;
    char serial[SERIAL_BYTES];
    uint8_t phase;            /* enum phase */
    bool in_waits, out_waits; /* the host asks, and was told NAK */
    bool is_under_way;        /* the unit has the request and the buffer */
    bool is_forgotten;        /* what is under way is of before a reset */
    uint32_t tag, length;     /* of the command block: dCBWTag, dCBWDataTransferLength */
    bool is_in;               /* which way its data goes */
    uint32_t at_bytes;        /* how far the data phase has come */
    uint32_t filled_bytes;    /* of the buffer */
    uint32_t residue;
    uint8_t status;
    uint8_t *buffer;
    size_t buffer_bytes;
    struct iovec iov;
    struct scsi_request request;
};

static uint32_t least(uint64_t a, uint64_t b)
{
    return (uint32_t)(a < b ? a : b);
}

/* ---- commands ---- */

/* How much of what the host sends is for the unit. More than a command can move is not kept: the
 * unit refuses it. */
static uint32_t wanted_bytes(struct storage *storage)
{
    uint64_t size;
    if (scsi_lun_direction(storage->lun, storage->request.cdb, &size) != SCSI_TO_UNIT)
        return 0;
    return least(least(size, SCSI_TRANSFER_MAX_BYTES), storage->length);
}

static bool make_room(struct storage *storage, size_t size_bytes)
{
    if (size_bytes <= storage->buffer_bytes)
        return true;
    uint8_t *buffer = malloc(size_bytes);
    if (!buffer)
        return false;
    free(storage->buffer);
    storage->buffer = buffer;
    storage->buffer_bytes = size_bytes;
    return true;
}

/* Has the endpoints looked at that would not say NAK any more. */
static void wake(struct storage *storage)
{
    const enum phase phase = storage->phase;
    if (storage->in_waits &&
        (phase == PHASE_DATA_IN || phase == PHASE_STATUS || phase == PHASE_BROKEN))
        usb_device_wakeup(storage->device, ENDPOINT_IN);
    if (storage->out_waits && ((phase == PHASE_COMMAND && !storage->is_under_way) ||
                               phase == PHASE_DATA_OUT || phase == PHASE_BROKEN))
        usb_device_wakeup(storage->device, ENDPOINT_OUT);
}

/* The host's data has been taken; it gets the unit's, then the status. `processed` of what it has
 * sent or gets meant something. */
static void answer(struct storage *storage, uint8_t status, uint32_t processed)
{
    storage->status = status;
    storage->residue = storage->length - processed;
    storage->at_bytes = 0;
    storage->phase = storage->is_in && storage->length ? PHASE_DATA_IN : PHASE_STATUS;
}

/* Compares what the unit has done with what the host expected: 6.7, cases 1 to 13. */
static void finish(struct storage *storage)
{
    const struct scsi_request *r = &storage->request;
    const bool is_good = r->status == SCSI_GOOD;
    const uint8_t status = is_good ? STATUS_PASSED : STATUS_FAILED;
    uint64_t size;
    if (scsi_lun_direction(storage->lun, r->cdb, &size) == SCSI_FROM_UNIT) {
        const uint32_t moved = least(r->moved_bytes, storage->iov.iov_len);
        const uint32_t room = storage->is_in ? storage->length : 0;
        storage->filled_bytes = least(moved, room);
        answer(storage, moved > room ? STATUS_PHASE_ERROR : status, storage->filled_bytes);
        return;
    }
    storage->filled_bytes = 0;
    answer(storage, status, least(is_good ? size : r->moved_bytes, storage->length));
}

static void on_done(struct scsi_request *request)
{
    struct storage *storage = request->opaque;
    usb_device_lock(storage->device);
    storage->is_under_way = false;
    if (!storage->is_forgotten)
        finish(storage);
    storage->is_forgotten = false;
    wake(storage);
    usb_device_unlock(storage->device);
}

static void fail(struct storage *storage)
{
    storage->filled_bytes = 0;
    answer(storage, STATUS_PHASE_ERROR, 0);
}

/* All that the host wants to send has come. */
static void run(struct storage *storage)
{
    struct scsi_request *r = &storage->request;
    uint64_t size;
    enum scsi_direction direction = scsi_lun_direction(storage->lun, r->cdb, &size);
    size = least(size, SCSI_TRANSFER_MAX_BYTES);
    bool is_short = direction == SCSI_TO_UNIT && (storage->is_in || storage->length < size);
    if (is_short || !make_room(storage, size)) {
        fail(storage);
        return;
    }
    storage->iov = (struct iovec){storage->buffer, size};
    r->iov = &storage->iov;
    r->iov_count = size ? 1 : 0;
    r->data_bytes = size;
    r->done = on_done;
    r->opaque = storage;
    storage->phase = PHASE_RUNNING;
    storage->is_under_way = scsi_lun_submit(storage->lun, r);
    if (!storage->is_under_way)
        finish(storage);
}

/* 6.2.1 and 6.2.2: valid, and meaningful. */
static bool take_command(struct storage *storage, const uint8_t *cbw)
{
    uint32_t signature;
    unsigned size = cbw[CBW_CB_LENGTH];
    memcpy(&signature, cbw, sizeof(signature));
    if (signature != CBW_SIGNATURE || cbw[CBW_LUN] || !size || size > SCSI_CDB_BYTES)
        return false;
    memcpy(&storage->tag, cbw + CBW_TAG, sizeof(storage->tag));
    memcpy(&storage->length, cbw + CBW_LENGTH, sizeof(storage->length));
    storage->is_in = cbw[CBW_FLAGS] & 0x80;
    storage->at_bytes = storage->filled_bytes = 0;
    memset(storage->request.cdb, 0, sizeof(storage->request.cdb));
    memcpy(storage->request.cdb, cbw + CBW_CB, size);
    return true;
}

/* ---- transfers ---- */

/* 6.6.1: both endpoints are halted until the host has reset the transport. */
static enum usb_status break_off(struct storage *storage)
{
    storage->phase = PHASE_BROKEN;
    usb_device_halt(storage->device, ENDPOINT_IN);
    usb_device_halt(storage->device, ENDPOINT_OUT);
    return USB_STALL;
}

static enum usb_status command_transfer(struct storage *storage, struct usb_transfer *transfer)
{
    uint8_t cbw[CBW_BYTES];
    if (storage->is_under_way) {
        storage->out_waits = true;
        return USB_NAK;
    }
    if (transfer->size_bytes != CBW_BYTES)
        return break_off(storage);
    transfer->done_bytes = usb_transfer_take(transfer, cbw, CBW_BYTES);
    if (!take_command(storage, cbw))
        return break_off(storage);
    storage->phase = PHASE_DATA_OUT;
    if (storage->is_in || !storage->length)
        run(storage);
    else if (!make_room(storage, wanted_bytes(storage)))
        return break_off(storage);
    return USB_OK;
}

static enum usb_status data_out(struct storage *storage, struct usb_transfer *transfer)
{
    const uint32_t wanted = wanted_bytes(storage), filled = storage->filled_bytes;
    if (transfer->size_bytes > storage->length - storage->at_bytes)
        return break_off(storage);
    if (filled < wanted)
        storage->filled_bytes +=
            (uint32_t)usb_transfer_take(transfer, storage->buffer + filled, wanted - filled);
    transfer->done_bytes = transfer->size_bytes;
    storage->at_bytes += (uint32_t)transfer->size_bytes;
    if (storage->at_bytes == storage->length)
        run(storage);
    return USB_OK;
}

static enum usb_status out(struct storage *storage, struct usb_transfer *transfer)
{
    switch ((enum phase)storage->phase) {
    case PHASE_COMMAND: return command_transfer(storage, transfer);
    case PHASE_DATA_OUT: return data_out(storage, transfer);
    case PHASE_RUNNING:
    case PHASE_DATA_IN:
    case PHASE_STATUS: break;
    case PHASE_BROKEN: return USB_STALL;
    }
    storage->out_waits = true;
    return USB_NAK;
}

static enum usb_status data_in(struct storage *storage, struct usb_transfer *transfer)
{
    const uint32_t size = least(transfer->size_bytes, storage->length - storage->at_bytes);
    uint32_t given = 0;
    if (storage->at_bytes < storage->filled_bytes) {
        given = least(size, storage->filled_bytes - storage->at_bytes);
        usb_transfer_fill(transfer, storage->buffer + storage->at_bytes, given);
    }
    usb_transfer_clear(transfer, given, size - given);
    transfer->done_bytes = size;
    storage->at_bytes += size;
    if (storage->at_bytes == storage->length) {
        storage->phase = PHASE_STATUS;
        storage->filled_bytes = 0;
    }
    return USB_OK;
}

static enum usb_status status_in(struct storage *storage, struct usb_transfer *transfer)
{
    const uint32_t signature = CSW_SIGNATURE;
    uint8_t csw[CSW_BYTES];
    memcpy(csw, &signature, 4);
    memcpy(csw + 4, &storage->tag, 4);
    memcpy(csw + 8, &storage->residue, 4);
    csw[12] = storage->status;
    transfer->done_bytes = usb_transfer_fill(transfer, csw, sizeof(csw));
    if (transfer->size_bytes < sizeof(csw))
        return USB_BABBLE;
    storage->phase = PHASE_COMMAND;
    return USB_OK;
}

static enum usb_status in(struct storage *storage, struct usb_transfer *transfer)
{
    switch ((enum phase)storage->phase) {
    case PHASE_DATA_IN: return data_in(storage, transfer);
    case PHASE_STATUS: return status_in(storage, transfer);
    case PHASE_COMMAND:
    case PHASE_DATA_OUT:
    case PHASE_RUNNING: break;
    case PHASE_BROKEN: return USB_STALL;
    }
    storage->in_waits = true;
    return USB_NAK;
}

/* ---- struct usb_device_ops ---- */

static enum usb_status storage_transfer(void *self, struct usb_transfer *transfer)
{
    struct storage *storage = self;
    const bool is_in = transfer->endpoint == ENDPOINT_IN;
    *(is_in ? &storage->in_waits : &storage->out_waits) = false;
    enum usb_status status = is_in ? in(storage, transfer) : out(storage, transfer);
    wake(storage); /* what was done for one may be what the other has waited for */
    return status;
}

/* Ready for a command block. What the unit has under way cannot be called back. */
static void forget(struct storage *storage)
{
    storage->phase = PHASE_COMMAND;
    storage->status = STATUS_PASSED;
    storage->length = storage->at_bytes = storage->filled_bytes = 0;
    storage->is_forgotten = storage->is_under_way;
}

static enum usb_status storage_request(void *self, const struct usb_setup *setup, uint8_t *data,
                                       size_t *size_bytes)
{
    struct storage *storage = self;
    if (setup->index || setup->value)
        return USB_STALL;
    if (setup->type == TYPE_CLASS_OUT && setup->request == REQUEST_RESET) {
        forget(storage); /* 3.1: halted endpoints stay so */
        wake(storage);
        return USB_OK;
    }
    if (setup->type != TYPE_CLASS_IN || setup->request != REQUEST_MAX_LUN || !*size_bytes)
        return USB_STALL;
    data[0] = 0;
    *size_bytes = 1;
    return USB_OK;
}

static void storage_stopped(void *self, uint8_t endpoint)
{
    struct storage *storage = self;
    *(endpoint == ENDPOINT_IN ? &storage->in_waits : &storage->out_waits) = false;
}

static void storage_unhalted(void *self, uint8_t endpoint)
{
    struct storage *storage = self;
    if (storage->phase == PHASE_BROKEN)
        usb_device_halt(storage->device, endpoint);
}

static void storage_reset(void *self)
{
    struct storage *storage = self;
    forget(storage);
    storage->in_waits = storage->out_waits = false;
    scsi_lun_reset(storage->lun, false);
}

static void storage_power_on(void *self)
{
    struct storage *storage = self;
    scsi_lun_reset(storage->lun, true);
}

static void storage_save(void *self, struct save *save)
{
    struct storage *storage = self;
    save_u8(save, storage->phase);
    save_bool(save, storage->in_waits);
    save_bool(save, storage->out_waits);
    save_u32(save, storage->tag);
    save_u32(save, storage->length);
    save_bool(save, storage->is_in);
    save_u32(save, storage->at_bytes);
    save_u32(save, storage->residue);
    save_u8(save, storage->status);
    save_bytes(save, storage->request.cdb, SCSI_CDB_BYTES);
    save_u32(save, storage->filled_bytes);
    if (storage->filled_bytes)
        save_bytes(save, storage->buffer, storage->filled_bytes);
    scsi_lun_save(storage->lun, save);
}

static bool is_sound(struct storage *storage)
{
    if (storage->phase > PHASE_BROKEN || storage->phase == PHASE_RUNNING ||
        storage->status > STATUS_PHASE_ERROR || storage->at_bytes > storage->length ||
        storage->filled_bytes > least(storage->length, SCSI_TRANSFER_MAX_BYTES))
        return false;
    return storage->phase != PHASE_DATA_OUT ||
           (!storage->is_in && storage->at_bytes < storage->length &&
            storage->filled_bytes == least(wanted_bytes(storage), storage->at_bytes));
}

static bool storage_load(void *self, struct load *load, uint32_t version)
{
    struct storage *storage = self;
    storage->phase = load_u8(load);
    storage->in_waits = load_bool(load);
    storage->out_waits = load_bool(load);
    storage->tag = load_u32(load);
    storage->length = load_u32(load);
    storage->is_in = load_bool(load);
    storage->at_bytes = load_u32(load);
    storage->residue = load_u32(load);
    storage->status = load_u8(load);
    load_bytes(load, storage->request.cdb, SCSI_CDB_BYTES);
    storage->filled_bytes = load_u32(load);
    if (!is_sound(storage) ||
        !make_room(storage, storage->phase == PHASE_DATA_OUT ? wanted_bytes(storage)
                                                             : storage->filled_bytes))
        load_fail(load);
    if (!load->failed && storage->filled_bytes)
        load_bytes(load, storage->buffer, storage->filled_bytes);
    if (!scsi_lun_load(storage->lun, load))
        load_fail(load);
    return !load->failed;
}

static void storage_destroy(void *self)
{
    struct storage *storage = self;
    scsi_lun_destroy(storage->lun);
    free(storage->buffer);
    free(storage);
}

static const struct usb_device_ops ops = {
    .name = "USB mass storage",
    .version = 1,
    .request = storage_request,
    .transfer = storage_transfer,
    .stopped = storage_stopped,
    .unhalted = storage_unhalted,
    .reset = storage_reset,
    .power_on = storage_power_on,
    .save = storage_save,
    .load = storage_load,
    .destroy = storage_destroy,
};

struct usb_device *usb_storage_create(const struct usb_storage_config *config, struct error *err)
{
    const bool is_cdrom = scsi_lun_is_cdrom(config->lun);
    struct storage *storage = calloc(1, sizeof(*storage));
    if (!storage) {
        scsi_lun_destroy(config->lun);
        error_errno(err, "cannot create device", ops.name, ENOMEM);
        return NULL;
    }
    storage->lun = config->lun;
    strncpy(storage->serial, config->serial, SERIAL_BYTES - 1);
    const struct usb_device_config device = {
        .ops = &ops,
        .self = storage,
        .speed = USB_SUPER,
        .device = device_descriptor,
        .configuration = configuration,
        .configuration_bytes = sizeof(configuration),
        .bos = bos,
        .bos_bytes = sizeof(bos),
        .strings = {"skep", is_cdrom ? "USB CD-ROM drive" : "USB disk", storage->serial},
    };
    storage->device = usb_device_create(&device, err);
    if (!storage->device) {
        storage_destroy(storage);
        return NULL;
    }
    return storage->device;
}
