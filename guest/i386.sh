#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# Makes the guest of tests/boot/i386.py: Debian's two 32-bit kernels and a root with a 32-bit
# busybox, as an initrd. Needs no root, and leaves apt's own lists and architectures alone. What it
# made is kept and found again:
#
#   guest/i386.sh           makes it unless it is there; prints the folder that holds
#                           vmlinuz-686, vmlinuz-686-pae and initrd.cpio
#
# The folder is $SKEP_HOME/cache/i386, or $XDG_CACHE_HOME/skep/i386 (~/.cache/skep/i386).
set -eu

here=$(cd "$(dirname "$0")" && pwd)
name=i386
# shellcheck source=guest/common.sh
. "$here/common.sh"
recipe=$(cat "$here"/i386.sh "$here"/common.sh "$here"/root/* | sha256sum | cut -c1-12)
out=$cache/i386

# An apt of its own: another architecture, and lists that only this script reads.
configure_apt()
{
    apt=$work/apt
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
    : >"$apt/status"
    printf 'deb [signed-by=%s] http://deb.debian.org/debian bookworm main\n' \
        /usr/share/keyrings/debian-archive-keyring.gpg >"$apt/sources.list"
    cat >"$apt/apt.conf" <<END
APT::Architecture "i386";
APT::Architectures { "i386"; };
APT::Sandbox::User "";
Dir::State::Lists "$apt/lists";
Dir::State::status "$apt/status";
Dir::Cache "$apt/cache";
Dir::Etc::sourcelist "$apt/sources.list";
Dir::Etc::sourceparts "/dev/null";
END
    export APT_CONFIG="$apt/apt.conf"
    apt-get update -q >"$work/update.log" 2>&1 || {
        sed 's/^/    /' "$work/update.log" >&2
        fail "cannot read the lists of Debian's i386 packages" "it needs the package mirror"
    }
}

download()
{
    (cd "$work" && apt-get download -q "$1" >download.log 2>&1) || {
        sed 's/^/    /' "$work/download.log" >&2
        fail "cannot download the Debian package $1" "it needs the package mirror; try again later"
    }
    mkdir "$work/$1"
    dpkg-deb -x "$work/$1"_*.deb "$work/$1"
}

get_kernel()
{
    package=$(apt-cache depends "linux-image-$1" | sed -n 's/.*Depends: \(linux-image-[^ ]*\)$/\1/p' |
        head -n 1)
    [ -n "$package" ] || fail "the package linux-image-$1 is not known"
    download "$package"
    cp "$work/$package"/boot/vmlinuz-* "$work/out/vmlinuz-$1"
}

build()
{
    for tool in apt-get apt-cache dpkg-deb cpio; do
        command -v "$tool" >/dev/null || fail "cannot find $tool" "run 'make deps'"
    done
    configure_apt
    say "downloading two kernels and busybox-static"
    get_kernel 686
    get_kernel 686-pae
    download busybox-static
    root=$work/root
    mkdir -p "$root/bin" "$root/sbin" "$root/etc" "$root/proc" "$root/sys" "$root/dev" \
        "$root/modules" "$root/mnt" "$root/tmp" "$root/root" "$root/run"
    cp "$work"/busybox-static/bin/busybox "$root/bin/busybox"
    ln -s busybox "$root/bin/sh"
    cp "$here/root/init" "$root/init"
    cp "$here/root/profile" "$root/etc/profile"
    chmod 755 "$root/init"
    : >"$root/modules/order" # none: the console is all that the test uses
    printf 'root:x:0:0:root:/root:/bin/sh\n' >"$root/etc/passwd"
    pack_root "$work/out/initrd.cpio"
}

provide
