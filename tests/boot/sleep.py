#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Suspend to memory (ACPI S3) as Linux does it, with disks and cards of several kinds: the RTC's
alarm and the power button wake it, it is paused, saved and restored while it sleeps.

    sleep.py SKEP
"""

import hashlib
import os
import re
import subprocess
import sys
import time

from check import expect, expect_equal, run_guest_test
from guest import Guest, GuestTest, guest_folder

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MIB = 1 << 20
DISKS = ["virtio", "nvme", "ahci", "scsi", "usb"]
LIMIT_S = 120


class Sleep(GuestTest):
    """One guest, through all of its cases."""

    def __init__(self, skep):
        super().__init__()
        self.skep = skep
        self.socket = self.path("control")
        self.sleeps = 0
        self.sums = []
        for name in DISKS:
            content = os.urandom(2 * MIB)
            self.sums.append(hashlib.md5(content).hexdigest())
            with open(self.path(name), "wb") as file:
                file.write(content)

    def verb(self, *arguments):
        done = subprocess.run([self.skep, *arguments], capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    def wait_asleep(self):
        end = time.monotonic() + LIMIT_S
        while "asleep" not in self.verb("status", self.socket):
            expect(time.monotonic() < end, "it does not sleep")
            time.sleep(0.2)

    def fall_asleep(self):
        """Returns while it sleeps; what wakes it is the button alone."""
        self.guest.send("echo mem > /sys/power/state; echo awa''ke\n")
        self.wait_asleep()

    def press(self):
        subprocess.run([self.skep, "stop", self.socket], check=True)

    def check_awake(self):
        """It has slept once more, and everything works."""
        self.sleeps += 1
        expect_equal(self.run("cat /sys/power/suspend_stats/success"), str(self.sleeps), "sleeps")
        expect_equal(self.run("nproc"), "2", "processors")
        expect_equal(self.run("cat /tmp/kept"), "kept", "a file in memory")
        self.run("echo 3 > /proc/sys/vm/drop_caches")
        sums = re.findall(r"[0-9a-f]{32}", self.run("md5sum /dev/vda /dev/nvme0n1 /dev/sd?"))
        expect_equal(sorted(sums), sorted(self.sums), "what is on the disks")
        self.run("ping -c 1 -W 30 10.0.2.2")

    # ---- cases ----

    def start(self):
        files = guest_folder(ROOT, "drivers.sh")
        disks = []
        for name in DISKS:
            disks += ["--disk", f"{self.path(name)},bus={name}"]
        self.guest = Guest(
            [self.skep, "--quiet", "run", "-m", "256M", "-c", "2", "--control",
             f"unix:{self.socket}", "--kernel", f"{files}/vmlinuz", "--initrd",
             f"{files}/initrd.cpio", *disks], LIMIT_S)
        self.guest.wait_prompt()
        self.run("echo 1 > /proc/sys/kernel/printk; echo kept > /tmp/kept")
        self.run("for i in $(seq 60); do [ $(ls /dev/sd? | wc -l) = 3 ] && break; sleep 1; done")
        expect("mem" in self.run("cat /sys/power/state"), "it can't suspend to memory")

    def woken_by_the_clock(self):
        for _ in range(3):
            self.run("echo 0 > /sys/class/rtc/rtc0/wakealarm")
            self.run("echo +3 > /sys/class/rtc/rtc0/wakealarm")
            before = int(self.run("date +%s"))
            self.run("echo mem > /sys/power/state")
            expect(int(self.run("date +%s")) - before >= 2, "it has not slept until the alarm")
            self.check_awake()

    def woken_by_the_button(self):
        self.fall_asleep()
        self.press()
        self.guest.wait_for("awake")
        self.check_awake()

    def paused_asleep(self):
        self.fall_asleep()
        self.verb("pause", self.socket)
        expect("paused" in self.verb("status", self.socket), "it is not paused")
        self.verb("resume", self.socket)
        expect("asleep" in self.verb("status", self.socket), "it does not sleep on")
        self.press()
        self.guest.wait_for("awake")
        self.check_awake()

    def saved_asleep(self):
        saved = self.path("saved")
        self.fall_asleep()
        subprocess.run([self.skep, "save", "--stop", self.socket, saved], check=True)
        self.guest.wait_exit()
        self.guest = Guest([self.skep, "--quiet", "run", "--restore", saved, "--control",
                            f"unix:{self.socket}"], LIMIT_S)
        self.wait_asleep()
        self.press()
        self.guest.wait_for("awake")
        self.check_awake()


def main():
    run_guest_test(Sleep(sys.argv[1]),
                   ("woken_by_the_clock", "woken_by_the_button", "paused_asleep", "saved_asleep",
                    "power_off"))


if __name__ == "__main__":
    main()
