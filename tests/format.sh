#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Fails when a source file is not as clang-format with the project's file would have it.
set -eu
cd "$(dirname "$0")/.."
if git ls-files -z -- '*.c' '*.h' | xargs -0 clang-format --dry-run --Werror; then
    echo "1 passed, 0 failed"
else
    echo "hint: run 'make format'"
    echo "0 passed, 1 failed"
    exit 1
fi
