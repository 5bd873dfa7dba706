#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Boots 32-bit systems: Debian's kernels with and without PAE, each with a 32-bit busybox, and the
64-bit kernel of the small guest with the same busybox, whose programs run in compatibility mode.

    i386.py SKEP ENGINE PROCESSORS
"""

import os
import sys

from check import Checks, expect, expect_equal
from guest import Guest, guest_folder

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LIMIT_S = 3600  # ends a hang


SUM = f"{sum(i / (i * i + 3.5) for i in range(1, 1001)):.6f}"


def boot(skep, engine, processors, kernel, initrd, machine):
    """To the prompt, some commands, power off."""
    command = [skep, "run", "--engine", engine, "-c", processors, "-m", "256M", "--net", "none",
               "--kernel", kernel, "--initrd", initrd]
    with Guest(command, LIMIT_S) as guest:
        guest.wait_prompt()
        guest.run("dmesg -n 1")  # keeps the kernel's messages out of what commands print
        status, text = guest.run("uname -m")
        expect_equal((status, text.strip()), (0, machine), "the kernel's machine")
        status, text = guest.run("grep -c ^processor /proc/cpuinfo")
        expect_equal((status, text.strip()), (0, processors), "processors")
        # Strings, 64-bit sums of 32-bit registers, x87 and SSE, many processes.
        status, text = guest.run("for i in 1 2 3; do ls -l / | wc -l; done; echo skep | sha256sum")
        expect_equal(status, 0, "status")
        expect("38c8cda4d482919cc5df4accdb4a5fd49ea42ebdf25057de7e614fbb09d84661" in text, text)
        status, text = guest.run(
            "awk 'BEGIN {for (i = 1; i <= 1000; i++) s += i / (i * i + 3.5); printf \"%.6f\\n\", s}'")
        expect_equal((status, text.strip()), (0, SUM), "a sum of floating-point numbers")
        status, text = guest.run("dd if=/dev/zero bs=64k count=16 2>/dev/null | gzip | gunzip | md5sum")
        expect("b6d81b360a5672d80c27430f39153e2c" in text, text)
        guest.send("poweroff\n")
        expect_equal(guest.wait_exit(), 0, "exit status")


def main():
    skep, engine, processors = sys.argv[1:4]
    files, wide = guest_folder(ROOT, "i386.sh"), guest_folder(ROOT)
    initrd = f"{files}/initrd.cpio"
    checks = Checks()
    for kernel, machine in (("686", "i686"), ("686-pae", "i686")):
        checks.case(f"kernel {kernel}", boot, skep, engine, processors, f"{files}/vmlinuz-{kernel}",
                    initrd, machine)
    checks.case("compatibility mode", boot, skep, engine, processors, f"{wide}/vmlinuz", initrd,
                "x86_64")
    checks.finish()


if __name__ == "__main__":
    main()
