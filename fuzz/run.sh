#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# Runs every fuzz target of a build directory for some seconds each, one on each processor of the
# host, from the seeds in fuzz/seeds/TARGET and what earlier runs kept. A crash leaves its input in
# BUILD/fuzz/ and its name in the message. SEED 0 takes other inputs each time; any other number
# takes the same ones again.
#
#   fuzz/run.sh BUILD SECONDS [SEED]
set -eu

# One target: what it says goes to its log, its end to a line of its own.
run_one()
{
    target=$1 build=$2 seconds=$3 seed=$4 here=$5
    name=$(basename "$target")
    corpus=$build/fuzz/corpus-$name
    mkdir -p "$corpus"
    seeds=$here/seeds/${name#fuzz-}
    [ -d "$seeds" ] || seeds=
    if "$target" -max_total_time="$seconds" -seed="$seed" -rss_limit_mb=4096 -timeout=20 -verbosity=0 \
        -print_final_stats=1 -artifact_prefix="$build/fuzz/$name-" "$corpus" $seeds \
        >"$build/fuzz/$name.log" 2>&1; then
        executed=$(sed -n 's/^stat::number_of_executed_units: *//p' "$build/fuzz/$name.log")
        echo "fuzz: $name: $executed inputs in $seconds s"
    else
        echo "fuzz: $name: FAILED"
    fi
}

if [ "$1" = --one ]; then
    shift
    run_one "$@"
    exit
fi

build=$1
seconds=$2
seed=${3:-0}
here=$(cd "$(dirname "$0")" && pwd)
results=$build/fuzz/results
for target in "$build"/fuzz/fuzz-*; do
    [ -f "$target" ] && [ -x "$target" ] && echo "$target"
done | xargs -P "$(nproc)" -I '{}' "$here/run.sh" --one '{}' "$build" "$seconds" "$seed" \
    "$here" | tee "$results"
for name in $(sed -n 's/^fuzz: \(.*\): FAILED$/\1/p' "$results"); do
    echo "fuzz: the end of $name's log:"
    tail -n 40 "$build/fuzz/$name.log"
done
passed=$(grep -c ' inputs in ' "$results" || true)
failed=$(grep -c ': FAILED$' "$results" || true)
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" != 0 ]
