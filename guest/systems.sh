#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# Fetches what tests/boot/systems.py boots beside Linux: memtest86+, iPXE, Xen, and the loaders of the
# SYSLINUX family, from Debian's packages. They are unpacked, not installed: installed ones would put
# themselves into the menu of this computer's own boot loader.
#
#   guest/systems.sh        makes it unless it is there; prints the folder that holds
#                           memtest, ipxe.iso, xen, isolinux.bin, ldlinux.c32, mbr.bin, syslinux, and
#                           programs.cpio, an initrd that adds extlinux and ethtool to a guest
#
# The folder is $SKEP_HOME/cache/systems, or $XDG_CACHE_HOME/skep/systems (~/.cache/skep/systems).
set -eu

here=$(cd "$(dirname "$0")" && pwd)
name=systems
# shellcheck source=guest/common.sh
. "$here/common.sh"
recipe=$(cat "$here"/systems.sh "$here"/common.sh | sha256sum | cut -c1-12)
out=$cache/systems

# The hypervisor that Debian's package of all of Xen depends on.
xen_package()
{
    package=$(apt-cache depends xen-system-amd64 2>/dev/null |
        sed -n 's/.*Depends: \(xen-hypervisor-[0-9][^ ]*\)$/\1/p' | head -n 1)
    [ -n "$package" ] || fail "the package xen-system-amd64 is not known here" \
        "run 'make deps' (it updates the package lists)"
    printf '%s\n' "$package"
}

# Programs that only a guest can use, extlinux since it mounts the disk: with the libraries that they need.
pack_programs()
{
    root=$work/root libraries=lib/x86_64-linux-gnu
    mkdir -p "$root/bin" "$root/lib64" "$root/$libraries"
    cp "$work/all/usr/bin/extlinux" "$work/all/sbin/ethtool" "$root/bin/"
    for library in libc.so.6 libm.so.6 libmnl.so.0; do
        cp -L "$work/all/$libraries/$library" "$root/$libraries/" 2>/dev/null ||
            cp -L "$work/all/usr/$libraries/$library" "$root/$libraries/"
    done
    cp -L "$work/all/$libraries/ld-linux-x86-64.so.2" "$root/lib64/"
    pack_root "$work/out/programs.cpio"
}

build()
{
    for tool in apt-cache apt-get dpkg-deb cpio gunzip; do
        command -v "$tool" >/dev/null || fail "cannot find $tool" "run 'make deps'"
    done
    xen=$(xen_package)
    packages="memtest86+ ipxe $xen isolinux syslinux syslinux-common extlinux ethtool libmnl0 libc6"
    say "downloading $packages"
    for package in $packages; do
        download "$package"
        unpack "$package" all
    done
    cp "$work"/all/boot/memtest86+x64.bin "$work/out/memtest"
    gunzip -c "$work"/all/boot/xen-*.gz >"$work/out/xen"
    cp "$work/all/usr/lib/ipxe/ipxe.iso" "$work/all/usr/lib/ISOLINUX/isolinux.bin" \
        "$work/all/usr/lib/syslinux/modules/bios/ldlinux.c32" \
        "$work/all/usr/lib/syslinux/mbr/mbr.bin" "$work/all/usr/bin/syslinux" "$work/out/"
    pack_programs
}

provide
