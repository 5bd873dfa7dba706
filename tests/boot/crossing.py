#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""A machine that is saved on one engine and goes on with another, time and again, with its
interrupt controllers and timers in the middle of something (kernel/crossing.c).

    crossing.py SKEP KERNEL32
"""

import os
import shutil
import subprocess
import sys
import tempfile

from check import Checks, expect, expect_equal
from guest import Guest

PAIRS = [("soft", "soft,translator=off"), ("soft", "kvm"), ("kvm", "soft"), ("kvm", "kvm")]
LIMIT_S = 60


def kvm_is_usable():
    return os.access("/dev/kvm", os.R_OK | os.W_OK)


def imitates():
    """Whether this host's KVM has no hardware to rest on."""
    with open("/proc/cpuinfo", encoding="ascii") as file:
        words = file.read().split()
    return "vmx" not in words and "svm" not in words


class CrossingTest:
    """A folder for sockets and files."""

    def __init__(self, skep, kernel):
        self.skep = skep
        self.kernel = kernel
        self.folder = tempfile.mkdtemp(prefix="skep-test-")
        self.socket = os.path.join(self.folder, "control")
        self.file = os.path.join(self.folder, "saved")

    def save(self, guest):
        """Saves and ends it."""
        done = subprocess.run([self.skep, "save", "--stop", self.socket, self.file], text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
                              timeout=60)
        expect_equal((done.returncode, done.stdout), (0, ""), "what save says")
        expect_equal(guest.wait_exit(60), 0, "status of the saved machine")

    def start(self, engine, more):
        return Guest([self.skep, "--quiet", "run", "--engine", engine, "--control",
                      f"unix:{self.socket}"] + more, LIMIT_S)

    def cross(self, engines):
        """From the first to the second, back, and so on; all checks of the kernel pass."""
        guest = self.start(engines[0], ["--cpu", "x86-64", "-c", "2", "--kernel", self.kernel,
                                        "-m", "64M", "--net", "none", "--device", "debug-exit",
                                        "--device", "testdev", "--cmdline", "crossing"])
        crossings, text = 0, ""
        try:
            while True:
                text += guest.wait_for("\n")
                if text.endswith(("DONE\n", "FAILED\n")):
                    break
                if not text.endswith("READY\n"):
                    continue
                self.save(guest)
                guest.__exit__()
                crossings += 1
                engine = engines[crossings % 2]
                guest = self.start(engine, ["--restore", self.file])
                guest.send("k" if engine == "kvm" and imitates() else "s")
            bad = [line for line in text.splitlines() if not line.startswith(("PASS", "READY"))]
            expect_equal(bad, ["DONE"], f"lines that are no PASS, of {text.count('PASS')}")
            expect_equal(guest.wait_exit(), 1, "exit status")
            expect(crossings >= 3, f"{crossings} crossings")
        finally:
            guest.__exit__()

    def refused(self):
        """A machine with all that the software processor has does not go to KVM."""
        guest = self.start("soft", ["--kernel", self.kernel, "-m", "64M", "--net", "none",
                                    "--cmdline", "crossing"])
        with guest:
            guest.wait_for("READY")
            self.save(guest)
        done = subprocess.run([self.skep, "run", "--engine", "kvm", "--restore", self.file],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                              stderr=subprocess.STDOUT, check=False, timeout=60)
        expect_equal(done.returncode, 1, "status")
        expect("that those here lack" in done.stdout and "--cpu x86-64-v3" in done.stdout,
               done.stdout)

    def close(self):
        shutil.rmtree(self.folder, ignore_errors=True)


def main():
    checks = Checks()
    test = CrossingTest(*sys.argv[1:3])
    try:
        for pair in PAIRS:
            if "kvm" in pair and not kvm_is_usable():
                print(f"{pair[0]} and {pair[1]}: not run, /dev/kvm can't be used", flush=True)
                continue
            checks.case(f"{pair[0]} and {pair[1]}", lambda p=pair: test.cross(p))
        if kvm_is_usable():
            checks.case("features that KVM lacks", test.refused)
    finally:
        test.close()
    checks.finish()


if __name__ == "__main__":
    main()
