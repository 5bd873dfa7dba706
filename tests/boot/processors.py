#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Linux with many processors: sixteen of them in a topology, told as it was asked for; and each
but the first taken off and on again, ROUNDS times in all.

    processors.py SKEP ENGINE ROUNDS
"""

import os
import sys

from check import Checks, expect, expect_equal
from guest import Guest, guest_folder

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SYS_CPU = "/sys/devices/system/cpu"
LIMIT_S = 600


class ProcessorsTest:
    """One guest."""

    def __init__(self, skep, engine):
        files = guest_folder(ROOT)
        self.guest = Guest([skep, "run", "--engine", engine, "-c",
                            "16,sockets=2,cores=4,threads=2", "-m", "512M", "--net", "none",
                            "--kernel", f"{files}/vmlinuz", "--initrd", f"{files}/initrd.cpio"],
                           LIMIT_S)

    def boots(self):
        self.guest.wait_prompt()
        self.guest.run("dmesg -n 1")
        _, text = self.guest.run("grep -c ^processor /proc/cpuinfo")
        expect_equal(text, "16", "processors")

    def topology(self):
        """What Linux made of CPUID and the MADT, for each processor."""
        for file, wanted in (("physical_package_id", [str(i // 8) for i in range(16)]),
                             ("core_id", [str(i // 2 % 4) for i in range(16)]),
                             ("thread_siblings_list", [f"{i & ~1}-{i | 1}" for i in range(16)])):
            # Lines that are short: a line editor would break a long one.
            self.guest.run(f"cd {SYS_CPU}")
            _, text = self.guest.run(f"for i in $(seq 0 15); do cat cpu$i/topology/{file}; done")
            expect_equal(text.split(), wanted, file)

    def off_and_on(self, rounds):
        """The first 15 rounds are each processor's; then the others in turn."""
        self.guest.run(f"cd {SYS_CPU}")
        self.guest.run("t() { echo $2 >cpu$1/online; [ $(cat cpu$1/online) = $2 ] || echo bad $1; }")
        for start in range(0, rounds, 15):
            last = min(15, rounds - start)
            _, text = self.guest.run(f"for i in $(seq 1 {last}); do t $i 0; t $i 1; done")
            expect_equal(text, "", f"what rounds {start} to {start + last} complain of")
        _, text = self.guest.run("cat online")
        expect_equal(text, "0-15", "processors at the end")

    def still_works(self):
        """Interrupts reach every processor after it."""
        self.guest.run("cd /")
        self.guest.run("u() { taskset $(printf %x $((1<<$1))) true || echo bad $1; }")
        _, text = self.guest.run("for i in $(seq 0 15); do u $i; done")
        expect_equal(text, "", "processors that run nothing")
        self.guest.run("dmesg >/tmp/d")
        _, text = self.guest.run("grep -ciE 'lockup|stall|call trace' /tmp/d")
        expect_equal(text, "0", "complaints of the kernel")

    def power_off(self):
        self.guest.send("poweroff\n")
        expect_equal(self.guest.wait_exit(), 0, "exit status")


def main():
    skep, engine, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
    checks = Checks()
    test = ProcessorsTest(skep, engine)
    try:
        checks.case("sixteen processors boot", test.boots)
        if not checks.failed:
            checks.case("topology", test.topology)
            checks.case(f"off and on, {rounds} times", test.off_and_on, rounds)
            checks.case("still works", test.still_works)
            checks.case("power off", test.power_off)
    finally:
        test.guest.__exit__()
    checks.finish()


if __name__ == "__main__":
    main()
