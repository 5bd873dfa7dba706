#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# Fetches Debian 12's installer for tests/boot/installer.py: the kernel and the initrd of its package
# for network boot, as they are. What it fetched is kept and found again:
#
#   guest/installer.sh      fetches it unless it is there; prints the folder that holds
#                           linux and initrd.gz
#
# The folder is $SKEP_HOME/cache/installer, or $XDG_CACHE_HOME/skep/installer
# (~/.cache/skep/installer).
set -eu

here=$(cd "$(dirname "$0")" && pwd)
name=installer
# shellcheck source=guest/common.sh
. "$here/common.sh"
package=debian-installer-12-netboot-amd64
out=$cache/installer

# The installer takes its components from the mirror, and they have to be of its kernel: an older
# package may find none.
recipe=$(apt-cache policy "$package" 2>/dev/null | sed -n 's/^ *Candidate: //p')
[ -n "$recipe" ] || fail "the package $package is not known here" \
    "run 'make deps' (it updates the package lists); it is of Debian 12"

build()
{
    say "downloading $package"
    download "$package"
    unpack "$package" all
    mv "$work"/all/usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64/linux \
        "$work"/all/usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64/initrd.gz \
        "$work/out/"
}

provide
