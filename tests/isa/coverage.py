#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Checks docs/processor.md, the table of what tests show of the processor.

    coverage.py [ROOT]    prints the table by sections, then the tests that it does not name; exits
                          1 when it names a test that does not exist

A test is a program of tests/isa/*.S (`name`), a function that a C test registers by TEST() or
cmocka_unit_test() (`isa-FILE: name`), or one of those of which the table need not name each: a case
of the test kernel (`kernel: name`), a function of a device's test (`DEVICE: name`), a whole test of
tests/meson.build (`name-name`).
"""

import glob
import os
import re
import sys

PROGRAM = re.compile(r"^\s*program\s+([a-z]\w*),", re.M)
TEST = re.compile(r"\b(?:TEST|T|cmocka_unit_test)\((\w+)\)")
CASE = re.compile(r"\{\"(\w+)\", test_\w+\}")
NAMED = re.compile(r"`(?:([a-z][\w-]*): )?([a-z]\w*(?:-\w+)*)`")
WHOLE = re.compile(r"^test\('(\w+)'", re.M)
QUOTED = re.compile(r"'([a-z]\w*(?:-\w+)*)(-?)'")


def tests_of(root):
    folder = os.path.join(root, "tests", "isa")
    names = set()
    for path in glob.glob(os.path.join(folder, "engines_*.S")):
        with open(path) as file:
            names.update(PROGRAM.findall(file.read()))
    for path in glob.glob(os.path.join(folder, "*.c")):
        with open(path) as file:
            program = "isa-" + os.path.basename(path)[:-2]
            tests = set(TEST.findall(file.read())) - {"name"}
            names.update(f"{program}: {name}" for name in tests)
    return names


def parts_of(root):
    """Cases of the test kernel and functions of devices' tests."""
    with open(os.path.join(root, "tests", "boot", "kernel", "kernel.c")) as file:
        names = {f"kernel: {name}" for name in CASE.findall(file.read())}
    for path in glob.glob(os.path.join(root, "tests", "dev", "*.c")):
        with open(path) as file:
            device = os.path.basename(path)[:-2]
            names.update(f"{device}: {name}" for name in TEST.findall(file.read()))
    return names


def whole_tests_of(root):
    """Names and beginnings of names ("isa-random-") that tests/meson.build has in quotes."""
    with open(os.path.join(root, "tests", "meson.build")) as file:
        text = file.read()
    quoted = QUOTED.findall(text)
    full = {name for name, dash in quoted if not dash}
    whole = {name for name in full if "-" in name} | set(WHOLE.findall(text))
    return whole | {f"{start}-{end}" for start, dash in quoted if dash for end in full}


def rows_of(root):
    """(heading, what, tests named) of each row of the tables that have a column of tests."""
    heading, has_tests = "", False
    with open(os.path.join(root, "docs", "processor.md")) as file:
        for line in file:
            cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
            if line.startswith("#"):
                heading, has_tests = line.strip("# \n"), False
            elif line.startswith("|") and cells[-1] == "test":
                has_tests = True
            elif line.startswith("|") and has_tests and not cells[0].startswith("---"):
                named = [f"{program}: {name}" if program else name
                         for program, name in NAMED.findall(cells[-1])]
                yield heading, cells[0], named


def main():
    root = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(__file__), "../..")
    exist, named, wrong, last = tests_of(root), set(), 0, None
    others = whole_tests_of(root) | parts_of(root)
    for heading, what, tests in rows_of(root):
        if heading != last:
            print(f"\n{heading}")
            last = heading
        print(f"  {what}: {', '.join(tests)}")
        named.update(tests)
        for test in tests:
            if test not in exist and test not in others:
                print(f"docs/processor.md: no test is named {test}")
                wrong += 1
        if not tests:
            print(f"docs/processor.md: no test for: {what}")
            wrong += 1
    print(f"\nnot in the table: {', '.join(sorted(exist - named))}\n")
    print(f"{len(named) - wrong} passed, {wrong} failed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
