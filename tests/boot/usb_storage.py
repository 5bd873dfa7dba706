#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""USB disks and a USB CD-ROM drive, as Linux uses them with usb-storage: read, write, compare, a disk
that is read-only, another medium, the device and the whole controller taken away while busy, saving
in the middle of it.

    usb_storage.py SKEP
"""

import hashlib
import os
import subprocess
import sys

from check import expect, expect_equal, run_guest_test
from guest import Guest, GuestTest, guest_folder

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MIB = 1 << 20
IMAGES = {"disk": 24 * MIB, "other": 2 * MIB, "iso": 4 * MIB, "iso2": 3 * MIB}
CONTROLLER = "0000:00:19.0"
DRIVER = "/sys/bus/pci/drivers/xhci_hcd"


class UsbStorage(GuestTest):
    """One guest, through all of its cases."""

    def __init__(self, skep):
        super().__init__()
        self.skep = skep
        self.socket = self.path("control")
        for name, size in IMAGES.items():
            with open(self.path(name), "wb") as file:
                file.write(os.urandom(size))

    def md5(self, name, size=-1):
        """Of an image, or of its beginning."""
        with open(self.path(name), "rb") as file:
            return hashlib.md5(file.read(size)).hexdigest()

    def media(self, *arguments):
        done = subprocess.run([self.skep, "media", *arguments[:-1], self.socket, arguments[-1]],
                              capture_output=True, text=True, check=False)
        return done.returncode

    def find(self):
        """Names by place: a port is a disk's for good, what Linux calls it is not. Nodes of our own,
        since what writes to a link would make a file where a disk has gone."""
        for port, name, kind in ((1, "disk", "sd?"), (2, "iso", "sr?"), (3, "other", "sd?")):
            where = f"/sys/bus/usb/devices/2-{port}/2-{port}:1.0/host*/target*/*/block/{kind}"
            self.run("for i in $(seq 60); do "
                     f"P=$(echo {where}); [ -e \"$P\" ] && break; sleep 1; done; [ -e \"$P\" ]")
            self.run(f"coldplug; rm -f /tmp/{name}; cp -a /dev/${{P##*/}} /tmp/{name}")

    def compare(self, name, image=None):
        """The guest reads what the image holds, past its cache."""
        self.run("echo 3 > /proc/sys/vm/drop_caches")
        expect_equal(self.run(f"md5sum /tmp/{name}").split()[0], self.md5(image or name), name)

    # ---- cases ----

    def start(self):
        files = guest_folder(ROOT, "drivers.sh")
        self.guest = Guest(
            [self.skep, "run", "-m", "256M", "--net", "none", "--control", f"unix:{self.socket}",
             "--kernel", f"{files}/vmlinuz", "--initrd", f"{files}/initrd.cpio",
             "--disk", self.path("disk") + ",bus=usb,serial=FIRST",
             "--cdrom", self.path("iso") + ",bus=usb",
             "--disk", self.path("other") + ",bus=usb,ro"], 600)
        self.guest.wait_prompt()
        self.run("echo 1 > /proc/sys/kernel/printk")
        self.find()
        expect_equal(self.run("cat /sys/bus/usb/devices/2-1/serial"), "FIRST", "its serial number")
        expect_equal(self.run("cat /sys/bus/usb/devices/2-3/serial"), "000000000003", "the default")
        expect_equal(self.run("cat /sys/bus/usb/devices/2-1/speed"), "5000", "its speed")

    def read_and_write(self):
        for name in ("disk", "iso", "other"):
            self.compare(name)
        self.run("dd if=/dev/urandom of=/tmp/w bs=1M count=6 2>/dev/null")
        self.run("dd if=/tmp/w of=/tmp/disk bs=1M conv=fsync 2>/dev/null")
        expect_equal(self.md5("disk", 6 * MIB), self.run("md5sum /tmp/w").split()[0], "written")
        self.run("dd if=/tmp/w of=/tmp/disk bs=512 count=1 seek=20001 oflag=direct 2>/dev/null")
        with open(self.path("disk"), "rb") as file:
            start = file.read(512)
            file.seek(20001 * 512)
            expect_equal(file.read(512), start, "a sector")
        status, _ = self.guest.run("dd if=/tmp/w of=/tmp/other count=1 conv=fsync 2>/dev/null")
        expect(status != 0, "a read-only disk is written to")
        self.compare("other")

    def another_medium(self):
        self.run("exec 3</tmp/iso") # holds the door
        expect_equal(self.media(self.path("iso2")), 1, "the drive is locked")
        self.run("exec 3<&-")
        expect_equal(self.media(self.path("iso2")), 0, "the drive is free")
        self.compare("iso", "iso2")
        expect_equal(self.media("eject"), 0, "eject")
        status, _ = self.guest.run("dd if=/tmp/iso of=/dev/null count=1 2>/dev/null")
        expect(status != 0, "reading an empty drive")
        expect_equal(self.media(self.path("iso")), 0, "insert")
        self.compare("iso")

    def taken_away_while_busy(self):
        """What is under way fails; then all is as before."""
        self.run("cp /tmp/w /tmp/r")
        self.run("(while dd if=/tmp/r of=/tmp/disk bs=1M oflag=direct 2>/dev/null; do :; done &)")
        self.run("sleep 1; echo 0 > /sys/bus/usb/devices/2-1/authorized")
        self.run("echo 1 > /sys/bus/usb/devices/2-1/authorized")
        self.find()
        self.compare("disk")
        self.run("(while dd if=/tmp/disk of=/dev/null bs=1M iflag=direct 2>/dev/null; do :; done &)")
        self.run(f"sleep 1; echo {CONTROLLER} > {DRIVER}/unbind")
        self.run(f"echo {CONTROLLER} > {DRIVER}/bind")
        self.find()
        for name in ("disk", "iso", "other"):
            self.compare(name)

    def save_and_restore(self):
        """In the middle of reads from all of them, and of writes."""
        saved = self.path("saved")
        for name in ("disk", "iso"):
            self.run(f"(dd if=/tmp/{name} bs=64k of=/tmp/s-{name} iflag=direct 2>/dev/null &)")
        subprocess.run([self.skep, "save", "--stop", self.socket, saved], check=True)
        self.guest.wait_exit()
        self.guest = Guest([self.skep, "run", "--restore", saved, "--control",
                            f"unix:{self.socket}"], 600)
        self.guest.send("\n")
        self.guest.wait_prompt()
        self.run("while pidof dd >/dev/null; do usleep 100000; done")
        for name in ("disk", "iso"):
            expect_equal(self.run(f"md5sum /tmp/s-{name}").split()[0], self.md5(name), name)
            self.run(f"rm /tmp/s-{name}")
        self.compare("disk")

    def power_off(self):
        expect_equal(self.guest.run("dmesg | grep -c 'reset SuperSpeed'")[1], "0",
                     "resets that the kernel needed")
        super().power_off()


def main():
    run_guest_test(UsbStorage(sys.argv[1]),
                   ("read_and_write", "another_medium", "taken_away_while_busy", "save_and_restore",
                    "power_off"))


if __name__ == "__main__":
    main()
