/* SPDX-License-Identifier: BSD-2-Clause
 * skep run --restore: options from the saved machine. */
#include "cli/restore.h"

#include <string.h>

/* Names may have changed since: files moved, another port of the host. So what backs a device can
 * be given anew, but not whether there is one. */
static void fill_backends(struct machine_config *config, const struct machine_config *saved,
                          const struct restore_given *given)
{
    if (!config->disk_count) {
        memcpy(config->disks, saved->disks, sizeof(config->disks));
        config->disk_count = saved->disk_count;
    }
    if (!given->nets) {
        memcpy(config->nets, saved->nets, sizeof(config->nets));
        config->net_count = saved->net_count;
    }
    if (!given->console)
        config->serials[0] = saved->serials[0];
    if (!given->serials) {
        for (unsigned i = 1; i < MACHINE_MAX_SERIALS; i++)
            config->serials[i] = saved->serials[i];
        config->serial_count = saved->serial_count;
    }
    if (!config->console_count) {
        memcpy(config->consoles, saved->consoles, sizeof(config->consoles));
        config->console_count = saved->console_count;
    }
    if (!config->debugcon) {
        config->debugcon = saved->debugcon;
        config->debugcon_port = saved->debugcon_port;
    }
    if (!config->post)
        config->post = saved->post;
    if (!given->display)
        config->display = saved->display;
    if (!config->parallel)
        config->parallel = saved->parallel;
    if (!config->tpm)
        config->tpm = saved->tpm;
}

/* An option that would be ignored is a mistake. */
bool restore_check(const struct machine_config *config, bool has_vga, struct error *err)
{
    const struct machine_config *saved = machine_saved_config(config->saved);
    bool is_exit_port_same =
        saved->has_exit_port && (!config->exit_port || config->exit_port == saved->exit_port);
    const struct {
        bool is_other;
        const char *option;
    } checks[] = {
        {config->cpu_level != CPU_LEVEL_HOST && config->cpu_level != saved->cpu_level, "--cpu"},
        {config->rtc_is_local && !saved->rtc_is_local, "--rtc local"},
        {config->no_balloon && !saved->no_balloon, "--no-balloon"},
        {config->no_rng && !saved->no_rng, "--no-rng"},
        {config->has_testdev && !saved->has_testdev, "--device testdev"},
        {config->has_exit_port && !is_exit_port_same, "--device debug-exit"},
        {has_vga && config->vga != saved->vga, "--vga"},
        {config->boot_count != 0, "--boot"},
    };
    for (size_t i = 0; i < sizeof(checks) / sizeof(checks[0]); i++)
        if (checks[i].is_other) {
            error_usage(err, "cannot restore the machine with", checks[i].option,
                        "it was made otherwise");
            return error_hint(err, "leave the option out: what the guest sees of the machine is "
                                   "as it was saved");
        }
    return true;
}

void restore_fill(struct machine_config *config, const struct restore_given *given)
{
    const struct machine_config *saved = machine_saved_config(config->saved);
    if (!config->kernel && !config->kernel_from_disk) {
        config->kernel_from_disk = saved->kernel_from_disk;
        config->kernel = saved->kernel;
        memcpy(config->initrds, saved->initrds, sizeof(config->initrds));
        config->initrd_count = saved->initrd_count;
    }
    if (!config->rom)
        config->rom = saved->rom;
    if (!config->nvram)
        config->nvram = saved->nvram;
    config->nvram_template = saved->nvram_template;
    config->rom_is_firmware = saved->rom_is_firmware;
    memcpy(config->boot, saved->boot, sizeof(config->boot));
    config->boot_count = saved->boot_count;
    config->boot_menu = saved->boot_menu;
    if (!config->cmdline)
        config->cmdline = saved->cmdline;
    fill_backends(config, saved, given);
    config->vga = saved->vga;
    config->vga_memory_bytes = saved->vga_memory_bytes;
    config->screen_width = saved->screen_width;
    config->screen_height = saved->screen_height;
    config->input = saved->input;
    config->rtc_is_local = saved->rtc_is_local;
    config->no_balloon = saved->no_balloon;
    config->no_rng = saved->no_rng;
    config->has_exit_port = saved->has_exit_port;
    config->exit_port = saved->exit_port;
    config->has_testdev = saved->has_testdev;
    config->parallel_ignores_strobe = saved->parallel_ignores_strobe;
    config->tpm_is_tis = saved->tpm_is_tis;
    config->no_reboot |= saved->no_reboot;
}
