#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Runs the test kernel (tests/boot/kernel) as test suites run: a Multiboot image, COM1, ports 0xf4
and 0x2000, fw_cfg; and small ROMs at the reset vector.

    kernel.py SKEP KERNEL32 KERNEL64            all of it; what takes long for some seconds only
    kernel.py SKEP KERNEL32 KERNEL64 SECONDS    what processors see of each other (litmus.c), that
                                                long each of the cases
"""

import os
import shutil
import subprocess
import sys
import tempfile

from check import Checks, expect, expect_equal

LIMIT_S = 60
ENGINES = ["soft", "soft,translator=eager", "soft,translator=off"]
LITMUS = ["lock", "barrier", "message", "store", "iriw"]
CASES = ["loader", "devices", "apic", "timers", "nmi", "ioapic", "ids", "smp", "init", "clock", "mmio", "paging", "mwait", "sleep"]

# At 0xfff0 a far jump to f000:0000; there 'R' goes to COM1, 'L' to the parallel port, 0x7f to the
# PS/2's POST port, and the high byte of CS, which tells that this is the copy below 1 MiB, to 0xf4.
ROM_CODE = bytes.fromhex("b052baf803ee" "b04cba7803ee" "b07fba9001ee" "8cc888e0e6f4f4")
ROM_RESET = bytes.fromhex("ea000000f0")
# What fw_cfg has as the command line, to COM1; then 0 to 0xf4.
ROM_CMDLINE = bytes.fromhex("ba1005b81500ef" "ba1105ec84c07406" "baf803eeebf2" "e6f4f4")


def rom_of(code):
    """A ROM of 64 KiB that begins with this code."""
    image = bytearray(b"\xff" * 0x10000)
    image[:len(code)] = code
    image[0xfff0:0xfff0 + len(ROM_RESET)] = ROM_RESET
    return bytes(image)


class KernelTest:
    """The files of the test, and one run after another."""

    def __init__(self, skep, kernel_32, kernel_64):
        self.skep = skep
        self.kernel_32 = kernel_32
        self.kernel_64 = kernel_64
        self.folder = tempfile.mkdtemp(prefix="skep-test-")

    def path(self, name, content=b""):
        """A file of the test's folder with this content."""
        path = os.path.join(self.folder, name)
        with open(path, "wb") as file:
            file.write(content)
        return path

    def skep_run(self, arguments, limit_s=LIMIT_S):
        """Runs skep; returns (status, what came on the console)."""
        done = subprocess.run([self.skep, "--quiet", "run", "--net", "none"] + arguments,
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=limit_s,
                              check=False)
        return done.returncode, done.stdout.decode(errors="replace") + done.stderr.decode()

    def run_kernel(self, engine, processors, cases, kernel=None, more=(), limit_s=LIMIT_S):
        """All of the cases must pass; returns what was printed."""
        status, text = self.skep_run(
            ["--engine", engine, "--kernel", kernel or self.kernel_32, "-c", str(processors), "-m",
             "64M", "--device", "debug-exit", "--device", "testdev", "--cmdline", cases, *more],
            limit_s)
        bad = [line for line in text.splitlines()
               if not line.startswith(("PASS", "module: ", "litmus: "))]
        expect_equal(bad, ["DONE"], f"lines that are no PASS, of {text.count('PASS')}")
        expect_equal(status, 1, "exit status: 0 was written to the port")
        expect(text.count("PASS") > 3, text)
        return text

    def litmus(self, engine, case, seconds):
        """Prints how often each outcome came."""
        text = self.run_kernel(engine, 4, f"kernel {case} seconds={seconds}",
                               limit_s=20 * seconds + LIMIT_S)
        lines = [line for line in text.splitlines() if line.startswith("litmus: ")]
        expect(lines, "four processors, and no outcomes")
        for line in lines:
            print("  " + line[len("litmus: "):], flush=True)

    def modules(self):
        """Each --initrd is a module, or several; the text behind the file's name is its own."""
        one = self.path("one", b"first\0")
        two = self.path("two", b"second\0")
        three = self.path("a,comma", b"third\0").replace(",", ",,")
        text = self.run_kernel("soft", 1, "loader", None,
                               ["--initrd", f"{one} a b,{two}", "--initrd", f"{three} c,,d"])
        found = [line[8:] for line in text.splitlines() if line.startswith("module: ")]
        expect_equal(found, ["a b: first", ": second", "c,d: third"], "modules")

    def failure_is_told(self):
        """Without the test device its case fails: the kernel says so, and so does the status."""
        status, text = self.skep_run(["--engine", "soft", "--kernel", self.kernel_32, "-m", "64M",
                                      "--device", "debug-exit,port=0xf4", "--cmdline", "devices"])
        expect("FAIL: " in text, text)
        expect_equal(status, text.count("FAIL: ") << 1 | 1, "exit status")

    def exit_port(self):
        """A ROM that writes 5 to a port of the user's choice."""
        rom = self.path("rom", rom_of(bytes.fromhex("b005baf405eef4")))
        for port in ("0x5f4", "1524"):
            status, _ = self.skep_run(["--engine", "soft", "--rom", rom, "-m", "16M", "--device",
                                       f"debug-exit,port={port}"])
            expect_equal(status, 11, "exit status")

    def pinned(self):
        """On the host's processor that was named; one that is not there is refused."""
        allowed = sorted(os.sched_getaffinity(0))
        self.run_kernel("soft", 2, "smp", None, ["--pin", f"0:{allowed[-1]}", "--pin",
                                                 f"1:{allowed[0]}"])
        for pins, word in ((["0:1023"], "pin vCPU"), (["2:0"], "only 2"), (["0"], "VCPU:HOSTCPU"),
                           (["0:0", "0:0"], "already")):
            arguments = ["--kernel", self.kernel_32, "-c", "2"]
            for pin in pins:
                arguments += ["--pin", pin]
            status, text = self.skep_run(arguments)
            expect(status in (1, 2) and word in text, f"{status}: {text}")

    def post_and_device_options(self):
        post = self.path("post")
        self.run_kernel("soft", 1, "devices", None, ["--post", f"file:{post}"])
        with open(post, "rb") as file:
            expect_equal(file.read(), b"\x42\x43", "what was written to the POST ports")

    def rom(self):
        for size in (4096, 0x10000, 0x40000):
            image = bytearray(b"\xff" * size)
            image[max(0, size - 0x10000):max(0, size - 0x10000) + len(ROM_CODE)] = ROM_CODE
            reset = ROM_RESET
            if size < 0x10000:  # then the code is further up in the segment
                reset = b"\xea" + (0x10000 - size).to_bytes(2, "little") + b"\x00\xf0"
            image[size - 16:size - 16 + len(reset)] = reset
            lpt, post = self.path("lpt"), self.path("post")
            for engine in ENGINES:
                status, text = self.skep_run(
                    ["--engine", engine, "--rom", self.path("rom", bytes(image)), "-m", "16M",
                     "--exit-port", "--parallel", f"file:{lpt},strobe=off", "--post",
                     f"file:{post}"])
                expect_equal((status, text), ((0xf0 << 1 | 1) & 0xff, "R"), f"ROM of {size}")
                with open(lpt, "rb") as file:
                    expect_equal(file.read()[-1:], b"L", "the parallel port")
                with open(post, "rb") as file:
                    expect_equal(file.read()[-1:], b"\x7f", "the POST port")

    def command_line_of_a_rom(self):
        """A ROM is told its command line by fw_cfg."""
        rom = self.path("rom", rom_of(ROM_CMDLINE))
        status, text = self.skep_run(["--engine", "soft", "--rom", rom, "-m", "16M", "--device",
                                      "debug-exit", "--cmdline", "a command line"])
        expect_equal((status, text), (1, "a command line"), "what the ROM prints")

    def bad_roms(self):
        for content, word in ((b"x" * 100, "4096"), (bytes(9 << 20), "8 MiB"), (b"", "empty")):
            status, text = self.skep_run(["--rom", self.path("rom", content)])
            expect(status == 1 and word in text, text)

    def close(self):
        shutil.rmtree(self.folder, ignore_errors=True)


def main():
    checks = Checks()
    test = KernelTest(*sys.argv[1:4])
    only_litmus = len(sys.argv) > 4
    seconds = int(sys.argv[4]) if only_litmus else 2
    try:
        for engine in ENGINES:
            for case in LITMUS:
                checks.case(f"{engine}: {case}, 4 processors, {seconds} s",
                            lambda e=engine, c=case: test.litmus(e, c, seconds))
        if only_litmus:
            return
        for engine in ENGINES:
            for case in CASES:
                checks.case(f"{engine}: {case}, 2 processors",
                            lambda e=engine, c=case: test.run_kernel(e, 2, c))
        checks.case("one processor", lambda: test.run_kernel("soft", 1, ""))
        checks.case("5 processors", lambda: test.run_kernel("soft", 5, "apic ids smp"))
        checks.case("33 processors, three clusters of x2APIC",
                    lambda: test.run_kernel("soft", 33, "apic ids smp"))
        checks.case("64 processors",
                    lambda: test.run_kernel("soft", 64, "loader devices ids"))
        for topology in ("12,sockets=2,cores=3,threads=2", "3,cores=3", "12,sockets=4,threads=3",
                         "60,cores=5,threads=3"):
            checks.case(f"-c {topology}",
                        lambda t=topology: test.run_kernel("soft", t, "ids"))
        checks.case("ELF of 64 bits",
                    lambda: test.run_kernel("soft", 2, "", test.kernel_64))
        checks.methods(test, ("modules", "failure_is_told", "exit_port", "pinned",
                              "post_and_device_options", "rom", "command_line_of_a_rom", "bad_roms"))
    finally:
        test.close()
        checks.finish()


if __name__ == "__main__":
    main()
