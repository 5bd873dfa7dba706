#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Disks and CD-ROM drives on AHCI and IDE, as a Linux guest uses them with its own drivers: read,
write, compare, trim, resets while busy, changing what is in a drive, saving in the middle of it all.

    drives.py SKEP ENGINE
"""

import hashlib
import os
import subprocess
import sys

from check import expect, expect_equal, run_guest_test
from guest import Guest, GuestTest, guest_folder

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MIB = 1 << 20
DISK_BYTES = 48 * MIB


def md5(path, size_bytes=None):
    """Of a file, or of its beginning."""
    with open(path, "rb") as file:
        return hashlib.md5(file.read(size_bytes)).hexdigest()


class DrivesTest(GuestTest):
    """One guest, through all of its cases."""

    def __init__(self, skep, engine):
        super().__init__()
        self.skep = skep
        self.socket = os.path.join(self.folder, "control")
        self.engine = engine
        self.files = {}
        for name, size in [("ahci.img", DISK_BYTES), ("ide.img", DISK_BYTES), ("a.iso", 4 * MIB),
                           ("b.iso", 3 * MIB)]:
            path = os.path.join(self.folder, name)
            with open(path, "wb") as file:
                file.write(os.urandom(size))
            self.files[name] = path

    def command(self, more):
        """How skep is started."""
        return [self.skep, "run", "--engine", self.engine, "-m", "512M", "--net", "none",
                "--control", f"unix:{self.socket}",
                "--disk", self.files["ahci.img"] + ",bus=ahci,serial=FIRST",
                "--disk", self.files["ide.img"] + ",bus=ide",
                "--cdrom", self.files["a.iso"], "--cdrom", "none,bus=ide"] + more

    def media(self, *arguments):
        """`skep media`; its exit status and what it says."""
        done = subprocess.run([self.skep, "media", *arguments[:-1], self.socket, arguments[-1]],
                              capture_output=True, text=True, check=False)
        return done.returncode, done.stderr

    def md5_in_guest(self, device, mib):
        """Past the guest's cache."""
        self.run("echo 3 > /proc/sys/vm/drop_caches")
        self.run(f"dd if={device} of=/tmp/x bs=64k count={mib * 16} 2>/dev/null")
        return self.run("md5sum /tmp/x").split()[0]

    # ---- cases ----

    def start(self):
        """Boots to the prompt; the disks have names by their drivers."""
        files = guest_folder(ROOT, "drivers.sh")
        self.guest = Guest(self.command(["--kernel", f"{files}/vmlinuz", "--initrd",
                                         f"{files}/initrd.cpio"]))
        self.guest.wait_prompt()
        self.guest.run("dmesg -n 1")
        for name, driver in [("AHCI", "1f.2"), ("IDE", "1f.1")]:
            for kind, pattern in [("disk", "sd?"), ("drive", "sr?")]:
                path = f"/sys/devices/pci*/*{driver}/ata*/host*/target*/*/block/{pattern}"
                self.run(f"P=$(echo {path}); [ -e $P ]")
                self.run(f"ln -s /dev/${{P##*/}} /tmp/{name}-{kind}")

    def write_and_read(self):
        for name, image in [("AHCI", "ahci.img"), ("IDE", "ide.img")]:
            disk = f"/tmp/{name}-disk"
            expect_equal(self.md5_in_guest(disk, 8), md5(self.files[image], 8 * MIB), name)
            self.run("dd if=/dev/urandom of=/tmp/w bs=1M count=8 2>/dev/null")
            self.run(f"dd if=/tmp/w of={disk} bs=128k conv=fsync 2>/dev/null")
            written = self.run("md5sum /tmp/w").split()[0]
            expect_equal(md5(self.files[image], 8 * MIB), written, f"what {name} wrote")
            # One sector alone, at once on the disk.
            self.run(f"dd if=/tmp/w of={disk} bs=512 count=1 seek=20001 oflag=direct 2>/dev/null")
            with open(self.files[image], "rb") as file:
                start = file.read(512)
                file.seek(20001 * 512)
                expect_equal(file.read(512), start, f"a sector of {name}")

    def queued(self):
        """Native command queuing: eight writers at once, with commands of their own each."""
        disk = "/tmp/AHCI-disk"
        self.run(f"Q=/sys/block/$(basename $(readlink {disk}))/device")
        expect_equal(self.run("cat $Q/queue_depth"), "32",
                     "depth of the queue")
        self.run("dd if=/dev/urandom of=/tmp/w bs=1M count=8 2>/dev/null; rm -f /tmp/failed")
        self.run(f"w() {{ dd if=/tmp/w of={disk} bs=16k skip=$((64 * $1)) seek=$((64 * $1)) count=64 "
                 "oflag=direct 2>/dev/null || touch /tmp/failed; }")
        self.run("for i in 0 1 2 3 4 5 6 7; do w $i & done; wait; [ ! -e /tmp/failed ]")
        expect_equal(md5(self.files["ahci.img"], 8 * MIB), self.run("md5sum /tmp/w").split()[0],
                     "what the writers wrote")

    def trim(self):
        disk, path = "/tmp/AHCI-disk", self.files["ahci.img"]
        before = os.stat(path).st_blocks
        self.run(f"blkdiscard -o {16 * MIB} -l {4 * MIB} {disk}")
        expect(os.stat(path).st_blocks <= before - 4 * MIB // 512, "the file has become smaller")

    def reset_while_busy(self):
        """Each scan resets the link; what is under way then is done again."""
        for name, image in [("AHCI", "ahci.img"), ("IDE", "ide.img")]:
            disk = f"/tmp/{name}-disk"
            self.run(f"dd if={disk} of=/tmp/r bs=256k iflag=direct 2>/dev/null & J=$!")
            self.run(f"B=/sys/block/$(basename $(readlink {disk}))/device")
            self.run("H=$(readlink -f $(readlink -f $B)/../..)")
            for _ in range(3):
                self.run("echo '- - -' > $H/scsi_host/*/scan; sleep 1")
            self.run("while [ -d /proc/$J ]; do sleep 1; done")
            expect_equal(self.run("md5sum /tmp/r").split()[0], md5(self.files[image]), name)
            self.run("rm /tmp/r")

    def driver_again(self):
        """The driver goes while the disk is read, and comes again: the whole controller is reset."""
        path, drivers = "0000:00:1f.2", "/sys/bus/pci/drivers/ahci"
        self.run("(dd if=/tmp/AHCI-disk of=/tmp/r bs=256k iflag=direct 2>/dev/null &)")
        self.run(f"echo {path} > {drivers}/unbind")
        self.run(f"echo {path} > {drivers}/bind; rm -f /tmp/r; coldplug")
        self.run("for i in 1 2 3 4 5; do [ -b /tmp/AHCI-disk ] && break; coldplug; done")
        # It may have another name now.
        self.run("P=$(echo /sys/devices/pci*/*1f.2/ata*/host*/target*/*/block/sd?)")
        self.run("ln -sf /dev/${P##*/} /tmp/AHCI-disk")
        self.run("P=$(echo /sys/devices/pci*/*1f.2/ata*/host*/target*/*/block/sr?)")
        self.run("ln -sf /dev/${P##*/} /tmp/AHCI-drive")
        expect_equal(self.md5_in_guest("/tmp/AHCI-disk", 8), md5(self.files["ahci.img"], 8 * MIB),
                     "the disk")

    def change_media(self):
        a, b = self.files["a.iso"], self.files["b.iso"]
        drive = "/tmp/AHCI-drive"
        expect_equal(self.md5_in_guest(drive, 4), md5(a), "the first image")
        # Locked while it is open.
        self.run(f"exec 3<{drive}")
        status, text = self.media(b)
        expect_equal(status, 1, text)
        expect("locked" in text, text)
        self.run("exec 3<&-")
        expect_equal(self.media(b), (0, ""), "change")
        expect_equal(self.md5_in_guest(drive, 3), md5(b), "the second image")
        self.run(f"S=/sys/block/$(basename $(readlink {drive}))/size")
        expect_equal(self.run("cat $S"), str(3 * MIB // 512), "its size")
        expect_equal(self.media("eject"), (0, ""), "eject")
        status, _ = self.guest.run(f"dd if={drive} of=/dev/null count=1 2>/dev/null")
        expect_equal(status, 1, "reading an empty drive")
        # The other drive was empty.
        status, _ = self.guest.run("dd if=/tmp/IDE-drive of=/dev/null count=1 2>/dev/null")
        expect_equal(status, 1, "reading an empty drive")
        expect_equal(self.media("--drive", "cdrom1", a), (0, ""), "insert")
        expect_equal(self.md5_in_guest("/tmp/IDE-drive", 4), md5(a), "in the IDE drive")
        status, text = self.media("--drive", "cdrom2", a)
        expect_equal(status, 1, text)

    def save_and_restore(self):
        """In the middle of reads from all of them; media are those that were changed to."""
        saved = os.path.join(self.folder, "saved")
        for name in ("AHCI-disk", "IDE-disk", "IDE-drive"):
            self.run(f"(dd if=/tmp/{name} bs=64k of=/tmp/s-{name} iflag=direct 2>/dev/null &)")
        subprocess.run([self.skep, "save", "--stop", self.socket, saved], check=True)
        self.guest.wait_exit()
        self.guest = Guest([self.skep, "run", "--restore", saved, "--control",
                            f"unix:{self.socket}"])
        self.guest.send("\n")
        self.guest.wait_prompt()
        self.run("while pidof dd >/dev/null; do usleep 100000; done")
        for name, image in [("AHCI-disk", "ahci.img"), ("IDE-disk", "ide.img"),
                            ("IDE-drive", "a.iso")]:
            expect_equal(self.run(f"md5sum /tmp/s-{name}").split()[0], md5(self.files[image]), name)

    def power_off(self):
        expect_equal(self.guest.run("dmesg | grep -ci 'frozen\\|exception Emask'")[1], "0",
                     "errors that the kernel tells of")
        super().power_off()


def main():
    run_guest_test(DrivesTest(sys.argv[1], sys.argv[2]),
                   ("write_and_read", "queued", "trim", "reset_while_busy", "driver_again", "change_media",
                    "save_and_restore", "power_off"))


if __name__ == "__main__":
    main()
