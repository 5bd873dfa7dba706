# SPDX-License-Identifier: BSD-2-Clause
"""Counts cases for tests that are scripts: each case is a function, its exceptions are failures."""

import sys
import traceback


class Checks:
    """Runs cases one after another; main() prints the count that tests/run.py reads."""

    def __init__(self):
        self.passed = 0
        self.failed = 0

    def case(self, name, function, *arguments):
        """Runs function(*arguments) as the case `name`."""
        print(f"{name} …", flush=True)
        try:
            function(*arguments)
        except Exception:  # any failure of a case is told, and the next one runs
            traceback.print_exc(file=sys.stdout)
            print(f"{name}: FAILED", flush=True)
            self.failed += 1
        else:
            self.passed += 1

    def methods(self, test, names):
        """Runs methods of `test` as cases, each whatever became of the others."""
        for name in names:
            self.case(name.replace("_", " "), getattr(test, name))

    def steps(self, test, names):
        """The same, up to the first failure: each needs what was before it."""
        for name in names:
            if not self.failed:
                self.methods(test, [name])

    def finish(self):
        """Prints the count and ends the program."""
        print(f"{self.passed} passed, {self.failed} failed")
        sys.exit(1 if self.failed or not self.passed else 0)


def run_guest_test(test, names):
    """A program of cases in one guest: test.start boots it, and when it is up the methods `names`
    are cases; then test.close(), the count, and the end of the program."""
    checks = Checks()
    try:
        checks.case("boots to a prompt", test.start)
        if not checks.failed:
            checks.methods(test, names)
    finally:
        test.close()
    checks.finish()


def expect(condition, message):
    """An assertion that python -O does not remove."""
    if not condition:
        raise AssertionError(message)


def expect_equal(got, wanted, what):
    """The same for two values."""
    if got != wanted:
        raise AssertionError(f"{what}: got {got!r}, wanted {wanted!r}")
