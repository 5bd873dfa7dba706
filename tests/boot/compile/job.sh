#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# Of tests/boot/compile.py, on the host and in the guest alike: compiles lines of the list `units`
# beside it, runs what are programs, and prints a name and a checksum for each file that came out.
#
#   job.sh FIRST COUNT OUT      lines FIRST and on; the files are left in OUT
#
# A line is: object|program NAME FILE FLAGS…
set -eu
out=$3
cd "$(dirname "$0")"
export LC_ALL=C
mkdir -p "$out"
sum()
{
    digest=$(sha256sum <"$out/$1")
    printf '%s %s\n' "$1" "${digest%% *}"
}
sed -n "$1,$(($1 + $2 - 1))p" units >"$out/list"
while read -r kind name file flags; do
    # shellcheck disable=SC2086 # one word a flag
    gcc -frandom-seed="$name" $flags -Isrc -c -o "$out/$name.o" "$file"
    sum "$name.o"
    [ "$kind" = program ] || continue
    gcc -o "$out/$name" "$out/$name.o" -lm
    "$out/$name" >"$out/$name.txt"
    sum "$name"
    sum "$name.txt"
done <"$out/list"
