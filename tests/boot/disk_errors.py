#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""The host refuses writes: a Linux guest has a disk on each bus, and its drivers are told by an error,
go on with what works, and have a disk that works when the host does again.

    disk_errors.py SKEP

The host's refusal is a limit on the size of files, which the test sets once the guest runs.
"""

import os
import resource
import sys

from check import expect, expect_equal, run_guest_test
from guest import Guest, GuestTest, guest_folder

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LIMIT_BYTES = 1 << 20
PIECE_BYTES = 64 << 10
BELOW, ABOVE = 2, 20  # pieces into the disk
# A size each, by which the guest's names are found.
SIZES_KIB = {"virtio": 4096, "nvme": 5120, "ahci": 6144, "ide": 7168, "scsi": 8192, "usb": 9216,
             "floppy": 1440}


class DiskErrors(GuestTest):
    """One guest, through all of its cases."""

    power_off_command = "poweroff -f"

    def __init__(self, skep):
        super().__init__()
        self.skep = skep
        self.names = {}

    def start(self):
        command = [self.skep, "run", "-m", "256M", "--net", "none"]
        for bus, size_kib in SIZES_KIB.items():
            with open(self.path(bus), "wb") as file:
                file.truncate(size_kib << 10)
            command += ["--disk", f"{self.path(bus)},bus={bus}"]
        files = guest_folder(ROOT, "drivers.sh")
        self.guest = Guest(command + ["--kernel", f"{files}/vmlinuz", "--initrd",
                                      f"{files}/initrd.cpio"], limit_s=600)
        self.guest.wait_prompt()
        self.run("echo 1 > /proc/sys/kernel/printk")
        self.names["floppy"] = "/dev/fd0"  # which has a size once it was opened
        for bus, size_kib in list(SIZES_KIB.items())[:-1]:
            self.run("for i in $(seq 60); do "
                     f"N=$(grep -lx {size_kib * 2} /sys/block/*/size) && break; sleep 1; done")
            self.names[bus] = "/dev/" + self.run("echo $N").split("/")[3]
        expect_equal(len(set(self.names.values())), len(SIZES_KIB), f"disks: {self.names}")
        self.run("dd if=/dev/urandom of=/tmp/w bs=64k count=1 2>/dev/null")

    def write(self, bus, piece):
        """Whether the guest can write there; past its cache, which a floppy disk has in any case."""
        status, _ = self.guest.run(f"dd if=/tmp/w of={self.names[bus]} bs=64k seek={piece} "
                                   "conv=fsync oflag=direct 2>/dev/null")
        return status == 0

    def holds(self, bus, piece):
        """Whether what the guest wrote is in the image."""
        with open(self.path(bus), "rb") as file:
            file.seek(piece * PIECE_BYTES)
            return any(file.read(PIECE_BYTES))

    def refuse(self, limit):
        """Of the running skep."""
        resource.prlimit(self.guest.process.pid, resource.RLIMIT_FSIZE,
                         (limit, resource.RLIM_INFINITY))

    def refused(self):
        self.refuse(LIMIT_BYTES)
        for bus in SIZES_KIB:
            expect(not self.write(bus, ABOVE), f"{bus}: a write that the host refuses succeeds")
            expect(not self.holds(bus, ABOVE), f"{bus}: it is in the image")
            expect(self.write(bus, BELOW), f"{bus}: a write fails that the host does not refuse")
            expect(self.holds(bus, BELOW), f"{bus}: it is not in the image")

    def as_before(self):
        self.refuse(resource.RLIM_INFINITY)
        for bus in SIZES_KIB:
            expect(self.write(bus, ABOVE), f"{bus}: writes still fail")
            expect(self.holds(bus, ABOVE), f"{bus}: it is not in the image")
            self.run(f"dd if={self.names[bus]} bs=64k skip={ABOVE} count=1 2>/dev/null | "
                     "cmp - /tmp/w")


def main():
    run_guest_test(DiskErrors(sys.argv[1]), ("refused", "as_before", "power_off"))


if __name__ == "__main__":
    main()
