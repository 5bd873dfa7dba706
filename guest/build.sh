#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# Makes the guest of `make run` from Debian's packages: the cloud kernel and a small root with
# busybox, as an initrd. Needs no root. What it made is kept and found again:
#
#   guest/build.sh          makes it unless it is there; prints the folder that holds
#                           vmlinuz, initrd.cpio, version and disk.img
#
# The folder is $SKEP_HOME/cache/guest, or $XDG_CACHE_HOME/skep/guest (~/.cache/skep/guest).
set -eu

here=$(cd "$(dirname "$0")" && pwd)
name=guest
# shellcheck source=guest/common.sh
. "$here/common.sh"
# A change of the recipe makes a new guest; disk.img belongs to the person and is never remade.
recipe=$(cat "$here"/build.sh "$here"/common.sh "$here"/root/* | sha256sum | cut -c1-12)
out=$cache/guest

# The modules that the guest needs and what those need, by modprobe's own order.
install_modules()
{
    version=$1
    from=$work/kernel
    index_modules
    for module in virtio_pci virtio_blk virtio_net virtio_console virtio_rng virtio_balloon; do
        modprobe -d "$from" -S "$version" --show-depends "$module" ||
            fail "the kernel has no module $module"
    done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' >"$work/modules"
    : >"$root/modules/order"
    while read -r path; do
        cp "$path" "$root/modules/"
        basename "$path" >>"$root/modules/order"
    done <"$work/modules"
}

build()
{
    for tool in apt-cache apt-get dpkg-deb cpio depmod modprobe mkfs.ext4; do
        command -v "$tool" >/dev/null || fail "cannot find $tool" "run 'make deps'"
    done
    kernel=$(kernel_package linux-image-cloud-amd64)
    say "downloading $kernel and busybox-static"
    download "$kernel"
    download busybox-static
    say "unpacking"
    unpack "$kernel" kernel
    unpack busybox-static busybox
    make_root
    install_modules "${kernel#linux-image-}"
    say "packing the initrd"
    pack_root "$work/out/initrd.cpio"
    cp "$work/kernel/boot/vmlinuz-${kernel#linux-image-}" "$work/out/vmlinuz"
    printf '%s\n' "${kernel#linux-image-}" >"$work/out/version"
    if [ ! -e "$out/disk.img" ]; then
        say "making a disk of 256 MiB"
        truncate -s 256M "$work/out/disk.img"
        mkfs.ext4 -q -L skep "$work/out/disk.img"
    fi
}

[ -e "$out/disk.img" ] || rm -f "$out/recipe"
provide
