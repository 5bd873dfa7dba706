#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# Makes the guest that tests of devices use: Debian's generic kernel and a small root with busybox
# and the drivers of all devices that skep has, as an initrd. The cloud kernel of build.sh lacks most
# of them. Drivers are loaded for what is there, also later when something appears.
#
#   guest/drivers.sh        makes it unless it is there; prints the folder that holds
#                           vmlinuz, initrd.cpio and version
#
# The folder is $SKEP_HOME/cache/drivers, or $XDG_CACHE_HOME/skep/drivers (~/.cache/skep/drivers).
set -eu

here=$(cd "$(dirname "$0")" && pwd)
name=drivers
# shellcheck source=guest/common.sh
. "$here/common.sh"
recipe=$(cat "$here"/drivers.sh "$here"/common.sh "$here"/root/* "$here"/drivers/* |
    sha256sum | cut -c1-12)
out=$cache/drivers

# Those of TPMs and of PS/2 keyboards are in the kernel itself.
modules='virtio_pci virtio_blk virtio_net virtio_console virtio_rng virtio_balloon virtio_scsi
         virtio_gpu virtio_input
         ahci ata_piix ata_generic nvme sd_mod sr_mod sg floppy usb_storage uas
         e1000 e1000e xhci_pci usbhid hid_generic psmouse evdev bochs tpm_tis tpm_crb qemu_fw_cfg
         efivarfs ext4 isofs vfat nls_ascii nls_cp437 nls_utf8'

# The modules and what those need, at their places, so that the guest's modprobe finds them.
install_modules()
{
    version=$1
    from=$work/kernel
    index_modules
    for module in $modules; do
        modprobe -d "$from" -S "$version" --show-depends "$module" ||
            fail "the kernel has no module $module"
    done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' >"$work/modules"
    while read -r path; do
        place=$root/lib/modules/$version/${path#"$from/lib/modules/$version/"}
        mkdir -p "$(dirname "$place")"
        cp "$path" "$place"
    done <"$work/modules"
    for file in order builtin builtin.modinfo; do
        cp "$from/lib/modules/$version/modules.$file" "$root/lib/modules/$version/"
    done
    depmod -b "$root" "$version"
    # busybox reads the files that are text.
    rm -f "$root/lib/modules/$version"/*.bin "$root/lib/modules/$version/modules.builtin.modinfo"
}

build()
{
    for tool in apt-cache apt-get dpkg-deb cpio depmod modprobe; do
        command -v "$tool" >/dev/null || fail "cannot find $tool" "run 'make deps'"
    done
    kernel=$(kernel_package linux-image-amd64)
    say "downloading $kernel and busybox-static"
    download "$kernel"
    download busybox-static
    say "unpacking"
    unpack "$kernel" kernel
    unpack busybox-static busybox
    make_root "$here/drivers/init"
    for script in coldplug hotplug; do
        cp "$here/drivers/$script" "$root/sbin/$script"
        chmod 755 "$root/sbin/$script"
    done
    install_modules "${kernel#linux-image-}"
    say "packing the initrd"
    pack_root "$work/out/initrd.cpio"
    cp "$work/kernel/boot/vmlinuz-${kernel#linux-image-}" "$work/out/vmlinuz"
    printf '%s\n' "${kernel#linux-image-}" >"$work/out/version"
}

provide
