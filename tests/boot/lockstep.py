#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Boots the guest of `make run` with every translated block compared with the interpreter
(translator=check): the first difference ends skep with an error.

    lockstep.py SKEP PROCESSORS early    until the kernel has patched its code
    lockstep.py SKEP PROCESSORS whole    to the prompt, some commands, power off
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile

from check import Checks, expect, expect_equal
from guest import Guest, guest_folder

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LIMIT_S = 3600  # ends a hang; see docs/translator.md for how long it takes


class LockstepTest:
    """One guest."""

    def __init__(self, skep, processors):
        files = guest_folder(ROOT)
        self.folder = tempfile.mkdtemp(prefix="skep-test-")
        disk = os.path.join(self.folder, "disk.img")
        with open(disk, "wb") as image:
            image.truncate(64 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", disk], check=True,
                       env=dict(os.environ, PATH=os.environ["PATH"] + ":/usr/sbin:/sbin"))
        self.guest = Guest([skep, "--json", "run", "--engine", "soft,translator=check",
                            "-c", processors, "-m", "256M", "--kernel", f"{files}/vmlinuz",
                            "--initrd", f"{files}/initrd.cpio", "--disk", disk, "--stats"], LIMIT_S)

    def early(self):
        self.guest.wait_for("Freeing SMP alternatives memory")

    def prompt(self):
        self.guest.wait_prompt()
        self.guest.run("dmesg -n 1")  # keeps the kernel's messages out of what commands print

    def commands(self):
        """Of programs that use vector registers, strings, many processes."""
        status, text = self.guest.run("for i in 1 2 3; do ls -l / | wc -l; done; echo skep | sha256sum")
        expect_equal(status, 0, "status")
        expect("38c8cda4d482919cc5df4accdb4a5fd49ea42ebdf25057de7e614fbb09d84661" in text, text)

    def disk(self):
        """What a device writes into memory meanwhile must not be taken for a difference."""
        status, text = self.guest.run("dd if=/dev/urandom of=/mnt/data bs=64k count=32 2>/dev/null; "
                                      "md5sum </mnt/data >/tmp/sum; sync; "
                                      "echo 3 >/proc/sys/vm/drop_caches; md5sum </mnt/data | "
                                      "cmp - /tmp/sum && echo same")
        expect_equal((status, text), (0, "same"), "what the disk gave back")

    def power_off(self):
        self.guest.send("poweroff\n")
        expect_equal(self.guest.wait_exit(), 0, "exit status")

    def most_is_checked(self):
        """What was not compared is what can't run twice, and that is little."""
        console = self.guest.console()
        stats = json.loads(console[console.rindex("{"):])
        checked = stats["blocks_checked"]
        others = stats["blocks_checked_partly"] + stats["blocks_unchecked"]
        expect(checked > 10_000_000, f"{checked} blocks")
        expect(checked > 100 * others, f"{checked} whole, {others} not")
        expect(checked > 1000 * stats["blocks_disturbed"], f"{stats['blocks_disturbed']} disturbed")

    def close(self):
        self.guest.__exit__()
        shutil.rmtree(self.folder, ignore_errors=True)


def main():
    skep, processors, extent = sys.argv[1:4]
    checks = Checks()
    test = LockstepTest(skep, processors)
    names = ["early"] if extent == "early" else ["prompt", "commands", "disk", "power_off",
                                                 "most_is_checked"]
    try:
        checks.steps(test, names)
    finally:
        test.close()
    checks.finish()


if __name__ == "__main__":
    main()
