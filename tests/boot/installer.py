#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Debian's installer from a CD to an empty disk, unattended, under SeaBIOS or OVMF; the installed
system boots by its own GRUB, apt-get installs another kernel in it, and a reboot comes up in that.

    installer.py SKEP bios|uefi

It prints what is done, with seconds since the start, and keeps the serial console in
installer-bios.log or installer-uefi.log. Where the mirror lacks components of the installer it takes
others in their stead (udeb_mirror.py) and says which; where there are none, it is skipped.
"""

import os
import re
import shutil
import subprocess
import sys

from check import Checks, expect
from debian import ROOT
from debian_disk import DiskTest
from host_apt import apt_mirror, apt_proxy, as_guest
from udeb_mirror import UdebMirror

DISK_BYTES = 6 << 30
INSTALL_LIMIT_S = 4 * 3600      # only ends a hang
CMDLINE = ("auto=true priority=critical preseed/file=/preseed.cfg DEBIAN_FRONTEND=text TERM=dumb "
           "console=ttyS0 --- console=ttyS0")
# What the installer says on its way, in its order; the text before the dots.
STAGES = ("Checking the Debian archive mirror", "Loading additional components",
          "Starting up the partitioner", "Installing the base system",
          "Installing GRUB boot loader", "Finishing the installation")
# The index that udeb_mirror.py makes is not signed. What comes to the disk is authenticated as always.
OTHER_COMPONENTS = """d-i mirror/udeb/suite string {suite}
d-i debian-installer/allow_unauthenticated boolean true
d-i partman/early_command string debconf-set debian-installer/allow_unauthenticated false
d-i preseed/late_command string debconf-set debian-installer/allow_unauthenticated true
"""
QUESTION = r"Prompt: '\?' for help|\[Press enter to continue\]"


def kernel_version(path):
    """The release that a bzImage tells of itself (Linux' x86 boot protocol, kernel_version)."""
    with open(path, "rb") as file:
        data = file.read(0x10000)
    place = int.from_bytes(data[0x20e:0x210], "little") + 0x200
    return data[place:].split(b" ", 1)[0].decode()


class InstallerTest(DiskTest):
    """One installation."""

    name = "installer"
    release = "bookworm"
    other_kernel_package = "linux-image-cloud-amd64"
    mounted = {"bios": ["/dev/vda1"], "uefi": ["/dev/vda2", "/dev/vda1"]}

    def __init__(self, skep, firmware):
        super().__init__(skep, firmware)
        files = self.fetch()
        self.udebs = UdebMirror(self.release, kernel_version(f"{files}/linux"),
                                f"{files}/initrd.gz")

    def close(self):
        super().close()
        self.udebs.close()

    def not_to_be_had(self):
        """Completes the installer's components; returns the names of those that stay lacking."""
        if not self.udebs.lacking:
            return []
        lacking = self.udebs.complete()
        print("the mirror lacks components of the installer that are in its index; in their stead:")
        for name, source in self.udebs.sources.items():
            print(f"  {name}: {source}")
        print("  none: " + " ".join(sorted(set(self.udebs.lacking) - self.udebs.sources.keys())))
        return lacking

    def answers(self):
        """The preseed file."""
        with open(os.path.join(ROOT, "tests", "boot", "preseed.cfg"), encoding="ascii") as file:
            text = file.read()
        mirror, proxy = as_guest(apt_mirror()), as_guest(apt_proxy())
        if self.udebs.lacking:
            mirror, proxy = apt_mirror(), self.udebs.serve()
            text += OTHER_COMPONENTS.format(suite=self.udebs.suite)
        host, _, folder = mirror.partition("://")[2].partition("/")
        return text + (f"d-i mirror/http/hostname string {host}\n"
                       f"d-i mirror/http/directory string /{folder}\n"
                       f"d-i mirror/http/proxy string {proxy}\n"
                       f"d-i mirror/suite string {self.release}\n")

    def fetch(self):
        """The folder with the installer's kernel and initrd."""
        made = subprocess.run([os.path.join(ROOT, "guest", "installer.sh")],
                              stdout=subprocess.PIPE, check=True, text=True)
        return made.stdout.strip()

    def make_cdrom(self):
        """GRUB for both firmwares, and what it starts."""
        files = self.fetch()
        folder = os.path.join(self.folder, "cd")
        os.makedirs(f"{folder}/boot/grub")
        initrds = [f"{files}/initrd.gz", f"{self.folder}/answers.cpio"]
        with open(f"{self.folder}/preseed.cfg", "w", encoding="ascii") as file:
            file.write(self.answers())
        packed = subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], cwd=self.folder,
                                input=b"preseed.cfg\n", stdout=subprocess.PIPE, check=True)
        with open(initrds[-1], "wb") as file:
            file.write(packed.stdout)
        for source in (f"{files}/linux", *initrds):
            shutil.copy(source, folder)
        names = " ".join("/" + os.path.basename(initrd) for initrd in initrds)
        with open(f"{folder}/boot/grub/grub.cfg", "w", encoding="ascii") as file:
            file.write(f"echo grub: $grub_platform\nlinux /linux {CMDLINE}\ninitrd {names}\nboot\n")
        image = os.path.join(self.folder, "cd.iso")
        subprocess.run(["grub-mkrescue", "-o", image, folder], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return image

    def install(self):
        """Until the installed system's first login, in the same machine."""
        self.step("making the CD")
        cdrom = self.make_cdrom()
        with open(self.disk, "wb") as file:
            file.truncate(DISK_BYTES)
        self.step("starting it")
        self.guest = self.run_skep("--firmware", self.firmware, "--boot", "disk,cdrom",
                                   "--cdrom", cdrom)
        self.guest.wait_for("grub: " + {"bios": "pc", "uefi": "efi"}[self.firmware])
        for stage in STAGES:
            self.wait_stage(stage)
        self.guest.wait_for("skep login: ", INSTALL_LIMIT_S)
        self.step("login of the installed system")
        self.log_in()

    def wait_stage(self, stage):
        """A stage, or a question: nobody is there to answer one."""
        either = re.compile(f"{re.escape(stage)}|{QUESTION}".encode())
        found = self.guest.wait_for(either, INSTALL_LIMIT_S)
        expect(found.endswith(stage), f"the installer asks:\n{found[-1500:]}")
        self.step(stage)


def main():
    """Runs the cases when the mirror has what the installer wants."""
    test = InstallerTest(*sys.argv[1:3])
    checks = Checks()
    try:
        lacking = test.not_to_be_had()
        if lacking:
            print("not to be had: " + " ".join(lacking))
            sys.exit(77)
        checks.steps(test, ("install", "came_through_grub", "finished_boot", "own_entry",
                            "other_kernel", "kernel_is_content", "power_off"))
    finally:
        test.close()
    checks.finish()


if __name__ == "__main__":
    main()
