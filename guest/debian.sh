#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# Makes a full Debian 12 for tests/boot/debian.py: systemd, udev, D-Bus, the cloud kernel with its
# own initramfs, a login on ttyS0. What it made is kept and found again:
#
#   guest/debian.sh         makes it unless it is there; prints the folder that holds
#                           debian.img (ext4, no partitions, sparse), vmlinuz, initrd.img, version
#   guest/debian.sh gcc     the same with a C compiler, for tests/boot/compile.py
#
# root's password is "skep"; the network is DHCP's. The image is never booted itself, only copies
# of it. Works as root, and as a user who has sub-ids in /etc/subuid (adduser gives them).
# The folder is $SKEP_HOME/cache/debian, or $XDG_CACHE_HOME/skep/debian (~/.cache/skep/debian); that
# with the compiler is debian-gcc beside it.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
name=debian
# shellcheck source=guest/common.sh
. "$here/common.sh"
release=bookworm
size_bytes=2147483648
packages=systemd,systemd-sysv,systemd-resolved,libpam-systemd,udev,dbus,login,util-linux,kmod,procps
packages=$packages,iproute2,iputils-ping,e2fsprogs,linux-image-cloud-amd64,initramfs-tools,zstd
recipe=$(sha256sum <"$here/debian.sh" | cut -c1-12)
out=$cache/debian
case ${1:-} in
'') ;;
gcc)
    packages=$packages,gcc,libc6-dev,make
    out=$cache/debian-gcc
    ;;
*) fail "there is no Debian '$1'" "the only one with a name is 'gcc'" ;;
esac

# The host's own mirror when the host is of this release, else Debian's.
sources()
{
    # shellcheck disable=SC2016 # apt replaces these, not the shell
    found=$(apt-get indextargets --format 'deb $(REPO_URI) $(CODENAME) $(COMPONENT)' \
        'Created-By: Packages' 'Origin: Debian' 2>/dev/null |
        grep -E " $release(-updates|-security)? main$" | sort -u) || true
    case $found in
    *" $release main"*) printf '%s\n' "$found" ;;
    *)
        printf 'deb http://deb.debian.org/debian %s main\n' "$release" "$release-updates"
        printf 'deb http://deb.debian.org/debian-security %s main\n' "$release-security"
        ;;
    esac
}

# Configures the root $1 in Debian's ways; for mmdebstrap's sh, which may not see our files.
configure_script()
{
    cat <<'END'
set -eu
root=$1
echo skep >"$root/etc/hostname"
printf '127.0.0.1\tlocalhost\n127.0.1.1\tskep\n::1\tlocalhost\n' >"$root/etc/hosts"
echo 'LABEL=debian / ext4 errors=remount-ro 0 1' >"$root/etc/fstab"
printf '[Match]\nName=en* eth*\n\n[Network]\nDHCP=ipv4\n' >"$root/etc/systemd/network/10-dhcp.network"
# Each copy is a machine of its own; an empty file is not yet a first boot to systemd.
: >"$root/etc/machine-id"
echo root:skep | chroot "$root" chpasswd
chroot "$root" systemctl --quiet enable systemd-networkd serial-getty@ttyS0
END
}

# Reads a root as a tar, writes its ext4 image of size $1. Owners are those of the tar: it runs as
# root, or as root of a user namespace, where device nodes cannot be made (devtmpfs has them all).
pack_script()
{
    cat <<'END'
set -eu
folder=$(mktemp -d "${TMPDIR:-/tmp}/skep-debian.XXXXXX")
trap 'rm -rf "$folder"' EXIT
trap 'exit 1' INT TERM
mkdir "$folder/root"
tar -x --numeric-owner --xattrs --xattrs-include='*' -C "$folder/root" --exclude='./dev/*'
truncate -s "$1" "$folder/image"
# All is laid out now, so that the guest does not do it in the background.
mkfs.ext4 -q -L debian -E lazy_itable_init=0,lazy_journal_init=0 -d "$folder/root" \
    "$folder/image" >&2
cat "$folder/image"
END
}

# Runs a command as root of its own user namespace, when not root already.
as_root()
{
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        mmdebstrap --unshare-helper "$@"
    fi
}

build()
{
    for tool in mmdebstrap apt-get mkfs.ext4; do
        command -v "$tool" >/dev/null || fail "cannot find $tool" "run 'make deps'"
    done
    mode=root
    if [ "$(id -u)" != 0 ]; then
        mode=unshare
        mmdebstrap --unshare-helper true 2>/dev/null || fail "cannot become root of a namespace" \
            "it needs newuidmap and sub-ids in /etc/subuid and /etc/subgid; or run it as root"
    fi
    say "making a root of Debian packages (some minutes)"
    sources | mmdebstrap --quiet --mode="$mode" --variant=minbase --format=tar \
        --include="$packages" --customize-hook="$(configure_script)" \
        "$release" "$work/root.tar" - >"$work/log" 2>&1 || {
        tail -n 20 "$work/log" | sed 's/^/    /' >&2
        fail "mmdebstrap did not make the root" "it needs the package mirror"
    }
    say "packing the image"
    # The last step of the packer is the image; a failure before leaves it short.
    as_root sh -c "$(pack_script)" pack "$size_bytes" <"$work/root.tar" |
        dd of="$work/debian.img" bs=64K iflag=fullblock conv=sparse status=none
    [ "$(stat -c %s "$work/debian.img")" = "$size_bytes" ] || fail "the image could not be made"
    tar -x -C "$work" --wildcards -f "$work/root.tar" './boot/vmlinuz-*' './boot/initrd.img-*'
    basename "$work"/boot/vmlinuz-* | sed 's/^vmlinuz-//' >"$work/out/version"
    mv "$work"/boot/vmlinuz-* "$work/out/vmlinuz"
    mv "$work"/boot/initrd.img-* "$work/out/initrd.img"
    mv "$work/debian.img" "$work/out/"
}

provide
