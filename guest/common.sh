# SPDX-License-Identifier: BSD-2-Clause
#
# What the makers of guests share; read by them, not run. They set `name` before for their messages.
# shellcheck shell=sh disable=SC2034,SC2154

# Where made guests are kept.
if [ -n "${SKEP_HOME:-}" ]; then
    cache=$SKEP_HOME/cache
else
    cache=${XDG_CACHE_HOME:-$HOME/.cache}/skep
fi
# depmod and mkfs.ext4 are there also for those who have no such PATH.
PATH=$PATH:/usr/sbin:/sbin

say() { printf '%s\n' "$name: $*" >&2; }

# Ends with a message and a hint.
fail()
{
    say "$1"
    [ -z "${2:-}" ] || printf 'hint: %s\n' "$2" >&2
    exit 1
}

# Sees to it that $out has what build() makes in $work/out, by this $recipe, and prints $out. What is
# there under other names stays.
provide()
{
    if [ "$(cat "$out/recipe" 2>/dev/null)" != "$recipe" ]; then
        mkdir -p "$cache"
        work=$(mktemp -d "$cache/$name-new.XXXXXX")
        trap 'rm -rf "$work"' EXIT
        trap 'exit 1' INT TERM
        mkdir "$work/out"
        build
        mkdir -p "$out"
        rm -f "$out/recipe" # half a guest is made anew
        mv "$work"/out/* "$out/"
        printf '%s\n' "$recipe" >"$out/recipe"
        say "ready in $out"
    fi
    printf '%s\n' "$out"
}

# ---- for guests that are a kernel and an initrd: in $work, with the root in $root ----

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

# The package of the kernel that this one depends on.
kernel_package()
{
    package=$(apt-cache depends "$1" 2>/dev/null |
        sed -n 's/.*Depends: \(linux-image-[^ ]*\)$/\1/p' | head -n 1)
    [ -n "$package" ] || fail "the package $1 is not known here" \
        "run 'make deps' (it updates the package lists)"
    printf '%s\n' "$package"
}

# What needs what, in the kernel's tree $from for $version.
index_modules()
{
    # Debian 12 keeps modules under /lib, later releases under /usr/lib.
    [ -d "$from/lib/modules" ] || { mkdir -p "$from/lib" && ln -s ../usr/lib/modules "$from/lib/modules"; }
    depmod -b "$from" "$version"
}

# With busybox, and an init of this file.
make_root()
{
    root=$work/root
    mkdir -p "$root/bin" "$root/sbin" "$root/etc" "$root/proc" "$root/sys" "$root/dev" \
        "$root/modules" "$root/mnt" "$root/tmp" "$root/root" "$root/run"
    cp "$work"/busybox/bin/busybox "$root/bin/busybox" 2>/dev/null ||
        cp "$work"/busybox/usr/bin/busybox "$root/bin/busybox"
    ln -s busybox "$root/bin/sh"
    cp "${1:-$here/root/init}" "$root/init"
    cp "$here/root/udhcpc.script" "$root/etc/udhcpc.script"
    cp "$here/root/profile" "$root/etc/profile"
    chmod 755 "$root/init" "$root/etc/udhcpc.script"
    printf 'root:x:0:0:root:/root:/bin/sh\n' >"$root/etc/passwd"
    printf 'root:x:0:\n' >"$root/etc/group"
    printf '127.0.0.1 localhost\n' >"$root/etc/hosts"
}

# Owners and times are fixed, so that the same packages give the same bytes.
pack_root()
{
    find "$root" -exec touch -h -d @0 {} +
    (cd "$root" && find . | LC_ALL=C sort | cpio -o -H newc -R 0:0 --reproducible --quiet) >"$1"
}
