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

void restore_fill(struct machine_config *config, const struct restore_given *given)
{
    const struct machine_config *saved = machine_saved_config(config->saved);
    if (!config->kernel) {
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
    config->no_balloon = saved->no_balloon;
    config->no_rng = saved->no_rng;
    config->has_exit_port = saved->has_exit_port;
    config->exit_port = saved->exit_port;
    config->has_testdev = saved->has_testdev;
    config->parallel_ignores_strobe = saved->parallel_ignores_strobe;
    config->tpm_is_tis = saved->tpm_is_tis;
    config->no_reboot |= saved->no_reboot;
}
