#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""What a Linux guest makes of the processor's debug registers, single step, protection keys,
alignment checks and MTRRs: a program of its own in the guest, and what the kernel tells.

    debug.py SKEP ENGINE PROGRAM      PROGRAM: debug_guest.c, linked statically
"""

import os
import shutil
import subprocess
import sys

from check import expect, expect_equal, run_guest_test
from guest import Guest, GuestTest, guest_folder

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def make_initrd(folder, program):
    """An archive with the program as /bin/debug-guest, to be joined to the guest's."""
    os.makedirs(os.path.join(folder, "root", "bin"))
    shutil.copy(program, os.path.join(folder, "root", "bin", "debug-guest"))
    archive = os.path.join(folder, "more.cpio")
    with open(archive, "wb") as out:
        subprocess.run(["cpio", "--quiet", "-o", "-H", "newc"], input=b"bin/debug-guest\n",
                       stdout=out, cwd=os.path.join(folder, "root"), check=True)
    return archive


class DebugTest(GuestTest):
    """One guest, through all of its cases."""

    def __init__(self, skep, engine, program):
        super().__init__()
        self.command = [skep, "run", "--engine", engine, "-m", "512M"]
        self.program = program

    def start(self):
        """Boots to the prompt."""
        files = guest_folder(ROOT)
        archive = make_initrd(self.folder, self.program)
        self.guest = Guest(self.command + ["--kernel", f"{files}/vmlinuz", "--initrd",
                                           f"{files}/initrd.cpio", "--initrd", archive])
        self.guest.wait_prompt()
        self.guest.run("dmesg -n 1")

    def tell(self, what, wanted):
        status, text = self.guest.run(f"debug-guest {what}")
        expect_equal(status, 0, f"status of {what}: {text}")
        expect_equal(text, wanted, what)

    def breakpoints(self):
        self.tell("breakpoints", "data 3 code 3 exit 7")

    def single_step(self):
        self.tell("steps", "per round 2 exit 3")

    def branch_step(self):
        self.tell("blocks", "per round 1 exit 3")

    def protection_keys(self):
        self.tell("keys", "key 1 no-write 1 no-access 1 free 1")

    def alignment_check(self):
        self.tell("alignment", "refused 1")

    def memory_types(self):
        _, text = self.guest.run("cat /proc/mtrr")
        expect("uncachable" in text, f"/proc/mtrr: {text}")

    def registers(self):
        """The kernel tells of each MSR that it wants and can't have."""
        _, text = self.guest.run("dmesg | grep -ci 'unchecked MSR'")
        expect_equal(text, "0", "MSRs refused to the kernel")


def main():
    run_guest_test(DebugTest(*sys.argv[1:4]),
                   ("breakpoints", "single_step", "branch_step", "protection_keys",
                    "alignment_check", "memory_types", "registers", "power_off"))


if __name__ == "__main__":
    main()
