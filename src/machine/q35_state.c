/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Reset, save and load of all that is on the board.
 */
#include "machine/q35_internal.h"

#include <string.h>

static void reset_but(struct q35 *board, const void *kept)
{
    for (unsigned i = 0; i < board->device_count; i++)
        if (board->device[i].self != kept)
            board->device[i].ops->reset(board->device[i].self);
}

void q35_reset(struct q35 *board)
{
    reset_but(board, NULL);
}

/* The power management tells the guest why it woke. */
void q35_reset_but_power(struct q35 *board)
{
    reset_but(board, board->acpi_pm);
}

bool q35_is_asleep(struct q35 *board)
{
    return acpi_pm_is_asleep(board->acpi_pm);
}

void q35_press_power_button(struct q35 *board)
{
    acpi_pm_press_power_button(board->acpi_pm);
}

static const char wiring_section[] = "q35";
enum { WIRING_VERSION = 2 };

static void save_wiring(const struct q35 *board, struct save *save)
{
    save_begin(save, wiring_section, WIRING_VERSION);
    for (unsigned i = 0; i < ISA_IRQS; i++)
        save_u32(save, board->isa_sources[i]);
    save_u32(save, board->test_levels);
    save_u8(save, board->pirq_levels);
    save_bytes(save, board->pirq_irq, sizeof(board->pirq_irq));
    save_end(save);
}

static bool load_wiring(struct q35 *board, struct load *load)
{
    uint32_t version;
    if (!load_begin(load, wiring_section, &version) || version != WIRING_VERSION)
        return false;
    for (unsigned i = 0; i < ISA_IRQS; i++)
        board->isa_sources[i] = load_u32(load);
    board->test_levels = load_u32(load);
    board->pirq_levels = load_u8(load);
    load_bytes(load, board->pirq_irq, sizeof(board->pirq_irq));
    for (unsigned i = 0; i < ICH9_LPC_PIRQ_COUNT; i++)
        if (board->pirq_irq[i] >= ISA_IRQS)
            board->pirq_irq[i] = 0;
    return load_end(load);
}

static const char devices_section[] = "devices";

static void save_devices(const struct q35 *board, struct save *save)
{
    save_begin(save, devices_section, 1);
    save_u32(save, board->device_count);
    for (unsigned i = 0; i < board->device_count; i++) {
        save_bytes(save, board->label[i], DEVICE_LABEL_BYTES);
        save_u32(save, board->device[i].ops->version);
    }
    save_end(save);
}

static const char what_load[] = "cannot restore the machine";

static bool other_device(const char *saved, const char *here, struct error *err)
{
    if (saved && here)
        error_set(err, what_load, NULL, "it has a device '%s' where this one has '%s'", saved,
                  here);
    else if (saved)
        error_set(err, what_load, NULL, "it has a device '%s' that this one lacks", saved);
    else
        error_set(err, what_load, NULL, "it lacks the device '%s' of this one", here);
    return error_hint(err, "give the options that it was started with, or none");
}

/* `here` NULL: there is no further device. */
static bool check_device(const struct device_ops *ops, const char *here, struct load *load,
                         struct error *err)
{
    char name[DEVICE_LABEL_BYTES];
    load_bytes(load, name, sizeof(name));
    name[sizeof(name) - 1] = '\0';
    uint32_t version = load_u32(load);
    if (load->failed)
        return error_set(err, what_load, NULL, "its list of devices is cut short");
    if (!here || strcmp(name, here) != 0)
        return other_device(name, here, err);
    if (version <= ops->version)
        return true;
    error_set(err, what_load, NULL, "its device '%s' is of version %u, newer than %u", name,
              version, ops->version);
    return error_hint(err, "use the version of skep that saved it");
}

/* Which devices there are, before the state of the first is touched. */
static bool check_devices(const struct q35 *board, struct load *load, struct error *err)
{
    uint32_t version;
    if (!load_begin(load, devices_section, &version) || version != 1)
        return error_set(err, what_load, NULL, "it has no list of devices that this skep can read");
    uint32_t count = load_u32(load);
    for (unsigned i = 0; i < count || i < board->device_count; i++) {
        const char *here = i < board->device_count ? board->label[i] : NULL;
        if (i >= count)
            return other_device(NULL, here, err);
        if (!check_device(here ? board->device[i].ops : NULL, here, load, err))
            return false;
    }
    return load_end(load) || error_set(err, what_load, NULL, "its list of devices is too long");
}

void q35_save(struct q35 *board, struct save *save)
{
    q35_irqchip_save_begin(board, save);
    save_devices(board, save);
    save_wiring(board, save);
    for (unsigned i = 0; i < board->device_count; i++) {
        const struct device *device = &board->device[i];
        save_begin(save, device->ops->name, device->ops->version);
        device->ops->save(device->self, save);
        save_end(save);
    }
    q35_irqchip_save_end(board);
}

/* The wires first: a device that drives its line while it is loaded then changes nothing. */
bool q35_load(struct q35 *board, struct load *load, struct error *err)
{
    if (!check_devices(board, load, err))
        return false;
    if (!load_wiring(board, load))
        return error_set(err, what_load, NULL, "the state of its wiring is not as it should be");
    for (unsigned i = 0; i < board->device_count; i++) {
        const struct device *device = &board->device[i];
        uint32_t version;
        if (!load_begin(load, device->ops->name, &version) ||
            !device->ops->load(device->self, load, version) || !load_end(load))
            return error_set(err, what_load, NULL,
                             "the state of its device '%s' is not as it should be",
                             device->ops->name);
    }
    return q35_irqchip_load_end(board, err);
}

void q35_kick_all(struct q35 *board)
{
    for (unsigned i = 0; i < board->virtio_count; i++)
        virtio_pci_kick_all(board->virtio[i]);
}
