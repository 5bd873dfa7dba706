/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What all USB devices do alike: standard requests (USB 2.0, 9.4; USB 3.2, 9.4), halted endpoints,
 * addresses; see usb.h. Left out: test modes, several configurations, alternate settings.
 */
#include "dev/usb/usb.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { /* bmRequestType without direction */
       TO_DEVICE = 0x00,
       TO_INTERFACE = 0x01,
       TO_ENDPOINT = 0x02,
};

enum { /* bRequest, 9.4 */
       GET_STATUS = 0,
       CLEAR_FEATURE = 1,
       SET_FEATURE = 3,
       SET_ADDRESS = 5,
       GET_DESCRIPTOR = 6,
       GET_CONFIGURATION = 8,
       SET_CONFIGURATION = 9,
       GET_INTERFACE = 10,
       SET_INTERFACE = 11,
       SET_SEL = 48,
       SET_ISOCH_DELAY = 49,
};

enum { /* features, 9.4 */
       FEATURE_ENDPOINT_HALT = 0,
       FEATURE_FUNCTION_SUSPEND = 0, /* of an interface */
       FEATURE_REMOTE_WAKEUP = 1,
       FEATURE_U1 = 48,
       FEATURE_U2 = 49,
       FEATURE_LTM = 50,
};

enum { STRING_MAX_BYTES = 254, LANGUAGE_ENGLISH = 0x0409, SET_SEL_BYTES = 6 };

struct usb_device {
    struct usb_device_config config;
    struct usb_host host;
    unsigned port;
    uint8_t address;
    uint8_t configuration; /* 0: not configured */
    bool remote_wakeup;
    bool u1, u2, ltm; /* only remembered: link states are inert */
    uint32_t halted;  /* a bit an endpoint: OUT below, IN from bit 16 on */
};

/* ---- for what a device is ---- */

struct usb_device *usb_device_create(const struct usb_device_config *config, struct error *err)
{
    struct usb_device *device = calloc(1, sizeof(*device));
    if (!device) {
        error_errno(err, "cannot create device", config->ops->name, ENOMEM);
        return NULL;
    }
    device->config = *config;
    return device;
}

void *usb_device_self(const struct usb_device *device)
{
    return device->config.self;
}

void usb_device_lock(struct usb_device *device)
{
    if (device->host.lock)
        device->host.lock(device->host.opaque);
}

void usb_device_unlock(struct usb_device *device)
{
    if (device->host.unlock)
        device->host.unlock(device->host.opaque);
}

bool usb_device_is_configured(const struct usb_device *device)
{
    return device->configuration;
}

void usb_device_wakeup(struct usb_device *device, uint8_t endpoint)
{
    if (device->host.wakeup)
        device->host.wakeup(device->host.opaque, device->port, endpoint);
}

static uint32_t endpoint_bit(uint8_t endpoint)
{
    return UINT32_C(1) << ((endpoint & 15) + (endpoint & USB_IN ? 16 : 0));
}

void usb_device_halt(struct usb_device *device, uint8_t endpoint)
{
    device->halted |= endpoint_bit(endpoint);
}

bool usb_device_is_halted(const struct usb_device *device, uint8_t endpoint)
{
    return device->halted & endpoint_bit(endpoint);
}

static size_t copy(struct usb_transfer *transfer, uint8_t *bytes, size_t size_bytes, bool fills)
{
    size_t done = 0;
    for (unsigned i = 0; i < transfer->iov_count && done < size_bytes; i++) {
        size_t size = transfer->iov[i].iov_len;
        if (size > size_bytes - done)
            size = size_bytes - done;
        if (fills)
            memcpy(transfer->iov[i].iov_base, bytes + done, size);
        else
            memcpy(bytes + done, transfer->iov[i].iov_base, size);
        done += size;
    }
    return done;
}

size_t usb_transfer_fill(struct usb_transfer *transfer, const void *bytes, size_t size_bytes)
{
    return copy(transfer, (uint8_t *)bytes, size_bytes, true);
}

size_t usb_transfer_take(struct usb_transfer *transfer, void *bytes, size_t size_bytes)
{
    return copy(transfer, bytes, size_bytes, false);
}

void usb_transfer_clear(struct usb_transfer *transfer, size_t from_bytes, size_t size_bytes)
{
    for (unsigned i = 0; i < transfer->iov_count && size_bytes; i++) {
        const struct iovec *piece = &transfer->iov[i];
        if (from_bytes >= piece->iov_len) {
            from_bytes -= piece->iov_len;
            continue;
        }
        size_t size = piece->iov_len - from_bytes;
        size = size < size_bytes ? size : size_bytes;
        memset((uint8_t *)piece->iov_base + from_bytes, 0, size);
        size_bytes -= size;
        from_bytes = 0;
    }
}

/* ---- descriptors ---- */

static enum usb_status answer(uint8_t *data, size_t *size_bytes, const void *bytes, size_t have)
{
    if (*size_bytes > have)
        *size_bytes = have;
    memcpy(data, bytes, *size_bytes);
    return USB_OK;
}

/* 9.6.7: UTF-16, of which ours are ASCII; index 0 is the list of languages. */
static enum usb_status answer_string(const struct usb_device *device, unsigned index, uint8_t *data,
                                     size_t *size_bytes)
{
    uint8_t bytes[2 + STRING_MAX_BYTES] = {0, USB_DESCRIPTOR_STRING};
    size_t length = 2;
    if (index == 0) {
        bytes[length++] = LANGUAGE_ENGLISH & 0xff;
        bytes[length++] = LANGUAGE_ENGLISH >> 8;
    } else {
        const char *text = index <= USB_STRINGS_MAX ? device->config.strings[index - 1] : NULL;
        if (!text)
            return USB_STALL;
        for (; *text && length + 2 < sizeof(bytes); text++, length += 2)
            bytes[length] = (uint8_t)*text;
    }
    bytes[0] = (uint8_t)length;
    return answer(data, size_bytes, bytes, length);
}

static enum usb_status answer_descriptor(const struct usb_device *device,
                                         const struct usb_setup *setup, uint8_t *data,
                                         size_t *size_bytes)
{
    const struct usb_device_config *config = &device->config;
    unsigned index = setup->value & 0xff;
    switch (setup->value >> 8) {
    case USB_DESCRIPTOR_DEVICE: return answer(data, size_bytes, config->device, config->device[0]);
    case USB_DESCRIPTOR_CONFIGURATION:
        return index ? USB_STALL
                     : answer(data, size_bytes, config->configuration, config->configuration_bytes);
    case USB_DESCRIPTOR_STRING: return answer_string(device, index, data, size_bytes);
    case USB_DESCRIPTOR_BOS:
        return config->bos ? answer(data, size_bytes, config->bos, config->bos_bytes) : USB_STALL;
    default: return USB_STALL; /* the device qualifier too: there is no other speed */
    }
}

/* ---- the other standard requests ---- */

static uint8_t configuration_value(const struct usb_device *device)
{
    return device->config.configuration[5];
}

/* Walks the configuration for an endpoint's descriptor. */
static bool has_endpoint(const struct usb_device *device, uint8_t endpoint)
{
    const uint8_t *bytes = device->config.configuration;
    for (size_t at = 0; at + 2 < device->config.configuration_bytes; at += bytes[at])
        if (bytes[at + 1] == USB_DESCRIPTOR_ENDPOINT && bytes[at + 2] == endpoint)
            return true;
    return false;
}

static enum usb_status answer_status(const struct usb_device *device, const struct usb_setup *setup,
                                     uint8_t *data, size_t *size_bytes)
{
    uint8_t bytes[2] = {0};
    switch (setup->type & 0x1f) {
    case TO_DEVICE:
        bytes[0] = (uint8_t)(device->remote_wakeup << 1 | device->u1 << 2 | device->u2 << 3 |
                             device->ltm << 4);
        break;
    case TO_ENDPOINT: bytes[0] = usb_device_is_halted(device, (uint8_t)setup->index); break;
    }
    return answer(data, size_bytes, bytes, sizeof(bytes));
}

static enum usb_status set_endpoint_halt(struct usb_device *device, uint8_t endpoint, bool is_set)
{
    const struct usb_device_config *config = &device->config;
    if (!(endpoint & 15))
        return USB_OK;
    if (!device->configuration || !has_endpoint(device, endpoint))
        return USB_STALL;
    if (is_set) {
        usb_device_halt(device, endpoint);
        return USB_OK;
    }
    device->halted &= ~endpoint_bit(endpoint);
    if (config->ops->unhalted)
        config->ops->unhalted(config->self, endpoint);
    return USB_OK;
}

static enum usb_status set_feature(struct usb_device *device, const struct usb_setup *setup,
                                   bool is_set)
{
    switch (setup->type & 0x1f) {
    case TO_ENDPOINT:
        return setup->value == FEATURE_ENDPOINT_HALT
                   ? set_endpoint_halt(device, (uint8_t)setup->index, is_set)
                   : USB_STALL;
    case TO_INTERFACE: return setup->value == FEATURE_FUNCTION_SUSPEND ? USB_OK : USB_STALL;
    }
    switch (setup->value) {
    case FEATURE_REMOTE_WAKEUP:
        if (!device->config.can_wake)
            return USB_STALL;
        device->remote_wakeup = is_set;
        return USB_OK;
    case FEATURE_U1: device->u1 = is_set; return USB_OK;
    case FEATURE_U2: device->u2 = is_set; return USB_OK;
    case FEATURE_LTM: device->ltm = is_set; return USB_OK;
    default: return USB_STALL;
    }
}

static enum usb_status set_configuration(struct usb_device *device, unsigned value)
{
    const struct usb_device_config *config = &device->config;
    if (value && value != configuration_value(device))
        return USB_STALL;
    config->ops->reset(config->self);
    device->configuration = (uint8_t)value;
    device->halted = 0;
    return USB_OK;
}

/* Requests to the host: IN. */
static enum usb_status standard_in(struct usb_device *device, const struct usb_setup *setup,
                                   uint8_t *data, size_t *size_bytes)
{
    const struct usb_device_config *config = &device->config;
    const uint8_t zero = 0;
    switch (setup->request) {
    case GET_STATUS: return answer_status(device, setup, data, size_bytes);
    case GET_CONFIGURATION: return answer(data, size_bytes, &device->configuration, 1);
    case GET_INTERFACE: return answer(data, size_bytes, &zero, 1);
    case GET_DESCRIPTOR:
        if ((setup->type & 0x1f) == TO_DEVICE)
            return answer_descriptor(device, setup, data, size_bytes);
    }
    return config->ops->request(config->self, setup, data, size_bytes);
}

static enum usb_status standard_out(struct usb_device *device, const struct usb_setup *setup,
                                    uint8_t *data, size_t *size_bytes)
{
    const struct usb_device_config *config = &device->config;
    switch (setup->request) {
    case CLEAR_FEATURE: return set_feature(device, setup, false);
    case SET_FEATURE: return set_feature(device, setup, true);
    case SET_ADDRESS: return USB_STALL; /* an xHC's own business (4.6.5) */
    case SET_CONFIGURATION: return set_configuration(device, setup->value);
    case SET_INTERFACE: return setup->value ? USB_STALL : USB_OK;
    case SET_SEL: return *size_bytes == SET_SEL_BYTES ? USB_OK : USB_STALL;
    case SET_ISOCH_DELAY: return USB_OK;
    default: return config->ops->request(config->self, setup, data, size_bytes);
    }
}

/* ---- for a controller ---- */

void usb_device_attach(struct usb_device *device, const struct usb_host *host, unsigned port)
{
    device->host = *host;
    device->port = port;
}

enum usb_speed usb_device_speed(const struct usb_device *device)
{
    return device->config.speed;
}

const char *usb_device_name(const struct usb_device *device)
{
    return device->config.ops->name;
}

bool usb_device_wakes(const struct usb_device *device)
{
    return device->remote_wakeup;
}

void usb_device_reset(struct usb_device *device)
{
    device->config.ops->reset(device->config.self);
    device->address = device->configuration = 0;
    device->remote_wakeup = device->u1 = device->u2 = device->ltm = false;
    device->halted = 0;
}

void usb_device_power_on(struct usb_device *device)
{
    usb_device_reset(device);
    if (device->config.ops->power_on)
        device->config.ops->power_on(device->config.self);
}

void usb_device_set_address(struct usb_device *device, uint8_t address)
{
    device->address = address;
}

enum usb_status usb_device_control(struct usb_device *device, const struct usb_setup *setup,
                                   uint8_t *data, size_t *size_bytes)
{
    const struct usb_device_config *config = &device->config;
    bool is_standard = (setup->type & 0x60) == 0, is_in = setup->type & USB_IN;
    if (!is_standard)
        return config->ops->request(config->self, setup, data, size_bytes);
    return is_in ? standard_in(device, setup, data, size_bytes)
                 : standard_out(device, setup, data, size_bytes);
}

enum usb_status usb_device_transfer(struct usb_device *device, struct usb_transfer *transfer)
{
    const struct usb_device_config *config = &device->config;
    transfer->done_bytes = 0;
    if (!device->configuration || !has_endpoint(device, transfer->endpoint))
        return USB_ERROR;
    if (usb_device_is_halted(device, transfer->endpoint))
        return USB_STALL;
    return config->ops->transfer(config->self, transfer);
}

void usb_device_stopped(struct usb_device *device, uint8_t endpoint)
{
    if (device->config.ops->stopped)
        device->config.ops->stopped(device->config.self, endpoint);
}

void usb_device_save(struct usb_device *device, struct save *save)
{
    const struct usb_device_config *config = &device->config;
    save_u32(save, config->ops->version);
    save_u8(save, device->address);
    save_u8(save, device->configuration);
    save_bool(save, device->remote_wakeup);
    save_bool(save, device->u1);
    save_bool(save, device->u2);
    save_bool(save, device->ltm);
    save_u32(save, device->halted);
    config->ops->save(config->self, save);
}

bool usb_device_load(struct usb_device *device, struct load *load)
{
    const struct usb_device_config *config = &device->config;
    uint32_t version = load_u32(load);
    device->address = load_u8(load);
    device->configuration = load_u8(load);
    device->remote_wakeup = load_bool(load);
    device->u1 = load_bool(load);
    device->u2 = load_bool(load);
    device->ltm = load_bool(load);
    device->halted = load_u32(load);
    if (version > config->ops->version || device->address > 127 ||
        (device->configuration && device->configuration != configuration_value(device)) ||
        (device->remote_wakeup && !config->can_wake))
        load_fail(load);
    if (!config->ops->load(config->self, load, version))
        load_fail(load);
    if (load->failed)
        usb_device_reset(device);
    return !load->failed;
}

void usb_device_destroy(struct usb_device *device)
{
    if (!device)
        return;
    device->config.ops->destroy(device->config.self);
    free(device);
}
