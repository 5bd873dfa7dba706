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
