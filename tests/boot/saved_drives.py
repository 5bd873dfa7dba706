#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""NVMe, virtio SCSI and floppy disks are in use by Linux when the machine is saved, time and again;
restored, on translator and interpreter, they go on, and no byte is lost.

    saved_drives.py SKEP ROUNDS
"""

import hashlib
import os
import random
import re
import shutil
import sys
import tempfile
import time

from check import Checks, expect, expect_equal
from guest import Machine, guest_folder

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ENGINES = ["soft", "soft,translator=off"]
LIMIT_S = 900
# Devices, the size of a request, and how much is written and read in a turn.
DEVICES = {"nvme0n1": ("nvme", "64k", 4 << 20), "sda": ("scsi", "64k", 4 << 20),
           "fd0": ("floppy", "18k", 180 << 10)}
# Writes one of two files in turn to a device, and compares what it reads then, past the cache.
WORK = """
work() {
  turn=0
  while [ ! -e /tmp/enough ]; do
    file=/tmp/$1.$((turn % 2))
    dd if=$file of=/dev/$1 bs=$2 oflag=direct conv=notrunc 2>/dev/null || echo $1 >>/tmp/failed
    dd if=/dev/$1 bs=$2 count=$3 iflag=direct 2>/dev/null | cmp - $file || echo $1 >>/tmp/failed
    turn=$((turn + 1))
    echo $turn >/tmp/$1.turns
  done
  cp $file /tmp/$1.last
}
"""


class SavedDrives:
    """One machine."""

    def __init__(self, skep):
        self.folder = tempfile.mkdtemp(prefix="skep-test-")
        self.random = random.Random(20261128)
        files = guest_folder(ROOT, "drivers.sh")
        for name, size_bytes in (("nvme", 16 << 20), ("scsi", 8 << 20), ("floppy", 1440 << 10)):
            with open(self.path(name), "wb") as file:
                file.truncate(size_bytes)
        self.machine = Machine(skep, self.folder, ENGINES[0], [
            "-m", "256M", "-c", "2", "--net", "none", "--kernel", f"{files}/vmlinuz", "--initrd",
            f"{files}/initrd.cpio", "--disk", f"{self.path('nvme')},bus=nvme", "--disk",
            f"{self.path('scsi')},bus=scsi", "--floppy", self.path("floppy")], LIMIT_S)

    def path(self, name):
        """A file of this test."""
        return os.path.join(self.folder, name)

    def succeed(self, command):
        """Runs a command that must succeed; gives its output."""
        status, text = self.machine.run(command)
        expect_equal(status, 0, f"status of {command!r} ({text})")
        return text

    def turns(self):
        """How often each device has been written and read."""
        return [int(self.succeed(f"cat /tmp/{name}.turns")) for name in DEVICES]

    def wait_turns(self, before):
        """Until each device has been written and read again."""
        end = time.monotonic() + LIMIT_S
        while any(now <= was for now, was in zip(self.turns(), before)):
            expect(time.monotonic() < end, f"the devices stand still at {before}")
            time.sleep(0.2)

    def begin(self):
        """To the prompt; every device is at work."""
        self.machine.wait_prompt()
        self.machine.run("stty cols 999; dmesg -n 1")
        for line in WORK.strip().splitlines():
            self.machine.send(line + "\n")
        for name, (_, block, size_bytes) in DEVICES.items():
            count = size_bytes // (int(block[:-1]) << 10)
            for number in range(2):
                self.succeed(f"dd if=/dev/urandom of=/tmp/{name}.{number} bs={block} "
                             f"count={count} 2>/dev/null")
            self.succeed(f"echo 0 >/tmp/{name}.turns; work {name} {block} {count} & true")
        self.wait_turns([0] * len(DEVICES))

    def save(self, rounds):
        """Saved in the middle and restored, on one engine and the other."""
        for number in range(rounds):
            before = self.turns()
            time.sleep(self.random.random())
            self.machine.go_on(ENGINES[(number + 1) % 2])
            self.wait_turns(before)
            status, text = self.machine.run("cat /tmp/failed")
            expect(status != 0, f"failed, or read something else, after save {number}: {text}")

    def end(self):
        """What was written last is in the images, and the drivers have not complained."""
        self.succeed("touch /tmp/enough; wait")
        for name, (image, _, size_bytes) in DEVICES.items():
            found = re.search(r"[0-9a-f]{32}", self.succeed(f"md5sum /tmp/{name}.last")).group()
            with open(self.path(image), "rb") as file:
                expect_equal(hashlib.md5(file.read(size_bytes)).hexdigest(), found, image)
        status, text = self.machine.run("dmesg | grep -iwE 'timeout|i/o error|reset|abort'")
        expect(status == 1, f"the kernel complains: {text}")
        self.machine.send("poweroff -f\n")
        expect_equal(self.machine.wait_exit(), 0, "exit status")

    def close(self):
        """Ends it."""
        self.machine.__exit__()
        shutil.rmtree(self.folder, ignore_errors=True)


def main():
    checks = Checks()
    test = SavedDrives(sys.argv[1])
    try:
        checks.case("drives at work", test.begin)
        if not checks.failed:
            checks.case(f"saved {sys.argv[2]} times", test.save, int(sys.argv[2]))
            checks.case("end", test.end)
    finally:
        test.close()
    checks.finish()


if __name__ == "__main__":
    main()
