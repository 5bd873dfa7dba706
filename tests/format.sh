#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Fails when a source file is not as clang-format with the project's file would have it.
set -eu
cd "$(dirname "$0")/.."
bad=0
for file in $(git ls-files -- '*.c' '*.h'); do
    [ -e "$file" ] || continue
    if ! clang-format --dry-run --Werror "$file" >/dev/null 2>&1; then
        echo "not formatted: $file (run 'make format')"
        bad=$((bad + 1))
    fi
done
[ "$bad" = 0 ] && echo "1 passed, 0 failed" || echo "0 passed, 1 failed"
[ "$bad" = 0 ]
