#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# Runs every fuzz target of a build directory for some seconds each, from an empty corpus and the
# seeds in fuzz/seeds/TARGET. A crash leaves its input in BUILD/fuzz/ and its name in the message.
#
#   fuzz/run.sh BUILD SECONDS
set -eu

build=$1
seconds=$2
here=$(cd "$(dirname "$0")" && pwd)
passed=0
failed=0
for target in "$build"/fuzz/fuzz-*; do
    [ -f "$target" ] && [ -x "$target" ] || continue
    name=$(basename "$target")
    corpus=$build/fuzz/corpus-$name
    mkdir -p "$corpus"
    seeds=$here/seeds/${name#fuzz-}
    [ -d "$seeds" ] || seeds=
    echo "fuzz: $name for $seconds s"
    if "$target" -max_total_time="$seconds" -rss_limit_mb=4096 -timeout=20 -verbosity=0 \
        -print_final_stats=1 -artifact_prefix="$build/fuzz/$name-" "$corpus" $seeds \
        >"$build/fuzz/$name.log" 2>&1; then
        passed=$((passed + 1))
        grep -E 'number_of_executed_units|peak_rss' "$build/fuzz/$name.log" | sed 's/^/    /'
    else
        failed=$((failed + 1))
        tail -n 40 "$build/fuzz/$name.log"
    fi
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" != 0 ]
