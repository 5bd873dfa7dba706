#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""The guest's clocks against the host's: TSC, paravirtual clock, HPET, PM timer and RTC, while the
machine runs, over pauses, and saved and restored; and what an idle Linux guest costs.

    clocks.py SKEP KERNEL32 SECONDS
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

from check import Checks, expect, expect_equal
from guest import Guest, guest_folder

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PM_HZ = 3579545
PPM = 250            # what a guest corrects by itself (NTP's limit is 500)
READ_S = 0.005       # a moment's clocks are read one after another
IDLE_PERCENT = 1


class Machine:
    """The test kernel, which prints its clocks for each byte that it is sent."""

    def __init__(self, skep, kernel, engine):
        self.skep, self.engine = skep, engine
        self.folder = tempfile.mkdtemp(prefix="skep-test-")
        self.socket = os.path.join(self.folder, "control")
        self.file = os.path.join(self.folder, "saved")
        self.guest = Guest([skep, "run", "--engine", engine, "--kernel", kernel, "-m", "64M",
                            "--net", "none", "--device", "debug-exit", "--cmdline", "k compare",
                            "--control", f"unix:{self.socket}"])
        line = self.guest.wait_for(re.compile(rb"clocks: [^\n]*\n"))
        self.rates = self.fields(line)
        self.before = self.after = 0  # of the host, around the last reading

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.guest.__exit__()
        shutil.rmtree(self.folder, ignore_errors=True)

    @staticmethod
    def fields(text):
        return {name: int(value, 16)
                for name, value in re.findall(r"(\w+)=(0x[0-9a-f]+)", text)}

    def verb(self, *arguments):
        subprocess.run([self.skep, *arguments], check=True, timeout=120)

    def read(self):
        """All clocks, and the host's time before and after."""
        before = time.monotonic()
        self.guest.send("r")
        fields = self.fields(self.guest.wait_for(re.compile(rb"clocks: tsc=[^\n]*\n")))
        return before, time.monotonic(), fields

    def pause(self, seconds):
        """(least, most) seconds that it stood still."""
        called = time.monotonic()
        self.verb("pause", self.socket)
        paused = time.monotonic()
        time.sleep(seconds)
        resumed = time.monotonic()
        self.verb("resume", self.socket)
        return resumed - paused, time.monotonic() - called

    def restore(self, seconds):
        """The same over a save and a restore in another process."""
        called = time.monotonic()
        self.verb("save", "--stop", self.socket, self.file)
        saved = time.monotonic()
        expect_equal(self.guest.wait_exit(60), 0, "status of the saved machine")
        time.sleep(seconds)
        started = time.monotonic()
        before = self.guest
        self.guest = Guest([self.skep, "run", "--restore", self.file, "--engine", self.engine,
                            "--control", f"unix:{self.socket}"])
        before.__exit__()
        self.read()
        return started - saved, time.monotonic() - called

    def end(self):
        self.guest.send("q")
        expect_equal(self.guest.wait_exit(60), 1, "exit status: 0 was written to the port")


class Elapsed:
    """Seconds that each clock counted between two readings; a PM timer of 24 bits is told its
    turns by the others, so it is compared as far as it has bits."""

    def __init__(self, rates, first, last):
        self.by = {"hpet": (last["hpet"] - first["hpet"]) * rates["hpet_fs"] / 1e15}
        if rates["tsc_khz"]:
            self.by["tsc"] = (last["tsc"] - first["tsc"]) / (rates["tsc_khz"] * 1000)
        if last["kvm"]:
            self.by["kvm"] = (last["kvm"] - first["kvm"]) / 1e9
        turn = (1 << 24) / PM_HZ
        rest = ((last["pm"] - first["pm"]) & 0xffffff) / PM_HZ
        self.by["pm"] = rest + turn * round((self.by["hpet"] - rest) / turn)


def check_rtc(fields):
    """The RTC follows the host's wall clock: hours, minutes and seconds in BCD."""
    digits = f"{fields['rtc']:06x}"
    got = int(digits[:2]) * 3600 + int(digits[2:4]) * 60 + int(digits[4:])
    wanted = int(time.time()) % 86400
    away = (got - wanted + 43200) % 86400 - 43200
    expect(-3 <= away <= 1, f"the RTC is {away} s away")  # the line was some time under way


class ClocksTest:
    """The cases."""

    def __init__(self, skep, kernel, seconds):
        self.skep, self.kernel, self.seconds = skep, kernel, seconds

    def compare(self, machine, start, still):
        """Against the host since `start`, less (least, most) seconds of `still`."""
        before, after, fields = machine.read()
        check_rtc(fields)
        elapsed = Elapsed(machine.rates, start[2], fields).by
        least, most = before - start[1] - still[1], after - start[0] - still[0]
        slack = READ_S + (most + still[1]) * PPM / 1e6
        told = ", ".join(f"{name} {value:.6f}" for name, value in sorted(elapsed.items()))
        print(f"  host {least:.6f} to {most:.6f}: {told}", flush=True)
        for name, value in elapsed.items():
            expect(least - slack <= value <= most + slack, f"{name}: {told}, host {least} to {most}")
            expect(abs(value - elapsed["hpet"]) <= slack, f"{name} against the HPET: {told}")

    def run(self, engine, disturb):
        """`disturb(machine)` in each of some rounds, None: nothing happens; tells how long the
        machine stood still."""
        rounds = 6
        with Machine(self.skep, self.kernel, engine) as machine:
            start = machine.read()
            still = [0.0, 0.0]
            for _ in range(rounds):
                time.sleep(self.seconds / 3 / rounds)
                if disturb:
                    for i, value in enumerate(disturb(machine)):
                        still[i] += value
                self.compare(machine, start, still)
            machine.end()

    def idle(self):
        """Processor time of skep's process while a Linux guest sits at its prompt."""
        files = guest_folder(ROOT)
        with Guest([self.skep, "run", "--kernel", f"{files}/vmlinuz", "--initrd",
                    f"{files}/initrd.cpio", "-m", "256M"]) as guest:
            guest.wait_prompt()
            time.sleep(10)  # what a boot leaves to be done later
            start, used = time.monotonic(), self.used_s(guest.process.pid)
            time.sleep(max(20, self.seconds / 4))
            percent = 100 * (self.used_s(guest.process.pid) - used) / (time.monotonic() - start)
            print(f"  {percent:.2f} % of a processor", flush=True)
            expect(percent < IDLE_PERCENT, f"{percent} % of a processor for an idle guest")

    @staticmethod
    def used_s(pid):
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main():
    checks = Checks()
    test = ClocksTest(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    checks.case("running", lambda: test.run("soft", None))
    checks.case("over pauses", lambda: test.run("soft", lambda machine: machine.pause(1)))
    checks.case("saved and restored", lambda: test.run("soft", lambda machine: machine.restore(1)))
    checks.case("idle", test.idle)
    checks.finish()


if __name__ == "__main__":
    main()
