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
stamp=$out/recipe

download()
{
    (cd "$work" && apt-get download -q -o APT::Sandbox::User= "$1" >download.log 2>&1) || {
        sed 's/^/    /' "$work/download.log" >&2
        fail "cannot download the Debian package $1" \
            "run 'make deps' (or 'sudo apt-get update') and try again; it needs the package mirror"
    }
}

unpack()
{
    mkdir -p "$work/$2"
    dpkg-deb -x "$work"/"$1"_*.deb "$work/$2"
}

# The modules that the guest needs and what those need, by modprobe's own order.
install_modules()
{
    version=$1
    from=$work/kernel
    # Debian 12 keeps modules under /lib, later releases under /usr/lib.
    [ -d "$from/lib/modules" ] || { mkdir -p "$from/lib" && ln -s ../usr/lib/modules "$from/lib/modules"; }
    depmod -b "$from" "$version"
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

make_root()
{
    root=$work/root
    mkdir -p "$root/bin" "$root/sbin" "$root/etc" "$root/proc" "$root/sys" "$root/dev" \
        "$root/modules" "$root/mnt" "$root/tmp" "$root/root" "$root/run"
    cp "$work"/busybox/bin/busybox "$root/bin/busybox" 2>/dev/null ||
        cp "$work"/busybox/usr/bin/busybox "$root/bin/busybox"
    ln -s busybox "$root/bin/sh"
    cp "$here/root/init" "$root/init"
    cp "$here/root/udhcpc.script" "$root/etc/udhcpc.script"
    cp "$here/root/profile" "$root/etc/profile"
    chmod 755 "$root/init" "$root/etc/udhcpc.script"
    printf 'root:x:0:0:root:/root:/bin/sh\n' >"$root/etc/passwd"
    printf 'root:x:0:\n' >"$root/etc/group"
    printf '127.0.0.1 localhost\n' >"$root/etc/hosts"
}

build()
{
    mkdir -p "$cache"
    work=$(mktemp -d "$cache/guest-new.XXXXXX")
    trap 'rm -rf "$work"' EXIT INT TERM
    for tool in apt-cache apt-get dpkg-deb cpio depmod modprobe mkfs.ext4; do
        command -v "$tool" >/dev/null || fail "cannot find $tool" "run 'make deps'"
    done
    kernel=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null |
        sed -n 's/.*Depends: \(linux-image-[^ ]*\)$/\1/p' | head -n 1)
    [ -n "$kernel" ] || fail "the package linux-image-cloud-amd64 is not known here" \
        "run 'make deps' (it updates the package lists)"
    say "downloading $kernel and busybox-static"
    download "$kernel"
    download busybox-static
    say "unpacking"
    unpack "$kernel" kernel
    unpack busybox-static busybox
    make_root
    install_modules "${kernel#linux-image-}"
    say "packing the initrd"
    mkdir -p "$work/out"
    # Owners and times are fixed, so that the same packages give the same bytes.
    find "$root" -exec touch -h -d @0 {} +
    (cd "$root" && find . | LC_ALL=C sort | cpio -o -H newc -R 0:0 --reproducible --quiet) \
        >"$work/out/initrd.cpio"
    cp "$work/kernel/boot/vmlinuz-${kernel#linux-image-}" "$work/out/vmlinuz"
    printf '%s\n' "${kernel#linux-image-}" >"$work/out/version"
    mkdir -p "$out"
    if [ ! -e "$out/disk.img" ]; then
        say "making a disk of 256 MiB"
        truncate -s 256M "$work/out/disk.img"
        mkfs.ext4 -q -L skep "$work/out/disk.img"
        mv "$work/out/disk.img" "$out/disk.img"
    fi
    mv "$work/out/vmlinuz" "$work/out/initrd.cpio" "$work/out/version" "$out/"
    printf '%s\n' "$recipe" >"$stamp"
    say "ready in $out"
}

if [ "$(cat "$stamp" 2>/dev/null)" != "$recipe" ] || [ ! -e "$out/disk.img" ]; then
    build
fi
printf '%s\n' "$out"
