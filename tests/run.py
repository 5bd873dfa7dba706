#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Runs the tests of a build directory and adds up their cases.

    run.py BUILD [--suite NAME]… [--no-suite NAME]… [-j JOBS] [TEST…]

The suite "slow" runs only when it, or a test of it, is named.
A line per program as it ends, the tail of what failed, and last, plainly:

    N passed, N failed

A program's cases are those it tells of, in cmocka's words or by a last line of the above form. One
that tells of none counts as one, by its exit status; one that tells of no failure and yet fails
(it died, or a sanitizer spoke up at its end) has one failure more. Status 0: nothing failed.
"""

import argparse
import json
import os
import re
import subprocess
import sys

LOG_BASE = "run"
TAIL_LINES = 60

CMOCKA_END = re.compile(r"^\[=+\] (\d+) test\(s\) run\.", re.MULTILINE)
CMOCKA_PASSED = re.compile(r"^\[  PASSED  \] (\d+) test\(s\)", re.MULTILINE)
CMOCKA_FAILED = re.compile(r"^\[  FAILED  \] (\d+) test\(s\)", re.MULTILINE)
CMOCKA_SKIPPED = re.compile(r"^\[  SKIPPED \] (\d+) test\(s\)", re.MULTILINE)
OWN_COUNT = re.compile(r"^(\d+) passed, (\d+) failed$")
PROGRESS = re.compile(r"^\s*\d+/\d+\s")


def added(pattern, text):
    """The sum over a program's groups of tests; None when it tells of none."""
    numbers = [int(number) for number in pattern.findall(text)]
    return sum(numbers) if numbers else None


def count_cases(result, output):
    """(passed, failed, skipped) of one program, from meson's verdict and what it printed."""
    if result == "SKIP":
        return 0, 0, 1
    good = result in ("OK", "EXPECTEDFAIL")
    lines = output.rstrip().split("\n")
    own = OWN_COUNT.match(lines[-1].strip())
    passed, failed, skipped = 0, 0, 0
    if own:
        passed, failed = int(own.group(1)), int(own.group(2))
    elif CMOCKA_END.search(output) and added(CMOCKA_PASSED, output) is not None:
        passed = added(CMOCKA_PASSED, output)
        failed = added(CMOCKA_FAILED, output) or 0
        skipped = added(CMOCKA_SKIPPED, output) or 0
    elif good:
        passed = 1
    if not good and failed == 0:
        failed = 1
    return passed, failed, skipped


def run_meson(arguments, log):
    """Runs meson test, showing a line per program as it ends. Gives its status, and what it printed
    besides (the compiler's messages, when the build fails)."""
    if os.path.exists(log):
        os.unlink(log)
    command = ["meson", "test", "-C", arguments.build, "--logbase", LOG_BASE]
    for name in arguments.suite:
        command += ["--suite", name]
    for name in arguments.no_suite:
        command += ["--no-suite", name]
    if arguments.jobs:
        command += ["--num-processes", str(arguments.jobs)]
    command += arguments.test
    environment = dict(os.environ, PYTHONUNBUFFERED="1")
    other = []
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, errors="replace",
                          env=environment) as process:
        for line in process.stdout:
            if PROGRESS.match(line):
                print(line.rstrip(), flush=True)
            else:
                other.append(line.rstrip())
    return process.returncode, other


def read_log(log):
    """What meson wrote of each program: a JSON object a line."""
    if not os.path.exists(log):
        return []
    with open(log, encoding="utf-8", errors="replace") as file:
        return [json.loads(line) for line in file if line.strip()]


def without_good_cases(text):
    """The lines of a program's output that tell of more than a case that passed."""
    lines = text.rstrip().split("\n")
    good = {line[len("[       OK ] "):] for line in lines if line.startswith("[       OK ] ")}
    return [line for line in lines
            if not (line.startswith(("[       OK ] ", "[ RUN      ] "))
                    and line[len("[ RUN      ] "):] in good)]


def show_tail(name, result, lines):
    print(f"\n--- {name}: {result}; the end of its output:")
    for line in lines[-TAIL_LINES:]:
        print(f"    {line}")


def report(entries):
    """Shows failures; gives (passed, failed, skipped) of all programs together."""
    totals = [0, 0, 0]
    for entry in entries:
        # cmocka counts on stderr and names cases on stdout; a count of our own ends stdout.
        stdout, stderr = entry.get("stdout") or "", entry.get("stderr") or ""
        counts = count_cases(entry["result"], stderr.rstrip() + "\n" + stdout.rstrip())
        totals = [total + count for total, count in zip(totals, counts)]
        if counts[1]:
            lines = without_good_cases(stdout) + stderr.rstrip().split("\n")
            result = f"{entry['result']} (status {entry.get('returncode')})"
            show_tail(entry["name"], result, [line for line in lines if line.strip()])
    return totals


def main():
    parser = argparse.ArgumentParser(description="runs the tests and adds up their cases")
    parser.add_argument("build", help="the build directory")
    parser.add_argument("test", nargs="*", help="names of tests (default: all)")
    parser.add_argument("--suite", action="append", default=[])
    parser.add_argument("--no-suite", action="append", default=[])
    parser.add_argument("-j", "--jobs", type=int)
    arguments = parser.parse_args()
    if not arguments.suite and not arguments.test:
        arguments.no_suite.append("slow")

    log = os.path.join(arguments.build, "meson-logs", LOG_BASE + ".json")
    status, other = run_meson(arguments, log)
    entries = read_log(log)
    passed, failed, skipped = report(entries)
    if not entries or (status != 0 and failed == 0):
        # The build failed, there is no such test, or meson itself gave up.
        show_tail("meson test", f"status {status}, {len(entries)} programs run", other)
        failed += 1
    if skipped:
        print(f"\n{skipped} skipped")
    print(f"\n{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
